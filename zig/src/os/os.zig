//! The only room that makes system calls. Linux x86-64 and aarch64; no libc: threads and
//! thread-exit hooks are the host's, found as weak symbols (glibc and musl alike).
//!
//! Invariant: nothing here prints, exits or installs a signal handler.

const std = @import("std");
const builtin = @import("builtin");
const linux = std.os.linux;
const plant = @import("../plant.zig");

pub const page_size = 4096;
pub const page_allocator = @import("page_allocator.zig").page_allocator;
pub const E = linux.E;

/// The error number of a raw system call's result, or null when it succeeded.
pub fn failed(result: usize) ?u32 {
    const e = linux.errno(result);
    return if (e == .SUCCESS) null else @intFromEnum(e);
}

/// What an error number means, for messages.
pub fn errnoText(errno: u32) []const u8 {
    return switch (@as(E, @enumFromInt(errno))) {
        .NOENT => "no such file or directory",
        .NOTDIR => "a part of the path is no directory",
        .ISDIR => "it is a directory",
        .ACCES, .PERM => "permission denied",
        .ROFS => "the file system is read-only",
        .NOSPC => "no space left on the file system",
        .DQUOT => "the disk quota is used up",
        .INVAL => "invalid argument",
        .LOOP => "it is a symbolic link, or there are too many of them",
        .NAMETOOLONG => "the name is too long",
        .MFILE => "this process may have no more files open; raise its limit (ulimit -n)",
        .NFILE => "the machine may have no more files open; raise fs.file-max (sysctl)",
        .NOMEM => "out of memory",
        .EXIST => "it exists",
        .IO => "input/output error",
        .AGAIN => "it is in use",
        .NXIO => "it is a device or socket that nobody serves",
        .FBIG => "the file would be too large",
        .OPNOTSUPP => "the file system does not support it",
        else => "the system refused",
    };
}

/// Identity of the calling thread: its thread pointer. Unique among living threads, one instruction.
pub inline fn threadId() usize {
    // Zig sets no thread pointer in programs without libc that say they have one thread.
    if (builtin.single_threaded and !builtin.link_libc) return 2;
    return switch (builtin.cpu.arch) {
        .x86_64 => asm ("movq %%fs:0, %[ret]"
            : [ret] "=r" (-> usize),
        ),
        .aarch64 => asm ("mrs %[ret], tpidr_el0"
            : [ret] "=r" (-> usize),
        ),
        else => @compileError("no thread pointer known for this architecture"),
    };
}

/// A lock in process memory: futex, never stored in a heap.
pub const Mutex = struct {
    state: std.atomic.Value(u32) = .init(0),

    pub fn tryLock(self: *Mutex) bool {
        return self.state.cmpxchgStrong(0, 1, .acquire, .monotonic) == null;
    }

    pub fn lock(self: *Mutex) void {
        if (self.tryLock()) return;
        if (plant.enabled) if (waits) |wait| {
            while (!self.tryLock()) wait();
            return;
        };
        while (self.state.swap(2, .acquire) != 0) futexWait(&self.state, 2);
    }

    pub fn unlock(self: *Mutex) void {
        if (self.state.swap(0, .release) == 2) futexWake(&self.state, 1);
    }
};

/// Of a simulation, where all that contend for a lock run on one thread: lets another go on.
pub var waits: if (plant.enabled) ?*const fn () void else void = if (plant.enabled) null;

/// Its threads, too: what stands for one is a number; null when it gives none.
pub const Threads = struct {
    spawn: *const fn (entry: *const fn (?*anyopaque) callconv(.c) ?*anyopaque, context: ?*anyopaque) ?usize,
    join: *const fn (id: usize) void,
};
pub var threads: if (plant.enabled) ?Threads else void = if (plant.enabled) null;

/// Its MADV_DONTNEED: what is mapped from its files is a copy.
pub var drops: if (plant.enabled) ?*const fn (address: usize, len: usize) void else void = if (plant.enabled) null;

/// Its time.
pub var time: if (plant.enabled) ?*const fn () u64 else void = if (plant.enabled) null;

/// May return early.
pub fn futexWait(word: *const std.atomic.Value(u32), expected: u32) void {
    if (plant.enabled) if (waits) |wait| return wait();
    _ = linux.futex_4arg(@ptrCast(&word.raw), .{ .cmd = .WAIT, .private = true }, expected, null);
}

/// Waits while `word` is `expected`, for so long at most.
pub fn futexWaitFor(word: *const std.atomic.Value(u32), expected: u32, ns: u64) void {
    if (plant.enabled) if (waits) |wait| return wait();
    var ts: linux.timespec = .{ .sec = @intCast(ns / std.time.ns_per_s), .nsec = @intCast(ns % std.time.ns_per_s) };
    _ = linux.futex_4arg(@ptrCast(&word.raw), .{ .cmd = .WAIT, .private = true }, expected, &ts);
}

pub fn futexWake(word: *const std.atomic.Value(u32), count: u32) void {
    _ = linux.futex_3arg(@ptrCast(&word.raw), .{ .cmd = .WAKE, .private = true }, count);
}

pub fn yieldThread() void {
    _ = linux.syscall0(.sched_yield);
}

/// The calling thread does not push others aside when it is woken: who wakes it goes on first.
pub fn workInBackground() void {
    const sched_batch = 3;
    const priority: c_int = 0;
    _ = linux.syscall3(.sched_setscheduler, 0, sched_batch, @intFromPtr(&priority));
}

/// Monotonic nanoseconds.
pub fn nowNs() u64 {
    if (plant.enabled) if (time) |now| return now();
    return clockNs(.MONOTONIC);
}

/// Nanoseconds since 1970.
pub fn realtimeNs() u64 {
    if (builtin.is_test and repeated != null) return 1_700_000_000 * std.time.ns_per_s;
    return clockNs(.REALTIME);
}

fn clockNs(clock: linux.clockid_t) u64 {
    var ts: linux.timespec = undefined;
    _ = linux.clock_gettime(clock, &ts);
    return @as(u64, @intCast(ts.sec)) * std.time.ns_per_s + @as(u64, @intCast(ts.nsec));
}

/// Set by a test that compares the files of two runs: what is left to chance is the same in both.
pub var repeated: if (builtin.is_test) ?std.Random.DefaultPrng else void = if (builtin.is_test) null else {};

/// Fills `buffer` with unpredictable bytes; from the clock only where getrandom is forbidden.
pub fn random(buffer: []u8) void {
    if (builtin.is_test) if (repeated) |*it| return it.random().bytes(buffer);
    var done: usize = 0;
    while (done < buffer.len) {
        const n = linux.getrandom(buffer.ptr + done, buffer.len - done, 0);
        if (failed(n) != null) break;
        done += n;
    }
    if (done == buffer.len) return;
    var prng = std.Random.DefaultPrng.init(nowNs() ^ realtimeNs() ^ threadId());
    prng.random().bytes(buffer[done..]);
}

pub fn randomU64() u64 {
    var word: u64 = undefined;
    random(std.mem.asBytes(&word));
    return word;
}

/// Processors that this process may use.
pub fn processorCount() usize {
    var set: [128]u8 align(8) = undefined;
    const len = linux.syscall3(.sched_getaffinity, 0, set.len, @intFromPtr(&set));
    if (failed(len) != null) return 1;
    var count: usize = 0;
    for (set[0..len]) |byte| count += @popCount(byte);
    return @max(1, count);
}

pub fn processId() u32 {
    return @intCast(linux.getpid());
}

// ------------------------------------------------------------------ memory

pub const MapError = error{ Taken, NoMemory, Refused };

/// Address space without memory: PROT_NONE, nothing committed. `address` 0 lets the kernel choose;
/// otherwise exactly there or `error.Taken`.
pub fn reserve(address: usize, len: usize) MapError!usize {
    return map(address, len, .{}, .{
        .TYPE = .PRIVATE,
        .ANONYMOUS = true,
        .NORESERVE = true,
        .FIXED_NOREPLACE = address != 0,
    }, -1, 0);
}

/// Turns a range of ours back into a reservation, dropping what it held.
pub fn reserveOver(address: usize, len: usize) void {
    _ = map(address, len, .{}, .{
        .TYPE = .PRIVATE,
        .ANONYMOUS = true,
        .NORESERVE = true,
        .FIXED = true,
    }, -1, 0) catch {};
}

/// Zeroed private memory over a range that the caller has reserved.
pub fn commitAnonymous(address: usize, len: usize) MapError!void {
    _ = try map(address, len, .{ .READ = true, .WRITE = true }, .{
        .TYPE = .PRIVATE,
        .ANONYMOUS = true,
        .NORESERVE = true,
        .FIXED = true,
    }, -1, 0);
}

/// Pages that are zero from here on, and their memory the system's again. In a range mapped from a file
/// MADV_DONTNEED would bring the file's old contents back.
pub fn giveBack(address: usize, len: usize) MapError!void {
    if (!plant.is(.r14_old_content_back)) return commitAnonymous(address, len);
    if (plant.enabled) if (drops) |drop| return drop(address, len);
    _ = advise(address, len, linux.MADV.DONTNEED);
}

/// The file's pages at `offset` laid privately over a range that the caller has reserved.
pub fn mapFilePrivate(address: usize, len: usize, fd: i32, offset: u64) MapError!void {
    _ = try map(address, len, .{ .READ = true, .WRITE = true }, .{
        .TYPE = .PRIVATE,
        .NORESERVE = true,
        .FIXED = true,
    }, fd, offset);
}

/// Process memory of its own: zeroed, lazily touched, page-aligned.
pub fn allocatePages(len: usize) MapError![]align(page_size) u8 {
    const address = try map(0, len, .{ .READ = true, .WRITE = true }, .{
        .TYPE = .PRIVATE,
        .ANONYMOUS = true,
        .NORESERVE = true,
    }, -1, 0);
    return @as([*]align(page_size) u8, @ptrFromInt(address))[0..len];
}

pub fn freePages(pages: []align(page_size) u8) void {
    unmap(@intFromPtr(pages.ptr), pages.len);
}

pub fn unmap(address: usize, len: usize) void {
    _ = linux.munmap(@ptrFromInt(address), len);
}

/// Of a test: the how manyeth map from now on is refused for want of memory. 0: none.
pub var refused_map: if (builtin.is_test) std.atomic.Value(u32) else void = if (builtin.is_test) .init(0) else {};

pub fn refusesMap() bool {
    if (!builtin.is_test) return false;
    const left = refused_map.load(.monotonic);
    if (left == 0) return false;
    refused_map.store(left - 1, .monotonic);
    return left == 1;
}

fn map(address: usize, len: usize, prot: linux.PROT, flags: linux.MAP, fd: i32, offset: u64) MapError!usize {
    if (refusesMap()) return error.NoMemory;
    const result = linux.mmap(@ptrFromInt(address), len, prot, flags, fd, @intCast(offset));
    switch (linux.errno(result)) {
        .SUCCESS => {},
        .EXIST => return error.Taken,
        .NOMEM, .AGAIN => return error.NoMemory,
        else => return error.Refused,
    }
    // Kernels before 4.17 take FIXED_NOREPLACE for a hint.
    if (flags.FIXED_NOREPLACE and result != address) {
        unmap(result, len);
        return error.Taken;
    }
    return result;
}

/// Moves a mapping, contents and all, over `new_address` in one step.
pub fn moveMapping(old_address: usize, len: usize, new_address: usize) ?u32 {
    return failed(linux.mremap(@ptrFromInt(old_address), len, len, .{
        .MAYMOVE = true,
        .FIXED = true,
    }, @ptrFromInt(new_address)));
}

pub fn advise(address: usize, len: usize, advice: u32) ?u32 {
    return failed(linux.madvise(@ptrFromInt(address), len, advice));
}

/// Whether all pages of a map can be touched without a read from the medium, at most 64 of them; true
/// where the kernel does not tell.
pub fn isResident(address: usize, pages: usize) bool {
    var states: [64]u8 = undefined;
    std.debug.assert(pages <= states.len);
    if (failed(linux.syscall3(.mincore, address, pages * page_size, @intFromPtr(&states))) != null) return true;
    for (states[0..pages]) |state| if (state & 1 == 0) return false;
    return true;
}

/// Whether the page cache holds all of these pages of a file. Only owners of a file are told.
pub fn areResident(address: usize, pages: usize) bool {
    var states: [4096]u8 = undefined;
    var done: usize = 0;
    while (done < pages) {
        const part = states[0..@min(states.len, pages - done)];
        if (failed(linux.syscall3(.mincore, address + done * page_size, part.len * page_size, @intFromPtr(part.ptr))) != null) return false;
        for (part) |state| if (state & 1 == 0) return false;
        done += part.len;
    }
    return true;
}

pub fn isOwner(user: u32) bool {
    return linux.geteuid() == user;
}

/// Pages to be copied to many places in one call: the kernel fills pages that were never touched
/// without an exception for each, which is more than half of what copying there costs.
pub fn Scatter(comptime pages_max: usize) type {
    return struct {
        from: [pages_max]std.posix.iovec_const = undefined,
        to: [pages_max]std.posix.iovec_const = undefined,
        count: usize = 0,

        const Self = @This();

        /// Room for `pages_max` between two flushes. The page must stay as it is until then.
        pub fn add(self: *Self, page: *align(page_size) const [page_size]u8, to: usize) void {
            self.from[self.count] = .{ .base = page, .len = page_size };
            self.to[self.count] = .{ .base = @ptrFromInt(to), .len = page_size };
            self.count += 1;
        }

        pub fn flush(self: *Self) void {
            defer self.count = 0;
            if (self.count == 0) return;
            const written = linux.process_vm_writev(linux.getpid(), self.from[0..self.count], self.to[0..self.count], 0);
            self.copyFrom(if (failed(written) == null) written / page_size else 0);
        }

        /// What a sandbox forbids the kernel, or what it left.
        fn copyFrom(self: *const Self, first: usize) void {
            for (self.from[first..self.count], self.to[first..self.count]) |from, to| {
                const page: *align(page_size) [page_size]u8 = @ptrCast(@alignCast(@constCast(to.base)));
                @memcpy(page, from.base[0..page_size]);
            }
        }
    };
}

/// What every map of a heap needs: no huge pages (one write would look like 2 MiB of them), and no
/// merging (a merged page of zeros would look untouched).
pub fn adviseHeap(address: usize, len: usize) void {
    _ = advise(address, len, linux.MADV.NOHUGEPAGE);
    _ = advise(address, len, linux.MADV.UNMERGEABLE);
}

/// Of every system that has large pages beside pages of 4 KiB.
pub const huge_page_size = 2 << 20;

/// Large pages for process memory that is filled and read as a whole.
pub fn adviseHuge(address: usize, len: usize) void {
    _ = advise(address, len, linux.MADV.HUGEPAGE);
}

/// Makes memory present, so that writing to it takes no fault; changes nothing in it. Kernels before
/// 5.14 leave it as it is.
pub fn populate(address: usize, len: usize) void {
    const populate_write = 23;
    _ = advise(address, len, populate_write);
}

/// Makes memory present for reading. False where that cannot be (no signal comes of it), and on kernels
/// before 5.14.
pub fn populateRead(address: usize, len: usize) bool {
    const populate_read = 22;
    return advise(address, len, populate_read) == null;
}

// ------------------------------------------------------------------ other threads

const membarrier_query = 0;
const membarrier_private_expedited = 1 << 3;
const membarrier_register_private_expedited = 1 << 4;

/// Whether `membarrier` will work here. Asking costs nothing; announcing its use costs a process
/// with several threads up to 20 ms, so that waits for the first use.
pub fn hasMembarrier() bool {
    const known = linux.syscall3(.membarrier, membarrier_query, 0, 0);
    return failed(known) == null and known & membarrier_private_expedited != 0;
}

/// Announces that `membarrier` will be used, for a process that has one thread still.
pub fn announceMembarrier() void {
    _ = linux.syscall3(.membarrier, membarrier_register_private_expedited, 0, 0);
}

/// After it every running thread of this process has executed a full memory barrier.
pub fn membarrier() void {
    if (failed(linux.syscall3(.membarrier, membarrier_private_expedited, 0, 0)) == null) return;
    _ = linux.syscall3(.membarrier, membarrier_register_private_expedited, 0, 0);
    _ = linux.syscall3(.membarrier, membarrier_private_expedited, 0, 0);
}

const PthreadCreate = *const fn (*usize, ?*const anyopaque, *const fn (?*anyopaque) callconv(.c) ?*anyopaque, ?*anyopaque) callconv(.c) c_int;
const PthreadJoin = *const fn (usize, ?*?*anyopaque) callconv(.c) c_int;
const PthreadKeyCreate = *const fn (*c_uint, ?*const fn (?*anyopaque) callconv(.c) void) callconv(.c) c_int;
const PthreadSetSpecific = *const fn (c_uint, ?*const anyopaque) callconv(.c) c_int;
const PthreadAtfork = *const fn (?*const fn () callconv(.c) void, ?*const fn () callconv(.c) void, ?*const fn () callconv(.c) void) callconv(.c) c_int;

const Dladdr = *const fn (*const anyopaque, *DlInfo) callconv(.c) c_int;
const Dlopen = *const fn ([*:0]const u8, c_int) callconv(.c) ?*anyopaque;
const DlInfo = extern struct { file: [*:0]const u8, base: ?*anyopaque, symbol: ?[*:0]const u8, address: ?*anyopaque };

var stays_loaded = false;

/// Called before the host gets a pointer to a function of this library. Deno closes a library when
/// the isolate that opened it ends, be it a Worker; the host would then call what is unmapped.
fn stayLoaded() void {
    if (links_host or no_host or stays_loaded) return;
    const locate = host(Dladdr, "dladdr") orelse return;
    const open = host(Dlopen, "dlopen") orelse return;
    const now = 2;
    const no_load = 4;
    const no_delete = 0x1000;
    var info: DlInfo = undefined;
    if (locate(@ptrCast(&stayLoaded), &info) == 0) return;
    stays_loaded = open(info.file, now | no_load | no_delete) != null;
}

/// For a library that the program's loader brought in and never takes away.
pub fn neverUnloaded() void {
    stays_loaded = true;
}

/// A static library says in its root that it will be linked with a libc: weak symbols would not take
/// pthreads out of a static libc.
const links_host = builtin.link_libc or @hasDecl(@import("root"), "links_host");

/// A Zig program without libc: nobody is there to be found.
const no_host = builtin.output_mode == .Exe and !links_host;

fn host(comptime T: type, comptime name: []const u8) ?T {
    if (no_host) return null;
    if (links_host) return @extern(T, .{ .name = name });
    return @extern(?T, .{ .name = name, .linkage = .weak });
}

/// A thread of the host's. `error.Unsupported` where the process has no threads.
pub const Thread = struct {
    id: usize,
    own: if (zigs_threads) std.Thread else void = undefined,

    /// A Zig program without libc has Zig's threads.
    const zigs_threads = no_host and !builtin.single_threaded;

    pub fn spawn(entry: *const fn (?*anyopaque) callconv(.c) ?*anyopaque, context: ?*anyopaque) error{ Unsupported, Refused }!Thread {
        if (plant.enabled) if (threads) |simulated| return .{ .id = simulated.spawn(entry, context) orelse return error.Refused };
        if (zigs_threads) {
            const own = std.Thread.spawn(.{}, runEntry, .{ entry, context }) catch return error.Refused;
            return .{ .id = 1, .own = own };
        }
        const create = host(PthreadCreate, "pthread_create") orelse return error.Unsupported;
        stayLoaded();
        var thread: Thread = .{ .id = 0 };
        // The program's signals are for its own threads. A new thread inherits the mask.
        const before = blockSignals();
        const errno = create(&thread.id, null, entry, context);
        _ = linux.sigprocmask(linux.SIG.SETMASK, &before, null);
        return if (errno == 0) thread else error.Refused;
    }

    /// All but those that faults raise and those that the C library keeps for itself.
    fn blockSignals() linux.sigset_t {
        var set = linux.sigfillset();
        for ([_]linux.SIG{ .SEGV, .BUS, .ILL, .FPE, .TRAP }) |signal| linux.sigdelset(&set, signal);
        for (32..35) |signal| linux.sigdelset(&set, @enumFromInt(signal));
        var before: linux.sigset_t = undefined;
        _ = linux.sigprocmask(linux.SIG.SETMASK, &set, &before);
        return before;
    }

    fn runEntry(entry: *const fn (?*anyopaque) callconv(.c) ?*anyopaque, context: ?*anyopaque) void {
        _ = entry(context);
    }

    pub fn join(self: Thread) void {
        if (plant.enabled) if (threads) |simulated| return simulated.join(self.id);
        if (zigs_threads) return self.own.join();
        const wait = host(PthreadJoin, "pthread_join") orelse unreachable;
        _ = wait(self.id, null);
    }
};

/// A hook that runs when a thread that called `arm` ends.
pub const ThreadExit = struct {
    key: c_uint = 0,
    available: bool = false,

    pub fn init(hook: *const fn (?*anyopaque) callconv(.c) void) ThreadExit {
        const create = host(PthreadKeyCreate, "pthread_key_create") orelse return .{};
        stayLoaded();
        var self: ThreadExit = .{};
        self.available = create(&self.key, hook) == 0;
        return self;
    }

    /// The hook gets `value`, which must not be null.
    pub fn arm(self: ThreadExit, value: *anyopaque) void {
        if (!self.available) return;
        const set = host(PthreadSetSpecific, "pthread_setspecific") orelse return;
        _ = set(self.key, value);
    }
};

/// Runs `before` before each fork, then `parent` and `child` where they live; false where the host has
/// no atfork.
pub fn aroundFork(
    before: ?*const fn () callconv(.c) void,
    parent: ?*const fn () callconv(.c) void,
    child: ?*const fn () callconv(.c) void,
) bool {
    const atfork = host(PthreadAtfork, "pthread_atfork") orelse return false;
    stayLoaded();
    return atfork(before, parent, child) == 0;
}

test {
    _ = @import("file.zig");
    _ = @import("maps.zig");
    _ = @import("page_allocator.zig");
    _ = @import("pagemap.zig");
    _ = @import("shared_map.zig");
}

// ------------------------------------------------------------------ what C programs expect of a library

/// Sets the host's errno for the calling thread.
pub fn setErrno(errno: u32) void {
    const location = host(*const fn () callconv(.c) *c_int, "__errno_location") orelse return;
    location().* = @intCast(errno);
}

/// A variable of the environment as the program has it now, or null.
pub fn environment(name: [*:0]const u8) ?[:0]const u8 {
    const get = host(*const fn ([*:0]const u8) callconv(.c) ?[*:0]const u8, "getenv") orelse return null;
    return std.mem.span(get(name) orelse return null);
}

/// Runs `hook` when the process ends by exit(), before the hooks and destructors that were there.
pub fn onExit(hook: *const fn (?*anyopaque) callconv(.c) void) bool {
    const Hook = *const fn (?*anyopaque) callconv(.c) void;
    const at_exit = host(*const fn (Hook, ?*anyopaque, ?*anyopaque) callconv(.c) c_int, "__cxa_atexit") orelse return false;
    stayLoaded();
    return at_exit(hook, null, null) == 0;
}

/// The host's own malloc family, for what must not lie in a heap.
pub const host_memory = struct {
    pub fn allocate(size: usize, alignment: usize) ?*anyopaque {
        if (alignment <= 16) {
            const get = host(*const fn (usize) callconv(.c) ?*anyopaque, "malloc") orelse return null;
            return get(size);
        }
        const get = host(*const fn (usize, usize) callconv(.c) ?*anyopaque, "aligned_alloc") orelse return null;
        return get(alignment, std.mem.alignForward(usize, size, alignment));
    }

    pub fn free(pointer: ?*anyopaque) void {
        const give = host(*const fn (?*anyopaque) callconv(.c) void, "free") orelse return;
        give(pointer);
    }
};

test "reserve takes exactly the address asked for, and refuses a taken one" {
    const at = 0x3100_0000_0000;
    try std.testing.expectEqual(@as(usize, at), try reserve(at, page_size));
    defer unmap(at, page_size);
    try std.testing.expectError(error.Taken, reserve(at, page_size));
    try commitAnonymous(at, page_size);
    const page: *[page_size]u8 = @ptrFromInt(at);
    page[0] = 1;
    try std.testing.expectEqual(@as(u8, 0), page[1]);
}

test "scattered pages arrive, with the kernel's help and without" {
    const pages = try allocatePages(8 * page_size);
    defer freePages(pages);
    const source: *align(page_size) [page_size]u8 = @ptrCast(pages[0..page_size]);
    @memset(source, 7);
    var scatter: Scatter(4) = .{};
    const at = @intFromPtr(pages.ptr);
    for ([_]usize{ 2, 4, 7 }) |page| scatter.add(source, at + page * page_size);
    scatter.copyFrom(1);
    for ([_]u8{ 7, 0, 0, 0, 7, 0, 0, 7 }, 0..) |byte, page| try std.testing.expectEqual(byte, pages[page * page_size + 4095]);
    @memset(source, 9);
    scatter.flush();
    for ([_]u8{ 9, 0, 9, 0, 9, 0, 0, 9 }, 0..) |byte, page| try std.testing.expectEqual(byte, pages[page * page_size]);
    try std.testing.expectEqual(@as(usize, 0), scatter.count);
}

test "threads of the host run and are joined" {
    const Entry = struct {
        fn run(context: ?*anyopaque) callconv(.c) ?*anyopaque {
            const word: *std.atomic.Value(u32) = @ptrCast(@alignCast(context.?));
            _ = word.fetchAdd(1, .monotonic);
            return null;
        }
    };
    var word: std.atomic.Value(u32) = .init(0);
    const thread = Thread.spawn(Entry.run, &word) catch |err| switch (err) {
        error.Unsupported => return error.SkipZigTest,
        else => return err,
    };
    thread.join();
    try std.testing.expectEqual(@as(u32, 1), word.load(.monotonic));
}
