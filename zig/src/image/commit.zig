//! One commit: what changed is found and written to the page cache while the heap is held
//! (`prepare`), and put on the medium afterwards (`finish`).
//!
//! Invariant: pages leave `pending` only when the commit that holds them was synced. Equal content
//! gives equal files, whatever superset of the changed pages the tracker named.

const std = @import("std");
const errors = @import("../errors.zig");
const capture_ = @import("capture.zig");
const disk_ = @import("disk.zig");
const fold_ = @import("fold.zig");
const pipe_ = @import("pipe.zig");
const plant = @import("../plant.zig");
const opener = @import("opener.zig");
const format = @import("format.zig");
const generation_ = @import("generation.zig");
const history_ = @import("history.zig");
const record_ = @import("record.zig");
const scratch_ = @import("scratch.zig");
const successor_ = @import("successor.zig");
const table_ = @import("table.zig");
const Generation = generation_.Generation;
const Image = @import("image.zig").Image;
const PageRange = @import("page_set.zig").PageRange;
const PageSet = @import("page_set.zig").PageSet;
const Source = capture_.Source;
const Successor = successor_.Successor;
const failAs = disk_.failAs;
const page_size = format.page_size;

pub const Scratch = scratch_.Scratch;

pub const Input = struct {
    /// Where the heap's memory is; not read when there is a capture.
    memory: usize,
    /// The heap's changes, copied aside when the commit was asked for: it is not held still any more,
    /// and trackers tell of later commits.
    capture: ?*capture_.Capture = null,
    identity: format.Identity,
    /// Pages that may hold something, and among them those that are free. All others are zero in the
    /// image, whatever they contain.
    used: []const PageRange,
    holes: []const PageRange = &.{},
    /// The heap's other image: an unchanged heap gets the epoch that it has there.
    other: ?*Image = null,
    /// The heap is known to be this commit still, which a shared heap's file holds.
    known: ?history_.Head = null,
    /// Refuse (EXISTS) an image whose last commit is no ancestor of the heap.
    guard: bool = false,

    fn source(self: *const Input) Source {
        return if (self.capture) |capture| .{ .capture = capture } else .{ .memory = self.memory };
    }

    /// Whether every kept page can be read.
    fn isWhole(self: *const Input) bool {
        return if (self.capture) |capture| capture.complete else true;
    }
};

pub const Report = struct {
    epoch: u64 = 0,
    /// Pages stored, and bytes written to the files.
    pages: u64 = 0,
    bytes: u64 = 0,
    new_base: bool = false,
};

pub const Commit = struct {
    image: *Image,
    state: State = .begun,
    report: Report = .{},
    head: history_.Head = undefined,
    held_all: bool = false,
    /// A base is being written on the guess that more than so many pages changed.
    guessed: ?u64 = null,
    guess_failed: bool = false,

    const State = union(enum) {
        begun,
        nothing,
        record: generation_.Record,
        base: Successor,
        ended,
    };

    /// Writes what changed to the page cache. Runs while the heap is held still, or from a capture.
    pub fn prepare(self: *Commit, input: Input) errors.Error!void {
        std.debug.assert(self.state == .begun);
        const image = self.image;
        const history = image.history.?;
        try checkInput(image, &input);
        const scratch = &image.scratch;
        scratch.prepare(input.identity.pages()) catch return generation_.outOfMemory(image.path());
        for (input.used) |range| scratch.kept.setRange(range.first, range.count);
        for (input.holes) |range| scratch.kept.unsetRange(range.first, range.count);

        const rewrite = try mustRewrite(image, &input);
        if (input.guard) try checkGuard(image, history);
        if (input.capture) |capture| self.collectFrom(capture) else self.collect();
        errdefer self.giveBack();
        const known = input.known orelse try unchangedSince(image, history, &input);
        while (rewrite or !try self.tryRecord(&input, history, known)) {
            const epoch_max = history.epoch_max;
            if (self.writeBase(&input, history, known) catch |err| lack: {
                if (err != error.NO_SPACE or !image.giveRoomBack()) return err;
                history.epoch_max = epoch_max;
                break :lack try self.writeBase(&input, history, known);
            }) break;
        }
        if (plant.is(.free_pages_trusted)) return;
        if (input.capture == null) image.expectWrites(input.holes);
    }

    /// The sync. Threads may run meanwhile; nothing of the heap is read.
    pub fn finish(self: *Commit) errors.Error!Report {
        const image = self.image;
        const history = image.history.?;
        errdefer {
            self.giveBack();
            self.state = .begun;
        }
        switch (self.state) {
            .begun, .ended => unreachable,
            .nothing => {
                self.settle();
                return self.report;
            },
            .record => |record| {
                const generation = image.generation.?;
                if (if (plant.is(.sync_record) or (plant.is(.r1_next_before_sync) and plant.next_waits)) null else image.disk.sync(generation.log)) |errno| {
                    image.dead = !plant.is(.r2_log_lives_on);
                    if (plant.is(.r2_cut_after_footer)) {
                        image.dead = false;
                        opener.cutTail(image.disk, generation, image.path()) catch {};
                    }
                    if (plant.is(.r2_number_again)) history.epoch_max -= 1;
                    return disk_.failErrno(errno, image.path(), "Cannot sync the log of image");
                }
                record_.accept(generation, record);
                generation.sealLast(image.disk, image.sealed_len_min);
                image.table.?.apply(record.runs, record.holes, record.sums);
                image.lines.addAll(record.lines) catch {};
                image.dropped = false;
                image.ageSpare();
            },
            .base => |*successor| {
                try self.finishBase(successor);
            },
        }
        image.standing = self.head.commit;
        history.current = self.head;
        history.stray = false;
        self.settle();
        fold_.consider(image);
        return self.report;
    }

    fn finishBase(self: *Commit, successor: *Successor) errors.Error!void {
        const image = self.image;
        const generation = successor.generation;
        var installed = false;
        errdefer if (!installed and image.generation != generation) successor.abort();
        try successor.sync();
        successor.install() catch |err| {
            if (image.generation != generation) return err;
            // Renamed, but perhaps not for good: nobody may rely on this commit, and it takes no place
            // among those that `keep` keeps. The next one goes on from the commit before.
            installed = true;
            const before = image.standing orelse return err;
            if (generation.find(before) != null) return err;
            image.standing = null;
            self.dropTable();
            return err;
        };
        installed = true;
        self.dropTable();
        if (generation.records.items.len == 0) self.fillTable(generation);
        image.lines.list.clearRetainingCapacity();
        image.lines.addAll(image.history.?.lines.slice()) catch {};
    }

    /// The scratch memory still holds the base's checksums. Without room the next commit reads them.
    fn fillTable(self: *Commit, generation: *const Generation) void {
        var table = table_.Table.init(generation.header.heap.pages()) catch return;
        table.apply(generation.runs, &.{}, self.image.scratch.sums.items);
        self.image.table = table;
    }

    fn dropTable(self: *Commit) void {
        if (self.image.table) |*table| table.deinit();
        self.image.table = null;
    }

    /// Gives the image free. What was prepared and not finished is undone and stays pending.
    pub fn end(self: *Commit) void {
        const image = self.image;
        switch (self.state) {
            .ended => return,
            .begun => {},
            .nothing => {},
            // Its footer is written, so it may be found after a crash: the log ends here (R2).
            .record => image.dead = !plant.is(.r2_log_lives_on),
            .base => |*successor| successor.abort(),
        }
        self.giveBack();
        self.state = .ended;
        image.noteInfo();
        image.mutex.unlock();
    }

    /// Moves what is pending into flight.
    fn collect(self: *Commit) void {
        const image = self.image;
        image.inflight.merge(&image.pending);
        image.pending.clear();
        self.held_all = image.compare_all;
        image.compare_all = false;
        image.inflight_failed = true;
    }

    /// The same with what a capture took out of `pending`.
    fn collectFrom(self: *Commit, capture: *const capture_.Capture) void {
        const image = self.image;
        for (capture.candidates.items) |range| image.inflight.setRange(range.first, range.count);
        self.held_all = capture.held_all;
        image.inflight_failed = true;
    }

    /// The commit failed: what was in flight is pending again at the next one. (`pending` itself is
    /// the trackers', who may be filling it now.)
    fn giveBack(self: *Commit) void {
        const image = self.image;
        if (self.held_all) image.compare_all = true;
        self.held_all = false;
        if (plant.is(.r11_failure_forgets)) {
            image.inflight.clear();
            image.compare_all = false;
        }
    }

    fn settle(self: *Commit) void {
        self.image.inflight.clear();
        self.image.inflight_failed = false;
        self.held_all = false;
        self.state = .begun;
    }

    /// The kept pages that may differ from the commit that the image stands on.
    fn candidatesOf(self: *Commit, input: *const Input) *const PageSet {
        const scratch = &self.image.scratch;
        if (self.held_all and input.capture == null) return &scratch.kept;
        scratch.candidates.clear();
        if (input.capture) |capture| capture.addTo(&scratch.candidates) else scratch.candidates.merge(&self.image.inflight);
        scratch.candidates.intersect(&scratch.kept);
        return &scratch.candidates;
    }

    // ---- records

    /// Appends a record, or finds that there is nothing to write. False when so much changed that a
    /// new base is due.
    fn tryRecord(self: *Commit, input: *const Input, history: *history_.History, known: ?history_.Head) errors.Error!bool {
        const image = self.image;
        const generation = image.generation.?;
        const scratch = &image.scratch;
        if (image.table == null) {
            const at = generation.find(image.standing.?).?;
            image.table = try table_.Table.load(generation, image.disk, at, image.path());
        }
        const table = &image.table.?;
        const candidates = self.candidatesOf(input);
        const count = candidates.count();
        const kept_count = scratch.kept.count();
        const enough = @max(image.base_pages_min, kept_count / 2);
        var set: *const PageSet = candidates;
        var expected: Expected = .{ .pages = count };
        if (count > enough and input.isWhole()) {
            const seem = seemChanged(candidates, table, input.source());
            if (image.keep < 2 and !self.guess_failed and seem > enough + enough / 4) {
                self.guessed = enough;
                return false;
            }
            if (self.guess_failed or seem <= enough) {
                expected = .{ .pages = @min(enough, seem + seem / 8), .limit = enough };
            } else {
                if (firstLook(scratch, candidates, table, input.source(), enough) > enough) return false;
                set = &scratch.changed;
                expected.pages = set.count();
            }
        }
        var appender: record_.Appender = try .init(image.disk, generation, scratch, image.path());
        if (image.room.give(image)) |errno| {
            image.dead = true;
            return disk_.failErrno(errno, image.path(), "Cannot sync the directory of image");
        }
        appender.allocated_end = generation.room_end;
        if (!plant.is(.holes_not_recorded)) emptyUnkept(scratch, table);
        var pipe: pipe_.Pipe = undefined;
        if (image.background) appender.startPipe(&pipe, expected.pages, image.pipe_size);
        defer appender.endPipe();
        // The attempt is cut away with the log: a base takes its place.
        if (!try stageChanged(&appender, scratch, set, table, input.source(), expected)) return false;
        var holes = scratch.emptied.iterate();
        while (holes.next()) |hole| scratch.holes.append(scratch_.allocator, hole) catch return generation_.outOfMemory(image.path());

        const at_head = image.standing.? == generation.headOf(generation.last()).commit;
        const identity = generation.identityOf(generation.find(image.standing.?).?);
        const current: ?format.CommitId = if (history.current) |head| head.commit else null;
        if (appender.pageCount() == 0 and scratch.holes.items.len == 0 and at_head and
            image.standing == current and identity.eql(&input.identity))
        {
            if (generation.stale) try clearStale(image, generation);
            self.report = .{ .epoch = history.epoch() };
            self.state = .nothing;
            return true;
        }
        const record = try self.finishRecord(&appender, input, history, known, generation);
        self.report.bytes = record.len;
        self.state = .{ .record = record };
        return true;
    }

    fn finishRecord(self: *Commit, appender: *record_.Appender, input: *const Input, history: *history_.History, known: ?history_.Head, generation: *const Generation) errors.Error!generation_.Record {
        const image = self.image;
        self.head = try nextHead(image, history, input, known, generation);
        var unknown: history_.Lines = .{};
        defer unknown.deinit();
        for (history.lines.slice()) |line| {
            if (image.lines.find(line.id) == null) unknown.add(line) catch return generation_.outOfMemory(image.path());
        }
        const record = appender.finish(.{
            .head = self.head,
            .parent = image.standing.?,
            .heap = input.identity,
            .time = image.disk.now(),
            .lines = unknown.slice(),
            .holes = image.scratch.holes.items,
        }) catch |err| {
            if (appender.footer_begun and appender.generation == image.generation) image.dead = !plant.is(.r2_footer_lives_on);
            return err;
        };
        self.report = .{
            .epoch = self.head.epoch,
            .pages = record.sums.len,
            .bytes = record.len,
        };
        return record;
    }

    // ---- new bases

    /// False when the guess was wrong: nothing is left of the base, and a record is due.
    fn writeBase(self: *Commit, input: *const Input, history: *history_.History, known: ?history_.Head) errors.Error!bool {
        const image = self.image;
        // A fold would be for nothing now, and holds -new.
        image.fold.cancel(image.disk);
        var successor: Successor = try .begin(image, &image.scratch);
        errdefer successor.abort();
        const line_kept = try self.lineKept(&successor, input, history, known);
        if (!line_kept) {
            if (!input.isWhole()) return failAs(.STALE, .{ .path = image.path() }, "Cannot commit to image \"{s}\": its files went away while the commit waited; commit again", .{image.path()});
            const epoch_max = history.epoch_max;
            self.head = try nextHead(image, history, input, known, null);
            try successor.baseFromMemory(input.source(), &image.scratch.kept, .{
                .head = self.head,
                .parent = image.standing orelse 0,
                .heap = input.identity,
                .time = image.disk.now(),
                .lines = history.lines.slice(),
                .holes = &.{},
            });
            if (self.guessed) |enough| if (countChanged(&image.scratch, &image.table.?) <= enough) {
                successor.abort();
                history.epoch_max = epoch_max;
                self.guessed = null;
                self.guess_failed = true;
                return false;
            };
            self.report = .{ .epoch = self.head.epoch, .pages = successor.generation.header.page_count };
        }
        self.report.bytes = successor.generation.layout().end + successor.generation.log_end;
        self.report.new_base = true;
        successor.keeps_spare = true;
        self.state = .{ .base = successor };
        return true;
    }

    /// With `keep` > 1: a base at keep−1 steps back, the records since, then this commit as a record;
    /// also where a capture holds the changes only. False when there is nothing to go back to.
    fn lineKept(self: *Commit, successor: *Successor, input: *const Input, history: *history_.History, known: ?history_.Head) errors.Error!bool {
        const image = self.image;
        const scratch = &image.scratch;
        if ((image.keep < 2 and input.isWhole()) or image.set_aside) return false;
        const old = image.generation orelse return false;
        const standing = old.find(image.standing orelse return false) orelse return false;
        if (!sameRange(&old.header.heap, &input.identity)) return false;
        var target = standing;
        for (0..image.keep -| 2) |_| target = old.parentOf(target) orelse break;
        const epoch_max = @max(history.epoch_max, old.epochMax());
        try successor.baseFromPoint(old, target, epoch_max, history.lines.slice(), null);
        try copyLine(successor, old, target, standing);

        if (image.table == null) image.table = try table_.Table.load(old, image.disk, standing, image.path());
        const table = &image.table.?;
        scratch.holes.clearRetainingCapacity();
        emptyUnkept(scratch, table);
        var appender: record_.Appender = try .init(image.disk, successor.generation, scratch, image.path());
        const candidates = self.candidatesOf(input);
        _ = try stageChanged(&appender, scratch, candidates, table, input.source(), .{ .pages = candidates.count() });
        var holes = scratch.emptied.iterate();
        while (holes.next()) |hole| scratch.holes.append(scratch_.allocator, hole) catch return generation_.outOfMemory(image.path());
        const record = try self.finishRecord(&appender, input, history, known, successor.generation);
        record_.accept(successor.generation, record);
        return true;
    }
};

/// The records after `from` up to `to`, along parents.
pub fn copyLine(successor: *Successor, old: *const Generation, from: generation_.Point, to: generation_.Point) errors.Error!void {
    var chain: table_.Chain = try .init(old, to, successor.image.path());
    defer chain.deinit();
    for (chain.records.items) |index| {
        const after = switch (from) {
            .base => true,
            .record => |first| index > first,
        };
        if (after) try successor.copyRecord(old, index);
    }
}

fn checkInput(image: *Image, input: *const Input) errors.Error!void {
    const pages = input.identity.pages();
    if (!input.identity.isSane() or pages != image.pending.pages) {
        return failAs(.INVALID_ARGUMENT, .{ .path = image.path() }, "Cannot commit to image \"{s}\": the heap's sizes are not those it was opened with", .{image.path()});
    }
    for ([_][]const PageRange{ input.used, input.holes }) |ranges| {
        if (format.checkRanges(ranges, pages) == null) {
            return failAs(.INVALID_ARGUMENT, .{ .path = image.path() }, "Cannot commit to image \"{s}\": the heap's page ranges are out of order", .{image.path()});
        }
    }
}

/// Whether only a new base will do; STALE when the path names somebody else's file.
fn mustRewrite(image: *Image, input: *const Input) errors.Error!bool {
    const generation = image.generation orelse return true;
    var base: disk_.Stat = .{};
    switch (image.disk.namesNow(image.place.dir, image.place.name.z(), generation.base_stat, &base)) {
        .same => {},
        .free => return true,
        .other => return failAs(.STALE, .{ .path = image.path() }, "Cannot commit to image \"{s}\": another file took its place; open it again", .{image.path()}),
        .errno => |errno| return disk_.failErrno(errno, image.path(), "Cannot look for image"),
    }
    if (image.dead or image.standing == null or generation.log < 0) return true;
    var log: disk_.Stat = .{};
    if (image.disk.namesNow(image.place.dir, generation.log_name.z(), generation.log_stat, &log) != .same) return true;
    if (base.size != generation.base_stat.size or log.size < generation.logNeeded()) {
        // Another program cut it off, or wrote behind a base, whose length its header tells: what follows there
        // would be lost, and nothing can be taken from it.
        image.standing = null;
        return true;
    }
    if (generation.find(image.standing.?) == null) return true;
    return !sameRange(&generation.header.heap, &input.identity);
}

pub fn sameRange(a: *const format.Identity, b: *const format.Identity) bool {
    return a.address == b.address and a.span == b.span and std.mem.eql(u8, &a.uuid, &b.uuid);
}

/// Forgetting restore() must not cost the only copy.
fn checkGuard(image: *Image, history: *const history_.History) errors.Error!void {
    const generation = image.generation orelse return;
    if (image.adopted or plant.is(.r12_no_guard)) return;
    const last = generation.headOf(generation.last());
    if (history.current) |current| if (generation.damage == null) {
        switch (history_.relate(last, &image.lines, current, &history.lines)) {
            .same, .ancestor => return,
            else => {},
        }
    };
    return failAs(.EXISTS, .{ .path = image.path() }, "Cannot back up to image \"{s}\": its last commit, epoch {d}, is no ancestor of this heap; restore() it first, or open it with \"w+\" and replace: true", .{ image.path(), last.epoch });
}

/// The head that the other image has, when the heap is still exactly that: a commit id names a state.
/// A heap that went back behind it commits anew, or an opening of both would find it newer again.
fn unchangedSince(image: *Image, history: *const history_.History, input: *const Input) errors.Error!?history_.Head {
    const other = input.other orelse return null;
    const current = history.current orelse return null;
    if (image.standing == current.commit or other.standing != current.commit) return null;
    // A fold may hold it; it never waits for us. Commits of one heap take turns.
    other.mutex.lock();
    defer other.mutex.unlock();
    const generation = other.generation orelse return null;
    const at = generation.last();
    if (generation.headOf(at).commit != current.commit) return null;
    if (other.dead or !generation.identityOf(at).eql(&input.identity)) return null;
    if (other.table == null) other.table = try table_.Table.load(generation, other.disk, at, other.path());
    const table = &other.table.?;
    const kept = &image.scratch.kept;
    var stored = table.stored.iterate();
    while (stored.next()) |run| if (kept.nextAbsentBefore(run.first, run.end()) < run.end()) return null;
    if (input.capture) |capture| {
        if (other.compare_all and !plant.is(.r11_lost_track_since)) return null;
        const told = capture.other orelse return null;
        for (told.items) |run| if (!sameAsOther(image, input, table, run)) return null;
    } else if (other.compare_all) {
        var runs = kept.iterate();
        while (runs.next()) |run| if (!sameAsOther(image, input, table, run)) return null;
        return current;
    } else {
        var runs = other.pending.iterate();
        while (runs.next()) |run| if (!sameAsOther(image, input, table, run)) return null;
    }
    if (plant.is(.r11_inflight_left)) return current;
    var runs = other.inflight.iterate();
    while (runs.next()) |run| if (!sameAsOther(image, input, table, run)) return null;
    return current;
}

/// Whether the kept pages of the run are as the other image's table says.
fn sameAsOther(image: *const Image, input: *const Input, table: *const table_.Table, run: PageRange) bool {
    for (run.first..run.end()) |page| {
        if (!image.scratch.kept.contains(page)) continue;
        const sum = if (input.capture) |capture| sum: {
            if (capture.find(page)) |bytes| break :sum format.pageSum(bytes);
            const mine = image.table orelse return false;
            break :sum mine.get(page);
        } else format.pageSum(input.source().page(page));
        if (sum != table.get(page)) return false;
    }
    return true;
}

/// The head of this commit: a new one, unless the heap is a commit that has a name already. `generation`
/// is where the commit goes, null for a base.
fn nextHead(image: *Image, history: *history_.History, input: *const Input, known: ?history_.Head, generation: ?*const Generation) errors.Error!history_.Head {
    if (known) |head| {
        const held = if (generation) |holder| holder.find(head.commit) != null else false;
        if (!held and !wentBehind(image, history, head)) return head;
    }
    if (history.epoch_max >= format.epoch_limit) return failAs(.CORRUPT, .{ .path = image.path() }, "Cannot commit to image \"{s}\": its epoch numbers are used up; make another with \"w+\"", .{image.path()});
    return history.next(input.identity.uuid, image.disk.randomId(), image.disk.randomWord()) catch generation_.outOfMemory(image.path());
}

/// Whether the image's last commit came after `head`: whether its files still hold that one or a fold
/// left it behind, the heap went back, and what it commits now is the newest.
fn wentBehind(image: *const Image, history: *const history_.History, head: history_.Head) bool {
    const generation = image.generation orelse return false;
    const last = generation.headOf(generation.last());
    return history_.relate(head, &history.lines, last, &image.lines) == .ancestor;
}

/// How many pages seem to have changed, by looking at one in sixteen. What it says is a guess: what is
/// written is decided by counting, so that equal content gives equal files.
fn seemChanged(candidates: *const PageSet, table: *const table_.Table, memory: Source) u64 {
    const share = 16;
    var changed: u64 = 0;
    var runs = candidates.iterate();
    while (runs.next()) |run| {
        var page = std.mem.alignForward(u64, run.first, share);
        while (page < run.end()) : (page += share) {
            if (format.pageSum(memory.page(page)) != table.get(page)) changed += share;
        }
    }
    return changed;
}

/// How many of the kept pages differ from the table, now that the base's checksums are there.
fn countChanged(scratch: *const Scratch, table: *const table_.Table) u64 {
    const runs = scratch.runs.items;
    var changed: u64 = 0;
    var index: usize = 0;
    var stored: u64 = 0;
    var kept = scratch.kept.iterate();
    while (kept.next()) |range| for (range.first..range.end()) |page| {
        while (index < runs.len and runs[index].end() <= page) : (index += 1) stored += runs[index].count;
        const within = index < runs.len and runs[index].first <= page;
        const sum = if (within) scratch.sums.items[stored + (page - runs[index].first)] else 0;
        changed += @intFromBool(sum != table.get(page));
    };
    return changed;
}

/// Compares in place and notes what differs; stops when that is more than a record is good for.
fn firstLook(scratch: *Scratch, candidates: *const PageSet, table: *const table_.Table, source: Source, enough: u64) u64 {
    scratch.changed.clear();
    var changed: u64 = 0;
    var runs = candidates.iterate();
    while (runs.next()) |run| for (run.first..run.end()) |page| {
        if (format.pageSum(source.page(page)) == table.get(page)) continue;
        scratch.changed.set(page);
        changed += 1;
        if (changed > enough) return changed;
    };
    return changed;
}

/// Stored pages that are not kept any more become holes.
fn emptyUnkept(scratch: *Scratch, table: *const table_.Table) void {
    scratch.emptied.clear();
    var runs = table.stored.iterate();
    while (runs.next()) |run| {
        var page = run.first;
        while (page < run.end()) {
            const first = scratch.kept.nextAbsentBefore(page, run.end());
            if (first >= run.end()) break;
            const end = @min(run.end(), scratch.kept.next(first) orelse run.end());
            scratch.emptied.setRange(first, end - first);
            page = end;
        }
    }
}

/// A log that was given another one's space has no record to write over it: else that would look like a
/// commit that was lost.
fn clearStale(image: *Image, generation: *Generation) errors.Error!void {
    try opener.cutTail(image.disk, generation, image.path());
    if (image.disk.sync(generation.log)) |errno| {
        image.dead = true;
        return disk_.failErrno(errno, image.path(), "Cannot sync the log of image");
    }
}

/// About how many pages a record gets, and how many differ at most where one is due.
const Expected = struct { pages: u64, limit: u64 = std.math.maxInt(u64) };

/// Feeds the pages that differ from the table to the appender; those that became zero are holes. False, and
/// no more is done, when too many differ.
fn stageChanged(appender: *record_.Appender, scratch: *Scratch, set: *const PageSet, table: *const table_.Table, source: Source, expected: Expected) errors.Error!bool {
    var changed: u64 = 0;
    // A page that is likely unchanged is compared where it lies, before it is copied.
    var expect_change = true;
    var runs = set.iterate();
    while (runs.next()) |run| for (run.first..run.end()) |page| {
        const from = source.page(page);
        const before = table.get(page);
        if (!expect_change and format.pageSum(from) == before) continue;
        const slot = appender.slot();
        @memcpy(slot, from);
        const sum = format.pageSum(slot);
        expect_change = sum != before;
        if (!expect_change) continue;
        changed += 1;
        if (changed > expected.limit) return false;
        if (sum == 0) scratch.emptied.set(page) else try appender.push(page, sum, expected.pages -| changed);
    };
    return true;
}
