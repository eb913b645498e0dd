//! Commits that end on a thread of their own. Who asks for one copies its changes aside (or, where
//! they are too many, writes them to the page cache) while the heap is held, and goes on; checksums,
//! writing and syncing happen here, one commit after another, in the order in which they were asked
//! for.
//!
//! Invariants: the thread takes no lock of the heap but `lock`, so that whoever holds the heap's mutex
//! may wait for it. What a failed commit had copied passes to the next commit to that image, or is
//! pending again when there is none. A commit's outcome waits here until it is asked for, also after
//! its heap was closed.

const std = @import("std");
const os = @import("../os/os.zig");
const errors = @import("../errors.zig");
const image_room = @import("../image/image.zig");
const plant = @import("../plant.zig");
const staging_room = @import("staging.zig");
const Shared = @import("shared.zig").Shared;
const Capture = image_room.Capture;
const Error = errors.Error;
const Image = image_room.Image;
const PageSet = image_room.PageSet;
const Part = staging_room.Part;
const Staging = staging_room.Staging;
const fail = errors.fail;

const gpa = os.page_allocator;

/// Staging memory that is made ready before anybody needs it, as a part of the heap in use.
const warm_divisor = 32;
const warm_pages_min = (1 << 20) / os.page_size;

/// One commit, from the call to the moment its outcome is fetched.
pub const Job = struct {
    id: u64,
    process: u32,
    /// Whose promise waits for it.
    thread: usize,
    /// Null for a flush of a shared heap.
    image: ?*Image,
    flush: ?SharedFlush = null,
    start_ns: u64,
    /// A capture: what is committed then. The ranges are owned.
    input: image_room.CommitInput,
    capture: ?*Capture = null,
    part: ?Part = null,
    /// Written under the hold already: only the sync is left.
    prepared: ?image_room.Commit = null,
    /// Another commit to that image was under way when the changes since it were copied.
    is_behind: bool = false,
    /// Why it cannot be made: the commit that it builds on failed.
    refused: bool = false,
    done: std.atomic.Value(u32) = .init(0),
    failure: ?Error = null,
    record: errors.Record = undefined,
    report: image_room.CommitReport = .{},
    duration_ns: u64 = 0,
    next: ?*Job = null,
    next_known: ?*Job = null,
    /// Threads that sleep until it is done: the last one frees it when its outcome was fetched.
    waiters: u32 = 0,
    fetched: bool = false,

    pub fn create(im: ?*Image, start_ns: u64) Error!*Job {
        const job = gpa.create(Job) catch return outOfMemory();
        job.* = .{
            .id = next_id.fetchAdd(1, .monotonic),
            .process = os.processId(),
            .thread = os.threadId(),
            .image = im,
            .start_ns = start_ns,
            .input = .{ .memory = 0, .identity = undefined, .used = &.{} },
        };
        return job;
    }

    /// Frees a job that nobody knows of.
    pub fn destroy(self: *Job) void {
        self.freeInput();
        if (self.capture) |capture| freeCapture(capture);
        gpa.destroy(self);
    }

    fn freeInput(self: *Job) void {
        gpa.free(self.input.used);
        gpa.free(self.input.holes);
        self.input.used = &.{};
        self.input.holes = &.{};
    }

    pub fn newCapture(self: *Job) Error!*Capture {
        const capture = gpa.create(Capture) catch return outOfMemory();
        capture.* = .{};
        self.capture = capture;
        return capture;
    }

    /// Makes the commit, on whichever thread.
    fn run(self: *Job) void {
        self.report = self.make() catch |err| failed: {
            self.failure = err;
            self.record = errors.copyLast();
            break :failed .{};
        };
        self.duration_ns = os.nowNs() - self.start_ns;
    }

    fn make(self: *Job) Error!image_room.CommitReport {
        if (plant.is(.r1_next_before_sync)) plant.next_waits = if (self.next) |next| next.image == self.image else false;
        if (self.refused) return errors.repeat(&self.record);
        if (self.flush) |*flush| return flush.shared.flush(flush.history, &flush.input);
        if (self.prepared) |*commit| {
            defer commit.end();
            return commit.finish();
        }
        var commit = try self.image.?.begin();
        defer commit.end();
        try commit.prepare(self.input);
        return commit.finish();
    }
};

pub const SharedFlush = struct {
    shared: *Shared,
    history: *image_room.History,
    input: Shared.Flush,
};

fn outOfMemory() Error {
    return fail(.OUT_OF_MEMORY, .{}, "Cannot commit the heap in the background: no process memory left", .{});
}

fn freeCapture(capture: *Capture) void {
    if (capture.earlier) |earlier| freeCapture(earlier);
    capture.deinit();
    gpa.destroy(capture);
}

/// A heap's queue and its thread.
pub const Background = struct {
    lock: os.Mutex = .{},
    first: ?*Job = null,
    last: ?*Job = null,
    ending: bool = false,
    /// Counts changes of the above: what sleepers wait on.
    changes: std.atomic.Value(u32) = .init(0),
    thread: ?os.Thread = null,
    process: u32 = 0,
    warm_pages: u64 = 0,
    staging: Staging = .{},
    /// Parts that captures of failed commits still use, by capture.
    parts: std.ArrayList(Held) = .empty,
    /// Pages that commits may hold, and those to copy: of whoever holds the heap's mutex.
    kept: PageSet = .{},
    wanted: PageSet = .{},
    commits: std.atomic.Value(u64) = .init(0),
    /// For tests: as where the host gives no threads, or where staging memory is small.
    threadless: bool = false,
    staging_pages_max: u64 = staging_room.pages_max,

    const Held = struct { capture: *Capture, part: Part };

    /// Makes ready for commits of a heap of `pages`.
    pub fn begin(self: *Background, pages: u64) Error!void {
        inline for (.{ &self.kept, &self.wanted }) |set| {
            if (set.pages != pages) {
                set.deinit();
                set.* = PageSet.init(pages) catch return outOfMemory();
            }
        }
        if (self.thread != null) return;
        self.staging.begin() catch {};
        self.process = os.processId();
        self.ending = false;
        self.warm_pages = warm_pages_min;
        if (!self.threadless) self.thread = os.Thread.spawn(entry, self) catch null;
    }

    /// Has staging memory made ready for commits of a heap that holds so many pages: what is allocated
    /// and was never touched does not count.
    pub fn warmFor(self: *Background, pages: u64) void {
        const wanted = @max(warm_pages_min, pages / warm_divisor);
        self.lock.lock();
        defer self.lock.unlock();
        if (wanted == self.warm_pages) return;
        self.warm_pages = wanted;
        self.changed();
    }

    /// Waits for the commits under way, ends the thread and frees everything.
    pub fn end(self: *Background) void {
        if (self.thread) |thread| if (self.process == os.processId()) {
            self.lock.lock();
            self.ending = true;
            self.changed();
            self.lock.unlock();
            thread.join();
        };
        self.thread = null;
        if (self.process != os.processId() and self.process != 0) return;
        self.staging.deinit();
        self.parts.deinit(gpa);
        self.kept.deinit();
        self.wanted.deinit();
        self.* = .{};
    }

    /// Waits until nothing is under way.
    pub fn drain(self: *Background) void {
        if (self.process != os.processId()) return;
        self.lock.lock();
        defer self.lock.unlock();
        while (self.first != null) self.wait();
    }

    /// Whether a commit to that image is under way.
    pub fn has(self: *Background, im: *const Image) bool {
        self.lock.lock();
        defer self.lock.unlock();
        return self.queued(im);
    }

    fn queued(self: *const Background, im: *const Image) bool {
        var at = self.first;
        while (at) |job| : (at = job.next) if (job.image == im) return true;
        return false;
    }

    /// Commits under way.
    pub fn count(self: *Background) u64 {
        if (self.process != os.processId()) return 0;
        self.lock.lock();
        defer self.lock.unlock();
        var total: u64 = 0;
        var at = self.first;
        while (at) |job| : (at = job.next) total += 1;
        return total;
    }

    pub fn takePart(self: *Background, pages: u64) ?Part {
        if (pages > self.staging_pages_max) return null;
        self.lock.lock();
        defer self.lock.unlock();
        return self.staging.take(pages);
    }

    pub fn address(self: *const Background, part: Part) usize {
        return self.staging.address(part);
    }

    /// Hands a commit over; without a thread it is made here and now. From here on only `fetch` may
    /// look at it.
    pub fn submit(self: *Background, job: *Job) void {
        know(job);
        self.lock.lock();
        defer self.lock.unlock();
        if (job.image) |im| if (job.is_behind and im.inflight_failed and !self.queued(im) and !plant.is(.async_failed_before)) {
            // The commit that it builds on failed while this one was copied: nobody has its changes.
            job.refused = true;
            job.record = im.failure;
        };
        if (self.last) |last| last.next = job else self.first = job;
        self.last = job;
        if (self.thread != null) return self.changed();
        self.lock.unlock();
        job.run();
        self.lock.lock();
        self.finished(job);
    }

    fn entry(context: ?*anyopaque) callconv(.c) ?*anyopaque {
        const self: *Background = @ptrCast(@alignCast(context.?));
        os.workInBackground();
        self.lock.lock();
        defer self.lock.unlock();
        while (true) {
            const job = self.first orelse {
                if (self.ending) return null;
                if (self.staging.cold(self.warm_pages)) |memory| {
                    self.lock.unlock();
                    os.populate(@intFromPtr(memory.ptr), memory.len);
                    self.lock.lock();
                    continue;
                }
                self.wait();
                continue;
            };
            self.lock.unlock();
            job.run();
            self.lock.lock();
            self.finished(job);
        }
    }

    /// Takes the first job, which has run, out of the queue. Lock held.
    fn finished(self: *Background, job: *Job) void {
        std.debug.assert(self.first == job);
        self.first = job.next;
        if (self.first == null) self.last = null;
        job.next = null;
        if (job.failure == null) {
            if (job.report.pages > 0) _ = self.commits.fetchAdd(1, .monotonic);
            if (job.capture) |capture| self.release(capture);
        } else self.passOn(job);
        job.capture = null;
        job.freeInput();
        const done = &job.done;
        done.store(1, .release);
        os.futexWake(done, std.math.maxInt(i32));
        self.changed();
    }

    /// A failed commit's changes go to the next one to the same image.
    fn passOn(self: *Background, job: *Job) void {
        const im = job.image orelse return;
        const capture = job.capture;
        im.failure = job.record;
        if (capture) |each| im.pendingAgain(each);
        // What was written under the hold was never copied, and the heap has gone on since: nor does
        // what builds on that, however far down the queue, have it.
        const lost = capture == null or job.refused;
        var at = self.first;
        while (at) |next| : (at = next.next) {
            if (next.image != im) continue;
            if (!lost) if (next.capture) |into| {
                std.debug.assert(into.earlier == null);
                into.earlier = capture;
                into.complete = into.complete or capture.?.complete;
                return;
            };
            next.refused = true;
            next.record = job.record;
            break;
        }
        if (capture) |each| self.release(each);
    }

    pub fn holdPart(self: *Background, capture: *Capture, part: Part) Error!void {
        self.lock.lock();
        defer self.lock.unlock();
        self.parts.append(gpa, .{ .capture = capture, .part = part }) catch {
            self.staging.give(part);
            return outOfMemory();
        };
    }

    /// Frees a capture, those before it, and their staging memory. Lock held.
    fn release(self: *Background, capture: *Capture) void {
        var at: ?*Capture = capture;
        while (at) |each| : (at = each.earlier) {
            for (self.parts.items, 0..) |held, index| {
                if (held.capture != each) continue;
                self.staging.give(held.part);
                _ = self.parts.orderedRemove(index);
                break;
            }
        }
        freeCapture(capture);
    }

    /// Frees what a capture that was never submitted held.
    pub fn abandon(self: *Background, job: *Job) void {
        self.lock.lock();
        defer self.lock.unlock();
        if (job.capture) |capture| self.release(capture);
        job.capture = null;
    }

    fn changed(self: *Background) void {
        _ = self.changes.fetchAdd(1, .release);
        os.futexWake(&self.changes, std.math.maxInt(i32));
    }

    /// Sleeps until something changes. Lock held, and held again afterwards.
    fn wait(self: *Background) void {
        const seen = self.changes.load(.acquire);
        self.lock.unlock();
        os.futexWait(&self.changes, seen);
        self.lock.lock();
    }
};

// ------------------------------------------------------------------ outcomes

var next_id: std.atomic.Value(u64) = .init(1);
var known: ?*Job = null;
var known_lock: os.Mutex = .{};

fn know(job: *Job) void {
    known_lock.lock();
    defer known_lock.unlock();
    job.next_known = known;
    known = job;
}

fn find(id: u64, why: enum { to_wait, to_look }) Error!*Job {
    known_lock.lock();
    defer known_lock.unlock();
    var at = known;
    while (at) |job| : (at = job.next_known) if (job.id == id) {
        if (job.process == os.processId()) {
            if (why == .to_wait) job.waiters += 1;
            return job;
        }
        return fail(.FORKED, .{}, "Cannot wait for a commit of process {d}, of which this one is a fork", .{job.process});
    };
    return fail(.NOT_FOUND, .{}, "Cannot find commit {d}: its outcome was fetched already", .{id});
}

/// Waits for a commit's end.
pub fn await(id: u64) Error!void {
    const job = try find(id, .to_wait);
    while (job.done.load(.acquire) == 0) os.futexWait(&job.done, 0);
    known_lock.lock();
    defer known_lock.unlock();
    job.waiters -= 1;
    if (job.fetched and job.waiters == 0) gpa.destroy(job);
}

/// A commit's outcome, once; null while it is under way.
pub fn fetch(id: u64) Error!?struct { report: image_room.CommitReport, duration_ns: u64 } {
    const job = try find(id, .to_look);
    if (job.done.load(.acquire) == 0) return null;
    const failure = job.failure;
    const record = job.record;
    const report = job.report;
    const duration_ns = job.duration_ns;
    forget(job);
    if (failure != null) return errors.repeat(&record);
    return .{ .report = report, .duration_ns = duration_ns };
}

fn forget(job: *Job) void {
    known_lock.lock();
    defer known_lock.unlock();
    var link = &known;
    while (link.*) |each| : (link = &each.next_known) {
        if (each != job) continue;
        link.* = job.next_known;
        break;
    }
    job.fetched = true;
    if (job.waiters == 0) gpa.destroy(job);
}

/// Outcomes that an ended thread will not ask for. Those under way stay until the next thread ends.
pub fn forgetThread(thread: usize) void {
    known_lock.lock();
    defer known_lock.unlock();
    var link = &known;
    while (link.*) |job| {
        if (job.thread != thread or job.done.load(.acquire) == 0) {
            link = &job.next_known;
            continue;
        }
        link.* = job.next_known;
        job.fetched = true;
        if (job.waiters == 0) gpa.destroy(job);
    }
}
