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
  bindsSlowly: true,

  // Not through `process`, which takes Deno ten milliseconds to set up.
  get platform(): string {
    const { os, arch } = Deno.build;
    return `${os}-${arch === "x86_64" ? "x64" : "arm64"}`;
  },

  env(name: string): string | undefined {
    const { state } = Deno.permissions.querySync({ name: "env", variable: name });
    return state === "granted" ? Deno.env.get(name) : undefined;
  },

  open<Name extends string>(
    path: string,
    table: Readonly<Record<Name, Signature>>,
  ): Record<Name, NativeFunction> {
    const definitions: Record<string, Deno.ForeignFunction> = {};
    for (const [name, { parameters, result }] of Object.entries<Signature>(table)) {
      definitions[name] = { parameters: [...parameters], result };
    }
    return Deno.dlopen(path, definitions).symbols as unknown as Record<Name, NativeFunction>;
  },

  isPermissionError(error: unknown): boolean {
    return error instanceof Deno.errors.NotCapable || error instanceof Deno.errors.PermissionDenied;
  },

  arrayBuffer(address: number, bytes: number): ArrayBuffer {
    if (bytes === 0) return new ArrayBuffer(0);
    origin ??= Deno.UnsafePointer.create(1n)!;
    return Deno.UnsafePointerView.getArrayBuffer(origin, bytes, address - 1);
  },
};
