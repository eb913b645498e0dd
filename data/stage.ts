/**
 * Where structs that are bytes alone (of numbers, fixed texts, arrays and structs of such) stand between
 * being read and being written: their fields are judged and written here one by one, and copied to their
 * place in one piece.
 *
 * Invariant: nobody but the value that is being read has its stage; bytes between fields are zeros, or
 * those of a struct that was copied.
 *
 * @module
 */

import { Pane } from "./pane.ts";

/** Structs of up to so many bytes are copied by words. */
export const wordwiseMax = 256;

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
    this.words = align < 4 || size > wordwiseMax ? undefined : this.pane.words;
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
