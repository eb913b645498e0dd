//! The page checksums of one commit of an image, by page: what a commit is compared with.
//!
//! Invariant: `sums[p]` is the checksum of page p, 0 for a page that is all zeros; `stored` holds
//! exactly the pages whose checksum is not 0. Both are sparse: memory follows what is stored.

const std = @import("std");
const errors = @import("../errors.zig");
const os = @import("../os/os.zig");
const format = @import("format.zig");
const disk_ = @import("disk.zig");
const generation_ = @import("generation.zig");
const page_set = @import("page_set.zig");
const Generation = generation_.Generation;
const PageSet = page_set.PageSet;
const PageRange = page_set.PageRange;

pub const Table = struct {
    sums: []u64 = &.{},
    memory: []align(os.page_size) u8 = &.{},
    stored: PageSet = .{},

    pub fn init(pages: u64) error{OutOfMemory}!Table {
        if (pages == 0) return .{};
        const memory = os.allocatePages(std.mem.alignForward(u64, pages * 8, os.page_size)) catch return error.OutOfMemory;
        errdefer os.freePages(memory);
        const all: [*]u64 = @ptrCast(memory.ptr);
        return .{ .sums = all[0..pages], .memory = memory, .stored = try .init(pages) };
    }

    pub fn deinit(self: *Table) void {
        if (self.memory.len > 0) os.freePages(self.memory);
        self.stored.deinit();
        self.* = .{};
    }

    pub fn get(self: *const Table, page: u64) u64 {
        return self.sums[page];
    }

    pub fn set(self: *Table, page: u64, sum: u64) void {
        self.sums[page] = sum;
        if (sum == 0) self.stored.unset(page) else self.stored.set(page);
    }

    fn clearRange(self: *Table, range: PageRange) void {
        var page = self.stored.next(range.first) orelse return;
        while (page < range.end()) {
            self.set(page, 0);
            page = self.stored.next(page + 1) orelse return;
        }
    }

    /// Takes over what a record says: its holes, then its pages.
    pub fn apply(self: *Table, runs: []const PageRange, holes: []const PageRange, sums: []const u64) void {
        for (holes) |hole| self.clearRange(hole);
        var done: u64 = 0;
        for (runs) |run| {
            self.setRun(run.first, sums[done..][0..run.count]);
            done += run.count;
        }
    }

    /// The checksums of pages in a row.
    fn setRun(self: *Table, first: u64, sums: []const u64) void {
        @memcpy(self.sums[first..][0..sums.len], sums);
        self.stored.setRange(first, sums.len);
        var at: usize = 0;
        while (std.mem.indexOfScalarPos(u64, sums, at, 0)) |zero| : (at = zero + 1) self.stored.unset(first + zero);
    }

    /// The table of the commit at `point`.
    pub fn load(generation: *const Generation, disk: disk_.Disk, point: generation_.Point, path: []const u8) errors.Error!Table {
        var self = Table.init(generation.header.heap.pages()) catch return generation_.outOfMemory(path);
        errdefer self.deinit();
        var sums: Generation.Sums = .{ .generation = generation, .disk = disk };
        var run: usize = 0;
        var page: u64 = if (generation.runs.len > 0) generation.runs[0].first else 0;
        while (try sums.next(path)) |part| {
            var rest = part;
            while (rest.len > 0) {
                if (page == generation.runs[run].end()) {
                    run += 1;
                    page = generation.runs[run].first;
                }
                const count = @min(rest.len, generation.runs[run].end() - page);
                self.setRun(page, rest[0..count]);
                page += count;
                rest = rest[count..];
            }
        }
        var chain: Chain = try .init(generation, point, path);
        defer chain.deinit();
        for (chain.records.items) |index| {
            const record = &generation.records.items[index];
            self.apply(record.runs, record.holes, record.sums);
        }
        return self;
    }
};

/// The records from the base to a point along parents, oldest first.
pub const Chain = struct {
    records: std.ArrayList(usize) = .empty,

    const allocator = os.page_allocator;

    pub fn init(generation: *const Generation, point: generation_.Point, path: []const u8) errors.Error!Chain {
        var self: Chain = .{};
        errdefer self.deinit();
        var at = point;
        while (true) switch (at) {
            .base => break,
            .record => |index| {
                self.records.append(allocator, index) catch return generation_.outOfMemory(path);
                // A record's parent is the base or stands before it, so this ends.
                at = generation.parentOf(at) orelse return generation_.corrupt(path, "a record's parent is nowhere");
                switch (at) {
                    .base => {},
                    .record => |before| if (before >= index) return generation_.corrupt(path, "a record's parent stands behind it"),
                }
            },
        };
        std.mem.reverse(usize, self.records.items);
        return self;
    }

    pub fn deinit(self: *Chain) void {
        self.records.deinit(allocator);
    }
};
