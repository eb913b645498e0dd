//! The process's malloc: which one it is, how it begins, and what a fork does to it.
//!
//! Invariants: the first call of any kind decides once between the pool and the system's malloc, in
//! the loader's start-up already; the decision never changes. What is called while it is being made
//! comes from a small fixed buffer. In a forked child nothing that the parent's other threads held
//! stays held.

const std = @import("std");
const os = @import("../os/os.zig");
const files = @import("../os/pool_file.zig");
const host = @import("../os/host.zig");
const errors = @import("../errors.zig");
const settings_room = @import("settings.zig");
const log = @import("log.zig");
const Pool = @import("pool.zig").Pool;
const errorText = @import("pool.zig").errorText;

const linux = std.os.linux;

pub const Choice = enum(u8) { none, pool, system };

pub var choice: std.atomic.Value(Choice) = .init(.none);
pub var pool: Pool = .{};
pub var system: host.System = undefined;

var settings: settings_room.Settings = .{};
var start_lock: os.Mutex = .{};
var starter: std.atomic.Value(usize) = .init(0);

/// Whether the pool serves the process; makes the choice when there is none.
pub inline fn usesPool() bool {
    return choice.load(.acquire) == .pool or chosen() == .pool;
}

/// The choice; `none` only for a call from within the start itself.
pub noinline fn chosen() Choice {
    @branchHint(.cold);
    const known = choice.load(.acquire);
    if (known != .none) return known;
    const thread = os.threadId();
    if (starter.load(.monotonic) == thread) return .none;
    start_lock.lock();
    defer start_lock.unlock();
    if (choice.load(.acquire) == .none) {
        starter.store(thread, .monotonic);
        start();
        starter.store(0, .monotonic);
    }
    return choice.load(.acquire);
}

fn start() void {
    os.neverUnloaded();
    system = host.System.locate() orelse {
        log.complain("the C library's malloc is not found, and it is needed where the pool is not used; stopping", .{});
        host.abort();
    };
    if (openPool()) {
        choice.store(.pool, .release);
        _ = host.aroundFork(beforeFork, afterForkInParent, afterForkInChild);
        // Announced while there is one thread, it costs nothing; later it costs milliseconds.
        os.announceMembarrier();
    } else choice.store(.system, .release);
}

fn openPool() bool {
    // Whoever starts a program that has more rights than he has does not choose its files.
    if (host.isPrivileged()) return false;
    var directory: [4096]u8 = undefined;
    const here = host.currentDirectory(&directory) orelse "";
    if (settings_room.read(&settings, host.environment(), here, os.processId())) |fault| {
        log.complain("{s} is \"{s}\": {s}; the program runs on the system's malloc", .{ fault.name, cut(fault.value), fault.advice });
        return false;
    }
    log.settings = &settings;
    if (settings.log_file.len > 0 and !host.append(settings.log_file, "")) {
        log.complain("VMMALLOC_LOG_FILE is \"{s}\": it cannot be written to; the program runs on the system's malloc", .{cut(settings.log_file)});
        log.settings = null;
        return false;
    }
    if (pool.open(settings.directory, settings.pool_size)) |fault| {
        log.complain("cannot open a pool of {d} bytes in \"{s}\": {s}{s}{s}; the program runs on the system's malloc", .{
            settings.pool_size,
            cut(settings.directory),
            fault.what,
            if (fault.errno != 0) ", " else "",
            if (fault.errno != 0) os.errnoText(fault.errno) else "",
        });
        return false;
    }
    log.line(2, "pool of {d} bytes in {s}, fork mode {d}, at 0x{x}", .{
        settings.pool_size,
        settings.directory,
        @intFromEnum(settings.fork),
        pool.data,
    });
    return true;
}

/// As much of a value as a line has room for.
fn cut(text: []const u8) []const u8 {
    return text[0..@min(text.len, 400)];
}

// ------------------------------------------------------------------ fork

const Plan = enum {
    /// Nothing is done.
    keep,
    /// All pages are private.
    private,
    /// So they are, and the child makes a copy of them.
    copy_in_child,
    /// They are shared still, and the parent waits until the child has taken them out.
    take_out,
    /// `plan_file` is the child's copy.
    copied,
    no_copy,
    no_private,
};

/// What `beforeFork` prepared; the forking thread's until the handler after it.
var plan: Plan = .keep;
var plan_file: files.File = files.none;
var plan_error: i64 = 0;
var plan_pipe: [2]files.File = @splat(files.none);
var fork_held: bool = false;
var stdio_held: bool = false;

/// Registered before all others, so that it runs last: whatever other handlers allocate is done.
fn beforeFork() callconv(.c) void {
    // A signal handler that interrupted malloc and forks would wait for itself.
    const hold = !pool.allocator.callerIsInside();
    // fork() takes this lock after us; who has it may wait for one who waits for memory.
    const stdio = hold and !host.isSingleThreaded() and host.lockStdio();
    if (hold) pool.allocator.hold();
    fork_held = hold;
    stdio_held = stdio;
    plan = prepareFork();
    log.line(2, "fork: {s}", .{@tagName(plan)});
}

fn prepareFork() Plan {
    switch (settings.fork) {
        .nothing => return .keep,
        .private => return makePrivate(.private),
        .copy, .copy_or_private => {
            // With other threads at work the pages are made private first: no store is lost then, and
            // the child's C library may write to them before its handlers run.
            if (!host.isSingleThreaded()) return makePrivate(.copy_in_child);
            const file = pool.copy();
            if (file >= 0) {
                plan_file = @intCast(file);
                return .copied;
            }
            log.line(1, "no copy of the pool for a forked child: {s}", .{errorText(file)});
            plan_error = file;
            return if (settings.fork == .copy) .no_copy else makePrivate(.private);
        },
    }
}

fn makePrivate(then: Plan) Plan {
    // Pages whose file was closed are copied, and what other threads store meanwhile would be lost:
    // then the copy is the child's.
    if (pool.hasClosed() and !host.isSingleThreaded())
        return if (files.openPipe(&plan_pipe)) .take_out else .no_private;
    return if (pool.makePrivate()) then else .no_private;
}

fn afterForkInParent() callconv(.c) void {
    switch (plan) {
        .copied => files.close(plan_file),
        .take_out => {
            // The end of the pipe comes too when there is no child, or none any more.
            files.close(plan_pipe[1]);
            files.awaitPipe(plan_pipe[0]);
            files.close(plan_pipe[0]);
        },
        else => {},
    }
    const stdio = stdio_held;
    if (fork_held) pool.allocator.release();
    if (stdio) host.unlockStdio();
}

fn afterForkInChild() callconv(.c) void {
    errors.afterFork();
    if (stdio_held) host.resetStdio();
    pool.allocator.afterFork();
    switch (plan) {
        .keep => {},
        .private => pool.leaveFile(),
        .copied => if (!pool.moveTo(plan_file)) stopWithoutPrivate(),
        .copy_in_child => if (!moveToCopy()) pool.leaveFile(),
        .take_out => {
            files.close(plan_pipe[0]);
            if ((settings.fork == .private or !moveToCopy()) and !pool.takeOut()) stopWithoutPrivate();
            files.close(plan_pipe[1]);
        },
        .no_copy => stopWithoutCopy(plan_error),
        .no_private => stopWithoutPrivate(),
    }
}

/// Gives the child a copy of the pool; false when there is no room for one, and the child goes on.
fn moveToCopy() bool {
    const file = pool.copy();
    if (file < 0) {
        log.line(1, "no copy of the pool for a forked child: {s}", .{errorText(file)});
        if (settings.fork == .copy) stopWithoutCopy(file);
        return false;
    }
    if (!pool.moveTo(@intCast(file))) stopWithoutPrivate();
    return true;
}

fn stopWithoutCopy(error_number: i64) noreturn {
    log.complain("a forked child gets no copy of the pool in \"{s}\" (VMMALLOC_FORK={d}): {s}; the child ends", .{
        cut(settings.directory),
        @intFromEnum(settings.fork),
        errorText(error_number),
    });
    host.exitNow(127);
}

fn stopWithoutPrivate() noreturn {
    log.complain("a forked child gets no memory of its own (VMMALLOC_FORK={d}): the system refuses to map it; the child ends", .{
        @intFromEnum(settings.fork),
    });
    host.exitNow(127);
}

// ------------------------------------------------------------------ beginning and end

/// Runs when the loader has everything in place, if no call came before.
pub fn begin() callconv(.c) void {
    _ = chosen();
    host.stayLoaded(@ptrCast(&begin));
}

/// Runs when the program ends by exit().
pub fn end() callconv(.c) void {
    if (!settings.log_stats or choice.load(.acquire) != .pool) return;
    const stats = pool.allocator.stats() catch return;
    log.always("{d} blocks of {d} bytes live in {d} bytes of spans and large blocks; the pool grew to {d} bytes of {d}, {d} of them given back, in {d} file(s)", .{
        stats.live_blocks,
        stats.live_bytes,
        stats.used_bytes,
        pool.ready,
        settings.pool_size,
        pool.gone_count * 65536,
        pool.files_made,
    });
}

// ------------------------------------------------------------------ calls during the start

var early: [16384]u8 align(16) = undefined;
var early_used: usize = 0;

/// Memory for what is called while the start is under way, by its thread alone.
pub fn earlyBlock(size: usize) ?*anyopaque {
    const len = std.mem.alignForward(usize, @max(size, 1), 16) + 16;
    if (size > early.len or len > early.len - early_used) return null;
    const at = early_used + 16;
    early_used += len;
    std.mem.writeInt(u64, early[at - 16 ..][0..8], len - 16, .little);
    @memset(early[at..][0 .. len - 16], 0);
    return &early[at];
}

/// Bytes of a block of `earlyBlock`, or null for what is none.
pub fn earlySize(address: usize) ?usize {
    const start_address = @intFromPtr(&early);
    if (address < start_address + 16 or address >= start_address + early.len) return null;
    return std.mem.readInt(u64, early[address - start_address - 16 ..][0..8], .little);
}
