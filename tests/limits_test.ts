/**
 * A program that has no mappings left, by maps of its own: calls are refused by name, and nothing
 * that was acknowledged is lost.
 *
 *     PERM_LIMITS=1 deno task test ./tests/limits_test.ts     else it is left out: a runtime may need a map itself
 *
 * @module
 */
import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import { Heap } from "../mod.ts";
import { Child, expectWell, Folder } from "./support.ts";
import { runtimes } from "./runtimes.ts";

const timeout = 120_000;
const skip = process.env.PERM_LIMITS === undefined &&
  "a runtime that gets no map may end by itself; PERM_LIMITS=1 runs it";
const steps = ["record", "base", "async", "backup", "restore", "open", "shared"] as const;

/** Opens the heap in the child, and gives it what it does and what takes its maps. */
function begin(child: Child, folder: string): Promise<void> {
  return child.run(async ({ perm, state }, folder) => {
    const heap = state.heap = perm.Heap.open({
      file: `${folder}/a`,
      backup: `${folder}/b`,
      size: 64 << 20,
      keep: 2,
    });
    heap.root = heap.calloc(1, 16 << 20);
    const words = state.words = heap.view(Float64Array, heap.root, 2 << 20);
    const other = (file: string, options: object) => {
      const heap = perm.Heap.open({ file, size: 64 << 20, ...options });
      try {
        heap.malloc(32 << 20);
        heap.check();
      } finally {
        heap.close();
      }
    };
    state.value = 0;
    state.act = async (step: string) => {
      try {
        if (step === "record") words[0] = ++state.value, heap.flush();
        if (step === "base") words.fill(++state.value), heap.flush();
        if (step === "async") words[0] = ++state.value, await heap.flushAsync();
        if (step === "backup") words[0] = ++state.value, heap.backup();
        if (step === "restore") heap.restore(), state.value = words[0];
        if (step === "open") other(`${folder}/o`, {});
        if (step === "shared") other(`${folder}/s`, { shared: true });
        return "done";
      } catch (error) {
        if (!(error instanceof perm.PermError)) throw error;
        return `${error.code}: ${error.message}`;
      }
    };
    const names = {
      mmap: ["usize", "usize", "i32", "i32", "i32", "isize"],
      munmap: ["usize", "usize"],
      mprotect: ["usize", "usize", "i32"],
    };
    // deno-lint-ignore no-explicit-any
    const { Deno } = globalThis as any;
    // deno-lint-ignore no-explicit-any
    const symbols: Record<string, any> = {};
    for (const [name, types] of Object.entries(names)) {
      symbols[name] = { parameters: types, result: name === "mmap" ? "usize" : "i32" };
    }
    let libc;
    if (Deno) libc = Deno.dlopen("libc.so.6", symbols).symbols;
    else {
      const { dlopen, FFIType } = await import("bun:ffi" as string);
      for (const [name, types] of Object.entries(names)) {
        const of = (type: string) => type === "i32" ? FFIType.i32 : FFIType.u64;
        symbols[name] = {
          args: types.map(of),
          returns: name === "mmap" ? FFIType.u64 : FFIType.i32,
        };
      }
      libc = dlopen("libc.so.6", symbols).symbols;
    }
    // Pages that may be read between pages that may not: a map each.
    const pages = 200_000n;
    state.exhaust = (left: number) => {
      const at = BigInt(libc.mmap(0n, pages * 4096n, 0, 0x4022, -1, 0n));
      let page = 0n;
      while (page < pages && libc.mprotect(at + page * 4096n, 4096n, 1) === 0) page += 2n;
      // Two maps come back with each.
      for (let back = 0; back < left; back += 2) {
        page -= 2n;
        libc.mprotect(at + page * 4096n, 4096n, 0);
      }
      return () => libc.munmap(at, pages * 4096n);
    };
  }, folder);
}

/** What another process and this one find when it is over. */
async function expectKept(child: Child, folder: Folder): Promise<void> {
  const value = await child.run(({ state }) => {
    state.heap.check();
    state.words[0] = ++state.value;
    state.heap.flush();
    state.heap.close();
    return state.value;
  });
  assert.equal(await child.end(), "exit 0");
  using heap = Heap.open({ file: folder.file("a"), size: 64 << 20 });
  assert.equal(heap.view(Float64Array, heap.root, 1)[0], value);
  expectWell(heap);
}

for (const runtime of runtimes) {
  test(
    `without a map left under ${runtime} calls are done or OUT_OF_MEMORY`,
    { timeout, skip },
    async () => {
      using folder = new Folder();
      await using child = new Child(runtime);
      await begin(child, folder.path);
      let refused = 0;
      for (const step of steps) {
        for (const left of [0, 2, 4, 8, 40]) {
          const answer = await child.run(
            async ({ state }, step, left) => {
              const release = state.exhaust(left);
              try {
                return await state.act(step);
              } finally {
                release();
              }
            },
            step,
            left,
          );
          if (answer !== "done") refused++, assert.match(answer, /^OUT_OF_MEMORY: /, step);
        }
        assert.equal(await child.run(({ state }, step) => state.act(step), step), "done", step);
      }
      assert.ok(refused > 0);
      await expectKept(child, folder);
    },
  );
}
