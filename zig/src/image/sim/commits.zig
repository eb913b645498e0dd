//! How a process of the simulated machine commits: at once, or by asking for a commit that a thread of
//! its own makes while it goes on, as `zig/src/heap/commit.zig` does for a heap.
//!
//! Invariant: the model knows of every attempt before the engine may write anything of it, and of every
//! acknowledgement when the process hears of it, in the order in which commits were asked for.

const std = @import("std");
const actor_ = @import("actor.zig");
const background = @import("../../heap/background.zig");
const errors = @import("../../errors.zig");
const fiber = @import("fiber.zig");
const image_ = @import("../image.zig");
const model_ = @import("model.zig");
const os = @import("../../os/os.zig");
const plant = @import("../../plant.zig");
const Actor = actor_.Actor;
const Stop = actor_.Stop;
const pages_max = model_.pages_max;
const page_size = os.page_size;
/// Of a job's ranges, which it frees itself.
const job_allocator = std.heap.page_allocator;

const asked_max = 5;

/// A commit that was asked for and not heard of yet.
pub const Asked = struct {
    id: u64,
    which: usize,
    attempt: usize,
    /// The heap was unchanged: its epoch then, and the attempt to store that in this image.
    unchanged: bool,
    epoch_before: u64,
    known: ?usize,
    failures: u32,
    /// How often others had begun or ended to use the image.
    events: u32,
};

/// The heap at one moment, as a commit takes it.
const Stock = struct {
    values: model_.Values,
    used: [1]image_.PageRange,
    hole_buffer: [pages_max]image_.PageRange = undefined,
    hole_count: usize = 0,

    fn take(self: *Actor) Stock {
        var stock: Stock = .{ .values = self.values, .used = .{.{ .first = 0, .count = self.pages() }} };
        for (0..self.pages()) |page| {
            if (!self.free[page]) continue;
            stock.values[page] = 0;
            const count = stock.hole_count;
            if (count > 0 and stock.hole_buffer[count - 1].end() == page) {
                stock.hole_buffer[count - 1].count += 1;
            } else {
                stock.hole_buffer[count] = .{ .first = page, .count = 1 };
                stock.hole_count += 1;
            }
        }
        self.identity.used = @intCast(std.mem.count(bool, self.free[0..self.pages()], &.{false}) * page_size);
        self.collect();
        return stock;
    }

    fn holes(self: *const Stock) []const image_.PageRange {
        return self.hole_buffer[0..self.hole_count];
    }
};

/// An attempt as the model has it.
const Tried = struct {
    state: usize,
    attempt: usize,
    unchanged: bool,
    epoch_before: u64,
    known: ?usize,
    first: u64,
};

/// Tells the model what is about to be tried, and which number it has to get: one of several, where
/// commits asked for before are under way.
fn announce(self: *Actor, which: usize, stock: *const Stock) Stop!Tried {
    const world = self.world;
    const model = &world.model;
    const place = self.path(which);
    const under_way = self.asked.items.len;
    const state = model.addState(.{ .values = stock.values, .heap = self.heap, .used = self.identity.used, .before = self.lineage });
    const unchanged = if (self.current) |index| under_way == 0 and
        std.meta.eql(stock.values, model.states.items[index].values) and
        model.states.items[index].used == self.identity.used else false;
    const epoch_before = self.history.epoch();
    const first = self.history.epoch_max + 1;
    if (first <= self.epoch_seen) {
        world.fail("epoch number {d} is given again", .{first});
        return error.Stop;
    }
    const parent = if (under_way == 0) self.standing[which] else null;
    // The other image ends with that commit: else who opens both would go on from what came after it.
    const other_last = if (self.images[1 - which] != null) self.path(1 - which).last else null;
    const known = if (unchanged and other_last != null and self.attemptOf(1 - which, other_last.?).state == self.current.?)
        model.attempt(place, .{ .state = self.current.?, .epoch = epoch_before, .parent = parent })
    else
        null;
    const tried = model.attempt(place, .{ .state = state, .epoch = first, .epoch_last = first + under_way, .parent = parent });
    self.say("commit to {s}, epoch {d}, attempt {d}{s}", .{ place.name, first, tried, if (unchanged) ", unchanged" else "" });
    return .{ .state = state, .attempt = tried, .unchanged = unchanged, .epoch_before = epoch_before, .known = known, .first = first };
}

/// What a commit that succeeded says of itself is what the model expects.
fn acknowledge(self: *Actor, which: usize, tried: Tried, last: u64, report: image_.CommitReport, promised: bool) Stop!void {
    const world = self.world;
    const place = self.path(which);
    const attempt = &place.attempts.items[tried.attempt];
    if (report.epoch >= tried.first and report.epoch <= last) {
        attempt.epoch = report.epoch;
        attempt.epoch_last = 0;
        attempt.parent = self.standing[which];
        if (promised) place.acknowledge(tried.attempt);
        place.passed(tried.attempt, world.keep);
        self.current = attempt.state;
        self.standing[which] = tried.attempt;
    } else if (report.epoch == tried.epoch_before and tried.unchanged) {
        // The image holds it already, or the other one does.
        const held = place.last != null and self.attemptOf(which, place.last.?).epoch == tried.epoch_before;
        const index = if (held) place.last.? else tried.known orelse {
            world.fail("a commit to {s} says that it is epoch {d}, which nobody has", .{ place.name, report.epoch });
            return error.Stop;
        };
        place.acknowledge(index);
        self.standing[which] = index;
    } else {
        world.fail("a commit to {s} says that it is epoch {d}, it should be {d}", .{ place.name, report.epoch, tried.first });
        return error.Stop;
    }
    self.epoch_seen = @max(self.epoch_seen, self.history.epoch_max);
    self.adopted[which] = self.adopted[which] or report.new_base;
    world.counts.commits += 1;
    self.say("acknowledged: epoch {d}{s}", .{ report.epoch, if (report.new_base) ", a new base" else "" });
}

// ------------------------------------------------------------------ at once

pub fn make(self: *Actor, which: usize) Stop!void {
    try drain(self);
    self.refused = false;
    try once(self, which);
    // Its user decides: to go on without that image, or with what it holds.
    if (self.refused) if (self.chance(50)) self.closeImage(which) else try self.restoreFrom(which, null);
}

fn once(self: *Actor, which: usize) Stop!void {
    const world = self.world;
    const place = self.path(which);
    const image = self.images[which].?;
    const other = self.images[1 - which];
    const events = place.events;
    // Records are to fail: there has to be a log first.
    if ((world.theme == .attempts or world.theme == .returns) and (image.generation == null or image.dead)) self.process.spared = self.chance(80);
    defer self.process.spared = false;
    self.process.failed = false;
    var attempt = image.begin() catch |err| return self.judge("a commit does not begin", err);
    defer attempt.end();
    try self.alive();

    const stock: Stock = .take(self);
    const guard = which != self.source or which == 1;
    // What was tried and failed may stand there all the same.
    self.maybe = guard and place.attempts.items.len > if (place.last) |last| last + 1 else 0;
    const refuse = guard and !self.adopted[which] and wouldLose(self, which);
    const tried = try announce(self, which, &stock);
    attempt.prepare(.{
        .memory = self.live,
        .identity = self.identity,
        .used = &stock.used,
        .holes = stock.holes(),
        .other = other,
        .guard = guard,
    }) catch |err| return failed(self, which, tried.state, refuse, events, err);
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
        return failed(self, which, tried.state, false, events, error.IO);
    }
    const report = attempt.finish() catch |err| return failed(self, which, tried.state, false, events, err);
    if (self.process.dead) return error.Stop;
    try acknowledge(self, which, tried, tried.first, report, true);
    if (report.epoch == tried.first) self.lineage = tried.state;
}

/// Whether a commit there would replace what this heap does not descend from.
fn wouldLose(self: *Actor, which: usize) bool {
    const head = self.images[which].?.head() orelse return false;
    const last = self.path(which).last orelse return false;
    // A failed base stands there: what the engine thinks of it is not known here.
    if (!self.stands(which, head, last)) return false;
    const current = self.current orelse return true;
    return switch (self.world.model.relate(self.attemptOf(which, last).state, current)) {
        .same, .ancestor => false,
        else => true,
    };
}

fn failed(self: *Actor, which: usize, state: usize, refuse: bool, events: u32, err: anyerror) Stop!void {
    self.say("commit to {s} failed: {t}", .{ self.path(which).name, err });
    self.epoch_seen = @max(self.epoch_seen, self.history.epoch_max);
    if (err == error.EXISTS and (refuse or self.maybe)) {
        self.refused = true;
        return;
    }
    if (!self.excused() and !contended(self, which, err, events)) {
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

/// Who claims the path while the first base comes to stand there holds -new for a moment.
fn contended(self: *Actor, which: usize, err: anyerror, events: u32) bool {
    const place = self.path(which);
    return err == error.BUSY and (place.contenders > 1 or place.events != events);
}

// ------------------------------------------------------------------ in the background

/// Asks for a commit; its outcome is heard of later. What needs an answer first is committed at once.
pub fn ask(self: *Actor, which: usize) Stop!void {
    const guard = which != self.source or which == 1;
    if (guard and !self.adopted[which]) return make(self, which);
    if (self.asked.items.len == asked_max) try drain(self);
    // With others under way nobody knows which number this one gets: it must be a state of its own.
    if (self.asked.items.len > 0) self.touch(self.below(self.pages()));
    self.process.failed = false;
    const image = self.images[which].?;
    const behind = &self.behind;
    behind.threadless = self.world.threadless;
    behind.begin(self.pages()) catch unreachable;
    // Warm memory is no matter here, and little of it is.
    behind.staging.warm = std.math.maxInt(u32);
    behind.staging_pages_max = self.world.staging_pages_max;
    const job = background.Job.create(image, 0) catch unreachable;
    var submitted = false;
    defer if (!submitted) {
        behind.abandon(job);
        job.destroy();
    };
    job.input.other = self.images[1 - which];
    job.input.guard = guard;
    // One that failed takes those behind it along, however late they were asked for.
    const behind_it = self.asked.items.len;
    const failures = if (behind_it > 0) self.asked.items[behind_it - 1].failures else self.process.failures;
    var tried: Tried = undefined;
    if (!try copyAside(self, which, job, &tried)) {
        behind.drain();
        try hear(self);
        if (!try copyAside(self, which, job, &tried)) {
            if (!try writeUnderHold(self, which, job, &tried)) return;
        }
    }
    self.lineage = tried.state;
    self.asked.append(std.heap.smp_allocator, .{
        .id = job.id,
        .which = which,
        .attempt = tried.attempt,
        .unchanged = tried.unchanged,
        .epoch_before = tried.epoch_before,
        .known = tried.known,
        .failures = failures,
        .events = self.path(which).events,
    }) catch unreachable;
    self.world.counts.asked += 1;
    submitted = true;
    wait(self);
    behind.submit(job);
}

/// The thread that makes commits goes on at any moment: those under way may end, or fail.
fn wait(self: *Actor) void {
    if (self.chance(30)) for (0..self.below(30)) |_| fiber.yield();
}

/// What changed is copied; false when there is no room for it.
fn copyAside(self: *Actor, which: usize, job: *background.Job, tried: *Tried) Stop!bool {
    const behind = &self.behind;
    const image = job.image.?;
    const alone = !behind.has(image);
    wait(self);
    const compare = self.chance(20);
    const whole = alone and (image.outlook(&self.identity, compare) catch |err| return self.judge("looking ahead fails for no reason", err)).whole;
    try self.alive();
    const capture = job.capture orelse job.newCapture() catch unreachable;
    const stock: Stock = .take(self);
    job.input.identity = self.identity;
    behind.kept.clear();
    for (stock.used) |range| behind.kept.setRange(range.first, range.count);
    for (stock.holes()) |range| behind.kept.unsetRange(range.first, range.count);
    image.choose(capture, .{
        .kept = &behind.kept,
        .wanted = &behind.wanted,
        .memory = self.live,
        .whole = whole,
        .alone = alone,
        .compare = compare,
        .other = job.input.other,
    }) catch unreachable;
    wait(self);
    if (capture.count > 0) {
        const part = behind.takePart(capture.count) orelse return false;
        behind.holdPart(capture, part) catch unreachable;
        capture.copy(self.live, behind.address(part));
    }
    tried.* = try announce(self, which, &stock);
    job.input.used = job_allocator.dupe(image_.PageRange, &stock.used) catch unreachable;
    job.input.holes = job_allocator.dupe(image_.PageRange, stock.holes()) catch unreachable;
    wait(self);
    image.taken(capture, job.input.holes);
    job.is_behind = !alone;
    job.input.capture = capture;
    return true;
}

/// False when it failed already.
fn writeUnderHold(self: *Actor, which: usize, job: *background.Job, tried: *Tried) Stop!bool {
    self.behind.abandon(job);
    const events = self.path(which).events;
    var attempt = job.image.?.begin() catch |err| return self.judge("a commit does not begin", err);
    errdefer attempt.end();
    try self.alive();
    const stock: Stock = .take(self);
    tried.* = try announce(self, which, &stock);
    var input = job.input;
    input.identity = self.identity;
    input.memory = self.live;
    input.used = &stock.used;
    input.holes = stock.holes();
    attempt.prepare(input) catch |err| {
        attempt.end();
        try failed(self, which, tried.state, false, events, err);
        return false;
    };
    self.world.counts.held += 1;
    job.input.identity = self.identity;
    job.prepared = attempt;
    return true;
}

/// Hears of what has ended, in the order in which it was asked for.
pub fn hear(self: *Actor) Stop!void {
    while (self.asked.items.len > 0) {
        const asked = self.asked.items[0];
        const outcome = background.fetch(asked.id) catch |err| {
            _ = self.asked.orderedRemove(0);
            try heardFailure(self, asked, err);
            continue;
        } orelse return;
        _ = self.asked.orderedRemove(0);
        const place = self.path(asked.which);
        const attempt = place.attempts.items[asked.attempt];
        if (self.process.dead) {
            if (!asked.unchanged or outcome.report.epoch != asked.epoch_before) {
                // It was made, though nobody heard of it: what was asked for after it stands on it.
                const made = &place.attempts.items[asked.attempt];
                made.epoch = outcome.report.epoch;
                made.epoch_last = 0;
                made.parent = self.standing[asked.which];
                self.standing[asked.which] = asked.attempt;
            }
            place.passed(asked.attempt, self.world.keep);
            continue;
        }
        // That rule broken on purpose keeps some of what it wrote for a later sync, and its user waits.
        const promised = !plant.is(.r1_next_before_sync) or !isAskedAgain(self, asked.which);
        const tried: Tried = .{
            .state = attempt.state,
            .attempt = asked.attempt,
            .unchanged = asked.unchanged,
            .epoch_before = asked.epoch_before,
            .known = asked.known,
            .first = attempt.epoch,
        };
        try acknowledge(self, asked.which, tried, @max(attempt.epoch, attempt.epoch_last), outcome.report, promised);
    }
}

fn isAskedAgain(self: *Actor, which: usize) bool {
    for (self.asked.items) |each| if (each.which == which) return true;
    return false;
}

fn heardFailure(self: *Actor, asked: Asked, err: anyerror) Stop!void {
    const place = self.path(asked.which);
    self.say("commit to {s}, attempt {d}, failed: {t}", .{ place.name, asked.attempt, err });
    self.epoch_seen = @max(self.epoch_seen, self.history.epoch_max);
    const reason = self.process.failures != asked.failures or self.excused() or contended(self, asked.which, err, asked.events);
    if (!reason) {
        self.complain("a commit in the background fails for no reason", err);
        return error.Stop;
    }
    self.unsure[asked.which] = true;
    place.attempts.items[asked.attempt].parent = self.standing[asked.which];
    place.passed(asked.attempt, self.world.keep);
    self.world.counts.failed += 1;
}

/// Waits for all that is under way.
pub fn drain(self: *Actor) Stop!void {
    if (self.asked.items.len == 0) return;
    self.behind.drain();
    try hear(self);
    std.debug.assert(self.asked.items.len == 0);
    try self.alive();
}

/// The session's end, whatever came before.
pub fn end(self: *Actor) void {
    self.behind.end();
    while (self.asked.items.len > 0) hear(self) catch {};
}
