/**
 * Values whose own code (getters, iterators, traps) does something to the container that they are written
 * to, or to its heap, while they are read. Such a call is what it would have been had that code run just
 * before it: the same contents or an error, and nothing of others is touched.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  array,
  collect,
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
  Text,
  text,
  u32,
  u64,
  u8,
  Vec,
} from "../data/mod.ts";
import { Heap, PermError } from "../mod.ts";
import { expectCode, expectWell, Folder } from "./support.ts";

// deno-lint-ignore no-explicit-any
type Any = any;

const long = (what: unknown) => `${what}, a text that is too long for its slot`;
const Item = struct("Item", { a: f64, name: text });
const Flat = struct("Flat", { a: f64, b: u8, big: u64, tag: fixedText(5) });
const Rich: Any = struct("Rich", {
  a: f64,
  name: text,
  words: Vec(text),
  three: array(Item, 3),
  flat: Flat,
  map: HashMap(text, Item),
  get next() {
    return ref(Item);
  },
});
const Shelf: Any = struct("Shelf", {
  item: Item,
  flat: Flat,
  rich: Rich,
  bytes: array(u8, 3),
  texts: array(text, 3),
  items: array(Item, 2),
  riches: array(Rich, 2),
  words: Vec(text),
  vec: Vec(Item),
  list: List(Rich),
  map: HashMap(u32, Item),
  tree: OrderedMap(text, Rich),
  get refs() {
    return Vec(ref(Item));
  },
});

type Hook = () => void;

/** Values of every kind whose code runs while they are read. */
const values = {
  item: (hook: Hook): Any => ({
    get a() {
      hook();
      return 7;
    },
    name: long("new"),
  }),
  late: (hook: Hook): Any => ({
    name: long("late"),
    get a() {
      hook();
      return 8;
    },
  }),
  flat: (hook: Hook): Any => ({
    a: 1,
    b: 2,
    get big() {
      hook();
      return 3n;
    },
    tag: "four",
  }),
  rich: (hook: Hook): Any => ({
    a: 1,
    name: long("rich"),
    words: function* () {
      yield long("one");
      hook();
      yield "two";
    }(),
    three: [{ a: 1 }, { name: long("three") }, {}],
    flat: values.flat(() => {}),
    map: [["k", { name: long("value") }]],
  }),
  inner: (hook: Hook): Any => ({
    a: 2,
    words: [long("inner")],
    three: [{}, values.item(hook), {}],
    map: [["k", values.item(() => {})]],
  }),
  texts: (hook: Hook): Any =>
    Object.defineProperty([long("x"), "", "z"], "1", {
      get() {
        hook();
        return long("y");
      },
    }),
  bytes: (hook: Hook): Any => ({
    length: 3,
    0: 1,
    1: 2,
    get 2() {
      hook();
      return 3;
    },
  }),
  many: (hook: Hook): Any => ({
    *[Symbol.iterator]() {
      yield { a: 1 };
      hook();
      yield { name: long("many") };
    },
  }),
  pairs: (hook: Hook): Any => [[1, values.item(hook)], [2, {}]],
};
const bad = (value: Any): Any => ({
  ...values.item(() => {}),
  get a() {
    value();
    return "no number";
  },
});

type Call = (shelf: Any, all: Any, hook: Hook) => unknown;

/** Every call that reads a value and writes it. */
const calls: Record<string, Call> = {
  "vec.push": (_, { vec }, hook) => vec.push(values.item(hook)),
  "vec.push, refused": (_, { vec }, hook) => vec.push(bad(hook)),
  "vec.set": (_, { vec }, hook) => vec.set(1, values.late(hook)),
  "vec.set, refused": (_, { vec }, hook) => vec.set(1, bad(hook)),
  "vec.unshift": (_, { vec }, hook) => vec.unshift(values.item(hook), { a: 9 }),
  "vec.splice": (_, { vec }, hook) => vec.splice(1, 1, values.item(hook), { a: 9 }),
  "vec.pushAll": (_, { riches }, hook) => riches.pushAll([values.rich(hook)]),
  "vec of riches": (_, { riches }, hook) => riches.set(0, values.inner(hook)),
  "flats.push": (_, { flats }, hook) => flats.push(values.flat(hook)),
  "flats.set": (_, { flats }, hook) => flats.set(0, values.flat(hook)),
  "rows.push": (_, { rows }, hook) => rows.push(values.many(hook)),
  "rows.set": (_, { rows }, hook) => rows.set(1, values.many(hook)),
  "refs.push": (_, { refs, item }, hook) =>
    refs.push(
      new Proxy(item, {
        get(target, name) {
          if (name === "constructor") hook();
          return Reflect.get(target, name);
        },
      }),
    ),
  "list.push": (_, { list }, hook) => list.push(values.rich(hook)),
  "list.set": (_, { list }, hook) => list.set(1, values.inner(hook)),
  "list.unshift": (_, { list }, hook) => list.unshift(values.rich(hook), {}),
  "list.insert": (_, { list }, hook) => list.insert(1, values.rich(hook)),
  "list.insert, refused": (_, { list }, hook) => list.insert(1, bad(hook)),
  "map.set, new": (_, { map }, hook) => map.set(9, values.item(hook)),
  "map.set, old": (_, { map }, hook) => map.set(1, values.item(hook)),
  "map.set, refused": (_, { map }, hook) => map.set(1, bad(hook)),
  "map.getOrSet": (_, { map }, hook) => map.getOrSet(8, () => values.item(hook)).a,
  "tree.set": (_, { tree }, hook) => tree.set("x", values.rich(hook)),
  "tree.set, old": (_, { tree }, hook) => tree.set("1", values.inner(hook)),
  "item =": (shelf, _, hook) => shelf.item = values.item(hook),
  "flat =": (shelf, _, hook) => shelf.flat = values.flat(hook),
  "rich =": (shelf, _, hook) => shelf.rich = values.rich(hook),
  "bytes =": (shelf, _, hook) => shelf.bytes = values.bytes(hook),
  "texts =": (shelf, _, hook) => shelf.texts = values.texts(hook),
  "items =": (shelf, _, hook) => shelf.items = [values.item(hook), {}],
  "riches =": (shelf, _, hook) => shelf.riches = [{}, values.inner(hook)],
  "items.set": (shelf, _, hook) => shelf.items.set(1, values.late(hook)),
  "vec =": (shelf, _, hook) => shelf.vec = values.many(hook),
  "vec =, refused": (shelf, _, hook) => shelf.vec = [{}, bad(hook)],
  "list =": (shelf, _, hook) => shelf.list = [values.rich(hook)],
  "map =": (shelf, _, hook) => shelf.map = values.pairs(hook),
  "assign": (shelf, _, hook) => void Shelf.assign(shelf, { item: values.item(hook), vec: [] }),
  "assign, refused": (shelf, _, hook) => void Shelf.assign(shelf, { vec: [], item: bad(hook) }),
  "new Rich": ({ $pane }, _, hook) => new Rich($pane.access.heap, values.rich(hook)).toJSON().words,
};

type Act = (heap: Heap, shelf: Any, all: Any) => void;

const acts: Record<string, Act> = {
  nothing() {},
  clear(_, shelf, all) {
    for (const name of ["vec", "riches", "flats", "rows", "refs", "list", "map", "tree"]) {
      all[name].clear();
    }
    for (const name of ["vec", "list", "map", "tree", "words"]) shelf[name].clear();
  },
  grow(_, shelf, all) {
    for (let i = 0; i < 30; i++) {
      for (const vec of [all.vec, all.flats, shelf.vec]) vec.push({ a: i });
      all.riches.push({ name: long(i) });
      all.rows.push([{ name: long(i) }]);
      all.refs.push(null);
      all.list.push({ a: i });
      all.map.set(100 + i, { name: long(i) });
      all.tree.set(`grown ${i}`, {});
    }
  },
  move(_, __, all) {
    for (const vec of [all.vec, all.flats, all.riches]) vec.unshift({ a: 1 });
    all.rows.shift();
    all.list.unshift({});
    all.list.pop();
    all.map.delete(1);
    all.tree.delete("1");
  },
  write(_, shelf, all) {
    all.vec.set(1, { name: long("written") });
    shelf.item = { name: long("written") };
    shelf.rich = { name: long("written"), words: ["w"] };
    shelf.items = [{ name: long("written") }, {}];
    shelf.texts = [long("written"), "", ""];
    shelf.vec = [{ name: long("written") }];
    shelf.bytes = [9, 9, 9];
    shelf.flat = { tag: "w" };
  },
  // Nothing leads to what is not a root; all of these are.
  collect(heap) {
    collect(heap);
  },
  destroy(heap, shelf, all) {
    for (const [name, each] of Object.entries(all)) {
      roots(heap).delete(name);
      destroy(each as Any);
    }
    roots(heap).delete("shelf");
    destroy(shelf);
  },
  restore(heap) {
    heap.restore();
  },
  close(heap) {
    heap.close();
  },
};

function fill(heap: Heap): { shelf: Any; all: Any } {
  const two = (): Any[] => [{ a: 1, name: long("one") }, { a: 2, name: long("two") }];
  const rich = (): Any => ({ ...values.rich(() => {}), three: [...two(), {}] });
  const shelf = new Shelf(heap, {
    item: two()[0],
    rich: rich(),
    texts: [long("a"), "b", long("c")],
    items: two(),
    riches: [rich(), rich()],
    vec: two(),
    list: [rich()],
    map: [[1, two()[0]]],
    tree: [["1", rich()]],
  });
  const all: Any = {
    item: new Item(heap, { a: 5 }),
    vec: new (Vec(Item))(heap, [...two(), ...two()]),
    riches: new (Vec(Rich))(heap, [rich()]),
    flats: new (Vec(Flat))(heap, [{ a: 1 }, { a: 2 }]),
    rows: new (Vec(Vec(Item)))(heap, [two(), two()]),
    refs: new (Vec(ref(Item)))(heap),
    list: new (List(Rich))(heap, [rich(), rich()]),
    map: new (HashMap(u32, Item))(heap, [[1, two()[0]], [2, two()[1]]]),
    tree: new (OrderedMap(text, Rich))(heap, [["1", rich()], ["2", rich()]]),
    story: new Text(heap, "once"),
  };
  roots(heap).set("shelf", shelf);
  for (const [name, each] of Object.entries(all)) roots(heap).set(name, each as Any);
  return { shelf, all };
}

/** What takes memory that becomes free at once, and must stay as it is. */
function occupy(heap: Heap): () => void {
  if ((heap as Any).address === 0) return () => {};
  const kept = new (Vec(text))(heap, Array.from({ length: 60 }, (_, i) => long(i)));
  const numbers = Array.from(
    { length: 12 },
    (_, i) => new (Vec(f64))(heap, Array(4 << i % 6).fill(0.5)),
  );
  roots(heap).set("kept", kept);
  numbers.forEach((each, i) => roots(heap).set(`numbers ${i}`, each));
  return () => {
    assert.deepEqual(kept.toArray(), Array.from({ length: 60 }, (_, i) => long(i)));
    for (const each of numbers) assert.ok(each.every((number) => number === 0.5));
  };
}

/** Runs a call while or after something is done: what it gave, and what stands in the heap then. */
function outcome(file: string, call: Call, act: Act, during: boolean): string {
  const isStored = act === acts.restore || act === acts.close;
  using heap = Heap.open({ file: isStored ? file : null, size: 1 << 20 });
  const { shelf, all } = fill(heap);
  if (isStored) heap.flush();
  let done = 0;
  let whole = () => {};
  const hook = () => {
    if (done++ > 0) return;
    act(heap, shelf, all);
    try {
      whole = occupy(heap);
    } catch (error) {
      // Closed.
      assert.ok(error instanceof PermError && error.code === "CLOSED", `${error}`);
    }
  };
  if (!during) hook();
  let result: string;
  try {
    result = JSON.stringify(call(shelf, all, during ? hook : () => {})) ?? "";
  } catch (error) {
    if (!(error instanceof PermError || error instanceof TypeError)) throw error;
    result = "an error";
  }
  assert.ok(done > 0);
  if (act === acts.close) return result;
  if (act !== acts.restore) whole();
  heap.check();
  const table = roots(heap);
  const found: Any = { shelf: table.get("shelf", Shelf) };
  for (const [name, each] of Object.entries(all)) {
    found[name] = table.get(name, (each as Any).constructor);
    found[name]?.$check?.();
  }
  // Where references lead is not the same in two heaps.
  const state = JSON.stringify(found).replace(/"0x[0-9a-f]+"/g, '"somewhere"');
  const lost = leaks(heap);
  expectWell(heap);
  return `${result}\n${state}\n${lost.map(({ size }) => size)}`;
}

test("what a value's own code does while it is read has happened before the call", {
  timeout: 120_000,
}, () => {
  using folder = new Folder();
  let count = 0;
  for (const [how, act] of Object.entries(acts)) {
    for (const [name, call] of Object.entries(calls)) {
      // A view of a part does not notice that the whole was destroyed: docs/data.md. Nor is what is
      // new a part of it; but what was read for it may be of the time before a restore.
      if ((name === "items.set" || name === "new Rich") && how === "destroy") continue;
      if (name === "new Rich" && how === "restore") {
        assert.match(outcome(folder.file(`${count++}`), call, act, true), /^an error/);
        continue;
      }
      const during = outcome(folder.file(`${count}-during`), call, act, true);
      const before = outcome(folder.file(`${count}-before`), call, act, false);
      assert.equal(during, before, `${name} while ${how}`);
      // What is made by `new` is nobody's, and what `destroy` could not know of.
      if (how !== "close" && name !== "new Rich") assert.match(during, /\n$/, `${name}, ${how}`);
      if (how === "close" || how === "destroy") {
        if (name !== "new Rich" || how === "close") {
          assert.match(during, /^an error/, `${name}, ${how}`);
        }
      }
      count++;
    }
  }
});

test("nothing is collected while a container is being made, and all of it can be afterwards", () => {
  using heap = Heap.open({ size: 1 << 20 });
  let tried = 0;
  const given = function* () {
    yield long("first");
    expectCode(() => collect(heap), "BUSY", { message: /while a container is being made/ });
    tried++;
    yield long("second");
  };
  const vec = new (Vec(text))(heap, given());
  assert.deepEqual(vec.toArray(), [long("first"), long("second")]);
  assert.equal(tried, 1);
  const failing = function* () {
    yield* given();
    throw new RangeError("no more");
  };
  assert.throws(() => new (List(text))(heap, failing()), RangeError);
  roots(heap).set("vec", vec);
  assert.deepEqual(collect(heap), { blocks: 0, bytes: 0 });
  expectWell(heap);
});
