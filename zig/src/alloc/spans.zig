//! Spans of small blocks: how they are made, owned, refilled from, adopted and given up. All this
//! is the slow path; the calling thread is inside (threads.zig), and `lock` is held where it says so.
//!
//! Invariants: a span's owner alone writes its bitmap and summaries; others set bits in its remote
//! bitmap. A span is in its class's list from birth to release. An owned span with a free block is
//! its owner's current one or in its owner's partial list. An empty span is its owner's current one,
//! among those that its owner keeps for a while, or gone.

const std = @import("std");
const layout = @import("layout.zig");
const classes = @import("classes.zig");
const tables = @import("tables.zig");
const caches = @import("cache.zig");
const away = @import("away.zig");
const find = @import("find.zig");
const Allocator = @import("alloc.zig").Allocator;
const errors = @import("../errors.zig");

const Error = errors.Error;
const Cache = caches.Cache;
const Slice = layout.Slice;
const kind = layout.kind;
const state = layout.state;
const none = layout.none;
const corrupt = tables.corrupt;
const assert = std.debug.assert;

/// Spans that are looked at for adoption before a new one is made.
const adopt_steps = 32;
/// A thread's empty spans may be this part of the slices in use.
const empty_share = 16;

/// The first slice of the span that `slice` belongs to, its descriptor checked; null when `slice`
/// is not in a span.
pub fn headOf(a: *const Allocator, slice: u32) Error!?u32 {
    const t = &a.tables;
    var head = slice;
    const line = t.line(slice);
    if (line.kind == kind.rest) {
        if (line.back == 0 or line.back > head or line.back >= layout.span_slices_max)
            return corrupt(t.addressOf(slice), "a span's slice is damaged");
        head -= line.back;
        if (t.line(head).kind != kind.small)
            return corrupt(t.addressOf(slice), "a span's first slice is damaged");
    } else if (line.kind != kind.small) return null;
    const first = t.line(head);
    if (first.class >= classes.count)
        return corrupt(t.addressOf(head), "a span's size class is wrong");
    const class = &classes.table[first.class];
    if (first.slices != class.slices or slice - head >= class.slices or
        @as(u64, head) + class.slices > t.high)
        return corrupt(t.addressOf(head), "a span's length is wrong");
    return head;
}

fn expectSpan(a: *const Allocator, slice: u32, class: u32) Error!*Slice {
    const t = &a.tables;
    if (slice >= t.high) return corrupt(slice, "a span lies outside the heap");
    const head = try headOf(a, slice);
    const line = t.line(slice);
    if (head != slice or line.class != class)
        return corrupt(t.addressOf(slice), "a list of spans leads elsewhere");
    return line;
}

// ------------------------------------------------------------------ refilling

/// Gathers hints of `class`, of which the cache has none.
pub fn refill(a: *Allocator, cache: *Cache, class: u32) Error!void {
    const c = &cache.classes[class];
    assert(cache.hints(class).len == 0);
    if (!cache.pending.isQuiet()) {
        try away.receive(a, cache);
        if (!cache.pending.isEmpty()) try collectPending(a, cache, cache);
        if (cache.hints(class).len > 0) return;
    }
    while (c.current == none or !gather(a, cache, class)) try advance(a, cache, class);
}

/// Takes blocks of `class` one after the other from where they lie, without making hints, until
/// `done` is all of `out`. In an error `done` says how many there are.
pub fn takeMany(a: *Allocator, cache: *Cache, class: u32, out: []f64, done: *usize) Error!void {
    const c = &cache.classes[class];
    if (!cache.pending.isQuiet()) try away.receive(a, cache);
    while (done.* < out.len) {
        // Blocks that have hints first: what follows must not take those.
        const address = cache.take(class);
        if (address == 0) break;
        out[done.*] = @floatFromInt(address);
        done.* += 1;
    }
    if (done.* < out.len and !cache.pending.isEmpty()) try collectPending(a, cache, cache);
    while (done.* < out.len) {
        const taken = if (c.current == none) 0 else takeFrom(a, c.current, class, out[done.*..]);
        if (taken == 0) try advance(a, cache, class);
        done.* += taken;
    }
}

/// Takes the lowest free blocks of a span: how many of `out` it filled.
fn takeFrom(a: *Allocator, slice: u32, class: u32, out: []f64) usize {
    const shape = &classes.table[class];
    const line = a.tables.line(slice);
    const start = a.tables.addressOf(slice);
    var len: usize = 0;
    var left = line.free_words & shape.words_mask;
    while (left != 0 and len < out.len) : (left &= left - 1) {
        const w: u32 = @ctz(left);
        const free = ~line.words[w] & shape.valid(w);
        var rest = free;
        var address = start + w * 64 * @as(usize, shape.size);
        if (free == ~@as(u64, 0) and out.len - len >= 64) {
            rest = 0;
            for (out[len..][0..64]) |*pointer| {
                pointer.* = @floatFromInt(@as(i64, @intCast(address)));
                address += shape.size;
            }
            len += 64;
        } else while (rest != 0 and len < out.len) : (rest &= rest - 1) {
            out[len] = @floatFromInt(@as(i64, @intCast(address + @ctz(rest) * @as(usize, shape.size))));
            len += 1;
        }
        line.words[w] |= free ^ rest;
        if (rest == 0) line.free_words &= ~(@as(u64, 1) << @intCast(w));
    }
    return len;
}

/// Makes another span the current one, which has none to give any more: one of the cache's own that
/// has free blocks, one that nobody owns, or a new one.
fn advance(a: *Allocator, cache: *Cache, class: u32) Error!void {
    const c = &cache.classes[class];
    if (c.current != none) {
        a.tables.line(c.current).state = state.idle;
        c.current = none;
    }
    while (c.partial == none) {
        if (try collectDead(a, cache)) continue;
        const slice = newSpan(a, cache, class) catch |err| slice: {
            if (err != error.OUT_OF_MEMORY) return err;
            // The empty spans that this thread keeps for other classes may be what is missing.
            try trim(a, cache);
            break :slice try newSpan(a, cache, class);
        };
        return makeCurrent(a, c, slice);
    }
    const slice = c.partial;
    try unlist(a, cache, slice, try expectSpan(a, slice, class));
    makeCurrent(a, c, slice);
}

fn newSpan(a: *Allocator, cache: *Cache, class: u32) Error!u32 {
    a.lock.lock();
    defer a.lock.unlock();
    return try adopt(a, cache, class) orelse try create(a, cache, class);
}

fn makeCurrent(a: *Allocator, c: *caches.ClassCache, slice: u32) void {
    a.tables.line(slice).state = state.current;
    c.current = slice;
}

/// Makes hints of free blocks of the current span, the lowest to be taken first; false when there
/// are none. A word all of whose free blocks have hints leaves the summary.
fn gather(a: *Allocator, cache: *Cache, class: u32) bool {
    const c = &cache.classes[class];
    const shape = &classes.table[class];
    const line = a.tables.line(c.current);
    const start = a.tables.addressOf(c.current);
    const summary = line.free_words & shape.words_mask;
    var count: usize = 0;
    var left = summary;
    while (left != 0 and count < c.gather) : (left &= left - 1) {
        const w: u32 = @ctz(left);
        const free = ~line.words[w] & shape.valid(w);
        if (free == 0) line.free_words &= ~(@as(u64, 1) << @intCast(w));
        count += @popCount(free);
    }
    count = @min(count, c.gather);
    cache.setCount(class, count);
    const places = cache.hints(class);
    left = summary;
    while (left != 0 and count > 0) : (left &= left - 1) {
        const w: u32 = @ctz(left);
        var free = ~line.words[w] & shape.valid(w);
        const start_of_word = start + w * 64 * @as(usize, shape.size);
        while (free != 0 and count > 0) : (free &= free - 1) {
            const bit: usize = @ctz(free);
            count -= 1;
            places[count] = .{
                .address = start_of_word + bit * shape.size,
                .bit = caches.bitAt(&line.words, w * 64 + bit),
            };
        }
        if (free == 0) line.free_words &= ~(@as(u64, 1) << @intCast(w));
    }
    c.gather = @min(c.gather * 2, caches.gather_max);
    return places.len > 0;
}

/// Forgets the older half of a class's hints.
pub fn forgetOlder(a: *Allocator, cache: *Cache, class: u32) Error!void {
    const all = cache.hints(class);
    const kept = all.len / 2;
    try summarize(a, cache, all[0 .. all.len - kept]);
    @memmove(all[0..kept], all[all.len - kept ..]);
    cache.setCount(class, kept);
}

/// Puts blocks that lose their hints into their spans' summaries.
fn summarize(a: *Allocator, cache: *Cache, hints: []const caches.Hint) Error!void {
    const t = &a.tables;
    var before: u64 = 0;
    for (hints) |hint| {
        // Neighbours are often freed one after the other.
        if (hint.bit / 64 == before) continue;
        before = hint.bit / 64;
        const here = (hint.address - t.data) >> layout.slice_shift;
        const slice = t.owned[here].first;
        const line = t.line(slice);
        const w = (hint.bit - caches.bitAt(&line.words, 0)) / 64;
        line.free_words |= @as(u64, 1) << @intCast(w);
        if (line.state == state.idle) try offer(a, cache, slice, line);
    }
}

/// Bitmap words that have a free block.
fn summaryOf(line: *const Slice) u64 {
    const shape = &classes.table[line.class];
    var summary: u64 = 0;
    for (line.words[0..shape.words], 0..) |word, w| {
        if (~word & shape.valid(@intCast(w)) != 0) summary |= @as(u64, 1) << @intCast(w);
    }
    return summary;
}

fn markOwned(a: *Allocator, cache: *Cache, slice: u32, class: u32) void {
    const slices = classes.table[class].slices;
    for (a.tables.owned[slice..][0..slices]) |*owned| {
        owned.words = &a.tables.line(slice).words;
        owned.first = slice;
        owned.class = @intCast(class);
        @atomicStore(u16, &owned.owner, cache.mark, .release);
    }
    const start = a.tables.addressOf(slice);
    for (0..slices) |i| cache.note(start + (i << layout.slice_shift), start, class, &a.tables.line(slice).words);
}

fn unmarkOwned(a: *Allocator, slice: u32, line: *const Slice) void {
    @memset(a.tables.owned[slice..][0..classes.table[line.class].slices], .{});
    unnote(a, slice, line);
}

/// Takes a span out of its owner's own table. The owner may be a thread that ended: the next one in
/// its slot has the same number, and owns what is left of its spans.
fn unnote(a: *Allocator, slice: u32, line: *const Slice) void {
    const slot: u16 = @truncate(line.owner);
    if (line.owner >> 16 != a.nonce or slot >= a.cache_count.load(.acquire)) return;
    const start = a.tables.addressOf(slice);
    for (0..classes.table[line.class].slices) |i|
        a.caches[slot].?.unnote(start + (i << layout.slice_shift), start, line.class);
}

/// A new span for `cache`. Lock held.
fn create(a: *Allocator, cache: *Cache, class: u32) Error!u32 {
    const t = &a.tables;
    const shape = &classes.table[class];
    const run = try t.take(shape.slices, 1);
    const line = t.line(run.first);
    // Remote bits may be left from a double free that raced with the release of the last span here.
    while (line.remote_words != 0) : (line.remote_words &= line.remote_words - 1) {
        const w: u6 = @intCast(@ctz(line.remote_words));
        unmark(a, run.first, line.class, w, t.remote(run.first).words[w]);
        t.remote(run.first).words[w] = 0;
    }
    @memset(line.words[0..shape.words], 0);
    line.class = @intCast(class);
    line.back = 0;
    line.state = state.idle;
    line.slices = shape.slices;
    line.owner = cache.owner;
    line.free_words = shape.words_mask;
    line.kept = 0;
    line.kind = kind.small;
    for (1..shape.slices) |i| {
        const rest = t.line(run.first + @as(u32, @intCast(i)));
        rest.back = @intCast(i);
        rest.kind = kind.rest;
    }
    try enlist(a, class, run.first, line);
    markOwned(a, cache, run.first, class);
    return run.first;
}

// ------------------------------------------------------------------ the list of all spans of a class

/// Puts a span at the head of its class's list. Lock held.
fn enlist(a: *Allocator, class: u32, slice: u32, line: *Slice) Error!void {
    const list = &a.tables.header.classes[class];
    if (list.head != none) (try expectSpan(a, list.head, class)).prev = slice;
    line.next = list.head;
    line.prev = none;
    list.head = slice;
    list.spans +%= 1;
}

/// Takes a span out of its class's list. Lock held.
fn delist(a: *Allocator, class: u32, slice: u32, line: *Slice) Error!void {
    const list = &a.tables.header.classes[class];
    const next = if (line.next != none) try expectSpan(a, line.next, class) else null;
    const prev = if (line.prev != none) try expectSpan(a, line.prev, class) else null;
    if ((if (next) |n| n.prev != slice else false) or
        (if (prev) |p| p.next != slice else list.head != slice))
        return corrupt(a.tables.addressOf(slice), "a span's neighbours do not know it");
    if (next) |n| n.prev = line.prev;
    if (prev) |p| p.next = line.next else list.head = line.next;
    if (a.cursor[class] == slice) a.cursor[class] = line.next;
    list.spans -%= 1;
}

/// Looks for a span that nobody owns and that has room, a bounded number of steps further through
/// the class's list each time. Lock held.
fn adopt(a: *Allocator, cache: *Cache, class: u32) Error!?u32 {
    for (0..adopt_steps) |_| {
        if (a.adoptable[class] == 0) return null;
        a.adoptable[class] -= 1;
        if (a.cursor[class] == none) a.cursor[class] = a.tables.header.classes[class].head;
        const slice = a.cursor[class];
        if (slice == none) {
            a.adoptable[class] = 0;
            return null;
        }
        const line = try expectSpan(a, slice, class);
        a.cursor[class] = line.next;
        if (a.ownerOf(line.owner) != null) continue;
        if (summaryOf(line) == 0 and @atomicLoad(u64, &line.remote_words, .monotonic) == 0) continue;
        own(a, cache, slice, line);
        if (line.free_words != 0) return slice;
    }
    return null;
}

/// Makes `cache` the owner of a span that had none. Lock held.
fn own(a: *Allocator, cache: *Cache, slice: u32, line: *Slice) void {
    assert(a.ownerOf(line.owner) == null);
    line.state = state.idle;
    line.kept = 0;
    unnote(a, slice, line);
    const slices = a.tables.owned[slice..][0..classes.table[line.class].slices];
    for (slices) |*owned| owned.marked = 0;
    @atomicStore(u64, &line.owner, cache.owner, .seq_cst);
    collect(a, slice, line);
    // The last owner's hints are gone.
    line.free_words = summaryOf(line);
    markOwned(a, cache, slice, line.class);
    // What is on its way to the last owner is found by its marks.
    if (!a.sends.load(.seq_cst) or !away.anyOf(&cache.marks, line.class, slice)) return;
    for (0..slices.len) |i| away.tell(a, slice + @as(u32, @intCast(i)), cache);
}

/// Makes `cache` the owner of `slice`'s span, which belonged to nobody when the caller looked;
/// false when somebody else was faster.
pub fn ownNow(a: *Allocator, cache: *Cache, slice: u32) bool {
    a.lock.lock();
    defer a.lock.unlock();
    const line = a.tables.line(slice);
    if (a.ownerOf(line.owner) != null) return line.owner == cache.owner;
    own(a, cache, slice, line);
    return true;
}

// ------------------------------------------------------------------ remote frees

/// Notes in the remote table that a block is free, for the owner of its span to collect; false when
/// that was noted already.
pub fn freeRemote(a: *Allocator, block: find.Small, owner: *Cache) bool {
    @setRuntimeSafety(false);
    const w = block.index / 64;
    const mask = @as(u64, 1) << @truncate(block.index);
    const here = block.slice + @as(u32, @intCast(@as(u64, block.index) * classes.table[block.class].size >> layout.slice_shift));
    if (@atomicLoad(u8, &a.tables.owned[here].marked, .monotonic) == 0) away.tell(a, here, owner);
    // The mark first: who clears the bit then clears the mark.
    @atomicStore(u8, a.tables.mark_pages.marks.of(block.class, block.slice, block.index), 1, .release);
    const old = @atomicRmw(u64, &a.tables.remote(block.slice).words[w], .Or, mask, .seq_cst);
    if (old & mask != 0) return false;
    // Who found the word empty says so, or the owner is just emptying it and takes this bit too.
    if (old == 0) announce(a, block.slice, w, owner);
    return true;
}

noinline fn announce(a: *Allocator, slice: u32, w: u32, owner: *Cache) void {
    const line = a.tables.line(slice);
    const word_mask = @as(u64, 1) << @intCast(w);
    if (@atomicLoad(u64, &line.remote_words, .seq_cst) & word_mask == 0)
        _ = @atomicRmw(u64, &line.remote_words, .Or, word_mask, .seq_cst);
    owner.pending.add(slice);
}

/// Moves what other threads freed in an owned span from its remote bitmap into its bitmap.
fn collect(a: *Allocator, slice: u32, line: *Slice) void {
    const shape = &classes.table[line.class];
    var left = @atomicRmw(u64, &line.remote_words, .Xchg, 0, .seq_cst) & shape.words_mask;
    while (left != 0) : (left &= left - 1) {
        const w: u32 = @ctz(left);
        const bits = @atomicRmw(u64, &a.tables.remote(slice).words[w], .Xchg, 0, .seq_cst);
        const freed = bits & line.words[w];
        if (freed != 0) {
            line.words[w] ^= freed;
            line.free_words |= @as(u64, 1) << @intCast(w);
        }
        unmark(a, slice, line.class, w, bits);
    }
}

/// Blocks that are in the bitmap, or no blocks at all, are away no more.
fn unmark(a: *Allocator, slice: u32, class: u8, w: u32, bits: u64) void {
    if (class >= classes.count) return;
    var left = bits;
    while (left != 0) : (left &= left - 1) {
        const mark = a.tables.mark_pages.marks.of(class, slice, w * 64 + @as(usize, @ctz(left)));
        // What an earlier session left has none.
        if (mark.* != 0) @atomicStore(u8, mark, 0, .release);
    }
}

/// Collects in every span that `from` was told of. `from` is the caller's own cache or that of a
/// thread that is gone; spans that nobody owns become the caller's.
pub fn collectPending(a: *Allocator, cache: *Cache, from: *Cache) Error!void {
    while (from.pending.pop()) |taken| {
        var bits = taken.bits;
        while (bits != 0) : (bits &= bits - 1) {
            var slice: u64 = @as(u64, taken.word) * 64 + @ctz(bits);
            while (slice < a.tables.high) : (slice += away.Pending.period)
                try collectSlice(a, cache, @intCast(slice));
        }
    }
}

/// Collects what was freed in spans of threads that are gone; true when the caller's lists may have
/// become longer.
fn collectDead(a: *Allocator, cache: *Cache) Error!bool {
    var found = false;
    for (a.caches[0..a.cache_count.load(.acquire)], 0..) |other, slot| {
        const pending = &other.?.pending;
        if (a.alive[slot].load(.monotonic) or (pending.isEmpty() and pending.inbox.load(.monotonic) == null)) continue;
        away.spill(a, other.?);
        try collectPending(a, cache, other.?);
        found = true;
    }
    return found;
}

fn collectSlice(a: *Allocator, cache: *Cache, slice: u32) Error!void {
    const line = a.tables.line(slice);
    if (line.kind != kind.small) return;
    if (@atomicLoad(u64, &line.remote_words, .seq_cst) == 0) return;
    const owner = @atomicLoad(u64, &line.owner, .seq_cst);
    if (owner == cache.owner) {
        if (try headOf(a, slice) != slice) return;
        collect(a, slice, line);
        try settle(a, cache, slice);
    } else if (a.ownerOf(owner)) |other| {
        other.pending.add(slice);
    } else {
        // Only under the lock is it certain that this is still a span without owner.
        a.lock.lock();
        defer a.lock.unlock();
        if (line.kind != kind.small or a.ownerOf(line.owner) != null) return;
        if (try headOf(a, slice) != slice) return;
        own(a, cache, slice, line);
        try settleLocked(a, cache, slice);
    }
}

// ------------------------------------------------------------------ after a free

/// Whether no block of a span is allocated.
pub fn isEmpty(line: *const Slice) bool {
    const words = classes.word_counts[line.class];
    return std.mem.allEqual(u64, line.words[0..words], 0);
}

/// Puts an owned span where it belongs after blocks of it were freed: into the partial list when it
/// has free blocks; among those kept, or back to the free runs, when it has no others.
pub fn settle(a: *Allocator, cache: *Cache, slice: u32) Error!void {
    const line = a.tables.line(slice);
    if (line.state == state.current) return;
    if (line.state == state.idle and line.free_words != 0) try offer(a, cache, slice, line);
    if (line.kept == 0 and isEmpty(line)) {
        a.lock.lock();
        defer a.lock.unlock();
        return keep(a, cache, slice, line);
    }
}

fn settleLocked(a: *Allocator, cache: *Cache, slice: u32) Error!void {
    const line = a.tables.line(slice);
    if (line.state == state.current) return;
    if (line.state == state.idle and line.free_words != 0) try offer(a, cache, slice, line);
    if (line.kept == 0 and isEmpty(line)) return keep(a, cache, slice, line);
}

/// Keeps an empty span for a while, and gives up those that were kept too long. Lock held.
fn keep(a: *Allocator, cache: *Cache, slice: u32, line: *Slice) Error!void {
    const kept = &cache.empties;
    while (kept.count > 0 and (kept.count == caches.Empties.count_max or
        (kept.count + 1) * line.slices > a.tables.used / empty_share)) try letGo(a, cache, kept.oldest());
    line.kept = 1;
    kept.add(slice);
}

/// Gives a span up that was kept, if it is still empty. Lock held.
fn letGo(a: *Allocator, cache: *Cache, slice: u32) Error!void {
    const line = try expectOwned(a, cache, slice);
    line.kept = 0;
    if (line.state == state.current or !isEmpty(line)) return;
    if (line.state == state.listed) try unlist(a, cache, slice, line);
    return release(a, cache, slice, line);
}

fn expectOwned(a: *const Allocator, cache: *const Cache, slice: u32) Error!*Slice {
    if (slice >= a.tables.high or try headOf(a, slice) != slice)
        return corrupt(slice, "a list of spans leads elsewhere");
    const line = a.tables.line(slice);
    if (line.owner != cache.owner) return corrupt(a.tables.addressOf(slice), "a span's owner was changed");
    return line;
}

/// Gives an empty span's slices back. Lock held.
fn release(a: *Allocator, cache: *Cache, slice: u32, line: *Slice) Error!void {
    const t = &a.tables;
    const class = line.class;
    const shape = &classes.table[class];
    try delist(a, class, slice, line);
    const from = t.addressOf(slice);
    cache.purge(class, from, from + (@as(usize, shape.slices) << layout.slice_shift));
    if (line.kept != 0 and line.owner == cache.owner) cache.empties.remove(slice);
    for (0..shape.slices) |i| {
        const each = t.line(slice + @as(u32, @intCast(i)));
        each.kind = kind.none;
        each.back = 0;
    }
    unmarkOwned(a, slice, line);
    line.owner = 0;
    try t.give(slice, shape.slices);
    try a.giveBackSome();
}

fn offer(a: *Allocator, cache: *Cache, slice: u32, line: *Slice) Error!void {
    const c = &cache.classes[line.class];
    if (c.partial != none) (try expectSpan(a, c.partial, line.class)).partial_prev = slice;
    line.partial_next = c.partial;
    line.partial_prev = none;
    line.state = state.listed;
    c.partial = slice;
}

fn unlist(a: *Allocator, cache: *Cache, slice: u32, line: *Slice) Error!void {
    const c = &cache.classes[line.class];
    const next = if (line.partial_next != none) try expectSpan(a, line.partial_next, line.class) else null;
    const prev = if (line.partial_prev != none) try expectSpan(a, line.partial_prev, line.class) else null;
    if (line.state != state.listed or line.owner != cache.owner or
        (if (next) |n| n.partial_prev != slice else false) or
        (if (prev) |p| p.partial_next != slice else c.partial != slice))
        return corrupt(a.tables.addressOf(slice), "a span's neighbours do not know it");
    if (next) |n| n.partial_prev = line.partial_prev;
    if (prev) |p| p.partial_next = line.partial_next else c.partial = line.partial_next;
    line.state = state.idle;
}

// ------------------------------------------------------------------ giving up

/// Gives up all empty spans, current and kept ones.
pub fn trim(a: *Allocator, cache: *Cache) Error!void {
    a.lock.lock();
    defer a.lock.unlock();
    while (cache.empties.count > 0) try letGo(a, cache, cache.empties.oldest());
    for (&cache.classes, 0..) |*c, class| {
        if (c.current == none) continue;
        const line = try expectSpan(a, c.current, @intCast(class));
        if (!isEmpty(line)) continue;
        const slice = c.current;
        c.current = none;
        line.state = state.idle;
        try release(a, cache, slice, line);
    }
}

/// Gives up empty spans that earlier sessions left as their current ones; `cache` is any. Held.
pub fn trimOwnerless(a: *Allocator, cache: *Cache) Error!void {
    a.lock.lock();
    defer a.lock.unlock();
    for (&a.tables.header.classes, 0..) |*class_list, class| {
        var slice = class_list.head;
        for (0..a.tables.high) |_| {
            if (slice == none) break;
            const line = try expectSpan(a, slice, @intCast(class));
            const next = line.next;
            if (a.ownerOf(line.owner) == null) {
                if (line.remote_words != 0) collect(a, slice, line);
                if (isEmpty(line)) try release(a, cache, slice, line);
            }
            slice = next;
        }
    }
}

/// Leaves every span of a thread that ends where others find it. Lock held.
pub fn abandon(a: *Allocator, cache: *Cache) Error!void {
    for (0..classes.count) |class| {
        const hints = cache.hints(class);
        if (hints.len == 0) continue;
        try summarize(a, cache, hints);
        cache.setCount(class, 0);
    }
    while (cache.empties.count > 0) try letGo(a, cache, cache.empties.oldest());
    for (&cache.classes, 0..) |*c, i| {
        const class: u32 = @intCast(i);
        if (c.current != none) {
            const slice = c.current;
            const line = try expectSpan(a, slice, class);
            c.current = none;
            line.state = state.idle;
            if (isEmpty(line)) {
                try release(a, cache, slice, line);
            } else try leave(a, class, slice, line);
        }
        while (c.partial != none) {
            const slice = c.partial;
            const line = try expectSpan(a, slice, class);
            try unlist(a, cache, slice, line);
            try leave(a, class, slice, line);
        }
    }
}

/// Makes a span ownerless and the next one that an adopter looks at.
fn leave(a: *Allocator, class: u32, slice: u32, line: *Slice) Error!void {
    try delist(a, class, slice, line);
    try enlist(a, class, slice, line);
    unmarkOwned(a, slice, line);
    @atomicStore(u64, &line.owner, 0, .seq_cst);
    a.cursor[class] = slice;
    a.adoptable[class] +|= 1;
}
