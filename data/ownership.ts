/**
 * Who frees what: a struct owns its texts and containers, not what it refers to.
 *
 * @module
 */

import { describe, PermError } from "../ffi/mod.ts";
import { endHandle, Handle, paneOf, typeOf } from "./handle.ts";
import { expectObject } from "./ref.ts";

/**
 * Frees an object and all that it owns: texts and containers in its fields, and what these own. What
 * it refers to stays. Further use of the handle throws; that of other handles of the same object, and
 * of references to it, is not noticed, as in C.
 *
 * @param object A struct or container that stands alone: not one in another object.
 * @throws {PermError} `STALE` when it was destroyed before, or its heap was closed or restored;
 * `BAD_POINTER` when it stands in another object; `INVALID_ARGUMENT` for what is no object.
 *
 * @example
 * ```ts
 * import { Heap } from "@perm/heap";
 * import { destroy, struct, text } from "@perm/heap/data";
 *
 * const Note = struct("Note", { body: text });
 * using heap = Heap.open({ size: 1 << 20 });
 * const note = new Note(heap, { body: "a text too long to stand in its slot" });
 * destroy(note);
 * ```
 */
export function destroy(object: object): void {
  if (!(object instanceof Handle)) {
    throw new PermError(
      "INVALID_ARGUMENT",
      `Cannot destroy ${describe(object)}: give a struct or container of a heap`,
    );
  }
  const pane = paneOf(object);
  const { ptr } = object;
  if (object.$view !== pane.view) {
    throw new PermError(
      "BAD_POINTER",
      `Cannot destroy the object at 0x${
        ptr.toString(16)
      }: it stands in another one and goes with it`,
      { address: ptr },
    );
  }
  const type = expectObject(typeOf(object));
  const { heap } = pane.access;
  // Proves that a block begins here before anything in it is freed.
  const room = heap.usableSize(ptr);
  if (room < type.size) {
    throw new PermError(
      "BAD_POINTER",
      `Cannot destroy the ${type.name} at 0x${ptr.toString(16)}: its block has ${room} bytes`,
      { address: ptr },
    );
  }
  type.destroy(pane, object.$at);
  heap.free(ptr);
  endHandle(object);
}
