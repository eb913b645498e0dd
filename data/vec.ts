/**
 * Vec: elements side by side in heap memory, by the names that JavaScript's Array has.
 *
 * Elements move when the Vec grows, as in C++: a handle to an element (a struct, an inner container) is
 * good until something is inserted or removed. Where handles shall stay, take a List, a map, or a Vec of
 * `ref`s.
 *
 * @module
 */

import { describe, native, PermError } from "../ffi/mod.ts";
import type { Heap } from "../heap/heap.ts";
import {
  changed,
  changesAt,
  clampIndex,
  type Container,
  expectIndex,
  failed,
  paneFor,
  refill,
  walkBlocks,
  wholeNumber,
} from "./container.ts";
import {
  type AnySequence,
  call,
  place,
  SequenceHandle,
  sequenceType,
  shapeFor,
  takeElement,
  takeElements,
} from "./sequence.ts";
import { registerKind } from "./kinds.ts";
import {
  type Handle,
  isPlaceOf,
  isSame,
  type ObjectType,
  paneOf,
  refuseReceiver,
  setKind,
} from "./handle.ts";
import type { Access, Pane } from "./pane.ts";
import { copyOf } from "./show.ts";
import {
  fits,
  type InputOf,
  readU53,
  refuseLeaf,
  refuseValue,
  textLeaf,
  type Type,
  type ValueOf,
  type Walker,
  writeLeaf,
} from "./type.ts";

const dataAt = 8;
const lengthAt = 16;

/** Types that native code sorts, in its order, and the typed arrays that have them side by side. */
const scalars = ["u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "f32", "f64"];
const arrays: Readonly<Record<string, TypedArrayType>> = {
  u8: Uint8Array,
  u16: Uint16Array,
  u32: Uint32Array,
  u64: BigUint64Array,
  i8: Int8Array,
  i16: Int16Array,
  i32: Int32Array,
  i64: BigInt64Array,
  f32: Float32Array,
  f64: Float64Array,
};

// An array's own properties may say anything; what it is, and how long, these tell.
const { prototype: anyArray } = Object.getPrototypeOf(Uint8Array);
const kindOfArray = getterOf(anyArray, Symbol.toStringTag);
const lengthOfArray = getterOf(anyArray, "length");

function getterOf(prototype: object, name: PropertyKey): () => never {
  return Object.getOwnPropertyDescriptor(prototype, name)!.get as () => never;
}

type TypedArray = ArrayLike<number | bigint> & {
  set(from: ArrayLike<number | bigint>, at?: number): void;
  subarray(from: number, to: number): TypedArray;
  slice(): TypedArray;
};
// deno-lint-ignore no-explicit-any
type TypedArrayType = new (buffer: any, at?: any, length?: any) => any;

/** A live Vec in a heap. */
export class VecHandle<T, I> extends SequenceHandle<T> implements Container {
  /** How many elements there are; setting it cuts, or adds elements of zeros. */
  get length(): number {
    if (this.$kind !== "Vec") refuseReceiver(this, "Vec");
    return readU53(this.$view, (this.$at + lengthAt) | 0);
  }

  set length(length: number) {
    expectVec(this);
    const now = this.length;
    if (!Number.isSafeInteger(length) || length < 0) {
      throw new PermError(
        "INVALID_ARGUMENT",
        `Cannot give ${this.$of.name()} the length ${describe(length)}: give a whole number from 0`,
      );
    }
    if (length > now) insert(this, now, length - now);
    else remove(this, length, now - length);
  }

  /**
   * The element at an index; negative ones count from the end.
   *
   * @returns `undefined` outside.
   */
  at(index: number): T | undefined {
    if (this.$kind !== "Vec") refuseReceiver(this, "Vec");
    const { length } = this;
    const i = index < 0 ? index + length : index;
    if (!(i >= 0 && i < length && Number.isInteger(index))) return undefined;
    return read(this, i) as T;
  }

  /**
   * The element at an index.
   *
   * @throws {PermError} `INVALID_ARGUMENT` outside.
   */
  get(index: number): T {
    if (this.$kind !== "Vec") refuseReceiver(this, "Vec");
    return read(this, expectIndex("Vec", index, this.length)) as T;
  }

  /**
   * Writes an element; what it owned is freed.
   *
   * @throws {PermError} `INVALID_ARGUMENT` outside, or for what is no such value.
   */
  set(index: number, value: I): void {
    expectVec(this);
    expectIndex("Vec", index, this.length);
    const { type, leaf, writing } = this.$of;
    if (leaf !== 0 && leaf !== textLeaf) return setLeaf(this, index, leaf, value);
    const what = `element ${index}`;
    let taken: unknown = value;
    if (writing.takes) {
      if (type.kind !== "ref" && isPlaceOf(value, addressOf(this, index), type)) return;
      taken = type.take!(value, what, paneOf(this).access);
      // It may have shortened the Vec.
      expectIndex("Vec", index, this.length);
    }
    onElement(this, index, (pane, at) => writing.put(pane, at, taken, what));
  }

  /**
   * Adds elements at the end.
   *
   * @returns The new length.
   * @throws {PermError} `INVALID_ARGUMENT` for a value that cannot be one (those before it stay);
   * `OUT_OF_MEMORY`, `READ_ONLY`.
   */
  push(...values: I[]): number {
    if (this.$kind !== "Vec") refuseReceiver(this, "Vec");
    for (let i = 0; i < values.length; i++) pushOne(this, values[i]);
    return readU53(this.$view, (this.$at + lengthAt) | 0);
  }

  /** Removes the last element: it is returned, an object as a plain copy, a reference as it is. */
  pop(): unknown {
    expectVec(this);
    const { length } = this;
    if (length === 0) return undefined;
    const value = copyOf(this.at(-1), this.$of.type);
    remove(this, length - 1, 1);
    return value;
  }

  /** Removes the first element, as `pop` does the last; all others move. */
  shift(): unknown {
    expectVec(this);
    if (this.length === 0) return undefined;
    const value = copyOf(this.at(0), this.$of.type);
    remove(this, 0, 1);
    return value;
  }

  /** Adds elements at the beginning; all others move. */
  unshift(...values: I[]): number {
    expectVec(this);
    insertTaken(this, 0, takeValues(this, 0, values));
    return this.length;
  }

  /**
   * Removes and inserts at a place, in one move of what lies behind.
   *
   * @returns What was removed, objects as plain copies, references as they are.
   */
  splice(start: number, count: number = Infinity, ...values: I[]): unknown[] {
    expectVec(this);
    const least = Math.max(wholeNumber(count), 0);
    const taken = takeValues(this, clampIndex(start, this.length), values);
    const { length } = this;
    const from = clampIndex(start, length);
    const removed = Math.min(least, length - from);
    const copies: unknown[] = [];
    for (let i = 0; i < removed; i++) copies.push(copyOf(this.get(from + i), this.$of.type));
    insertTaken(this, from + removed, taken);
    remove(this, from, removed);
    return copies;
  }

  /** Elements from one index to before another as a JavaScript array; objects in it are live. */
  slice(start: number = 0, end: number = Infinity): T[] {
    expectVec(this);
    const { length } = this;
    const to = clampIndex(end, length);
    const out: T[] = [];
    for (let i = clampIndex(start, length); i < to; i++) out.push(read(this, i) as T);
    return out;
  }

  /** Writes a value to elements from one index to before another. */
  fill(value: I, start: number = 0, end: number = Infinity): this {
    expectVec(this);
    const { length } = this;
    const from = clampIndex(start, length);
    const to = clampIndex(end, length);
    if (from >= to) return this;
    const { owns } = this.$of.type;
    const last = owns ? to : from + 1;
    for (let i = from; i < last; i++) {
      const taken = takeElement(this, value, `element ${i}`);
      // It may have shortened the Vec.
      if (i >= this.length) return this;
      write(this, i, taken);
    }
    if (!owns) call(this, native.ph_vec_spread(...place(this), from, Math.min(to, this.length)));
    return this;
  }

  /**
   * Adds many elements at the end: numbers of a typed array in one copy, anything else one by one.
   *
   * @returns The new length.
   */
  pushAll(values: Iterable<I> | ArrayLike<I>): number {
    expectVec(this);
    if (isNumbers(this.$of.type, values)) {
      pushNumbers(this, values);
      return this.length;
    }
    const each = (isSame(this, values) ? this.$copy() : values) as Iterable<I>;
    if (typeof values !== "object" || values === null) {
      refuseValue(this.$of.name(), values, "an array, or what else can be iterated");
    }
    if (typeof each[Symbol.iterator] === "function") {
      for (const value of each) pushOne(this, value);
      return this.length;
    }
    // One by one: no array is made of a length that may be any number.
    const list = values as ArrayLike<I>;
    for (let i = 0; i < list.length; i++) pushOne(this, list[i]);
    return this.length;
  }

  /**
   * A copy of the numbers as a typed array: `Float64Array` for f64, and so on.
   *
   * @throws {PermError} `UNSUPPORTED` for elements that no typed array holds.
   */
  toTypedArray(): ValueTypedArray {
    expectVec(this);
    const { length } = this;
    const { type, name } = this.$of;
    if (arrays[type.kind] === undefined) {
      throw new PermError("UNSUPPORTED", `Cannot make a typed array of ${name()}: use toArray()`);
    }
    const p = length === 0 ? 0 : readU53(this.$view, (this.$at + dataAt) | 0);
    return (p === 0 ? new arrays[type.kind](0) : elements(this, p, length).slice()) as never;
  }

  /** A JavaScript array of the elements; objects in it are live. */
  toArray(): T[] {
    expectVec(this);
    return this.slice();
  }

  /** Makes room for that many elements at once; 0 gives back what is not needed. */
  reserve(count: number): this {
    expectVec(this);
    if (typeof count !== "number") refuseValue("a count of elements", count, "a number");
    call(this, native.ph_vec_reserve(...place(this), count));
    return this;
  }

  /** Turns the order around. */
  reverse(): this {
    expectVec(this);
    call(this, native.ph_vec_reverse(...place(this)));
    return this;
  }

  /**
   * Sorts in place: numbers ascending without `compare` (as typed arrays do, not as text), anything by
   * `compare`. What stood equal keeps its order.
   *
   * @throws {PermError} `INVALID_ARGUMENT` without `compare` for what is neither number nor text.
   */
  sort(compare?: (a: T, b: T) => number): this {
    expectVec(this);
    const { type, name } = this.$of;
    const { length } = this;
    if (compare === undefined) {
      const scalar = scalars.indexOf(type.kind === "u53" ? "u64" : type.kind);
      if (scalar >= 0) {
        call(this, native.ph_vec_sort(...place(this), scalar));
        return this;
      }
      if (type.kind !== "text" && type.kind !== "fixedText" && type.kind !== "bool") {
        throw new PermError(
          "INVALID_ARGUMENT",
          `Cannot sort ${name()} without a function that compares`,
        );
      }
    }
    const values = this.slice();
    const order = Uint32Array.from({ length }, (_, i) => i);
    const less = compare ?? ((a: T, b: T) => a < b ? -1 : a > b ? 1 : 0);
    const changes = changesOf(this);
    order.sort((a, b) => less(values[a], values[b]) || a - b);
    if (changesOf(this) !== changes) {
      throw new PermError("STALE", `Cannot sort ${name()}: it was changed while it was compared`);
    }
    if (length === 0) return this;
    const bytes = new Uint8Array(order.buffer);
    call(this, native.ph_vec_permute(...place(this), bytes, length));
    return this;
  }

  /** The first index of a value that is `===`, or -1. */
  indexOf(value: T, start: number = 0): number {
    expectVec(this);
    const { length } = this;
    for (let i = clampIndex(start, length); i < length; i++) if (read(this, i) === value) return i;
    return -1;
  }

  /** Whether a value is there; NaN is found. */
  includes(value: T): boolean {
    expectVec(this);
    return this.some((each) => Object.is(each, value) || each === value);
  }

  /** The first element for which a function says yes. */
  find(test: (value: T, index: number) => unknown): T | undefined {
    expectVec(this);
    const i = this.findIndex(test);
    return i < 0 ? undefined : this.at(i);
  }

  /** The first index for which a function says yes, or -1. */
  findIndex(test: (value: T, index: number) => unknown): number {
    expectVec(this);
    let index = 0;
    for (const value of new VecIterator<T>(this)) {
      if (test(value, index)) return index;
      index++;
    }
    return -1;
  }

  /** Whether a function says yes to some element. */
  some(test: (value: T, index: number) => unknown): boolean {
    expectVec(this);
    return this.findIndex(test) >= 0;
  }

  /** Whether a function says yes to every element. */
  every(test: (value: T, index: number) => unknown): boolean {
    expectVec(this);
    return this.findIndex((value, index) => !test(value, index)) < 0;
  }

  /** What a function makes of each element, as a JavaScript array. */
  map<R>(make: (value: T, index: number) => R): R[] {
    expectVec(this);
    const out: R[] = [];
    for (const value of new VecIterator<T>(this)) out.push(make(value, out.length));
    return out;
  }

  /** The elements for which a function says yes, as a JavaScript array. */
  filter(test: (value: T, index: number) => unknown): T[] {
    expectVec(this);
    let index = 0;
    const out: T[] = [];
    for (const value of new VecIterator<T>(this)) if (test(value, index++)) out.push(value);
    return out;
  }

  /** Folds the elements into one value, from the first on. */
  reduce<R>(fold: (sum: R, value: T, index: number) => R, start: R): R {
    expectVec(this);
    let sum = start;
    let index = 0;
    for (const value of new VecIterator<T>(this)) sum = fold(sum, value, index++);
    return sum;
  }

  /** Elements as text with something in between. */
  join(between: string = ","): string {
    expectVec(this);
    return this.slice().join(between);
  }

  /** Removes all elements, and gives the memory back. */
  clear(): void {
    expectVec(this);
    expectWritable(this);
    destroyRange(this, 0, this.length);
    call(this, native.ph_clear(...place(this)));
  }

  /** All elements in order. Ends with `STALE` when elements are inserted, removed or moved meanwhile. */
  values(): IterableIterator<T> {
    return new VecIterator<T>(this);
  }

  /** All indices in order. */
  keys(): IterableIterator<number> {
    return new VecPairs<number>(this, (index) => index);
  }

  /** Index and element, in order. */
  entries(): IterableIterator<[number, T]> {
    return new VecPairs<[number, T]>(this, (index, value) => [index, value as T]);
  }

  /** All elements in order. */
  override [Symbol.iterator](): IterableIterator<T> {
    return new VecIterator<T>(this);
  }

  /** @internal */
  $destroy(): void {
    destroyRange(this, 0, this.length);
    call(this, native.ph_destroy(...place(this)));
  }

  /** @internal */
  $fill(value: unknown, what: string): void {
    expectElements(value, what);
    this.pushAll(value as Iterable<I>);
  }

  /** @internal */
  $put(taken: unknown): void {
    refill<VecHandle<T, I>>(this, shapeFor(this), this.length === 0, (vec) => {
      if (isNumbers(vec.$of.type, taken)) pushNumbers(vec, taken);
      else for (const value of taken as unknown[]) pushTaken(vec, value);
    });
  }

  /** @internal */
  $walk(walker: Walker): void {
    const { type } = this.$of;
    walkBlocks(this, shapeFor(this), walker);
    if (type.walk === undefined) return;
    const { length } = this;
    for (let i = 0; i < length; i++) onElement(this, i, (pane, at) => type.walk!(pane, at, walker));
  }
}

/** The typed array that has a Vec's numbers. */
export type ValueTypedArray =
  | Uint8Array
  | Uint16Array
  | Uint32Array
  | BigUint64Array
  | Int8Array
  | Int16Array
  | Int32Array
  | BigInt64Array
  | Float32Array
  | Float64Array;

type AnyVec = AnySequence;

setKind(VecHandle.prototype, "Vec");

/** What is no Vec has other things where a Vec has its parts. */
function expectVec(vec: Handle): void {
  if (vec.$kind !== "Vec") refuseReceiver(vec, "Vec");
}

function changesOf(vec: AnyVec): number {
  return vec.$view.getUint32((vec.$at + changesAt.vec) | 0, true);
}

function expectWritable(vec: AnyVec): void {
  call(vec, native.ph_writable(vec.$pane.handle));
}

/** Inserts zeroed elements: address of the first. */
function insert(vec: AnyVec, at: number, count: number): number {
  const pane = vec.$pane;
  const p = native.ph_vec_insert(pane.handle, pane.base + vec.$at, shapeFor(vec), at, count);
  if (p < 0) failed(vec, p);
  return p;
}

function remove(vec: AnyVec, from: number, count: number): void {
  if (count === 0) return;
  if (vec.$of.type.owns) {
    expectWritable(vec);
    destroyRange(vec, from, from + count);
  }
  call(vec, native.ph_vec_remove(...place(vec), from, count));
}

function pushOne(vec: AnyVec, value: unknown): void {
  const { type, writing } = vec.$of;
  if (writing.takes) pushTaken(vec, type.take!(value, elementName, paneOf(vec).access));
  else pushTaken(vec, value);
}

function pushTaken(vec: AnyVec, taken: unknown): void {
  const p = insert(vec, -1, 1);
  const { writing, size } = vec.$of;
  const pane = paneFor(vec.$pane, p, size);
  const changes = changesOf(vec);
  try {
    writing.putNew(pane, (p - pane.base) | 0, taken, elementName);
  } catch (error) {
    // Where a number or text is judged only here, telling of it may have changed the Vec.
    if (isAt(vec, changes)) remove(vec, vec.length - 1, 1);
    throw error;
  }
}

const elementName = "a Vec's element";

function takeValues(vec: AnyVec, at: number, values: readonly unknown[]): unknown[] {
  return values.map((value, index) => takeElement(vec, value, `element ${at + index}`));
}

function insertTaken(vec: AnyVec, at: number, taken: readonly unknown[]): void {
  if (taken.length === 0) return;
  insert(vec, at, taken.length);
  const changes = changesOf(vec);
  try {
    for (let i = 0; i < taken.length; i++) {
      const index = at + i;
      onElement(vec, index, (pane, place) => {
        vec.$of.writing.putNew(pane, place, taken[i], `element ${index}`);
      });
    }
  } catch (error) {
    if (isAt(vec, changes)) remove(vec, at, taken.length);
    throw error;
  }
}

/** Whether something is a typed array of a type's numbers. */
function isNumbers(type: Type, values: unknown): values is ArrayLike<number> {
  const array = arrays[type.kind];
  return array !== undefined && kindOfArray.call(values) === array.name;
}

function pushNumbers(vec: AnyVec, numbers: ArrayLike<number>): void {
  const length: number = lengthOfArray.call(numbers);
  if (length > 0) elements(vec, insert(vec, vec.length, length), length).set(numbers);
}

function expectElements(value: unknown, what: string): void {
  if (
    typeof value !== "object" || value === null ||
    !(Symbol.iterator in value || "length" in value)
  ) {
    throw new PermError(
      "INVALID_ARGUMENT",
      `Cannot store ${describe(value)} in ${what}: give an array`,
    );
  }
}

function takeContents(
  type: Type<unknown, unknown>,
  value: unknown,
  what: string,
  access: Access,
): unknown {
  if (isNumbers(type, value)) return value;
  expectElements(value, what);
  return takeElements(type, value, elementName, access);
}

/** Whether a Vec is still there, and as it was. */
function isAt(vec: AnyVec, changes: number): boolean {
  return !vec.$view.buffer.detached && changesOf(vec) === changes;
}

function read(vec: AnyVec, index: number): unknown {
  const { $view: view, $at: at, $pane } = vec;
  shapeFor(vec);
  const { read, size } = vec.$of;
  const p = view.getUint32((at + dataAt) | 0, true) +
    view.getUint32((at + dataAt + 4) | 0, true) * 0x100000000 + index * size;
  const pane = paneFor($pane, p, size);
  return read!(pane, (p - pane.base) | 0);
}

function write(vec: AnyVec, index: number, taken: unknown): void {
  onElement(vec, index, (pane, at) => vec.$of.writing.put(pane, at, taken, `element ${index}`));
}

/** Writes a number or truth value: what an error calls it is made for the error. */
function setLeaf(vec: AnyVec, index: number, leaf: number, value: unknown): void {
  if (!fits(leaf, value)) refuseLeaf(leaf, value, `element ${index}`);
  const p = addressOf(vec, index);
  const pane = paneFor(paneOf(vec), p, vec.$of.size);
  writeLeaf(leaf, pane.view, (p - pane.base) | 0, value);
}

function addressOf(vec: AnyVec, index: number): number {
  shapeFor(vec);
  return readU53(vec.$view, (vec.$at + dataAt) | 0) + index * vec.$of.size;
}

function onElement(vec: AnyVec, index: number, action: (pane: Pane, at: number) => void): void {
  shapeFor(vec);
  const { size } = vec.$of;
  const p = readU53(vec.$view, (vec.$at + dataAt) | 0) + index * size;
  const pane = paneFor(paneOf(vec), p, size);
  action(pane, (p - pane.base) | 0);
}

function destroyRange(vec: AnyVec, from: number, to: number): void {
  const { type } = vec.$of;
  if (!type.owns) return;
  for (let i = from; i < to; i++) onElement(vec, i, (pane, at) => type.destroy(pane, at));
}

/** Elements as a typed array over heap memory, for one copy. */
function elements(vec: AnyVec, p: number, count: number): TypedArray {
  const { type, size } = vec.$of;
  const pane = vec.$pane.access.pane(p, count * size);
  return new arrays[type.kind](pane.view.buffer, p - pane.base, count);
}

/**
 * A walk over the elements. Its `next` is short, so that JavaScriptCore puts it into the program's loop:
 * the elements that lie in one pane whole are known by its first offset and their number.
 */
class VecIterator<R> implements IterableIterator<R> {
  readonly $vec: AnyVec;
  readonly $changes: number;
  readonly $size: number;
  readonly $read: (pane: Pane, at: number) => unknown;
  $pane: Pane;
  /** Offset of the next element, and how many follow in this pane. */
  $at = 0;
  $left = 0;
  /** Address of the first element beyond these, and how many there are. */
  $beyond: number;
  $rest: number;

  constructor(vec: AnyVec) {
    expectVec(vec);
    this.$pane = paneOf(vec);
    shapeFor(vec);
    this.$vec = vec;
    this.$changes = changesOf(vec);
    this.$size = vec.$of.size;
    this.$read = vec.$of.read!;
    this.$beyond = readU53(vec.$view, (vec.$at + dataAt) | 0);
    this.$rest = vec.length;
  }

  next(): IteratorResult<R> {
    const done = this.$left === 0 && !this.$more();
    let value: unknown;
    if (!done) {
      const { $vec: vec, $at: at } = this;
      if (vec.$view.getUint32((vec.$at + changesAt.vec) | 0, true) !== this.$changes) {
        throw changed();
      }
      this.$left--;
      this.$at = (at + this.$size) | 0;
      value = this.$read(this.$pane, at);
    }
    return { done, value } as IteratorResult<R>;
  }

  /** Goes on to the next pane; false at the end. */
  $more(): boolean {
    if (this.$rest === 0) return false;
    const { $size: size, $beyond: p } = this;
    const pane = this.$pane = paneFor(this.$pane, p, size);
    this.$at = (p - pane.base) | 0;
    this.$left = Math.min(this.$rest, Math.floor((pane.base + pane.length - p) / size));
    this.$rest -= this.$left;
    this.$beyond = p + this.$left * size;
    return true;
  }

  [Symbol.iterator](): this {
    return this;
  }
}

/** A walk over indices, or indices and elements. */
class VecPairs<R> implements IterableIterator<R> {
  readonly #values: VecIterator<unknown>;
  readonly #make: (index: number, value: unknown) => R;
  #index = 0;

  constructor(vec: AnyVec, make: (index: number, value: unknown) => R) {
    this.#values = new VecIterator(vec);
    this.#make = make;
  }

  next(): IteratorResult<R> {
    const { done, value } = this.#values.next();
    return { done, value: done ? undefined : this.#make(this.#index++, value) } as IteratorResult<
      R
    >;
  }

  [Symbol.iterator](): this {
    return this;
  }
}

/**
 * A live Vec.
 *
 * @typeParam T The elements' type.
 */
export type Vec<T> = VecHandle<ValueOf<T>, InputOf<T>>;

/** What a Vec is made or assigned from. */
export type VecInput<T> = Iterable<InputOf<T>>;

/** The class, and type, of Vecs of such elements. */
export interface VecType<T> extends ObjectType<Vec<T>, VecInput<T>> {
  /**
   * Makes one in a heap.
   *
   * @throws {PermError} `INVALID_ARGUMENT` for values that cannot be; `OUT_OF_MEMORY`, `READ_ONLY`.
   */
  new (heap: Heap, values?: VecInput<T>): Vec<T>;
}

const made = new WeakMap<object, unknown>();

/**
 * The type of growing arrays: a class to make them with, and what a struct's field, another container
 * or a root may be.
 *
 * @param type The elements' type.
 * @throws {PermError} `INVALID_ARGUMENT` for what is no type.
 *
 * @example
 * ```ts
 * import { Heap } from "@perm/heap";
 * import { f64, Vec } from "@perm/heap/data";
 *
 * using heap = Heap.open({ size: 1 << 20 });
 * const numbers = new (Vec(f64))(heap, [3, 1, 2]);
 * numbers.push(4);
 * numbers.sort();
 * console.log(numbers.toTypedArray()); // 1, 2, 3, 4
 * ```
 */
export function Vec<T>(type: T): VecType<T> {
  return sequenceType("Vec", VecHandle.prototype, made, type, takeContents) as VecType<T>;
}

registerKind("Vec", (type: Type) => Vec(type) as Type);
