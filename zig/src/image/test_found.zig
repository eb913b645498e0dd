//! What the simulator found in the engine, each bug as a test of its own; those of a heap are in
//! `zig/src/heap`.

const std = @import("std");
const disk_ = @import("disk.zig");
const format = @import("format.zig");
const history_ = @import("history.zig");
const image_ = @import("image.zig");
const os = @import("../os/os.zig");
const real_disk = @import("../os/disk.zig");
const testing = @import("testing.zig");
const Disk = disk_.Disk;
const Heap = testing.Heap;
const Image = image_.Image;
const page_size = format.page_size;
const expect = std.testing.expect;
const expectEqual = std.testing.expectEqual;
const expectError = std.testing.expectError;
const allocator = std.testing.allocator;
const unsealed = std.math.maxInt(u64);

/// An image of three commits, the last two of them records, as files.
fn threeCommits(dir: *testing.Dir) !testing.Files {
    var heap = Heap.init(64);
    defer heap.deinit();
    {
        var calm: testing.FaultyDisk = .{};
        const image = try Image.open(.{ .disk = calm.disk(), .path = dir.path("a"), .mode = .create, .background = false, .sealed_len_min = unsealed });
        defer image.close();
        try heap.join(image, null);
        for (1..4) |step| {
            heap.touch(&.{image}, step, step);
            _ = try heap.commit(image, null);
        }
    }
    return testing.Files.take(dir);
}

fn endsOf(files: *const testing.Files) struct { second: usize, third: usize } {
    const second = std.mem.indexOf(u8, files.log, "PERMrec1").?;
    return .{ .second = second, .third = std.mem.indexOfPos(u8, files.log, second + 8, "PERMrec1").? };
}

fn open(dir: *testing.Dir, mode: image_.Mode) !*Image {
    return Image.open(.{ .path = dir.path("a"), .mode = mode, .background = false });
}

test "a stale log is removed also when a crash left nothing or two bytes of it" {
    errdefer testing.explain();
    var dir = testing.Dir.init();
    defer dir.deinit();
    var files = try threeCommits(&dir);
    defer files.deinit();
    const stale: [page_size]u8 = @splat(0);
    try dir.write("a-log-00112233445566aa", &stale);
    try dir.write("a-log-00112233445566ab", files.log[0..2]);
    try dir.write("a-log-00112233445566ac", "");
    try dir.write("a-log-00112233445566bb", "PE, somebody's notes");
    const image = try open(&dir, .write);
    image.close();
    try expectEqual(@as(usize, 3), try dir.count());
    allocator.free(try dir.read("a-log-00112233445566bb"));
}

test "a seal that was written in part is no dropped commit" {
    errdefer testing.explain();
    var dir = testing.Dir.init();
    defer dir.deinit();
    var files = try threeCommits(&dir);
    defer files.deinit();
    const record = std.mem.bytesAsValue(format.RecordHeader, files.log[std.mem.lastIndexOf(u8, files.log, "PERMrec1").?..][0..page_size]);
    var seal: format.Seal = .{ .salt = record.salt, .offset = files.log.len, .sequence = record.sequence, .record = record.checksum };
    seal.seal();
    // Written in pieces, of which any may be lost.
    const Piece = struct { from: usize, to: usize };
    for ([_]Piece{
        .{ .from = 0, .to = 3 },
        .{ .from = 0, .to = 8 },
        .{ .from = 0, .to = 20 },
        .{ .from = 0, .to = @sizeOf(format.Seal) - 1 },
        .{ .from = 5, .to = @sizeOf(format.Seal) },
        .{ .from = 49, .to = @sizeOf(format.Seal) },
        .{ .from = 49, .to = 60 },
    }) |piece| {
        const log = try std.mem.concat(allocator, u8, &.{ files.log, std.mem.asBytes(&seal) });
        defer allocator.free(log);
        const behind = log[files.log.len..];
        @memset(behind[0..piece.from], 0);
        @memset(behind[piece.to..], 0);
        try files.put(&dir);
        try dir.write(files.logName(), log);
        for ([_]image_.Mode{ .read, .write }) |mode| {
            const image = try open(&dir, mode);
            defer image.close();
            try expect(!image.dropped);
            try expectEqual(@as(u64, 3), image.head().?.epoch);
        }
    }
}

/// The real disk, on which the log is cut when its tail is being looked through.
const CuttingDisk = struct {
    from: u64,
    cut: bool = false,

    fn disk(self: *CuttingDisk) Disk {
        return .{ .context = self, .vtable = comptime &testing.realBut(.{ .read = read }) };
    }

    fn read(c: ?*anyopaque, file: disk_.File, buffer: []u8, offset: u64) i64 {
        const self: *CuttingDisk = @ptrCast(@alignCast(c.?));
        if (offset >= self.from and buffer.len > page_size and !self.cut) {
            self.cut = true;
            var path: [64]u8 = undefined;
            const name = std.fmt.bufPrintZ(&path, "/proc/self/fd/{d}", .{file}) catch unreachable;
            std.debug.assert(os.failed(std.os.linux.syscall2(.truncate, @intFromPtr(name.ptr), self.from)) == null);
        }
        return real_disk.read(c, file, buffer, offset);
    }
};

test "a tail that its writer cuts while a reader looks through it is no dropped commit" {
    errdefer testing.explain();
    var dir = testing.Dir.init();
    defer dir.deinit();
    var files = try threeCommits(&dir);
    defer files.deinit();
    const tail: [3 * page_size]u8 = @splat(0x5a);
    const log = try std.mem.concat(allocator, u8, &.{ files.log, &tail });
    defer allocator.free(log);
    try dir.write(files.logName(), log);
    var cutting: CuttingDisk = .{ .from = files.log.len };
    const image = try Image.open(.{ .disk = cutting.disk(), .path = dir.path("a"), .mode = .read });
    defer image.close();
    try expect(cutting.cut and !image.dropped);
    try expectEqual(@as(u64, 3), image.head().?.epoch);
}

/// The real disk; a sync of a fold waits until the fold is cancelled, and then a while.
const SlowDisk = struct {
    fold: ?*image_.Image = null,
    waits: std.atomic.Value(bool) = .init(false),
    synced: std.atomic.Value(bool) = .init(false),

    fn disk(self: *SlowDisk) Disk {
        return .{ .context = self, .vtable = comptime &testing.realBut(.{ .sync = sync }) };
    }

    fn sync(c: ?*anyopaque, _: disk_.File) i64 {
        const self: *SlowDisk = @ptrCast(@alignCast(c.?));
        const image = self.fold orelse return 0;
        if (!image.fold.running.load(.acquire) or self.waits.swap(true, .acq_rel)) return 0;
        for (0..2000) |_| {
            if (image.fold.cancelled.load(.acquire)) break;
            real_disk.pause(null, 1_000_000);
        }
        real_disk.pause(null, 20_000_000);
        self.synced.store(true, .release);
        return 0;
    }

    fn foldNow(image: *Image) void {
        _ = image.foldNow() catch {};
    }
};

test "cancelling waits for a fold that another thread runs by hand" {
    errdefer testing.explain();
    var scene: testing.Scene = .init(64);
    defer scene.deinit();
    var slow: SlowDisk = .{};
    const image = try Image.open(.{ .disk = slow.disk(), .path = scene.dir.path("a"), .mode = .create, .background = false });
    defer image.close();
    try scene.heap.join(image, null);
    for (1..4) |step| {
        scene.heap.touch(&.{image}, step, step);
        _ = try scene.heap.commit(image, null);
    }
    slow.fold = image;
    const thread = try std.Thread.spawn(.{}, SlowDisk.foldNow, .{image});
    while (!slow.waits.load(.acquire)) real_disk.pause(null, 100_000);
    image.cancelFold();
    const waited = slow.synced.load(.acquire);
    thread.join();
    try expect(waited);
    try Heap.expectStored(image, null, scene.heap.memory);
}

test "an epoch number without room after it is refused, or the next commit is" {
    errdefer testing.explain();
    var dir = testing.Dir.init();
    defer dir.deinit();
    var files = try threeCommits(&dir);
    defer files.deinit();
    const header: *align(1) format.BaseHeader = @ptrCast(files.base.ptr);
    var changed: format.BaseHeader = header.*;
    for ([_]u64{ std.math.maxInt(u64), format.epoch_limit + 1, format.epoch_limit }) |epoch| {
        changed.epoch_max = epoch;
        changed.seal();
        header.* = changed;
        try files.put(&dir);
        if (epoch > format.epoch_limit) {
            try expectError(error.CORRUPT, open(&dir, .write));
            continue;
        }
        const image = try open(&dir, .write);
        defer image.close();
        var heap = Heap.init(64);
        defer heap.deinit();
        try heap.restore(image, null);
        heap.touch(&.{image}, 9, 9);
        try expectError(error.CORRUPT, heap.commit(image, null));
    }
}

test "a commit that a log names twice ends it: none is its own ancestor" {
    errdefer testing.explain();
    var dir = testing.Dir.init();
    defer dir.deinit();
    var files = try threeCommits(&dir);
    defer files.deinit();
    const at = endsOf(&files);
    const second: *align(1) format.RecordHeader = @ptrCast(files.log[at.second..].ptr);
    const third: *align(1) format.RecordHeader = @ptrCast(files.log[at.third..].ptr);
    var header: format.RecordHeader = third.*;
    header.commit = second.commit;
    header.parent = second.commit;
    header.seal();
    third.* = header;
    const footer: *align(1) format.Footer = @ptrCast(files.log[at.third + header.layout().?.footer ..].ptr);
    var end: format.Footer = footer.*;
    end.commit = header.commit;
    end.record = header.checksum;
    end.seal();
    footer.* = end;
    try expect(end.matches(&header));
    try files.put(&dir);
    const image = try open(&dir, .read);
    defer image.close();
    try expectEqual(@as(u64, 2), image.head().?.epoch);
    const list = try image.epochs(allocator);
    defer allocator.free(list);
    try expectEqual(@as(usize, 2), list.len);
}

test "numbers of commits that failed are not given again after a first restore" {
    var history: history_.History = .{};
    defer history.deinit();
    var lines: history_.Lines = .{};
    defer lines.deinit();
    const heap: [16]u8 = @splat(7);
    const first = try history.next(heap, 1, 100);
    _ = try history.next(heap, 2, 101);
    // Both failed, and the first is found all the same.
    try history.adopt(first, &lines, first.epoch);
    try expectEqual(@as(u64, 3), (try history.next(heap, 3, 102)).epoch);
}

test "a damaged page of the last whole record is damage when a later record was begun" {
    errdefer testing.explain();
    var dir = testing.Dir.init();
    defer dir.deinit();
    var files = try threeCommits(&dir);
    defer files.deinit();
    const at = endsOf(&files);
    files.log[at.second + page_size + 1] ^= 1;
    try files.put(&dir);
    // The third's header alone is there: it was begun, so the second was synced.
    const begun = files.log[0 .. at.third + page_size];
    try dir.write(files.logName(), begun);
    try expectError(error.CORRUPT, open(&dir, .write));
    const image = try Image.open(.{ .path = dir.path("a"), .mode = .read, .allow_damaged = true });
    defer image.close();
    try expectEqual(@as(u64, 1), image.head().?.epoch);
    // Without it the second may have been torn.
    try dir.write(files.logName(), files.log[0..at.third]);
    const torn = try open(&dir, .read);
    defer torn.close();
    try expect(torn.dropped);
}
