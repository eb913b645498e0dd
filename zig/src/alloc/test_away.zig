//! Tests of blocks that are away: freed by a thread that goes on living and has not handed them over.

const std = @import("std");
const os = @import("../os/os.zig");
const alloc = @import("alloc.zig");
const away = @import("away.zig");
const caches = @import("cache.zig");
const find = @import("find.zig");
const harness = @import("test_heap.zig");
const layout = @import("layout.zig");

const Allocator = alloc.Allocator;
const TestHeap = harness.TestHeap;
const expectEmpty = harness.expectEmpty;
const linux = std.os.linux;
const testing = std.testing;

/// A thread that does one thing after the other as it is told, and lives in between.
const Worker = struct {
    a: *Allocator = undefined,
    thread: os.Thread = undefined,
    /// Odd: there is something to do.
    turn: std.atomic.Value(u32) = .init(0),
    task: Task = .end,
    stop: std.atomic.Value(bool) = .init(false),
    tries: std.atomic.Value(usize) = .init(0),
    failed: ?anyerror = null,
    ended: bool = false,

    const Task = union(enum) {
        free: []const usize,
        refuse: []const usize,
        /// Refuses one block again and again, until `stop`.
        hammer: usize,
        allocate: struct { size: usize, out: []usize },
        end,
    };

    fn start(self: *Worker, a: *Allocator) !void {
        self.a = a;
        self.thread = try os.Thread.spawn(run, self);
        // From here on it has its cache, and the slot that comes next.
        try self.tell(.{ .free = &.{} });
    }

    fn tell(self: *Worker, task: Task) !void {
        self.begin(task);
        try self.finish();
    }

    fn begin(self: *Worker, task: Task) void {
        self.task = task;
        self.stop.store(false, .seq_cst);
        self.tries.store(0, .seq_cst);
        _ = self.turn.fetchAdd(1, .seq_cst);
        os.futexWake(&self.turn, 1);
    }

    fn finish(self: *Worker) !void {
        self.stop.store(true, .seq_cst);
        self.wait(0);
        if (self.failed) |err| return err;
    }

    fn end(self: *Worker) void {
        if (self.ended) return;
        self.ended = true;
        self.tell(.end) catch {};
        self.thread.join();
    }

    fn wait(self: *Worker, parity: u32) void {
        while (true) {
            const turn = self.turn.load(.seq_cst);
            if (turn % 2 == parity) return;
            os.futexWait(&self.turn, turn);
        }
    }

    fn run(context: ?*anyopaque) callconv(.c) ?*anyopaque {
        const self: *Worker = @ptrCast(@alignCast(context.?));
        // From its first call on a thread has a cache.
        self.a.free(0xbad) catch {};
        while (true) {
            self.wait(1);
            const last = self.task == .end;
            self.work() catch |err| {
                self.failed = err;
            };
            _ = self.turn.fetchAdd(1, .seq_cst);
            os.futexWake(&self.turn, 1);
            if (last) return null;
        }
    }

    fn work(self: *Worker) !void {
        switch (self.task) {
            .free => |blocks| for (blocks) |block| try self.a.free(block),
            .refuse => |blocks| for (blocks) |block| try testing.expectError(error.DOUBLE_FREE, self.a.free(block)),
            .hammer => |block| while (!self.stop.load(.seq_cst)) {
                try testing.expectError(error.DOUBLE_FREE, self.a.free(block));
                _ = self.tries.fetchAdd(1, .seq_cst);
            },
            .allocate => |what| for (what.out) |*block| {
                block.* = try self.a.malloc(what.size);
            },
            .end => {},
        }
    }
};

/// A heap, and a thread that frees what the testing one allocated.
const Stage = struct {
    heap: *TestHeap,
    freer: Worker = .{},
    others: [2]Worker = @splat(.{}),
    others_count: usize = 0,

    fn begin() !*Stage {
        const self = try testing.allocator.create(Stage);
        errdefer testing.allocator.destroy(self);
        self.* = .{ .heap = try TestHeap.create(256 << 20, 1 << 20) };
        errdefer self.heap.destroy();
        try self.freer.start(&self.heap.allocator);
        return self;
    }

    fn parts(self: *Stage) struct { *TestHeap, *Allocator, *Worker } {
        return .{ self.heap, &self.heap.allocator, &self.freer };
    }

    /// One more thread.
    fn another(self: *Stage) !*Worker {
        const worker = &self.others[self.others_count];
        try worker.start(&self.heap.allocator);
        self.others_count += 1;
        return worker;
    }

    fn end(self: *Stage) void {
        for (self.others[0..self.others_count]) |*worker| worker.end();
        self.freer.end();
        self.heap.destroy();
        testing.allocator.destroy(self);
    }
};

/// Blocks that are away in batches, while all threads wait.
fn blocksAway(a: *Allocator) usize {
    var sum: usize = 0;
    for (a.caches[0..a.cache_count.load(.acquire)]) |cache| for (cache.?.batches) |batch| {
        sum += if (batch.lent.load(.seq_cst) == 0) 0 else batch.len;
    };
    return sum;
}

test "a block that is away is refused by its owner, by who freed it and by a third thread" {
    const stage = try Stage.begin();
    defer stage.end();
    const heap, const a, const freer = stage.parts();
    const third = try stage.another();
    for ([_]usize{ 16, 48, 64, 200, 700, 30_000 }) |size| {
        var pointers: [60]f64 = undefined;
        try a.mallocMany(size, &pointers);
        var blocks: [60]usize = undefined;
        for (&blocks, pointers) |*block, pointer| block.* = @intFromFloat(pointer);
        const gone = blocks[20..40];
        try freer.tell(.{ .free = gone });
        try freer.tell(.{ .refuse = gone });
        try third.tell(.{ .refuse = gone });
        for (gone) |block| try testing.expectError(error.DOUBLE_FREE, a.free(block));
        var bad: usize = 0;
        try testing.expectError(error.DOUBLE_FREE, a.freeMany(&pointers, &bad));
        try testing.expectEqual(@as(usize, 20), bad);
        try testing.expectError(error.DOUBLE_FREE, a.freeMany(pointers[39..], &bad));
        try testing.expectEqual(@as(usize, 0), bad);
        try testing.expectEqual(@as(usize, 20), blocksAway(a));
        // The owner takes them: what is refused then is refused for its bit.
        try a.check();
        try testing.expectEqual(@as(usize, 0), blocksAway(a));
        try third.tell(.{ .refuse = gone });
        for (gone) |block| try testing.expectError(error.DOUBLE_FREE, a.free(block));
        for (blocks[40..]) |block| try a.free(block);
    }
    freer.end();
    third.end();
    try expectEmpty(heap);
}

test "who holds the allocator finds blocks that are away free, and so does who opens what it copied" {
    const stage = try Stage.begin();
    defer stage.end();
    const heap, const a, const freer = stage.parts();
    var blocks: [1000]usize = undefined;
    for (&blocks) |*block| block.* = try a.malloc(100);
    try freer.tell(.{ .free = blocks[0..30] });
    try testing.expectEqual(@as(usize, 30), blocksAway(a));
    a.hold();
    var image = heap.save() catch |err| {
        a.release();
        return err;
    };
    defer image.deinit();
    // Who holds frees without a batch.
    for (blocks[30..40]) |block| try a.free(block);
    a.release();
    try testing.expectEqual(@as(u64, 960), (try a.stats()).live_blocks);
    try freer.tell(.{ .free = blocks[40..60] });
    freer.end();

    // What was freed after the copy was made is not free there.
    try heap.load(&image);
    try a.check();
    try testing.expectEqual(@as(u64, 970), (try a.stats()).live_blocks);
    for (blocks[0..30]) |block| try testing.expectError(error.DOUBLE_FREE, a.free(block));
    for (blocks[30..]) |block| try a.free(block);
    try expectEmpty(heap);
}

test "going back makes void what is away, also of threads that go on" {
    const stage = try Stage.begin();
    defer stage.end();
    const heap, const a, const freer = stage.parts();
    var blocks: [500]usize = undefined;
    for (&blocks) |*block| block.* = try a.malloc(100);
    a.hold();
    var image = heap.save() catch |err| {
        a.release();
        return err;
    };
    defer image.deinit();
    a.release();
    for (0..3) |_| {
        try freer.tell(.{ .free = blocks[0..200] });
        try heap.load(&image);
        try testing.expectEqual(@as(u64, 500), (try a.stats()).live_blocks);
        try testing.expectEqual(@as(usize, 0), blocksAway(a));
        // Each is live, and away again when it is freed again.
        const again = try a.malloc(100);
        for (blocks) |block| try testing.expect(block != again);
        try a.free(again);
        try a.check();
    }
    try freer.tell(.{ .free = &blocks });
    freer.end();
    try expectEmpty(heap);
}

test "the owner uses what others freed before it takes more memory, however they hand it over" {
    const stage = try Stage.begin();
    defer stage.end();
    const heap, const a, const freer = stage.parts();
    // Few, of which a batch waits to be filled; many; more than all batches hold.
    for ([_]usize{ 500, 5000, 40_000 }) |count| {
        const blocks = try testing.allocator.alloc(usize, count);
        defer testing.allocator.free(blocks);
        for (blocks) |*block| block.* = try a.malloc(48);
        const used = a.usedBytes();
        try freer.tell(.{ .free = blocks });
        // Sixty-one at most are still in the freeing thread's hands.
        for (blocks[0 .. count - 61]) |*block| block.* = try a.malloc(48);
        try testing.expectEqual(used, a.usedBytes());
        for (blocks[0 .. count - 61]) |block| try a.free(block);
        try a.check();
        try testing.expectEqual(@as(u64, 0), (try a.stats()).live_blocks);
    }
    freer.end();
    try expectEmpty(heap);
}

test "of large blocks only a few are kept from their owner" {
    const stage = try Stage.begin();
    defer stage.end();
    const heap, const a, const freer = stage.parts();
    var blocks: [40]usize = undefined;
    for (&blocks) |*block| block.* = try a.malloc(30_000);
    const used = a.usedBytes();
    try freer.tell(.{ .free = &blocks });
    for (blocks[0..39]) |*block| block.* = try a.malloc(30_000);
    try testing.expectEqual(used, a.usedBytes());
    for (blocks[0..39]) |block| try a.free(block);
    try expectEmpty(heap);
}

test "a thread that ends hands over what it gathered" {
    const heap = try TestHeap.create(64 << 20, 1 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    var blocks: [3000]usize = undefined;
    for (&blocks) |*block| block.* = try a.malloc(200);
    const used = a.usedBytes();
    for (0..3) |_| {
        var freer: Worker = .{};
        try freer.start(a);
        defer freer.end();
        try freer.tell(.{ .free = &blocks });
        freer.end();
        for (&blocks) |*block| block.* = try a.malloc(200);
        try testing.expectEqual(used, a.usedBytes());
    }
    for (blocks) |block| try a.free(block);
    try expectEmpty(heap);
}

test "of two threads that free the same blocks at the same time one is told of each" {
    const Race = struct {
        a: *Allocator,
        blocks: []const usize,
        /// How many blocks both threads are at.
        together: *std.atomic.Value(usize),
        freed: usize = 0,
        told: usize = 0,

        fn run(context: ?*anyopaque) callconv(.c) ?*anyopaque {
            const self: *@This() = @ptrCast(@alignCast(context.?));
            for (self.blocks, 1..) |block, count| {
                _ = self.together.fetchAdd(1, .seq_cst);
                while (self.together.load(.seq_cst) < 2 * count) std.atomic.spinLoopHint();
                if (self.a.free(block)) {
                    self.freed += 1;
                } else |err| {
                    if (err == error.DOUBLE_FREE) self.told += 1;
                }
            }
            return null;
        }
    };
    const heap = try TestHeap.create(64 << 20, 1 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    var blocks: [2000]usize = undefined;
    for (&blocks) |*block| block.* = try a.malloc(100);
    var together: std.atomic.Value(usize) = .init(0);
    var races: [2]Race = @splat(.{ .a = a, .blocks = &blocks, .together = &together });
    const first: os.Thread = try .spawn(Race.run, &races[0]);
    const second: os.Thread = try .spawn(Race.run, &races[1]);
    first.join();
    second.join();
    try testing.expectEqual(blocks.len, races[0].freed + races[1].freed);
    try testing.expectEqual(blocks.len, races[0].told + races[1].told);
    try expectEmpty(heap);
}

test "blocks that are away when their owner ends are found by whoever needs some" {
    const heap = try TestHeap.create(64 << 20, 1 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    var blocks: [2000]usize = undefined;
    for (0..3) |round| {
        var owner: Worker = .{};
        try owner.start(a);
        defer owner.end();
        var freer: Worker = .{};
        try freer.start(a);
        defer freer.end();
        try owner.tell(.{ .allocate = .{ .size = 120, .out = &blocks } });
        const used = a.usedBytes();
        // Those that come after the owner ended are in the same batch as those before.
        try freer.tell(.{ .free = blocks[0..1030] });
        owner.end();
        try freer.tell(.{ .refuse = blocks[0..1030] });
        if (round == 2) for (blocks[0..1030]) |block| try testing.expectError(error.DOUBLE_FREE, a.free(block));
        if (round == 0) freer.end();
        if (round != 1) {
            for (blocks[0..969]) |*block| block.* = try a.malloc(120);
            try testing.expectEqual(used, a.usedBytes());
            for (blocks[0..969]) |block| try a.free(block);
        }
        if (round == 0) {
            for (blocks[1030..]) |block| try a.free(block);
        } else {
            try freer.tell(.{ .free = blocks[1030..] });
            freer.end();
        }
        try expectEmpty(heap);
    }
}

test "blocks that arrive where their span's owner lived are marked for the owner it has now" {
    const heap = try TestHeap.create(256 << 20, 1 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    try a.free(try a.malloc(8));
    var blocks: [1000]usize = undefined;
    var owner: Worker = .{};
    try owner.start(a);
    defer owner.end();
    var freer: Worker = .{};
    try freer.start(a);
    defer freer.end();
    var third: Worker = .{};
    try third.start(a);
    defer third.end();
    try owner.tell(.{ .allocate = .{ .size = 64, .out = &blocks } });
    try freer.tell(.{ .free = blocks[0..30] });
    owner.end();
    // The first thread adopts the spans; another gets the slot and what was sent there.
    for (blocks[900..]) |block| try a.free(block);
    try testing.expectEqual(@as(usize, 30), blocksAway(a));
    freer.end();
    var heir: Worker = .{};
    try heir.start(a);
    defer heir.end();
    var own: [1000]usize = undefined;
    try heir.tell(.{ .allocate = .{ .size = 200, .out = &own } });
    try testing.expectEqual(@as(usize, 0), blocksAway(a));
    try third.tell(.{ .refuse = blocks[0..30] });
    for (blocks[0..30]) |block| try testing.expectError(error.DOUBLE_FREE, a.free(block));
    try heir.tell(.{ .free = &own });
    for (blocks[30..900]) |block| try a.free(block);
    heir.end();
    third.end();
    try expectEmpty(heap);
}

test "who adopts a span refuses what of it is away, in each of its slices" {
    const stage = try Stage.begin();
    defer stage.end();
    const heap, const a, const freer = stage.parts();
    const owner = try stage.another();
    // Four of a span, the last one not in its first slice; one is too few to be handed over.
    var blocks: [8]usize = undefined;
    try owner.tell(.{ .allocate = .{ .size = 30_000, .out = &blocks } });
    try freer.tell(.{ .free = blocks[3..4] });
    owner.end();
    try testing.expectEqual(@as(usize, 1), blocksAway(a));
    try a.free(blocks[0]);
    try testing.expectError(error.DOUBLE_FREE, a.free(blocks[3]));
    try a.free(blocks[1]);
    try a.check();
    for ([_]usize{ 2, 4, 5, 6, 7 }) |i| try a.free(blocks[i]);
    try expectEmpty(heap);
}

test "a heap that is full has what is away before it says so" {
    const stage = try Stage.begin();
    defer stage.end();
    const heap, const a, const freer = stage.parts();
    heap.refuse_grow = true;
    var blocks: [2000]usize = undefined;
    var count: usize = 0;
    while (a.malloc(1000)) |block| : (count += 1) blocks[count] = block else |_| {}
    try freer.tell(.{ .free = blocks[0..20] });
    for (blocks[0..20]) |*block| block.* = try a.malloc(1000);
    try testing.expectError(error.OUT_OF_MEMORY, a.malloc(1000));
    var pointers: [20]f64 = undefined;
    try testing.expectError(error.OUT_OF_MEMORY, a.mallocMany(1000, &pointers));
    try freer.tell(.{ .free = blocks[0..20] });
    try a.mallocMany(1000, &pointers);
    for (blocks[0..20], pointers) |*block, pointer| block.* = @intFromFloat(pointer);
    // What becomes whole slices serves every kind of large block.
    for (0..4) |kind| {
        // The last ones wait in the batch that is being filled.
        try freer.tell(.{ .free = blocks[0..count] });
        const large = switch (kind) {
            0 => try a.malloc(300_000),
            1 => try a.calloc(3, 100_000),
            2 => try a.alignedAlloc(1 << 17, 300_000),
            else => try a.scratch(300_000),
        };
        try a.free(large);
        for (blocks[0..count]) |*block| block.* = try a.malloc(1000);
    }
    for (blocks[0..count]) |block| try a.free(block);
    try expectEmpty(heap);
}

test "blocks that are away when a heap is moved are forgotten with the place where it lay" {
    const stage = try Stage.begin();
    defer stage.end();
    const heap, const a, const freer = stage.parts();
    for ([_]bool{ true, false }) |by_freer| {
        var old: [500]usize = undefined;
        for (&old) |*block| block.* = try a.malloc(100);
        // Some are handed over, some wait to be.
        try freer.tell(.{ .free = old[0..100] });
        const other = try TestHeap.create(64 << 20, 1 << 20);
        defer other.destroy();
        var blocks: [500]usize = undefined;
        for (&blocks) |*block| block.* = try other.allocator.malloc(100);
        try heap.moveTo(other);
        try testing.expectEqual(@as(usize, 0), blocksAway(a));
        for (a.caches[0..a.cache_count.load(.acquire)]) |cache| try testing.expect(cache.?.pending.isQuiet());
        try a.check();
        try testing.expectEqual(@as(u64, 500), (try a.stats()).live_blocks);
        try freer.tell(.{ .free = blocks[0..200] });
        for (blocks[0..200]) |block| try testing.expectError(error.DOUBLE_FREE, a.free(block));
        try testing.expectEqual(@as(u64, 300), (try a.stats()).live_blocks);
        if (by_freer) {
            try freer.tell(.{ .free = blocks[200..] });
        } else for (blocks[200..]) |block| try a.free(block);
        try expectEmpty(heap);
    }
}

test "a block that is away is refused at the very moment when its owner takes it back" {
    const stage = try Stage.begin();
    defer stage.end();
    const heap, const a, const freer = stage.parts();
    const third = try stage.another();
    var one: [1]f64 = undefined;
    for (0..400) |_| {
        var pointers: [62]f64 = undefined;
        try a.mallocMany(64, &pointers);
        var blocks: [62]usize = undefined;
        for (&blocks, pointers) |*block, pointer| block.* = @intFromFloat(pointer);
        try freer.tell(.{ .free = &blocks });
        third.begin(.{ .hammer = blocks[61] });
        while (third.tries.load(.seq_cst) < 20) std.atomic.spinLoopHint();
        // Looking for room of another size the owner takes what has arrived.
        try a.mallocMany(512, &one);
        const before = third.tries.load(.seq_cst);
        while (third.tries.load(.seq_cst) < before + 5) std.atomic.spinLoopHint();
        try third.finish();
        try a.free(@intFromFloat(one[0]));
    }
    try expectEmpty(heap);
}

test "a block that its owner and another thread free at the same time is free once, and good again" {
    const Race = struct {
        a: *Allocator,
        blocks: []const usize,
        at: std.atomic.Value(usize) = .init(0),

        fn run(context: ?*anyopaque) callconv(.c) ?*anyopaque {
            const self: *@This() = @ptrCast(@alignCast(context.?));
            for (self.blocks, 1..) |block, count| self.meet(block, count);
            return null;
        }

        fn meet(self: *@This(), block: usize, count: usize) void {
            _ = self.at.fetchAdd(1, .seq_cst);
            while (self.at.load(.seq_cst) < 2 * count) std.atomic.spinLoopHint();
            self.a.free(block) catch {};
        }
    };
    const heap = try TestHeap.create(64 << 20, 1 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    var blocks: [2000]usize = undefined;
    for (0..5) |_| {
        for (&blocks) |*block| block.* = try a.malloc(100);
        var race: Race = .{ .a = a, .blocks = &blocks };
        const other: os.Thread = try .spawn(Race.run, &race);
        for (blocks, 1..) |block, count| race.meet(block, count);
        other.join();
        try a.check();
        try testing.expectEqual(@as(u64, 0), (try a.stats()).live_blocks);
        for (&blocks) |*block| block.* = try a.malloc(100);
        for (blocks) |block| try a.free(block);
    }
    try expectEmpty(heap);
}

test "a thread that ends takes home what others freed of its own" {
    const stage = try Stage.begin();
    defer stage.end();
    const heap, const a, const freer = stage.parts();
    const owner = try stage.another();
    var blocks: [2000]usize = undefined;
    try owner.tell(.{ .allocate = .{ .size = 120, .out = &blocks } });
    try freer.tell(.{ .free = &blocks });
    freer.end();
    owner.end();
    // Nobody has held the allocator or looked for room.
    try testing.expectEqual(@as(u64, 0), a.usedBytes());
    try testing.expectEqual(@as(usize, 0), blocksAway(a));
    try expectEmpty(heap);
}

test "many blocks at once come from what others freed before there is more memory" {
    const stage = try Stage.begin();
    defer stage.end();
    const heap, const a, const freer = stage.parts();
    var pointers: [5000]f64 = undefined;
    var blocks: [5000]usize = undefined;
    try a.mallocMany(48, &pointers);
    const used = a.usedBytes();
    for (0..3) |_| {
        for (&blocks, pointers) |*block, pointer| block.* = @intFromFloat(pointer);
        try freer.tell(.{ .free = &blocks });
        try a.mallocMany(48, pointers[0 .. blocks.len - 61]);
        try testing.expectEqual(used, a.usedBytes());
        try a.mallocMany(48, pointers[blocks.len - 61 ..]);
    }
    try a.freeMany(&pointers, null);
    try expectEmpty(heap);
}

test "a forked child has blocks that were away as free ones" {
    const stage = try Stage.begin();
    defer stage.end();
    const heap, const a, const freer = stage.parts();
    var blocks: [600]usize = undefined;
    for (&blocks) |*block| block.* = try a.malloc(200);
    // Some have been handed over, some not.
    try freer.tell(.{ .free = blocks[0..100] });
    try testing.expectEqual(@as(usize, 100), blocksAway(a));
    const pid = linux.fork();
    if (pid == 0) {
        inChild(a, &blocks) catch linux.exit_group(1);
        linux.exit_group(0);
    }
    var status: u32 = 1;
    _ = linux.waitpid(@intCast(pid), @ptrCast(&status), 0);
    freer.end();
    try testing.expectEqual(@as(u32, 0), status);
    for (blocks[100..]) |block| try a.free(block);
    try expectEmpty(heap);
}

fn inChild(a: *Allocator, blocks: []const usize) !void {
    a.afterFork();
    try a.check();
    try testing.expectEqual(@as(u64, 500), (try a.stats()).live_blocks);
    for (blocks[0..100]) |block| try testing.expectError(error.DOUBLE_FREE, a.free(block));
    for (blocks[100..]) |block| try a.free(block);
    try a.trim(0);
    try a.check();
    try testing.expectEqual(@as(u64, 0), a.usedBytes());
}

fn markOf(a: *Allocator, block: usize) !*u8 {
    const small = (try find.locate(a, block, "free")).small;
    return a.tables.mark_pages.marks.of(small.class, small.slice, small.index);
}

/// The owner of a block, at work just when another thread frees it: it takes the block home when that
/// thread stores to its mark, whose page cannot be written to until then.
const LateOwner = struct {
    var mark: *u8 = undefined;
    var word: *u64 = undefined;
    var mask: u64 = 0;

    fn takeHome(_: linux.SIG) callconv(.c) void {
        allowStores(true);
        word.* &= ~mask;
        mark.* = 0;
    }

    fn allowStores(allow: bool) void {
        const page: [*]u8 = @ptrFromInt(std.mem.alignBackward(usize, @intFromPtr(mark), 4096));
        _ = linux.mprotect(page, 4096, .{ .READ = true, .WRITE = allow });
    }
};

test "a block that is away is refused by who looks at it before its owner takes it back, and marks it after" {
    const stage = try Stage.begin();
    defer stage.end();
    const heap, const a, const freer = stage.parts();
    const owner = try stage.another();
    var blocks: [10]usize = undefined;
    try owner.tell(.{ .allocate = .{ .size = 100, .out = &blocks } });
    try freer.tell(.{ .free = blocks[3..4] });
    const small = (try find.locate(a, blocks[3], "free")).small;
    LateOwner.mark = try markOf(a, blocks[3]);
    LateOwner.word = &a.tables.line(small.slice).words[small.index / 64];
    LateOwner.mask = @as(u64, 1) << @truncate(small.index);
    var before: linux.Sigaction = undefined;
    const handler: linux.Sigaction = .{ .handler = .{ .handler = LateOwner.takeHome }, .mask = linux.sigemptyset(), .flags = 0 };
    try testing.expectEqual(@as(usize, 0), linux.sigaction(.SEGV, &handler, &before));
    // Whoever has freed before looks without a lock.
    try a.free(try a.malloc(8));
    LateOwner.allowStores(false);
    const freed = a.free(blocks[3]);
    LateOwner.allowStores(true);
    _ = linux.sigaction(.SEGV, &before, null);
    try testing.expectError(error.DOUBLE_FREE, freed);
    freer.end();
    owner.end();
    for (blocks[0..3]) |block| try a.free(block);
    for (blocks[4..]) |block| try a.free(block);
    try expectEmpty(heap);
}

test "a block that is away is refused by its owner whatever slice it was at last" {
    const heap = try TestHeap.create(5 << 30, 1 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    var freer: Worker = .{};
    try freer.start(a);
    defer freer.end();
    // Two slices that have one place in their owner's own table.
    var blocks: [2]usize = undefined;
    for (&blocks) |*block| block.* = try a.malloc(100);
    const far = blocks[0] >> layout.slice_shift << layout.slice_shift;
    const between = try a.malloc((caches.near_count - 64) << layout.slice_shift);
    var others: [400]usize = undefined;
    const other = for (&others, 1..) |*block, count| {
        block.* = try a.malloc(30_000);
        const slice_distance = (block.* >> layout.slice_shift) - (far >> layout.slice_shift);
        if (slice_distance == caches.near_count) break others[0..count];
    } else return error.NoSuchSlice;
    try freer.tell(.{ .free = blocks[0..1] });
    // Its owner comes from the other slice to this one.
    try a.free(other[other.len - 1]);
    try a.free(blocks[1]);
    try testing.expectError(error.DOUBLE_FREE, a.free(blocks[0]));
    try a.check();
    for (other[0 .. other.len - 1]) |block| try a.free(block);
    try a.free(between);
    freer.end();
    try expectEmpty(heap);
}

test "what arrives without its mark was freed by its owner too, and is live again" {
    for ([_]bool{ false, true }) |owner_ends| {
        const stage = try Stage.begin();
        defer stage.end();
        const heap, const a, const freer = stage.parts();
        const owner = try stage.another();
        var blocks: [10]usize = undefined;
        if (owner_ends) {
            try owner.tell(.{ .allocate = .{ .size = 100, .out = &blocks } });
        } else for (&blocks) |*block| {
            block.* = try a.malloc(100);
        }
        try freer.tell(.{ .free = blocks[3..4] });
        // As the owner does that was at it at the same time: the bit is set again when it was handed out.
        (try markOf(a, blocks[3])).* = 0;
        owner.end();
        try a.check();
        try testing.expectEqual(@as(u64, 10), (try a.stats()).live_blocks);
        for (blocks) |block| try a.free(block);
        try expectEmpty(heap);
    }
}

test "a fork that caught a thread between mark and batch leaves the child a block that can be freed" {
    const stage = try Stage.begin();
    defer stage.end();
    const heap, const a, _ = stage.parts();
    const block = try a.malloc(100);
    (try markOf(a, block)).* = 1;
    const pid = linux.fork();
    if (pid == 0) {
        a.afterFork();
        a.free(block) catch linux.exit_group(1);
        a.check() catch linux.exit_group(2);
        linux.exit_group(0);
    }
    var status: u32 = 1;
    _ = linux.waitpid(@intCast(pid), @ptrCast(&status), 0);
    try testing.expectEqual(@as(u32, 0), status);
    (try markOf(a, block)).* = 0;
    try a.free(block);
    try expectEmpty(heap);
}

test "a slice that is added while the set is being emptied is not lost" {
    const Adder = struct {
        pending: *away.Pending,
        wanted: std.atomic.Value(u32) = .init(0),
        added: std.atomic.Value(u32) = .init(0),
        const rounds = 100_000;

        fn run(context: ?*anyopaque) callconv(.c) ?*anyopaque {
            const self: *@This() = @ptrCast(@alignCast(context.?));
            for (1..rounds + 1) |round| {
                while (self.wanted.load(.acquire) < round) std.atomic.spinLoopHint();
                self.pending.add(7);
                self.added.store(@intCast(round), .release);
            }
            return null;
        }
    };
    const pending = try testing.allocator.create(away.Pending);
    defer testing.allocator.destroy(pending);
    pending.* = std.mem.zeroes(away.Pending);
    var adder: Adder = .{ .pending = pending };
    const thread: os.Thread = try .spawn(Adder.run, &adder);
    var lost: usize = 0;
    for (1..Adder.rounds + 1) |round| {
        // The group's bit says that there is something, and there is nothing yet.
        _ = pending.any.fetchOr(1, .seq_cst);
        adder.wanted.store(@intCast(round), .release);
        while (true) {
            const is_added = adder.added.load(.acquire) == round;
            if (pending.pop() != null) break;
            if (!is_added) continue;
            lost += 1;
            _ = pending.any.fetchOr(1, .seq_cst);
        }
    }
    thread.join();
    try testing.expectEqual(@as(usize, 0), lost);
}

test "a pending set gives back every slice that was added, once" {
    const pending = try testing.allocator.create(away.Pending);
    defer testing.allocator.destroy(pending);
    pending.* = std.mem.zeroes(away.Pending);
    const period = away.Pending.period;
    for ([_]u32{ 0, 1, 63, 64, 4095, 4096, period - 1, period + 5, 5 }) |slice| pending.add(slice);
    var found: u32 = 0;
    while (pending.pop()) |taken| found += @popCount(taken.bits);
    try testing.expectEqual(@as(u32, 8), found);
    try testing.expect(pending.isEmpty());
    pending.add(7);
    try testing.expect(!pending.isEmpty());
    try testing.expect(!pending.isQuiet());
}
