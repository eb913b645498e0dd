//! What a process of the simulated machine does with images: it opens them, goes on from what they
//! hold, changes memory, commits, folds, goes back, closes; or it only reads. After each step it
//! tells the model, and the model judges what it found.
//!
//! Invariant: a call of the engine that fails without anything having failed below it, or without a
//! contender in the way, is a violation; so is anything found that the model does not allow.

const std = @import("std");
const errors = @import("../../errors.zig");
const image_ = @import("../image.zig");
const machine_ = @import("machine.zig");
const model_ = @import("model.zig");
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
const span_len = pages_max * page_size;
const gpa = std.heap.smp_allocator;

/// The session is over: the process died, something failed below it, or a violation was found.
const Stop = error{Stop};

const FoldTask = struct {
    fiber: Fiber,
    actor: *Actor = undefined,
    which: usize = 0,
    image: *Image = undefined,
    begun: bool = false,
    failures: u32 = 0,
    head: ?usize = null,

    fn run(context: *anyopaque) void {
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

pub const Actor = struct {
    world: *World,
    process: *machine_.Process,
    fiber: Fiber,
    folds: [2]FoldTask,
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

    pub fn init(world: *World, process: *machine_.Process) Actor {
        return .{
            .world = world,
            .process = process,
            .fiber = .init(),
            .folds = .{ .{ .fiber = .init() }, .{ .fiber = .init() } },
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
        for ([_]*Fiber{ &self.fiber, &self.folds[0].fiber, &self.folds[1].fiber }) |each| os.freePages(each.stack);
    }

    fn entry(context: *anyopaque) void {
        const self: *Actor = @ptrCast(@alignCast(context));
        self.prepare();
        if (self.chance(25)) {
            self.reader() catch {};
        } else {
            self.writer() catch {};
            // Who may not write may read.
            if (self.turned_away and self.chance(70)) {
                self.finish();
                self.prepare();
                self.reader() catch {};
            }
        }
        self.finish();
    }

    fn entryCalm(context: *anyopaque) void {
        const self: *Actor = @ptrCast(@alignCast(context));
        for (0..if (self.world.two) @as(usize, 2) else 1) |which| for (0..2) |_| {
            self.prepare();
            self.calm(which) catch {};
            self.finish();
        };
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
        self.touchSome();
        try self.commit(which);
        try self.readBack();
    }

    fn finish(self: *Actor) void {
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

    fn random(self: *Actor) std.Random {
        return self.world.machine.random();
    }

    fn chance(self: *Actor, percent: u32) bool {
        return self.random().uintLessThan(u32, 100) < percent;
    }

    fn below(self: *Actor, count: usize) usize {
        return self.random().uintLessThan(usize, count);
    }

    fn pages(self: *const Actor) usize {
        return self.world.pages;
    }

    fn path(self: *Actor, which: usize) *Path {
        return &self.world.model.paths[which];
    }

    fn say(self: *Actor, comptime format: []const u8, args: anytype) void {
        if (!self.world.machine.trace) return;
        std.debug.print("{d:>7} {d} -- ", .{ self.world.machine.steps, self.process.id });
        std.debug.print(format ++ "\n", args);
    }

    fn alive(self: *Actor) Stop!void {
        if (self.process.dead or self.world.failure != null) return error.Stop;
    }

    /// Whether a failure has a reason outside the engine.
    fn excused(self: *Actor) bool {
        return self.process.dead or self.process.failed or self.world.failure != null;
    }

    fn complain(self: *Actor, what: []const u8, err: anyerror) void {
        const record = errors.last();
        const message = if (record) |known| known.message[0..known.message_len] else "";
        self.world.fail("{s}: {s} ({s})", .{ what, @errorName(err), message });
    }

    /// An engine's call failed: a violation unless something below it did.
    fn judge(self: *Actor, what: []const u8, err: anyerror) Stop {
        if (!self.excused()) self.complain(what, err);
        return error.Stop;
    }

    fn optionsOf(self: *Actor, which: usize, mode: image_.Mode) image_.OpenOptions {
        const world = self.world;
        return .{
            .disk = self.process.disk(),
            .path = self.path(which).name,
            .mode = mode,
            .keep = world.keep,
            .background = false,
            .base_pages_min = world.base_pages_min,
            .sealed_len_min = world.sealed_len_min,
            .verify = self.chance(10),
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

    fn closeImage(self: *Actor, which: usize) void {
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

    // ---- reading back

    /// The values in a heap's memory; a violation when a page is a mixture.
    fn readMemory(self: *Actor, address: usize, into: *model_.Values) Stop!void {
        into.* = @splat(0);
        for (0..self.pages()) |page| {
            const bytes: *const [page_size]u8 = @ptrFromInt(address + page * page_size);
            into[page] = model_.read(bytes) orelse {
                self.world.fail("page {d} is a mixture of several", .{page});
                return error.Stop;
            };
        }
    }

    /// Builds `point` at the scratch address and finds which attempt it is, from `floor` on.
    fn identify(self: *Actor, which: usize, image: *Image, point: image_.Point, floor: usize) Stop!usize {
        const place = self.path(which);
        self.world.machine.unmap(self.scratch, span_len);
        const len = self.pages() * page_size;
        _ = image.build(point, self.scratch, len) catch |err| return self.judge("building a heap fails for no reason", err);
        var values: model_.Values = undefined;
        try self.readMemory(self.scratch, &values);
        const model = &self.world.model;
        if (place.findFrom(model, floor, point.epoch(), &values)) |found| {
            const state = &model.states.items[place.attempts.items[found].state];
            if (state.used != point.identity.used) {
                self.world.fail("epoch {d} of {s} has another commit's identity", .{ point.epoch(), place.name });
                return error.Stop;
            }
            self.world.counts.checked += 1;
            return found;
        }
        if (place.findFrom(model, 0, point.epoch(), &values)) |found| {
            self.world.fail("{s} opens at epoch {d} (attempt {d}), older than what was acknowledged, epoch {d} (attempt {d})", .{
                place.name, point.epoch(), found, place.attempts.items[floor].epoch, floor,
            });
        } else self.world.fail("{s} opens at epoch {d} with content that was never committed", .{ place.name, point.epoch() });
        return error.Stop;
    }

    /// Every epoch in the list is one that was committed; those within `keep` are there.
    fn checkEpochs(self: *Actor, which: usize, image: *Image, head: usize) Stop!void {
        const place = self.path(which);
        self.process.failed = false;
        const list = image.epochs(gpa) catch |err| return self.judge("listing epochs fails for no reason", err);
        defer gpa.free(list);
        if (list.len == 0) return;
        for (list[1..], list[0 .. list.len - 1]) |after, before| if (after.epoch <= before.epoch) {
            self.world.fail("epochs of {s} are out of order: {d}, then {d}", .{ place.name, before.epoch, after.epoch });
            return error.Stop;
        };
        if (image.mode != .read) {
            var at: ?usize = head;
            for (0..self.world.keep) |_| {
                const attempt = &place.attempts.items[at orelse break];
                if (attempt.gone) break;
                if (!listed(list, attempt.epoch)) {
                    if (self.world.machine.trace) for (place.attempts.items, 0..) |each, index| {
                        std.debug.print("attempt {d}: epoch {d}, parent {?d}, state {d}{s}{s}\n", .{ index, each.epoch, each.parent, each.state, if (each.acknowledged) ", acknowledged" else "", if (each.gone) ", gone" else "" });
                    };
                    self.world.fail("epoch {d} of {s}, within keep, is gone", .{ attempt.epoch, place.name });
                    return error.Stop;
                }
                at = attempt.parent;
            }
            for (place.attempts.items) |*attempt| {
                if (!listed(list, attempt.epoch)) attempt.gone = true;
            }
        }
        if (!self.chance(30)) return;
        for (list) |epoch| {
            const point = image.point(epoch.epoch) catch |err| return self.judge("an epoch that is listed cannot be found", err);
            _ = try self.identify(which, image, point, 0);
        }
    }

    fn listed(list: []const image_.Epoch, epoch: u64) bool {
        for (list) |each| if (each.epoch == epoch) return true;
        return false;
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
        const point = image.point(null) catch |err| return self.judge("a reader finds no commit", err);
        const found = try self.identify(which, image, point, floor orelse 0);
        // What was built stays mapped while others go on.
        std.mem.swap(usize, &self.live, &self.scratch);
        if (image.dropped and found == place.attempts.items.len - 1) {
            self.world.fail("{s} tells a reader of a commit dropped after epoch {d}, and there was none", .{ place.name, point.epoch() });
        }
        for (0..self.below(30)) |_| {
            var stat: @import("../disk.zig").Stat = .{};
            _ = self.process.disk().statAt(0, "a", &stat);
            try self.alive();
        }
        self.process.failed = false;
        if (self.chance(20)) image.verify(point) catch |err| return self.judge("verifying fails for no reason", err);
        try self.checkEpochs(which, image, found);
    }

    // ---- writers

    fn writer(self: *Actor) Stop!void {
        const choice = if (self.world.two) self.below(10) else 0;
        const wanted: [2]bool = if (choice < 4) .{ true, false } else if (choice == 4) .{ false, true } else .{ true, true };
        const fresh = self.chance(3);
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
        try self.takeHeap(found);
        const ops = 1 + self.below(30);
        for (0..ops) |_| {
            try self.alive();
            try self.step();
        }
    }

    /// What a writer finds is made durable by its opening: it counts as acknowledged.
    fn recognize(self: *Actor, which: usize, image: *Image, floor: usize) Stop!usize {
        try self.alive();
        self.process.failed = false;
        const point = image.point(null) catch |err| return self.judge("a writer finds no commit", err);
        const found = try self.identify(which, image, point, floor);
        const place = self.path(which);
        if (image.dropped and found == place.attempts.items.len - 1) {
            self.world.fail("{s} says that it dropped a commit after epoch {d}, and there was none", .{ place.name, point.epoch() });
            return error.Stop;
        }
        place.acknowledge(found);
        try self.checkEpochs(which, image, found);
        return found;
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

    fn attemptOf(self: *Actor, which: usize, index: usize) model_.Attempt {
        return self.path(which).attempts.items[index];
    }

    /// The heap becomes an epoch of an image, the last one unless told otherwise.
    fn restoreFrom(self: *Actor, which: usize, epoch: ?u64) Stop!void {
        const image = self.images[which].?;
        const place = self.path(which);
        self.process.failed = false;
        for (self.images) |slot| if (slot) |each| each.cancelFold();
        try self.alive();
        const point = image.point(epoch) catch |err| {
            if (err == error.NO_EPOCH and epoch != null) return;
            return self.judge("going back fails for no reason", err);
        };
        self.say("restore {s} epoch {d}", .{ place.name, point.epoch() });
        const floor: usize = if (epoch == null) place.last orelse 0 else 0;
        const found = try self.identify(which, image, point, floor);
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
        if (image.head().?.epoch != self.attemptOf(which, last).epoch) return;
        switch (self.world.model.relate(self.attemptOf(which, last).state, self.current orelse return)) {
            .same, .ancestor => self.standing[which] = last,
            else => {},
        }
    }

    fn step(self: *Actor) Stop!void {
        switch (self.below(24)) {
            0, 1, 2, 3 => try self.fold(),
            4, 5 => try self.goBack(),
            6 => self.freePages(),
            7, 8 => try self.swapImage(),
            9, 10 => try self.readBack(),
            // Others go on meanwhile.
            11 => for (0..self.below(40)) |_| fiber.yield(),
            else => {
                self.touchSome();
                const which = if (self.images[0] == null) 1 else if (self.images[1] == null) 0 else self.below(2);
                if (self.images[which] != null) try self.commit(which) else try self.swapImage();
            },
        }
    }

    fn touch(self: *Actor, page: usize) void {
        self.world.value += 1;
        self.values[page] = self.world.value;
        self.free[page] = false;
        self.written[page] = true;
        model_.fill(@ptrFromInt(self.live + page * page_size), self.world.value);
    }

    fn touchSome(self: *Actor) void {
        const kind = self.below(12);
        if (kind == 0) return;
        if (kind == 1) {
            const first = self.below(self.pages());
            const count = @min(16 + self.below(8), self.pages() - first);
            for (first..first + count) |page| self.touch(page);
            return;
        }
        const count = if (kind == 2) self.pages() * 3 / 4 else 1 + self.below(3);
        for (0..count) |_| self.touch(self.below(self.pages()));
    }

    /// Pages become free; some are given back to the system and zero from then on.
    fn freePages(self: *Actor) void {
        const first = self.below(self.pages());
        const count = @min(1 + self.below(6), self.pages() - first);
        const give_back = self.chance(40);
        for (first..first + count) |page| {
            self.free[page] = self.chance(80);
            if (!self.free[page] or !give_back) continue;
            self.values[page] = 0;
            model_.fill(@ptrFromInt(self.live + page * page_size), 0);
            self.written[page] = false;
            // As the heap does: an image that is not open now can only compare all of it later.
            for (self.images) |slot| if (slot) |image| image.pending.set(page) else {
                self.history.stray = true;
            };
        }
    }

    fn commit(self: *Actor, which: usize) Stop!void {
        self.refused = false;
        try self.commitOnce(which);
        // Its user decides: to go on without that image, or with what it holds.
        if (self.refused) if (self.chance(50)) self.closeImage(which) else try self.restoreFrom(which, null);
    }

    fn commitOnce(self: *Actor, which: usize) Stop!void {
        const world = self.world;
        const model = &world.model;
        const place = self.path(which);
        const image = self.images[which].?;
        const other = self.images[1 - which];
        self.process.failed = false;
        var attempt = image.begin() catch |err| return self.judge("a commit does not begin", err);
        defer attempt.end();
        try self.alive();

        var values = self.values;
        var holes: [pages_max]image_.PageRange = undefined;
        var hole_count: usize = 0;
        for (0..self.pages()) |page| {
            if (!self.free[page]) continue;
            values[page] = 0;
            if (hole_count > 0 and holes[hole_count - 1].end() == page) {
                holes[hole_count - 1].count += 1;
            } else {
                holes[hole_count] = .{ .first = page, .count = 1 };
                hole_count += 1;
            }
        }
        const used = [_]image_.PageRange{.{ .first = 0, .count = self.pages() }};
        self.identity.used = @intCast(std.mem.count(bool, self.free[0..self.pages()], &.{false}) * page_size);
        active = self;
        self.tracker.collect(self.live, self.pages() * page_size, &used, self.images);

        const state = model.addState(.{ .values = values, .heap = self.heap, .used = self.identity.used, .before = self.lineage });
        const unchanged = if (self.current) |index| std.meta.eql(values, model.states.items[index].values) and
            model.states.items[index].used == self.identity.used else false;
        const epoch_before = self.history.epoch();
        const predicted = self.history.epoch_max + 1;
        if (predicted <= self.epoch_seen) {
            world.fail("epoch number {d} is given again", .{predicted});
            return error.Stop;
        }
        const guard = which != self.source or which == 1;
        // What was tried and failed may stand there all the same.
        self.maybe = guard and place.attempts.items.len > if (place.last) |last| last + 1 else 0;
        const refuse = guard and !self.adopted[which] and self.wouldLose(which);
        const known = if (unchanged and other != null) model.attempt(place, .{ .state = self.current.?, .epoch = epoch_before, .parent = self.standing[which] }) else null;
        const tried = model.attempt(place, .{ .state = state, .epoch = predicted, .parent = self.standing[which] });
        self.say("commit to {s}, epoch {d}, attempt {d}{s}", .{ place.name, predicted, tried, if (unchanged) ", unchanged" else "" });
        attempt.prepare(.{
            .memory = self.live,
            .identity = self.identity,
            .used = &used,
            .holes = holes[0..hole_count],
            .other = other,
            .guard = guard,
        }) catch |err| return self.commitFailed(which, state, refuse, err);
        if (refuse and !self.unsure[which]) {
            world.fail("a backup to {s} replaces what this heap does not descend from", .{place.name});
            return error.Stop;
        }
        self.epoch_seen = @max(self.epoch_seen, self.history.epoch_max);
        // Threads run on before the sync.
        if (self.chance(30)) self.touch(self.below(self.pages()));
        if (self.chance(2)) {
            attempt.end();
            self.process.noteFailure();
            return self.commitFailed(which, state, false, error.IO);
        }
        const report = attempt.finish() catch |err| return self.commitFailed(which, state, false, err);
        if (self.process.dead) return error.Stop;
        if (report.epoch == predicted) {
            place.acknowledge(tried);
            place.passed(tried, world.keep);
            self.current = state;
            self.lineage = state;
            self.standing[which] = tried;
        } else if (report.epoch == epoch_before and unchanged) {
            // The image holds it already, or the other one does.
            const held = place.last != null and self.attemptOf(which, place.last.?).epoch == epoch_before;
            const index = if (held) place.last.? else known orelse {
                world.fail("a commit to {s} says that it is epoch {d}, which nobody has", .{ place.name, report.epoch });
                return error.Stop;
            };
            place.acknowledge(index);
            self.standing[which] = index;
        } else {
            world.fail("a commit to {s} says that it is epoch {d}, it should be {d}", .{ place.name, report.epoch, predicted });
            return error.Stop;
        }
        self.adopted[which] = self.adopted[which] or report.new_base;
        world.counts.commits += 1;
        self.say("acknowledged: epoch {d}{s}", .{ report.epoch, if (report.new_base) ", a new base" else "" });
    }

    /// Whether a commit there would replace what this heap does not descend from.
    fn wouldLose(self: *Actor, which: usize) bool {
        const head = self.images[which].?.head() orelse return false;
        const last = self.path(which).last orelse return false;
        // A failed base stands there: what the engine thinks of it is not known here.
        if (head.epoch != self.attemptOf(which, last).epoch) return false;
        const current = self.current orelse return true;
        return switch (self.world.model.relate(self.attemptOf(which, last).state, current)) {
            .same, .ancestor => false,
            else => true,
        };
    }

    fn commitFailed(self: *Actor, which: usize, state: usize, refuse: bool, err: anyerror) Stop!void {
        self.say("commit to {s} failed: {t}", .{ self.path(which).name, err });
        self.epoch_seen = @max(self.epoch_seen, self.history.epoch_max);
        if (err == error.EXISTS and (refuse or self.maybe)) {
            self.refused = true;
            return;
        }
        // Who claims the path while the first base comes to stand there holds -new for a moment.
        const contended = err == error.BUSY and self.path(which).contenders > 1;
        // That rule broken on purpose tells its user of a commit later.
        const later = plant.is(.r1_next_before_sync) and err == error.IO;
        if (!later and !self.excused() and !contended) {
            self.complain("a commit fails for no reason", err);
            return error.Stop;
        }
        // It may have taken the image's place, and memory goes on from it.
        self.unsure[which] = true;
        self.path(which).passed(self.path(which).attempts.items.len - 1, self.world.keep);
        self.lineage = state;
        self.world.counts.failed += 1;
        try self.alive();
    }

    fn fold(self: *Actor) Stop!void {
        const which = self.below(2);
        const image = self.images[which] orelse return;
        const task = &self.folds[which];
        if (!task.fiber.ended) return;
        task.actor = self;
        task.which = which;
        task.image = image;
        task.begun = false;
        task.head = self.path(which).last;
        task.failures = self.process.failures;
        self.process.failed = false;
        self.say("fold {s}", .{self.path(which).name});
        task.fiber.start(FoldTask.run, task);
        // Half of them run to their end at once.
        if (self.chance(50)) while (!task.fiber.ended) fiber.yield();
        if (task.fiber.ended and self.chance(50)) try self.readImage(which);
    }

    fn goBack(self: *Actor) Stop!void {
        const which = self.below(2);
        const image = self.images[which] orelse return;
        if (image.head() == null) return;
        self.process.failed = false;
        const list = image.epochs(gpa) catch |err| return self.judge("listing epochs fails for no reason", err);
        defer gpa.free(list);
        const last = list[list.len - 1].epoch;
        // Epochs of other branches can be reached too, while they last.
        const epoch = if (self.chance(70)) list[self.below(list.len)].epoch else 1 + self.below(@intCast(last));
        try self.restoreFrom(which, epoch);
    }

    /// Closes an image or opens it again, beside a heap that may have changed meanwhile.
    fn swapImage(self: *Actor) Stop!void {
        const which = if (self.world.two) self.below(2) else 0;
        if (self.images[which] != null) return self.closeImage(which);
        if (self.current == null) return;
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

    /// What the image would give now is what was committed last.
    fn readBack(self: *Actor) Stop!void {
        try self.readImage(self.below(2));
    }

    fn readImage(self: *Actor, which: usize) Stop!void {
        const image = self.images[which] orelse return;
        const place = self.path(which);
        if (image.head() == null) return;
        self.process.failed = false;
        const point = image.point(null) catch |err| return self.judge("an image has no last commit", err);
        const found = try self.identify(which, image, point, 0);
        const last = place.last orelse return;
        // A base whose directory sync failed may stand there.
        if (found < last) self.world.fail("{s} is at epoch {d} while it is open, acknowledged was {d}", .{ place.name, point.epoch(), self.attemptOf(which, last).epoch });
        if (found == last and self.chance(30)) try self.checkEpochs(which, image, last);
    }

    /// The kernel's answer to a scan: what was written, and from then on it is watched again. One that
    /// fails half-way has begun to watch what it did not tell.
    pub fn scan(start: usize, end: usize, context: *anyopaque, visit: *const fn (*anyopaque, pagemap.Range) void) bool {
        const self = active;
        const fails = self.chance(2);
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
