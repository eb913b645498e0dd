/**
 * The heap as programs see it: {@linkcode Heap} and {@linkcode Image}, views and pointers, blocks,
 * and PERM's own programming interface on top of them.
 *
 * Invariant: whatever is passed in, in whatever order, ends in a result or a `PermError`; the one
 * thing that cannot be caught is C's own, writing through a view of memory that was freed.
 *
 * @module
 */

export { Heap } from "./heap.ts";
export { type EpochInfo, Image } from "./image.ts";
export type { HeapOptions, ImageOptions, Mode, OpenOptions, RestoreOptions } from "./options.ts";
export type { CommitReport, HeapStats, ImageReport, RestoreReport, Resumed } from "./reports.ts";
export type { BlockTarget } from "./blocks.ts";
export type { Pointer, ViewType, Window } from "./views.ts";
export { type Declarations, PERM, type PermBlock } from "./perm_block.ts";
export {
  alignedAlloc,
  backup,
  backupAsync,
  bclose,
  bopen,
  calloc,
  flushAsync,
  free,
  malloc,
  mclose,
  mflush,
  mopen,
  perm,
  realloc,
  restore,
  unperm,
  usableSize,
} from "./perm.ts";
export type { Finding, Setting, TuningReport } from "../tuning/mod.ts";
export { type ErrorCode, PermError, type PermErrorDetail } from "../ffi/mod.ts";
