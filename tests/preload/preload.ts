/**
 * libpermmalloc as its tests and measurements use it: built once, a program of tasks compiled for
 * glibc and for musl, and the environment that puts the library in front of a program's malloc.
 *
 * @module
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import process from "node:process";
import { environmentWith, repository } from "../runtimes.ts";

const zig = `${repository}node_modules/.bin/zig`;
/** Ignored by git, and kept: compiling takes seconds. */
const output = `${repository}zig/zig-out/preload`;

/** Runs zig in the repository's zig folder, or says what it printed. */
function runZig(...args: string[]): void {
  const { status, stderr, error } = spawnSync(zig, args, {
    cwd: `${repository}zig`,
    encoding: "utf8",
  });
  if (status === 0) return;
  throw new Error(`Cannot run zig ${args.join(" ")}: ${error?.message ?? stderr}`);
}

let built = "";

/** Path of libpermmalloc.so: that of PERM_PERMMALLOC, or a new build. */
export function library(): string {
  if (built !== "") return built;
  const given = process.env.PERM_PERMMALLOC;
  if (given === undefined) runZig("build", "permmalloc", "--prefix", output);
  built = given ?? `${output}/lib/libpermmalloc.so`;
  return built;
}

/** A C library that programs are compiled for, and the loader without which none of them runs. */
export interface Target {
  name: "glibc" | "musl";
  flags: string[];
  loader: string;
}

/** glibc of 2012 on, and musl; for the processor that the library is for. */
export const targets: readonly Target[] = [
  {
    name: "glibc",
    flags: ["-target", "x86_64-linux-gnu.2.17", "-ldl", "-lpthread"],
    loader: "/lib64/ld-linux-x86-64.so.2",
  },
  {
    name: "musl",
    flags: ["-target", "x86_64-linux-musl", "-dynamic"],
    loader: "/lib/ld-musl-x86_64.so.1",
  },
];

/** Why programs for that C library do not run here; false when they do. */
export function lacks(target: Target): string | false {
  return existsSync(target.loader) ? false : `${target.loader} is not installed`;
}

/** Path of the program of tasks, compiled; `linked` with -lpermmalloc instead of for preloading. */
export function program(target: Target, linked = false): string {
  mkdirSync(output, { recursive: true });
  const path = `${output}/program-${target.name}${linked ? "-linked" : ""}`;
  const folder = library().slice(0, library().lastIndexOf("/"));
  // Without builtins, for a compiler knows what malloc and free do and leaves them out.
  const flags = ["-O1", "-g0", "-Wall", "-fno-builtin", "-Iinclude", "-o", path];
  const link = linked ? [`-L${folder}`, "-lpermmalloc", `-Wl,-rpath,${folder}`] : [];
  runZig("cc", "../tests/preload/program.c", ...flags, ...link, ...target.flags);
  return path;
}

/** What a program did. */
export interface Outcome {
  code: number | null;
  signal: string | null;
  out: string;
  err: string;
}

/** Runs a command with that much of an environment besides the usual. */
export function outcome(
  [file, ...args]: string[],
  env: Record<string, string | undefined> = {},
  { cwd, input, timeout = 120_000 }: { cwd?: string; input?: string; timeout?: number } = {},
): Outcome {
  const { status, signal, stdout, stderr, error } = spawnSync(file, args, {
    cwd,
    input: input ?? "",
    env: environmentWith({ NO_COLOR: "1", LC_ALL: "C", ...env }),
    encoding: "latin1",
    maxBuffer: 1 << 28,
    timeout,
    killSignal: "SIGKILL",
  });
  if (error && status === null && signal === null) throw error;
  return { code: status, signal, out: stdout, err: stderr };
}

/** The environment of a program whose memory lies in a pool in that directory. */
export function pooled(
  directory: string,
  settings: Record<string, string | undefined> = {},
): Record<string, string | undefined> {
  return {
    LD_PRELOAD: library(),
    VMMALLOC_POOL_DIR: directory,
    VMMALLOC_POOL_SIZE: "64M",
    ...settings,
  };
}
