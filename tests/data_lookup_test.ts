/**
 * HashMaps with number keys, which TypeScript looks up by itself once a map has been asked a few times
 * without a change: the same answers as by native code, whatever happens to the map and its heap.
 *
 * @module
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Heap } from "../mod.ts";
import {
  array,
  destroy,
  f64,
  HashMap,
  i16,
  i32,
  i64,
  i8,
  List,
  OrderedMap,
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
import { Lookup } from "../data/lookup.ts";
import { command, repository, run, thisRuntime } from "./runtimes.ts";
import { expectCode, Folder, randomNumbers } from "./support.ts";

// deno-lint-ignore no-explicit-any
type Any = any;

const Item = struct("Item", { a: f64, name: text });

Lookup.patience = 1;

/** Asks until the map is known to TypeScript, if it can be. */
function warm(map: Any, key: unknown): void {
  for (let i = 0; i < 12; i++) map.get(key);
}

/** What TypeScript alone says: -1 when it has to ask. */
function alone(map: Any, key: unknown): number {
  return map.$of.lookup.find(map, key);
}

const big = (n: number) => BigInt(n);
const kinds: [string, Any, Any[]][] = [
  ["u8", u8, [0, 1, 127, 128, 255]],
  ["u16", u16, [0, 255, 256, 65535]],
  ["u32", u32, [0, 1, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1]],
  ["i8", i8, [-128, -1, 0, 127]],
  ["i16", i16, [-32768, -1, 0, 32767]],
  ["i32", i32, [-(2 ** 31), -1, 0, 2 ** 31 - 1]],
  ["u53", u53, [0, 2 ** 32, 2 ** 52 + 1, 2 ** 53 - 1]],
  ["f64", f64, [0, 0.1, -0.1, NaN, Infinity, -Infinity, 5e-324, 2 ** 53, Number.MAX_VALUE]],
  ["u64", u64, [0n, 1n, 2n ** 32n, 2n ** 53n + 1n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n]],
  ["i64", i64, [0n, -1n, 2n ** 32n, -(2n ** 32n), 2n ** 63n - 1n, -(2n ** 63n)]],
];

test("every type of numbers is found by TypeScript alone as by native code", () => {
  using heap = Heap.open({ size: 4 << 20 });
  for (const [name, type, edges] of kinds) {
    const isBig = typeof edges[0] === "bigint";
    const some = name === "u8" || name === "i8" ? 60 : 500;
    const keys = [
      ...edges,
      ...Array.from({ length: some }, (_, i) => isBig ? big(2 + 7 * i) : 2 + i),
    ];
    const map: Any = new (HashMap(type, u32))(heap);
    const there = new Map();
    keys.forEach((key, i) => {
      if (i % 3 === 2) return;
      map.set(key, i);
      there.set(key, i);
    });
    for (let round = 0; round < 2; round++) {
      for (const key of keys) {
        assert.equal(map.get(key), there.get(key), `${name} ${key}`);
        assert.equal(map.has(key), there.has(key), `${name} ${key}`);
      }
      for (const key of keys.slice(0, 3)) {
        const isPlain = key === key;
        if (isPlain) assert.ok(alone(map, key) >= 0, `${name}: ${key} is asked of native code`);
      }
      // The second round is that of a map with holes in its index.
      for (const key of [...there.keys()].slice(1, 40)) {
        assert.equal(map.delete(key), there.delete(key));
      }
      warm(map, keys[0]);
    }
  }
});

test("0 and -0 are one key, and so are all NaN", () => {
  using heap = Heap.open({ size: 1 << 20 });
  for (const type of [f64, i32, u32, u53] as Any[]) {
    const map: Any = new (HashMap(type, u8))(heap, [[-0, 1], [5, 2]]);
    warm(map, 5);
    assert.equal(map.get(0), 1);
    assert.equal(map.get(-0), 1);
    assert.equal(map.has(-0), true);
  }
  const map = new (HashMap(f64, u8))(heap, [[NaN, 1], [5, 2]]);
  warm(map, 5);
  assert.equal(map.get(NaN), 1);
  // One with other bits, where the engine keeps them.
  const [odd] = new Float64Array(new BigUint64Array([0xfff8_0000_0000_0001n]).buffer);
  assert.equal(map.get(odd), 1);
});

test("what no key can be is refused by a map that is known, too", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const wrong: [Any, Any[]][] = [
    [u8, [-1, 256, 1.5, NaN, Infinity, "1", 1n, null, undefined]],
    [f64, ["1", 1n, null]],
    [u64, [-1n, 2n ** 64n, 2n ** 64n + 5n, 5, "5"]],
    [i64, [2n ** 63n, -(2n ** 63n) - 1n, 2n ** 64n + 5n, 5]],
  ];
  for (const [type, keys] of wrong) {
    const five: Any = type.key === "number" ? 5 : 5n;
    const map: Any = new (HashMap(type, u8))(heap, [[five, 1]]);
    warm(map, five);
    assert.ok(alone(map, five) > 0);
    for (const key of keys) {
      expectCode(() => map.get(key), "INVALID_ARGUMENT");
      expectCode(() => map.has(key), "INVALID_ARGUMENT");
    }
    assert.equal(map.get(five), 1);
  }
});

test("a map whose heap grew since its handle was made is known, too", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const map = new (HashMap(u32, Item))(heap);
  for (let i = 0; i < 60_000; i++) map.set(i * 17, { a: i, name: `item ${i}` });
  warm(map, 17);
  for (let i = 1; i < 60_000; i += 501) {
    assert.ok(alone(map, i * 17) > 0, "it is asked of native code");
    const item = map.get(i * 17)!;
    assert.equal(item.a, i);
    assert.equal(item.name, `item ${i}`);
    item.a = -i;
    assert.equal(alone(map, i * 17 + 1), 0);
    assert.equal(map.get(i * 17)!.a, -i);
  }
  const other = HashMap(u32, Item).at(heap, map.ptr);
  for (let i = 1; i < 60_000; i += 501) assert.equal(other.get(i * 17)!.ptr, map.get(i * 17)!.ptr);
});

test("maps of one type and handles of one map take turns", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const Pair = struct("Pair", { left: HashMap(u32, u32), right: HashMap(u32, u32) });
  const pair = new Pair(heap);
  for (let i = 0; i < 100; i++) {
    pair.left.set(i, i);
    pair.right.set(i, 1000 + i);
  }
  const { left, right } = pair;
  const [one, other] = [new (HashMap(u32, u32))(heap), new (HashMap(u32, u32))(heap)];
  one.set(5, 1);
  for (const runs of [1, 3, 12]) {
    for (let turn = 0; turn < 6; turn++) {
      for (let i = 0; i < runs; i++) {
        assert.equal(left.get(i), i);
        assert.equal(pair.left.get(i), i);
      }
      for (let i = 0; i < runs; i++) assert.equal(right.get(i), 1000 + i);
      for (let i = 0; i < runs; i++) assert.equal(one.get(5), 1);
      for (let i = 0; i < runs; i++) assert.equal(other.get(5), undefined);
    }
  }
});

test("every change is seen by the next lookup", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const random = randomNumbers(7);
  const map = new (HashMap(u32, u32))(heap);
  const model = new Map<number, number>();
  for (let step = 0; step < 3000; step++) {
    const key = random(300);
    const dice = random(20);
    if (dice === 0) {
      map.set(key, step);
      model.set(key, step);
    } else if (dice === 1) assert.equal(map.delete(key), model.delete(key));
    else if (dice === 2 && random(100) === 0) {
      map.clear();
      model.clear();
    } else {
      for (let i = 0; i < 10; i++) {
        const asked = random(300);
        assert.equal(map.get(asked), model.get(asked));
        assert.equal(map.has(asked), model.has(asked));
      }
    }
  }
});

test("a known map that was destroyed, restored or closed throws, and shows nothing of before", () => {
  using folder = new Folder();
  const heap = Heap.open({ file: folder.file("a.perm"), size: 1 << 20 });
  const Type = HashMap(u32, u32);
  const kept = roots(heap).open("map", Type);
  kept.set(1, 1);
  heap.flush();
  const gone = new Type(heap, [[5, 5]]);
  warm(gone, 5);
  destroy(gone);
  assert.throws(() => gone.get(5));
  assert.throws(() => gone.has(5));
  // The same count of changes on both sides of the restore, and other contents.
  kept.set(2, 22);
  warm(kept, 2);
  assert.ok(alone(kept, 2) > 0);
  heap.restore();
  assert.throws(() => kept.get(2), /detached|closed|restored|destroyed/i);
  assert.throws(() => kept.get("2" as Any));
  const again = roots(heap).get("map", Type)!;
  again.set(3, 33);
  warm(again, 3);
  assert.equal(again.get(2), undefined);
  assert.equal(again.get(3), 33);
  const texts = new (HashMap(text, u32))(heap, [["a", 1]]);
  assert.equal(texts.get("a"), 1);
  heap.close();
  assert.throws(() => again.get(3));
  assert.throws(() => again.has(3));
  assert.throws(() => texts.get("a"));
});

test("an index without an end, and one that leads anywhere, is a wrong answer or an error", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const random = randomNumbers(3);
  for (const fill of [() => 1, () => 0xffffffff, () => random(2 ** 32), () => 2 + random(8)]) {
    const map: Any = new (HashMap(u32, u32))(heap);
    for (let i = 0; i < 50; i++) map.set(i, i);
    warm(map, 1);
    assert.ok(alone(map, 1) > 0);
    const index = heap.view(Uint32Array, heap.load(map.ptr + 16), 128);
    for (let i = 0; i < index.length; i++) index[i] = fill();
    for (let key = 0; key < 200; key++) {
      try {
        const value = map.get(key);
        assert.ok(value === undefined || typeof value === "number");
      } catch (error) {
        assert.ok(error instanceof Error);
      }
    }
  }
});

test("a value that is written over itself stays what it is", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const Bag = struct("Bag", { id: u32, list: Vec(u32), name: text });
  const bags = new (HashMap(u32, Bag))(heap, [[1, {
    id: 1,
    list: [1, 2, 3],
    name: "x".repeat(40),
  }]]);
  const lists = new (HashMap(u32, Vec(u32)))(heap, [[1, [1, 2, 3]]]);
  for (let i = 0; i < 12; i++) {
    bags.set(1, bags.get(1)!);
    lists.set(1, lists.get(1)!);
    warm(bags, 1);
    warm(lists, 1);
  }
  assert.deepEqual(bags.get(1)!.list.toArray(), [1, 2, 3]);
  assert.equal(bags.get(1)!.name, "x".repeat(40));
  assert.deepEqual(lists.get(1)!.toArray(), [1, 2, 3]);
});

test("text of every length is read as it was written, as a field and as a key", () => {
  using heap = Heap.open({ size: 4 << 20 });
  const item = new Item(heap);
  const map = new (HashMap(text, u32))(heap);
  const all: string[] = [];
  for (let length = 0; length < 70; length++) {
    const plain = "abcdefghij".repeat(7).slice(0, length);
    all.push(plain);
    for (const wide of ["é", "€", "😀"]) {
      for (const place of new Set([0, length >> 1, Math.max(0, length - 1)])) {
        all.push(plain.slice(0, place) + wide + plain.slice(place + 1));
      }
    }
  }
  const texts = [...new Set(all)];
  texts.forEach((value, i) => {
    item.name = value;
    assert.equal(item.name, value);
    map.set(value, i);
  });
  texts.forEach((value, i) => assert.equal(map.get(value), i, value));
  assert.deepEqual([...map.keys()], texts);
  for (const length of [5, 17, 20, 47, 60]) {
    expectCode(() => item.name = "x".repeat(length) + "\udc00", "INVALID_ARGUMENT");
    expectCode(() => map.get("\ud800" + "x".repeat(length)), "INVALID_ARGUMENT");
  }
});

test("an iterator that has come to its end says so again and again, with nothing", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const Row = struct("Row", { all: array(u32, 2) });
  const end = { done: true, value: undefined };
  const map = new (HashMap(u32, u32))(heap, [[1, 2]]);
  const vec = new (Vec(u32))(heap, [7]);
  const list = new (List(u32))(heap, [8]);
  const iterators: [Any, unknown[]][] = [
    [new Row(heap, { all: [5, 6] }).all[Symbol.iterator](), [5, 6]],
    [vec.values(), [7]],
    [vec.entries(), [[0, 7]]],
    [list.values(), [8]],
    [map.keys(), [1]],
    [map.values(), [2]],
    [map.entries(), [[1, 2]]],
    [new (OrderedMap(u32, u32))(heap, [[3, 4]]).entries(), [[3, 4]]],
  ];
  for (const [iterator, values] of iterators) {
    for (const value of values) assert.deepEqual(iterator.next(), { done: false, value });
    for (let i = 0; i < 3; i++) assert.deepEqual(iterator.next(), end);
  }
});

test("a walk that was left, or came to its end, has nothing to do with those that begin later", () => {
  using heap = Heap.open({ file: null, size: 1 << 20 });
  const pairs = Array.from({ length: 40 }, (_, i): [number, number] => [i, 2 * i]);
  const map = new (HashMap(u32, u32))(heap, pairs);
  const ordered = new (OrderedMap(u32, u32))(heap, pairs);
  const list = new (List(u32))(heap, pairs.map(([, value]) => value));
  const end = { done: true, value: undefined };
  for (const make of [() => map.values(), () => ordered.rangeValues(3, 30), () => list.values()]) {
    const all = [...make()];
    const [left, ended] = [make(), make()];
    for (let i = 0; i < 5; i++) left.next();
    left.return!();
    while (!ended.next().done);
    const walks = [make(), make()];
    for (let i = 0; i < all.length; i++) {
      for (const walk of walks) assert.deepEqual(walk.next(), { done: false, value: all[i] });
      for (const walk of [left, ended]) assert.deepEqual(walk.next(), end);
    }
    for (const walk of walks) assert.deepEqual(walk.next(), end);
    for (const _ of make()) break;
    assert.deepEqual([...make()], all);
  }
});

const notHere = thisRuntime === "deno" &&
  "it is about JavaScriptCore, and told by the run under Bun";

test(
  "what a get and a walk come down to is short enough for JavaScriptCore's loops",
  { skip: notHere },
  () => {
    const child = `${repository}tests/data_lookup_child.ts`;
    const { code, err } = run(command("bun", child), {
      env: { BUN_JSC_reportDFGCompileTimes: "1" },
    });
    assert.equal(code, 0, err);
    const told = Array.from(
      err.matchAll(/^Optimized ([\w$]+)#\S+ None\w+, (\d+) /gm),
      ([, name, length]) => ({ name, length: Number(length) }),
    );
    // The last of its compilers puts in what has up to 170 bytes, the one before up to 80.
    const limits = {
      ...{ quickGet: 170, seek: 170, $seek: 170, hashOf: 170 },
      ...{ next: 80, $step: 80, $isSame: 80, $value: 80, $takeKey: 80 },
    };
    for (const [name, limit] of Object.entries(limits)) {
      const lengths = told.filter((one) => one.name === name).map(({ length }) => length);
      assert.notEqual(lengths.length, 0, `nothing is told of ${name}`);
      assert.ok(Math.max(...lengths) <= limit, `${name}: ${lengths} bytes of bytecode`);
    }
  },
);
