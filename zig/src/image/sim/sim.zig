//! The simulator: the engine's own code over a machine in memory, driven by a seed through crashes,
//! failures, contending processes, folds, readers and branches, and judged by a model (docs/engine.md).
//!
//! machine.zig is the machine, with medium.zig for what a power cut leaves and calls.zig for its system
//! calls; actor.zig what its processes do, model.zig what may be found, world.zig who goes on when;
//! scenarios.zig and trials.zig, on stage.zig, play what chance seldom does; fuzz.zig feeds the opener with what nobody wrote.

const std = @import("std");
const plant = @import("../../plant.zig");
const world_ = @import("world.zig");
pub const World = world_.World;
pub const Options = world_.Options;
pub const Counts = world_.Counts;
pub const Theme = world_.Theme;
pub const Faults = world_.Faults;
pub const Fuzz = @import("fuzz.zig").Fuzz;
pub const supported = @import("fiber.zig").supported;

test {
    _ = @import("scenarios.zig");
    _ = @import("trials.zig");
}

test "a hundred worlds of crashes, failures, contenders, folds and branches lose and mix nothing" {
    if (!supported) return error.SkipZigTest;
    const world = try std.testing.allocator.create(World);
    defer std.testing.allocator.destroy(world);
    world.init(.{});
    defer world.deinit();
    for (0..100) |seed| {
        world.run(seed);
        const what = world.failure orelse continue;
        std.debug.print("seed {d}, step {d}: {s}\n", .{ seed, world.machine.steps, what });
        return error.TestUnexpectedResult;
    }
}

test "the opener answers whatever base and log hold, and takes no more memory than they explain" {
    const fuzz = try std.testing.allocator.create(Fuzz);
    defer std.testing.allocator.destroy(fuzz);
    fuzz.init();
    defer fuzz.deinit();
    fuzz.run(0);
    const before_kib = std.posix.getrusage(std.posix.rusage.SELF).maxrss;
    for (0..1500) |seed| fuzz.run(seed);
    const after_kib = std.posix.getrusage(std.posix.rusage.SELF).maxrss;
    // The files have 300 KiB together.
    try std.testing.expect(after_kib - before_kib < 16 * 1024);
    // Most are refused, and many get as far as a commit.
    try std.testing.expect(fuzz.refused > 100 and fuzz.opened > 100);
}
