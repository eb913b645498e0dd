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
  // Not `npm ci`: it asks for the optional packages of every other system.
  const options = ["--no-save", "--ignore-scripts", "--no-audit", "--no-fund"];
  const { status, stderr, error } = spawnSync("npm", ["install", ...options], { cwd: FOLDER });
  return status === 0 ? undefined : `npm install failed: ${error?.message ?? stderr}`;
}

/** A package of `bench/peers/package.json`, after `installPeers`. */
// deno-lint-ignore no-explicit-any
export function peer(name: string): any {
  return createRequire(`${FOLDER}package.json`)(name);
}
