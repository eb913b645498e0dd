//! Files without a name that back volatile memory, and the maps of them.
//!
//! Invariant: such a file never has a name that outlives its making, so the file system takes it back
//! however the process ends. Results are the call's value or the negative of an error number.

const std = @import("std");
const os = @import("os.zig");
const disk = @import("disk.zig");
const linux = std.os.linux;

pub const File = disk.File;
pub const Stat = disk.Stat;
pub const none = disk.none;

/// Which file a descriptor stands for: a program may close what it did not open, and then a number of
/// ours is another's.
pub const Identity = struct {
    device: u64 = 0,
    inode: u64 = 0,

    pub fn of(file: File) ?Identity {
        var stat: disk.Stat = .{};
        if (file < 0 or disk.stat(null, file, &stat) < 0 or stat.kind != .regular) return null;
        return .{ .device = stat.device, .inode = stat.inode };
    }

    pub fn is(self: Identity, file: File) bool {
        const other = of(file) orelse return false;
        return self.device == other.device and self.inode == other.inode;
    }
};

/// Opens a file without a name in the directory.
pub fn openUnnamed(directory: [:0]const u8) i64 {
    const opened = signed(linux.openat(linux.AT.FDCWD, directory, .{
        .ACCMODE = .RDWR,
        .TMPFILE = true,
        .DIRECTORY = true,
        .EXCL = true,
        .CLOEXEC = true,
    }, 0o600));
    switch (errnoOf(opened)) {
        .OPNOTSUPP, .INVAL, .ISDIR, .NOENT => {},
        else => return opened,
    }
    // Not every file system makes files without a name.
    var buffer: [4096 + 64]u8 = undefined;
    for (0..16) |_| {
        const name = std.fmt.bufPrintZ(&buffer, "{s}/.permmalloc-{x:0>16}", .{ directory, os.randomU64() }) catch
            return -@as(i64, @intFromEnum(linux.E.NAMETOOLONG));
        const made = disk.open(null, disk.cwd, name, .{ .write = true, .create = true });
        if (errnoOf(made) == .EXIST) continue;
        if (made >= 0) _ = linux.unlink(name);
        return made;
    }
    return opened;
}

/// Moves a descriptor up, out of the way of programs that count on low numbers; the old one when it
/// cannot.
pub fn moveUp(file: File) File {
    const dupfd_cloexec = 1030;
    var limit: linux.rlimit = undefined;
    if (os.failed(linux.getrlimit(.NOFILE, &limit)) != null or limit.cur < 64) return file;
    const moved = signed(linux.fcntl(file, dupfd_cloexec, @min(limit.cur, 1024) - 24));
    if (moved < 0) return file;
    disk.close(null, file);
    return @intCast(moved);
}

/// Makes sure that storing to `[offset, offset + len)` finds room; the file grows to its end. In parts,
/// since some file systems begin anew after each signal.
pub fn reserve(file: File, offset: u64, len: u64) i64 {
    if (offset + len > disk.lengthLimit()) return -@as(i64, @intFromEnum(linux.E.FBIG));
    const part_max = 64 << 20;
    var done: u64 = 0;
    while (done < len) {
        const part = @min(part_max, len - done);
        const result = disk.allocate(null, file, offset + done, part);
        switch (errnoOf(result)) {
            .SUCCESS => {},
            .OPNOTSUPP, .NOSYS => {
                const written = writeBack(file, offset + done, part);
                if (written < 0) return written;
            },
            else => return result,
        }
        done += part;
    }
    return 0;
}

/// Whether the file's pages are memory that no disk stands behind.
pub fn isInMemory(file: File) bool {
    return disk.holesCost(null, file) > 0;
}

/// Bytes that can be had at all where the file lies.
pub fn roomLeft(file: File) u64 {
    return disk.roomLeft(file);
}

/// Whether a directory cannot be reached, or no file be opened at all: not for lack of room.
pub fn isOutOfReach(errno: u32) bool {
    return switch (@as(linux.E, @enumFromInt(errno))) {
        .ACCES, .PERM, .NOENT, .NOTDIR, .LOOP, .MFILE, .NFILE => true,
        else => false,
    };
}

/// Where a file system writes each change to another place, a page that had room once needs room again,
/// and a store that finds none is a SIGBUS. Btrfs leaves it out for files that say so while they are
/// empty; what cannot say so (bcachefs, ZFS) is as it is.
pub fn keepInPlace(file: File) void {
    if (disk.staysInPlace(null, file) > 0) return;
    const get_flags = 0x8008_6601;
    const set_flags = 0x4008_6602;
    const no_copy_on_write = 0x0080_0000;
    var flags: u64 = 0;
    if (os.failed(linux.ioctl(file, get_flags, @intFromPtr(&flags))) != null) return;
    flags |= no_copy_on_write;
    _ = linux.ioctl(file, set_flags, @intFromPtr(&flags));
}

/// Sets the file's length; makes no room.
pub fn resize(file: File, len: u64) i64 {
    return disk.truncate(null, file, len);
}

/// Where no room can be asked for (ext2, ext3) what stands in the file is written over itself, zeros where
/// nothing does.
fn writeBack(file: File, offset: u64, len: u64) i64 {
    var buffer: [16384]u8 = undefined;
    var done: u64 = 0;
    while (done < len) {
        const bytes = buffer[0..@min(buffer.len, len - done)];
        var got: usize = 0;
        while (got < bytes.len) {
            const result = disk.read(null, file, bytes[got..], offset + done + got);
            if (result < 0) return result;
            if (result == 0) break;
            got += @intCast(result);
        }
        @memset(bytes[got..], 0);
        const result = writeAll(file, bytes, offset + done);
        if (result < 0) return result;
        done += bytes.len;
    }
    return 0;
}

/// Maps the file's pages at `offset`, stores reaching the file, over a range that the caller reserved.
pub fn mapShared(address: usize, len: usize, file: File, offset: u64) i64 {
    if (os.refusesMap()) return -@as(i64, @intFromEnum(linux.E.NOMEM));
    return signed(linux.mmap(@ptrFromInt(address), len, .{ .READ = true, .WRITE = true }, .{
        .TYPE = .SHARED,
        .NORESERVE = true,
        .FIXED = true,
    }, file, @intCast(offset)));
}

/// Drops pages of a shared map and the file's blocks below them; they read as zero from then on.
pub fn punch(address: usize, len: usize) bool {
    return os.advise(address, len, linux.MADV.REMOVE) == null;
}

/// Makes room below pages of a shared map whose file is not at hand; false when there is none.
pub fn populate(address: usize, len: usize) bool {
    const populate_write = 23;
    while (true) {
        const errno = os.advise(address, len, populate_write) orelse return true;
        if (errno != @intFromEnum(linux.E.INTR)) return false;
    }
}

/// Makes the address space of a map readable and writable.
pub fn allowAccess(address: usize, len: usize) bool {
    return os.failed(linux.mprotect(@ptrFromInt(address), len, .{ .READ = true, .WRITE = true })) == null;
}

/// Writes all of `bytes`, or fails.
pub fn writeAll(file: File, bytes: []const u8, offset: u64) i64 {
    var done: usize = 0;
    while (done < bytes.len) {
        const result = disk.write(null, file, bytes[done..], offset + done);
        if (result < 0) return result;
        if (result == 0) return -@as(i64, @intFromEnum(linux.E.NOSPC));
        done += @intCast(result);
    }
    return 0;
}

/// A pipe that no program started later has.
pub fn openPipe(ends: *[2]File) bool {
    return os.failed(linux.pipe2(ends, .{ .CLOEXEC = true })) == null;
}

/// Returns when all other ends of a pipe are closed, or something was written.
pub fn awaitPipe(end: File) void {
    var byte: [1]u8 = undefined;
    while (errnoOf(signed(linux.read(end, &byte, 1))) == .INTR) {}
}

pub fn statOf(file: File, out: *Stat) bool {
    return disk.stat(null, file, out) >= 0;
}

/// Returns when what was stored to the file is on the medium.
pub fn sync(file: File) i64 {
    return disk.sync(null, file);
}

pub fn close(file: File) void {
    disk.close(null, file);
}

pub fn errnoOf(result: i64) linux.E {
    return linux.errno(@bitCast(result));
}

fn signed(result: usize) i64 {
    return @bitCast(result);
}

test "a file without a name holds what is stored through a shared map, and knows itself again" {
    const file: File = @intCast(openUnnamed("/tmp"));
    try std.testing.expect(file >= 0);
    const moved = moveUp(file);
    defer close(moved);
    const identity = Identity.of(moved).?;
    try std.testing.expect(identity.is(moved) and !identity.is(none));
    try std.testing.expectEqual(@as(i64, 0), reserve(moved, 0, 1 << 16));
    const at = try os.reserve(0, 1 << 16);
    defer os.unmap(at, 1 << 16);
    try std.testing.expect(mapShared(at, 1 << 16, moved, 0) > 0);
    @as(*u8, @ptrFromInt(at + 5000)).* = 7;
    var byte: [1]u8 = undefined;
    try std.testing.expectEqual(@as(i64, 1), disk.read(null, moved, &byte, 5000));
    try std.testing.expectEqual(@as(u8, 7), byte[0]);
    try std.testing.expect(punch(at, 1 << 16));
    try std.testing.expectEqual(@as(u8, 0), @as(*u8, @ptrFromInt(at + 5000)).*);
    // As on a file system that gives no room before it is written.
    try std.testing.expectEqual(@as(i64, 0), writeBack(moved, 0, 1 << 17));
    try std.testing.expectEqual(@as(i64, 5), disk.write(null, moved, "kept!", 99_999));
    try std.testing.expectEqual(@as(i64, 0), writeBack(moved, 4096, 140_000));
    var five: [5]u8 = undefined;
    try std.testing.expectEqual(@as(i64, 5), disk.read(null, moved, &five, 99_999));
    try std.testing.expectEqualStrings("kept!", &five);
    var stat: Stat = .{};
    try std.testing.expect(statOf(moved, &stat) and stat.size == 144_096 and stat.allocated >= 140_000);
    try std.testing.expectEqual(linux.E.FBIG, errnoOf(reserve(moved, std.math.maxInt(i64), 1)));
}
