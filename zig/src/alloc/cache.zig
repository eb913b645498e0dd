//! A thread's side of the allocator, in process memory: where it allocates from next. Nothing here
//! is needed to make sense of the heap: dropping a cache loses nothing.
//!
//! Invariant: what a cache says is only a candidate. A block is handed out when its bit in the
//! heap's bitmap is clear, and by setting that bit; so a stale hint can never hand out a block twice.
//! Hints point only to spans that the cache owns (a span is purged from them when it is given up).

const std = @import("std");
const layout = @import("layout.zig");
const classes = @import("classes.zig");

const none = layout.none;

/// Blocks of a class that were freed last, to be used again while they are still in the CPU's cache.
pub const hint_count = 32;

/// A bitmap word without a free bit, for caches that have no span. Never written.
const full_word: u64 = std.math.maxInt(u64);

pub const Hint = extern struct {
    address: usize,
    /// Address of the bitmap word; in the upper six bits the number of the bit.
    place: usize,

    const word_mask = (1 << 58) - 1;

    pub inline fn init(address: usize, w: *u64, bit_number: u6) Hint {
        return .{ .address = address, .place = @intFromPtr(w) | @as(usize, bit_number) << 58 };
    }

    pub inline fn word(self: Hint) *u64 {
        return @ptrFromInt(self.place & word_mask);
    }

    pub inline fn bit(self: Hint) u64 {
        return @as(u64, 1) << @as(u6, @truncate(self.place >> 58));
    }
};

pub const ClassCache = struct {
    /// The bitmap word that is allocated from, the bits of it that stand for blocks, and the
    /// address of the block that bit 0 stands for.
    word: *u64,
    valid: u64,
    first: usize,
    size: usize,
    /// The newest hint is `hints[top % hint_count]`; a ring, so the oldest is overwritten.
    top: u32,
    current: u32,
    /// Head of the list of owned spans with free blocks.
    partial: u32,
    word_index: u32,
    hints: [hint_count]Hint,

    comptime {
        std.debug.assert(std.math.isPowerOfTwo(hint_count));
    }

    pub fn reset(self: *ClassCache, class: usize) void {
        self.* = .{
            .word = @constCast(&full_word),
            .valid = 0,
            .first = 0,
            .size = classes.table[class].size,
            .top = 0,
            .current = none,
            .partial = none,
            .word_index = 0,
            .hints = undefined,
        };
        self.purge(0, std.math.maxInt(usize));
    }

    pub fn dropWord(self: *ClassCache) void {
        self.word = @constCast(&full_word);
        self.valid = 0;
    }

    pub inline fn push(self: *ClassCache, hint: Hint) void {
        self.top +%= 1;
        self.hints[self.top % hint_count] = hint;
    }

    /// Forgets hints to blocks in [from, to).
    pub fn purge(self: *ClassCache, from: usize, to: usize) void {
        for (&self.hints) |*hint| {
            if (hint.address >= from and hint.address < to)
                hint.* = .{ .address = 0, .place = @intFromPtr(&full_word) };
        }
    }
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
    /// Used by several threads in turn, under a lock: they were too many for caches of their own.
    shared: bool,
    slot: u16,
    owner: u64,
    thread: usize,
    classes: [classes.count]ClassCache,
    pending: Pending align(64),

    pub fn reset(self: *Cache, owner: u64) void {
        self.owner = owner;
        for (&self.classes, 0..) |*class, i| class.reset(i);
    }

    /// A free block of `class`, by its newest hint or from the current bitmap word; null when a
    /// longer look is needed.
    pub inline fn take(self: *Cache, table: usize, class: u32) ?usize {
        @setRuntimeSafety(false);
        const c = &self.classes[class];
        const hint = c.hints[c.top % hint_count];
        c.top -%= 1;
        const hinted = hint.word();
        const hinted_old = hinted.*;
        if (hinted_old & hint.bit() == 0) {
            hinted.* = hinted_old | hint.bit();
            if (hinted_old == 0) noteLive(table, hinted);
            return hint.address;
        }
        const old = c.word.*;
        const free = ~old & c.valid;
        if (free == 0) return null;
        c.word.* = old | (free & (0 -% free));
        if (old == 0) noteLive(table, c.word);
        return c.first + @as(usize, @ctz(free)) * c.size;
    }
};

/// Notes in a span's summary that a bitmap word of it is no longer zero.
fn noteLive(table: usize, word: *u64) void {
    const offset = @intFromPtr(word) - table;
    const line: *layout.Slice = @ptrFromInt(table + offset / layout.Slice.stride * layout.Slice.stride);
    const index = offset % layout.Slice.stride / 8 - layout.Slice.line_size / 8;
    line.live_words |= @as(u64, 1) << @intCast(index);
}

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
