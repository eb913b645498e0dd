//! Tests of what a thread's cache remembers: hints, those it has to forget, empty spans that it
//! keeps, and blocks taken and freed in bulk beside all that.

const std = @import("std");
const alloc = @import("alloc.zig");
const classes = @import("classes.zig");
const caches = @import("cache.zig");
const harness = @import("test_heap.zig");

const TestHeap = harness.TestHeap;
const testing = std.testing;

test "blocks whose hints were forgotten are found again, in this session and in the next" {
    const heap = try TestHeap.create(256 << 20, 16 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    const blocks = try testing.allocator.alloc(usize, 20_000);
    defer testing.allocator.free(blocks);
    for (blocks) |*block| block.* = try a.malloc(64);
    const used = a.usedBytes();
    for (0..3) |round| {
        // Every second one, so that no span gets empty; far more than there are hints.
        for (blocks, 0..) |block, i| {
            if (i % 2 == 1) try a.free(block);
            if (i % 1000 == 0) try a.check();
        }
        if (round == 1) try heap.reopen();
        if (round == 2) try heap.openElsewhere();
        try a.check();
        try testing.expectEqual(@as(u64, 10_000), (try a.stats()).live_blocks);
        for (blocks, 0..) |*block, i| if (i % 2 == 1) {
            block.* = try a.malloc(64);
        };
        try a.check();
        try testing.expectEqual(used, a.usedBytes());
    }
}

test "an empty span is kept for the next allocation, but only so many of them" {
    const heap = try TestHeap.create(1 << 30, 256 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    var held: [400]usize = undefined;
    for (&held) |*block| block.* = try a.malloc(60_000);
    const before = a.usedBytes();
    // The last block of a span comes and goes without the span being given up each time.
    const size = 28_000;
    const shape = classes.table[classes.of(size)];
    var blocks: [2000]usize = undefined;
    for (&blocks) |*block| block.* = try a.malloc(size);
    for (blocks) |block| try a.free(block);
    try a.check();
    const kept = (a.usedBytes() - before) >> alloc.slice_shift;
    try testing.expect(kept > shape.slices);
    try testing.expect(kept <= (caches.Empties.count_max + 1) * shape.slices);
    const kept_bytes = a.usedBytes();
    const again = kept / shape.slices * shape.blocks;
    for (blocks[0..again]) |*block| block.* = try a.malloc(size);
    try testing.expectEqual(kept_bytes, a.usedBytes());
    for (blocks[0..again]) |block| try a.free(block);
    for (held) |block| try a.free(block);
    try a.trim(0);
    try a.check();
    try testing.expectEqual(@as(u64, 0), a.usedBytes());
}

test "a small heap keeps next to nothing empty" {
    const heap = try TestHeap.create(64 << 20, 4 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    // Each class's current span, and one more.
    var slices_max: u64 = 8;
    for ([_]usize{ 3000, 5000, 9000, 17_000, 30_000 }) |size| {
        slices_max += classes.table[classes.of(size)].slices;
        var blocks: [40]usize = undefined;
        for (&blocks) |*block| block.* = try a.malloc(size);
        for (blocks) |block| try a.free(block);
        try a.check();
    }
    try testing.expect(a.usedBytes() <= slices_max * alloc.slice_size);
}

test "blocks in bulk and one by one never meet, and all of them are found again" {
    const heap = try TestHeap.create(1 << 30, 64 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    var prng = std.Random.DefaultPrng.init(3);
    const random = prng.random();
    var live: std.ArrayList(f64) = .empty;
    defer live.deinit(testing.allocator);
    var owner: std.AutoHashMapUnmanaged(u64, void) = .empty;
    defer owner.deinit(testing.allocator);
    const sizes = [_]usize{ 1, 16, 48, 256, 700, 3000, 30_000, 70_000 };
    for (0..400) |round| {
        const size = sizes[random.uintLessThan(usize, sizes.len)];
        const room = if (size > 1000) @as(usize, 30) else 700;
        const from = live.items.len;
        if (random.boolean()) {
            const count = random.uintLessThan(usize, room);
            try a.mallocMany(size, try live.addManyAsSlice(testing.allocator, count));
        } else for (0..random.uintLessThan(usize, room)) |_| {
            try live.append(testing.allocator, @floatFromInt(try a.malloc(size)));
        }
        for (live.items[from..]) |pointer| {
            const address: u64 = @intFromFloat(pointer);
            if ((try owner.getOrPut(testing.allocator, address)).found_existing) return error.GivenOutTwice;
            @memset(@as([*]u8, @ptrFromInt(address))[0..size], 1);
        }
        random.shuffle(f64, live.items);
        const left = live.items.len - random.uintLessThan(usize, live.items.len + 1);
        const gone = live.items[left..];
        for (gone) |pointer| _ = owner.remove(@intFromFloat(pointer));
        if (random.boolean()) {
            if (random.boolean()) std.mem.sort(f64, gone, {}, std.sort.asc(f64));
            try a.freeMany(gone, null);
            for (gone[0..@min(gone.len, 20)]) |pointer|
                try testing.expectError(error.DOUBLE_FREE, a.freeMany(&.{pointer}, null));
        } else for (gone) |pointer| try a.free(@intFromFloat(pointer));
        live.shrinkRetainingCapacity(left);
        try a.check();
        try testing.expectEqual(live.items.len, (try a.stats()).live_blocks);
        if (round % 90 == 89) try heap.reopen();
    }
    try a.freeMany(live.items, null);
    try a.trim(0);
    try a.check();
    try testing.expectEqual(@as(u64, 0), a.usedBytes());
}

test "freeMany names a block that is free already, in whatever place, and frees those before it" {
    const heap = try TestHeap.create(64 << 20, 4 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    var pointers: [3000]f64 = undefined;
    for ([_]usize{ 0, 1, 63, 64, 1023, 1024, 2999 }) |place| {
        try a.mallocMany(32, &pointers);
        try a.free(@intFromFloat(pointers[place]));
        var bad: usize = 9999;
        try testing.expectError(error.DOUBLE_FREE, a.freeMany(&pointers, &bad));
        try testing.expectEqual(place, bad);
        try testing.expectEqual(@as(u64, 2999 - place), (try a.stats()).live_blocks);
        try a.freeMany(pointers[place + 1 ..], null);
        try a.check();
    }
}
