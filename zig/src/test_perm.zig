//! The heap as a Zig program has it, and std's own tests of allocators on it.

const std = @import("std");
const perm = @import("perm.zig");
const errors = @import("errors.zig");

test "std's tests of allocators pass on a heap, which is whole and empty afterwards" {
    const heap = try perm.Heap.open(.{ .size = 1 << 20 });
    defer heap.close() catch {};
    const before = try heap.stats();
    const allocator = heap.allocator();
    try std.heap.testAllocator(allocator);
    try std.heap.testAllocatorAligned(allocator);
    try std.heap.testAllocatorLargeAlignment(allocator);
    try std.heap.testAllocatorAlignedShrink(allocator);
    try heap.check();
    try std.testing.expectEqual(before.live_blocks, (try heap.stats()).live_blocks);
}

test "std's containers on a heap go back with it" {
    var directory = std.testing.tmpDir(.{});
    defer directory.cleanup();
    var buffer: [std.fs.max_path_bytes]u8 = undefined;
    const path = buffer[0..try directory.dir.realPath(std.testing.io, &buffer)];
    var file: [std.fs.max_path_bytes]u8 = undefined;
    const name = try std.fmt.bufPrint(&file, "{s}/heap", .{path});

    const heap = try perm.Heap.open(.{ .path = name, .size = 1 << 20, .keep = 4 });
    defer heap.close() catch {};
    const allocator = heap.allocator();
    const list = try heap.global(std.ArrayList(u32), "list");
    try std.testing.expect(list.is_new);
    list.value.* = .empty;
    for (0..1000) |i| try list.value.append(allocator, @intCast(i));
    const first = try heap.commit(.map);
    for (0..1000) |i| try list.value.append(allocator, @intCast(i));
    _ = try heap.commit(.map);

    _ = try heap.restore(.{ .epoch = first.epoch });
    try std.testing.expectEqual(@as(usize, 1000), list.value.items.len);
    try std.testing.expectEqual(@as(u32, 999), list.value.items[999]);
    try std.testing.expect(!(try heap.global(std.ArrayList(u32), "list")).is_new);
    try std.testing.expectError(error.BLOCK_MISMATCH, heap.global(u8, "list"));
    try heap.check();
}

test "a heap that was closed is refused, and says so" {
    const heap = try perm.Heap.open(.{ .size = 1 << 20 });
    try heap.close();
    try std.testing.expectError(error.CLOSED, heap.commit(.map));
    try std.testing.expectEqual(perm.Code.CLOSED, perm.lastError().?.code);
    try std.testing.expectError(error.OutOfMemory, heap.allocator().alloc(u8, 1));
}

test "pages of a heap are zeroed, aligned, and go back" {
    const heap = try perm.Heap.open(.{ .size = 1 << 20, .max_size = 4 << 20 });
    defer heap.close() catch {};
    const pages = try heap.pages();
    const taken = pages.take(3).?;
    try std.testing.expectEqual(3 * perm.Pages.size, taken.len);
    try std.testing.expect(std.mem.allEqual(u8, taken, 0));
    @memset(taken, 0xaa);
    try pages.give(taken);
    try std.testing.expect(std.mem.allEqual(u8, pages.take(3).?, 0));
    try heap.grow(3 << 20);
    try std.testing.expect((try heap.stats()).capacity >= 3 << 20);
    try std.testing.expectError(error.OUT_OF_MEMORY, heap.grow(5 << 20));
    try std.testing.expectEqual(null, pages.take(1 << 40));
    try std.testing.expectEqual(null, pages.take(std.math.maxInt(usize)));
    // As many that their bytes would be those of one again.
    try std.testing.expectEqual(null, pages.take((1 << 48) + 1));
    try std.testing.expectError(error.BAD_POINTER, pages.give(@alignCast(taken[perm.Pages.size..])));
}

/// A folder of a test's own, and paths in it.
const Place = struct {
    directory: std.testing.TmpDir,
    buffers: [2][std.fs.max_path_bytes]u8 = undefined,

    fn path(self: *Place, which: u1, name: []const u8) ![]const u8 {
        var folder: [std.fs.max_path_bytes]u8 = undefined;
        const len = try self.directory.dir.realPath(std.testing.io, &folder);
        return std.fmt.bufPrint(&self.buffers[which], "{s}/{s}", .{ folder[0..len], name });
    }
};

test "what a program asks for at opening is what it has, and each commit is told" {
    var place: Place = .{ .directory = std.testing.tmpDir(.{}) };
    defer place.directory.cleanup();
    const map = try place.path(0, "map");
    const back = try place.path(1, "back");
    const address = 0x4700_0000_0000;
    var variable: [3]u64 = .{ 1, 2, 3 };
    {
        const heap = try perm.Heap.open(.{
            .path = map,
            .backup = back,
            .size = 1 << 20,
            .max_size = 8 << 20,
            .address = address,
            .keep = 3,
        });
        defer heap.close() catch {};
        try std.testing.expectEqual(perm.Resumed.new, try heap.resumed());
        const range = try heap.range();
        try std.testing.expectEqual(@as(usize, address), range.address);
        try std.testing.expect(range.len >= 8 << 20 and range.len < 64 << 20);
        try std.testing.expectEqual(null, try heap.root(u8));
        try std.testing.expectError(error.BAD_POINTER, heap.setRoot(&variable));
        try std.testing.expect(!try heap.perm("variable", &variable));
        const before = try heap.stats();
        const block = try heap.allocator().alignedAlloc(u8, .fromByteUnits(256), 50_000);
        @memset(block, 7);
        try heap.setRoot(block.ptr);
        const after = try heap.stats();
        try std.testing.expect(after.live_blocks == before.live_blocks + 1);
        try std.testing.expect(after.live_bytes >= before.live_bytes + 50_000 and after.live_bytes < after.used);
        try std.testing.expect(after.used < after.capacity and after.capacity < after.max_size);
        for (1..6) |i| {
            variable[0] = i;
            @memset(block, @truncate(i));
            const report = try heap.commit(.map);
            try std.testing.expectEqual(i, report.epoch);
            try std.testing.expect(report.pages >= 12 and report.bytes >= report.pages * 4096 and !report.dropped);
        }
        _ = try heap.commit(.backup);
        try std.testing.expectEqual(@as(u64, 6), (try heap.stats()).commits);
        var epochs: [8]perm.Epoch = undefined;
        const kept = try heap.epochs(.map, &epochs);
        try std.testing.expect(kept.len >= 4 and kept[kept.len - 1].epoch == 5);
        try std.testing.expect(kept[0].time_ms > 1_600_000_000_000 and kept[0].pages < kept[0].bytes);
        try std.testing.expectEqual(@as(usize, 1), (try heap.epochs(.map, epochs[0..1])).len);
        // Where the map file is not asked, the backup file is: it has one epoch.
        try std.testing.expectError(error.NO_EPOCH, heap.restore(.{ .epoch = 4 }));
        try std.testing.expectEqual(@as(u64, 4), (try heap.restore(.{ .epoch = 4, .from = .map })).epoch);
        try std.testing.expect(variable[0] == 4 and block[0] == 4);
    }
    variable = @splat(0);
    {
        const heap = try perm.Heap.open(.{ .path = map, .mode = .r });
        defer heap.close() catch {};
        try std.testing.expectEqual(perm.Resumed.file, try heap.resumed());
        try std.testing.expect(try heap.perm("variable", &variable));
        try std.testing.expectEqual([3]u64{ 5, 2, 3 }, variable);
        const root = (try heap.root(u8)).?;
        try std.testing.expectEqual(@as(u8, 5), root.*);
        try std.testing.expectError(error.OutOfMemory, heap.allocator().alloc(u8, 1));
        try std.testing.expectError(error.READ_ONLY, heap.setRoot(root));
        try std.testing.expectError(error.READ_ONLY, heap.unperm("variable"));
        try std.testing.expectError(error.READ_ONLY, heap.pages());
    }
    const heap = try perm.Heap.open(.{ .path = map, .size = 1 << 20 });
    defer heap.close() catch {};
    try std.testing.expect(try heap.perm("variable", &variable));
    try heap.unperm("variable");
    try std.testing.expect(!try heap.perm("variable", &variable));
    try std.testing.expectError(error.INVALID_ARGUMENT, perm.Heap.open(.{ .path = back, .backup = map, .mode = .rw }));
    try std.testing.expectError(error.NOT_FOUND, perm.Heap.open(.{ .path = "/none/of/it", .mode = .rw }));
    const failure = perm.lastError().?;
    try std.testing.expectEqual(perm.Code.NOT_FOUND, failure.code);
    try std.testing.expectEqualStrings("/none/of/it", failure.path);
}

test "a file that is no image, or damaged, is replaced, verified and recovered only when that is asked for" {
    var place: Place = .{ .directory = std.testing.tmpDir(.{ .iterate = true }) };
    defer place.directory.cleanup();
    const name = try place.path(0, "heap");
    const dir = place.directory.dir;
    const io = std.testing.io;
    try dir.writeFile(io, .{ .sub_path = "heap", .data = "somebody's text" });
    try std.testing.expectError(error.EXISTS, perm.Heap.open(.{ .path = name, .mode = .w, .size = 1 << 20 }));
    {
        const heap = try perm.Heap.open(.{ .path = name, .mode = .w, .size = 1 << 20, .replace = true });
        defer heap.close() catch {};
        const block = try heap.allocator().alloc(u8, 100_000);
        @memset(block, 0x5a);
        try heap.setRoot(block.ptr);
        _ = try heap.commit(.map);
    }
    const file = try dir.openFile(io, "heap", .{ .mode = .read_write });
    defer file.close(io);
    const length = try file.length(io);
    var at: u64 = 4096;
    var page: [4096]u8 = undefined;
    // The first page that holds nothing else.
    while (at < length) : (at += page.len) {
        _ = try file.readPositionalAll(io, &page, at);
        if (std.mem.allEqual(u8, &page, 0x5a)) break;
    }
    try file.writePositionalAll(io, "x", at);
    {
        const heap = try perm.Heap.open(.{ .path = name, .mode = .rw });
        try heap.close();
    }
    try std.testing.expectError(error.CORRUPT, perm.Heap.open(.{ .path = name, .mode = .rw, .verify = true }));
    try file.writePositionalAll(io, "Z", at);

    var entries = dir.iterate();
    while (try entries.next(io)) |entry| {
        if (std.mem.startsWith(u8, entry.name, "heap-log-")) try dir.deleteFile(io, entry.name);
    }
    try std.testing.expectError(error.CORRUPT, perm.Heap.open(.{ .path = name, .mode = .rw }));
    const heap = try perm.Heap.open(.{ .path = name, .mode = .rw, .recover = true });
    defer heap.close() catch {};
    try std.testing.expectEqual(@as(u8, 0x5a), (try heap.root(u8)).?.*);
}

test "a restore tells of a commit whose end is missing, once" {
    var place: Place = .{ .directory = std.testing.tmpDir(.{ .iterate = true }) };
    defer place.directory.cleanup();
    const back = try place.path(0, "back");
    {
        const heap = try perm.Heap.open(.{ .size = 1 << 20 });
        defer heap.close() catch {};
        try heap.bopen(back, .w, .{});
        const block = try heap.allocator().alloc(u8, 400_000);
        try heap.setRoot(block.ptr);
        for (1..4) |i| {
            @memset(block[0 .. 400_000 / i], @truncate(i));
            _ = try heap.commit(.backup);
        }
    }
    const io = std.testing.io;
    var entries = place.directory.dir.iterate();
    while (try entries.next(io)) |entry| if (std.mem.startsWith(u8, entry.name, "back-log-")) {
        const log = try place.directory.dir.openFile(io, entry.name, .{ .mode = .read_write });
        defer log.close(io);
        try log.setLength(io, try log.length(io) - 5000);
    };
    const heap = try perm.Heap.open(.{ .size = 1 << 20 });
    defer heap.close() catch {};
    try heap.bopen(back, .rw, .{});
    const report = try heap.restore(.{});
    try std.testing.expect(report.epoch == 2 and report.dropped);
    try std.testing.expectEqual(@as(u8, 2), (try heap.root(u8)).?.*);
    _ = try heap.commit(.backup);
    (try heap.root(u8)).?.* = 4;
    _ = try heap.commit(.backup);
    try std.testing.expect(!(try heap.restore(.{})).dropped);
    try std.testing.expectEqual(@as(u8, 4), (try heap.root(u8)).?.*);
}

test "each file keeps as many epochs as was asked for" {
    var place: Place = .{ .directory = std.testing.tmpDir(.{}) };
    defer place.directory.cleanup();
    const heap = try perm.Heap.open(.{ .path = try place.path(0, "map"), .mode = .w, .size = 32 << 20, .keep = 5 });
    defer heap.close() catch {};
    try heap.bopen(try place.path(1, "back"), .w, .{ .keep = 5 });
    const block = try heap.allocator().alloc(u8, 24 << 20);
    // Most of the heap changes each time, so that each commit begins a file anew.
    for (1..4) |i| {
        @memset(block, @truncate(i));
        _ = try heap.commit(.map);
        _ = try heap.commit(.backup);
    }
    for ([_]perm.Which{ .backup, .map }) |which| {
        const report = try heap.restore(.{ .epoch = 1, .from = which });
        try std.testing.expect(report.epoch == 1 and block[0] == 1);
        _ = try heap.restore(.{ .from = which });
        try std.testing.expectEqual(@as(u8, 3), block[0]);
    }
}

test "check tells of what was done to the allocator's tables" {
    const heap = try perm.Heap.open(.{ .size = 1 << 20 });
    defer heap.close() catch {};
    const magic: *u64 = @ptrFromInt((try heap.range()).address + 4096);
    magic.* ^= 1;
    try std.testing.expectError(error.CORRUPT, heap.check());
    magic.* ^= 1;
    try heap.check();
}
