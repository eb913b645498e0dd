//! The heap as a Zig program has it, and std's own tests of allocators on it.

const std = @import("std");
const perm = @import("perm.zig");
const errors = @import("errors.zig");

test "std's tests of allocators pass on a heap, which is whole and empty afterwards" {
    const heap = try perm.Heap.open(.{ .size = 1 << 20 });
    defer heap.close() catch {};
    const before = try heap.stats();
    const allocator = heap.allocator();
    try std.heap.testAllocator(allocator);
    try std.heap.testAllocatorAligned(allocator);
    try std.heap.testAllocatorLargeAlignment(allocator);
    try std.heap.testAllocatorAlignedShrink(allocator);
    try heap.check();
    try std.testing.expectEqual(before.live_blocks, (try heap.stats()).live_blocks);
}

test "std's containers on a heap go back with it" {
    var directory = std.testing.tmpDir(.{});
    defer directory.cleanup();
    var buffer: [std.fs.max_path_bytes]u8 = undefined;
    const path = buffer[0..try directory.dir.realPath(std.testing.io, &buffer)];
    var file: [std.fs.max_path_bytes]u8 = undefined;
    const name = try std.fmt.bufPrint(&file, "{s}/heap", .{path});

    const heap = try perm.Heap.open(.{ .path = name, .size = 1 << 20, .keep = 4 });
    defer heap.close() catch {};
    const allocator = heap.allocator();
    const list = try heap.global(std.ArrayList(u32), "list");
    try std.testing.expect(list.is_new);
    list.value.* = .empty;
    for (0..1000) |i| try list.value.append(allocator, @intCast(i));
    const first = try heap.commit(.map);
    for (0..1000) |i| try list.value.append(allocator, @intCast(i));
    _ = try heap.commit(.map);

    _ = try heap.restore(.{ .epoch = first.epoch });
    try std.testing.expectEqual(@as(usize, 1000), list.value.items.len);
    try std.testing.expectEqual(@as(u32, 999), list.value.items[999]);
    try std.testing.expect(!(try heap.global(std.ArrayList(u32), "list")).is_new);
    try std.testing.expectError(error.BLOCK_MISMATCH, heap.global(u8, "list"));
    try heap.check();
}

test "a heap that was closed is refused, and says so" {
    const heap = try perm.Heap.open(.{ .size = 1 << 20 });
    try heap.close();
    try std.testing.expectError(error.CLOSED, heap.commit(.map));
    try std.testing.expectEqual(perm.Code.CLOSED, perm.lastError().?.code);
    try std.testing.expectError(error.OutOfMemory, heap.allocator().alloc(u8, 1));
}

test "pages of a heap are zeroed, aligned, and go back" {
    const heap = try perm.Heap.open(.{ .size = 1 << 20, .max_size = 4 << 20 });
    defer heap.close() catch {};
    const pages = try heap.pages();
    const taken = pages.take(3).?;
    try std.testing.expectEqual(3 * perm.Pages.size, taken.len);
    try std.testing.expect(std.mem.allEqual(u8, taken, 0));
    @memset(taken, 0xaa);
    try pages.give(taken);
    try std.testing.expect(std.mem.allEqual(u8, pages.take(3).?, 0));
    try heap.grow(3 << 20);
    try std.testing.expect((try heap.stats()).capacity >= 3 << 20);
    try std.testing.expectError(error.OUT_OF_MEMORY, heap.grow(5 << 20));
    try std.testing.expectEqual(null, pages.take(1 << 40));
    try std.testing.expectEqual(null, pages.take(std.math.maxInt(usize)));
    try std.testing.expectError(error.BAD_POINTER, pages.give(@alignCast(taken[perm.Pages.size..])));
}
