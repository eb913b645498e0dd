//! For this room's tests: a heap of plain pages with a model of what was committed, a temporary
//! directory, and a disk that fails or stops at a chosen call.

const std = @import("std");
const errors = @import("../errors.zig");
const os = @import("../os/os.zig");
const disk_ = @import("disk.zig");
const format = @import("format.zig");
const image_ = @import("image.zig");
const real_disk = @import("../os/disk.zig");
const Disk = disk_.Disk;
const Image = image_.Image;
const page_size = format.page_size;

/// In an `errdefer`: what the engine said last.
pub fn explain() void {
    const record = errors.last() orelse return;
    std.debug.print("{s}\n", .{record.message[0..record.message_len]});
}

/// A directory of its own under the build's cache.
pub const Dir = struct {
    tmp: std.testing.TmpDir,
    buffer: [512]u8 = undefined,

    pub fn init() Dir {
        return .{ .tmp = std.testing.tmpDir(.{ .iterate = true }) };
    }

    pub fn deinit(self: *Dir) void {
        self.tmp.cleanup();
    }

    pub fn path(self: *Dir, name: []const u8) []const u8 {
        return std.fmt.bufPrint(&self.buffer, ".zig-cache/tmp/{s}/{s}", .{ self.tmp.sub_path, name }) catch unreachable;
    }

    pub fn count(self: *Dir) !usize {
        var total: usize = 0;
        var it = self.tmp.dir.iterate();
        while (try it.next(std.testing.io)) |_| total += 1;
        return total;
    }

    /// The name of a file that contains `part`.
    pub fn find(self: *Dir, part: []const u8, into: []u8) ![]const u8 {
        var it = self.tmp.dir.iterate();
        while (try it.next(std.testing.io)) |entry| {
            if (std.mem.indexOf(u8, entry.name, part) == null) continue;
            @memcpy(into[0..entry.name.len], entry.name);
            return into[0..entry.name.len];
        }
        return error.FileNotFound;
    }

    pub fn read(self: *Dir, name: []const u8) ![]u8 {
        return self.tmp.dir.readFileAlloc(std.testing.io, name, std.testing.allocator, .unlimited);
    }

    pub fn write(self: *Dir, name: []const u8, bytes: []const u8) !void {
        try self.tmp.dir.writeFile(std.testing.io, .{ .sub_path = name, .data = bytes });
    }

    pub fn clear(self: *Dir) !void {
        var names: std.ArrayList([]u8) = .empty;
        defer names.deinit(std.testing.allocator);
        var it = self.tmp.dir.iterate();
        while (try it.next(std.testing.io)) |entry| try names.append(std.testing.allocator, try std.testing.allocator.dupe(u8, entry.name));
        for (names.items) |name| {
            try self.tmp.dir.deleteFile(std.testing.io, name);
            std.testing.allocator.free(name);
        }
    }
};

/// A base and a log with some records, as bytes.
pub const Files = struct {
    base: []u8,
    log: []u8,
    log_name: [64]u8 = undefined,
    log_name_len: usize = 0,

    pub fn take(dir: *Dir) !Files {
        var self: Files = .{ .base = try dir.read("a"), .log = undefined };
        const name = try dir.find("-log-", &self.log_name);
        self.log_name_len = name.len;
        self.log = try dir.read(name);
        return self;
    }

    pub fn deinit(self: *Files) void {
        std.testing.allocator.free(self.base);
        std.testing.allocator.free(self.log);
    }

    pub fn logName(self: *const Files) []const u8 {
        return self.log_name[0..self.log_name_len];
    }

    pub fn put(self: *const Files, dir: *Dir) !void {
        try dir.clear();
        try dir.write("a", self.base);
        try dir.write(self.logName(), self.log);
    }
};

/// Memory that stands for a heap.
pub const Heap = struct {
    pages: u64,
    memory: []align(page_size) u8,
    identity: image_.Identity,
    history: image_.History = .{},
    used: image_.PageRange,
    holes: []const image_.PageRange = &.{},
    all: bool = false,

    pub fn init(pages: u64) Heap {
        var identity: image_.Identity = .{
            .address = 0x4123_0000_0000,
            .span = pages * page_size,
            .capacity = pages * page_size,
            .max_size = pages * page_size,
        };
        identity.uuid = @bitCast(@as(u128, 0x1234_5678_9abc_def0));
        return .{
            .pages = pages,
            .memory = os.allocatePages(pages * page_size) catch unreachable,
            .identity = identity,
            .used = .{ .first = 0, .count = pages },
        };
    }

    pub fn deinit(self: *Heap) void {
        os.freePages(self.memory);
        self.history.deinit();
    }

    pub fn page(self: *Heap, index: u64) []u8 {
        return self.memory[index * page_size ..][0..page_size];
    }

    /// A new image is for this heap from here on, beside the other one if there is one.
    pub fn join(self: *Heap, image: *Image, other: ?*Image) errors.Error!void {
        try image.join(&self.history, self.identity.span, other);
    }

    /// Writes to a page and tells the images.
    pub fn touch(self: *Heap, images: []const *Image, index: u64, value: u64) void {
        const words: []align(page_size) u8 = self.memory[0..];
        std.mem.writeInt(u64, words[index * page_size ..][0..8], value, .little);
        std.mem.writeInt(u64, words[index * page_size + 2048 ..][0..8], value *% 31, .little);
        for (images) |image| image.pending.set(index);
    }

    pub fn commit(self: *Heap, image: *Image, other: ?*Image) errors.Error!image_.CommitReport {
        var one = try image.begin();
        defer one.end();
        if (self.all) image.compare_all = true;
        try one.prepare(.{
            .memory = @intFromPtr(self.memory.ptr),
            .identity = self.identity,
            .used = &.{self.used},
            .holes = self.holes,
            .other = other,
        });
        return one.finish();
    }

    /// The heap as an image holds it, at `epoch` or last: compared with `expected`.
    pub fn expectStored(image: *Image, epoch: ?u64, expected: []const u8) !void {
        const point = try image.point(epoch);
        const len = point.identity.span;
        const scratch = try os.reserve(0, len);
        defer os.unmap(scratch, len);
        _ = try image.build(point, scratch, len);
        const bytes = @as([*]const u8, @ptrFromInt(scratch))[0..len];
        if (std.mem.indexOfDiff(u8, bytes, expected)) |at| {
            std.debug.print("page {d} differs at byte {d} of epoch {d}\n", .{ at / page_size, at % page_size, point.epoch() });
            return error.TestExpectedEqual;
        }
    }

    /// Takes the heap's content from an image.
    pub fn restore(self: *Heap, image: *Image, epoch: ?u64) !void {
        image.cancelFold();
        const point = try image.point(epoch);
        const len = point.identity.span;
        os.freePages(self.memory);
        const at = try os.reserve(0, len);
        _ = try image.build(point, at, len);
        self.memory = @as([*]align(page_size) u8, @ptrFromInt(at))[0..len];
        self.identity = point.identity;
        try image.adopt(&self.history, point);
    }

    pub fn copy(self: *Heap) ![]u8 {
        return std.testing.allocator.dupe(u8, self.memory);
    }
};

/// A directory for images, and a heap to commit to them.
pub const Scene = struct {
    dir: Dir,
    heap: Heap,

    pub fn init(pages: u64) Scene {
        return .{ .dir = .init(), .heap = .init(pages) };
    }

    pub fn deinit(self: *Scene) void {
        self.heap.deinit();
        self.dir.deinit();
    }
};

/// The real disk, but for the calls that are given by their names.
pub fn realBut(comptime calls: anytype) Disk.VTable {
    var vtable = Disk.vtableOf(real_disk);
    for (@typeInfo(@TypeOf(calls)).@"struct".fields) |field| @field(vtable, field.name) = @field(calls, field.name);
    return vtable;
}

/// The real disk, until call number `stop_at`. Then that call fails with `errno`, and with `dead`
/// every later one too, as if the process had ended there.
pub const FaultyDisk = struct {
    calls: usize = 0,
    stop_at: usize = std.math.maxInt(usize),
    errno: u16 = @intFromEnum(os.E.IO),
    dead: bool = false,
    syncs: usize = 0,

    pub fn disk(self: *FaultyDisk) Disk {
        return .{ .context = self, .vtable = comptime &Disk.vtableOf(functions) };
    }

    fn fails(context: ?*anyopaque) ?i64 {
        const self: *FaultyDisk = @ptrCast(@alignCast(context.?));
        defer self.calls += 1;
        const stop = if (self.dead) self.calls >= self.stop_at else self.calls == self.stop_at;
        return if (stop) -@as(i64, self.errno) else null;
    }

    const functions = struct {
        pub fn open(c: ?*anyopaque, dir: disk_.File, name: [*:0]const u8, how: disk_.How) i64 {
            return fails(c) orelse real_disk.open(c, dir, name, how);
        }
        pub const close = real_disk.close;
        /// Writes of other threads could not be counted in order.
        pub fn openDirect(_: ?*anyopaque, _: disk_.File) i64 {
            return -@as(i64, @intFromEnum(os.E.INVAL));
        }
        pub const stat = real_disk.stat;
        pub const statAt = real_disk.statAt;
        pub const readLink = real_disk.readLink;
        pub fn read(c: ?*anyopaque, file: disk_.File, buffer: []u8, offset: u64) i64 {
            return fails(c) orelse real_disk.read(c, file, buffer, offset);
        }
        pub fn write(c: ?*anyopaque, file: disk_.File, bytes: []const u8, offset: u64) i64 {
            if (fails(c)) |errno| {
                // What a failing write leaves is part of the bytes.
                _ = real_disk.write(c, file, bytes[0 .. bytes.len / 2], offset);
                return errno;
            }
            return real_disk.write(c, file, bytes[0..@min(bytes.len, 100_000)], offset);
        }
        pub fn copy(c: ?*anyopaque, from: disk_.File, at: u64, to: disk_.File, to_at: u64, len: u64) i64 {
            return fails(c) orelse real_disk.copy(c, from, at, to, to_at, @min(len, 50_000));
        }
        pub fn allocate(c: ?*anyopaque, file: disk_.File, offset: u64, len: u64) i64 {
            return fails(c) orelse real_disk.allocate(c, file, offset, len);
        }
        pub fn truncate(c: ?*anyopaque, file: disk_.File, len: u64) i64 {
            return fails(c) orelse real_disk.truncate(c, file, len);
        }
        pub fn sync(c: ?*anyopaque, file: disk_.File) i64 {
            const self: *FaultyDisk = @ptrCast(@alignCast(c.?));
            self.syncs += 1;
            _ = file;
            return fails(c) orelse 0;
        }
        pub fn syncDir(c: ?*anyopaque, dir: disk_.File) i64 {
            _ = dir;
            return fails(c) orelse 0;
        }
        pub const startWriting = real_disk.startWriting;
        pub const lock = real_disk.lock;
        pub const unlock = real_disk.unlock;
        pub const locked = real_disk.locked;
        pub fn rename(c: ?*anyopaque, dir: disk_.File, from: [*:0]const u8, to: [*:0]const u8, replace: bool) i64 {
            return fails(c) orelse real_disk.rename(c, dir, from, to, replace);
        }
        pub fn exchange(c: ?*anyopaque, dir: disk_.File, a: [*:0]const u8, b: [*:0]const u8) i64 {
            return fails(c) orelse real_disk.exchange(c, dir, a, b);
        }
        pub const sole = real_disk.sole;
        pub fn link(c: ?*anyopaque, dir: disk_.File, from: [*:0]const u8, to: [*:0]const u8) i64 {
            return fails(c) orelse real_disk.link(c, dir, from, to);
        }
        pub fn unlink(c: ?*anyopaque, dir: disk_.File, name: [*:0]const u8) i64 {
            return fails(c) orelse real_disk.unlink(c, dir, name);
        }
        pub const setMode = real_disk.setMode;
        pub const list = real_disk.list;
        pub const map = real_disk.map;
        pub const holesCost = real_disk.holesCost;
        pub const seek = real_disk.seek;
        pub const mapsFree = real_disk.mapsFree;
        pub const pause = real_disk.pause;
        pub const now = real_disk.now;
        pub const random = real_disk.random;
    };
};
