/**
 * Writes `dist/`, the JavaScript and declarations that npm delivers: Deno does not run TypeScript
 * from `node_modules`. Its packer makes them from the same sources and exports as JSR's.
 *
 * @module
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const work = mkdtempSync(`${root}node_modules/.perm-dist-`);
try {
  run(process.execPath, "pack", "--allow-dirty", "--no-source-maps", "-o", `${work}/package.tgz`);
  run("tar", "-xzf", `${work}/package.tgz`, "-C", work);
  const packed = JSON.parse(readFileSync(`${work}/package/package.json`, "utf8"));
  const ours = JSON.parse(readFileSync(`${root}package.json`, "utf8"));
  if (packed.version !== ours.version) {
    throw new Error(`deno.json is at ${packed.version}, package.json at ${ours.version}`);
  }
  // npm's own package.json, at the top, is the one that counts.
  rmSync(`${work}/package/package.json`);
  for (const name of ["README.md", "LICENSE"]) rmSync(`${work}/package/${name}`, { force: true });
  rmSync(`${root}dist`, { recursive: true, force: true });
  renameSync(`${work}/package`, `${root}dist`);
} finally {
  rmSync(work, { recursive: true, force: true });
}

function run(program: string, ...args: string[]): void {
  const { status, stderr, error } = spawnSync(program, args, { cwd: root, encoding: "utf8" });
  if (status === 0) return;
  throw new Error(`${program} ${args.join(" ")} failed: ${error?.message ?? stderr}`);
}
