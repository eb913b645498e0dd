//! Disks that fail or stop at every call, files cut and flipped at every byte.

const std = @import("std");
const errors = @import("../errors.zig");
const os = @import("../os/os.zig");
const image_ = @import("image.zig");
const format = @import("format.zig");
const testing = @import("testing.zig");
const Heap = testing.Heap;
const Files = testing.Files;
const Image = image_.Image;
const page_size = format.page_size;
const expect = std.testing.expect;
const expectEqual = std.testing.expectEqual;
const allocator = std.testing.allocator;

/// What a run had committed, acknowledged or not, by epoch.
const Model = struct {
    states: std.ArrayList(State) = .empty,
    acknowledged: u64 = 0,

    const State = struct { epoch: u64, bytes: []u8 };

    fn deinit(self: *Model) void {
        for (self.states.items) |state| allocator.free(state.bytes);
        self.states.deinit(allocator);
    }

    fn add(self: *Model, epoch: u64, heap: *Heap) !void {
        try self.states.append(allocator, .{ .epoch = epoch, .bytes = try heap.copy() });
    }

    /// The image opens at the last acknowledged epoch, or at a later one that was tried.
    fn check(self: *const Model, image: *Image) !void {
        const head = image.head().?;
        if (head.epoch < self.acknowledged) {
            std.debug.print("opened at {d}, acknowledged was {d}\n", .{ head.epoch, self.acknowledged });
            return error.TestUnexpectedResult;
        }
        try self.checkEpoch(image, head.epoch);
    }

    fn checkEpoch(self: *const Model, image: *Image, epoch: u64) !void {
        for (self.states.items) |state| if (state.epoch == epoch) return Heap.expectStored(image, epoch, state.bytes);
        return error.TestUnexpectedResult;
    }
};

/// Commits of every kind: first base, records, holes, a large one, going back, a fold.
fn scenario(disk: image_.Disk, path: []const u8, heap: *Heap, model: *Model, keep: u32, retry: bool, sealed_len_min: u64) !void {
    const image = try Image.open(.{ .disk = disk, .path = path, .mode = .create, .keep = keep, .background = false, .base_pages_min = 32, .sealed_len_min = sealed_len_min, .spare_len_min = 0 });
    defer image.close();
    try heap.join(image, null);
    for (0..9) |step| {
        switch (step) {
            0 => for (0..40) |page| heap.touch(&.{image}, page * 3, page + 1),
            // Twice: the second is written over the base that the first replaced.
            3, 4 => for (0..110) |page| heap.touch(&.{image}, page, page + 7 * step),
            5 => {
                for (30..60) |page| @memset(heap.page(page), 0);
                heap.holes = &.{.{ .first = 30, .count = 30 }};
            },
            else => for (0..3) |page| heap.touch(&.{image}, page * 10 + step, step + 1),
        }
        defer heap.holes = &.{};
        const tried = heap.history.epoch_max + 1;
        try model.add(tried, heap);
        const report = heap.commit(image, null) catch |err| {
            if (!retry) return err;
            const failed_max = heap.history.epoch_max + 1;
            if (failed_max != tried) try model.add(failed_max, heap);
            const again = heap.commit(image, null) catch |second| return second;
            model.acknowledged = again.epoch;
            continue;
        };
        model.acknowledged = report.epoch;
        if (step == 6) _ = image.foldNow() catch |err| if (!retry) return err;
    }
}

test "after a disk fails at any call, the last acknowledged epoch opens, and committing goes on" {
    errdefer testing.explain();
    var dir = testing.Dir.init();
    defer dir.deinit();
    for ([_]u32{ 1, 3 }) |keep| for ([_]bool{ true, false }) |dead| for ([_]os.E{ .IO, .NOSPC }) |e| {
        var stop: usize = 0;
        while (true) : (stop += 1) {
            errdefer std.debug.print("keep {d} dead {} {t} call {d}\n", .{ keep, dead, e, stop });
            try dir.clear();
            var heap = Heap.init(130);
            defer heap.deinit();
            var model: Model = .{};
            defer model.deinit();
            var faulty: testing.FaultyDisk = .{ .stop_at = stop, .dead = dead, .errno = @intFromEnum(e) };
            const failed = if (scenario(faulty.disk(), dir.path("a"), &heap, &model, keep, !dead, if (e == .IO) 0 else std.math.maxInt(u64))) |_| false else |_| true;
            if (faulty.calls <= stop) {
                try expect(!failed);
                break;
            }
            var calm: testing.FaultyDisk = .{};
            const image = Image.open(.{ .disk = calm.disk(), .path = dir.path("a"), .mode = .write, .keep = keep, .background = false, .verify = true }) catch |err| {
                if (err == error.NOT_FOUND and model.acknowledged == 0) continue;
                return err;
            };
            defer image.close();
            try model.check(image);
            const epoch = image.head().?.epoch;
            try heap.restore(image, null);
            heap.touch(&.{image}, 1, 0xabcdef);
            const report = try heap.commit(image, null);
            try expect(report.epoch > epoch);
            try Heap.expectStored(image, null, heap.memory);
            try expectEqual(@as(usize, 2), try dir.count());
        }
    };
}

test "an opening that fails at any call changes nothing that was committed" {
    errdefer testing.explain();
    var dir = testing.Dir.init();
    defer dir.deinit();
    for ([_]bool{ true, false }) |dead| {
        var stop: usize = 0;
        while (true) : (stop += 1) {
            errdefer std.debug.print("dead {} call {d}\n", .{ dead, stop });
            try dir.clear();
            var heap = Heap.init(130);
            defer heap.deinit();
            var model: Model = .{};
            defer model.deinit();
            var calm: testing.FaultyDisk = .{};
            try scenario(calm.disk(), dir.path("a"), &heap, &model, 2, false, if (dead) 0 else std.math.maxInt(u64));
            var faulty: testing.FaultyDisk = .{ .stop_at = stop, .dead = dead };
            if (Image.open(.{ .disk = faulty.disk(), .path = dir.path("a"), .mode = .write })) |image| image.close() else |_| {}
            const image = try Image.open(.{ .disk = calm.disk(), .path = dir.path("a"), .mode = .write, .verify = true });
            defer image.close();
            try model.check(image);
            if (faulty.calls <= stop) break;
        }
    }
}

/// Four commits, the first of them the base.
fn smallImage(dir: *testing.Dir, model: *Model, sealed_len_min: u64) !Files {
    var heap = Heap.init(64);
    defer heap.deinit();
    {
        var calm: testing.FaultyDisk = .{};
        const image = try Image.open(.{ .disk = calm.disk(), .path = dir.path("a"), .mode = .create, .background = false, .sealed_len_min = sealed_len_min });
        defer image.close();
        try heap.join(image, null);
        for (0..4) |step| {
            heap.touch(&.{image}, step + 1, step + 100);
            heap.touch(&.{image}, 20, step + 100);
            try model.add(step + 1, &heap);
            model.acknowledged = (try heap.commit(image, null)).epoch;
        }
    }
    return Files.take(dir);
}

/// Opens whatever stands there: an error, or a state that was committed.
fn expectErrorOrCommitted(dir: *testing.Dir, model: *const Model) !?u64 {
    const image = Image.open(.{ .path = dir.path("a"), .mode = .read, .verify = true }) catch return null;
    defer image.close();
    const epoch = image.head().?.epoch;
    try expect(epoch == model.acknowledged or image.dropped);
    try model.checkEpoch(image, epoch);
    return epoch;
}

const unsealed = std.math.maxInt(u64);

test "a log cut at any length opens at the last whole record; a base cut anywhere is refused" {
    errdefer testing.explain();
    var dir = testing.Dir.init();
    defer dir.deinit();
    var model: Model = .{};
    defer model.deinit();
    var files = try smallImage(&dir, &model, unsealed);
    defer files.deinit();
    var cut: Files = files;
    var len: usize = 0;
    while (len < files.log.len) : (len += if (len % page_size < 300 or files.log.len - len < 5000) 1 else 61) {
        errdefer std.debug.print("log of {d} bytes\n", .{len});
        cut.log = files.log[0..len];
        try cut.put(&dir);
        var calm: testing.FaultyDisk = .{};
        const image = Image.open(.{ .disk = calm.disk(), .path = dir.path("a"), .mode = .write, .background = false }) catch |err| {
            try expectEqual(error.CORRUPT, err);
            try expect(len < page_size);
            continue;
        };
        defer image.close();
        const epoch = image.head().?.epoch;
        try expect(epoch < 4 or len >= files.log.len - page_size);
        try model.checkEpoch(image, epoch);
        if (len % 16 != 0) continue;
        var heap = Heap.init(64);
        defer heap.deinit();
        try heap.restore(image, null);
        heap.touch(&.{image}, 9, len);
        const report = try heap.commit(image, null);
        try expectEqual(epoch + 1, report.epoch);
        try Heap.expectStored(image, null, heap.memory);
    }
    cut = files;
    for (0..files.base.len) |base_len| {
        cut.base = files.base[0..base_len];
        try cut.put(&dir);
        if (Image.open(.{ .path = dir.path("a"), .mode = .write })) |image| {
            image.close();
            return error.TestUnexpectedResult;
        } else |err| try expect(err == error.CORRUPT or err == error.NOT_AN_IMAGE);
    }
}

test "any flipped byte is an error or an epoch that was committed" {
    errdefer testing.explain();
    var dir = testing.Dir.init();
    defer dir.deinit();
    for ([_]u64{ unsealed, 0 }) |sealed_len_min| {
        try dir.clear();
        var model: Model = .{};
        defer model.deinit();
        var files = try smallImage(&dir, &model, sealed_len_min);
        defer files.deinit();
        try files.put(&dir);
        try flipAll(&dir, &model, &files);
    }
}

fn flipAll(dir: *testing.Dir, model: *const Model, files: *Files) !void {
    for ([_][]u8{ files.base, files.log }, 0..) |bytes, which| {
        var index: usize = 0;
        while (index < bytes.len) : (index += if (index % page_size < 280 or bytes.len - index < 300) 1 else 97) {
            errdefer std.debug.print("file {d} byte {d}\n", .{ which, index });
            const bit = @as(u8, 1) << @intCast(index % 8);
            bytes[index] ^= bit;
            defer bytes[index] ^= bit;
            try dir.write(if (which == 0) "a" else files.logName(), bytes);
            const epoch = try expectErrorOrCommitted(dir, model);
            if (which == 0) try expectEqual(@as(?u64, null), epoch);
        }
        try dir.write(if (which == 0) "a" else files.logName(), bytes);
    }
}

test "a sealed record that is damaged is CORRUPT, not taken for a torn one" {
    errdefer testing.explain();
    var dir = testing.Dir.init();
    defer dir.deinit();
    var model: Model = .{};
    defer model.deinit();
    var files = try smallImage(&dir, &model, 0);
    defer files.deinit();
    const last = std.mem.lastIndexOf(u8, files.log, "PERMrec1").?;
    files.log[last + 100] ^= 1;
    try files.put(&dir);
    try std.testing.expectError(error.CORRUPT, Image.open(.{ .path = dir.path("a"), .mode = .write }));
    const image = try Image.open(.{ .path = dir.path("a"), .mode = .read, .allow_damaged = true });
    defer image.close();
    try model.checkEpoch(image, 3);
}

test "arbitrary headers with right checksums are refused without a crash or much memory" {
    errdefer testing.explain();
    var dir = testing.Dir.init();
    defer dir.deinit();
    var model: Model = .{};
    defer model.deinit();
    var files = try smallImage(&dir, &model, unsealed);
    defer files.deinit();
    var prng = std.Random.DefaultPrng.init(7);
    const random = prng.random();
    try files.put(&dir);
    const odd = [_]u64{ 0, 1, 2, 0xff, 4095, 4096, 1 << 31, 1 << 35, 1 << 47, 1 << 63, std.math.maxInt(u64) };
    for (0..3000) |round| {
        const base = try allocator.dupe(u8, files.base);
        defer allocator.free(base);
        const log = try allocator.dupe(u8, files.log);
        defer allocator.free(log);
        for (0..1 + random.uintLessThan(usize, 2)) |_| {
            const value = if (random.boolean()) odd[random.uintLessThan(usize, odd.len)] else random.uintLessThan(u64, 100);
            if (random.boolean()) {
                const at = random.uintLessThan(usize, 29) * 8;
                std.mem.writeInt(u64, base[at..][0..8], value, .little);
            } else {
                const records = [_]usize{ 0, 1, 4, 7 };
                const record = records[random.uintLessThan(usize, 4)] * page_size;
                const at = random.uintLessThan(usize, 26) * 8;
                std.mem.writeInt(u64, log[record + at ..][0..8], value, .little);
                const header: *align(1) format.RecordHeader = @ptrCast(log[record..][0..page_size]);
                header.checksum = format.hash(log[record..][0 .. page_size - 8]);
            }
        }
        const header: *align(1) format.BaseHeader = @ptrCast(base[0..page_size]);
        header.checksum = format.hash(base[0 .. page_size - 8]);
        if (round % 5 == 0) random.bytes(base[4096 + random.uintLessThan(usize, base.len - 4096) ..]);
        if (round % 7 == 0) random.bytes(log[random.uintLessThan(usize, log.len)..]);
        try dir.write("a", base);
        try dir.write(files.logName(), log);
        const image = Image.open(.{ .path = dir.path("a"), .mode = .read, .allow_damaged = true, .verify = round % 2 == 0 }) catch continue;
        defer image.close();
        const point = image.point(null) catch continue;
        if (point.identity.span > 1 << 30) continue;
        const at = try os.reserve(0, point.identity.span);
        defer os.unmap(at, point.identity.span);
        _ = image.build(point, at, point.identity.span) catch continue;
    }
    for (0..300) |_| {
        const bytes = try allocator.alloc(u8, random.uintLessThan(usize, 20_000));
        defer allocator.free(bytes);
        random.bytes(bytes);
        if (bytes.len > 8 and random.boolean()) std.mem.writeInt(u64, bytes[0..8], format.base_magic, .little);
        try dir.write("a", bytes);
        if (Image.open(.{ .path = dir.path("a"), .mode = .read })) |image| {
            image.close();
            return error.TestUnexpectedResult;
        } else |err| try expect(err == error.NOT_AN_IMAGE or err == error.BAD_VERSION or err == error.CORRUPT);
    }
}

test "a record damaged before whole ones is CORRUPT; the epochs before it open, and both files are kept" {
    errdefer testing.explain();
    var dir = testing.Dir.init();
    defer dir.deinit();
    var model: Model = .{};
    defer model.deinit();
    var files = try smallImage(&dir, &model, unsealed);
    defer files.deinit();
    // The second record's header: epoch 3.
    const second = std.mem.indexOfPos(u8, files.log, 2 * page_size, "PERMrec1").?;
    files.log[second + 100] ^= 1;
    try files.put(&dir);
    try std.testing.expectError(error.CORRUPT, Image.open(.{ .path = dir.path("a"), .mode = .write }));
    {
        const image = try Image.open(.{ .path = dir.path("a"), .mode = .write, .allow_damaged = true });
        defer image.close();
        try std.testing.expectError(error.CORRUPT, image.point(null));
        try std.testing.expectError(error.NO_EPOCH, image.point(3));
        try model.checkEpoch(image, 1);
        try model.checkEpoch(image, 2);
        var heap = Heap.init(64);
        defer heap.deinit();
        const uuid = image.uuid;
        try heap.restore(image, 2);
        heap.touch(&.{image}, 5, 5);
        const report = try heap.commit(image, null);
        try expect(report.new_base and !std.mem.eql(u8, &uuid, &image.uuid));
        try Heap.expectStored(image, null, heap.memory);
    }
    var buffer: [128]u8 = undefined;
    const kept = try dir.find("-damaged-", &buffer);
    const base_name = if (std.mem.indexOf(u8, kept, "-log-")) |at| kept[0..at] else kept;
    const old = try Image.open(.{ .path = dir.path(base_name), .mode = .read, .allow_damaged = true });
    defer old.close();
    try model.checkEpoch(old, 2);
}

test "recover opens a base whose log is lost, and its first commit makes another image" {
    errdefer testing.explain();
    var dir = testing.Dir.init();
    defer dir.deinit();
    var model: Model = .{};
    defer model.deinit();
    var files = try smallImage(&dir, &model, unsealed);
    defer files.deinit();
    try dir.tmp.dir.deleteFile(std.testing.io, files.logName());
    try std.testing.expectError(error.CORRUPT, Image.open(.{ .path = dir.path("a"), .mode = .write }));
    const image = try Image.open(.{ .path = dir.path("a"), .mode = .write, .recover = true });
    defer image.close();
    try expectEqual(@as(u64, 1), image.head().?.epoch);
    try model.checkEpoch(image, 1);
    var heap = Heap.init(64);
    defer heap.deinit();
    try heap.restore(image, null);
    const uuid = image.uuid;
    heap.touch(&.{image}, 5, 5);
    try expect((try heap.commit(image, null)).new_base);
    try expect(!std.mem.eql(u8, &uuid, &image.uuid));
    heap.touch(&.{image}, 6, 5);
    try expect(!(try heap.commit(image, null)).new_base);
    try Heap.expectStored(image, null, heap.memory);
}
