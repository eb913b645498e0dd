/**
 * How a struct's fields are read and written: one closure factory for each scalar, so that what
 * engines compile for it knows the DataView call. Nothing but the value is checked: a handle that
 * ended has a detached view, which throws.
 *
 * @module
 */

import { adapter, describe, PermError } from "../ffi/mod.ts";
import { assignAt, type Handle, paneOf, readerOf } from "./handle.ts";
import type { Pane } from "./pane.ts";
import { readText } from "./text.ts";
import {
  f32Limit,
  overflowsF32,
  refuseU53,
  refuseValue,
  type Type,
  wanted,
  writeU53,
} from "./type.ts";

/** A field's getter and setter; `offset` is from the struct's first byte, `label` is for errors. */
export type Accessor = PropertyDescriptor & ThisType<Member>;
type Factory = (offset: number, label: string, of: object) => Accessor;

/** A struct's handle, whose prototype names the class that its fields are of. */
interface Member extends Handle {
  readonly $of: object;
}

// V8 compares bigints slowly, JavaScriptCore cuts them slowly: 2.5 and 2.3 ns for the right one of
// the two, 6 and 13 for the other.
const isV8 = adapter.runtime === "deno";

const scalars: Readonly<Record<string, Factory>> = {
  u8: (offset, label, of) => ({
    get() {
      return this.$view.getUint8((this.$at + offset) | 0);
    },
    set(value: number) {
      if (this.$of !== of) refuseMember(this, label);
      if (typeof value !== "number" || (value & 0xff) !== value) {
        refuseValue(label, value, wanted.u8);
      }
      this.$view.setUint8((this.$at + offset) | 0, value);
    },
  }),
  u16: (offset, label, of) => ({
    get() {
      return this.$view.getUint16((this.$at + offset) | 0, true);
    },
    set(value: number) {
      if (this.$of !== of) refuseMember(this, label);
      if (typeof value !== "number" || (value & 0xffff) !== value) {
        refuseValue(label, value, wanted.u16);
      }
      this.$view.setUint16((this.$at + offset) | 0, value, true);
    },
  }),
  u32: (offset, label, of) => ({
    get() {
      return this.$view.getUint32((this.$at + offset) | 0, true);
    },
    set(value: number) {
      if (this.$of !== of) refuseMember(this, label);
      if (typeof value !== "number" || (value >>> 0) !== value) {
        refuseValue(label, value, wanted.u32);
      }
      this.$view.setUint32((this.$at + offset) | 0, value, true);
    },
  }),
  i8: (offset, label, of) => ({
    get() {
      return this.$view.getInt8((this.$at + offset) | 0);
    },
    set(value: number) {
      if (this.$of !== of) refuseMember(this, label);
      if (typeof value !== "number" || (value << 24 >> 24) !== value) {
        refuseValue(label, value, wanted.i8);
      }
      this.$view.setInt8((this.$at + offset) | 0, value);
    },
  }),
  i16: (offset, label, of) => ({
    get() {
      return this.$view.getInt16((this.$at + offset) | 0, true);
    },
    set(value: number) {
      if (this.$of !== of) refuseMember(this, label);
      if (typeof value !== "number" || (value << 16 >> 16) !== value) {
        refuseValue(label, value, wanted.i16);
      }
      this.$view.setInt16((this.$at + offset) | 0, value, true);
    },
  }),
  i32: (offset, label, of) => ({
    get() {
      return this.$view.getInt32((this.$at + offset) | 0, true);
    },
    set(value: number) {
      if (this.$of !== of) refuseMember(this, label);
      if (typeof value !== "number" || (value | 0) !== value) refuseValue(label, value, wanted.i32);
      this.$view.setInt32((this.$at + offset) | 0, value, true);
    },
  }),
  // JavaScriptCore puts functions of up to 170 bytes of bytecode into a loop: `offset` is read once.
  u53: (offset, label, of) => ({
    get: isV8
      ? function (this: Member) {
        const view = this.$view;
        const high = view.getUint32((this.$at + offset + 4) | 0, true);
        if (high > 0x1fffff) refuseU53(view, this.$at + offset);
        return view.getUint32((this.$at + offset) | 0, true) + high * 0x100000000;
      }
      : function (this: Member) {
        const view = this.$view;
        const at = (this.$at + offset) | 0;
        const high = view.getUint32((at + 4) | 0, true);
        if (high > 0x1fffff) refuseU53(view, at);
        return view.getUint32(at, true) + high * 0x100000000;
      },
    set(value: number) {
      if (this.$of !== of) refuseMember(this, label);
      setU53(this.$view, (this.$at + offset) | 0, value, label);
    },
  }),
  u64: isV8
    ? (offset, label, of) => ({
      get() {
        return this.$view.getBigUint64((this.$at + offset) | 0, true);
      },
      set(value: bigint) {
        if (this.$of !== of) refuseMember(this, label);
        if (typeof value !== "bigint") refuseValue(label, value, wanted.u64);
        const cut = BigInt.asUintN(64, value);
        if (cut !== value) refuseValue(label, value, wanted.u64);
        this.$view.setBigUint64((this.$at + offset) | 0, cut, true);
      },
    })
    : (offset, label, of) => ({
      get() {
        return this.$view.getBigUint64((this.$at + offset) | 0, true);
      },
      set(value: bigint) {
        if (this.$of !== of) refuseMember(this, label);
        if (typeof value !== "bigint" || value < 0n || value > 0xffffffffffffffffn) {
          refuseValue(label, value, wanted.u64);
        }
        this.$view.setBigUint64((this.$at + offset) | 0, value, true);
      },
    }),
  i64: isV8
    ? (offset, label, of) => ({
      get() {
        return this.$view.getBigInt64((this.$at + offset) | 0, true);
      },
      set(value: bigint) {
        if (this.$of !== of) refuseMember(this, label);
        if (typeof value !== "bigint" || BigInt.asIntN(64, value) !== value) {
          refuseValue(label, value, wanted.i64);
        }
        this.$view.setBigInt64((this.$at + offset) | 0, value, true);
      },
    })
    : (offset, label, of) => ({
      get() {
        return this.$view.getBigInt64((this.$at + offset) | 0, true);
      },
      set(value: bigint) {
        if (this.$of !== of) refuseMember(this, label);
        if (
          typeof value !== "bigint" || value < -0x8000000000000000n || value > 0x7fffffffffffffffn
        ) {
          refuseValue(label, value, wanted.i64);
        }
        this.$view.setBigInt64((this.$at + offset) | 0, value, true);
      },
    }),
  f32: (offset, label, of) => ({
    get() {
      return this.$view.getFloat32((this.$at + offset) | 0, true);
    },
    set(value: number) {
      if (this.$of !== of) refuseMember(this, label);
      if (!(typeof value === "number" && value < f32Limit && value > -f32Limit)) {
        expectF32(label, value);
      }
      this.$view.setFloat32((this.$at + offset) | 0, value, true);
    },
  }),
  f64: (offset, label, of) => ({
    get() {
      return this.$view.getFloat64((this.$at + offset) | 0, true);
    },
    set(value: number) {
      if (this.$of !== of) refuseMember(this, label);
      if (typeof value !== "number") refuseValue(label, value, wanted.f64);
      this.$view.setFloat64((this.$at + offset) | 0, value, true);
    },
  }),
  bool: (offset, label, of) => ({
    get() {
      return this.$view.getUint8((this.$at + offset) | 0) !== 0;
    },
    set(value: boolean) {
      if (this.$of !== of) refuseMember(this, label);
      if (typeof value !== "boolean") refuseValue(label, value, wanted.bool);
      this.$view.setUint8((this.$at + offset) | 0, value ? 1 : 0);
    },
  }),
};

function expectF32(label: string, value: unknown): void {
  if (typeof value !== "number" || overflowsF32(value)) refuseValue(label, value, wanted.f32);
}

/**
 * An accessor may be called on anything, which has other things where its field should be. Reading numbers
 * is not checked: rows of seven fields took a third longer in JavaScriptCore.
 */
function refuseMember(value: unknown, label: string): never {
  throw new PermError(
    "INVALID_ARGUMENT",
    `Cannot use ${
      describe(value)
    } as a struct with the field ${label}: its accessors are for that struct`,
  );
}

function setU53(view: DataView, at: number, value: number, label: string): void {
  if (typeof value === "number" && (value >>> 0) === value) {
    view.setUint32(at, value, true);
    view.setUint32((at + 4) | 0, 0, true);
  } else setLarge(view, at, value, label);
}

function setLarge(view: DataView, at: number, value: number, label: string): void {
  if (!(Number.isSafeInteger(value) && value >= 0)) refuseValue(label, value, wanted.u53);
  writeU53(view, at, value);
}

/** The accessor of a field of that type, in a struct of that class. */
export function accessor(type: Type, offset: number, label: string, of: object): Accessor {
  const scalar = scalars[type.kind];
  if (scalar !== undefined) return scalar(offset, label, of);
  const wide = type as Type<unknown, unknown>;
  if (type.kind === "text") {
    return {
      get() {
        if (this.$of !== of) refuseMember(this, label);
        return readText(this.$view.$pane, (this.$at + offset) | 0);
      },
      set(value: unknown) {
        if (this.$of !== of) refuseMember(this, label);
        wide.set(paneOf(this), (this.$at + offset) | 0, value, label);
      },
    };
  }
  // Found at the first use, since the type may be a struct that is being laid out.
  let read: ((pane: Pane, at: number) => unknown) | undefined;
  return {
    get() {
      if (this.$of !== of) refuseMember(this, label);
      if (read === undefined) read = readerOf(wide);
      return read(this.$pane, (this.$at + offset) | 0);
    },
    set(value: unknown) {
      if (this.$of !== of) refuseMember(this, label);
      assignAt(this, offset, wide, value, label);
    },
  };
}
