/**
 * Small file systems for tests that need one to be full or read-only, or of another kind than the one
 * that the machine runs on.
 *
 * @module
 */
import { execFileSync } from "node:child_process";
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statfsSync,
  truncateSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { installed } from "./runtimes.ts";
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

  /** Writes a file of zeros until the system says that there is no room: what is left is its own. */
  exhaust(): void {
    const file = openSync(join(this.path, "filler"), "a");
    const bytes = new Uint8Array(1 << 20);
    let len = bytes.length;
    try {
      while (len >= 4096) {
        try {
          writeSync(file, bytes, 0, len);
        } catch (error) {
          if ((error as { code?: string }).code !== "ENOSPC") throw error;
          len /= 4;
          // What was promised and not written yet counts, too.
          try {
            fsyncSync(file);
          } catch {
            // No room for that either.
          }
        }
      }
    } finally {
      closeSync(file);
    }
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

/** File systems in files that every heap is tried on. */
export const loopKinds = ["ext4", "xfs", "btrfs"] as const;
/** File systems that a file can hold. */
export type LoopKind = keyof typeof makers;

const makers = {
  ext2: { packageName: "e2fsprogs", options: ["-q", "-F"] },
  ext4: { packageName: "e2fsprogs", options: ["-q", "-F"] },
  xfs: { packageName: "xfsprogs", options: ["-q", "-f"] },
  btrfs: { packageName: "btrfs-progs", options: ["-q", "-f"] },
};

/** What mkfs makes of no less, and no more than the tests need. */
const loopBytes = 320 << 20;

/** A file system in a file beside the mount point; the loop device goes with the mount. */
export function mountLoop(path: string, kind: LoopKind, bytes: number = loopBytes): Mount {
  const image = `${path}.img`;
  closeSync(openSync(image, "w"));
  truncateSync(image, bytes);
  execFileSync(`mkfs.${kind}`, [...makers[kind].options, image], { stdio: "pipe" });
  return new Mount(path, ["-t", kind, "-o", "loop", image]);
}

/** Why that file system cannot be had here; false when it can. */
export function refusesLoop(kind: LoopKind): string | false {
  if (process.getuid?.() !== 0) return "only root mounts files";
  if (!knowsFileSystem(kind)) return `the kernel knows no ${kind}`;
  const { packageName } = makers[kind];
  if (!installed(`mkfs.${kind}`)) return `mkfs.${kind} is missing: apt-get install ${packageName}`;
  using folder = new Folder();
  try {
    using _mount = mountLoop(folder.file("probe"), kind);
    return false;
  } catch (error) {
    return `${kind} in a file cannot be mounted here: ${error}`;
  }
}

/** Why no file system can be kept from answering here; false when one can. */
export function refusesFreezing(): string | false {
  const refused = refusesLoop("ext4");
  if (refused) return refused;
  return installed("fsfreeze") ? false : "fsfreeze is missing: apt-get install util-linux";
}

function knowsFileSystem(kind: LoopKind): boolean {
  const isListed = () => readFileSync("/proc/filesystems", "utf8").split(/\s+/).includes(kind);
  try {
    if (!isListed()) execFileSync("modprobe", [kind], { stdio: "pipe" });
    return isListed();
  } catch {
    return false;
  }
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
