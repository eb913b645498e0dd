//! Finding the block that an address is of, with proof: what every call but the fastest `free` begins
//! with.
//!
//! Invariant: nothing found in the heap's tables is followed unchecked, and an address that no block
//! begins at is refused, whatever number it is.

const std = @import("std");
const layout = @import("layout.zig");
const classes = @import("classes.zig");
const tables = @import("tables.zig");
const spans = @import("spans.zig");
const errors = @import("../errors.zig");
const Allocator = @import("alloc.zig").Allocator;

const Error = errors.Error;
const fail = errors.fail;
const kind = layout.kind;
const corrupt = tables.corrupt;

pub const Small = struct { slice: u32, class: u32, index: u32 };
pub const Block = union(enum) {
    small: Small,
    large: struct { first: u32, slices: u32 },
};

/// The allocated block that begins exactly at `address`. Inside.
pub fn locate(a: *Allocator, address: usize, comptime action: []const u8) Error!Block {
    const t = &a.tables;
    const offset = address -% t.data;
    if (address < t.data or offset >> layout.slice_shift >= t.high)
        return badPointer(address, action, "lies outside the heap's data");
    const slice: u32 = @intCast(offset >> layout.slice_shift);
    if (try spans.headOf(a, slice)) |head| {
        const line = t.line(head);
        const within = offset - (@as(u64, head) << layout.slice_shift);
        const blocks = classes.table[line.class].blocks;
        const index = classes.indexOf(classes.reciprocals[line.class], within) orelse blocks;
        if (index >= blocks) return badPointer(address, action, "is not the beginning of a block");
        const word = @atomicLoad(u64, &line.words[index / 64], .monotonic);
        if (word & @as(u64, 1) << @truncate(index) == 0) return doubleFree(address);
        return .{ .small = .{ .slice = head, .class = line.class, .index = @intCast(index) } };
    }
    const line = t.line(slice);
    if (line.kind == kind.large) {
        if (line.slices == 0 or line.slices > t.high - slice)
            return corrupt(address, "a large block's length is wrong");
        if (t.addressOf(slice) != address)
            return badPointer(address, action, "is not the beginning of a block");
        return .{ .large = .{ .first = slice, .slices = line.slices } };
    }
    return notAllocated(a, slice, address, action);
}

/// Says why there is no block at `address`: it is inside of one, or in memory that is free.
fn notAllocated(a: *Allocator, slice: u32, address: usize, comptime action: []const u8) Error {
    @branchHint(.cold);
    a.lock.lock();
    defer a.lock.unlock();
    var head = slice;
    while (true) : (head -= 1) {
        const line = a.tables.line(head);
        if (line.kind == kind.free and address % 16 == 0 and line.slices > slice - head)
            return doubleFree(address);
        if (line.kind != kind.none and line.kind != kind.free_end or head == 0) break;
    }
    return badPointer(address, action, "is not the beginning of a block");
}

fn badPointer(address: usize, comptime action: []const u8, comptime why: []const u8) Error {
    @branchHint(.cold);
    return fail(.BAD_POINTER, .{ .address = address }, "Cannot " ++ action ++ " 0x{x}: it " ++ why, .{address});
}

pub fn doubleFree(address: usize) Error {
    @branchHint(.cold);
    return fail(.DOUBLE_FREE, .{ .address = address }, "Cannot use block 0x{x}: it is free already", .{address});
}
