//! The memory of a process's malloc: address space set aside once, and a file without a name whose
//! pages are mapped into it piece by piece.
//!
//!   reserved                base               data                             data + ready     end
//!    |  (to align to 2 MiB)  | allocator's       | private        | shared map    | nothing yet     |
//!    |                       | tables, in the    | (after a fork) | of the file   |                 |
//!    |                       | process's memory  | up to shared_from              |                 |
//!
//! Invariants: whatever the allocator hands out has room in the file below it, or is memory of the
//! system: a full disk shows when a block is asked for, never when it is touched. What was refused
//! takes no room. A byte of the pool lies at its own offset in the
//! file. `supply`'s functions run under the allocator's lock; the others while it is held.

const std = @import("std");
const os = @import("../os/os.zig");
const files = @import("../os/pool_file.zig");
const errors = @import("../errors.zig");
const alloc = @import("../alloc/alloc.zig");
const log = @import("log.zig");

const slice_size = alloc.slice_size;
const table_alignment = 2 << 20;

/// Address space is set aside for this much at least, where the system gives it.
const reach_wanted: u64 = 1 << 40;
const reach_max: u64 = 16 << 40;
/// This much, or a quarter of what is taken, is left for threads' own tables, stacks and libraries:
/// without it a program under `ulimit -v` got a pool and could not allocate from it.
const left_min: u64 = 32 << 20;
/// Tables are made usable for this much data at first.
const tables_first: u64 = 256 << 20;
/// Up to this size of a file its room is had by touching pages, which a file system can forget again
/// before it chose blocks for them: small programs end 3 ms sooner on ext4 than with blocks to free.
const touched_max: u64 = 4 << 20;
const touched_piece: u64 = 128 << 10;
/// Beyond, blocks are allocated: a sixteenth of the pool at a time, within these bounds …
const piece_min: u64 = 1 << 20;
const piece_max: u64 = 64 << 20;
/// … and where files lie in memory, pieces of this size may be huge pages. (On disks they are not asked
/// for: ext4 then clears 2 MiB at the first touch of each, which sparse use pays many times over.)
const huge_page: u64 = 2 << 20;
/// Shorter runs are not worth giving back: a private one takes a map of its own, and a file system's
/// journal makes no difference between little and much (1 to 10 ms on ext4, for 64 KiB as for 16 MiB) …
const gift_min: u64 = 1 << 20;
/// … and up to this length no more time goes into them than a fifth of what passes.
const gift_timed: u64 = 4 << 20;

pub const Fault = struct { what: []const u8, errno: u32 = 0 };

pub const Pool = struct {
    allocator: alloc.Allocator = .{},
    directory: [:0]const u8 = "",
    reserved: usize = 0,
    reserved_len: usize = 0,
    base: usize = 0,
    data: usize = 0,
    geometry: alloc.Geometry = undefined,
    /// Bytes of data that are mapped and have room below them.
    ready: u64 = 0,
    /// From here on up to `ready` the pages are those of `file`.
    file_from: u64 = 0,
    /// Up to here pages are private; between it and `file_from` they belong to files that were closed
    /// by the program.
    shared_from: u64 = 0,
    file: files.File = files.none,
    identity: files.Identity = .{},
    /// Its pages are memory that no disk stands behind.
    in_memory: bool = false,
    /// A bit a slice: its room was given back to the file system.
    gone: []u64 = &.{},
    gone_count: u64 = 0,
    next_gift_ns: u64 = 0,
    files_made: u32 = 0,

    /// Opens a pool in the directory: null, or what stood in the way.
    pub fn open(self: *Pool, directory: [:0]const u8, size: u64) ?Fault {
        self.directory = directory;
        if (self.newFile()) |errno| return .{ .what = "no file can be made in it", .errno = errno };
        const fault = self.begin(size) orelse return null;
        // The program goes on without a pool, and without what was taken for one.
        self.close();
        return fault;
    }

    fn begin(self: *Pool, size: u64) ?Fault {
        if (!self.setAside(size)) return .{ .what = "the system gives no address space of that size" };
        if (!self.extend(touched_piece)) return .{ .what = "there is no room in it" };
        self.allocator.format(self.base, self.geometry, self.tablesFirst(), .{
            .context = self,
            .grow = growHook,
            .give_back = giveBackHook,
            .prepare = prepareHook,
        }, .{ .nonce = 1 }) catch return .{ .what = "the system gives no memory" };
        return null;
    }

    /// Gives up file and memory, the allocator's process side closed.
    pub fn close(self: *Pool) void {
        if (self.fileIsOurs()) files.close(self.file);
        self.file = files.none;
        if (self.reserved_len > 0) os.unmap(self.reserved, self.reserved_len);
        self.reserved_len = 0;
        self.ready = 0;
    }

    fn setAside(self: *Pool, size: u64) bool {
        var reach = @min(@max(reach_wanted, 2 * size), reach_max);
        while (reach >= size) : (reach /= 2) {
            const geometry = alloc.Geometry.init(reach) catch return false;
            const gone_bytes = std.mem.alignForward(u64, geometry.slices / 8 + 8, table_alignment);
            const len = table_alignment + geometry.span + gone_bytes;
            const left = @max(left_min, len / 4);
            const reserved = os.reserve(0, len + left) catch continue;
            os.unmap(reserved + len, left);
            self.reserved = reserved;
            self.reserved_len = len;
            self.base = std.mem.alignForward(usize, reserved, table_alignment);
            self.data = self.base + geometry.data_offset;
            self.geometry = geometry;
            const bits: [*]u64 = @ptrFromInt(self.base + geometry.span);
            self.gone = bits[0 .. (geometry.slices + 63) / 64];
            if (self.grow(self.tablesFirst())) return true;
            os.unmap(reserved, len);
            self.reserved_len = 0;
        }
        return false;
    }

    /// A pool that got little address space is smaller than what tables are made for at first.
    fn tablesFirst(self: *const Pool) u64 {
        return @min(tables_first, self.geometry.maxSize());
    }

    /// The headers before the tables, and what rounding may miss.
    const table_page = 4 * os.page_size;

    fn allow(self: *Pool, offset: u64, len: u64) bool {
        return files.allowAccess(self.base + offset, std.mem.alignForward(u64, len, os.page_size));
    }

    // -------------------------------------------------------------- what the allocator asks for

    /// Makes the tables usable for `capacity` bytes of data; the data itself comes with `prepare`.
    fn grow(self: *Pool, capacity: u64) bool {
        const slices = capacity / slice_size;
        const g = self.geometry;
        // Both tables have a line of fixed size for each slice, in order.
        return self.allow(0, g.remote_offset * slices / g.slices + table_page) and
            self.allow(g.remote_offset, (g.data_offset - g.remote_offset) * slices / g.slices) and
            self.allow(g.span, slices / 8 + 8);
    }

    fn growHook(context: ?*anyopaque, capacity: u64) bool {
        return of(context).grow(capacity);
    }

    fn prepareHook(context: ?*anyopaque, address: usize, len: u64) bool {
        const self = of(context);
        const from = address - self.data;
        if (from + len > self.ready and !self.extend(from + len)) return false;
        return self.gone_count == 0 or self.bringBack(from, from + len);
    }

    fn of(context: ?*anyopaque) *Pool {
        return @ptrCast(@alignCast(context.?));
    }

    /// Makes room in the file up to `end`, and some ahead while there is any.
    fn extend(self: *Pool, end: u64) bool {
        const need = end - self.ready;
        const left = self.geometry.maxSize() - self.ready;
        if (!self.fileIsOurs()) if (self.newFile()) |errno|
            return files.isOutOfReach(errno) and self.extendPrivate(@min(left, @max(need, piece_min)));
        const touched = @max(need, touched_piece);
        if (self.ready - self.file_from + touched <= touched_max and touched <= left and self.touch(touched))
            return true;
        const ahead = @min(left, @max(need, std.mem.alignForward(
            u64,
            std.math.clamp(self.ready / 16, piece_min, piece_max),
            piece_min,
        )));
        return self.make(ahead) or (need < ahead and self.make(need));
    }

    /// Goes on with memory of the system: a process that gave up its rights, changed its root or has all
    /// of its descriptors in use reaches the directory no more, nor does one that survived it.
    fn extendPrivate(self: *Pool, len: u64) bool {
        os.commitAnonymous(self.data + self.ready, len) catch return false;
        // Behind pages of a closed file it passes for one of them.
        if (self.shared_from == self.ready) self.shared_from += len;
        self.ready += len;
        self.forgetFile();
        return true;
    }

    fn make(self: *Pool, len: u64) bool {
        // It would take all there is, page by page, to find out that it does not suffice.
        if (self.in_memory and files.roomLeft(self.file) < len) return self.noRoom(len, -@as(i64, @intFromEnum(std.os.linux.E.NOSPC)));
        // Pages of a file in memory are made and cleared here either way: touched, they need no fault.
        const made = if (self.in_memory) self.touch(len) or self.allocate(len) else self.allocate(len);
        if (made) log.line(3, "the pool has {d} bytes", .{self.ready}) else {
            // What was had of it is others' room again.
            _ = files.resize(self.file, self.ready);
        }
        return made;
    }

    fn touch(self: *Pool, len: u64) bool {
        const address = self.data + self.ready;
        if (files.resize(self.file, self.ready + len) < 0) return false;
        if (files.mapShared(address, len, self.file, self.ready) < 0) return false;
        if (self.in_memory and len >= huge_page) _ = os.advise(address, len, std.os.linux.MADV.HUGEPAGE);
        if (!files.populate(address, len)) return false;
        self.ready += len;
        return true;
    }

    fn allocate(self: *Pool, len: u64) bool {
        const reserved = files.reserve(self.file, self.ready, len);
        if (reserved < 0) return self.noRoom(len, reserved);
        if (files.mapShared(self.data + self.ready, len, self.file, self.ready) < 0) return false;
        self.ready += len;
        return true;
    }

    fn noRoom(self: *const Pool, len: u64, result: i64) bool {
        log.line(1, "no room for {d} bytes more in {s}: {s}", .{ len, self.directory, errorText(result) });
        return false;
    }

    fn giveBackHook(context: ?*anyopaque, address: usize, len: u64) bool {
        const self = of(context);
        return self.giveBack(address - self.data, len);
    }

    fn giveBack(self: *Pool, from: u64, len: u64) bool {
        const begun = os.nowNs();
        if (len < gift_min or len < gift_timed and begun < self.next_gift_ns) return false;
        const given = self.drop(from, len);
        const now = os.nowNs();
        self.next_gift_ns = now + (now - begun) * 4;
        return given;
    }

    fn drop(self: *Pool, from: u64, len: u64) bool {
        const end = from + len;
        // A private page that is dropped would show the file's old bytes: zeros are laid over instead.
        const private_end = @min(end, self.shared_from);
        if (from < private_end) {
            os.commitAnonymous(self.data + from, private_end - from) catch return false;
        }
        const start = @max(from, self.shared_from);
        if (start >= end) return true;
        if (!files.punch(self.data + start, end - start)) return false;
        self.mark(start, end, true);
        return true;
    }

    fn mark(self: *Pool, from: u64, end: u64, gone: bool) void {
        var slice = from / slice_size;
        while (slice < end / slice_size) : (slice += 1) {
            const word = &self.gone[slice / 64];
            const bit = @as(u64, 1) << @truncate(slice);
            if ((word.* & bit != 0) == gone) continue;
            word.* ^= bit;
            if (gone) self.gone_count += 1 else self.gone_count -= 1;
        }
    }

    fn isGone(self: *const Pool, slice: u64) bool {
        return self.gone[slice / 64] >> @truncate(slice) & 1 != 0;
    }

    /// Makes room again below slices whose room was given back.
    fn bringBack(self: *Pool, from: u64, end: u64) bool {
        var slice = from / slice_size;
        const last = end / slice_size;
        while (slice < last) : (slice += 1) {
            if (!self.isGone(slice)) continue;
            const first = slice;
            while (slice < last and self.isGone(slice) and
                (slice * slice_size >= self.shared_from) == (first * slice_size >= self.shared_from)) slice += 1;
            if (!self.makeRoom(first * slice_size, slice * slice_size)) return false;
            self.mark(first * slice_size, slice * slice_size, false);
            slice -= 1;
        }
        return true;
    }

    fn makeRoom(self: *Pool, from: u64, end: u64) bool {
        if (from < self.shared_from) {
            os.commitAnonymous(self.data + from, end - from) catch return false;
            return true;
        }
        if (from >= self.file_from and self.fileIsOurs())
            return files.reserve(self.file, from, end - from) >= 0;
        return files.populate(self.data + from, end - from);
    }

    // -------------------------------------------------------------- the file

    fn fileIsOurs(self: *Pool) bool {
        return self.file != files.none and self.identity.is(self.file);
    }

    /// Begins a new file for what comes after `ready`: null, or the error number.
    fn newFile(self: *Pool) ?u32 {
        const opened = files.openUnnamed(self.directory);
        if (opened < 0) {
            log.line(1, "no file can be made in {s}: {s}", .{ self.directory, errorText(opened) });
            return @intCast(-opened);
        }
        self.file = files.moveUp(@intCast(opened));
        self.identity = files.Identity.of(self.file) orelse .{};
        files.keepInPlace(self.file);
        self.in_memory = files.isInMemory(self.file);
        self.file_from = self.ready;
        self.files_made += 1;
        return null;
    }

    // -------------------------------------------------------------- fork

    /// Whether there are shared pages whose file the program closed.
    pub fn hasClosed(self: *Pool) bool {
        return self.shared_from < if (self.fileIsOurs()) self.file_from else self.ready;
    }

    /// Makes all pages private to each process that a fork gives them to. What this one allocates beyond
    /// lies in the same file as before: a server that has all of its descriptors in use gets no new one.
    /// No other thread may store to pages whose file was closed. False when the system refuses.
    pub fn makePrivate(self: *Pool) bool {
        if (self.shared_from == self.ready) return true;
        if (!self.fileIsOurs()) self.forgetFile();
        const closed_end = self.file_from;
        if (self.shared_from < closed_end and !self.copyOut(self.shared_from, closed_end)) return false;
        self.shared_from = closed_end;
        if (closed_end < self.ready) {
            os.mapFilePrivate(self.data + closed_end, self.ready - closed_end, self.file, closed_end) catch return false;
        }
        self.shared_from = self.ready;
        self.file_from = self.ready;
        return true;
    }

    /// In a forked child, all pages private: the file is the parent's, what comes goes to a new one.
    pub fn leaveFile(self: *Pool) void {
        if (self.fileIsOurs()) files.close(self.file);
        self.forgetFile();
    }

    /// In a forked child whose parent goes on with the shared pages, and waits.
    pub fn takeOut(self: *Pool) bool {
        if (!self.copyOut(self.shared_from, self.ready)) return false;
        self.shared_from = self.ready;
        self.leaveFile();
        return true;
    }

    /// Makes pages private whose file is not at hand.
    fn copyOut(self: *Pool, from: u64, end: u64) bool {
        const pages = os.allocatePages(end - from) catch return false;
        var slice = from / slice_size;
        while (slice < end / slice_size) : (slice += 1) {
            // Reading what was given back would take room again.
            if (self.isGone(slice)) continue;
            const old: [*]const u8 = @ptrFromInt(self.data + slice * slice_size);
            @memcpy(pages[slice * slice_size - from ..][0..slice_size], old);
        }
        self.mark(from, end, false);
        return os.moveMapping(@intFromPtr(pages.ptr), pages.len, self.data + from) == null;
    }

    fn forgetFile(self: *Pool) void {
        self.file = files.none;
        self.file_from = self.ready;
    }

    /// A new file with the pool's bytes, for `moveTo`: negative when there is no room for it.
    pub fn copy(self: *Pool) i64 {
        const opened = files.openUnnamed(self.directory);
        if (opened < 0) return opened;
        const file: files.File = @intCast(opened);
        files.keepInPlace(file);
        const result = self.copyInto(file);
        if (result >= 0) return files.moveUp(file);
        files.close(file);
        return result;
    }

    fn copyInto(self: *Pool, file: files.File) i64 {
        const room = self.makeSameRoom(file);
        if (room < 0) return room;
        var at: u64 = 0;
        var free = self.allocator.freeRuns();
        while (true) {
            const run = free.next() catch null;
            const end = if (run) |r| r.offset - self.geometry.data_offset else self.allocator.usedRanges()[3].len;
            const written = files.writeAll(file, @as([*]const u8, @ptrFromInt(self.data + at))[0 .. end - at], at);
            if (written < 0) return written;
            at = end + (run orelse return 0).len;
        }
    }

    /// Makes room in a copy wherever the pool has some.
    fn makeSameRoom(self: *const Pool, file: files.File) i64 {
        const slices = self.ready / slice_size;
        var slice: u64 = 0;
        while (slice < slices) : (slice += 1) {
            if (self.isGone(slice)) continue;
            const first = slice;
            while (slice < slices and !self.isGone(slice)) slice += 1;
            const reserved = files.reserve(file, first * slice_size, (slice - first) * slice_size);
            if (reserved < 0) return reserved;
        }
        return files.resize(file, self.ready);
    }

    /// Takes `file`, a copy of the pool's bytes, for the pool's own.
    pub fn moveTo(self: *Pool, file: files.File) bool {
        if (files.mapShared(self.data, self.ready, file, 0) < 0) return false;
        if (self.fileIsOurs()) files.close(self.file);
        self.file = file;
        self.identity = files.Identity.of(file) orelse .{};
        self.file_from = 0;
        self.shared_from = 0;
        return true;
    }
};

pub fn errorText(result: i64) []const u8 {
    return os.errnoText(@intCast(-result));
}

test "a pool grows, gives back, brings back, and keeps its bytes through each way of a fork" {
    const pool = try std.testing.allocator.create(Pool);
    defer std.testing.allocator.destroy(pool);
    pool.* = .{};
    try std.testing.expectEqual(@as(?Fault, null), pool.open("/tmp", 14 << 20));
    defer pool.close();
    const a = &pool.allocator;
    defer a.close();
    const size = 24 << 20;
    for ([_]*const fn (*Pool) bool{ stay, Pool.makePrivate, toCopy, closeFile }) |way| {
        const block: [*]u8 = @ptrFromInt(try a.malloc(size));
        @memset(block[0..size], 7);
        const other = try a.malloc(size);
        @memset(@as([*]u8, @ptrFromInt(other))[0..size], 8);
        try a.free(other);
        try std.testing.expect(way(pool));
        try std.testing.expect(std.mem.allEqual(u8, block[0..size], 7));
        // What comes back from the file system, or from a run that was free, reads as zero in calloc.
        const again: [*]u8 = @ptrFromInt(try a.calloc(1, 2 * size));
        try std.testing.expect(std.mem.allEqual(u8, again[0 .. 2 * size], 0));
        @memset(again[0 .. 2 * size], 9);
        try std.testing.expect(std.mem.allEqual(u8, block[0..size], 7));
        try a.free(@intFromPtr(again));
        try a.free(@intFromPtr(block));
        try a.check();
    }
    const far = try a.malloc(pool.ready + (1 << 20));
    try std.testing.expect(pool.files_made >= 2 and pool.file_from >= pool.shared_from);
    try a.free(far);
}

fn stay(_: *Pool) bool {
    return true;
}

fn toCopy(pool: *Pool) bool {
    const file = pool.copy();
    return file >= 0 and pool.moveTo(@intCast(file));
}

/// As a program does that closes what it does not know, and then forks.
fn closeFile(pool: *Pool) bool {
    files.close(pool.file);
    return pool.makePrivate();
}
