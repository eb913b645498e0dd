/**
 * A program that keeps its records in a heap, or in SQLite, started again: the records are there.
 *
 *     restart.ts heap|sqlite FILE first|numbers|texts rows|columns
 *
 * Tells on one line the milliseconds from opening to the first record read, to the end, and a sum.
 * `rows` reads an object for each record; `columns` reads in the way that is fastest there: the heap's columns
 * in batches; SQLite's rows as arrays in Deno, and in Bun as objects, which take less than arrays, than all at
 * once and than a query for each column.
 * It asks each runtime in its own way for the arguments: `node:process` would take Deno 14 ms, which
 * would count as the heap's.
 *
 * @module
 */

import { f64, HashMap, roots, struct, text, u32 } from "../../data/mod.ts";
import { Heap } from "../../mod.ts";

const Row = struct("Row", { a: f64, b: f64, c: f64, d: f64, e: f64, f: f64, name: text });
const isBun = "Bun" in globalThis;
const [kind, file, what, how] = isBun
  ? (globalThis as unknown as { process: { argv: string[] } }).process.argv.slice(2)
  : Deno.args;
function total(column: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < column.length; i++) sum += column[i];
  return sum;
}

function lengths(column: string[]): number {
  let sum = 0;
  for (let i = 0; i < column.length; i++) sum += column[i].length;
  return sum;
}

const FIRST = 500;
const before = performance.now();
let first = 0;
let sum = 0;

if (kind === "heap") {
  const heap = Heap.open({ file, size: 1 << 20 });
  const rows = roots(heap).get("rows", HashMap(u32, Row))!;
  sum = rows.get(FIRST)!.a;
  first = performance.now() - before;
  if (what === "numbers" && how === "columns") {
    const batches = rows.batches(["a", "b", "c", "d", "e", "f"], { reuse: true });
    for (const { a, b, c, d, e, f } of batches) {
      sum += total(a) + total(b) + total(c) + total(d) + total(e) + total(f);
    }
  } else if (what === "texts" && how === "columns") {
    const batches = rows.batches(["a", "b", "c", "d", "e", "f", "name"], { reuse: true });
    for (const { a, b, c, d, e, f, name } of batches) {
      sum += total(a) + total(b) + total(c) + total(d) + total(e) + total(f) + lengths(name);
    }
  } else if (what === "numbers") {
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
  if (how === "columns" && !isBun && what !== "first") {
    const query = database.prepare(
      `SELECT a, b, c, d, e, f${what === "texts" ? ", name" : ""} FROM t`,
    );
    query.setReturnArrays(true);
    const all: [number, number, number, number, number, number, string][] = query.all();
    if (what === "numbers") {
      for (let i = 0; i < all.length; i++) {
        const row = all[i];
        sum += row[0] + row[1] + row[2] + row[3] + row[4] + row[5];
      }
    } else {
      for (let i = 0; i < all.length; i++) {
        const row = all[i];
        sum += row[0] + row[1] + row[2] + row[3] + row[4] + row[5] + row[6].length;
      }
    }
  } else if (what === "numbers") {
    const all: Iterable<Numbers> = database.prepare("SELECT a, b, c, d, e, f FROM t").iterate();
    for (const { a, b, c, d, e, f } of all) sum += a + b + c + d + e + f;
  } else if (what === "texts") {
    const all: Iterable<Numbers> = database.prepare("SELECT a, b, c, d, e, f, name FROM t")
      .iterate();
    for (const { a, b, c, d, e, f, name } of all) sum += a + b + c + d + e + f + name.length;
  }
}
console.log(JSON.stringify({ first, all: performance.now() - before, sum }));
