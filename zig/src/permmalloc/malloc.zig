//! The malloc family as C and POSIX have it, over the pool or over the system's malloc.
//!
//! Invariants: a failure sets errno and changes nothing else; success and `free` leave errno alone. A
//! pointer that is no block of the pool is never followed: it goes to the system's malloc if that may
//! have given it out, else the program ends with one line, as it does for a block freed twice.

const std = @import("std");
const host = @import("../os/host.zig");
const errors = @import("../errors.zig");
const process = @import("process.zig");
const log = @import("log.zig");

const Error = errors.Error;
const page_size = 4096;
/// No object is larger, so that differences of pointers can be told.
const size_limit = std.math.maxInt(isize);

pub const functions = struct {
    pub fn malloc(size: usize) callconv(.c) ?*anyopaque {
        if (process.usesPool()) {
            const address = process.pool.allocator.malloc(size) catch |err| return failed(err);
            return @ptrFromInt(address);
        }
        return if (process.chosen() == .system) process.system.malloc(size) else process.earlyBlock(size);
    }

    pub fn free(block: ?*anyopaque) callconv(.c) void {
        const address = @intFromPtr(block);
        if (isInPool(address)) {
            process.pool.allocator.free(address) catch |err| stop("free", address, err);
            return;
        }
        if (address != 0) freeForeign("free", address);
    }

    pub fn calloc(count: usize, size: usize) callconv(.c) ?*anyopaque {
        if (process.usesPool()) {
            const address = process.pool.allocator.calloc(count, size) catch |err| return failed(err);
            return @ptrFromInt(address);
        }
        if (process.chosen() == .system) return process.system.calloc(count, size);
        return process.earlyBlock(std.math.mul(usize, count, size) catch return null);
    }

    pub fn realloc(block: ?*anyopaque, size: usize) callconv(.c) ?*anyopaque {
        const address = @intFromPtr(block);
        if (address == 0) return malloc(size);
        if (!isInPool(address)) return reallocForeign(address, size);
        if (size == 0) {
            free(block);
            return null;
        }
        const moved = process.pool.allocator.realloc(address, size) catch |err| return switch (err) {
            error.OUT_OF_MEMORY => failed(err),
            else => stop("realloc", address, err),
        };
        return @ptrFromInt(moved);
    }

    pub fn reallocarray(block: ?*anyopaque, count: usize, size: usize) callconv(.c) ?*anyopaque {
        const product = std.math.mul(usize, count, size) catch return failed(error.OUT_OF_MEMORY);
        return realloc(block, product);
    }

    pub fn posix_memalign(out: *?*anyopaque, alignment: usize, size: usize) callconv(.c) c_int {
        const E = std.os.linux.E;
        if (!isPowerOfTwo(alignment) or alignment % @sizeOf(usize) != 0) return @intFromEnum(E.INVAL);
        const address = allocateAligned(alignment, size) catch return @intFromEnum(E.NOMEM);
        out.* = @ptrFromInt(address);
        return 0;
    }

    pub fn aligned_alloc(alignment: usize, size: usize) callconv(.c) ?*anyopaque {
        if (!isPowerOfTwo(alignment)) return failed(error.INVALID_ARGUMENT);
        const address = allocateAligned(alignment, size) catch |err| return failed(err);
        return @ptrFromInt(address);
    }

    /// Takes any alignment and rounds it up to a power of two, as glibc does.
    pub fn memalign(alignment: usize, size: usize) callconv(.c) ?*anyopaque {
        const rounded = std.math.ceilPowerOfTwo(usize, @max(alignment, 1)) catch return failed(error.INVALID_ARGUMENT);
        return aligned_alloc(rounded, size);
    }

    pub fn valloc(size: usize) callconv(.c) ?*anyopaque {
        return aligned_alloc(page_size, size);
    }

    pub fn pvalloc(size: usize) callconv(.c) ?*anyopaque {
        if (size > size_limit - page_size) return failed(error.OUT_OF_MEMORY);
        return aligned_alloc(page_size, std.mem.alignForward(usize, size, page_size));
    }

    pub fn malloc_usable_size(block: ?*anyopaque) callconv(.c) usize {
        const address = @intFromPtr(block);
        if (address == 0) return 0;
        if (isInPool(address))
            return process.pool.allocator.usableSize(address) catch |err| stop("malloc_usable_size", address, err);
        if (process.earlySize(address)) |size| return size;
        if (mayBeSystems()) return process.system.usableSize(block);
        foreign("malloc_usable_size", address);
    }

    pub fn cfree(block: ?*anyopaque) callconv(.c) void {
        free(block);
    }

    pub fn free_sized(block: ?*anyopaque, _: usize) callconv(.c) void {
        free(block);
    }

    pub fn free_aligned_sized(block: ?*anyopaque, _: usize, _: usize) callconv(.c) void {
        free(block);
    }
};

inline fn isInPool(address: usize) bool {
    return address -% process.pool.data < process.pool.ready;
}

fn isPowerOfTwo(number: usize) bool {
    return number != 0 and number & (number - 1) == 0;
}

fn allocateAligned(alignment: usize, size: usize) Error!usize {
    if (size > size_limit) return error.OUT_OF_MEMORY;
    if (process.usesPool()) return process.pool.allocator.alignedAlloc(alignment, size);
    if (process.chosen() != .system) {
        const block = process.earlyBlock(size +| alignment) orelse return error.OUT_OF_MEMORY;
        return std.mem.alignForward(usize, @intFromPtr(block), alignment);
    }
    const memalign = process.system.memalign orelse return error.OUT_OF_MEMORY;
    const block = memalign(alignment, size) orelse return error.OUT_OF_MEMORY;
    return @intFromPtr(block);
}

noinline fn failed(err: Error) ?*anyopaque {
    @branchHint(.cold);
    switch (err) {
        error.OUT_OF_MEMORY => host.setErrno(.NOMEM),
        error.INVALID_ARGUMENT => host.setErrno(.INVAL),
        else => stop("malloc", 0, err),
    }
    return null;
}

// ------------------------------------------------------------------ what is not the pool's

/// Whether the system's malloc may have given out a block that is not the pool's: the program runs on
/// it, or used it before this library came.
fn mayBeSystems() bool {
    return process.chosen() == .system or host.systemHasBlocks();
}

noinline fn freeForeign(comptime function: []const u8, address: usize) void {
    @branchHint(.cold);
    if (process.earlySize(address) != null) return;
    if (!mayBeSystems()) foreign(function, address);
    process.system.free(@ptrFromInt(address));
}

noinline fn reallocForeign(address: usize, size: usize) ?*anyopaque {
    @branchHint(.cold);
    if (process.earlySize(address)) |old| {
        if (size == 0) return null;
        const block = functions.malloc(size) orelse return null;
        const kept = @min(old, size);
        @memcpy(@as([*]u8, @ptrCast(block))[0..kept], @as([*]const u8, @ptrFromInt(address))[0..kept]);
        return block;
    }
    if (!mayBeSystems()) foreign("realloc", address);
    return process.system.realloc(@ptrFromInt(address), size);
}

fn foreign(comptime function: []const u8, address: usize) noreturn {
    log.complain(function ++ "(): 0x{x} is no block that malloc gave out; stopping", .{address});
    host.abort();
}

/// Ends the program: what the allocator found leaves no way to go on.
noinline fn stop(comptime function: []const u8, address: usize, err: Error) noreturn {
    @branchHint(.cold);
    switch (err) {
        error.DOUBLE_FREE => log.complain(function ++ "(): 0x{x} is free already; stopping", .{address}),
        error.BAD_POINTER => log.complain(function ++ "(): 0x{x} is not the beginning of a block; stopping", .{address}),
        else => log.complain(function ++ "(): the allocator's tables are damaged: something wrote where it should not; stopping", .{}),
    }
    host.abort();
}
