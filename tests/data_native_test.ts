/**
 * What TypeScript writes is read in C and in Zig by the documented layout alone, value by value, and
 * what they change in place is read back. The programs are tests/native/containers.c and
 * tests/native/zig_program/src/containers.zig; neither asks the library for more than the first root.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { test } from "node:test";
import {
  array,
  bool,
  f32,
  f64,
  fixedText,
  HashMap,
  i16,
  i64,
  i8,
  leaks,
  List,
  OrderedMap,
  ref,
  roots,
  struct,
  Text,
  text,
  u16,
  u32,
  u53,
  u64,
  u8,
  Vec,
} from "../data/mod.ts";
import { Heap } from "../mod.ts";
import { compile, runIn, skipNative, zig } from "./native.ts";
import { repository, run } from "./runtimes.ts";
import { Folder, randomNumbers } from "./support.ts";

const Place = struct("Place", { x: f64, y: f64, z: f64 });
const Item = struct("Item", {
  id: u32,
  small: i8,
  ok: bool,
  big: u64,
  when: i64,
  far: u53,
  ratio: f32,
  at: Place,
  tag: fixedText(12),
  name: text,
  scores: array(i16, 5),
  get next() {
    return ref(Item);
  },
});
type Item = InstanceType<typeof Item>;
const Shelf = struct("Shelf", {
  items: Vec(Item),
  numbers: Vec(f64),
  names: List(text),
  byNumber: HashMap(u53, Item),
  byU64: HashMap(u64, u32),
  byI64: HashMap(i64, bool),
  byName: HashMap(text, Place),
  byWeight: OrderedMap(f64, u32),
  byTime: OrderedMap(i64, text),
  byWord: OrderedMap(text, u16),
  story: Text,
  first: ref(Item),
});

interface Model {
  items: Plain[];
  numbers: number[];
  names: string[];
  byNumber: Map<number, Plain>;
  byU64: Map<bigint, number>;
  byI64: Map<bigint, boolean>;
  byName: Map<string, { x: number; y: number; z: number }>;
  byWeight: Map<number, number>;
  byTime: Map<bigint, string>;
  byWord: Map<string, number>;
  story: string;
  first: Plain;
}

/** An item as JavaScript has it. */
interface Plain {
  id: number;
  small: number;
  ok: boolean;
  big: bigint;
  when: bigint;
  far: number;
  ratio: number;
  at: { x: number; y: number; z: number };
  tag: string;
  name: string;
  scores: number[];
  next: number;
}

function plain(i: number): Plain {
  return {
    id: 3 * i,
    small: i % 256 - 128,
    ok: i % 2 === 1,
    big: 0xfedc_ba98_7654_3210n + BigInt(i),
    when: -1_000_000_000_000_007n * BigInt(i),
    far: Number.MAX_SAFE_INTEGER - i,
    ratio: Math.fround(i / 3),
    at: { x: i / 7, y: -i, z: i * 1e300 },
    tag: "tag".repeat(i % 5),
    name: i % 3 === 0 ? `näme ${i}` : `a name of item ${i} with 🌍 in it`,
    scores: [i, 0 - i, 7, 32767, -32768],
    next: -1,
  };
}

const { MAX_SAFE_INTEGER: MAX } = Number;

/** Fills a heap, and a model of it; both come by the same steps, removals included. */
function write(heap: Heap): Model {
  const random = randomNumbers(5);
  const model: Model = {
    items: Array.from({ length: 100 }, (_, i) => plain(i)),
    numbers: [0, -0, 1.5, NaN, Infinity, -1e-310, MAX],
    names: Array.from({ length: 50 }, (_, i) => "é".repeat(i)),
    byNumber: new Map(),
    byU64: new Map(),
    byI64: new Map(),
    byName: new Map(),
    byWeight: new Map(),
    byTime: new Map(),
    byWord: new Map(),
    story: "Once upon a time, 🌍 was in a heap. ".repeat(1000),
    first: plain(99),
  };
  const given = ({ next: _, ...item }: Plain) => item;
  const shelf = roots(heap).open("shelf", Shelf);
  shelf.items.pushAll(model.items.map(given));
  const alone = new Item(heap, given(model.first));
  alone.next = shelf.items.get(5);
  shelf.first = alone;
  model.first.next = model.items[5].id;
  shelf.numbers.pushAll(model.numbers);
  shelf.names.push(...model.names);
  shelf.names.delete(20);
  model.names.splice(20, 1);

  /** Sets many keys of both, and deletes every third. */
  function both<K, V, W>(
    heap: { set(key: K, value: W): unknown; delete(key: K): boolean },
    model: Map<K, V>,
    entries: [K, V][],
    give: (value: V) => W,
  ): void {
    for (const [key, value] of entries) {
      heap.set(key, give(value));
      model.set(key, value);
    }
    for (const [i, [key]] of entries.entries()) {
      if (i % 3 === 2) assert.equal(heap.delete(key), model.delete(key));
    }
    for (const [key, value] of entries.slice(0, 10)) {
      heap.set(key, give(value));
      model.set(key, value);
    }
  }
  const same = <V>(value: V) => value;
  const many = (length: number) => Array.from({ length }, (_, i) => i);
  both(shelf.byNumber, model.byNumber, many(300).map((i) => [i, plain(i)]), given);
  both(shelf.byNumber, model.byNumber, [[MAX, plain(1)], [2 ** 40, plain(2)]], given);
  const u64Max = 2n ** 64n - 1n;
  both(shelf.byU64, model.byU64, many(2000).map((i) => [u64Max - BigInt(i) ** 5n, i]), same);
  both(shelf.byI64, model.byI64, many(99).map((i) => [-(BigInt(i) ** 9n), i % 2 === 0]), same);
  both(
    shelf.byName,
    model.byName,
    many(1000).map((i) => ["name " + `${i}`.padStart(i % 40, "-"), { x: i, y: -i, z: 1 / i }]),
    same,
  );
  both(
    shelf.byWeight,
    model.byWeight,
    many(9000).map((i) => [(random(2 ** 32) - 2 ** 31) / 2 ** random(40), i]),
    same,
  );
  both(shelf.byWeight, model.byWeight, [[-0.5, 1], [0, 2], [-Infinity, 3], [1e308, 4]], same);
  both(
    shelf.byTime,
    model.byTime,
    many(400).map((i) => [BigInt(random(2 ** 31)) ** 2n * (i % 2 ? 1n : -1n), `time no. ${i}`]),
    same,
  );
  both(
    shelf.byWord,
    model.byWord,
    many(1000).map((i) => [`word ${`${i}`.padStart(4, "0")}${i % 3 ? "" : " and some more"}`, i]),
    same,
  );
  shelf.story.set(model.story);
  shelf.story.insert(5, "here and there ");
  model.story = model.story.slice(0, 5) + "here and there " + model.story.slice(5);
  roots(heap).set("empty", new (HashMap(text, Vec(u8)))(heap));
  heap.flush();
  return model;
}

const bits = new DataView(new ArrayBuffer(8));

/** A float as the programs tell it. */
function hex(value: number): string {
  bits.setFloat64(0, value);
  return bits.getBigUint64(0).toString(16).padStart(16, "0");
}

/** FNV-1a, 64 bits. */
function fnv(text: string): string {
  let hash = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(text)) {
    hash = (hash ^ BigInt(byte)) * 0x100000001b3n % 2n ** 64n;
  }
  return hash.toString(16).padStart(16, "0");
}

function itemLine(what: string, item: Plain): string {
  const { x, y, z } = item.at;
  return [
    what,
    ...[item.id, item.small, Number(item.ok), item.big, item.when, item.far],
    ...[item.ratio, x, y, z].map(hex),
    ...[item.tag, item.name, ...item.scores, "next", item.next],
  ].join(" ");
}

const byNumber = ([a]: [number | bigint, unknown], [b]: [number | bigint, unknown]) =>
  a < b ? -1 : a > b ? 1 : 0;
const byBytes = ([a]: [string, unknown], [b]: [string, unknown]) =>
  Buffer.compare(Buffer.from(a), Buffer.from(b));

/** What the programs have to print. */
function told(model: Model, schemas: [string, string][]): string[] {
  return [
    ...schemas.flatMap(([name, schema]) => `root ${name} ${fnv(schema)} ${schema}`.split("\n")),
    ...model.items.map((item) => itemLine("item", item)),
    ...model.numbers.map((number) => `double ${hex(number)}`),
    ...model.names.map((name) => `listed ${name}`),
    ...Array.from(model.byNumber, ([key, item]) => `number ${key}:${itemLine("", item)}`),
    ...Array.from(model.byU64, ([key, value]) => `u64 ${key}: ${value}`),
    ...Array.from(model.byI64, ([key, value]) => `i64 ${key}: ${Number(value)}`),
    ...Array.from(
      model.byName,
      ([key, { x, y, z }]) => `name ${key} ${hex(x)} ${hex(y)} ${hex(z)}`,
    ),
    ...[...model.byWeight].sort(byNumber).map(([key, value]) => `weight ${hex(key)}: ${value}`),
    ...[...model.byTime].sort(byNumber).map(([key, value]) => `time ${key}: ${value}`),
    ...[...model.byWord].sort(byBytes).map(([key, value]) => `word ${key}: ${value}`),
    `story ${model.story.length} ${model.story}`,
    itemLine("first", model.first),
    "",
  ];
}

/** What the programs change. */
function change(model: Model, language: string): void {
  const before = model.items[5].id;
  for (const [i, item] of model.items.entries()) {
    if (i % 3 !== 0) continue;
    item.id += 1000;
    item.small = -5;
    item.ok = !item.ok;
    item.big ^= 1n << 63n;
    item.when = -item.when;
    item.at.y += 0.5;
    item.scores[4] = i;
    item.tag = "twelve bytes";
    item.name = i % 2 ? `by ${language}` : `written by a program in ${language}`;
  }
  assert.equal(model.items[5].id, before);
  model.numbers = model.numbers.map((number) => number * 2);
  model.names[model.names.length - 1] = "the last of all of them";
  model.byNumber.get(7)!.at.z = 7.25;
  model.byName.get("name 40")!.x = -12;
  model.byWeight.set(-0.5, 4242);
  model.byWord.set("word 0033 and some more", 33);
  model.first = {
    ...plain(0),
    id: 77,
    small: 0,
    big: 0n,
    far: 0,
    at: { x: 0, y: 0, z: 0 },
    name: `an object that ${language} made`,
    scores: [0, 0, 0, 0, 0],
    next: model.first.id,
  };
}

function read(item: Item): Plain {
  const { x, y, z } = item.at;
  const { id, small, ok, big, when, far, ratio, tag, name } = item;
  const next = item.next === null ? -1 : item.next.id;
  const at = { x, y, z };
  return { id, small, ok, big, when, far, ratio, at, tag, name, scores: [...item.scores], next };
}

/** What TypeScript reads, as the model has it. */
function readAll(heap: Heap): Model {
  const shelf = roots(heap).get("shelf", Shelf)!;
  return {
    items: Array.from(shelf.items, read),
    numbers: [...shelf.numbers],
    names: [...shelf.names],
    byNumber: new Map(Array.from(shelf.byNumber, ([key, item]) => [key, read(item)])),
    byU64: new Map(shelf.byU64),
    byI64: new Map(shelf.byI64),
    byName: new Map(Array.from(shelf.byName, ([key, { x, y, z }]) => [key, { x, y, z }])),
    byWeight: new Map(shelf.byWeight),
    byTime: new Map(shelf.byTime),
    byWord: new Map(shelf.byWord),
    story: String(shelf.story),
    first: read(shelf.first!),
  };
}

function makeC(folder: Folder): string {
  return compile(folder, "containers.c");
}

function makeZig(folder: Folder): string {
  const { code, err } = run([zig, "build", "containers", "--prefix", folder.path], {
    directory: `${repository}tests/native/zig_program`,
  });
  assert.equal(code, 0, err);
  return folder.file("bin/containers");
}

for (const [language, make] of [["C", makeC], ["Zig", makeZig]] as const) {
  test(
    `a program in ${language} reads every value of what TypeScript wrote, and changes it in place`,
    { skip: skipNative, timeout: 300_000 },
    () => {
      using folder = new Folder();
      const program = make(folder);
      const file = folder.file("shelf.heap");
      let model: Model;
      let schemas: [string, string][];
      {
        using heap = Heap.open({ file, size: 1 << 20 });
        model = write(heap);
        schemas = ["shelf", "empty"].map((name) => [name, roots(heap).layout(name)!]);
        assert.deepEqual(readAll(heap), model);
      }
      const expected = told(model, schemas);
      assert.ok(expected.length > 9_000);
      assert.deepEqual(runIn(folder, [program, "print", file]).split("\n"), expected);

      assert.equal(runIn(folder, [program, "change", file]), "");
      change(model, language);
      {
        using heap = Heap.open({ file, size: 1 << 20 });
        assert.equal(heap.epoch, 2);
        assert.deepEqual(readAll(heap), model);
        // What the program allocated and freed is in its place: nothing is lost, nothing damaged.
        assert.deepEqual(leaks(heap), []);
        heap.check();
        const shelf = roots(heap).get("shelf", Shelf)!;
        shelf.first!.name = "short";
        shelf.items.get(0).name = "short";
        shelf.byNumber.set(1000, { id: 5 });
        shelf.byWord.delete("word 0033 and some more");
        heap.check();
        assert.deepEqual(leaks(heap), []);
      }
      assert.deepEqual(runIn(folder, [program, "print", file]).split("\n"), told(model, schemas));
    },
  );
}
