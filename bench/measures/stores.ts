/**
 * What a program's stores take between commits: the first one to each page, which the tracker has to be
 * told of, and those after it, against the same stores to a heap that nobody tracks.
 *
 * @module
 */

import { join } from "node:path";
import { Heap } from "../../mod.ts";
import { inChild, line, type Measure, type Samples } from "../harness.ts";
import { fillWords } from "./random.ts";

const MIB = 2 ** 20;
const PAGE_WORDS = 1024;
const LIMIT_FIRST_NS = 1000;
const LIMIT_AFTER = 1.1;
const FIRST = "the first store to a page behind a commit";
const AFTER = "the next one";
const UNTRACKED = "a store to a page of a heap without a file";

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
  const untracked = plain.view(Uint32Array, plain.malloc(filled), filled / 4);
  fillWords(tracked);
  fillWords(untracked);
  heap.flush();
  const pages = filled / 4096;
  // A tenth of the pages, in no order, so that each is far from the one before.
  const count = Math.floor(pages / 10);
  let start = 0;
  const store = (words: Uint32Array) => {
    const before = performance.now();
    for (let i = 0, page = start; i < count; i++) {
      words[page * PAGE_WORDS]++;
      page = (page + 7919) % pages;
    }
    return (performance.now() - before) * 1e6 / count;
  };
  const samples: Samples = { [FIRST]: [], [AFTER]: [], [UNTRACKED]: [] };
  // The first rounds are for the engine's compiler.
  for (let round = -3; round < rounds; round++) {
    start = (start + 7919 * count) % pages;
    const first = store(tracked);
    store(untracked);
    const after = store(tracked);
    const other = store(untracked);
    const committed = heap.flush().pages;
    if (committed < count) throw new Error(`only ${committed} of ${count} pages were committed`);
    if (round < 0) continue;
    samples[FIRST].push(first);
    samples[AFTER].push(after);
    samples[UNTRACKED].push(other);
  }
  return samples;
}

export const stores: Measure = {
  title: "Stores between commits, to pages at random",
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
        lines: [
          line(samples, FIRST, "ns", { limit: LIMIT_FIRST_NS }),
          line(samples, AFTER, "ns", { to: UNTRACKED, limit: LIMIT_AFTER }),
          line(samples, UNTRACKED, "ns"),
        ],
        skipped: [],
        notes: [`${size / MIB} MiB, a tenth of the pages changed between two commits`],
      });
    }
    return reports;
  },
};
