//! Histories that chance takes too long to find, step by step on the simulated machine: worlds of the
//! simulator, and tests.
//!
//! Invariant: each ends well with the engine as it is, and badly without the rule that it is for.

const std = @import("std");
const image_ = @import("../image.zig");
const machine_ = @import("machine.zig");
const medium_ = @import("medium.zig");
const os = @import("../../os/os.zig");
const plant = @import("../../plant.zig");
const stage_ = @import("stage.zig");
const testing = @import("../testing.zig");
const fiber = @import("fiber.zig");
const Fiber = fiber.Fiber;
const Heap = testing.Heap;
const Image = image_.Image;

const pages = 24;
const len = pages * os.page_size;

/// A heap and its image in the first process, and a reader in the second one, who maps what it finds.
const Scene = struct {
    machine: machine_.Machine,
    processes: [2]machine_.Process = undefined,
    heap: Heap,
    image: ?*Image = null,
    writing: Fiber,
    reading: Fiber,
    scratch: usize,
    /// The reader takes what is whole of a damaged image.
    damaged: bool = false,
    refused: bool = false,
    dropped: bool = false,

    /// Must not move.
    fn init(self: *Scene, seed: u64) !void {
        self.* = .{
            .machine = .init(seed),
            .heap = .init(pages),
            .writing = .init(0),
            .reading = .init(1),
            .scratch = try os.reserve(0, len),
        };
        for (&self.processes, 0..) |*process, id| process.* = .{ .machine = &self.machine, .id = @intCast(id) };
        self.machine.processes = &self.processes;
    }

    fn deinit(self: *Scene) void {
        os.freePages(self.reading.stack);
        os.freePages(self.writing.stack);
        self.close();
        self.heap.deinit();
        os.unmap(self.scratch, len);
        stage_.steps += self.machine.steps;
        self.machine.deinit();
    }

    fn options(self: *Scene, mode: image_.Mode) image_.OpenOptions {
        return .{ .disk = self.processes[0].disk(), .path = "a", .mode = mode, .background = false };
    }

    fn open(self: *Scene, how: image_.OpenOptions) !void {
        const image = try Image.open(how);
        self.image = image;
        if (how.mode == .create) return self.heap.join(image, null);
        try self.heap.restore(image, null);
        self.machine.unmap(@intFromPtr(self.heap.memory.ptr), self.heap.memory.len);
    }

    fn close(self: *Scene) void {
        const image = self.image orelse return;
        self.image = null;
        image.close();
    }

    fn put(self: *Scene, page: usize, value: u64) !void {
        self.heap.touch(&.{self.image.?}, page, value);
        _ = try self.heap.commit(self.image.?, null);
    }

    fn rewrite(self: *Scene, value: u64) !void {
        for (0..pages) |page| self.heap.touch(&.{self.image.?}, page, value * 100 + page);
        _ = try self.heap.commit(self.image.?, null);
    }

    fn log(self: *Scene) *medium_.Inode {
        for (self.machine.names.entries.items) |*entry| if (std.mem.indexOf(u8, entry.name.slice(), "-log-") != null) return entry.inode;
        unreachable;
    }

    // ---- what goes on beside the other, one call at a time

    fn rewriteLast(context: *anyopaque) void {
        const self: *Scene = @ptrCast(@alignCast(context));
        self.rewrite(9) catch unreachable;
    }

    /// Opens the image, commits and closes it.
    fn commitBriefly(context: *anyopaque) void {
        const self: *Scene = @ptrCast(@alignCast(context));
        self.open(self.options(.write)) catch unreachable;
        defer self.close();
        self.put(3, 7) catch unreachable;
    }

    fn read(context: *anyopaque) void {
        const self: *Scene = @ptrCast(@alignCast(context));
        const image = Image.open(.{ .disk = self.processes[1].disk(), .path = "a", .mode = .read, .allow_damaged = self.damaged }) catch {
            self.refused = true;
            return;
        };
        defer image.close();
        const point = image.point(if (self.damaged) 1 else null) catch unreachable;
        _ = image.build(point, self.scratch, len) catch {
            self.refused = true;
        };
    }

    /// Opens the image and looks only whether a commit was dropped.
    fn look(context: *anyopaque) void {
        const self: *Scene = @ptrCast(@alignCast(context));
        var how = self.options(.read);
        how.disk = self.processes[1].disk();
        const image = Image.open(how) catch {
            self.refused = true;
            return;
        };
        self.dropped = image.dropped;
        image.close();
    }

    /// The reader has found the base by its name, and not opened it.
    fn readToName(self: *Scene) void {
        const base = self.machine.names.find("a").?;
        self.machine.switches_one_in = 1;
        self.reading.start(read, self);
        while (base.sought == 0) self.reading.goOn();
        self.machine.switches_one_in = 0;
    }

    /// The writer has just seen that nobody else has a file open, if it asks for that.
    fn writeToSole(self: *Scene) void {
        const soles = self.machine.soles;
        self.machine.switches_one_in = 1;
        self.writing.start(rewriteLast, self);
        while (!self.writing.ended and self.machine.soles == soles) self.writing.goOn();
        self.machine.switches_one_in = 0;
    }

    fn finish(self: *Scene) void {
        while (!self.reading.ended) self.reading.goOn();
        while (!self.writing.ended) self.writing.goOn();
    }

    /// What the engine did wrong to the medium; the reader's mapping ends.
    fn offence(self: *Scene) ?[]const u8 {
        self.machine.unmap(self.scratch, len);
        return self.machine.medium.offence;
    }
};

/// A reader has found the base by its name and not opened it yet, when that is replaced and its log
/// cannot be removed. It goes on when the writer has just seen that nobody has that base open. What the
/// engine did wrong then, if anything.
fn readerBetween(unlinks: bool) !?[]const u8 {
    var scene: Scene = undefined;
    try scene.init(1);
    defer scene.deinit();
    var options = scene.options(.create);
    options.base_pages_min = 2;
    options.spare_len_min = 0;
    try scene.open(options);
    for (1..3) |value| try scene.rewrite(value);

    scene.readToName();
    scene.machine.refuses_unlink = !unlinks;
    try scene.rewrite(3);
    scene.machine.refuses_unlink = false;
    scene.writeToSole();
    scene.finish();
    return scene.offence();
}

test "a base whose log could not be removed is not written over: a reader may be about to open both" {
    if (!fiber.supported) return error.SkipZigTest;
    os.waits = fiber.yield;
    defer os.waits = null;
    defer plant.active = .none;
    try std.testing.expectEqual(null, try readerBetween(true));
    try std.testing.expectEqual(null, try readerBetween(false));
    plant.active = .reuse_log_left;
    // With its log gone the reader starts over.
    try std.testing.expectEqual(null, try readerBetween(true));
    try std.testing.expectEqualStrings("a page that somebody has mapped is written over", (try readerBetween(false)).?);
}

/// A reader has found a damaged base and not opened it yet, when a new one takes its place; somebody removes the
/// damaged files. It goes on when the writer has just seen that nobody has that base open.
fn readerOfDamaged() !?[]const u8 {
    var scene: Scene = undefined;
    try scene.init(1);
    defer scene.deinit();
    try scene.open(scene.options(.create));
    try scene.rewrite(1);
    for (2..4) |value| try scene.put(3, value);
    scene.close();
    scene.log().bytes.items[os.page_size + 100] ^= 1;
    var options = scene.options(.write);
    options.recover = true;
    options.base_pages_min = 2;
    options.spare_len_min = 0;
    try scene.open(options);

    scene.damaged = true;
    scene.readToName();
    try scene.rewrite(5);
    const machine = &scene.machine;
    var index = machine.names.entries.items.len;
    while (index > 0) {
        index -= 1;
        const name = machine.names.entries.items[index].name;
        if (std.mem.indexOf(u8, name.slice(), "-damaged-") != null) machine.remove(name.slice());
    }
    scene.writeToSole();
    scene.finish();
    try std.testing.expect(!scene.refused);
    return scene.offence();
}

test "a damaged base is not written over: what is whole of it can be read" {
    if (!fiber.supported) return error.SkipZigTest;
    os.waits = fiber.yield;
    defer os.waits = null;
    defer plant.active = .none;
    try std.testing.expectEqual(null, try readerOfDamaged());
    plant.active = .reuse_damaged;
    try std.testing.expectEqualStrings("a page that somebody has mapped is written over", (try readerOfDamaged()).?);
}

/// A reader has opened the base and not its log yet when a new base takes its place. It goes on when the
/// writer has just seen that nobody has that log open, whose space the new one is to get.
fn readerBehind() !?[]const u8 {
    var scene: Scene = undefined;
    try scene.init(1);
    defer scene.deinit();
    var options = scene.options(.create);
    options.base_pages_min = 20;
    options.room_len_min = 0;
    try scene.open(options);
    try scene.rewrite(1);
    for (0..18) |page| scene.heap.touch(&.{scene.image.?}, page, 200 + page);
    _ = try scene.heap.commit(scene.image.?, null);

    const base = scene.machine.names.find("a").?;
    scene.machine.switches_one_in = 1;
    scene.reading.start(Scene.read, &scene);
    while (!scene.processes[1].hasOpen(base)) scene.reading.goOn();
    scene.writeToSole();
    try std.testing.expect(!scene.writing.ended);
    scene.finish();
    try std.testing.expect(!scene.refused);
    const rooms = scene.machine.rooms;
    try scene.put(3, 5);
    const offence = scene.offence();
    if (offence == null) try std.testing.expectEqual(rooms + 1, scene.machine.rooms);
    return offence;
}

test "a log whose name a reader may still ask for does not give its space away" {
    if (!fiber.supported) return error.SkipZigTest;
    os.waits = fiber.yield;
    defer os.waits = null;
    defer plant.active = .none;
    try std.testing.expectEqual(null, try readerBehind());
    plant.active = .room_name_left;
    try std.testing.expectEqualStrings("a page that somebody has mapped is written over", (try readerBehind()).?);
}

/// The heap's changes are copied aside for both images, the second one's commit fails, of which nobody knows what
/// it had to compare; then the first one's commit is made.
fn lostBetween() !?[]const u8 {
    var machine: machine_.Machine = .init(1);
    defer machine.deinit();
    defer stage_.steps += machine.steps;
    var processes = [_]machine_.Process{.{ .machine = &machine, .id = 0 }};
    machine.processes = &processes;
    var heap = Heap.init(pages);
    defer heap.deinit();
    var images: [2]*Image = undefined;
    for (&images, [_][]const u8{ "a", "b" }, 0..) |*image, path, index| {
        image.* = try Image.open(.{ .disk = processes[0].disk(), .path = path, .mode = .create, .background = false });
        try heap.join(image.*, if (index == 1) images[0] else null);
    }
    defer for (images) |image| image.close();
    for (0..pages) |page| heap.touch(&images, page, page);
    for (images, 0..) |image, index| _ = try heap.commit(image, images[1 - index]);
    heap.touch(&images, 1, 100);
    _ = try heap.commit(images[1], images[0]);
    const last = heap.history.epoch();

    // A scan failed: nobody was told of the page that changed.
    heap.touch(&.{}, 2, 200);
    for (images) |image| image.compare_all = true;
    var kept: image_.PageSet = try .init(pages);
    defer kept.deinit();
    kept.setRange(0, pages);
    var wanted: image_.PageSet = try .init(pages);
    defer wanted.deinit();
    var captures: [2]image_.Capture = .{ .{}, .{} };
    defer for (&captures) |*capture| capture.deinit();
    const aside = try os.allocatePages(2 * pages * os.page_size);
    defer os.freePages(aside);
    for (&captures, [_]*Image{ images[1], images[0] }, 0..) |*capture, image, index| {
        try image.choose(capture, .{
            .kept = &kept,
            .wanted = &wanted,
            .memory = @intFromPtr(heap.memory.ptr),
            .whole = false,
            .alone = true,
            .compare = false,
            .other = if (index == 1) images[1] else null,
        });
        capture.copy(@intFromPtr(heap.memory.ptr), @intFromPtr(aside.ptr) + index * pages * os.page_size);
        image.taken(capture, &.{});
    }
    images[1].pendingAgain(&captures[0]);
    var commit = try images[0].begin();
    defer commit.end();
    try commit.prepare(.{
        .memory = 0,
        .capture = &captures[1],
        .identity = heap.identity,
        .used = &.{heap.used},
        .other = images[1],
    });
    return if ((try commit.finish()).epoch == last + 1) null else "a changed heap is taken for a commit that the other image holds";
}

test "a copy of the changes is no known commit when the other image lost track of what it had changed before" {
    if (!fiber.supported) return error.SkipZigTest;
    defer plant.active = .none;
    try std.testing.expectEqual(null, try lostBetween());
    plant.active = .r11_lost_track_since;
    try std.testing.expect(try lostBetween() != null);
}

/// Somebody opens the image to read it, is a few calls on when another opens it and has begun a record, and a few
/// more when that one goes on, perhaps to its end.
fn readerBesideBrief(random: std.Random) !?[]const u8 {
    var scene: Scene = undefined;
    try scene.init(random.int(u64));
    defer scene.deinit();
    try scene.open(scene.options(.create));
    for (1..3) |value| try scene.put(3, value);
    const end: usize = @intCast(scene.image.?.generation.?.log_end);
    scene.close();

    const log = scene.log();
    const reading = &scene.reading;
    const writing = &scene.writing;
    scene.machine.switches_one_in = 1;
    reading.start(Scene.look, &scene);
    writing.start(Scene.commitBriefly, &scene);
    for (0..random.uintLessThan(usize, 30)) |_| if (!reading.ended) reading.goOn();
    while (!writing.ended and (log.size < end + 8 or std.mem.allEqual(u8, log.content()[end..][0..8], 0))) writing.goOn();
    for (0..random.uintLessThan(usize, 40)) |_| if (!reading.ended) reading.goOn();
    if (random.boolean()) while (!writing.ended) writing.goOn();
    scene.finish();
    if (scene.refused) return "a reader is refused beside a writer";
    return if (scene.dropped) "a reader tells of a dropped commit, and none was" else scene.machine.medium.offence;
}

test "a reader beside one that opens, commits and closes tells of no dropped commit" {
    if (!fiber.supported) return error.SkipZigTest;
    os.waits = fiber.yield;
    defer os.waits = null;
    defer plant.active = .none;
    for ([_]plant.Plant{ .none, .r9_one_look, .r9_beside_writer }) |planted| {
        plant.active = planted;
        var prng: std.Random.DefaultPrng = .init(1);
        const noticed = for (0..1500) |_| {
            if (try readerBesideBrief(prng.random()) != null) break true;
        } else false;
        try std.testing.expectEqual(planted != .none, noticed);
    }
}

/// All of them, the one that chance decides in often; what went wrong, if anything.
pub fn play(random: std.Random) !?[]const u8 {
    if (try readerBetween(true)) |what| return what;
    if (try readerBetween(false)) |what| return what;
    if (try readerBehind()) |what| return what;
    if (try readerOfDamaged()) |what| return what;
    if (try lostBetween()) |what| return what;
    for (0..30) |_| if (try readerBesideBrief(random)) |what| return what;
    return null;
}
