//! Shared heaps as native programs meet them: forks, a heap that is closed and still stands, and a file
//! that fails under it.

const std = @import("std");
const os = @import("../os/os.zig");
const format = @import("../image/format.zig");
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
