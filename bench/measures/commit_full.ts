/**
 * A commit in which every page changed, against the limit of the disk: the same bytes written
 * plainly in pieces of 8 MiB, with fdatasync, over a file beside it that was written and synced
 * before and so has its blocks.
 *
 * @module
 */

import { closeSync, fdatasyncSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { Heap } from "../../mod.ts";
import { inChild, line, type Measure, type Samples, takeTurns } from "../harness.ts";
import { fillWords } from "./random.ts";

const PIECE = 8 * 2 ** 20;
const PAGE_WORDS = 1024;
const LIMIT_RATIO = 1.1;

interface Args {
  work: string;
  name: string;
  bytes: number;
  rounds: number;
}

function writeAll(fd: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length;) {
    done += writeSync(fd, bytes, done, Math.min(PIECE, bytes.length - done), done);
  }
  fdatasyncSync(fd);
}

function rounds({ work, name, bytes, rounds }: Args): Samples {
  using heap = Heap.open({ file: join(work, `${name}.map`), size: bytes + 2 ** 20 });
  const p = heap.malloc(bytes);
  const words = heap.view(Uint32Array, p, bytes / 4);
  const data = heap.bytes(p, bytes);
  fillWords(words);
  const plain = openSync(join(work, `${name}.plain`), "w");
  writeAll(plain, data);
  const samples = takeTurns({
    "plain write + fdatasync": () => {
      const before = performance.now();
      writeAll(plain, data);
      return performance.now() - before;
    },
    "flush of everything": () => {
      for (let i = 0; i < words.length; i += PAGE_WORDS) words[i]++;
      const before = performance.now();
      const { pages } = heap.flush();
      const ms = performance.now() - before;
      if (pages * 4096 < bytes) throw new Error(`only ${pages} pages were committed`);
      return ms;
    },
  }, rounds);
  closeSync(plain);
  return samples;
}

export const commitFull: Measure = {
  title: "Commit of a heap in which every page changed",
  roles: { rounds },
  async run({ quick, work, runtimes }) {
    const bytes = (quick ? 128 : 1024) * 2 ** 20;
    const reports = [];
    for (const runtime of runtimes) {
      const args: Args = { work, name: `full-${runtime}`, bytes, rounds: quick ? 3 : 5 };
      const samples = await inChild<Samples>(runtime, "commit-full/rounds", args);
      reports.push({
        measure: "commit-full",
        runtime,
        lines: [
          line(samples, "plain write + fdatasync", "ms"),
          line(samples, "flush of everything", "ms", {
            to: "plain write + fdatasync",
            limit: LIMIT_RATIO,
          }),
        ],
        skipped: [],
        notes: [`${bytes / 2 ** 20} MiB; the plain file was written once and synced before`],
      });
    }
    return reports;
  },
};
