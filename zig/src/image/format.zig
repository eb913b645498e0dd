//! Images to the byte: the structures of base and log (docs/format.md), their checksums, and the
//! checks that make lengths and offsets safe to use.
//!
//! Invariant: what is stored is little-endian, has explicit sizes, and is covered by a checksum that
//! is compared before any of it is used. Version 1 is final: a change here is version 2.

const std = @import("std");
const os = @import("../os/os.zig");
const PageRange = @import("page_set.zig").PageRange;

pub const page_size = os.page_size;
pub const version: u32 = 1;

pub const base_magic: u64 = @bitCast(@as([8]u8, "PERMbase".*));
/// What a base begins with while it is being written: never taken for a base.
pub const unfinished_magic: u64 = @bitCast(@as([8]u8, "PERMpart".*));
pub const log_magic: u64 = @bitCast(@as([8]u8, "PERMlog1".*));
pub const record_magic: u64 = @bitCast(@as([8]u8, "PERMrec1".*));
pub const footer_magic: u64 = @bitCast(@as([8]u8, "PERMend1".*));
pub const seal_magic: u64 = @bitCast(@as([8]u8, "PERMsync".*));

/// Names a state of a heap; random.
pub const CommitId = u128;

/// Epoch numbers end here: no heap lives so long, but a stranger's file may say so.
pub const epoch_limit = 1 << 62;

/// Lines a file carries at most; a line that fell out counts as foreign.
pub const lines_max = 4096;

/// What it takes to put the heap back: sizes in bytes.
pub const Identity = extern struct {
    uuid: [16]u8 = @splat(0),
    address: u64 = 0,
    /// The whole range from `address` on that belongs to the heap.
    span: u64 = 0,
    capacity: u64 = 0,
    max_size: u64 = 0,
    used: u64 = 0,
    reserved: [16]u8 = @splat(0),

    /// Sizes that no heap can have are refused before they are used.
    pub fn isSane(self: *const Identity) bool {
        const limit = 1 << 47;
        return self.address % page_size == 0 and self.span % page_size == 0 and
            self.address > 0 and self.address < limit and
            self.span > 0 and self.span <= limit - self.address and
            self.capacity <= self.span and self.max_size <= self.span and
            self.capacity <= self.max_size and self.used <= self.span;
    }

    pub fn pages(self: *const Identity) u64 {
        return self.span / page_size;
    }

    pub fn eql(self: *const Identity, other: *const Identity) bool {
        return std.mem.eql(u8, std.mem.asBytes(self), std.mem.asBytes(other));
    }
};

/// A stretch of commits in a row, made by one session: it left its parent at an epoch.
pub const Line = extern struct {
    id: u64,
    /// 0: none, the heap was new.
    parent: u64,
    fork_epoch: u64,
};

/// The base's first page. The pages follow at once; lines, runs and checksums come after them,
/// because what they hold is known only when the last page was read.
pub const BaseHeader = extern struct {
    magic: u64 = base_magic,
    version: u32 = version,
    page_size: u32 = page_size,
    image: [16]u8 = @splat(0),
    commit: CommitId = 0,
    parent: CommitId = 0,
    heap: Identity = .{},
    salt: u64 = 0,
    /// The log's file name ends in this, as 16 hexadecimal digits.
    log_name: u64 = 0,
    epoch: u64 = 0,
    /// The highest epoch number that the image had seen.
    epoch_max: u64 = 0,
    line: u64 = 0,
    /// Nanoseconds since 1970.
    time: u64 = 0,
    keep: u64 = 0,
    page_count: u64 = 0,
    line_count: u64 = 0,
    run_count: u64 = 0,
    /// Of lines and runs as stored.
    index_checksum: u64 = 0,
    /// Of the page checksums as stored.
    sums_checksum: u64 = 0,
    reserved: [4096 - 240]u8 = @splat(0),
    checksum: u64 = 0,

    pub fn seal(self: *BaseHeader) void {
        self.checksum = hash(std.mem.asBytes(self)[0..@offsetOf(BaseHeader, "checksum")]);
    }

    pub fn isSealed(self: *const BaseHeader) bool {
        return self.checksum == hash(std.mem.asBytes(self)[0..@offsetOf(BaseHeader, "checksum")]);
    }

    /// Where lines, runs and checksums lie, and where the file ends; null when it cannot be.
    pub fn layout(self: *const BaseHeader) ?Layout {
        if (self.page_count > page_count_max or self.run_count > self.page_count or
            self.line_count > lines_max) return null;
        const lines = page_size + self.page_count * page_size;
        const runs = lines + self.line_count * @sizeOf(Line);
        const sums = runs + self.run_count * @sizeOf(PageRange);
        return .{ .lines = lines, .runs = runs, .sums = sums, .end = sums + self.page_count * 8 };
    }

    pub const Layout = struct { lines: u64, runs: u64, sums: u64, end: u64 };
};

/// The log's first page.
pub const LogHeader = extern struct {
    magic: u64 = log_magic,
    version: u32 = version,
    page_size: u32 = page_size,
    image: [16]u8 = @splat(0),
    salt: u64 = 0,
    name: u64 = 0,
    reserved: [4096 - 56]u8 = @splat(0),
    checksum: u64 = 0,

    pub fn seal(self: *LogHeader) void {
        self.checksum = hash(std.mem.asBytes(self)[0..@offsetOf(LogHeader, "checksum")]);
    }

    pub fn isSealed(self: *const LogHeader) bool {
        return self.checksum == hash(std.mem.asBytes(self)[0..@offsetOf(LogHeader, "checksum")]);
    }
};

/// A commit in the log: this header in a page of its own, the pages, the tables (lines, runs, holes,
/// page checksums), the footer, zeros up to the next page.
pub const RecordHeader = extern struct {
    magic: u64 = record_magic,
    salt: u64 = 0,
    /// Where in the log this header lies: a record is valid in its own place only.
    offset: u64 = 0,
    /// 1 for the log's first record, then one more each.
    sequence: u64 = 0,
    commit: CommitId = 0,
    /// The commit of this image that the pages are changes to.
    parent: CommitId = 0,
    heap: Identity = .{},
    epoch: u64 = 0,
    line: u64 = 0,
    time: u64 = 0,
    page_count: u64 = 0,
    line_count: u64 = 0,
    run_count: u64 = 0,
    hole_count: u64 = 0,
    /// Of the tables as stored.
    tables_checksum: u64 = 0,
    /// The checksum of the record before, or of the log's first page.
    chain: u64 = 0,
    reserved: [4096 - 216]u8 = @splat(0),
    checksum: u64 = 0,

    pub fn seal(self: *RecordHeader) void {
        self.checksum = hash(std.mem.asBytes(self)[0..@offsetOf(RecordHeader, "checksum")]);
    }

    pub fn isSealed(self: *const RecordHeader) bool {
        return self.checksum == hash(std.mem.asBytes(self)[0..@offsetOf(RecordHeader, "checksum")]);
    }

    /// Sizes from the record's first byte on; null when they cannot be.
    pub fn layout(self: *const RecordHeader) ?Layout {
        if (self.page_count > page_count_max or self.run_count > self.page_count or
            self.hole_count > page_count_max or self.line_count > lines_max) return null;
        const tables = page_size + self.page_count * page_size;
        const tables_len = self.line_count * @sizeOf(Line) +
            (self.run_count + self.hole_count) * @sizeOf(PageRange) + self.page_count * 8;
        const footer = tables + std.mem.alignForward(u64, tables_len, 16);
        const end = std.mem.alignForward(u64, footer + @sizeOf(Footer), page_size);
        return .{ .tables = tables, .tables_len = tables_len, .footer = footer, .end = end };
    }

    pub const Layout = struct { tables: u64, tables_len: u64, footer: u64, end: u64 };
};

/// Written last: without it a record was never finished.
pub const Footer = extern struct {
    magic: u64 = footer_magic,
    salt: u64 = 0,
    commit: CommitId = 0,
    sequence: u64 = 0,
    offset: u64 = 0,
    /// The record header's checksum.
    record: u64 = 0,
    checksum: u64 = 0,

    pub fn seal(self: *Footer) void {
        self.checksum = hash(std.mem.asBytes(self)[0..@offsetOf(Footer, "checksum")]);
    }

    pub fn matches(self: *const Footer, record: *const RecordHeader) bool {
        return self.magic == footer_magic and self.salt == record.salt and
            self.commit == record.commit and self.sequence == record.sequence and
            self.offset == record.offset and self.record == record.checksum and
            self.checksum == hash(std.mem.asBytes(self)[0..@offsetOf(Footer, "checksum")]);
    }
};

/// Written, and never synced, behind a long record after its sync returned: whoever finds it knows
/// that the record is on the medium. It is no record: the next one takes its place.
pub const Seal = extern struct {
    magic: u64 = seal_magic,
    salt: u64 = 0,
    offset: u64 = 0,
    sequence: u64 = 0,
    /// The record header's checksum.
    record: u64 = 0,
    reserved: [16]u8 = @splat(0),
    checksum: u64 = 0,

    pub fn seal(self: *Seal) void {
        self.checksum = hash(std.mem.asBytes(self)[0..@offsetOf(Seal, "checksum")]);
    }

    pub fn isSealed(self: *const Seal) bool {
        return self.magic == seal_magic and
            self.checksum == hash(std.mem.asBytes(self)[0..@offsetOf(Seal, "checksum")]);
    }
};

/// 2^47 bytes of address space.
const page_count_max = 1 << 35;

comptime {
    const assert = std.debug.assert;
    assert(@import("builtin").cpu.arch.endian() == .little);
    assert(@sizeOf(PageRange) == 16 and @sizeOf(Line) == 24 and @sizeOf(Identity) == 72);
    assert(@sizeOf(BaseHeader) == page_size and @sizeOf(LogHeader) == page_size);
    assert(@sizeOf(RecordHeader) == page_size and @sizeOf(Footer) == 64 and @sizeOf(Seal) == 64);
    for (.{ "image", "commit", "parent", "heap", "salt", "log_name", "epoch" }, .{ 16, 32, 48, 64, 136, 144, 152 }) |name, at| {
        assert(@offsetOf(BaseHeader, name) == at);
    }
    for (.{ "epoch_max", "line", "time", "keep", "page_count", "line_count" }, .{ 160, 168, 176, 184, 192, 200 }) |name, at| {
        assert(@offsetOf(BaseHeader, name) == at);
    }
    for (.{ "run_count", "index_checksum", "sums_checksum", "reserved", "checksum" }, .{ 208, 216, 224, 232, 4088 }) |name, at| {
        assert(@offsetOf(BaseHeader, name) == at);
    }
    for (.{ "image", "salt", "name", "checksum" }, .{ 16, 32, 40, 4088 }) |name, at| {
        assert(@offsetOf(LogHeader, name) == at);
    }
    for (.{ "salt", "offset", "sequence", "commit", "parent", "heap" }, .{ 8, 16, 24, 32, 48, 64 }) |name, at| {
        assert(@offsetOf(RecordHeader, name) == at);
    }
    for (.{ "epoch", "line", "time", "page_count", "line_count" }, .{ 136, 144, 152, 160, 168 }) |name, at| {
        assert(@offsetOf(RecordHeader, name) == at);
    }
    for (.{ "run_count", "hole_count", "tables_checksum", "chain", "checksum" }, .{ 176, 184, 192, 200, 4088 }) |name, at| {
        assert(@offsetOf(RecordHeader, name) == at);
    }
    for (.{ "commit", "sequence", "offset", "record", "checksum" }, .{ 16, 32, 40, 48, 56 }) |name, at| {
        assert(@offsetOf(Footer, name) == at);
    }
    for (.{ "salt", "offset", "sequence", "record", "checksum" }, .{ 8, 16, 24, 32, 56 }) |name, at| {
        assert(@offsetOf(Seal, name) == at);
    }
}

/// XXH3-64 with seed 0.
pub fn hash(bytes: []const u8) u64 {
    return std.hash.XxHash3.hash(0, bytes);
}

pub const Hasher = std.hash.XxHash3;

/// A page's checksum: 0 means that it is all zeros and no other page has it.
pub fn pageSum(page: *align(8) const [page_size]u8) u64 {
    if (isZero(page)) return 0;
    return @max(1, hash(page));
}

fn isZero(page: *align(8) const [page_size]u8) bool {
    const words: *const [page_size / 8]u64 = @ptrCast(page);
    if (words[0] | words[page_size / 16] != 0) return false;
    var at: usize = 0;
    while (at < words.len) : (at += 32) {
        const part: @Vector(32, u64) = words[at..][0..32].*;
        if (@reduce(.Or, part) != 0) return false;
    }
    return true;
}

/// Sorted, apart, not empty, all within `pages`; their sum.
pub fn checkRanges(ranges: []const PageRange, pages: u64) ?u64 {
    var at: u64 = 0;
    var total: u64 = 0;
    for (ranges) |range| {
        if (range.count == 0 or range.first < at or range.first >= pages or
            range.count > pages - range.first) return null;
        at = range.end();
        total += range.count;
    }
    return total;
}

test "page checksums are published XXH3-64, and 0 for zeros only" {
    // From `xxhsum -H3` of the same bytes.
    var page: [page_size]u8 align(8) = undefined;
    for (&page, 0..) |*byte, index| byte.* = @truncate((index *% 2654435761) >> 13);
    try std.testing.expectEqual(@as(u64, 0x84d9e7ce664c8217), pageSum(&page));
    @memset(&page, 0);
    try std.testing.expectEqual(@as(u64, 0), pageSum(&page));
    for (0..page_size) |index| {
        page[index] = 1;
        defer page[index] = 0;
        try std.testing.expect(pageSum(&page) != 0);
    }
}
