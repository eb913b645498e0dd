// Heap.open, commits, epochs and restores, with files.
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { readdirSync, readFileSync, rmSync } from "node:fs";
import { test } from "node:test";
import { Heap, open, type PermError } from "../mod.ts";
import { flip } from "./specimen.ts";
import {
  eventually,
  expectCode,
  expectWell,
  Folder,
  get,
  makeFile,
  pattern,
  put,
  randomNumbers,
} from "./support.ts";

const size = 1 << 20;
const mib = 1 << 20;
const timeout = 60_000;

function removeImage(folder: Folder, image: string): void {
  for (const name of folder.names()) {
    if (name === image || name.startsWith(`${image}-`)) rmSync(folder.file(name));
  }
}

test("Heap.open makes a new heap, then resumes from the file", { timeout }, () => {
  using folder = new Folder();
  const file = folder.file("a.perm");
  const first = Heap.open({ file, size });
  assert.equal(first.resumed, "new");
  assert.equal(first.epoch, 0);
  assert.equal(first.root, 0);
  assert.equal(first.map?.path, file);
  assert.equal(first.map?.epoch, 0);
  assert.equal(first.backupImage, null);
  put(first, 1);
  assert.equal(first.flush().epoch, 1);
  const { address } = first;
  first.close();

  using second = open({ file, size });
  assert.equal(second.resumed, "file");
  assert.equal(second.epoch, 1);
  assert.equal(second.address, address);
  assert.equal(get(second), 1);
  expectWell(second);
});

test("Heap.open without a file is a heap of the process; a backup file alone will do", {
  timeout,
}, () => {
  using folder = new Folder();
  using first = Heap.open({ size });
  assert.equal(first.resumed, "new");
  assert.equal(first.map, null);
  expectCode(() => first.flush(), "NOT_OPEN");

  const backup = folder.file("b");
  using second = Heap.open({ file: null, backup, size });
  put(second, 7);
  expectCode(() => second.flush(), "NOT_OPEN");
  second.backup();
  second.close();
  using third = Heap.open({ backup, size });
  assert.equal(third.resumed, "backup");
  assert.equal(get(third), 7);
});

test("a new heap of the same two files holds nothing until it is committed", { timeout }, () => {
  using folder = new Folder();
  const options = { file: folder.file("a"), backup: folder.file("b"), size };
  for (let run = 0; run < 3; run++) {
    using heap = Heap.open(options);
    assert.equal(heap.resumed, "new");
    put(heap, 5);
  }
  assert.deepEqual(folder.names(), []);
});

test("an exception inside `using` leaves the last epoch", { timeout }, () => {
  using folder = new Folder();
  const file = folder.file("a");
  const change = () => {
    using heap = Heap.open({ file, size });
    put(heap, 1);
    heap.flush();
    put(heap, 2);
    heap.free(heap.root);
    throw new Error("in the middle of a change");
  };
  assert.throws(change, /in the middle/);
  using heap = Heap.open({ file, size });
  assert.equal(heap.epoch, 1);
  assert.equal(get(heap), 1);
  expectWell(heap);
});

test("`await using` closes as well", { timeout }, async () => {
  let escaped: Heap;
  {
    await using heap = Heap.open({ size });
    escaped = heap;
  }
  expectCode(() => escaped.malloc(8), "CLOSED");
});

test("a stale map file and a newer backup: resumes from the backup, and both catch up", {
  timeout,
}, () => {
  using folder = new Folder();
  const options = { file: folder.file("a"), backup: folder.file("b"), size };
  const heap = Heap.open(options);
  put(heap, 1);
  heap.flush();
  heap.backup();
  put(heap, 2);
  heap.backup();
  put(heap, 3);
  heap.backup();
  heap.close();

  const second = Heap.open(options);
  assert.equal(second.resumed, "backup");
  assert.equal(second.epoch, 3);
  assert.equal(get(second), 3);
  assert.equal(second.map?.epoch, 1);
  const report = second.flush();
  assert.equal(report.epoch, 3, "the same state is the same epoch");
  assert.ok(report.pages > 0);
  put(second, 4);
  assert.equal(second.flush().epoch, 4);
  second.close();

  const third = Heap.open(options);
  assert.equal(third.resumed, "file");
  assert.equal(get(third), 4);
  assert.equal(third.backup().epoch, 4);
  expectWell(third);
  third.close();

  removeImage(folder, "a");
  using fourth = Heap.open(options);
  assert.equal(fourth.resumed, "backup");
  assert.equal(get(fourth), 4);
  assert.equal(fourth.flush().epoch, 4);
  expectWell(fourth);
});

test("two equal files: resumes from the map file", { timeout }, () => {
  using folder = new Folder();
  const options = { file: folder.file("a"), backup: folder.file("b"), size };
  {
    using heap = Heap.open(options);
    put(heap, 1);
    heap.backup();
    heap.flush();
  }
  using heap = Heap.open(options);
  assert.equal(heap.resumed, "file");
  assert.equal(heap.backup().pages, 0);
  assert.equal(heap.flush().pages, 0);
});

test("a lost map file: restore() takes over the backup's heap, unless views hold it back", {
  timeout,
}, () => {
  using folder = new Folder();
  {
    using heap = Heap.open({ file: folder.file("a"), backup: folder.file("b"), size });
    put(heap, 5);
    heap.flush();
    heap.backup();
  }
  removeImage(folder, "a");
  using heap = Heap.open({ file: folder.file("a"), size });
  assert.equal(heap.resumed, "new");
  heap.bopen(folder.file("b"), "r+");
  const { address } = heap;
  const p = heap.malloc(64);
  const held = heap.bytes(p, 64);
  held.fill(9);
  expectCode(() => heap.restore(), "BUSY", { message: /view/ });
  assert.equal(heap.address, address);
  assert.deepEqual([...new Set(held)], [9], "and nothing happened to the view");
  expectWell(heap);
  expectCode(() => heap.backup(), "EXISTS");
  heap.close();

  using again = Heap.open({ file: folder.file("a"), size });
  again.bopen(folder.file("b"), "r+");
  again.store(again.malloc(8), 0);
  const report = again.restore();
  assert.equal(report.epoch, 1);
  assert.notEqual(again.address, address);
  assert.equal(get(again), 5);
  expectWell(again);
  put(again, 6);
  assert.equal(again.flush().epoch, 2);
  assert.equal(again.backup().epoch, 2);
  again.close();
  using last = Heap.open({ file: folder.file("a"), backup: folder.file("b"), size });
  assert.equal(get(last), 6);
  assert.equal(last.resumed, "file");
});

test("close never commits; the epoch stands after any number of closes", { timeout }, () => {
  using folder = new Folder();
  const file = folder.file("a");
  makeFile(file, 1);
  for (let run = 0; run < 20; run++) {
    using heap = Heap.open({ file, size });
    assert.equal(heap.epoch, 1);
    assert.equal(get(heap), 1);
    put(heap, 100 + run);
    heap.malloc(10_000);
  }
});

test("epochs() lists what keep leaves, and restore({ epoch }) goes to each of it", {
  timeout,
}, () => {
  using folder = new Folder();
  using heap = Heap.open({ file: folder.file("a"), size, keep: 5 });
  const start = Date.now();
  for (let epoch = 1; epoch <= 4; epoch++) {
    put(heap, epoch);
    heap.flush();
  }
  const image = heap.map!;
  const epochs = image.epochs();
  assert.deepEqual(epochs.map(({ epoch }) => epoch), [1, 2, 3, 4]);
  for (const { time, pages, bytes } of epochs) {
    assert.ok(time > start - 60_000 && time <= Date.now() + 1000);
    assert.ok(pages > 0 && bytes > 0);
  }
  for (const epoch of [2, 4, 1, 3]) {
    const report = heap.restore({ epoch, verify: true });
    assert.equal(report.epoch, epoch);
    assert.equal(heap.epoch, epoch);
    assert.equal(get(heap), epoch);
    heap.check();
  }
  expectCode(() => heap.restore({ epoch: 5 }), "NO_EPOCH");
  assert.equal(get(heap), 3);

  // Going back destroys nothing. A commit there makes it the last epoch, though no page differs.
  const back = heap.flush();
  assert.deepEqual([back.epoch, back.pages], [5, 0], "a number is never used twice");
  assert.equal(heap.flush().epoch, 5);
  put(heap, 60);
  assert.equal(heap.flush().epoch, 6);
  assert.deepEqual(image.epochs().map(({ epoch }) => epoch), [1, 2, 3, 5, 6]);
  heap.restore({ epoch: 5 });
  assert.equal(get(heap), 3);
  heap.restore({ epoch: 2 });
  assert.equal(get(heap), 2);
  heap.close();
  using again = Heap.open({ file: folder.file("a"), size, keep: 5 });
  assert.equal(again.epoch, 6, "no commit was made at epoch 2");
  assert.equal(get(again), 60);
  expectWell(again);
});

test("epochs() tells of each commit when it was made and what it wrote, also after reopening", {
  timeout,
}, async () => {
  using folder = new Folder();
  const file = folder.file("a");
  const made: { epoch: number; pages: number; bytes: number; from: number; to: number }[] = [];
  const expectTold = (heap: Heap, what: string) => {
    const told = heap.map!.epochs();
    assert.deepEqual(told.map(({ epoch }) => epoch), made.map(({ epoch }) => epoch), what);
    told.forEach(({ time, pages, bytes }, index) => {
      const { epoch, from, to, ...wrote } = made[index];
      assert.ok(time >= from && time <= to, `${what}: epoch ${epoch} at ${time}: ${from} to ${to}`);
      assert.equal(pages, wrote.pages, `${what}: epoch ${epoch}`);
      // The base comes with its log's first page, which no later commit has.
      assert.equal(bytes, wrote.bytes - (index === 0 ? 4096 : 0), `${what}: epoch ${epoch}`);
    });
  };
  {
    using heap = Heap.open({ file, size: 8 * mib, keep: 9 });
    const p = heap.root = heap.alignedAlloc(4096, 4 * mib);
    for (const changed of [900, 3, 40, 7]) {
      heap.bytes(p, changed * 4096).fill(made.length + 1);
      const from = Date.now();
      const { epoch, pages, bytes } = heap.flush();
      made.push({ epoch, pages, bytes, from, to: Date.now() });
      assert.ok(pages >= changed && pages < changed + 20, `${pages} pages`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    expectTold(heap, "when they were made");
    // Where the heap stands is no matter of the image's.
    heap.restore({ epoch: 2 });
    expectTold(heap, "while the heap stands at epoch 2");
  }
  using heap = Heap.open({ file, size, keep: 9 });
  expectTold(heap, "opened anew");
});

test("with many commits the file is folded, and keep epochs stay within reach", {
  timeout,
}, async () => {
  using folder = new Folder();
  const file = folder.file("a");
  const keep = 3;
  const heap = Heap.open({ file, size, keep, logLimit: 256 << 10 });
  const p = heap.root = heap.calloc(64 << 10, 1);
  for (let epoch = 1; epoch <= 60; epoch++) {
    heap.bytes(p, 64 << 10).fill(epoch);
    assert.equal(heap.flush().epoch, epoch);
  }
  await eventually("a fold of 60 commits of 64 KiB, with a limit of 256", () => {
    return heap.stats().folds > 0;
  });
  const { mapLogBytes } = heap.stats();
  assert.ok(mapLogBytes < 60 * (64 << 10), `${mapLogBytes} bytes of log`);
  const kept = heap.map!.epochs().map(({ epoch }) => epoch);
  assert.deepEqual(kept.slice(-keep), [58, 59, 60]);
  heap.close();
  using again = Heap.open({ file, size, keep });
  for (const epoch of [58, 59, 60]) {
    again.restore({ epoch, verify: true });
    assert.ok(again.bytes(again.root, 64 << 10).every((byte) => byte === epoch));
    again.check();
  }
  assert.ok(folder.names().length <= 3, folder.names().join());
});

test("restore() from the map file, from the backup file, and by default from the backup", {
  timeout,
}, () => {
  using folder = new Folder();
  using heap = Heap.open({ file: folder.file("a"), backup: folder.file("b"), size, keep: 4 });
  put(heap, 1);
  heap.flush();
  put(heap, 2);
  heap.backup();
  put(heap, 3);
  assert.equal(heap.restore({ from: "map" }).epoch, 1);
  assert.equal(get(heap), 1);
  assert.equal(heap.restore().epoch, 2);
  assert.equal(get(heap), 2);
  assert.equal(heap.restore({ from: "map" }).epoch, 1);
  put(heap, 10);
  expectCode(() => heap.backup(), "EXISTS", { path: folder.file("b") });
  assert.equal(heap.flush().epoch, 3);
  assert.equal(get(heap), 10);
  heap.restore({ from: "backup" });
  assert.equal(get(heap), 2);
  expectWell(heap);
});

test("what is committed after going back is a new line: what it left behind is no part of it", {
  timeout,
}, () => {
  using folder = new Folder();
  const [file, backup] = [folder.file("a"), folder.file("b")];
  {
    using heap = Heap.open({ file, backup, size, keep: 9 });
    put(heap, 1);
    heap.flush();
    heap.backup();
    put(heap, 2);
    assert.equal(heap.backup().epoch, 2);
    heap.restore({ from: "map" });
    put(heap, 3);
    assert.equal(heap.flush().epoch, 3);
    // Its number is higher, and it does not hold what the backup holds.
    expectCode(() => heap.backup(), "EXISTS", { path: backup });
    put(heap, 4);
    assert.equal(heap.flush().epoch, 4);
    expectCode(() => heap.backup(), "EXISTS", { path: backup });
    // What was left is still there, and going on from it leaves the other line as it is.
    heap.restore({ from: "backup" });
    assert.equal(get(heap), 2);
    heap.restore({ from: "map", epoch: 1 });
    assert.equal(get(heap), 1);
  }
  expectCode(() => Heap.open({ file, backup, size }), "EXISTS", { message: /each holds/ });
  // Within one file both stay within reach, and the last commit is the current one.
  using heap = Heap.open({ file, size, keep: 9 });
  heap.restore({ epoch: 3 });
  put(heap, 5);
  assert.equal(heap.flush().epoch, 5);
  assert.deepEqual(heap.map!.epochs().map(({ epoch }) => epoch), [1, 3, 5]);
  for (const [epoch, value] of [[4, 4], [5, 5], [1, 1], [3, 3]]) {
    heap.restore({ epoch, verify: true });
    assert.equal(get(heap), value);
  }
  heap.bopen(backup, "r+");
  expectCode(() => heap.backup(), "EXISTS", { path: backup });
});

test("views stay valid across a restore in place", { timeout }, () => {
  using folder = new Folder();
  using heap = Heap.open({ file: folder.file("a"), size });
  const p = heap.root = heap.malloc(8192);
  const view = heap.bytes(p, 8192);
  const { view: window, base } = heap.window(p);
  view.fill(1);
  heap.flush();
  view.fill(2);
  heap.restore();
  assert.deepEqual([...new Set(view)], [1]);
  assert.equal(window.getUint8((p - base) | 0), 1);
  view[0] = 3;
  assert.equal(heap.bytes(p, 1)[0], 3);
  assert.equal(heap.flush().pages, 1, "and what is written through them is committed");
  heap.restore();
  assert.equal(view[0], 3);
});

test("a restore undoes allocations and frees", { timeout }, () => {
  using folder = new Folder();
  using heap = Heap.open({ file: folder.file("a"), size });
  const kept = heap.mallocMany(100, 500);
  heap.flush();
  const { liveBlocks } = heap.stats();
  heap.freeMany(kept);
  const later = heap.mallocMany(3000, 1000);
  heap.restore();
  assert.equal(heap.stats().liveBlocks, liveBlocks);
  heap.check();
  assert.throws(() => heap.freeMany(later));
  heap.restore();
  heap.freeMany(kept);
  assert.equal(heap.stats().liveBlocks, 0);
  expectWell(heap);
  heap.restore();
  assert.equal(heap.stats().liveBlocks, 500);
  expectWell(heap);
});

test("the heap grows in place across commits, reopening and restores", { timeout }, () => {
  using folder = new Folder();
  const file = folder.file("a");
  const heap = Heap.open({ file, size, keep: 10 });
  const { address, capacity } = heap;
  put(heap, 1);
  heap.flush();
  const first = heap.malloc(20 * mib);
  heap.bytes(first, 20 * mib).fill(1);
  const grown = heap.capacity;
  assert.ok(grown >= 20 * mib && grown > capacity);
  heap.store(heap.root, first);
  heap.flush();
  heap.grow(100 * mib);
  assert.equal(heap.flush().epoch, 3, "a larger heap is a change");
  heap.close();

  const again = Heap.open({ file, size, keep: 10 });
  assert.equal(again.address, address);
  assert.ok(again.capacity >= 100 * mib);
  const p = again.load(again.root);
  assert.ok(again.bytes(p, 20 * mib).every((byte) => byte === 1));
  const second = again.malloc(60 * mib);
  again.bytes(second, 60 * mib).fill(2);
  again.flush();
  again.restore({ epoch: 1 });
  assert.equal(get(again), 1);
  again.check();
  const other = again.malloc(30 * mib);
  again.bytes(other, 30 * mib).fill(3);
  again.restore();
  assert.ok(again.bytes(second, 60 * mib).every((byte) => byte === 2));
  again.check();
  again.close();

  using last = Heap.open({ file, size: 200 * mib });
  assert.ok(last.capacity >= 200 * mib, "`size` grows a smaller heap");
  assert.equal(last.address, address);
  expectWell(last);
});

test("a commit writes what changed, and nothing when nothing did", { timeout }, () => {
  using folder = new Folder();
  using heap = Heap.open({ file: folder.file("a"), size: 64 * mib });
  const p = heap.malloc(40 * mib);
  heap.bytes(p, 40 * mib).fill(1);
  const full = heap.flush();
  assert.ok(full.pages >= 40 * mib / 4096);
  for (let i = 0; i < 3; i++) {
    assert.deepEqual({ ...heap.flush(), durationMs: 0 }, {
      epoch: 1,
      pages: 0,
      bytes: 0,
      durationMs: 0,
    });
  }
  heap.bytes(p + 5 * mib, 1)[0] = 2;
  const one = heap.flush();
  assert.deepEqual([one.epoch, one.pages], [2, 1]);
  assert.ok(one.bytes < 64 << 10, `${one.bytes} bytes for a page`);
  heap.bytes(p + 5 * mib, 1)[0] = 2;
  assert.equal(heap.flush().pages, 0, "the same bytes written again are no change");
  const touched = new Uint8Array(40 * mib);
  touched.set(heap.bytes(p, 40 * mib));
  assert.equal(heap.flush().pages, 0, "reading is none either");
  heap.free(heap.malloc(100));
  assert.ok(heap.flush().pages <= 4);
  assert.equal(heap.restore().epoch, heap.epoch);
  assert.equal(heap.flush().pages, 0, "nor is a restore");
});

for (const tracker of ["checksum", "uffd"] as const) {
  test(`the tracker "${tracker}" finds every page that changed, and no other`, {
    timeout,
    skip: refusesTracker(tracker),
  }, () => {
    using folder = new Folder();
    const file = folder.file("a");
    let heap = Heap.open({ file, size, tracker });
    assert.equal(heap.tracker, tracker);
    const pages = 3000;
    const p = heap.root = heap.alignedAlloc(4096, pages * 4096);
    const expected = pattern(pages * 4096, 1);
    heap.bytes(p, pages * 4096).set(expected);
    const committed = expected.slice();
    heap.flush();
    const next = randomNumbers(7);
    for (let round = 0; round < 12; round++) {
      const touched = new Set<number>();
      for (let i = 0; i < 1 + round * 20; i++) {
        const page = next(pages);
        touched.add(page);
        const at = page * 4096 + next(4096);
        expected[at] ^= 1 + next(255);
        heap.bytes(p + at, 1)[0] = expected[at];
      }
      const changed = [...touched].filter((page) => {
        const range = [page * 4096, (page + 1) * 4096] as const;
        return !equal(expected.subarray(...range), committed.subarray(...range));
      });
      assert.equal(heap.flush().pages, changed.length, `round ${round}`);
      committed.set(expected);
      if (round % 4 === 1) {
        heap.bytes(p, 4096 * 10).fill(0);
        heap.restore();
      }
      if (round % 4 === 3) {
        heap.close();
        heap = Heap.open({ file, size, tracker, verify: round === 11 });
      }
      assert.ok(equal(heap.bytes(p, pages * 4096), expected), `round ${round}`);
    }
    heap.close();
  });
}

/** Why the system has no such tracker; false when it has. */
function refusesTracker(tracker: "checksum" | "uffd"): string | false {
  try {
    Heap.open({ size, tracker }).close();
    return false;
  } catch (error) {
    return (error as PermError).message;
  }
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

test("a large commit, a small one, a large one: reopening finds each", { timeout }, () => {
  using folder = new Folder();
  const file = folder.file("a");
  const length = 8 * mib;
  let heap = Heap.open({ file, size });
  const p = heap.root = heap.malloc(length);
  for (const [round, part] of [length, 4096, 3_000_000, length, 1, length].entries()) {
    heap.bytes(p, part).fill(round + 1);
    heap.flush();
    heap.close();
    heap = Heap.open({ file, size, verify: true });
    assert.equal(heap.epoch, round + 1);
    assert.ok(heap.bytes(p, part).every((byte) => byte === round + 1));
  }
  expectWell(heap);
  heap.close();
  assert.ok(folder.names().length <= 2, folder.names().join());
});

test("free memory is not stored, and comes back as zeros", { timeout }, () => {
  using folder = new Folder();
  const file = folder.file("a");
  const heap = Heap.open({ file, size });
  const p = heap.malloc(30 * mib);
  heap.bytes(p, 30 * mib).fill(0xee);
  const full = heap.flush();
  heap.free(p);
  heap.flush();
  heap.close();
  using again = Heap.open({ file, size });
  const q = again.calloc(30 * mib, 1);
  assert.ok(again.bytes(q, 30 * mib).every((byte) => byte === 0));
  again.free(q);
  const next = again.flush();
  assert.ok(next.bytes < full.bytes / 100, `${next.bytes} bytes`);
  expectWell(again);
});

test("a large commit is written by another thread than the one that takes its checksums", {
  timeout,
}, () => {
  using folder = new Folder();
  using heap = Heap.open({ file: folder.file("a"), size: 40 * mib });
  const p = heap.malloc(32 * mib);
  const written = (whose: string) =>
    Number(readFileSync(`/proc/${whose}/io`, "utf8").match(/wchar: (\d+)/)![1]);
  // A base, and a record.
  for (const length of [32 * mib, 12 * mib]) {
    heap.bytes(p, length).fill(length >> 20);
    const before = ["self", "thread-self"].map(written);
    const { bytes } = heap.flush();
    const [all, own] = ["self", "thread-self"].map((whose, at) => written(whose) - before[at]);
    assert.ok(bytes > length && all >= length, `${all} bytes written of ${bytes}`);
    assert.ok(own < all / 4, `${own} of ${all} bytes by the thread that commits`);
  }
});

test("where no tracker asks the kernel, what stands in the file only is not committed again", {
  timeout,
}, () => {
  using folder = new Folder();
  const file = folder.file("a");
  const length = 4 * mib;
  {
    using heap = Heap.open({ file, size: 8 * mib });
    heap.root = heap.alignedAlloc(4096, length);
    heap.bytes(heap.root, length).set(pattern(length, 4));
    heap.flush();
  }
  using heap = Heap.open({ file, size, tracker: "checksum" });
  const bytes = heap.bytes(heap.root, length);
  let sum = 0;
  for (let at = 0; at < length; at += 64) sum += bytes[at];
  assert.ok(sum > 0);
  // The medium gives another byte than it was given: with a good checksum nobody would find it.
  const base = readFileSync(file);
  const at = base.indexOf(pattern(length, 4).subarray(100 * 4096, 100 * 4096 + 64));
  assert.ok(at > 4096);
  const undo = flip(file, at);
  bytes[2 * mib] ^= 1;
  assert.equal(heap.flush().pages, 1);
  heap.close();
  expectCode(() => Heap.open({ file, size, verify: true }), "CORRUPT");
  undo();
  using again = Heap.open({ file, size, verify: true });
  assert.equal(again.epoch, 2);
});

test("stats() and the heap's properties tell what the heap holds", { timeout }, () => {
  using folder = new Folder();
  using heap = Heap.open({
    file: folder.file("a"),
    backup: folder.file("b"),
    size,
    maxSize: 8 * mib,
  });
  const pointers = heap.mallocMany(100, 10);
  heap.global("counter", Float64Array, 1);
  heap.perm("block", new Uint8Array(10));
  heap.flush();
  heap.backup();
  put(heap, 1);
  heap.flush();
  const stats = heap.stats();
  for (const [name, value] of Object.entries(stats)) {
    if (["tracker", "tuning", "shared"].includes(name)) continue;
    assert.ok(Number.isSafeInteger(value) && Number(value) >= 0, `${name}: ${value}`);
  }
  assert.ok(stats.liveBlocks >= 13);
  assert.ok(stats.liveBytes >= 1000 && stats.liveBytes < 64 << 10);
  assert.equal(stats.blocks, 2);
  assert.equal(stats.maxSize, 8 * mib);
  assert.equal(stats.capacity, heap.capacity);
  assert.ok(stats.used <= stats.capacity + stats.metadataBytes);
  assert.ok(heap.used > 0 && Number.isSafeInteger(heap.used));
  assert.equal(stats.commits, 3);
  assert.ok(stats.mapBaseBytes > 0 && stats.backupBaseBytes > 0 && stats.mapLogBytes > 0);
  assert.ok(stats.spans > 0 && stats.metadataBytes > 0);
  assert.equal(stats.tracker, heap.tracker);
  assert.ok(["checksum", "uffd"].includes(heap.tracker));
  assert.notEqual(stats.tuning, undefined);
  heap.freeMany(pointers);
  assert.equal(heap.stats().liveBlocks, stats.liveBlocks - 10);
  using untuned = Heap.open({ size, tune: "off" });
  assert.equal(untuned.stats().tuning, null);
});

test("several heaps at once keep to themselves", { timeout }, () => {
  using folder = new Folder();
  using stack = new DisposableStack();
  const heaps = Array.from({ length: 12 }, (_, i) => {
    return stack.use(Heap.open({ file: folder.file(`heap${i}`), size }));
  });
  assert.equal(new Set(heaps.map(({ address }) => address)).size, 12);
  heaps.forEach((heap, i) => {
    put(heap, i);
    heap.global("number", Float64Array, 1)[0] = i;
  });
  for (const heap of heaps) heap.flush();
  heaps.forEach((heap, i) => {
    assert.equal(get(heap), i);
    put(heap, 100 + i);
  });
  heaps[3].close();
  heaps[7].restore();
  assert.equal(get(heaps[7]), 7);
  assert.equal(get(heaps[8]), 108);
  for (const heap of heaps.filter((_, i) => i !== 3)) expectWell(heap);
  stack.dispose();
  for (let i = 11; i >= 0; i--) {
    using heap = Heap.open({ file: folder.file(`heap${i}`), size });
    assert.equal(get(heap), i);
    assert.equal(heap.global("number", Float64Array, 1)[0], i);
  }
});

test("opening and closing many times leaks neither files nor addresses", { timeout }, () => {
  using folder = new Folder();
  const file = folder.file("a");
  makeFile(file, 1);
  const { address } = (() => {
    using heap = Heap.open({ file, size });
    return { address: heap.address };
  })();
  const descriptors = countDescriptors();
  for (let i = 0; i < 200; i++) {
    using heap = Heap.open({ file, size });
    assert.equal(heap.address, address);
    put(heap, get(heap) + 1);
    if (i % 10 === 0) heap.flush();
  }
  for (let i = 0; i < 300; i++) {
    using heap = Heap.open({ size });
    put(heap, i);
  }
  using heap = Heap.open({ file, size });
  assert.equal(get(heap), 21);
  assert.ok(countDescriptors() <= descriptors + 8);
  assert.ok(folder.names().length <= 2, folder.names().join());
  expectWell(heap);
});

function countDescriptors(): number {
  return readdirSync("/proc/self/fd").length;
}
