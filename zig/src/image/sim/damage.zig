//! Damage at rest: bits that flip, files cut short or exchanged, on a copy of a machine's files. What
//! opens afterwards must be a commit that was made, the last one unless the damage took it; else the
//! opener says so. What is whole can still be reached, and going on makes a new image.
//!
//! Invariant: the machine itself is not touched.

const std = @import("std");
const image_ = @import("../image.zig");
const machine_ = @import("machine.zig");
const model_ = @import("model.zig");
const os = @import("../../os/os.zig");
const World = @import("world.zig").World;
const Image = image_.Image;
const page_size = os.page_size;

const Damage = enum { flip_base, flip_log, cut_base, cut_log, other_log, empty_log };

/// A process was killed; somebody puts the base that it was writing in the place of the image's, and takes what
/// is whole of it: nothing that is half written. False when there is none.
pub fn mistake(world: *World, which: usize, scratch: usize) bool {
    const name = world.model.paths[which].name;
    var buffer: [8]u8 = undefined;
    const unfinished = std.fmt.bufPrint(&buffer, "{s}-new", .{name}) catch unreachable;
    const inode = world.machine.names.find(unfinished) orelse return false;
    if (inode.torn) return false;
    var copy = world.machine.clone(world.machine.random().int(u64));
    defer copy.deinit();
    var processes = [_]machine_.Process{.{ .machine = &copy, .id = 9 }};
    copy.processes = &processes;
    defer copy.unmap(scratch, model_.pages_max * page_size);
    copy.move(unfinished, name);
    var case: Case = .{ .world = world, .which = which, .machine = &copy, .process = &processes[0], .scratch = scratch };
    var open = case.options(.write);
    open.recover = true;
    const image = Image.open(open) catch return true;
    defer image.close();
    _ = case.identify(image, null) catch {};
    return true;
}

/// Damages a copy of `which` image and judges what comes of it.
pub fn inflict(world: *World, which: usize, scratch: usize) void {
    const name = world.model.paths[which].name;
    if (world.machine.names.find(name) == null) return;
    const random = world.machine.random();
    var copy = world.machine.clone(random.int(u64));
    defer copy.deinit();
    var processes = [_]machine_.Process{.{ .machine = &copy, .id = 9 }};
    copy.processes = &processes;
    defer copy.unmap(scratch, model_.pages_max * page_size);
    var case: Case = .{ .world = world, .which = which, .machine = &copy, .process = &processes[0], .scratch = scratch, .damage = random.enumValue(Damage) };
    case.run() catch {};
    if (copy.medium.offence) |what| world.fail("damaged: {s}", .{what});
}

const Case = struct {
    world: *World,
    which: usize,
    machine: *machine_.Machine,
    process: *machine_.Process,
    scratch: usize,
    /// Null: the files are whole, and in the wrong place.
    damage: ?Damage = null,

    fn options(self: *Case, mode: image_.Mode) image_.OpenOptions {
        const world = self.world;
        return .{
            .disk = self.process.disk(),
            .path = world.model.paths[self.which].name,
            .mode = mode,
            .keep = world.keep,
            .background = false,
            .base_pages_min = world.base_pages_min,
            .sealed_len_min = world.sealed_len_min,
            .spare_len_min = world.spare_len_min,
            .room_len_min = world.room_len_min,
        };
    }

    fn run(self: *Case) !void {
        const kind = self.damage.?;
        const world = self.world;
        const random = world.machine.random();
        // What it is before: judged elsewhere.
        const whole = Image.open(self.options(.read)) catch return;
        const head = whole.head().?;
        whole.close();
        const log_name = self.logOf(self.which) orelse return;
        const log = self.machine.names.find(log_name.slice()).?;
        const base = self.machine.names.find(world.model.paths[self.which].name).?;
        const last_record = lastRecord(log.content());
        var at: u64 = 0;
        switch (kind) {
            .flip_base => {
                at = random.uintLessThan(u64, base.size);
                base.bytes.items[@intCast(at)] ^= @as(u8, 1) << random.int(u3);
            },
            .flip_log => {
                at = random.uintLessThan(u64, log.size);
                log.bytes.items[@intCast(at)] ^= @as(u8, 1) << random.int(u3);
            },
            .cut_base => base.size = random.uintLessThan(u64, base.size),
            .cut_log => log.size = random.uintLessThan(u64, log.size),
            .empty_log => @memset(log.bytes.items[0..@min(page_size, log.bytes.items.len)], 0),
            .other_log => {
                const other = self.logOf(1 - self.which) orelse return;
                const from = self.machine.names.find(other.slice()).?;
                self.machine.create(log_name.slice(), from.content());
            },
        }
        var open = self.options(.read);
        open.verify = true;
        if (Image.open(open)) |image| {
            defer image.close();
            const found = image.head().?;
            _ = try self.identify(image, null);
            if (found.commit != head.commit) {
                const took = kind == .cut_log or (kind == .flip_log and at >= last_record);
                if (!took) return self.bad("an older epoch opens, and nobody is told");
            } else if (kind == .cut_base or kind == .empty_log or kind == .other_log) return self.bad("it opens as if nothing were missing");
        } else |err| switch (err) {
            error.CORRUPT, error.NOT_AN_IMAGE, error.BAD_VERSION => {},
            else => return self.bad(@errorName(err)),
        }
        try self.goOn();
    }

    /// Epochs before the damage open; the next commit makes a new image and keeps the damaged pair.
    fn goOn(self: *Case) !void {
        var open = self.options(.write);
        open.allow_damaged = true;
        open.recover = self.world.machine.random().boolean();
        const image = Image.open(open) catch return;
        var closed = false;
        defer if (!closed) image.close();
        const list = try image.epochs(std.heap.smp_allocator);
        defer std.heap.smp_allocator.free(list);
        const epoch = list[self.world.machine.random().uintLessThan(usize, list.len)].epoch;
        const point = image.point(epoch) catch |err| return self.bad(@errorName(err));
        // A page of the base may be damaged: only reading all of it tells.
        image.verify(point) catch return;
        var values = try self.identify(image, point);
        var history: image_.History = .{};
        defer history.deinit();
        const uuid = image.uuid;
        image.adopt(&history, point) catch |err| return self.bad(@errorName(err));
        const damaged = image.set_aside;
        values[0] = self.world.value + 1_000_000;
        model_.fill(@ptrFromInt(self.scratch), values[0]);
        image.pending.set(0);
        var attempt = image.begin() catch |err| return self.bad(@errorName(err));
        {
            defer attempt.end();
            const used = [_]image_.PageRange{.{ .first = 0, .count = point.identity.pages() }};
            attempt.prepare(.{ .memory = self.scratch, .identity = point.identity, .used = &used }) catch |err| return self.bad(@errorName(err));
            _ = attempt.finish() catch |err| return self.bad(@errorName(err));
        }
        if (damaged and std.mem.eql(u8, &uuid, &image.uuid)) return self.bad("what goes on from a damaged image is not another image");
        if (damaged and !self.hasDamagedPair()) return self.bad("the damaged files are not kept");
        image.close();
        closed = true;
        open = self.options(.write);
        open.verify = true;
        const again = Image.open(open) catch |err| return self.bad(@errorName(err));
        defer again.close();
        var stored: model_.Values = undefined;
        try self.read(again, again.point(null) catch |err| return self.bad(@errorName(err)), &stored);
        if (!std.mem.eql(u32, &stored, &values)) return self.bad("what was committed after the damage is not found");
    }

    fn hasDamagedPair(self: *Case) bool {
        for (self.machine.names.entries.items) |*entry| if (std.mem.indexOf(u8, entry.name.slice(), "-damaged-") != null) return true;
        return false;
    }

    /// The content is that of a commit that was made.
    fn identify(self: *Case, image: *Image, at: ?image_.Point) !model_.Values {
        var values: model_.Values = undefined;
        const point = at orelse image.point(null) catch |err| return self.bad(@errorName(err));
        try self.read(image, point, &values);
        const path = &self.world.model.paths[self.which];
        if (path.findFrom(&self.world.model, 0, point.epoch(), &values, null) == null) {
            self.world.fail("damaged: {s} opens at epoch {d} with content that was never committed", .{ path.name, point.epoch() });
            return error.Stop;
        }
        return values;
    }

    fn read(self: *Case, image: *Image, point: image_.Point, into: *model_.Values) !void {
        const pages = point.identity.pages();
        self.machine.unmap(self.scratch, model_.pages_max * page_size);
        _ = image.build(point, self.scratch, pages * page_size) catch |err| return self.bad(@errorName(err));
        into.* = @splat(0);
        for (0..pages) |page| {
            into[page] = model_.read(@ptrFromInt(self.scratch + page * page_size)) orelse return self.bad("a page is a mixture");
        }
    }

    fn bad(self: *Case, what: []const u8) error{Stop} {
        if (self.damage) |kind| {
            self.world.fail("damaged ({t}): {s}", .{ kind, what });
        } else self.world.fail("a base in another's place: {s}", .{what});
        return error.Stop;
    }

    /// The log that a base's header names (docs/format.md).
    fn logOf(self: *Case, which: usize) ?machine_.Name {
        const name = self.world.model.paths[which].name;
        const base = self.machine.names.find(name) orelse return null;
        if (base.size < page_size) return null;
        var buffer: [32]u8 = undefined;
        const id = std.mem.readInt(u64, base.content()[144..152], .little);
        const text = std.fmt.bufPrint(&buffer, "{s}-log-{x:0>16}", .{ name, id }) catch unreachable;
        return if (self.machine.names.find(text) != null) .of(text) else null;
    }
};

/// Where the last record of a log begins: it says so itself.
fn lastRecord(bytes: []const u8) u64 {
    var found: u64 = 0;
    var at: usize = page_size;
    while (at + page_size <= bytes.len) : (at += page_size) {
        const own = std.mem.readInt(u64, bytes[at + 16 ..][0..8], .little);
        if (!std.mem.eql(u8, bytes[at..][0..8], "PERMrec1") or own != at) continue;
        const sum = std.mem.readInt(u64, bytes[at + page_size - 8 ..][0..8], .little);
        if (sum == std.hash.XxHash3.hash(0, bytes[at..][0 .. page_size - 8])) found = at;
    }
    return found;
}
