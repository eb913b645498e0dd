/**
 * What HashMap and OrderedMap share: keys and values by the names that JavaScript's Map has for them.
 *
 * Invariant: a value stays where it is until its key is deleted, so a handle to it stays good.
 *
 * @module
 */

import { describe, native, PermError } from "../ffi/mod.ts";
import { ColumnsHandle, type ColumnSource } from "./columns.ts";
import {
  changesAt,
  type Container,
  failed,
  type Keys,
  paneFor,
  passed,
  passText,
  refill,
  textAddress,
  Walk,
  walkBlocks,
} from "./container.ts";
import {
  type Access,
  Handle,
  isPlaceOf,
  type Pane,
  paneOf,
  readerOf,
  refuseReceiver,
  setKind,
} from "./handle.ts";
import { type Lookup, unknownMap } from "./lookup.ts";
import { copyOf, plain, shown } from "./show.ts";
import { refuseValue, type Type, type Walker, type Writing } from "./type.ts";

const lengthAt = 8;
/** What an error calls a value. */
const valueName = "a map's value";

/** What a map's class knows of its keys and values. */
export interface MapParts {
  readonly name: () => string;
  readonly keys: Keys;
  readonly value: Type<unknown, unknown>;
  readonly writing: Writing;
  /** The header's first word, and bytes of a value; 0 until they are first needed. */
  shape: number;
  size: number;
  /** What reads a value; known from then on. */
  read?: (pane: Pane, at: number) => unknown;
  readonly findShape: () => number;
  /** Looks keys up without native code, where it can. */
  readonly lookup: Lookup;
  /** The class's prototype, if its `get` changes. */
  prototype?: { get: Get };
}

/** A live map in a heap. */
export class MapHandle<K, V, KI, VI> extends ColumnsHandle<V>
  implements Container, Iterable<[K, V]> {
  /**
   * Set on each class's prototype.
   *
   * @ignore
   */
  declare readonly $of: MapParts;

  /** How many keys there are. */
  get size(): number {
    if (this.$kind !== "map") refuseReceiver(this, "map");
    return this.$view.getUint32((this.$at + lengthAt) | 0, true);
  }

  /**
   * The value of a key; structs and containers as live handles.
   *
   * @returns `undefined` when there is no such key.
   * @throws {PermError} `INVALID_ARGUMENT` for what no key can be.
   */
  get(key: KI): V | undefined {
    if (this.$kind !== "map") refuseReceiver(this, "map");
    const of = this.$of;
    const { lookup } = of;
    let at = lookup.find(this, key);
    if (at < 0) at = findSlow(this, key);
    if (at === 0) {
      // JavaScriptCore leaves out what was never done, then sees through the handle.
      const none = nothing();
      return none;
    }
    return of.read!(lookup.pane, at) as V;
  }

  /** Whether there is that key. */
  has(key: KI): boolean {
    if (this.$kind !== "map") refuseReceiver(this, "map");
    const at = this.$of.lookup.find(this, key);
    return at < 0 ? findKey(this, key) !== 0 : at !== 0;
  }

  /**
   * Writes a key's value; what it owned before is freed. Structs are copied, field by field; plain
   * objects do as well.
   *
   * @throws {PermError} `INVALID_ARGUMENT` for a key or value that cannot be one (then a key that is
   * new stays out); `OUT_OF_MEMORY`, `READ_ONLY`.
   */
  set(key: KI, value: VI): this {
    if (this.$kind !== "map") refuseReceiver(this, "map");
    const of = this.$of;
    let taken: unknown = value;
    if (of.writing.takes) {
      const { value: type } = of;
      const isObject = typeof value === "object" && value instanceof Handle && type.kind !== "ref";
      if (isObject && isPlaceOf(value, findKey(this, key), type)) return this;
      taken = type.take!(value, valueName, paneOf(this).access);
    }
    setTaken(this, key, taken);
    return this;
  }

  /**
   * The value of a key, which is made when there is none: of zeros, or what `make` gives.
   *
   * @throws {PermError} `INVALID_ARGUMENT`, `OUT_OF_MEMORY`, `READ_ONLY`.
   */
  getOrSet(key: KI, make?: () => VI): V {
    expectMap(this);
    let p = findKey(this, key);
    if (p === 0) {
      if (make !== undefined) return this.set(key, make()).get(key) as V;
      p = makeKey(this, key);
      p -= p % 2;
    }
    const { read, size } = this.$of;
    const pane = paneFor(this.$pane, p, size);
    return read!(pane, (p - pane.base) | 0) as V;
  }

  /**
   * Removes a key, and frees what its value owned.
   *
   * @returns Whether it was there.
   * @throws {PermError} `READ_ONLY`.
   */
  delete(key: KI): boolean {
    expectMap(this);
    const of = this.$of;
    if (of.value.owns) {
      const p = findKey(this, key);
      if (p === 0) return false;
      expectWritable(this);
      const pane = paneFor(this.$pane, p, of.size);
      of.value.destroy(pane, (p - pane.base) | 0);
    }
    of.keys.pass(key);
    const { $pane: pane } = this;
    const { a, b } = passed;
    const done = native.ph_map_delete(pane.handle, pane.base + this.$at, shapeFor(this), a, b);
    if (done < 0) failed(this, done);
    return done === 1;
  }

  /** Removes all keys, and gives the memory back. */
  clear(): void {
    expectMap(this);
    expectWritable(this);
    destroyValues(this);
    const { $pane: pane } = this;
    const result = native.ph_clear(pane.handle, pane.base + this.$at, shapeFor(this));
    if (result < 0) failed(this, result);
  }

  /** Calls a function with each value and key, in order. */
  forEach(action: (value: V, key: K, map: this) => void): void {
    expectMap(this);
    const walk = new Entries<K, V>(this, shapeFor(this), changesAt.map, false);
    for (let at = walk.$step(); at >= 0; at = walk.$step()) {
      const key = walk.$takeKey() as K;
      action(walk.$read(walk.$pane, at) as V, key, this);
    }
  }

  /** Keys and values, in order. Ends with `STALE` when the map changes meanwhile. */
  entries(): IterableIterator<[K, V]> {
    expectMap(this);
    return new Entries<K, V>(this, shapeFor(this), changesAt.map, false);
  }

  /** The keys, in order. */
  keys(): IterableIterator<K> {
    expectMap(this);
    return new KeysWalk<K>(this, shapeFor(this), changesAt.map, false);
  }

  /** The values, in order. */
  values(): IterableIterator<V> {
    expectMap(this);
    return new Values<V>(this, shapeFor(this), changesAt.map, false);
  }

  /** Keys and values, in order. */
  [Symbol.iterator](): IterableIterator<[K, V]> {
    expectMap(this);
    return this.entries();
  }

  /** `[key, value]` pairs, for `JSON.stringify`; `new Map(pairs)` reads them. */
  toJSON(): [unknown, unknown][] {
    expectMap(this);
    const { value: type } = this.$of;
    return Array.from(this, ([key, value]) => [
      typeof key === "bigint" ? key.toString() : key,
      plain(value, type),
    ]);
  }

  /** @ignore */
  $columnSource(): ColumnSource {
    const { value: type, name } = this.$of;
    paneOf(this);
    return { handle: this, type, shape: shapeFor(this), name: name(), length: this.size };
  }

  /** @internal */
  $copy(): [unknown, unknown][] {
    return Array.from(this, ([key, value]) => [key, copyOf(value, this.$of.value)]);
  }

  /** What `console.log` shows. */
  [Symbol.for("nodejs.util.inspect.custom")](
    depth: number,
    options: object,
    inspect: (value: unknown, options?: unknown) => string,
  ): string {
    expectMap(this);
    if (this.$view.buffer.detached) return `${this.$of.name()} <ended>`;
    if (depth < 0) return `[${this.$of.name()}]`;
    return inspect(shownAll(this), { ...options, depth }).replace(/^Map/, this.$of.name());
  }

  /** Proves what the map's memory must be. @throws {PermError} `CORRUPT`. @internal */
  $check(): void {
    const { $pane: pane } = this;
    const result = native.ph_container_check(pane.handle, pane.base + this.$at, shapeFor(this));
    if (result < 0) failed(this, result);
  }

  /** @internal */
  $destroy(): void {
    destroyValues(this);
    const { $pane: pane } = this;
    const result = native.ph_destroy(pane.handle, pane.base + this.$at, shapeFor(this));
    if (result < 0) failed(this, result);
  }

  /** @internal */
  $fill(value: unknown, what: string): void {
    for (const pair of expectPairs(value, what)) {
      const [key, each] = expectPair(pair, what);
      this.set(key as KI, each as VI);
    }
  }

  /** @internal */
  $put(taken: unknown): void {
    refill<MapHandle<K, V, KI, VI>>(this, shapeFor(this), this.size === 0, (map) => {
      for (const [key, value] of taken as [unknown, unknown][]) setTaken(map, key, value);
    });
  }

  /** @internal */
  $walk(walker: Walker): void {
    const { value } = this.$of;
    walkBlocks(this, shapeFor(this), walker);
    if (value.walk === undefined) return;
    for (const place of new Places(this, shapeFor(this), changesAt.map, false)) {
      const pane = paneFor(this.$pane, place[1], value.size);
      value.walk(pane, (place[1] - pane.base) | 0, walker);
    }
  }
}

setKind(MapHandle.prototype, "map");

/** What is no map has other things where a map has its parts. */
function expectMap(map: Handle): void {
  if (map.$kind !== "map") refuseReceiver(map, "map");
}

function shownAll(map: MapHandle<unknown, unknown, never, never>): Map<unknown, unknown> {
  return new Map(Array.from(map, ([key, value]) => [key, shown(value, map.$of.value)]));
}

// Functions, not private methods: handles are made without running the class's constructor.

type AnyMap = Handle & { readonly $of: MapParts };

/** A map's shape; from then on its class knows the size of values as well. @internal */
export function shapeFor(map: AnyMap): number {
  const of = map.$of;
  if (of.shape === 0) {
    of.size = of.value.size;
    of.read = readerOf(of.value);
    of.shape = of.findShape();
  }
  return of.shape;
}

/** Offset of the key's value in its lookup's pane, 0 when there is none, by native code. */
function findSlow(map: AnyMap, key: unknown): number {
  const p = findKey(map, key);
  return p === 0 ? 0 : map.$of.lookup.show(map, p, map.$of.size);
}

function nothing(): undefined {}

type Get = (this: AnyMap, key: unknown) => unknown;

/**
 * `get` of classes whose lookups need no native code, where the engine is JavaScriptCore. What an
 * optimised loop has met may happen in it again: one call of native code, and all that the loop knows
 * is read anew each time. So this has none on its way: what is not known leaves by an exception,
 * which no optimised loop follows, and until a map is known again the class has the other `get`.
 */
function quickGet(this: AnyMap, key: unknown): unknown {
  const of = this.$of;
  let at;
  try {
    at = of.lookup.seek(this, key);
  } catch (error) {
    return getUnknown(this, key, error);
  }
  return at > 0 ? of.read!(of.lookup.pane, at) : getRare(this, key, at);
}

function getRare(map: AnyMap, key: unknown, at: number): unknown {
  if (at === 0) return undefined;
  const slow = findSlow(map, key);
  return slow === 0 ? undefined : map.$of.read!(map.$of.lookup.pane, slow);
}

function getUnknown(map: AnyMap, key: unknown, error: unknown): unknown {
  expectMap(map);
  if (error !== unknownMap) throw error;
  shapeFor(map);
  const { lookup, prototype } = map.$of;
  if (lookup.isFirst()) return getRare(map, key, -1);
  const patient = MapHandle.prototype.get as Get;
  if (!lookup.learn(map)) prototype!.get = patient;
  return patient.call(map, key);
}

/** Gives a class of maps the quick `get`, and again each time when a map has become known. */
export function hasten(of: MapParts, prototype: object): void {
  Object.defineProperty(prototype, "get", { value: quickGet, writable: true });
  of.prototype = prototype as { get: Get };
  of.lookup.onKnown = () => of.prototype!.get = quickGet;
}

/** Address of a key's value, 0 when there is none. */
function findKey(map: AnyMap, key: unknown): number {
  const of = map.$of;
  const { keys } = of;
  const pane = map.$pane;
  let a: number, b: number;
  if (keys.path === 0) {
    b = passText(key as string, keys.what);
    a = textAddress();
  } else if (
    keys.path === 1 && typeof key === "number" && (key as number) >= keys.low &&
    (key as number) <= keys.high &&
    Math.floor(key as number) === key
  ) {
    a = key as number;
    b = 0;
  } else {
    keys.pass(key);
    a = passed.a;
    b = passed.b;
  }
  const p = native.ph_map_get(pane.handle, pane.base + map.$at, of.shape || shapeFor(map), a, b);
  if (p < 0) failed(map, p);
  return p;
}

/** Address of a key's value, or that of one that is made, + 1. */
function makeKey(map: AnyMap, key: unknown): number {
  const of = map.$of;
  const pane = map.$pane;
  of.keys.pass(key);
  const { a, b } = passed;
  const p = native.ph_map_set(pane.handle, pane.base + map.$at, of.shape || shapeFor(map), a, b);
  if (p < 0) failed(map, p);
  return p;
}

/** Writes a key's value, which was taken; a new key without one stays out. */
function setTaken(map: AnyMap, key: unknown, taken: unknown): void {
  const made = makeKey(map, key);
  const { writing, size } = map.$of;
  // Values are aligned: an odd address is that of a new one.
  const p = made - made % 2;
  const pane = paneFor(map.$pane, p, size);
  try {
    if (p === made) writing.put(pane, (p - pane.base) | 0, taken, valueName);
    else writing.putNew(pane, (p - pane.base) | 0, taken, valueName);
  } catch (error) {
    if (p !== made) (map as Handle as AnyMapHandle).delete(key as never);
    throw error;
  }
}

type AnyMapHandle = MapHandle<unknown, unknown, never, never>;

/** Before values are destroyed, which must not happen to a heap that is only read. */
function expectWritable(map: AnyMap): void {
  const result = native.ph_writable(map.$pane.handle);
  if (result < 0) failed(map, result);
}

function destroyValues(map: AnyMap): void {
  const { value } = map.$of;
  if (!value.owns) return;
  for (const place of new Places(map, shapeFor(map), changesAt.map, false)) {
    const pane = paneFor(map.$pane, place[1], value.size);
    value.destroy(pane, (place[1] - pane.base) | 0);
  }
}

function expectPairs(value: unknown, what: string): Iterable<readonly [unknown, unknown]> {
  const pairs = value as Iterable<readonly [unknown, unknown]>;
  if (typeof value === "object" && value !== null) {
    if (typeof pairs[Symbol.iterator] === "function") return pairs;
    return Object.entries(value);
  }
  throw new PermError(
    "INVALID_ARGUMENT",
    `Cannot store ${describe(value)} in ${what}: give a Map, or an array of [key, value] pairs`,
  );
}

function expectPair(pair: unknown, what: string): Iterable<unknown> & readonly [unknown, unknown] {
  if (typeof pair !== "object" || pair === null || !(Symbol.iterator in pair)) {
    refuseValue(what, pair, "a Map, or an array of [key, value] pairs");
  }
  return pair as never;
}

/** Reads what a map shall hold. */
export function takePairs(
  type: Type<unknown, unknown>,
  given: unknown,
  what: string,
  access: Access,
): unknown {
  const taken: [unknown, unknown][] = [];
  for (const pair of expectPairs(given, what)) {
    const [key, value] = expectPair(pair, what);
    taken.push([key, type.take === undefined ? value : type.take(value, valueName, access)]);
  }
  return taken;
}

/** @internal */
export class Entries<K, V> extends Walk<[K, V]> {
  readonly $readKey: (pane: Pane, given: number) => unknown;
  readonly $read: (pane: Pane, at: number) => unknown;

  constructor(
    map: { $of: MapParts } & Handle,
    shape: number,
    at: number,
    backward: boolean,
    prepare?: (buffer: Float64Array<ArrayBuffer>) => void,
  ) {
    super(map, shape, at, backward, prepare);
    this.$readKey = map.$of.keys.read;
    this.$read = map.$of.read!;
  }

  override next(): IteratorResult<[K, V]> {
    const at = this.$step();
    return { done: at < 0, value: this.$value(at) } as IteratorResult<[K, V]>;
  }

  /** @internal */
  $value(at: number): [unknown, unknown] | undefined {
    return at < 0 ? undefined : [this.$takeKey(), this.$read(this.$pane, at)];
  }

  /** @internal */
  $takeKey(): unknown {
    const next = this.$next;
    this.$next = next + 1;
    return this.$readKey(this.$pane, this.$pairs[2 * next]);
  }
}

/** @internal */
export class KeysWalk<K> extends Walk<K> {
  readonly $readKey: (pane: Pane, given: number) => unknown;

  constructor(
    map: { $of: MapParts } & Handle,
    shape: number,
    at: number,
    backward: boolean,
    prepare?: (buffer: Float64Array<ArrayBuffer>) => void,
  ) {
    super(map, shape, at, backward, prepare);
    this.$readKey = map.$of.keys.read;
  }

  override next(): IteratorResult<K> {
    const at = this.$step();
    return { done: at < 0, value: at < 0 ? undefined : this.$takeKey() } as IteratorResult<K>;
  }

  /** @internal */
  $takeKey(): unknown {
    const next = this.$next;
    this.$next = next + 1;
    return this.$readKey(this.$pane, this.$pairs[2 * next]);
  }
}

/** @internal */
export class Values<V> extends Walk<V> {
  readonly $read: (pane: Pane, at: number) => unknown;

  constructor(
    map: { $of: MapParts } & Handle,
    shape: number,
    at: number,
    backward: boolean,
    prepare?: (buffer: Float64Array<ArrayBuffer>) => void,
  ) {
    super(map, shape, at, backward, prepare);
    this.$read = map.$of.read!;
  }

  override next(): IteratorResult<V> {
    const at = this.$step();
    return { done: at < 0, value: this.$value(at) } as IteratorResult<V>;
  }

  /** @internal */
  $value(at: number): unknown {
    if (at < 0) return undefined;
    this.$next += 1;
    return this.$read(this.$pane, at);
  }
}

/** Where keys and values stand. @internal */
class Places extends Walk<[number, number]> {
  override next(): IteratorResult<[number, number]> {
    const done = this.$step() < 0;
    let value: [number, number] | undefined;
    if (!done) {
      value = [this.$pairs[2 * this.$next], this.$place()];
      this.$next += 1;
    }
    return { done, value } as IteratorResult<[number, number]>;
  }
}
