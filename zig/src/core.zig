//! The rooms that Zig programs beside the library use: benchmarks now, Zig users of the heap later.

pub const alloc = @import("alloc/alloc.zig");
pub const os = @import("os/os.zig");
