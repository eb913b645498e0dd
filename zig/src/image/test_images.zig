//! Locks and names, two images of one heap, lines and branches, folds beside commits.

const std = @import("std");
const os = @import("../os/os.zig");
const image_ = @import("image.zig");
const disk_ = @import("disk.zig");
const plant = @import("../plant.zig");
const real_disk = @import("../os/disk.zig");
const testing = @import("testing.zig");
const Heap = testing.Heap;
const Image = image_.Image;
const linux = std.os.linux;
const expect = std.testing.expect;
const expectEqual = std.testing.expectEqual;
const expectError = std.testing.expectError;

fn made(path: []const u8, heap: *Heap, keep: u32) !*Image {
    const image = try Image.open(.{ .path = path, .mode = .create, .keep = keep, .background = false, .base_pages_min = 32 });
    try heap.join(image, null);
    return image;
}

test "one writer, any readers: a second opening for writing is BUSY until the first is closed" {
    errdefer testing.explain();
    var scene: testing.Scene = .init(64);
    defer scene.deinit();
    const image = try made(scene.dir.path("a"), &scene.heap, 1);
    // Claimed and not yet committed. Another disk stands for another process.
    var calm: testing.FaultyDisk = .{};
    const elsewhere = calm.disk();
    try expectError(error.ALREADY_OPEN, Image.open(.{ .path = scene.dir.path("a"), .mode = .create }));
    try expectError(error.BUSY, Image.open(.{ .disk = elsewhere, .path = scene.dir.path("a"), .mode = .create }));
    try expectError(error.NOT_FOUND, Image.open(.{ .path = scene.dir.path("a"), .mode = .write }));
    try expectError(error.NOT_FOUND, Image.open(.{ .path = scene.dir.path("a"), .mode = .read }));
    scene.heap.touch(&.{image}, 1, 1);
    _ = try scene.heap.commit(image, null);
    try expectError(error.BUSY, Image.open(.{ .disk = elsewhere, .path = scene.dir.path("a"), .mode = .create }));
    try expectError(error.BUSY, Image.open(.{ .disk = elsewhere, .path = scene.dir.path("a"), .mode = .write }));
    const reader = try Image.open(.{ .path = scene.dir.path("a"), .mode = .read });
    defer reader.close();
    try expectError(error.READ_ONLY, reader.begin());
    scene.heap.touch(&.{image}, 2, 2);
    const before = try scene.heap.copy();
    defer std.testing.allocator.free(before);
    _ = try scene.heap.commit(image, null);
    const later = try Image.open(.{ .path = scene.dir.path("a"), .mode = .read });
    defer later.close();
    try Heap.expectStored(later, null, before);
    // A mapping outlives its image and must not keep the lock.
    try scene.heap.restore(image, null);
    image.close();
    const again = try Image.open(.{ .path = scene.dir.path("a"), .mode = .write });
    again.close();
}

test "a claim that was never used leaves nothing behind; a stale one is taken over" {
    errdefer testing.explain();
    var dir = testing.Dir.init();
    defer dir.deinit();
    const claimed = try Image.open(.{ .path = dir.path("a"), .mode = .create });
    try expectEqual(@as(usize, 1), try dir.count());
    claimed.close();
    try expectEqual(@as(usize, 0), try dir.count());
    for ([_][]const u8{ "", "PERMpart and more", &@as([5000]u8, @splat(0)) }) |bytes| {
        try dir.write("a-new", bytes);
        const image = try Image.open(.{ .path = dir.path("a"), .mode = .create });
        image.close();
        try expectEqual(@as(usize, 0), try dir.count());
    }
    try dir.write("a-new", "somebody's notes");
    try expectError(error.EXISTS, Image.open(.{ .path = dir.path("a"), .mode = .create }));
    try expectEqual(@as(usize, 1), try dir.count());
}

test "w+ replaces what stands there with the first commit and not before; another heap's only when told" {
    errdefer testing.explain();
    var scene: testing.Scene = .init(64);
    defer scene.deinit();
    {
        const image = try made(scene.dir.path("a"), &scene.heap, 1);
        defer image.close();
        scene.heap.touch(&.{image}, 1, 1);
        _ = try scene.heap.commit(image, null);
    }
    var other = Heap.init(64);
    defer other.deinit();
    other.identity.uuid[3] = 99;
    try expectError(error.EXISTS, Image.open(.{ .path = scene.dir.path("a"), .mode = .create, .heap = other.identity.uuid }));
    (try Image.open(.{ .path = scene.dir.path("a"), .mode = .create, .heap = scene.heap.identity.uuid })).close();
    (try Image.open(.{ .path = scene.dir.path("a"), .mode = .create, .heap = other.identity.uuid, .replace = true })).close();
    {
        const untouched = try Image.open(.{ .path = scene.dir.path("a"), .mode = .read });
        defer untouched.close();
        try Heap.expectStored(untouched, null, scene.heap.memory);
    }
    {
        const image = try made(scene.dir.path("a"), &other, 1);
        defer image.close();
        other.touch(&.{image}, 7, 7);
        _ = try other.commit(image, null);
    }
    try expectEqual(@as(usize, 2), try scene.dir.count());
    const image = try Image.open(.{ .path = scene.dir.path("a"), .mode = .write });
    defer image.close();
    try Heap.expectStored(image, null, other.memory);
    try scene.dir.write("notes", "not an image");
    try expectError(error.EXISTS, Image.open(.{ .path = scene.dir.path("notes"), .mode = .create }));
    (try Image.open(.{ .path = scene.dir.path("notes"), .mode = .create, .replace = true })).close();
}

test "what is no image has its own answer" {
    errdefer testing.explain();
    var dir = testing.Dir.init();
    defer dir.deinit();
    for ([_]image_.Mode{ .read, .write, .create }) |mode| {
        try expectError(error.NOT_AN_IMAGE, Image.open(.{ .path = dir.path("."), .mode = mode }));
        try expectError(error.INVALID_ARGUMENT, Image.open(.{ .path = "", .mode = mode }));
        try expectError(error.INVALID_ARGUMENT, Image.open(.{ .path = "a\x00b", .mode = mode }));
        try expectError(error.INVALID_ARGUMENT, Image.open(.{ .path = dir.path("a-new"), .mode = mode }));
        try expectError(error.INVALID_ARGUMENT, Image.open(.{ .path = dir.path("a-log-0123456789abcdef"), .mode = mode }));
        try expectError(error.INVALID_ARGUMENT, Image.open(.{ .path = dir.path(&@as([220]u8, @splat('n'))), .mode = mode }));
        try expectError(error.NOT_FOUND, Image.open(.{ .path = dir.path("no/such"), .mode = mode }));
        if (mode == .create) continue;
        try dir.write("empty", "");
        try expectError(error.NOT_AN_IMAGE, Image.open(.{ .path = dir.path("empty"), .mode = mode }));
        try expectError(error.NOT_FOUND, Image.open(.{ .path = dir.path("none"), .mode = mode }));
        var text: [256]u8 = undefined;
        const fifo = try std.fmt.bufPrintZ(&text, "{s}", .{dir.path("fifo")});
        _ = linux.mknod(fifo, linux.S.IFIFO | 0o600, 0);
        try expectError(error.NOT_AN_IMAGE, Image.open(.{ .path = dir.path("fifo"), .mode = mode }));
        const link = try std.fmt.bufPrintZ(&text, "{s}", .{dir.path("dangling")});
        _ = linux.symlink("nowhere", link);
        try expectError(error.NOT_FOUND, Image.open(.{ .path = dir.path("dangling"), .mode = mode }));
        const loop = try std.fmt.bufPrintZ(&text, "{s}", .{dir.path("loop")});
        _ = linux.symlink("loop", loop);
        try expectError(error.NOT_FOUND, Image.open(.{ .path = dir.path("loop"), .mode = mode }));
    }
}

test "a symbolic link is followed once: the image's files stand beside its target" {
    errdefer testing.explain();
    var scene: testing.Scene = .init(64);
    defer scene.deinit();
    var text: [256]u8 = undefined;
    const link = try std.fmt.bufPrintZ(&text, "{s}", .{scene.dir.path("link")});
    _ = linux.symlink("real", link);
    {
        const image = try made(scene.dir.path("link"), &scene.heap, 1);
        defer image.close();
        scene.heap.touch(&.{image}, 1, 1);
        _ = try scene.heap.commit(image, null);
    }
    const image = try Image.open(.{ .path = scene.dir.path("real"), .mode = .read });
    defer image.close();
    try Heap.expectStored(image, null, scene.heap.memory);
    var buffer: [128]u8 = undefined;
    _ = try scene.dir.find("real-log-", &buffer);
}

test "an unchanged heap has the same epoch and id in both images, and each holds its own" {
    errdefer testing.explain();
    var scene: testing.Scene = .init(64);
    defer scene.deinit();
    const map = try made(scene.dir.path("map"), &scene.heap, 1);
    defer map.close();
    const both = &[_]*Image{map};
    scene.heap.touch(both, 1, 1);
    try expectEqual(@as(u64, 1), (try scene.heap.commit(map, null)).epoch);
    const backup = try made(scene.dir.path("backup"), &scene.heap, 1);
    defer backup.close();
    const images = &[_]*Image{ map, backup };
    try expectEqual(@as(u64, 1), (try scene.heap.commit(backup, map)).epoch);
    try expectEqual(map.head().?.commit, backup.head().?.commit);
    try expectEqual(image_.Relation.same, image_.relation(map, backup));
    scene.heap.touch(images, 2, 2);
    try expectEqual(@as(u64, 2), (try scene.heap.commit(map, backup)).epoch);
    try expectEqual(image_.Relation.descendant, image_.relation(map, backup));
    scene.heap.touch(images, 3, 3);
    const third = try scene.heap.commit(backup, map);
    try expectEqual(@as(u64, 3), third.epoch);
    try expectEqual(@as(u64, 2), third.pages);
    try expect(!third.new_base);
    try expectEqual(image_.Relation.ancestor, image_.relation(map, backup));
    // The map image has one page pending, and catches up to the same commit.
    const caught_up = try scene.heap.commit(map, backup);
    try expectEqual(@as(u64, 3), caught_up.epoch);
    try expectEqual(@as(u64, 1), caught_up.pages);
    try expectEqual(map.head().?.commit, backup.head().?.commit);
    try Heap.expectStored(map, null, scene.heap.memory);
    try Heap.expectStored(backup, null, scene.heap.memory);
    // Changed and changed back: it is another commit of the same content.
    scene.heap.touch(images, 3, 9);
    try expectEqual(@as(u64, 4), (try scene.heap.commit(map, backup)).epoch);
    scene.heap.touch(images, 3, 3);
    const same_content = try scene.heap.commit(backup, map);
    try expectEqual(@as(u64, 5), same_content.epoch);
    try expectEqual(image_.Relation.ancestor, image_.relation(map, backup));
}

test "sessions that go on from one commit separately have diverged, and backup() refuses to replace the other" {
    errdefer testing.explain();
    var scene: testing.Scene = .init(64);
    defer scene.deinit();
    {
        const map = try made(scene.dir.path("map"), &scene.heap, 1);
        defer map.close();
        const backup = try made(scene.dir.path("backup"), &scene.heap, 1);
        defer backup.close();
        scene.heap.touch(&.{ map, backup }, 1, 1);
        _ = try scene.heap.commit(map, backup);
        _ = try scene.heap.commit(backup, map);
    }
    for ([_][]const u8{ "map", "backup" }, 0..) |name, index| {
        const image = try Image.open(.{ .path = scene.dir.path(name), .mode = .write, .background = false });
        defer image.close();
        var session = Heap.init(64);
        defer session.deinit();
        try session.restore(image, null);
        session.touch(&.{image}, 5, index + 10);
        try expectEqual(@as(u64, 2), (try session.commit(image, null)).epoch);
    }
    const map = try Image.open(.{ .path = scene.dir.path("map"), .mode = .write, .background = false });
    defer map.close();
    const backup = try Image.open(.{ .path = scene.dir.path("backup"), .mode = .write, .background = false });
    defer backup.close();
    try expectEqual(image_.Relation.diverged, image_.relation(map, backup));
    var session = Heap.init(64);
    defer session.deinit();
    try session.restore(map, null);
    try session.join(backup, map);
    var one = try backup.begin();
    defer one.end();
    try expectError(error.EXISTS, one.prepare(.{
        .memory = @intFromPtr(session.memory.ptr),
        .identity = session.identity,
        .used = &.{session.used},
        .other = map,
        .guard = true,
    }));
}

test "going back changes no file; going on from there is a new line, and the other branch stays reachable" {
    errdefer testing.explain();
    var scene: testing.Scene = .init(64);
    defer scene.deinit();
    const image = try made(scene.dir.path("a"), &scene.heap, 4);
    defer image.close();
    var states: [8][]u8 = undefined;
    defer for (states[1..7]) |state| std.testing.allocator.free(state);
    for (1..5) |epoch| {
        scene.heap.touch(&.{image}, epoch, epoch);
        try expectEqual(epoch, (try scene.heap.commit(image, null)).epoch);
        states[epoch] = try scene.heap.copy();
    }
    try scene.heap.restore(image, 2);
    try std.testing.expectEqualSlices(u8, states[2], scene.heap.memory);
    try expectEqual(@as(u64, 4), image.head().?.epoch);
    scene.heap.touch(&.{image}, 20, 20);
    try expectEqual(@as(u64, 5), (try scene.heap.commit(image, null)).epoch);
    states[5] = try scene.heap.copy();
    for (1..6) |epoch| try Heap.expectStored(image, epoch, states[epoch]);
    const line = try image.epochs(std.testing.allocator);
    defer std.testing.allocator.free(line);
    try expectEqual(@as(usize, 3), line.len);
    // Back without a change: the commit is a new epoch of the old content.
    try scene.heap.restore(image, 1);
    try expectEqual(@as(u64, 6), (try scene.heap.commit(image, null)).epoch);
    states[6] = try scene.heap.copy();
    try std.testing.expectEqualSlices(u8, states[1], states[6]);
    try expect(try image.foldNow() == false);
    scene.heap.touch(&.{image}, 21, 21);
    _ = try scene.heap.commit(image, null);
    scene.heap.touch(&.{image}, 22, 22);
    _ = try scene.heap.commit(image, null);
    _ = try image.foldNow();
    try Heap.expectStored(image, null, scene.heap.memory);
}

test "folds run beside commits, keep what keep promises, and bound the log" {
    errdefer testing.explain();
    for ([_]u32{ 1, 3 }) |keep| {
        var scene: testing.Scene = .init(2000);
        defer scene.deinit();
        const image = try Image.open(.{ .path = scene.dir.path("a"), .mode = .create, .keep = keep, .log_limit = 300 * 1024 });
        defer image.close();
        try scene.heap.join(image, null);
        var states: std.ArrayList([]u8) = .empty;
        defer {
            for (states.items) |state| std.testing.allocator.free(state);
            states.deinit(std.testing.allocator);
        }
        var prng = std.Random.DefaultPrng.init(keep);
        const random = prng.random();
        for (0..120) |_| {
            for (0..20) |_| scene.heap.touch(&.{image}, random.uintLessThan(u64, 2000), random.int(u64));
            const report = try scene.heap.commit(image, null);
            try states.append(std.testing.allocator, try scene.heap.copy());
            try expectEqual(states.items.len, report.epoch);
        }
        image.cancelFold();
        const info = image.info();
        try expect(info.folds > 0);
        const list = try image.epochs(std.testing.allocator);
        defer std.testing.allocator.free(list);
        try expect(list.len >= keep);
        for (list[list.len - keep ..]) |epoch| try Heap.expectStored(image, epoch.epoch, states.items[epoch.epoch - 1]);
        try expectEqual(@as(usize, 2), try scene.dir.count());
    }
}

test "a file that takes the image's place makes commits STALE; a removed one is made again" {
    errdefer testing.explain();
    var scene: testing.Scene = .init(64);
    defer scene.deinit();
    const image = try made(scene.dir.path("a"), &scene.heap, 1);
    defer image.close();
    scene.heap.touch(&.{image}, 1, 1);
    _ = try scene.heap.commit(image, null);
    try scene.dir.tmp.dir.rename("a", scene.dir.tmp.dir, "b", std.testing.io);
    scene.heap.touch(&.{image}, 2, 2);
    try expect((try scene.heap.commit(image, null)).new_base);
    try Heap.expectStored(image, null, scene.heap.memory);
    const found = try Image.open(.{ .path = scene.dir.path("a"), .mode = .read });
    found.close();
    try scene.dir.tmp.dir.rename("b", scene.dir.tmp.dir, "a", std.testing.io);
    scene.heap.touch(&.{image}, 3, 3);
    try expectError(error.STALE, scene.heap.commit(image, null));
}

test "equal content gives equal files, whatever superset of the changed pages was named" {
    errdefer testing.explain();
    var dir = testing.Dir.init();
    defer dir.deinit();
    var buffers: [2][2][]u8 = undefined;
    for (0..2) |round| {
        try dir.clear();
        var heap = Heap.init(1500);
        defer heap.deinit();
        var same: SameDisk = .{};
        const image = try Image.open(.{ .disk = same.disk(), .path = dir.path("a"), .mode = .create, .background = false, .base_pages_min = 100 });
        try heap.join(image, null);
        var prng = std.Random.DefaultPrng.init(3);
        const random = prng.random();
        heap.all = round == 1;
        for (0..40) |step| {
            const touched: usize = if (step == 20) 1200 else if (step % 6 == 0) 200 else 5;
            for (0..touched) |_| heap.touch(&.{image}, random.uintLessThan(u64, 1500), random.uintLessThan(u64, 3));
            _ = try heap.commit(image, null);
        }
        image.close();
        var name: [128]u8 = undefined;
        buffers[round] = .{ try dir.read("a"), try dir.read(try dir.find("-log-", &name)) };
    }
    defer for (buffers) |pair| for (pair) |bytes| std.testing.allocator.free(bytes);
    try std.testing.expectEqualSlices(u8, buffers[0][0], buffers[1][0]);
    try std.testing.expectEqualSlices(u8, buffers[0][1], buffers[1][1]);
}

test "a base begun on the guess that most pages changed gives way to a record when fewer did" {
    errdefer testing.explain();
    var scene: testing.Scene = .init(800);
    defer scene.deinit();
    const image = try Image.open(.{ .path = scene.dir.path("a"), .mode = .create, .background = false, .base_pages_min = 8 });
    defer image.close();
    try scene.heap.join(image, null);
    for (0..800) |page| scene.heap.touch(&.{image}, page, page + 1);
    _ = try scene.heap.commit(image, null);
    scene.heap.all = true;
    for (0..3) |round| {
        // All pages that the guess looks at, and few others.
        for (0..50) |page| scene.heap.touch(&.{image}, page * 16, page + 1000 * (round + 1));
        const record = try scene.heap.commit(image, null);
        try expect(!record.new_base);
        try expectEqual(@as(u64, 50), record.pages);
        try expectEqual(@as(u64, 2 * round + 2), record.epoch);
        for (0..401) |page| scene.heap.touch(&.{image}, page, page + 10_000 * (round + 1));
        const base = try scene.heap.commit(image, null);
        try expect(base.new_base);
        try expectEqual(@as(u64, 2 * round + 3), base.epoch);
        try Heap.expectStored(image, null, scene.heap.memory);
    }
    try expectEqual(@as(usize, 2), try scene.dir.count());
}

test "a record begun on the guess that few pages changed gives way to a base when most did" {
    errdefer testing.explain();
    var scene: testing.Scene = .init(800);
    defer scene.deinit();
    const image = try Image.open(.{ .path = scene.dir.path("a"), .mode = .create, .background = false, .base_pages_min = 8 });
    defer image.close();
    try scene.heap.join(image, null);
    for (0..800) |page| scene.heap.touch(&.{image}, page, page + 1);
    _ = try scene.heap.commit(image, null);
    scene.heap.all = true;
    for ([_]usize{ 400, 401 }, 2..) |wanted, epoch| {
        // None of those that the guess looks at.
        var changed: usize = 0;
        var page: usize = 0;
        while (changed < wanted) : (page += 1) {
            if (page % 16 == 0) continue;
            changed += 1;
            if (changed == 5 * epoch) @memset(scene.heap.page(page), 0) else scene.heap.touch(&.{image}, page, page + 1000 * epoch);
        }
        const report = try scene.heap.commit(image, null);
        try expectEqual(wanted > 400, report.new_base);
        try expectEqual(@as(u64, epoch), report.epoch);
        try Heap.expectStored(image, null, scene.heap.memory);
    }
    scene.heap.touch(&.{image}, 3, 1);
    try expectEqual(@as(u64, 1), (try scene.heap.commit(image, null)).pages);
    try Heap.expectStored(image, null, scene.heap.memory);
    try expectEqual(@as(usize, 2), try scene.dir.count());
}

test "where holes cost memory they stay anonymous, and read as the zeros they are" {
    errdefer testing.explain();
    var scene: testing.Scene = .init(400);
    defer scene.deinit();
    {
        const image = try made(scene.dir.path("a"), &scene.heap, 1);
        defer image.close();
        for (0..300) |page| scene.heap.touch(&.{image}, page, page + 1);
        // Zeros within a run are stored, and a copy of the file may leave them out.
        for ([_]u64{ 100, 101, 102, 200 }) |page| @memset(scene.heap.page(page), 0);
        _ = try scene.heap.commit(image, null);
    }
    const base = try scene.dir.read("a");
    defer std.testing.allocator.free(base);
    try scene.dir.tmp.dir.deleteFile(std.testing.io, "a");
    var text: [512]u8 = undefined;
    const name = try std.fmt.bufPrintZ(&text, "{s}", .{scene.dir.path("a")});
    const file: disk_.File = @intCast(real_disk.open(null, disk_.cwd, name, .{ .write = true, .create = true }));
    _ = real_disk.truncate(null, file, base.len);
    var at: usize = 0;
    while (at < base.len) : (at += 4096) {
        const part = base[at..@min(base.len, at + 4096)];
        if (!std.mem.allEqual(u8, part, 0)) _ = real_disk.write(null, file, part, at);
    }
    real_disk.close(null, file);
    const costly: disk_.Disk = .{ .context = null, .vtable = comptime &testing.realBut(.{ .holesCost = holesCost }) };
    const image = try Image.open(.{ .disk = costly, .path = scene.dir.path("a"), .mode = .read });
    defer image.close();
    try Heap.expectStored(image, null, scene.heap.memory);
}

fn holesCost(_: ?*anyopaque, _: disk_.File) i64 {
    return 1;
}

test "a forked child may not commit, and does not keep the lock" {
    errdefer testing.explain();
    var scene: testing.Scene = .init(64);
    defer scene.deinit();
    const image = try made(scene.dir.path("a"), &scene.heap, 1);
    scene.heap.touch(&.{image}, 1, 1);
    _ = try scene.heap.commit(image, null);
    try scene.heap.restore(image, null);
    const child = linux.fork();
    if (child == 0) {
        image.afterFork();
        const refused = if (image.begin()) |_| false else |err| err == error.FORKED;
        if (!refused) linux.exit_group(1);
        while (true) _ = linux.pause();
    }
    scene.heap.touch(&.{image}, 2, 2);
    _ = try scene.heap.commit(image, null);
    image.close();
    const again = try Image.open(.{ .path = scene.dir.path("a"), .mode = .write });
    again.close();
    var status: u32 = 0;
    try expectEqual(@as(usize, 0), linux.waitpid(@intCast(child), &status, linux.W.NOHANG));
    _ = linux.kill(@intCast(child), .KILL);
    _ = linux.waitpid(@intCast(child), &status, 0);
}

/// Opens again and again, and sees whole commits in order.
const Reader = struct {
    path: []const u8,
    ended: std.atomic.Value(bool) = .init(false),
    opened: usize = 0,
    failure: ?anyerror = null,

    fn run(context: ?*anyopaque) callconv(.c) ?*anyopaque {
        const self: *Reader = @ptrCast(@alignCast(context.?));
        var seen: u64 = 0;
        while (!self.ended.load(.acquire)) {
            seen = self.look(seen) catch |err| {
                self.failure = err;
                testing.explain();
                return null;
            };
            self.opened += 1;
        }
        return null;
    }

    fn look(self: *Reader, seen: u64) !u64 {
        const image = try Image.open(.{ .path = self.path, .mode = .read });
        defer image.close();
        if (image.dropped) return error.FalselyDropped;
        const point = try image.point(null);
        const len = point.identity.span;
        const at = try os.reserve(0, len);
        defer os.unmap(at, len);
        _ = try image.build(point, at, len);
        const words: [*]const u64 = @ptrFromInt(at);
        for (0..20) |page| if (words[page * 512] != words[0]) return error.Mixed;
        return if (words[0] < seen) error.WentBack else words[0];
    }
};

test "readers beside commits, new bases and folds see whole commits in order" {
    try beside(.{ .log_limit = 200 * 1024, .base_pages_min = 32 }, 400);
}

test "readers beside bases that are written over the ones before see whole commits in order" {
    try beside(.{ .spare_len_min = 0, .base_pages_min = 8 }, 20);
}

fn beside(options: struct { log_limit: u64 = 0, base_pages_min: u64, spare_len_min: u64 = 16 << 20 }, pages: u64) !void {
    errdefer testing.explain();
    var scene: testing.Scene = .init(pages);
    defer scene.deinit();
    var calm: testing.FaultyDisk = .{};
    const image = try Image.open(.{
        .disk = calm.disk(),
        .path = scene.dir.path("a"),
        .mode = .create,
        .log_limit = options.log_limit,
        .base_pages_min = options.base_pages_min,
        .spare_len_min = options.spare_len_min,
    });
    defer image.close();
    try scene.heap.join(image, null);
    for (0..20) |page| scene.heap.touch(&.{image}, page, 1);
    _ = try scene.heap.commit(image, null);
    var reader: Reader = .{ .path = scene.dir.path("a") };
    const thread = try os.Thread.spawn(Reader.run, &reader);
    for (2..600) |round| {
        for (0..20) |page| scene.heap.touch(&.{image}, page, round);
        if (round % 40 == 0) for (20..@max(20, pages * 3 / 4)) |page| scene.heap.touch(&.{image}, page, round);
        _ = try scene.heap.commit(image, null);
    }
    reader.ended.store(true, .release);
    thread.join();
    if (reader.failure) |err| return err;
    try expect(reader.opened > 0);
}

/// The number of the file that the path names.
fn inodeAt(path: []const u8) !u64 {
    var buffer: [512]u8 = @splat(0);
    @memcpy(buffer[0..path.len], path);
    var stat: disk_.Stat = .{};
    if (disk_.Disk.real.statAt(disk_.cwd, @ptrCast(&buffer), &stat) != null) return error.FileNotFound;
    return stat.inode;
}

fn rewrite(heap: *Heap, image: *Image, value: u64) !u64 {
    for (0..heap.pages) |page| heap.touch(&.{image}, page, value);
    _ = try heap.commit(image, null);
    return inodeAt(image.path());
}

test "a new base is written over the one before the last, unless that can still be read" {
    errdefer testing.explain();
    var scene: testing.Scene = .init(64);
    defer scene.deinit();
    const path = scene.dir.path("a");
    const options: image_.OpenOptions = .{ .path = path, .mode = .create, .background = false, .base_pages_min = 8, .spare_len_min = 0 };
    const image = try Image.open(options);
    try scene.heap.join(image, null);
    const first = try rewrite(&scene.heap, image, 1);
    const second = try rewrite(&scene.heap, image, 2);
    try expectEqual(@as(usize, 3), try scene.dir.count());
    try expectEqual(first, try rewrite(&scene.heap, image, 3));
    try expectEqual(second, try rewrite(&scene.heap, image, 4));

    // A reader that mapped a base keeps it as it is.
    var calm: testing.FaultyDisk = .{};
    const reader = try Image.open(.{ .disk = calm.disk(), .path = path, .mode = .read });
    const point = try reader.point(null);
    const at = try os.reserve(0, scene.heap.memory.len);
    defer os.unmap(at, scene.heap.memory.len);
    _ = try reader.build(point, at, scene.heap.memory.len);
    const seen = try scene.heap.copy();
    defer std.testing.allocator.free(seen);
    reader.close();
    for (5..9) |value| try expect(try rewrite(&scene.heap, image, value) != second);
    try std.testing.expectEqualSlices(u8, seen, @as([*]const u8, @ptrFromInt(at))[0..scene.heap.memory.len]);

    // So does a second name.
    const linked = try inodeAt(path);
    try expect(disk_.Disk.real.link(image.place.dir, "a", "kept") == null);
    const kept = try scene.dir.read("a");
    defer std.testing.allocator.free(kept);
    for (9..13) |value| try expect(try rewrite(&scene.heap, image, value) != linked);
    const still = try scene.dir.read("kept");
    defer std.testing.allocator.free(still);
    try std.testing.expectEqualSlices(u8, kept, still);

    // Many records in a row give the space back; so does a close, and the next opening after a kill.
    try expectEqual(@as(usize, 4), try scene.dir.count());
    for (1..image_.spare_records_max + 1) |count| {
        scene.heap.touch(&.{image}, 1, 98 + count);
        _ = try scene.heap.commit(image, null);
        try expectEqual(@as(usize, if (count < image_.spare_records_max) 4 else 3), try scene.dir.count());
    }
    _ = try rewrite(&scene.heap, image, 13);
    _ = try rewrite(&scene.heap, image, 14);
    try expectEqual(@as(usize, 4), try scene.dir.count());
    image.close();
    try expectEqual(@as(usize, 3), try scene.dir.count());

    const killed = try Image.open(.{ .disk = calm.disk(), .path = path, .mode = .write, .background = false, .base_pages_min = 8, .spare_len_min = 0 });
    try scene.heap.restore(killed, null);
    _ = try rewrite(&scene.heap, killed, 15);
    try expectEqual(@as(usize, 4), try scene.dir.count());
    killed.afterFork();
    defer killed.close();
    const again = try Image.open(.{ .path = path, .mode = .write });
    defer again.close();
    try expectEqual(@as(usize, 3), try scene.dir.count());
    try Heap.expectStored(again, null, scene.heap.memory);
}

test "what the writer itself has mapped is never written over, also when it ran out of descriptors" {
    errdefer testing.explain();
    defer plant.active = .none;
    // The last time without the rule: what is mapped changes.
    for ([_]bool{ false, true, true }, [_]plant.Plant{ .none, .none, .reuse_own_map }) |exhausted, planted| {
        plant.active = planted;
        var scene: testing.Scene = .init(64);
        defer scene.deinit();
        const image = try Image.open(.{ .path = scene.dir.path("a"), .mode = .create, .background = false, .base_pages_min = 8, .spare_len_min = 0 });
        defer image.close();
        try scene.heap.join(image, null);
        _ = try rewrite(&scene.heap, image, 1);
        const at = try os.reserve(0, scene.heap.memory.len);
        defer os.unmap(at, scene.heap.memory.len);
        const seen = try scene.heap.copy();
        defer std.testing.allocator.free(seen);
        {
            var limit: linux.rlimit = undefined;
            try expect(os.failed(linux.getrlimit(.NOFILE, &limit)) == null);
            defer _ = linux.setrlimit(.NOFILE, &limit);
            if (exhausted) _ = linux.setrlimit(.NOFILE, &.{ .cur = 3, .max = limit.max });
            _ = try image.build(try image.point(null), at, scene.heap.memory.len);
        }
        for (2..6) |value| _ = try rewrite(&scene.heap, image, value);
        const same = std.mem.eql(u8, seen, @as([*]const u8, @ptrFromInt(at))[0..scene.heap.memory.len]);
        try expectEqual(planted == .none, same);
    }
}

/// The real disk with time and chance taken out.
const SameDisk = struct {
    counter: u64 = 0,

    fn disk(self: *SameDisk) disk_.Disk {
        return .{ .context = self, .vtable = comptime &testing.realBut(.{ .now = now, .random = random }) };
    }

    fn now(context: ?*anyopaque) u64 {
        const self: *SameDisk = @ptrCast(@alignCast(context.?));
        self.counter += 1;
        return self.counter;
    }

    fn random(context: ?*anyopaque, into: []u8) void {
        const self: *SameDisk = @ptrCast(@alignCast(context.?));
        self.counter += 1;
        var prng = std.Random.DefaultPrng.init(self.counter);
        prng.random().bytes(into);
    }
};

/// The real disk with a clock that goes back an hour each time that it is looked at, past 1970.
const BackwardsDisk = struct {
    hours: u64 = 20,

    fn disk(self: *BackwardsDisk) disk_.Disk {
        return .{ .context = self, .vtable = comptime &testing.realBut(.{ .now = now }) };
    }

    fn now(context: ?*anyopaque) u64 {
        const self: *BackwardsDisk = @ptrCast(@alignCast(context.?));
        self.hours -|= 1;
        return self.hours * 3600 * std.time.ns_per_s;
    }
};

test "a clock that goes backwards changes no epoch's place: the last commit is found, and each before it" {
    errdefer testing.explain();
    var scene = testing.Scene.init(40);
    defer scene.deinit();
    const allocator = std.testing.allocator;
    var backwards: BackwardsDisk = .{};
    var path: [256]u8 = undefined;
    const a = try std.fmt.bufPrint(&path, "{s}", .{scene.dir.path("a")});
    var copies: std.ArrayList([]u8) = .empty;
    defer {
        for (copies.items) |copy| allocator.free(copy);
        copies.deinit(allocator);
    }
    var folds: u64 = 0;
    // Longer than the clock has hours: the last sessions' commits are all of 1970's first moment.
    for (0..5) |session| {
        const image = try Image.open(.{ .disk = backwards.disk(), .path = a, .mode = if (session == 0) .create else .write, .keep = 3, .background = false });
        defer image.close();
        if (session > 0) {
            try expectEqual(copies.items.len, image.head().?.epoch);
            try Heap.expectStored(image, null, copies.getLast());
            const list = try image.epochs(allocator);
            defer allocator.free(list);
            try expect(list.len >= 3);
            for (list, copies.items.len - list.len + 1..) |epoch, number| {
                try expectEqual(number, epoch.epoch);
                try Heap.expectStored(image, number, copies.items[number - 1]);
            }
            for (list[0 .. list.len - 1], list[1..]) |before, after| try expect(after.time_ms <= before.time_ms);
            try scene.heap.restore(image, null);
        } else try scene.heap.join(image, null);
        for (0..6) |_| {
            scene.heap.touch(&.{image}, copies.items.len % 40, copies.items.len + 100);
            try expectEqual(copies.items.len + 1, (try scene.heap.commit(image, null)).epoch);
            try copies.append(allocator, try scene.heap.copy());
        }
        _ = try image.foldNow();
        folds += image.info().folds;
    }
    try expect(folds > 0 and backwards.hours == 0);
}
