/**
 * A cache that outlives its process: so many entries at most, the one that was not asked for longest
 * goes first, and each expires at a time of its own, also while no process runs. `Cache` is what a
 * program takes; the command line keeps words, and `work` shows that kill -9 costs a moment's entries
 * and nothing else.
 *
 *     deno run -A examples/cache.ts set greeting hello --ttl 60      bun examples/cache.ts get greeting
 *     bun examples/cache.ts work                                     until it is killed
 *
 * @module
 */

import { createHash } from "node:crypto";
import process from "node:process";
import { parseArgs } from "node:util";
import { HashMap, OrderedMap, ref, roots, struct, text, u53 } from "../data/mod.ts";
import { Heap } from "../mod.ts";

const USAGE = `Usage: cache.ts COMMAND [options]

  set KEY VALUE        keeps it
  get KEY              prints it; exit code 1 when it is not there, or no longer
  delete KEY           forgets it
  list                 all that has not expired, what was asked for last first
  work                 asks for random keys, makes what is missing, commits every 500 times

  -f, --file FILE      where the cache is kept            (default cache.perm)
  -c, --capacity N     entries at most                    (default 1000)
      --ttl SECONDS    how long an entry is good          (default 3600)
  -h, --help           this text`;

/** How many entries may expire in one millisecond, each with a key of its own. */
const DUE_A_MS = 4096;

const Entry = struct("Entry", {
  key: text,
  value: text,
  /** When it expires, in milliseconds since 1970, times `DUE_A_MS`: its key in `due`. */
  due: u53,
  get newer() {
    return ref(Entry);
  },
  get older() {
    return ref(Entry);
  },
});
type Entry = InstanceType<typeof Entry>;

/**
 * The entries stand in the map and never move there, so that they may be linked by reference: from
 * `newest` by `older` to `oldest`, and back.
 */
const Store = struct("Cache", {
  entries: HashMap(text, Entry),
  due: OrderedMap(u53, ref(Entry)),
  newest: ref(Entry),
  oldest: ref(Entry),
  hits: u53,
  misses: u53,
  evicted: u53,
  expired: u53,
});
type Store = InstanceType<typeof Store>;

/** A cache in a heap. Who has the heap commits: what was set since the last commit is lost by a kill. */
export class Cache {
  readonly #store: Store;
  readonly #capacity: number;
  readonly #now: () => number;

  /**
   * The cache of that name, or a new one.
   *
   * @param now A clock, for tests.
   */
  constructor(
    heap: Heap,
    { name = "cache", capacity, now = Date.now }: {
      name?: string;
      capacity: number;
      now?: () => number;
    },
  ) {
    this.#store = roots(heap).open(name, Store);
    this.#capacity = capacity;
    this.#now = now;
    this.sweep();
    this.#bound();
  }

  /** How many entries there are; those that have just expired count until they are met. */
  get size(): number {
    return this.#store.entries.size;
  }

  /** What happened in all runs so far. */
  get counts(): { hits: number; misses: number; evicted: number; expired: number } {
    const { hits, misses, evicted, expired } = this.#store;
    return { hits, misses, evicted, expired };
  }

  /** The value of a key that has not expired; it is the newest from now on. */
  get(key: string): string | undefined {
    const store = this.#store;
    const entry = store.entries.get(key);
    if (entry === undefined || this.#isOver(entry)) {
      if (entry !== undefined) this.#expire(entry);
      store.misses += 1;
      return undefined;
    }
    this.#unlink(entry);
    this.#link(entry);
    store.hits += 1;
    return entry.value;
  }

  /** Keeps a value for `ttlMs` milliseconds; what nobody asked for longest makes room. */
  set(key: string, value: string, ttlMs: number): void {
    if (!(ttlMs > 0 && ttlMs <= 1e11)) throw new RangeError(`Cannot keep a value for ${ttlMs} ms`);
    this.sweep();
    const { entries, due } = this.#store;
    const old = entries.get(key);
    if (old !== undefined) this.#remove(old);
    let at = Math.floor(this.#now() + ttlMs) * DUE_A_MS;
    while (due.has(at)) at++;
    entries.set(key, { key, value, due: at });
    const entry = entries.get(key)!;
    due.set(at, entry);
    this.#link(entry);
    this.#bound();
  }

  /** The value of a key, made when it is missing. */
  getOrMake(key: string, ttlMs: number, make: (key: string) => string): string {
    const found = this.get(key);
    if (found !== undefined) return found;
    const made = make(key);
    this.set(key, made, ttlMs);
    return made;
  }

  /** Whether it was there. */
  delete(key: string): boolean {
    const entry = this.#store.entries.get(key);
    if (entry === undefined) return false;
    const isOver = this.#isOver(entry);
    this.#remove(entry);
    return !isOver;
  }

  /** Removes what has expired: how many. */
  sweep(): number {
    const { due } = this.#store;
    let count = 0;
    for (let first = due.first(); first && this.#isOver(first[1]!); first = due.first()) {
      this.#expire(first[1]!);
      count++;
    }
    return count;
  }

  /** Entries from the newest to the oldest. */
  *[Symbol.iterator](): Generator<{ key: string; value: string; expires: number }> {
    for (let entry = this.#store.newest; entry !== null; entry = entry.older) {
      const { key, value, due } = entry;
      if (!this.#isOver(entry)) yield { key, value, expires: Math.floor(due / DUE_A_MS) };
    }
  }

  #isOver(entry: Entry): boolean {
    return Math.floor(entry.due / DUE_A_MS) <= this.#now();
  }

  #bound(): void {
    while (this.size > this.#capacity) {
      this.#remove(this.#store.oldest!);
      this.#store.evicted += 1;
    }
  }

  #expire(entry: Entry): void {
    this.#remove(entry);
    this.#store.expired += 1;
  }

  #link(entry: Entry): void {
    const store = this.#store;
    const { newest } = store;
    entry.newer = null;
    entry.older = newest;
    if (newest === null) store.oldest = entry;
    else newest.newer = entry;
    store.newest = entry;
  }

  #unlink(entry: Entry): void {
    const store = this.#store;
    const { newer, older } = entry;
    if (newer === null) store.newest = older;
    else newer.older = older;
    if (older === null) store.oldest = newer;
    else older.newer = newer;
  }

  #remove(entry: Entry): void {
    this.#unlink(entry);
    this.#store.due.delete(entry.due);
    this.#store.entries.delete(entry.key);
  }
}

/** What the cache spares `work`: slow enough to be worth keeping, and easily checked. */
export function fingerprint(key: string): string {
  return createHash("sha256").update(key).digest("hex");
}

function work(heap: Heap, cache: Cache, ttlMs: number): void {
  for (let i = 1;; i++) {
    // A few keys are asked for often, most of them seldom.
    const key = `key ${Math.floor(5000 * Math.random() ** 3)}`;
    const value = cache.getOrMake(key, ttlMs * Math.random(), fingerprint);
    if (value !== fingerprint(key)) throw new Error(`${key} is ${value} in the cache`);
    if (i % 500 !== 0) continue;
    const { hits, misses, evicted, expired } = cache.counts;
    console.log(
      `epoch ${heap.flush().epoch}: ${cache.size} entries, ${hits} hits, ${misses} misses, ` +
        `${evicted} evicted, ${expired} expired`,
    );
  }
}

function main(): number {
  const { values, positionals: [command, key, value] } = parseArgs({
    allowPositionals: true,
    options: {
      file: { type: "string", short: "f", default: "cache.perm" },
      capacity: { type: "string", short: "c", default: "1000" },
      ttl: { type: "string", default: "3600" },
      help: { type: "boolean", short: "h" },
    },
  });
  const [capacity, ttlMs] = [Number(values.capacity), 1000 * Number(values.ttl)];
  const wanted = { set: 2, get: 1, delete: 1, list: 0, work: 0 }[command ?? ""];
  const isComplete = wanted === 0 || key !== undefined && (wanted === 1 || value !== undefined);
  const isSound = capacity >= 1 && ttlMs > 0 && ttlMs <= 1e11;
  if (values.help || wanted === undefined || !isComplete || !isSound) {
    console.log(USAGE);
    return values.help ? 0 : 2;
  }
  using heap = Heap.open({ file: values.file, size: 1 << 20 });
  const cache = new Cache(heap, { capacity });
  let code = 0;
  if (command === "work") {
    work(heap, cache, ttlMs);
  } else if (command === "list") {
    for (const { key, value, expires } of cache) {
      console.log(`${key}  ${value}  until ${new Date(expires).toISOString()}`);
    }
    const { hits, misses, evicted, expired } = cache.counts;
    console.log(
      `${cache.size} entries, ${hits} hits, ${misses} misses, ${evicted} evicted, ${expired} expired`,
    );
  } else if (command === "get") {
    const found = cache.get(key);
    if (found === undefined) code = 1;
    else console.log(found);
  } else if (command === "set") {
    cache.set(key, value, ttlMs);
  } else if (!cache.delete(key)) {
    code = 1;
  }
  heap.flush();
  return code;
}

if (import.meta.main) process.exitCode = main();
