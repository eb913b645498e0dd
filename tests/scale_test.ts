/**
 * Heaps of a huge capacity: what opening, tracking and committing take follows what is used and
 * changed. Counted in system calls, bytes, memory and page tables, not in time.
 *
 *     PERM_SCALE_MIB=8192    so much in use, instead of 128 MiB
 *
 * @module
 */
import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import { Child, Folder, otherRuntime } from "./support.ts";

const mebibytes = Number(process.env.PERM_SCALE_MIB ?? 128);
const timeout = mebibytes > 128 ? 600_000 : 90_000;
const gibibyte = 2 ** 30;
const tebibyte = 2 ** 40;

/** What a process had, or an action took: kibibytes of memory and page tables, calls, bytes. */
interface Cost {
  rss: number;
  tables: number;
  /** Those of all threads. */
  all: number;
  calls: number;
  read: number;
  written: number;
  pages: number;
  ms: number;
}

type Costs = Record<string, Cost>;

/** Gives the other process a way to measure. */
async function measuring(): Promise<Child> {
  const child = new Child(otherRuntime);
  await child.run(async ({ state }) => {
    const { readFileSync } = await import("node:fs");
    const number = (text: string, name: string) =>
      Number(text.match(new RegExp(`${name}:\\s+(\\d+)`))![1]);
    const calls = (io: string) => number(io, "syscr") + number(io, "syscw");
    const look = (whose: string) => {
      const [status, all, io] = ["self/status", "self/io", `${whose}/io`].map((name) =>
        readFileSync(`/proc/${name}`, "utf8")
      );
      return {
        rss: number(status, "VmRSS"),
        tables: number(status, "VmPTE"),
        all: calls(all),
        calls: calls(io),
        read: number(io, "rchar"),
        written: number(io, "wchar"),
      };
    };
    state.costs = {};
    type Done = { pages?: number } | void;
    state.of = (name: string, action: () => Done | Promise<Done>, whose = "self") => {
      const before = look(whose);
      const begun = performance.now();
      const note = (done: Done) => {
        const ms = performance.now() - begun;
        const now = look(whose);
        for (const key of ["all", "calls", "read", "written"] as const) now[key] -= before[key];
        state.costs[name] = { ...now, pages: done?.pages ?? 0, ms };
      };
      const done = action();
      return done instanceof Promise ? done.then(note) : note(done);
    };
  });
  return child;
}

async function dense(file: string, size: number, mebibytes: number): Promise<Costs> {
  await using maker = await measuring();
  const made = await maker.run(
    ({ perm, state }, file: string, size: number, blocks: number) => {
      const heap = perm.Heap.open({ file, size });
      for (let block = 0; block < blocks; block++) {
        heap.root = heap.malloc(1 << 20);
        heap.view(Float64Array, heap.root, 1 << 17).fill(block + 1);
      }
      state.of("full", () => heap.flush());
      heap.bytes(heap.root, 1)[0] ^= 1;
      state.of("one page", () => heap.flush());
      state.of("nothing", () => heap.flush());
      return state.costs;
    },
    file,
    size,
    mebibytes,
  );
  await maker.kill();
  await using opener = await measuring();
  const opened = await opener.run(({ perm, state }, file: string) => {
    // Apart from the thread that maps ahead of a reader: it looks when its time has come.
    const own = "thread-self";
    let heap: ReturnType<typeof perm.Heap.open>;
    state.of("open", () => void (heap = perm.Heap.open({ file, size: 1 << 20 })), own);
    heap!.bytes(heap!.root, 1)[0] ^= 1;
    state.of("first page", () => heap.flush(), own);
    state.of("still nothing", () => heap.flush());
    state.of("restore", () => void heap.restore(), own);
    return state.costs;
  }, file);
  return { ...made, ...opened };
}

test("a heap of 1 TiB costs what a heap of a few GiB with as much in use costs", {
  timeout,
}, async () => {
  using folder = new Folder();
  const small = await dense(
    folder.file("small"),
    mebibytes > 512 ? 16 * gibibyte : gibibyte,
    mebibytes,
  );
  const large = await dense(folder.file("large"), tebibyte, mebibytes);
  if (mebibytes > 128) console.table({ ...small, ...prefixed("1 TiB, ", large) });
  for (const [what, cost] of Object.entries(large)) {
    const peer = small[what];
    const about = `${what}: ${JSON.stringify(cost)}, of 1 GiB ${JSON.stringify(peer)}`;
    assert.equal(cost.pages, peer.pages, about);
    assert.ok(Math.abs(cost.calls - peer.calls) <= 12, about);
    // A dozen looks, at as many places as the heap in use has times 2 MiB.
    assert.ok(Math.abs(cost.all - peer.all) <= 12 + 12 * Math.min(256, mebibytes / 2), about);
    assert.ok(Math.abs(cost.written - peer.written) <= 64 << 10, about);
    assert.ok(Math.abs(cost.read - peer.read) <= 64 << 10, about);
    assert.ok(cost.rss - peer.rss < 16 << 10, about);
    assert.ok(cost.tables - peer.tables < 1 << 10, about);
  }
  assert.equal(large["one page"].pages, 1);
  assert.equal(large.nothing.pages, 0);
});

function prefixed(prefix: string, costs: Costs): Costs {
  return Object.fromEntries(Object.entries(costs).map(([name, cost]) => [prefix + name, cost]));
}

for (const how of ["flush", "flushAsync"] as const) {
  test(
    `a block of 128 GiB of which little was ever touched is committed by what was touched: ${how}`,
    {
      timeout,
    },
    () => touchLittle(how),
  );
}

async function touchLittle(how: "flush" | "flushAsync"): Promise<void> {
  using folder = new Folder();
  await using child = await measuring();
  const costs = await child.run(
    async ({ perm, state }, file: string, how: "flush") => {
      const heap = perm.Heap.open({ file, size: 2 ** 40 });
      state.of("new", () => {});
      heap.root = heap.calloc(1, 2 ** 37);
      for (let at = 0; at < 2 ** 37; at += 2 ** 30) heap.bytes(heap.root + at, 8)[0] = 1;
      state.of("touched", () => {});
      await state.of("full", () => heap[how]());
      heap.bytes(heap.root + 2 ** 36 + 12345, 1)[0] = 7;
      heap.bytes(heap.root + 2 ** 36, 1)[0] = 7;
      await state.of("two pages", () => heap[how]());
      await state.of("nothing", () => heap[how]());
      state.of("restored", () => void heap.restore({ verify: true }));
      state.seen = [
        heap.bytes(heap.root + 2 ** 36 + 12345, 1)[0],
        heap.bytes(heap.root + 2 ** 36, 1)[0],
      ];
      heap.bytes(heap.root + 5 * 2 ** 30 + 4096, 1)[0] = 9;
      await state.of("another", () => heap[how]());
      heap.close();
      return { ...state.costs, seen: state.seen };
    },
    folder.file("app"),
    how,
  ) as Costs & { seen: number[] };
  assert.deepEqual(costs.seen, [7, 7]);
  assert.ok(costs.full.pages >= 128 && costs.full.pages < 160, JSON.stringify(costs.full));
  assert.equal(costs["two pages"].pages, 2);
  assert.equal(costs.nothing.pages, 0);
  assert.equal(costs.another.pages, 1);
  for (const what of ["full", "two pages", "nothing"]) {
    const cost = costs[what];
    const about = `${what}: ${JSON.stringify(cost)}, before ${JSON.stringify(costs.touched)}`;
    assert.ok(cost.tables - costs.touched.tables < 4 << 10, about);
    assert.ok(cost.rss - costs.touched.rss < 64 << 10, about);
    assert.ok(cost.written < 2 << 20, about);
  }
}

test("what is too much to be copied aside is committed by what was touched as well", {
  timeout,
}, async () => {
  using folder = new Folder();
  await using child = await measuring();
  const costs = await child.run(async ({ perm, state }, file: string) => {
    const heap = perm.Heap.open({ file, size: 2 ** 40 });
    heap.root = heap.calloc(1, 2 ** 37);
    // More than there is staging memory for, in pages that lie apart.
    const pages = 72 << 10;
    for (let page = 0; page < pages; page++) heap.bytes(heap.root + page * 2 ** 20, 8)[0] = 1;
    state.of("touched", () => {});
    await state.of("full", () => heap.flushAsync());
    heap.close();
    return state.costs;
  }, folder.file("app")) as Costs;
  const about = JSON.stringify(costs);
  assert.ok(costs.full.pages >= 72 << 10 && costs.full.pages < 73 << 10, about);
  assert.ok(costs.full.rss - costs.touched.rss < 4 * costs.full.pages, about);
  assert.ok(costs.full.tables - costs.touched.tables < 4 << 10, about);
});
