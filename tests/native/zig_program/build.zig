const std = @import("std");

/// A program that depends on the package as any other does.
pub fn build(b: *std.Build) void {
    const target = b.standardTargetOptions(.{});
    const optimize = b.standardOptimizeOption(.{});
    const perm_heap = b.dependency("perm_heap", .{ .target = target, .optimize = optimize });
    const program = b.addExecutable(.{
        .name = "zig_program",
        .root_module = b.createModule(.{
            .root_source_file = b.path("src/main.zig"),
            .target = target,
            .optimize = optimize,
            .link_libc = b.option(bool, "libc", "Link libc") orelse false,
            .single_threaded = b.option(bool, "single", "One thread only") orelse false,
            .imports = &.{.{ .name = "perm_heap", .module = perm_heap.module("perm_heap") }},
        }),
    });
    b.installArtifact(program);

    const containers = b.addExecutable(.{
        .name = "containers",
        .root_module = b.createModule(.{
            .root_source_file = b.path("src/containers.zig"),
            .target = target,
            .optimize = optimize,
            .imports = &.{.{ .name = "perm_heap", .module = perm_heap.module("perm_heap") }},
        }),
    });
    const step = b.step("containers", "The program that reads what TypeScript wrote");
    step.dependOn(&b.addInstallArtifact(containers, .{}).step);
}
