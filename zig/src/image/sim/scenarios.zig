//! Histories that chance takes too long to find, step by step on the simulated machine: worlds of the
//! simulator, and tests.
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

/// The machine's calls in a scene, about.
pub const steps = 300;

/// One of them; what went wrong, if anything.
pub fn play(random: std.Random) ?[]const u8 {
    const offence = switch (random.uintLessThan(u8, 4)) {
        0 => readerBetween(true),
        1 => readerBetween(false),
        2 => readerBehind(),
        else => readerOfDamaged(),
    } catch |err| return @errorName(err);
    return offence;
}
