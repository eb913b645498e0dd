// Roots, their stored schemas and migrations; what nothing reaches.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Heap, mopen, PermError } from "../mod.ts";
import {
  array,
  collect,
  destroy,
  f64,
  fixedText,
  HashMap,
  leaks,
  List,
  migration,
  OrderedMap,
  ref,
  roots,
  struct,
  Text,
  text,
  u32,
  u8,
  Vec,
} from "../data/mod.ts";
import { rootsOf } from "../data/roots.ts";
import { schemaOf, typeOfSchema } from "../data/schema.ts";
import { elsewhere, expectCode, expectWell, Folder, otherRuntime } from "./support.ts";

const long = "a text that is too long to stand in its slot";
const Vec2 = struct("Vec2", { x: f64, y: f64 });
const Node = struct("Node", {
  id: u32,
  name: text,
  at: Vec2,
  tags: array(text, 2),
  get next() {
    return ref(Node);
  },
});
const Other = struct("Other", { node: ref(Node), code: fixedText(3) });

test("roots are set, listed, replaced and deleted", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const all = roots(heap);
  assert.equal(roots(heap), all);
  assert.deepEqual(all.names(), []);
  assert.equal(all.get("a", Node), undefined);
  const before = heap.stats().liveBlocks;
  const names = ["b", "a", "a name that is too long for its slot", "ä€"];
  for (const [id, name] of names.entries()) all.set(name, new Node(heap, { id, name: long }));
  assert.deepEqual(all.names(), names.toSorted());
  for (const [id, name] of names.entries()) assert.equal(all.get(name, Node)!.id, id);
  const kept = all.get("a", Node)!;
  const other = new Other(heap, { node: kept, code: "xyz" });
  all.set("a", other);
  assert.equal(all.get("a", Other)!.node!.id, 1);
  assert.ok(all.has("a"));
  assert.match(all.layout("a")!, /^Other\nstruct Other \{.*\nstruct Node \{.*\nstruct Vec2 \{/);
  assert.equal(all.delete("a"), true);
  assert.equal(all.delete("a"), false);
  assert.equal(all.layout("a"), undefined);
  assert.ok(!all.has("a"));
  assert.equal(kept.id, 1);
  destroy(other);
  destroy(kept);
  for (const name of all.names()) {
    const root = all.get(name, Node)!;
    assert.ok(all.delete(name));
    destroy(root);
  }
  assert.deepEqual(all.names(), []);
  assert.equal(heap.stats().liveBlocks, before);
  const made = all.open("made", Vec2);
  made.x = 5;
  assert.equal(all.open("made", Vec2).x, 5);
  expectWell(heap);
});

test(
  "a root outlives its process, and the other runtime finds it",
  { timeout: 60_000 },
  async () => {
    using folder = new Folder();
    const file = folder.file("a.perm");
    {
      using heap = Heap.open({ file, size: 1 << 20 });
      const first = roots(heap).open("first", Node);
      Node.assign(first, { id: 7, name: long, tags: ["x", long], next: first });
      heap.flush();
      first.id = 8;
    }
    const seen = await elsewhere(otherRuntime, async (_tools, file: string) => {
      const { Heap } = await import("../mod.ts");
      const { array, f64, ref, roots, struct, text, u32 } = await import("../data/mod.ts");
      const Vec2 = struct("Vec2", { x: f64, y: f64 });
      const Node = struct("Node", {
        id: u32,
        name: text,
        at: Vec2,
        tags: array(text, 2),
        get next() {
          return ref(Node);
        },
      });
      using heap = Heap.open({ file, size: 1 << 20 });
      const node = roots(heap).get("first", Node)!;
      node.next!.at.x = 3;
      heap.flush();
      return [node.id, node.name, node.tags.get(1), roots(heap).names()];
    }, file);
    assert.deepEqual(seen, [7, long, long, ["first"]]);
    using heap = Heap.open({ file, size: 1 << 20 });
    assert.equal(roots(heap).get("first", Node)!.at.x, 3);
  },
);

test("a heap that may only be read shows its roots, and none where there are none", () => {
  using folder = new Folder();
  for (const file of [folder.file("none.perm"), folder.file("one.perm")]) {
    {
      using heap = Heap.open({ file, size: 1 << 20 });
      heap.calloc(1, 8);
      if (file.includes("one")) roots(heap).open("v", Vec2).y = 2;
      heap.flush();
    }
    const heap = mopen(file, "r");
    assert.equal(roots(heap).get("v", Vec2)?.y, file.includes("one") ? 2 : undefined);
    assert.deepEqual(roots(heap).names(), file.includes("one") ? ["v"] : []);
    expectCode(() => roots(heap).open("new", Vec2), "READ_ONLY");
    assert.equal(leaks(heap).length, 1);
    heap.close();
  }
});

test("another layout is refused with both shown, wherever in the schema it differs", () => {
  using heap = Heap.open({ size: 1 << 20 });
  roots(heap).open("it", Other);
  const Far = struct("Vec2", { x: f64, z: f64 });
  const Near = struct("Node", {
    id: u32,
    name: text,
    at: Far,
    tags: array(text, 2),
    get next() {
      return ref(Near);
    },
  });
  const Changed = struct("Other", { node: ref(Near), code: fixedText(3) });
  assert.equal(Changed.layout, Other.layout);
  const error = expectCode(() => roots(heap).get("it", Changed), "LAYOUT_MISMATCH", {
    message: /"it".*another layout/,
  });
  assert.match(error.message, /stored: Other\n[^]*Vec2 \{ x: f64 @0; y: f64 @8 \}/);
  assert.match(error.message, /given: {2}Other\n[^]*Vec2 \{ x: f64 @0; z: f64 @8 \}/);
  expectCode(() => roots(heap).open("it", Vec2), "LAYOUT_MISMATCH");
  assert.ok(roots(heap).get("it", Other));
  const same = struct("Vec2", { x: f64, y: f64 });
  roots(heap).open("v", Vec2).x = 4;
  assert.equal(roots(heap).get("v", same)!.x, 4);
});

test("bad roots are refused", () => {
  using heap = Heap.open({ size: 1 << 20 });
  using other = Heap.open({ size: 1 << 20 });
  const all = roots(heap);
  const node = new Node(heap);
  for (const name of ["", 5, null, undefined, "\ud800", {}]) {
    expectCode(() => all.set(name as never, node), "INVALID_ARGUMENT", { message: /root's name/ });
    expectCode(() => all.get(name as never, Node), "INVALID_ARGUMENT");
    expectCode(() => all.delete(name as never), "INVALID_ARGUMENT");
  }
  for (const value of [5, null, {}, "x", Node, [node]]) {
    expectCode(() => all.set("x", value as never), "INVALID_ARGUMENT", { message: /as a root/ });
  }
  expectCode(() => all.set("x", node.at), "INVALID_ARGUMENT", { message: /stands in another/ });
  expectCode(() => all.set("x", new Node(other)), "INVALID_ARGUMENT", { message: /another heap/ });
  expectCode(() => all.get("x", f64 as never), "INVALID_ARGUMENT");
  destroy(node);
  expectCode(() => all.set("x", node), "STALE");
  expectCode(() => roots({} as never), "INVALID_ARGUMENT");
  assert.deepEqual(all.names(), []);
  const A = struct("Twice", { x: u8 });
  const B = struct("Twice", { x: u32 });
  const Both = struct("Both", { a: A, b: ref(B) });
  expectCode(() => all.open("both", Both), "INVALID_ARGUMENT", {
    message: /two different structs named Twice/,
  });
});

test("migrations lead from any older layout to the newest, or change nothing", () => {
  const V1 = struct("User", { name: text });
  const V2 = struct("User", { name: text, age: u8 });
  const V3 = struct("User", { first: text, last: text, age: u8 });
  const one = migration(V1, (old, heap) => new V2(heap, { name: old.name, age: 1 }));
  const two = migration(V2, (old, heap) => {
    const [first, last] = old.name.split(" ");
    return new V3(heap, { first, last, age: old.age + 1 });
  });
  using heap = Heap.open({ size: 1 << 20 });
  const all = roots(heap);
  all.open("none", Vec2);
  const empty = heap.stats().liveBlocks;
  const name = "Wolfgang-Amadeus Mozart-Berchtold";
  for (const steps of [[one, two], [two, one]]) {
    all.open("user", V1).name = name;
    const before = heap.stats().liveBlocks;
    expectCode(() => all.get("user", V3, [two]), "LAYOUT_MISMATCH", { message: /no migration/ });
    const broken = migration(V2, (): object => {
      throw new RangeError("broken");
    });
    assert.throws(() => all.get("user", V3, [one, broken]), RangeError);
    for (const result of [undefined, 5, {}]) {
      const bad = migration(V1, () => result as never);
      expectCode(() => all.get("user", V3, bad), "INVALID_ARGUMENT");
    }
    const circle = [one, migration(V2, (old, heap) => new V1(heap, { name: old.name }))];
    expectCode(() => all.get("user", V3, circle), "LAYOUT_MISMATCH");
    assert.equal(heap.stats().liveBlocks, before);
    assert.equal(all.get("user", V1)!.name, name);

    const user = all.get("user", V3, steps)!;
    assert.deepEqual(user.toJSON(), {
      first: "Wolfgang-Amadeus",
      last: "Mozart-Berchtold",
      age: 2,
    });
    assert.equal(all.get("user", V3)!.first, "Wolfgang-Amadeus");
    assert.deepEqual(leaks(heap), []);
    assert.deepEqual(all.names(), ["none", "user"]);
    all.delete("user");
    destroy(user);
    assert.equal(heap.stats().liveBlocks, empty);
  }
  expectCode(() => migration(V1, 5 as never), "INVALID_ARGUMENT");
  expectCode(() => migration(5 as never, () => ({})), "INVALID_ARGUMENT");
});

test("a migration destroys what it made, and nothing that a root names", () => {
  const V1 = struct("User", { name: text });
  const V2 = struct("User", { name: text, age: u8 });
  const V3 = struct("User", { name: text, age: u8, size: u8 });
  const name = "a name too long to stand in its slot";
  using heap = Heap.open({ size: 1 << 20 });
  const all = roots(heap);
  all.set("old", new V1(heap, { name }));
  all.set("same", all.get("old", V1)!);
  all.set("other", new V2(heap, { name }));
  const before = heap.stats().liveBlocks;
  const broken = migration(V2, (): object => {
    throw new RangeError("broken");
  });
  // The old object itself, by its handle and by another one, and that of another root.
  expectCode(() => all.get("old", V2, migration(V1, (old) => old)), "LAYOUT_MISMATCH");
  const again = migration(V1, () => all.get("old", V1)!);
  expectCode(() => all.get("old", V2, [again, again]), "LAYOUT_MISMATCH");
  const borrowed = migration(V1, () => all.get("other", V2)!);
  assert.throws(() => all.get("old", V3, [borrowed, broken]), RangeError);
  assert.deepEqual([all.get("old", V1)!.name, all.get("other", V2)!.name], [name, name]);
  assert.equal(heap.stats().liveBlocks, before);

  // On the way to another layout, that of another root stays as well.
  const grown = migration(V2, (old, heap) => new V3(heap, { name: old.name, age: 7 }));
  assert.equal(all.get("old", V3, [borrowed, grown])!.age, 7);
  assert.deepEqual([all.get("same", V1)!.name, all.get("other", V2)!.name], [name, name]);
  const one = migration(V1, (old, heap) => {
    const made = new V2(heap, { name: old.name });
    destroy(old);
    return made;
  });
  assert.equal(all.get("same", V2, one)!.name, name);
  assert.deepEqual(leaks(heap), []);
  heap.check();
});

test("a migration in which the heap is closed or restored ends with an error, and changes nothing", () => {
  using folder = new Folder();
  const V1 = struct("User", { name: text });
  const V2 = struct("User", { name: text, age: u8 });
  const heap = Heap.open({ file: folder.file("a"), size: 1 << 20 });
  roots(heap).set("user", new V1(heap, { name: "ann" }));
  heap.flush();
  for (const end of [() => heap.restore(), () => heap.close()]) {
    const step = migration(V1, (old, heap) => {
      const made = new V2(heap, { name: old.name });
      end();
      return made;
    });
    expectCode(() => roots(heap).get("user", V2, step), "STALE");
  }
  using again = Heap.open({ file: folder.file("a"), size: 1 << 20 });
  assert.equal(roots(again).get("user", V1)!.name, "ann");
});

test("a list of roots that leads in a circle is CORRUPT, however long the circle", () => {
  for (const length of [1, 2, 3, 7, 8, 100]) {
    using heap = Heap.open({ size: 1 << 20 });
    const all = roots(heap);
    for (let i = 0; i < length; i++) all.set(`root ${i}`, new Other(heap));
    const last = Array.from(rootsOf(heap)).at(-1)!;
    for (const target of [rootsOf(heap)[0], rootsOf(heap)[length >> 1], last]) {
      last.next = target;
      for (const action of [() => all.names(), () => all.has("none"), () => leaks(heap)]) {
        expectCode(action, "CORRUPT", { message: /in a circle/ });
      }
      assert.ok(all.has("root 0"));
      last.next = null;
    }
  }
});

test("a schema's text is a type again", () => {
  for (const type of [Other, Node, array(array(Other, 2), 3)]) {
    const { text } = schemaOf(type as never);
    assert.equal(schemaOf(typeOfSchema(text)).text, text);
  }
  const { text } = schemaOf(Other as never);
  for (
    const bad of [
      "",
      "Nothing",
      "array(u8)",
      "array(u8, 3",
      "ref()",
      "u8)",
      text.replace("@0", "@8"),
      text.replace("{", "("),
      text.replace("; ", ";"),
      text.replace("u32", "u99"),
    ]
  ) assert.throws(() => typeOfSchema(bad).size, `schema ${bad}`);
});

test("a schema that no program wrote is an error, soon and without filling the stack", () => {
  const nested = (depth: number) => "Vec(".repeat(depth) + "f64" + ")".repeat(depth);
  const doubled = Array.from({ length: 40 }, (_, i) => {
    return `struct A${i} { a: A${i + 1} @0; b: A${i + 1} @8 } 16 bytes`;
  }).join("\n");
  const schemas = [
    ...[nested(501), nested(100_000), `A0\n${doubled}\nstruct A40 { x: u8 @0 } 1 bytes`],
    ...["", "5", "Vec()", "Vec(5)", "HashMap(u8)", "ref(u8)", "array(u8, 0)", "fixedText(1e9)"],
    ...["__proto__", "constructor", "\0", "A\nstruct A { a: A @0 } 8 bytes"],
    ...[
      "A\nstruct A { x: array(u8, 99999999999) @0 } 8 bytes",
      "S\nstruct S { a: f64 @8 } 8 bytes",
    ],
    ...["A\nstruct A { ptr: u8 @0 } 1 bytes", "Vec\nstruct Vec { a: u8 @0 } 1 bytes"],
  ];
  for (const schema of schemas) {
    using heap = Heap.open({ size: 1 << 20 });
    roots(heap).set("other", new Other(heap));
    rootsOf(heap)[0].schema = schema;
    const known = ["CORRUPT", "INVALID_ARGUMENT", "UNSUPPORTED"];
    assert.throws(
      () => leaks(heap),
      (error: unknown) => error instanceof PermError && known.includes(error.code),
      schema.slice(0, 60),
    );
    expectWell(heap);
  }
  assert.equal(typeOfSchema(nested(500)).name, nested(500));
});

test("leaks are what nothing reaches, and collect frees them", () => {
  using heap = Heap.open({ size: 1 << 20 });
  assert.deepEqual(leaks(heap), []);
  const root = roots(heap).open("root", Other);
  const first = new Node(heap, { name: long, tags: [long, "short"] });
  root.node = first;
  first.next = new Node(heap, { name: long, next: first });
  const ring = new Node(heap, { tags: ["", long] });
  ring.next = new Node(heap, { next: ring });
  assert.deepEqual(
    new Set(leaks(heap).map(({ address }) => address)),
    new Set([ring.ptr, ring.next!.ptr, heap.load(ring.ptr + Node.fields[3].offset + 16)]),
  );
  assert.ok(leaks(heap).every(({ size }) => size >= 32));
  const bytes = leaks(heap).reduce((sum, { size }) => sum + size, 0);
  assert.deepEqual(collect(heap), { blocks: 3, bytes });
  assert.deepEqual(collect(heap), { blocks: 0, bytes: 0 });
  assert.equal(root.node!.next!.next!.name, long);
  first.next = null;
  assert.equal(leaks(heap).length, 2);
  root.node = null;
  assert.equal(collect(heap).blocks, 5);
  expectWell(heap);
});

test("what is kept without types is no leak", () => {
  using heap = Heap.open({ size: 1 << 20 });
  roots(heap).open("root", Vec2);
  const chain = Array.from({ length: 5 }, () => heap.calloc(1, 64));
  chain.forEach((p, index) => heap.store(p + 8 * index, chain[index + 1] ?? 0));
  heap.root = chain[0] + 4;
  const named = heap.global("named", Uint32Array, 4);
  const held = heap.calloc(1, 100_000);
  const behind = heap.calloc(1, 10);
  heap.store(held + 99_000, behind);
  named[2] = held % 2 ** 32;
  named[3] = Math.floor(held / 2 ** 32);
  const target = new Float64Array(4);
  heap.perm("registered", target);
  assert.deepEqual(leaks(heap), []);
  heap.store(chain[2] + 16, 0);
  assert.deepEqual(leaks(heap).map(({ address }) => address).sort(), chain.slice(3).sort());
  named[2] = 0;
  assert.equal(collect(heap).blocks, 4);
  heap.free(chain[1]);
  expectWell(heap);
});

test("references into other objects, to two types at one place and to nothing are followed safely", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const Outer = struct("Outer", { first: Vec2, name: text, second: Vec2 });
  const Views = struct("Views", { a: ref(Vec2), b: ref(Vec2), whole: ref(Outer), gone: ref(Node) });
  const outer = new Outer(heap, { name: long });
  const gone = new Node(heap, { name: long });
  const views = roots(heap).open("views", Views);
  Views.assign(views, { a: outer.first, b: outer.second, gone });
  assert.equal(leaks(heap).length, 1, "the text of an outer object that only its parts keep");
  views.whole = outer;
  assert.deepEqual(leaks(heap), []);
  const behind = new Node(heap);
  gone.next = behind;
  assert.deepEqual(leaks(heap), []);
  // Freed without being emptied, as C would: what it referred to is reached no more.
  gone.name = "";
  heap.free(gone.ptr);
  assert.deepEqual(leaks(heap).map(({ address }) => address), [behind.ptr]);
  destroy(behind);
  const Inner = struct("Inner", {
    get self() {
      return ref(Inner);
    },
  });
  const Around = struct("Around", { n: f64, inner: Inner });
  const around = roots(heap).open("around", Around);
  around.inner.self = around.inner;
  assert.deepEqual(leaks(heap), []);
  views.a = null;
  views.whole = null;
  views.b = null;
  views.gone = null;
  assert.equal(collect(heap).blocks, 2);
});

test("a list of a hundred thousand is searched without recursion", { timeout: 60_000 }, () => {
  using heap = Heap.open({ size: 64 << 20 });
  let head: InstanceType<typeof Node> | null = null;
  for (let id = 0; id < 100_000; id++) head = new Node(heap, { id, next: head });
  roots(heap).set("head", head!);
  assert.deepEqual(leaks(heap), []);
  roots(heap).delete("head");
  assert.equal(collect(heap).blocks, 100_000);
});

test("containers of containers are walked, and go with what owns them", () => {
  using heap = Heap.open({ size: 1 << 20 });
  roots(heap).names();
  const empty = heap.stats().liveBlocks;
  const User = struct("User", {
    name: text,
    tags: Vec(text),
    get boss() {
      return ref(User);
    },
  });
  const All = struct("All", {
    users: HashMap(text, User),
    byAge: OrderedMap(u8, ref(User)),
    log: Text,
    queue: List(User),
  });
  const all = roots(heap).open("all", All);
  all.users.set(`ann, ${long}`, { name: `ann, ${long}`, tags: ["x", long] });
  all.users.set("bob", { name: "bob" });
  all.queue.push({ name: long, tags: [long] });
  all.log.append(long);
  const boss = new User(heap, { name: long, tags: [long, "", long] });
  all.users.get("bob")!.boss = boss;
  all.byAge.set(60, boss);
  assert.deepEqual(leaks(heap), []);
  all.users.get("bob")!.boss = null;
  assert.deepEqual(leaks(heap), []);
  all.byAge.clear();
  // The boss, his name, the vector's elements and two long tags.
  assert.equal(collect(heap).blocks, 5);
  const Newer = struct("All", { users: HashMap(text, User), log: Text });
  const newer = roots(heap).get(
    "all",
    Newer,
    migration(All, (old, heap) => {
      const made = new Newer(heap);
      for (const [name, user] of old.users) made.users.set(name, user);
      return made;
    }),
  )!;
  assert.deepEqual([...newer.users.get(`ann, ${long}`)!.tags], ["x", long]);
  assert.deepEqual(leaks(heap), []);
  roots(heap).delete("all");
  destroy(newer);
  assert.equal(heap.stats().liveBlocks, empty);
  expectWell(heap);
});
