/**
 * Commits as JavaScript sees them: its buffers are copied to their shadows first.
 *
 * @module
 */

import { check, native, outcome } from "../ffi/mod.ts";
import { which } from "./image.ts";
import { type CommitReport, commitReport, reportBuffer } from "./reports.ts";
import type { Session } from "./session.ts";

/** Commits to one of the heap's images; durable when it returns. */
export function commit(
  session: Session,
  handle: number,
  kind: keyof typeof which,
): CommitReport {
  storeBlocks(session, handle);
  const report = reportBuffer();
  check(native.ph_commit(handle, which[kind], report));
  return commitReport(report);
}

/** Commits the state of this moment; durable when the promise resolves. */
export async function commitAsync(
  session: Session,
  handle: number,
  kind: keyof typeof which,
): Promise<CommitReport> {
  storeBlocks(session, handle);
  const begun = check(native.ph_commit_async(handle, which[kind]));
  return commitReport(await outcome(begun, reportBuffer()));
}

function storeBlocks({ blocks }: Session, handle: number): void {
  blocks.expectIntact("commit");
  blocks.store(handle);
}
