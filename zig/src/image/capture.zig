//! A heap's changes copied aside, so that a commit can be made of them while the heap goes on.
//!
//! Invariant: `runs` are pages as they were at one moment, bytes one after the other at `bytes`. A
//! kept page that stands neither here nor in an `earlier` capture is as the image stored it last.

const os = @import("../os/os.zig");
const std = @import("std");
const format = @import("format.zig");
const page_set = @import("page_set.zig");
const PageRange = page_set.PageRange;
const PageSet = page_set.PageSet;
const page_size = format.page_size;

const allocator = os.page_allocator;

/// A page's bytes.
pub const Page = *align(page_size) const [page_size]u8;

pub const Capture = struct {
    /// Pages copied, ascending, and how many of them come before each run.
    runs: std.ArrayList(PageRange) = .empty,
    before: std.ArrayList(u64) = .empty,
    count: u64 = 0,
    bytes: usize = 0,
    /// Every kept page is here.
    complete: bool = false,
    /// What was pending, and whether everything was: pending again when the commit fails.
    candidates: std.ArrayList(PageRange) = .empty,
    held_all: bool = false,
    /// What had changed since the heap's other image was committed to; null: nobody knows.
    other: ?std.ArrayList(PageRange) = null,
    /// The capture of a commit to the same image that came before this one and failed.
    earlier: ?*Capture = null,
    /// The run found last: lookups come mostly in order.
    cursor: usize = 0,

    pub fn deinit(self: *Capture) void {
        self.runs.deinit(allocator);
        self.before.deinit(allocator);
        self.candidates.deinit(allocator);
        if (self.other) |*told| told.deinit(allocator);
        self.* = .{};
    }

    /// Notes which pages are to be copied.
    pub fn choose(self: *Capture, pages: *const PageSet) error{OutOfMemory}!void {
        self.runs.clearRetainingCapacity();
        self.before.clearRetainingCapacity();
        self.count = 0;
        var runs = pages.iterate();
        while (runs.next()) |run| {
            try self.runs.append(allocator, run);
            try self.before.append(allocator, self.count);
            self.count += run.count;
        }
    }

    /// Copies the chosen pages from the heap's memory to `bytes`, which has room for all of them.
    pub fn copy(self: *Capture, memory: usize, bytes: usize) void {
        self.bytes = bytes;
        var to: [*]u8 = @ptrFromInt(bytes);
        for (self.runs.items) |run| {
            const len = run.count * page_size;
            const from: [*]const u8 = @ptrFromInt(memory + run.first * page_size);
            @memcpy(to[0..len], from[0..len]);
            to += len;
        }
    }

    /// All pages that this capture and those before it copied.
    pub fn addTo(self: *const Capture, set: *PageSet) void {
        var next: ?*const Capture = self;
        while (next) |each| : (next = each.earlier) {
            for (each.runs.items) |run| set.setRange(run.first, run.count);
        }
    }

    /// The page as it was, if it was copied.
    pub fn find(self: *Capture, page: u64) ?Page {
        if (self.findHere(page)) |found| return found;
        return if (self.earlier) |earlier| earlier.find(page) else null;
    }

    fn findHere(self: *Capture, page: u64) ?Page {
        const runs = self.runs.items;
        if (runs.len == 0) return null;
        for (0..2) |_| {
            const run = runs[self.cursor];
            if (page >= run.first and page < run.end()) return self.pageAt(self.cursor, page);
            if (self.cursor + 1 == runs.len or page < run.end()) break;
            self.cursor += 1;
        }
        var low: usize = 0;
        var high = runs.len;
        while (low < high) {
            const middle = (low + high) / 2;
            if (runs[middle].end() <= page) low = middle + 1 else high = middle;
        }
        if (low == runs.len or page < runs[low].first) return null;
        self.cursor = low;
        return self.pageAt(low, page);
    }

    fn pageAt(self: *const Capture, index: usize, page: u64) Page {
        const offset = self.before.items[index] + (page - self.runs.items[index].first);
        return @ptrFromInt(self.bytes + offset * page_size);
    }
};

/// Appends the runs of a set to a list.
pub fn addRuns(set: *const PageSet, into: *std.ArrayList(PageRange)) error{OutOfMemory}!void {
    var runs = set.iterate();
    while (runs.next()) |run| try into.append(allocator, run);
}

/// Where a commit reads the heap's pages: from the heap itself, or from a capture.
pub const Source = union(enum) {
    memory: usize,
    capture: *Capture,

    /// The page, which a capture must hold.
    pub fn page(self: Source, number: u64) Page {
        return switch (self) {
            .memory => |memory| @ptrFromInt(memory + number * page_size),
            .capture => |capture| capture.find(number).?,
        };
    }
};

test "a capture finds the pages it copied, in any order, and those of the one before it" {
    const memory = try os.allocatePages(64 * page_size);
    defer os.freePages(memory);
    const aside = try os.allocatePages(64 * page_size);
    defer os.freePages(aside);
    for (0..64) |index| @memset(memory[index * page_size ..][0..page_size], @intCast(index));
    var set: PageSet = try .init(64);
    defer set.deinit();
    for ([_]u64{ 0, 3, 4, 5, 20, 63 }) |page| set.set(page);
    var first: Capture = .{};
    defer first.deinit();
    try first.choose(&set);
    first.copy(@intFromPtr(memory.ptr), @intFromPtr(aside.ptr));
    try std.testing.expectEqual(@as(u64, 6), first.count);
    @memset(memory, 0xff);
    set.clear();
    set.setRange(4, 2);
    var second: Capture = .{ .earlier = &first };
    defer second.deinit();
    try second.choose(&set);
    second.copy(@intFromPtr(memory.ptr), @intFromPtr(aside.ptr) + 6 * page_size);
    for ([_]u64{ 63, 0, 20, 3 }) |page| {
        try std.testing.expectEqual(@as(u8, @intCast(page)), second.find(page).?[7]);
    }
    for ([_]u64{ 5, 4 }) |page| try std.testing.expectEqual(@as(u8, 0xff), second.find(page).?[0]);
    for ([_]u64{ 1, 2, 6, 19, 21, 62 }) |page| try std.testing.expectEqual(null, second.find(page));
}
