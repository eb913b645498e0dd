//! Which address ranges this process may use for heaps: reservation of new ones, and the ranges of
//! closed heaps, which stay mapped so that a view that escaped cannot crash the runtime.
//!
//! Invariant: nothing is ever mapped over what is not ours. A range is either reserved with
//! NOREPLACE, or lies in `retired`, which holds only ranges that this file once reserved.

const std = @import("std");
const os = @import("../os/os.zig");
const maps = @import("../os/maps.zig");
const errors = @import("../errors.zig");
const fail = errors.fail;

/// Where new heaps go: above V8's maps, below PIE programs and the mmap area (free in every run
/// measured under Deno and Bun with ASLR on).
pub const window_start = 0x4000_0000_0000;
pub const window_end = 0x5500_0000_0000;
const window_alignment = 2 << 20;
const user_end = 0x7fff_ffff_f000;

const Range = struct { start: usize, end: usize };

/// Sorted, disjoint, never adjacent.
var retired: std.ArrayList(Range) = .empty;
var retired_lock: os.Mutex = .{};
const gpa = os.page_allocator;

/// Reserves `[address, address + span)`, PROT_NONE. ADDRESS_IN_USE names what is in the way.
pub fn reserveAt(address: usize, span: usize) errors.Error!void {
    if (address % os.page_size != 0 or address < 65536 or span > user_end or address > user_end - span) {
        return fail(.INVALID_ARGUMENT, .{ .address = address }, "Cannot map a heap of {d} bytes of address " ++
            "space at 0x{x}: the address must be a multiple of 4096 and lie with the whole range below " ++
            "0x{x}; leave `address` out to have one chosen", .{ span, address, @as(usize, user_end) });
    }
    retired_lock.lock();
    defer retired_lock.unlock();
    if (tryReserve(address, span)) return;
    var line: [256]u8 = undefined;
    const what = maps.overlapping(address, address + span, &line);
    return fail(.ADDRESS_IN_USE, .{ .address = address }, "Cannot map the heap at its address 0x{x} " ++
        "({d} bytes of address space): {s} is in the way; close what is mapped there, or open the heap in " ++
        "another process", .{ address, span, if (what.len > 0) what else "another map" });
}

/// Reserves what `[address, address + span)` has outside of `[own, own + own_span)`, a range of the
/// caller's that is in use and will be replaced.
pub fn reserveAround(address: usize, span: usize, own: usize, own_span: usize) errors.Error!void {
    if (address < own) try reserveAt(address, @min(own, address + span) - address);
    const own_end = own + own_span;
    if (address + span <= own_end) return;
    errdefer if (address < own) release(address, @min(own, address + span) - address);
    const from = @max(address, own_end);
    try reserveAt(from, address + span - from);
}

/// Undoes `reserveAround`.
pub fn releaseAround(address: usize, span: usize, own: usize, own_span: usize) void {
    if (address < own) release(address, @min(own, address + span) - address);
    const from = @max(address, own + own_span);
    if (address + span > from) release(from, address + span - from);
}

/// Takes out of use what `[own, own + own_span)` has outside of `[address, address + span)`.
pub fn retireAround(address: usize, span: usize, own: usize, own_span: usize) void {
    if (own < address) retire(own, @min(address, own + own_span) - own);
    const from = @max(own, address + span);
    if (own + own_span > from) retire(from, own + own_span - from);
}

/// Finds a free range in the window for a new heap: the first candidates are derived from its UUID,
/// so that two heaps seldom want the same one.
pub fn reserveAny(uuid: [16]u8, span: usize) errors.Error!usize {
    if (span > window_end - window_start) {
        return fail(.INVALID_ARGUMENT, .{}, "Cannot make a heap that may grow to {d} bytes of address " ++
            "space: at most {d} fit; give a smaller `size` or `maxSize`", .{ span, window_end - window_start });
    }
    retired_lock.lock();
    defer retired_lock.unlock();
    const slots = (window_end - window_start - span) / window_alignment + 1;
    var prng = std.Random.DefaultPrng.init(std.mem.readInt(u64, uuid[0..8], .little) ^
        std.mem.readInt(u64, uuid[8..16], .little));
    for (0..64) |attempt| {
        const slot = prng.random().uintLessThan(u64, slots);
        const address = window_start + slot * window_alignment;
        // Ranges of closed heaps are taken again only when the window is crowded.
        if (attempt < 16 and overlapsRetired(address, span)) continue;
        if (tryReserve(address, span)) return address;
    }
    var address: usize = window_start;
    const step = std.mem.alignForward(usize, @max(span / 8, 1 << 30), window_alignment);
    while (address + span <= window_end) : (address += step) {
        if (tryReserve(address, span)) return address;
    }
    // Free or not, nothing can be had where the process has as many maps as the kernel lets it have.
    if (os.reserve(0, span)) |anywhere| os.unmap(anywhere, span) else |err| if (err == error.NoMemory) {
        return fail(.OUT_OF_MEMORY, .{}, "Cannot reserve {d} bytes of address space for a heap: the system refused; close other " ++
            "heaps, or raise vm.max_map_count or the limit of address space", .{span});
    }
    return fail(.ADDRESS_IN_USE, .{}, "Cannot find {d} bytes of free address space for a heap between " ++
        "0x{x} and 0x{x}; give a smaller `maxSize`, or close other heaps", .{
        span, @as(usize, window_start), @as(usize, window_end),
    });
}

/// Reserves a range anywhere outside the window, to build a restored heap in; aligned as heaps are.
pub fn reserveScratch(span: usize) errors.Error!usize {
    const start = os.reserve(0, span + window_alignment) catch return fail(.OUT_OF_MEMORY, .{}, "Cannot reserve {d} " ++
        "bytes of address space to build the restored heap in", .{span});
    const address = std.mem.alignForward(usize, start, window_alignment);
    if (address > start) os.unmap(start, address - start);
    os.unmap(address + span, start + window_alignment - address);
    return address;
}

/// Gives a reserved range back to the system: no heap stood there, or no view of it can be out.
pub fn release(address: usize, span: usize) void {
    os.unmap(address, span);
}

/// Takes a closed heap's range out of use: private zeros from now on, reusable by a later heap.
pub fn retire(address: usize, span: usize) void {
    retired_lock.lock();
    defer retired_lock.unlock();
    os.commitAnonymous(address, span) catch {};
    insertRetired(.{ .start = address, .end = address + span });
}

/// Whether the address lies in the range of a heap that was closed.
pub fn isRetired(address: usize) bool {
    retired_lock.lock();
    defer retired_lock.unlock();
    return overlapsRetired(address, 1);
}

fn insertRetired(range: Range) void {
    var merged = range;
    var i: usize = 0;
    while (i < retired.items.len) {
        const other = retired.items[i];
        if (other.end < merged.start) {
            i += 1;
        } else if (other.start > merged.end) {
            break;
        } else {
            merged = .{ .start = @min(merged.start, other.start), .end = @max(merged.end, other.end) };
            _ = retired.orderedRemove(i);
        }
    }
    // Without memory for the note the range is lost to this process, which harms nobody.
    retired.insert(gpa, i, merged) catch {};
}

fn overlapsRetired(address: usize, span: usize) bool {
    for (retired.items) |range| {
        if (range.start < address + span and address < range.end) return true;
    }
    return false;
}

/// Reserves the parts of the range that are not retired, then takes the retired parts over.
fn tryReserve(address: usize, span: usize) bool {
    const end = address + span;
    var at = address;
    for (retired.items) |range| {
        if (range.end <= at) continue;
        if (range.start >= end) break;
        if (range.start > at) {
            _ = os.reserve(at, range.start - at) catch return undo(address, at);
        }
        at = @min(range.end, end);
    }
    if (at < end) _ = os.reserve(at, end - at) catch return undo(address, at);
    if (!overlapsRetired(address, span)) return true;

    // One more entry may be needed: a retired range can be split in two.
    retired.ensureUnusedCapacity(gpa, 1) catch return undo(address, end);
    var i: usize = 0;
    while (i < retired.items.len) {
        const range = retired.items[i];
        if (range.end <= address or range.start >= end) {
            i += 1;
            continue;
        }
        _ = retired.orderedRemove(i);
        const from = @max(range.start, address);
        const to = @min(range.end, end);
        os.reserveOver(from, to - from);
        if (range.start < address) {
            retired.insertAssumeCapacity(i, .{ .start = range.start, .end = address });
            i += 1;
        }
        if (range.end > end) {
            retired.insertAssumeCapacity(i, .{ .start = end, .end = range.end });
            i += 1;
        }
    }
    return true;
}

/// Unmaps what `tryReserve` had newly reserved in `[start, end)`; retired parts stay.
fn undo(start: usize, end: usize) bool {
    var at = start;
    for (retired.items) |range| {
        if (range.end <= at) continue;
        if (range.start >= end) break;
        if (range.start > at) os.unmap(at, range.start - at);
        at = @min(range.end, end);
    }
    if (at < end) os.unmap(at, end - at);
    return false;
}

test "a retired range is taken again, whole, in part, and together with its neighbourhood" {
    const at = 0x3a00_0000_0000;
    const mib = 1 << 20;
    const others = retired.items.len;
    try reserveAt(at, 8 * mib);
    try std.testing.expectError(error.ADDRESS_IN_USE, reserveAt(at + mib, mib));
    retire(at, 8 * mib);
    const escaped: *u8 = @ptrFromInt(at + 5);
    escaped.* = 1;
    try reserveAt(at + 2 * mib, 2 * mib);
    try std.testing.expectError(error.ADDRESS_IN_USE, reserveAt(at, 8 * mib));
    escaped.* = 2;
    retire(at + 2 * mib, 2 * mib);
    try std.testing.expectEqual(others + 1, retired.items.len);
    try reserveAt(at - mib, 16 * mib);
    try std.testing.expectEqual(others, retired.items.len);
    release(at - mib, 16 * mib);
}

test "a range is reserved around one of ours that it overlaps, and what is left over is retired" {
    const at = 0x3a80_0000_0000;
    const mib = 1 << 20;
    const others = retired.items.len;
    for ([_]usize{ at - 2 * mib, at + 2 * mib, at - 2 * mib }, [_]usize{ 4 * mib, 4 * mib, 12 * mib }) |start, span| {
        try reserveAt(at, 4 * mib);
        try reserveAround(start, span, at, 4 * mib);
        try std.testing.expectError(error.ADDRESS_IN_USE, reserveAt(start, span));
        releaseAround(start, span, at, 4 * mib);
        try reserveAround(start, span, at, 4 * mib);
        retireAround(start, span, at, 4 * mib);
        release(start, span);
        try reserveAt(at, 4 * mib);
        release(at, 4 * mib);
        try std.testing.expectEqual(others, retired.items.len);
    }
}

test "new heaps never run out of addresses while old ones close" {
    const span = 64 << 30;
    for (0..1000) |i| {
        var uuid: [16]u8 = @splat(0);
        std.mem.writeInt(u64, uuid[0..8], i, .little);
        const address = try reserveAny(uuid, span);
        retire(address, span);
    }
    for (retired.items) |range| release(range.start, range.end - range.start);
    retired.clearRetainingCapacity();
}
