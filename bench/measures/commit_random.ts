/**
 * Commits of a heap in which pages changed at random, against what the same bytes cost at least: as
 * many appended to a file beside it from one buffer, and fdatasync. One contestant each for 1 % and
 * 10 % of the pages, one page, and nothing. No fold begins meanwhile: appending has none either.
 *
 * @module
 */

import { closeSync, fdatasyncSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { Heap } from "../../mod.ts";
import { inChild, line, type Measure, type Samples, takeTurns } from "../harness.ts";
import { fillWords, randomSource } from "./random.ts";

const MIB = 2 ** 20;
const PAGE = 4096;
const PIECE = 8 * MIB;
/** Bars: times the append; for one page of a large heap, and for nothing, milliseconds. */
const LIMITS = { "1 %": 1.9, "10 %": 1.4, "one page": 2 };
const LIMIT_ONE_MS = 4;
const limitOfNothing = (mib: number) => 0.02 + 0.003 * mib;

interface Args {
  work: string;
  name: string;
  mib: number;
  rounds: number;
}

function rounds({ work, name, mib, rounds }: Args): Samples {
  using heap = Heap.open({
    file: join(work, `${name}.map`),
    size: mib * MIB + 2 * MIB,
    logLimit: 2 ** 40,
  });
  const p = heap.malloc(mib * MIB);
  const words = heap.view(Uint32Array, p, mib * MIB / 4);
  const data = heap.bytes(p, mib * MIB);
  fillWords(words);
  heap.flush();
  const plain = openSync(join(work, `${name}.plain`), "a");
  const random = randomSource(17);
  const pages = mib * MIB / PAGE;
  const append = (count: number) => {
    const before = performance.now();
    for (let done = 0; done < count * PAGE;) {
      done += writeSync(plain, data, done, Math.min(PIECE, count * PAGE - done));
    }
    fdatasyncSync(plain);
    return performance.now() - before;
  };
  const flush = (count: number) => {
    for (let i = 0; i < count; i++) words[random(pages) * (PAGE / 4) + 1]++;
    const before = performance.now();
    const report = heap.flush();
    const ms = performance.now() - before;
    // Some pages are met twice.
    if (report.pages < count * 0.9) throw new Error(`${report.pages} of ${count} pages committed`);
    return ms;
  };
  const one = Math.round(pages / 100);
  const samples = takeTurns({
    "append 1 %": () => append(one),
    "flush 1 %": () => flush(one),
    "append 10 %": () => append(10 * one),
    "flush 10 %": () => flush(10 * one),
    "append one page": () => append(1),
    "flush one page": () => flush(1),
    "flush nothing": () => flush(0),
  }, rounds);
  closeSync(plain);
  return samples;
}

export const commitRandom: Measure = {
  title: "Commits of pages that changed at random",
  roles: { rounds },
  async run({ quick, work, runtimes }) {
    const reports = [];
    for (const mib of [64, quick ? 128 : 1024]) {
      for (const runtime of runtimes) {
        const args: Args = { work, name: `random-${runtime}-${mib}`, mib, rounds: quick ? 3 : 7 };
        const samples = await inChild<Samples>(runtime, "commit-random/rounds", args);
        const small = mib === 64;
        const lines = [line(samples, "append 1 %", "ms"), line(samples, "append 10 %", "ms")];
        for (const share of ["1 %", "10 %"] as const) {
          const limit = small ? undefined : LIMITS[share];
          lines.push(line(samples, `flush ${share}`, "ms", { to: `append ${share}`, limit }));
        }
        lines.push(
          line(samples, "append one page", "ms"),
          line(samples, "flush one page", "ms", {
            to: "append one page",
            ...small
              ? { limit: LIMITS["one page"] }
              : { of: "value" as const, limit: LIMIT_ONE_MS },
          }),
          line(samples, "flush nothing", "ms", { limit: limitOfNothing(mib) }),
        );
        reports.push({
          measure: "commit-random",
          runtime,
          lines,
          skipped: [],
          notes: [`${mib} MiB; appended from one buffer, in pieces of 8 MiB`],
        });
      }
    }
    return reports;
  },
};
