//! Folds that nobody's commit asked for: an image that is left alone gives the space of its log back.

const std = @import("std");
const image_ = @import("image.zig");
const os = @import("../os/os.zig");
const testing = @import("testing.zig");
const Heap = testing.Heap;
const Image = image_.Image;
const expect = std.testing.expect;
const expectEqual = std.testing.expectEqual;

const pages = 400;
const ms = std.time.ns_per_ms;

fn options(path: []const u8, mode: image_.Mode, idle_ns: u64) image_.OpenOptions {
    return .{ .path = path, .mode = mode, .keep = 2, .log_limit = 1 << 20, .idle_ns = idle_ns };
}

/// Ten pages a commit.
fn commitSome(heap: *Heap, image: *Image, commits: usize) !void {
    for (0..commits) |_| {
        for (0..10) |page| heap.touch(&.{image}, page * 7, heap.history.epoch_max + 9);
        _ = try heap.commit(image, null);
    }
}

fn until(image: *Image, folds: u64) !void {
    const begun = os.nowNs();
    while (image.info().folds < folds) {
        try expect(os.nowNs() - begun < 20 * std.time.ns_per_s);
        image.disk.pause(ms);
    }
}

fn make(path: []const u8, heap: *Heap, idle_ns: u64) !*Image {
    const image = try Image.open(options(path, .create, idle_ns));
    errdefer image.close();
    try heap.join(image, null);
    for (0..pages) |page| heap.touch(&.{image}, page, 5);
    _ = try heap.commit(image, null);
    return image;
}

test "a log that is rather long is folded once no commit comes, and is short then" {
    errdefer testing.explain();
    var dir = testing.Dir.init();
    defer dir.deinit();
    var heap = Heap.init(pages);
    defer heap.deinit();
    const image = try make(dir.path("a"), &heap, 30 * ms);
    defer image.close();
    // A log of less than half the limit is left alone.
    try commitSome(&heap, image, 5);
    try expect(image.fold.thread == null);
    try commitSome(&heap, image, 15);
    try until(image, 1);
    try expect(image.info().log_bytes < 100_000);
    try expectEqual(@as(u64, 0), image.info().fold_failures);
    try Heap.expectStored(image, null, heap.memory);
    const list = try image.epochs(std.testing.allocator);
    defer std.testing.allocator.free(list);
    try expectEqual(@as(usize, 2), list.len);
    // And again, by another thread.
    try commitSome(&heap, image, 20);
    try until(image, 2);
    try Heap.expectStored(image, null, heap.memory);
    try expectEqual(@as(usize, 2), try dir.count());
}

test "commits put an idle fold off, and closing or going back does not wait for it" {
    errdefer testing.explain();
    var dir = testing.Dir.init();
    defer dir.deinit();
    var heap = Heap.init(pages);
    defer heap.deinit();
    const hour = 3600 * std.time.ns_per_s;
    const image = try make(dir.path("a"), &heap, hour);
    {
        defer image.close();
        try commitSome(&heap, image, 20);
        const due = image.fold.due_ns.load(.acquire);
        try expect(due > os.nowNs() + hour / 2);
        image.disk.pause(ms);
        try commitSome(&heap, image, 1);
        try expect(image.fold.due_ns.load(.acquire) > due);
        const last = heap.history.epoch();
        try heap.restore(image, last - 1);
        // Elsewhere than on the last record nothing may be folded (R6).
        try expect(image.fold.thread == null);
        try heap.restore(image, last);
        try expect(image.fold.thread != null);
        // Too long: now, though the thread waits.
        try commitSome(&heap, image, 10);
        try until(image, 1);
        try Heap.expectStored(image, null, heap.memory);
        try commitSome(&heap, image, 20);
        try expect(image.fold.running.load(.acquire));
    }
    try expectEqual(@as(usize, 2), try dir.count());
}

test "a long log that an opening finds is folded without any commit" {
    errdefer testing.explain();
    var dir = testing.Dir.init();
    defer dir.deinit();
    var heap = Heap.init(pages);
    defer heap.deinit();
    {
        const image = try make(dir.path("a"), &heap, 3600 * std.time.ns_per_s);
        defer image.close();
        try commitSome(&heap, image, 20);
    }
    const before = try heap.copy();
    defer std.testing.allocator.free(before);
    const image = try Image.open(options(dir.path("a"), .write, ms));
    defer image.close();
    try heap.restore(image, null);
    try until(image, 1);
    try Heap.expectStored(image, null, before);
    try std.testing.expectEqualSlices(u8, before, heap.memory);
    try commitSome(&heap, image, 1);
    try Heap.expectStored(image, null, heap.memory);

    const reader = try Image.open(options(dir.path("a"), .read, ms));
    defer reader.close();
    try expect(reader.fold.thread == null);
}
