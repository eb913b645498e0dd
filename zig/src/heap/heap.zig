//! A heap: one mapped range with an allocator whose whole state lies inside it, at most two images
//! it is committed to, and what this process has registered with it. The files of this room:
//! open.zig (making and opening), commit.zig (commits and restores), background.zig and staging.zig
//! (commits that end on another thread), header.zig (the first page),
//! blocks.zig (persistent globals), ranges.zig (addresses), attach.zig (other threads),
//! shared.zig (heaps that are mapped from a file), perm_block.zig (PERM's own memory).
//!
//! Invariants: `mutex` is held by whoever commits, restores, registers, opens or closes an image;
//! the allocator's hold is taken inside it, never the other way round. A heap that failed half-way
//! is closed, not half open. The struct of a closed heap stays allocated, so that a stale handle
//! finds another number in it and is CLOSED.

const std = @import("std");
const os = @import("../os/os.zig");
const errors = @import("../errors.zig");
const numbers = @import("../numbers.zig");
const threads = @import("../alloc/threads.zig");
const abi = @import("../abi.zig");
const attachments = @import("attach.zig");
const background = @import("background.zig");
const blocks = @import("blocks.zig");
const Lock = @import("locks.zig").Lock;
const ranges = @import("ranges.zig");
const opening = @import("open.zig");
const committing = @import("commit.zig");
const Shared = @import("shared.zig").Shared;
const Header = @import("header.zig").Header;
const alloc_room = @import("../alloc/alloc.zig");
const image_room = @import("../image/image.zig");
const tracker_room = @import("../tracker/tracker.zig");

const Error = errors.Error;
const fail = errors.fail;
const Image = image_room.Image;
const records = abi.records;
const gpa = os.page_allocator;

pub const Mode = enum { w, rw, r };
pub const Which = enum { map, backup };

/// Where an opened heap's contents came from; numbers of the ABI.
pub const Resumed = enum(u8) { new = 0, file = 1, backup = 2 };

/// What TypeScript, C and Zig can ask for when a heap or an image is opened. Zero: not given.
pub const OpenOptions = struct {
    path: ?[]const u8 = null,
    backup: ?[]const u8 = null,
    mode: Mode = .w,
    size: u64 = 0,
    max_size: u64 = 0,
    address: u64 = 0,
    tracker: tracker_room.Wanted = .auto,
    keep: u64 = 1,
    log_limit: u64 = 0,
    shared: bool = false,
    verify: bool = false,
    recover: bool = false,
    replace: bool = false,
    /// A backup file opened with "w+" may hold another heap, as in PERM; else that takes `replace`.
    any_heap: bool = false,
};

pub const RestoreOptions = struct {
    epoch: ?u64 = null,
    from: ?Which = null,
    verify: bool = false,
    /// Views of the heap are out: it must not move.
    views: bool = false,
};

pub const Block = struct { id: u64 = 0, address: u64, found: bool };

pub const Access = enum { read, write };

/// Whether a heap that was closed had the address.
pub const wasHeap = ranges.isRetired;

pub const heaps_max = 4096;

var table: [heaps_max]?*Heap = @splat(null);
var table_lock: os.Mutex = .{};
var fork_hook_made = false;
/// The thread that forks just now, and its handlers that have begun.
var forking: std.atomic.Value(usize) = .init(0);
var fork_depth: u32 = 0;

pub const Heap = struct {
    /// Place in the table (low 12 bits) and how many heaps that place has had; 0 when closed.
    handle: u64 = 0,
    index: u64,
    generation: u64 = 0,
    mode: Mode = .w,
    alloc: alloc_room.Allocator = .{},
    /// The whole range: `[address, address + geometry.span)`.
    address: usize = 0,
    geometry: alloc_room.Geometry = undefined,
    /// Bytes from `address` on that views may show, from before a restore to a smaller heap.
    reach: u64 = 0,
    resumed: Resumed = .new,
    dropped: bool = false,
    /// Runs of log pages that the last open or restore laid over the base.
    log_runs: u64 = 0,
    commits: u64 = 0,
    process: u32 = 0,
    /// The thread that opened it has ended without closing it: the last one that is attached will.
    deserted: bool = false,
    nonce: u64 = 0,
    /// Whose locks in the heap are held (locks.zig): another one after each restore.
    lock_session: std.atomic.Value(u32) = .init(0),
    /// Between threads that change the heap and one that wants it still; nothing of it is stored.
    gate: Lock = std.mem.zeroes(Lock),
    gate_session: std.atomic.Value(u32) = .init(1),
    mutex: os.Mutex = .{},
    history: image_room.History = .{},
    map: ?*Image = null,
    backup: ?*Image = null,
    /// The file that the heap itself lies in, in place of a map image.
    shared: ?*Shared = null,
    registry: blocks.Registry = .{},
    tracker: tracker_room.Tracker = undefined,
    /// Commits under way that nobody waits for.
    background: background.Background = .{},

    pub const mopen = opening.mopen;
    pub const openNewest = opening.openNewest;
    pub const bopen = opening.bopen;
    pub const commit = committing.commit;
    pub const commitAsync = committing.commitAsync;
    pub const restore = committing.restore;

    // -------------------------------------------------------------- the table of heaps

    pub inline fn find(handle: u64) ?*Heap {
        const heap = table[handle % heaps_max] orelse return null;
        return if (heap.handle == handle and handle != 0) heap else null;
    }

    /// A closed heap's struct to open anew. The caller sets `handle` by `publish` when it is whole.
    pub fn acquire() Error!*Heap {
        table_lock.lock();
        defer table_lock.unlock();
        if (!fork_hook_made) {
            fork_hook_made = os.aroundFork(beforeFork, forkInParent, forkInChild);
        }
        for (&table, 0..) |*slot, index| {
            if (slot.*) |heap| {
                if (heap.generation & 1 == 1) continue;
                heap.* = .{ .index = index, .generation = heap.generation + 1 };
                return heap;
            }
            const heap = gpa.create(Heap) catch return fail(.OUT_OF_MEMORY, .{}, "Cannot open a heap: no process " ++
                "memory left", .{});
            heap.* = .{ .index = index, .generation = 1 };
            slot.* = heap;
            return heap;
        }
        return fail(.OUT_OF_MEMORY, .{}, "Cannot open a heap: {d} are open; close some", .{heaps_max});
    }

    pub fn publish(self: *Heap) void {
        std.debug.assert(self.generation & 1 == 1);
        // Who forks just now has looked which heaps there are, and gives free what it has held.
        table_lock.lock();
        defer table_lock.unlock();
        self.process = os.processId();
        self.nonce = os.randomU64();
        self.voidLocks();
        self.handle = self.generation * heaps_max + self.index;
        self.setKey();
    }

    /// For calls that take the short way: heaps that may be changed and lie where addresses are near.
    pub fn setKey(self: *Heap) void {
        const near = self.address >= numbers.near_first and self.address + self.geometry.span <= numbers.near_end;
        self.alloc.gate.key = if (near and self.mode != .r) @floatFromInt(self.handle) else threads.no_key;
    }

    /// From now on every handle of this heap is CLOSED.
    pub fn conceal(self: *Heap) void {
        self.handle = 0;
        self.alloc.gate.key = threads.no_key;
    }

    /// Gives up a heap that was acquired; its range has been dealt with.
    pub fn relinquish(self: *Heap) void {
        table_lock.lock();
        defer table_lock.unlock();
        self.conceal();
        self.generation += 1;
    }

    // -------------------------------------------------------------- forks

    /// Before fork(): waits until no other thread changes a heap, and keeps all of them out of every
    /// allocator, so that the child's copies are whole. Then `forkInParent` or `forkInChild`. Nests: C
    /// programs have handlers of their own around these.
    pub fn beforeFork() callconv(.c) void {
        if (forking.load(.monotonic) == os.threadId()) {
            fork_depth += 1;
            return;
        }
        table_lock.lock();
        for (table) |slot| if (slot) |heap| {
            heap.mutex.lock();
            if (heap.handle == 0) heap.mutex.unlock() else heap.alloc.hold();
        };
        forking.store(os.threadId(), .monotonic);
        fork_depth = 1;
    }

    pub fn forkInParent() callconv(.c) void {
        fork_depth -= 1;
        if (fork_depth > 0) return;
        forking.store(0, .monotonic);
        for (table) |slot| if (slot) |heap| if (heap.handle != 0) {
            heap.alloc.release();
            heap.mutex.unlock();
        };
        table_lock.unlock();
    }

    pub fn forkInChild() callconv(.c) void {
        fork_depth -= 1;
        if (fork_depth > 0) return;
        forking.store(0, .monotonic);
        for (table) |slot| if (slot) |heap| {
            heap.mutex = .{};
            if (heap.handle == 0) continue;
            if (heap.shared) |shared| shared.afterFork(heap);
            heap.alloc.afterFork();
            for (heap.images()) |image_slot| if (image_slot) |im| im.afterFork();
        };
        table_lock = .{};
        errors.afterFork();
    }

    // -------------------------------------------------------------- small things

    pub fn header(self: *Heap) *Header {
        return @ptrFromInt(self.address);
    }

    pub fn images(self: *Heap) [2]?*Image {
        return .{ self.map, self.backup };
    }

    pub fn image(self: *Heap, which: Which) Error!*Image {
        return switch (which) {
            .map => self.map orelse if (self.shared != null) self.noEpochs() else fail(.NOT_OPEN, .{}, "The heap has no map file; open it with a path, or use the " ++
                "backup file", .{}),
            .backup => self.backup orelse fail(.NOT_OPEN, .{}, "The heap has no backup file; bopen() one first", .{}),
        };
    }

    fn noEpochs(self: *Heap) Error {
        const path = self.shared.?.file.path();
        return fail(.UNSUPPORTED, .{ .path = path }, "Cannot go back in shared heap \"{s}\": its file holds the heap as it is " ++
            "and nothing else; bopen() a backup file, and restore from that", .{path});
    }

    pub fn identity(self: *Heap) image_room.Identity {
        return .{
            .uuid = self.header().uuid,
            .address = self.address,
            .span = self.geometry.span,
            .capacity = self.alloc.capacityBytes(),
            .max_size = self.geometry.maxSize(),
            .used = self.alloc.usedBytes(),
        };
    }

    pub fn readOnly(self: *Heap) Error {
        const path = if (self.map) |im| im.path() else if (self.shared) |shared| shared.file.path() else "";
        return fail(.READ_ONLY, .{ .path = path }, "The heap \"{s}\" was opened with mode \"r\"; open it with \"r+\" " ++
            "to change it", .{path});
    }

    pub fn lock(self: *Heap) Error!void {
        self.mutex.lock();
        if (self.handle != 0) return;
        self.mutex.unlock();
        return fail(.CLOSED, .{}, "The heap is closed; open it again", .{});
    }

    /// Whether the address lies in the heap's range.
    pub fn holds(self: *const Heap, address: usize) bool {
        return address -% self.address < self.geometry.span;
    }

    pub fn expectProcess(self: *Heap) Error!void {
        if (self.process == os.processId()) return;
        return fail(.FORKED, .{}, "The heap belongs to process {d}, of which this one is a fork: it may read and " ++
            "write its copy, not commit it", .{self.process});
    }

    /// The heap's memory as blocks see it now.
    pub fn memory(self: *Heap) blocks.Memory {
        return .{
            .address = self.address,
            .at = self.address,
            .data_offset = self.geometry.data_offset,
            .len = self.geometry.data_offset + self.alloc.capacityBytes(),
        };
    }

    /// Only the data area may be viewed: the allocator's tables are not the program's.
    pub fn expectRange(self: *Heap, address: u64, len: u64) Error!void {
        if (self.memory().slice(address, len) != null) return;
        return fail(.BAD_POINTER, .{ .address = address }, "Cannot view {d} bytes at 0x{x}: they do not lie within the " ++
            "heap's data, 0x{x} to 0x{x}", .{
            len,                                      address,
            self.address + self.geometry.data_offset, self.address + self.geometry.data_offset + self.alloc.capacityBytes(),
        });
    }

    /// Ends the session that locks in the heap are held in.
    pub fn voidLocks(self: *Heap) void {
        self.lock_session.store(@as(u32, @truncate(os.randomU64())) | 1, .release);
    }

    /// What a lock at that address, or the heap's gate for 0, is held in.
    pub fn sessionOf(self: *Heap, address: u64) *const std.atomic.Value(u32) {
        return if (address == 0) &self.gate_session else &self.lock_session;
    }

    /// The lock at that address, or the heap's gate for 0.
    pub fn lockAt(self: *Heap, address: u64) Error!*Lock {
        if (address == 0) return &self.gate;
        try self.expectRange(address, @sizeOf(Lock));
        if (address % @alignOf(Lock) == 0) return @ptrFromInt(address);
        return fail(.BAD_POINTER, .{ .address = address }, "Cannot use 0x{x} as a lock: its address is a multiple " ++
            "of {d}", .{ address, @alignOf(Lock) });
    }

    /// See blocks.zig.
    pub fn ownBlocks(self: *Heap, out: [][2]f64) Error!u64 {
        try self.lock();
        defer self.mutex.unlock();
        return blocks.ownBlocks(self.memory(), out);
    }

    pub fn grow(self: *Heap, size: u64) Error!void {
        if (self.mode == .r) return self.readOnly();
        try self.lock();
        defer self.mutex.unlock();
        if (self.shared) |shared| try shared.expectWhole(self);
        if (size > self.alloc.capacityBytes()) try self.alloc.grow(size);
    }

    pub fn check(self: *Heap) Error!void {
        try self.lock();
        defer self.mutex.unlock();
        if (self.shared) |shared| try shared.expectWhole(self);
        self.alloc.hold();
        defer self.alloc.release();
        try self.alloc.check();
        try blocks.checkTable(self.memory(), &self.alloc);
    }

    // -------------------------------------------------------------- blocks

    pub fn perm(self: *Heap, name: []const u8, size: u64, layout: u64, target: usize) Error!Block {
        try self.lock();
        defer self.mutex.unlock();
        return self.register(name, size, layout, target);
    }

    /// Registers globals of C by their addresses, all or none; they are refused when the program that
    /// the heap knew had them elsewhere.
    pub fn permGlobals(self: *Heap, globals: []const blocks.Global) Error!void {
        try self.lock();
        defer self.mutex.unlock();
        try blocks.expectInPlace(self.memory(), &self.registry, globals);
        var done: usize = 0;
        errdefer for (globals[0..done]) |global_| {
            const id = self.registry.findName(blocks.AddressName.of(global_.address).slice()).?;
            self.registry.list.items[id].live = false;
        };
        while (done < globals.len) : (done += 1) {
            const name = blocks.AddressName.of(globals[done].address);
            _ = try self.register(name.slice(), globals[done].size, 0, globals[done].address);
        }
    }

    /// `perm` with the lock held.
    fn register(self: *Heap, name: []const u8, size: u64, layout: u64, target: usize) Error!Block {
        self.registry.prune(self.handle);
        if (self.registry.findName(name) != null) {
            return fail(.EXISTS, .{}, "Cannot register block \"{s}\": the name is registered already; unperm() it " ++
                "first, or use another", .{name});
        }
        const stored = try blocks.find(self.memory(), name);
        if (stored) |found| try blocks.expectSame(found, name, .block, size, layout);
        if (stored == null and self.mode == .r) return self.readOnly();
        const id = try self.registry.add(name, .{
            .name = &.{},
            .size = size,
            .layout = layout,
            .target = target,
            .thread = os.threadId(),
            .live = true,
            .guest = target == 0 and attachments.has(self.handle, os.threadId()),
        });
        errdefer self.registry.list.items[id].live = false;
        if (stored) |found| {
            if (target != 0) @memcpy(@as([*]u8, @ptrFromInt(target)), found.data);
            return .{ .id = id, .address = @intFromPtr(found.data.ptr), .found = true };
        }
        const made = try blocks.create(self.memory(), &self.alloc, name, .block, size, layout);
        return .{ .id = id, .address = @intFromPtr(made.data.ptr), .found = false };
    }

    pub fn unperm(self: *Heap, name: []const u8) Error!void {
        try self.lock();
        defer self.mutex.unlock();
        const removed = try blocks.remove(self.memory(), &self.alloc, name);
        if (self.registry.findName(name)) |id| {
            self.registry.list.items[id].live = false;
        } else if (!removed) {
            return fail(.NOT_FOUND, .{}, "Cannot remove block \"{s}\": the heap has none of that name", .{name});
        }
    }

    pub fn global(self: *Heap, name: []const u8, size: u64, layout: u64) Error!Block {
        try self.lock();
        defer self.mutex.unlock();
        if (try blocks.find(self.memory(), name)) |found| {
            try blocks.expectSame(found, name, .global, size, layout);
            return .{ .address = @intFromPtr(found.data.ptr), .found = true };
        }
        if (self.mode == .r) return self.readOnly();
        const made = try blocks.create(self.memory(), &self.alloc, name, .global, size, layout);
        return .{ .address = @intFromPtr(made.data.ptr), .found = false };
    }

    /// Copies a registered block between its shadow and `bytes`; one that is to be read and holds
    /// nothing yet is left alone. The lock is kept meanwhile: another thread may remove the block, and
    /// its memory would be somebody else's.
    pub fn copyBlock(self: *Heap, id: u64, bytes: ?[*]u8, len: u64, access: Access) Error!void {
        try self.lock();
        defer self.mutex.unlock();
        const registration = self.registry.get(id) orelse
            return fail(.NOT_FOUND, .{}, "Cannot copy block {d}: it is not registered", .{id});
        if (registration.fresh and access == .read) return;
        const stored = try blocks.shadowOf(self.memory(), &self.alloc, registration);
        self.registry.list.items[id].fresh = false;
        try blocks.expectSame(stored, registration.name, .block, registration.size, registration.layout);
        const shadow = stored.data;
        if (len != shadow.len) return fail(.BLOCK_MISMATCH, .{}, "Cannot copy block {d}: {d} bytes given, the block has {d}", .{
            id, len, shadow.len,
        });
        if (shadow.len == 0) return;
        const memory_of = bytes orelse return fail(.INVALID_ARGUMENT, .{}, "Cannot copy block {d}: no bytes are given", .{id});
        switch (access) {
            .read => @memcpy(memory_of[0..shadow.len], shadow),
            .write => blocks.copyWhereDifferent(shadow, memory_of[0..shadow.len]),
        }
    }

    // -------------------------------------------------------------- other threads

    /// The text that `attach` of this process understands.
    pub fn handleText(self: *Heap, buffer: []u8) []const u8 {
        return std.fmt.bufPrint(buffer, "perm-heap:{d}:{x}:{x}", .{ self.process, self.handle, self.nonce }) catch unreachable;
    }

    pub fn attach(text: []const u8) Error!*Heap {
        var parts = std.mem.splitScalar(u8, text, ':');
        const word = parts.next() orelse "";
        const process = std.fmt.parseInt(u32, parts.next() orelse "", 10) catch 0;
        const handle = std.fmt.parseInt(u64, parts.next() orelse "", 16) catch 0;
        const nonce: ?u64 = std.fmt.parseInt(u64, parts.next() orelse "", 16) catch null;
        if (nonce == null or !std.mem.eql(u8, word, "perm-heap") or process == 0 or handle == 0 or nonce == 0 or parts.next() != null) {
            return fail(.INVALID_ARGUMENT, .{}, "Cannot attach to \"{s}\": it is not the `handle` of a heap", .{
                text[0..@min(text.len, 64)],
            });
        }
        if (process != os.processId()) {
            return fail(.NOT_FOUND, .{}, "Cannot attach to the heap \"{s}\": it is open in process {d}, this is {d}; " ++
                "another process opens the file", .{ text, process, os.processId() });
        }
        const heap = find(handle) orelse return notOpen(text);
        try heap.lock();
        defer heap.mutex.unlock();
        if (heap.nonce != nonce) return notOpen(text);
        try attachments.add(heap.handle);
        return heap;
    }

    fn notOpen(text: []const u8) Error {
        return fail(.CLOSED, .{}, "Cannot attach to the heap \"{s}\": it is closed", .{text});
    }

    pub fn detach(self: *Heap) void {
        self.lock() catch return;
        attachments.remove(self.handle);
        self.registry.prune(self.handle);
        if (self.deserted and attachments.isFree(self.handle)) return self.end(self.handle);
        self.mutex.unlock();
    }

    /// The heap is the calling thread's, and closed at its end if nobody did it before.
    pub fn belongToThread(self: *Heap) void {
        attachments.own(self.handle);
    }

    /// A thread has ended that opened the heap of that handle, or was attached to it.
    pub fn threadEnded(handle: u64, opened_it: bool) void {
        const self = find(handle) orelse return;
        self.mutex.lock();
        const is_it = self.handle == handle and self.process == os.processId();
        if (is_it and opened_it) self.deserted = true;
        if (is_it and self.deserted and attachments.isFree(handle)) return self.end(handle);
        self.mutex.unlock();
    }

    pub fn expectAlone(self: *Heap, comptime action: []const u8) Error!void {
        const others = attachments.others(self.handle);
        if (others == 0) return;
        return fail(.BUSY, .{}, "Cannot " ++ action ++ " the heap: {d} other threads are attached, whose views cannot " ++
            "be taken from them; close it there first", .{others});
    }

    // -------------------------------------------------------------- closing

    pub fn bclose(self: *Heap) Error!void {
        try self.lock();
        defer self.mutex.unlock();
        const im = try self.image(.backup);
        self.background.drain();
        self.take(.{ self.map, null });
        im.close();
    }

    /// Which images the heap is committed to from now on. A thread that gives memory back tells them:
    /// it is held meanwhile, and knows no image that is about to be closed.
    fn take(self: *Heap, now: [2]?*Image) void {
        self.alloc.hold();
        defer self.alloc.release();
        self.map, self.backup = now;
    }

    /// No pages are mapped ahead of the program any more: trackers begin.
    pub fn goAlone(self: *Heap) void {
        for (self.images()) |slot| if (slot) |im| im.ahead.end();
    }

    /// Never commits. Closes both images and leaves the heap as it is, in memory: C++ destroys objects
    /// in it after the program closed it.
    pub fn closeImages(self: *Heap) Error!void {
        try self.lock();
        defer self.mutex.unlock();
        try self.expectAlone("close");
        self.background.drain();
        const open_ones = self.images();
        self.take(.{ null, null });
        for (open_ones) |slot| if (slot) |im| im.close();
        self.closeShared();
    }

    /// The heap's memory, as it is, is the process's own from now on.
    fn closeShared(self: *Heap) void {
        const shared = self.shared orelse return;
        shared.rest(self);
        shared.detach(self);
        shared.close();
        self.shared = null;
    }

    /// Never commits. The range stays mapped, so that a view that escaped cannot crash.
    pub fn close(self: *Heap) Error!void {
        try self.lock();
        self.expectAlone("close") catch |err| {
            self.mutex.unlock();
            return err;
        };
        self.end(self.handle);
    }

    /// Closes a heap whose mutex the caller holds.
    pub fn end(self: *Heap, handle: u64) void {
        attachments.removeAll(handle);
        self.giveUp();
        self.mutex.unlock();
        // Only now may the struct be acquired again: whoever waited for the mutex found `handle` 0.
        self.relinquish();
    }

    /// Lets go of everything the heap holds.
    pub fn giveUp(self: *Heap) void {
        self.conceal();
        self.background.end();
        for (self.images()) |slot| if (slot) |im| im.close();
        self.map = null;
        self.backup = null;
        self.closeShared();
        self.tracker.deinit();
        self.registry.deinit();
        self.alloc.close();
        self.history.deinit();
        ranges.retire(self.address, self.geometry.span);
    }

    // -------------------------------------------------------------- telling

    pub fn info(self: *Heap) records.HeapInfo {
        return .{
            .address = number(self.address),
            .span = number(self.geometry.span),
            .data = number(self.address + self.geometry.data_offset),
            .capacity = number(self.alloc.capacityBytes()),
            .max_size = number(self.geometry.maxSize()),
            .used = number(self.alloc.usedBytes()),
            .epoch = number(self.history.epoch()),
            .mode = number(@intFromEnum(self.mode)),
            .resumed = number(@intFromEnum(self.resumed)),
            .tracker = number(@intFromEnum(self.tracker.kind)),
            .dropped = if (self.dropped) 1 else 0,
            .images = number(@as(u64, @intFromBool(self.map != null or self.shared != null)) | @as(u64, @intFromBool(self.backup != null)) << 1),
        };
    }

    pub fn stats(self: *Heap) Error!records.Stats {
        try self.lock();
        defer self.mutex.unlock();
        if (self.shared) |shared| try shared.expectWhole(self);
        const memory_stats = try self.alloc.stats();
        var out: records.Stats = .{
            .live_bytes = number(memory_stats.live_bytes),
            .live_blocks = number(memory_stats.live_blocks),
            .used = number(self.alloc.usedBytes()),
            .capacity = number(self.alloc.capacityBytes()),
            .max_size = number(self.geometry.maxSize()),
            .metadata_bytes = number(memory_stats.metadata_bytes),
            .spans = number(memory_stats.spans),
            .commits = number(self.commits + self.background.commits.load(.monotonic)),
            .commits_under_way = number(self.background.count()),
            .log_runs = number(self.log_runs),
            .blocks = number(self.header().block_count),
            .shared = if (self.shared != null) 1 else 0,
        };
        if (self.shared) |shared| out.map_base_bytes = number(shared.room());
        if (self.map) |im| {
            const of = im.info();
            out.map_base_bytes = number(of.base_bytes);
            out.map_log_bytes = number(of.log_bytes);
            out.folds += number(of.folds);
        }
        if (self.backup) |im| {
            const of = im.info();
            out.backup_base_bytes = number(of.base_bytes);
            out.backup_log_bytes = number(of.log_bytes);
            out.folds += number(of.folds);
        }
        return out;
    }

    pub fn imageInfo(self: *Heap, which: Which, text: []u8) Error!records.ImageInfo {
        try self.lock();
        defer self.mutex.unlock();
        if (which == .map) if (self.shared) |shared| {
            self.background.drain();
            const epoch = if (shared.file.state) |state| state.head.epoch else 0;
            return imageRecord(text, shared.file.path(), shared.file.uuid, epoch);
        };
        const im = try self.image(which);
        return imageRecord(text, im.path(), im.uuid, im.info().epoch);
    }

    fn imageRecord(text: []u8, full_path: []const u8, u: [16]u8, epoch: u64) records.ImageInfo {
        const path = full_path[0..@min(full_path.len, text.len - 36)];
        @memcpy(text[0..path.len], path);
        _ = std.fmt.bufPrint(text[path.len..][0..36], "{x}-{x}-{x}-{x}-{x}", .{
            u[0..4], u[4..6], u[6..8], u[8..10], u[10..16],
        }) catch unreachable;
        return .{ .epoch = number(epoch), .path_len = number(path.len) };
    }

    pub fn epochs(self: *Heap, which: Which, out: []records.Epoch) Error!u64 {
        try self.lock();
        defer self.mutex.unlock();
        if (which == .map and self.shared != null) return 0;
        const im = try self.image(which);
        const list = try im.epochs(gpa);
        defer gpa.free(list);
        for (list[0..@min(list.len, out.len)], out[0..@min(list.len, out.len)]) |epoch, *into| {
            into.* = .{
                .epoch = number(epoch.epoch),
                .time = number(epoch.time_ms),
                .pages = number(epoch.pages),
                .bytes = number(epoch.bytes),
            };
        }
        return list.len;
    }
};

pub fn number(value: u64) f64 {
    return @floatFromInt(value);
}
