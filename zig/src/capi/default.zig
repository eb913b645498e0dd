//! The default heap of a C program: the one that mopen opened, or that the environment named at the
//! first allocation. What is registered with perm() belongs to the program and goes into whichever
//! heap is the default one.
//!
//! Invariants: `lock` is held by whoever changes which heap is open or what is registered; the
//! allocator's functions read `writable` without it. A heap that was closed stays in memory, as it
//! was, until the next one is opened: C++ destroys its static objects after main.

const std = @import("std");
const os = @import("../os/os.zig");
const maps = @import("../os/maps.zig");
const errors = @import("../errors.zig");
const blocks = @import("../heap/blocks.zig");
const heap_room = @import("../heap/heap.zig");
const environment = @import("environment.zig");

const Error = errors.Error;
const fail = errors.fail;
const Heap = heap_room.Heap;
const gpa = os.page_allocator;

var lock: os.Mutex = .{};
/// The default heap, in any mode.
var opened: std.atomic.Value(?*Heap) = .init(null);
/// The same, when it may be written.
var writable: std.atomic.Value(?*Heap) = .init(null);
/// The default heap before, closed, its memory still there.
var closed: std.atomic.Value(?*Heap) = .init(null);
var environment_read = false;
var environment_failed = false;
var hooks_made = false;
/// Globals by address, in the order of their registration.
var globals: std.ArrayList(blocks.Global) = .empty;
/// Globals by name.
var named: std.ArrayList(Named) = .empty;

const Named = struct { name: []u8, address: usize, size: u64 };

/// The default heap when it may be written; null says why in the error.
pub inline fn forAllocation() Error!*Heap {
    return writable.load(.acquire) orelse openFromEnvironment();
}

/// Where a block goes back to: also a heap that was closed, while its memory is there.
pub inline fn forFreeing() Error!*Heap {
    return writable.load(.acquire) orelse whyNot();
}

noinline fn whyNot() Error!*Heap {
    @branchHint(.cold);
    if (current()) |heap| return heap.readOnly();
    return closed.load(.acquire) orelse fail(.NOT_OPEN, .{}, "Cannot free: no heap is open", .{});
}

pub fn current() ?*Heap {
    const heap = opened.load(.acquire) orelse return null;
    return if (heap.handle != 0) heap else null;
}

pub fn expectOpen(comptime action: []const u8) Error!*Heap {
    return current() orelse fail(.NOT_OPEN, .{}, "Cannot " ++ action ++ ": no heap is open; mopen() one first", .{});
}

/// The heap that was the default one until mclose, if its memory is still there.
pub fn lastClosed() ?*Heap {
    return closed.load(.acquire);
}

pub fn open(path: ?[]const u8, mode: heap_room.Mode, options: heap_room.OpenOptions) Error!*Heap {
    lock.lock();
    defer lock.unlock();
    return openLocked(path, mode, options);
}

fn openLocked(path: ?[]const u8, mode: heap_room.Mode, given: heap_room.OpenOptions) Error!*Heap {
    if (current() != null) return fail(.ALREADY_OPEN, .{}, "Cannot mopen \"{s}\": the default heap is open; mclose() it " ++
        "first, or open another with perm_heap_open()", .{path orelse ""});
    if (closed.swap(null, .acq_rel)) |heap| try heap.close();
    var options = given;
    options.path = path;
    options.mode = mode;
    const heap = try openPlaced(&options);
    errdefer heap.close() catch {};
    try heap.permGlobals(globals.items);
    for (named.items) |one| _ = try heap.perm(one.name, one.size, 0, one.address);
    // PERM's map file exists from here on; what stood there before is replaced by the first flush.
    if (heap.map) |map| if (mode == .w and map.replaced.file < 0) {
        _ = try heap.commit(.map);
    };
    makeHooks();
    opened.store(heap, .release);
    if (mode != .r) writable.store(heap, .release);
    return heap;
}

/// A new heap goes where PERM_ADDRESS says; one given for a heap of fixed size may leave no room for
/// the usual range to grow into.
fn openPlaced(options: *heap_room.OpenOptions) Error!*Heap {
    if (options.mode != .w or options.address != 0) return Heap.mopen(options.*);
    options.address = try environment.address();
    return Heap.mopen(options.*) catch |err| {
        if (err != error.ADDRESS_IN_USE or options.address == 0 or options.max_size != 0 or options.size == 0) return err;
        options.max_size = options.size;
        return Heap.mopen(options.*);
    };
}

fn makeHooks() void {
    if (hooks_made) return;
    hooks_made = true;
    _ = os.aroundFork(beforeFork, inParent, inChild);
}

fn beforeFork() callconv(.c) void {
    lock.lock();
    Heap.beforeFork();
}

fn inParent() callconv(.c) void {
    Heap.forkInParent();
    lock.unlock();
}

fn inChild() callconv(.c) void {
    Heap.forkInChild();
    lock = .{};
}

/// At the first allocation without a heap: the one that PERM_FNAME names.
noinline fn openFromEnvironment() Error!*Heap {
    @branchHint(.cold);
    lock.lock();
    defer lock.unlock();
    if (writable.load(.acquire)) |heap| return heap;
    if (current()) |heap| return heap.readOnly();
    if (!environment_read and closed.load(.acquire) == null) {
        environment_read = true;
        errdefer environment_failed = true;
        if (try environment.request()) |wanted| {
            const heap = try openLocked(wanted.path, wanted.mode, .{ .size = wanted.size });
            // As PERM does, and before the program's own objects are destroyed.
            if (wanted.mode != .r) _ = os.onExit(flushAtExit);
            return if (wanted.mode == .r) heap.readOnly() else heap;
        }
    }
    if (environment_failed and closed.load(.acquire) == null) return fail(.OUT_OF_MEMORY, .{}, "Cannot allocate: the heap " ++
        "that PERM_FNAME names could not be opened at the first allocation; mend that, or mopen() one", .{});
    return fail(.NOT_OPEN, .{}, "Cannot allocate: no heap is open; mopen() one first, or name one in PERM_FNAME", .{});
}

fn flushAtExit(_: ?*anyopaque) callconv(.c) void {
    const heap = current() orelse return;
    if (heap.map != null and heap.mode != .r) _ = heap.commit(.map) catch {};
}

/// Flushes and closes. When the flush fails the heap stays open.
pub fn close() Error!void {
    lock.lock();
    defer lock.unlock();
    const heap = try expectOpen("mclose");
    if (heap.mode != .r and heap.map != null) _ = try heap.commit(.map);
    try heap.closeImages();
    writable.store(null, .release);
    opened.store(null, .release);
    closed.store(heap, .release);
}

/// The heap is gone (a restore that failed half-way); nothing may be allocated from it.
pub fn dropIfGone(heap: *Heap) void {
    if (heap.handle != 0) return;
    _ = writable.cmpxchgStrong(heap, null, .acq_rel, .monotonic);
    _ = opened.cmpxchgStrong(heap, null, .acq_rel, .monotonic);
}

// ------------------------------------------------------------------ what the program registers

pub fn register(address: usize, size: u64) Error!void {
    lock.lock();
    defer lock.unlock();
    if (address == 0 and size == 0) return; // A program without PERM variables.
    for (globals.items) |one| {
        if (one.address != address) continue;
        if (one.size == size) return;
        return fail(.EXISTS, .{ .address = address }, "Cannot register {d} bytes at 0x{x}: {d} bytes are registered there", .{
            size, address, one.size,
        });
    }
    try expectMemory(address, size);
    globals.ensureUnusedCapacity(gpa, 1) catch return noMemory();
    const one: blocks.Global = .{ .address = address, .size = size };
    if (current()) |heap| try heap.permGlobals(&.{one});
    globals.appendAssumeCapacity(one);
}

pub fn registerNamed(name: []const u8, address: usize, size: u64) Error!void {
    lock.lock();
    defer lock.unlock();
    for (named.items) |one| {
        if (!std.mem.eql(u8, one.name, name)) continue;
        if (one.address == address and one.size == size) return;
        return fail(.EXISTS, .{ .address = address }, "Cannot register \"{s}\": {d} bytes at 0x{x} have that name", .{
            name, one.size, one.address,
        });
    }
    try expectMemory(address, size);
    named.ensureUnusedCapacity(gpa, 1) catch return noMemory();
    const copy = gpa.dupe(u8, name) catch return noMemory();
    errdefer gpa.free(copy);
    if (current()) |heap| _ = try heap.perm(name, size, 0, address);
    named.appendAssumeCapacity(.{ .name = copy, .address = address, .size = size });
}

/// Ends a registration; the stored block goes with the next commit.
pub fn unregister(address: usize) Error!void {
    lock.lock();
    defer lock.unlock();
    for (globals.items, 0..) |one, i| {
        if (one.address != address) continue;
        if (current()) |heap| try heap.unperm(blocks.AddressName.of(address).slice());
        _ = globals.orderedRemove(i);
        return;
    }
    for (named.items, 0..) |one, i| {
        if (one.address != address) continue;
        if (current()) |heap| try heap.unperm(one.name);
        gpa.free(named.orderedRemove(i).name);
        return;
    }
    return fail(.NOT_FOUND, .{ .address = address }, "Cannot unregister 0x{x}: no block was registered there", .{address});
}

fn noMemory() Error {
    return fail(.OUT_OF_MEMORY, .{}, "Cannot register a block: no process memory left", .{});
}

/// A commit reads what is registered, and a restore writes it.
pub fn expectMemory(address: usize, size: u64) Error!void {
    const end = std.math.add(usize, address, size) catch 0;
    if (address == 0 or size == 0 or end == 0) return fail(.INVALID_ARGUMENT, .{ .address = address }, "Cannot register " ++
        "{d} bytes at 0x{x}: that is no memory", .{ size, address });
    if (current()) |heap| if (address < heap.address + heap.geometry.span and end > heap.address) {
        return fail(.INVALID_ARGUMENT, .{ .address = address }, "Cannot register {d} bytes at 0x{x}: they lie in the heap, " ++
            "which is saved anyway", .{ size, address });
    };
    if (maps.isWritable(address, end) orelse true) return;
    return fail(.INVALID_ARGUMENT, .{ .address = address }, "Cannot register {d} bytes at 0x{x}: not all of them can be read " ++
        "and written", .{ size, address });
}
