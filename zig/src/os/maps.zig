//! What stands in the way of an address: a look into /proc/self/maps, for messages only.

const std = @import("std");
const os = @import("os.zig");
const linux = std.os.linux;

/// The first line of /proc/self/maps that overlaps `[start, end)`, copied into `line`; empty when
/// none does or the file cannot be read.
pub fn overlapping(start: usize, end: usize, line: []u8) []const u8 {
    const fd = linux.open("/proc/self/maps", .{ .ACCMODE = .RDONLY, .CLOEXEC = true }, 0);
    if (os.failed(fd) != null) return "";
    defer _ = linux.close(@intCast(fd));
    var buffer: [16384]u8 = undefined;
    var held: usize = 0;
    while (true) {
        const n = linux.read(@intCast(fd), buffer[held..].ptr, buffer.len - held);
        if (os.failed(n) != null or n == 0) return "";
        held += n;
        var rest: []const u8 = buffer[0..held];
        while (std.mem.indexOfScalar(u8, rest, '\n')) |newline| {
            const text = rest[0..newline];
            rest = rest[newline + 1 ..];
            const range = parse(text) orelse continue;
            if (range[0] < end and start < range[1]) {
                const len = @min(text.len, line.len);
                @memcpy(line[0..len], text[0..len]);
                return line[0..len];
            }
        }
        std.mem.copyForwards(u8, &buffer, rest);
        held = rest.len;
        if (held == buffer.len) return "";
    }
}

/// Whether all of `[start, end)` can be read and written; null when the kernel does not tell.
pub fn isWritable(start: usize, end: usize) ?bool {
    var at = start;
    while (at < end) {
        var line: [64]u8 = undefined;
        const text = overlapping(at, at + 1, &line);
        if (text.len == 0) return if (at == start and overlapping(0, std.math.maxInt(usize), &line).len == 0) null else false;
        const space = std.mem.indexOfScalar(u8, text, ' ') orelse return null;
        if (!std.mem.startsWith(u8, text[space + 1 ..], "rw")) return false;
        at = (parse(text) orelse return null)[1];
    }
    return true;
}

fn parse(text: []const u8) ?[2]usize {
    const dash = std.mem.indexOfScalar(u8, text, '-') orelse return null;
    const space = std.mem.indexOfScalar(u8, text, ' ') orelse return null;
    if (dash > space) return null;
    const start = std.fmt.parseInt(usize, text[0..dash], 16) catch return null;
    const end = std.fmt.parseInt(usize, text[dash + 1 .. space], 16) catch return null;
    return .{ start, end };
}

test "a map of ours is found by its address" {
    const pages = try os.allocatePages(os.page_size);
    defer os.freePages(pages);
    var line: [256]u8 = undefined;
    const at = @intFromPtr(pages.ptr);
    try std.testing.expect(overlapping(at, at + 1, &line).len > 0);
    try std.testing.expectEqualStrings("", overlapping(0x3f00_0000_0000, 0x3f00_0000_1000, &line));
}

test "what is mapped and may be written is told from what is not" {
    const pages = try os.allocatePages(2 * os.page_size);
    defer os.freePages(pages);
    const at = @intFromPtr(pages.ptr);
    try std.testing.expectEqual(true, isWritable(at, at + 2 * os.page_size));
    try std.testing.expectEqual(false, isWritable(16, 24));
    try std.testing.expectEqual(false, isWritable(@intFromPtr(&isWritable), @intFromPtr(&isWritable) + 1));
    os.reserveOver(at + os.page_size, os.page_size);
    try std.testing.expectEqual(false, isWritable(at + 8, at + os.page_size + 8));
}
