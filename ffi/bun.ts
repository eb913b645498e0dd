/**
 * Bun's side of the bridge: the only file that names `bun:ffi`, and not in an import, which other
 * runtimes would try to resolve.
 *
 * @module
 */

import type { Adapter, NativeFunction, ParameterType, Signature } from "./adapter.ts";

interface BunFfi {
  dlopen(
    path: string,
    table: Record<string, { args: readonly string[]; returns: string }>,
  ): { symbols: Record<string, NativeFunction> };
  toArrayBuffer(address: number, offset: number, bytes: number): ArrayBuffer;
}

interface BunGlobals {
  Bun: { file(path: string): { readonly size: number } };
  Buffer: { from(text: string, encoding: "base64"): Uint8Array };
  process: {
    platform: string;
    arch: string;
    env: Record<string, string | undefined>;
    getBuiltinModule(name: "bun:ffi"): BunFfi;
  };
}

const globals = globalThis as unknown as BunGlobals;
let ffi: BunFfi | undefined;
/** A library object that is collected would close the library. */
const libraries: unknown[] = [];

function bunFfi(): BunFfi {
  return ffi ??= globals.process.getBuiltinModule("bun:ffi");
}

/** Bun's foreign function interface. */
export const bun: Adapter = {
  runtime: "bun",
  bindsNonblocking: false,

  get platform(): string {
    return `${globals.process.platform}-${globals.process.arch}`;
  },

  env(name: string): string | undefined {
    return globals.process.env[name];
  },

  // `node:fs` would take two milliseconds to set up.
  sizeOf(path: string): number {
    return globals.Bun.file(path).size;
  },

  open<Name extends string>(
    path: string,
    table: Readonly<Record<Name, Signature>>,
  ): Record<Name, NativeFunction> {
    const definitions: Record<string, { args: string[]; returns: string }> = {};
    for (const name of Object.keys(table) as Name[]) {
      const { parameters, result } = table[name];
      definitions[name] = {
        args: parameters.map(bunType),
        returns: result === "pointer" ? "ptr" : result,
      };
    }
    const library = bunFfi().dlopen(path, definitions);
    libraries.push(library);
    return library.symbols as Record<Name, NativeFunction>;
  },

  opensAnything: true,

  isPermissionError(): boolean {
    return false;
  },

  // Half the time of `Uint8Array.fromBase64` here.
  fromBase64(text: string): Uint8Array {
    return globals.Buffer.from(text, "base64");
  },

  arrayBuffer(address: number, bytes: number): ArrayBuffer {
    if (bytes === 0) return new ArrayBuffer(0);
    return bunFfi().toArrayBuffer(address, 0, bytes);
  },
};

function bunType(type: ParameterType): string {
  return type === "buffer" ? "ptr" : type;
}
