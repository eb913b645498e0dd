//! `containers print FILE` tells all that TypeScript left in a heap, a line a value; `containers change
//! FILE` changes values in place and commits. The layouts are those of docs/data.md and
//! docs/containers.md; tests/data_native_test.ts knows what is there, and has the same told in C.

const std = @import("std");
const perm = @import("perm_heap");

// ------------------------------------------------------------------ text and roots

const Text = extern struct {
    low: u64,
    high: u64,

    fn tag(self: Text) u8 {
        return @truncate(self.high >> 56);
    }

    fn bytes(self: *const Text) []const u8 {
        if (self.tag() <= 15) return std.mem.asBytes(self)[0..self.tag()];
        return @as([*]const u8, @ptrFromInt(self.low))[0..@as(u32, @truncate(self.high))];
    }

    fn of(short: []const u8) Text {
        var text: Text = .{ .low = 0, .high = 0 };
        @memcpy(std.mem.asBytes(&text)[0..short.len], short);
        text.high |= @as(u64, short.len) << 56;
        return text;
    }

    /// Gives the slot another text, and frees what it had.
    fn set(self: *Text, allocator: std.mem.Allocator, new: []const u8) !void {
        if (self.tag() == 255) allocator.free(self.bytes());
        self.* = .of("");
        if (new.len <= 15) {
            self.* = .of(new);
        } else {
            self.* = .{ .low = @intFromPtr((try allocator.dupe(u8, new)).ptr), .high = 255 << 56 | new.len };
        }
    }
};

const Root = extern struct { name: Text, schema: Text, hash: u64, object: *anyopaque, next: ?*Root };
const Roots = extern struct { version: u32, zero: u32, first: ?*Root };

// ------------------------------------------------------------------ containers

const Shape = packed struct(u64) { keys: u4, kind: u4, mark: u12, value_size: u32, zero: u12 };

fn Vec(T: type) type {
    return extern struct { shape: Shape, data: [*]T, length: u64, capacity: u64, changes: u32, zero: u32 };
}

fn List(T: type) type {
    return extern struct {
        shape: Shape,
        first: ?*Node,
        last: ?*Node,
        length: u64,
        changes: u32,
        zero: u32,

        const Node = extern struct { next: ?*Node, prev: ?*Node, value: T };
    };
}

const LongText = extern struct { shape: Shape, data: [*]u8, length: u64, capacity: u64, changes: u32, zero: u32, units: u64 };

fn Pool(P: type) type {
    return extern struct {
        directory: [*]Segment,
        length: u32,
        open: u32,
        spare: u32,
        zero: u32,

        const Segment = extern struct { address: [*]P, live: u32, used: u32, free: u32, zero: u32 };

        fn at(self: @This(), place: u32) *P {
            const x = @as(u64, place) + 8;
            const shift: u6 = @intCast(std.math.log2_int(u64, x) - 2);
            const segment = self.directory[4 * (@as(usize, shift) - 1) + (x >> shift & 3)];
            return &segment.address[x % (@as(u64, 1) << shift)];
        }
    };
}

/// K: f64, u64, i64 or Text.
fn HashMap(K: type, V: type) type {
    return extern struct {
        shape: Shape,
        length: u32,
        changes: u32,
        index: ?[*]u32,
        index_bits: u8,
        entry_bits: u8,
        zero: u16,
        used: u32,
        first: u32,
        last: u32,
        seed: u64,
        pool: Pool(Entry),

        const Self = @This();
        const Entry = extern struct { next: u32, prev: u32, key: K, value: V align(8) };

        fn hash(seed: u64, key: *const K) u64 {
            if (K != Text) return hashBits(seed, @bitCast(key.*));
            if (key.tag() > 15) return std.hash.Wyhash.hash(seed, key.bytes());
            const inner = folded(key.low ^ 0xa0761d6478bd642f, key.high ^ seed ^ 0xe7037ed1a0b428db);
            return folded(inner, seed ^ 0x8ebc6af09c88c6e3);
        }

        fn find(self: *const Self, key: *const K) ?*Entry {
            const index = self.index orelse return null;
            const mask = (@as(u64, 1) << @intCast(self.index_bits)) - 1;
            const entry_mask: u32 = @truncate((@as(u64, 1) << @intCast(self.entry_bits)) - 1);
            const wanted = hash(self.seed, key);
            var at = wanted & mask;
            while (index[at] != 0) : (at = at + 1 & mask) {
                const number = index[at] & entry_mask;
                if (number < 2 or index[at] & ~entry_mask != @as(u32, @truncate(wanted >> 32)) & ~entry_mask) continue;
                const entry = self.pool.at(number - 2);
                const same = if (K == Text) std.mem.eql(u8, entry.key.bytes(), key.bytes()) else entry.key == key.*;
                if (same) return entry;
            }
            return null;
        }

        fn after(self: *const Self, number: u32) ?*Entry {
            return if (number == 0) null else self.pool.at(number - 1);
        }
    };
}

fn hashBits(seed: u64, bits: u64) u64 {
    const k = bits ^ seed;
    var l = @as(u32, @truncate(k)) *% 0x9e3779b1;
    l ^= l >> 15;
    var h = @as(u32, @truncate(k >> 32)) ^ l;
    h = (h ^ h >> 16) *% 0x85ebca6b;
    h = (h ^ h >> 13) *% 0xc2b2ae35;
    h ^= h >> 16;
    return @as(u64, h) << 32 | h;
}

fn folded(a: u64, b: u64) u64 {
    const product = @as(u128, a) * b;
    return @truncate(product ^ product >> 64);
}

/// Stored: u64, or Text.
fn OrderedMap(Stored: type, V: type) type {
    return extern struct {
        shape: Shape,
        length: u32,
        changes: u32,
        root: ?*anyopaque,
        first: ?*Leaf,
        last: ?*Leaf,
        height: u32,
        zero: u32,
        pool: Pool(Valued),

        const Self = @This();
        const n_leaf = if (Stored == Text) 50 else 82;
        const n_inner = if (Stored == Text) 42 else 63;
        const Valued = extern struct { value: V align(8) };
        const Leaf = extern struct { count: u32, zero: u32, next: ?*Leaf, prev: ?*Leaf, keys: [n_leaf]Stored, places: [n_leaf]u32 };
        const Inner = extern struct { count: u32, zero: u32, children: [n_inner + 1]*anyopaque, keys: [n_inner]Stored };

        fn isAtMost(a: *const Stored, b: *const Stored) bool {
            if (Stored == Text) return std.mem.order(u8, a.bytes(), b.bytes()) != .gt;
            return a.* <= b.*;
        }

        fn find(self: *const Self, key: *const Stored) ?*V {
            var node = self.root orelse return null;
            for (0..self.height) |_| {
                const inner: *Inner = @ptrCast(@alignCast(node));
                var child: usize = 0;
                while (child < inner.count and isAtMost(&inner.keys[child], key)) child += 1;
                node = inner.children[child];
            }
            const leaf: *Leaf = @ptrCast(@alignCast(node));
            for (leaf.keys[0..leaf.count], leaf.places[0..leaf.count]) |*at, place| {
                if (isAtMost(at, key) and isAtMost(key, at)) return &self.pool.at(place).value;
            }
            return null;
        }
    };
}

fn storedOf(number: f64) u64 {
    const bits: u64 = @bitCast(number);
    return if (bits >> 63 != 0) ~bits else bits | 1 << 63;
}

fn numberOf(stored: u64) f64 {
    return @bitCast(if (stored >> 63 != 0) stored & ~@as(u64, 1 << 63) else ~stored);
}

// ------------------------------------------------------------------ what TypeScript declared

const Place = extern struct { x: f64, y: f64, z: f64 };

const Item = extern struct {
    id: u32,
    small: i8,
    ok: bool,
    big: u64,
    when: i64,
    far: u64,
    ratio: f32,
    at: Place,
    tag: [12]u8,
    name: Text,
    scores: [5]i16,
    next: ?*Item,
};

const Shelf = extern struct {
    items: Vec(Item),
    numbers: Vec(f64),
    names: List(Text),
    by_number: HashMap(f64, Item),
    by_u64: HashMap(u64, u32),
    by_i64: HashMap(i64, bool),
    by_name: HashMap(Text, Place),
    by_weight: OrderedMap(u64, u32),
    by_time: OrderedMap(u64, Text),
    by_word: OrderedMap(Text, u16),
    story: LongText,
    first: *Item,
};

// ------------------------------------------------------------------ telling

fn printBits(out: *std.Io.Writer, numbers: []const f64) !void {
    for (numbers) |number| try out.print(" {x:0>16}", .{@as(u64, @bitCast(number))});
}

fn printItem(out: *std.Io.Writer, what: []const u8, item: *const Item) !void {
    try out.print("{s} {d} {d} {d} {d} {d} {d}", .{
        what, item.id, item.small, @intFromBool(item.ok), item.big, item.when, item.far,
    });
    try printBits(out, &.{ item.ratio, item.at.x, item.at.y, item.at.z });
    try out.print(" {s} {s}", .{ std.mem.sliceTo(&item.tag, 0), item.name.bytes() });
    for (item.scores) |score| try out.print(" {d}", .{score});
    try out.print(" next {d}\n", .{if (item.next) |next| @as(i64, next.id) else -1});
}

fn printHashMaps(out: *std.Io.Writer, shelf: *const Shelf) !void {
    const numbers = &shelf.by_number;
    var number = numbers.first;
    var prev: u32 = 0;
    while (numbers.after(number)) |entry| : (number = entry.next) {
        try expect(numbers.find(&entry.key) == entry and entry.prev == prev);
        prev = number;
        try out.print("number {d}:", .{entry.key});
        try printItem(out, "", &entry.value);
    }
    try expect(prev == numbers.last);
    number = shelf.by_u64.first;
    while (shelf.by_u64.after(number)) |entry| : (number = entry.next) {
        try expect(shelf.by_u64.find(&entry.key) == entry);
        try out.print("u64 {d}: {d}\n", .{ entry.key, entry.value });
    }
    number = shelf.by_i64.first;
    while (shelf.by_i64.after(number)) |entry| : (number = entry.next) {
        try expect(shelf.by_i64.find(&entry.key) == entry);
        try out.print("i64 {d}: {d}\n", .{ entry.key, @intFromBool(entry.value) });
    }
    number = shelf.by_name.first;
    while (shelf.by_name.after(number)) |entry| : (number = entry.next) {
        try expect(shelf.by_name.find(&entry.key) == entry);
        try out.print("name {s}", .{entry.key.bytes()});
        try printBits(out, &.{ entry.value.x, entry.value.y, entry.value.z });
        try out.writeByte('\n');
    }
}

fn printOrderedMaps(out: *std.Io.Writer, shelf: *const Shelf) !void {
    const weights = &shelf.by_weight;
    try expect(weights.height >= 2);
    var weight = weights.first;
    var last: @TypeOf(weight) = null;
    while (weight) |leaf| : (weight = leaf.next) {
        try expect(leaf.prev == last);
        last = leaf;
        for (leaf.keys[0..leaf.count], leaf.places[0..leaf.count]) |key, place| {
            const value = &weights.pool.at(place).value;
            try expect(weights.find(&key) == value and storedOf(numberOf(key)) == key);
            try out.writeAll("weight");
            try printBits(out, &.{numberOf(key)});
            try out.print(": {d}\n", .{value.*});
        }
    }
    try expect(last == weights.last);
    var time = shelf.by_time.first;
    while (time) |leaf| : (time = leaf.next) {
        for (leaf.keys[0..leaf.count], leaf.places[0..leaf.count]) |key, place| {
            const value = shelf.by_time.pool.at(place).value;
            try out.print("time {d}: {s}\n", .{ @as(i64, @bitCast(key ^ 1 << 63)), value.bytes() });
        }
    }
    try expect(shelf.by_word.height >= 1);
    var word = shelf.by_word.first;
    while (word) |leaf| : (word = leaf.next) {
        for (leaf.keys[0..leaf.count], leaf.places[0..leaf.count]) |*key, place| {
            const value = &shelf.by_word.pool.at(place).value;
            try expect(shelf.by_word.find(key) == value);
            try out.print("word {s}: {d}\n", .{ key.bytes(), value.* });
        }
    }
}

fn print(out: *std.Io.Writer, roots: *const Roots, shelf: *const Shelf) !void {
    var next = roots.first;
    while (next) |root| : (next = root.next) {
        try out.print("root {s} {x:0>16} {s}\n", .{ root.name.bytes(), root.hash, root.schema.bytes() });
    }
    try expect(shelf.items.shape.value_size == @sizeOf(Item) and shelf.items.shape.kind == 1);
    for (shelf.items.data[0..shelf.items.length]) |*item| try printItem(out, "item", item);
    for (shelf.numbers.data[0..shelf.numbers.length]) |number| {
        try out.writeAll("double");
        try printBits(out, &.{number});
        try out.writeByte('\n');
    }
    var nodes: usize = 0;
    var node = shelf.names.first;
    while (node) |it| : (node = it.next) {
        try out.print("listed {s}\n", .{it.value.bytes()});
        nodes += 1;
    }
    try expect(nodes == shelf.names.length);
    node = shelf.names.last;
    while (node) |it| : (node = it.prev) nodes -= 1;
    try expect(nodes == 0);
    try printHashMaps(out, shelf);
    try printOrderedMaps(out, shelf);
    try out.print("story {d} {s}\n", .{ shelf.story.units, shelf.story.data[0..shelf.story.length] });
    try printItem(out, "first", shelf.first);
}

// ------------------------------------------------------------------ changing in place

fn change(allocator: std.mem.Allocator, shelf: *Shelf) !void {
    for (shelf.items.data[0..shelf.items.length], 0..) |*item, i| {
        if (i % 3 != 0) continue;
        item.id += 1000;
        item.small = -5;
        item.ok = !item.ok;
        item.big ^= 1 << 63;
        item.when = -item.when;
        item.at.y += 0.5;
        item.scores[4] = @intCast(i);
        item.tag = "twelve bytes".*;
        try item.name.set(allocator, if (i % 2 != 0) "by Zig" else "written by a program in Zig");
    }
    for (shelf.numbers.data[0..shelf.numbers.length]) |*number| number.* *= 2;
    try shelf.names.last.?.value.set(allocator, "the last of all of them");

    shelf.by_number.find(&7).?.value.at.z = 7.25;
    shelf.by_name.find(&.of("name 40")).?.value.x = -12;
    shelf.by_weight.find(&storedOf(-0.5)).?.* = 4242;
    var key: Text = .of("");
    try key.set(allocator, "word 0033 and some more");
    shelf.by_word.find(&key).?.* = 33;
    try key.set(allocator, "");

    const made = try allocator.create(Item);
    made.* = std.mem.zeroes(Item);
    made.id = 77;
    made.next = shelf.first;
    try made.name.set(allocator, "an object that Zig made");
    shelf.first = made;
}

pub fn main(init: std.process.Init) !void {
    var arguments = init.minimal.args.iterate();
    _ = arguments.next();
    const action = arguments.next() orelse return error.NoAction;
    const path = arguments.next() orelse return error.NoFile;
    const changes = std.mem.eql(u8, action, "change");
    const heap = try perm.Heap.open(.{ .path = path, .mode = if (changes) .rw else .r });
    const roots = (try heap.global(Roots, "@perm/heap/data")).value;
    try expect(roots.version == 1);
    const shelf: *Shelf = find: {
        var next = roots.first;
        while (next) |root| : (next = root.next) {
            if (std.mem.eql(u8, root.name.bytes(), "shelf")) break :find @ptrCast(@alignCast(root.object));
        }
        return error.NoShelf;
    };
    if (changes) {
        try change(heap.allocator(), shelf);
        _ = try heap.commit(.map);
    } else {
        var buffer: [4096]u8 = undefined;
        var out = std.Io.File.stdout().writer(init.io, &buffer);
        try print(&out.interface, roots, shelf);
        try out.interface.flush();
    }
    try heap.close();
}

fn expect(holds: bool) !void {
    if (!holds) return error.NotAsExpected;
}
