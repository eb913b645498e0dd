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

/// Where heaps usually lie, [2^46, 2^47): an f64 in there has one exponent, so that its bits are those of
/// the address, six places higher, and a constant.
pub const near_first: u64 = 1 << 46;
pub const near_end: u64 = 1 << 47;
const exponent_bits: u64 = (1023 + 46 - 1) << 52;

/// A near address; of every other f64 a number that is none. The bits of f64s and these numbers are
/// mapped to each other one to one, so nothing need be checked, and nothing is converted.
pub inline fn nearAddress(value: f64) u64 {
    return turned(@bitCast(value)) -% (exponent_bits >> 6);
}

/// Six places to the right, the last ones to the front. The compiler takes `shld` for it, which some
/// processors make of six steps.
inline fn turned(bits: u64) u64 {
    if (builtin.cpu.arch != .x86_64 or builtin.zig_backend != .stage2_llvm) return std.math.rotr(u64, bits, 6);
    return asm ("rorq $6, %[out]"
        : [out] "=r" (-> u64),
        : [in] "0" (bits),
        : .{ .cc = true });
}

/// A near address as an f64.
pub inline fn ofNearAddress(address: u64) f64 {
    return @bitCast((address << 6) +% exponent_bits);
}

test "a near address is the bits of its f64, and no other f64 becomes one" {
    const middle = near_first + (near_first >> 1) + 12_345;
    for ([_]u64{ near_first, near_first + 1, near_first + 16, middle, near_end - 16, near_end - 1 }) |address| {
        const value: f64 = @floatFromInt(address);
        try std.testing.expectEqual(address, nearAddress(value));
        try std.testing.expectEqual(value, ofNearAddress(address));
    }
    const nan = std.math.nan(f64);
    const infinite = std.math.inf(f64);
    const first: f64 = @floatFromInt(near_first);
    const end: f64 = @floatFromInt(near_end);
    const others = [_]f64{
        0,                  -0.0,             1,           -1,     0.5,                  nan,                       -nan,                   infinite, -infinite,
        first - 1,          end,              end + 16,    -first, -end,                 first / 16,                end * 16,               1 << 53,  1e300,
        first + 1.0 / 64.0, end - 1.0 / 64.0, first + 0.5, 1e-300, @bitCast(near_first), @bitCast(near_first + 16), @bitCast(~@as(u64, 0)),
    };
    for (others) |value| {
        const address = nearAddress(value);
        try std.testing.expect(address < near_first or address >= near_end);
    }
    var random: std.Random.DefaultPrng = .init(46);
    for (0..100_000) |_| {
        const bits = random.random().int(u64);
        const value: f64 = @bitCast(bits);
        const address = nearAddress(value);
        const whole_one = value >= first and value < end and @floor(value) == value;
        try std.testing.expectEqual(whole_one, address >= near_first and address < near_end);
        // The same exponent, so that half of them are near.
        const close: f64 = @bitCast((bits >> 12) | (@as(u64, 1023 + 46) << 52));
        try std.testing.expectEqual(@floor(close) == close, nearAddress(close) < near_end);
    }
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
