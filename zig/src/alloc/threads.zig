//! Threads: which cache is whose, and how a commit holds all of them still.
//!
//! A thread says that it is inside by a flag in its cache, then looks at `stop`; who holds the
//! allocator sets `stop`, makes every running thread pass a memory barrier (membarrier, so that the
//! flag costs the others no fence), and waits until nobody is inside. Where membarrier is missing
//! `stop` is never zero and everything takes the slow path, which has the fence.
//!
//! What lies above the allocator and must be whole in a commit too (containers) changes between
//! `beginChange` and `endChange`, and allocates in there: such a thread gets inside even while
//! another waits to hold the allocator, which then waits for the end of the change.
//!
//! Invariant: heap metadata changes only between `enter` and `leave`. A cache belongs to the living
//! thread whose id its entry holds; a thread that got a dead one's id got its cache with it. Caches
//! are emptied, never freed, while the allocator lives, so a late look at one is harmless.

const std = @import("std");
const os = @import("../os/os.zig");
const errors = @import("../errors.zig");
const caches = @import("cache.zig");
const away = @import("away.zig");
const spans = @import("spans.zig");
const Allocator = @import("alloc.zig").Allocator;

const Error = errors.Error;
const Cache = caches.Cache;
const assert = std.debug.assert;

/// Threads with a cache of their own; those beyond share slot 0.
pub const slots_max = 512;
pub const entries_count = 2 * slots_max;

pub const Entry = struct {
    /// 0: never used; 1: its thread is gone.
    thread: std.atomic.Value(usize) = .init(0),
    cache: *Cache = undefined,

    const gone = 1;
};

/// No number equals it.
pub const no_key = std.math.nan(f64);

/// What every call reads and hardly anybody writes, in a cache line of its own: what changes with
/// each span must not take it away from the other threads.
pub const Gate = extern struct {
    /// Thread and cache of the first one that came, which usually is the only one.
    thread: std.atomic.Value(usize) align(64) = .init(0),
    cache: *Cache = undefined,
    stop: std.atomic.Value(u32) = .init(0),
    /// The heap's handle as it crosses the ABI, where calls may take the short way (abi.zig).
    key: f64 align(8) = no_key,
    padding: [32]u8 = undefined,

    comptime {
        assert(@sizeOf(Gate) == 64);
    }
};

pub const Stop = struct {
    pub const held: u32 = 1;
    /// Set for good where there is no membarrier.
    pub const fence: u32 = 2;
};

inline fn entryIndex(thread: usize) usize {
    return (thread *% 0x9e37_79b9_7f4a_7c15) >> comptime (64 - @as(u7, std.math.log2_int(usize, entries_count)));
}

/// The calling thread's cache, which is then inside; null when the long way is needed.
pub inline fn enter(a: *Allocator) ?*Cache {
    const thread = os.threadId();
    // Plain loads, which the compiler folds into comparisons: each is of one word, and the barriers
    // make it read anew.
    compilerBarrier();
    const cache = if (a.gate.thread.raw == thread) kept(a.gate.cache) else blk: {
        @branchHint(.unlikely);
        const entry = &a.entries[entryIndex(thread)];
        if (entry.thread.raw != thread) return null;
        break :blk entry.cache;
    };
    cache.inside.store(1, .monotonic);
    compilerBarrier();
    if (a.gate.stop.raw != 0) {
        @branchHint(.unlikely);
        cache.inside.store(0, .release);
        return null;
    }
    return cache;
}

pub inline fn leave(cache: *Cache) void {
    cache.inside.store(0, .release);
}

/// The calling thread's cache, inside or not; null when it takes longer to find.
pub inline fn mine(a: *const Allocator) ?*Cache {
    const thread = os.threadId();
    const entry = &a.entries[entryIndex(thread)];
    return if (entry.thread.load(.monotonic) == thread) entry.cache else null;
}

/// `enter` the long way: finds or makes the cache, waits while the allocator is held by another.
pub fn enterSlow(a: *Allocator) Error!*Cache {
    return enter(a) orelse enterWaiting(a);
}

noinline fn enterWaiting(a: *Allocator) Error!*Cache {
    const thread = os.threadId();
    while (true) {
        const cache = find(a, thread) orelse try register(a, thread);
        if (cache.shared) a.shared_lock.lock();
        _ = cache.inside.swap(1, .seq_cst);
        const stop = a.gate.stop.load(.seq_cst);
        if (stop & Stop.held == 0 or a.holder.load(.monotonic) == thread) return cache;
        // The holder looks for changes first: it has not passed this cache while there is one.
        if (cache.changing.load(.seq_cst) != 0) return cache;
        leaveSlow(a, cache);
        os.futexWait(&a.gate.stop, stop);
    }
}

/// Keeps whoever wants to hold the allocator waiting until `endChange`; does not nest.
pub inline fn beginChange(a: *Allocator) Error!*Cache {
    const thread = os.threadId();
    const entry = &a.entries[entryIndex(thread)];
    if (entry.thread.load(.monotonic) == thread) {
        const cache = entry.cache;
        cache.changing.store(1, .monotonic);
        compilerBarrier();
        if (a.gate.stop.load(.monotonic) == 0) return cache;
        cache.changing.store(0, .release);
    }
    return beginChangeSlow(a);
}

noinline fn beginChangeSlow(a: *Allocator) Error!*Cache {
    const thread = os.threadId();
    while (true) {
        const cache = find(a, thread) orelse try register(a, thread);
        _ = cache.changing.fetchAdd(1, .seq_cst);
        const stop = a.gate.stop.load(.seq_cst);
        if (stop & Stop.held == 0 or a.holder.load(.monotonic) == thread) return cache;
        endChange(cache);
        os.futexWait(&a.gate.stop, stop);
    }
}

pub inline fn endChange(cache: *Cache) void {
    if (cache.shared) {
        _ = cache.changing.fetchSub(1, .seq_cst);
    } else {
        cache.changing.store(0, .release);
    }
}

pub fn callerIsInside(a: *Allocator) bool {
    const cache = find(a, os.threadId()) orelse return false;
    return cache.inside.load(.monotonic) != 0;
}

pub fn leaveSlow(a: *Allocator, cache: *Cache) void {
    cache.inside.store(0, .release);
    if (cache.shared) a.shared_lock.unlock();
}

/// Keeps the compiler from loading `cache` after both ways have met.
inline fn kept(cache: *Cache) *Cache {
    return asm volatile (""
        : [out] "=r" (-> *Cache),
        : [in] "0" (cache),
    );
}

inline fn compilerBarrier() void {
    asm volatile ("" ::: .{ .memory = true });
}

fn find(a: *Allocator, thread: usize) ?*Cache {
    const start = entryIndex(thread);
    for (0..entries_count) |i| {
        const entry = &a.entries[(start + i) % entries_count];
        const owner = entry.thread.load(.acquire);
        if (owner == thread) return entry.cache;
        if (owner == 0) return null;
    }
    return null;
}

fn register(a: *Allocator, thread: usize) Error!*Cache {
    {
        a.registry_lock.lock();
        defer a.registry_lock.unlock();
        const cache = try claimSlot(a) orelse return a.caches[0].?;
        cache.thread = thread;
        const start = entryIndex(thread);
        for (0..entries_count) |i| {
            const entry = &a.entries[(start + i) % entries_count];
            if (entry.thread.load(.monotonic) > Entry.gone) continue;
            entry.cache = cache;
            entry.thread.store(thread, .release);
            break;
        } else unreachable; // There are twice as many entries as slots.
        if (a.gate.thread.load(.monotonic) <= Entry.gone) {
            a.gate.cache = cache;
            a.gate.thread.store(thread, .release);
        }
    }
    armExit(thread);
    return find(a, thread).?;
}

/// A slot for a new thread, alive from now on; null when all are taken. Registry lock held.
fn claimSlot(a: *Allocator) Error!?*Cache {
    const count = a.cache_count.load(.monotonic);
    for (1..count) |slot| {
        if (a.alive[slot].load(.monotonic)) continue;
        // Who is just adopting what the last thread here left goes first.
        a.lock.lock();
        defer a.lock.unlock();
        a.alive[slot].store(true, .seq_cst);
        return a.caches[slot].?;
    }
    if (count == slots_max) return null;
    const cache = try makeCache(a, @intCast(count));
    a.caches[count] = cache;
    a.alive[count].store(true, .seq_cst);
    a.cache_count.store(count + 1, .release);
    return cache;
}

const cache_bytes = std.mem.alignForward(usize, @sizeOf(Cache), os.page_size);

fn makeCache(a: *Allocator, slot: u16) Error!*Cache {
    const pages = os.allocatePages(cache_bytes + @alignOf(Cache)) catch
        return errors.fail(.OUT_OF_MEMORY, .{}, "Cannot make a thread's cache of {d} bytes", .{cache_bytes});
    const address = std.mem.alignForward(usize, @intFromPtr(pages.ptr), @alignOf(Cache));
    const before = address - @intFromPtr(pages.ptr);
    if (before > 0) os.unmap(@intFromPtr(pages.ptr), before);
    os.unmap(address + cache_bytes, @alignOf(Cache) - before);
    const cache: *Cache = @ptrFromInt(address);
    cache.slot = slot;
    _ = os.advise(@intFromPtr(&cache.near), @sizeOf(@TypeOf(cache.near)), std.os.linux.MADV.NOHUGEPAGE);
    cache.reset(a.ownerNumber(slot), &a.tables);
    return cache;
}

/// Prepares a new allocator for threads: the shared cache is slot 0 and always alive.
pub fn begin(a: *Allocator, use_membarrier: bool) Error!void {
    assert(a.cache_count.load(.monotonic) == 0);
    const cache = try makeCache(a, 0);
    cache.shared = true;
    a.caches[0] = cache;
    a.alive[0].store(true, .seq_cst);
    a.cache_count.store(1, .release);
    if (!use_membarrier or !os.hasMembarrier()) a.gate.stop.store(Stop.fence, .seq_cst);
    enroll(a);
}

/// The last call: no other thread may be, or come, in the allocator.
pub fn finish(a: *Allocator) void {
    dismiss(a);
    for (a.caches[0..a.cache_count.load(.monotonic)]) |cache| {
        os.unmap(@intFromPtr(cache.?), cache_bytes);
    }
    a.cache_count.store(0, .monotonic);
}

/// Empties every cache: what they knew is void. Held.
pub fn resetCaches(a: *Allocator) void {
    for (a.caches[0..a.cache_count.load(.monotonic)], 0..) |cache, slot| {
        cache.?.reset(a.ownerNumber(@intCast(slot)), &a.tables);
        cache.?.unnoteAll();
    }
    away.forget(a);
}

// ------------------------------------------------------------------ holding all threads still

/// Keeps all other threads out until `release`; the calling thread may go on allocating. Nests. What
/// threads have freed of each other's blocks is in the heap then.
pub fn hold(a: *Allocator) void {
    holdAsItIs(a);
    if (a.hold_depth == 1) away.fold(a);
}

/// The same where the heap is another one than that in which blocks are away.
pub fn holdAsItIs(a: *Allocator) void {
    const thread = os.threadId();
    if (a.holder.load(.monotonic) == thread) {
        a.hold_depth += 1;
        return;
    }
    a.hold_lock.lock();
    a.holder.store(thread, .monotonic);
    a.hold_depth = 1;
    const stop = a.gate.stop.fetchOr(Stop.held, .seq_cst);
    // Who registers after this sees `stop`. The lock is not kept: a thread that is changing
    // something may need it to get inside the shared cache.
    a.registry_lock.lock();
    const count = a.cache_count.load(.acquire);
    a.registry_lock.unlock();
    const alone = count == 2 and a.caches[1].?.thread == thread;
    if (!alone and stop & Stop.fence == 0) os.membarrier();
    for (a.caches[0..count]) |cache| {
        var spins: u32 = 0;
        while (cache.?.changing.load(.seq_cst) != 0 or cache.?.inside.load(.seq_cst) != 0) : (spins += 1) {
            if (spins < 100) std.atomic.spinLoopHint() else os.yieldThread();
        }
    }
}

/// Whether the calling thread may hold all others just to bring home what is away: it is in no change
/// itself.
pub fn mayHold(a: *Allocator) bool {
    if (!a.sends.load(.monotonic)) return false;
    const cache = find(a, os.threadId()) orelse return false;
    return cache.changing.load(.monotonic) == 0;
}

pub fn release(a: *Allocator) void {
    assert(a.holder.load(.monotonic) == os.threadId() and a.hold_depth > 0);
    a.hold_depth -= 1;
    if (a.hold_depth > 0) return;
    a.holder.store(0, .monotonic);
    _ = a.gate.stop.fetchAnd(~Stop.held, .seq_cst);
    os.futexWake(&a.gate.stop, std.math.maxInt(i32));
    a.hold_lock.unlock();
}

// ------------------------------------------------------------------ the end of a thread, fork

var allocators: ?*Allocator = null;
var allocators_lock: os.Mutex = .{};
var exit_hook: os.ThreadExit = .{};
var exit_hook_made: bool = false;

fn enroll(a: *Allocator) void {
    allocators_lock.lock();
    defer allocators_lock.unlock();
    if (!exit_hook_made) {
        exit_hook = .init(onThreadExit);
        exit_hook_made = true;
    }
    a.next = allocators;
    allocators = a;
}

fn dismiss(a: *Allocator) void {
    allocators_lock.lock();
    defer allocators_lock.unlock();
    var link = &allocators;
    while (link.*) |other| : (link = &other.next) {
        if (other != a) continue;
        link.* = a.next;
        return;
    }
}

fn armExit(thread: usize) void {
    exit_hook.arm(@ptrFromInt(thread));
}

fn onThreadExit(_: ?*anyopaque) callconv(.c) void {
    const thread = os.threadId();
    while (true) {
        // An allocator may go while another thread holds it: look at the list anew each time.
        var busy = false;
        {
            allocators_lock.lock();
            defer allocators_lock.unlock();
            var next = allocators;
            while (next) |a| : (next = a.next) {
                if (!tryRetire(a, thread)) busy = true;
            }
        }
        if (!busy) return;
        os.yieldThread();
    }
}

/// Gives up everything that an ending thread owns; false when the allocator is held just now.
fn tryRetire(a: *Allocator, thread: usize) bool {
    const cache = find(a, thread) orelse return true;
    _ = cache.inside.swap(1, .seq_cst);
    defer cache.inside.store(0, .release);
    const stop = a.gate.stop.load(.seq_cst);
    if (stop & Stop.held != 0 and a.holder.load(.monotonic) != thread) return false;
    away.dispatchAll(a, cache);
    if (a.keeps_orphans) a.orphan[cache.slot].store(true, .release) else giveUpOwned(a, cache);
    if (a.gate.thread.load(.monotonic) == thread) a.gate.thread.store(Entry.gone, .release);
    const start = entryIndex(thread);
    for (0..entries_count) |i| {
        const entry = &a.entries[(start + i) % entries_count];
        const owner = entry.thread.load(.monotonic);
        if (owner == thread) entry.thread.store(Entry.gone, .release);
        if (owner == thread or owner == 0) break;
    }
    return true;
}

/// What the cache's thread owned has no owner any more, and its slot is free.
fn giveUpOwned(a: *Allocator, cache: *Cache) void {
    away.spill(a, cache);
    // Damage shows up where somebody asks for memory; an ending thread has nobody to tell.
    spans.collectPending(a, cache, cache) catch {};
    a.lock.lock();
    defer a.lock.unlock();
    spans.abandon(a, cache) catch {};
    cache.reset(cache.owner, &a.tables);
    a.alive[cache.slot].store(false, .seq_cst);
}

/// Does for threads that ended what was put off then. Held.
pub fn giveUpOrphans(a: *Allocator) void {
    for (a.caches[0..a.cache_count.load(.monotonic)], 0..) |cache, slot| {
        if (a.orphan[slot].swap(false, .acquire)) giveUpOwned(a, cache.?);
    }
}

/// In a forked child, which has the calling thread only: a new session begins there, so that what
/// the other threads owned has no owner. If the fork caught one of them inside, the metadata may be
/// half changed: `check` tells.
pub fn afterFork(a: *Allocator) void {
    const thread = os.threadId();
    a.lock = .{};
    a.hold_lock = .{};
    a.registry_lock = .{};
    a.shared_lock = .{};
    allocators_lock = .{};
    a.holder.store(0, .monotonic);
    a.hold_depth = 0;
    _ = a.gate.stop.fetchAnd(~Stop.held, .seq_cst);
    away.fold(a);
    a.tables.mark_pages.clear();
    const old = a.nonce;
    while (a.nonce == 0 or a.nonce == old) a.nonce = @truncate(os.randomU64());
    a.dropOwned();
    resetCaches(a);
    for (a.caches[0..a.cache_count.load(.monotonic)], 0..) |cache, slot| {
        cache.?.inside.store(0, .monotonic);
        cache.?.changing.store(0, .monotonic);
        if (slot != 0 and cache.?.thread != thread) a.alive[slot].store(false, .monotonic);
    }
    if (a.gate.thread.load(.monotonic) != thread) a.gate.thread.store(Entry.gone, .monotonic);
    for (&a.entries) |*entry| {
        const owner = entry.thread.load(.monotonic);
        if (owner > Entry.gone and owner != thread) entry.thread.store(Entry.gone, .monotonic);
    }
    a.lookAgain();
}
