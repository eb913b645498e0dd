/**
 * Values of several parts that own memory, written in one step: first aside, where nobody sees them, then
 * all of them to their place. They were read and judged before, so that nothing but a lack of memory can
 * come between.
 *
 * Structs that are bytes alone (of numbers, fixed texts, arrays and structs of such) are even read and judged
 * aside, field by field, and copied to their place in one piece.
 *
 * Invariant: a lack of memory leaves the place as it was. A room is all zeros while nobody uses it, and a
 * stage belongs to the value that is being read.
 *
 * @module
 */

import { Pane } from "./pane.ts";
import { freeText } from "./text.ts";
import type { Type } from "./type.ts";

/** Memory outside the heap for one value of a type, which keeps it; larger ones are made anew. */
export interface Room {
  pane: Pane | undefined;
}

/** A type that is written aside. */
export interface Whole extends Type<unknown, unknown> {
  putNew(pane: Pane, at: number, taken: unknown): void;
  texts(): readonly number[] | null;
}

const keptMax = 4096;
/** Up to so many bytes are made zeros one by one, which is faster than a call. */
const wordwiseMax = 128;

/** Writes what was taken of a value aside and then to its place. */
export function writeAside(
  pane: Pane,
  at: number,
  type: Whole,
  room: Room,
  taken: unknown,
): void {
  const texts = type.texts();
  if (texts === null) {
    writeInHeap(pane, type, (made, from) => {
      type.putNew(made, from, taken);
      type.exchange!(pane, at, made, from);
    });
    return;
  }
  const { size } = type;
  const made = takeRoom(room, pane, size);
  try {
    type.putNew(made, 0, taken);
    for (let i = 0; i < texts.length; i++) freeText(pane, (at + texts[i]) | 0);
  } catch (error) {
    type.destroy(made, 0);
    throw error;
  }
  pane.bytes.set(made.bytes, at);
  giveBack(room, made, size);
}

/** A part of a value. */
export interface Part {
  readonly type: Type;
  /** Bytes from the value's beginning. */
  readonly offset: number;
}

/**
 * The same for some parts of a value.
 *
 * @param write Writes them over zeros: which they are.
 */
export function writeSomeAside(
  pane: Pane,
  at: number,
  type: Whole,
  room: Room,
  write: (pane: Pane, at: number) => readonly Part[],
): void {
  if (type.texts() === null) {
    writeInHeap(pane, type, (made, from) => {
      for (const { type, offset } of write(made, from)) {
        exchangeValues(type, pane, (at + offset) | 0, made, (from + offset) | 0);
      }
    });
    return;
  }
  const { size } = type;
  const made = takeRoom(room, pane, size);
  let parts: readonly Part[];
  try {
    parts = write(made, 0);
    for (const { type, offset } of parts) {
      for (const text of type.texts?.() ?? []) freeText(pane, (at + offset + text) | 0);
    }
  } catch (error) {
    type.destroy(made, 0);
    throw error;
  }
  for (const { type, offset } of parts) {
    pane.bytes.set(made.bytes.subarray(offset, offset + type.size), at + offset);
  }
  giveBack(room, made, size);
}

/** Containers live in a heap only. What is in the block in the end is destroyed with it. */
function writeInHeap(
  { access }: Pane,
  type: Type,
  write: (pane: Pane, at: number) => void,
): void {
  const p = access.allocate(type.size);
  const made = access.pane(p, type.size);
  const from = (p - made.base) | 0;
  try {
    write(made, from);
  } finally {
    type.destroy(made, from);
    access.heap.free(p);
  }
}

/** Lets two values change places. */
export function exchangeValues(
  type: Type,
  pane: Pane,
  at: number,
  other: Pane,
  otherAt: number,
): void {
  if (type.exchange !== undefined) return type.exchange(pane, at, other, otherAt);
  const { size } = type;
  const kept = pane.bytes.slice(at, at + size);
  pane.bytes.set(other.bytes.subarray(otherAt, otherAt + size), at);
  other.bytes.set(kept, otherAt);
}

/** Taken away while it is used, since a part may be of the same type. */
function takeRoom(room: Room, { access }: Pane, size: number): Pane {
  const { pane } = room;
  room.pane = undefined;
  if (pane !== undefined && pane.access === access) return pane;
  return new Pane(new DataView(new ArrayBuffer(size)), NaN, access, 0);
}

function giveBack(room: Room, pane: Pane, size: number): void {
  if (size > keptMax) return;
  if (size > wordwiseMax || (size & 7) !== 0) pane.bytes.fill(0);
  else for (let i = 0; i < size; i += 8) pane.view.setFloat64(i, 0);
  room.pane = pane;
}

/** Structs of up to so many bytes are copied by words. */
export const wordwiseStruct = 256;

/** A struct that is bytes alone, before it is written. */
export class Stage {
  /** Memory outside any heap, where it stands at 0. */
  readonly pane: Pane;
  readonly view: DataView;
  /** The same as words of 4 bytes, where structs of that type are whole words. */
  readonly words: Int32Array | undefined;
  /** Which fields were given, where it is not all of them; the others are zeros. */
  given: number[] | undefined;

  constructor(size: number, align: number) {
    this.pane = new Pane(new DataView(new ArrayBuffer(size)), NaN, null!, 0);
    this.view = this.pane.view;
    this.words = align < 4 || size > wordwiseStruct ? undefined : this.pane.words;
  }
}

/** Copies few bytes, by words. */
export function copyBytes(
  from: DataView,
  start: number,
  to: DataView,
  at: number,
  size: number,
): void {
  let i = 0;
  for (; i + 4 <= size; i += 4) {
    to.setInt32((at + i) | 0, from.getInt32((start + i) | 0, true), true);
  }
  for (; i < size; i++) to.setUint8((at + i) | 0, from.getUint8((start + i) | 0));
}
