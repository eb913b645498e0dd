//! The images and shared heaps' files that this process has open for writing, so that opening one of
//! them again says ALREADY_OPEN and not that somebody else is in the way. Locks alone cannot tell.
//!
//! Invariant: a file is in the list from the end of its opening until its locks are given up.

const std = @import("std");
const errors = @import("../errors.zig");
const os = @import("../os/os.zig");
const disk_ = @import("disk.zig");
const names = @import("names.zig");
const failAs = disk_.failAs;

/// A file that is open for writing, as part of what has it open.
pub const Entry = struct {
    disk: disk_.Disk,
    place: names.Place,
    forked: bool = false,
    next: ?*Entry = null,
};

var first: ?*Entry = null;
var lock: os.Mutex = .{};

pub fn add(entry: *Entry) void {
    lock.lock();
    defer lock.unlock();
    entry.next = first;
    first = entry;
}

pub fn remove(entry: *Entry) void {
    // A forked child has one thread, and the lock as another one may have held it.
    if (!entry.forked) lock.lock();
    defer if (!entry.forked) lock.unlock();
    var link = &first;
    while (link.*) |each| : (link = &each.next) {
        if (each != entry) continue;
        link.* = entry.next;
        return;
    }
}

/// What an image that is BUSY is called here.
pub fn refine(busy: errors.Error, disk: disk_.Disk, place: names.Place, path: []const u8) errors.Error {
    if (busy != error.BUSY or !isOpen(disk, place)) return busy;
    return failAs(.ALREADY_OPEN, .{ .path = path }, "Cannot open image \"{s}\": this process has it open for writing; use it there, or close it first", .{path});
}

fn isOpen(disk: disk_.Disk, place: names.Place) bool {
    var dir: disk_.Stat = .{};
    if (disk.stat(place.dir, &dir) != null) return false;
    lock.lock();
    defer lock.unlock();
    var next = first;
    while (next) |entry| : (next = entry.next) {
        if (entry.forked or entry.disk.context != disk.context) continue;
        var other: disk_.Stat = .{};
        if (disk.stat(entry.place.dir, &other) != null) continue;
        const same_dir = dir.device == other.device and dir.inode == other.inode;
        if (same_dir and std.mem.eql(u8, place.name.slice(), entry.place.name.slice())) return true;
    }
    return false;
}
