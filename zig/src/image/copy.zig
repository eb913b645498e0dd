//! Copying and checking images that others may be using, their writers included: base and log are
//! taken as a reader finds them, all epochs with them.
//!
//! Invariant: the copy that gets the name is whole, and was read back and compared with its checksums before.
//! Until then the target's path names what it named, and afterwards it never names anything less.

const std = @import("std");
const errors = @import("../errors.zig");
const disk_ = @import("disk.zig");
const format = @import("format.zig");
const generation_ = @import("generation.zig");
const image_ = @import("image.zig");
const mapping = @import("mapping.zig");
const plant = @import("../plant.zig");
const scratch_ = @import("scratch.zig");
const stored_ = @import("stored.zig");
const successor_ = @import("successor.zig");
const Disk = disk_.Disk;
const Generation = generation_.Generation;
const Image = image_.Image;
const Successor = successor_.Successor;
const failAs = disk_.failAs;
const page_size = format.page_size;

/// Bytes after which the medium may begin with what was copied.
const piece_len = 32 << 20;

pub const Options = struct {
    disk: Disk = .real,
    from: []const u8,
    to: []const u8,
    /// Replace what stands at `to`; else that is EXISTS.
    replace: bool = false,
    /// Tells what a damaged page belongs to.
    describer: ?stored_.Describer = null,
};

pub const Report = struct {
    /// The last epoch, and how many there are.
    epoch: u64,
    epochs: u64,
    pages: u64,
    bytes: u64,
};

/// Copies the image at `from` with all its epochs. The copy has the image's UUID and commits, and a
/// log of its own name and salt: it may lie beside an older copy, whose log stays as it is.
pub fn copy(options: Options) errors.Error!Report {
    const source = try Image.open(.{ .disk = options.disk, .path = options.from, .mode = .read, .describer = options.describer });
    defer source.close();
    const from = source.generation.?;
    const target = try Image.open(.{
        .disk = options.disk,
        .path = options.to,
        .mode = .create,
        .replace = options.replace,
        .fresh = !options.replace,
        .background = false,
    });
    defer target.close();
    const there = target.replaced.stat;
    if (target.replaced.file >= 0 and there.device == from.base_stat.device and there.inode == from.base_stat.inode) {
        return failAs(.INVALID_ARGUMENT, .{ .path = options.to }, "Cannot copy image \"{s}\" to \"{s}\": it is the same file", .{ options.from, options.to });
    }
    target.uuid = from.header.image;
    var scratch: scratch_.Scratch = .{};
    defer scratch.deinit();
    var successor: Successor = try .begin(target, &scratch);
    errdefer if (target.generation != successor.generation) successor.abort();
    try copyBase(&successor, from);
    for (from.records.items, 0..) |_, index| try successor.copyRecord(from, index);
    if (!plant.is(.copy_unsynced)) try successor.sync();
    if (!plant.is(.copy_unread)) try compare(source, &successor);
    try successor.install();
    return reportOf(target.generation.?);
}

/// Reads every page of every epoch: CORRUPT names the first that is damaged.
pub fn verifyFile(disk: Disk, path: []const u8, describer: ?stored_.Describer) errors.Error!Report {
    const image = try Image.open(.{ .disk = disk, .path = path, .mode = .read, .allow_damaged = true });
    defer image.close();
    const generation = image.generation.?;
    const files: mapping.Files = .{ .disk = disk, .path = path, .generation = generation, .describer = describer };
    try files.verify(generation.records.items.len);
    if (generation.damage) |damage| return image_.damaged(path, damage);
    return reportOf(generation);
}

fn reportOf(generation: *const Generation) Report {
    var pages = generation.header.page_count;
    for (generation.records.items) |record| pages += record.sums.len;
    return .{
        .epoch = generation.headOf(generation.last()).epoch,
        .epochs = generation.records.items.len + 1,
        .pages = pages,
        .bytes = generation.base_stat.size + generation.log_end,
    };
}

/// All of the base as it is, but for its header, which names another log and comes last.
fn copyBase(successor: *Successor, from: *const Generation) errors.Error!void {
    const disk = successor.image.disk;
    const path = successor.image.path();
    const generation = successor.generation;
    const file = successor.new.file;
    const header = generation.header;
    const allocator = generation.arena.allocator();
    const salt = header.salt;
    const log_name = header.log_name;
    header.* = from.header.*;
    header.salt = salt;
    header.log_name = log_name;
    header.seal();
    generation.runs = allocator.dupe(@TypeOf(from.runs[0]), from.runs) catch return generation_.outOfMemory(path);
    generation.lines = allocator.dupe(format.Line, from.lines) catch return generation_.outOfMemory(path);

    const magic = format.unfinished_magic;
    if (disk.truncate(file, 0)) |errno| return failed(errno, path);
    if (disk.writeAll(file, std.mem.asBytes(&magic), 0)) |errno| return failed(errno, path);
    successor.scratch.stage() catch return generation_.outOfMemory(path);
    const end = from.layout().end;
    try copyBytes(successor, from, end);
    if (disk.truncate(file, end)) |errno| return failed(errno, path);
    if (disk.writeAll(file, std.mem.asBytes(header), 0)) |errno| return failed(errno, path);
}

/// What of the base is no hole, from its second page on.
fn copyBytes(successor: *Successor, from: *const Generation, end: u64) errors.Error!void {
    const disk = successor.image.disk;
    const path = successor.image.path();
    const file = successor.new.file;
    const sparse = from.base_stat.allocated < from.base_stat.size;
    var at: u64 = page_size;
    while (at < end) {
        var stop = end;
        if (sparse) {
            // Behind the last piece of data stand the tables: no answer is a failed one.
            at = @max(at, @min(end, disk.nextData(from.base, at) orelse at));
            stop = @max(at + 1, @min(end, disk.nextHole(from.base, at) orelse end));
        }
        while (at < stop) {
            const len = @min(piece_len, stop - at);
            if (disk.allocate(file, at, len)) |errno| return failed(errno, path);
            if (disk.copyAll(from.base, at, file, at, len, successor.scratch.staging)) |errno| return failed(errno, path);
            disk.startWriting(file, at, len);
            at += len;
        }
    }
}

fn failed(errno: disk_.Errno, path: []const u8) errors.Error {
    return disk_.failErrno(errno, path, "Cannot write a copy of an image to");
}

/// Reads the copy back, as whoever opens it will. Where it differs, the original tells whether it was
/// damaged before.
fn compare(source: *Image, made: *const Successor) errors.Error!void {
    const target = made.image;
    const records = made.generation.records.items.len;
    readBack(made, records) catch |err| {
        if (err != error.CORRUPT and err != error.NOT_AN_IMAGE and err != error.BAD_VERSION) return err;
        const original: mapping.Files = .{ .disk = source.disk, .path = source.path(), .generation = source.generation.?, .describer = source.describer };
        try original.verify(records);
        return failAs(.IO, .{ .path = target.path() }, "Cannot copy image \"{s}\" to \"{s}\": what was written there reads otherwise; look after that medium", .{ source.path(), target.path() });
    };
}

fn readBack(made: *const Successor, records: usize) errors.Error!void {
    const target = made.image;
    const disk = target.disk;
    const path = target.path();
    const copied = try Generation.create();
    defer {
        copied.base = disk_.none;
        copied.destroy(disk);
    }
    copied.base = made.new.file;
    if (disk.stat(copied.base, &copied.base_stat)) |errno| return disk_.failErrno(errno, path, "Cannot look at the copy of an image");
    try copied.loadBase(disk, path, .{});
    if (copied.header.checksum != made.generation.header.checksum) return generation_.corrupt(path, "its header is another");
    if (try copied.openLog(disk, target.place, false, path) != .whole) return generation_.corrupt(path, "its log is not whole");
    try copied.loadRecords(disk, path, false);
    if (copied.damage != null or copied.records.items.len != records) return generation_.corrupt(path, "its log is not whole");
    const files: mapping.Files = .{ .disk = disk, .path = path, .generation = copied, .describer = null };
    try files.verify(records);
}
