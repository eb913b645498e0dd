/**
 * Memory that large maps fill stands in large pages until the first commit, which changes nothing of what is
 * committed.
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { f64, HashMap, OrderedMap, roots, struct, u32 } from "../data/mod.ts";
import { Heap } from "../mod.ts";
import { Folder } from "./support.ts";

const Wide = struct("Wide", { a: f64, b: f64, c: f64, d: f64, e: f64 });
const isLinux = existsSync("/sys/kernel/mm/transparent_hugepage/enabled");

/** Bytes at that place and behind it, up to a gap, that may stand in large pages. */
function largeBytes(p: number): number {
  let end = 0;
  let sum = 0;
  for (const map of readFileSync("/proc/self/smaps", "utf8").split(/\n(?=[0-9a-f]+-[0-9a-f]+ )/)) {
    const [from, to] = map.split(" ", 1)[0].split("-").map((text) => parseInt(text, 16));
    if (end === 0 ? p < from || p >= to : from !== end) continue;
    end = to;
    if (/^VmFlags:.* hg\b/m.test(map)) sum += to - from;
  }
  return sum;
}

test("large maps stand in large pages until the first commit, and each later change is committed", {
  skip: isLinux ? false : "the system has no large pages that a program asks for",
  timeout: 60_000,
}, () => {
  using folder = new Folder();
  const path = folder.file("large.perm");
  const count = 150_000;
  const value = (a: number) => ({ a, b: 1, c: 2, d: 3, e: 4 });
  {
    using heap = Heap.open({ file: path, size: 64 * 2 ** 20 });
    const begin = heap.calloc(1, 64);
    const small = new (HashMap(u32, Wide))(heap);
    for (let i = 0; i < 1000; i++) small.set(i, value(i));
    assert.equal(largeBytes(begin), 0, "what is small asks for none");
    const hashed = roots(heap).open("hashed", HashMap(u32, Wide));
    for (let i = 0; i < count; i++) hashed.set(i, value(i));
    const before = largeBytes(begin);
    assert.ok(before >= 4 * 2 ** 20, `${before} bytes of a HashMap of ${count}`);
    const ordered = roots(heap).open("ordered", OrderedMap(u32, u32));
    for (let i = 0; i < count; i++) ordered.set(Math.imul(i, 0x9e3779b1) >>> 0, i);
    const both = largeBytes(begin);
    assert.ok(both > before, `${before} bytes, then ${both}`);
    heap.flush();
    if (heap.stats().tracker === "uffd") {
      assert.equal(largeBytes(begin), 0, "new pages are small from the first commit on");
    }
    let changed = 0;
    for (let i = 0; i < count; i += 10_007, changed++) hashed.get(i)!.c = -i;
    assert.equal(heap.flush().pages, changed);
    hashed.set(count, value(count));
    ordered.delete(0);
    heap.flush();
  }
  using heap = Heap.open({ file: path, size: 64 * 2 ** 20 });
  const hashed = roots(heap).open("hashed", HashMap(u32, Wide));
  const ordered = roots(heap).open("ordered", OrderedMap(u32, u32));
  assert.deepEqual([hashed.size, ordered.size], [count + 1, count - 1]);
  hashed.$check();
  ordered.$check();
  for (const [key, { a, c }] of hashed) {
    if (a !== key || c !== (key % 10_007 === 0 && key < count ? -key : 2)) {
      assert.fail(`key ${key}: ${a}, ${c}`);
    }
  }
  for (const [key, i] of ordered) assert.equal(key, Math.imul(i, 0x9e3779b1) >>> 0);
  for (let i = 0; i < count; i++) hashed.set(count + 1 + i, value(0));
  assert.equal(largeBytes(hashed.ptr), 0, "an opened heap asks for none");
});
