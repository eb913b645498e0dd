//! `zig build simulate -- [--steps N] [--seed S] [--faults cuts,kills,errors,shorts,full,intruders,damage]
//! [--theme NAME] [--trace] [--plant NAME,NAME|all] [--jobs N] [--fuzz CASES]`: the simulator of the image engine as a program (docs/engine.md).

const std = @import("std");
const os = @import("os/os.zig");
const plant = @import("plant.zig");
const sim = @import("image/sim/sim.zig");
const linux = std.os.linux;

/// Builds the planted bugs in.
pub const perm_simulator = true;

/// Unless told otherwise; of each planted bug at most.
const plain_steps = 1_000_000;
const planted_steps = 20_000_000;

const Settings = struct {
    steps: ?u64 = null,
    seed: u64 = 1,
    options: sim.Options = .{},
    plants: std.EnumSet(plant.Plant) = .initEmpty(),
    fuzz: u64 = 0,
    /// Processes at a time, where there are many planted bugs.
    jobs: usize = 2,
};

pub fn main(init: std.process.Init) !void {
    var settings: Settings = .{};
    var args = init.minimal.args.iterate();
    _ = args.next();
    while (args.next()) |arg| {
        if (std.mem.eql(u8, arg, "--trace")) {
            settings.options.trace = true;
            continue;
        }
        const value = args.next() orelse return usage(arg);
        if (std.mem.eql(u8, arg, "--steps")) {
            settings.steps = std.fmt.parseInt(u64, value, 10) catch return usage(arg);
        } else if (std.mem.eql(u8, arg, "--seed")) {
            settings.seed = std.fmt.parseInt(u64, value, 10) catch return usage(arg);
        } else if (std.mem.eql(u8, arg, "--faults")) {
            settings.options.faults = .{ .cuts = false, .kills = false, .errors = false, .shorts = false, .full = false, .intruders = false, .damage = false };
            var names = std.mem.tokenizeScalar(u8, value, ',');
            names: while (names.next()) |name| {
                inline for (@typeInfo(sim.Faults).@"struct".fields) |field| if (std.mem.eql(u8, name, field.name)) {
                    @field(settings.options.faults, field.name) = true;
                    continue :names;
                };
                return usage(name);
            }
        } else if (std.mem.eql(u8, arg, "--theme")) {
            settings.options.theme = std.meta.stringToEnum(sim.Theme, value) orelse return usage(value);
        } else if (std.mem.eql(u8, arg, "--jobs")) {
            settings.jobs = std.math.clamp(std.fmt.parseInt(usize, value, 10) catch return usage(arg), 1, jobs_max);
        } else if (std.mem.eql(u8, arg, "--fuzz")) {
            settings.fuzz = std.fmt.parseInt(u64, value, 10) catch return usage(arg);
        } else if (std.mem.eql(u8, arg, "--plant")) {
            if (std.mem.eql(u8, value, "all")) {
                settings.plants = .initFull();
                settings.plants.remove(.none);
            } else {
                var names = std.mem.tokenizeScalar(u8, value, ',');
                while (names.next()) |name| settings.plants.insert(std.meta.stringToEnum(plant.Plant, name) orelse return usage(name));
            }
        } else return usage(arg);
    }
    if (!sim.supported) fatal("the simulator knows x86-64 only\n", .{});
    if (settings.fuzz > 0) return fuzz(settings);
    if (settings.plants.count() > 1) return everyPlant(settings);
    var single = settings.plants.iterator();
    if (single.next()) |which| plant.active = which;
    const found = run(settings, null);
    if (found) std.process.exit(1);
}

fn usage(what: []const u8) noreturn {
    fatal("Cannot read \"{s}\"; usage: simulate [--steps N] [--seed S] [--faults cuts,kills,errors,shorts,full,intruders,damage] [--theme NAME] [--trace] [--plant NAME,NAME|all] [--jobs N] [--fuzz CASES]\n", .{what});
}

fn fatal(comptime format: []const u8, args: anytype) noreturn {
    std.debug.print(format, args);
    std.process.exit(2);
}

/// What a child tells its parent while it runs, and when it traps.
const Progress = struct {
    seed: u64 = 0,
    steps: u64 = 0,
    theme: sim.Theme = .any,
    found: bool = false,
    text_len: usize = 0,
    text: [400]u8 = undefined,

    fn say(self: *Progress, what: []const u8) void {
        self.text_len = @min(what.len, self.text.len);
        @memcpy(self.text[0..self.text_len], what[0..self.text_len]);
    }
};

const jobs_max = 16;
/// A planted bug's process says here why it trapped.
var trapped_in: ?*Progress = null;

/// True when a violation was found.
fn run(settings: Settings, progress: ?*Progress) bool {
    const world = std.heap.smp_allocator.create(sim.World) catch fatal("no memory\n", .{});
    world.init(settings.options);
    const start = os.nowNs();
    var seed = settings.seed;
    const steps_max: u64 = settings.steps orelse if (progress != null) planted_steps else plain_steps;
    while (world.counts.steps < steps_max) : (seed += 1) {
        if (progress) |told| told.seed = seed;
        world.run(seed);
        if (progress) |told| {
            told.steps = world.counts.steps;
            told.theme = world.theme;
        }
        const what = world.failure orelse continue;
        if (progress) |told| {
            told.found = true;
            told.say(what);
        } else std.debug.print("FAILED: {s}\nseed {d}, after {d} steps of its world: simulate --seed {d} --steps 1 --trace\n", .{ what, seed, world.machine.steps, seed });
        return true;
    }
    if (progress != null) return false;
    const counts = world.counts;
    const seconds = @as(f64, @floatFromInt(os.nowNs() - start)) / 1e9;
    std.debug.print(
        \\{d} steps in {d:.1} s, {d:.0} a second; seeds {d} to {d}, no violation
        \\{d} power cuts, {d} kills, {d} failed calls, {d} damages; {d} sessions, {d} of them readers
        \\{d} commits, {d} asked for in the background, {d} of these written under the hold, {d} failed; {d} folds
        \\{d} bases past the page cache, {d} over the one before, {d} logs in the space of those before; {d} epochs read back and compared
        \\{d} folds by themselves; {d} copies; {d} flushes of shared heaps, {d} found with a mark, {d} at rest under it
        \\
    , .{
        counts.steps,      seconds,        @as(f64, @floatFromInt(counts.steps)) / seconds, settings.seed,  seed - 1,
        counts.cuts,       counts.kills,   counts.failures,                                 counts.damages, counts.sessions,
        counts.readers,    counts.commits, counts.asked,                                    counts.held,    counts.failed,
        counts.folds,      counts.piped,   counts.soles,                                    counts.rooms,   counts.checked,
        counts.idle_folds, counts.copies,  counts.flushes,                                  counts.marked,  counts.rests,
    });
    return false;
}

/// Each case in turn; one that traps or does not end names itself.
fn fuzz(settings: Settings) void {
    const state = std.heap.smp_allocator.create(sim.Fuzz) catch fatal("no memory\n", .{});
    state.init();
    const start = os.nowNs();
    // Without a thread nobody tells of a case that does not end.
    _ = os.Thread.spawn(watch, null) catch null;
    for (settings.seed..settings.seed + settings.fuzz) |seed| {
        case = seed;
        state.run(seed);
    }
    const seconds = @as(f64, @floatFromInt(os.nowNs() - start)) / 1e9;
    std.debug.print("{d} cases in {d:.1} s: {d} opened, {d} refused, none trapped; {d} KiB of memory at most\n", .{
        settings.fuzz, seconds, state.opened, state.refused, std.posix.getrusage(std.posix.rusage.SELF).maxrss,
    });
}

var case: u64 = 0;

fn watch(_: ?*anyopaque) callconv(.c) ?*anyopaque {
    var before: u64 = 0;
    while (true) {
        const wait: linux.timespec = .{ .sec = 20, .nsec = 0 };
        _ = linux.nanosleep(&wait, null);
        const now = @as(*volatile u64, &case).*;
        if (now == before) fatal("case {d} does not end: simulate --fuzz 1 --seed {d}\n", .{ now, now });
        before = now;
    }
}

pub const panic = std.debug.FullPanic(namingPanic);

fn namingPanic(message: []const u8, first: ?usize) noreturn {
    if (trapped_in) |told| {
        told.say(message);
        std.c.abort();
    }
    if (case > 0) std.debug.print("TRAPPED: simulate --fuzz 1 --seed {d}\n", .{case});
    std.debug.defaultPanic(message, first);
}

/// Each planted bug, in worlds that follow one another as they do without it, until it is noticed or the
/// steps are used up. A process of its own for each: some end in a trap, which is being caught too.
fn everyPlant(settings: Settings) !void {
    const count = @typeInfo(plant.Plant).@"enum".fields.len;
    const Table = [count]Progress;
    const memory = try std.posix.mmap(null, @sizeOf(Table), .{ .READ = true, .WRITE = true }, .{ .TYPE = .SHARED, .ANONYMOUS = true }, -1, 0);
    const table: *Table = @ptrCast(memory.ptr);
    const Child = struct { pid: i32 = 0, which: plant.Plant = .none };
    var children: [jobs_max]Child = @splat(.{});
    var state: [count]enum { unwanted, wanted, noticed, trapped, missed } = @splat(.unwanted);
    var wanted = settings.plants.iterator();
    while (wanted.next()) |which| state[@intFromEnum(which)] = .wanted;
    std.debug.print("{s:<26} {s:>9} {s:>8} {s:<9} {s}\n", .{ "planted", "steps", "seed", "theme", "noticed as" });
    var each = settings.plants.iterator();
    var printed: usize = 0;
    var missed: usize = 0;
    var steps_total: u64 = 0;
    const start = os.nowNs();
    while (true) {
        var running: usize = 0;
        for (children[0..settings.jobs]) |*child| {
            if (child.pid == 0) if (each.next()) |which| {
                table[@intFromEnum(which)] = .{};
                child.* = .{ .which = which };
                const pid = std.c.fork(); // the C library's: a trap raises its signal by the number that it remembers
                if (pid == 0) {
                    plant.active = which;
                    trapped_in = &table[@intFromEnum(which)];
                    std.process.exit(if (run(settings, &table[@intFromEnum(which)])) 1 else 0);
                }
                child.pid = pid;
            };
            running += @intFromBool(child.pid > 0);
        }
        while (printed < count) : (printed += 1) {
            const which: plant.Plant = @enumFromInt(printed);
            const told = &table[printed];
            const text = switch (state[printed]) {
                .unwanted => continue,
                .wanted => break,
                .missed => "NOT NOTICED",
                .noticed, .trapped => told.text[0..told.text_len],
            };
            missed += @intFromBool(state[printed] == .missed);
            steps_total += told.steps;
            std.debug.print("{t:<26} {d:>9} {d:>8} {t:<9} {s}{s}\n", .{ which, told.steps, told.seed, told.theme, if (state[printed] == .trapped) "a trap: " else "", text });
        }
        if (running == 0) break;
        var status: u32 = 0;
        const ended: i32 = @intCast(linux.waitpid(-1, &status, 0));
        for (&children) |*child| if (child.pid == ended) {
            const index = @intFromEnum(child.which);
            state[index] = if (linux.W.IFSIGNALED(status)) .trapped else if (table[index].found) .noticed else .missed;
            child.* = .{};
        };
    }
    const seconds = @as(f64, @floatFromInt(os.nowNs() - start)) / 1e9;
    std.debug.print("{d} planted, {d} not noticed; from seed {d}, {d} steps in {d:.0} s\n", .{ settings.plants.count(), missed, settings.seed, steps_total, seconds });
    if (missed > 0) std.process.exit(1);
}
