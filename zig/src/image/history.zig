//! Where a heap stands among its commits. A line is a stretch of commits in a row made by one
//! session; each session's first commit, and each commit after a restore, begins a new one (R12). So
//! a head is found by its line and epoch, and who descends from whom is told by lines alone, however
//! many images the commits went to.
//!
//! Invariant: within a line epochs only grow, and an epoch number is never given twice in a process,
//! whether its commit succeeded or not.

const os = @import("../os/os.zig");
const std = @import("std");
const format = @import("format.zig");
const plant = @import("../plant.zig");
const Line = format.Line;

/// A commit as a point in a heap's history.
pub const Head = struct {
    heap: [16]u8,
    line: u64,
    epoch: u64,
    commit: format.CommitId,

    pub fn eql(self: Head, other: Head) bool {
        return std.meta.eql(self, other);
    }
};

pub const Relation = enum {
    same,
    /// The second descends from the first.
    ancestor,
    /// The first descends from the second.
    descendant,
    /// One heap, but neither descends from the other, or what joins them is no longer known.
    diverged,
    /// Another heap.
    foreign,
};

/// Lines by age: a line's parent, when known, stands before it.
pub const Lines = struct {
    list: std.ArrayList(Line) = .empty,

    const allocator = os.page_allocator;

    pub fn deinit(self: *Lines) void {
        self.list.deinit(allocator);
        self.* = .{};
    }

    pub fn find(self: *const Lines, id: u64) ?Line {
        var at = self.list.items.len;
        while (at > 0) {
            at -= 1;
            if (self.list.items[at].id == id) return self.list.items[at];
        }
        return null;
    }

    pub fn add(self: *Lines, line: Line) error{OutOfMemory}!void {
        if (self.find(line.id) != null) return;
        try self.list.append(allocator, line);
        const excess = self.list.items.len -| format.lines_max;
        if (excess == 0) return;
        std.mem.copyForwards(Line, self.list.items, self.list.items[excess..]);
        self.list.shrinkRetainingCapacity(format.lines_max);
    }

    pub fn addAll(self: *Lines, lines: []const Line) error{OutOfMemory}!void {
        for (lines, 0..) |line, index| {
            // Files of one heap mostly carry the same list.
            const same = index < self.list.items.len and self.list.items[index].id == line.id;
            if (!same) try self.add(line);
        }
    }

    pub fn slice(self: *const Lines) []const Line {
        return self.list.items;
    }

    /// Whether the commit at `epoch` of `line` lies on the way back from `from`.
    fn descends(self: *const Lines, from: Head, line: u64, epoch: u64) bool {
        var at_line = from.line;
        var at_epoch = from.epoch;
        var steps: usize = 0;
        while (steps <= format.lines_max) : (steps += 1) {
            if (at_line == line) return epoch <= at_epoch;
            const known = self.find(at_line) orelse return false;
            if (known.parent == 0) return false;
            at_line = known.parent;
            at_epoch = known.fork_epoch;
        }
        return false;
    }
};

/// How `a` stands to `b`, by the lines of both.
pub fn relate(a: Head, a_lines: *const Lines, b: Head, b_lines: *const Lines) Relation {
    if (!std.mem.eql(u8, &a.heap, &b.heap)) return .foreign;
    if (a.commit == b.commit) return .same;
    if (plant.is(.r12_newest_by_number)) return if (a.epoch < b.epoch) .ancestor else .descendant;
    if (b_lines.descends(b, a.line, a.epoch)) return .ancestor;
    if (a_lines.descends(a, b.line, b.epoch)) return .descendant;
    return .diverged;
}

/// One to a heap; its images share it.
pub const History = struct {
    /// The commit that the heap came from or last made; null before the first.
    current: ?Head = null,
    epoch_max: u64 = 0,
    lines: Lines = .{},
    /// The line that this session's commits are on since the heap was last taken from an image.
    line: u64 = 0,
    line_begun: bool = false,
    /// An image was closed with pages pending: nobody knows what changed since `current` any more.
    stray: bool = false,

    pub fn deinit(self: *History) void {
        self.lines.deinit();
        self.* = .{};
    }

    pub fn epoch(self: *const History) u64 {
        return if (self.current) |head| head.epoch else 0;
    }

    /// The heap now is the commit `head`, of an image that knows `lines`.
    pub fn adopt(self: *History, head: Head, lines: *const Lines, epoch_max: u64) error{OutOfMemory}!void {
        // Without a commit that succeeded, those that failed still used their numbers up.
        const same_heap = if (self.current) |old| std.mem.eql(u8, &old.heap, &head.heap) else true;
        if (!same_heap) self.lines.list.clearRetainingCapacity();
        if (!same_heap) self.epoch_max = 0;
        try self.lines.addAll(lines.slice());
        self.epoch_max = @max(self.epoch_max, epoch_max, head.epoch);
        self.current = head;
        self.line_begun = false;
        self.stray = false;
    }

    /// Another image of the heap was opened: its numbers are taken, its lines known.
    pub fn meet(self: *History, head: Head, lines: *const Lines, epoch_max: u64) error{OutOfMemory}!void {
        const current = self.current orelse return;
        if (!std.mem.eql(u8, &current.heap, &head.heap)) return;
        try self.lines.addAll(lines.slice());
        self.epoch_max = @max(self.epoch_max, epoch_max);
    }

    /// The head of the next commit; its line begins when it is the first of this stretch.
    pub fn next(self: *History, heap: [16]u8, commit: format.CommitId, fresh_line: u64) error{OutOfMemory}!Head {
        if (!self.line_begun) {
            try self.lines.add(.{
                .id = fresh_line,
                .parent = if (self.current) |head| head.line else 0,
                .fork_epoch = self.epoch(),
            });
            self.line = fresh_line;
            self.line_begun = true;
        }
        self.epoch_max += 1;
        return .{ .heap = heap, .line = self.line, .epoch = self.epoch_max, .commit = commit };
    }
};

test "heads are related by lines, not by the size of their numbers" {
    var history: History = .{};
    defer history.deinit();
    const heap: [16]u8 = @splat(7);
    const first = try history.next(heap, 1, 100);
    history.current = first;
    const second = try history.next(heap, 2, 101);
    history.current = second;
    try std.testing.expectEqual(first.line, second.line);

    var other: History = .{};
    defer other.deinit();
    try other.adopt(first, &history.lines, first.epoch);
    const branch = try other.next(heap, 3, 200);
    other.current = branch;
    const later = try other.next(heap, 4, 201);

    try std.testing.expectEqual(Relation.ancestor, relate(first, &history.lines, second, &history.lines));
    try std.testing.expectEqual(Relation.descendant, relate(later, &other.lines, first, &history.lines));
    try std.testing.expectEqual(Relation.diverged, relate(second, &history.lines, later, &other.lines));
    try std.testing.expectEqual(Relation.same, relate(later, &other.lines, later, &history.lines));
    var stranger = later;
    stranger.heap[0] += 1;
    try std.testing.expectEqual(Relation.foreign, relate(stranger, &other.lines, later, &other.lines));
}

test "a line that fell out of the newest 4,096 is no ancestor" {
    var history: History = .{};
    defer history.deinit();
    const heap: [16]u8 = @splat(7);
    const first = try history.next(heap, 1, 1);
    history.current = first;
    for (2..format.lines_max + 3) |line| {
        history.line_begun = false;
        history.current = try history.next(heap, line, line);
    }
    try std.testing.expectEqual(@as(usize, format.lines_max), history.lines.slice().len);
    try std.testing.expectEqual(Relation.diverged, relate(first, &history.lines, history.current.?, &history.lines));
}
