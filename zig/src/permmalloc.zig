//! The root of libpermmalloc.so: the malloc family of an unmodified program, from a pool file that is
//! gone when the process ends. Preloaded, or linked with -lpermmalloc; see docs/permmalloc.md.
//!
//!   malloc     the C functions: errno, alignments, pointers that are not ours
//!   process    the choice between pool and system's malloc, fork, the end
//!   pool       the memory: a file mapped piece by piece below the heap's allocator
//!   settings   the environment          log   lines and statistics
//!
//! Invariants: no libc, no thread-local storage, nothing that allocates; it works from the loader's
//! first call on.

const std = @import("std");
const malloc = @import("permmalloc/malloc.zig");
const process = @import("permmalloc/process.zig");

const begin: *const fn () callconv(.c) void = &process.begin;
const end: *const fn () callconv(.c) void = &process.end;

comptime {
    @export(&begin, .{ .name = "permmalloc_begin", .section = ".init_array", .visibility = .hidden });
    @export(&end, .{ .name = "permmalloc_end", .section = ".fini_array", .visibility = .hidden });
    for (@typeInfo(malloc.functions).@"struct".decls) |decl| {
        @export(&@field(malloc.functions, decl.name), .{ .name = decl.name });
    }
}

/// A bug of ours stops the program where it stands: printing might allocate.
pub const panic = std.debug.no_panic;
