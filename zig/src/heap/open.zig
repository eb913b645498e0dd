//! Making and opening heaps. Every step that can fail comes before anything is published: a refused
//! open leaves no map, no lock and no claimed file behind.

const std = @import("std");
const os = @import("../os/os.zig");
const belongs = @import("belongs.zig");
const errors = @import("../errors.zig");
const ranges = @import("ranges.zig");
const shared_heaps = @import("shared.zig");
const heap_room = @import("heap.zig");
const Header = @import("header.zig").Header;
const alloc_room = @import("../alloc/alloc.zig");
const image_room = @import("../image/image.zig");
const Tracker = @import("../tracker/tracker.zig").Tracker;

const Error = errors.Error;
const fail = errors.fail;
const Heap = heap_room.Heap;
const OpenOptions = heap_room.OpenOptions;
const Image = image_room.Image;
const Geometry = alloc_room.Geometry;
const slice_size = alloc_room.slice_size;

const size_default = 64 << 20;
/// A heap may grow to this much, or to four times its size, unless told otherwise.
const max_size_default = 64 << 30;
const size_max = 16 << 40;

/// PERM's mopen: "w+" makes a new heap, "r+" and "r" open at the last commit.
pub fn mopen(options: OpenOptions) Error!*Heap {
    if (options.shared) return shared_heaps.mopen(options);
    if (options.mode == .w) {
        const uuid = newUuid();
        const map = if (options.path) |path| try claim(path, options, null) else null;
        errdefer if (map) |im| im.close();
        return create(options, uuid, map, null);
    }
    const path = options.path orelse return fail(.INVALID_ARGUMENT, .{}, "Cannot open a heap without a map file: only " ++
        "mode \"w+\" takes null for the path", .{});
    const map = try openImage(path, options, if (options.mode == .r) .read else .write, false);
    errdefer map.close();
    const heap = try takeFrom(map, options);
    heap.map = map;
    heap.resumed = .file;
    heap.mode = options.mode;
    heap.publish();
    return heap;
}

/// Heap.open: goes on from whichever image holds the newest intact commit, else makes a new heap.
pub fn openNewest(options: OpenOptions) Error!*Heap {
    if (options.shared) return shared_heaps.openNewest(options);
    var map = if (options.path) |path| try openExisting(path, options) else null;
    errdefer if (map) |im| im.close();
    var backup = if (options.backup) |path| try openExisting(path, options) else null;
    errdefer if (backup) |im| im.close();

    if (map == null and backup == null) {
        if (options.path) |path| map = try claim(path, options, null);
        if (options.backup) |path| backup = try claim(path, options, null);
        return create(options, newUuid(), map, backup);
    }
    const from_backup = map == null or (backup != null and try backupIsNewer(map.?, backup.?));
    const source = if (from_backup) backup.? else map.?;
    const source_heap = source.head().?.heap;
    if (map == null) {
        if (options.path) |path| map = try claim(path, options, source_heap);
    }
    if (backup == null) {
        if (options.backup) |path| backup = try claim(path, options, source_heap);
    }
    const heap = try takeFrom(source, options);
    heap.map = map;
    heap.backup = backup;
    heap.resumed = if (from_backup) .backup else .file;
    heap.mode = .rw;
    const other = if (from_backup) map else backup;
    if (other) |im| im.join(&heap.history, heap.geometry.span, source) catch |err| {
        heap.map = null;
        heap.backup = null;
        heap.giveUp();
        heap.relinquish();
        return err;
    };
    heap.publish();
    return heap;
}

/// PERM's bopen: a second image beside the map file. "w+" is claimed at once, and replaced by the
/// first commit.
pub fn bopen(heap: *Heap, options: OpenOptions) Error!void {
    try heap.lock();
    defer heap.mutex.unlock();
    try heap.expectProcess();
    const path = options.path orelse return fail(.INVALID_ARGUMENT, .{}, "Cannot open a backup file without a path", .{});
    if (heap.backup) |open_one| {
        return fail(.ALREADY_OPEN, .{ .path = open_one.path() }, "Cannot open backup file \"{s}\": \"{s}\" is open; " ++
            "bclose() it first", .{ path, open_one.path() });
    }
    if (heap.mode == .r and options.mode != .r) return heap.readOnly();
    heap.background.drain();
    const im = switch (options.mode) {
        .w => try claim(path, options, if (options.any_heap) null else heap.header().uuid),
        .rw => try openImage(path, options, .write, true),
        .r => try openImage(path, options, .read, true),
    };
    errdefer im.close();
    // Whoever gives memory back meanwhile tells the images that are there.
    heap.alloc.hold();
    defer heap.alloc.release();
    try im.join(&heap.history, heap.geometry.span, heap.map);
    heap.backup = im;
}

/// Sizes and tables of an image's heap, checked: what an image says of itself is a stranger's word.
pub fn geometryOf(identity: image_room.Identity, path: []const u8) Error!Geometry {
    const sane = identity.max_size >= slice_size and identity.max_size <= size_max and
        identity.max_size % slice_size == 0 and
        identity.capacity >= slice_size and identity.capacity <= identity.max_size and
        identity.capacity % slice_size == 0;
    if (sane) {
        const geometry = try Geometry.init(identity.max_size);
        if (geometry.span == identity.span) return geometry;
    }
    return contradiction(identity, path);
}

pub fn contradiction(identity: image_room.Identity, path: []const u8) Error {
    return fail(.CORRUPT, .{ .path = path }, "Cannot open the heap in \"{s}\": its sizes contradict each other (capacity " ++
        "{d}, limit {d}, range {d})", .{ path, identity.capacity, identity.max_size, identity.span });
}

// ------------------------------------------------------------------ parts

pub fn newUuid() [16]u8 {
    var uuid: [16]u8 = undefined;
    os.random(&uuid);
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    return uuid;
}

pub fn claim(path: []const u8, options: OpenOptions, heap: ?[16]u8) Error!*Image {
    return Image.open(.{
        .path = path,
        .mode = .create,
        .heap = heap,
        .replace = options.replace,
        .keep = try keepOf(options),
        .log_limit = options.log_limit,
        .describer = belongs.describe,
    });
}

fn openImage(path: []const u8, options: OpenOptions, mode: image_room.Mode, allow_damaged: bool) Error!*Image {
    return Image.open(.{
        .path = path,
        .mode = mode,
        .recover = options.recover,
        .verify = options.verify,
        .allow_damaged = allow_damaged,
        .keep = try keepOf(options),
        .log_limit = options.log_limit,
        .describer = belongs.describe,
    });
}

pub fn openExisting(path: []const u8, options: OpenOptions) Error!?*Image {
    return openImage(path, options, .write, false) catch |err| switch (err) {
        error.NOT_FOUND => null,
        else => err,
    };
}

pub fn keepOf(options: OpenOptions) Error!u32 {
    if (options.keep >= 1 and options.keep <= 1 << 20) return @intCast(options.keep);
    return fail(.INVALID_ARGUMENT, .{}, "Cannot keep {d} epochs: `keep` is 1 to {d}", .{ options.keep, 1 << 20 });
}

fn backupIsNewer(map: *Image, backup: *Image) Error!bool {
    return switch (image_room.relation(map, backup)) {
        .same, .descendant => false,
        .ancestor => true,
        .foreign => foreignPair(map.path(), backup.path()),
        .diverged => divergedPair(map.path(), backup.path()),
    };
}

pub fn foreignPair(map: []const u8, backup: []const u8) Error {
    return fail(.EXISTS, .{ .path = backup }, "Cannot open \"{s}\" and \"{s}\" together: they hold " ++
        "different heaps; name the right one alone, or move the other away", .{ map, backup });
}

pub fn divergedPair(map: []const u8, backup: []const u8) Error {
    return fail(.EXISTS, .{ .path = backup }, "Cannot open \"{s}\" and \"{s}\" together: each holds " ++
        "commits that the other has not; open the one to go on from alone, and move the other away", .{ map, backup });
}

pub const Sizes = struct { capacity: u64, max_size: u64 };

/// Capacity and limit of a new heap.
pub fn sizesOf(options: OpenOptions) Error!Sizes {
    const size = if (options.size == 0) size_default else options.size;
    if (size < slice_size or size > size_max) {
        return fail(.INVALID_ARGUMENT, .{}, "Cannot make a heap of {d} bytes: `size` is {d} to {d}", .{
            size, slice_size, @as(u64, size_max),
        });
    }
    const capacity = std.mem.alignForward(u64, size, slice_size);
    if (options.max_size != 0 and (options.max_size < size or options.max_size > size_max)) {
        return fail(.INVALID_ARGUMENT, .{}, "Cannot make a heap of {d} bytes with `maxSize` {d}: `maxSize` is at least " ++
            "the size and at most {d}", .{ size, options.max_size, @as(u64, size_max) });
    }
    const max_size = if (options.max_size != 0)
        std.mem.alignForward(u64, options.max_size, slice_size)
    else
        @min(size_max, @max(max_size_default, 4 * capacity));
    return .{ .capacity = capacity, .max_size = max_size };
}

/// Addresses for a new heap, at `address` unless that is 0.
pub fn reserveFor(address: u64, uuid: [16]u8, span: u64) Error!usize {
    if (address == 0) return ranges.reserveAny(uuid, span);
    if (address % slice_size != 0) {
        return fail(.INVALID_ARGUMENT, .{ .address = address }, "Cannot make a heap at 0x{x}: `address` must be a " ++
            "multiple of {d}", .{ address, slice_size });
    }
    try ranges.reserveAt(address, span);
    return address;
}

/// A new heap with what is claimed for it. The images stay the caller's when it fails.
fn create(options: OpenOptions, uuid: [16]u8, map: ?*Image, backup: ?*Image) Error!*Heap {
    const sizes = try sizesOf(options);
    const capacity = sizes.capacity;
    const max_size = sizes.max_size;
    const heap = try Heap.acquire();
    errdefer heap.relinquish();
    heap.geometry = try .init(max_size);
    heap.tracker = try .init(options.tracker);
    errdefer heap.tracker.deinit();
    heap.address = try reserveFor(options.address, uuid, heap.geometry.span);
    errdefer ranges.release(heap.address, heap.geometry.span);

    os.commitAnonymous(heap.address, heap.geometry.data_offset + capacity) catch return noMemory(capacity);
    os.adviseHeap(heap.address, heap.geometry.span);
    heap.tracker.anonymous = true;
    heap.header().* = .init(uuid, heap.address, max_size);
    try heap.alloc.format(heap.address, heap.geometry, capacity, supplyOf(heap), newSession());
    errdefer heap.alloc.close();
    for ([_]?*Image{ map, backup }) |slot| if (slot) |im| try im.join(&heap.history, heap.geometry.span, null);
    heap.map = map;
    heap.backup = backup;
    heap.mode = .w;
    heap.publish();
    return heap;
}

/// A heap mapped at its last commit in `im`, not yet published. The image stays the caller's.
fn takeFrom(im: *Image, options: OpenOptions) Error!*Heap {
    const point = try im.point(null);
    const identity = point.identity;
    if (options.address != 0 and options.address != identity.address) {
        return fail(.INVALID_ARGUMENT, .{ .path = im.path(), .address = identity.address }, "Cannot open \"{s}\" at 0x{x}: " ++
            "its heap lives at 0x{x}; leave `address` out", .{ im.path(), options.address, identity.address });
    }
    const heap = try Heap.acquire();
    errdefer heap.relinquish();
    heap.geometry = try geometryOf(identity, im.path());
    heap.tracker = try .init(options.tracker);
    errdefer heap.tracker.deinit();
    try ranges.reserveAt(identity.address, heap.geometry.span);
    heap.address = identity.address;
    errdefer ranges.release(heap.address, heap.geometry.span);

    const built = try im.build(point, heap.address, heap.geometry.data_offset + identity.capacity);
    try heap.header().validate(im.path(), identity.uuid, identity.address, identity.max_size);
    try heap.alloc.open(heap.address, heap.geometry, identity.capacity, supplyOf(heap), newSession());
    errdefer heap.alloc.close();
    if (options.size > identity.capacity and options.mode != .r) {
        try heap.alloc.grow(options.size);
    }
    try im.adopt(&heap.history, point);
    im.readAhead(heap.address);
    heap.log_runs = built.runs;
    heap.dropped = built.dropped;
    return heap;
}

pub fn noMemory(capacity: u64) Error {
    return fail(.OUT_OF_MEMORY, .{}, "Cannot map {d} bytes of memory for the heap: the system refused", .{capacity});
}

/// Zeroed memory over reserved addresses of a heap.
pub fn commitRange(address: usize, len: u64) Error!void {
    if (len > 0) os.commitAnonymous(address, len) catch return noMemory(len);
}

/// A session of the allocator: spans of every other have no owner.
pub fn newSession() alloc_room.Options {
    return .{ .nonce = @truncate(os.randomU64() | 1) };
}

/// Where the allocator's pages come from and go back to.
pub fn supplyOf(heap: *Heap) alloc_room.Supply {
    return .{ .context = heap, .grow = supplyGrow, .give_back = supplyGiveBack, .dense = supplyDense };
}

/// Large pages for what a container fills: read at random, it takes up to a third less time. Only until the
/// first commit, from which on one write would make all of such a page look written, were it new.
fn supplyDense(context: ?*anyopaque, address: usize, len: u64) void {
    const heap: *Heap = @ptrCast(@alignCast(context));
    if (!heap.tracker.anonymous or heap.tracker.watches()) return;
    // What lies around it is most often a part of the same container, or of its like.
    const data = heap.address + heap.geometry.data_offset;
    const start = @max(std.mem.alignBackward(usize, address, os.huge_page_size), data);
    const end = @min(std.mem.alignForward(usize, address + len, os.huge_page_size), data + heap.alloc.capacityBytes());
    if (start < end) os.adviseHuge(start, end - start);
}

fn supplyGrow(context: ?*anyopaque, capacity: u64) bool {
    const heap: *Heap = @ptrCast(@alignCast(context));
    const from = heap.geometry.data_offset + heap.alloc.capacityBytes();
    const to = heap.geometry.data_offset + capacity;
    std.debug.assert(from <= to and to <= heap.geometry.span);
    os.commitAnonymous(heap.address + from, to - from) catch return false;
    os.adviseHeap(heap.address + from, to - from);
    heap.tracker.mapped(heap.address + from, to - from);
    return true;
}

fn supplyGiveBack(context: ?*anyopaque, address: usize, len: u64) bool {
    const heap: *Heap = @ptrCast(@alignCast(context));
    std.debug.assert(address >= heap.address and address + len <= heap.address + heap.geometry.span);
    os.giveBack(address, len) catch return false;
    os.adviseHeap(address, len);
    // No tracker sees pages become zero that way; an image may still hold what they were.
    const first = (address - heap.address) / os.page_size;
    // An image that is not open now can only compare all of the heap when it is opened.
    for (heap.images()) |slot| if (slot) |im| im.pending.setRange(first, len / os.page_size) else {
        heap.history.stray = true;
    };
    heap.tracker.mapped(address, len);
    return true;
}
