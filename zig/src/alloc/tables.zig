//! The heap's side of the allocator: its tables, and the free runs of slices in them, kept as a
//! two-level segregated fit (good fit in constant time) with coalescing by boundary tags.
//!
//! Invariants: slices [0, high) are tiled without gap by spans, large blocks and free runs; no two
//! free runs touch; each is in the bin of its length. `capacity`, `high` and `used` here are the
//! truth while the heap is open, the header's are their copies for the next opening: nothing that a
//! stray write puts into the tables leads outside them. All calls need the allocator's lock.

const std = @import("std");
const layout = @import("layout.zig");
const errors = @import("../errors.zig");

const Error = errors.Error;
const Owned = @import("cache.zig").Owned;
const MarkPages = @import("away.zig").MarkPages;
const Slice = layout.Slice;
const kind = layout.kind;
const none = layout.none;
const assert = std.debug.assert;

/// Where pages of data come from and go to. Called with the allocator's lock held: must not call
/// the allocator.
pub const Supply = struct {
    context: ?*anyopaque = null,
    /// Makes data [0, new_capacity) usable, zeroed where new; false when it cannot.
    grow: *const fn (context: ?*anyopaque, new_capacity: u64) bool,
    /// Takes the pages of [address, address + len) back: contents become zero. False when it did
    /// not, and then nothing has changed.
    give_back: *const fn (context: ?*anyopaque, address: usize, len: u64) bool,
    /// Makes sure of memory below slices before they are handed out; false when there is none. For
    /// supplies whose pages cannot be had by touching them.
    prepare: ?*const fn (context: ?*anyopaque, address: usize, len: u64) bool = null,
    /// Told of memory that will be filled as a whole and not yet was touched, so that its pages may be large.
    dense: ?*const fn (context: ?*anyopaque, address: usize, len: u64) void = null,
    /// Why `grow` refused last, where that is not for lack of memory.
    why: ?*const fn (context: ?*anyopaque) Error = null,
};

pub const Run = struct {
    first: u32,
    len: u32,
    /// How many of its slices, from the first on, may hold bytes other than zero.
    dirty: u32,
};

pub fn corrupt(address: usize, comptime what: []const u8) Error {
    return errors.fail(
        .CORRUPT,
        .{ .address = address },
        "Cannot use the heap's allocator: {s} at 0x{x}; go back to the last commit",
        .{ what, address },
    );
}

pub const Tables = struct {
    header: *layout.Header,
    table: usize,
    remote_table: usize,
    data: usize,
    geometry: layout.Geometry,
    base: usize,
    supply: Supply,
    /// One for each slice, in process memory.
    owned: []Owned,
    mark_pages: MarkPages,
    /// Marks runs that this session made dirty; never 0.
    stamp: u32,
    /// Free runs of earlier sessions were opened as holes and read as zero.
    holes_zero: bool,

    capacity: u32,
    high: u32,
    used: u32,
    /// Slices of free runs that this session knows to be dirty.
    dirty_free: u64 = 0,
    /// The last growth that failed was refused by the supply.
    growth_refused: bool = false,
    /// The supply refused to take pages back at this much dirt: ask again when there is more.
    refused_at: u64 = 0,

    pub inline fn line(self: *const Tables, slice: u32) *Slice {
        assert(slice < self.geometry.slices);
        return @ptrFromInt(self.table + @as(usize, slice) * Slice.stride);
    }

    pub inline fn remote(self: *const Tables, slice: u32) *layout.Remote {
        assert(slice < self.geometry.slices);
        return @ptrFromInt(self.remote_table + @as(usize, slice) * @sizeOf(layout.Remote));
    }

    pub inline fn addressOf(self: *const Tables, slice: u32) usize {
        return self.data + (@as(usize, slice) << layout.slice_shift);
    }

    /// Takes `len` slices, the first at a multiple of `alignment` slices (a power of two) in memory.
    /// `dirty` of the result counts what the caller must clear when it wants zeroes.
    pub fn take(self: *Tables, len: u32, alignment: u32) Error!Run {
        assert(len > 0 and std.math.isPowerOfTwo(alignment));
        const need = @as(u64, len) + alignment - 1;
        if (need > self.geometry.slices) return outOfMemory(self, need);
        const run = try self.find(@intCast(need)) orelse try self.extend(@intCast(need));
        assert(run.len >= need);

        const front = self.padding(run.first, alignment);
        const first = run.first + front;
        const end = run.first + run.len;
        if (front > 0) try self.insert(.{
            .first = run.first,
            .len = front,
            .dirty = @min(run.dirty, front),
        });
        const dirty = run.dirty -| front;
        if (first + len < end) try self.insert(.{
            .first = first + len,
            .len = end - first - len,
            .dirty = dirty -| len,
        });
        const taken: Run = .{ .first = first, .len = len, .dirty = @min(dirty, len) };
        if (!self.prepare(taken)) {
            try self.join(taken);
            return outOfMemory(self, len);
        }
        self.setUsed(self.used + len);
        return taken;
    }

    fn prepare(self: *Tables, run: Run) bool {
        const function = self.supply.prepare orelse return true;
        return function(self.supply.context, self.addressOf(run.first), @as(u64, run.len) << layout.slice_shift);
    }

    /// Gives slices back whose descriptors are already cleared.
    pub fn give(self: *Tables, first: u32, len: u32) Error!void {
        assert(len > 0 and first + len <= self.high);
        self.setUsed(self.used -| len);
        try self.join(.{ .first = first, .len = len, .dirty = len });
    }

    /// Takes the `len` slices behind a large block if they are free; true when it did.
    pub fn takeAt(self: *Tables, first: u32, len: u32) Error!?Run {
        assert(len > 0);
        if (first > self.high or @as(u64, first) + len > self.geometry.slices) return null;
        var run: Run = .{ .first = first, .len = 0, .dirty = 0 };
        if (first < self.high) {
            if (self.line(first).kind != kind.free) return null;
            run = try self.runAt(first);
        }
        if (run.len < len) {
            // Only the last run before `high` can be lengthened.
            if (run.first + run.len != self.high) return null;
            const missing = len - run.len;
            if (!self.ensure(@as(u64, self.high) + missing)) return null;
            if (run.len > 0) try self.remove(first);
            self.setHigh(self.high + missing);
            run.len = len;
        } else {
            try self.remove(first);
            if (run.len > len) try self.insert(.{
                .first = first + len,
                .len = run.len - len,
                .dirty = run.dirty -| len,
            });
        }
        const taken: Run = .{ .first = first, .len = len, .dirty = @min(run.dirty, len) };
        if (!self.prepare(taken)) {
            try self.join(taken);
            return null;
        }
        self.setUsed(self.used + len);
        return taken;
    }

    fn padding(self: *const Tables, first: u32, alignment: u32) u32 {
        const number: u32 = @truncate(self.addressOf(first) >> layout.slice_shift);
        return (0 -% number) & (alignment - 1);
    }

    // -------------------------------------------------------------- growth

    /// A run of at least `need` slices at the end of the used ones, grown if it must.
    fn extend(self: *Tables, need: u32) Error!Run {
        var run: Run = .{ .first = self.high, .len = 0, .dirty = 0 };
        if (self.high > 0) {
            const last = self.line(self.high - 1);
            const len: u32 = switch (last.kind) {
                kind.free => 1,
                kind.free_end => last.slices,
                else => 0,
            };
            if (len > 0) {
                if (len > self.high) return corrupt(@intFromPtr(last), "a free run's length is wrong");
                run = try self.runAt(self.high - len);
                if (run.len != len) return corrupt(@intFromPtr(last), "a free run's end does not match");
            }
        }
        if (run.len >= need) {
            // Good fit may miss a run that would do; it is the last one here.
            try self.remove(run.first);
            return run;
        }
        const missing = need - run.len;
        if (!self.ensure(@as(u64, self.high) + missing)) return outOfMemory(self, need);
        if (run.len > 0) try self.remove(run.first);
        self.setHigh(self.high + missing);
        run.len = need;
        return run;
    }

    /// Makes at least `slices` usable; by half as much again while that can be had.
    pub fn ensure(self: *Tables, slices: u64) bool {
        if (slices <= self.capacity) return true;
        if (slices > self.geometry.slices) {
            self.growth_refused = false;
            return false;
        }
        const roomy = @min(@max(slices, @as(u64, self.capacity) + self.capacity / 2), self.geometry.slices);
        return self.growTo(@intCast(roomy)) or (roomy > slices and self.growTo(@intCast(slices)));
    }

    pub fn growTo(self: *Tables, slices: u32) bool {
        assert(slices <= self.geometry.slices);
        if (slices <= self.capacity) return true;
        self.growth_refused = false;
        self.mark_pages.extend(slices) catch return false;
        const bytes = @as(u64, slices) << layout.slice_shift;
        self.growth_refused = !self.supply.grow(self.supply.context, bytes);
        if (self.growth_refused) return false;
        self.capacity = slices;
        self.header.capacity = slices;
        return true;
    }

    fn setHigh(self: *Tables, high: u32) void {
        assert(high <= self.capacity);
        self.high = high;
        self.header.high = high;
    }

    fn setUsed(self: *Tables, used: u32) void {
        self.used = used;
        self.header.used = used;
    }

    /// Why the supply gave no more, where it can tell better than "no memory".
    pub fn refusal(self: *const Tables) ?Error {
        const why = self.supply.why orelse return null;
        return if (self.growth_refused) why(self.supply.context) else null;
    }

    fn outOfMemory(self: *const Tables, slices: u64) Error {
        if (self.refusal()) |err| return err;
        return errors.fail(.OUT_OF_MEMORY, .{}, "Cannot allocate {d} bytes: {d} of {d} are in use, " ++
            "the heap may grow to {d}; free some or open it with a larger maxSize", .{
            slices << layout.slice_shift,
            @as(u64, self.used) << layout.slice_shift,
            @as(u64, self.capacity) << layout.slice_shift,
            self.geometry.maxSize(),
        });
    }

    // -------------------------------------------------------------- giving back

    /// Returns dirty pages of free runs to the system, the largest runs first and at most
    /// `slices_max` slices at once, so that no call stalls: how many it returned.
    pub fn giveBack(self: *Tables, slices_max: u32) Error!u32 {
        var fl: u32 = layout.fl_count;
        while (fl > 0) {
            fl -= 1;
            for (0..layout.sl_count) |i| {
                const sl = layout.sl_count - 1 - i;
                var slice = self.header.heads[fl][sl];
                for (0..8) |_| {
                    if (slice == none) break;
                    const run = try self.runAt(slice);
                    if (run.dirty > 0) return self.clean(run, slices_max);
                    slice = self.line(slice).next;
                }
            }
        }
        return 0;
    }

    fn clean(self: *Tables, run: Run, slices_max: u32) u32 {
        const len = @min(run.dirty, slices_max);
        const left = run.dirty - len;
        const address = self.addressOf(run.first + left);
        const bytes = @as(u64, len) << layout.slice_shift;
        if (!self.supply.give_back(self.supply.context, address, bytes)) {
            self.refused_at = self.dirty_free;
            return 0;
        }
        const head = self.line(run.first);
        head.dirty = left;
        head.stamp = self.stamp;
        self.dirty_free -|= len;
        self.refused_at = @min(self.refused_at, self.dirty_free);
        return len;
    }

    // -------------------------------------------------------------- bins

    const Bin = struct { fl: u5, sl: u4 };

    fn binOf(len: u32) Bin {
        assert(len > 0);
        const fl: u5 = @intCast(31 - @clz(len));
        const sl = if (fl < 4) len << (4 - fl) else len >> (fl - 4);
        return .{ .fl = fl, .sl = @truncate(sl) };
    }

    pub fn inBin(len: u32, fl: usize, sl: usize) bool {
        const bin = binOf(len);
        return bin.fl == fl and bin.sl == sl;
    }

    /// Removes and returns a free run of at least `need` slices, or null.
    fn find(self: *Tables, need: u32) Error!?Run {
        if (self.header.fl_bits == 0) return null;
        const fl_need: u5 = @intCast(31 - @clz(need));
        const round = if (fl_need < 4) 0 else (@as(u32, 1) << (fl_need - 4)) - 1;
        if (try self.findFrom(binOf(need +| round), need)) |run| return run;
        // The bin that `need` itself falls into may still hold one that fits.
        const bin = binOf(need);
        var slice = self.header.heads[bin.fl][bin.sl];
        for (0..16) |_| {
            if (slice == none) break;
            const run = try self.runAt(slice);
            if (run.len >= need) {
                try self.remove(slice);
                return run;
            }
            slice = self.line(slice).next;
        }
        return null;
    }

    fn findFrom(self: *Tables, bin: Bin, need: u32) Error!?Run {
        const header = self.header;
        var fl: u5 = bin.fl;
        var bits = header.sl_bits[fl] & (@as(u16, 0xffff) << bin.sl);
        if (bits == 0) {
            const higher = header.fl_bits & ~((@as(u32, 2) << fl) -% 1);
            if (higher == 0 or fl == 31) return null;
            fl = @intCast(@ctz(higher));
            bits = header.sl_bits[fl];
            if (bits == 0) return corrupt(@intFromPtr(header), "the free runs' bitmaps disagree");
        }
        const slice = header.heads[fl][@ctz(bits)];
        if (slice == none) return corrupt(@intFromPtr(header), "an empty bin is marked as filled");
        const run = try self.runAt(slice);
        if (run.len < need) return corrupt(@intFromPtr(header), "a free run is in the wrong bin");
        try self.remove(slice);
        return run;
    }

    /// The free run that begins at `first`, every number of it checked.
    pub fn runAt(self: *const Tables, first: u32) Error!Run {
        if (first >= self.high) return corrupt(first, "a free run lies outside the heap");
        const head = self.line(first);
        const len = head.slices;
        if (head.kind != kind.free or len == 0 or len > self.high - first)
            return corrupt(self.addressOf(first), "a free run's head is damaged");
        if (len > 1) {
            const end = self.line(first + len - 1);
            if (end.kind != kind.free_end or end.slices != len)
                return corrupt(self.addressOf(first), "a free run's end is damaged");
        }
        if (head.dirty > len) return corrupt(self.addressOf(first), "a free run's dirt is wrong");
        const known = head.stamp == self.stamp or !self.holes_zero;
        return .{ .first = first, .len = len, .dirty = if (known) head.dirty else 0 };
    }

    /// Inserts a run, joined with the free runs before and behind it.
    fn join(self: *Tables, added: Run) Error!void {
        var run = added;
        const end = run.first + run.len;
        if (end < self.high and self.line(end).kind == kind.free) {
            const behind = try self.runAt(end);
            try self.remove(end);
            run.len += behind.len;
            if (behind.dirty > 0) run.dirty = added.len + behind.dirty;
        }
        if (run.first > 0) {
            const last = self.line(run.first - 1);
            const len: u32 = switch (last.kind) {
                kind.free => 1,
                kind.free_end => last.slices,
                else => 0,
            };
            if (len > run.first) return corrupt(@intFromPtr(last), "a free run's length is wrong");
            if (len > 0) {
                const before = try self.runAt(run.first - len);
                if (before.len != len) return corrupt(@intFromPtr(last), "a free run's end does not match");
                try self.remove(before.first);
                run = .{
                    .first = before.first,
                    .len = before.len + run.len,
                    .dirty = if (run.dirty > 0) before.len + run.dirty else before.dirty,
                };
            }
        }
        try self.insert(run);
    }

    fn insert(self: *Tables, run: Run) Error!void {
        assert(run.len > 0 and run.dirty <= run.len);
        const bin = binOf(run.len);
        const head = self.line(run.first);
        const next = self.header.heads[bin.fl][bin.sl];
        if (next != none) _ = try self.runAt(next);
        if (run.len > 1) {
            const end = self.line(run.first + run.len - 1);
            end.kind = kind.free_end;
            end.slices = run.len;
        }
        head.kind = kind.free;
        head.slices = run.len;
        head.dirty = run.dirty;
        head.stamp = self.stamp;
        head.next = next;
        head.prev = none;
        if (next != none) self.line(next).prev = run.first;
        self.header.heads[bin.fl][bin.sl] = run.first;
        self.header.sl_bits[bin.fl] |= @as(u16, 1) << bin.sl;
        self.header.fl_bits |= @as(u32, 1) << bin.fl;
        self.dirty_free += run.dirty;
    }

    /// Takes the run that begins at `first` out of its bin and clears its descriptors.
    fn remove(self: *Tables, first: u32) Error!void {
        const run = try self.runAt(first);
        const bin = binOf(run.len);
        const head = self.line(first);
        const list = &self.header.heads[bin.fl][bin.sl];
        if (head.next != none) {
            if (head.next >= self.high or self.line(head.next).prev != first)
                return corrupt(self.addressOf(first), "a free run's neighbour does not know it");
        }
        if (head.prev != none) {
            if (head.prev >= self.high or self.line(head.prev).next != first)
                return corrupt(self.addressOf(first), "a free run's neighbour does not know it");
        } else if (list.* != first) return corrupt(self.addressOf(first), "a free run is in no bin");

        if (head.next != none) self.line(head.next).prev = head.prev;
        if (head.prev != none) self.line(head.prev).next = head.next else list.* = head.next;
        if (list.* == none) {
            self.header.sl_bits[bin.fl] &= ~(@as(u16, 1) << bin.sl);
            if (self.header.sl_bits[bin.fl] == 0) self.header.fl_bits &= ~(@as(u32, 1) << bin.fl);
        }
        if (run.len > 1) self.line(first + run.len - 1).kind = kind.none;
        head.kind = kind.none;
        self.dirty_free -|= run.dirty;
    }
};
