//! A set of a heap's pages: one bit a page, and over it one bit for every 64 words (4,096 pages), so
//! that a set over a terabyte costs time and memory by what is in it.
//!
//! Invariant: a bit in `summary` is set when any of its 64 words may be non-zero; a clear one means
//! that all of them are zero.

const std = @import("std");
const os = @import("../os/os.zig");

/// Pages `[first, first + count)`, counted from the heap's address.
pub const PageRange = extern struct {
    first: u64,
    count: u64,

    pub fn end(self: PageRange) u64 {
        return self.first + self.count;
    }
};

pub const PageSet = struct {
    pages: u64 = 0,
    words: []u64 = &.{},
    summary: []u64 = &.{},
    memory: []align(os.page_size) u8 = &.{},

    pub fn init(pages: u64) error{OutOfMemory}!PageSet {
        const words = std.math.divCeil(u64, pages, 64) catch unreachable;
        const groups = std.math.divCeil(u64, words, 64) catch unreachable;
        const summary_words = std.math.divCeil(u64, groups, 64) catch unreachable;
        const words_len = std.mem.alignForward(u64, words * 8, os.page_size);
        const len = words_len + std.mem.alignForward(u64, summary_words * 8, os.page_size);
        if (pages == 0) return .{};
        const memory = os.allocatePages(len) catch return error.OutOfMemory;
        const all: [*]u64 = @ptrCast(memory.ptr);
        return .{
            .pages = pages,
            .words = all[0..words],
            .summary = all[words_len / 8 ..][0..summary_words],
            .memory = memory,
        };
    }

    pub fn deinit(self: *PageSet) void {
        if (self.memory.len > 0) os.freePages(self.memory);
        self.* = .{};
    }

    pub fn contains(self: *const PageSet, page: u64) bool {
        std.debug.assert(page < self.pages);
        return self.words[page / 64] >> @intCast(page % 64) & 1 != 0;
    }

    pub fn set(self: *PageSet, page: u64) void {
        std.debug.assert(page < self.pages);
        self.words[page / 64] |= @as(u64, 1) << @intCast(page % 64);
        self.mark(page / 64);
    }

    pub fn unset(self: *PageSet, page: u64) void {
        std.debug.assert(page < self.pages);
        self.words[page / 64] &= ~(@as(u64, 1) << @intCast(page % 64));
    }

    pub fn setRange(self: *PageSet, first: u64, len: u64) void {
        self.change(first, len, true);
    }

    pub fn unsetRange(self: *PageSet, first: u64, len: u64) void {
        self.change(first, len, false);
    }

    fn change(self: *PageSet, first: u64, len: u64, comptime on: bool) void {
        if (len == 0) return;
        std.debug.assert(first < self.pages and len <= self.pages - first);
        var page = first;
        const end = first + len;
        while (page < end) {
            const word = page / 64;
            const stop = @min(end, (word + 1) * 64);
            const mask = maskOf(page % 64, stop - page);
            if (on) {
                self.words[word] |= mask;
                self.mark(word);
            } else if (self.marked(word)) {
                self.words[word] &= ~mask;
            } else {
                page = @min(end, (word / 64 + 1) * 4096);
                continue;
            }
            page = stop;
        }
    }

    pub fn merge(self: *PageSet, other: *const PageSet) void {
        std.debug.assert(self.pages >= other.pages);
        var runs = other.iterate();
        while (runs.next()) |run| self.setRange(run.first, run.count);
    }

    /// Leaves only what `other` holds too.
    pub fn intersect(self: *PageSet, other: *const PageSet) void {
        std.debug.assert(self.pages == other.pages);
        var words: Words = .{ .set = self };
        while (words.next()) |word| self.words[word] &= other.words[word];
    }

    pub fn clear(self: *PageSet) void {
        for (self.summary, 0..) |*bits, index| {
            while (bits.* != 0) {
                const group = index * 64 + @ctz(bits.*);
                const first = group * 64;
                @memset(self.words[first..@min(first + 64, self.words.len)], 0);
                bits.* &= bits.* - 1;
            }
        }
    }

    pub fn isEmpty(self: *const PageSet) bool {
        var it = self.iterate();
        return it.next() == null;
    }

    pub fn count(self: *const PageSet) u64 {
        var total: u64 = 0;
        var words: Words = .{ .set = self };
        while (words.next()) |word| total += @popCount(self.words[word]);
        return total;
    }

    /// The runs of pages in the set, in order, as long as they can be.
    pub fn iterate(self: *const PageSet) Runs {
        return .{ .set = self };
    }

    /// The first page at or after `page` that is in the set, or null.
    pub fn next(self: *const PageSet, page: u64) ?u64 {
        if (page >= self.pages) return null;
        const word = page / 64;
        const bits = self.words[word] & maskOf(page % 64, 64 - page % 64);
        if (bits != 0) return word * 64 + @ctz(bits);
        var words: Words = .{ .set = self, .at = word + 1 };
        const found = words.next() orelse return null;
        return found * 64 + @ctz(self.words[found]);
    }

    /// The first page at or after `page` that is not in the set; `pages` when there is none.
    fn nextAbsent(self: *const PageSet, page: u64) u64 {
        return self.nextAbsentBefore(page, self.pages);
    }

    /// The same, when it comes before `end`; else `end` or a later page. Runs may be very long.
    pub fn nextAbsentBefore(self: *const PageSet, page: u64, end: u64) u64 {
        const limit = @min(end, self.pages);
        var at = page;
        while (at < limit) {
            const bits = ~self.words[at / 64] & maskOf(at % 64, 64 - at % 64);
            if (bits != 0) return @min(self.pages, (at & ~@as(u64, 63)) + @ctz(bits));
            at = (at / 64 + 1) * 64;
        }
        return limit;
    }

    pub const Runs = struct {
        set: *const PageSet,
        at: u64 = 0,

        pub fn next(self: *Runs) ?PageRange {
            const first = self.set.next(self.at) orelse {
                self.at = self.set.pages;
                return null;
            };
            const end = self.set.nextAbsent(first);
            self.at = end;
            return .{ .first = first, .count = end - first };
        }
    };

    /// Indices of the words that are not zero.
    const Words = struct {
        set: *const PageSet,
        at: u64 = 0,

        fn next(self: *Words) ?u64 {
            const set_ = self.set;
            while (self.at < set_.words.len) {
                const group = self.at / 64;
                const bits = set_.summary[group / 64] & maskOf(group % 64, 64 - group % 64);
                if (bits == 0) {
                    self.at = (group / 64 + 1) * 4096;
                    continue;
                }
                const live = (group & ~@as(u64, 63)) + @ctz(bits);
                if (live != group) self.at = live * 64;
                const end = @min((live + 1) * 64, set_.words.len);
                while (self.at < end) {
                    defer self.at += 1;
                    if (set_.words[self.at] != 0) return self.at;
                }
            }
            return null;
        }
    };

    fn mark(self: *PageSet, word: u64) void {
        self.summary[word / 4096] |= @as(u64, 1) << @intCast(word / 64 % 64);
    }

    fn marked(self: *const PageSet, word: u64) bool {
        return self.summary[word / 4096] >> @intCast(word / 64 % 64) & 1 != 0;
    }
};

fn maskOf(first: u64, len: u64) u64 {
    std.debug.assert(len > 0 and first + len <= 64);
    return (~@as(u64, 0) >> @intCast(64 - len)) << @intCast(first);
}

test "a PageSet answers as a plain array of booleans does" {
    var prng = std.Random.DefaultPrng.init(1);
    const random = prng.random();
    const pages = 70_001;
    var set = try PageSet.init(pages);
    defer set.deinit();
    const model = try std.testing.allocator.alloc(bool, pages);
    defer std.testing.allocator.free(model);
    @memset(model, false);
    for (0..400) |round| {
        const first = random.uintLessThan(u64, pages);
        const longest: u64 = if (round % 7 == 0) 20_000 else 200;
        const count = 1 + random.uintLessThan(u64, @min(pages - first, longest));
        const on = random.boolean();
        if (on) set.setRange(first, count) else set.unsetRange(first, count);
        @memset(model[first..][0..count], on);
        if (round == 300) {
            set.clear();
            @memset(model, false);
            try std.testing.expect(set.isEmpty());
        }
        if (round % 10 != 0) continue;
        var runs = set.iterate();
        var at: u64 = 0;
        var total: u64 = 0;
        while (runs.next()) |run| {
            for (model[at..run.first]) |bit| try std.testing.expect(!bit);
            for (model[run.first..run.end()]) |bit| try std.testing.expect(bit);
            try std.testing.expect(run.end() == pages or !model[run.end()]);
            at = run.end();
            total += run.count;
        }
        for (model[at..]) |bit| try std.testing.expect(!bit);
        try std.testing.expectEqual(total, set.count());
    }
}
