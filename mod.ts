/**
 * A persistent heap for Deno and Bun: allocate at a fixed address, commit to a file, be killed, go
 * on within milliseconds.
 *
 * New code starts with {@linkcode Heap.open}; {@linkcode mopen}, {@linkcode perm} and their kin are
 * PERM's programming interface, one to one. Only `flush`, `backup` and `mclose` commit, and a commit
 * is all or nothing. Sizes are bytes; a {@linkcode Pointer} is an address as a number, 0 is null;
 * everything refused throws a {@linkcode PermError} with a `code`. Deno needs `--allow-ffi`, nothing
 * else.
 *
 * @example A counter that survives kill -9
 * ```ts
 * import { Heap } from "@perm/heap";
 *
 * using heap = Heap.open({ file: "counter.perm", size: 1 << 20 });
 * const counter = heap.global("counter", Float64Array, 1);
 * counter[0] += 1;
 * heap.flush();
 * console.log(`run ${counter[0]}, ${heap.resumed}`);
 * ```
 *
 * @module
 */

import { Heap, type OpenOptions } from "./heap/mod.ts";

export * from "./heap/mod.ts";

/**
 * Opens a heap: {@linkcode Heap.open} under a short name.
 *
 * @param options Files, size and the rest.
 * @throws {PermError} What `Heap.open` throws.
 */
export function open(options: OpenOptions): Heap {
  return Heap.open(options);
}
