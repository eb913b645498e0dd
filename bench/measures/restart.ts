/**
 * A program with a million records in a HashMap, killed and started again: how long until the first
 * record is read and until all are, beside SQLite, and how much longer than an empty program the
 * whole process takes. Six numbers and a short name a record, read row by row, by a loop over the map's
 * values, and by columns.
 *
 * What is measured is the package as npm delivers it; how long the same takes from the sources of a
 * clone stands beside it. The processes take turns; files are in the page cache. SQLite's file is
 * closed cleanly, which spares it a recovery that the heap's has to stand.
 *
 * @module
 */

import { spawnSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { f64, HashMap, roots, struct, text, u32 } from "../../data/mod.ts";
import { Heap } from "../../mod.ts";
import {
  command,
  inChild,
  type Line,
  line,
  type Measure,
  ROOT,
  type Runtime,
  type Samples,
} from "../harness.ts";
import { installPackage, installProgram } from "../package.ts";

const NOTHING = join(ROOT, "bench/programs/nothing.ts");
const PROGRAM = join(ROOT, "bench/programs/restart.ts");
const PROCESS = join(ROOT, "bench/programs/process.ts");
const Row = struct("Row", { a: f64, b: f64, c: f64, d: f64, e: f64, f: f64, name: text });
const rowOf = (i: number) => ({
  a: i,
  b: i + 0.5,
  c: 2 * i,
  d: 3,
  e: -i,
  f: i / 8,
  name: `user-${i}`,
});

const LIMIT_FIRST_MS = 5;
const LIMIT_PROCESS_MS = 20;
const LIMIT_ALL: Record<Runtime, number> = { deno: 1 / 20, bun: 1 / 8 };
const LIMIT_TEXTS = 1 / 3;

/** How all records are read, for `rows` and `columns` of the program. */
const ways: Record<string, { heap: string; sqlite: string }> = {
  rows: { heap: "row by row", sqlite: "sqlite row by row" },
  columns: { heap: "by columns", sqlite: "sqlite its fastest way" },
};

interface Args {
  file: string;
  count: number;
}

function writeHeap({ file, count }: Args): number {
  const heap = Heap.open({ file, size: 1 << 20 });
  const rows = roots(heap).open("rows", HashMap(u32, Row));
  for (let i = 0; i < count; i++) rows.set(i, rowOf(i));
  heap.flush();
  return rows.size;
}

async function writeSqlite({ file, count }: Args): Promise<number> {
  const isBun = process.versions.bun !== undefined;
  const module = await import(isBun ? "bun:sqlite" : "node:sqlite");
  const database = isBun ? new module.Database(file) : new module.DatabaseSync(file);
  database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
  database.exec(
    "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, a REAL, b REAL, c REAL, d REAL, e REAL, f REAL)",
  );
  const insert = database.prepare("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
  database.exec("BEGIN");
  for (let i = 0; i < count; i++) {
    const { a, b, c, d, e, f, name } = rowOf(i);
    insert.run(i, name, a, b, c, d, e, f);
  }
  database.exec("COMMIT");
  database.close();
  return count;
}

interface Told {
  /** Milliseconds of the whole process, to the first record, and to the end. */
  whole: number;
  first: number;
  all: number;
  sum: number;
}

function runProgram(runtime: Runtime, program: string, args: string[]): Told {
  const [file, rest] = command(runtime, program, args);
  const before = performance.now();
  const { status, signal, stdout, stderr } = spawnSync(file, rest, { encoding: "utf8" });
  const whole = performance.now() - before;
  if (status !== 0) {
    throw new Error(`${program} under ${runtime} ended with ${signal ?? status}: ${stderr}`);
  }
  return { whole, ...stdout.trim() === "" ? { first: 0, all: 0, sum: 0 } : JSON.parse(stdout) };
}

export const restart: Measure = {
  title: "A program with a million records in a HashMap, killed and started again",
  roles: { writeHeap, writeSqlite },
  async run({ quick, work, runtimes }) {
    const count = quick ? 100_000 : 1_000_000;
    const rounds = quick ? 3 : 9;
    const reports = [];
    const project = join(work, "restart");
    mkdirSync(project);
    installPackage(project);
    const program = installProgram(project, PROGRAM);
    for (const runtime of runtimes) {
      const files = {
        heap: join(work, `restart-${runtime}.perm`),
        sqlite: join(work, `restart-${runtime}.sqlite`),
      };
      await inChild(runtime, "restart/writeHeap", { file: files.heap, count }, true);
      await inChild(runtime, "restart/writeSqlite", { file: files.sqlite, count });
      const samples: Samples = {};
      const add = (what: string, ms: number) => (samples[what] ??= []).push(ms);
      for (let round = -1; round < rounds; round++) {
        const nothing = runProgram(runtime, NOTHING, []);
        const process = runProgram(runtime, PROCESS, []);
        const first = runProgram(runtime, program, ["heap", files.heap, "first"]);
        const source = runProgram(runtime, PROGRAM, ["heap", files.heap, "first"]);
        const told = ["numbers", "texts"].flatMap((what) =>
          ["rows", "columns"].map((how) => ({
            what,
            how,
            heap: runProgram(runtime, program, ["heap", files.heap, what, how]),
            sqlite: runProgram(runtime, program, ["sqlite", files.sqlite, what, how]),
          }))
        );
        if (round < 0) continue;
        add("an empty program", nothing.whole);
        add("open to first get", first.first);
        add("first get, whole process beyond an empty one", first.whole - nothing.whole);
        add("open to first get, from the sources", source.first);
        add("whole process, from the sources", source.whole - nothing.whole);
        add("one that imports node:process, beyond an empty one", process.whole - nothing.whole);
        for (const { what, how, heap, sqlite } of told) {
          if (heap.sum !== sqlite.sum) {
            throw new Error(`The heap's records sum up to ${heap.sum}, SQLite's to ${sqlite.sum}`);
          }
          add(`open to all ${what} read, ${ways[how].heap}`, heap.all);
          add(`open to all ${what} read, ${ways[how].sqlite}`, sqlite.all);
        }
      }
      const all = (what: string, limit: number): Line[] =>
        Object.values(ways).flatMap((way) => [
          line(samples, `open to all ${what} read, ${way.heap}`, "ms", {
            to: `open to all ${what} read, ${way.sqlite}`,
            limit,
          }),
          line(samples, `open to all ${what} read, ${way.sqlite}`, "ms"),
        ]);
      reports.push({
        measure: "restart",
        runtime,
        lines: [
          line(samples, "an empty program", "ms"),
          line(samples, "open to first get", "ms", { limit: LIMIT_FIRST_MS }),
          line(samples, "first get, whole process beyond an empty one", "ms", {
            limit: LIMIT_PROCESS_MS,
          }),
          line(samples, "open to first get, from the sources", "ms"),
          line(samples, "whole process, from the sources", "ms"),
          line(samples, "one that imports node:process, beyond an empty one", "ms"),
          ...all("numbers", LIMIT_ALL[runtime]),
          ...all("texts", LIMIT_TEXTS),
        ],
        skipped: [],
        notes: [
          `${count} records of six numbers and a name; "texts" reads the numbers and the name`,
          "row by row: `for (const { a, … } of map.values())`, for SQLite of `iterate()`; by columns: " +
          '`for (const { a, … } of map.batches(["a", …], { reuse: true }))`, for SQLite what is fastest ' +
          "there: `iterate()` in Bun, `all()` of arrays in Deno",
          "the package as npm delivers it, where nothing else is said",
        ],
      });
    }
    return reports;
  },
};
