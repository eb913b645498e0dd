//! A thread's side of the allocator, in process memory: which blocks it hands out next. Nothing
//! here is needed to make sense of the heap: dropping a cache loses nothing.
//!
//! Invariant: what a cache says is only a hint. A block is handed out when its bit in the heap's
//! bitmap is clear, and by setting that bit; so nothing here can hand out a block twice. Hints point
//! only to spans that the cache owns (they are purged when a span is given up), and each free block
//! has one at most: they are gathered from bitmaps only when none are left.

const std = @import("std");
const layout = @import("layout.zig");
const classes = @import("classes.zig");

const none = layout.none;

/// Free blocks of a class that a cache knows at most, and how many it gathers when it knows none.
pub const hint_count = 64;
pub const gather_count = 24;

/// A block that is free, unless its bit says otherwise.
pub const Hint = struct {
    address: usize,
    word: *u64,
    mask: u64,
};

pub const ClassCache = struct {
    /// The newest hint is the last of `len`: what was freed last is still in the CPU's cache.
    len: u32,
    /// The span that hints are gathered from.
    current: u32,
    /// Head of the list of owned spans with free blocks.
    partial: u32,
    padding: u32 = 0,
};

/// Slices in which other threads freed blocks. Bit b stands for all slices congruent to b, so the
/// set has one size for every heap; setting a bit twice is harmless, and so is a bit too many.
pub const Pending = struct {
    any: std.atomic.Value(u64),
    groups: [64]std.atomic.Value(u64),
    slices: [4096]std.atomic.Value(u64),

    pub const period = 64 * 4096;

    pub fn add(self: *Pending, slice: u32) void {
        const bit = slice % period;
        const word = bit / 64;
        const mask = @as(u64, 1) << @truncate(bit);
        if (self.slices[word].load(.seq_cst) & mask != 0) return;
        if (self.slices[word].fetchOr(mask, .seq_cst) != 0) return;
        const group = word / 64;
        if (self.groups[group].fetchOr(@as(u64, 1) << @truncate(word), .seq_cst) != 0) return;
        _ = self.any.fetchOr(@as(u64, 1) << @truncate(group), .seq_cst);
    }

    pub inline fn isEmpty(self: *const Pending) bool {
        return self.any.load(.monotonic) == 0;
    }

    /// Takes one word of the set: its number and its bits, or null when nothing is left.
    pub fn pop(self: *Pending) ?struct { word: u32, bits: u64 } {
        while (true) {
            const groups = self.any.load(.seq_cst);
            if (groups == 0) return null;
            const g: u6 = @intCast(@ctz(groups));
            const words = self.groups[g].load(.seq_cst);
            if (words == 0) {
                // Clear, then look again: who adds sees either the bit cleared or finds us here.
                _ = self.any.fetchAnd(~(@as(u64, 1) << g), .seq_cst);
                if (self.groups[g].load(.seq_cst) != 0)
                    _ = self.any.fetchOr(@as(u64, 1) << g, .seq_cst);
                continue;
            }
            const w: u6 = @intCast(@ctz(words));
            _ = self.groups[g].fetchAnd(~(@as(u64, 1) << w), .seq_cst);
            const index = @as(u32, g) * 64 + w;
            const bits = self.slices[index].swap(0, .seq_cst);
            if (bits != 0) return .{ .word = index, .bits = bits };
        }
    }

    pub fn clear(self: *Pending) void {
        while (self.pop()) |_| {}
    }
};

pub const Cache = struct {
    /// 1 while its thread is in the allocator; see threads.zig.
    inside: std.atomic.Value(u32) align(64),
    /// Changes of containers that its thread (threads, when shared) is in the middle of.
    changing: std.atomic.Value(u32),
    /// Used by several threads in turn, under a lock: they were too many for caches of their own.
    shared: bool,
    slot: u16,
    owner: u64,
    thread: usize,
    classes: [classes.count]ClassCache,
    hints: [classes.count][hint_count]Hint,
    pending: Pending align(64),

    pub fn reset(self: *Cache, owner: u64) void {
        self.owner = owner;
        self.classes = @splat(.{ .len = 0, .current = none, .partial = none });
    }

    /// A free block of `class` by its newest hint, if there is one.
    pub inline fn take(self: *Cache, class: usize) ?usize {
        @setRuntimeSafety(false);
        const c = &self.classes[class];
        if (c.len == 0) return null;
        c.len -= 1;
        const hint = self.hints[class][c.len];
        const old = hint.word.*;
        if (old & hint.mask != 0) return null;
        hint.word.* = old | hint.mask;
        return hint.address;
    }

    /// Remembers a block that was freed; false when there is no room.
    pub inline fn push(self: *Cache, class: usize, address: usize, word: *u64, mask: u64) bool {
        @setRuntimeSafety(false);
        const c = &self.classes[class];
        if (c.len == hint_count) return false;
        self.hints[class][c.len] = .{ .address = address, .word = word, .mask = mask };
        c.len += 1;
        return true;
    }

    /// Forgets the older half of the hints; the bitmaps still know.
    pub fn forgetHalf(self: *Cache, class: usize) void {
        const hints = &self.hints[class];
        const half = hint_count / 2;
        @memcpy(hints[0..half], hints[half..]);
        self.classes[class].len = half;
    }

    /// Forgets hints to blocks of `class` in [from, to).
    pub fn purge(self: *Cache, class: usize, from: usize, to: usize) void {
        const c = &self.classes[class];
        var kept: u32 = 0;
        for (self.hints[class][0..c.len]) |hint| {
            if (hint.address >= from and hint.address < to) continue;
            self.hints[class][kept] = hint;
            kept += 1;
        }
        c.len = kept;
    }
};

test "a pending set gives back every slice that was added, once" {
    const pending = try std.testing.allocator.create(Pending);
    defer std.testing.allocator.destroy(pending);
    pending.* = std.mem.zeroes(Pending);
    for ([_]u32{ 0, 1, 63, 64, 4095, 4096, 262_143, 262_144 + 5, 5 }) |slice| pending.add(slice);
    var found: u32 = 0;
    while (pending.pop()) |taken| found += @popCount(taken.bits);
    try std.testing.expectEqual(@as(u32, 8), found);
    try std.testing.expect(pending.isEmpty());
    pending.add(7);
    try std.testing.expect(!pending.isEmpty());
}
