// One heap in several threads: attaching from Workers, and what that forbids.
import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import { readFileSync } from "node:fs";
import { embedded } from "../ffi/embedded.ts";
import { type ErrorCode, Heap, type RestoreOptions } from "../mod.ts";
import type { Tools } from "./remote.ts";
import { flip, logOf } from "./specimen.ts";
import {
  after,
  Child,
  elsewhere,
  eventually,
  expectCode,
  expectRejects,
  expectWell,
  Folder,
  Thread,
  tryClose,
} from "./support.ts";
import { runtimes } from "./runtimes.ts";

const mib = 1 << 20;
const timeout = 60_000;

test("a Worker attaches to the heap and sees the same memory", { timeout }, async () => {
  using heap = Heap.open({ size: mib });
  const p = heap.root = heap.calloc(2, 8);
  heap.store(p, 42);
  using thread = new Thread();
  assert.equal(await thread.attach(heap), heap.address);
  const seen = await thread.run(({ state }) => {
    const { heap } = state;
    const p = heap.root;
    heap.store(p + 8, heap.load(p) + 1);
    heap.global("total", Float64Array, 1)[0] = 0.5;
    const q = heap.malloc(100);
    heap.bytes(q, 100).fill(7);
    heap.store(p, q);
    return [heap.epoch, heap.resumed, heap.map, typeof heap.capacity];
  });
  assert.deepEqual(seen, [0, "new", null, "number"]);
  assert.equal(heap.load(p + 8), 43);
  assert.equal(heap.global("total", Float64Array, 1)[0], 0.5);
  const q = heap.load(p);
  assert.deepEqual([...new Set(heap.bytes(q, 100))], [7]);
  heap.free(q);
  expectCode(() => heap.free(q), "DOUBLE_FREE");
  await expectRejects(thread.run(({ state }, q) => state.heap.free(q), q), "DOUBLE_FREE");
  await thread.run(({ state }) => state.heap.close());
  expectWell(heap);
});

test("what one thread allocates another frees", { timeout }, async () => {
  using heap = Heap.open({ size: mib });
  using thread = new Thread();
  await thread.attach(heap);
  for (let round = 0; round < 10; round++) {
    const pointers = [...heap.mallocMany(48, 2000)];
    const given = await thread.run(({ state }, pointers) => {
      state.heap.freeMany(pointers);
      return [...state.heap.mallocMany(48, 2000)];
    }, pointers);
    heap.freeMany(given);
    heap.check();
  }
  assert.equal(heap.stats().liveBlocks, 0);
  await thread.run(({ state }) => state.heap.close());
  assert.ok(heap.used < 8 * 2000 * 48, `${heap.used} bytes for 2,000 blocks at a time`);
});

test("close and a restore that moves the heap are BUSY while a Worker is attached", {
  timeout,
}, async () => {
  using folder = new Folder();
  {
    using old = Heap.open({ backup: folder.file("old"), size: mib });
    old.root = old.malloc(8);
    old.backup();
  }
  const heap = Heap.open({ file: folder.file("a"), size: mib });
  heap.flush();
  using thread = new Thread();
  await thread.attach(heap);
  expectCode(() => heap.close(), "BUSY");
  expectCode(() => heap[Symbol.dispose](), "BUSY");
  await expectRejects(heap[Symbol.asyncDispose](), "BUSY");
  heap.bopen(folder.file("old"), "r+");
  expectCode(() => heap.restore(), "BUSY");
  heap.bclose();
  assert.equal(heap.restore().epoch, 1, "a restore in place is no trouble");
  expectWell(heap);
  assert.equal(await thread.run(({ state }) => state.heap.epoch), 1);

  await thread.run(({ state }) => {
    state.view = state.heap.bytes(state.heap.malloc(8), 8);
    state.heap.close();
    state.heap.close();
  });
  assert.equal(await thread.run(({ state }) => state.view.length), 0);
  await expectRejects(thread.run(({ state }) => state.heap.malloc(8)), "CLOSED");
  expectWell(heap);
  heap.close();
  expectCode(() => heap.malloc(8), "CLOSED");
});

test(
  "a restore that fails leaves the heap and its Workers as they were, and one that succeeds is seen by both",
  {
    timeout,
  },
  async () => {
    using folder = new Folder();
    const file = folder.file("a");
    const heap = Heap.open({ file, size: mib, keep: 3 });
    const words = 64 * 512;
    const data = heap.root = heap.calloc(words, 8);
    for (let epoch = 1; epoch <= 3; epoch++) {
      // The first is the base; of later ones, every other page.
      const apart = epoch === 1 ? 512 : 1024;
      for (let at = 0; at < words; at += apart) heap.store(data + at * 8, epoch + at);
      assert.equal(heap.flush().epoch, epoch);
    }
    using thread = new Thread();
    await thread.attach(heap);
    const block = await thread.run(({ state }) => {
      state.block = state.heap.malloc(100);
      state.view = state.heap.bytes(state.block, 100).fill(7);
      return state.block;
    });
    heap.store(data, 99);
    const blocks = heap.stats().liveBlocks;

    const failures: [what: string, options: RestoreOptions, code: ErrorCode, path?: string][] = [
      ["no such epoch", { epoch: 77 }, "NO_EPOCH"],
      ["a damaged page of the log", {}, "CORRUPT", logOf(file)],
      ["a damaged page of the base", { verify: true }, "CORRUPT", file],
    ];
    for (const [what, options, code, path] of failures) {
      // A stored page, found by a number that stands on it.
      let mend = () => {};
      if (path !== undefined) {
        const value = path === file ? 1 + 512 : 3 + 1024;
        const at = readFileSync(path).indexOf(
          new Uint8Array(BigUint64Array.of(BigInt(value)).buffer),
        );
        assert.ok(at > 0, what);
        mend = flip(path, at);
      }
      expectCode(() => heap.restore(options), code);
      // The heap with what was never committed, the Worker with its block and its caches.
      assert.deepEqual(
        [heap.epoch, heap.load(data), heap.stats().liveBlocks],
        [3, 99, blocks],
        what,
      );
      assert.deepEqual([...new Set(heap.bytes(block, 100))], [7], what);
      const seen = await thread.run(({ state }, data) => {
        const { heap, view } = state;
        const more = [...heap.mallocMany(64, 500)];
        for (const p of more) heap.store(p, p);
        const whole = more.every((p) => heap.load(p) === p);
        heap.freeMany(more);
        return [heap.epoch, heap.load(data), view.every((byte: number) => byte === 7), whole];
      }, data);
      assert.deepEqual(seen, [3, 99, true, true], what);
      expectCode(() => heap.close(), "BUSY");
      heap.check();
      mend();
    }

    // As it was committed, for both; what the Worker had allocated since is given to others again.
    assert.equal(heap.restore().epoch, 3);
    assert.equal(heap.load(data), 3);
    expectWell(heap);
    const went = await thread.run(({ state }, data) => {
      const { heap } = state;
      const p = heap.malloc(100);
      heap.store(p, 5);
      return [heap.load(data), heap.load(data + 512 * 8), heap.load(p), heap.flush().epoch];
    }, data);
    assert.deepEqual(went, [3, 1 + 512, 5, 4]);
    assert.deepEqual(heap.epoch, 4);
    await thread.run(({ state }) => state.heap.close());
    heap.check();
    heap.close();
    using again = Heap.open({ file, size: mib, verify: true });
    assert.deepEqual([again.epoch, again.load(data), again.stats().liveBlocks], [4, 3, 2]);
  },
);

test("a Worker that ends is attached no more, however it ends", { timeout }, async () => {
  const heap = Heap.open({ size: mib });
  {
    using thread = new Thread();
    await thread.attach(heap);
    await thread.run(({ state }) => void state.heap.mallocMany(40, 1000));
    expectCode(() => heap.close(), "BUSY");
  }
  await eventually("the end of the attachment", () => tryClose(heap));
  expectCode(() => heap.malloc(8), "CLOSED");
});

test("Workers come and go; their memory stays and is used again", { timeout }, async () => {
  using heap = Heap.open({ size: mib });
  for (let i = 0; i < 6; i++) {
    using thread = new Thread();
    await thread.attach(heap);
    const pointers = await thread.run(({ state }) => [...state.heap.mallocMany(64, 5000)]);
    heap.freeMany(pointers);
    heap.check();
  }
  assert.equal(heap.stats().liveBlocks, 0);
  assert.ok(heap.used < 3 * 64 * 5000, `${heap.used} bytes after six Workers in turn`);
  await eventually("the end of all Workers", () => tryClose(heap));
});

/**
 * Allocates, fills, checks and frees at random; runs in any thread. It takes that many steps, or,
 * with none, goes on until the word at the heap's root is not 0.
 */
function churn(
  { state }: { state: Record<string, Heap> },
  seed: number,
  steps: number,
  largeEach = 50,
): [blocks: number, failures: number] {
  const { heap } = state;
  const live: [number, number][] = [];
  let random = seed;
  let failures = 0;
  const next = (bound: number) => {
    random = (Math.imul(random, 1664525) + 1013904223) >>> 0;
    return Math.floor(random / 2 ** 32 * bound);
  };
  for (let step = 0; steps > 0 ? step < steps : heap.load(heap.root) === 0; step++) {
    if (live.length < 500 || next(2) === 0) {
      const size = 8 + (next(largeEach) === 0 ? next(100_000) : next(500));
      const p = heap.malloc(size);
      heap.store(p, p + seed);
      live.push([p, size]);
    } else {
      const [[p]] = live.splice(next(live.length), 1);
      if (heap.load(p) !== p + seed) failures++;
      heap.free(p);
    }
  }
  for (const [p] of live) if (heap.load(p) !== p + seed) failures++;
  const kept = live.splice(0, 100);
  heap.freeMany(live.map(([p]) => p));
  return [kept.length, failures];
}

test("two Workers and the main thread allocate at once, and the heap is whole", {
  timeout,
}, async () => {
  using heap = Heap.open({ size: mib });
  using one = new Thread();
  using two = new Thread();
  await Promise.all([one.attach(heap), two.attach(heap)]);
  const working = [one.run(churn, 1, 30_000), two.run(churn, 2, 30_000)];
  const own = churn({ state: { heap } }, 3, 30_000);
  heap.check();
  const results = [own, ...await Promise.all(working)];
  assert.deepEqual(results, [[100, 0], [100, 0], [100, 0]]);
  heap.check();
  assert.equal(heap.stats().liveBlocks, 300);
  for (const thread of [one, two]) await thread.run(({ state }) => state.heap.close());
  expectWell(heap);
});

test("commits while Workers allocate leave epochs that are whole", { timeout }, async () => {
  using folder = new Folder();
  const file = folder.file("a");
  const heap = Heap.open({ file, size: mib, keep: 50 });
  using one = new Thread();
  using two = new Thread();
  await Promise.all([one.attach(heap), two.attach(heap)]);
  heap.root = heap.calloc(1, 8);
  const working = Promise.all([one.run(churn, 1, 0, 5), two.run(churn, 2, 0, 5)]);
  await eventually("commits beside the Workers", () => heap.flush().epoch >= 40);
  heap.store(heap.root, 1);
  assert.deepEqual(await working, [[100, 0], [100, 0]]);
  heap.flush();
  const epochs = heap.map!.epochs().map(({ epoch }) => epoch);
  assert.equal(epochs.length, heap.epoch);
  for (const epoch of epochs) {
    heap.restore({ epoch, verify: true });
    heap.check();
  }
  for (const thread of [one, two]) await thread.run(({ state }) => state.heap.close());
  heap.close();
  using again = Heap.open({ file, size: mib, verify: true });
  assert.equal(again.stats().liveBlocks, 201);
  expectWell(again);
});

test("a Worker may commit, unless another thread's buffers are registered", {
  timeout,
}, async () => {
  using folder = new Folder();
  using heap = Heap.open({ file: folder.file("a"), size: mib });
  heap.root = heap.calloc(1, 8);
  using thread = new Thread();
  await thread.attach(heap);
  const report = await thread.run(({ state }) => {
    state.heap.store(state.heap.root, 9);
    return state.heap.flush();
  });
  assert.equal(report.epoch, 1);
  assert.equal(heap.epoch, 1);
  const block = Float64Array.of(1);
  heap.perm("block", block);
  await expectRejects(thread.run(({ state }) => state.heap.flush()), "UNSUPPORTED");
  assert.equal(heap.epoch, 1);
  assert.equal(heap.flush().epoch, 2);

  await thread.run(({ state }) => {
    state.block = Float64Array.of(2);
    state.heap.perm("the Worker's", state.block);
  });
  expectCode(() => heap.flush(), "UNSUPPORTED", { message: /Worker's/ });
  heap.unperm("the Worker's");
  heap.unperm("block");
  assert.ok(await thread.run(({ state }) => state.heap.flush().epoch) >= 3);
  await thread.run(({ state }) => state.heap.close());
  expectWell(heap);
});

test("blocks of a Worker end with it", { timeout }, async () => {
  using folder = new Folder();
  using heap = Heap.open({ file: folder.file("a"), size: mib });
  {
    using thread = new Thread();
    await thread.attach(heap);
    await thread.run(({ state }) => state.heap.perm("block", Float64Array.of(5)));
    expectCode(() => heap.flush(), "UNSUPPORTED");
    await thread.run(({ state }) => state.heap.close());
  }
  heap.flush();
  const block = new Float64Array(1);
  heap.perm("block", block);
  heap.flush();
  expectWell(heap);
});

test("attach in the thread that has the heap open gives a second face of it", { timeout }, () => {
  const heap = Heap.open({ size: mib });
  const again = Heap.attach(heap.handle);
  assert.equal(again.address, heap.address);
  assert.equal(again.handle, heap.handle);
  const p = again.malloc(8);
  again.store(p, 5);
  assert.equal(heap.load(p), 5);
  const view = again.bytes(p, 8);
  again.close();
  assert.equal(view.length, 0);
  expectCode(() => again.load(p), "CLOSED");
  assert.equal(heap.load(p), 5);
  const third = Heap.attach(heap.handle);
  const other = third.bytes(p, 8);
  heap.close();
  assert.equal(other.length, 0, "the opening thread's close ends all of its faces");
  expectCode(() => third.load(p), "CLOSED");
  third.close();
});

test("handles that are stale, foreign or no handles at all are refused", { timeout }, async () => {
  const heap = Heap.open({ size: mib });
  const { handle } = heap;
  assert.equal(typeof handle, "string");
  for (const bad of [null, undefined, 7, {}, "", "a\0b", "\ud800"]) {
    expectCode(() => Heap.attach(bad as string), "INVALID_ARGUMENT");
  }
  for (
    const bad of [
      "garbage",
      "perm-heap",
      handle + ":1",
      handle.slice(0, handle.lastIndexOf(":")),
      handle.replace("perm", "term"),
      "perm-heap:" + "f".repeat(5000),
      "perm-heap:0:0:0",
      "perm-heap:-1:-1:-1",
      "perm-heap:1e9:0x10:_1",
    ]
  ) {
    expectCode(() => Heap.attach(bad), "INVALID_ARGUMENT");
  }
  const last = handle.at(-1) === "0" ? "1" : "0";
  expectCode(() => Heap.attach(handle.slice(0, -1) + last), "CLOSED");
  for (const runtime of runtimes) {
    await expectRejects(
      elsewhere(runtime, ({ perm }, handle) => void perm.Heap.attach(handle), handle),
      "NOT_FOUND",
    );
  }
  using thread = new Thread();
  await expectRejects(
    thread.run(({ perm }, handle) => void perm.Heap.attach(handle), "garbage"),
    "INVALID_ARGUMENT",
  );
  heap.close();
  expectCode(() => Heap.attach(handle), "CLOSED");
  await expectRejects(
    thread.run(({ perm }, handle) => void perm.Heap.attach(handle), handle),
    "CLOSED",
  );
  using next = Heap.open({ size: mib });
  assert.notEqual(next.handle, handle);
  expectCode(() => Heap.attach(handle), "CLOSED");
  expectWell(next);
});

test("a Worker may open heaps of its own", { timeout }, async () => {
  using folder = new Folder();
  const file = folder.file("a");
  {
    using thread = new Thread();
    const root = await thread.run(({ perm, state }, file) => {
      state.heap = perm.mopen(file, "w+", 1 << 20);
      state.heap.root = perm.malloc(8);
      perm.mflush();
      return state.heap.root;
    }, file);
    assert.ok(root > 0);
    expectCode(() => Heap.open({ file, size: mib }), "ALREADY_OPEN");
    await thread.run(({ perm }) => perm.mclose());
    using heap = Heap.open({ file, size: mib });
    assert.equal(heap.root, root);
  }
});

const isPacked = `${process.platform}-${process.arch}` in embedded;
for (const first of ["main", "Worker"]) {
  test(`with the packed library, loaded by the ${first} thread first, threads share a heap`, {
    timeout,
    skip: isPacked ? false : "the library is not packed: deno task build",
  }, async () => {
    for (const runtime of runtimes) {
      await using child = new Child(runtime, after("unset PERM_LIBRARY"));
      const told = await child.run(packed, first);
      assert.deepEqual(told, ["INVALID_ARGUMENT", 42, "BUSY", "closed"]);
      assert.equal(await child.end(), "exit 0");
    }
  });
}

/** Runs in a process of its own: uses a heap from two threads. */
async function packed({ perm }: Tools, first: string): Promise<unknown[]> {
  const { Thread } = await import("./support.ts");
  using thread = new Thread();
  const told: unknown[] = [];
  const load = () =>
    thread.run(({ perm }) => void perm.Heap.attach("no handle"))
      .catch((error) => told.push(error.code));
  if (first === "Worker") await load();
  const heap = perm.Heap.open({ size: 1 << 20 });
  if (first === "main") await load();
  heap.root = heap.calloc(1, 8);
  await thread.attach(heap);
  await thread.run(({ state }) => state.heap.store(state.heap.root, 42));
  told.push(heap.load(heap.root));
  try {
    heap.close();
  } catch (error) {
    told.push((error as { code: string }).code);
  }
  await thread.run(({ state }) => state.heap.close());
  heap.close();
  told.push("closed");
  return told;
}
