/**
 * A type with everything that it holds or refers to, as text and as a hash of it: what a heap
 * remembers of a root, so that no program reads it as something else.
 *
 * @module
 */

import { PermError } from "../ffi/mod.ts";
import { HashMap } from "./hash_map.ts";
import { type KindArgument, registerKind, typeOfKind } from "./kinds.ts";
import { List } from "./list.ts";
import { Text } from "./long_text.ts";
import { OrderedMap } from "./ordered_map.ts";
import { struct } from "./struct.ts";
import type { Type } from "./type.ts";
import { Vec } from "./vec.ts";

for (const [kind, make] of Object.entries({ Vec, List, HashMap, OrderedMap })) {
  registerKind(kind, make as (...args: never[]) => Type);
}
registerKind("Text", () => Text as Type);

/** A type's schema. */
export interface Schema {
  /** The type's name, then a line for each struct, in the order in which they are met. */
  readonly text: string;
  /** FNV-1a, 64 bits, over its UTF-8. */
  readonly hash: bigint;
}

const schemas = new WeakMap<Type, Schema>();

/**
 * The schema of a type.
 *
 * @throws {PermError} `INVALID_ARGUMENT` when two different structs in it have the same name.
 */
export function schemaOf(type: Type): Schema {
  let schema = schemas.get(type);
  if (schema === undefined) {
    const text = textOf(type);
    schemas.set(type, schema = { text, hash: hashOf(text) });
  }
  return schema;
}

function textOf(type: Type): string {
  const structs: Type[] = [];
  const seen = [type];
  let text = type.name;
  for (let i = 0; i < seen.length; i++) {
    const part = seen[i];
    if (part.kind === "struct") {
      const { name, layout } = part;
      const other = structs.find((other) => other.name === name);
      if (other === undefined) text += `\n${layout}`;
      else if (other.layout !== layout) {
        throw new PermError(
          "INVALID_ARGUMENT",
          `Cannot keep ${type.name}: it reaches two different structs named ${name}, ` +
            `${other.layout} and ${layout}; name one of them otherwise`,
        );
      }
      structs.push(part);
    }
    const parts = part.parts?.() ?? [];
    for (let j = 0; j < parts.length; j++) if (!seen.includes(parts[j])) seen.push(parts[j]);
  }
  return text;
}

/** In halves of 32 bits: bigints are slow to begin with, and every program opens a root first of all. */
function hashOf(text: string): bigint {
  let low = 0x84222325;
  let high = 0xcbf29ce4;
  const bytes = new TextEncoder().encode(text);
  // By index: JavaScriptCore's first walk of an array by `of` takes half a millisecond.
  for (let i = 0; i < bytes.length; i++) {
    // The prime is 2^40 + 0x1b3.
    const mixed = (low ^ bytes[i]) >>> 0;
    const product = mixed * 0x1b3;
    high = (Math.imul(high, 0x1b3) + Math.floor(product / 2 ** 32) + (mixed << 8)) >>> 0;
    low = product >>> 0;
  }
  return BigInt(high) << 32n | BigInt(low);
}

/**
 * The type that a schema's text tells, for walking what no program has opened. Its structs are other
 * classes than the program's.
 *
 * @throws {PermError} `CORRUPT` for text that is no schema; `UNSUPPORTED` for types that this library
 * does not know.
 */
export function typeOfSchema(schema: string): Type {
  const [name, ...lines] = schema.split("\n");
  const types = new Map<string, Type>();
  for (const line of lines) {
    const { struct: of, fields } = readStruct(line);
    const given = {};
    for (const [field, type] of fields) {
      Object.defineProperty(given, field, {
        get: () => new TypeReader(type, types).read(),
        enumerable: true,
      });
    }
    types.set(of, struct(of, given) as Type);
  }
  for (const line of lines) {
    const { struct: of } = readStruct(line);
    if (types.get(of)!.layout !== line) throw corrupt(line);
  }
  return new TypeReader(name, types).read();
}

function readStruct(line: string): { struct: string; fields: [string, string][] } {
  const found = /^struct (\w+) \{ (.*) \} \d+ bytes$/.exec(line);
  if (found === null) throw corrupt(line);
  const fields = found[2].split("; ").map((field): [string, string] => {
    const parts = /^(\w+): (.*) @\d+$/.exec(field);
    if (parts === null) throw corrupt(line);
    return [parts[1], parts[2]];
  });
  return { struct: found[1], fields };
}

function corrupt(text: string): PermError {
  return new PermError("CORRUPT", `Cannot read ${JSON.stringify(text)} as a type: it is none`);
}

/** Types within types that a text may have: more are no program's, and would fill the stack. */
const depthMax = 500;

/** Reads `HashMap(text, array(f64, 3))`. */
class TypeReader {
  readonly #text: string;
  readonly #structs: ReadonlyMap<string, Type>;
  #at = 0;
  #depth = 0;

  constructor(text: string, structs: ReadonlyMap<string, Type>) {
    this.#text = text;
    this.#structs = structs;
  }

  read(): Type {
    const type = this.#argument();
    if (typeof type === "number" || this.#at !== this.#text.length) throw corrupt(this.#text);
    return type;
  }

  #argument(): KindArgument {
    const word = /\w+/y;
    word.lastIndex = this.#at;
    const [name] = word.exec(this.#text) ?? [];
    if (name === undefined) throw corrupt(this.#text);
    this.#at += name.length;
    if (/^\d+$/.test(name)) return Number(name);
    const args: KindArgument[] = [];
    if (this.#text[this.#at] === "(") {
      if (++this.#depth > depthMax) throw corrupt(this.#text.slice(0, 80));
      do {
        this.#at += args.length === 0 ? 1 : 2;
        args.push(this.#argument());
      } while (this.#text.startsWith(", ", this.#at));
      if (this.#text[this.#at++] !== ")") throw corrupt(this.#text);
      this.#depth--;
    }
    const type = this.#structs.get(name) ?? typeOfKind(name, args);
    if (type !== undefined) return type;
    throw new PermError(
      "UNSUPPORTED",
      `Cannot walk a ${name}: this version of the library does not know it`,
    );
  }
}
