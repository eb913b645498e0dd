//! The malloc family of C on a heap: what C and POSIX say of sizes, alignments and errno.

const std = @import("std");
const os = @import("../os/os.zig");
const errors = @import("../errors.zig");
const Heap = @import("../heap/heap.zig").Heap;

const Error = errors.Error;
const fail = errors.fail;
pub const Pointer = ?*anyopaque;

pub inline fn give(address: usize) Pointer {
    return @ptrFromInt(address);
}

/// No memory: null and ENOMEM, or EINVAL for an alignment that is none.
pub fn refused(err: Error) Pointer {
    @branchHint(.cold);
    os.setErrno(@intFromEnum(if (err == error.INVALID_ARGUMENT) os.E.INVAL else os.E.NOMEM));
    return null;
}

pub inline fn malloc(heap: *Heap, size: usize) Pointer {
    return give(heap.alloc.malloc(size) catch |err| return refused(err));
}

pub fn calloc(heap: *Heap, count: usize, size: usize) Pointer {
    return give(heap.alloc.calloc(count, size) catch |err| return refused(err));
}

/// As the C libraries that PERM's programs know: a size of 0 frees the block.
pub fn realloc(heap: *Heap, ptr: Pointer, size: usize) Pointer {
    if (size == 0 and ptr != null) {
        heap.alloc.free(@intFromPtr(ptr)) catch {};
        return null;
    }
    return give(heap.alloc.realloc(@intFromPtr(ptr), size) catch |err| return refused(err));
}

pub fn aligned(heap: *Heap, alignment: usize, size: usize) Pointer {
    return give(heap.alloc.alignedAlloc(alignment, size) catch |err| return refused(err));
}

/// count * size, or null with ENOMEM when no memory is that large.
pub fn product(count: usize, size: usize) ?usize {
    return std.math.mul(usize, count, size) catch {
        _ = refused(fail(.OUT_OF_MEMORY, .{}, "Cannot allocate {d} times {d} bytes: more than any heap holds", .{ count, size }));
        return null;
    };
}
