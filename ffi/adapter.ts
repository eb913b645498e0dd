/**
 * What the rest of the package needs of a runtime. One implementation each in deno.ts and bun.ts.
 *
 * @module
 */

/** A parameter as the machine sees it. */
export type ParameterType = "f64" | "i32" | "u32" | "usize" | "buffer";

/** A function to bind: what it takes and returns. A pointer is only good for being asked if it is null. */
export interface Signature {
  readonly parameters: readonly ParameterType[];
  readonly result: "f64" | "i32" | "pointer";
  /** Called on another thread: the bound function returns a promise. Deno only. */
  readonly nonblocking?: boolean;
}

/** What a bound function takes for each parameter; `null` is the null pointer. */
export type Argument = number | Uint8Array | Float64Array | null;

/** A bound native function. */
export type NativeFunction = (...args: Argument[]) => number;

/** A runtime's foreign function interface. */
export interface Adapter {
  /** Which runtime this is. */
  readonly runtime: "deno" | "bun";

  /** System and processor, as Node names them: `"linux-x64"`. */
  readonly platform: string;

  /** Whether a function can be bound as `nonblocking`. */
  readonly bindsNonblocking: boolean;

  /** An environment variable; `undefined` where unset, or where reading it would need a permission. */
  env(name: string): string | undefined;

  /**
   * Bytes of a file; 0 where there is none, or where looking would ask the user for more than the
   * library does.
   */
  sizeOf(path: string): number;

  /**
   * Binds functions of the library at `path` (or of that soname), which stays loaded for good.
   * Throws the runtime's own error.
   */
  open<Name extends string>(
    path: string,
    table: Readonly<Record<Name, Signature>>,
  ): Record<Name, NativeFunction>;

  /**
   * Where binding takes long: the same without binding, for functions that are called a few times.
   * A call takes longer.
   */
  readonly openUnbound?: Adapter["open"];

  /** Where it is faster than a call: an f64 that the library at `path` exports. */
  readonly numberOf?: (path: string, name: string) => number;

  /** Whether libraries of any path and name may be opened. */
  readonly opensAnything: boolean;

  /** Whether an error of `open` or `arrayBuffer` means that the user has not allowed FFI. */
  isPermissionError(error: unknown): boolean;

  /** The bytes that base64 text stands for. */
  fromBase64(text: string): Uint8Array;

  /** A zero-copy buffer over process memory. The caller answers for the range. */
  arrayBuffer(address: number, bytes: number): ArrayBuffer;
}
