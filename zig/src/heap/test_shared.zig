//! Shared heaps as native programs meet them: forks, a heap that is closed and still stands, and a file
//! that fails under it.

const std = @import("std");
const os = @import("../os/os.zig");
const shared_map = @import("../os/shared_map.zig");
const pool_file = @import("../os/pool_file.zig");
const disk_ = @import("../image/disk.zig");
const format = @import("../image/format.zig");
const shared_file = @import("../image/shared_file.zig");
const heap_room = @import("heap.zig");
const Heap = heap_room.Heap;
const Place = @import("test.zig").Place;

const testing = std.testing;
const linux = std.os.linux;

fn word(heap: *Heap) *volatile u64 {
    return @ptrFromInt(heap.header().root);
}

fn make(path: []const u8) !*Heap {
    const heap = try Heap.mopen(.{ .path = path, .size = 1 << 20, .max_size = 16 << 20, .shared = true });
    heap.header().root = try heap.alloc.malloc(8);
    word(heap).* = 1;
    _ = try heap.commit(.map);
    return heap;
}

test "what a forked child stores to a shared heap is its own" {
    var place = Place.init();
    defer place.deinit();
    const path = place.path("app.map");
    const heap = try make(path);
    const child = std.c.fork();
    if (child == 0) {
        if (word(heap).* != 1) linux.exit(1);
        word(heap).* = 2;
        const more = heap.alloc.malloc(3 << 20) catch linux.exit(2);
        @as(*volatile u64, @ptrFromInt(more)).* = 9;
        heap.alloc.check() catch linux.exit(3);
        const err = if (heap.commit(.map)) |_| error.IO else |err| err;
        if (err != error.FORKED) linux.exit(4);
        heap.close() catch linux.exit(5);
        linux.exit(0);
    }
    var status: u32 = undefined;
    _ = linux.waitpid(@intCast(child), &status, 0);
    try testing.expectEqual(@as(u32, 0), status >> 8);
    try testing.expectEqual(@as(u32, 0), status);
    try testing.expectEqual(@as(u64, 1), word(heap).*);
    try testing.expectEqual(@as(f64, 0), (try heap.commit(.map)).pages);
    word(heap).* = 3;
    try testing.expectEqual(@as(f64, 2), (try heap.commit(.map)).epoch);
    try heap.close();
    const again = try Heap.mopen(.{ .path = path, .mode = .rw, .shared = true });
    defer again.close() catch unreachable;
    try testing.expectEqual(@as(u64, 3), word(again).*);
}

test "a shared heap that hundreds and thousands of sessions changed opens like any other" {
    var place = Place.init();
    defer place.deinit();
    const path = place.path("app.map");
    try (try make(path)).close();
    // Each session's first commit begins a line. 341 of them fill 8 KiB.
    for ([_]u64{ 340, 341, 342, 1000, format.lines_max, format.lines_max + 5 }) |count| {
        const heap = try Heap.mopen(.{ .path = path, .mode = .rw, .shared = true });
        defer heap.close() catch unreachable;
        word(heap).* = count;
        var id: u64 = heap.history.lines.slice().len;
        while (heap.history.lines.slice().len + 1 < @min(count, format.lines_max)) : (id += 1) {
            try heap.history.lines.add(.{ .id = count << 32 | id, .parent = 1, .fork_epoch = 1 });
        }
        _ = try heap.commit(.map);
        try testing.expectEqual(@min(count, format.lines_max), heap.history.lines.slice().len);
    }
    const heap = try Heap.mopen(.{ .path = path, .mode = .rw, .shared = true });
    defer heap.close() catch unreachable;
    try testing.expectEqual(@as(u64, format.lines_max + 5), word(heap).*);
    try testing.expectEqual(@as(usize, format.lines_max), heap.history.lines.slice().len);
    try heap.check();
}

test "memory that is refused anywhere in opening and restoring is an error, and what was the heap can be touched" {
    for ([_]bool{ true, false }) |shared| {
        var place = Place.init();
        defer place.deinit();
        const path = place.path("app.map");
        const back = place.path("app.back");
        const options: heap_room.OpenOptions = .{ .path = path, .backup = back, .size = 1 << 20, .max_size = 16 << 20, .shared = shared };
        defer os.refused_map.store(0, .monotonic);
        {
            const heap = try Heap.openNewest(options);
            defer heap.close() catch unreachable;
            heap.header().root = try heap.alloc.malloc(8);
            word(heap).* = 5;
            _ = try heap.commit(.backup);
            _ = try heap.commit(.map);
        }
        var failures: u32 = 0;
        var taken: u32 = 0;
        var nth: u32 = 1;
        var passed = false;
        while (!passed) : (nth += 1) {
            os.refused_map.store(nth, .monotonic);
            passed = true;
            const heap = Heap.openNewest(options) catch |err| {
                if (err == error.CORRUPT) {
                    // A restore had taken the heap with it, which was changed.
                    os.refused_map.store(0, .monotonic);
                    try testing.expect(shared);
                    taken += 1;
                    const found = try Heap.mopen(.{ .path = path, .mode = .rw, .shared = true, .recover = true });
                    try testing.expectEqual(@as(u64, 6), word(found).*);
                    word(found).* = 5;
                    _ = try found.commit(.map);
                    try found.close();
                    passed = false;
                    continue;
                }
                try testing.expectEqual(error.OUT_OF_MEMORY, err);
                failures += 1;
                passed = false;
                continue;
            };
            try testing.expectEqual(@as(u64, 5), word(heap).*);
            word(heap).* = 6;
            const address = heap.address + heap.geometry.data_offset;
            const data: []u8 = @as([*]u8, @ptrFromInt(address))[0..heap.alloc.capacityBytes()];
            if (heap.restore(.{ .from = .backup })) |_| {
                try testing.expectEqual(@as(u64, 5), word(heap).*);
            } else |err| {
                try testing.expectEqual(error.OUT_OF_MEMORY, err);
                failures += 1;
                passed = false;
            }
            const refused_more = os.refused_map.swap(0, .monotonic);
            passed = passed and refused_more > 0;
            // Closed or not, nothing that is touched there ends the program.
            for (0..data.len / os.page_size) |page| data[page * os.page_size + 4000] +%= 0;
            if (heap.handle != 0) {
                try heap.check();
                word(heap).* = 5;
                _ = try heap.commit(.map);
                try heap.close();
            }
            try testing.expect(nth < 1000);
        }
        try testing.expect(failures > 8);
        try testing.expectEqual(shared, taken > 0);
        // A shared heap that a restore took with it was not flushed since: its file says so.
        const heap = try Heap.openNewest(options);
        defer heap.close() catch unreachable;
        try testing.expectEqual(@as(u64, 5), word(heap).*);
    }
}

test "a child that was forked past the host's handlers cannot reach its parent's shared heap" {
    var place = Place.init();
    defer place.deinit();
    const heap = try make(place.path("app.map"));
    defer heap.close() catch unreachable;
    const child = linux.fork();
    if (child == 0) {
        // No map stands there for it.
        var state: u8 = 0;
        const told = linux.syscall3(.mincore, heap.address, os.page_size, @intFromPtr(&state));
        linux.exit(if (os.failed(told) == @intFromEnum(os.E.NOMEM)) 0 else 1);
    }
    var status: u32 = undefined;
    _ = linux.waitpid(@intCast(child), &status, 0);
    try testing.expectEqual(@as(u32, 0), status);
    try testing.expectEqual(@as(u64, 1), word(heap).*);
}

test "the memory of a shared heap whose files were closed stands, grows no more, and reaches no file" {
    var place = Place.init();
    defer place.deinit();
    const path = place.path("app.map");
    const heap = try make(path);
    try heap.closeImages();
    try testing.expectEqual(@as(u64, 1), word(heap).*);
    word(heap).* = 2;
    try testing.expectError(error.OUT_OF_MEMORY, heap.alloc.malloc(8 << 20));
    try heap.alloc.free(heap.header().root);
    const again = Heap.mopen(.{ .path = path, .mode = .rw, .shared = true });
    // It stands at the same address, which is all that is in the way.
    try testing.expectError(error.ADDRESS_IN_USE, again);
    try heap.close();
    const last = try Heap.mopen(.{ .path = path, .mode = .rw, .shared = true });
    defer last.close() catch unreachable;
    try testing.expectEqual(@as(u64, 1), word(last).*);
}

test "a shared heap whose file was closed behind its back fails to flush, and flushes when that is mended" {
    var place = Place.init();
    defer place.deinit();
    const path = place.path("app.map");
    const heap = try make(path);
    const own = heap.shared.?.file.file.file;
    const saved: i32 = @intCast(linux.dup(own));
    _ = linux.close(own);
    word(heap).* = 2;
    try testing.expectError(error.IO, heap.commit(.map));
    try testing.expectEqual(@as(usize, @intCast(own)), linux.dup2(saved, own));
    _ = linux.close(saved);
    try testing.expect((try heap.commit(.map)).epoch > 1);
    try heap.close();
    const again = try Heap.mopen(.{ .path = path, .mode = .rw, .shared = true });
    defer again.close() catch unreachable;
    try testing.expectEqual(@as(u64, 2), word(again).*);
}

/// The real disk, whose syncs tell what they found not written: pages of the heap, and of them its
/// header's. One may fail, after it forgot them.
const CountingDisk = struct {
    var vtable: disk_.Disk.VTable = undefined;
    var dirty: u64 = 0;
    var header: u64 = 0;
    var calls: u32 = 0;
    var fails_at: u32 = 0;

    fn disk(fails: u32) disk_.Disk {
        vtable = disk_.Disk.real.vtable.*;
        vtable.sync = &sync;
        calls = 0;
        fails_at = fails;
        return .{ .context = null, .vtable = &vtable };
    }

    fn sync(context: ?*anyopaque, file: disk_.File) i64 {
        dirty = shared_map.dirtyPages(file, shared_file.heap_offset, 1 << 30).?;
        header = shared_map.dirtyPages(file, shared_file.heap_offset, os.page_size).?;
        calls += 1;
        const result = disk_.Disk.real.vtable.sync(context, file);
        return if (calls == fails_at) -@as(i64, @intFromEnum(os.E.IO)) else result;
    }
};

test "what a failed sync forgot is written by the next flush: that of a program before, of a flush, of a probe" {
    const pages = 200;
    // The first two syncs of a flush look whether the file system dates stores.
    for ([_]u32{ 0, 1, 2, 3 }) |fails| {
        var place = Place.init();
        defer place.deinit();
        const path = place.path("app.map");
        const child = std.c.fork();
        if (child == 0) {
            const heap = Heap.mopen(.{ .path = path, .size = 1 << 20, .max_size = 16 << 20, .shared = true }) catch linux.exit(1);
            heap.header().root = heap.alloc.malloc(pages * os.page_size) catch linux.exit(2);
            _ = heap.commit(.map) catch linux.exit(3);
            @memset(@as([*]u8, @ptrFromInt(heap.header().root))[0 .. pages * os.page_size], 7);
            // Pages whose write failed are clean to the kernel, as these are.
            linux.exit(if (pool_file.sync(heap.shared.?.file.file.file) < 0) 4 else 0);
        }
        var status: u32 = undefined;
        _ = linux.waitpid(@intCast(child), &status, 0);
        try testing.expectEqual(@as(u32, 0), status);
        const heap = try Heap.mopen(.{ .path = path, .mode = .rw, .shared = true, .recover = true });
        defer heap.close() catch unreachable;
        const file = heap.shared.?.file;
        const known = shared_map.dirtyPages(file.file.file, shared_file.heap_offset, 1 << 30) orelse return error.SkipZigTest;
        try testing.expect(known < pages);
        file.disk = CountingDisk.disk(fails);
        defer file.disk = disk_.Disk.real;
        if (fails == 3) try testing.expectError(error.IO, heap.commit(.map));
        _ = try heap.commit(.map);
        try testing.expect(CountingDisk.dirty >= pages);
        try testing.expectEqual(@as(u64, 1), CountingDisk.header);
        // What was written once is not written again.
        word(heap).* = fails;
        _ = try heap.commit(.map);
        try testing.expect(CountingDisk.dirty < 8);
    }
}

test "a file whose dates cannot be tried at its opening, for a sync that fails, is written whole by the same flush" {
    var place = Place.init();
    defer place.deinit();
    const path = place.path("app.map");
    try (try make(path)).close();
    const heap = try Heap.mopen(.{ .path = path, .mode = .rw, .shared = true });
    defer heap.close() catch unreachable;
    const file = heap.shared.?.file;
    if (shared_map.dirtyPages(file.file.file, shared_file.heap_offset, 1 << 30) == null) return error.SkipZigTest;
    const whole = try heap.alloc.malloc(100 * os.page_size);
    @memset(@as([*]u8, @ptrFromInt(whole))[0 .. 100 * os.page_size], 3);
    heap.shared.?.watch = .{};
    file.disk = CountingDisk.disk(1);
    defer file.disk = disk_.Disk.real;
    _ = try heap.commit(.map);
    try testing.expectEqual(@as(u32, 2), CountingDisk.calls);
    try testing.expect(CountingDisk.dirty >= 100);
    try testing.expectEqual(@as(u64, 1), CountingDisk.header);
}
