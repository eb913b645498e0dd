//! A thread's side of the allocator, in process memory: which blocks it hands out next. Nothing
//! here is needed to make sense of the heap: dropping a cache loses nothing.
//!
//! Invariants: a hint stands for a block whose bit in the heap's bitmap is clear, and is taken by setting
//! that bit. Hints point only to spans that the cache owns (they are purged when a span is given up),
//! and each free block has one at most: they are gathered from bitmaps only when none are left, and
//! while a class has hints its blocks are handed out by them alone. A free block of an owned span has
//! a hint or is in the span's summary.

const std = @import("std");
const builtin = @import("builtin");
const os = @import("../os/os.zig");
const layout = @import("layout.zig");
const classes = @import("classes.zig");
const away = @import("away.zig");
const Tables = @import("tables.zig").Tables;

const none = layout.none;
const assert = std.debug.assert;

/// What this process knows of a slice that is part of an owned span, so that `free` finds a block's
/// bit without a look at the heap. Written by the owner, or while others are held; others read it
/// and find at worst that it is not theirs.
pub const Owned = extern struct {
    /// The span's bitmap, in the slice table.
    words: ?[*]u64 = null,
    /// The span's first slice.
    first: u32 = 0,
    /// Number of the owner's slot, and 1; 0 where no thread owns a span.
    owner: u16 = 0,
    class: u8 = 0,
    /// Not 0 where blocks of the slice may have marks (away.zig): set by whoever frees another's.
    marked: u8 = 0,

    pub inline fn line(self: *const Owned) *layout.Slice {
        @setRuntimeSafety(false);
        return @fieldParentPtr("words", @as(*[64]u64, @ptrCast(self.words.?)));
    }
};

/// What `free` needs of a slice of a span that the thread owns, in a table of the thread's own: one
/// line leads from an address to its bit. `Owned` knows the same; what is not here, or stands in
/// another slice's place, costs the long way once.
pub const Near = extern struct {
    /// One block's size below the span's first block: quotients count from 1, and 0, which all
    /// that is zero leads to, is none.
    before: usize = 0,
    /// The class's divisor.
    inverse: u64 = 0,
    /// The address of the first bit of the span's bitmap.
    bits: u64 = 0,
    shift: u8 = 0,
    class: u8 = 0,
    /// As in `Owned`, or set without need.
    marked: u8 = 0,
    reserved: u8 = 0,
    /// The span's first slice.
    first: u32 = 0,

    pub fn of(start: usize, first: u32, class: u32, words: [*]u64) Near {
        const divisor = classes.divisors[class];
        return .{
            .before = start - classes.table[class].size,
            .inverse = divisor.inverse,
            .bits = bitAt(words, 0),
            .shift = divisor.shift,
            .class = @intCast(class),
            .first = first,
        };
    }

    /// The index of the block that begins at `address`, or a number from `blocks_max` on. Right for
    /// every address.
    pub inline fn indexOf(self: *const Near, address: usize) u64 {
        @setRuntimeSafety(false);
        return std.math.rotr(u64, (address -% self.before) *% self.inverse, self.shift) -% 1;
    }

    pub inline fn line(self: *const Near) *layout.Slice {
        @setRuntimeSafety(false);
        return @fieldParentPtr("words", @as(*[64]u64, @ptrFromInt(self.bits / 8)));
    }
};

/// Slices that have a place of their own in a thread's table: 4 GiB.
pub const near_count = 1 << 16;

/// A block that is free.
pub const Hint = extern struct {
    address: usize,
    /// The address of its bit.
    bit: u64,
};

/// A bit's address is eight times its byte's and its place there: one number that says word and bit.
pub inline fn bitAt(words: [*]const u64, index: u64) u64 {
    return @intFromPtr(words) * 8 + index;
}

/// Zig's own backend, which makes Debug builds, does not know such operands.
const assembles = builtin.zig_backend == .stage2_llvm;

/// The word that holds a bit. By its number, which the processor scales as it loads and stores; the
/// compiler would make an address of it, which takes an instruction.
pub const Word = struct {
    number: u64,

    pub inline fn of(bit: u64) Word {
        return .{ .number = bit / 64 };
    }

    pub inline fn load(self: Word) u64 {
        if (!assembles) return self.pointer().*;
        return asm volatile ("movq (,%[number],8), %[out]"
            : [out] "=r" (-> u64),
            : [number] "r" (self.number),
            : .{ .memory = true });
    }

    pub inline fn store(self: Word, value: u64) void {
        if (!assembles) {
            self.pointer().* = value;
            return;
        }
        asm volatile ("movq %[value], (,%[number],8)"
            :
            : [value] "r" (value),
              [number] "r" (self.number),
            : .{ .memory = true });
    }

    inline fn pointer(self: Word) *volatile u64 {
        return @ptrFromInt(self.number * 8);
    }
};

/// `word` with the bit set whose address is `bit`. One instruction, which the compiler does not find.
inline fn setBit(word: u64, bit: u64) u64 {
    if (!assembles) return word | @as(u64, 1) << @truncate(bit);
    return asm ("btsq %[bit], %[out]"
        : [out] "=r" (-> u64),
        : [word] "0" (word),
          [bit] "r" (bit),
        : .{ .cc = true });
}

/// Clears the bit whose address is `bit` in `word`: whether it was set.
pub inline fn takeBit(word: *u64, bit: u64) bool {
    if (!assembles) {
        const old = word.*;
        word.* = old & ~(@as(u64, 1) << @truncate(bit));
        return old != word.*;
    }
    var new: u64 = undefined;
    const was = asm ("btrq %[bit], %[new]"
        : [was] "={@ccc}" (-> u8),
          [new] "=r" (new),
        : [old] "1" (word.*),
          [bit] "r" (bit),
    );
    word.* = new;
    return was != 0;
}

/// A class's hints are a stack. Its first place leads to bits that are set for good, so taking needs
/// no count; it is aligned to its size, so putting finds the end by the address alone.
const stack_places = 256;
const stack_bytes = stack_places * @sizeOf(Hint);
/// How many hints are gathered when there are none: few at first, then more each time, so that a
/// class that is seldom used keeps few.
pub const gather_min = 16;
pub const gather_max = 128;

pub const ClassCache = extern struct {
    gather: u32,
    padding: u32 = 0,
    /// The span that hints are gathered from.
    current: u32,
    /// Head of the list of owned spans with free blocks.
    partial: u32,
};

/// Empty spans that stay with their owner for a while, since the next allocation often wants one:
/// the oldest goes when there are too many, if it is still empty.
pub const Empties = extern struct {
    slices: [count_max]u32,
    first: u32,
    count: u32,

    pub const count_max = 16;

    pub fn add(self: *Empties, slice: u32) void {
        assert(self.count < count_max);
        self.slices[(self.first + self.count) % count_max] = slice;
        self.count += 1;
    }

    pub fn oldest(self: *Empties) u32 {
        assert(self.count > 0);
        const slice = self.slices[self.first];
        self.first = (self.first + 1) % count_max;
        self.count -= 1;
        return slice;
    }

    pub fn remove(self: *Empties, slice: u32) void {
        for (0..self.count) |_| {
            const other = self.oldest();
            if (other != slice) self.add(other);
        }
    }
};

pub const Cache = extern struct {
    /// 1 while its thread is in the allocator; see threads.zig.
    inside: std.atomic.Value(u32) align(64),
    /// Changes of containers that its thread (threads, when shared) is in the middle of.
    changing: std.atomic.Value(u32),
    /// Used by several threads in turn, under a lock: they were too many for caches of their own.
    shared: bool,
    slot: u16,
    /// What marks slices as this cache's in `owned`.
    mark: u16,
    /// Calls that looked for the heap in the wrong place first; see abi.zig.
    misses: u16,
    owner: u64,
    thread: usize,
    /// Copies of what `free` needs of the heap's tables.
    data: usize,
    owned: [*]Owned,
    slices: u64,
    /// All bits set: what the bottom of each stack leads to.
    full: u64,
    /// Newest hint of each class: what was freed last is still in the CPU's cache.
    newest: [classes.count][*]Hint,
    /// A copy of the table of classes.zig, where the code need not look for it.
    by_size: [classes.by_size.len]u8,
    classes: [classes.count]ClassCache,
    empties: Empties,
    pending: away.Pending,
    /// What a free of another thread's block needs besides.
    outgoing: [away.Outgoing.count]away.Outgoing align(64),
    marks: away.Marks,
    batch_next: u32,
    batches: [away.Batch.per_thread]away.Batch align(64),
    /// Of each class, its own behind that of number 0, whose last place is where the newest hint of
    /// a class stands that never had one: so its stack takes no memory, and has no room.
    stacks: [1 + classes.count][stack_places]Hint align(stack_bytes),
    near: [near_count]Near align(4096),

    pub fn reset(self: *Cache, owner: u64, tables: *const Tables) void {
        self.owner = owner;
        self.data = tables.data;
        self.owned = tables.owned.ptr;
        self.mark = self.slot + 1;
        self.slices = tables.geometry.slices;
        self.marks = tables.mark_pages.marks;
        self.full = ~@as(u64, 0);
        self.never()[0] = self.noHint();
        self.newest = @splat(self.never());
        self.by_size = classes.by_size;
        self.classes = @splat(.{ .gather = gather_min, .current = none, .partial = none });
        self.empties = .{ .slices = @splat(none), .first = 0, .count = 0 };
    }

    /// The place of the slice that `address` lies in; another slice may stand there.
    pub inline fn nearOf(self: *Cache, address: usize) *Near {
        @setRuntimeSafety(false);
        const place = (address >> layout.slice_shift) % near_count * @sizeOf(Near);
        return @ptrFromInt(inRegister(usize, @intFromPtr(self) + place) + @offsetOf(Cache, "near"));
    }

    /// Notes a slice of an owned span that begins at `start`.
    pub fn note(self: *Cache, address: usize, start: usize, class: u32, words: [*]u64) void {
        const near = self.nearOf(address);
        const first: u32 = @intCast((start - self.data) >> layout.slice_shift);
        const new: Near = .of(start, first, class, words);
        if (near.before == new.before and near.class == new.class) return;
        near.* = new;
        // Who marks a block sets both the other way round: one of us sees the other.
        const owned = &self.owned[(address - self.data) >> layout.slice_shift];
        if (@atomicRmw(u8, &owned.marked, .Or, 0, .seq_cst) != 0) @atomicStore(u8, &near.marked, 1, .release);
    }

    /// Forgets a slice of a span that begins at `start` and is not owned any more.
    pub fn unnote(self: *Cache, address: usize, start: usize, class: u32) void {
        const near = self.nearOf(address);
        if (near.before == start - classes.table[class].size and near.class == class) near.* = .{};
    }

    /// Forgets all slices.
    pub fn unnoteAll(self: *Cache) void {
        os.commitAnonymous(@intFromPtr(&self.near), @sizeOf(@TypeOf(self.near))) catch {
            self.near = @splat(.{});
        };
        _ = os.advise(@intFromPtr(&self.near), @sizeOf(@TypeOf(self.near)), std.os.linux.MADV.NOHUGEPAGE);
    }

    /// A free block of `class` by its newest hint; 0 when there is none.
    pub inline fn take(self: *Cache, class: usize) usize {
        @setRuntimeSafety(false);
        const newest = self.newest[class];
        const address = newest[0].address;
        if (address == 0) {
            @branchHint(.unlikely);
            return 0;
        }
        const bit = newest[0].bit;
        const word: Word = .of(bit);
        word.store(setBit(word.load(), bit));
        self.newest[class] = newest - 1;
        return address;
    }

    /// Remembers a block that was freed; false when there is no room.
    pub inline fn push(self: *Cache, class: usize, address: usize, bit: u64) bool {
        @setRuntimeSafety(false);
        const newest = inRegister([*]Hint, self.newest[class] + 1);
        if (@intFromPtr(newest) % stack_bytes == 0) return false;
        newest[0].address = address;
        newest[0].bit = bit;
        self.newest[class] = newest;
        return true;
    }

    fn never(self: *Cache) [*]Hint {
        return self.stacks[0][stack_places - 1 ..];
    }

    fn noHint(self: *Cache) Hint {
        return .{ .address = 0, .bit = bitAt(@ptrCast(&self.full), 0) };
    }

    /// The hints of `class`, the newest last.
    pub fn hints(self: *Cache, class: usize) []Hint {
        if (self.newest[class] == self.never()) return &.{};
        const bottom: [*]Hint = &self.stacks[1 + class];
        const len = (@intFromPtr(self.newest[class]) - @intFromPtr(bottom)) / @sizeOf(Hint);
        assert(len < stack_places);
        return bottom[1..][0..len];
    }

    pub fn setCount(self: *Cache, class: usize, len: usize) void {
        assert(len < stack_places);
        const bottom: [*]Hint = &self.stacks[1 + class];
        bottom[0] = self.noHint();
        self.newest[class] = bottom + len;
    }

    /// Forgets hints to blocks of `class` in [from, to).
    pub fn purge(self: *Cache, class: usize, from: usize, to: usize) void {
        const all = self.hints(class);
        if (all.len == 0) return;
        var kept: usize = 0;
        for (all) |hint| {
            if (hint.address >= from and hint.address < to) continue;
            all[kept] = hint;
            kept += 1;
        }
        self.setCount(class, kept);
    }
};

/// Keeps the compiler from computing an address anew for each field, which takes it more registers
/// than `free` has.
pub inline fn inRegister(comptime T: type, address: T) T {
    return asm (""
        : [out] "=r" (-> T),
        : [in] "0" (address),
    );
}

comptime {
    assert(@offsetOf(Cache, "stacks") % stack_bytes == 0);
    // What every call touches is one line.
    assert(@offsetOf(Cache, "newest") == 64);
    assert(@sizeOf(Near) == 32);
}

test "the oldest of the empty spans comes first, and one can be taken out" {
    var empties: Empties = .{ .slices = @splat(none), .first = 13, .count = 0 };
    for (0..Empties.count_max) |i| empties.add(@intCast(i));
    empties.remove(5);
    empties.remove(99);
    try std.testing.expectEqual(@as(u32, Empties.count_max - 1), empties.count);
    for (0..Empties.count_max) |i| if (i != 5) {
        try std.testing.expectEqual(@as(u32, @intCast(i)), empties.oldest());
    };
    try std.testing.expectEqual(@as(u32, 0), empties.count);
}
