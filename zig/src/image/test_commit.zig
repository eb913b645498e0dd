//! Commits and what opening finds of them.

const std = @import("std");
const disk_ = @import("disk.zig");
const image_ = @import("image.zig");
const format = @import("format.zig");
const testing = @import("testing.zig");
const os = @import("../os/os.zig");
const Heap = testing.Heap;
const Image = image_.Image;
const page_size = format.page_size;
const expect = std.testing.expect;
const expectEqual = std.testing.expectEqual;

test "what was committed is found by opening, epoch after epoch" {
    errdefer testing.explain();
    var dir = testing.Dir.init();
    defer dir.deinit();
    var heap = Heap.init(3000);
    defer heap.deinit();
    {
        const image = try Image.open(.{ .path = dir.path("a"), .mode = .create });
        defer image.close();
        try heap.join(image, null);
        try std.testing.expectError(error.NO_COMMIT, image.point(null));
        heap.touch(&.{image}, 0, 1);
        heap.touch(&.{image}, 2999, 2);
        const first = try heap.commit(image, null);
        try expectEqual(@as(u64, 1), first.epoch);
        try expectEqual(@as(u64, 2), first.pages);
        try expect(first.new_base);
        try Heap.expectStored(image, null, heap.memory);
        heap.touch(&.{image}, 5, 3);
        const second = try heap.commit(image, null);
        try expectEqual(@as(u64, 2), second.epoch);
        try expectEqual(@as(u64, 1), second.pages);
        try expect(!second.new_base);
        try Heap.expectStored(image, null, heap.memory);
        const third = try heap.commit(image, null);
        try expectEqual(image_.CommitReport{ .epoch = 2 }, third);
    }
    const image = try Image.open(.{ .path = dir.path("a"), .mode = .write });
    defer image.close();
    try expectEqual(@as(u64, 2), image.head().?.epoch);
    try Heap.expectStored(image, null, heap.memory);
    var before = Heap.init(3000);
    defer before.deinit();
    before.touch(&.{}, 0, 1);
    before.touch(&.{}, 2999, 2);
    try Heap.expectStored(image, 1, before.memory);
    try std.testing.expectError(error.NO_EPOCH, image.point(3));
    try expectEqual(@as(usize, 2), try dir.count());
}

test "random heaps over hundreds of commits, reopened and folded, equal their model" {
    errdefer testing.explain();
    var dir = testing.Dir.init();
    defer dir.deinit();
    var calm: testing.FaultyDisk = .{};
    for ([_]u32{ 1, 3 }) |keep| for ([_]bool{ false, true }) |all| {
        try dir.clear();
        var prng = std.Random.DefaultPrng.init(keep * 2 + @intFromBool(all));
        const random = prng.random();
        const pages = 2600;
        var heap = Heap.init(pages);
        defer heap.deinit();
        heap.all = all;
        var image = try Image.open(.{ .disk = calm.disk(), .path = dir.path("a"), .mode = .create, .keep = keep, .background = false });
        var open: ?*Image = image;
        defer if (open) |still| still.close();
        try heap.join(image, null);
        var epochs: std.ArrayList([]u8) = .empty;
        defer {
            for (epochs.items) |copy| std.testing.allocator.free(copy);
            epochs.deinit(std.testing.allocator);
        }
        for (0..150) |round| {
            const touched = switch (random.uintLessThan(u8, 12)) {
                0 => 1800,
                1, 2 => 300,
                else => 1 + random.uintLessThan(usize, 12),
            };
            for (0..touched) |_| {
                const page = random.uintLessThan(u64, pages);
                const run = if (random.uintLessThan(u8, 10) == 0) random.uintLessThan(u64, 40) else 0;
                for (page..@min(pages, page + 1 + run)) |each| {
                    heap.touch(&.{image}, each, if (random.uintLessThan(u8, 6) == 0) 0 else random.int(u64));
                }
            }
            const free: image_.PageRange = .{ .first = random.uintLessThan(u64, pages - 100), .count = 1 + random.uintLessThan(u64, 90) };
            if (random.uintLessThan(u8, 4) == 0) {
                heap.holes = &.{free};
            } else heap.holes = &.{};
            const report = try heap.commit(image, null);
            // What is free is zero in the image, whatever it holds.
            for (heap.holes) |hole| for (hole.first..hole.end()) |page| {
                @memset(heap.page(page), 0);
                image.pending.set(page);
            };
            try expect(report.epoch == heap.history.epoch());
            while (epochs.items.len < report.epoch) try epochs.append(std.testing.allocator, try heap.copy());
            if (random.uintLessThan(u8, 9) == 0) _ = try image.foldNow();
            if (random.uintLessThan(u8, 5) == 0) {
                open = null;
                image.close();
                image = try Image.open(.{ .disk = calm.disk(), .path = dir.path("a"), .mode = .write, .keep = keep, .background = false, .verify = true });
                open = image;
                try expectEqual(report.epoch, image.head().?.epoch);
                try heap.restore(image, null);
            }
            if (round % 5 != 0) continue;
            const list = try image.epochs(std.testing.allocator);
            defer std.testing.allocator.free(list);
            try expect(list.len >= @min(keep, epochs.items.len));
            for (list) |epoch| try Heap.expectStored(image, epoch.epoch, epochs.items[epoch.epoch - 1]);
            try expectEqual(@as(usize, 2) + @intFromBool(image.room.held.file >= 0), try dir.count());
        }
    };
}

fn logSize(image: *Image) !u64 {
    var stat: disk_.Stat = .{};
    try expectEqual(null, image.disk.stat(image.generation.?.log, &stat));
    return stat.size;
}

test "short records are written over zeros that the medium has; what fails there is cut" {
    errdefer testing.explain();
    const ahead = 128 << 10;
    for ([_]u64{ 0, 1 << 40 }) |sealed_len_min| {
        var dir = testing.Dir.init();
        defer dir.deinit();
        var heap = Heap.init(64);
        defer heap.deinit();
        var faulty: testing.FaultyDisk = .{};
        const options: image_.OpenOptions = .{
            .disk = faulty.disk(),
            .path = dir.path("a"),
            .mode = .create,
            .background = false,
            .sealed_len_min = sealed_len_min,
        };
        var image = try Image.open(options);
        var open: ?*Image = image;
        defer if (open) |still| still.close();
        try heap.join(image, null);
        for (0..64) |page| heap.touch(&.{image}, page, 1);
        _ = try heap.commit(image, null);
        const generation = image.generation.?;
        var value: u64 = 1;
        for (0..3) |_| {
            value += 1;
            heap.touch(&.{image}, value % 64, value);
            _ = try heap.commit(image, null);
            try expect(try logSize(image) <= generation.log_end + @sizeOf(format.Seal));
        }
        value += 1;
        heap.touch(&.{image}, value % 64, value);
        _ = try heap.commit(image, null);
        const zeros_end = generation.log_end + ahead;
        try expectEqual(zeros_end, try logSize(image));

        // Two writes and a sync, and the seal: nothing is allocated, nothing cut.
        const record_len = generation.records.items[generation.records.items.len - 1].len;
        while (generation.log_end + 2 * record_len <= zeros_end) {
            value += 1;
            heap.touch(&.{image}, value % 64, value);
            const before = faulty.calls;
            _ = try heap.commit(image, null);
            try expectEqual(@as(usize, if (sealed_len_min == 0) 4 else 3), faulty.calls - before);
            try expectEqual(zeros_end, try logSize(image));
        }
        // An attempt that fails before its footer is cut, and with it the zeros.
        value += 1;
        heap.touch(&.{image}, value % 64, value);
        faulty.stop_at = faulty.calls;
        try std.testing.expectError(error.IO, heap.commit(image, null));
        _ = try heap.commit(image, null);
        try expectEqual(generation.log_end + ahead, try logSize(image));
        try Heap.expectStored(image, null, heap.memory);

        // A device without room for zeros may have room for records.
        generation.zeros_end = 0;
        value += 1;
        heap.touch(&.{image}, value % 64, value);
        faulty.errno = @intFromEnum(std.os.linux.E.NOSPC);
        faulty.stop_at = faulty.calls + 2;
        _ = try heap.commit(image, null);
        try expect(faulty.calls > faulty.stop_at);
        try expect(try logSize(image) <= generation.log_end + @sizeOf(format.Seal));

        value += 1;
        heap.touch(&.{image}, value % 64, value);
        _ = try heap.commit(image, null);
        const last = heap.history.epoch();
        open = null;
        image.afterFork();
        image.close();
        image = try Image.open(.{ .path = dir.path("a"), .mode = .write, .background = false, .verify = true });
        open = image;
        try expectEqual(last, image.head().?.epoch);
        try expect(!image.dropped);
        try Heap.expectStored(image, null, heap.memory);
        const list = try image.epochs(std.testing.allocator);
        defer std.testing.allocator.free(list);
        // The failed attempt had a number, too.
        try expectEqual(@as(usize, last - 1), list.len);
    }
}

test "a base that is not cached is read beside the program that opened it" {
    errdefer testing.explain();
    const linux = std.os.linux;
    var dir = testing.Dir.init();
    defer dir.deinit();
    const pages = 4000;
    var heap = Heap.init(pages);
    defer heap.deinit();
    {
        const image = try Image.open(.{ .path = dir.path("a"), .mode = .create });
        defer image.close();
        try heap.join(image, null);
        for (0..pages) |page| heap.touch(&.{image}, page, 1 + page);
        _ = try heap.commit(image, null);
    }
    const image = try Image.open(.{ .path = dir.path("a"), .mode = .write });
    defer image.close();
    const dont_need = 4;
    _ = linux.fadvise(image.generation.?.base, 0, 0, dont_need);
    const at = try os.reserve(0, heap.memory.len);
    defer os.unmap(at, heap.memory.len);
    _ = try image.build(try image.point(null), at, heap.memory.len);
    // Some file systems have nowhere else to keep it.
    if (image.warming.thread == null) return error.SkipZigTest;
    for (0..2000) |_| {
        var resident: usize = 0;
        for (0..pages) |page| resident += @intFromBool(os.isResident(at + page * page_size, 1));
        if (resident == pages) break;
        image.disk.pause(2 * std.time.ns_per_ms);
    } else return error.TestUnexpectedResult;
    try std.testing.expectEqualSlices(u8, heap.memory, @as([*]const u8, @ptrFromInt(at))[0..heap.memory.len]);
}

test "among long records zeros stand behind the long ones, for short ones to come; where none came there are none" {
    errdefer testing.explain();
    var dir = testing.Dir.init();
    defer dir.deinit();
    // Records that fit into the staging buffer, and some that do not.
    for ([_]struct { name: []const u8, pages: u64 }{ .{ .name = "a", .pages = 20 }, .{ .name = "b", .pages = 300 } }) |long| {
        var heap = Heap.init(400);
        defer heap.deinit();
        const image = try Image.open(.{ .path = dir.path(long.name), .mode = .create, .background = false });
        defer image.close();
        try heap.join(image, null);
        for (0..400) |page| heap.touch(&.{image}, page, 1);
        _ = try heap.commit(image, null);
        const generation = image.generation.?;
        for (2..6) |value| {
            for (0..long.pages) |page| heap.touch(&.{image}, page, value);
            _ = try heap.commit(image, null);
            try expect(try logSize(image) <= generation.log_end + @sizeOf(format.Seal));
        }
        for (6..14) |value| {
            const pages = if (value % 2 == 0) 1 else long.pages;
            const before = try logSize(image);
            for (0..pages) |page| heap.touch(&.{image}, page, value);
            _ = try heap.commit(image, null);
            if (pages > 1) try expectEqual(generation.log_end + (32 << 10), try logSize(image));
            if (pages == 1 and value > 6) try expectEqual(before, try logSize(image));
        }
        // As found again: zeros are no record, and are cut before the next one.
        const records = generation.records.items.len;
        const reader = try Image.open(.{ .path = dir.path(long.name), .mode = .read });
        defer reader.close();
        try expectEqual(records, reader.generation.?.records.items.len);
        try expect(!reader.dropped);
        // So many long ones in a row, and nobody expects a short one any more.
        for (14..24) |value| {
            for (0..long.pages) |page| heap.touch(&.{image}, page, value);
            _ = try heap.commit(image, null);
        }
        try expect(try logSize(image) <= generation.log_end + @sizeOf(format.Seal));
    }
}
