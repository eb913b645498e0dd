/**
 * A commit of a 64 MiB heap in which nothing or one page changed, against the least that a durable
 * change can cost: 8 KiB appended to a file beside it, and fdatasync.
 *
 * @module
 */

import { closeSync, fdatasyncSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { Heap } from "../../mod.ts";
import { inChild, joinSamples, line, type Measure, type Samples, takeTurns } from "../harness.ts";
import { fillWords } from "./random.ts";

const HEAP = 64 * 2 ** 20;
const FILLED = 60 * 2 ** 20;
const LIMIT_MS = 15;

function rounds({ work, name, rounds }: { work: string; name: string; rounds: number }): Samples {
  using heap = Heap.open({ file: join(work, `${name}.map`), size: HEAP });
  const words = heap.view(Uint32Array, heap.malloc(FILLED), FILLED / 4);
  fillWords(words);
  heap.flush();
  const plain = openSync(join(work, `${name}.plain`), "a");
  const record = new Uint8Array(8192).fill(1);
  const timed = (work: () => void) => {
    const before = performance.now();
    work();
    return performance.now() - before;
  };
  let page = 0;
  const samples = takeTurns({
    "append + fdatasync": () =>
      timed(() => {
        writeSync(plain, record);
        fdatasyncSync(plain);
      }),
    "flush, nothing changed": () => {
      let pages = -1;
      const ms = timed(() => pages = heap.flush().pages);
      if (pages !== 0) throw new Error(`${pages} pages were committed, though nothing changed`);
      return ms;
    },
    "flush, one page changed": () => {
      page = (page + 7919) % (FILLED / 4096);
      words[page * 1024]++;
      let pages = 0;
      const ms = timed(() => pages = heap.flush().pages);
      if (pages < 1) throw new Error("nothing was committed, though a page changed");
      return ms;
    },
  }, rounds);
  closeSync(plain);
  return samples;
}

export const commitSmall: Measure = {
  title: "Commit of a 64 MiB heap with nothing or one page changed",
  roles: { rounds },
  async run({ quick, work, runtimes }) {
    const runs = { deno: [] as Samples[], bun: [] as Samples[] };
    for (let i = 0; i < (quick ? 1 : 2); i++) {
      for (const runtime of runtimes) {
        const args = { work, name: `small-${runtime}-${i}`, rounds: quick ? 5 : 15 };
        runs[runtime].push(await inChild(runtime, "commit-small/rounds", args));
      }
    }
    return runtimes.map((runtime) => {
      const samples = joinSamples(runs[runtime]);
      const to = "append + fdatasync";
      const bar = { to, of: "value", limit: LIMIT_MS } as const;
      return {
        measure: "commit-small",
        runtime,
        lines: [
          line(samples, to, "ms"),
          line(samples, "flush, nothing changed", "ms", bar),
          line(samples, "flush, one page changed", "ms", bar),
        ],
        skipped: [],
        notes: [`${FILLED / 2 ** 20} MiB of the heap are filled`],
      };
    });
  },
};
