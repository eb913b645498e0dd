/**
 * The families of types by the names that schemas tell them by, so that a heap's own text says what
 * its bytes mean: `HashMap(text, array(f64, 3))` can be read back into a type.
 *
 * @module
 */

import type { Type } from "./type.ts";

/** What a type's name is made of: other types, and sizes. */
export type KindArgument = Type | number;

const kinds = new Map<string, (...args: never[]) => Type>();

/**
 * Makes a family known: a type of that family, named `kind(argument, …)`, is what `make` gives for
 * these arguments.
 */
export function registerKind(kind: string, make: (...args: never[]) => Type): void {
  kinds.set(kind, make);
}

/** Whether a name is a family's, and so no struct's. */
export function isKind(name: string): boolean {
  return kinds.has(name);
}

/** The type that a family gives for these arguments; `undefined` for an unknown family. */
export function typeOfKind(kind: string, args: readonly KindArgument[]): Type | undefined {
  return kinds.get(kind)?.(...args as never[]);
}
