//! Files as the image engine wants them: the real disk behind `image/disk.zig`. One function a system
//! call, positions always explicit, directories by descriptor.
//!
//! Invariant: a result is the call's value, or the negative of an error number; an interrupted call
//! is made again here, a short one is continued by the caller. The first parameter is unused: a
//! simulated disk keeps itself there.

const std = @import("std");
const os = @import("os.zig");
const linux = std.os.linux;

/// An open file or directory. Negative: none.
pub const File = i32;
pub const none: File = -1;
/// The directory that relative paths begin at.
pub const cwd: File = linux.AT.FDCWD;

pub const How = struct {
    write: bool = false,
    /// Make it, and fail when the name is taken.
    create: bool = false,
    directory: bool = false,
    /// Let a symbolic link be an error.
    no_follow: bool = true,
};

pub const Kind = enum { regular, directory, link, other };

pub const Stat = struct {
    device: u64 = 0,
    inode: u64 = 0,
    size: u64 = 0,
    /// Bytes really allocated; less than `size` when the file has holes.
    allocated: u64 = 0,
    owner: u32 = 0,
    mode: u16 = 0,
    kind: Kind = .other,
};

pub const Seek = enum { data, hole };

pub const Visit = *const fn (context: *anyopaque, name: [:0]const u8) void;

pub fn open(_: ?*anyopaque, dir: File, name: [*:0]const u8, how: How) i64 {
    const flags: linux.O = .{
        .ACCMODE = if (how.write) .RDWR else .RDONLY,
        .CREAT = how.create,
        .EXCL = how.create,
        .NONBLOCK = true,
        .NOCTTY = true,
        .CLOEXEC = true,
        .NOFOLLOW = how.no_follow,
        .DIRECTORY = how.directory,
    };
    while (true) {
        const result = signed(linux.openat(dir, name, flags, 0o600));
        if (result != -E(.INTR)) return result;
    }
}

pub fn openDirect(_: ?*anyopaque, file: File) i64 {
    var buffer: [32]u8 = undefined;
    const path = std.fmt.bufPrintZ(&buffer, "/proc/self/fd/{d}", .{file}) catch unreachable;
    return signed(linux.openat(linux.AT.FDCWD, path, .{ .ACCMODE = .WRONLY, .DIRECT = true, .CLOEXEC = true }, 0));
}

pub fn close(_: ?*anyopaque, file: File) void {
    _ = linux.close(file);
}

pub fn stat(_: ?*anyopaque, file: File, out: *Stat) i64 {
    return statx(file, "", linux.AT.EMPTY_PATH, out);
}

/// Of the name itself, not of what a symbolic link points to.
pub fn statAt(_: ?*anyopaque, dir: File, name: [*:0]const u8, out: *Stat) i64 {
    return statx(dir, name, linux.AT.SYMLINK_NOFOLLOW, out);
}

fn statx(dir: File, name: [*:0]const u8, flags: u32, out: *Stat) i64 {
    var raw: linux.Statx = undefined;
    const result = signed(linux.statx(dir, name, flags, linux.STATX.BASIC_STATS, &raw));
    if (result < 0) return result;
    out.* = .{
        .device = @as(u64, raw.dev_major) << 32 | raw.dev_minor,
        .inode = raw.ino,
        .size = raw.size,
        .allocated = raw.blocks *| 512,
        .owner = raw.uid,
        .mode = raw.mode & 0o7777,
        .kind = switch (raw.mode & linux.S.IFMT) {
            linux.S.IFREG => .regular,
            linux.S.IFDIR => .directory,
            linux.S.IFLNK => .link,
            else => .other,
        },
    };
    return 0;
}

pub fn readLink(_: ?*anyopaque, dir: File, name: [*:0]const u8, buffer: []u8) i64 {
    return signed(linux.readlinkat(dir, name, buffer.ptr, buffer.len));
}

pub fn read(_: ?*anyopaque, file: File, buffer: []u8, offset: u64) i64 {
    while (true) {
        const result = signed(linux.pread(file, buffer.ptr, buffer.len, @bitCast(offset)));
        if (result != -E(.INTR)) return result;
    }
}

/// How long this process may make a file. What goes beyond ends the process by a signal (SIGXFSZ,
/// which Deno leaves as it is), so the limit is asked for before.
pub fn lengthLimit() u64 {
    var limit: linux.rlimit = undefined;
    if (os.failed(linux.getrlimit(.FSIZE, &limit)) != null) return std.math.maxInt(i64);
    return @min(limit.cur, std.math.maxInt(i64));
}

pub fn write(_: ?*anyopaque, file: File, bytes: []const u8, offset: u64) i64 {
    const room = lengthLimit() -| offset;
    if (room == 0 and bytes.len > 0) return -E(.FBIG);
    while (true) {
        const result = signed(linux.pwrite(file, bytes.ptr, @min(bytes.len, room), @bitCast(offset)));
        if (result != -E(.INTR)) return result;
    }
}

/// Copies inside the kernel, sharing blocks where the file system can; may copy less than asked.
pub fn copy(_: ?*anyopaque, from: File, from_offset: u64, to: File, to_offset: u64, len: u64) i64 {
    const room = lengthLimit() -| to_offset;
    if (room == 0 and len > 0) return -E(.FBIG);
    while (true) {
        var in: i64 = @bitCast(from_offset);
        var out: i64 = @bitCast(to_offset);
        const result = signed(linux.copy_file_range(from, &in, to, &out, @min(len, room), 0));
        if (result != -E(.INTR)) return result;
    }
}

/// Makes sure of room for `[offset, offset + len)`; the file grows to its end.
pub fn allocate(_: ?*anyopaque, file: File, offset: u64, len: u64) i64 {
    if (offset +| len > lengthLimit()) return -E(.FBIG);
    while (true) {
        const result = signed(linux.fallocate(file, 0, @bitCast(offset), @bitCast(len)));
        if (result != -E(.INTR)) return result;
    }
}

/// The space stays the file's, and reads as zeros from then on.
pub fn zero(_: ?*anyopaque, file: File, offset: u64, len: u64) i64 {
    const zero_range = 0x10;
    while (true) {
        const result = signed(linux.fallocate(file, zero_range, @bitCast(offset), @bitCast(len)));
        if (result != -E(.INTR)) return result;
    }
}

pub fn truncate(_: ?*anyopaque, file: File, len: u64) i64 {
    if (len > lengthLimit()) return -E(.FBIG);
    while (true) {
        const result = signed(linux.ftruncate(file, @bitCast(len)));
        if (result != -E(.INTR)) return result;
    }
}

/// Returns when the file's bytes and length are on the medium.
pub fn sync(_: ?*anyopaque, file: File) i64 {
    while (true) {
        const result = signed(linux.fdatasync(file));
        if (result != -E(.INTR)) return result;
    }
}

/// Returns when the directory's names are on the medium.
pub fn syncDir(_: ?*anyopaque, dir: File) i64 {
    while (true) {
        const result = signed(linux.fsync(dir));
        if (result != -E(.INTR)) return result;
    }
}

/// Lets the medium begin with what was written; promises nothing.
pub fn startWriting(_: ?*anyopaque, file: File, offset: u64, len: u64) void {
    const sync_file_range_write = 2;
    _ = linux.syscall4(.sync_file_range, @as(usize, @bitCast(@as(isize, file))), offset, len, sync_file_range_write);
}

/// Lets the medium begin to read.
pub fn willRead(_: ?*anyopaque, file: File, offset: u64, len: u64) void {
    _ = linux.fadvise(file, @intCast(offset), @intCast(len), linux.POSIX_FADV.WILLNEED);
}

/// An exclusive lock of the open file, or EAGAIN. It lasts until `unlock`, or until nothing refers
/// to this opening any more: no descriptor, no forked child, no mapping.
pub fn lock(_: ?*anyopaque, file: File) i64 {
    var whole = flock(linux.F.WRLCK);
    const result = signed(linux.fcntl(file, linux.F.OFD_SETLK, @intFromPtr(&whole)));
    if (result == -E(.ACCES)) return -E(.AGAIN);
    if (result != -E(.INVAL)) return result;
    return signed(linux.flock(file, lock_exclusive | lock_try));
}

/// A lock that readers have together and no writer beside them, or EAGAIN.
pub fn lockShared(_: ?*anyopaque, file: File) i64 {
    var whole = flock(linux.F.RDLCK);
    const result = signed(linux.fcntl(file, linux.F.OFD_SETLK, @intFromPtr(&whole)));
    if (result == -E(.ACCES)) return -E(.AGAIN);
    if (result != -E(.INVAL)) return result;
    return signed(linux.flock(file, lock_shared | lock_try));
}

/// Gives the lock up, whoever else still refers to this opening: a mapping or a forked child does.
pub fn unlock(_: ?*anyopaque, file: File) void {
    var whole = flock(linux.F.UNLCK);
    const result = signed(linux.fcntl(file, linux.F.OFD_SETLK, @intFromPtr(&whole)));
    if (result == -E(.INVAL)) _ = linux.flock(file, lock_release);
}

/// 1 while another opening holds the lock, else 0.
pub fn locked(_: ?*anyopaque, file: File) i64 {
    var whole = flock(linux.F.WRLCK);
    const result = signed(linux.fcntl(file, linux.F.OFD_GETLK, @intFromPtr(&whole)));
    if (result >= 0) return @intFromBool(whole.type != linux.F.UNLCK);
    if (signed(linux.flock(file, lock_shared | lock_try)) == -E(.AGAIN)) return 1;
    _ = linux.flock(file, lock_release);
    return 0;
}

// Of flock(2).
const lock_shared = 1;
const lock_exclusive = 2;
const lock_try = 4;
const lock_release = 8;

fn flock(kind: i16) linux.Flock {
    var whole = std.mem.zeroes(linux.Flock);
    whole.type = kind;
    whole.whence = linux.SEEK.SET;
    return whole;
}

pub fn rename(_: ?*anyopaque, dir: File, from: [*:0]const u8, to: [*:0]const u8, replace: bool) i64 {
    return signed(linux.renameat2(dir, from, dir, to, .{ .NOREPLACE = !replace }));
}

/// Lets two names change places, in one step.
pub fn exchange(_: ?*anyopaque, dir: File, a: [*:0]const u8, b: [*:0]const u8) i64 {
    return signed(linux.renameat2(dir, a, dir, b, .{ .EXCHANGE = true }));
}

/// 1 when the file has one name and this is its only opening: nobody else can read it, or has it
/// mapped. A lease for writing is granted under just that condition, where every reader goes through
/// the same file system: one that lies over another (overlayfs, FUSE, the network's) does not see who
/// maps the file below it.
pub fn sole(_: ?*anyopaque, file: File) i64 {
    const kind = fileSystem(file);
    if (kind < 0) return kind;
    if (std.mem.indexOfScalar(i64, &.{ ext4_magic, xfs_magic, btrfs_magic, tmpfs_magic }, kind) == null) return 0;
    var raw: linux.Statx = undefined;
    const result = signed(linux.statx(file, "", linux.AT.EMPTY_PATH, linux.STATX.BASIC_STATS, &raw));
    if (result < 0) return result;
    if (raw.nlink != 1) return 0;
    const set_signal = 10;
    const set_lease = 1024;
    // Somebody who opens the file meanwhile would have SIGIO sent to this process, and end it.
    const urgent = 23;
    if (os.failed(linux.fcntl(file, set_signal, urgent)) != null) return 0;
    const granted = os.failed(linux.fcntl(file, set_lease, linux.F.WRLCK)) == null;
    if (granted) _ = linux.fcntl(file, set_lease, linux.F.UNLCK);
    _ = linux.fcntl(file, set_signal, 0);
    return @intFromBool(granted);
}

pub fn link(_: ?*anyopaque, dir: File, from: [*:0]const u8, to: [*:0]const u8) i64 {
    return signed(linux.linkat(dir, from, dir, to, 0));
}

pub fn unlink(_: ?*anyopaque, dir: File, name: [*:0]const u8) i64 {
    return signed(linux.unlinkat(dir, name, 0));
}

pub fn setMode(_: ?*anyopaque, file: File, mode: u16) i64 {
    return signed(linux.fchmod(file, mode));
}

/// Calls `visit` with each name in the directory.
pub fn list(_: ?*anyopaque, dir: File, context: *anyopaque, visit: Visit) i64 {
    const opened = open(null, dir, ".", .{ .directory = true });
    if (opened < 0) return opened;
    defer close(null, @intCast(opened));
    var buffer: [8192]u8 align(@alignOf(linux.dirent64)) = undefined;
    while (true) {
        const got = signed(linux.getdents64(@intCast(opened), &buffer, buffer.len));
        if (got <= 0) return got;
        var at: usize = 0;
        while (at < got) {
            const entry: *align(1) const linux.dirent64 = @ptrCast(&buffer[at]);
            const name: [*:0]const u8 = @ptrCast(&buffer[at + @offsetOf(linux.dirent64, "name")]);
            visit(context, std.mem.span(name));
            at += entry.reclen;
        }
    }
}

/// Lays the file's bytes privately and writably over memory that the caller has mapped.
pub fn map(_: ?*anyopaque, file: File, offset: u64, address: usize, len: usize) i64 {
    os.mapFilePrivate(address, len, file, offset) catch |err| return switch (err) {
        error.NoMemory => -E(.NOMEM),
        error.Taken, error.Refused => -E(.INVAL),
    };
    return 0;
}

const ext4_magic = 0xef53;
const xfs_magic = 0x5846_5342;
const btrfs_magic = 0x9123_683e;
const tmpfs_magic = 0x0102_1994;

/// The magic of the file system that the file lies on.
fn fileSystem(file: File) i64 {
    var raw: [32]u64 = @splat(0);
    const result = signed(linux.syscall2(.fstatfs, @as(usize, @bitCast(@as(isize, file))), @intFromPtr(&raw)));
    return if (result < 0) result else @intCast(raw[0] & std.math.maxInt(u32));
}

/// Bytes that the file's file system has left, for whoever may have the last ones; no limit where it
/// does not tell.
pub fn roomLeft(file: File) u64 {
    var raw: [32]u64 = @splat(0);
    const result = linux.syscall2(.fstatfs, @as(usize, @bitCast(@as(isize, file))), @intFromPtr(&raw));
    const block_bytes, const blocks, const blocks_free = raw[1..4].*;
    if (os.failed(result) != null or blocks == 0) return std.math.maxInt(u64);
    return blocks_free *| block_bytes;
}

/// 1 where a page that was given room once can be stored to for ever, however full the medium is;
/// 0 where it cannot, or nobody knows: what copies on writing needs new room each time.
pub fn staysInPlace(_: ?*anyopaque, file: File) i64 {
    const kind = fileSystem(file);
    if (kind < 0) return kind;
    return @intFromBool(std.mem.indexOfScalar(i64, &.{ ext4_magic, xfs_magic, tmpfs_magic }, kind) != null);
}

/// Dates the file's last change to a moment at which the kernel dates nothing, and gives it in
/// nanoseconds. Where pages are written back, a store to a page that was synced since dates the file anew.
pub fn setDate(c: ?*anyopaque, file: File) i64 {
    var now_coarse: linux.timespec = undefined;
    const coarse: linux.clockid_t = .REALTIME_COARSE;
    if (os.failed(linux.clock_gettime(coarse, &now_coarse))) |e| return -@as(i64, e);
    // The kernel's own dates are ticks of that clock, or finer and later.
    const wanted = nanoseconds(now_coarse.sec, now_coarse.nsec) - 1;
    const time: linux.timespec = .{ .sec = @divFloor(wanted, std.time.ns_per_s), .nsec = @mod(wanted, std.time.ns_per_s) };
    const left_alone = 0x3fff_fffe;
    const times: [2]linux.timespec = .{ .{ .sec = 0, .nsec = left_alone }, time };
    const result = linux.syscall4(.utimensat, @as(usize, @bitCast(@as(isize, file))), 0, @intFromPtr(&times), 0);
    if (os.failed(result)) |e| return -@as(i64, e);
    return if (date(c, file) == wanted) wanted else -@as(i64, @intFromEnum(os.E.OPNOTSUPP));
}

/// When the file was changed last, in nanoseconds.
pub fn date(_: ?*anyopaque, file: File) i64 {
    var raw: linux.Statx = undefined;
    const result = linux.statx(file, "", linux.AT.EMPTY_PATH, linux.STATX.BASIC_STATS, &raw);
    if (os.failed(result)) |e| return -@as(i64, e);
    return nanoseconds(raw.mtime.sec, raw.mtime.nsec);
}

fn nanoseconds(sec: i64, nsec: i64) i64 {
    return sec *| std.time.ns_per_s +| nsec;
}

/// A number that stays while what the page cache holds of the file is all there, dates included: of this
/// start of the system, this mount (Linux 6.8) and this very file. An error where the system does not tell.
pub fn witness(_: ?*anyopaque, file: File) i64 {
    // As `linux.Statx`, which does not know the mount.
    const Statx = extern struct { mask: u32, before: [28]u8, inode: u64, between: [96]u8, device: [2]u32, mount: u64, rest: [104]u8 };
    comptime std.debug.assert(@sizeOf(Statx) == 256 and @offsetOf(Statx, "inode") == 0x20 and @offsetOf(Statx, "mount") == 0x90);
    const unique_mount = 0x4000;
    var raw: Statx = undefined;
    const mask: u32 = @as(u32, @bitCast(linux.STATX.BASIC_STATS)) | unique_mount;
    const result = linux.syscall5(.statx, @as(usize, @bitCast(@as(isize, file))), @intFromPtr(""), linux.AT.EMPTY_PATH, mask, @intFromPtr(&raw));
    if (os.failed(result)) |e| return -@as(i64, e);
    if (raw.mask & unique_mount == 0) return -@as(i64, @intFromEnum(os.E.OPNOTSUPP));
    var boot: [64]u8 = @splat(0);
    const opened = linux.open("/proc/sys/kernel/random/boot_id", .{ .CLOEXEC = true }, 0);
    if (os.failed(opened)) |e| return -@as(i64, e);
    defer _ = linux.close(@intCast(opened));
    const len = linux.read(@intCast(opened), &boot, boot.len);
    if (os.failed(len)) |e| return -@as(i64, e);
    if (len < 32) return -@as(i64, @intFromEnum(os.E.OPNOTSUPP));
    var hasher = std.hash.XxHash3.init(0);
    hasher.update(boot[0..len]);
    hasher.update(std.mem.asBytes(&raw.inode));
    hasher.update(std.mem.asBytes(&raw.device));
    hasher.update(std.mem.asBytes(&raw.mount));
    return @intCast(hasher.final() >> 1);
}

const note_name = "user.perm.rest";

/// Keeps a few bytes beside the file, which changes neither its contents nor the date of these.
pub fn setNote(_: ?*anyopaque, file: File, bytes: []const u8) i64 {
    return signed(linux.fsetxattr(file, note_name, bytes.ptr, bytes.len, 0));
}

/// Their number.
pub fn getNote(_: ?*anyopaque, file: File, into: []u8) i64 {
    return signed(linux.fgetxattr(file, note_name, into.ptr, into.len));
}

/// 1 where reading a hole needs new memory that may not be there (tmpfs), else 0.
pub fn holesCost(_: ?*anyopaque, file: File) i64 {
    const kind = fileSystem(file);
    return if (kind < 0) kind else @intFromBool(kind == tmpfs_magic);
}

/// The next offset at or after `offset` that holds data, or that begins a hole.
pub fn seek(_: ?*anyopaque, file: File, offset: u64, what: Seek) i64 {
    const seek_data = 3;
    const seek_hole = 4;
    const result = linux.lseek(file, @bitCast(offset), if (what == .data) seek_data else seek_hole);
    return signed(result);
}

/// How many more mappings the process may make, about.
pub fn mapsFree(_: ?*anyopaque) u64 {
    var max: u64 = 65_530;
    var buffer: [8 * 1024]u8 = undefined;
    if (readProc("/proc/sys/vm/max_map_count", &buffer, parseFirst)) |value| max = value;
    const used = readProc("/proc/self/maps", &buffer, countLines) orelse max / 2;
    return max -| used;
}

/// Feeds the file's parts to `add`, which sums up.
fn readProc(path: [*:0]const u8, buffer: []u8, add: *const fn (sum: u64, part: []const u8) u64) ?u64 {
    const opened = open(null, cwd, path, .{});
    if (opened < 0) return null;
    defer close(null, @intCast(opened));
    var sum: u64 = 0;
    while (true) {
        const got = signed(linux.read(@intCast(opened), buffer.ptr, buffer.len));
        if (got == -E(.INTR)) continue;
        if (got < 0) return null;
        if (got == 0) return sum;
        sum = add(sum, buffer[0..@intCast(got)]);
    }
}

fn parseFirst(_: u64, part: []const u8) u64 {
    return std.fmt.parseInt(u64, std.mem.trim(u8, part, " \n"), 10) catch 65_530;
}

fn countLines(sum: u64, part: []const u8) u64 {
    return sum + std.mem.count(u8, part, "\n");
}

/// Lets time pass.
pub fn pause(_: ?*anyopaque, ns: u64) void {
    const time: linux.timespec = .{ .sec = @intCast(ns / std.time.ns_per_s), .nsec = @intCast(ns % std.time.ns_per_s) };
    _ = linux.nanosleep(&time, null);
}

/// Nanoseconds since 1970.
pub fn now(_: ?*anyopaque) u64 {
    return os.realtimeNs();
}

pub fn random(_: ?*anyopaque, into: []u8) void {
    os.random(into);
}

fn signed(result: usize) i64 {
    return @bitCast(result);
}

fn E(comptime e: linux.E) i64 {
    return @intFromEnum(e);
}

/// The name of an error number, as in errno.h.
pub fn errnoName(errno: u32) []const u8 {
    inline for (@typeInfo(linux.E).@"enum".fields) |field| {
        if (field.value == errno and errno != 0) return "E" ++ field.name;
    }
    return "an unknown error";
}
