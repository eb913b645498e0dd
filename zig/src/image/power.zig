//! A disk in memory that can lose power: what was not synced is lost, torn at 512 bytes and
//! reordered at random, names included; calls fail when told. For tests.
//!
//! Invariant: after a cut each sector holds one of the values that were written to it since its last
//! successful sync, or the one from before; a sync that failed takes none of them back, and later
//! ones do not know of them any more (as Linux does).

const std = @import("std");
const disk_ = @import("disk.zig");
const os = @import("../os/os.zig");
const real_disk = @import("../os/disk.zig");
const Disk = disk_.Disk;
const File = disk_.File;

const sector_len = 512;
const gpa = std.heap.page_allocator;

const Sector = [sector_len]u8;
const zero_sector: Sector = @splat(0);

const Inode = struct {
    number: u64,
    /// Indices into the pool of sector contents.
    current: std.ArrayList(u32) = .empty,
    size: u64 = 0,
    /// What the medium may hold of a sector or as size, when that is not sure.
    maybe: std.AutoHashMapUnmanaged(u64, std.ArrayListUnmanaged(u32)) = .empty,
    sizes: std.ArrayList(u64) = .empty,
    dirty: std.AutoHashMapUnmanaged(u64, void) = .empty,
    size_dirty: bool = false,
    lock: ?File = null,
    /// When it was changed last, and what is noted beside it; and all that the medium may hold of both,
    /// which no sync is sure to store.
    date: i64 = 1,
    dates: std.ArrayList(i64) = .empty,
    kept: []const u8 = &.{},
    notes: std.ArrayList([]const u8) = .empty,
};

const DirOp = union(enum) {
    link: struct { name: []const u8, inode: u32 },
    unlink: []const u8,
    rename: struct { from: []const u8, to: []const u8, inode: u32 },
    exchange: struct { names: [2][]const u8, inodes: [2]u32 },
};

const Handle = struct { inode: ?u32, dir: bool = false, closed: bool = false };
const Names = std.StringArrayHashMapUnmanaged(u32);

pub const PowerDisk = struct {
    arena: std.heap.ArenaAllocator = .init(gpa),
    prng: std.Random.DefaultPrng,
    pool: std.ArrayList(Sector) = .empty,
    pool_index: std.AutoHashMapUnmanaged(Sector, u32) = .empty,
    inodes: std.ArrayList(Inode) = .empty,
    names: Names = .empty,
    names_synced: Names = .empty,
    dir_ops: std.ArrayList(DirOp) = .empty,
    handles: std.ArrayList(Handle) = .empty,
    calls: usize = 0,
    /// From this call on nothing has an effect any more: the process is dead.
    dies_at: usize = std.math.maxInt(usize),
    /// This call fails.
    fails_at: usize = std.math.maxInt(usize),
    /// One call in so many fails; 0: none.
    fails_one_in: u32 = 0,
    /// Leave these out, to see that the checks notice.
    no_sync: bool = false,
    no_dir_sync: bool = false,
    clock: u64 = 1,
    /// How often the machine was started.
    starts: i64 = 1,
    /// How often a file was found to be nobody else's.
    soles: usize = 0,

    pub fn init(seed: u64) PowerDisk {
        var self: PowerDisk = .{ .prng = .init(seed) };
        _ = self.intern(zero_sector);
        return self;
    }

    pub fn deinit(self: *PowerDisk) void {
        self.arena.deinit();
    }

    fn alloc(self: *PowerDisk) std.mem.Allocator {
        return self.arena.allocator();
    }

    pub fn disk(self: *PowerDisk) Disk {
        return .{ .context = self, .vtable = comptime &Disk.vtableOf(functions) };
    }

    pub fn isDead(self: *const PowerDisk) bool {
        return self.calls > self.dies_at;
    }

    fn intern(self: *PowerDisk, sector: Sector) u32 {
        const entry = self.pool_index.getOrPut(self.alloc(), sector) catch unreachable;
        if (!entry.found_existing) {
            entry.value_ptr.* = @intCast(self.pool.items.len);
            self.pool.append(self.alloc(), sector) catch unreachable;
        }
        return entry.value_ptr.*;
    }

    /// The process ends; the page cache lives on.
    pub fn kill(self: *PowerDisk) void {
        self.handles.clearRetainingCapacity();
        for (self.inodes.items) |*inode| inode.lock = null;
        self.revive();
    }

    /// The machine stops: what the medium may hold is decided by chance.
    pub fn cut(self: *PowerDisk) void {
        self.kill();
        self.starts += 1;
        const random = self.prng.random();
        const ordered = random.boolean();
        const kept = random.uintAtMost(usize, self.dir_ops.items.len);
        for (self.dir_ops.items, 0..) |op, index| {
            if (if (ordered) index >= kept else random.boolean()) continue;
            self.applyDirOp(&self.names_synced, op);
        }
        self.dir_ops.clearRetainingCapacity();
        self.names.clearRetainingCapacity();
        var it = self.names_synced.iterator();
        while (it.next()) |entry| self.names.put(self.alloc(), entry.key_ptr.*, entry.value_ptr.*) catch unreachable;
        // Sometimes nearly all of it made it, sometimes nearly nothing.
        const bias = random.uintAtMost(u8, 10);
        for (self.inodes.items) |*inode| {
            var sectors = inode.maybe.iterator();
            while (sectors.next()) |entry| {
                const options = entry.value_ptr.items;
                const chosen = if (random.uintLessThan(u8, 10) < bias) options[options.len - 1] else options[random.uintLessThan(usize, options.len)];
                if (entry.key_ptr.* < inode.current.items.len) inode.current.items[entry.key_ptr.*] = chosen;
            }
            inode.maybe.clearRetainingCapacity();
            inode.dirty.clearRetainingCapacity();
            if (inode.sizes.items.len > 0) self.resize(inode, inode.sizes.items[random.uintLessThan(usize, inode.sizes.items.len)]);
            inode.sizes.clearRetainingCapacity();
            inode.size_dirty = false;
            if (inode.dates.items.len > 0) inode.date = inode.dates.items[random.uintLessThan(usize, inode.dates.items.len)];
            if (inode.notes.items.len > 0) inode.kept = inode.notes.items[random.uintLessThan(usize, inode.notes.items.len)];
        }
    }

    /// A change of the file at this moment.
    fn stamp(self: *PowerDisk, inode: *Inode) i64 {
        self.clock += 1;
        inode.date = @intCast(self.clock);
        inode.dates.append(self.alloc(), inode.date) catch unreachable;
        return inode.date;
    }

    /// A store to a page that was stored to since the last sync: it dates nothing.
    pub fn storeUndated(self: *PowerDisk, file: File, bytes: []const u8, offset: u64) bool {
        const inode = self.inodeOf(file);
        const before = inode.date;
        const done = self.disk().writeAll(file, bytes, offset) == null;
        inode.date = before;
        return done;
    }

    fn revive(self: *PowerDisk) void {
        self.dies_at = std.math.maxInt(usize);
        self.fails_one_in = 0;
    }

    fn resize(self: *PowerDisk, inode: *Inode, size: u64) void {
        const sectors = std.math.divCeil(u64, size, sector_len) catch unreachable;
        while (inode.current.items.len < sectors) inode.current.append(self.alloc(), 0) catch unreachable;
        if (size < inode.size) for (inode.current.items[sectors..], sectors..) |*sector, index| {
            _ = index;
            sector.* = 0;
        };
        inode.size = size;
    }

    fn applyDirOp(self: *PowerDisk, names: *Names, op: DirOp) void {
        switch (op) {
            .link => |made| names.put(self.alloc(), made.name, made.inode) catch unreachable,
            .unlink => |name| _ = names.swapRemove(name),
            .rename => |moved| {
                if (names.get(moved.from) == moved.inode) _ = names.swapRemove(moved.from);
                names.put(self.alloc(), moved.to, moved.inode) catch unreachable;
            },
            .exchange => |both| for (both.names, 0..) |name, index| {
                names.put(self.alloc(), name, both.inodes[1 - index]) catch unreachable;
            },
        }
    }

    fn note(self: *PowerDisk, inode: *Inode, index: u64, before: u32, after: u32) void {
        const entry = inode.maybe.getOrPut(self.alloc(), index) catch unreachable;
        if (!entry.found_existing) {
            entry.value_ptr.* = .empty;
            entry.value_ptr.append(self.alloc(), before) catch unreachable;
        }
        entry.value_ptr.append(self.alloc(), after) catch unreachable;
        inode.dirty.put(self.alloc(), index, {}) catch unreachable;
    }

    fn noteSize(self: *PowerDisk, inode: *Inode, size: u64) void {
        if (size == inode.size) return;
        _ = self.stamp(inode);
        if (inode.sizes.items.len == 0) inode.sizes.append(self.alloc(), inode.size) catch unreachable;
        inode.sizes.append(self.alloc(), size) catch unreachable;
        inode.size_dirty = true;
        // What lies behind the end reads as zeros when the file grows again.
        const first = std.math.divCeil(u64, size, sector_len) catch unreachable;
        var index = first;
        while (index < inode.current.items.len) : (index += 1) {
            if (inode.current.items[index] != 0) self.note(inode, index, inode.current.items[index], 0);
        }
        self.resize(inode, size);
    }

    fn inodeOf(self: *PowerDisk, file: File) *Inode {
        return &self.inodes.items[self.handles.items[@intCast(file)].inode.?];
    }

    fn newHandle(self: *PowerDisk, handle: Handle) i64 {
        self.handles.append(self.alloc(), handle) catch unreachable;
        return @intCast(self.handles.items.len - 1);
    }

    /// Counts a call; the error it has to answer with, if any.
    fn trouble(self: *PowerDisk) ?i64 {
        defer self.calls += 1;
        if (self.calls >= self.dies_at) return -@as(i64, @intFromEnum(os.E.IO));
        if (self.calls == self.fails_at) return -@as(i64, @intFromEnum(os.E.IO));
        if (self.fails_one_in == 0) return null;
        const random = self.prng.random();
        if (random.uintLessThan(u32, self.fails_one_in) != 0) return null;
        return -@as(i64, @intFromEnum(if (random.boolean()) os.E.IO else os.E.NOSPC));
    }

    fn of(context: ?*anyopaque) *PowerDisk {
        return @ptrCast(@alignCast(context.?));
    }

    fn err(e: os.E) i64 {
        return -@as(i64, @intFromEnum(e));
    }

    const functions = struct {
        pub fn open(c: ?*anyopaque, _: File, name: [*:0]const u8, how: disk_.How) i64 {
            const self = of(c);
            if (how.directory) return self.newHandle(.{ .inode = null, .dir = true });
            if (self.trouble()) |errno| return errno;
            const text = std.mem.span(name);
            if (self.names.get(text)) |inode| return if (how.create) err(.EXIST) else self.newHandle(.{ .inode = inode });
            if (!how.create) return err(.NOENT);
            const owned = self.alloc().dupe(u8, text) catch unreachable;
            const number: u32 = @intCast(self.inodes.items.len);
            self.inodes.append(self.alloc(), .{ .number = number }) catch unreachable;
            self.names.put(self.alloc(), owned, number) catch unreachable;
            self.dir_ops.append(self.alloc(), .{ .link = .{ .name = owned, .inode = number } }) catch unreachable;
            return self.newHandle(.{ .inode = number });
        }

        pub fn openDirect(_: ?*anyopaque, _: File) i64 {
            return err(.INVAL);
        }

        pub fn close(c: ?*anyopaque, file: File) void {
            const self = of(c);
            // A process that is dead for the disk still runs its cleanup here.
            if (file >= self.handles.items.len) return;
            const handle = &self.handles.items[@intCast(file)];
            handle.closed = true;
            if (handle.inode) |index| {
                const inode = &self.inodes.items[index];
                if (inode.lock == file) inode.lock = null;
            }
        }

        fn describe(self: *PowerDisk, index: u32, out: *disk_.Stat) void {
            const inode = &self.inodes.items[index];
            out.* = .{ .device = 1, .inode = index + 10, .size = inode.size, .allocated = inode.size, .kind = .regular, .mode = 0o600 };
        }

        pub fn stat(c: ?*anyopaque, file: File, out: *disk_.Stat) i64 {
            const self = of(c);
            const handle = self.handles.items[@intCast(file)];
            if (handle.inode) |index| describe(self, index, out) else out.* = .{ .device = 1, .inode = 1, .kind = .directory };
            return 0;
        }

        pub fn statAt(c: ?*anyopaque, _: File, name: [*:0]const u8, out: *disk_.Stat) i64 {
            const self = of(c);
            const index = self.names.get(std.mem.span(name)) orelse return err(.NOENT);
            describe(self, index, out);
            return 0;
        }

        pub fn readLink(_: ?*anyopaque, _: File, _: [*:0]const u8, _: []u8) i64 {
            return err(.INVAL);
        }

        pub fn read(c: ?*anyopaque, file: File, buffer: []u8, offset: u64) i64 {
            const self = of(c);
            if (self.trouble()) |errno| return errno;
            const inode = self.inodeOf(file);
            const len = @min(buffer.len, inode.size -| offset);
            self.copyOut(inode, buffer[0..len], offset);
            return @intCast(len);
        }

        pub fn write(c: ?*anyopaque, file: File, bytes: []const u8, offset: u64) i64 {
            const self = of(c);
            const trouble_now = self.trouble();
            // A write that fails, or whose process dies in it, may have done its first part.
            var len = bytes.len;
            if (trouble_now != null) {
                if (self.calls -| 1 > self.dies_at) return trouble_now.?;
                len = self.prng.random().uintAtMost(usize, bytes.len);
            } else if (self.prng.random().uintLessThan(u8, 20) == 0) {
                len = 1 + self.prng.random().uintLessThan(usize, bytes.len);
            }
            self.copyIn(self.inodeOf(file), bytes[0..len], offset);
            return trouble_now orelse @intCast(len);
        }

        pub fn copy(c: ?*anyopaque, from: File, at: u64, to: File, to_at: u64, len: u64) i64 {
            const self = of(c);
            if (self.trouble()) |errno| return errno;
            var buffer: [8192]u8 = undefined;
            const source = self.inodeOf(from);
            const part = @min(buffer.len, len, source.size -| at);
            self.copyOut(source, buffer[0..part], at);
            self.copyIn(self.inodeOf(to), buffer[0..part], to_at);
            return @intCast(part);
        }

        pub fn allocate(c: ?*anyopaque, file: File, offset: u64, len: u64) i64 {
            const self = of(c);
            if (self.trouble()) |errno| return errno;
            const inode = self.inodeOf(file);
            if (offset + len > inode.size) self.noteSize(inode, offset + len);
            return 0;
        }

        pub fn truncate(c: ?*anyopaque, file: File, len: u64) i64 {
            const self = of(c);
            if (self.trouble()) |errno| return errno;
            self.noteSize(self.inodeOf(file), len);
            return 0;
        }

        pub fn sync(c: ?*anyopaque, file: File) i64 {
            const self = of(c);
            const inode = self.inodeOf(file);
            const failed = self.trouble();
            if (self.calls > self.dies_at) return failed.?;
            if (!self.no_sync or failed != null) {
                var dirty = inode.dirty.keyIterator();
                while (dirty.next()) |index| {
                    if (failed == null) _ = inode.maybe.remove(index.*);
                }
                if (failed == null and inode.size_dirty) inode.sizes.clearRetainingCapacity();
                inode.dirty.clearRetainingCapacity();
                inode.size_dirty = false;
            }
            return failed orelse 0;
        }

        pub fn syncDir(c: ?*anyopaque, _: File) i64 {
            const self = of(c);
            if (self.trouble()) |errno| return errno;
            if (self.no_dir_sync) return 0;
            for (self.dir_ops.items) |op| self.applyDirOp(&self.names_synced, op);
            self.dir_ops.clearRetainingCapacity();
            return 0;
        }

        pub fn startWriting(_: ?*anyopaque, _: File, _: u64, _: u64) void {}

        pub fn lock(c: ?*anyopaque, file: File) i64 {
            const inode = of(c).inodeOf(file);
            if (inode.lock) |holder| if (holder != file) return err(.AGAIN);
            inode.lock = file;
            return 0;
        }

        pub fn unlock(c: ?*anyopaque, file: File) void {
            close(c, file);
        }

        pub fn locked(c: ?*anyopaque, file: File) i64 {
            const inode = of(c).inodeOf(file);
            return @intFromBool(inode.lock != null and inode.lock != file);
        }

        pub fn rename(c: ?*anyopaque, _: File, from: [*:0]const u8, to: [*:0]const u8, replace: bool) i64 {
            const self = of(c);
            if (self.trouble()) |errno| return errno;
            const source = self.names.getEntry(std.mem.span(from)) orelse return err(.NOENT);
            if (!replace and self.names.contains(std.mem.span(to))) return err(.EXIST);
            const op: DirOp = .{ .rename = .{
                .from = source.key_ptr.*,
                .to = self.alloc().dupe(u8, std.mem.span(to)) catch unreachable,
                .inode = source.value_ptr.*,
            } };
            self.applyDirOp(&self.names, op);
            self.dir_ops.append(self.alloc(), op) catch unreachable;
            return 0;
        }

        pub fn exchange(c: ?*anyopaque, _: File, a: [*:0]const u8, b: [*:0]const u8) i64 {
            const self = of(c);
            if (self.trouble()) |errno| return errno;
            const first = self.names.getEntry(std.mem.span(a)) orelse return err(.NOENT);
            const second = self.names.getEntry(std.mem.span(b)) orelse return err(.NOENT);
            const op: DirOp = .{ .exchange = .{
                .names = .{ first.key_ptr.*, second.key_ptr.* },
                .inodes = .{ first.value_ptr.*, second.value_ptr.* },
            } };
            self.applyDirOp(&self.names, op);
            self.dir_ops.append(self.alloc(), op) catch unreachable;
            return 0;
        }

        pub fn sole(c: ?*anyopaque, file: File) i64 {
            const self = of(c);
            const inode = self.handles.items[@intCast(file)].inode.?;
            var refs: usize = 0;
            for (self.handles.items) |handle| refs += @intFromBool(!handle.closed and handle.inode == inode);
            for (self.names.values()) |named| refs += @intFromBool(named == inode);
            self.soles += @intFromBool(refs == 2);
            return @intFromBool(refs == 2);
        }

        pub fn link(c: ?*anyopaque, _: File, from: [*:0]const u8, to: [*:0]const u8) i64 {
            const self = of(c);
            if (self.trouble()) |errno| return errno;
            const inode = self.names.get(std.mem.span(from)) orelse return err(.NOENT);
            const op: DirOp = .{ .link = .{ .name = self.alloc().dupe(u8, std.mem.span(to)) catch unreachable, .inode = inode } };
            self.applyDirOp(&self.names, op);
            self.dir_ops.append(self.alloc(), op) catch unreachable;
            return 0;
        }

        pub fn unlink(c: ?*anyopaque, _: File, name: [*:0]const u8) i64 {
            const self = of(c);
            if (self.trouble()) |errno| return errno;
            if (!self.names.contains(std.mem.span(name))) return err(.NOENT);
            const op: DirOp = .{ .unlink = self.alloc().dupe(u8, std.mem.span(name)) catch unreachable };
            self.applyDirOp(&self.names, op);
            self.dir_ops.append(self.alloc(), op) catch unreachable;
            return 0;
        }

        pub fn setMode(_: ?*anyopaque, _: File, _: u16) i64 {
            return 0;
        }

        pub fn list(c: ?*anyopaque, _: File, context: *anyopaque, visit: *const fn (*anyopaque, [:0]const u8) void) i64 {
            const self = of(c);
            for (self.names.keys()) |name| visit(context, self.alloc().dupeZ(u8, name) catch unreachable);
            return 0;
        }

        pub fn map(c: ?*anyopaque, file: File, offset: u64, address: usize, len: usize) i64 {
            const self = of(c);
            self.copyOut(self.inodeOf(file), @as([*]u8, @ptrFromInt(address))[0..len], offset);
            return 0;
        }

        pub fn date(c: ?*anyopaque, file: File) i64 {
            return of(c).inodeOf(file).date;
        }

        pub fn setDate(c: ?*anyopaque, file: File) i64 {
            const self = of(c);
            return self.trouble() orelse self.stamp(self.inodeOf(file));
        }

        pub fn witness(c: ?*anyopaque, file: File) i64 {
            const self = of(c);
            return self.starts * 1000 + @as(i64, @intCast(self.inodeOf(file).number));
        }

        pub fn setNote(c: ?*anyopaque, file: File, bytes: []const u8) i64 {
            const self = of(c);
            if (self.trouble()) |errno| return errno;
            const inode = self.inodeOf(file);
            inode.kept = self.alloc().dupe(u8, bytes) catch unreachable;
            inode.notes.append(self.alloc(), inode.kept) catch unreachable;
            return 0;
        }

        pub fn getNote(c: ?*anyopaque, file: File, into: []u8) i64 {
            const kept = of(c).inodeOf(file).kept;
            if (kept.len > into.len) return err(.RANGE);
            @memcpy(into[0..kept.len], kept);
            return @intCast(kept.len);
        }

        pub fn holesCost(_: ?*anyopaque, _: File) i64 {
            return 0;
        }

        pub fn seek(_: ?*anyopaque, _: File, offset: u64, _: real_disk.Seek) i64 {
            return @intCast(offset);
        }

        pub fn mapsFree(_: ?*anyopaque) u64 {
            return 60_000;
        }

        pub fn pause(_: ?*anyopaque, _: u64) void {}

        pub fn now(c: ?*anyopaque) u64 {
            of(c).clock += 1;
            return of(c).clock;
        }

        pub fn random(c: ?*anyopaque, into: []u8) void {
            of(c).prng.random().bytes(into);
        }
    };

    fn copyOut(self: *PowerDisk, inode: *const Inode, into: []u8, offset: u64) void {
        var done: usize = 0;
        while (done < into.len) {
            const at = offset + done;
            const inside = at % sector_len;
            const part = @min(sector_len - inside, into.len - done);
            const sector = &self.pool.items[inode.current.items[at / sector_len]];
            @memcpy(into[done..][0..part], sector[inside..][0..part]);
            done += part;
        }
    }

    fn copyIn(self: *PowerDisk, inode: *Inode, bytes: []const u8, offset: u64) void {
        if (bytes.len == 0) return;
        _ = self.stamp(inode);
        if (offset + bytes.len > inode.size) self.noteSize(inode, offset + bytes.len);
        var done: usize = 0;
        while (done < bytes.len) {
            const at = offset + done;
            const inside = at % sector_len;
            const part = @min(sector_len - inside, bytes.len - done);
            const index = at / sector_len;
            const before = inode.current.items[index];
            var sector = self.pool.items[before];
            @memcpy(sector[inside..][0..part], bytes[done..][0..part]);
            const after = self.intern(sector);
            inode.current.items[index] = after;
            self.note(inode, index, before, after);
            done += part;
        }
    }
};
