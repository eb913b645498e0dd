//! The root of libperm.so, the library for C and C++: exports what capi/capi.zig declares. It needs
//! no libc of its own and runs with glibc and musl alike.

const std = @import("std");
const capi = @import("capi/capi.zig");

comptime {
    for (@typeInfo(capi.functions).@"struct".decls) |decl| {
        @export(&@field(capi.functions, decl.name), .{ .name = decl.name });
    }
}

/// An error in here is a bug of ours. The program must not find text of ours on its standard error,
/// nor be unwound: stop where we stand.
pub const panic = std.debug.no_panic;
