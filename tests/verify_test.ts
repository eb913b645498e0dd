/**
 * What `verify` says of damage: which page it is, what the heap has there, and which epoch is whole.
 * Real images, a byte of a real page changed.
 *
 * @module
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { bopen, Heap, Image, mclose, mopen, type PermError, restore } from "../mod.ts";
import {
  f64,
  HashMap,
  List,
  OrderedMap,
  roots,
  struct,
  Text,
  text,
  u32,
  Vec,
} from "../data/mod.ts";
import { basePages, flip, logOf, type Place, recordPages } from "./specimen.ts";
import { elsewhere, expectCode, Folder, otherRuntime, pattern, Thread } from "./support.ts";

/** What `verify` says while a byte of that page is another. */
function damaged(file: string, offset: number, action: () => unknown): PermError {
  const undo = flip(file, offset + 1234);
  try {
    return expectCode(action, "CORRUPT");
  } finally {
    undo();
  }
}

const Item = struct("Item", { id: u32, title: text, notes: Text, parts: Vec(u32) });
const long = "a text that is too long to stand in its slot";

test("verify names what each page of an image belongs to, whatever it is", {
  timeout: 120_000,
}, async () => {
  using folder = new Folder();
  const file = folder.file("app");
  const counters = new Float64Array(3000);
  let small = 0;
  let large = 0;
  let lone = 0;
  let freed = 0;
  {
    using heap = Heap.open({ file, size: 8 << 20 });
    heap.perm("counters", counters);
    counters.fill(7);
    heap.global("settings", Float64Array, 2000).fill(3);
    const words = new (HashMap(u32, f64))(heap);
    for (let i = 0; i < 3000; i++) words.set(i, i);
    roots(heap).set("words", words);
    const sorted = new (OrderedMap(text, f64))(heap);
    for (let i = 0; i < 2000; i++) sorted.set(`${i}`, i);
    roots(heap).set(`sorted ${long}`, sorted);
    const list = new (List(f64))(heap);
    for (let i = 0; i < 500; i++) list.push(i);
    roots(heap).set("list", list);
    const item = new Item(heap, { id: 1, title: long });
    item.notes.append("x".repeat(40_000));
    for (let i = 0; i < 5000; i++) item.parts.push(i);
    roots(heap).set("item", item);
    large = heap.malloc(300_000);
    heap.bytes(large, 300_000).set(pattern(300_000, 1));
    small = heap.malloc(20_000);
    heap.bytes(small, 20_000).fill(1);
    // Pages of a span with one block and with none: 32 KiB blocks lie alone.
    const blocks = Array.from({ length: 3 }, () => heap.malloc(32 << 10));
    for (const block of blocks) heap.bytes(block, 32 << 10).fill(9);
    [lone, freed] = [blocks[0], blocks[1]];
    heap.free(freed);
    // Blocks that another thread frees: their bits stand in a table of their own until they are collected.
    const lent = Array.from({ length: 8 }, () => heap.malloc(64));
    using thread = new Thread();
    await thread.attach(heap);
    await thread.run(({ state }, lent: number[]) => {
      for (const block of lent) state.heap!.free(block);
      state.heap!.close();
    }, lent);
    heap.flush();
  }

  const { address, pages } = basePages(file);
  const found = new Map<number, string>();
  const counts = new Map<string, number>();
  for (const { page, offset } of pages) {
    const error = damaged(file, offset, () => Image.verify(file));
    const at = address + 4096 * page;
    assert.equal(error.address, at);
    assert.equal(error.path, file);
    assert.equal(error.epoch, undefined, "of a base nothing is left");
    assert.ok(error.belongsTo, `page ${page}`);
    assert.ok(error.message.includes(`page ${page} of the heap`), error.message);
    assert.ok(error.message.includes(`; it belongs to ${error.belongsTo}; restore from a backup`));
    found.set(at, error.belongsTo);
    const kind = error.belongsTo.replace(/0x[0-9a-f]+|\d+/g, "n");
    counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  const expectAt = (at: number, what: RegExp) =>
    assert.match(found.get(at - at % 4096) ?? "", what);
  const expectCount = (what: RegExp, least: number) => {
    let count = 0;
    for (const [kind, times] of counts) if (what.test(kind)) count += times;
    assert.ok(count >= least, `${what}: ${count} of ${least} in ${JSON.stringify([...counts])}`);
  };
  expectAt(address, /^the heap's header$/);
  expectAt(address + 4096, /^the allocator's header$/);
  expectAt(
    address + 8192,
    /^the allocator's slice table, where it tells of 0x[0-9a-f]+ to 0x[0-9a-f]+$/,
  );
  expectCount(/^the allocator's table of blocks that other threads freed, where it tells/, 1);
  expectCount(/^block "counters", in a block of n bytes/, 3000 * 8 / 4096 - 1);
  expectCount(/^global "settings", in a block of n bytes/, 2000 * 8 / 4096 - 1);
  expectCount(/^the HashMap of root "words", in a block of n bytes/, 3000 * 24 / 4096 - 1);
  expectCount(/^the OrderedMap of root "sorted a text that.*slot", in a block/, 20);
  expectCount(/^the List of root "list", in a block of n bytes at n, and to n more blocks/, 2);
  expectCount(/^the Vec of root "item", in a block/, 4);
  expectCount(/^the Text of root "item", in a block/, 9);
  expectCount(/^the table of blocks' names/, 1);
  expectCount(/^an entry of the table of (roots|blocks' names)/, 1);
  for (const at of [large, large + 150_000, large + 299_999]) {
    expectAt(at, new RegExp(`^a block of 327680 bytes at 0x${large.toString(16)}$`));
  }
  expectAt(small + 8192, new RegExp(`^a block of 20480 bytes at 0x${small.toString(16)}$`));
  expectAt(lone + 8192, new RegExp(`^a block of 32768 bytes at 0x${lone.toString(16)}$`));
  expectAt(freed + 8192, /^free places for blocks of 32768 bytes$/);

  // The others who read a whole image say the same.
  const { offset, page } = pages.find(({ page }) =>
    found.get(address + 4096 * page)!.includes("words")
  )!;
  const what = found.get(address + 4096 * page)!;
  const others = [
    () => Heap.open({ file, size: 1 << 20, verify: true }),
    () => mopen(file, "r", undefined, { verify: true }),
    () => Image.copy(file, folder.file("copy")),
  ];
  for (const action of others) {
    const error = damaged(file, offset, action);
    assert.equal(error.belongsTo, what);
    assert.equal(error.address, address + 4096 * page);
  }
  const undo = flip(file, offset + 1234);
  const elsewhereSaid = await elsewhere(otherRuntime, ({ perm }, file: string) => {
    try {
      perm.Image.verify(file);
    } catch (error) {
      const { code, belongsTo, address, message } = error as PermError;
      return [code, belongsTo!, address!, message];
    }
    return [];
  }, file);
  undo();
  assert.deepEqual(elsewhereSaid.slice(0, 3), ["CORRUPT", what, address + 4096 * page]);
  assert.equal(Image.verify(file).epoch, 1, "all is as it was");
});

test("verify of damage in a log names the epoch before it, and restore goes back there", {
  timeout: 60_000,
}, () => {
  using folder = new Folder();
  const file = folder.file("app");
  const epochs = 6;
  {
    using heap = Heap.open({ file, size: 1 << 20, keep: 10 });
    const numbers = heap.global("numbers", Float64Array, 4096);
    for (let epoch = 1; epoch <= epochs; epoch++) {
      numbers.fill(epoch);
      assert.equal(heap.flush().epoch, epoch);
    }
  }
  const log = logOf(file);
  const records = recordPages(log);
  assert.equal(records.length, epochs - 1);
  for (const record of [0, 2, 3]) {
    const { offset, page } = records[record].at(-2)!;
    const error = damaged(log, offset, () => Image.verify(file));
    const whole = record + 1;
    assert.equal(error.epoch, whole);
    assert.match(error.belongsTo!, /^global "numbers", in a block of/);
    assert.ok(error.message.includes(`page ${page} of the heap`), error.message);
    assert.ok(error.message.includes(`as epoch ${whole + 1} stored it in the log`), error.message);
    assert.ok(error.message.includes(`restore({ epoch: ${whole} })`), error.message);
    const undo = flip(log, offset + 1234);
    {
      using heap = Heap.open({ file, size: 1 << 20, keep: 10 });
      // The later ones stored that page anew, but nothing says that their own was whole.
      const bad = expectCode(() => heap.restore({ epoch: whole + 1, verify: true }), "CORRUPT");
      assert.equal(bad.epoch, whole);
      assert.equal(bad.belongsTo, error.belongsTo);
      heap.restore({ epoch: bad.epoch!, verify: true });
      assert.deepEqual(new Set(heap.global("numbers", Float64Array, 4096)), new Set([whole]));
    }
    undo();
  }

  // Where a record itself cannot be read: its number, and the epoch before.
  const bytes = readFileSync(log);
  const header = bytes.indexOf("PERMrec1", records[2].at(-1)!.offset);
  assert.ok(header > 0);
  const error = damaged(log, header, () => Image.verify(file));
  assert.equal(error.epoch, 4);
  assert.match(
    error.message,
    /record 4 of its log, after epoch 4, is damaged; restore\(\{ epoch: 4 \}\)/,
  );
  const undo = flip(log, header + 1234);
  assert.equal(expectCode(() => Heap.open({ file, size: 1 << 20 }), "CORRUPT").epoch, 4);
  const made = mopen(folder.file("new"), "w+", 1 << 20);
  bopen(file, "r+");
  assert.equal(expectCode(() => restore({ verify: true }), "CORRUPT").epoch, 4);
  assert.equal(restore({ epoch: 4, verify: true }).epoch, 4);
  assert.deepEqual(new Set(made.global("numbers", Float64Array, 4096)), new Set([4]));
  mclose();
  undo();
});

test("where the tables that would tell are damaged as well, it says so", () => {
  using folder = new Folder();
  const file = folder.file("app");
  {
    using heap = Heap.open({ file, size: 4 << 20, keep: 5 });
    heap.root = heap.malloc(1 << 20);
    heap.bytes(heap.root, 1 << 20).set(pattern(1 << 20, 1));
    heap.flush();
    for (const page of [10, 20]) {
      heap.bytes(heap.root + page * 4096, 4096).fill(page);
      heap.flush();
    }
  }
  const log = logOf(file);
  const [first] = recordPages(log);
  const table = basePages(file).pages.find(({ page }) => page === 2)!;
  const { offset } = first.at(-1)!;
  const open = () => Heap.open({ file, size: 1 << 20 });
  // A page that opening copies, and so compares.
  assert.match(damaged(log, offset, open).belongsTo!, /^a block of 1048576 bytes at 0x/);
  const undo = flip(file, table.offset);
  const both = damaged(log, offset, open);
  assert.match(
    both.belongsTo!,
    /^something unknown: the allocator's tables, which would tell, are/,
  );
  assert.equal(both.epoch, 1);
  assert.match(expectCode(() => Image.verify(file), "CORRUPT").belongsTo!, /slice table/);
  undo();
});

test("verify reads what opening only maps, the last record too, and names the epoch before it", {
  timeout: 60_000,
}, () => {
  using folder = new Folder();
  const file = folder.file("app");
  const pages = 300;
  let at = 0;
  {
    // Every other epoch goes to this image, so that the one before is not the number before.
    using heap = Heap.open({ file: folder.file("map"), backup: file, size: 8 << 20, keep: 9 });
    heap.root = at = heap.alignedAlloc(4096, 5 * pages * 4096);
    heap.bytes(at, 5 * pages * 4096).set(pattern(5 * pages * 4096, 1));
    heap.backup();
    for (let step = 1; step <= 3; step++) {
      for (const how of ["flush", "backup"] as const) {
        // Long enough to be mapped, and sealed.
        heap.bytes(at + step * pages * 4096, pages * 4096).fill(step + (how === "flush" ? 100 : 0));
        heap[how]();
      }
    }
    assert.deepEqual(heap.backupImage!.epochs().map(({ epoch }) => epoch), [1, 3, 5, 7]);
  }
  const log = logOf(file);
  const records = recordPages(log);
  const { address, pages: stored } = basePages(file);
  const middle = (step: number) => (at - address) / 4096 + step * pages + pages / 2;
  const place = (list: Place[], page: number) => list.find((each) => each.page === page)!.offset;
  const places = [
    { path: file, offset: place(stored, middle(4)), step: 4, whole: undefined },
    { path: log, offset: place(records[0], middle(1)), step: 1, whole: 1 },
    { path: log, offset: place(records[1], middle(2)), step: 2, whole: 3 },
    { path: log, offset: place(records[2], middle(3)), step: 3, whole: 5 },
  ];
  for (const { path, offset, step, whole } of places) {
    const page = middle(step);
    const undo = flip(path, offset + 1234);
    const expectBad = (action: () => unknown) => {
      const error = expectCode(action, "CORRUPT", { address: address + page * 4096, path: file });
      assert.equal(error.epoch, whole);
      assert.ok(error.message.includes(`page ${page} of the heap`), error.message);
      const told = whole ? `restore({ epoch: ${whole} })` : "restore from a backup";
      assert.ok(error.message.includes(told), error.message);
    };
    expectBad(() => Image.verify(file));
    expectBad(() => Heap.open({ file, size: 1 << 20, verify: true }));
    expectBad(() => mopen(file, "r", undefined, { verify: true }));
    expectBad(() => Image.copy(file, folder.file("copy")));
    {
      // Nobody asked: the page comes in when it is touched, as it stands there.
      using heap = Heap.open({ file, size: 1 << 20, keep: 9 });
      assert.equal(heap.epoch, 7);
      expectBad(() => heap.restore({ verify: true }));
      assert.equal(heap.epoch, 7, "a restore that fails changes nothing");
      if (whole) {
        assert.equal(heap.restore({ epoch: whole, verify: true }).epoch, whole);
        assert.equal(
          heap.bytes(at + step * pages * 4096, 1)[0],
          pattern(5 * pages * 4096, 1)[step * pages * 4096],
        );
      } else for (const epoch of [1, 3, 5]) expectBad(() => heap.restore({ epoch, verify: true }));
    }
    undo();
  }
  assert.equal(Image.verify(file).epoch, 7);
});
