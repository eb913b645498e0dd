/**
 * Installs what the tasks need from npm into `node_modules`: Bun, Zig and types, at the versions
 * that package.json pins. With npm from its lock file; where there is no npm, by Deno itself. With
 * --programs also what tests run of the system's, on Debian.
 *
 * Invariant: when it ends well, `node_modules/.bin/bun` and `node_modules/.bin/zig` are programs
 * that run, and a stamp tells the next call that nothing is left to do.
 *
 * @module
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { installPrograms } from "./programs.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const bun = `${root}node_modules/.bin/bun`;
const zig = `${root}node_modules/.bin/zig`;
const stampFile = `${root}node_modules/.perm-setup`;

const wanted = createHash("sha256")
  .update(JSON.stringify(JSON.parse(readFileSync(`${root}package.json`, "utf8")).devDependencies))
  .update(readFileSync(`${root}package-lock.json`))
  .digest("hex");

if (!isDone()) install();
if (process.argv.includes("--programs") && !installPrograms()) process.exit(2);

function isDone(): boolean {
  return existsSync(stampFile) && readFileSync(stampFile, "utf8") === wanted &&
    existsSync(bun) && existsSync(zig);
}

function install(): void {
  const hasNpm = spawnSync("npm", ["--version"]).status === 0;
  // Install scripts stay off: the only one we need is Bun's, and newer npm do not run it unasked.
  if (hasNpm) run("npm", ["ci", "--include=dev", "--ignore-scripts", "--no-audit", "--no-fund"]);
  else run(process.execPath, ["install"]);
  if (!answers(bun, "--version")) {
    run(process.execPath, ["run", "-A", `${root}node_modules/bun/install.js`]);
  }
  for (const [program, flag] of [[bun, "--version"], [zig, "version"]] as const) {
    if (!answers(program, flag)) stop(`${program} does not run after the installation`);
  }
  writeFileSync(stampFile, wanted);
}

function answers(program: string, flag: string): boolean {
  return spawnSync(program, [flag]).status === 0;
}

function run(program: string, args: string[]): void {
  // Standard output belongs to the task that comes after.
  const { status, error } = spawnSync(program, args, { cwd: root, stdio: ["ignore", 2, 2] });
  if (status !== 0) stop(`${program} ${args.join(" ")} failed: ${error?.message ?? status}`);
}

function stop(message: string): never {
  console.error(`Cannot set up the tools of this project: ${message}`);
  process.exit(2);
}
