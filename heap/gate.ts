/**
 * The gate of a heap: changes go through it side by side, whoever needs the heap to be still alone.
 *
 * Invariant: a thread takes the gate once, however deep its calls are nested, and leaves it once.
 *
 * @module
 */

import { check, native, PermError } from "../ffi/mod.ts";
import { refused } from "./options.ts";
import type { Session } from "./session.ts";

/** Runs the action within the gate: `quiet` keeps all others out, waiting `timeout` ms at most. */
export function pass<Result>(
  session: Session,
  handle: number,
  action: () => Result,
  quiet: boolean,
  timeout: number,
): Result {
  if (typeof action !== "function") throw refused("action", action, "a function");
  if (session.inside === 0) {
    if (check(native.ph_lock(handle, 0, quiet ? 1 : 0, timeout)) === 0) {
      throw new PermError(
        "BUSY",
        `Cannot quiesce the heap: other threads were within change() for ${timeout} ms; wait longer`,
      );
    }
    session.quiet = quiet;
  } else if (quiet && !session.quiet) {
    throw new PermError(
      "BUSY",
      "Cannot quiesce the heap within a change of this thread: it would wait for itself",
    );
  }
  session.inside++;
  const leave = () => {
    session.inside--;
    // A heap that was closed inside has no gate any more.
    if (session.inside === 0) native.ph_unlock(session.handle, 0, session.quiet ? 1 : 0);
  };
  let result: Result;
  let isPending = false;
  try {
    result = action();
    isPending = isThenable(result);
  } finally {
    // Also when the action throws, or its result when it is looked at: nobody else could leave.
    if (!isPending) leave();
  }
  return isPending ? Promise.resolve(result).finally(leave) as Result : result;
}

function isThenable(value: unknown): boolean {
  return (typeof value === "object" && value !== null || typeof value === "function") &&
    typeof (value as { then?: unknown }).then === "function";
}
