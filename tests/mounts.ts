/**
 * Small file systems for tests that need one to be full or read-only.
 *
 * @module
 */
import { execFileSync } from "node:child_process";
import { closeSync, mkdirSync, openSync, rmSync, statfsSync, writeSync } from "node:fs";
import { join } from "node:path";
import { Folder } from "./support.ts";

/** A mounted file system that goes away with its scope. */
export class Mount implements Disposable {
  readonly path: string;

  constructor(path: string, options: string[]) {
    mkdirSync(path);
    execFileSync("mount", [...options, path], { stdio: "pipe" });
    this.path = path;
  }

  /** Mounts it again with other options. */
  remount(options: string): void {
    execFileSync("mount", ["-o", `remount,${options}`, this.path], { stdio: "pipe" });
  }

  /** Bytes that are free. */
  get free(): number {
    const { bavail, bsize } = statfsSync(this.path);
    return bavail * bsize;
  }

  /** Writes a file of zeros until no more than so many bytes are free: true; gives its path. */
  fill(left = 0): string {
    const path = join(this.path, "filler");
    const file = openSync(path, "a");
    const bytes = new Uint8Array(4096);
    try {
      while (this.free > left) writeSync(file, bytes);
    } finally {
      closeSync(file);
    }
    return path;
  }

  /** Frees what `fill` took. */
  empty(): void {
    rmSync(join(this.path, "filler"), { force: true });
  }

  [Symbol.dispose](): void {
    // Lazily: a heap's closed range may keep a file of it mapped until the process ends.
    execFileSync("umount", ["--lazy", this.path], { stdio: "pipe" });
  }
}

/** A tmpfs of that many bytes. */
export function mountTmpfs(path: string, bytes: number): Mount {
  return new Mount(path, ["-t", "tmpfs", "-o", `size=${bytes}`, "tmpfs"]);
}

/** Why nothing can be mounted here; false when it can. */
export function refusesMounts(): string | false {
  using folder = new Folder();
  try {
    using _mount = mountTmpfs(folder.file("probe"), 1 << 20);
    return false;
  } catch {
    return "mounting a tmpfs is not allowed here";
  }
}
