//! Locks that live in a heap, beside what they guard. A lock is 16 bytes, free when all zero:
//!
//!     u16 holders     readers, or 0xffff for one writer
//!     u16 waiting     threads that wait
//!     u32 session     whose the two before are; of another session they are void
//!     u64 owner       thread of the writer
//!
//! The first eight bytes change in one piece, so that finding a lock of another session void and
//! taking it is one step. The session is the process's use of the heap between two restores: a lock
//! that was held when its page was committed is free in every later run.
//!
//! Invariant: who waits looks again after a while whatever happens, since a restore may replace the
//! page under it.

const std = @import("std");
const os = @import("../os/os.zig");
const errors = @import("../errors.zig");
const Error = errors.Error;
const fail = errors.fail;

const writer = std.math.maxInt(u16);
/// A waiting thread looks again this often.
const look_again_ns = 50 * std.time.ns_per_ms;

const State = packed struct(u64) {
    holders: u16 = 0,
    waiting: u16 = 0,
    session: u32,

    /// What counts in this session.
    fn of(bits: u64, session: u32) State {
        const state: State = @bitCast(bits);
        return if (state.session == session) state else .{ .session = session };
    }
};

pub const Lock = extern struct {
    state: std.atomic.Value(u64),
    owner: std.atomic.Value(u64),

    comptime {
        std.debug.assert(@sizeOf(Lock) == 16);
    }

    /// Takes the lock for writing or for reading: false when `timeout_ns` went by. Readers wait
    /// behind whoever waits already. BUSY when this thread holds it for writing and would wait for
    /// itself; `session` is asked for again after each wait.
    pub fn acquire(
        self: *Lock,
        session: *const std.atomic.Value(u32),
        exclusive: bool,
        timeout_ns: ?u64,
    ) Error!bool {
        const me: u64 = os.threadId();
        const began = os.nowNs();
        // The session in which this thread is counted as waiting.
        var counted: ?u32 = null;
        while (true) {
            const now = session.load(.acquire);
            const bits = self.state.load(.acquire);
            const state = State.of(bits, now);
            const waits = counted != null and counted.? == now and state.waiting > 0;
            const free = if (exclusive)
                state.holders == 0
            else
                state.holders < writer - 1 and (waits or state.waiting == 0);
            if (free) {
                var taken = state;
                taken.holders = if (exclusive) writer else state.holders + 1;
                if (waits) taken.waiting -= 1;
                if (self.state.cmpxchgStrong(bits, @bitCast(taken), .acq_rel, .monotonic) != null) continue;
                if (exclusive) self.owner.store(me, .release);
                return true;
            }
            if (state.holders == writer and self.owner.load(.acquire) == me and timeout_ns != 0) {
                return fail(.BUSY, .{ .address = @intFromPtr(self) }, "Cannot take the lock at 0x{x}: this thread " ++
                    "holds it and would wait for itself; release it first, or use the async form", .{@intFromPtr(self)});
            }
            const passed = os.nowNs() -| began;
            if (timeout_ns != null and passed >= timeout_ns.?) {
                if (waits) {
                    var left = state;
                    left.waiting -= 1;
                    if (self.state.cmpxchgStrong(bits, @bitCast(left), .acq_rel, .monotonic) != null) continue;
                }
                return false;
            }
            var expected = state;
            if (!waits) {
                if (state.waiting == std.math.maxInt(u16)) return fail(.BUSY, .{ .address = @intFromPtr(self) }, "Cannot " ++
                    "wait for the lock at 0x{x}: too many threads do", .{@intFromPtr(self)});
                expected.waiting += 1;
                if (self.state.cmpxchgStrong(bits, @bitCast(expected), .acq_rel, .monotonic) != null) continue;
                counted = now;
            }
            const left_ns = if (timeout_ns) |limit| limit - passed else look_again_ns;
            os.futexWaitFor(self.word(), @truncate(@as(u64, @bitCast(expected))), @min(left_ns, look_again_ns));
        }
    }

    /// Gives the lock back. INVALID_ARGUMENT when it is not held like that, by this thread if for
    /// writing, in this session.
    pub fn release(self: *Lock, session: *const std.atomic.Value(u32), exclusive: bool) Error!void {
        while (true) {
            const now = session.load(.acquire);
            const bits = self.state.load(.acquire);
            const state = State.of(bits, now);
            const held = if (exclusive)
                state.holders == writer and self.owner.load(.acquire) == os.threadId()
            else
                state.holders > 0 and state.holders != writer;
            if (!held) return fail(.INVALID_ARGUMENT, .{ .address = @intFromPtr(self) }, "Cannot release the lock at " ++
                "0x{x}: this thread does not hold it", .{@intFromPtr(self)});
            var left = state;
            left.holders = if (exclusive) 0 else state.holders - 1;
            if (exclusive) self.owner.store(0, .release);
            if (self.state.cmpxchgStrong(bits, @bitCast(left), .acq_rel, .monotonic) != null) {
                if (exclusive) self.owner.store(os.threadId(), .release);
                continue;
            }
            if (left.holders == 0 and left.waiting > 0) os.futexWake(self.word(), std.math.maxInt(i32));
            return;
        }
    }

    /// What futexes look at: holders and waiting.
    fn word(self: *Lock) *const std.atomic.Value(u32) {
        return @ptrCast(self);
    }
};

const testing = std.testing;

test "a lock excludes, lets readers share, and is void in another session" {
    var session: std.atomic.Value(u32) = .init(7);
    var lock: Lock = std.mem.zeroes(Lock);
    try testing.expect(try lock.acquire(&session, false, 0));
    try testing.expect(try lock.acquire(&session, false, 0));
    try testing.expect(!try lock.acquire(&session, true, 0));
    try lock.release(&session, false);
    try testing.expect(!try lock.acquire(&session, true, 1));
    try lock.release(&session, false);
    try testing.expectError(error.INVALID_ARGUMENT, lock.release(&session, false));
    try testing.expect(try lock.acquire(&session, true, null));
    try testing.expect(!try lock.acquire(&session, true, 0));
    try testing.expectError(error.BUSY, lock.acquire(&session, true, null));
    try testing.expectError(error.BUSY, lock.acquire(&session, false, null));
    try testing.expectError(error.INVALID_ARGUMENT, lock.release(&session, false));
    session.store(8, .release);
    try testing.expectError(error.INVALID_ARGUMENT, lock.release(&session, true));
    try testing.expect(try lock.acquire(&session, true, 0));
    try lock.release(&session, true);
    try testing.expectEqual(@as(u64, 8 << 32), lock.state.raw);
}

test "threads that count under a lock lose nothing, and writers get through many readers" {
    const Counter = struct {
        session: std.atomic.Value(u32) = .init(1),
        lock: Lock = std.mem.zeroes(Lock),
        count: u64 = 0,
        seen: u64 = 0,

        fn work(self: *@This(), exclusive: bool) void {
            for (0..20_000) |_| {
                std.debug.assert(self.lock.acquire(&self.session, exclusive, null) catch unreachable);
                if (exclusive) self.count += 1 else std.mem.doNotOptimizeAway(self.count);
                self.lock.release(&self.session, exclusive) catch unreachable;
            }
        }
    };
    var counter: Counter = .{};
    var threads: [6]std.Thread = undefined;
    for (&threads, 0..) |*thread, i| thread.* = try std.Thread.spawn(.{}, Counter.work, .{ &counter, i % 2 == 0 });
    for (threads) |thread| thread.join();
    try testing.expectEqual(@as(u64, 60_000), counter.count);
    try testing.expectEqual(@as(u64, 1 << 32), counter.lock.state.raw);
}
