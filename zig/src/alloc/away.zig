//! Blocks that are away: freed by a thread that does not own their span, and on their way to the one
//! that does. They go in batches, one push onto the owner's list each, so that two processors pass
//! each other a line of the owner's per batch and not per block.
//!
//!   freeing thread                                 owner
//!     outgoing[owner] → a batch that it fills  →     inbox → bits cleared, hints made
//!     batches, lent one by one                 ←     emptied batches
//!     none left: bits in the remote table      →     pending → bits cleared
//!
//! A block that is away still has its bit in its span's bitmap. What tells that it is free is its byte
//! in `Marks`, in process memory: a byte, so that setting it is one instruction.
//!
//! Invariants: a block has a mark from the moment another thread freed it until its bit is cleared, in
//! this order, so who looks at the mark first and then at the bit cannot miss both. While the allocator
//! is held no batch holds a block. A thread lends `Batch.per_thread` batches at most. A slice of an owned
//! span whose blocks may have marks says so in `Owned`, and in its owner's `Near`.

const std = @import("std");
const os = @import("../os/os.zig");
const layout = @import("layout.zig");
const classes = @import("classes.zig");
const caches = @import("cache.zig");
const find = @import("find.zig");
const spans = @import("spans.zig");
const errors = @import("../errors.zig");
const Allocator = @import("alloc.zig").Allocator;

const Error = errors.Error;
const Cache = caches.Cache;
const assert = std.debug.assert;

/// Classes of blocks so small that a slice has more than `coarse_places` of them.
const fine_classes = blk: {
    var classes_below: u32 = 0;
    while (classes.table[classes_below].size * coarse_places < layout.slice_size) classes_below += 1;
    break :blk classes_below;
};
const coarse_shift = 10;
const coarse_places = 1 << coarse_shift;
const fine_shift = 12;

/// A byte for each block that is not 0 while the block is away. Small blocks have a part of their own,
/// so that a slice of others takes 1 KiB and not 4.
pub const Marks = extern struct {
    coarse: usize,
    fine: usize,

    pub inline fn of(self: *const Marks, class: u32, first: u32, index: usize) *u8 {
        @setRuntimeSafety(false);
        const start = if (class < fine_classes)
            self.fine + (@as(usize, first) << fine_shift)
        else
            self.coarse + (@as(usize, first) << coarse_shift);
        return @ptrFromInt(start + index);
    }
};

/// The memory of `Marks`, address space for all of a heap's slices and pages for those it can use.
pub const MarkPages = struct {
    marks: Marks,
    slices: u32,
    /// Slices whose marks can be stored to.
    reach: u32 = 0,

    pub fn init(slices: u32, reach: u32) os.MapError!MarkPages {
        const start = try os.reserve(0, bytesOf(coarse_shift, slices) + bytesOf(fine_shift, slices));
        var self: MarkPages = .{
            .marks = .{ .coarse = start, .fine = start + bytesOf(coarse_shift, slices) },
            .slices = slices,
        };
        errdefer self.deinit();
        try self.extend(reach);
        return self;
    }

    pub fn deinit(self: *MarkPages) void {
        os.unmap(self.marks.coarse, bytesOf(coarse_shift, self.slices) + bytesOf(fine_shift, self.slices));
    }

    pub fn extend(self: *MarkPages, slices: u32) os.MapError!void {
        if (slices <= self.reach) return;
        inline for (.{ .{ "coarse", coarse_shift }, .{ "fine", fine_shift } }) |part| {
            const start = @field(self.marks, part[0]);
            const from = if (self.reach == 0) 0 else bytesOf(part[1], self.reach);
            const to = bytesOf(part[1], slices);
            if (to > from) {
                try os.commitAnonymous(start + from, to - from);
                _ = os.advise(start + from, to - from, std.os.linux.MADV.NOHUGEPAGE);
            }
        }
        self.reach = slices;
    }

    /// Nothing is away.
    pub fn clear(self: *MarkPages) void {
        const reach = self.reach;
        self.reach = 0;
        self.extend(reach) catch {
            self.reach = reach;
            inline for (.{ .{ "coarse", coarse_shift }, .{ "fine", fine_shift } }) |part| {
                @memset(@as([*]u8, @ptrFromInt(@field(self.marks, part[0])))[0..bytesOf(part[1], reach)], 0);
            }
        };
    }

    /// A page more, since who looks at a span that is just changing may take its class for a coarse
    /// one and its index for a fine one.
    fn bytesOf(shift: u6, slices: u32) usize {
        return std.mem.alignForward(usize, @as(usize, slices) << shift, os.page_size) + os.page_size;
    }
};

/// What other threads freed: slices in which they did so by the remote table, and batches. Bit b stands
/// for all slices congruent to b, so the set has one size for every heap; setting a bit twice is
/// harmless, and so is a bit too many.
pub const Pending = extern struct {
    any: std.atomic.Value(u64) align(64),
    inbox: std.atomic.Value(?*Batch),
    groups: [64]std.atomic.Value(u64) align(64),
    slices: [4096]std.atomic.Value(u64),

    pub const period = 64 * 4096;

    pub fn add(self: *Pending, slice: u32) void {
        const bit = slice % period;
        const word = bit / 64;
        const mask = @as(u64, 1) << @truncate(bit);
        if (self.slices[word].load(.seq_cst) & mask != 0) return;
        if (self.slices[word].fetchOr(mask, .seq_cst) != 0) return;
        const group = word / 64;
        if (self.groups[group].fetchOr(@as(u64, 1) << @truncate(word), .seq_cst) != 0) return;
        _ = self.any.fetchOr(@as(u64, 1) << @truncate(group), .seq_cst);
    }

    pub inline fn isQuiet(self: *const Pending) bool {
        return self.isEmpty() and self.inbox.load(.monotonic) == null;
    }

    /// Whether no slice is in the set.
    pub inline fn isEmpty(self: *const Pending) bool {
        return self.any.load(.monotonic) == 0;
    }

    /// Takes one word of the set: its number and its bits, or null when nothing is left.
    pub fn pop(self: *Pending) ?struct { word: u32, bits: u64 } {
        while (true) {
            const groups = self.any.load(.seq_cst);
            if (groups == 0) return null;
            const g: u6 = @intCast(@ctz(groups));
            const words = self.groups[g].load(.seq_cst);
            if (words == 0) {
                // Clear, then look again: who adds sees either the bit cleared or finds us here.
                _ = self.any.fetchAnd(~(@as(u64, 1) << g), .seq_cst);
                if (self.groups[g].load(.seq_cst) != 0)
                    _ = self.any.fetchOr(@as(u64, 1) << g, .seq_cst);
                continue;
            }
            const w: u6 = @intCast(@ctz(words));
            _ = self.groups[g].fetchAnd(~(@as(u64, 1) << w), .seq_cst);
            const index = @as(u32, g) * 64 + w;
            const bits = self.slices[index].swap(0, .seq_cst);
            if (bits != 0) return .{ .word = index, .bits = bits };
        }
    }

    pub fn clear(self: *Pending) void {
        while (self.pop()) |_| {}
        self.inbox.store(null, .monotonic);
    }
};

/// A block in a batch: its address, and in the bits that addresses leave where its mark is.
const Entry = packed struct(u64) {
    /// Slices from the span's first to the one that the block begins in.
    back: u4,
    address: u44,
    class: u16,

    inline fn of(address: usize, class: u32, back: usize) Entry {
        return .{ .back = @truncate(back), .address = @truncate(address >> 4), .class = @truncate(class) };
    }

    inline fn blockAddress(self: Entry) usize {
        return @as(usize, self.address) << 4;
    }

    fn mark(self: Entry, cache: *const Cache) *u8 {
        const offset = self.blockAddress() - cache.data;
        const first = (offset >> layout.slice_shift) - self.back;
        const index = classes.indexOf(classes.reciprocals[self.class], offset - (first << layout.slice_shift)).?;
        return cache.marks.of(self.class, @intCast(first), index);
    }
};

pub const Batch = extern struct {
    next: ?*Batch,
    len: u32,
    /// Not 0 from the first block on, until the owner has taken all of them.
    lent: std.atomic.Value(u32),
    entries: [len_max]Entry,

    const len_max = 62;
    pub const per_thread = 128;

    comptime {
        assert(@sizeOf(Batch) == 512);
    }
};

/// What a block takes of a batch's room: batches of large blocks are short, so that no thread keeps
/// more than 31 KiB from an owner.
const weights: [classes.count]u8 = blk: {
    var out: [classes.count]u8 = undefined;
    for (&out, classes.table) |*weight, class| weight.* = 1 + (class.size - 1) / 512;
    break :blk out;
};

/// A batch that is being filled.
pub const Outgoing = extern struct {
    batch: ?*Batch,
    room: i32,
    /// The owner's mark; 0: there is no batch.
    owner: u16,
    reserved: u16 = 0,

    pub const none: Outgoing = .{ .batch = null, .room = 0, .owner = 0 };
    /// Owners that a thread fills batches for at a time; a power of two.
    pub const count = 8;
};

// ------------------------------------------------------------------ the freeing thread

/// Puts a block of a span that begins at slice `first` and is owned by who has the mark `owner` into a
/// batch; false when the thread has lent all of its batches. The block is not marked yet.
pub inline fn send(a: *Allocator, cache: *Cache, owner: u16, class: u32, address: usize, back: usize) bool {
    @setRuntimeSafety(false);
    const out = &cache.outgoing[owner % Outgoing.count];
    if (out.owner != owner) {
        @branchHint(.unlikely);
        if (!begin(a, cache, out, owner)) return false;
    }
    const batch = out.batch.?;
    batch.entries[batch.len] = .of(address, class, back);
    batch.len += 1;
    out.room -= weights[class];
    if (out.room <= 0) {
        @branchHint(.unlikely);
        dispatch(a, out);
    }
    return true;
}

/// Makes `owner`, when it frees blocks of a slice itself, look at their marks.
pub noinline fn tell(a: *Allocator, slice: u32, owner: *Cache) void {
    @atomicStore(u8, &a.tables.owned[slice].marked, 1, .seq_cst);
    // If another slice stands there: `note` looks at the first.
    @atomicStore(u8, &owner.nearOf(a.tables.addressOf(slice)).marked, 1, .seq_cst);
}

/// How many batches are looked at for one that came back, each time.
const looks = 4;

noinline fn begin(a: *Allocator, cache: *Cache, out: *Outgoing, owner: u16) bool {
    dispatch(a, out);
    for (0..looks) |_| {
        cache.batch_next = (cache.batch_next + 1) % Batch.per_thread;
        const batch = &cache.batches[cache.batch_next];
        if (batch.lent.load(.acquire) != 0) continue;
        batch.len = 0;
        batch.lent.store(1, .monotonic);
        if (!a.sends.load(.monotonic)) a.sends.store(true, .monotonic);
        out.* = .{ .batch = batch, .room = Batch.len_max, .owner = owner };
        return true;
    }
    return false;
}

/// Whether blocks of a span are away.
pub fn anyOf(marks: *const Marks, class: u32, first: u32) bool {
    const bytes: [*]const u8 = @ptrCast(marks.of(class, first, 0));
    return std.mem.indexOfNone(u8, bytes[0..classes.table[class].blocks], &.{0}) != null;
}

/// Hands a batch to its owner, whether that lives or not: who looks for room finds it.
noinline fn dispatch(a: *Allocator, out: *Outgoing) void {
    if (out.owner == 0) return;
    const batch = out.batch.?;
    const inbox = &a.caches[out.owner - 1].?.pending.inbox;
    out.* = .none;
    batch.next = inbox.load(.monotonic);
    while (inbox.cmpxchgWeak(batch.next, batch, .release, .monotonic)) |head| batch.next = head;
}

/// Hands over what a thread that ends has gathered.
pub fn dispatchAll(a: *Allocator, cache: *Cache) void {
    for (&cache.outgoing) |*out| dispatch(a, out);
}

// ------------------------------------------------------------------ the owner

/// Takes the blocks that have arrived for `cache`, by its own thread or while that is held. They get
/// hints, so this is no place between two looks at a class's bitmaps.
pub fn receive(a: *Allocator, cache: *Cache) Error!void {
    if (cache.pending.inbox.load(.monotonic) == null) return;
    var failed: ?Error = null;
    var next = cache.pending.inbox.swap(null, .acquire);
    while (next) |batch| {
        next = batch.next;
        for (batch.entries[0..batch.len]) |entry| arrive(a, cache, entry) catch |err| {
            failed = err;
        };
        batch.lent.store(0, .release);
    }
    if (failed) |err| return err;
}

/// Clears a block's bit and then its mark, or tells the owner that its span has now. A block that two
/// threads freed at the same time comes twice: the second time its mark is gone.
fn arrive(a: *Allocator, cache: *Cache, entry: Entry) Error!void {
    const mark = entry.mark(cache);
    if (@atomicLoad(u8, mark, .monotonic) == 0) return;
    if (!Allocator.freeOwn(cache, cache.nearOf(entry.blockAddress()), entry.blockAddress())) {
        return a.freeInside(cache, entry.blockAddress(), .away) catch |err| switch (err) {
            error.DOUBLE_FREE, error.BAD_POINTER => @atomicStore(u8, mark, 0, .release),
            else => err,
        };
    }
    @atomicStore(u8, mark, 0, .release);
}

/// Puts what has arrived for a thread that is gone into the remote table, where `collectPending` finds
/// it.
pub fn spill(a: *Allocator, from: *Cache) void {
    var next = from.pending.inbox.swap(null, .acquire);
    while (next) |batch| {
        next = batch.next;
        spillBatch(a, from, batch);
    }
}

fn spillBatch(a: *Allocator, from: *Cache, batch: *Batch) void {
    for (batch.entries[0..batch.len]) |entry| {
        const mark = entry.mark(from);
        if (@atomicLoad(u8, mark, .monotonic) == 0) continue;
        const block = find.locate(a, entry.blockAddress(), "free") catch {
            @atomicStore(u8, mark, 0, .release);
            continue;
        };
        if (block != .small) {
            @atomicStore(u8, mark, 0, .release);
            continue;
        }
        // The mark stays: it says so for the remote table too.
        const owner = a.ownerOf(@atomicLoad(u64, &a.tables.line(block.small.slice).owner, .seq_cst));
        _ = spans.freeRemote(a, block.small, owner orelse from);
    }
    batch.lent.store(0, .release);
}

// ------------------------------------------------------------------ the whole

/// Brings all blocks that are away in batches home, so that bitmaps and remote table tell the truth.
/// All threads are held, or gone.
pub fn fold(a: *Allocator) void {
    if (!a.sends.load(.monotonic)) return;
    const all = a.caches[0..a.cache_count.load(.acquire)];
    for (all) |cache| dispatchAll(a, cache.?);
    for (all, 0..) |cache, slot| {
        if (cache.?.pending.inbox.load(.monotonic) == null) continue;
        // Damage shows up where somebody asks for memory.
        if (a.alive[slot].load(.monotonic)) receive(a, cache.?) catch {} else spill(a, cache.?);
    }
}

/// Forgets all blocks that are away: the heap that they were in is no more. Held.
pub fn forget(a: *Allocator) void {
    for (a.caches[0..a.cache_count.load(.acquire)]) |cache| {
        cache.?.outgoing = @splat(.none);
        cache.?.pending.clear();
        for (&cache.?.batches) |*batch| {
            if (batch.lent.load(.monotonic) != 0) batch.lent.store(0, .monotonic);
        }
    }
    a.sends.store(false, .monotonic);
}

comptime {
    for (classes.table, 0..) |class, i| {
        const shift = if (i < fine_classes) fine_shift else coarse_shift;
        assert(class.blocks <= class.slices << shift);
    }
}
