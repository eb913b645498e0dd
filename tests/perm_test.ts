// PERM's programming interface, one to one, on the default heap.
import assert from "node:assert/strict";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import {
  alignedAlloc,
  backup,
  backupAsync,
  bclose,
  bopen,
  calloc,
  flushAsync,
  free,
  Heap,
  Image,
  malloc,
  mclose,
  mflush,
  mopen,
  PERM,
  perm,
  realloc,
  restore,
  unperm,
  usableSize,
} from "../mod.ts";
import {
  elsewhere,
  expectCode,
  expectRejects,
  expectWell,
  Folder,
  otherRuntime,
} from "./support.ts";

const size = 1 << 20;
const timeout = 30_000;

test(
  "every function of the default heap says NOT_OPEN while there is none",
  { timeout },
  async () => {
    using folder = new Folder();
    const calls: Record<string, () => unknown> = {
      mclose,
      mflush,
      bopen: () => bopen(folder.file("a"), "w+"),
      backup,
      restore: () => restore(),
      malloc: () => malloc(8),
      calloc: () => calloc(1, 8),
      realloc: () => realloc(0, 8),
      free: () => free(0),
      alignedAlloc: () => alignedAlloc(16, 8),
      usableSize: () => usableSize(4096),
    };
    for (const [name, call] of Object.entries(calls)) {
      expectCode(call, "NOT_OPEN", { message: new RegExp(name) });
    }
    await expectRejects(flushAsync(), "NOT_OPEN");
    await expectRejects(backupAsync(), "NOT_OPEN");
    assert.deepEqual(folder.names(), []);
    using heap = mopen(null, "w+", size);
    expectWell(heap);
  },
);

test('mopen(null, "w+") makes a heap without a map file', { timeout }, async () => {
  using heap = mopen(null, "w+", size);
  assert.equal(heap.resumed, "new");
  assert.equal(heap.epoch, 0);
  assert.equal(heap.map, null);
  assert.ok(heap.capacity >= size);
  const p = malloc(24);
  heap.bytes(p, 24).fill(7);
  expectCode(mflush, "NOT_OPEN");
  await expectRejects(flushAsync(), "NOT_OPEN");
  expectCode(backup, "NOT_OPEN");
  expectCode(() => restore(), "NOT_OPEN");
  assert.equal(heap.bytes(p, 24)[23], 7);
  expectWell(heap);
  mclose();
  expectCode(() => heap.malloc(8), "CLOSED");
});

test("mopen without a size makes a heap that can be used", { timeout }, () => {
  using heap = mopen(null, "w+");
  assert.ok(heap.capacity >= size);
  expectWell(heap);
});

test("a second mopen is ALREADY_OPEN and leaves the first alone", { timeout }, () => {
  using folder = new Folder();
  using heap = mopen(folder.file("a"), "w+", size);
  const p = malloc(8);
  expectCode(() => mopen(null, "w+", size), "ALREADY_OPEN");
  expectCode(() => mopen(folder.file("a"), "r+"), "ALREADY_OPEN");
  expectCode(() => mopen(folder.file("b"), "w+", size), "ALREADY_OPEN");
  assert.equal(existsSync(folder.file("b")), false);
  free(p);
  expectWell(heap);
  assert.equal(mflush().epoch, 1);
});

test('"w+" claims the path at once and replaces what stood there by the first commit', {
  timeout,
}, () => {
  using folder = new Folder();
  const file = folder.file("a.perm");
  using _heap = mopen(file, "w+", size);
  assert.equal(existsSync(file), false, "nothing is committed yet");
  expectCode(() => Heap.open({ file, size }), "ALREADY_OPEN", { path: file });
  const first = malloc(8);
  mflush();
  assert.equal(existsSync(file), true);
  mclose();

  const before = readFileSync(file);
  using second = mopen(file, "w+", size);
  assert.equal(second.resumed, "new");
  assert.equal(second.epoch, 0);
  second.bytes(malloc(8), 8).fill(9);
  second.close();
  assert.deepEqual(readFileSync(file), before, "closing without a commit left the old heap");

  using third = mopen(file, "r+");
  assert.equal(third.epoch, 1);
  assert.ok(usableSize(first) >= 8);
  third.close();

  using fourth = mopen(file, "w+", size);
  const p = malloc(100);
  fourth.root = p;
  fourth.bytes(p, 100).fill(4);
  mclose();
  using fifth = mopen(file, "r+");
  assert.equal(fifth.root, p);
  assert.deepEqual([...new Set(fifth.bytes(p, 100))], [4]);
  expectWell(fifth);
});

test('"w+" closed without a commit leaves no file behind', { timeout }, () => {
  using folder = new Folder();
  using heap = mopen(folder.file("a"), "w+", size);
  bopen(folder.file("b"), "w+");
  heap.close();
  assert.deepEqual(folder.names(), []);
});

test('"r+" goes on from the last commit, not from what came after', { timeout }, () => {
  using folder = new Folder();
  const file = folder.file("a.perm");
  using heap = mopen(file, "w+", size);
  const p = heap.root = malloc(64);
  heap.bytes(p, 64).fill(1);
  assert.equal(mflush().epoch, 1);
  heap.bytes(p, 64).fill(2);
  assert.equal(mflush().epoch, 2);
  heap.bytes(p, 64).fill(3);
  const address = heap.address;
  heap.close();

  using again = mopen(file, "r+");
  assert.equal(again.resumed, "file");
  assert.equal(again.epoch, 2);
  assert.equal(again.address, address);
  assert.equal(again.root, p);
  assert.deepEqual([...new Set(again.bytes(p, 64))], [2]);
  expectWell(again);
  free(p);
  expectCode(() => free(p), "DOUBLE_FREE");
  assert.equal(mflush().epoch, 3);
});

test('"r+" grows the heap to a larger size and ignores a smaller one', { timeout }, () => {
  using folder = new Folder();
  const file = folder.file("a.perm");
  using _heap = mopen(file, "w+", size);
  mclose();
  using smaller = mopen(file, "r+", 1 << 16);
  assert.ok(smaller.capacity >= size);
  smaller.close();
  using larger = mopen(file, "r+", 8 * size);
  assert.ok(larger.capacity >= 8 * size);
  const p = malloc(6 * size);
  larger.bytes(p, 6 * size).fill(5);
  larger.root = p;
  mclose();
  using again = mopen(file, "r+");
  assert.ok(again.capacity >= 8 * size);
  assert.ok(again.bytes(again.root, 6 * size).every((byte) => byte === 5));
  expectWell(again);
});

test('"r" reads, refuses every change and gives way to a writer', { timeout }, async () => {
  using folder = new Folder();
  const file = folder.file("a.perm");
  using made = mopen(file, "w+", size);
  const p = made.root = malloc(64);
  made.bytes(p, 64).fill(1);
  perm("kept", Float64Array.of(1, 2, 3));
  mclose();
  const before = readFileSync(file);

  using reader = mopen(file, "r");
  assert.equal(reader.epoch, 1);
  assert.equal(reader.root, p);
  assert.deepEqual([...new Set(reader.bytes(p, 64))], [1]);
  const kept = new Float64Array(3);
  perm("kept", kept);
  assert.deepEqual([...kept], [1, 2, 3]);
  const changes: (() => unknown)[] = [
    () => malloc(8),
    () => calloc(1, 8),
    () => realloc(p, 128),
    () => free(p),
    () => alignedAlloc(64, 8),
    () => reader.mallocMany(8, 4),
    () => reader.freeMany([p]),
    () => reader.root = 0,
    () => perm("new", new Uint8Array(8)),
    () => reader.global("new", Uint8Array, 8),
    () => unperm("kept"),
    () => reader.grow(8 * size),
    () => mflush(),
    () => bopen(folder.file("b"), "w+"),
  ];
  for (const change of changes) expectCode(change, "READ_ONLY");
  assert.ok(usableSize(p) >= 64);
  reader.check();

  assert.deepEqual(readFileSync(file), before);

  await elsewhere(otherRuntime, ({ perm }, file) => {
    const heap = perm.mopen(file, "r+");
    heap.bytes(heap.root, 64).fill(2);
    perm.mclose();
  }, file);
  assert.deepEqual([...new Set(reader.bytes(p, 64))], [1], "a reader keeps its epoch");
  mclose();
  expectCode(() => reader.malloc(8), "CLOSED");
  using writer = mopen(file, "r+");
  assert.deepEqual([...new Set(writer.bytes(p, 64))], [2]);
});

test("modes and paths that are none are refused, and nothing is left open", { timeout }, () => {
  using folder = new Folder();
  const missing = folder.file("missing");
  expectCode(() => mopen(missing, "r+"), "NOT_FOUND", { path: missing });
  expectCode(() => mopen(missing, "r"), "NOT_FOUND", { path: missing });
  expectCode(() => mopen(null, "r+"), "INVALID_ARGUMENT");
  expectCode(() => mopen(null, "r"), "INVALID_ARGUMENT");
  expectCode(() => mopen(folder.file("no/where"), "w+", size), "NOT_FOUND");
  for (const mode of ["", "w", "rw", "a", "R", null, 1, undefined]) {
    expectCode(() => mopen(missing, mode as "r"), "INVALID_ARGUMENT");
  }
  for (const path of ["", "a\0b", "\ud800", 7, {}, undefined, "x".repeat(300), "x".repeat(5000)]) {
    expectCode(() => mopen(path as string, "w+", size), "INVALID_ARGUMENT");
  }
  for (const bad of [0, 1, 4095, -1, 1.5, NaN, Infinity, 2 ** 60, "1", 1n, null, {}]) {
    expectCode(() => mopen(null, "w+", bad as number), "INVALID_ARGUMENT");
  }
  assert.deepEqual(folder.names(), []);
  using heap = mopen(null, "w+", size);
  expectWell(heap);
});

test("the default heap closed by its own close() is gone; Heap.open never makes one", {
  timeout,
}, () => {
  using other = Heap.open({ size });
  expectCode(() => malloc(8), "NOT_OPEN");
  using heap = mopen(null, "w+", size);
  assert.notEqual(heap.address, other.address);
  const p = malloc(8);
  expectCode(() => other.free(p), "BAD_POINTER");
  heap.close();
  expectCode(() => malloc(8), "NOT_OPEN");
  using next = mopen(null, "w+", size);
  expectWell(next);
  expectWell(other);
});

test("mclose commits, as PERM does; without a map file or read-only it closes only", {
  timeout,
}, () => {
  using folder = new Folder();
  const file = folder.file("a.perm");
  using heap = mopen(file, "w+", size);
  heap.root = malloc(8);
  mclose();
  using reader = mopen(file, "r");
  assert.equal(reader.epoch, 1);
  assert.notEqual(reader.root, 0);
  const files = folder.names();
  mclose();
  using _heap = mopen(null, "w+", size);
  mclose();
  assert.deepEqual(folder.names(), files);
});

test(
  "mclose that cannot commit throws and stays open, and commits once it can",
  { timeout },
  () => {
    using folder = new Folder();
    const file = folder.file("a.perm");
    using heap = mopen(file, "w+", size);
    const p = heap.root = malloc(64);
    heap.bytes(p, 64).fill(1);
    writeFileSync(file, "somebody else's");
    expectCode(mclose, "STALE");
    assert.equal(readFileSync(file, "utf8"), "somebody else's");
    expectWell(heap);
    heap.bytes(p, 64).fill(2);
    rmSync(file);
    mclose();
    using again = mopen(file, "r+");
    assert.deepEqual([...new Set(again.bytes(again.root, 64))], [2]);
    expectWell(again);
  },
);

test("mclose then bclose, PERM's order, is fine; so is bclose then mclose", { timeout }, () => {
  using folder = new Folder();
  using first = mopen(folder.file("a"), "w+", size);
  const image = bopen(folder.file("b"), "w+");
  assert.ok(image instanceof Image);
  assert.equal(first.backupImage, image);
  backup();
  mclose();
  bclose();
  expectCode(() => image.epoch, "CLOSED");

  using second = mopen(folder.file("a"), "r+");
  bopen(folder.file("b"), "r+");
  assert.equal(second.backupImage?.epoch, 1);
  bclose();
  assert.equal(second.backupImage, null);
  expectCode(bclose, "NOT_OPEN");
  expectCode(backup, "NOT_OPEN");
  mclose();
});

test("mclose does not commit to the backup file", { timeout }, () => {
  using folder = new Folder();
  using heap = mopen(folder.file("a"), "w+", size);
  bopen(folder.file("b"), "w+");
  const p = heap.root = malloc(8);
  heap.store(p, 1);
  backup();
  heap.store(p, 2);
  mclose();
  using old = mopen(folder.file("b"), "r");
  assert.equal(old.load(old.root), 1);
  old.close();
  using now = mopen(folder.file("a"), "r");
  assert.equal(now.load(now.root), 2);
});

test("bopen: modes, one at a time, and what is refused", { timeout }, () => {
  using folder = new Folder();
  using heap = mopen(null, "w+", size);
  const missing = folder.file("missing");
  expectCode(() => bopen(missing, "r+"), "NOT_FOUND", { path: missing });
  expectCode(() => bopen(missing, "r"), "NOT_FOUND", { path: missing });
  expectCode(() => bopen(missing, "x" as "r"), "INVALID_ARGUMENT");
  expectCode(() => bopen(null as unknown as string, "w+"), "INVALID_ARGUMENT");
  expectCode(() => bopen(missing, "w+", { size: 1 } as object), "INVALID_ARGUMENT");
  expectCode(() => bopen(missing, "w+", { keep: 0 }), "INVALID_ARGUMENT");
  assert.deepEqual(folder.names(), []);

  const image = bopen(folder.file("b"), "w+");
  assert.equal(image.path, folder.file("b"));
  assert.match(image.uuid, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
  assert.equal(image.epoch, 0);
  assert.deepEqual(image.epochs(), []);
  expectCode(() => restore(), "NO_COMMIT");
  expectCode(() => bopen(folder.file("c"), "w+"), "ALREADY_OPEN");
  backup();
  assert.equal(image.epoch, 1);
  image.close();
  image.close();
  expectCode(() => image.path, "CLOSED");
  assert.equal(heap.backupImage, null);

  bopen(folder.file("b"), "r");
  expectCode(backup, "READ_ONLY");
  assert.equal(restore().epoch, 1);
  bclose();
  expectWell(heap);
});

test("the map file cannot be the backup file too", { timeout }, () => {
  using folder = new Folder();
  using heap = mopen(folder.file("a"), "w+", size);
  expectCode(() => bopen(folder.file("a"), "w+"), "ALREADY_OPEN");
  mflush();
  expectCode(() => bopen(folder.file("a"), "r+"), "ALREADY_OPEN");
  assert.equal(mflush().pages, 0);
  expectWell(heap);
});

test("epochs are numbered across map file and backup file", { timeout }, () => {
  using folder = new Folder();
  using heap = mopen(folder.file("a"), "w+", size);
  bopen(folder.file("b"), "w+");
  const p = malloc(8);
  assert.equal(mflush().epoch, 1);
  const same = backup();
  assert.equal(same.epoch, 1, "an unchanged state is the same epoch in both");
  assert.ok(same.pages > 0, "but the backup file had to be written");
  heap.store(p, 1);
  assert.equal(backup().epoch, 2);
  heap.store(p, 2);
  assert.equal(mflush().epoch, 3);
  assert.equal(heap.epoch, 3);
  assert.equal(heap.map?.epoch, 3);
  assert.equal(heap.backupImage?.epoch, 2);
  assert.equal(backup().epoch, 3);
});

test(
  "reports are whole, and a commit with nothing changed writes nothing",
  { timeout },
  async () => {
    using folder = new Folder();
    using heap = mopen(folder.file("a"), "w+", size);
    bopen(folder.file("b"), "w+");
    const p = malloc(5 * 4096);
    heap.bytes(p, 5 * 4096).fill(1);
    const first = mflush();
    assert.deepEqual(Object.keys(first).sort(), ["bytes", "durationMs", "epoch", "pages"]);
    assert.ok(first.pages >= 5 && first.bytes >= first.pages * 4096, JSON.stringify(first));
    assert.ok(first.durationMs > 0 && first.durationMs < timeout);
    const files = folder.names().map((name) => readFileSync(folder.file(name)));
    const second = mflush();
    assert.equal(second.epoch, 1);
    assert.equal(second.pages, 0);
    assert.equal(second.bytes, 0);
    assert.deepEqual(folder.names().map((name) => readFileSync(folder.file(name))), files);
    heap.bytes(p, 1)[0] = 2;
    const third = mflush();
    assert.equal(third.epoch, 2);
    assert.equal(third.pages, 1);
    assert.equal((await flushAsync()).pages, 0);
    assert.equal((await backupAsync()).epoch, 2);
    const report = restore({ from: "map" });
    assert.deepEqual(Object.keys(report).sort(), [
      "bytes",
      "dropped",
      "durationMs",
      "epoch",
      "pages",
    ]);
    assert.equal(report.epoch, 2);
    assert.equal(report.dropped, 0);
  },
);

test("an asynchronous commit is the state at the call", { timeout }, async () => {
  using folder = new Folder();
  using heap = mopen(folder.file("a"), "w+", size);
  bopen(folder.file("b"), "w+");
  const count = new Float64Array(1);
  perm("count", count);
  const p = heap.root = malloc(8);
  heap.store(p, 1);
  count[0] = 1;
  const flushed = flushAsync();
  heap.store(p, 2);
  count[0] = 2;
  const backedUp = backupAsync();
  heap.store(p, 3);
  count[0] = 3;
  assert.equal((await flushed).epoch, 1);
  assert.equal((await backedUp).epoch, 2);
  heap.close();
  for (const [file, value] of [["a", 1], ["b", 2]] as const) {
    using again = mopen(folder.file(file), "r");
    const stored = new Float64Array(1);
    perm("count", stored);
    assert.equal(again.load(again.root), value);
    assert.equal(stored[0], value);
  }
});

test("blocks given before mopen belong to the heap it opens, and are filled there", {
  timeout,
}, () => {
  using folder = new Folder();
  const file = folder.file("a.perm");
  const early = Float64Array.of(1, 2);
  perm("early", early);
  expectCode(() => perm("early", new Float64Array(2)), "EXISTS");
  using _heap = mopen(file, "w+", size);
  expectCode(() => perm("early", new Float64Array(2)), "EXISTS");
  early[1] = 5;
  mclose();

  using _without = mopen(file, "r+");
  early[0] = 100;
  mclose();

  const late = new Float64Array(2);
  perm("early", late);
  assert.deepEqual([...late], [0, 0], "not filled before there is a heap");
  using again = mopen(file, "r+");
  assert.deepEqual([...late], [1, 5], "the old registration ended with its heap");
  again.close();

  perm("early", new Float64Array(3));
  expectCode(() => mopen(file, "r+"), "BLOCK_MISMATCH", { message: /early/ });
  expectCode(() => malloc(8), "NOT_OPEN");
  unperm("early");
  expectCode(() => unperm("early"), "NOT_FOUND");
  using last = mopen(file, "r+");
  expectWell(last);
});

test("perm refuses what it cannot keep, before mopen as after", { timeout }, () => {
  const bad: unknown[] = [
    new Float64Array(0),
    new SharedArrayBuffer(8),
    new Uint8Array(new SharedArrayBuffer(8)),
    new ArrayBuffer(8, { maxByteLength: 16 }),
    new Uint8Array(8).fill(1).buffer.transfer(0),
    [1, 2],
    "text",
    null,
    undefined,
    {},
  ];
  const names: unknown[] = ["", "a\0b", "\udc00", null, undefined, {}, "n".repeat(5000)];
  const refuse = () => {
    for (const target of bad) {
      expectCode(() => perm("bad", target as ArrayBuffer), "INVALID_ARGUMENT");
    }
    for (const name of names) {
      expectCode(() => perm(name as string, new Uint8Array(8)), "INVALID_ARGUMENT");
      expectCode(() => unperm(name as string), "INVALID_ARGUMENT");
    }
    expectCode(() => perm(12345, 8), "INVALID_ARGUMENT");
    expectCode(() => perm(NaN, NaN), "INVALID_ARGUMENT");
    expectCode(() => perm(PERM.start, PERM.size + 8), "INVALID_ARGUMENT");
    expectCode(() => unperm("never"), "NOT_FOUND");
  };
  PERM.declare({ perm_refuses: [Uint8Array, 1] });
  refuse();
  using heap = mopen(null, "w+", size);
  refuse();
  const own = heap.view(Float64Array, malloc(64), 8);
  expectCode(() => perm("own", own), "INVALID_ARGUMENT");
  expectCode(() => perm("own", own.buffer as ArrayBuffer), "INVALID_ARGUMENT");
  expectCode(() => perm("own", heap.window(heap.root || malloc(8)).view), "INVALID_ARGUMENT");
  assert.equal(heap.stats().blocks, 0);
  expectWell(heap);
});

test("PERM.declare: library memory that outlives heaps, the same for the same name", {
  timeout,
}, () => {
  const { perm_home, perm_array } = PERM.declare({
    perm_home: [Float64Array, 1],
    perm_array: [Int32Array, 10],
  });
  assert.ok(perm_home instanceof Float64Array && perm_home.length === 1);
  assert.ok(perm_array instanceof Int32Array && perm_array.length === 10);
  assert.ok(Number.isSafeInteger(PERM.start) && PERM.start > 0);
  assert.ok(PERM.size >= 48);
  perm_home[0] = 1.5;
  assert.equal(PERM.declare({ perm_home: [Float64Array, 1] }).perm_home[0], 1.5);
  expectCode(() => PERM.declare({ perm_home: [Float64Array, 2] }), "EXISTS");
  expectCode(() => PERM.declare({ perm_home: [BigInt64Array, 1] }), "EXISTS");
  const before = PERM.size;
  for (
    const bad of [
      { x: [Float64Array, 0] },
      { x: [Float64Array, -1] },
      { x: [Float64Array, 1.5] },
      { x: [Float64Array, 2 ** 52] },
      { x: [Array, 1] },
      { x: [DataView, 1] },
      { x: 1 },
      { "": [Float64Array, 1] },
      null,
      7,
    ]
  ) {
    expectCode(
      () => PERM.declare(bad as unknown as { x: [Float64ArrayConstructor, 1] }),
      "INVALID_ARGUMENT",
    );
  }
  expectCode(
    () => PERM.declare({ perm_new: [Float64Array, 1], perm_home: [Float64Array, 3] }),
    "EXISTS",
  );
  assert.equal(PERM.size, before, "all or nothing");
  {
    using _heap = mopen(null, "w+", size);
    perm_home[0]++;
  }
  assert.equal(perm_home[0], 2.5);
  assert.equal(perm_home.byteLength, 8);
  structuredClone(perm_home, { transfer: [perm_home.buffer] });
  assert.equal(perm_home.length, 0);
  const again = PERM.declare({ perm_home: [Float64Array, 1] }).perm_home;
  assert.equal(again[0], 2.5, "the memory stays, whoever takes the view away");
  again[0] = 0;
});

test("perm(PERM.start, PERM.size) makes all that is declared persistent", { timeout }, () => {
  using folder = new Folder();
  const { perm_walk, perm_tally } = PERM.declare({
    perm_walk: [Float64Array, 2],
    perm_tally: [Int32Array, 4],
  });
  perm_walk.fill(0);
  perm_tally.fill(0);
  perm(PERM.start, PERM.size);
  using _first = mopen(folder.file("a"), "w+", size);
  bopen(folder.file("b"), "w+");
  expectCode(() => perm(PERM.start, PERM.size), "EXISTS");
  perm_walk.set([1, 2]);
  perm_tally[3] = 3;
  mflush();
  perm_walk.set([10, 20]);
  assert.equal(backup().epoch, 2);
  perm_walk.set([7, 7]);
  perm_tally.fill(7);
  assert.equal(restore().epoch, 2);
  assert.deepEqual([...perm_walk, ...perm_tally], [10, 20, 0, 0, 0, 3]);
  restore({ from: "map" });
  assert.deepEqual([...perm_walk, ...perm_tally], [1, 2, 0, 0, 0, 3]);

  // What is declared later is registered by saying it again.
  const { perm_later } = PERM.declare({ perm_later: [Float64Array, 1] });
  perm_later[0] = 0;
  perm(PERM.start, PERM.size);
  perm_later[0] = 8;
  mclose();
  bclose();
  assert.equal(perm_walk[0], 1, "valid after mclose");

  perm_walk.fill(0);
  perm_later.fill(0);
  using _second = mopen(folder.file("a"), "r+");
  assert.equal(perm_walk[0], 0, "nothing is registered with the new heap yet");
  perm(PERM.start, PERM.size);
  assert.deepEqual([...perm_walk, ...perm_later], [1, 2, 8]);
  mclose();
});

test("PERM's blocks go by name: another process may declare them in another order", {
  timeout,
}, async () => {
  using folder = new Folder();
  const file = folder.file("a.perm");
  await elsewhere(otherRuntime, ({ perm }, file) => {
    const { one, two } = perm.PERM.declare({ one: [Float64Array, 1], two: [Int32Array, 3] });
    perm.perm(perm.PERM.start, perm.PERM.size);
    perm.mopen(file, "w+", 1 << 20);
    one[0] = 0.5;
    two.set([1, 2, 3]);
    perm.mclose();
  }, file);
  const found = await elsewhere(otherRuntime, ({ perm }, file) => {
    const { two, three, one } = perm.PERM.declare({
      two: [Int32Array, 3],
      three: [Uint8Array, 1],
      one: [Float64Array, 1],
    });
    perm.perm(perm.PERM.start, perm.PERM.size);
    perm.mopen(file, "r+");
    perm.mclose();
    return [...one, ...two, ...three];
  }, file);
  assert.deepEqual(found, [0.5, 1, 2, 3, 0]);
  await elsewhere(otherRuntime, async ({ perm }, file) => {
    perm.PERM.declare({ one: [Float64Array, 2] });
    perm.perm(perm.PERM.start, perm.PERM.size);
    try {
      perm.mopen(file, "r+");
    } catch (error) {
      if ((error as { code: string }).code === "BLOCK_MISMATCH") return await "as it should";
      throw error;
    }
    throw new Error("a changed size was accepted");
  }, file);
});

test("restore() brings back a heap whose map file is lost", { timeout }, () => {
  using folder = new Folder();
  using lost = mopen(folder.file("a"), "w+", size);
  bopen(folder.file("b"), "w+");
  const total = Float64Array.of(3);
  perm("total", total);
  const p = lost.root = malloc(40);
  lost.view(Float64Array, p, 5).set([1, 2, 3, 4, 5]);
  backup();
  const address = lost.address;
  lost.close();
  for (const name of folder.names()) if (name.startsWith("a")) rmSync(folder.file(name));

  using heap = mopen(folder.file("new"), "w+", size);
  bopen(folder.file("b"), "r+");
  expectCode(backup, "EXISTS", { message: /restore/i });
  total[0] = 0;
  perm("total", total);
  const { epoch } = restore();
  assert.equal(epoch, 1);
  assert.equal(heap.address, address);
  assert.equal(heap.root, p);
  assert.deepEqual([...heap.view(Float64Array, p, 5)], [1, 2, 3, 4, 5]);
  assert.equal(total[0], 3);
  expectWell(heap);
  total[0] = 4;
  assert.equal(backup().epoch, 2);
  assert.equal(mflush().epoch, 2);
  mclose();
  bclose();
  using again = mopen(folder.file("new"), "r+");
  perm("total", total);
  assert.equal(total[0], 4);
  assert.equal(again.address, address);
});

test("restore() without what it needs says so and changes nothing", { timeout }, () => {
  using folder = new Folder();
  using heap = mopen(folder.file("a"), "w+", size);
  const p = heap.root = malloc(8);
  heap.store(p, 1);
  expectCode(() => restore(), "NO_COMMIT");
  expectCode(() => restore({ from: "backup" }), "NOT_OPEN");
  mflush();
  heap.store(p, 2);
  for (const epoch of [2, 100, 2 ** 52]) expectCode(() => restore({ epoch }), "NO_EPOCH");
  for (const epoch of [0, -1, 1.5, NaN, "1", null]) {
    expectCode(() => restore({ epoch: epoch as number }), "INVALID_ARGUMENT");
  }
  expectCode(() => restore({ from: "there" as "map" }), "INVALID_ARGUMENT");
  expectCode(() => restore({ verify: 1 as unknown as boolean }), "INVALID_ARGUMENT");
  expectCode(() => restore({ epochs: 1 } as object), "INVALID_ARGUMENT");
  expectCode(() => restore(7 as unknown as object), "INVALID_ARGUMENT");
  assert.equal(heap.load(p), 2);
  assert.equal(restore({ verify: true }).epoch, 1);
  assert.equal(heap.load(p), 1);
  expectWell(heap);
});
