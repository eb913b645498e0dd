/**
 * Builds the native library and writes what is generated from it: `ffi/symbols.ts`, the table of
 * its functions, `ffi/embedded.json`, the library itself, and `ffi/embedded.ts`, what it is called. The
 * same bytes go to a file beside them, which git ignores and npm delivers: from there the library is
 * loaded without being decoded. `--check` writes nothing and fails when a committed file is not what the sources give.
 *
 * Invariant: the same sources and tools give the same bytes, on any machine and in any folder. The
 * library's soname holds a hash of all its other bytes, so that no two libraries share one.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const isCheck = process.argv.includes("--check");

/** What build.zig calls the library. */
const placeholder = "libperm_heap-0000000000000000.so";
/**
 * The zeros give way to the hash. A name with a slash is compared with the libraries that a process
 * has and not looked for in folders, and this one no file can have.
 */
const sonameForm = "/dev/null/ph-0000000000000000.so";

const symbols = zigBuild("library", "symbols");
const library = named(readFileSync(`${root}zig/zig-out/lib/libperm_heap.so`));

const stale = [
  update("ffi/symbols.ts", symbols.toString()),
  update("ffi/embedded.ts", embeddedModule(library)),
  update("ffi/embedded.json", embeddedBytes(library)),
].filter((path) => path !== undefined);

if (!isCheck) writeLibrary(library);

if (isCheck && stale.length > 0) {
  console.error(`${stale.join(", ")}: not what the sources give; run \`deno task build\``);
  process.exit(1);
}

function zigBuild(...steps: string[]): Uint8Array {
  const { status, stdout, error } = spawnSync(`${root}node_modules/.bin/zig`, ["build", ...steps], {
    cwd: `${root}zig`,
    stdio: ["ignore", "pipe", "inherit"],
  });
  if (status !== 0) {
    console.error(`Cannot build the native library: ${error?.message ?? `zig exited ${status}`}`);
    process.exit(2);
  }
  return stdout;
}

/** The library under the soname that is its own. */
function named(bytes: Uint8Array): { soname: string; bytes: Uint8Array } {
  const text = Buffer.from(bytes);
  const at = text.indexOf(placeholder);
  if (at < 0 || text.indexOf(placeholder, at + 1) >= 0) {
    console.error(`Cannot name the native library: ${placeholder} must stand in it once`);
    process.exit(2);
  }
  const hash = createHash("sha256").update(bytes).digest("hex").slice(0, 16);
  const soname = sonameForm.replace("0000000000000000", hash);
  text.write(soname, at, "latin1");
  return { soname, bytes: text };
}

/** What the file beside the modules is called: by what it holds, so that it is never an old one. */
function fileName(soname: string): string {
  return soname.slice(soname.lastIndexOf("/") + 1);
}

/** Under its name there is all of it or nothing, also for programs that start meanwhile. */
function writeLibrary({ soname, bytes }: { soname: string; bytes: Uint8Array }): void {
  const name = fileName(soname);
  for (const other of readdirSync(`${root}ffi`)) {
    if (/^ph-\w+\.so(-new)?$/.test(other) && other !== name) rmSync(`${root}ffi/${other}`);
  }
  writeFileSync(`${root}ffi/${name}-new`, bytes, { mode: 0o755 });
  renameSync(`${root}ffi/${name}-new`, `${root}ffi/${name}`);
}

function embeddedModule({ soname, bytes }: { soname: string; bytes: Uint8Array }): string {
  return `// Generated from zig/ by \`deno task build\`. Do not edit.

/** A platform's library: its unique soname, its file's name and length. embedded.json has its bytes. */
export const embedded: Readonly<
  Record<string, { soname: string; file: string; bytes: number }>
> = {
  "linux-x64": {
    soname: "${soname}",
    file: "${fileName(soname)}",
    bytes: ${bytes.length},
  },
};
`;
}

/** Not compressed: packages are when they are delivered, and node:zlib takes Deno 20 ms to load. */
function embeddedBytes({ bytes }: { bytes: Uint8Array }): string {
  return JSON.stringify({ "linux-x64": Buffer.from(bytes).toString("base64") }) + "\n";
}

/** Writes the file unless it says the same already; returns its path when it did not. */
function update(path: string, text: string): string | undefined {
  const old = existsSync(root + path) ? readFileSync(root + path, "utf8") : "";
  if (old === text) return undefined;
  if (!isCheck) writeFileSync(root + path, text);
  return path;
}
