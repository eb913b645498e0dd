/**
 * Values of several parts are written whole or not at all: structs, fixed arrays, and what stands in
 * containers. And values that are not what they say: arrays whose length lies, methods called on others.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import {
  array,
  bool,
  destroy,
  f64,
  fixedText,
  HashMap,
  leaks,
  List,
  OrderedMap,
  ref,
  roots,
  struct,
  text,
  u16,
  u32,
  u64,
  u8,
  Vec,
} from "../data/mod.ts";
import { Heap } from "../mod.ts";
import { expectCode, expectWell, Folder } from "./support.ts";

// deno-lint-ignore no-explicit-any
type Any = any;

const long = (what: string) => `${what}, a text that is too long for its slot`;
const Flat = struct("Flat", { a: f64, b: u8, c: u32, big: u64, tag: fixedText(5), on: bool });
const Rich = struct("Rich", { a: f64, name: text, words: Vec(text), last: u8 });
const flat = (a: number) => ({ a, b: a, c: a, big: BigInt(a), tag: `t${a}`, on: true });
const rich = (a: number) => ({ a, name: long(`name ${a}`), words: [long("one"), "two"], last: a });
const Shelf = struct("Shelf", {
  bytes: array(u8, 5),
  numbers: array(f64, 40),
  texts: array(text, 3),
  lists: array(Vec(u16), 2),
  grid: array(array(u32, 2), 2),
  flats: array(Flat, 2),
  riches: array(Rich, 2),
  flat: Flat,
  rich: Rich,
  get refs() {
    return array(ref(Shelf), 2);
  },
  get first() {
    return Vec(Shelf);
  },
});

const Labels = struct("Labels", { on: bool, names: array(text, 2), label: text });

function fill(heap: Heap) {
  const shelf: Any = new Shelf(heap, {
    bytes: [1, 2, 3, 4, 5],
    numbers: Array.from({ length: 40 }, (_, i) => i / 2),
    texts: ["a", long("b"), ""],
    lists: [[1, 2, 3], []],
    grid: [[1, 2], [3, 4]],
    flats: [flat(1), flat(2)],
    riches: [rich(1), rich(2)],
    flat: flat(3),
    rich: rich(3),
  } as Any);
  shelf.refs = [shelf, null];
  const types = { vec: Vec, list: List };
  const flats: Any = {};
  const riches: Any = {};
  for (const [name, type] of Object.entries(types)) {
    flats[name] = new ((type as typeof Vec)(Flat))(heap, [flat(1), flat(2)]);
    riches[name] = new ((type as typeof Vec)(Rich))(heap, [rich(1), rich(2)]);
  }
  flats.hash = new (HashMap(u32, Flat))(heap, [[1, flat(1)]]);
  flats.ordered = new (OrderedMap(text, Flat))(heap, [["1", flat(1)]]);
  riches.hash = new (HashMap(text, Rich))(heap, [["1", rich(1)]]);
  riches.ordered = new (OrderedMap(u32, Rich))(heap, [[1, rich(1)]]);
  const table = roots(heap);
  table.set("shelf", shelf);
  for (const [kind, all] of Object.entries({ flats, riches })) {
    for (const [name, each] of Object.entries(all)) table.set(`${kind} ${name}`, each as Any);
  }
  return { shelf, flats, riches };
}

test("a value of which one part is refused leaves all that stood there", () => {
  using heap = Heap.open({ size: 1 << 20 });
  using other = Heap.open({ size: 1 << 20 });
  const { shelf, flats, riches } = fill(heap);
  const far: Any = new Shelf(other);
  const state = () => JSON.stringify([shelf, flats, riches, heap.stats().liveBlocks]);
  const before = state();
  const boom = new Error("boom");
  const badFlat = { ...flat(9), on: 5 };
  const badRich = { ...rich(9), last: 300 };
  const thrower = (value: object, name: string) =>
    Object.defineProperty({ ...value }, name, {
      enumerable: true,
      get() {
        throw boom;
      },
    });
  const refused: (() => unknown)[] = [
    () => shelf.bytes = [9, 9, 9, 9, 300],
    () => shelf.bytes = [9, 9, 9, 9],
    () => shelf.numbers = Array.from({ length: 40 }, (_, i) => i === 39 ? "x" : 9),
    () => shelf.texts = [long("c"), "d", 5],
    () => shelf.texts = ["d", long("c"), "\ud800"],
    () => shelf.lists = [[7], [8, 70_000]],
    () => shelf.lists = [[7], 5],
    () => shelf.grid = [[9, 9], [9, -1]],
    () => shelf.grid = [[9, 9], [9]],
    () => shelf.flats = [flat(9), badFlat],
    () => shelf.riches = [rich(9), badRich],
    () => shelf.refs = [null, far],
    () => shelf.flats.set(0, badFlat),
    () => shelf.riches.set(1, badRich),
    () => shelf.flat = badFlat,
    () => shelf.flat = { ...flat(9), extra: 1 },
    () => shelf.flat = { a: 9, extra: 1 },
    () => shelf.flat = { on: 5, a: 9 },
    () => shelf.rich = badRich,
    () => shelf.rich = { last: 9, a: 9, name: long("x"), words: [long("y"), 5] },
    () => Flat.assign(shelf.flat, { a: 9, on: 5 } as Any),
    () => Flat.assign(shelf.flat, { a: 9, extra: 5 } as Any),
    () => Rich.assign(shelf.rich, { name: long("x"), words: ["y"], last: 300 }),
    () => Rich.assign(shelf.rich, { words: [], name: 5 } as Any),
    () => Shelf.assign(shelf, { bytes: [9, 9, 9, 9, 9], texts: ["x", "y", 5] } as Any),
    ...Object.keys(flats).flatMap((name) => [
      () => flats[name].set(name === "ordered" ? "1" : 1, badFlat),
      () => flats[name].set(name === "ordered" ? "1" : 1, { a: 9, b: "x" }),
    ]),
    ...Object.keys(riches).flatMap((name) => [
      () => riches[name].set(name === "hash" ? "1" : 1, badRich),
      () => riches[name].set(name === "hash" ? "1" : 1, { name: long("x"), words: 5 }),
    ]),
  ];
  for (const action of refused) {
    expectCode(action, "INVALID_ARGUMENT");
    assert.equal(state(), before, `${action}`);
  }
  const labels: Any = new Labels(heap, { names: ["a", long("b")], label: long("c") });
  const labelled = () => JSON.stringify([labels, heap.stats().liveBlocks]);
  const stood = labelled();
  for (
    const action of [
      () => Labels.assign(labels, { names: [long("x"), "y"], label: 5 } as Any),
      () => Labels.assign(labels, { label: long("x"), names: [long("x"), 5] } as Any),
      () => labels.names = [long("x"), 5],
    ]
  ) {
    expectCode(action, "INVALID_ARGUMENT");
    assert.equal(labelled(), stood, `${action}`);
  }
  Labels.assign(labels, { names: [long("x"), long("y")] });
  Labels.assign(labels, { label: "short" });
  assert.deepEqual(labels.toJSON(), { on: false, names: [long("x"), long("y")], label: "short" });
  destroy(labels);
  assert.equal(state(), before);
  const failing: (() => unknown)[] = [
    () => shelf.flat = thrower(flat(9), "on"),
    () => shelf.rich = thrower(rich(9), "last"),
    () => shelf.flats = [flat(9), thrower(flat(9), "on")],
    () => shelf.riches = [rich(9), thrower(rich(9), "last")],
    () => shelf.texts = thrower(["x", long("y"), ""], "2"),
    () => Rich.assign(shelf.rich, thrower(rich(9), "last") as Any),
    () => riches.vec.set(0, thrower(rich(9), "last")),
    () => flats.hash.set(1, thrower(flat(9), "on")),
  ];
  for (const action of failing) {
    try {
      action();
      assert.fail(`${action}`);
    } catch (error) {
      // An object with a getter may be no array, which is refused.
      if (error !== boom) assert.match(String(error), /an array of 3 values/);
    }
    assert.equal(state(), before, `${action}`);
  }
  expectWell(heap);
  assert.deepEqual(leaks(heap), []);
});

test("what is written whole is there, and what it replaces is freed", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const { shelf, flats, riches } = fill(heap);
  const before = JSON.stringify([shelf, flats, riches]);
  const { liveBlocks } = heap.stats();
  const kept = JSON.parse(JSON.stringify({ ...shelf.toJSON(), refs: 0, first: [] }));
  shelf.bytes = Uint8Array.of(5, 4, 3, 2, 1);
  shelf.numbers = new Float64Array(40);
  shelf.texts = [long("x"), "", "y"];
  shelf.lists = [[], [1, 2]];
  shelf.grid = [[5, 6], [7, 8]];
  shelf.riches = [rich(5), {}];
  shelf.flat = { a: 7 };
  shelf.rich = { a: 7 };
  Rich.assign(shelf.rich, { last: 8, words: ["w"] });
  assert.deepEqual(shelf.toJSON().bytes, [5, 4, 3, 2, 1]);
  assert.deepEqual(shelf.numbers.toArray(), Array(40).fill(0));
  assert.deepEqual(shelf.texts.toArray(), [long("x"), "", "y"]);
  assert.deepEqual(shelf.lists.toJSON(), [[], [1, 2]]);
  assert.deepEqual(shelf.grid.toJSON(), [[5, 6], [7, 8]]);
  assert.deepEqual(shelf.flat.toJSON(), { a: 7, b: 0, c: 0, big: "0", tag: "", on: false });
  assert.deepEqual(shelf.rich.toJSON(), { a: 7, name: "", words: ["w"], last: 8 });
  assert.deepEqual(shelf.riches.get(1).toJSON(), { a: 0, name: "", words: [], last: 0 });
  expectWell(heap);
  assert.deepEqual(leaks(heap), []);
  for (const name of ["bytes", "numbers", "texts", "lists", "grid", "riches", "rich"]) {
    shelf[name] = kept[name];
  }
  shelf.flat = flat(3);
  assert.equal(JSON.stringify([shelf, flats, riches]), before);
  assert.equal(heap.stats().liveBlocks, liveBlocks);
});

test("a struct is given a part of itself, and parts change places", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const Tree: Any = struct("Tree", {
    get children() {
      return Vec(Tree as Any);
    },
    name: text,
    numbers: array(u8, 2),
  });
  const tree = new Tree(heap, {
    name: long("root"),
    children: [{
      name: long("child"),
      numbers: [1, 2],
      children: [{ name: long("grandchild") }],
    }],
  });
  roots(heap).set("tree", tree);
  // What is given is in what is replaced, and freed with it.
  const all = new (Vec(Tree) as Any)(heap, [tree]);
  all.set(0, all.get(0).children.get(0));
  assert.deepEqual(all.get(0).toJSON(), {
    children: [{ children: [], name: long("grandchild"), numbers: [0, 0] }],
    name: long("child"),
    numbers: [1, 2],
  });
  roots(heap).set("all", all);
  const { shelf } = fill(heap);
  shelf.riches = [shelf.riches.get(1), shelf.riches.get(0)];
  shelf.texts = [shelf.texts.get(1), shelf.texts.get(0), "new"];
  shelf.lists = [shelf.lists.get(1), shelf.lists.get(0)];
  shelf.grid = [shelf.grid.get(1), shelf.grid.get(0)];
  Shelf.assign(shelf, { flat: shelf.flats.get(0), flats: [shelf.flat, shelf.flats.get(1)] });
  assert.deepEqual(shelf.riches.toJSON(), [rich(2), rich(1)]);
  assert.deepEqual(shelf.texts.toArray(), [long("b"), "a", "new"]);
  assert.deepEqual(shelf.lists.toJSON(), [[], [1, 2, 3]]);
  assert.deepEqual(shelf.grid.toJSON(), [[3, 4], [1, 2]]);
  assert.equal(shelf.flat.a, 1);
  assert.deepEqual(shelf.flats.toArray().map((each: Any) => each.a), [3, 2]);
  expectWell(heap);
  assert.deepEqual(leaks(heap), []);
});

test("values that are read by functions which write others of their kind do not mix", () => {
  using heap = Heap.open({ size: 1 << 20 });
  using other = Heap.open({ size: 1 << 20 });
  const Named = struct("Named", { a: f64, b: u8, name: text });
  for (const type of [Flat, Named] as Any[]) {
    const all: Any = new (Vec(type))(heap, [{ a: 1 }, { a: 2 }, { a: 3 }]);
    const far: Any = new (Vec(type))(other, [{}]);
    const value = (a: number) => type === Flat ? flat(a) : { a, b: a, name: long(`n${a}`) };
    const nested = {
      a: 10,
      get b() {
        all.set(1, value(20));
        far.set(0, value(30));
        all.set(2, { a: 40 });
        return 11;
      },
    };
    for (let round = 0; round < 3; round++) {
      all.set(0, nested);
      type.assign(all.get(0), { b: 12 });
      const [first, second, third] = all.toJSON();
      assert.deepEqual(first, { ...JSON.parse(JSON.stringify(new type(heap))), a: 10, b: 12 });
      assert.equal(second.a + second.b, 40);
      assert.deepEqual(third, { ...JSON.parse(JSON.stringify(new type(heap))), a: 40 });
      assert.equal(far.get(0).a, 30);
      if (type === Named) assert.equal(second.name, long("n20"));
    }
    all.clear();
  }
  expectWell(heap);
  expectWell(other);
});

test("a walk over a container in an array that is replaced ends with STALE", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const { shelf } = fill(heap);
  for (const lists of [[[4, 5, 6], [1]], [[], []]]) {
    shelf.lists = [[1, 2, 3], []];
    const walk = shelf.lists.get(0).values();
    assert.equal(walk.next().value, 1);
    shelf.lists = lists;
    expectCode(() => walk.next(), "STALE");
  }
});

test("a value that closes or restores its heap while it is read is not written", () => {
  const given: [string, string, () => object][] = [
    ["flat", "on", () => ({ a: 9 })],
    ["rich", "last", () => ({ a: 9, name: long("x") })],
    ["bytes", "4", () => ({ length: 5, 0: 9, 1: 9, 2: 9, 3: 9 })],
    ["texts", "2", () => ({ length: 3, 0: "x", 1: long("y") })],
  ];
  for (const [name, last, values] of given) {
    using folder = new Folder();
    const file = folder.file("heap");
    {
      using heap = Heap.open({ file, size: 1 << 20 });
      fill(heap);
      heap.flush();
    }
    for (const end of ["close", "restore"] as const) {
      using heap = Heap.open({ file, size: 1 << 20 });
      const open = () => roots(heap).get("shelf", Shelf) as Any;
      const before = JSON.stringify(open());
      const get = () => {
        heap[end]();
        return name === "texts" ? "z" : 1;
      };
      assert.throws(() => {
        open()[name] = Object.defineProperty(values(), last, { enumerable: true, get });
      });
      if (end === "close") continue;
      assert.equal(JSON.stringify(open()), before);
      expectWell(heap);
      assert.deepEqual(leaks(heap), []);
    }
  }
});

test("numbers of a typed array are added by its length, whatever its properties say", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const vec: Any = new (Vec(f64))(heap);
  for (const length of [1e6, 1, -1, NaN, 2 ** 53, "7", {}]) {
    const lying = Object.defineProperty(Float64Array.of(1, 2, 3), "length", { value: length });
    vec.clear();
    assert.equal(vec.pushAll(lying), 3, String(length));
    assert.deepEqual(vec.toArray(), [1, 2, 3]);
  }
  class Longer extends Float64Array {
    override get length(): Any {
      return 1e9;
    }
  }
  vec.clear();
  assert.equal(vec.pushAll(new Longer([4, 5])), 2);
  assert.deepEqual(vec.toArray(), [4, 5]);
  // What only looks like the right array goes one by one.
  const bytes: Any = new (Vec(u8))(heap);
  const false8 = Object.setPrototypeOf(Float64Array.of(1, 300), Uint8Array.prototype);
  expectCode(() => bytes.pushAll(false8), "INVALID_ARGUMENT", { message: /300/ });
  const bigs: Any = new (Vec(u64))(heap);
  const falseBig = Object.setPrototypeOf(Uint8Array.of(1), BigUint64Array.prototype);
  expectCode(() => bigs.pushAll(falseBig), "INVALID_ARGUMENT", { message: /1 in a Vec's element/ });
  assert.equal(bigs.length, 0);
  const nothing = Object.create(Float64Array.prototype);
  assert.throws(() => vec.pushAll(nothing));
  expectCode(() => vec.pushAll({ length: 4e9 }), "INVALID_ARGUMENT", { message: /undefined/ });
  assert.deepEqual(vec.toArray(), [4, 5]);
  const detached = Float64Array.of(1, 2);
  detached.buffer.transfer(0);
  assert.equal(vec.pushAll(detached), 2);
  expectWell(heap);
});

test("a struct's methods refuse what is no struct of their kind", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const { shelf, flats } = fill(heap);
  const inspected = Symbol.for("nodejs.util.inspect.custom");
  class Own extends Flat {}
  const own: Any = new Own(heap, flat(6));
  const { toJSON, [Symbol.iterator]: iterator, [inspected]: show } = (Flat as Any).prototype;
  for (const method of [toJSON, iterator, show]) {
    for (const each of [shelf.flat, own]) assert.ok(method.call(each, 2, {}, inspect));
    for (const each of [shelf, shelf.rich, shelf.bytes, flats.vec, flats.hash, {}, null, 5]) {
      expectCode(() => method.call(each, 2, {}, inspect), "INVALID_ARGUMENT", {
        message: /a Flat/,
      });
    }
  }
});

test("of a struct's texts none is written when the last is refused, and one that is left out is emptied", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const Two = struct("Two", { one: text, n: u8, two: text });
  const all: Any = new (Vec(Two))(heap, [{ one: long("a"), n: 1, two: long("b") }]);
  const state = () => JSON.stringify([all, heap.stats().liveBlocks]);
  const before = state();
  const two = "\ud800";
  expectCode(() => all.set(0, { one: long("x"), n: 2, two }), "INVALID_ARGUMENT");
  expectCode(() => Two.assign(all.get(0), { two, one: long("x") }), "INVALID_ARGUMENT");
  assert.equal(state(), before);
  all.set(0, { two: long("c") });
  assert.deepEqual(all.toJSON(), [{ one: "", n: 0, two: long("c") }]);
  roots(heap).set("all", all);
  assert.deepEqual(leaks(heap), []);
});

test("a struct of bytes alone that is read while another of its kind is keeps nothing of it", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const Pair = struct("Pair", { x: f64, y: u8, tag: fixedText(5), flat: Flat, z: u32 });
  const inner = { x: 7, y: 7, tag: "inner", flat: flat(7), z: 7 };
  const all: Any = new (Vec(Pair))(heap, [inner]);
  const none = { a: 0, b: 0, c: 0, big: "0", tag: "", on: false };
  const plain = (a: number) => ({ ...flat(a), big: String(a) });
  for (let round = 0; round < 200; round++) {
    const outer = {
      x: round,
      get y() {
        all.push(inner);
        return 2;
      },
      z: 3,
      // What is undefined is left out.
      tag: undefined,
      flat: round % 2 === 0 ? undefined : flat(1),
    };
    all.set(0, outer);
    const expected = { x: round, y: 2, tag: "", flat: round % 2 === 0 ? none : plain(1), z: 3 };
    assert.deepEqual(all.get(0).toJSON(), expected);
    assert.deepEqual(all.pop(), inner);
    Pair.assign(all.get(0), { z: 4, x: undefined, y: 5 });
    assert.deepEqual(all.get(0).toJSON(), { ...expected, y: 5, z: 4 });
    Pair.assign(all.get(0), inner);
    assert.deepEqual(all.get(0).toJSON(), { ...inner, flat: plain(7) });
    if (round > 100) assert.throws(() => all.set(0, { ...inner, z: -1 }), /Pair.z/);
  }
  assert.equal(all.length, 1);
  const both = Array.from({ length: 130 }, (_, i) => ({ x: i, flat: flat(i % 200) }));
  all.splice(0, 1, ...both);
  all.forEach((each: Any, i: number) => {
    assert.deepEqual(each.toJSON(), { x: i, y: 0, tag: "", flat: plain(i), z: 0 });
  });
});

test("an array of texts tells which of them is refused, and keeps those that it has", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const Words = struct("Words", { words: array(text, 3) });
  const words = new Words(heap, { words: ["a", long("b"), "c"] });
  for (let round = 0; round < 3; round++) {
    expectCode(() => words.words = [long("x"), "y", "\ud800"] as Any, "INVALID_ARGUMENT", {
      message: /Words\.words\[2\]/,
    });
    expectCode(() => words.words = ["x", 5, "z"] as Any, "INVALID_ARGUMENT", {
      message: /Words\.words\[1\]/,
    });
    assert.deepEqual([...words.words], ["a", long("b"), "c"]);
  }
  words.words = ["", long("d"), "\u00e9"] as Any;
  assert.deepEqual([...words.words], ["", long("d"), "\u00e9"]);
});
