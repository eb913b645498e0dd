//! One simulated world: a machine, up to three processes, the model that judges them, and a scheduler
//! that decides by a seed who goes on, what fails and when all of it ends.
//!
//! Invariant: a seed and the same options give the same world, step by step.

const std = @import("std");
const os = @import("../../os/os.zig");
const pagemap = @import("../../os/pagemap.zig");
const actor_ = @import("actor.zig");
const damage = @import("damage.zig");
const fiber = @import("fiber.zig");
const machine_ = @import("machine.zig");
const model_ = @import("model.zig");
const scenarios = @import("scenarios.zig");
const sharing = @import("sharing.zig");
const stage = @import("stage.zig");
const trials = @import("trials.zig");
const Actor = actor_.Actor;
const Fiber = fiber.Fiber;

pub const Faults = struct {
    /// Power cuts, killed processes, calls that fail, short reads and writes, a full medium.
    cuts: bool = true,
    kills: bool = true,
    errors: bool = true,
    shorts: bool = true,
    full: bool = true,
    /// Files put where an image's is going to be.
    intruders: bool = true,
    /// Bits that flip, files cut and exchanged, at rest.
    damage: bool = true,
};

pub const Options = struct {
    faults: Faults = .{},
    trace: bool = false,
    /// Steps of one world.
    world_steps: u64 = 4000,
    /// The theme of all worlds; null: each has its own.
    theme: ?Theme = null,
};

/// What happens more often than elsewhere in a world: some rules matter in rare histories only.
pub const Theme = enum {
    any,
    /// Crashes soon after crashes.
    restarts,
    /// New images over old ones, commits that fail and are tried again.
    first,
    /// One image of two opened and closed beside a heap that goes on.
    pair,
    /// Folds, and going back beside them.
    folds,
    /// One new base after another.
    bases,
    /// The same in one process, with crashes where names change and soon after syncs that failed.
    renames,
    /// Short records, many of which fail and are tried again, beside readers.
    attempts,
    /// After a record that failed, or one that came in its place, the image is opened anew, and the power fails.
    returns,
    /// Several processes claim an image that is not there yet, and mostly leave it so.
    claims,
    /// Shared heaps only.
    slots,
    /// Processes stand still for long, some beside a writer that makes one base after another; names cannot
    /// be removed, nor files opened twice.
    scarce,
    /// What even so comes too seldom, step by step: beside readers (scenarios.zig), and around one failure
    /// or crash each (trials.zig).
    scenes,
    trials,
    /// Commits asked for while others are under way, and a power cut at a sync.
    asked,
};

/// Seeds in a row take the themes in turn, with and without a planted bug.
const rotation = [_]Theme{
    .any,      .renames, .attempts, .first,  .folds,   .returns, .slots,    .any,   .bases, .renames, .pair,   .attempts,
    .restarts, .any,     .renames,  .claims, .returns, .folds,   .attempts, .first, .any,   .slots,   .scarce, .scenes,
    .pair,     .scarce,  .trials,   .asked,
};

pub const Counts = struct {
    steps: u64 = 0,
    cuts: u64 = 0,
    kills: u64 = 0,
    damages: u64 = 0,
    failures: u64 = 0,
    sessions: u64 = 0,
    readers: u64 = 0,
    commits: u64 = 0,
    failed: u64 = 0,
    folds: u64 = 0,
    /// Commits asked for in the background; those written while the heap was held; bases written past
    /// the page cache.
    asked: u64 = 0,
    held: u64 = 0,
    piped: u64 = 0,
    soles: u64 = 0,
    rooms: u64 = 0,
    checked: u64 = 0,
    copies: u64 = 0,
    /// Of shared heaps: flushes, files found with a mark, and those that rested under it.
    flushes: u64 = 0,
    marked: u64 = 0,
    rests: u64 = 0,
    /// Folds that came by themselves.
    idle_folds: u64 = 0,
    worlds: u64 = 0,
};

const process_count = 3;
const foreign_name = "a-log-0123456789abcdef";
const foreign_text = "no image's";
const idle_max = 1 << 20;

pub const World = struct {
    machine: machine_.Machine,
    model: model_.Model = .{},
    shared: sharing.Known = .{},
    processes: [process_count]machine_.Process = undefined,
    actors: [process_count]Actor = undefined,
    options: Options,
    counts: Counts = .{},
    failure: ?[]const u8 = null,
    failure_buffer: [512]u8 = undefined,
    /// Of this world.
    pages: usize = 32,
    keep: u32 = 1,
    two: bool = false,
    foreign: bool = false,
    folds_slow: bool = false,
    base_pages_min: u64 = 8,
    sealed_len_min: u64 = 0,
    spare_len_min: u64 = 0,
    room_len_min: u64 = 0,
    piped_pages_min: u64 = 0,
    staging_pages_max: u64 = 0,
    threadless: bool = false,
    asked_percent: u32 = 0,
    /// Folds come by themselves: bytes of log, and how long nothing comes before.
    idle: bool = false,
    log_limit: u64 = 0,
    idle_ns: u64 = 0,
    ticks: u64 = 0,
    /// One session in so many, percent, is of a shared heap; one step in so many makes a copy.
    shared_percent: u32 = 0,
    copies_percent: u32 = 0,
    copied: bool = false,
    theme: Theme = .any,
    /// Who writes soon closes.
    brief: bool = false,
    /// What fails are commits rather than openings.
    spares: bool = false,
    running: usize = 1,
    fails_one_in: u32 = 0,
    short_one_in: u32 = 0,
    /// The last epoch ended with a crash.
    crashed: bool = false,
    value: u32 = 0,
    heaps: u32 = 0,

    /// Takes memory and stacks once, for any number of worlds. Must not move.
    pub fn init(self: *World, options: Options) void {
        self.* = .{ .machine = .init(0), .options = options };
        for (&self.processes, 0..) |*process, id| process.* = .{ .machine = &self.machine, .id = @intCast(id) };
        for (&self.actors, &self.processes) |*actor, *process| actor.* = .init(self, process);
        os.waits = fiber.yield;
        os.threads = .{ .spawn = spawn, .join = join };
        os.time = null;
        os.drops = drop;
        active = self;
        pagemap.script = Actor.scan;
    }

    pub fn deinit(self: *World) void {
        os.waits = null;
        os.threads = null;
        os.time = null;
        os.drops = null;
        pagemap.script = null;
        for (&self.actors) |*actor| actor.deinit();
        self.model.deinit();
        self.shared.deinit();
        self.machine.deinit();
    }

    /// Time passes with what happens, and with looking at it.
    fn now() u64 {
        active.ticks += 1;
        return 1_000_000 + active.machine.steps * 1000 + active.ticks;
    }

    fn drop(address: usize, len: usize) void {
        active.machine.dropPages(address, len);
    }

    /// A thread of the process that runs now; none outside processes.
    fn spawn(entry: *const fn (?*anyopaque) callconv(.c) ?*anyopaque, context: ?*anyopaque) ?usize {
        const owner = (fiber.current orelse return null).owner;
        for (&active.actors[owner].threads, 0..) |*thread, index| if (thread.joined) {
            thread.joined = false;
            thread.entry = entry;
            thread.context = context;
            thread.fiber.start(actor_.Thread.run, thread);
            return index;
        };
        return null;
    }

    fn noThread(_: *const fn (?*anyopaque) callconv(.c) ?*anyopaque, _: ?*anyopaque) ?usize {
        return null;
    }

    fn join(id: usize) void {
        const thread = &active.actors[fiber.current.?.owner].threads[id];
        while (!thread.fiber.ended) fiber.yield();
        thread.joined = true;
    }

    pub fn fail(self: *World, comptime format: []const u8, args: anytype) void {
        if (self.failure != null) return;
        self.failure = std.fmt.bufPrint(&self.failure_buffer, format, args) catch self.failure_buffer[0..];
        if (self.machine.trace) std.debug.print("** {s}\n", .{self.failure.?});
    }

    /// Runs one world; what it found stands in `failure`.
    pub fn run(self: *World, seed: u64) void {
        self.machine.deinit();
        self.machine = .init(seed);
        self.machine.trace = self.options.trace;
        self.machine.processes = &self.processes;
        // Nothing of an earlier world decides what happens in this one.
        for (&self.processes) |*process| process.* = .{ .machine = &self.machine, .id = process.id };
        self.model.clear();
        self.shared.clear();
        self.copied = false;
        self.ticks = 0;
        os.time = now;
        defer os.time = null;
        self.failure = null;
        self.value = 0;
        self.crashed = false;
        self.heaps = 0;
        self.choose(seed);
        if (self.theme == .scenes or self.theme == .trials) return self.playSteps();
        if (self.machine.trace) std.debug.print("theme {t}, {d} pages, {d} processes\n", .{ self.theme, self.pages, self.running });
        while (self.failure == null and self.machine.steps < self.options.world_steps) self.epoch();
        self.endAll();
        if (self.failure == null) self.calmEnd();
        self.counts.steps += self.machine.steps;
        self.counts.failures += self.machine.failures;
        self.counts.kills += self.machine.kills;
        self.counts.piped += self.machine.directs;
        self.counts.soles += self.machine.soles;
        self.counts.rooms += self.machine.rooms;
        self.counts.worlds += 1;
    }

    fn playSteps(self: *World) void {
        if (self.machine.trace) std.debug.print("theme {t}\n", .{self.theme});
        os.threads = .{ .spawn = noThread, .join = join };
        defer os.threads = .{ .spawn = spawn, .join = join };
        self.counts.worlds += 1;
        const before = stage.steps;
        defer self.counts.steps += stage.steps - before;
        const random = self.machine.random();
        const outcome = if (self.theme == .scenes) scenarios.play(random) else trials.play(random);
        if (outcome catch |err| @errorName(err)) |what| self.fail("{s}", .{what});
    }

    /// What kind of world it is.
    fn choose(self: *World, seed: u64) void {
        const random = self.machine.random();
        const faults = self.options.faults;
        self.pages = ([_]usize{ 6, 24, 40, 64 })[random.uintLessThan(usize, 4)];
        self.keep = ([_]u32{ 1, 1, 2, 3 })[random.uintLessThan(usize, 4)];
        self.folds_slow = random.boolean();
        self.two = random.boolean();
        self.base_pages_min = ([_]u64{ 2, 8, 20, 1024 })[random.uintLessThan(usize, 4)];
        self.sealed_len_min = ([_]u64{ 0, 40_000, std.math.maxInt(u64) })[random.uintLessThan(usize, 3)];
        self.spare_len_min = ([_]u64{ 0, 0, 60_000, std.math.maxInt(u64) })[random.uintLessThan(usize, 4)];
        self.theme = self.options.theme orelse rotation[@intCast(seed % rotation.len)];
        self.piped_pages_min = ([_]u64{ 0, 20, 4096 })[random.uintLessThan(usize, 3)];
        self.staging_pages_max = ([_]u64{ 3, 40, 4096, 4096 })[random.uintLessThan(usize, 4)];
        self.threadless = random.uintLessThan(u8, 6) == 0;
        self.asked_percent = ([_]u32{ 0, 30, 90 })[random.uintLessThan(usize, 3)];
        self.running = ([_]usize{ 1, 1, 1, 2, 3 })[random.uintLessThan(usize, 5)];
        self.fails_one_in = if (faults.errors) ([_]u32{ 0, 25, 60, 200 })[random.uintLessThan(usize, 4)] else 0;
        self.short_one_in = if (faults.shorts) ([_]u32{ 0, 10 })[random.uintLessThan(usize, 2)] else 0;
        self.machine.switches_one_in = ([_]u32{ 2, 5, 20 })[random.uintLessThan(usize, 3)];
        self.machine.sync_turns_max = if (random.boolean()) 40 else 0;
        self.foreign = random.uintLessThan(u8, 4) == 0;
        if (self.theme == .first and faults.errors) self.fails_one_in = 80;
        if (self.foreign) self.machine.create(foreign_name, foreign_text);
        self.machine.no_allocate = random.uintLessThan(u8, 4) == 0;
        self.machine.no_copy = random.uintLessThan(u8, 4) == 0;
        self.machine.no_exclusive_rename = random.uintLessThan(u8, 8) == 0;
        self.machine.no_direct = random.uintLessThan(u8, 3) == 0;
        if (self.theme == .pair) self.two = true;
        if (self.theme == .pair) self.running = 1;
        self.machine.no_exchange = random.uintLessThan(u8, 8) == 0;
        self.idle = random.uintLessThan(u8, 3) == 0;
        self.log_limit = ([_]u64{ 30_000, 90_000, 400_000 })[random.uintLessThan(usize, 3)];
        self.idle_ns = ([_]u64{ 1000, 20_000, 200_000 })[random.uintLessThan(usize, 3)];
        self.shared_percent = ([_]u32{ 0, 0, 0, 40 })[random.uintLessThan(usize, 4)];
        self.copies_percent = ([_]u32{ 0, 0, 6 })[random.uintLessThan(usize, 3)];
        self.room_len_min = ([_]u64{ 0, 0, 30_000, std.math.maxInt(u64) })[random.uintLessThan(usize, 4)];
        if (self.theme == .bases) {
            self.base_pages_min = 2;
            self.spare_len_min = 0;
            self.room_len_min = 0;
            self.machine.no_allocate = false;
            self.machine.no_exchange = false;
            self.running = 2;
            if (faults.errors) self.fails_one_in = 60;
        }
        self.brief = self.theme == .scarce and random.boolean();
        self.spares = switch (self.theme) {
            .first, .renames, .attempts, .returns => true,
            else => false,
        };
        self.suitTheme();
    }

    /// What a theme takes instead.
    fn suitTheme(self: *World) void {
        const random = self.machine.random();
        const faults = self.options.faults;
        switch (self.theme) {
            .renames => {
                self.pages = 6;
                self.base_pages_min = 2;
                self.spare_len_min = 0;
                self.machine.no_exchange = random.uintLessThan(u8, 3) == 0;
                self.running = 1;
                self.two = random.uintLessThan(u8, 4) == 0;
                self.keep = ([_]u32{ 1, 1, 1, 2, 3 })[random.uintLessThan(usize, 5)];
                self.copies_percent = 0;
                self.shared_percent = 0;
                self.asked_percent = 0;
                if (faults.errors) self.fails_one_in = 300;
            },
            .attempts => {
                self.pages = 24;
                self.machine.sync_turns_max = 120;
                self.base_pages_min = 1024;
                self.running = 2;
                self.two = random.uintLessThan(u8, 3) == 0;
                self.keep = ([_]u32{ 1, 3 })[random.uintLessThan(usize, 2)];
                self.shared_percent = 0;
                self.copies_percent = 0;
                self.asked_percent = ([_]u32{ 0, 30, 90 })[random.uintLessThan(usize, 3)];
                if (faults.errors) self.fails_one_in = ([_]u32{ 6, 25 })[random.uintLessThan(usize, 2)];
            },
            .returns => {
                self.pages = 6;
                self.base_pages_min = 1024;
                self.running = 1;
                self.two = false;
                self.shared_percent = 0;
                self.copies_percent = 0;
                self.asked_percent = 0;
                if (faults.errors) self.fails_one_in = ([_]u32{ 100, 6 })[random.uintLessThan(usize, 2)];
            },
            .claims => {
                self.pages = 6;
                self.two = false;
                self.running = 3;
                self.machine.switches_one_in = ([_]u32{ 5, 20 })[random.uintLessThan(usize, 2)];
                self.copies_percent = 0;
                self.shared_percent = 0;
                self.fails_one_in = 0;
            },
            .scarce => {
                self.pages = ([_]usize{ 6, 24, 40 })[random.uintLessThan(usize, 3)];
                self.base_pages_min = 2;
                self.spare_len_min = 0;
                self.room_len_min = 0;
                self.machine.no_exchange = false;
                self.machine.no_allocate = false;
                self.machine.switches_one_in = 5;
                self.machine.stalls_one_in = ([_]u32{ 0, 30, 100 })[random.uintLessThan(usize, 3)];
                self.machine.stays_one_in = ([_]u32{ 0, 2, 8 })[random.uintLessThan(usize, 3)];
                self.machine.again_one_in = ([_]u32{ 0, 3 })[random.uintLessThan(usize, 2)];
                self.running = 2;
                self.two = false;
                self.keep = ([_]u32{ 1, 1, 1, 2 })[random.uintLessThan(usize, 4)];
                self.copies_percent = 0;
                self.shared_percent = 0;
                self.asked_percent = 0;
                if (faults.errors) self.fails_one_in = ([_]u32{ 0, 200 })[random.uintLessThan(usize, 2)];
            },
            .asked => {
                self.pages = 24;
                self.base_pages_min = 1024;
                self.running = 1;
                self.two = false;
                self.shared_percent = 0;
                self.copies_percent = 0;
                self.asked_percent = 95;
                self.staging_pages_max = 4096;
                if (faults.errors) self.fails_one_in = ([_]u32{ 0, 60 })[random.uintLessThan(usize, 2)];
            },
            .slots => {
                self.shared_percent = 100;
                self.running = ([_]usize{ 1, 1, 2 })[random.uintLessThan(usize, 3)];
                if (faults.errors) self.fails_one_in = 60;
            },
            else => {},
        }
    }

    /// How the next epoch ends, and which calls fail in it.
    fn chooseCrash(self: *World) void {
        const machine = &self.machine;
        const random = machine.random();
        const faults = self.options.faults;
        const after_crash = self.crashed;
        const was_kill = machine.crash == .kill;
        const cut = if (faults.cuts and faults.kills) random.boolean() else faults.cuts;
        machine.crash = if (cut) .cut else if (faults.kills) .kill else .none;
        machine.crash_at = machine.steps + 1 + random.uintLessThan(u64, ([_]u64{ 40, 200, 2000 })[random.uintLessThan(usize, 3)]);
        machine.crash_on = switch (random.uintLessThan(u8, 6)) {
            0 => .names,
            1 => .sync,
            2 => if (random.boolean()) .sync_dir else .sync_moved,
            else => null,
        };
        // Crashes meet what crashes left.
        const again = after_crash and random.uintLessThan(u8, 100) < @as(u8, switch (self.theme) {
            .restarts => 75,
            .renames => if (was_kill) 90 else 0,
            .slots => 50,
            else => 20,
        });
        if (again) machine.crash_at = machine.steps + 1 + random.uintLessThan(u64, 24);
        machine.sync_fails_one_in = switch (self.theme) {
            .first => 3,
            .attempts => ([_]u32{ 3, 1000 })[random.uintLessThan(usize, 2)],
            .returns => if (self.fails_one_in > 6) 3 else 1000,
            .renames => 100,
            .slots => ([_]u32{ 3, 40 })[random.uintLessThan(usize, 2)],
            else => ([_]u32{ 6, 40 })[random.uintLessThan(usize, 2)],
        };
        machine.crash_after_failure = if (random.uintLessThan(u8, 3) == 0) ([_]u32{ 10, 60 })[random.uintLessThan(usize, 2)] else 0;
        if (self.theme == .returns and faults.cuts) {
            machine.crash = .cut;
            machine.crash_at = machine.steps + 200 + random.uintLessThan(u64, 400);
            machine.crash_after_failure = 90;
        }
        if (self.theme == .slots) machine.crash_after_failure = ([_]u32{ 0, 25, 60 })[random.uintLessThan(usize, 3)];
        if (self.theme == .attempts) machine.crash_after_failure = ([_]u32{ 0, 40, 100 })[random.uintLessThan(usize, 3)];
        if (self.theme == .claims and faults.cuts and random.boolean()) {
            machine.crash = .cut;
            machine.crash_at = machine.steps + 20 + random.uintLessThan(u64, 200);
            machine.crash_on = null;
        }
        machine.moved_fails_one_in = 0;
        if (self.theme == .renames) {
            machine.moved_fails_one_in = 3;
            machine.crash_after_failure = ([_]u32{ 15, 60 })[random.uintLessThan(usize, 2)];
            if (again) machine.crash_at = machine.steps + 1 + random.uintLessThan(u64, 40);
            if (!again) machine.crash_on = if (random.uintLessThan(u8, 4) > 0) .sync_moved else null;
            if (again and faults.cuts) machine.crash = .cut;
        }
        // One that dies over a sync leaves to the next what may never have been stored.
        if (self.theme == .slots and faults.kills and faults.cuts) {
            machine.crash = if (again or random.uintLessThan(u8, 3) == 0) .cut else .kill;
            machine.crash_on = ([_]?machine_.Kind{ .sync, .sync, .sync_dir, null })[random.uintLessThan(usize, 4)];
        }
        if (self.theme == .asked and faults.cuts) {
            machine.crash = .cut;
            machine.crash_at = machine.steps + 20 + random.uintLessThan(u64, 200);
            machine.crash_on = .sync;
        }
        // What failed and was tried again matters when the power fails soon.
        if ((self.theme == .first or self.theme == .bases or self.theme == .folds) and faults.cuts and random.uintLessThan(u8, 3) > 0) {
            machine.crash = .cut;
            machine.crash_at = machine.steps + 20 + random.uintLessThan(u64, 150);
        }
        machine.intrudes = faults.intruders and random.uintLessThan(u8, 4) == 0;
        machine.full = faults.full and random.uintLessThan(u8, 12) == 0;
    }

    /// From one crash to the next.
    fn epoch(self: *World) void {
        const machine = &self.machine;
        const random = machine.random();
        const faults = self.options.faults;
        self.chooseCrash();
        self.crashed = false;
        for (&self.processes) |*process| self.revive(process);
        // A full medium lets little happen.
        const end = machine.steps + @as(u64, if (machine.full) 200 else 1500);
        var idle: u32 = 0;
        while (self.failure == null and machine.steps < end) {
            const before = machine.steps;
            for (self.actors[0..self.running]) |*actor| {
                if (!actor.hasEnded()) continue;
                if (actor.process.dead) {
                    if (faults.damage and damage.mistake(self, if (self.two and random.boolean()) 1 else 0, actor.scratch)) self.counts.damages += 1;
                    self.revive(actor.process);
                }
                actor.begin();
            }
            self.oneTurn();
            if (machine.medium.offence) |what| self.fail("{s}", .{what});
            if (machine.power_lost) break;
            if (machine.crash_at == std.math.maxInt(u64) and !self.anyDead()) break;
            idle = if (machine.steps == before) idle + 1 else 0;
            if (idle > idle_max) self.fail("nothing goes on: somebody waits for ever", .{});
        }
        self.crashed = machine.crash_at == std.math.maxInt(u64) and machine.crash != .none;
        if (!machine.power_lost) {
            // Without a cut those who live go on in the next epoch.
            if (self.failure == null) return;
        }
        self.endAll();
        if (self.failure == null) self.comeBack();
    }

    /// The power comes back.
    fn comeBack(self: *World) void {
        const machine = &self.machine;
        const random = machine.random();
        machine.restart();
        self.counts.cuts += 1;
        if (self.options.faults.damage and random.uintLessThan(u8, 4) == 0) {
            self.counts.damages += 1;
            damage.inflict(self, if (self.two and random.boolean()) 1 else 0, self.actors[0].scratch);
        }
        self.shared.powerCut();
        for (&self.model.paths) |*path| {
            path.writer = null;
            std.debug.assert(path.contenders == 0);
        }
        if (machine.trace) std.debug.print("{d:>7}   == power cut\n", .{machine.steps});
        // Where claims are the matter, there is nothing again; or where an image comes before a shared heap.
        if (self.theme == .claims) self.removeImage(0);
        if (self.theme == .slots and random.uintLessThan(u8, 3) == 0) {
            self.removeFiles(sharing.name);
            self.shared.clear();
        }
    }

    /// Somebody removes the image, whose model begins anew.
    fn removeImage(self: *World, which: usize) void {
        const path = &self.model.paths[which];
        self.removeFiles(path.name);
        path.clear();
    }

    fn removeFiles(self: *World, base: []const u8) void {
        var index = self.machine.names.entries.items.len;
        while (index > 0) {
            index -= 1;
            const name = self.machine.names.entries.items[index].name;
            if (std.mem.startsWith(u8, name.slice(), base) and !std.mem.eql(u8, name.slice(), foreign_name)) self.machine.remove(name.slice());
        }
    }

    fn revive(self: *World, process: *machine_.Process) void {
        if (!self.actors[process.id].hasEnded()) return;
        if (process.dead and !self.machine.power_lost) {
            // The memory of a child that it forked outlives it, until all ends. (Where a file could not
            // be opened once more to be mapped, the child has its lock.)
            self.machine.reap(process, process.failures == 0 and self.machine.oneIn(4));
        }
        process.dead = false;
        process.failed = false;
        process.failures = 0;
        const faulty = self.machine.random().boolean() or self.theme == .first or self.spares;
        process.fails_one_in = if (faulty) self.fails_one_in else 0;
        process.short_one_in = self.short_one_in;
    }

    pub fn anyDead(self: *World) bool {
        for (self.processes[0..self.running]) |*process| if (process.dead) return true;
        return false;
    }

    /// One fiber goes on; mostly those of dead processes first, since what they held is free already.
    /// (Not always: a lock of this program may be with one that lives.)
    fn oneTurn(self: *World) void {
        var ready: [process_count * actor_.fibers_max]*Fiber = undefined;
        var count: usize = 0;
        const any = self.machine.oneIn(8);
        for ([_]bool{ true, false }) |dead| {
            for (&self.actors) |*actor| {
                if (!any and actor.process.dead != dead) continue;
                for (actor.fibers()) |each| {
                    if (each.ended) continue;
                    const late = self.folds_slow and each != &actor.fiber and !actor.fiber.ended;
                    if (late and !self.machine.oneIn(8)) continue;
                    ready[count] = each;
                    count += 1;
                }
            }
            if (count > 0) break;
        }
        if (count == 0) return;
        ready[self.machine.random().uintLessThan(usize, count)].goOn();
    }

    /// Everybody dies; what they had in hand is undone without effect.
    fn endAll(self: *World) void {
        for (&self.processes) |*process| process.dead = true;
        var turns: usize = 0;
        while (true) : (turns += 1) {
            for (&self.actors) |*actor| {
                if (!actor.hasEnded()) break;
            } else break;
            self.oneTurn();
            if (turns > idle_max) @panic("a dead process does not end");
        }
        for (&self.processes) |*process| self.machine.reap(process, false);
        for (&self.model.paths) |*path| path.contenders = 0;
        self.shared.contenders = 0;
    }

    /// In the end, with nothing failing any more, each image opens, takes a commit, and no file is
    /// left that nobody names.
    fn calmEnd(self: *World) void {
        const machine = &self.machine;
        machine.full = false;
        machine.intrudes = false;
        machine.stalls_one_in = 0;
        machine.stays_one_in = 0;
        machine.again_one_in = 0;
        machine.crash_at = std.math.maxInt(u64);
        for (&self.processes) |*process| {
            process.dead = false;
            process.fails_one_in = 0;
            process.short_one_in = 0;
        }
        const actor = &self.actors[0];
        actor.beginCalm();
        var turns: usize = 0;
        while (!actor.hasEnded() and self.failure == null) : (turns += 1) {
            self.oneTurn();
            if (turns > idle_max) self.fail("nothing goes on in the end", .{});
        }
        if (machine.medium.offence) |what| self.fail("{s}", .{what});
        self.endAll();
        if (self.failure == null) self.checkFiles();
    }

    fn checkFiles(self: *World) void {
        if (self.foreign) {
            const kept = self.machine.names.find(foreign_name);
            if (kept == null or !std.mem.eql(u8, kept.?.content(), foreign_text)) return self.fail("somebody's file, named like a log, is gone", .{});
        }
        for (self.machine.names.entries.items) |*entry| {
            const name = entry.name.slice();
            var named = name.len == 1;
            if (std.mem.indexOf(u8, name, "-log-")) |at| {
                // The log that its base names.
                if (self.machine.names.find(name[0..at])) |base| {
                    var text: [16]u8 = undefined;
                    const id = std.mem.readInt(u64, base.content()[144..152], .little);
                    _ = std.fmt.bufPrint(&text, "{x:0>16}", .{id}) catch unreachable;
                    named = std.mem.eql(u8, name[at + 5 ..], &text);
                }
            }
            if (!named and !std.mem.eql(u8, name, foreign_name)) return self.fail("{s} is left behind", .{name});
        }
    }
};

/// The world that threads are given by.
var active: *World = undefined;
