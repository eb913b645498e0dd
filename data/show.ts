/**
 * Values as they leave the heap: as JSON has them, as the console shows them, as copies that outlive
 * their place.
 *
 * Invariant: no reference is followed, for references may lead in circles, and through all of a heap.
 *
 * @module
 */

import type { Pointer } from "../heap/views.ts";
import type { Handle } from "./handle.ts";
import type { Type } from "./type.ts";

/** A value as JSON can show it: bigints as text, and where references lead. */
export function plain(value: unknown, type: Type): unknown {
  if (type.kind === "ref") return addressText(addressOf(value));
  if (typeof value === "bigint") return value.toString();
  if (typeof value !== "object" || value === null) return value;
  const { toJSON } = value as { toJSON?: () => unknown };
  return typeof toJSON === "function" ? toJSON.call(value) : value;
}

/**
 * A value that outlives its place in the heap, and may be stored again: objects as plain ones, what
 * they refer to as it is.
 */
export function copyOf(value: unknown, type: Type): unknown {
  if (type.kind === "ref" || typeof value !== "object" || value === null) return value;
  const { $copy } = value as { $copy?: () => unknown };
  return $copy === undefined ? plain(value, type) : $copy.call(value);
}

/** A value as the console shows it. */
export function shown(value: unknown, type: Type): unknown {
  return type.kind === "ref" ? shownReference(addressOf(value), type) : value;
}

/** A reference as the console shows it. */
export function shownReference(p: Pointer, type: Type): unknown {
  return p === 0 ? null : new Shown(`${type.name.slice("ref(".length, -1)} ${addressText(p)}`);
}

/** A reference as text. */
export function addressText(p: Pointer): string | null {
  return p === 0 ? null : `0x${p.toString(16)}`;
}

function addressOf(value: unknown): Pointer {
  return value === null ? 0 : (value as Handle).ptr;
}

/** Text that is shown without quotes. */
class Shown {
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return this.#text;
  }
}
