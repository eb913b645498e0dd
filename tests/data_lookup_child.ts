/**
 * Asks and walks maps of numbers and of bigints until every engine has compiled how: what data_lookup_test.ts reads
 * is what the engine tells of that.
 *
 * @module
 */
import { f64, HashMap, struct, u32, u64 } from "../data/mod.ts";
import { Heap } from "../mod.ts";

const Item = struct("Item", { a: f64, b: u32 });
const COUNT = 1000;

using heap = Heap.open({ file: null, size: 1 << 20 });
const numbers = new (HashMap(u32, Item))(heap);
const bigints = new (HashMap(u64, Item))(heap);
const keys = Array.from({ length: COUNT }, (_, i) => BigInt(i));
for (let i = 0; i < COUNT; i++) {
  numbers.set(i, { a: i });
  bigints.set(keys[i], { a: i });
}

function readNumbers(): number {
  let sum = 0;
  for (let i = 0; i < COUNT; i++) sum += numbers.get(i)!.a;
  return sum;
}

function readBigints(): number {
  let sum = 0;
  for (let i = 0; i < COUNT; i++) sum += bigints.get(keys[i])!.a;
  return sum;
}

function walkNumbers(): number {
  let sum = 0;
  for (const { a } of numbers.values()) sum += a;
  return sum;
}

function walkBigints(): number {
  let sum = 0;
  for (const [key, { a }] of bigints) if (key >= 0n) sum += a;
  for (const key of bigints.keys()) if (key < 0n) sum++;
  return sum;
}

let sum = 0;
for (let round = 0; round < 200; round++) {
  sum += readNumbers() + readBigints() + walkNumbers() + walkBigints();
}
if (sum !== 400 * COUNT * (COUNT - 1)) throw new Error(`the maps tell ${sum}`);
