//! The space of a log that was replaced, made the space of the log that took its place. Space that was
//! written before takes a third less time to write than space that has to be found, giving a long log
//! back to the system takes as long as writing half of it, and the page cache has memory for it already.
//!
//! A base that a commit makes has a log of one page. The log before, which nobody needs any more, is
//! renamed, given the same first page and synced; the first record has it take the name of that log. So
//! whichever of the two is found under the name says the same. What it held is still there, under another
//! salt: a torn attempt, until the record is written over most of it and zeros over the rest.
//!
//! Invariant: what is written to here has no name that a base knows, and no other opening. No record is
//! written to the file before its name is on the medium, and no commit returns while old bytes are left.

const std = @import("std");
const os = @import("../os/os.zig");
const claim = @import("claim.zig");
const disk_ = @import("disk.zig");
const format = @import("format.zig");
const generation_ = @import("generation.zig");
const names = @import("names.zig");
const plant = @import("../plant.zig");
const Generation = generation_.Generation;
const Image = @import("image.zig").Image;
const page_size = format.page_size;

/// So much of a longer log at most.
const len_max = 256 << 20;
/// Zeros behind a record that are written and not made by the file system.
const rest_max = 1 << 20;

/// Must not move while a thread is at it.
pub const Room = struct {
    disk: disk_.Disk = undefined,
    dir: disk_.File = disk_.none,
    held: claim.Held = .{},
    name: names.Name = .{},
    len: u64 = 0,
    mode: u16 = 0,
    first: format.LogHeader = .{ .image = undefined, .salt = 0, .name = 0 },
    made: bool = false,
    thread: ?os.Thread = null,

    /// Takes the log of `old` out of it, when it is worth it for `fresh`, which has no record.
    pub fn take(image: *Image, old: *Generation, fresh: *const Generation) void {
        const self = &image.room;
        const wanted = old.log >= 0 and old.log_end >= image.room_len_min and fresh.records.items.len == 0 and
            !image.dead and !image.set_aside and !image.maps_own_files and old.damage == null;
        if (!wanted) return;
        self.disk = image.disk;
        self.dir = image.place.dir;
        self.held = .{ .file = old.log, .stat = old.log_stat };
        self.len = @min(old.log_end, len_max);
        self.mode = fresh.base_stat.mode & 0o777;
        self.first = .{ .image = fresh.header.image, .salt = fresh.header.salt, .name = fresh.header.log_name };
        self.first.seal();
        self.name = .{};
        self.made = false;
        old.log = disk_.none;
    }

    /// The base that named this log is replaced for good: false when the name stays.
    pub fn make(self: *Room, image: *Image, old_name: names.Name) bool {
        const left = plant.is(.room_name_left);
        self.name = if (left) old_name else image.place.name.log(image.disk.randomWord());
        // Who opened the base before finds no log now, and looks for the base again.
        if (!left and self.disk.rename(self.dir, old_name.z(), self.name.z(), false) != null) {
            self.name = .{};
            self.close(image);
            return false;
        }
        if (image.background) self.thread = os.Thread.spawn(entry, self) catch null;
        if (self.thread == null) self.fill();
        return true;
    }

    fn entry(context: ?*anyopaque) callconv(.c) ?*anyopaque {
        const self: *Room = @ptrCast(@alignCast(context.?));
        self.fill();
        return null;
    }

    fn fill(self: *Room) void {
        const disk = self.disk;
        const file = self.held.file;
        // Who has it open reads records there, and so does who has mapped it.
        if (!disk.isSole(file) and !plant.is(.room_not_sole)) return;
        if (self.held.stat.mode & 0o777 != self.mode and disk.setMode(file, self.mode) != null) return;
        if (disk.truncate(file, self.len) != null) return;
        if (disk.writeAll(file, std.mem.asBytes(&self.first), 0) != null) return;
        if (!plant.is(.room_not_synced)) if (disk.sync(file) != null) return;
        self.made = disk.stat(file, &self.held.stat) == null;
    }

    /// Before the first record of the image's log: gives that log the space, if there is some. The error of
    /// a directory sync, after which nobody knows which of the two files has the name.
    pub fn give(self: *Room, image: *Image) ?disk_.Errno {
        if (self.held.file < 0) return null;
        self.wait();
        const generation = image.generation.?;
        const fits = self.made and generation.records.items.len == 0 and !generation.tail and
            generation.header.salt == self.first.salt and generation.header.log_name == self.first.name and
            self.disk.names(self.dir, self.name.z(), self.held.stat) == .same;
        if (!fits or self.disk.rename(self.dir, self.name.z(), generation.log_name.z(), true) != null) {
            _ = self.drop(image);
            return null;
        }
        self.disk.release(&generation.log);
        generation.log = self.held.file;
        generation.log_stat = self.held.stat;
        generation.log_size = self.len;
        generation.room_end = self.len;
        generation.zeros_end = 0;
        generation.tail = true;
        generation.stale = true;
        self.held = .{};
        if (plant.is(.room_dir_not_synced)) return null;
        return self.disk.syncDir(self.dir);
    }

    /// Of space that was given, puts zeros for what is old in `[from, room_end)`; the record that is being written
    /// ends at `end`. False when nobody could: it has to be cut.
    pub fn clear(disk: disk_.Disk, generation: *Generation, from: u64, end: u64) bool {
        generation.stale = false;
        if (from >= generation.room_end) return true;
        const long = end + rest_max < generation.room_end;
        const stop = if (long) end else generation.room_end;
        const zeros = os.allocatePages(std.mem.alignForward(u64, stop - from, page_size)) catch return false;
        defer os.freePages(zeros);
        if (disk.writeAll(generation.log, zeros[0 .. stop - from], from) != null) return false;
        return !long or disk.zero(generation.log, end, generation.room_end - end) == null;
    }

    pub fn wait(self: *Room) void {
        if (self.thread) |thread| thread.join();
        self.thread = null;
    }

    /// Gives the space back: true when there was some.
    pub fn drop(self: *Room, image: *Image) bool {
        if (self.held.file < 0) return false;
        self.wait();
        if (self.disk.names(self.dir, self.name.z(), self.held.stat) == .same) _ = self.disk.unlink(self.dir, self.name.z());
        self.close(image);
        return true;
    }

    fn close(self: *Room, image: *Image) void {
        const file = self.held.file;
        self.held = .{};
        image.disposal.takeFiles(self.disk, .{ file, disk_.none }, self.len, image.background);
    }

    /// The thread does not exist in a forked child.
    pub fn afterFork(self: *Room) void {
        self.thread = null;
    }
};

test "a log takes the space of the one before, unless somebody still reads that; closing leaves nothing" {
    const testing = @import("testing.zig");
    const expectEqual = std.testing.expectEqual;
    errdefer testing.explain();
    var scene: testing.Scene = .init(64);
    defer scene.deinit();
    const heap = &scene.heap;
    const options: @import("image.zig").OpenOptions = .{
        .path = scene.dir.path("a"),
        .mode = .create,
        .background = false,
        .base_pages_min = 20,
        .room_len_min = 0,
    };
    const image = try Image.open(options);
    try image.join(&heap.history, heap.identity.span, null);
    const Step = struct {
        fn commit(at: *Image, of: *testing.Heap, pages: usize, value: u64) !disk_.Stat {
            for (0..pages) |page| of.touch(&.{at}, page, value * 100 + page);
            _ = try of.commit(at, null);
            var stat: disk_.Stat = .{};
            try expectEqual(null, at.disk.stat(at.generation.?.log, &stat));
            try std.testing.expect(at.disk.names(at.place.dir, at.generation.?.log_name.z(), stat) == .same);
            return stat;
        }
    };
    const other = (try Step.commit(image, heap, 64, 1)).inode;
    const first = try Step.commit(image, heap, 18, 2);
    try expectEqual(other, first.inode);

    // Space under a name of its own, until the first record has it.
    try std.testing.expect((try Step.commit(image, heap, 64, 3)).inode != first.inode);
    try expectEqual(@as(usize, 3), try scene.dir.count());
    const second = try Step.commit(image, heap, 18, 4);
    try expectEqual(first.inode, second.inode);
    try expectEqual(first.size, second.size);
    try expectEqual(@as(usize, 2), try scene.dir.count());
    {
        // Its end is beyond the record; what follows is no commit that was lost.
        _ = try Step.commit(image, heap, 64, 5);
        try expectEqual(first.inode, (try Step.commit(image, heap, 2, 6)).inode);
        var calm: testing.FaultyDisk = .{};
        const reader = try Image.open(.{ .disk = calm.disk(), .path = options.path, .mode = .read });
        defer reader.close();
        try std.testing.expect(!reader.dropped);
        try testing.Heap.expectStored(reader, null, heap.memory);
        try std.testing.expect(reader.generation.?.log_end < reader.generation.?.log_size);

        // That reader has the log open: what it reads stays.
        const seen = try heap.copy();
        defer std.testing.allocator.free(seen);
        _ = try Step.commit(image, heap, 64, 7);
        try std.testing.expect((try Step.commit(image, heap, 18, 8)).inode != first.inode);
        try testing.Heap.expectStored(reader, null, seen);
    }
    // What is kept for records is given up for a base that finds no room.
    _ = try Step.commit(image, heap, 64, 9);
    try std.testing.expect(image.room.held.file >= 0);
    try std.testing.expect(image.giveRoomBack());
    try expectEqual(@as(usize, 2), try scene.dir.count());
    try std.testing.expect(!image.giveRoomBack());
    _ = try Step.commit(image, heap, 18, 10);
    _ = try Step.commit(image, heap, 64, 11);
    const long = try Step.commit(image, heap, 1, 12);
    try std.testing.expect(image.giveRoomBack());
    try std.testing.expect((try Step.commit(image, heap, 1, 13)).size < long.size);

    _ = try Step.commit(image, heap, 18, 14);
    _ = try Step.commit(image, heap, 64, 15);
    try expectEqual(@as(usize, 3), try scene.dir.count());
    image.close();
    try expectEqual(@as(usize, 2), try scene.dir.count());
    const again = try Image.open(.{ .path = options.path, .mode = .write, .background = false });
    defer again.close();
    try testing.Heap.expectStored(again, null, heap.memory);
}

test "of a long log's space a short record leaves nothing that looks like a lost commit" {
    const testing = @import("testing.zig");
    const expectEqual = std.testing.expectEqual;
    errdefer testing.explain();
    var scene: testing.Scene = .init(1600);
    defer scene.deinit();
    const heap = &scene.heap;
    const image = try Image.open(.{ .path = scene.dir.path("a"), .mode = .create, .background = false, .base_pages_min = 20, .room_len_min = 0 });
    defer image.close();
    try image.join(&heap.history, heap.identity.span, null);
    for ([_]bool{ false, true }, 0..) |told, round| {
        for ([_]usize{ 1600, 700, 1600 }, 1..) |pages, value| {
            for (0..pages) |page| heap.touch(&.{image}, page, round * 1000 + value + page);
            _ = try heap.commit(image, null);
        }
        try std.testing.expect(image.room.held.file >= 0);
        heap.all = told;
        defer heap.all = false;
        if (told) {
            // Nothing to write: what is old goes all the same.
            try expectEqual(@as(u64, 0), (try heap.commit(image, null)).pages);
            try expectEqual(@as(u64, page_size), image.generation.?.log_size);
        }
        heap.touch(&.{image}, 5, 7 + round);
        try expectEqual(@as(u64, 1), (try heap.commit(image, null)).pages);
        try std.testing.expect(!image.generation.?.stale and !image.generation.?.tail);
        const reader = try Image.open(.{ .path = scene.dir.path("a"), .mode = .read });
        defer reader.close();
        try std.testing.expect(!reader.dropped);
        try testing.Heap.expectStored(reader, null, heap.memory);
    }
}
