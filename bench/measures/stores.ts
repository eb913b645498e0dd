/**
 * What a program's stores take between commits: the first one to each page, which the tracker has to be
 * told of, and those after it, against the same stores to a heap that nobody tracks. In a row, and with
 * each page far from the one before, where the caches miss as well.
 *
 * @module
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Heap } from "../../mod.ts";
import { inChild, line, type Measure, type Samples } from "../harness.ts";
import { fillWords } from "./random.ts";

const MIB = 2 ** 20;
const PAGE_WORDS = 1024;
const FILL_WORDS = MIB / 4;
const LIMIT_FIRST_NS = 1000;
const LIMIT_AFTER = 1.1;
const LIMIT_FAULTS = 0.01;
const TURNS = 8;
/** Pages from one store to the next. The second has no factor in common with the number of pages. */
const ORDERS = { "in a row": 1, "at random": 7919 };

const first = (order: string) => `the first store to a page behind a commit, ${order}`;
const after = (order: string) => `the next ones, ${order}`;
const faults = (order: string) => `page faults of each of the next ones, ${order}`;
const untracked = (order: string) => `stores to pages of a heap without a file, ${order}`;

/** Page faults of this process that took no disk. */
function faultsTaken(): number {
  const afterName = readFileSync("/proc/self/stat", "utf8").split(") ")[1];
  return Number(afterName.split(" ")[7]);
}

function rounds({ work, name, rounds, size }: {
  work: string;
  name: string;
  rounds: number;
  size: number;
}): Samples {
  using heap = Heap.open({ file: join(work, `${name}.map`), size });
  using plain = Heap.open({ size });
  const filled = size - 16 * MIB;
  const tracked = heap.view(Uint32Array, heap.malloc(filled), filled / 4);
  const other = plain.view(Uint32Array, plain.malloc(filled), filled / 4);
  // In turns as well: memory that a process fills first is of another place, and was up to 1.15 times slower.
  for (let from = 0; from < tracked.length; from += FILL_WORDS) {
    for (const words of [tracked, other]) fillWords(words.subarray(from, from + FILL_WORDS));
  }
  heap.flush();
  const pages = filled / 4096;
  const count = Math.floor(pages / 10);
  let start = 0;
  const store = (words: Uint32Array, stride: number) => {
    const before = performance.now();
    for (let i = 0, page = start; i < count; i++) {
      words[page * PAGE_WORDS]++;
      page = (page + stride) % pages;
    }
    return (performance.now() - before) * 1e6 / count;
  };
  const samples: Samples = {};
  // The first rounds are for the engine's compiler.
  for (let round = -3; round < rounds; round++) {
    for (const [order, stride] of Object.entries(ORDERS)) {
      start = (start + 7919 * count) % pages;
      const firstOnes = store(tracked, stride);
      store(other, stride);
      const before = faultsTaken();
      // In turns, each in every other round the one that begins; the first pair has the commit's traces in the caches.
      const contestants = round % 2 ? [tracked, other] : [other, tracked];
      const took = new Map([[tracked, 0], [other, 0]]);
      for (let turn = 0; turn < TURNS; turn++) {
        for (const words of contestants) {
          const ns = store(words, stride);
          if (turn > 0) took.set(words, took.get(words)! + ns / (TURNS - 1));
        }
      }
      const fault = (faultsTaken() - before) / (2 * TURNS * count);
      const committed = heap.flush().pages;
      if (committed < count) throw new Error(`only ${committed} of ${count} pages were committed`);
      if (round < 0) continue;
      (samples[first(order)] ??= []).push(firstOnes);
      (samples[after(order)] ??= []).push(took.get(tracked)!);
      (samples[faults(order)] ??= []).push(fault);
      (samples[untracked(order)] ??= []).push(took.get(other)!);
    }
  }
  return samples;
}

export const stores: Measure = {
  title: "Stores between commits",
  roles: { rounds },
  async run({ quick, work, runtimes }) {
    const size = (quick ? 64 : 512) * MIB;
    const reports = [];
    for (const runtime of runtimes) {
      const args = { work, name: `stores-${runtime}`, rounds: quick ? 3 : 12, size };
      const samples = await inChild(runtime, "stores/rounds", args) as Samples;
      reports.push({
        measure: "stores",
        runtime,
        lines: Object.keys(ORDERS).flatMap((order) => [
          line(samples, first(order), "ns", { limit: LIMIT_FIRST_NS }),
          line(samples, after(order), "ns", { to: untracked(order), limit: LIMIT_AFTER }),
          line(samples, faults(order), "", { limit: LIMIT_FAULTS }),
          line(samples, untracked(order), "ns"),
        ]),
        skipped: [],
        notes: [`${size / MIB} MiB, a tenth of the pages changed between two commits`],
      });
    }
    return reports;
  },
};
