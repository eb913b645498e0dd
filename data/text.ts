/**
 * Text in a heap: UTF-8, in a slot of 16 bytes.
 *
 *     tag (byte 15)   bytes 0…14
 *     0…15            that many bytes of UTF-8, then zeros
 *     255             u64 address of a block · u32 length in bytes · zeros
 *
 * Invariant: the form follows from the length (text of up to 15 bytes always stands in its slot), so
 * that short texts are equal exactly if their slots are; the block belongs to the slot alone. All
 * zeros are the empty text.
 *
 * @module
 */

import { adapter, describe, PermError } from "../ffi/mod.ts";
import { registerKind } from "./kinds.ts";
import type { Access, Pane } from "./pane.ts";
import {
  readU53,
  refuseValue,
  type Type,
  type Walker,
  wantedText,
  wantedWellFormed,
  writeU53,
} from "./type.ts";

/** Bytes of a slot. */
const textSlotSize = 16;
/** Bytes of the longest text that stands in its slot. */
const inlineTextMax = 15;
const tagAt = 15;
const lengthAt = 8;
/** The tag of a slot whose text stands elsewhere. */
const outsideTag = 255;

/**
 * Text of up to so many characters is written one by one, as long as they are ASCII: 12 of them in 21 ns
 * in Deno and 15 in Bun, against 65 and 21 by `encodeInto`; 48 in 70 and 54, against 89 and 19.
 */
export const charactersMax: number = adapter.runtime === "deno" ? 48 : 18;

/** Up to so many words are copied one by one, which is faster than a typed array's `set`. */
const wordwiseMax = 16;

const encoder = new TextEncoder();

/** Where {@linkcode encodeText} leaves its bytes; replaced by a larger one when needed. */
export let scratch: Uint8Array<ArrayBuffer> = new Uint8Array(4096);
let scratchWords = new DataView(scratch.buffer);

/**
 * Encodes a string into {@linkcode scratch}.
 *
 * @returns Its length in bytes.
 * @throws {PermError} `INVALID_ARGUMENT` for what is no string, or not well-formed UTF-16.
 */
function encodeText(value: string, what: string): number {
  if (typeof value !== "string") refuseValue(what, value, wantedText);
  const { length } = value;
  if (length <= charactersMax) {
    for (let i = 0;; i++) {
      if (i === length) return length;
      const unit = value.charCodeAt(i);
      if (unit >= 0x80) break;
      scratch[i] = unit;
    }
  }
  if (!value.isWellFormed()) refuseValue(what, value, wantedWellFormed);
  if (length * 3 > scratch.length) {
    scratch = new Uint8Array(2 ** Math.ceil(Math.log2(length * 3)));
    scratchWords = new DataView(scratch.buffer);
  }
  return encoder.encodeInto(value, scratch).written;
}

/** Reads UTF-8; bytes that are none read as U+FFFD. */
function decodeText(pane: Pane, at: number, length: number): string {
  if (length <= characterwiseMax) {
    const text = decodeAscii(pane.view, at, length);
    if (text !== undefined) return text;
  }
  return pane.text(at, at + length);
}

// V8 makes short strings fastest of characters, JavaScriptCore of bytes: for 8 characters 25 and 55 ns
// there, 60 and 46 here.
const characterwiseMax = adapter.runtime === "deno" ? 15 : 0;
const { fromCharCode } = String;

/** Up to 15 characters; `undefined` where one is not ASCII. Reads whole words of a slot or block. */
function decodeAscii(view: DataView, at: number, length: number): string | undefined {
  if (length === 0) return "";
  let out = "";
  for (let i = 0;; i += 4) {
    const word = view.getUint32((at + i) | 0, true);
    const left = length - i;
    const a = word & 255;
    const b = (word >>> 8) & 255;
    const c = (word >>> 16) & 255;
    const d = word >>> 24;
    if (left > 4) {
      if ((word & 0x80808080) !== 0) return undefined;
      out += fromCharCode(a, b, c, d);
    } else if (left === 4) {
      return (word & 0x80808080) === 0 ? out + fromCharCode(a, b, c, d) : undefined;
    } else if (left === 3) {
      return (word & 0x808080) === 0 ? out + fromCharCode(a, b, c) : undefined;
    } else if (left === 2) return (word & 0x8080) === 0 ? out + fromCharCode(a, b) : undefined;
    else return (word & 0x80) === 0 ? out + fromCharCode(a) : undefined;
  }
}

/** Reads the text of a slot. */
export const readText: (pane: Pane, at: number) => string = adapter.runtime === "deno"
  ? readAny
  : readWords;

/** JavaScriptCore makes strings of bytes in 50 ns where these are known to be ASCII, else in 70. */
function readWords(pane: Pane, at: number): string {
  const words = pane.words;
  const index = at >> 2;
  const last = words[(index + 3) | 0];
  const length = last >>> 24;
  // What is read of an ended pane is 0 as well, and of that other views tell.
  if (length === 0 || length > inlineTextMax) return readAny(pane, at);
  const all = words[index] | words[(index + 1) | 0] | words[(index + 2) | 0] | last;
  return (all & 0x80808080) === 0 ? pane.ascii(at, (at + length) | 0) : readAny(pane, at);
}

function readAny(pane: Pane, at: number): string {
  const tag = pane.view.getUint8((at + tagAt) | 0);
  if (tag <= inlineTextMax) return decodeText(pane, at, tag);
  if (tag !== outsideTag) throw damaged(pane, at);
  const p = readU53(pane.view, at);
  const length = pane.view.getUint32((at + lengthAt) | 0, true);
  const there = pane.access.pane(p, length);
  return decodeText(there, (p - there.base) | 0, length);
}

/** Whether the text of a slot is that: without decoding, which engines take a while to begin with. */
export function isText(pane: Pane, at: number, value: string): boolean {
  const tag = pane.view.getUint8((at + tagAt) | 0);
  if (tag <= inlineTextMax) {
    for (let i = 0;; i++) {
      if (i === tag || i === value.length) return tag === value.length;
      const unit = value.charCodeAt(i);
      if (unit >= 0x80) break;
      if (unit !== pane.view.getUint8((at + i) | 0)) return false;
    }
  }
  return readText(pane, at) === value;
}

/** Writes text over the valid slot at `at`; what was there is freed, unless it shall be kept. */
export function writeText(
  pane: Pane,
  at: number,
  value: string,
  what: string,
  keep: boolean = false,
): void {
  const length = encodeText(value, what);
  const { view } = pane;
  // First of all, for it throws when the heap was closed or restored.
  const tag = view.getUint8((at + tagAt) | 0);
  if (length <= inlineTextMax) {
    if (tag === outsideTag && !keep) freeText(pane, at);
    for (let i = length; i < textSlotSize; i++) scratch[i] = 0;
    view.setUint32(at, scratchWords.getUint32(0, true), true);
    view.setUint32((at + 4) | 0, scratchWords.getUint32(4, true), true);
    view.setUint32((at + 8) | 0, scratchWords.getUint32(8, true), true);
    view.setUint32((at + 12) | 0, scratchWords.getUint32(12, true) | (length << 24), true);
    return;
  }
  const p = storeBytes(pane.access, length);
  if (tag === outsideTag && !keep) freeText(pane, at);
  writeU53(view, at, p);
  view.setUint32((at + lengthAt) | 0, length, true);
  view.setUint32((at + 12) | 0, outsideTag << 24, true);
}

let slots = new Uint32Array(64);

/**
 * Writes several texts over the valid slots at these offsets, all or none.
 *
 * @param values A string for each; where there is none, that slot stays.
 * @param what What errors call each.
 */
export function writeTexts(
  pane: Pane,
  at: number,
  offsets: readonly number[],
  values: readonly unknown[],
  what: (index: number) => string,
): void {
  const { view } = pane;
  const { length } = offsets;
  if (4 * length > slots.length) slots = new Uint32Array(4 * length);
  let done = 0;
  try {
    for (; done < length; done++) {
      const value = values[done];
      if (value === undefined) continue;
      const place = (at + offsets[done]) | 0;
      for (let i = 0; i < 4; i++) slots[4 * done + i] = view.getUint32((place + 4 * i) | 0, true);
      writeText(pane, place, value as string, what(done), true);
    }
  } catch (error) {
    while (--done >= 0) {
      if (values[done] === undefined) continue;
      const place = (at + offsets[done]) | 0;
      freeText(pane, place);
      for (let i = 0; i < 4; i++) view.setUint32((place + 4 * i) | 0, slots[4 * done + i], true);
    }
    throw error;
  }
  for (let index = 0; index < length; index++) {
    if (values[index] === undefined || slots[4 * index + 3] >>> 24 !== outsideTag) continue;
    pane.access.heap.free(slots[4 * index] + slots[4 * index + 1] * 2 ** 32);
  }
}

/** A new block with the first bytes of {@linkcode scratch}. */
function storeBytes(access: Access, length: number): number {
  const p = access.heap.malloc(length);
  // Blocks are made of whole words.
  const words = (length + 3) >>> 2;
  const there = access.pane(p, 4 * words);
  const at = (p - there.base) | 0;
  if (words > wordwiseMax) there.bytes.set(scratch.subarray(0, length), at);
  else {
    for (let i = 0; i < 4 * words; i += 4) {
      there.view.setUint32((at + i) | 0, scratchWords.getUint32(i, true), true);
    }
  }
  return p;
}

/** Frees what a slot owns; its bytes stay. */
export function freeText(pane: Pane, at: number): void {
  if (pane.view.getUint8((at + tagAt) | 0) !== outsideTag) return;
  pane.access.heap.free(readU53(pane.view, at));
}

function damaged(pane: Pane, at: number): PermError {
  const address = pane.base + at;
  return new PermError(
    "CORRUPT",
    `Cannot read the text at 0x${
      address.toString(16)
    }: its bytes are no text slot; the object was ` +
      "freed, or overwritten",
    { address },
  );
}

/** Text of any length: a string; 16 bytes, and a block of its own beyond 15 bytes of UTF-8. */
export const text: Type<string, string> = Object.freeze({
  kind: "text",
  name: "text",
  size: textSlotSize,
  align: 8,
  layout: "text",
  key: "text" as const,
  owns: true,
  get: readText,
  set(pane: Pane, at: number, value: string, what = "text"): void {
    writeText(pane, at, value, what);
  },
  destroy(pane: Pane, at: number): void {
    freeText(pane, at);
    pane.view.setFloat64(at, 0);
    pane.view.setFloat64((at + 8) | 0, 0);
  },
  walk(pane: Pane, at: number, walker: Walker): void {
    if (pane.view.getUint8((at + tagAt) | 0) === outsideTag) walker.block(readU53(pane.view, at));
  },
  texts: () => [0],
});
registerKind("text", () => text);

/**
 * Text of at most `n` bytes of UTF-8, in place: C's `char[n]`, filled up with zero bytes.
 *
 * @param n Bytes, from 1 to 65536.
 * @throws {PermError} `INVALID_ARGUMENT` for another `n`; when writing, for longer text and for
 * text with a zero character.
 */
export function fixedText(n: number): Type<string, string> {
  if (!(Number.isInteger(n) && n >= 1 && n <= 65536)) {
    refuseSize("fixedText", n, "a whole number of bytes from 1 to 65536");
  }
  const name = `fixedText(${n})`;
  /** Leaves its bytes in the scratch. */
  const check = (value: string, what: string): number => {
    const length = encodeText(value, what);
    if (length > n) refuseValue(what, value, `a string of at most ${n} bytes of UTF-8`);
    if (value.includes("\0")) refuseValue(what, value, "a string without zero characters");
    return length;
  };
  return Object.freeze({
    kind: "fixedText",
    name,
    size: n,
    align: 1,
    layout: name,
    key: null,
    owns: false,
    get(pane: Pane, at: number): string {
      let length = 0;
      while (length < n && pane.view.getUint8((at + length) | 0) !== 0) length++;
      return pane.text(at, at + length);
    },
    take(value: string, what: string): string {
      check(value, what);
      return value;
    },
    set(pane: Pane, at: number, value: string, what = name): void {
      const length = check(value, what);
      const { bytes } = pane;
      bytes.set(scratch.subarray(0, length), at);
      bytes.fill(0, at + length, at + n);
    },
    destroy(pane: Pane, at: number): void {
      pane.bytes.fill(0, at, at + n);
    },
  });
}

registerKind("fixedText", fixedText);

/** Refuses the size that a type was asked to have. */
export function refuseSize(what: string, n: unknown, wanted: string): never {
  throw new PermError(
    "INVALID_ARGUMENT",
    `Cannot make ${what}(${describe(n)}): give ${wanted}`,
  );
}
