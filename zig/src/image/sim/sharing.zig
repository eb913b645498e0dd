//! Shared heaps on the simulated machine: a program opens the file, stores to its pages, which reach the
//! medium when they like, flushes, rests, closes or dies; others contend for the file. What is found is judged
//! by what was stored and flushed, in words of its own.
//!
//! Invariant: a file without a mark, or one that rests under it, holds just what a flush was asked for,
//! never less than the last that was acknowledged.

const std = @import("std");
const actor_ = @import("actor.zig");
const fiber = @import("fiber.zig");
const format = @import("../format.zig");
const history_ = @import("../history.zig");
const medium_ = @import("medium.zig");
const model_ = @import("model.zig");
const shared_file = @import("../shared_file.zig");
const Actor = actor_.Actor;
const Image = @import("../image.zig").Image;
const page_set = @import("../page_set.zig");
const SharedFile = shared_file.SharedFile;
const Stop = actor_.Stop;
const page_size = format.page_size;
const gpa = std.heap.smp_allocator;

pub const name = "s";
const pages = 5;
const Content = [pages]u32;

/// A heap that comes over another has a higher number; the one before is found as long as no flush of the new
/// one returned.
const Flush = struct {
    heap: u64 = 0,
    epoch: u64 = 0,

    fn isBefore(self: Flush, other: Flush) bool {
        return self.heap < other.heap or (self.heap == other.heap and self.epoch < other.epoch);
    }
};

/// What is known of the file.
pub const Known = struct {
    /// What each flush was asked for with; the last that was asked for with that number.
    tried: std.AutoHashMapUnmanaged(Flush, Content) = .empty,
    /// The last that was acknowledged.
    flushed: Flush = .{},
    heaps: u64 = 0,
    /// Images that were to stand there before any shared heap, and the last of them that was acknowledged.
    images: u32 = 0,
    image: u32 = 0,
    /// It was closed whole, and nobody opened it since.
    rested: bool = false,
    /// Nothing was stored since a flush, and that is noted; a kill leaves it so, a power cut does not.
    noted: bool = false,
    contenders: u32 = 0,
    events: u32 = 0,

    pub fn deinit(self: *Known) void {
        self.tried.deinit(gpa);
    }

    pub fn clear(self: *Known) void {
        self.tried.clearRetainingCapacity();
        self.* = .{ .tried = self.tried };
    }

    pub fn powerCut(self: *Known) void {
        self.noted = false;
        self.contenders = 0;
    }
};

/// A program's session.
const Session = struct {
    actor: *Actor,
    known: *Known,
    file: *SharedFile,
    history: history_.History = .{},
    heap: u64 = 0,
    content: Content = @splat(0),
    /// Pages that were stored to since the last sync: further stores to them date nothing.
    dirty: [pages]bool = @splat(false),
    /// Nothing was stored since the last flush; the last one failed.
    quiet: bool = false,
    failed: bool = false,

    fn inode(self: *Session) *medium_.Inode {
        return self.actor.world.machine.files.items[@intCast(self.file.file.file)].inode.?;
    }

    /// A store to the mapped heap, which no call tells of.
    fn store(self: *Session, index: usize, value: u32) void {
        const machine = &self.actor.world.machine;
        var page: [page_size]u8 = undefined;
        model_.fill(&page, value);
        const file = self.inode();
        machine.medium.store(file, &page, shared_file.heap_offset + index * page_size);
        if (!self.dirty[index]) _ = machine.date(file);
        self.dirty[index] = true;
        self.content[index] = value;
    }

    fn touch(self: *Session) void {
        self.actor.world.value += 1;
        self.store(self.actor.below(pages), self.actor.world.value);
    }

    fn uuid(self: *const Session) [16]u8 {
        return @bitCast(@as(u128, self.heap) << 64 | 7);
    }

    fn stateOf(self: *const Session, head: history_.Head, epoch_max: u64, mark: shared_file.Mark) shared_file.State {
        return .{
            .head = head,
            .heap = .{ .uuid = self.uuid(), .address = 1 << 40, .span = 1 << 30, .capacity = pages * page_size, .max_size = 1 << 20, .used = page_size },
            .epoch_max = epoch_max,
            .mark = mark,
        };
    }

    /// As `heap/shared.zig` flushes. `others`: threads that store meanwhile; what comes before the sync
    /// is in the file.
    fn settle(self: *Session, state: shared_file.State, others: bool) !void {
        const actor = self.actor;
        const file = self.file;
        const failures = actor.process.failures;
        try file.write(state, self.history.lines.slice());
        const date = file.disk.setDate(file.file.file);
        if (others and actor.chance(30)) for (0..2) |_| {
            if (actor.process.dead) break;
            self.touch();
            fiber.yield();
        };
        const settled = file.settle(state);
        self.dirty = @splat(false);
        try settled;
        const known = date orelse return;
        if (file.disk.date(file.file.file) != known) return;
        file.noteRest(.{ .date = known });
        self.known.noted = actor.process.failures == failures and !actor.process.dead;
    }

    fn read(self: *Session) Stop!Content {
        var content: Content = undefined;
        const bytes = self.inode().content();
        for (&content, 0..) |*value, index| {
            const at = shared_file.heap_offset + index * page_size;
            const whole = if (at + page_size <= bytes.len) model_.read(bytes[at..][0..page_size]) else null;
            value.* = whole orelse std.math.maxInt(u32);
        }
        return content;
    }

    fn flush(self: *Session) Stop!void {
        const actor = self.actor;
        if (self.failed) for (self.content, 0..) |value, index| {
            if (value != std.math.maxInt(u32)) self.store(index, value);
        };
        // The kernel writes pages back when it likes.
        for (&self.dirty) |*dirty| dirty.* = dirty.* and !actor.chance(12);
        self.known.noted = false;
        actor.process.failed = false;
        const machine = &actor.world.machine;
        const word = machine.random().int(u64) | 1;
        const head = self.history.next(self.uuid(), machine.random().int(u128), word) catch unreachable;
        const number: Flush = .{ .heap = self.heap, .epoch = head.epoch };
        self.known.tried.put(gpa, number, self.content) catch unreachable;
        actor.say("flush, epoch {d}", .{head.epoch});
        self.settle(self.stateOf(head, self.history.epoch_max, .in_use), true) catch |err| {
            if (!actor.excused()) return actor.judge("a flush fails for no reason", err);
            try actor.alive();
            self.failed = true;
            return;
        };
        // Its content is that of the moment of its sync.
        if (actor.process.dead) return error.Stop;
        self.known.tried.put(gpa, number, self.content) catch unreachable;
        self.history.current = head;
        self.known.flushed = number;
        self.failed = false;
        self.quiet = true;
        actor.world.counts.flushes += 1;
    }

    fn close(self: *Session) void {
        if (!self.quiet or self.failed or self.file.state == null) return;
        self.known.noted = false;
        const whole = self.stateOf(self.history.current.?, self.history.epoch_max, .whole);
        self.file.write(whole, self.history.lines.slice()) catch return;
        self.file.settle(whole) catch return;
        self.known.rested = true;
    }
};

/// A program that has the file for a while.
pub fn run(self: *Actor) Stop!void {
    const known = &self.world.shared;
    const others = known.contenders > 0;
    const events = known.events;
    known.contenders += 1;
    known.events += 1;
    defer {
        known.contenders -|= 1;
        known.events += 1;
    }
    self.process.failed = false;
    if (known.heaps == 0 and self.chance(60)) try makeImage(self, known, others);
    var fresh = false;
    var recovered = false;
    const contended = others or self.world.anyDead();
    const file = open(self, .write, false) catch |err| file: {
        const alone = !contended and known.events == events + 1;
        if ((err == error.BUSY or err == error.ALREADY_OPEN) and !alone) return error.Stop;
        if (self.excused()) return error.Stop;
        switch (err) {
            error.NOT_AN_IMAGE => try lookAtImage(self, known, contended or known.events != events + 1),
            error.NOT_FOUND => if (known.flushed.heap > 0 or known.image > 0) return self.judge("a shared heap is gone", err),
            error.CORRUPT => {
                if (known.rested or known.noted) return self.judge("a shared heap that rests is refused", err);
                self.world.counts.marked += 1;
                recovered = self.chance(50);
                if (recovered) break :file open(self, .write, true) catch |second| return refused(self, second, contended or known.events != events + 1);
            },
            else => return self.judge("a shared heap is refused for no reason", err),
        }
        fresh = true;
        break :file open(self, .create, false) catch |second| return refused(self, second, contended or known.events != events + 1);
    };
    defer file.close();
    try self.alive();
    var session: Session = .{ .actor = self, .known = known, .file = file };
    defer session.history.deinit();
    if (!fresh and !recovered and file.state.?.mark != .whole) {
        self.world.fail("a shared heap with a mark opens as if it were whole", .{});
        return error.Stop;
    }
    if (fresh) {
        known.heaps += 1;
        session.heap = known.heaps;
    }
    if (!fresh) try begin(&session) else if (file.disk.truncate(file.file.file, shared_file.heap_offset + pages * page_size) != null) return error.Stop;
    known.rested = false;
    for (0..1 + self.below(8)) |_| {
        try self.alive();
        for (0..self.below(4)) |_| {
            session.quiet = false;
            known.noted = false;
            session.touch();
            fiber.yield();
            try self.alive();
        }
        if (self.chance(60)) try session.flush();
        // Nothing is stored for a while: most kills may come now.
        for (0..self.below(if (self.world.theme == .slots) 4 else 12)) |_| {
            var stat: @import("../disk.zig").Stat = .{};
            _ = self.process.disk().statAt(0, name, &stat);
            try self.alive();
        }
    }
    if (self.chance(70)) session.close();
}

/// An image stands where a shared heap is going to be.
fn makeImage(self: *Actor, known: *Known, contended: bool) Stop!void {
    const events = known.events;
    const image = Image.open(.{ .disk = self.process.disk(), .path = name, .mode = .create, .replace = true, .background = false }) catch |err| {
        return refused(self, err, contended or known.events != events);
    };
    defer image.close();
    var history: history_.History = .{};
    defer history.deinit();
    self.world.machine.unmap(self.live, actor_.span_len);
    const len = pages * page_size;
    const identity: format.Identity = .{ .uuid = @splat(1), .address = 1 << 40, .span = len, .capacity = len, .max_size = len };
    image.join(&history, len, null) catch |err| return self.judge("joining a new heap fails", err);
    known.images += 1;
    const number = known.images;
    model_.fill(@ptrFromInt(self.live), number);
    self.say("image {d} to s", .{number});
    var commit = image.begin() catch |err| return self.judge("a commit does not begin", err);
    defer commit.end();
    const used = [_]page_set.PageRange{.{ .first = 0, .count = 1 }};
    commit.prepare(.{ .memory = self.live, .identity = identity, .used = &used }) catch |err| return refused(self, err, contended or known.events != events);
    _ = commit.finish() catch |err| return refused(self, err, contended or known.events != events);
    try self.alive();
    known.image = number;
    const machine = &self.world.machine;
    if (self.world.theme != .slots or !self.world.options.faults.cuts or machine.crash_at == std.math.maxInt(u64)) return;
    // The power fails just when the heap takes the image's place.
    machine.crash = .cut;
    machine.crash_at = machine.steps + 1;
    machine.crash_on = .sync_moved;
}

/// No shared heap took its place for good: it is whole.
fn lookAtImage(self: *Actor, known: *const Known, contended: bool) Stop!void {
    if (contended) return;
    if (known.flushed.heap > 0) return self.judge("a shared heap is an image again", error.NOT_AN_IMAGE);
    const events = known.events;
    const image = Image.open(.{ .disk = self.process.disk(), .path = name, .mode = .read, .background = false }) catch |err| {
        // Somebody came meanwhile.
        if (known.events != events) return error.Stop;
        return self.judge("an image that a shared heap has not replaced is refused", err);
    };
    defer image.close();
    const point = image.point(null) catch |err| return self.judge("an image that a shared heap has not replaced is empty", err);
    self.world.machine.unmap(self.scratch, actor_.span_len);
    _ = image.build(point, self.scratch, pages * page_size) catch |err| return self.judge("an image that a shared heap has not replaced cannot be read", err);
    const number = model_.read(@ptrFromInt(self.scratch));
    self.world.machine.unmap(self.scratch, actor_.span_len);
    if (number != null and number.? >= known.image and number.? <= known.images) return;
    if (known.events != events) return error.Stop;
    self.world.fail("image {?d} stands where a shared heap is to be, and {d} was acknowledged", .{ number, known.image });
    return error.Stop;
}

fn open(self: *Actor, mode: shared_file.Mode, recover: bool) !*SharedFile {
    const file = try SharedFile.open(.{ .disk = self.process.disk(), .path = name, .mode = mode, .recover = recover });
    self.say("shared heap open {t}{s}", .{ mode, if (recover) ", as it is" else "" });
    if (!self.process.dead) return file;
    file.close();
    return error.IO;
}

fn refused(self: *Actor, err: anyerror, contended: bool) Stop {
    if ((err == error.BUSY or err == error.ALREADY_OPEN or err == error.NOT_FOUND or err == error.STALE) and (contended or self.world.anyDead())) return error.Stop;
    return self.judge("a shared heap cannot be made or taken", err);
}

/// What was found is judged; then the mark, before anything is stored.
fn begin(session: *Session) Stop!void {
    const self = session.actor;
    const known = session.known;
    const file = session.file;
    const stored = file.state.?;
    session.content = try session.read();
    const number: Flush = .{ .heap = @truncate(@as(u128, @bitCast(stored.heap.uuid)) >> 64), .epoch = stored.head.epoch };
    session.heap = number.heap;
    const whole = stored.mark == .whole;
    if (whole) {
        if (known.noted and !known.rested) self.world.counts.rests += 1;
        const tried = known.tried.get(number);
        if (tried == null or !std.meta.eql(tried.?, session.content)) {
            self.world.fail("a shared heap opens at epoch {d} with content that no flush had", .{stored.head.epoch});
            return error.Stop;
        }
        if (number.isBefore(known.flushed)) {
            self.world.fail("a shared heap opens at epoch {d} of heap {d}, flushed was {d} of {d}", .{ number.epoch, number.heap, known.flushed.epoch, known.flushed.heap });
            return error.Stop;
        }
        if (file.lines.find(stored.head.line) == null) {
            self.world.fail("a shared heap does not know its own line", .{});
            return error.Stop;
        }
        session.quiet = true;
    } else {
        // What a dead program's failed sync left out counts as stored.
        file.sync_failed = true;
        session.failed = true;
    }
    known.noted = false;
    known.rested = false;
    session.history.adopt(stored.head, &file.lines, stored.epoch_max) catch unreachable;
    var marked = stored;
    marked.mark = .in_use;
    self.process.failed = false;
    const result = if (whole) session.settle(marked, false) else marks: {
        file.write(marked, session.history.lines.slice()) catch |err| break :marks err;
        break :marks file.settle(marked);
    };
    result catch |err| return self.judge("a shared heap cannot be marked", err);
    try self.alive();
}

/// In the end it opens or can be made anew, and nothing is left beside it.
pub fn calm(self: *Actor) Stop!void {
    for (0..2) |_| try run(self);
}
