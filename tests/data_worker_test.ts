/**
 * Typed data in several Workers at once: each with containers of its own while other threads commit,
 * all with one container under a lock.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  f64,
  HashMap,
  leaks,
  List,
  OrderedMap,
  roots,
  RwLock,
  struct,
  Text,
  text,
  u32,
  Vec,
} from "../data/mod.ts";
import { Heap, type PermError } from "../mod.ts";
import { eventually, expectCode, expectRejects, Folder, Thread, tryClose } from "./support.ts";

const timeout = 120_000;
const Point = struct("Point", { x: f64, name: text });
const Mine = struct("Mine", {
  map: HashMap(text, Point),
  numbers: HashMap(u32, u32),
  ordered: OrderedMap(f64, text),
  vec: Vec(Point),
  list: List(text),
  story: Text,
  rounds: u32,
});
type Mine = InstanceType<typeof Mine>;

/** Fills a Worker's own containers: many keys, growth, removals, long and short texts. */
async function work(
  { state }: { state: Record<string, unknown> },
  name: string,
  rounds: number,
): Promise<void> {
  const { f64, HashMap, List, OrderedMap, roots, struct, Text, text, u32, Vec } = await import(
    "../data/mod.ts"
  );
  const Point = struct("Point", { x: f64, name: text });
  const Mine = struct("Mine", {
    map: HashMap(text, Point),
    numbers: HashMap(u32, u32),
    ordered: OrderedMap(f64, text),
    vec: Vec(Point),
    list: List(text),
    story: Text,
    rounds: u32,
  });
  const mine = roots(state.heap as Heap).get(name, Mine)!;
  const { map, numbers, ordered, vec, list, story } = mine;
  for (let i = 0; i < rounds; i++) {
    const long = `${name} wrote number ${i}, which is more than a slot holds`;
    map.set(i % 3 ? `key ${i}` : long, { x: i, name: long });
    numbers.set(i, i * 2);
    ordered.set(Math.sin(i), i % 2 ? "short" : long);
    vec.push({ x: i, name: i % 2 ? long : "short" });
    list.push(long);
    story.append("é", name);
    if (i % 4 === 3) {
      map.delete(`key ${i - 1}`);
      numbers.delete(i - 3);
      ordered.delete(Math.sin(i - 2));
      vec.splice(Math.floor(vec.length / 2), 1);
      list.shift();
      story.delete(0, 2);
    }
    // Parts of the work end whole: other threads may find them so.
    mine.rounds = i + 1;
  }
}

/** What `work` leaves behind. */
function expected(name: string, rounds: number) {
  const map = new Map<string, { x: number; name: string }>();
  const numbers = new Map<number, number>();
  const ordered = new Map<number, string>();
  const vec: { x: number; name: string }[] = [];
  const list: string[] = [];
  let story = "";
  for (let i = 0; i < rounds; i++) {
    const long = `${name} wrote number ${i}, which is more than a slot holds`;
    map.set(i % 3 ? `key ${i}` : long, { x: i, name: long });
    numbers.set(i, i * 2);
    ordered.set(Math.sin(i), i % 2 ? "short" : long);
    vec.push({ x: i, name: i % 2 ? long : "short" });
    list.push(long);
    story += "é" + name;
    if (i % 4 === 3) {
      map.delete(`key ${i - 1}`);
      numbers.delete(i - 3);
      ordered.delete(Math.sin(i - 2));
      vec.splice(Math.floor(vec.length / 2), 1);
      list.shift();
      story = story.slice(2);
    }
  }
  const sorted = new Map([...ordered].sort(([a], [b]) => a - b));
  return { map, numbers, ordered: sorted, vec, list, story };
}

function found({ map, numbers, ordered, vec, list, story }: Mine): ReturnType<typeof expected> {
  const point = ({ x, name }: { x: number; name: string }) => ({ x, name });
  return {
    map: new Map(Array.from(map, ([key, value]) => [key, point(value)])),
    numbers: new Map(numbers),
    ordered: new Map(ordered),
    vec: Array.from(vec, point),
    list: [...list],
    story: String(story),
  };
}

function check({ map, numbers, ordered, vec, list, story }: Mine): void {
  for (const container of [map, numbers, ordered, vec, list, story]) container.$check();
}

test("Workers fill containers of their own at once, and every commit meanwhile holds them whole", {
  timeout,
}, async () => {
  using folder = new Folder();
  const [rounds, few] = [3000, 300];
  const names = ["ann", "bob", "cid"];
  using heap = Heap.open({ file: folder.file("a.perm"), size: 1 << 20, keep: 50 });
  for (const name of names) roots(heap).set(name, new Mine(heap));
  const first = heap.flush().epoch;
  const threads = [new Thread(), new Thread()];
  try {
    await Promise.all(threads.map((thread) => thread.attach(heap)));
    let left = threads.length;
    const working = threads.map((thread, i) =>
      thread.run(work, names[i], rounds).finally(() => left--)
    );
    // This thread has containers, too, and commits without asking anybody.
    const own = work({ state: { heap } }, "cid", few);
    let last = first;
    while (left > 0 && last < first + 40) {
      last = heap.flush().epoch;
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    await Promise.all([...working, own]);
    for (const name of names) {
      const mine = roots(heap).get(name, Mine)!;
      assert.deepEqual(found(mine), expected(name, mine.rounds), name);
    }
    heap.check();
    assert.deepEqual(leaks(heap), []);
    last = heap.flush().epoch;
    for (const thread of threads) await thread.run(({ state }) => state.heap.close());
    assert.deepEqual(names.map((name) => roots(heap).get(name, Mine)!.rounds), [
      rounds,
      rounds,
      few,
    ]);

    const counted: number[] = [];
    for (let epoch = first; epoch <= last; epoch++) {
      heap.restore({ epoch });
      heap.check();
      const there = roots(heap).get("ann", Mine)!;
      counted.push(there.rounds);
      for (const name of names) check(roots(heap).get(name, Mine)!);
      assert.ok(Math.abs(there.list.length - Math.ceil(there.rounds * 0.75)) <= 1);
    }
    assert.deepEqual(counted, counted.toSorted((a, b) => a - b));
    // Commits fell into the middle of the work, or nothing was tried.
    const middle = counted.filter((count) => count > 0 && count < rounds);
    assert.ok(middle.length >= 1, `${counted}`);
  } finally {
    for (const thread of threads) thread[Symbol.dispose]();
  }
});

test("no commit of another thread falls into the middle of a change", { timeout }, async () => {
  using folder = new Folder();
  using heap = Heap.open({ file: folder.file("a.perm"), size: 8 << 20, keep: 40 });
  const length = 100_000;
  const Belt = struct("Belt", {
    vec: Vec(f64),
    map: OrderedMap(u32, u32),
    numbers: HashMap(u32, u32),
  });
  const belt = roots(heap).open("belt", Belt);
  belt.vec.pushAll(Float64Array.from({ length }, (_, i) => i));
  for (let i = 0; i < 1000; i++) {
    belt.map.set(i, i);
    belt.numbers.set(i, i);
  }
  const first = heap.flush().epoch;
  using thread = new Thread();
  await thread.attach(heap);
  const stop = heap.global("stop", Int32Array, 1);
  const working = thread.run(async ({ state }, length) => {
    const { f64, HashMap, OrderedMap, roots, struct, u32, Vec } = await import("../data/mod.ts");
    const Belt = struct("Belt", {
      vec: Vec(f64),
      map: OrderedMap(u32, u32),
      numbers: HashMap(u32, u32),
    });
    const { vec, map, numbers } = roots(state.heap).get("belt", Belt)!;
    const stop = state.heap.global("stop", Int32Array, 1);
    let i = 0;
    // Moving all of a long Vec is most of the work: a commit that did not wait would fall into it.
    for (; Atomics.load(stop as Int32Array, 0) === 0; i++) {
      vec.push((vec.shift() as number + length) % length);
      map.delete(i);
      map.set(i + 1000, i + 1000);
      numbers.delete(i);
      numbers.set(i + 1000, i + 1000);
    }
    return i;
  }, length);
  let last = first;
  while (last < first + 30) {
    last = heap.flush().epoch;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  Atomics.store(stop, 0, 1);
  assert.ok(await working > 30);
  await thread.run(({ state }) => state.heap.close());
  for (let epoch = first; epoch <= last; epoch++) {
    heap.restore({ epoch });
    const { vec, map, numbers } = roots(heap).get("belt", Belt)!;
    const values = vec.toTypedArray() as Float64Array;
    assert.ok(values.length === length || values.length === length - 1);
    // The value of a new element is a step of its own.
    if (values.at(-1) === 0) values[length - 1] = (values[0] + length - 1) % length;
    const wrong = values.findIndex((value, i) => value !== (values[0] + i) % length);
    assert.equal(wrong, -1, `epoch ${epoch}`);
    for (const it of [map, numbers]) {
      it.$check();
      const keys = [...it.keys()];
      assert.ok(keys.length === 1000 || keys.length === 999);
      assert.ok(keys.every((key, i) => key === keys[0] + i));
      assert.ok([...it].every(([key, value]) => value === key || key === keys.at(-1)));
    }
  }
});

test("Workers share one container under a lock for readers and writers", {
  timeout,
}, async () => {
  using heap = Heap.open({ size: 1 << 20 });
  const Shared = struct("Shared", { lock: RwLock, map: HashMap(u32, text), sum: f64 });
  const shared = roots(heap).open("shared", Shared);
  const threads = [new Thread(), new Thread()];
  try {
    await Promise.all(threads.map((thread) => thread.attach(heap)));
    const working = threads.map((thread, i) =>
      thread.run(async ({ state }, i) => {
        const { f64, HashMap, roots, RwLock, struct, text, u32 } = await import("../data/mod.ts");
        const Shared = struct("Shared", { lock: RwLock, map: HashMap(u32, text), sum: f64 });
        const { lock, map } = roots(state.heap).get("shared", Shared)!;
        const shared = roots(state.heap).get("shared", Shared)!;
        let wrong = 0;
        for (let n = 0; n < 1500; n++) {
          if (n % 3 === 0) {
            using _held = lock.write();
            const key = n * 2 + i;
            map.set(key, `a text of Worker ${i}, number ${n}`);
            shared.sum += key;
            if (n % 9 === 0) shared.sum -= map.delete(key) ? key : 0;
          } else {
            using _held = n % 50 === 1 ? await lock.readAsync() : lock.read();
            let sum = 0;
            let seen = 0;
            for (const key of map.keys()) {
              sum += key;
              if (++seen === 20) break;
            }
            if (seen === map.size && sum !== shared.sum) wrong++;
            if (map.size > 0 && !map.get([...map.keys()][0])!.startsWith("a text of")) wrong++;
          }
        }
        return wrong;
      }, i)
    );
    assert.deepEqual(await Promise.all(working), [0, 0]);
    let sum = 0;
    for (const [key, value] of shared.map) {
      assert.equal(value, `a text of Worker ${key % 2}, number ${(key - key % 2) / 2}`);
      sum += key;
    }
    assert.equal(sum, shared.sum);
    assert.equal(shared.map.size, 2 * (500 - 167));
    shared.map.$check();
    heap.check();
    assert.deepEqual(leaks(heap), []);
    for (const thread of threads) await thread.run(({ state }) => state.heap.close());
  } finally {
    for (const thread of threads) thread[Symbol.dispose]();
  }
});

test("a Worker that is terminated within a change holds quiesce() up, and a timeout ends that", {
  timeout,
}, async () => {
  using folder = new Folder();
  const file = folder.file("a.perm");
  const heap = Heap.open({ file, size: 1 << 20 });
  const flag = heap.global("inside", Int32Array, 1);
  const thread = new Thread();
  await thread.attach(heap);
  thread.run(({ state }) =>
    state.heap.change(() => {
      Atomics.store(state.heap.global("inside", Int32Array, 1), 0, 1);
      return new Promise(() => {});
    })
  ).catch(() => {});
  await eventually("the change", () => Atomics.load(flag, 0) === 1);
  expectCode(() => heap.quiesce(() => 1, { timeout: 20 }), "BUSY", {
    message: /within change\(\)/,
  });
  thread[Symbol.dispose]();
  // It ended in the middle: nobody knows whether what it changed is whole, so that is not assumed.
  await new Promise((resolve) => setTimeout(resolve, 100));
  expectCode(() => heap.quiesce(() => 1, { timeout: 20 }), "BUSY", {
    message: /within change\(\)/,
  });
  // What asks nobody is still possible, and in the next session all is forgotten.
  assert.equal(heap.change(() => 5), 5);
  heap.check();
  assert.equal(heap.flush().epoch, 1);
  await eventually("the end of the Worker", () => tryClose(heap));
  using again = Heap.open({ file, size: 1 << 20 });
  assert.equal(again.quiesce(() => 6, { timeout: 20 }), 6);
});

test("a Worker that ends while it holds a lock leaves it held until the session ends", {
  timeout,
}, async () => {
  using folder = new Folder();
  using heap = Heap.open({ file: folder.file("a.perm"), size: 1 << 20 });
  const { lock } = roots(heap).open("held", struct("Held", { lock: RwLock, n: u32 }));
  heap.flush();
  const thread = new Thread();
  await thread.attach(heap);
  await thread.run(async ({ state }) => {
    const { roots, RwLock, struct, u32 } = await import("../data/mod.ts");
    const { lock } = roots(state.heap).get("held", struct("Held", { lock: RwLock, n: u32 }))!;
    state.held = lock.write();
  });
  heap.flush();
  thread[Symbol.dispose]();
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal(lock.tryWrite(), null);
  expectCode(() => lock.write({ timeout: 20 }), "BUSY");
  await expectRejects(lock.readAsync({ timeout: 20 }), "BUSY");
  // It was committed while it was held, and is free in the next session all the same.
  await eventually("a restore without the Worker", () => {
    try {
      return heap.restore().epoch === 2;
    } catch (error) {
      if ((error as PermError).code !== "BUSY") throw error;
      return false;
    }
  });
  const again = roots(heap).get("held", struct("Held", { lock: RwLock, n: u32 }))!;
  again.lock.tryWrite()!.release();
});
