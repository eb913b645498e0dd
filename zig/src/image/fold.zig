//! Folding: a new base some steps back from the last commit, so that the log can start over. It runs
//! on a thread of its own while commits go on; only its last step holds them up. A log that is long,
//! though not too long, is folded when no commit has come for a while.
//!
//! Invariant: a fold adds nothing and loses nothing within `keep`; one that fails or is cancelled
//! leaves a `-new` and a log that nobody names.

const std = @import("std");
const errors = @import("../errors.zig");
const commit_ = @import("commit.zig");
const disk_ = @import("disk.zig");
const format = @import("format.zig");
const generation_ = @import("generation.zig");
const history_ = @import("history.zig");
const os = @import("../os/os.zig");
const plant = @import("../plant.zig");
const scratch_ = @import("scratch.zig");
const successor_ = @import("successor.zig");
const Generation = generation_.Generation;
const Image = @import("image.zig").Image;
const Successor = successor_.Successor;

const log_limit_min = 64 << 20;
const idle_limit_min = 4 << 20;

pub const Fold = struct {
    thread: ?os.Thread = null,
    cancelled: std.atomic.Value(bool) = .init(false),
    running: std.atomic.Value(bool) = .init(false),
    /// When the thread is to fold; a commit puts it off.
    due_ns: std.atomic.Value(u64) = .init(0),
    /// Rung when the thread is to look again before that.
    bell: std.atomic.Value(u32) = .init(0),
    done: u64 = 0,
    failures: u64 = 0,
    scratch: scratch_.Scratch = .{},

    /// Stops a running fold and waits for its end, whether the caller holds the image's mutex or not.
    pub fn cancel(self: *Fold, disk: disk_.Disk) void {
        self.cancelled.store(true, .release);
        self.ring();
        if (plant.is(.idle_close_unwaited)) return;
        if (self.thread) |thread| thread.join();
        self.thread = null;
        // One that `foldNow` runs, elsewhere.
        while (self.running.load(.acquire)) disk.pause(100_000);
        self.cancelled.store(false, .release);
        self.scratch.deinit();
    }

    fn ring(self: *Fold) void {
        _ = self.bell.fetchAdd(1, .release);
        os.futexWake(&self.bell, 1);
    }

    /// Until it is time: false when the fold was cancelled meanwhile.
    fn wait(self: *Fold) bool {
        while (!self.cancelled.load(.acquire)) {
            const rung = self.bell.load(.acquire);
            const due = self.due_ns.load(.acquire);
            const now = os.nowNs();
            if (due <= now) return true;
            if (!self.cancelled.load(.acquire)) os.futexWaitFor(&self.bell, rung, due - now);
        }
        return false;
    }

    /// The thread does not exist in a forked child.
    pub fn afterFork(self: *Fold, disk: disk_.Disk) void {
        _ = disk;
        self.thread = null;
    }
};

/// After a commit: starts a fold when the log is too long and most of it would go, or sees to it that
/// there is one when no other commit follows soon. Called with the mutex held.
pub fn consider(image: *Image) void {
    if (!image.background) return;
    if (isDue(image, limitOf(image))) return schedule(image, 0);
    considerIdle(image);
}

/// The same for a log that was found so: whoever opens a heap has other things to do first.
pub fn considerIdle(image: *Image) void {
    if (!image.background or image.generation == null or !isDue(image, idleLimitOf(image))) return;
    schedule(image, os.nowNs() + image.idle_ns);
}

fn schedule(image: *Image, due_ns: u64) void {
    const fold = &image.fold;
    fold.due_ns.store(due_ns, .release);
    if (fold.running.load(.acquire)) {
        if (due_ns == 0) fold.ring();
        return;
    }
    if (fold.thread) |thread| thread.join();
    fold.running.store(true, .release);
    fold.thread = os.Thread.spawn(entry, image) catch null;
    if (fold.thread == null) fold.running.store(false, .release);
}

fn entry(context: ?*anyopaque) callconv(.c) ?*anyopaque {
    const image: *Image = @ptrCast(@alignCast(context.?));
    const fold = &image.fold;
    while (fold.wait()) {
        const due = fold.due_ns.load(.acquire);
        if (!(foldDue(image) catch false)) fold.failures += 1;
        // The mutex: whoever commits finds this thread either running or gone.
        if (!lockUnlessCancelled(image)) break;
        defer image.mutex.unlock();
        if (fold.due_ns.load(.acquire) != due) continue;
        fold.running.store(false, .release);
        return null;
    }
    fold.running.store(false, .release);
    return null;
}

/// False when the fold failed; a log that was replaced meanwhile needs none.
fn foldDue(image: *Image) errors.Error!bool {
    if (!lockUnlessCancelled(image)) return false;
    const wanted = isDue(image, idleLimitOf(image));
    image.mutex.unlock();
    return !wanted or try run(image);
}

fn limitOf(image: *const Image) u64 {
    if (image.log_limit > 0) return image.log_limit;
    const generation = image.generation orelse return 0;
    return @max(log_limit_min, generation.base_stat.size / 2);
}

/// A quarter of the base: what an idle program writes stays within four times what it committed.
fn idleLimitOf(image: *const Image) u64 {
    if (image.log_limit > 0) return image.log_limit / 2;
    const generation = image.generation orelse return 0;
    return @min(limitOf(image), @max(idle_limit_min, generation.base_stat.size / 4));
}

fn isDue(image: *const Image, limit: u64) bool {
    const generation = image.generation orelse return false;
    if (!mayFold(image)) return false;
    if (generation.logBytes() <= limit) return false;
    const target = targetOf(generation, image.keep) orelse return false;
    var kept: u64 = 0;
    var at: ?generation_.Point = generation.last();
    while (at) |point| : (at = generation.parentOf(point)) {
        if (std.meta.eql(point, target)) break;
        kept += generation.records.items[point.record].len;
    }
    return kept < generation.logBytes() / 2;
}

/// No fold while the heap stands elsewhere than on the last record (R6), nor of what is damaged.
fn mayFold(image: *const Image) bool {
    const generation = image.generation orelse return false;
    if (image.mode == .read or image.dead or image.set_aside or generation.damage != null) return false;
    if (generation.log < 0 or generation.records.items.len == 0) return false;
    const standing = image.standing orelse return false;
    return standing == generation.headOf(generation.last()).commit or plant.is(.r6_fold_elsewhere);
}

/// keep−1 steps up the parents of the last record; null when that is the base itself.
fn targetOf(generation: *const Generation, keep: u32) ?generation_.Point {
    var target = generation.last();
    for (0..keep - 1) |_| target = generation.parentOf(target) orelse return null;
    return if (target == .base) null else target;
}

/// Waits for the mutex, but not when the holder is waiting for this fold to end.
fn lockUnlessCancelled(image: *Image) bool {
    while (!image.mutex.tryLock()) {
        if (image.fold.cancelled.load(.acquire)) return false;
        image.disk.pause(100_000);
    }
    return true;
}

/// Folds on the caller's thread: false too when a fold runs already.
pub fn runHere(image: *Image) errors.Error!bool {
    const fold = &image.fold;
    if (fold.running.swap(true, .acq_rel)) return false;
    defer fold.running.store(false, .release);
    return run(image);
}

/// Folds: true when a new base came of it.
fn run(image: *Image) errors.Error!bool {
    const fold = &image.fold;
    if (!lockUnlessCancelled(image)) return false;
    var locked = true;
    defer if (locked) image.mutex.unlock();
    if (!mayFold(image)) return false;
    const generation = image.generation.?;
    const target = targetOf(generation, image.keep) orelse return false;
    const last = generation.last();
    // Commits append to the list meanwhile; what is in it never changes.
    var old = generation.*;
    const records = os.page_allocator.dupe(generation_.Record, generation.records.items) catch return generation_.outOfMemory(image.path());
    defer os.page_allocator.free(records);
    old.records = .fromOwnedSlice(records);
    var lines: history_.Lines = .{};
    defer lines.deinit();
    if (!plant.is(.r12_lines_not_folded)) lines.addAll(image.lines.slice()) catch return generation_.outOfMemory(image.path());
    const epoch_max = if (image.history) |history| history.epoch_max else generation.epochMax();
    var successor: Successor = try .begin(image, &fold.scratch);
    var installed = false;
    errdefer if (!installed) successor.abort();
    image.mutex.unlock();
    locked = false;

    try successor.baseFromPoint(&old, target, epoch_max, lines.slice(), &fold.cancelled);
    try commit_.copyLine(&successor, &old, target, last);
    try successor.sync();

    if (!lockUnlessCancelled(image)) return error.BUSY;
    locked = true;
    if (fold.cancelled.load(.acquire) or !mayFold(image) or image.generation != generation) {
        successor.abort();
        installed = true;
        return false;
    }
    const late = generation.records.items.len > old.records.items.len;
    if (late) {
        try commit_.copyLine(&successor, generation, last, generation.last());
        if (!plant.is(.sync_late_records)) try successor.syncLog();
    }
    if (plant.is(.r5_hold_ends_early)) {
        image.mutex.unlock();
        locked = false;
    }
    const fresh = successor.generation;
    successor.install() catch |err| {
        installed = image.generation == fresh;
        return err;
    };
    installed = true;
    fold.done += 1;
    if (locked) image.noteInfo();
    return true;
}
