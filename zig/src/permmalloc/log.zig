//! Lines that libpermmalloc prints: complaints to standard error, its log where the settings say.
//!
//! Invariant: a line is made on the stack and written in one call; nothing is allocated, and no file
//! is kept open for it.

const std = @import("std");
const os = @import("../os/os.zig");
const host = @import("../os/host.zig");
const Settings = @import("settings.zig").Settings;

pub const prefix = "libpermmalloc: ";

/// The settings in force; null until they are read.
pub var settings: ?*const Settings = null;

fn wants(level: u8) bool {
    const s = settings orelse return false;
    return s.log_level >= level;
}

/// A line of the log, if the settings want lines of this level.
pub fn line(level: u8, comptime format: []const u8, args: anytype) void {
    if (wants(level)) always(format, args);
}

/// A line of the log.
pub fn always(comptime format: []const u8, args: anytype) void {
    var buffer: [1024]u8 = undefined;
    const text = make(&buffer, "[{d}] " ++ format, .{os.processId()} ++ args);
    const s = settings orelse return host.complain(text);
    if (s.log_file.len == 0) return host.complain(text);
    // The file system of the log may be full or gone: the program need not know.
    _ = host.append(s.log_file, text);
}

/// A line on standard error, whatever the settings are.
pub fn complain(comptime format: []const u8, args: anytype) void {
    var buffer: [1024]u8 = undefined;
    host.complain(make(&buffer, format, args));
}

fn make(buffer: []u8, comptime format: []const u8, args: anytype) []const u8 {
    @memcpy(buffer[0..prefix.len], prefix);
    var writer: std.Io.Writer = .fixed(buffer[prefix.len .. buffer.len - 1]);
    writer.print(format, args) catch {}; // What does not fit is cut.
    const len = prefix.len + writer.end;
    buffer[len] = '\n';
    return buffer[0 .. len + 1];
}

test "a line has its prefix and its end, and a long one is cut" {
    var buffer: [64]u8 = undefined;
    try std.testing.expectEqualStrings("libpermmalloc: pool 7\n", make(&buffer, "pool {d}", .{7}));
    const cut = make(&buffer, "{s}", .{"x" ** 100});
    try std.testing.expectEqual(@as(usize, 64), cut.len);
    try std.testing.expectEqual(@as(u8, '\n'), cut[63]);
}
