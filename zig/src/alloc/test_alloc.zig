//! Tests of the whole allocator on one thread: random calls against a model, what is refused,
//! growth, giving back, a commit and a restore, damaged metadata.

const std = @import("std");
const os = @import("../os/os.zig");
const alloc = @import("alloc.zig");
const layout = @import("layout.zig");
const classes = @import("classes.zig");
const caches = @import("cache.zig");
const harness = @import("test_heap.zig");

const Allocator = alloc.Allocator;
const TestHeap = harness.TestHeap;
const expectEmpty = harness.expectEmpty;
const fill = harness.fill;
const holds = harness.holds;
const testing = std.testing;

const Live = struct { address: usize, len: usize, seed: u64 };

fn randomSize(random: std.Random) usize {
    return switch (random.uintLessThan(u32, 100)) {
        0...69 => random.uintLessThan(usize, 300),
        70...89 => random.uintLessThan(usize, 5000),
        90...97 => random.uintLessThan(usize, 40_000),
        else => random.uintLessThan(usize, 1_000_000),
    };
}

/// Random calls against a model that knows what each block must hold.
fn runModel(heap: *TestHeap, seed: u64, steps: usize) !void {
    const a = &heap.allocator;
    var prng = std.Random.DefaultPrng.init(seed);
    const random = prng.random();
    var live: std.ArrayList(Live) = .empty;
    defer live.deinit(testing.allocator);
    for (0..steps) |step| {
        const growing = (step / 2000) % 3 != 2;
        const choice = random.uintLessThan(u32, 100);
        if (live.items.len == 0 or choice < (if (growing) @as(u32, 50) else 25)) {
            const len = randomSize(random);
            const address = switch (random.uintLessThan(u32, 8)) {
                0 => blk: {
                    const p = try a.calloc(1, len);
                    try testing.expect(std.mem.allEqual(u8, @as([*]u8, @ptrFromInt(p))[0..len], 0));
                    break :blk p;
                },
                1 => blk: {
                    const alignment = @as(usize, 1) << random.uintLessThan(u6, 18);
                    const p = try a.alignedAlloc(alignment, len);
                    try testing.expectEqual(@as(usize, 0), p % alignment);
                    break :blk p;
                },
                else => try a.malloc(len),
            };
            try testing.expectEqual(@as(usize, 0), address % 16);
            try testing.expect(try a.usableSize(address) >= len);
            fill(address, len, step);
            try live.append(testing.allocator, .{ .address = address, .len = len, .seed = step });
        } else if (choice < 85) {
            const block = live.swapRemove(random.uintLessThan(usize, live.items.len));
            try testing.expect(holds(block.address, block.len, block.seed));
            try a.free(block.address);
            if (random.uintLessThan(u32, 10) == 0)
                try testing.expectError(error.DOUBLE_FREE, a.free(block.address));
        } else {
            const block = &live.items[random.uintLessThan(usize, live.items.len)];
            try testing.expect(holds(block.address, block.len, block.seed));
            const len = randomSize(random);
            const kept = @min(len, block.len, 64);
            var before: [64]u8 = undefined;
            @memcpy(before[0..kept], @as([*]u8, @ptrFromInt(block.address))[0..kept]);
            block.address = try a.realloc(block.address, len);
            try testing.expectEqualSlices(u8, before[0..kept], @as([*]u8, @ptrFromInt(block.address))[0..kept]);
            block.len = len;
            block.seed = step;
            fill(block.address, len, step);
        }
        if (step % 1000 == 0) {
            try a.check();
            const stats = try a.stats();
            try testing.expectEqual(live.items.len, stats.live_blocks);
        }
        if (step % 7000 == 6999) try heap.reopen();
    }
    try a.check();
    for (live.items) |block| {
        try testing.expect(holds(block.address, block.len, block.seed));
        try a.free(block.address);
    }
    try a.check();
    const stats = try a.stats();
    try testing.expectEqual(@as(u64, 0), stats.live_blocks);
    try a.trim(0);
    try a.check();
    try testing.expectEqual(@as(u64, 0), a.usedBytes());
}

test "random calls agree with a model, across reopenings" {
    for (0..4) |seed| {
        const heap = try TestHeap.create(1 << 30, 1 << 20);
        defer heap.destroy();
        try runModel(heap, seed, 30_000);
    }
}

test "the same without membarrier" {
    const heap = try TestHeap.createWith(1 << 30, 1 << 20, false);
    defer heap.destroy();
    try runModel(heap, 99, 20_000);
}

test "what is no block is refused, whatever number it is, and nothing changes" {
    const heap = try TestHeap.create(256 << 20, 1 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    const small = try a.malloc(100);
    const medium = try a.malloc(20_000);
    const large = try a.malloc(300_000);
    const data = heap.base + heap.geometry.data_offset;
    const foreign = [_]usize{
        1,                  8,                   4096,                   heap.base,                     heap.base + 4096,
        data - 16,          small + 1,           small + 8,              small + 16,                    medium + 16,
        medium + 8192,      medium + (64 << 10), large + 16,             large + (64 << 10),            data + (100 << 20),
        data + (256 << 20), data + (1 << 40),    std.math.maxInt(usize), std.math.maxInt(usize) - 4095, 1 << 63,
        @intFromPtr(&heap),
    };
    for (foreign) |address| {
        const expected = error.BAD_POINTER;
        // A neighbour of a block in its span is a place where a block might be, and none is.
        const result = a.free(address);
        if (result) |_| return error.TestUnexpectedResult else |err| if (err != error.DOUBLE_FREE) try testing.expectEqual(expected, err);
        try testing.expect(std.meta.isError(a.usableSize(address)));
        try testing.expect(std.meta.isError(a.realloc(address, 10)));
    }
    for ([_]usize{ small + 1, small + 8, small + 16, medium + 16, large + 16, large + (64 << 10), data - 16, heap.base }) |address| {
        try testing.expectError(error.BAD_POINTER, a.free(address));
    }
    for ([_]f64{ std.math.nan(f64), -1, 0.5, std.math.inf(f64), -std.math.inf(f64), 1e300, 1 << 60 }) |number| {
        var bad: usize = 99;
        try testing.expectError(error.BAD_POINTER, a.freeMany(&.{number}, &bad));
        try testing.expectEqual(@as(usize, 0), bad);
    }
    try a.free(0);
    try a.check();
    try testing.expectEqual(@as(u64, 3), (try a.stats()).live_blocks);
    for ([_]usize{ small, medium, large }) |address| {
        try a.free(address);
        try testing.expectError(error.DOUBLE_FREE, a.free(address));
        try testing.expectError(error.DOUBLE_FREE, a.usableSize(address));
        try testing.expectError(error.DOUBLE_FREE, a.realloc(address, 10));
    }
    try expectEmpty(heap);
    for ([_]usize{ small, medium, large }) |address| try testing.expectError(error.DOUBLE_FREE, a.free(address));
}

test "absurd sizes and alignments are refused and cost nothing" {
    const heap = try TestHeap.create(64 << 20, 1 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    const block = try a.malloc(1000);
    for ([_]usize{ 65 << 20, 1 << 40, 1 << 62, std.math.maxInt(usize), std.math.maxInt(usize) - 65_536 }) |size| {
        try testing.expectError(error.OUT_OF_MEMORY, a.malloc(size));
        try testing.expectError(error.OUT_OF_MEMORY, a.calloc(1, size));
        try testing.expectError(error.OUT_OF_MEMORY, a.calloc(size, size));
        try testing.expectError(error.OUT_OF_MEMORY, a.realloc(block, size));
        try testing.expectError(error.OUT_OF_MEMORY, a.alignedAlloc(64, size));
        try testing.expectError(error.OUT_OF_MEMORY, a.grow(size));
    }
    for ([_]usize{ 0, 3, 24, 4095, std.math.maxInt(usize) }) |alignment|
        try testing.expectError(error.INVALID_ARGUMENT, a.alignedAlloc(alignment, 10));
    for ([_]usize{ 128 << 20, 1 << 40, 1 << 63 }) |alignment|
        try testing.expectError(error.OUT_OF_MEMORY, a.alignedAlloc(alignment, 10));
    const zero = try a.malloc(0);
    try testing.expect(zero != try a.malloc(0));
    try testing.expect(try a.usableSize(block) >= 1000);
    try a.check();
}

test "blocks are aligned up to 4 MiB" {
    const heap = try TestHeap.create(256 << 20, 1 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    var blocks: std.ArrayList(usize) = .empty;
    defer blocks.deinit(testing.allocator);
    var alignment: usize = 1;
    while (alignment <= 4 << 20) : (alignment *= 2) {
        for ([_]usize{ 0, 1, 100, 5000, 70_000 }) |size| {
            const block = try a.alignedAlloc(alignment, size);
            try testing.expectEqual(@as(usize, 0), block % alignment);
            try testing.expect(try a.usableSize(block) >= size);
            try blocks.append(testing.allocator, block);
        }
    }
    try a.check();
    for (blocks.items) |block| try a.free(block);
    try expectEmpty(heap);
}

test "a block grows and shrinks in place where it can" {
    const heap = try TestHeap.create(256 << 20, 1 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    const block = try a.malloc(200_000);
    fill(block, 200_000, 1);
    // At the end of what is used, even through growth of the heap.
    try testing.expectEqual(block, try a.realloc(block, 20 << 20));
    try testing.expect(heap.grows > 0);
    try testing.expectEqual(block, try a.realloc(block, 100_000));
    const behind = try a.malloc(500_000);
    try testing.expectEqual(block, try a.realloc(block, 110_000));
    try testing.expectEqual(behind, try a.realloc(behind, 5 << 20));
    // In the way: it moves and takes its bytes along.
    const moved = try a.realloc(block, 1 << 20);
    try testing.expect(moved != block);
    try a.free(behind);
    const small = try a.malloc(100);
    try testing.expectEqual(small, try a.realloc(small, 112));
    try testing.expectEqual(small, try a.realloc(small, 80));
    fill(small, 80, 2);
    const bigger = try a.realloc(small, 40_000);
    try testing.expect(holds(bigger, 80, 2));
    const tiny = try a.realloc(bigger, 10);
    try testing.expect(try a.usableSize(tiny) <= 32);
    try testing.expectEqual(@as(u64, 2), (try a.stats()).live_blocks);
    try a.free(tiny);
    try a.free(moved);
    try expectEmpty(heap);
}

test "the heap grows by itself up to its largest size, then says so, and goes on after a free" {
    const heap = try TestHeap.create(32 << 20, 1 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    var blocks: std.ArrayList(usize) = .empty;
    defer blocks.deinit(testing.allocator);
    heap.refuse_grow = true;
    try testing.expectError(error.OUT_OF_MEMORY, a.malloc(2 << 20));
    heap.refuse_grow = false;
    while (true) {
        const size: usize = if (blocks.items.len % 2 == 0) 100_000 else 3000;
        try blocks.append(testing.allocator, a.malloc(size) catch |err| {
            try testing.expectEqual(error.OUT_OF_MEMORY, err);
            break;
        });
    }
    try testing.expect(heap.grows >= 5 and heap.grows < 40);
    try testing.expectEqual(@as(u64, 32 << 20), a.capacityBytes());
    try testing.expect(a.usedBytes() > 31 << 20);
    try a.check();
    for (0..20) |_| try a.free(blocks.pop().?);
    for (0..10) |_| try blocks.append(testing.allocator, try a.malloc(100_000));
    var many: [4000]f64 = undefined;
    // All or none.
    const live = (try a.stats()).live_blocks;
    try testing.expectError(error.OUT_OF_MEMORY, a.mallocMany(30_000, &many));
    try testing.expectEqual(live, (try a.stats()).live_blocks);
    for (blocks.items) |block| try a.free(block);
    try expectEmpty(heap);
    try a.grow(1 << 20);
    try testing.expectEqual(@as(u64, 32 << 20), a.capacityBytes());
}

test "slices that the supply has no memory for are not handed out, and stay free" {
    const heap = try TestHeap.create(64 << 20, 64 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    heap.prepare_limit = 4 << 20;
    const small = try a.malloc(100);
    try testing.expectError(error.OUT_OF_MEMORY, a.malloc(8 << 20));
    const large = try a.malloc(1 << 20);
    try testing.expectEqual(false, try a.resizeInPlace(large, 16 << 20));
    try testing.expectError(error.OUT_OF_MEMORY, a.realloc(large, 16 << 20));
    try testing.expectEqual(@as(usize, 1 << 20), try a.usableSize(large));
    try a.check();
    heap.prepare_limit = 64 << 20;
    const grown = try a.realloc(large, 16 << 20);
    try testing.expectEqual(large, grown);
    try a.free(grown);
    try a.free(small);
    try expectEmpty(heap);
}

test "empty spans kept for the next allocation do not stand in the way of the last bytes" {
    const heap = try TestHeap.create(8 << 20, 8 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    var size: usize = 16;
    while (size <= classes.size_max) : (size *= 2) try a.free(try a.malloc(size));
    try testing.expect(a.usedBytes() > 0);
    const all = try a.malloc(8 << 20);
    try testing.expectError(error.OUT_OF_MEMORY, a.malloc(1));
    try a.free(all);
    size = 16;
    while (size <= classes.size_max) : (size *= 2) try a.free(try a.malloc(size));
    const most = try a.malloc((8 << 20) - (64 << 10));
    try a.free(try a.malloc(100));
    try a.free(try a.malloc(1000));
    try a.free(most);
    try expectEmpty(heap);
}

test "many blocks at once are distinct, and a bad pointer among those to free is named" {
    const heap = try TestHeap.create(256 << 20, 1 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    const many = try testing.allocator.alloc(f64, 50_000);
    defer testing.allocator.free(many);
    try a.mallocMany(48, many);
    try testing.expectEqual(@as(u64, 50_000), (try a.stats()).live_blocks);
    const copy = try testing.allocator.dupe(f64, many);
    defer testing.allocator.free(copy);
    std.mem.sort(f64, copy, {}, std.sort.asc(f64));
    for (copy[1..], copy[0 .. copy.len - 1]) |later, earlier| try testing.expect(later >= earlier + 48);
    var bad: usize = 0;
    const kept = many[1000];
    many[1000] += 8;
    try testing.expectError(error.BAD_POINTER, a.freeMany(many, &bad));
    try testing.expectEqual(@as(usize, 1000), bad);
    many[1000] = kept;
    try a.freeMany(many[1000..], null);
    var large: [5]f64 = undefined;
    try a.mallocMany(100_000, &large);
    try a.freeMany(&large, null);
    try expectEmpty(heap);
}

test "free memory goes back to the system a piece at a time, and reads as zero afterwards" {
    const heap = try TestHeap.create(1 << 30, 1 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    var blocks: [200]usize = undefined;
    for (&blocks) |*block| {
        block.* = try a.malloc(1 << 20);
        fill(block.*, 1 << 20, 1);
    }
    heap.refuse_give_back = true;
    for (blocks[0..100]) |block| try a.free(block);
    try testing.expectEqual(@as(u64, 0), heap.given_back);
    heap.refuse_give_back = false;
    var largest: u64 = 0;
    for (blocks[100..]) |block| {
        const before = heap.given_back;
        try a.free(block);
        largest = @max(largest, heap.given_back - before);
    }
    try testing.expect(heap.given_back > 100 << 20);
    try testing.expect(largest <= 16 << 20);
    try a.check();
    try a.trim(std.math.maxInt(u64));
    try testing.expect(heap.given_back >= 200 << 20);
    try a.check();
    const zeroed = try a.calloc(150 << 20, 1);
    try testing.expect(std.mem.allEqual(u8, @as([*]const u8, @ptrFromInt(zeroed))[0 .. 150 << 20], 0));
    try a.free(zeroed);
    try expectEmpty(heap);
}

test "what a commit keeps is enough: tables and used data without the free runs" {
    const heap = try TestHeap.create(256 << 20, 1 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    var prng = std.Random.DefaultPrng.init(5);
    const random = prng.random();
    var live: std.ArrayList(Live) = .empty;
    defer live.deinit(testing.allocator);
    for (0..3000) |i| {
        const len = randomSize(random) / 4;
        const address = try a.malloc(len);
        fill(address, len, i);
        try live.append(testing.allocator, .{ .address = address, .len = len, .seed = i });
        if (i % 3 == 0) {
            const gone = live.swapRemove(random.uintLessThan(usize, live.items.len));
            try a.free(gone.address);
        }
    }
    a.hold();
    var image = try heap.save();
    defer image.deinit();
    a.release();
    const used = a.usedBytes();
    // Another history over the same memory, then back, twice: once in this process, once in another.
    for (0..2) |round| {
        for (0..500) |_| {
            const address = try a.malloc(randomSize(random));
            fill(address, 0, 0);
        }
        try heap.load(&image);
        if (round == 1) try heap.openElsewhere();
        try a.check();
        try testing.expectEqual(used, a.usedBytes());
        try testing.expectEqual(live.items.len, (try a.stats()).live_blocks);
        for (live.items) |block| try testing.expect(holds(block.address, block.len, block.seed));
    }
    for (live.items) |block| try a.free(block.address);
    try expectEmpty(heap);
}

test "spans of an earlier session are used again before new ones are made" {
    const heap = try TestHeap.create(256 << 20, 1 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    const blocks = try testing.allocator.alloc(f64, 40_000);
    defer testing.allocator.free(blocks);
    try a.mallocMany(64, blocks);
    var i: usize = 0;
    while (i < blocks.len) : (i += 2) try a.freeMany(blocks[i .. i + 1], null);
    const used = a.usedBytes();
    for (0..3) |_| {
        try heap.openElsewhere();
        var half: [19_000]f64 = undefined;
        try a.mallocMany(64, &half);
        try testing.expectEqual(used, a.usedBytes());
        try a.freeMany(&half, null);
        try a.check();
    }
    i = 1;
    while (i < blocks.len) : (i += 2) try a.freeMany(blocks[i .. i + 1], null);
    try expectEmpty(heap);
}

test "a heap is not opened where its allocator header cannot be right" {
    const heap = try TestHeap.create(64 << 20, 1 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    const block = try a.malloc(1000);
    const header = a.tables.header;
    const good = header.*;
    try testing.expectEqual(heap.capacity, try Allocator.storedCapacity(heap.base, heap.geometry));
    inline for (.{ "magic", "slice_size", "class_count", "slices_max", "capacity", "high", "used" }) |name| {
        @field(header, name) = std.math.maxInt(@TypeOf(@field(header, name)));
        try testing.expectError(error.CORRUPT, heap.openAgain());
        try testing.expectError(error.CORRUPT, Allocator.storedCapacity(heap.base, heap.geometry));
        header.* = good;
    }
    header.version += 1;
    try testing.expectError(error.BAD_VERSION, heap.openAgain());
    header.* = good;
    try heap.openAgain();
    try a.free(block);
    try expectEmpty(heap);
}

test "damaged tables are an error and never a crash" {
    const heap = try TestHeap.create(64 << 20, 16 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    var prng = std.Random.DefaultPrng.init(11);
    const random = prng.random();
    var live: [400]usize = @splat(0);
    for (&live) |*address| address.* = try a.malloc(randomSize(random) / 4);
    for (live[0..100]) |*address| {
        try a.free(address.*);
        address.* = 0;
    }
    var image = try heap.save();
    defer image.deinit();
    const ranges = a.usedRanges();
    var found: u32 = 0;
    for (0..600) |round| {
        for (0..1 + random.uintLessThan(usize, 4)) |_| {
            // Mostly descriptors, for most of a table are bits that any value fits.
            const range = ranges[random.uintLessThan(usize, 3)];
            var offset = range.offset + random.uintLessThan(u64, range.len);
            if (range.offset == layout.table_offset and random.boolean())
                offset = range.offset + random.uintLessThan(u64, a.tables.high) * layout.Slice.stride + random.uintLessThan(u64, 64);
            const byte: *u8 = @ptrFromInt(heap.base + offset);
            byte.* = if (random.boolean()) random.int(u8) else byte.* ^ @as(u8, 1) << random.int(u3);
        }
        if (random.boolean()) heap.openAgain() catch {};
        if (std.meta.isError(a.check())) found += 1;
        for (0..60) |_| {
            const slot = &live[random.uintLessThan(usize, live.len)];
            const size = randomSize(random) / 4;
            switch (random.uintLessThan(u32, 6)) {
                0, 1 => _ = a.free(slot.*) catch {},
                2 => _ = a.realloc(slot.*, size) catch {},
                3 => _ = a.calloc(1, size) catch {},
                4 => _ = a.usableSize(slot.* +% random.uintLessThan(usize, 1 << 20)) catch {},
                else => _ = a.malloc(size) catch {},
            }
        }
        _ = a.check() catch {};
        _ = a.stats() catch {};
        _ = a.trim(1 << 20) catch {};
        var runs = a.freeRuns();
        while (runs.next() catch null) |_| {}
        try heap.load(&image);
        if (round % 100 == 0) try a.check();
    }
    // Bits of the remote table that nobody points to, and the like, may go unseen.
    try testing.expect(found > 300);
}

test "std's containers and resizing work on it" {
    const heap = try TestHeap.create(256 << 20, 1 << 20);
    defer heap.destroy();
    const gpa = heap.allocator.allocator();
    var map: std.AutoHashMapUnmanaged(u64, []u8) = .empty;
    for (0..20_000) |i| {
        const text = try gpa.alloc(u8, i % 200);
        @memset(text, @truncate(i));
        try map.put(gpa, i * 7, text);
    }
    try heap.allocator.check();
    var sorted: std.ArrayList(u64) = .empty;
    var it = map.iterator();
    while (it.next()) |entry| {
        try testing.expect(std.mem.allEqual(u8, entry.value_ptr.*, @truncate(entry.key_ptr.* / 7)));
        try sorted.append(gpa, entry.key_ptr.*);
        gpa.free(entry.value_ptr.*);
    }
    try testing.expectEqual(@as(usize, 20_000), sorted.items.len);
    sorted.deinit(gpa);
    map.deinit(gpa);
    try expectEmpty(heap);
}

test "slices that share a place in a thread's table are told apart" {
    const apart = caches.near_count * layout.slice_size;
    const heap = try TestHeap.create(apart + (64 << 20), apart + (64 << 20));
    defer heap.destroy();
    const a = &heap.allocator;
    const low = try a.malloc(64);
    const between = try a.malloc(apart - layout.slice_size);
    const high = try a.malloc(96);
    try testing.expectEqual(low + apart, high);
    const others = [_]usize{ try a.malloc(64), try a.malloc(96) };
    for (0..3) |_| {
        for ([_]usize{ low, high }) |block| {
            try testing.expectError(error.BAD_POINTER, a.free(block + 16));
            try a.free(block);
            try testing.expectError(error.DOUBLE_FREE, a.free(block));
            try a.check();
        }
        try testing.expectEqual(low, try a.malloc(64));
        try testing.expectEqual(high, try a.malloc(96));
    }
    for (others ++ .{ low, high, between }) |block| try a.free(block);
    try a.check();
}
