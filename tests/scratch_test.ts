/**
 * Memory that commits leave out, and memory that was given back.
 *
 * @module
 */
import assert from "node:assert/strict";
import { statSync } from "node:fs";
import { test } from "node:test";
import { Heap } from "../mod.ts";
import { expectCode, expectWell, Folder } from "./support.ts";

const mebibyte = 1 << 20;

for (const how of ["flush", "flushAsync"] as const) {
  test(`scratch memory is left out of ${how}() and zero after opening and restoring`, async () => {
    using folder = new Folder();
    const file = folder.file("a.perm");
    let scratch = 0;
    let kept = 0;
    {
      using heap = Heap.open({ file, size: 16 * mebibyte });
      kept = heap.calloc(1, 200_000);
      scratch = heap.scratch(4 * mebibyte);
      const behind = heap.calloc(1, 200_000);
      heap.root = heap.malloc(24);
      [kept, scratch, behind].forEach((p, at) => heap.store(heap.root + 8 * at, p));
      assert.ok(heap.usableSize(scratch) >= 4 * mebibyte);
      const bytes = heap.bytes(scratch, 4 * mebibyte);
      assert.ok(bytes.every((byte) => byte === 0));
      for (const p of [kept, behind]) heap.bytes(p, 200_000).fill(7);
      bytes.fill(9);
      const { pages } = await heap[how]();
      assert.ok(pages < 150, `${pages} pages were committed`);
      assert.ok(statSync(file).size < mebibyte);
      bytes[5] = 10;
      heap.bytes(kept, 1)[0] = 8;
      assert.ok((await heap[how]()).pages < 4);
      assert.ok(bytes.subarray(6).every((byte) => byte === 9));
      heap.restore();
      assert.ok(heap.bytes(scratch, 4 * mebibyte).every((byte) => byte === 0));
      assert.equal(heap.bytes(kept, 1)[0], 8);
      bytes.fill(11);
    }
    using heap = Heap.open({ file, size: mebibyte, verify: true });
    const [first, mine, behind] = [0, 8, 16].map((at) => heap.load(heap.root + at));
    assert.deepEqual([first, mine], [kept, scratch]);
    assert.ok(heap.bytes(mine, 4 * mebibyte).every((byte) => byte === 0));
    for (const p of [first, behind]) {
      assert.ok(heap.bytes(p + 1, 199_999).every((byte) => byte === 7));
    }
    expectWell(heap);
    // What takes its place is kept.
    heap.free(mine);
    expectCode(() => heap.free(mine), "DOUBLE_FREE");
    const large = heap.malloc(4 * mebibyte);
    heap.bytes(large, 4 * mebibyte).fill(3);
    assert.ok((await heap[how]()).pages >= 1024);
    heap.restore();
    assert.ok(heap.bytes(large, 4 * mebibyte).every((byte) => byte === 3));
  });
}

test("scratch memory stays scratch when it is reallocated, and small sizes and none are whole blocks", () => {
  using folder = new Folder();
  using heap = Heap.open({ file: folder.file("a.perm"), size: 4 * mebibyte });
  let scratch = heap.scratch(100_000);
  const wall = heap.malloc(100_000);
  heap.bytes(scratch, 100_000).fill(1);
  scratch = heap.realloc(scratch, mebibyte);
  assert.ok(heap.bytes(scratch, 100_000).every((byte) => byte === 1));
  scratch = heap.realloc(scratch, 50);
  assert.equal(heap.bytes(scratch, 50)[49], 1);
  const small = heap.scratch(0);
  heap.bytes(small, heap.usableSize(small)).fill(2);
  heap.bytes(scratch, heap.usableSize(scratch)).fill(2);
  heap.bytes(wall, 8).fill(5);
  heap.flush();
  heap.restore();
  for (const p of [small, scratch]) {
    assert.ok(heap.bytes(p, heap.usableSize(p)).every((byte) => byte === 0));
    heap.free(p);
  }
  assert.equal(heap.bytes(wall, 8)[7], 5);
  expectCode(() => heap.scratch(-1), "INVALID_ARGUMENT");
  expectCode(() => heap.scratch(1e15), "OUT_OF_MEMORY");
  expectWell(heap);
});

test("memory that was freed is a hole in the image, and zero after opening", () => {
  using folder = new Folder();
  const file = folder.file("a.perm");
  let p = 0;
  {
    using heap = Heap.open({ file, size: 16 * mebibyte });
    p = heap.malloc(8 * mebibyte);
    heap.bytes(p, 8 * mebibyte).fill(1);
    heap.flush();
    assert.ok(statSync(file).size > 8 * mebibyte);
    heap.free(p);
    const { pages } = heap.flush();
    assert.ok(pages < 10, `${pages} pages for a hole`);
  }
  using heap = Heap.open({ file, size: mebibyte });
  assert.equal(heap.calloc(1, 8 * mebibyte), p);
  assert.ok(heap.bytes(p, 8 * mebibyte).every((byte) => byte === 0));
});

test("memory that is freed in an opened heap is zero at once, and a hole whoever has it next", () => {
  using folder = new Folder();
  const file = folder.file("a.perm");
  // So much that the system has part of it back.
  const length = 112 * mebibyte;
  let p = 0;
  {
    using heap = Heap.open({ file, size: 128 * mebibyte });
    p = heap.root = heap.malloc(length);
    heap.bytes(p, length).fill(1);
    heap.flush();
  }
  const expectAll = (heap: Heap, value: number, what: string) => {
    const words = heap.view(Float64Array, p, length / 8);
    const wanted = new Float64Array(new Uint8Array(8).fill(value).buffer)[0];
    for (let at = 0; at < words.length; at += 64) {
      if (words[at] !== wanted) assert.fail(`${what}: byte ${8 * at} is another`);
    }
  };
  for (const touched of [false, true]) {
    // Its pages are the file's, and those that were stored to the process's own.
    using heap = Heap.open({ file, size: mebibyte });
    expectAll(heap, 1, "opened");
    const words = heap.view(Float64Array, p, length / 8);
    if (touched) { for (let at = 0; at < words.length; at += 1024) words[at] = 2; }
    heap.free(p);
    for (let i = 0; i < 4; i++) heap.free(heap.malloc(mebibyte));
    assert.equal(heap.calloc(1, length), p);
    expectAll(heap, 0, "allocated anew");
    words[words.length - 1] = 3;
    if (!touched) {
      heap.restore();
      expectAll(heap, 1, "restored");
      continue;
    }
    assert.ok(heap.flush().pages < 10);
  }
  using heap = Heap.open({ file, size: mebibyte, verify: true });
  expectAll(heap, 0, "opened after it was freed");
  assert.equal(heap.view(Float64Array, p, length / 8).at(-1), 3);
});
