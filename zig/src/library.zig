//! The root of the shared library: exports what abi.zig declares.

const std = @import("std");
const abi = @import("abi.zig");

/// Which ABI this library has; TypeScript looks before it calls anything else. As a number too, for
/// Deno reads one in a third of the time that a first call takes.
const ph_abi_hash: f64 = @floatFromInt(abi.abi_hash);

fn ph_abi() callconv(.c) f64 {
    return ph_abi_hash;
}

comptime {
    @export(&ph_abi, .{ .name = "ph_abi" });
    @export(&ph_abi_hash, .{ .name = "ph_abi_hash" });
    for (abi.function_sets) |set| for (@typeInfo(set).@"struct".decls) |decl| {
        @export(&@field(set, decl.name), .{ .name = decl.name });
    };
}

/// An error in here is a bug of ours. The host's runtime must not print for us nor unwind through
/// us: stop where we stand.
pub const panic = std.debug.no_panic;
