//! Asynchronous commits on real files, and on a disk that fails now and then: every commit that was
//! acknowledged holds the heap as it was when it was asked for.

const std = @import("std");
const os = @import("../os/os.zig");
const background = @import("background.zig");
const heap_room = @import("heap.zig");
const image_room = @import("../image/image.zig");
const Place = @import("test.zig").Place;
const real_disk = @import("../os/disk.zig");
const Heap = heap_room.Heap;
const Image = image_room.Image;
const PageRange = image_room.PageRange;

const testing = std.testing;
const linux = std.os.linux;

fn words(address: u64, count: usize) []u64 {
    return @as([*]u64, @ptrFromInt(address))[0..count];
}

/// The real disk, on which one call in `odds` fails.
const FlakyDisk = struct {
    odds: std.atomic.Value(u32) = .init(0),
    calls: std.atomic.Value(u64) = .init(0),
    seed: u64,
    /// Syncs wait while this is set, and fail with the next one.
    gate: std.atomic.Value(bool) = .init(false),
    broken_syncs: std.atomic.Value(u32) = .init(0),

    fn disk(self: *FlakyDisk) image_room.Disk {
        return .{ .context = self, .vtable = &vtable };
    }

    const vtable = vtable: {
        var all = image_room.Disk.vtableOf(real_disk);
        all.write = &write;
        all.sync = &sync;
        all.allocate = &allocate;
        all.openDirect = &openDirect;
        break :vtable all;
    };

    fn fails(context: ?*anyopaque) bool {
        const self: *FlakyDisk = @ptrCast(@alignCast(context.?));
        const odds = self.odds.load(.monotonic);
        const call = self.calls.fetchAdd(1, .monotonic);
        return odds > 0 and std.hash.int(call ^ self.seed) % odds == 0;
    }

    fn write(c: ?*anyopaque, file: real_disk.File, bytes: []const u8, offset: u64) i64 {
        if (!fails(c)) return real_disk.write(c, file, bytes, offset);
        _ = real_disk.write(c, file, bytes[0 .. bytes.len / 2], offset);
        return -@as(i64, @intFromEnum(os.E.NOSPC));
    }
    fn allocate(c: ?*anyopaque, file: real_disk.File, offset: u64, len: u64) i64 {
        return if (fails(c)) -@as(i64, @intFromEnum(os.E.NOSPC)) else real_disk.allocate(c, file, offset, len);
    }
    fn sync(c: ?*anyopaque, file: real_disk.File) i64 {
        _ = file;
        const self: *FlakyDisk = @ptrCast(@alignCast(c.?));
        while (self.gate.load(.acquire)) os.yieldThread();
        if (self.broken_syncs.load(.acquire) > 0) {
            _ = self.broken_syncs.fetchSub(1, .acq_rel);
            return -@as(i64, @intFromEnum(os.E.IO));
        }
        return if (fails(c)) -@as(i64, @intFromEnum(os.E.IO)) else 0;
    }
    fn openDirect(_: ?*anyopaque, _: real_disk.File) i64 {
        return -@as(i64, @intFromEnum(os.E.INVAL));
    }
};

/// A block, and what it held at some moment.
const Block = struct { at: usize, bytes: []u8 };

/// One seeded run: blocks come, change and go while commits to two images are asked for, awaited,
/// fail, and are followed by synchronous ones and restores.
const Run = struct {
    arena: std.heap.ArenaAllocator = .init(std.heap.page_allocator),
    place: Place,
    paths: [2][]const u8 = undefined,
    heap: *Heap = undefined,
    disk: FlakyDisk,
    prng: std.Random.DefaultPrng,
    live: std.ArrayList(struct { at: usize, len: usize }) = .empty,
    under_way: std.ArrayList(struct { id: u64, which: heap_room.Which, then: []Block }) = .empty,
    /// What each acknowledged epoch held.
    known: std.AutoHashMapUnmanaged(u64, []Block) = .empty,
    /// The last epoch acknowledged by each image, and how often one was, and failed.
    last: [2]u64 = .{ 0, 0 },
    acknowledged: usize = 0,
    failures: usize = 0,
    is_behind: bool = false,

    fn snapshot(self: *Run) ![]Block {
        const blocks = try self.arena.allocator().alloc(Block, self.live.items.len);
        for (blocks, self.live.items) |*block, live| {
            const bytes = @as([*]u8, @ptrFromInt(live.at))[0..live.len];
            block.* = .{ .at = live.at, .bytes = try self.arena.allocator().dupe(u8, bytes) };
        }
        return blocks;
    }

    fn change(self: *Run) !void {
        const random = self.prng.random();
        const choice = random.uintLessThan(u32, 12);
        if (choice < 3 or self.live.items.len == 0) {
            const len = 1 + random.uintLessThan(usize, if (choice == 0) 200_000 else 3000);
            const at = try self.heap.alloc.malloc(len);
            // What is not written is what was there before, and as good as written.
            if (random.boolean()) @memset(@as([*]u8, @ptrFromInt(at))[0..len], random.int(u8) & 3);
            try self.live.append(self.arena.allocator(), .{ .at = at, .len = len });
        } else if (choice < 10) {
            const live = self.live.items[random.uintLessThan(usize, self.live.items.len)];
            const byte: *u8 = @ptrFromInt(live.at + random.uintLessThan(usize, live.len));
            byte.* = random.int(u8);
        } else {
            const live = self.live.swapRemove(random.uintLessThan(usize, self.live.items.len));
            try self.heap.alloc.free(live.at);
        }
    }

    fn ask(self: *Run, which: heap_room.Which) !void {
        const then = try self.snapshot();
        const id = self.heap.commitAsync(which) catch |err| {
            return self.failed(which, err);
        };
        try self.under_way.append(self.arena.allocator(), .{ .id = id, .which = which, .then = then });
    }

    fn fetchFirst(self: *Run) !void {
        if (self.under_way.items.len == 0) return;
        const commit = self.under_way.orderedRemove(0);
        try background.await(commit.id);
        const outcome = background.fetch(commit.id) catch |err| {
            return self.failed(commit.which, err);
        };
        try self.acknowledge(commit.which, outcome.?.report.epoch, commit.then);
    }

    fn acknowledge(self: *Run, which: heap_room.Which, epoch: u64, then: []Block) !void {
        self.last[@intFromEnum(which)] = epoch;
        self.acknowledged += 1;
        const slot = try self.known.getOrPut(self.arena.allocator(), epoch);
        if (slot.found_existing) {
            // An epoch names one state, also in the other image.
            for (slot.value_ptr.*, then) |a, b| {
                try testing.expectEqual(a.at, b.at);
                try testing.expectEqualSlices(u8, a.bytes, b.bytes);
            }
        } else slot.value_ptr.* = then;
    }

    fn failed(self: *Run, which: heap_room.Which, err: anyerror) !void {
        switch (err) {
            error.NO_SPACE, error.IO => self.failures += 1,
            // After a restore of the map file's last epoch: what only the backup has must be taken first.
            error.EXISTS => self.is_behind = which == .backup,
            else => return err,
        }
    }

    fn fetchAll(self: *Run) !void {
        while (self.under_way.items.len > 0) try self.fetchFirst();
    }

    fn commitNow(self: *Run, which: heap_room.Which) !void {
        const then = try self.snapshot();
        const report = self.heap.commit(which) catch |err| {
            return self.failed(which, err);
        };
        // It queued behind those under way.
        for (self.under_way.items) |commit| try background.await(commit.id);
        try self.fetchAll();
        try self.acknowledge(which, @intFromFloat(report.epoch), then);
    }

    fn restore(self: *Run, which: heap_room.Which) !void {
        try self.fetchAll();
        if (which == .backup) self.is_behind = false;
        const epoch = self.last[@intFromEnum(which)];
        if (epoch == 0) return;
        _ = self.heap.restore(.{ .from = which, .epoch = epoch }) catch |err| switch (err) {
            error.NO_EPOCH => return,
            else => return err,
        };
        self.live.clearRetainingCapacity();
        for (self.known.get(epoch).?) |block| {
            try self.live.append(self.arena.allocator(), .{ .at = block.at, .len = block.bytes.len });
            try testing.expectEqualSlices(u8, block.bytes, @as([*]u8, @ptrFromInt(block.at))[0..block.bytes.len]);
        }
        try self.heap.check();
    }

    /// Reads the image beside its writer: the last acknowledged epoch must be what it was.
    fn expectStored(self: *Run, which: heap_room.Which) !void {
        const epoch = self.last[@intFromEnum(which)];
        if (epoch == 0) return;
        const im = try Image.open(.{ .path = self.paths[@intFromEnum(which)], .mode = .read, .allow_damaged = true });
        defer im.close();
        const point = try im.point(epoch);
        const len = self.heap.geometry.data_offset + point.identity.capacity;
        const at = try os.reserve(0, self.heap.geometry.span);
        defer os.unmap(at, self.heap.geometry.span);
        _ = try im.build(point, at, len);
        for (self.known.get(epoch).?) |block| {
            const bytes: [*]const u8 = @ptrFromInt(at + block.at - self.heap.address);
            try testing.expectEqualSlices(u8, block.bytes, bytes[0..block.bytes.len]);
        }
    }

    fn go(seed: u64, keep: u64, tracker: @import("../tracker/tracker.zig").Wanted, threadless: bool) !Run {
        var run: Run = .{ .place = .init(), .disk = .{ .seed = seed }, .prng = .init(seed) };
        defer run.place.deinit();
        defer run.arena.deinit();
        run.paths = .{ run.place.path("app.map"), run.place.path("app.back") };
        const options: heap_room.OpenOptions = .{
            .path = run.paths[0],
            .backup = run.paths[1],
            .size = 1 << 20,
            .max_size = 256 << 20,
            .tracker = tracker,
            .keep = keep,
            .log_limit = 4 << 20,
        };
        {
            run.heap = try Heap.openNewest(options);
            defer run.heap.close() catch unreachable;
            run.heap.background.threadless = threadless;
            if (seed % 3 == 1) run.heap.background.staging_pages_max = 8;
            for (run.heap.images()) |im| im.?.disk = run.disk.disk();
            const random = run.prng.random();
            for (0..120) |round| {
                run.disk.odds.store(if (round % 40 < 20) 0 else 12, .monotonic);
                for (0..random.uintLessThan(usize, 30)) |_| try run.change();
                if (run.is_behind) try run.restore(.backup);
                const which: heap_room.Which = if (random.boolean()) .map else .backup;
                switch (random.uintLessThan(u32, 10)) {
                    0 => try run.commitNow(which),
                    1 => try run.restore(which),
                    2 => try run.fetchAll(),
                    3 => {
                        // An unchanged heap has the same epoch in both images.
                        try run.ask(.map);
                        try run.ask(.backup);
                    },
                    4...5 => try run.fetchFirst(),
                    else => try run.ask(which),
                }
                if (round % 10 == 9) {
                    try run.fetchAll();
                    run.disk.odds.store(0, .monotonic);
                    try run.expectStored(.map);
                    try run.expectStored(.backup);
                }
            }
            run.disk.odds.store(0, .monotonic);
            try run.fetchAll();
            if (run.is_behind) try run.restore(.backup);
            try run.ask(.map);
            try run.ask(.backup);
            try run.fetchAll();
            try testing.expectEqual(run.last[0], run.last[1]);
            try run.expectStored(.map);
            try run.expectStored(.backup);
            try run.heap.check();
        }
        const heap = try Heap.openNewest(options);
        defer heap.close() catch unreachable;
        for (run.known.get(run.last[0]).?) |block| {
            try testing.expectEqualSlices(u8, block.bytes, @as([*]u8, @ptrFromInt(block.at))[0..block.bytes.len]);
        }
        try heap.check();
        return run;
    }
};

test "what asynchronous commits acknowledge is the heap as it was at the call, whatever the disk does" {
    for (0..6) |seed| {
        const run = Run.go(seed, if (seed % 2 == 0) 1 else 4, if (seed < 3) .auto else .checksum, seed == 5) catch |err| {
            std.debug.print("seed {d}: {t}\n", .{ seed, err });
            return err;
        };
        try testing.expect(run.acknowledged > 30 and run.failures > 3);
    }
}

test "more than staging memory holds is written under the hold, in its turn" {
    var place: Place = .init();
    defer place.deinit();
    const path = place.path("app.map");
    const count = 4096;
    {
        const heap = try Heap.mopen(.{ .path = path, .size = 64 << 20, .keep = 4 });
        defer heap.close() catch unreachable;
        heap.background.staging_pages_max = 256;
        const at = try heap.alloc.malloc(count * os.page_size);
        heap.header().root = at;
        for (0..count) |i| words(at + i * os.page_size, 1)[0] = i;
        var ids: [4]u64 = undefined;
        ids[0] = try heap.commitAsync(.map);
        words(at, 1)[0] = 1000;
        ids[1] = try heap.commitAsync(.map);
        for (0..count) |i| words(at + i * os.page_size, 1)[0] += 1;
        ids[2] = try heap.commitAsync(.map);
        words(at, 1)[0] = 2000;
        ids[3] = try heap.commitAsync(.map);
        words(at, 1)[0] = 3000;
        for (ids, 1..) |id, epoch| {
            try background.await(id);
            try testing.expectEqual(@as(u64, epoch), (try background.fetch(id)).?.report.epoch);
            try testing.expectError(error.NOT_FOUND, background.fetch(id));
        }
        for ([_]u64{ 2000, 1001, 1000, 0 }, 0..) |value, back| {
            _ = try heap.restore(.{ .epoch = 4 - back });
            try testing.expectEqual(value, words(heap.header().root, 1)[0]);
            try testing.expectEqual(@as(u64, if (back < 2) 8 else 7), words(heap.header().root + 7 * os.page_size, 1)[0]);
        }
    }
    const heap = try Heap.mopen(.{ .path = path, .mode = .rw });
    defer heap.close() catch unreachable;
    try testing.expectEqual(@as(u64, 2000), words(heap.header().root, 1)[0]);
}

test "what builds on a commit that failed and was not copied fails with it, and nothing is lost" {
    var place: Place = .init();
    defer place.deinit();
    const path = place.path("app.map");
    {
        const heap = try Heap.mopen(.{ .path = path, .size = 1 << 20 });
        defer heap.close() catch unreachable;
        var disk: FlakyDisk = .{ .seed = 0 };
        heap.map.?.disk = disk.disk();
        heap.background.staging_pages_max = 8;
        const at = try heap.alloc.calloc(101, os.page_size);
        heap.header().root = at;
        _ = try heap.commit(.map);
        disk.gate.store(true, .release);
        disk.broken_syncs.store(1, .release);
        for (0..100) |i| words(at + i * os.page_size, 1)[0] = i + 1;
        const large = try heap.commitAsync(.map);
        words(at + 100 * os.page_size, 1)[0] = 77;
        const small = try heap.commitAsync(.map);
        words(at + 5 * os.page_size, 2)[1] = 78;
        const third = try heap.commitAsync(.map);
        disk.gate.store(false, .release);
        try background.await(large);
        try testing.expectError(error.IO, background.fetch(large));
        try background.await(small);
        try testing.expectError(error.IO, background.fetch(small));
        try background.await(third);
        try testing.expectError(error.IO, background.fetch(third));
        const last = try heap.commitAsync(.map);
        try background.await(last);
        _ = (try background.fetch(last)).?;
        heap.map.?.disk = .real;
    }
    const heap = try Heap.mopen(.{ .path = path, .mode = .rw });
    defer heap.close() catch unreachable;
    const at = heap.header().root;
    for (0..100) |i| try testing.expectEqual(i + 1, words(at + i * os.page_size, 1)[0]);
    try testing.expectEqual(@as(u64, 77), words(at + 100 * os.page_size, 1)[0]);
    try testing.expectEqual(@as(u64, 78), words(at + 5 * os.page_size, 2)[1]);
}

test "a commit asked for while the one before it fails does not go on without its changes" {
    const count = 8192;
    var place: Place = .init();
    defer place.deinit();
    const path = place.path("app.map");
    {
        const heap = try Heap.mopen(.{ .path = path, .size = 64 << 20 });
        defer heap.close() catch unreachable;
        var disk: FlakyDisk = .{ .seed = 0 };
        heap.map.?.disk = disk.disk();
        const at = try heap.alloc.calloc(count + 1, os.page_size);
        heap.header().root = at;
        for (0..count + 1) |i| words(at + i * os.page_size, 1)[0] = 1;
        _ = try heap.commit(.map);
        disk.gate.store(true, .release);
        disk.broken_syncs.store(1, .release);
        words(at, 1)[0] = 77;
        const first = try heap.commitAsync(.map);
        // The sync fails once the second commit has seen the first one under way, and copies.
        var copied: std.atomic.Value(bool) = .init(false);
        const opener = try std.Thread.spawn(.{}, openGateUnderHold, .{ heap, &disk, &copied });
        for (1..count / 3) |i| words(at + i * os.page_size, 1)[0] = 2;
        const second = try heap.commitAsync(.map);
        copied.store(true, .release);
        opener.join();
        try background.await(first);
        try testing.expectError(error.IO, background.fetch(first));
        try background.await(second);
        // Either it holds all that came before it, or it fails too.
        _ = background.fetch(second) catch |err| try testing.expectEqual(error.IO, err);
        heap.map.?.disk = .real;
        words(at + count * os.page_size, 1)[0] = 3;
        const third = try heap.commitAsync(.map);
        try background.await(third);
        _ = (try background.fetch(third)).?;
    }
    const heap = try Heap.mopen(.{ .path = path, .mode = .rw });
    defer heap.close() catch unreachable;
    const at = heap.header().root;
    try testing.expectEqual(@as(u64, 77), words(at, 1)[0]);
    for (1..count / 3) |i| try testing.expectEqual(@as(u64, 2), words(at + i * os.page_size, 1)[0]);
    try testing.expectEqual(@as(u64, 3), words(at + count * os.page_size, 1)[0]);
}

/// Or after it, where the thread got no processor meanwhile.
fn openGateUnderHold(heap: *Heap, disk: *FlakyDisk, copied: *std.atomic.Value(bool)) void {
    while (heap.alloc.holder.load(.acquire) == 0 and !copied.load(.acquire)) std.atomic.spinLoopHint();
    disk.gate.store(false, .release);
}

test "a commit in the background that fails before it takes the changes leaves them pending" {
    var place: Place = .init();
    defer place.deinit();
    const path = place.path("app.map");
    const aside = place.path("aside");
    const cwd = std.Io.Dir.cwd();
    {
        const heap = try Heap.mopen(.{ .path = path, .size = 1 << 20 });
        defer heap.close() catch unreachable;
        const at = try heap.alloc.calloc(10, os.page_size);
        heap.header().root = at;
        _ = try heap.commit(.map);
        words(at + 5 * os.page_size, 1)[0] = 7;
        try cwd.rename(path, cwd, aside, testing.io);
        try cwd.writeFile(testing.io, .{ .sub_path = path, .data = "somebody else's" });
        const id = try heap.commitAsync(.map);
        try background.await(id);
        try testing.expectError(error.STALE, background.fetch(id));
        try cwd.rename(aside, cwd, path, testing.io);
        // The tracker has told of that page, and will not again.
        _ = try heap.commit(.map);
    }
    const heap = try Heap.mopen(.{ .path = path, .mode = .rw });
    defer heap.close() catch unreachable;
    try testing.expectEqual(@as(u64, 7), words(heap.header().root + 5 * os.page_size, 1)[0]);
}

test "closing waits for commits under way, and their outcome can be fetched after it" {
    var place: Place = .init();
    defer place.deinit();
    const path = place.path("app.map");
    const heap = try Heap.mopen(.{ .path = path, .size = 1 << 20 });
    heap.header().root = try heap.alloc.malloc(8);
    var ids: [5]u64 = undefined;
    for (&ids, 1..) |*id, i| {
        words(heap.header().root, 1)[0] = i;
        id.* = try heap.commitAsync(.map);
    }
    try heap.close();
    for (ids, 1..) |id, epoch| try testing.expectEqual(@as(u64, epoch), (try background.fetch(id)).?.report.epoch);
    const again = try Heap.mopen(.{ .path = path, .mode = .rw });
    defer again.close() catch unreachable;
    try testing.expectEqual(@as(u64, 5), words(again.header().root, 1)[0]);
}

test "a forked child neither waits for its parent's commits nor ends them" {
    var place: Place = .init();
    defer place.deinit();
    const heap = try Heap.mopen(.{ .path = place.path("app.map"), .size = 1 << 20 });
    defer heap.close() catch unreachable;
    heap.header().root = try heap.alloc.malloc(8);
    _ = try heap.commit(.map);
    for (0..20) |i| {
        words(heap.header().root, 1)[0] = i + 1;
        const id = try heap.commitAsync(.map);
        const child = linux.fork();
        if (child == 0) {
            const committed = heap.commitAsync(.map);
            if (committed != error.FORKED or background.await(id) != error.FORKED) linux.exit(1);
            heap.close() catch linux.exit(2);
            linux.exit(0);
        }
        var status: u32 = undefined;
        _ = linux.waitpid(@intCast(child), &status, 0);
        try testing.expectEqual(@as(u32, 0), status);
        try background.await(id);
        try testing.expectEqual(@as(u64, i + 2), (try background.fetch(id)).?.report.epoch);
    }
}
