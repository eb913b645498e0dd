//! OrderedMap, List and Text beside models that are plainly right.

const std = @import("std");
const data = @import("data.zig");
const ordered_map = @import("ordered_map.zig");
const list_room = @import("list.zig");
const long_text = @import("long_text.zig");
const text = @import("text.zig");
const maps = @import("test_maps.zig");
const TestHeap = @import("../alloc/test_heap.zig").TestHeap;
const Space = data.Space;
const Key = ordered_map.Key;
const testing = std.testing;

fn shapeOf(kind: data.Kind, key: data.KeyKind, value_size: u32) u64 {
    return (data.Shape{ .key = key, .kind = kind, .value_size = value_size }).bits();
}

const Model = struct {
    const Item = struct { key: []const u8, value: u64 };
    items: std.ArrayList(Item) = .empty,

    /// The first item at or above the key.
    fn lower(self: *Model, key: []const u8) usize {
        var at: usize = 0;
        while (at < self.items.items.len and std.mem.order(u8, self.items.items[at].key, key) == .lt) at += 1;
        return at;
    }

    fn holds(self: *Model, at: usize, key: []const u8) bool {
        return at < self.items.items.len and std.mem.eql(u8, self.items.items[at].key, key);
    }

    fn deinit(self: *Model) void {
        for (self.items.items) |item| testing.allocator.free(item.key);
        self.items.deinit(testing.allocator);
    }
};

fn keyFrom(comptime is_text: bool, bytes: []const u8) Key {
    if (is_text) return .{ .text = text.Key.init(bytes, false) };
    return .{ .bits = std.mem.readInt(u64, bytes[0..8], .big) };
}

fn randomKey(comptime is_text: bool, random: std.Random, limit: u64, buffer: *[64]u8) []const u8 {
    if (is_text) {
        const n = random.uintLessThan(u64, limit * 2);
        return switch (n % 4) {
            0 => std.fmt.bufPrint(buffer, "{d}", .{n}) catch unreachable,
            1 => std.fmt.bufPrint(buffer, "a common beginning {d:0>12}", .{n}) catch unreachable,
            2 => std.fmt.bufPrint(buffer, "user:{d:0>6}", .{n}) catch unreachable,
            else => std.fmt.bufPrint(buffer, "user:{d:0>6} with more than fits the slot", .{n - 1}) catch unreachable,
        };
    }
    std.mem.writeInt(u64, buffer[0..8], random.uintLessThan(u64, limit * 2), .big);
    return buffer[0..8];
}

test "an OrderedMap is what a sorted list is, for ranges both ways, whatever is set and deleted" {
    inline for ([_]bool{ false, true }) |is_text| {
        const Tree = if (is_text) ordered_map.Texts else ordered_map.Numbers;
        const heap = try TestHeap.create(256 << 20, 1 << 20);
        defer heap.destroy();
        const space: Space = .{ .alloc = &heap.allocator };
        const header = try heap.allocator.calloc(1, @sizeOf(ordered_map.Header));
        const shape = shapeOf(.ordered_map, if (is_text) .text else .u64, 8);
        var model: Model = .{};
        defer model.deinit();
        var prng = std.Random.DefaultPrng.init(maps.seed + 7);
        const random = prng.random();
        const limits = [_]u64{ 2000, 2000, 3, 500, 3000, 0 };
        for (0..48_000) |step| {
            const map = try Tree.open(space, header, shape);
            const limit = limits[step / 8000];
            var buffer: [64]u8 = undefined;
            const bytes = if (step < 2000 and !is_text) blk: {
                std.mem.writeInt(u64, buffer[0..8], step, .big); // in order at first
                break :blk buffer[0..8];
            } else randomKey(is_text, random, limit + 1, &buffer);
            const key = keyFrom(is_text, bytes);
            const at = model.lower(bytes);
            const known = model.holds(at, bytes);
            const found = try map.get(&key);
            try testing.expectEqual(known, found != 0);
            if (known) try testing.expectEqual(model.items.items[at].value, @as(*u64, @ptrFromInt(found)).*);
            const grow = model.items.items.len < limit;
            if (random.uintLessThan(u32, 8) < 5) {
                if (grow or known) {
                    const place = try map.set(&key);
                    if (known) {
                        try testing.expectEqual(found, place);
                        model.items.items[at].value = step;
                    } else {
                        try testing.expectEqual(@as(u64, 0), @as(*u64, @ptrFromInt(place)).*);
                        try model.items.insert(testing.allocator, at, .{ .key = try testing.allocator.dupe(u8, bytes), .value = step });
                    }
                    @as(*u64, @ptrFromInt(place)).* = step;
                }
            } else {
                try testing.expectEqual(known, try map.remove(&key));
                if (known) testing.allocator.free(model.items.orderedRemove(at).key);
            }
            if (!grow and model.items.items.len > 0) {
                const victim = model.items.orderedRemove(random.uintLessThan(usize, model.items.items.len));
                defer testing.allocator.free(victim.key);
                try testing.expect(try map.remove(&keyFrom(is_text, victim.key)));
            }
            try testing.expectEqual(model.items.items.len, map.header.len);
            if (step % 400 == 0) try map.check();
            if (step % 40 == 0) try compareRange(is_text, &map, &model, random, limit + 1);
        }
        const map = try Tree.open(space, header, shape);
        try map.check();
        try map.destroy();
        try heap.allocator.free(header);
        try maps.expectEmpty(heap);
    }
}

fn compareRange(comptime is_text: bool, map: anytype, model: *Model, random: std.Random, limit: u64) !void {
    var buffers: [2][64]u8 = undefined;
    const low = randomKey(is_text, random, limit, &buffers[0]);
    var high = randomKey(is_text, random, limit, &buffers[1]);
    const low_how: ordered_map.Seek = ([_]ordered_map.Seek{ .at_least, .above, .begin })[random.uintLessThan(usize, 3)];
    var high_how: ordered_map.Seek = ([_]ordered_map.Seek{ .at_least, .above, .end })[random.uintLessThan(usize, 3)];
    if (is_text and random.boolean()) {
        high = low[0..random.uintAtMost(usize, low.len)];
        high_how = .past_prefix;
    }
    var first: usize = 0;
    var end: usize = 0;
    for (model.items.items) |item| {
        const to_low = std.mem.order(u8, item.key, low);
        const to_high = std.mem.order(u8, item.key, high);
        if (low_how == .at_least and to_low == .lt or low_how == .above and to_low != .gt) first += 1;
        end += @intFromBool(switch (high_how) {
            .at_least => to_high == .lt,
            .above => to_high != .gt,
            .past_prefix => to_high == .lt or std.mem.startsWith(u8, item.key, high),
            else => true,
        });
    }
    const wanted = if (first < end) model.items.items[first..end] else &.{};
    for ([_]f64{ 0, 1 }) |backward| {
        var walk = std.mem.zeroes(data.Walk);
        walk.backward = backward;
        try map.seek(&keyFrom(is_text, low), low_how, false, &walk);
        try map.seek(&keyFrom(is_text, high), high_how, true, &walk);
        var out: [9][2]f64 = undefined;
        var at: usize = 0;
        while (true) {
            const count = try map.nextOf(&walk, &out);
            if (count == 0) break;
            for (out[0..count]) |pair| {
                try testing.expect(at < wanted.len);
                const item = wanted[if (backward == 0) at else wanted.len - 1 - at];
                try testing.expectEqual(item.value, @as(*u64, @ptrFromInt(@as(usize, @intFromFloat(pair[1])))).*);
                at += 1;
            }
        }
        try testing.expectEqual(wanted.len, at);
    }
}

test "numbers keep their order in the form in which they are stored" {
    const numbers = [_]f64{ -std.math.inf(f64), -1e300, -2, -1, -0.5, 0, 1e-300, 0.5, 1, 2, 1e300, std.math.inf(f64) };
    var before: u64 = 0;
    for (numbers) |n| {
        const bits = ordered_map.bitsOf(.number, @bitCast(n));
        try testing.expect(bits > before);
        before = bits;
    }
    try testing.expect(ordered_map.bitsOf(.i64, @bitCast(@as(i64, -1))) < ordered_map.bitsOf(.i64, 0));
}

test "an OrderedMap that finds no memory stays as it was" {
    const heap = try TestHeap.create(256 << 20, 1 << 20);
    defer heap.destroy();
    heap.refuse_grow = true;
    const space: Space = .{ .alloc = &heap.allocator };
    const header = try heap.allocator.calloc(1, @sizeOf(ordered_map.Header));
    const map = try ordered_map.Texts.open(space, header, shapeOf(.ordered_map, .text, 40));
    var prng = std.Random.DefaultPrng.init(maps.seed + 9);
    var failures: u32 = 0;
    while (failures < 300) {
        var buffer: [64]u8 = undefined;
        const key = keyFrom(true, randomKey(true, prng.random(), 1 << 40, &buffer));
        const before = map.header.*;
        if (map.set(&key)) |_| {} else |err| {
            try testing.expectEqual(error.OUT_OF_MEMORY, err);
            try testing.expectEqual(before.len, map.header.len);
            try testing.expectEqual(before.changes, map.header.changes);
            try testing.expectEqual(@as(u64, 0), try map.get(&key));
            failures += 1;
        }
    }
    try testing.expect(map.header.len > 1000);
    try map.check();
    // What the failed calls took is given back, too.
    var blocks: data.Blocks = .{ .out = &.{} };
    try map.blocks(&blocks);
    try testing.expectEqual(blocks.count + 1, (try heap.allocator.stats()).live_blocks);
    try map.destroy();
    try heap.allocator.free(header);
    try maps.expectEmpty(heap);
}

test "a List is what a list is" {
    const heap = try TestHeap.create(256 << 20, 1 << 20);
    defer heap.destroy();
    const space: Space = .{ .alloc = &heap.allocator };
    const header = try heap.allocator.calloc(1, @sizeOf(list_room.Header));
    const list = try list_room.List.open(space, header, shapeOf(.list, .none, 8));
    var model: std.ArrayList(u64) = .empty;
    defer model.deinit(testing.allocator);
    var prng = std.Random.DefaultPrng.init(maps.seed + 3);
    const random = prng.random();
    for (0..6000) |step| {
        const at = random.uintAtMost(usize, model.items.len);
        if (random.uintLessThan(u32, 10) < 6 and model.items.len < 300) {
            const before = try list.at(at);
            try testing.expectEqual(at < model.items.len, before != 0);
            @as(*u64, @ptrFromInt(try list.insert(before))).* = step;
            try model.insert(testing.allocator, at, step);
        } else if (at < model.items.len) {
            try list.remove(try list.at(at));
            _ = model.orderedRemove(at);
        }
        if (step % 100 == 0) {
            try list.reverse();
            std.mem.reverse(u64, model.items);
        }
        try testing.expectEqual(model.items.len, list.header.len);
        if (step % 20 == 0) {
            try list.check();
            var walk = std.mem.zeroes(data.Walk);
            try list.beginWalk(&walk);
            var out: [400][2]f64 = undefined;
            try testing.expectEqual(model.items.len, try list.nextOf(&walk, &out));
            for (model.items, out[0..model.items.len]) |value, pair| {
                try testing.expectEqual(value, @as(*u64, @ptrFromInt(@as(usize, @intFromFloat(pair[1])))).*);
            }
        }
    }
    try testing.expectError(error.CORRUPT, list.remove(header + 16));
    try list.destroy();
    try heap.allocator.free(header);
    try maps.expectEmpty(heap);
}

test "a Text is spliced as a list of characters is, and counts as JavaScript does" {
    const heap = try TestHeap.create(256 << 20, 1 << 20);
    defer heap.destroy();
    const space: Space = .{ .alloc = &heap.allocator };
    const header = try heap.allocator.calloc(1, @sizeOf(long_text.Header));
    const shape = shapeOf(.text, .none, 1);
    const it = try long_text.Text.open(space, header, shape);
    const characters = [_][]const u8{ "a", "b", "\u{e9}", "\u{20ac}", "\u{1f600}" };
    var model: std.ArrayList(u8) = .empty; // indices of characters
    defer model.deinit(testing.allocator);
    var prng = std.Random.DefaultPrng.init(maps.seed + 4);
    const random = prng.random();
    for (0..4000) |step| {
        const at = random.uintAtMost(usize, model.items.len);
        const removed = if (model.items.len > 900) model.items.len - at else random.uintAtMost(usize, @min(3, model.items.len - at));
        var inserted: [40]u8 = undefined;
        var inserted_bytes: std.ArrayList(u8) = .empty;
        defer inserted_bytes.deinit(testing.allocator);
        const count = random.uintAtMost(usize, 8);
        const kinds: u8 = if (step % 500 < 250) 2 else 5;
        for (inserted[0..count]) |*c| {
            c.* = random.uintLessThan(u8, kinds);
            try inserted_bytes.appendSlice(testing.allocator, characters[c.*]);
        }
        const units_at = unitsIn(model.items[0..at]);
        const byte = try it.byteOf(units_at);
        try testing.expectEqual(units_at, try it.unitOf(byte));
        const end = try it.byteOf(unitsIn(model.items[0 .. at + removed]));
        try it.splice(byte, end - byte, inserted_bytes.items, @bitCast(shape));
        try model.replaceRange(testing.allocator, at, removed, inserted[0..count]);
        try testing.expectEqual(unitsIn(model.items), it.header.units);
        if (step % 10 == 0) try it.check();
        if (model.items.len > 0 and model.items[0] == 4) {
            try testing.expectError(error.INVALID_ARGUMENT, it.byteOf(1));
            try testing.expectError(error.INVALID_ARGUMENT, it.splice(1, 0, "x", @bitCast(shape)));
        }
    }
    try testing.expectError(error.INVALID_ARGUMENT, it.splice(0, 0, "\xff", @bitCast(shape)));
    try testing.expectError(error.INVALID_ARGUMENT, it.byteOf(it.header.units + 1));
    // A stray write may leave any capacity.
    const whole = it.header.*;
    for ([_]u64{ 1 << 46, 1 << 47, std.math.maxInt(u64) }) |capacity| {
        it.header.* = .{ .shape = whole.shape, .data = 0, .len = 0, .capacity = capacity, .changes = 0, .reserved = 0, .units = 0 };
        try testing.expectError(error.OUT_OF_MEMORY, it.splice(0, 0, "x", @bitCast(shape)));
    }
    it.header.* = whole;
    try it.destroy();
    try heap.allocator.free(header);
    try maps.expectEmpty(heap);
}

fn unitsIn(characters: []const u8) u64 {
    var units: u64 = 0;
    for (characters) |c| units += if (c == 4) 2 else 1;
    return units;
}

test "a damaged tree is CORRUPT or wrong, never a crash" {
    var prng = std.Random.DefaultPrng.init(maps.seed + 5);
    const random = prng.random();
    inline for ([_]bool{ false, true }) |is_text| {
        const Tree = if (is_text) ordered_map.Texts else ordered_map.Numbers;
        for (0..200) |_| {
            const heap = try TestHeap.create(64 << 20, 1 << 20);
            defer heap.destroy();
            const space: Space = .{ .alloc = &heap.allocator };
            const header = try heap.allocator.calloc(1, @sizeOf(ordered_map.Header));
            const map = try Tree.open(space, header, shapeOf(.ordered_map, if (is_text) .text else .u64, 8));
            var buffer: [64]u8 = undefined;
            for (0..300) |_| _ = try map.set(&keyFrom(is_text, randomKey(is_text, random, 400, &buffer)));
            const targets = [_][]u8{
                std.mem.asBytes(map.header)[8..],
                try space.bytes(map.header.root, 1024),
                try space.bytes(map.header.first, 1024),
                try space.bytes(map.header.last, 64),
            };
            for (0..random.uintLessThan(usize, 4) + 1) |_| {
                const target = targets[random.uintLessThan(usize, targets.len)];
                const at = random.uintLessThan(usize, if (random.boolean()) @min(40, target.len) else target.len);
                target[at] = random.int(u8);
            }
            for (0..300) |_| {
                const key = keyFrom(is_text, randomKey(is_text, random, 400, &buffer));
                _ = map.get(&key) catch {};
                switch (random.uintLessThan(u32, 5)) {
                    0 => _ = map.set(&key) catch {},
                    1 => _ = map.remove(&key) catch {},
                    2 => {
                        var walk = std.mem.zeroes(data.Walk);
                        walk.backward = @floatFromInt(random.uintLessThan(u8, 2));
                        map.seek(&key, .at_least, false, &walk) catch {};
                        map.seek(&key, .end, true, &walk) catch {};
                        var out: [100][2]f64 = undefined;
                        _ = map.nextOf(&walk, &out) catch {};
                    },
                    3 => {
                        var blocks: data.Blocks = .{ .out = &.{} };
                        map.blocks(&blocks) catch {};
                    },
                    else => map.check() catch {},
                }
            }
            map.destroy() catch {};
        }
    }
}
