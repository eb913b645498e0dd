/**
 * An index of words that lives in a heap: which word occurs in which file, and how often. Nothing
 * of it is in JavaScript memory; whoever has the heap and the pointer `home` has the index.
 *
 *     Index   home ─► slots ─► u64[2^bits]     open addressing: pointers to Word, 0 is free
 *                     files ─► u64[capacity]   pointers to File, in the order they were indexed
 *                     root, counts
 *     Word    postings ─► { u32 file, u32 count }[capacity], hash, total, its bytes
 *     File    size, words, its path relative to root
 *
 * Invariant: between two calls of `addFile` the index is complete for the files it lists, so that a
 * commit there is a point to go on from. At most 70 % of the slots are taken. The last posting of a
 * word is the newest file's: counting needs no memory of its own.
 *
 * A word is a run of ASCII letters, digits, `_` and bytes from 0x80 on (UTF-8 of all other letters)
 * that does not begin with a digit; A–Z are folded to a–z; longer than 255 bytes it is no word.
 *
 * @module
 */

import { createHash } from "node:crypto";
import type { Heap, Pointer } from "../mod.ts";

const INDEX = {
  slots: 0,
  files: 8,
  root: 16,
  bits: 24,
  wordCount: 28,
  fileCount: 32,
  fileCapacity: 36,
  size: 40,
};
const WORD = { postings: 0, total: 8, hash: 16, length: 20, used: 24, capacity: 28, bytes: 32 };
const FILE = { size: 0, words: 8, length: 12, bytes: 16 };
const POSTING = { file: 0, count: 4, size: 8 };

const FIRST_BITS = 12;
const FIRST_FILES = 64;
const FIRST_POSTINGS = 2;
const WORD_LENGTH_MAX = 255;

/** What each byte is folded to inside a word; 0 where a word ends. */
const FOLD = new Uint8Array(256).map((_, byte) => {
  const char = String.fromCharCode(byte);
  if (/[a-z0-9_]/.test(char) || byte >= 0x80) return byte;
  return /[A-Z]/.test(char) ? byte + 32 : 0;
});
const isDigit = (byte: number) => byte >= 0x30 && byte <= 0x39;

/** A word with its sum over all files and its count in each, in the order of the files. */
export interface Entry {
  word: string;
  total: number;
  files: { path: string; count: number }[];
}

export class WordIndex {
  readonly heap: Heap;
  /** Where the index stands in the heap: the one pointer a program keeps. */
  readonly home: Pointer;
  #view = new DataView(new ArrayBuffer(0));
  #bytes = new Uint8Array(0);
  #base = 0;
  #end = 0;
  readonly #word = new Uint8Array(WORD_LENGTH_MAX + 1);

  /** The index that stands at `home`. */
  constructor(heap: Heap, home: Pointer) {
    this.heap = heap;
    this.home = home;
  }

  /** Makes an empty index of the text under `root`. */
  static create(heap: Heap, root: string): WordIndex {
    const index = new WordIndex(heap, heap.calloc(1, INDEX.size));
    index.#store(index.home + INDEX.slots, heap.calloc(2 ** FIRST_BITS, 8));
    index.#setU32(index.home + INDEX.bits, FIRST_BITS);
    index.#store(index.home + INDEX.files, heap.calloc(FIRST_FILES, 8));
    index.#setU32(index.home + INDEX.fileCapacity, FIRST_FILES);
    const text = new TextEncoder().encode(root);
    const p = heap.malloc(4 + text.length);
    index.#setU32(p, text.length);
    heap.bytes(p + 4, text.length).set(text);
    index.#store(index.home + INDEX.root, p);
    return index;
  }

  /** The folder or file that was indexed. */
  get root(): string {
    const p = this.#load(this.home + INDEX.root);
    return this.#text(p + 4, this.#u32(p));
  }

  get wordCount(): number {
    return this.#u32(this.home + INDEX.wordCount);
  }

  get fileCount(): number {
    return this.#u32(this.home + INDEX.fileCount);
  }

  /** Indexes one file: how many words it holds, counting each occurrence. */
  addFile(path: string, text: Uint8Array): number {
    const file = this.fileCount;
    const record = this.#newFile(path, text.length);
    let words = 0;
    const word = this.#word;
    for (let i = 0; i < text.length; i++) {
      if (FOLD[text[i]] === 0) continue;
      const digit = isDigit(text[i]);
      let hash = 0x811c9dc5;
      let length = 0;
      for (let byte; i < text.length && (byte = FOLD[text[i]]) !== 0; i++) {
        if (length <= WORD_LENGTH_MAX) word[length++] = byte;
        hash = Math.imul(hash ^ byte, 0x01000193);
      }
      if (digit || length > WORD_LENGTH_MAX) continue;
      this.#count(length, hash >>> 0, file);
      words++;
    }
    this.#setU32(record + FILE.words, words);
    return words;
  }

  /** The indexed files in their order. */
  *files(): Generator<{ path: string; size: number; words: number }> {
    for (let i = 0; i < this.fileCount; i++) {
      const file = this.#load(this.#load(this.home + INDEX.files) + i * 8);
      yield {
        path: this.#filePath(file),
        size: this.#f64(file + FILE.size),
        words: this.#u32(file + FILE.words),
      };
    }
  }

  /** What the index knows of a word, or undefined when it never occurred. */
  find(text: string): Entry | undefined {
    const bytes = new TextEncoder().encode(text);
    if (bytes.length > WORD_LENGTH_MAX) return undefined;
    let hash = 0x811c9dc5;
    for (let i = 0; i < bytes.length; i++) {
      this.#word[i] = FOLD[bytes[i]];
      hash = Math.imul(hash ^ this.#word[i], 0x01000193);
    }
    const word = this.#load(this.#slotOf(bytes.length, hash >>> 0));
    return word === 0 ? undefined : this.#entry(word);
  }

  /** The `count` most frequent words; equally frequent ones in the order of their bytes. */
  top(count: number): Entry[] {
    const best = this.#words().map((word) => ({ word, total: this.#f64(word + WORD.total) }));
    best.sort((a, b) => b.total - a.total || this.#compare(a.word, b.word));
    return best.slice(0, count).map(({ word }) => this.#entry(word));
  }

  /**
   * SHA-256 over everything the index says, words in the order of their bytes: a line a word,
   * `word⇥total⇥path⇥count⇥path⇥count…`. Equal digests are equal indexes, wherever the pieces lie.
   */
  digest(): string {
    const hash = createHash("sha256");
    const paths = [...this.files()].map(({ path }) => path);
    for (const word of this.#words().sort((a, b) => this.#compare(a, b))) {
      hash.update(this.heap.bytes(word + WORD.bytes, this.#u32(word + WORD.length)));
      let line = `\t${this.#f64(word + WORD.total)}`;
      const postings = this.#load(word + WORD.postings);
      for (let i = 0; i < this.#u32(word + WORD.used); i++) {
        const posting = postings + i * POSTING.size;
        const path = paths[this.#u32(posting + POSTING.file)];
        line += `\t${path}\t${this.#u32(posting + POSTING.count)}`;
      }
      hash.update(line + "\n");
    }
    return hash.digest("hex");
  }

  #newFile(path: string, size: number): Pointer {
    const { heap, home } = this;
    const count = this.fileCount;
    const capacity = this.#u32(home + INDEX.fileCapacity);
    if (count === capacity) {
      const grown = heap.realloc(this.#load(home + INDEX.files), capacity * 2 * 8);
      this.#store(home + INDEX.files, grown);
      this.#setU32(home + INDEX.fileCapacity, capacity * 2);
    }
    const name = new TextEncoder().encode(path);
    const file = heap.malloc(FILE.bytes + name.length);
    this.#setF64(file + FILE.size, size);
    this.#setU32(file + FILE.words, 0);
    this.#setU32(file + FILE.length, name.length);
    heap.bytes(file + FILE.bytes, name.length).set(name);
    this.#store(this.#load(home + INDEX.files) + count * 8, file);
    this.#setU32(home + INDEX.fileCount, count + 1);
    return file;
  }

  /** Counts one occurrence of the word in `#word`. */
  #count(length: number, hash: number, file: number): void {
    const slot = this.#slotOf(length, hash);
    const word = this.#load(slot) || this.#newWord(slot, length, hash);
    const used = this.#u32(word + WORD.used);
    const last = this.#load(word + WORD.postings) + (used - 1) * POSTING.size;
    if (used > 0 && this.#u32(last + POSTING.file) === file) {
      this.#setU32(last + POSTING.count, this.#u32(last + POSTING.count) + 1);
    } else {
      this.#addPosting(word, used, file);
    }
    this.#setF64(word + WORD.total, this.#f64(word + WORD.total) + 1);
  }

  #addPosting(word: Pointer, used: number, file: number): void {
    const capacity = this.#u32(word + WORD.capacity);
    let postings = this.#load(word + WORD.postings);
    if (used === capacity) {
      const more = Math.max(FIRST_POSTINGS, capacity * 2);
      postings = this.heap.realloc(postings, more * POSTING.size);
      this.#store(word + WORD.postings, postings);
      this.#setU32(word + WORD.capacity, more);
    }
    this.#setU32(postings + used * POSTING.size + POSTING.file, file);
    this.#setU32(postings + used * POSTING.size + POSTING.count, 1);
    this.#setU32(word + WORD.used, used + 1);
  }

  #newWord(slot: Pointer, length: number, hash: number): Pointer {
    const word = this.heap.malloc(WORD.bytes + length);
    this.#store(word + WORD.postings, 0);
    this.#setF64(word + WORD.total, 0);
    this.#setU32(word + WORD.hash, hash);
    this.#setU32(word + WORD.length, length);
    this.#setU32(word + WORD.used, 0);
    this.#setU32(word + WORD.capacity, 0);
    const at = this.#at(word + WORD.bytes, length);
    for (let i = 0; i < length; i++) this.#bytes[at + i] = this.#word[i];
    this.#store(slot, word);
    const words = this.wordCount + 1;
    this.#setU32(this.home + INDEX.wordCount, words);
    if (words > 0.7 * 2 ** this.#u32(this.home + INDEX.bits)) this.#growSlots();
    return word;
  }

  #growSlots(): void {
    const bits = this.#u32(this.home + INDEX.bits) + 1;
    const grown = this.heap.calloc(2 ** bits, 8);
    const mask = 2 ** bits - 1;
    for (const word of this.#words()) {
      let i = this.#u32(word + WORD.hash) & mask;
      while (this.#load(grown + i * 8) !== 0) i = (i + 1) & mask;
      this.#store(grown + i * 8, word);
    }
    const old = this.#load(this.home + INDEX.slots);
    this.#store(this.home + INDEX.slots, grown);
    this.#setU32(this.home + INDEX.bits, bits);
    this.heap.free(old);
  }

  /** The slot that holds the word in `#word`, or the free one where it belongs. */
  #slotOf(length: number, hash: number): Pointer {
    const slots = this.#load(this.home + INDEX.slots);
    const mask = 2 ** this.#u32(this.home + INDEX.bits) - 1;
    for (let i = hash & mask;; i = (i + 1) & mask) {
      const word = this.#load(slots + i * 8);
      if (word === 0 || this.#holds(word, length, hash)) return slots + i * 8;
    }
  }

  #holds(word: Pointer, length: number, hash: number): boolean {
    if (this.#u32(word + WORD.hash) !== hash) return false;
    if (this.#u32(word + WORD.length) !== length) return false;
    const at = this.#at(word + WORD.bytes, length);
    for (let i = 0; i < length; i++) if (this.#bytes[at + i] !== this.#word[i]) return false;
    return true;
  }

  #words(): Pointer[] {
    const found: Pointer[] = [];
    const slots = this.#load(this.home + INDEX.slots);
    const count = 2 ** this.#u32(this.home + INDEX.bits);
    for (let i = 0; i < count; i++) {
      const word = this.#load(slots + i * 8);
      if (word !== 0) found.push(word);
    }
    return found;
  }

  #compare(a: Pointer, b: Pointer): number {
    const left = this.#u32(a + WORD.length);
    const right = this.#u32(b + WORD.length);
    for (let i = 0; i < left && i < right; i++) {
      const difference = this.#u8(a + WORD.bytes + i) - this.#u8(b + WORD.bytes + i);
      if (difference !== 0) return difference;
    }
    return left - right;
  }

  #entry(word: Pointer): Entry {
    const files: Entry["files"] = [];
    for (let i = 0; i < this.#u32(word + WORD.used); i++) {
      const posting = this.#load(word + WORD.postings) + i * POSTING.size;
      const file = this.#u32(posting + POSTING.file);
      const path = this.#filePath(this.#load(this.#load(this.home + INDEX.files) + file * 8));
      files.push({ path, count: this.#u32(posting + POSTING.count) });
    }
    return {
      word: this.#text(word + WORD.bytes, this.#u32(word + WORD.length)),
      total: this.#f64(word + WORD.total),
      files,
    };
  }

  #filePath(file: Pointer): string {
    return this.#text(file + FILE.bytes, this.#u32(file + FILE.length));
  }

  #text(p: Pointer, length: number): string {
    return new TextDecoder().decode(this.heap.bytes(p, length));
  }

  // Reading and writing by address. A window shows a large part of the heap at once, so that most
  // accesses cost a comparison and a DataView call; the offset must be an integer for Bun's sake.

  #at(p: Pointer, size: number): number {
    if (p < this.#base || p + size > this.#end) this.#look(p, size);
    return (p - this.#base) | 0;
  }

  #look(p: Pointer, size: number): void {
    let { view, base } = this.heap.window(p);
    if (p + size > base + view.byteLength) [view, base] = [this.heap.dataView(p, size), p];
    this.#view = view;
    this.#bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
    this.#base = base;
    this.#end = base + view.byteLength;
  }

  #u8(p: Pointer): number {
    const at = this.#at(p, 1);
    return this.#bytes[at];
  }

  #u32(p: Pointer): number {
    const at = this.#at(p, 4);
    return this.#view.getUint32(at, true);
  }

  #setU32(p: Pointer, value: number): void {
    const at = this.#at(p, 4);
    this.#view.setUint32(at, value, true);
  }

  #f64(p: Pointer): number {
    const at = this.#at(p, 8);
    return this.#view.getFloat64(at, true);
  }

  #setF64(p: Pointer, value: number): void {
    const at = this.#at(p, 8);
    this.#view.setFloat64(at, value, true);
  }

  /** A pointer is a u64 in the heap, as in C, and a number here: two halves. */
  #load(p: Pointer): Pointer {
    const at = this.#at(p, 8);
    return this.#view.getUint32(at, true) + this.#view.getUint32(at + 4, true) * 0x1_0000_0000;
  }

  #store(p: Pointer, q: Pointer): void {
    const at = this.#at(p, 8);
    this.#view.setUint32(at, q >>> 0, true);
    this.#view.setUint32(at + 4, q / 0x1_0000_0000, true);
  }
}
