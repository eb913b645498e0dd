//! Columns: a field of many values side by side, as typed arrays have them.
//!
//! Invariant: what is read lies in a value whose bytes the container's walk has found in the heap, and
//! what is written in the room that the caller gave.

const std = @import("std");
const data = @import("data.zig");
const errors = @import("../errors.zig");
const text = @import("text.zig");
const Error = data.Error;

/// How a field becomes a number of its column.
pub const Column = enum(u32) {
    bytes1 = 0,
    bytes2 = 1,
    bytes4 = 2,
    bytes8 = 3,
    /// A byte, 0 or 1, of a byte that is not 0.
    truth = 4,
    /// An f64 of a u64 below 2^53.
    u53 = 5,
    /// An f64, where the field stands: what is no number is read by who knows it.
    address = 6,
    /// Two i32, from which to which offset of what the caller sees the ASCII of a text stands; for any other
    /// text an f64, its slot's address below zero, so that the second of the two is below zero as well.
    text = 7,

    fn read(self: Column) u64 {
        return switch (self) {
            .bytes1, .truth => 1,
            .bytes2 => 2,
            .bytes4 => 4,
            .bytes8, .u53 => 8,
            .address => 0,
            .text => @sizeOf(text.Slot),
        };
    }

    fn written(self: Column) u64 {
        return switch (self) {
            .address, .text => 8,
            else => self.read(),
        };
    }
};

/// One field, as TypeScript gives it.
pub const Field = extern struct {
    /// Bytes from the value's first.
    offset: u32,
    column: u32,
    /// Bytes from the first of all columns.
    at: u32,
    /// Becomes 1 for a number that the column cannot hold; it has NaN instead.
    refused: u32,
};

/// What the caller sees of the heap in one piece.
pub const Seen = struct {
    base: u64,
    room: u64,

    /// Where the ASCII of a slot's text stands in it: the offset, and above it that of the end.
    inline fn ascii(self: Seen, space: data.Space, address: u64) ?u64 {
        const high_bits = 0x8080_8080_8080_8080;
        // Read once: what another thread changes between a look and the use is used unseen.
        const slot: text.Slot = .{ .low = at(u64, address, 0), .high = at(u64, address, 8) };
        var from = address -% self.base;
        var len = slot.high >> 56;
        if (len <= text.inline_max) {
            if ((slot.low | slot.high) & high_bits != 0) return null;
        } else {
            if (!slot.isOutside()) return null;
            const bytes = slot.outside(space) catch return null;
            if (!isAscii(bytes)) return null;
            from = slot.low -% self.base;
            len = bytes.len;
        }
        if (from > self.room or len > self.room - from) return null;
        return from + len << 32 | from;
    }
};

fn isAscii(bytes: []const u8) bool {
    const Lanes = @Vector(64, u8);
    var rest = bytes;
    while (rest.len >= 64) : (rest = rest[64..]) {
        if (@reduce(.Or, @as(Lanes, rest[0..64].*)) >= 0x80) return false;
    }
    for (rest) |byte| if (byte >= 0x80) return false;
    return true;
}

/// Copies the fields of the next values, up to `rows`, to their columns. How many values.
pub fn gather(container: anytype, walk: *data.Walk, fields: []Field, rows: u64, out: []u8, size: u64, seen: Seen) Error!u64 {
    for (fields) |field| try expectRoom(field, rows, out.len, size);
    var values: [data.Walk.batch_max]u64 = undefined;
    var done: u64 = 0;
    while (done < rows) {
        const found = try container.nextOf(walk, values[0..@min(values.len, rows - done)]);
        if (found == 0) break;
        for (fields) |*field| copy(field, values[0..found], out.ptr + field.at, done, container.space, seen);
        done += found;
    }
    return done;
}

fn expectRoom(field: Field, rows: u64, room: u64, size: u64) Error!void {
    if (field.column <= @intFromEnum(Column.text)) {
        const column: Column = @enumFromInt(field.column);
        const bytes = column.written();
        if (field.offset + column.read() <= size and field.at % bytes == 0 and field.at +| rows *| bytes <= room) return;
    }
    return errors.fail(.INVALID_ARGUMENT, .{}, "Cannot make column {d} of {d} fields at byte {d} of values of {d}: there " ++
        "are {d} bytes for all", .{ field.column, rows, field.offset, size, room });
}

fn copy(field: *Field, values: []const u64, out: [*]u8, done: u64, space: data.Space, seen: Seen) void {
    @setRuntimeSafety(false);
    const offset = field.offset;
    switch (@as(Column, @enumFromInt(field.column))) {
        .bytes1 => copyAs(u8, offset, values, out, done),
        .bytes2 => copyAs(u16, offset, values, out, done),
        .bytes4 => copyAs(u32, offset, values, out, done),
        .bytes8 => copyAs(u64, offset, values, out, done),
        .truth => for (values, out[done..]) |value, *to| {
            to.* = @intFromBool(at(u8, value, offset) != 0);
        },
        .u53 => {
            const into: [*]align(1) f64 = @ptrCast(out);
            for (values, into[done..]) |value, *to| {
                const found = at(u64, value, offset);
                to.* = if (found < 1 << 53) data.number(found) else std.math.nan(f64);
                field.refused |= @intFromBool(found >= 1 << 53);
            }
        },
        .address => {
            const into: [*]align(1) f64 = @ptrCast(out);
            for (values, into[done..]) |value, *to| to.* = data.number(value + offset);
        },
        .text => {
            const into: [*]align(1) u64 = @ptrCast(out);
            for (values, into[done..]) |value, *to| {
                to.* = seen.ascii(space, value + offset) orelse @bitCast(-data.number(value + offset));
            }
        },
    }
}

inline fn copyAs(comptime T: type, offset: u32, values: []const u64, out: [*]u8, done: u64) void {
    @setRuntimeSafety(false);
    const into: [*]align(1) T = @ptrCast(out);
    for (values, into[done..]) |value, *to| to.* = at(T, value, offset);
}

inline fn at(comptime T: type, value: u64, offset: u32) T {
    @setRuntimeSafety(false);
    return @as(*align(1) const T, @ptrFromInt(value + offset)).*;
}
