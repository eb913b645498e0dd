/**
 * How tests compile and run programs in C and C++ against libperm: with the Zig that is installed
 * with the project, so that nothing else is needed, and with gcc where there is one.
 *
 * Invariant: libperm is built from the sources as they are, once a run, by the build's own cache.
 *
 * @module
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import type { Folder } from "./support.ts";
import { repository, run, thisRuntime } from "./runtimes.ts";

/** The project's Zig. */
export const zig: string = `${repository}node_modules/.bin/zig`;

/** Why tests of C programs are skipped here, or false: they need to run once, not in each runtime. */
export const skipNative: string | false = thisRuntime === "deno"
  ? false
  : "the programs are C, and run under Deno's test";

/** Where libperm is installed: `lib/libperm.so`, `lib/libperm.a`, `include/perm.h`. */
let installed: string | undefined;

/** Builds and installs libperm, once a run, and tells where. */
export function libperm(): string {
  if (installed === undefined) {
    const prefix = `${repository}zig/zig-out`;
    const { code, err } = run([zig, "build", "libperm", "--prefix", prefix], {
      directory: `${repository}zig`,
    });
    assert.equal(code, 0, err);
    installed = prefix;
  }
  return installed;
}

/** A way to make programs. */
export interface Compiler {
  readonly name: string;
  readonly c: readonly string[];
  readonly cpp: readonly string[];
}

/** Zig's own, for the system's kind of libc. */
export const zigCompiler: Compiler = {
  name: "zig cc",
  c: [zig, "cc", "-target", "x86_64-linux-gnu"],
  cpp: [zig, "c++", "-target", "x86_64-linux-gnu"],
};

/** Zig's own, with musl inside the program. */
export const muslCompiler: Compiler = {
  name: "zig cc, musl",
  c: [zig, "cc", "-target", "x86_64-linux-musl", "-static"],
  cpp: [zig, "c++", "-target", "x86_64-linux-musl", "-static"],
};

/** GNU's, or undefined. */
export const gnuCompiler: Compiler | undefined = spawnSync("g++", ["--version"]).status === 0
  ? { name: "gcc", c: ["gcc", "-no-pie"], cpp: ["g++", "-no-pie"] }
  : undefined;

/** How a program is made. */
export interface Build {
  readonly compiler?: Compiler;
  /** Links libperm.a instead of libperm.so. */
  readonly static?: boolean;
  readonly flags?: readonly string[];
}

/** Compiles `tests/native/<source>` into the folder; warnings are errors. */
export function compile(folder: Folder, source: string, options: Build = {}): string {
  const { compiler = zigCompiler, flags = [] } = options;
  const prefix = libperm();
  const isCpp = source.endsWith(".cpp");
  const ending = flags.includes("-shared") ? ".so" : "";
  const program = folder.file(source.replace(/\.\w+$/, ending));
  const { code, err } = run([
    ...(isCpp ? compiler.cpp : compiler.c),
    ...(isCpp ? ["-std=c++11"] : ["-std=c11", "-D_GNU_SOURCE"]),
    ...["-O1", "-Wall", "-Wextra", "-Werror", `-I${prefix}/include`, ...flags],
    ...[`${repository}tests/native/${source}`, "-o", program, "-pthread"],
    ...(options.static
      ? [`${prefix}/lib/libperm.a`]
      : [`-L${prefix}/lib`, "-lperm", `-Wl,-rpath,${prefix}/lib`]),
  ]);
  assert.equal(code, 0, err);
  return program;
}

/** Runs a program in the folder and gives what it printed; its end has to be as expected. */
export function runIn(
  folder: Folder,
  command: string[],
  { exit = 0, env, says = "" }: {
    exit?: number | "killed";
    env?: Record<string, string>;
    /** What it writes to standard error, which the library never does. */
    says?: string;
  } = {},
): string {
  const { code, out, err } = run(command, { directory: folder.path, env });
  assert.equal(code, exit === "killed" ? null : exit, `${command.join(" ")}\n${out}${err}`);
  assert.equal(err, says);
  return out;
}
