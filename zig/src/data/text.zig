//! Text slots: 16 bytes, as docs/data.md has them.
//!
//!     tag (byte 15)   bytes 0…14
//!     0…15            that many bytes of UTF-8, then zeros
//!     255             u64 address of a block · u32 length in bytes · zeros
//!
//! Invariant: text of up to 15 bytes always stands in its slot, so short texts are equal exactly if
//! their slots are.

const std = @import("std");
const data = @import("data.zig");
const Space = data.Space;
const Error = data.Error;

pub const inline_max = 15;
pub const outside_tag = 255;

pub const Slot = extern struct {
    low: u64,
    high: u64,

    pub inline fn isInline(self: Slot) bool {
        return self.high >> 56 <= inline_max;
    }

    pub inline fn isOutside(self: Slot) bool {
        return self.high >> 56 == outside_tag;
    }

    /// Bytes of text that stands elsewhere.
    pub inline fn outside(self: Slot, space: Space) Error![]u8 {
        return space.bytes(self.low, @as(u32, @truncate(self.high)));
    }

    /// The text's bytes; those of text in the slot itself are in `self`.
    pub inline fn bytes(self: *const Slot, space: Space) Error![]const u8 {
        if (self.isInline()) return @as([*]const u8, @ptrCast(self))[0..@intCast(self.high >> 56)];
        if (!self.isOutside()) return data.damaged(@intFromPtr(self));
        return self.outside(space);
    }

    /// A slot for text of up to 15 bytes. Reads 16 bytes at `text` when `readable` of them may be read.
    pub inline fn of(text: []const u8, readable: bool) Slot {
        std.debug.assert(text.len <= inline_max);
        var slot: Slot = .{ .low = 0, .high = 0 };
        if (readable) {
            const words: *align(1) const [2]u64 = @ptrCast(text.ptr);
            const len: u6 = @intCast(text.len);
            if (len >= 8) {
                slot.low = words[0];
                slot.high = words[1] & ((@as(u64, 1) << (len - 8) * 8) - 1);
            } else {
                slot.low = words[0] & ((@as(u64, 1) << len * 8) - 1);
            }
        } else {
            @memcpy(@as([*]u8, @ptrCast(&slot))[0..text.len], text);
        }
        slot.high |= @as(u64, text.len) << 56;
        return slot;
    }
};

/// Text to look for: a slot when it is short, bytes when it is not.
pub const Key = struct {
    slot: Slot,
    bytes: []const u8,

    pub inline fn init(text: []const u8, readable: bool) Key {
        if (text.len <= inline_max) return .{ .slot = Slot.of(text, readable), .bytes = text };
        return .{ .slot = .{ .low = 0, .high = @as(u64, outside_tag) << 56 | text.len }, .bytes = text };
    }

    pub inline fn isShort(self: *const Key) bool {
        return self.bytes.len <= inline_max;
    }

    pub inline fn equals(self: *const Key, slot: *const Slot, space: Space) Error!bool {
        if (self.slot.high != slot.high) return false;
        if (self.isShort()) return self.slot.low == slot.low;
        return std.mem.eql(u8, self.bytes, try slot.outside(space));
    }

    /// Order of the bytes, which is that of the code points.
    pub inline fn order(self: *const Key, slot: *const Slot, space: Space) Error!std.math.Order {
        if (self.isShort() and slot.isInline()) return orderShort(self.slot, slot.*);
        return std.mem.order(u8, self.bytes, try slot.bytes(space));
    }

    pub fn beginsWith(self: *const Key, slot: *const Slot, space: Space) Error!bool {
        return std.mem.startsWith(u8, try slot.bytes(space), self.bytes);
    }

    /// A slot that owns its text. The caller holds a change.
    pub fn store(self: *const Key, space: Space) Error!Slot {
        if (self.isShort()) return self.slot;
        if (self.bytes.len > std.math.maxInt(u32)) return data.tooLarge("text key", self.bytes.len);
        const address = try space.malloc(self.bytes.len);
        @memmove(@as([*]u8, @ptrFromInt(address))[0..self.bytes.len], self.bytes);
        return .{ .low = address, .high = self.slot.high };
    }
};

pub fn freeSlot(slot: Slot, space: Space) Error!void {
    if (slot.isOutside()) try space.free(slot.low);
}

/// The length stands in the lowest byte, so that text goes before what it begins.
inline fn orderShort(a: Slot, b: Slot) std.math.Order {
    const a_low = @byteSwap(a.low);
    const b_low = @byteSwap(b.low);
    if (a_low != b_low) return if (a_low < b_low) .lt else .gt;
    return std.math.order(@byteSwap(a.high), @byteSwap(b.high));
}

test "short text orders as its bytes do" {
    const texts = [_][]const u8{ "", "a", "a\x00", "aa", "ab", "abcdefgh", "abcdefgh\x00", "abcdefghi", "abcdefghijklmno", "b", "\xc3\xa9" };
    for (texts) |a| for (texts) |b| {
        var padded: [16]u8 = @splat('x');
        @memcpy(padded[0..a.len], a);
        const left = Slot.of(padded[0..a.len], true);
        const right = Slot.of(b, false);
        try std.testing.expectEqual(std.mem.order(u8, a, b), orderShort(left, right));
        try std.testing.expectEqual(std.mem.eql(u8, a, b), std.meta.eql(left, right));
    };
}
