//! What tells which pages may have changed since the last commit. A tracker gives supersets: the
//! image compares every page it is given with its checksum, so all trackers lead to the same bytes.
//!
//! `uffd` write-protects what a commit has seen and asks the kernel what was written since: the cost
//! follows what changed. `checksum` names all pages that the process ever wrote: the cost follows
//! the heap. A heap on `uffd` whose memory the kernel will not register falls back to `checksum`.
//!
//! Invariant: no page that differs from an image is missing from that image's pending set after
//! `collect`; where the system cannot tell, `compare_all` is set instead.

const std = @import("std");
const errors = @import("../errors.zig");
const pagemap = @import("../os/pagemap.zig");
const image_room = @import("../image/image.zig");
const os = @import("../os/os.zig");
const plant = @import("../plant.zig");
const Userfaultfd = @import("../os/userfaultfd.zig").Userfaultfd;
const Image = image_room.Image;
const PageRange = image_room.PageRange;
const fail = errors.fail;

pub const Wanted = enum { auto, uffd, checksum };

/// Numbers of the ABI.
pub const Kind = enum(u8) { uffd = 1, checksum = 2 };

pub const Tracker = struct {
    kind: Kind,
    pagemap: pagemap.Pagemap,
    uffd: Userfaultfd = .{},
    /// The range that is registered: from the first commit on, since registered memory is read in
    /// one page at a time.
    start: usize = 0,
    len: usize = 0,
    /// Nothing can be told, for all pages are a file's: everything is compared.
    blind: bool = false,
    /// No part of the heap is a map of a file: what was written is told in one quick pass.
    anonymous: bool = false,
    /// Less than half of what is in use was ever touched. The quick pass would protect the rest, too,
    /// for which the kernel needs page tables: 2 MiB a GiB.
    sparse: bool = false,
    /// Pages in use when that was looked at.
    judged_pages: u64 = 0,
    /// The last commit left no page protected, so the next one is told all of them.
    open: bool = false,
    /// Most pages changed for the last commit; and after the last one of which that was so, many changed again.
    most_changed: bool = false,
    many_follow: bool = false,

    const judged_step_pages = 64 * 1024;
    /// Of smaller heaps it does not matter; in a larger one a small commit would take too long.
    const open_pages_min = 256;
    const open_pages_max = 64 * 1024;

    pub fn init(wanted: Wanted) errors.Error!Tracker {
        var self: Tracker = .{ .kind = .checksum, .pagemap = .open() };
        if (wanted == .checksum) return self;
        if (self.pagemap.method == .scan) if (Userfaultfd.open()) |uffd| {
            self.uffd = uffd;
            self.kind = .uffd;
            if (self.works()) return self;
            self.degrade();
        };
        if (wanted == .auto) return self;
        self.deinit();
        return fail(.UNSUPPORTED, .{}, "Cannot track pages with userfaultfd: it takes Linux 6.7 and a sandbox that " ++
            "allows it; leave `tracker` out or set it to \"checksum\"", .{});
    }

    pub fn deinit(self: *Tracker) void {
        self.uffd.close();
        self.pagemap.close();
    }

    /// Whether write tracking does here what it should: one page written, one page told.
    fn works(self: *Tracker) bool {
        const pages = os.allocatePages(4 * os.page_size) catch return false;
        defer os.freePages(pages);
        os.adviseHeap(@intFromPtr(pages.ptr), pages.len);
        const start = @intFromPtr(pages.ptr);
        const end = start + pages.len;
        if (!self.uffd.register(start, pages.len)) return false;
        const Count = struct {
            pages: usize = 0,
            last: usize = 0,
            fn add(count: *@This(), range: pagemap.Range) void {
                count.pages += (range.end - range.start) / os.page_size;
                count.last = range.start;
            }
        };
        const at: *volatile [4 * os.page_size]u8 = @ptrCast(pages.ptr);
        at[0] = 1;
        at[os.page_size] = 1;
        var first: Count = .{};
        if (!self.pagemap.writtenPages(start, end, &first, Count.add) or first.pages != 2) return false;
        at[os.page_size] = 2;
        var second: Count = .{};
        if (!self.pagemap.writtenPages(start, end, &second, Count.add)) return false;
        return second.pages == 1 and second.last == start + os.page_size;
    }

    /// Adds the pages of `used` that the process wrote to the pending set of each open image.
    /// `address` is where page 0 lies, `usable` how many bytes from there are mapped. Called while
    /// the heap is held still.
    pub fn collect(self: *Tracker, address: usize, usable: usize, used: []const PageRange, images: [2]?*Image) void {
        if (self.blind) {
            for (images) |image| if (image) |im| {
                im.compare_all = true;
            };
            return;
        }
        if (self.kind == .uffd and self.len == 0) {
            // Large pages that are there stay until they are written to, which splits them; no new ones.
            if (self.anonymous) os.adviseHeap(address, usable);
            self.start = address;
            self.len = usable;
            if (!self.uffd.register(address, usable)) self.degrade();
        }
        if (self.kind == .uffd and self.anonymous) self.judge(address, used);
        const Sink = struct {
            address: usize,
            images: [2]?*Image,

            fn add(sink: @This(), range: pagemap.Range) void {
                const first = (range.start - sink.address) / os.page_size;
                const count = (range.end - range.start) / os.page_size;
                for (sink.images) |image| if (image) |im| {
                    im.pending.setRange(first, count);
                    if (plant.is(.r11_one_image_told)) break;
                };
            }
        };
        const sink: Sink = .{ .address = address, .images = images };
        var told = true;
        for (used) |range| {
            const start = address + range.first * os.page_size;
            const end = start + range.count * os.page_size;
            const complete = switch (self.kind) {
                .uffd => if (self.anonymous and !self.sparse)
                    self.pagemap.writtenAnonymous(start, end, sink, Sink.add)
                else
                    self.pagemap.writtenPages(start, end, sink, Sink.add),
                .checksum => self.pagemap.privatePages(start, end, sink, Sink.add),
            };
            told = told and complete;
        }
        if (told) return;
        // A scan that failed may have protected again what it did not report (R13).
        for (images) |image| if (image) |im| {
            if (plant.is(.r13_failed_scan_trusted)) break;
            im.compare_all = true;
        };
    }

    /// Memory of the heap was mapped anew (grown, or given back): it must be registered before
    /// anybody writes to it. Called by the allocator, so never beside `collect`.
    pub fn mapped(self: *Tracker, address: usize, len: usize) void {
        if (self.kind != .uffd or self.len == 0) return;
        self.len = @max(self.len, address + len - self.start);
        if (!self.uffd.register(address, len)) self.degrade();
    }

    /// Whether the kernel watches the heap's pages: from the first commit on.
    pub fn watches(self: *const Tracker) bool {
        return self.len > 0;
    }

    /// Lets go of the heap's memory, which is about to be replaced or moved; the next commit
    /// registers what stands there then.
    pub fn release(self: *Tracker) void {
        if (self.len > 0) self.uffd.unregister(self.start, self.len);
        self.len = 0;
        self.anonymous = false;
        self.sparse = false;
        self.judged_pages = 0;
        self.open = false;
        self.most_changed = false;
    }

    /// Whether many pages are told that did not change.
    pub fn tellsTooMany(self: *const Tracker) bool {
        return self.kind == .checksum or self.open;
    }

    /// After `collect`, when it is known how many pages did change. A first write to a protected page takes
    /// as long as comparing four: where most pages changed, and many are likely to change again, none are
    /// left protected. Superset of what was written either way.
    pub fn foresee(self: *Tracker, address: usize, used: []const PageRange, changed: u64) void {
        self.open = false;
        if (self.kind != .uffd or self.len == 0) return;
        var total: u64 = 0;
        for (used) |range| total += range.count;
        if (self.most_changed) self.many_follow = changed > total / 3;
        self.most_changed = changed > total / 2;
        if (!self.most_changed or !self.many_follow or total < open_pages_min or total > open_pages_max) return;
        for (used) |range| {
            if (!self.uffd.unprotect(address + range.first * os.page_size, range.count * os.page_size)) return;
        }
        self.open = true;
    }

    /// Looks again whenever so much more is in use.
    fn judge(self: *Tracker, address: usize, used: []const PageRange) void {
        var total: u64 = 0;
        for (used) |range| total += range.count;
        if (self.judged_pages > 0 and total <= self.judged_pages + judged_step_pages) return;
        self.judged_pages = total;
        var touched: u64 = 0;
        for (used) |range| {
            const start = address + range.first * os.page_size;
            const told = self.pagemap.privatePages(start, start + range.count * os.page_size, &touched, struct {
                fn add(sum: *u64, found: pagemap.Range) void {
                    sum.* += (found.end - found.start) / os.page_size;
                }
            }.add);
            if (!told) return;
        }
        self.sparse = touched < total / 2;
    }

    /// What was written is found by comparing from now on: private pages stay private.
    fn degrade(self: *Tracker) void {
        self.release();
        self.uffd.close();
        self.kind = .checksum;
    }
};

test "of large pages that stood before the first commit one store is told as one page, and no new ones come" {
    var tracker: Tracker = try .init(.auto);
    defer tracker.deinit();
    if (tracker.kind != .uffd) return error.SkipZigTest;
    const large = os.huge_page_size;
    const memory = try os.allocatePages(5 * large);
    defer os.freePages(memory);
    const start = std.mem.alignForward(usize, @intFromPtr(memory.ptr), large);
    const bytes = @as([*]u8, @ptrFromInt(start))[0 .. 4 * large];
    os.adviseHuge(start, bytes.len);
    @memset(bytes[0 .. 2 * large], 1);
    bytes[2 * large] = 1;
    tracker.anonymous = true;
    const Sum = struct {
        pages: usize = 0,
        last: usize = 0,
        fn add(to: *@This(), range: pagemap.Range) void {
            to.pages += (range.end - range.start) / os.page_size;
            to.last = range.end - os.page_size;
        }
    };
    // The last one is not in use yet, so that no scan makes page tables of it.
    const used = [_]PageRange{.{ .first = 0, .count = 3 * large / os.page_size }};
    tracker.collect(start, bytes.len, &used, .{ null, null });
    for ([_]usize{ 3 * large + 9 * os.page_size, 3 * os.page_size, large + 7 * os.page_size, 5 * os.page_size, 2 * large + os.page_size }) |at| {
        bytes[at] = 2;
        var told: Sum = .{};
        try std.testing.expect(tracker.pagemap.writtenPages(start, start + bytes.len, &told, Sum.add));
        try std.testing.expectEqual(Sum{ .pages = 1, .last = start + at }, told);
    }
    var none: Sum = .{};
    try std.testing.expect(tracker.pagemap.writtenPages(start, start + bytes.len, &none, Sum.add));
    try std.testing.expectEqual(Sum{}, none);
}

test "pages that are left unprotected are all told, once; who lets go of the memory knows nothing of them" {
    var tracker: Tracker = try .init(.auto);
    defer tracker.deinit();
    if (tracker.kind != .uffd) return error.SkipZigTest;
    const count = 512;
    const memory = try os.allocatePages(count * os.page_size);
    defer os.freePages(memory);
    os.adviseHeap(@intFromPtr(memory.ptr), memory.len);
    @memset(memory, 1);
    const address = @intFromPtr(memory.ptr);
    const used = [_]PageRange{.{ .first = 0, .count = count }};
    const Told = struct {
        fn pages(of: *Tracker, bytes: []u8) !usize {
            var sum: usize = 0;
            const start = @intFromPtr(bytes.ptr);
            try std.testing.expect(of.pagemap.writtenPages(start, start + bytes.len, &sum, struct {
                fn add(to: *usize, range: pagemap.Range) void {
                    to.* += (range.end - range.start) / os.page_size;
                }
            }.add));
            return sum;
        }
    };
    tracker.collect(address, memory.len, &used, .{ null, null });
    for (0..3) |round| {
        _ = try Told.pages(&tracker, memory);
        memory[7 * os.page_size] +%= 1;
        try std.testing.expectEqual(@as(usize, 1), try Told.pages(&tracker, memory));
        // Most changed, twice.
        tracker.foresee(address, &used, count);
        try std.testing.expectEqual(round == 1, tracker.tellsTooMany());
        if (round == 0) try std.testing.expectEqual(@as(usize, 0), try Told.pages(&tracker, memory));
        tracker.foresee(address, &used, count);
        try std.testing.expect(tracker.tellsTooMany());
        try std.testing.expectEqual(@as(usize, count), try Told.pages(&tracker, memory));
        memory[9 * os.page_size] +%= 1;
        try std.testing.expectEqual(@as(usize, 1), try Told.pages(&tracker, memory));
        switch (round) {
            // Few change, and all stay protected.
            0 => {
                tracker.foresee(address, &used, 1);
                try std.testing.expect(!tracker.tellsTooMany());
                tracker.foresee(address, &used, count);
            },
            1 => {
                tracker.release();
                try std.testing.expect(!tracker.tellsTooMany() and !tracker.most_changed);
                tracker.collect(address, memory.len, &used, .{ null, null });
                tracker.many_follow = false;
            },
            else => {
                // Memory that cannot be registered: all that was ever written is told from now on.
                tracker.mapped(address + (1 << 46), os.page_size);
                try std.testing.expect(tracker.kind == .checksum and !tracker.open and tracker.len == 0);
                tracker.foresee(address, &used, count);
                try std.testing.expect(!tracker.open);
            },
        }
    }
    var other: Tracker = try .init(.uffd);
    defer other.deinit();
    const few = [_]PageRange{.{ .first = 0, .count = 100 }};
    other.collect(address, memory.len, &few, .{ null, null });
    for (0..3) |_| other.foresee(address, &few, 100);
    try std.testing.expect(!other.tellsTooMany());
}
