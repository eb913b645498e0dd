/**
 * What other rooms may do to a heap beyond its public face.
 *
 * @module
 */

import type { HeapOptions, Mode } from "./options.ts";
import type { Extent, Pointer } from "./views.ts";
import type { Heap } from "./heap.ts";

/** What perm.ts does to a heap beyond its public face. */
export interface HeapInternals {
  mopen(
    path: string | null,
    mode: Mode,
    size: number | undefined,
    options: HeapOptions | undefined,
  ): Heap;
  /** Registers library memory, which native code copies by itself. */
  permAt(heap: Heap, name: string, address: Pointer, bytes: number, layout: number): void;
  isOpen(heap: Heap): boolean;
  isReadOnly(heap: Heap): boolean;
  /** Where a heap lies now. */
  extent(heap: Heap): Extent;
  /** Address of the named global of that many bytes, made if it is new. */
  globalAt(heap: Heap, name: string, bytes: number, layout: number): Pointer;
  /** Has `end` called whenever what was seen of the heap so far ends: after a restore or a close. */
  onEnd(heap: Heap, end: () => void): void;
}
