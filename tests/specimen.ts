/**
 * Small images whose every byte is accounted for, to be damaged; and a heap beside them that must
 * not notice.
 *
 * @module
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import {
  closeSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { type ErrorCode, Heap, mclose, mopen, PermError } from "../mod.ts";
import { expectWell, type Folder, pattern } from "./support.ts";

/** Bytes of the one block that a specimen's heap holds. */
const blockBytes = 80_000;

/** What stands where in a specimen's files. */
export interface Region {
  file: "base" | "log";
  what: "header" | "pages" | "index" | "padding";
  /** The record that it belongs to, from 1; 0 for the base and for the log's own header. */
  record: number;
  from: number;
  to: number;
}

/** An image of four epochs: a base and three records. */
export class Specimen {
  readonly base: string;
  readonly log: string;
  /** What the block's contents were at an epoch. */
  readonly digests: Map<number, string> = new Map();
  readonly epochs = 4;

  constructor(base: string, seed = 1) {
    this.base = base;
    {
      using heap = Heap.open({ file: base, size: 1 << 17, maxSize: 1 << 17 });
      heap.root = heap.malloc(blockBytes);
      heap.bytes(heap.root, blockBytes).set(pattern(blockBytes, seed));
      for (let epoch = 1; epoch <= this.epochs; epoch++) {
        if (epoch > 1) change(heap, seed, epoch);
        assert.equal(heap.flush().epoch, epoch);
        this.digests.set(epoch, digestOf(heap));
      }
    }
    this.log = logOf(base);
  }

  /** Where its bytes lie, as docs/format.md has it. */
  regions(): Region[] {
    const base = readFileSync(this.base);
    const log = readFileSync(this.log);
    const regions: Region[] = [];
    const add = (
      file: Region["file"],
      what: Region["what"],
      record: number,
      from: number,
      to: number,
    ) => {
      if (to > from) regions.push({ file, what, record, from, to });
    };
    const pages = u64(base, 192);
    add("base", "header", 0, 0, 4096);
    add("base", "pages", 0, 4096, 4096 + 4096 * pages);
    add("base", "index", 0, 4096 + 4096 * pages, base.length);

    add("log", "header", 0, 0, 4096);
    let at = 4096;
    for (let record = 1; at < log.length; record++) {
      const [count, lines, runs, holes] = [160, 168, 176, 184].map((field) => u64(log, at + field));
      const tables = at + 4096 + 4096 * count;
      const tablesEnd = tables + 24 * lines + 16 * (runs + holes) + 8 * count;
      const footer = Math.ceil(tablesEnd / 16) * 16;
      const end = Math.ceil((footer + 64) / 4096) * 4096;
      add("log", "header", record, at, at + 4096);
      add("log", "pages", record, at + 4096, tables);
      add("log", "index", record, tables, tablesEnd);
      add("log", "padding", record, tablesEnd, footer);
      add("log", "index", record, footer, footer + 64);
      add("log", "padding", record, footer + 64, Math.min(end, log.length));
      at = end;
    }
    assert.equal(regions.at(-1)?.record, this.epochs - 1, "a specimen's log has three records");
    return regions;
  }
}

/** Changes one page, and a byte of another. */
function change(heap: Heap, seed: number, epoch: number): void {
  heap.bytes(heap.root + 4096 * epoch, 4096).set(pattern(4096, seed + epoch));
  heap.bytes(heap.root, 1)[0] = epoch;
}

/** What the block of a specimen's heap holds. */
export function digestOf(heap: Heap): string {
  return sha(heap.bytes(heap.root, blockBytes));
}

function sha(bytes: Uint8Array): string {
  return createHash("sha1").update(bytes).digest("hex");
}

/** The log that lies beside a base. */
export function logOf(base: string): string {
  const name = readdirSync(dirname(base)).find((name) => name.startsWith(`${basename(base)}-log-`));
  assert.ok(name, `${base} has no log`);
  return join(dirname(base), name);
}

/** A heap page as a file stores it. */
export interface Place {
  /** The page's number in the heap. */
  page: number;
  /** Where it stands in the file. */
  offset: number;
}

const u64 = (bytes: Uint8Array, at: number) =>
  Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(at, true));

function places(bytes: Uint8Array, runsAt: number, count: number, pagesAt: number): Place[] {
  const all: Place[] = [];
  for (let run = 0; run < count; run++) {
    const [first, pages] = [0, 8].map((field) => u64(bytes, runsAt + 16 * run + field));
    for (let page = first; page < first + pages; page++) {
      all.push({ page, offset: pagesAt + 4096 * all.length });
    }
  }
  return all;
}

/** The pages of a base, as docs/format.md has them. */
export function basePages(base: string): { address: number; pages: Place[] } {
  const bytes = readFileSync(base);
  const runs = 4096 + 4096 * u64(bytes, 192) + 24 * u64(bytes, 200);
  return { address: u64(bytes, 80), pages: places(bytes, runs, u64(bytes, 208), 4096) };
}

/** The pages of a log's records. */
export function recordPages(log: string): Place[][] {
  const bytes = readFileSync(log);
  const records: Place[][] = [];
  for (let at = 4096; at + 4096 <= bytes.length && u64(bytes, at) !== 0;) {
    const [pages, lines, runs, holes] = [160, 168, 176, 184].map((field) => u64(bytes, at + field));
    const tables = at + 4096 + 4096 * pages;
    records.push(places(bytes, tables + 24 * lines, runs, at + 4096));
    const footer = Math.ceil((tables + 24 * lines + 16 * (runs + holes) + 8 * pages) / 16) * 16;
    at = Math.ceil((footer + 64) / 4096) * 4096;
  }
  return records;
}

/** What came of opening a file: a state, or a refusal. */
export interface Outcome {
  code?: ErrorCode;
  message?: string;
  epoch?: number;
  digest?: string;
  /** What `check()` or looking at the heap was refused with. */
  found?: ErrorCode;
}

/** Opens a file as the default heap and looks at it; only a `PermError` may come of it. */
export function outcomeOf(
  path: string,
  mode: "r" | "r+",
  options: { verify?: boolean; recover?: boolean } = {},
): Outcome {
  const outcome: Outcome = {};
  let heap: Heap;
  try {
    heap = mopen(path, mode, undefined, options);
  } catch (error) {
    if (!(error instanceof PermError)) throw error;
    return { code: error.code, message: error.message };
  }
  try {
    outcome.epoch = heap.epoch;
    outcome.digest = digestOf(heap);
    heap.check();
  } catch (error) {
    if (!(error instanceof PermError)) throw error;
    outcome.found = error.code;
    outcome.message = error.message;
  } finally {
    // Nothing was changed, so this commits nothing.
    if (outcome.found) heap.close();
    else mclose();
  }
  return outcome;
}

/** Changes a byte of a file, and gives the function that puts it back. */
export function flip(path: string, at: number, mask = 0x10): () => void {
  const file = openSync(path, "r+");
  const byte = new Uint8Array(1);
  readSync(file, byte, 0, 1, at);
  const write = (value: number) => writeSync(file, Uint8Array.of(value), 0, 1, at);
  write(byte[0] ^ mask);
  return () => {
    write(byte[0]);
    closeSync(file);
  };
}

/** Names and contents of all files of a folder. */
export function contentsOf(folder: string): Record<string, string> {
  const contents: Record<string, string> = {};
  for (const name of readdirSync(folder).sort()) {
    const path = join(folder, name);
    const stat = lstatSync(path);
    contents[name] = stat.isFile()
      ? sha(readFileSync(path))
      : stat.isSymbolicLink()
      ? readlinkSync(path)
      : "no file";
  }
  return contents;
}

/** A heap that is open while others fail: at the end of its scope it must be as it was. */
export class Bystander implements Disposable {
  readonly heap: Heap;
  readonly #digest: string;

  constructor(folder: Folder) {
    this.heap = Heap.open({ file: folder.file("bystander"), size: 1 << 20 });
    this.heap.root = this.heap.malloc(blockBytes);
    this.heap.bytes(this.heap.root, blockBytes).set(pattern(blockBytes, 77));
    this.#digest = digestOf(this.heap);
    this.heap.flush();
  }

  [Symbol.dispose](): void {
    const { heap } = this;
    try {
      assert.equal(digestOf(heap), this.#digest, "the bystander's memory");
      expectWell(heap);
      heap.bytes(heap.root, 1)[0] ^= 1;
      assert.ok(heap.flush().pages > 0);
      assert.equal(heap.epoch, 2);
    } finally {
      heap.close();
    }
  }
}
