const std = @import("std");

/// `zig build` makes libperm_heap.so, which TypeScript loads; `zig build libperm` the library for C and
/// C++ with its headers, `zig build permmalloc` the malloc for other programs, `zig build install` all
/// of them; `zig build test` runs the tests beside the code; `zig build symbols` prints ffi/symbols.ts.
/// Zig programs depend on the module `perm_heap`.
pub fn build(b: *std.Build) void {
    const target = b.standardTargetOptions(.{ .default_target = .{
        .cpu_arch = .x86_64,
        .os_tag = .linux,
        .abi = .none,
        .cpu_model = .{ .explicit = &std.Target.x86.cpu.x86_64_v2 },
    } });
    const optimize = b.option(std.builtin.OptimizeMode, "optimize", "default ReleaseSafe") orelse .ReleaseSafe;

    const library = b.addLibrary(.{
        // The zeros are in the soname: `deno task build` puts a hash of the library there.
        .name = "perm_heap-0000000000000000",
        .linkage = .dynamic,
        .root_module = b.createModule(.{
            .root_source_file = b.path("src/library.zig"),
            .target = target,
            .optimize = optimize,
            .strip = true,
            .unwind_tables = .none,
            .pic = true,
            .link_libc = false,
            .single_threaded = false,
            .omit_frame_pointer = true,
        }),
    });
    const install_library = b.addInstallArtifact(library, .{ .dest_sub_path = "libperm_heap.so" });
    b.default_step = b.step("library", "Install libperm_heap.so (the default)");
    b.default_step.dependOn(&install_library.step);
    b.getInstallStep().dependOn(&install_library.step);

    const libperm = b.step("libperm", "Install libperm.so, libperm.a, perm.h, pallocator.hpp and perm.pc");
    addLibperm(b, libperm, target, optimize);
    b.getInstallStep().dependOn(libperm);

    _ = b.addModule("perm_heap", .{ .root_source_file = b.path("src/perm.zig") });

    const permmalloc = b.addLibrary(.{
        .name = "permmalloc",
        .linkage = .dynamic,
        .root_module = b.createModule(.{
            .root_source_file = b.path("src/permmalloc.zig"),
            .target = target,
            .optimize = optimize,
            .strip = true,
            .unwind_tables = .none,
            .pic = true,
            .link_libc = false,
            .single_threaded = false,
            .stack_protector = false,
            .omit_frame_pointer = true,
        }),
    });
    const permmalloc_step = b.step("permmalloc", "Install libpermmalloc.so and permmalloc.h");
    permmalloc_step.dependOn(&b.addInstallArtifact(permmalloc, .{}).step);
    permmalloc_step.dependOn(&b.addInstallHeaderFile(b.path("include/permmalloc.h"), "permmalloc.h").step);
    b.getInstallStep().dependOn(permmalloc_step);

    const symbols = b.addExecutable(.{
        .name = "symbols",
        .root_module = b.createModule(.{
            .root_source_file = b.path("src/symbols.zig"),
            .target = b.graph.host,
            .optimize = .Debug,
        }),
    });
    b.step("symbols", "Print ffi/symbols.ts").dependOn(&b.addRunArtifact(symbols).step);

    const tests = b.addTest(.{
        .root_module = b.createModule(.{
            .root_source_file = b.path("src/abi.zig"),
            .target = b.resolveTargetQuery(.{ .cpu_arch = .x86_64, .os_tag = .linux, .abi = .musl }),
            .optimize = optimize,
            .link_libc = true,
        }),
        .filters = b.option([]const []const u8, "filter", "Run only tests whose name contains this") orelse &.{},
    });
    const run_tests = b.addRunArtifact(tests);
    run_tests.has_side_effects = true; // they touch files: a pass is never taken from the cache
    const test_step = b.step("test", "Run the tests beside the code");
    test_step.dependOn(&run_tests.step);

    const simulate = b.addExecutable(.{
        .name = "simulate",
        .root_module = b.createModule(.{
            .root_source_file = b.path("src/simulate.zig"),
            .target = b.resolveTargetQuery(.{ .cpu_arch = .x86_64, .os_tag = .linux, .abi = .musl }),
            .optimize = optimize,
            .link_libc = true,
        }),
    });
    test_step.dependOn(&simulate.step); // that it compiles
    const run_simulate = b.addRunArtifact(simulate);
    run_simulate.has_side_effects = true;
    if (b.args) |args| run_simulate.addArgs(args);
    b.step("simulate", "Run the image engine on a simulated machine: -- --steps N --seed S").dependOn(&run_simulate.step);

    // The processor that the library is built for, and the host's own malloc.
    const bench_target = b.resolveTargetQuery(.{
        .cpu_arch = .x86_64,
        .os_tag = .linux,
        .abi = .gnu,
        .cpu_model = .{ .explicit = &std.Target.x86.cpu.x86_64_v2 },
    });
    const bench_core = b.createModule(.{
        .root_source_file = b.path("src/core.zig"),
        .target = bench_target,
        .optimize = optimize,
        .link_libc = true,
        .stack_protector = false,
        .omit_frame_pointer = true,
    });
    const bench_alloc = addBench(b, "alloc", bench_core);
    b.step("bench-alloc", "Measure the heap's allocator beside the process's malloc")
        .dependOn(&b.addRunArtifact(bench_alloc).step);
    const bench_field = addBench(b, "field", bench_core);
    b.step("bench-field", "Make bin/bench-field: the field's allocator benchmarks, on ours or the process's malloc")
        .dependOn(&b.addInstallArtifact(bench_field, .{}).step);
}

fn addBench(b: *std.Build, comptime name: []const u8, core: *std.Build.Module) *std.Build.Step.Compile {
    return b.addExecutable(.{
        .name = "bench-" ++ name,
        .root_module = b.createModule(.{
            .root_source_file = b.path("bench/" ++ name ++ ".zig"),
            .target = core.resolved_target,
            .optimize = core.optimize,
            .link_libc = true,
            .stack_protector = false,
            .omit_frame_pointer = true,
            .imports = &.{.{ .name = "core", .module = core }},
        }),
    });
}

/// The library for C and C++. Neither form names a libc: both run with glibc and musl.
fn addLibperm(b: *std.Build, step: *std.Build.Step, target: std.Build.ResolvedTarget, optimize: std.builtin.OptimizeMode) void {
    const version: std.SemanticVersion = .{ .major = 0, .minor = 1, .patch = 0 };
    for ([_]std.builtin.LinkMode{ .dynamic, .static }) |linkage| {
        const library = b.addLibrary(.{
            .name = "perm",
            .linkage = linkage,
            .version = if (linkage == .dynamic) version else null,
            .root_module = b.createModule(.{
                .root_source_file = b.path(if (linkage == .dynamic) "src/libperm.zig" else "src/libperm_static.zig"),
                .target = target,
                .optimize = optimize,
                .strip = true,
                .unwind_tables = .none,
                .pic = true,
                .link_libc = false,
                .single_threaded = false,
                // Its helper is Zig's: other linkers would miss it.
                .stack_check = if (linkage == .static) false else null,
            }),
        });
        step.dependOn(&b.addInstallArtifact(library, .{}).step);
    }
    for ([_][]const u8{ "perm.h", "pallocator.hpp" }) |name| {
        step.dependOn(&b.addInstallHeaderFile(b.path(b.pathJoin(&.{ "include", name })), name).step);
    }
    const pkg_config = b.addWriteFiles().add("perm.pc", b.fmt(
        \\prefix=${{pcfiledir}}/../..
        \\Name: perm
        \\Description: A persistent heap for C and C++
        \\Version: {f}
        \\Cflags: -I${{prefix}}/include
        \\Libs: -L${{prefix}}/lib -lperm
        \\Libs.private: -lpthread
        \\
    , .{version}));
    step.dependOn(&b.addInstallFileWithDir(pkg_config, .lib, "pkgconfig/perm.pc").step);
}
