/**
 * Zero-copy views of heap memory.
 *
 * Every buffer covers exactly the bytes asked for, since cloning or posting a view copies its whole
 * buffer; only windows, for hot loops, cover more. Buffers are remembered weakly, so that closing
 * the heap detaches those that are still out.
 *
 * Invariant: no buffer reaches outside what `ph_range` allows, and whoever finds a heap closed
 * finds its buffers detached.
 *
 * @module
 */

import { arrayBuffer, describe, native, nativeError, PermError } from "../ffi/mod.ts";

/** An address in a heap, exact as a number; 0 is null. */
export type Pointer = number;

/**
 * Constructor of a typed array: `Float64Array`, `Uint8Array`, `BigInt64Array` and their kin.
 *
 * @typeParam View What it makes.
 */
export interface ViewType<View> {
  /** Bytes an element. */
  readonly BYTES_PER_ELEMENT: number;
  /** Makes a view of a buffer. */
  new (buffer: ArrayBuffer, byteOffset?: number, length?: number): View;
}

/** A stretch of the heap for hot loops: `view.getFloat64((p - base) | 0, true)`. */
export interface Window {
  /** Covers at least 1 GiB from the address asked for, or all up to the heap's end. */
  readonly view: DataView<ArrayBuffer>;
  /** Address of the view's first byte. */
  readonly base: Pointer;
}

let typeNames: ReadonlyMap<unknown, string> | undefined;

/** Made when it is first asked for: JavaScriptCore sets up each of these types at its first mention. */
const namesOfTypes = (): ReadonlyMap<unknown, string> =>
  new Map(
    [
      "Int8Array",
      "Uint8Array",
      "Uint8ClampedArray",
      "Int16Array",
      "Uint16Array",
      "Int32Array",
      "Uint32Array",
      "Float16Array",
      "Float32Array",
      "Float64Array",
      "BigInt64Array",
      "BigUint64Array",
    ].map((name): [unknown, string] => [(globalThis as Record<string, unknown>)[name], name])
      .filter(([type]) => type !== undefined),
  );

/** Name of a typed array's constructor; refuses what is none, subclasses included. */
export function expectType(type: unknown): string {
  const name = (typeNames ??= namesOfTypes()).get(type);
  if (name === undefined) {
    throw new PermError(
      "INVALID_ARGUMENT",
      `Cannot view memory as ${
        describe(type)
      }: give a typed array's constructor, such as Float64Array`,
    );
  }
  return name;
}

/** Bytes of `count` elements; refuses counts that are none. */
export function byteLengthOf(type: { readonly BYTES_PER_ELEMENT: number }, count: number): number {
  const bytes = typeof count === "number" ? count * type.BYTES_PER_ELEMENT : NaN;
  if (!Number.isInteger(count) || count < 0 || !Number.isSafeInteger(bytes)) {
    throw new PermError(
      "INVALID_ARGUMENT",
      `Cannot view ${describe(count)} elements: give a whole number that is not negative`,
    );
  }
  return bytes;
}

/** Buffers over memory of this library, heap or PERM block: they need no copies. */
export const ownBuffers: WeakSet<ArrayBufferLike> = new WeakSet();

/** Windows begin at multiples of this from the heap's start on and are twice as long, so that
 * whatever begins in one's first half lies in it, up to 1 GiB. */
export const windowStride = 2 ** 30;

/** A window and what hot paths ask of it. */
export interface Opening {
  readonly window: Window;
  readonly view: DataView<ArrayBuffer>;
  readonly base: Pointer;
  /** Offset of its last u64; −1 for none at all. */
  readonly lastWord: number;
  /** The heap's capacity when it was made, or Infinity for a heap that cannot grow. */
  readonly capacity: number;
  /** Whether it was given out. */
  shown: boolean;
}

/** A heap as it is now. */
export interface Extent {
  /** The native handle. */
  readonly handle: number;
  /** Its first byte; all of it are `span` from there on. */
  readonly address: Pointer;
  readonly span: number;
  /** What may be viewed: from `data` to before `end`. */
  readonly data: Pointer;
  readonly end: Pointer;
  /** Bytes of that, or Infinity for a heap that cannot grow. */
  readonly capacity: number;
}

const nothing = opening(new ArrayBuffer(0), 0, Infinity);

/** What is out of one heap in one thread. */
export class Views {
  /** The window used last. */
  current: Opening = nothing;

  readonly #openings = new Map<number, Opening>();
  #out: WeakRef<ArrayBuffer>[] = [];
  #compactAt = 1024;

  /** A buffer over `bytes` bytes at `address`, if all of them are heap memory. */
  buffer(handle: number, address: Pointer, bytes: number): ArrayBuffer {
    expectRange(handle, address, bytes);
    return this.#remember(wrap(address, bytes));
  }

  /** Makes the window whose first half holds `address`, and all of the `bytes` there, the current one. */
  select(heap: Extent, address: Pointer, bytes: number): Opening {
    const end = address + Math.max(1, bytes);
    if (!(address >= heap.data && end <= heap.end && Number.isSafeInteger(address))) {
      throw outside(heap, address, end - address);
    }
    return this.#open(heap, address);
  }

  #open(heap: Extent, address: Pointer): Opening {
    const { capacity } = heap;
    const index = Math.floor((address - heap.address) / windowStride);
    const start = heap.address + index * windowStride;
    const base = Math.max(heap.data, start);
    const end = Math.min(heap.end, start + 2 * windowStride);
    let found = this.#openings.get(index);
    if (
      found === undefined || found.base !== base || found.view.byteLength !== end - base ||
      found.capacity !== capacity
    ) {
      if (found && !found.shown) detach(found.view.buffer);
      found = opening(wrap(base, end - base), base, capacity);
      this.#openings.set(index, found);
    }
    return this.current = found;
  }

  /** Remembers that a window was given out. */
  show(opening: Opening): void {
    opening.shown = true;
    this.#remember(opening.view.buffer);
  }

  /** Whether a buffer that was given out still exists, as far as the garbage collector tells. */
  get live(): boolean {
    return this.#out.some((reference) => reference.deref()?.detached === false);
  }

  /** Forgets the windows, since the heap may have moved; those never given out end here. */
  dropWindows(): void {
    for (const { view, shown } of this.#openings.values()) if (!shown) detach(view.buffer);
    this.#openings.clear();
    this.current = nothing;
  }

  /** Detaches every buffer that is out. */
  close(): void {
    this.dropWindows();
    for (const reference of this.#out) {
      const buffer = reference.deref();
      if (buffer) detach(buffer);
    }
    this.#out = [];
  }

  #remember(buffer: ArrayBuffer): ArrayBuffer {
    this.#out.push(new WeakRef(buffer));
    if (this.#out.length >= this.#compactAt) {
      this.#out = this.#out.filter((reference) => reference.deref() !== undefined);
      this.#compactAt = Math.max(1024, 2 * this.#out.length);
    }
    return buffer;
  }
}

function opening(buffer: ArrayBuffer, base: Pointer, capacity: number): Opening {
  const view = new DataView(buffer);
  const window = Object.freeze({ view, base });
  const lastWord = Math.max(-1, buffer.byteLength - 8);
  return { window, view, base, lastWord, capacity, shown: false };
}

function detach(buffer: ArrayBuffer): void {
  if (!buffer.detached) buffer.transfer(0);
}

function expectRange(handle: number, address: Pointer, bytes: number): void {
  expectNumber("pointer", address);
  expectNumber("size", bytes);
  const result = native.ph_range(handle, address, bytes);
  if (result < 0) throw nativeError(result);
}

/** The error for what does not lie in a heap as it is. */
function outside(heap: Extent, address: Pointer, bytes: number): PermError {
  expectRange(heap.handle, address, bytes);
  return new PermError("BAD_POINTER", `Cannot view 0x${address.toString(16)}: the heap changed`, {
    address,
  });
}

/** A buffer over memory that has been checked, marked as the library's own. */
export function wrap(address: Pointer, bytes: number): ArrayBuffer {
  const buffer = arrayBuffer(address, bytes);
  ownBuffers.add(buffer);
  return buffer;
}

/** Refuses what is not a number before FFI would coerce it. */
export function expectNumber(what: string, value: unknown): void {
  if (typeof value === "number") return;
  throw new PermError(
    "INVALID_ARGUMENT",
    `Cannot take ${describe(value)} as ${what}: give a number`,
  );
}

/** The error for an address that is no multiple of the elements' size. */
export function misaligned(type: ViewType<unknown>, p: Pointer): PermError {
  return new PermError(
    "INVALID_ARGUMENT",
    `Cannot view 0x${p.toString(16)} as ${expectType(type)}: the address is misaligned, it must ` +
      `be a multiple of ${type.BYTES_PER_ELEMENT}`,
    { address: p },
  );
}

/** The error for a word that is larger than any address. */
export function notAPointer(p: Pointer): PermError {
  return new PermError(
    "BAD_POINTER",
    `Cannot load the pointer at 0x${p.toString(16)}: what stands there is larger than any address`,
    { address: p },
  );
}
