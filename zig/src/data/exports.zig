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

    // ---- all containers
    /// Removes everything, which owns nothing any more, and gives the memory back.
    pub fn ph_clear(handle: HeapHandle, container: f64, shape: f64) callconv(.c) f64 {
        return result(change(handle, container, shape, .clear));
    }

    /// The same, and makes the header zeros, which then is no part of anything.
    pub fn ph_destroy(handle: HeapHandle, container: f64, shape: f64) callconv(.c) f64 {
        return result(change(handle, container, shape, .destroy));
    }

    /// Proves a container's invariants: 0, or CORRUPT.
    pub fn ph_container_check(handle: HeapHandle, container: f64, shape: f64) callconv(.c) f64 {
        return result(check(handle, container, shape));
    }

    /// Address of the container's own block `index` (0: none there), 1 behind the last. Blocks of keys
    /// and values are in its walk.
    pub fn ph_container_block(handle: HeapHandle, container: f64, shape: f64, index: f64) callconv(.c) f64 {
        return result(block(handle, container, shape, index));
    }

    /// Begins or continues a walk: up to `count` elements into `walk`, behind a Walk's fields; two
    /// numbers for each: key (or its address) and address of the value. How many.
    pub fn ph_walk(handle: HeapHandle, container: f64, shape: f64, walk: Buffer, count: f64) callconv(.c) f64 {
        return result(walkOn(handle, container, shape, walk, count));
    }

    // ---- maps
    /// Address of the key's value, 0 when there is none.
    pub fn ph_map_get(handle: HeapHandle, map: f64, shape: f64, a: f64, b: f64) callconv(.c) f64 {
        return result(mapGet(handle, map, shape, a, b));
    }

    /// Address of the key's value; made, of zeros, when there is none.
    pub fn ph_map_set(handle: HeapHandle, map: f64, shape: f64, a: f64, b: f64) callconv(.c) f64 {
        return result(mapSet(handle, map, shape, a, b));
    }

    /// Removes a key, whose value owns nothing any more: 1, or 0 when it is not there.
    pub fn ph_map_delete(handle: HeapHandle, map: f64, shape: f64, a: f64, b: f64) callconv(.c) f64 {
        return result(mapDelete(handle, map, shape, a, b));
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

fn mapGet(handle: HeapHandle, map: f64, shape: f64, a: f64, b: f64) Error!u64 {
    const space = try readable(handle);
    const bits = shapeOf(shape);
    const key = try keyOf(space, bits, a, b);
    switch (@as(data.Shape, @bitCast(bits)).kind) {
        .hash_map => return (try hash_map.Map.open(space, try addressOf(map), bits)).get(&key),
        else => return noMap(bits),
    }
}

fn mapSet(handle: HeapHandle, map: f64, shape: f64, a: f64, b: f64) Error!u64 {
    const space = try writable(handle);
    const bits = shapeOf(shape);
    const key = try keyOf(space, bits, a, b);
    const inside = try space.alloc.beginChange();
    defer space.alloc.endChange(inside);
    switch (@as(data.Shape, @bitCast(bits)).kind) {
        .hash_map => return (try hash_map.Map.open(space, try addressOf(map), bits)).set(&key),
        else => return noMap(bits),
    }
}

fn mapDelete(handle: HeapHandle, map: f64, shape: f64, a: f64, b: f64) Error!u64 {
    const space = try writable(handle);
    const bits = shapeOf(shape);
    const key = try keyOf(space, bits, a, b);
    const inside = try space.alloc.beginChange();
    defer space.alloc.endChange(inside);
    switch (@as(data.Shape, @bitCast(bits)).kind) {
        .hash_map => return @intFromBool(try (try hash_map.Map.open(space, try addressOf(map), bits)).remove(&key)),
        else => return noMap(bits),
    }
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
        .vec => return context.of(&try vec_room.Vec.open(space, address, bits)),
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

fn block(handle: HeapHandle, container: f64, shape: f64, index: f64) Error!u64 {
    const space = try readable(handle);
    const Context = struct {
        index: u32,
        const Result = ?u64;
        fn of(self: @This(), it: anytype) Error!?u64 {
            return it.block(self.index);
        }
    };
    const n: u32 = @intCast(@min(whole(index) orelse 0, std.math.maxInt(u32)));
    return try onAny(space, container, shape, Context{ .index = n }) orelse 1;
}

fn walkOn(handle: HeapHandle, container: f64, shape: f64, buffer: Buffer, count: f64) Error!u64 {
    const space = try readable(handle);
    const bytes = buffer orelse return errors.fail(.INVALID_ARGUMENT, .{}, "The buffer `walk` is empty", .{});
    const walk: *Walk = @ptrCast(@alignCast(bytes));
    const pairs: [*][2]f64 = @ptrCast(@alignCast(bytes + @sizeOf(Walk)));
    const out = pairs[0..@intCast(@min(whole(count) orelse 0, 1 << 20))];
    const address = try addressOf(container);
    const bits = shapeOf(shape);
    switch (@as(data.Shape, @bitCast(bits)).kind) {
        .hash_map => {
            const map = try hash_map.Map.open(space, address, bits);
            if (walk.changes < 0) map.beginWalk(walk);
            return map.nextOf(walk, out);
        },
        else => return errors.fail(.INVALID_ARGUMENT, .{}, "Cannot walk a container of shape {x}", .{bits}),
    }
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
    const vec = try vec_room.Vec.open(space, try addressOf(address), shapeOf(shape));
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
