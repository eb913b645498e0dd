//! Threads (Workers) that use a heap which another thread opened. A view in such a thread cannot be
//! detached from outside, so the heap must not go or move while one is attached.
//!
//! Invariant: an attachment ends with `detach` or with its thread, whichever comes first. A heap that
//! TypeScript opened ends with its thread, too, or with the last one attached to it.

const std = @import("std");
const os = @import("../os/os.zig");
const errors = @import("../errors.zig");
const background = @import("background.zig");
const Heap = @import("heap.zig").Heap;
const fail = errors.fail;

/// `owner`: the thread has opened the heap and is not attached to it.
const Attachment = struct { thread: usize = 0, heap: u64 = 0, count: u32 = 0, owner: bool = false };

const attachments_max = 1024;
var table: [attachments_max]Attachment = @splat(.{});
/// Entries that were ever used; the rest need no look.
var table_used: usize = 0;
var table_lock: os.Mutex = .{};
var hook: os.ThreadExit = .{};
var hook_made = false;

/// Attaches the calling thread to the heap of that handle, once more when it already is.
pub fn add(heap: u64) errors.Error!void {
    return note(heap, false);
}

/// The calling thread has opened the heap. Where there is no room for the note, the heap stays open
/// when the thread ends.
pub fn own(heap: u64) void {
    note(heap, true) catch {};
}

fn note(heap: u64, owner: bool) errors.Error!void {
    table_lock.lock();
    defer table_lock.unlock();
    if (!hook_made) {
        hook = .init(threadEnds);
        hook_made = true;
    }
    const thread = os.threadId();
    var free: ?*Attachment = null;
    for (table[0..table_used]) |*entry| {
        if (entry.count == 0) {
            if (free == null) free = entry;
        } else if (entry.thread == thread and entry.heap == heap and entry.owner == owner) {
            entry.count += 1;
            return;
        }
    }
    if (free == null and table_used < attachments_max) {
        free = &table[table_used];
        table_used += 1;
    }
    const entry = free orelse return fail(.OUT_OF_MEMORY, .{}, "Cannot attach to the heap: {d} attachments are " ++
        "the most a process can have; close some", .{attachments_max});
    entry.* = .{ .thread = thread, .heap = heap, .count = 1, .owner = owner };
    hook.arm(@ptrCast(&table));
}

/// Ends one attachment of the calling thread; nothing happens when it has none.
pub fn remove(heap: u64) void {
    table_lock.lock();
    defer table_lock.unlock();
    const thread = os.threadId();
    for (table[0..table_used]) |*entry| {
        if (entry.count > 0 and entry.thread == thread and entry.heap == heap and !entry.owner) entry.count -= 1;
    }
}

/// Whether that thread is attached to the heap.
pub fn has(heap: u64, thread: usize) bool {
    table_lock.lock();
    defer table_lock.unlock();
    for (table[0..table_used]) |*entry| {
        if (entry.count > 0 and entry.heap == heap and entry.thread == thread and !entry.owner) return true;
    }
    return false;
}

/// Threads attached to the heap, the calling one left out.
pub fn others(heap: u64) u32 {
    table_lock.lock();
    defer table_lock.unlock();
    const thread = os.threadId();
    var count: u32 = 0;
    for (table[0..table_used]) |entry| {
        if (entry.count > 0 and entry.heap == heap and entry.thread != thread and !entry.owner) count += 1;
    }
    return count;
}

/// Whether no thread is attached to the heap.
pub fn isFree(heap: u64) bool {
    table_lock.lock();
    defer table_lock.unlock();
    for (table[0..table_used]) |entry| {
        if (entry.count > 0 and entry.heap == heap and !entry.owner) return false;
    }
    return true;
}

/// Forgets every attachment of a heap that is closed.
pub fn removeAll(heap: u64) void {
    table_lock.lock();
    defer table_lock.unlock();
    for (table[0..table_used]) |*entry| {
        if (entry.heap == heap) entry.* = .{};
    }
}

fn threadEnds(_: ?*anyopaque) callconv(.c) void {
    const thread = os.threadId();
    background.forgetThread(thread);
    while (true) {
        const gone = takeOne(thread) orelse return;
        Heap.threadEnded(gone.heap, gone.owner);
    }
}

fn takeOne(thread: usize) ?Attachment {
    table_lock.lock();
    defer table_lock.unlock();
    for (table[0..table_used]) |*entry| {
        if (entry.count == 0 or entry.thread != thread) continue;
        defer entry.* = .{};
        return entry.*;
    }
    return null;
}
