/**
 * Structs: records with C's layout, read and written through accessors on a class.
 *
 * A field's offset follows from the types before it; nothing is known of a struct before it is first
 * used, so that fields written as getters may refer to structs that are declared later.
 *
 * Invariant: the accessors of a class agree with its layout text, which is what a heap remembers.
 *
 * @module
 */

import { describe, PermError } from "../ffi/mod.ts";
import type { Heap } from "../heap/heap.ts";
import type { Pointer } from "../heap/views.ts";
import { accessor } from "./accessors.ts";
import { addressText, copyOf, plain, shownReference } from "./show.ts";
import {
  copyBytes,
  exchangeValues,
  type Room,
  Stage,
  type Whole,
  wordwiseStruct,
  writeAside,
  writeSomeAside,
} from "./aside.ts";
import { Handle, isKindOf, paneOf, place, stale, typeOf } from "./handle.ts";
import { isKind } from "./kinds.ts";
import { type Maker, makerFor, type Reader } from "./makers.ts";
import { type Access, accessTo, objectSizeMax, Pane } from "./pane.ts";
import { writeTexts } from "./text.ts";
import {
  expectTypeOf,
  fits,
  type InputOf,
  leafOf,
  put,
  putNew,
  refuseLeaf,
  refuseValue,
  textLeaf,
  type Type,
  type ValueOf,
  type Walker,
  writeLeaf,
} from "./type.ts";

/** What a schema's fields read as. */
export type Fields<S> = { -readonly [Name in keyof S]: ValueOf<S[Name]> };

/** What may be given for a schema's fields; those left out are zero, empty or null. */
export type Init<S> = { -readonly [Name in keyof S]?: InputOf<S[Name]> };

/** Names what a struct's type knows of its fields' types; there is no such member. */
export const fieldTypes: unique symbol = Symbol("fieldTypes");

/** What every struct has besides its fields. */
export interface StructMembers<S> {
  /**
   * Only known to types.
   *
   * @ignore
   */
  readonly [fieldTypes]: S;
  /**
   * Its address in the heap.
   *
   * @throws {PermError} `STALE` when it was destroyed, or the heap closed or restored.
   */
  readonly ptr: Pointer;
  /** A plain copy for `JSON.stringify`: bigints as text, references as their addresses in text. */
  toJSON(): Record<keyof S & string, unknown>;
  /** Name and value of each field, in order. */
  [Symbol.iterator](): IterableIterator<[keyof S & string, ValueOf<S[keyof S]>]>;
}

/** A live struct in a heap. */
export type Struct<S> = Fields<S> & StructMembers<S>;

/** Where a field stands. */
export interface Field {
  /** Its name. */
  readonly name: string;
  /** Its type. */
  readonly type: Type;
  /** Bytes from the struct's beginning. */
  readonly offset: number;
}

/**
 * A struct's class, which is its type as well: `new Point(heap, { x: 1 })`, `Point.at(heap, p)`,
 * `ref(Point)`, `HashMap(text, Point)`.
 *
 * @typeParam S Its schema.
 */
export interface StructType<S> {
  /**
   * Allocates a struct; fields left out are zero, empty or null.
   *
   * @throws {PermError} `INVALID_ARGUMENT` for a value that a field cannot hold or a field that there
   * is not; `OUT_OF_MEMORY`, `READ_ONLY`, `CLOSED`.
   */
  new (heap: Heap, values?: Init<S>): Struct<S>;
  /** Always `"struct"`. */
  readonly kind: "struct";
  /** Its name. */
  readonly name: string;
  /** Bytes, C's `sizeof`. */
  readonly size: number;
  /** C's `alignof`. */
  readonly align: number;
  /** Its fields with their offsets, as text. */
  readonly layout: string;
  /** Structs are no keys. */
  readonly key: null;
  /** Whether a field owns memory. */
  readonly owns: boolean;
  /** Its fields in order. */
  readonly fields: readonly Field[];
  /**
   * The struct at an address, which C or another run of the program may have written. Only that it
   * lies in the heap is checked.
   *
   * @throws {PermError} `BAD_POINTER` outside the heap or misaligned.
   */
  at<Class extends new (...args: never[]) => unknown>(
    this: Class,
    heap: Heap,
    p: Pointer,
  ): ValueOf<Class>;
  /**
   * Writes several fields; those left out stay as they are.
   *
   * @throws {PermError} `INVALID_ARGUMENT` for a value that a field cannot hold, or a field that
   * there is not (then nothing is written); `STALE`.
   */
  assign<T extends Struct<S>>(target: T, values: Init<S>): T;
  /** The struct in another object. */
  get(pane: Pane, at: number): Struct<S>;
  /** The struct that stands alone there. */
  open(pane: Pane, at: number): Struct<S>;
  /** Writes all fields; those left out become zero, empty or null. */
  set(pane: Pane, at: number, value: Struct<S> | Init<S>, what?: string): void;
  /** Reads and judges what shall be written. */
  take(value: Struct<S> | Init<S>, what: string, access: Access): unknown;
  /** Writes what was taken. */
  put(pane: Pane, at: number, taken: unknown): void;
  /** The same over zeros that nobody sees yet. */
  putNew(pane: Pane, at: number, taken: unknown): void;
  /** Lets two change places. */
  exchange(pane: Pane, at: number, other: Pane, otherAt: number): void;
  /** Frees what its fields own. */
  destroy(pane: Pane, at: number): void;
  /** Tells the walker what its fields own and refer to. */
  walk(pane: Pane, at: number, walker: Walker): void;
  /** Types of its fields. */
  parts(): readonly Type[];
  /** Offsets of its texts. */
  texts(): readonly number[] | null;
}

interface Layout {
  /** What {@linkcode leafOf} says of each field. */
  readonly leaves: readonly number[];
  readonly offsets: readonly number[];
  readonly names: readonly string[];
  /** What errors call each field. */
  readonly labels: readonly string[];
  readonly fields: readonly Field[];
  readonly size: number;
  readonly align: number;
  readonly text: string;
  readonly owns: boolean;
  /** Whether its bytes are all there is to a value, so that copying them copies it. */
  readonly flat: boolean;
}

const stagedMax = 4096;
/** A stage that was lost is made anew once so many values went without. */
const missedMax = 64;

const identifier = /^[A-Za-z_][A-Za-z0-9_]*$/;
const reserved: ReadonlySet<string> = new Set([
  "constructor",
  "ptr",
  "toJSON",
  "__proto__",
  ...Object.getOwnPropertyNames(Object.prototype),
]);

function expectName(what: string, name: unknown): string {
  if (typeof name === "string" && identifier.test(name)) return name;
  throw new PermError(
    "INVALID_ARGUMENT",
    `Cannot use ${describe(name)} as ${what}: give a C identifier, such as "Point" or "x"`,
  );
}

/** The schema's fields in order: their types, or what gives them later. */
function expectSchema(name: string, schema: unknown): Map<string, () => unknown> {
  if (typeof schema !== "object" || schema === null || Array.isArray(schema)) {
    throw new PermError(
      "INVALID_ARGUMENT",
      `Cannot make struct ${name} of ${describe(schema)}: give an object of names and types`,
    );
  }
  const fields = new Map<string, () => unknown>();
  for (const key of Reflect.ownKeys(schema)) {
    const field = expectName(`a field of struct ${name}`, key);
    if (reserved.has(field)) {
      throw new PermError(
        "INVALID_ARGUMENT",
        `Cannot name a field of struct ${name} "${field}": every struct has a member of that name`,
      );
    }
    const { get, value } = Object.getOwnPropertyDescriptor(schema, key)!;
    if (get === undefined) expectTypeOf(`${name}.${field}`, value);
    fields.set(field, get === undefined ? () => value : () => get.call(schema));
  }
  if (fields.size === 0) {
    throw new PermError("INVALID_ARGUMENT", `Cannot make struct ${name} without fields: give one`);
  }
  return fields;
}

function layOut(name: string, given: Map<string, () => unknown>): Layout {
  // In one loop, since a program that starts waits for it.
  const fields: Field[] = [];
  let size = 0;
  let align = 1;
  let owns = false;
  let flat = true;
  let text = `struct ${name} { `;
  for (const [field, typeOfField] of given) {
    const type = expectTypeOf(`${name}.${field}`, typeOfField());
    const offset = alignUp(size, type.align);
    const laid = { name: field, type, offset };
    text += `${fields.length === 0 ? "" : "; "}${field}: ${type.name} @${offset}`;
    fields.push(laid);
    size = offset + type.size;
    align = Math.max(align, type.align);
    owns ||= type.owns;
    flat &&= isFlat(type);
  }
  size = alignUp(size, align);
  if (size > objectSizeMax) {
    throw new PermError(
      "INVALID_ARGUMENT",
      `Cannot make struct ${name} of ${size} bytes: at most ${objectSizeMax} are possible`,
    );
  }
  text += ` } ${size} bytes`;
  const labels = fields.map((field) => `${name}.${field.name}`);
  const leaves = fields.map(({ type }) => leafOf(type));
  return {
    ...{ fields, leaves, labels, size, align, text, owns, flat },
    offsets: fields.map(({ offset }) => offset),
    names: fields.map(({ name }) => name),
  };
}

/** Which fields are texts; null where others own memory as well. */
function textFields(fields: readonly Field[]): readonly number[] | null {
  const found: number[] = [];
  for (let index = 0; index < fields.length; index++) {
    const { type } = fields[index];
    if (type.kind === "text") found.push(index);
    else if (type.owns) return null;
  }
  return found;
}

type AnyType = Type<unknown, unknown>;

function alignUp(offset: number, align: number): number {
  return Math.ceil(offset / align) * align;
}

/** Known of every type that was asked: a struct of many by value is asked through each of them. */
const flats = new WeakMap<Type, boolean>();

function isFlat(type: Type): boolean {
  let flat = flats.get(type);
  if (flat === undefined) {
    flat = !type.owns && type.kind !== "ref" && (type.parts?.() ?? []).every(isFlat);
    flats.set(type, flat);
  }
  return flat;
}

/**
 * Declares a struct: a class of live objects in a heap, with C's layout.
 *
 * @param name A C identifier, by which a heap remembers it.
 * @param schema Its fields in order, each with its type. A field that refers to this struct, or to
 * one declared later, is written as a getter.
 * @throws {PermError} `INVALID_ARGUMENT` for names that are none, and for what is no type; when it
 * is first used, for a struct that contains itself.
 *
 * @example
 * ```ts
 * import { Heap } from "@perm/heap";
 * import { f64, fixedText, ref, struct, text } from "@perm/heap/data";
 *
 * const Point = struct("Point", {
 *   x: f64,
 *   y: f64,
 *   tag: fixedText(12),
 *   name: text,
 *   get next() { return ref(Point); },
 * });
 * using heap = Heap.open({ size: 1 << 20 });
 * const p = new Point(heap, { x: 1, name: "ann" });
 * p.x += 1;
 * p.next = new Point(heap);
 * ```
 */
// The constraint is loose because a tighter one would ask for a getter's type before there is one.
// deno-lint-ignore no-explicit-any
export function struct<S extends Record<string, any>>(name: string, schema: S): StructType<S> {
  expectName("a struct's name", name);
  if (isKind(name)) {
    throw new PermError(
      "INVALID_ARGUMENT",
      `Cannot name a struct ${describe(name)}: a type of this library has that name`,
    );
  }
  const given = expectSchema(name, schema);
  let layout: Layout | undefined;
  let resolving = false;

  function resolve(): Layout {
    if (layout !== undefined) return layout;
    if (resolving) {
      throw new PermError(
        "INVALID_ARGUMENT",
        `Cannot lay out struct ${name}: it contains itself by value; use ref(${name})`,
      );
    }
    resolving = true;
    try {
      const found = layOut(name, given);
      // Before there are accessors: JavaScriptCore gives an object room for each that its prototype has.
      made = makerFor(StructClass.prototype);
      made.alone(Pane.ended, 0);
      Object.defineProperty(StructClass.prototype, "$of", { value: StructClass });
      for (const field of found.fields) {
        const label = `${name}.${field.name}`;
        const made = accessor(field.type, field.offset, label, StructClass);
        Object.defineProperty(StructClass.prototype, field.name, {
          ...made,
          enumerable: true,
          configurable: false,
        });
      }
      return layout = found;
    } finally {
      resolving = false;
    }
  }

  /** Reads what is no handle, and judges it. */
  function takeValues(values: object, what: string, access: Access): Stage | unknown[] {
    const { flat, size, align } = layout!;
    if (flat && size <= stagedMax) {
      const stage = spareStage ?? (missed++ % missedMax === 0 ? new Stage(size, align) : undefined);
      spareStage = undefined;
      if (stage !== undefined) return stageFields(values, what, access, stage);
    }
    return takeFields(values, what, access);
  }

  /** What {@linkcode takeFields} does, for a struct that is bytes alone. */
  function stageFields(values: object, what: string, access: Access, stage: Stage): Stage {
    const { names, leaves, offsets } = layout!;
    const { view } = stage;
    stage.given = undefined;
    let index = 0;
    // deno-lint-ignore guard-for-in
    for (const key in values) {
      if (index === names.length || names[index] !== key) {
        return stageSome(values, what, access, stage, index);
      }
      const value = (values as Record<string, unknown>)[key];
      if (value === undefined) return stageSome(values, what, access, stage, index);
      const leaf = leaves[index];
      if (fits(leaf, value)) writeLeaf(leaf, view, offsets[index], value);
      else stageField(stage, index, value, access);
      index++;
    }
    return index === names.length ? stage : stageSome(values, what, access, stage, index);
  }

  function stageSome(
    values: object,
    what: string,
    access: Access,
    stage: Stage,
    done: number,
  ): Stage {
    const { fields, offsets } = layout!;
    const given = Array.from({ length: done }, (_, index) => index);
    for (let index = done; index < fields.length; index++) {
      const value = (values as Record<string, unknown>)[fields[index].name];
      if (value === undefined) fields[index].type.destroy(stage.pane, offsets[index]);
      else {
        stageField(stage, index, value, access);
        given.push(index);
      }
    }
    expectNoOthers(values, what, given.length);
    stage.given = given;
    return stage;
  }

  function stageField(stage: Stage, index: number, value: unknown, access: Access): void {
    const { fields, leaves, labels, offsets } = layout!;
    const taken = takeField(index, value, access);
    const leaf = leaves[index];
    if (leaf !== 0) writeLeaf(leaf, stage.view, offsets[index], taken);
    else put(fields[index].type as AnyType, stage.pane, offsets[index], taken, labels[index]);
  }

  /** Keys beyond these are undefined, or no fields at all. */
  function expectNoOthers(values: object, what: string, given: number): void {
    let others = -given;
    // deno-lint-ignore guard-for-in
    for (const _key in values) others++;
    if (others !== 0) expectFields(values, what);
  }

  /** Reads the fields that are given, and judges them: a value for each field, or undefined. */
  function takeFields(values: object, what: string, access: Access): unknown[] {
    const { fields, leaves } = layout!;
    const taken = spare ?? Array.from({ length: fields.length });
    spare = undefined;
    // All fields in their order are the most common, and engines read what they enumerate quickly.
    let index = 0;
    // deno-lint-ignore guard-for-in
    for (const key in values) {
      if (index === fields.length || fields[index].name !== key) {
        return takeSome(values, what, access, taken, index);
      }
      const value = (values as Record<string, unknown>)[key];
      if (value === undefined) return takeSome(values, what, access, taken, index);
      taken[index] = fits(leaves[index], value) ? value : takeField(index, value, access);
      index++;
    }
    return index === fields.length ? taken : takeSome(values, what, access, taken, index);
  }

  /** The same for fields in any order, some of them only; the first ones are taken. */
  function takeSome(
    values: object,
    what: string,
    access: Access,
    taken: unknown[],
    done: number,
  ): unknown[] {
    const { fields } = layout!;
    let given = done;
    for (let index = done; index < fields.length; index++) {
      const value = (values as Record<string, unknown>)[fields[index].name];
      if (value !== undefined) given++;
      taken[index] = value === undefined ? value : takeField(index, value, access);
    }
    expectNoOthers(values, what, given);
    return taken;
  }

  function takeField(index: number, value: unknown, access: Access): unknown {
    const { fields, leaves, labels } = layout!;
    const leaf = leaves[index];
    if (leaf !== 0) return fits(leaf, value) ? value : refuseLeaf(leaf, value, labels[index]);
    return (fields[index].type as Type<unknown, unknown>).take!(value, labels[index], access);
  }

  /** Writes what was taken: to fields of zeros, or over others in a struct that owns nothing but texts. */
  function putFields(pane: Pane, at: number, taken: readonly unknown[], isNew: boolean): void {
    const { leaves, offsets } = layout!;
    const { view } = pane;
    for (let index = 0; index < leaves.length; index++) {
      const value = taken[index];
      if (value === undefined) continue;
      const leaf = leaves[index];
      const place = (at + offsets[index]) | 0;
      if (leaf !== 0 && leaf !== textLeaf) writeLeaf(leaf, view, place, value);
      else putField(pane, place, index, value, isNew);
    }
  }

  function putField(pane: Pane, at: number, index: number, value: unknown, isNew: boolean): void {
    const { fields, leaves, labels } = layout!;
    const type = fields[index].type as AnyType;
    if (leaves[index] === 0) (isNew ? putNew : put)(type, pane, at, value, labels[index]);
    else if (isNew) type.set(pane, at, value, labels[index]);
  }

  /** Writes what was taken over a struct: all of it, fields without a value becoming zeros, or some. */
  function putOver(
    type: Whole,
    pane: Pane,
    at: number,
    taken: readonly unknown[],
    isSome: boolean,
  ): void {
    const { fields, flat } = resolve();
    if (direct === undefined) {
      direct = textFields(fields);
      textOffsets = direct?.map((index) => fields[index].offset) ?? [];
    }
    if (direct === null) {
      if (!isSome) return writeAside(pane, at, type, room, taken);
      return writeSomeAside(pane, at, type, room, (made, from) => {
        putFields(made, from, taken, true);
        return fields.filter((_, index) => taken[index] !== undefined);
      });
    }
    if (direct.length > 0) {
      const { labels } = layout!;
      const places = direct;
      const values = texted;
      for (let i = 0; i < places.length; i++) {
        values[i] = taken[places[i]] ?? (isSome ? undefined : "");
      }
      writeTexts(pane, at, textOffsets, values, (index) => labels[places[index]]);
    }
    // Of what is not text nothing can fail any more.
    if (!isSome && taken.includes(undefined)) {
      if (flat) pane.bytes.fill(0, at, at + layout!.size);
      else {
        for (let index = 0; index < fields.length; index++) {
          const { type, offset } = fields[index];
          if (taken[index] === undefined && type.kind !== "text") {
            type.destroy(pane, (at + offset) | 0);
          }
        }
      }
    }
    putFields(pane, at, taken, false);
  }

  /** For what stands in the class, which may be called on another. */
  function expectClass(type: unknown): void {
    if (type === StructClass || Object.prototype.isPrototypeOf.call(StructClass, type as object)) {
      return;
    }
    throw new PermError(
      "INVALID_ARGUMENT",
      `Cannot use ${describe(type)} as the class ${name}: give it or one that extends it`,
    );
  }

  /** Reads a struct, of which nothing can be refused but references to another heap. */
  function takeHandle(from: Pane, at: number, what: string, access: Access): unknown {
    const { fields, flat, size } = resolve();
    if (flat) {
      if (layout!.align < 4 || size > wordwiseStruct) return from.bytes.slice(at, at + size);
      const taken = spareWords ?? new Int32Array(size >> 2);
      spareWords = undefined;
      const { words } = from;
      // What ended reads as nothing.
      if (words.length === 0) throw stale();
      for (let i = 0; i < taken.length; i++) taken[i] = words[((at >> 2) + i) | 0];
      return taken;
    }
    return fields.map((field) => {
      const type = field.type as AnyType;
      const value = type.get(from, (at + field.offset) | 0);
      return type.take === undefined ? value : type.take(value, `${what}.${field.name}`, access);
    });
  }

  /** Writes what is bytes alone; of a struct that shall keep the other fields, those that were given. */
  function putBytes(pane: Pane, at: number, taken: unknown, isSome: boolean): boolean {
    if (taken instanceof Stage) putStage(pane, at, taken, isSome);
    else if (Array.isArray(taken)) return false;
    else if (taken instanceof Int32Array) {
      const { view } = pane;
      for (let i = 0; i < taken.length; i++) view.setInt32((at + 4 * i) | 0, taken[i], true);
      spareWords = taken;
    } else pane.bytes.set(taken as Uint8Array, at);
    return true;
  }

  function putStage(pane: Pane, at: number, stage: Stage, isSome: boolean): void {
    const { given, words } = stage;
    if (isSome && given !== undefined) {
      for (let i = 0; i < given.length; i++) {
        const { type, offset } = layout!.fields[given[i]];
        copyBytes(stage.view, offset, pane.view, (at + offset) | 0, type.size);
      }
    } else if (words === undefined) pane.bytes.set(stage.pane.bytes, at);
    else {
      const { words: there } = pane;
      // What ended takes nothing.
      if (there.length === 0) throw stale();
      for (let i = 0; i < words.length; i++) there[((at >> 2) + i) | 0] = words[i];
    }
    spareStage = stage;
  }

  function expectKind(value: Handle, type: Type, what: string): void {
    if (!isKindOf(typeOf(value), type)) {
      refuseValue(what, value, `a ${name}, or an object of its fields`);
    }
  }

  function expectFields(values: object, what: string): void {
    for (const key of Object.keys(values)) {
      if (layout!.fields.some((field) => field.name === key)) continue;
      throw new PermError(
        "INVALID_ARGUMENT",
        `Cannot store ${describe(key)} in ${what}: ${name} has no such field`,
      );
    }
  }

  /** For methods, which may be called on anything. */
  function fieldsOf(handle: Handle): readonly Field[] {
    if (handle instanceof Handle && handle instanceof StructClass) return layout!.fields;
    throw new PermError(
      "INVALID_ARGUMENT",
      `Cannot use ${describe(handle)} as a ${name}: its methods are for structs of this kind`,
    );
  }

  function clear(pane: Pane, at: number): void {
    const { fields, flat, size } = resolve();
    if (!flat) {
      for (const { type, offset } of fields) {
        if (type.owns) type.destroy(pane, (at + offset) | 0);
      }
    }
    pane.bytes.fill(0, at, at + size);
  }

  class StructClass {
    static readonly kind = "struct";
    static readonly key = null;
    /** The struct's name, which a class that extends it goes by as well. */
    static readonly declared: string = name;

    /** Allocates; handles of what is there come from the makers. */
    constructor(heap: Heap, values?: unknown) {
      const access = accessTo(heap);
      const { size } = resolve();
      const { session } = access;
      let taken: unknown;
      if (values !== undefined) {
        taken = whole.take!(values as never, name, access);
        // What was taken may refer to objects of before.
        if (access.session !== session) throw stale();
      }
      const p = access.allocate(size);
      const pane = access.pane(p, size);
      const at = (p - pane.base) | 0;
      if (values !== undefined) {
        try {
          whole.putNew(pane, at, taken);
        } catch (error) {
          clear(pane, at);
          heap.free(p);
          throw error;
        }
      }
      return makerOf(new.target).alone(pane, at) as Handle & StructClass;
    }

    static get size(): number {
      return resolve().size;
    }

    static get align(): number {
      return resolve().align;
    }

    static get layout(): string {
      return resolve().text;
    }

    static get owns(): boolean {
      return resolve().owns;
    }

    static get fields(): readonly Field[] {
      return resolve().fields;
    }

    static at(heap: Heap, p: Pointer): Handle {
      expectClass(this);
      const pane = place(accessTo(heap), p, this);
      return this.open(pane, (p - pane.base) | 0);
    }

    static assign(target: unknown, values: unknown): unknown {
      expectClass(this);
      if (!(target instanceof Handle && target instanceof StructClass)) {
        throw new PermError(
          "INVALID_ARGUMENT",
          `Cannot assign to ${describe(target)}: give a ${name}`,
        );
      }
      expectValues(name, values);
      const pane = paneOf(target);
      if (values instanceof Handle) {
        this.set(pane, target.$at, values);
        return target;
      }
      resolve();
      const taken = takeValues(values, name, pane.access);
      const now = paneOf(target);
      if (putBytes(now, target.$at, taken, true)) return target;
      putOver(whole, now, target.$at, taken as unknown[], true);
      spare = taken as unknown[];
      return target;
    }

    static get(pane: Pane, at: number): Handle {
      return makerOf(this).inner(pane, at);
    }

    static open(pane: Pane, at: number): Handle {
      return makerOf(this).alone(pane, at);
    }

    static reader(alone: boolean): Reader {
      const { alone: open, inner: get } = makerOf(this);
      return alone ? open : get;
    }

    static set(pane: Pane, at: number, value: unknown, what: string = name): void {
      if (value instanceof Handle) {
        expectKind(value, this, what);
        const from = paneOf(value);
        const start = value.$at;
        if (from.base + start === pane.base + at) return;
        const { flat, size } = resolve();
        if (flat) {
          pane.bytes.set(from.bytes.subarray(start, start + size), at);
          return;
        }
      }
      this.put(pane, at, this.take(value, what, pane.access));
    }

    static take(value: unknown, what: string, access: Access): unknown {
      resolve();
      if (!(value instanceof Handle)) {
        expectValues(what, value);
        return takeValues(value, what, access);
      }
      expectKind(value, this, what);
      return takeHandle(paneOf(value), value.$at, what, access);
    }

    static put(pane: Pane, at: number, taken: unknown): void {
      if (putBytes(pane, at, taken, false)) return;
      putOver(this as unknown as Whole, pane, at, taken as unknown[], false);
      spare = taken as unknown[];
    }

    static putNew(pane: Pane, at: number, taken: unknown): void {
      if (putBytes(pane, at, taken, false)) return;
      putFields(pane, at, taken as unknown[], true);
      spare = taken as unknown[];
    }

    static exchange(pane: Pane, at: number, other: Pane, otherAt: number): void {
      for (const { type, offset } of resolve().fields) {
        exchangeValues(type, pane, (at + offset) | 0, other, (otherAt + offset) | 0);
      }
    }

    static destroy(pane: Pane, at: number): void {
      clear(pane, at);
    }

    static walk(pane: Pane, at: number, walker: Walker): void {
      for (const { type, offset } of resolve().fields) type.walk?.(pane, (at + offset) | 0, walker);
    }

    static parts(): readonly Type[] {
      return resolve().fields.map(({ type }) => type);
    }

    static texts(): readonly number[] | null {
      if (texts !== undefined) return texts;
      const found: number[] = [];
      for (const { type, offset } of resolve().fields) {
        const places = type.texts === undefined ? [] : type.texts();
        if (places === null) return texts = null;
        for (const at of places) found.push(offset + at);
      }
      return texts = found;
    }

    toJSON(this: Handle): Record<string, unknown> {
      const out: Record<string, unknown> = {};
      for (const { name: field, type, offset } of fieldsOf(this)) {
        const pane = paneOf(this);
        out[field] = type.kind === "ref"
          ? addressText(pane.access.heap.load(pane.base + this.$at + offset))
          : plain(type.get(pane, (this.$at + offset) | 0), type);
      }
      return out;
    }

    $copy(this: Handle): Record<string, unknown> {
      const out: Record<string, unknown> = {};
      for (const { name: field, type, offset } of fieldsOf(this)) {
        out[field] = copyOf(type.get(paneOf(this), (this.$at + offset) | 0), type);
      }
      return out;
    }

    [Symbol.iterator](this: Handle): IterableIterator<[string, unknown]> {
      const fields = fieldsOf(this);
      let index = 0;
      const next = (): IteratorResult<[string, unknown]> => {
        if (index === fields.length) return { done: true, value: undefined };
        const { name: field, type, offset } = fields[index++];
        return { done: false, value: [field, type.get(paneOf(this), (this.$at + offset) | 0)] };
      };
      return {
        next,
        [Symbol.iterator]() {
          return this;
        },
      };
    }

    [Symbol.for("nodejs.util.inspect.custom")](
      this: Handle,
      depth: number,
      options: InspectOptions,
      inspect: Inspect,
    ): string {
      fieldsOf(this);
      if (depth < 0) return `[${typeOf(this).name}]`;
      return show(this, layout!, inspect, { ...options, depth });
    }
  }
  Object.setPrototypeOf(StructClass.prototype, Handle.prototype);
  Object.defineProperty(StructClass, "name", { value: name });

  const whole = StructClass as unknown as Whole;
  const room: Room = { pane: undefined };
  /** Which fields are texts, if nothing else owns memory: else null. */
  let direct: readonly number[] | null | undefined;
  let textOffsets: readonly number[] = [];
  const texted: unknown[] = [];
  /** What fields are taken into; taken away until it was written. */
  let spare: unknown[] | undefined;
  let spareWords: Int32Array | undefined;
  /** The same for what is bytes alone, and how often it was away. */
  let spareStage: Stage | undefined;
  let missed = 0;
  /** Known once it was asked for. */
  let texts: readonly number[] | null | undefined;
  /** What makes the handles of this class, or of one that extends it. */
  let made: Maker | undefined;
  const extended = new Map<unknown, Maker>();
  function makerOf(type: { prototype: object }): Maker {
    resolve();
    if (type === StructClass) return made!;
    let maker = extended.get(type);
    if (maker === undefined) extended.set(type, maker = makerFor(type.prototype));
    return maker;
  }
  return StructClass as unknown as StructType<S>;
}

type Inspect = (value: unknown, options?: InspectOptions) => string;
interface InspectOptions {
  depth?: number;
}

function show(handle: Handle, layout: Layout, inspect: Inspect, options: InspectOptions): string {
  const { name } = typeOf(handle);
  if (handle.$view.buffer.detached) return `${name} <ended>`;
  const pane = handle.$pane;
  const out: Record<string, unknown> = {};
  for (const { name: field, type, offset } of layout.fields) {
    if (type.kind !== "ref") out[field] = type.get(pane, (handle.$at + offset) | 0);
    else {
      const p = pane.access.heap.load(pane.base + handle.$at + offset);
      out[field] = shownReference(p, type);
    }
  }
  return `${name} ${inspect(out, options)}`;
}

function expectValues(what: string, values: unknown): asserts values is object {
  if (typeof values === "object" && values !== null && !Array.isArray(values)) return;
  refuseValue(what, values, "an object of its fields");
}
