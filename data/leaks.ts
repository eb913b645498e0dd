/**
 * The search for memory that nothing reaches: every block of the heap on one side, what the roots
 * lead to by their types on the other.
 *
 * What the program keeps without types is kept too: whatever `heap.root`, a named global or a
 * registered block points to, and so on, read as C memory in which every aligned word may be a
 * pointer.
 *
 * Invariant: what a root reaches is never told as a leak, whatever else points to it.
 *
 * @module
 */

import { check, native, PermError } from "../ffi/mod.ts";
import { type Heap, internals } from "../heap/heap.ts";
import type { Pointer } from "../heap/views.ts";
import { type Access, accessTo } from "./pane.ts";
import { Root, rootsOf } from "./roots.ts";
import { typeOfSchema } from "./schema.ts";
import type { Type, Walker } from "./type.ts";

/** A block that nothing reaches. */
export interface Leak {
  /** Its address. */
  readonly address: Pointer;
  /** Its size in bytes, as the allocator rounded it. */
  readonly size: number;
}

/** What {@linkcode collect} freed. */
export interface CollectReport {
  /** Blocks. */
  readonly blocks: number;
  /** Their bytes. */
  readonly bytes: number;
}

const pieceBlocks = 65536;

/** All live blocks in order of address. */
class Blocks {
  readonly addresses: Float64Array;
  readonly sizes: Float64Array;
  /** 0: not reached; 1: reached; beyond: the object of type n − 2 at its start was walked. */
  readonly reached: Uint32Array;

  constructor(handle: number) {
    const pieces: Float64Array[] = [];
    let from = 0;
    let count = 0;
    for (;;) {
      const piece = new Float64Array(2 * pieceBlocks);
      const found = check(native.ph_live_blocks(handle, from, piece, pieceBlocks));
      pieces.push(piece.subarray(0, 2 * found));
      count += found;
      if (found < pieceBlocks) break;
      from = piece[2 * found - 2] + 1;
    }
    this.addresses = new Float64Array(count);
    this.sizes = new Float64Array(count);
    this.reached = new Uint32Array(count);
    let index = 0;
    for (const piece of pieces) {
      for (let at = 0; at < piece.length; at += 2, index++) {
        this.addresses[index] = piece[at];
        this.sizes[index] = piece[at + 1];
      }
    }
  }

  /** The block that holds an address; −1 for none. */
  find(p: Pointer): number {
    let low = 0;
    let high = this.addresses.length - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      if (this.addresses[middle] <= p) low = middle + 1;
      else high = middle - 1;
    }
    return high >= 0 && p < this.addresses[high] + this.sizes[high] ? high : -1;
  }
}

/** One search. */
class Search implements Walker {
  readonly blocks: Blocks;
  readonly #access: Access;
  readonly #types: Type[] = [];
  readonly #numbers = new Map<Type, number>();
  /** Objects inside of blocks, and those that are walked as a second type. */
  readonly #others = new Map<Pointer, Set<Type>>();
  readonly #objects: Pointer[] = [];
  readonly #objectTypes: number[] = [];

  constructor(access: Access) {
    this.#access = access;
    this.blocks = new Blocks(internals.extent(access.heap).handle);
  }

  block(p: Pointer): void {
    const index = this.blocks.find(p);
    if (index >= 0 && this.blocks.reached[index] === 0) this.blocks.reached[index] = 1;
  }

  object(p: Pointer, type: Type): void {
    const index = this.blocks.find(p);
    // What is not allocated is not followed: a reference to something that was destroyed.
    if (index < 0) return;
    const { reached } = this.blocks;
    const number = this.#numberOf(type);
    if (p === this.blocks.addresses[index] && reached[index] <= 1) reached[index] = number + 2;
    else {
      if (reached[index] === number + 2 && p === this.blocks.addresses[index]) return;
      if (reached[index] === 0) reached[index] = 1;
      let types = this.#others.get(p);
      if (types === undefined) this.#others.set(p, types = new Set());
      if (types.has(type)) return;
      types.add(type);
    }
    this.#objects.push(p);
    this.#objectTypes.push(number);
  }

  /** Walks all objects that were told, and those that they tell. */
  walk(): void {
    for (let p = this.#objects.pop(); p !== undefined; p = this.#objects.pop()) {
      const type = this.#types[this.#objectTypes.pop()!];
      const pane = this.#access.pane(p, type.size);
      type.walk?.(pane, (p - pane.base) | 0, this);
    }
  }

  /** Reaches everything that some aligned word in the bytes at `p` may point to, and so on. */
  scan(p: Pointer, bytes: number): void {
    const stack = [p, bytes];
    while (stack.length > 0) {
      let left = stack.pop()!;
      let from = stack.pop()!;
      for (; left >= 8; from += 8, left -= 8) {
        const pane = this.#access.pane(from, 8);
        const at = (from - pane.base) | 0;
        const target = pane.view.getUint32(at, true) +
          pane.view.getUint32((at + 4) | 0, true) * 0x100000000;
        const index = target === 0 ? -1 : this.blocks.find(target);
        if (index < 0 || this.blocks.reached[index] !== 0) continue;
        this.blocks.reached[index] = 1;
        stack.push(this.blocks.addresses[index], this.blocks.sizes[index]);
      }
    }
  }

  #numberOf(type: Type): number {
    let number = this.#numbers.get(type);
    if (number === undefined) {
      this.#numbers.set(type, number = this.#types.length);
      this.#types.push(type);
    }
    return number;
  }
}

function search(access: Access): Blocks {
  const { heap } = access;
  const search = new Search(access);
  for (const p of access.kept) search.block(p);
  for (const root of rootsOf(heap)) {
    search.object(root.ptr, Root);
    search.object(root.object, typeOfSchema(root.schema));
  }
  search.walk();
  const own = ownBlocks(internals.extent(heap).handle);
  for (const { p } of own) search.block(p);
  for (const { p, bytes } of own) search.scan(p, bytes - bytes % 8);
  const { root } = heap;
  const index = root === 0 ? -1 : search.blocks.find(root);
  if (index >= 0 && search.blocks.reached[index] === 0) {
    search.block(root);
    search.scan(search.blocks.addresses[index], search.blocks.sizes[index]);
  }
  return search.blocks;
}

/** What the heap's table of names takes, with how many bytes of it the program may fill. */
function ownBlocks(handle: number): { p: Pointer; bytes: number }[] {
  for (let room = 256;;) {
    const pairs = new Float64Array(2 * room);
    const count = check(native.ph_own_blocks(handle, pairs, room));
    if (count > room) {
      room = count;
      continue;
    }
    return Array.from(
      { length: count },
      (_, index) => ({ p: pairs[2 * index], bytes: pairs[2 * index + 1] }),
    );
  }
}

/**
 * Lists the blocks that nothing reaches: neither a root by the types of its fields and elements, nor
 * `heap.root`, a named global or a registered block by any pointer in them.
 *
 * An object that only JavaScript knows is such a block: give it a root or refer to it first. Nobody
 * else may change the heap meanwhile.
 *
 * @throws {PermError} `UNSUPPORTED` when a root is of a kind that this library does not know;
 * `CORRUPT`, `CLOSED`.
 *
 * @example
 * ```ts
 * import { Heap } from "@perm/heap";
 * import { f64, leaks, struct } from "@perm/heap/data";
 *
 * const Point = struct("Point", { x: f64, y: f64 });
 * using heap = Heap.open({ size: 1 << 20 });
 * const p = new Point(heap);
 * console.log(leaks(heap)[0].address === p.ptr); // true: no root leads to it
 * ```
 */
export function leaks(heap: Heap): Leak[] {
  const { addresses, sizes, reached } = search(accessTo(heap));
  const found: Leak[] = [];
  for (let index = 0; index < reached.length; index++) {
    if (reached[index] === 0) found.push({ address: addresses[index], size: sizes[index] });
  }
  return found;
}

/**
 * Frees the blocks that {@linkcode leaks} lists. Handles of objects in them, which no root reaches,
 * must not be used any more.
 *
 * @throws {PermError} As `leaks`; `READ_ONLY`; `BUSY` from what a container that is being made is filled with.
 */
export function collect(heap: Heap): CollectReport {
  if (accessTo(heap).filling > 0) {
    throw new PermError(
      "BUSY",
      "Cannot collect while a container is being made, which nothing leads to yet: do so afterwards",
    );
  }
  const found = leaks(heap);
  heap.freeMany(Float64Array.from(found, ({ address }) => address));
  return { blocks: found.length, bytes: found.reduce((sum, { size }) => sum + size, 0) };
}
