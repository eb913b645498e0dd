//! Patterns of several threads: as many as there are processors here, two.

const std = @import("std");
const core = @import("core");
const single = @import("patterns.zig");

const os = core.os;
const Random = single.Random;
const slots = single.slots;
const word = single.word;

const thread_count = 2;

/// Runs `work(number)` on that many threads and waits for all of them.
fn parallel(count: usize, context: anytype, comptime work: fn (@TypeOf(context), usize) void) void {
    const Start = struct {
        context: @TypeOf(context),
        number: usize,

        fn run(pointer: ?*anyopaque) callconv(.c) ?*anyopaque {
            const self: *@This() = @ptrCast(@alignCast(pointer.?));
            work(self.context, self.number);
            return null;
        }
    };
    var starts: [16]Start = undefined;
    var started: [16]os.Thread = undefined;
    for (starts[0..count], started[0..count], 0..) |*start, *thread, number| {
        start.* = .{ .context = context, .number = number };
        thread.* = os.Thread.spawn(Start.run, start) catch unreachable;
    }
    for (started[0..count]) |thread| thread.join();
}

/// A block's way from one thread to another.
const Mailbox = struct {
    places: [4096]std.atomic.Value(usize) align(64) = @splat(.init(0)),
};

var mailboxes: [thread_count]Mailbox = @splat(.{});

pub const patterns = struct {
    /// A server: each thread replaces blocks of 8 to 1,000 bytes at random, then ends and leaves them
    /// to its successor.
    pub fn larson(comptime A: type, percent: u64) u64 {
        const per_thread = 5000;
        const generations = 10;
        const Context = struct { tables: [thread_count][]usize, seed: u64, steps: u64 };
        var context: Context = .{ .tables = undefined, .seed = 0, .steps = 100_000 * percent / 100 };
        var random: Random = .init(1);
        for (&context.tables) |*table| {
            table.* = slots(per_thread);
            for (table.*) |*block| block.* = A.malloc(8 + random.below(993));
        }
        for (0..generations) |generation| {
            context.seed = generation;
            parallel(thread_count, &context, struct {
                fn work(shared: *Context, number: usize) void {
                    var own: Random = .init(shared.seed * 100 + number);
                    // What the other thread had before.
                    const table = shared.tables[(number + shared.seed) % thread_count];
                    for (0..shared.steps) |_| {
                        const place = &table[own.below(table.len)];
                        A.free(place.*);
                        const size = 8 + own.below(993);
                        place.* = A.malloc(size);
                        word(place.*, 0).* = size;
                    }
                }
            }.work);
        }
        for (context.tables) |table| for (table) |block| A.free(block);
        return generations * thread_count * context.steps;
    }

    /// One thread allocates what another frees.
    pub fn xmalloc_test(comptime A: type, percent: u64) u64 {
        const Context = struct { count: u64 };
        const context: Context = .{ .count = 10_000 * percent };
        parallel(thread_count, context, struct {
            fn work(shared: Context, number: usize) void {
                var random: Random = .init(number);
                // Each fills its own box and empties the next one's, until both are through.
                const mine = &mailboxes[number].places;
                const theirs = &mailboxes[(number + 1) % thread_count].places;
                var sent: u64 = 0;
                var received: u64 = 0;
                while (sent < shared.count or received < shared.count) {
                    const before = sent + received;
                    for (0..256) |_| {
                        const place = &mine[sent % mine.len];
                        if (sent == shared.count or place.load(.monotonic) != 0) break;
                        const block = A.malloc(16 + random.below(8) * 32);
                        word(block, 0).* = sent;
                        place.store(block, .release);
                        sent += 1;
                    }
                    for (0..256) |_| {
                        const place = &theirs[received % theirs.len];
                        const block = place.load(.acquire);
                        if (block == 0) break;
                        place.store(0, .release);
                        A.free(block);
                        received += 1;
                    }
                    if (sent + received == before) os.yieldThread();
                }
            }
        }.work);
        return context.count * thread_count;
    }

    /// Threads that live for a while, keep some of what they allocate, and swap blocks with each other.
    pub fn mstress(comptime A: type, percent: u64) u64 {
        const Context = struct { transfer: []usize, round: u64, steps: u64 };
        var context: Context = .{ .transfer = slots(1000), .round = 0, .steps = 50_000 * percent / 100 };
        const rounds = 10;
        for (0..rounds) |round| {
            context.round = round;
            parallel(thread_count, &context, struct {
                fn work(shared: *Context, number: usize) void {
                    var random: Random = .init(shared.round * 100 + number + 7);
                    var kept: [500]usize = @splat(0);
                    for (0..shared.steps) |step| {
                        const size = if (random.next() & 127 == 0) random.size(10, 16) else 8 + random.below(250);
                        var block = A.malloc(size);
                        word(block, 0).* = step;
                        switch (random.next() >> 61) {
                            0...3 => {
                                const place = &kept[random.below(kept.len)];
                                std.mem.swap(usize, place, &block);
                            },
                            4 => block = @atomicRmw(usize, &shared.transfer[random.below(shared.transfer.len)], .Xchg, block, .acq_rel),
                            else => {},
                        }
                        if (block != 0) A.free(block);
                    }
                    for (kept) |block| if (block != 0) A.free(block);
                }
            }.work);
        }
        for (context.transfer) |block| if (block != 0) A.free(block);
        return rounds * thread_count * context.steps;
    }

    /// Blocks of one line's size given to different threads, then freed, taken again and written to:
    /// slow where neighbours stay in one cache line.
    pub fn cache_scratch(comptime A: type, percent: u64) u64 {
        const Context = struct { first: [thread_count]usize, rounds: u64 };
        var context: Context = .{ .first = undefined, .rounds = 1000 * percent };
        for (&context.first) |*block| block.* = A.malloc(8);
        parallel(thread_count, &context, struct {
            fn work(shared: *Context, number: usize) void {
                A.free(shared.first[number]);
                writeOften(A, shared.rounds);
            }
        }.work);
        return thread_count * context.rounds;
    }

    /// The same with blocks that each thread took itself.
    pub fn cache_thrash(comptime A: type, percent: u64) u64 {
        const rounds = 1000 * percent;
        parallel(thread_count, rounds, struct {
            fn work(count: u64, _: usize) void {
                writeOften(A, count);
            }
        }.work);
        return thread_count * rounds;
    }

    /// Threads without end, each of which leaves some blocks that others free.
    pub fn mleak(comptime A: type, percent: u64) u64 {
        const per_thread = 100;
        const Context = struct { left: [thread_count][per_thread]usize };
        var context: Context = undefined;
        const rounds = 5 * percent;
        for (0..rounds) |_| {
            parallel(thread_count, &context, struct {
                fn work(shared: *Context, number: usize) void {
                    for (&shared.left[number], 0..) |*block, i| {
                        block.* = A.malloc(16 + i * 8);
                        word(block.*, 0).* = i;
                    }
                    for (shared.left[number][per_thread / 2 ..]) |block| A.free(block);
                }
            }.work);
            for (context.left) |left| for (left[0 .. per_thread / 2]) |block| A.free(block);
        }
        return rounds * thread_count * per_thread;
    }

    /// Each thread replaces any of 1,024 blocks; most are small, some have up to 32 KiB.
    pub fn glibc_thread(comptime A: type, percent: u64) u64 {
        const steps = 20_000 * percent;
        parallel(thread_count, steps, struct {
            fn work(count: u64, number: usize) void {
                var random: Random = .init(number + 3);
                var live: [1024]usize = @splat(0);
                for (0..count) |step| {
                    const place = &live[random.below(live.len)];
                    if (place.* != 0) A.free(place.*);
                    // The least of three makes small ones likely.
                    const size = @min(random.below(32_768), random.below(32_768), 16 + random.below(2000));
                    place.* = A.malloc(@max(8, size));
                    word(place.*, 0).* = step;
                }
                for (live) |block| if (block != 0) A.free(block);
            }
        }.work);
        return thread_count * steps;
    }

    /// Random sizes and lifetimes on every thread.
    pub fn alloc_test_threads(comptime A: type, percent: u64) u64 {
        parallel(thread_count, percent, struct {
            fn work(amount: u64, number: usize) void {
                _ = single.allocTest(A, number + 40, amount);
            }
        }.work);
        return thread_count * 40_000 * percent;
    }
};

fn writeOften(comptime A: type, rounds: u64) void {
    for (0..rounds) |_| {
        const block = A.malloc(8);
        const counter: *volatile usize = word(block, 0);
        counter.* = 0;
        for (0..200) |_| counter.* += 1;
        A.free(block);
    }
}
