/**
 * The Zig package as a program has it that depends on it: std's containers in a heap, a second
 * allocator on its pages, both across a kill. The program stands in tests/native/zig_program/; std's
 * own tests of allocators are in zig/src/test_perm.zig.
 */
import assert from "node:assert/strict";
import test from "node:test";
import { Heap } from "../mod.ts";
import { runIn, skipNative, zig } from "./native.ts";
import { repository, run } from "./runtimes.ts";
import { Folder } from "./support.ts";

for (const [name, flags] of [["", []], [", of one thread", ["-Dsingle=true"]]] as const) {
  test(
    `a Zig program${name} goes on after a kill, and goes back with a second allocator`,
    { skip: skipNative, timeout: 300_000 },
    () => {
      using folder = new Folder();
      const { code, err } = run([zig, "build", ...flags, "--prefix", folder.path], {
        directory: `${repository}tests/native/zig_program`,
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
