//! A second allocator on a heap's pages: binary buddies within one region. All it knows lies in the
//! region's own first bytes, so that it is committed and restored with the heap.
//!
//! Invariant: a block of order k is 2^k units, at a multiple of 2^k units from the region's start; its
//! order stands in `orders` where it begins, and free ones are linked through their first word.

const std = @import("std");
const perm = @import("perm_heap");

pub const Buddy = struct {
    /// The region: a power of two of units behind this struct's own pages.
    memory: []align(perm.Pages.size) u8,
    orders: []u8,
    /// Offset + 1 of the first free block of each order; 0 is none.
    free_heads: [order_count]u64,
    live: u64,

    const unit = 64;
    const order_count = 32;
    const is_free = 0x80;
    const inside = 0x40;

    const Link = extern struct { next: u64, before: u64 };

    /// `pages`: a power of two of them for the blocks, and what their orders take.
    pub fn init(self: *Buddy, pages: perm.Pages, count: usize) !void {
        std.debug.assert(std.math.isPowerOfTwo(count));
        const memory = pages.take(count) orelse return error.OutOfMemory;
        errdefer pages.give(memory) catch {};
        const units = memory.len / unit;
        const orders = pages.take((units + perm.Pages.size - 1) / perm.Pages.size) orelse return error.OutOfMemory;
        self.* = .{ .memory = memory, .orders = orders[0..units], .free_heads = @splat(0), .live = 0 };
        @memset(self.orders, inside);
        self.push(0, std.math.log2_int(usize, units));
    }

    pub fn allocator(self: *Buddy) std.mem.Allocator {
        return .{ .ptr = self, .vtable = &.{ .alloc = alloc, .resize = resize, .remap = remap, .free = free } };
    }

    /// Every unit belongs to one block, and free ones are in the list of their order.
    pub fn check(self: *Buddy) !void {
        var listed: usize = 0;
        for (self.free_heads, 0..) |head, order| {
            var at = head;
            while (at != 0) : (at = self.link(at - 1).next) {
                if (self.orders[(at - 1) / unit] != order | is_free) return error.BadList;
                listed += @as(usize, 1) << @intCast(order);
            }
        }
        var at: usize = 0;
        while (at < self.orders.len) {
            const order: u6 = @intCast(self.orders[at] & 0x3f);
            if (self.orders[at] & inside != 0) return error.BadOrder;
            if (self.orders[at] & is_free != 0) listed -= @as(usize, 1) << order;
            at += @as(usize, 1) << order;
        }
        if (at != self.orders.len or listed != 0) return error.BadTiling;
    }

    fn link(self: *Buddy, offset: u64) *Link {
        return @ptrCast(@alignCast(&self.memory[offset]));
    }

    fn push(self: *Buddy, offset: u64, order: u6) void {
        const head = self.free_heads[order];
        self.link(offset).* = .{ .next = head, .before = 0 };
        if (head != 0) self.link(head - 1).before = offset + 1;
        self.free_heads[order] = offset + 1;
        self.orders[offset / unit] = @as(u8, order) | is_free;
    }

    fn remove(self: *Buddy, offset: u64, order: u6) void {
        const l = self.link(offset).*;
        if (l.before != 0) self.link(l.before - 1).next = l.next else self.free_heads[order] = l.next;
        if (l.next != 0) self.link(l.next - 1).before = l.before;
        self.orders[offset / unit] = inside;
    }

    fn orderOf(len: usize, alignment: std.mem.Alignment) ?u6 {
        const size = @max(len, alignment.toByteUnits(), unit);
        if (size > 1 << 40) return null;
        return @intCast(std.math.log2_int_ceil(usize, (size + unit - 1) / unit));
    }

    fn alloc(context: *anyopaque, len: usize, alignment: std.mem.Alignment, _: usize) ?[*]u8 {
        const self: *Buddy = @ptrCast(@alignCast(context));
        const wanted = orderOf(len, alignment) orelse return null;
        if (alignment.toByteUnits() > perm.Pages.size) return null;
        var order: usize = wanted;
        while (order < order_count and self.free_heads[order] == 0) order += 1;
        if (order == order_count) return null;
        const offset = self.free_heads[order] - 1;
        self.remove(offset, @intCast(order));
        while (order > wanted) {
            order -= 1;
            self.push(offset + (@as(u64, unit) << @intCast(order)), @intCast(order));
        }
        self.orders[offset / unit] = wanted;
        self.live += 1;
        return self.memory.ptr + offset;
    }

    fn resize(_: *anyopaque, memory: []u8, alignment: std.mem.Alignment, len: usize, _: usize) bool {
        const order = orderOf(len, alignment) orelse return false;
        return order == orderOf(memory.len, alignment).?;
    }

    fn remap(context: *anyopaque, memory: []u8, alignment: std.mem.Alignment, len: usize, ra: usize) ?[*]u8 {
        return if (resize(context, memory, alignment, len, ra)) memory.ptr else null;
    }

    fn free(context: *anyopaque, memory: []u8, _: std.mem.Alignment, _: usize) void {
        const self: *Buddy = @ptrCast(@alignCast(context));
        var offset: u64 = @intFromPtr(memory.ptr) - @intFromPtr(self.memory.ptr);
        var order: u6 = @intCast(self.orders[offset / unit]);
        self.orders[offset / unit] = inside;
        self.live -= 1;
        while (true) {
            const size = @as(u64, unit) << order;
            if (size == self.memory.len) break;
            const buddy = offset ^ size;
            if (self.orders[buddy / unit] != @as(u8, order) | is_free) break;
            self.remove(buddy, order);
            offset = @min(offset, buddy);
            order += 1;
        }
        self.push(offset, order);
    }
};
