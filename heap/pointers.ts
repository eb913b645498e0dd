/**
 * Lists of pointers on their way to native code.
 *
 * Invariant: what native code is told to read lies in the list's memory, whatever a prototype, a
 * subclass or a property says that the list is.
 *
 * @module
 */

import { PermError } from "../ffi/mod.ts";
import { refused } from "./options.ts";
import { expectNumber, type Pointer } from "./views.ts";

/** Bytes that every heap may grow to at least. */
export const leastSize = 64 * 1024;

/** Bytes of a list of that many; a block takes no less than the pointer to it. */
export function expectCount(count: number): number {
  if (!Number.isInteger(count) || count < 0) {
    throw refused("count", count, "a whole number that is not negative");
  }
  return count * Float64Array.BYTES_PER_ELEMENT;
}

/** The error for more blocks than a heap can ever hold. */
export function tooMany(count: number, n: number, maxSize: number): PermError {
  return new PermError(
    "OUT_OF_MEMORY",
    `Cannot allocate ${count} blocks of ${n} bytes: the heap may grow to ${maxSize} bytes; open it ` +
      "with a larger maxSize",
  );
}

/** Room for that many; `undefined` where there can be none. */
export function pointerArray(count: number): Float64Array<ArrayBuffer> | undefined {
  try {
    return new Float64Array(count);
  } catch {
    return undefined;
  }
}

/** A typed array's bytes, whatever its class or a property of its own says. */
const trueBytes = Object.getOwnPropertyDescriptor(
  Object.getPrototypeOf(Float64Array.prototype),
  "byteLength",
)!.get!;

/** How many pointers a list holds: by its bytes, since a prototype can make any view a list of them. */
export function pointerCount(list: Float64Array): number {
  try {
    return Math.floor(trueBytes.call(list) / Float64Array.BYTES_PER_ELEMENT);
  } catch {
    throw refused("pointers", list, "an array of pointers");
  }
}

/**
 * The pointers as native code reads them. Memory that is shared with other threads will do, since
 * it reads each but once; asking for the buffer would make JavaScriptCore move what it holds.
 */
export function pointerList(pointers: ArrayLike<Pointer>): Float64Array {
  let isOurKind = false;
  try {
    isOurKind = pointers instanceof Float64Array;
  } catch {
    // A proxy that was revoked is refused below.
    throw refused("pointers", pointers, "an array of pointers");
  }
  if (isOurKind && ArrayBuffer.isView(pointers)) {
    return pointers as ArrayLike<Pointer> as Float64Array;
  }
  if (
    isOurKind || typeof pointers !== "object" || pointers === null ||
    typeof pointers.length !== "number"
  ) {
    throw refused("pointers", pointers, "an array of pointers");
  }
  const list = pointerArray(pointers.length);
  if (!list) throw refused("pointers", pointers, "an array of pointers");
  for (let index = 0; index < list.length; index++) {
    const pointer = pointers[index];
    if (typeof pointer !== "number") expectNumber(`pointer ${index}`, pointer);
    list[index] = pointer;
  }
  return list;
}
