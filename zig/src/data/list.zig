//! List: elements that are linked both ways and never move.
//!
//! Invariant: `first` and `last` are nodes without a neighbour on that side, or both 0; `len` nodes lead
//! from one to the other.

const std = @import("std");
const os = @import("../os/os.zig");
const data = @import("data.zig");
const Space = data.Space;
const Error = data.Error;

pub const Header = extern struct {
    shape: u64,
    first: u64,
    last: u64,
    len: u64,
    /// Counts insertions and removals; begins anywhere.
    changes: u32,
    reserved: u32,
};

/// A node's beginning; the value follows.
pub const Node = extern struct { next: u64, prev: u64 };

comptime {
    std.debug.assert(@sizeOf(Header) == 40 and @sizeOf(Node) == 16);
}

pub const List = struct {
    header: *Header,
    space: Space,
    shape: data.Shape,

    pub inline fn open(space: Space, address: u64, shape: u64) Error!List {
        return .{ .header = try data.open(Header, space, address, shape), .space = space, .shape = @bitCast(shape) };
    }

    inline fn bytes(self: *const List) u64 {
        return @sizeOf(Node) + std.mem.alignForward(u64, self.shape.value_size, 8);
    }

    inline fn nodeAt(self: *const List, address: u64) Error!*Node {
        if (!self.space.contains(address, self.bytes())) return data.damaged(address);
        return self.space.at(Node, address);
    }

    /// The node of a value, which is one of this list's as far as its neighbours tell.
    fn nodeOf(self: *const List, value: u64) Error!u64 {
        const address = value -% @sizeOf(Node);
        const node = try self.nodeAt(address);
        const next_ok = if (node.next == 0) self.header.last == address else (try self.nodeAt(node.next)).prev == address;
        const prev_ok = if (node.prev == 0) self.header.first == address else (try self.nodeAt(node.prev)).next == address;
        if (!next_ok or !prev_ok) return data.damaged(address);
        return address;
    }

    /// Inserts a zeroed element before that of value `before`, or at the end for 0: its value's address.
    /// Within a change.
    pub fn insert(self: *const List, before: u64) Error!u64 {
        const h = self.header;
        const next = if (before == 0) 0 else try self.nodeOf(before);
        const prev = if (next == 0) h.last else (try self.nodeAt(next)).prev;
        const after = if (next != 0) try self.nodeAt(next) else null;
        const ahead = if (prev != 0) try self.nodeAt(prev) else null;
        const address = try self.space.malloc(self.bytes());
        if (h.shape == 0) {
            h.shape = self.shape.bits();
            h.changes = @truncate(os.randomU64());
        }
        @memset(@as([*]u8, @ptrFromInt(address))[0..self.bytes()], 0);
        const node: *Node = @ptrFromInt(address);
        node.* = .{ .next = next, .prev = prev };
        if (after) |it| it.prev = address else h.last = address;
        if (ahead) |it| it.next = address else h.first = address;
        h.len +%= 1;
        h.changes +%= 1;
        return address + @sizeOf(Node);
    }

    /// Removes the element of that value, which owns nothing any more. Within a change.
    pub fn remove(self: *const List, value: u64) Error!void {
        const h = self.header;
        const address = try self.nodeOf(value);
        const node = (try self.nodeAt(address)).*;
        try self.space.free(address);
        if (node.prev != 0) (try self.nodeAt(node.prev)).next = node.next else h.first = node.next;
        if (node.next != 0) (try self.nodeAt(node.next)).prev = node.prev else h.last = node.prev;
        h.len -%= 1;
        h.changes +%= 1;
    }

    /// Address of the value at an index, 0 outside; from the nearer end.
    pub fn at(self: *const List, index: u64) Error!u64 {
        const h = self.header;
        if (index >= h.len) return 0;
        const backward = index > h.len / 2;
        var address = if (backward) h.last else h.first;
        for (0..if (backward) h.len - 1 - index else index) |_| {
            const node = try self.nodeAt(address);
            address = if (backward) node.prev else node.next;
        }
        _ = try self.nodeAt(address);
        return address + @sizeOf(Node);
    }

    /// Reverses the order. Within a change.
    pub fn reverse(self: *const List) Error!void {
        const h = self.header;
        if (h.len == 0) return;
        // Proved first, so that nothing stays half turned.
        try self.check();
        var address = h.first;
        while (address != 0) {
            const node = try self.nodeAt(address);
            address = node.next;
            std.mem.swap(u64, &node.next, &node.prev);
        }
        std.mem.swap(u64, &h.first, &h.last);
        h.changes +%= 1;
    }

    pub fn clear(self: *const List) Error!void {
        const h = self.header;
        if (h.shape == 0) return;
        const before = h.*;
        h.* = .{ .shape = before.shape, .first = 0, .last = 0, .len = 0, .changes = before.changes +% 1, .reserved = 0 };
        return self.freeAll(&before);
    }

    pub fn destroy(self: *const List) Error!void {
        const before = self.header.*;
        self.header.* = std.mem.zeroes(Header);
        if (before.shape != 0) return self.freeAll(&before);
    }

    fn freeAll(self: *const List, before: *const Header) Error!void {
        var address = before.first;
        // Each node is freed once: a chain that turns back meets one that is free.
        while (address != 0) {
            const next = (try self.nodeAt(address)).next;
            try self.space.free(address);
            address = next;
        }
    }

    pub fn beginWalk(self: *const List, walk: *data.Walk) Error!void {
        const h = self.header;
        walk.node = data.number(if (walk.backward != 0) h.last else h.first);
        walk.changes = data.number(h.changes);
        walk.left = data.number(h.len);
    }

    pub fn nextOf(self: *const List, walk: *data.Walk, out: anytype) Error!u64 {
        try walk.expectSame(self.header.changes);
        var address = data.Walk.whole(walk.node);
        var left = data.Walk.whole(walk.left);
        var count: usize = 0;
        while (address != 0 and count < out.len) : (count += 1) {
            if (left == 0) return data.damaged(address);
            left -= 1;
            const node = try self.nodeAt(address);
            data.give(&out[count], 0, address + @sizeOf(Node));
            address = if (walk.backward != 0) node.prev else node.next;
        }
        walk.node = data.number(address);
        walk.left = data.number(left);
        return count;
    }

    pub fn check(self: *const List) Error!void {
        const h = self.header;
        var address = h.first;
        var before: u64 = 0;
        var count: u64 = 0;
        while (address != 0) : (count += 1) {
            if (count >= h.len) return data.damaged(address);
            const node = try self.nodeAt(address);
            if (node.prev != before) return data.damaged(address);
            if (try self.space.alloc.usableSize(address) < self.bytes()) return data.damaged(address);
            before = address;
            address = node.next;
        }
        if (count != h.len or h.last != before) return data.damaged(h.last);
    }

    pub fn blocks(self: *const List, sink: *data.Blocks) Error!void {
        var address = self.header.first;
        var left = self.header.len;
        while (address != 0) : (left -= 1) {
            if (left == 0) return data.damaged(address);
            sink.add(address);
            address = (try self.nodeAt(address)).next;
        }
    }
};
