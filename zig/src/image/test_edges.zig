//! What one-line changes of the code showed that nothing else looked at: each test here fails with one of
//! them.

const std = @import("std");
const disk_ = @import("disk.zig");
const format = @import("format.zig");
const history_ = @import("history.zig");
const image_ = @import("image.zig");
const power = @import("power.zig");
const real_disk = @import("../os/disk.zig");
const shared_file = @import("shared_file.zig");
const testing = @import("testing.zig");
const Heap = testing.Heap;
const Image = image_.Image;
const PowerDisk = power.PowerDisk;
const SharedFile = shared_file.SharedFile;
const expect = std.testing.expect;
const expectEqual = std.testing.expectEqual;
const expectError = std.testing.expectError;

const pages = 40;

fn open(disk: *PowerDisk, options: image_.OpenOptions) !*Image {
    var own = options;
    own.disk = disk.disk();
    own.path = "a";
    own.background = false;
    own.base_pages_min = 2;
    return Image.open(own);
}

fn rewrite(heap: *Heap, image: *Image, value: u64) !image_.CommitReport {
    for (0..pages) |page| heap.touch(&.{image}, page, value * 1000 + page);
    return heap.commit(image, null);
}

test "a heap of another image brings its own lines and numbers; an image beside it brings its numbers" {
    var history: history_.History = .{};
    defer history.deinit();
    var first = try history.next(@splat(1), 1, 10);
    for (0..50) |_| first = try history.next(@splat(1), 1, 10);
    history.current = first;
    var lines: history_.Lines = .{};
    defer lines.deinit();
    try lines.add(.{ .id = 77, .parent = 0, .fork_epoch = 0 });
    const other: history_.Head = .{ .heap = @splat(2), .line = 77, .epoch = 3, .commit = 9 };
    // Beside it: only what is of the same heap counts.
    try history.meet(other, &lines, 500);
    try expectEqual(@as(u64, 51), history.epoch_max);
    var same = other;
    same.heap = @splat(1);
    try history.meet(same, &lines, 60);
    try expectEqual(@as(u64, 61), (try history.next(@splat(1), 2, 11)).epoch);
    // Instead of it.
    try history.adopt(other, &lines, 4);
    try expectEqual(@as(usize, 1), history.lines.slice().len);
    try expectEqual(@as(u64, 5), (try history.next(@splat(2), 2, 12)).epoch);
}

test "of more lines than are kept the newest ones stay" {
    var history: history_.History = .{};
    defer history.deinit();
    var before: history_.Head = undefined;
    for (1..format.lines_max + 10) |line| {
        history.line_begun = false;
        if (history.current) |head| before = head;
        history.current = try history.next(@splat(1), line, line);
    }
    try expectEqual(history_.Relation.ancestor, history_.relate(before, &history.lines, history.current.?, &history.lines));
}

test "after recovery one base is another image that keeps the damaged one, and the next is the same image" {
    errdefer testing.explain();
    var disk: PowerDisk = .init(1);
    defer disk.deinit();
    var heap = Heap.init(pages);
    defer heap.deinit();
    const uuid = uuid: {
        const image = try open(&disk, .{ .path = "", .mode = .create });
        defer image.close();
        try heap.join(image, null);
        _ = try rewrite(&heap, image, 1);
        break :uuid image.uuid;
    };
    const log = for (disk.names.keys()) |name| {
        if (std.mem.indexOf(u8, name, "-log-") != null) break name;
    } else unreachable;
    _ = disk.names.swapRemove(log);
    const image = try open(&disk, .{ .path = "", .mode = .write, .recover = true });
    defer image.close();
    try heap.restore(image, null);
    try expect((try rewrite(&heap, image, 2)).new_base);
    const made = image.uuid;
    try expect(!std.mem.eql(u8, &uuid, &made));
    // The base, its log, and the damaged base.
    try expectEqual(@as(usize, 3), disk.names.count());
    for (3..6) |value| {
        try expect((try rewrite(&heap, image, value)).new_base);
        try std.testing.expectEqualSlices(u8, &made, &image.uuid);
        try expectEqual(@as(usize, 3), disk.names.count());
    }
}

test "a new base that fails leaves no log behind, at whichever call" {
    var failures: usize = 0;
    for (0..200) |at| {
        var disk: PowerDisk = .init(at);
        defer disk.deinit();
        var heap = Heap.init(pages);
        defer heap.deinit();
        const image = try open(&disk, .{ .path = "", .mode = .create, .spare_len_min = std.math.maxInt(u64) });
        defer image.close();
        try heap.join(image, null);
        _ = try rewrite(&heap, image, 1);
        const base = disk.names.get("a");
        disk.fails_at = disk.calls + at;
        if (rewrite(&heap, image, 2)) |_| {
            if (disk.calls <= disk.fails_at) break;
            continue;
        } else |_| {}
        // Behind the rename the old log has to stay.
        if (disk.names.get("a") != base) continue;
        failures += 1;
        try expectEqual(@as(usize, 2), disk.names.count());
    } else return error.TestUnexpectedResult;
    try expect(failures > 8);
}

test "a base that a fold makes of a record has that record's time and its parent" {
    errdefer testing.explain();
    var disk: PowerDisk = .init(1);
    defer disk.deinit();
    var heap = Heap.init(pages);
    defer heap.deinit();
    const image = try open(&disk, .{ .path = "", .mode = .create, .keep = 2 });
    defer image.close();
    try heap.join(image, null);
    _ = try rewrite(&heap, image, 1);
    for (2..6) |value| {
        heap.touch(&.{image}, 3, value);
        try expect(!(try heap.commit(image, null)).new_base);
    }
    const record = image.generation.?.records.items[2];
    try expectEqual(@as(u64, 4), record.epoch);
    try expect(try image.foldNow());
    const header = image.generation.?.header;
    try expectEqual(@as(u64, 4), header.epoch);
    try expectEqual(record.time, header.time);
    try expectEqual(record.parent, header.parent);
    try expectEqual(@as(usize, 1), image.generation.?.records.items.len);
}

// ------------------------------------------------------------------ shared heaps' files

fn state(history: *history_.History, mark: shared_file.Mark) !shared_file.State {
    const head = try history.next(@splat(9), 5, 5);
    history.current = head;
    return .{
        .head = head,
        .heap = .{ .uuid = head.heap, .address = 1 << 40, .span = 1 << 30, .capacity = 4096, .max_size = 1 << 20, .used = 4096 },
        .epoch_max = history.epoch_max,
        .mark = mark,
    };
}

/// A file with epochs 1 to 3, the last of them closed.
fn makeShared(disk: *PowerDisk, history: *history_.History) !void {
    const file = try SharedFile.open(.{ .disk = disk.disk(), .path = "a", .mode = .create });
    defer file.close();
    try expect(file.disk.truncate(file.file.file, shared_file.heap_offset + 4096) == null);
    for ([_]shared_file.Mark{ .in_use, .in_use, .whole }) |mark| {
        const now = try state(history, mark);
        try file.write(now, history.lines.slice());
        try file.settle(now);
    }
}

test "of two slots of a shared heap one that is damaged does not count, nor one whose lines are" {
    errdefer testing.explain();
    for ([_]u64{ 128, 4096 + 3 }) |byte| {
        var disk: PowerDisk = .init(1);
        defer disk.deinit();
        var history: history_.History = .{};
        defer history.deinit();
        try makeShared(&disk, &history);
        const raw = disk.disk();
        const opened = raw.open(0, "a", .{ .write = true }).file;
        var one: [1]u8 = undefined;
        // The third stands where the first stood.
        try expect(raw.readAll(opened, &one, byte) == null);
        one[0] ^= 1;
        try expect(raw.writeAll(opened, &one, byte) == null);
        const file = try SharedFile.open(.{ .disk = raw, .path = "a", .mode = .write, .recover = true });
        defer file.close();
        try expectEqual(@as(u64, 2), file.state.?.head.epoch);
        try expectEqual(shared_file.Mark.in_use, file.state.?.mark);
    }
}

test "a shared heap that is not closed is refused, and taken as it is only when told" {
    var disk: PowerDisk = .init(1);
    defer disk.deinit();
    var history: history_.History = .{};
    defer history.deinit();
    try makeShared(&disk, &history);
    {
        const file = try SharedFile.open(.{ .disk = disk.disk(), .path = "a", .mode = .write });
        defer file.close();
        const now = try state(&history, .in_use);
        try file.write(now, history.lines.slice());
        try file.settle(now);
    }
    for ([_]shared_file.Mode{ .write, .read }) |mode| {
        try expectError(error.CORRUPT, SharedFile.open(.{ .disk = disk.disk(), .path = "a", .mode = mode }));
        const file = try SharedFile.open(.{ .disk = disk.disk(), .path = "a", .mode = mode, .recover = true });
        file.close();
    }
}

test "a note of another slot, of another moment or with a wrong checksum tells of no rest" {
    for (0..4) |kind| {
        var disk: PowerDisk = .init(1);
        defer disk.deinit();
        var history: history_.History = .{};
        defer history.deinit();
        try makeShared(&disk, &history);
        {
            const file = try SharedFile.open(.{ .disk = disk.disk(), .path = "a", .mode = .write });
            defer file.close();
            const now = try state(&history, .in_use);
            try file.write(now, history.lines.slice());
            const date = file.disk.setDate(file.file.file).?;
            try file.settle(now);
            if (kind == 1) file.sequence -= 1;
            file.noteRest(.{ .date = if (kind == 2) date + 1 else date });
        }
        const inode = &disk.inodes.items[disk.names.get("a").?];
        if (kind == 3) {
            const bytes = try std.testing.allocator.dupe(u8, inode.kept);
            defer std.testing.allocator.free(bytes);
            bytes[bytes.len - 1] ^= 1;
            inode.kept = try disk.arena.allocator().dupe(u8, bytes);
        }
        const result = SharedFile.open(.{ .disk = disk.disk(), .path = "a", .mode = .write });
        if (kind > 0) {
            try expectError(error.CORRUPT, result);
        } else (try result).close();
    }
}

test "a shared heap never takes the place of a file that came meanwhile, under either name" {
    errdefer testing.explain();
    for ([_][]const u8{ "a", "a-new" }) |name| for ([_]bool{ false, true }) |over| {
        var disk: PowerDisk = .init(1);
        defer disk.deinit();
        var history: history_.History = .{};
        defer history.deinit();
        if (over) try makeShared(&disk, &history);
        const raw = disk.disk();
        const file = try SharedFile.open(.{ .disk = raw, .path = "a", .mode = .create });
        defer file.close();
        try expect(raw.truncate(file.file.file, shared_file.heap_offset + 4096) == null);
        var text: [8:0]u8 = @splat(0);
        @memcpy(text[0..name.len], name);
        _ = raw.unlink(0, text[0..name.len :0]);
        var theirs = raw.open(0, text[0..name.len :0], .{ .write = true, .create = true }).file;
        try expect(raw.writeAll(theirs, "theirs", 0) == null);
        const inode = disk.names.get(name).?;
        raw.close(&theirs);
        const now = try state(&history, .in_use);
        try file.write(now, history.lines.slice());
        try expectError(error.STALE, file.settle(now));
        try expectEqual(@as(?u32, inode), disk.names.get(name));
        try expectEqual(@as(u64, 6), disk.inodes.items[inode].size);
    };
}

// ------------------------------------------------------------------ two images of a heap

/// A heap that both images hold, and that went on in the second.
const Pair = struct {
    disk: PowerDisk,
    heap: Heap,
    images: [2]*Image,

    fn init(self: *Pair) !void {
        self.* = .{ .disk = .init(1), .heap = .init(pages), .images = undefined };
        for (&self.images, [_][]const u8{ "a", "b" }, 0..) |*image, path, index| {
            image.* = try Image.open(.{ .disk = self.disk.disk(), .path = path, .mode = .create, .background = false });
            try self.heap.join(image.*, if (index == 1) self.images[0] else null);
        }
        for (0..pages) |page| self.touch(page, page);
        _ = try self.heap.commit(self.images[0], self.images[1]);
        _ = try self.heap.commit(self.images[1], self.images[0]);
        self.touch(1, 100);
        _ = try self.heap.commit(self.images[1], self.images[0]);
    }

    fn deinit(self: *Pair) void {
        for (self.images) |image| image.close();
        self.heap.deinit();
        self.disk.deinit();
    }

    fn touch(self: *Pair, page: u64, value: u64) void {
        self.heap.touch(&self.images, page, value);
    }
};

test "what a failed commit to the other image had in hand is compared, too" {
    errdefer testing.explain();
    var pair: Pair = undefined;
    try pair.init();
    defer pair.deinit();
    pair.touch(2, 200);
    // Before its footer: the other image goes on.
    for (1..20) |calls| {
        pair.disk.fails_at = pair.disk.calls + calls;
        try expectError(error.IO, pair.heap.commit(pair.images[1], pair.images[0]));
        if (!pair.images[1].inflight.isEmpty()) break;
    }
    try expect(!pair.images[1].dead);
    try expect(pair.images[1].pending.isEmpty());
    // A number that the failed one was given is not given again.
    const next = pair.heap.history.epoch_max + 1;
    try expectEqual(next, (try pair.heap.commit(pair.images[0], pair.images[1])).epoch);
    try Heap.expectStored(pair.images[0], null, pair.heap.memory);
}

test "a base that holds a commit under the number that it has elsewhere says the highest number that was given" {
    errdefer testing.explain();
    var pair: Pair = undefined;
    try pair.init();
    defer pair.deinit();
    const known = pair.heap.history.epoch();
    // A commit to the other image fails behind its footer, so that its number is used up, and what it changed is
    // as it was again.
    const before = try pair.heap.copy();
    defer std.testing.allocator.free(before);
    pair.touch(2, 200);
    {
        var commit = try pair.images[0].begin();
        defer commit.end();
        try commit.prepare(.{ .memory = @intFromPtr(pair.heap.memory.ptr), .identity = pair.heap.identity, .used = &.{pair.heap.used}, .other = pair.images[1] });
    }
    @memcpy(pair.heap.memory, before);
    for (pair.images) |image| image.pending.set(2);
    try expect(pair.images[0].dead);
    const report = try pair.heap.commit(pair.images[0], pair.images[1]);
    try expect(report.new_base);
    try expectEqual(known, report.epoch);
    try expectEqual(known + 1, pair.images[0].generation.?.header.epoch_max);
    // Who has that image alone goes on behind it.
    pair.images[0].close();
    pair.images[0] = try Image.open(.{ .disk = pair.disk.disk(), .path = "a", .mode = .write, .background = false });
    var heap = Heap.init(pages);
    defer heap.deinit();
    try heap.restore(pair.images[0], null);
    heap.touch(&.{pair.images[0]}, 3, 300);
    try expectEqual(known + 2, (try heap.commit(pair.images[0], null)).epoch);
}

test "an image whose log is damaged is not backed up to, though the heap descends from what is whole of it" {
    errdefer testing.explain();
    var disk: PowerDisk = .init(1);
    defer disk.deinit();
    var heap = Heap.init(pages);
    defer heap.deinit();
    {
        const image = try open(&disk, .{ .path = "", .mode = .create });
        defer image.close();
        try heap.join(image, null);
        _ = try rewrite(&heap, image, 1);
        for (2..5) |value| {
            heap.touch(&.{image}, 3, value);
            _ = try heap.commit(image, null);
        }
    }
    const raw = disk.disk();
    for (disk.names.keys()) |name| if (std.mem.indexOf(u8, name, "-log-") != null) {
        // The second of three records.
        const opened = raw.open(0, @ptrCast(name.ptr), .{ .write = true }).file;
        var one: [1]u8 = undefined;
        const at = format.page_size * 4 + 100;
        try expect(raw.readAll(opened, &one, at) == null);
        one[0] ^= 1;
        try expect(raw.writeAll(opened, &one, at) == null);
    };
    const image = try open(&disk, .{ .path = "", .mode = .write, .allow_damaged = true });
    defer image.close();
    try expect(image.generation.?.damage != null);
    try heap.join(image, null);
    var commit = try image.begin();
    defer commit.end();
    try expectError(error.EXISTS, commit.prepare(.{ .memory = @intFromPtr(heap.memory.ptr), .identity = heap.identity, .used = &.{heap.used}, .guard = true }));
}

/// The real disk with little room: a file may be so long.
const SmallDisk = struct {
    end: u64 = std.math.maxInt(u64),
    refusals: usize = 0,

    fn disk(self: *SmallDisk) disk_.Disk {
        return .{ .context = self, .vtable = comptime &testing.realBut(.{ .allocate = allocate }) };
    }

    fn allocate(context: ?*anyopaque, file: disk_.File, offset: u64, len: u64) i64 {
        const self: *SmallDisk = @ptrCast(@alignCast(context.?));
        if (offset + len <= self.end) return real_disk.allocate(null, file, offset, len);
        self.refusals += 1;
        return -@as(i64, disk_.code(.NOSPC));
    }
};

test "a record that fits is written, though there is no room for all that may have changed" {
    errdefer testing.explain();
    const changed = 300;
    var scene: testing.Scene = .init(4096);
    defer scene.deinit();
    const heap = &scene.heap;
    var small: SmallDisk = .{};
    const image = try Image.open(.{ .disk = small.disk(), .path = scene.dir.path("a"), .mode = .create, .background = false });
    defer image.close();
    try heap.join(image, null);
    for (0..4096) |page| heap.touch(&.{image}, page, 1);
    _ = try heap.commit(image, null);
    for ([_]u64{ changed, changed - 100 }, 0..) |room, round| {
        // A thousand pages may have changed.
        for (0..changed) |page| heap.touch(&.{image}, page, 2 + round);
        for (changed..1000) |page| image.pending.set(page);
        small.end = image.generation.?.log_end + (room + 8) * format.page_size;
        small.refusals = 0;
        const result = heap.commit(image, null);
        try expect(small.refusals > 0);
        if (round == 0) try expectEqual(@as(u64, changed), (try result).pages) else try expectError(error.NO_SPACE, result);
    }
    small.end = std.math.maxInt(u64);
    try expect(!(try heap.commit(image, null)).new_base);
    try Heap.expectStored(image, null, heap.memory);
}

/// The real disk, where all files together have so much room.
const CrowdedDisk = struct {
    room: u64 = std.math.maxInt(u64),
    log: disk_.File = disk_.none,

    fn disk(self: *CrowdedDisk) disk_.Disk {
        return .{ .context = self, .vtable = comptime &testing.realBut(.{ .allocate = allocate }) };
    }

    fn allocate(context: ?*anyopaque, file: disk_.File, offset: u64, len: u64) i64 {
        const self: *CrowdedDisk = @ptrCast(@alignCast(context.?));
        var beside: disk_.Stat = .{};
        if (file != self.log and self.log >= 0) std.debug.assert(real_disk.stat(null, self.log, &beside) == 0);
        if (beside.size + offset + len <= self.room) return real_disk.allocate(null, file, offset, len);
        return -@as(i64, disk_.code(.NOSPC));
    }
};

test "what a record given up for a base had taken is room for the base" {
    errdefer testing.explain();
    var scene: testing.Scene = .init(800);
    defer scene.deinit();
    const heap = &scene.heap;
    var crowded: CrowdedDisk = .{};
    const image = try Image.open(.{ .disk = crowded.disk(), .path = scene.dir.path("a"), .mode = .create, .background = false, .base_pages_min = 8 });
    defer image.close();
    try heap.join(image, null);
    for (0..800) |page| heap.touch(&.{image}, page, page + 1);
    _ = try heap.commit(image, null);
    crowded.log = image.generation.?.log;
    crowded.room = image.generation.?.base_stat.size + 100 * format.page_size;
    // Most change, but none of those that the guess looks at.
    heap.all = true;
    for (0..800) |page| if (page % 16 != 0) heap.touch(&.{image}, page, page + 1000);
    try expect((try heap.commit(image, null)).new_base);
    try Heap.expectStored(image, null, heap.memory);
}

test "a heap that went back to a commit which it is known to be still takes a new number" {
    errdefer testing.explain();
    var disk: PowerDisk = .init(1);
    defer disk.deinit();
    var heap = Heap.init(pages);
    defer heap.deinit();
    const image = try open(&disk, .{ .path = "", .mode = .create });
    defer image.close();
    try heap.join(image, null);
    _ = try rewrite(&heap, image, 1);
    heap.touch(&.{image}, 3, 2);
    _ = try heap.commit(image, null);
    try heap.restore(image, 1);
    const known = heap.history.current.?;
    var commit = try image.begin();
    defer commit.end();
    try commit.prepare(.{ .memory = @intFromPtr(heap.memory.ptr), .identity = heap.identity, .used = &.{heap.used}, .known = known });
    try expectEqual(@as(u64, 3), (try commit.finish()).epoch);
    try expect(image.head().?.commit != known.commit);
}

test "a heap that went back by the other image takes a new number, also where a base left the old one behind" {
    errdefer testing.explain();
    for ([_]u64{ 3, pages }) |changed| {
        var pair: Pair = undefined;
        try pair.init();
        defer pair.deinit();
        pair.images[0].base_pages_min = 2;
        const known = (try pair.heap.commit(pair.images[0], pair.images[1])).epoch;
        try expectEqual(known, pair.heap.history.epoch());
        for (0..changed) |page| pair.touch(page, 300 + page);
        const later = try pair.heap.commit(pair.images[0], pair.images[1]);
        try expectEqual(known + 1, later.epoch);
        try expectEqual(changed == pages, later.new_base);
        try pair.heap.restore(pair.images[1], null);
        try pair.heap.join(pair.images[0], pair.images[1]);
        try expectEqual(known + 2, (try pair.heap.commit(pair.images[0], pair.images[1])).epoch);
        try expectEqual(image_.Relation.descendant, image_.relation(pair.images[0], pair.images[1]));
        try Heap.expectStored(pair.images[0], null, pair.heap.memory);
    }
}
