//! Tests of the whole allocator.

const std = @import("std");
const os = @import("../os/os.zig");
const alloc = @import("alloc.zig");
const layout = @import("layout.zig");
const classes = @import("classes.zig");

const Allocator = alloc.Allocator;
const Geometry = alloc.Geometry;
const testing = std.testing;

/// A heap in anonymous memory for tests, mapped as the real one is: tables whole, data up to
/// `capacity`.
pub const TestHeap = struct {
    base: usize,
    geometry: Geometry,
    reserved: usize,
    reserved_len: usize,
    allocator: Allocator = .{},
    capacity: u64 = 0,
    given_back: u64 = 0,
    grows: u32 = 0,
    nonce: u48 = 0,
    refuse_grow: bool = false,
    refuse_give_back: bool = false,
    membarrier: bool = true,

    pub fn create(max_size: u64, capacity: u64) !*TestHeap {
        return createWith(max_size, capacity, true);
    }

    pub fn createWith(max_size: u64, capacity: u64, membarrier: bool) !*TestHeap {
        const self = try testing.allocator.create(TestHeap);
        errdefer testing.allocator.destroy(self);
        const geometry = try Geometry.init(max_size);
        const len = geometry.span + layout.data_alignment;
        const reserved = try os.reserve(0, len);
        const base = std.mem.alignForward(usize, reserved, layout.data_alignment);
        self.* = .{ .base = base, .geometry = geometry, .reserved = reserved, .reserved_len = len, .membarrier = membarrier };
        try os.commitAnonymous(base, geometry.data_offset + capacity);
        self.capacity = capacity;
        try self.allocator.format(base, geometry, capacity, self.supply(), self.options());
        return self;
    }

    pub fn destroy(self: *TestHeap) void {
        self.allocator.close();
        os.unmap(self.reserved, self.reserved_len);
        testing.allocator.destroy(self);
    }

    /// What a restore does to the allocator: free runs become holes, a new session begins.
    pub fn reopen(self: *TestHeap) !void {
        var runs = self.allocator.freeRuns();
        while (try runs.next()) |run| try os.commitAnonymous(self.base + run.offset, run.len);
        try self.allocator.open(self.base, self.geometry, self.capacity, self.supply(), self.options());
    }

    fn options(self: *TestHeap) alloc.Options {
        self.nonce += 1;
        return .{ .nonce = self.nonce, .membarrier = self.membarrier };
    }

    fn supply(self: *TestHeap) alloc.Supply {
        return .{ .context = self, .grow = grow, .give_back = giveBack };
    }

    fn grow(context: ?*anyopaque, new_capacity: u64) bool {
        const self: *TestHeap = @ptrCast(@alignCast(context.?));
        if (self.refuse_grow) return false;
        const data = self.base + self.geometry.data_offset;
        os.commitAnonymous(data + self.capacity, new_capacity - self.capacity) catch return false;
        self.capacity = new_capacity;
        self.grows += 1;
        return true;
    }

    fn giveBack(context: ?*anyopaque, address: usize, len: u64) bool {
        const self: *TestHeap = @ptrCast(@alignCast(context.?));
        if (self.refuse_give_back) return false;
        os.commitAnonymous(address, len) catch return false;
        self.given_back += len;
        return true;
    }
};

fn fill(address: usize, len: usize, seed: u64) void {
    var prng = std.Random.SplitMix64.init(seed);
    const bytes = @as([*]u8, @ptrFromInt(address))[0..len];
    const edge = @min(len, 64);
    for (bytes[0..edge]) |*byte| byte.* = @truncate(prng.next());
    for (bytes[len - edge ..]) |*byte| byte.* = @truncate(prng.next());
}

fn holds(address: usize, len: usize, seed: u64) bool {
    var prng = std.Random.SplitMix64.init(seed);
    const bytes = @as([*]const u8, @ptrFromInt(address))[0..len];
    const edge = @min(len, 64);
    // A short block is filled twice over, the second time backwards from its end.
    if (len < 128) {
        var copy: [128]u8 = undefined;
        for (copy[0..edge]) |*byte| byte.* = @truncate(prng.next());
        for (copy[len - edge .. len]) |*byte| byte.* = @truncate(prng.next());
        return std.mem.eql(u8, copy[0..len], bytes);
    }
    for (bytes[0..edge]) |byte| if (byte != @as(u8, @truncate(prng.next()))) return false;
    for (bytes[len - edge ..]) |byte| if (byte != @as(u8, @truncate(prng.next()))) return false;
    return true;
}

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
