//! Histories that chance takes too long to find, step by step on the simulated machine: worlds of the
//! simulator, and tests.
//!
//! Invariant: each ends well with the engine as it is, and badly without the rule that it is for.

const std = @import("std");
const image_ = @import("../image.zig");
const machine_ = @import("machine.zig");
const os = @import("../../os/os.zig");
const plant = @import("../../plant.zig");
const stage_ = @import("stage.zig");
const testing = @import("../testing.zig");
const fiber = @import("fiber.zig");
const Fiber = fiber.Fiber;
const Heap = testing.Heap;
const Image = image_.Image;

const pages = 24;

/// A process that opens the image to read it, and maps what it finds.
const Reader = struct {
    process: *machine_.Process,
    scratch: usize,
    refused: bool = false,
    /// Of a damaged image, what is whole.
    damaged: bool = false,

    fn run(context: *anyopaque) void {
        const self: *Reader = @ptrCast(@alignCast(context));
        const image = Image.open(.{ .disk = self.process.disk(), .path = "a", .mode = .read, .allow_damaged = self.damaged }) catch {
            self.refused = true;
            return;
        };
        defer image.close();
        const point = image.point(if (self.damaged) 1 else null) catch unreachable;
        _ = image.build(point, self.scratch, pages * os.page_size) catch {
            self.refused = true;
        };
    }
};

const Writer = struct {
    heap: *Heap,
    image: *Image,

    fn rewrite(self: *Writer, value: u64) !void {
        for (0..pages) |page| self.heap.touch(&.{self.image}, page, value * 100 + page);
        _ = try self.heap.commit(self.image, null);
    }

    fn rewriteLast(context: *anyopaque) void {
        const self: *Writer = @ptrCast(@alignCast(context));
        self.rewrite(9) catch unreachable;
    }
};

/// A reader has found the base by its name and not opened it yet, when that is replaced and its log
/// cannot be removed. It goes on when the writer has just seen that nobody has that base open. What the
/// engine did wrong then, if anything.
fn readerBetween(unlinks: bool) !?[]const u8 {
    var machine: machine_.Machine = .init(1);
    defer machine.deinit();
    defer stage_.steps += machine.steps;
    var processes = [_]machine_.Process{ .{ .machine = &machine, .id = 0 }, .{ .machine = &machine, .id = 1 } };
    machine.processes = &processes;
    const scratch = try os.reserve(0, pages * os.page_size);
    defer os.unmap(scratch, pages * os.page_size);
    var heap = Heap.init(pages);
    defer heap.deinit();
    const image = try Image.open(.{
        .disk = processes[0].disk(),
        .path = "a",
        .mode = .create,
        .background = false,
        .base_pages_min = 2,
        .spare_len_min = 0,
    });
    defer image.close();
    try image.join(&heap.history, heap.identity.span, null);
    var writer: Writer = .{ .heap = &heap, .image = image };
    for (1..3) |value| try writer.rewrite(value);

    var reader: Reader = .{ .process = &processes[1], .scratch = scratch };
    var reading: Fiber = .init(1);
    defer os.freePages(reading.stack);
    var writing: Fiber = .init(0);
    defer os.freePages(writing.stack);
    const base = machine.names.find("a").?;
    machine.switches_one_in = 1;
    reading.start(Reader.run, &reader);
    while (base.sought == 0) reading.goOn();
    machine.switches_one_in = 0;
    machine.refuses_unlink = !unlinks;
    try writer.rewrite(3);
    machine.refuses_unlink = false;

    machine.switches_one_in = 1;
    const soles = machine.soles;
    writing.start(Writer.rewriteLast, &writer);
    while (!writing.ended and machine.soles == soles) writing.goOn();
    machine.switches_one_in = 0;
    while (!reading.ended) reading.goOn();
    while (!writing.ended) writing.goOn();
    machine.unmap(scratch, pages * os.page_size);
    return machine.medium.offence;
}

test "a base whose log could not be removed is not written over: a reader may be about to open both" {
    if (!fiber.supported) return error.SkipZigTest;
    os.waits = fiber.yield;
    defer os.waits = null;
    defer plant.active = .none;
    try std.testing.expectEqual(null, try readerBetween(true));
    try std.testing.expectEqual(null, try readerBetween(false));
    plant.active = .reuse_log_left;
    // With its log gone the reader starts over.
    try std.testing.expectEqual(null, try readerBetween(true));
    try std.testing.expectEqualStrings("a page that somebody has mapped is written over", (try readerBetween(false)).?);
}

/// A reader has found a damaged base and not opened it yet, when a new one takes its place; somebody removes the
/// damaged files. It goes on when the writer has just seen that nobody has that base open.
fn readerOfDamaged() !?[]const u8 {
    var machine: machine_.Machine = .init(1);
    defer machine.deinit();
    defer stage_.steps += machine.steps;
    var processes = [_]machine_.Process{ .{ .machine = &machine, .id = 0 }, .{ .machine = &machine, .id = 1 } };
    machine.processes = &processes;
    const scratch = try os.reserve(0, pages * os.page_size);
    defer os.unmap(scratch, pages * os.page_size);
    var heap = Heap.init(pages);
    defer heap.deinit();
    {
        const image = try Image.open(.{ .disk = processes[0].disk(), .path = "a", .mode = .create, .background = false });
        defer image.close();
        try image.join(&heap.history, heap.identity.span, null);
        var writer: Writer = .{ .heap = &heap, .image = image };
        try writer.rewrite(1);
        for (2..4) |value| {
            heap.touch(&.{image}, 3, value);
            _ = try heap.commit(image, null);
        }
    }
    for (machine.names.entries.items) |*entry| if (std.mem.indexOf(u8, entry.name.slice(), "-log-") != null) {
        entry.inode.bytes.items[os.page_size + 100] ^= 1;
    };
    const image = try Image.open(.{
        .disk = processes[0].disk(),
        .path = "a",
        .mode = .write,
        .recover = true,
        .background = false,
        .base_pages_min = 2,
        .spare_len_min = 0,
    });
    defer image.close();
    try heap.restore(image, null);
    machine.unmap(@intFromPtr(heap.memory.ptr), heap.memory.len);
    var writer: Writer = .{ .heap = &heap, .image = image };

    var reader: Reader = .{ .process = &processes[1], .scratch = scratch, .damaged = true };
    var reading: Fiber = .init(1);
    defer os.freePages(reading.stack);
    var writing: Fiber = .init(0);
    defer os.freePages(writing.stack);
    const base = machine.names.find("a").?;
    machine.switches_one_in = 1;
    reading.start(Reader.run, &reader);
    while (base.sought == 0) reading.goOn();
    machine.switches_one_in = 0;
    try writer.rewrite(5);
    var index = machine.names.entries.items.len;
    while (index > 0) {
        index -= 1;
        const name = machine.names.entries.items[index].name;
        if (std.mem.indexOf(u8, name.slice(), "-damaged-") != null) machine.remove(name.slice());
    }
    machine.switches_one_in = 1;
    const soles = machine.soles;
    writing.start(Writer.rewriteLast, &writer);
    while (!writing.ended and machine.soles == soles) writing.goOn();
    machine.switches_one_in = 0;
    while (!reading.ended) reading.goOn();
    while (!writing.ended) writing.goOn();
    try std.testing.expect(!reader.refused);
    machine.unmap(scratch, pages * os.page_size);
    return machine.medium.offence;
}

test "a damaged base is not written over: what is whole of it can be read" {
    if (!fiber.supported) return error.SkipZigTest;
    os.waits = fiber.yield;
    defer os.waits = null;
    defer plant.active = .none;
    try std.testing.expectEqual(null, try readerOfDamaged());
    plant.active = .reuse_damaged;
    try std.testing.expectEqualStrings("a page that somebody has mapped is written over", (try readerOfDamaged()).?);
}

/// A reader has opened the base and not its log yet when a new base takes its place. It goes on when the
/// writer has just seen that nobody has that log open, whose space the new one is to get.
fn readerBehind() !?[]const u8 {
    var machine: machine_.Machine = .init(1);
    defer machine.deinit();
    defer stage_.steps += machine.steps;
    var processes = [_]machine_.Process{ .{ .machine = &machine, .id = 0 }, .{ .machine = &machine, .id = 1 } };
    machine.processes = &processes;
    const scratch = try os.reserve(0, pages * os.page_size);
    defer os.unmap(scratch, pages * os.page_size);
    var heap = Heap.init(pages);
    defer heap.deinit();
    const image = try Image.open(.{
        .disk = processes[0].disk(),
        .path = "a",
        .mode = .create,
        .background = false,
        .base_pages_min = 20,
        .room_len_min = 0,
    });
    defer image.close();
    try image.join(&heap.history, heap.identity.span, null);
    var writer: Writer = .{ .heap = &heap, .image = image };
    try writer.rewrite(1);
    for (0..18) |page| heap.touch(&.{image}, page, 200 + page);
    _ = try heap.commit(image, null);

    var reader: Reader = .{ .process = &processes[1], .scratch = scratch };
    var reading: Fiber = .init(1);
    defer os.freePages(reading.stack);
    var writing: Fiber = .init(0);
    defer os.freePages(writing.stack);
    const base = machine.names.find("a").?;
    machine.switches_one_in = 1;
    reading.start(Reader.run, &reader);
    while (!hasOpen(&machine, &processes[1], base)) reading.goOn();
    const soles = machine.soles;
    writing.start(Writer.rewriteLast, &writer);
    while (!writing.ended and machine.soles == soles) writing.goOn();
    try std.testing.expect(!writing.ended);
    machine.switches_one_in = 0;
    while (!reading.ended) reading.goOn();
    while (!writing.ended) writing.goOn();
    try std.testing.expect(!reader.refused);
    const rooms = machine.rooms;
    heap.touch(&.{image}, 3, 5);
    _ = try heap.commit(image, null);
    machine.unmap(scratch, pages * os.page_size);
    if (machine.medium.offence == null) try std.testing.expectEqual(rooms + 1, machine.rooms);
    return machine.medium.offence;
}

fn hasOpen(machine: *machine_.Machine, process: *machine_.Process, inode: anytype) bool {
    for (machine.files.items) |*opening| if (opening.open and opening.process == process and opening.inode == inode) return true;
    return false;
}

test "a log whose name a reader may still ask for does not give its space away" {
    if (!fiber.supported) return error.SkipZigTest;
    os.waits = fiber.yield;
    defer os.waits = null;
    defer plant.active = .none;
    try std.testing.expectEqual(null, try readerBehind());
    plant.active = .room_name_left;
    try std.testing.expectEqualStrings("a page that somebody has mapped is written over", (try readerBehind()).?);
}

/// The heap's changes are copied aside for both images, the second one's commit fails, of which nobody knows what
/// it had to compare; then the first one's commit is made.
fn lostBetween() !?[]const u8 {
    var machine: machine_.Machine = .init(1);
    defer machine.deinit();
    defer stage_.steps += machine.steps;
    var processes = [_]machine_.Process{.{ .machine = &machine, .id = 0 }};
    machine.processes = &processes;
    var heap = Heap.init(pages);
    defer heap.deinit();
    var images: [2]*Image = undefined;
    for (&images, [_][]const u8{ "a", "b" }, 0..) |*image, path, index| {
        image.* = try Image.open(.{ .disk = processes[0].disk(), .path = path, .mode = .create, .background = false });
        try image.*.join(&heap.history, heap.identity.span, if (index == 1) images[0] else null);
    }
    defer for (images) |image| image.close();
    for (0..pages) |page| heap.touch(&images, page, page);
    for (images, 0..) |image, index| _ = try heap.commit(image, images[1 - index]);
    heap.touch(&images, 1, 100);
    _ = try heap.commit(images[1], images[0]);
    const last = heap.history.epoch();

    // A scan failed: nobody was told of the page that changed.
    heap.touch(&.{}, 2, 200);
    for (images) |image| image.compare_all = true;
    var kept: image_.PageSet = try .init(pages);
    defer kept.deinit();
    kept.setRange(0, pages);
    var wanted: image_.PageSet = try .init(pages);
    defer wanted.deinit();
    var captures: [2]image_.Capture = .{ .{}, .{} };
    defer for (&captures) |*capture| capture.deinit();
    const aside = try os.allocatePages(2 * pages * os.page_size);
    defer os.freePages(aside);
    for (&captures, [_]*Image{ images[1], images[0] }, 0..) |*capture, image, index| {
        try image.choose(capture, .{
            .kept = &kept,
            .wanted = &wanted,
            .memory = @intFromPtr(heap.memory.ptr),
            .whole = false,
            .alone = true,
            .compare = false,
            .other = if (index == 1) images[1] else null,
        });
        capture.copy(@intFromPtr(heap.memory.ptr), @intFromPtr(aside.ptr) + index * pages * os.page_size);
        image.taken(capture, &.{});
    }
    images[1].pendingAgain(&captures[0]);
    var commit = try images[0].begin();
    defer commit.end();
    try commit.prepare(.{
        .memory = 0,
        .capture = &captures[1],
        .identity = heap.identity,
        .used = &.{heap.used},
        .other = images[1],
    });
    return if ((try commit.finish()).epoch == last + 1) null else "a changed heap is taken for a commit that the other image holds";
}

test "a copy of the changes is no known commit when the other image lost track of what it had changed before" {
    if (!fiber.supported) return error.SkipZigTest;
    defer plant.active = .none;
    try std.testing.expectEqual(null, try lostBetween());
    plant.active = .r11_lost_track_since;
    try std.testing.expect(try lostBetween() != null);
}

/// Who opens the image, commits and closes it.
const Brief = struct {
    process: *machine_.Process,
    heap: *Heap,

    fn run(context: *anyopaque) void {
        const self: *Brief = @ptrCast(@alignCast(context));
        self.commit() catch unreachable;
    }

    fn commit(self: *Brief) !void {
        const image = try Image.open(.{ .disk = self.process.disk(), .path = "a", .mode = .write, .background = false });
        defer image.close();
        try self.heap.restore(image, null);
        self.process.machine.unmap(@intFromPtr(self.heap.memory.ptr), self.heap.memory.len);
        self.heap.touch(&.{image}, 3, 7);
        _ = try self.heap.commit(image, null);
    }
};

const Looker = struct {
    process: *machine_.Process,
    dropped: bool = false,
    refused: bool = false,

    fn run(context: *anyopaque) void {
        const self: *Looker = @ptrCast(@alignCast(context));
        const image = Image.open(.{ .disk = self.process.disk(), .path = "a", .mode = .read, .background = false }) catch {
            self.refused = true;
            return;
        };
        self.dropped = image.dropped;
        image.close();
    }
};

/// Somebody opens the image to read it, is a few calls on when another opens it and has begun a record, and a few
/// more when that one goes on, perhaps to its end.
fn readerBesideBrief(random: std.Random) !?[]const u8 {
    var machine: machine_.Machine = .init(random.int(u64));
    defer machine.deinit();
    defer stage_.steps += machine.steps;
    var processes = [_]machine_.Process{ .{ .machine = &machine, .id = 0 }, .{ .machine = &machine, .id = 1 } };
    machine.processes = &processes;
    var heap = Heap.init(pages);
    defer heap.deinit();
    const end: usize = end: {
        const image = try Image.open(.{ .disk = processes[0].disk(), .path = "a", .mode = .create, .background = false });
        defer image.close();
        try image.join(&heap.history, heap.identity.span, null);
        for (1..3) |value| {
            heap.touch(&.{image}, 3, value);
            _ = try heap.commit(image, null);
        }
        break :end @intCast(image.generation.?.log_end);
    };
    const log = for (machine.names.entries.items) |*entry| {
        if (std.mem.indexOf(u8, entry.name.slice(), "-log-") != null) break entry.inode;
    } else unreachable;
    var brief: Brief = .{ .process = &processes[0], .heap = &heap };
    var looker: Looker = .{ .process = &processes[1] };
    var writing: Fiber = .init(0);
    defer os.freePages(writing.stack);
    var reading: Fiber = .init(1);
    defer os.freePages(reading.stack);
    machine.switches_one_in = 1;
    reading.start(Looker.run, &looker);
    writing.start(Brief.run, &brief);
    for (0..random.uintLessThan(usize, 30)) |_| if (!reading.ended) reading.goOn();
    while (!writing.ended and (log.size < end + 8 or std.mem.allEqual(u8, log.content()[end..][0..8], 0))) writing.goOn();
    for (0..random.uintLessThan(usize, 40)) |_| if (!reading.ended) reading.goOn();
    if (random.boolean()) while (!writing.ended) writing.goOn();
    while (!reading.ended) reading.goOn();
    while (!writing.ended) writing.goOn();
    if (looker.refused) return "a reader is refused beside a writer";
    return if (looker.dropped) "a reader tells of a dropped commit, and none was" else machine.medium.offence;
}

test "a reader beside one that opens, commits and closes tells of no dropped commit" {
    if (!fiber.supported) return error.SkipZigTest;
    os.waits = fiber.yield;
    defer os.waits = null;
    defer plant.active = .none;
    for ([_]plant.Plant{ .none, .r9_one_look, .r9_beside_writer }) |planted| {
        plant.active = planted;
        var prng: std.Random.DefaultPrng = .init(1);
        const noticed = for (0..1500) |_| {
            if (try readerBesideBrief(prng.random()) != null) break true;
        } else false;
        try std.testing.expectEqual(planted != .none, noticed);
    }
}

/// All of them, the one that chance decides in often; what went wrong, if anything.
pub fn play(random: std.Random) !?[]const u8 {
    if (try readerBetween(true)) |what| return what;
    if (try readerBetween(false)) |what| return what;
    if (try readerBehind()) |what| return what;
    if (try readerOfDamaged()) |what| return what;
    if (try lostBetween()) |what| return what;
    for (0..30) |_| if (try readerBesideBrief(random)) |what| return what;
    return null;
}
