//! All live blocks in order of address, a piece at a time: what a search for leaks compares with
//! what the program can reach.
//!
//! Invariant: a block is told once in a walk, at its full size; one that another thread freed and its
//! owner has not collected is not live.

const std = @import("std");
const layout = @import("layout.zig");
const classes = @import("classes.zig");
const checking = @import("check.zig");
const tables_room = @import("tables.zig");
const Allocator = @import("alloc.zig").Allocator;
const Error = @import("../errors.zig").Error;

/// A block's address and size as numbers that cross to TypeScript.
pub const Live = extern struct { address: f64, size: f64 };

/// Fills `out` with the live blocks at `from` and above: how many there were, at most `out.len`.
/// Other threads are held meanwhile; what they do between two calls, the walk may miss.
pub fn liveBlocks(a: *Allocator, from: usize, out: []Live) Error!usize {
    a.hold();
    defer a.release();
    const t = &a.tables;
    var found: usize = 0;
    var units: checking.Units = .{ .tables = t };
    while (try units.next()) |unit| {
        const start = t.addressOf(unit.first);
        const len = @as(usize, unit.len) << layout.slice_shift;
        if (start + len <= from or unit.kind == layout.kind.free) continue;
        if (unit.kind == layout.kind.large) {
            if (start < from) continue;
            if (found == out.len) return found;
            out[found] = live(start, len);
            found += 1;
            continue;
        }
        const line = t.line(unit.first);
        if (line.class >= classes.count) return tables_room.corrupt(start, "a span's size class is wrong");
        const shape = &classes.table[line.class];
        for (line.words[0..shape.words], 0..) |word, w| {
            const freed = if (line.remote_words >> @intCast(w) & 1 == 0) 0 else t.remote(unit.first).words[w];
            var bits = word & ~freed;
            while (bits != 0) : (bits &= bits - 1) {
                const address = start + (w * 64 + @ctz(bits)) * shape.size;
                if (address < from) continue;
                if (found == out.len) return found;
                out[found] = live(address, shape.size);
                found += 1;
            }
        }
    }
    return found;
}

fn live(address: usize, size: usize) Live {
    return .{ .address = @floatFromInt(address), .size = @floatFromInt(size) };
}

test "the walk tells every live block once, in order, in pieces of any size" {
    const TestHeap = @import("test_heap.zig").TestHeap;
    const testing = std.testing;
    const heap = try TestHeap.create(256 << 20, 16 << 20);
    defer heap.destroy();
    const a = &heap.allocator;
    var prng = std.Random.DefaultPrng.init(7);
    const random = prng.random();
    var kept: std.ArrayList(usize) = .empty;
    defer kept.deinit(testing.allocator);
    for (0..3000) |step| {
        const len = if (step % 97 == 0) 40_000 + random.uintLessThan(usize, 300_000) else random.uintLessThan(usize, 900);
        const p = try a.malloc(len);
        if (random.boolean()) try a.free(p) else try kept.append(testing.allocator, p);
    }
    std.mem.sort(usize, kept.items, {}, std.sort.asc(usize));
    for ([_]usize{ 1, 7, 4096 }) |piece| {
        const out = try testing.allocator.alloc(Live, piece);
        defer testing.allocator.free(out);
        var from: usize = 0;
        var seen: usize = 0;
        while (true) {
            const n = try liveBlocks(a, from, out);
            for (out[0..n]) |block| {
                try testing.expectEqual(kept.items[seen], @as(usize, @intFromFloat(block.address)));
                try testing.expectEqual(try a.usableSize(kept.items[seen]), @as(usize, @intFromFloat(block.size)));
                seen += 1;
            }
            if (n < out.len) break;
            from = @as(usize, @intFromFloat(out[n - 1].address)) + 1;
        }
        try testing.expectEqual(kept.items.len, seen);
    }
}
