//! Reading a base into the page cache beside the program, where an opening finds that it is not there: a
//! large base was written past the cache, and pages that come one after another as they are touched take
//! several times as long as reading in large pieces.
//!
//! Invariant: a hint and nothing more. It holds an opening of its own and no lock.

const std = @import("std");
const os = @import("../os/os.zig");
const disk_ = @import("disk.zig");
const Disk = disk_.Disk;
const File = disk_.File;

/// Of a larger base a program may well read only a part.
pub const len_max = 256 << 20;
const piece_len = 4 << 20;

/// Must not move between `start` and `end`.
pub const Warming = struct {
    disk: Disk = undefined,
    file: File = disk_.none,
    len: u64 = 0,
    thread: ?os.Thread = null,
    stopped: std.atomic.Value(bool) = .init(false),

    /// Takes over `file`.
    pub fn start(self: *Warming, disk: Disk, file: File, len: u64) void {
        self.end();
        self.* = .{ .disk = disk, .file = file, .len = len };
        self.thread = os.Thread.spawn(entry, self) catch {
            disk.close(&self.file);
            return;
        };
    }

    pub fn end(self: *Warming) void {
        const thread = self.thread orelse return;
        self.stopped.store(true, .monotonic);
        thread.join();
        self.thread = null;
    }

    /// In a forked child, which has not the thread. Whether it has the descriptor nobody can say.
    pub fn afterFork(self: *Warming) void {
        self.thread = null;
    }

    fn entry(context: ?*anyopaque) callconv(.c) ?*anyopaque {
        const self: *Warming = @ptrCast(@alignCast(context.?));
        var at: u64 = 0;
        while (at < self.len and !self.stopped.load(.monotonic)) : (at += piece_len) {
            self.disk.willRead(self.file, at, @min(piece_len, self.len - at));
        }
        self.disk.close(&self.file);
        return null;
    }
};
