//! Whole numbers in f64s, as they cross the ABI: sizes, counts and addresses.
//!
//! Invariant: what is returned is the number given, or too large for any size or address.

const std = @import("std");
const builtin = @import("builtin");

/// Largest whole number that an f64 holds exactly, and every one below it.
const whole_max = 1 << 53;

/// A size, count or address; null for what is none (negative, fractional, NaN, too large).
pub inline fn whole(value: f64) ?u64 {
    @setRuntimeSafety(false);
    if (!(value >= 0 and value <= whole_max)) return null;
    const integer: u64 = @intCast(@as(i64, @intFromFloat(value)));
    return if (@as(f64, @floatFromInt(@as(i64, @intCast(integer)))) == value) integer else null;
}

/// The same in fewer instructions, for hot paths that compare the result with a bound anyway: a
/// number that is negative or too large becomes one above every bound.
pub inline fn exact(value: f64) ?u64 {
    @setRuntimeSafety(false);
    if (builtin.cpu.arch != .x86_64) return whole(value);
    const integer = asm ("cvttsd2si %[value], %[integer]"
        : [integer] "=r" (-> i64),
        : [value] "x" (value),
    );
    return if (@as(f64, @floatFromInt(integer)) == value) @bitCast(integer) else null;
}

test "a number that is no size and no address never becomes one on the hot paths" {
    for ([_]f64{ 0, 1, 16, 32_768, 1 << 46, (1 << 53) - 1, 1 << 53 }) |value| {
        try std.testing.expectEqual(whole(value), exact(value));
    }
    const nan = std.math.nan(f64);
    for ([_]f64{ nan, 0.5, -0.5, 1.5, 1e-300, 4095.999 }) |value| {
        try std.testing.expectEqual(null, exact(value));
        try std.testing.expectEqual(null, whole(value));
    }
    const infinite = std.math.inf(f64);
    for ([_]f64{ -1, -16, -1e300, 1e300, 1 << 63, -(1 << 63), 1 << 64, infinite, -infinite }) |value| {
        try std.testing.expectEqual(null, whole(value));
        if (exact(value)) |number| try std.testing.expect(number > whole_max);
    }
}
