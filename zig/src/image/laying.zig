//! Copying short runs of log pages to their places, on several threads: the kernel's private copy of
//! a page of the base takes most of an opening's time, and waits for nobody.
//!
//! Invariant: pieces do not overlap, so that their order does not matter. A page reaches its place
//! only after its checksum was compared. The first failure stops all threads; `finish` tells it.

const std = @import("std");
const os = @import("../os/os.zig");
const disk_ = @import("disk.zig");
const format = @import("format.zig");
const Disk = disk_.Disk;
const File = disk_.File;
const page_size = format.page_size;

/// Pages of the log, one behind the other, that belong at one place of the heap.
pub const Piece = struct {
    to: usize,
    offset: u64,
    sums: []const u64,
};

pub const Failure = union(enum) {
    errno: disk_.Errno,
    /// The place of a page that does not match its checksum.
    bad: usize,
};

/// Of a thread's buffer: pages that follow each other in the log are read together.
const window_pages = 32;
/// Pieces that a thread takes at a time.
const share = 32;
const helpers_max = 3;
/// Below that starting a thread takes as long as it saves.
const pages_per_helper_min = 192;

/// Must not move between `start` and `finish`.
pub const Laying = struct {
    disk: Disk,
    log: File,
    pieces: []const Piece = &.{},
    /// The next piece that nobody has taken.
    next: std.atomic.Value(usize) = .init(0),
    /// 0 until the pieces are known, then 1.
    known: std.atomic.Value(u32) = .init(0),
    mutex: os.Mutex = .{},
    failure: ?Failure = null,
    helpers: [helpers_max]?os.Thread = @splat(null),

    /// Starts the threads that `pages` pages are worth, if any: they are there when the pieces are known.
    pub fn start(self: *Laying, pages: u64) void {
        const wanted = @min(helpers_max, os.processorCount() -| 1, pages / pages_per_helper_min);
        for (self.helpers[0..wanted]) |*helper| helper.* = os.Thread.spawn(help, self) catch null;
    }

    /// Lays the pieces, with a buffer of at least `buffer_len` for the calling thread, and ends the helpers.
    pub fn finish(self: *Laying, pieces: []const Piece, buffer: []align(page_size) u8) ?Failure {
        self.pieces = pieces;
        self.known.store(1, .release);
        os.futexWake(&self.known, helpers_max);
        self.work(buffer);
        for (&self.helpers) |*helper| if (helper.*) |thread| {
            thread.join();
            helper.* = null;
        };
        return self.failure;
    }

    fn help(context: ?*anyopaque) callconv(.c) ?*anyopaque {
        const self: *Laying = @ptrCast(@alignCast(context.?));
        // Without memory of its own it leaves the work to the others.
        const buffer = os.allocatePages(buffer_len) catch return null;
        defer os.freePages(buffer);
        os.populate(@intFromPtr(buffer.ptr), buffer.len);
        while (self.known.load(.acquire) == 0) os.futexWait(&self.known, 0);
        self.work(buffer);
        return null;
    }

    fn work(self: *Laying, buffer: []align(page_size) u8) void {
        std.debug.assert(buffer.len >= buffer_len);
        var hand: Hand = .{ .laying = self, .window = buffer[0..buffer_len] };
        while (true) {
            const first = self.next.fetchAdd(share, .monotonic);
            if (first >= self.pieces.len) break;
            if (hand.lay(self.pieces[first..@min(first + share, self.pieces.len)]) != null) return;
        }
        hand.waiting.flush();
    }

    fn fail(self: *Laying, failure: Failure) Failure {
        self.mutex.lock();
        defer self.mutex.unlock();
        if (self.failure == null) self.failure = failure;
        self.next.store(self.pieces.len, .monotonic);
        return failure;
    }
};

pub const buffer_len = window_pages * page_size;

/// One thread's work: what of the log is in its buffer, and the pages there that wait to be copied.
const Hand = struct {
    laying: *Laying,
    window: []align(page_size) u8,
    offset: u64 = 0,
    len: usize = 0,
    waiting: os.Scatter(window_pages) = .{},

    fn lay(self: *Hand, pieces: []const Piece) ?Failure {
        for (pieces, 0..) |piece, index| {
            for (piece.sums, 0..) |sum, done| {
                const offset = piece.offset + done * page_size;
                if (offset < self.offset or offset + page_size > self.offset + self.len) {
                    if (self.read(offset, pieces[index..])) |errno| return self.laying.fail(.{ .errno = errno });
                }
                const page: *align(page_size) const [page_size]u8 = @alignCast(self.window[offset - self.offset ..][0..page_size]);
                const to = piece.to + done * page_size;
                if (format.pageSum(page) != sum) return self.laying.fail(.{ .bad = to });
                self.waiting.add(page, to);
            }
        }
        return null;
    }

    /// Fills the buffer from `offset` on with as much as these pieces have in a row there.
    fn read(self: *Hand, offset: u64, pieces: []const Piece) ?disk_.Errno {
        self.waiting.flush();
        var end = offset;
        for (pieces) |piece| {
            if (piece.offset > end) break;
            end = @max(end, piece.offset + piece.sums.len * page_size);
        }
        self.offset = offset;
        self.len = @min(self.window.len, end - offset);
        const errno = self.laying.disk.readAll(self.laying.log, self.window[0..self.len], offset);
        if (errno != null) self.len = 0;
        return errno;
    }
};

test "pieces come to their places on all threads; a bad page and an unreadable log are told" {
    const linux = std.os.linux;
    const testing = std.testing;
    const count = 1000;
    const log_pages = 2 * count;
    const log: File = @intCast(linux.memfd_create("log", 0));
    defer _ = linux.close(log);
    const memory = try os.allocatePages(2 * log_pages * page_size);
    defer os.freePages(memory);
    const heap = memory[0 .. log_pages * page_size];
    const stored = memory[log_pages * page_size ..];
    var prng = std.Random.DefaultPrng.init(7);
    prng.random().bytes(stored);
    try testing.expectEqual(null, Disk.real.writeAll(log, stored, 0));
    var sums: [log_pages]u64 = undefined;
    for (&sums, 0..) |*sum, page| sum.* = format.pageSum(@alignCast(stored[page * page_size ..][0..page_size]));

    // Pieces of one to three pages, some of the log between them left out, each at a place far from its
    // neighbour's.
    var pieces: std.ArrayList(Piece) = .empty;
    defer pieces.deinit(testing.allocator);
    var owner: [log_pages]?usize = @splat(null);
    var page: usize = 0;
    while (page + 3 <= log_pages) {
        const len = prng.random().intRangeAtMost(usize, 1, 3);
        const place = (page * 7) % log_pages;
        const fits = place + len <= log_pages and for (owner[place..][0..len]) |taken| {
            if (taken != null) break false;
        } else true;
        if (fits) {
            for (owner[place..][0..len], page..) |*slot, from| slot.* = from;
            try pieces.append(testing.allocator, .{
                .to = @intFromPtr(heap.ptr) + place * page_size,
                .offset = page * page_size,
                .sums = sums[page..][0..len],
            });
        }
        page += len;
    }
    try testing.expect(pieces.items.len > 500);

    const buffer = try os.allocatePages(buffer_len);
    defer os.freePages(buffer);
    {
        var laying: Laying = .{ .disk = .real, .log = log };
        laying.start(log_pages);
        try testing.expectEqual(null, laying.finish(pieces.items, buffer));
        for (owner, 0..) |from, place| {
            const found = heap[place * page_size ..][0..page_size];
            if (from) |index| {
                try testing.expectEqualSlices(u8, stored[index * page_size ..][0..page_size], found);
            } else try testing.expect(std.mem.allEqual(u8, found, 0));
        }
    }
    {
        // The piece is the only one that can be bad; whoever lays it, all others stop.
        const bad = pieces.items[pieces.items.len / 2];
        try testing.expectEqual(null, Disk.real.writeAll(log, "x", bad.offset + (bad.sums.len - 1) * page_size + 99));
        const was = @as(*const u8, @ptrFromInt(bad.to + (bad.sums.len - 1) * page_size + 99)).*;
        try testing.expect(was != 'x');
        var laying: Laying = .{ .disk = .real, .log = log };
        laying.start(log_pages);
        const failure = laying.finish(pieces.items, buffer).?;
        try testing.expectEqual(bad.to + (bad.sums.len - 1) * page_size, failure.bad);
        try testing.expectEqual(was, @as(*const u8, @ptrFromInt(bad.to + (bad.sums.len - 1) * page_size + 99)).*);
    }
    {
        var laying: Laying = .{ .disk = .real, .log = disk_.none };
        laying.start(log_pages);
        try testing.expectEqual(disk_.code(.BADF), laying.finish(pieces.items, buffer).?.errno);
    }
    {
        // Given up before the pieces were known: the helpers end.
        var laying: Laying = .{ .disk = .real, .log = log };
        laying.start(log_pages);
        try testing.expectEqual(null, laying.finish(&.{}, buffer));
    }
}
