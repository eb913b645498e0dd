/**
 * References: eight bytes, the address of an object of the same heap, 0 for null. They own nothing.
 *
 * @module
 */

import { PermError } from "../ffi/mod.ts";
import { addressOf, type ObjectType, place, readerOf } from "./handle.ts";
import { registerKind } from "./kinds.ts";
import type { Pointer } from "../heap/views.ts";
import type { Access, Pane } from "./pane.ts";
import { expectTypeOf, readU53, type Type, type ValueOf, type Walker, writeU53 } from "./type.ts";

/**
 * The type of references to a struct or container.
 *
 * @typeParam T The struct or container referred to.
 */
export interface RefType<T> {
  /** Always `"ref"`. */
  readonly kind: "ref";
  /** `ref(Point)`. */
  readonly name: string;
  /** 8. */
  readonly size: 8;
  /** 8. */
  readonly align: 8;
  /** `ref(Point)`. */
  readonly layout: string;
  /** References are no keys. */
  readonly key: null;
  /** They own nothing. */
  readonly owns: false;
  /** The object, or null. */
  get(pane: Pane, at: number): ValueOf<T> | null;
  /** Refers to another object, or to none. */
  set(pane: Pane, at: number, value: ValueOf<T> | null, what?: string): void;
  /** Its address. */
  take(value: ValueOf<T> | null, what: string, access: Access): unknown;
  /** Refers to what was taken. */
  put(pane: Pane, at: number, taken: unknown): void;
  /** Forgets the object. */
  destroy(pane: Pane, at: number): void;
  /** Tells the walker of the object. */
  walk(pane: Pane, at: number, walker: Walker): void;
  /** What it refers to. */
  parts(): readonly Type[];
}

/**
 * A reference to an object of the same heap: reading gives it, or null. In a struct that refers to
 * itself, or to one that is declared later, write it as a getter.
 *
 * @param target A struct or container.
 *
 * @example
 * ```ts
 * import { f64, ref, struct } from "@perm/heap/data";
 *
 * const Node = struct("Node", { value: f64, get next() { return ref(Node); } });
 * ```
 */
export function ref<T>(target: T): RefType<T> {
  const type = expectObject(target);
  const name = `ref(${type.name})`;
  let open: ((pane: Pane, at: number) => object) | undefined;
  let size = 0;
  let mask = 0;
  return Object.freeze(
    {
      kind: "ref",
      name,
      size: 8,
      align: 8,
      layout: name,
      key: null,
      owns: false,
      get(pane: Pane, at: number): ValueOf<T> | null {
        const p = readU53(pane.view, at);
        if (p === 0) return null;
        if (open === undefined) {
          open = readerOf(type, true);
          size = type.size;
          mask = type.align - 1;
        }
        const there = pane.access.pane(p, size);
        const offset = (p - there.base) | 0;
        // Panes begin at multiples of 16.
        if ((offset & mask) !== 0) place(pane.access, p, type);
        return open(there, offset) as ValueOf<T>;
      },
      set(pane: Pane, at: number, value: ValueOf<T> | null, what = name): void {
        writeU53(pane.view, at, value === null ? 0 : addressOf(value, type, pane.access, what));
      },
      take(value: ValueOf<T> | null, what: string, access: Access): Pointer {
        return value === null ? 0 : addressOf(value, type, access, what);
      },
      put(pane: Pane, at: number, taken: unknown): void {
        writeU53(pane.view, at, taken as Pointer);
      },
      destroy(pane: Pane, at: number): void {
        writeU53(pane.view, at, 0);
      },
      walk(pane: Pane, at: number, walker: Walker): void {
        const p = readU53(pane.view, at);
        if (p !== 0) walker.object(p, type);
      },
      parts: () => [type],
    } as const,
  );
}

registerKind("ref", (target: Type) => ref(target) as Type);

/** Refuses what no reference can refer to. */
export function expectObject(target: unknown): ObjectType {
  const type = expectTypeOf("a reference", target);
  if (typeof (type as ObjectType).open === "function") return type as ObjectType;
  throw new PermError(
    "INVALID_ARGUMENT",
    `Cannot refer to ${type.name}: only structs and containers have an address`,
  );
}
