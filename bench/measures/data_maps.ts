/**
 * Maps of 1e6 keys to a struct of six fields beside what a program would take otherwise: JavaScript's
 * Map to an object, the sorted maps of npm, and LMDB and SQLite, which keep them on disk too.
 *
 * Reading reads a field of what was found. Keys are looked up in random order; "fresh strings" are
 * made anew for each round, so that the engine has not seen them before.
 *
 * @module
 */

import { join } from "node:path";
import process from "node:process";
import { f64, HashMap, OrderedMap, struct, text, u32, u64 } from "../../data/mod.ts";
import { Heap } from "../../mod.ts";
import { installPeers, peer } from "../peers/mod.ts";
import {
  inChild,
  joinSamples,
  type Line,
  line,
  type Measure,
  type Report,
  type Samples,
  takeTurns,
} from "../harness.ts";
import { randomSource } from "./random.ts";

const Item = struct("Item", { a: f64, b: f64, c: f64, d: u32, e: u32, f: f64 });
const valueOf = (i: number) => ({ a: i, b: i + 1, c: 2, d: 3, e: 4, f: i * 0.5 });

// deno-lint-ignore no-explicit-any
type Any = any;

const keyKinds = {
  number: { type: u32, make: (i: number) => i * 7919 % 4294967291 },
  u64: { type: u64, make: (i: number) => BigInt(i) * 0x1_0000_0001n },
  "text, same strings": { type: text, make: (i: number) => `user:${i}` },
  "text, fresh strings": { type: text, make: (i: number) => `user:${i}` },
} as const;
type KeyKind = keyof typeof keyKinds;

const LIMIT_GET: Record<KeyKind, number> = {
  number: 1,
  u64: 1,
  "text, same strings": 3.5,
  "text, fresh strings": 1,
};
const LIMIT_SET = 2;
/** How engines compile a loop differs from process to process; told where the bar is near. */
const PROCESSES: Record<KeyKind, number> = {
  number: 3,
  u64: 3,
  "text, same strings": 1,
  "text, fresh strings": 1,
};

interface Args {
  kind: KeyKind;
  count: number;
  rounds: number;
}

/** Runs `work` on each and tells nanoseconds for one. */
function timed<List extends { length: number }>(list: List, work: (list: List) => void): number {
  const before = performance.now();
  work(list);
  return (performance.now() - before) * 1e6 / list.length;
}

/** `count` keys in random order, of those that were set. */
function keysToGet(kind: KeyKind, keys: readonly Any[], seed: number): Any[] {
  const random = randomSource(seed);
  const { make } = keyKinds[kind];
  const isFresh = kind === "text, fresh strings";
  return Array.from(keys, () => {
    const i = random(keys.length);
    return isFresh ? make(i) : keys[i];
  });
}

function hash({ kind, count, rounds }: Args): Samples {
  using heap = Heap.open({ file: null, size: 1 << 20 });
  const type = new (HashMap(keyKinds[kind].type as typeof u32, Item))(heap) as Any;
  const ours = type as Map<Any, Any>;
  const keys: Any[] = Array.from({ length: count }, (_, i) => keyKinds[kind].make(i));
  let theirs = new Map<Any, Any>();
  const before = heap.used;
  let seed = 1;
  let sum = 0;
  const set = (map: Map<Any, Any>) =>
    timed(keys, (keys) => {
      for (let i = 0; i < keys.length; i++) map.set(keys[i], valueOf(i));
    });
  const sets = takeTurns({
    "set, Map": () => set(theirs = new Map()),
    "set, HashMap": () => {
      ours.clear();
      return set(ours);
    },
  }, 3);
  const gets = takeTurns({
    "get, Map": () =>
      timed(keysToGet(kind, keys, seed++), (keys) => {
        for (let i = 0; i < keys.length; i++) sum += theirs.get(keys[i]).a;
      }),
    "get, HashMap": () =>
      timed(keysToGet(kind, keys, seed++), (keys) => {
        for (let i = 0; i < keys.length; i++) sum += ours.get(keys[i]).a;
      }),
  }, rounds);
  const walks = takeTurns({
    "walk, Map": () =>
      timed(keys, () => {
        for (const { a, b, c } of theirs.values()) sum += a + b + c;
      }),
    "walk, HashMap": () =>
      timed(keys, () => {
        for (const { a, b, c } of ours.values()) sum += a + b + c;
      }),
  }, rounds);
  if (!(sum > 0) || ours.size !== theirs.size) throw new Error("the maps differ");
  return { ...gets, ...sets, ...walks, "heap bytes a record": [(heap.used - before) / count] };
}

async function databases(
  { count, rounds, work, lmdb }: { count: number; rounds: number; work: string; lmdb: boolean },
): Promise<Samples> {
  using heap = Heap.open({ file: null, size: 1 << 20 });
  const ours = new (HashMap(text, Item))(heap);
  const keys = Array.from({ length: count }, (_, i) => `user:${i}`);
  const isBun = process.versions.bun !== undefined;
  const module = await import(isBun ? "bun:sqlite" : "node:sqlite");
  const path = join(work, `maps-${process.pid}.sqlite`);
  const sqlite = isBun ? new module.Database(path) : new module.DatabaseSync(path);
  sqlite.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF");
  sqlite.exec("CREATE TABLE t (id TEXT PRIMARY KEY, a, b, c, d, e, f) WITHOUT ROWID");
  const insert = sqlite.prepare("INSERT OR REPLACE INTO t VALUES (?, ?, ?, ?, ?, ?, ?)");
  const select = sqlite.prepare("SELECT a, b, c, d, e, f FROM t WHERE id = ?");
  const store = lmdb
    ? peer("lmdb").open({
      path: join(work, `maps-${process.pid}.lmdb`),
      noSync: true,
      mapSize: 2 ** 32,
    })
    : undefined;
  let sum = 0;
  let seed = 1;
  const sets: Record<string, () => number> = {
    "set, HashMap of text": () =>
      timed(keys, (keys) => {
        for (let i = 0; i < keys.length; i++) ours.set(keys[i], valueOf(i));
      }),
    "set, sqlite": () =>
      timed(keys, (keys) => {
        sqlite.exec("BEGIN");
        for (let i = 0; i < keys.length; i++) {
          const { a, b, c, d, e, f } = valueOf(i);
          insert.run(keys[i], a, b, c, d, e, f);
        }
        sqlite.exec("COMMIT");
      }),
  };
  const someKeys = () => {
    const random = randomSource(seed++);
    return Array.from({ length: count / 4 }, () => `user:${random(count)}`);
  };
  const gets: Record<string, () => number> = {
    "get, HashMap of text": () =>
      timed(someKeys(), (keys) => {
        for (let i = 0; i < keys.length; i++) sum += ours.get(keys[i])!.a;
      }),
    "get, sqlite": () =>
      timed(someKeys(), (keys) => {
        for (let i = 0; i < keys.length; i++) sum += select.get(keys[i]).a;
      }),
  };
  if (store !== undefined) {
    sets["set, lmdb"] = () =>
      timed(keys, (keys) =>
        store.transactionSync(() => {
          for (let i = 0; i < keys.length; i++) store.putSync(keys[i], valueOf(i));
        }));
    gets["get, lmdb"] = () =>
      timed(someKeys(), (keys) => {
        for (let i = 0; i < keys.length; i++) sum += store.get(keys[i]).a;
      });
  }
  const samples = { ...takeTurns(sets, 1), ...takeTurns(gets, rounds) };
  if (!(sum > 0)) throw new Error("nothing was read");
  await store?.close();
  return samples;
}

const RANGE = 100;

function ordered(
  { kind, count, rounds }: { kind: "number" | "text"; count: number; rounds: number },
): Samples {
  using heap = Heap.open({ file: null, size: 1 << 20 });
  const isText = kind === "text";
  const ours = new (OrderedMap((isText ? text : u32) as typeof u32, Item))(heap) as Any;
  const BTree = peer("sorted-btree").default;
  const btree = new BTree();
  const sdsl = new (peer("js-sdsl").OrderedMap)(
    [],
    isText ? (a: string, b: string) => a < b ? -1 : a > b ? 1 : 0 : (a: number, b: number) => a - b,
  );
  const keyOf = isText ? (i: number) => `user:${String(i).padStart(8, "0")}` : (i: number) => i;
  const random = randomSource(7);
  const keys: Any[] = Array.from({ length: count }, (_, i) => keyOf(i));
  for (let i = count - 1; i > 0; i--) {
    const j = random(i + 1);
    [keys[i], keys[j]] = [keys[j], keys[i]];
  }
  const sets = takeTurns(
    {
      "set, OrderedMap": () =>
        timed(keys, (keys) => {
          for (let i = 0; i < keys.length; i++) ours.set(keys[i], valueOf(i));
        }),
      "set, sorted-btree": () =>
        timed(keys, (keys) => {
          for (let i = 0; i < keys.length; i++) btree.set(keys[i], valueOf(i));
        }),
      "set, js-sdsl": () =>
        timed(keys, (keys) => {
          for (let i = 0; i < keys.length; i++) sdsl.setElement(keys[i], valueOf(i));
        }),
    },
    1,
    false,
  );
  let sum = 0;
  const some = () => Array.from({ length: count / 4 }, () => keyOf(random(count)));
  const starts = () => Array.from({ length: count / 400 }, () => keyOf(random(count - RANGE)));
  const gets = takeTurns({
    "get, OrderedMap": () =>
      timed(some(), (keys) => {
        for (let i = 0; i < keys.length; i++) sum += ours.get(keys[i]).a;
      }),
    "get, sorted-btree": () =>
      timed(some(), (keys) => {
        for (let i = 0; i < keys.length; i++) sum += btree.get(keys[i]).a;
      }),
    "get, js-sdsl": () =>
      timed(some(), (keys) => {
        for (let i = 0; i < keys.length; i++) sum += sdsl.getElementByKey(keys[i]).a;
      }),
    "range, OrderedMap": () =>
      timed(starts(), (keys) => {
        for (let i = 0; i < keys.length; i++) {
          let left = RANGE;
          for (const [, { a }] of ours.range(keys[i])) {
            sum += a;
            if (--left === 0) break;
          }
        }
      }) / RANGE,
    "range, sorted-btree": () =>
      timed(starts(), (keys) => {
        for (let i = 0; i < keys.length; i++) {
          let left = RANGE;
          for (const [, { a }] of btree.entries(keys[i])) {
            sum += a;
            if (--left === 0) break;
          }
        }
      }) / RANGE,
    "range, js-sdsl": () =>
      timed(starts(), (keys) => {
        for (let i = 0; i < keys.length; i++) {
          const at = sdsl.lowerBound(keys[i]);
          for (let left = RANGE; left > 0; left--) {
            sum += at.pointer[1].a;
            at.next();
          }
        }
      }) / RANGE,
  }, rounds);
  if (!(sum > 0)) throw new Error("nothing was read");
  return { ...sets, ...gets };
}

/** What an OrderedMap of numbers takes, and what a processor reads at once. */
const BYTES_A_KEY = 24;
const LINE = 64;

/** Makes each line's first word lead to another line, all of them in one round. */
function linkInOneRound(words: Int32Array, random: (limit: number) => number): void {
  const order = Int32Array.from({ length: words.length * 4 / LINE }, (_, i) => i * LINE / 4);
  for (let i = order.length - 1; i > 0; i--) {
    const j = random(i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  for (let i = 0; i < order.length; i++) words[order[i]] = order[(i + 1) % order.length];
}

/** The same map ten times as large, taking turns: what more a key costs there, and in a sorted-btree. */
function large(
  { count, rounds, peers }: { count: number; rounds: number; peers: boolean },
): Samples {
  using heap = Heap.open({ file: null, size: 1 << 20 });
  // Multiplying by an odd number permutes 32 bits, so keys come in no order and each once.
  const keyOf = (i: number) => Math.imul(i, 0x9e3779b1) >>> 0;
  const random = randomSource(9);
  const samples: Samples = {};
  const gets: Record<string, () => number> = {};
  let sum = 0;
  // What reads is a function of its own text for each, so that no loop meets both.
  const add = (
    name: string,
    size: number,
    map: { set(key: number, value: number): unknown },
    get: (keys: readonly number[]) => number,
    range: (keys: readonly number[]) => number,
  ) => {
    const before = performance.now();
    for (let i = 0; i < size; i++) map.set(keyOf(i), i);
    samples[`set, ${name}`] = [(performance.now() - before) * 1e6 / size];
    const some = (part: number) => Array.from({ length: count / part }, () => keyOf(random(size)));
    gets[`get, ${name}`] = () => timed(some(4), (keys) => sum += get(keys));
    gets[`range, ${name}`] = () => timed(some(400), (keys) => sum += range(keys)) / RANGE;
  };
  for (const size of [count, 10 * count]) {
    const lines = Math.floor(size * BYTES_A_KEY / LINE);
    const words = heap.view(Int32Array, heap.calloc(lines, LINE), lines * LINE / 4);
    linkInOneRound(words, random);
    let at = 0;
    gets[`one read, ${size}`] = () =>
      timed({ length: count / 4 }, () => {
        for (let i = 0; i < count / 4; i++) at = words[at];
        sum += at;
      });
    const ours = new (OrderedMap(u32, f64))(heap);
    add(`${size}`, size, ours, (keys) => {
      let sum = 0;
      for (let i = 0; i < keys.length; i++) sum += ours.get(keys[i])!;
      return sum;
    }, (keys) => {
      let sum = 0;
      for (let i = 0; i < keys.length; i++) {
        let left = RANGE;
        for (const [, value] of ours.range(keys[i])) {
          sum += value;
          if (--left === 0) break;
        }
      }
      return sum;
    });
    if (!peers) continue;
    const theirs = new (peer("sorted-btree").default)();
    add(`sorted-btree, ${size}`, size, theirs, (keys) => {
      let sum = 0;
      for (let i = 0; i < keys.length; i++) sum += theirs.get(keys[i]);
      return sum;
    }, (keys) => {
      let sum = 0;
      for (let i = 0; i < keys.length; i++) {
        let left = RANGE;
        for (const [, value] of theirs.entries(keys[i])) {
          sum += value;
          if (--left === 0) break;
        }
      }
      return sum;
    });
  }
  if (!(sum >= 0)) throw new Error("nothing was read");
  return { ...samples, ...takeTurns(gets, rounds) };
}

const middle = (samples: number[]) => samples.toSorted((a, b) => a - b)[samples.length >> 1];

export const dataMaps: Measure = {
  title: "Maps: of JavaScript, of npm, of databases, in the heap",
  roles: { hash, databases, ordered, large },
  async run({ quick, work, runtimes, part = "" }) {
    const count = quick ? 100_000 : 1_000_000;
    const rounds = quick ? 3 : 5;
    const missing = installPeers();
    const skipped = missing === undefined ? [] : [{ what: "packages of npm", why: missing }];
    const reports: Report[] = [];
    for (const runtime of runtimes) {
      for (const kind of Object.keys(keyKinds) as KeyKind[]) {
        const measure = `data-maps: HashMap, keys ${kind}`;
        if (!measure.includes(part)) continue;
        const runs: Samples[] = [];
        for (let i = 0; i < (quick ? 1 : PROCESSES[kind]); i++) {
          runs.push(await inChild<Samples>(runtime, "data-maps/hash", { kind, count, rounds }));
        }
        const samples = joinSamples(runs);
        reports.push({
          measure,
          runtime,
          lines: [
            line(samples, "get, Map", "ns"),
            line(samples, "get, HashMap", "ns", { to: "get, Map", limit: LIMIT_GET[kind] }),
            line(samples, "set, Map", "ns"),
            line(samples, "set, HashMap", "ns", { to: "set, Map", limit: LIMIT_SET }),
            line(samples, "walk, Map", "ns"),
            line(samples, "walk, HashMap", "ns", { to: "walk, Map" }),
            line(samples, "heap bytes a record", "B", { limit: 80, of: "value" }),
          ],
          skipped: [],
          notes: [`${count} keys; a walk reads three numbers of each value`],
        });
      }
      const stores = "data-maps: databases, text keys";
      if (stores.includes(part)) {
        const db = joinSamples([
          await inChild<Samples>(runtime, "data-maps/databases", {
            count,
            rounds,
            work,
            lmdb: missing === undefined,
          }),
        ]);
        const peers = (["lmdb", "sqlite"] as const).filter((name) =>
          db[`get, ${name}`] !== undefined
        );
        reports.push({
          measure: stores,
          runtime,
          lines: peers.flatMap((name): Line[] => [
            line(db, `get, ${name}`, "ns"),
            line(db, "get, HashMap of text", "ns", {
              to: `get, ${name}`,
              limit: name === "lmdb" ? 1 / 4 : 1 / 6,
            }),
            line(db, `set, ${name}`, "ns"),
            line(db, "set, HashMap of text", "ns", { to: `set, ${name}`, limit: 1 / 3 }),
          ]),
          skipped,
          notes: ["one large transaction, never synced"],
        });
      }
      const tenfold = "data-maps: OrderedMap, ten times as large";
      if (tenfold.includes(part)) {
        const size = quick ? 100_000 : 1_000_000;
        const grown = await inChild<Samples>(runtime, "data-maps/large", {
          count: size,
          rounds,
          peers: missing === undefined,
        });
        const limit = Math.log2(10 * size) / Math.log2(size);
        reports.push({
          measure: tenfold,
          runtime,
          lines: [
            ...["get", "range", "set"].flatMap((what): Line[] =>
              (missing === undefined ? ["", "sorted-btree, "] : [""]).flatMap((who): Line[] => [
                line(grown, `${what}, ${who}${size}`, "ns"),
                line(grown, `${what}, ${who}${10 * size}`, "ns", {
                  to: `${what}, ${who}${size}`,
                  limit: what === "set" || who !== "" ? undefined : limit,
                }),
              ])
            ),
            line(grown, `one read, ${size}`, "ns"),
            line(grown, `one read, ${10 * size}`, "ns", { to: `one read, ${size}` }),
          ],
          skipped: [],
          notes: [
            "number keys in random order to f64; the bar is the ratio of the sizes' logarithms",
            "one read: of one word anywhere in as much memory as the map takes, where the last one told",
          ],
        });
      }
      if (missing !== undefined) continue;
      for (const kind of ["number", "text"] as const) {
        const measure = `data-maps: OrderedMap, keys ${kind}`;
        if (!measure.includes(part)) continue;
        const samples = await inChild<Samples>(runtime, "data-maps/ordered", {
          kind,
          count,
          rounds,
        });
        const lines = (["get", "range", "set"] as const).flatMap((what): Line[] => {
          const names = ["sorted-btree", "js-sdsl"].map((name) => `${what}, ${name}`);
          const best = names.reduce((a, b) => middle(samples[a]) <= middle(samples[b]) ? a : b);
          const limit = what === "set" ? undefined : 3;
          return [
            line(samples, `${what}, OrderedMap`, "ns", { to: best, limit }),
            ...names.map((name) => line(samples, name, "ns")),
          ];
        });
        reports.push({
          measure,
          runtime,
          lines,
          skipped: [],
          notes: [`${count} keys set in random order; a range is ${RANGE} entries, told for one`],
        });
      }
    }
    return reports;
  },
};
