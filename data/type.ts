/**
 * The types of values that live in a heap: what a struct's fields, a container's elements and keys
 * and a root may be. A type knows how many bytes its values take, how they are read and written,
 * and what they own beyond these bytes.
 *
 * Invariants, on which containers in Zig rely:
 * - All-zero bytes are a value of every type: 0, false, empty text, null, an empty container.
 * - A value may be moved by copying its bytes, if the place it came from is forgotten.
 * - Bytes are little-endian, sizes and alignments are C's.
 *
 * @module
 */

import { adapter, describe, PermError } from "../ffi/mod.ts";
import type { Pointer } from "../heap/views.ts";
import { registerKind } from "./kinds.ts";
import type { Access, Pane } from "./pane.ts";

/** How a type's values serve as keys: by their number, 64 bits, text; `null` if not at all. */
export type KeyKind = "number" | "u64" | "i64" | "text" | null;

/**
 * A type of values that live in a heap.
 *
 * @typeParam T What reading gives.
 * @typeParam I What writing takes.
 */
export interface Type<out T = unknown, in I = never> {
  /** Which family it belongs to: `"f64"`, `"text"`, `"array"`, `"ref"`, `"struct"`, `"Vec"` … */
  readonly kind: string;
  /** As a program writes it: `u8`, `fixedText(12)`, `array(u8, 4)`, `ref(Point)`, `Point`. */
  readonly name: string;
  /** Bytes a value takes where it stands. */
  readonly size: number;
  /** Its place is a multiple of this, at most 16. */
  readonly align: number;
  /**
   * Its own layout as text: a struct's shows its fields. Other types stand in it by name; `schemaOf`
   * shows them all.
   */
  readonly layout: string;
  /** Whether values may be keys of a map, and how they are compared. */
  readonly key: KeyKind;
  /** Whether values own memory beyond their bytes, which `destroy` frees. */
  readonly owns: boolean;
  /** Reads the value at offset `at` of a pane; objects (structs, arrays, containers) as live handles. */
  get(pane: Pane, at: number): T;
  /**
   * Writes a value over a valid one, whose memory is freed or used again. All or nothing.
   *
   * @param what What an error calls the place: `"Point.x"`; the type's name by default.
   * @throws {PermError} `INVALID_ARGUMENT` for what is no such value, naming it and the place.
   */
  set(pane: Pane, at: number, value: I, what?: string): void;
  /**
   * Reads a value that shall be written, and judges it. Whatever code of the program's that runs (getters,
   * iterators, traps of proxies) runs here, before there is a place that it could take away; what it gives
   * has nothing to do with the heap any more. Absent: `set` runs none.
   *
   * @throws {PermError} `INVALID_ARGUMENT` for what is no such value, naming it and the place.
   */
  take?(value: I, what: string, access: Access): unknown;
  /** Writes what `take` gave, once, over a valid value, as `set` does. Absent: `set`. */
  put?(pane: Pane, at: number, taken: unknown): void;
  /**
   * The same over zeros that nobody sees yet, where a lack of memory may leave parts: whoever made the
   * place takes them back. Absent: `put`.
   */
  putNew?(pane: Pane, at: number, taken: unknown): void;
  /** Lets two values change places. Absent: their bytes do. */
  exchange?(pane: Pane, at: number, other: Pane, otherAt: number): void;
  /** Frees what the value owns, and leaves zeros. Does nothing to what it refers to. */
  destroy(pane: Pane, at: number): void;
  /** Tells the walker what the value owns and refers to. Absent: never anything. */
  walk?(pane: Pane, at: number, walker: Walker): void;
  /** Types that its layout names: elements, keys, fields, and what it refers to. */
  parts?(): readonly Type[];
  /**
   * Offsets of the text slots in a value: its own, its fields', its array elements'. `null` when it
   * owns more than texts. Absent: none.
   */
  texts?(): readonly number[] | null;
}

/** Who follows what values own and refer to: a search for leaks, a copy. */
export interface Walker {
  /** Memory that the value owns, as `malloc` gave it. */
  block(p: Pointer): void;
  /** An object that the value refers to or owns elsewhere, to be walked in its turn. */
  object(p: Pointer, type: Type): void;
}

/** What reading a value of that type gives: an instance of a class, or what it says. */
export type ValueOf<T> = T extends new (...args: never[]) => infer Value ? Value
  : T extends { get(pane: never, at: number): infer Value } ? Value
  : never;

/** What may be a map's key: no type that tells that it is none, as structs, references and containers do. */
export type KeyType<K> = K extends { readonly key: null } ? never : K;

/** What may be written where a value of that type stands. */
export type InputOf<T> = T extends
  { set(pane: never, at: number, value: infer Input, what?: string): void } ? Input : never;

/** Throws `INVALID_ARGUMENT` for a value that cannot stand in that place. */
export function refuseValue(what: string, value: unknown, wanted: string): never {
  throw new PermError(
    "INVALID_ARGUMENT",
    `Cannot store ${describe(value)} in ${what}: give ${wanted}`,
  );
}

/** Writes what was taken over a value, all or nothing. */
export function put(
  type: Type<unknown, unknown>,
  pane: Pane,
  at: number,
  taken: unknown,
  what: string,
): void {
  if (type.put === undefined) type.set(pane, at, taken, what);
  else type.put(pane, at, taken);
}

/** The same for a new place, of zeros. */
export function putNew(
  type: Type<unknown, unknown>,
  pane: Pane,
  at: number,
  taken: unknown,
  what: string,
): void {
  if (type.putNew === undefined) put(type, pane, at, taken, what);
  else type.putNew(pane, at, taken);
}

/** What {@linkcode put} and {@linkcode putNew} come down to for a type. */
export interface Writing {
  /** Whether values are taken first. */
  readonly takes: boolean;
  /** Writes what was taken over a value. */
  readonly put: Writer;
  /** The same for a new place, of zeros. */
  readonly putNew: Writer;
}

type Writer = (pane: Pane, at: number, taken: unknown, what: string) => void;

/** Found out once for all of a container's values: looking for what a type has not takes engines long. */
export function writingOf(type: Type<unknown, unknown>): Writing {
  if (leafOf(type) !== 0) return { takes: false, put: type.set, putNew: type.set };
  return {
    takes: type.take !== undefined,
    put: type.put === undefined
      ? (pane, at, taken, what) => type.set(pane, at, taken, what)
      : (pane, at, taken) => type.put!(pane, at, taken),
    putNew: type.putNew === undefined
      ? (pane, at, taken, what) => put(type, pane, at, taken, what)
      : (pane, at, taken) => type.putNew!(pane, at, taken),
  };
}

/** Whether something is a type, as far as its members tell. */
export function isType(value: unknown): value is Type {
  if ((typeof value !== "object" && typeof value !== "function") || value === null) return false;
  const type = value as Partial<Type>;
  return typeof type.kind === "string" && typeof type.get === "function" &&
    typeof type.set === "function" && typeof type.destroy === "function";
}

/** Refuses what is no type. A class that extends a struct goes by the struct's name from now on. */
export function expectTypeOf(what: string, value: unknown): Type {
  if (isType(value)) {
    const { declared } = value as { declared?: string };
    if (declared !== undefined && value.name !== declared) {
      Object.defineProperty(value, "name", { value: declared, configurable: true });
    }
    return value;
  }
  throw new PermError(
    "INVALID_ARGUMENT",
    `Cannot use ${describe(value)} as the type of ${what}: give f64, text, ref(…), a struct or a ` +
      "container",
  );
}

/** What makes a scalar of that size zero. */
const zeros: Readonly<Record<number, (pane: Pane, at: number) => void>> = {
  1: (pane, at) => pane.view.setUint8(at, 0),
  2: (pane, at) => pane.view.setUint16(at, 0),
  4: (pane, at) => pane.view.setUint32(at, 0),
  8: (pane, at) => pane.view.setFloat64(at, 0),
};

/** A type of numbers or truth values, which is known by its kind. */
export interface ScalarType<out Kind extends string, in out T> extends Type<T, T> {
  /** `"f64"`, `"u8"`, `"bool"` … */
  readonly kind: Kind;
}

function scalar<Kind extends string, T>(
  kind: Kind,
  size: number,
  key: KeyKind,
  get: (pane: Pane, at: number) => T,
  set: (pane: Pane, at: number, value: T, what?: string) => void,
): ScalarType<Kind, T> {
  const type: ScalarType<Kind, T> = Object.freeze({
    kind,
    name: kind,
    size,
    align: size,
    layout: kind,
    key,
    owns: false,
    get,
    set,
    destroy: zeros[size],
  });
  registerKind(kind, () => type);
  return type;
}

/** What each scalar's values must be, for messages. */
export const wanted = {
  u8: "a whole number from 0 to 255",
  u16: "a whole number from 0 to 65535",
  u32: "a whole number from 0 to 4294967295",
  i8: "a whole number from -128 to 127",
  i16: "a whole number from -32768 to 32767",
  i32: "a whole number from -2147483648 to 2147483647",
  u53: "a whole number from 0 to 2^53 - 1",
  u64: "a bigint from 0n to 2n ** 64n - 1n",
  i64: "a bigint from -(2n ** 63n) to 2n ** 63n - 1n",
  f32: "a number that a 32-bit float can hold",
  f64: "a number",
  bool: "true or false",
} as const;

/** What text must be, for messages. */
export const wantedText = "a string";
/** The same. */
export const wantedWellFormed = "a string without half surrogate pairs";

/** An unsigned 8-bit integer: a number. */
export const u8: ScalarType<"u8", number> = scalar(
  "u8",
  1,
  "number",
  (pane, at) => pane.view.getUint8(at),
  (pane, at, value, what = "u8") => {
    if (typeof value !== "number" || (value & 0xff) !== value) refuseValue(what, value, wanted.u8);
    pane.view.setUint8(at, value);
  },
);

/** An unsigned 16-bit integer: a number. */
export const u16: ScalarType<"u16", number> = scalar(
  "u16",
  2,
  "number",
  (pane, at) => pane.view.getUint16(at, true),
  (pane, at, value, what = "u16") => {
    if (typeof value !== "number" || (value & 0xffff) !== value) {
      refuseValue(what, value, wanted.u16);
    }
    pane.view.setUint16(at, value, true);
  },
);

/** An unsigned 32-bit integer: a number. */
export const u32: ScalarType<"u32", number> = scalar(
  "u32",
  4,
  "number",
  (pane, at) => pane.view.getUint32(at, true),
  (pane, at, value, what = "u32") => {
    if (typeof value !== "number" || (value >>> 0) !== value) refuseValue(what, value, wanted.u32);
    pane.view.setUint32(at, value, true);
  },
);

/** A signed 8-bit integer: a number. */
export const i8: ScalarType<"i8", number> = scalar(
  "i8",
  1,
  "number",
  (pane, at) => pane.view.getInt8(at),
  (pane, at, value, what = "i8") => {
    if (typeof value !== "number" || (value << 24 >> 24) !== value) {
      refuseValue(what, value, wanted.i8);
    }
    pane.view.setInt8(at, value);
  },
);

/** A signed 16-bit integer: a number. */
export const i16: ScalarType<"i16", number> = scalar(
  "i16",
  2,
  "number",
  (pane, at) => pane.view.getInt16(at, true),
  (pane, at, value, what = "i16") => {
    if (typeof value !== "number" || (value << 16 >> 16) !== value) {
      refuseValue(what, value, wanted.i16);
    }
    pane.view.setInt16(at, value, true);
  },
);

/** A signed 32-bit integer: a number. */
export const i32: ScalarType<"i32", number> = scalar(
  "i32",
  4,
  "number",
  (pane, at) => pane.view.getInt32(at, true),
  (pane, at, value, what = "i32") => {
    if (typeof value !== "number" || (value | 0) !== value) refuseValue(what, value, wanted.i32);
    pane.view.setInt32(at, value, true);
  },
);

/** Reads a u64 that must be exact as a number. */
export function readU53(view: DataView, at: number): number {
  const high = view.getUint32((at + 4) | 0, true);
  if (high > 0x1fffff) refuseU53(view, at);
  return view.getUint32(at, true) + high * 0x100000000;
}

/** Throws for a u64 that no number can stand for. */
export function refuseU53(view: DataView, at: number): never {
  throw new PermError(
    "INVALID_ARGUMENT",
    `Cannot read ${view.getBigUint64(at, true)} as a u53: it is larger than 2^53 - 1; use u64`,
  );
}

/** Writes a number that has been checked as a u64. */
export function writeU53(view: DataView, at: number, value: number): void {
  const high = Math.floor(value / 0x100000000);
  view.setUint32(at, value - high * 0x100000000, true);
  view.setUint32((at + 4) | 0, high, true);
}

/** An unsigned 64-bit integer in memory, for those below 2^53: a number. */
export const u53: ScalarType<"u53", number> = scalar(
  "u53",
  8,
  "number",
  (pane, at) => readU53(pane.view, at),
  (pane, at, value, what = "u53") => {
    if (!(Number.isSafeInteger(value) && value >= 0)) refuseValue(what, value, wanted.u53);
    writeU53(pane.view, at, value);
  },
);

/** An unsigned 64-bit integer: a bigint. */
export const u64: ScalarType<"u64", bigint> = scalar(
  "u64",
  8,
  "u64",
  (pane, at) => pane.view.getBigUint64(at, true),
  (pane, at, value, what = "u64") => {
    if (typeof value !== "bigint" || value < 0n || value > 0xffffffffffffffffn) {
      refuseValue(what, value, wanted.u64);
    }
    pane.view.setBigUint64(at, value, true);
  },
);

/** A signed 64-bit integer: a bigint. */
export const i64: ScalarType<"i64", bigint> = scalar(
  "i64",
  8,
  "i64",
  (pane, at) => pane.view.getBigInt64(at, true),
  (pane, at, value, what = "i64") => {
    if (
      typeof value !== "bigint" || value < -0x8000000000000000n || value > 0x7fffffffffffffffn
    ) refuseValue(what, value, wanted.i64);
    pane.view.setBigInt64(at, value, true);
  },
);

/** The least number that rounds to infinity as a 32-bit float: half a step beyond the largest one. */
export const f32Limit = 2 ** 128 - 2 ** 103;

/** Whether a number is one that a 32-bit float cannot hold: finite, but too large. */
export function overflowsF32(value: number): boolean {
  return !(value < f32Limit && value > -f32Limit) && value - value === 0;
}

/** A 32-bit float: a number, rounded when it is written. */
export const f32: ScalarType<"f32", number> = scalar(
  "f32",
  4,
  "number",
  (pane, at) => pane.view.getFloat32(at, true),
  (pane, at, value, what = "f32") => {
    if (typeof value !== "number" || overflowsF32(value)) refuseValue(what, value, wanted.f32);
    pane.view.setFloat32(at, value, true);
  },
);

/** A 64-bit float: a number. */
export const f64: ScalarType<"f64", number> = scalar(
  "f64",
  8,
  "number",
  (pane, at) => pane.view.getFloat64(at, true),
  (pane, at, value, what = "f64") => {
    if (typeof value !== "number") refuseValue(what, value, wanted.f64);
    pane.view.setFloat64(at, value, true);
  },
);

/** A truth value: one byte, 0 or 1. */
export const bool: ScalarType<"bool", boolean> = scalar(
  "bool",
  1,
  "number",
  (pane, at) => pane.view.getUint8(at) !== 0,
  (pane, at, value, what = "bool") => {
    if (typeof value !== "boolean") refuseValue(what, value, wanted.bool);
    pane.view.setUint8(at, value ? 1 : 0);
  },
);

// V8 compares bigints slowly, JavaScriptCore cuts them slowly.
const isV8 = adapter.runtime === "deno";

/**
 * Numbers for the types whose values are judged and written by a branch each, where several are written
 * together; 0 for all others.
 */
export function leafOf({ kind }: Type): number {
  return leaves.indexOf(kind) + 1;
}

const leaves = [
  ...["u8", "u16", "u32", "i8", "i16", "i32", "f64", "f32", "u53", "u64", "i64", "bool", "text"],
];

/** What {@linkcode leafOf} says of text. */
export const textLeaf: number = leaves.length;

/** Whether a value can stand where a leaf is; text must be well-formed besides, which writing it tells. */
export function fits(leaf: number, value: unknown): boolean {
  switch (leaf) {
    case 1:
      return typeof value === "number" && (value & 0xff) === value;
    case 2:
      return typeof value === "number" && (value & 0xffff) === value;
    case 3:
      return typeof value === "number" && (value >>> 0) === value;
    case 4:
      return typeof value === "number" && (value << 24 >> 24) === value;
    case 5:
      return typeof value === "number" && (value << 16 >> 16) === value;
    case 6:
      return typeof value === "number" && (value | 0) === value;
    case 7:
      return typeof value === "number";
    case 8:
      return typeof value === "number" && !overflowsF32(value);
    case 9:
      return Number.isSafeInteger(value) && (value as number) >= 0;
    case 10:
      return typeof value === "bigint" && fitsU64(value);
    case 11:
      return typeof value === "bigint" && fitsI64(value);
    case 12:
      return typeof value === "boolean";
    case 13:
      return typeof value === "string";
    default:
      return false;
  }
}

const fitsU64: (value: bigint) => boolean = isV8
  ? (value) => BigInt.asUintN(64, value) === value
  : (value) => value >= 0n && value <= 0xffffffffffffffffn;
const fitsI64: (value: bigint) => boolean = isV8
  ? (value) => BigInt.asIntN(64, value) === value
  : (value) => value >= -0x8000000000000000n && value <= 0x7fffffffffffffffn;

/** Writes what fits a leaf, but for text. */
export function writeLeaf(leaf: number, view: DataView, at: number, value: unknown): void {
  switch (leaf) {
    case 1:
      return view.setUint8(at, value as number);
    case 2:
      return view.setUint16(at, value as number, true);
    case 3:
      return view.setUint32(at, value as number, true);
    case 4:
      return view.setInt8(at, value as number);
    case 5:
      return view.setInt16(at, value as number, true);
    case 6:
      return view.setInt32(at, value as number, true);
    case 7:
      return view.setFloat64(at, value as number, true);
    case 8:
      return view.setFloat32(at, value as number, true);
    case 9:
      return writeU53(view, at, value as number);
    case 10:
      return view.setBigUint64(at, value as bigint, true);
    case 11:
      return view.setBigInt64(at, value as bigint, true);
    case 12:
      return view.setUint8(at, value ? 1 : 0);
  }
}

/** Refuses what does not fit. */
export function refuseLeaf(leaf: number, value: unknown, what: string): never {
  const isText = leaf === textLeaf;
  return refuseValue(what, value, isText ? wantedText : wanted[leaves[leaf - 1] as Wanted]);
}

type Wanted = keyof typeof wanted;
