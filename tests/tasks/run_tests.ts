/**
 * Runs all tests: Zig's beside the code, the TypeScript suite under Deno and under Bun, and the
 * documentation's examples under Deno. The last line is `N passed, N failed`, summed over all.
 *
 * (Not named test.ts: Deno would take it for a test, and run it from within itself.)
 *
 * Invariant: what cannot be counted has failed. A runner that crashes, that exits with an error
 * its counts do not show, or that executes no test adds a failure.
 *
 *     deno task test [--only zig,deno,bun,docs] [--filter TEXT] [FILE…]
 *
 * @module
 */
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

interface Runner {
  command: string[];
  directory: string;
  /** Reads the runner's own closing lines; undefined when they are not there. */
  count(output: string): Counts | undefined;
}

const root = fileURLToPath(new URL("../..", import.meta.url));
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { only: { type: "string" }, filter: { type: "string" } },
});

// Examples write where they stand.
const scratch = mkdtempSync(`${tmpdir()}/perm-docs-`);
process.on("exit", () => rmSync(scratch, { recursive: true, force: true }));

const files = positionals.length > 0 ? positionals : ["./tests/"];
const runners: Record<string, Runner> = {
  zig: {
    command: [
      `${root}node_modules/.bin/zig`,
      // A test that waits for ever is named and ended; the longest takes a minute on a busy machine.
      ...["build", "test", "--summary", "all", "--test-timeout", "600s"],
      ...(options.filter ? [`-Dfilter=${options.filter}`] : []),
    ],
    directory: `${root}zig`,
    count: countZig,
  },
  deno: {
    // Types are `deno task check`'s business.
    command: [
      process.execPath,
      ...["test", "-A", "--no-check"],
      ...(options.filter ? ["--filter", options.filter] : []),
      ...files,
    ],
    directory: root,
    count: countDeno,
  },
  bun: {
    command: [
      `${root}node_modules/.bin/bun`,
      ...["test", "--timeout", "300000"],
      ...(options.filter ? ["--test-name-pattern", escapeRegExp(options.filter)] : []),
      ...files,
    ],
    directory: root,
    count: countBun,
  },
  docs: {
    command: [
      process.execPath,
      ...["test", "-A", "--no-check", "--doc", "--config", `${root}deno.json`],
      ...["mod.ts", "heap/", "data/", "ffi/", "tuning/", "README.md"].map((path) => root + path),
    ],
    directory: scratch,
    count: countDeno,
  },
};

// Files are of the suite; a filter says nothing to the documentation.
const all = Object.keys(runners);
const chosen = options.only?.split(",") ??
  (positionals.length > 0
    ? ["deno", "bun"]
    : all.filter((name) => name !== "docs" || options.filter === undefined));
const unknown = chosen.filter((name) => runners[name] === undefined);
if (unknown.length > 0) {
  console.error(
    `Cannot run tests of ${unknown.join(", ")}: choose from ${all.join(", ")}`,
  );
  process.exit(2);
}
const missing = positionals.filter((file) => !existsSync(file));
if (missing.length > 0) {
  console.error(`Cannot run ${missing.join(", ")}: no such file or folder`);
  process.exit(2);
}

const total: Counts = { passed: 0, failed: 0, skipped: 0 };
const summary: string[] = [];
for (const name of chosen) {
  const start = performance.now();
  console.log(`\n== ${name}`);
  const counts = await run(runners[name]);
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  const { passed, failed, skipped } = counts;
  summary.push(
    `${name.padEnd(5)} ${passed} passed, ${failed} failed, ${skipped} skipped (${seconds} s)`,
  );
  total.passed += passed;
  total.failed += failed;
}
console.log(`\n${summary.join("\n")}\n`);
console.log(`${total.passed} passed, ${total.failed} failed`);
process.exitCode = total.failed > 0 ? 1 : 0;

async function run({ command: [program, ...args], directory, count }: Runner): Promise<Counts> {
  const { FORCE_COLOR: _, ...environment } = process.env;
  const child = spawn(program, args, {
    cwd: directory,
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...environment, NO_COLOR: "1", PERM_DENO: process.execPath },
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8");
    stream.on("data", (text: string) => {
      output += text;
      process.stdout.write(text);
    });
  }
  const end = await new Promise<string>((resolve) => {
    child.on("error", (error) => resolve(error.message));
    child.on("close", (code, signal) => resolve(code === 0 ? "" : `exit ${code ?? signal}`));
  });

  const counts = count(output) ?? { passed: 0, failed: 0, skipped: 0 };
  if (counts.failed > 0) return counts;
  const why = end || (counts.passed === 0 ? "no test was executed" : "");
  if (why === "") return counts;
  console.log(`The runner failed as a whole: ${why}`);
  return { ...counts, failed: 1 };
}

/** `Build Summary: 3/3 steps succeeded; 8/10 tests passed (1 skipped, 1 crashed)` */
function countZig(output: string): Counts | undefined {
  const found = output.match(/; (\d+)\/(\d+) tests passed(?: \(([^)]*)\))?/);
  if (!found) return undefined;
  const [passed, all] = [Number(found[1]), Number(found[2])];
  const skipped = Number(found[3]?.match(/(\d+) skipped/)?.[1] ?? 0);
  const forgotten = options.filter === undefined ? Math.max(0, declaredZigTests() - all) : 0;
  if (forgotten > 0) {
    console.log(`${forgotten} tests are in files that no \`test\` block of another file names`);
  }
  return { passed, failed: all - passed - skipped + forgotten, skipped };
}

/** Zig runs the tests of those files only that a test of a file it runs refers to. */
function declaredZigTests(): number {
  const source = `${root}zig/src`;
  return readdirSync(source, { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".zig"))
    .flatMap((path) => readFileSync(`${source}/${path}`, "utf8").match(/^test\b/gm) ?? [])
    .length;
}

/** `ok | 8 passed | 0 failed | 1 ignored (12ms)` */
function countDeno(output: string): Counts | undefined {
  const line = output.match(/^(?:ok|FAILED) \| .*$/gm)?.at(-1);
  if (line === undefined) return undefined;
  const of = (word: string) => Number(line.match(`(\\d+) ${word}`)?.[1] ?? 0);
  return { passed: of("passed"), failed: of("failed"), skipped: of("ignored") };
}

/** ` 8 pass`, ` 0 fail`, ` 1 skip`, a line each */
function countBun(output: string): Counts | undefined {
  const of = (word: string) => {
    const lines = [...output.matchAll(new RegExp(`^ *(\\d+) ${word}$`, "gm"))];
    return lines.length === 0 ? undefined : Number(lines.at(-1)![1]);
  };
  const passed = of("pass");
  if (passed === undefined) return undefined;
  return { passed, failed: of("fail") ?? 0, skipped: (of("skip") ?? 0) + (of("todo") ?? 0) };
}

function escapeRegExp(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}
