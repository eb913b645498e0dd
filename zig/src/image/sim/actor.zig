//! What a process of the simulated machine does with images: it opens them, goes on from what they
//! hold, changes memory, commits, folds, goes back, closes; or it only reads. After each step it
//! tells the model, and the model judges what it found.
//!
//! Invariant: a call of the engine that fails without anything having failed below it, or without a
//! contender in the way, is a violation; so is anything found that the model does not allow.

const std = @import("std");
const errors = @import("../../errors.zig");
const background = @import("../../heap/background.zig");
const commits = @import("commits.zig");
const image_ = @import("../image.zig");
const machine_ = @import("machine.zig");
const model_ = @import("model.zig");
const copying = @import("copying.zig");
const reading = @import("reading.zig");
const sharing = @import("sharing.zig");
const steps = @import("steps.zig");
const os = @import("../../os/os.zig");
const pagemap = @import("../../os/pagemap.zig");
const plant = @import("../../plant.zig");
const Fiber = @import("fiber.zig").Fiber;
const fiber = @import("fiber.zig");
const Tracker = @import("../../tracker/tracker.zig").Tracker;
const World = @import("world.zig").World;
const Image = image_.Image;
const Path = model_.Path;
const page_size = os.page_size;
const pages_max = model_.pages_max;
pub const span_len = pages_max * page_size;
const gpa = std.heap.smp_allocator;

/// The session is over: the process died, something failed below it, or a violation was found.
pub const Stop = error{Stop};

pub const FoldTask = struct {
    fiber: Fiber,
    actor: *Actor = undefined,
    which: usize = 0,
    image: *Image = undefined,
    begun: bool = false,
    failures: u32 = 0,
    head: ?usize = null,

    pub fn run(context: *anyopaque) void {
        const self: *FoldTask = @ptrCast(@alignCast(context));
        defer if (self.head) |head| self.actor.path(self.which).passed(head, self.actor.world.keep);
        const world = self.actor.world;
        self.begun = true;
        if (self.image.foldNow()) |made| {
            if (made) world.counts.folds += 1;
        } else |err| {
            // One that was cancelled, or met a claimant, says BUSY.
            if (err != error.BUSY and self.actor.process.failures == self.failures and !self.actor.excused()) self.actor.complain("a fold fails for no reason", err);
        }
    }
};

/// A thread of a process, for the engine's use.
pub const Thread = struct {
    fiber: Fiber,
    entry: *const fn (?*anyopaque) callconv(.c) ?*anyopaque = undefined,
    context: ?*anyopaque = null,
    joined: bool = true,

    pub fn run(context: *anyopaque) void {
        const self: *Thread = @ptrCast(@alignCast(context));
        _ = self.entry(self.context);
    }
};

/// Of commits in the background, of two pipes, and of two images' folds.
pub const threads_max = 11;
pub const fibers_max = 3 + threads_max;

pub const Actor = struct {
    world: *World,
    process: *machine_.Process,
    fiber: Fiber,
    folds: [2]FoldTask,
    threads: [threads_max]Thread,
    /// Where the heap is, and where another one is built.
    live: usize,
    scratch: usize,

    images: [2]?*Image = .{ null, null },
    history: image_.History = .{},
    identity: image_.Identity = .{},
    tracker: Tracker = undefined,
    values: model_.Values = undefined,
    /// Pages written since the tracker was last asked, and pages that are free.
    written: [pages_max]bool = undefined,
    free: [pages_max]bool = undefined,
    heap: u32 = 0,
    /// The attempt of each image that the heap stands on, and whether the heap was taken from it.
    standing: [2]?usize = .{ null, null },
    adopted: [2]bool = .{ false, false },
    /// A commit that failed may have replaced the image's base.
    unsure: [2]bool = .{ false, false },
    source: usize = 0,
    /// The state that the heap last was, acknowledged; and the last that was tried.
    current: ?usize = null,
    lineage: ?usize = null,
    epoch_seen: u64 = 0,
    refused: bool = false,
    maybe: bool = false,
    turned_away: bool = false,
    /// The last opening read every page.
    verifies: bool = false,
    /// Commits that a thread makes, and those not heard of yet.
    behind: background.Background = .{},
    asked: std.ArrayList(commits.Asked) = .empty,

    pub fn init(world: *World, process: *machine_.Process) Actor {
        return .{
            .world = world,
            .process = process,
            .fiber = .init(process.id),
            .folds = .{ .{ .fiber = .init(process.id) }, .{ .fiber = .init(process.id) } },
            .threads = threads: {
                var threads: [threads_max]Thread = undefined;
                for (&threads) |*thread| thread.* = .{ .fiber = .init(process.id) };
                break :threads threads;
            },
            .live = reserveHeap(),
            .scratch = reserveHeap(),
        };
    }

    fn reserveHeap() usize {
        const at = os.reserve(0, span_len) catch @panic("no room for a heap");
        os.commitAnonymous(at, span_len) catch @panic("no room for a heap");
        return at;
    }

    /// The next session of this process, whatever it is.
    pub fn begin(self: *Actor) void {
        self.fiber.start(entry, self);
    }

    /// The last session of a world: every image opens, takes a commit and is closed.
    pub fn beginCalm(self: *Actor) void {
        self.fiber.start(entryCalm, self);
    }

    pub fn deinit(self: *Actor) void {
        os.unmap(self.live, span_len);
        os.unmap(self.scratch, span_len);
        for (self.fibers()) |each| os.freePages(each.stack);
        self.asked.deinit(gpa);
    }

    pub fn fibers(self: *Actor) [fibers_max]*Fiber {
        var all: [fibers_max]*Fiber = undefined;
        all[0] = &self.fiber;
        for (&self.folds, all[1..3]) |*task, *each| each.* = &task.fiber;
        for (&self.threads, all[3..]) |*thread, *each| each.* = &thread.fiber;
        return all;
    }

    pub fn hasEnded(self: *Actor) bool {
        for (self.fibers()) |each| if (!each.ended) return false;
        return true;
    }

    fn entry(context: *anyopaque) void {
        const self: *Actor = @ptrCast(@alignCast(context));
        self.prepare();
        // Where commits are to fail, what comes before them mostly does not.
        self.process.spared = self.world.spares and self.chance(90);
        defer self.process.spared = false;
        const others_read = self.world.theme == .attempts or self.world.theme == .scarce;
        const reads: u32 = if (others_read and self.process.id > 0) 95 else 25;
        if (self.chance(self.world.shared_percent)) {
            sharing.run(self) catch {};
        } else if (self.chance(reads)) {
            self.reader() catch self.wait();
        } else {
            self.writer() catch self.wait();
            // Who may not write may read.
            if (self.turned_away and self.chance(70)) {
                self.finish();
                self.prepare();
                self.reader() catch {};
            }
        }
        self.finish();
    }

    /// Who got nowhere leaves the others time.
    fn wait(self: *Actor) void {
        if (self.world.theme == .claims) return;
        for (0..self.below(40)) |_| {
            if (self.process.dead) return;
            fiber.yield();
        }
    }

    fn entryCalm(context: *anyopaque) void {
        const self: *Actor = @ptrCast(@alignCast(context));
        for (0..if (self.world.two) @as(usize, 2) else 1) |which| for (0..2) |_| {
            self.prepare();
            self.calm(which) catch {};
            self.finish();
            if (self.world.copied) copying.calm(self, which) catch {};
        };
        if (self.world.shared_percent > 0) sharing.calm(self) catch {};
    }

    fn calm(self: *Actor, which: usize) Stop!void {
        var found: [2]?usize = .{ null, null };
        const floor = self.path(which).last;
        if (self.openImage(which, .write)) |image| {
            found[which] = try self.recognize(which, image, floor orelse 0);
        } else |err| {
            if (err != error.NOT_FOUND or floor != null) return self.judge("an image is refused in the end", err);
            _ = self.openImage(which, .create) catch |second| return self.judge("a claim is refused in the end", second);
        }
        try self.takeHeap(found);
        steps.touchSome(self);
        try commits.make(self, which);
        try reading.readBack(self);
    }

    fn finish(self: *Actor) void {
        commits.end(self);
        for (0..2) |which| self.closeImage(which);
        self.history.deinit();
        if (self.chance(50)) self.world.machine.unmap(self.live, span_len);
    }

    fn prepare(self: *Actor) void {
        self.world.counts.sessions += 1;
        self.images = .{ null, null };
        self.history = .{};
        self.tracker = .{ .kind = .uffd, .pagemap = .{ .method = .scan }, .start = self.live, .len = span_len };
        self.standing = .{ null, null };
        self.adopted = .{ false, false };
        self.unsure = .{ false, false };
        self.current = null;
        self.lineage = null;
        self.source = 0;
        self.heap = 0;
        self.epoch_seen = 0;
        self.turned_away = false;
    }

    // ---- small things

    pub fn random(self: *Actor) std.Random {
        return self.world.machine.random();
    }

    pub fn chance(self: *Actor, percent: u32) bool {
        return self.random().uintLessThan(u32, 100) < percent;
    }

    pub fn below(self: *Actor, count: usize) usize {
        return self.random().uintLessThan(usize, count);
    }

    pub fn pages(self: *const Actor) usize {
        return self.world.pages;
    }

    pub fn path(self: *Actor, which: usize) *Path {
        return &self.world.model.paths[which];
    }

    pub fn say(self: *Actor, comptime format: []const u8, args: anytype) void {
        if (!self.world.machine.trace) return;
        std.debug.print("{d:>7} {d} -- ", .{ self.world.machine.steps, self.process.id });
        std.debug.print(format ++ "\n", args);
    }

    pub fn alive(self: *Actor) Stop!void {
        if (self.process.dead or self.world.failure != null) return error.Stop;
    }

    /// Whether a failure has a reason outside the engine.
    pub fn excused(self: *Actor) bool {
        return self.process.dead or self.process.failed or self.world.failure != null;
    }

    pub fn complain(self: *Actor, what: []const u8, err: anyerror) void {
        const record = errors.last();
        const message = if (record) |known| known.message[0..known.message_len] else "";
        self.world.fail("{s}: {s} ({s})", .{ what, @errorName(err), message });
    }

    /// An engine's call failed: a violation unless something below it did.
    pub fn judge(self: *Actor, what: []const u8, err: anyerror) Stop {
        if (!self.excused()) self.complain(what, err);
        return error.Stop;
    }

    fn optionsOf(self: *Actor, which: usize, mode: image_.Mode) image_.OpenOptions {
        const world = self.world;
        self.verifies = self.chance(10);
        return .{
            .disk = self.process.disk(),
            .path = self.path(which).name,
            .mode = mode,
            .keep = world.keep,
            .background = world.idle,
            .log_limit = world.log_limit,
            .idle_ns = world.idle_ns,
            .base_pages_min = world.base_pages_min,
            .sealed_len_min = world.sealed_len_min,
            .spare_len_min = world.spare_len_min,
            .room_len_min = world.room_len_min,
            .pipe = .{ .pages_min = world.piped_pages_min, .buffer_pages = 24, .record_pages_min = world.piped_pages_min },
            .verify = self.verifies,
        };
    }

    // ---- opening and closing

    fn openImage(self: *Actor, which: usize, mode: image_.Mode) errors.Error!*Image {
        const place = self.path(which);
        if (mode == .read) {
            self.process.failed = false;
            return Image.open(self.optionsOf(which, mode));
        }
        const others_before = place.contenders > 0;
        const events = place.events;
        place.contenders += 1;
        place.events += 1;
        self.process.failed = false;
        const image = Image.open(self.optionsOf(which, mode)) catch |err| {
            place.contenders -= 1;
            place.events += 1;
            self.say("open {s} {t}: {t}", .{ place.name, mode, err });
            // One that died keeps its locks until all of it has ended.
            const contended = others_before or place.events != events + 2 or self.world.anyDead();
            if ((err == error.BUSY or err == error.ALREADY_OPEN) and contended) {
                self.process.noteFailure();
                self.turned_away = true;
            }
            return err;
        };
        self.say("open {s} {t}", .{ place.name, mode });
        if (self.process.dead) {
            place.contenders -= 1;
            image.close();
            return error.IO;
        }
        if (place.writer) |other| if (!self.world.processes[other].dead) {
            self.world.fail("{s} has two writers", .{place.name});
        };
        place.writer = self.process.id;
        self.images[which] = image;
        return image;
    }

    pub fn closeImage(self: *Actor, which: usize) void {
        const image = self.images[which] orelse return;
        const place = self.path(which);
        const writes = image.mode != .read;
        if (!self.process.dead) self.say("close {s}", .{place.name});
        // Somebody else may have the lock before close() returns.
        if (writes and place.writer == self.process.id) place.writer = null;
        const failures = self.process.failures;
        const claimed = image.mode == .create and image.head() == null;
        self.images[which] = null;
        const task = &self.folds[which];
        while (!task.fiber.ended and !task.begun) fiber.yield();
        self.world.counts.idle_folds += if (self.world.idle) image.fold.done else 0;
        image.close();
        if (writes) {
            place.contenders -= 1;
            place.events += 1;
        }
        if (claimed and !self.process.dead and self.process.failures == failures and place.contenders == 0) {
            var name: [8]u8 = undefined;
            const new = std.fmt.bufPrint(&name, "{s}-new", .{place.name}) catch unreachable;
            if (self.world.machine.names.find(new) != null) self.world.fail("a claim that was never used is left behind", .{});
        }
        std.debug.assert(self.folds[which].fiber.ended);
    }

    // ---- readers

    fn reader(self: *Actor) Stop!void {
        const which = if (self.world.two) self.below(2) else 0;
        const place = self.path(which);
        const floor = place.last;
        const image = self.openImage(which, .read) catch |err| {
            if (err == error.NOT_FOUND and floor == null) return error.Stop;
            return self.judge("a reader is refused for no reason", err);
        };
        self.images[which] = image;
        try self.alive();
        self.world.counts.readers += 1;
        self.process.failed = false;
        if (image.dropped and !self.verifies) if (place.writer) |other| if (!self.world.processes[other].dead) {
            self.world.fail("a reader of {s} tells of a dropped commit beside its writer", .{place.name});
            return error.Stop;
        };
        const last = place.last;
        const point = image.point(null) catch |err| return self.judge("a reader finds no commit", err);
        const found = try reading.identify(self, which, image, point, floor orelse 0);
        if (image.dropped) if (last) |index| if (index > found) {
            self.world.fail("a reader of {s} tells of a commit dropped after attempt {d}, and {d} was acknowledged", .{ place.name, found, index });
            return error.Stop;
        };
        // What was built stays mapped while others go on.
        std.mem.swap(usize, &self.live, &self.scratch);
        try self.checkDropped(which, image, found);
        for (0..self.below(30)) |_| {
            var stat: @import("../disk.zig").Stat = .{};
            _ = self.process.disk().statAt(0, "a", &stat);
            try self.alive();
        }
        self.process.failed = false;
        if (self.chance(20)) image.verify(point) catch |err| return self.judge("verifying fails for no reason", err);
        try reading.checkEpochs(self, which, image, found);
        if (self.chance(self.world.copies_percent * 4)) try self.copyImage(which);
    }

    pub fn copyImage(self: *Actor, which: usize) Stop!void {
        self.world.copied = true;
        if (self.chance(20)) {
            _ = try copying.look(self, which);
        } else try copying.make(self, which, true);
    }

    // ---- writers

    fn writer(self: *Actor) Stop!void {
        const choice = if (self.world.two) self.below(10) else 0;
        const wanted: [2]bool = if (choice < 4) .{ true, false } else if (choice == 4) .{ false, true } else .{ true, true };
        const fresh = self.chance(if (self.world.theme == .first) 40 else 3);
        var found: [2]?usize = .{ null, null };
        for (0..2) |which| {
            if (!wanted[which]) continue;
            const place = self.path(which);
            const floor = place.last;
            if (!fresh) {
                if (self.openImage(which, .write)) |image| {
                    found[which] = try self.recognize(which, image, floor orelse 0);
                    continue;
                } else |err| if (err != error.NOT_FOUND or floor != null) return self.judge("a writer is refused for no reason", err);
            }
            _ = self.openImage(which, .create) catch |err| return self.judge("a claim is refused for no reason", err);
            try self.alive();
        }
        // A claim that comes to nothing leaves the path as it was.
        if (self.world.theme == .claims and found[0] == null and self.chance(50)) return;
        try self.takeHeap(found);
        self.process.spared = false;
        const ops = 1 + self.below(if (self.world.brief) 3 else switch (self.world.theme) {
            .renames, .attempts, .returns, .scarce => 60,
            .first => 10,
            else => 30,
        });
        for (0..ops) |_| {
            try self.alive();
            try steps.step(self);
        }
    }

    /// What a writer finds is made durable by its opening: it counts as acknowledged.
    fn recognize(self: *Actor, which: usize, image: *Image, floor: usize) Stop!usize {
        try self.alive();
        self.process.failed = false;
        const point = image.point(null) catch |err| return self.judge("a writer finds no commit", err);
        const found = try reading.identify(self, which, image, point, floor);
        const place = self.path(which);
        try self.checkDropped(which, image, found);
        place.acknowledge(found);
        if (self.world.idle) place.passed(found, self.world.keep);
        try reading.checkEpochs(self, which, image, found);
        return found;
    }

    /// An image tells of a dropped commit only where one was begun, or where the medium brought back
    /// what it had once refused to store.
    fn checkDropped(self: *Actor, which: usize, image: *Image, found: usize) Stop!void {
        const place = self.path(which);
        if (!image.dropped or found != place.attempts.items.len - 1) return;
        const generation = image.generation.?;
        if (self.world.machine.names.find(generation.log_name.slice())) |log| {
            const left = log.behind(generation.log_end);
            const haunted = left.haunted or (image.mode != .read and log.cut_haunted);
            const other = left.other or (image.mode != .read and log.cut_other);
            if (haunted and !other) return;
        }
        self.world.fail("{s} tells of a commit dropped after epoch {d}, and there was none", .{ place.name, self.attemptOf(which, found).epoch });
        return error.Stop;
    }

    /// Goes on from the newest image, as Heap.open does, or makes a new heap.
    fn takeHeap(self: *Actor, found: [2]?usize) Stop!void {
        const model = &self.world.model;
        self.written = @splat(false);
        self.free = @splat(false);
        var source: ?usize = if (found[0] != null) 0 else if (found[1] != null) 1 else null;
        if (found[0] != null and found[1] != null) {
            const expected = model.relate(self.attemptOf(0, found[0].?).state, self.attemptOf(1, found[1].?).state);
            const told = image_.relation(self.images[0].?, self.images[1].?);
            if (!std.mem.eql(u8, @tagName(expected), @tagName(told))) {
                self.world.fail("a (epoch {d}) to b (epoch {d}) is {t}, and the engine says {t}", .{
                    self.attemptOf(0, found[0].?).epoch, self.attemptOf(1, found[1].?).epoch, expected, told,
                });
                return error.Stop;
            }
            if (told == .ancestor or ((told == .diverged or told == .foreign) and self.chance(50))) source = 1;
            if (told == .foreign) self.closeImage(1 - source.?);
        }
        if (source) |which| {
            self.source = which;
            try self.restoreFrom(which, null);
            return;
        }
        self.source = if (self.images[0] != null) 0 else 1;
        self.world.heaps += 1;
        self.heap = self.world.heaps;
        self.values = @splat(0);
        os.commitAnonymous(self.live, span_len) catch unreachable;
        self.world.machine.unmap(self.live, span_len);
        const len = self.pages() * page_size;
        self.identity = .{ .address = 0x4123_0000_0000, .span = len, .capacity = len, .max_size = len };
        self.identity.uuid = @bitCast(@as(u128, self.heap) << 64 | 0x9abc_def0);
        for (0..2) |which| {
            const image = self.images[which] orelse continue;
            image.join(&self.history, len, if (which == 1) self.images[0] else null) catch |err| return self.judge("joining a new heap fails", err);
        }
    }

    /// Whether an image's head is that attempt. Another heap's may have its number.
    pub fn stands(self: *Actor, which: usize, head: image_.Head, attempt: usize) bool {
        const known = self.attemptOf(which, attempt);
        const heap: u32 = @truncate(@as(u128, @bitCast(head.heap)) >> 64);
        return head.epoch == known.epoch and heap == self.world.model.states.items[known.state].heap;
    }

    pub fn attemptOf(self: *Actor, which: usize, index: usize) model_.Attempt {
        return self.path(which).attempts.items[index];
    }

    /// The heap becomes an epoch of an image, the last one unless told otherwise.
    pub fn restoreFrom(self: *Actor, which: usize, epoch: ?u64) Stop!void {
        const image = self.images[which].?;
        const place = self.path(which);
        try commits.drain(self);
        self.process.failed = false;
        for (self.images) |slot| if (slot) |each| each.cancelFold();
        try self.alive();
        const point = image.point(epoch) catch |err| {
            if (err == error.NO_EPOCH and epoch != null) return;
            return self.judge("going back fails for no reason", err);
        };
        self.say("restore {s} epoch {d}", .{ place.name, point.epoch() });
        const floor: usize = if (epoch == null) place.last orelse 0 else 0;
        const found = try reading.identify(self, which, image, point, floor);
        std.mem.swap(usize, &self.live, &self.scratch);
        self.tracker.start = self.live;
        self.written = @splat(false);
        self.free = @splat(false);
        const state = &self.world.model.states.items[self.attemptOf(which, found).state];
        self.values = state.values;
        // Another heap has numbers of its own.
        if (self.heap != state.heap) self.epoch_seen = 0;
        self.heap = state.heap;
        self.identity = point.identity;
        image.adopt(&self.history, point) catch |err| return self.judge("adopting fails for no reason", err);
        self.current = self.attemptOf(which, found).state;
        self.lineage = self.current;
        self.standing[which] = found;
        self.adopted[which] = true;
        self.unsure[which] = false;
        self.source = which;
        self.epoch_seen = @max(self.epoch_seen, self.history.epoch_max);
        const other = 1 - which;
        if (self.images[other]) |beside| try self.join(other, beside, image);
    }

    fn join(self: *Actor, which: usize, image: *Image, source: ?*Image) Stop!void {
        image.join(&self.history, self.identity.span, source) catch |err| return self.judge("joining fails for no reason", err);
        self.epoch_seen = @max(self.epoch_seen, self.history.epoch_max);
        self.standing[which] = null;
        self.adopted[which] = false;
        self.unsure[which] = false;
        if (image.head() == null) return;
        const last = self.path(which).last orelse return;
        if (!self.stands(which, image.head().?, last)) return;
        switch (self.world.model.relate(self.attemptOf(which, last).state, self.current orelse return)) {
            .same, .ancestor => self.standing[which] = last,
            else => {},
        }
    }

    /// The tracker tells all images that are open.
    pub fn collect(self: *Actor) void {
        const used = [_]image_.PageRange{.{ .first = 0, .count = self.pages() }};
        active = self;
        self.tracker.collect(self.live, self.pages() * page_size, &used, self.images);
    }

    pub fn touch(self: *Actor, page: usize) void {
        self.world.value += 1;
        self.values[page] = self.world.value;
        self.free[page] = false;
        self.written[page] = true;
        model_.fill(@ptrFromInt(self.live + page * page_size), self.world.value);
    }

    pub fn openAgain(self: *Actor, which: usize) Stop!void {
        if (self.current == null) return;
        self.process.spared = self.world.spares and self.chance(90);
        defer self.process.spared = false;
        const place = self.path(which);
        const floor = place.last;
        const image = self.openImage(which, .write) catch |err| {
            if (err != error.NOT_FOUND or floor != null) {
                if (!self.excused()) self.complain("a backup cannot be opened", err);
                return;
            }
            const made = self.openImage(which, .create) catch |second| {
                if (!self.excused()) self.complain("a backup cannot be made", second);
                return;
            };
            return self.join(which, made, self.images[1 - which]);
        };
        _ = try self.recognize(which, image, floor orelse 0);
        try self.join(which, image, self.images[1 - which]);
    }

    /// The kernel's answer to a scan: what was written, and from then on it is watched again. One that
    /// fails half-way has begun to watch what it did not tell.
    pub fn scan(start: usize, end: usize, context: *anyopaque, visit: *const fn (*anyopaque, pagemap.Range) void) bool {
        const self = active;
        const fails = self.chance(if (self.world.theme == .pair) 8 else 2);
        const told = if (fails) self.below(self.pages()) else self.pages();
        for (0..self.pages()) |page| {
            const at = self.live + page * page_size;
            if (at < start or at >= end or !self.written[page]) continue;
            self.written[page] = false;
            if (page < told) visit(context, .{ .start = at, .end = at + page_size });
        }
        return !fails;
    }
};

var active: *Actor = undefined;
