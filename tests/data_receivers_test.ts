/**
 * Methods and accessors that are called on what they are not for: other classes' objects, plain ones,
 * proxies, nothing. Each call is an error that says so, never what other bytes look like; only reading a
 * field of numbers may do that, which a check would make a third slower in Bun.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import * as data from "../data/mod.ts";
import { Heap, PermError } from "../mod.ts";
import { expectCode, expectWell } from "./support.ts";

const { array, bool, f32, f64, fixedText, HashMap, i16, i32, i64, i8, List, Mutex } = data;
const { OrderedMap, ref, roots, RwLock, struct, Text, text, u16, u32, u53, u64, u8, Vec } = data;

// deno-lint-ignore no-explicit-any
type Any = any;

const Item = struct("Item", { a: f64, name: text });
const other = struct("Other", { x: u8, y: f64, z: text });
const Every = struct("Every", {
  ...{ u8, u16, u32, u53, u64, i8, i16, i32, i64, f32, f64, bool, text },
  ...{ tag: fixedText(5), arr: array(u8, 3), item: Item, vec: Vec(f64), lock: Mutex },
  get ref() {
    return ref(Item);
  },
});

/** One object of every class, with something in it. */
function objects(heap: Heap): Record<string, Any> {
  const every = new Every(heap, { arr: [1, 2, 3], vec: [1, 2], u8: 7, text: "seven" });
  return {
    vec: new (Vec(f64))(heap, [1, 2, 3]),
    items: new (Vec(Item))(heap, [{ a: 1 }, { a: 2 }]),
    list: new (List(f64))(heap, [1, 2, 3]),
    hash: new (HashMap(u32, f64))(heap, [[1, 1], [2, 2]]),
    words: new (HashMap(text, Item))(heap, [["a", { a: 1 }]]),
    tree: new (OrderedMap(u32, f64))(heap, [[1, 1], [2, 2]]),
    story: new Text(heap, "once"),
    item: new Item(heap, { a: 1, name: "one" }),
    other: new other(heap, { x: 1, y: 2, z: "three" }),
    every,
    array: every.arr,
    mutex: new Mutex(heap),
    lock: new RwLock(heap),
    roots: roots(heap),
  };
}

const empties = (heap: Heap): Any[] => [
  new (Vec(f64))(heap),
  new (List(text))(heap),
  new (HashMap(text, f64))(heap),
  new (OrderedMap(u32, f64))(heap),
  new Text(heap),
];

/** Every public function of an object's classes, by what it is called. */
function members(object: Any): Map<string, Any> {
  const found = new Map<string, Any>();
  let type = Object.getPrototypeOf(object);
  for (; type !== Object.prototype && type !== data.Handle.prototype;) {
    for (const name of Reflect.ownKeys(type)) {
      const key = String(name);
      if (key === "constructor" || key.startsWith("$") || found.has(key)) continue;
      const { value, get, set } = Object.getOwnPropertyDescriptor(type, name)!;
      if (typeof value === "function") found.set(key, value);
      if (get !== undefined) found.set(`get ${key}`, get);
      if (set !== undefined) found.set(`set ${key}`, set);
    }
    type = Object.getPrototypeOf(type);
  }
  return found;
}

const numbers = ["u8", "u16", "u32", "u53", "u64", "i8", "i16", "i32", "i64", "f32", "f64", "bool"];

/** Whether that method of a struct reads a field of numbers. */
function readsNumber(object: Any, key: string): boolean {
  const fields: readonly data.Field[] = object.constructor.fields ?? [];
  return fields.some(({ name, type }) => key === `get ${name}` && numbers.includes(type.kind));
}

const given: Any[][] = [[], [0], [0, 1], [1, 1], ["a"], [() => 1, 0], [["a"]], [{ a: 1 }]];

test("a method or accessor that is called on another kind of object is refused", async () => {
  using heap = Heap.open({ size: 1 << 20 });
  const all = objects(heap);
  const { roots: _, ...shown } = all;
  const state = () => JSON.stringify([Object.values(shown), heap.stats().liveBlocks]);
  const receivers: [string, Any][] = [
    ...Object.entries(all),
    ...empties(heap).map((each): [string, Any] => [`empty ${each.constructor.name}`, each]),
    ...Object.entries(all).map(([name, each]): [string, Any] => [
      `proxy of ${name}`,
      new Proxy(each, {}),
    ]),
    ...Object.entries(all).map(([name, each]): [string, Any] => [
      `made from ${name}'s prototype`,
      Object.create(Object.getPrototypeOf(each)),
    ]),
    ["a plain object", {}],
    ["an array", [1, 2]],
    ["a Map", new Map([[1, 1]])],
    ["a typed array", new Float64Array(3)],
    ["a proxy", new Proxy({}, {})],
    ["a function", () => 1],
    ["a number", 5],
    ["a text", "once"],
    ["nothing", undefined],
    ["null", null],
  ];
  const before = state();
  let calls = 0;
  for (const [name, object] of Object.entries(all)) {
    for (const [key, method] of members(object)) {
      for (const [what, receiver] of receivers) {
        const isNone = what.startsWith("made from");
        const own = receiver !== null && typeof receiver === "object" && members(receiver);
        const isOwn = own && [...own.values()].includes(method);
        // Maps have two of them under Bun, for all maps.
        const isMaps = own && key === "get" && own.has("getOrSet") &&
          members(object).has("getOrSet");
        if ((isOwn || isMaps) && !isNone) continue;
        for (const args of isNone ? [[0, 1]] : given) {
          const call = `${key} of ${name} on ${what} with ${args.length} arguments`;
          let result: Any;
          try {
            result = method.apply(receiver, args);
            if (result instanceof Promise) result = await result;
          } catch (error) {
            const isClear = error instanceof RangeError
              ? readsNumber(object, key)
              : error instanceof PermError
              ? error.code === "INVALID_ARGUMENT"
              : error instanceof TypeError;
            assert.ok(isClear, `${call}: ${error}`);
            calls++;
            continue;
          }
          if (readsNumber(object, key)) continue;
          // A lock without a place has nothing for JSON, a walk asks only when it is asked.
          if (isNone && result === undefined) continue;
          if (isNone && typeof result?.next === "function") {
            assert.throws(() => result.next(), TypeError);
            continue;
          }
          assert.fail(`${call}: ${String(result)}`);
        }
      }
      assert.equal(state(), before, `${key} of ${name}`);
    }
  }
  assert.ok(calls > 20_000, `${calls}`);
  for (const each of Object.values(shown)) each.$check?.();
  expectWell(heap);
});

test("what is said of a wrong receiver names both", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const { vec, list, hash, tree, story, item, other, array, mutex, lock }: Any = objects(heap);
  const { get: getA, set: setA } = Object.getOwnPropertyDescriptor(Item.prototype, "a") as Any;
  const { get: getName } = Object.getOwnPropertyDescriptor(Item.prototype, "name") as Any;
  const code = "INVALID_ARGUMENT";
  const said: [() => unknown, RegExp][] = [
    [() => vec.get.call(list, 0), /an object.* as a Vec: its methods are for/],
    [() => vec.push.call([1], 2), /an array as a Vec/],
    [() => list.at.call(vec, 0), /as a List/],
    [() => hash.get.call(vec, 0), /as a map/],
    [() => tree.range.call(hash, 0), /as a OrderedMap|as an OrderedMap/],
    [() => story.at.call(5, 0), /Cannot use 5 as a Text/],
    [() => array.at.call(vec, 0), /as a fixed array/],
    [() => mutex.tryLock.call(lock), /as a Mutex/],
    [() => lock.tryRead.call(mutex), /as a RwLock/],
    [() => vec.forEach.call(hash, () => {}), /as a Vec or List/],
    [() => getName.call(other), /as a struct with the field Item\.name/],
    [() => setA.call(other, 1), /as a struct with the field Item\.a/],
    [() => (Item as Any).assign.call(other, item, { a: 1 }), /as the class Item/],
    [() => (Item as Any).at.call(Vec(f64), heap, item.ptr), /a function as the class Item/],
  ];
  for (const [action, message] of said) expectCode(action, code, { message });
  // What extends a class is of it, and so is a proxy of an object.
  class Own extends Item {}
  const own = new Own(heap, { a: 5 });
  assert.equal(getA.call(own), 5);
  assert.equal(new Proxy(own, {}).a, 5);
  assert.equal((Own as Any).at(heap, own.ptr).a, 5);
  assert.equal(Own.assign(own, { a: 6 }).a, 6);
});

test("a walk that is asked for the next element of another goes on as that one does, or refuses", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const walks: ((all: Record<string, Any>) => Any)[] = [
    ({ vec }) => vec.values(),
    ({ vec }) => vec.keys(),
    ({ vec }) => vec.entries(),
    ({ items }) => items.columns === undefined ? null : items.batches(["a"]),
    ({ list }) => list.values(),
    ({ hash }) => hash.entries(),
    ({ hash }) => hash.keys(),
    ({ hash }) => hash.values(),
    ({ tree }) => tree.range(1),
    ({ tree }) => tree.rangeKeys(1),
    ({ array }) => array[Symbol.iterator](),
    ({ item }) => item[Symbol.iterator](),
    () => [1, 2, 3].values(),
    () => ({}),
  ];
  const all = objects(heap);
  for (const begin of walks) {
    for (const other of walks) {
      const { next } = begin(all);
      if (next === undefined) continue;
      const own = other(all);
      const expected = own.next === undefined ? [] : [own.next(), own.next()].map(told);
      for (const [from, walk] of [other(all), other(all)].entries()) {
        if (from === 1) walk.next?.();
        let result: Any;
        try {
          result = next.call(walk);
        } catch (error) {
          assert.ok(error instanceof TypeError || error instanceof PermError, `${error}`);
          continue;
        }
        // A struct's walk is bound to its struct.
        if (begin === walks[11]) continue;
        const { done, value } = JSON.parse(expected[from]);
        // The key alone is right as well.
        const isKey = Array.isArray(value) && told(result) === told({ done, value: value[0] });
        if (!isKey) assert.equal(told(result), expected[from], `${begin} on ${other}`);
      }
    }
  }
  expectWell(heap);
});

function told(result: Any): string {
  return JSON.stringify(result, (_, value) => ArrayBuffer.isView(value) ? `${value}` : value);
}
