/**
 * Values of several parts, written in one step: first aside, where nobody sees them, then all of them to
 * their place.
 *
 * Invariant: what is refused, and what cannot be read to its end, leaves the place as it was; and what
 * is given may be taken from the very place, for it is read before that is written.
 *
 * @module
 */

import { Pane } from "./pane.ts";
import type { Type } from "./type.ts";

/** Writes a value over zeros that nobody sees yet. */
export type Write = (pane: Pane, at: number) => void;
/** Brings what stands at an offset of another pane to the place, and what stood there back to it. */
export type Exchange = (from: Pane, fromAt: number) => void;

/** Larger ones are made anew each time. */
const spareMax = 4096;
/** Up to so many bytes are copied by words, which is faster than a typed array's `set`. */
const wordwiseMax = 128;

/**
 * Writes a value of that type, or a part of one, aside and then to its place.
 *
 * @param exchange What brings it there, if not all of it is given.
 */
export function writeAside(
  pane: Pane,
  at: number,
  type: Type,
  write: Write,
  exchange?: Exchange,
): void {
  if (type.owns) writeOwner(pane, at, type, write, exchange);
  else writeBytes(pane, at, type.size, write, exchange);
}

/** What owns nothing can be written where there is no heap. */
function writeBytes(
  pane: Pane,
  at: number,
  size: number,
  write: Write,
  exchange: Exchange | undefined,
): void {
  const { spares } = pane.access;
  // Taken out of the list, since values may be read by functions that write others.
  let spare = size <= spareMax ? spares.pop() : undefined;
  if (spare === undefined) {
    const view = new DataView(new ArrayBuffer(Math.max(size, spareMax)));
    spare = new Pane(view, NaN, pane.access, 0);
  } else if (size > wordwiseMax) spare.bytes.fill(0, 0, size);
  else for (let i = 0; i < size; i += 4) spare.view.setInt32(i, 0);
  write(spare, 0);
  if (exchange === undefined) copyBytes(pane, at, spare, 0, size);
  else exchange(spare, 0);
  if (size <= spareMax) spares.push(spare);
}

function writeOwner(
  pane: Pane,
  at: number,
  type: Type,
  write: Write,
  exchange: Exchange | undefined,
): void {
  const { access } = pane;
  const p = access.allocate(type.size);
  const made = access.pane(p, type.size);
  const from = (p - made.base) | 0;
  try {
    write(made, from);
    if (exchange === undefined) exchangeValues(type, pane, at, made, from);
    else exchange(made, from);
  } finally {
    // A program that closes or restores the heap while its values are read has taken the block away.
    if (!made.view.buffer.detached) {
      type.destroy(made, from);
      access.heap.free(p);
    }
  }
}

/** Lets two values change places, or brings one where nothing is owned. */
export function exchangeValues(
  type: Type,
  pane: Pane,
  at: number,
  other: Pane,
  otherAt: number,
): void {
  if (!type.owns) copyBytes(pane, at, other, otherAt, type.size);
  else if (type.exchange !== undefined) type.exchange(pane, at, other, otherAt);
  else {
    const kept = pane.bytes.slice(at, at + type.size);
    copyBytes(pane, at, other, otherAt, type.size);
    other.bytes.set(kept, otherAt);
  }
}

/** Copies bytes; throws when the heap was closed or restored. */
export function copyBytes(to: Pane, at: number, from: Pane, fromAt: number, size: number): void {
  if (size > wordwiseMax || (size & 3) !== 0) {
    to.bytes.set(from.bytes.subarray(fromAt, fromAt + size), at);
    return;
  }
  for (let i = 0; i < size; i += 4) {
    to.view.setInt32((at + i) | 0, from.view.getInt32((fromAt + i) | 0));
  }
}
