//! Containers that live in the heap: their layout and every change to them. A container is its
//! header, of a fixed size for each kind, which stands in a block of its own or within another
//! object; what the header leads to are plain heap blocks that belong to it alone. docs/containers.md
//! has the layouts to the byte.
//!
//! Rooms: text (text slots and their order), pool (places that never move), hash_map, ordered_map,
//! vec, list, long_text; columns (fields of many values); scratch (where TypeScript leaves text); exports (what TypeScript calls).
//!
//! Invariants: a header of zeros is an empty container, and one that moves as bytes is the same
//! container. Values are opaque bytes here: whoever removes one has freed what it owned. All changes
//! happen within one change of the allocator, so a commit finds all of it or none. Nothing that stands in
//! the heap is followed unchecked: every access lies in the heap's data, every loop ends, and damage is
//! CORRUPT. A change that fails leaves the container as it was.

const std = @import("std");
const errors = @import("../errors.zig");
const alloc_room = @import("../alloc/alloc.zig");

pub const Error = errors.Error;
pub const Allocator = alloc_room.Allocator;
const fail = errors.fail;

pub const Kind = enum(u4) { vec = 1, list = 2, hash_map = 3, ordered_map = 4, text = 5, _ };
pub const KeyKind = enum(u4) {
    /// The bits of an f64: NaN has one form, and -0 is 0.
    number = 0,
    u64 = 1,
    i64 = 2,
    text = 3,
    /// Not a map.
    none = 15,
    _,

    /// Bytes of a key where it stands.
    pub inline fn size(self: KeyKind) usize {
        return if (self == .text) 16 else 8;
    }
};

/// The first word of every header: what the container is. In a number that TypeScript holds exactly.
pub const Shape = packed struct(u64) {
    key: KeyKind,
    kind: Kind,
    mark: u12 = mark_wanted,
    value_size: u32,
    zero: u12 = 0,

    const mark_wanted = 0xa5f;

    pub inline fn bits(self: Shape) u64 {
        return @bitCast(self);
    }

    pub fn isOne(self: Shape) bool {
        return self.mark == mark_wanted and self.zero == 0;
    }
};

/// Bytes from which on a part of a container may stand in large pages.
pub const dense_min = 1 << 20;

/// The heap's data, and nothing else.
pub const Space = struct {
    alloc: *Allocator,

    pub inline fn contains(self: Space, address: u64, len: u64) bool {
        const offset = address -% self.alloc.tables.data;
        const capacity = self.alloc.capacityBytes();
        return offset <= capacity and len <= capacity - offset;
    }

    pub inline fn at(self: Space, comptime T: type, address: u64) Error!*T {
        if (address % @alignOf(T) != 0 or !self.contains(address, @sizeOf(T))) return damaged(address);
        return @ptrFromInt(address);
    }

    /// `count` values of T; the product must not overflow.
    pub inline fn many(self: Space, comptime T: type, address: u64, count: u64) Error![*]T {
        if (address % @alignOf(T) != 0 or !self.contains(address, count *| @sizeOf(T))) return damaged(address);
        return @ptrFromInt(address);
    }

    pub inline fn bytes(self: Space, address: u64, len: u64) Error![]u8 {
        if (len == 0) return &.{};
        if (!self.contains(address, len)) return damaged(address);
        return @as([*]u8, @ptrFromInt(address))[0..len];
    }

    pub inline fn malloc(self: Space, len: u64) Error!u64 {
        return self.alloc.malloc(len);
    }

    /// Memory that will be filled as a whole, and was not touched since it was allocated.
    pub fn dense(self: Space, address: u64, len: u64) void {
        const supply = &self.alloc.tables.supply;
        if (supply.dense) |tell| tell(supply.context, address, len);
    }

    /// Frees what a container found in its own header; what is no block there is damage.
    pub fn free(self: Space, address: u64) Error!void {
        self.alloc.free(address) catch |err| switch (err) {
            error.BAD_POINTER, error.DOUBLE_FREE => return damaged(address),
            else => return err,
        };
    }
};

pub fn damaged(address: u64) Error {
    @branchHint(.cold);
    return fail(.CORRUPT, .{ .address = address }, "Cannot use the container: it leads to 0x{x}, where no part of " ++
        "it can be; it was overwritten, or the pointer to it is of something else", .{address});
}

pub fn tooLarge(comptime what: []const u8, count: u64) Error {
    @branchHint(.cold);
    return fail(.OUT_OF_MEMORY, .{}, "Cannot make a " ++ what ++ " of {d}: that is more than one can hold", .{count});
}

/// The container at `address`, whose header is a T. `expected` is the Shape that the caller has in
/// mind; a header of zeros is empty and of any shape.
pub inline fn open(comptime T: type, space: Space, address: u64, expected: u64) Error!*T {
    if (address % 8 != 0 or !space.contains(address, @sizeOf(T))) return badPointer(address);
    const header: *T = @ptrFromInt(address);
    if (header.shape != expected) {
        @branchHint(.unlikely);
        try expectEmpty(T, header, address, expected);
    }
    return header;
}

fn badPointer(address: u64) Error {
    @branchHint(.cold);
    return fail(.BAD_POINTER, .{ .address = address }, "Cannot use a container at 0x{x}: no heap memory of it lies " ++
        "there; take it from its root again", .{address});
}

noinline fn expectEmpty(comptime T: type, header: *const T, address: u64, expected: u64) Error!void {
    const wanted: Shape = @bitCast(expected);
    if (!wanted.isOne()) return fail(.INVALID_ARGUMENT, .{}, "Cannot use a container of shape {x}: there is none", .{expected});
    for (std.mem.asBytes(header)) |byte| {
        if (byte != 0) break;
    } else return;
    const found: Shape = @bitCast(header.shape);
    if (found.isOne()) return fail(
        .LAYOUT_MISMATCH,
        .{ .address = address },
        "Cannot use the container at 0x{x} as a {s} of {s} keys and values of {d} bytes: it is a {s} of {s} keys " ++
            "and values of {d} bytes",
        .{ address, kindName(wanted), keyName(wanted), wanted.value_size, kindName(found), keyName(found), found.value_size },
    );
    return fail(.STALE, .{ .address = address }, "Cannot use the container at 0x{x}: it was destroyed, and something " ++
        "else stands there; take it from its root again", .{address});
}

pub fn kindName(shape: Shape) []const u8 {
    return switch (shape.kind) {
        .vec => "Vec",
        .list => "List",
        .hash_map => "HashMap",
        .ordered_map => "OrderedMap",
        .text => "Text",
        _ => "container",
    };
}

fn keyName(shape: Shape) []const u8 {
    return switch (shape.key) {
        .number => "number",
        .u64 => "u64",
        .i64 => "i64",
        .text => "text",
        else => "no",
    };
}

/// Where a walk through a container stands; crosses as a Float64Array, with the results after it.
/// Positions stay good while the container does not change, which `changes` tells.
pub const Walk = extern struct {
    /// The next element: a node's address or an entry's number.
    node: f64,
    /// Its place in the node.
    place: f64,
    /// Where the walk ends, likewise.
    end_node: f64,
    end_place: f64,
    changes: f64,
    /// Elements that it may give yet: a damaged container must not be walked for ever.
    left: f64,
    /// 1: from the end to the beginning.
    backward: f64,

    pub const fields = @typeInfo(Walk).@"struct".fields.len;
    /// Elements that one call gives at most.
    pub const batch_max = 128;
    /// The offset of a value that does not lie where the caller looks.
    pub const outside = -1;

    pub fn expectSame(self: *const Walk, changes: u32) Error!void {
        if (self.changes == @as(f64, @floatFromInt(changes))) return;
        return fail(.STALE, .{}, "Cannot go on iterating: the container was changed meanwhile; collect what shall be " ++
            "changed first, or begin again", .{});
    }

    /// A whole number that TypeScript could have written anything into.
    pub inline fn whole(value: f64) u64 {
        if (!(value >= 0 and value <= 1 << 53)) return 0;
        return @intFromFloat(value);
    }
};

/// An element of a walk to who wants its key as well, `[2]f64`, or its address alone, `u64`.
pub inline fn give(to: anytype, key: f64, address: u64) void {
    to.* = if (@TypeOf(to.*) == u64) address else .{ key, number(address) };
}

/// Collects the addresses of a container's own blocks.
pub const Blocks = struct {
    out: []f64,
    /// How many there are, whether they fit or not.
    count: u64 = 0,

    pub fn add(self: *Blocks, address: u64) void {
        if (address == 0) return;
        if (self.count < self.out.len) self.out[self.count] = number(address);
        self.count += 1;
    }
};

pub inline fn number(value: u64) f64 {
    return @floatFromInt(@as(i64, @bitCast(value)));
}

test {
    _ = @import("text.zig");
    _ = @import("parts.zig");
    _ = @import("pool.zig");
    _ = @import("hash_map.zig");
    _ = @import("vec.zig");
    _ = @import("list.zig");
    _ = @import("ordered_map.zig");
    _ = @import("long_text.zig");
    _ = @import("columns.zig");
    _ = @import("test_maps.zig");
    _ = @import("test_ordered.zig");
    _ = @import("test_walks.zig");
}
