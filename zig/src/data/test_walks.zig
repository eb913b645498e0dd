//! Walks and columns while another thread writes over what they follow: whatever comes out, every address
//! that was given lies in the heap, and nothing crashes.

const std = @import("std");
const columns = @import("columns.zig");
const data = @import("data.zig");
const hash_map = @import("hash_map.zig");
const list = @import("list.zig");
const ordered_map = @import("ordered_map.zig");
const vec = @import("vec.zig");
const TestHeap = @import("../alloc/test_heap.zig").TestHeap;
const Space = data.Space;
const testing = std.testing;

const value_size = 32;
const elements = 500;
const rounds = 4_000;

/// Writes words over what stands there, and what stood there back.
const Vandal = struct {
    targets: []const []align(4) u8,
    /// Numbers that lead somewhere: addresses of parts, the heap's end.
    words: []const u64,
    stopped: std.atomic.Value(bool) = .init(false),
    written: u64 = 0,

    fn run(self: *Vandal) void {
        var prng = std.Random.DefaultPrng.init(77);
        const random = prng.random();
        while (!self.stopped.load(.monotonic)) : (self.written += 1) {
            const target = self.targets[random.uintLessThan(usize, self.targets.len)];
            if (random.boolean()) self.overwrite(u64, target, random) else self.overwrite(u32, target, random);
        }
    }

    fn overwrite(self: *Vandal, comptime T: type, target: []align(4) u8, random: std.Random) void {
        const words: [*]align(4) T = @ptrCast(target.ptr);
        const word = &words[random.uintLessThan(usize, target.len / @sizeOf(T))];
        const before = word.*;
        for (0..random.uintLessThan(usize, 3) + 1) |_| {
            const other: T = @truncate(switch (random.uintLessThan(u32, 5)) {
                0 => 0,
                1 => std.math.maxInt(u64),
                2 => random.int(u64),
                3 => self.words[random.uintLessThan(usize, self.words.len)] +% random.uintLessThan(u64, 3) *% 8 -% 8,
                else => before +% random.uintLessThan(u64, 1 << 20),
            });
            @as(*align(4) volatile T, word).* = other;
        }
        @as(*align(4) volatile T, word).* = before;
    }
};

fn shapeOf(kind: data.Kind, key: data.KeyKind) u64 {
    return (data.Shape{ .key = key, .kind = kind, .value_size = value_size }).bits();
}

/// All of a walk each way, and all kinds of columns; every address lies in the heap.
fn readAll(container: anytype, space: Space, random: std.Random) !void {
    var walk = std.mem.zeroes(data.Walk);
    walk.backward = @floatFromInt(random.uintLessThan(u8, 2));
    container.beginWalk(&walk) catch return;
    if (random.boolean()) {
        // Elements that were not given are the heap's first.
        var out: [100][2]f64 = @splat(.{ 0, @floatFromInt(space.alloc.tables.data) });
        while (container.nextOf(&walk, &out) catch 0 != 0) {
            for (&out) |pair| if (!space.contains(@intFromFloat(pair[1]), value_size)) return error.Outside;
        }
        return;
    }
    const kinds = @typeInfo(columns.Column).@"enum".fields.len;
    const rows = 64;
    var out: [(kinds + 1) * rows * 8]u8 align(8) = undefined;
    @memset(&out, 0);
    @memset(out[kinds * rows * 8 ..], 0xa5);
    var fields: [kinds]columns.Field = undefined;
    for (&fields, 0..) |*field, kind| field.* = .{ .offset = 16, .column = @intCast(kind), .at = @intCast(kind * rows * 8), .refused = 0 };
    const seen: columns.Seen = .{ .base = space.alloc.tables.data, .room = space.alloc.capacityBytes() };
    while (columns.gather(container, &walk, &fields, rows, out[0 .. kinds * rows * 8], value_size, seen) catch 0 != 0) {
        const texts: [*]const [2]u32 = @ptrCast(@alignCast(&out[@intFromEnum(columns.Column.text) * rows * 8]));
        for (texts[0..rows]) |place| {
            if (place[1] >= 1 << 31) continue;
            if (place[0] > place[1] or place[1] > seen.room) return error.Outside;
        }
        for (out[kinds * rows * 8 ..]) |byte| try testing.expectEqual(0xa5, byte);
    }
}

test "what another thread writes over while it is walked leads to anything but a crash" {
    const heap = try TestHeap.create(64 << 20, 1 << 20);
    defer heap.destroy();
    const space: Space = .{ .alloc = &heap.allocator };
    const headers = try heap.allocator.calloc(4, 128);
    const sequence = try vec.Vec.open(space, headers, shapeOf(.vec, .none));
    _ = try sequence.insert(0, elements);
    const linked = try list.List.open(space, headers + 128, shapeOf(.list, .none));
    for (0..elements) |_| _ = try linked.insert(0);
    const hashed = try hash_map.Map.open(space, headers + 256, shapeOf(.hash_map, .number));
    const ordered = try ordered_map.Numbers.open(space, headers + 384, shapeOf(.ordered_map, .u64));
    for (0..elements) |i| {
        _ = try hashed.set(&.{ .bits = @bitCast(@as(f64, @floatFromInt(i))) });
        _ = try ordered.set(&.{ .bits = i });
    }
    const targets = [_][]align(4) u8{
        @alignCast(std.mem.asBytes(sequence.header)[8..]),
        @alignCast(std.mem.asBytes(linked.header)[8..]),
        @alignCast(std.mem.asBytes(hashed.header)[8..]),
        @alignCast(std.mem.asBytes(ordered.header)[8..]),
        @alignCast(try space.bytes(linked.header.first, 16)),
        @alignCast(try space.bytes(linked.header.last, 16)),
        @alignCast(try space.bytes(hashed.header.pool.directory, 24 * 16)),
        @alignCast(try space.bytes(ordered.header.first, 1024)),
        @alignCast(try space.bytes(ordered.header.last, 1024)),
        // Texts of the values, with addresses and lengths.
        @alignCast(try space.bytes(sequence.header.data, 4 * value_size)),
    };
    const words = [_]u64{
        headers,
        sequence.header.data,
        linked.header.first,
        hashed.header.pool.directory,
        ordered.header.first,
        heap.allocator.tables.data,
        heap.allocator.tables.data + heap.allocator.capacityBytes(),
        1 << 32,
        1 << 21,
    };
    var vandal: Vandal = .{ .targets = &targets, .words = &words };
    const thread = try std.Thread.spawn(.{}, Vandal.run, .{&vandal});
    {
        defer {
            vandal.stopped.store(true, .monotonic);
            thread.join();
        }
        var prng = std.Random.DefaultPrng.init(78);
        for (0..rounds) |_| {
            try readAll(sequence, space, prng.random());
            try readAll(linked, space, prng.random());
            try readAll(hashed, space, prng.random());
            try readAll(ordered, space, prng.random());
        }
    }
    try testing.expect(vandal.written > 0);
    try sequence.check();
    try linked.check();
    try hashed.check();
    try ordered.check();
}
