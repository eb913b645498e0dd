//! The simulator: the engine's own code over a machine in memory, driven by a seed through crashes,
//! failures, contending processes, folds, readers and branches, and judged by a model (docs/engine.md).
//!
//! machine.zig is the machine, actor.zig what its processes do, model.zig what may be found, world.zig
//! who goes on when; fuzz.zig feeds the opener with what nobody wrote.

const std = @import("std");
const plant = @import("../../plant.zig");
const world_ = @import("world.zig");
pub const World = world_.World;
pub const Options = world_.Options;
pub const Counts = world_.Counts;
pub const Faults = world_.Faults;
pub const supported = @import("fiber.zig").supported;

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
