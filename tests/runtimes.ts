/**
 * The programs that tests start: either runtime, from under either runtime.
 *
 * @module
 */
import { spawnSync } from "node:child_process";
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

const programs: Record<Runtime, string> = {
  // Under npx there may be no `deno` on the PATH: `deno task test` says where it is.
  deno: thisRuntime === "deno" ? process.execPath : process.env.PERM_DENO ?? "deno",
  bun: thisRuntime === "bun" ? process.execPath : `${repository}node_modules/.bin/bun`,
};

/** The command line that runs a script, in Deno with all permissions unless others are named. */
export function command(
  runtime: Runtime,
  script: string,
  args: string[] = [],
  permissions: string[] = ["-A"],
): string[] {
  const flags = runtime === "deno" ? ["run", "--no-check", ...permissions] : ["run"];
  return [programs[runtime], ...flags, script, ...args];
}

/** Runs a command to its end; a variable of the environment that is undefined there is unset. */
export function run(
  [program, ...args]: string[],
  { directory = repository, env = {} }: {
    directory?: string;
    env?: Record<string, string | undefined>;
  } = {},
): { code: number | null; out: string; err: string } {
  const environment: Record<string, string> = {};
  for (const [name, value] of Object.entries({ ...process.env, NO_COLOR: "1", ...env })) {
    if (value !== undefined) environment[name] = value;
  }
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    cwd: directory,
    encoding: "utf8",
    env: environment,
    maxBuffer: 1 << 28,
  });
  if (error) throw error;
  return { code: status, out: stdout, err: stderr };
}
