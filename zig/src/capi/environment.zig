//! What a program's environment says of its default heap, in PERM's variables: PERM_FNAME, PERM_MODE,
//! PERM_SIZE and PERM_ADDRESS.

const std = @import("std");
const os = @import("../os/os.zig");
const errors = @import("../errors.zig");
const Mode = @import("../heap/heap.zig").Mode;

const Error = errors.Error;
const fail = errors.fail;

pub const Request = struct { path: [:0]const u8, mode: Mode, size: u64 };

/// The heap that PERM_FNAME names, or null when it names none. PERM's defaults: mode "w+", 1 GiB.
pub fn request() Error!?Request {
    const path = os.environment("PERM_FNAME") orelse return null;
    if (path.len == 0) return null;
    const mode = os.environment("PERM_MODE") orelse "w+";
    const size = os.environment("PERM_SIZE") orelse "1G";
    return .{
        .path = path,
        .mode = modeOf(mode) orelse return fail(.INVALID_ARGUMENT, .{ .path = path }, "Cannot open the heap \"{s}\" that " ++
            "PERM_FNAME names: PERM_MODE is \"{s}\"; give w+, r+ or r", .{ path, mode }),
        .size = sizeOf(size) orelse return fail(.INVALID_ARGUMENT, .{ .path = path }, "Cannot open the heap \"{s}\" that " ++
            "PERM_FNAME names: PERM_SIZE is \"{s}\"; give bytes, or a number followed by K, M, G or T", .{ path, size }),
    };
}

/// Where PERM_ADDRESS wants new heaps; 0 when it does not say.
pub fn address() Error!u64 {
    const text = os.environment("PERM_ADDRESS") orelse return 0;
    if (text.len == 0) return 0;
    return std.fmt.parseInt(u64, text, 0) catch fail(.INVALID_ARGUMENT, .{}, "Cannot place a heap: PERM_ADDRESS is " ++
        "\"{s}\"; give an address such as 0x420000000000", .{text});
}

pub fn modeOf(text: []const u8) ?Mode {
    if (std.mem.eql(u8, text, "w+")) return .w;
    if (std.mem.eql(u8, text, "r+")) return .rw;
    if (std.mem.eql(u8, text, "r")) return .r;
    return null;
}

fn sizeOf(text: []const u8) ?u64 {
    if (text.len == 0) return null;
    const shift: u6 = switch (std.ascii.toLower(text[text.len - 1])) {
        'k' => 10,
        'm' => 20,
        'g' => 30,
        't' => 40,
        else => 0,
    };
    const digits = if (shift == 0) text else text[0 .. text.len - 1];
    const number = std.fmt.parseInt(u64, digits, 0) catch return null;
    return std.math.shlExact(u64, number, shift) catch null;
}

test "sizes have PERM's suffixes, and nothing else" {
    try std.testing.expectEqual(@as(?u64, 4 << 30), sizeOf("4G"));
    try std.testing.expectEqual(@as(?u64, 512 << 10), sizeOf("0x200k"));
    try std.testing.expectEqual(@as(?u64, 65536), sizeOf("65536"));
    for ([_][]const u8{ "", "G", "12X", "-1", "1.5G", "99999999999G" }) |text| {
        try std.testing.expectEqual(@as(?u64, null), sizeOf(text));
    }
}
