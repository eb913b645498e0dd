//! What the allocator stores in the heap, to the byte. See alloc.zig for the picture.
//!
//! Invariant: zero bytes mean "free, never used", so fresh memory needs no preparation; everything
//! here is read with suspicion, since an image is data from a stranger.

const std = @import("std");
const errors = @import("../errors.zig");
const classes = @import("classes.zig");

const assert = std.debug.assert;

pub const slice_shift = 16;
pub const slice_size = 1 << slice_shift;
pub const span_slices_max = 8;
/// Blocks of a span at most: as many as its bitmap has bits.
pub const blocks_max = 64 * 64;
pub const slices_max = 1 << 28;
pub const header_offset = 4096;
pub const table_offset = 8192;
pub const data_alignment = 2 << 20;
/// No slice: the end of a list.
pub const none: u32 = std.math.maxInt(u32);

pub const magic: u64 = 0x636f_6c6c_416d_7250; // "PrmAlloc"
pub const version: u32 = 1;

/// What a slice's descriptor says it is. A plain byte, for it comes from the heap.
pub const kind = struct {
    /// Inside a large block or a free run, or never used.
    pub const none: u8 = 0;
    /// The first slice of a span of small blocks.
    pub const small: u8 = 1;
    /// A further slice of a span, `back` slices after its first.
    pub const rest: u8 = 2;
    /// The first slice of a large block.
    pub const large: u8 = 3;
    /// The first slice of a free run.
    pub const free: u8 = 4;
    /// The last slice of a free run of two slices and more.
    pub const free_end: u8 = 5;
};

/// Where a span stands with its owner; void when the owner is gone.
pub const state = struct {
    /// No block known to be free.
    pub const idle: u8 = 0;
    /// In its owner's list of spans with free blocks.
    pub const listed: u8 = 1;
    /// The one its owner allocates from.
    pub const current: u8 = 2;
};

/// A slice's place in the slice table: what `malloc` and `free` touch first, the bitmap right
/// behind it, so that spans of blocks of 256 bytes and more are one line; the rest at the end.
pub const Slice = extern struct {
    /// Nonce of the session << 16 | slot of the thread that allocates from this span; 0: nobody.
    owner: u64,
    kind: u8,
    class: u8,
    /// Slices from the first of the span to this one; 0 everywhere else.
    back: u8,
    state: u8,
    /// 1: empty or was so lately, and kept by its owner for now. Void when the owner is gone.
    kept: u8,
    /// 1: of a large block that commits leave out, and that is zero in every image.
    scratch: u8,
    reserved_2: u16,
    /// Bit w is set when bitmap word w has a free block; it may also be set when it has none.
    free_words: u64,
    /// Bit w is set when word w of the remote bitmap may not be zero. Atomic.
    remote_words: u64,
    /// Bit set: block allocated. The truth that everything else only helps to find.
    words: [64]u64,
    /// Slices of the span, large block or free run that begins (or, for a run, ends) here.
    slices: u32,
    /// Neighbours in the list of all spans of a class, or of all free runs of a bin.
    next: u32,
    prev: u32,
    /// Neighbours in the owner's list of spans with free blocks.
    partial_next: u32,
    partial_prev: u32,
    /// Of a free run: how many of its slices, from the first on, may hold bytes other than zero …
    dirty: u32,
    /// … if this is the running session's stamp; an older session's runs were opened as holes.
    stamp: u32,
    reserved_3: u32,

    pub const stride = 576;
};

/// Blocks freed by threads that do not own their span; the owner collects them. Touched only then.
pub const Remote = extern struct {
    words: [64]u64,
};

pub const fl_count = 32;
pub const sl_count = 16;

pub const ClassList = extern struct {
    /// The first of all spans of this class.
    head: u32,
    spans: u32,
};

pub const Header = extern struct {
    magic: u64,
    version: u32,
    slice_size: u32,
    class_count: u32,
    slices_max: u32,
    /// Slices of data that may be used before the heap grows.
    capacity: u32,
    /// Slices that were ever used; those behind are zero and have no descriptor.
    high: u32,
    /// Slices in spans and large blocks.
    used: u32,
    fl_bits: u32,
    sl_bits: [fl_count]u16,
    heads: [fl_count][sl_count]u32,
    classes: [classes.count]ClassList,
};

comptime {
    assert(@sizeOf(Slice) == Slice.stride);
    assert(@offsetOf(Slice, "owner") == 0);
    assert(@offsetOf(Slice, "kind") == 8);
    assert(@offsetOf(Slice, "kept") == 12);
    assert(@offsetOf(Slice, "free_words") == 16);
    assert(@offsetOf(Slice, "remote_words") == 24);
    assert(@offsetOf(Slice, "words") == 32);
    assert(@offsetOf(Slice, "slices") == 544);
    assert(@offsetOf(Slice, "partial_next") == 556);
    assert(@offsetOf(Slice, "dirty") == 564);
    // `free` follows any `back` before it looks further: that leads to mapped memory always.
    assert((span_slices_max - 1) * Slice.stride <= table_offset - header_offset);
    assert(@sizeOf(Remote) == 512);
    assert(@offsetOf(Header, "sl_bits") == 40);
    assert(@offsetOf(Header, "heads") == 104);
    assert(@offsetOf(Header, "classes") == 2152);
    assert(header_offset + @sizeOf(Header) <= table_offset);
    assert(blocks_max * 16 == slice_size);
    assert(classes.size_max * 4 <= span_slices_max * slice_size);
}

/// Where everything lies, as offsets from the heap's base address; follows from the largest size.
pub const Geometry = struct {
    slices: u32,
    remote_offset: u64,
    data_offset: u64,
    /// Bytes from the heap's base to the end of the largest data.
    span: u64,

    /// `max_size` is bytes of data, rounded up to slices.
    pub fn init(max_size: u64) errors.Error!Geometry {
        const slices = (max_size +| (slice_size - 1)) >> slice_shift;
        if (slices == 0 or slices > slices_max) return errors.fail(
            .INVALID_ARGUMENT,
            .{},
            "Cannot lay out a heap of at most {d} bytes: give between {d} and {d}",
            .{ max_size, slice_size, @as(u64, slices_max) << slice_shift },
        );
        const remote_offset = std.mem.alignForward(u64, table_offset + slices * Slice.stride, 4096);
        const end = remote_offset + slices * @sizeOf(Remote);
        const data_offset = std.mem.alignForward(u64, end, data_alignment);
        return .{
            .slices = @intCast(slices),
            .remote_offset = remote_offset,
            .data_offset = data_offset,
            .span = data_offset + (slices << slice_shift),
        };
    }

    /// What a heap of that capacity stores to, in whole pages, as offsets from its base: headers and slice
    /// table, remote table, data. All else of the range is zero.
    pub fn parts(self: Geometry, capacity: u64) [3]Part {
        const slices = capacity >> slice_shift;
        return .{
            .{ .offset = 0, .len = std.mem.alignForward(u64, table_offset + slices * Slice.stride, 4096) },
            .{ .offset = self.remote_offset, .len = std.mem.alignForward(u64, slices * @sizeOf(Remote), 4096) },
            .{ .offset = self.data_offset, .len = capacity },
        };
    }

    pub const Part = struct { offset: u64, len: u64 };

    pub fn maxSize(self: Geometry) u64 {
        return @as(u64, self.slices) << slice_shift;
    }
};

test "a geometry leaves room for its tables and refuses what cannot be" {
    const geometry = try Geometry.init(1 << 30);
    try std.testing.expectEqual(@as(u32, 16_384), geometry.slices);
    try std.testing.expect(geometry.remote_offset >= table_offset + 16_384 * 576);
    try std.testing.expectEqual(@as(u64, 0), geometry.data_offset % data_alignment);
    try std.testing.expectEqual(geometry.data_offset + (1 << 30), geometry.span);
    try std.testing.expectError(error.INVALID_ARGUMENT, Geometry.init(0));
    try std.testing.expectError(error.INVALID_ARGUMENT, Geometry.init(std.math.maxInt(u64)));
    _ = try Geometry.init(@as(u64, slices_max) << slice_shift);
}
