/**
 * The PERM block: library memory for all that a program declares PERM, as in C.
 *
 * Invariant: a declared name keeps its memory for the life of the process, whatever heap is open.
 *
 * @module
 */

import { check, describe, load, native, PermError } from "../ffi/mod.ts";
import { blockName, layoutHash } from "./blocks.ts";
import { byteLengthOf, expectType, type Pointer, type ViewType, wrap } from "./views.ts";

/**
 * What to declare: for each name a typed array's constructor and a count of elements.
 *
 * @typeParam Views The typed arrays by name.
 */
export type Declarations<Views> = {
  readonly [Name in keyof Views]: readonly [ViewType<Views[Name]>, number];
};

/** The PERM block of this process. */
export interface PermBlock {
  /**
   * Declares persistent globals and gives views of them, zeroed. They lie in library memory: valid
   * before `mopen` and after `mclose`. `perm(PERM.start, PERM.size)` makes them persistent, each
   * under a name of its own, `PERM.<name>`, so that their order may change. A name declared again
   * with the same type and count gives the same memory.
   *
   * @throws {PermError} `EXISTS` for a name declared with another type or count;
   * `INVALID_ARGUMENT`, `OUT_OF_MEMORY`.
   *
   * @example PERM's own example
   * ```ts
   * import { mclose, mopen, PERM, perm } from "@perm/heap";
   *
   * const { home, garray } = PERM.declare({ home: [Float64Array, 1], garray: [Int32Array, 10] });
   * perm(PERM.start, PERM.size);
   * mopen("perm-example.perm", "w+", 1 << 20);
   * home[0] = 4.5;
   * garray[3] = 7;
   * mclose();
   * ```
   */
  declare<Views>(declarations: Declarations<Views>): Views;
  /** Address of the block. */
  readonly start: Pointer;
  /** Bytes declared so far. */
  readonly size: number;
}

/** A declared name. */
export interface Declared {
  readonly name: string;
  readonly address: Pointer;
  readonly bytes: number;
  readonly layout: number;
  /** A typed array of any kind. */
  readonly view: Uint8Array<ArrayBuffer>;
}

/** Name of the block that a declared name becomes. */
export function blockOf(name: string): string {
  return `PERM.${name}`;
}

const declared = new Map<string, Declared>();

/** All that is declared, in order. */
export function declarations(): Declared[] {
  return [...declared.values()];
}

/** The PERM block of this process: what is declared in it persists by `perm(PERM.start, PERM.size)`. */
export const PERM: PermBlock = {
  declare<Views>(wanted: Declarations<Views>): Views {
    if (typeof wanted !== "object" || wanted === null) throw refuse(wanted);
    const names = looked(() => Object.keys(wanted), wanted) as (keyof Views & string)[];
    const parts = names.map((name) => expectDeclaration(name, wanted[name]));
    load();
    const views: Record<string, unknown> = {};
    for (const { name, type, count, bytes, layout } of parts) {
      let entry = declared.get(name);
      // A view whose buffer the program transferred elsewhere is made anew; the memory is the same.
      if (!entry || entry.view.buffer.detached) {
        const address = entry?.address ?? check(native.ph_static(bytes));
        entry = {
          name,
          address,
          bytes,
          layout,
          view: new type(wrap(address, bytes), 0, count) as Uint8Array<ArrayBuffer>,
        };
        declared.set(name, entry);
      }
      views[name] = entry.view;
    }
    return views as Views;
  },

  get start(): Pointer {
    load();
    return check(native.ph_static(0));
  },

  get size(): number {
    return declarations().reduce(
      (end, { address, bytes }) => Math.max(end, address + bytes - PERM.start),
      0,
    );
  },
};

interface Part {
  readonly name: string;
  readonly type: ViewType<unknown>;
  readonly count: number;
  readonly bytes: number;
  readonly layout: number;
}

/** Everything is checked before anything is declared. */
function expectDeclaration(name: string, entry: unknown): Part {
  if (name === "") throw refuse(name);
  blockName(blockOf(name));
  if (!looked(() => Array.isArray(entry), entry)) throw refuse(entry);
  if ((entry as unknown[]).length !== 2) throw refuse(entry);
  const [type, count] = entry as [ViewType<unknown>, number];
  const kind = expectType(type);
  const bytes = byteLengthOf(type, count);
  const layout = layoutHash(kind, count);
  if (bytes === 0) throw refuse(entry);
  const present = declared.get(name);
  if (present && (present.layout !== layout || present.bytes !== bytes)) {
    throw new PermError(
      "EXISTS",
      `Cannot declare ${describe(name)} as PERM: it is declared with another type or count; use ` +
        "another name, or declare it alike",
    );
  }
  return { name, type, count, bytes, layout };
}

function refuse(value: unknown): PermError {
  return new PermError(
    "INVALID_ARGUMENT",
    `Cannot declare ${describe(value)} as PERM: give { name: [Float64Array, 1], … }`,
  );
}

/** What a look at a value gives; a proxy that was revoked cannot even be looked at. */
function looked<Value>(look: () => Value, value: unknown): Value {
  try {
    return look();
  } catch {
    throw refuse(value);
  }
}
