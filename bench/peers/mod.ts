/**
 * npm packages that stand beside the heap in a measure, and nowhere else: a folder with its own
 * package.json, so that building and testing never install them. The first measure that asks does.
 *
 * @module
 */

import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const FOLDER = fileURLToPath(new URL(".", import.meta.url));

/** Installs the packages unless they are there: the reason when that fails. */
export function installPeers(): string | undefined {
  if (existsSync(`${FOLDER}node_modules/.package-lock.json`)) return undefined;
  const options = ["--ignore-scripts", "--no-audit", "--no-fund"];
  const { status, stderr, error } = spawnSync("npm", ["ci", ...options], { cwd: FOLDER });
  return status === 0 ? undefined : `npm ci failed: ${error?.message ?? stderr}`;
}

/** A package of `bench/peers/package.json`, after `installPeers`. */
// deno-lint-ignore no-explicit-any
export function peer(name: string): any {
  return createRequire(`${FOLDER}package.json`)(name);
}
