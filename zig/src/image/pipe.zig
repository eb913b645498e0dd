//! Writing a large base past the page cache, on threads of its own, while the next pages are copied
//! and checksummed. What goes through the page cache needs fresh memory for every page, and is in
//! memory twice then: measured three to six times slower for a base that did not exist before.
//!
//! Invariant: a buffer belongs either to the filler (free) or to the pipe (ready, being written).
//! The first error stops all writing; nothing is acknowledged before `finish` answered null.

const std = @import("std");
const os = @import("../os/os.zig");
const disk_ = @import("disk.zig");
const format = @import("format.zig");
const Disk = disk_.Disk;
const File = disk_.File;

/// What a base is written by.
pub const Size = struct {
    /// A base from this many pages on is written by a pipe.
    pages_min: u64 = 4096,
    buffer_pages: usize = 256,
    /// A record from this many pages on is written beside its copying, through the page cache.
    record_pages_min: u64 = 1024,
};

const buffer_count = 8;
const thread_count = 4;
/// The medium begins to write what went through the page cache after so many bytes.
const writeback_len = 2 << 20;
/// Of a huge page: memory in one piece is handed to the device in one piece, where pages of 4 KiB
/// took it twice as long.
const huge_len = 2 << 20;

const Job = struct { state: enum { free, ready, writing } = .free, len: usize = 0, offset: u64 = 0 };

pub const Pipe = struct {
    disk: Disk,
    /// Writes past the page cache, and through it for what the file system refuses that way; none: all
    /// goes through it.
    direct: File,
    buffered: File,
    memory: []align(os.page_size) u8,
    /// Where the buffers begin in `memory`.
    first: usize = 0,
    buffer_len: usize,
    buffers: usize = buffer_count,
    /// What the medium was told to write ends here.
    writeback_end: u64 = 0,
    jobs: [buffer_count]Job = @splat(.{}),
    /// The buffer being filled, and the next one to write.
    filling: usize = 0,
    writing: usize = 0,
    ended: bool = false,
    failure: ?disk_.Errno = null,
    mutex: os.Mutex = .{},
    /// Counts changes of the above: what sleepers wait on.
    changes: std.atomic.Value(u32) = .init(0),
    threads: [thread_count]?os.Thread = @splat(null),

    /// Null where there is nothing to gain: no direct writing here, no threads, no memory. The pipe
    /// must not move until `end`.
    pub fn start(self: *Pipe, disk: Disk, file: File, buffer_pages: usize) bool {
        const direct = disk.openDirect(file) orelse return false;
        self.* = .{ .disk = disk, .direct = direct, .buffered = file, .memory = &.{}, .buffer_len = buffer_pages * format.page_size };
        return self.go(thread_count);
    }

    /// The same for what is read again soon, through the page cache: in order, from `offset` on.
    pub fn startCached(self: *Pipe, disk: Disk, file: File, offset: u64, buffer_pages: usize) bool {
        if (os.processorCount() < 2) return false;
        self.* = .{
            .disk = disk,
            .direct = disk_.none,
            .buffered = file,
            .memory = &.{},
            .buffer_len = buffer_pages * format.page_size,
            .buffers = buffer_count / 2,
            .writeback_end = offset,
        };
        return self.go(1);
    }

    fn go(self: *Pipe, threads: usize) bool {
        const len = self.buffers * self.buffer_len;
        self.memory = os.allocatePages(len + huge_len) catch {
            self.disk.close(&self.direct);
            return false;
        };
        const address = @intFromPtr(self.memory.ptr);
        self.first = std.mem.alignForward(usize, address, huge_len) - address;
        _ = os.advise(address + self.first, len, std.os.linux.MADV.HUGEPAGE);
        for (self.threads[0..threads]) |*thread| thread.* = os.Thread.spawn(entry, self) catch null;
        if (self.threads[0] != null) return true;
        self.end();
        return false;
    }

    /// The buffer to fill now.
    pub fn buffer(self: *Pipe) []align(os.page_size) u8 {
        return self.bufferAt(self.filling);
    }

    fn bufferAt(self: *Pipe, index: usize) []align(os.page_size) u8 {
        return @alignCast(self.memory[self.first + index * self.buffer_len ..][0..self.buffer_len]);
    }

    /// Hands over the first `len` bytes of the buffer, to be written at `offset`, and waits for the
    /// next one. The error of any write so far.
    pub fn submit(self: *Pipe, len: usize, offset: u64) ?disk_.Errno {
        self.mutex.lock();
        defer self.mutex.unlock();
        std.debug.assert(self.jobs[self.filling].state == .free);
        self.jobs[self.filling] = .{ .state = .ready, .len = len, .offset = offset };
        self.filling = (self.filling + 1) % self.buffers;
        self.changed();
        while (self.jobs[self.filling].state != .free) self.wait();
        return self.failure;
    }

    /// Waits until everything is written.
    pub fn finish(self: *Pipe) ?disk_.Errno {
        self.mutex.lock();
        defer self.mutex.unlock();
        for (&self.jobs) |*job| while (job.state != .free) self.wait();
        return self.failure;
    }

    pub fn end(self: *Pipe) void {
        self.mutex.lock();
        self.ended = true;
        self.changed();
        self.mutex.unlock();
        for (self.threads) |thread| if (thread) |each| each.join();
        os.freePages(self.memory);
        self.disk.close(&self.direct);
    }

    fn entry(context: ?*anyopaque) callconv(.c) ?*anyopaque {
        const self: *Pipe = @ptrCast(@alignCast(context.?));
        self.mutex.lock();
        defer self.mutex.unlock();
        while (true) {
            const index = self.writing;
            const job = &self.jobs[index];
            if (job.state != .ready) {
                if (self.ended) return null;
                self.wait();
                continue;
            }
            job.state = .writing;
            self.writing = (index + 1) % self.buffers;
            if (self.failure == null) {
                self.mutex.unlock();
                const errno = self.write(self.bufferAt(index)[0..job.len], job.offset);
                self.mutex.lock();
                if (self.failure == null) self.failure = errno;
            }
            job.state = .free;
            self.changed();
        }
    }

    fn write(self: *Pipe, bytes: []const u8, offset: u64) ?disk_.Errno {
        if (self.direct < 0) {
            if (self.disk.writeAll(self.buffered, bytes, offset)) |errno| return errno;
            const stop = offset + bytes.len;
            if (stop - self.writeback_end < writeback_len) return null;
            self.disk.startWriting(self.buffered, self.writeback_end, stop - self.writeback_end);
            self.writeback_end = stop;
            return null;
        }
        const errno = self.disk.writeAll(self.direct, bytes, offset) orelse return null;
        if (errno != disk_.code(.INVAL)) return errno;
        return self.disk.writeAll(self.buffered, bytes, offset);
    }

    fn changed(self: *Pipe) void {
        _ = self.changes.fetchAdd(1, .release);
        os.futexWake(&self.changes, std.math.maxInt(i32));
    }

    /// Sleeps until something changes. Mutex held, and held again afterwards.
    fn wait(self: *Pipe) void {
        const seen = self.changes.load(.acquire);
        self.mutex.unlock();
        os.futexWait(&self.changes, seen);
        self.mutex.lock();
    }
};
