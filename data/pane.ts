/**
 * How typed data finds its bytes: a heap is seen through panes, DataViews of up to 2 GiB that begin
 * at multiples of 1 GiB, so that an object of up to 1 GiB lies whole in the pane of its first byte
 * and every offset in it is an int32.
 *
 * Invariant: a pane that is not detached shows heap memory, and always the same. Growth makes further
 * panes and leaves those that are out alone; closing and restoring detach all of them, so that every
 * handle of the time before throws and none of them needs a check of its own.
 *
 * @module
 */

import { adapter, describe, PermError } from "../ffi/mod.ts";
import { Heap, internals } from "../heap/heap.ts";
import { expectNumber, type Opening, type Pointer, Views, windowStride } from "../heap/views.ts";

/** The largest object that typed data may make in one piece. */
export const objectSizeMax = windowStride;

/** The part of Node's Buffer that reads text fastest in both runtimes: 55 ns, a TextDecoder 75–140. */
interface Slicer {
  /** How many bytes it shows; 0 once its pane is detached. */
  readonly length: number;
  /** The UTF-8 from one offset to another as a string. */
  utf8Slice(from: number, to: number): string;
  /** The same for bytes that are ASCII. */
  latin1Slice(from: number, to: number): string;
}
type SlicerMaker = { from(buffer: ArrayBuffer): Partial<Slicer> };

/**
 * Texts that a TextDecoder reads before Buffer is asked for: fetching that takes Deno 5 ms, which is
 * more than many a program's texts take.
 */
let beforeSlicers = adapter.runtime === "deno" ? 20_000 : 0;
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** A pane's bytes as numbers, which know whose they are, so that a handle need not. */
export interface PaneView extends DataView<ArrayBuffer> {
  /** Whose bytes they are. @internal */
  $pane: Pane;
}

/** A stretch of a heap, and what belongs to it. */
export class Pane {
  /** A pane of nothing, detached from the beginning. */
  static readonly ended: Pane = new Pane(new DataView(new ArrayBuffer(0)), NaN, null!, 0);
  /** The bytes as numbers; detached when the heap was closed or restored. */
  readonly view: PaneView;
  /** The same, for handles of objects that stand in another object: these are never freed. */
  readonly inner: PaneView;
  /** Address of the first byte. */
  readonly base: Pointer;
  /** How many bytes it shows. */
  readonly length: number;
  /** The heap that it belongs to. */
  readonly access: Access;
  /** The heap's native handle; 0, which every native function refuses, once it is detached. */
  handle: number;
  #bytes: Uint8Array<ArrayBuffer> | undefined;
  /**
   * A plain field, as is {@linkcode $words}: JavaScriptCore reads a private one in four times the code.
   *
   * @internal
   */
  $slicer: Slicer | undefined;
  /** @internal */
  $words: Int32Array<ArrayBuffer> | undefined;

  /** Made by {@linkcode Access} only. */
  constructor(view: DataView<ArrayBuffer>, base: Pointer, access: Access, handle: number) {
    this.view = paneView(view.buffer, this);
    this.inner = paneView(view.buffer, this);
    this.base = base;
    this.length = view.byteLength;
    this.access = access;
    this.handle = handle;
  }

  static {
    Pane.ended.view.buffer.transfer?.(0);
  }

  /** The same bytes for bulk copies; `at` is an offset in it as in the view. */
  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes ??= new Uint8Array(this.view.buffer);
  }

  /** The same as words of 4 bytes; what is read there once the pane is detached is undefined. */
  get words(): Int32Array<ArrayBuffer> {
    return this.$words ??= new Int32Array(this.view.buffer, 0, this.length >>> 2);
  }

  /** The UTF-8 from one offset to another as a string. */
  text(from: number, to: number): string {
    const slicer = this.$slicer ??= this.#makeSlicer();
    const { length } = slicer ?? this.bytes;
    if (length === 0 && to > from) throw new TypeError("The heap was closed or restored");
    if (slicer !== undefined) return slicer.utf8Slice(from, to);
    return decoder.decode(this.bytes.subarray(from, to));
  }

  /** The same for ASCII, of which there is some; only in JavaScriptCore, where it takes less. */
  ascii(from: number, to: number): string {
    const slicer = this.$slicer;
    return slicer === undefined ? this.text(from, to) : slicer.latin1Slice(from, to);
  }

  #makeSlicer(): Slicer | undefined {
    if (--beforeSlicers >= 0) return undefined;
    const made = (globalThis as unknown as { Buffer: SlicerMaker }).Buffer.from(this.view.buffer);
    return made.utf8Slice && made.latin1Slice ? made as Slicer : undefined;
  }
}

function paneView(buffer: ArrayBuffer, pane: Pane): PaneView {
  return Object.assign(new DataView(buffer), { $pane: pane });
}

/** A heap as typed data sees it; one for each `Heap` object. */
export class Access {
  /** Its heap. */
  readonly heap: Heap;
  /** Blocks that this process needs for itself and that are no leaks: scratch memory. */
  readonly kept: Set<Pointer> = new Set();
  /** How often the heap was closed or restored. */
  session = 0;
  /** Containers that are being filled, and that nothing leads to yet. */
  filling = 0;
  #pane: Pane | undefined;
  /** Addresses for which the current pane serves objects up to {@linkcode #reach}. */
  #from = 0;
  #until = 0;
  readonly #views = new Views();
  readonly #panes = new Map<Opening, Pane>();

  /** Made by {@linkcode accessTo} only. */
  constructor(heap: Heap) {
    this.heap = heap;
    internals.onEnd(heap, () => this.#end());
  }

  /**
   * The pane that holds the `size` bytes at `p` whole; their offset in it is `(p - pane.base) | 0`.
   * A pane stays good until the heap is closed or restored; keep it together with the offset.
   *
   * @throws {PermError} `BAD_POINTER` outside the heap, `CLOSED`.
   */
  pane(p: Pointer, size: number): Pane {
    if (p >= this.#from && p + size <= this.#until) return this.#pane!;
    return this.#select(p, size);
  }

  /** Allocates zeroed memory: where it lies. */
  allocate(bytes: number): Pointer {
    return this.heap.calloc(1, bytes);
  }

  /** Whether an address lies in this heap. */
  owns(p: Pointer): boolean {
    const { address, span } = internals.extent(this.heap);
    return p >= address && p < address + span;
  }

  #select(p: Pointer, size: number): Pane {
    expectNumber("pointer", p);
    if (!(Number.isSafeInteger(p) && p > 0)) {
      throw new PermError("BAD_POINTER", `Cannot use ${describe(p)} as a pointer: it is none`);
    }
    const extent = internals.extent(this.heap);
    const opening = this.#views.select(extent, p, size);
    let pane = this.#panes.get(opening);
    if (pane === undefined) {
      this.#views.show(opening);
      this.#panes.set(opening, pane = new Pane(opening.view, opening.base, this, extent.handle));
    }
    this.#pane = pane;
    this.#from = pane.base;
    this.#until = pane.base + Math.min(pane.length, 2 * windowStride);
    return pane;
  }

  #end(): void {
    this.session++;
    this.#views.close();
    for (const pane of this.#panes.values()) pane.handle = 0;
    this.#panes.clear();
    this.kept.clear();
    this.#pane = undefined;
    this.#from = this.#until = 0;
  }
}

const accesses = new WeakMap<Heap, Access>();

/** The access to a heap. */
export function accessTo(heap: Heap): Access {
  const present = accesses.get(heap);
  if (present !== undefined) return present;
  if (!(heap instanceof Heap)) {
    throw new PermError("INVALID_ARGUMENT", `Cannot keep data in ${describe(heap)}: give a Heap`);
  }
  const access = new Access(heap);
  accesses.set(heap, access);
  return access;
}
