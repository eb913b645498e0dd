/**
 * What Vec and List share: elements of one type in an order, shown and walked alike.
 *
 * @module
 */

import { native } from "../ffi/mod.ts";
import { ColumnsHandle, type ColumnSource } from "./columns.ts";
import { type ContainerKind, containerType, elementType, failed, shapeOf } from "./container.ts";
import type { Container } from "./container.ts";
import { type Handle, paneOf, readerOf, refuseReceiver } from "./handle.ts";
import type { Access, Pane } from "./pane.ts";
import { copyOf, plain, shown } from "./show.ts";
import { leafOf, type Type, type Writing, writingOf } from "./type.ts";

/** Bytes of a header. */
const headerSize = 40;

/** What a sequence's class knows of its elements. */
export interface SequenceParts {
  readonly kind: ContainerKind;
  readonly name: () => string;
  readonly type: Type<unknown, unknown>;
  readonly writing: Writing;
  /** What {@linkcode leafOf} says of the elements. */
  readonly leaf: number;
  /** The header's first word, and bytes of an element; 0 until they are first needed. */
  shape: number;
  size: number;
  /** What reads an element; known with the size. */
  read?: (pane: Pane, at: number) => unknown;
}

/** A live sequence in a heap. */
export abstract class SequenceHandle<T> extends ColumnsHandle<T> implements Iterable<T> {
  /**
   * Set on each class's prototype.
   *
   * @ignore
   */
  declare readonly $of: SequenceParts;

  /** All elements in order. */
  abstract [Symbol.iterator](): IterableIterator<T>;

  /** Calls a function with each element and its index. */
  forEach(action: (value: T, index: number) => void): void {
    expectSequence(this);
    let index = 0;
    for (const value of this) action(value, index++);
  }

  /** The elements, for `JSON.stringify`. */
  toJSON(): unknown[] {
    expectSequence(this);
    return Array.from(this, (value) => plain(value, this.$of.type));
  }

  /** @ignore */
  $columnSource(): ColumnSource {
    const sequence = this as unknown as AnySequence;
    paneOf(sequence);
    const { type, name } = sequence.$of;
    return {
      handle: sequence,
      type,
      shape: shapeFor(sequence),
      name: name(),
      length: sequence.length,
    };
  }

  /** @internal */
  $copy(): unknown[] {
    return Array.from(this, (value) => copyOf(value, this.$of.type));
  }

  /** What `console.log` shows. */
  [Symbol.for("nodejs.util.inspect.custom")](
    depth: number,
    options: object,
    inspect: (value: unknown, options?: unknown) => string,
  ): string {
    expectSequence(this);
    if (this.$view.buffer.detached) return `${this.$of.name()} <ended>`;
    if (depth < 0) return `[${this.$of.name()}]`;
    const values = Array.from(this, (value) => shown(value, this.$of.type));
    return `${this.$of.name()} ${inspect(values, { ...options, depth })}`;
  }

  /** Proves what its memory must be. @throws {PermError} `CORRUPT`. @internal */
  $check(): void {
    call(this, native.ph_container_check(...place(this)));
  }
}

function expectSequence(sequence: Handle): void {
  const { $kind: kind } = sequence;
  if (kind !== "Vec" && kind !== "List") refuseReceiver(sequence, "Vec or List");
}

/** A sequence, whatever its elements. */
export type AnySequence = Handle & { readonly $of: SequenceParts; readonly length: number };

/** Its shape; from then on its class knows the size of elements as well. */
export function shapeFor(sequence: Handle & { readonly $of: SequenceParts }): number {
  const of = sequence.$of;
  if (of.shape === 0) {
    of.size = of.type.size;
    of.read = readerOf(of.type);
    of.shape = shapeOf(of.kind, undefined, of.size);
  }
  return of.shape;
}

/** The first three arguments of native calls. */
export function place(
  sequence: Handle & { readonly $of: SequenceParts },
): [number, number, number] {
  const pane = sequence.$pane;
  return [pane.handle, pane.base + sequence.$at, shapeFor(sequence)];
}

/** Elements that were taken: as they are stored, or numbers side by side. */
export type TakenElements = readonly unknown[] | ArrayLike<number | bigint>;

/** An element that shall be written, once whatever code of the program's runs has run. */
export function takeElement(sequence: AnySequence, value: unknown, what: string): unknown {
  const { type } = sequence.$of;
  return type.take === undefined ? value : type.take(value, what, paneOf(sequence).access);
}

/** Reads the elements of what a sequence shall hold. */
export function takeElements(
  type: Type<unknown, unknown>,
  given: unknown,
  element: string,
  access: Access,
): unknown[] {
  const taken: unknown[] = [];
  const take = (value: unknown) => {
    taken.push(type.take === undefined ? value : type.take(value, element, access));
  };
  const values = given as Iterable<unknown> & ArrayLike<unknown>;
  if (typeof values[Symbol.iterator] === "function") { for (const value of values) take(value); }
  else for (let i = 0; i < values.length; i++) take(values[i]);
  return taken;
}

/** Throws what a native call said with a negative result. */
export function call(sequence: Handle, result: number): number {
  if (result < 0) failed(sequence, result);
  return result;
}

/** The class of sequences of that kind and type, made once, whose handles inherit from `base`. */
export function sequenceType(
  kind: ContainerKind,
  base: object,
  made: WeakMap<object, unknown>,
  type: unknown,
  take: (type: Type<unknown, unknown>, value: unknown, what: string, access: Access) => unknown,
): unknown {
  const element = elementType(`a ${kind}'s elements`, type);
  let found = made.get(element);
  if (found === undefined) {
    const name = () => `${kind}(${element.name})`;
    const writing = writingOf(element);
    const leaf = leafOf(element);
    const $of: SequenceParts = { kind, name, type: element, writing, leaf, shape: 0, size: 0 };
    const prototype: Container = Object.create(base, { $of: { value: $of } });
    const shape = () => shapeOf(kind, undefined, element.size);
    found = containerType(prototype, {
      ...{ kind, name, size: headerSize, parts: [element], shape },
      take: (value, what, access) => take(element, value, what, access),
    });
    made.set(element, found);
  }
  return found;
}
