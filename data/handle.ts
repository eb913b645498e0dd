/**
 * What structs, fixed arrays and containers are in JavaScript: a place in a heap.
 *
 * Invariant: a handle shows the bytes at its place for as long as its pane is attached; closing and
 * restoring the heap end it, and so does `destroy` for the handle that it was given.
 *
 * @module
 */

import { describe, PermError } from "../ffi/mod.ts";
import type { Heap } from "../heap/heap.ts";
import type { Pointer } from "../heap/views.ts";
import { Access, accessTo, Pane, type PaneView } from "./pane.ts";
import { put, type Type } from "./type.ts";

/** A live object in a heap. */
export class Handle {
  /** The pane's view, or `inner` for what stands in another object. @internal */
  $view: PaneView;
  /** Offset of the first byte in it. @internal */
  $at: number;
  /** Of what kind of container it is; on the prototype, so that engines know it. @internal */
  declare readonly $kind: string | undefined;

  /** @internal */
  constructor(pane: Pane, at: number, inner: boolean = false) {
    this.$view = inner ? pane.inner : pane.view;
    this.$at = at;
  }

  /** Where it lies. @internal */
  get $pane(): Pane {
    return this.$view.$pane;
  }

  /**
   * Its address in the heap.
   *
   * @throws {PermError} `STALE` when it was destroyed, or the heap closed or restored.
   */
  get ptr(): Pointer {
    if (this.$view.buffer.detached) throw stale();
    return this.$pane.base + this.$at;
  }
}

/**
 * A type whose values are objects: what `ref` may refer to, and a root may be. It is a class, whose
 * `get` gives handles of what stands in another object, and whose `open` of what stands alone.
 */
export interface ObjectType<out T extends object = object, in I = never> extends Type<T, I> {
  /**
   * The object at an address.
   *
   * @throws {PermError} `BAD_POINTER` outside the heap or misaligned.
   */
  at(heap: Heap, p: Pointer): T;
  /** The object that stands alone at an offset of a pane. */
  open(pane: Pane, at: number): T;
  /** Objects are no keys. */
  readonly key: null;
  /** What `open` (for `alone`) or `get` comes down to, for loops. */
  reader?(alone: boolean): (pane: Pane, at: number) => T;
}

/** Makes every further use of a handle throw. */
export function endHandle(handle: Handle): void {
  handle.$view = Pane.ended.view;
}

/** The type of an object: its class. */
export function typeOf(handle: Handle): ObjectType {
  return handle.constructor as unknown as ObjectType;
}

/** A handle that shows nothing any more. */
export function stale(): PermError {
  return new PermError(
    "STALE",
    "Cannot use this object any more: it was destroyed, or the heap was closed or restored; take it " +
      "from its root again",
  );
}

/** For methods and accessors, which may be called on anything. */
export function refuseReceiver(value: unknown, kind: string): never {
  throw new PermError(
    "INVALID_ARGUMENT",
    `Cannot use ${describe(value)} as a ${kind}: its methods are for objects of that kind`,
  );
}

/** Makes the objects of a class known as ones of a kind. */
export function setKind(prototype: Handle, kind: string): void {
  Object.defineProperty(prototype, "$kind", { value: kind });
}

/** The pane of a handle that still shows its object. */
export function paneOf(handle: Handle): Pane {
  if (handle.$view.buffer.detached) throw stale();
  return handle.$pane;
}

/** Whether a value is a handle of the very object, which many handles may have. */
export function isSame(handle: Handle, value: unknown): boolean {
  return value instanceof Handle && value.ptr === handle.ptr;
}

/** The same of what stands at an address: it is left alone when it is written over itself. */
export function isPlaceOf(value: unknown, p: Pointer, type: Type): boolean {
  return typeof value === "object" && value instanceof Handle && value.ptr === p &&
    isKindOf(typeOf(value), type);
}

/**
 * Writes a value over the one that stands at an offset of an object. The object is asked for its place
 * once the value was read, which may have ended it.
 */
export function assignAt(
  handle: Handle,
  offset: number,
  type: Type<unknown, unknown>,
  value: unknown,
  what: string,
): void {
  let taken = value;
  if (type.take !== undefined) {
    const pane = paneOf(handle);
    if (type.kind !== "ref" && isPlaceOf(value, pane.base + handle.$at + offset, type)) return;
    taken = type.take(value, what, pane.access);
  }
  put(type, paneOf(handle), (handle.$at + offset) | 0, taken, what);
}

/** The pane of an object's address, which must lie in the heap whole and be aligned. */
export function place(access: Access, p: Pointer, type: Type): Pane {
  const pane = access.pane(p, type.size);
  if (p % type.align !== 0) {
    throw new PermError(
      "BAD_POINTER",
      `Cannot take 0x${p.toString(16)} as ${type.name}: its address is a multiple of ${type.align}`,
      { address: p },
    );
  }
  return pane;
}

/**
 * The address of an object that shall be referred to from that heap.
 *
 * @throws {PermError} `INVALID_ARGUMENT` for what is no such object, or lies in another heap; `STALE`.
 */
export function addressOf(value: unknown, target: Type, from: Access, what: string): Pointer {
  if (!(value instanceof Handle)) {
    throw refusedRef(what, describe(value), `${target.name} or null`);
  }
  const type = typeOf(value);
  if (!isKindOf(type, target)) {
    throw refusedRef(what, `an object of type ${type.name}`, `${target.name} or null`);
  }
  const { access } = paneOf(value);
  if (access !== from && !from.owns(value.ptr)) {
    throw refusedRef(what, `a ${target.name} of another heap`, "one of the same heap");
  }
  return value.ptr;
}

/** Whether a type is the other, a subclass of it, or a container made of the same types. */
export function isKindOf(type: Type, other: Type): boolean {
  if (type === other || Object.prototype.isPrototypeOf.call(other, type)) return true;
  const parts = type.parts?.() ?? [];
  const others = other.parts?.() ?? [];
  return type.kind === other.kind && type.kind !== "struct" && type.layout === other.layout &&
    parts.length === others.length && parts.every((part, index) => isKindOf(part, others[index]));
}

function refusedRef(what: string, value: string, wanted: string): PermError {
  return new PermError("INVALID_ARGUMENT", `Cannot store ${value} in ${what}: give ${wanted}`);
}

export { Access, accessTo, Pane };

/** What reads values of a type in a loop, without looking at the type again. */
export function readerOf<T>(type: Type<T>, alone = false): (pane: Pane, at: number) => T {
  const object = type as unknown as ObjectType;
  if (typeof object.reader === "function") {
    return object.reader(alone) as unknown as (pane: Pane, at: number) => T;
  }
  if (alone) return (pane, at) => object.open(pane, at) as T;
  return (pane, at) => type.get(pane, at);
}
