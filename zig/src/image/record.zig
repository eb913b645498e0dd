//! Appending a record to a log: pages streamed from the staging buffer, then tables and header, the
//! footer last.
//!
//! Invariant: nothing before `generation.log_end` is touched. Until `accept` the generation holds
//! nothing of the attempt except `tail`, which tells the next one to cut it away (R2).

const std = @import("std");
const errors = @import("../errors.zig");
const disk_ = @import("disk.zig");
const format = @import("format.zig");
const generation_ = @import("generation.zig");
const opener = @import("opener.zig");
const pipe_ = @import("pipe.zig");
const plant = @import("../plant.zig");
const Room = @import("room.zig").Room;
const scratch_ = @import("scratch.zig");
const history = @import("history.zig");
const Disk = disk_.Disk;
const Generation = generation_.Generation;
const Line = format.Line;
const PageRange = @import("page_set.zig").PageRange;
const Record = generation_.Record;
const Scratch = scratch_.Scratch;
const page_size = format.page_size;

/// The medium begins to write after so many bytes, while the next pages are read.
const writeback_len = 8 << 20;
const allocate_len = 16 << 20;
/// Behind a record of at most so many bytes zeros are written, when those before it were as short: space
/// that is known and was written makes the next small commits' syncs half as long.
const ahead_record_max = 64 << 10;
const ahead_records_min = 3;
const ahead_len = 128 << 10;
/// Fewer behind a long record, where one of the last few was short.
const ahead_long_len = 32 << 10;
const ahead_long_records = 8;

/// What a record says apart from its pages.
pub const Facts = struct {
    head: history.Head,
    parent: format.CommitId,
    heap: format.Identity,
    time: u64,
    lines: []const Line,
    holes: []const PageRange,
};

pub const Appender = struct {
    disk: Disk,
    generation: *Generation,
    scratch: *Scratch,
    path: []const u8,
    /// Writes the pages while the next ones are copied.
    pipe: ?*pipe_.Pipe = null,
    /// Pages written at a time.
    staged_max: usize = scratch_.staging_pages,
    /// Pages in the staging buffer, and pages written.
    staged: usize = 0,
    written: u64 = 0,
    allocated_end: u64 = 0,
    /// The footer may be in the file: from here on the attempt is never cut (R2).
    footer_begun: bool = false,

    pub fn init(disk: Disk, generation: *Generation, scratch: *Scratch, path: []const u8) errors.Error!Appender {
        if (generation.tail and !plant.is(.r2_tail_not_cut)) try opener.cutTail(disk, generation, path);
        scratch.runs.clearRetainingCapacity();
        scratch.sums.clearRetainingCapacity();
        return .{ .disk = disk, .generation = generation, .scratch = scratch, .path = path, .allocated_end = generation.room_end };
    }

    /// Has a thread write the pages, which are as many at most. To be ended with `endPipe`.
    pub fn startPipe(self: *Appender, pipe: *pipe_.Pipe, pages: u64, size: pipe_.Size) void {
        if (pages < size.record_pages_min) return;
        const offset = self.generation.log_end + page_size;
        const buffer_pages = @min(scratch_.staging_pages, size.buffer_pages);
        if (!pipe.startCached(self.disk, self.generation.log, offset, buffer_pages)) return;
        self.pipe = pipe;
        self.staged_max = buffer_pages;
    }

    pub fn endPipe(self: *Appender) void {
        if (self.pipe) |pipe| pipe.end();
        self.pipe = null;
        self.staged_max = scratch_.staging_pages;
    }

    /// Where the next page's bytes go before `push`.
    pub fn slot(self: *Appender) *align(page_size) [page_size]u8 {
        if (self.pipe) |pipe| return @alignCast(pipe.buffer()[self.staged * page_size ..][0..page_size]);
        return self.scratch.slot(self.staged);
    }

    /// Takes the page whose bytes are in `slot`. `more` bounds the pages that may still follow.
    pub fn push(self: *Appender, page: u64, sum: u64, more: u64) errors.Error!void {
        self.scratch.addPage(page, sum) catch return generation_.outOfMemory(self.path);
        self.staged += 1;
        if (self.staged == self.staged_max) try self.flush(more);
    }

    fn flush(self: *Appender, more: u64) errors.Error!void {
        if (self.staged == 0) return;
        const offset = self.generation.log_end + page_size * (1 + self.written);
        const len = self.staged * page_size;
        if (offset + len > self.allocated_end) {
            try self.roomAhead(offset, len, @max(len, @min(allocate_len, len + more * page_size)));
        }
        if (self.pipe) |pipe| {
            self.written += self.staged;
            self.staged = 0;
            self.generation.tail = true;
            self.generation.log_size = @max(self.generation.log_size, offset + len);
            if (pipe.submit(len, offset)) |errno| return self.failed(errno);
            return;
        }
        try self.write(self.scratch.staging[page_size..][0..len], offset);
        const before = self.written * page_size / writeback_len;
        self.written += self.staged;
        self.staged = 0;
        if (self.written * page_size / writeback_len > before) self.disk.startWriting(self.generation.log, offset + len -| writeback_len, writeback_len);
    }

    fn room(self: *Appender, offset: u64, len: u64) errors.Error!void {
        self.generation.tail = true;
        if (self.disk.allocate(self.generation.log, offset, len)) |errno| return self.failed(errno);
        self.allocated_end = offset + len;
        self.generation.log_size = @max(self.generation.log_size, offset + len);
    }

    /// The same for `ahead`, or for `len` alone: that there is no room for what may follow is no reason
    /// to refuse what is here.
    fn roomAhead(self: *Appender, offset: u64, len: u64, ahead: u64) errors.Error!void {
        self.generation.tail = true;
        self.generation.log_size = @max(self.generation.log_size, offset + ahead);
        self.allocated_end = offset + ahead;
        const errno = self.disk.allocate(self.generation.log, offset, ahead) orelse return;
        if (!disk_.isLack(errno) or ahead == len) return self.failed(errno);
        if (self.disk.truncate(self.generation.log, offset)) |cut| return self.failed(cut);
        self.generation.log_size = offset;
        self.generation.forgetZeros();
        try self.room(offset, len);
    }

    fn write(self: *Appender, bytes: []const u8, offset: u64) errors.Error!void {
        self.generation.tail = true;
        self.generation.log_size = @max(self.generation.log_size, offset + bytes.len);
        if (self.disk.writeAll(self.generation.log, bytes, offset)) |errno| return self.failed(errno);
    }

    fn failed(self: *Appender, errno: disk_.Errno) errors.Error {
        return disk_.failErrno(errno, self.path, "Cannot commit to image");
    }

    pub fn pageCount(self: *const Appender) u64 {
        return self.written + self.staged;
    }

    /// Writes what is left of the record. It is in the page cache then, not on the medium.
    pub fn finish(self: *Appender, facts: Facts) errors.Error!Record {
        const scratch = self.scratch;
        var header = headerOf(self.generation, facts, scratch.runs.items.len, scratch.sums.items.len);
        const at = header.layout().?;
        const bytes = try tablesOf(self.generation, at, facts.lines, scratch.runs.items, facts.holes, scratch.sums.items);
        header.tables_checksum = format.hash(bytes[0..at.tables_len]);
        header.seal();

        // What a pipe still has to write comes before what tells that it is there.
        if (self.pipe) |pipe| {
            try self.flush(0);
            if (pipe.finish()) |errno| return self.failed(errno);
            self.endPipe();
        }
        const offset = header.offset;
        const tables_end = at.tables + at.tables_len;
        if (self.generation.stale) try self.clear(offset + tables_end, offset + at.end);
        if (self.written == 0 and tables_end <= scratch_.staging_len) {
            const has_room = offset + at.end <= @max(self.generation.zeros_end, self.allocated_end);
            if (!has_room) try self.room(offset, at.end);
            @memcpy(scratch.staging[0..page_size], std.mem.asBytes(&header));
            @memcpy(scratch.staging[at.tables..tables_end], bytes[0..at.tables_len]);
            try self.write(scratch.staging[0..tables_end], offset);
            if (offset + at.end > self.generation.zeros_end) if (self.aheadOf(at.end)) |len| try self.writeAhead(offset + at.end, len);
        } else {
            try self.flush(0);
            if (offset + at.end > self.allocated_end) try self.room(offset + at.tables, at.end - at.tables);
            if (self.allocated_end > @max(offset + at.end, self.generation.room_end)) {
                if (self.disk.truncate(self.generation.log, offset + at.end)) |errno| return self.failed(errno);
                self.generation.log_size = offset + at.end;
                self.generation.forgetZeros();
            }
            if (self.aheadOf(at.end)) |len| try self.writeAhead(offset + at.end, len);
            try self.write(bytes[0..at.tables_len], offset + at.tables);
            try self.write(std.mem.asBytes(&header), offset);
        }
        try self.writeFooter(&header, at);
        return self.generation.recordOf(&header, at, bytes).?;
    }

    /// What another log held behind the record goes before its footer is written.
    fn clear(self: *Appender, from: u64, end: u64) errors.Error!void {
        const generation = self.generation;
        if (Room.clear(self.disk, generation, from, end)) return;
        if (self.disk.truncate(generation.log, from)) |errno| return self.failed(errno);
        generation.log_size = from;
        generation.forgetZeros();
        self.allocated_end = @min(self.allocated_end, from);
    }

    /// How many zeros to write behind a record of `len` bytes, if any.
    fn aheadOf(self: *const Appender, len: u64) ?usize {
        const records = self.generation.records.items;
        const long = len > ahead_record_max;
        const looked_at: usize = if (long) ahead_long_records else ahead_records_min;
        if (!long and records.len < looked_at) return null;
        var short: usize = 0;
        for (records[records.len -| looked_at..]) |record| {
            if (record.len <= ahead_record_max) short += 1;
        }
        if (long) return if (short > 0) ahead_long_len else null;
        return if (short == looked_at) ahead_len else null;
    }

    /// Zeros for the next records, where there is space. Before the footer: an attempt that ends here is
    /// cut with them.
    fn writeAhead(self: *Appender, end: u64, len: usize) errors.Error!void {
        const generation = self.generation;
        const zeros = self.scratch.staging[0..len];
        @memset(zeros, 0);
        if (self.disk.writeAll(generation.log, zeros, end) == null) {
            generation.zeros_end = end + len;
            generation.log_size = @max(generation.log_size, generation.zeros_end);
            return;
        }
        if (self.disk.truncate(generation.log, end)) |errno| return self.failed(errno);
        generation.log_size = end;
        generation.forgetZeros();
    }

    fn writeFooter(self: *Appender, header: *const format.RecordHeader, at: format.RecordHeader.Layout) errors.Error!void {
        var footer = footerOf(header);
        self.footer_begun = true;
        try self.write(std.mem.asBytes(&footer), header.offset + at.footer);
    }

    /// Copies a record of another generation to the end of this one.
    pub fn copy(self: *Appender, from: *const Generation, record: *const Record) errors.Error!Record {
        var header = headerOf(self.generation, .{
            .head = record.head(),
            .parent = record.parent,
            .heap = record.heap,
            .time = record.time,
            .lines = record.lines,
            .holes = record.holes,
        }, record.runs.len, record.sums.len);
        const at = header.layout().?;
        const bytes = try tablesOf(self.generation, at, record.lines, record.runs, record.holes, record.sums);
        header.tables_checksum = format.hash(bytes[0..at.tables_len]);
        header.seal();
        const offset = header.offset;
        try self.room(offset, at.end);
        const len = record.sums.len * page_size;
        if (self.disk.copyAll(from.log, record.pagesOffset(), self.generation.log, offset + page_size, len, self.scratch.staging)) |errno| return self.failed(errno);
        try self.write(bytes[0..at.tables_len], offset + at.tables);
        try self.write(std.mem.asBytes(&header), offset);
        try self.writeFooter(&header, at);
        return self.generation.recordOf(&header, at, bytes).?;
    }
};

/// The record is on the medium, or will be before anybody hears of it: it counts.
pub fn accept(generation: *Generation, record: Record) void {
    std.debug.assert(record.offset == generation.log_end);
    generation.records.appendAssumeCapacity(record);
    generation.log_end += record.len;
    generation.chain = record.checksum;
    generation.tail = false;
}

fn headerOf(generation: *Generation, facts: Facts, runs: usize, pages: usize) format.RecordHeader {
    return .{
        .salt = generation.header.salt,
        .offset = generation.log_end,
        .sequence = generation.records.items.len + 1,
        .commit = facts.head.commit,
        .parent = facts.parent,
        .heap = facts.heap,
        .epoch = facts.head.epoch,
        .line = facts.head.line,
        .time = facts.time,
        .page_count = pages,
        .line_count = facts.lines.len,
        .run_count = runs,
        .hole_count = facts.holes.len,
        .chain = generation.chain,
    };
}

fn footerOf(header: *const format.RecordHeader) format.Footer {
    var footer: format.Footer = .{
        .salt = header.salt,
        .commit = header.commit,
        .sequence = header.sequence,
        .offset = header.offset,
        .record = header.checksum,
    };
    footer.seal();
    return footer;
}

/// The tables as stored, in the generation's memory: the record in the list refers to them.
fn tablesOf(
    generation: *Generation,
    at: format.RecordHeader.Layout,
    lines: []const Line,
    runs: []const PageRange,
    holes: []const PageRange,
    sums: []const u64,
) errors.Error![]align(16) u8 {
    const allocator = generation.arena.allocator();
    generation.records.ensureUnusedCapacity(allocator, 1) catch return generation_.outOfMemory("");
    const bytes = allocator.alignedAlloc(u8, .@"16", @max(16, std.mem.alignForward(u64, at.tables_len, 16))) catch return generation_.outOfMemory("");
    var done: usize = 0;
    inline for (.{ std.mem.sliceAsBytes(lines), std.mem.sliceAsBytes(runs), std.mem.sliceAsBytes(holes), std.mem.sliceAsBytes(sums) }) |part| {
        @memcpy(bytes[done..][0..part.len], part);
        done += part.len;
    }
    std.debug.assert(done == at.tables_len);
    return bytes;
}
