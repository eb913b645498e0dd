/**
 * Containers beside JavaScript's own: a world of one container of each kind and the Map, sorted array,
 * array or string that it must equal, and random operations that follow from a seed and a step. So
 * what a heap must hold after any number of steps can be made again without it.
 *
 * @module
 */
import assert from "node:assert/strict";
import type { Heap } from "../mod.ts";
import {
  array,
  destroy,
  f64,
  HashMap,
  i64,
  List,
  OrderedMap,
  struct,
  Text,
  text,
  u16,
  u32,
  u64,
  Vec,
} from "../data/mod.ts";
import { randomNumbers } from "./support.ts";

const Item = struct("Item", {
  count: u32,
  name: text,
  tags: Vec(text),
  ratio: f64,
  pair: array(u16, 2),
});
interface ItemModel {
  count: number;
  name: string;
  tags: string[];
  ratio: number;
  pair: number[];
}

const types = {
  numbers: HashMap(f64, u32),
  big: HashMap(u64, i64),
  items: HashMap(text, Item),
  ordered: OrderedMap(text, Item),
  sorted: OrderedMap(i64, f64),
  floats: OrderedMap(f64, text),
  vec: Vec(f64),
  structs: Vec(Item),
  list: List(text),
  nested: HashMap(text, HashMap(u32, text)),
  text: Text,
};
type Name = keyof typeof types;
// deno-lint-ignore no-explicit-any
type Any = any;

/** The other side: what the containers must hold. */
export class Model {
  numbers = new Map<number, number>();
  big = new Map<bigint, bigint>();
  items = new Map<string, ItemModel>();
  ordered = new Map<string, ItemModel>();
  sorted = new Map<bigint, number>();
  floats = new Map<number, string>();
  vec: number[] = [];
  structs: ItemModel[] = [];
  list: string[] = [];
  nested = new Map<string, Map<number, string>>();
  text = "";
}

/** The containers in a heap, found again by a global. */
export class World {
  readonly heap: Heap;
  readonly places: Float64Array;
  readonly all: Record<Name, Any> = {} as Record<Name, Any>;

  constructor(heap: Heap) {
    this.heap = heap;
    const names = Object.keys(types) as Name[];
    this.places = heap.global("containers", Float64Array, names.length + 1);
    names.forEach((name, i) => {
      const type = types[name] as Any;
      if (this.places[i] === 0) this.places[i] = new type(heap).ptr;
      this.all[name] = type.at(heap, this.places[i]);
    });
  }

  /** Steps that were done. */
  get step(): number {
    return this.places[this.places.length - 1];
  }

  set step(step: number) {
    this.places[this.places.length - 1] = step;
  }

  /** Frees everything. */
  destroy(): void {
    for (const name of Object.keys(types) as Name[]) destroy(this.all[name]);
    this.places.fill(0);
  }
}

const words = [
  "",
  "a",
  "zz",
  "user:1",
  "fifteen letters",
  "sixteen letters!",
  "naïve",
  "数",
  "😀b",
  "x".repeat(40),
];

function randomText(random: (bound: number) => number): string {
  return words[random(words.length)] + (random(3) === 0 ? String(random(30)) : "");
}

function randomItem(random: (bound: number) => number): ItemModel {
  return {
    count: random(1000),
    name: randomText(random),
    tags: Array.from({ length: random(4) }, () => randomText(random)),
    ratio: random(100) / 8,
    pair: [random(65536), random(65536)],
  };
}

/** Does one step to the model and, if there is one, to the world; what is returned must agree. */
export function doStep(seed: number, step: number, model: Model, world: World | null): void {
  const random = randomNumbers(seed * 1_000_003 + step);
  const ours = world?.all;
  const phase = step % 3000;
  const grows = phase < 2000;
  const both = <T>(mine: (it: Record<Name, Any>) => T, theirs: T, what: string) => {
    if (ours !== undefined) assert.deepEqual(mine(ours), theirs, `step ${step}: ${what}`);
  };
  const mapStep = (name: Name, map: Map<Any, Any>, key: Any, value: Any, plain = (v: Any) => v) => {
    const action = random(10);
    if (action < (grows ? 6 : 3)) {
      map.set(key, value);
      ours?.[name].set(key, value);
    } else if (action < 9) both((it) => it[name].delete(key), map.delete(key), `${name}.delete`);
    else if (random(400) === 0) {
      map.clear();
      ours?.[name].clear();
    }
    both((it) => plain(it[name].get(key)), map.get(key), `${name}.get`);
    both((it) => it[name].size, map.size, `${name}.size`);
  };
  const kind = random(11);
  if (kind === 0) {
    const keys = [NaN, -0, 0, Infinity, 0.1, -7, 2 ** 40];
    const key = random(9) === 0 ? keys[random(keys.length)] : random(300);
    mapStep("numbers", model.numbers, key, random(1 << 30));
  } else if (kind === 1) {
    const key = BigInt(random(200)) * 0x1_0000_0001_0000n;
    mapStep("big", model.big, key, -BigInt(random(1000)) << 40n);
  } else if (kind === 2) {
    mapStep("items", model.items, randomText(random), randomItem(random), itemOf);
  } else if (kind === 3) {
    mapStep("ordered", model.ordered, randomText(random) + random(40), randomItem(random), itemOf);
  } else if (kind === 4) {
    const key = BigInt(random(500) - 250) << BigInt(random(2) * 40);
    mapStep("sorted", model.sorted, key, random(1000) / 4);
  } else if (kind === 5) {
    mapStep("floats", model.floats, (random(600) - 300) / 8 || 0, randomText(random));
  } else if (kind === 6) {
    vecStep(random, grows, model, ours);
  } else if (kind === 7) {
    const { structs } = model;
    const at = structs.length === 0 ? 0 : random(structs.length);
    const item = randomItem(random);
    if (random(10) < (grows ? 6 : 3) || structs.length === 0) {
      structs.push(item);
      ours?.structs.push(item);
    } else if (random(2) === 0) {
      const [gone] = structs.splice(at, 1);
      both((it) => it.structs.splice(at, 1)[0], gone, "structs.splice");
    } else {
      structs[at] = item;
      ours?.structs.set(at, item);
      ours?.structs.get(at).tags.push("more");
      structs[at].tags.push("more");
    }
  } else if (kind === 8) {
    const { list } = model;
    const value = randomText(random);
    const action = random(grows ? 6 : 9);
    if (action < 2) both((it) => it.list.push(value), list.push(value), "list.push");
    else if (action < 3) both((it) => it.list.unshift(value), list.unshift(value), "list.unshift");
    else if (action < 4) {
      const at = random(list.length + 1);
      list.splice(at, 0, value);
      ours?.list.insert(at, value);
    } else if (action < 5 && list.length > 0) {
      list[0] = value;
      ours?.list.set(0, value);
    } else if (action < 6) {
      list.reverse();
      ours?.list.reverse();
    } else if (action < 8) both((it) => it.list.shift(), list.shift(), "list.shift");
    else both((it) => it.list.pop(), list.pop(), "list.pop");
  } else if (kind === 9) {
    const key = words[random(words.length)];
    const inner = random(30);
    if (random(20) === 0) both((it) => it.nested.delete(key), model.nested.delete(key), "nested");
    else {
      let map = model.nested.get(key);
      if (map === undefined) model.nested.set(key, map = new Map());
      map.set(inner, key + inner);
      ours?.nested.getOrSet(key).set(inner, key + inner);
    }
  } else {
    textStep(random, model, ours?.text);
  }
}

function vecStep(
  random: (bound: number) => number,
  grows: boolean,
  model: Model,
  ours: Record<Name, Any> | undefined,
): void {
  const { vec } = model;
  const value = random(1000) / 2;
  const at = random(vec.length + 1);
  const vecs: Any[] = ours === undefined ? [vec] : [vec, ours.vec];
  const action = random(grows ? 8 : 12);
  if (action < 3) { for (const it of vecs) it.push(value, value + 1); }
  else if (action < 4) { for (const it of vecs) it.unshift(value); }
  else if (action < 5) { for (const it of vecs) it.splice(at, 2, value, value, value); }
  else if (action < 6) {
    const many = Float64Array.from({ length: random(20) }, () => random(50));
    vec.push(...many);
    ours?.vec.pushAll(many);
  } else if (action < 7) {
    const which = random(4);
    for (const it of vecs) {
      if (which === 0) it.reverse();
      else if (which === 1) it.fill(value, at, at + 5);
      else if (which === 2) it.sort((a: number, b: number) => b - a);
      else if (it === vec) vec.sort((a, b) => a - b);
      else it.sort();
    }
  } else if (action < 8) {
    if (ours !== undefined) assert.equal(ours.vec.indexOf(value), vec.indexOf(value));
  } else {
    const [mine, theirs] = [vec, ours?.vec].map((it) =>
      it === undefined ? undefined : action < 10 ? it.pop() : it.splice(at, 7)
    );
    if (ours !== undefined) assert.deepEqual(theirs, mine);
  }
}

function textStep(random: (bound: number) => number, model: Model, ours: Any): void {
  // Indices between characters only: an index within a pair is refused.
  const places = [0];
  for (const character of model.text) places.push(places.at(-1)! + character.length);
  const from = places[random(places.length)];
  const value = randomText(random);
  const action = random(6);
  if (action < 3) {
    model.text += value;
    ours?.append(value);
  } else if (action < 4) {
    model.text = model.text.slice(0, from) + value + model.text.slice(from);
    ours?.insert(from, value);
  } else if (action < 5) {
    const to = places[Math.min(places.length - 1, places.indexOf(from) + random(60))];
    model.text = model.text.slice(0, from) + model.text.slice(to);
    ours?.delete(from, to);
  } else if (ours !== undefined) {
    assert.equal(ours.indexOf(value, from), model.text.indexOf(value, from));
    assert.equal(ours.lastIndexOf(value), model.text.lastIndexOf(value));
    assert.equal(
      ours.slice(from, from + 20 < model.text.length ? undefined : from),
      model.text.slice(from, from + 20 < model.text.length ? undefined : from),
    );
  }
}

/** An item as the model has it. */
function itemOf(item: Any): ItemModel | undefined {
  if (item === undefined) return undefined;
  const { count, name, tags, ratio, pair } = item;
  return { count, name, tags: [...tags], ratio, pair: [...pair] };
}

function compareBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

/** Asserts that the world holds what the model does, in its order, and is whole. */
export function expectSame(world: World, model: Model, step: number): void {
  const { all } = world;
  const what = (name: string) => `${name} after step ${step}`;
  for (const name of Object.keys(types) as Name[]) all[name].$check();
  for (const name of ["numbers", "big"] as const) {
    assert.deepEqual([...all[name]], [...model[name]], what(name));
    assert.deepEqual([...all[name].keys()], [...model[name].keys()], what(name));
    assert.deepEqual([...all[name].values()], [...model[name].values()], what(name));
  }
  // All at once, so that numbers are looked up without native code.
  const gotten = (name: "numbers" | "big" | "sorted" | "floats", keys: Any[]) => {
    for (let round = 0; round < 2; round++) {
      for (const key of keys) {
        assert.equal(
          all[name].get(key),
          (model[name] as Map<Any, Any>).get(key),
          what(`${name} ${key}`),
        );
        assert.equal(all[name].has(key), model[name].has(key as never), what(`${name} ${key}`));
      }
    }
  };
  const some = Array.from({ length: 40 }, (_, i) => i * 7);
  gotten("numbers", [...model.numbers.keys(), ...some, NaN, -0, 0.5, -1e300, 2 ** 53]);
  gotten("big", [...model.big.keys(), ...some.map(BigInt), 2n ** 64n - 1n]);
  gotten("sorted", [...model.sorted.keys(), ...some.map(BigInt), -(2n ** 63n)]);
  gotten("floats", [...model.floats.keys(), ...some]);
  const pairs = (map: Any) => Array.from(map, ([key, item]: Any) => [key, itemOf(item)]);
  assert.deepEqual(pairs(all.items), [...model.items], what("items"));
  const ordered = [...model.ordered].sort(([a], [b]) => compareBytes(a, b));
  assert.deepEqual(pairs(all.ordered), ordered, what("ordered"));
  assert.deepEqual(
    pairs(all.ordered.range(undefined, undefined, { reverse: true })),
    ordered.toReversed(),
    what("ordered"),
  );
  for (const prefix of ["", "user:1", "z", "x", "sixteen letters!1", "😀"]) {
    const wanted = ordered.filter(([key]) => key.startsWith(prefix));
    assert.deepEqual(pairs(all.ordered.prefix(prefix)), wanted, what(`prefix ${prefix}`));
    assert.deepEqual(pairs(all.ordered.prefix(prefix, { reverse: true })), wanted.toReversed());
  }
  const sorted = [...model.sorted].sort(([a], [b]) => a < b ? -1 : a > b ? 1 : 0);
  assert.deepEqual([...all.sorted], sorted, what("sorted"));
  const floats = [...model.floats].sort(([a], [b]) => a - b);
  assert.deepEqual([...all.floats], floats, what("floats"));
  for (const [low, high] of [[-10, 10], [0, 0.5], [5, -5], [-1000, 1000]]) {
    for (const includeLow of [true, false]) {
      for (const includeHigh of [true, false]) {
        const wanted = floats.filter(([key]) =>
          (includeLow ? key >= low : key > low) && (includeHigh ? key <= high : key < high)
        );
        const options = { includeLow, includeHigh };
        assert.deepEqual([...all.floats.range(low, high, options)], wanted, what("floats.range"));
        assert.deepEqual(
          [...all.floats.range(low, high, { ...options, reverse: true })],
          wanted.toReversed(),
          what("floats.range"),
        );
      }
    }
    assert.deepEqual(all.floats.ceiling(low), floats.find(([key]) => key >= low));
    assert.deepEqual(all.floats.floor(low), floats.findLast(([key]) => key <= low));
  }
  assert.deepEqual(all.floats.first(), floats[0]);
  assert.deepEqual(all.floats.last(), floats.at(-1));
  assert.deepEqual([...all.vec], model.vec, what("vec"));
  assert.deepEqual([...all.vec.toTypedArray()], model.vec, what("vec"));
  assert.deepEqual(Array.from(all.structs, itemOf), model.structs, what("structs"));
  assert.deepEqual([...all.list], model.list, what("list"));
  assert.deepEqual([...all.list.reversed()], model.list.toReversed(), what("list"));
  assert.deepEqual(
    Array.from(all.nested, ([key, map]: Any) => [key, [...map]]),
    Array.from(model.nested, ([key, map]) => [key, [...map]]),
    what("nested"),
  );
  assert.equal(String(all.text), model.text, what("text"));
  assert.equal(all.text.length, model.text.length, what("text"));
  assert.equal(all.text.byteLength, Buffer.byteLength(model.text), what("text"));
}
