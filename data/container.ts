/**
 * What all containers share: a header in the heap that is read here and changed by native code only,
 * keys on their way across the bridge, and walks.
 *
 * Invariant: whatever a container's header says is checked by native code before it is followed; a
 * walk ends with `STALE` when its container changed.
 *
 * @module
 */

import { arrayBuffer, check, describe, native, nativeError, PermError } from "../ffi/mod.ts";
import type { Heap } from "../heap/heap.ts";
import type { Pointer } from "../heap/views.ts";
import { type Handle, isPlaceOf, type ObjectType, paneOf, place, stale, typeOf } from "./handle.ts";
import { type Maker, makerFor } from "./makers.ts";
import { type Access, accessTo, type Pane } from "./pane.ts";
import { charactersMax } from "./text.ts";
import { expectTypeOf, overflowsF32, refuseValue, type Type, type Walker, wanted } from "./type.ts";

/** Offsets in a header; see docs/containers.md. */
export const changesAt: { readonly map: 12; readonly vec: 32; readonly list: 32 } = {
  map: 12,
  vec: 32,
  list: 32,
};

const kinds = { Vec: 1, List: 2, HashMap: 3, OrderedMap: 4, Text: 5 } as const;
const keyKinds = { number: 0, u64: 1, i64: 2, text: 3 } as const;
const noKey = 15;
/** Bits 8 to 19 of every shape. */
const mark = 0xa5f;

/** Kinds of containers. */
export type ContainerKind = keyof typeof kinds;

/** A header's first word, as native code has it: kind, keys and size of values. */
export function shapeOf(kind: ContainerKind, key: Type | undefined, valueSize: number): number {
  const keyKind = key?.key ? keyKinds[key.key] : noKey;
  return keyKind + kinds[kind] * 16 + mark * 256 + valueSize * 2 ** 20;
}

/** Throws what a native call on a container said with its negative result. */
export function failed(handle: Handle, result: number): never {
  if (handle.$view.buffer.detached) throw stale();
  throw nativeError(result);
}

/** A pane's bytes for a value at an address, most often that of the container itself. */
export function paneFor(pane: Pane, p: Pointer, size: number): Pane {
  return p >= pane.base && p + size <= pane.base + pane.length ? pane : pane.access.pane(p, size);
}

// ------------------------------------------------------------------ keys

/** What a key became for a native call; valid until the next one. */
export const passed: { a: number; b: number } = { a: 0, b: 0 };

/** Bytes of the longest text key. */
export const textKeyMax = 65_536;
const encoder = new TextEncoder();
let scratch: Uint8Array = new Uint8Array(0);
let scratchAddress = 0;
const words = new BigUint64Array(1);
const halves = new Uint32Array(words.buffer);

/** Makes this thread's scratch known; whoever holds a heap has loaded the library. */
function prepare(): void {
  scratchAddress = check(native.ph_scratch());
  scratch = new Uint8Array(arrayBuffer(scratchAddress, textKeyMax));
}

/** Leaves a string's UTF-8 in the scratch: its length. */
export function passText(value: string, what: string): number {
  if (typeof value !== "string") refuseValue(what, value, "a string");
  if (scratchAddress === 0) prepare();
  const { length } = value;
  const bytes = scratch;
  if (length <= charactersMax) {
    let i = 0;
    for (; i < length; i++) {
      const unit = value.charCodeAt(i);
      if (unit >= 0x80) break;
      bytes[i] = unit;
    }
    if (i === length) return length;
  }
  return passLongText(value, what);
}

function passLongText(value: string, what: string): number {
  if (!value.isWellFormed()) refuseValue(what, value, "a string without half surrogate pairs");
  const { read, written } = encoder.encodeInto(value, scratch);
  if (read !== value.length) {
    refuseValue(what, value, `a string of at most ${textKeyMax} bytes of UTF-8`);
  }
  return written;
}

/** Address of the scratch that {@linkcode passText} fills. */
export function textAddress(): Pointer {
  return scratchAddress;
}

interface Range {
  readonly low: number;
  readonly high: number;
}

const integers: Readonly<Record<string, Range>> = {
  u8: { low: 0, high: 0xff },
  u16: { low: 0, high: 0xffff },
  u32: { low: 0, high: 0xffffffff },
  i8: { low: -0x80, high: 0x7f },
  i16: { low: -0x8000, high: 0x7fff },
  i32: { low: -0x80000000, high: 0x7fffffff },
  u53: { low: 0, high: Number.MAX_SAFE_INTEGER },
};

/** How keys of a type cross the bridge and come back. */
export interface Keys {
  readonly type: Type;
  /** 0 for text, 1 for whole numbers, 2 for what takes the long way. */
  readonly path: 0 | 1 | 2;
  readonly low: number;
  readonly high: number;
  /** What an error calls a key. */
  readonly what: string;
  /** Leaves the two numbers in {@linkcode passed}. */
  pass(key: unknown): void;
  /** The key that a walk gave: a number, or the address of what stands in the heap. */
  read(pane: Pane, given: number): unknown;
}

const none: Range = { low: 1, high: 0 };

/** How keys of that type cross the bridge. (In pieces: a program that starts needs one of them.) */
export function keysOf(kind: ContainerKind, type: Type): Keys {
  const what = `${kind === "OrderedMap" ? "an" : "a"} ${kind}'s key`;
  if (type.key === null) {
    throw new PermError(
      "INVALID_ARGUMENT",
      `Cannot use ${type.name} as the type of ${what}: give text, bool or a type of numbers`,
    );
  }
  if (type.key === "text") return textKeys(type, what);
  const ordered = kind === "OrderedMap";
  if (type.key === "u64" || type.key === "i64") return bigKeys(type, what, ordered);
  const range = integers[type.kind];
  return range === undefined ? otherKeys(type, what, ordered) : integerKeys(type, what, range);
}

function textKeys(type: Type, what: string): Keys {
  return {
    type,
    path: 0,
    ...none,
    what,
    pass(key) {
      passed.b = passText(key as string, what);
      passed.a = scratchAddress;
    },
    read: (pane, given) => readAt(type, pane, given),
  };
}

function bigKeys(type: Type, what: string, ordered: boolean): Keys {
  const isSigned = type.key === "i64";
  return {
    type,
    path: 2,
    ...none,
    what,
    pass(key) {
      if (
        typeof key !== "bigint" || (isSigned ? BigInt.asIntN : BigInt.asUintN)(64, key) !== key
      ) {
        refuseValue(what, key, wanted[isSigned ? "i64" : "u64"]);
      }
      words[0] = key;
      passed.a = halves[0];
      passed.b = halves[1];
    },
    // An OrderedMap stores them so that they order as unsigned ones do.
    read: isSigned && ordered
      ? (pane, given) => BigInt.asIntN(64, (readAt(type, pane, given) as bigint) ^ (1n << 63n))
      : (pane, given) => readAt(type, pane, given),
  };
}

function integerKeys(type: Type, what: string, range: Range): Keys {
  return {
    type,
    path: 1,
    low: range.low,
    high: range.high,
    what,
    pass(key) {
      if (
        !(Number.isInteger(key) && (key as number) >= range.low && (key as number) <= range.high)
      ) {
        refuseValue(what, key, wanted[type.kind as keyof typeof wanted]);
      }
      passed.a = key as number;
      passed.b = 0;
    },
    read: (_, given) => given,
  };
}

function otherKeys(type: Type, what: string, ordered: boolean): Keys {
  const pass = type.kind === "bool"
    ? (key: unknown) => {
      if (typeof key !== "boolean") refuseValue(what, key, wanted.bool);
      passed.a = key ? 1 : 0;
    }
    : (key: unknown) => {
      if (typeof key !== "number" || ordered && key !== key) {
        refuseValue(what, key, ordered ? "a number that is not NaN" : wanted.f64);
      }
      if (type.kind === "f32" && overflowsF32(key)) refuseValue(what, key, wanted.f32);
      passed.a = type.kind === "f32" ? Math.fround(key) : key;
    };
  return {
    type,
    path: 2,
    ...none,
    what,
    pass(key) {
      pass(key);
      passed.b = 0;
    },
    read: type.kind === "bool" ? (_, given) => given !== 0 : (_, given) => given,
  };
}

function readAt(type: Type, pane: Pane, p: Pointer): unknown {
  const there = paneFor(pane, p, type.size);
  return type.get(there, (p - there.base) | 0);
}

// ------------------------------------------------------------------ walks

/** Fields of a native walk; elements follow, two numbers each. */
export const walkField = {
  node: 0,
  place: 1,
  endNode: 2,
  endPlace: 3,
  changes: 4,
  left: 5,
  backward: 6,
} as const;
const walkFields = 7;
const walkBatch = 128;
/** What a walk gets its elements in. */
interface WalkBuffer {
  readonly numbers: Float64Array<ArrayBuffer>;
  /** The part of it with a key and an address for each element. */
  readonly pairs: Float64Array;
  /** The part of it with the values' offsets in the walk's pane; −1 for one beyond it and behind the last. */
  readonly offsets: Int32Array;
}
const spareWalks: WalkBuffer[] = [];
/** The offsets of a walk that has ended. */
const noOffsets = new Int32Array([-1]);

function makeWalkBuffer(): WalkBuffer {
  const before = walkFields + 2 * walkBatch;
  const numbers = new Float64Array(before + walkBatch / 2 + 1);
  const offsets = new Int32Array(numbers.buffer, 8 * before);
  return { numbers, pairs: numbers.subarray(walkFields), offsets };
}

/**
 * A walk through a container, in batches; its elements are read by whoever extends it.
 *
 * What runs for each element is cut for JavaScriptCore. Fields are plain ones. Each kind of walk has a
 * `next` of its own, which makes its result in one place: of two the engine would have to make the
 * objects. And no function is longer than the 80 bytes of bytecode up to which the first of its
 * optimising compilers puts functions into a loop; hence so many, and numbers where a name would be
 * an import's, which takes 19.
 */
export abstract class Walk<T> implements IterableIterator<T> {
  /** Null when it has ended. @internal */
  $handle: Handle | null;
  /** @internal */
  readonly $shape: number;
  /** Where values are looked for. @internal */
  $pane: Pane;
  /** Which of these words counts the changes, and what it should be. @internal */
  readonly $words: Int32Array;
  /** @internal */
  readonly $changed: number;
  /** @internal */
  $changes = -1;
  /** @internal */
  readonly $buffer: WalkBuffer;
  /** @internal */
  readonly $pairs: Float64Array;
  /** Of this batch, where the values stand in the pane. @internal */
  $offsets: Int32Array;
  /** The next element of the batch, and the end of these. @internal */
  $next = 0;
  /** @internal */
  $end = 0;
  /** @internal */
  $batch = 8;

  /** @param prepare Places a walk that does not begin at an end. */
  constructor(
    handle: Handle,
    shape: number,
    changesAt: number,
    backward: boolean,
    prepare?: (buffer: Float64Array<ArrayBuffer>) => void,
  ) {
    this.$handle = handle;
    this.$shape = shape;
    this.$pane = paneOf(handle);
    this.$words = this.$pane.words;
    this.$changed = (handle.$at + changesAt) >> 2;
    this.$buffer = spareWalks.pop() ?? makeWalkBuffer();
    this.$offsets = this.$buffer.offsets;
    this.$offsets[0] = -1;
    const { numbers } = this.$buffer;
    this.$pairs = this.$buffer.pairs;
    numbers[walkField.changes] = -1;
    numbers[walkField.backward] = backward ? 1 : 0;
    if (prepare !== undefined) {
      prepare(numbers);
      this.$changes = numbers[walkField.changes] | 0;
    }
  }

  /**
   * Goes to the next element: its offset in the pane, −1 at the end. Whoever takes it counts {@linkcode $next}
   * up. @internal
   */
  $step(): number {
    const at = this.$offsets[this.$next];
    return at >= 0 && this.$isSame() ? at : this.$more();
  }

  /** Whether the container was not changed meanwhile. @internal */
  $isSame(): boolean {
    return this.$words[this.$changed] === this.$changes;
  }

  /** Address of its value. @internal */
  $place(): number {
    return this.$pairs[2 * this.$next + 1];
  }

  /** The next element. */
  abstract next(): IteratorResult<T>;

  /** Ends it early, as `break` does. */
  return(value?: unknown): IteratorResult<T> {
    this.$finish();
    return { done: true, value };
  }

  [Symbol.iterator](): this {
    return this;
  }

  /** The same where it takes more: another batch, another pane, a change. @internal */
  $more(): number {
    const handle = this.$handle;
    if (handle === null) return -1;
    if (this.$next < this.$end) {
      if (!this.$isSame()) throw handle.$view.buffer.detached ? stale() : changed();
      return this.$aim();
    }
    const pane = handle.$pane;
    const at = pane.base + handle.$at;
    const { base, length } = this.$pane;
    const { numbers } = this.$buffer;
    const count = native.ph_walk(pane.handle, at, this.$shape, numbers, this.$batch, base, length);
    if (count < 0) failed(handle, count);
    this.$changes = numbers[walkField.changes] | 0;
    this.$batch = walkBatch;
    this.$next = 0;
    this.$end = count;
    if (count === 0) {
      this.$finish();
      return -1;
    }
    return this.$step();
  }

  /** Looks from another pane at the next element, and at those behind it which it holds. @internal */
  $aim(): number {
    const size = Math.floor(this.$shape / 2 ** 20);
    const pane = this.$pane = this.$pane.access.pane(this.$place(), size);
    const { $offsets: offsets, $pairs: pairs, $next: next, $end: end } = this;
    const last = Math.min(pane.length, 2 ** 31) - size;
    for (let index = next; index < end; index++) {
      const at = pairs[2 * index + 1] - pane.base;
      const isThere = at >= 0 && at <= last;
      offsets[index] = isThere ? at : -1;
      if (!isThere) break;
    }
    return offsets[next];
  }

  /** @internal */
  $finish(): void {
    if (this.$handle !== null && spareWalks.length < 8) spareWalks.push(this.$buffer);
    this.$handle = null;
    this.$offsets = noOffsets;
    this.$next = this.$end = 0;
  }
}

/** What a walk throws whose container is not as it was. */
export function changed(): PermError {
  return new PermError(
    "STALE",
    "Cannot go on iterating: the container was changed meanwhile; collect what shall be changed " +
      "first, or begin again",
  );
}

// ------------------------------------------------------------------ types

/** What a kind of container needs to be a type. */
export interface ContainerParts {
  readonly kind: ContainerKind;
  /** As a program writes it: `HashMap(text, User)`. */
  readonly name: () => string;
  /** Bytes of the header. */
  readonly size: number;
  readonly parts: readonly Type[];
  readonly shape: () => number;
  /** Reads what shall be its contents. */
  readonly take: (value: unknown, what: string, access: Access) => unknown;
}

/** A container's class as native calls and other types need it. */
export interface Container extends Handle {
  /** Ends what elements own, gives the memory back, and leaves zeros. @internal */
  $destroy(): void;
  /** Adds to an empty one what the program gives, whose code may run. @internal */
  $fill(value: unknown, what: string): void;
  /** Writes other contents over it, which were taken. @internal */
  $put(taken: unknown): void;
  /** Removes all elements. */
  clear(): void;
  /** Tells what it owns and its elements. @internal */
  $walk(walker: Walker): void;
}

/**
 * Makes a class a type whose objects stand in a heap. The class is not for calling `new` on; what is
 * returned is.
 */
export function containerType(prototype: Container, of: ContainerParts): ObjectType {
  class Type {
    static readonly kind = of.kind;
    static readonly size = of.size;
    static readonly align = 8;
    static readonly key = null;
    static readonly owns = true;

    constructor(heap: Heap, values?: unknown) {
      const access = accessTo(heap);
      const p = access.allocate(of.size);
      const pane = access.pane(p, of.size);
      const made = Type.open(pane, (p - pane.base) | 0);
      if (values !== undefined) {
        access.filling++;
        try {
          made.$fill(values, of.name());
          paneOf(made);
        } catch (error) {
          if (!made.$view.buffer.detached) {
            made.$destroy();
            heap.free(p);
          }
          throw error;
        } finally {
          access.filling--;
        }
      }
      return made as never;
    }

    static get layout(): string {
      return `${of.name()} ${of.size} bytes`;
    }

    static at(heap: Heap, p: Pointer): Handle {
      const pane = place(accessTo(heap), p, Type as unknown as ObjectType);
      const handle = Type.open(pane, (p - pane.base) | 0);
      // Whether a container of this kind stands there is asked at once.
      const result = native.ph_container_open(pane.handle, p, of.shape());
      if (result < 0) failed(handle, result);
      return handle;
    }

    static get(pane: Pane, at: number): Container {
      return new maker(pane.inner, at) as Container;
    }

    static open(pane: Pane, at: number): Container {
      return new maker(pane.view, at) as Container;
    }

    static set(pane: Pane, at: number, value: unknown, what: string = of.name()): void {
      if (isPlaceOf(value, pane.base + at, Type as unknown as ObjectType)) return;
      Type.put(pane, at, of.take(value, what, pane.access));
    }

    static take(value: unknown, what: string, access: Access): unknown {
      return of.take(value, what, access);
    }

    static put(pane: Pane, at: number, taken: unknown): void {
      Type.get(pane, at).$put(taken);
    }

    static exchange(pane: Pane, at: number, other: Pane, otherAt: number): void {
      exchangeContents(Type.get(pane, at), Type.get(other, otherAt), of.shape());
    }

    static destroy(pane: Pane, at: number): void {
      Type.get(pane, at).$destroy();
    }

    static walk(pane: Pane, at: number, walker: Walker): void {
      Type.get(pane, at).$walk(walker);
    }

    static parts(): readonly Type[] {
      return of.parts;
    }

    static texts(): null {
      return null;
    }
  }
  Object.defineProperty(Type, "name", { get: of.name });
  Object.setPrototypeOf(Type.prototype, prototype);
  const maker: Maker = makerFor(Type.prototype);
  return Type as unknown as ObjectType;
}

/**
 * Gives a container other contents: all of them or, after an error, those that it had.
 *
 * @param isEmpty Whether nothing stands there, which would be lost.
 * @param fill Runs none of the program's code.
 */
export function refill<C extends Container>(
  container: C,
  shape: number,
  isEmpty: boolean,
  fill: (into: C) => void,
): void {
  const { handle, access: { heap } } = paneOf(container);
  const writable = native.ph_writable(handle);
  if (writable < 0) failed(container, writable);
  if (isEmpty) {
    try {
      fill(container);
    } catch (error) {
      container.clear();
      throw error;
    }
    return;
  }
  const made = new (typeOf(container) as unknown as new (heap: Heap) => C)(heap);
  try {
    fill(made);
    exchangeContents(container, made, shape);
  } finally {
    const { ptr } = made;
    made.$destroy();
    heap.free(ptr);
  }
}

/** Gives a container the contents of another, which keeps the old ones or is empty afterwards. */
function exchangeContents(container: Container, made: Container, shape: number): void {
  // An empty header has no count of changes, which walks go by.
  if (made.$view.getUint32(made.$at, true) === 0) return container.clear();
  const { handle } = paneOf(container);
  const result = native.ph_container_swap(handle, container.ptr, shape, made.ptr);
  if (result < 0) failed(container, result);
}

/** Tells a walker the blocks that a container owns itself. */
export function walkBlocks(handle: Handle, shape: number, walker: Walker): void {
  const pane = paneOf(handle);
  const p = pane.base + handle.$at;
  const count = native.ph_container_blocks(pane.handle, p, shape, null, 0);
  if (count < 0) failed(handle, count);
  if (count === 0) return;
  const blocks = new Float64Array(count);
  const found = native.ph_container_blocks(pane.handle, p, shape, blocks, count);
  if (found < 0) failed(handle, found);
  for (const block of blocks) walker.block(block);
}

/** The type that a container is made of; `what` is `a Vec's elements`. */
export function elementType(what: string, type: unknown): Type<unknown, unknown> {
  return expectTypeOf(what, type) as Type<unknown, unknown>;
}

/** A whole number; what becomes a number only when it is asked may change the container on the way. */
export function wholeNumber(value: number): number {
  if (typeof value !== "number") refuseValue("an index", value, "a number");
  return Math.trunc(value) || 0;
}

/** An index as Array's methods take it: negative ones count from the end, others end there. */
export function clampIndex(index: number, length: number): number {
  const i = wholeNumber(index);
  return i < 0 ? Math.max(0, i + length) : Math.min(i, length);
}

/** Refuses an index that is none. */
export function expectIndex(what: string, index: unknown, end: number): number {
  if (Number.isInteger(index) && (index as number) >= 0 && (index as number) < end) {
    return index as number;
  }
  throw new PermError(
    "INVALID_ARGUMENT",
    `Cannot use element ${describe(index)} of a ${what} of ${end}: ` +
      (end === 0 ? "it is empty" : `indices go from 0 to ${end - 1}`),
  );
}
