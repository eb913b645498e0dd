/**
 * Deno's side of the bridge: the only file that names `Deno`.
 *
 * @module
 */

import type { Adapter, NativeFunction, Signature } from "./adapter.ts";

/** Getting a buffer by offset from a fixed pointer spares a BigInt a view. */
let origin: Deno.PointerObject | undefined;

/** Deno's foreign function interface. */
export const deno: Adapter = {
  runtime: "deno",
  bindsNonblocking: true,

  // Not through `process`, which takes Deno ten milliseconds to set up.
  get platform(): string {
    const { os, arch } = Deno.build;
    return `${os}-${arch === "x86_64" ? "x64" : "arm64"}`;
  },

  env(name: string): string | undefined {
    // In any other runtime the refusal comes when the library is loaded.
    if (typeof Deno === "undefined") return undefined;
    const { state } = Deno.permissions.querySync({ name: "env", variable: name });
    return state === "granted" ? Deno.env.get(name) : undefined;
  },

  // Through the C library: Deno's own way would be a permission more.
  sizeOf(path: string): number {
    if (!this.opensAnything) return 0;
    try {
      const { statx } = Deno.dlopen("libc.so.6", {
        statx: { parameters: ["i32", "buffer", "i32", "u32", "buffer"], result: "i32" },
      }).symbols;
      const fromHere = -100;
      const sizeOnly = 0x200;
      const found = new Uint8Array(256);
      const name = new TextEncoder().encode(path + "\0");
      if (statx(fromHere, name, 0, sizeOnly, found) !== 0) return 0;
      return Number(new DataView(found.buffer).getBigUint64(40, true));
    } catch {
      return 0;
    }
  },

  open<Name extends string>(
    path: string,
    table: Readonly<Record<Name, Signature>>,
  ): Record<Name, NativeFunction> {
    const definitions: Record<string, Deno.ForeignFunction> = {};
    for (const name of Object.keys(table) as Name[]) definitions[name] = definitionOf(table[name]);
    return Deno.dlopen(path, definitions).symbols as unknown as Record<Name, NativeFunction>;
  },

  // A function that is bound is compiled for that: 0.2 ms. An address is only looked up, and a call
  // by address takes 0.6 µs more.
  openUnbound<Name extends string>(
    path: string,
    table: Readonly<Record<Name, Signature>>,
  ): Record<Name, NativeFunction> {
    const places: Record<string, { type: "pointer" }> = {};
    for (const name of Object.keys(table) as Name[]) places[name] = { type: "pointer" };
    const addresses = Deno.dlopen(path, places).symbols as Record<
      string,
      Deno.PointerObject<Deno.ForeignFunction>
    >;
    const functions: Record<string, NativeFunction> = {};
    for (const name of Object.keys(table) as Name[]) {
      let call: NativeFunction | undefined;
      functions[name] = (...args) => {
        if (call === undefined) {
          const pointer = new Deno.UnsafeFnPointer(addresses[name], definitionOf(table[name]));
          call = pointer.call.bind(pointer) as unknown as NativeFunction;
        }
        return call(...args);
      };
    }
    return functions as Record<Name, NativeFunction>;
  },

  // A first call, by address as well, takes 0.1 ms more.
  numberOf(path: string, name: string): number {
    return Deno.dlopen(path, { [name]: { type: "f64" } }).symbols[name];
  },

  get opensAnything(): boolean {
    return Deno.permissions.querySync({ name: "ffi" }).state === "granted";
  },

  isPermissionError(error: unknown): boolean {
    return error instanceof Deno.errors.NotCapable || error instanceof Deno.errors.PermissionDenied;
  },

  fromBase64(text: string): Uint8Array {
    return Uint8Array.fromBase64(text);
  },

  arrayBuffer(address: number, bytes: number): ArrayBuffer {
    if (bytes === 0) return new ArrayBuffer(0);
    origin ??= Deno.UnsafePointer.create(1n)!;
    return Deno.UnsafePointerView.getArrayBuffer(origin, bytes, address - 1);
  },
};

function definitionOf(signature: Signature): Deno.ForeignFunction {
  const { parameters, result, nonblocking = false } = signature;
  return { parameters: [...parameters], result, nonblocking };
}
