//! What a library that stands in for the process's malloc needs of the C library it lives in, found as
//! weak symbols: one library serves glibc, old and new, and musl.
//!
//! Invariant: nothing here allocates where the C library does not.

const std = @import("std");
const os = @import("os.zig");
const linux = std.os.linux;

pub const Malloc = *const fn (usize) callconv(.c) ?*anyopaque;
pub const Calloc = *const fn (usize, usize) callconv(.c) ?*anyopaque;
pub const Realloc = *const fn (?*anyopaque, usize) callconv(.c) ?*anyopaque;
pub const Free = *const fn (?*anyopaque) callconv(.c) void;
pub const Memalign = *const fn (usize, usize) callconv(.c) ?*anyopaque;
pub const UsableSize = *const fn (?*anyopaque) callconv(.c) usize;
const ErrnoLocation = *const fn () callconv(.c) *c_int;
const Function = *const fn () callconv(.c) void;
const Handler = ?Function;
const RegisterAtfork = *const fn (Handler, Handler, Handler, ?*anyopaque) callconv(.c) c_int;
const Atfork = *const fn (Handler, Handler, Handler) callconv(.c) c_int;
const Abort = *const fn () callconv(.c) noreturn;
const Getauxval = *const fn (usize) callconv(.c) usize;
const Dlsym = *const fn (?*anyopaque, [*:0]const u8) callconv(.c) ?*anyopaque;
const Dladdr = *const fn (*const anyopaque, *DlInfo) callconv(.c) c_int;
const Dlopen = *const fn ([*:0]const u8, c_int) callconv(.c) ?*anyopaque;
const DlInfo = extern struct { file: [*:0]const u8, base: ?*anyopaque, symbol: ?[*:0]const u8, address: ?*anyopaque };
/// glibc's; `arena` and `mapped` are the bytes that it got with brk and with mmap.
const MallocInfo = extern struct { arena: usize, counts: [3]usize, mapped: usize, rest: [5]usize };
const Mallinfo2 = *const fn () callconv(.c) MallocInfo;

fn find(comptime T: type, comptime name: []const u8) ?T {
    return @extern(?T, .{ .name = name, .linkage = .weak });
}

/// The function of that name that stands behind ours in the search order; of a library that was loaded
/// late, the program's.
fn next(comptime T: type, name: [*:0]const u8) ?T {
    const dlsym = find(Dlsym, "dlsym") orelse return null;
    const rtld_next: ?*anyopaque = @ptrFromInt(std.math.maxInt(usize));
    const rtld_default: ?*anyopaque = null;
    const found = dlsym(rtld_next, name) orelse found: {
        const first = dlsym(rtld_default, name) orelse return null;
        if (isOurs(first)) return null;
        break :found first;
    };
    return @ptrCast(@alignCast(found));
}

fn isOurs(address: *const anyopaque) bool {
    const locate = find(Dladdr, "dladdr") orelse return true;
    var own: DlInfo = undefined;
    var other: DlInfo = undefined;
    return locate(@ptrCast(&isOurs), &own) == 0 or locate(address, &other) == 0 or own.base == other.base;
}

/// The malloc that this library stands in front of.
pub const System = struct {
    malloc: Malloc,
    calloc: Calloc,
    realloc: Realloc,
    free: Free,
    memalign: ?Memalign,
    usable_size: ?UsableSize = null,

    /// By glibc's second names, which need no search; else by what comes next in the search order.
    pub fn locate() ?System {
        return .{
            .malloc = find(Malloc, "__libc_malloc") orelse next(Malloc, "malloc") orelse return null,
            .calloc = find(Calloc, "__libc_calloc") orelse next(Calloc, "calloc") orelse return null,
            .realloc = find(Realloc, "__libc_realloc") orelse next(Realloc, "realloc") orelse return null,
            .free = find(Free, "__libc_free") orelse next(Free, "free") orelse return null,
            .memalign = find(Memalign, "__libc_memalign") orelse next(Memalign, "aligned_alloc"),
        };
    }

    pub fn usableSize(self: *System, block: ?*anyopaque) usize {
        if (self.usable_size == null) self.usable_size = next(UsableSize, "malloc_usable_size");
        const function = self.usable_size orelse return 0;
        return function(block);
    }
};

/// glibc's own malloc for a block that is not ours, when it has given out anything at all.
pub fn systemHasBlocks() bool {
    if (find(Free, "__libc_free") == null) return false;
    const mallinfo2 = find(Mallinfo2, "mallinfo2") orelse return true;
    const info = mallinfo2();
    return info.arena != 0 or info.mapped != 0;
}

pub fn setErrno(errno: linux.E) void {
    const location = find(ErrnoLocation, "__errno_location") orelse return;
    location().* = @intFromEnum(errno);
}

/// Handlers around fork(). Those registered first run last before it and first after it.
pub fn aroundFork(prepare: Handler, parent: Handler, child: Handler) bool {
    if (find(RegisterAtfork, "__register_atfork")) |register|
        return register(prepare, parent, child, null) == 0;
    const atfork = find(Atfork, "pthread_atfork") orelse return false;
    return atfork(prepare, parent, child) == 0;
}

/// Takes glibc's lock of all streams, as its fork() does: false where there is none to be had.
pub fn lockStdio() bool {
    const lock = find(Function, "_IO_list_lock") orelse return false;
    if (find(Function, "_IO_list_unlock") == null or find(Function, "_IO_list_resetlock") == null) return false;
    lock();
    return true;
}

pub fn unlockStdio() void {
    find(Function, "_IO_list_unlock").?();
}

/// In a forked child, whoever had it.
pub fn resetStdio() void {
    find(Function, "_IO_list_resetlock").?();
}

/// Keeps this library in the process: the host has pointers to functions of it.
pub fn stayLoaded(function: *const anyopaque) void {
    const locate = find(Dladdr, "dladdr") orelse return;
    const open = find(Dlopen, "dlopen") orelse return;
    const now = 2;
    const no_load = 4;
    const no_delete = 0x1000;
    var info: DlInfo = undefined;
    if (locate(function, &info) == 0) return;
    _ = open(info.file, now | no_load | no_delete);
}

/// Whether the program runs with rights that whoever set its environment may lack.
pub fn isPrivileged() bool {
    const getauxval = find(Getauxval, "getauxval") orelse return linux.getuid() != linux.geteuid();
    const at_secure = 23;
    return getauxval(at_secure) != 0;
}

pub fn abort() noreturn {
    if (find(Abort, "abort")) |function| function();
    _ = linux.tgkill(linux.getpid(), linux.gettid(), .ABRT);
    @trap();
}

/// The environment that the process was started with, before the C library knows it too.
pub fn environment() ?[*:null]const ?[*:0]const u8 {
    if (@extern(?*?[*:null]?[*:0]u8, .{ .name = "environ", .linkage = .weak })) |place| {
        if (place.*) |values| return @ptrCast(values);
    }
    // glibc's loader knows where the kernel put it: behind the arguments.
    const stack_end = @extern(?*?[*]usize, .{ .name = "__libc_stack_end", .linkage = .weak }) orelse return null;
    const words = stack_end.* orelse return null;
    return @ptrCast(words + words[0] + 2);
}

/// Whether the calling thread is the only one of its process.
pub fn isSingleThreaded() bool {
    var raw: linux.Statx = undefined;
    if (os.failed(linux.statx(linux.AT.FDCWD, "/proc/self/task", 0, linux.STATX.BASIC_STATS, &raw)) != null) return false;
    return raw.nlink <= 3;
}

/// Writes a whole line to standard error.
pub fn complain(line: []const u8) void {
    _ = linux.write(2, line.ptr, line.len);
}

/// Appends to a file that is opened for it each time: a program may close what it did not open.
pub fn append(path: [*:0]const u8, text: []const u8) bool {
    const opened = linux.open(path, .{
        .ACCMODE = .WRONLY,
        .APPEND = true,
        .CREAT = true,
        .CLOEXEC = true,
        .NOCTTY = true,
        .NONBLOCK = true,
    }, 0o600);
    if (os.failed(opened) != null) return false;
    defer _ = linux.close(@intCast(opened));
    return os.failed(linux.write(@intCast(opened), text.ptr, text.len)) == null;
}

pub fn currentDirectory(buffer: []u8) ?[]const u8 {
    const len = linux.getcwd(buffer.ptr, buffer.len);
    if (os.failed(len) != null or len < 2 or buffer[0] != '/') return null;
    return buffer[0 .. len - 1];
}

pub fn exitNow(code: u8) noreturn {
    linux.exit_group(code);
}
