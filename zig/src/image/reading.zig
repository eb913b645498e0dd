//! A long stretch of a file read in order, with help: who uses the pieces reads them from the front,
//! another thread from the end, until they meet. Neither waits for the other on the way: waking a
//! processor for each piece took longer than reading it. What the page cache holds is looked at where it
//! lies, which takes half as long as copying it on two threads.
//!
//! Invariant: pieces are given out in order, each once, and each is read by one of the two. What the medium
//! would have to be asked for is read and not mapped, so that its failure is an answer and not a signal.

const std = @import("std");
const os = @import("../os/os.zig");
const disk_ = @import("disk.zig");
const plant = @import("../plant.zig");
const Disk = disk_.Disk;
const File = disk_.File;

pub const piece_len = 64 << 10;
/// Below that a thread costs what it saves.
const len_min_default = 4 << 20;
/// Smaller in tests.
var len_min: if (plant.enabled) u64 else void = if (plant.enabled) len_min_default;
/// Of tests: pieces that were mapped.
var mapped_pieces: if (plant.enabled) u64 else void = if (plant.enabled) 0;
/// Read by the other thread at most, and kept until it is used.
const kept_max = 512;
/// Looks at a piece that is being read before the thread sleeps.
const looks = 20_000;

/// Must not move between `start` and `end`.
pub const Reading = struct {
    disk: Disk,
    file: File,
    offset: u64,
    len: u64,
    /// One piece for who uses them, then what the other thread read, the last piece first.
    memory: []align(os.page_size) u8,
    /// All of it, where the page cache has it; the map is larger by what fills up pages.
    mapped: []align(8) const u8 = &.{},
    /// The piece given out next.
    next_piece: u32 = 0,
    claims: std.atomic.Value(u64),
    /// Of pieces that the other thread has read, the last piece first.
    ready: [kept_max]std.atomic.Value(u32) = @splat(.init(0)),
    errnos: [kept_max]?disk_.Errno = undefined,
    thread: ?os.Thread = null,

    /// Pieces before `front` are taken by who uses them, from `back` on by the other thread.
    const Claims = packed struct(u64) { front: u32, back: u32 };

    /// False where nothing is to be gained; there is nothing to end then. `map`: another opening of the
    /// file, or none.
    pub fn start(self: *Reading, disk: Disk, file: File, map: File, offset: u64, len: u64) bool {
        if (len < if (plant.enabled) len_min else len_min_default) return false;
        if (map >= 0 and self.startMapped(disk, map, offset, len)) return true;
        if (len / piece_len >= std.math.maxInt(u32) or os.processorCount() < 2) return false;
        const pieces: u32 = @intCast(std.math.divCeil(u64, len, piece_len) catch unreachable);
        const memory = os.allocatePages((1 + @as(usize, @min(kept_max, pieces))) * piece_len) catch return false;
        os.adviseHuge(@intFromPtr(memory.ptr), memory.len);
        self.* = .{
            .disk = disk,
            .file = file,
            .offset = offset,
            .len = len,
            .memory = memory,
            .claims = .init(@bitCast(Claims{ .front = 0, .back = pieces })),
        };
        self.thread = os.Thread.spawn(entry, self) catch {
            os.freePages(memory);
            return false;
        };
        return true;
    }

    fn startMapped(self: *Reading, disk: Disk, map: File, offset: u64, len: u64) bool {
        const first = std.mem.alignBackward(u64, offset, os.page_size);
        const span = std.mem.alignForward(u64, offset + len, os.page_size) - first;
        const address = os.reserve(0, span) catch return false;
        if (disk.map(map, first, address, span) != null or !os.areResident(address, span / os.page_size)) {
            os.unmap(address, span);
            return false;
        }
        const bytes: [*]align(8) const u8 = @ptrFromInt(address + (offset - first));
        self.* = .{
            .disk = disk,
            .file = map,
            .offset = offset,
            .len = len,
            .memory = @as([*]align(os.page_size) u8, @ptrFromInt(address))[0..span],
            .mapped = bytes[0..len],
            .claims = .init(0),
        };
        return true;
    }

    pub fn end(self: *Reading) void {
        if (self.mapped.len > 0) {
            os.unmap(@intFromPtr(self.memory.ptr), self.memory.len);
            self.* = undefined;
            return;
        }
        // Nothing is left to claim.
        self.claims.store(@bitCast(Claims{ .front = self.count(), .back = 0 }), .release);
        if (self.thread) |thread| thread.join();
        os.freePages(self.memory);
        self.* = undefined;
    }

    pub const Piece = union(enum) { bytes: []align(8) const u8, errno: disk_.Errno };

    /// The next piece, which stays until the call after; null behind the last.
    pub fn next(self: *Reading) ?Piece {
        const piece = self.next_piece;
        if (piece == self.count()) return null;
        self.next_piece += 1;
        if (self.mapped.len > 0) {
            if (plant.enabled) mapped_pieces += 1;
            return .{ .bytes = @alignCast(self.mapped[@as(usize, piece) * piece_len ..][0..self.lenOf(piece)]) };
        }
        if (self.claimFront()) {
            const bytes = self.memory[0..self.lenOf(piece)];
            if (self.read(piece, bytes)) |errno| return .{ .errno = errno };
            return .{ .bytes = bytes };
        }
        const kept = self.count() - 1 - piece;
        var left: usize = looks;
        while (self.ready[kept].load(.acquire) == 0) {
            if (left > 0) left -= 1 else os.futexWait(&self.ready[kept], 0);
        }
        if (self.errnos[kept]) |errno| return .{ .errno = errno };
        return .{ .bytes = self.bytesOf(kept, piece) };
    }

    fn claimFront(self: *Reading) bool {
        while (true) {
            const word = self.claims.load(.acquire);
            const claims: Claims = @bitCast(word);
            if (claims.front == claims.back) return false;
            const more: Claims = .{ .front = claims.front + 1, .back = claims.back };
            if (self.claims.cmpxchgWeak(word, @bitCast(more), .acq_rel, .monotonic) == null) return true;
        }
    }

    fn claimBack(self: *Reading) ?u32 {
        while (true) {
            const word = self.claims.load(.acquire);
            const claims: Claims = @bitCast(word);
            if (claims.front >= claims.back or self.count() - claims.back == kept_max) return null;
            const more: Claims = .{ .front = claims.front, .back = claims.back - 1 };
            if (self.claims.cmpxchgWeak(word, @bitCast(more), .acq_rel, .monotonic) == null) return more.back;
        }
    }

    fn count(self: *const Reading) u32 {
        return @intCast(std.math.divCeil(u64, self.len, piece_len) catch unreachable);
    }

    fn lenOf(self: *const Reading, piece: u32) usize {
        return @min(piece_len, self.len - @as(u64, piece) * piece_len);
    }

    fn bytesOf(self: *Reading, kept: u32, piece: u32) []align(8) u8 {
        return @alignCast(self.memory[(1 + @as(usize, kept)) * piece_len ..][0..self.lenOf(piece)]);
    }

    fn read(self: *Reading, piece: u32, bytes: []u8) ?disk_.Errno {
        return self.disk.readAll(self.file, bytes, self.offset + @as(u64, piece) * piece_len);
    }

    fn entry(context: ?*anyopaque) callconv(.c) ?*anyopaque {
        const self: *Reading = @ptrCast(@alignCast(context.?));
        while (self.claimBack()) |piece| {
            const kept = self.count() - 1 - piece;
            self.errnos[kept] = self.read(piece, self.bytesOf(kept, piece));
            self.ready[kept].store(1, .release);
            os.futexWake(&self.ready[kept], 1);
        }
        return null;
    }
};

/// A disk on which some reads take long, or one of them fails.
const Slow = struct {
    var reads: std.atomic.Value(u32) = .init(0);
    var failing: u32 = never;
    const never = std.math.maxInt(u32);
    var waits_ns: u64 = 0;

    fn read(_: ?*anyopaque, file: File, buffer: []u8, offset: u64) i64 {
        const number = reads.fetchAdd(1, .monotonic);
        if (number == failing) return -@as(i64, @intFromEnum(os.E.IO));
        if (number % 3 == 1 and waits_ns > 0) Disk.real.pause(waits_ns);
        return Disk.real.vtable.read(null, file, buffer, offset);
    }

    fn disk() Disk {
        const vtable = struct {
            var table: Disk.VTable = undefined;
        };
        vtable.table = Disk.real.vtable.*;
        vtable.table.read = &read;
        return .{ .context = null, .vtable = &vtable.table };
    }
};

test "pieces come in order and whole, whoever reads them; a failure is told in its place, and ending early is no harm" {
    const testing = std.testing;
    const linux = std.os.linux;
    const file: File = @intCast(linux.memfd_create("long", 0));
    defer _ = linux.close(file);
    const skipped = 12345 * 8;
    const len = 2 * kept_max * piece_len + 4096 + 8;
    const bytes = try testing.allocator.alloc(u8, skipped + len);
    defer testing.allocator.free(bytes);
    var prng = std.Random.DefaultPrng.init(3);
    prng.random().bytes(bytes);
    try testing.expectEqual(null, Disk.real.writeAll(file, bytes, 0));
    var reading: Reading = undefined;
    try testing.expect(!reading.start(.real, file, file, 0, len_min - 1));
    for ([_]u64{ 0, 0, 30 * std.time.ns_per_us }) |waits_ns| {
        Slow.reads.raw = 0;
        Slow.waits_ns = waits_ns;
        if (!reading.start(Slow.disk(), file, disk_.none, skipped, len)) return error.SkipZigTest;
        defer reading.end();
        var at: usize = skipped;
        while (reading.next()) |piece| {
            // Time for the other thread to read all that it may.
            if (waits_ns > 0) Disk.real.pause(waits_ns);
            try testing.expectEqualSlices(u8, bytes[at..][0..piece.bytes.len], piece.bytes);
            at += piece.bytes.len;
        }
        try testing.expectEqual(bytes.len, at);
        try testing.expectEqual(null, reading.next());
    }
    Slow.waits_ns = 0;
    for (0..20) |round| {
        Slow.reads.raw = 0;
        Slow.failing = @intCast(round);
        try testing.expect(reading.start(Slow.disk(), file, disk_.none, skipped, len));
        defer reading.end();
        const errno = while (reading.next()) |piece| switch (piece) {
            .bytes => {},
            .errno => |errno| break errno,
        } else return error.TestUnexpectedResult;
        try testing.expectEqual(disk_.code(.IO), errno);
    }
    Slow.failing = Slow.never;
    for (0..50) |round| {
        try testing.expect(reading.start(.real, file, disk_.none, skipped, len));
        defer reading.end();
        for (0..round % 6) |_| _ = reading.next();
    }
    // Where it lies.
    {
        const before = mapped_pieces;
        try testing.expect(reading.start(Slow.disk(), file, file, skipped, len));
        defer reading.end();
        Slow.reads.raw = 0;
        var at: usize = skipped;
        while (reading.next()) |piece| {
            try testing.expectEqualSlices(u8, bytes[at..][0..piece.bytes.len], piece.bytes);
            at += piece.bytes.len;
        }
        try testing.expectEqual(bytes.len, at);
        try testing.expectEqual(0, Slow.reads.raw);
        try testing.expect(mapped_pieces > before);
    }
    // A file that ends within.
    try testing.expect(reading.start(.real, file, disk_.none, skipped + 2 * piece_len, len));
    defer reading.end();
    const errno = while (reading.next()) |piece| switch (piece) {
        .bytes => {},
        .errno => |errno| break errno,
    } else return error.TestUnexpectedResult;
    try testing.expectEqual(disk_.ended, errno);
    // Which is never looked at behind its end, nor where a part is not cached.
    var mapping: Reading = undefined;
    try testing.expect(!mapping.startMapped(.real, file, skipped + 2 * piece_len, len));
    try testing.expect(mapping.startMapped(.real, file, skipped, len));
    mapping.end();
}

test "a byte that flipped among many checksums is found at opening, wherever it was read" {
    const format = @import("format.zig");
    const scene = @import("testing.zig");
    const Image = @import("image.zig").Image;
    errdefer scene.explain();
    len_min = 64 << 10;
    defer len_min = len_min_default;
    var dir = scene.Dir.init();
    defer dir.deinit();
    const pages = 3 * piece_len / 8 + 100;
    var heap = scene.Heap.init(pages);
    defer heap.deinit();
    var at: format.BaseHeader.Layout = undefined;
    {
        const image = try Image.open(.{ .path = dir.path("a"), .mode = .create });
        defer image.close();
        try image.join(&heap.history, heap.identity.span, null);
        for (0..pages) |page| heap.touch(&.{image}, page, 1 + page);
        _ = try heap.commit(image, null);
        at = image.generation.?.layout();
    }
    const path = try std.testing.allocator.dupeZ(u8, dir.path("a"));
    defer std.testing.allocator.free(path);
    const file = Disk.real.open(disk_.cwd, path, .{ .write = true }).file;
    defer _ = std.os.linux.close(file);
    for ([_]u64{ at.sums, at.sums + piece_len - 1, at.sums + piece_len, at.sums + 2 * piece_len + 7, at.end - 1 }) |offset| {
        var byte: [1]u8 = undefined;
        try std.testing.expectEqual(null, Disk.real.readAll(file, &byte, offset));
        byte[0] ^= 4;
        try std.testing.expectEqual(null, Disk.real.writeAll(file, &byte, offset));
        try std.testing.expectError(error.CORRUPT, Image.open(.{ .path = dir.path("a"), .mode = .read }));
        byte[0] ^= 4;
        try std.testing.expectEqual(null, Disk.real.writeAll(file, &byte, offset));
        const before = mapped_pieces;
        const image = try Image.open(.{ .path = dir.path("a"), .mode = .read });
        image.close();
        try std.testing.expect(mapped_pieces > before);
    }
}
