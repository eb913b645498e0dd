//! The one list of error codes, shared by Zig, the ABI and TypeScript. An error code crosses the
//! ABI as the negative of its number; what it is about (message, path, address, errno) waits in the
//! calling thread's `Record` until `ph_error` fetches it.
//!
//! Invariant: numbers are part of the ABI and only ever appended.

const std = @import("std");
const os = @import("os/os.zig");

pub const Code = enum(u8) {
    INVALID_ARGUMENT = 1,
    NOT_FOUND,
    EXISTS,
    BUSY,
    READ_ONLY,
    NOT_OPEN,
    ALREADY_OPEN,
    CLOSED,
    NO_COMMIT,
    NO_EPOCH,
    NOT_AN_IMAGE,
    BAD_VERSION,
    CORRUPT,
    ADDRESS_IN_USE,
    BLOCK_MISMATCH,
    OUT_OF_MEMORY,
    NO_SPACE,
    IO,
    BAD_POINTER,
    DOUBLE_FREE,
    STALE,
    LAYOUT_MISMATCH,
    FORKED,
    PERMISSION,
    UNSUPPORTED,
};

/// One Zig error per code, so that functions return `Error!T` and the ABI maps it back by name.
pub const Error = error{
    INVALID_ARGUMENT,
    NOT_FOUND,
    EXISTS,
    BUSY,
    READ_ONLY,
    NOT_OPEN,
    ALREADY_OPEN,
    CLOSED,
    NO_COMMIT,
    NO_EPOCH,
    NOT_AN_IMAGE,
    BAD_VERSION,
    CORRUPT,
    ADDRESS_IN_USE,
    BLOCK_MISMATCH,
    OUT_OF_MEMORY,
    NO_SPACE,
    IO,
    BAD_POINTER,
    DOUBLE_FREE,
    STALE,
    LAYOUT_MISMATCH,
    FORKED,
    PERMISSION,
    UNSUPPORTED,
};

comptime {
    const codes = @typeInfo(Code).@"enum".fields;
    const errors = @typeInfo(Error).error_set.?;
    std.debug.assert(codes.len == errors.len);
    for (codes) |code| std.debug.assert(@errorName(@field(Error, code.name)).len > 0);
}

pub fn codeOf(err: Error) Code {
    inline for (@typeInfo(Code).@"enum".fields) |field| {
        if (err == @field(Error, field.name)) return @enumFromInt(field.value);
    }
    unreachable;
}

/// What a failed call was about. Text is UTF-8 and bounded; longer text is cut.
pub const Record = struct {
    thread: usize = 0,
    code: Code = .IO,
    errno: u32 = 0,
    address: u64 = 0,
    message_len: u32 = 0,
    path_len: u32 = 0,
    message: [1024]u8 = undefined,
    path: [1024]u8 = undefined,
};

/// A thread finds its record by its id; a thread that meets a foreign one in its slot takes it over.
/// The slot is only wrong when two threads fail at the same moment and share a slot: the text may
/// then be the other's, the code never is (it is the return value).
var records: [64]Record = @splat(.{});
var records_lock: os.Mutex = .{};

pub const Detail = struct { path: []const u8 = "", address: u64 = 0, errno: u32 = 0 };

/// Records a failure for the calling thread and returns its error: `return fail(.BUSY, …)`.
/// The message says what was being done, with which value, and what to do; no full stop.
pub fn fail(
    comptime code: Code,
    detail: Detail,
    comptime format: []const u8,
    args: anytype,
) Error {
    @branchHint(.cold);
    records_lock.lock();
    defer records_lock.unlock();
    const record = &records[slotOf(os.threadId())];
    record.thread = os.threadId();
    record.code = code;
    record.errno = detail.errno;
    record.address = detail.address;
    record.path_len = @intCast(@min(detail.path.len, record.path.len));
    @memcpy(record.path[0..record.path_len], detail.path[0..record.path_len]);
    var writer: std.Io.Writer = .fixed(&record.message);
    writer.print(format, args) catch {};
    record.message_len = @intCast(writer.end);
    return @field(Error, @tagName(code));
}

/// The calling thread's last failure, or null when it has none.
pub fn last() ?*const Record {
    const record = &records[slotOf(os.threadId())];
    return if (record.thread == os.threadId()) record else null;
}

fn slotOf(thread: usize) usize {
    return @truncate((thread *% 0x9e37_79b9_7f4a_7c15) >> 58);
}

test "fail() keeps message, path and errno for its thread" {
    const err = fail(.BUSY, .{ .path = "a.back", .errno = 11 }, "Cannot lock {s}", .{"a.back"});
    try std.testing.expectEqual(error.BUSY, err);
    const record = last().?;
    try std.testing.expectEqualStrings("Cannot lock a.back", record.message[0..record.message_len]);
    try std.testing.expectEqualStrings("a.back", record.path[0..record.path_len]);
    try std.testing.expectEqual(@as(u32, 11), record.errno);
    try std.testing.expectEqual(Code.BUSY, codeOf(err));
}
