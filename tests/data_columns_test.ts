/**
 * Columns beside what the same fields read as by hand: every type, every container, batches of every
 * size, and what is refused.
 *
 * @module
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  array,
  bool,
  destroy,
  f32,
  f64,
  fixedText,
  HashMap,
  i16,
  i32,
  i64,
  i8,
  List,
  OrderedMap,
  ref,
  roots,
  struct,
  text,
  u16,
  u32,
  u53,
  u64,
  u8,
  Vec,
} from "../data/mod.ts";
import { Heap, mopen } from "../mod.ts";
import { expectCode, Folder, randomNumbers, Thread } from "./support.ts";

const Inner = struct("Inner", { flag: bool, deep: i16, name: fixedText(9) });
const Place = struct("Place", { x: f32, inner: Inner });
const Item = struct("Item", {
  u8,
  name: text,
  i16,
  u53,
  bool,
  i8,
  place: Place,
  f32,
  u64,
  u16,
  tag: fixedText(7),
  i64,
  u32,
  f64,
  i32,
  three: array(f64, 3),
  items: Vec(f64),
  get next() {
    return ref(Item);
  },
});
const typed = {
  u8: Uint8Array,
  i8: Int8Array,
  u16: Uint16Array,
  i16: Int16Array,
  u32: Uint32Array,
  i32: Int32Array,
  u53: Float64Array,
  u64: BigUint64Array,
  i64: BigInt64Array,
  f32: Float32Array,
  f64: Float64Array,
  bool: Uint8Array,
  "place.x": Float32Array,
  "place.inner.deep": Int16Array,
  "place.inner.flag": Uint8Array,
} as const;
const texts = ["name", "tag", "place.inner.name"] as const;
const names = [...Object.keys(typed) as (keyof typeof typed)[], ...texts];

const words = [
  "",
  "a",
  "fifteen letters",
  "sixteen letters!",
  "é",
  "日本語のテキストです",
  "🙂🙂",
  "\0",
];

function itemOf(i: number, random: (bound: number) => number) {
  const long = i % 7 === 0 ? "ü".repeat(i % 300) : "";
  return {
    u8: random(256),
    name: words[random(words.length)] + long,
    i16: random(65536) - 32768,
    u53: random(2) === 0 ? random(1000) : Number.MAX_SAFE_INTEGER - random(1000),
    bool: random(2) === 0,
    i8: random(256) - 128,
    place: { x: i / 4, inner: { flag: random(2) === 0, deep: -i % 1000, name: `ü${i % 1000}` } },
    f32: Math.fround(i / 3),
    u64: 2n ** 64n - 1n - BigInt(i),
    u16: random(65536),
    tag: i % 3 === 0 ? "" : `t${i}`,
    i64: -(2n ** 63n) + BigInt(i),
    u32: 2 ** 32 - 1 - i,
    f64: [NaN, -0, Infinity, Math.sqrt(i)][i % 4],
    i32: -(2 ** 31) + i,
    items: [i],
  };
}

type AnyItem = InstanceType<typeof Item>;

/** What the fields of that name read as, one after the other. */
function byHand(elements: Iterable<AnyItem>, name: string): unknown[] {
  const parts = name.split(".");
  return Array.from(elements, (element) => {
    // deno-lint-ignore no-explicit-any
    const value = parts.reduce((at: any, part) => at[part], element);
    return typeof value === "boolean" ? Number(value) : value;
  });
}

function containersOf(heap: Heap) {
  return {
    vec: new (Vec(Item))(heap),
    list: new (List(Item))(heap),
    hash: new (HashMap(u32, Item))(heap),
    texts: new (HashMap(text, Item))(heap),
    ordered: new (OrderedMap(f64, Item))(heap),
    words: new (OrderedMap(text, Item))(heap),
  };
}

test("columns are what the fields read as, of every type, in every container, of every length", () => {
  using heap = Heap.open({ size: 64 << 20 });
  const random = randomNumbers(11);
  for (const length of [0, 1, 127, 128, 129, 300]) {
    const { vec, list, hash, texts: byText, ordered, words } = containersOf(heap);
    for (let i = 0; i < length + 50; i++) {
      const item = itemOf(i, random);
      const key = random(1 << 30);
      vec.push(item);
      list.unshift(item);
      hash.set(key, item);
      byText.set(`key ${key}`, item);
      ordered.set(-key, item);
      words.set(`key ${key}`, item);
    }
    // Gaps, and keys that stand where others were.
    for (let i = 0; i < 50; i++) {
      vec.splice(random(vec.length), 1);
      list.delete(random(list.length));
      for (const map of [hash, byText, ordered, words]) {
        // deno-lint-ignore no-explicit-any
        (map as any).delete([...map.keys()][random(map.size)]);
      }
    }
    for (const container of [vec, list]) {
      const columns = container.columns(names);
      for (const name of names) assert.deepEqual([...columns[name]], byHand(container, name), name);
    }
    for (const container of [hash, byText, ordered, words]) {
      const columns = container.columns(names);
      for (const name of names) {
        assert.equal(columns[name].length, length);
        assert.deepEqual([...columns[name]], byHand(container.values(), name), name);
      }
      for (const [name, made] of Object.entries(typed)) {
        assert.equal(columns[name as keyof typeof typed].constructor, made, name);
      }
      for (const name of texts) assert.ok(Array.isArray(columns[name]));
    }
    for (const each of [vec, list, hash, byText, ordered, words]) destroy(each);
  }
});

test("a column is a copy that has its own memory", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const vec = new (Vec(Item))(heap, [{ f64: 1 }, { f64: 2 }]);
  const column: Float64Array = vec.column("f64");
  assert.equal(column.buffer.byteLength, 16);
  vec.get(0).f64 = 7;
  assert.deepEqual([...column], [1, 2]);
  column[1] = 9;
  assert.equal(vec.get(1).f64, 2);
});

test("batches have so many elements each, and arrays of their own unless they shall be reused", () => {
  using heap = Heap.open({ size: 64 << 20 });
  const random = randomNumbers(5);
  const map = new (HashMap(u32, Item))(heap);
  for (let i = 0; i < 5000; i++) map.set(i, itemOf(i, random));
  const wanted = ["f64", "u8", "name", "u53"] as const;
  const all = map.columns(wanted);
  for (const rows of [1, 100, 128, 4096, 5000, 9999]) {
    for (const reuse of [false, true]) {
      if (rows === 1 && reuse) continue;
      const kept: unknown[][] = wanted.map(() => []);
      const buffers = new Set();
      let count = 0;
      for (const batch of map.batches(wanted, { rows, reuse })) {
        assert.equal(batch.f64.length, Math.min(rows, 5000 - count));
        wanted.forEach((name, index) => kept[index].push(...batch[name]));
        buffers.add(batch.f64.buffer);
        count += batch.f64.length;
      }
      wanted.forEach((name, index) => assert.deepEqual(kept[index], [...all[name]], name));
      assert.equal(buffers.size, reuse ? 1 : Math.ceil(5000 / rows));
    }
  }
  const batches = map.batches(["f64"]);
  assert.equal(
    batches.next().value!.f64.length,
    4096,
    "4096 elements are a batch where nothing is said",
  );
  assert.deepEqual(batches.return!(), { done: true, value: undefined });
  assert.deepEqual(batches.next(), { done: true, value: undefined });
});

test("a batch ends with STALE when the container changes, columns when it is gone", () => {
  using folder = new Folder();
  const heap = Heap.open({ file: folder.file("a.perm"), size: 1 << 20 });
  for (const container of [Vec(Item), List(Item)]) {
    const elements = new container(heap, [{ u8: 1 }, { u8: 2 }, { u8: 3 }]);
    const batches = elements.batches(["u8"], { rows: 1 });
    assert.deepEqual([...batches.next().value!.u8], [1]);
    elements.push({ u8: 4 });
    expectCode(() => batches.next(), "STALE", { message: /changed/ });
    destroy(elements);
    expectCode(() => elements.column("u8"), "STALE");
    expectCode(() => batches.next(), "STALE");
  }
  for (const container of [HashMap(u32, Item), OrderedMap(u32, Item)]) {
    const map = new container(heap, [[1, { u8: 1 }], [2, { u8: 2 }]]);
    const batches = map.batches(["u8"], { rows: 1 });
    assert.deepEqual([...batches.next().value!.u8], [1]);
    map.set(3, {});
    expectCode(() => batches.next(), "STALE", { message: /changed/ });
  }
  const map = roots(heap).open("map", HashMap(u32, Item));
  map.set(1, { name: "one" });
  heap.flush();
  const before = map.batches(["name"], { rows: 1 });
  heap.restore();
  expectCode(() => map.column("name"), "STALE");
  expectCode(() => before.next(), "STALE");
  const again = roots(heap).get("map", HashMap(u32, Item))!;
  assert.deepEqual(again.column("name"), ["one"]);
  const open = again.batches(["name"]);
  heap.close();
  for (const use of [() => again.column("name"), () => again.columns(["u8"]), () => open.next()]) {
    expectCode(use, "STALE");
  }
});

test("fields that are no columns, and what is no field, are refused by name", () => {
  using heap = Heap.open({ size: 1 << 20 });
  // deno-lint-ignore no-explicit-any
  type Any = any;
  const items = new (Vec(Item))(heap, [{ u8: 1 }]);
  const map: Any = new (HashMap(u32, Item))(heap);
  const refuse = (
    action: () => unknown,
    code: "UNSUPPORTED" | "INVALID_ARGUMENT",
    message: RegExp,
  ) => expectCode(action, code, { message });
  // @ts-expect-error fields without a column are no names for the compiler either
  const typed = () => [items.column("three"), items.column("place"), items.column("nope")];
  refuse(typed, "UNSUPPORTED", /Item\.three.*array\(f64, 3\)/);
  for (const any of [items as Any, map]) {
    refuse(() => any.column("items"), "UNSUPPORTED", /Item\.items.*Vec\(f64\)/);
    refuse(() => any.column("next"), "UNSUPPORTED", /Item\.next.*ref\(Item\)/);
    refuse(() => any.column("place"), "UNSUPPORTED", /Item\.place.*Place/);
    refuse(() => any.columns(["u8", "place.inner"]), "UNSUPPORTED", /Item\.place\.inner/);
    for (
      const name of ["nope", "", ".", "u8.", ".u8", "u8.x", "place.nope", "place..x", "toString"]
    ) {
      refuse(
        () => any.column(name),
        "INVALID_ARGUMENT",
        /Cannot make a column of ".*no such field/,
      );
    }
    for (const name of [undefined, null, 1, Symbol("s"), {}, ["u8"]]) {
      refuse(() => any.column(name), "INVALID_ARGUMENT", /no such field/);
    }
    for (const names of [undefined, null, "u8", [], {}, 3]) {
      refuse(() => any.columns(names), "INVALID_ARGUMENT", /array of names/);
      refuse(() => any.batches(names), "INVALID_ARGUMENT", /array of names/);
    }
    for (const rows of [0, -1, 1.5, NaN, 2 ** 20 + 1, "10", null]) {
      refuse(() => any.batches(["u8"], { rows }), "INVALID_ARGUMENT", /rows/);
    }
    const wide = Array.from({ length: 600 }, () => "u64");
    refuse(() => any.batches(wide, { rows: 2 ** 20 }), "INVALID_ARGUMENT", /fewer rows/);
    refuse(() => any.batches(["u8"], { row: 3 }), "INVALID_ARGUMENT", /"?row"?/);
  }
  const plain: Any[] = [new (Vec(f64))(heap, [1]), new (List(text))(heap, ["a"])];
  plain.push(new (HashMap(u32, Vec(Item)))(heap), new (OrderedMap(u32, ref(Item)))(heap));
  for (const any of plain) refuse(() => any.column("u8"), "UNSUPPORTED", /no structs/);
  // Nothing of it changed anything.
  assert.deepEqual([...items.column("u8")], [1]);
  items.$check();
});

test("bytes that C wrote read as the fields do: a truth value of 7, a u53 that is too large", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const Small = struct("Small", { bool, big: u53, name: text });
  const vec = new (Vec(Small))(heap, [{ bool: true, big: 5 }, {}, { bool: true }]);
  heap.bytes(vec.get(0).ptr, 1)[0] = 7;
  assert.deepEqual([...vec.column("bool")], [1, 0, 1]);
  heap.dataView(vec.get(1).ptr + 8, 8).setBigUint64(0, 2n ** 53n, true);
  assert.throws(() => vec.get(1).big);
  expectCode(() => vec.column("big"), "INVALID_ARGUMENT", { message: /Small\.big.*u64/ });
  expectCode(() => [...vec.batches(["bool", "big"], { rows: 2 })], "INVALID_ARGUMENT");
  assert.deepEqual([...vec.column("bool")], [1, 0, 1]);
  heap.dataView(vec.get(1).ptr + 8, 8).setBigUint64(0, 2n ** 53n - 1n, true);
  assert.deepEqual([...vec.column("big")], [5, Number.MAX_SAFE_INTEGER, 0]);
  // A slot of text with a tag that none has.
  heap.bytes(vec.get(2).ptr + 16 + 15, 1)[0] = 99;
  expectCode(() => vec.column("name"), "CORRUPT");
  // A length that was overwritten must not become an array of it.
  heap.dataView(vec.ptr + 16, 8).setBigUint64(0, 2n ** 40n, true);
  expectCode(() => vec.column("bool"), "CORRUPT");
  expectCode(() => [...vec.batches(["bool"])], "CORRUPT");
});

test("a text is read whole wherever in it the first character beyond ASCII stands", () => {
  using heap = Heap.open({ size: 4 << 20 });
  const Line = struct("Line", { n: u8, text });
  const wanted: string[] = [];
  for (const length of [0, 1, 7, 8, 14, 15, 16, 17, 63, 64, 65, 127, 128, 129, 200]) {
    const ascii = Array.from({ length }, (_, i) => String.fromCharCode(33 + i % 90)).join("");
    wanted.push(ascii, `${ascii}\x7f`);
    for (let at = 0; at < length; at++) {
      for (const other of ["\x80", "ÿ", "€"]) {
        wanted.push(ascii.slice(0, at) + other + ascii.slice(at + 1));
      }
    }
  }
  const lines = new (Vec(Line))(heap, wanted.map((text) => ({ text })));
  assert.deepEqual(lines.column("text"), wanted);
  assert.deepEqual(lines.column("text"), byHand(lines as never, "text"));
});

test("a heap that is only read, a class that extends a struct, and a Worker have columns", async () => {
  using folder = new Folder();
  const file = folder.file("a.perm");
  class Point extends struct("Point", { x: f64, name: text }) {
    get twice() {
      return 2 * this.x;
    }
  }
  {
    using heap = Heap.open({ file, size: 4 << 20 });
    const points = roots(heap).open("points", HashMap(u32, Point));
    for (let i = 0; i < 1000; i++) points.set(i, { x: i, name: `é${i}` });
    heap.flush();
  }
  const wanted = Array.from({ length: 1000 }, (_, i) => i);
  {
    using heap = mopen(file, "r");
    const points = roots(heap).get("points", HashMap(u32, Point))!;
    const { x, name } = points.columns(["x", "name"]);
    assert.deepEqual([...x], wanted);
    assert.deepEqual(name, wanted.map((i) => `é${i}`));
  }
  using heap = Heap.open({ file, size: 4 << 20 });
  using thread = new Thread();
  const sum = await thread.run(async ({ state }, handle: string) => {
    const { f64, HashMap, roots, struct, text, u32 } = await import("../data/mod.ts");
    const { Heap } = await import("../mod.ts");
    const Point = struct("Point", { x: f64, name: text });
    const heap = state.heap = Heap.attach(handle);
    const { x, name } = roots(heap).get("points", HashMap(u32, Point))!.columns(["x", "name"]);
    heap.close();
    return x.reduce((a, b) => a + b) + name.length;
  }, heap.handle);
  assert.equal(sum, 999 * 500 + 1000);
});

test("values beyond the first pane of a heap are found as well", () => {
  using heap = Heap.open({ size: 4 * 2 ** 30, maxSize: 4 * 2 ** 30 });
  const map = new (HashMap(u32, Item))(heap);
  const fill = (from: number, to: number) => {
    for (let i = from; i < to; i++) map.set(i, { f64: i, name: `${i}: a long text`, tag: "x" });
  };
  fill(0, 100);
  // All that is left, untouched; then some of it at the other end.
  const blocks: number[] = [];
  for (const size of [2 ** 26, 2 ** 20, 2 ** 16]) {
    expectCode(() => {
      for (;;) blocks.push(heap.malloc(size));
    }, "OUT_OF_MEMORY");
  }
  const distant = map.get(0)!.ptr + 2 ** 31;
  for (const block of blocks) if (block > distant) heap.free(block);
  fill(100, 2000);
  assert.ok(map.get(1999)!.ptr > distant);
  const { f64: numbers, name, tag } = map.columns(["f64", "name", "tag"]);
  assert.deepEqual([...numbers], Array.from({ length: 2000 }, (_, i) => i));
  assert.deepEqual(name, byHand(map.values(), "name"));
  assert.ok(tag.every((each) => each === "x"));
});

test("names in an array that lies about itself are the ones that it gives", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const One = struct("One", { a: f64, b: f64 });
  const ones = new (Vec(One))(heap, [{ a: 1, b: 2 }]);
  class Lying extends Array<"a" | "b"> {
    override map(): never {
      const entry = { name: "a", code: 3, size: 8, array: Float64Array, label: "" };
      return Array.from({ length: 1e6 }, () => entry) as never;
    }
  }
  const names = new Lying();
  names.push("b");
  assert.deepEqual(ones.columns(names), { b: Float64Array.of(2) });
  heap.check();
});
