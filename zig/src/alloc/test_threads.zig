//! Tests of the allocator with several threads: remote frees, threads that end, holding.

const std = @import("std");
const os = @import("../os/os.zig");
const alloc = @import("alloc.zig");
const threads = @import("threads.zig");
const harness = @import("test_heap.zig");

const Allocator = alloc.Allocator;
const TestHeap = harness.TestHeap;
const expectEmpty = harness.expectEmpty;
const fill = harness.fill;
const holds = harness.holds;
const testing = std.testing;

/// Runs `work` on `contexts.len` threads and waits for all of them.
fn runThreads(comptime Context: type, contexts: []Context) !void {
    const Entry = struct {
        fn run(context: ?*anyopaque) callconv(.c) ?*anyopaque {
            const self: *Context = @ptrCast(@alignCast(context.?));
            self.work() catch |err| {
                self.failed = err;
            };
            return null;
        }
    };
    const started = try testing.allocator.alloc(os.Thread, contexts.len);
    defer testing.allocator.free(started);
    for (started, contexts) |*thread, *context| thread.* = try os.Thread.spawn(Entry.run, context);
    for (started) |thread| thread.join();
    for (contexts) |context| if (context.failed) |err| return err;
}

/// Blocks pass from thread to thread through these slots: address in use, 0, or 1 while held.
const Exchange = struct {
    slots: [512]std.atomic.Value(usize) = @splat(.init(0)),
};

const Passer = struct {
    heap: *TestHeap,
    exchange: *Exchange,
    seed: u64,
    steps: usize,
    failed: ?anyerror = null,

    fn work(self: *Passer) !void {
        const a = &self.heap.allocator;
        var prng = std.Random.DefaultPrng.init(self.seed);
        const random = prng.random();
        for (0..self.steps) |_| {
            const slot = &self.exchange.slots[random.uintLessThan(usize, 512)];
            const size: usize = 16 + switch (random.uintLessThan(u32, 50)) {
                0 => random.uintLessThan(usize, 100_000),
                1...9 => random.uintLessThan(usize, 4000),
                else => random.uintLessThan(usize, 200),
            };
            const new = try a.malloc(size);
            @as(*usize, @ptrFromInt(new)).* = size;
            fill(new + 8, size - 8, new);
            const old = slot.swap(new, .acq_rel);
            if (old == 0) continue;
            const old_size = @as(*usize, @ptrFromInt(old)).*;
            if (!holds(old + 8, old_size - 8, old)) return error.BlockChanged;
            try a.free(old);
        }
    }
};

test "blocks freed by other threads are neither lost nor given out twice" {
    for ([_]bool{ true, false }) |membarrier| {
        const heap = try TestHeap.createWith(1 << 30, 1 << 20, membarrier);
        defer heap.destroy();
        var exchange: Exchange = .{};
        for (0..3) |round| {
            var passers: [4]Passer = undefined;
            for (&passers, 0..) |*passer, i| passer.* = .{
                .heap = heap,
                .exchange = &exchange,
                .seed = round * 10 + i,
                .steps = 20_000,
            };
            try runThreads(Passer, &passers);
            try heap.allocator.check();
            var live: u64 = 0;
            for (&exchange.slots) |*slot| live += @intFromBool(slot.load(.monotonic) != 0);
            try testing.expectEqual(live, (try heap.allocator.stats()).live_blocks);
        }
        for (&exchange.slots) |*slot| try heap.allocator.free(slot.load(.monotonic));
        try expectEmpty(heap);
    }
}

test "a block freed twice by two threads is refused, before and after its owner collected it" {
    const heap = try TestHeap.create(64 << 20, 1 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    const Freer = struct {
        a: *Allocator,
        blocks: []const usize,
        failed: ?anyerror = null,

        fn work(self: *@This()) !void {
            for (self.blocks) |block| try self.a.free(block);
            for (self.blocks) |block| try testing.expectError(error.DOUBLE_FREE, self.a.free(block));
            try testing.expectError(error.BAD_POINTER, self.a.free(self.blocks[0] + 8));
        }
    };
    var blocks: [2000]usize = undefined;
    var kept: [200]usize = undefined;
    for (&blocks, 0..) |*block, i| {
        block.* = try a.malloc(200);
        if (i % 10 == 0) kept[i / 10] = try a.malloc(200);
    }
    var freers: [1]Freer = .{.{ .a = a, .blocks = &blocks }};
    try runThreads(Freer, &freers);
    for (blocks) |block| try testing.expectError(error.DOUBLE_FREE, a.free(block));
    try a.check();
    try testing.expectEqual(@as(u64, 200), (try a.stats()).live_blocks);
    // The owner gets them back when it needs some: no new spans for as many again.
    const used = a.usedBytes();
    var again: [2000]usize = undefined;
    for (&again) |*block| block.* = try a.malloc(200);
    try testing.expectEqual(used, a.usedBytes());
    try a.check();
    for (kept) |block| try a.free(block);
    for (again) |block| try a.free(block);
    for (again) |block| try testing.expectError(error.DOUBLE_FREE, a.free(block));
    try expectEmpty(heap);
}

test "a block that its owner freed is refused when another thread frees it, wherever it lies in its span" {
    const heap = try TestHeap.create(64 << 20, 1 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    const Freer = struct {
        a: *Allocator,
        blocks: []const usize,
        failed: ?anyerror = null,

        fn work(self: *@This()) !void {
            for (self.blocks) |block| {
                try testing.expectError(error.DOUBLE_FREE, self.a.free(block));
                try testing.expectError(error.BAD_POINTER, self.a.free(block + 16));
            }
        }
    };
    for ([_]usize{ 48, 300, 20_000 }) |size| {
        var blocks: [900]usize = undefined;
        for (&blocks) |*block| block.* = try a.malloc(size);
        var freed: [300]usize = undefined;
        for (&freed, 0..) |*block, i| {
            block.* = blocks[i * 3 + 1];
            try a.free(block.*);
        }
        var freers: [1]Freer = .{.{ .a = a, .blocks = &freed }};
        try runThreads(Freer, &freers);
        try a.check();
        try testing.expectEqual(@as(u64, 600), (try a.stats()).live_blocks);
        // Nothing was noted that the owner would take for a free block later.
        var again: [600]usize = undefined;
        for (&again) |*block| block.* = try a.malloc(size);
        for (&again) |block| for (blocks, 0..) |live, i| {
            if (i % 3 != 1 and block == live) return error.GivenOutTwice;
        };
        for (&again) |block| try a.free(block);
        for (blocks, 0..) |block, i| if (i % 3 != 1) try a.free(block);
    }
    try expectEmpty(heap);
}

/// Frees what it is given, on a thread of its own.
const RemoteFreer = struct {
    a: *Allocator,
    blocks: []const usize,
    failed: ?anyerror = null,

    fn work(self: *RemoteFreer) !void {
        for (self.blocks) |block| try self.a.free(block);
    }
};

test "freeMany refuses a block that another thread freed and its owner has not collected" {
    const heap = try TestHeap.create(64 << 20, 1 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    var pointers: [200]f64 = undefined;
    try a.mallocMany(64, &pointers);
    const block: usize = @intFromFloat(pointers[70]);
    var freers: [1]RemoteFreer = .{.{ .a = a, .blocks = &.{block} }};
    try runThreads(RemoteFreer, &freers);
    var bad: usize = 0;
    try testing.expectError(error.DOUBLE_FREE, a.freeMany(&pointers, &bad));
    try testing.expectEqual(@as(usize, 70), bad);
    try a.check();
    try a.freeMany(pointers[71..], null);
    try expectEmpty(heap);
}

test "blocks that others freed and nobody collected are found in the next session, and are free there" {
    const heap = try TestHeap.create(64 << 20, 1 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    var blocks: [4000]usize = undefined;
    for (&blocks) |*block| block.* = try a.malloc(200);
    // Whole spans of them, so that the bitmaps alone say that nothing is free there.
    var freers: [1]RemoteFreer = .{.{ .a = a, .blocks = blocks[0..3000] }};
    try runThreads(RemoteFreer, &freers);
    const used = a.usedBytes();
    for (0..2) |round| {
        if (round == 0) try heap.openElsewhere() else try heap.reopen();
        try a.check();
        try testing.expectEqual(@as(u64, 1000), (try a.stats()).live_blocks);
        for (blocks[0..3000]) |*block| block.* = try a.malloc(200);
        try testing.expectEqual(used, a.usedBytes());
        try a.check();
        freers[0].blocks = blocks[0..3000];
        try runThreads(RemoteFreer, &freers);
    }
    try heap.openElsewhere();
    for (blocks[0..3000]) |block| try testing.expectError(error.DOUBLE_FREE, a.free(block));
    for (blocks[3000..]) |block| try a.free(block);
    try expectEmpty(heap);
}

const ShortLived = struct {
    a: *Allocator,
    /// Blocks that stay when the thread ends.
    left: [50]usize = @splat(0),
    failed: ?anyerror = null,

    fn work(self: *ShortLived) !void {
        var blocks: [1000]usize = undefined;
        for (&blocks, 0..) |*block, i| block.* = try self.a.malloc(16 + i % 500);
        for (blocks, 0..) |block, i| {
            if (i % 20 == 0) self.left[i / 20] = block else try self.a.free(block);
        }
    }
};

test "what ended threads leave is used again, however many come and go" {
    const heap = try TestHeap.create(1 << 30, 1 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    var used_after_ten: u64 = 0;
    for (0..100) |round| {
        var workers: [3]ShortLived = @splat(.{ .a = a });
        try runThreads(ShortLived, &workers);
        for (&workers) |*worker| {
            for (worker.left) |block| try a.free(block);
        }
        if (round == 10) used_after_ten = a.usedBytes();
    }
    // The slots of ended threads are taken by new ones.
    try testing.expect(a.cache_count.load(.monotonic) <= 6);
    try testing.expect(a.usedBytes() <= used_after_ten + used_after_ten / 2);
    try expectEmpty(heap);
}

test "blocks of an ended thread can be freed by any other and their spans change owner" {
    const heap = try TestHeap.create(256 << 20, 1 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    const Filler = struct {
        a: *Allocator,
        blocks: []f64,
        failed: ?anyerror = null,

        fn work(self: *@This()) !void {
            try self.a.mallocMany(128, self.blocks);
        }
    };
    const blocks = try testing.allocator.alloc(f64, 20_000);
    defer testing.allocator.free(blocks);
    for (0..3) |_| {
        var fillers: [1]Filler = .{.{ .a = a, .blocks = blocks }};
        try runThreads(Filler, &fillers);
        const used = a.usedBytes();
        try a.check();
        try a.freeMany(blocks[0..10_000], null);
        try a.check();
        var mine: [9000]f64 = undefined;
        try a.mallocMany(128, &mine);
        try testing.expect(a.usedBytes() <= used);
        try a.freeMany(&mine, null);
        try a.freeMany(blocks[10_000..], null);
        try expectEmpty(heap);
    }
}

test "free blocks in the spans of an ended thread are found before new spans are made" {
    const heap = try TestHeap.create(256 << 20, 1 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    const Half = struct {
        a: *Allocator,
        blocks: [5000]usize = undefined,
        failed: ?anyerror = null,

        fn work(self: *@This()) !void {
            for (&self.blocks) |*block| block.* = try self.a.malloc(128);
            for (self.blocks, 0..) |block, i| if (i % 2 == 0) try self.a.free(block);
        }
    };
    var halves: [1]Half = .{.{ .a = a }};
    try runThreads(Half, &halves);
    const used = a.usedBytes();
    var mine: [2400]usize = undefined;
    for (&mine) |*block| block.* = try a.malloc(128);
    try testing.expectEqual(used, a.usedBytes());
    for (mine) |block| try a.free(block);
    for (halves[0].blocks, 0..) |block, i| if (i % 2 == 1) try a.free(block);
    try expectEmpty(heap);
}

test "more threads than there are slots share one cache" {
    const heap = try TestHeap.create(256 << 20, 1 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    const Waiter = struct {
        a: *Allocator,
        ready: *std.atomic.Value(u32),
        failed: ?anyerror = null,

        fn work(self: *@This()) !void {
            const first = try self.a.malloc(100);
            _ = self.ready.fetchAdd(1, .seq_cst);
            while (self.ready.load(.seq_cst) < threads.slots_max + 40) os.yieldThread();
            var blocks: [50]usize = undefined;
            for (&blocks) |*block| block.* = try self.a.malloc(64);
            for (blocks) |block| try self.a.free(block);
            try self.a.free(first);
        }
    };
    var ready: std.atomic.Value(u32) = .init(0);
    const waiters = try testing.allocator.alloc(Waiter, threads.slots_max + 40);
    defer testing.allocator.free(waiters);
    for (waiters) |*waiter| waiter.* = .{ .a = a, .ready = &ready };
    try runThreads(Waiter, waiters);
    try testing.expectEqual(@as(u32, threads.slots_max), a.cache_count.load(.monotonic));
    try expectEmpty(heap);
}

const Hammer = struct {
    heap: *TestHeap,
    exchange: *Exchange,
    seed: u64,
    stop: *std.atomic.Value(bool),
    /// How many hammers are at work.
    running: *std.atomic.Value(u32),
    rounds: u64 = 0,
    failed: ?anyerror = null,

    fn work(self: *Hammer) !void {
        while (!self.stop.load(.monotonic)) : (self.rounds += 1) {
            var passer: Passer = .{
                .heap = self.heap,
                .exchange = self.exchange,
                .seed = self.seed + self.rounds * 100,
                .steps = 100,
            };
            try passer.work();
            if (self.rounds == 0) _ = self.running.fetchAdd(1, .seq_cst);
        }
    }
};

test "what is copied while the allocator is held is whole, whatever other threads are doing" {
    for ([_]bool{ true, false }) |membarrier| {
        const heap = try TestHeap.createWith(256 << 20, 1 << 20, membarrier);
        defer heap.destroy();
        const a = &heap.allocator;
        var exchange: Exchange = .{};
        var stop: std.atomic.Value(bool) = .init(false);
        var running: std.atomic.Value(u32) = .init(0);
        var hammers: [3]Hammer = undefined;
        for (&hammers, 0..) |*hammer, i| hammer.* = .{
            .heap = heap,
            .exchange = &exchange,
            .seed = i,
            .stop = &stop,
            .running = &running,
        };
        const Holder = struct {
            heap: *TestHeap,
            stop: *std.atomic.Value(bool),
            running: *std.atomic.Value(u32),
            images: [6]harness.Image = undefined,
            live: [6]u64 = undefined,
            failed: ?anyerror = null,

            fn work(self: *@This()) !void {
                defer self.stop.store(true, .monotonic);
                const allocator = &self.heap.allocator;
                while (self.running.load(.seq_cst) < 3) os.yieldThread();
                for (&self.images, &self.live) |*image, *live| {
                    for (0..10) |_| {
                        allocator.hold();
                        defer allocator.release();
                        // Whoever holds may allocate; others may not have moved meanwhile.
                        const before = (try allocator.stats()).live_blocks;
                        const block = try allocator.malloc(5000);
                        os.yieldThread();
                        try testing.expectEqual(before + 1, (try allocator.stats()).live_blocks);
                        try allocator.free(block);
                    }
                    allocator.hold();
                    defer allocator.release();
                    try allocator.check();
                    live.* = (try allocator.stats()).live_blocks;
                    image.* = try self.heap.save();
                }
            }
        };
        var holder: [1]Holder = .{.{ .heap = heap, .stop = &stop, .running = &running }};
        const Side = struct {
            hammers: []Hammer,
            failed: ?anyerror = null,

            fn work(self: *@This()) !void {
                try runThreads(Hammer, self.hammers);
            }
        };
        const Both = struct {
            side: ?*Side = null,
            holder: ?*Holder = null,
            failed: ?anyerror = null,

            fn work(self: *@This()) !void {
                if (self.side) |side| try side.work();
                if (self.holder) |one| try one.work();
            }
        };
        var side: Side = .{ .hammers = &hammers };
        var both: [2]Both = .{ .{ .side = &side }, .{ .holder = &holder[0] } };
        try runThreads(Both, &both);
        try a.check();
        for (&holder[0].images, holder[0].live) |*image, live| {
            try heap.load(image);
            image.deinit();
            try a.check();
            try testing.expectEqual(live, (try a.stats()).live_blocks);
            for (0..1000) |i| _ = try a.malloc(i);
            try a.check();
        }
    }
}

/// Keeps pairs of blocks that are only whole between changes.
const Changer = struct {
    heap: *TestHeap,
    stop: *std.atomic.Value(bool),
    pair: [2]std.atomic.Value(usize) = @splat(.init(0)),
    changes: usize = 0,
    failed: ?anyerror = null,

    fn work(self: *Changer) !void {
        const a = &self.heap.allocator;
        while (!self.stop.load(.monotonic) or self.changes < 100) : (self.changes += 1) {
            const change = try a.beginChange();
            defer a.endChange(change);
            for (&self.pair) |*slot| {
                const old = slot.load(.monotonic);
                slot.store(try a.malloc(16 + self.changes % 40_000), .monotonic);
                try a.free(old);
                if (self.changes % 64 == 0) os.yieldThread();
                @as(*usize, @ptrFromInt(slot.load(.monotonic))).* = self.changes;
            }
        }
    }
};

test "a change that allocates is never seen half done by who holds the allocator" {
    const heap = try TestHeap.create(256 << 20, 1 << 20);
    defer heap.destroy();
    var stop: std.atomic.Value(bool) = .init(false);
    var changers: [3]Changer = @splat(.{ .heap = heap, .stop = &stop });
    const Holder = struct {
        heap: *TestHeap,
        changers: []Changer,
        stop: *std.atomic.Value(bool),
        failed: ?anyerror = null,

        fn work(self: *@This()) !void {
            defer self.stop.store(true, .monotonic);
            for (0..300) |_| {
                self.heap.allocator.hold();
                defer self.heap.allocator.release();
                for (self.changers) |*changer| {
                    const first = changer.pair[0].load(.monotonic);
                    const second = changer.pair[1].load(.monotonic);
                    if ((first == 0) != (second == 0)) return error.HalfDone;
                    if (first == 0) continue;
                    const a: *usize = @ptrFromInt(first);
                    const b: *usize = @ptrFromInt(second);
                    if (a.* != b.*) return error.HalfDone;
                }
            }
        }
    };
    var holder: Holder = .{ .heap = heap, .changers = &changers, .stop = &stop };
    const Any = union(enum) {
        changer: *Changer,
        holder: *Holder,
    };
    const Runner = struct {
        what: Any,
        failed: ?anyerror = null,
        fn work(self: *@This()) !void {
            switch (self.what) {
                inline else => |it| try it.work(),
            }
        }
    };
    var runners = [_]Runner{
        .{ .what = .{ .changer = &changers[0] } },
        .{ .what = .{ .changer = &changers[1] } },
        .{ .what = .{ .changer = &changers[2] } },
        .{ .what = .{ .holder = &holder } },
    };
    try runThreads(Runner, &runners);
    for (&changers) |changer| try testing.expect(changer.changes >= 100);
    for (&changers) |*changer| {
        for (&changer.pair) |*slot| try heap.allocator.free(slot.load(.monotonic));
    }
    try heap.allocator.check();
}

test "two heaps at once keep apart, and a thread's end gives up its spans in both" {
    const one = try TestHeap.create(64 << 20, 1 << 20);
    defer one.destroy();
    const two = try TestHeap.create(64 << 20, 1 << 20);
    defer two.destroy();
    const Worker = struct {
        a: *Allocator,
        b: *Allocator,
        failed: ?anyerror = null,

        fn work(self: *@This()) !void {
            const x = try self.a.malloc(100);
            const y = try self.b.malloc(100);
            try testing.expectError(error.BAD_POINTER, self.a.free(y));
            try testing.expectError(error.BAD_POINTER, self.b.free(x));
            try self.a.free(x);
            try self.b.free(y);
        }
    };
    var workers: [4]Worker = @splat(.{ .a = &one.allocator, .b = &two.allocator });
    try runThreads(Worker, &workers);
    // Nobody is left to own a span: no trim is needed.
    try testing.expectEqual(@as(u64, 0), one.allocator.usedBytes());
    try testing.expectEqual(@as(u64, 0), two.allocator.usedBytes());
    try expectEmpty(one);
    try expectEmpty(two);
}

test "a forked child goes on with the heap as it was, though it has one thread only" {
    const linux = std.os.linux;
    const heap = try TestHeap.create(64 << 20, 1 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    const Parked = struct {
        a: *Allocator,
        blocks: [3000]usize = undefined,
        ready: std.atomic.Value(u32) = .init(0),
        done: std.atomic.Value(u32) = .init(0),
        failed: ?anyerror = null,

        fn work(self: *@This()) !void {
            for (&self.blocks, 0..) |*block, i| block.* = try self.a.malloc(16 + i % 300);
            for (self.blocks[0..1000]) |block| try self.a.free(block);
            self.ready.store(1, .seq_cst);
            os.futexWake(&self.ready, 1);
            while (self.done.load(.seq_cst) == 0) os.futexWait(&self.done, 0);
            for (self.blocks[1000..]) |block| try self.a.free(block);
        }
    };
    const Forker = struct {
        parked: *Parked,

        fn inChild(self: @This(), mine: []const usize) !void {
            const allocator = self.parked.a;
            allocator.afterFork();
            try allocator.check();
            const used = allocator.usedBytes();
            for (0..500) |i| try allocator.free(try allocator.malloc(16 + i % 300));
            // Nobody is left to own spans, and theirs are used before new ones are made.
            try testing.expectEqual(used, allocator.usedBytes());
            for (self.parked.blocks[1000..]) |block| try allocator.free(block);
            for (self.parked.blocks) |block| try testing.expectError(error.DOUBLE_FREE, allocator.free(block));
            for (mine) |block| try allocator.free(block);
            try allocator.check();
            try allocator.trim(0);
            try allocator.check();
            try testing.expectEqual(@as(u64, 0), allocator.usedBytes());
        }
    };
    var parked: Parked = .{ .a = a };
    const Entry = struct {
        fn run(context: ?*anyopaque) callconv(.c) ?*anyopaque {
            const self: *Parked = @ptrCast(@alignCast(context.?));
            self.work() catch |err| {
                self.failed = err;
            };
            return null;
        }
    };
    var mine: [200]usize = undefined;
    for (&mine, 0..) |*block, i| block.* = try a.malloc(i * 10);
    const thread = try os.Thread.spawn(Entry.run, &parked);
    while (parked.ready.load(.seq_cst) == 0) os.futexWait(&parked.ready, 0);
    const pid = linux.fork();
    if (pid == 0) {
        const forker: Forker = .{ .parked = &parked };
        forker.inChild(&mine) catch linux.exit_group(1);
        linux.exit_group(0);
    }
    var status: u32 = 1;
    _ = linux.waitpid(@intCast(pid), @ptrCast(&status), 0);
    parked.done.store(1, .seq_cst);
    os.futexWake(&parked.done, 1);
    thread.join();
    if (parked.failed) |err| return err;
    try testing.expectEqual(@as(u32, 0), status);
    for (mine) |block| try a.free(block);
    try expectEmpty(heap);
}
