/**
 * What the settings were before the first `apply`, in a small file that outlives the process.
 *
 * Invariant: the file is complete and synced before any setting is changed, is never overwritten
 * while it stands, and goes only when what it holds is in force again. For the real settings it
 * lies in `/run`, which a restart of the system empties as it resets the settings.
 *
 * @module
 */
import { PermError, readSmallFile, removeSmallFile, writeSmallFile } from "../ffi/mod.ts";

/** Values by setting name, to the byte as the kernel printed them. */
export type Values = Readonly<Record<string, string>>;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Whether a file's text is a setting's value. */
export function isNumber(text: string): boolean {
  return /^\d+\n?$/.test(text);
}

/** Where the former values of the settings below `root` are kept. */
export function stateFile(root: string): string {
  return root === "/proc/sys" ? "/run/perm-heap-tuning.json" : `${root}/perm-heap-tuning.json`;
}

/** The former values, if `apply` has kept any. */
export function readState(path: string): Values | undefined {
  const text = unlessMissing(() => decoder.decode(readSmallFile(path)));
  // An empty file is what a crash at its creation leaves: nothing was changed after it.
  if (text === undefined || text === "") return undefined;
  try {
    const { version, values } = JSON.parse(text);
    const isSound = version === 1 &&
      Object.values(values).every((value) => typeof value === "string" && isNumber(value));
    if (isSound) return values;
  } catch {
    // Told below, like every other damage.
  }
  throw new PermError(
    "CORRUPT",
    `Cannot read the former kernel settings in "${path}": the file is damaged; set them by hand ` +
      "and remove it",
    { path },
  );
}

/** Keeps `values` unless some are kept already; returns those that are. */
export function keepState(path: string, values: Values): { kept: Values; isNew: boolean } {
  const old = readState(path);
  if (old !== undefined) return { kept: old, isNew: false };
  removeState(path);
  const text = JSON.stringify({ version: 1, values }, undefined, 2) + "\n";
  try {
    writeSmallFile(path, encoder.encode(text), { create: true });
  } catch (error) {
    const other = codeOf(error) === "EXISTS" ? readState(path) : undefined;
    if (other !== undefined) return { kept: other, isNew: false };
    // A file cut short must not pass for former values.
    try {
      removeState(path);
    } catch {
      // The first failure is the one to report.
    }
    throw error;
  }
  return { kept: values, isNew: true };
}

/** Removes the file, if there is one. */
export function removeState(path: string): void {
  unlessMissing(() => removeSmallFile(path));
}

/** The action's result, or undefined when the file it is about is not there. */
export function unlessMissing<Value>(action: () => Value): Value | undefined {
  try {
    return action();
  } catch (error) {
    if (codeOf(error) === "NOT_FOUND") return undefined;
    throw error;
  }
}

function codeOf(error: unknown): string | undefined {
  return error instanceof PermError ? error.code : undefined;
}
