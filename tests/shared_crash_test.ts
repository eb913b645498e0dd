/**
 * Shared heaps that were not closed, or whose file was hurt: what is refused, what is taken as it stands,
 * and what is lost.
 *
 * @module
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { test } from "node:test";
import { Heap, mopen, PermError } from "../mod.ts";
import { runtimes } from "./runtimes.ts";
import {
  Child,
  elsewhere,
  expectCode,
  Folder,
  otherRuntime,
  places,
  put,
  randomNumbers,
} from "./support.ts";

const mib = 1 << 20;
const timeout = 60_000;
const size = mib;
const shared = true;

for (const runtime of runtimes) {
  test(`kill -9 at any moment leaves a flush or the mark, and the last backup (${runtime})`, {
    timeout,
  }, async () => {
    const next = randomNumbers(runtime === "deno" ? 3 : 4);
    for (let round = 0; round < 6; round++) {
      using folder = new Folder();
      const file = folder.file("a");
      const copy = folder.file("a.back");
      await using child = new Child(runtime);
      await child.run(
        ({ perm, state }, file, copy) => {
          const heap = state.heap = perm.Heap.open({
            file,
            backup: copy,
            size: 1 << 20,
            shared: true,
          });
          heap.global("numbers", Float64Array, 4096).fill(0);
          heap.flush();
          heap.backup();
        },
        file,
        copy,
      );
      // Every number is the step's, at each backup; in between some are of the step before.
      const work = child.run(async ({ state }) => {
        const { heap } = state;
        const numbers = heap.global("numbers", Float64Array, 4096);
        for (let step = 1;; step++) {
          const rubbish = heap.mallocMany(16 + step % 3000, 50);
          for (let index = 0; index < numbers.length; index += 7) numbers[index] = step;
          heap.freeMany(rubbish);
          numbers.fill(step);
          if (step % 3 === 0) {
            heap.flush();
            // Half of the kills come while nothing is stored.
            await new Promise((resolve) => setTimeout(resolve, 5));
          }
          if (step % 2 === 0) heap.backup();
          if (step % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 0));
        }
      }).then(() => "went on", () => "killed");
      await new Promise((resolve) => setTimeout(resolve, next(150)));
      await child.kill();
      assert.equal(await work, "killed");
      const other = runtime === "deno" ? "bun" : "deno";
      const found = await elsewhere(
        other,
        ({ perm }, file, copy) => {
          const codes = [];
          const flushed: number[] = [];
          for (const mode of ["r", "r+"] as const) {
            try {
              using heap = perm.mopen(file, mode, undefined, { shared: true });
              heap.check();
              flushed.push(...new Set(heap.global("numbers", Float64Array, 4096)));
              codes.push("opened");
            } catch (error) {
              codes.push((error as { code: string }).code);
            }
          }
          try {
            // As it stands: its metadata is proven, or refused.
            using heap = perm.mopen(file, "r+", undefined, { shared: true, recover: true });
            heap.check();
            heap.global("numbers", Float64Array, 4096);
          } catch (error) {
            codes.push((error as { code: string }).code);
          }
          const heap = perm.mopen(file, "w+", 1 << 16, { shared: true });
          heap.bopen(copy, "r+");
          heap.restore({ verify: true });
          heap.check();
          const numbers = new Set(heap.global("numbers", Float64Array, 4096));
          heap.flush();
          heap.close();
          using again = perm.mopen(file, "r", undefined, { shared: true });
          const kept = new Set(again.global("numbers", Float64Array, 4096));
          return { codes, flushed, numbers: [...numbers], kept: [...kept] };
        },
        file,
        copy,
      );
      const [first, second, recovered] = found.codes;
      assert.ok(first === "CORRUPT" || first === "opened", String(found.codes));
      assert.equal(second, first);
      assert.ok(recovered === undefined || recovered === "CORRUPT", String(found.codes));
      // What opens is a flush, twice the same, and nothing that came after it.
      if (first === "opened") {
        const [step] = found.flushed;
        assert.deepEqual(found.flushed, [step, step]);
        assert.equal(step % 3, 0);
      }
      assert.equal(found.numbers.length, 1, "a backup holds half of a step");
      assert.equal(found.numbers[0] % 2, 0);
      assert.deepEqual(found.kept, found.numbers);
      assert.deepEqual(folder.names().filter((name) => name.startsWith("a-")), []);
    }
  });
}

test("a process that ends without close() leaves the mark, or what it flushed", {
  timeout,
}, async () => {
  for (const place of places) {
    using folder = new Folder(place);
    const file = folder.file("a");
    const copy = folder.file("copy");
    const end = async (work: string) => {
      await using child = new Child(otherRuntime);
      await child.run(
        async ({ perm, state }, file, work) => {
          const heap = state.heap = perm.Heap.open({ file, size: 8 << 20, shared: true });
          if (work === "nothing") return;
          if (heap.root === 0) heap.root = heap.calloc(1, 4 << 20);
          const bytes = state.bytes = heap.bytes(heap.root, 4 << 20);
          bytes[0]++;
          if (work === "not flushed") return;
          if (work.includes("async")) await heap.flushAsync();
          else heap.flush();
          if (work.includes("a store")) bytes[3 << 20]++;
          if (work.includes("the same")) bytes.set(bytes.slice(0, 1));
          if (work.includes("malloc")) heap.malloc(100);
          if (work.includes("grown")) heap.malloc(20 << 20);
          if (work.includes("again")) heap.flush();
        },
        file,
        work,
      );
      await child.kill();
    };
    const states: number[][] = [];
    const look = () => {
      using heap = Heap.open({ file, size, shared });
      heap.check();
      states.push([heap.epoch, heap.bytes(heap.root, 1)[0]]);
      return heap.epoch;
    };
    for (const work of ["flushed", "flushed async", "nothing", "a store again", "nothing"]) {
      await end(work);
      look();
    }
    assert.deepEqual(states, [[1, 1], [2, 2], [2, 2], [4, 3], [4, 3]]);
    // One after the other, each over what the last one left.
    await end("flushed");
    await end("flushed");
    assert.equal(look(), 6);
    const changes = ["a store", "malloc", "grown", "not flushed", "async, then a store"];
    for (const work of changes) {
      await end(work);
      for (const mode of ["r+", "r"] as const) {
        expectCode(() => mopen(file, mode, undefined, { shared }), "CORRUPT", { path: file });
      }
      using heap = Heap.open({ file, size, shared, recover: true });
      heap.flush();
    }
    // A store of what stood there is a store where dates tell, and none where sums do.
    await end("the same");
    const inMemory = place === "/dev/shm";
    if (inMemory) look();
    else expectCode(look, "CORRUPT");
    // A copy is another file: it may have been made while the heap was stored to.
    {
      using heap = Heap.open({ file, size, shared, recover: true });
      heap.flush();
    }
    await end("flushed");
    execFileSync("cp", ["-a", file, copy]);
    expectCode(() => Heap.open({ file: copy, size, shared }), "CORRUPT", { path: copy });
    look();
  }
});

test("a file that was taken as it stands keeps its mark until it is flushed", {
  timeout,
}, async () => {
  using folder = new Folder();
  const file = folder.file("a");
  await elsewhere(otherRuntime, ({ perm, state }, file) => {
    const heap = state.heap = perm.Heap.open({ file, size: 1 << 20, shared: true });
    heap.root = heap.calloc(1, 8);
    heap.flush();
    heap.store(heap.root, 1);
  }, file);
  expectCode(() => Heap.open({ file, size, shared }), "CORRUPT", { message: /without closing/ });
  for (const change of [true, false]) {
    {
      using heap = Heap.open({ file, size, shared, recover: true });
      heap.check();
      heap.flush();
    }
    {
      using heap = mopen(file, "r", undefined, { shared });
      assert.notEqual(heap.root, 0);
    }
    // A session that only opened what was whole, and one that stored to it.
    await using child = new Child(otherRuntime);
    await child.run(
      ({ perm, state }, file, change) => {
        state.heap = perm.mopen(file, "r+", undefined, { shared: true });
        if (change) state.heap.store(state.heap.root, 5);
      },
      file,
      change,
    );
    await child.kill();
    if (change) expectCode(() => Heap.open({ file, size, shared }), "CORRUPT");
    else Heap.open({ file, size, shared }).close();
  }
});

test("damage to the file is refused, or harmless; nothing of it ends the process", {
  timeout,
}, () => {
  using folder = new Folder();
  const file = folder.file("a");
  const hurt = folder.file("hurt");
  let table = 0;
  {
    using heap = Heap.open({ file, size: 512 << 10, maxSize: 512 << 10, shared });
    put(heap, 1);
    heap.global("global", Float64Array, 10);
    heap.flush();
    table = heap.stats().metadataBytes;
  }
  const whole = readFileSync(file);
  assert.ok(table > 0);
  const heapOffset = 2 * mib;
  const next = randomNumbers(8);
  const outcomes: Record<string, number> = {};
  const look = (recover: boolean) => {
    try {
      using heap = mopen(hurt, "r+", undefined, { shared, recover });
      heap.check();
      heap.free(heap.malloc(100));
      heap.flush();
      heap.close();
      return "opened";
    } catch (error) {
      if (!(error instanceof PermError)) throw error;
      return error.code;
    }
  };
  const place = (bytes: Uint8Array) => {
    const descriptor = openSync(hurt, "w");
    writeSync(descriptor, bytes);
    closeSync(descriptor);
  };
  for (let round = 0; round < 150; round++) {
    const bytes = new Uint8Array(whole);
    for (let flips = 1 + next(3); flips > 0; flips--) {
      const areas = [[0, 200], [102_400, 200], [heapOffset, 128], [heapOffset + 4096, 8192]];
      const [from, length] = areas[next(areas.length)];
      bytes[from + next(length)] ^= 1 << next(8);
    }
    place(bytes);
    const outcome = look(round % 2 === 1);
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
  }
  const known = ["opened", "CORRUPT", "NOT_AN_IMAGE", "BAD_VERSION", "OUT_OF_MEMORY"];
  for (const code of Object.keys(outcomes)) assert.ok(known.includes(code), code);
  assert.ok(outcomes.opened > 0 && outcomes.CORRUPT > 0, JSON.stringify(outcomes));
  for (const length of [0, 1, 8, 4096, 204_800, heapOffset, heapOffset + 5000, whole.length - 1]) {
    place(whole.subarray(0, length));
    for (const recover of [false, true]) {
      const expected = length < 8 ? "NOT_AN_IMAGE" : "CORRUPT";
      expectCode(() => mopen(hurt, "r+", undefined, { shared, recover }), expected);
      expectCode(() => mopen(hurt, "r", undefined, { shared, recover }), expected);
    }
  }
  place(whole);
  assert.equal(look(false), "opened");
});

test("recover checks what it takes before anybody gets it", { timeout }, () => {
  using folder = new Folder();
  const file = folder.file("a");
  const hurt = folder.file("hurt");
  let marked: Uint8Array;
  {
    using heap = Heap.open({ file, size: 512 << 10, maxSize: 512 << 10, shared });
    put(heap, 1);
    heap.flush();
    // The file as a kill would leave it now, changed since the flush.
    const blocks = Array.from({ length: 500 }, (_, index) => heap.malloc(16 + index % 50));
    for (let index = 0; index < blocks.length; index += 2) heap.free(blocks[index]);
    marked = readFileSync(file);
  }
  const next = randomNumbers(9);
  let opened = 0;
  let refused = 0;
  for (let round = 0; round < 100; round++) {
    const bytes = new Uint8Array(marked);
    bytes[2 * mib + 4096 + next(8192)] ^= 1 << next(8);
    writeFileSync(hurt, bytes);
    let heap: Heap;
    try {
      heap = mopen(hurt, "r+", undefined, { shared, recover: true });
    } catch (error) {
      if (!(error instanceof PermError && error.code === "CORRUPT")) throw error;
      refused++;
      continue;
    }
    using _closed = heap;
    heap.check();
    opened++;
  }
  assert.ok(opened > 0 && refused > 0, `${opened} opened, ${refused} refused`);
});
