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
pub const hint_count = 128;

/// A bitmap word without a free bit, for caches that have no span. Never written.
const full_word: u64 = std.math.maxInt(u64);

pub const Hint = extern struct {
    address: usize,
    /// Address of the bitmap word << 6 | number of the bit.
    place: usize,

    pub const empty_address = 0;

    pub inline fn init(address: usize, w: *const u64, bit_number: u6) Hint {
        return .{ .address = address, .place = @intFromPtr(w) << 6 | bit_number };
    }

    pub inline fn word(self: Hint) *u64 {
        @setRuntimeSafety(false);
        return @ptrFromInt(self.place >> 6);
    }

    pub inline fn bit(self: Hint) u64 {
        return @as(u64, 1) << @as(u6, @truncate(self.place));
    }
};

/// The newest hint is `hints[top % hint_count]`; a ring, so the oldest is overwritten. Taking a hint
/// leaves it in place: its bit is set then, so it is passed over.
pub const Hints = [hint_count]Hint;

pub const ClassCache = extern struct {
    /// The bitmap word that is allocated from, the bits of it that stand for blocks, and the
    /// address of the block that bit 0 stands for.
    word: *u64,
    valid: u64,
    first: usize,
    size: usize,
    top: u32,
    current: u32,
    /// Head of the list of owned spans with free blocks.
    partial: u32,
    padding: [20]u8 = undefined,

    comptime {
        std.debug.assert(@sizeOf(ClassCache) == 64);
        std.debug.assert(std.math.isPowerOfTwo(hint_count));
    }

    pub fn dropWord(self: *ClassCache) void {
        self.word = @constCast(&full_word);
        self.valid = 0;
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
    classes: [classes.count]ClassCache align(64),
    hints: [classes.count]Hints,
    pending: Pending align(64),

    pub fn reset(self: *Cache, owner: u64) void {
        self.owner = owner;
        for (&self.classes, classes.table) |*class, shape| {
            class.* = .{
                .word = undefined,
                .valid = 0,
                .first = 0,
                .size = shape.size,
                .top = 0,
                .current = none,
                .partial = none,
            };
            class.dropWord();
        }
        for (0..classes.count) |class| self.purge(class, 0, std.math.maxInt(usize));
    }

    /// Forgets hints to blocks of `class` in [from, to).
    pub fn purge(self: *Cache, class: usize, from: usize, to: usize) void {
        for (&self.hints[class]) |*hint| {
            if (hint.address >= from and hint.address < to)
                hint.* = .init(Hint.empty_address, &full_word, 0);
        }
    }

    pub inline fn push(self: *Cache, class: usize, hint: Hint) void {
        @setRuntimeSafety(false);
        const top = self.classes[class].top +% 1;
        self.classes[class].top = top;
        self.hints[class][top % hint_count] = hint;
    }

    /// A free block of `class`, by its newest hint or from the current bitmap word; 0 when a longer
    /// look is needed.
    pub inline fn take(self: *Cache, class: usize) usize {
        @setRuntimeSafety(false);
        const c = &self.classes[class];
        const hint = &self.hints[class][c.top % hint_count];
        c.top -%= 1;
        const hinted = hint.word();
        const hinted_old = hinted.*;
        if (hinted_old & hint.bit() == 0) {
            hinted.* = hinted_old | hint.bit();
            return hint.address;
        }
        const old = c.word.*;
        const free = ~old & c.valid;
        if (free == 0) return 0;
        c.word.* = old | (free & (0 -% free));
        return c.first + @as(usize, @ctz(free)) * c.size;
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
