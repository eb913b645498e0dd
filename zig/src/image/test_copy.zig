//! Copies of images: whole, or not there at all.

const std = @import("std");
const disk_ = @import("disk.zig");
const image_ = @import("image.zig");
const power = @import("power.zig");
const real_disk = @import("../os/disk.zig");
const testing = @import("testing.zig");
const Heap = testing.Heap;
const Image = image_.Image;
const expect = std.testing.expect;
const expectEqual = std.testing.expectEqual;
const expectError = std.testing.expectError;

const pages = 130;

/// What was committed, by epoch.
const Model = struct {
    states: [8][]u8 = undefined,
    count: usize = 0,

    fn deinit(self: *Model) void {
        for (self.states[0..self.count]) |bytes| std.testing.allocator.free(bytes);
    }

    /// Every epoch of the image is as it was committed.
    fn expectAll(self: *const Model, disk: image_.Disk, path: []const u8, mode: image_.Mode) !void {
        const image = try Image.open(.{ .disk = disk, .path = path, .mode = mode, .background = false, .verify = true });
        defer image.close();
        try expect(!image.dropped);
        try expectEqual(self.count, image.head().?.epoch);
        for (self.states[0..self.count], 1..) |bytes, epoch| try Heap.expectStored(image, epoch, bytes);
    }
};

/// Five epochs: a base, records with pages and holes, and one after going back, on a line of its own.
fn make(disk: image_.Disk, path: []const u8, heap: *Heap, model: *Model) !void {
    const image = try Image.open(.{ .disk = disk, .path = path, .mode = .create, .keep = 9, .background = false, .sealed_len_min = 20_000 });
    defer image.close();
    try heap.join(image, null);
    for (0..5) |step| {
        switch (step) {
            0 => for (0..40) |page| heap.touch(&.{image}, page * 3, page + 1),
            2 => {
                for (30..50) |page| {
                    @memset(heap.page(page), 0);
                    image.pending.set(page);
                }
            },
            4 => try heap.restore(image, 2),
            else => {},
        }
        for (0..6) |page| heap.touch(&.{image}, page * 10 + step, step + 100);
        model.states[step] = try heap.copy();
        model.count = step + 1;
        try expectEqual(step + 1, (try heap.commit(image, null)).epoch);
    }
}

test "a copy holds every epoch of its original, and goes on by itself" {
    errdefer testing.explain();
    var dir = testing.Dir.init();
    defer dir.deinit();
    var to_buffer: [512]u8 = undefined;
    const from = dir.path("a");
    const to = try std.fmt.bufPrint(&to_buffer, "{s}-elsewhere", .{from});
    var heap = Heap.init(pages);
    defer heap.deinit();
    var model: Model = .{};
    defer model.deinit();
    try make(.real, from, &heap, &model);

    const report = try image_.copy(.{ .from = from, .to = to });
    try expectEqual(@as(u64, 5), report.epoch);
    try expectEqual(@as(u64, 5), report.epochs);
    try expectEqual(@as(usize, 4), try dir.count());
    try model.expectAll(.real, to, .read);
    try model.expectAll(.real, to, .write);
    try expectError(error.EXISTS, image_.copy(.{ .from = from, .to = to }));
    try expectError(error.INVALID_ARGUMENT, image_.copy(.{ .from = from, .to = from, .replace = true }));
    try expectError(error.NOT_FOUND, image_.copy(.{ .from = "nothing", .to = to, .replace = true }));

    const uuid = blk: {
        const original = try Image.open(.{ .path = from, .mode = .read });
        defer original.close();
        const image = try Image.open(.{ .path = to, .mode = .write, .background = false });
        defer image.close();
        try std.testing.expectEqualSlices(u8, &original.uuid, &image.uuid);
        try heap.restore(image, null);
        heap.touch(&.{image}, 5, 77);
        try expectEqual(@as(u64, 6), (try heap.commit(image, null)).epoch);
        try Heap.expectStored(image, null, heap.memory);
        try expectError(error.ALREADY_OPEN, image_.copy(.{ .from = from, .to = to, .replace = true }));
        break :blk image.uuid;
    };
    try model.expectAll(.real, from, .read);
    // Over the copy, whose log the new copy must not take for its own.
    _ = try image_.copy(.{ .from = from, .to = to, .replace = true });
    try model.expectAll(.real, to, .write);
    try expectEqual(@as(usize, 4), try dir.count());
    const image = try Image.open(.{ .path = to, .mode = .read });
    defer image.close();
    try std.testing.expectEqualSlices(u8, &uuid, &image.uuid);
}

test "a copy that fails or is killed at any call leaves what stood there, or all of the copy" {
    errdefer testing.explain();
    var dir = testing.Dir.init();
    defer dir.deinit();
    var to_buffer: [512]u8 = undefined;
    const from = dir.path("a");
    const to = try std.fmt.bufPrint(&to_buffer, "{s}-b", .{from});
    for ([_]bool{ false, true }) |over| for ([_]bool{ false, true }) |dead| {
        var stop: usize = 0;
        while (true) : (stop += 1) {
            errdefer std.debug.print("over {} dead {} call {d}\n", .{ over, dead, stop });
            try dir.clear();
            var heap = Heap.init(pages);
            defer heap.deinit();
            var model: Model = .{};
            defer model.deinit();
            var other: Model = .{};
            defer other.deinit();
            var calm: testing.FaultyDisk = .{};
            try make(calm.disk(), from, &heap, &model);
            if (over) {
                var second = Heap.init(pages);
                defer second.deinit();
                try make(calm.disk(), to, &second, &other);
            }
            var faulty: testing.FaultyDisk = .{ .stop_at = stop, .dead = dead, .errno = @intFromEnum(@as(@import("../os/os.zig").E, if (dead) .IO else .NOSPC)) };
            const done = if (image_.copy(.{ .disk = faulty.disk(), .from = from, .to = to, .replace = over })) |_| true else |_| false;
            try model.expectAll(calm.disk(), from, .write);
            if (Image.open(.{ .disk = calm.disk(), .path = to, .mode = .read })) |image| {
                image.close();
                try model.expectAll(calm.disk(), to, .read);
            } else |err| {
                try expect(!done and !over and err == error.NOT_FOUND);
            }
            if (!dead and !done) try expect(try dir.count() <= @as(usize, if (over) 5 else 4));
            // Whatever was left is in nobody's way.
            _ = try image_.copy(.{ .disk = calm.disk(), .from = from, .to = to, .replace = true });
            try model.expectAll(calm.disk(), to, .write);
            try expectEqual(@as(usize, 4), try dir.count());
            if (faulty.calls <= stop) {
                try expect(done);
                break;
            }
        }
    };
}

test "when the power fails at any call of a copy, nothing that passes for an image is less than one" {
    errdefer testing.explain();
    for (0..3) |seed| {
        var stop: usize = 0;
        while (true) : (stop += 1) {
            errdefer std.debug.print("seed {d} call {d}\n", .{ seed, stop });
            var disk: power.PowerDisk = .init(seed * 1000 + stop);
            defer disk.deinit();
            var heap = Heap.init(pages);
            defer heap.deinit();
            var model: Model = .{};
            defer model.deinit();
            try make(disk.disk(), "a", &heap, &model);
            const begun = disk.calls;
            disk.dies_at = begun + stop;
            const done = if (image_.copy(.{ .disk = disk.disk(), .from = "a", .to = "b" })) |_| !disk.isDead() else |_| false;
            const over = disk.calls <= disk.dies_at;
            disk.cut();
            try model.expectAll(disk.disk(), "a", .write);
            if (model.expectAll(disk.disk(), "b", .write)) |_| {} else |err| {
                try expect(!done and err == error.NOT_FOUND);
            }
            if (over) break;
        }
    }
}

test "a damaged original is not copied, and a copy that reads otherwise is none" {
    var dir = testing.Dir.init();
    defer dir.deinit();
    var to_buffer: [512]u8 = undefined;
    const from = dir.path("a");
    const to = try std.fmt.bufPrint(&to_buffer, "{s}-b", .{from});
    var heap = Heap.init(pages);
    defer heap.deinit();
    var model: Model = .{};
    defer model.deinit();
    try make(.real, from, &heap, &model);

    var lying: Lying = .{};
    try expectError(error.IO, image_.copy(.{ .disk = lying.disk(), .from = from, .to = to }));
    try expectEqual(@as(usize, 2), try dir.count());

    var name_buffer: [64]u8 = undefined;
    for ([_][]const u8{ "a", try dir.find("-log-", &name_buffer) }) |name| {
        const bytes = try dir.read(name);
        defer std.testing.allocator.free(bytes);
        bytes[3 * 4096 + 100] ^= 4;
        try dir.write(name, bytes);
        try expectError(error.CORRUPT, image_.copy(.{ .from = from, .to = to }));
        try expect(std.mem.endsWith(u8, errorPath(), "/a"));
        try expectEqual(@as(usize, 2), try dir.count());
        bytes[3 * 4096 + 100] ^= 4;
        try dir.write(name, bytes);
    }
    _ = try image_.copy(.{ .from = from, .to = to });
    try model.expectAll(.real, to, .read);
}

fn errorPath() []const u8 {
    const record = @import("../errors.zig").last().?;
    return record.path[0..record.path_len];
}

/// The real disk, which damages one byte that it copies.
const Lying = struct {
    copies: usize = 0,

    fn disk(self: *Lying) image_.Disk {
        return .{ .context = self, .vtable = comptime &testing.realBut(.{ .copy = copy }) };
    }

    fn copy(c: ?*anyopaque, from: disk_.File, at: u64, to: disk_.File, to_at: u64, len: u64) i64 {
        const self: *Lying = @ptrCast(@alignCast(c.?));
        const done = real_disk.copy(null, from, at, to, to_at, len);
        self.copies += 1;
        if (self.copies == 1) _ = real_disk.write(null, to, "X", to_at + 4000);
        return done;
    }
};
