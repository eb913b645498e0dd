//! The root of libperm.a: libperm as it is linked into a program, with the program's libc.

const std = @import("std");

/// Takes threads and hooks out of a static libc, where weak symbols would stay null (os.zig).
pub const links_host = {};

pub const panic = std.debug.no_panic;

comptime {
    _ = @import("libperm.zig");
}
