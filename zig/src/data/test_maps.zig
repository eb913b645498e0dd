//! Containers beside models that are plainly right: std's maps and lists. Each test proves the
//! container after each stretch of operations, and that a cleared heap holds nothing.

const std = @import("std");
const data = @import("data.zig");
const hash_map = @import("hash_map.zig");
const vec_room = @import("vec.zig");
const text = @import("text.zig");
const TestHeap = @import("../alloc/test_heap.zig").TestHeap;
const Space = data.Space;
const testing = std.testing;

pub const seed = 0x5eed_0001;

pub fn expectEmpty(heap: *TestHeap) !void {
    try heap.allocator.check();
    try testing.expectEqual(@as(u64, 0), (try heap.allocator.stats()).live_blocks);
}

/// Text that is often equal to another one, of lengths around those where its form changes.
pub fn randomText(random: std.Random, buffer: *[64]u8) []const u8 {
    const lengths = [_]usize{ 0, 1, 2, 3, 7, 8, 9, 14, 15, 16, 17, 30 };
    const len = lengths[random.uintLessThan(usize, lengths.len)];
    for (buffer[0..len]) |*byte| byte.* = 'a' + random.uintLessThan(u8, 2);
    if (len > 8) @memcpy(buffer[0..8], "prefix//");
    return buffer[0..len];
}

const Model = struct {
    const Item = struct { key: []const u8, value: u64 };
    items: std.ArrayList(Item) = .empty,

    fn find(self: *Model, key: []const u8) ?usize {
        for (self.items.items, 0..) |item, i| if (std.mem.eql(u8, item.key, key)) return i;
        return null;
    }

    fn deinit(self: *Model) void {
        for (self.items.items) |item| testing.allocator.free(item.key);
        self.items.deinit(testing.allocator);
    }
};

fn shapeOf(key: data.KeyKind, value_size: u32) u64 {
    return (data.Shape{ .key = key, .kind = .hash_map, .value_size = value_size }).bits();
}

fn keyFrom(kind: data.KeyKind, bytes: []const u8) hash_map.Key {
    if (kind == .text) return .{ .text = text.Key.init(bytes, false) };
    return .{ .bits = std.mem.readInt(u64, bytes[0..8], .little) };
}

fn valueAt(address: u64) *u64 {
    return @ptrFromInt(address);
}

test "a HashMap is what a list of pairs is, whatever is set and deleted, in order, both ways" {
    for ([_]data.KeyKind{ .u64, .text }) |kind| {
        const heap = try TestHeap.create(256 << 20, 1 << 20);
        defer heap.destroy();
        const space: Space = .{ .alloc = &heap.allocator };
        const header = try heap.allocator.calloc(1, @sizeOf(hash_map.Header));
        const shape = shapeOf(kind, 24);
        var model: Model = .{};
        defer model.deinit();
        var prng = std.Random.DefaultPrng.init(seed);
        const random = prng.random();
        var limit: usize = 4;
        for (0..30_000) |step| {
            const map = try hash_map.Map.open(space, header, shape);
            if (step % 2000 == 0) limit = ([_]usize{ 4, 600, 40, 1 })[random.uintLessThan(usize, 4)];
            var buffer: [64]u8 = undefined;
            const bytes = if (kind == .text) randomText(random, &buffer) else blk: {
                std.mem.writeInt(u64, buffer[0..8], random.uintLessThan(u64, limit * 2), .little);
                break :blk buffer[0..8];
            };
            const key = keyFrom(kind, bytes);
            const known = model.find(bytes);
            const found = try map.get(&key);
            try testing.expectEqual(known != null, found != 0);
            if (known) |i| try testing.expectEqual(model.items.items[i].value, valueAt(found).*);
            const grow = model.items.items.len < limit;
            switch (random.uintLessThan(u32, 8)) {
                0...3 => if (grow or known != null) {
                    const place = try map.set(&key);
                    if (known) |i| {
                        try testing.expectEqual(found, place);
                        model.items.items[i].value = step;
                    } else {
                        for (@as(*[3]u64, @ptrFromInt(place))) |word| try testing.expectEqual(@as(u64, 0), word);
                        try model.items.append(testing.allocator, .{ .key = try testing.allocator.dupe(u8, bytes), .value = step });
                    }
                    @memset(@as(*[3]u64, @ptrFromInt(place)), step);
                },
                4, 5 => {
                    try testing.expectEqual(known != null, try map.remove(&key));
                    if (known) |i| testing.allocator.free(model.items.orderedRemove(i).key);
                },
                6 => if (!grow and model.items.items.len > 0) {
                    const i = random.uintLessThan(usize, model.items.items.len);
                    const victim = model.items.orderedRemove(i);
                    defer testing.allocator.free(victim.key);
                    const other = keyFrom(kind, victim.key);
                    try testing.expect(try map.remove(&other));
                },
                else => if (random.uintLessThan(u32, 2000) == 0) {
                    try map.clear();
                    for (model.items.items) |item| testing.allocator.free(item.key);
                    model.items.clearRetainingCapacity();
                },
            }
            try testing.expectEqual(model.items.items.len, map.header.len);
            if (step % 500 == 0) try compare(&map, &model);
        }
        const map = try hash_map.Map.open(space, header, shape);
        try compare(&map, &model);
        try map.destroy();
        try heap.allocator.free(header);
        try expectEmpty(heap);
    }
}

fn compare(map: *const hash_map.Map, model: *Model) !void {
    try map.check();
    for ([_]f64{ 0, 1 }) |backward| {
        var walk = std.mem.zeroes(data.Walk);
        walk.backward = backward;
        try map.beginWalk(&walk);
        var out: [7][2]f64 = undefined;
        var at: usize = 0;
        while (true) {
            const count = try map.nextOf(&walk, &out);
            if (count == 0) break;
            for (out[0..count]) |pair| {
                const item = model.items.items[if (backward == 0) at else model.items.items.len - 1 - at];
                try testing.expectEqual(item.value, valueAt(@intFromFloat(pair[1])).*);
                if (map.shape.key == .text) {
                    const slot: *text.Slot = @ptrFromInt(@as(usize, @intFromFloat(pair[0])));
                    try testing.expectEqualStrings(item.key, try slot.bytes(map.space));
                }
                at += 1;
            }
        }
        try testing.expectEqual(model.items.items.len, at);
    }
}

test "a map that finds no memory stays as it was" {
    const heap = try TestHeap.create(256 << 20, 1 << 20);
    defer heap.destroy();
    heap.refuse_grow = true;
    const space: Space = .{ .alloc = &heap.allocator };
    const header = try heap.allocator.calloc(1, @sizeOf(hash_map.Header));
    const map = try hash_map.Map.open(space, header, shapeOf(.text, 40));
    var failures: u32 = 0;
    var count: u32 = 0;
    var buffer: [64]u8 = undefined;
    var i: u32 = 0;
    while (failures < 20) : (i += 1) {
        const key: hash_map.Key = .{ .text = text.Key.init(try std.fmt.bufPrint(&buffer, "{d} is a longer key", .{i}), false) };
        const before = map.header.*;
        if (map.set(&key)) |_| {
            count += 1;
        } else |err| {
            try testing.expectEqual(error.OUT_OF_MEMORY, err);
            try testing.expectEqual(before.len, map.header.len);
            try testing.expectEqual(before.changes, map.header.changes);
            try testing.expectEqual(@as(u64, 0), try map.get(&key));
            if (failures == 0) try map.check();
            failures += 1;
        }
    }
    try testing.expectEqual(count, map.header.len);
    try testing.expect(count > 1000);
    try map.check();
    try map.destroy();
    try heap.allocator.free(header);
    try expectEmpty(heap);
}

test "entries stay where they are, and memory of deleted ones goes back" {
    const heap = try TestHeap.create(256 << 20, 1 << 20);
    defer heap.destroy();
    const space: Space = .{ .alloc = &heap.allocator };
    const header = try heap.allocator.calloc(1, @sizeOf(hash_map.Header));
    const map = try hash_map.Map.open(space, header, shapeOf(.u64, 48));
    const places = try testing.allocator.alloc(u64, 100_000);
    defer testing.allocator.free(places);
    for (places, 0..) |*place, i| place.* = try map.set(&.{ .bits = i });
    for (places, 0..) |place, i| try testing.expectEqual(place, try map.get(&.{ .bits = i }));
    const full = (try heap.allocator.stats()).live_bytes;
    try testing.expect(full < 100_000 * 64 * 5 / 4 + 100_000 * 4 * 8 / 3 + 8192);
    for (0..99_000) |i| try testing.expect(try map.remove(&.{ .bits = i }));
    try map.check();
    try testing.expect((try heap.allocator.stats()).live_bytes < full / 4);
    for (places[99_000..], 99_000..) |place, i| try testing.expectEqual(place, try map.get(&.{ .bits = i }));
    for (0..1_000_000) |i| {
        _ = try map.set(&.{ .bits = i + 100_000 });
        try testing.expect(try map.remove(&.{ .bits = i + 99_000 }));
    }
    try map.check();
    try testing.expect((try heap.allocator.stats()).live_bytes < full / 4);
}

test "a Vec is what a list is" {
    const heap = try TestHeap.create(256 << 20, 1 << 20);
    defer heap.destroy();
    const space: Space = .{ .alloc = &heap.allocator };
    const header = try heap.allocator.calloc(1, @sizeOf(vec_room.Header));
    const shape = (data.Shape{ .key = .none, .kind = .vec, .value_size = 4 }).bits();
    var model: std.ArrayList(u32) = .empty;
    defer model.deinit(testing.allocator);
    var prng = std.Random.DefaultPrng.init(seed + 1);
    const random = prng.random();
    for (0..20_000) |step| {
        const vec = try vec_room.Vec.open(space, header, shape);
        const len = model.items.len;
        const at = random.uintAtMost(usize, len);
        switch (random.uintLessThan(u32, if (step / 4000 % 2 == 0) 9 else 12)) {
            0...5 => {
                const count = random.uintLessThan(usize, 6);
                const place = try vec.insert(at, count);
                for (0..count) |i| {
                    const element: *u32 = @ptrFromInt(place + 4 * i);
                    try testing.expectEqual(@as(u32, 0), element.*);
                    element.* = random.int(u32) & 0xff;
                    try model.insert(testing.allocator, at + i, element.*);
                }
            },
            6 => if (at + 1 < len) {
                try vec.spread(at, len - (len - at) / 2);
                for (model.items[at .. len - (len - at) / 2]) |*item| item.* = model.items[at];
            },
            7 => if (len < 100) {
                try vec.reverse();
                std.mem.reverse(u32, model.items);
            } else try testing.expectError(error.INVALID_ARGUMENT, vec.insert(len + 1, 1)),
            8 => if (step % 50 == 0) {
                try vec.sort(.u32);
                std.mem.sort(u32, model.items, {}, std.sort.asc(u32));
            } else {
                const order = try testing.allocator.alloc(u32, len);
                defer testing.allocator.free(order);
                for (order, 0..) |*from, i| from.* = @intCast(i);
                random.shuffle(u32, order);
                const copy = try testing.allocator.dupe(u32, model.items);
                defer testing.allocator.free(copy);
                try vec.permute(order);
                for (order, model.items) |from, *item| item.* = copy[from];
                if (len > 1) order[0] = order[1];
                if (len > 1) try testing.expectError(error.INVALID_ARGUMENT, vec.permute(order));
            },
            else => {
                const count = random.uintAtMost(usize, @min(len - at, 20));
                try vec.remove(at, count);
                try model.replaceRange(testing.allocator, at, count, &.{});
                try testing.expectError(error.INVALID_ARGUMENT, vec.remove(model.items.len, 1));
            },
        }
        try vec.check();
        try testing.expectEqual(model.items.len, vec.header.len);
        if (model.items.len > 0) {
            try testing.expectEqualSlices(u32, model.items, @as([*]u32, @ptrFromInt(vec.header.data))[0..model.items.len]);
        }
    }
    const vec = try vec_room.Vec.open(space, header, shape);
    try vec.destroy();
    try heap.allocator.free(header);
    try expectEmpty(heap);
}

test "numbers sort as in JavaScript's typed arrays" {
    const heap = try TestHeap.create(256 << 20, 1 << 20);
    defer heap.destroy();
    const space: Space = .{ .alloc = &heap.allocator };
    const header = try heap.allocator.calloc(1, @sizeOf(vec_room.Header));
    const vec = try vec_room.Vec.open(space, header, (data.Shape{ .key = .none, .kind = .vec, .value_size = 8 }).bits());
    const place = try vec.insert(0, 6);
    const items: *[6]f64 = @ptrFromInt(place);
    items.* = .{ 3, std.math.nan(f64), 0.0, -0.0, -1, -std.math.inf(f64) };
    try vec.sort(.f64);
    try testing.expectEqual(@as(f64, -1), items[1]);
    try testing.expect(std.math.signbit(items[2]) and !std.math.signbit(items[3]));
    try testing.expect(std.math.isNan(items[5]));
}

test "a damaged map is CORRUPT or wrong, never a crash" {
    var prng = std.Random.DefaultPrng.init(seed + 2);
    const random = prng.random();
    for (0..400) |_| {
        const heap = try TestHeap.create(64 << 20, 1 << 20);
        defer heap.destroy();
        const space: Space = .{ .alloc = &heap.allocator };
        const header = try heap.allocator.calloc(1, @sizeOf(hash_map.Header));
        const kind: data.KeyKind = if (random.boolean()) .text else .u64;
        const shape = shapeOf(kind, 8);
        const map = try hash_map.Map.open(space, header, shape);
        var buffer: [64]u8 = undefined;
        for (0..60) |i| {
            const bytes = try std.fmt.bufPrint(&buffer, "{d:0>20}", .{i});
            _ = try map.set(&keyFrom(kind, bytes[if (kind == .text) 0 else 12..]));
        }
        // Somebody writes where they should not: into the header or what it leads to.
        const targets: [3][]u8 = .{
            std.mem.asBytes(map.header)[8..],
            try space.bytes(map.header.index, 4 << 7),
            try space.bytes(map.header.pool.directory, 24 * 8),
        };
        for (0..random.uintLessThan(usize, 4) + 1) |_| {
            const target = targets[random.uintLessThan(usize, 3)];
            const at = random.uintLessThan(usize, target.len);
            target[at] = if (random.boolean()) random.int(u8) else 0xff;
        }
        for (0..200) |i| {
            const bytes = try std.fmt.bufPrint(&buffer, "{d:0>20}", .{i % 80});
            const key = keyFrom(kind, bytes[if (kind == .text) 0 else 12..]);
            _ = map.get(&key) catch {};
            switch (random.uintLessThan(u32, 4)) {
                0 => _ = map.set(&key) catch {},
                1 => _ = map.remove(&key) catch {},
                2 => {
                    var walk = std.mem.zeroes(data.Walk);
                    map.beginWalk(&walk) catch {};
                    var out: [100][2]f64 = undefined;
                    _ = map.nextOf(&walk, &out) catch {};
                },
                else => map.check() catch {},
            }
        }
        map.destroy() catch {};
    }
}
