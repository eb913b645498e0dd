/**
 * Shared heaps: mapped from their file, so that the system writes them when it likes. The mark tells
 * what was not closed, a flush is kept, a backup brings back the rest, and a full disk is an error.
 *
 * @module
 */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import {
  backup,
  bclose,
  bopen,
  Heap,
  mclose,
  mflush,
  mopen,
  perm,
  PermError,
  restore,
} from "../mod.ts";
import { HashMap, roots, struct, text, u32 } from "../data/mod.ts";
import { Mount, mountTmpfs, refusesMounts } from "./mounts.ts";
import { runtimes } from "./runtimes.ts";
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
  put,
  randomNumbers,
  Thread,
} from "./support.ts";

const mib = 1 << 20;
const timeout = 60_000;
const size = mib;
const shared = true;
const noMounts = refusesMounts();

/** Folders on a disk and in memory, for what is told apart there. */
function folders(): string[] {
  const memory = existsSync("/dev/shm") ? ["/dev/shm"] : [];
  return [new Folder().path, ...memory.map((path) => mkdtempSync(join(path, "perm-test-")))];
}

test("a shared heap goes on in another runtime, with every pointer what it was", {
  timeout,
}, async () => {
  for (const path of folders()) {
    const file = join(path, "a");
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
    heap.close();
    rmSync(path, { recursive: true });
  }
});

test("a flush without changes does nothing, and one store through a view is a change", {
  timeout,
}, () => {
  for (const path of folders()) {
    const file = join(path, "a");
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
    heap.close();
    rmSync(path, { recursive: true });
  }
});

test("closing what was flushed leaves a whole file, closing changes leaves the mark", {
  timeout,
}, () => {
  for (const path of folders()) {
    const file = join(path, "a");
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
    rmSync(path, { recursive: true });
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
  for (const path of folders()) {
    const file = join(path, "a");
    const copy = join(path, "a.back");
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
    heap.close();
    rmSync(path, { recursive: true });
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
  for (const path of folders()) {
    const file = join(path, "a");
    const copy = join(path, "copy");
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
    const inMemory = path.startsWith("/dev/shm");
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
    rmSync(path, { recursive: true });
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

test("a shared heap grows, by itself and on request, and keeps what it took", { timeout }, () => {
  using folder = new Folder();
  const file = folder.file("a");
  const pointers: number[] = [];
  {
    using heap = Heap.open({ file, size: 64 << 10, maxSize: 64 * mib, shared });
    for (let index = 0; index < 40; index++) {
      const pointer = heap.malloc(300_000);
      heap.bytes(pointer, 300_000).fill(index + 1);
      pointers.push(pointer);
    }
    assert.ok(heap.capacity >= 40 * 300_000);
    heap.grow(32 * mib);
    assert.equal(heap.capacity, 32 * mib);
    expectCode(() => heap.grow(65 * mib), "OUT_OF_MEMORY");
    expectCode(() => heap.malloc(65 * mib), "OUT_OF_MEMORY", { message: /maxSize/ });
    heap.flush();
  }
  assert.ok(statSync(file).blocks * 512 >= 32 * mib);
  {
    // Growing while it opens is no change that close() would have to mark.
    using heap = Heap.open({ file, size: 48 * mib, shared });
    assert.equal(heap.capacity, 48 * mib);
  }
  using heap = Heap.open({ file, size, shared });
  assert.equal(heap.capacity, 48 * mib);
  for (const [index, pointer] of pointers.entries()) {
    assert.ok(heap.bytes(pointer, 300_000).every((byte) => byte === index + 1));
    heap.free(pointer);
  }
  // Free memory stays in the file, and calloc clears it all the same.
  const pointer = heap.calloc(1, 20 * mib);
  assert.ok(heap.bytes(pointer, 20 * mib).every((byte) => byte === 0));
  expectWell(heap);
  heap.flush();
});

test("memory that another session freed is cleared before it is zeroed memory again", {
  timeout,
}, () => {
  using folder = new Folder();
  const file = folder.file("a");
  {
    using heap = Heap.open({ file, size: 8 * mib, shared });
    const pointer = heap.malloc(4 * mib);
    heap.bytes(pointer, 4 * mib).fill(0xee);
    heap.free(pointer);
    heap.root = heap.scratch(200_000);
    heap.bytes(heap.root, 200_000).fill(0xdd);
    heap.flush();
  }
  for (const mode of ["r", "r+"] as const) {
    using heap = mopen(file, mode, undefined, { shared });
    assert.ok(heap.bytes(heap.root, 200_000).every((byte) => byte === 0));
    if (mode === "r") continue;
    const pointer = heap.calloc(4 * mib, 1);
    assert.ok(heap.bytes(pointer, 4 * mib).every((byte) => byte === 0));
    heap.flush();
  }
});

test("memory that is freed in quantity stays, and is cleared when it is zeroed memory again", {
  timeout,
}, () => {
  using folder = new Folder();
  using heap = Heap.open({ file: folder.file("a"), size: 100 * mib, maxSize: 100 * mib, shared });
  const pointer = heap.malloc(90 * mib);
  heap.bytes(pointer, 90 * mib).fill(0xee);
  heap.free(pointer);
  const again = heap.calloc(90, mib);
  assert.ok(heap.bytes(again, 90 * mib).every((byte) => byte === 0));
  heap.check();
});

/** What happens to a shared heap on a medium that is full. */
function fillUp(mount: Mount, file: string): void {
  {
    using heap = Heap.open({ file, size: 2 * mib, maxSize: 256 * mib, shared });
    put(heap, 1);
    heap.flush();
    mount.fill(64 << 10);
    expectCode(() => heap.grow(64 * mib), "NO_SPACE", { path: file, message: /free some/ });
    expectCode(() => heap.malloc(32 * mib), "NO_SPACE");
    expectCode(() => heap.calloc(1, 32 * mib), "NO_SPACE");
    const pointers: number[] = [];
    const error = expectCode(() => {
      while (true) {
        const pointer = heap.malloc(50_000);
        // The whole of it can be stored to: its room is there.
        heap.bytes(pointer, 50_000).fill(pointers.length + 1);
        pointers.push(pointer);
      }
    }, "NO_SPACE");
    assert.match(error.message, /room/);
    assert.ok(pointers.length > 20, `${pointers.length} blocks`);
    mount.fill();
    for (const [index, pointer] of pointers.entries()) {
      const bytes = heap.bytes(pointer, 50_000);
      assert.ok(bytes.every((byte) => byte === index + 1));
      bytes.fill(0x55);
    }
    heap.flush();
    heap.check();
    expectCode(() => mopen(join(mount.path, "b"), "w+", 8 * mib, { shared }), "NO_SPACE");
    put(heap, 2);
    heap.flush();
    mount.empty();
    heap.grow(8 * mib);
    expectWell(heap);
    heap.flush();
  }
  mount.fill();
  for (
    const open of [
      Heap.open,
      (options: { size: number }) => mopen(file, "r+", options.size, { shared }),
    ]
  ) {
    expectCode(() => open({ file, size: 64 * mib, shared }), "NO_SPACE");
  }
  {
    using heap = Heap.open({ file, size, shared });
    assert.equal(get(heap), 2);
    heap.bytes(heap.malloc(3 * mib), 3 * mib).fill(1);
    heap.flush();
  }
  using heap = mopen(file, "r", undefined, { shared });
  heap.check();
  heap.close();
  mount.empty();
  // A copy with holes where there were zeros is given its room before it is mapped.
  const copy = `${file}.copy`;
  assert.equal(spawnSync("cp", ["--sparse=always", file, copy]).status, 0);
  assert.ok(statSync(copy).blocks < statSync(file).blocks);
  mount.fill();
  expectCode(() => mopen(copy, "r+", undefined, { shared }), "NO_SPACE");
  mount.empty();
  mopen(copy, "r+", undefined, { shared }).close();
}

test("a full tmpfs is NO_SPACE, and what has room can be stored to", {
  timeout,
  skip: noMounts,
}, () => {
  using folder = new Folder();
  using mount = mountTmpfs(folder.file("disk"), 32 * mib);
  fillUp(mount, join(mount.path, "a"));
});

/** A small disk of its own, or why there is none. */
function makeDisk(folder: Folder, kind: string, bytes: number): Mount | string {
  const image = folder.file(`${kind}.img`);
  closeSync(openSync(image, "w"));
  truncateSync(image, bytes);
  const made = spawnSync(`mkfs.${kind}`, ["-q", image], { stdio: "pipe" });
  if (made.status !== 0) return `mkfs.${kind} does not work here`;
  try {
    return new Mount(folder.file(kind), ["-t", kind, "-o", "loop", image]);
  } catch {
    return `mounting ${kind} is not allowed here`;
  }
}

const disks = (() => {
  const tried: Record<string, string | false> = {};
  for (const [kind, bytes] of [["ext4", 16], ["xfs", 300], ["btrfs", 120]] as const) {
    using folder = new Folder();
    const disk = makeDisk(folder, kind, bytes * mib);
    tried[kind] = typeof disk === "string" && disk;
    if (typeof disk !== "string") disk[Symbol.dispose]();
  }
  return tried;
})();

for (const [kind, bytes] of [["ext4", 48], ["xfs", 320]] as const) {
  test(`a full disk with ${kind} is NO_SPACE, and what has room can be stored to`, {
    timeout,
    skip: disks[kind],
  }, () => {
    using folder = new Folder();
    using mount = makeDisk(folder, kind, bytes * mib) as Mount;
    fillUp(mount, join(mount.path, "a"));
  });
}

test("a file system that copies on writing is UNSUPPORTED, for it could be full at any store", {
  timeout,
  skip: disks.btrfs,
}, () => {
  using folder = new Folder();
  using mount = makeDisk(folder, "btrfs", 120 * mib) as Mount;
  const file = join(mount.path, "a");
  expectCode(() => Heap.open({ file, size, shared }), "UNSUPPORTED", { message: /ext4/ });
  assert.equal(existsSync(`${file}-new`), false);
});

test("a file-size limit of the process is NO_SPACE and no signal", { timeout }, async () => {
  using folder = new Folder();
  await using child = new Child(otherRuntime, ["sh", "-c", 'ulimit -f 40000; exec "$@"', "sh"]);
  const codes = await child.run(({ perm }, file) => {
    const codes = [];
    using heap = perm.mopen(file, "w+", 1 << 20, { shared: true, maxSize: 64 << 20 });
    for (const action of [() => heap.grow(60 << 20), () => heap.malloc(50 << 20)]) {
      try {
        action();
        codes.push("done");
      } catch (error) {
        codes.push((error as { code: string }).code);
      }
    }
    heap.malloc(2 << 20);
    heap.flush();
    heap.check();
    return codes;
  }, folder.file("a"));
  assert.deepEqual(codes, ["NO_SPACE", "NO_SPACE"]);
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

/** A memory cgroup of that size, or why there is none. */
function makeGroup(bytes: number): { path: string; remove: () => void } | string {
  const path = `/sys/fs/cgroup/memory/perm-test-${process.pid}-${bytes}`;
  const made = spawnSync("sh", [
    "-c",
    `mkdir ${path} && echo ${bytes} > ${path}/memory.limit_in_bytes`,
  ], { stdio: "pipe" });
  const remove = () => void spawnSync("rmdir", [path]);
  if (made.status === 0) return { path, remove };
  remove();
  return "memory cgroups (version 1) cannot be made here";
}

const noGroup = (() => {
  const group = makeGroup(64 * mib);
  if (typeof group === "string") return group;
  group.remove();
  return false;
})();

test("a shared heap may be larger than memory, and so may what is restored", {
  timeout,
  skip: noGroup,
}, async () => {
  using folder = new Folder();
  const group = makeGroup(128 * mib) as { path: string; remove: () => void };
  try {
    for (const isShared of [true, false]) {
      await using child = new Child(otherRuntime, [
        "sh",
        "-c",
        `echo $$ > ${group.path}/cgroup.procs; echo 0 > ${group.path}/memory.swappiness; exec "$@"`,
        "sh",
      ]);
      const outcome = await child.run(
        ({ perm }, file, isShared) => {
          using heap = perm.mopen(file, "w+", 170 << 20, { shared: isShared, maxSize: 170 << 20 });
          const pointer = heap.malloc(160 << 20);
          const bytes = heap.bytes(pointer, 160 << 20);
          const fill = (by: number) => {
            for (let at = 0; at < bytes.length; at += 4096) bytes[at] = by + at % 251;
          };
          const wrong = (by: number) => {
            let count = 0;
            for (let at = 0; at < bytes.length; at += 4096) {
              if (bytes[at] !== by + at % 251) count++;
            }
            return count;
          };
          fill(1);
          const first = wrong(1);
          heap.flush();
          heap.bopen(file + ".back", "w+");
          heap.backup();
          fill(2);
          const { pages } = heap.backup();
          fill(3);
          heap.restore();
          return [first, wrong(2), pages > 40_000];
        },
        folder.file("a"),
        isShared,
      ).catch(() => "ended");
      assert.deepEqual(outcome, isShared ? [0, 0, true] : "ended");
      if (isShared) assert.equal(await child.end(), "exit 0");
    }
  } finally {
    group.remove();
  }
});
