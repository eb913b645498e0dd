//! Commits and restores: the order in which blocks, allocator, tracker and image take their turns.

const std = @import("std");
const os = @import("../os/os.zig");
const errors = @import("../errors.zig");
const abi = @import("../abi.zig");
const background = @import("background.zig");
const blocks = @import("blocks.zig");
const ranges = @import("ranges.zig");
const shared_heaps = @import("shared.zig");
const opening = @import("open.zig");
const heap_room = @import("heap.zig");
const Header = @import("header.zig").Header;
const alloc_room = @import("../alloc/alloc.zig");
const image_room = @import("../image/image.zig");

const Error = errors.Error;
const fail = errors.fail;
const Heap = heap_room.Heap;
const Image = image_room.Image;
const PageRange = image_room.PageRange;
const number = heap_room.number;
const gpa = os.page_allocator;

/// Makes the heap as it is now durable in one image: all of it or none of it. Other threads stand
/// still while pages are copied to the page cache, and run again during the sync.
pub fn commit(heap: *Heap, which: heap_room.Which) Error!abi.records.Report {
    const start_ns = os.nowNs();
    try heap.lock();
    defer heap.mutex.unlock();
    try expectMayCommit(heap);
    if (heap.shared) |shared| try shared.expectWhole(heap);
    if (which == .map) if (heap.shared) |shared| return flushShared(heap, shared, start_ns);
    const im = try heap.image(which);
    heap.background.drain();

    var pages: UsedPages = .{};
    defer pages.deinit();
    heap.goAlone();
    const whole = (try im.outlook(&heap.identity(), false)).whole;
    var attempt = try im.begin();
    defer attempt.end();
    {
        heap.alloc.hold();
        defer heap.alloc.release();
        try heap.registry.store(heap.memory(), &heap.alloc);
        try pages.collect(heap);
        heap.tracker.collect(heap.address, heap.geometry.data_offset + heap.alloc.capacityBytes(), pages.used.items, heap.images());
        if (whole) pages.leaveUntouched(heap);
        try attempt.prepare(.{
            .memory = heap.address,
            .identity = heap.identity(),
            .used = pages.used.items,
            .holes = pages.holes.items,
            .other = if (which == .map) heap.backup else heap.map,
            .known = if (heap.shared) |shared| shared.known(heap) else null,
            .guard = which == .backup,
        });
        // The other image's commit of the same changes tells nothing of what follows.
        if (heap.map == null or heap.backup == null) heap.tracker.foresee(heap.address, pages.used.items, attempt.report.pages);
    }
    const report = try attempt.finish();
    return reportOf(heap, report, start_ns);
}

/// Whether this thread may commit the heap now.
fn expectMayCommit(heap: *Heap) Error!void {
    try heap.expectProcess();
    if (heap.mode == .r) return heap.readOnly();
    heap.registry.prune(heap.handle);
    try heap.registry.expectThread("commit", os.threadId());
}

fn reportOf(heap: *Heap, report: image_room.CommitReport, start_ns: u64) abi.records.Report {
    if (report.pages > 0) heap.commits += 1;
    return .{
        .epoch = number(report.epoch),
        .pages = number(report.pages),
        .bytes = number(report.bytes),
        .duration_ms = millisecondsSince(start_ns),
        .dropped = 0,
    };
}

/// The heap is its file: blocks are copied to their shadows, and the system writes what is left.
fn flushShared(heap: *Heap, shared: *shared_heaps.Shared, start_ns: u64) Error!abi.records.Report {
    heap.background.drain();
    const input = try takeShared(heap, shared);
    const report = try shared.flush(&heap.history, &input);
    return reportOf(heap, report, start_ns);
}

fn takeShared(heap: *Heap, shared: *shared_heaps.Shared) Error!shared_heaps.Shared.Flush {
    heap.alloc.hold();
    defer heap.alloc.release();
    // What threads that ended owned waits for a flush that has something to write anyway.
    if (shared.known(heap) == null) heap.alloc.giveUpOrphans();
    try heap.registry.store(heap.memory(), &heap.alloc);
    return shared_heaps.inputOf(heap);
}

/// Takes the heap as it is now for a commit that ends in the background: the number to ask with for
/// its outcome. Other threads stand still while what changed is copied aside.
pub fn commitAsync(heap: *Heap, which: heap_room.Which) Error!u64 {
    const start_ns = os.nowNs();
    try heap.lock();
    defer heap.mutex.unlock();
    try expectMayCommit(heap);
    if (heap.shared) |shared| try shared.expectWhole(heap);

    const behind = &heap.background;
    if (which == .map) if (heap.shared) |shared| {
        try behind.begin(heap.geometry.span / os.page_size);
        const input = try takeShared(heap, shared);
        const job: *background.Job = try .create(null, start_ns);
        job.flush = .{ .shared = shared, .history = &heap.history, .input = input };
        const id = job.id;
        behind.submit(job);
        return id;
    };
    const im = try heap.image(which);
    try behind.begin(heap.geometry.span / os.page_size);
    const job: *background.Job = try .create(im, start_ns);
    errdefer {
        behind.abandon(job);
        job.destroy();
    }
    job.input.other = if (which == .map) heap.backup else heap.map;
    job.input.guard = which == .backup;
    // A flush that is under way decides what is known.
    if (heap.shared) |shared| if (behind.count() == 0) {
        job.input.known = shared.known(heap);
    };
    job.input.identity = heap.identity();
    if (!try copyAside(heap, job)) {
        // Earlier commits hold the staging memory, or one pass of it is too small.
        behind.drain();
        if (!try copyAside(heap, job)) try writeUnderHold(heap, job);
    }
    const id = job.id;
    behind.submit(job);
    return id;
}

/// Copies what changed to staging memory; false when there is no room.
fn copyAside(heap: *Heap, job: *background.Job) Error!bool {
    const behind = &heap.background;
    const im = job.image.?;
    const alone = !behind.has(im);
    const compare = heap.tracker.tellsTooMany();
    heap.goAlone();
    var whole = false;
    if (alone) {
        const outlook = try im.outlook(&job.input.identity, compare);
        whole = outlook.whole;
        if (!whole) behind.warmFor(outlook.base_pages);
    }
    var pages: UsedPages = .{};
    defer pages.deinit();
    const capture = job.capture orelse try job.newCapture();
    {
        heap.alloc.hold();
        defer heap.alloc.release();
        try takeStock(heap, &pages, job);
        if (whole) {
            pages.leaveUntouched(heap);
            behind.warmFor(pages.total());
        }
        behind.kept.clear();
        for (pages.used.items) |range| behind.kept.setRange(range.first, range.count);
        for (pages.holes.items) |range| behind.kept.unsetRange(range.first, range.count);
        im.choose(capture, .{
            .kept = &behind.kept,
            .wanted = &behind.wanted,
            .memory = heap.address,
            .whole = whole,
            .alone = alone,
            .compare = compare,
            .other = job.input.other,
        }) catch return UsedPages.noMemory();
        if (capture.count > 0) {
            const part = behind.takePart(capture.count) orelse return false;
            try behind.holdPart(capture, part);
            capture.copy(heap.address, behind.address(part));
        }
        try pages.give(&job.input);
        im.taken(capture, job.input.holes);
        heap.tracker.open = false;
    }
    job.is_behind = !alone;
    job.input.capture = capture;
    return true;
}

/// What is more than staging memory holds is written to the page cache while the heap stands still.
fn writeUnderHold(heap: *Heap, job: *background.Job) Error!void {
    heap.background.abandon(job);
    var pages: UsedPages = .{};
    defer pages.deinit();
    var attempt = try job.image.?.begin();
    errdefer attempt.end();
    heap.alloc.hold();
    defer heap.alloc.release();
    try takeStock(heap, &pages, job);
    pages.leaveUntouched(heap);
    var input = job.input;
    input.memory = heap.address;
    input.used = pages.used.items;
    input.holes = pages.holes.items;
    try attempt.prepare(input);
    job.prepared = attempt;
}

/// Shadows, the ranges in use and what the tracker tells. Under the hold.
fn takeStock(heap: *Heap, pages: *UsedPages, job: *background.Job) Error!void {
    try heap.registry.store(heap.memory(), &heap.alloc);
    try pages.collect(heap);
    job.input.identity = heap.identity();
    heap.tracker.collect(heap.address, heap.geometry.data_offset + heap.alloc.capacityBytes(), pages.used.items, heap.images());
}

/// Goes back to an epoch of an image, the last one unless told otherwise. The heap that stands is
/// not given up before the other one stands whole beside it.
pub fn restore(heap: *Heap, options: heap_room.RestoreOptions) Error!abi.records.Report {
    try heap.lock();
    const handle = heap.handle;
    const report = restoreLocked(heap, options) catch |err| {
        if (heap.handle != 0) {
            heap.mutex.unlock();
            return err;
        }
        // What stood there is gone, and what came instead cannot be used.
        heap.end(handle);
        return closedBy(err);
    };
    heap.mutex.unlock();
    return report;
}

/// The error of a restore that took the heap with it.
fn closedBy(err: Error) Error {
    const record = errors.copyLast();
    return errors.failAs(errors.codeOf(err), .{
        .path = record.path[0..record.path_len],
        .address = record.address,
        .errno = record.errno,
        .epoch = record.epoch,
        .owner = record.owner[0..record.owner_len],
    }, "{s}; the heap was replaced by then, and is closed now with its images: open it again", .{record.message[0..record.message_len]});
}

fn restoreLocked(heap: *Heap, options: heap_room.RestoreOptions) Error!abi.records.Report {
    const start_ns = os.nowNs();
    try heap.expectProcess();
    heap.registry.prune(heap.handle);
    try heap.registry.expectThread("restore", os.threadId());
    heap.background.drain();
    // What is read of the heap that goes is there to be read, even if it is lost.
    if (heap.shared) |shared| shared.expectWhole(heap) catch {};
    const which: heap_room.Which = options.from orelse if (heap.backup != null) .backup else .map;
    const im = try heap.image(which);
    for (heap.images()) |slot| if (slot) |each| each.cancelFold();
    heap.goAlone();

    const point = try im.point(options.epoch);
    const identity = point.identity;
    if (options.verify) try im.verify(point);
    const geometry = try opening.geometryOf(identity, im.path());
    const usable = geometry.data_offset + identity.capacity;
    const moves = identity.address != heap.address or geometry.span != heap.geometry.span;
    if (moves) {
        if (options.views) return fail(.BUSY, .{ .path = im.path(), .address = identity.address }, "Cannot restore " ++
            "\"{s}\": its heap lives at 0x{x}, this one at 0x{x}, and views of it are out; restore first, then make " ++
            "views", .{ im.path(), identity.address, heap.address });
        try heap.expectAlone("move");
    }

    if (moves) try ranges.reserveAround(identity.address, geometry.span, heap.address, heap.geometry.span);
    errdefer if (moves) ranges.releaseAround(identity.address, geometry.span, heap.address, heap.geometry.span);
    const at = try ranges.reserveScratch(geometry.span);
    var placed = false;
    defer if (!placed) ranges.release(at, geometry.span);
    const built = try im.build(point, at, usable);
    var poured: ?shared_heaps.Poured = null;
    defer if (poured) |*each| each.drop(heap.shared.?);
    // What views may show of a heap that had grown stays memory: touching it must not crash.
    heap.reach = @max(heap.reach, heap.geometry.data_offset + heap.alloc.capacityBytes());
    const reach = if (moves) usable else @max(usable, heap.reach);
    try opening.commitRange(at + usable, reach - usable);
    const built_header: *const Header = @ptrFromInt(at);
    try built_header.validate(im.path(), identity.uuid, identity.address, identity.max_size);
    if (try alloc_room.Allocator.storedCapacity(at, geometry) > identity.capacity) return opening.contradiction(identity, im.path());
    try heap.registry.expectFits(.{
        .address = identity.address,
        .at = at,
        .data_offset = geometry.data_offset,
        .len = usable,
    });

    if (heap.shared) |shared| {
        poured = try shared_heaps.pour(shared, at, geometry, identity.capacity);
        ranges.release(at, geometry.span);
    }
    placed = true;
    {
        // Also while the images change what they stand on: whoever gives memory back tells them.
        heap.alloc.hold();
        defer heap.alloc.release();
        errdefer heap.conceal();
        try swapIn(heap, im, point, .{
            .at = at,
            .geometry = geometry,
            .usable = usable,
            .reach = reach,
            .poured = if (poured) |*each| each else null,
        });
        try im.adopt(&heap.history, point);
        const other = if (which == .map) heap.backup else heap.map;
        if (other) |each| try each.join(&heap.history, heap.geometry.span, im);
    }
    errdefer heap.conceal();
    heap.log_runs = built.runs;
    heap.voidLocks();
    try heap.registry.load(heap.memory(), &heap.alloc);
    if (heap.shared == null) im.readAhead(heap.address);
    return .{
        .epoch = number(point.epoch()),
        .pages = number(built.pages),
        .bytes = number(built.bytes),
        .duration_ms = millisecondsSince(start_ns),
        .dropped = if (built.dropped) 1 else 0,
    };
}

/// A restored heap that stands whole at a scratch address.
const Built = struct {
    at: usize,
    geometry: alloc_room.Geometry,
    usable: u64,
    reach: u64,
    /// Of a shared heap: what stood at `at` is in this file now.
    poured: ?*shared_heaps.Poured,
};

/// Puts the built heap in the place of the live one, under the hold. From here on a failure ends the
/// heap: what stood there is gone.
fn swapIn(heap: *Heap, im: *Image, point: image_room.Point, built: Built) Error!void {
    const identity = point.identity;
    const span = built.geometry.span;
    // A range that is registered cannot be moved over.
    heap.tracker.release();
    if (built.poured) |poured| {
        try shared_heaps.takeOver(heap, poured, identity.address);
        try opening.commitRange(identity.address + built.usable, built.reach - built.usable);
    } else if (os.moveMapping(built.at, span, identity.address) != null) {
        // Kernels before 6.17 move one map at a time only: lay the same pages again, in place.
        ranges.release(built.at, span);
        os.reserveOver(identity.address, span);
        _ = try im.build(point, identity.address, built.usable);
        try opening.commitRange(identity.address + built.usable, built.reach - built.usable);
    }
    if (identity.address != heap.address or span != heap.geometry.span) {
        ranges.retireAround(identity.address, span, heap.address, heap.geometry.span);
        heap.address = identity.address;
        heap.geometry = built.geometry;
        heap.setKey();
        heap.reach = 0;
    }
    if (heap.shared != null) {
        const supply = shared_heaps.Shared.supplyOf(heap);
        return heap.alloc.open(heap.address, heap.geometry, identity.capacity, supply, shared_heaps.newSession());
    }
    const supply = opening.supplyOf(heap);
    try heap.alloc.open(heap.address, heap.geometry, identity.capacity, supply, opening.newSession());
}

/// The pages that may hold something, and those within them that are free.
const UsedPages = struct {
    used: std.ArrayList(PageRange) = .empty,
    holes: std.ArrayList(PageRange) = .empty,

    fn deinit(self: *UsedPages) void {
        self.used.deinit(gpa);
        self.holes.deinit(gpa);
    }

    fn total(self: *const UsedPages) u64 {
        var sum: u64 = 0;
        for (self.used.items) |range| sum += range.count;
        return sum;
    }

    /// Makes the ranges a job's.
    fn give(self: *UsedPages, input: *image_room.CommitInput) Error!void {
        input.used = self.used.toOwnedSlice(gpa) catch return noMemory();
        input.holes = self.holes.toOwnedSlice(gpa) catch return noMemory();
    }

    fn collect(self: *UsedPages, heap: *Heap) Error!void {
        self.add(&self.used, 0, os.page_size) catch return noMemory();
        for (heap.alloc.usedRanges()) |range| {
            self.add(&self.used, range.offset, range.len) catch return noMemory();
        }
        var free_runs = heap.alloc.unkeptRuns();
        while (try free_runs.next()) |range| {
            self.add(&self.holes, range.offset, range.len) catch return noMemory();
        }
    }

    /// Leaves out pages that nobody ever wrote to, where the system can tell: a sparse heap's first
    /// commit would read them all. After the tracker's look, so that a page written since is told next.
    fn leaveUntouched(self: *UsedPages, heap: *Heap) void {
        // Elsewhere a page that is not private is the file's.
        if (!heap.tracker.anonymous) return;
        const Sink = struct {
            list: std.ArrayList(PageRange) = .empty,
            address: usize,
            failed: bool = false,

            fn see(sink: *@This(), range: @import("../os/pagemap.zig").Range) void {
                const first = (range.start - sink.address) / os.page_size;
                const count = (range.end - range.start) / os.page_size;
                sink.list.append(gpa, .{ .first = first, .count = count }) catch {
                    sink.failed = true;
                };
            }
        };
        var sink: Sink = .{ .address = heap.address };
        for (self.used.items) |range| {
            const start = heap.address + range.first * os.page_size;
            const told = heap.tracker.pagemap.privatePages(start, start + range.count * os.page_size, &sink, Sink.see);
            if (told and !sink.failed) continue;
            sink.list.deinit(gpa);
            return;
        }
        self.used.deinit(gpa);
        self.used = sink.list;
    }

    /// Ranges come ascending; pages that two of them share are taken once.
    fn add(_: *UsedPages, list: *std.ArrayList(PageRange), offset: u64, len: u64) !void {
        var first = offset / os.page_size;
        const end = std.mem.alignForward(u64, offset + len, os.page_size) / os.page_size;
        if (list.items.len > 0) {
            const last = &list.items[list.items.len - 1];
            const last_end = last.first + last.count;
            if (first <= last_end) {
                if (end > last_end) last.count = end - last.first;
                return;
            }
            first = @max(first, last_end);
        }
        if (end > first) try list.append(gpa, .{ .first = first, .count = end - first });
    }

    fn noMemory() Error {
        return fail(.OUT_OF_MEMORY, .{}, "Cannot commit the heap: no process memory left for its list of pages", .{});
    }
};

fn millisecondsSince(start_ns: u64) f64 {
    return @as(f64, @floatFromInt(os.nowNs() - start_ns)) / std.time.ns_per_ms;
}
