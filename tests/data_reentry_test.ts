/**
 * Values, indices and functions that change a container in the middle of a call on it: the call ends
 * with what it was asked for or an error, and what belongs to others stays as it is.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { f64, HashMap, List, OrderedMap, struct, Text, text, u32, Vec } from "../data/mod.ts";
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

test("several values of which one changes the Vec: the others are not written elsewhere", () => {
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
  expectCode(() => vec.unshift(value, { a: 7 }, { a: 8 }), "STALE");
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
