//! Files that a heap is mapped from for good: what was stored to them, and whether anything was.
//!
//! Invariant: nothing here changes what stands in a file.

const std = @import("std");
const os = @import("os.zig");
const disk = @import("disk.zig");
const linux = std.os.linux;

pub const File = disk.File;

/// Pages of the file that were stored to and not written to the medium yet; null where the kernel
/// does not tell (before Linux 6.5, and for files in memory).
pub fn dirtyPages(file: File, offset: u64, len: u64) ?u64 {
    if (disk.holesCost(null, file) > 0) return null;
    const cachestat = 451;
    const range: extern struct { offset: u64, len: u64 } = .{ .offset = offset, .len = len };
    var counts: extern struct { cached: u64 = 0, dirty: u64 = 0, writing: u64 = 0, evicted: u64 = 0, lately: u64 = 0 } = .{};
    const result = linux.syscall4(@enumFromInt(cachestat), @as(usize, @bitCast(@as(isize, file))), @intFromPtr(&range), @intFromPtr(&counts), 0);
    if (os.failed(result) != null) return null;
    return counts.dirty + counts.writing;
}

/// Stores to every page of a shared map what stands there.
pub fn touch(address: usize, len: usize) void {
    // Of a zero that the compiler knows it makes a load, and of a load that nobody looks at nothing.
    const zero = asm volatile (""
        : [_] "=r" (-> u8),
        : [_] "0" (@as(u8, 0)),
    );
    var at = address;
    while (at < address + len) : (at += os.page_size) {
        _ = @atomicRmw(u8, @as(*u8, @ptrFromInt(at)), .Or, zero, .monotonic);
    }
}

/// Whether all of `[offset, offset + len)` has room already. Asking for it again may be refused by a
/// file system that is full (XFS). False where the file system does not tell.
pub fn hasRoom(file: File, offset: u64, len: u64) bool {
    const Extent = extern struct { logical: u64, physical: u64, length: u64, reserved: [2]u64, flags: u32, reserved_2: [3]u32 };
    const Map = extern struct { start: u64, length: u64, flags: u32, mapped: u32, count: u32, reserved: u32, extents: [256]Extent };
    const fiemap = 0xc020_660b;
    var at = offset;
    while (at < offset + len) {
        var map: Map = undefined;
        map.start = at;
        map.length = offset + len - at;
        map.flags = 0;
        map.mapped = 0;
        map.count = map.extents.len;
        map.reserved = 0;
        if (os.failed(linux.ioctl(file, fiemap, @intFromPtr(&map))) != null or map.mapped == 0) return false;
        for (map.extents[0..@min(map.mapped, map.extents.len)]) |extent| {
            if (extent.logical > at) return false;
            at = @max(at, extent.logical +| extent.length);
        }
    }
    return true;
}

/// Gives the file blocks of its own where it has them together with a copy (XFS): a store would need
/// room for them.
pub fn unshare(file: File, len: u64) void {
    const unshare_range = 0x40;
    _ = linux.fallocate(file, unshare_range, 0, @intCast(len));
}
