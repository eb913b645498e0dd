//! The persistent heap for Zig programs: the root of the module `perm_heap`. A heap is mapped at a
//! fixed address, hands out memory as a `std.mem.Allocator`, and is committed to a file; killed at any
//! moment, the program goes on from the last commit, with every pointer into the heap what it was.
//!
//!     const perm = @import("perm_heap");
//!
//!     var heap = try perm.Heap.open(.{ .path = "visits.heap", .size = 1 << 20 });
//!     defer heap.close() catch {};
//!     const list = try heap.global(std.ArrayList(u64), "visits");
//!     if (list.is_new) list.value.* = .empty;
//!     try list.value.append(heap.allocator(), 1);
//!     _ = try heap.commit(.map);
//!
//! Containers that keep no allocator (std.ArrayList, std.HashMapUnmanaged) live in a heap as they are.
//! One that does (std.HashMap) has its `allocator` field set again after each opening: what it points
//! to belongs to a process. So do function pointers, vtables and error names.
//!
//! Invariant: a `Heap` is a handle, to be copied freely; used after `close` it is error.CLOSED.

const std = @import("std");
const errors = @import("errors.zig");
const blocks = @import("heap/blocks.zig");
const room = @import("heap/heap.zig");
const records = @import("abi.zig").records;
const alloc_room = @import("alloc/alloc.zig");

/// What can fail; `lastError` has the sentence.
pub const Error = errors.Error;
pub const Code = errors.Code;

/// What the calling thread's last failure was about. The texts stand until its next one.
pub const Failure = struct {
    code: Code,
    /// What was being done, with which value, and what to do.
    message: []const u8,
    path: []const u8,
    address: u64,
    errno: u32,
};

/// The calling thread's last failure, or null when it has none.
pub fn lastError() ?Failure {
    const last = errors.last() orelse return null;
    return .{
        .code = @enumFromInt(last.code),
        .message = last.message[0..last.message_len],
        .path = last.path[0..last.path_len],
        .address = last.address,
        .errno = last.errno,
    };
}

/// The two files a heap can be committed to.
pub const Which = room.Which;

/// Where an opened heap's contents came from.
pub const Resumed = room.Resumed;

/// `.w` makes a new heap, `.rw` goes on at the last commit, `.r` reads only.
pub const Mode = room.Mode;

/// Sizes are bytes; 0 is "not given".
pub const OpenOptions = struct {
    /// The map file; null for a heap without one.
    path: ?[]const u8 = null,
    /// The backup file, on other media if you like.
    backup: ?[]const u8 = null,
    /// Null: go on from whichever file holds the newest commit, or make a new heap.
    mode: ?Mode = null,
    /// What the heap holds before it grows.
    size: u64 = 0,
    /// What it may grow to; fixed when it is made.
    max_size: u64 = 0,
    /// Where a new heap lies: a multiple of 64 KiB.
    address: u64 = 0,
    /// Epochs to go back to.
    keep: u64 = 1,
    /// Bytes of log that start a fold.
    log_limit: u64 = 0,
    /// Read and check everything.
    verify: bool = false,
    /// Open what is whole of a damaged image.
    recover: bool = false,
    /// A new heap may replace a file that is no image.
    replace: bool = false,
};

pub const ImageOptions = struct {
    keep: u64 = 1,
    log_limit: u64 = 0,
    verify: bool = false,
    replace: bool = false,
};

pub const RestoreOptions = struct {
    /// Null: the last one.
    epoch: ?u64 = null,
    /// Null: the backup file if one is open, else the map file.
    from: ?Which = null,
    verify: bool = false,
};

pub const Report = struct {
    epoch: u64,
    pages: u64,
    bytes: u64,
    duration_ms: f64,
    /// The file held the torn end of a later commit.
    dropped: bool,

    fn of(report: records.Report) Report {
        return .{
            .epoch = whole(report.epoch),
            .pages = whole(report.pages),
            .bytes = whole(report.bytes),
            .duration_ms = report.duration_ms,
            .dropped = report.dropped != 0,
        };
    }
};

/// An epoch that can be gone back to.
pub const Epoch = struct { epoch: u64, time_ms: u64, pages: u64, bytes: u64 };

pub const Stats = struct {
    /// Bytes in live blocks, as rounded to their size classes.
    live_bytes: u64,
    live_blocks: u64,
    /// Bytes of spans and large blocks, free slots in them included.
    used: u64,
    capacity: u64,
    max_size: u64,
    /// Commits that stored something, and bases that were written anew in the background.
    commits: u64,
    folds: u64,
};

pub const Heap = struct {
    handle: u64,

    // -------------------------------------------------------------- opening and closing

    pub fn open(options: OpenOptions) Error!Heap {
        var inner: room.OpenOptions = .{
            .path = options.path,
            .backup = options.backup,
            .size = options.size,
            .max_size = options.max_size,
            .address = options.address,
            .keep = options.keep,
            .log_limit = options.log_limit,
            .verify = options.verify,
            .recover = options.recover,
            .replace = options.replace,
        };
        const mode = options.mode orelse return .{ .handle = (try room.Heap.openNewest(inner)).handle };
        if (options.backup != null) return errors.fail(.INVALID_ARGUMENT, .{}, "Cannot open a heap with a mode and a backup " ++
            "file: leave `mode` out, or bopen() the backup file", .{});
        inner.mode = mode;
        return .{ .handle = (try room.Heap.mopen(inner)).handle };
    }

    /// Never commits. Its memory reads as zeros afterwards.
    pub fn close(self: Heap) Error!void {
        return (try self.find()).close();
    }

    pub fn bopen(self: Heap, path: []const u8, mode: Mode, options: ImageOptions) Error!void {
        return (try self.find()).bopen(.{
            .path = path,
            .mode = mode,
            .keep = options.keep,
            .log_limit = options.log_limit,
            .verify = options.verify,
            .replace = options.replace,
        });
    }

    pub fn bclose(self: Heap) Error!void {
        return (try self.find()).bclose();
    }

    // -------------------------------------------------------------- memory

    /// The heap's memory. Good until the heap is closed; on a heap opened with "r" it has none to give.
    pub fn allocator(self: Heap) std.mem.Allocator {
        const heap = self.find() catch return .failing;
        return if (heap.mode == .r) .failing else heap.alloc.allocator();
    }

    /// Makes the heap hold at least `size` bytes, up to its limit.
    pub fn grow(self: Heap, size: u64) Error!void {
        return (try self.find()).grow(size);
    }

    /// What a named persistent global is, and whether it was made just now (zeroed).
    pub fn Global(comptime T: type) type {
        return struct { value: *T, is_new: bool };
    }

    /// A value that lives in the heap and is found again by its name. Another size or layout is
    /// error.BLOCK_MISMATCH.
    pub fn global(self: Heap, comptime T: type, name: []const u8) Error!Global(T) {
        comptime std.debug.assert(@alignOf(T) <= 16);
        const block = try (try self.find()).global(name, @sizeOf(T), 0);
        return .{ .value = @ptrFromInt(block.address), .is_new = !block.found };
    }

    /// One persistent pointer, for programs that need no more.
    pub fn root(self: Heap, comptime T: type) Error!?*T {
        return @ptrFromInt((try self.find()).header().root);
    }

    pub fn setRoot(self: Heap, pointer: anytype) Error!void {
        const heap = try self.findWritable();
        const address: usize = if (@typeInfo(@TypeOf(pointer)) == .null) 0 else @intFromPtr(pointer);
        if (address != 0) try heap.expectRange(address, 0);
        heap.header().root = address;
    }

    /// Registers a variable of the program: saved with each commit, filled when the heap holds it.
    /// True when it did. It must stay where it is until `unperm`.
    pub fn perm(self: Heap, name: []const u8, variable: anytype) Error!bool {
        const bytes = std.mem.asBytes(variable);
        return (try (try self.find()).perm(name, bytes.len, 0, @intFromPtr(bytes.ptr))).found;
    }

    pub fn unperm(self: Heap, name: []const u8) Error!void {
        return (try self.findWritable()).unperm(name);
    }

    /// Pages for another allocator that lives in this heap; see `Pages`.
    pub fn pages(self: Heap) Error!Pages {
        return .{ .heap = try self.findWritable() };
    }

    // -------------------------------------------------------------- commits

    /// Makes the heap as it is now durable: all of it or none of it.
    pub fn commit(self: Heap, which: Which) Error!Report {
        return .of(try (try self.find()).commit(which));
    }

    pub fn restore(self: Heap, options: RestoreOptions) Error!Report {
        return .of(try (try self.find()).restore(.{
            .epoch = options.epoch,
            .from = options.from,
            .verify = options.verify,
        }));
    }

    /// What can be gone back to, oldest first, into `buffer`; the first ones when it is too small.
    pub fn epochs(self: Heap, which: Which, buffer: []Epoch) Error![]Epoch {
        var list: [1024]records.Epoch = undefined;
        const count = try (try self.find()).epochs(which, &list);
        const shown = @min(count, list.len, buffer.len);
        for (list[0..shown], buffer[0..shown]) |from, *to| to.* = .{
            .epoch = whole(from.epoch),
            .time_ms = whole(from.time),
            .pages = whole(from.pages),
            .bytes = whole(from.bytes),
        };
        return buffer[0..shown];
    }

    // -------------------------------------------------------------- telling

    pub fn epoch(self: Heap) Error!u64 {
        return (try self.find()).history.epoch();
    }

    pub fn resumed(self: Heap) Error!Resumed {
        return (try self.find()).resumed;
    }

    /// The range that belongs to the heap, committed or not.
    pub fn range(self: Heap) Error!struct { address: usize, len: u64 } {
        const heap = try self.find();
        return .{ .address = heap.address, .len = heap.geometry.span };
    }

    pub fn stats(self: Heap) Error!Stats {
        const of = try (try self.find()).stats();
        return .{
            .live_bytes = whole(of.live_bytes),
            .live_blocks = whole(of.live_blocks),
            .used = whole(of.used),
            .capacity = whole(of.capacity),
            .max_size = whole(of.max_size),
            .commits = whole(of.commits),
            .folds = whole(of.folds),
        };
    }

    /// Walks and proves all metadata; error.CORRUPT says what is wrong.
    pub fn check(self: Heap) Error!void {
        return (try self.find()).check();
    }

    fn find(self: Heap) Error!*room.Heap {
        return room.Heap.find(self.handle) orelse errors.fail(.CLOSED, .{}, "The heap is closed; open it again", .{});
    }

    fn findWritable(self: Heap) Error!*room.Heap {
        const heap = try self.find();
        return if (heap.mode == .r) heap.readOnly() else heap;
    }
};

/// Where another allocator that lives in a heap gets its memory from: whole pages, zeroed, at addresses
/// that stay. What it knows of them it keeps in the heap too (`global`), and so is committed with it.
pub const Pages = struct {
    heap: *room.Heap,

    pub const size = alloc_room.slice_size;

    /// `count` pages in a row; null when the heap may not grow so far.
    pub fn take(self: Pages, count: usize) ?[]align(size) u8 {
        const len = std.math.mul(usize, count, size) catch return null;
        const address = self.heap.alloc.calloc(1, @max(len, size)) catch return null;
        if (address % size != 0) {
            self.heap.alloc.free(address) catch {};
            return null;
        }
        return @as([*]align(size) u8, @ptrFromInt(address))[0..len];
    }

    /// Gives back what one call of `take` gave. What is no such thing is error.BAD_POINTER.
    pub fn give(self: Pages, memory: []align(size) u8) Error!void {
        return self.heap.alloc.free(@intFromPtr(memory.ptr));
    }
};

fn whole(number: f64) u64 {
    return @intFromFloat(number);
}

test {
    _ = @import("test_perm.zig");
}
