//! Whole pages for the engine's own lists.
//!
//! Invariant: giving back never fails. A process that has all the maps it may have cannot give back a
//! part of one, and the kernel makes neighbours one map: the standard library's allocator of pages
//! traps there. Here what cannot be unmapped stays reserved and loses its memory.

const std = @import("std");
const os = @import("os.zig");

const linux = std.os.linux;
const Alignment = std.mem.Alignment;

pub const page_allocator: std.mem.Allocator = .{ .ptr = undefined, .vtable = &.{
    .alloc = alloc,
    .resize = resize,
    .remap = remap,
    .free = free,
} };

fn whole(len: usize) usize {
    return std.mem.alignForward(usize, len, os.page_size);
}

fn giveBack(address: usize, len: usize) void {
    if (len == 0 or os.failed(linux.munmap(@ptrFromInt(address), len)) == null) return;
    _ = linux.madvise(@ptrFromInt(address), len, linux.MADV.DONTNEED);
}

fn alloc(_: *anyopaque, len: usize, alignment: Alignment, _: usize) ?[*]u8 {
    if (len > std.math.maxInt(isize) - 2 * os.page_size) return null;
    const more = alignment.toByteUnits() -| os.page_size;
    const asked = std.math.add(usize, whole(len), more) catch return null;
    const address = linux.mmap(null, asked, .{ .READ = true, .WRITE = true }, .{ .TYPE = .PRIVATE, .ANONYMOUS = true }, -1, 0);
    if (os.failed(address) != null) return null;
    const at = alignment.forward(address);
    giveBack(address, at - address);
    giveBack(at + whole(len), address + asked - (at + whole(len)));
    return @ptrFromInt(at);
}

fn resize(_: *anyopaque, memory: []u8, _: Alignment, len: usize, _: usize) bool {
    const old = whole(memory.len);
    const new = whole(len);
    if (new > old) return os.failed(linux.mremap(memory.ptr, old, new, .{}, null)) == null;
    giveBack(@intFromPtr(memory.ptr) + new, old - new);
    return true;
}

fn remap(context: *anyopaque, memory: []u8, alignment: Alignment, len: usize, from: usize) ?[*]u8 {
    if (whole(len) <= whole(memory.len)) return if (resize(context, memory, alignment, len, from)) memory.ptr else null;
    if (alignment.toByteUnits() > os.page_size or len > std.math.maxInt(isize) - os.page_size) return null;
    const address = linux.mremap(memory.ptr, whole(memory.len), whole(len), .{ .MAYMOVE = true }, null);
    return if (os.failed(address) == null) @ptrFromInt(address) else null;
}

fn free(_: *anyopaque, memory: []u8, _: Alignment, _: usize) void {
    giveBack(@intFromPtr(memory.ptr), whole(memory.len));
}

test "lists grow, shrink and go through pages of any alignment" {
    var list: std.ArrayList(u64) = .empty;
    for (0..100_000) |value| try list.append(page_allocator, value);
    for (list.items, 0..) |value, index| try std.testing.expectEqual(index, value);
    list.shrinkAndFree(page_allocator, 700);
    for (list.items, 0..) |value, index| try std.testing.expectEqual(index, value);
    list.deinit(page_allocator);
    const wide = try page_allocator.alignedAlloc(u8, .fromByteUnits(1 << 16), 5000);
    defer page_allocator.free(wide);
    try std.testing.expect(std.mem.isAligned(@intFromPtr(wide.ptr), 1 << 16));
    @memset(wide, 1);
    try std.testing.expectError(error.OutOfMemory, page_allocator.alloc(u8, std.math.maxInt(usize) - 4096));
}

test "a process without a map left gives back a part of one" {
    const child = linux.fork();
    if (child == 0) {
        const memory = page_allocator.alloc(u8, 3 * os.page_size) catch linux.exit(2);
        // Pages that may be read between pages that may not: a map each.
        const len = 400_000 * os.page_size;
        const at = linux.mmap(null, len, .{}, .{ .TYPE = .PRIVATE, .ANONYMOUS = true, .NORESERVE = true }, -1, 0);
        if (os.failed(at) != null) linux.exit(3);
        var offset: usize = 0;
        while (os.failed(linux.mprotect(@ptrFromInt(at + offset), os.page_size, .{ .READ = true })) == null) {
            offset += 2 * os.page_size;
            // A kernel with room for so many: nothing can be shown.
            if (offset >= len) linux.exit(77);
        }
        const middle: []u8 = memory[os.page_size .. 2 * os.page_size];
        page_allocator.free(middle);
        linux.exit(0);
    }
    var status: u32 = 0;
    _ = linux.waitpid(@intCast(child), &status, 0);
    if (status == 77 << 8) return error.SkipZigTest;
    try std.testing.expectEqual(0, status);
}
