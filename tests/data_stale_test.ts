/**
 * Where docs/data.md says that a stale handle is noticed it is, whatever the handle is of and whatever
 * it is asked; where the docs say that it is not, what happens is what they say.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import {
  array,
  destroy,
  f64,
  fixedText,
  HashMap,
  leaks,
  List,
  Mutex,
  OrderedMap,
  ref,
  roots,
  RwLock,
  struct,
  Text,
  text,
  u32,
  u64,
  Vec,
} from "../data/mod.ts";
import { Heap, PermError } from "../mod.ts";
import { expectCode, Folder, Thread } from "./support.ts";

// deno-lint-ignore no-explicit-any
type Any = any;

const Part = struct("Part", { a: f64 });
const Whole = struct("Whole", {
  id: u32,
  big: u64,
  name: text,
  short: text,
  none: text,
  fixed: fixedText(4),
  part: Part,
  three: array(u32, 3),
  get next() {
    return ref(Whole);
  },
  list: Vec(u32),
  map: HashMap(text, Part),
  lock: Mutex,
});
const long = "a text that is too long for its slot";

function makeWhole(heap: Heap): InstanceType<typeof Whole> {
  const whole = new Whole(heap, {
    id: 7,
    name: long,
    short: "ann",
    part: { a: 1 },
    three: [1, 2, 3],
  });
  whole.next = whole;
  whole.list.push(1);
  whole.map.set("key", { a: 2 });
  return whole;
}

/** How to make each kind of handle, and what it can be asked besides what all can. */
const kinds: Record<string, [make: (heap: Heap) => Any, uses: ((it: Any) => unknown)[]]> = {
  struct: [makeWhole, [
    (it) => it.id,
    (it) => it.short,
    (it) => it.none,
    (it) => it.id = 1,
    (it) => it.big,
    (it) => it.big = 1n,
    (it) => it.name,
    (it) => it.name = "short",
    (it) => it.name = long,
    (it) => it.fixed,
    (it) => it.fixed = "a",
    (it) => it.part.a,
    (it) => it.part = { a: 1 },
    (it) => it.three.get(0),
    (it) => it.next,
    (it) => it.next = null,
    (it) => it.next = it,
    (it) => it.list.length,
    (it) => it.list.push(1),
    (it) => it.map.get("key"),
    (it) => it.map.set("key", { a: 1 }),
    (it) => it.lock.tryLock(),
    (it) => Whole.assign(it, { id: 1 }),
    (it) => JSON.stringify(it),
    (it) => [...it],
  ]],
  part: [(heap) => makeWhole(heap).part, [(it) => it.a, (it) => it.a = 1, (it) => [...it]]],
  value: [(heap) => makeWhole(heap).map.get("key"), [(it) => it.a, (it) => it.a = 1]],
  array: [(heap) => makeWhole(heap).three, [
    (it) => it.get(0),
    (it) => it.set(0, 1),
    (it) => it.fill(1),
    (it) => JSON.stringify(it),
    (it) => [...it],
  ]],
  field: [(heap) => makeWhole(heap).list, [(it) => it.get(0), (it) => it.push(1)]],
  vec: [(heap) => new (Vec(u32))(heap, [1, 2, 3]), [
    (it) => it.length,
    (it) => it.get(0),
    (it) => it.at(0),
    (it) => it.set(0, 1),
    (it) => it.push(1),
    (it) => it.pushAll([1]),
    (it) => it.pop(),
    (it) => it.sort(),
    (it) => it.toTypedArray(),
    (it) => it.reserve(99),
    (it) => it.clear(),
    (it) => JSON.stringify(it),
    (it) => [...it],
  ]],
  list: [(heap) => new (List(text))(heap, ["a", long]), [
    (it) => it.length,
    (it) => it.at(0),
    (it) => it.push("a"),
    (it) => it.pop(),
    (it) => it.reverse(),
    (it) => it.clear(),
    (it) => JSON.stringify(it),
    (it) => [...it],
  ]],
  map: [(heap) => new (HashMap(u32, f64))(heap, [[1, 2]]), [
    (it) => it.size,
    (it) => it.get(1),
    (it) => it.get(2),
    (it) => it.has(1),
    (it) => it.set(1, 1),
    (it) => it.delete(1),
    (it) => it.clear(),
    (it) => JSON.stringify(it),
    (it) => [...it],
  ]],
  ordered: [(heap) => new (OrderedMap(text, f64))(heap, [["a", 1]]), [
    (it) => it.size,
    (it) => it.get("a"),
    (it) => it.set("b", 1),
    (it) => it.delete("a"),
    (it) => it.first(),
    (it) => [...it.range("a")],
    (it) => [...it.prefix("a")],
    (it) => [...it],
  ]],
  text: [(heap) => new Text(heap, "hello"), [
    (it) => it.length,
    (it) => String(it),
    (it) => it.append("a"),
    (it) => it.set("a"),
    (it) => it.indexOf("h"),
    (it) => JSON.stringify(it),
  ]],
  mutex: [(heap) => new Mutex(heap), [
    (it) => it.lock().release(),
    (it) => it.tryLock()?.release(),
  ]],
  lock: [(heap) => new RwLock(heap), [
    (it) => it.read().release(),
    (it) => it.tryWrite()?.release(),
  ]],
};
/** What stands in another object goes with it, and is not destroyed alone. */
const parts = ["part", "value", "array", "field"];

function isRefused(error: unknown, codes: string[]): boolean {
  return error instanceof PermError ? codes.includes(error.code) : error instanceof TypeError;
}

const ends: Record<string, (heap: Heap, handle: object) => void> = {
  "close()": (heap) => heap.close(),
  "restore()": (heap) => void heap.restore(),
  "restore() to an earlier epoch": (heap) => void heap.restore({ epoch: 1 }),
  "destroy()": (_, handle) => destroy(handle),
};

for (const [event, end] of Object.entries(ends)) {
  test(`after ${event} every use of every handle of before is refused`, () => {
    using folder = new Folder();
    const file = folder.file("a.perm");
    const open = () => Heap.open({ file, size: 1 << 20, keep: 2 });
    let heap = open();
    heap.root = heap.malloc(16);
    heap.flush();
    for (const [kind, [make, uses]] of Object.entries(kinds)) {
      if (event === "destroy()" && parts.includes(kind)) {
        const part = make(heap);
        expectCode(() => destroy(part), "BAD_POINTER", { message: /it stands in another one/ });
        continue;
      }
      const handle = make(heap);
      // A lookup in a row that TypeScript answers alone, the iterator's batch, and the like.
      for (let i = 0; i < 20; i++) for (const use of uses.slice(0, 2)) use(handle);
      roots(heap).set("kept", new Part(heap));
      heap.flush();
      end(heap, handle);
      const before = event === "close()" ? undefined : heap.stats().liveBlocks;
      for (const use of [...uses, (it: object) => roots(heap).set("it", it)]) {
        assert.throws(
          () => use(handle),
          (error) => isRefused(error, ["STALE", "CLOSED"]),
          `${kind}: ${use}`,
        );
      }
      expectCode(() => handle.ptr, "STALE");
      expectCode(() => destroy(handle), "STALE");
      assert.match(inspect(handle), /<ended>/, kind);
      // Nothing was allocated on the way to the refusal.
      if (before !== undefined) assert.equal(heap.stats().liveBlocks, before, kind);
      heap.close();
      heap = open();
      heap.check();
    }
    heap.close();
  });
}

test("an object that another handle destroyed reads as empty, is no root, and is not freed twice", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const before = heap.stats().liveBlocks;
  const whole = makeWhole(heap);
  const other = Whole.at(heap, whole.ptr);
  const { part, three, list } = whole;
  destroy(other);
  assert.throws(() => other.id);
  // Not noticed: as in C, but zeroed, and so long as nobody got the block.
  assert.deepEqual([whole.id, whole.big, whole.name, whole.next], [0, 0n, "", null]);
  assert.deepEqual([part.a, [...three], [...list], whole.map.size], [0, [0, 0, 0], [], 0]);
  expectCode(() => destroy(whole), "DOUBLE_FREE");
  expectCode(() => roots(heap).set("whole", whole), "STALE", { message: /it was destroyed/ });
  assert.equal(heap.stats().liveBlocks, before);
  heap.check();
});

test("what stood in a container reads what stands there now, and nothing crashes", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const map = new (HashMap(u32, Part))(heap, [[1, { a: 1 }], [2, { a: 2 }]]);
  const [one, two] = [map.get(1)!, map.get(2)!];
  map.delete(1);
  assert.equal(two.a, 2);
  map.set(3, { a: 3 });
  assert.equal(one.a, 3);
  const vec = new (Vec(Part))(heap, [{ a: 1 }, { a: 2 }]);
  const second = vec.get(1);
  vec.unshift({ a: 0 });
  assert.equal(second.a, 1);
  for (let i = 0; i < 1000; i++) vec.push({ a: i });
  assert.equal(typeof second.a, "number");
  for (const it of [map, vec]) destroy(it);
  assert.equal(typeof one.a, "number");
  heap.check();
});

test("handles do not notice a restore by another thread: they show what was restored", {
  timeout: 60_000,
}, async () => {
  using folder = new Folder();
  using heap = Heap.open({ file: folder.file("a.perm"), size: 1 << 20 });
  const part = roots(heap).open("part", Part);
  part.a = 1;
  heap.flush();
  part.a = 2;
  using thread = new Thread();
  await thread.attach(heap);
  await thread.run(({ state }) => void state.heap.restore());
  assert.equal(part.a, 1);
  part.a = 3;
  assert.equal(roots(heap).get("part", Part)!.a, 3);
  await thread.run(({ state }) => state.heap.close());
  heap.check();
});

test("a lock tells JSON nothing and the console its name", () => {
  using heap = Heap.open({ size: 1 << 20 });
  const Account = struct("Account", { lock: Mutex, shared: RwLock, n: u32 });
  const account = new Account(heap, { n: 1 });
  assert.equal(JSON.stringify(account), '{"n":1}');
  assert.match(inspect(account), /lock: Mutex at 0x[0-9a-f]+,\s+shared: RwLock at 0x/);
  const accounts = new (Vec(Account))(heap, [{ n: 2 }, { n: 3 }]);
  accounts.push(accounts.shift() as Any);
  assert.deepEqual(Array.from(accounts, ({ n }) => n), [3, 2]);
  roots(heap).set("accounts", accounts);
  roots(heap).set("account", account);
  assert.deepEqual(leaks(heap), []);
});
