// Whatever is called on typed data, with whatever: a result, a PermError or an error of the engine's,
// and objects that are whole. The same with handles that are stale, where only a crash is a failure.
import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import * as data from "../data/mod.ts";
import { Heap, PermError } from "../mod.ts";
import { Folder, randomNumbers } from "./support.ts";

const { array, bool, f32, f64, fixedText, HashMap, i64, List, migration, Mutex, OrderedMap } = data;
const { ref, roots, RwLock, struct, Text, text, u32, u53, u64, u8, Vec } = data;

// deno-lint-ignore no-explicit-any
type Anything = any;

const Item = struct("Item", { a: f64, name: text, tag: fixedText(5), arr: array(u8, 3) });
const Node: Anything = struct("Node", {
  id: u32,
  item: Item,
  items: Vec(Item),
  list: List(text),
  map: HashMap(text, Item),
  tree: OrderedMap(u53, Vec(f64)),
  lock: Mutex,
  story: Text,
  big: i64,
  three: array(Item, 3),
  get next() {
    return ref(Node);
  },
});
const types: Anything[] = [
  ...[
    Item,
    Node,
    Text,
    Mutex,
    RwLock,
    Vec(f64),
    Vec(Item),
    Vec(text),
    Vec(ref(Node)),
    Vec(Vec(u8)),
  ],
  ...[List(Item), List(u64), HashMap(text, Item), HashMap(u32, text), HashMap(f64, f64)],
  ...[HashMap(u64, ref(Node)), HashMap(bool, Vec(f64)), OrderedMap(text, Item)],
  ...[OrderedMap(i64, f64), OrderedMap(f32, List(text)), HashMap(u32, HashMap(text, Vec(Item)))],
];
const numbers = [
  0,
  1,
  2,
  3,
  5,
  10,
  100,
  -1,
  0.5,
  -0,
  NaN,
  Infinity,
  -Infinity,
  2 ** 31,
  2 ** 53,
  1e300,
];
const texts = [
  "",
  "a",
  "é",
  "😀",
  "\ud800",
  "\0",
  "x".repeat(15),
  "x".repeat(40),
  "y".repeat(70_000),
];
const others = [null, undefined, true, 7n, 2n ** 64n, Symbol("s"), {}, [], new Date(0), [1, 2, 3]];

/** A program without sense. */
class Monkey {
  readonly next: (bound: number) => number;
  readonly heap: Heap;
  /** Objects that stand alone: their handles stay good as long as nobody destroys them. */
  readonly objects: Anything[] = [];
  /** All that were ever made, by their addresses. */
  readonly made = new Map<number, Anything>();
  /** Whether it destroys, keeps handles of what may move, and changes what is being read. */
  readonly isWild: boolean;
  done = 0;
  #depth = 0;

  constructor(seed: number, heap: Heap, isWild: boolean) {
    this.next = randomNumbers(seed);
    this.heap = heap;
    this.isWild = isWild;
  }

  pick<Value>(values: readonly Value[]): Value {
    return values[this.next(values.length)];
  }

  anything(): Anything {
    const { next } = this;
    switch (next(10)) {
      case 0:
        return this.pick(others);
      case 1:
      case 2:
        return this.pick(numbers);
      case 3:
      case 4:
        return this.pick(texts);
      case 5:
        return this.item();
      case 6:
        return this.objects.length > 0 ? this.pick(this.objects) : 1;
      case 7:
        return Array.from({ length: next(4) }, () => next(2) ? this.item() : this.anything());
      case 8:
        return Array.from({ length: next(4) }, () => [this.pick(numbers), this.item()]);
      default:
        return this.pick([
          new Float64Array(3),
          new Map([["k", 1]]),
          this.heap,
          Vec,
          (a: Anything, b: Anything) => a < b ? -1 : 1,
          () => this.isWild ? this.step() : 1,
          () => {
            throw new RangeError("mine");
          },
        ]);
    }
  }

  item(): Anything {
    const out: Anything = {};
    if (this.next(2)) out.a = this.pick([1, 2, "x"]);
    if (this.next(2)) out.name = this.pick(texts);
    if (this.next(9) === 0) out.none = 1;
    if (this.isWild && this.next(9) === 0) {
      Object.defineProperty(out, "name", { enumerable: true, get: () => this.step() ?? "" });
    }
    return out;
  }

  /** Calls something once. */
  step(): void {
    if (this.#depth > 2) return;
    this.#depth++;
    try {
      this.#call(this.next(40));
      this.done++;
    } catch (error) {
      const mayBe = error instanceof PermError || error instanceof TypeError ||
        error instanceof RangeError;
      if (!mayBe) throw error;
    } finally {
      this.#depth--;
    }
  }

  #call(what: number): void {
    const { heap, objects } = this;
    if (objects.length === 0 || what < 4) {
      const type = this.pick(types);
      const object = new type(heap, this.next(3) ? undefined : this.anything());
      this.made.set(object.ptr, object);
      this.#keep(object);
      return;
    }
    const object = this.pick(objects);
    if (what === 4) roots(heap).set(`root ${this.next(4)}`, object);
    else if (what === 5) this.#keep(roots(heap).get(`root ${this.next(4)}`, this.pick(types)));
    else if (what === 6) JSON.stringify(object) + inspect(object);
    else if (what === 7) this.pick(types).assign?.(object, this.anything());
    else if (what === 8 && this.next(9) === 0) heap.flush();
    else if (what === 9 && this.isWild && this.next(99) === 0) heap.restore();
    else if (what === 10) data.leaks(heap);
    else if (what === 11 && this.isWild) data.destroy(object);
    else if (what === 12 && this.isWild) {
      const step = migration(this.pick(types), () => this.pick(objects));
      roots(heap).get(`root ${this.next(4)}`, this.pick(types), step);
    } else if (what < 20) this.#useField(object);
    else this.#useMethod(object);
  }

  #useField(object: Anything): void {
    const names = [];
    for (const name in object) if (!name.startsWith("$")) names.push(name);
    if (names.length === 0) return;
    const name = this.pick(names);
    if (this.next(2)) object[name] = this.anything();
    else this.#keep(object[name]);
  }

  #useMethod(object: Anything): void {
    const names: string[] = [];
    let type = Object.getPrototypeOf(object);
    for (; type !== null && type !== data.Handle.prototype; type = Object.getPrototypeOf(type)) {
      for (const name of Object.getOwnPropertyNames(type)) {
        const { value } = Object.getOwnPropertyDescriptor(type, name)!;
        const isUsed = typeof value === "function" && name !== "constructor" &&
          !name.startsWith("$") && !/^lock|^read|^write/.test(name);
        if (isUsed) names.push(name);
      }
    }
    if (names.length === 0) return;
    const args = Array.from({ length: this.next(4) }, () => this.anything());
    this.#keep(object[this.pick(names)](...args));
  }

  #keep(result: Anything): void {
    if (result instanceof data.Held) result.release();
    else if (result instanceof data.Handle) {
      const { $view, $pane } = result;
      // What stands in another object is used at once.
      if (this.isWild || $view === $pane.view) this.objects.push(result);
      else if (this.#depth < 3) this.#nest(result);
      if (this.objects.length > 50) this.objects.splice(this.next(50), 1);
    } else if (typeof result?.next === "function") {
      for (let left = this.next(9); left > 0; left--) {
        const { done, value } = result.next();
        if (done) break;
        if (value instanceof data.Handle) this.#keep(value);
      }
    }
  }

  #nest(object: Anything): void {
    this.#depth++;
    try {
      this.#useField(object);
      this.#useMethod(object);
    } finally {
      this.#depth--;
    }
  }

  expectWhole(): void {
    this.heap.check();
    for (const object of this.objects) if (!object.$view.buffer.detached) object.$check?.();
  }
}

test("whatever typed data is given, its objects are whole", { timeout: 120_000 }, () => {
  using folder = new Folder();
  for (const seed of [1, 2]) {
    using heap = Heap.open({ file: folder.file(`${seed}`), size: 1 << 20, maxSize: 32 << 20 });
    const names = roots(heap);
    names.names();
    const { liveBlocks } = heap.stats();
    heap.flush();
    const monkey = new Monkey(seed, heap, false);
    for (let step = 0; step < 4000; step++) {
      monkey.step();
      if (step % 100 === 99) monkey.expectWhole();
    }
    assert.ok(monkey.done > 800, `${monkey.done} calls succeeded`);
    for (const name of names.names()) names.delete(name);
    for (const object of monkey.made.values()) data.destroy(object);
    assert.equal(heap.stats().liveBlocks, liveBlocks, "memory that nobody owns is left");
  }
});

test("whatever is done with handles that are stale, nothing crashes", { timeout: 120_000 }, () => {
  using folder = new Folder();
  for (const seed of [11, 12, 13]) {
    using heap = Heap.open({ file: folder.file(`${seed}`), size: 1 << 20, maxSize: 32 << 20 });
    heap.flush();
    const monkey = new Monkey(seed, heap, true);
    for (let step = 0; step < 3000; step++) monkey.step();
    assert.ok(monkey.done > 500, `${monkey.done} calls succeeded`);
  }
});
