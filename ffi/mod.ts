/**
 * The bridge: the only room that knows a runtime, and the only one that knows the ABI.
 *
 * From outside, {@linkcode load} comes first; then {@linkcode native} holds the functions of
 * zig/src/abi.zig, {@linkcode check} turns a negative result into a {@linkcode PermError}, and
 * {@linkcode pack} and {@linkcode unpack} carry records across.
 *
 * Invariant: a buffer that crosses is never empty, and shared only where native code reads each of
 * its numbers once; numbers that cross are numbers: native code answers for their range, TypeScript
 * for their type.
 *
 * @module
 */

import { codeOf, PermError } from "./errors.ts";
import { adapter, load, native } from "./library.ts";
import { records } from "./symbols.ts";

export type { ErrorCode, PermErrorDetail } from "./errors.ts";
export { codeOf, PermError } from "./errors.ts";
export type { Native } from "./library.ts";
export { bound, load, native } from "./library.ts";
export { adapter } from "./library.ts";

/** Name of a record that crosses the ABI. */
export type RecordName = keyof typeof records;

/** A record's fields by name; all are numbers. */
export type RecordOf<Name extends RecordName> = Record<(typeof records)[Name][number], number>;

/** A buffer for one record of that kind, or for `count` of them. */
export function recordBuffer(name: RecordName, count = 1): Float64Array<ArrayBuffer> {
  return new Float64Array(records[name].length * count);
}

/** Writes a record in ABI order; the type asks for every field, so that none is forgotten. */
export function pack<Name extends RecordName>(
  name: Name,
  values: RecordOf<Name>,
): Float64Array<ArrayBuffer> {
  const fields: readonly (typeof records)[Name][number][] = records[name];
  const buffer = new Float64Array(fields.length);
  // By index: what walks lists takes its time when it is first needed.
  for (let at = 0; at < fields.length; at++) buffer[at] = values[fields[at]];
  return buffer;
}

/** Reads the `index`-th record of a buffer. */
export function unpack<Name extends RecordName>(
  name: Name,
  buffer: Float64Array,
  index = 0,
): RecordOf<Name> {
  const fields: readonly string[] = records[name];
  const values: Record<string, number> = {};
  const first = index * fields.length;
  for (let at = 0; at < fields.length; at++) values[fields[at]] = buffer[first + at];
  return values as RecordOf<Name>;
}

/** Position of a field in its record, for reading one without the others. */
export function fieldIndex<Name extends RecordName>(
  name: Name,
  field: (typeof records)[Name][number],
): number {
  return (records[name] as readonly string[]).indexOf(field);
}

/**
 * Passes a result on, or throws what its negative stands for: as an integer, since V8 makes an object
 * of each address as soon as one is passed on as it is, be it where nothing ever comes.
 */
export function check(result: number): number {
  if (result < 0) throw nativeError(result | 0);
  return result;
}

/** The error that a negative result stands for: message, path, address and errno of this thread. */
export function nativeError(result: number): PermError {
  const info = recordBuffer("ErrorInfo");
  const text = new Uint8Array(2304);
  native.ph_error(info, text);
  const { code, errno, address, epoch, message_len, path_len, owner_len } = unpack(
    "ErrorInfo",
    info,
  );
  // What another thread failed at may have taken our place; the result is always our own.
  const ours = code === -result;
  const message = ours ? decode(text.subarray(0, message_len)) : "";
  const rest = text.subarray(message_len);
  const path = ours ? decode(rest.subarray(0, path_len)) : "";
  const owner = ours ? decode(rest.subarray(path_len, path_len + owner_len)) : "";
  return new PermError(codeOf(result), message || `The native library answered ${codeOf(result)}`, {
    path: path || undefined,
    address: address || undefined,
    errno: errno || undefined,
    epoch: ours && epoch || undefined,
    belongsTo: owner || undefined,
  });
}

/** Milliseconds between two looks at commits under way, where no thread can be told to wait. */
const lookEvery = 1;

/** Who waits for commits under way, in the order of the calls. */
let waiting: {
  commit: number;
  into: Float64Array<ArrayBuffer>;
  resolve: (into: Float64Array<ArrayBuffer>) => void;
  reject: (error: unknown) => void;
}[] = [];
let looking = false;

/**
 * The outcome of a commit under way, as `ph_commit_fetch` fills it in; commits of a heap settle in
 * their order. The wait keeps the process alive and leaves the event loop alone: a thread of the
 * runtime sleeps where calls can be nonblocking (Deno), else a timer looks (Bun, where whatever
 * calls back from another thread would call into a Worker that has ended).
 *
 * @throws {PermError} What the commit failed with.
 */
export function outcome(
  commit: number,
  into: Float64Array<ArrayBuffer>,
): Promise<Float64Array<ArrayBuffer>> {
  const settled = new Promise<Float64Array<ArrayBuffer>>((resolve, reject) => {
    waiting.push({ commit, into, resolve, reject });
  });
  if (adapter.bindsNonblocking) Promise.resolve(native.ph_commit_wait(commit)).then(settle);
  else look();
  return settled;
}

function look(): void {
  if (looking) return;
  looking = true;
  setTimeout(() => {
    looking = false;
    settle();
    if (waiting.length > 0) look();
  }, lookEvery);
}

function settle(): void {
  const before = waiting;
  waiting = [];
  for (const each of before) {
    try {
      if (check(native.ph_commit_fetch(each.commit, each.into)) === 0) waiting.push(each);
      else each.resolve(each.into);
    } catch (error) {
      each.reject(error);
    }
  }
}

/** Reads text that native code wrote. */
export function decode(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

const encoder = new TextEncoder();

/**
 * Text as bytes for native code.
 *
 * @throws {PermError} `INVALID_ARGUMENT` for what is not a string, holds a zero byte or half a
 * surrogate pair (two such texts could become the same bytes), or is empty.
 */
export function encode(text: string, what: string): Uint8Array<ArrayBuffer> {
  if (typeof text !== "string" || text === "") {
    throw new PermError(
      "INVALID_ARGUMENT",
      `Cannot take ${describe(text)} as ${what}: give a string that is not empty`,
    );
  }
  if (text.includes("\0") || !text.isWellFormed()) {
    throw new PermError(
      "INVALID_ARGUMENT",
      `Cannot take ${describe(text)} as ${what}: it holds a zero byte or half a character`,
    );
  }
  return encoder.encode(text);
}

function cut(text: string): string {
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

/** A value as an error message shows it: short, and never throwing. */
export function describe(value: unknown): string {
  switch (typeof value) {
    case "string":
      return JSON.stringify(cut(value));
    case "bigint":
      return `${cut(value.toString())}n`;
    case "object":
      if (value === null) return "null";
      try {
        if (Array.isArray(value)) return "an array";
        return `an object (${
          JSON.stringify(cut(Object.prototype.toString.call(value).slice(8, -1))).slice(1, -1)
        })`;
      } catch {
        // A proxy that was revoked, or a name that throws when it is asked for.
        return "an object";
      }
    case "function":
      return "a function";
    default:
      return cut(String(value));
  }
}

/**
 * A zero-copy buffer over `bytes` bytes at `address`. The caller has checked the range.
 *
 * @throws {PermError} `UNSUPPORTED` when the runtime refuses so large a buffer (Bun: above 4 GiB);
 * `PERMISSION` when FFI is allowed for some paths only.
 */
export function arrayBuffer(address: number, bytes: number): ArrayBuffer {
  try {
    return adapter.arrayBuffer(address, bytes);
  } catch (cause) {
    if (adapter.isPermissionError(cause)) {
      throw new PermError(
        "PERMISSION",
        "Cannot view memory: run Deno with --allow-ffi for all paths",
        {
          address,
          cause,
        },
      );
    }
    throw new PermError(
      "UNSUPPORTED",
      `Cannot view ${bytes} bytes at once: ${
        cause instanceof Error ? cause.message : cause
      }; view ` +
        "them in pieces",
      { address, cause },
    );
  }
}

/**
 * Reads a small file, such as a kernel setting, whole. Through the library, since Deno's own file
 * API would want `--allow-all` for /proc/sys.
 *
 * @throws {PermError} `NOT_FOUND`, `PERMISSION` or `IO`.
 */
export function readSmallFile(path: string): Uint8Array<ArrayBuffer> {
  const name = encode(path, "a path");
  load();
  for (let size = 4096;; size *= 4) {
    const into = new Uint8Array(size);
    const length = check(native.ph_file_read(terminated(name), into, size));
    if (length < size) return into.slice(0, length);
  }
}

/**
 * Writes a small file: over what stands there, or with `create` anew and synced.
 *
 * @throws {PermError} `NOT_FOUND`, `PERMISSION`, `NO_SPACE` or `IO`.
 */
export function writeSmallFile(
  path: string,
  bytes: Uint8Array,
  options: { create?: boolean } = {},
): void {
  const name = encode(path, "a path");
  load();
  const from = bytes.length === 0 ? null : bytes;
  check(native.ph_file_write(terminated(name), from, bytes.length, options.create ? 1 : 0));
}

/**
 * Removes a small file that {@linkcode writeSmallFile} created.
 *
 * @throws {PermError} `NOT_FOUND`, `PERMISSION` or `IO`.
 */
export function removeSmallFile(path: string): void {
  const name = encode(path, "a path");
  load();
  check(native.ph_file_write(terminated(name), null, 0, 2));
}

function terminated(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(bytes.length + 1);
  out.set(bytes);
  return out;
}
