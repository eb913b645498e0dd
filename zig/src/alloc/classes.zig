//! Size classes of small blocks: every 16 bytes up to 256, then eight to a doubling up to 32 KiB.
//! A class's span is as many slices as keep its unused end below 1/32 and hold four blocks.
//!
//! Invariant: a block's place in its span follows from class and index alone, and dividing by the
//! block size is exact for every offset in a span (proved at compile time below).

const std = @import("std");
const layout = @import("layout.zig");

const assert = std.debug.assert;

pub const size_max = 32 << 10;
pub const count = 16 + 7 * 8;

pub const Class = struct {
    size: u32,
    /// Slices of a span of this class.
    slices: u32,
    /// Blocks of a span of this class.
    blocks: u32,
    /// Bitmap words of a span, and the summary mask that covers them.
    words: u32,
    words_mask: u64,
    /// Bits of the last word that stand for blocks.
    last_valid: u64,

    /// The bits of bitmap word `word` that stand for blocks.
    pub inline fn valid(self: *const Class, word: u32) u64 {
        return if (word + 1 == self.words) self.last_valid else ~@as(u64, 0);
    }
};

pub const table: [count]Class = blk: {
    @setEvalBranchQuota(10_000);
    var out: [count]Class = undefined;
    for (&out, 0..) |*class, i| class.* = make(sizeAt(i));
    break :blk out;
};

/// 2^64 divided by the block size, rounded up, for every byte that may stand in a descriptor; what
/// is no class divides nothing.
pub const reciprocals: [256]u64 = blk: {
    var out: [256]u64 = @splat(0);
    for (out[0..count], table) |*reciprocal, class| reciprocal.* = ~@as(u64, 0) / class.size + 1;
    break :blk out;
};

/// The index of the block that begins `offset` bytes into a span, or null when none does: the lower
/// half of the product is below the reciprocal just where a block begins. For an offset behind the
/// last block it is a number whose bit no bitmap has set.
pub inline fn indexOf(reciprocal: u64, offset: u64) ?u64 {
    @setRuntimeSafety(false);
    const product = @as(u128, offset) * reciprocal;
    return if (@as(u64, @truncate(product)) < reciprocal) @intCast(product >> 64) else null;
}

/// How to divide by a block size without rounding: multiply by the inverse of its odd part, turn
/// right by its trailing zeros. That maps numbers of 64 bits to each other one to one, and multiples
/// of the size to their quotients: a small result is an exact quotient, whatever was divided.
pub const Divisor = struct { inverse: u64, shift: u8 };

pub const divisors: [count]Divisor = blk: {
    @setEvalBranchQuota(10_000);
    var out: [count]Divisor = undefined;
    for (&out, table) |*divisor, class| {
        const shift = @ctz(class.size);
        const odd: u64 = class.size >> shift;
        var inverse = odd;
        for (0..5) |_| inverse *%= 2 -% odd *% inverse;
        assert(inverse *% odd == 1);
        divisor.* = .{ .inverse = inverse, .shift = shift };
    }
    break :blk out;
};

/// Bitmap words, for every byte that may stand in a descriptor.
pub const word_counts: [256]u8 = blk: {
    var out: [256]u8 = @splat(0);
    for (out[0..count], table) |*entry, class| entry.* = class.words;
    break :blk out;
};

pub const by_size: [size_max / 16 + 1]u8 = blk: {
    @setEvalBranchQuota(20_000);
    var out: [size_max / 16 + 1]u8 = undefined;
    var class: u8 = 0;
    for (&out, 0..) |*entry, i| {
        if (i * 16 > table[class].size) class += 1;
        entry.* = class;
    }
    break :blk out;
};

/// The smallest class that holds `size` bytes, which is at most `size_max`.
pub inline fn of(size: usize) u32 {
    assert(size <= size_max);
    return by_size[(size + 15) >> 4];
}

/// The smallest class for `size` whose blocks are all aligned to `alignment`, or null when only a
/// large block is. Spans begin at slices, so a block is aligned as its class's size is.
pub fn ofAligned(size: usize, alignment: usize) ?u32 {
    if (size > size_max or alignment > size_max) return null;
    var class = of(@max(size, alignment));
    while (class < count) : (class += 1) {
        if (table[class].size % alignment == 0) return class;
    }
    return null;
}

fn sizeAt(class: usize) u32 {
    if (class < 16) return (class + 1) * 16;
    const doubling = (class - 16) / 8;
    const step = (class - 16) % 8 + 1;
    return (256 << doubling) + (32 << doubling) * step;
}

fn make(size: u32) Class {
    var slices = 1;
    while (slices < layout.span_slices_max) : (slices += 1) {
        const bytes = slices * layout.slice_size;
        if (bytes / size >= 4 and (bytes % size) * 32 <= bytes) break;
    }
    const blocks = slices * layout.slice_size / size;
    const words = (blocks + 63) / 64;
    return .{
        .size = size,
        .slices = slices,
        .blocks = blocks,
        .words = words,
        .words_mask = if (words == 64) ~@as(u64, 0) else (1 << words) - 1,
        .last_valid = if (blocks % 64 == 0) ~@as(u64, 0) else (1 << (blocks % 64)) - 1,
    };
}

comptime {
    @setEvalBranchQuota(10_000);
    assert(sizeAt(count - 1) == size_max);
    for (table, reciprocals[0..count]) |class, reciprocal| {
        const bytes = class.slices * layout.slice_size;
        assert(class.blocks >= 4 and class.blocks <= layout.blocks_max);
        // The error of the rounding, summed over all blocks, stays below one reciprocal.
        const excess = @as(u128, reciprocal) * class.size - (1 << 64);
        assert(((bytes - 1) / class.size + 1) * excess < reciprocal);
        assert((bytes - 1) / class.size < layout.blocks_max);
        assert((bytes % class.size) * 16 <= bytes);
    }
}

test "every size has the smallest class that holds it" {
    var size: usize = 0;
    while (size <= size_max) : (size += 1) {
        const class = of(size);
        try std.testing.expect(table[class].size >= size);
        if (class > 0) try std.testing.expect(table[class - 1].size < @max(size, 1));
    }
}

test "an aligned class is aligned, holds the size and exists up to 32 KiB" {
    for ([_]usize{ 1, 16, 17, 100, 255, 1000, 5000, 30_000, 32_768 }) |size| {
        var alignment: usize = 1;
        while (alignment <= size_max) : (alignment *= 2) {
            const class = ofAligned(size, alignment).?;
            try std.testing.expect(table[class].size >= size);
            try std.testing.expectEqual(@as(usize, 0), table[class].size % alignment);
        }
    }
    try std.testing.expectEqual(null, ofAligned(10, 65_536));
}

test "a divisor finds the quotient of multiples, and nothing small for any other number" {
    var prng = std.Random.DefaultPrng.init(3);
    for (table, divisors) |class, divisor| {
        for (0..1000) |_| {
            const far = prng.random().int(u64);
            for ([_]u64{ far, far >> 32, far % (1 << 20), far % (1 << 20) *% class.size }) |number| {
                const quotient = std.math.rotr(u64, number *% divisor.inverse, divisor.shift);
                const expected = if (number % class.size == 0) number / class.size else layout.blocks_max + 1;
                if (expected <= layout.blocks_max or quotient <= layout.blocks_max)
                    try std.testing.expectEqual(expected, quotient);
            }
        }
    }
}

test "the reciprocal finds each block's index, and that no block begins elsewhere" {
    for (table, 0..) |class, number| {
        var offset: u64 = 0;
        while (offset < class.slices * layout.slice_size) : (offset += 1) {
            const expected: ?u64 = if (offset % class.size == 0) offset / class.size else null;
            if (indexOf(reciprocals[number], offset) != expected) return error.TestUnexpectedResult;
        }
    }
    try std.testing.expectEqual(null, indexOf(reciprocals[count], 0));
    try std.testing.expectEqual(null, indexOf(reciprocals[255], 160));
}
