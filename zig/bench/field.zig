//! The field's allocator benchmarks, written anew: each pattern of patterns.zig and
//! patterns_threads.zig on the heap's allocator (`ours`) or on the process's malloc (`host`, which is
//! glibc's or whichever is preloaded). Prints nanoseconds, operations and the peak of resident memory
//! in KiB. One pattern and one side a process, so that no allocator meets another's leavings.
//!
//!     bench-field                          lists the patterns
//!     bench-field PATTERN ours|host [N]    N: how many times the usual work, in percent

const std = @import("std");
const core = @import("core");
const single = @import("patterns.zig");
const threaded = @import("patterns_threads.zig");

const os = core.os;
const linux = std.os.linux;
const Allocator = core.alloc.Allocator;
const Geometry = core.alloc.Geometry;

const c = struct {
    extern "c" fn malloc(size: usize) ?*anyopaque;
    extern "c" fn realloc(block: ?*anyopaque, size: usize) ?*anyopaque;
    extern "c" fn free(block: ?*anyopaque) void;
    extern "c" fn printf(format: [*:0]const u8, ...) c_int;
    extern "c" fn strtoul(text: [*:0]const u8, end: ?*?[*:0]u8, base: c_int) c_ulong;
};

var allocator: Allocator = .{};

const Ours = struct {
    pub noinline fn malloc(size: usize) usize {
        const block = allocator.tryMalloc(size);
        return if (block != 0) block else mallocSlow(size);
    }
    noinline fn mallocSlow(size: usize) usize {
        return allocator.mallocSlow(size) catch unreachable;
    }
    pub noinline fn realloc(block: usize, size: usize) usize {
        return allocator.realloc(block, size) catch unreachable;
    }
    pub noinline fn free(block: usize) void {
        if (!allocator.tryFree(block)) freeSlow(block);
    }
    noinline fn freeSlow(block: usize) void {
        allocator.freeSlow(block) catch unreachable;
    }
};

const Host = struct {
    pub inline fn malloc(size: usize) usize {
        return @intFromPtr(c.malloc(size).?);
    }
    pub inline fn realloc(block: usize, size: usize) usize {
        return @intFromPtr(c.realloc(@ptrFromInt(block), size).?);
    }
    pub inline fn free(block: usize) void {
        c.free(@ptrFromInt(block));
    }
};

const Pattern = struct { name: []const u8, ours: *const fn (u64) u64, host: *const fn (u64) u64 };

/// Public functions of both files; an underscore in a name is a dash outside.
const patterns = blk: {
    var out: []const Pattern = &.{};
    for (.{ single.patterns, threaded.patterns }) |set| for (@typeInfo(set).@"struct".decls) |decl| {
        var name: [decl.name.len]u8 = decl.name[0..].*;
        std.mem.replaceScalar(u8, &name, '_', '-');
        const final = name;
        const function = @field(set, decl.name);
        out = out ++ .{Pattern{
            .name = &final,
            .ours = struct {
                fn run(percent: u64) u64 {
                    return function(Ours, percent);
                }
            }.run,
            .host = struct {
                fn run(percent: u64) u64 {
                    return function(Host, percent);
                }
            }.run,
        }};
    };
    break :blk out;
};

fn openHeap() void {
    const geometry = Geometry.init(8 << 30) catch unreachable;
    const base = std.mem.alignForward(usize, os.reserve(0, geometry.span + (2 << 20)) catch unreachable, 2 << 20);
    os.commitAnonymous(base, geometry.span) catch unreachable;
    // As a tracked heap is: with huge pages one write would dirty 2 MiB.
    _ = os.advise(base, geometry.span, linux.MADV.NOHUGEPAGE);
    allocator.format(base, geometry, geometry.maxSize(), .{ .grow = grow, .give_back = giveBack }, .{ .nonce = 1 }) catch unreachable;
}

fn grow(_: ?*anyopaque, _: u64) bool {
    return false;
}

fn giveBack(_: ?*anyopaque, address: usize, len: u64) bool {
    return os.advise(address, len, linux.MADV.DONTNEED) == null;
}

/// Most memory that was ever resident, in KiB.
fn peakResident() u64 {
    const fd: i32 = @intCast(linux.open("/proc/self/status", .{}, 0));
    var text: [4096]u8 = undefined;
    const len = linux.read(fd, &text, text.len);
    const at = std.mem.indexOf(u8, text[0..len], "VmHWM:") orelse return 0;
    const number = std.mem.trimStart(u8, text[at + 6 .. len], " \t");
    return std.fmt.parseInt(u64, number[0..std.mem.indexOfScalar(u8, number, ' ').?], 10) catch 0;
}

pub fn main(init: std.process.Init.Minimal) void {
    const arguments = init.args.vector;
    if (arguments.len < 3) {
        for (patterns) |pattern| _ = c.printf("%.*s\n", @as(c_int, @intCast(pattern.name.len)), pattern.name.ptr);
        return;
    }
    const percent = if (arguments.len > 3) c.strtoul(arguments[3], null, 10) else 100;
    const is_ours = std.mem.eql(u8, std.mem.span(arguments[2]), "ours");
    for (patterns) |pattern| {
        if (!std.mem.eql(u8, pattern.name, std.mem.span(arguments[1]))) continue;
        if (is_ours) openHeap();
        const start = os.nowNs();
        const operations = if (is_ours) pattern.ours(percent) else pattern.host(percent);
        const took = os.nowNs() - start;
        if (is_ours) allocator.check() catch unreachable;
        _ = c.printf("%lu %lu %lu\n", took, operations, peakResident());
        return;
    }
    _ = c.printf("there is no such pattern\n");
}
