/**
 * Typed data in a heap: structs, text and containers that live in heap memory, read and written like
 * ordinary objects, with nothing to serialise and nothing to load.
 *
 * @module
 */

export { array, type ArrayInput, type ArrayType, FixedArray } from "./array.ts";
export type {
  BatchOptions,
  Column,
  ColumnIn,
  ColumnName,
  ColumnNameIn,
  ColumnOf,
  Columns,
  ColumnsHandle,
  FieldTypesOf,
  ScalarColumns,
} from "./columns.ts";
export { Handle, type ObjectType } from "./handle.ts";
export type { Container } from "./container.ts";
export { collect, type CollectReport, type Leak, leaks } from "./leaks.ts";
export { Held, type LockHandle, type LockOptions, type LockType, Mutex, RwLock } from "./lock.ts";
export { destroy } from "./ownership.ts";
export { type Migration, migration, type RootClass, Roots, roots } from "./roots.ts";
export { HashMap, type HashMapInput, type HashMapType } from "./hash_map.ts";
export { List, type ListHandle, type ListInput, type ListType } from "./list.ts";
export { Text, type TextHandle, type TextType } from "./long_text.ts";
export type { MapHandle } from "./map.ts";
export {
  OrderedMap,
  type OrderedMapHandle,
  type OrderedMapInput,
  type OrderedMapType,
  type RangeOptions,
} from "./ordered_map.ts";
export { type ValueTypedArray, Vec, type VecHandle, type VecInput, type VecType } from "./vec.ts";
export { ref, type RefType } from "./ref.ts";
export {
  type Field,
  type Fields,
  type fieldTypes,
  type Init,
  type Struct,
  struct,
  type StructMembers,
  type StructType,
} from "./struct.ts";
export type { SequenceHandle } from "./sequence.ts";
export { fixedText, text } from "./text.ts";
export {
  bool,
  f32,
  f64,
  i16,
  i32,
  i64,
  i8,
  type InputOf,
  type KeyKind,
  type KeyType,
  type ScalarType,
  type Type,
  u16,
  u32,
  u53,
  u64,
  u8,
  type ValueOf,
  type Walker,
} from "./type.ts";
export type { Access, Pane, PaneView } from "./pane.ts";
