//! OrderedMap: from keys to values, in the order of the keys. A B+ tree whose leaves are linked both
//! ways; values stand in a pool, so they never move.
//!
//!   inner   count · separators · children      child i holds keys below separator i, from i−1 on
//!   leaf    count · next · prev · keys · places of the values
//!
//! Numbers are stored as unsigned 64 bits that order as they do (`bitsOf`), text as slots; a separator
//! is text of its own, as short as tells its neighbours apart.
//!
//! Invariant: every leaf but one that is the only one has keys, all leaves are at the same depth, and
//! keys ascend. A leaf below a quarter is merged with a neighbour that has room.

const std = @import("std");
const os = @import("../os/os.zig");
const data = @import("data.zig");
const pool_room = @import("pool.zig");
const text = @import("text.zig");
const alloc_room = @import("../alloc/alloc.zig");
const Space = data.Space;
const Error = data.Error;
const Pool = pool_room.Pool;

pub const Header = extern struct {
    shape: u64,
    len: u32,
    /// Counts insertions and removals; begins anywhere.
    changes: u32,
    /// Address of a leaf while `height` is 0, else of an inner node; 0 while the map is empty.
    root: u64,
    first: u64,
    last: u64,
    height: u32,
    reserved: u32,
    pool: Pool,
};

comptime {
    std.debug.assert(@sizeOf(Header) == 72);
}

pub const node_size = 1024;
const line_size = 64;
pub const height_max = 20;
/// Keys from which on the nodes take megabytes.
const dense_len_min = 1 << 16;

/// A key to look for, as in a HashMap, but numbers in their stored form.
pub const Key = union(enum) { bits: u64, text: text.Key };

/// The stored form of a number: the bits of an f64 or i64 so that they order as unsigned ones.
pub fn bitsOf(kind: data.KeyKind, bits: u64) u64 {
    const sign = @as(u64, 1) << 63;
    return switch (kind) {
        .number => if (bits & sign != 0) ~bits else bits | sign,
        .i64 => bits ^ sign,
        else => bits,
    };
}

fn numberOf(stored: u64) f64 {
    const sign = @as(u64, 1) << 63;
    return @bitCast(if (stored & sign != 0) stored & ~sign else ~stored);
}

/// Where a key stands or would stand.
pub const Position = struct { leaf: u64, place: u32 };

/// What to look for in a seek.
pub const Seek = enum(u8) { at_least, above, past_prefix, begin, end };

pub fn Tree(comptime Stored: type) type {
    return struct {
        const Self = @This();
        const is_text = Stored == text.Slot;

        pub const Leaf = extern struct {
            count: u32,
            reserved: u32,
            next: u64,
            prev: u64,
            keys: [leaf_max]Stored,
            places: [leaf_max]u32,
        };

        pub const Inner = extern struct {
            /// Separators; children are one more.
            count: u32,
            reserved: u32,
            children: [inner_max + 1]u64,
            keys: [inner_max]Stored,
        };

        pub const leaf_max = (node_size - 24) / (@sizeOf(Stored) + 4) & ~@as(usize, 1);
        pub const inner_max = (node_size - 16) / (@sizeOf(Stored) + 8);

        comptime {
            std.debug.assert(@sizeOf(Leaf) <= node_size and @sizeOf(Inner) <= node_size);
        }

        header: *Header,
        space: Space,
        shape: data.Shape,

        pub inline fn open(space: Space, address: u64, shape: u64) Error!Self {
            return .{
                .header = try data.open(Header, space, address, shape),
                .space = space,
                .shape = @bitCast(shape),
            };
        }

        inline fn stride(self: *const Self) u64 {
            return @max(8, std.mem.alignForward(u64, self.shape.value_size, 8));
        }

        inline fn leafAt(self: *const Self, address: u64) Error!*Leaf {
            const leaf = try self.space.at(Leaf, address);
            if (leaf.count > leaf_max) return data.damaged(address);
            return leaf;
        }

        inline fn innerAt(self: *const Self, address: u64) Error!*Inner {
            const inner = try self.space.at(Inner, address);
            if (inner.count > inner_max) return data.damaged(address);
            return inner;
        }

        /// Asks for all lines of a node at once: a search by halves would wait for one after the other. The
        /// address need be none yet.
        inline fn fetch(address: u64) void {
            inline for (0..node_size / line_size) |line| {
                @prefetch(@as(*allowzero const u8, @ptrFromInt(address +% line * line_size)), .{});
            }
        }

        inline fn isBelow(self: *const Self, stored: *const Stored, key: *const Key, comptime how: Seek) Error!bool {
            if (is_text) {
                const order = try key.text.order(stored, self.space);
                return switch (how) {
                    .at_least => order == .gt,
                    .above => order != .lt,
                    .past_prefix => order != .lt or try key.text.beginsWith(stored, self.space),
                    else => unreachable,
                };
            }
            return if (how == .at_least) stored.* < key.bits else stored.* <= key.bits;
        }

        /// How many of the keys stand before what is looked for.
        inline fn below(self: *const Self, keys: [*]const Stored, count: u32, key: *const Key, comptime how: Seek) Error!u32 {
            var from: u32 = 0;
            var left: u32 = count;
            while (left > 0) {
                const half = left / 2;
                if (try self.isBelow(&keys[from + half], key, how)) {
                    from += half + 1;
                    left -= half + 1;
                } else left = half;
            }
            return from;
        }

        const Step = struct { inner: *Inner, child: u32 };
        const Path = struct { steps: [height_max]Step = undefined, leaf: *Leaf = undefined, address: u64 = 0 };

        /// The leaf in which the key stands or would stand, and the way to it.
        fn descend(self: *const Self, key: *const Key, path: *Path) Error!void {
            var address = self.header.root;
            const height = self.header.height;
            if (height > height_max) return data.damaged(address);
            for (0..height) |i| {
                const inner = try self.innerAt(address);
                // A separator belongs to the child on its right.
                const child = try self.below(&inner.keys, inner.count, key, .above);
                path.steps[i] = .{ .inner = inner, .child = child };
                address = inner.children[child];
                fetch(address);
            }
            path.address = address;
            path.leaf = try self.leafAt(address);
        }

        fn isAt(self: *const Self, leaf: *const Leaf, at: u32, key: *const Key) Error!bool {
            if (at >= leaf.count) return false;
            if (is_text) return key.text.equals(&leaf.keys[at], self.space);
            return leaf.keys[at] == key.bits;
        }

        /// Address of the key's value, 0 when there is none.
        pub fn get(self: *const Self, key: *const Key) Error!u64 {
            if (self.header.root == 0) return 0;
            var address = self.header.root;
            const height = self.header.height;
            if (height > height_max) return data.damaged(address);
            for (0..height) |_| {
                const inner = try self.innerAt(address);
                address = inner.children[try self.below(&inner.keys, inner.count, key, .above)];
                fetch(address);
            }
            const leaf = try self.leafAt(address);
            const at = try self.below(&leaf.keys, leaf.count, key, .at_least);
            if (!try self.isAt(leaf, at, key)) return 0;
            return self.header.pool.at(self.space, self.stride(), leaf.places[at]);
        }

        // ---------------------------------------------------------- setting

        /// What an insertion needs, allocated before anything changes.
        const Needs = struct {
            nodes: [height_max + 2]u64 = undefined,
            count: u32 = 0,
            used: u32 = 0,
            separator: ?Stored = null,

            fn next(self: *Needs) u64 {
                self.used += 1;
                return self.nodes[self.used - 1];
            }

            fn free(self: *Needs, space: Space) void {
                for (self.nodes[self.used..self.count]) |node| space.free(node) catch {};
                if (self.separator) |it| freeKey(it, space) catch {};
            }
        };

        fn freeKey(key: Stored, space: Space) Error!void {
            if (is_text) try text.freeSlot(key, space);
        }

        /// Address of the key's value, which is made, zeroed, when there is none. Within a change.
        pub fn set(self: *const Self, key: *const Key) Error!u64 {
            const h = self.header;
            if (h.shape == 0) {
                h.shape = self.shape.bits();
                h.changes = @truncate(os.randomU64());
            }
            if (h.len >= pool_room.places_max) return data.tooLarge("OrderedMap", h.len);
            if (h.root == 0) {
                const address = try self.space.malloc(node_size);
                const leaf: *Leaf = @ptrFromInt(address);
                leaf.count = 0;
                leaf.reserved = 0;
                leaf.next = 0;
                leaf.prev = 0;
                h.root = address;
                h.first = address;
                h.last = address;
                h.height = 0;
            }
            var path: Path = .{};
            try self.descend(key, &path);
            const at = try self.below(&path.leaf.keys, path.leaf.count, key, .at_least);
            if (try self.isAt(path.leaf, at, key)) {
                return h.pool.at(self.space, self.stride(), path.leaf.places[at]);
            }
            var needs: Needs = .{};
            errdefer needs.free(self.space);
            if (path.leaf.count == leaf_max) try self.prepareSplit(&path, &needs, at, key);
            const taken = try h.pool.take(self.space, self.stride());
            errdefer h.pool.release(self.space, self.stride(), taken.entry) catch {};
            const stored = if (is_text) try key.text.store(self.space) else key.bits;
            // From here on nothing fails.
            if (needs.count == 0) insertInLeaf(path.leaf, at, stored, taken.entry) else self.split(&path, &needs, at, stored, taken.entry);
            h.len += 1;
            h.changes +%= 1;
            return taken.address;
        }

        fn insertInLeaf(leaf: *Leaf, at: u32, key: Stored, place: u32) void {
            const count = leaf.count;
            @memmove(leaf.keys[at + 1 .. count + 1], leaf.keys[at..count]);
            @memmove(leaf.places[at + 1 .. count + 1], leaf.places[at..count]);
            leaf.keys[at] = key;
            leaf.places[at] = place;
            leaf.count = count + 1;
        }

        /// Where a full leaf is cut: keys that come in order fill their leaves.
        fn cutOf(leaf: *const Leaf, at: u32) u32 {
            return if (at == leaf_max and leaf.next == 0) leaf_max else leaf_max / 2;
        }

        /// Allocates nodes for the leaf, for each inner node above that is full, and for a new root.
        fn prepareSplit(self: *const Self, path: *const Path, needs: *Needs, at: u32, key: *const Key) Error!void {
            const height = self.header.height;
            var nodes: u32 = 1;
            var level = height;
            while (level > 0 and path.steps[level - 1].inner.count == inner_max) : (level -= 1) nodes += 1;
            if (level == 0) nodes += 1;
            if (level == 0 and height == height_max) return data.tooLarge("OrderedMap", self.header.len);
            if (path.leaf.next != 0) _ = try self.leafAt(path.leaf.next);
            while (needs.count < nodes) : (needs.count += 1) {
                const node = try self.space.malloc(node_size);
                needs.nodes[needs.count] = node;
                // Nodes of a large tree fill what lies around them.
                if (self.header.len >= dense_len_min and node % alloc_room.slice_size == 0) self.space.dense(node, node_size);
            }
            const cut = cutOf(path.leaf, at);
            // The keys on both sides of the cut, the new one among them.
            const keys = &path.leaf.keys;
            if (is_text) {
                const right: []const u8 = if (cut == leaf_max) key.text.bytes else try keys[cut].bytes(self.space);
                const before: []const u8 = if (at == cut and cut < leaf_max) key.text.bytes else try keys[cut - 1].bytes(self.space);
                const common = std.mem.findDiff(u8, before, right) orelse return data.damaged(path.address);
                if (common >= right.len) return data.damaged(path.address);
                needs.separator = try text.Key.init(right[0 .. common + 1], false).store(self.space);
            } else {
                needs.separator = if (cut == leaf_max) key.bits else keys[cut];
            }
        }

        /// The new key goes left of the cut when it belongs there.
        fn split(self: *const Self, path: *Path, needs: *Needs, at: u32, key: Stored, place: u32) void {
            const h = self.header;
            const leaf = path.leaf;
            const cut = cutOf(leaf, at);
            const address = needs.next();
            const right: *Leaf = @ptrFromInt(address);
            right.reserved = 0;
            right.count = @intCast(leaf_max - cut);
            @memmove(right.keys[0..right.count], leaf.keys[cut..]);
            @memmove(right.places[0..right.count], leaf.places[cut..]);
            leaf.count = cut;
            right.next = leaf.next;
            right.prev = path.address;
            if (leaf.next != 0) {
                const after: *Leaf = @ptrFromInt(leaf.next);
                after.prev = address;
            } else h.last = address;
            leaf.next = address;
            if (at > cut or cut == leaf_max) insertInLeaf(right, at - cut, key, place) else insertInLeaf(leaf, at, key, place);

            var separator = needs.separator.?;
            needs.separator = null;
            var child = address;
            var level = h.height;
            while (level > 0) : (level -= 1) {
                const step = path.steps[level - 1];
                if (step.inner.count < inner_max) return insertInInner(step.inner, step.child, separator, child);
                const node = needs.next();
                const other: *Inner = @ptrFromInt(node);
                separator = splitInner(step.inner, other, step.child, separator, child);
                child = node;
            }
            const node = needs.next();
            const root: *Inner = @ptrFromInt(node);
            root.count = 1;
            root.reserved = 0;
            root.keys[0] = separator;
            root.children[0] = h.root;
            root.children[1] = child;
            h.root = node;
            h.height += 1;
        }

        fn insertInInner(inner: *Inner, at: u32, separator: Stored, child: u64) void {
            const count = inner.count;
            @memmove(inner.keys[at + 1 .. count + 1], inner.keys[at..count]);
            @memmove(inner.children[at + 2 .. count + 2], inner.children[at + 1 .. count + 1]);
            inner.keys[at] = separator;
            inner.children[at + 1] = child;
            inner.count = count + 1;
        }

        /// Cuts a full inner node in two around the separator that goes up, which is returned.
        fn splitInner(inner: *Inner, other: *Inner, at: u32, separator: Stored, child: u64) Stored {
            // At the right edge the left node stays full but for one.
            const cut: u32 = if (at == inner_max) inner_max - 1 else inner_max / 2;
            const up = inner.keys[cut];
            other.reserved = 0;
            other.count = @intCast(inner_max - cut - 1);
            @memmove(other.keys[0..other.count], inner.keys[cut + 1 ..]);
            @memmove(other.children[0 .. other.count + 1], inner.children[cut + 1 ..]);
            inner.count = cut;
            if (at <= cut) insertInInner(inner, at, separator, child) else insertInInner(other, at - cut - 1, separator, child);
            return up;
        }

        // ---------------------------------------------------------- removing

        /// Removes a key, whose value owns nothing any more; whether it was there. Within a change.
        pub fn remove(self: *const Self, key: *const Key) Error!bool {
            const h = self.header;
            if (h.root == 0) return false;
            var path: Path = .{};
            try self.descend(key, &path);
            const leaf = path.leaf;
            const at = try self.below(&leaf.keys, leaf.count, key, .at_least);
            if (!try self.isAt(leaf, at, key)) return false;
            if (h.len <= 1) {
                try self.clear();
                return true;
            }
            // Neighbours are looked at before anything changes.
            if (leaf.next != 0) _ = try self.leafAt(leaf.next);
            if (leaf.prev != 0) _ = try self.leafAt(leaf.prev);
            try h.pool.release(self.space, self.stride(), leaf.places[at]);
            const old = leaf.keys[at];
            const count = leaf.count;
            @memmove(leaf.keys[at .. count - 1], leaf.keys[at + 1 .. count]);
            @memmove(leaf.places[at .. count - 1], leaf.places[at + 1 .. count]);
            leaf.count = count - 1;
            h.len -= 1;
            h.changes +%= 1;
            try freeKey(old, self.space);
            if (leaf.count < leaf_max / 4 and h.height > 0) try self.merge(&path);
            return true;
        }

        /// Joins a leaf that has few keys with a neighbour under the same parent, if both fit well.
        fn merge(self: *const Self, path: *const Path) Error!void {
            const parent = path.steps[self.header.height - 1];
            const inner = parent.inner;
            const leaf = path.leaf;
            const limit = leaf_max * 3 / 4;
            if (leaf.count == 0) {
                return self.dropChild(path, self.header.height - 1, parent.child);
            }
            if (parent.child < inner.count) {
                const right = try self.leafAt(inner.children[parent.child + 1]);
                if (leaf.count + right.count <= limit and leaf != right) {
                    take(leaf, right);
                    return self.dropChild(path, self.header.height - 1, parent.child + 1);
                }
            }
            if (parent.child > 0) {
                const left = try self.leafAt(inner.children[parent.child - 1]);
                if (leaf.count + left.count <= limit and leaf != left) {
                    take(left, leaf);
                    return self.dropChild(path, self.header.height - 1, parent.child);
                }
            }
        }

        fn take(into: *Leaf, from: *Leaf) void {
            @memmove(into.keys[into.count..][0..from.count], from.keys[0..from.count]);
            @memmove(into.places[into.count..][0..from.count], from.places[0..from.count]);
            into.count += from.count;
            from.count = 0;
        }

        /// Takes an empty leaf out of the chain and out of its parent, and parents that become empty.
        fn dropChild(self: *const Self, path: *const Path, parent_level: u32, child_index: u32) Error!void {
            const h = self.header;
            {
                const address = path.steps[parent_level].inner.children[child_index];
                const leaf = try self.leafAt(address);
                if (leaf.prev != 0) (try self.leafAt(leaf.prev)).next = leaf.next else h.first = leaf.next;
                if (leaf.next != 0) (try self.leafAt(leaf.next)).prev = leaf.prev else h.last = leaf.prev;
                try self.space.free(address);
            }
            var level = parent_level;
            var index = child_index;
            while (true) {
                const inner = path.steps[level].inner;
                const count = inner.count;
                if (count > 0) {
                    const key_index = if (index == 0) 0 else index - 1;
                    const old = inner.keys[key_index];
                    @memmove(inner.keys[key_index .. count - 1], inner.keys[key_index + 1 .. count]);
                    @memmove(inner.children[index..count], inner.children[index + 1 .. count + 1]);
                    inner.count = count - 1;
                    try freeKey(old, self.space);
                    break;
                }
                // It had this child only.
                if (level == 0) return data.damaged(h.root);
                try self.space.free(@intFromPtr(inner));
                level -= 1;
                index = path.steps[level].child;
            }
            while (h.height > 0) {
                const root = try self.innerAt(h.root);
                if (root.count > 0) return;
                const old = h.root;
                h.root = root.children[0];
                h.height -= 1;
                try self.space.free(old);
            }
        }

        /// Removes all keys, whose values own nothing any more. Within a change.
        pub fn clear(self: *const Self) Error!void {
            const h = self.header;
            if (h.shape == 0) return;
            const before = h.*;
            h.* = std.mem.zeroes(Header);
            h.shape = before.shape;
            h.changes = before.changes +% 1;
            return self.freeAll(&before);
        }

        /// Makes the header all zeros.
        pub fn destroy(self: *const Self) Error!void {
            const before = self.header.*;
            self.header.* = std.mem.zeroes(Header);
            if (before.shape != 0) return self.freeAll(&before);
        }

        fn freeAll(self: *const Self, before: *const Header) Error!void {
            var result: Error!void = {};
            if (before.root != 0 and before.height <= height_max) {
                self.freeNode(before.root, before.height) catch |err| {
                    result = err;
                };
            }
            var pool = before.pool;
            pool.clear(self.space) catch |err| {
                result = err;
            };
            return result;
        }

        /// Frees a node with all below it; of a tree whose pointers were overwritten as much as was found.
        fn freeNode(self: *const Self, address: u64, height: u32) Error!void {
            if (height == 0) {
                const leaf = try self.leafAt(address);
                if (is_text) for (leaf.keys[0..leaf.count]) |key| freeKey(key, self.space) catch {};
            } else {
                const inner = try self.innerAt(address);
                const count = inner.count;
                // What is freed may be seen again in a damaged tree: then the block is free already.
                inner.count = inner_max + 1;
                for (inner.children[0 .. count + 1]) |child| try self.freeNode(child, height - 1);
                if (is_text) for (inner.keys[0..count]) |key| freeKey(key, self.space) catch {};
            }
            try self.space.free(address);
        }

        // ---------------------------------------------------------- walking

        fn normal(self: *const Self, address: u64, leaf: *const Leaf, place: u32) Error!Position {
            if (place < leaf.count or leaf.next == 0) return .{ .leaf = address, .place = place };
            _ = try self.leafAt(leaf.next);
            return .{ .leaf = leaf.next, .place = 0 };
        }

        fn seekKey(self: *const Self, key: *const Key, comptime how: Seek) Error!Position {
            var address = self.header.root;
            const height = self.header.height;
            if (height > height_max) return data.damaged(address);
            for (0..height) |_| {
                const inner = try self.innerAt(address);
                address = inner.children[try self.below(&inner.keys, inner.count, key, if (how == .at_least) .above else how)];
                fetch(address);
            }
            const leaf = try self.leafAt(address);
            return self.normal(address, leaf, try self.below(&leaf.keys, leaf.count, key, how));
        }

        /// Places one end of a walk: the first before the second. The second finds the walk empty when
        /// it lies before the first.
        pub fn seek(self: *const Self, key: *const Key, how: Seek, second: bool, walk: *data.Walk) Error!void {
            const h = self.header;
            if (!second) {
                walk.changes = data.number(h.changes);
                walk.left = data.number(h.len);
            }
            if (h.root == 0) {
                walk.node = 0;
                walk.place = 0;
                walk.end_node = 0;
                walk.end_place = 0;
                return;
            }
            const position: Position = switch (how) {
                .begin => .{ .leaf = h.first, .place = 0 },
                .end => .{ .leaf = h.last, .place = (try self.leafAt(h.last)).count },
                inline else => |known| try self.seekKey(key, if (is_text or known != .past_prefix) known else .above),
            };
            if (!second) {
                walk.node = data.number(position.leaf);
                walk.place = data.number(position.place);
                return;
            }
            walk.end_node = data.number(position.leaf);
            walk.end_place = data.number(position.place);
            const leaf = try self.leafAt(data.Walk.whole(walk.node));
            const place = data.Walk.whole(walk.place);
            const isEmpty = place >= @min(leaf.count, leaf_max) or switch (how) {
                .begin => true,
                .end => false,
                inline else => |known| !try self.isBelow(&leaf.keys[place], key, if (is_text or known != .past_prefix) known else .above),
            };
            if (isEmpty) {
                walk.node = walk.end_node;
                walk.place = walk.end_place;
            }
        }

        /// Begins a walk over all keys.
        pub fn beginWalk(self: *const Self, walk: *data.Walk) Error!void {
            const key: Key = if (is_text) .{ .text = text.Key.init("", false) } else .{ .bits = 0 };
            try self.seek(&key, .begin, false, walk);
            try self.seek(&key, .end, true, walk);
        }

        /// The next elements of a walk: for each the key (a number's value, or the key's address) and the
        /// value's address. How many.
        pub fn nextOf(self: *const Self, walk: *data.Walk, out: anytype) Error!u64 {
            try walk.expectSame(self.header.changes);
            if (self.header.root == 0) return 0;
            return if (walk.backward != 0) self.walkBack(walk, out) else self.walkOn(walk, out);
        }

        fn walkOn(self: *const Self, walk: *data.Walk, out: anytype) Error!u64 {
            const end: Position = .{ .leaf = data.Walk.whole(walk.end_node), .place = @truncate(data.Walk.whole(walk.end_place)) };
            var address = data.Walk.whole(walk.node);
            var place: u32 = @truncate(data.Walk.whole(walk.place));
            var left = data.Walk.whole(walk.left);
            var leaf = try self.leafAt(address);
            if (out.len > leaf_max / 2) fetch(leaf.next);
            var count: usize = 0;
            while (count < out.len and !(address == end.leaf and place == end.place)) {
                if (place >= leaf.count) {
                    if (leaf.next == 0 or leaf.count == 0) return data.damaged(address);
                    address = leaf.next;
                    leaf = try self.leafAt(address);
                    place = 0;
                    continue;
                }
                if (left == 0) return data.damaged(address);
                left -= 1;
                try self.giveElement(leaf, place, &out[count]);
                count += 1;
                place += 1;
                if (place == leaf.count and leaf.next != 0) {
                    address = leaf.next;
                    leaf = try self.leafAt(address);
                    if (out.len - count > leaf_max / 2) fetch(leaf.next);
                    place = 0;
                }
            }
            walk.node = data.number(address);
            walk.place = data.number(place);
            walk.left = data.number(left);
            return count;
        }

        /// From the end towards the beginning: the walk's end moves.
        fn walkBack(self: *const Self, walk: *data.Walk, out: anytype) Error!u64 {
            const end: Position = .{ .leaf = data.Walk.whole(walk.node), .place = @truncate(data.Walk.whole(walk.place)) };
            var address = data.Walk.whole(walk.end_node);
            var place: u32 = @truncate(data.Walk.whole(walk.end_place));
            var left = data.Walk.whole(walk.left);
            var leaf = try self.leafAt(address);
            var count: usize = 0;
            while (count < out.len and !(address == end.leaf and place == end.place)) {
                if (place == 0) {
                    if (leaf.prev == 0) return data.damaged(address);
                    address = leaf.prev;
                    leaf = try self.leafAt(address);
                    place = leaf.count;
                    if (place == 0) return data.damaged(address);
                    continue;
                }
                if (left == 0 or place > leaf.count) return data.damaged(address);
                left -= 1;
                place -= 1;
                try self.giveElement(leaf, place, &out[count]);
                count += 1;
            }
            walk.end_node = data.number(address);
            walk.end_place = data.number(place);
            walk.left = data.number(left);
            return count;
        }

        inline fn giveElement(self: *const Self, leaf: *Leaf, place: u32, to: anytype) Error!void {
            // The count was looked at when the leaf was, and may be another one by now.
            if (place >= leaf_max) return data.damaged(@intFromPtr(leaf));
            const value = try self.header.pool.at(self.space, self.stride(), leaf.places[place]);
            // Values stand in the order in which their keys came, and are read next.
            @prefetch(@as(*allowzero const u8, @ptrFromInt(value)), .{});
            const key = if (!is_text and self.shape.key == .number)
                numberOf(leaf.keys[place])
            else
                data.number(@intFromPtr(&leaf.keys[place]));
            data.give(to, key, value);
        }

        // ---------------------------------------------------------- proving

        /// Proves every invariant.
        pub fn check(self: *const Self) Error!void {
            const h = self.header;
            if (h.shape == 0) return;
            if (h.root == 0) {
                if (h.len != 0 or h.first != 0 or h.last != 0 or h.height != 0) return data.damaged(h.root);
                return;
            }
            if (h.height > height_max) return data.damaged(h.root);
            var state: Checked = .{ .nodes = 2 * @as(u64, h.len) + 64 };
            try self.checkNode(h.root, h.height, null, null, &state);
            if (state.keys != h.len or state.last != h.last) return data.damaged(h.root);
            if (try h.pool.check(self.space, self.stride()) != h.len) return data.damaged(h.root);
        }

        const Checked = struct { keys: u64 = 0, last: u64 = 0, nodes: u64 };

        fn checkNode(self: *const Self, address: u64, height: u32, low: ?*const Stored, high: ?*const Stored, state: *Checked) Error!void {
            if (state.nodes == 0) return data.damaged(address);
            state.nodes -= 1;
            if (try self.space.alloc.usableSize(address) < node_size) return data.damaged(address);
            if (height > 0) {
                const inner = try self.innerAt(address);
                for (0..inner.count + 1) |i| {
                    const from = if (i == 0) low else &inner.keys[i - 1];
                    const to = if (i == inner.count) high else &inner.keys[i];
                    try self.checkNode(inner.children[i], height - 1, from, to, state);
                }
                return;
            }
            const leaf = try self.leafAt(address);
            if (leaf.prev != state.last) return data.damaged(address);
            if (state.last == 0) {
                if (self.header.first != address) return data.damaged(address);
            } else if ((try self.leafAt(state.last)).next != address) return data.damaged(address);
            if (leaf.count == 0 and self.header.height > 0) return data.damaged(address);
            state.last = address;
            state.keys += leaf.count;
            for (leaf.keys[0..leaf.count], leaf.places[0..leaf.count], 0..) |*key, place, i| {
                _ = try self.header.pool.at(self.space, self.stride(), place);
                const wanted: Key = if (is_text) .{ .text = text.Key.init(try key.bytes(self.space), false) } else .{ .bits = key.* };
                if (i > 0 and !try self.isBelow(&leaf.keys[i - 1], &wanted, .at_least)) return data.damaged(address);
                if (low) |it| if (!try self.isBelow(it, &wanted, .above)) return data.damaged(address);
                if (high) |it| if (try self.isBelow(it, &wanted, .above)) return data.damaged(address);
            }
        }

        /// The blocks that are the map's own, those of text keys and separators included.
        pub fn blocks(self: *const Self, sink: *data.Blocks) Error!void {
            const h = self.header;
            if (h.height > height_max) return data.damaged(h.root);
            // A damaged tree may lead to the same node again and again: no map has so many nodes.
            var left: u64 = 2 * @as(u64, h.len) + 64;
            if (h.root != 0) try self.nodeBlocks(h.root, h.height, sink, &left);
            try h.pool.blocks(self.space, sink);
        }

        fn nodeBlocks(self: *const Self, address: u64, height: u32, sink: *data.Blocks, left: *u64) Error!void {
            if (left.* == 0) return data.damaged(address);
            left.* -= 1;
            sink.add(address);
            const keys: []const Stored = if (height == 0) blk: {
                const leaf = try self.leafAt(address);
                break :blk leaf.keys[0..leaf.count];
            } else blk: {
                const inner = try self.innerAt(address);
                for (inner.children[0 .. inner.count + 1]) |child| try self.nodeBlocks(child, height - 1, sink, left);
                break :blk inner.keys[0..inner.count];
            };
            if (is_text) for (keys) |key| if (key.isOutside()) sink.add(key.low);
        }
    };
}

pub const Numbers = Tree(u64);
pub const Texts = Tree(text.Slot);
