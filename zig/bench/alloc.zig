//! The heap's allocator beside the process's malloc (glibc's, or whichever is preloaded), interleaved
//! round by round in one run; prints the best round of each, in ns a pair of malloc and free, and
//! their ratio. Run by `zig build bench-alloc`.

const std = @import("std");
const core = @import("core");

const os = core.os;
const Allocator = core.alloc.Allocator;
const Geometry = core.alloc.Geometry;

const c = struct {
    extern "c" fn malloc(size: usize) ?*anyopaque;
    extern "c" fn free(block: ?*anyopaque) void;
    extern "c" fn getenv(name: [*:0]const u8) ?[*:0]const u8;
    extern "c" fn printf(format: [*:0]const u8, ...) c_int;
};

const Heap = struct {
    allocator: Allocator = .{},
    data: usize = 0,
    base: usize = 0,
    capacity: u64 = 0,

    fn open(self: *Heap, max_size: u64) void {
        const geometry = Geometry.init(max_size) catch unreachable;
        const base = std.mem.alignForward(usize, os.reserve(0, geometry.span + (2 << 20)) catch unreachable, 2 << 20);
        os.commitAnonymous(base, geometry.span) catch unreachable;
        // As a tracked heap is: with huge pages one write would dirty 2 MiB.
        _ = os.advise(base, geometry.span, std.os.linux.MADV.NOHUGEPAGE);
        self.base = base;
        self.data = base + geometry.data_offset;
        self.allocator.format(base, geometry, geometry.maxSize(), .{
            .grow = grow,
            .give_back = giveBack,
        }, .{ .nonce = 1 }) catch unreachable;
    }

    fn grow(_: ?*anyopaque, _: u64) bool {
        return false;
    }

    fn giveBack(_: ?*anyopaque, address: usize, len: u64) bool {
        return os.advise(address, len, std.os.linux.MADV.DONTNEED) == null;
    }
};

var heap: Heap = .{};

const rounds = 50;

const Ours = struct {
    noinline fn malloc(size: usize) usize {
        const block = heap.allocator.tryMalloc(size);
        return if (block != 0) block else mallocSlow(size);
    }
    noinline fn mallocSlow(size: usize) usize {
        return heap.allocator.mallocSlow(size) catch unreachable;
    }
    noinline fn free(block: usize) void {
        if (!heap.allocator.tryFree(block)) freeSlow(block);
    }
    noinline fn freeSlow(block: usize) void {
        heap.allocator.freeSlow(block) catch unreachable;
    }
};

const Host = struct {
    inline fn malloc(size: usize) usize {
        return @intFromPtr(c.malloc(size).?);
    }
    inline fn free(block: usize) void {
        c.free(@ptrFromInt(block));
    }
};

/// Replaces a random one of `live` blocks by a new one of a random size, `pairs` times: ns a pair.
fn churn(comptime A: type, slots: []usize, size_min: usize, size_max: usize, pairs: usize, seed: u64) f64 {
    var state = seed;
    const start = os.nowNs();
    for (0..pairs) |_| {
        state = state *% 6364136223846793005 +% 1442695040888963407;
        const slot: usize = @intCast(((state >> 32) * slots.len) >> 32);
        const size = size_min + @as(usize, @intCast(((state & 0xffff_ffff) * (size_max - size_min + 1)) >> 32));
        A.free(slots[slot]);
        const block = A.malloc(size);
        @as(*usize, @ptrFromInt(block)).* = size;
        slots[slot] = block;
    }
    return @as(f64, @floatFromInt(os.nowNs() - start)) / @as(f64, @floatFromInt(pairs));
}

fn fill(comptime A: type, slots: []usize, size_min: usize, size_max: usize, seed: u64) u64 {
    var state = seed;
    var bytes: u64 = 0;
    for (slots) |*slot| {
        state = state *% 6364136223846793005 +% 1442695040888963407;
        const size = size_min + @as(usize, @intCast((((state >> 16) & 0xffff_ffff) * (size_max - size_min + 1)) >> 32));
        slot.* = A.malloc(size);
        @memset(@as([*]u8, @ptrFromInt(slot.*))[0..size], 1);
        bytes += size;
    }
    return bytes;
}

fn drop(comptime A: type, slots: []usize) void {
    for (slots) |slot| A.free(slot);
}

/// For a profiler: `ROW=n` measures that row alone, `SIDE=0` only ours, `SIDE=1` only the other.
fn wanted(name: [*:0]const u8, number: u8) bool {
    const value = c.getenv(name) orelse return true;
    return value[0] == '0' + number;
}

var row: u8 = 0;

fn compare(name: [*:0]const u8, live: usize, size_min: usize, size_max: usize, pairs: usize) void {
    defer row += 1;
    if (!wanted("ROW", row)) return;
    const ours = slotsOf(live);
    const theirs = slotsOf(live);
    _ = fill(Ours, ours, size_min, size_max, 1);
    _ = fill(Host, theirs, size_min, size_max, 1);
    var best: [2]f64 = @splat(std.math.inf(f64));
    for (0..rounds) |round| {
        if (wanted("SIDE", 0)) best[0] = @min(best[0], churn(Ours, ours, size_min, size_max, pairs, round));
        if (wanted("SIDE", 1)) best[1] = @min(best[1], churn(Host, theirs, size_min, size_max, pairs, round));
    }
    drop(Ours, ours);
    drop(Host, theirs);
    print(name, best);
}

/// Takes blocks of 128 bytes and frees them in the order in which they came: ns a pair.
fn burst(comptime A: type, slots: []usize) f64 {
    const start = os.nowNs();
    const times = 40_000 / slots.len;
    for (0..times) |_| {
        for (slots) |*slot| slot.* = A.malloc(128);
        for (slots) |slot| A.free(slot);
    }
    return @as(f64, @floatFromInt(os.nowNs() - start)) / @as(f64, @floatFromInt(times * slots.len));
}

fn compareBursts(name: [*:0]const u8, count: usize) void {
    defer row += 1;
    if (!wanted("ROW", row)) return;
    const slots = slotsOf(count);
    var best: [2]f64 = @splat(std.math.inf(f64));
    for (0..rounds) |_| {
        if (wanted("SIDE", 0)) best[0] = @min(best[0], burst(Ours, slots));
        if (wanted("SIDE", 1)) best[1] = @min(best[1], burst(Host, slots));
    }
    print(name, best);
}

fn print(name: [*:0]const u8, best: [2]f64) void {
    _ = c.printf("%-44s %7.1f %7.1f   %5.2f\n", name, best[0], best[1], best[0] / best[1]);
}

/// How many times as much two threads do as one does alone: from the processor time of each, so that
/// it tells how they are in each other's way and not who else runs.
fn scaling(comptime A: type) f64 {
    const pairs = 200_000;
    const Side = struct {
        slots: []usize,
        waiting: *std.atomic.Value(u32),
        took: u64 = 0,

        fn run(pointer: ?*anyopaque) callconv(.c) ?*anyopaque {
            const self: *@This() = @ptrCast(@alignCast(pointer.?));
            // Each its own blocks, so that neither frees what is the other's.
            _ = fill(A, self.slots, 16, 512, 1);
            _ = self.waiting.fetchSub(1, .seq_cst);
            while (self.waiting.load(.seq_cst) > 0) os.yieldThread();
            const start = processorTime();
            _ = churn(A, self.slots, 16, 512, pairs, 1);
            self.took = processorTime() - start;
            drop(A, self.slots);
            return null;
        }
    };
    const slots: [2][]usize = .{ slotsOf(20_000), slotsOf(20_000) };
    var best: [2]u64 = @splat(std.math.maxInt(u64));
    for (0..rounds) |round| {
        const count = 1 + round % 2;
        var waiting: std.atomic.Value(u32) = .init(@intCast(count));
        var sides: [2]Side = .{
            .{ .slots = slots[0], .waiting = &waiting },
            .{ .slots = slots[1], .waiting = &waiting },
        };
        var threads: [2]os.Thread = undefined;
        for (threads[0..count], sides[0..count]) |*thread, *side| {
            thread.* = os.Thread.spawn(Side.run, side) catch unreachable;
        }
        for (threads[0..count]) |thread| thread.join();
        best[count - 1] = @min(best[count - 1], @max(sides[0].took, sides[1].took));
    }
    return 2 * @as(f64, @floatFromInt(best[0])) / @as(f64, @floatFromInt(best[1]));
}

/// Nanoseconds that the calling thread has run.
fn processorTime() u64 {
    var ts: std.os.linux.timespec = undefined;
    _ = std.os.linux.clock_gettime(.THREAD_CPUTIME_ID, &ts);
    return @as(u64, @intCast(ts.sec)) * std.time.ns_per_s + @as(u64, @intCast(ts.nsec));
}

fn slotsOf(count: usize) []usize {
    const pages = os.allocatePages(count * @sizeOf(usize)) catch unreachable;
    return @as([*]usize, @ptrCast(pages.ptr))[0..count];
}

fn residentPages() u64 {
    // Every page of the heap that was touched, counted by the kernel.
    const geometry = heap.allocator.tables.geometry;
    const pages = geometry.span / os.page_size;
    const map = os.allocatePages(pages) catch unreachable;
    _ = std.os.linux.syscall3(.mincore, heap.base, geometry.span, @intFromPtr(map.ptr));
    var count: u64 = 0;
    for (map[0..pages]) |byte| count += byte & 1;
    os.freePages(map);
    return count;
}

pub fn main() void {
    heap.open(4 << 30);
    const slots = slotsOf(1_000_000);
    const before = residentPages();
    const bytes = fill(Ours, slots, 16, 256, 7);
    const resident = (residentPages() - before) * os.page_size;
    _ = c.printf("1e6 live of 16-256 bytes: %.3f of their bytes, metadata pages included\n", @as(f64, @floatFromInt(resident)) / @as(f64, @floatFromInt(bytes)));
    drop(Ours, slots);
    heap.allocator.check() catch unreachable;

    _ = c.printf("%-44s %7s %7s   %5s\n", "ns a pair of malloc and free, best of 50", "ours", "malloc", "ratio");
    compare("one block of 64 bytes, again and again", 1, 64, 64, 200_000);
    compare("16-512 bytes, 20,000 live, random", 20_000, 16, 512, 200_000);
    compare("16-256 bytes, 1,000,000 live, random", 1_000_000, 16, 256, 200_000);
    compare("1-32 KiB, 1,000 live, random", 1_000, 1024, 32768, 50_000);
    compare("32-512 KiB, 100 live, random", 100, 32 << 10, 512 << 10, 5_000);
    compareBursts("128 bytes, 100 in a row", 100);
    compareBursts("128 bytes, 1,600 in a row", 1600);
    heap.allocator.check() catch unreachable;
    if (wanted("ROW", row)) _ = c.printf("two threads do, of what one does: ours %.2f, malloc %.2f\n", scaling(Ours), scaling(Host));
}
