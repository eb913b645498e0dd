//! The root of the shared library: exports what abi.zig declares.

const std = @import("std");
const abi = @import("abi.zig");

/// Which ABI this library has; TypeScript looks before it calls anything else.
fn ph_abi() callconv(.c) f64 {
    return @floatFromInt(abi.abi_hash);
}

comptime {
    @export(&ph_abi, .{ .name = "ph_abi" });
    for (abi.function_sets) |set| for (@typeInfo(set).@"struct".decls) |decl| {
        @export(&@field(set, decl.name), .{ .name = decl.name });
    };
}

/// An error in here is a bug of ours. The host's runtime must not print for us nor unwind through
/// us: stop where we stand.
pub const panic = std.debug.no_panic;
