/**
 * Blocks that are JavaScript buffers: copied to their shadows in the heap before each commit, and
 * filled from them on registration and after each restore, by the thread that registered them.
 *
 * Invariant: a target keeps its size and stays attached as long as it is registered, or commits and
 * restores refuse to begin.
 *
 * @module
 */

import {
  check,
  codeOf,
  describe,
  encode,
  native,
  nativeError,
  PermError,
  recordBuffer,
  unpack,
} from "../ffi/mod.ts";
import { ownBuffers } from "./views.ts";

/** What can be registered as a block. */
export type BlockTarget = ArrayBufferView | ArrayBuffer;

interface Block {
  readonly id: number;
  readonly bytes: Uint8Array;
  readonly size: number;
}

/** Bytes that a block's name may have; native code knows the same limit. */
const nameLengthMax = 1024;

/** A block's or global's name as native code takes it. */
export function blockName(name: string): Uint8Array<ArrayBuffer> {
  const bytes = encode(name, "a block's name");
  if (bytes.length <= nameLengthMax) return bytes;
  throw new PermError(
    "INVALID_ARGUMENT",
    `Cannot take ${describe(name)} as a block's name: it has ${bytes.length} bytes, at most ` +
      `${nameLengthMax} are allowed`,
  );
}

/** The blocks that one thread has registered with one heap. */
export class Blocks {
  readonly #blocks = new Map<string, Block>();

  /** Registers a target, and fills it at once when the heap holds the block. */
  register(handle: number, name: string, target: BlockTarget): void {
    const key = blockName(name);
    const { bytes, layout } = expectTarget(name, target);
    const size = bytes.byteLength;
    const info = recordBuffer("BlockInfo");
    check(native.ph_perm(handle, key, key.length, size, layout, 0, info));
    const { id, found } = unpack("BlockInfo", info);
    this.#blocks.set(name, { id, bytes, size });
    if (found) check(native.ph_block_load(handle, id, bytes, size));
  }

  /** Ends a registration. */
  forget(name: string): void {
    this.#blocks.delete(name);
  }

  /** Refuses to begin when a target cannot be copied any more. */
  expectIntact(action: string): void {
    for (const [name, { bytes, size }] of this.#blocks) {
      if (bytes.byteLength === size) continue;
      throw new PermError(
        "INVALID_ARGUMENT",
        `Cannot ${action}: the buffer of block ${describe(name)} was transferred or detached; ` +
          "remove the block with unperm(), or register another buffer",
      );
    }
  }

  /** Copies every target to its shadow, where it differs. */
  store(handle: number): void {
    this.#copy(native.ph_block_store, handle);
  }

  /** Fills every target from its shadow. */
  load(handle: number): void {
    this.#copy(native.ph_block_load, handle);
  }

  #copy(copy: typeof native.ph_block_store, handle: number): void {
    for (const [name, { id, bytes, size }] of this.#blocks) {
      const result = copy(handle, id, bytes, size);
      if (result >= 0) continue;
      // Another thread has removed the block with unperm(); an id is not used twice.
      if (codeOf(result) !== "NOT_FOUND") throw nativeError(result);
      this.#blocks.delete(name);
    }
  }
}

/** A target's bytes and what it is made of; refuses what cannot be copied at each commit. */
export function expectTarget(
  name: string,
  target: BlockTarget,
): { bytes: Uint8Array; layout: number } {
  const refuse = (why: string) =>
    new PermError("INVALID_ARGUMENT", `Cannot register block ${describe(name)}: ${why}`);

  try {
    return partsOf(target, refuse);
  } catch (error) {
    if (error instanceof PermError) throw error;
    // A proxy, a prototype without what belongs to it, a property of its own that misleads.
    throw refuse(`${describe(target)} is not what it says that it is`);
  }
}

function partsOf(
  target: BlockTarget,
  refuse: (why: string) => PermError,
): { bytes: Uint8Array; layout: number } {
  const isView = ArrayBuffer.isView(target);
  if (!isView && !(target instanceof ArrayBuffer)) {
    throw refuse(`${describe(target)} is neither a typed array, a DataView nor an ArrayBuffer`);
  }
  const buffer = isView ? target.buffer : target;
  if (ownBuffers.has(buffer)) {
    throw refuse(
      "the view lies in memory that needs no registration: a heap's is persistent by " +
        "itself, the PERM block's is registered as a whole with perm(PERM.start, PERM.size)",
    );
  }
  if (!(buffer instanceof ArrayBuffer)) {
    throw refuse("shared memory could change while it is copied; register a copy, or use global()");
  }
  if (buffer.resizable) throw refuse("its buffer can be resized; give one of a fixed length");
  if (buffer.detached) throw refuse("its buffer was transferred or detached; give another one");
  if (target.byteLength === 0) throw refuse("it is empty, there is nothing to keep");

  const offset = isView ? target.byteOffset : 0;
  const type = Object.prototype.toString.call(target).slice(8, -1);
  const length = "length" in target ? Number(target.length) : target.byteLength;
  return {
    bytes: new Uint8Array(buffer, offset, target.byteLength),
    layout: layoutHash(isView ? typedArrayName(target) ?? type : type, length),
  };
}

const typedArrayTag = Object.getOwnPropertyDescriptor(
  Object.getPrototypeOf(Uint8Array.prototype),
  Symbol.toStringTag,
)!.get!;

/** What a typed array is, whatever class it was made by (Node's Buffer is a Uint8Array). */
function typedArrayName(view: ArrayBufferView): string | undefined {
  return typedArrayTag.call(view);
}

/** 52 bits over what a block is made of, so that another type or count is another block. */
export function layoutHash(type: string, count: number): number {
  let hash = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(`${type}[${count}]`)) {
    hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  }
  return Number(BigInt.asUintN(52, hash ^ (hash >> 52n)));
}
