/**
 * The programs that tests start: either runtime, from under either runtime.
 *
 * @module
 */
import { spawnSync } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

/** The repository's folder, with a slash at its end. */
export const repository: string = fileURLToPath(new URL("..", import.meta.url));

/** The runtime that runs this test. */
export const thisRuntime: Runtime = process.versions.deno === undefined ? "bun" : "deno";

/** What can run a test's child program. */
export type Runtime = "deno" | "bun";

/** Both, for tests that go from one to the other. */
export const runtimes: readonly Runtime[] = ["deno", "bun"];

/**
 * The program of a runtime. Who cannot be found is an error here and now: a child that never came to
 * be is waited for until the test's time is over.
 */
function programOf(runtime: Runtime): string {
  if (runtime === thisRuntime) return process.execPath;
  // Under npx there may be no `deno` on the PATH: `deno task test` says where it is.
  const places = runtime === "bun"
    ? [`${repository}node_modules/.bin/bun`]
    : process.env.PERM_DENO
    ? [process.env.PERM_DENO]
    : placesOf("deno");
  const found = places.find(isProgram);
  if (found !== undefined) return found;
  throw new Error(
    runtime === "bun"
      ? `Cannot start Bun: there is no ${places[0]}; run "npm ci"`
      : "Cannot start Deno: there is none " +
        (process.env.PERM_DENO ? `at PERM_DENO=${places[0]}` : "on the PATH") +
        '; set PERM_DENO to its path, or run "deno task test"',
  );
}

/** Where a program of that name may be. */
function placesOf(name: string): string[] {
  return (process.env.PATH ?? "").split(delimiter).map((folder) => join(folder, name));
}

/** Path of a program that is installed, or undefined. */
export function installed(name: string): string | undefined {
  return placesOf(name).find(isProgram);
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** The command line that runs a script, in Deno with all permissions unless others are named. */
export function command(
  runtime: Runtime,
  script: string,
  args: string[] = [],
  permissions: string[] = ["-A"],
): string[] {
  const flags = runtime === "deno" ? ["run", "--no-check", ...permissions] : ["run"];
  return [programOf(runtime), ...flags, script, ...args];
}

/** This process's environment with changes; a variable that is undefined in them is unset. */
export function environmentWith(
  changes: Record<string, string | undefined>,
): Record<string, string> {
  const all = Object.entries({ ...process.env, ...changes });
  return Object.fromEntries(all.filter((entry): entry is [string, string] => {
    return entry[1] !== undefined;
  }));
}

/** Runs a command to its end, with {@linkcode environmentWith} that. */
export function run(
  [program, ...args]: string[],
  { directory = repository, env = {} }: {
    directory?: string;
    env?: Record<string, string | undefined>;
  } = {},
): { code: number | null; out: string; err: string } {
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    cwd: directory,
    encoding: "utf8",
    env: environmentWith({ NO_COLOR: "1", ...env }),
    maxBuffer: 1 << 28,
  });
  if (error) throw error;
  return { code: status, out: stdout, err: stderr };
}
