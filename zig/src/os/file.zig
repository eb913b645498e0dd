//! Small files read and written whole: kernel settings and the record of their former values.
//! Images go through disk.zig.

const std = @import("std");
const os = @import("os.zig");
const linux = std.os.linux;

/// Bytes read, at most `into.len`, or the error number.
pub const Result = union(enum) { bytes: usize, errno: u32 };

pub fn read(path: [*:0]const u8, into: []u8) Result {
    const fd = linux.open(path, .{ .ACCMODE = .RDONLY, .CLOEXEC = true, .NONBLOCK = true }, 0);
    if (os.failed(fd)) |errno| return .{ .errno = errno };
    defer _ = linux.close(@intCast(fd));
    if (!endsSomewhere(@intCast(fd))) return .{ .errno = @intFromEnum(os.E.NXIO) };
    var done: usize = 0;
    while (done < into.len) {
        const n = linux.read(@intCast(fd), into.ptr + done, into.len - done);
        if (os.failed(n)) |errno| {
            if (errno == @intFromEnum(os.E.INTR)) continue;
            return .{ .errno = errno };
        }
        if (n == 0) break;
        done += n;
    }
    return .{ .bytes = done };
}

/// With `create` the file is new (0600), never one that stands there, and synced; without, what
/// stands there is replaced in one write(2), as kernel settings want it.
pub fn write(path: [*:0]const u8, from: []const u8, create: bool) Result {
    const fd = linux.open(path, .{
        .ACCMODE = .WRONLY,
        .CREAT = create,
        .EXCL = create,
        .TRUNC = !create,
        .CLOEXEC = true,
        .NONBLOCK = true,
    }, 0o600);
    if (os.failed(fd)) |errno| return .{ .errno = errno };
    defer _ = linux.close(@intCast(fd));
    if (!endsSomewhere(@intCast(fd))) return .{ .errno = @intFromEnum(os.E.NXIO) };
    var done: usize = 0;
    while (done < from.len) {
        const n = linux.write(@intCast(fd), from.ptr + done, from.len - done);
        if (os.failed(n)) |errno| {
            if (errno == @intFromEnum(os.E.INTR)) continue;
            return .{ .errno = errno };
        }
        done += n;
    }
    if (create) if (os.failed(linux.fsync(@intCast(fd)))) |errno| return .{ .errno = errno };
    return .{ .bytes = done };
}

/// Whether it is a file, or a directory, of which reading says so: a pipe may never give anything, and
/// a device never end.
fn endsSomewhere(fd: i32) bool {
    var raw: linux.Statx = undefined;
    if (os.failed(linux.statx(fd, "", linux.AT.EMPTY_PATH, linux.STATX.BASIC_STATS, &raw)) != null) return false;
    return linux.S.ISREG(raw.mode) or linux.S.ISDIR(raw.mode);
}

/// Unlinks a file: the error number, or null when it is gone.
pub fn remove(path: [*:0]const u8) ?u32 {
    return os.failed(linux.unlink(path));
}

test "a file is created once and read back whole, a missing one gives its errno" {
    const path = "/tmp/perm-heap-file-test";
    _ = linux.unlink(path);
    defer _ = linux.unlink(path);
    try std.testing.expectEqual(Result{ .bytes = 5 }, write(path, "hello", true));
    var buffer: [16]u8 = undefined;
    try std.testing.expectEqual(Result{ .bytes = 5 }, read(path, &buffer));
    try std.testing.expectEqualStrings("hello", buffer[0..5]);
    try std.testing.expectEqual(@as(u32, @intFromEnum(os.E.EXIST)), write(path, "x", true).errno);
    try std.testing.expectEqual(Result{ .bytes = 1 }, write(path, "x", false));
    try std.testing.expectEqual(Result{ .bytes = 1 }, read(path, &buffer));
    const missing = read("/tmp/perm-heap-file-test/none", &buffer);
    try std.testing.expectEqual(@as(u32, @intFromEnum(os.E.NOTDIR)), missing.errno);
}
