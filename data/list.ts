/**
 * List: elements linked both ways, by the names that JavaScript's Array has. An element stays where it is
 * until it is removed, so a handle to it stays good.
 *
 * @module
 */

import { describe, native, PermError } from "../ffi/mod.ts";
import type { Heap } from "../heap/heap.ts";
import {
  changesAt,
  type Container,
  expectIndex,
  paneFor,
  refill,
  Walk,
  walkBlocks,
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
  type ObjectType,
  paneOf,
  refuseReceiver,
  setKind,
} from "./handle.ts";
import type { Access, Pane } from "./pane.ts";
import { copyOf } from "./show.ts";
import { type InputOf, put, readU53, type Type, type ValueOf, type Walker } from "./type.ts";

const lengthAt = 24;

/** A live List in a heap. */
export class ListHandle<T, I> extends SequenceHandle<T> implements Container {
  /** How many elements there are. */
  get length(): number {
    if (this.$kind !== "List") refuseReceiver(this, "List");
    return readU53(this.$view, (this.$at + lengthAt) | 0);
  }

  /** The first element. */
  get first(): T | undefined {
    expectList(this);
    return this.at(0);
  }

  /** The last element. */
  get last(): T | undefined {
    expectList(this);
    return this.at(-1);
  }

  /**
   * The element at an index, counted from the nearer end; negative ones count from the end.
   *
   * @returns `undefined` outside.
   */
  at(index: number): T | undefined {
    expectList(this);
    const { length } = this;
    const i = index < 0 ? index + length : index;
    if (!(i >= 0 && i < length && Number.isInteger(index))) return undefined;
    return readAt(this, find(this, i)) as T;
  }

  /**
   * Writes an element; what it owned is freed.
   *
   * @throws {PermError} `INVALID_ARGUMENT` outside, or for what is no such value.
   */
  set(index: number, value: I): void {
    expectList(this);
    const { type } = this.$of;
    const what = `element ${index}`;
    let p = find(this, expectIndex("List", index, this.length));
    let taken: unknown = value;
    if (type.take !== undefined) {
      if (type.kind !== "ref" && isPlaceOf(value, p, type)) return;
      taken = type.take(value, what, paneOf(this).access);
      // It may have changed the List.
      p = find(this, expectIndex("List", index, this.length));
    }
    onValue(this, p, (pane, at) => put(type, pane, at, taken, what));
  }

  /**
   * Adds elements at the end.
   *
   * @returns The new length.
   * @throws {PermError} `INVALID_ARGUMENT` for a value that cannot be one (those before it stay);
   * `OUT_OF_MEMORY`, `READ_ONLY`.
   */
  push(...values: I[]): number {
    expectList(this);
    for (const value of values) insertBefore(this, 0, takeElement(this, value, elementName));
    return this.length;
  }

  /** Adds elements at the beginning, in the order given. */
  unshift(...values: I[]): number {
    expectList(this);
    const taken = values.map((value) => takeElement(this, value, elementName));
    const before = this.length === 0 ? 0 : find(this, 0);
    for (const each of taken) insertBefore(this, before, each);
    return this.length;
  }

  /** Removes the last element: it is returned, an object as a plain copy, a reference as it is. */
  pop(): unknown {
    expectList(this);
    return this.length === 0 ? undefined : take(this, this.length - 1);
  }

  /** Removes the first element, as `pop` does the last. */
  shift(): unknown {
    expectList(this);
    return this.length === 0 ? undefined : take(this, 0);
  }

  /**
   * Inserts an element before that at an index, or at the end for the length.
   *
   * @throws {PermError} `INVALID_ARGUMENT` outside, or for what is no such value; `OUT_OF_MEMORY`.
   */
  insert(index: number, value: I): void {
    expectList(this);
    expectIndex("List", index, this.length + 1);
    const taken = takeElement(this, value, elementName);
    expectIndex("List", index, this.length + 1);
    insertBefore(this, index === this.length ? 0 : find(this, index), taken);
  }

  /**
   * Removes the element at an index.
   *
   * @returns Whether there was one.
   */
  delete(index: number): boolean {
    expectList(this);
    if (!(Number.isInteger(index) && index >= 0 && index < this.length)) return false;
    removeAt(this, find(this, index));
    return true;
  }

  /**
   * Removes the elements for which a function says yes.
   *
   * @returns How many they were.
   */
  deleteWhere(test: (value: T, index: number) => unknown): number {
    expectList(this);
    const found: number[] = [];
    let index = 0;
    for (const p of new Values(this, false)) {
      if (test(readAt(this, p) as T, index++)) found.push(p);
    }
    for (const p of found) removeAt(this, p);
    return found.length;
  }

  /** Turns the order around. */
  reverse(): this {
    expectList(this);
    call(this, native.ph_list_reverse(...place(this)));
    return this;
  }

  /** Removes all elements, and gives the memory back. */
  clear(): void {
    expectList(this);
    call(this, native.ph_writable(this.$pane.handle));
    destroyValues(this);
    call(this, native.ph_clear(...place(this)));
  }

  /** The elements as a JavaScript array; objects in it are live. */
  toArray(): T[] {
    expectList(this);
    return [...this];
  }

  /** All elements in order. Ends with `STALE` when elements are inserted or removed meanwhile. */
  values(): IterableIterator<T> {
    expectList(this);
    return new Elements<T>(this, false);
  }

  /** All elements, the last one first. */
  reversed(): IterableIterator<T> {
    expectList(this);
    return new Elements<T>(this, true);
  }

  /** All elements in order. */
  override [Symbol.iterator](): IterableIterator<T> {
    expectList(this);
    return new Elements<T>(this, false);
  }

  /** @internal */
  $destroy(): void {
    destroyValues(this);
    call(this, native.ph_destroy(...place(this)));
  }

  /** @internal */
  $fill(value: unknown, what: string): void {
    expectElements(value, what);
    for (const each of value) insertBefore(this, 0, takeElement(this, each, elementName));
  }

  /** @internal */
  $put(taken: unknown): void {
    refill<ListHandle<T, I>>(this, shapeFor(this), this.length === 0, (list) => {
      for (const each of taken as unknown[]) insertBefore(list, 0, each);
    });
  }

  /** @internal */
  $walk(walker: Walker): void {
    const { type } = this.$of;
    walkBlocks(this, shapeFor(this), walker);
    if (type.walk === undefined) return;
    for (const p of new Values(this, false)) {
      onValue(this, p, (pane, at) => type.walk!(pane, at, walker));
    }
  }
}

type AnyList = AnySequence;

setKind(ListHandle.prototype, "List");

/** What is no List has other things where a List has its parts. */
function expectList(list: Handle): void {
  if (list.$kind !== "List") refuseReceiver(list, "List");
}

/** Address of the value at an index, which is there. */
function find(list: AnyList, index: number): number {
  return call(list, native.ph_list_at(...place(list), index));
}

function readAt(list: AnyList, p: number): unknown {
  const { read, size } = list.$of;
  const pane = paneFor(list.$pane, p, size);
  return read!(pane, (p - pane.base) | 0);
}

function onValue(list: AnyList, p: number, action: (pane: Pane, at: number) => void): void {
  const pane = paneFor(list.$pane, p, list.$of.size);
  action(pane, (p - pane.base) | 0);
}

const elementName = "a List's element";

function expectElements(value: unknown, what: string): asserts value is Iterable<unknown> {
  if (typeof value === "object" && value !== null && Symbol.iterator in value) return;
  throw new PermError(
    "INVALID_ARGUMENT",
    `Cannot store ${describe(value)} in ${what}: give an array`,
  );
}

function takeContents(
  type: Type<unknown, unknown>,
  value: unknown,
  what: string,
  access: Access,
): unknown {
  expectElements(value, what);
  return takeElements(type, value, elementName, access);
}

function insertBefore(list: AnyList, before: number, taken: unknown): void {
  const p = call(list, native.ph_list_insert(...place(list), before));
  const changes = changesOf(list);
  try {
    onValue(list, p, (pane, at) => list.$of.writing.putNew(pane, at, taken, elementName));
  } catch (error) {
    // Where a number or text is judged only here, telling of it may have changed the List.
    if (!list.$view.buffer.detached && changesOf(list) === changes) removeAt(list, p);
    throw error;
  }
}

function changesOf(list: AnyList): number {
  return list.$view.getUint32((list.$at + changesAt.list) | 0, true);
}

function removeAt(list: AnyList, p: number): void {
  const { type } = list.$of;
  if (type.owns) {
    call(list, native.ph_writable(list.$pane.handle));
    onValue(list, p, (pane, at) => type.destroy(pane, at));
  }
  call(list, native.ph_list_remove(...place(list), p));
}

function take(list: AnyList, index: number): unknown {
  const p = find(list, index);
  const copy = copyOf(readAt(list, p), list.$of.type);
  removeAt(list, p);
  return copy;
}

function destroyValues(list: AnyList): void {
  const { type } = list.$of;
  if (!type.owns) return;
  for (const p of new Values(list, false)) onValue(list, p, (pane, at) => type.destroy(pane, at));
}

/** Where the values stand. */
class Values extends Walk<number> {
  constructor(list: AnyList, backward: boolean) {
    super(list, shapeFor(list), changesAt.list, backward);
  }

  override next(): IteratorResult<number> {
    const done = this.$step() < 0;
    let value: number | undefined;
    if (!done) {
      value = this.$place();
      this.$next += 1;
    }
    return { done, value } as IteratorResult<number>;
  }
}

class Elements<T> extends Walk<T> {
  readonly $read: (pane: Pane, at: number) => unknown;

  constructor(list: AnyList, backward: boolean) {
    super(list, shapeFor(list), changesAt.list, backward);
    this.$read = list.$of.read!;
  }

  override next(): IteratorResult<T> {
    const at = this.$step();
    return { done: at < 0, value: this.$value(at) } as IteratorResult<T>;
  }

  /** @internal */
  $value(at: number): unknown {
    if (at < 0) return undefined;
    this.$next += 1;
    return this.$read(this.$pane, at);
  }
}

/**
 * A live List.
 *
 * @typeParam T The elements' type.
 */
export type List<T> = ListHandle<ValueOf<T>, InputOf<T>>;

/** What a List is made or assigned from. */
export type ListInput<T> = Iterable<InputOf<T>>;

/** The class, and type, of Lists of such elements. */
export interface ListType<T> extends ObjectType<List<T>, ListInput<T>> {
  /**
   * Makes one in a heap.
   *
   * @throws {PermError} `INVALID_ARGUMENT` for values that cannot be; `OUT_OF_MEMORY`, `READ_ONLY`.
   */
  new (heap: Heap, values?: ListInput<T>): List<T>;
}

const made = new WeakMap<object, unknown>();

/**
 * The type of linked lists: a class to make them with, and what a struct's field, another container or
 * a root may be.
 *
 * @param type The elements' type.
 * @throws {PermError} `INVALID_ARGUMENT` for what is no type.
 *
 * @example
 * ```ts
 * import { Heap } from "@perm/heap";
 * import { List, text } from "@perm/heap/data";
 *
 * using heap = Heap.open({ size: 1 << 20 });
 * const jobs = new (List(text))(heap, ["wash", "dry"]);
 * jobs.push("iron");
 * console.log(jobs.shift()); // "wash"
 * ```
 */
export function List<T>(type: T): ListType<T> {
  return sequenceType("List", ListHandle.prototype, made, type, takeContents) as ListType<T>;
}

registerKind("List", (type: Type) => List(type) as Type);
