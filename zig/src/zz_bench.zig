const std = @import("std");
const data = @import("data/data.zig");
const hash_map = @import("data/hash_map.zig");
const os = @import("os/os.zig");
const TestHeap = @import("alloc/test_heap.zig").TestHeap;
test "bench" {
    for ([_]bool{ false, true }) |huge| {
        const heap = try TestHeap.create(1 << 30, 512 << 20);
        if (huge) _ = os.advise(heap.base, 600 << 20, 14) else _ = os.advise(heap.base, 600 << 20, 15);
        const space: data.Space = .{ .alloc = &heap.allocator };
        const header = try heap.allocator.calloc(1, @sizeOf(hash_map.Header));
        const shape = (data.Shape{ .key = .number, .kind = .hash_map, .value_size = 48 }).bits();
        const n = 1_000_000;
        var t = cpu();
        for (0..n) |i| {
            const map = try hash_map.Map.open(space, header, shape);
            const p = try map.set(&.{ .bits = @bitCast(@as(f64, @floatFromInt(i))) });
            @as(*u64, @ptrFromInt(p)).* = i;
        }
        std.debug.print("huge {} set {d} ns ", .{ huge, (cpu() - t) / n });
        var prng = std.Random.DefaultPrng.init(1);
        const order = try std.testing.allocator.alloc(u32, n);
        defer std.testing.allocator.free(order);
        for (order) |*o| o.* = prng.random().uintLessThan(u32, n);
        for (0..3) |_| {
            t = cpu();
            var sum: u64 = 0;
            for (order) |o| {
                const map = try hash_map.Map.open(space, header, shape);
                const p = try map.get(&.{ .bits = @bitCast(@as(f64, @floatFromInt(o))) });
                sum += @as(*u64, @ptrFromInt(p)).*;
            }
            std.debug.print(" get {d} ns ({d})", .{ (cpu() - t) / n, sum & 1 });
        }
        // dependent
        var sum: u64 = 0;
        t = cpu();
        for (order) |o| {
            const map = try hash_map.Map.open(space, header, shape);
            const p = try map.get(&.{ .bits = @bitCast(@as(f64, @floatFromInt((o +% sum * 0)))) });
            sum += @as(*u64, @ptrFromInt(p)).*;
        }
        std.debug.print(" dep {d} ns\n", .{(cpu() - t) / n});
        heap.destroy();
    }
}
fn cpu() u64 {
    var ts: std.os.linux.timespec = undefined;
    _ = std.os.linux.clock_gettime(.THREAD_CPUTIME_ID, &ts);
    return @as(u64, @intCast(ts.sec)) * 1_000_000_000 + @as(u64, @intCast(ts.nsec));
}
