/**
 * OrderedMap: keys to values in the order of the keys, with ranges and prefixes, both ways.
 *
 * Numbers order by value; text by its code points, which is JavaScript's `<` but for characters beyond
 * U+FFFF (these go last here).
 *
 * @module
 */

import { check, native } from "../ffi/mod.ts";
import { expectOptions } from "../heap/options.ts";
import type { Heap } from "../heap/heap.ts";
import {
  changesAt,
  containerType,
  elementType,
  keysOf,
  passed,
  shapeOf,
  walkField,
} from "./container.ts";
import { registerKind } from "./kinds.ts";
import { type ObjectType, paneOf, refuseReceiver } from "./handle.ts";
import { Lookup } from "./lookup.ts";
import { Entries, KeysWalk, MapHandle, type MapParts, shapeFor, takePairs, Values } from "./map.ts";
import { type InputOf, type KeyType, type Type, type ValueOf, writingOf } from "./type.ts";

/** How a range is walked. */
export interface RangeOptions {
  /** From the end to the beginning; false by default. */
  reverse?: boolean;
  /** Whether a key equal to `low` belongs to it; true by default. */
  includeLow?: boolean;
  /** Whether a key equal to `high` belongs to it; false by default. */
  includeHigh?: boolean;
}

const how = { atLeast: 0, above: 1, pastPrefix: 2, begin: 3, end: 4, second: 10 } as const;

/** A live OrderedMap in a heap. */
export class OrderedMapHandle<K, V, KI, VI> extends MapHandle<K, V, KI, VI> {
  /**
   * Keys and values from `low` to before `high`, in order; either may be left out.
   *
   * @throws {PermError} `INVALID_ARGUMENT` for what no key can be; `STALE`, when iterating, after a change.
   */
  range(low?: KI, high?: KI, options: RangeOptions = {}): IterableIterator<[K, V]> {
    expectOrdered(this);
    return new Entries<K, V>(...rangeOf(this, low, high, options));
  }

  /** The keys of a range. */
  rangeKeys(low?: KI, high?: KI, options: RangeOptions = {}): IterableIterator<K> {
    expectOrdered(this);
    return new KeysWalk<K>(...rangeOf(this, low, high, options));
  }

  /** The values of a range. */
  rangeValues(low?: KI, high?: KI, options: RangeOptions = {}): IterableIterator<V> {
    expectOrdered(this);
    return new Values<V>(...rangeOf(this, low, high, options));
  }

  /** Keys that begin with some text, and their values, in order. Only for text keys. */
  prefix(prefix: KI & string, options: { reverse?: boolean } = {}): IterableIterator<[K, V]> {
    expectOrdered(this);
    return new Entries<K, V>(
      this,
      shapeFor(this),
      changesAt.map,
      expectOptions("prefix", options, ["reverse"]).reverse === true,
      (buffer) => {
        this.$of.keys.pass(prefix);
        place(this, how.atLeast, buffer);
        this.$of.keys.pass(prefix);
        place(this, how.pastPrefix + how.second, buffer);
      },
    );
  }

  /** The first key and its value. */
  first(): [K, V] | undefined {
    expectOrdered(this);
    return one(this.entries());
  }

  /** The last key and its value. */
  last(): [K, V] | undefined {
    expectOrdered(this);
    return one(this.range(undefined, undefined, { reverse: true }));
  }

  /** The least key that is not below `key`, and its value. */
  ceiling(key: KI): [K, V] | undefined {
    expectOrdered(this);
    return one(this.range(key));
  }

  /** The greatest key that is not above `key`, and its value. */
  floor(key: KI): [K, V] | undefined {
    expectOrdered(this);
    return one(this.range(undefined, key, { reverse: true, includeHigh: true }));
  }
}

/** A HashMap has no order to ask for. */
function expectOrdered(map: unknown): void {
  if (!(map instanceof OrderedMapHandle)) refuseReceiver(map, "OrderedMap");
}

function one<T>(walk: IterableIterator<T>): T | undefined {
  const { value, done } = walk.next();
  walk.return?.();
  return done ? undefined : value;
}

type AnyMap = OrderedMapHandle<unknown, unknown, never, never>;

/** Places an end of a walk at the key that was passed. */
function place(map: AnyMap, where: number, buffer: Float64Array<ArrayBuffer>): void {
  const pane = paneOf(map);
  const { a, b } = passed;
  check(native.ph_map_seek(pane.handle, pane.base + map.$at, shapeFor(map), a, b, where, buffer));
}

function rangeOf<K, V, KI, VI>(
  map: OrderedMapHandle<K, V, KI, VI>,
  low: KI | undefined,
  high: KI | undefined,
  options: RangeOptions,
): ConstructorParameters<typeof Entries> {
  const { reverse = false, includeLow = true, includeHigh = false } = expectOptions(
    "range",
    options,
    ["reverse", "includeLow", "includeHigh"],
  );
  const prepare = (buffer: Float64Array<ArrayBuffer>) => {
    const any = map as unknown as AnyMap;
    for (const second of [false, true]) {
      const key = second ? high : low;
      let where: number = second ? how.end : how.begin;
      passed.a = passed.b = 0;
      if (key !== undefined) {
        map.$of.keys.pass(key);
        where = (second ? includeHigh : !includeLow) ? how.above : how.atLeast;
      } else if (map.$of.keys.path === 0) map.$of.keys.pass("");
      place(any, where + (second ? how.second : 0), buffer);
    }
    buffer[walkField.backward] = reverse ? 1 : 0;
  };
  return [map, shapeFor(map), changesAt.map, reverse, prepare];
}

/**
 * A live OrderedMap. A value stays where it is until its key is deleted, so what `get` gave stays good
 * while others are set and deleted.
 *
 * @typeParam K The keys' type.
 * @typeParam V The values' type.
 */
export type OrderedMap<K, V> = OrderedMapHandle<ValueOf<K>, ValueOf<V>, InputOf<K>, InputOf<V>>;

/** What an OrderedMap is made or assigned from. */
export type OrderedMapInput<K, V> = Iterable<readonly [InputOf<K>, InputOf<V>]>;

/** The class, and type, of OrderedMaps with such keys and values. */
export interface OrderedMapType<K, V> extends ObjectType<OrderedMap<K, V>, OrderedMapInput<K, V>> {
  /**
   * Makes one in a heap.
   *
   * @throws {PermError} `INVALID_ARGUMENT` for entries that cannot be; `OUT_OF_MEMORY`, `READ_ONLY`.
   */
  new (heap: Heap, entries?: OrderedMapInput<K, V>): OrderedMap<K, V>;
}

const made = new WeakMap<object, WeakMap<object, unknown>>();

/**
 * The type of ordered maps from `key` to `value`: a class to make them with, and what a struct's field,
 * another container or a root may be.
 *
 * @param key `text`, `bool`, or a type of numbers; NaN is no key here.
 * @param value Any type: `f64`, `text`, a struct, `ref(…)`, another container.
 * @throws {PermError} `INVALID_ARGUMENT` for what is no type, or none that keys can have.
 *
 * @example
 * ```ts
 * import { Heap } from "@perm/heap";
 * import { OrderedMap, text, u32 } from "@perm/heap/data";
 *
 * using heap = Heap.open({ size: 1 << 20 });
 * const ages = new (OrderedMap(text, u32))(heap, [["bob", 41], ["ann", 40], ["cid", 42]]);
 * console.log([...ages.range("b")]); // [["bob", 41], ["cid", 42]]
 * ```
 */
export function OrderedMap<K, V>(key: K & KeyType<K>, value: V): OrderedMapType<K, V> {
  const keyType = elementType("an OrderedMap's keys", key);
  const valueType = elementType("an OrderedMap's values", value);
  let byValue = made.get(keyType);
  if (byValue === undefined) made.set(keyType, byValue = new WeakMap());
  let type = byValue.get(valueType);
  if (type === undefined) byValue.set(valueType, type = make(keyType, valueType));
  return type as OrderedMapType<K, V>;
}

function make(key: Type<unknown, unknown>, value: Type<unknown, unknown>): unknown {
  const name = () => `OrderedMap(${key.name}, ${value.name})`;
  const findShape = () => shapeOf("OrderedMap", key, value.size);
  const $of: MapParts = {
    name,
    keys: keysOf("OrderedMap", key),
    value,
    writing: writingOf(value),
    shape: 0,
    size: 0,
    findShape,
    lookup: new Lookup(() => value.size),
  };
  const prototype = Object.create(OrderedMapHandle.prototype, { $of: { value: $of } });
  return containerType(prototype, {
    kind: "OrderedMap",
    name,
    size: 72,
    parts: [key, value],
    shape: findShape,
    take: (given, what, access) => takePairs(value, given, what, access),
  });
}

registerKind("OrderedMap", (key: Type, value: Type) => OrderedMap(key, value) as Type);
