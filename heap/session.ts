/**
 * What one thread knows of an open heap, shared by all `Heap` objects that stand for it there.
 *
 * Invariant: a thread has one session a heap.
 *
 * @module
 */

import { check, decode, native, PermError } from "../ffi/mod.ts";
import { check as checkTuning, type TuningReport } from "../tuning/mod.ts";
import { Blocks } from "./blocks.ts";
import type { Heap } from "./heap.ts";
import type { Image } from "./image.ts";

/**
 * What the `Heap` objects of one thread share when they stand for the same heap: `Heap.attach` in
 * a thread that has it open already makes a second object, not a second registration.
 */
export class Session {
  readonly handle: number;
  /** Whether this thread opened the heap; otherwise it is attached to it. */
  readonly owner: boolean;
  readonly blocks = new Blocks();
  readonly heaps = new Set<Heap>();
  tuning: () => TuningReport | null = () => null;
  map: Image | null = null;
  backup: Image | null = null;
  /** How many calls of `change` and `quiesce` are under way in this thread, and how it holds the gate. */
  inside: number = 0;
  quiet: boolean = false;

  #text: string | undefined;

  constructor(handle: number, owner: boolean) {
    this.handle = handle;
    this.owner = owner;
  }

  /**
   * The handle as text: asked for when it is needed, for few programs do.
   *
   * @throws {PermError} `CLOSED`.
   */
  get text(): string {
    if (this.#text !== undefined) return this.#text;
    const text = new Uint8Array(64);
    const length = check(native.ph_handle_text(this.handle, text));
    return this.#text = decode(text.subarray(0, length));
  }
}

/** This thread's sessions. */
export const sessions = new Set<Session>();

/** This thread's session of the heap whose handle that is. */
export function sessionOf(handle: string): Session | undefined {
  for (const session of sessions) {
    try {
      if (session.text === handle) return session;
    } catch (error) {
      // One that another thread has closed is none that is looked for.
      if (!(error instanceof PermError)) throw error;
    }
  }
}

/** A look that fails costs nobody a heap. */
export function findTuning(): TuningReport | null {
  try {
    return checkTuning();
  } catch (error) {
    if (error instanceof PermError) return null;
    throw error;
  }
}
