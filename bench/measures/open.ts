/**
 * From the call of `Heap.open` to the first read, in a new process, after the process before it was
 * killed: a small heap and a large one whose logs hold the same scattered changes. The files are in
 * the page cache. Once with the library still to be loaded, as a program meets it, and once after
 * another heap was open. Then from the call until all of the large heap was copied out, against
 * reading the base as a file. With `--large` a heap of 8 GiB is opened beside them.
 *
 * @module
 */

import { closeSync, mkdirSync, openSync, readdirSync, readSync } from "node:fs";
import { join } from "node:path";
import { Heap } from "../../mod.ts";
import {
  inChild,
  line,
  type Measure,
  type Report,
  type Runtime,
  type Samples,
} from "../harness.ts";
import { fillWords, randomSource } from "./random.ts";

const MARK = 0x5eed;
const PIECE = 2 ** 30;
const PAGE_WORDS = 1024;
const LIMIT_MS = 5;
const LIMIT_MS_PER_RUN = 0.004;
const LIMIT_RATIO = 2;
const LIMIT_ALL_RATIO = 1.2;

const READ = "large base read as a file";
const ALL = "large heap opened and copied out";

interface Made {
  file: string;
  bytes: number;
}

interface Opened {
  ms: number;
  runs: number;
}

/** Makes the heap: everything in the base, then commits of scattered pages in the log. */
function make(args: Made & { commits: number; pages: number }): number {
  const heap = Heap.open({ file: args.file, size: args.bytes });
  const bytes = args.bytes - 4 * 2 ** 20;
  heap.root = heap.malloc(bytes);
  for (let at = 0; at < bytes; at += PIECE) {
    const words = heap.view(Uint32Array, heap.root + at, Math.min(PIECE, bytes - at) / 4);
    // Of a very large heap each page has one word: it is opened, not read.
    if (args.bytes <= PIECE) fillWords(words);
    else for (let i = 0; i < words.length; i += PAGE_WORDS) words[i] = at / 4096 + i + 1;
  }
  heap.view(Uint32Array, heap.root, 1)[0] = MARK;
  heap.flush();
  const random = randomSource(11);
  let pages = 0;
  for (let commit = 0; commit < args.commits; commit++) {
    for (let i = 0; i < args.pages; i++) {
      heap.view(Uint32Array, heap.root + 4096 * random(bytes / 4096), 2)[1]++;
    }
    pages += heap.flush().pages;
  }
  return pages;
}

function first({ file, bytes, loaded }: Made & { loaded: boolean }): Opened {
  if (loaded) Heap.open({ file: null, size: 2 ** 20 }).close();
  const before = performance.now();
  const heap = Heap.open({ file, size: bytes });
  const mark = heap.view(Uint32Array, heap.root, 1)[0];
  const ms = performance.now() - before;
  if (mark !== MARK) throw new Error(`read ${mark} where ${MARK} was committed`);
  if (heap.resumed !== "file") throw new Error(`the heap was resumed from "${heap.resumed}"`);
  return { ms, runs: heap.stats().logRuns };
}

/** Opens the heap and copies all of it out; or as many bytes of its base, read as a file. */
function all({ file, bytes, plainly }: Made & { plainly: boolean }): number {
  Heap.open({ file: null, size: 2 ** 20 }).close();
  const piece = new Uint8Array(2 ** 20);
  const before = performance.now();
  if (plainly) {
    const fd = openSync(file, "r");
    while (readSync(fd, piece, 0, piece.length, null) > 0);
    closeSync(fd);
  } else {
    const heap = Heap.open({ file, size: bytes });
    const data = heap.bytes(heap.root, bytes - 4 * 2 ** 20);
    for (let at = 0; at < data.length; at += piece.length) {
      piece.set(data.subarray(at, Math.min(at + piece.length, data.length)));
    }
  }
  return performance.now() - before;
}

/** Reads everything in a folder once, so that all of it is in the page cache. */
function readThrough(folder: string): void {
  const piece = new Uint8Array(8 * 2 ** 20);
  for (const name of readdirSync(folder)) {
    const fd = openSync(join(folder, name), "r");
    while (readSync(fd, piece, 0, piece.length, null) > 0);
    closeSync(fd);
  }
}

export const open: Measure = {
  title: "Heap.open after a kill, to the first read",
  roles: { make, first, all },
  async run({ quick, large: withHuge, work, runtimes }) {
    const folder = join(work, "open");
    mkdirSync(folder);
    const commits = 10;
    const pages = 100;
    const small = "64 MiB";
    const large = quick ? "256 MiB" : "1 GiB";
    const heaps: Record<string, Made> = {
      [small]: { file: join(folder, "small.map"), bytes: 64 * 2 ** 20 },
      [large]: { file: join(folder, "large.map"), bytes: (quick ? 256 : 1024) * 2 ** 20 },
    };
    const huge = "8 GiB";
    if (withHuge) heaps[huge] = { file: join(folder, "huge.map"), bytes: 8 * PIECE };
    const sizes = Object.keys(heaps);
    for (const made of Object.values(heaps)) {
      await inChild(runtimes[0], "open/make", { ...made, commits, pages }, true);
    }
    readThrough(folder);
    const found = new Map<Runtime, { samples: Samples; runs: Record<string, number> }>();
    for (const runtime of runtimes) found.set(runtime, { samples: {}, runs: {} });
    for (let round = 0; round < (quick ? 3 : 9); round++) {
      for (const runtime of runtimes) {
        const { samples, runs } = found.get(runtime)!;
        for (const loaded of [false, true]) {
          for (const size of sizes) {
            const args = { ...heaps[size], loaded };
            const opened = await inChild<Opened>(runtime, "open/first", args, true);
            (samples[loaded ? `${size}, library loaded` : size] ??= []).push(opened.ms);
            runs[size] = opened.runs;
          }
        }
        for (const [name, plainly] of [[READ, true], [ALL, false]] as const) {
          const args = { ...heaps[large], plainly };
          (samples[name] ??= []).push(await inChild<number>(runtime, "open/all", args, true));
        }
      }
    }
    return runtimes.map((runtime): Report => {
      const { samples, runs } = found.get(runtime)!;
      const limit = (size: string) => LIMIT_MS + LIMIT_MS_PER_RUN * runs[size];
      const against = line(samples, large, "ms", { to: small, limit: LIMIT_RATIO });
      const ofHuge = withHuge
        ? [
          line(samples, huge, "ms", { limit: limit(huge) }),
          line(samples, `${huge}, library loaded`, "ms", { to: `${large}, library loaded` }),
        ]
        : [];
      return {
        measure: "open",
        runtime,
        lines: [
          line(samples, small, "ms", { limit: limit(small) }),
          line(samples, large, "ms", { limit: limit(large) }),
          { ...against, what: `${large} against ${small}` },
          line(samples, `${small}, library loaded`, "ms", { to: small }),
          line(samples, `${large}, library loaded`, "ms", { to: large }),
          ...ofHuge,
          line(samples, READ, "ms"),
          line(samples, ALL, "ms", { to: READ, limit: LIMIT_ALL_RATIO }),
        ],
        skipped: [],
        notes: [
          `runs of pages in the log: ${sizes.map((size) => runs[size]).join(", ")}; bar: ` +
          `${LIMIT_MS} ms + ${LIMIT_MS_PER_RUN * 1e3} µs a run`,
        ],
      };
    });
  },
};
