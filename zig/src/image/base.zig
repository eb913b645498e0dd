//! Writing a base: pages streamed in heap order into `-new`, then lines, runs and checksums, the
//! header last.
//!
//! Invariant: the file does not begin with a base's magic before all of it was written; what a base
//! holds depends on the heap's content alone.

const os = @import("../os/os.zig");
const std = @import("std");
const errors = @import("../errors.zig");
const disk_ = @import("disk.zig");
const format = @import("format.zig");
const generation_ = @import("generation.zig");
const page_set = @import("page_set.zig");
const plant = @import("../plant.zig");
const scratch_ = @import("scratch.zig");
const table_ = @import("table.zig");
const Disk = disk_.Disk;
const File = disk_.File;
const Generation = generation_.Generation;
const PageRange = page_set.PageRange;
const PageSet = page_set.PageSet;
const pipe_ = @import("pipe.zig");
const Pipe = pipe_.Pipe;
const Scratch = scratch_.Scratch;
const Source = @import("capture.zig").Source;
const page_size = format.page_size;

const writeback_len = 8 << 20;
/// Allocating waits for all writes past the page cache: seldom, then.
const piped_allocate_len = 1 << 30;
const allocate_len = 64 << 20;
/// Zero pages between two runs that are stored after all, to save a mapping: at most so many in one
/// place, and one in fifty of the pages stored.
const padding_run_max = 15;
const padding_divisor = 50;

pub const Writer = struct {
    disk: Disk,
    file: File,
    scratch: *Scratch,
    path: []const u8,
    /// Where pages are copied to before they are written: the scratch's, or the pipe's buffers.
    staging: []align(page_size) u8 = &.{},
    pipe: ?*Pipe = null,
    pipe_size: pipe_.Size,
    /// Pages that a pipe will write at most.
    expected: u64 = 0,
    staged: usize = 0,
    written: u64 = 0,
    padded: u64 = 0,
    allocated_end: u64 = 0,
    writeback_done: u64 = 0,

    /// Marks the file as unfinished and, but for a spare whose first `spare_len` bytes are allocated,
    /// empties it: all of it is written again in any case (R4).
    pub fn init(disk: Disk, file: File, spare_len: u64, pipe_size: pipe_.Size, scratch: *Scratch, path: []const u8) errors.Error!Writer {
        var self: Writer = .{ .disk = disk, .file = file, .pipe_size = pipe_size, .scratch = scratch, .path = path };
        scratch.stage() catch return generation_.outOfMemory(path);
        self.staging = @alignCast(scratch.staging[page_size..]);
        scratch.runs.clearRetainingCapacity();
        scratch.sums.clearRetainingCapacity();
        self.allocated_end = spare_len;
        const left = spare_len > 0 or plant.is(.r4_not_truncated) or plant.is(.r4_not_all_again);
        if (if (left) null else disk.truncate(file, 0)) |errno| return self.failed(errno);
        if (spare_len > 0 and plant.is(.reuse_not_marked)) return self;
        const magic = format.unfinished_magic;
        if (disk.writeAll(file, std.mem.asBytes(&magic), 0)) |errno| return self.failed(errno);
        return self;
    }

    fn failed(self: *const Writer, errno: disk_.Errno) errors.Error {
        return disk_.failErrno(errno, self.path, "Cannot write a new base of image");
    }

    pub fn pageCount(self: *const Writer) u64 {
        return self.written + self.staged;
    }

    /// Stores every page of the heap's memory that is kept and not zero.
    pub fn addMemory(self: *Writer, memory: Source, kept: *const PageSet) errors.Error!void {
        const count = kept.count();
        self.scratch.sums.ensureTotalCapacity(scratch_.allocator, count) catch return generation_.outOfMemory(self.path);
        if (count < self.pipe_size.pages_min) return self.copyMemory(memory, kept);
        var pipe: Pipe = undefined;
        if (!pipe.start(self.disk, self.file, self.pipe_size.buffer_pages)) return self.copyMemory(memory, kept);
        defer pipe.end();
        const staging = self.staging;
        self.staging = pipe.buffer();
        self.pipe = &pipe;
        self.expected = self.written + count + count / padding_divisor + padding_run_max;
        defer {
            self.staging = staging;
            self.pipe = null;
        }
        try self.copyMemory(memory, kept);
        try self.flush();
        if (pipe.finish()) |errno| return self.failed(errno);
    }

    fn copyMemory(self: *Writer, memory: Source, kept: *const PageSet) errors.Error!void {
        var runs = kept.iterate();
        while (runs.next()) |run| {
            for (run.first..run.end()) |page| {
                if (self.staged + padding_run_max + 1 > self.staging.len / page_size) try self.flush();
                const staged = self.slot(self.staged);
                @memcpy(staged, memory.page(page));
                const sum = format.pageSum(staged);
                if (sum == 0) continue;
                const padding = self.paddingBefore(page);
                if (padding > 0) {
                    @memcpy(self.slot(self.staged + padding), staged);
                    try self.pad(padding);
                }
                self.scratch.addPage(page, sum) catch return generation_.outOfMemory(self.path);
                self.staged += 1;
            }
        }
    }

    fn slot(self: *Writer, index: usize) *align(page_size) [page_size]u8 {
        return @alignCast(self.staging[index * page_size ..][0..page_size]);
    }

    /// How many zero pages to store so that `page` continues the last run; 0 when it does, or when it
    /// is not worth it.
    fn paddingBefore(self: *const Writer, page: u64) usize {
        const runs = self.scratch.runs.items;
        if (runs.len == 0) return 0;
        const gap = page - runs[runs.len - 1].end();
        if (gap > padding_run_max or self.padded + gap > self.pageCount() / padding_divisor) return 0;
        return @intCast(gap);
    }

    fn pad(self: *Writer, count: usize) errors.Error!void {
        const runs = self.scratch.runs.items;
        const first = runs[runs.len - 1].end();
        for (0..count) |index| {
            @memset(self.slot(self.staged + index), 0);
            self.scratch.addPage(first + index, 0) catch return generation_.outOfMemory(self.path);
        }
        self.staged += count;
        self.padded += count;
    }

    fn flush(self: *Writer) errors.Error!void {
        if (self.staged == 0) return;
        const offset = page_size * (1 + self.written);
        const len = self.staged * page_size;
        try self.room(offset, len);
        self.written += self.staged;
        self.staged = 0;
        if (self.pipe) |pipe| {
            if (pipe.submit(len, offset)) |errno| return self.failed(errno);
            self.staging = pipe.buffer();
            return;
        }
        if (plant.is(.r4_not_all_again)) {
            // What an earlier attempt wrote is taken for stored.
            const there = os.page_allocator.alloc(u8, len) catch unreachable;
            defer os.page_allocator.free(there);
            if (self.disk.readAll(self.file, there, offset) == null and std.mem.eql(u8, there, self.staging[0..len])) return;
        }
        if (self.disk.writeAll(self.file, self.staging[0..len], offset)) |errno| return self.failed(errno);
        self.writeback();
    }

    fn room(self: *Writer, offset: u64, len: u64) errors.Error!void {
        if (offset + len <= self.allocated_end) return;
        const ahead = @max(len, if (self.pipe != null)
            @min(piped_allocate_len, (self.expected - self.written) * page_size)
        else if (self.written == 0) len else @min(allocate_len, self.written * page_size));
        self.allocated_end = offset + ahead;
        const errno = self.disk.allocate(self.file, offset, ahead) orelse return;
        if (!disk_.isLack(errno) or ahead == len) return self.failed(errno);
        // There may be room for what is needed, though not for what would be quicker.
        self.allocated_end = offset + len;
        if (self.disk.allocate(self.file, offset, len)) |final| return self.failed(final);
    }

    fn writeback(self: *Writer) void {
        const end = page_size * (1 + self.written);
        if (end - self.writeback_done < writeback_len) return;
        self.disk.startWriting(self.file, self.writeback_done, end - self.writeback_done);
        self.writeback_done = end;
    }

    /// Stores the commit at `point` of another generation.
    pub fn addGeneration(self: *Writer, from: *const Generation, point: generation_.Point, cancel: ?*const std.atomic.Value(bool)) errors.Error!void {
        var segments: Segments = try .init(self.disk, from, point, self.path);
        defer segments.deinit();
        for (segments.list.items) |segment| {
            if (cancel) |flag| if (flag.load(.acquire)) return error.BUSY;
            try self.addSegment(from, segment);
        }
    }

    fn addSegment(self: *Writer, from: *const Generation, segment: Segments.Segment) errors.Error!void {
        const padding = self.paddingBefore(segment.first);
        if (self.staged + padding > scratch_.staging_pages) try self.flush();
        if (padding > 0) try self.pad(padding);
        try self.flush();
        for (segment.sums, segment.first..) |sum, page| {
            self.scratch.addPage(page, sum) catch return generation_.outOfMemory(self.path);
        }
        const offset = page_size * (1 + self.written);
        const len = segment.sums.len * page_size;
        try self.room(offset, len);
        const file = if (segment.in_log) from.log else from.base;
        if (self.disk.copyAll(file, segment.offset, self.file, offset, len, self.scratch.staging)) |errno| return self.failed(errno);
        self.written += segment.sums.len;
        self.writeback();
    }

    /// Writes lines, runs, checksums and the header, whose own fields the caller has filled.
    pub fn finish(self: *Writer, header: *format.BaseHeader, lines: []const format.Line) errors.Error!void {
        try self.flush();
        const runs = std.mem.sliceAsBytes(self.scratch.runs.items);
        const sums = std.mem.sliceAsBytes(self.scratch.sums.items);
        header.page_count = self.written;
        header.line_count = lines.len;
        header.run_count = self.scratch.runs.items.len;
        var hasher = format.Hasher.init(0);
        hasher.update(std.mem.sliceAsBytes(lines));
        hasher.update(runs);
        header.index_checksum = hasher.final();
        hasher = .init(0);
        hasher.update(sums);
        header.sums_checksum = hasher.final();
        const at = header.layout().?;
        std.debug.assert(self.scratch.sums.items.len == header.page_count);
        header.seal();
        if (self.disk.writeAll(self.file, std.mem.sliceAsBytes(lines), at.lines)) |errno| return self.failed(errno);
        if (self.disk.writeAll(self.file, runs, at.runs)) |errno| return self.failed(errno);
        if (self.disk.writeAll(self.file, sums, at.sums)) |errno| return self.failed(errno);
        if (self.disk.truncate(self.file, at.end)) |errno| return self.failed(errno);
        if (self.disk.writeAll(self.file, std.mem.asBytes(header), 0)) |errno| return self.failed(errno);
    }
};

/// The stored pages of one commit of a generation in heap order, each where its newest version lies.
const Segments = struct {
    list: std.ArrayList(Segment) = .empty,
    base_sums: []u64 = &.{},

    const Segment = struct {
        first: u64,
        sums: []const u64,
        offset: u64,
        in_log: bool,

        fn before(_: void, a: Segment, b: Segment) bool {
            return a.first < b.first;
        }
    };

    const allocator = os.page_allocator;

    fn init(disk: Disk, from: *const Generation, point: generation_.Point, path: []const u8) errors.Error!Segments {
        var self: Segments = .{};
        errdefer self.deinit();
        self.collect(disk, from, point, path) catch |err| switch (err) {
            error.OutOfMemory => return generation_.outOfMemory(path),
            else => |known| return known,
        };
        std.sort.heap(Segment, self.list.items, {}, Segment.before);
        return self;
    }

    fn deinit(self: *Segments) void {
        self.list.deinit(allocator);
        if (self.base_sums.len > 0) allocator.free(self.base_sums);
    }

    fn collect(self: *Segments, disk: Disk, from: *const Generation, point: generation_.Point, path: []const u8) (errors.Error || error{OutOfMemory})!void {
        var covered = try PageSet.init(from.header.heap.pages());
        defer covered.deinit();
        var chain: table_.Chain = try .init(from, point, path);
        defer chain.deinit();
        var left = chain.records.items.len;
        while (left > 0) {
            left -= 1;
            const record = &from.records.items[chain.records.items[left]];
            try self.addRuns(&covered, record.runs, record.sums, record.pagesOffset(), true);
            for (record.runs) |run| covered.setRange(run.first, run.count);
            for (record.holes) |hole| covered.setRange(hole.first, hole.count);
        }
        if (from.header.page_count == 0) return;
        self.base_sums = try allocator.alloc(u64, from.header.page_count);
        var sums: Generation.Sums = .{ .generation = from, .disk = disk };
        var done: usize = 0;
        while (try sums.next(path)) |part| {
            @memcpy(self.base_sums[done..][0..part.len], part);
            done += part.len;
        }
        try self.addRuns(&covered, from.runs, self.base_sums, page_size, false);
    }

    /// What of the runs nothing newer covers and is not zero.
    fn addRuns(self: *Segments, covered: *const PageSet, runs: []const PageRange, sums: []const u64, offset: u64, in_log: bool) error{OutOfMemory}!void {
        var stored: u64 = 0;
        for (runs) |run| {
            defer stored += run.count;
            var page = run.first;
            while (page < run.end()) {
                const first = covered.nextAbsentBefore(page, run.end());
                if (first >= run.end()) break;
                const end = @min(run.end(), covered.next(first) orelse run.end());
                page = end;
                const from = stored + (first - run.first);
                try self.addStretch(first, sums[from..][0 .. end - first], offset + from * page_size, in_log);
            }
        }
    }

    fn addStretch(self: *Segments, first: u64, sums: []const u64, offset: u64, in_log: bool) error{OutOfMemory}!void {
        var at: usize = 0;
        while (at < sums.len) {
            if (sums[at] == 0) {
                at += 1;
                continue;
            }
            const end = std.mem.indexOfScalarPos(u64, sums, at, 0) orelse sums.len;
            try self.list.append(allocator, .{
                .first = first + at,
                .sums = sums[at..end],
                .offset = offset + at * page_size,
                .in_log = in_log,
            });
            at = end;
        }
    }
};
