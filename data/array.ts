/**
 * Arrays of a fixed length, in place: C's `T[n]`.
 *
 * @module
 */

import { describe, PermError } from "../ffi/mod.ts";
import { assignAt, Handle, paneOf, readerOf, refuseReceiver, setKind } from "./handle.ts";
import { registerKind } from "./kinds.ts";
import { type Access, objectSizeMax, type Pane } from "./pane.ts";
import { exchangeValues, type Room, type Whole, writeAside } from "./aside.ts";
import { copyOf, plain, shown } from "./show.ts";
import { refuseSize, writeTexts } from "./text.ts";
import {
  expectTypeOf,
  fits,
  type InputOf,
  leafOf,
  put,
  putNew,
  refuseLeaf,
  refuseValue,
  textLeaf,
  type Type,
  type ValueOf,
  type Walker,
  writeLeaf,
} from "./type.ts";

/**
 * A live array of a fixed length in a heap.
 *
 * @typeParam T Its elements' type.
 */
export class FixedArray<T> extends Handle implements Iterable<ValueOf<T>> {
  /** @internal */
  readonly $length: number;
  readonly #type: Type<ValueOf<T>, InputOf<T>>;
  readonly #size: number;
  readonly #read: (pane: Pane, at: number) => ValueOf<T>;

  /** @internal */
  constructor(
    pane: Pane,
    at: number,
    type: Type,
    size: number,
    read: (pane: Pane, at: number) => unknown,
    length: number,
  ) {
    super(pane, at, true);
    this.#type = type as Type<ValueOf<T>, InputOf<T>>;
    this.#size = size;
    this.#read = read as (pane: Pane, at: number) => ValueOf<T>;
    this.$length = length;
  }

  /** How many elements there are, always. */
  get length(): number {
    if (this.$kind !== "array") refuseReceiver(this, "fixed array");
    return this.$length;
  }

  /**
   * The element at an index; negative ones count from the end.
   *
   * @returns `undefined` outside.
   */
  at(index: number): ValueOf<T> | undefined {
    expectArray(this);
    const i = index < 0 ? index + this.$length : index;
    if (!(i >= 0 && i < this.$length && Number.isInteger(index))) return undefined;
    return this.#read(paneOf(this), (this.$at + i * this.#size) | 0);
  }

  /**
   * The element at an index.
   *
   * @throws {PermError} `INVALID_ARGUMENT` outside.
   */
  get(index: number): ValueOf<T> {
    return this.#read(this.$pane, this.#place(index));
  }

  /**
   * Writes an element.
   *
   * @throws {PermError} `INVALID_ARGUMENT` outside, or for what is no such value.
   */
  set(index: number, value: InputOf<T>): void {
    expectArray(this);
    const place = this.#place(index);
    assignAt(this, (place - this.$at) | 0, this.#type as AnyType, value, `element ${index}`);
  }

  /** Writes the same value to all elements. */
  fill(value: InputOf<T>): this {
    expectArray(this);
    for (let index = 0; index < this.$length; index++) this.set(index, value);
    return this;
  }

  /** A copy as a JavaScript array; objects in it are live. */
  toArray(): ValueOf<T>[] {
    expectArray(this);
    return Array.from({ length: this.$length }, (_, index) => this.get(index));
  }

  /** The elements, for `JSON.stringify`. */
  toJSON(): unknown[] {
    expectArray(this);
    return this.toArray().map((value) => plain(value, this.#type));
  }

  /** @internal */
  $copy(): unknown[] {
    return this.toArray().map((value) => copyOf(value, this.#type));
  }

  /** All elements in order. */
  [Symbol.iterator](): IterableIterator<ValueOf<T>> {
    expectArray(this);
    return new Elements(paneOf(this), this.$at, this.#size, this.$length, this.#read);
  }

  /** What `console.log` shows. */
  [Symbol.for("nodejs.util.inspect.custom")](): unknown {
    expectArray(this);
    if (this.$view.buffer.detached) return "array <ended>";
    return this.toArray().map((value) => shown(value, this.#type));
  }

  /** Offset of an element. A handle that ended needs no check: its pane throws. */
  #place(index: number): number {
    if ((index >>> 0) !== index || index >= this.$length) refuseIndex(index, this.$length);
    return (this.$at + index * this.#size) | 0;
  }
}

setKind(FixedArray.prototype, "array");

function expectArray(array: FixedArray<unknown>): void {
  if (array.$kind !== "array" || array.$length === undefined) refuseReceiver(array, "fixed array");
}

function refuseIndex(index: unknown, length: number): never {
  throw new PermError(
    "INVALID_ARGUMENT",
    `Cannot use element ${describe(index)} of an array of ${length}: indices go from 0 to ${
      length - 1
    }`,
  );
}

/**
 * The walk over an array. Its `next`, as that of all walks, is short enough for JavaScriptCore to put it
 * into the program's loop (reading a private field is four times the bytecode of a plain one), and makes
 * its result in one place, so that no result is made at all.
 */
class Elements<T> implements IterableIterator<T> {
  $at: number;
  $remaining: number;
  readonly $pane: Pane;
  readonly $size: number;
  readonly $get: (pane: Pane, at: number) => T;

  constructor(
    pane: Pane,
    at: number,
    size: number,
    count: number,
    read: (pane: Pane, at: number) => T,
  ) {
    this.$pane = pane;
    this.$at = at;
    this.$size = size;
    this.$remaining = count;
    this.$get = read;
  }

  next(): IteratorResult<T> {
    const done = this.$remaining === 0;
    let value;
    if (!done) {
      this.$remaining--;
      const at = this.$at;
      this.$at = (at + this.$size) | 0;
      value = this.$get(this.$pane, at);
    }
    return { done, value } as IteratorResult<T>;
  }

  [Symbol.iterator](): this {
    return this;
  }
}

type AnyType = Type<unknown, unknown>;

/** Numbers as they stand in an array. */
interface Leaves {
  readonly view: DataView;
  readonly bytes: Uint8Array;
}

/** Texts that shall stand in an array, and what errors call it. */
class Texts {
  readonly values: string[] = [];
  what = "";
}

const keptMax = 65_536;
const keptTextsMax = 64;

function makeLeaves(size: number): Leaves {
  const bytes = new Uint8Array(size);
  return { view: new DataView(bytes.buffer), bytes };
}

/** The type of arrays of a fixed length. */
export type ArrayType<T> = Type<FixedArray<T>, ArrayInput<T>>;

/** What a fixed array is written from. */
export type ArrayInput<T> = FixedArray<T> | ArrayLike<InputOf<T>>;

/**
 * An array of `n` values in place. Reading gives a live {@linkcode FixedArray}; writing takes any
 * array of exactly `n` values.
 *
 * @param element The elements' type.
 * @param n Elements, at least 1.
 * @throws {PermError} `INVALID_ARGUMENT` for what is no type, and for sizes beyond 1 GiB.
 *
 * @example
 * ```ts
 * import { array, f64, struct } from "@perm/heap/data";
 *
 * const Matrix = struct("Matrix", { cells: array(f64, 16) });
 * ```
 */
export function array<T>(element: T, n: number): ArrayType<T> {
  const type = expectTypeOf("an array's elements", element) as Type<unknown, unknown>;
  if (!(Number.isInteger(n) && n >= 1)) {
    refuseSize(`array of ${type.name}, `, n, "a whole number of elements from 1 on");
  }
  const each = (at: number, action: (at: number, index: number) => void) => {
    const { size } = type;
    for (let index = 0; index < n; index++) action((at + index * size) | 0, index);
  };
  let read: ((pane: Pane, at: number) => unknown) | undefined;
  let step = 0;
  let texts: readonly number[] | null | undefined;
  const room: Room = { pane: undefined };
  /** What numbers are written into one by one and then copied from; taken away while it is used. */
  let spare: Leaves | undefined;
  let spareTexts: Texts | undefined;
  let slots: readonly number[] | undefined;
  function takeLeaves(leaf: number, values: ArrayLike<unknown>, what: string): Leaves {
    const { size } = type;
    const leaves = spare ?? makeLeaves(n * size);
    spare = undefined;
    const { view } = leaves;
    for (let index = 0; index < n; index++) {
      const value = values[index];
      if (!fits(leaf, value)) refuseLeaf(leaf, value, `${what}[${index}]`);
      writeLeaf(leaf, view, index * size, value);
    }
    return leaves;
  }
  /** That texts are well-formed writing them tells, which no code of the program's comes between. */
  function takeTexts(values: ArrayLike<unknown>, what: string): Texts {
    const taken = spareTexts ?? new Texts();
    spareTexts = undefined;
    for (let index = 0; index < n; index++) {
      const value = values[index];
      if (typeof value !== "string") refuseLeaf(textLeaf, value, `${what}[${index}]`);
      taken.values[index] = value;
    }
    taken.what = what;
    return taken;
  }
  function putTexts(pane: Pane, at: number, taken: Texts): void {
    slots ??= Array.from({ length: n }, (_, index) => index * type.size);
    writeTexts(pane, at, slots, taken.values, (index) => `${taken.what}[${index}]`);
    if (n <= keptTextsMax) spareTexts = taken;
  }
  function putLeaves(pane: Pane, at: number, taken: Leaves): void {
    pane.bytes.set(taken.bytes, at);
    if (taken.bytes.length <= keptMax) spare = taken;
  }
  // What follows from the elements waits, for a struct may refer to what is declared later.
  return Object.freeze({
    kind: "array",
    get name() {
      return `array(${type.name}, ${n})`;
    },
    get size() {
      const size = n * type.size;
      if (size <= objectSizeMax) return size;
      return refuseSize(`array of ${type.name}, `, n, `at most ${objectSizeMax} bytes of elements`);
    },
    get align() {
      return type.align;
    },
    get layout() {
      return `array(${type.name}, ${n})`;
    },
    key: null,
    get owns() {
      return type.owns;
    },
    get(pane: Pane, at: number): FixedArray<T> {
      if (read === undefined) {
        read = readerOf(type);
        step = type.size;
      }
      return new FixedArray<T>(pane, at, type, step, read, n);
    },
    set(pane: Pane, at: number, value: ArrayInput<T>, what?: string): void {
      this.put!(pane, at, this.take!(value, what ?? this.name, pane.access));
    },
    take(value: ArrayInput<T>, what: string, access: Access): unknown {
      const values: ArrayLike<unknown> = value instanceof FixedArray ? value.toArray() : value;
      if (typeof values !== "object" || values === null || values.length !== n) {
        refuseValue(what, value, `an array of ${n} values`);
      }
      const leaf = leafOf(type);
      if (leaf === textLeaf) return takeTexts(values, what);
      if (leaf !== 0) return takeLeaves(leaf, values, what);
      const taken: unknown[] = [];
      for (let index = 0; index < n; index++) {
        taken.push(type.take!(values[index], `${what}[${index}]`, access));
      }
      return taken;
    },
    put(pane: Pane, at: number, taken: unknown): void {
      if (taken instanceof Texts) putTexts(pane, at, taken);
      else if (!Array.isArray(taken)) putLeaves(pane, at, taken as Leaves);
      else if (type.owns) writeAside(pane, at, this as unknown as Whole, room, taken);
      else each(at, (place, index) => put(type, pane, place, taken[index], ""));
    },
    putNew(pane: Pane, at: number, taken: unknown): void {
      if (taken instanceof Texts) putTexts(pane, at, taken);
      else if (!Array.isArray(taken)) putLeaves(pane, at, taken as Leaves);
      else each(at, (place, index) => putNew(type, pane, place, taken[index], ""));
    },
    exchange(pane: Pane, at: number, other: Pane, otherAt: number): void {
      each(at, (place) => {
        exchangeValues(type, pane, place, other, (place - at + otherAt) | 0);
      });
    },
    destroy(pane: Pane, at: number): void {
      each(at, (place) => type.destroy(pane, place));
    },
    walk(pane: Pane, at: number, walker: Walker): void {
      each(at, (place) => type.walk?.(pane, place, walker));
    },
    parts: () => [type],
    texts(): readonly number[] | null {
      if (texts !== undefined) return texts;
      const places = type.texts === undefined ? [] : type.texts();
      if (places === null || places.length === 0) return texts = places;
      return texts = Array.from({ length: n }, (_, index) => index * type.size)
        .flatMap((place) => places.map((at) => place + at));
    },
  });
}

registerKind("array", array);
