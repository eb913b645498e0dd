//! Vec: elements side by side, as a C array; an address and a length to whoever reads it.
//!
//! Invariant: elements lie in one block of `capacity` elements, of which the first `len` are used; what
//! lies behind is anything.

const std = @import("std");
const data = @import("data.zig");
const Space = data.Space;
const Error = data.Error;

pub const Header = extern struct {
    shape: u64,
    /// Address of the first element, 0 while there is no memory.
    data: u64,
    len: u64,
    capacity: u64,
    /// Counts changes of the length, and moves.
    changes: u32,
    reserved: u32,
};

comptime {
    std.debug.assert(@sizeOf(Header) == 40);
}

/// Bytes of the first block.
const bytes_min = 64;

pub const Vec = struct {
    header: *Header,
    space: Space,
    shape: data.Shape,

    pub inline fn open(space: Space, address: u64, shape: u64) Error!Vec {
        const header = try data.open(Header, space, address, shape);
        if (@as(data.Shape, @bitCast(shape)).value_size == 0) return data.damaged(address);
        return .{ .header = header, .space = space, .shape = @bitCast(shape) };
    }

    inline fn size(self: *const Vec) u64 {
        return self.shape.value_size;
    }

    /// The elements' bytes.
    inline fn elements(self: *const Vec) Error![]u8 {
        return self.space.bytes(self.header.data, self.header.len *| self.size());
    }

    pub fn beginWalk(self: *const Vec, walk: *data.Walk) Error!void {
        walk.node = 0;
        walk.changes = data.number(self.header.changes);
        walk.left = data.number(self.header.len);
    }

    /// The next elements of a walk, in order; their keys are their indices.
    pub fn nextOf(self: *const Vec, walk: *data.Walk, out: anytype) Error!u64 {
        // Read once: what another thread changes between a look and the use is used unseen.
        const h: *const volatile Header = self.header;
        try walk.expectSame(h.changes);
        const start, const len = .{ h.data, h.len };
        _ = try self.space.bytes(start, len *| self.size());
        const first = data.Walk.whole(walk.node);
        const count = @min(out.len, len -| first);
        for (out[0..count], first..) |*to, index| data.give(to, data.number(index), start + index * self.size());
        walk.node = data.number(first + count);
        return count;
    }

    /// Room for `wanted` elements. `exact`: no more than that.
    pub fn reserve(self: *const Vec, wanted: u64, exact: bool) Error!void {
        const h = self.header;
        if (h.shape == 0) h.shape = self.shape.bits();
        if (wanted <= h.capacity and h.data != 0) return;
        const limit = std.math.maxInt(u48) / self.size();
        if (wanted > limit) return data.tooLarge("Vec", wanted);
        const grown = if (exact) wanted else @max(wanted, h.capacity +| h.capacity / 2, bytes_min / self.size());
        try self.resize(@min(grown, limit));
    }

    /// Another capacity, which holds all elements.
    fn resize(self: *const Vec, capacity: u64) Error!void {
        const h = self.header;
        _ = try self.elements();
        const bytes = capacity * self.size();
        const at = self.space.alloc.realloc(h.data, bytes) catch |err| switch (err) {
            error.BAD_POINTER, error.DOUBLE_FREE => return data.damaged(h.data),
            else => return err,
        };
        h.data = at;
        h.capacity = capacity;
        h.changes +%= 1;
    }

    /// Inserts `count` zeroed elements before element `at`, which is at most the length; address of the
    /// first of them. Within a change.
    pub fn insert(self: *const Vec, at: u64, count: u64) Error!u64 {
        const h = self.header;
        if (at > h.len) return outside(at, h.len);
        try self.reserve(h.len +| count, false);
        const n = self.size();
        const all = try self.space.bytes(h.data, (h.len +| count) *| n);
        if (all.len == 0) return h.data;
        if (at < h.len) @memmove(all[(at + count) * n ..], all[at * n .. h.len * n]);
        @memset(all[at * n ..][0 .. count * n], 0);
        h.len += count;
        h.changes +%= 1;
        return h.data + at * n;
    }

    /// Removes `count` elements from `at` on, which own nothing any more. Within a change.
    pub fn remove(self: *const Vec, at: u64, count: u64) Error!void {
        const h = self.header;
        if (at > h.len or count > h.len - at) return outside(at +| count, h.len);
        if (count == 0) return;
        const n = self.size();
        const all = try self.elements();
        @memmove(all[at * n .. all.len - count * n], all[(at + count) * n ..]);
        h.len -= count;
        h.changes +%= 1;
        if (h.len == 0) return self.clear();
        // Without memory for less the large block serves.
        if (h.capacity / 4 >= h.len and h.capacity *| n > 4 * bytes_min) self.resize(h.len + h.len / 2) catch {};
    }

    /// Fits the memory to the elements. Within a change.
    pub fn shrink(self: *const Vec) Error!void {
        if (self.header.len == 0) return self.clear();
        if (self.header.capacity > self.header.len) try self.resize(self.header.len);
    }

    /// Copies element `from` to those behind it, up to `to`: as bytes, so for elements that own nothing.
    pub fn spread(self: *const Vec, from: u64, to: u64) Error!void {
        const h = self.header;
        if (to > h.len or from >= to) return outside(to, h.len);
        const n = self.size();
        const run = (try self.elements())[from * n .. to * n];
        // Each copy doubles what is filled.
        var done = n;
        while (done < run.len) {
            const more = @min(done, run.len - done);
            @memmove(run[done..][0..more], run[0..more]);
            done += more;
        }
    }

    pub fn reverse(self: *const Vec) Error!void {
        const n = self.size();
        const all = try self.elements();
        if (all.len == 0) return;
        self.header.changes +%= 1;
        var low: usize = 0;
        var high = all.len - n;
        while (low < high) : ({
            low += n;
            high -= n;
        }) {
            for (all[low..][0..n], all[high..][0..n]) |*a, *b| std.mem.swap(u8, a, b);
        }
    }

    /// What numbers the elements are, in the order of the ABI.
    pub const Scalar = enum(u8) { u8, u16, u32, u64, i8, i16, i32, i64, f32, f64 };

    /// Sorts numbers, ascending; NaN goes last, as in JavaScript's typed arrays.
    pub fn sort(self: *const Vec, scalar: Scalar) Error!void {
        const all = try self.elements();
        switch (scalar) {
            inline else => |tag| {
                const T = @field(types, @tagName(tag));
                if (self.size() != @sizeOf(T) or @intFromPtr(all.ptr) % @alignOf(T) != 0 and all.len > 0) return data.damaged(self.header.data);
                if (all.len == 0) return;
                self.header.changes +%= 1;
                const items = @as([*]T, @ptrCast(@alignCast(all.ptr)))[0..@divExact(all.len, @sizeOf(T))];
                std.sort.pdq(T, items, {}, struct {
                    fn less(_: void, a: T, b: T) bool {
                        if (@typeInfo(T) != .float) return a < b;
                        if (std.math.isNan(b)) return !std.math.isNan(a);
                        if (a == 0 and b == 0) return std.math.signbit(a) and !std.math.signbit(b);
                        return a < b;
                    }
                }.less);
            },
        }
    }

    const types = struct {
        const @"u8" = u8;
        const @"u16" = u16;
        const @"u32" = u32;
        const @"u64" = u64;
        const @"i8" = i8;
        const @"i16" = i16;
        const @"i32" = i32;
        const @"i64" = i64;
        const @"f32" = f32;
        const @"f64" = f64;
    };

    /// Puts element order[i] at place i. `order` names each element once, or nothing changes.
    pub fn permute(self: *const Vec, order: []const u32) Error!void {
        const n = self.size();
        const all = try self.elements();
        if (order.len * n != all.len) return outside(order.len, self.header.len);
        if (all.len == 0) return;
        const copy = try self.space.malloc(all.len);
        const into = @as([*]u8, @ptrFromInt(copy))[0..all.len];
        defer self.space.free(copy) catch {};
        const seen = try self.space.malloc(order.len / 8 + 1);
        const bits = @as([*]u8, @ptrFromInt(seen))[0 .. order.len / 8 + 1];
        defer self.space.free(seen) catch {};
        @memset(bits, 0);
        for (order, 0..) |from, to| {
            if (from >= order.len or bits[from / 8] >> @intCast(from % 8) & 1 != 0) return outside(from, order.len);
            bits[from / 8] |= @as(u8, 1) << @intCast(from % 8);
            @memmove(into[to * n ..][0..n], all[from * n ..][0..n]);
        }
        self.header.changes +%= 1;
        @memmove(all, into);
    }

    /// Removes all elements, which own nothing any more, and gives the memory back.
    pub fn clear(self: *const Vec) Error!void {
        const h = self.header;
        if (h.shape == 0) return;
        const memory = h.data;
        h.data = 0;
        h.len = 0;
        h.capacity = 0;
        h.changes +%= 1;
        if (memory != 0) try self.space.free(memory);
    }

    /// Makes the header all zeros.
    pub fn destroy(self: *const Vec) Error!void {
        const memory = self.header.data;
        self.header.* = std.mem.zeroes(Header);
        if (memory != 0) try self.space.free(memory);
    }

    pub fn check(self: *const Vec) Error!void {
        const h = self.header;
        if (h.len > h.capacity) return data.damaged(h.data);
        if (h.data == 0) return if (h.capacity == 0) {} else data.damaged(h.data);
        if (try self.space.alloc.usableSize(h.data) / self.size() < h.capacity) return data.damaged(h.data);
        _ = try self.elements();
    }

    pub fn blocks(self: *const Vec, sink: *data.Blocks) Error!void {
        sink.add(self.header.data);
    }
};

fn outside(index: u64, len: u64) Error {
    @branchHint(.cold);
    return @import("../errors.zig").fail(.INVALID_ARGUMENT, .{}, "Cannot use element {d} of a Vec of {d}", .{ index, len });
}
