//! Memory that asynchronous commits copy pages to: one range, taken in turn and given back in about
//! the same order, kept from commit to commit. Copying to memory that was never touched takes sixteen
//! times as long, and whoever copies holds the heap still.
//!
//! Invariant: parts in use never overlap, and each is one stretch of addresses.

const std = @import("std");
const os = @import("../os/os.zig");

pub const pages_max = (256 << 20) / os.page_size;
const huge_pages = (2 << 20) / os.page_size;

pub const Part = struct { first: u64, count: u64 };

pub const Staging = struct {
    memory: []align(os.page_size) u8 = &.{},
    /// Pages in use so far: the next part ends before this when it can.
    limit: u64 = 0,
    /// Pages known to be touched.
    warm: u64 = 0,
    parts: std.ArrayList(Used) = .empty,

    const Used = struct { part: Part, live: bool };
    const allocator = os.page_allocator;

    pub fn deinit(self: *Staging) void {
        if (self.memory.len > 0) os.freePages(self.memory);
        self.parts.deinit(allocator);
        self.* = .{};
    }

    /// Reserves the range; no memory is used yet.
    pub fn begin(self: *Staging) error{OutOfMemory}!void {
        if (self.memory.len > 0) return;
        self.memory = os.allocatePages(pages_max * os.page_size) catch return error.OutOfMemory;
        os.adviseHuge(@intFromPtr(self.memory.ptr), self.memory.len);
    }

    /// What of the first `pages` was not touched yet. The caller makes it present.
    pub fn cold(self: *Staging, pages: u64) ?[]align(os.page_size) u8 {
        const end = std.mem.alignForward(u64, @min(pages, pages_max), huge_pages);
        if (end <= self.warm or self.memory.len == 0) return null;
        const from = self.warm * os.page_size;
        self.warm = end;
        self.limit = @max(self.limit, end);
        return @alignCast(self.memory[from .. end * os.page_size]);
    }

    pub fn address(self: *const Staging, part: Part) usize {
        return @intFromPtr(self.memory.ptr) + part.first * os.page_size;
    }

    /// Room for `count` pages; null while there is none.
    pub fn take(self: *Staging, count: u64) ?Part {
        std.debug.assert(count > 0);
        if (count > pages_max or self.memory.len == 0) return null;
        const first = self.place(count) orelse return null;
        const part: Part = .{ .first = first, .count = count };
        self.parts.append(allocator, .{ .part = part, .live = true }) catch return null;
        self.limit = @max(self.limit, first + count);
        self.warm = @max(self.warm, if (first <= self.warm) first + count else 0);
        return part;
    }

    fn place(self: *const Staging, count: u64) ?u64 {
        const parts = self.parts.items;
        if (parts.len == 0) return 0;
        const tail = parts[0].part.first;
        const last = parts[parts.len - 1].part;
        const head = last.first + last.count;
        if (last.first < tail) return if (count <= tail - head) head else null;
        if (head + count <= self.limit) return head;
        if (count <= tail) return 0;
        return if (head + count <= pages_max) head else null;
    }

    pub fn give(self: *Staging, part: Part) void {
        for (self.parts.items) |*used| {
            if (used.live and used.part.first == part.first) {
                used.live = false;
                break;
            }
        } else unreachable;
        while (self.parts.items.len > 0 and !self.parts.items[0].live) _ = self.parts.orderedRemove(0);
    }
};

test "parts never overlap, are used again, and stay small while few are in use" {
    var staging: Staging = .{};
    defer staging.deinit();
    try staging.begin();
    try std.testing.expectEqual(@as(usize, 4096 * os.page_size), staging.cold(8 * 500).?.len);
    try std.testing.expectEqual(null, staging.cold(4096));
    try std.testing.expectEqual(@as(u64, 4096), staging.limit);
    var prng: std.Random.DefaultPrng = .init(7);
    const random = prng.random();
    var live: std.ArrayList(Part) = .empty;
    defer live.deinit(std.testing.allocator);
    var refused: usize = 0;
    for (0..20_000) |round| {
        const in_flight: usize = if (round < 10_000) 4 else 40;
        if (live.items.len < in_flight and random.boolean()) {
            const count = 1 + random.uintLessThan(u64, if (round < 10_000) 500 else 4000);
            const part = staging.take(count) orelse {
                refused += 1;
                continue;
            };
            try std.testing.expect(part.count == count and part.first + count <= pages_max);
            for (live.items) |other| {
                try std.testing.expect(part.first + count <= other.first or other.first + other.count <= part.first);
            }
            try live.append(std.testing.allocator, part);
        } else if (live.items.len > 0) {
            // Mostly in order, as commits end, sometimes not, as failed ones are kept.
            const index = if (random.uintLessThan(u8, 8) == 0) random.uintLessThan(usize, live.items.len) else 0;
            staging.give(live.orderedRemove(index));
        }
        if (round == 10_000) {
            try std.testing.expectEqual(@as(usize, 0), refused);
            try std.testing.expect(staging.limit == 4096);
        }
    }
    try std.testing.expect(refused > 0);
    for (live.items) |part| staging.give(part);
    try std.testing.expectEqual(@as(usize, 0), staging.parts.items.len);
    try std.testing.expectEqual(null, staging.take(pages_max + 1));
    try std.testing.expectEqual(@as(u64, 0), staging.take(pages_max).?.first);
}
