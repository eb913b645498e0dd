/**
 * What TypeScript programs do today to keep a million records, beside the heap: JSON written whole
 * and renamed, SQLite, LMDB. Each changes records, all of them, one in a hundred at random, one in
 * a hundred in a row, and makes that durable; then a new process starts and reads every number.
 *
 * A record has six numbers and a name of at most 16 bytes. The peers get their best form: prepared
 * statements in one transaction with WAL and synchronous=FULL, binary values under integer keys
 * with a synced commit. The time is that of the changes and the commit together, since in a
 * database changing a record is part of the price.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { Heap } from "../../mod.ts";
import { inChild, line, type Measure, type Report, type Samples } from "../harness.ts";
import { installPeers, peer } from "../peers/mod.ts";
import { randomSource } from "./random.ts";

const NUMBERS = 6;
const RECORD_BYTES = 64;
const WORDS = RECORD_BYTES / 8;

interface Args {
  file: string;
  records: number;
  rounds: number;
}

/** A kept set of records, as one contestant keeps it. */
interface Store {
  /** Changes record `i` and every number of it to follow from `value`. */
  change(i: number, value: number): void;
  /** Makes all changes durable. */
  commit(): void;
  /** The sum of all numbers of all records. */
  sum(): number;
}

type Contestant = (file: string, records: number, isNew: boolean) => Store | Promise<Store>;

const nameOf = (i: number) => `user-${i}`;
const numberOf = (value: number, place: number) => value + place / 8;

function sumOf(words: Float64Array, records: number): number {
  let sum = 0;
  for (let at = 0; at < records * WORDS; at += WORDS) {
    for (let place = 0; place < NUMBERS; place++) sum += words[at + place];
  }
  return sum;
}

function heapStore(file: string, records: number, isNew: boolean): Store {
  const bytes = records * RECORD_BYTES;
  const heap = Heap.open({ file, size: bytes + 2 ** 20 });
  if (isNew) heap.root = heap.malloc(bytes);
  const words = heap.view(Float64Array, heap.root, records * WORDS);
  if (isNew) {
    const text = heap.bytes(heap.root, bytes);
    const encoder = new TextEncoder();
    for (let i = 0; i < records; i++) {
      encoder.encodeInto(nameOf(i), text.subarray(i * RECORD_BYTES + NUMBERS * 8));
    }
  }
  return {
    change(i, value) {
      const at = i * WORDS;
      for (let place = 0; place < NUMBERS; place++) words[at + place] = numberOf(value, place);
    },
    commit: () => void heap.flush(),
    sum: () => sumOf(words, records),
  };
}

interface Row {
  name: string;
  a: number;
  b: number;
  c: number;
  d: number;
  e: number;
  f: number;
}

const rowOf = (i: number, value: number): Row => ({
  name: nameOf(i),
  a: numberOf(value, 0),
  b: numberOf(value, 1),
  c: numberOf(value, 2),
  d: numberOf(value, 3),
  e: numberOf(value, 4),
  f: numberOf(value, 5),
});
const sumOfRow = ({ a, b, c, d, e, f }: Row) => a + b + c + d + e + f;

function jsonStore(file: string, records: number, isNew: boolean): Store {
  const rows: Row[] = isNew
    ? Array.from({ length: records }, (_, i) => rowOf(i, 0))
    : JSON.parse(readFileSync(file, "utf8"));
  return {
    change(i, value) {
      const row = rows[i];
      row.a = numberOf(value, 0);
      row.b = numberOf(value, 1);
      row.c = numberOf(value, 2);
      row.d = numberOf(value, 3);
      row.e = numberOf(value, 4);
      row.f = numberOf(value, 5);
    },
    commit() {
      const fd = openSync(`${file}.new`, "w");
      const bytes = Buffer.from(JSON.stringify(rows));
      for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done);
      fsyncSync(fd);
      closeSync(fd);
      renameSync(`${file}.new`, file);
      const folder = openSync(dirname(file), "r");
      fsyncSync(folder);
      closeSync(folder);
    },
    sum: () => rows.reduce((sum, row) => sum + sumOfRow(row), 0),
  };
}

async function sqliteStore(file: string, records: number, isNew: boolean): Promise<Store> {
  const isBun = process.versions.bun !== undefined;
  const specifier = isBun ? "bun:sqlite" : "node:sqlite";
  const module = await import(specifier);
  const database = isBun ? new module.Database(file) : new module.DatabaseSync(file);
  database.exec("PRAGMA journal_mode = WAL");
  database.exec("PRAGMA synchronous = FULL");
  if (isNew) {
    database.exec(
      "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, a REAL, b REAL, c REAL, d REAL, e REAL, f REAL)",
    );
    const insert = database.prepare("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
    database.exec("BEGIN");
    for (let i = 0; i < records; i++) {
      const { name, a, b, c, d, e, f } = rowOf(i, 0);
      insert.run(i, name, a, b, c, d, e, f);
    }
    database.exec("COMMIT");
  }
  const update = database.prepare("UPDATE t SET a=?, b=?, c=?, d=?, e=?, f=? WHERE id=?");
  let inside = false;
  return {
    change(i, value) {
      if (!inside) database.exec("BEGIN");
      inside = true;
      update.run(
        numberOf(value, 0),
        numberOf(value, 1),
        numberOf(value, 2),
        numberOf(value, 3),
        numberOf(value, 4),
        numberOf(value, 5),
        i,
      );
    },
    commit() {
      if (inside) database.exec("COMMIT");
      inside = false;
    },
    sum() {
      let sum = 0;
      const rows = database.prepare("SELECT a, b, c, d, e, f FROM t").iterate();
      for (const row of rows as Iterable<Row>) sum += sumOfRow(row);
      return sum;
    },
  };
}

function lmdbStore(file: string, records: number, isNew: boolean): Store {
  const database = peer("lmdb").open({
    path: file,
    noSubdir: true,
    keyEncoding: "uint32",
    encoding: "binary",
    overlappingSync: false,
    mapSize: 2 ** 32,
  });
  const value = Buffer.alloc(RECORD_BYTES);
  const words = new Float64Array(value.buffer, value.byteOffset, NUMBERS);
  let changes: [number, number][] = [];
  const write = ([i, number]: [number, number]) => {
    for (let place = 0; place < NUMBERS; place++) words[place] = numberOf(number, place);
    value.fill(0, NUMBERS * 8).write(nameOf(i), NUMBERS * 8);
    database.putSync(i, value);
  };
  const commit = () => {
    database.transactionSync(() => changes.forEach(write));
    changes = [];
  };
  if (isNew) {
    for (let i = 0; i < records; i++) changes.push([i, 0]);
    commit();
  }
  return {
    change: (i, number) => void changes.push([i, number]),
    commit,
    sum() {
      let sum = 0;
      const read = new Float64Array(NUMBERS);
      const bytes = new Uint8Array(read.buffer);
      for (let i = 0; i < records; i++) {
        bytes.set(database.getBinaryFast(i).subarray(0, NUMBERS * 8));
        for (let place = 0; place < NUMBERS; place++) sum += read[place];
      }
      return sum;
    },
  };
}

const contestants: Record<string, Contestant> = {
  heap: heapStore,
  "JSON + fsync + rename": jsonStore,
  sqlite: sqliteStore,
  lmdb: lmdbStore,
};

const CHANGES = ["all", "1 % at random", "1 % in a row"] as const;
const RESTART = "restart, all read";
/** How many times faster than the best peer the heap has set itself to be. */
const FASTER: Record<string, number> = {
  all: 4,
  "1 % at random": 3,
  "1 % in a row": 2,
  [RESTART]: 4,
};

async function write({ contestant, file, records, rounds }: Args & { contestant: string }) {
  const store = await contestants[contestant](file, records, true);
  store.commit();
  const random = randomSource(5);
  const samples: Samples = {};
  let value = 0;
  for (let round = 0; round < rounds; round++) {
    for (const what of CHANGES) {
      const count = what === "all" ? records : records / 100;
      const first = random(records - count + 1);
      const places = Int32Array.from(
        { length: count },
        (_, i) => what === "1 % at random" ? random(records) : first + i,
      );
      value++;
      const before = performance.now();
      for (const place of places) store.change(place, value);
      store.commit();
      (samples[what] ??= []).push(performance.now() - before);
    }
  }
  return { samples, sum: store.sum() };
}

async function restart({ contestant, file, records }: Args & { contestant: string }) {
  const before = performance.now();
  const store = await contestants[contestant](file, records, false);
  const sum = store.sum();
  return { ms: performance.now() - before, sum };
}

export const recordsKept: Measure = {
  title: "A million records kept, beside JSON, SQLite and LMDB",
  roles: { write, restart },
  async run({ quick, work, runtimes }) {
    const missing = installPeers();
    const names = Object.keys(contestants).filter((name) => name !== "lmdb" || !missing);
    const args = { records: quick ? 100_000 : 1_000_000, rounds: quick ? 2 : 3 };
    const reports: Report[] = [];
    for (const runtime of runtimes) {
      const times: Record<string, Samples> = {};
      for (let turn = 0; turn < (quick ? 1 : 3); turn++) {
        for (const contestant of names) {
          const file = join(work, `records-${runtime}-${turn}-${contestant.split(" ")[0]}`);
          const told = { ...args, contestant, file };
          const { samples, sum } = await inChild<{ samples: Samples; sum: number }>(
            runtime,
            "records/write",
            told,
            true,
          );
          for (let round = 0; round < 2; round++) {
            const read = await inChild<{ ms: number; sum: number }>(
              runtime,
              "records/restart",
              told,
              true,
            );
            if (read.sum !== sum) {
              throw new Error(`${contestant} came back with ${read.sum} and not ${sum}`);
            }
            (samples[RESTART] ??= []).push(read.ms);
          }
          for (const [what, values] of Object.entries(samples)) {
            ((times[what] ??= {})[contestant] ??= []).push(...values);
          }
        }
      }
      const middle = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1];
      reports.push({
        measure: "records",
        runtime,
        lines: Object.entries(times).flatMap(([what, samples]) => {
          const peers = names.filter((name) => name !== "heap");
          const best = peers.reduce((a, b) => middle(samples[a]) <= middle(samples[b]) ? a : b);
          const limit = 1 / FASTER[what];
          return [
            line(samples, "heap", "ms", { to: best, limit }),
            ...peers.map((name) => line(samples, name, "ms")),
          ].map((told) => ({ ...told, what: `${what}: ${told.what}` }));
        }),
        skipped: missing === undefined ? [] : [{ what: "lmdb", why: missing }],
        notes: [
          `${args.records} records; the changes and the commit, then a new process's reading`,
        ],
      });
    }
    return reports;
  },
};
