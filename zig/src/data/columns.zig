//! Columns: a field of many values side by side, as typed arrays have them.
//!
//! Invariant: what is read lies in a value whose bytes the container's walk has found in the heap, and
//! what is written in the room that the caller gave.

const std = @import("std");
const data = @import("data.zig");
const errors = @import("../errors.zig");
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

    fn read(self: Column) u64 {
        return switch (self) {
            .bytes1, .truth => 1,
            .bytes2 => 2,
            .bytes4 => 4,
            .bytes8, .u53 => 8,
            .address => 0,
        };
    }

    fn written(self: Column) u64 {
        return switch (self) {
            .address => 8,
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

/// Copies the fields of the next values, up to `rows`, to their columns. How many values.
pub fn gather(container: anytype, walk: *data.Walk, fields: []Field, rows: u64, out: []u8, size: u64) Error!u64 {
    for (fields) |field| try expectRoom(field, rows, out.len, size);
    var pairs: [data.Walk.batch_max][2]f64 = undefined;
    var done: u64 = 0;
    while (done < rows) {
        const found = try container.nextOf(walk, pairs[0..@min(pairs.len, rows - done)]);
        if (found == 0) break;
        for (fields) |*field| copy(field, pairs[0..found], out.ptr + field.at, done);
        done += found;
    }
    return done;
}

fn expectRoom(field: Field, rows: u64, room: u64, size: u64) Error!void {
    if (field.column <= @intFromEnum(Column.address)) {
        const column: Column = @enumFromInt(field.column);
        const bytes = column.written();
        if (field.offset + column.read() <= size and field.at % bytes == 0 and field.at +| rows *| bytes <= room) return;
    }
    return errors.fail(.INVALID_ARGUMENT, .{}, "Cannot make column {d} of {d} fields at byte {d} of values of {d}: there " ++
        "are {d} bytes for all", .{ field.column, rows, field.offset, size, room });
}

fn copy(field: *Field, pairs: []const [2]f64, out: [*]u8, done: u64) void {
    @setRuntimeSafety(false);
    const offset = field.offset;
    switch (@as(Column, @enumFromInt(field.column))) {
        .bytes1 => copyAs(u8, offset, pairs, out, done),
        .bytes2 => copyAs(u16, offset, pairs, out, done),
        .bytes4 => copyAs(u32, offset, pairs, out, done),
        .bytes8 => copyAs(u64, offset, pairs, out, done),
        .truth => for (pairs, out[done..]) |pair, *to| {
            to.* = @intFromBool(at(u8, pair, offset) != 0);
        },
        .u53 => {
            const into: [*]align(1) f64 = @ptrCast(out);
            for (pairs, into[done..]) |pair, *to| {
                const value = at(u64, pair, offset);
                to.* = if (value < 1 << 53) data.number(value) else std.math.nan(f64);
                field.refused |= @intFromBool(value >= 1 << 53);
            }
        },
        .address => {
            const into: [*]align(1) f64 = @ptrCast(out);
            for (pairs, into[done..]) |pair, *to| to.* = pair[1] + data.number(offset);
        },
    }
}

inline fn copyAs(comptime T: type, offset: u32, pairs: []const [2]f64, out: [*]u8, done: u64) void {
    @setRuntimeSafety(false);
    const into: [*]align(1) T = @ptrCast(out);
    for (pairs, into[done..]) |pair, *to| to.* = at(T, pair, offset);
}

inline fn at(comptime T: type, pair: [2]f64, offset: u32) T {
    @setRuntimeSafety(false);
    const address: u64 = @intCast(@as(i64, @intFromFloat(pair[1])));
    return @as(*align(1) const T, @ptrFromInt(address + offset)).*;
}
