//! The file of a shared heap: two slots that say what stands in it, then the heap itself, stored to
//! by the kernel at moments of its own (docs/format.md has the bytes). It is no image: it holds one
//! state, and no checksum of a page.
//!
//! Invariants: while a program may store to the heap the newest slot on the medium carries the mark;
//! it goes only after everything that was stored has been synced. Slots are written in turn, so a
//! torn one leaves the other. What stands at the path is replaced by the first flush that succeeds
//! and not before.

const os = @import("../os/os.zig");
const std = @import("std");
const errors = @import("../errors.zig");
const claim = @import("claim.zig");
const disk_ = @import("disk.zig");
const format = @import("format.zig");
const generation_ = @import("generation.zig");
const here = @import("here.zig");
const history_ = @import("history.zig");
const names = @import("names.zig");
const plant = @import("../plant.zig");
const Disk = disk_.Disk;
const Held = claim.Held;
const failAs = disk_.failAs;
const page_size = format.page_size;

pub const magic: u64 = @bitCast(@as([8]u8, "PERMshar".*));
pub const version: u32 = 1;

/// A slot and its lines; two of them stand before the heap.
pub const slot_len = page_size + format.lines_max * @sizeOf(format.Line);
/// Where the heap's first byte is: byte n of the heap stands n bytes behind it.
pub const heap_offset = 2 << 20;

pub const Mark = enum(u64) {
    /// The heap is what was flushed last.
    whole = 0,
    /// A program has it open, or ended without closing it.
    in_use = 1,
    _,
};

pub const Slot = extern struct {
    magic: u64 = magic,
    version: u32 = version,
    page_size: u32 = page_size,
    file: [16]u8 = @splat(0),
    commit: format.CommitId = 0,
    heap: format.Identity = .{},
    /// The slot with the higher number counts.
    sequence: u64 = 0,
    epoch: u64 = 0,
    epoch_max: u64 = 0,
    line: u64 = 0,
    /// Nanoseconds since 1970.
    time: u64 = 0,
    mark: u64 = 0,
    line_count: u64 = 0,
    lines_checksum: u64 = 0,
    reserved: [4096 - 192]u8 = @splat(0),
    checksum: u64 = 0,

    fn hash(self: *const Slot) u64 {
        return format.hash(std.mem.asBytes(self)[0..@offsetOf(Slot, "checksum")]);
    }

    pub fn head(self: *const Slot) history_.Head {
        return .{ .heap = self.heap.uuid, .line = self.line, .epoch = self.epoch, .commit = self.commit };
    }
};

comptime {
    std.debug.assert(@sizeOf(Slot) == page_size);
    std.debug.assert(@offsetOf(Slot, "commit") == 32);
    std.debug.assert(@offsetOf(Slot, "heap") == 48);
    std.debug.assert(@offsetOf(Slot, "sequence") == 120);
    std.debug.assert(@offsetOf(Slot, "mark") == 160);
    std.debug.assert(@offsetOf(Slot, "lines_checksum") == 176);
    std.debug.assert(@offsetOf(Slot, "checksum") == 4088);
    std.debug.assert(slot_len % page_size == 0 and 2 * slot_len <= heap_offset);
}

/// What is kept beside the file when it rests, which takes no sync and no store: that nothing was stored to
/// it since the flush of that slot, as long as its date, or the sum of its contents, is this. Whoever finds
/// the mark of a program that was killed believes it while the page cache is the one that the program stored to
/// (`Disk.witness`): after a power cut pages may be stored that the date does not tell of.
const Note = extern struct {
    sequence: u64,
    witness: u64,
    /// One of the two is 0.
    date: u64,
    sum: u64,
    checksum: u64 = 0,

    fn hash(self: *const Note) u64 {
        return format.hash(std.mem.asBytes(self)[0..@offsetOf(Note, "checksum")]);
    }
};

/// What tells that nothing was stored since.
pub const Rest = union(enum) {
    date: i64,
    /// Of the contents: who opens the file compares it.
    sum: u64,
};

pub const Mode = enum { create, write, read };

pub const Options = struct {
    disk: Disk = .real,
    path: []const u8,
    mode: Mode,
    /// Take a heap that was not closed as it stands.
    recover: bool = false,
    /// Let `create` replace what is neither a shared heap nor an image.
    replace: bool = false,
};

/// What a slot says of the heap.
pub const State = struct {
    head: history_.Head,
    heap: format.Identity,
    epoch_max: u64,
    mark: Mark,
};

pub const SharedFile = struct {
    disk: Disk,
    place: names.Place,
    path_buffer: []u8,
    mode: Mode,
    uuid: [16]u8 = @splat(0),
    /// The heap's file, locked.
    file: Held = .{},
    /// It stands under `-new`, and takes the path with the first flush.
    unfinished: bool = false,
    /// It has the path, but the directory was not synced since.
    name_unsynced: bool = false,
    /// What stands at the path meanwhile.
    replaced: Held = .{},
    /// The newest slot that is known to be on the medium; null while there is none.
    state: ?State = null,
    sequence: u64 = 0,
    /// The file was left with its mark, and rests all the same if this is the sum of its contents.
    sum: ?u64 = null,
    lines: history_.Lines = .{},
    /// The newest slot was read, and may never have reached the medium: a sync may have failed.
    unsettled: bool = false,
    /// A sync failed: what it did not store counts as stored until it is changed.
    sync_failed: bool = false,
    here: here.Entry,
    forked: bool = false,

    const allocator = os.page_allocator;

    /// Opens or claims a file. The result is at a stable address until `close`.
    pub fn open(options: Options) errors.Error!*SharedFile {
        const disk = options.disk;
        var place = try names.resolve(disk, options.path);
        errdefer disk.close(&place.dir);
        const path_buffer = allocator.dupe(u8, options.path) catch return generation_.outOfMemory(options.path);
        errdefer allocator.free(path_buffer);
        const self = allocator.create(SharedFile) catch return generation_.outOfMemory(options.path);
        errdefer allocator.destroy(self);
        self.* = .{
            .disk = disk,
            .place = place,
            .path_buffer = path_buffer,
            .mode = options.mode,
            .here = .{ .disk = disk, .place = place },
        };
        errdefer self.dropFiles();
        (switch (options.mode) {
            .create => self.claimPath(options),
            .write => self.openToWrite(options.recover),
            .read => self.openToRead(options.recover),
        }) catch |err| return here.refine(err, disk, place, options.path);
        if (options.mode != .read) here.add(&self.here);
        return self;
    }

    /// Closes the files; removes a claim that was never used. The mark stays as it is.
    pub fn close(self: *SharedFile) void {
        self.dropFiles();
        if (self.mode != .read) here.remove(&self.here);
        self.disk.close(&self.place.dir);
        allocator.free(self.path_buffer);
        allocator.destroy(self);
    }

    fn dropFiles(self: *SharedFile) void {
        if (!self.forked) {
            if (self.unfinished) claim.unlinkNew(self.disk, self.place, self.file.stat);
            self.disk.release(&self.file.file);
            self.disk.release(&self.replaced.file);
        } else self.closeDescriptors();
        self.lines.deinit();
    }

    fn closeDescriptors(self: *SharedFile) void {
        self.disk.close(&self.file.file);
        self.disk.close(&self.replaced.file);
    }

    /// In a forked child: gives up the descriptors, which share their locks with the parent's.
    pub fn afterFork(self: *SharedFile) void {
        self.forked = true;
        self.here.forked = true;
        self.closeDescriptors();
    }

    pub fn path(self: *const SharedFile) []const u8 {
        return self.path_buffer;
    }

    // ---- opening

    fn claimPath(self: *SharedFile, options: Options) errors.Error!void {
        const disk = self.disk;
        try claim.claimPath(disk, self.place, self.path(), &self.file, &self.replaced);
        self.unfinished = true;
        if (self.replaced.file >= 0) {
            try self.mayReplace(options.replace);
            _ = disk.setMode(self.file.file, self.replaced.stat.mode);
        }
        try self.expectInPlace();
        self.uuid = @bitCast(disk.randomId());
    }

    fn mayReplace(self: *SharedFile, replace: bool) errors.Error!void {
        if (replace or self.replaced.stat.size == 0) return;
        var found: u64 = 0;
        const readable = self.disk.readAll(self.replaced.file, std.mem.asBytes(&found), 0) == null;
        if (readable and (found == magic or found == format.base_magic)) return;
        return failAs(.EXISTS, .{ .path = self.path() }, "Cannot make shared heap \"{s}\": a file that is no heap's stands there; move it, or pass replace: true", .{self.path()});
    }

    fn expectInPlace(self: *SharedFile) errors.Error!void {
        if (self.disk.staysInPlace(self.file.file)) return;
        return failAs(.UNSUPPORTED, .{ .path = self.path() }, "Cannot use shared heap \"{s}\" here: this file system may need new room for each change, so that a full disk would end the program; put the file on ext4, XFS or tmpfs", .{self.path()});
    }

    fn openToWrite(self: *SharedFile, recover: bool) errors.Error!void {
        const held = claim.openBase(self.disk, self.place, true, self.path()) catch |err| {
            return if (err == error.BUSY) busy(self.path()) else err;
        };
        self.file = held orelse return notFound(self.path());
        try self.load();
        if (self.state.?.mark != .whole and !recover) try self.expectRest();
        try self.expectInPlace();
        // Who gave the file its name may have ended before the directory was synced.
        self.name_unsynced = true;
    }

    fn openToRead(self: *SharedFile, recover: bool) errors.Error!void {
        self.file = try claim.openBase(self.disk, self.place, false, self.path()) orelse return notFound(self.path());
        switch (self.disk.lockShared(self.file.file)) {
            .locked => {},
            .busy => return failAs(.BUSY, .{ .path = self.path() }, "Cannot read shared heap \"{s}\": a program that may change it has it open, and it holds no other state; read its backup, or wait", .{self.path()}),
            .errno => |errno| return disk_.failErrno(errno, self.path(), "Cannot lock shared heap"),
        }
        try self.load();
        if (self.state.?.mark != .whole and !recover) try self.expectRest();
    }

    /// A program that was killed with nothing stored since its last flush left it whole.
    fn expectRest(self: *SharedFile) errors.Error!void {
        var note: Note = undefined;
        const disk = self.disk;
        const file = self.file.file;
        if (self.state.?.mark != .in_use or !disk.getNote(file, std.mem.asBytes(&note)) or note.checksum != note.hash()) return self.notWhole();
        if (note.sequence != self.sequence) return self.notWhole();
        const witness = disk.witness(file) orelse return self.notWhole();
        if (note.witness != witness and !plant.is(.shared_note_believed)) return self.notWhole();
        if (note.date != 0) {
            if (note.date != disk.date(file) orelse 0) return self.notWhole();
        } else if (note.sum != 0) self.sum = note.sum else return self.notWhole();
        self.state.?.mark = .whole;
    }

    /// Notes that since the slot that was settled last nothing was stored, as `rest` tells. Not before its
    /// sync returned: until then a store to a page that was stored to before dates nothing.
    pub fn noteRest(self: *SharedFile, rest: Rest) void {
        var note: Note = .{ .sequence = self.sequence, .witness = 0, .date = 0, .sum = 0 };
        switch (rest) {
            .date => |date| note.date = @intCast(date),
            .sum => |sum| note.sum = sum,
        }
        note.witness = @intCast(self.disk.witness(self.file.file) orelse return);
        note.checksum = note.hash();
        self.disk.setNote(self.file.file, std.mem.asBytes(&note));
    }

    pub fn notWhole(self: *const SharedFile) errors.Error {
        return failAs(.CORRUPT, .{ .path = self.path() }, "Cannot open shared heap \"{s}\": the program that had it open ended without closing it, or closed it with changes that were not flushed (the last flush was epoch {d}), and what stands there may be half of a change; make it anew with \"w+\" and restore() a backup, or open it with `recover: true` to take it as it is", .{
            self.path(), self.state.?.head.epoch,
        });
    }

    /// Reads both slots and takes the newer one.
    fn load(self: *SharedFile) errors.Error!void {
        const disk = self.disk;
        const buffer = allocator.alignedAlloc(u8, .fromByteUnits(page_size), 2 * slot_len) catch return generation_.outOfMemory(self.path());
        defer allocator.free(buffer);
        const size = self.file.stat.size;
        if (size < heap_offset) {
            var found: u64 = 0;
            if (size >= 8) _ = disk.readAll(self.file.file, std.mem.asBytes(&found), 0);
            return if (found == magic) self.corrupt("it ends within its header") else self.notShared(found);
        }
        if (disk.readAll(self.file.file, buffer, 0)) |errno| return disk_.failErrno(errno, self.path(), "Cannot read shared heap");
        var newest: ?*const Slot = null;
        var seen = false;
        var foreign: ?u32 = null;
        for (0..2) |index| {
            const slot: *const Slot = @ptrCast(@alignCast(&buffer[index * slot_len]));
            if (slot.magic != magic) continue;
            seen = true;
            if (slot.version != version) {
                foreign = slot.version;
                continue;
            }
            if (slot.checksum != slot.hash() or slot.line_count > format.lines_max) continue;
            if (slot.lines_checksum != format.hash(linesOf(slot))) continue;
            if (newest == null or slot.sequence > newest.?.sequence) newest = slot;
        }
        const slot = newest orelse {
            if (foreign) |number| return failAs(.BAD_VERSION, .{ .path = self.path() }, "Cannot open shared heap \"{s}\": format version is {d}, this library reads {d}", .{ self.path(), number, version });
            if (seen) return self.corrupt("its header does not match its checksum");
            return self.notShared(@as(*const Slot, @ptrCast(@alignCast(buffer.ptr))).magic);
        };
        if (slot.page_size != page_size) return self.corrupt("its page size is not 4,096");
        if (!slot.heap.isSane()) return self.corrupt("its heap's address or sizes are impossible");
        if (slot.epoch > format.epoch_limit or slot.epoch_max > format.epoch_limit or slot.epoch == 0 or slot.sequence > format.epoch_limit)
            return self.corrupt("its numbers are impossible");
        self.uuid = slot.file;
        self.sequence = slot.sequence;
        self.unsettled = true;
        self.lines.addAll(@alignCast(std.mem.bytesAsSlice(format.Line, linesOf(slot)))) catch return generation_.outOfMemory(self.path());
        self.state = .{
            .head = slot.head(),
            .heap = slot.heap,
            .epoch_max = slot.epoch_max,
            .mark = @enumFromInt(slot.mark),
        };
    }

    /// The lines that stand behind a slot in memory.
    fn linesOf(slot: *const Slot) []const u8 {
        const behind: [*]const u8 = @ptrCast(slot);
        return behind[page_size..][0 .. slot.line_count * @sizeOf(format.Line)];
    }

    fn notShared(self: *const SharedFile, found: u64) errors.Error {
        const what = if (found == format.base_magic)
            "it is an image of a heap; open it without `shared`, or make a shared heap with \"w+\" and restore() the image"
        else
            "it is no shared heap";
        return failAs(.NOT_AN_IMAGE, .{ .path = self.path() }, "Cannot open \"{s}\" as a shared heap: {s}", .{ self.path(), what });
    }

    pub fn corrupt(self: *const SharedFile, comptime what: []const u8) errors.Error {
        return failAs(.CORRUPT, .{ .path = self.path() }, "Cannot open shared heap \"{s}\": " ++ what ++ "; make it anew with \"w+\" and restore() a backup", .{self.path()});
    }

    /// The same file opened once more: a mapping keeps its opening alive, and with it the lock.
    pub fn openToMap(self: *SharedFile) errors.Error!disk_.File {
        return self.openAgain(if (self.unfinished) self.place.name.unfinished() else self.place.name, self.file, self.unfinished);
    }

    fn openAgain(self: *SharedFile, name: names.Name, held: Held, is_own: bool) errors.Error!disk_.File {
        const disk = self.disk;
        var opened = disk.open(self.place.dir, name.z(), .{ .write = self.mode != .read });
        if (is_own and opened == .errno and opened.errno == disk_.code(.ACCES)) {
            // An umask, or the mode of the file that is replaced, kept its own maker out.
            var made: disk_.Stat = .{};
            if (disk.stat(held.file, &made) == null and disk.setMode(held.file, made.mode | 0o600) == null) {
                opened = disk.open(self.place.dir, name.z(), .{ .write = self.mode != .read });
                _ = disk.setMode(held.file, made.mode);
            }
        }
        var file = switch (opened) {
            .file => |one| one,
            .errno => |errno| return disk_.failErrno(errno, self.path(), "Cannot open shared heap once more"),
        };
        var stat: disk_.Stat = .{};
        const failed = disk.stat(file, &stat) != null;
        if (!failed and stat.device == held.stat.device and stat.inode == held.stat.inode) return file;
        disk.close(&file);
        return self.stale();
    }

    // ---- what stands in it

    /// Writes a slot over the older one. It counts once `settle` has returned.
    pub fn write(self: *SharedFile, state: State, lines: []const format.Line) errors.Error!void {
        var slot: Slot = .{
            .file = self.uuid,
            .commit = state.head.commit,
            .heap = state.heap,
            .sequence = self.sequence + 1,
            .epoch = state.head.epoch,
            .epoch_max = state.epoch_max,
            .line = state.head.line,
            .time = self.disk.now(),
            .mark = @intFromEnum(state.mark),
            .line_count = lines.len,
            .lines_checksum = format.hash(std.mem.sliceAsBytes(lines)),
        };
        slot.checksum = slot.hash();
        if (self.unsettled and !plant.is(.shared_slot_unsettled)) try self.settleFound();
        if (self.sync_failed and !plant.is(.shared_length_unchanged)) try self.changeLength();
        const at = if (plant.is(.shared_slot_over)) 0 else self.sequence % 2 * slot_len;
        if (self.disk.writeAll(self.file.file, std.mem.sliceAsBytes(lines), at + page_size)) |errno| return self.writeFailed(errno);
        if (self.disk.writeAll(self.file.file, std.mem.asBytes(&slot), at)) |errno| return self.writeFailed(errno);
    }

    /// Puts the slot that was found on the medium, before the other one, which may be the only one there, is
    /// written over.
    fn settleFound(self: *SharedFile) errors.Error!void {
        const disk = self.disk;
        const at = (self.sequence -% 1) % 2 * slot_len;
        const buffer = allocator.alignedAlloc(u8, .fromByteUnits(page_size), slot_len) catch return generation_.outOfMemory(self.path());
        defer allocator.free(buffer);
        if (disk.readAll(self.file.file, buffer, at)) |errno| return disk_.failErrno(errno, self.path(), "Cannot read shared heap");
        const slot: *const Slot = @ptrCast(@alignCast(buffer.ptr));
        // Named, for the type of @min is as narrow as its bound, and the lines' bytes would not fit.
        const line_count: u64 = @min(slot.line_count, format.lines_max);
        const len = page_size + line_count * @sizeOf(format.Line);
        try self.changeLength();
        if (disk.writeAll(self.file.file, buffer[0..len], at)) |errno| return self.writeFailed(errno);
        if (disk.sync(self.file.file)) |errno| {
            self.sync_failed = true;
            return disk_.failErrno(errno, self.path(), "Cannot sync shared heap");
        }
        self.unsettled = false;
    }

    /// And sets it again.
    fn changeLength(self: *SharedFile) errors.Error!void {
        var stat: disk_.Stat = .{};
        if (self.disk.stat(self.file.file, &stat)) |errno| return self.writeFailed(errno);
        for ([_]u64{ stat.size + page_size, stat.size }) |len| {
            if (self.disk.truncate(self.file.file, len)) |errno| return self.writeFailed(errno);
        }
    }

    fn writeFailed(self: *const SharedFile, errno: disk_.Errno) errors.Error {
        return disk_.failErrno(errno, self.path(), "Cannot write the header of shared heap");
    }

    /// Puts all that was stored to the file on the medium, `written` with it, and gives the file its
    /// path if it has none yet.
    pub fn settle(self: *SharedFile, written: State) errors.Error!void {
        const disk = self.disk;
        if (if (plant.is(.shared_sync)) null else disk.sync(self.file.file)) |errno| {
            self.sync_failed = true;
            return disk_.failErrno(errno, self.path(), "Cannot sync shared heap");
        }
        self.sync_failed = false;
        self.sequence += 1;
        self.state = written;
        if (self.unfinished) try self.takePath();
        if (self.name_unsynced) {
            if (plant.is(.shared_left_early)) self.removeLeft();
            if (if (plant.is(.shared_sync_dir)) null else disk.syncDir(self.place.dir)) |errno| return disk_.failErrno(errno, self.path(), "Cannot sync the directory of shared heap");
            self.name_unsynced = false;
            disk.release(&self.replaced.file);
            // Only now: until then a power cut might have brought back what these belong to.
            self.removeLeft();
        }
    }

    fn removeLeft(self: *SharedFile) void {
        claim.removeStale(self.disk, self.place, "");
        var left = claim.removeStaleNew(self.disk, self.place, "") catch claim.Held{};
        self.disk.close(&left.file);
    }

    fn takePath(self: *SharedFile) errors.Error!void {
        const disk = self.disk;
        const unfinished = self.place.name.unfinished();
        const named = disk.names(self.place.dir, self.place.name.z(), self.replaced.stat);
        const replace = switch (named) {
            .same => self.replaced.file >= 0,
            .free => false,
            .other => return self.stale(),
            .errno => |errno| return disk_.failErrno(errno, self.path(), "Cannot look for shared heap"),
        };
        if (disk.names(self.place.dir, unfinished.z(), self.file.stat) != .same) return self.stale();
        if (claim.takeName(disk, self.place.dir, unfinished, self.place.name, replace)) |errno| {
            if (errno == disk_.code(.EXIST)) return self.stale();
            return disk_.failErrno(errno, self.path(), "Cannot give shared heap its name");
        }
        self.unfinished = false;
        self.name_unsynced = true;
    }

    fn stale(self: *const SharedFile) errors.Error {
        return failAs(.STALE, .{ .path = self.path() }, "Cannot flush shared heap \"{s}\": another file took its place; backup() it, then open the file again", .{self.path()});
    }

    /// Whether the path still names the file that the heap is in.
    pub fn expectNamed(self: *SharedFile) errors.Error!void {
        if (self.unfinished) return;
        switch (self.disk.names(self.place.dir, self.place.name.z(), self.file.stat)) {
            .same => {},
            .other, .free => return self.stale(),
            .errno => |errno| return disk_.failErrno(errno, self.path(), "Cannot look for shared heap"),
        }
    }

    // ---- a heap that comes instead

    /// A file that a restored heap is written to; it has no part in the heap before `succeed`.
    pub const Successor = struct {
        held: Held = .{},
        name: names.Name = .{},
    };

    pub fn beginSuccessor(self: *SharedFile) errors.Error!Successor {
        const disk = self.disk;
        // Its first sector stays zero until a flush: found after a crash, it is removed as a log is.
        var next: Successor = .{ .name = self.place.name.log(disk.randomWord()) };
        next.held.file = switch (disk.open(self.place.dir, next.name.z(), .{ .write = true, .create = true })) {
            .file => |file| file,
            .errno => |errno| return disk_.failErrno(errno, self.path(), "Cannot make a file beside shared heap"),
        };
        errdefer self.dropSuccessor(&next);
        switch (disk.lock(next.held.file)) {
            .locked => {},
            .busy => return busy(self.path()),
            .errno => |errno| return disk_.failErrno(errno, self.path(), "Cannot lock the file beside shared heap"),
        }
        if (disk.stat(next.held.file, &next.held.stat)) |errno| return disk_.failErrno(errno, self.path(), "Cannot look at the file beside shared heap");
        _ = disk.setMode(next.held.file, self.file.stat.mode);
        return next;
    }

    pub fn openSuccessor(self: *SharedFile, next: *const Successor) errors.Error!disk_.File {
        return self.openAgain(next.name, next.held, true);
    }

    pub fn dropSuccessor(self: *SharedFile, next: *Successor) void {
        if (next.held.file < 0) return;
        if (self.disk.names(self.place.dir, next.name.z(), next.held.stat) == .same) _ = self.disk.unlink(self.place.dir, next.name.z());
        self.disk.release(&next.held.file);
    }

    /// The successor is the heap's file now, and takes the path with the next flush.
    pub fn succeed(self: *SharedFile, next: *Successor) errors.Error!void {
        const disk = self.disk;
        const unfinished = self.place.name.unfinished();
        if (!self.unfinished) {
            var left = try claim.removeStaleNew(disk, self.place, self.path());
            disk.close(&left.file);
        }
        if (claim.takeName(disk, self.place.dir, next.name, unfinished, self.unfinished)) |errno| return disk_.failErrno(errno, self.path(), "Cannot name the file beside shared heap");
        if (self.unfinished) disk.release(&self.file.file) else {
            disk.release(&self.replaced.file);
            self.replaced = self.file;
        }
        self.file = next.held;
        next.held = .{};
        self.unfinished = true;
        self.name_unsynced = false;
        self.state = null;
        self.sync_failed = false;
        self.sum = null;
        self.unsettled = false;
        self.sequence = 0;
        self.uuid = @bitCast(disk.randomId());
        self.lines.list.clearRetainingCapacity();
    }
};

fn busy(path: []const u8) errors.Error {
    return failAs(.BUSY, .{ .path = path }, "Cannot open shared heap \"{s}\": another program has it open; close it there", .{path});
}

fn notFound(path: []const u8) errors.Error {
    return failAs(.NOT_FOUND, .{ .path = path }, "Cannot open shared heap \"{s}\": there is no such file; make one with \"w+\"", .{path});
}
