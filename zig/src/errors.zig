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

/// What a failed call was about. Text is UTF-8 and bounded; longer text is cut. A zero byte follows
/// the message, for C.
pub const Record = struct {
    thread: usize,
    /// A `Code`.
    code: u8,
    errno: u32,
    address: u64,
    /// The last epoch known to be whole, of damage that leaves one; else 0.
    epoch: u64,
    message_len: u32,
    path_len: u32,
    owner_len: u32,
    message: [1024:0]u8,
    path: [1024]u8,
    owner: [owner_len_max]u8,
};

pub const owner_len_max = 256;

/// A thread finds its record by its id; a thread that meets a foreign one in its slot takes it over.
/// The slot is only wrong when two threads fail at the same moment and share a slot: the text may
/// then be the other's, the code never is (it is the return value).
var records: [64]Record = @splat(std.mem.zeroes(Record));
var records_lock: os.Mutex = .{};

/// `owner`: what a damaged page belongs to.
pub const Detail = struct { path: []const u8 = "", address: u64 = 0, errno: u32 = 0, epoch: u64 = 0, owner: []const u8 = "" };

/// Records a failure for the calling thread and returns its error: `return fail(.BUSY, …)`.
/// The message says what was being done, with which value, and what to do; no full stop.
/// `format` knows {d}, {x} and {s}; a brace is written twice.
pub fn fail(
    comptime code: Code,
    detail: Detail,
    comptime format: []const u8,
    args: anytype,
) Error {
    @branchHint(.cold);
    return failAs(code, detail, format, args);
}

/// `fail` with a code that is known only at run time.
pub fn failAs(code: Code, detail: Detail, comptime format: []const u8, args: anytype) Error {
    @branchHint(.cold);
    const fields = @typeInfo(@TypeOf(args)).@"struct".fields;
    comptime std.debug.assert(placeholders(format) == fields.len);
    var values: [fields.len]Value = undefined;
    inline for (fields, 0..) |field, i| values[i] = .of(@field(args, field.name));
    write(code, detail, format, &values);
    return errorOf(code);
}

/// Text in the way of messages, cut where `buffer` ends.
pub fn phrase(buffer: []u8, comptime format: []const u8, args: anytype) []const u8 {
    const fields = @typeInfo(@TypeOf(args)).@"struct".fields;
    comptime std.debug.assert(placeholders(format) == fields.len);
    var values: [fields.len]Value = undefined;
    inline for (fields, 0..) |field, i| values[i] = .of(@field(args, field.name));
    var writer: std.Io.Writer = .fixed(buffer);
    print(&writer, format, &values) catch {};
    return wholeCharacters(buffer[0..writer.end]);
}

fn placeholders(comptime format: []const u8) usize {
    @setEvalBranchQuota(10 * format.len + 1000);
    var count: usize = 0;
    for (format[1..], format[0 .. format.len - 1]) |byte, before| {
        if (before == '{' and (byte == 'd' or byte == 'x' or byte == 's')) count += 1;
    }
    return count;
}

fn errorOf(code: Code) Error {
    return switch (code) {
        inline else => |known| @field(Error, @tagName(known)),
    };
}

/// One formatter for all messages: an instance for each would be most of the library.
const Value = union(enum) {
    unsigned: u64,
    signed: i64,
    float: f64,
    text: []const u8,

    fn of(value: anytype) Value {
        return switch (@typeInfo(@TypeOf(value))) {
            .int => |int| if (int.signedness == .unsigned) .{ .unsigned = value } else .{ .signed = value },
            .comptime_int => .{ .unsigned = value },
            .float => .{ .float = value },
            .@"enum" => .{ .unsigned = @intFromEnum(value) },
            else => .{ .text = value },
        };
    }
};

/// UTF-8 that was cut, without the part of a character at its end.
fn wholeCharacters(text: []const u8) []const u8 {
    var end = text.len;
    while (end > 0 and text.len - end < 4) {
        end -= 1;
        const len = std.unicode.utf8ByteSequenceLength(text[end]) catch continue;
        return if (end + len <= text.len) text else text[0..end];
    }
    return text;
}

noinline fn write(code: Code, detail: Detail, format: []const u8, values: []const Value) void {
    records_lock.lock();
    defer records_lock.unlock();
    const record = &records[slotOf(os.threadId())];
    record.thread = os.threadId();
    record.code = @intFromEnum(code);
    record.errno = detail.errno;
    record.address = detail.address;
    // `detail` may point into the record itself when one failure explains another.
    record.path_len = @intCast(wholeCharacters(detail.path[0..@min(detail.path.len, record.path.len)]).len);
    @memmove(record.path[0..record.path_len], detail.path[0..record.path_len]);
    record.epoch = detail.epoch;
    record.owner_len = @intCast(wholeCharacters(detail.owner[0..@min(detail.owner.len, record.owner.len)]).len);
    @memmove(record.owner[0..record.owner_len], detail.owner[0..record.owner_len]);
    var buffer: [1024]u8 = undefined;
    var writer: std.Io.Writer = .fixed(&buffer);
    print(&writer, format, values) catch {};
    const message = wholeCharacters(buffer[0..writer.end]);
    record.message_len = @intCast(message.len);
    @memcpy(record.message[0..message.len], message);
    record.message[message.len] = 0;
}

fn print(writer: *std.Io.Writer, format: []const u8, values: []const Value) std.Io.Writer.Error!void {
    var next: usize = 0;
    var at: usize = 0;
    while (at < format.len) : (at += 1) {
        const byte = format[at];
        if (byte != '{' and byte != '}') {
            try writer.writeByte(byte);
            continue;
        }
        at += 1;
        if (byte == format[at]) {
            try writer.writeByte(byte);
            continue;
        }
        const base: u8 = if (format[at] == 'x') 16 else 10;
        switch (values[next]) {
            .unsigned => |number| try writer.printInt(number, base, .lower, .{}),
            .signed => |number| try writer.printInt(number, base, .lower, .{}),
            .float => |number| try printFloat(writer, number),
            .text => |text| try writer.writeAll(text),
        }
        next += 1;
        at += 1;
    }
}

/// Numbers from TypeScript, for messages: whole ones exactly, others to six places.
fn printFloat(writer: *std.Io.Writer, value: f64) std.Io.Writer.Error!void {
    if (std.math.isNan(value)) return writer.writeAll("NaN");
    if (value < 0) try writer.writeAll("-");
    const size = @abs(value);
    if (std.math.isInf(size)) return writer.writeAll("Infinity");
    if (size >= 1 << 63) return writer.writeAll("more than 2^63");
    const whole: u64 = @intFromFloat(size);
    try writer.printInt(whole, 10, .lower, .{});
    var fraction: u64 = @intFromFloat((size - @floor(size)) * 1e6);
    if (fraction == 0 and size == @floor(size)) return;
    var digits: usize = 6;
    while (digits > 1 and fraction % 10 == 0) : (digits -= 1) fraction /= 10;
    try writer.writeAll(".");
    try writer.printInt(fraction, 10, .lower, .{ .width = digits, .fill = '0' });
}

/// In a forked child, whose other threads are gone.
pub fn afterFork() void {
    records_lock = .{};
}

/// The calling thread's last failure, or null when it has none.
pub fn last() ?*const Record {
    const record = &records[slotOf(os.threadId())];
    return if (record.thread == os.threadId()) record else null;
}

/// The calling thread has no last failure any more.
pub fn clear() void {
    records_lock.lock();
    defer records_lock.unlock();
    const record = &records[slotOf(os.threadId())];
    if (record.thread == os.threadId()) record.thread = 0;
}

/// The calling thread's last failure, to be told elsewhere.
pub fn copyLast() Record {
    records_lock.lock();
    defer records_lock.unlock();
    return records[slotOf(os.threadId())];
}

/// Makes a failure of another thread the calling one's.
pub fn repeat(record: *const Record) Error {
    records_lock.lock();
    defer records_lock.unlock();
    const mine = &records[slotOf(os.threadId())];
    mine.* = record.*;
    mine.thread = os.threadId();
    return errorOf(@enumFromInt(record.code));
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

test "messages format whole, broken, negative and absurd numbers" {
    const numbers = .{ 7, @as(u64, 255), "text", @as(f64, 1.5), @as(f64, -0.25), @as(f64, 1e300) };
    try std.testing.expectEqual(error.IO, fail(.IO, .{}, "{{{d}}} {x} {s} {d} {d} {d}", numbers));
    const record = last().?;
    try std.testing.expectEqualStrings("{7} ff text 1.5 -0.25 more than 2^63", record.message[0..record.message_len]);
}

test "text that does not fit is cut between characters" {
    const path = "\u{1f600}" ** 300;
    try std.testing.expectEqual(error.NOT_FOUND, fail(.NOT_FOUND, .{ .path = "a" ++ path }, "Cannot find {s}", .{"ab" ++ path}));
    const record = last().?;
    try std.testing.expect(std.unicode.utf8ValidateSlice(record.message[0..record.message_len]));
    try std.testing.expect(std.unicode.utf8ValidateSlice(record.path[0..record.path_len]));
    try std.testing.expectEqual(@as(u32, 1021), record.path_len);
}
