/**
 * Kernel settings for shared heaps: {@linkcode check} tells how they stand, {@linkcode apply} sets
 * them, {@linkcode undo} puts back what was there before. A private heap, which is the default,
 * needs none of them.
 *
 * `apply` and `undo` need root. They go through the native library, so that Deno asks for
 * `--allow-ffi` and nothing more.
 *
 * Invariant: former values are on record before anything is changed, and a failure in the middle
 * puts back what was changed.
 *
 * @example How the settings stand
 * ```ts
 * import { check } from "@perm/heap/tuning";
 *
 * for (const { name, current, wanted } of check().settings) {
 *   console.log(`${name} is ${current}, a shared heap wants ${wanted}`);
 * }
 * ```
 *
 * @module
 */
import { describe, PermError, readSmallFile, writeSmallFile } from "../ffi/mod.ts";
import { type Setting, settings } from "./settings.ts";
import {
  isNumber,
  keepState,
  readState,
  removeState,
  stateFile,
  unlessMissing,
  type Values,
} from "./state.ts";

export type { Setting };

/** Options of {@linkcode check}, {@linkcode apply} and {@linkcode undo}. */
export interface TuningOptions {
  /** Folder that stands for `/proc/sys`, for tests. Default `"/proc/sys"`. */
  root?: string;
}

/** A setting as it stands. */
export interface Finding extends Setting {
  /** The value in force; null when it cannot be read, which `problem` explains. */
  readonly current: number | null;
  /** Whether `current` is `wanted`. */
  readonly isTuned: boolean;
  /** Why the setting cannot be read. */
  readonly problem?: string;
}

/** What {@linkcode check}, {@linkcode apply} and {@linkcode undo} found or left behind. */
export interface TuningReport {
  /** Whether all settings are as a shared heap wants them. */
  readonly isTuned: boolean;
  /** Each setting as it stands now. */
  readonly settings: readonly Finding[];
  /** Names of the settings that this call changed. */
  readonly changed: readonly string[];
  /** Former values that `undo` would put back, by name; null when there are none. */
  readonly saved: Readonly<Record<string, number>> | null;
}

/**
 * Tells how the settings stand. A setting that cannot be read is reported, not thrown.
 *
 * @param options Where the settings are.
 * @returns The settings as they stand.
 * @throws {PermError} `INVALID_ARGUMENT` for options of a wrong type; `CORRUPT` when the file of
 * former values is damaged; `PERMISSION` without `--allow-ffi`.
 */
export function check(options: TuningOptions = {}): TuningReport {
  const root = rootOf(options);
  return report(root, [], readState(stateFile(root)) ?? null);
}

/**
 * Sets what is not as a shared heap wants it. The first call keeps the former values for
 * {@linkcode undo}; further calls leave them as they are. When one setting fails, those changed by
 * this call are put back.
 *
 * @param options Where the settings are.
 * @returns The settings as they stand now, and which were changed.
 * @throws {PermError} `PERMISSION` without root; `READ_ONLY` where `/proc/sys` is; `NOT_FOUND` for
 * a kernel without one of the settings; `CORRUPT` when the file of former values is damaged; `IO`.
 */
export function apply(options: TuningOptions = {}): TuningReport {
  const root = rootOf(options);
  const path = stateFile(root);
  const before = readAll(root);
  const pending = settings.filter(({ name, wanted }) => Number(before[name]) !== wanted);
  if (pending.length === 0) return report(root, [], readState(path) ?? null);

  const { kept, isNew } = explained(`keep the former values in "${path}"`, () => {
    return keepState(path, before);
  });
  try {
    for (const { name, wanted } of pending) write(root, name, `${wanted}\n`);
  } catch (error) {
    const left = putBack(root, before);
    if (left.length === 0 && isNew) removeState(path);
    throw failure("apply the kernel settings", error, left);
  }
  return report(root, pending.map(({ name }) => name), kept);
}

/**
 * Puts back exactly what was there before the first {@linkcode apply}, and forgets it. Does nothing
 * when there is nothing to put back.
 *
 * @param options Where the settings are.
 * @returns The settings as they stand now, and which were changed.
 * @throws {PermError} As {@linkcode apply}; the former values stay on record.
 */
export function undo(options: TuningOptions = {}): TuningReport {
  const root = rootOf(options);
  const path = stateFile(root);
  const former = readState(path);
  if (former === undefined) return report(root, [], null);

  const before = readAll(root);
  let cause: unknown;
  const left = putBack(root, former, (error) => cause ??= error);
  if (left.length > 0) throw failure("put back the kernel settings", cause, left);
  removeState(path);
  const changed = Object.keys(former).filter((name) => before[name] !== former[name]);
  return report(root, changed, null);
}

function rootOf(options: TuningOptions): string {
  // A misspelt `root` would tune the system itself.
  const isKnown = typeof options === "object" && options !== null &&
    Object.keys(options).every((key) => key === "root");
  if (!isKnown) {
    throw new PermError(
      "INVALID_ARGUMENT",
      `Cannot tune with ${describe(options)}: give an object with at most \`root\``,
    );
  }
  const { root = "/proc/sys" } = options;
  if (typeof root !== "string" || root === "") {
    throw new PermError("INVALID_ARGUMENT", "Cannot tune: `root` must be the path of a folder");
  }
  return root.length > 1 ? root.replace(/\/+$/, "") || "/" : root;
}

function report(root: string, changed: string[], saved: Values | null): TuningReport {
  const findings = settings.map((setting): Finding => {
    try {
      const current = Number(read(root, setting.name));
      return { ...setting, current, isTuned: current === setting.wanted };
    } catch (error) {
      if (!(error instanceof PermError)) throw error;
      return { ...setting, current: null, isTuned: false, problem: error.message };
    }
  });
  return {
    isTuned: findings.every(({ isTuned }) => isTuned),
    settings: findings,
    changed,
    saved: saved && Object.fromEntries(
      Object.entries(saved).map(([name, text]) => [name, Number(text)]),
    ),
  };
}

/** The settings' values, and their counterparts' where the kernel has them. */
function readAll(root: string): Values {
  const values: Record<string, string> = {};
  for (const { name, counterpart } of settings) {
    values[name] = read(root, name);
    if (counterpart === undefined) continue;
    const other = unlessMissing(() => read(root, counterpart));
    if (other !== undefined) values[counterpart] = other;
  }
  return values;
}

/** Brings `former` into force as far as possible; returns the names of what it could not. */
function putBack(root: string, former: Values, onError?: (error: unknown) => void): string[] {
  const left: string[] = [];
  for (const { name, counterpart } of settings) {
    if (former[name] === undefined) continue;
    // The one that was in force goes first: by that the kernel makes the other 0, as it was.
    const pair = counterpart === undefined || former[counterpart] === undefined
      ? [name]
      : Number(former[counterpart]) === 0
      ? [name, counterpart]
      : [counterpart, name];
    try {
      for (const each of pair) {
        if (read(root, each) !== former[each]) write(root, each, former[each]);
      }
    } catch (error) {
      onError?.(error);
      left.push(name);
    }
  }
  return left;
}

/** A setting's value as the kernel prints it, end of line included. */
function read(root: string, name: string): string {
  const path = fileOf(root, name);
  const text = new TextDecoder().decode(readSmallFile(path));
  if (isNumber(text)) return text;
  throw new PermError(
    "IO",
    `Cannot read ${name}: ${JSON.stringify(text.slice(0, 80))} is no number`,
    { path },
  );
}

/** Writes a setting, and makes sure that it took. */
function write(root: string, name: string, value: string): void {
  const path = fileOf(root, name);
  writeSmallFile(path, new TextEncoder().encode(value));
  const [wanted, now] = [Number(value), Number(read(root, name))];
  if (now === wanted) return;
  throw new PermError("IO", `Cannot set ${name} to ${wanted}: the kernel left it at ${now}`, {
    path,
  });
}

function fileOf(root: string, name: string): string {
  return `${root}/${name.replaceAll(".", "/")}`;
}

function explained<Value>(action: string, body: () => Value): Value {
  try {
    return body();
  } catch (error) {
    throw failure(action, error, []);
  }
}

function failure(action: string, cause: unknown, left: string[]): unknown {
  if (!(cause instanceof PermError)) return cause;
  const { code, message, path, errno } = cause;
  const advice = code === "PERMISSION"
    ? "; it takes root"
    : code === "READ_ONLY"
    ? "; set it on the host, not in a container"
    : "";
  const state = left.length === 0
    ? "nothing is changed"
    : `these are not as they were: ${left.join(", ")}`;
  return new PermError(code, `Cannot ${action}: ${message}${advice}; ${state}`, {
    ...(path === undefined ? {} : { path }),
    ...(errno === undefined ? {} : { errno }),
    cause,
  });
}
