//! Building a heap from an image: the base's runs mapped privately over zeroed memory, the log's
//! newest pages laid over them.
//!
//! Invariant: files are mapped only where their bytes will never change (bases, and records that are
//! whole), and no more mappings are made than leave the process most of those it has left.

const std = @import("std");
const errors = @import("../errors.zig");
const os = @import("../os/os.zig");
const disk_ = @import("disk.zig");
const format = @import("format.zig");
const generation_ = @import("generation.zig");
const laying_ = @import("laying.zig");
const page_set = @import("page_set.zig");
const stored_ = @import("stored.zig");
const table_ = @import("table.zig");
const warming_ = @import("warming.zig");
const Generation = generation_.Generation;
const Image = @import("image.zig").Image;
const PageRange = page_set.PageRange;
const PageSet = page_set.PageSet;
const failAs = disk_.failAs;
const page_size = format.page_size;
const allocator = os.page_allocator;

pub const Report = struct {
    /// Runs of log pages and holes laid over the base.
    runs: u64 = 0,
    /// Stored pages of the heap, and their bytes.
    pages: u64 = 0,
    bytes: u64 = 0,
    dropped: bool = false,
};

/// Log runs shorter than this are copied: a mapping costs as much as a few pages.
const mapped_run_pages_min = 16;
const log_maps_max = 4096;
/// So many pieces in a row that were resident make the next ones likely to be: then one in so many
/// is asked for.
const resident_streak = 8;
const warm_samples = 8;
/// Below so many runs nobody counts the maps that are left: the limit is 65,530 by default.
const uncounted_runs_max = 1024;

pub fn build(image: *Image, at: generation_.Point, address: usize, usable_len: u64) errors.Error!Report {
    const generation = image.generation.?;
    std.debug.assert(address % page_size == 0 and usable_len % page_size == 0);
    const usable = usable_len / page_size;
    var chain: table_.Chain = try .init(generation, at, image.path());
    defer chain.deinit();
    if (endOf(generation.runs) > usable) return beyond(image);
    for (chain.records.items) |index| if (endOf(generation.records.items[index].runs) > usable) return beyond(image);

    try expectLong(image, generation.base, generation.base_stat.size);
    if (chain.records.items.len > 0) try expectLong(image, generation.log, generation.logNeeded());
    os.commitAnonymous(address, usable_len) catch return noMaps(image);
    try advise(address, usable_len);
    var builder: Builder = .{
        .image = image,
        .generation = generation,
        .address = address,
        .covered = PageSet.init(generation.header.heap.pages()) catch return generation_.outOfMemory(image.path()),
    };
    defer builder.covered.deinit();
    defer builder.pieces.deinit(allocator);
    image.scratch.stage() catch return generation_.outOfMemory(image.path());
    var laying: laying_.Laying = .{ .disk = image.disk, .log = generation.log };
    if (image.background) laying.start(shortPages(generation, chain.records.items));
    errdefer _ = laying.finish(&.{}, image.scratch.staging);
    builder.openToMap();
    defer builder.closeMapped();
    try builder.budget(chain.records.items);
    try builder.layBase();
    if (image.background) builder.warm();
    var left = chain.records.items.len;
    while (left > 0) {
        left -= 1;
        try builder.layRecord(&generation.records.items[chain.records.items[left]]);
    }
    if (laying.finish(builder.pieces.items, image.scratch.staging)) |failure| return switch (failure) {
        .errno => |errno| disk_.failErrno(errno, image.path(), "Cannot read the log of image"),
        .bad => |to| builder.badLogPage(chain.records.items, (to - address) / page_size),
    };
    try advise(address, usable_len);
    builder.report.pages += builder.uncoveredBasePages();
    builder.report.bytes = builder.report.pages * page_size;
    builder.report.dropped = image.dropped;
    return builder.report;
}

/// Another program may have cut it off since it was read, and a mapping beyond its end is a SIGBUS.
fn expectLong(image: *Image, file: disk_.File, len: u64) errors.Error!void {
    var stat: disk_.Stat = .{};
    if (image.disk.stat(file, &stat) == null and stat.size < len) return generation_.corrupt(image.path(), "another program has cut it off");
}

const Builder = struct {
    image: *Image,
    generation: *const Generation,
    address: usize,
    base: disk_.File = disk_.none,
    log: disk_.File = disk_.none,
    /// Pages whose newest version is laid, while records are gone through from the newest on.
    covered: PageSet,
    base_maps_left: usize = 0,
    base_run_min: u64 = 0,
    log_maps_left: usize = 0,
    /// What is to be copied from the log.
    pieces: std.ArrayList(laying_.Piece) = .empty,
    /// Pieces over the base that were found resident one after another, and those since the last look.
    streak: usize = 0,
    unasked: usize = 0,
    base_sparse: bool = false,
    log_sparse: bool = false,
    report: Report = .{},

    fn openToMap(self: *Builder) void {
        const generation = self.generation;
        const image = self.image;
        self.base = generation.base;
        self.log = generation.log;
        if (image.mode == .read) return;
        if (Generation.openToMap(image.disk, image.place, image.place.name, generation.base_stat)) |file| {
            self.base = file;
        } else image.maps_own_files = true;
        if (generation.log < 0) return;
        if (Generation.openToMap(image.disk, image.place, generation.log_name, generation.log_stat)) |file| {
            self.log = file;
        } else image.maps_own_files = true;
    }

    fn closeMapped(self: *Builder) void {
        if (self.base != self.generation.base) self.image.disk.close(&self.base);
        if (self.log != self.generation.log) self.image.disk.close(&self.log);
    }

    /// How many runs of base and log may become mappings; the longest ones do.
    fn budget(self: *Builder, chain: []const usize) errors.Error!void {
        const generation = self.generation;
        const disk = self.image.disk;
        var log_runs: usize = 0;
        for (chain) |index| log_runs += generation.records.items[index].runs.len;
        const free = if (generation.runs.len + log_runs <= uncounted_runs_max) 8 * uncounted_runs_max else disk.mapsFree();
        self.log_maps_left = @min(log_maps_max, free / 6);
        // A run costs two: itself and the zeros behind it.
        self.base_maps_left = free / 4;
        self.base_run_min = 0;
        if (generation.runs.len > self.base_maps_left) {
            const lens = allocator.alloc(u64, generation.runs.len) catch return generation_.outOfMemory(self.image.path());
            defer allocator.free(lens);
            for (lens, generation.runs) |*len, run| len.* = run.count;
            std.sort.heap(u64, lens, {}, std.sort.desc(u64));
            self.base_run_min = if (self.base_maps_left == 0) std.math.maxInt(u64) else lens[self.base_maps_left - 1];
        }
        self.base_sparse = generation.base_stat.allocated < generation.base_stat.size and disk.holesCost(generation.base);
        if (generation.log >= 0) {
            var stat: disk_.Stat = .{};
            if (disk.stat(generation.log, &stat) == null) {
                self.log_sparse = stat.allocated < stat.size and disk.holesCost(generation.log);
            }
        }
    }

    fn layBase(self: *Builder) errors.Error!void {
        var offset: u64 = page_size;
        for (self.generation.runs) |run| {
            defer offset += run.count * page_size;
            const to = self.address + run.first * page_size;
            const len = run.count * page_size;
            if (run.count >= self.base_run_min and self.base_maps_left > 0) {
                self.base_maps_left -= 1;
                try self.map(self.base, offset, to, len, self.base_sparse);
            } else {
                const bytes = @as([*]u8, @ptrFromInt(to))[0..len];
                if (self.image.disk.readAll(self.generation.base, bytes, offset)) |errno| return disk_.failErrno(errno, self.image.path(), "Cannot read the pages of image");
            }
        }
    }

    /// Has the base read beside the program when most of it is not cached.
    fn warm(self: *Builder) void {
        const runs = self.generation.runs;
        const len = self.generation.base_stat.size;
        if (runs.len == 0 or len > warming_.len_max or self.base_sparse) return;
        var resident: usize = 0;
        for (0..warm_samples) |sample| {
            const run = runs[sample * runs.len / warm_samples];
            const page = run.first + run.count * sample / warm_samples;
            if (os.isResident(self.address + page * page_size, 1)) resident += 1;
        }
        if (resident > warm_samples / 2) return;
        const image = self.image;
        const file = Generation.openToMap(image.disk, image.place, image.place.name, self.generation.base_stat) orelse return;
        image.warming.start(image.disk, file, len);
    }

    fn layRecord(self: *Builder, record: *const generation_.Record) errors.Error!void {
        var stored: u64 = 0;
        for (record.runs) |run| {
            var page = run.first;
            while (page < run.end()) {
                const piece = self.uncovered(page, run.end()) orelse break;
                try self.layPages(record, stored + (piece.first - run.first), piece);
                page = piece.end();
            }
            stored += run.count;
        }
        for (record.holes) |hole| {
            var page = hole.first;
            while (page < hole.end()) {
                const piece = self.uncovered(page, hole.end()) orelse break;
                try self.layHole(piece);
                page = piece.end();
            }
        }
        for (record.runs) |run| self.covered.setRange(run.first, run.count);
        for (record.holes) |hole| self.covered.setRange(hole.first, hole.count);
    }

    /// The next stretch of `[page, end)` that nothing newer covers.
    fn uncovered(self: *const Builder, page: u64, end: u64) ?PageRange {
        const first = self.covered.nextAbsentBefore(page, end);
        if (first >= end) return null;
        const stop = @min(end, self.covered.next(first) orelse end);
        return .{ .first = first, .count = stop - first };
    }

    fn layPages(self: *Builder, record: *const generation_.Record, stored: u64, piece: PageRange) errors.Error!void {
        const offset = record.pagesOffset() + stored * page_size;
        const to = self.address + piece.first * page_size;
        const len = piece.count * page_size;
        self.report.runs += 1;
        self.report.pages += piece.count;
        if (self.log_maps_left > 0 and (piece.count >= mapped_run_pages_min or self.wouldRead(piece))) {
            self.log_maps_left -= 1;
            return self.map(self.log, offset, to, len, self.log_sparse);
        }
        self.pieces.append(allocator, .{
            .to = to,
            .offset = offset,
            .sums = record.sums[stored..][0..piece.count],
        }) catch return generation_.outOfMemory(self.image.path());
    }

    fn badLogPage(self: *const Builder, chain: []const usize, page: u64) errors.Error {
        var left = chain.len;
        while (left > 0) {
            left -= 1;
            const record = &self.generation.records.items[chain[left]];
            for (record.runs) |run| if (run.first <= page and page < run.end()) return filesOf(self.image).badPage(.{ .record = chain[left] }, page);
        }
        unreachable;
    }

    /// Copying over a page of the base reads it from the medium first, unless it is cached: a
    /// mapping is cheaper than that.
    fn wouldRead(self: *Builder, piece: PageRange) bool {
        if (!self.overBase(piece)) return false;
        self.unasked += 1;
        if (self.streak >= resident_streak and self.unasked < resident_streak) return false;
        self.unasked = 0;
        const resident = os.isResident(self.address + piece.first * page_size, piece.count);
        self.streak = if (resident) self.streak + 1 else 0;
        return !resident;
    }

    fn layHole(self: *Builder, piece: PageRange) errors.Error!void {
        if (!self.overBase(piece)) return;
        self.report.runs += 1;
        const to = self.address + piece.first * page_size;
        const len = piece.count * page_size;
        if (self.log_maps_left > 0 and (piece.count >= mapped_run_pages_min or self.wouldRead(piece))) {
            self.log_maps_left -= 1;
            os.commitAnonymous(to, len) catch return noMaps(self.image);
            return;
        }
        @memset(@as([*]u8, @ptrFromInt(to))[0..len], 0);
    }

    fn overBase(self: *const Builder, piece: PageRange) bool {
        const runs = self.generation.runs;
        var low: usize = 0;
        var high: usize = runs.len;
        while (low < high) {
            const middle = low + (high - low) / 2;
            if (runs[middle].end() <= piece.first) low = middle + 1 else high = middle;
        }
        return low < runs.len and runs[low].first < piece.end();
    }

    /// Reading a hole of a file on a full tmpfs is a SIGBUS: there holes stay anonymous memory.
    fn map(self: *Builder, file: disk_.File, offset: u64, to: usize, len: u64, sparse: bool) errors.Error!void {
        const disk = self.image.disk;
        if (!sparse) {
            if (disk.map(file, offset, to, len)) |errno| return disk_.failErrno(errno, self.image.path(), "Cannot map image");
            return;
        }
        os.commitAnonymous(to, len) catch return noMaps(self.image);
        var at: u64 = offset;
        while (at < offset + len) {
            const data = std.mem.alignBackward(u64, disk.nextData(file, at) orelse break, page_size);
            if (data >= offset + len) break;
            const first = @max(at, data);
            const hole = std.mem.alignForward(u64, disk.nextHole(file, first) orelse offset + len, page_size);
            const end = @min(offset + len, @max(hole, first + page_size));
            if (disk.map(file, first, to + (first - offset), end - first)) |errno| return disk_.failErrno(errno, self.image.path(), "Cannot map image");
            at = end;
        }
    }

    fn uncoveredBasePages(self: *const Builder) u64 {
        var total = self.generation.header.page_count;
        var runs = self.covered.iterate();
        var index: usize = 0;
        const base = self.generation.runs;
        var piece = runs.next();
        while (piece) |covered| {
            if (index == base.len) break;
            const first = @max(base[index].first, covered.first);
            const end = @min(base[index].end(), covered.end());
            if (first < end) total -= end - first;
            if (base[index].end() <= covered.end()) index += 1 else piece = runs.next();
        }
        return total;
    }
};

/// Pages of these records in runs that are copied, more or less: newer records may cover some.
fn shortPages(generation: *const Generation, chain: []const usize) u64 {
    var pages: u64 = 0;
    for (chain) |index| for (generation.records.items[index].runs) |run| {
        if (run.count < mapped_run_pages_min) pages += run.count;
    };
    return pages;
}

/// A tracker wants pages of 4 KiB, and merged pages would read as clean. Kernels that know neither
/// have neither.
fn advise(address: usize, len: u64) errors.Error!void {
    _ = os.advise(address, len, std.os.linux.MADV.NOHUGEPAGE);
    _ = os.advise(address, len, std.os.linux.MADV.UNMERGEABLE);
}

fn endOf(runs: []const PageRange) u64 {
    return if (runs.len == 0) 0 else runs[runs.len - 1].end();
}

/// Every page of base and records up to `at` against its checksum.
pub fn verify(image: *Image, at: generation_.Point) errors.Error!void {
    const files = filesOf(image);
    try files.verifyBase();
    var chain: table_.Chain = try .init(files.generation, at, image.path());
    defer chain.deinit();
    for (chain.records.items) |index| try files.verifyRecord(index);
}

fn filesOf(image: *const Image) Files {
    return .{ .disk = image.disk, .path = image.path(), .generation = image.generation.?, .describer = image.describer };
}

/// Base and log, and who can tell what a page of theirs belongs to.
pub const Files = struct {
    disk: disk_.Disk,
    path: []const u8,
    generation: *const Generation,
    describer: ?stored_.Describer,

    /// Every page of the base and of the log's first `records` records, whatever line they are on.
    pub fn verify(self: Files, records: usize) errors.Error!void {
        try self.verifyBase();
        for (0..records) |index| try self.verifyRecord(index);
    }

    fn verifyBase(self: Files) errors.Error!void {
        const generation = self.generation;
        var sums: Generation.Sums = .{ .generation = generation, .disk = self.disk };
        var stored: u64 = 0;
        while (try sums.next(self.path)) |part| {
            if (try generation_.firstBadPage(self.disk, generation.base, page_size * (stored + 1), part, self.path)) |bad| {
                return self.badPage(.base, pageAt(generation.runs, stored + bad));
            }
            stored += part.len;
        }
    }

    fn verifyRecord(self: Files, index: usize) errors.Error!void {
        const record = &self.generation.records.items[index];
        const bad = try generation_.firstBadPage(self.disk, self.generation.log, record.pagesOffset(), record.sums, self.path) orelse return;
        return self.badPage(.{ .record = index }, pageAt(record.runs, bad));
    }

    /// What stands before a record in its chain was read before it: the epoch that it follows is whole.
    fn badPage(self: Files, at: generation_.Point, page: u64) errors.Error {
        const generation = self.generation;
        const path = self.path;
        const address = generation.header.heap.address + page * page_size;
        var buffer: [errors.owner_len_max]u8 = undefined;
        const owner = self.ownerOf(at, page, &buffer);
        var detail: errors.Detail = .{ .path = path, .address = address, .owner = owner };
        const told = if (owner.len > 0) "; it belongs to " else "";
        const index = switch (at) {
            .base => return failAs(.CORRUPT, detail, "Cannot read image \"{s}\": page {d} of the heap, at 0x{x}, as epoch {d} stored it in the base, does not match its checksum{s}{s}; restore from a backup", .{ path, page, address, generation.header.epoch, told, owner }),
            .record => |index| index,
        };
        const record = &generation.records.items[index];
        detail.epoch = generation.headOf(generation.find(record.parent) orelse .base).epoch;
        return failAs(.CORRUPT, detail, "Cannot read image \"{s}\": page {d} of the heap, at 0x{x}, as epoch {d} stored it in the log \"{s}\", does not match its checksum{s}{s}; restore({{ epoch: {d} }}) or from a backup", .{ path, page, address, record.epoch, generation.log_name.slice(), told, owner, detail.epoch });
    }

    /// What the heap has there at that commit; empty when nobody can tell.
    fn ownerOf(self: Files, at: generation_.Point, page: u64, buffer: []u8) []const u8 {
        const describer = self.describer orelse return "";
        var stored = stored_.Stored.init(self.disk, self.generation, at, self.path) catch return "";
        defer stored.deinit();
        return describer(&stored, page, buffer);
    }
};

/// The heap page that is stored as number `stored` of these runs.
fn pageAt(runs: []const PageRange, stored: u64) u64 {
    var left = stored;
    for (runs) |run| {
        if (left < run.count) return run.first + left;
        left -= run.count;
    }
    unreachable;
}

fn beyond(image: *Image) errors.Error {
    return failAs(.CORRUPT, .{ .path = image.path() }, "Cannot open image \"{s}\": it stores pages beyond the heap's capacity; restore it from a backup", .{image.path()});
}

fn noMaps(image: *Image) errors.Error {
    return failAs(.OUT_OF_MEMORY, .{ .path = image.path() }, "Cannot map image \"{s}\": no memory, or no mappings left (vm.max_map_count)", .{image.path()});
}
