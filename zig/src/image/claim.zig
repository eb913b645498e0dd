//! Who may write: locks of the base and of `-new`, each followed by a look whether the path still
//! names what was locked (R7), and the removal of files that nobody owns any more.
//!
//! Invariant: a process writes an image only while it holds the lock of the inode that the base's
//! path names, or, while there is no base, of the inode that the path of `-new` names.

const std = @import("std");
const errors = @import("../errors.zig");
const os = @import("../os/os.zig");
const format = @import("format.zig");
const disk_ = @import("disk.zig");
const names = @import("names.zig");
const plant = @import("../plant.zig");
const Disk = disk_.Disk;
const File = disk_.File;
const failAs = disk_.failAs;

const attempts_max = 64;

/// An open, locked file that a path names.
pub const Held = struct {
    file: File = disk_.none,
    stat: disk_.Stat = .{},
};

/// Opens the base, for writing with its lock; null when there is none.
pub fn openBase(disk: Disk, place: names.Place, write: bool, path: []const u8) errors.Error!?Held {
    for (0..attempts_max) |_| {
        var held: Held = .{
            .file = switch (disk.open(place.dir, place.name.z(), .{ .write = write })) {
                .file => |file| file,
                .errno => |errno| {
                    if (errno == disk_.code(.NOENT)) return null;
                    if (errno == disk_.code(.NXIO) or errno == disk_.code(.NODEV) or errno == disk_.code(.ISDIR)) return noFile(path);
                    if (errno == disk_.code(.LOOP)) return failAs(.STALE, .{ .path = path, .errno = errno }, "Cannot open image \"{s}\": it became a symbolic link meanwhile, open it again", .{path});
                    if (errno == disk_.code(.TXTBSY)) return busy(path);
                    if (errno == disk_.code(.AGAIN)) {
                        // A writer was just asking whether anybody reads the base that this was.
                        os.yieldThread();
                        continue;
                    }
                    return disk_.failErrno(errno, path, "Cannot open image");
                },
            },
        };
        errdefer disk.close(&held.file);
        if (disk.stat(held.file, &held.stat)) |errno| return disk_.failErrno(errno, path, "Cannot open image");
        if (held.stat.kind != .regular) return noFile(path);
        if (!write) return held;
        switch (disk.lock(held.file)) {
            .locked => {},
            .busy => return busy(path),
            .errno => |errno| return disk_.failErrno(errno, path, "Cannot lock image"),
        }
        if (plant.is(.r7_base_not_looked_at)) return held;
        switch (disk.names(place.dir, place.name.z(), held.stat)) {
            .same => return held,
            .other, .free => disk.close(&held.file),
            .errno => |errno| return disk_.failErrno(errno, path, "Cannot open image"),
        }
    }
    return busy(path);
}

/// The base's lock if there is one, then `-new`, then a second look for a base (R7). What it took is
/// the caller's to give up when it fails.
pub fn claimPath(disk: Disk, place: names.Place, path: []const u8, new: *Held, replaced: *Held) errors.Error!void {
    for (0..attempts_max) |_| {
        if (replaced.file < 0 and !plant.is(.r7_base_unlocked)) if (try openBase(disk, place, true, path)) |held| {
            replaced.* = held;
        };
        if (new.file < 0) new.* = try claimNew(disk, place, path);
        if (replaced.file >= 0 or plant.is(.r7_no_second_look) or plant.is(.r7_base_unlocked)) return;
        switch (disk.names(place.dir, place.name.z(), .{})) {
            .free => return,
            .same, .other => continue,
            .errno => |errno| return disk_.failErrno(errno, path, "Cannot look for image"),
        }
    }
    return busy(path);
}

/// Makes and locks `-new`; one that nobody holds is removed first.
pub fn claimNew(disk: Disk, place: names.Place, path: []const u8) errors.Error!Held {
    const name = place.name.unfinished();
    for (0..attempts_max) |_| {
        var held: Held = .{ .file = switch (disk.open(place.dir, name.z(), .{ .write = true, .create = true })) {
            .file => |file| file,
            .errno => |errno| {
                if (errno != disk_.code(.EXIST)) return disk_.failErrno(errno, path, "Cannot make a new base beside image");
                var left = try removeStaleNew(disk, place, path);
                disk.close(&left.file);
                continue;
            },
        } };
        errdefer disk.close(&held.file);
        switch (disk.lock(held.file)) {
            .locked => {},
            .busy => {
                disk.close(&held.file);
                os.yieldThread();
                continue;
            },
            .errno => |errno| return disk_.failErrno(errno, path, "Cannot lock a new base beside image"),
        }
        if (disk.stat(held.file, &held.stat)) |errno| return disk_.failErrno(errno, path, "Cannot make a new base beside image");
        if (plant.is(.r7_new_not_looked_at)) return held;
        switch (disk.names(place.dir, name.z(), held.stat)) {
            .same => {},
            .other, .free => {
                disk.close(&held.file);
                continue;
            },
            .errno => |errno| return disk_.failErrno(errno, path, "Cannot make a new base beside image"),
        }
        return held;
    }
    return busy(path);
}

/// Removes a `-new` that its writer left behind, and gives the file that has no name any more. BUSY
/// when its writer lives, EXISTS when the file was never ours.
pub fn removeStaleNew(disk: Disk, place: names.Place, path: []const u8) errors.Error!Held {
    const name = place.name.unfinished();
    var held: Held = .{ .file = switch (disk.open(place.dir, name.z(), .{ .write = true })) {
        .file => |file| file,
        .errno => |errno| {
            if (errno == disk_.code(.NOENT)) return .{};
            if (errno == disk_.code(.ISDIR) or errno == disk_.code(.LOOP) or errno == disk_.code(.NXIO)) return notOurs(path, name);
            return disk_.failErrno(errno, path, "Cannot look at the unfinished base of image");
        },
    } };
    errdefer disk.close(&held.file);
    if (!plant.is(.r7_stale_new_unlocked)) switch (disk.lock(held.file)) {
        .locked => {},
        .busy => return busy(path),
        .errno => |errno| return disk_.failErrno(errno, path, "Cannot lock the unfinished base of image"),
    };
    if (disk.stat(held.file, &held.stat)) |errno| return disk_.failErrno(errno, path, "Cannot look at the unfinished base of image");
    if (disk.names(place.dir, name.z(), held.stat) != .same) return held;
    if (!isUnfinished(disk, held)) return notOurs(path, name);
    if (disk.unlink(place.dir, name.z())) |errno| {
        if (errno != disk_.code(.NOENT)) return disk_.failErrno(errno, path, "Cannot remove the unfinished base of image");
    }
    return held;
}

fn notOurs(path: []const u8, name: names.Name) errors.Error {
    return failAs(.EXISTS, .{ .path = path }, "Cannot write image \"{s}\": a file named \"{s}\" stands there that is no image's; move it", .{ path, name.slice() });
}

fn isUnfinished(disk: Disk, held: Held) bool {
    if (held.stat.kind != .regular) return false;
    var magic: u64 = 0;
    const begun = std.mem.asBytes(&magic)[0..@min(8, held.stat.size)];
    if (disk.readAll(held.file, begun, 0) != null) return false;
    // A mark that was written in part reads as its beginning, then zeros or the mark before.
    const mark = "PERM";
    var rest: []const u8 = begun;
    for (mark) |byte| {
        if (rest.len == 0 or rest[0] != byte) break;
        rest = rest[1..];
    } else return true;
    return std.mem.allEqual(u8, rest, 0);
}

/// Gives up a claim: the name goes if it still is this file's.
pub fn dropNew(disk: Disk, place: names.Place, held: *Held) void {
    if (held.file < 0) return;
    unlinkNew(disk, place, held.stat);
    disk.close(&held.file);
}

/// Removes the name while it still is this file's.
pub fn unlinkNew(disk: Disk, place: names.Place, stat: disk_.Stat) void {
    const name = place.name.unfinished();
    if (disk.names(place.dir, name.z(), stat) == .same) _ = disk.unlink(place.dir, name.z());
}

/// Removes logs of this base that no base names (R10). Called by the one writer, after what it
/// adopted is on the medium. What cannot be removed stays for the next time.
pub fn removeStale(disk: Disk, place: names.Place, log: []const u8) void {
    var found: Found = .{ .base = place.name.slice(), .log = log };
    if (disk.list(place.dir, &found, Found.visit) != null) return;
    for (found.names[0..found.count]) |*name| removeStaleLog(disk, place, name, .of(log));
}

const Found = struct {
    base: []const u8,
    log: []const u8,
    names: [32]names.Name = undefined,
    count: usize = 0,

    fn visit(context: *anyopaque, name: [:0]const u8) void {
        const self: *Found = @ptrCast(@alignCast(context));
        if (self.count == self.names.len) return;
        if (!names.isLogOf(name, self.base) or std.mem.eql(u8, name, self.log)) return;
        self.names[self.count] = names.Name.of(name);
        self.count += 1;
    }
};

fn removeStaleLog(disk: Disk, place: names.Place, name: *const names.Name, log: names.Name) void {
    var held: Held = .{ .file = switch (disk.open(place.dir, name.z(), .{ .write = true })) {
        .file => |file| file,
        .errno => return,
    } };
    defer disk.close(&held.file);
    if (disk.stat(held.file, &held.stat) != null or held.stat.kind != .regular) return;
    // A power cut may have kept a name that the log had before it was the log.
    const same = disk.names(place.dir, log.z(), held.stat) == .same;
    if (!same and disk.lock(held.file) != .locked) return;
    if (disk.names(place.dir, name.z(), held.stat) != .same) return;
    var sector: [512]u8 = @splat(0);
    if (disk.readAll(held.file, sector[0..@min(sector.len, held.stat.size)], 0) != null) return;
    if (!isLogBegun(&sector) and !plant.is(.r10_foreign_unlinked)) return;
    _ = disk.unlink(place.dir, name.z());
}

/// A log begins with its magic, unless a crash lost its first sector or left the first bytes of it.
fn isLogBegun(sector: []const u8) bool {
    const magic = std.mem.asBytes(&format.log_magic);
    const len = std.mem.findDiff(u8, sector[0..magic.len], magic) orelse return true;
    return std.mem.allEqual(u8, sector[len..], 0);
}

pub fn busy(path: []const u8) errors.Error {
    return failAs(.BUSY, .{ .path = path }, "Cannot open image \"{s}\" for writing: another writer has it open; open it with \"r\" or close the other", .{path});
}

fn noFile(path: []const u8) errors.Error {
    return failAs(.NOT_AN_IMAGE, .{ .path = path }, "Cannot open \"{s}\": it is no regular file", .{path});
}

/// Renames what the caller has locked under `from`. Where the file system knows no renaming that replaces
/// nothing, the lock and the look before stand for it.
pub fn takeName(disk: Disk, dir: disk_.File, from: names.Name, to: names.Name, replace: bool) ?disk_.Errno {
    const errno = disk.rename(dir, from.z(), to.z(), replace) orelse return null;
    if (replace or (errno != disk_.code(.INVAL) and errno != disk_.code(.NOSYS))) return errno;
    return disk.rename(dir, from.z(), to.z(), true);
}
