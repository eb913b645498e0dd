//! Opening: the files found, read, locked and, for a writer, made durable as they were found.
//!
//! Invariant: a writer has rewritten and synced what it adopts before anybody hears of it (R10), and
//! touches nothing of an image that is damaged.

const std = @import("std");
const errors = @import("../errors.zig");
const claim = @import("claim.zig");
const here = @import("here.zig");
const disk_ = @import("disk.zig");
const format = @import("format.zig");
const generation_ = @import("generation.zig");
const image_ = @import("image.zig");
const names = @import("names.zig");
const os = @import("../os/os.zig");
const shared_file = @import("shared_file.zig");
const plant = @import("../plant.zig");
const Generation = generation_.Generation;
const Image = image_.Image;
const OpenOptions = image_.OpenOptions;
const failAs = disk_.failAs;

const attempts_max = 64;

pub fn open(options: OpenOptions) errors.Error!*Image {
    const allocator = os.page_allocator;
    if (options.keep == 0 or options.keep > 1 << 20) {
        return failAs(.INVALID_ARGUMENT, .{ .path = options.path }, "Cannot open image \"{s}\": keep is {d}, it must be 1 to 1,048,576", .{ options.path, options.keep });
    }
    var place = try names.resolve(options.disk, options.path);
    errdefer options.disk.close(&place.dir);
    const path_buffer = allocator.dupe(u8, options.path) catch return generation_.outOfMemory(options.path);
    errdefer allocator.free(path_buffer);
    const self = allocator.create(Image) catch return generation_.outOfMemory(options.path);
    errdefer allocator.destroy(self);
    self.* = .{
        .disk = options.disk,
        .place = place,
        .path_buffer = path_buffer,
        .mode = options.mode,
        .keep = options.keep,
        .log_limit = options.log_limit,
        .idle_ns = options.idle_ns,
        .background = options.background,
        .describer = options.describer,
        .base_pages_min = options.base_pages_min,
        .sealed_len_min = options.sealed_len_min,
        .spare_len_min = options.spare_len_min,
        .room_len_min = options.room_len_min,
        .here = .{ .disk = options.disk, .place = place },
        .pipe_size = options.pipe,
    };
    errdefer {
        self.disposal.wait();
        if (self.generation) |generation| generation.destroy(self.disk);
        claim.dropNew(self.disk, place, &self.new);
        self.disk.close(&self.replaced.file);
        self.lines.deinit();
    }
    (switch (options.mode) {
        .create => claimPath(self, options),
        .write, .read => openExisting(self, options),
    }) catch |err| return here.refine(err, options.disk, place, options.path);
    if (options.mode != .read) here.add(&self.here);
    return self;
}

fn openExisting(self: *Image, options: OpenOptions) errors.Error!void {
    const write = options.mode == .write;
    const generation = try load(self, write, options.recover);
    self.generation = generation;
    self.uuid = generation.header.image;
    self.lines.addAll(generation.lines) catch return generation_.outOfMemory(self.path());
    for (generation.records.items) |record| {
        self.lines.addAll(record.lines) catch return generation_.outOfMemory(self.path());
    }
    self.dropped = generation.dropped;
    const logless = generation.log < 0;
    if (generation.damage) |damage| {
        if (!options.allow_damaged and !options.recover) return image_.damaged(self.path(), damage);
        if (options.recover) {
            generation.damage = null;
            self.stepOver();
        }
    } else if (logless) {
        self.stepOver();
    } else if (write) {
        if (plant.is(.r10_unlink_before_settled)) removeLeft(self, generation);
        try settle(self, generation);
        removeLeft(self, generation);
    }
    if (options.verify and generation.damage == null) try self.verify(try self.point(null));
}

fn removeLeft(self: *Image, generation: *const Generation) void {
    claim.removeStale(self.disk, self.place, generation.log_name.slice());
    const left = claim.removeStaleNew(self.disk, self.place, "") catch claim.Held{};
    self.disposal.takeFiles(self.disk, .{ left.file, disk_.none }, left.stat.size, self.background);
}

/// Base and log, read and checked. Starts over while another process replaces them (R8).
fn load(self: *Image, write: bool, recover: bool) errors.Error!*Generation {
    const disk = self.disk;
    const path = self.path();
    var torn_salt: u64 = 0;
    var torn_at: u64 = 0;
    for (0..attempts_max) |_| {
        const held = try claim.openBase(disk, self.place, write, path) orelse {
            return failAs(.NOT_FOUND, .{ .path = path }, "Cannot open image \"{s}\": there is no such file; make one with \"w+\"", .{path});
        };
        const generation = Generation.create() catch |err| {
            var file = held.file;
            disk.close(&file);
            return err;
        };
        errdefer generation.destroy(disk);
        generation.base = held.file;
        generation.base_stat = held.stat;
        // A map through the descriptor that has the lock could outlive it in a forked child.
        var to_map = if (self.background and os.isOwner(held.stat.owner)) Generation.openToMap(disk, self.place, self.place.name, held.stat) orelse disk_.none else disk_.none;
        defer disk.close(&to_map);
        generation.loadBase(disk, path, .{ .thread = self.background, .map = to_map }) catch |err| switch (disk.names(self.place.dir, self.place.name.z(), held.stat)) {
            .other, .free => {
                generation.destroy(disk);
                continue;
            },
            .same, .errno => return err,
        };
        const state = try generation.openLog(disk, self.place, write, path);
        if (state != .whole) {
            disk.close(&generation.log);
            if (!plant.is(.r8_no_second_look) and disk.names(self.place.dir, self.place.name.z(), held.stat) != .same) {
                generation.destroy(disk);
                continue;
            }
            if (recover) return generation;
            return failAs(.CORRUPT, .{ .path = path }, "Cannot open image \"{s}\": its log \"{s}\" is {s}; move both files together (Image.copy does), or open with recover to go without the log", .{
                path, generation.log_name.slice(), if (state == .absent) "missing or too short" else "another image's or damaged at its start",
            });
        }
        if (write and !plant.is(.r7_log_unlocked)) switch (disk.lock(generation.log)) {
            .locked => {},
            .busy => return claim.busy(path),
            .errno => |errno| return disk_.failErrno(errno, path, "Cannot lock the log of image"),
        };
        try generation.loadRecords(disk, path, !write);
        try generation.checkLastRecord(disk, path);
        if (!write and generation.dropped) {
            // A record without an end is no dropped commit while its writer is at it. Who took this
            // base's place meanwhile had ended it before.
            const replaced = disk.names(self.place.dir, self.place.name.z(), held.stat) != .same;
            if (replaced or (!plant.is(.r9_beside_writer) and disk.lockedByAnother(generation.base))) {
                generation.dropped = false;
            } else if (!plant.is(.r9_one_look) and (torn_salt != generation.header.salt or torn_at != generation.log_end)) {
                // Its writer may have ended both the record and its own work since: then the next look finds it whole.
                torn_salt = generation.header.salt;
                torn_at = generation.log_end;
                generation.destroy(disk);
                continue;
            }
        }
        return generation;
    }
    return claim.busy(path);
}

/// R10: what the page cache shows may never have reached the medium; put it there.
fn settle(self: *Image, generation: *Generation) errors.Error!void {
    const disk = self.disk;
    const path = self.path();
    if (!generation.sealed and plant.is(.r10_length_unchanged)) {
        if (generation.tail) try cutTail(disk, generation, path);
    } else if (!generation.sealed) {
        // The length is changed and set again: where a sync of it failed, only a change makes the next
        // one store it.
        if (disk.truncate(generation.log, generation.log_end + format.page_size)) |errno| return disk_.failErrno(errno, path, "Cannot settle the log of image");
        generation.tail = true;
        try cutTail(disk, generation, path);
    }
    if (generation.records.items.len > 0 and !generation.sealed and !plant.is(.r10_record_not_rewritten)) {
        const record = &generation.records.items[generation.records.items.len - 1];
        var buffer: [generation_.chunk_len]u8 = undefined;
        const end = @min(record.offset + record.len, generation.log_size);
        var offset = record.offset;
        while (offset < end) {
            const part = buffer[0..@min(buffer.len, end - offset)];
            if (disk.readAll(generation.log, part, offset)) |errno| return disk_.failErrno(errno, path, "Cannot read the log of image");
            if (disk.writeAll(generation.log, part, offset)) |errno| return disk_.failErrno(errno, path, "Cannot settle the log of image");
            offset += part.len;
        }
    }
    if (if (plant.is(.sync_settled_log)) null else disk.sync(generation.log)) |errno| return disk_.failErrno(errno, path, "Cannot sync the log of image");
    if (if (plant.is(.sync_settled_dir)) null else disk.syncDir(self.place.dir)) |errno| return disk_.failErrno(errno, path, "Cannot sync the directory of image");
    if (!generation.sealed) generation.sealLast(disk, self.sealed_len_min);
}

/// Removes what an attempt left behind the last whole record.
pub fn cutTail(disk: disk_.Disk, generation: *Generation, path: []const u8) errors.Error!void {
    if (disk.truncate(generation.log, generation.log_end)) |errno| return disk_.failErrno(errno, path, "Cannot cut the torn end of the log of image");
    generation.log_size = generation.log_end;
    generation.forgetZeros();
    generation.tail = false;
}

fn claimPath(self: *Image, options: OpenOptions) errors.Error!void {
    if (options.fresh) try expectFree(self);
    try claim.claimPath(self.disk, self.place, self.path(), &self.new, &self.replaced);
    // Somebody came first.
    if (options.fresh and self.replaced.file >= 0) return exists(self.path());
    if (self.replaced.file >= 0) try mayReplace(self, options);
    const word = self.disk.randomId();
    self.uuid = @bitCast(word);
}

fn expectFree(self: *Image) errors.Error!void {
    const path = self.path();
    switch (self.disk.names(self.place.dir, self.place.name.z(), .{})) {
        .free => {},
        .same, .other => return exists(path),
        .errno => |errno| return disk_.failErrno(errno, path, "Cannot look for image"),
    }
}

fn exists(path: []const u8) errors.Error {
    return failAs(.EXISTS, .{ .path = path }, "Cannot make image \"{s}\": something stands there; move it, or pass replace: true", .{path});
}

/// What stands at the path is lost with the first commit: only what may be.
fn mayReplace(self: *Image, options: OpenOptions) errors.Error!void {
    if (options.replace or self.replaced.stat.size == 0) return;
    const path = self.path();
    var header: format.BaseHeader = undefined;
    const readable = self.disk.readAll(self.replaced.file, std.mem.asBytes(&header), 0) == null;
    const is_shared = readable and header.magic == shared_file.magic;
    if (!readable or (header.magic != format.base_magic and !is_shared)) {
        return failAs(.EXISTS, .{ .path = path }, "Cannot make image \"{s}\": a file that is no image stands there; move it, or pass replace: true", .{path});
    }
    const heap = options.heap orelse return;
    if (!is_shared and header.version == format.version and header.isSealed() and std.mem.eql(u8, &header.heap.uuid, &heap)) return;
    return failAs(.EXISTS, .{ .path = path }, "Cannot make image \"{s}\": it holds another heap; open it with \"r+\", or pass replace: true", .{path});
}
