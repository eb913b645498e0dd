// Persistent globals: JavaScript buffers registered by name, and arrays that live in the heap.
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { test } from "node:test";
import { type BlockTarget, Heap } from "../mod.ts";
import { elsewhere, expectCode, expectWell, Folder, otherRuntime } from "./support.ts";
import { runtimes } from "./runtimes.ts";

const size = 1 << 20;
const mib = 1 << 20;
const timeout = 60_000;

/** A target of each kind, with seven bytes to tell it by. */
function targets(): Record<string, BlockTarget> {
  return {
    bytes: new Uint8Array(7),
    clamped: new Uint8ClampedArray(7),
    int16: new Int16Array(5),
    uint32: new Uint32Array(3),
    float32: new Float32Array(3),
    float64: new Float64Array(2),
    big: new BigUint64Array(2),
    view: new DataView(new ArrayBuffer(24), 8, 9),
    buffer: new ArrayBuffer(11),
    part: new Uint8Array(100).subarray(40, 48),
    node: Buffer.alloc(12),
  };
}

function bytesOf(target: BlockTarget): Uint8Array {
  return ArrayBuffer.isView(target)
    ? new Uint8Array(target.buffer, target.byteOffset, target.byteLength)
    : new Uint8Array(target);
}

test("blocks of every kind come back on restore, on reopening and in the other runtime", {
  timeout,
}, async () => {
  using folder = new Folder();
  const file = folder.file("a");
  {
    using heap = Heap.open({ file, size });
    const all = targets();
    for (const [name, target] of Object.entries(all)) heap.perm(name, target);
    Object.values(all).forEach((target, i) => bytesOf(target).fill(i + 1));
    heap.flush();
    for (const target of Object.values(all)) bytesOf(target).fill(99);
    heap.restore();
    Object.values(all).forEach((target, i) => {
      assert.ok(bytesOf(target).every((byte) => byte === i + 1), Object.keys(all)[i]);
    });
    expectWell(heap);
    assert.equal(heap.stats().blocks, Object.keys(all).length);
  }
  using heap = Heap.open({ file, size });
  const all = targets();
  for (const [name, target] of Object.entries(all).reverse()) heap.perm(name, target);
  Object.values(all).forEach((target, i) => {
    assert.ok(bytesOf(target).every((byte) => byte === i + 1), Object.keys(all)[i]);
  });
  const { part } = all as { part: Uint8Array };
  assert.deepEqual(
    [...new Uint8Array(part.buffer)].filter((byte) => byte !== 0),
    Array(8).fill(10),
  );
  heap.close();

  const found = await elsewhere(otherRuntime, ({ perm }, file) => {
    const heap = perm.Heap.open({ file, size: 1 << 20 });
    const float64 = new Float64Array(2);
    const bytes = new Uint8Array(7);
    heap.perm("float64", float64);
    heap.perm("bytes", bytes);
    heap.check();
    return [...bytes, ...new Uint8Array(float64.buffer)];
  }, file);
  assert.deepEqual(found, [...Array(7).fill(1), ...Array(16).fill(6)]);
});

test("a name is a block's identity: once, and with its type and length", { timeout }, () => {
  using folder = new Folder();
  const file = folder.file("a");
  using first = Heap.open({ file, size });
  first.perm("a", Float64Array.of(1, 2));
  expectCode(() => first.perm("a", new Float64Array(2)), "EXISTS", { message: /"a"/ });
  first.perm("A", new Float64Array(2));
  first.perm("a ", new Float64Array(2));
  first.perm("\u00e9", Float64Array.of(3));
  first.perm("e\u0301", Float64Array.of(4));
  first.perm("n".repeat(1024), Uint8Array.of(9));
  first.flush();
  first.close();

  using heap = Heap.open({ file, size });
  const wrong: BlockTarget[] = [
    new Float64Array(1),
    new Float64Array(3),
    new BigInt64Array(2),
    new Int32Array(4),
    new Uint8Array(16),
    new ArrayBuffer(16),
    new DataView(new ArrayBuffer(16)),
  ];
  for (const target of wrong) {
    bytesOf(target).fill(5);
    const error = expectCode(() => heap.perm("a", target), "BLOCK_MISMATCH", { message: /"a"/ });
    assert.match(error.message, /16/);
    assert.ok(bytesOf(target).every((byte) => byte === 5), "a refused target is not touched");
  }
  const right = new Float64Array(2);
  heap.perm("a", right);
  assert.deepEqual([...right], [1, 2]);
  const [composed, decomposed, long] = [
    new Float64Array(1),
    new Float64Array(1),
    new Uint8Array(1),
  ];
  heap.perm("\u00e9", composed);
  heap.perm("e\u0301", decomposed);
  heap.perm("n".repeat(1024), long);
  assert.deepEqual([composed[0], decomposed[0], long[0]], [3, 4, 9]);
  expectCode(() => heap.perm("n".repeat(1025), new Uint8Array(1)), "INVALID_ARGUMENT");
  assert.equal(heap.flush().pages, 0, "registering what is there changes nothing");
  expectWell(heap);
});

test("a block whose layout changed is BLOCK_MISMATCH at restore too, and nothing happens", {
  timeout,
}, () => {
  using folder = new Folder();
  using heap = Heap.open({ file: folder.file("a"), size, keep: 4 });
  const old = Float64Array.of(1, 2);
  heap.perm("state", old);
  heap.flush();
  heap.unperm("state");
  const wider = Float64Array.of(7, 8, 9);
  heap.perm("state", wider);
  const other = Uint8Array.of(1);
  heap.perm("other", other);
  const p = heap.malloc(8);
  heap.store(p, 5);
  heap.flush();
  expectCode(() => heap.restore({ epoch: 1 }), "BLOCK_MISMATCH", { message: /state/ });
  assert.equal(heap.epoch, 2);
  assert.equal(heap.load(p), 5);
  assert.deepEqual([...wider, ...other], [7, 8, 9, 1]);
  assert.equal(heap.flush().pages, 0);
  expectWell(heap);
  heap.unperm("state");
  heap.restore({ epoch: 1 });
  heap.perm("state", old);
  assert.deepEqual([...old], [1, 2]);
  expectWell(heap);
});

test("stored blocks that nobody registers are kept", { timeout }, () => {
  using folder = new Folder();
  const file = folder.file("a");
  {
    using heap = Heap.open({ file, size });
    heap.perm("kept", Float64Array.of(42));
    heap.flush();
  }
  for (let run = 1; run <= 3; run++) {
    using heap = Heap.open({ file, size });
    heap.perm(`run ${run}`, Uint8Array.of(run));
    heap.flush();
    assert.equal(heap.stats().blocks, 1 + run);
  }
  using heap = Heap.open({ file, size });
  const kept = new Float64Array(1);
  heap.perm("kept", kept);
  assert.equal(kept[0], 42);
});

test("unperm ends the registration and removes the block with the next commit", { timeout }, () => {
  using folder = new Folder();
  const file = folder.file("a");
  using heap = Heap.open({ file, size, keep: 3 });
  const gone = Float64Array.of(1);
  const stays = Float64Array.of(2);
  heap.perm("gone", gone);
  heap.perm("stays", stays);
  heap.flush();
  const { liveBlocks } = heap.stats();
  heap.unperm("gone");
  expectCode(() => heap.unperm("gone"), "NOT_FOUND", { message: /gone/ });
  assert.ok(heap.stats().liveBlocks < liveBlocks, "its shadow was freed");
  heap.restore();
  gone[0] = 5;
  stays[0] = 5;
  heap.restore();
  assert.equal(gone[0], 5, "not registered any more, though stored");
  assert.equal(stays[0], 2);
  heap.unperm("gone");
  heap.flush();
  heap.close();

  using again = Heap.open({ file, size, keep: 3 });
  expectCode(() => again.unperm("gone"), "NOT_FOUND");
  again.perm("gone", gone);
  assert.equal(gone[0], 5, "a new block, not filled");
  again.unperm("stays");
  again.flush();
  assert.equal(again.stats().blocks, 1);
  expectWell(again);
});

test("a block that an epoch does not have yet keeps its value through a restore", {
  timeout,
}, () => {
  using folder = new Folder();
  const file = folder.file("a");
  const heap = Heap.open({ file, size, keep: 3 });
  heap.flush();
  const young = Float64Array.of(1);
  heap.perm("young", young);
  heap.flush();
  young[0] = 7;
  heap.restore({ epoch: 1 });
  assert.equal(young[0], 7);
  heap.check();
  heap.flush();
  heap.close();
  using again = Heap.open({ file, size });
  young[0] = 0;
  again.perm("young", young);
  assert.equal(young[0], 7);
});

test("a block's target that was detached stops commits and restores before they begin", {
  timeout,
}, () => {
  using folder = new Folder();
  using heap = Heap.open({ file: folder.file("a"), size });
  const target = Float64Array.of(1, 2);
  const other = Float64Array.of(3);
  heap.perm("target", target);
  heap.perm("other", other);
  heap.flush();
  const moved = new Float64Array(target.buffer.transfer());
  other[0] = 4;
  expectCode(() => heap.flush(), "INVALID_ARGUMENT", { message: /target/ });
  expectCode(() => heap.restore(), "INVALID_ARGUMENT", { message: /target/ });
  assert.equal(heap.epoch, 1);
  assert.equal(other[0], 4);
  heap.unperm("target");
  heap.perm("target", moved);
  moved[1] = 5;
  assert.equal(heap.flush().epoch, 2);
  moved[1] = 0;
  heap.restore();
  assert.deepEqual([...moved, ...other], [1, 5, 4]);
  expectWell(heap);
});

test("a block's target that is detached by restore()'s own options stops it all the same", {
  timeout,
}, () => {
  using folder = new Folder();
  using heap = Heap.open({ file: folder.file("a"), size });
  const target = new Float64Array(4);
  heap.perm("target", target);
  const p = heap.root = heap.calloc(1, 8);
  heap.flush();
  heap.store(p, 7);
  const options = {
    get epoch() {
      if (target.length > 0) target.buffer.transfer();
      return 1;
    },
  };
  expectCode(() => heap.restore(options), "INVALID_ARGUMENT");
  assert.equal(heap.load(p), 7);
});

test("a block belongs to the heap it was registered with, and to it alone", { timeout }, () => {
  using folder = new Folder();
  using a = Heap.open({ file: folder.file("a"), size });
  using b = Heap.open({ file: folder.file("b"), size });
  const shared = Float64Array.of(1);
  a.perm("x", shared);
  b.perm("x", shared);
  a.flush();
  shared[0] = 2;
  b.flush();
  a.restore();
  assert.equal(shared[0], 1);
  b.restore();
  assert.equal(shared[0], 2);
  const view = a.view(Float64Array, a.malloc(8), 1);
  expectCode(() => b.perm("view", view), "INVALID_ARGUMENT", { message: /heap|persistent/ });
  expectCode(() => a.perm("view", view.buffer as ArrayBuffer), "INVALID_ARGUMENT");
});

test("only what changed in a block is written", { timeout }, () => {
  using folder = new Folder();
  using heap = Heap.open({ file: folder.file("a"), size });
  const big = new Uint8Array(4 * mib).fill(1);
  heap.perm("big", big);
  assert.ok(heap.flush().pages >= 1024);
  assert.equal(heap.flush().pages, 0);
  big[2 * mib] = 2;
  assert.ok(heap.flush().pages <= 2);
  big[2 * mib] = 1;
  big[2 * mib] = 2;
  assert.equal(heap.flush().pages, 0);
  assert.ok(heap.capacity >= 4 * mib, "the heap grew for its shadow");
  big.fill(0);
  heap.restore();
  assert.equal(big[0], 1);
  assert.equal(big[2 * mib], 2);
  expectWell(heap);
});

test("a block that does not fit is OUT_OF_MEMORY and not registered", { timeout }, () => {
  using heap = Heap.open({ size, maxSize: 2 * mib });
  const big = new Uint8Array(4 * mib);
  expectCode(() => heap.perm("big", big), "OUT_OF_MEMORY");
  expectCode(() => heap.global("big", Uint8Array, 4 * mib), "OUT_OF_MEMORY");
  assert.equal(heap.stats().blocks, 0);
  expectWell(heap);
  heap.perm("big", big.subarray(0, mib));
  assert.equal(heap.stats().blocks, 1);
  expectWell(heap);
});

test("a thousand blocks are all found again", { timeout }, () => {
  using folder = new Folder();
  const file = folder.file("a");
  const make = () => Array.from({ length: 1000 }, () => new Uint16Array(3));
  {
    using heap = Heap.open({ file, size });
    make().forEach((target, i) => {
      heap.perm(`block ${i}`, target);
      target.fill(i);
    });
    heap.flush();
    heap.check();
  }
  using heap = Heap.open({ file, size });
  assert.equal(heap.stats().blocks, 1000);
  make().forEach((target, i) => {
    heap.perm(`block ${i}`, target);
    assert.ok(target.every((value) => value === i));
  });
  for (let i = 0; i < 1000; i += 2) heap.unperm(`block ${i}`);
  heap.check();
  assert.equal(heap.stats().blocks, 500);
  expectCode(() => heap.unperm("block 0"), "NOT_FOUND");
  expectWell(heap);
});

test("global() is an array in the heap: zeroed when new, found again by name", {
  timeout,
}, async () => {
  using folder = new Folder();
  const file = folder.file("a");
  const heap = Heap.open({ file, size });
  const counter = heap.global("counter", Float64Array, 3);
  assert.ok(counter instanceof Float64Array);
  assert.deepEqual([...counter], [0, 0, 0]);
  counter[1] = 5;
  const same = heap.global("counter", Float64Array, 3);
  assert.equal(same[1], 5);
  same[2] = 6;
  assert.equal(counter[2], 6);
  assert.equal(counter.buffer.byteLength, 24);
  heap.flush();
  counter[1] = 50;
  heap.restore();
  assert.equal(counter[1], 5, "the view goes on across a restore in place");
  for (
    const [type, count] of [
      [Float64Array, 2],
      [Float64Array, 4],
      [Float32Array, 6],
      [BigInt64Array, 3],
      [Uint8Array, 24],
    ] as const
  ) {
    expectCode(
      () => heap.global("counter", type as Uint8ArrayConstructor, count),
      "BLOCK_MISMATCH",
    );
  }
  expectCode(() => heap.perm("counter", new Float64Array(3)), "BLOCK_MISMATCH");
  heap.perm("block", new Float64Array(3));
  expectCode(() => heap.global("block", Float64Array, 3), "BLOCK_MISMATCH");
  for (const count of [-1, 0.5, NaN, 2 ** 53, "1", 1n, null]) {
    expectCode(() => heap.global("bad", Float64Array, count as number), "INVALID_ARGUMENT");
  }
  expectCode(() => heap.global("", Float64Array, 1), "INVALID_ARGUMENT");
  expectCode(() => heap.global("bad", Array as never, 1), "INVALID_ARGUMENT");
  expectCode(() => heap.global("bad", Float64Array, 2 ** 45), "OUT_OF_MEMORY");
  assert.equal(heap.stats().blocks, 2);
  heap.flush();
  heap.close();
  assert.equal(counter.length, 0);

  for (const runtime of runtimes) {
    const value = await elsewhere(runtime, ({ perm }, file) => {
      const heap = perm.Heap.open({ file, size: 1 << 20 });
      const counter = heap.global("counter", Float64Array, 3);
      counter[1]++;
      heap.flush();
      return counter[1];
    }, file);
    assert.equal(value, 6 + runtimes.indexOf(runtime));
  }
  using again = Heap.open({ file, size });
  again.unperm("counter");
  assert.deepEqual([...again.global("counter", Float64Array, 3)], [0, 0, 0]);
  expectWell(again);
});

test("every kind of typed array can be a global, aligned", { timeout }, () => {
  using heap = Heap.open({ size });
  const types = [Int8Array, Uint16Array, Float32Array, Float64Array, BigUint64Array];
  types.forEach((type, i) => {
    for (let count = 1; count < 20; count++) {
      const view = heap.global(`${i} ${count}`, type as unknown as Uint8ArrayConstructor, count);
      assert.equal(view.length, count);
    }
  });
  const text = heap.global("text", Uint8Array, 5);
  text.set(new TextEncoder().encode("hello"));
  assert.equal(new TextDecoder().decode(heap.global("text", Uint8Array, 5)), "hello");
  assert.equal(heap.global("nothing", Uint8Array, 0).length, 0);
  assert.equal(heap.global("nothing", Uint8Array, 0).length, 0);
  expectWell(heap);
});

test("root: one pointer that persists, into the heap only", { timeout }, () => {
  using folder = new Folder();
  const file = folder.file("a");
  const heap = Heap.open({ file, size });
  assert.equal(heap.root, 0);
  const p = heap.malloc(8);
  heap.root = p;
  heap.flush();
  heap.root = 0;
  assert.equal(heap.root, 0);
  heap.restore();
  assert.equal(heap.root, p);
  for (const bad of [1, heap.address, heap.address - 8, 2 ** 47, -1, 0.5, NaN, 2 ** 60]) {
    expectCode(() => heap.root = bad, "BAD_POINTER");
  }
  for (const bad of ["1", 1n, null, undefined, {}]) {
    expectCode(() => heap.root = bad as number, "INVALID_ARGUMENT");
  }
  assert.equal(heap.root, p);
  heap.close();
  using again = Heap.open({ file, size });
  assert.equal(again.root, p);
});
