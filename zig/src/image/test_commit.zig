//! Commits and what opening finds of them.

const std = @import("std");
const image_ = @import("image.zig");
const format = @import("format.zig");
const testing = @import("testing.zig");
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
        try image.join(&heap.history, heap.identity.span, null);
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
        try image.join(&heap.history, heap.identity.span, null);
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
            try expectEqual(@as(usize, 2), try dir.count());
        }
    };
}
