/**
 * Shared heaps: mapped from their file, so that the system writes them when it likes. A flush is kept, the
 * mark tells what was not closed, a backup brings back the rest.
 *
 * @module
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { test } from "node:test";
import { backup, bclose, bopen, Heap, mclose, mflush, mopen, perm, restore } from "../mod.ts";
import { HashMap, roots, struct, text, u32 } from "../data/mod.ts";
import {
  Child,
  elsewhere,
  expectCode,
  expectRejects,
  expectWell,
  Folder,
  get,
  otherRuntime,
  pattern,
  places,
  put,
  Thread,
} from "./support.ts";

const mib = 1 << 20;
const timeout = 60_000;
const size = mib;
const shared = true;

test("a shared heap goes on in another runtime, with every pointer what it was", {
  timeout,
}, async () => {
  for (const place of places) {
    using folder = new Folder(place);
    const file = folder.file("a");
    let address = 0;
    {
      using heap = Heap.open({ file, size, shared });
      assert.equal(heap.resumed, "new");
      assert.equal(heap.stats().shared, true);
      assert.equal(heap.tracker, "checksum");
      address = heap.root = heap.calloc(1, 64);
      heap.store(heap.root, 42);
      heap.global("list", Float64Array, 3).set([1, 2, 3]);
      heap.perm("block", Float64Array.of(7, 8));
      const report = heap.flush();
      assert.equal(report.epoch, 1);
      assert.ok(report.pages > 0 && report.bytes === report.pages * 4096);
      assert.equal(heap.map!.path, file);
      assert.equal(heap.map!.epoch, 1);
      assert.deepEqual(heap.map!.epochs(), []);
    }
    const found = await elsewhere(
      otherRuntime,
      ({ perm }, file, address) => {
        using heap = perm.mopen(file, "r+", undefined, { shared: true });
        const block = new Float64Array(2);
        heap.perm("block", block);
        const list = heap.global("list", Float64Array, 3);
        const was = {
          root: heap.root,
          value: heap.load(address),
          list: [...list],
          block: [...block],
        };
        heap.store(address, 43);
        heap.check();
        return { ...was, resumed: heap.resumed, epoch: heap.flush().epoch };
      },
      file,
      address,
    );
    assert.deepEqual(found, {
      root: address,
      value: 42,
      list: [1, 2, 3],
      block: [7, 8],
      resumed: "file",
      epoch: 2,
    });
    using heap = Heap.open({ file, size, shared });
    assert.equal(get(heap), 43);
    assert.equal(heap.epoch, 2);
    expectWell(heap);
  }
});

test("a root that alone was changed is a change, wherever the file is", { timeout }, () => {
  for (const place of [tmpdir(), "/dev/shm"]) {
    if (!existsSync(place)) continue;
    using folder = new Folder(place);
    const file = folder.file("a");
    const backup = folder.file("b");
    using heap = Heap.open({ file, backup, size: 1 << 20, shared: true });
    const [first, second] = [heap.calloc(1, 64), heap.calloc(1, 64)];
    for (const root of [first, second, first]) {
      const before = heap.epoch;
      heap.root = root;
      const { epoch } = heap.flush();
      assert.equal(epoch, before + 1, place);
      assert.equal(heap.flush().epoch, epoch);
    }
  }
});

test("a flush without changes does nothing, and one store through a view is a change", {
  timeout,
}, () => {
  for (const place of places) {
    using folder = new Folder(place);
    const file = folder.file("a");
    using heap = Heap.open({ file, size: 8 * mib, shared });
    const pointer = heap.malloc(4 * mib);
    const bytes = heap.bytes(pointer, 4 * mib);
    put(heap, 1);
    for (let epoch = 1; epoch <= 20; epoch++) {
      assert.equal(heap.flush().epoch, epoch);
      heap.check();
      heap.stats();
      assert.equal(bytes[epoch * 5000], 0);
      const idle = heap.flush();
      assert.deepEqual([idle.epoch, idle.pages, idle.bytes], [epoch, 0, 0]);
      // Pages that were written before, and such that were only read.
      bytes[(epoch % 3) * 5000] = epoch;
    }
    heap.flush();
  }
});

test("a shared heap opens after hundreds of sessions as after one", { timeout }, () => {
  // In memory where there is some: each session syncs.
  using folder = new Folder(places.at(-1));
  const file = folder.file("a");
  const sessions = 345;
  for (let session = 0; session < sessions; session++) {
    using heap = Heap.open({ file, size, maxSize: size, shared });
    assert.equal(heap.epoch, session);
    if (session > 0) assert.equal(get(heap), session);
    put(heap, session + 1);
    assert.equal(heap.flush().epoch, session + 1);
  }
  using heap = Heap.open({ file, size, maxSize: size, shared });
  assert.equal(get(heap), sessions);
  expectWell(heap);
});

test("a file that another program cut off is CORRUPT and no signal, until a backup is restored", {
  timeout,
}, async () => {
  for (const place of places) {
    using folder = new Folder(place);
    const file = folder.file("a");
    const backup = folder.file("b");
    const options = { file, backup, size: 8 * mib, maxSize: 8 * mib, shared };
    for (const left of [3 * mib, 4096, 0]) {
      using heap = Heap.open({ ...options });
      if (heap.root === 0) heap.root = heap.calloc(1, 6 * mib);
      const bytes = heap.bytes(heap.root, 6 * mib);
      bytes.fill(7);
      heap.flush();
      heap.backup();
      for (
        const use of [
          () => heap.flush(),
          () => heap.backup(),
          () => heap.check(),
          () => heap.stats(),
          () => heap.grow(9 * mib),
        ]
      ) {
        truncateSync(file, left);
        expectCode(use, "CORRUPT", { path: file, message: /cut its file off.*restore/ });
        // Whatever it looked at, all of it can be touched again.
        assert.equal(bytes[bytes.length - 1], 0);
        bytes[bytes.length - 1] = 1;
      }
      truncateSync(file, left);
      await expectRejects((async () => await heap.flushAsync())(), "CORRUPT");
      expectCode(() => heap.flush(), "CORRUPT");
      truncateSync(file, left);
      heap.restore();
      assert.ok(heap.bytes(heap.root, 6 * mib).every((byte) => byte === 7));
      heap.flush();
      expectWell(heap);
      heap.flush();
      // Closed as it is: the file keeps its mark, or has no header any more.
      truncateSync(file, left);
      heap.close();
      rmSync(file);
    }
  }
});

test("closing what was flushed leaves a whole file, closing changes leaves the mark", {
  timeout,
}, () => {
  for (const place of places) {
    using folder = new Folder(place);
    const file = folder.file("a");
    const step = (change: (heap: Heap) => void, options = {}) => {
      using heap = Heap.open({ file, size, shared, ...options });
      change(heap);
      return heap.epoch;
    };
    assert.equal(step((heap) => (put(heap, 1), heap.flush())), 1);
    assert.equal(step(() => {}), 1);
    assert.equal(step((heap) => heap.load(heap.root)), 1);
    assert.equal(step((heap) => (put(heap, 2), heap.flush(), heap.check())), 2);
    step((heap) => put(heap, 3));
    for (const mode of ["r+", "r"] as const) {
      expectCode(() => mopen(file, mode, undefined, { shared }), "CORRUPT", {
        message: /epoch 2.*"w\+".*recover/,
        path: file,
      });
    }
    expectCode(() => Heap.open({ file, size, shared }), "CORRUPT");
    // Reading it as it is takes no mark away; nor does opening it as it is and doing nothing.
    {
      using heap = mopen(file, "r", undefined, { shared, recover: true });
      assert.equal(get(heap), 3);
    }
    step((heap) => assert.equal(get(heap), 3), { recover: true });
    expectCode(() => Heap.open({ file, size, shared }), "CORRUPT");
    assert.equal(step((heap) => heap.flush(), { recover: true }), 3);
    step((heap) => assert.equal(get(heap), 3));
  }
});

test("w+ replaces what stands there with the first flush, and not before", { timeout }, () => {
  using folder = new Folder();
  const file = folder.file("a");
  const lone = folder.file("lone");
  mopen(lone, "w+", size, { shared }).close();
  assert.deepEqual(folder.names(), []);
  for (const before of [true, false]) {
    {
      using heap = mopen(file, "w+", size, { shared: before });
      put(heap, 1);
      heap.flush();
    }
    {
      using heap = mopen(file, "w+", size, { shared });
      put(heap, 2);
    }
    {
      using heap = mopen(file, "r+", undefined, { shared: before });
      assert.equal(get(heap), 1);
    }
    {
      using heap = mopen(file, "w+", size, { shared });
      put(heap, 3);
      heap.flush();
      put(heap, 4);
      heap.flush();
    }
    assert.deepEqual(folder.names(), ["a"]);
    using heap = Heap.open({ file, size, shared });
    assert.equal(get(heap), 4);
  }
  // An image takes the place of a shared heap as well.
  {
    using heap = mopen(file, "w+", size);
    put(heap, 5);
    heap.flush();
  }
  using heap = Heap.open({ file, size });
  assert.equal(get(heap), 5);
});

test("a flush keeps blocks as they were at the call, and JavaScript's own with the heap's", {
  timeout,
}, async () => {
  using folder = new Folder();
  const file = folder.file("a");
  for (const [round, how] of (["flush", "flushAsync"] as const).entries()) {
    {
      using heap = Heap.open({ file, size, shared });
      const mine = new Float64Array(1000);
      heap.perm("mine", mine);
      assert.ok(mine.every((value) => value === 2 * round));
      for (const by of [1, 2]) {
        mine.fill(2 * round + by);
        const done = heap[how]();
        mine.fill(99);
        await done;
      }
    }
  }
  using heap = mopen(file, "r", undefined, { shared });
  const mine = new Float64Array(1000);
  heap.perm("mine", mine);
  assert.ok(mine.every((value) => value === 4));
});

test("files of the other kind, of no kind, and options without sense are refused", {
  timeout,
}, () => {
  using folder = new Folder();
  const file = folder.file("a");
  const image = folder.file("image");
  const other = folder.file("other");
  {
    using heap = Heap.open({ file, size, shared });
    put(heap, 1);
    heap.flush();
    using second = Heap.open({ file: image, size });
    put(second, 1);
    second.flush();
    expectCode(() => second.bopen(folder.file("a"), "r+"), "ALREADY_OPEN");
  }
  writeFileSync(other, "nothing");
  const kinds = { message: /shared/, path: file };
  expectCode(() => Heap.open({ file, size }), "NOT_AN_IMAGE", kinds);
  expectCode(() => mopen(file, "r"), "NOT_AN_IMAGE", kinds);
  expectCode(() => Heap.open({ file: image, size, shared }), "NOT_AN_IMAGE", {
    message: /without `shared`/,
  });
  for (const name of [other, "/dev/null", folder.path]) {
    expectCode(() => mopen(name, "r+", undefined, { shared }), "NOT_AN_IMAGE");
  }
  expectCode(() => mopen(other, "w+", size, { shared }), "EXISTS", { message: /replace/ });
  expectCode(() => mopen(folder.file("none"), "r+", undefined, { shared }), "NOT_FOUND");
  mopen(other, "w+", size, { shared, replace: true }).close();

  expectCode(() => mopen(null, "w+", size, { shared }), "INVALID_ARGUMENT", { message: /path/ });
  expectCode(() => Heap.open({ size, shared }), "INVALID_ARGUMENT", { message: /`file`/ });
  expectCode(() => Heap.open({ file, size, shared, tracker: "uffd" }), "UNSUPPORTED");
  expectCode(() => Heap.open({ file, size, shared, keep: 2 }), "UNSUPPORTED", {
    message: /bopen/,
  });
  expectCode(() => Heap.open({ file, size, shared, logLimit: 99 }), "UNSUPPORTED");
  expectCode(() => Heap.open({ file, size, shared, verify: true }), "UNSUPPORTED", {
    message: /check\(\)/,
  });
  expectCode(() => Heap.open({ file, size, shared, address: 1 << 20 }), "INVALID_ARGUMENT");
  expectCode(() => mopen(file, "w+", 2 ** 46, { shared }), "INVALID_ARGUMENT");
  expectCode(() => mopen(file, "w+", size, { shared, maxSize: 1 }), "INVALID_ARGUMENT");
  expectCode(() => mopen(file, "w+", size, { shared, address: 4097 }), "INVALID_ARGUMENT");

  using heap = Heap.open({ file, size, shared });
  assert.equal(get(heap), 1);
  expectCode(() => heap.restore(), "UNSUPPORTED", { message: /bopen/, path: file });
  expectCode(() => heap.restore({ from: "map" }), "UNSUPPORTED");
  expectCode(() => heap.restore({ from: "backup" }), "NOT_OPEN");
  expectCode(() => heap.backup(), "NOT_OPEN");
  expectCode(() => heap.bopen(file, "w+"), "ALREADY_OPEN");
  assert.deepEqual(folder.names().filter((name) => name.includes("-new")), []);
});

test("one writer or many readers: nobody reads what is being changed", { timeout }, async () => {
  using folder = new Folder();
  const file = folder.file("a");
  await using child = new Child(otherRuntime);
  const tryThere = (mode: string) =>
    child.run(
      ({ perm }, file, mode) => {
        try {
          perm.mopen(file, mode, undefined, { shared: true }).close();
          return "opened";
        } catch (error) {
          return (error as { code: string }).code;
        }
      },
      file,
      mode,
    );
  {
    using heap = Heap.open({ file, size, shared });
    put(heap, 1);
    assert.equal(await tryThere("w+"), "BUSY");
    assert.equal(await tryThere("r+"), "NOT_FOUND");
    heap.flush();
    for (const mode of ["r+", "w+", "r"]) assert.equal(await tryThere(mode), "BUSY", mode);
    for (const mode of ["r+", "w+"] as const) {
      expectCode(() => mopen(file, mode, size, { shared }), "ALREADY_OPEN");
    }
    expectCode(() => mopen(file, "r", undefined, { shared }), "ALREADY_OPEN");
  }
  {
    using heap = mopen(file, "r", undefined, { shared });
    assert.equal(await tryThere("r"), "opened");
    assert.equal(await tryThere("r+"), "BUSY");
    expectCode(() => heap.malloc(1), "READ_ONLY", { path: file });
    expectCode(() => heap.flush(), "READ_ONLY");
    expectCode(() => heap.grow(8 * mib), "READ_ONLY");
    heap.view(Float64Array, heap.root, 1)[0] = 99;
    heap.check();
  }
  assert.equal(await tryThere("r+"), "opened");
  using heap = mopen(file, "r", undefined, { shared });
  assert.equal(get(heap), 1);
});

test("a backup holds what a shared heap was, and writes what changed", { timeout }, async () => {
  using folder = new Folder();
  const file = folder.file("a");
  const copy = folder.file("a.back");
  using heap = Heap.open({ file, size: 4 * mib, shared });
  const pointer = heap.malloc(2 * mib);
  heap.bytes(pointer, 2 * mib).set(pattern(2 * mib, 1));
  put(heap, 1);
  heap.bopen(copy, "w+", { keep: 3 });
  assert.equal(heap.backup().epoch, 1);
  // The same state has the same epoch, whichever file it goes to.
  put(heap, 2);
  assert.equal(heap.flush().epoch, 2);
  const small = heap.backup();
  assert.equal(small.epoch, 2);
  assert.ok(small.pages >= 1 && small.pages < 10, `${small.pages} pages`);
  assert.deepEqual([heap.backup().pages, heap.flush().pages], [0, 0]);
  heap.bytes(pointer, 1)[0] ^= 1;
  const [flushed, backed] = await Promise.all([heap.flushAsync(), heap.backupAsync()]);
  assert.deepEqual([flushed.epoch > 2, backed.epoch >= flushed.epoch], [true, true]);
  assert.ok(backed.pages >= 1 && backed.pages < 10, `${backed.pages} pages`);
  put(heap, 3);
  assert.ok((await heap.flushAsync()).pages > 0);
  assert.equal((await heap.flushAsync()).pages, 0);
  heap.backup();
  heap.bclose();
  heap.close();

  const read = await elsewhere(otherRuntime, ({ perm }, copy) => {
    using heap = perm.mopen(copy, "r", undefined, { verify: true });
    heap.check();
    return heap.load(heap.root);
  }, copy);
  assert.equal(read, 3);
  using again = Heap.open({ file, size, backup: copy, shared });
  assert.equal(again.resumed, "file");
  assert.deepEqual(again.backup().pages, 0);
  put(again, 4);
  again.flush();
  const { epoch } = again.backup();
  assert.equal(again.backupImage!.epochs().at(-1)!.epoch, epoch);
});

test("restore() brings a backup's heap, and the file takes it over with the next flush", {
  timeout,
}, () => {
  for (const place of places) {
    using folder = new Folder(place);
    const file = folder.file("a");
    const copy = folder.file("a.back");
    let address = 0;
    let block = 0;
    {
      using heap = Heap.open({ file, backup: copy, size: 4 * mib, maxSize: 64 * mib, shared });
      address = heap.address;
      put(heap, 1);
      block = heap.malloc(3 * mib);
      heap.bytes(block, 3 * mib).set(pattern(3 * mib, 5));
      heap.backup();
      heap.flush();
      heap.bytes(block, 3 * mib).fill(0);
      put(heap, 2);
      const view = heap.bytes(block, 100);
      const report = heap.restore();
      assert.equal(report.epoch, 1);
      assert.equal(get(heap), 1);
      assert.deepEqual(view, pattern(3 * mib, 5).subarray(0, 100));
      expectWell(heap);
      put(heap, 3);
    }
    // What was restored was never flushed.
    expectCode(() => Heap.open({ file, backup: copy, size, shared }), "CORRUPT");
    // PERM's way: a new heap over the file, whatever its size and address, and the backup into it.
    {
      using heap = mopen(file, "w+", 64 << 10, { shared, maxSize: mib });
      put(heap, 9);
      bopen(copy, "r+");
      const report = restore();
      assert.deepEqual([report.epoch, heap.address, get(heap)], [1, address, 1]);
      assert.deepEqual(Buffer.from(heap.bytes(block, 3 * mib)), Buffer.from(pattern(3 * mib, 5)));
      heap.grow(16 * mib);
      expectWell(heap);
      put(heap, 4);
      mflush();
      backup();
      mclose();
    }
    using heap = Heap.open({ file, backup: copy, size, shared });
    assert.deepEqual([heap.resumed, get(heap), heap.capacity], ["file", 4, 16 * mib]);
  }
});

test("Heap.open takes the file or a newer backup, and refuses what went apart", { timeout }, () => {
  using folder = new Folder();
  const file = folder.file("a");
  const copy = folder.file("a.back");
  const maxSize = 4 * mib;
  const open = () => Heap.open({ file, backup: copy, size, maxSize, shared });
  {
    using heap = open();
    put(heap, 1);
    heap.flush();
    put(heap, 2);
    heap.flush();
    heap.backup();
  }
  const old = readFileSync(file);
  {
    using heap = open();
    put(heap, 3);
    heap.backup();
    heap.flush();
  }
  const latest = readFileSync(file);
  writeFileSync(file, old);
  {
    using heap = open();
    assert.deepEqual([heap.resumed, get(heap)], ["backup", 3]);
    heap.check();
    heap.flush();
  }
  rmSync(file);
  {
    using heap = open();
    assert.deepEqual([heap.resumed, get(heap)], ["backup", 3]);
    heap.flush();
  }
  writeFileSync(file, old);
  {
    using heap = Heap.open({ file, size, shared });
    put(heap, 5);
    heap.flush();
  }
  expectCode(open, "EXISTS", { message: /each holds/ });
  rmSync(file);
  {
    using heap = Heap.open({ file, size, maxSize, shared });
    put(heap, 6);
    heap.flush();
  }
  expectCode(open, "EXISTS", { message: /different heaps/ });
  writeFileSync(file, latest);
  using heap = open();
  assert.equal(get(heap), 3);
});

test("Workers allocate and change a shared heap, and its close waits for them", {
  timeout,
}, async () => {
  using folder = new Folder();
  const file = folder.file("a");
  {
    using heap = Heap.open({ file, size, shared });
    const counts = heap.global("counts", Int32Array, 2);
    heap.flush();
    using thread = new Thread();
    await thread.attach(heap);
    const done = await thread.run(({ state }) => {
      const counts = state.heap.global("counts", Int32Array, 2);
      const blocks = state.heap.mallocMany(500, 1000);
      for (let round = 0; round < 1000; round++) Atomics.add(counts, 0, 1);
      state.heap.freeMany(blocks);
      counts[1] = state.heap.flush().epoch;
      return counts[1];
    });
    assert.equal(done, 2);
    assert.deepEqual([...counts], [1000, 2]);
    expectCode(() => heap.close(), "BUSY");
    await thread.run(({ state }) => state.heap.close());
    heap.check();
    heap.flush();
    // A thread that ends gives up what it owned, which is no change of the heap.
    thread[Symbol.dispose]();
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.equal(heap.flush().pages, 0);
  }
  using heap = Heap.open({ file, size, shared });
  assert.deepEqual([...heap.global("counts", Int32Array, 2)], [1000, 2]);
});

test("structs and containers live in a shared heap as in any other", { timeout }, () => {
  using folder = new Folder();
  const file = folder.file("a");
  const Entry = struct("Entry", { count: u32, name: text });
  {
    using heap = Heap.open({ file, size, shared });
    const entries = new (HashMap(text, Entry))(heap);
    for (let index = 0; index < 5000; index++) {
      entries.set(`key ${index}`, { count: index, name: `name ${index}` });
    }
    roots(heap).set("entries", entries);
    heap.flush();
  }
  using heap = Heap.open({ file, size, shared });
  const entries = roots(heap).get("entries", HashMap(text, Entry))!;
  assert.equal(entries.size, 5000);
  assert.equal(entries.get("key 4321")!.name, "name 4321");
  entries.delete("key 1");
  heap.check();
  heap.flush();
});

test("PERM's functions work on a shared heap", { timeout }, () => {
  using folder = new Folder();
  const file = folder.file("a");
  const totals = Float64Array.of(1, 2);
  perm("totals", totals);
  mopen(file, "w+", size, { shared });
  totals[1] = 3;
  mclose();
  const again = new Float64Array(2);
  perm("totals", again);
  mopen(file, "r+", undefined, { shared });
  assert.deepEqual([...again], [1, 3]);
  bopen(folder.file("b"), "w+");
  again[0] = 5;
  backup();
  again[0] = 6;
  assert.equal(restore().epoch, 2);
  assert.deepEqual([...again], [5, 3]);
  mclose();
  bclose();
  using heap = Heap.open({ file, size, shared });
  const last = new Float64Array(2);
  heap.perm("totals", last);
  assert.deepEqual([...last], [5, 3]);
});

test("what is declared PERM is flushed with a shared heap, as it was at the call", {
  timeout,
}, async () => {
  using folder = new Folder();
  // What is declared PERM stays declared as long as the process lives.
  await using child = new Child();
  const found = await child.run(
    async ({ perm: { mclose, mopen, PERM, perm } }, file, size) => {
      const { perm_shared } = PERM.declare({ perm_shared: [Float64Array, 100] });
      perm_shared.fill(0);
      perm(PERM.start, PERM.size);
      const heap = mopen(file, "w+", size, { shared: true });
      const epochs: number[] = [];
      for (const [round, how] of (["flush", "flushAsync"] as const).entries()) {
        perm_shared.fill(round + 1);
        const done = heap[how]();
        perm_shared.fill(99);
        epochs.push((await done).epoch);
      }
      heap.close();
      const left = [...new Set(perm_shared)];
      perm(PERM.start, PERM.size);
      mopen(file, "r", undefined, { shared: true });
      const back = [...new Set(perm_shared)];
      mclose();
      return { epochs, left, back };
    },
    folder.file("a"),
    size,
  );
  assert.deepEqual(found, { epochs: [1, 2], left: [99], back: [2] });
});

test("a file that went away or was replaced is STALE, and the heap can be backed up", {
  timeout,
}, async () => {
  using folder = new Folder();
  const file = folder.file("a");
  using heap = Heap.open({ file, size, shared });
  put(heap, 1);
  heap.flush();
  rmSync(file);
  put(heap, 2);
  expectCode(() => heap.flush(), "STALE", { message: /backup\(\)/, path: file });
  await expectRejects(heap.flushAsync(), "STALE");
  heap.bopen(folder.file("b"), "w+");
  assert.ok(heap.backup().pages > 0);
  writeFileSync(file, "another");
  expectCode(() => heap.flush(), "STALE");
  expectCode(() => mopen(file, "w+", size, { shared }), "EXISTS");
});
