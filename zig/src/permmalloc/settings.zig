//! What the environment asks of libpermmalloc. Parsing only: nothing is opened here.
//!
//! Invariant: a value that is not understood is an error that names it and says what to give; there
//! are no silent corrections.

const std = @import("std");

/// The least VMMALLOC_POOL_SIZE, as in permmalloc.h.
pub const pool_size_min: u64 = 14 << 20;
/// The most: as far as the allocator's tables reach.
pub const pool_size_max: u64 = 8 << 40;

pub const Fork = enum(u8) {
    /// The child shares the pool's memory with its parent, for children that only call exec.
    nothing = 0,
    /// What both have is private to each from the fork on.
    private = 1,
    /// The child gets a copy of the pool, or ends.
    copy = 2,
    /// The child gets a copy of the pool, or what `private` gives.
    copy_or_private = 3,
};

pub const Settings = struct {
    directory_buffer: [4096]u8 = undefined,
    directory: [:0]const u8 = "",
    pool_size: u64 = pool_size_min,
    fork: Fork = .private,
    /// 0 nothing, 1 what failed, 2 what the pool does, 3 each piece of it.
    log_level: u8 = 0,
    log_stats: bool = false,
    log_file_buffer: [4096]u8 = undefined,
    /// Empty: standard error.
    log_file: [:0]const u8 = "",
};

/// What is wrong with a setting, for one line.
pub const Fault = struct { name: []const u8, value: []const u8, advice: []const u8 };

/// Reads the environment; null when all is well. `working_directory` stands before relative paths; it is
/// empty where it cannot be told.
pub fn read(
    settings: *Settings,
    environment: ?[*:null]const ?[*:0]const u8,
    working_directory: []const u8,
    process: u32,
) ?Fault {
    const directory = get(environment, "VMMALLOC_POOL_DIR") orelse "";
    if (directory.len == 0) return .{
        .name = "VMMALLOC_POOL_DIR",
        .value = directory,
        .advice = "name a directory for the pool",
    };
    if (isLost(working_directory, directory)) return lost("VMMALLOC_POOL_DIR", directory);
    settings.directory = absolute(&settings.directory_buffer, working_directory, directory, "") orelse
        return tooLong("VMMALLOC_POOL_DIR", directory);

    if (get(environment, "VMMALLOC_POOL_SIZE")) |text| {
        const wrong: Fault = .{
            .name = "VMMALLOC_POOL_SIZE",
            .value = text,
            .advice = "give a number of bytes from 14M to 8T; K, M, G or T may follow it",
        };
        const size = parseSize(text) orelse return wrong;
        if (size < pool_size_min or size > pool_size_max) return wrong;
        settings.pool_size = size;
    }
    if (get(environment, "VMMALLOC_FORK")) |text| {
        const number = digit(text, 3) orelse
            return .{ .name = "VMMALLOC_FORK", .value = text, .advice = "give 0, 1, 2 or 3" };
        settings.fork = @enumFromInt(number);
    }
    if (get(environment, "VMMALLOC_LOG_LEVEL")) |text| {
        settings.log_level = digit(text, 9) orelse
            return .{ .name = "VMMALLOC_LOG_LEVEL", .value = text, .advice = "give 0, 1, 2 or 3" };
    }
    if (get(environment, "VMMALLOC_LOG_STATS")) |text| {
        const number = digit(text, 1) orelse
            return .{ .name = "VMMALLOC_LOG_STATS", .value = text, .advice = "give 0 or 1" };
        settings.log_stats = number == 1;
    }
    if (get(environment, "VMMALLOC_LOG_FILE")) |text| if (text.len > 0) {
        var number: [16]u8 = undefined;
        const each = text[text.len - 1] == '-';
        const suffix = if (each) std.fmt.bufPrint(&number, "{d}", .{process}) catch unreachable else "";
        if (isLost(working_directory, text)) return lost("VMMALLOC_LOG_FILE", text);
        settings.log_file = absolute(&settings.log_file_buffer, working_directory, text, suffix) orelse
            return tooLong("VMMALLOC_LOG_FILE", text);
    };
    return null;
}

fn get(environment: ?[*:null]const ?[*:0]const u8, name: []const u8) ?[]const u8 {
    const values = environment orelse return null;
    var i: usize = 0;
    while (values[i]) |value| : (i += 1) {
        const text = std.mem.span(value);
        if (text.len > name.len and text[name.len] == '=' and std.mem.startsWith(u8, text, name))
            return text[name.len + 1 ..];
    }
    return null;
}

fn isLost(working_directory: []const u8, path: []const u8) bool {
    return working_directory.len == 0 and path[0] != '/';
}

fn lost(name: []const u8, value: []const u8) Fault {
    return .{ .name = name, .value = value, .advice = "the working directory is not to be found; give a path that begins with /" };
}

fn tooLong(name: []const u8, value: []const u8) Fault {
    return .{ .name = name, .value = value, .advice = "give a path of less than 4096 bytes" };
}

/// The path from the root on: a program may change its directory later.
fn absolute(buffer: []u8, working_directory: []const u8, path: []const u8, suffix: []const u8) ?[:0]const u8 {
    const before = if (path.len > 0 and path[0] == '/') "" else working_directory;
    const slash = if (before.len > 0 and before[before.len - 1] != '/') "/" else "";
    const parts = [_][]const u8{ before, slash, path, suffix };
    var len: usize = 0;
    for (parts) |part| {
        if (len + part.len + 1 > buffer.len) return null;
        @memcpy(buffer[len..][0..part.len], part);
        len += part.len;
    }
    buffer[len] = 0;
    return buffer[0..len :0];
}

fn digit(text: []const u8, max: u8) ?u8 {
    if (text.len != 1 or text[0] < '0' or text[0] > '0' + max) return null;
    return text[0] - '0';
}

/// A number of bytes; K, M, G, T are powers of 1024, in either case, and `iB` or `B` may follow them.
pub fn parseSize(text: []const u8) ?u64 {
    var rest = text;
    var number: u64 = 0;
    while (rest.len > 0 and rest[0] >= '0' and rest[0] <= '9') : (rest = rest[1..]) {
        number = std.math.mul(u64, number, 10) catch return null;
        number = std.math.add(u64, number, rest[0] - '0') catch return null;
    }
    if (rest.len == text.len) return null;
    if (rest.len == 0) return number;
    const shift: u6 = switch (rest[0]) {
        'K', 'k' => 10,
        'M', 'm' => 20,
        'G', 'g' => 30,
        'T', 't' => 40,
        else => return null,
    };
    const tail = rest[1..];
    if (tail.len > 0 and !std.mem.eql(u8, tail, "iB") and !std.mem.eql(u8, tail, "B")) return null;
    return std.math.mul(u64, number, @as(u64, 1) << shift) catch null;
}

test "sizes are numbers with a suffix, and nothing else is one" {
    const good = .{ .{ "0", 0 }, .{ "14M", 14 << 20 }, .{ "2k", 2048 }, .{ "1T", 1 << 40 }, .{ "3GiB", 3 << 30 }, .{ "17179869184", 1 << 34 } };
    inline for (good) |pair| try std.testing.expectEqual(@as(?u64, pair[1]), parseSize(pair[0]));
    for ([_][]const u8{ "", "M", "-1", "1.5G", " 1G", "1G ", "1P", "0x10", "1GB1", "99999999999999999999", "18446744073709551615K" }) |text|
        try std.testing.expectEqual(@as(?u64, null), parseSize(text));
}

test "settings are read from the environment, relative paths made absolute" {
    var settings: Settings = .{};
    const environment = [_:null]?[*:0]const u8{
        "VMMALLOC_POOL_DIRX=/no",       "VMMALLOC_POOL_DIR=pool", "VMMALLOC_POOL_SIZE=1G", "VMMALLOC_FORK=3",
        "VMMALLOC_LOG_FILE=/log/perm-", "VMMALLOC_LOG_LEVEL=2",   "VMMALLOC_LOG_STATS=1",
    };
    try std.testing.expectEqual(@as(?Fault, null), read(&settings, &environment, "/mnt", 77));
    try std.testing.expectEqualStrings("/mnt/pool", settings.directory);
    try std.testing.expectEqualStrings("/log/perm-77", settings.log_file);
    try std.testing.expectEqual(@as(u64, 1 << 30), settings.pool_size);
    try std.testing.expectEqual(Fork.copy_or_private, settings.fork);
    try std.testing.expect(settings.log_stats and settings.log_level == 2);
}

test "each bad setting is named" {
    const cases = .{
        .{ "VMMALLOC_POOL_SIZE=13M", "VMMALLOC_POOL_SIZE" },
        .{ "VMMALLOC_POOL_SIZE=9T", "VMMALLOC_POOL_SIZE" },
        .{ "VMMALLOC_POOL_SIZE=", "VMMALLOC_POOL_SIZE" },
        .{ "VMMALLOC_FORK=4", "VMMALLOC_FORK" },
        .{ "VMMALLOC_LOG_LEVEL=loud", "VMMALLOC_LOG_LEVEL" },
        .{ "VMMALLOC_LOG_STATS=yes", "VMMALLOC_LOG_STATS" },
        .{ "VMMALLOC_LOG_FILE=" ++ "x" ** 5000, "VMMALLOC_LOG_FILE" },
    };
    inline for (cases) |case| {
        var settings: Settings = .{};
        const environment = [_:null]?[*:0]const u8{ "VMMALLOC_POOL_DIR=/tmp", case[0] };
        try std.testing.expectEqualStrings(case[1], read(&settings, &environment, "/", 1).?.name);
    }
    var settings: Settings = .{};
    try std.testing.expectEqualStrings("VMMALLOC_POOL_DIR", read(&settings, null, "/", 1).?.name);
}
