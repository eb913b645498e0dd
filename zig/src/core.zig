//! The rooms that the benchmarks in Zig measure apart from a heap. Programs have `perm.zig`.

pub const alloc = @import("alloc/alloc.zig");
pub const os = @import("os/os.zig");
