/**
 * Installs the programs that tests run and find missing, from Debian's packages: those that
 * libpermmalloc is proven on, compilers, and what makes file systems. Part of `deno task setup
 * --programs`, and never done unasked.
 *
 * @module
 */
import { spawnSync } from "node:child_process";
import process from "node:process";

/** A program, and the package that brings it. */
const packages: Record<string, string> = {
  bash: "bash",
  "btrfs": "btrfs-progs",
  "g++": "g++",
  gcc: "gcc",
  git: "git",
  "mkfs.ext4": "e2fsprogs",
  "mkfs.xfs": "xfsprogs",
  "musl-gcc": "musl-tools",
  node: "nodejs",
  perl: "perl",
  "pkg-config": "pkg-config",
  python3: "python3",
  "redis-benchmark": "redis-tools",
  "redis-server": "redis-server",
  setarch: "util-linux",
  sort: "coreutils",
  sqlite3: "sqlite3",
};

function succeeds(...[program, ...args]: string[]): boolean {
  return spawnSync(program, args, { stdio: "ignore" }).status === 0;
}

/** Packages of what is missing. */
function missing(): string[] {
  const names = Object.entries(packages)
    .filter(([program]) => !succeeds("sh", "-c", 'command -v "$0"', program))
    .map(([, name]) => name);
  // Debian keeps python3's own tests apart.
  if (!succeeds("python3", "-c", "import test.test_json")) names.push("libpython3-testsuite");
  return [...new Set(names)];
}

/** Installs what is missing; false, and said why, when something still is. */
export function installPrograms(): boolean {
  const wanted = missing();
  if (wanted.length > 0) {
    const command = `apt-get install ${wanted.join(" ")}`;
    if (process.getuid?.() !== 0 || !succeeds("sh", "-c", "command -v apt-get")) {
      console.error(`Cannot install programs that tests run: as root on Debian, ${command}`);
      return false;
    }
    for (const name of wanted) {
      // One by one: what Debian does not have stays away alone.
      const options = ["install", "-y", "--no-install-recommends", name];
      const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
      spawnSync("apt-get", options, { stdio: ["ignore", 2, 2], env });
    }
  }
  const left = missing();
  if (left.length === 0) return true;
  console.error(`Missing still, and skipped by the tests that need it: ${left.join(", ")}`);
  return false;
}
