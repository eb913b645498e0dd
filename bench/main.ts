/**
 * `deno task bench`: runs the measures under Deno and Bun, prints a table of each with its bars,
 * and writes everything to a file in bench/results/.
 *
 *     deno task bench [--only NAME]… [--part TEXT] [--quick] [--large] [--runtime deno|bun] [--dir FOLDER]
 *
 * @module
 */

import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import {
  busyMachine,
  type Context,
  hasRuntime,
  type Report,
  ROOT,
  type Runtime,
  save,
  stopChildren,
  table,
} from "./harness.ts";
import { measures } from "./measures/mod.ts";

const USAGE = `Usage: deno task bench [options]

  --only NAME      only this measure; may be repeated
  --part TEXT      of data-maps only tables whose names contain it, as "HashMap, keys u64"
  --quick          fewer rounds, smaller heaps
  --large          also a heap of 8 GiB (open): 16 GB of memory, 9 GB of disk
  --runtime NAME   deno or bun; both when not given
  --dir FOLDER     where the heaps' files go (default bench/results, on the project's file system)
  -h, --help       this text

Measures:
${Object.entries(measures).map(([name, { title }]) => `  ${name.padEnd(15)}${title}`).join("\n")}`;

async function main(): Promise<void> {
  const { values: options } = parseArgs({
    options: {
      only: { type: "string", multiple: true, default: Object.keys(measures) },
      part: { type: "string" },
      quick: { type: "boolean", default: false },
      large: { type: "boolean", default: false },
      runtime: { type: "string" },
      dir: { type: "string", default: join(ROOT, "bench/results") },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (options.help) {
    console.log(USAGE);
    return;
  }
  const unknown = options.only.find((name) => !Object.hasOwn(measures, name));
  if (unknown !== undefined) throw new Error(`There is no measure "${unknown}"\n\n${USAGE}`);
  const wanted = (["deno", "bun"] as const).filter((name) =>
    options.runtime === undefined || name === options.runtime
  );
  if (wanted.length === 0) throw new Error(`--runtime is deno or bun, not "${options.runtime}"`);
  const runtimes: Runtime[] = wanted.filter(hasRuntime);
  for (const name of wanted) {
    if (!runtimes.includes(name)) console.log(`${name}: skipped, it is not installed here\n`);
  }
  const busy = busyMachine();
  if (busy !== undefined) console.log(`${busy}\n`);
  mkdirSync(options.dir, { recursive: true });
  const work = mkdtempSync(join(resolve(options.dir), "work-"));
  const clean = () => rmSync(work, { recursive: true, force: true });
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, () => {
      stopChildren();
      clean();
      process.exit(130);
    });
  }
  const reports: Report[] = [];
  try {
    const { quick, large, part } = options;
    for (const name of options.only) {
      const { title, run } = measures[name];
      for (const report of await attempt(name, run, { quick, large, work, runtimes, part })) {
        reports.push(report);
        console.log(`${table(title, report)}\n`);
      }
    }
  } finally {
    clean();
  }
  console.log(summary(reports));
  console.log(`Written to ${relative(process.cwd(), save(reports, options.quick))}`);
}

/** One measure that fails is told and does not end the others. */
async function attempt(
  measure: string,
  run: (typeof measures)[string]["run"],
  context: Context,
): Promise<Report[]> {
  try {
    return await run(context);
  } catch (error) {
    process.exitCode = 1;
    const skipped = [{ what: measure, why: `it failed: ${(error as Error).message}` }];
    return [{ measure, runtime: "both", lines: [], skipped, notes: [] }];
  }
}

function summary(reports: Report[]): string {
  const bars = reports.flatMap(({ measure, runtime, lines }) =>
    lines.flatMap(({ what, bar }) => bar === undefined ? [] : [{ measure, runtime, what, bar }])
  );
  const missed = bars.filter(({ bar }) => !bar.met);
  return [
    `${bars.length - missed.length} of ${bars.length} bars met`,
    ...missed.map(({ measure, runtime, what }) => `  missed: ${measure} · ${runtime} · ${what}`),
  ].join("\n");
}

try {
  await main();
} catch (error) {
  console.error(`bench: ${(error as Error).message}`);
  process.exitCode = 2;
}
