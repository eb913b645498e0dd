//! What a heap's user believes: which states were committed to which image, which of them were
//! acknowledged, and what may therefore be found after a crash. It knows pages as numbers and shares
//! no code with the engine.
//!
//! Invariant: what an image opens with is its last acknowledged commit or one that was tried later;
//! its content is exactly that of one commit. After it was opened for writing it counts as
//! acknowledged itself.

const std = @import("std");
const Copy = @import("copying.zig").Copy;
const gpa = std.heap.smp_allocator;

pub const pages_max = 64;

/// The content of each page; 0: zeros.
pub const Values = [pages_max]u32;

/// A heap at one moment.
pub const State = struct {
    values: Values,
    /// The heap's number, which stands for its UUID.
    heap: u32,
    /// Bytes in use, as the identity says.
    used: u64,
    /// The state whose memory went on to be this one, whether its commit succeeded or not.
    before: ?usize,
};

/// An attempt to commit a state to an image.
pub const Attempt = struct {
    state: usize,
    epoch: u64,
    /// The number is one from `epoch` to this: nobody knows yet which; 0: it is known.
    epoch_last: u64 = 0,
    /// The attempt, on this image, that the heap stood on.
    parent: ?usize,
    acknowledged: bool = false,
    /// It was seen to have fallen below the base.
    gone: bool = false,
};

pub const Path = struct {
    name: []const u8,
    attempts: std.ArrayList(Attempt) = .empty,
    /// The last attempt that was acknowledged; null: nobody was promised anything.
    last: ?usize = null,
    /// The process that has it open for writing.
    writer: ?u8 = null,
    /// Who is opening, using or closing it for writing, and how often that began or ended.
    contenders: u32 = 0,
    events: u32 = 0,

    /// Of a state, besides its content.
    pub const Identity = struct { heap: u32, used: u64 };

    /// The last attempt that it may be. Heaps without content differ in their identity alone: null
    /// where that is no matter.
    pub fn findFrom(self: *const Path, model: *const Model, floor: usize, epoch: u64, values: *const Values, identity: ?Identity) ?usize {
        var at = self.attempts.items.len;
        while (at > floor) {
            at -= 1;
            const attempt = &self.attempts.items[at];
            const state = &model.states.items[attempt.state];
            if (epoch < attempt.epoch or epoch > @max(attempt.epoch, attempt.epoch_last)) continue;
            if (identity) |own| if (state.used != own.used or state.heap != own.heap) continue;
            if (std.mem.eql(u32, &state.values, values)) return at;
        }
        return null;
    }

    pub fn acknowledge(self: *Path, index: usize) void {
        self.attempts.items[index].acknowledged = true;
        self.last = index;
    }

    /// A new base may begin `keep` − 1 steps back from `head`: what is older, or on other branches, is
    /// not promised any more.
    pub fn passed(self: *Path, head: usize, keep: u32) void {
        for (self.attempts.items[0..head], 0..) |*attempt, index| {
            var at: ?usize = head;
            attempt.gone = for (0..keep) |_| {
                if (at == index) break attempt.gone;
                at = self.attempts.items[at orelse break true].parent;
            } else true;
        }
    }

    pub fn clear(self: *Path) void {
        self.attempts.clearRetainingCapacity();
        self.last = null;
        self.writer = null;
        self.contenders = 0;
    }
};

pub const Relation = enum { same, ancestor, descendant, diverged, foreign };

pub const Model = struct {
    states: std.ArrayList(State) = .empty,
    paths: [2]Path = .{ .{ .name = "a" }, .{ .name = "b" } },
    copies: [2]Copy = .{ .{}, .{} },

    pub fn deinit(self: *Model) void {
        self.states.deinit(gpa);
        for (&self.paths) |*path| path.attempts.deinit(gpa);
    }

    pub fn clear(self: *Model) void {
        self.states.clearRetainingCapacity();
        for (&self.paths) |*path| path.clear();
        self.copies = .{ .{}, .{} };
    }

    pub fn addState(self: *Model, state: State) usize {
        self.states.append(gpa, state) catch unreachable;
        return self.states.items.len - 1;
    }

    pub fn attempt(self: *Model, path: *Path, tried: Attempt) usize {
        _ = self;
        path.attempts.append(gpa, tried) catch unreachable;
        return path.attempts.items.len - 1;
    }

    fn descends(self: *const Model, from: usize, ancestor: usize) bool {
        var at: ?usize = from;
        while (at) |index| : (at = self.states.items[index].before) if (index == ancestor) return true;
        return false;
    }

    /// How state `a` stands to state `b`.
    pub fn relate(self: *const Model, a: usize, b: usize) Relation {
        if (self.states.items[a].heap != self.states.items[b].heap) return .foreign;
        if (a == b) return .same;
        if (self.descends(b, a)) return .ancestor;
        if (self.descends(a, b)) return .descendant;
        return .diverged;
    }
};

const page_size = 4096;
const sector_len = 512;

/// A page's bytes from its number: each sector says which page's and which value's it is.
pub fn fill(page: *[page_size]u8, value: u32) void {
    @memset(page, 0);
    if (value == 0) return;
    for (0..page_size / sector_len) |sector| {
        const word = wordOf(value, sector);
        std.mem.writeInt(u64, page[sector * sector_len ..][0..8], word, .little);
        std.mem.writeInt(u64, page[sector * sector_len + sector_len - 8 ..][0..8], ~word, .little);
    }
}

/// The number whose bytes a page holds; null when it is a mixture.
pub fn read(page: *const [page_size]u8) ?u32 {
    const first = std.mem.readInt(u64, page[0..8], .little);
    const value: u32 = @truncate(first);
    for (0..page_size / sector_len) |sector| {
        const word = if (value == 0) 0 else wordOf(value, sector);
        const end = if (value == 0) 0 else ~word;
        if (std.mem.readInt(u64, page[sector * sector_len ..][0..8], .little) != word) return null;
        if (std.mem.readInt(u64, page[sector * sector_len + sector_len - 8 ..][0..8], .little) != end) return null;
        if (std.mem.readInt(u64, page[sector * sector_len + 256 ..][0..8], .little) != 0) return null;
    }
    return value;
}

fn wordOf(value: u32, sector: usize) u64 {
    return @as(u64, value) | @as(u64, sector + 1) << 40;
}
