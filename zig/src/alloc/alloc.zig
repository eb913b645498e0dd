//! The allocator of the persistent heap. Its whole state lies in the heap, so committing the heap's
//! pages commits the allocator; what a thread keeps beside it (cache.zig) can be dropped at any time.
//!
//!   base        4096          8192            remote_offset     data_offset (2 MiB aligned)   span
//!    | heap      | allocator   | slice table    | remote table    | data                         |
//!    | header    | header      | 576 B a slice  | 512 B a slice   | slices of 64 KiB             |
//!                  free-run      descriptor and   bits set by       [0, high) tiled by:
//!                  bins, class   bitmap of        threads that      spans of small blocks,
//!                  lists         allocated blocks do not own a      large blocks, free runs;
//!                                                 span; sparse      [high, capacity) zero
//!
//!   A slice's descriptor   kind  what begins here: span, large block, free run; or inside of one
//!   (layout.zig)           owner the thread that may allocate here: session nonce << 16 | slot
//!                          words bit set = block allocated: the only truth
//!                          free_words, remote_words: which words to look at
//!
//!   malloc   newest hint of the thread's cache → set the bit → address
//!   free     address → slice's place in the thread's own table → index by an exact division, which
//!            proves the pointer → bit must be set → clear it, remember a hint; not the owner: set
//!            a mark and put the block into a batch for the owner (away.zig)
//!
//! Rooms: layout (bytes in the heap), classes (sizes), tables (free runs), cache and threads
//! (process side), spans (slow paths), away (other threads' blocks), find (the block of an address),
//! check (proof and statistics). Outside of this folder only this file is used.
//!
//! Invariants: user memory is never read nor written (except to zero or copy a block for its
//! caller), so no use after free can damage the allocator. Nothing found in the tables is followed
//! unchecked: damage is CORRUPT, never a crash. Between `hold` and `release` every block is either
//! allocated or free.

const std = @import("std");
const os = @import("../os/os.zig");
const errors = @import("../errors.zig");
const numbers = @import("../numbers.zig");
const layout = @import("layout.zig");
const classes = @import("classes.zig");
const tables_room = @import("tables.zig");
const caches_room = @import("cache.zig");
const threads = @import("threads.zig");
const spans = @import("spans.zig");
const away = @import("away.zig");
const find = @import("find.zig");
const live_room = @import("live.zig");
const checking = @import("check.zig");

const Error = errors.Error;
const fail = errors.fail;
const Cache = caches_room.Cache;
const Owned = caches_room.Owned;
const Near = caches_room.Near;
const Slice = layout.Slice;
const kind = layout.kind;
const state = layout.state;
const none = layout.none;
const corrupt = tables_room.corrupt;
const assert = std.debug.assert;

pub const Geometry = layout.Geometry;
pub const Supply = tables_room.Supply;
pub const Stats = checking.Stats;
pub const Range = checking.Range;
pub const FreeRuns = checking.FreeRuns;
pub const slice_size = layout.slice_size;
pub const slice_shift = layout.slice_shift;

pub const Options = struct {
    /// Names this session; random, never 0. Spans of other sessions have no owner.
    nonce: u48,
    /// Free runs that the heap was opened with read as zero (private heaps: commits leave holes).
    holes_zero: bool = true,
    membarrier: bool = true,
    /// A thread that ends stores nothing to the heap; `giveUpOrphans` does it later.
    keeps_orphans: bool = false,
};

/// Many blocks are taken or freed in portions, so that nobody who wants to hold the allocator waits
/// long.
const portion = 1024;

/// Dirty free pages are kept up to this much, or half of what is used, before some are given back …
const dirty_slices_kept = (64 << 20) / layout.slice_size;
/// … this much at a time.
const give_back_slices = (16 << 20) / layout.slice_size;

/// Process memory, at a fixed address while it is open. `var a: Allocator = .{}`, then `format` or
/// `open`, and `close` at the end.
pub const Allocator = struct {
    gate: threads.Gate = .{},
    opened: bool = false,
    nonce: u48 = 0,
    tables: tables_room.Tables = undefined,
    entries: [threads.entries_count]threads.Entry align(64) = @splat(.{}),

    /// Guards `tables`, the lists of all spans and adoption.
    lock: os.Mutex align(64) = .{},
    /// Spans of each class that may be worth adopting, and where to look next.
    adoptable: [classes.count]u32 = @splat(0),
    cursor: [classes.count]u32 = @splat(none),

    registry_lock: os.Mutex align(64) = .{},
    cache_count: std.atomic.Value(u32) = .init(0),
    caches: [threads.slots_max]?*Cache = @splat(null),
    /// Whether any thread ever gathered blocks for another in a batch.
    sends: std.atomic.Value(bool) = .init(false),
    alive: [threads.slots_max]std.atomic.Value(bool) = @splat(.init(false)),
    keeps_orphans: bool = false,
    orphan: [threads.slots_max]std.atomic.Value(bool) = @splat(.init(false)),
    shared_lock: os.Mutex = .{},

    hold_lock: os.Mutex align(64) = .{},
    holder: std.atomic.Value(usize) = .init(0),
    hold_depth: u32 = 0,
    next: ?*Allocator = null,

    // -------------------------------------------------------------- opening

    /// Makes an empty allocator in a heap at `base` whose tables are mapped and zero and whose data is
    /// mapped up to `capacity` bytes.
    pub fn format(
        self: *Allocator,
        base: usize,
        geometry: Geometry,
        capacity: u64,
        supply: Supply,
        options: Options,
    ) Error!void {
        assert(capacity <= geometry.maxSize() and capacity % layout.slice_size == 0);
        const header: *layout.Header = @ptrFromInt(base + layout.header_offset);
        header.* = .{
            .magic = layout.magic,
            .version = layout.version,
            .slice_size = layout.slice_size,
            .class_count = classes.count,
            .slices_max = geometry.slices,
            .capacity = @intCast(capacity >> layout.slice_shift),
            .high = 0,
            .used = 0,
            .fl_bits = 0,
            .sl_bits = @splat(0),
            .heads = @splat(@splat(none)),
            .classes = @splat(.{ .head = none, .spans = 0 }),
        };
        return self.open(base, geometry, capacity, supply, options);
    }

    /// Takes over the allocator that lies in the heap at `base`, whose data is mapped up to
    /// `capacity` bytes. On an allocator that is open already (after a restore) everything that was
    /// known before is void; then no other thread gets in meanwhile.
    pub fn open(
        self: *Allocator,
        base: usize,
        geometry: Geometry,
        capacity: u64,
        supply: Supply,
        options: Options,
    ) Error!void {
        assert(options.nonce != 0);
        const header: *layout.Header = @ptrFromInt(base + layout.header_offset);
        try validate(header, base, geometry, capacity);
        const again = self.opened;
        if (again) threads.holdAsItIs(self);
        defer if (again) threads.release(self);
        const owned = try newOwned(geometry.slices);
        var mark_pages = away.MarkPages.init(geometry.slices, header.capacity) catch {
            os.freePages(ownedPages(owned));
            return fail(.OUT_OF_MEMORY, .{}, "Cannot open the heap's allocator: no process memory for {d} slices", .{geometry.slices});
        };
        if (again) self.freeTables();
        self.nonce = options.nonce;
        self.keeps_orphans = options.keeps_orphans;
        self.tables = .{
            .header = header,
            .table = base + layout.table_offset,
            .remote_table = base + geometry.remote_offset,
            .data = base + geometry.data_offset,
            .geometry = geometry,
            .base = base,
            .supply = supply,
            .owned = owned,
            .mark_pages = mark_pages,
            .stamp = @as(u32, @truncate(options.nonce)) | 1,
            .holes_zero = options.holes_zero,
            .capacity = header.capacity,
            .high = header.high,
            .used = header.used,
        };
        self.lookAgain();
        if (again) return threads.resetCaches(self);
        errdefer {
            os.freePages(ownedPages(owned));
            mark_pages.deinit();
        }
        try threads.begin(self, options.membarrier);
        self.opened = true;
    }

    /// Data bytes that the heap at `base` needs mapped, as stored; CORRUPT when there is no sound
    /// allocator header for `geometry`.
    pub fn storedCapacity(base: usize, geometry: Geometry) Error!u64 {
        const header: *const layout.Header = @ptrFromInt(base + layout.header_offset);
        try validate(header, base, geometry, geometry.maxSize());
        return @as(u64, header.capacity) << layout.slice_shift;
    }

    /// Frees the process side; the heap stays as it is. No other thread may be, or come, here.
    pub fn close(self: *Allocator) void {
        if (!self.opened) return;
        threads.finish(self);
        self.freeTables();
        self.opened = false;
    }

    fn freeTables(self: *Allocator) void {
        os.freePages(ownedPages(self.tables.owned));
        self.tables.mark_pages.deinit();
    }

    fn newOwned(slices: u32) Error![]Owned {
        const pages = os.allocatePages(ownedBytes(slices)) catch return fail(
            .OUT_OF_MEMORY,
            .{},
            "Cannot open the heap's allocator: no {d} bytes of process memory for {d} slices",
            .{ ownedBytes(slices), slices },
        );
        return @as([*]Owned, @ptrCast(pages.ptr))[0..slices];
    }

    /// Forgets which spans are owned.
    pub fn dropOwned(self: *Allocator) void {
        const pages = ownedPages(self.tables.owned);
        os.commitAnonymous(@intFromPtr(pages.ptr), pages.len) catch
            @memset(self.tables.owned[0..self.tables.high], .{});
    }

    fn ownedBytes(slices: usize) usize {
        return std.mem.alignForward(usize, slices * @sizeOf(Owned), os.page_size);
    }

    fn ownedPages(owned: []Owned) []align(os.page_size) u8 {
        const pages: [*]align(os.page_size) u8 = @ptrCast(@alignCast(owned.ptr));
        return pages[0..ownedBytes(owned.len)];
    }

    fn validate(header: *const layout.Header, base: usize, geometry: Geometry, capacity: u64) Error!void {
        const at = base + layout.header_offset;
        if (base % layout.slice_size != 0) return corrupt(base, "the heap's address is not a multiple of 64 KiB");
        if (header.magic != layout.magic) return corrupt(at, "no allocator header stands");
        if (header.version != layout.version) return fail(.BAD_VERSION, .{ .address = at }, "Cannot use " ++
            "the heap's allocator: its layout is version {d}, this library reads {d}", .{ header.version, layout.version });
        if (header.slice_size != layout.slice_size or header.class_count != classes.count or
            header.slices_max != geometry.slices)
            return corrupt(at, "the allocator header fits another layout");
        if (header.capacity > capacity >> layout.slice_shift or header.capacity > geometry.slices or
            header.high > header.capacity or header.used > header.high)
            return corrupt(at, "the allocator header's sizes cannot be");
    }

    /// Every span may be worth adopting again.
    pub fn lookAgain(self: *Allocator) void {
        for (&self.adoptable, self.tables.header.classes) |*adoptable, list| {
            adoptable.* = @min(list.spans, self.tables.high);
        }
        self.cursor = @splat(none);
    }

    pub inline fn ownerNumber(self: *const Allocator, slot: u16) u64 {
        return @as(u64, self.nonce) << 16 | slot;
    }

    /// The cache of the living thread that `owner` stands for, if there is one.
    pub fn ownerOf(self: *const Allocator, owner: u64) ?*Cache {
        const slot: u16 = @truncate(owner);
        if (owner >> 16 != self.nonce or slot >= self.cache_count.load(.acquire)) return null;
        if (!self.alive[slot].load(.seq_cst)) return null;
        return self.caches[slot];
    }

    // -------------------------------------------------------------- allocating

    /// A block of at least `size` bytes, aligned to 16; of 0 bytes a unique one all the same.
    pub inline fn malloc(self: *Allocator, size: usize) Error!usize {
        const address = self.tryMalloc(size);
        return if (address != 0) address else self.mallocSlow(size);
    }

    /// A small block that the calling thread's cache knows; 0 when it takes more than that.
    pub inline fn tryMalloc(self: *Allocator, size: usize) usize {
        @setRuntimeSafety(false);
        if (size > classes.size_max) return 0;
        const cache = threads.enter(self) orelse return 0;
        const address = cache.take(cache.by_size[(size + 15) >> 4]);
        threads.leave(cache);
        return address;
    }

    pub fn mallocSlow(self: *Allocator, size: usize) Error!usize {
        return unpack(self.mallocPacked(size));
    }

    noinline fn mallocPacked(self: *Allocator, size: usize) usize {
        if (size > classes.size_max) return pack(self.mallocLarge(size));
        return pack(self.mallocSmall(classes.of(size)) catch |err| again: {
            self.bringHome(err) catch |same| break :again same;
            break :again self.mallocSmall(classes.of(size));
        });
    }

    /// After an allocation that found no memory: what others have freed and not handed over may be what is
    /// missing. Fails with `err` when there is no such thing.
    fn bringHome(self: *Allocator, err: Error) Error!void {
        if (err != error.OUT_OF_MEMORY or !threads.mayHold(self)) return err;
        self.hold();
        self.release();
    }

    fn mallocSmall(self: *Allocator, class: u32) Error!usize {
        const cache = try threads.enterSlow(self);
        defer threads.leaveSlow(self, cache);
        while (true) {
            const address = cache.take(class);
            if (address != 0) return address;
            try spans.refill(self, cache, class);
        }
    }

    fn mallocLarge(self: *Allocator, size: usize) Error!usize {
        return self.tables.addressOf((try self.takeLarge(size, 1)).first);
    }

    fn takeLarge(self: *Allocator, size: usize, alignment_slices: u32) Error!tables_room.Run {
        const slices = try self.slicesOf(size);
        return self.takeLargeInside(slices, alignment_slices) catch |err| {
            try self.bringHome(err);
            return self.takeLargeInside(slices, alignment_slices);
        };
    }

    fn takeLargeInside(self: *Allocator, slices: u32, alignment_slices: u32) Error!tables_room.Run {
        const cache = try threads.enterSlow(self);
        defer threads.leaveSlow(self, cache);
        return self.takeRun(slices, alignment_slices) catch |err| {
            if (err != error.OUT_OF_MEMORY) return err;
            // The empty spans that this thread keeps for itself may be what is missing.
            try spans.trim(self, cache);
            return self.takeRun(slices, alignment_slices);
        };
    }

    fn takeRun(self: *Allocator, slices: u32, alignment_slices: u32) Error!tables_room.Run {
        self.lock.lock();
        defer self.lock.unlock();
        const run = try self.tables.take(slices, alignment_slices);
        const line = self.tables.line(run.first);
        line.slices = slices;
        line.kind = kind.large;
        line.scratch = 0;
        return run;
    }

    fn slicesOf(self: *const Allocator, size: usize) Error!u32 {
        if (size > self.tables.geometry.maxSize()) return fail(
            .OUT_OF_MEMORY,
            .{},
            "Cannot allocate {d} bytes: the heap may grow to {d}; open it with a larger maxSize",
            .{ size, self.tables.geometry.maxSize() },
        );
        return @intCast(@max(1, (size + layout.slice_size - 1) >> layout.slice_shift));
    }

    /// `count` times `size` zeroed bytes.
    pub fn calloc(self: *Allocator, count: usize, size: usize) Error!usize {
        const product = @mulWithOverflow(count, size);
        if (product[1] != 0) return fail(
            .OUT_OF_MEMORY,
            .{},
            "Cannot allocate {d} times {d} bytes: more than any heap holds",
            .{ count, size },
        );
        if (product[0] <= classes.size_max) {
            const address = try self.malloc(product[0]);
            @memset(bytesAt(address, product[0]), 0);
            return address;
        }
        const run = try self.takeLarge(product[0], 1);
        const address = self.tables.addressOf(run.first);
        const dirty = @as(usize, run.dirty) << layout.slice_shift;
        @memset(bytesAt(address, @min(dirty, product[0])), 0);
        return address;
    }

    /// Zeroed bytes that commits leave out: the block stays allocated, its contents are zero again
    /// when the heap is opened or restored. It takes whole slices.
    pub fn scratch(self: *Allocator, size: usize) Error!usize {
        const run = try self.takeLarge(size, 1);
        const address = self.tables.addressOf(run.first);
        {
            const cache = try threads.enterSlow(self);
            defer threads.leaveSlow(self, cache);
            self.tables.line(run.first).scratch = 1;
        }
        const dirty = @as(usize, run.dirty) << layout.slice_shift;
        @memset(bytesAt(address, @min(dirty, std.mem.alignForward(usize, size, layout.slice_size))), 0);
        return address;
    }

    fn isScratch(self: *Allocator, address: usize) Error!bool {
        const cache = try threads.enterSlow(self);
        defer threads.leaveSlow(self, cache);
        return switch (try find.locate(self, address, "resize")) {
            .small => false,
            .large => |block| self.tables.line(block.first).scratch == 1,
        };
    }

    /// A block whose address is a multiple of `alignment`, a power of two.
    pub fn alignedAlloc(self: *Allocator, alignment: usize, size: usize) Error!usize {
        if (alignment == 0 or !std.math.isPowerOfTwo(alignment)) return fail(
            .INVALID_ARGUMENT,
            .{},
            "Cannot align a block to {d}: give a power of two",
            .{alignment},
        );
        if (alignment <= 16) return self.malloc(size);
        if (classes.ofAligned(size, alignment)) |class| return self.malloc(classes.table[class].size);
        const slices = try self.slicesOf(@max(alignment, 1));
        const run = try self.takeLarge(size, std.math.ceilPowerOfTwoAssert(u32, slices));
        return self.tables.addressOf(run.first);
    }

    /// Fills `out` with blocks of `size` bytes each, or allocates none.
    pub fn mallocMany(self: *Allocator, size: usize, out: []f64) Error!void {
        var done: usize = 0;
        errdefer self.freeMany(out[0..done], null) catch {};
        if (size <= classes.size_max) {
            const class = classes.of(size);
            while (done < out.len) self.takePortion(class, out, &done) catch |err| {
                try self.bringHome(err);
                try self.takePortion(class, out, &done);
            };
        } else while (done < out.len) : (done += 1) {
            out[done] = @floatFromInt(try self.mallocLarge(size));
        }
    }

    fn takePortion(self: *Allocator, class: u32, out: []f64, done: *usize) Error!void {
        const cache = try threads.enterSlow(self);
        defer threads.leaveSlow(self, cache);
        try spans.takeMany(self, cache, class, out[0..@min(out.len, done.* + portion)], done);
    }

    // -------------------------------------------------------------- freeing

    /// Frees a block that any thread allocated; 0 is nothing. BAD_POINTER for what is no block's
    /// address, DOUBLE_FREE for a block that is free.
    pub inline fn free(self: *Allocator, address: usize) Error!void {
        if (!self.tryFree(address)) return self.freeSlow(address);
    }

    /// Frees a block of a span that the calling thread owns; false, and nothing done, when there is
    /// more to it.
    pub inline fn tryFree(self: *Allocator, address: usize) bool {
        const cache = threads.enter(self) orelse return false;
        const near = cache.nearOf(address);
        if (near.marked != 0) {
            @branchHint(.unlikely);
            return freeMarked(cache, address);
        }
        const done = freeOwn(cache, near, address);
        threads.leave(cache);
        return done;
    }

    /// A block that another thread freed has its bit until it arrives. Apart, since its registers would
    /// be saved in every `free`.
    noinline fn freeMarked(cache: *Cache, address: usize) bool {
        @setRuntimeSafety(false);
        const near = cache.nearOf(address);
        const index = near.indexOf(address);
        const done = index < layout.blocks_max and
            @atomicLoad(u8, cache.marks.of(near.class, near.first, index), .monotonic) == 0 and
            freeOwn(cache, near, address);
        threads.leave(cache);
        return done;
    }

    /// Where a block that is freed comes from: of one that is `here` a mark tells if another thread
    /// freed it; one that was `away` has its mark still.
    pub const From = enum { here, away };

    /// Frees a block of a span that `cache` owns, if nothing changes but bits of the span.
    pub inline fn freeOwn(cache: *Cache, near: *const Near, address: usize) bool {
        @setRuntimeSafety(false);
        const index = near.indexOf(address);
        if (index >= layout.blocks_max) {
            @branchHint(.unlikely);
            return false;
        }

        // From here on `index` is not kept: `free` has no register for it.
        const bit = caches_room.inRegister(u64, near.bits + index);
        const word: caches_room.Word = .of(bit);
        var left = word.load();
        if (!caches_room.takeBit(&left, bit)) {
            @branchHint(.unlikely);
            return false;
        }
        // The last block of its word may be the last of its span, which then is given up.
        if (left == 0) {
            @branchHint(.unlikely);
            if (near.line().kept == 0 and near.line().state != state.current) return false;
        }
        if (!cache.push(near.class, address, bit)) {
            @branchHint(.unlikely);
            // No room for a hint: the summary tells of the block, in a span that is in a list.
            const line = near.line();
            if (line.state == state.idle) return false;
            line.free_words |= @as(u64, 1) << @truncate((bit - near.bits) / 64);
            word.store(left);
            return true;
        }
        word.store(left);
        // It will be handed out next in its class, and then be written to.
        @prefetch(@as(*allowzero const u8, @ptrFromInt(address)), .{ .rw = .write, .locality = 3 });
        return true;
    }

    pub noinline fn freeSlow(self: *Allocator, address: usize) Error!void {
        // Blocks of other threads' spans are common where one thread makes what another uses up.
        if (threads.enter(self)) |cache| {
            const done = self.freeOther(cache, address);
            threads.leave(cache);
            if (done) return;
        }
        return self.freeRest(address);
    }

    noinline fn freeRest(self: *Allocator, address: usize) Error!void {
        @branchHint(.cold);
        if (address == 0) return;
        const cache = try threads.enterSlow(self);
        defer threads.leaveSlow(self, cache);
        return self.freeInside(cache, address, .here);
    }

    /// Frees a block of a span that another living thread owns; false, and nothing done, when there
    /// is more to it. What is read of the span may be changing meanwhile, but not while it has a
    /// block that is allocated; whatever is read leads to bitmaps.
    inline fn freeOther(self: *Allocator, cache: *Cache, address: usize) bool {
        @setRuntimeSafety(false);
        const offset = address -% cache.data;
        const slice = offset >> layout.slice_shift;
        if (slice >= cache.slices) return false;
        const owned = &cache.owned[slice];
        const mark = owned.owner;
        const class = owned.class;
        const words = owned.words orelse return false;
        if (mark == 0 or mark == cache.mark or class >= classes.count) return false;
        const first = owned.first;
        const within = offset -% (@as(usize, first) << layout.slice_shift);
        const index = classes.indexOf(classes.reciprocals[class], within) orelse return false;
        if (index >= layout.blocks_max) return false;
        const back = slice -% first;
        if (back >= layout.span_slices_max) return false;
        if (!self.alive[mark - 1].load(.seq_cst)) return false;
        // The mark before the bit: the owner clears them the other way round.
        const away_mark = cache.marks.of(class, first, index);
        if (@atomicLoad(u8, away_mark, .acquire) != 0) return false;
        if (@atomicLoad(u64, &words[index / 64], .monotonic) >> @truncate(index) & 1 == 0) return false;
        if (owned.marked == 0) {
            @branchHint(.unlikely);
            away.tell(self, @intCast(slice), self.caches[mark - 1].?);
        }
        // Of two threads that free it at the same time one finds the other's mark.
        if (@atomicRmw(u8, away_mark, .Xchg, 1, .acq_rel) != 0) return false;
        return away.send(self, cache, mark, class, address, back) or
            spans.freeRemote(self, .{ .slice = first, .class = class, .index = @intCast(index) }, self.caches[mark - 1].?);
    }

    pub fn freeInside(self: *Allocator, cache: *Cache, address: usize, comptime from: From) Error!void {
        switch (try find.locate(self, address, "free")) {
            .large => |block| if (from == .here)
                try self.freeLarge(block.first, block.slices)
            else
                return find.doubleFree(address),
            .small => |block| {
                const line = self.tables.line(block.slice);
                while (true) {
                    const owner = @atomicLoad(u64, &line.owner, .seq_cst);
                    if (from == .here and (owner != cache.owner or self.isMarked(address))) try self.expectHere(address, block);
                    if (owner == cache.owner) break;
                    if (self.ownerOf(owner)) |other| {
                        if (spans.freeRemote(self, block, other)) return;
                        return find.doubleFree(address);
                    }
                    if (spans.ownNow(self, cache, block.slice)) break;
                }
                try self.freeOwned(cache, address, block);
            },
        }
    }

    /// Whether the block at `address`, of a span that has an owner, may have a mark.
    fn isMarked(self: *const Allocator, address: usize) bool {
        return @atomicLoad(u8, &self.tables.owned[(address - self.tables.data) >> layout.slice_shift].marked, .monotonic) != 0;
    }

    /// DOUBLE_FREE for a block that another thread freed. The mark before the bit: the owner clears
    /// them the other way round.
    fn expectHere(self: *Allocator, address: usize, block: find.Small) Error!void {
        const mark = @atomicLoad(u8, self.tables.mark_pages.marks.of(block.class, block.slice, block.index), .acquire);
        const word = @atomicLoad(u64, &self.tables.line(block.slice).words[block.index / 64], .monotonic);
        if (mark != 0 or word >> @truncate(block.index) & 1 == 0) return find.doubleFree(address);
    }

    fn freeOwned(self: *Allocator, cache: *Cache, address: usize, block: find.Small) Error!void {
        const line = self.tables.line(block.slice);
        const w = block.index / 64;
        const mask = @as(u64, 1) << @truncate(block.index);
        const word_mask = @as(u64, 1) << @intCast(w);
        if (line.words[w] & mask == 0) {
            try spans.settle(self, cache, block.slice);
            return find.doubleFree(address);
        }
        line.words[w] ^= mask;
        if (self.isMarked(address)) @atomicStore(u8, cache.marks.of(block.class, block.slice, block.index), 0, .release);
        line.free_words |= word_mask;
        const start = self.tables.addressOf(block.slice);
        cache.note(address, start, block.class, &line.words);
        const bit = caches_room.bitAt(&line.words, block.index);
        if (!cache.push(line.class, address, bit)) {
            try spans.forgetOlder(self, cache, line.class);
            _ = cache.push(line.class, address, bit);
        }
        try spans.settle(self, cache, block.slice);
    }

    fn freeLarge(self: *Allocator, first: u32, slices: u32) Error!void {
        self.lock.lock();
        defer self.lock.unlock();
        self.tables.line(first).kind = kind.none;
        try self.tables.give(first, slices);
        try self.giveBackSome();
    }

    /// Frees every address; stops at the first bad one, whose index is put into `bad`.
    pub fn freeMany(self: *Allocator, pointers: []const f64, bad: ?*usize) Error!void {
        var done: usize = 0;
        while (true) {
            if (threads.enter(self)) |cache| {
                done += freeRun(cache, pointers[done..@min(pointers.len, done + portion)]);
                threads.leave(cache);
            }
            if (done == pointers.len) return;
            if (bad) |out| out.* = done;
            const address = numbers.whole(pointers[done]) orelse return fail(
                .BAD_POINTER,
                .{},
                "Cannot free {d}: it is no address",
                .{pointers[done]},
            );
            try self.freeSlow(address);
            done += 1;
        }
    }

    /// Frees blocks of spans that `cache` owns, as long as nothing changes but bits of the spans:
    /// how many it freed. They get no hints. What was taken together is often freed together: a pointer
    /// to the block behind the last one needs no division, and leads to the same bitmap word.
    fn freeRun(cache: *Cache, pointers: []const f64) usize {
        @setRuntimeSafety(false);
        var start: usize = 0;
        var span_bytes: usize = 0;
        var size: f64 = 0;
        var reciprocal: u64 = 0;
        var line: *Slice = undefined;
        var owned: *const Owned = undefined;
        var marked = false;
        var i: usize = 0;
        while (i < pointers.len) : (i += 1) {
            const address = numbers.exact(pointers[i]) orelse return i;
            if (address -% start >= span_bytes) {
                const slice = (address -% cache.data) >> layout.slice_shift;
                if (slice >= cache.slices) return i;
                owned = &cache.owned[slice];
                if (owned.owner != cache.mark) return i;
                const class = &classes.table[owned.class];
                start = cache.data + (@as(usize, owned.first) << layout.slice_shift);
                span_bytes = @as(usize, class.slices) << layout.slice_shift;
                size = @floatFromInt(class.size);
                reciprocal = classes.reciprocals[owned.class];
                line = owned.line();
                marked = false;
                for (cache.owned[owned.first..][0..class.slices]) |*each| marked = marked or each.marked != 0;
            }
            const index = classes.indexOf(reciprocal, address - start) orelse return i;
            const word = &line.words[index / 64];
            const word_mask = @as(u64, 1) << @truncate(index / 64);
            var mask = @as(u64, 1) << @truncate(index);
            var left = word.*;
            if (left & mask == 0 or line.state == state.idle) return i;
            // Blocks that other threads freed have their bits until they arrive.
            if (marked and cache.marks.of(owned.class, owned.first, index).* != 0) return i;
            if (left == mask and line.kept == 0 and line.state != state.current) return i;
            left ^= mask;
            line.free_words |= word_mask;
            if (i + 1 < pointers.len and pointers[i + 1] == pointers[i] + size) {
                const may_empty = line.kept != 0 or line.state == state.current;
                while (true) {
                    mask <<= 1;
                    if (left & mask == 0 or (left == mask and !may_empty)) break;
                    if (marked and cache.marks.of(owned.class, owned.first, index / 64 * 64 + @ctz(mask)).* != 0) break;
                    left ^= mask;
                    i += 1;
                    if (i + 1 >= pointers.len or pointers[i + 1] != pointers[i] + size) break;
                }
            }
            word.* = left;
        }
        return i;
    }

    // -------------------------------------------------------------- finding a block

    /// Bytes that the block at `address` may be used for.
    pub fn usableSize(self: *Allocator, address: usize) Error!usize {
        const cache = try threads.enterSlow(self);
        defer threads.leaveSlow(self, cache);
        return switch (try find.locate(self, address, "use")) {
            .small => |block| classes.table[block.class].size,
            .large => |block| @as(usize, block.slices) << layout.slice_shift,
        };
    }

    // -------------------------------------------------------------- resizing

    /// Changes a block's size, in place where it can; 0 as address is malloc. The old block stays
    /// when it fails.
    pub fn realloc(self: *Allocator, address: usize, size: usize) Error!usize {
        if (address == 0) return self.malloc(size);
        const old = try self.resizeInside(address, size, true) orelse return address;
        const is_scratch = old >= layout.slice_size and try self.isScratch(address);
        if (is_scratch and size <= old and try self.resizeInPlace(address, size)) return address;
        const new = if (is_scratch) try self.scratch(size) else try self.malloc(size);
        const kept = @min(old, size);
        @memcpy(bytesAt(new, kept), bytesAt(address, kept));
        try self.free(address);
        return new;
    }

    /// Changes a block's size without moving it, or says that it cannot.
    pub fn resizeInPlace(self: *Allocator, address: usize, size: usize) Error!bool {
        return try self.resizeInside(address, size, false) == null;
    }

    /// Null when the block has the size now; otherwise its usable size, nothing changed. With
    /// `may_move` a block that would waste more than half of itself is not left as it is.
    fn resizeInside(self: *Allocator, address: usize, size: usize, may_move: bool) Error!?usize {
        const cache = try threads.enterSlow(self);
        defer threads.leaveSlow(self, cache);
        switch (try find.locate(self, address, "resize")) {
            .small => |block| {
                const usable: usize = classes.table[block.class].size;
                const fits = size <= usable and (!may_move or size > usable / 2 or usable <= 32);
                return if (fits) null else usable;
            },
            .large => |block| {
                const usable = @as(usize, block.slices) << layout.slice_shift;
                if (size <= classes.size_max and may_move) return usable;
                const slices = try self.slicesOf(size);
                return if (try self.resizeLarge(block.first, block.slices, slices)) null else usable;
            },
        }
    }

    fn resizeLarge(self: *Allocator, first: u32, old: u32, new: u32) Error!bool {
        if (new == old) return true;
        self.lock.lock();
        defer self.lock.unlock();
        if (new > old) {
            if (try self.tables.takeAt(first + old, new - old) == null) return false;
        } else {
            try self.tables.give(first + new, old - new);
        }
        self.tables.line(first).slices = new;
        try self.giveBackSome();
        return true;
    }

    // -------------------------------------------------------------- the whole

    /// Stops all other threads outside of the allocator, its metadata complete; the calling thread
    /// may go on allocating. Nests.
    pub fn hold(self: *Allocator) void {
        threads.hold(self);
    }

    pub fn release(self: *Allocator) void {
        threads.release(self);
    }

    /// Begins a change of something that a commit must find whole: whoever wants to hold the
    /// allocator waits for `endChange`. In between this thread may allocate. Does not nest.
    pub inline fn beginChange(self: *Allocator) Error!*Cache {
        return threads.beginChange(self);
    }

    pub inline fn endChange(_: *Allocator, change: *Cache) void {
        threads.endChange(change);
    }

    /// Data bytes usable before the heap grows.
    pub fn capacityBytes(self: *const Allocator) u64 {
        return @as(u64, @atomicLoad(u32, &self.tables.capacity, .monotonic)) << layout.slice_shift;
    }

    /// Makes at least `new_capacity` bytes usable.
    pub fn grow(self: *Allocator, new_capacity: u64) Error!void {
        const slices = try self.slicesOf(new_capacity);
        const cache = try threads.enterSlow(self);
        defer threads.leaveSlow(self, cache);
        self.lock.lock();
        defer self.lock.unlock();
        if (!self.tables.growTo(slices)) return self.tables.refusal() orelse fail(
            .OUT_OF_MEMORY,
            .{},
            "Cannot grow the heap to {d} bytes: the system gives no more memory",
            .{new_capacity},
        );
    }

    /// Bytes of spans and large blocks, free blocks in spans included.
    pub fn usedBytes(self: *const Allocator) u64 {
        return @as(u64, @atomicLoad(u32, &self.tables.used, .monotonic)) << layout.slice_shift;
    }

    /// Gives up spans that hold nothing but are kept for the next allocation, of all threads, and
    /// returns up to `bytes` of free pages to the system.
    pub fn trim(self: *Allocator, bytes: u64) Error!void {
        self.hold();
        defer self.release();
        for (self.caches[0..self.cache_count.load(.acquire)], 0..) |cache, slot| {
            if (!self.alive[slot].load(.seq_cst)) continue;
            try spans.collectPending(self, cache.?, cache.?);
            try spans.trim(self, cache.?);
        }
        try spans.trimOwnerless(self, self.caches[0].?);
        self.lock.lock();
        defer self.lock.unlock();
        var left = bytes >> layout.slice_shift;
        while (left > 0) {
            const given = try self.tables.giveBack(@intCast(@min(left, give_back_slices)));
            if (given == 0) return;
            left -= given;
        }
    }

    /// Returns some dirty free pages to the system when there are many. Lock held.
    pub fn giveBackSome(self: *Allocator) Error!void {
        const t = &self.tables;
        if (t.dirty_free <= @max(dirty_slices_kept, t.used / 2)) return;
        if (t.refused_at != 0 and t.dirty_free < t.refused_at + dirty_slices_kept / 2) return;
        _ = try t.giveBack(give_back_slices);
    }

    /// Walks and proves everything; CORRUPT names what is wrong. Holds other threads meanwhile.
    pub fn check(self: *Allocator) Error!void {
        self.hold();
        defer self.release();
        return checking.check(self);
    }

    pub fn stats(self: *Allocator) Error!Stats {
        self.hold();
        defer self.release();
        return checking.stats(self);
    }

    /// Live blocks from `from` on in order of address, as many as `out` holds. Holds other threads.
    pub fn liveBlocks(self: *Allocator, from: usize, out: []live_room.Live) Error!usize {
        return live_room.liveBlocks(self, from, out);
    }

    /// The parts of the heap that may hold bytes other than zero, as offsets from its base. Held.
    pub fn usedRanges(self: *const Allocator) [Range.used_count]Range {
        return checking.usedRanges(self);
    }

    /// The free runs within those parts, as offsets from the heap's base: a commit leaves them out,
    /// opening makes them zero. Held.
    pub fn freeRuns(self: *const Allocator) FreeRuns {
        return .{ .tables = &self.tables };
    }

    /// Free runs and scratch blocks: what commits leave out.
    pub fn unkeptRuns(self: *const Allocator) FreeRuns {
        return .{ .tables = &self.tables, .with_scratch = true };
    }

    /// Lets go of what threads that ended still own. Held.
    pub fn giveUpOrphans(self: *Allocator) void {
        threads.giveUpOrphans(self);
    }

    /// Scratch blocks alone.
    pub fn scratchRuns(self: *const Allocator) FreeRuns {
        return .{ .tables = &self.tables, .with_scratch = true, .with_free = false };
    }

    /// Whether the calling thread is in the allocator: a signal handler that interrupted it asks.
    pub fn callerIsInside(self: *Allocator) bool {
        return threads.callerIsInside(self);
    }

    /// In a forked child, for the thread that forked.
    pub fn afterFork(self: *Allocator) void {
        threads.afterFork(self);
    }

    // -------------------------------------------------------------- std.mem.Allocator

    pub fn allocator(self: *Allocator) std.mem.Allocator {
        return .{ .ptr = self, .vtable = &.{
            .alloc = stdAlloc,
            .resize = stdResize,
            .remap = stdRemap,
            .free = stdFree,
        } };
    }

    fn stdAlloc(context: *anyopaque, len: usize, alignment: std.mem.Alignment, _: usize) ?[*]u8 {
        const self: *Allocator = @ptrCast(@alignCast(context));
        const address = self.alignedAlloc(alignment.toByteUnits(), len) catch return null;
        return @ptrFromInt(address);
    }

    fn stdResize(context: *anyopaque, memory: []u8, _: std.mem.Alignment, new_len: usize, _: usize) bool {
        const self: *Allocator = @ptrCast(@alignCast(context));
        return self.resizeInPlace(@intFromPtr(memory.ptr), new_len) catch false;
    }

    fn stdRemap(context: *anyopaque, memory: []u8, alignment: std.mem.Alignment, new_len: usize, ra: usize) ?[*]u8 {
        return if (stdResize(context, memory, alignment, new_len, ra)) memory.ptr else null;
    }

    fn stdFree(context: *anyopaque, memory: []u8, _: std.mem.Alignment, _: usize) void {
        const self: *Allocator = @ptrCast(@alignCast(context));
        self.free(@intFromPtr(memory.ptr)) catch {};
    }
};

/// A result in one register: errors are numbered far below any address.
fn pack(result: Error!usize) usize {
    return result catch |err| @intFromError(err);
}

inline fn unpack(packed_result: usize) Error!usize {
    if (packed_result > std.math.maxInt(u16)) return packed_result;
    return @errorCast(@errorFromInt(@as(u16, @intCast(packed_result))));
}

fn bytesAt(address: usize, len: usize) []u8 {
    return @as([*]u8, @ptrFromInt(address))[0..len];
}

test {
    _ = layout;
    _ = classes;
    _ = tables_room;
    _ = caches_room;
    _ = threads;
    _ = spans;
    _ = checking;
    _ = @import("test_alloc.zig");
    _ = @import("test_threads.zig");
    _ = @import("test_many.zig");
    _ = @import("test_away.zig");
    _ = live_room;
}
