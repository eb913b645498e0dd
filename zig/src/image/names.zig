//! Where an image's files are: the directory held open, the base's name in it with symbolic links
//! followed once, and the names made from it.
//!
//! Invariant: after `resolve` no path is walked again; every call names a file in the held directory.

const std = @import("std");
const errors = @import("../errors.zig");
const disk_ = @import("disk.zig");
const Disk = disk_.Disk;
const File = disk_.File;
const failAs = disk_.failAs;

/// The longest name a file may have, and what our longest addition takes of it:
/// "-damaged-<16>-log-<16>".
const name_max = 255;
const addition_max = 25 + 21;

pub const Name = struct {
    buffer: [name_max + 1]u8 = @splat(0),
    len: usize = 0,

    pub fn z(self: *const Name) [*:0]const u8 {
        return @ptrCast(&self.buffer);
    }

    pub fn slice(self: *const Name) []const u8 {
        return self.buffer[0..self.len];
    }

    pub fn of(text: []const u8) Name {
        var self: Name = .{ .len = text.len };
        @memcpy(self.buffer[0..text.len], text);
        return self;
    }

    fn plus(self: *const Name, comptime format: []const u8, args: anytype) Name {
        var made = self.*;
        const added = std.fmt.bufPrint(made.buffer[made.len..name_max], format, args) catch unreachable;
        made.len += added.len;
        return made;
    }

    /// A base that is being written.
    pub fn unfinished(self: *const Name) Name {
        return self.plus("-new", .{});
    }

    pub fn log(self: *const Name, id: u64) Name {
        return self.plus("-log-{x:0>16}", .{id});
    }

    pub fn damaged(self: *const Name, id: u64) Name {
        return self.plus("-damaged-{x:0>16}", .{id});
    }
};

pub const Place = struct {
    dir: File,
    name: Name,
};

/// True for names that the engine makes itself: nobody may open those as an image.
fn isOurs(name: []const u8) bool {
    if (std.mem.endsWith(u8, name, "-new")) return true;
    return isLog(name);
}

fn isLog(name: []const u8) bool {
    const tail = "-log-".len + 16;
    if (name.len <= tail) return false;
    const end = name[name.len - tail ..];
    return std.mem.startsWith(u8, end, "-log-") and isHex(end["-log-".len..]);
}

/// Whether `name` is that of a log, of any age, of the base `base`.
pub fn isLogOf(name: []const u8, base: []const u8) bool {
    return name.len == base.len + "-log-".len + 16 and std.mem.startsWith(u8, name, base) and isLog(name);
}

fn isHex(text: []const u8) bool {
    for (text) |char| switch (char) {
        '0'...'9', 'a'...'f' => {},
        else => return false,
    };
    return true;
}

/// Follows symbolic links to where the base is or will be, and opens its directory.
pub fn resolve(disk: Disk, path: []const u8) errors.Error!Place {
    const link_max = 40;
    const path_max = 4096;
    if (path.len == 0 or path.len >= path_max or std.mem.indexOfScalar(u8, path, 0) != null) {
        return failAs(.INVALID_ARGUMENT, .{ .path = path }, "Cannot open image \"{s}\": a path has 1 to 4,095 bytes, none of them 0", .{path});
    }
    var text: [path_max]u8 = undefined;
    var rest: []const u8 = std.mem.trimEnd(u8, path, "/");
    if (rest.len == 0) rest = "/.";
    var dir: File = disk_.cwd;
    errdefer if (dir != disk_.cwd) disk.close(&dir);
    for (0..link_max) |_| {
        const slash = std.mem.lastIndexOfScalar(u8, rest, '/');
        const last = if (slash) |at| rest[at + 1 ..] else rest;
        var parent: [path_max + 1]u8 = @splat(0);
        const parent_text = if (slash) |at| (if (at == 0) "/" else rest[0..at]) else ".";
        @memcpy(parent[0..parent_text.len], parent_text);
        const above: File = switch (disk.open(dir, @ptrCast(&parent), .{ .directory = true, .no_follow = false })) {
            .file => |file| file,
            .errno => |errno| return disk_.failErrno(errno, path, "Cannot open the directory of image"),
        };
        if (dir != disk_.cwd) disk.close(&dir);
        dir = above;
        if (last.len > name_max - addition_max) {
            return failAs(.INVALID_ARGUMENT, .{ .path = path }, "Cannot open image \"{s}\": its name has {d} bytes, {d} leave room for its log's", .{ path, last.len, name_max - addition_max });
        }
        const name = Name.of(last);
        var target: [path_max]u8 = undefined;
        const len = disk.readLink(dir, name.z(), &target) orelse {
            if (isOurs(last)) return failAs(.INVALID_ARGUMENT, .{ .path = path }, "Cannot open image \"{s}\": names ending in -new or -log-<16 hex> belong to other images' files; name the base", .{path});
            return .{ .dir = dir, .name = name };
        };
        if (len == 0 or len >= path_max) break;
        @memcpy(text[0..len], target[0..len]);
        rest = std.mem.trimEnd(u8, text[0..len], "/");
        if (rest.len == 0) rest = "/.";
    }
    return failAs(.NOT_FOUND, .{ .path = path }, "Cannot open image \"{s}\": too many symbolic links", .{path});
}

test "our own names are known, others are not" {
    try std.testing.expect(isOurs("a-new"));
    try std.testing.expect(isOurs("a.back-log-0123456789abcdef"));
    try std.testing.expect(!isOurs("a.back-log-0123456789abcdeg"));
    try std.testing.expect(!isOurs("a.back-damaged-0123456789abcdef"));
    try std.testing.expect(!isOurs("renewed"));
    try std.testing.expect(isLogOf("a-log-0123456789abcdef", "a"));
    try std.testing.expect(!isLogOf("ab-log-0123456789abcdef", "a"));
    try std.testing.expect(!isLogOf("a-log-0123456789abcdef-log-0123456789abcdef", "a"));
}
