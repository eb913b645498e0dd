//! Shared heaps: the heap's file mapped over its range, so that it may be larger than memory and the
//! system writes it back when it likes. A flush is the moment in which file and heap are the same.
//!
//! Invariants: no page of the file is mapped that has no room on the medium, so that a full disk is an
//! error and never a signal; what of the range has none is private zeros. The mark goes only when
//! nothing was stored since a flush that succeeded. Room is never given back while the heap lives.

const std = @import("std");
const os = @import("../os/os.zig");
const errors = @import("../errors.zig");
const opening = @import("open.zig");
const ranges = @import("ranges.zig");
const blocks = @import("blocks.zig");
const heap_room = @import("heap.zig");
const shared_map = @import("../os/shared_map.zig");
const pool_file = @import("../os/pool_file.zig");
const alloc_room = @import("../alloc/alloc.zig");
const image_room = @import("../image/image.zig");
const shared_file = @import("../image/shared_file.zig");
const format = @import("../image/format.zig");

const Error = errors.Error;
const fail = errors.fail;
const File = pool_file.File;
const Geometry = alloc_room.Geometry;
const Header = @import("header.zig").Header;
const Heap = heap_room.Heap;
const Identity = image_room.Identity;
const OpenOptions = heap_room.OpenOptions;
const SharedFile = shared_file.SharedFile;
const heap_offset = shared_file.heap_offset;
const slice_size = alloc_room.slice_size;
const gpa = os.page_allocator;

/// A page of the file that nothing stands in, to see how stores to it show.
const probe_offset = heap_offset / 2;

comptime {
    std.debug.assert(probe_offset >= 2 * shared_file.slot_len and probe_offset + os.page_size <= heap_offset);
}

pub const Shared = struct {
    file: *SharedFile,
    /// The file's opening that maps are made from.
    map: File,
    watch: Watch = .{},
    /// Why the heap could not grow.
    refusal: ?errors.Record = null,
    /// Another program cut the file off: what stood there is gone, until a restore brings another file.
    cut: bool = false,
    /// A restore failed when it had given the heap's memory up: nothing is to be read there.
    lost: bool = false,
    process: u32,

    // ---------------------------------------------------------------- making and opening

    pub fn open(options: shared_file.Options) Error!*Shared {
        const file = try SharedFile.open(options);
        errdefer file.close();
        const map = try file.openToMap();
        errdefer pool_file.close(map);
        const self = gpa.create(Shared) catch return opening.noMemory(@sizeOf(Shared));
        self.* = .{ .file = file, .map = map, .process = os.processId() };
        return self;
    }

    /// Closes the files; the mark stays as it is.
    pub fn close(self: *Shared) void {
        pool_file.close(self.map);
        self.file.close();
        gpa.destroy(self);
    }

    /// Makes room for a heap of that capacity, and for what stands before it.
    fn makeRoom(self: *Shared, file: File, geometry: Geometry, capacity: u64) Error!void {
        const before = fileLength(file);
        errdefer _ = pool_file.resize(file, before);
        try self.reserve(file, 0, heap_offset, capacity);
        for (geometry.parts(capacity)) |part| try self.reserve(file, heap_offset + part.offset, part.len, capacity);
    }

    fn reserve(self: *Shared, file: File, offset: u64, len: u64, capacity: u64) Error!void {
        if (shared_map.hasRoom(file, offset, len)) return;
        const result = pool_file.reserve(file, offset, len);
        if (result >= 0) return;
        const errno: u32 = @intCast(-result);
        const detail: errors.Detail = .{ .path = self.file.path(), .errno = errno };
        switch (pool_file.errnoOf(result)) {
            .NOSPC, .DQUOT, .FBIG => return fail(.NO_SPACE, detail, "Cannot make room for {d} bytes in shared heap \"{s}\": " ++
                "no room is left there, or the process may not make files so large ({s}); free some and try again", .{
                capacity, self.file.path(), os.errnoText(errno),
            }),
            else => return fail(.IO, detail, "Cannot make room for {d} bytes in shared heap \"{s}\": {s}", .{
                capacity, self.file.path(), os.errnoText(errno),
            }),
        }
    }

    /// Lays the file over `[address, address + data_offset + capacity)`, which the caller has reserved.
    fn lay(self: *Shared, file: File, address: usize, geometry: Geometry, capacity: u64) Error!void {
        try opening.commitRange(address, geometry.data_offset + capacity);
        for (geometry.parts(capacity)) |part| try self.layPart(file, address, part.offset, part.len);
    }

    fn layPart(self: *Shared, file: File, address: usize, offset: u64, len: u64) Error!void {
        if (len == 0) return;
        if (self.file.mode == .read) return self.layPrivate(file, address, offset, len);
        try self.layAt(file, address + offset, offset, len);
        // No child may store to what its parent goes on with, whichever way it was forked.
        const dont_fork = 10;
        _ = os.advise(address + offset, len, dont_fork);
    }

    /// A part of the heap in `file`, mapped anywhere.
    fn layAt(self: *Shared, file: File, to: usize, offset: u64, len: u64) Error!void {
        const result = pool_file.mapShared(to, len, file, heap_offset + offset);
        if (result < 0) return self.noMap(@intCast(-result));
    }

    fn noMap(self: *Shared, errno: u32) Error {
        return fail(.OUT_OF_MEMORY, .{ .path = self.file.path(), .errno = errno }, "Cannot map shared heap \"{s}\": {s}", .{
            self.file.path(), os.errnoText(errno),
        });
    }

    /// For a reader. On tmpfs reading a hole takes memory that may not be there: holes stay anonymous.
    fn layPrivate(self: *Shared, file: File, address: usize, offset: u64, len: u64) Error!void {
        const disk = self.file.disk;
        const end = heap_offset + offset + len;
        var at = heap_offset + offset;
        while (at < end) {
            var from = at;
            var to = end;
            if (pool_file.isInMemory(file)) {
                from = @max(at, std.mem.alignBackward(u64, disk.nextData(file, at) orelse return, os.page_size));
                if (from >= end) return;
                to = std.mem.alignForward(u64, disk.nextHole(file, from) orelse end, os.page_size);
                to = @min(end, @max(to, from + os.page_size));
            }
            os.mapFilePrivate(address + (from - heap_offset), to - from, file, from) catch return self.noMap(0);
            at = to;
        }
    }

    /// The heap's memory stays as it is, but reaches the file no more.
    pub fn detach(self: *Shared, heap: *Heap) void {
        if (self.lost) return;
        for (heap.geometry.parts(heap.alloc.capacityBytes())) |part| {
            os.mapFilePrivate(heap.address + part.offset, part.len, self.map, heap_offset + part.offset) catch {
                os.commitAnonymous(heap.address + part.offset, part.len) catch {};
            };
        }
    }

    /// In a forked child: what it stores is its own. What it has not stored to follows the parent's.
    pub fn afterFork(self: *Shared, heap: *Heap) void {
        self.detach(heap);
        pool_file.close(self.map);
        self.map = pool_file.none;
        self.file.afterFork();
    }

    // ---------------------------------------------------------------- growth

    /// The allocator's pages: the file's room, never given back.
    pub fn supplyOf(heap: *Heap) alloc_room.Supply {
        return .{ .context = heap, .grow = supplyGrow, .give_back = supplyKeep, .why = supplyWhy };
    }

    fn supplyGrow(context: ?*anyopaque, capacity: u64) bool {
        const heap: *Heap = @ptrCast(@alignCast(context));
        // C keeps the memory of a heap that it closed.
        const self = heap.shared orelse return false;
        self.refusal = null;
        self.grow(heap, capacity) catch {
            self.refusal = errors.copyLast();
            return false;
        };
        return true;
    }

    fn supplyWhy(context: ?*anyopaque) Error {
        const heap: *Heap = @ptrCast(@alignCast(context));
        if (heap.shared) |self| if (self.refusal) |*record| return errors.repeat(record);
        return opening.noMemory(slice_size);
    }

    /// Pages taken out of the file would have to find room again when they are stored to.
    fn supplyKeep(_: ?*anyopaque, _: usize, _: u64) bool {
        return false;
    }

    fn grow(self: *Shared, heap: *Heap, capacity: u64) Error!void {
        const old = heap.alloc.capacityBytes();
        std.debug.assert(old <= capacity);
        if (self.file.mode == .read or self.process != os.processId()) {
            return opening.commitRange(heap.address + heap.geometry.data_offset + old, capacity - old);
        }
        const before = heap.geometry.parts(old);
        const after = heap.geometry.parts(capacity);
        const length = fileLength(self.file.file.file);
        errdefer _ = pool_file.resize(self.file.file.file, length);
        for (before, after) |from, to| {
            const at = from.offset + from.len;
            if (to.len > from.len) try self.reserve(self.file.file.file, heap_offset + at, to.len - from.len, capacity);
        }
        try opening.commitRange(heap.address + heap.geometry.data_offset + old, capacity - old);
        for (before, after) |from, to| try self.layPart(self.map, heap.address, from.offset + from.len, to.len - from.len);
    }

    // ---------------------------------------------------------------- files that are cut off

    /// Called before the library reads the heap: touching what is mapped beyond the file's end is a SIGBUS.
    /// A file that was cut off gets its length back, so that the program's own reads end nothing either, and
    /// the heap is refused from then on.
    pub fn expectWhole(self: *Shared, heap: *const Heap) Error!void {
        var end: u64 = 0;
        for (heap.geometry.parts(heap.alloc.capacityBytes())) |part| end = @max(end, part.offset + part.len);
        return self.expectLong(end);
    }

    fn expectLong(self: *Shared, heap_len: u64) Error!void {
        if (self.process != os.processId()) return;
        const file = self.file.file.file;
        const len = heap_offset + std.mem.alignForward(u64, heap_len, os.page_size);
        var stat: pool_file.Stat = .{};
        if (pool_file.statOf(file, &stat) and stat.size < len) {
            self.cut = true;
            if (self.file.mode != .read) {
                _ = pool_file.resize(file, len);
                _ = pool_file.reserve(file, stat.size, len - stat.size);
            }
        }
        if (!self.cut) return;
        return fail(.CORRUPT, .{ .path = self.file.path() }, "Cannot use shared heap \"{s}\": another program has cut its file " ++
            "off, and what stood there is gone; restore() a backup", .{self.file.path()});
    }

    // ---------------------------------------------------------------- flushing

    /// What a flush takes with it from the moment of the call.
    pub const Flush = struct {
        identity: Identity,
        address: usize,
        used: [alloc_room.Range.used_count]alloc_room.Range,
    };

    /// Makes the file what the heap is. May run beside the program, which then gets at least the state of
    /// the call; takes no lock of the heap.
    pub fn flush(self: *Shared, history: *image_room.History, input: *const Flush) Error!image_room.CommitReport {
        const file = self.file;
        try file.expectNamed();
        var end: u64 = 0;
        for (input.used) |range| end = @max(end, range.offset + range.len);
        try self.expectLong(end);
        if (self.isFlushed(history, input)) {
            return .{ .epoch = history.epoch() };
        }
        var used_len: u64 = 0;
        for (input.used) |range| used_len += range.len;
        const pages = shared_map.dirtyPages(file.file.file, heap_offset, input.identity.span) orelse used_len / os.page_size;
        if (history.epoch_max >= format.epoch_limit) return fail(.CORRUPT, .{ .path = file.path() }, "Cannot flush shared heap " ++
            "\"{s}\": its epoch numbers are used up; make another with \"w+\"", .{file.path()});
        const head = history.next(input.identity.uuid, file.disk.randomId(), file.disk.randomWord()) catch
            return opening.noMemory(@sizeOf(format.Line));
        const state: shared_file.State = .{
            .head = head,
            .heap = input.identity,
            .epoch_max = history.epoch_max,
            .mark = .in_use,
        };
        try self.settle(state, history, input);
        history.current = head;
        history.stray = false;
        return .{ .epoch = head.epoch, .pages = @max(1, pages), .bytes = @max(1, pages) * os.page_size };
    }

    /// Slot, sync, name, in this order; the watch begins in between.
    fn settle(self: *Shared, state: shared_file.State, history: *const image_room.History, input: *const Flush) Error!void {
        const file = self.file;
        self.watch.choose(file);
        // Pages that a failed sync forgot count as clean; it may have been one of those just made.
        if (file.sync_failed) {
            // The heap's own header stands before all of them.
            shared_map.touch(input.address, os.page_size);
            for (input.used) |range| shared_map.touch(input.address + range.offset, std.mem.alignForward(u64, range.len, os.page_size));
        }
        try file.write(state, history.lines.slice());
        self.watch.begin(file, input);
        file.settle(state) catch |err| {
            self.watch.end();
            return err;
        };
        self.watch.confirm(file);
    }

    /// Whether the file is what the heap is.
    pub fn isFlushed(self: *Shared, history: *const image_room.History, input: *const Flush) bool {
        if (self.file.state == null or self.file.unfinished or self.file.name_unsynced or self.file.sync_failed) return false;
        return history.current != null and self.watch.isQuiet(self.file, input);
    }

    /// The last flush, or the commit that was found to be the same, while the heap is that still.
    pub fn known(self: *Shared, heap: *Heap) ?image_room.Head {
        const input = inputOf(heap);
        if (!self.isFlushed(&heap.history, &input)) return null;
        return heap.history.current;
    }

    /// Bytes that the file takes on the medium.
    pub fn room(self: *const Shared) u64 {
        var stat: pool_file.Stat = .{};
        return if (pool_file.statOf(self.file.file.file, &stat)) stat.allocated else 0;
    }

    /// Takes the mark away when nothing is lost by it. The heap's threads are gone.
    pub fn rest(self: *Shared, heap: *Heap) void {
        if (self.file.mode == .read or self.process != os.processId()) return;
        if (self.lost) return;
        self.expectWhole(heap) catch return;
        const input = inputOf(heap);
        if (!self.isFlushed(&heap.history, &input)) return;
        const state: shared_file.State = .{
            .head = heap.history.current.?,
            .heap = input.identity,
            .epoch_max = heap.history.epoch_max,
            .mark = .whole,
        };
        self.file.write(state, heap.history.lines.slice()) catch return;
        self.file.settle(state) catch return;
    }
};

pub fn inputOf(heap: *Heap) Shared.Flush {
    return .{ .identity = heap.identity(), .address = heap.address, .used = heap.alloc.usedRanges() };
}

fn fileLength(file: File) u64 {
    var stat: pool_file.Stat = .{};
    return if (pool_file.statOf(file, &stat)) stat.size else 0;
}

// ------------------------------------------------------------------ the watch

/// Tells whether anything was stored to the file since a flush. Where pages are written back, the
/// kernel dates the file at the first store to a page that was synced; where there is no medium, the
/// heap is compared by checksum, which costs reading it.
const Watch = struct {
    kind: enum { unknown, date, sum } = .unknown,
    state: enum { off, begun, on } = .off,
    date: i64 = 0,
    sum: u64 = 0,

    fn choose(self: *Watch, file: *SharedFile) void {
        if (self.kind == .unknown) self.kind = if (datesStores(file)) .date else .sum;
    }

    /// Before the sync that makes pages tell of the next store to them.
    fn begin(self: *Watch, file: *const SharedFile, input: *const Shared.Flush) void {
        self.state = .off;
        switch (self.kind) {
            .unknown => return,
            .date => self.date = file.disk.setDate(file.file.file) orelse return,
            .sum => self.sum = sumOf(input),
        }
        self.state = .begun;
    }

    /// After it: a store in between may have been to a page that was synced already.
    fn confirm(self: *Watch, file: *SharedFile) void {
        if (self.state != .begun) return;
        const quiet = self.kind != .date or file.disk.date(file.file.file) == self.date;
        self.state = if (quiet) .on else .off;
        if (quiet) file.noteRest(if (self.kind == .date) .{ .date = self.date } else .{ .sum = self.sum });
    }

    fn end(self: *Watch) void {
        self.state = .off;
    }

    fn isQuiet(self: *const Watch, file: *const SharedFile, input: *const Shared.Flush) bool {
        if (self.state != .on) return false;
        return switch (self.kind) {
            .unknown => false,
            .date => file.disk.date(file.file.file) == self.date,
            .sum => sumOf(input) == self.sum,
        };
    }

    fn sumOf(input: *const Shared.Flush) u64 {
        var hasher = format.Hasher.init(0);
        hasher.update(std.mem.asBytes(&input.identity));
        hasher.update(@as([*]const u8, @ptrFromInt(input.address))[0..@sizeOf(Header)]);
        for (input.used) |range| hasher.update(@as([*]const u8, @ptrFromInt(input.address + range.offset))[0..range.len]);
        return @max(1, hasher.final());
    }

    /// Believed when seen: a store to a synced page dates the file, a read does not.
    fn datesStores(shared: *SharedFile) bool {
        const disk = shared.disk;
        const file = shared.file.file;
        if (pool_file.isInMemory(file)) return false;
        const address = os.reserve(0, os.page_size) catch return false;
        defer os.unmap(address, os.page_size);
        if (pool_file.mapShared(address, os.page_size, file, probe_offset) < 0) return false;
        const byte: *volatile u8 = @ptrFromInt(address);
        byte.* +%= 1;
        for (0..2) |_| {
            const before = disk.setDate(file) orelse return false;
            if (disk.sync(file) != null) {
                shared.sync_failed = true;
                return false;
            }
            _ = byte.*;
            if (disk.date(file) != before) return false;
            byte.* +%= 1;
            const after = disk.date(file) orelse return false;
            if (after == before) return false;
        }
        return true;
    }
};

// ------------------------------------------------------------------ heaps

/// PERM's mopen of a shared heap.
pub fn mopen(options: OpenOptions) Error!*Heap {
    const path = options.path orelse return fail(.INVALID_ARGUMENT, .{}, "Cannot open a shared heap without a file: it lives " ++
        "in one; give a path, or leave `shared` out", .{});
    try expectOptions(options, false);
    if (options.mode == .w) return create(path, options);
    const heap = try takeFrom(path, options);
    heap.publish();
    return heap;
}

/// Heap.open of a shared heap: from its file, or from a backup that holds later commits.
pub fn openNewest(options: OpenOptions) Error!*Heap {
    const path = options.path orelse return fail(.INVALID_ARGUMENT, .{}, "Cannot open a shared heap without a file: it lives " ++
        "in one; give `file`, or leave `shared` out", .{});
    try expectOptions(options, options.backup != null);
    var old = options;
    old.mode = .rw;
    const found = takeFrom(path, old) catch |err| switch (err) {
        error.NOT_FOUND => null,
        else => return err,
    };
    if (found) |heap| heap.publish();
    errdefer if (found) |heap| heap.close() catch {};
    var backup = if (options.backup) |name| try opening.openExisting(name, options) else null;
    errdefer if (backup) |im| im.close();
    const newer = if (backup) |im| found == null or try backupIsNewer(found.?, im) else false;
    const small: OpenOptions = .{ .size = slice_size, .max_size = slice_size, .replace = options.replace };
    const heap = found orelse try create(path, if (newer) small else options);
    errdefer if (found == null) heap.close() catch {};
    if (options.backup) |name| {
        const im = backup orelse try opening.claim(name, options, heap.header().uuid);
        backup = im;
        try im.join(&heap.history, heap.geometry.span, null);
        heap.backup = im;
        backup = null;
    }
    heap.mode = .rw;
    if (!newer) return heap;
    _ = try heap.restore(.{ .from = .backup, .verify = options.verify });
    heap.resumed = .backup;
    if (options.size > heap.alloc.capacityBytes()) try heap.grow(options.size);
    return heap;
}

fn backupIsNewer(heap: *Heap, backup: *image_room.Image) Error!bool {
    const path = heap.shared.?.file.path();
    return switch (image_room.relate(heap.history.current.?, &heap.history.lines, backup.head().?, &backup.lines)) {
        .same, .descendant => false,
        .ancestor => true,
        .foreign => opening.foreignPair(path, backup.path()),
        .diverged => opening.divergedPair(path, backup.path()),
    };
}

/// What makes no sense for the file is refused, unless an image is there that it can be meant for.
fn expectOptions(options: OpenOptions, with_backup: bool) Error!void {
    if (options.tracker == .uffd) return fail(.UNSUPPORTED, .{}, "Cannot track a shared heap with userfaultfd: backups compare " ++
        "all of it by checksum; leave `tracker` out", .{});
    _ = try opening.keepOf(options);
    if (with_backup) return;
    if (options.keep > 1 or options.log_limit > 0) return fail(.UNSUPPORTED, .{}, "Cannot keep epochs in a shared heap's file: it " ++
        "holds the heap as it is and nothing else; give `keep` and `logLimit` to bopen()", .{});
    if (options.verify) return fail(.UNSUPPORTED, .{}, "Cannot verify a shared heap's file: it holds no checksums of its pages; " ++
        "check() proves the metadata, and `verify` reads its backups", .{});
}

fn create(path: []const u8, options: OpenOptions) Error!*Heap {
    const sizes = try opening.sizesOf(options);
    const shared = try Shared.open(.{ .path = path, .mode = .create, .replace = options.replace });
    errdefer shared.close();
    const heap = try Heap.acquire();
    errdefer heap.relinquish();
    heap.shared = null;
    heap.geometry = try .init(sizes.max_size);
    heap.tracker = try .init(.checksum);
    heap.tracker.blind = true;
    errdefer heap.tracker.deinit();
    const uuid = opening.newUuid();
    heap.address = try opening.reserveFor(options.address, uuid, heap.geometry.span);
    errdefer ranges.release(heap.address, heap.geometry.span);
    try shared.makeRoom(shared.file.file.file, heap.geometry, sizes.capacity);
    try shared.lay(shared.map, heap.address, heap.geometry, sizes.capacity);
    heap.header().* = .init(uuid, heap.address, sizes.max_size);
    try heap.alloc.format(heap.address, heap.geometry, sizes.capacity, Shared.supplyOf(heap), newSession());
    heap.shared = shared;
    heap.mode = .w;
    heap.publish();
    return heap;
}

/// Free runs that another session left are what it stored there: they were never given back.
pub fn newSession() alloc_room.Options {
    var options = opening.newSession();
    options.holes_zero = false;
    // A Worker that ends after a flush is no change.
    options.keeps_orphans = true;
    return options;
}

/// The heap in a file, not yet published.
fn takeFrom(path: []const u8, options: OpenOptions) Error!*Heap {
    const write = options.mode != .r;
    const shared = try Shared.open(.{ .path = path, .mode = if (write) .write else .read, .recover = options.recover });
    errdefer shared.close();
    const file = shared.file;
    const stored = file.state.?;
    const identity = stored.heap;
    if (options.address != 0 and options.address != identity.address) {
        return fail(.INVALID_ARGUMENT, .{ .path = path, .address = identity.address }, "Cannot open \"{s}\" at 0x{x}: its heap " ++
            "lives at 0x{x}; leave `address` out", .{ path, options.address, identity.address });
    }
    const heap = try Heap.acquire();
    errdefer heap.relinquish();
    heap.geometry = try opening.geometryOf(identity, path);
    heap.tracker = try .init(.checksum);
    heap.tracker.blind = true;
    errdefer heap.tracker.deinit();
    // A heap that was not closed may have grown since its last flush.
    const has = (file.file.stat.size -| heap_offset -| heap.geometry.data_offset) / slice_size * slice_size;
    var capacity = if (stored.mark == .whole) identity.capacity else @min(has, identity.max_size);
    if (has < identity.capacity) return file.corrupt("it ends too early");
    try ranges.reserveAt(identity.address, heap.geometry.span);
    heap.address = identity.address;
    errdefer ranges.release(heap.address, heap.geometry.span);
    if (write) {
        shared_map.unshare(file.file.file, file.file.stat.size);
        try shared.makeRoom(file.file.file, heap.geometry, capacity);
    }
    try shared.lay(shared.map, heap.address, heap.geometry, capacity);
    try heap.header().validate(path, identity.uuid, identity.address, identity.max_size);
    if (stored.mark != .whole) {
        const wanted = try alloc_room.Allocator.storedCapacity(heap.address, heap.geometry);
        if (wanted > capacity) return file.corrupt("it ends too early");
        capacity = wanted;
    }
    heap.shared = shared;
    errdefer heap.shared = null;
    heap.alloc.open(heap.address, heap.geometry, capacity, Shared.supplyOf(heap), newSession()) catch |err| {
        return if (err == error.CORRUPT and file.sum != null) file.notWhole() else err;
    };
    errdefer heap.alloc.close();
    if (stored.mark != .whole) {
        try heap.alloc.check();
        try blocks.checkTable(heap.memory(), &heap.alloc);
    }
    if (file.sum) |sum| if (Watch.sumOf(&inputOf(heap)) != sum) return file.notWhole();
    heap.history.adopt(stored.head, &file.lines, stored.epoch_max) catch return opening.noMemory(shared_file.slot_len);
    errdefer heap.history.deinit();
    heap.resumed = .file;
    heap.mode = options.mode;
    if (write) {
        // What lies behind the heap is nobody's; grown over, it would be taken for zeros.
        _ = pool_file.resize(file.file.file, heap_offset + heap.geometry.data_offset + capacity);
        try begin(heap, options.size, stored.mark != .whole);
    } else try clearScratch(heap);
    return heap;
}

/// Marks the file before anything is stored to the heap, and watches it from then on. A heap that was
/// not closed stays unflushed, whatever is stored to it.
fn begin(heap: *Heap, size: u64, recovered: bool) Error!void {
    const shared = heap.shared.?;
    const before = shared.file.state.?;
    var state = before;
    state.mark = .in_use;
    try shared.file.write(state, heap.history.lines.slice());
    try shared.file.settle(state);
    // Scratch memory is all that was stored to when what follows fails.
    errdefer if (!recovered) {
        if (shared.file.write(before, heap.history.lines.slice())) |_| shared.file.settle(before) catch {} else |_| {}
    };
    try clearScratch(heap);
    if (size > heap.alloc.capacityBytes()) try heap.alloc.grow(size);
    if (recovered) {
        // What a failed sync of the program before left out counts as stored: the next flush writes all.
        shared.file.sync_failed = true;
        return;
    }
    const input = inputOf(heap);
    state.heap = input.identity;
    try shared.settle(state, &heap.history, &input);
}

/// Scratch memory is zero in every opened heap.
fn clearScratch(heap: *Heap) Error!void {
    var runs = heap.alloc.scratchRuns();
    while (try runs.next()) |range| @memset(@as([*]u8, @ptrFromInt(heap.address + range.offset))[0..range.len], 0);
}

// ------------------------------------------------------------------ restoring

/// A restored heap in a file of its own, beside the one that stands.
pub const Poured = struct {
    next: SharedFile.Successor,
    map: File,
    geometry: Geometry,
    capacity: u64,

    pub fn drop(self: *Poured, shared: *Shared) void {
        if (self.map >= 0) pool_file.close(self.map);
        shared.file.dropSuccessor(&self.next);
    }
};

/// Writes the heap that stands privately at `at` to a file of its own: all that can fail for want of
/// room does so here, before the live heap is given up.
pub fn pour(shared: *Shared, at: usize, geometry: Geometry, capacity: u64) Error!Poured {
    var poured: Poured = .{ .next = try shared.file.beginSuccessor(), .map = pool_file.none, .geometry = geometry, .capacity = capacity };
    errdefer poured.drop(shared);
    poured.map = try shared.file.openSuccessor(&poured.next);
    try shared.makeRoom(poured.next.held.file, geometry, capacity);
    for (geometry.parts(capacity)) |part| try pourPart(shared, &poured, at, part.offset, part.len);
    return poured;
}

fn pourPart(shared: *Shared, poured: *const Poured, at: usize, offset: u64, len: u64) Error!void {
    const window = 64 << 20;
    var done: u64 = 0;
    while (done < len) {
        const part = @min(window, len - done);
        const to = os.reserve(0, part) catch return opening.noMemory(part);
        defer os.unmap(to, part);
        try shared.layAt(poured.map, to, offset + done, part);
        var page: u64 = 0;
        while (page < part) : (page += os.page_size) {
            const from: *const [os.page_size]u8 = @ptrFromInt(at + offset + done + page);
            if (std.mem.allEqual(u8, from, 0)) continue;
            @memcpy(@as(*[os.page_size]u8, @ptrFromInt(to + page)), from);
        }
        done += part;
    }
}

/// The poured heap in the place of the live one, whose range the caller has dealt with.
pub fn takeOver(heap: *Heap, poured: *Poured, address: usize) Error!void {
    const shared = heap.shared.?;
    shared.lost = true;
    os.reserveOver(address, poured.geometry.span);
    try shared.lay(poured.map, address, poured.geometry, poured.capacity);
    try shared.file.succeed(&poured.next);
    pool_file.close(shared.map);
    shared.map = poured.map;
    poured.map = pool_file.none;
    shared.cut = false;
    shared.lost = false;
    shared.watch.end();
}
