//! Where a thread of JavaScript leaves text for a call: process memory at a fixed address a thread, so
//! that text crosses as two numbers, and looking something up dirties no page of a heap.
//!
//! Invariant: the whole region stays mapped, so whatever address in it comes back may be read.

const std = @import("std");
const os = @import("../os/os.zig");
const errors = @import("../errors.zig");

/// Bytes a thread has.
pub const size = 65_536;
const threads_max = 1024;

var region = std.atomic.Value(usize).init(0);
var owners: [threads_max]usize = @splat(0);
var lock: os.Mutex = .{};
var hook: os.ThreadExit = .{};

/// The calling thread's; the same for as long as it lives.
pub fn ofThread() errors.Error!usize {
    lock.lock();
    defer lock.unlock();
    if (region.load(.monotonic) == 0) {
        const pages = os.allocatePages(size * threads_max) catch return errors.fail(.OUT_OF_MEMORY, .{}, "Cannot map " ++
            "{d} bytes for text that passes to the heap", .{size * threads_max});
        hook = .init(threadEnds);
        region.store(@intFromPtr(pages.ptr), .release);
    }
    const thread = os.threadId();
    var free: ?usize = null;
    for (owners, 0..) |owner, i| {
        if (owner == thread) return addressOf(i);
        if (owner == 0 and free == null) free = i;
    }
    const place = free orelse return errors.fail(.OUT_OF_MEMORY, .{}, "Cannot use containers in more than {d} threads " ++
        "at a time", .{threads_max});
    owners[place] = thread;
    hook.arm(@ptrCast(&owners));
    return addressOf(place);
}

fn addressOf(place: usize) usize {
    return region.load(.monotonic) + place * size;
}

/// Whether `[address, address + len)` lies in the region.
pub inline fn contains(address: u64, len: u64) bool {
    const start = region.load(.monotonic);
    const offset = address -% start;
    return start != 0 and offset <= size * threads_max and len <= size * threads_max - offset;
}

fn threadEnds(_: ?*anyopaque) callconv(.c) void {
    lock.lock();
    defer lock.unlock();
    const thread = os.threadId();
    for (&owners) |*owner| {
        if (owner.* == thread) owner.* = 0;
    }
}
