//! The PERM block: library memory for all that is declared PERM. It belongs to the process, not to
//! a heap: valid before a heap is opened and after it is closed, never moved, never freed.

const std = @import("std");
const os = @import("../os/os.zig");
const errors = @import("../errors.zig");
const fail = errors.fail;

/// Address space for declarations, touched as they are made.
pub const size_max = 1 << 30;
const alignment = 16;

var lock: os.Mutex = .{};
var start: usize = 0;
var used: usize = 0;

/// `size` more bytes, zeroed and 16-aligned; with 0, where the block starts.
pub fn allocate(size: u64) errors.Error!usize {
    lock.lock();
    defer lock.unlock();
    if (start == 0) {
        const pages = os.allocatePages(size_max) catch return fail(.OUT_OF_MEMORY, .{}, "Cannot reserve {d} bytes " ++
            "of address space for the PERM block", .{size_max});
        start = @intFromPtr(pages.ptr);
    }
    if (size == 0) return start;
    if (size > size_max - used) {
        return fail(.OUT_OF_MEMORY, .{}, "Cannot declare {d} more bytes of PERM data: the PERM block holds at most " ++
            "{d}; keep large data in the heap", .{ size, size_max });
    }
    const at = used;
    used = std.mem.alignForward(usize, used + size, alignment);
    return start + at;
}

/// Whether `[address, address + size)` was declared.
pub fn contains(address: usize, size: u64) bool {
    lock.lock();
    defer lock.unlock();
    if (start == 0 or address < start) return false;
    const offset = address - start;
    return offset <= used and size <= used - offset;
}
