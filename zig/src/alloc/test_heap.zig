//! A heap in anonymous memory for the allocator's tests, mapped as the real one is: tables whole,
//! data up to its capacity.

const std = @import("std");
const os = @import("../os/os.zig");
const alloc = @import("alloc.zig");
const layout = @import("layout.zig");

const Allocator = alloc.Allocator;
const Geometry = alloc.Geometry;
const testing = std.testing;

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
    /// Data bytes from the first on that may be handed out.
    prepare_limit: u64 = std.math.maxInt(u64),
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
        self.* = .{
            .base = std.mem.alignForward(usize, reserved, layout.data_alignment),
            .geometry = geometry,
            .reserved = reserved,
            .reserved_len = len,
            .membarrier = membarrier,
            .capacity = capacity,
        };
        try os.commitAnonymous(self.base, geometry.data_offset + capacity);
        try self.allocator.format(self.base, geometry, capacity, self.supply(), self.options());
        return self;
    }

    pub fn destroy(self: *TestHeap) void {
        self.allocator.close();
        os.unmap(self.reserved, self.reserved_len);
        testing.allocator.destroy(self);
    }

    /// What a restore does to the allocator: free runs become holes, a new session begins.
    pub fn reopen(self: *TestHeap) !void {
        self.settle();
        var runs = self.allocator.freeRuns();
        while (try runs.next()) |run| try os.commitAnonymous(self.base + run.offset, run.len);
        try self.openAgain();
    }

    /// As a commit does before it takes the heap: blocks that are away come home.
    fn settle(self: *TestHeap) void {
        self.allocator.hold();
        self.allocator.release();
    }

    pub fn openAgain(self: *TestHeap) !void {
        try self.allocator.open(self.base, self.geometry, self.capacity, self.supply(), self.options());
    }

    /// The next session in another process: nothing of this one's caches is known there.
    pub fn openElsewhere(self: *TestHeap) !void {
        self.settle();
        self.allocator.close();
        self.allocator = .{};
        try self.openAgain();
    }

    /// Takes over what another heap holds, at that one's place, as a restore does that moves a heap.
    pub fn moveTo(self: *TestHeap, other: *TestHeap) !void {
        other.settle();
        other.allocator.close();
        inline for (.{ "base", "geometry", "reserved", "reserved_len", "capacity" }) |field|
            std.mem.swap(@TypeOf(@field(self, field)), &@field(self, field), &@field(other, field));
        try self.openAgain();
    }

    /// A commit's view of the heap: what it stores, and what reads as zero afterwards.
    pub fn save(self: *TestHeap) !Image {
        var image: Image = .{ .capacity = self.allocator.capacityBytes() };
        errdefer image.deinit();
        for (self.allocator.usedRanges()) |range| try image.add(self.base, range);
        var runs = self.allocator.freeRuns();
        while (try runs.next()) |run| try image.holes.append(testing.allocator, run);
        return image;
    }

    /// Puts an image back and opens it as a new session.
    pub fn load(self: *TestHeap, image: *const Image) !void {
        try os.commitAnonymous(self.base, self.geometry.data_offset + self.capacity);
        for (image.parts.items) |part| {
            @memcpy(@as([*]u8, @ptrFromInt(self.base + part.offset))[0..part.bytes.len], part.bytes);
        }
        for (image.holes.items) |hole| try os.commitAnonymous(self.base + hole.offset, hole.len);
        try self.openAgain();
    }

    fn options(self: *TestHeap) alloc.Options {
        self.nonce += 1;
        return .{ .nonce = self.nonce, .membarrier = self.membarrier };
    }

    fn supply(self: *TestHeap) alloc.Supply {
        return .{ .context = self, .grow = grow, .give_back = giveBack, .prepare = prepare };
    }

    fn grow(context: ?*anyopaque, new_capacity: u64) bool {
        const self: *TestHeap = @ptrCast(@alignCast(context.?));
        if (self.refuse_grow) return false;
        const data = self.base + self.geometry.data_offset;
        // Data beyond the stored capacity may be mapped already, after an older image was loaded.
        if (new_capacity > self.capacity) {
            os.commitAnonymous(data + self.capacity, new_capacity - self.capacity) catch return false;
            self.capacity = new_capacity;
        }
        self.grows += 1;
        return true;
    }

    fn prepare(context: ?*anyopaque, address: usize, len: u64) bool {
        const self: *TestHeap = @ptrCast(@alignCast(context.?));
        return address + len - self.base - self.geometry.data_offset <= self.prepare_limit;
    }

    fn giveBack(context: ?*anyopaque, address: usize, len: u64) bool {
        const self: *TestHeap = @ptrCast(@alignCast(context.?));
        if (self.refuse_give_back) return false;
        os.commitAnonymous(address, len) catch return false;
        self.given_back += len;
        return true;
    }
};

/// Proves that a heap whose blocks are all free is sound and uses nothing.
pub fn expectEmpty(heap: *TestHeap) !void {
    const a = &heap.allocator;
    try a.check();
    try a.trim(0);
    try a.check();
    try testing.expectEqual(@as(u64, 0), (try a.stats()).live_blocks);
    try testing.expectEqual(@as(u64, 0), a.usedBytes());
}

pub const Image = struct {
    capacity: u64,
    parts: std.ArrayList(Part) = .empty,
    holes: std.ArrayList(alloc.Range) = .empty,

    const Part = struct { offset: u64, bytes: []u8 };

    fn add(self: *Image, base: usize, range: alloc.Range) !void {
        const bytes = try testing.allocator.alloc(u8, range.len);
        @memcpy(bytes, @as([*]const u8, @ptrFromInt(base + range.offset))[0..range.len]);
        try self.parts.append(testing.allocator, .{ .offset = range.offset, .bytes = bytes });
    }

    pub fn deinit(self: *Image) void {
        for (self.parts.items) |part| testing.allocator.free(part.bytes);
        self.parts.deinit(testing.allocator);
        self.holes.deinit(testing.allocator);
    }
};

/// Fills a block's first and last bytes with what `seed` says.
pub fn fill(address: usize, len: usize, seed: u64) void {
    var prng = std.Random.SplitMix64.init(seed);
    const bytes = @as([*]u8, @ptrFromInt(address))[0..len];
    const edge = @min(len, 64);
    for (bytes[0..edge]) |*byte| byte.* = @truncate(prng.next());
    for (bytes[len - edge ..]) |*byte| byte.* = @truncate(prng.next());
}

/// Whether a block still holds what `fill` put there.
pub fn holds(address: usize, len: usize, seed: u64) bool {
    var prng = std.Random.SplitMix64.init(seed);
    const bytes = @as([*]const u8, @ptrFromInt(address))[0..len];
    const edge = @min(len, 64);
    // A short block is filled twice over, the second time from its end on.
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
