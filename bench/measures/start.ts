/**
 * Whole processes, as hyperfine sees them: a runtime that does nothing, and one that opens a 64 MiB
 * heap, reads from it and ends, with the package as npm delivers it and from the sources.
 *
 * @module
 */

import { spawnSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { command, hyperfine, inChild, line, type Measure, ROOT } from "../harness.ts";
import type { Report, Samples } from "../harness.ts";
import { installPackage, installProgram } from "../package.ts";

const NOTHING = join(ROOT, "bench/programs/nothing.ts");
const OPEN = join(ROOT, "bench/programs/open.ts");

function ownTiming(commands: [string, string[]][], runs: number): number[][] {
  const times: number[][] = commands.map(() => []);
  for (let run = -1; run < runs; run++) {
    commands.forEach(([program, args], i) => {
      const before = performance.now();
      const { status } = spawnSync(program, args);
      if (status !== 0) throw new Error(`${program} ended with exit code ${status}`);
      if (run >= 0) times[i].push(performance.now() - before);
    });
  }
  return times;
}

export const start: Measure = {
  title: "A whole process that opens a heap of 64 MiB",
  roles: {},
  async run({ quick, work, runtimes }) {
    const file = join(work, "start.map");
    const made = { file, bytes: 64 * 2 ** 20, commits: 1, pages: 10 };
    await inChild(runtimes[0], "open/make", made, true);
    const project = join(work, "start");
    mkdirSync(project);
    installPackage(project);
    const program = installProgram(project, OPEN);
    const commands = runtimes.flatMap((runtime) => [
      command(runtime, NOTHING, []),
      command(runtime, program, [file]),
      command(runtime, OPEN, [file]),
    ]);
    const runs = quick ? 5 : 20;
    const measured = hyperfine(commands, runs, join(work, "hyperfine.json"));
    const times = measured ?? ownTiming(commands, runs);
    return runtimes.map((runtime, i): Report => {
      const samples: Samples = {
        nothing: times[3 * i],
        "open + read": times[3 * i + 1],
        "open + read, from the sources": times[3 * i + 2],
      };
      return {
        measure: "start",
        runtime,
        lines: [
          line(samples, "nothing", "ms"),
          line(samples, "open + read", "ms", { to: "nothing" }),
          line(samples, "open + read, from the sources", "ms", { to: "nothing" }),
        ],
        skipped: measured === undefined
          ? [{ what: "hyperfine", why: "not installed; processes were timed by this program" }]
          : [],
        notes: [],
      };
    });
  },
};
