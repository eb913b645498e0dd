/**
 * A program that keeps its records in a heap, or in SQLite, started again: the records are there.
 *
 *     restart.ts heap|sqlite FILE first|numbers|texts
 *
 * Tells on one line the milliseconds from opening to the first record read, to the end, and a sum.
 * It asks each runtime in its own way for the arguments: `node:process` would take Deno 14 ms, which
 * would count as the heap's.
 *
 * @module
 */

import { f64, HashMap, roots, struct, text, u32 } from "../../data/mod.ts";
import { Heap } from "../../mod.ts";

const Row = struct("Row", { a: f64, b: f64, c: f64, d: f64, e: f64, f: f64, name: text });
const isBun = "Bun" in globalThis;
const [kind, file, what] = isBun
  ? (globalThis as unknown as { process: { argv: string[] } }).process.argv.slice(2)
  : Deno.args;
const FIRST = 500;
const before = performance.now();
let first = 0;
let sum = 0;

if (kind === "heap") {
  const heap = Heap.open({ file, size: 1 << 20 });
  const rows = roots(heap).get("rows", HashMap(u32, Row))!;
  sum = rows.get(FIRST)!.a;
  first = performance.now() - before;
  if (what === "numbers") {
    for (const { a, b, c, d, e, f } of rows.values()) sum += a + b + c + d + e + f;
  } else if (what === "texts") {
    for (const { a, b, c, d, e, f, name } of rows.values()) {
      sum += a + b + c + d + e + f + name.length;
    }
  }
} else {
  const module = await import(isBun ? "bun:sqlite" : "node:sqlite");
  const database = isBun ? new module.Database(file) : new module.DatabaseSync(file);
  interface Numbers extends Record<"a" | "b" | "c" | "d" | "e" | "f", number> {
    name: string;
  }
  sum = database.prepare("SELECT a, b, c, d, e, f FROM t WHERE id = ?").get(FIRST).a;
  first = performance.now() - before;
  if (what === "numbers") {
    const all: Iterable<Numbers> = database.prepare("SELECT a, b, c, d, e, f FROM t").iterate();
    for (const { a, b, c, d, e, f } of all) sum += a + b + c + d + e + f;
  } else if (what === "texts") {
    const all: Iterable<Numbers> = database.prepare("SELECT a, b, c, d, e, f, name FROM t")
      .iterate();
    for (const { a, b, c, d, e, f, name } of all) sum += a + b + c + d + e + f + name.length;
  }
}
console.log(JSON.stringify({ first, all: performance.now() - before, sum }));
