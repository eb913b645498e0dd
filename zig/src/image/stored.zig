//! A heap's bytes as one commit of an image has them, read from the files and compared with their
//! checksums on the way: for looking at an image that cannot be built, or shall not be.
//!
//! Invariant: nothing that differs from its checksum is ever handed out.

const std = @import("std");
const disk_ = @import("disk.zig");
const errors = @import("../errors.zig");
const format = @import("format.zig");
const generation_ = @import("generation.zig");
const table_ = @import("table.zig");
const Generation = generation_.Generation;
const PageRange = @import("page_set.zig").PageRange;
const page_size = format.page_size;

/// The page does not match its checksum, cannot be read, or is none of the heap.
pub const Damaged = error{Damaged};

pub const Stored = struct {
    disk: disk_.Disk,
    generation: *const Generation,
    identity: format.Identity,
    chain: table_.Chain,
    /// The page that `buffer` holds.
    held: ?u64 = null,
    buffer: [page_size]u8 align(16) = undefined,

    pub fn init(disk: disk_.Disk, generation: *const Generation, at: generation_.Point, path: []const u8) errors.Error!Stored {
        return .{
            .disk = disk,
            .generation = generation,
            .identity = generation.identityOf(at),
            .chain = try .init(generation, at, path),
        };
    }

    pub fn deinit(self: *Stored) void {
        self.chain.deinit();
    }

    /// A value at an address of the heap, wherever page boundaries are.
    pub fn value(self: *Stored, comptime T: type, address: u64) Damaged!T {
        var result: T = undefined;
        try self.bytes(address, std.mem.asBytes(&result));
        return result;
    }

    pub fn bytes(self: *Stored, address: u64, into: []u8) Damaged!void {
        var offset = address -% self.identity.address;
        if (offset >= self.identity.span or into.len > self.identity.span - offset) return error.Damaged;
        var done: usize = 0;
        while (done < into.len) {
            try self.load(offset / page_size);
            const in_page: usize = @intCast(offset % page_size);
            const len = @min(page_size - in_page, into.len - done);
            @memcpy(into[done..][0..len], self.buffer[in_page..][0..len]);
            done += len;
            offset += len;
        }
    }

    fn load(self: *Stored, page: u64) Damaged!void {
        if (self.held == page) return;
        self.held = null;
        try self.read(page);
        self.held = page;
    }

    /// The newest version of a page: of the last record that has it, or the base's, or zeros.
    fn read(self: *Stored, page: u64) Damaged!void {
        const generation = self.generation;
        var left = self.chain.records.items.len;
        while (left > 0) {
            left -= 1;
            const record = &generation.records.items[self.chain.records.items[left]];
            if (numberOf(record.runs, page)) |number| {
                return self.readPage(generation.log, record.pagesOffset() + number * page_size, record.sums[number]);
            }
            if (numberOf(record.holes, page) != null) return self.zero();
        }
        const number = numberOf(generation.runs, page) orelse return self.zero();
        var sum: u64 = 0;
        const offset = generation.layout().sums + number * @sizeOf(u64);
        if (self.disk.readAll(generation.base, std.mem.asBytes(&sum), offset) != null) return error.Damaged;
        return self.readPage(generation.base, (number + 1) * page_size, sum);
    }

    fn zero(self: *Stored) void {
        @memset(&self.buffer, 0);
    }

    fn readPage(self: *Stored, file: disk_.File, offset: u64, sum: u64) Damaged!void {
        if (self.disk.readAll(file, &self.buffer, offset) != null) return error.Damaged;
        if (format.pageSum(&self.buffer) != sum) return error.Damaged;
    }
};

/// Which of the pages of these ranges that page is, counted from the first.
fn numberOf(ranges: []const PageRange, page: u64) ?u64 {
    var before: u64 = 0;
    for (ranges) |range| {
        if (page < range.first) return null;
        if (page < range.end()) return before + (page - range.first);
        before += range.count;
    }
    return null;
}

/// Tells what a page belongs to, in a few words that fit into `buffer`: the engine knows nothing of
/// allocators, so its user brings this.
pub const Describer = *const fn (stored: *Stored, page: u64, buffer: []u8) []const u8;
