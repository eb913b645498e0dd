/**
 * HashMap: keys to values by hash, in the order in which keys were first set, as JavaScript's Map.
 *
 * @module
 */

import { adapter } from "../ffi/mod.ts";
import { containerType, elementType, keysOf, shapeOf } from "./container.ts";
import type { ObjectType } from "./handle.ts";
import { registerKind } from "./kinds.ts";
import { lookupFor } from "./lookup.ts";
import { hasten, MapHandle, type MapParts, takePairs } from "./map.ts";
import { type InputOf, type KeyType, type Type, type ValueOf, writingOf } from "./type.ts";
import type { Heap } from "../heap/heap.ts";

/**
 * A live HashMap in a heap. A value stays where it is until its key is deleted, so what `get` gave
 * stays good while others are set and deleted.
 *
 * @typeParam K The keys' type.
 * @typeParam V The values' type.
 */
export type HashMap<K, V> = MapHandle<ValueOf<K>, ValueOf<V>, InputOf<K>, InputOf<V>>;

/** What a HashMap is made or assigned from. */
export type HashMapInput<K, V> = Iterable<readonly [InputOf<K>, InputOf<V>]>;

/** The class, and type, of HashMaps with such keys and values. */
export interface HashMapType<K, V> extends ObjectType<HashMap<K, V>, HashMapInput<K, V>> {
  /**
   * Makes one in a heap.
   *
   * @throws {PermError} `INVALID_ARGUMENT` for entries that cannot be; `OUT_OF_MEMORY`, `READ_ONLY`.
   */
  new (heap: Heap, entries?: HashMapInput<K, V>): HashMap<K, V>;
}

const made = new WeakMap<object, WeakMap<object, unknown>>();

/**
 * The type of hash maps from `key` to `value`: a class to make them with, and what a struct's field,
 * another container or a root may be.
 *
 * @param key `text`, `bool`, or a type of numbers.
 * @param value Any type: `f64`, `text`, a struct, `ref(…)`, another container.
 * @throws {PermError} `INVALID_ARGUMENT` for what is no type, or none that keys can have.
 *
 * @example
 * ```ts
 * import { Heap } from "@perm/heap";
 * import { f64, HashMap, struct, text } from "@perm/heap/data";
 *
 * const User = struct("User", { score: f64, name: text });
 * using heap = Heap.open({ size: 1 << 20 });
 * const users = new (HashMap(text, User))(heap);
 * users.set("ann", { score: 1, name: "Ann" });
 * users.get("ann")!.score += 1;
 * ```
 */
export function HashMap<K, V>(key: K & KeyType<K>, value: V): HashMapType<K, V> {
  const keyType = elementType("a HashMap's keys", key);
  const valueType = elementType("a HashMap's values", value);
  let byValue = made.get(keyType);
  if (byValue === undefined) made.set(keyType, byValue = new WeakMap());
  let type = byValue.get(valueType);
  if (type === undefined) byValue.set(valueType, type = make(keyType, valueType));
  return type as HashMapType<K, V>;
}

function make(key: Type<unknown, unknown>, value: Type<unknown, unknown>): unknown {
  const name = () => `HashMap(${key.name}, ${value.name})`;
  const findShape = () => shapeOf("HashMap", key, value.size);
  const keys = keysOf("HashMap", key);
  const lookup = lookupFor(keys, () => value.size);
  const $of: MapParts = {
    ...{ name, keys, value, findShape, lookup },
    writing: writingOf(value),
    shape: 0,
    size: 0,
  };
  const prototype = Object.create(MapHandle.prototype, { $of: { value: $of } });
  if (lookup.isAlone && adapter.runtime === "bun") hasten($of, prototype);
  return containerType(prototype, {
    kind: "HashMap",
    name,
    size: 72,
    parts: [key, value],
    shape: findShape,
    take: (given, what, access) => takePairs(value, given, what, access),
  });
}

registerKind("HashMap", (key: Type, value: Type) => HashMap(key, value) as Type);
