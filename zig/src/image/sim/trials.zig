//! Short histories around one failure or crash each, where a rule of the engine decides what is found
//! afterwards: worlds of the simulator, and tests.
//!
//! Invariant: each ends well with the engine as it is, whatever chance decides, and badly within a few
//! tries without one of the rules that it is for.

const std = @import("std");
const fiber = @import("fiber.zig");
const format = @import("../format.zig");
const history_ = @import("../history.zig");
const image_ = @import("../image.zig");
const os = @import("../../os/os.zig");
const plant = @import("../../plant.zig");
const shared_file = @import("../shared_file.zig");
const stage_ = @import("stage.zig");
const Image = image_.Image;
const SharedFile = shared_file.SharedFile;
const Stage = stage_.Stage;
const pages = stage_.pages;

/// What is wrong, if anything.
const Outcome = anyerror!?[]const u8;

const Trial = struct {
    play: *const fn (*Stage) Outcome,
    /// How often in a row.
    tries: usize,
    /// What it notices.
    plants: []const plant.Plant,
};

const trials = [_]Trial{
    .{ .play = tailLeft, .tries = 8, .plants = &.{.r2_tail_not_cut} },
    .{ .play = foundMeanwhile, .tries = 6, .plants = &.{ .r2_footer_lives_on, .r2_log_lives_on } },
    .{ .play = openedAgain, .tries = 8, .plants = &.{ .r10_length_unchanged, .r10_record_not_rewritten } },
    .{ .play = firstAgain, .tries = 8, .plants = &.{ .r4_not_truncated, .r4_not_all_again } },
    .{ .play = renamedBack, .tries = 20, .plants = &.{ .r3_log_lives_on, .reuse_unsure_exchange } },
    .{ .play = takenForWhole, .tries = 20, .plants = &.{.reuse_not_marked} },
    .{ .play = mappedByItself, .tries = 1, .plants = &.{.reuse_own_map} },
    .{ .play = roomCut, .tries = 10, .plants = &.{ .room_not_synced, .room_dir_not_synced } },
    .{ .play = roomRead, .tries = 1, .plants = &.{.room_not_sole} },
    .{ .play = lateRecords, .tries = 12, .plants = &.{.sync_late_records} },
    .{ .play = foldElsewhere, .tries = 1, .plants = &.{.r6_fold_elsewhere} },
    .{ .play = madeBetween, .tries = 10, .plants = &.{.r7_no_second_look} },
    .{ .play = movedByHand, .tries = 2, .plants = &.{.r7_log_unlocked} },
    .{ .play = childLives, .tries = 1, .plants = &.{.r7_mapping_keeps_lock} },
    .{ .play = inFlight, .tries = 3, .plants = &.{.r11_inflight_left} },
    .{ .play = toldToOne, .tries = 1, .plants = &.{.r11_other_pending_left} },
    .{ .play = linesFolded, .tries = 1, .plants = &.{.r12_lines_not_folded} },
    .{ .play = copied, .tries = 8, .plants = &.{ .copy_unread, .copy_unsynced } },
    .{ .play = sharedLeft, .tries = 20, .plants = &.{.shared_left_early} },
    .{ .play = sharedLength, .tries = 10, .plants = &.{.shared_length_unchanged} },
    .{ .play = sharedSlot, .tries = 24, .plants = &.{ .shared_slot_unsettled, .shared_slot_over } },
};

/// All of them, in an order and with an outcome that chance decides; what went wrong, if anything.
pub fn play(random: std.Random) Outcome {
    const first = random.uintLessThan(usize, trials.len);
    for (0..trials.len) |index| {
        if (try repeat(&trials[(first + index) % trials.len], random)) |what| return what;
    }
    return null;
}

fn repeat(trial: *const Trial, random: std.Random) Outcome {
    for (0..trial.tries) |_| {
        var stage: Stage = undefined;
        stage.init(random);
        defer stage.deinit();
        if (try trial.play(&stage)) |what| return what;
        if (stage.machine.medium.offence) |what| return what;
    }
    return null;
}

// ------------------------------------------------------------------ attempts that failed

/// A long record fails before its footer, a short one comes in its place; nothing of the first is left.
fn tailLeft(stage: *Stage) Outcome {
    try stage.make();
    try stage.put(pages);
    for (0..stage.below(3)) |_| try stage.put(1);
    stage.change(20);
    stage.processes[0].fails_in = 4 + @as(u32, @intCast(stage.below(3)));
    const failed = !stage.commit();
    stage.processes[0].fails_in = 0;
    if (!failed) return null;
    stage.undo();
    try stage.put(1);
    stage.close();
    if (stage.find()) |what| return what;
    return if (stage.image.?.dropped) "an image tells of a dropped commit, and none was" else null;
}

/// A record is in the file, though its commit failed, and somebody reads it; then comes the next commit.
fn foundMeanwhile(stage: *Stage) Outcome {
    try stage.make();
    try stage.put(pages);
    for (0..stage.below(3)) |_| try stage.put(1);
    stage.change(20);
    if (stage.random.boolean()) {
        stage.processes[0].fails_after = @sizeOf(format.Footer);
        defer stage.processes[0].fails_after = 0;
        if (stage.commit()) return error.NothingFailed;
    } else if (!stage.failsAt(.sync)) return error.NothingFailed;
    {
        const reader = try stage.read();
        defer stage.endReading(reader);
        stage.undo();
        try stage.put(1);
    }
    if (stage.random.boolean()) try stage.put(2);
    stage.cut();
    return stage.find();
}

/// A record whose sync failed is found by the next who opens the image: from then on it stays.
fn openedAgain(stage: *Stage) Outcome {
    try stage.make();
    try stage.put(pages);
    for (0..stage.below(3)) |_| try stage.put(1 + stage.below(3));
    stage.change(1 + stage.below(6));
    if (!stage.failsAt(.sync)) return error.NothingFailed;
    stage.close();
    if (stage.find()) |what| return what;
    stage.cut();
    return stage.find();
}

/// The first base is on the medium only in part, its second try stays.
fn firstAgain(stage: *Stage) Outcome {
    stage.machine.no_allocate = stage.random.boolean();
    try stage.make();
    stage.change(pages);
    if (!stage.failsAt(.sync)) return error.NothingFailed;
    if (stage.random.boolean()) stage.touch(stage.below(pages));
    if (!stage.commit()) return "a base is not made when it is tried again";
    stage.cut();
    return stage.find();
}

// ------------------------------------------------------------------ bases over bases

/// The directory may still name the base before when the next commit comes, and the power fails.
fn renamedBack(stage: *Stage) Outcome {
    stage.options.keep = 1 + @as(u32, @intCast(stage.below(2)));
    stage.options.base_pages_min = 2;
    stage.options.spare_len_min = 0;
    try stage.make();
    for (0..1 + stage.below(2)) |_| try stage.put(pages);
    stage.change(pages);
    if (!stage.failsAt(.sync_moved)) return error.NothingFailed;
    if (stage.random.boolean()) {
        stage.undo();
        try stage.put(1);
        stage.cut();
        return stage.find();
    }
    stage.change(pages);
    stage.crashes(.cut, null, 4 + stage.below(24));
    _ = stage.commit();
    stage.cut();
    return stage.find();
}

/// Who writes a base over the one before dies; somebody takes that file for the image, and what is whole of it.
fn takenForWhole(stage: *Stage) Outcome {
    stage.options.base_pages_min = 2;
    stage.options.spare_len_min = 0;
    try stage.make();
    for (0..2) |_| try stage.put(pages);
    stage.processes[0].short_one_in = 2;
    stage.change(pages);
    stage.crashes(.kill, .bytes, stage.below(16));
    _ = stage.commit();
    stage.processes[0].short_one_in = 0;
    stage.end();
    if (stage.machine.names.find("a-new") == null) return stage.find();
    stage.machine.move("a-new", "a");
    stage.options.recover = true;
    stage.acknowledged = 0;
    const image = Image.open(.{ .disk = stage.options.disk, .path = "a", .mode = .write, .recover = true, .background = false }) catch return null;
    image.close();
    return stage.find();
}

/// A file that could be opened only once is mapped through that opening: nobody sees that it is, and it is not
/// written over.
fn mappedByItself(stage: *Stage) Outcome {
    stage.options.base_pages_min = 2;
    stage.options.spare_len_min = 0;
    try stage.make();
    try stage.put(pages);
    stage.machine.again_one_in = 1;
    try stage.heap.restore(stage.image.?, null);
    stage.machine.again_one_in = 0;
    // It stays mapped.
    for (0..3) |_| try stage.put(pages);
    stage.machine.unmap(@intFromPtr(stage.heap.memory.ptr), stage_.len);
    return null;
}

// ------------------------------------------------------------------ a log's space

fn makeRoom(stage: *Stage) !void {
    stage.options.base_pages_min = 20;
    stage.options.room_len_min = 0;
    try stage.make();
    try stage.put(pages);
    try stage.put(18);
}

/// A log gets the space of the one before with its first record: the power fails over that, or just after.
fn roomCut(stage: *Stage) Outcome {
    try makeRoom(stage);
    try stage.put(pages);
    if (stage.random.boolean()) stage.crashes(.cut, .sync, 0);
    stage.change(1 + stage.below(18));
    const rooms = stage.machine.rooms;
    if (!stage.commit() and !stage.machine.power_lost) return error.CommitFailed;
    if (stage.machine.rooms == rooms) return error.NoRoom;
    stage.cut();
    return stage.find();
}

/// The log that is replaced is being read: its space stays as it is.
fn roomRead(stage: *Stage) Outcome {
    try makeRoom(stage);
    const reader = try stage.read();
    defer stage.endReading(reader);
    for ([_]usize{ pages, 18 }) |count| try stage.put(count);
    return null;
}

// ------------------------------------------------------------------ folds

const Folding = struct {
    stage: *Stage,
    folded: bool = false,

    fn fold(self: *Folding) !void {
        self.folded = try self.stage.image.?.foldNow();
    }

    fn commit(self: *Folding) !void {
        for (0..1 + self.stage.below(2)) |_| try self.stage.put(1 + self.stage.below(3));
    }
};

/// A commit comes while a fold is under way, and the power fails when both have ended.
fn lateRecords(stage: *Stage) Outcome {
    try stage.make();
    try stage.put(pages);
    for (0..3) |_| try stage.put(4);
    var context: Folding = .{ .stage = stage };
    var folding: stage_.Part(Folding, Folding.fold) = .init(0, &context);
    defer folding.deinit();
    var committing: stage_.Part(Folding, Folding.commit) = .init(0, &context);
    defer committing.deinit();
    stage.machine.switches_one_in = 1;
    folding.begin();
    folding.goTo(stage.below(24));
    committing.begin();
    stage_.finishBoth(stage.random, &folding.fiber, &committing.fiber);
    stage.machine.switches_one_in = 0;
    for ([_]?anyerror{ folding.failed, committing.failed }) |failed| if (failed) |err| return err;
    if (stage.random.boolean()) {
        stage.close();
        if (stage.find()) |what| return what;
    }
    stage.cut();
    return stage.find();
}

/// A heap that went back has no fold made: it could drop the commit that the heap stands on.
fn foldElsewhere(stage: *Stage) Outcome {
    try stage.make();
    try stage.put(pages);
    for (0..3) |_| try stage.put(4);
    try stage.heap.restore(stage.image.?, 2);
    stage.machine.unmap(@intFromPtr(stage.heap.memory.ptr), stage_.len);
    return if (try stage.image.?.foldNow()) "a fold is made while the heap stands on an earlier commit" else null;
}

// ------------------------------------------------------------------ who may write

/// Somebody else who wants to write the image, and knows nothing of it.
const Claimant = struct {
    stage: *Stage,
    mode: image_.Mode,
    image: ?*Image = null,

    fn open(self: *Claimant) !void {
        var options = self.stage.options;
        options.disk = self.stage.processes[1].disk();
        options.mode = self.mode;
        self.image = try Image.open(options);
    }
};

/// Somebody looks for a base and finds none; another makes one and goes before the first has claimed the path.
fn madeBetween(stage: *Stage) Outcome {
    var claimant: Claimant = .{ .stage = stage, .mode = .create };
    defer if (claimant.image) |image| image.close();
    var claiming: stage_.Part(Claimant, Claimant.open) = .init(1, &claimant);
    defer claiming.deinit();
    defer claiming.finish();
    stage.machine.switches_one_in = 1;
    claiming.begin();
    claiming.goTo(1 + stage.below(8));
    stage.machine.switches_one_in = 0;
    stage.make() catch return null;
    try stage.put(pages);
    stage.close();
    claiming.finish();
    if (claimant.image == null) return null;
    var options = stage.options;
    options.mode = .write;
    const second = Image.open(options) catch return null;
    second.close();
    return "an image has two writers";
}

/// Somebody moves the base of an image that is open, and another image is made in its place: the log, which is no
/// longer that of any base under its name, stays.
fn movedByHand(stage: *Stage) Outcome {
    try stage.make();
    try stage.put(pages);
    try stage.put(1);
    if (stage.random.boolean()) {
        stage.close();
        if (stage.find()) |what| return what;
    }
    const log = stage.log();
    stage.machine.move("a", "z");
    var options = stage.options;
    options.disk = stage.processes[1].disk();
    options.mode = .create;
    const second = try Image.open(options);
    defer second.close();
    var history: history_.History = .{};
    defer history.deinit();
    try second.join(&history, stage_.len, null);
    var commit = try second.begin();
    defer commit.end();
    var identity = stage.heap.identity;
    identity.uuid = @splat(9);
    try commit.prepare(.{ .memory = @intFromPtr(stage.heap.memory.ptr), .identity = identity, .used = &.{stage.heap.used} });
    _ = try commit.finish();
    for (stage.machine.names.entries.items) |*entry| if (entry.inode == log) return null;
    return "the log of an image whose base was moved is removed";
}

/// The writer was killed; a child that it had forked lives on, with all that was mapped.
fn childLives(stage: *Stage) Outcome {
    try stage.make();
    try stage.put(pages);
    stage.close();
    if (stage.find()) |what| return what;
    try stage.heap.restore(stage.image.?, null);
    stage.processes[0].dead = true;
    stage.machine.reap(&stage.processes[0], true);
    stage.close();
    stage.processes[0].dead = false;
    return stage.find();
}

// ------------------------------------------------------------------ two images of one heap

const Pair = struct {
    stage: *Stage,
    second: *Image,

    /// Both hold the same commit.
    fn init(stage: *Stage) !Pair {
        try stage.make();
        var options = stage.options;
        options.path = "b";
        const second = try Image.open(options);
        errdefer second.close();
        try stage.heap.join(second, stage.image);
        const self: Pair = .{ .stage = stage, .second = second };
        for (0..pages) |page| self.touch(page);
        _ = try self.commit(0);
        _ = try self.commit(1);
        return self;
    }

    fn images(self: *const Pair) [2]*Image {
        return .{ self.stage.image.?, self.second };
    }

    fn touch(self: *const Pair, page: usize) void {
        self.stage.value += 1;
        self.stage.heap.touch(&self.images(), page, self.stage.value);
    }

    fn commit(self: *const Pair, which: usize) !u64 {
        const both = self.images();
        return (try self.stage.heap.commit(both[which], both[1 - which])).epoch;
    }
};

/// A commit to one image fails: what it had in flight is no part of that image, and the other one's commit is
/// another than the image's last.
fn inFlight(stage: *Stage) Outcome {
    const pair: Pair = try .init(stage);
    defer pair.second.close();
    pair.touch(1);
    const last = try pair.commit(0);
    pair.touch(2);
    stage.processes[0].fails_in = 3 + @as(u32, @intCast(stage.below(2)));
    const failed = pair.commit(0);
    stage.processes[0].fails_in = 0;
    if (failed) |_| return null else |_| {}
    return if (try pair.commit(1) == last) "a changed heap is taken for a commit that the other image holds" else null;
}

/// What changes while one image is closed is told to the other only.
fn toldToOne(stage: *Stage) Outcome {
    var pair: Pair = try .init(stage);
    defer pair.second.close();
    const options = options: {
        var same = stage.options;
        same.path = "b";
        same.mode = .write;
        break :options same;
    };
    pair.second.close();
    stage.touch(3);
    pair.second = try Image.open(options);
    try stage.heap.join(pair.second, stage.image);
    _ = try pair.commit(1);
    return if (try stage.holds(pair.second)) null else "a commit lacks what changed while its image was closed";
}

/// An image goes on for a session and is folded: that it descends from the other one is known afterwards.
fn linesFolded(stage: *Stage) Outcome {
    {
        const pair: Pair = try .init(stage);
        pair.second.close();
        stage.tried.append(std.heap.smp_allocator, std.heap.smp_allocator.dupe(u8, stage.heap.memory) catch unreachable) catch unreachable;
        stage.acknowledged = 1;
        stage.close();
    }
    if (stage.find()) |what| return what;
    for (0..4) |_| try stage.put(3);
    if (!try stage.image.?.foldNow()) return error.NothingFolded;
    stage.close();
    if (stage.find()) |what| return what;
    var options = stage.options;
    options.path = "b";
    options.mode = .write;
    const second = try Image.open(options);
    defer second.close();
    return if (image_.relation(second, stage.image.?) == .ancestor) null else "an image is not known to descend from the one it went on from";
}

// ------------------------------------------------------------------ copies

/// A copy is what it is said to be, whatever the medium made of what was written; and it stays.
fn copied(stage: *Stage) Outcome {
    try stage.make();
    try stage.put(pages);
    for (0..2) |_| try stage.put(4);
    const flips = stage.random.boolean();
    stage.processes[1].flips_one_in = if (flips) 12 else 0;
    const made = image_.copy(.{ .disk = stage.processes[1].disk(), .from = "a", .to = "c" });
    stage.processes[1].flips_one_in = 0;
    _ = made catch |err| return if (stage.processes[1].flipped and err == error.IO) null else "a copy fails for no reason";
    const first = stage.options.path;
    stage.options.path = "c";
    defer stage.options.path = first;
    if (!flips) stage.cut();
    stage.close();
    if (stage.find()) |what| return what;
    // The seal comes after what was read back.
    if (stage.image.?.dropped and !flips) return "a copy tells of a dropped commit";
    stage.image.?.verify(try stage.image.?.point(null)) catch return "a copy is damaged";
    return null;
}

// ------------------------------------------------------------------ shared heaps

const Shared = struct {
    file: *SharedFile,
    history: history_.History = .{},
    epoch: u64 = 0,

    fn open(stage: *Stage, mode: shared_file.Mode, recover: bool) !Shared {
        var self: Shared = .{ .file = try SharedFile.open(.{ .disk = stage.processes[0].disk(), .path = "a", .mode = mode, .recover = recover }) };
        const file = self.file;
        errdefer self.close();
        if (file.state) |state| {
            try self.history.adopt(state.head, &file.lines, state.epoch_max);
            self.epoch = state.head.epoch;
        } else if (file.disk.truncate(file.file.file, shared_file.heap_offset + 2 * os.page_size) != null) return error.CannotGrow;
        return self;
    }

    fn close(self: *Shared) void {
        self.file.close();
        self.history.deinit();
    }

    fn flush(self: *Shared) !void {
        const uuid: [16]u8 = @splat(5);
        self.epoch += 1;
        const head = try self.history.next(uuid, self.epoch, 1);
        const state: shared_file.State = .{
            .head = head,
            .heap = .{ .uuid = uuid, .address = 1 << 40, .span = 1 << 30, .capacity = 2 * os.page_size, .max_size = 1 << 20, .used = os.page_size },
            .epoch_max = self.history.epoch_max,
            .mark = .in_use,
        };
        try self.file.write(state, self.history.lines.slice());
        try self.file.settle(state);
    }
};

/// A shared heap takes the place of an image, and the power fails over that: either is there, and whole.
fn sharedLeft(stage: *Stage) Outcome {
    try stage.make();
    try stage.put(pages);
    try stage.put(2);
    stage.close();
    {
        var shared: Shared = try .open(stage, .create, false);
        defer shared.close();
        stage.crashes(.cut, .sync_moved, 0);
        shared.flush() catch {};
    }
    stage.cut();
    if (Shared.open(stage, .write, true)) |opened| {
        var shared = opened;
        shared.close();
        return null;
    } else |err| if (err != error.NOT_AN_IMAGE) return "what a shared heap was to replace is gone";
    return stage.find();
}

/// The file's length was part of a sync that failed; the next one returns.
fn sharedLength(stage: *Stage) Outcome {
    {
        var shared: Shared = try .open(stage, .create, false);
        defer shared.close();
        stage.processes[0].fails_on = .sync;
        if (shared.flush()) |_| return error.NothingFailed else |_| {}
        try shared.flush();
    }
    stage.cut();
    var again = Shared.open(stage, .write, true) catch return "a flushed shared heap is refused";
    defer again.close();
    return if (again.epoch < 2) "a flushed shared heap is as it was before" else null;
}

/// The newest of two slots may never have been stored when the next program writes over the other, and the power
/// fails.
fn sharedSlot(stage: *Stage) Outcome {
    {
        var shared: Shared = try .open(stage, .create, false);
        defer shared.close();
        try shared.flush();
        stage.processes[0].fails_on = .sync;
        if (shared.flush()) |_| return error.NothingFailed else |_| {}
        stage.processes[0].dead = true;
    }
    stage.end();
    {
        var shared: Shared = try .open(stage, .write, true);
        defer shared.close();
        stage.crashes(.cut, .sync, stage.below(12));
        shared.flush() catch {};
    }
    stage.cut();
    var again = Shared.open(stage, .write, true) catch return "a flushed shared heap is refused";
    again.close();
    return null;
}

test "what failed or ended half-way is found again as it must be, and not without the rules" {
    if (!fiber.supported) return error.SkipZigTest;
    os.waits = fiber.yield;
    defer os.waits = null;
    defer plant.active = .none;
    var prng: std.Random.DefaultPrng = .init(std.testing.random_seed);
    const random = prng.random();
    for (&trials, 0..) |*trial, index| {
        errdefer std.debug.print("trial {d}, planted {t}, seed {d}\n", .{ index, plant.active, std.testing.random_seed });
        plant.active = .none;
        for (0..4) |_| try std.testing.expectEqual(null, try repeat(trial, random));
        for (trial.plants) |planted| {
            plant.active = planted;
            const noticed = for (0..30) |_| {
                if (repeat(trial, random) catch break true) |_| break true;
            } else false;
            try std.testing.expect(noticed);
        }
    }
}
