//! What a Zig program does with the package: `zig_program make FILE` until it is killed, then
//! `zig_program again FILE`. Its containers live in a heap; so does a second allocator.

const std = @import("std");
const builtin = @import("builtin");
const perm = @import("perm_heap");
const Buddy = @import("buddy.zig").Buddy;

const Names = std.StringHashMapUnmanaged(u32);
const Numbers = std.AutoHashMap(u64, u64);

const State = struct {
    list: std.ArrayList([]const u8),
    names: Names,
    numbers: Numbers,
    buddy: Buddy,
    /// Blocks of the second allocator, which say where they stand.
    blocks: [64][]u8,
};

const count = 2000;

var steps: u64 = 0;

pub fn main(init: std.process.Init.Minimal) !void {
    var arguments = init.args.iterate();
    _ = arguments.next();
    const action = arguments.next() orelse return error.NoAction;
    const path = arguments.next() orelse return error.NoFile;
    const heap = perm.Heap.open(.{ .path = path, .size = 1 << 20, .keep = 8 }) catch |err| {
        std.debug.print("{s}\n", .{perm.lastError().?.message});
        return err;
    };
    _ = try heap.perm("steps", &steps);
    const state = try heap.global(State, "state");
    if (std.mem.eql(u8, action, "make")) {
        if (!state.is_new) return error.NotNew;
        try make(heap, state.value);
        try std.posix.kill(std.os.linux.getpid(), .KILL);
    }
    if (state.is_new) return error.New;
    try again(heap, state.value);
    try heap.close();
}

fn make(heap: perm.Heap, state: *State) !void {
    const allocator = heap.allocator();
    state.list = .empty;
    state.names = .empty;
    state.numbers = .init(allocator);
    try state.buddy.init(try heap.pages(), 16);
    for (0..count) |i| try add(allocator, state, i);
    for (&state.blocks, 0..) |*block, i| block.* = try filled(&state.buddy, i, i);
    steps = 1;
    _ = try heap.commit(.map);

    // More than the page cache is asked for, in a program that may have no threads to help.
    const large = try allocator.alloc(u8, 24 << 20);
    @memset(large, 0x5a);
    try heap.setRoot(large.ptr);
    for (state.blocks[0..32], 0..) |*block, i| {
        state.buddy.allocator().free(block.*);
        block.* = try filled(&state.buddy, i, 3 * i + 500);
    }
    steps = 2;
    _ = try heap.commit(.map);

    for (state.blocks[0..16]) |block| state.buddy.allocator().free(block);
    state.list.clearAndFree(allocator);
    state.names.clearAndFree(allocator);
    steps = 3;
}

fn again(heap: perm.Heap, state: *State) !void {
    const allocator = heap.allocator();
    // A managed container keeps its allocator, which belonged to the process that is gone.
    state.numbers.allocator = allocator;
    try expect(steps == 2);
    try heap.check();
    const large = (try heap.root(u8)).?;
    for (0..24 << 20) |i| try expect(@as([*]u8, @ptrCast(large))[i] == 0x5a);
    try compare(state, count);
    try blocksStand(state, 32);
    for (count..2 * count) |i| try add(allocator, state, i);
    try compare(state, 2 * count);
    if (!builtin.single_threaded) {
        try threads(heap);
        try fold();
    }

    // Back to where only the first commit was, the second allocator and all.
    _ = try heap.restore(.{ .epoch = 1 });
    state.numbers.allocator = heap.allocator();
    try expect(steps == 1);
    try compare(state, count);
    try blocksStand(state, 0);
    try std.heap.testAllocator(state.buddy.allocator());
    try std.heap.testAllocatorAligned(state.buddy.allocator());
    for (state.blocks) |block| state.buddy.allocator().free(block);
    try state.buddy.check();
    try expect(state.buddy.live == 0);
    const whole = try state.buddy.allocator().alloc(u8, 16 * perm.Pages.size);
    state.buddy.allocator().free(whole);

    for (0..count) |i| allocator.free(state.list.items[i]);
    state.list.deinit(allocator);
    state.names.deinit(allocator);
    state.numbers.deinit();
    const pages = try heap.pages();
    try pages.give(state.buddy.memory);
    try heap.check();
    std.debug.print("whole\n", .{});
}

/// Threads that come, allocate beside a commit, and go: nothing of theirs is left.
fn threads(heap: perm.Heap) !void {
    const before = try heap.stats();
    for (0..3) |_| {
        var running: [4]std.Thread = undefined;
        for (&running, 0..) |*thread, i| thread.* = try std.Thread.spawn(.{}, allocateAndFree, .{ heap.allocator(), i });
        _ = try heap.commit(.map);
        for (running) |thread| thread.join();
    }
    try heap.check();
    try expect((try heap.stats()).live_blocks == before.live_blocks);
}

/// A log that grows past its limit, long before the usual one, is folded by a thread of the library's.
fn fold() !void {
    const heap = try perm.Heap.open(.{ .path = "fold.heap", .size = 1 << 20, .log_limit = 1 << 20 });
    const changing = try heap.global([256 << 10]u8, "changing");
    var commits: u64 = 0;
    while ((try heap.stats()).folds == 0 and commits < 150) : (commits += 1) {
        @memset(changing.value, @truncate(commits));
        try expect((try heap.commit(.map)).epoch == commits + 1);
    }
    try expect((try heap.stats()).folds > 0 and (try heap.stats()).commits == commits);
    try heap.close();
}

fn allocateAndFree(allocator: std.mem.Allocator, seed: usize) void {
    var held: [32][]u8 = @splat(&.{});
    for (0..5000) |i| {
        const place = &held[i % held.len];
        allocator.free(place.*);
        place.* = allocator.alloc(u8, (i * 37 + seed) % 3000) catch @panic("no memory");
        @memset(place.*, @truncate(i));
    }
    for (held) |block| allocator.free(block);
}

fn add(allocator: std.mem.Allocator, state: *State, i: usize) !void {
    const name = try std.fmt.allocPrint(allocator, "name {d}", .{i});
    try state.list.append(allocator, name);
    try state.names.put(allocator, name, @intCast(i));
    try state.numbers.put(i, i * i);
}

fn compare(state: *State, expected: usize) !void {
    try expect(state.list.items.len == expected and state.names.count() == expected);
    try expect(state.numbers.count() == expected);
    var buffer: [32]u8 = undefined;
    for (0..expected) |i| {
        const name = try std.fmt.bufPrint(&buffer, "name {d}", .{i});
        try expect(std.mem.eql(u8, name, state.list.items[i]));
        try expect(state.names.get(name) == @as(u32, @intCast(i)));
        try expect(state.numbers.get(i) == i * i);
    }
}

fn filled(buddy: *Buddy, seed: usize, more: usize) ![]u8 {
    const block = try buddy.allocator().alloc(u8, 10 + 40 * seed + more);
    @memset(block, @intCast(seed));
    return block;
}

fn blocksStand(state: *State, changed: usize) !void {
    try state.buddy.check();
    try expect(state.buddy.live == 64);
    for (state.blocks, 0..) |block, i| {
        try expect(block.len == 10 + 40 * i + if (i < changed) 3 * i + 500 else i);
        try expect(std.mem.allEqual(u8, block, @intCast(i)));
    }
}

fn expect(holds: bool) !void {
    if (!holds) return error.NotAsExpected;
}
