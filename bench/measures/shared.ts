/**
 * A shared heap larger than a tenth of memory, on disk, stored to at random and flushed: with the
 * kernel settings that `deno task tune` knows as the machine has them, with each of them as it wants
 * them, and with all. Every turn is a process of its own, since one of them decides how programs are
 * loaded.
 *
 * Invariant: whatever happens, the settings are put back.
 *
 * @module
 */

import { readFileSync, statfsSync, writeFileSync } from "node:fs";
import { totalmem } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { mopen, PermError } from "../../mod.ts";
import { check } from "../../tuning/mod.ts";
import { inChild, line, type Measure, type Samples } from "../harness.ts";

const PAGE = 4096;
/** Stores between two looks at the clock: the longest of them is what stopped the program. */
const PORTION = 1024;

interface Turn {
  stores: number;
  longest: number;
  flush: number;
}

function make({ file, bytes }: { file: string; bytes: number }): null {
  using heap = mopen(file, "w+", bytes, { shared: true, maxSize: bytes });
  const size = bytes - (1 << 20);
  heap.root = heap.malloc(size);
  for (let at = 0; at < size; at += PORTION * PAGE) {
    heap.bytes(heap.root + at, Math.min(PORTION * PAGE, size - at)).fill(1);
  }
  heap.flush();
  return null;
}

/** Stores to pages at random, as many times as the heap has pages, then flushes. */
function change({ file, seed }: { file: string; seed: number }): Turn {
  using heap = mopen(file, "r+", undefined, { shared: true, tune: "off" });
  const pages = Math.floor(heap.usableSize(heap.root) / PAGE);
  let state = seed | 1;
  let longest = 0;
  const begin = performance.now();
  for (let done = 0; done < pages; done += PORTION) {
    const before = performance.now();
    for (let store = 0; store < PORTION; store++) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      heap.store(heap.root + (state >>> 0) % pages * PAGE, seed);
    }
    longest = Math.max(longest, performance.now() - before);
  }
  const middle = performance.now();
  heap.flush();
  return { stores: middle - begin, longest, flush: performance.now() - middle };
}

const fileOf = (name: string) => `/proc/sys/${name.replaceAll(".", "/")}`;

export const sharedHeap: Measure = {
  title: "A shared heap larger than a tenth of memory, stored to at random and flushed",
  roles: { make, change },
  async run({ quick, work, runtimes }) {
    const runtime = runtimes[0];
    const told = (why: string) => [{
      measure: "shared",
      runtime,
      lines: [],
      skipped: [{ what: "shared", why }],
      notes: [],
    }];
    // The kernel begins to write when a tenth of what is available is dirty, and stops programs at a
    // fifth at the latest: a sixth of memory meets both on most machines.
    const bytes = quick ? 1 << 30 : Math.ceil(totalmem() / 6 / 2 ** 20) * 2 ** 20;
    const { bavail, bsize } = statfsSync(work);
    if (bavail * bsize < bytes * 1.1) return told(`it takes ${bytes >> 20} MiB of room`);
    const found = check().settings;
    const former = found.map(({ name }) => [fileOf(name), readFileSync(fileOf(name), "utf8")]);
    const ways: Record<string, string[]> = { "as they are": [] };
    for (const { name, wanted } of found) ways[`${name}=${wanted}`] = [name];
    ways["all four"] = found.map(({ name }) => name);
    const putBack = () => {
      for (const [path, text] of former) {
        if (readFileSync(path, "utf8") !== text) writeFileSync(path, text);
      }
    };
    const file = join(work, "shared.heap");
    try {
      await inChild(runtime, "shared/make", { file, bytes });
      await inChild(runtime, "shared/change", { file, seed: 1 });
    } catch (error) {
      if (error instanceof PermError && error.code === "UNSUPPORTED") return told(error.message);
      throw error;
    }
    process.once("exit", putBack);
    const samples: Samples = {};
    const note = (what: string, ms: number) => (samples[what] ??= []).push(ms);
    try {
      const names = Object.keys(ways);
      for (let round = 0; round < (quick ? 1 : 2); round++) {
        for (let turn = 0; turn < names.length; turn++) {
          const name = names[(turn + round) % names.length];
          for (const setting of found) {
            if (ways[name].includes(setting.name)) {
              writeFileSync(fileOf(setting.name), `${setting.wanted}\n`);
            }
          }
          const result = await inChild<Turn>(runtime, "shared/change", {
            file,
            seed: 77 + 1000 * round,
          }).finally(putBack);
          note(`${name}: stores and flush`, result.stores + result.flush);
          note(`${name}: stores`, result.stores);
          note(`${name}: longest stop`, result.longest);
        }
      }
    } catch (error) {
      if ((error as { code?: string }).code !== "EACCES") throw error;
      return told("changing kernel settings takes root");
    } finally {
      putBack();
      process.removeListener("exit", putBack);
    }
    return [{
      measure: "shared",
      runtime,
      lines: ["stores and flush", "stores", "longest stop"].flatMap((what) =>
        Object.keys(ways).map((name) =>
          line(samples, `${name}: ${what}`, "ms", { to: `as they are: ${what}` })
        )
      ),
      skipped: [],
      notes: [
        `${bytes / 2 ** 20} MiB of heap; as many stores as it has pages, to pages at random`,
        `as they are: ${found.map(({ name, current }) => `${name}=${current}`).join(", ")}`,
        `the longest stop is that of ${PORTION} stores`,
      ],
    }];
  },
};
