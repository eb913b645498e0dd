/**
 * The field's allocator benchmarks (zig/bench/patterns.zig and patterns_threads.zig): the heap's
 * allocator beside glibc's malloc, jemalloc, mimalloc and tcmalloc, a process each, taking turns.
 *
 * @module
 */

import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { type Line, type Measure, ratioOf, type Report, ROOT, spread } from "../harness.ts";
import { libraryPath, PEERS } from "./native.ts";

/** Ours over the best single peer, all patterns together; over the best of each pattern; of memory. */
const LIMIT_MEAN = 1;
const LIMIT_EACH = 1.5;
const LIMIT_MEMORY = 1;

const OURS = "ours";
const MEMORY_PEER = "jemalloc";
const HUGE_PAGES = "/sys/kernel/mm/transparent_hugepage/enabled";

/** Samples by pattern and contestant, in the order of the rounds. */
type Table = Record<string, Record<string, number[]>>;

function build(): string {
  const zig = join(ROOT, "node_modules/.bin/zig");
  const done = spawnSync(zig, ["build", "bench-field"], { cwd: join(ROOT, "zig") });
  if (done.status !== 0) {
    throw new Error(`zig build bench-field failed: ${done.error ?? done.signal ?? done.stderr}`);
  }
  return join(ROOT, "zig/zig-out/bin/bench-field");
}

function output(program: string, args: string[], preload?: string): string {
  const env = preload === undefined ? process.env : { ...process.env, LD_PRELOAD: preload };
  const done = spawnSync(program, args, { env });
  if (done.status !== 0) {
    const why = done.error ?? done.signal ?? done.stderr;
    throw new Error(`${program} ${args.join(" ")} with ${preload ?? "glibc"} failed: ${why}`);
  }
  return done.stdout.toString();
}

const product = (values: number[]) => values.reduce((all, value) => all * value, 1);
const geometricMean = (values: number[]) => product(values) ** (1 / values.length);
const columns = (cells: string[]) => cells.map((cell) => cell.padStart(10)).join("");

export const field: Measure = {
  title: "The field's allocator benchmarks, ours beside the process's malloc",
  roles: {},
  run({ quick }) {
    const program = build();
    const contestants: Record<string, string | undefined> = { [OURS]: undefined, glibc: undefined };
    const skipped: Report["skipped"] = [];
    for (const [peer, soname] of Object.entries(PEERS)) {
      const path = libraryPath(soname);
      if (path === undefined) skipped.push({ what: peer, why: `${soname} is not installed` });
      else contestants[peer] = path;
    }
    const names = Object.keys(contestants);
    const peers = names.filter((name) => name !== OURS);
    const patterns = output(program, []).trim().split("\n");
    const times: Table = {};
    const memory: Table = {};
    const rounds = quick ? 2 : 7;
    for (let round = 0; round < rounds; round++) {
      for (const pattern of patterns) {
        for (let i = 0; i < names.length; i++) {
          const name = names[(i + round) % names.length];
          const args = [pattern, name === OURS ? "ours" : "host", quick ? "25" : "100"];
          const [took, blocks, peak] = output(program, args, contestants[name]).split(" ").map(
            Number,
          );
          ((times[pattern] ??= {})[name] ??= []).push(took / blocks);
          ((memory[pattern] ??= {})[name] ??= []).push(peak);
        }
      }
    }
    const lines = [
      ...patterns.map((pattern) => patternLine(pattern, times[pattern], peers)),
      ...meanLines(times, patterns, peers),
    ];
    if (peers.includes(MEMORY_PEER)) lines.push(memoryLine(memory, patterns));
    const shown = (table: Table, pattern: string, name: string) =>
      (spread(table[pattern][OURS]).median / spread(table[pattern][name]).median).toFixed(2);
    const pages = /\[(\w+)\]/.exec(readFileSync(HUGE_PAGES, "utf8"))?.[1] ?? "unknown";
    return Promise.resolve([{
      measure: "field",
      runtime: "native",
      lines,
      skipped,
      notes: [
        `ns a block, wall time; transparent huge pages: ${pages}, ours has none`,
        `ours over each, time:   ${columns(peers)}    peak memory: ${columns(peers)}`,
        ...patterns.map((pattern) =>
          `  ${pattern.padEnd(22)}${columns(peers.map((peer) => shown(times, pattern, peer)))}` +
          `                 ${columns(peers.map((peer) => shown(memory, pattern, peer)))}`
        ),
      ],
    }]);
  },
};

/** Ours over the best of the peers in this pattern. */
function patternLine(pattern: string, samples: Record<string, number[]>, peers: string[]): Line {
  const median = (name: string) => spread(samples[name]).median;
  const best = peers.reduce((one, other) => median(one) <= median(other) ? one : other);
  const ratio = { ...ratioOf(samples[OURS], samples[best]), to: best };
  return {
    what: pattern,
    unit: "ns",
    value: spread(samples[OURS]),
    samples: samples[OURS].length,
    ratio,
    bar: { of: "ratio", limit: LIMIT_EACH, met: ratio.median <= LIMIT_EACH },
  };
}

/** Geometric means over all patterns; the bar is the best single peer's. */
function meanLines(times: Table, patterns: string[], peers: string[]): Line[] {
  const meanOf = (name: string) => {
    const rounds = times[patterns[0]][name].length;
    return Array.from(
      { length: rounds },
      (_, round) => geometricMean(patterns.map((pattern) => times[pattern][name][round])),
    );
  };
  const ours = meanOf(OURS);
  const lines = peers.map((peer): Line => ({
    what: "geometric mean of all",
    unit: "ns",
    value: spread(ours),
    samples: ours.length,
    ratio: { ...ratioOf(ours, meanOf(peer)), to: peer },
  }));
  const hardest = lines.reduce((one, other) =>
    one.ratio!.median >= other.ratio!.median ? one : other
  );
  hardest.bar = { of: "ratio", limit: LIMIT_MEAN, met: hardest.ratio!.median <= LIMIT_MEAN };
  return lines;
}

function memoryLine(memory: Table, patterns: string[]): Line {
  const meanOf = (name: string) =>
    geometricMean(patterns.map((pattern) => Math.max(...memory[pattern][name])));
  const ratio = spread([meanOf(OURS) / meanOf(MEMORY_PEER)]);
  return {
    what: "peak memory, geometric mean",
    unit: "MiB",
    value: spread([meanOf(OURS) / 1024]),
    samples: patterns.length,
    ratio: { ...ratio, to: MEMORY_PEER },
    bar: { of: "ratio", limit: LIMIT_MEMORY, met: ratio.median <= LIMIT_MEMORY },
  };
}
