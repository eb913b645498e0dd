// Structs: what they read and write, what they refuse, and when a handle ends.
import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import { Heap, mopen } from "../mod.ts";
import {
  array,
  bool,
  destroy,
  f32,
  f64,
  fixedText,
  type Handle,
  HashMap,
  i16,
  i32,
  i64,
  i8,
  ref,
  struct,
  text,
  u16,
  u32,
  u53,
  u64,
  u8,
  type ValueOf,
} from "../data/mod.ts";
import { expectCode, Folder } from "./support.ts";

const All = struct("All", {
  a: u8,
  b: u16,
  c: u32,
  d: i8,
  e: i16,
  f: i32,
  g: u53,
  h: u64,
  i: i64,
  j: f32,
  k: f64,
  l: bool,
  m: fixedText(5),
  n: text,
  o: array(i16, 3),
});
const Vec2 = struct("Vec2", { x: f64, y: f64 });
const Node = struct("Node", {
  id: u32,
  name: text,
  at: Vec2,
  get next() {
    return ref(Node);
  },
});
const Husband = struct("Husband", {
  age: u8,
  get wife() {
    return ref(Wife);
  },
});
const Wife = struct("Wife", {
  age: u8,
  get husband() {
    return ref(Husband);
  },
});
/** Where a field stands, as types see it. */
function placeOf(handle: Handle, offset: number): [Handle["$pane"], number] {
  return [handle.$pane, handle.$at + offset];
}

const long = "a text that is too long to stand in its slot: ä€😀";

test("every scalar keeps its smallest and its largest value, and starts at zero", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const p = new All(heap);
  assert.equal(
    JSON.stringify(p),
    '{"a":0,"b":0,"c":0,"d":0,"e":0,"f":0,"g":0,"h":"0","i":"0","j":0,"k":0,"l":false,"m":"","n":"",' +
      '"o":[0,0,0]}',
  );
  const edges = {
    a: [0, 255],
    b: [0, 65535],
    c: [0, 4294967295],
    d: [-128, 127],
    e: [-32768, 32767],
    f: [-2147483648, 2147483647],
    g: [0, 2 ** 32, Number.MAX_SAFE_INTEGER],
    h: [0n, 2n ** 64n - 1n],
    i: [-(2n ** 63n), 2n ** 63n - 1n],
    j: [Infinity, -Infinity, Math.fround(0.1), 3.4028234663852886e38, -3.4028234663852886e38, NaN],
    k: [-0, Number.MIN_VALUE, -Infinity, NaN, 0.1],
    l: [true, false],
    m: ["", "12345", "ä€"],
    n: [
      "\ufeffmark",
      "\ufeff and a long text behind the mark",
      "äöü",
      "日本語テキスト",
      "😀😀😀",
      "aé",
      "abcé",
      "abcdefgé",
      ...Array.from(
        { length: 40 },
        (_, n) => "abcdefghijklmnopqrstuvwxyz0123456789ABCDEF".slice(0, n),
      ),
      "x".repeat(63),
      "x".repeat(64),
      "x".repeat(65),
      "",
      "fifteen bytes..",
      "sixteen bytes...",
      long,
      "\0",
      "a\0b",
    ],
  };
  for (const [name, values] of Object.entries(edges)) {
    for (const value of values) {
      // The field's own type is checked below; here it is whatever the list holds.
      (p as unknown as Record<string, unknown>)[name] = value;
      assert.ok(Object.is((p as unknown as Record<string, unknown>)[name], value), name);
    }
  }
  // The last number that rounds to the largest of 32 bits.
  for (const sign of [1, -1]) {
    p.j = sign * 3.4028235677973362e38;
    assert.equal(p.j, sign * 3.4028234663852886e38);
  }
  // Neighbours are left alone.
  const kept = new All(heap, { a: 255, c: 4294967295, d: -1, f: -1 });
  kept.b = 0;
  kept.e = 0;
  assert.deepEqual([kept.a, kept.c, kept.d, kept.f], [255, 4294967295, -1, -1]);
});

test("what a field cannot hold is refused, naming field and value, and changes nothing", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const p = new All(heap, { n: long, m: "12345" });
  const before = JSON.stringify(p);
  const bad: Record<string, unknown[]> = {
    a: [
      -1,
      256,
      1.5,
      NaN,
      Symbol("s"),
      { valueOf: () => 5 },
      "1",
      null,
      undefined,
      1n,
      true,
      {},
      [],
      Infinity,
    ],
    b: [-1, 65536, 0.5, "1"],
    c: [-1, 4294967296, 0.5, "1", NaN],
    d: [-129, 128, 0.5, "1"],
    e: [-32769, 32768, "1"],
    f: [-2147483649, 2147483648, 0.1, "1", NaN],
    g: [-1, 2 ** 53, 0.5, NaN, "1", 1n, Infinity],
    h: [-1n, 2n ** 64n, 1, "1"],
    i: [-(2n ** 63n) - 1n, 2n ** 63n, 1],
    j: [3.4028235677973366e38, -3.4028235677973366e38, 1e39, -1e300, "1", 1n, null],
    k: ["1", 1n, null, undefined, {}],
    l: [0, 1, "true", null],
    m: ["123456", "€€", 1, null, "a\0", "\ud800"],
    n: [1, null, undefined, "\ud800", "\udc00x", `${long}\ud83d`, ["a"]],
    o: [[1, 2], [1, 2, 3, 4], 1, null, "abc"],
  };
  for (const [name, values] of Object.entries(bad)) {
    for (const value of values) {
      expectCode(
        () => (p as unknown as Record<string, unknown>)[name] = value,
        "INVALID_ARGUMENT",
        { message: new RegExp(`All\\.${name}\\b`) },
      );
      if (value === undefined) continue;
      expectCode(() => new All(heap, { [name]: value } as never), "INVALID_ARGUMENT", {
        message: new RegExp(`All\\.${name}\\b`),
      });
    }
  }
  expectCode(() => All.assign(p, { o: [1, 2, 99999] }), "INVALID_ARGUMENT", {
    message: /All\.o\[2\]/,
  });
  All.assign(p, { o: [0, 0, 0] });
  assert.equal(JSON.stringify(p), before);
  assert.equal(heap.stats().liveBlocks, 2);
  heap.check();
});

test("a struct that is refused while it is made leaves nothing allocated", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const before = heap.stats().liveBlocks;
  expectCode(
    () => new Node(heap, { name: long, id: -1 } as never),
    "INVALID_ARGUMENT",
    { message: /Node\.id/ },
  );
  expectCode(() => new Node(heap, { nme: "x" } as never), "INVALID_ARGUMENT", {
    message: /"nme".*no such field/,
  });
  for (const values of [5, "x", null, [1]]) {
    expectCode(() => new Node(heap, values as never), "INVALID_ARGUMENT", { message: /Node/ });
  }
  assert.equal(heap.stats().liveBlocks, before);
  for (const heapless of [null, undefined, {}, 5]) {
    expectCode(() => new Node(heapless as never), "INVALID_ARGUMENT", { message: /give a Heap/ });
  }
});

test("an object gives a struct its fields in any order; what is left out is zero, what is no field is refused", () => {
  const Spot = struct("Spot", { x: f64, y: u32, name: text });
  using heap = Heap.open({ file: null, size: 1 << 20 });
  const spots = new (HashMap(u32, Spot))(heap);
  const orders: object[] = [
    { x: 1, y: 2, name: "a" },
    { name: "a", y: 2, x: 1 },
    { x: 1, name: "a", y: 2 },
    Object.create({ name: "a" }, {
      x: { value: 1, enumerable: true },
      y: { value: 2, enumerable: true },
    }),
  ];
  for (const values of orders) {
    assert.deepEqual(new Spot(heap, values).toJSON(), { x: 1, y: 2, name: "a" });
    spots.set(1, { x: 9, y: 9, name: "a name that is too long for its slot" });
    assert.deepEqual(spots.set(1, values as never).get(1)!.toJSON(), { x: 1, y: 2, name: "a" });
  }
  const { x, y, name } = { x: 5, y: 6, name: "b" };
  for (
    const [values, wanted] of [
      [{ x, y }, { x, y, name: "" }],
      [{ x }, { x, y: 0, name: "" }],
      [{ y, name }, { x: 0, y, name }],
      [{ x, y: undefined, name }, { x, y: 0, name }],
      [{}, { x: 0, y: 0, name: "" }],
    ]
  ) {
    spots.set(1, { x: 9, y: 9, name: "a name that is too long for its slot" });
    assert.deepEqual(spots.set(1, values as never).get(1)!.toJSON(), wanted);
  }
  for (
    const values of [{ x, y, name, z: 1 }, { x, y, name, z: undefined }, { x, y, z: 1, name }, {
      z: 1,
    }, { x, z: 1 }]
  ) {
    expectCode(() => new Spot(heap, values as never), "INVALID_ARGUMENT", {
      message: /"z" in Spot/,
    });
    expectCode(() => spots.set(2, values as never), "INVALID_ARGUMENT", {
      message: /no such field/,
    });
    assert.equal(spots.has(2), false);
  }
  destroy(spots);
});

test("structs in structs are live views, and take objects and other structs as values", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const Pair = struct("Pair", { from: Node, to: Node, nums: array(Vec2, 2) });
  const p = new Pair(heap, { from: { id: 7, name: long, at: { x: 1 } } });
  const { at } = p.from;
  at.y = 2;
  assert.equal(p.from.at.y, 2);
  Node.assign(p.from, { id: undefined, name: undefined });
  assert.deepEqual([p.from.id, p.from.name], [7, long]);
  p.to = p.from;
  assert.equal(p.to.name, long);
  p.from.name = "other";
  assert.equal(p.to.name, long);
  Pair.assign(p, { to: { id: 9 } });
  assert.deepEqual([p.to.id, p.to.name, p.to.at.x], [9, "", 0]);
  p.nums.set(1, p.from.at);
  assert.deepEqual([...p.nums].map((v) => v.toJSON()), [{ x: 0, y: 0 }, { x: 1, y: 2 }]);
  const { to } = p;
  p.to = to;
  assert.equal(p.to.id, 9);
  expectCode(() => Pair.assign({} as never, {}), "INVALID_ARGUMENT");
  expectCode(() => p.to = at as never, "INVALID_ARGUMENT", { message: /Pair\.to/ });
  assert.equal(p.ptr, p.from.ptr);
  expectCode(() => destroy(p.from), "BAD_POINTER", { message: /stands in another/ });
  expectCode(() => destroy(p.to.at), "BAD_POINTER");
  destroy(p);
  assert.equal(heap.stats().liveBlocks, 0);
});

test("references lead to null, to themselves, around cycles and to structs declared later", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const a = new Node(heap, { id: 1 });
  const b = new Node(heap, { id: 2, next: a });
  assert.equal(a.next, null);
  a.next = b;
  assert.equal(a.next!.next!.next!.id, 2);
  assert.ok(a.next instanceof Node);
  a.next = a;
  assert.equal(a.next!.ptr, a.ptr);
  a.next = null;
  assert.equal(a.next, null);
  const he = new Husband(heap, { age: 40 });
  const she: ValueOf<typeof Wife> = new Wife(heap, { age: 41, husband: he });
  he.wife = she;
  const age: number = he.wife!.husband!.wife!.age;
  assert.equal(age, 41);
  expectCode(() => he.wife = he as never, "INVALID_ARGUMENT", { message: /Husband\.wife.*Wife/ });
  for (const bad of [undefined, 5, {}, "x", a.ptr]) {
    expectCode(() => a.next = bad as never, "INVALID_ARGUMENT", { message: /Node\.next/ });
  }
  using other = Heap.open({ size: 1 << 20 });
  const foreign = new Node(other);
  expectCode(() => a.next = foreign, "INVALID_ARGUMENT", { message: /another heap/ });
  using again = Heap.attach(heap.handle);
  a.next = new Node(again, { id: 5 });
  assert.equal(a.next!.id, 5);
});

test("TypeScript's types follow the schema", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const p = new Node(heap, { name: "x" });
  const name: string = p.name;
  const next: ValueOf<typeof Node> | null = p.next;
  assert.deepEqual([name, next], ["x", null]);
  const big: bigint = new All(heap).h;
  assert.equal(big, 0n);
  const refused = () => {
    // @ts-expect-error a string is no number
    p.id = "5";
    // @ts-expect-error undefined is no reference
    p.next = undefined;
    // @ts-expect-error there is no such field
    p.nothing = 1;
    // @ts-expect-error a number is no bigint
    new All(heap, { h: 5 });
    // @ts-expect-error a Wife is no Node
    p.next = new Wife(heap);
    // @ts-expect-error the address is not to be written
    p.ptr = 0;
  };
  assert.equal(typeof refused, "function");
});

test("a class that extends a struct has its fields, and can stand in other structs", () => {
  using heap = Heap.open({ size: 1 << 20 });
  class Vector extends struct("Vector", { x: f64, y: f64 }) {
    get length() {
      return Math.hypot(this.x, this.y);
    }
  }
  const Segment = struct("Segment", { from: Vector, to: Vector, other: ref(Vector) });
  const v = new Vector(heap, { x: 3, y: 4 });
  assert.equal(v.length, 5);
  assert.ok(v instanceof Vector);
  const s = new Segment(heap, { to: v, other: v });
  assert.equal(s.to.length, 5);
  assert.equal(s.other!.length, 5);
  assert.equal(Vector.at(heap, v.ptr).length, 5);
  assert.match(Segment.layout, /to: Vector @16/);
  class Other extends struct("Named", { x: f64 }) {}
  assert.match(struct("Holder", { it: Other }).layout, /it: Named @0/);
});

test("schemas that cannot be are refused", () => {
  const bad: [unknown, unknown, RegExp][] = [
    ["", { x: u8 }, /struct's name/],
    ["a b", { x: u8 }, /"a b"/],
    [5, { x: u8 }, /struct's name/],
    ["text", { x: u8 }, /"text".*has that name/],
    ["S", {}, /without fields/],
    ["S", null, /object of names/],
    ["S", [u8], /object of names/],
    ["S", { x: 5 }, /type of S\.x/],
    ["S", { x: undefined }, /type of S\.x/],
    ["S", { x: {} }, /type of S\.x/],
    ["S", { "1": u8 }, /"1"/],
    ["S", { "a-b": u8 }, /"a-b"/],
    ["S", { ptr: u8 }, /"ptr"/],
    ["S", { toJSON: u8 }, /"toJSON"/],
    ["S", { constructor: u8 }, /"constructor"/],
    ["S", { $at: u8 }, /\$at/],
    ["S", { [Symbol("x")]: u8 }, /Symbol/],
  ];
  for (const [name, schema, message] of bad) {
    expectCode(() => struct(name as never, schema as never), "INVALID_ARGUMENT", { message });
  }
  for (const n of [0, -1, 1.5, NaN, "3", 70000]) {
    expectCode(() => fixedText(n as never), "INVALID_ARGUMENT", { message: /fixedText/ });
  }
  for (const n of [0, -1, 1.5, NaN, "3"]) {
    expectCode(() => array(u8, n as never), "INVALID_ARGUMENT", { message: /array of u8/ });
  }
  expectCode(() => array(5 as never, 3), "INVALID_ARGUMENT", { message: /elements/ });
  expectCode(() => array(f64, 2 ** 30).size, "INVALID_ARGUMENT", { message: /1073741824 bytes/ });
  expectCode(() => ref(u8 as never), "INVALID_ARGUMENT", { message: /u8/ });
  const Self = struct("Self", {
    x: u8,
    get inner() {
      return array(Self, 2) as never;
    },
  });
  expectCode(() => Self.size, "INVALID_ARGUMENT", {
    message: /Self.*contains itself.*ref\(Self\)/,
  });
  const NoType = struct("NoType", {
    get x() {
      return 5 as never;
    },
  });
  expectCode(() => NoType.size, "INVALID_ARGUMENT", { message: /NoType\.x/ });
});

test("addresses that are no struct's are refused", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const p = new Node(heap, { id: 3 });
  assert.equal(Node.at(heap, p.ptr).id, 3);
  for (
    const bad of [0, -8, 8, NaN, 1.5, 2 ** 60, heap.address, heap.address + 2 ** 40, p.ptr + 1]
  ) {
    expectCode(() => Node.at(heap, bad), "BAD_POINTER");
  }
  for (const bad of ["5", null, undefined, {}, 5n]) {
    expectCode(() => Node.at(heap, bad as never), "INVALID_ARGUMENT");
  }
  // A reference that leads nowhere, as a stray write may leave it.
  heap.store(p.ptr + Node.fields[3].offset, 4096);
  expectCode(() => p.next, "BAD_POINTER");
  heap.store(p.ptr + Node.fields[3].offset, p.ptr + 4);
  expectCode(() => p.next, "BAD_POINTER", { message: /multiple of 8/ });
  const wide = new All(heap);
  const { offset } = All.fields.find(({ name }) => name === "g")!;
  heap.bytes(wide.ptr + offset, 8).fill(255);
  expectCode(() => wide.g, "INVALID_ARGUMENT", { message: /18446744073709551615 as a u53/ });
  expectCode(() => u53.get(...placeOf(wide as unknown as Handle, offset)), "INVALID_ARGUMENT", {
    message: /as a u53/,
  });
  heap.bytes(p.ptr + Node.fields[1].offset, 16).fill(99);
  expectCode(() => p.name, "CORRUPT", { message: /text slot/ });
});

test("a restore may move the heap while handles are out: they end", () => {
  using folder = new Folder();
  const file = folder.file("a.back");
  {
    using heap = Heap.open({ size: 1 << 20 });
    heap.bopen(file, "w+");
    heap.root = new Node(heap, { id: 5 }).ptr;
    heap.backup();
  }
  const heap = mopen(null, "w+", 1 << 20);
  const p = new Node(heap, { id: 6 });
  const { address } = heap;
  heap.bopen(file, "r+");
  heap.restore();
  assert.notEqual(heap.address, address);
  assert.throws(() => p.id);
  expectCode(() => p.ptr, "STALE");
  assert.equal(Node.at(heap, heap.root).id, 5);
  heap.close();
});

test("a handle ends with destroy, close and restore: it throws and never shows rubbish", () => {
  using folder = new Folder();
  const heap = Heap.open({ file: folder.file("a.perm"), size: 1 << 20 });
  const p = new Node(heap, { id: 1, name: long });
  heap.root = p.ptr;
  heap.flush();
  const q = new Node(heap, { id: 2, next: p });
  const inner = q.at;
  const fixed = new All(heap).o;
  destroy(q);
  const uses = (node: typeof q) => [
    () => node.id,
    () => node.id = 1,
    () => node.name,
    () => node.name = "x",
    () => node.name = long,
    () => node.next,
    () => node.next = null,
    () => node.at.x,
    () => Node.assign(node, { at: { x: 1 } }),
    () => JSON.stringify(node),
    () => [...node],
  ];
  for (const use of uses(q)) assert.throws(use);
  expectCode(() => q.ptr, "STALE");
  expectCode(() => destroy(q), "STALE");
  expectCode(() => p.next = q, "STALE");
  assert.match(inspect(q), /Node <ended>/);

  heap.restore();
  for (const use of uses(p)) assert.throws(use);
  assert.throws(() => inner.x);
  assert.throws(() => fixed.get(0));
  expectCode(() => p.ptr, "STALE");
  const again = Node.at(heap, heap.root);
  assert.equal(again.name, long);

  const { liveBlocks } = heap.stats();
  assert.throws(() => p.name = long);
  assert.equal(heap.stats().liveBlocks, liveBlocks);
  heap.close();
  for (const use of uses(again)) assert.throws(use);
  expectCode(() => new Node(heap), "CLOSED");
  expectCode(() => Node.at(heap, 4096), "CLOSED");
});

test("handles stay good while the heap grows under them", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const first = new Node(heap, { id: 1, name: long });
  const nodes = Array.from({ length: 40_000 }, (_, id) => new Node(heap, { id, next: first }));
  assert.ok(heap.capacity > 1 << 20);
  assert.equal(first.name, long);
  first.id = 77;
  assert.ok(nodes.every((node, id) => node.id === id && node.next!.id === 77));
});

test("structs beyond the first GiB of a heap are as good as others", { timeout: 60_000 }, () => {
  using heap = Heap.open({ size: 2 ** 33 });
  const gap = heap.malloc(3 * 2 ** 30);
  const far = new Node(heap, { id: 5, name: long });
  const near = new Node(heap, { id: 6, next: far });
  const p = gap + 2 ** 30 - 24;
  const between = Node.at(heap, p);
  between.id = 9;
  between.at.y = 4;
  assert.deepEqual([near.next!.name, Node.at(heap, p).at.y, Node.at(heap, p).id], [long, 4, 9]);
  between.next = far;
  assert.equal(between.next!.id, 5);
});

test("a struct shows its fields to loops, JSON and both runtimes' console", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const p = new Node(heap, { id: 1, name: "ann", at: { x: 1, y: 2 } });
  p.next = p;
  assert.deepEqual([...p].map(([name]) => name), ["id", "name", "at", "next"]);
  assert.equal(Object.fromEntries(p).name, "ann");
  const fields: string[] = [];
  // deno-lint-ignore guard-for-in
  for (const name in p) fields.push(name);
  assert.deepEqual(fields.filter((name) => !name.startsWith("$")), ["id", "name", "at", "next"]);
  const address = `0x${p.ptr.toString(16)}`;
  assert.deepEqual(p.toJSON(), { id: 1, name: "ann", at: { x: 1, y: 2 }, next: address });
  const shown = inspect(p).replaceAll(/\s+/g, " ");
  assert.match(
    shown,
    /^Node \{ id: 1, name: ['"]ann['"], at: Vec2 \{ x: 1, y: 2 \}, next: Node 0x/,
  );
  const { Deno } = globalThis as { Deno?: { inspect(value: unknown): string } };
  if (Deno !== undefined) {
    assert.match(Deno.inspect({ p }).replaceAll(/\s+/g, " "), /p: Node \{ id/);
  }
  assert.match(inspect(new All(heap)), /o: \[ 0, 0, 0 \]/);
  const custom = Symbol.for("nodejs.util.inspect.custom");
  const show = (p as unknown as Record<symbol, typeof inspect>)[custom].bind(p) as unknown as (
    depth: number,
    options: object,
    inspect: unknown,
  ) => string;
  assert.equal(show(-1, {}, inspect), "[Node]");
});

test("fixed arrays have bounds, iterate and fill", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const Grid = struct("Grid", { cells: array(array(f64, 3), 2), names: array(text, 2) });
  const g = new Grid(heap, { cells: [[1, 2, 3], [4, 5, 6]], names: ["a", long] });
  assert.deepEqual(g.cells.toJSON(), [[1, 2, 3], [4, 5, 6]]);
  assert.equal(g.cells.get(1).at(-1), 6);
  assert.equal(g.cells.at(5), undefined);
  assert.equal(g.cells.get(0).length, 3);
  for (const bad of [-1, 2, 0.5, NaN, "0"]) {
    expectCode(() => g.cells.get(bad as never), "INVALID_ARGUMENT", { message: /element/ });
    expectCode(() => g.names.set(bad as never, "x"), "INVALID_ARGUMENT");
  }
  expectCode(() => g.names.set(0, 5 as never), "INVALID_ARGUMENT", { message: /element 0/ });
  const { cells } = g;
  assert.throws(() => (cells as { length: number }).length = 9, TypeError);
  assert.equal(cells.length, 2);
  assert.deepEqual([...g.cells.get(0).fill(7)], [7, 7, 7]);
  Grid.assign(g, { names: ["b", "c"] });
  destroy(g);
  assert.equal(heap.stats().liveBlocks, 0);
});

test("long texts are freed when they are replaced, shortened and destroyed", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const p = new Node(heap);
  for (let round = 0; round < 100; round++) {
    p.name = long + round;
    assert.equal(p.name, long + round);
    assert.equal(heap.stats().liveBlocks, 2);
  }
  p.name = "short";
  assert.equal(heap.stats().liveBlocks, 1);
  const huge = "x€".repeat(100_000);
  p.name = huge;
  assert.equal(p.name, huge);
  destroy(p);
  assert.equal(heap.stats().liveBlocks, 0);
  heap.check();
});
