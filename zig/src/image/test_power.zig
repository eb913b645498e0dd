//! Sessions of commits, folds and going back on a disk that fails, stops and loses power at random,
//! against a list of what was tried and what was acknowledged.

const std = @import("std");
const image_ = @import("image.zig");
const power = @import("power.zig");
const testing = @import("testing.zig");
const Heap = testing.Heap;
const Image = image_.Image;
const PowerDisk = power.PowerDisk;
const gpa = std.testing.allocator;

const pages = 40;

const Attempt = struct {
    epoch: u64,
    bytes: []u8,
    /// Index of the attempt that the heap stood on.
    parent: ?usize,
    /// It fell below the base when later epochs were the last.
    gone: bool = false,
};

const Violation = error{ Refused, Lost, Mixed, KeepLost };

const Run = struct {
    disk: PowerDisk,
    attempts: std.ArrayList(Attempt) = .empty,
    acknowledged: ?usize = null,
    keep: u32,
    standing: ?usize = null,
    value: u64 = 0,
    faults: bool = false,
    dying: bool = false,
    /// Most commits change nearly all pages.
    rewrites: bool = false,
    commits: usize = 0,
    crashes: usize = 0,

    fn deinit(self: *Run) void {
        for (self.attempts.items) |attempt| gpa.free(attempt.bytes);
        self.attempts.deinit(gpa);
        self.disk.deinit();
    }

    fn random(self: *Run) std.Random {
        return self.disk.prng.random();
    }

    fn options(self: *Run, mode: image_.Mode) image_.OpenOptions {
        return .{
            .disk = self.disk.disk(),
            .path = "a",
            .mode = mode,
            .keep = self.keep,
            .background = false,
            .base_pages_min = 8,
            .spare_len_min = 0,
            .sealed_len_min = if (self.keep == 2) 0 else 40_000,
        };
    }

    fn inTrouble(self: *Run) bool {
        return self.faults or self.disk.isDead();
    }

    fn session(self: *Run) !void {
        var heap = Heap.init(pages);
        defer heap.deinit();
        const choice = self.random().uintLessThan(u8, 4);
        if (choice == 0) self.disk.dies_at = self.disk.calls + self.random().uintLessThan(usize, 150);
        if (choice == 1) self.disk.fails_one_in = 30;
        self.faults = choice == 1;
        const fresh = self.acknowledged == null;
        const image = Image.open(self.options(.write)) catch |err| blk: {
            if (err == error.NOT_FOUND and fresh) {
                if (self.inTrouble()) return;
                break :blk Image.open(self.options(.create)) catch |second| {
                    if (self.inTrouble()) return;
                    return second;
                };
            }
            if (self.inTrouble()) return;
            testing.explain();
            return Violation.Refused;
        };
        defer image.close();
        if (image.head() == null) {
            try heap.join(image, null);
            self.standing = null;
        } else {
            if (!try self.adopt(&heap, image, null)) return;
            try self.checkKept(image);
        }
        for (0..1 + self.random().uintLessThan(usize, 10)) |_| {
            if (self.disk.isDead()) return;
            switch (self.random().uintLessThan(u8, 10)) {
                0 => _ = image.foldNow() catch |err| if (!self.inTrouble()) return err,
                1 => if (!try self.goBack(&heap, image)) return,
                else => try self.commit(&heap, image),
            }
        }
    }

    /// Takes the head's content, which must be the last acknowledged or a later attempt.
    fn adopt(self: *Run, heap: *Heap, image: *Image, epoch: ?u64) !bool {
        heap.restore(image, epoch) catch |err| {
            if (!self.inTrouble()) return err;
            return false;
        };
        const found = self.find(image_.History.epoch(&heap.history), heap.memory) orelse {
            std.debug.print("epoch {d} opens with content that was never committed\n", .{heap.history.epoch()});
            return Violation.Mixed;
        };
        if (epoch == null) {
            if (self.acknowledged) |last| if (found < last) {
                std.debug.print("opens at epoch {d}, acknowledged was {d}\n", .{ self.attempts.items[found].epoch, self.attempts.items[last].epoch });
                return Violation.Lost;
            };
            self.acknowledged = found;
        }
        self.standing = found;
        return true;
    }

    fn find(self: *Run, epoch: u64, bytes: []const u8) ?usize {
        var at = self.attempts.items.len;
        while (at > 0) {
            at -= 1;
            const attempt = &self.attempts.items[at];
            if (attempt.epoch == epoch and std.mem.eql(u8, attempt.bytes, bytes)) return at;
        }
        return null;
    }

    /// The last `keep` epochs of the line are there.
    fn checkKept(self: *Run, image: *Image) !void {
        const list = image.epochs(gpa) catch |err| return if (self.inTrouble()) {} else err;
        defer gpa.free(list);
        // A base whose directory sync failed is found here, but nobody was told of it.
        const last = self.acknowledged orelse return;
        if (image.head().?.epoch != self.attempts.items[last].epoch) return;
        var at = self.acknowledged;
        for (0..self.keep) |_| {
            const attempt = self.attempts.items[at orelse break];
            if (attempt.gone) break;
            for (list) |epoch| {
                if (epoch.epoch == attempt.epoch) break;
            } else {
                std.debug.print("epoch {d} within keep is gone\n", .{attempt.epoch});
                return Violation.KeepLost;
            }
            Heap.expectStored(image, attempt.epoch, attempt.bytes) catch |err| {
                if (self.inTrouble()) break;
                testing.explain();
                return err;
            };
            at = attempt.parent;
        }
        for (self.attempts.items) |*attempt| {
            for (list) |epoch| {
                if (epoch.epoch == attempt.epoch) break;
            } else attempt.gone = true;
        }
    }

    /// False when the heap could not be built and holds nothing any more.
    fn goBack(self: *Run, heap: *Heap, image: *Image) !bool {
        if (image.head() == null) return true;
        try self.checkKept(image);
        const list = image.epochs(gpa) catch |err| return if (self.inTrouble()) false else err;
        defer gpa.free(list);
        const epoch = list[self.random().uintLessThan(usize, list.len)].epoch;
        return self.adopt(heap, image, epoch);
    }

    fn commit(self: *Run, heap: *Heap, image: *Image) !void {
        const many = (self.random().uintLessThan(u8, 6) == 0) != self.rewrites;
        return self.commitPages(heap, image, if (many) 30 else 1 + self.random().uintLessThan(usize, 3));
    }

    fn rewrite(self: *Run, heap: *Heap, image: *Image) !void {
        return self.commitPages(heap, image, 200);
    }

    fn commitPages(self: *Run, heap: *Heap, image: *Image, touched: usize) !void {
        for (0..touched) |_| {
            self.value += 1;
            heap.touch(&.{image}, self.random().uintLessThan(u64, pages), self.value);
        }
        const attempt: Attempt = .{ .epoch = heap.history.epoch_max + 1, .bytes = try heap.copy(), .parent = self.standing };
        try self.attempts.append(gpa, attempt);
        const report = heap.commit(image, null) catch |err| {
            if (!self.inTrouble()) {
                testing.explain();
                return err;
            }
            return;
        };
        try std.testing.expectEqual(attempt.epoch, report.epoch);
        self.acknowledged = self.attempts.items.len - 1;
        self.standing = self.acknowledged;
        self.commits += 1;
    }

    /// Each session ends with the power or the process.
    fn run(self: *Run, sessions: usize) !void {
        for (0..sessions) |_| {
            try self.session();
            if (self.random().boolean()) {
                self.crashes += 1;
                self.disk.cut();
            } else self.disk.kill();
        }
    }
};

/// What the disk leaves out, to see that the checks notice.
const Planted = enum { none, no_sync, no_dir_sync };

fn tryRun(seed: u64, planted: Planted) !void {
    var run: Run = .{ .disk = .init(seed), .keep = @intCast(1 + seed % 3) };
    defer run.deinit();
    run.disk.no_sync = planted == .no_sync;
    run.disk.no_dir_sync = planted == .no_dir_sync;
    try run.run(25);
}

test "through failures, kills and power cuts the last acknowledged epoch and those within keep are found" {
    for (0..150) |seed| {
        tryRun(seed, .none) catch |err| {
            std.debug.print("seed {d}: {t}\n", .{ seed, err });
            return err;
        };
    }
}

test "a base that nobody reads any more is written over, and its power cuts are survived too" {
    var soles: usize = 0;
    for (1000..1020) |seed| {
        var run: Run = .{ .disk = .init(seed), .keep = @intCast(1 + seed % 2), .rewrites = true };
        defer run.deinit();
        try run.run(25);
        soles += run.disk.soles;
    }
    try std.testing.expect(soles > 200);
}

test "a base whose rename is not sure is not written over: any call fails, then the power at any later one" {
    var failing: usize = 0;
    var whole = false;
    while (!whole) : (failing += 1) {
        var dying: usize = 0;
        while (dying < 120) : (dying += 5) {
            var run: Run = .{ .disk = .init(failing * 1000 + dying), .keep = 1, .rewrites = true };
            defer run.deinit();
            var heap = Heap.init(pages);
            defer heap.deinit();
            const image = try Image.open(run.options(.create));
            defer image.close();
            try heap.join(image, null);
            for (0..3) |_| try run.rewrite(&heap, image);
            run.faults = true;
            run.disk.fails_at = run.disk.calls + failing;
            try run.rewrite(&heap, image);
            whole = run.disk.calls <= run.disk.fails_at;
            run.disk.dies_at = run.disk.calls + dying;
            try run.rewrite(&heap, image);
            run.faults = false;
            image.afterFork();
            run.disk.fails_at = std.math.maxInt(usize);
            run.disk.cut();
            var again = Heap.init(pages);
            defer again.deinit();
            const found = try Image.open(run.options(.write));
            defer found.close();
            if (!try run.adopt(&again, found, null)) return Violation.Refused;
        }
    }
}

test "a disk that forgets syncs is noticed" {
    for ([_]Planted{ .no_sync, .no_dir_sync }) |planted| {
        for (0..60) |seed| {
            tryRun(seed, planted) catch break;
        } else return error.TestUnexpectedResult;
    }
}
