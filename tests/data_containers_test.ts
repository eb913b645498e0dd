/**
 * What containers refuse, what they survive, and what a program, Zig's included, finds in memory.
 *
 * @module
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import { Heap, mopen, PermError } from "../mod.ts";
import {
  array,
  bool,
  destroy,
  f32,
  f64,
  HashMap,
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
  u64,
  u8,
  Vec,
} from "../data/mod.ts";
import { expectCode, Folder, randomNumbers } from "./support.ts";

const User = struct("User", { name: text, age: u8 });
// deno-lint-ignore no-explicit-any
type Any = any;

function newHeap(): Heap {
  return Heap.open({ size: 8 << 20 });
}

test("keys that cannot be are refused with the value and the place, and change nothing", () => {
  using heap = newHeap();
  const cases: [Any, Any[], RegExp][] = [
    [u8, [-1, 256, 1.5, NaN, "1", 1n, undefined, null, {}], /a HashMap's key.*0 to 255/],
    [i8, [-129, 128, 0.1], /-128 to 127/],
    [u32, [-1, 2 ** 32, Infinity], /0 to 4294967295/],
    [u64, [-1n, 2n ** 64n, 1, "1"], /bigint/],
    [i64, [2n ** 63n, -(2n ** 63n) - 1n, 0], /bigint/],
    [f64, ["1", 1n, null], /a number/],
    [f32, [1e300, "1"], /32-bit float|a number/],
    [bool, [0, 1, "true"], /true or false/],
    [text, [1, null, undefined, {}, Symbol("s"), "\ud800", "x".repeat(70_000)], /a string/],
  ];
  for (const [type, keys, message] of cases) {
    const map: Any = new (HashMap(type, u8))(heap);
    // Lookups in a row take another way.
    for (const round of [1, 20]) {
      for (const key of keys) {
        for (let i = 0; i < round; i++) {
          expectCode(() => map.get(key), "INVALID_ARGUMENT", { message });
          expectCode(() => map.has(key), "INVALID_ARGUMENT", { message });
        }
        expectCode(() => map.set(key, 1), "INVALID_ARGUMENT", { message });
        expectCode(() => map.delete(key), "INVALID_ARGUMENT", { message });
      }
    }
    assert.equal(map.size, 0);
  }
  const ordered = new (OrderedMap(f64, u8))(heap);
  expectCode(() => ordered.set(NaN, 1), "INVALID_ARGUMENT", { message: /not NaN/ });
  expectCode(() => ordered.range(NaN), "INVALID_ARGUMENT");
  assert.equal(new (HashMap(f64, u8))(heap, [[NaN, 1], [-0, 2]]).get(NaN), 1);
  for (const type of [User, Vec(u8), ref(User), f64.get, "text", null, undefined, 5]) {
    expectCode(() => HashMap(type as Any, u8), "INVALID_ARGUMENT");
    expectCode(() => OrderedMap(type as Any, u8), "INVALID_ARGUMENT");
  }
  for (const type of ["text", null, undefined, 5, {}, Symbol()]) {
    expectCode(() => Vec(type as Any), "INVALID_ARGUMENT");
    expectCode(() => List(type as Any), "INVALID_ARGUMENT");
    expectCode(() => HashMap(text, type as Any), "INVALID_ARGUMENT");
  }
});

test("values that cannot be are refused and leave what was there", () => {
  using heap = newHeap();
  const map = new (HashMap(text, User))(heap, [["ann", { name: "Ann", age: 40 }]]);
  expectCode(() => map.set("bob", { name: "Bob", age: 300 }), "INVALID_ARGUMENT", {
    message: /age/,
  });
  assert.equal(map.has("bob"), false);
  expectCode(() => map.set("bob", 5 as Any), "INVALID_ARGUMENT");
  assert.deepEqual([...map.keys()], ["ann"]);
  const vec = new (Vec(u8))(heap, [1, 2]);
  expectCode(() => vec.push(3, 256), "INVALID_ARGUMENT");
  assert.deepEqual([...vec], [1, 2, 3]);
  expectCode(() => vec.splice(1, 1, 7, -1), "INVALID_ARGUMENT");
  expectCode(() => vec.unshift(-1), "INVALID_ARGUMENT");
  assert.deepEqual([...vec], [1, 2, 3]);
  for (const index of [-1, 3, 1.5, NaN, "0"]) {
    expectCode(() => vec.set(index as Any, 1), "INVALID_ARGUMENT");
    expectCode(() => vec.get(index as Any), "INVALID_ARGUMENT");
  }
  for (const length of [-1, 1.5, NaN, "3", 2 ** 53, 2 ** 60]) {
    assert.throws(() => vec.length = length as Any, PermError);
  }
  expectCode(() => vec.length = 2 ** 40, "OUT_OF_MEMORY");
  expectCode(() => vec.reserve(2 ** 50), "OUT_OF_MEMORY");
  assert.deepEqual([...vec], [1, 2, 3]);
  const list = new (List(text))(heap, ["a"]);
  expectCode(() => list.push(5 as Any), "INVALID_ARGUMENT");
  expectCode(() => list.insert(2, "x"), "INVALID_ARGUMENT");
  assert.deepEqual([...list], ["a"]);
  const long = new Text(heap, "a😀");
  expectCode(() => long.insert(2, "x"), "INVALID_ARGUMENT", { message: /surrogate/ });
  expectCode(() => long.insert(9, "x"), "INVALID_ARGUMENT");
  expectCode(() => long.append("\udc00"), "INVALID_ARGUMENT");
  assert.equal(long.toString(), "a😀");
  for (const values of [5, "abc", null, true]) {
    expectCode(() => new (Vec(u8))(heap, values as Any), "INVALID_ARGUMENT");
    expectCode(() => new (HashMap(text, u8))(heap, values as Any), "INVALID_ARGUMENT");
  }
  heap.check();
});

test("an iterator ends clearly when its container changes, and only then", () => {
  using heap = newHeap();
  const map = new (HashMap(u32, u32))(heap);
  for (let i = 0; i < 500; i++) map.set(i, i);
  for (const at of [0, 3, 8, 200, 400]) {
    expectCode(
      () => {
        for (const [key] of map) if (key === at) map.set(1000 + at, 1);
      },
      "STALE",
      { message: /changed/ },
    );
    expectCode(() => {
      for (const key of map.keys()) if (key === at) map.delete(500 - at - 1);
    }, "STALE");
  }
  let sum = 0;
  for (const [key, value] of map) map.set(key, value + 1), sum++;
  assert.equal(sum, map.size);
  const ordered = new (OrderedMap(text, u32))(heap, [["a", 1], ["b", 2], ["c", 3]]);
  const walk = ordered.range("a", "c");
  assert.deepEqual(walk.next().value, ["a", 1]);
  ordered.delete("b");
  expectCode(() => walk.next(), "STALE");
  const vec = new (Vec(u32))(heap, [1, 2, 3]);
  expectCode(() => {
    for (const value of vec) vec.push(value);
  }, "STALE");
  const list = new (List(u32))(heap, [1, 2, 3]);
  expectCode(() => {
    for (const _ of list) list.shift();
  }, "STALE");
  expectCode(() => vec.sort((a, b) => vec.push(1) && a - b), "STALE");
  for (const it of [map.keys(), vec.values(), list.values()]) {
    while (!it.next().done);
    assert.equal(it.next().done, true);
  }
});

test("what is destroyed, restored or closed is not used again", () => {
  using folder = new Folder();
  const heap = Heap.open({ file: folder.file("a.perm"), size: 4 << 20 });
  const map = new (HashMap(text, User))(heap, [["ann", { name: "a name of some length", age: 1 }]]);
  const user = map.get("ann")!;
  heap.flush();
  const p = map.ptr;
  const gone = new (Vec(text))(heap, ["a text that stands elsewhere"]);
  destroy(gone);
  for (const use of [() => gone.push("x"), () => gone.clear(), () => gone.length]) {
    assert.throws(
      use,
      (error) => error instanceof TypeError || (error as PermError).code === "STALE",
    );
  }
  expectCode(() => gone.push("x"), "STALE");
  heap.restore();
  expectCode(() => map.set("bob", { name: "b" }), "STALE");
  expectCode(() => map.clear(), "STALE");
  assert.throws(() => user.age);
  const again = HashMap(text, User).at(heap, p);
  assert.equal(again.get("ann")!.name, "a name of some length");
  heap.close();
  assert.throws(() => again.get("ann"), /destroyed|closed|detached/);
  assert.throws(() => [...again], /destroyed|closed|detached/);
});

test("a pointer to anything else is no container", () => {
  using heap = newHeap();
  const map = new (HashMap(text, User))(heap, [["ann", { age: 1 }]]);
  expectCode(() => HashMap(text, u8).at(heap, map.ptr), "LAYOUT_MISMATCH", {
    message: /HashMap of text/,
  });
  expectCode(() => HashMap(u32, User).at(heap, map.ptr), "LAYOUT_MISMATCH");
  expectCode(() => Vec(User).at(heap, map.ptr), "LAYOUT_MISMATCH");
  const block = heap.malloc(256);
  heap.bytes(block, 256).fill(0xa5);
  for (
    const type of [HashMap(text, User), OrderedMap(u32, u8), Vec(u8), List(text), Text] as Any[]
  ) {
    expectCode(() => type.at(heap, block), "STALE");
    expectCode(() => type.at(heap, block + 4), "BAD_POINTER");
    expectCode(() => type.at(heap, 8), "BAD_POINTER");
    expectCode(() => type.at(heap, heap.address), "BAD_POINTER");
    for (const p of [NaN, -1, 1.5, 2 ** 60, "5", null]) {
      assert.throws(() => type.at(heap, p), PermError);
    }
  }
});

test("random bytes for a container's memory are an error or a wrong answer, never a crash", () => {
  const random = randomNumbers(1);
  for (let round = 0; round < 60; round++) {
    using heap = newHeap();
    const make: (() => Any)[] = [
      () => new (HashMap(u32, u32))(heap, Array.from({ length: 50 }, (_, i) => [i, i])),
      () =>
        new (HashMap(text, text))(heap, Array.from({ length: 50 }, (_, i) => [`key ${i}`, `${i}`])),
      () =>
        new (OrderedMap(text, f64))(heap, Array.from({ length: 90 }, (_, i) => [`key ${i}`, i])),
      () => new (Vec(text))(heap, ["a", "a text that stands elsewhere"]),
      () => new (List(text))(heap, ["a", "b", "c"]),
      () => new Text(heap, "some text that changes"),
    ];
    const it = make[round % make.length]();
    const size = it.constructor.size as number;
    const bytes = heap.bytes(it.ptr, size);
    for (let i = 0; i <= random(4); i++) bytes[8 + random(size - 8)] = random(256);
    const uses: (() => unknown)[] = [
      () => it.get?.(it instanceof Text ? 0 : 5),
      () => it.get?.("key 7"),
      () => it.set?.("key 7", 1),
      () => it.set?.(7, 1),
      () => it.at?.(1),
      () => it.push?.("x"),
      () => it.pop?.(),
      () => it.append?.("x"),
      () => it.slice?.(1, 5),
      () => it.delete?.(7),
      () => {
        let left = 1000;
        for (const _ of it) if (--left === 0) break;
      },
      () => it.$check(),
    ];
    for (let i = 0; i < 40; i++) {
      try {
        uses[random(uses.length)]();
      } catch (error) {
        assert.ok(error instanceof PermError || error instanceof RangeError, String(error));
      }
    }
    try {
      it.clear();
    } catch (error) {
      assert.ok(error instanceof PermError || error instanceof RangeError, String(error));
    }
  }
});

test("a heap that is only read gives what is there and refuses the rest", () => {
  using folder = new Folder();
  const file = folder.file("a.perm");
  {
    using heap = Heap.open({ file, size: 4 << 20 });
    const users = new (HashMap(text, User))(heap);
    for (let i = 0; i < 100; i++) users.set(`user ${i}`, { name: `name of user ${i}`, age: i });
    roots(heap).set("users", users);
    heap.root = new (Vec(text))(heap, ["a text of more than fifteen bytes"]).ptr;
    heap.flush();
  }
  using heap = mopen(file, "r");
  const users = roots(heap).get("users", HashMap(text, User))!;
  assert.equal(users.get("user 7")!.name, "name of user 7");
  assert.equal([...users].length, 100);
  const vec = Vec(text).at(heap, heap.root);
  for (
    const change of [
      () => users.set("x", {}),
      () => users.delete("user 7"),
      () => users.clear(),
      () => vec.push("x"),
      () => vec.pop(),
      () => vec.clear(),
      () => vec.splice(0, 1),
    ]
  ) expectCode(change, "READ_ONLY");
  assert.equal(users.get("user 7")!.name, "name of user 7");
  assert.deepEqual([...vec], ["a text of more than fifteen bytes"]);
});

test("a full heap leaves every container as it was", () => {
  using heap = Heap.open({ size: 1 << 20, maxSize: 1 << 20 });
  const map = new (HashMap(text, text))(heap);
  const ordered = new (OrderedMap(text, text))(heap);
  const vec = new (Vec(f64))(heap);
  const list = new (List(text))(heap);
  const long = new Text(heap, "x");
  let full = 0;
  for (let i = 0; full < 30; i++) {
    for (
      const [change, length] of [
        [() => map.set(`a key of some length ${i}`, `a value of some length ${i}`), () => map.size],
        [
          () => ordered.set(`a key of some length ${i}`, `a value of some length ${i}`),
          () => ordered.size,
        ],
        [() => vec.pushAll(new Float64Array(50)), () => vec.length],
        [() => list.push(`an element of some length ${i}`), () => list.length],
        [() => long.append("0123456789".repeat(20)), () => long.length],
      ] as const
    ) {
      const before = length();
      try {
        change();
      } catch (error) {
        assert.equal((error as PermError).code, "OUT_OF_MEMORY");
        assert.equal(length(), before);
        full++;
      }
    }
  }
  for (const it of [map, ordered, vec, list, long]) it.$check();
  heap.check();
  for (const it of [map, ordered, vec, list, long]) destroy(it);
  assert.equal(heap.stats().liveBlocks, 0);
});

test("roots keep containers, leaks() reaches all that they own, and clear() gives it back", () => {
  using heap = newHeap();
  const Node = struct("Node", {
    label: text,
    tags: Vec(text),
    children: HashMap(text, List(text)),
    body: Text,
    index: OrderedMap(text, Vec(u16)),
  });
  const nodes = new (HashMap(text, Node))(heap);
  roots(heap).set("nodes", nodes);
  const empty = heap.stats().liveBlocks;
  for (let i = 0; i < 50; i++) {
    nodes.set(`a key that stands elsewhere ${i}`, {
      label: `label of some length ${i}`,
      tags: ["one", "a second tag, of some length"],
    });
    const node = nodes.get(`a key that stands elsewhere ${i}`)!;
    node.children.set("c", ["first child of some length", "second"]);
    node.body.append("some text ".repeat(20));
    for (let j = 0; j < 100; j++) node.index.set(`entry number ${j} of the index`, [j, j + 1]);
  }
  assert.ok(heap.stats().liveBlocks > 50 * 100);
  assert.deepEqual(leaks(heap), []);
  nodes.delete("a key that stands elsewhere 7");
  assert.deepEqual(leaks(heap), []);
  const lost = new (Vec(u8))(heap, [1]);
  assert.equal(leaks(heap).length, 2);
  destroy(lost);
  nodes.clear();
  assert.equal(heap.stats().liveBlocks, empty);
});

test("containers show themselves in logs and JSON", () => {
  using heap = newHeap();
  const map = new (HashMap(text, u32))(heap, [["a", 1]]);
  const vec = new (Vec(u64))(heap, [1n]);
  assert.equal(JSON.stringify(map), '[["a",1]]');
  assert.equal(JSON.stringify(vec), '["1"]');
  assert.equal(JSON.stringify(new Text(heap, "x")), '"x"');
  assert.equal(
    JSON.stringify(new (List(User))(heap, [{ name: "n", age: 3 }])),
    '[{"name":"n","age":3}]',
  );
  assert.match(inspect(map), /^HashMap\(text, u32\)\(1\) \{\s*['"]a['"] => 1,?\s*\}$/);
  assert.match(inspect(vec), /^Vec\(u64\) \[\s*1n\s*\]$/);
  assert.match(inspect(new Text(heap, "x")), /^Text ['"]x['"]$/);
  assert.match(inspect(new Text(heap)), /^Text ['"]['"]$/);
  const Deep = struct("Deep", {
    get deep() {
      return Vec(Deep);
    },
  });
  const deep = new Deep(heap, { deep: [{ deep: [{ deep: [{ deep: [{}] }] }] }] } as Any);
  assert.match(inspect(deep, { depth: 2 }), /\[Vec\(Deep\)\]/);
  assert.match(inspect(deep, { depth: null }), /Vec\(Deep\) \[\]/);
  assert.equal(HashMap(text, u32), HashMap(text, u32));
  assert.equal(HashMap(text, Vec(User)).name, "HashMap(text, Vec(User))");
});

test("references in containers come out as they are, and nothing follows them in circles", () => {
  using heap = newHeap();
  const Node = struct("Node", {
    id: u64,
    get vec() {
      return Vec(ref(Node));
    },
    get list() {
      return List(ref(Node));
    },
    get map() {
      return HashMap(u8, ref(Node));
    },
    get ordered() {
      return OrderedMap(text, ref(Node));
    },
    get pair() {
      return array(ref(Node), 2);
    },
  });
  const [a, b] = [new Node(heap, { id: 1n }), new Node(heap, { id: 2n })];
  for (const [from, to] of [[a, b], [b, a]]) {
    from.vec.push(to, from, null);
    from.list.push(to, from);
    from.map.set(1, to).set(2, from).set(3, null);
    from.ordered.set("to", to);
    from.pair.set(0, to);
  }
  const at = (node: { ptr: number }) => `0x${node.ptr.toString(16)}`;
  assert.deepEqual(JSON.parse(JSON.stringify(a)), {
    id: "1",
    vec: [at(b), at(a), null],
    list: [at(b), at(a)],
    map: [[1, at(b)], [2, at(a)], [3, null]],
    ordered: [["to", at(b)]],
    pair: [at(b), null],
  });
  for (const it of [a, a.vec, a.list, a.map, a.ordered, a.pair]) {
    const shown = inspect(it, { depth: 20 });
    assert.ok(shown.includes(`Node ${at(b)}`) && shown.length < 1000, shown);
  }
  // What is taken out of a container is the node, and goes in again.
  assert.deepEqual([a.vec.pop(), (a.vec.pop() as Any).ptr, (a.vec.shift() as Any).ptr], [
    null,
    a.ptr,
    b.ptr,
  ]);
  a.vec.push(b, a);
  const [first] = a.vec.splice(0, 1) as Any[];
  first.id = 5n;
  assert.equal(b.id, 5n);
  a.vec.push(a.list.pop() as Any, a.list.shift() as Any);
  assert.deepEqual(Array.from(a.vec, (node) => node!.ptr), [a.ptr, a.ptr, b.ptr]);
});

test("what is taken out of a container can be put in again", () => {
  using heap = newHeap();
  const Part = struct("Part", { big: u64, name: text });
  const Job = struct("Job", {
    number: i64,
    part: Part,
    pair: array(Part, 2),
    words: Vec(text),
    parts: List(Part),
    counts: HashMap(u64, u8),
    byName: OrderedMap(text, Part),
    story: Text,
    other: ref(Part),
  });
  const part = new Part(heap, { big: 2n ** 64n - 1n, name: "a name that has its own block" });
  const jobs = new (Vec(Job))(heap);
  const list = new (List(Job))(heap);
  const given = {
    number: -(2n ** 63n),
    part,
    pair: [{ big: 3n, name: "c" }, part],
    words: ["one", "another word, a longer one"],
    parts: [part, part],
    counts: [[2n ** 63n, 1], [1n, 2]] as [bigint, number][],
    byName: [["part", part]] as Any,
    story: "long ".repeat(100),
    other: part,
  };
  jobs.push(given);
  const before = JSON.stringify(jobs);
  assert.ok(before.includes("18446744073709551615"));
  jobs.push(jobs.pop() as Any);
  assert.equal(JSON.stringify(jobs), before);
  jobs.unshift(jobs.splice(0)[0] as Any);
  list.push(jobs.shift() as Any);
  list.push(list.shift() as Any);
  assert.equal(jobs.length, 0);
  assert.equal(JSON.stringify(list), before);
  for (const it of [jobs, list, part]) destroy(it);
  assert.deepEqual(leaks(heap), []);
});

test("a handle to a value stays good while others come and go", () => {
  using heap = newHeap();
  for (const map of [new (HashMap(u32, User))(heap), new (OrderedMap(u32, User))(heap)]) {
    map.set(5000, { name: "kept", age: 1 });
    const kept = map.get(5000)!;
    for (let i = 0; i < 3000; i++) map.set(i, { name: `${i}` });
    for (let i = 0; i < 3000; i++) map.delete(i);
    kept.age++;
    assert.equal(map.get(5000)!.age, 2);
    assert.equal(kept.name, "kept");
  }
});

test("the documented layout is what stands in memory", () => {
  using heap = newHeap();
  const vec = new (Vec(f64))(heap, [1.5, 2.5]);
  const header = heap.view(BigUint64Array, vec.ptr, 5);
  assert.equal(header[2], 2n);
  assert.deepEqual([...heap.view(Float64Array, Number(header[1]), 2)], [1.5, 2.5]);
  const list = new (List(u32))(heap, [7, 8]);
  const first = heap.load(list.ptr + 8);
  assert.equal(heap.dataView(first + 16, 4).getUint32(0, true), 7);
  const second = heap.load(first);
  assert.equal(heap.dataView(second + 16, 4).getUint32(0, true), 8);
  assert.equal(heap.load(second), 0);
  assert.equal(heap.load(second + 8), first);
});

test("a Vec is walked across the end of its header's pane", { timeout: 60_000 }, () => {
  const Mega = struct("Mega", { first: u64, rest: array(u8, 2 ** 20 - 16), last: u64 });
  using heap = Heap.open({ size: 2 ** 32 });
  const megas = new (Vec(Mega))(heap);
  const end = heap.address + (Math.floor((megas.ptr - heap.address) / 2 ** 30) + 2) * 2 ** 30;
  const gap = heap.malloc(end - megas.ptr - 2 ** 24 - 2 ** 19);
  megas.length = 32;
  const base = megas.get(0).ptr;
  assert.ok(gap < base && base % Mega.size !== 0);
  assert.ok(base < end && base + 32 * Mega.size > end);
  for (let index = 0; index < 32; index++) {
    const mega = megas.get(index);
    [mega.first, mega.last] = [BigInt(index), BigInt(index + 1)];
  }
  let index = 0;
  for (const mega of megas) {
    assert.equal(mega.ptr, base + index * Mega.size);
    assert.deepEqual([mega.first, mega.last], [BigInt(index), BigInt(++index)]);
  }
  assert.equal(index, 32);
});

test(
  "a List and a HashMap are walked from one pane to another and back",
  { timeout: 60_000 },
  () => {
    const Mega = struct("Mega", { first: u32, rest: array(u8, 2 ** 20 - 8), last: u32 });
    using heap = Heap.open({ size: 2 ** 32 });
    const list = new (List(Mega))(heap);
    const map = new (HashMap(text, Mega))(heap);
    const end = heap.address + (Math.floor((list.ptr - heap.address) / 2 ** 30) + 2) * 2 ** 30;
    const ends = (i: number) => ({ first: i, last: i + 1 });
    for (let i = 0; i < 30; i += 2) list.push(ends(i));
    for (let i = 0; i < 30; i++) map.set(`key ${i}, which is long`, ends(i));
    heap.malloc(end - list.ptr - 2 ** 27);
    const wide = heap.malloc(2 ** 28);
    assert.ok(wide < end && wide + 2 ** 28 > end);
    for (let i = 1; i < 30; i += 2) list.insert(i, ends(i));
    for (let i = 30; i < 60; i++) map.set(`key ${i}, which is long`, ends(i));

    const seen = Array.from(list, ({ ptr, first, last }) => {
      assert.equal(last, first + 1);
      return { isFar: ptr > end, first };
    });
    assert.deepEqual(
      seen,
      Array.from({ length: 30 }, (_, i) => ({ isFar: i % 2 === 1, first: i })),
    );
    let count = 0;
    for (const [key, value] of map) {
      assert.equal(key, `key ${count}, which is long`);
      assert.deepEqual([value.first, value.last], [count, ++count]);
    }
    assert.equal(count, 60);
    assert.ok(map.get("key 59, which is long")!.ptr > end);
    let index = 0;
    map.forEach((value, key, whole) => {
      assert.equal(value.ptr, map.get(key)!.ptr);
      assert.equal(whole, map);
      assert.equal(value.last, ++index);
    });
    assert.equal(index, 60);
    assert.deepEqual(
      Array.from(map.values(), ({ first }) => first),
      Array.from(map.keys(), (_, i) => i),
    );
    const walk = list.values();
    for (let i = 0; i < 3; i++) walk.next();
    list.pop();
    assert.throws(() => walk.next(), { code: "STALE" });
  },
);
