/**
 * The gate: format, lint, types, documentation, generated files. Everything runs, also after a
 * failure; the exit code is 1 when anything failed.
 *
 * @module
 */
import { spawnSync } from "node:child_process";
import process from "node:process";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const deno = process.execPath;
const zig = `${root}node_modules/.bin/zig`;

const steps: Record<string, string[]> = {
  "TypeScript format": [deno, "fmt", "--check"],
  "Zig format": [zig, "fmt", "--check", "zig"],
  "lint": [deno, "lint"],
  "types": [deno, "check"],
  "types of examples": [
    deno,
    "check",
    "--doc",
    "mod.ts",
    "heap",
    "data",
    "ffi",
    "tuning",
    "README.md",
  ],
  "documentation": [deno, "doc", "--lint", "mod.ts", "data/mod.ts", "tuning/mod.ts"],
  "generated files": [deno, "run", "-A", "tests/tasks/build.ts", "--check"],
};

const failed: string[] = [];
for (const [name, [program, ...args]] of Object.entries(steps)) {
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    cwd: root,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
    maxBuffer: 1 << 26,
  });
  console.log(`${status === 0 ? "ok    " : "FAILED"} ${name}`);
  if (status === 0) continue;
  failed.push(name);
  console.log(`${stdout}${stderr}${error?.message ?? ""}`);
}
if (failed.length > 0) {
  console.log(`deno task check failed: ${failed.join(", ")}`);
  process.exitCode = 1;
}
