/**
 * How long a program stands still for `backupAsync()` of a 1 GiB heap of which 1 % changed at random:
 * the time of the call itself, and beside it what the same commit takes when it is waited for. Then
 * how long after the sync its promise is settled.
 *
 * @module
 */

import { join } from "node:path";
import { Heap } from "../../mod.ts";
import { inChild, joinSamples, line, type Measure, type Samples } from "../harness.ts";
import { fillWords } from "./random.ts";

const MIB = 2 ** 20;
const LIMIT_CALL_MS = 6;
const LIMIT_LATE_MS = 2;
const CALL = "backupAsync(), the call";
const WAITED = "backup()";
const LATE = "from the end of the sync to the promise";

async function rounds({ work, name, rounds, size }: {
  work: string;
  name: string;
  rounds: number;
  size: number;
}): Promise<Samples> {
  using heap = Heap.open({ backup: join(work, `${name}.back`), size });
  const filled = size - 16 * MIB;
  const words = heap.view(Uint32Array, heap.malloc(filled), filled / 4);
  fillWords(words);
  heap.backup();
  const samples: Samples = { [CALL]: [], [WAITED]: [], [LATE]: [] };
  let page = 0;
  const change = () => {
    for (let i = 0; i < filled / 4096 / 100; i++) {
      page = (page + 7919 * 37) % (filled / 4096);
      words[page * 1024 + i % 1024]++;
    }
  };
  // The first one makes the thread and its memory.
  for (let round = 0; round <= rounds; round++) {
    change();
    const before = performance.now();
    const promise = heap.backupAsync();
    const called = performance.now();
    const { pages, durationMs } = await promise;
    const settled = performance.now();
    if (pages < filled / 4096 / 101) throw new Error(`only ${pages} pages were committed`);
    change();
    const again = performance.now();
    heap.backup();
    const after = performance.now();
    if (round === 0) continue;
    samples[CALL].push(called - before);
    samples[WAITED].push(after - again);
    samples[LATE].push(Math.max(0, settled - before - durationMs));
  }
  return samples;
}

export const asynchronous: Measure = {
  title: "Standstill of backupAsync(), 1 % of 1 GiB changed at random",
  roles: { rounds },
  async run({ quick, work, runtimes }) {
    const size = (quick ? 128 : 1024) * MIB;
    const reports = [];
    for (const runtime of runtimes) {
      const args = { work, name: `async-${runtime}`, rounds: quick ? 3 : 15, size };
      const samples = joinSamples([await inChild(runtime, "async/rounds", args)]);
      reports.push({
        measure: "async",
        runtime,
        lines: [
          line(samples, WAITED, "ms"),
          line(samples, CALL, "ms", { to: WAITED, of: "value", limit: LIMIT_CALL_MS }),
          line(samples, LATE, "ms", { limit: LIMIT_LATE_MS }),
        ],
        skipped: [],
        notes: [`${size / MIB} MiB, of which all but 16 are filled`],
      });
    }
    return reports;
  },
};
