/**
 * Text: a long text that changes in place, by the names that JavaScript's String has. Indices count as
 * they do there, in units of UTF-16; memory holds UTF-8, so they cost a scan unless all of it is ASCII.
 *
 * @module
 */

import { describe, native, PermError } from "../ffi/mod.ts";
import type { Heap } from "../heap/heap.ts";
import {
  clampIndex,
  type Container,
  containerType,
  failed,
  passText,
  shapeOf,
  textAddress,
  textKeyMax,
  walkBlocks,
} from "./container.ts";
import { registerKind } from "./kinds.ts";
import { Handle, type ObjectType, refuseReceiver, setKind } from "./handle.ts";
import { readU53, refuseValue, type Type, type Walker, wantedWellFormed } from "./type.ts";

const dataAt = 8;
const bytesAt = 16;
const unitsAt = 40;
const shape = shapeOf("Text", undefined, 1);
/** Units of a string that surely fit the scratch. */
const pieceUnits = Math.floor(textKeyMax / 3);

/** A live Text in a heap. */
export class TextHandle extends Handle implements Container {
  /** Its length as JavaScript counts: units of UTF-16. */
  get length(): number {
    expectText(this);
    return readU53(this.$view, (this.$at + unitsAt) | 0);
  }

  /** Bytes that it takes as UTF-8. */
  get byteLength(): number {
    expectText(this);
    return readU53(this.$view, (this.$at + bytesAt) | 0);
  }

  /** Adds text at the end. @throws {PermError} `INVALID_ARGUMENT`, `OUT_OF_MEMORY`, `READ_ONLY`. */
  append(...values: string[]): this {
    expectText(this);
    for (const value of values) replace(this, this.byteLength, 0, value);
    return this;
  }

  /** Inserts text before an index. @throws {PermError} `INVALID_ARGUMENT` outside, or within a pair. */
  insert(index: number, value: string): this {
    expectText(this);
    replace(this, byteOf(this, index), 0, value);
    return this;
  }

  /** Removes the text from one index to before another. */
  delete(start: number, end: number = this.length): this {
    expectText(this);
    return this.splice(start, end, "");
  }

  /** Replaces the text from one index to before another. */
  splice(start: number, end: number, value: string): this {
    expectText(this);
    const from = byteOf(this, clampIndex(start, this.length));
    const to = byteOf(this, clampIndex(end, this.length));
    replace(this, from, Math.max(0, to - from), value);
    return this;
  }

  /** Replaces all of it. */
  set(value: string): this {
    expectText(this);
    replace(this, 0, this.byteLength, value);
    return this;
  }

  /** The text from one index to before another, as a string. */
  slice(start: number = 0, end: number = Infinity): string {
    expectText(this);
    const { length } = this;
    const from = byteOf(this, clampIndex(start, length));
    return readBytes(this, from, byteOf(this, clampIndex(end, length)));
  }

  /** The unit at an index as a string; negative ones count from the end. */
  at(index: number): string | undefined {
    expectText(this);
    const { length } = this;
    const i = index < 0 ? index + length : index;
    if (!(i >= 0 && i < length && Number.isInteger(index))) return undefined;
    // A pair may stand around it, which cannot be cut in UTF-8.
    const around = readAround(this, i);
    return around;
  }

  /** Where some text stands, from an index on, or -1. */
  indexOf(wanted: string, start: number = 0): number {
    expectText(this);
    return search(this, wanted, clampIndex(start, this.length), false);
  }

  /** Where some text stands last, or -1. */
  lastIndexOf(wanted: string): number {
    expectText(this);
    return search(this, wanted, this.length, true);
  }

  /** Whether some text is part of it. */
  includes(wanted: string): boolean {
    expectText(this);
    return this.indexOf(wanted) >= 0;
  }

  /** Whether it begins with some text. */
  startsWith(wanted: string): boolean {
    expectText(this);
    return this.byteLength >= wanted.length && this.lastIndexWithin(wanted, 0) === 0;
  }

  /** Whether it ends with some text. */
  endsWith(wanted: string): boolean {
    expectText(this);
    const at = this.lastIndexOf(wanted);
    return at >= 0 && at + wanted.length === this.length;
  }

  /** Where some text stands last, at or before an index, or -1. */
  lastIndexWithin(wanted: string, index: number): number {
    expectText(this);
    return search(this, wanted, clampIndex(index, this.length), true);
  }

  /** Replaces the first place where some text stands. @returns Whether there was one. */
  replace(wanted: string, value: string): boolean {
    expectText(this);
    const at = this.indexOf(wanted);
    if (at < 0) return false;
    this.splice(at, at + wanted.length, value);
    return true;
  }

  /** Removes all of it, and gives the memory back. */
  clear(): void {
    expectText(this);
    call(this, native.ph_clear(...place(this)));
  }

  /** All of it as a string. */
  override toString(): string {
    expectText(this);
    return readBytes(this, 0, this.byteLength);
  }

  /** All of it, for `JSON.stringify`. */
  toJSON(): string {
    expectText(this);
    return this.toString();
  }

  /** Its characters, in order; the text as it is now. */
  [Symbol.iterator](): IterableIterator<string> {
    expectText(this);
    return this.toString()[Symbol.iterator]();
  }

  /** What `console.log` shows. */
  [Symbol.for("nodejs.util.inspect.custom")](
    _depth: number,
    options: unknown,
    inspect: (value: unknown, options?: unknown) => string,
  ): string {
    expectText(this);
    return this.$view.buffer.detached
      ? "Text <ended>"
      : `Text ${inspect(this.toString(), options)}`;
  }

  /** Proves what its memory must be. @throws {PermError} `CORRUPT`. @internal */
  $check(): void {
    call(this, native.ph_container_check(...place(this)));
  }

  /** @internal */
  $destroy(): void {
    call(this, native.ph_destroy(...place(this)));
  }

  /** @internal */
  $fill(value: unknown, what: string): void {
    this.set(takeContents(value, what));
  }

  /** @internal */
  $put(taken: unknown): void {
    this.set(taken as string);
  }

  /** @internal */
  $walk(walker: Walker): void {
    walkBlocks(this, shape, walker);
  }
}

setKind(TextHandle.prototype, "Text");

/** What is no Text has other things where a Text has its parts. */
function expectText(text: Handle): void {
  if (text.$kind !== "Text") refuseReceiver(text, "Text");
}

function takeContents(value: unknown, what: string): string {
  const from = value instanceof TextHandle ? value.toString() : value;
  if (typeof from !== "string") {
    throw new PermError(
      "INVALID_ARGUMENT",
      `Cannot store ${describe(value)} in ${what}: give a string`,
    );
  }
  if (!from.isWellFormed()) refuseValue(what, from, wantedWellFormed);
  return from;
}

function place(text: TextHandle): [number, number, number] {
  const pane = text.$pane;
  return [pane.handle, pane.base + text.$at, shape];
}

function call(text: TextHandle, result: number): number {
  if (result < 0) failed(text, result);
  return result;
}

function byteOf(text: TextHandle, index: number): number {
  if (!(Number.isInteger(index) && index >= 0)) {
    throw new PermError(
      "INVALID_ARGUMENT",
      `Cannot use character ${describe(index)} of a text of ${text.length}`,
    );
  }
  return call(text, native.ph_text_convert(...place(text), index, 0));
}

/** Replaces bytes; what does not fit the scratch goes in pieces, at places that move along. */
function replace(text: TextHandle, at: number, removed: number, value: string): void {
  if (typeof value !== "string" || !value.isWellFormed()) {
    refuseValue("a Text", value, "a string without half surrogate pairs");
  }
  if (value.length <= pieceUnits) {
    const length = passText(value, "a Text");
    call(text, native.ph_text_splice(...place(text), at, removed, textAddress(), length));
    return;
  }
  // The pieces first, so that a lack of memory leaves the text as it was.
  let to = at;
  try {
    for (let i = 0; i < value.length;) {
      let end = Math.min(value.length, i + pieceUnits);
      if (end < value.length && isLowSurrogate(value.charCodeAt(end))) end--;
      const length = passText(value.slice(i, end), "a Text");
      call(text, native.ph_text_splice(...place(text), to, 0, textAddress(), length));
      to += length;
      i = end;
    }
  } catch (error) {
    call(text, native.ph_text_splice(...place(text), at, to - at, 0, 0));
    throw error;
  }
  call(text, native.ph_text_splice(...place(text), to, removed, 0, 0));
}

function isLowSurrogate(unit: number): boolean {
  return (unit & 0xfc00) === 0xdc00;
}

function readBytes(text: TextHandle, from: number, to: number): string {
  if (to <= from) return "";
  const p = readU53(text.$view, (text.$at + dataAt) | 0) + from;
  const pane = text.$pane.access.pane(p, to - from);
  const at = (p - pane.base) | 0;
  return pane.text(at, at + to - from);
}

/** The unit at an index, from the few characters around it. */
function readAround(text: TextHandle, index: number): string {
  for (const back of [0, 1]) {
    if (index < back) break;
    let from: number;
    try {
      from = byteOf(text, index - back);
    } catch (error) {
      if (back === 1) throw error;
      continue;
    }
    return readBytes(text, from, Math.min(text.byteLength, from + 4)).charAt(back);
  }
  return "";
}

function search(text: TextHandle, wanted: string, index: number, backward: boolean): number {
  const length = passText(wanted, "a text to find");
  if (length === 0) return index;
  let from: number;
  try {
    from = byteOf(text, index);
  } catch {
    // Between the halves of a pair nothing begins.
    from = byteOf(text, backward ? index - 1 : index + 1);
  }
  const way = backward ? 1 : 0;
  const found = call(text, native.ph_text_find(...place(text), from, way, textAddress(), length));
  if (found === 0) return -1;
  return call(text, native.ph_text_convert(...place(text), found - 1, 1));
}

/** A live Text. */
export type Text = TextHandle;

/** The class, and type, of Texts. */
export interface TextType extends ObjectType<Text, string | Text> {
  /**
   * Makes one in a heap.
   *
   * @throws {PermError} `INVALID_ARGUMENT` for what is no string; `OUT_OF_MEMORY`, `READ_ONLY`.
   */
  new (heap: Heap, value?: string): Text;
}

/**
 * Text that changes in place, for what is long: a class to make it with, and what a struct's field, a
 * container's element or a root may be. For names and words take `text`.
 *
 * @example
 * ```ts
 * import { Heap } from "@perm/heap";
 * import { Text } from "@perm/heap/data";
 *
 * using heap = Heap.open({ size: 1 << 20 });
 * const log = new Text(heap, "begun");
 * log.append(", done");
 * console.log(log.length, String(log)); // 11 "begun, done"
 * ```
 */
export const Text: TextType = containerType(TextHandle.prototype, {
  kind: "Text",
  name: () => "Text",
  size: 48,
  parts: [],
  shape: () => shape,
  take: takeContents,
}) as unknown as TextType;

registerKind("Text", () => Text as Type);
