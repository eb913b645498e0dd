/**
 * Columns: a field of all structs in a container side by side, as data frames and typed arrays have
 * them. Native code copies some thousand values at a time, where a loop over handles makes an object
 * for each.
 *
 * Invariant: a column is a copy, in the container's own order; nothing in it follows the heap.
 *
 * @module
 */

import { adapter, describe, native, PermError } from "../ffi/mod.ts";
import { expectOptions } from "../heap/options.ts";
import { changed, failed, paneFor, walkField } from "./container.ts";
import { Handle, paneOf } from "./handle.ts";
import type { Pane } from "./pane.ts";
import type { fieldTypes, StructType } from "./struct.ts";
import type { Type, ValueOf } from "./type.ts";

/** What a column of a type of numbers is. */
export interface ScalarColumns {
  /** Of `u8`. */
  u8: Uint8Array<ArrayBuffer>;
  /** Of `u16`. */
  u16: Uint16Array<ArrayBuffer>;
  /** Of `u32`. */
  u32: Uint32Array<ArrayBuffer>;
  /** Of `i8`. */
  i8: Int8Array<ArrayBuffer>;
  /** Of `i16`. */
  i16: Int16Array<ArrayBuffer>;
  /** Of `i32`. */
  i32: Int32Array<ArrayBuffer>;
  /** Of `u53`: numbers, as the field reads. */
  u53: Float64Array<ArrayBuffer>;
  /** Of `u64`. */
  u64: BigUint64Array<ArrayBuffer>;
  /** Of `i64`. */
  i64: BigInt64Array<ArrayBuffer>;
  /** Of `f32`. */
  f32: Float32Array<ArrayBuffer>;
  /** Of `f64`. */
  f64: Float64Array<ArrayBuffer>;
  /** Of `bool`: 1 for true, 0 for false. */
  bool: Uint8Array<ArrayBuffer>;
}

/** What a column of that type is: a typed array, an array of strings, `never` for what has none. */
export type ColumnOf<T> = T extends { readonly kind: infer Kind extends keyof ScalarColumns }
  ? ScalarColumns[Kind]
  : T extends Type<infer Value> ? [Value] extends [string] ? string[] : never
  : never;

/** The types of a struct's fields by their names: the schema that it was declared with. */
export type FieldTypesOf<V> = V extends { readonly [fieldTypes]: infer S } ? S : never;

/** Names of the fields that have columns; those of a struct in the struct follow its name and a dot. */
export type ColumnName<V> = ColumnNameIn<FieldTypesOf<V>, 0>;

/** The same for a schema, in structs in structs up to four deep, where the compiler wants an end. */
export type ColumnNameIn<S, Depth> = {
  [Name in keyof S & string]: S[Name] extends { readonly kind: "struct" }
    ? Depth extends 0 | 1 | 2 | 3
      ? `${Name}.${ColumnNameIn<FieldTypesOf<ValueOf<S[Name]>>, [1, 2, 3, 4][Depth]>}`
    : never
    : [ColumnOf<S[Name]>] extends [never] ? never
    : Name;
}[keyof S & string];

/** The column of a field by its name. */
export type Column<V, Name> = ColumnIn<FieldTypesOf<V>, Name>;

/** The same for a schema. */
export type ColumnIn<S, Name> = Name extends keyof S ? ColumnOf<S[Name]>
  : Name extends `${infer First}.${infer Rest}`
    ? First extends keyof S ? Column<ValueOf<S[First]>, Rest> : never
  : never;

/** Columns by the names of their fields; all of them have the same length. */
export type Columns<V, Name extends string> = { [Each in Name]: Column<V, Each> };

/** How batches of columns are made. */
export interface BatchOptions {
  /** Elements of a batch, the last one's being fewer: 1 to 1,048,576, 4096 by default. */
  rows?: number;
  /**
   * Whether the typed arrays of a batch are filled again with the next one, so that nothing of them may be
   * kept but copies; false by default. Memory that is new to the process takes longer to touch than the
   * fields to copy: in Bun the first million elements with six numbers each take half as long with it.
   */
  reuse?: boolean;
}

const rowsUsual = 4096;
/** What native code takes for {@linkcode textsAt}: where fields stand. */
const addressCode = 6;
/** And for {@linkcode textsIn}: where their ASCII does. */
const asciiCode = 7;
const walkFields = 7;
const rowsMax = 2 ** 20;

// deno-lint-ignore no-explicit-any
type Made = new (buffer: any, at?: number, length?: number) => TypedColumn;
type TypedColumn = ArrayLike<unknown> & { set(from: TypedColumn, at: number): void };

/** For native code how it copies a kind of numbers, and what has them; the last two are for text's places. */
const scalars: Readonly<Record<string, readonly [code: number, size: number, array: Made]>> = {
  u8: [0, 1, Uint8Array],
  i8: [0, 1, Int8Array],
  bool: [4, 1, Uint8Array],
  u16: [1, 2, Uint16Array],
  i16: [1, 2, Int16Array],
  u32: [2, 4, Uint32Array],
  i32: [2, 4, Int32Array],
  f32: [2, 4, Float32Array],
  u64: [3, 8, BigUint64Array],
  i64: [3, 8, BigInt64Array],
  f64: [3, 8, Float64Array],
  u53: [5, 8, Float64Array],
  // V8 makes short strings fastest of characters, which are looked at one by one anyway.
  text: [adapter.runtime === "deno" ? addressCode : asciiCode, 8, Float64Array],
  fixedText: [addressCode, 8, Float64Array],
} as never;

/** A field that becomes a column. */
interface Wanted {
  readonly name: string;
  readonly type: Type;
  /** As an error calls it: `Row.price`. */
  readonly label: string;
  readonly code: number;
  /** Bytes of an element. */
  readonly size: number;
  readonly array: Made;
}

/** A container of structs. */
export interface ColumnSource {
  readonly handle: Handle;
  /** The elements' or values' type. */
  readonly type: Type;
  readonly shape: number;
  /** As a program writes the container's type. */
  readonly name: string;
  /** How many elements there are. */
  readonly length: number;
}

/** A container in the heap; where its elements (a map's values) are structs, they have columns. */
export abstract class ColumnsHandle<V> extends Handle {
  /** @ignore */
  abstract $columnSource(): ColumnSource;

  /**
   * One field of all elements (a map's values) as a column: a typed array of numbers (`bool` as 1 and 0) or
   * an array of strings, in the order of the container. It is a copy, made some thousand at a time by native
   * code: in the first loop of a program a tenth of what handles take.
   *
   * @param name A field; one of a struct in the struct by its path, `"home.x"`.
   * @throws {PermError} `INVALID_ARGUMENT` for no such field, and for a u53 beyond 2^53 - 1; `UNSUPPORTED`
   * for fields that are references, arrays or containers, and where elements are no structs; `STALE`.
   */
  column<Name extends ColumnName<V>>(name: Name): Column<V, Name> {
    return columnsOf(this.$columnSource(), [name])[name] as Column<V, Name>;
  }

  /**
   * The same for several fields in one pass: `const { x, y } = points.columns(["x", "y"])`.
   *
   * @throws {PermError} As {@linkcode column}.
   */
  columns<Name extends ColumnName<V>>(names: readonly Name[]): Columns<V, Name> {
    return columnsOf(this.$columnSource(), names) as Columns<V, Name>;
  }

  /**
   * The same in batches, for what is large: nothing is made as long as the container. The arrays of a batch
   * are the program's own; those of numbers share one buffer.
   *
   * @throws {PermError} As {@linkcode column}; when iterating `STALE` after a change.
   *
   * @example
   * ```ts
   * import { Heap } from "@perm/heap";
   * import { f64, HashMap, struct, u32 } from "@perm/heap/data";
   *
   * const Trade = struct("Trade", { price: f64, amount: f64 });
   * using heap = Heap.open({ size: 1 << 20 });
   * const trades = new (HashMap(u32, Trade))(heap, [[1, { price: 2.5, amount: 10 }]]);
   * let turnover = 0;
   * for (const { price, amount } of trades.batches(["price", "amount"])) {
   *   for (let i = 0; i < price.length; i++) turnover += price[i] * amount[i];
   * }
   * ```
   */
  batches<Name extends ColumnName<V>>(
    names: readonly Name[],
    options: BatchOptions = {},
  ): IterableIterator<Columns<V, Name>> {
    return batchesOf(this.$columnSource(), names, options) as IterableIterator<Columns<V, Name>>;
  }
}

/** The fields of those names, and what native code must know of each. */
function fieldsOf(source: ColumnSource, names: unknown): [Wanted[], Uint32Array<ArrayBuffer>] {
  if (!Array.isArray(names) || names.length === 0) {
    throw new PermError(
      "INVALID_ARGUMENT",
      `Cannot make columns of ${describe(names)}: give an array of names of fields, one at least`,
    );
  }
  if (source.type.kind !== "struct") {
    throw new PermError(
      "UNSUPPORTED",
      `Cannot make columns of ${source.name}: its elements are no structs, and have no fields`,
    );
  }
  // A class that extends Array may say anything of its length and give anything for `map`.
  const given: unknown[] = Array.from(names);
  const fields = new Uint32Array(4 * given.length);
  const wanted = given.map((given, index) => {
    const name = given as string;
    const [type, offset] = find(source, name);
    const label = `${source.type.name}.${name}`;
    if (!Object.hasOwn(scalars, type.kind)) {
      throw new PermError(
        "UNSUPPORTED",
        `Cannot make a column of ${label}: it is a ${type.name}, and columns are of numbers, bool and ` +
          "text",
      );
    }
    const [code, size, array] = scalars[type.kind];
    fields[4 * index] = offset;
    fields[4 * index + 1] = code;
    return { name, type, label, code, size, array };
  });
  return [wanted, fields];
}

function find(source: ColumnSource, name: unknown): [type: Type, offset: number] {
  const parts = typeof name === "string" ? name.split(".") : [];
  let type: Type | undefined = parts.length === 0 ? undefined : source.type;
  let offset = 0;
  for (const part of parts) {
    const fields = type?.kind === "struct" ? (type as unknown as StructType<unknown>).fields : [];
    const field = fields.find((each) => each.name === part);
    type = field?.type;
    offset += field?.offset ?? 0;
  }
  if (type !== undefined) return [type, offset];
  throw new PermError(
    "INVALID_ARGUMENT",
    `Cannot make a column of ${describe(name)}: ${source.type.name} has no such field`,
  );
}

/** Copies the columns of one batch after the other to new memory, or to the same. */
class Gatherer {
  readonly wanted: Wanted[];
  readonly #source: ColumnSource;
  readonly #pane: Pane;
  readonly #fields: Uint32Array<ArrayBuffer>;
  readonly #walk = new Float64Array(walkFields);
  readonly #rows: number;
  readonly #reuse: boolean;
  #buffer: Uint8Array<ArrayBuffer>;
  #arrays: TypedColumn[] = [];

  constructor(source: ColumnSource, names: unknown, rows: number, reuse: boolean) {
    this.#source = source;
    this.#pane = paneOf(source.handle);
    [this.wanted, this.#fields] = fieldsOf(source, names);
    this.#walk[walkField.changes] = -1;
    this.#rows = rows;
    this.#reuse = reuse;
    let bytes = 0;
    for (let index = 0; index < this.wanted.length; index++) {
      this.#fields[4 * index + 2] = bytes;
      bytes += Math.ceil(this.wanted[index].size * rows / 8) * 8;
    }
    if (bytes >= 2 ** 32) {
      throw new PermError(
        "INVALID_ARGUMENT",
        `Cannot make batches of ${rows} rows of ${this.wanted.length} fields: they are ${bytes} bytes and may be ` +
          "4 GiB; give fewer rows",
      );
    }
    this.#buffer = new Uint8Array(bytes);
  }

  /** The next batch's columns in the order of their names; `undefined` at the end. */
  next(): (TypedColumn | string[])[] | undefined {
    const { handle, shape } = this.#source;
    const { wanted } = this;
    const pane = this.#pane;
    if (!this.#reuse && this.#arrays.length > 0) {
      this.#buffer = new Uint8Array(this.#buffer.length);
      this.#arrays = [];
    }
    const buffer = this.#buffer;
    const count = native.ph_columns(
      pane.handle,
      pane.base + handle.$at,
      shape,
      this.#walk,
      new Uint8Array(this.#fields.buffer),
      wanted.length,
      this.#rows,
      buffer,
      buffer.length,
      pane.base,
      pane.length,
    );
    if (count < 0) failed(handle, count);
    if (count === 0) return undefined;
    if (this.#arrays.length === 0 || this.#arrays[0].length !== count) {
      this.#arrays = wanted.map(({ array }, index) =>
        new array(buffer.buffer, this.#fields[4 * index + 2], count)
      );
    }
    return wanted.map(({ code, label, type }, index) => {
      const array = this.#arrays[index];
      if (this.#fields[4 * index + 3] !== 0) refuseLarge(label, count);
      if (code === asciiCode) return textsIn(pane, type, array as Float64Array<ArrayBuffer>);
      return code === addressCode ? textsAt(pane, type, array as ArrayLike<number>) : array;
    });
  }
}

function refuseLarge(label: string, count: number): never {
  throw new PermError(
    "INVALID_ARGUMENT",
    `Cannot make a column of ${label}: one of the next ${count} elements has a number that is larger ` +
      "than 2^53 - 1, which no u53 is; use u64",
  );
}

/** The texts at those addresses. */
function textsAt(pane: Pane, type: Type, addresses: ArrayLike<number>): string[] {
  const texts = new Array<string>(addresses.length);
  for (let index = 0; index < addresses.length; index++) {
    texts[index] = textAt(pane, type, addresses[index]);
  }
  return texts;
}

function textAt(pane: Pane, type: Type, p: number): string {
  const there = paneFor(pane, p, type.size);
  return type.get(there, (p - there.base) | 0) as string;
}

/** The texts whose ASCII stands in the pane from one offset to another, or else at an address below zero. */
function textsIn(pane: Pane, type: Type, places: Float64Array<ArrayBuffer>): string[] {
  const { length } = places;
  const ends = new Int32Array(places.buffer, places.byteOffset, 2 * length);
  const texts = new Array<string>(length);
  for (let index = 0; index < length; index++) {
    const to = ends[2 * index + 1];
    texts[index] = to >= 0 ? pane.ascii(ends[2 * index], to) : textAt(pane, type, -places[index]);
  }
  return texts;
}

/** All elements' columns, whole. */
function columnsOf(source: ColumnSource, names: unknown): Record<string, unknown> {
  const { length, type, name } = source;
  const rows = Math.min(Math.max(length, 1), rowsUsual);
  const gatherer = new Gatherer(source, names, rows, true);
  // What a length says that was overwritten must not be allocated.
  if (length * type.size > paneOf(source.handle).access.heap.capacity) {
    throw new PermError("CORRUPT", `Cannot make columns of ${name}: its length was overwritten`);
  }
  const { wanted } = gatherer;
  const columns = wanted.map(({ code, array }) =>
    code >= addressCode ? new Array<string>(length) : new array(length)
  );
  let done = 0;
  for (let batch = gatherer.next(); batch !== undefined; batch = gatherer.next()) {
    const count = batch[0].length;
    if (done + count > length) throw changed();
    for (let index = 0; index < batch.length; index++) {
      const from = batch[index];
      const to = columns[index];
      if (Array.isArray(to)) { for (let i = 0; i < count; i++) to[done + i] = from[i] as string; }
      else to.set(from as TypedColumn, done);
    }
    done += count;
  }
  if (done !== length) throw changed();
  return named(wanted, columns);
}

function named(wanted: readonly Wanted[], columns: readonly unknown[]): Record<string, unknown> {
  const out: Record<string, unknown> = {};
  for (let index = 0; index < wanted.length; index++) out[wanted[index].name] = columns[index];
  return out;
}

/** The columns of so many elements after the other. */
function batchesOf(
  source: ColumnSource,
  names: unknown,
  options: BatchOptions,
): IterableIterator<Record<string, unknown>> {
  const { rows = rowsUsual, reuse = false } = expectOptions("batches", options, ["rows", "reuse"]);
  if (!(Number.isInteger(rows) && rows >= 1 && rows <= rowsMax)) {
    throw new PermError(
      "INVALID_ARGUMENT",
      `Cannot make batches of ${describe(rows)} rows: give a whole number from 1 to ${rowsMax}`,
    );
  }
  return new Batches(new Gatherer(source, names, rows, reuse === true));
}

class Batches implements IterableIterator<Record<string, unknown>> {
  #gatherer: Gatherer | undefined;

  constructor(gatherer: Gatherer) {
    this.#gatherer = gatherer;
  }

  next(): IteratorResult<Record<string, unknown>> {
    const gatherer = this.#gatherer;
    const columns = gatherer?.next();
    if (gatherer === undefined || columns === undefined) return this.return();
    return { done: false, value: named(gatherer.wanted, columns) };
  }

  /** Ends it early, as `break` does. */
  return(value?: unknown): IteratorResult<Record<string, unknown>> {
    this.#gatherer = undefined;
    return { done: true, value };
  }

  [Symbol.iterator](): this {
    return this;
  }
}
