//! A new base and its log, from `-new` to the rename that makes them the image (R3–R5).
//!
//! Invariant: until the rename the old generation is the image, whole and untouched; after the second
//! directory sync the new one is. Nothing is acknowledged and nothing unlinked in between.

const std = @import("std");
const errors = @import("../errors.zig");
const base_ = @import("base.zig");
const claim = @import("claim.zig");
const disk_ = @import("disk.zig");
const format = @import("format.zig");
const generation_ = @import("generation.zig");
const plant = @import("../plant.zig");
const record_ = @import("record.zig");
const Room = @import("room.zig").Room;
const scratch_ = @import("scratch.zig");
const Generation = generation_.Generation;
const Image = @import("image.zig").Image;
const Source = @import("capture.zig").Source;
const PageRange = @import("page_set.zig").PageRange;
const failAs = disk_.failAs;
const page_size = format.page_size;

pub const Successor = struct {
    image: *Image,
    generation: *Generation,
    new: claim.Held,
    scratch: *scratch_.Scratch,
    /// Bytes of `new` that are allocated: it is the image's spare.
    spare_len: u64 = 0,
    /// The base that this one replaces becomes the spare, its log the room of the new one: commits go on.
    keeps_spare: bool = false,

    /// Claims `-new`, makes the log and writes its first page.
    pub fn begin(image: *Image, scratch: *scratch_.Scratch) errors.Error!Successor {
        const disk = image.disk;
        const path = image.path();
        var self: Successor = .{
            .image = image,
            .generation = try Generation.create(),
            .new = image.new,
            .scratch = scratch,
        };
        image.new = .{};
        errdefer self.abort();
        if (self.new.file < 0) self.takeSpare();
        if (self.new.file < 0) {
            self.new = try claim.claimNew(disk, image.place, path);
        } else switch (disk.names(image.place.dir, image.place.name.unfinished().z(), self.new.stat)) {
            .same => {},
            else => return stale(path, "its unfinished base was taken away"),
        }
        self.generation.header.* = .{
            .image = if (image.set_aside) @bitCast(disk.randomId()) else image.uuid,
            .salt = disk.randomWord(),
            .keep = image.keep,
        };
        try self.makeLog();
        return self;
    }

    /// Nobody else may have it open: a reader of that base would see it change.
    fn takeSpare(self: *Successor) void {
        const image = self.image;
        const disk = image.disk;
        const held = &image.spare;
        if (held.file < 0) return;
        const named = disk.names(image.place.dir, image.place.name.unfinished().z(), held.stat) == .same;
        if (!named or (!disk.isSole(held.file) and !plant.is(.reuse_not_sole)) or disk.stat(held.file, &held.stat) != null) return image.dropSpare();
        self.new = held.*;
        self.spare_len = @min(held.stat.size, held.stat.allocated);
        held.* = .{};
    }

    fn makeLog(self: *Successor) errors.Error!void {
        const image = self.image;
        const disk = image.disk;
        const path = image.path();
        const generation = self.generation;
        const header = generation.header;
        for (0..8) |_| {
            header.log_name = disk.randomWord();
            generation.log_name = image.place.name.log(header.log_name);
            switch (disk.open(image.place.dir, generation.log_name.z(), .{ .write = true, .create = true })) {
                .file => |file| generation.log = file,
                .errno => |errno| {
                    if (errno == disk_.code(.EXIST)) continue;
                    return disk_.failErrno(errno, path, "Cannot make a log for image");
                },
            }
            break;
        } else return failAs(.IO, .{ .path = path }, "Cannot make a log for image \"{s}\": eight random names were taken", .{path});
        if (!plant.is(.r7_log_unlocked)) switch (disk.lock(generation.log)) {
            .locked => {},
            .busy => return claim.busy(path),
            .errno => |errno| return disk_.failErrno(errno, path, "Cannot lock the log of image"),
        };
        var first: format.LogHeader = .{ .image = header.image, .salt = header.salt, .name = header.log_name };
        first.seal();
        if (disk.writeAll(generation.log, std.mem.asBytes(&first), 0)) |errno| return disk_.failErrno(errno, path, "Cannot write the log of image");
        if (disk.stat(generation.log, &generation.log_stat)) |errno| return disk_.failErrno(errno, path, "Cannot write the log of image");
        generation.chain = first.checksum;
        generation.log_end = page_size;
        generation.log_size = page_size;
    }

    /// Fills the base with the heap's memory.
    pub fn baseFromMemory(self: *Successor, memory: Source, kept: *const @import("page_set.zig").PageSet, facts: record_.Facts) errors.Error!void {
        var writer: base_.Writer = try .init(self.image.disk, self.new.file, self.spare_len, self.image.pipe_size, self.scratch, self.image.path());
        try writer.addMemory(memory, kept);
        const header = self.generation.header;
        header.commit = facts.head.commit;
        header.parent = facts.parent;
        header.heap = facts.heap;
        header.epoch = facts.head.epoch;
        header.line = facts.head.line;
        header.time = facts.time;
        try self.finishBase(&writer, @max(facts.head.epoch, epochMaxOf(self.image)), facts.lines);
    }

    /// Fills the base with a commit that the image holds.
    pub fn baseFromPoint(self: *Successor, from: *const Generation, point: generation_.Point, epoch_max: u64, lines: []const format.Line, cancel: ?*const std.atomic.Value(bool)) errors.Error!void {
        var writer: base_.Writer = try .init(self.image.disk, self.new.file, self.spare_len, self.image.pipe_size, self.scratch, self.image.path());
        try writer.addGeneration(from, point, cancel);
        const header = self.generation.header;
        const head = from.headOf(point);
        header.commit = head.commit;
        header.parent = if (from.parentOf(point)) |parent| from.headOf(parent).commit else from.header.parent;
        header.heap = from.identityOf(point);
        header.epoch = head.epoch;
        header.line = head.line;
        header.time = switch (point) {
            .base => from.header.time,
            .record => |index| from.records.items[index].time,
        };
        try self.finishBase(&writer, epoch_max, lines);
    }

    fn finishBase(self: *Successor, writer: *base_.Writer, epoch_max: u64, lines: []const format.Line) errors.Error!void {
        const generation = self.generation;
        const path = self.image.path();
        generation.header.epoch_max = epoch_max;
        try writer.finish(generation.header, lines);
        const allocator = generation.arena.allocator();
        generation.runs = allocator.dupe(PageRange, self.scratch.runs.items) catch return generation_.outOfMemory(path);
        generation.lines = allocator.dupe(format.Line, lines) catch return generation_.outOfMemory(path);
    }

    /// Copies a record of the old generation to the end of the new log.
    pub fn copyRecord(self: *Successor, from: *const Generation, index: usize) errors.Error!void {
        var appender: record_.Appender = try .init(self.image.disk, self.generation, self.scratch, self.image.path());
        record_.accept(self.generation, try appender.copy(from, &from.records.items[index]));
    }

    /// Base and log to the medium: the long part, before anything is changed.
    pub fn sync(self: *Successor) errors.Error!void {
        const disk = self.image.disk;
        const path = self.image.path();
        if (self.mode()) |bits| if (disk.setMode(self.new.file, bits)) |errno| return disk_.failErrno(errno, path, "Cannot set the mode of the new base of image");
        if (self.mode()) |bits| if (disk.setMode(self.generation.log, bits)) |errno| return disk_.failErrno(errno, path, "Cannot set the mode of the log of image");
        if (if (plant.is(.sync_new_base)) null else disk.sync(self.new.file)) |errno| return disk_.failErrno(errno, path, "Cannot sync the new base of image");
        if (!plant.is(.sync_new_log)) try self.syncLog();
    }

    pub fn syncLog(self: *Successor) errors.Error!void {
        if (self.image.disk.sync(self.generation.log)) |errno| return disk_.failErrno(errno, self.image.path(), "Cannot sync the log of image");
    }

    /// The mode of the base that is replaced; new images are for their owner only.
    fn mode(self: *const Successor) ?u16 {
        const image = self.image;
        if (image.generation) |old| return old.base_stat.mode & 0o777;
        if (image.replaced.file >= 0) return image.replaced.stat.mode & 0o777;
        return null;
    }

    /// The rename, between its two directory syncs, and the change of generations. On an error before
    /// the rename the old generation stays; after it the image is `dead` until the next new base.
    pub fn install(self: *Successor) errors.Error!void {
        const image = self.image;
        const disk = image.disk;
        const path = image.path();
        const dir = image.place.dir;
        const name = image.place.name;
        if (image.set_aside) try self.keepDamaged();
        if (if (plant.is(.sync_dir_before_rename)) null else disk.syncDir(dir)) |errno| return disk_.failErrno(errno, path, "Cannot sync the directory of image");
        const replace = try self.mayTakePath() or plant.is(.r3_replace_free_path);
        if (disk.stat(self.new.file, &self.generation.base_stat)) |errno| return disk_.failErrno(errno, path, "Cannot look at the new base of image");
        const exchanged = replace and self.maySpare() and disk.exchange(dir, name.unfinished().z(), name.z()) == null;
        if (!exchanged) if (claim.takeName(disk, dir, name.unfinished(), name, replace)) |errno| {
            if (errno == disk_.code(.EXIST)) return stale(path, "another file took its place meanwhile");
            return disk_.failErrno(errno, path, "Cannot put the new base of image in its place");
        };
        const old = image.generation;
        const old_log = if (old) |before| before.log_name else null;
        const keep_log = image.set_aside;
        self.takeOver(exchanged);
        if (plant.is(.r3_unlink_before_dir_sync)) if (old_log) |log| {
            _ = disk.unlink(dir, log.z());
        };
        // Until the directory is synced the base before may be the one that is found again.
        if (if (plant.is(.sync_dir_after_rename)) null else disk.syncDir(dir)) |errno| {
            if (!plant.is(.reuse_unsure_exchange)) image.dropSpare();
            _ = image.room.drop(image);
            if (plant.is(.r3_ack_without_dir_sync)) return;
            image.dead = !plant.is(.r3_log_lives_on);
            return disk_.failErrno(errno, path, "Cannot sync the directory of image");
        }
        self.generation.sealLast(disk, image.sealed_len_min);
        if (keep_log) return;
        if (old_log) |log| {
            // While its log is there the base before can be read.
            if (image.room.held.file >= 0 and image.room.make(image, log)) return;
            if (disk.unlink(dir, log.z()) != null and !plant.is(.reuse_log_left)) image.dropSpare();
        } else claim.removeStale(disk, image.place, self.image.generation.?.log_name.slice());
    }

    /// The path must still name what we locked (STALE), or nothing at all.
    fn mayTakePath(self: *const Successor) errors.Error!bool {
        const image = self.image;
        const path = image.path();
        if (plant.is(.r3_path_unchecked)) return true;
        if (image.disk.names(image.place.dir, image.place.name.unfinished().z(), self.new.stat) != .same) {
            return stale(path, "its unfinished base was taken away");
        }
        const ours: disk_.Stat = if (image.generation) |old| old.base_stat else if (image.replaced.file >= 0) image.replaced.stat else .{};
        return switch (image.disk.names(image.place.dir, image.place.name.z(), ours)) {
            .same => true,
            .free => false,
            .other => stale(path, "another file took its place"),
            .errno => |errno| disk_.failErrno(errno, path, "Cannot look for image"),
        };
    }

    fn maySpare(self: *const Successor) bool {
        const old = self.image.generation orelse return false;
        if (self.image.maps_own_files and !plant.is(.reuse_own_map)) return false;
        return self.keeps_spare and (!self.image.set_aside or plant.is(.reuse_damaged)) and old.base_stat.size >= self.image.spare_len_min;
    }

    /// The damaged pair gets second names, so that replacing the first loses nothing.
    fn keepDamaged(self: *const Successor) errors.Error!void {
        const image = self.image;
        const old = image.generation orelse return;
        const aside = image.place.name.damaged(image.disk.randomWord());
        const pairs = [_][2]@TypeOf(aside){
            .{ image.place.name, aside },
            .{ old.log_name, aside.log(old.header.log_name) },
        };
        for (pairs, 0..) |pair, index| {
            const errno = image.disk.link(image.place.dir, pair[0].z(), pair[1].z()) orelse continue;
            if (index == 1 and errno == disk_.code(.NOENT)) continue;
            return disk_.failErrno(errno, image.path(), "Cannot keep the damaged files of image");
        }
    }

    /// The new generation is the image's from here on; what held the old one's locks is closed.
    fn takeOver(self: *Successor, exchanged: bool) void {
        const image = self.image;
        const disk = image.disk;
        self.generation.base = self.new.file;
        self.new = .{};
        if (image.generation) |old| {
            if (exchanged) {
                image.spare = .{ .file = old.base, .stat = old.base_stat };
                image.spare_unused = 0;
                old.base = disk_.none;
            }
            _ = image.room.drop(image);
            if (self.keeps_spare) Room.take(image, old, self.generation);
            image.disposal.take(disk, old, image.background);
        }
        disk.close(&image.replaced.file);
        image.generation = self.generation;
        image.uuid = self.generation.header.image;
        image.dead = false;
        image.adopted = true;
        image.set_aside = false;
        image.dropped = false;
    }

    /// Undoes what was made before the rename. A claim of `create` is kept, emptied.
    pub fn abort(self: *Successor) void {
        const image = self.image;
        const disk = image.disk;
        if (self.generation.log >= 0) {
            _ = disk.unlink(image.place.dir, self.generation.log_name.z());
        }
        self.generation.destroy(disk);
        if (self.new.file < 0) return;
        if (image.generation == null) {
            image.new = self.new;
            if (!plant.is(.r4_not_truncated) and !plant.is(.r4_not_all_again)) _ = disk.truncate(self.new.file, 0);
        } else claim.dropNew(disk, image.place, &self.new);
        self.new = .{};
    }
};

fn epochMaxOf(image: *const Image) u64 {
    return if (image.history) |history| history.epoch_max else 0;
}

fn stale(path: []const u8, what: []const u8) errors.Error {
    return failAs(.STALE, .{ .path = path }, "Cannot commit to image \"{s}\": {s}; open it again", .{ path, what });
}
