//! Which pages of a range are the process's own copies: what /proc/self/pagemap knows. A page that
//! still is the file's, or the kernel's shared zero page, was not written.

const std = @import("std");
const os = @import("os.zig");
const Userfaultfd = @import("userfaultfd.zig").Userfaultfd;
const linux = std.os.linux;
const plant = @import("../plant.zig");

pub const Range = struct { start: usize, end: usize };

/// How private pages are found here, best first.
pub const Method = enum {
    /// ioctl PAGEMAP_SCAN, Linux 6.7 and later: the kernel skips what has no page tables.
    scan,
    /// Eight bytes a page, read from the pagemap.
    read,
    /// No pagemap: every page counts as private.
    none,
};

const page_is_written = 1 << 1;
const page_is_file = 1 << 2;
const page_is_present = 1 << 3;
const page_is_swapped = 1 << 4;
const page_is_pfnzero = 1 << 5;

const PageRegion = extern struct { start: u64, end: u64, categories: u64 };

const ScanArg = extern struct {
    size: u64 = @sizeOf(ScanArg),
    flags: u64 = 0,
    start: u64,
    end: u64,
    walk_end: u64 = 0,
    vec: u64,
    vec_len: u64,
    max_pages: u64 = 0,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
};

const pagemap_scan = 0xc060_6610;
const scan_wp_matching = 1 << 0;
const scan_check_wpasync = 1 << 1;

comptime {
    std.debug.assert(@sizeOf(ScanArg) == 96);
}

/// Of a simulation: answers a scan in the kernel's place.
pub const Script = *const fn (start: usize, end: usize, context: *anyopaque, visit: *const fn (*anyopaque, Range) void) bool;
pub var script: if (plant.enabled) ?Script else void = if (plant.enabled) null;

pub const Pagemap = struct {
    fd: i32 = -1,
    method: Method = .none,

    pub fn open() Pagemap {
        const fd = linux.open("/proc/self/pagemap", .{ .ACCMODE = .RDONLY, .CLOEXEC = true }, 0);
        if (os.failed(fd) != null) return .{};
        var self: Pagemap = .{ .fd = @intCast(fd), .method = .scan };
        var probe: u8 align(os.page_size) = 1;
        std.mem.doNotOptimizeAway(&probe);
        const at = @intFromPtr(&probe) & ~@as(usize, os.page_size - 1);
        var one: [1]PageRegion = undefined;
        const n = self.scan(at, at + os.page_size, .private, &one, null);
        if (n == null) self.method = .read;
        return self;
    }

    pub fn close(self: *Pagemap) void {
        if (self.fd >= 0) _ = linux.close(self.fd);
        self.* = .{};
    }

    /// Calls `visit(context, range)` for runs of private pages in `[start, end)`, ascending.
    /// False when the kernel would not tell: the caller must take every page for private.
    pub fn privatePages(
        self: *Pagemap,
        start: usize,
        end: usize,
        context: anytype,
        comptime visit: fn (@TypeOf(context), Range) void,
    ) bool {
        return switch (self.method) {
            .scan => self.visitScan(start, end, .private, context, visit),
            .read => self.visitRead(start, end, context, visit),
            .none => false,
        };
    }

    /// The same for pages written since the last call, in a range registered with userfaultfd; they
    /// are protected again in the same step. False: some may have been without being told.
    pub fn writtenPages(
        self: *Pagemap,
        start: usize,
        end: usize,
        context: anytype,
        comptime visit: fn (@TypeOf(context), Range) void,
    ) bool {
        if (plant.enabled) if (script) |answer| {
            var passed = context;
            return answer(start, end, @ptrCast(&passed), struct {
                fn call(erased: *anyopaque, range: Range) void {
                    const own: *@TypeOf(context) = @ptrCast(@alignCast(erased));
                    visit(own.*, range);
                }
            }.call);
        };
        if (self.method != .scan) return false;
        var regions: [512]PageRegion = undefined;
        var at = start;
        while (at < end) {
            var walk_end: usize = end;
            const n = self.scan(at, end, .unprotected, &regions, &walk_end) orelse return false;
            var first: usize = 0;
            for (regions[0..n], 1..) |region, next| {
                if (next < n and regions[next].start - region.end <= joined_gap) continue;
                const told = self.visitScan(regions[first].start, region.end, .written, context, visit);
                if (!told) return false;
                first = next;
            }
            if (walk_end <= at) return false;
            at = walk_end;
        }
        return true;
    }

    /// The same where all of the range is anonymous memory: one pass, which the kernel does quickly.
    /// Pages that were only read since they were touched first may be told, too.
    pub fn writtenAnonymous(
        self: *Pagemap,
        start: usize,
        end: usize,
        context: anytype,
        comptime visit: fn (@TypeOf(context), Range) void,
    ) bool {
        if (self.method != .scan) return false;
        return self.visitScan(start, end, .taken, context, visit);
    }

    const Wish = enum {
        private,
        /// Private and written since it was protected; protected again.
        written,
        /// Not write-protected, whatever it is. The kernel looks at nothing but the page table entry
        /// (3 ns a page instead of 25) when exactly this is asked: what is not told needs no `written`.
        unprotected,
        /// The same, protected again.
        taken,
    };

    /// Two calls cost about as much as `written` spends on this many bytes of heap.
    const joined_gap = 32 * os.page_size;

    fn scan(self: *Pagemap, start: usize, end: usize, wish: Wish, regions: []PageRegion, walk_end: ?*usize) ?usize {
        var arg: ScanArg = .{
            .flags = switch (wish) {
                .private => 0,
                .written, .taken => scan_wp_matching | scan_check_wpasync,
                .unprotected => scan_check_wpasync,
            },
            .start = start,
            .end = end,
            .vec = @intFromPtr(regions.ptr),
            .vec_len = regions.len,
            .category_inverted = page_is_file | page_is_pfnzero,
            .category_mask = page_is_file | page_is_pfnzero | page_is_written,
            .category_anyof_mask = page_is_present | page_is_swapped,
            .return_mask = page_is_present | page_is_swapped,
        };
        switch (wish) {
            .private => arg.category_mask &= ~@as(u64, page_is_written),
            .written => {},
            .unprotected, .taken => {
                arg.category_inverted = 0;
                arg.category_mask = page_is_written;
                arg.category_anyof_mask = 0;
                arg.return_mask = page_is_written;
            },
        }
        const n = linux.ioctl(self.fd, pagemap_scan, @intFromPtr(&arg));
        if (os.failed(n) != null) return null;
        if (walk_end) |out| out.* = arg.walk_end;
        return n;
    }

    fn visitScan(
        self: *Pagemap,
        start: usize,
        end: usize,
        wish: Wish,
        context: anytype,
        comptime visit: fn (@TypeOf(context), Range) void,
    ) bool {
        var regions: [512]PageRegion = undefined;
        var at = start;
        while (at < end) {
            var walk_end: usize = end;
            const n = self.scan(at, end, wish, &regions, &walk_end) orelse return false;
            for (regions[0..n]) |r| visit(context, .{ .start = r.start, .end = r.end });
            if (walk_end <= at) return false;
            at = walk_end;
        }
        return true;
    }

    /// Whether one of these pages, at most 16, is mapped and the file's: it was read, or one beside it.
    /// False where the kernel does not tell.
    pub fn mapsFile(self: *const Pagemap, address: usize, pages: usize) bool {
        var entries: [16]u64 = undefined;
        const len = pages * @sizeOf(u64);
        const n = linux.pread(self.fd, @ptrCast(&entries), len, @intCast(address / os.page_size * @sizeOf(u64)));
        if (os.failed(n) != null or n != len) return false;
        for (entries[0..pages]) |entry| if (entry & present_bit != 0 and entry & file_bit != 0) return true;
        return false;
    }

    const file_bit = 1 << 61;
    const present_bit = 1 << 63;

    fn visitRead(
        self: *Pagemap,
        start: usize,
        end: usize,
        context: anytype,
        comptime visit: fn (@TypeOf(context), Range) void,
    ) bool {
        const swapped_or_present = 3 << 62;
        var entries: [4096]u64 = undefined;
        var at = start;
        while (at < end) {
            // The type is named, for that of @min is as narrow as its bound: eight times as many would not fit.
            const pages: usize = @min((end - at) / os.page_size, entries.len);
            const offset = at / os.page_size * @sizeOf(u64);
            const n = linux.pread(self.fd, @ptrCast(&entries), pages * @sizeOf(u64), @intCast(offset));
            if (os.failed(n)) |errno| {
                if (errno == @intFromEnum(os.E.INTR)) continue;
                return false;
            }
            if (n < @sizeOf(u64)) return false;
            const got = n / @sizeOf(u64);
            var run_start: ?usize = null;
            for (entries[0..got], 0..) |entry, i| {
                const private = entry & swapped_or_present != 0 and entry & file_bit == 0;
                const address = at + i * os.page_size;
                if (private and run_start == null) run_start = address;
                if (!private) if (run_start) |from| {
                    visit(context, .{ .start = from, .end = address });
                    run_start = null;
                };
            }
            at += got * os.page_size;
            if (run_start) |from| visit(context, .{ .start = from, .end = at });
        }
        return true;
    }
};

test "written pages are private, untouched ones are not, by both methods" {
    const pages = try os.allocatePages(64 * os.page_size);
    defer os.freePages(pages);
    _ = os.advise(@intFromPtr(pages.ptr), pages.len, linux.MADV.NOHUGEPAGE);
    std.mem.doNotOptimizeAway(pages[5 * os.page_size]);
    for ([_]usize{ 3, 4, 40 }) |page| pages[page * os.page_size] = 1;

    const Sum = struct {
        base: usize,
        mask: u64 = 0,
        fn visit(self: *@This(), range: Range) void {
            var at = range.start;
            while (at < range.end) : (at += os.page_size) {
                self.mask |= @as(u64, 1) << @intCast((at - self.base) / os.page_size);
            }
        }
    };
    var map = Pagemap.open();
    defer map.close();
    if (map.method == .none) return error.SkipZigTest;
    const base = @intFromPtr(pages.ptr);
    for ([_]Method{ map.method, .read }) |method| {
        map.method = method;
        var sum: Sum = .{ .base = base };
        try std.testing.expect(map.privatePages(base, base + pages.len, &sum, Sum.visit));
        const written: u64 = 1 << 3 | 1 << 4 | 1 << 40;
        // The pagemap read does not tell the shared zero page (5) from a private one.
        try std.testing.expectEqual(written, sum.mask & ~@as(u64, 1 << 5));
        if (method == .scan) try std.testing.expectEqual(written, sum.mask);
    }
}

test "a range of more pages than one read of the pagemap tells is told whole, whatever its length" {
    var map = Pagemap.open();
    defer map.close();
    if (map.method == .none) return error.SkipZigTest;
    map.method = .read;
    const count = 9000;
    const pages = try os.allocatePages(count * os.page_size);
    defer os.freePages(pages);
    _ = os.advise(@intFromPtr(pages.ptr), pages.len, linux.MADV.NOHUGEPAGE);
    const written = [_]usize{ 0, 1023, 1024, 4095, 4096, 8191, 8999 };
    for (written) |page| pages[page * os.page_size] = 1;
    const base = @intFromPtr(pages.ptr);
    for ([_]usize{ 1, 1023, 1024, 1025, 4096, 4097, 8193, count }) |len| {
        var told: usize = 0;
        try std.testing.expect(map.privatePages(base, base + len * os.page_size, &told, struct {
            fn add(sum: *usize, range: Range) void {
                sum.* += (range.end - range.start) / os.page_size;
            }
        }.add));
        var expected: usize = 0;
        for (written) |page| expected += @intFromBool(page < len);
        try std.testing.expectEqual(expected, told);
    }
}

test "writtenAnonymous() loses nothing that was written, and tells nothing twice" {
    var map = Pagemap.open();
    defer map.close();
    var uffd = Userfaultfd.open() orelse return error.SkipZigTest;
    defer uffd.close();
    if (map.method != .scan) return error.SkipZigTest;
    const count = 2048;
    const pages = try os.allocatePages(count * os.page_size);
    defer os.freePages(pages);
    const base = @intFromPtr(pages.ptr);
    const memory: [*]volatile u8 = pages.ptr;
    _ = os.advise(base, pages.len, linux.MADV.NOHUGEPAGE);
    try std.testing.expect(uffd.register(base, pages.len));
    const Set = std.StaticBitSet(count);
    const Sink = struct {
        base: usize,
        told: Set = .initEmpty(),
        fn visit(self: *@This(), range: Range) void {
            const first = (range.start - self.base) / os.page_size;
            for (first..first + (range.end - range.start) / os.page_size) |page| self.told.set(page);
        }
    };
    var random = std.Random.DefaultPrng.init(5);
    for (0..40) |round| {
        var touched: Set = .initEmpty();
        var written: Set = .initEmpty();
        for (0..([_]usize{ 0, 1, 50, 1500 })[round % 4]) |_| {
            const page = random.random().uintLessThan(usize, count);
            touched.set(page);
            if (random.random().boolean()) _ = memory[page * os.page_size] else {
                memory[page * os.page_size] +%= 1;
                written.set(page);
            }
        }
        var sink: Sink = .{ .base = base };
        try std.testing.expect(map.writtenAnonymous(base, base + pages.len, &sink, Sink.visit));
        try std.testing.expect(written.subsetOf(sink.told));
        if (round > 0) try std.testing.expect(sink.told.subsetOf(touched));
    }
}

test "writtenPages() tells what was written and nothing else, scattered or dense, among pages of a file" {
    var map = Pagemap.open();
    defer map.close();
    var uffd = Userfaultfd.open() orelse return error.SkipZigTest;
    defer uffd.close();
    if (map.method != .scan) return error.SkipZigTest;

    const count = 4096;
    const pages = try os.allocatePages(count * os.page_size);
    defer os.freePages(pages);
    const base = @intFromPtr(pages.ptr);
    const memory: [*]volatile u8 = pages.ptr;
    // A quarter is a private map of this program's own file, a quarter is never touched.
    const file = linux.open("/proc/self/exe", .{ .ACCMODE = .RDONLY, .CLOEXEC = true }, 0);
    try std.testing.expect(os.failed(file) == null);
    defer _ = linux.close(@intCast(file));
    const map_len = count / 4 * os.page_size;
    const flags: linux.MAP = .{ .TYPE = .PRIVATE, .FIXED = true };
    const mapped = linux.mmap(pages.ptr, map_len, .{ .READ = true, .WRITE = true }, flags, @intCast(file), 0);
    try std.testing.expectEqual(base, mapped);
    _ = os.advise(base, pages.len, linux.MADV.NOHUGEPAGE);
    try std.testing.expect(uffd.register(base, pages.len));
    var stat: linux.Statx = undefined;
    try std.testing.expect(os.failed(linux.statx(@intCast(file), "", linux.AT.EMPTY_PATH, .{ .SIZE = true }, &stat)) == null);
    const of_file = @min(count / 4, stat.size / os.page_size);

    const Set = std.StaticBitSet(count);
    const Sink = struct {
        base: usize,
        told: Set = .initEmpty(),
        fn visit(self: *@This(), range: Range) void {
            const first = (range.start - self.base) / os.page_size;
            for (first..first + (range.end - range.start) / os.page_size) |page| self.told.set(page);
        }
    };
    var random = std.Random.DefaultPrng.init(11);
    for (0..60) |round| {
        var written: Set = .initEmpty();
        const writes = ([_]usize{ 0, 3, 40, 400, 3000 })[round % 5];
        for (0..writes) |_| {
            const page = random.random().uintLessThan(usize, count * 3 / 4);
            if (page >= of_file and page < count / 4) continue; // beyond the end of the file
            if (random.random().boolean()) _ = memory[page * os.page_size] else {
                memory[page * os.page_size] +%= 1;
                written.set(page);
            }
        }
        var sink: Sink = .{ .base = base };
        try std.testing.expect(map.writtenPages(base, base + pages.len, &sink, Sink.visit));
        try std.testing.expect(sink.told.eql(written));
    }
}
