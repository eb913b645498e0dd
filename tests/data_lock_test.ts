// Locks in the heap, and a heap that is still while Workers change it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Heap } from "../mod.ts";
import {
  array,
  f64,
  HashMap,
  leaks,
  Mutex,
  roots,
  RwLock,
  struct,
  text,
  u32,
  Vec,
} from "../data/mod.ts";
import {
  elsewhere,
  eventually,
  expectCode,
  expectRejects,
  Folder,
  otherRuntime,
  Thread,
} from "./support.ts";

const mib = 1 << 20;
const timeout = 60_000;
const Account = struct("Account", { lock: Mutex, shared: RwLock, a: f64, b: f64, n: u32 });
type Account = InstanceType<typeof Account>;

test("a mutex is held by one, and given back once", { timeout }, async () => {
  using heap = Heap.open({ size: mib });
  const lock = new Mutex(heap);
  const held = lock.lock();
  assert.equal(lock.tryLock(), null);
  expectCode(() => lock.lock(), "BUSY", { message: /this thread holds it/, address: lock.ptr });
  await expectRejects(lock.lockAsync({ timeout: 20 }), "BUSY", { message: /for 20 ms/ });
  held.release();
  held.release();
  const later = lock.lockAsync();
  const second = await later;
  const third = lock.lockAsync({ timeout: 10_000 });
  second.release();
  (await third).release();
  {
    using _again = lock.lock({ timeout: 0 });
    assert.equal(lock.tryLock(), null);
  }
  lock.tryLock()!.release();
  for (const bad of [-1, NaN, "5", null]) {
    expectCode(() => lock.lock({ timeout: bad as never }), "INVALID_ARGUMENT");
  }
  assert.deepEqual([...heap.bytes(lock.ptr, 4)], [0, 0, 0, 0]);
});

test("a lock for readers and writers lets readers share", () => {
  using heap = Heap.open({ size: mib });
  const { shared } = roots(heap).open("account", Account);
  const one = shared.read();
  const two = shared.tryRead()!;
  assert.equal(shared.tryWrite(), null);
  expectCode(() => shared.write({ timeout: 5 }), "BUSY", { message: /5 ms/ });
  one.release();
  assert.equal(shared.tryWrite(), null);
  two.release();
  const write = shared.write();
  assert.equal(shared.tryRead(), null);
  write.release();
  assert.deepEqual(leaks(heap), []);
});

test("a struct is copied without its locks, and nothing else is written over one", () => {
  using heap = Heap.open({ size: mib });
  const one = new Account(heap, { a: 1 });
  const held = one.lock.lock();
  const Pair = struct("Pair", { x: Account, y: Account });
  const pair = new Pair(heap, { x: one });
  assert.equal(pair.x.a, 1);
  pair.x.lock.lock().release();
  pair.y = one;
  pair.y.lock.tryLock()!.release();
  held.release();
  expectCode(() => one.lock = 5 as never, "INVALID_ARGUMENT", { message: /Account\.lock/ });
});

test("a struct that is written whole leaves the locks in it to who holds them", () => {
  const Shelf = struct("Shelf", {
    one: Account,
    two: array(Account, 2),
    three: Vec(Account),
    four: HashMap(text, Account),
    name: text,
  });
  using heap = Heap.open({ size: mib });
  const shelf = new Shelf(heap, { three: [{}], four: [["k", {}]] });
  const other = new Account(heap, { a: 7 });
  const long = "a name that stands elsewhere";
  const writes: [account: Account, write: () => void][] = [
    [shelf.one, () => shelf.one = other],
    [shelf.one, () => shelf.one = { a: 7 } as Account],
    [shelf.one, () => Account.assign(shelf.one, other)],
    [shelf.one, () => Shelf.assign(shelf, { one: other, name: long })],
    [shelf.two.get(1), () => shelf.two.set(1, other)],
    [shelf.two.get(1), () => shelf.two = [other, other] as never],
    [shelf.three.get(0), () => shelf.three.set(0, { a: 7 })],
    [shelf.four.get("k")!, () => shelf.four.set("k", other)],
  ];
  for (const [account, write] of writes) {
    account.a = 0;
    const [held, read] = [account.lock.lock(), account.shared.read()];
    write();
    assert.equal(account.a, 7);
    assert.equal(account.lock.tryLock(), null, `${write}`);
    assert.equal(account.shared.tryWrite(), null, `${write}`);
    held.release();
    read.release();
    account.lock.lock().release();
    account.shared.write().release();
  }
  other.lock.lock().release();
});

test("a lock that was held when it was stored is free in every later run and after a restore", {
  timeout,
}, async () => {
  using folder = new Folder();
  const file = folder.file("a.perm");
  {
    using heap = Heap.open({ file, size: mib });
    const account = roots(heap).open("account", Account);
    const held = account.lock.lock();
    const shared = account.shared.read();
    heap.flush();
    assert.equal(account.lock.tryLock(), null);
    heap.restore();
    const again = roots(heap).get("account", Account)!;
    again.lock.lock().release();
    again.shared.write().release();
    held.release();
    shared.release();
  }
  const taken = await elsewhere(otherRuntime, async (_tools, file: string) => {
    const { Heap } = await import("../mod.ts");
    const { f64, Mutex, roots, RwLock, struct, u32 } = await import("../data/mod.ts");
    const Account = struct("Account", { lock: Mutex, shared: RwLock, a: f64, b: f64, n: u32 });
    using heap = Heap.open({ file, size: 1 << 20 });
    const { lock, shared } = roots(heap).get("account", Account)!;
    return lock.tryLock() !== null && shared.tryWrite() !== null;
  }, file);
  assert.equal(taken, true);
});

test("Workers that count under a mutex lose nothing", { timeout }, async () => {
  using heap = Heap.open({ size: mib });
  const account = roots(heap).open("account", Account);
  const there = heap.global("there", Int32Array, 1);
  using one = new Thread();
  using two = new Thread();
  const threads = [one, two];
  await Promise.all(threads.map((thread) => thread.attach(heap)));
  const held = account.lock.lock();
  const work = threads.map((thread) =>
    thread.run(async ({ state }) => {
      const { f64, Mutex, roots, RwLock, struct, u32 } = await import("../data/mod.ts");
      const Account = struct("Account", { lock: Mutex, shared: RwLock, a: f64, b: f64, n: u32 });
      const account = roots(state.heap).get("account", Account)!;
      Atomics.add(state.heap.global("there", Int32Array, 1), 0, 1);
      for (let i = 0; i < 5000; i++) {
        using _held = i % 100 === 0 ? await account.lock.lockAsync() : account.lock.lock();
        account.a += 1;
        account.b = account.a;
      }
      return account.a;
    })
  );
  await eventually("both Workers", () => Atomics.load(there, 0) === 2);
  // They wait for the lock, or are about to.
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(account.a, 0);
  held.release();
  for (let i = 0; i < 200; i++) {
    using _held = await account.lock.lockAsync();
    assert.equal(account.a, account.b);
    account.n += 1;
  }
  await Promise.all(work);
  assert.deepEqual([account.a, account.b, account.n], [10_000, 10_000, 200]);
  for (const thread of threads) await thread.run(({ state }) => state.heap.close());
});

test("quiesce commits what Workers change only whole", { timeout }, async () => {
  using folder = new Folder();
  const file = folder.file("a.perm");
  using heap = Heap.open({ file, size: mib });
  const account = roots(heap).open("account", Account);
  using thread = new Thread();
  await thread.attach(heap);
  const flag = heap.global("stop", Int32Array, 2);
  const work = thread.run(async ({ state }) => {
    const { f64, Mutex, roots, RwLock, struct, u32 } = await import("../data/mod.ts");
    const Account = struct("Account", { lock: Mutex, shared: RwLock, a: f64, b: f64, n: u32 });
    const { heap } = state;
    const account = roots(heap).get("account", Account)!;
    const flag = heap.global("stop", Int32Array, 2) as Int32Array;
    while (Atomics.load(flag, 0) === 0) {
      heap.change(() => {
        account.a += 1;
        for (let i = 0; i < 1000; i++) account.n = i;
        heap.change(() => account.b += 1);
      });
    }
    return account.a;
  });
  await eventually("a change", () => account.b > 0);
  for (let round = 0; round < 30; round++) {
    const [before, after] = heap.quiesce(() => {
      const before = account.a;
      assert.equal(account.a, account.b);
      heap.flush();
      return [before, account.a];
    });
    assert.equal(before, after);
  }
  await heap.quiesce(async () => {
    const before = account.a;
    await heap.flushAsync();
    assert.equal(account.a, before);
  });
  Atomics.store(flag, 0, 1);
  assert.ok(await work > 0);
  await thread.run(({ state }) => state.heap.close());
  heap.restore();
  const again = roots(heap).get("account", Account)!;
  assert.equal(again.a, again.b);
});

test(
  "quiesce refuses what would wait for itself, and gives way after an error",
  { timeout },
  async () => {
    const heap = Heap.open({ size: mib });
    expectCode(() => heap.change(() => heap.quiesce(() => 1)), "BUSY", {
      message: /within a change/,
    });
    assert.equal(heap.quiesce(() => heap.change(() => heap.quiesce(() => 5))), 5);
    assert.throws(() =>
      heap.quiesce(() => {
        throw new RangeError("mine");
      }), RangeError);
    await assert.rejects(heap.change(() => Promise.reject(new RangeError("mine"))), RangeError);
    for (const bad of [null, 5, "x"]) {
      expectCode(() => heap.change(bad as never), "INVALID_ARGUMENT");
      expectCode(
        () => heap.quiesce(() => 1, { timeout: `${bad}` as never }),
        "INVALID_ARGUMENT",
      );
    }
    using thread = new Thread();
    await thread.attach(heap);
    const inside = thread.run(({ state }) =>
      state.heap.change(() => new Promise((resolve) => setTimeout(() => resolve(7), 300)))
    );
    let busy = 0;
    while (busy === 0) {
      try {
        heap.quiesce(() => 1, { timeout: 10 });
        await new Promise((resolve) => setTimeout(resolve, 1));
      } catch (error) {
        assert.match(String(error), /within change\(\) for 10 ms/);
        busy++;
      }
    }
    assert.equal(heap.quiesce(() => "still", { timeout: 10_000 }), "still");
    assert.equal(await inside, 7);
    await thread.run(({ state }) => state.heap.close());
    heap.close();
    expectCode(() => heap.change(() => 1), "CLOSED");
    expectCode(() => heap.quiesce(() => 1), "CLOSED");
  },
);
