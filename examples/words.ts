/**
 * The job of `restore.ts` and `word_index.ts` in 106 lines instead of 686: an index of the words of
 * real text, as structs and containers in a heap. Killed at any moment it loses the step it was in;
 * run again, under either runtime, it goes on from its last commit. Its digest is that of `restore.ts`.
 *
 *     deno run -A examples/words.ts [options] [folder]      bun examples/words.ts [options] [folder]
 *
 * @module
 */
import { createHash } from "node:crypto";
import { lstatSync, readdirSync, readFileSync, realpathSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { OrderedMap, roots, struct, text, u32, u53, Vec } from "../data/mod.ts";
import { Heap } from "../mod.ts";

const USAGE = `Usage: words.ts [options] [folder]

Indexes the words of all text in a folder, a few files a step; asks an index that is there already.

  -f, --file FILE      where the index is kept            (default words.perm)
  -n, --step N         files from commit to commit        (default 16)
  -t, --top N          the most frequent words            (default 10)
  -w, --word WORD      in which files a word occurs
  -p, --prefix TEXT    the words that begin so
      --digest         SHA-256 of the whole index
  -h, --help           this text`;

const Posting = struct("Posting", { file: u32, count: u32 });
const Word = struct("Word", { total: u53, postings: Vec(Posting) });
/** Complete for the files that it lists, whenever it is committed. */
const Index = struct("Index", { folder: text, files: Vec(text), words: OrderedMap(text, Word) });

/** A word is letters, digits and `_`, not a digit first; A to Z are folded, and 255 bytes are enough. */
function countWords(bytes: Uint8Array): Map<string, number> {
  const counts = new Map<string, number>();
  if (bytes.subarray(0, 8192).includes(0)) return counts; // no text
  const content = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
  for (const [found] of content.matchAll(/[A-Za-z0-9_\u0080-\uffff]+/g)) {
    if (/^[0-9]/.test(found) || new TextEncoder().encode(found).length > 255) continue;
    const word = found.replace(/[A-Z]+/g, (part) => part.toLowerCase());
    counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  return counts;
}

function textFiles(folder: string): string[] {
  const paths = readdirSync(folder, { recursive: true }).map(String);
  return paths.filter((path) => lstatSync(join(folder, path)).isFile()).sort();
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    file: { type: "string", short: "f", default: "words.perm" },
    step: { type: "string", short: "n", default: "16" },
    top: { type: "string", short: "t", default: "10" },
    word: { type: "string", short: "w", default: [], multiple: true },
    prefix: { type: "string", short: "p" },
    digest: { type: "boolean" },
    help: { type: "boolean", short: "h" },
  },
});
const [step, top] = [Number(values.step), Number(values.top)];
if (values.help || positionals.length > 1 || !(step >= 1 && top >= 0)) {
  console.log(USAGE);
  process.exit(values.help ? 0 : 2);
}

using heap = Heap.open({ file: values.file, size: 16 << 20 });
const index = roots(heap).open("index", Index);
const { files, words } = index;
const asked = realpathSync(positionals[0] ?? (index.folder || "."));
index.folder ||= asked;
if (index.folder !== asked) throw new Error(`${values.file} has an index of ${index.folder}`);
console.log(`${heap.resumed}: epoch ${heap.epoch}, ${files.length} files of ${asked}`);
const left = [...new Set(textFiles(asked)).difference(new Set(files))];
for (let i = 0; i < left.length; i += step) {
  for (const path of left.slice(i, i + step)) {
    const file = files.push(path) - 1;
    for (const [word, count] of countWords(readFileSync(join(asked, path)))) {
      const entry = words.getOrSet(word);
      entry.total += count;
      entry.postings.push({ file, count });
    }
  }
  console.log(`epoch ${heap.flush().epoch}: ${files.length} files, ${words.size} words`);
}

const show = (count: number, what: string) => console.log(`${String(count).padStart(9)}  ${what}`);
const ranking = [...words].sort(([, a], [, b]) => b.total - a.total).slice(0, top);
const begun = values.prefix ? [...words.prefix(values.prefix)] : [];
for (const [word, { total }] of [...ranking, ...begun]) show(total, word);
for (const word of values.word) {
  console.log(`${word}: ${words.get(word)?.total ?? 0}`);
  for (const { file, count } of words.get(word)?.postings ?? []) show(count, files.get(file));
}
if (values.digest) {
  const hash = createHash("sha256");
  for (const [word, { total, postings }] of words) {
    const where = Array.from(postings, ({ file, count }) => `\t${files.get(file)}\t${count}`);
    hash.update(`${word}\t${total}${where.join("")}\n`);
  }
  console.log(`digest ${hash.digest("hex")}`);
}
