/**
 * The package as npm delivers it, installed beside nothing else: programs that are measured are what
 * users run, while everything else in this folder runs from the sources.
 *
 * @module
 */

import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { command, ROOT } from "./harness.ts";

/** Makes a project in `folder` that has the package. */
export function installPackage(folder: string): void {
  const [program, args] = command("deno", join(ROOT, "tests/tasks/dist.ts"), []);
  const { status, stderr } = spawnSync(program, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`the package could not be made: ${stderr}`);
  const home = join(folder, "node_modules/@perm/heap");
  mkdirSync(home, { recursive: true });
  cpSync(join(ROOT, "dist"), join(home, "dist"), { recursive: true });
  cpSync(join(ROOT, "package.json"), join(home, "package.json"));
  writeFileSync(join(folder, "package.json"), '{ "private": true, "type": "module" }\n');
}

/** A program of this folder as a user of the package in `folder` would have written it: its path. */
export function installProgram(folder: string, program: string): string {
  const path = join(folder, basename(program));
  writeFileSync(
    path,
    readFileSync(program, "utf8")
      .replaceAll('"../../data/mod.ts"', '"@perm/heap/data"')
      .replaceAll('"../../mod.ts"', '"@perm/heap"'),
  );
  return path;
}
