//! Histories that chance takes too long to find, step by step on the simulated machine.
//!
//! Invariant: each ends well with the engine as it is, and badly without the rule that it is for.

const std = @import("std");
const image_ = @import("../image.zig");
const machine_ = @import("machine.zig");
const os = @import("../../os/os.zig");
const plant = @import("../../plant.zig");
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

    fn run(context: *anyopaque) void {
        const self: *Reader = @ptrCast(@alignCast(context));
        const image = Image.open(.{ .disk = self.process.disk(), .path = "a", .mode = .read }) catch {
            self.refused = true;
            return;
        };
        defer image.close();
        const point = image.point(null) catch unreachable;
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

/// A reader has opened the base and not its log yet when a new base takes its place. It goes on when the
/// writer has just seen that nobody has that log open, whose space the new one is to get.
fn readerBehind() !?[]const u8 {
    var machine: machine_.Machine = .init(1);
    defer machine.deinit();
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
