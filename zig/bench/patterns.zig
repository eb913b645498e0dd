//! Patterns of one thread. Each takes an allocator and how much of the usual work to do, in percent,
//! and returns how many blocks it allocated; it frees all of them.

const std = @import("std");
const core = @import("core");

const os = core.os;

/// The same numbers for every allocator.
pub const Random = struct {
    state: u64,

    pub fn init(seed: u64) Random {
        return .{ .state = seed *% 0x9e37_79b9_7f4a_7c15 +% 0x1234_5678_9abc_def1 };
    }

    pub inline fn next(self: *Random) u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        return self.state;
    }

    /// Below `bound`, which is below 2^32.
    pub inline fn below(self: *Random, bound: u64) usize {
        return @intCast(((self.next() >> 32) * bound) >> 32);
    }

    /// Small ones more often: each doubling of the size is as likely as the next.
    pub inline fn size(self: *Random, log2_min: u6, log2_max: u6) usize {
        const log2: u6 = @intCast(log2_min + self.below(log2_max - log2_min));
        return (@as(usize, 1) << log2) + self.below(@as(u64, 1) << log2);
    }
};

/// Table of addresses outside of any allocator; 0 is none.
pub fn slots(count: usize) []usize {
    const pages = os.allocatePages(count * @sizeOf(usize)) catch unreachable;
    return @as([*]usize, @ptrCast(pages.ptr))[0..count];
}

pub inline fn word(address: usize, index: usize) *usize {
    return @ptrFromInt(address + index * 8);
}

pub inline fn fill(address: usize, len: usize) void {
    @memset(@as([*]u8, @ptrFromInt(address))[0..len], 7);
}

/// Writes a word of every page.
pub fn touch(address: usize, len: usize) void {
    var offset: usize = 0;
    while (offset < len) : (offset += 4096) word(address + offset, 0).* = offset;
}

pub const patterns = struct {
    /// Long integers by continued fractions: hosts of numbers of a few words that live for a few
    /// operations, some for long.
    pub fn cfrac(comptime A: type, percent: u64) u64 {
        var random: Random = .init(1);
        const long = slots(3000);
        var stack: [16]usize = @splat(0);
        const steps = 60_000 * percent;
        for (0..steps) |step| {
            // A product of two numbers, its carry, and what is left after a division.
            const words = 1 + random.below(4);
            const product = A.malloc(4 + words * 8);
            const carry = A.malloc(4 + words * 4);
            for (0..words) |i| word(product, i / 2).* = step;
            word(carry, 0).* = words;
            const rest = A.malloc(12);
            word(rest, 0).* = step;
            A.free(carry);
            const depth = step & 15;
            if (stack[depth] != 0) A.free(stack[depth]);
            stack[depth] = product;
            if (step & 63 != 0) {
                A.free(rest);
                continue;
            }
            const place = random.below(long.len);
            if (long[place] != 0) A.free(long[place]);
            long[place] = rest;
        }
        for (stack) |block| if (block != 0) A.free(block);
        for (long) |block| if (block != 0) A.free(block);
        return steps * 3;
    }

    /// Logic minimization: covers are made of small cubes, copied, grown one by one, thrown away.
    pub fn espresso(comptime A: type, percent: u64) u64 {
        var random: Random = .init(2);
        var allocated: u64 = 0;
        for (0..40 * percent) |_| {
            const width = 16 + random.below(7) * 8;
            const count = 50 + random.below(400);
            var capacity: usize = 8;
            var cover = A.malloc(capacity * 8);
            for (0..count) |i| {
                if (i == capacity) {
                    capacity *= 2;
                    cover = A.realloc(cover, capacity * 8);
                }
                const cube = A.malloc(width);
                fill(cube, width);
                word(cover, i).* = cube;
            }
            // An expanded copy of each replaces it, or it goes.
            for (0..count) |i| {
                const copy = A.malloc(width);
                const from: [*]const u8 = @ptrFromInt(word(cover, i).*);
                @memcpy(@as([*]u8, @ptrFromInt(copy))[0..width], from[0..width]);
                if (random.next() & 3 == 0) {
                    A.free(copy);
                } else {
                    A.free(word(cover, i).*);
                    word(cover, i).* = copy;
                }
            }
            for (0..count) |i| A.free(word(cover, i).*);
            A.free(cover);
            allocated += 2 * count;
        }
        return allocated;
    }

    /// Bodies under gravity: a tree is built anew every step; most time goes into walking it.
    pub fn barnes(comptime A: type, percent: u64) u64 {
        var random: Random = .init(3);
        const nodes = 20_000;
        const tree = slots(nodes);
        var sum: usize = 0;
        for (0..percent / 4 + 1) |_| {
            for (tree, 0..) |*node, i| {
                node.* = A.malloc(if (i % 3 == 0) 136 else 88);
                word(node.*, 0).* = if (i == 0) 0 else tree[random.below(i)];
                word(node.*, 1).* = i;
            }
            for (tree) |node| {
                var up = node;
                while (up != 0) : (up = word(up, 0).*) sum +%= word(up, 1).*;
            }
            for (tree) |node| A.free(node);
        }
        std.mem.doNotOptimizeAway(sum);
        return nodes * (percent / 4 + 1);
    }

    /// Random sizes and lifetimes: any of many blocks is replaced by one of another size.
    pub fn alloc_test(comptime A: type, percent: u64) u64 {
        return allocTest(A, 4, percent);
    }

    /// Large blocks, touched page by page.
    pub fn malloc_large(comptime A: type, percent: u64) u64 {
        var random: Random = .init(5);
        const live = slots(20);
        const steps = @max(1, 2 * percent);
        for (0..steps) |_| {
            const place = &live[random.below(live.len)];
            if (place.* != 0) A.free(place.*);
            const size = (5 << 20) + random.below(20 << 20);
            place.* = A.malloc(size);
            touch(place.*, size);
        }
        for (live) |block| if (block != 0) A.free(block);
        return steps;
    }

    /// Runs of blocks of one size, freed in the order in which they came: 25 to 1,600 of 128 bytes.
    pub fn glibc_simple(comptime A: type, percent: u64) u64 {
        const live = slots(1600);
        var allocated: u64 = 0;
        for ([_]usize{ 25, 100, 400, 1600 }) |count| {
            for (0..400_000 * percent / 100 / count * 4) |_| {
                for (live[0..count]) |*block| block.* = A.malloc(128);
                for (live[0..count]) |block| A.free(block);
                allocated += count;
            }
        }
        return allocated;
    }

    /// Sizes from 16 bytes to 16 KiB in 1,000 places, and blocks resized in between.
    pub fn rptest(comptime A: type, percent: u64) u64 {
        var random: Random = .init(6);
        const live = slots(1000);
        const steps = 20_000 * percent;
        for (0..steps) |step| {
            const place = &live[random.below(live.len)];
            if (place.* != 0 and step & 15 == 0) {
                place.* = A.realloc(place.*, random.size(4, 14));
                word(place.*, 0).* = step;
                continue;
            }
            if (place.* != 0) A.free(place.*);
            place.* = A.malloc(random.size(4, 14));
            word(place.*, 0).* = step;
        }
        for (live) |block| if (block != 0) A.free(block);
        return steps;
    }
};

pub fn allocTest(comptime A: type, seed: u64, percent: u64) u64 {
    var random: Random = .init(seed);
    const live = slots(1 << 15);
    const steps = 40_000 * percent;
    for (0..steps) |_| {
        const place = &live[random.below(live.len)];
        if (place.* != 0) A.free(place.*);
        const size = random.size(3, 10);
        place.* = A.malloc(size);
        fill(place.*, size);
    }
    for (live) |block| if (block != 0) A.free(block);
    return steps;
}
