//! The whole heap seen at once: proof of every invariant, statistics, and what a commit has to look
//! at. All of it runs while other threads are held.

const std = @import("std");
const layout = @import("layout.zig");
const classes = @import("classes.zig");
const tables_room = @import("tables.zig");
const span_room = @import("spans.zig");
const caches = @import("cache.zig");
const Allocator = @import("alloc.zig").Allocator;
const errors = @import("../errors.zig");

const Error = errors.Error;
const Tables = tables_room.Tables;
const Slice = layout.Slice;
const Cache = caches.Cache;
const Hint = caches.Hint;
const kind = layout.kind;
const state = layout.state;
const none = layout.none;
const corrupt = tables_room.corrupt;

pub const Stats = struct {
    /// Blocks that are allocated, and their bytes as rounded to size classes and slices.
    live_blocks: u64 = 0,
    live_bytes: u64 = 0,
    /// Bytes of spans and large blocks.
    used_bytes: u64 = 0,
    capacity_bytes: u64 = 0,
    spans: u64 = 0,
    large_blocks: u64 = 0,
    free_runs: u64 = 0,
    free_bytes: u64 = 0,
    /// Bytes of the tables that belong to slices ever used (the remote table only if touched: not
    /// counted), and of the header.
    metadata_bytes: u64 = 0,
};

/// Offsets are from the heap's base.
pub const Range = struct {
    offset: u64,
    len: u64,

    pub const used_count = 4;
};

pub fn usedRanges(a: *const Allocator) [Range.used_count]Range {
    const t = &a.tables;
    const high: u64 = t.high;
    return .{
        .{ .offset = layout.header_offset, .len = layout.table_offset - layout.header_offset },
        .{ .offset = layout.table_offset, .len = pages(high * Slice.stride) },
        .{ .offset = t.geometry.remote_offset, .len = pages(high * @sizeOf(layout.Remote)) },
        .{ .offset = t.geometry.data_offset, .len = high << layout.slice_shift },
    };
}

fn pages(bytes: u64) u64 {
    return std.mem.alignForward(u64, bytes, 4096);
}

/// Walks the units that tile [0, high): spans, large blocks, free runs.
pub const Units = struct {
    tables: *const Tables,
    next_slice: u32 = 0,

    pub const Unit = struct { first: u32, len: u32, kind: u8 };

    pub fn next(self: *Units) Error!?Unit {
        const t = self.tables;
        const first = self.next_slice;
        if (first >= t.high) return null;
        const line = t.line(first);
        if (line.back != 0) return corrupt(t.addressOf(first), "a first slice says that it is none");
        switch (line.kind) {
            kind.small, kind.large, kind.free => {},
            else => return corrupt(t.addressOf(first), "no span, block or free run begins"),
        }
        const len = line.slices;
        if (len == 0 or len > t.high - first)
            return corrupt(t.addressOf(first), "a slice's length is wrong");
        self.next_slice = first + len;
        return .{ .first = first, .len = len, .kind = line.kind };
    }
};

pub const FreeRuns = struct {
    tables: *const Tables,
    next_slice: u32 = 0,
    with_scratch: bool = false,
    with_free: bool = true,

    /// The next free run in order of address.
    pub fn next(self: *FreeRuns) Error!?Range {
        var units: Units = .{ .tables = self.tables, .next_slice = self.next_slice };
        while (try units.next()) |unit| {
            self.next_slice = units.next_slice;
            const is_scratch = self.with_scratch and unit.kind == kind.large and self.tables.line(unit.first).scratch == 1;
            if ((self.with_free and unit.kind == kind.free) or is_scratch) return .{
                .offset = self.tables.geometry.data_offset + (@as(u64, unit.first) << layout.slice_shift),
                .len = @as(u64, unit.len) << layout.slice_shift,
            };
        }
        return null;
    }
};

pub fn stats(a: *Allocator) Error!Stats {
    const t = &a.tables;
    var out: Stats = .{
        .used_bytes = a.usedBytes(),
        .capacity_bytes = a.capacityBytes(),
        .metadata_bytes = @sizeOf(layout.Header) + @as(u64, t.high) * Slice.stride,
    };
    var units: Units = .{ .tables = t };
    while (try units.next()) |unit| switch (unit.kind) {
        kind.free => {
            out.free_runs += 1;
            out.free_bytes += @as(u64, unit.len) << layout.slice_shift;
        },
        kind.large => {
            out.large_blocks += 1;
            out.live_blocks += 1;
            out.live_bytes += @as(u64, unit.len) << layout.slice_shift;
        },
        else => {
            const line = t.line(unit.first);
            if (line.class >= classes.count)
                return corrupt(t.addressOf(unit.first), "a span's size class is wrong");
            const blocks = liveBlocks(t, unit.first);
            out.spans += 1;
            out.live_blocks += blocks;
            out.live_bytes += blocks * classes.table[line.class].size;
        },
    };
    return out;
}

/// Allocated blocks of a span; what others freed and its owner has not collected is free.
fn liveBlocks(t: *const Tables, slice: u32) u64 {
    const line = t.line(slice);
    const shape = &classes.table[line.class];
    var blocks: u64 = 0;
    for (line.words[0..shape.words], 0..) |word, w| {
        const remote = if (line.remote_words >> @intCast(w) & 1 == 0) 0 else t.remote(slice).words[w];
        blocks += @popCount(word & ~remote);
    }
    return blocks;
}

pub fn check(a: *Allocator) Error!void {
    const t = &a.tables;
    try checkHeader(t);
    var used: u64 = 0;
    var runs: u64 = 0;
    var spans: [classes.count]u64 = @splat(0);
    var hinted: u64 = 0;
    var free_before = false;
    var units: Units = .{ .tables = t };
    while (try units.next()) |unit| {
        switch (unit.kind) {
            kind.free => {
                if (free_before) return corrupt(t.addressOf(unit.first), "two free runs touch");
                _ = try t.runAt(unit.first);
                runs += 1;
            },
            kind.large => {
                used += unit.len;
                try expectNone(t, unit.first + 1, unit.len - 1);
            },
            else => {
                used += unit.len;
                const class = try checkSpan(a, unit.first, &hinted);
                spans[class] += 1;
            },
        }
        if (unit.kind == kind.free and unit.len > 1) try expectNone(t, unit.first + 1, unit.len - 2);
        free_before = unit.kind == kind.free;
    }
    if (used != t.used) return corrupt(@intFromPtr(t.header), "the count of used slices is wrong");
    try checkBins(t, runs);
    for (spans, 0..) |count, class| try checkClassList(a, @intCast(class), count);
    try checkCaches(a, hinted);
}

fn checkHeader(t: *const Tables) Error!void {
    const at = @intFromPtr(t.header);
    const h = t.header;
    if (h.magic != layout.magic or h.version != layout.version or
        h.slice_size != layout.slice_size or h.class_count != classes.count or
        h.slices_max != t.geometry.slices) return corrupt(at, "the allocator header is damaged");
    if (h.capacity != t.capacity or h.high != t.high or h.used != t.used)
        return corrupt(at, "the allocator header's sizes were changed");
    if (t.used > t.high or t.high > t.capacity) return corrupt(at, "the allocator's sizes cannot be");
    if (t.high < t.geometry.slices and t.line(t.high).kind != kind.none)
        return corrupt(t.addressOf(t.high), "a slice behind the used ones has a descriptor");
}

fn expectNone(t: *const Tables, first: u32, len: u32) Error!void {
    for (0..len) |i| {
        const slice = first + @as(u32, @intCast(i));
        if (t.line(slice).kind != kind.none or t.line(slice).back != 0)
            return corrupt(t.addressOf(slice), "a descriptor stands inside a block or free run");
    }
}

/// Adds to `hinted` the free blocks that are not in the span's summary: their owner has hints to
/// them. Where nobody is owner the summary means nothing.
fn checkSpan(a: *Allocator, slice: u32, hinted: *u64) Error!u32 {
    const t = &a.tables;
    const at = t.addressOf(slice);
    const line = t.line(slice);
    if (line.class >= classes.count) return corrupt(at, "a span's size class is wrong");
    const shape = &classes.table[line.class];
    if (line.slices != shape.slices) return corrupt(at, "a span's length is wrong");
    for (1..shape.slices) |i| {
        const rest = t.line(slice + @as(u32, @intCast(i)));
        if (rest.kind != kind.rest or rest.back != i) return corrupt(at, "a span's slice is damaged");
    }
    if ((line.free_words | line.remote_words) & ~shape.words_mask != 0)
        return corrupt(at, "a span's summary has bits too many");
    const owner = a.ownerOf(line.owner);
    for (0..64) |i| {
        const w: u6 = @intCast(i);
        const word = line.words[w];
        const valid = if (w < shape.words) shape.valid(w) else 0;
        if (word & ~valid != 0) return corrupt(at, "a bitmap has bits too many");
        if (owner != null and line.free_words >> w & 1 == 0) hinted.* += @popCount(~word & valid);
        if (line.remote_words >> w & 1 != 0 and t.remote(slice).words[w] & ~word != 0)
            return corrupt(at, "blocks were freed by others that are not allocated");
    }
    try checkOwned(t, slice, line, owner);
    const cache = owner orelse return line.class;
    const is_current = cache.classes[line.class].current == slice;
    switch (line.state) {
        state.current => if (!is_current) return corrupt(at, "a current span is nobody's"),
        state.listed => if (is_current) return corrupt(at, "a current span is listed as well"),
        state.idle => if (is_current or line.free_words != 0)
            return corrupt(at, "a span with free blocks is in no list"),
        else => return corrupt(at, "a span's state is wrong"),
    }
    if (span_room.isEmpty(line) and line.state != state.current and line.kept == 0)
        return corrupt(at, "an empty span was not given up");
    if (line.kept > 1 or (line.kept == 1) != isKept(cache, slice))
        return corrupt(at, "a span and its owner disagree about whether it is kept");
    return line.class;
}

/// What `free` looks at is true for every slice of a span.
fn checkOwned(t: *const Tables, slice: u32, line: *const Slice, owner: ?*const Cache) Error!void {
    const cache = owner orelse return;
    var expected: caches.Owned = .{
        .words = &t.line(slice).words,
        .first = slice,
        .owner = cache.mark,
        .class = line.class,
    };
    for (t.owned[slice..][0..line.slices]) |owned| {
        expected.marked = owned.marked;
        if (!std.meta.eql(owned, expected))
            return corrupt(t.addressOf(slice), "a span and its owner's notes disagree");
    }
}

/// What a thread's own table says of slices in use is true; it may say nothing.
fn checkNear(t: *const Tables, cache: *Cache) Error!void {
    for (0..@min(t.high, caches.near_count)) |i| {
        const at = t.addressOf(@intCast(i));
        const near = cache.nearOf(at);
        if (near.inverse == 0) {
            if (!std.meta.eql(near.*, caches.Near{ .marked = near.marked })) return corrupt(at, "a thread's note of no slice is not empty");
            continue;
        }
        if (near.class >= classes.count) return corrupt(at, "a thread's note has no class");
        const offset = near.before + classes.table[near.class].size -% t.data;
        if (offset >> layout.slice_shift >= t.high) return corrupt(at, "a thread's note leads elsewhere");
        const slice: u32 = @intCast(offset >> layout.slice_shift);
        const line = t.line(slice);
        if (line.kind != kind.small or line.class != near.class or line.owner != cache.owner or
            (i >= slice and i - slice < line.slices and near.marked < t.owned[i].marked))
            return corrupt(at, "a thread's note and the span disagree");
        var expected: caches.Near = .of(t.addressOf(slice), slice, line.class, &line.words);
        expected.marked = near.marked;
        if (!std.meta.eql(near.*, expected)) return corrupt(at, "a thread's note and the span disagree");
    }
}

fn isKept(owner: *const Cache, slice: u32) bool {
    const kept = &owner.empties;
    for (0..kept.count) |i| {
        if (kept.slices[(kept.first + i) % kept.slices.len] == slice) return true;
    }
    return false;
}

fn checkBins(t: *const Tables, runs: u64) Error!void {
    const h = t.header;
    const at = @intFromPtr(h);
    var found: u64 = 0;
    for (0..layout.fl_count) |fl| {
        if ((h.sl_bits[fl] != 0) != (h.fl_bits >> @intCast(fl) & 1 != 0))
            return corrupt(at, "the free runs' bitmaps disagree");
        for (0..layout.sl_count) |sl| {
            var slice = h.heads[fl][sl];
            if ((slice != none) != (h.sl_bits[fl] >> @intCast(sl) & 1 != 0))
                return corrupt(at, "a bin and its bit disagree");
            var before: u32 = none;
            while (slice != none) {
                const run = try t.runAt(slice);
                if (!Tables.inBin(run.len, fl, sl)) return corrupt(t.addressOf(slice), "a free run is in the wrong bin");
                if (t.line(slice).prev != before) return corrupt(t.addressOf(slice), "a free run's neighbour does not know it");
                found += 1;
                if (found > runs) return corrupt(at, "the free runs' lists do not end");
                before = slice;
                slice = t.line(slice).next;
            }
        }
    }
    if (found != runs) return corrupt(at, "a free run is in no bin");
}

fn checkClassList(a: *Allocator, class: u32, spans: u64) Error!void {
    const t = &a.tables;
    const list = &t.header.classes[class];
    var found: u64 = 0;
    var before: u32 = none;
    var slice = list.head;
    while (slice != none) {
        if (slice >= t.high) return corrupt(@intFromPtr(list), "a span's list leads outside the heap");
        const line = t.line(slice);
        if (line.kind != kind.small or line.class != class or line.prev != before)
            return corrupt(t.addressOf(slice), "a list of spans leads elsewhere");
        found += 1;
        if (found > spans) return corrupt(@intFromPtr(list), "a list of spans does not end");
        before = slice;
        slice = line.next;
    }
    if (found != spans or list.spans != spans) return corrupt(@intFromPtr(list), "a span is missing in its class's list");
}

/// A hint is to a free block of a span that the cache owns.
fn checkHint(t: *const Tables, cache: *const Cache, class: usize, hint: Hint, hinted: *u64) Error!void {
    const offset = hint.address -% t.data;
    if (offset >> layout.slice_shift >= t.high) return corrupt(hint.address, "a hint leads outside the heap");
    const here: u32 = @intCast(offset >> layout.slice_shift);
    const head = here -| t.line(here).back;
    const line = t.line(head);
    const within = offset - (@as(usize, head) << layout.slice_shift);
    const index = classes.indexOf(classes.reciprocals[class], within) orelse classes.table[class].blocks;
    if (line.kind != kind.small or line.class != class or line.owner != cache.owner or
        index >= classes.table[class].blocks)
        return corrupt(hint.address, "a hint is to no block of its owner's");
    if (hint.bit != caches.bitAt(&line.words, index))
        return corrupt(hint.address, "a hint names another block's bit");
    if (line.words[index / 64] >> @truncate(index) & 1 != 0) return corrupt(hint.address, "a hint is to a block in use");
    if (line.free_words >> @truncate(index / 64) & 1 == 0) hinted.* -%= 1;
}

/// Every owned span with free blocks can be reached from its owner's cache, and its hints are true.
fn checkCaches(a: *Allocator, hinted_expected: u64) Error!void {
    const t = &a.tables;
    var hinted = hinted_expected;
    var listed: u64 = 0;
    for (a.caches[0..a.cache_count.load(.acquire)]) |cache| {
        try checkNear(t, cache.?);
        for (&cache.?.classes, 0..) |*c, class| {
            if (c.current != none) {
                const line = t.line(c.current);
                if (line.kind != kind.small or line.class != class or
                    line.owner != cache.?.owner or line.state != state.current)
                    return corrupt(t.addressOf(c.current), "a thread's current span is not its own");
            }
            const hints = cache.?.hints(class);
            for (hints, 0..) |hint, i| {
                try checkHint(t, cache.?, class, hint, &hinted);
                for (hints[0..i]) |other| if (other.address == hint.address)
                    return corrupt(hint.address, "a block has two hints");
            }
            var before: u32 = none;
            var slice = c.partial;
            while (slice != none) {
                if (slice >= t.high) return corrupt(slice, "a thread's list leads outside the heap");
                const line = t.line(slice);
                if (line.kind != kind.small or line.class != class or line.owner != cache.?.owner or
                    line.state != state.listed or line.partial_prev != before)
                    return corrupt(t.addressOf(slice), "a thread's list leads elsewhere");
                listed += 1;
                if (listed > t.high) return corrupt(t.addressOf(slice), "a thread's list does not end");
                before = slice;
                slice = line.partial_next;
            }
        }
    }
    var units: Units = .{ .tables = t };
    while (try units.next()) |unit| {
        const line = t.line(unit.first);
        if (unit.kind != kind.small or line.state != state.listed) continue;
        if (a.ownerOf(line.owner) != null) listed -%= 1;
    }
    if (listed != 0) return corrupt(t.data, "a span is missing in its owner's list");
    if (hinted != 0) return corrupt(t.data, "a free block has neither a hint nor a place in a summary");
}
