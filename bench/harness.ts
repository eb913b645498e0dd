/**
 * How everything in this folder measures: side by side, in one run. Contestants take turns in
 * rounds, so that a slow moment of the machine hits all of them alike; what is told is the median
 * of each, and the ratio of two as the median of the ratios within each round, with its spread.
 * Absolute numbers are context. A bar is what the project has set itself to reach.
 *
 * Invariant: a figure never stands alone; a contestant that is missing is named with the reason.
 *
 * @module
 */

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, loadavg, release, totalmem } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { styleText } from "node:util";

export type Runtime = "deno" | "bun";

const HERE = dirname(fileURLToPath(import.meta.url));
export const ROOT = join(HERE, "..");
const RESULTS = join(HERE, "results");

/** Samples of one contestant, in the order of the rounds. */
export type Samples = Record<string, number[]>;

/** Middle and quartiles. */
export interface Spread {
  median: number;
  low: number;
  high: number;
}

/** One line of a report. `limit` is the bar: what the value, or the ratio, may be at most. */
export interface Line {
  what: string;
  unit: string;
  value: Spread;
  samples: number;
  /** This contestant's time over that of `to`, round by round. */
  ratio?: Spread & { to: string };
  bar?: { of: "value" | "ratio"; limit: number; met: boolean };
}

/** What a measure found, under one runtime or without any. */
export interface Report {
  measure: string;
  runtime: Runtime | "native" | "both";
  lines: Line[];
  /** Contestants that could not run, and why. */
  skipped: { what: string; why: string }[];
  notes: string[];
}

/** What a measure gets to work with. */
export interface Context {
  /** Fewer rounds and smaller heaps: shows that everything runs, and roughly how fast. */
  quick: boolean;
  /** Also what takes gigabytes of memory and disk, and a minute more. */
  large: boolean;
  /** A folder for files, on the file system that is measured. */
  work: string;
  runtimes: Runtime[];
  /** Only tables whose names contain this, where a measure has several. */
  part?: string;
}

/** A measure: what it compares, the code its children run, and what it makes of their samples. */
export interface Measure {
  title: string;
  /** Run in a process of each runtime: `role` on the command line, arguments and result as JSON. */
  // deno-lint-ignore no-explicit-any
  roles: Record<string, (args: any) => unknown>;
  run(context: Context): Promise<Report[]>;
}

export function spread(samples: number[]): Spread {
  const sorted = samples.toSorted((a, b) => a - b);
  const at = (part: number) => {
    const place = part * (sorted.length - 1);
    const below = Math.floor(place);
    const above = Math.min(below + 1, sorted.length - 1);
    return sorted[below] + (sorted[above] - sorted[below]) * (place - below);
  };
  return { median: at(0.5), low: at(0.25), high: at(0.75) };
}

/** The ratio of two contestants in each round, and the spread of these. */
export function ratioOf(samples: number[], to: number[]): Spread {
  const rounds = Math.min(samples.length, to.length);
  return spread(Array.from({ length: rounds }, (_, round) => samples[round] / to[round]));
}

/**
 * Lets contestants take turns. Each returns its own figure; the order moves on by one a round. One
 * round more is run first and thrown away when `warm` is set.
 */
export function takeTurns(
  contestants: Record<string, () => number>,
  rounds: number,
  warm = true,
): Samples {
  const names = Object.keys(contestants);
  const samples: Samples = Object.fromEntries(names.map((name) => [name, []]));
  for (let round = warm ? -1 : 0; round < rounds; round++) {
    for (let i = 0; i < names.length; i++) {
      const name = names[(i + Math.max(0, round)) % names.length];
      const figure = contestants[name]();
      if (round >= 0) samples[name].push(figure);
    }
  }
  return samples;
}

/** Joins the samples that several processes brought home. */
export function joinSamples(runs: Samples[]): Samples {
  const all: Samples = {};
  for (const samples of runs) {
    for (const [name, values] of Object.entries(samples)) (all[name] ??= []).push(...values);
  }
  return all;
}

/** A report's line for a contestant, compared with another where one is named. */
export function line(
  samples: Samples,
  what: string,
  unit: string,
  options: { to?: string; limit?: number; of?: "value" | "ratio" } = {},
): Line {
  const { to, limit, of = to === undefined ? "value" : "ratio" } = options;
  const value = spread(samples[what]);
  const ratio = to === undefined ? undefined : { ...ratioOf(samples[what], samples[to]), to };
  const measured = of === "ratio" ? ratio!.median : value.median;
  return {
    what,
    unit,
    value,
    samples: samples[what].length,
    ratio,
    bar: limit === undefined ? undefined : { of, limit, met: measured <= limit },
  };
}

/** How to start a program under a runtime. */
export function command(runtime: Runtime, file: string, args: string[]): [string, string[]] {
  if (runtime === "deno") {
    const deno = process.versions.deno === undefined ? "deno" : process.execPath;
    return [deno, ["run", "--quiet", "-A", file, ...args]];
  }
  const bun = join(ROOT, "node_modules/.bin/bun");
  return [existsSync(bun) ? bun : "bun", [file, ...args]];
}

export function hasRuntime(runtime: Runtime): boolean {
  const [program] = command(runtime, "", []);
  return spawnSync(program, ["--version"]).status === 0;
}

const running = new Set<ChildProcess>();

/** Ends the children that still run, for a program that was told to stop. */
export function stopChildren(): void {
  for (const child of running) child.kill("SIGKILL");
}

/**
 * Runs a role in a new process of that runtime and brings its result home. With `kill`, the process
 * still holds everything when its result is here, and then gets SIGKILL.
 */
export async function inChild<Result>(
  runtime: Runtime,
  role: string,
  args: unknown,
  kill = false,
): Promise<Result> {
  const words = [role, JSON.stringify(args), ...kill ? ["hold"] : []];
  const [program, rest] = command(runtime, join(HERE, "child.ts"), words);
  const child = spawn(program, rest, { stdio: ["ignore", "pipe", "inherit"] });
  running.add(child);
  const ended = once(child, "close").finally(() => running.delete(child));
  const result = await resultOf(child, kill);
  const [code, signal] = await ended;
  if (result === undefined) {
    throw new Error(`${role} under ${runtime} ended with ${signal ?? `exit code ${code}`}`);
  }
  return JSON.parse(result);
}

async function resultOf(child: ChildProcess, kill: boolean): Promise<string | undefined> {
  let result: string | undefined;
  for await (const told of createInterface({ input: child.stdout! })) {
    if (!told.startsWith("result ")) console.log(told);
    else {
      result = told.slice("result ".length);
      if (kill) child.kill("SIGKILL");
    }
  }
  return result;
}

/** Whole processes by Debian's hyperfine: times in milliseconds; undefined where it is missing. */
export function hyperfine(commands: [string, string[]][], runs: number, json: string) {
  if (spawnSync("hyperfine", ["--version"]).status !== 0) return undefined;
  const quoted = commands.map(([program, args]) => [program, ...args].map(quote).join(" "));
  const options = ["--shell=none", "--style=none", "--warmup=1", `--runs=${runs}`];
  const { status, stderr } = spawnSync("hyperfine", [...options, "--export-json", json, ...quoted]);
  if (status !== 0) throw new Error(`hyperfine failed: ${stderr}`);
  const { results } = JSON.parse(readFileSync(json, "utf8"));
  return (results as { times: number[] }[]).map(({ times }) => times.map((time) => time * 1e3));
}

function quote(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

const round = (value: number) =>
  value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);

/** A report for people: a figure, its spread, its ratio, its bar. */
export function table(title: string, report: Report): string {
  const rows = report.lines.map((line) => [
    `  ${line.what}`,
    `${round(line.value.median)} ${line.unit}`,
    `${round(line.value.low)}–${round(line.value.high)}`,
    line.ratio === undefined
      ? ""
      : `${round(line.ratio.median)}× ${line.ratio.to} (${round(line.ratio.low)}–${
        round(line.ratio.high)
      })`,
    barText(line),
  ]);
  const widths =
    rows[0]?.map((_, column) => Math.max(...rows.map((row) => visible(row[column]).length))) ?? [];
  const text = rows.map((row) =>
    row.map((cell, column) => {
      const padding = " ".repeat(widths[column] - visible(cell).length);
      return column === 1 ? padding + cell : cell + padding;
    }).join("  ").trimEnd()
  );
  return [
    `${styleText("bold", title)} · ${report.runtime}`,
    ...text,
    ...report.skipped.map(({ what, why }) => `  ${what}: skipped, ${why}`),
    ...report.notes.map((note) => styleText("dim", `  ${note}`)),
  ].join("\n");
}

function barText({ bar, unit }: Line): string {
  if (bar === undefined) return "";
  const limit = `at most ${round(bar.limit)}${bar.of === "ratio" ? "×" : ` ${unit}`}`;
  return bar.met ? styleText("green", `met: ${limit}`) : styleText("red", `missed: ${limit}`);
}

function visible(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/\x1b\[\d+m/g, "");
}

/** Says so when others keep the machine busy: then only ratios mean something. */
export function busyMachine(): string | undefined {
  const [load] = loadavg();
  if (load < cpus().length / 2) return undefined;
  return `The machine is busy (load ${
    load.toFixed(1)
  }, ${cpus().length} cores): take the ratios only`;
}

/** Writes a run as JSON, with the machine it was made on: the file's path. */
export function save(reports: Report[], quick: boolean): string {
  mkdirSync(RESULTS, { recursive: true });
  const time = new Date().toISOString();
  const file = join(RESULTS, `${time.replaceAll(":", "-")}.json`);
  const machine = {
    cpu: cpus()[0]?.model ?? "unknown",
    cores: cpus().length,
    memoryBytes: totalmem(),
    load: loadavg(),
    kernel: release(),
    deno: process.versions.deno,
    bun: spawnSync(command("bun", "", [])[0], ["--version"]).stdout?.toString().trim(),
  };
  writeFileSync(file, JSON.stringify({ time, quick, machine, reports }, null, 2) + "\n");
  return file;
}
