/**
 * What a heap or an image can be opened with, and the check of it before anything is touched.
 *
 * Invariant: native code sees numbers that are numbers; their range is its own business. An option
 * that does not exist is refused, since a misspelt one would be silently without effect.
 *
 * @module
 */

import { adapter, describe, encode, PermError, type RecordOf } from "../ffi/mod.ts";

/**
 * How a heap or an image is opened.
 *
 * - `"w+"` makes a new one: the path is claimed and locked at once, what stood there is replaced by
 *   the first commit and not before.
 * - `"r+"` opens what stands there at its last commit.
 * - `"r"` reads only, any number of processes beside one writer; stray writes stay in the process.
 */
export type Mode = "w+" | "r+" | "r";

/** Options of one image file, for `bopen`. */
export interface ImageOptions {
  /** Epochs to be able to go back to, the last one included. Default 1. */
  keep?: number;
  /** Bytes of log from which on it is folded into a new base. Default the larger of 64 MiB and half the base. */
  logLimit?: number;
  /** Reads and checks every stored page before the image is used. Default false. */
  verify?: boolean;
  /**
   * Opens the base alone when its log is lost; the first commit makes a new image. Takes a shared heap
   * that was not closed as it stands, if its metadata is whole. Default false.
   */
  recover?: boolean;
  /** Lets mode `"w+"` replace the image of another heap. Default false. */
  replace?: boolean;
}

/** Options of a heap and its map file, for `mopen` and `Heap.open`. */
export interface HeapOptions extends ImageOptions {
  /** Where a new heap is mapped, a multiple of 65536. Default a free place derived from its identity. */
  address?: number;
  /** Bytes of data that the heap may grow to. Default what the reservation of addresses allows. */
  maxSize?: number;
  /**
   * Maps the file itself over the heap (MAP_SHARED), for heaps larger than memory. Default false. The
   * file holds one state, which the system writes whenever it likes: a program that ends without
   * `close()`, or closes with changes that were not flushed, leaves a file that the next opening refuses
   * (`CORRUPT`) until a backup is restored or `recover` is given. Readers and a writer exclude each other.
   * `docs/shared.md` has the rules.
   */
  shared?: boolean;
  /**
   * What tells which pages changed. Default `"auto"`: what the environment says in `PERM_TRACKER`, else
   * the best that works here. `stats().tracker` tells which it is.
   */
  tracker?: "auto" | "uffd" | "checksum";
  /**
   * Kernel settings for shared heaps: `"check"` (the default) puts the finding in `stats().tuning`,
   * `"apply"` sets them before mapping (root), `"off"` does not look.
   */
  tune?: "check" | "apply" | "off";
}

/** What `Heap.open` takes. */
export interface OpenOptions extends HeapOptions {
  /** The map file; `null` or absent for a heap without one. */
  file?: string | null;
  /** The backup file, opened at once; absent for none (`bopen` can open one later). */
  backup?: string;
  /** Bytes of data that a new heap can hold before it grows; a resumed smaller heap grows to it. */
  size: number;
}

/** What `restore` takes. */
export interface RestoreOptions {
  /** The epoch to go back to. Default the last one in the image. */
  epoch?: number;
  /** Which image to take it from. Default the backup file if one is open, else the map file. */
  from?: "backup" | "map";
  /** Reads and checks every stored page first. Default false. */
  verify?: boolean;
}

const imageKeys = ["keep", "logLimit", "verify", "recover", "replace"] as const;
const heapKeys = [...imageKeys, "address", "maxSize", "shared", "tracker", "tune"] as const;
const openKeys = [...heapKeys, "file", "backup", "size"] as const;
const restoreKeys = ["epoch", "from", "verify"] as const;

const modes: readonly Mode[] = ["w+", "r+", "r"];
const trackers = ["auto", "uffd", "checksum"] as const;
const tunes = ["check", "apply", "off"] as const;

/** A call's arguments for native code: the record, and the texts it counts. */
export interface OpenCall {
  readonly args: RecordOf<"OpenArgs">;
  readonly text: Uint8Array | null;
}

/** Checks the arguments of `mopen`. */
export function mopenCall(
  path: string | null,
  mode: Mode,
  size: number | undefined,
  options: HeapOptions | undefined,
): OpenCall {
  const given = expectOptions("mopen", options, heapKeys);
  const args = openArgs(given, mode);
  if (size !== undefined) args.size = positive("size", size);
  return withPaths(args, path === null ? null : encode(path, "a map file's path"), null);
}

/** Checks the arguments of `Heap.open`. */
export function openCall(options: OpenOptions): OpenCall {
  if (options === undefined) throw refused("options", options, "an object with at least `size`");
  const given = expectOptions("Heap.open", options, openKeys);
  const args = openArgs(given, "r+");
  args.size = positive("size", given.size);
  const { file = null, backup } = given;
  return withPaths(
    args,
    file === null ? null : encode(file, "a map file's path"),
    backup === undefined ? null : encode(backup, "a backup file's path"),
  );
}

/** Checks the arguments of `bopen`. */
export function bopenCall(path: string, mode: Mode, options: ImageOptions | undefined): OpenCall {
  const given = expectOptions("bopen", options, imageKeys);
  return withPaths(openArgs(given, mode), encode(path, "a backup file's path"), null);
}

/** Checks the arguments of `Image.copy`. */
export function copyCall(
  from: string,
  to: string,
  options: { replace?: boolean } | undefined,
): { args: RecordOf<"FileArgs">; text: Uint8Array } {
  const given = expectOptions("Image.copy", options, ["replace"]);
  const paths = [encode(from, "an image's path"), encode(to, "a copy's path")];
  const text = new Uint8Array(paths[0].length + paths[1].length);
  text.set(paths[0]);
  text.set(paths[1], paths[0].length);
  const args = {
    replace: flag("replace", given.replace),
    from_len: paths[0].length,
    to_len: paths[1].length,
  };
  return { args, text };
}

/** Checks the arguments of `restore`; whether views of the heap are out is added by the heap. */
export function restoreArgs(
  options: RestoreOptions | undefined,
): Omit<RecordOf<"RestoreArgs">, "views"> {
  const given = expectOptions("restore", options, restoreKeys);
  return {
    epoch: given.epoch === undefined ? -1 : positive("epoch", given.epoch),
    from: given.from === undefined ? 0 : 1 + oneOf("from", given.from, ["backup", "map"]),
    verify: flag("verify", given.verify),
  };
}

/** Milliseconds that `quiesce` may wait; -1: as long as it takes. */
export function quiesceTimeout(options: { timeout?: number } | undefined): number {
  const { timeout } = expectOptions("quiesce", options, ["timeout"]);
  if (timeout === undefined) return -1;
  if (typeof timeout === "number" && timeout >= 0) return Math.min(timeout, 2 ** 31);
  throw refused("timeout", timeout, "milliseconds, 0 or more");
}

/** What to do about kernel settings; checked here, done elsewhere. */
export function tuneWish(options: HeapOptions | undefined): "check" | "apply" | "off" {
  return tunes[oneOf("tune", options?.tune ?? "check", tunes)];
}

function openArgs(given: HeapOptions, mode: Mode): RecordOf<"OpenArgs"> {
  tuneWish(given);
  return {
    mode: oneOf("mode", mode, modes),
    size: 0,
    max_size: given.maxSize === undefined ? 0 : positive("maxSize", given.maxSize),
    address: given.address === undefined ? 0 : positive("address", given.address),
    tracker: trackerWish(given.tracker),
    keep: given.keep === undefined ? 1 : positive("keep", given.keep),
    log_limit: given.logLimit === undefined ? 0 : positive("logLimit", given.logLimit),
    shared: flag("shared", given.shared),
    verify: flag("verify", given.verify),
    recover: flag("recover", given.recover),
    replace: flag("replace", given.replace),
    path_len: 0,
    backup_len: 0,
  };
}

function withPaths(
  args: RecordOf<"OpenArgs">,
  path: Uint8Array | null,
  backup: Uint8Array | null,
): OpenCall {
  args.path_len = path?.length ?? 0;
  args.backup_len = backup?.length ?? 0;
  if (args.path_len + args.backup_len === 0) return { args, text: null };
  const text = new Uint8Array(args.path_len + args.backup_len);
  if (path) text.set(path);
  if (backup) text.set(backup, args.path_len);
  return { args, text };
}

/** Options that are known by name: a misspelt one would do nothing without a word. */
export function expectOptions<Options extends object>(
  call: string,
  options: Options | undefined,
  keys: readonly (keyof Options)[],
): Options {
  if (options === undefined) return {} as Options;
  if (typeof options !== "object" || options === null) {
    throw refused("options", options, `an object, as ${call} takes`);
  }
  let given: string[];
  try {
    given = Object.keys(options);
  } catch {
    // A proxy that was revoked.
    throw refused("options", options, `an object, as ${call} takes`);
  }
  for (const key of given) {
    if (!(keys as readonly PropertyKey[]).includes(key)) {
      throw new PermError(
        "INVALID_ARGUMENT",
        `Cannot use option ${describe(key)} of ${call}: it knows ${keys.join(", ")}`,
      );
    }
  }
  return options;
}

/** A whole number from 1; 0 crosses the ABI as "not given". */
function positive(name: string, value: unknown): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 1) {
    throw refused(name, value, "a whole number from 1 to 2^53");
  }
  return value;
}

function flag(name: string, value: unknown): number {
  if (value === undefined) return 0;
  if (typeof value !== "boolean") throw refused(name, value, "true or false");
  return value ? 1 : 0;
}

/** Position of a word among those that are known. */
function trackerWish(given: unknown): number {
  const wish = oneOf("tracker", given ?? "auto", trackers);
  const forced = wish === 0 ? adapter.env("PERM_TRACKER") : undefined;
  return forced ? oneOf("PERM_TRACKER", forced, trackers) : wish;
}

function oneOf(name: string, value: unknown, words: readonly string[]): number {
  const index = words.indexOf(value as string);
  if (index < 0) throw refused(name, value, words.map((word) => `"${word}"`).join(" or "));
  return index;
}

/** The error for a value that an argument cannot have. */
export function refused(name: string, value: unknown, wanted: string): PermError {
  return new PermError(
    "INVALID_ARGUMENT",
    `Cannot take ${describe(value)} as \`${name}\`: give ${wanted}`,
  );
}
