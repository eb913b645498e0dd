/**
 * The Zig package as a program has it that fetched it: std's containers in a heap, a second
 * allocator on its pages, both across a kill. The program stands in tests/native/zig_program/; std's
 * own tests of allocators are in zig/src/test_perm.zig.
 */
import assert from "node:assert/strict";
import { cpSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import test from "node:test";
import { Heap } from "../mod.ts";
import { runIn, skipNative, zig } from "./native.ts";
import { repository, run } from "./runtimes.ts";
import { Folder } from "./support.ts";

const source = `${repository}tests/native/zig_program/`;

/** Puts the program into the folder with a package of its own: what Zig takes of this repository. */
function fetchProgram(folder: Folder): void {
  for (const name of ["build.zig", "build.zig.zon", "src"]) {
    cpSync(source + name, folder.file(name), { recursive: true });
  }
  const cache = ["--global-cache-dir", folder.file("fetched")];
  const fetched = run([zig, "fetch", ...cache, `${repository}zig`], { directory: folder.path });
  assert.equal(fetched.code, 0, fetched.err);
  const place = `zig-pkg/${fetched.out.trim()}`;
  for (const name of ["perm.h", "pallocator.hpp", "permmalloc.h"]) {
    assert.ok(existsSync(folder.file(`${place}/include/${name}`)), name);
  }
  const manifest = readFileSync(folder.file("build.zig.zon"), "utf8");
  writeFileSync(folder.file("build.zig.zon"), manifest.replace("../../../zig", place));
}

for (
  const [name, flags, fetches] of [
    ["", [], true],
    [", of one thread", ["-Dsingle=true"], false],
  ] as const
) {
  test(
    `a Zig program${name} goes on after a kill, and goes back with a second allocator`,
    { skip: skipNative, timeout: 300_000 },
    () => {
      using folder = new Folder();
      if (fetches) fetchProgram(folder);
      const places = ["--cache-dir", `${source}.zig-cache`, "--prefix", folder.path];
      const { code, err } = run([zig, "build", ...flags, ...places], {
        directory: fetches ? folder.path : source,
      });
      assert.equal(code, 0, err);
      const program = folder.file("bin/zig_program");
      runIn(folder, [program, "make", "zig.heap"], { exit: "killed" });
      {
        using heap = Heap.open({ file: folder.file("zig.heap"), size: 1 << 20, keep: 8 });
        heap.check();
        assert.equal(heap.epoch, 2);
        assert.equal(heap.bytes(heap.root, 1)[0], 0x5a);
      }
      assert.equal(runIn(folder, [program, "again", "zig.heap"], { says: "whole\n" }), "");
      const refused = run([program, "again", "none/zig.heap"], { directory: folder.path });
      assert.match(refused.err, /^Cannot open the directory of image "none\/zig\.heap"/);
    },
  );
}
