//! What TypeScript calls of the containers; the second part of the ABI (abi.zig). A container is named
//! by the address of its header, and by its Shape as a number, which must be what stands there.
//!
//! A key crosses as two numbers: (value, 0) for numbers, (low, high) halves of 64 bits, (address,
//! length) of text in the thread's scratch or in the heap.

const std = @import("std");
const abi = @import("../abi.zig");
const errors = @import("../errors.zig");
const data = @import("data.zig");
const scratch = @import("scratch.zig");
const text_room = @import("text.zig");
const hash_map = @import("hash_map.zig");
const vec_room = @import("vec.zig");
const list_room = @import("list.zig");
const ordered_map = @import("ordered_map.zig");
const long_text = @import("long_text.zig");
const columns_room = @import("columns.zig");

const Error = errors.Error;
const Heap = @import("../heap/heap.zig").Heap;
const HeapHandle = abi.HeapHandle;
const Buffer = abi.Buffer;
const Space = data.Space;
const Walk = data.Walk;
const whole = abi.whole;
const result = abi.result;

pub const functions = struct {
    /// The calling thread's scratch: its address.
    pub fn ph_scratch() callconv(.c) f64 {
        return result(scratch.ofThread());
    }

    /// 0, or READ_ONLY or CLOSED: asked before values are destroyed on the way to a change.
    pub fn ph_writable(handle: HeapHandle) callconv(.c) f64 {
        return result(if (abi.writable(handle)) |_| {} else |err| @as(Error!void, err));
    }

    // ---- all containers
    /// Whether such a container stands there: 0, or what is wrong with the pointer.
    pub fn ph_container_open(handle: HeapHandle, container: f64, shape: f64) callconv(.c) f64 {
        return result(expectOpen(handle, container, shape));
    }

    /// Removes everything, which owns nothing any more, and gives the memory back.
    pub fn ph_clear(handle: HeapHandle, container: f64, shape: f64) callconv(.c) f64 {
        return result(change(handle, container, shape, .clear));
    }

    /// The same, and makes the header zeros, which then is no part of anything.
    pub fn ph_destroy(handle: HeapHandle, container: f64, shape: f64) callconv(.c) f64 {
        return result(change(handle, container, shape, .destroy));
    }

    /// Exchanges what two containers of that shape hold, in one step.
    pub fn ph_container_swap(handle: HeapHandle, container: f64, shape: f64, other: f64) callconv(.c) f64 {
        return result(swap(handle, container, shape, other));
    }

    /// Proves a container's invariants: 0, or CORRUPT.
    pub fn ph_container_check(handle: HeapHandle, container: f64, shape: f64) callconv(.c) f64 {
        return result(check(handle, container, shape));
    }

    /// Addresses of the container's own blocks, the header left out, `capacity` at most, into `out`: how
    /// many there are.
    pub fn ph_container_blocks(handle: HeapHandle, container: f64, shape: f64, out: Buffer, capacity: f64) callconv(.c) f64 {
        return result(blocks(handle, container, shape, out, capacity));
    }

    /// Begins or continues a walk: up to `count` (at most 128) elements into `walk`, behind a Walk's fields; two
    /// numbers for each: key (or its address) and address of the value. Behind 128 of these the values' offsets
    /// from `base` as 32-bit integers, -1 for those that do not lie in the `room` bytes there whole and behind
    /// the last. How many.
    pub fn ph_walk(handle: HeapHandle, container: f64, shape: f64, walk: Buffer, count: f64, base: f64, room: f64) callconv(.c) f64 {
        return result(walkOn(handle, container, shape, walk, count, base, room));
    }

    /// Begins or continues a walk, and copies fields of up to `rows` values side by side: of `fields`, `count` times
    /// four u32: a field's offset in a value, its Column, where its column begins in `out`, and where 1 is left
    /// for a number that the column cannot hold. Of the heap the caller sees `shown` bytes from `base` on. How
    /// many values.
    pub fn ph_columns(handle: HeapHandle, container: f64, shape: f64, walk: Buffer, fields: Buffer, count: f64, rows: f64, out: Buffer, room: f64, base: f64, shown: f64) callconv(.c) f64 {
        const seen: columns_room.Seen = .{ .base = whole(base) orelse 0, .room = @min(whole(shown) orelse 0, std.math.maxInt(i32)) };
        return result(columns(handle, container, shape, walk, fields, count, rows, out, room, seen));
    }

    // ---- maps
    /// Address of the key's value, 0 when there is none.
    pub fn ph_map_get(handle: HeapHandle, map: f64, shape: f64, a: f64, b: f64) callconv(.c) f64 {
        return result(mapGet(handle, map, shape, a, b));
    }

    /// Address of the key's value, or that of one that is made, of zeros, + 1.
    pub fn ph_map_set(handle: HeapHandle, map: f64, shape: f64, a: f64, b: f64) callconv(.c) f64 {
        return result(mapSet(handle, map, shape, a, b));
    }

    /// Removes a key, whose value owns nothing any more: 1, or 0 when it is not there.
    pub fn ph_map_delete(handle: HeapHandle, map: f64, shape: f64, a: f64, b: f64) callconv(.c) f64 {
        return result(mapDelete(handle, map, shape, a, b));
    }

    /// Places one end of a walk of an OrderedMap. `how`: 0 at the first key that is not below, 1 above, 2
    /// past all that begin with it, 3 at the beginning, 4 at the end; 10 more for the second end.
    pub fn ph_map_seek(handle: HeapHandle, map: f64, shape: f64, a: f64, b: f64, how: f64, walk: Buffer) callconv(.c) f64 {
        return result(mapSeek(handle, map, shape, a, b, how, walk));
    }

    // ---- lists
    /// Inserts a zeroed element before that of value `before`, or at the end for 0: its value's address.
    pub fn ph_list_insert(handle: HeapHandle, list: f64, shape: f64, before: f64) callconv(.c) f64 {
        return result(listChange(handle, list, shape, .{ .insert = whole(before) orelse return abi.refuse("insert before", before) }));
    }

    /// Removes the element of that value, which owns nothing any more.
    pub fn ph_list_remove(handle: HeapHandle, list: f64, shape: f64, value: f64) callconv(.c) f64 {
        return result(listChange(handle, list, shape, .{ .remove = whole(value) orelse return abi.refuse("remove", value) }));
    }

    pub fn ph_list_reverse(handle: HeapHandle, list: f64, shape: f64) callconv(.c) f64 {
        return result(listChange(handle, list, shape, .reverse));
    }

    /// Address of the value at an index, 0 outside.
    pub fn ph_list_at(handle: HeapHandle, list: f64, shape: f64, index: f64) callconv(.c) f64 {
        return result(listAt(handle, list, shape, index));
    }

    // ---- text
    /// Replaces `removed` bytes at byte `at` by the `len` bytes at `address`.
    pub fn ph_text_splice(handle: HeapHandle, text: f64, shape: f64, at: f64, removed: f64, address: f64, len: f64) callconv(.c) f64 {
        return result(textSplice(handle, text, shape, at, removed, address, len));
    }

    /// `what` 0: the byte at which unit `value` begins; 1: the unit that begins at byte `value`.
    pub fn ph_text_convert(handle: HeapHandle, text: f64, shape: f64, value: f64, what: f64) callconv(.c) f64 {
        return result(textConvert(handle, text, shape, value, what));
    }

    /// The byte + 1 at which the `len` bytes at `address` stand, from byte `from` on, or with `backward` 1
    /// down; 0 when nowhere.
    pub fn ph_text_find(handle: HeapHandle, text: f64, shape: f64, from: f64, backward: f64, address: f64, len: f64) callconv(.c) f64 {
        return result(textFind(handle, text, shape, from, backward, address, len));
    }

    // ---- vectors
    /// Inserts `count` zeroed elements before element `at` (−1: at the end): address of the first.
    pub fn ph_vec_insert(handle: HeapHandle, vec: f64, shape: f64, at: f64, count: f64) callconv(.c) f64 {
        const n = whole(count) orelse return abi.refuse("insert a count of", count);
        const place = if (at == -1) null else whole(at) orelse return abi.refuse("insert at", at);
        return result(vecChange(handle, vec, shape, .{ .insert = .{ place, n } }));
    }

    pub fn ph_vec_remove(handle: HeapHandle, vec: f64, shape: f64, at: f64, count: f64) callconv(.c) f64 {
        const n = whole(count) orelse return abi.refuse("remove a count of", count);
        const place = whole(at) orelse return abi.refuse("remove at", at);
        return result(vecChange(handle, vec, shape, .{ .remove = .{ place, n } }));
    }

    /// Room for `count` elements; with 0 no more than there are.
    pub fn ph_vec_reserve(handle: HeapHandle, vec: f64, shape: f64, count: f64) callconv(.c) f64 {
        const n = whole(count) orelse return abi.refuse("reserve a count of", count);
        return result(vecChange(handle, vec, shape, .{ .reserve = n }));
    }

    /// Copies element `from` to those behind it, up to `to`.
    pub fn ph_vec_spread(handle: HeapHandle, vec: f64, shape: f64, from: f64, to: f64) callconv(.c) f64 {
        const first = whole(from) orelse return abi.refuse("fill from", from);
        const last = whole(to) orelse return abi.refuse("fill to", to);
        return result(vecChange(handle, vec, shape, .{ .spread = .{ first, last } }));
    }

    pub fn ph_vec_reverse(handle: HeapHandle, vec: f64, shape: f64) callconv(.c) f64 {
        return result(vecChange(handle, vec, shape, .reverse));
    }

    /// Sorts numbers: 0…9 for u8 u16 u32 u64 i8 i16 i32 i64 f32 f64.
    pub fn ph_vec_sort(handle: HeapHandle, vec: f64, shape: f64, scalar: f64) callconv(.c) f64 {
        const kind = whole(scalar) orelse 255;
        if (kind >= @typeInfo(vec_room.Vec.Scalar).@"enum".fields.len) return abi.refuse("sort numbers of kind", scalar);
        return result(vecChange(handle, vec, shape, .{ .sort = @enumFromInt(kind) }));
    }

    /// Puts element order[i] at place i; `order` holds `count` u32.
    pub fn ph_vec_permute(handle: HeapHandle, vec: f64, shape: f64, order: Buffer, count: f64) callconv(.c) f64 {
        const n = whole(count) orelse return abi.refuse("order a count of", count);
        const from: [*]align(1) const u32 = @ptrCast(order orelse return abi.missingBuffer("order"));
        if (@intFromPtr(from) % 4 != 0) return abi.refuse("order by misaligned numbers, ", count);
        const aligned: [*]const u32 = @ptrCast(@alignCast(from));
        return result(vecChange(handle, vec, shape, .{ .permute = aligned[0..n] }));
    }
};

inline fn readable(handle: HeapHandle) Error!Space {
    return .{ .alloc = &(try abi.lookup(handle)).alloc };
}

inline fn writable(handle: HeapHandle) Error!Space {
    return .{ .alloc = &(try abi.writable(handle)).alloc };
}

inline fn addressOf(container: f64) Error!u64 {
    return whole(container) orelse errors.fail(.BAD_POINTER, .{}, "Cannot use {d} as a container's address", .{container});
}

inline fn shapeOf(shape: f64) u64 {
    return whole(shape) orelse 0;
}

/// The shape for calls that one kind of container has: a method may be called on another kind.
inline fn shapeOfKind(shape: f64, kind: data.Kind) Error!u64 {
    const bits = shapeOf(shape);
    if (@as(data.Shape, @bitCast(bits)).kind == kind) return bits;
    return errors.fail(.INVALID_ARGUMENT, .{}, "Cannot use a {s} as a {s}", .{ data.kindName(@bitCast(bits)), @tagName(kind) });
}

/// The key that two numbers stand for.
inline fn keyOf(space: Space, shape: u64, a: f64, b: f64) Error!hash_map.Key {
    switch (@as(data.Shape, @bitCast(shape)).key) {
        .number => {
            // NaN has one form, and -0 + 0 is 0.
            const value = if (a != a) std.math.nan(f64) else a + 0.0;
            return .{ .bits = @bitCast(value) };
        },
        .u64, .i64 => return .{ .bits = (whole(a) orelse 0) & 0xffff_ffff | (whole(b) orelse 0) << 32 },
        .text => {
            const address = whole(a) orelse 0;
            const len = whole(b) orelse 0;
            const passed = scratch.contains(address, len);
            if (!passed and !space.contains(address, len)) return errors.fail(.BAD_POINTER, .{ .address = address }, "Cannot " ++
                "read {d} bytes of text at 0x{x}: it lies neither in the heap nor in the thread's scratch", .{ len, address });
            const bytes = @as([*]const u8, @ptrFromInt(address))[0..len];
            const more = if (passed) scratch.contains(address, 16) else space.contains(address, 16);
            return .{ .text = text_room.Key.init(bytes, more) };
        },
        else => return errors.fail(.INVALID_ARGUMENT, .{}, "Cannot use a container of shape {x} as a map", .{shape}),
    }
}

/// The same for a tree of numbers, which has them in a form that orders.
inline fn orderedKey(shape: u64, key: *const hash_map.Key) ordered_map.Key {
    return switch (key.*) {
        .bits => |bits| .{ .bits = ordered_map.bitsOf(@as(data.Shape, @bitCast(shape)).key, bits) },
        .text => |it| .{ .text = it },
    };
}

const MapCall = enum { get, set, remove };

inline fn onMap(space: Space, map: f64, bits: u64, key: *const hash_map.Key, comptime call: MapCall) Error!u64 {
    const address = try addressOf(map);
    const shape: data.Shape = @bitCast(bits);
    switch (shape.kind) {
        .hash_map => return callMap(&try hash_map.Map.open(space, address, bits), key, call),
        .ordered_map => {
            const ordered = orderedKey(bits, key);
            if (shape.key == .text) return callMap(&try ordered_map.Texts.open(space, address, bits), &ordered, call);
            return callMap(&try ordered_map.Numbers.open(space, address, bits), &ordered, call);
        },
        else => return noMap(bits),
    }
}

inline fn callMap(map: anytype, key: anytype, comptime call: MapCall) Error!u64 {
    return switch (call) {
        .get => map.get(key),
        .set => map.set(key),
        .remove => @intFromBool(try map.remove(key)),
    };
}

fn mapGet(handle: HeapHandle, map: f64, shape: f64, a: f64, b: f64) Error!u64 {
    const space = try readable(handle);
    const bits = shapeOf(shape);
    const key = try keyOf(space, bits, a, b);
    return onMap(space, map, bits, &key, .get);
}

fn mapSet(handle: HeapHandle, map: f64, shape: f64, a: f64, b: f64) Error!u64 {
    const space = try writable(handle);
    const bits = shapeOf(shape);
    const key = try keyOf(space, bits, a, b);
    const inside = try space.alloc.beginChange();
    defer space.alloc.endChange(inside);
    const address = try addressOf(map);
    const before = if (space.contains(address, 16)) @as(*align(1) const u32, @ptrFromInt(address + 8)).* else 0;
    const value = try onMap(space, map, bits, &key, .set);
    const after = @as(*align(1) const u32, @ptrFromInt(address + 8)).*;
    return value + @intFromBool(after != before);
}

fn mapDelete(handle: HeapHandle, map: f64, shape: f64, a: f64, b: f64) Error!u64 {
    const space = try writable(handle);
    const bits = shapeOf(shape);
    const key = try keyOf(space, bits, a, b);
    const inside = try space.alloc.beginChange();
    defer space.alloc.endChange(inside);
    return onMap(space, map, bits, &key, .remove);
}

fn mapSeek(handle: HeapHandle, map: f64, shape: f64, a: f64, b: f64, how: f64, buffer: Buffer) Error!void {
    const space = try readable(handle);
    const bits = shapeOf(shape);
    const key = try keyOf(space, bits, a, b);
    const bytes = buffer orelse return errors.fail(.INVALID_ARGUMENT, .{}, "The buffer `walk` is empty", .{});
    const walk: *Walk = @ptrCast(@alignCast(bytes));
    const wish = whole(how) orelse 99;
    if (wish >= 20 or wish % 10 > @intFromEnum(ordered_map.Seek.end)) return errors.fail(.INVALID_ARGUMENT, .{}, "Cannot " ++
        "seek by {d}", .{how});
    const seek: ordered_map.Seek = @enumFromInt(wish % 10);
    const address = try addressOf(map);
    const ordered = orderedKey(bits, &key);
    const kind: data.Shape = @bitCast(bits);
    if (kind.kind != .ordered_map) return noMap(bits);
    if (kind.key == .text) return (try ordered_map.Texts.open(space, address, bits)).seek(&ordered, seek, wish >= 10, walk);
    return (try ordered_map.Numbers.open(space, address, bits)).seek(&ordered, seek, wish >= 10, walk);
}

fn noMap(shape: u64) Error {
    @branchHint(.cold);
    return errors.fail(.INVALID_ARGUMENT, .{}, "Cannot use a container of shape {x} as a map", .{shape});
}

/// Calls what all containers have, on the one that the shape names.
inline fn onAny(space: Space, container: f64, shape: f64, context: anytype) Error!@TypeOf(context).Result {
    const address = try addressOf(container);
    const bits = shapeOf(shape);
    switch (@as(data.Shape, @bitCast(bits)).kind) {
        .hash_map => return context.of(&try hash_map.Map.open(space, address, bits)),
        .ordered_map => {
            if (@as(data.Shape, @bitCast(bits)).key == .text) return context.of(&try ordered_map.Texts.open(space, address, bits));
            return context.of(&try ordered_map.Numbers.open(space, address, bits));
        },
        .vec => return context.of(&try vec_room.Vec.open(space, address, bits)),
        .list => return context.of(&try list_room.List.open(space, address, bits)),
        .text => return context.of(&try long_text.Text.open(space, address, bits)),
        else => return errors.fail(.INVALID_ARGUMENT, .{}, "Cannot use a container of shape {x}: there is none", .{bits}),
    }
}

const Whole = enum { clear, destroy };

fn change(handle: HeapHandle, container: f64, shape: f64, what: Whole) Error!void {
    const space = try writable(handle);
    const inside = try space.alloc.beginChange();
    defer space.alloc.endChange(inside);
    const Context = struct {
        what: Whole,
        const Result = void;
        fn of(self: @This(), it: anytype) Error!void {
            return if (self.what == .clear) it.clear() else it.destroy();
        }
    };
    return onAny(space, container, shape, Context{ .what = what });
}

fn swap(handle: HeapHandle, container: f64, shape: f64, other: f64) Error!void {
    const space = try writable(handle);
    const inside = try space.alloc.beginChange();
    defer space.alloc.endChange(inside);
    const Context = struct {
        space: Space,
        other: u64,
        shape: u64,
        const Result = void;
        fn of(self: @This(), it: anytype) Error!void {
            const that = try @TypeOf(it.*).open(self.space, self.other, self.shape);
            const counts = .{ it.header.changes, that.header.changes };
            std.mem.swap(@TypeOf(it.header.*), it.header, that.header);
            // A count goes on where it stands, or a walk and a lookup would take this for what it was.
            if (it.header.shape != 0) it.header.changes = counts[0] +% 1;
            if (that.header.shape != 0) that.header.changes = counts[1] +% 1;
        }
    };
    return onAny(space, container, shape, Context{ .space = space, .other = try addressOf(other), .shape = shapeOf(shape) });
}

fn expectOpen(handle: HeapHandle, container: f64, shape: f64) Error!void {
    const space = try readable(handle);
    const Context = struct {
        const Result = void;
        fn of(_: @This(), _: anytype) Error!void {}
    };
    return onAny(space, container, shape, Context{});
}

fn check(handle: HeapHandle, container: f64, shape: f64) Error!void {
    const space = try readable(handle);
    const Context = struct {
        const Result = void;
        fn of(_: @This(), it: anytype) Error!void {
            return it.check();
        }
    };
    return onAny(space, container, shape, Context{});
}

fn blocks(handle: HeapHandle, container: f64, shape: f64, out: Buffer, capacity: f64) Error!u64 {
    const space = try readable(handle);
    const count = if (out == null) 0 else whole(capacity) orelse 0;
    const Context = struct {
        sink: *data.Blocks,
        const Result = void;
        fn of(self: @This(), it: anytype) Error!void {
            return it.blocks(self.sink);
        }
    };
    var sink: data.Blocks = .{ .out = if (count == 0) &.{} else @as([*]f64, @ptrCast(@alignCast(out.?)))[0..count] };
    try onAny(space, container, shape, Context{ .sink = &sink });
    return sink.count;
}

fn walkOn(handle: HeapHandle, container: f64, shape: f64, buffer: Buffer, count: f64, base: f64, room: f64) Error!u64 {
    const space = try readable(handle);
    const bytes = buffer orelse return errors.fail(.INVALID_ARGUMENT, .{}, "The buffer `walk` is empty", .{});
    const walk: *Walk = @ptrCast(@alignCast(bytes));
    const pairs: [*][2]f64 = @ptrCast(@alignCast(bytes + @sizeOf(Walk)));
    const out = pairs[0..@intCast(@min(whole(count) orelse 0, Walk.batch_max))];
    const Context = struct {
        walk: *Walk,
        out: [][2]f64,
        const Result = u64;
        fn of(self: @This(), it: anytype) Error!u64 {
            if (!@hasDecl(@TypeOf(it.*), "nextOf")) return errors.fail(.INVALID_ARGUMENT, .{}, "Cannot walk this container", .{});
            if (self.walk.changes < 0) try it.beginWalk(self.walk);
            return it.nextOf(self.walk, self.out);
        }
    };
    const found = try onAny(space, container, shape, Context{ .walk = walk, .out = out });
    const offsets: [*]i32 = @ptrCast(@alignCast(pairs + Walk.batch_max));
    const shown = @min(whole(room) orelse 0, std.math.maxInt(i32));
    const size = @as(data.Shape, @bitCast(shapeOf(shape))).value_size;
    const from = whole(base) orelse 0;
    // Unsigned, so that one comparison finds what lies before as well.
    const end = if (shown >= size) shown - size + 1 else 0;
    for (out[0..found], offsets[0..found]) |pair, *offset| {
        const at = @as(u64, @intFromFloat(pair[1])) -% from;
        offset.* = if (at < end) @intCast(at) else Walk.outside;
    }
    offsets[found] = Walk.outside;
    return found;
}

fn columns(handle: HeapHandle, container: f64, shape: f64, buffer: Buffer, fields: Buffer, count: f64, rows: f64, out: Buffer, room: f64, seen: columns_room.Seen) Error!u64 {
    const space = try readable(handle);
    const Context = struct {
        walk: *Walk,
        fields: []columns_room.Field,
        rows: u64,
        out: []u8,
        size: u64,
        seen: columns_room.Seen,
        const Result = u64;
        fn of(self: @This(), it: anytype) Error!u64 {
            if (!@hasDecl(@TypeOf(it.*), "nextOf")) return errors.fail(.INVALID_ARGUMENT, .{}, "Cannot walk this container", .{});
            if (self.walk.changes < 0) try it.beginWalk(self.walk);
            return columns_room.gather(it, self.walk, self.fields, self.rows, self.out, self.size, self.seen);
        }
    };
    return onAny(space, container, shape, Context{
        .walk = @ptrCast(@alignCast(buffer orelse return errors.fail(.INVALID_ARGUMENT, .{}, "The buffer `walk` is empty", .{}))),
        .fields = @as([*]columns_room.Field, @ptrCast(@alignCast(fields orelse
            return errors.fail(.INVALID_ARGUMENT, .{}, "The buffer `fields` is empty", .{}))))[0 .. whole(count) orelse 0],
        .rows = whole(rows) orelse 0,
        .out = (out orelse return errors.fail(.INVALID_ARGUMENT, .{}, "The buffer `out` is empty", .{}))[0 .. whole(room) orelse 0],
        .size = @as(data.Shape, @bitCast(shapeOf(shape))).value_size,
        .seen = seen,
    });
}

const VecChange = union(enum) {
    insert: struct { ?u64, u64 },
    remove: struct { u64, u64 },
    reserve: u64,
    spread: struct { u64, u64 },
    reverse,
    sort: vec_room.Vec.Scalar,
    permute: []const u32,
};

inline fn vecChange(handle: HeapHandle, address: f64, shape: f64, what: VecChange) Error!u64 {
    const space = try writable(handle);
    const inside = try space.alloc.beginChange();
    defer space.alloc.endChange(inside);
    const vec = try vec_room.Vec.open(space, try addressOf(address), try shapeOfKind(shape, .vec));
    switch (what) {
        .insert => |it| return vec.insert(it[0] orelse vec.header.len, it[1]),
        .remove => |it| try vec.remove(it[0], it[1]),
        .reserve => |count| try if (count == 0) vec.shrink() else vec.reserve(count, true),
        .spread => |it| try vec.spread(it[0], it[1]),
        .reverse => try vec.reverse(),
        .sort => |scalar| try vec.sort(scalar),
        .permute => |order| try vec.permute(order),
    }
    return 0;
}

const ListChange = union(enum) { insert: u64, remove: u64, reverse };

fn listChange(handle: HeapHandle, address: f64, shape: f64, what: ListChange) Error!u64 {
    const space = try writable(handle);
    const inside = try space.alloc.beginChange();
    defer space.alloc.endChange(inside);
    const list = try list_room.List.open(space, try addressOf(address), try shapeOfKind(shape, .list));
    switch (what) {
        .insert => |before| return list.insert(before),
        .remove => |value| try list.remove(value),
        .reverse => try list.reverse(),
    }
    return 0;
}

fn listAt(handle: HeapHandle, address: f64, shape: f64, index: f64) Error!u64 {
    const list = try list_room.List.open(try readable(handle), try addressOf(address), try shapeOfKind(shape, .list));
    return list.at(whole(index) orelse return 0);
}

/// Text that was passed in the scratch or stands in the heap.
fn passedText(space: Space, address: f64, len: f64) Error![]const u8 {
    const from = whole(address) orelse 0;
    const bytes = whole(len) orelse 0;
    if (bytes == 0) return "";
    if (!scratch.contains(from, bytes) and !space.contains(from, bytes)) return errors.fail(.BAD_POINTER, .{ .address = from }, "Cannot " ++
        "read {d} bytes of text at 0x{x}: it lies neither in the heap nor in the thread's scratch", .{ bytes, from });
    return @as([*]const u8, @ptrFromInt(from))[0..bytes];
}

fn textSplice(handle: HeapHandle, text: f64, shape: f64, at: f64, removed: f64, address: f64, len: f64) Error!void {
    const space = try writable(handle);
    const inside = try space.alloc.beginChange();
    defer space.alloc.endChange(inside);
    const it = try long_text.Text.open(space, try addressOf(text), try shapeOfKind(shape, .text));
    const bytes = try passedText(space, address, len);
    return it.splice(whole(at) orelse std.math.maxInt(u64), whole(removed) orelse std.math.maxInt(u64), bytes, @bitCast(shapeOf(shape)));
}

fn textConvert(handle: HeapHandle, text: f64, shape: f64, value: f64, what: f64) Error!u64 {
    const it = try long_text.Text.open(try readable(handle), try addressOf(text), try shapeOfKind(shape, .text));
    const wanted = whole(value) orelse std.math.maxInt(u64);
    return if (what == 0) it.byteOf(wanted) else it.unitOf(wanted);
}

fn textFind(handle: HeapHandle, text: f64, shape: f64, from: f64, backward: f64, address: f64, len: f64) Error!u64 {
    const space = try readable(handle);
    const it = try long_text.Text.open(space, try addressOf(text), try shapeOfKind(shape, .text));
    const found = try it.find(whole(from) orelse 0, try passedText(space, address, len), backward != 0) orelse return 0;
    return found + 1;
}

comptime {
    // Where mapSet looks for the count of keys.
    std.debug.assert(@offsetOf(hash_map.Header, "len") == 8 and @offsetOf(ordered_map.Header, "len") == 8);
}
