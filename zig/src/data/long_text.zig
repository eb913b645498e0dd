//! Text: a long text that changes in place, UTF-8 side by side in one block.
//!
//! Invariant: the first `len` of `capacity` bytes are well-formed UTF-8, of `units` units of UTF-16, by
//! which JavaScript counts.

const std = @import("std");
const data = @import("data.zig");
const errors = @import("../errors.zig");
const Space = data.Space;
const Error = data.Error;

pub const Header = extern struct {
    shape: u64,
    data: u64,
    /// Bytes.
    len: u64,
    capacity: u64,
    changes: u32,
    reserved: u32,
    /// Length as JavaScript has it.
    units: u64,
};

comptime {
    std.debug.assert(@sizeOf(Header) == 48);
}

/// Units of UTF-16 that UTF-8 takes: one for each first byte, two for those of four.
pub fn unitsOf(bytes: []const u8) u64 {
    var units: u64 = 0;
    for (bytes) |byte| {
        units += @intFromBool(byte & 0xc0 != 0x80);
        units += @intFromBool(byte >= 0xf0);
    }
    return units;
}

pub const Text = struct {
    header: *Header,
    space: Space,

    pub inline fn open(space: Space, address: u64, shape: u64) Error!Text {
        return .{ .header = try data.open(Header, space, address, shape), .space = space };
    }

    fn content(self: *const Text) Error![]u8 {
        return self.space.bytes(self.header.data, self.header.len);
    }

    fn expectBoundary(bytes: []const u8, at: u64) Error!void {
        if (at > bytes.len or at < bytes.len and bytes[at] & 0xc0 == 0x80)
            return errors.fail(.INVALID_ARGUMENT, .{}, "Cannot cut text of {d} bytes at byte {d}: no character " ++
                "begins there", .{ bytes.len, at });
    }

    /// Replaces `removed` bytes at byte `at` by `inserted`, both whole characters. Within a change.
    pub fn splice(self: *const Text, at: u64, removed: u64, inserted: []const u8, shape: data.Shape) Error!void {
        const h = self.header;
        const old = try self.content();
        try expectBoundary(old, at);
        if (removed > old.len - at) return errors.fail(.INVALID_ARGUMENT, .{}, "Cannot remove {d} bytes at byte {d} of " ++
            "{d}", .{ removed, at, old.len });
        try expectBoundary(old, at + removed);
        if (inserted.len > std.math.maxInt(u32) or !std.unicode.utf8ValidateSlice(inserted))
            return errors.fail(.INVALID_ARGUMENT, .{}, "Cannot insert {d} bytes: they are no UTF-8", .{inserted.len});
        const len = old.len - removed + inserted.len;
        const gone = unitsOf(old[at..][0..removed]);
        if (len > h.capacity or h.data == 0 and len > 0) {
            const known: u64 = @min(h.capacity, 1 << 46);
            const capacity = @max(len, known * 3 / 2, 64);
            h.data = self.space.alloc.realloc(h.data, capacity) catch |err| switch (err) {
                error.BAD_POINTER, error.DOUBLE_FREE => return data.damaged(h.data),
                else => return err,
            };
            h.capacity = capacity;
        }
        h.shape = shape.bits();
        const all = try self.space.bytes(h.data, @max(len, old.len));
        @memmove(all[at + inserted.len .. len], all[at + removed .. old.len]);
        @memmove(all[at..][0..inserted.len], inserted);
        h.len = len;
        h.units = h.units +% unitsOf(inserted) -% gone;
        h.changes +%= 1;
        if (len == 0) return self.clear();
        if (h.capacity / 4 > len and h.capacity > 256) self.shrink(len + len / 2) catch {};
    }

    fn shrink(self: *const Text, capacity: u64) Error!void {
        self.header.data = try self.space.alloc.realloc(self.header.data, capacity);
        self.header.capacity = capacity;
    }

    /// The byte at which the unit of that index begins.
    pub fn byteOf(self: *const Text, unit: u64) Error!u64 {
        const h = self.header;
        const bytes = try self.content();
        if (unit > h.units) return errors.fail(.INVALID_ARGUMENT, .{}, "Cannot use character {d} of a text of {d}", .{ unit, h.units });
        if (h.units == bytes.len) return unit;
        var left = unit;
        var at: u64 = 0;
        // In strides first, which count fast.
        while (at + 256 <= bytes.len) : (at += 256) {
            const units = unitsOf(bytes[at..][0..256]);
            if (units >= left) break;
            left -= units;
        }
        // Bytes that continue a character of the stride before belong to it.
        while (at < bytes.len and bytes[at] & 0xc0 == 0x80) at += 1;
        while (left > 0 and at < bytes.len) {
            const size: u64 = if (bytes[at] < 0x80) 1 else if (bytes[at] < 0xe0) 2 else if (bytes[at] < 0xf0) 3 else 4;
            const units: u64 = if (size == 4) 2 else 1;
            if (units > left) return errors.fail(.INVALID_ARGUMENT, .{}, "Cannot cut text at {d}: half of a surrogate " ++
                "pair stands there", .{unit});
            left -= units;
            at += size;
        }
        return @min(at, bytes.len);
    }

    /// The unit that begins at a byte.
    pub fn unitOf(self: *const Text, byte: u64) Error!u64 {
        const bytes = try self.content();
        if (self.header.units == bytes.len) return @min(byte, bytes.len);
        return unitsOf(bytes[0..@min(byte, bytes.len)]);
    }

    /// The first byte from `from` on at which `wanted` stands, or null.
    pub fn find(self: *const Text, from: u64, wanted: []const u8, backward: bool) Error!?u64 {
        const bytes = try self.content();
        if (backward) return std.mem.findLast(u8, bytes[0..@min(bytes.len, from +| wanted.len)], wanted);
        return std.mem.findPos(u8, bytes, @min(from, bytes.len), wanted);
    }

    pub fn clear(self: *const Text) Error!void {
        const h = self.header;
        if (h.shape == 0) return;
        const memory = h.data;
        h.* = .{ .shape = h.shape, .data = 0, .len = 0, .capacity = 0, .changes = h.changes +% 1, .reserved = 0, .units = 0 };
        if (memory != 0) try self.space.free(memory);
    }

    pub fn destroy(self: *const Text) Error!void {
        const memory = self.header.data;
        self.header.* = std.mem.zeroes(Header);
        if (memory != 0) try self.space.free(memory);
    }

    pub fn check(self: *const Text) Error!void {
        const h = self.header;
        if (h.len > h.capacity) return data.damaged(h.data);
        if (h.data == 0) return if (h.capacity == 0 and h.units == 0) {} else data.damaged(h.data);
        if (try self.space.alloc.usableSize(h.data) < h.capacity) return data.damaged(h.data);
        const bytes = try self.content();
        if (unitsOf(bytes) != h.units or !std.unicode.utf8ValidateSlice(bytes)) return data.damaged(h.data);
    }

    pub fn blocks(self: *const Text, sink: *data.Blocks) Error!void {
        sink.add(self.header.data);
    }
};
