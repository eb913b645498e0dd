//! Memory that an image's writers use again and again: the staging buffer, page sets and tables of
//! one commit or fold.
//!
//! Invariant: pages are copied into `staging` first, and checksummed and written from there: other
//! threads may write to a page meanwhile, and checksum and bytes must agree.

const std = @import("std");
const os = @import("../os/os.zig");
const format = @import("format.zig");
const page_set = @import("page_set.zig");
const PageRange = page_set.PageRange;
const PageSet = page_set.PageSet;
const page_size = format.page_size;

pub const allocator = os.page_allocator;

/// Small enough to stay in a core's cache.
pub const staging_pages = 128;
pub const staging_len = (1 + staging_pages) * page_size;

pub const Scratch = struct {
    /// A page for a record's header, then the pages.
    staging: []align(page_size) u8 = &.{},
    runs: std.ArrayList(PageRange) = .empty,
    holes: std.ArrayList(PageRange) = .empty,
    sums: std.ArrayList(u64) = .empty,
    /// Pages of the heap that may hold something.
    kept: PageSet = .{},
    /// Pages that may have changed, and are kept.
    candidates: PageSet = .{},
    /// Pages that a first look found changed.
    changed: PageSet = .{},
    /// Pages that become zero.
    emptied: PageSet = .{},

    pub fn prepare(self: *Scratch, pages: u64) error{OutOfMemory}!void {
        try self.stage();
        inline for (.{ &self.kept, &self.candidates, &self.changed, &self.emptied }) |set| {
            if (set.pages == pages) {
                set.clear();
            } else {
                set.deinit();
                set.* = try PageSet.init(pages);
            }
        }
        self.runs.clearRetainingCapacity();
        self.holes.clearRetainingCapacity();
        self.sums.clearRetainingCapacity();
    }

    pub fn stage(self: *Scratch) error{OutOfMemory}!void {
        if (self.staging.len == 0) self.staging = os.allocatePages(staging_len) catch return error.OutOfMemory;
    }

    pub fn deinit(self: *Scratch) void {
        if (self.staging.len > 0) os.freePages(self.staging);
        self.runs.deinit(allocator);
        self.holes.deinit(allocator);
        self.sums.deinit(allocator);
        self.kept.deinit();
        self.candidates.deinit();
        self.changed.deinit();
        self.emptied.deinit();
        self.* = .{};
    }

    pub fn slot(self: *Scratch, index: usize) *align(page_size) [page_size]u8 {
        std.debug.assert(index < staging_pages);
        return @alignCast(self.staging[(1 + index) * page_size ..][0..page_size]);
    }

    pub fn addPage(self: *Scratch, page: u64, sum: u64) error{OutOfMemory}!void {
        try self.sums.append(allocator, sum);
        if (self.runs.items.len > 0) {
            const last = &self.runs.items[self.runs.items.len - 1];
            std.debug.assert(page >= last.end());
            if (last.end() == page) {
                last.count += 1;
                return;
            }
        }
        try self.runs.append(allocator, .{ .first = page, .count = 1 });
    }
};
