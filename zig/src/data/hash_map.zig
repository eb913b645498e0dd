//! HashMap: from keys to values, in the order in which keys were first set.
//!
//!   index (u32 a slot, linear probing)          entries (pool)
//!    ... | 0 | tag·entry+2 | 1 | ...  ───────>   next · prev · key · value
//!
//! A slot holds an entry's number and, above it, bits of the key's hash; 0 is free, 1 is deleted. So a
//! key that is there costs two cache misses, one that is not costs one. Entries never move, and are
//! linked in order.
//!
//! Invariant: each live entry stands in the index once, where probing from its hash finds it before a
//! free slot; at most 3/4 of the slots are in use.

const std = @import("std");
const os = @import("../os/os.zig");
const data = @import("data.zig");
const pool_room = @import("pool.zig");
const text = @import("text.zig");
const Space = data.Space;
const Error = data.Error;
const Pool = pool_room.Pool;

pub const Header = extern struct {
    shape: u64,
    len: u32,
    /// Counts insertions and removals; begins anywhere.
    changes: u32,
    /// Address of the index, 0 while there is none.
    index: u64,
    index_bits: u8,
    /// Low bits of a slot that are the entry's number + 2; the bits above are of the hash.
    entry_bits: u8,
    reserved: u16,
    /// Slots that are not free, deleted ones included.
    used: u32,
    /// First and last entry + 1, 0 for none.
    first: u32,
    last: u32,
    /// Makes the hashes of this map its own.
    seed: u64,
    pool: Pool,
};

comptime {
    std.debug.assert(@sizeOf(Header) == 72);
}

const line_size = 64;
/// How far before it is read a walk asks for memory: the processor itself stops at each page's end.
const ahead = 2048;

pub const Entry = extern struct {
    /// Neighbours + 1, 0 for none.
    next: u32,
    prev: u32,

    pub const key_offset = 8;

    inline fn word(self: *Entry) *u64 {
        return @ptrFromInt(@intFromPtr(self) + key_offset);
    }

    inline fn slot(self: *Entry) *text.Slot {
        return @ptrFromInt(@intFromPtr(self) + key_offset);
    }
};

const deleted: u32 = 1;
const index_bits_min = 3;
const index_bits_max = 31;

/// A key to look for: its 64 bits, or text.
pub const Key = union(enum) { bits: u64, text: text.Key };

/// Bytes of an entry.
pub inline fn strideOf(shape: data.Shape) u64 {
    return Entry.key_offset + shape.key.size() + std.mem.alignForward(u64, shape.value_size, 8);
}

inline fn valueOf(entry: u64, shape: data.Shape) u64 {
    return entry + Entry.key_offset + shape.key.size();
}

inline fn mix(a: u64, b: u64) u64 {
    const product = @as(u128, a) * b;
    return @as(u64, @truncate(product)) ^ @as(u64, @truncate(product >> 64));
}

// Odd, random bits: those of wyhash.
const secret = [_]u64{ 0xa0761d6478bd642f, 0xe7037ed1a0b428db, 0x8ebc6af09c88c6e3 };

/// In 32 bits, so that JavaScript can look numbers up by itself: murmur's finalizer over both halves.
inline fn hashBits(seed: u64, bits: u64) u64 {
    const both = bits ^ seed;
    var low = @as(u32, @truncate(both)) *% 0x9e37_79b1;
    low ^= low >> 15;
    var h = @as(u32, @truncate(both >> 32)) ^ low;
    h ^= h >> 16;
    h *%= 0x85eb_ca6b;
    h ^= h >> 13;
    h *%= 0xc2b2_ae35;
    h ^= h >> 16;
    return @as(u64, h) << 32 | h;
}

inline fn hashShort(seed: u64, slot: text.Slot) u64 {
    return mix(mix(slot.low ^ secret[0], slot.high ^ seed ^ secret[1]), seed ^ secret[2]);
}

fn hashLong(seed: u64, bytes: []const u8) u64 {
    return std.hash.Wyhash.hash(seed, bytes);
}

inline fn hashKey(seed: u64, key: *const Key) u64 {
    return switch (key.*) {
        .bits => |bits| hashBits(seed, bits),
        .text => |*it| if (it.isShort()) hashShort(seed, it.slot) else hashLong(seed, it.bytes),
    };
}

fn hashEntry(seed: u64, entry: *Entry, space: Space, key: data.KeyKind) Error!u64 {
    if (key != .text) return hashBits(seed, entry.word().*);
    const slot = entry.slot();
    return if (slot.isInline()) hashShort(seed, slot.*) else hashLong(seed, try slot.bytes(space));
}

inline fn mask32(bits: u8) u32 {
    return @truncate((@as(u64, 1) << @intCast(bits & 63)) -% 1);
}

pub const Map = struct {
    header: *Header,
    space: Space,
    shape: data.Shape,

    pub inline fn open(space: Space, address: u64, shape: u64) Error!Map {
        return .{
            .header = try data.open(Header, space, address, shape),
            .space = space,
            .shape = @bitCast(shape),
        };
    }

    inline fn slots(self: *const Map) Error![]u32 {
        const bits = self.header.index_bits;
        if (bits < index_bits_min or bits > index_bits_max) return data.damaged(self.header.index);
        const count = @as(u64, 1) << @intCast(bits);
        return (try self.space.many(u32, self.header.index, count))[0..count];
    }

    inline fn entryAt(self: *const Map, entry: u32) Error!*Entry {
        return @ptrFromInt(try self.header.pool.at(self.space, strideOf(self.shape), entry));
    }

    const Found = struct { entry: u32, at: *Entry, position: u32 };

    inline fn find(self: *const Map, key: *const Key, hash: u64) Error!?Found {
        @setRuntimeSafety(false);
        if (self.header.index == 0) return null;
        const index = try self.slots();
        const mask: u32 = @truncate(index.len - 1);
        const entry_mask = mask32(self.header.entry_bits);
        const tag = @as(u32, @truncate(hash >> 32)) & ~entry_mask;
        var position = @as(u32, @truncate(hash)) & mask;
        var steps: u32 = 0;
        while (steps <= mask) : (steps += 1) {
            const slot = index[position];
            if (slot == 0) return null;
            const number = slot & entry_mask;
            if (slot & ~entry_mask == tag and number > deleted) {
                const at = try self.entryAt(number - 2);
                // Behind a text key it stands in a line of its own one time in four.
                if (key.* == .text) @prefetch(@as(*allowzero const u8, @ptrFromInt(valueOf(@intFromPtr(at), self.shape))), .{});
                const same = switch (key.*) {
                    .bits => |bits| at.word().* == bits,
                    .text => |*it| try it.equals(at.slot(), self.space),
                };
                if (same) return .{ .entry = number - 2, .at = at, .position = position };
            }
            position = (position + 1) & mask;
        }
        return null;
    }

    /// Address of the key's value, 0 when there is none.
    pub inline fn get(self: *const Map, key: *const Key) Error!u64 {
        const found = try self.find(key, hashKey(self.header.seed, key)) orelse return 0;
        return valueOf(@intFromPtr(found.at), self.shape);
    }

    /// Address of the key's value, which is made, zeroed, when there is none. Within a change.
    pub fn set(self: *const Map, key: *const Key) Error!u64 {
        const h = self.header;
        if (h.shape == 0) self.begin();
        const hash = hashKey(h.seed, key);
        if (try self.find(key, hash)) |found| return valueOf(@intFromPtr(found.at), self.shape);
        if (h.len >= pool_room.places_max) return data.tooLarge("HashMap", h.len);
        try self.makeRoom();
        const index = try self.slots();
        const stride = strideOf(self.shape);
        const taken = try h.pool.take(self.space, stride);
        errdefer h.pool.release(self.space, stride, taken.entry) catch {};
        const last = if (h.last != 0) try self.entryAt(h.last - 1) else null;
        const entry_mask = mask32(h.entry_bits);
        if (taken.entry >= entry_mask - 1) return data.damaged(h.index);
        const free = freeSlot(index, hash) orelse return data.damaged(h.index);
        const entry: *Entry = @ptrFromInt(taken.address);
        switch (key.*) {
            .bits => |bits| entry.word().* = bits,
            .text => |*it| entry.slot().* = try it.store(self.space),
        }
        entry.prev = h.last;
        entry.next = 0;
        if (last) |before| before.next = taken.entry + 1 else h.first = taken.entry + 1;
        h.last = taken.entry + 1;
        if (index[free] == 0) h.used +%= 1;
        index[free] = @as(u32, @truncate(hash >> 32)) & ~entry_mask | (taken.entry + 2);
        h.len += 1;
        h.changes +%= 1;
        return valueOf(taken.address, self.shape);
    }

    fn begin(self: *const Map) void {
        self.header.shape = self.shape.bits();
        self.header.seed = os.randomU64();
        self.header.changes = @truncate(self.header.seed >> 17);
    }

    fn freeSlot(index: []const u32, hash: u64) ?u32 {
        const mask: u32 = @truncate(index.len - 1);
        var position = @as(u32, @truncate(hash)) & mask;
        for (0..index.len) |_| {
            if (index[position] <= deleted) return position;
            position = (position +% 1) & mask;
        }
        return null;
    }

    /// Room in the index for one key more.
    fn makeRoom(self: *const Map) Error!void {
        const h = self.header;
        if (h.index == 0) return self.rebuild(index_bits_min);
        const index = try self.slots();
        const limit = index.len - index.len / 4;
        if (h.used < limit) return;
        // Mostly deleted slots: the same size again, without them.
        return self.rebuild(if (h.len < limit / 2 + limit / 8) h.index_bits else h.index_bits + 1);
    }

    /// A new index of 2^bits slots.
    fn rebuild(self: *const Map, bits: u8) Error!void {
        const h = self.header;
        if (bits > index_bits_max) return data.tooLarge("HashMap", h.len);
        const count = @as(u64, 1) << @intCast(bits);
        // A place that was never used is taken only when all before it are full.
        const highest = @max(count, try h.pool.highest(self.space));
        const entry_bits: u8 = @intCast(64 - @clz(highest + 3));
        if (entry_bits > 32) return data.tooLarge("HashMap", h.len);
        const address = try self.space.malloc(count * 4);
        const index = @as([*]u32, @ptrFromInt(address))[0..count];
        errdefer self.space.free(address) catch {};
        if (count * 4 >= data.dense_min) self.space.dense(address, count * 4);
        @memset(index, 0);
        try self.fill(index, entry_bits);
        const old = h.index;
        h.index = address;
        h.index_bits = bits;
        h.entry_bits = entry_bits;
        h.used = h.len;
        if (old != 0) try self.space.free(old);
    }

    fn fill(self: *const Map, index: []u32, entry_bits: u8) Error!void {
        const h = self.header;
        const mask: u32 = @truncate(index.len - 1);
        const entry_mask = mask32(entry_bits);
        var next = h.first;
        var left = h.len;
        // Some at a time, so that the places in the index, which lie anywhere, are waited for together.
        var some: [16]struct { hash: u64, number: u32 } = undefined;
        while (next != 0) {
            var count: usize = 0;
            while (next != 0 and count < some.len) : (count += 1) {
                if (left == 0) return data.damaged(h.index);
                left -= 1;
                const entry = try self.entryAt(next - 1);
                const hash = try hashEntry(h.seed, entry, self.space, self.shape.key);
                @prefetch(&index[@as(u32, @truncate(hash)) & mask], .{ .rw = .write });
                some[count] = .{ .hash = hash, .number = next };
                next = entry.next;
            }
            for (some[0..count]) |it| {
                var position = @as(u32, @truncate(it.hash)) & mask;
                var steps: u32 = 0;
                while (index[position] != 0) : (steps += 1) {
                    if (steps > mask) return data.damaged(h.index);
                    position = (position + 1) & mask;
                }
                index[position] = @as(u32, @truncate(it.hash >> 32)) & ~entry_mask | (it.number + 1);
            }
        }
    }

    /// Removes a key, whose value owns nothing any more; whether it was there. Within a change.
    pub fn remove(self: *const Map, key: *const Key) Error!bool {
        const h = self.header;
        const found = try self.find(key, hashKey(h.seed, key)) orelse return false;
        const index = try self.slots();
        const entry = found.at;
        const before = if (entry.prev != 0) try self.entryAt(entry.prev - 1) else null;
        const after = if (entry.next != 0) try self.entryAt(entry.next - 1) else null;
        if (h.len == 0) return data.damaged(h.index);
        if (self.shape.key == .text) try text.freeSlot(entry.slot().*, self.space);
        if (before) |it| it.next = entry.next else h.first = entry.next;
        if (after) |it| it.prev = entry.prev else h.last = entry.prev;
        vacate(h, index, found.position);
        h.len -= 1;
        h.changes +%= 1;
        try h.pool.release(self.space, strideOf(self.shape), found.entry);
        if (h.len == 0) return self.emptied();
        // Without memory for a smaller index the large one serves.
        if (h.len < index.len / 16) self.rebuild(h.index_bits - 1) catch {};
        return true;
    }

    /// A slot before a free one need not be kept as deleted, nor those before it.
    fn vacate(h: *Header, index: []u32, position: u32) void {
        const mask: u32 = @truncate(index.len - 1);
        index[position] = deleted;
        if (index[(position +% 1) & mask] != 0) return;
        var at = position;
        while (index[at] == deleted) {
            index[at] = 0;
            h.used -%= 1;
            at = (at -% 1) & mask;
        }
    }

    fn emptied(self: *const Map) Error!bool {
        try self.clear();
        return true;
    }

    /// Removes all keys, whose values own nothing any more. Within a change.
    pub fn clear(self: *const Map) Error!void {
        const h = self.header;
        if (h.shape == 0) return;
        const before = h.*;
        h.* = std.mem.zeroes(Header);
        h.shape = before.shape;
        h.seed = before.seed;
        h.changes = before.changes +% 1;
        const old: Map = .{ .header = @constCast(&before), .space = self.space, .shape = self.shape };
        return old.freeAll();
    }

    /// Makes the header all zeros.
    pub fn destroy(self: *const Map) Error!void {
        const before = self.header.*;
        self.header.* = std.mem.zeroes(Header);
        if (before.shape == 0) return;
        const old: Map = .{ .header = @constCast(&before), .space = self.space, .shape = self.shape };
        return old.freeAll();
    }

    /// Frees all that the header leads to; goes on over damage.
    fn freeAll(self: *const Map) Error!void {
        var result: Error!void = {};
        const h = self.header;
        if (self.shape.key == .text) {
            var next = h.first;
            var steps: u32 = 0;
            while (next != 0 and steps < h.len) : (steps += 1) {
                const entry = self.entryAt(next - 1) catch |err| {
                    result = err;
                    break;
                };
                text.freeSlot(entry.slot().*, self.space) catch |err| {
                    result = err;
                };
                next = entry.next;
            }
        }
        h.pool.clear(self.space) catch |err| {
            result = err;
        };
        if (h.index != 0) self.space.free(h.index) catch |err| {
            result = err;
        };
        return result;
    }

    /// Begins a walk over all entries.
    pub fn beginWalk(self: *const Map, walk: *data.Walk) Error!void {
        walk.node = if (walk.backward != 0) data.number(self.header.last) else data.number(self.header.first);
        walk.changes = data.number(self.header.changes);
        walk.left = data.number(self.header.len);
    }

    /// The next elements of a walk: for each the key (a number's value, or the key's address) and the
    /// value's address. How many.
    pub fn nextOf(self: *const Map, walk: *data.Walk, out: anytype) Error!u64 {
        try walk.expectSame(self.header.changes);
        var next: u32 = @truncate(data.Walk.whole(walk.node));
        var left = data.Walk.whole(walk.left);
        var count: usize = 0;
        const stride = strideOf(self.shape);
        const offset = Entry.key_offset + self.shape.key.size();
        const backward = walk.backward != 0;
        // Most entries stand behind the one before, in the same segment.
        var first: u32 = 1;
        var end: u32 = 0;
        var base: u64 = 0;
        while (next != 0 and count < out.len) : (count += 1) {
            if (left == 0) return data.damaged(self.header.index);
            left -= 1;
            const entry = next - 1;
            if (entry < first or entry >= end) {
                const place = pool_room.placeOf(entry);
                base = try self.header.pool.at(self.space, stride, entry) -% place.offset * stride;
                first = pool_room.firstOf(place.segment);
                end = first +| pool_room.sizeOf(place.segment);
                if (!self.space.contains(base, stride * pool_room.sizeOf(place.segment))) return data.damaged(base);
            }
            const at: *Entry = @ptrFromInt(base + (entry - first) * stride);
            // What is not followed may be any address: those that stand behind this one are read soon.
            @prefetch(@as(*allowzero const u8, @ptrFromInt(@intFromPtr(at) +% ahead)), .{});
            if (stride > line_size) @prefetch(@as(*allowzero const u8, @ptrFromInt(@intFromPtr(at) +% ahead +% line_size)), .{});
            data.give(&out[count], keyOf(at, self.shape), @intFromPtr(at) + offset);
            next = if (backward) at.prev else at.next;
        }
        walk.node = data.number(next);
        walk.left = data.number(left);
        return count;
    }

    inline fn keyOf(entry: *Entry, shape: data.Shape) f64 {
        if (shape.key == .number) return @bitCast(entry.word().*);
        return data.number(@intFromPtr(entry.word()));
    }

    /// Proves every invariant.
    pub fn check(self: *const Map) Error!void {
        const h = self.header;
        if (h.shape == 0) return;
        if (h.index == 0) {
            if (h.len != 0 or h.first != 0 or h.last != 0 or h.pool.directory != 0) return data.damaged(h.index);
            return;
        }
        const index = try self.slots();
        if (try self.space.alloc.usableSize(h.index) < index.len * 4) return data.damaged(h.index);
        var used: u32 = 0;
        var live: u32 = 0;
        const entry_mask = mask32(h.entry_bits);
        for (index) |slot| {
            if (slot != 0) used += 1;
            if (slot & entry_mask > deleted) live += 1;
        }
        if (used != h.used or live != h.len or used > index.len - index.len / 4) return data.damaged(h.index);
        if (try h.pool.check(self.space, strideOf(self.shape)) != h.len) return data.damaged(h.index);
        var next = h.first;
        var before: u32 = 0;
        var count: u32 = 0;
        while (next != 0) : (count += 1) {
            if (count >= h.len) return data.damaged(h.index);
            const entry = try self.entryAt(next - 1);
            if (entry.prev != before) return data.damaged(@intFromPtr(entry));
            const key: Key = if (self.shape.key == .text)
                .{ .text = text.Key.init(try entry.slot().bytes(self.space), false) }
            else
                .{ .bits = entry.word().* };
            const found = try self.find(&key, hashKey(h.seed, &key)) orelse return data.damaged(@intFromPtr(entry));
            if (found.entry != next - 1) return data.damaged(@intFromPtr(entry));
            before = next;
            next = entry.next;
        }
        if (before != h.last or count != h.len) return data.damaged(h.index);
    }

    /// The blocks that are the map's own, those of text keys included.
    pub fn blocks(self: *const Map, sink: *data.Blocks) Error!void {
        const h = self.header;
        sink.add(h.index);
        try h.pool.blocks(self.space, sink);
        if (self.shape.key != .text) return;
        var next = h.first;
        var left = h.len;
        while (next != 0) : (left -= 1) {
            if (left == 0) return data.damaged(h.index);
            const entry = try self.entryAt(next - 1);
            const slot = entry.slot();
            if (slot.isOutside()) sink.add(slot.low);
            next = entry.next;
        }
    }
};
