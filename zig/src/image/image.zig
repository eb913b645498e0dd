//! The image engine: a heap's pages and identity in an immutable base and an append-only log
//! (docs/engine.md has the rules, docs/format.md the bytes). This file is the room's door: what the
//! heap uses is here; the other files do one job each and are called from here.
//!
//! Invariant: no byte that was committed is ever overwritten. Whatever fails, the last acknowledged
//! commit stays the one that opening finds, and what was not acknowledged stays pending.

const std = @import("std");
const errors = @import("../errors.zig");
const ahead_ = @import("ahead.zig");
const capture_ = @import("capture.zig");
const os = @import("../os/os.zig");
const claim = @import("claim.zig");
const commit_ = @import("commit.zig");
const copy_ = @import("copy.zig");
const disk_ = @import("disk.zig");
const fold_ = @import("fold.zig");
const here = @import("here.zig");
const format = @import("format.zig");
const generation_ = @import("generation.zig");
const history_ = @import("history.zig");
const mapping = @import("mapping.zig");
const names = @import("names.zig");
const opener = @import("opener.zig");
const page_set = @import("page_set.zig");
const pipe_ = @import("pipe.zig");
const plant = @import("../plant.zig");
const room_ = @import("room.zig");
const stored_ = @import("stored.zig");
const table_ = @import("table.zig");
const warming_ = @import("warming.zig");
const failAs = disk_.failAs;

pub const Disk = disk_.Disk;
pub const PageRange = page_set.PageRange;
pub const PageSet = page_set.PageSet;
pub const Identity = format.Identity;
pub const CommitId = format.CommitId;
pub const Head = history_.Head;
pub const History = history_.History;
pub const Relation = history_.Relation;
pub const Commit = commit_.Commit;
pub const CommitInput = commit_.Input;
pub const CommitReport = commit_.Report;
pub const Capture = capture_.Capture;
pub const BuildReport = mapping.Report;
pub const FileReport = copy_.Report;
pub const Describer = stored_.Describer;
/// Copies an image that may be in use.
pub const copy = copy_.copy;
/// Reads and checks all of an image that may be in use.
pub const verifyFile = copy_.verifyFile;
const Generation = generation_.Generation;

/// So many commits in a row that are records give the space of the base before back.
pub const spare_records_max = 16;

/// PERM's "w+", "r+" and "r".
pub const Mode = enum { create, write, read };

pub const OpenOptions = struct {
    disk: Disk = .real,
    path: []const u8,
    mode: Mode,
    /// Of `create`: the heap that will be committed. Another heap's image is then EXISTS without
    /// `replace`. Null: any image may be replaced, only other files need `replace`.
    heap: ?[16]u8 = null,
    replace: bool = false,
    /// Of `create`: nothing may stand at the path, whatever it is.
    fresh: bool = false,
    /// Open what is whole of a damaged image; its first commit makes a new base and keeps the old.
    recover: bool = false,
    /// Read and check every page.
    verify: bool = false,
    /// Open an image whose log is damaged, to reach the epochs before; else that is CORRUPT.
    allow_damaged: bool = false,
    /// Epochs to go back to, the last one included.
    keep: u32 = 1,
    /// Bytes of log that start a fold; 0: the larger of 64 MiB and half the base.
    log_limit: u64 = 0,
    /// A commit of no more pages is a record, however small the heap: a record costs one sync, a base
    /// two and two of the directory.
    base_pages_min: u64 = 1024,
    /// Records at least so long are sealed (docs/format.md): shorter ones are as quickly checked and
    /// written again by the next opening.
    sealed_len_min: u64 = 128 * 1024,
    /// A base of so many bytes that a commit replaced is kept for the next one to be written over.
    spare_len_min: u64 = 16 << 20,
    /// A log of so many bytes that was replaced gives its space to the one in use.
    room_len_min: u64 = 1 << 20,
    pipe: pipe_.Size = .{},
    /// How long no commit comes before a log that is only rather long is folded.
    idle_ns: u64 = 2 * std.time.ns_per_s,
    /// Fold on a thread; otherwise only when `fold` is called.
    background: bool = true,
    /// Tells what a damaged page belongs to.
    describer: ?Describer = null,
};

/// A commit that an image holds and a heap can be built from.
pub const Point = struct {
    at: generation_.Point,
    head: Head,
    identity: Identity,

    pub fn epoch(self: Point) u64 {
        return self.head.epoch;
    }
};

pub const Epoch = struct {
    epoch: u64,
    /// Milliseconds since 1970.
    time_ms: u64,
    pages: u64,
    bytes: u64,
};

pub const Info = struct {
    epoch: u64 = 0,
    base_bytes: u64 = 0,
    log_bytes: u64 = 0,
    folds: u64 = 0,
    fold_failures: u64 = 0,
};

/// Closing files that have no name any more: giving back a large file's space takes the system long,
/// and no commit waits for it.
pub const Disposal = struct {
    thread: ?os.Thread = null,
    disk: Disk = undefined,
    files: [2]disk_.File = @splat(disk_.none),

    const len_min = 16 << 20;

    /// A generation that was replaced.
    pub fn take(self: *Disposal, disk: Disk, generation: *Generation, background: bool) void {
        const base_len = if (generation.base >= 0) generation.base_stat.size else 0;
        self.takeFiles(disk, .{ generation.base, generation.log }, base_len + generation.log_end, background);
        generation.base = disk_.none;
        generation.log = disk_.none;
        generation.destroy(disk);
    }

    pub fn takeFiles(self: *Disposal, disk: Disk, files: [2]disk_.File, len: u64, background: bool) void {
        self.wait();
        self.disk = disk;
        self.files = files;
        if (background and len >= len_min) self.thread = os.Thread.spawn(entry, self) catch null;
        if (self.thread == null) self.closeAll();
    }

    fn closeAll(self: *Disposal) void {
        for (&self.files) |*file| self.disk.close(file);
    }

    pub fn wait(self: *Disposal) void {
        if (self.thread) |thread| thread.join();
        self.thread = null;
    }

    fn entry(context: ?*anyopaque) callconv(.c) ?*anyopaque {
        const self: *Disposal = @ptrCast(@alignCast(context.?));
        self.closeAll();
        return null;
    }
};

pub const Image = struct {
    disk: Disk,
    place: names.Place,
    path_buffer: []u8,
    mode: Mode,
    keep: u32,
    log_limit: u64,
    idle_ns: u64,
    background: bool,
    describer: ?Describer,
    base_pages_min: u64,
    sealed_len_min: u64,
    uuid: [16]u8 = @splat(0),
    /// What the files hold; null before the first commit of a new image.
    generation: ?*Generation = null,
    /// The `-new` that `create` claimed.
    new: claim.Held = .{},
    /// The base that `create` found and will replace: held for its lock and its mode.
    replaced: claim.Held = .{},
    /// The base before this one, under the name of `-new`: the next new base is written over it, since
    /// space that has to be found first takes half as long again to write.
    spare: claim.Held = .{},
    /// Commits since then that were records.
    spare_unused: u32 = 0,
    spare_len_min: u64,
    /// The space of the log before, for the log in use.
    room: room_.Room = .{},
    room_len_min: u64,
    pipe_size: pipe_.Size,
    /// A file was mapped through the descriptor that also writes it, where a second opening failed:
    /// no lease would tell of that mapping, so none is written over any more.
    maps_own_files: bool = false,
    /// All lines that the files know.
    lines: history_.Lines = .{},
    dropped: bool = false,

    /// Held from `begin` to `end` of a commit, and for a fold's last step.
    mutex: os.Mutex = .{},
    history: ?*History = null,
    /// The commit of this image that `pending` is relative to; null: the next commit is a base.
    standing: ?CommitId = null,
    /// Pages that may differ from `standing`. The trackers fill it, under the heap's hold.
    pending: PageSet = .{},
    /// Nobody can tell what differs: compare all used pages (R11, R13).
    compare_all: bool = true,
    /// The heap was taken from this image, or has replaced its base: going on is meant.
    adopted: bool = false,
    /// Pages of a commit that is under way or failed.
    inflight: PageSet = .{},
    inflight_failed: bool = false,
    /// Why the last commit in the background failed.
    failure: errors.Record = undefined,
    table: ?table_.Table = null,
    scratch: commit_.Scratch = .{},

    /// The log is not to be appended to any more: the next commit is a new base (R2).
    dead: bool = false,
    /// The generation is kept aside when it is replaced, and the next one is another image.
    set_aside: bool = false,
    fold: fold_.Fold = .{},
    /// What was so when nobody had the mutex last.
    told: Info = .{},
    told_lock: os.Mutex = .{},
    disposal: Disposal = .{},
    warming: warming_.Warming = .{},
    ahead: ahead_.Ahead = .{},
    forked: bool = false,
    here: here.Entry,

    /// Opens or claims an image. The result is at a stable address until `close`.
    pub fn open(options: OpenOptions) errors.Error!*Image {
        return opener.open(options);
    }

    /// Cancels a fold, removes a claim that was never used, closes the files. Never commits.
    pub fn close(self: *Image) void {
        if (!self.forked) {
            self.fold.cancel(self.disk);
            if (!plant.is(.r7_claim_left)) claim.dropNew(self.disk, self.place, &self.new);
            self.dropSpare();
            _ = self.room.drop(self);
            if (self.mode != .read) if (self.history) |history| {
                if (!self.pending.isEmpty() or self.inflight_failed or self.compare_all) history.stray = true;
            };
        }
        if (!self.forked) {
            self.disk.release(&self.replaced.file);
            if (self.generation) |generation| if (self.mode != .read) generation.release(self.disk);
        }
        if (!self.forked) {
            self.disposal.wait();
            self.warming.end();
            self.ahead.end();
        }
        self.closeFiles();
        here.remove(&self.here);
        self.disk.close(&self.place.dir);
        if (self.generation) |generation| generation.destroy(self.disk);
        self.lines.deinit();
        self.forgetPages();
        self.scratch.deinit();
        os.page_allocator.free(self.path_buffer);
        os.page_allocator.destroy(self);
    }

    fn closeFiles(self: *Image) void {
        self.disk.close(&self.new.file);
        self.disk.close(&self.spare.file);
        self.disk.close(&self.room.held.file);
        self.disk.close(&self.replaced.file);
        if (self.generation) |generation| {
            self.disk.close(&generation.base);
            self.disk.close(&generation.log);
        }
    }

    /// Giving the space back takes the device for a while, beside commits that would take a hundredth of
    /// that: not before it is clear that most commits are records.
    pub fn ageSpare(self: *Image) void {
        if (self.spare.file < 0) return;
        self.spare_unused += 1;
        if (self.spare_unused == spare_records_max) self.dropSpare();
    }

    /// The base before is not written over: its space goes back.
    pub fn dropSpare(self: *Image) void {
        if (self.spare.file < 0) return;
        claim.unlinkNew(self.disk, self.place, self.spare.stat);
        self.disposal.takeFiles(self.disk, .{ self.spare.file, disk_.none }, self.spare.stat.size, self.background);
        self.spare = .{};
    }

    /// Space that was kept for what may come, or that a record took which a base replaces, is given back: true
    /// when there was some.
    pub fn giveRoomBack(self: *Image) bool {
        if (self.room.drop(self)) {
            self.disposal.wait();
            return true;
        }
        const generation = self.generation orelse return false;
        // Of a log that is dead a record may be found after a crash (R2); any other tail is a record given up.
        if (self.dead or (generation.room_end <= generation.log_end and !generation.tail)) return false;
        if (self.disk.truncate(generation.log, generation.log_end) != null) return false;
        generation.log_size = generation.log_end;
        generation.forgetZeros();
        generation.tail = false;
        return true;
    }

    /// In a forked child: gives up the descriptors, which share their locks with the parent's.
    /// Takes no lock and frees nothing; later calls are FORKED.
    pub fn afterFork(self: *Image) void {
        self.forked = true;
        self.here.forked = true;
        self.told_lock = .{};
        self.fold.afterFork(self.disk);
        self.warming.afterFork();
        self.ahead.afterFork();
        self.room.afterFork();
        self.closeFiles();
    }

    pub fn path(self: *const Image) []const u8 {
        return self.path_buffer;
    }

    /// The image's last commit; null when it holds none.
    pub fn head(self: *const Image) ?Head {
        const generation = self.generation orelse return null;
        return generation.headOf(generation.last());
    }

    pub fn identity(self: *const Image) ?Identity {
        const generation = self.generation orelse return null;
        return generation.identityOf(generation.last());
    }

    /// Waits for nobody: while a commit or a fold's last step is under way it is what was so before.
    pub fn info(self: *Image) Info {
        if (self.mutex.tryLock()) {
            self.noteInfo();
            self.mutex.unlock();
        }
        self.told_lock.lock();
        defer self.told_lock.unlock();
        return self.told;
    }

    /// Called with the mutex held, when what `info` tells has changed.
    pub fn noteInfo(self: *Image) void {
        const generation = self.generation orelse return;
        self.told_lock.lock();
        defer self.told_lock.unlock();
        self.told = .{
            .epoch = generation.headOf(generation.last()).epoch,
            .base_bytes = generation.base_stat.size,
            .log_bytes = generation.log_end,
            .folds = self.fold.done,
            .fold_failures = self.fold.failures,
        };
    }

    /// The commits along the current line that can be gone back to, oldest first.
    pub fn epochs(self: *Image, allocator: std.mem.Allocator) errors.Error![]Epoch {
        try self.check();
        self.mutex.lock();
        defer self.mutex.unlock();
        const generation = self.generation orelse return &.{};
        var chain = try table_.Chain.init(generation, generation.last(), self.path());
        defer chain.deinit();
        const list = allocator.alloc(Epoch, chain.records.items.len + 1) catch return generation_.outOfMemory(self.path());
        const header = generation.header;
        list[0] = .{
            .epoch = header.epoch,
            .time_ms = header.time / std.time.ns_per_ms,
            .pages = header.page_count,
            .bytes = generation.base_stat.size,
        };
        for (list[1..], chain.records.items) |*epoch, index| {
            const record = &generation.records.items[index];
            epoch.* = .{
                .epoch = record.epoch,
                .time_ms = record.time / std.time.ns_per_ms,
                .pages = record.sums.len,
                .bytes = record.len,
            };
        }
        return list;
    }

    /// The commit to build a heap from: the last one, or that of an epoch, on any line.
    pub fn point(self: *Image, epoch: ?u64) errors.Error!Point {
        try self.check();
        self.mutex.lock();
        defer self.mutex.unlock();
        const generation = self.generation orelse
            return failAs(.NO_COMMIT, .{ .path = self.path() }, "Cannot restore from image \"{s}\": nothing was committed to it yet", .{self.path()});
        const wanted = epoch orelse {
            if (generation.damage) |damage| return damaged(self.path(), damage);
            return self.pointAt(generation.last());
        };
        var at = generation.records.items.len;
        while (at > 0) {
            at -= 1;
            if (generation.records.items[at].epoch == wanted) return self.pointAt(.{ .record = at });
        }
        if (generation.header.epoch == wanted) return self.pointAt(.base);
        return failAs(.NO_EPOCH, .{ .path = self.path() }, "Cannot restore epoch {d} from image \"{s}\": it holds epochs {d} to {d}", .{
            wanted, self.path(), generation.header.epoch, generation.headOf(generation.last()).epoch,
        });
    }

    fn pointAt(self: *const Image, at: generation_.Point) Point {
        const generation = self.generation.?;
        return .{ .at = at, .head = generation.headOf(at), .identity = generation.identityOf(at) };
    }

    /// Where a point is now: a fold may have moved it since it was taken.
    pub fn locate(self: *const Image, from: Point) errors.Error!generation_.Point {
        if (self.generation) |generation| if (generation.find(from.head.commit)) |at| return at;
        return failAs(.NO_EPOCH, .{ .path = self.path() }, "Cannot restore epoch {d} from image \"{s}\": it was folded away meanwhile", .{ from.head.epoch, self.path() });
    }

    /// Lays the heap at `from` over `[address, address + usable_len)`, which lies in a range that the
    /// caller has reserved; it becomes readable and writable. On an error it may be half laid.
    pub fn build(self: *Image, from: Point, address: usize, usable_len: u64) errors.Error!BuildReport {
        try self.check();
        self.mutex.lock();
        defer self.mutex.unlock();
        return mapping.build(self, try self.locate(from), address, usable_len);
    }

    /// The heap that was built from here is at `address` now: pages are mapped ahead of a program that
    /// reads it in order, until the first commit or restore.
    pub fn readAhead(self: *Image, address: usize) void {
        const generation = self.generation orelse return;
        if (self.background) self.ahead.start(address, generation.runs);
    }

    /// Reads every page of `from`: CORRUPT names the first that does not match its checksum.
    pub fn verify(self: *Image, from: Point) errors.Error!void {
        try self.check();
        self.mutex.lock();
        defer self.mutex.unlock();
        return mapping.verify(self, try self.locate(from));
    }

    /// The heap's memory is now exactly `from`: history goes on from there.
    pub fn adopt(self: *Image, history: *History, from: Point) errors.Error!void {
        try self.check();
        self.mutex.lock();
        defer self.mutex.unlock();
        const at = try self.locate(from);
        const generation = self.generation.?;
        try self.resetPages(from.identity.span);
        const line_begun = history.line_begun;
        history.adopt(from.head, &self.lines, generation.epochMax()) catch return generation_.outOfMemory(self.path());
        if (plant.is(.r12_no_new_line)) history.line_begun = line_begun;
        self.history = history;
        self.standing = from.head.commit;
        self.compare_all = false;
        self.adopted = true;
        _ = at;
        if (generation.damage != null) self.stepOver();
        self.noteInfo();
        fold_.considerIdle(self);
    }

    /// What is damaged is not written to: the next commit makes another image beside it.
    pub fn stepOver(self: *Image) void {
        self.dead = true;
        self.set_aside = true;
    }

    /// The image is open beside a heap that was not taken from it (R11). `other` is the heap's other
    /// image; `span` the heap's range in bytes.
    pub fn join(self: *Image, history: *History, span: u64, other: ?*Image) errors.Error!void {
        try self.check();
        self.mutex.lock();
        defer self.mutex.unlock();
        try self.resetPages(span);
        self.history = history;
        self.standing = null;
        self.compare_all = !plant.is(.r11_pending_starts_empty);
        self.adopted = false;
        const generation = self.generation orelse return;
        self.noteInfo();
        if (generation.damage != null) self.stepOver();
        const last = generation.headOf(generation.last());
        history.meet(last, &self.lines, generation.epochMax()) catch return generation_.outOfMemory(self.path());
        const current = history.current orelse return;
        if (generation.header.heap.span != span or !std.mem.eql(u8, &last.heap, &current.heap)) return;
        const at = self.nearest(current, &history.lines) orelse return;
        self.standing = generation.headOf(at).commit;
        if (self.standing != current.commit or (history.stray and !plant.is(.r11_stray_forgotten))) return;
        const beside = other orelse {
            self.compare_all = false;
            return;
        };
        if (beside.standing != current.commit or beside.compare_all or beside.inflight_failed) return;
        if (!plant.is(.r11_other_pending_left)) self.pending.merge(&beside.pending);
        self.compare_all = false;
    }

    /// The newest commit here that `current` is or descends from.
    fn nearest(self: *const Image, current: Head, lines: *const history_.Lines) ?generation_.Point {
        const generation = self.generation.?;
        if (generation.damage != null) return null;
        if (generation.find(current.commit)) |at| return at;
        var at: ?generation_.Point = generation.last();
        while (at) |candidate| : (at = generation.parentOf(candidate)) {
            switch (history_.relate(generation.headOf(candidate), &self.lines, current, lines)) {
                .same, .ancestor => return candidate,
                else => {},
            }
        }
        return null;
    }

    fn resetPages(self: *Image, span: u64) errors.Error!void {
        self.forgetPages();
        self.pending = PageSet.init(span / format.page_size) catch return generation_.outOfMemory(self.path());
        self.inflight = PageSet.init(span / format.page_size) catch return generation_.outOfMemory(self.path());
    }

    fn forgetPages(self: *Image) void {
        self.pending.deinit();
        self.inflight.deinit();
        self.inflight_failed = false;
        if (self.table) |*table| table.deinit();
        self.table = null;
    }

    /// Free pages that were written to have been told of, and will not be again: should they be in use
    /// at the next commit, they are compared.
    pub fn expectWrites(self: *Image, holes: []const PageRange) void {
        for (holes) |range| self.pending.setRange(range.first, range.count);
    }

    /// Looks, before the heap is held, whether a commit will need all of the heap's pages, and how many
    /// its base has. Reads the stored checksums when they will be compared with. No commit may be under way.
    pub fn outlook(self: *Image, of: *const Identity, compare: bool) errors.Error!struct { whole: bool, base_pages: u64 = 0 } {
        try self.expectWritable();
        self.mutex.lock();
        defer self.mutex.unlock();
        const generation = self.generation orelse return .{ .whole = true };
        if (self.set_aside or !commit_.sameRange(&generation.header.heap, of)) return .{ .whole = true };
        const at = generation.find(self.standing orelse return .{ .whole = true }) orelse return .{ .whole = true };
        if (self.table == null and (compare or self.compare_all)) {
            self.table = try table_.Table.load(generation, self.disk, at, self.path());
        }
        return .{ .whole = false, .base_pages = generation.header.page_count };
    }

    pub const Choice = struct {
        kept: *const PageSet,
        /// Scratch.
        wanted: *PageSet,
        memory: usize,
        whole: bool,
        /// No commit to this image is under way: what failed ones left is this one's, too, and the
        /// stored checksums are those of the last commit.
        alone: bool,
        /// Many pages are told that did not change.
        compare: bool,
        other: ?*Image,
    };

    /// Notes what a commit has to copy aside. Under the hold; nothing is changed before `taken`.
    pub fn choose(self: *Image, capture: *Capture, choice: Choice) error{OutOfMemory}!void {
        const wanted = choice.wanted;
        wanted.clear();
        wanted.merge(&self.pending);
        if (choice.alone) wanted.merge(&self.inflight);
        capture.candidates.clearRetainingCapacity();
        try capture_.addRuns(wanted, &capture.candidates);
        capture.held_all = self.compare_all;
        capture.complete = choice.whole or (self.compare_all and (!choice.alone or self.table == null));
        if (self.compare_all or capture.complete) {
            wanted.clear();
            wanted.merge(choice.kept);
        } else wanted.intersect(choice.kept);
        if (!capture.complete and choice.alone and (choice.compare or self.compare_all)) {
            if (self.table) |*table| leaveChanged(wanted, table, choice.memory);
        }
        if (!capture.complete and choice.alone and wanted.count() > @max(self.base_pages_min, choice.kept.count() / 2)) {
            capture.complete = true;
            wanted.clear();
            wanted.merge(choice.kept);
        }
        try capture.choose(wanted);
        if (capture.other) |*told| told.clearRetainingCapacity();
        if (choice.other) |other| if (!other.compare_all) {
            if (capture.other == null) capture.other = .empty;
            try capture_.addRuns(&other.pending, &capture.other.?);
        };
    }

    fn leaveChanged(wanted: *PageSet, table: *const table_.Table, memory: usize) void {
        var runs = wanted.iterate();
        while (runs.next()) |run| for (run.first..run.end()) |page| {
            const at: capture_.Page = @ptrFromInt(memory + page * format.page_size);
            if (format.pageSum(at) == table.get(page)) wanted.unset(page);
        };
    }

    /// What was chosen has been copied: the next commit begins here. (That all must be compared may
    /// have become known since it was chosen, from a commit that failed meanwhile.)
    pub fn taken(self: *Image, capture: *const Capture, holes: []const PageRange) void {
        self.pending.clear();
        if (capture.held_all) self.compare_all = false;
        self.expectWrites(holes);
    }

    /// The commit of a capture failed and no later one has it.
    pub fn pendingAgain(self: *Image, capture: *const Capture) void {
        for (capture.candidates.items) |range| self.inflight.setRange(range.first, range.count);
        self.inflight_failed = true;
        if (capture.held_all) self.compare_all = true;
    }

    /// Begins a commit: waits until an earlier one, or a fold's last step, is over.
    pub fn begin(self: *Image) errors.Error!Commit {
        try self.expectWritable();
        self.mutex.lock();
        return .{ .image = self };
    }

    fn expectWritable(self: *const Image) errors.Error!void {
        try self.check();
        if (self.mode == .read) {
            return failAs(.READ_ONLY, .{ .path = self.path() }, "Cannot commit to image \"{s}\": it is open for reading; open it with \"r+\"", .{self.path()});
        }
        if (self.history == null) {
            return failAs(.INVALID_ARGUMENT, .{ .path = self.path() }, "Cannot commit to image \"{s}\": no heap has adopted or joined it", .{self.path()});
        }
    }

    /// Ends a fold that runs, without its effect, and waits for it (R6).
    pub fn cancelFold(self: *Image) void {
        if (plant.is(.r6_restore_beside_fold)) return;
        self.fold.cancel(self.disk);
    }

    /// Folds now, on this thread: true when a new base came of it.
    pub fn foldNow(self: *Image) errors.Error!bool {
        try self.check();
        return fold_.runHere(self);
    }

    fn check(self: *const Image) errors.Error!void {
        if (self.forked) {
            return failAs(.FORKED, .{ .path = self.path_buffer }, "Cannot use image \"{s}\": it belongs to the process that this one was forked from", .{self.path_buffer});
        }
    }
};

pub const relate = history_.relate;

/// How the last commits of two open images stand to each other.
pub fn relation(a: *const Image, b: *const Image) Relation {
    return history_.relate(a.head().?, &a.lines, b.head().?, &b.lines);
}

pub fn damaged(path: []const u8, damage: generation_.Damage) errors.Error {
    return failAs(.CORRUPT, .{ .path = path, .epoch = damage.epoch_before }, "Cannot open image \"{s}\" at its last commit: record {d} of its log, after epoch {d}, is damaged; restore({{ epoch: {d} }}) or an earlier one is whole", .{
        path, damage.sequence, damage.epoch_before, damage.epoch_before,
    });
}

test {
    _ = ahead_;
    _ = capture_;
    _ = disk_;
    _ = page_set;
    _ = format;
    _ = history_;
    _ = names;
    _ = @import("laying.zig");
    _ = @import("reading.zig");
    _ = room_;
    _ = @import("test_commit.zig");
    _ = @import("test_copy.zig");
    _ = @import("test_edges.zig");
    _ = @import("test_idle.zig");
    _ = @import("test_faults.zig");
    _ = @import("test_found.zig");
    _ = @import("test_images.zig");
    _ = @import("test_power.zig");
    _ = @import("test_shared.zig");
    _ = @import("sim/sim.zig");
}
