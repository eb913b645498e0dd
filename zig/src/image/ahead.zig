//! Mapping pages ahead of a program that reads its heap in order, as programs do after opening. A first
//! touch has the kernel map 16 pages of the file, which takes as long as copying them out; a thread can
//! do that for the pages that come next.
//!
//! Who reads in order is seen by posts: of each sector the first 16 pages are left to the program. When
//! those of two sectors in a row were mapped since the last look, the sectors behind them are mapped, as
//! far ahead as the program has kept coming. Nobody else pays: no page is mapped for a program that reads
//! here and there, and the looks become rarer and end.
//!
//! Invariant: a hint and nothing more. Only pages that the page cache holds are mapped, nothing is
//! changed, and the thread has ended before its range is given up.

const std = @import("std");
const os = @import("../os/os.zig");
const Pagemap = @import("../os/pagemap.zig").Pagemap;
const page_set = @import("page_set.zig");
const PageRange = page_set.PageRange;
const PageSet = page_set.PageSet;
const page_size = os.page_size;
const allocator = os.page_allocator;

/// What one page table maps.
const sector_len = 2 << 20;
const sector_pages = sector_len / page_size;
/// The kernel maps so many around a touched one.
const post_pages = 16;
/// Below that there is nothing to gain.
pub const pages_min = 16 * sector_pages;
/// Sectors mapped ahead of the program, at first and at most.
const window_min = 2;
const window_max = 32;
/// Posts that one look asks for: a microsecond each.
const asked_max = 256;
/// Between looks: twice as long each time.
const look_ns_min = 200 * std.time.ns_per_us;
const look_ns_max = std.time.ns_per_s;
/// Between looks at a program that is being followed, and how long it may stay.
const step_ns = 100 * std.time.ns_per_us;
const stay_ns_max = 20 * std.time.ns_per_ms;

/// Sectors that follow each other without a gap: the first one's address, and its number.
const Stretch = struct { address: usize, first: u64 };

/// Must not move between `start` and `end`.
pub const Ahead = struct {
    stretches: std.ArrayList(Stretch) = .empty,
    sectors: u64 = 0,
    /// Sectors whose posts were found mapped: they tell nothing any more.
    passed: PageSet = .{},
    pagemap: Pagemap = .{},
    thread: ?os.Thread = null,
    stopped: std.atomic.Value(u32) = .init(0),

    /// `runs` are the heap's pages that are maps of a file. Without memory or threads nothing happens.
    pub fn start(self: *Ahead, address: usize, runs: []const PageRange) void {
        self.end();
        if (!self.mark(address, runs)) return self.forget();
        self.stopped.store(0, .monotonic);
        self.thread = os.Thread.spawn(entry, self) catch return self.forget();
    }

    pub fn end(self: *Ahead) void {
        const thread = self.thread orelse return;
        self.stopped.store(1, .release);
        os.futexWake(&self.stopped, 1);
        thread.join();
        self.thread = null;
        self.forget();
    }

    /// In a forked child, which has not the thread.
    pub fn afterFork(self: *Ahead) void {
        self.thread = null;
    }

    fn forget(self: *Ahead) void {
        self.stretches.deinit(allocator);
        self.passed.deinit();
        self.* = .{};
    }

    /// Divides the runs into sectors. False when there are too few.
    fn mark(self: *Ahead, address: usize, runs: []const PageRange) bool {
        for (runs) |run| {
            if (run.count < 2 * sector_pages) continue;
            const from = std.mem.alignForward(usize, address + run.first * page_size, sector_len);
            const to = std.mem.alignBackward(usize, address + run.end() * page_size, sector_len);
            if (from >= to) continue;
            self.stretches.append(allocator, .{ .address = from, .first = self.sectors }) catch return false;
            self.sectors += (to - from) / sector_len;
        }
        if (self.sectors * sector_pages < pages_min) return false;
        self.passed = PageSet.init(self.sectors) catch return false;
        return true;
    }

    fn addressOf(self: *const Ahead, sector: u64) usize {
        var low: usize = 0;
        var high = self.stretches.items.len;
        while (high - low > 1) {
            const middle = low + (high - low) / 2;
            if (self.stretches.items[middle].first <= sector) low = middle else high = middle;
        }
        const stretch = self.stretches.items[low];
        return stretch.address + (sector - stretch.first) * sector_len;
    }

    fn entry(context: ?*anyopaque) callconv(.c) ?*anyopaque {
        const self: *Ahead = @ptrCast(@alignCast(context.?));
        self.pagemap = .open();
        defer self.pagemap.close();
        if (self.pagemap.method == .none) return null;
        var pause: u64 = look_ns_min;
        while (pause <= look_ns_max and !self.wait(pause)) {
            const front = self.look() orelse {
                pause *= 2;
                continue;
            };
            self.follow(front);
            pause = look_ns_min;
        }
        return null;
    }

    /// True when it is time to end.
    fn wait(self: *Ahead, ns: u64) bool {
        os.futexWaitFor(&self.stopped, 0, ns);
        return self.isStopped();
    }

    fn isStopped(self: *const Ahead) bool {
        return self.stopped.load(.acquire) != 0;
    }

    /// The sector that a program comes to next which has read two in a row since the last look.
    fn look(self: *Ahead) ?u64 {
        const stride = std.math.divCeil(u64, self.sectors, asked_max) catch unreachable;
        var sector: u64 = 0;
        while (sector < self.sectors and !self.isStopped()) : (sector += stride) {
            if (!self.passes(sector)) continue;
            var before = sector;
            while (before > 0 and sector - before < stride and self.passes(before - 1)) before -= 1;
            var next = sector + 1;
            while (next < self.sectors and self.passes(next)) next += 1;
            if (next - before >= 2 and next < self.sectors) return next;
        }
        return null;
    }

    /// Whether the post was mapped since it was asked for last.
    fn passes(self: *Ahead, sector: u64) bool {
        if (self.passed.contains(sector)) return false;
        if (!self.pagemap.mapsFile(self.addressOf(sector), post_pages)) return false;
        self.passed.set(sector);
        return true;
    }

    /// Maps sectors from `from` on for as long as the program keeps coming.
    fn follow(self: *Ahead, from: u64) void {
        var front = from;
        var mapped = from;
        var window: u64 = window_min;
        var stayed: u64 = 0;
        while (front < self.sectors and !self.isStopped()) {
            if (self.passed.contains(front)) {
                front += 1;
                continue;
            }
            if (self.passes(front)) {
                window = @min(2 * window, window_max);
                stayed = 0;
                continue;
            }
            mapped = @max(mapped, front);
            if (mapped < @min(front + window, self.sectors)) {
                if (!self.mapSector(mapped)) return;
                mapped += 1;
                continue;
            }
            if (stayed >= stay_ns_max or self.wait(step_ns)) return;
            stayed += step_ns;
        }
    }

    /// False when it is not cached, or the kernel does not do it (before 5.14).
    fn mapSector(self: *Ahead, sector: u64) bool {
        const address = self.addressOf(sector) + post_pages * page_size;
        const len = sector_len - post_pages * page_size;
        for (0..4) |part| if (!os.isResident(address + part * (len / 4 / page_size) * page_size, 1)) return false;
        return os.populateRead(address, len);
    }
};

/// A file of so many sectors in memory, mapped privately a page off a sector's beginning.
const Scene = struct {
    const count = 24;
    file: i32,
    range: []align(page_size) u8,
    run: PageRange,
    ahead: Ahead = .{},

    fn init() !Scene {
        const linux = std.os.linux;
        const file: i32 = @intCast(linux.memfd_create("base", 0));
        const len = count * sector_len;
        try std.testing.expectEqual(null, os.failed(linux.ftruncate(file, len)));
        const zeros = try os.allocatePages(sector_len);
        defer os.freePages(zeros);
        // The last sectors are holes, which no cache holds.
        for (0..count - 3) |sector| _ = linux.pwrite(file, zeros.ptr, sector_len, @intCast(sector * sector_len));
        const range = try os.allocatePages(len + 2 * sector_len);
        const first = (std.mem.alignForward(usize, @intFromPtr(range.ptr), sector_len) - @intFromPtr(range.ptr)) / page_size + 1;
        try os.mapFilePrivate(@intFromPtr(range.ptr) + first * page_size, len, file, 0);
        return .{ .file = file, .range = range, .run = .{ .first = first, .count = len / page_size } };
    }

    fn deinit(self: *Scene) void {
        self.ahead.pagemap.close();
        self.ahead.end();
        self.ahead.forget();
        os.freePages(self.range);
        _ = std.os.linux.close(self.file);
    }

    fn byte(self: *const Scene, sector: u64, page: u64) *volatile u8 {
        return @ptrFromInt(self.ahead.addressOf(sector) + page * page_size);
    }

    /// Whether pages are mapped that the program did not touch, and those of the post are not.
    fn isAhead(self: *const Scene, sector: u64) bool {
        const at = self.ahead.addressOf(sector);
        return !self.ahead.pagemap.mapsFile(at, post_pages) and self.ahead.pagemap.mapsFile(at + post_pages * page_size, 1) and
            self.ahead.pagemap.mapsFile(at + sector_len - page_size, 1);
    }

    fn isUntouched(self: *const Scene, sector: u64) bool {
        const at = self.ahead.addressOf(sector);
        for (0..sector_pages / post_pages) |part| {
            if (self.ahead.pagemap.mapsFile(at + part * post_pages * page_size, post_pages)) return false;
        }
        return true;
    }
};

test "pages are mapped ahead of who reads in order, as far as it keeps coming, and for nobody else" {
    const expect = std.testing.expect;
    var scene = try Scene.init();
    defer scene.deinit();
    const ahead = &scene.ahead;
    try expect(ahead.mark(@intFromPtr(scene.range.ptr), &.{scene.run}));
    try expect(ahead.sectors == Scene.count - 1);
    ahead.pagemap = .open();
    if (ahead.pagemap.method == .none) return error.SkipZigTest;

    // Here and there, in single sectors, or within one.
    for ([_]u64{ 2, 9, 15 }) |sector| _ = scene.byte(sector, 3).*;
    for (0..sector_pages) |page| _ = scene.byte(12, page).*;
    try std.testing.expectEqual(null, ahead.look());
    // Storing in order is not reading.
    for (17..20) |sector| for (0..sector_pages) |page| {
        scene.byte(sector, page).* = 1;
    };
    try std.testing.expectEqual(null, ahead.look());
    try expect(scene.isUntouched(3) and scene.isUntouched(10) and scene.isUntouched(13) and scene.isUntouched(16));

    for (4..6) |sector| for (0..sector_pages) |page| {
        _ = scene.byte(sector, page).*;
    };
    try std.testing.expectEqual(6, ahead.look().?);
    ahead.follow(6);
    try expect(scene.isAhead(6) and scene.isAhead(7) and scene.isUntouched(8));
    // It stayed: the same sectors tell nothing more.
    try std.testing.expectEqual(null, ahead.look());
    // It goes on, and twice as much is mapped. What was passed before is no end.
    for (6..8) |sector| for (0..sector_pages) |page| {
        _ = scene.byte(sector, page).*;
    };
    try std.testing.expectEqual(8, ahead.look().?);
    _ = scene.byte(8, 0).*;
    ahead.follow(8);
    try expect(scene.isAhead(10) and scene.isAhead(11) and scene.isAhead(13) and scene.isUntouched(14));
}

test "what no cache holds is not mapped ahead, and the thread ends whenever it is told" {
    const expect = std.testing.expect;
    var scene = try Scene.init();
    defer scene.deinit();
    const ahead = &scene.ahead;
    const address = @intFromPtr(scene.range.ptr);
    try expect(ahead.mark(address, &.{scene.run}));
    ahead.pagemap = .open();
    if (ahead.pagemap.method == .none) return error.SkipZigTest;
    for (17..20) |sector| _ = scene.byte(sector, 0).*;
    const front = ahead.look().?;
    ahead.follow(front);
    try expect(scene.isUntouched(21) and scene.isUntouched(22));

    ahead.pagemap.close();
    ahead.forget();
    for (0..50) |round| {
        ahead.start(address, &.{scene.run});
        try expect(ahead.thread != null);
        if (round % 2 == 0) for (0..10) |sector| for (0..sector_pages) |page| {
            std.mem.doNotOptimizeAway(scene.byte(sector, page).*);
        };
        ahead.end();
        try expect(ahead.thread == null and ahead.stretches.items.len == 0);
    }
    // Few pages, or in pieces: not worth a thread.
    ahead.start(address, &.{.{ .first = scene.run.first, .count = pages_min - 1 }});
    try expect(ahead.thread == null);
    ahead.start(address, &@as([24]PageRange, @splat(.{ .first = 0, .count = 1000 })));
    try expect(ahead.thread == null);
}
