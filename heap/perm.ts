/**
 * PERM's programming interface, one to one, on the default heap: the one that {@linkcode mopen}
 * opened in this thread.
 *
 * Invariant: blocks given before `mopen` belong to the heap that the next successful `mopen` opens,
 * and to no other.
 *
 * @module
 */

import { describe, PermError } from "../ffi/mod.ts";
import { blockName, type BlockTarget, expectTarget } from "./blocks.ts";
import { type Heap, internals } from "./heap.ts";
import type { Image } from "./image.ts";
import type { HeapOptions, ImageOptions, Mode, RestoreOptions } from "./options.ts";
import { blockOf, declarations, PERM } from "./perm_block.ts";
import type { CommitReport, RestoreReport } from "./reports.ts";
import type { Pointer } from "./views.ts";

let opened: Heap | null = null;
/** PERM closes the map file first and the backup file then, which is gone already. */
let closedOnce = false;
/** Blocks that wait for a heap, by name. */
const waiting = new Map<string, (heap: Heap) => void>();

/**
 * Opens the default heap.
 *
 * @param path The map file, or `null` for a heap without one (mode `"w+"` only).
 * @param mode `"w+"` makes a new heap, `"r+"` goes on from the last commit, `"r"` reads only.
 * @param size Bytes of data that the heap can hold before it grows; for `"r+"` it grows the heap
 * when it is larger.
 * @param options Address, limits, trackers and what to keep.
 * @returns The heap, on which the functions of this module work.
 * @throws {PermError} `ALREADY_OPEN` while a default heap is open or the file is; else as
 * `Heap.open`; `NOT_FOUND` and `NO_COMMIT` for `"r+"` and `"r"`; `BLOCK_MISMATCH` when a block given
 * before has another layout in the file.
 *
 * @example
 * ```ts
 * import { mclose, mopen, perm } from "@perm/heap";
 *
 * const totals = new Float64Array(4);
 * perm("totals", totals);
 * mopen("totals.perm", "w+", 1 << 20);
 * totals[0] = 1;
 * mclose();
 * ```
 */
export function mopen(
  path: string | null,
  mode: Mode,
  size?: number,
  options?: HeapOptions,
): Heap {
  if (current()) {
    throw new PermError(
      "ALREADY_OPEN",
      `Cannot mopen ${
        describe(path)
      }: the default heap is open; mclose() it first, or use Heap.open ` +
        "for another",
    );
  }
  const heap = internals.mopen(path, mode, size, options);
  try {
    for (const register of waiting.values()) register(heap);
  } catch (error) {
    heap.close();
    throw error;
  }
  waiting.clear();
  return opened = heap;
}

/**
 * Commits to the map file, then closes the default heap and its backup file. A heap without a map
 * file or opened with `"r"` is closed only.
 *
 * @throws {PermError} `NOT_OPEN`; what `mflush` throws, and then the heap stays open; `BUSY` while
 * another thread is attached.
 */
export function mclose(): void {
  const heap = expectHeap("mclose");
  if (!internals.isReadOnly(heap) && heap.map !== null) heap.flush();
  heap.close();
  closedOnce = true;
}

/**
 * Commits the default heap to its map file; see `Heap.flush`.
 *
 * @throws {PermError} `NOT_OPEN`, and what `Heap.flush` throws.
 */
export function mflush(): CommitReport {
  return expectHeap("mflush").flush();
}

/** Commits the default heap to its map file; see `Heap.flushAsync`. */
export function flushAsync(): Promise<CommitReport> {
  return new Promise((resolve) => resolve(expectHeap("flushAsync").flushAsync()));
}

/**
 * Opens a backup file beside the default heap's map file; see `Heap.bopen`.
 *
 * @throws {PermError} `NOT_OPEN`, and what `Heap.bopen` throws.
 */
export function bopen(path: string, mode: Mode, options?: ImageOptions): Image {
  return expectHeap("bopen").bopen(path, mode, options);
}

/**
 * Closes the backup file without committing. After `mclose`, which closed it, this does nothing:
 * `mclose(); bclose();` is PERM's order.
 *
 * @throws {PermError} `NOT_OPEN` when none was open.
 */
export function bclose(): void {
  const heap = current();
  if (!heap && closedOnce) return;
  (heap ?? expectHeap("bclose")).bclose();
}

/**
 * Commits the default heap to its backup file; see `Heap.backup`.
 *
 * @throws {PermError} `NOT_OPEN`, and what `Heap.backup` throws.
 */
export function backup(): CommitReport {
  return expectHeap("backup").backup();
}

/** Commits the default heap to its backup file; see `Heap.backupAsync`. */
export function backupAsync(): Promise<CommitReport> {
  return new Promise((resolve) => resolve(expectHeap("backupAsync").backupAsync()));
}

/**
 * Takes the default heap back to a committed epoch; see `Heap.restore`.
 *
 * @throws {PermError} `NOT_OPEN`, and what `Heap.restore` throws.
 */
export function restore(options?: RestoreOptions): RestoreReport {
  return expectHeap("restore").restore(options);
}

/**
 * Registers a JavaScript buffer as a persistent global. Before `mopen` it waits for the heap that
 * `mopen` opens, and is filled there; its registration ends with that heap.
 *
 * @param name Its identity in the heap.
 * @param target A typed array, DataView or ArrayBuffer of fixed length, outside the heap.
 * @throws {PermError} `EXISTS`, `BLOCK_MISMATCH`, `INVALID_ARGUMENT`; see `Heap.perm`.
 */
export function perm(name: string, target: BlockTarget): void;
/**
 * Registers the PERM block, as PERM does: `perm(PERM.start, PERM.size)`. Each name declared so far
 * becomes a block of its own, `PERM.<name>`.
 *
 * @param address `PERM.start`.
 * @param size `PERM.size`.
 * @throws {PermError} `EXISTS` when all of it is registered; `BLOCK_MISMATCH`; `INVALID_ARGUMENT` for
 * any other memory, and while nothing is declared.
 */
export function perm(address: Pointer, size: number): void;
export function perm(what: string | Pointer, target: BlockTarget | number): void {
  if (typeof what === "number") {
    permBlock(what, target);
    return;
  }
  const heap = current();
  if (heap) {
    heap.perm(what, target as BlockTarget);
    return;
  }
  blockName(what);
  expectTarget(what, target as BlockTarget);
  expectFree(what);
  waiting.set(what, (later) => later.perm(what, target as BlockTarget));
}

function permBlock(address: Pointer, size: unknown): void {
  const all = declarations();
  if (address !== PERM.start || size !== PERM.size || all.length === 0) {
    throw new PermError(
      "INVALID_ARGUMENT",
      `Cannot register ${describe(size)} bytes at 0x${
        address.toString(16)
      }: only the PERM block is ` +
        "registered by address, with perm(PERM.start, PERM.size) after PERM.declare(…)",
      { address: Number.isSafeInteger(address) ? address : undefined },
    );
  }
  const heap = current();
  let registered = 0;
  for (const { name, address, bytes, layout } of all) {
    const block = blockOf(name);
    const register = (later: Heap) => internals.permAt(later, block, address, bytes, layout);
    if (heap === null) {
      if (waiting.has(block)) continue;
      waiting.set(block, register);
    } else if (!tryRegister(() => register(heap))) continue;
    registered++;
  }
  if (registered === 0) {
    throw new PermError(
      "EXISTS",
      "Cannot register the PERM block: all of it is registered; declare more first",
    );
  }
}

/** False when the name is registered already. */
function tryRegister(register: () => void): boolean {
  try {
    register();
    return true;
  } catch (error) {
    if (error instanceof PermError && error.code === "EXISTS") return false;
    throw error;
  }
}

/**
 * Ends a registration and removes the stored block with the next commit.
 *
 * @param name A block that is registered, waiting for `mopen`, or only stored.
 * @throws {PermError} `NOT_FOUND`, `READ_ONLY`.
 */
export function unperm(name: string): void {
  const heap = current();
  if (heap) {
    heap.unperm(name);
    return;
  }
  blockName(name);
  if (waiting.delete(name)) return;
  throw new PermError(
    "NOT_FOUND",
    `Cannot remove block ${
      describe(name)
    }: no heap is open, and no block of that name waits for one`,
  );
}

/**
 * Allocates from the default heap; see `Heap.malloc`.
 *
 * @throws {PermError} `NOT_OPEN`, `OUT_OF_MEMORY`, `INVALID_ARGUMENT`, `READ_ONLY`.
 */
export function malloc(n: number): Pointer {
  return expectHeap("malloc").malloc(n);
}

/**
 * Allocates zeroed memory from the default heap; see `Heap.calloc`.
 *
 * @throws {PermError} `NOT_OPEN`, `OUT_OF_MEMORY`, `INVALID_ARGUMENT`, `READ_ONLY`.
 */
export function calloc(n: number, size: number): Pointer {
  return expectHeap("calloc").calloc(n, size);
}

/**
 * Gives a block of the default heap another size; see `Heap.realloc`.
 *
 * @throws {PermError} `NOT_OPEN`, `BAD_POINTER`, `OUT_OF_MEMORY`, `INVALID_ARGUMENT`, `READ_ONLY`.
 */
export function realloc(p: Pointer, n: number): Pointer {
  return expectHeap("realloc").realloc(p, n);
}

/**
 * Frees a block of the default heap; see `Heap.free`.
 *
 * @throws {PermError} `NOT_OPEN`, `BAD_POINTER`, `DOUBLE_FREE`, `READ_ONLY`.
 */
export function free(p: Pointer): void {
  expectHeap("free").free(p);
}

/**
 * Allocates aligned memory from the default heap; see `Heap.alignedAlloc`.
 *
 * @throws {PermError} `NOT_OPEN`, `OUT_OF_MEMORY`, `INVALID_ARGUMENT`, `READ_ONLY`.
 */
export function alignedAlloc(alignment: number, n: number): Pointer {
  return expectHeap("alignedAlloc").alignedAlloc(alignment, n);
}

/**
 * Bytes that a block of the default heap can hold; see `Heap.usableSize`.
 *
 * @throws {PermError} `NOT_OPEN`, `BAD_POINTER`.
 */
export function usableSize(p: Pointer): number {
  return expectHeap("usableSize").usableSize(p);
}

function current(): Heap | null {
  return opened !== null && internals.isOpen(opened) ? opened : null;
}

function expectHeap(action: string): Heap {
  if (opened !== null && internals.isOpen(opened)) return opened;
  throw new PermError("NOT_OPEN", `Cannot ${action}: no default heap is open; mopen() one first`);
}

function expectFree(name: string): void {
  if (!waiting.has(name)) return;
  throw new PermError(
    "EXISTS",
    `Cannot register block ${describe(name)}: the name is taken; unperm() it first, or use another`,
  );
}
