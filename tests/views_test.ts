// Views of heap memory: exactly the bytes asked for, and never a crash.
import assert from "node:assert/strict";
import { test } from "node:test";
import { struct, u53 } from "../data/mod.ts";
import { Heap, PermError, type Pointer, type ViewType } from "../mod.ts";
import { Child, elsewhere, expectCode, expectWell, Folder } from "./support.ts";

const mib = 1 << 20;
const gib = 2 ** 30;
const timeout = 60_000;

const types = [
  Int8Array,
  Uint8Array,
  Uint8ClampedArray,
  Int16Array,
  Uint16Array,
  Int32Array,
  Uint32Array,
  Float32Array,
  Float64Array,
  BigInt64Array,
  BigUint64Array,
] as unknown as (ViewType<Uint8Array> & { name: string })[];

test("views show exactly the bytes asked for, and the same bytes to each other", {
  timeout,
}, () => {
  using heap = Heap.open({ size: mib });
  const p = heap.calloc(64, 1);
  const bytes = heap.bytes(p, 24);
  assert.ok(bytes instanceof Uint8Array);
  assert.equal(bytes.length, 24);
  assert.equal(bytes.byteOffset, 0);
  assert.equal(bytes.buffer.byteLength, 24);
  bytes[0] = 0x34;
  bytes[1] = 0x12;
  bytes[23] = 0xff;
  const data = heap.dataView(p, 24);
  assert.ok(data instanceof DataView);
  assert.equal(data.byteLength, 24);
  assert.equal(data.buffer.byteLength, 24);
  assert.equal(data.getUint16(0, true), 0x1234);
  for (const type of types) {
    const count = 24 / type.BYTES_PER_ELEMENT;
    const view = heap.view(type, p, count);
    assert.ok(view instanceof (type as unknown as typeof Uint8Array), type.name);
    assert.equal(view.length, count);
    assert.equal(view.buffer.byteLength, 24);
    assert.deepEqual(new Uint8Array(view.buffer), bytes);
  }
  assert.equal(heap.view(Uint16Array, p, 1)[0], 0x1234);
  heap.view(Float64Array, p + 8, 1)[0] = Math.PI;
  assert.equal(data.getFloat64(8, true), Math.PI);
  assert.equal(heap.bytes(p + 23, 1)[0], 0xff);
  expectWell(heap);
});

test("load and store: pointers as C has them", { timeout }, () => {
  using heap = Heap.open({ size: mib });
  const p = heap.calloc(4, 8);
  const values: Pointer[] = [0, 1, p, 2 ** 32 - 1, 2 ** 32, 2 ** 47 + 12345, 2 ** 53 - 1];
  for (const at of [p + 8, p + 13, p + 24, p]) {
    for (const value of values) {
      heap.store(at, value);
      assert.equal(heap.load(at), value);
      assert.equal(heap.dataView(at, 8).getBigUint64(0, true), BigInt(value));
    }
  }
  for (const bad of [-1, 0.5, NaN, Infinity, 2 ** 53, "1", 1n, null, undefined, {}]) {
    expectCode(() => heap.store(p, bad as number), "INVALID_ARGUMENT");
  }
  assert.equal(heap.load(p), 2 ** 53 - 1, "refused stores changed nothing");
  heap.dataView(p, 8).setFloat64(0, -1.5, true);
  expectCode(() => heap.load(p), "BAD_POINTER");
  for (
    const at of [0, 1, heap.address, heap.address + 8, p - 2 ** 40, 2 ** 47, 2 ** 53, NaN, -8, 0.5]
  ) {
    expectCode(() => heap.load(at), "BAD_POINTER");
    expectCode(() => heap.store(at, 0), "BAD_POINTER");
  }
  for (const at of ["1", 1n, null, undefined, {}] as unknown as number[]) {
    expectCode(() => heap.load(at), "INVALID_ARGUMENT");
    expectCode(() => heap.store(at, 0), "INVALID_ARGUMENT");
  }
  expectCode(() => heap.load(p + 0.5), "BAD_POINTER");
  expectWell(heap);
});

test("the heap's last word can be loaded, the byte after it cannot", { timeout }, () => {
  using heap = Heap.open({ size: mib, maxSize: mib });
  let end = heap.malloc(8);
  let bytes = 2 ** 40;
  for (; bytes >= 1; bytes /= 2) {
    try {
      heap.bytes(end, bytes);
      end += bytes;
    } catch (error) {
      assert.ok(error instanceof PermError && error.code === "BAD_POINTER");
    }
  }
  heap.store(end - 8, 77);
  assert.equal(heap.load(end - 8), 77);
  heap.store(end - 8, 0);
  for (const past of [end - 7, end - 4, end - 1, end, end + 1]) {
    expectCode(() => heap.load(past), "BAD_POINTER");
    expectCode(() => heap.store(past, 1), "BAD_POINTER");
  }
  assert.equal(heap.bytes(end - 1, 1)[0], 0);
  expectCode(() => heap.bytes(end - 1, 2), "BAD_POINTER");
  expectCode(() => heap.bytes(end, 1), "BAD_POINTER");
  expectCode(() => heap.window(end), "BAD_POINTER");
  const { view, base } = heap.window(end - 1);
  assert.equal(base + view.byteLength, end);
  expectWell(heap);
});

test("a view of nothing is empty and detached from nothing", { timeout }, () => {
  using heap = Heap.open({ size: mib });
  const p = heap.malloc(0);
  assert.equal(heap.bytes(p, 0).length, 0);
  assert.equal(heap.dataView(p, 0).byteLength, 0);
  assert.equal(heap.view(Float64Array, p, 0).length, 0);
  assert.equal(structuredClone(heap.bytes(p, 0)).length, 0);
  assert.throws(() => heap.dataView(p, 0).getInt8(0), RangeError);
});

test("misaligned views are refused; bytes and dataView take any address", { timeout }, () => {
  using heap = Heap.open({ size: mib });
  const p = heap.calloc(64, 1);
  for (const type of types) {
    const width = type.BYTES_PER_ELEMENT;
    for (let offset = 1; offset < width; offset++) {
      expectCode(() => heap.view(type, p + offset, 1), "INVALID_ARGUMENT", { address: p + offset });
    }
    assert.equal(heap.view(type, p + width, 1).length, 1);
  }
  heap.bytes(p + 3, 5)[0] = 9;
  assert.equal(heap.dataView(p + 3, 5).getUint8(0), 9);
});

test("views of what is not the heap's data are refused", { timeout }, () => {
  using heap = Heap.open({ size: mib });
  using other = Heap.open({ size: mib });
  const p = heap.malloc(1000);
  const places: [number, number][] = [
    [0, 8],
    [0, 0],
    [1, 1],
    [4096, 4096],
    [heap.address, 8],
    [heap.address + 4096, 8],
    [heap.address - 8, 16],
    [p, heap.capacity + 1],
    [p, 2 ** 40],
    [p, 2 ** 53],
    [heap.address + 2 ** 40, 8],
    [2 ** 47 - 8, 8],
    [2 ** 47, 8],
    [2 ** 53 - 8, 8],
    [2 ** 53, 8],
    [2 ** 60, 8],
    [NaN, 8],
    [Infinity, 8],
    [-8, 16],
    [p + 0.5, 8],
    [other.malloc(8), 8],
  ];
  for (const [address, bytes] of places) {
    expectCode(() => heap.bytes(address, bytes), "BAD_POINTER");
    expectCode(() => heap.dataView(address, bytes), "BAD_POINTER");
    if (address % 1 === 0 && bytes < 2 ** 53) {
      expectCode(() => heap.view(Int8Array, address, bytes), "BAD_POINTER");
    }
    if (bytes > 0 && bytes <= 16) expectCode(() => heap.window(address), "BAD_POINTER");
  }
  for (const bytes of [NaN, -1, 0.5, Infinity, 2 ** 60, "8", 8n, null, undefined, {}]) {
    expectCode(() => heap.bytes(p, bytes as number), "INVALID_ARGUMENT");
    expectCode(() => heap.dataView(p, bytes as number), "INVALID_ARGUMENT");
    expectCode(() => heap.view(Float64Array, p, bytes as number), "INVALID_ARGUMENT");
  }
  for (const address of ["8", 8n, null, undefined, {}, Symbol("p")] as unknown as number[]) {
    expectCode(() => heap.bytes(address, 8), "INVALID_ARGUMENT");
    expectCode(() => heap.dataView(address, 8), "INVALID_ARGUMENT");
    expectCode(() => heap.view(Float64Array, address, 8), "INVALID_ARGUMENT");
    expectCode(() => heap.window(address), "INVALID_ARGUMENT");
  }
  for (const type of [Array, DataView, ArrayBuffer, Object, null, undefined, "Float64Array", {}]) {
    expectCode(() => heap.view(type as never, p, 1), "INVALID_ARGUMENT");
  }
  expectCode(() => heap.view(class extends Uint8Array {} as never, p, 1), "INVALID_ARGUMENT");
  expectWell(heap);
});

test("a view at any size that a heap can have either works or is refused", { timeout }, () => {
  using heap = Heap.open({ size: 6 * gib });
  const p = heap.malloc(5 * gib + 16);
  for (const bytes of [gib, 2 * gib - 1, 2 * gib, 2 * gib + 1, 4 * gib - 1, 4 * gib, 5 * gib]) {
    let view: Uint8Array;
    try {
      view = heap.bytes(p, bytes);
    } catch (error) {
      assert.ok(error instanceof PermError, String(error));
      assert.equal(error.code, "UNSUPPORTED");
      assert.ok(bytes > 4 * gib - 1, `${bytes} bytes must be possible: ${error.message}`);
      continue;
    }
    assert.equal(view.length, bytes);
    view[bytes - 1] = 5;
    assert.equal(heap.bytes(p + bytes - 1, 1)[0], 5);
  }
  heap.store(p + 5 * gib, p);
  assert.equal(heap.load(p + 5 * gib), p);
  for (const at of [p, p + gib - 1, p + gib, p + 2 * gib + 3, p + 5 * gib]) {
    const { view, base } = heap.window(at);
    assert.ok(base <= at && base + view.byteLength > at);
    assert.ok(view.byteLength <= 2 * gib);
    view.setUint8((at - base) | 0, 0x5a);
    assert.equal(heap.bytes(at, 1)[0], 0x5a);
  }
  heap.free(p);
  expectWell(heap);
});

test("what a heap that grew at once has at its end is seen, also when it is seen first of all", {
  timeout,
}, () => {
  for (const use of ["load", "window", "data"]) {
    using heap = Heap.open({ size: mib });
    const p = heap.calloc(8 * mib, 1);
    const last = p + 8 * mib - 8;
    if (use === "load") {
      heap.store(last, p);
      assert.equal(heap.load(last), p);
    } else if (use === "window") {
      const { view, base } = heap.window(last);
      assert.equal(view.getFloat64((last - base) | 0, true), 0);
    } else {
      assert.equal(struct("Word", { word: u53 }).at(heap, last).word, 0);
    }
    expectCode(() => heap.load(2 ** 46 - 8), "BAD_POINTER");
    expectCode(() => heap.load(heap.address), "BAD_POINTER");
  }
});

test("a window covers what was asked for and stays true while the heap grows", { timeout }, () => {
  using heap = Heap.open({ size: mib, maxSize: 64 * mib });
  const p = heap.malloc(100);
  const { view, base } = heap.window(p);
  assert.ok(base <= p && p + 100 <= base + view.byteLength);
  view.setFloat64((p - base) | 0, 2.5, true);
  assert.equal(heap.view(Float64Array, p, 1)[0], 2.5);
  assert.equal(heap.window(p + 8).view, view, "the same window for the same place");
  assert.ok(Object.isFrozen(heap.window(p)));
  const far = heap.malloc(40 * mib);
  const wide = heap.window(far);
  assert.ok(
    far + 40 * mib <= wide.base + wide.view.byteLength,
    "an object lies in its window whole",
  );
  wide.view.setUint8((far - wide.base + 40 * mib - 1) | 0, 7);
  assert.equal(heap.bytes(far + 40 * mib - 1, 1)[0], 7);
  assert.equal(view.getFloat64((p - base) | 0, true), 2.5);
});

/** Every use of a view that a program could think of, none of which may crash. */
function expectDetached(views: { bytes: Uint8Array; data: DataView; window: DataView }): void {
  const { bytes, data, window } = views;
  assert.equal(bytes.length, 0);
  assert.equal(bytes.byteLength, 0);
  assert.equal(bytes[0], undefined);
  bytes[0] = 1;
  assert.equal(bytes[0], undefined);
  for (const view of [data, window]) {
    assert.throws(() => view.getUint8(0), TypeError);
    assert.throws(() => view.setFloat64(0, 1), TypeError);
    assert.throws(() => view.byteLength, TypeError);
  }
  assert.throws(() => bytes.fill(1), TypeError);
  assert.throws(() => bytes.subarray(0).set([1]), (error) => error instanceof Error);
  assert.throws(() => [...bytes], TypeError);
  assert.throws(() => Atomics.load(bytes, 0), (error) => error instanceof Error);
  assert.equal(bytes.buffer.byteLength, 0);
  assert.equal((bytes.buffer as ArrayBuffer).detached, true);
}

test("after close every view is detached and every method says CLOSED", { timeout }, async () => {
  using folder = new Folder();
  const heap = Heap.open({ file: folder.file("a"), backup: folder.file("b"), size: mib });
  const p = heap.calloc(8, 8);
  const views = {
    bytes: heap.bytes(p, 64),
    data: heap.dataView(p, 64),
    window: heap.window(p).view,
  };
  const all = [
    ...types.map((type) => heap.view(type, p, 4)),
    heap.global("g", Float64Array, 4),
    ...Array.from({ length: 3000 }, (_, i) => heap.bytes(p + i % 64, 1)),
  ];
  const map = heap.map!;
  const backup = heap.backupImage!;
  heap.flush();
  heap.close();
  heap.close();
  expectDetached(views);
  for (const view of all) assert.equal((view as Uint8Array).length, 0);

  const calls: Record<string, () => unknown> = {
    malloc: () => heap.malloc(8),
    "malloc(0)": () => heap.malloc(0),
    calloc: () => heap.calloc(1, 8),
    realloc: () => heap.realloc(p, 8),
    "realloc(0)": () => heap.realloc(0, 8),
    free: () => heap.free(p),
    "free(0)": () => heap.free(0),
    alignedAlloc: () => heap.alignedAlloc(16, 8),
    usableSize: () => heap.usableSize(p),
    mallocMany: () => heap.mallocMany(8, 2),
    freeMany: () => heap.freeMany([p]),
    bytes: () => heap.bytes(p, 8),
    dataView: () => heap.dataView(p, 8),
    view: () => heap.view(Float64Array, p, 1),
    load: () => heap.load(p),
    store: () => heap.store(p, 0),
    window: () => heap.window(p),
    global: () => heap.global("g", Float64Array, 4),
    perm: () => heap.perm("x", new Uint8Array(8)),
    unperm: () => heap.unperm("x"),
    root: () => heap.root,
    "root=": () => heap.root = p,
    flush: () => heap.flush(),
    backup: () => heap.backup(),
    restore: () => heap.restore(),
    bopen: () => heap.bopen(folder.file("c"), "w+"),
    bclose: () => heap.bclose(),
    grow: () => heap.grow(2 * mib),
    stats: () => heap.stats(),
    check: () => heap.check(),
    scratch: () => heap.scratch(8),
    change: () => heap.change(() => 1),
    quiesce: () => heap.quiesce(() => 1),
    dropped: () => heap.dropped,
    address: () => heap.address,
    capacity: () => heap.capacity,
    used: () => heap.used,
    resumed: () => heap.resumed,
    epoch: () => heap.epoch,
    tracker: () => heap.tracker,
    handle: () => heap.handle,
    map: () => heap.map,
    backupImage: () => heap.backupImage,
    "map.path": () => map.path,
    "map.uuid": () => map.uuid,
    "map.epoch": () => map.epoch,
    "map.epochs": () => map.epochs(),
    "backup.epoch": () => backup.epoch,
    "backup.epochs": () => backup.epochs(),
  };
  const open: string[] = [];
  for (const [name, call] of Object.entries(calls)) {
    try {
      expectCode(call, "CLOSED");
    } catch (error) {
      open.push(`${name}: ${(error as Error).message}`);
    }
  }
  for (
    const [name, call] of [["flushAsync", () => heap.flushAsync()], [
      "backupAsync",
      () => heap.backupAsync(),
    ]] as const
  ) {
    const error = await call().then(() => undefined, (error) => error);
    if (error?.code !== "CLOSED") open.push(`${name}: ${error}`);
  }
  assert.deepEqual(open, []);
  heap[Symbol.dispose]();
  await heap[Symbol.asyncDispose]();
  map.close();
  backup.close();

  // What no list names yet may not be forgotten.
  const names = Object.getOwnPropertyNames(Heap.prototype).filter((name) => name !== "constructor");
  const covered = [...Object.keys(calls), "flushAsync", "backupAsync", "close"];
  assert.deepEqual(names.filter((name) => !covered.includes(name)), []);

  using again = Heap.open({ file: folder.file("a"), size: mib });
  assert.ok(again.usableSize(p) >= 64);
  expectWell(again);
});

test("views of a closed heap stay dead when another heap takes its place", { timeout }, () => {
  using folder = new Folder();
  const file = folder.file("a");
  const heap = Heap.open({ file, size: mib });
  const p = heap.root = heap.calloc(8, 8);
  const bytes = heap.bytes(p, 64);
  const data = heap.dataView(p, 64);
  heap.flush();
  heap.close();
  using again = Heap.open({ file, size: mib });
  again.bytes(p, 64).fill(3);
  assert.equal(bytes.length, 0);
  bytes[0] = 9;
  assert.throws(() => data.setUint8(0, 9), TypeError);
  assert.deepEqual([...new Set(again.bytes(p, 64))], [3]);
  expectCode(() => heap.bytes(p, 64), "CLOSED");
});

test("cloning or posting a view copies its bytes and no more", { timeout }, async () => {
  using heap = Heap.open({ size: 512 * mib });
  const p = heap.calloc(64, 1);
  const bytes = heap.bytes(p, 16);
  bytes.fill(7);
  const start = performance.now();
  for (const view of [bytes, heap.dataView(p, 16), heap.view(Float64Array, p, 2)]) {
    const clone = structuredClone(view);
    assert.equal(clone.byteLength, 16);
    assert.equal(clone.buffer.byteLength, 16);
    assert.notEqual(clone.buffer, view.buffer);
    assert.deepEqual(new Uint8Array(clone.buffer), bytes);
  }
  const { port1, port2 } = new MessageChannel();
  const received = await new Promise<Uint8Array>((resolve) => {
    port2.onmessage = ({ data }) => resolve(data);
    port1.postMessage(bytes);
  });
  port1.close();
  port2.close();
  assert.equal(received.buffer.byteLength, 16);
  assert.deepEqual([...received], [...bytes]);
  received.fill(1);
  assert.equal(bytes[0], 7, "a copy, not the heap");
  assert.ok(performance.now() - start < 5000, "512 MiB were not copied");
  expectWell(heap);
});

test("transferring a view away takes the view, not the memory", { timeout }, () => {
  using heap = Heap.open({ size: mib });
  const p = heap.calloc(64, 1);
  const bytes = heap.bytes(p, 16);
  bytes.fill(7);
  const moved = structuredClone(bytes, { transfer: [bytes.buffer] });
  assert.equal(bytes.length, 0);
  assert.equal(moved.length, 16);
  assert.equal(moved[3], 7);
  const taken = heap.bytes(p, 16);
  const grown = (taken.buffer as ArrayBuffer).transfer(32);
  assert.equal(taken.length, 0);
  assert.equal(grown.byteLength, 32);
  assert.deepEqual([...heap.bytes(p, 16)], Array(16).fill(7));
  heap.close();
  assert.equal(grown.byteLength, 32, "a buffer of the program's own");
  new Uint8Array(grown).fill(1);
});

test('a write through a view of an "r" heap stays in the process', { timeout }, async () => {
  using folder = new Folder();
  const file = folder.file("a");
  {
    using heap = Heap.open({ file, size: mib });
    heap.root = heap.malloc(8192);
    heap.bytes(heap.root, 8192).fill(1);
    heap.flush();
  }
  await using child = new Child();
  const told = await child.run(({ perm, state }, file) => {
    const heap = state.heap = perm.mopen(file, "r");
    const p = heap.root;
    heap.bytes(p, 8192).fill(2);
    heap.store(p, 3);
    heap.window(p).view.setUint8(0, 4);
    return [heap.bytes(p, 1)[0], heap.bytes(p + 8191, 1)[0]];
  }, file);
  assert.deepEqual(told, [4, 2], "it sees its own writes, and lives");
  await child.run(({ perm }) => perm.mclose());
  assert.equal(await child.end(), "exit 0");
  using heap = Heap.open({ file, size: mib });
  assert.ok(heap.bytes(heap.root, 8192).every((byte) => byte === 1));
  assert.equal(heap.epoch, 1);
});

test("views of memory given back, of a smaller heap restored, of a closed one: no crash", {
  timeout,
}, async () => {
  using folder = new Folder();
  const told = await elsewhere("deno", scenario, folder.file("deno"));
  assert.deepEqual(told, await elsewhere("bun", scenario, folder.file("bun")));
  assert.deepEqual(told, ["freed", "restored", "window", "closed"]);

  function scenario({ perm }: { perm: typeof import("../mod.ts") }, file: string): string[] {
    const mib = 1 << 20;
    const done: string[] = [];
    const heap = perm.Heap.open({ file, size: mib, maxSize: 256 * mib });
    heap.flush();
    const p = heap.malloc(100 * mib);
    const view = heap.bytes(p, 100 * mib);
    const window = heap.window(p + 90 * mib);
    view.fill(1);
    heap.free(p);
    for (let i = 0; i < view.length; i += 4096) view[i] += 1;
    done.push("freed");
    heap.restore();
    for (let i = 0; i < view.length; i += 4096) view[i] += 1;
    heap.check();
    done.push("restored");
    window.view.setUint8((p + 90 * mib - window.base) | 0, 1);
    done.push("window");
    heap.close();
    view[0] = 1;
    done.push("closed");
    return done;
  }
});
