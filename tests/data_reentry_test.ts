/**
 * Values, indices and functions that change a container in the middle of a call on it: the call ends
 * with what it was asked for or an error, and what belongs to others stays as it is.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  array,
  f64,
  HashMap,
  leaks,
  List,
  Mutex,
  OrderedMap,
  roots,
  struct,
  Text,
  text,
  u32,
  Vec,
} from "../data/mod.ts";
import { Heap, PermError } from "../mod.ts";
import { expectCode, expectWell } from "./support.ts";

// deno-lint-ignore no-explicit-any
type Any = any;

const long = "a text that is too long for its slot";
const Item = struct("Item", { a: f64, name: text });

/** What becomes a number by running something. */
function late(value: number, action: () => void): Any {
  return {
    valueOf() {
      action();
      return value;
    },
  };
}

test("an index that becomes a number only when it is asked is refused before it can do anything", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const vec = new (Vec(f64))(heap, [1, 2, 3]);
  const story = new Text(heap, "once");
  let asked = 0;
  const index = (value: number) =>
    late(value, () => {
      asked++;
      vec.clear();
    });
  for (
    const action of [
      () => vec.fill(9, index(0)),
      () => vec.fill(9, 0, index(2)),
      () => vec.slice(index(0)),
      () => vec.splice(index(0), 1),
      () => vec.splice(0, index(1)),
      () => vec.indexOf(3, index(0)),
      () => vec.get(index(0)),
      () => vec.set(index(0), 1),
      () => story.slice(index(0)),
      () => story.splice(0, index(1), "x"),
    ]
  ) expectCode(action, "INVALID_ARGUMENT");
  assert.equal(asked, 0);
  for (const list of [vec, new (List(f64))(heap, [1, 2, 3])]) {
    assert.equal(list.at("1" as Any), undefined);
    assert.equal(list.at(late(-1, () => {})), undefined);
  }
  assert.deepEqual(vec.toArray(), [1, 2, 3]);
  assert.deepEqual(vec.splice(1, undefined), [2, 3]);
  assert.deepEqual(vec.splice(0, NaN), []);
  assert.deepEqual(vec.toArray(), [1]);
});

test("a value that changes its container while it is read and is then refused takes nothing else away", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const vec = new (Vec(Item))(heap, [{ a: 1, name: long }]);
  const list = new (List(Item))(heap, [{ a: 1, name: long }]);
  const map = new (HashMap(u32, Item))(heap, [[1, { a: 1, name: long }]]);
  const bad = (change: () => void): Any => ({
    get a() {
      change();
      return "no number";
    },
  });
  expectCode(() => vec.push(bad(() => vec.push({ a: 2, name: long }))), "INVALID_ARGUMENT");
  assert.ok(vec.some(({ a }) => a === 2), "what the getter added is still there");
  expectCode(() => vec.unshift({ a: 3 }, bad(() => vec.push({ a: 4 }))), "INVALID_ARGUMENT");
  assert.ok(vec.some(({ a }) => a === 4));
  const kept = new (Vec(text))(heap);
  expectCode(
    () =>
      list.push(bad(() => {
        list.clear();
        for (let i = 0; i < 20; i++) kept.push(long);
      })),
    "INVALID_ARGUMENT",
  );
  assert.equal(list.length, 0);
  assert.deepEqual(kept.toArray(), Array(20).fill(long));
  expectCode(() => map.set(2, bad(() => map.clear())), "INVALID_ARGUMENT");
  assert.equal(map.size, 0);
  expectWell(heap);
});

test("several values of which one changes the Vec: none is written elsewhere", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const vec = new (Vec(Item))(heap, [{ a: 1 }, { a: 2 }]);
  const other: { it?: InstanceType<ReturnType<typeof Vec<typeof f64>>> } = {};
  const takes = () => {
    vec.clear();
    other.it = new (Vec(f64))(heap, Array(40).fill(0.5));
  };
  let looks = 0;
  const value: Any = {
    get name() {
      if (++looks === 1) takes();
      return "";
    },
  };
  // All of them are read before the first has a place.
  assert.equal(vec.unshift(value, { a: 7 }, { a: 8 }), 3);
  assert.deepEqual(as(vec).map(({ a }: Any) => a), [0, 7, 8]);
  const { it } = other;
  assert.ok(it!.every((number) => number === 0.5), `${it!.toArray()}`);
  const filled = new (Vec(Item))(heap, [{ a: 1 }, { a: 2 }, { a: 3 }]);
  let seen = 0;
  filled.fill({
    get a() {
      if (++seen === 2) filled.length = 1;
      return 9;
    },
  } as Any);
  assert.equal(filled.length, 1);
  assert.equal(seen, 2);
  expectWell(heap);
});

test("functions that are called with elements may change, close and restore", () => {
  for (const end of ["clear", "close", "restore"] as const) {
    using heap = Heap.open({ size: 1 << 20 });
    const all = {
      vec: new (Vec(f64))(heap, [3, 1, 2]),
      list: new (List(f64))(heap, [3, 1, 2]),
      map: new (HashMap(u32, f64))(heap, [[1, 1], [2, 2]]),
      tree: new (OrderedMap(u32, f64))(heap, [[1, 1], [2, 2]]),
    };
    const finish: Any = (container: Any) => {
      if (end === "clear") container.clear();
      else if (end === "close") heap.close();
      else heap.restore();
      return 1;
    };
    const calls: [Any, (container: Any) => unknown][] = [
      [all.vec, (vec) => vec.sort(() => finish(vec))],
      [all.list, (list) => list.deleteWhere((_: number, i: number) => i === 2 && finish(list))],
      [all.list, (list) => list.deleteWhere(() => finish(list))],
      [all.vec, (vec) => vec.map(() => finish(vec))],
      [all.map, (map) => map.forEach(() => finish(map))],
      [all.tree, (tree) => tree.forEach(() => finish(tree))],
      [all.map, (map) => map.getOrSet(9, () => finish(map))],
    ];
    for (const [container, call] of calls) {
      try {
        call(container);
      } catch (error) {
        // Without an image a restore is NO_COMMIT or NOT_OPEN; an ended view says so in its own words.
        assert.ok(error instanceof PermError || error instanceof TypeError, `${error}`);
      }
      if (end === "clear") heap.check();
    }
  }
});

const Shelf = struct("Shelf", {
  vec: Vec(Item),
  list: List(Item),
  map: HashMap(text, Item),
  tree: OrderedMap(u32, Item),
  rows: Vec(Vec(f64)),
});

function item(a: number): { a: number; name: string } {
  return { a, name: `${long} ${a}` };
}

/** A shelf that is all of its heap's contents, so that what is lost is a leak. */
function fullShelf(heap: Heap): Any {
  const shelf: Any = roots(heap).open("shelf", Shelf);
  Shelf.assign(shelf, {
    vec: [1, 2, 3, 4].map(item),
    list: [1, 2, 3, 4].map(item),
    map: [1, 2, 3, 4].map((a): [string, Any] => [`${long} key ${a}`, item(a)]),
    tree: [1, 2, 3, 4].map((a): [number, Any] => [a, item(a)]),
    rows: [[1], [2, 2], [3, 3, 3]],
  });
  return shelf;
}

const as = (container: Any) => JSON.parse(JSON.stringify(container));

test("a container is given contents that are made of its own elements", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const shelf = fullShelf(heap);
  const walk = shelf.vec.values();
  walk.next();
  shelf.vec = shelf.vec.filter(({ a }: Any) => a !== 2);
  expectCode(() => walk.next(), "STALE");
  assert.deepEqual(as(shelf.vec), [1, 3, 4].map(item));
  shelf.list = shelf.list.toArray().reverse();
  assert.deepEqual(as(shelf.list), [4, 3, 2, 1].map(item));
  shelf.map = [...shelf.map].slice(2);
  assert.deepEqual([...shelf.map.values()].map(as), [3, 4].map(item));
  assert.equal(shelf.map.get(`${long} key 4`).a, 4);
  assert.equal(shelf.map.has(`${long} key 1`), false);
  for (let i = 0; i < 200; i++) assert.equal(shelf.tree.get(1).a, 1);
  shelf.tree = [...shelf.tree].map(([key, value]: Any) => [key + 1, { ...as(value), a: key }]);
  assert.deepEqual([...shelf.tree.keys()], [2, 3, 4, 5]);
  assert.equal(shelf.tree.get(1), undefined);
  assert.equal(shelf.tree.get(2).a, 1);
  shelf.rows = shelf.rows.slice(1).reverse();
  assert.deepEqual(as(shelf.rows), [[3, 3, 3], [2, 2]]);
  shelf.rows = shelf.rows.values();
  assert.deepEqual(as(shelf.rows), [[3, 3, 3], [2, 2]]);
  shelf.list = shelf.vec;
  assert.deepEqual(as(shelf.list), [1, 3, 4].map(item));
  shelf.vec = [];
  assert.deepEqual(as(shelf.vec), []);
  for (const name of ["vec", "list", "map", "tree", "rows"]) shelf[name].$check();
  assert.deepEqual(leaks(heap), []);
  expectWell(heap);
});

test("a container that is refused its new contents keeps those that it has", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const shelf = fullShelf(heap);
  const before = JSON.stringify(shelf);
  const { liveBlocks } = heap.stats();
  const fails = function* (values: Any[]) {
    yield* values;
    throw new RangeError("no more");
  };
  for (
    const action of [
      () => shelf.vec = [item(9), { a: "x" }],
      () => shelf.list = [item(9), { b: 1 }],
      () => shelf.map = [["key", item(9)], ["other", { a: "x" }]],
      () => shelf.map = [["key", item(9)], 5],
      () => shelf.tree = [[1, item(9)], [-1, item(9)]],
      () => shelf.rows = [[1, 2], [1, "x"]],
      () => Shelf.assign(shelf, { vec: [item(1), null] } as Any),
    ]
  ) expectCode(action, "INVALID_ARGUMENT");
  assert.throws(() => shelf.vec = fails([item(9)]), RangeError);
  assert.throws(() => shelf.list = fails([item(9)]), RangeError);
  assert.throws(() => shelf.tree = fails([[1, item(9)]]), RangeError);
  assert.equal(JSON.stringify(shelf), before);
  const empty: Any = new Shelf(heap);
  assert.throws(() => empty.vec = fails([item(9)]), RangeError);
  assert.throws(() => empty.map = fails([["key", item(9)]]), RangeError);
  assert.equal(JSON.stringify([empty.vec, empty.map]), "[[],[]]");
  assert.equal(heap.stats().liveBlocks, liveBlocks + 1);
  expectWell(heap);
});

test("elements of a Vec are added to it, and fields of a struct change places", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const vec: Any = new (Vec(Item))(heap, [1, 2, 3].map(item));
  vec.reserve(100);
  vec.unshift(vec.get(0));
  assert.deepEqual(as(vec), [1, 1, 2, 3].map(item));
  vec.splice(1, 1, vec.get(3), vec.get(2));
  assert.deepEqual(as(vec), [1, 3, 2, 2, 3].map(item));
  vec.push(...vec);
  vec.pushAll(vec);
  assert.deepEqual(as(vec), Array(4).fill([1, 3, 2, 2, 3]).flat().map(item));
  const rows: Any = new (Vec(Vec(f64)))(heap, [[1], [2, 2]]);
  rows.reserve(10);
  rows.unshift(rows.get(1));
  rows.get(0).push(7);
  assert.deepEqual(as(rows), [[2, 2, 7], [1], [2, 2]]);
  expectCode(() => rows.unshift(vec.get(0)), "INVALID_ARGUMENT");
  // What an element owns is copied to where the Vec's elements stood before it grew.
  const Wide = struct("Wide", { numbers: Vec(f64), last: text });
  for (let length = 7; length < 200; length += 7) {
    const wide = new (Vec(Wide))(heap, [{ numbers: Array(length).fill(1), last: long }]);
    for (let i = 0; i < 40; i++) wide.push(wide.get(0));
    assert.ok(wide.every(({ numbers, last }) => numbers.length === length && last === long));
  }

  const Pair = struct("Pair", { one: Item, two: Item, three: array(Item, 3), four: Vec(Item) });
  const pair: Any = new Pair(heap, { one: item(1), two: item(2), three: [3, 4, 5].map(item) });
  Pair.assign(pair, { one: pair.two, two: pair.one });
  assert.deepEqual(as([pair.one, pair.two]), [2, 1].map(item));
  pair.three = pair.three.toArray().reverse();
  assert.deepEqual(as(pair.three), [5, 4, 3].map(item));
  const pairs: Any = new (List(Pair))(heap, [pair]);
  const [first] = pairs;
  pairs.set(0, { one: first.three.get(2), two: first.one, three: [first.two, first.one, item(0)] });
  assert.deepEqual(as([first.one, first.two]), [3, 2].map(item));
  expectWell(heap);
});

test("a method that is called on another kind of object changes nothing of it", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const vec: Any = new (Vec(f64))(heap, [1, 2, 3]);
  const list: Any = new (List(f64))(heap, [1, 2, 3]);
  const map: Any = new (HashMap(u32, f64))(heap, [[1, 1], [2, 2]]);
  const tree: Any = new (OrderedMap(u32, f64))(heap, [[1, 1], [2, 2]]);
  const story: Any = new Text(heap, "once");
  const one: Any = new Item(heap, item(1));
  const lock: Any = new Mutex(heap);
  const all = [vec, list, map, tree, story, one];
  const before = JSON.stringify(all);
  const calls: [Any, string, Any[]][] = [
    ...[vec, list, map, tree, story].map((of): [Any, string, Any[]] => [of, "clear", []]),
    [vec, "push", [9]],
    [vec, "reverse", []],
    [vec, "sort", []],
    [vec, "reserve", [100]],
    [list, "push", [9]],
    [list, "reverse", []],
    [list, "insert", [0, 9]],
    [map, "set", [7, 7]],
    [map, "delete", [1]],
    [story, "append", ["x"]],
    [story, "splice", [0, 1, ""]],
    [lock, "tryLock", []],
    [lock, "lock", [{ timeout: 0 }]],
  ];
  for (const [of, name, args] of calls) {
    for (const other of [...all, {}, null, 5, heap]) {
      // Those of a kind have their methods in common.
      if (of === other || new Set([of, other, map, tree]).size === 2) continue;
      if (name === "clear" && other !== one && all.includes(other)) continue;
      try {
        of[name].apply(other, args);
      } catch (error) {
        assert.ok(error instanceof PermError || error instanceof TypeError, `${name}: ${error}`);
      }
      assert.equal(JSON.stringify(all), before, `${of.constructor.name}.${name} on ${other}`);
    }
  }
  for (const container of all.slice(0, -1)) container.$check();
  expectWell(heap);
});
