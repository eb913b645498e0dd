//! The images that this process has open for writing, so that opening one of them again says
//! ALREADY_OPEN and not that somebody else is in the way. Locks alone cannot tell.
//!
//! Invariant: an image is in the list from the end of its opening to the beginning of its close.

const std = @import("std");
const errors = @import("../errors.zig");
const os = @import("../os/os.zig");
const disk_ = @import("disk.zig");
const names = @import("names.zig");
const Image = @import("image.zig").Image;
const failAs = disk_.failAs;

var first: ?*Image = null;
var lock: os.Mutex = .{};

pub fn add(image: *Image) void {
    if (image.mode == .read) return;
    lock.lock();
    defer lock.unlock();
    image.next_here = first;
    first = image;
}

pub fn remove(image: *Image) void {
    // A forked child has one thread, and the lock as another one may have held it.
    if (!image.forked) lock.lock();
    defer if (!image.forked) lock.unlock();
    var link = &first;
    while (link.*) |each| : (link = &each.next_here) {
        if (each != image) continue;
        link.* = image.next_here;
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
    while (next) |image| : (next = image.next_here) {
        if (image.forked or image.disk.context != disk.context) continue;
        var other: disk_.Stat = .{};
        if (disk.stat(image.place.dir, &other) != null) continue;
        const same_dir = dir.device == other.device and dir.inode == other.inode;
        if (same_dir and std.mem.eql(u8, place.name.slice(), image.place.name.slice())) return true;
    }
    return false;
}
