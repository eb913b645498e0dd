//! Places of one size, numbered from 0, that never move: what a map's entries stand in, so that a
//! handle to a value stays good until its key is deleted.
//!
//!   directory ──> segment 0 (2 places) · 1 (2) · 2 (2) · 3 (2) · 4 (4) … 8 (8) … four of each size
//!
//! Four segments to a doubling: a segment and a place in it follow from a number by a few shifts, and
//! at most a fifth of the memory waits to be used.
//!
//! Invariant: all segments before `open` are full. A free place links to the next one of its segment.

const std = @import("std");
const data = @import("data.zig");
const Space = data.Space;
const Error = data.Error;

pub const Segment = extern struct {
    /// Null while it has no memory.
    address: u64,
    live: u32,
    /// Places that were ever used; what stands in those behind is nothing.
    used: u32,
    /// The first free place + 1, 0 when there is none.
    free: u32,
    reserved: u32,
};

/// The beginning of a free place.
pub const Free = extern struct {
    next: u32,
    mark: u32,

    pub const marked = std.math.maxInt(u32);
};

/// The most places: their numbers + 2 must fit 31 bits.
pub const places_max = (1 << 31) - 16;
const segments_max = segmentOf(places_max);

pub const Place = struct { segment: u32, offset: u32 };

pub inline fn placeOf(entry: u32) Place {
    @setRuntimeSafety(false);
    const x = @as(u64, entry) + 8;
    const shift: u6 = @intCast(61 - @as(u32, @clz(x)));
    return .{
        .segment = (@as(u32, shift) - 1) * 4 + @as(u32, @truncate(x >> shift & 3)),
        .offset = @truncate(x & (@as(u64, 1) << shift) - 1),
    };
}

fn segmentOf(entry: u32) u32 {
    return placeOf(entry).segment;
}

/// Places of a segment.
pub inline fn sizeOf(segment: u32) u32 {
    return @as(u32, 2) << @intCast(segment / 4 & 31);
}

/// Number of a segment's first place.
pub inline fn firstOf(segment: u32) u32 {
    return @truncate((@as(u64, 4 + segment % 4) << @intCast(segment / 4 + 1 & 63)) - 8);
}

comptime {
    @setEvalBranchQuota(100_000);
    for (0..segments_max) |s| {
        std.debug.assert(placeOf(firstOf(s)).segment == s and placeOf(firstOf(s)).offset == 0);
        std.debug.assert(firstOf(s) + sizeOf(s) == firstOf(s + 1));
    }
}

pub const Pool = extern struct {
    /// Address of the segments' directory, 0 while there is none.
    directory: u64,
    directory_len: u32,
    open: u32,
    /// A segment that is empty and kept, + 1; 0 for none.
    spare: u32,
    reserved: u32,

    inline fn segments(self: *const Pool, space: Space) Error![]Segment {
        const len = self.directory_len;
        if (len > segments_max + 4) return data.damaged(self.directory);
        return (try space.many(Segment, self.directory, len))[0..len];
    }

    /// Address of a place of `stride` bytes.
    pub inline fn at(self: *const Pool, space: Space, stride: u64, entry: u32) Error!u64 {
        @setRuntimeSafety(false);
        const place = placeOf(entry);
        if (place.segment >= self.directory_len) return data.damaged(self.directory);
        const segment = try space.at(Segment, self.directory +% @as(u64, place.segment) * @sizeOf(Segment));
        const address = segment.address +% place.offset * stride;
        if (address % 8 != 0 or !space.contains(address, stride)) return data.damaged(address);
        return address;
    }

    pub const Taken = struct { entry: u32, address: u64 };

    /// A place, zeroed. The pool is as it was when it fails, or has more room.
    pub fn take(self: *Pool, space: Space, stride: u64) Error!Taken {
        var s = self.open;
        while (s < segments_max) : (s += 1) {
            if (s >= self.directory_len) try self.growDirectory(space, s);
            const segment = try space.at(Segment, self.directory +% @as(u64, s) * @sizeOf(Segment));
            const size = sizeOf(s);
            if (segment.address == 0) {
                segment.* = .{ .address = try space.malloc(size * stride), .live = 0, .used = 0, .free = 0, .reserved = 0 };
                if (size * stride >= data.dense_min) space.dense(segment.address, size * stride);
            }
            var offset: u32 = undefined;
            if (segment.free != 0) {
                offset = segment.free - 1;
                if (offset >= size) return data.damaged(segment.address);
                const free = try space.at(Free, segment.address +% offset * stride);
                segment.free = free.next;
            } else if (segment.used < size) {
                offset = segment.used;
                segment.used += 1;
            } else continue;
            segment.live +%= 1;
            self.open = s;
            if (self.spare == s + 1) self.spare = 0;
            const place = try space.bytes(segment.address +% offset * stride, stride);
            @memset(place, 0);
            return .{ .entry = firstOf(s) + offset, .address = @intFromPtr(place.ptr) };
        }
        return data.tooLarge("map", places_max);
    }

    fn growDirectory(self: *Pool, space: Space, needed: u32) Error!void {
        const old = self.directory_len;
        if (old > needed) return data.damaged(self.directory);
        const len = @max(4, old + old / 2 + 4 & ~@as(u32, 3));
        if (len <= needed) return data.damaged(self.directory);
        const new = try space.malloc(@as(u64, len) * @sizeOf(Segment));
        const into = @as([*]Segment, @ptrFromInt(new))[0..len];
        errdefer space.free(new) catch {};
        if (old > 0) @memmove(into[0..old], try self.segments(space));
        @memset(into[old..], std.mem.zeroes(Segment));
        const before = self.directory;
        self.directory = new;
        self.directory_len = len;
        if (before != 0) try space.free(before);
    }

    /// Frees a place; memory of segments that become empty goes back, but for one.
    pub fn release(self: *Pool, space: Space, stride: u64, entry: u32) Error!void {
        const address = try self.at(space, stride, entry);
        const place = placeOf(entry);
        const all = try self.segments(space);
        const segment = &all[place.segment];
        if (segment.live == 0) return data.damaged(address);
        const free: *Free = @ptrFromInt(address);
        free.* = .{ .next = segment.free, .mark = Free.marked };
        segment.free = place.offset + 1;
        segment.live -= 1;
        if (place.segment < self.open) self.open = place.segment;
        if (segment.live > 0) return;
        const spare = self.spare;
        if (spare == 0 or spare > all.len or spare == place.segment + 1) {
            self.spare = place.segment + 1;
            return;
        }
        self.spare = @min(spare, place.segment + 1);
        const given = @max(spare - 1, place.segment);
        if (all[given].live != 0) return;
        const memory = all[given].address;
        all[given] = std.mem.zeroes(Segment);
        if (memory != 0) try space.free(memory);
    }

    /// No place from this number on was used yet.
    pub fn highest(self: *const Pool, space: Space) Error!u64 {
        if (self.directory == 0) return 0;
        const all = try self.segments(space);
        var s = all.len;
        while (s > 0) : (s -= 1) {
            const segment = all[s - 1];
            if (segment.address != 0) return @as(u64, firstOf(@intCast(s - 1))) + segment.used;
        }
        return 0;
    }

    /// Gives back everything. Goes on when something is damaged, and says so at the end.
    pub fn clear(self: *Pool, space: Space) Error!void {
        var result: Error!void = {};
        if (self.directory != 0) {
            if (self.segments(space)) |all| {
                for (all) |segment| {
                    if (segment.address != 0) space.free(segment.address) catch |err| {
                        result = err;
                    };
                }
            } else |err| result = err;
            space.free(self.directory) catch |err| {
                result = err;
            };
        }
        self.* = std.mem.zeroes(Pool);
        return result;
    }

    /// Proves the directory and the free lists; how many places are in use.
    pub fn check(self: *const Pool, space: Space, stride: u64) Error!u64 {
        if (self.directory == 0) return 0;
        if (try space.alloc.usableSize(self.directory) < @as(u64, self.directory_len) * @sizeOf(Segment)) return data.damaged(self.directory);
        var live: u64 = 0;
        for (try self.segments(space), 0..) |segment, s| {
            if (segment.address == 0) {
                if (s < self.open or segment.live != 0) return data.damaged(segment.address);
                continue;
            }
            const size = sizeOf(@intCast(s));
            if (try space.alloc.usableSize(segment.address) < size * stride) return data.damaged(segment.address);
            if (segment.used > size or segment.live > segment.used) return data.damaged(segment.address);
            if (s < self.open and segment.live != size) return data.damaged(segment.address);
            var free: u32 = 0;
            var next = segment.free;
            while (next != 0) : (free += 1) {
                if (next > segment.used or free >= segment.used) return data.damaged(segment.address);
                const place = try space.at(Free, segment.address +% (next - 1) * stride);
                if (place.mark != Free.marked) return data.damaged(segment.address);
                next = place.next;
            }
            if (segment.live + free != segment.used) return data.damaged(segment.address);
            live += segment.live;
        }
        return live;
    }

    pub fn blocks(self: *const Pool, space: Space, sink: *data.Blocks) Error!void {
        if (self.directory == 0) return;
        sink.add(self.directory);
        for (try self.segments(space)) |segment| sink.add(segment.address);
    }
};
