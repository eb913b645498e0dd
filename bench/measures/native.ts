/**
 * The allocator without TypeScript: `zig build bench-alloc`, which lets ours and the process's
 * malloc take turns. The process's is glibc's, and with LD_PRELOAD those that Debian packages as
 * libjemalloc2, libmimalloc2.0 and libtcmalloc-minimal4.
 *
 * @module
 */

import { spawnSync } from "node:child_process";
import { join } from "node:path";
import process from "node:process";
import { line, type Measure, type Report, ROOT, type Samples, spread } from "../harness.ts";

export const PEERS = {
  jemalloc: "libjemalloc.so.2",
  mimalloc: "libmimalloc.so.2",
  tcmalloc: "libtcmalloc_minimal.so.4",
};
/** Loads that have a bar: at most the time of whichever is best. */
const BAR_LOADS = ["16-512 bytes, 20,000 live, random", "16-256 bytes, 1,000,000 live, random"];
const LIMIT_RATIO = 1;
/** Two threads do at least 1.8 times what one does. */
const LIMIT_THREADS = 2 / 1.8;
/** Memory over the bytes that are live. */
const LIMIT_OVERHEAD = 1.15;

interface Run {
  overhead: number;
  /** Two threads' time a block over one thread's: of ours, and of the process's malloc. */
  threads: number;
  theirThreads: number;
  loads: { name: string; ours: number; theirs: number }[];
}

function runOnce(preload: string | undefined): Run {
  const zig = join(ROOT, "node_modules/.bin/zig");
  const env = preload === undefined ? process.env : { ...process.env, LD_PRELOAD: preload };
  const done = spawnSync(zig, ["build", "bench-alloc"], { cwd: join(ROOT, "zig"), env });
  const text = done.stdout?.toString() ?? "";
  const overhead = /: ([\d.]+) of their bytes/.exec(text);
  const threads = /of what one does: ours ([\d.]+), malloc ([\d.]+)/.exec(text);
  if (done.status !== 0 || overhead === null || threads === null) {
    const why = done.error ?? done.signal ?? done.stderr;
    throw new Error(`zig build bench-alloc failed: ${why}`);
  }
  const rows = [...text.matchAll(/^(.*\S) +([\d.]+) +([\d.]+) +[\d.]+$/gm)];
  const loads = rows.map(([, name, ours, theirs]) => ({
    name,
    ours: Number(ours),
    theirs: Number(theirs),
  }));
  return {
    overhead: Number(overhead[1]),
    threads: 2 / Number(threads[1]),
    theirThreads: 2 / Number(threads[2]),
    loads,
  };
}

/** Where the dynamic linker finds a library, if it does. */
export function libraryPath(soname: string): string | undefined {
  const path = `${process.env.PATH}:/sbin:/usr/sbin`;
  const known = spawnSync("ldconfig", ["-p"], { env: { ...process.env, PATH: path } }).stdout;
  return known?.toString().split("\n").find((each) => each.trim().startsWith(`${soname} `))
    ?.split("=> ")[1]?.trim();
}

export const native: Measure = {
  title: "malloc and free from Zig, ours beside the process's malloc",
  roles: {},
  run({ quick }) {
    const rivals: Record<string, string | undefined> = { glibc: undefined };
    const skipped: Report["skipped"] = [];
    for (const [peer, soname] of Object.entries(PEERS)) {
      const path = libraryPath(soname);
      if (path === undefined) skipped.push({ what: peer, why: `${soname} is not installed` });
      else rivals[peer] = path;
    }
    runOnce(undefined); // builds, and warms up
    const samples: Samples = { overhead: [], threads: [] };
    const loads = new Set<string>();
    const key = (who: string, rival: string, load: string) => `${who}|${rival}|${load}`;
    for (let round = 0; round < (quick ? 1 : 3); round++) {
      for (const [rival, preload] of Object.entries(rivals)) {
        const run = runOnce(preload);
        samples.overhead.push(run.overhead);
        samples.threads.push(run.threads);
        (samples[`threads|${rival}`] ??= []).push(run.theirThreads);
        for (const { name, ours, theirs } of run.loads) {
          loads.add(name);
          (samples[key("ours", rival, name)] ??= []).push(ours);
          (samples[key("theirs", rival, name)] ??= []).push(theirs);
        }
      }
    }
    const lines = [...loads].flatMap((load) =>
      Object.keys(rivals).map((rival) => {
        const limit = BAR_LOADS.includes(load) ? LIMIT_RATIO : undefined;
        const to = key("theirs", rival, load);
        const found = line(samples, key("ours", rival, load), "ns", { to, limit });
        return { ...found, what: load, ratio: { ...found.ratio!, to: rival } };
      })
    );
    const threads = line(samples, "threads", "×", { limit: LIMIT_THREADS });
    const overhead = line(samples, "overhead", "×", { limit: LIMIT_OVERHEAD });
    return Promise.resolve([{
      measure: "native",
      runtime: "native",
      lines: [...lines, { ...threads, what: "two threads' time a block / one thread's" }, {
        ...overhead,
        what: "memory touched / bytes live, 16-256 bytes, 1e6",
      }],
      skipped,
      notes: [
        "ns a pair, the best of the rounds within each run of bench-alloc",
        `two threads' time a block / one thread's, of the others in the same runs: ${
          Object.keys(rivals).map((rival) =>
            `${rival} ${spread(samples[`threads|${rival}`]).median.toFixed(2)}`
          ).join(", ")
        }`,
      ],
    }]);
  },
};
