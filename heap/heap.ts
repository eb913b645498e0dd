/**
 * The heap as TypeScript sees it.
 *
 * Invariant: a native handle that is 0 is refused by every native function with CLOSED, so a closed
 * heap needs no checks of its own; and no view of a closed heap is left attached in this thread.
 *
 * @module
 */

import {
  bound as importedBound,
  check,
  codeOf,
  describe,
  encode,
  fieldIndex,
  load,
  native as imported,
  nativeError,
  pack,
  PermError,
  recordBuffer,
  type RecordOf,
  unpack,
} from "../ffi/mod.ts";
import { apply } from "../tuning/mod.ts";
import { blockName, type BlockTarget, layoutHash } from "./blocks.ts";
import { commit, commitAsync } from "./commits.ts";
import { pass } from "./gate.ts";
import { endImage, type Image, makeImage } from "./image.ts";
import type { HeapInternals } from "./internals.ts";
import {
  bopenCall,
  type HeapOptions,
  type ImageOptions,
  type Mode,
  mopenCall,
  type OpenCall,
  openCall,
  type OpenOptions,
  quiesceTimeout,
  restoreArgs,
  type RestoreOptions,
  tuneWish,
} from "./options.ts";
import {
  type CommitReport,
  type HeapStats,
  heapStats,
  reportBuffer,
  type RestoreReport,
  restoreReport,
  type Resumed,
  resumedNames,
  trackerNames,
} from "./reports.ts";
import {
  byteLengthOf,
  expectNumber,
  expectType,
  type Extent,
  misaligned,
  notAPointer,
  type Opening,
  type Pointer,
  Views,
  type ViewType,
  type Window,
  windowStride,
} from "./views.ts";
import * as lists from "./pointers.ts";
import { findTuning, Session, sessionOf, sessions } from "./session.ts";

/** What this module has imported, V8 reads at each call; what it has declared, it knows. */
const native = imported;
const bound = importedBound;

const imageBits = { map: 1, backup: 2 } as const;
const addressField = fieldIndex("OpenArgs", "address");
const infoField = {
  address: fieldIndex("HeapInfo", "address"),
  span: fieldIndex("HeapInfo", "span"),
  data: fieldIndex("HeapInfo", "data"),
  capacity: fieldIndex("HeapInfo", "capacity"),
  maxSize: fieldIndex("HeapInfo", "max_size"),
  mode: fieldIndex("HeapInfo", "mode"),
} as const;

/** See {@linkcode HeapInternals}. */
export let internals: HeapInternals;

/**
 * A persistent heap: memory at a fixed address that is committed to a map file, a backup file or
 * both, and goes on from the last commit after whatever ended the process.
 *
 * Only {@linkcode Heap.flush}, {@linkcode Heap.backup} and `mclose` commit. Closing, `using`, an
 * exception or a signal never do: the last epoch stands.
 *
 * Every method throws a `PermError`: `CLOSED` after the heap was closed, `INVALID_ARGUMENT` for a
 * value of the wrong type, and what else it says.
 *
 * @example A counter that survives
 * ```ts
 * import { Heap } from "@perm/heap";
 *
 * using heap = Heap.open({ file: "counter.perm", size: 1 << 20 });
 * const counter = heap.global("counter", Float64Array, 1);
 * counter[0] += 1;
 * heap.flush();
 * console.log(`run ${counter[0]}, ${heap.resumed}`);
 * ```
 */
export class Heap implements Disposable, AsyncDisposable {
  /** 0 once this object is closed. */
  #handle: number;
  /** Whether this object came from `attach`, and so must not close what others use. */
  readonly #attached: boolean;
  readonly #session: Session;
  readonly #views = new Views();
  /** Address of the heap; changes only in a restore. */
  #address: Pointer;
  readonly #info = recordBuffer("HeapInfo");
  /** What other rooms show of the heap ends with these. */
  readonly #ends: (() => void)[] = [];

  static {
    internals = {
      mopen: (path, mode, size, options) => {
        const call = mopenCall(path, mode, size, options);
        return Heap.#open(call, options, (args, text) => native.ph_mopen(args, text));
      },
      permAt: (heap, name, address, bytes, layout) => {
        const key = blockName(name);
        const info = recordBuffer("BlockInfo");
        check(native.ph_perm(heap.#handle, key, key.length, bytes, layout, address, info));
      },
      isOpen: (heap) => heap.#handle !== 0,
      isReadOnly: (heap) => heap.#read().mode === 2,
      extent: (heap) => heap.#extent(),
      globalAt: (heap, name, bytes, layout) => heap.#globalAt(name, bytes, layout),
      onEnd: (heap, end) => void heap.#ends.push(end),
    };
  }

  /** @param address Where it lies, if that is known. */
  private constructor(session: Session, attached: boolean, address?: Pointer) {
    this.#attached = attached;
    this.#session = session;
    this.#handle = session.handle;
    this.#address = address ?? this.#read().address;
    session.heaps.add(this);
  }

  static #open(
    call: OpenCall,
    options: HeapOptions | undefined,
    open: (args: Float64Array, text: Uint8Array | null) => number,
  ): Heap {
    load();
    const wish = tuneWish(options);
    const applied = wish === "apply" ? apply() : null;
    const args = pack("OpenArgs", call.args);
    const session = new Session(check(open(args, call.text)), true);
    // Looking costs a millisecond, which opening need not wait for.
    if (wish !== "off") session.tuning = () => applied ?? findTuning();
    sessions.add(session);
    return new Heap(session, false, args[addressField]);
  }

  /**
   * Opens a heap: goes on from whichever of the two files holds the newest intact commit, else
   * makes a new heap. What happened is in {@linkcode Heap.resumed}.
   *
   * @param options Files, size and the rest. Without any file the heap lives as long as the process.
   * @returns The open heap; close it, or declare it with `using`.
   * @throws {PermError} `INVALID_ARGUMENT`, `ALREADY_OPEN` in this process, `BUSY` in another,
   * `EXISTS` when the files are of different heaps or of lines that went apart, `NOT_FOUND` for a
   * directory that is not there, `NOT_AN_IMAGE`, `BAD_VERSION`, `CORRUPT`, `ADDRESS_IN_USE`,
   * `READ_ONLY`, `PERMISSION`, `OUT_OF_MEMORY`, `NO_SPACE`, `IO`.
   *
   * @example
   * ```ts
   * import { Heap } from "@perm/heap";
   *
   * using heap = Heap.open({ file: "app.perm", backup: "app.back", size: 64 << 20 });
   * if (heap.resumed === "new") heap.root = heap.calloc(1, 16);
   * heap.store(heap.root, heap.load(heap.root) + 1);
   * heap.backup();
   * ```
   */
  static open(options: OpenOptions): Heap {
    return Heap.#open(openCall(options), options, (args, text) => native.ph_open(args, text));
  }

  /**
   * The heap that this process has open under that {@linkcode Heap.handle}: for a Worker, which
   * gets the text in a message. Its memory, commits and globals are the same; closing ends only
   * this thread's use. The opening thread cannot close while another is attached.
   *
   * @param handle The text that `heap.handle` gave.
   * @throws {PermError} `INVALID_ARGUMENT` for another text, `NOT_FOUND` from another process,
   * `CLOSED` when that heap is closed.
   *
   * @example In a Worker
   * ```ts
   * import { Heap } from "@perm/heap";
   *
   * addEventListener("message", (event) => {
   *   using heap = Heap.attach((event as MessageEvent).data.handle);
   *   heap.global("sum", Float64Array, 1)[0] += 1;
   * });
   * ```
   */
  static attach(handle: string): Heap {
    const text = encode(handle, "a heap's handle");
    load();
    const present = sessionOf(handle);
    if (present) return new Heap(present, true);
    const session = new Session(check(native.ph_attach(text, text.length)), false);
    sessions.add(session);
    return new Heap(session, true);
  }

  /** Text by which another thread of this process attaches to this heap. */
  get handle(): string {
    this.#read();
    return this.#session.text;
  }

  /** Where the heap is mapped: always the same, unless a restore brought another heap. */
  get address(): Pointer {
    return this.#read().address;
  }

  /** Bytes of data that the heap can hold before it grows. */
  get capacity(): number {
    return this.#read().capacity;
  }

  /** Bytes in use, free space inside of blocks and the allocator's own included. */
  get used(): number {
    return this.#read().used;
  }

  /** Where the contents came from when the heap was opened. */
  get resumed(): Resumed {
    return resumedNames[this.#read().resumed];
  }

  /**
   * Commits that were cut off in the middle and therefore dropped when the heap was opened: 0 or 1.
   * Nobody had been told that they were durable.
   */
  get dropped(): number {
    return this.#read().dropped;
  }

  /** The epoch that the heap stands on: the last commit or restore; 0 before the first. */
  get epoch(): number {
    return this.#read().epoch;
  }

  /** What tells which pages changed since the last commit. */
  get tracker(): "uffd" | "checksum" {
    return trackerNames[this.#read().tracker];
  }

  /** The map file's image, or `null` for a heap without one. */
  get map(): Image | null {
    return this.#image("map");
  }

  /** The backup file's image, or `null` while none is open. */
  get backupImage(): Image | null {
    return this.#image("backup");
  }

  /**
   * Allocates `n` bytes, aligned to 16, not zeroed. `malloc(0)` gives a pointer of its own.
   *
   * @param n Bytes.
   * @returns Address of the block.
   * @throws {PermError} `INVALID_ARGUMENT`, `OUT_OF_MEMORY` at `maxSize`, `READ_ONLY`; of a shared heap,
   * here and in all that allocates, `NO_SPACE` when there is no room on the disk to grow into.
   */
  malloc(n: number): Pointer {
    if (typeof n !== "number") expectNumber("size", n);
    const pointer = bound.ph_malloc === undefined
      ? native.ph_malloc(this.#handle, n)
      : bound.ph_malloc(this.#handle, n);
    if (pointer < 0) throw nativeError(pointer | 0);
    return pointer;
  }

  /**
   * Allocates `n` elements of `size` bytes each, zeroed.
   *
   * @param n Elements.
   * @param size Bytes an element.
   * @throws {PermError} `INVALID_ARGUMENT`, `OUT_OF_MEMORY`, `READ_ONLY`.
   */
  calloc(n: number, size: number): Pointer {
    expectNumber("count", n);
    expectNumber("size", size);
    return check(native.ph_calloc(this.#handle, n, size));
  }

  /**
   * Allocates `n` bytes that need not be kept: caches, indices that can be made again, room to work
   * in. Commits leave them out. The block is part of the heap like any other, found again by its
   * address and freed with {@linkcode Heap.free}; its contents are zero now, and zero again whenever
   * the heap is opened or restored. It takes whole pieces of 64 KiB: allocate one and divide it.
   *
   * @param n Bytes.
   * @returns Address of the block.
   * @throws {PermError} `INVALID_ARGUMENT`, `OUT_OF_MEMORY`, `READ_ONLY`.
   *
   * @example A cache whose first word tells whether it is filled
   * ```ts
   * import { Heap } from "@perm/heap";
   *
   * using heap = Heap.open({ file: "cached.perm", size: 1 << 20 });
   * if (heap.root === 0) heap.root = heap.scratch(100_000);
   * const cache = heap.view(Float64Array, heap.root, 1000);
   * if (cache[0] === 0) cache.fill(1);
   * heap.flush();
   * ```
   */
  scratch(n: number): Pointer {
    expectNumber("size", n);
    return check(native.ph_malloc_scratch(this.#handle, n));
  }

  /**
   * Gives a block another size, moving it if need be; the contents up to the smaller size stay.
   * `realloc(0, n)` is `malloc(n)`. On an error the block is as it was.
   *
   * @param p The block, or 0.
   * @param n Bytes that it shall have.
   * @returns Address of the block now.
   * @throws {PermError} `BAD_POINTER`, `INVALID_ARGUMENT`, `OUT_OF_MEMORY`, `READ_ONLY`.
   */
  realloc(p: Pointer, n: number): Pointer {
    expectNumber("pointer", p);
    expectNumber("size", n);
    return check(native.ph_realloc(this.#handle, p, n));
  }

  /**
   * Frees a block; `free(0)` does nothing. A second free is found until the block is handed out
   * again, which cannot be told apart from a free of the new one.
   *
   * @param p What an allocation returned.
   * @throws {PermError} `BAD_POINTER` for what is no block's start, `DOUBLE_FREE`, `READ_ONLY`.
   */
  free(p: Pointer): void {
    if (typeof p !== "number") expectNumber("pointer", p);
    const result = bound.ph_free === undefined
      ? native.ph_free(this.#handle, p)
      : bound.ph_free(this.#handle, p);
    // `|` makes this as long as `malloc`: more than 100 bytes of bytecode. V8's first compiler would put
    // less than that into a loop, and call native functions there by a way that takes 70 ns.
    if (result < 0) throw nativeError(result | 0);
  }

  /**
   * Allocates `n` bytes at a multiple of `alignment`.
   *
   * @param alignment A power of two.
   * @param n Bytes.
   * @throws {PermError} `INVALID_ARGUMENT`, `OUT_OF_MEMORY`, `READ_ONLY`.
   */
  alignedAlloc(alignment: number, n: number): Pointer {
    expectNumber("alignment", alignment);
    expectNumber("size", n);
    return check(native.ph_aligned_alloc(this.#handle, alignment, n));
  }

  /**
   * Bytes that the block can hold, at least what was asked for.
   *
   * @param p What an allocation returned.
   * @throws {PermError} `BAD_POINTER`.
   */
  usableSize(p: Pointer): number {
    expectNumber("pointer", p);
    return check(native.ph_usable_size(this.#handle, p));
  }

  /**
   * Allocates `count` blocks of `n` bytes in one call; all or none.
   *
   * @param n Bytes a block.
   * @param count Blocks.
   * @returns Their addresses.
   * @throws {PermError} `INVALID_ARGUMENT`, `OUT_OF_MEMORY`, `READ_ONLY`.
   */
  mallocMany(n: number, count: number): Float64Array<ArrayBuffer> {
    expectNumber("size", n);
    const bytes = lists.expectCount(count);
    const pointers = bytes <= lists.leastSize || bytes <= this.#read().max_size
      ? lists.pointerArray(count)
      : undefined;
    if (!pointers) throw lists.tooMany(count, n, this.#read().max_size);
    const out = count === 0 ? null : pointers;
    check(
      bound.ph_malloc_many === undefined
        ? native.ph_malloc_many(this.#handle, n, count, out)
        : bound.ph_malloc_many(this.#handle, n, count, out),
    );
    return pointers;
  }

  /**
   * Frees many blocks in one call. A bad pointer ends it: those before it are freed, the error's
   * `address` names it.
   *
   * @param pointers What allocations returned.
   * @throws {PermError} `BAD_POINTER`, `DOUBLE_FREE`, `READ_ONLY`, `INVALID_ARGUMENT`.
   */
  freeMany(pointers: ArrayLike<Pointer>): void {
    const list = lists.pointerList(pointers);
    const count = lists.pointerCount(list);
    const from = count === 0 ? null : list;
    check(
      bound.ph_free_many === undefined
        ? native.ph_free_many(this.#handle, from, count)
        : bound.ph_free_many(this.#handle, from, count),
    );
  }

  /**
   * The `n` bytes at `p`, without a copy. A view takes about a microsecond to make and is kept at
   * least until the current job ends: hot loops use {@linkcode Heap.load}, {@linkcode Heap.store}
   * and {@linkcode Heap.window}. It stays valid until the memory is freed or the heap closed.
   *
   * @param p Address of the first byte.
   * @param n Bytes.
   * @throws {PermError} `BAD_POINTER` for what does not lie in the heap.
   */
  bytes(p: Pointer, n: number): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.#views.buffer(this.#handle, p, n));
  }

  /**
   * A DataView of the `n` bytes at `p`, without a copy. C and Zig read little-endian.
   *
   * @param p Address of the first byte.
   * @param n Bytes.
   * @throws {PermError} `BAD_POINTER` for what does not lie in the heap.
   */
  dataView(p: Pointer, n: number): DataView<ArrayBuffer> {
    return new DataView(this.#views.buffer(this.#handle, p, n));
  }

  /**
   * The `count` elements at `p` as a typed array, without a copy.
   *
   * @param type Constructor of the typed array.
   * @param p Address of the first element, a multiple of its size.
   * @param count Elements.
   * @throws {PermError} `BAD_POINTER`; `INVALID_ARGUMENT` when misaligned or no typed array.
   *
   * @example
   * ```ts
   * import { Heap } from "@perm/heap";
   *
   * using heap = Heap.open({ size: 1 << 20 });
   * const numbers = heap.view(Float64Array, heap.calloc(10, 8), 10);
   * numbers[3] = 1.5;
   * ```
   */
  view<View>(type: ViewType<View>, p: Pointer, count: number): View {
    expectType(type);
    const bytes = byteLengthOf(type, count);
    expectNumber("pointer", p);
    if (p % type.BYTES_PER_ELEMENT !== 0) throw misaligned(type, p);
    return new type(this.#views.buffer(this.#handle, p, bytes), 0, count);
  }

  /**
   * Reads the pointer at `p`: a u64, as in C.
   *
   * @param p Address of the pointer.
   * @throws {PermError} `BAD_POINTER` outside the heap, or when what stands there is no pointer.
   */
  load(p: Pointer): Pointer {
    const at = this.#wordAt(p);
    const { view } = this.#views.current;
    const high = view.getUint32((at + 4) | 0, true);
    if (high > 0x1fffff) throw notAPointer(p);
    return view.getUint32(at, true) + high * 0x100000000;
  }

  /**
   * Writes the pointer `q` at `p`: a u64, as in C.
   *
   * @param p Address to write to.
   * @param q The pointer, or 0.
   * @throws {PermError} `BAD_POINTER` outside the heap; `INVALID_ARGUMENT` when `q` is no pointer.
   */
  store(p: Pointer, q: Pointer): void {
    if (!(Number.isSafeInteger(q) && q >= 0)) {
      throw new PermError(
        "INVALID_ARGUMENT",
        `Cannot store ${describe(q)}: a pointer is a whole number from 0 to 2^53`,
      );
    }
    const at = this.#wordAt(p);
    const { view } = this.#views.current;
    const high = Math.floor(q / 0x100000000);
    view.setUint32(at, q - high * 0x100000000, true);
    view.setUint32((at + 4) | 0, high, true);
  }

  /**
   * A DataView that shows more than was asked for, for hot loops: an object at `p` of up to 1 GiB
   * lies in it whole. Take offsets as `(p - base) | 0`. Valid until the heap is closed; ask again
   * for another object, which may lie in another window.
   *
   * @param p An address in the heap.
   * @throws {PermError} `BAD_POINTER` outside the heap.
   *
   * @example Sum a list of { value: f64, next: pointer }
   * ```ts
   * import { Heap, type Pointer } from "@perm/heap";
   *
   * function sum(heap: Heap, first: Pointer): number {
   *   let total = 0;
   *   for (let p = first; p !== 0; p = heap.load(p + 8)) {
   *     const { view, base } = heap.window(p);
   *     total += view.getFloat64((p - base) | 0, true);
   *   }
   *   return total;
   * }
   * ```
   */
  window(p: Pointer): Window {
    expectNumber("pointer", p);
    let current = this.#views.current;
    const at = p - current.base;
    const within = at >= 0 && at < windowStride && at <= current.lastWord;
    if (!within || this.#outgrew(current)) current = this.#select(p);
    if (!current.shown) this.#views.show(current);
    return current.window;
  }

  /**
   * A persistent array that lives in the heap under a name: found again by every later run, and
   * zeroed when it is new. It needs no copy at a commit, so any thread may commit it.
   *
   * @param name Its identity in the heap.
   * @param type Constructor of the typed array.
   * @param count Elements; the same in every run.
   * @throws {PermError} `BLOCK_MISMATCH` when the heap holds it with another type or count;
   * `READ_ONLY` when it would be new; `INVALID_ARGUMENT`, `OUT_OF_MEMORY`.
   *
   * @example
   * ```ts
   * import { Heap } from "@perm/heap";
   *
   * using heap = Heap.open({ size: 1 << 20 });
   * const hits = heap.global("hits", Uint32Array, 256);
   * hits[7]++;
   * ```
   */
  global<View>(name: string, type: ViewType<View>, count: number): View {
    const kind = expectType(type);
    const bytes = byteLengthOf(type, count);
    const layout = layoutHash(kind, count);
    return this.view(type, this.#globalAt(name, bytes, layout), count);
  }

  /**
   * Registers a JavaScript buffer as a persistent block: filled at once when the heap holds the
   * name, after each restore, and copied into the heap by each commit of this thread.
   *
   * @param name Its identity in the heap.
   * @param target A typed array, DataView or ArrayBuffer of fixed length, outside the heap.
   * @throws {PermError} `EXISTS` for a name registered already; `BLOCK_MISMATCH` when the heap
   * holds another type or length; `INVALID_ARGUMENT` for views of a heap, shared, resizable,
   * detached or empty buffers.
   *
   * @example
   * ```ts
   * import { Heap } from "@perm/heap";
   *
   * using heap = Heap.open({ file: "settings.perm", size: 1 << 20 });
   * const settings = new Float64Array(8);
   * heap.perm("settings", settings);
   * settings[0] += 1;
   * heap.flush();
   * ```
   */
  perm(name: string, target: BlockTarget): void {
    this.#session.blocks.register(this.#handle, name, target);
  }

  /**
   * Ends a registration and removes the stored block with the next commit.
   *
   * @param name A block that is registered, or only stored.
   * @throws {PermError} `NOT_FOUND`, `READ_ONLY`.
   */
  unperm(name: string): void {
    const key = blockName(name);
    check(native.ph_unperm(this.#handle, key, key.length));
    this.#session.blocks.forget(name);
  }

  /** One persistent pointer, for programs that need no more than that; 0 in a new heap. */
  get root(): Pointer {
    return check(native.ph_root(this.#handle));
  }

  set root(p: Pointer) {
    expectNumber("pointer", p);
    check(native.ph_root_set(this.#handle, p));
  }

  /**
   * Commits to the map file: when it returns, the heap and all blocks as they are now are durable
   * there, all of it or, whatever happens meanwhile, the last epoch. A shared heap is written where it
   * lies: what it was at the last flush is gone, and a crash is answered by a backup.
   *
   * @throws {PermError} `NOT_OPEN` without a map file; `READ_ONLY`, `NO_SPACE`, `IO`, `STALE`,
   * `FORKED`; `UNSUPPORTED` while another thread has JavaScript buffers registered.
   */
  flush(): CommitReport {
    return commit(this.#session, this.#handle, "map");
  }

  /**
   * Commits to the map file. The state is that of the call; the promise resolves when it is
   * durable, and rejects with what {@linkcode Heap.flush} throws.
   */
  flushAsync(): Promise<CommitReport> {
    return new Promise((resolve) => resolve(commitAsync(this.#session, this.#handle, "map")));
  }

  /**
   * Commits to the backup file, as {@linkcode Heap.flush} does to the map file.
   *
   * @throws {PermError} `NOT_OPEN` without a backup file; `EXISTS` when the file holds commits that
   * are no ancestor of this heap (restore first); else as `flush`.
   */
  backup(): CommitReport {
    return commit(this.#session, this.#handle, "backup");
  }

  /**
   * Commits to the backup file. The state is that of the call; the promise resolves when it is
   * durable, and rejects with what {@linkcode Heap.backup} throws.
   */
  backupAsync(): Promise<CommitReport> {
    return new Promise((resolve) => resolve(commitAsync(this.#session, this.#handle, "backup")));
  }

  /**
   * Goes back to a committed epoch: contents, size, address and identity of the heap, and all
   * registered blocks. No file changes; the next commit goes on from there.
   *
   * @param options Which epoch, from which file. Default the last one in the backup file, or in the
   * map file when no backup is open.
   * @throws {PermError} `NOT_OPEN`, `NO_COMMIT`, `NO_EPOCH`; `CORRUPT`; `UNSUPPORTED` from a shared
   * heap's own file; `BLOCK_MISMATCH` when a
   * registered block had another layout; `BUSY` when the heap must move while views of it are out
   * or another thread is attached (restore first, then make views); `ADDRESS_IN_USE`. An error that
   * says so came after the heap was replaced, for lack of memory: the heap and its images are closed.
   */
  restore(options?: RestoreOptions): RestoreReport {
    const { blocks, heaps } = this.#session;
    const wishes = restoreArgs(options);
    // Nothing of the program's runs from here on: what is intact stays so.
    blocks.expectIntact("restore");
    const views = [...heaps].some((heap) => heap.#views.live);
    const report = reportBuffer();
    const args = pack("RestoreArgs", { ...wishes, views: views ? 1 : 0 });
    const result = native.ph_restore(this.#handle, args, report);
    if (result < 0) {
      const error = nativeError(result);
      if (native.ph_info(this.#handle, this.#info) < 0) this.#endSession();
      throw error;
    }
    for (const heap of heaps) {
      heap.#views.dropWindows();
      for (const end of heap.#ends) end();
      heap.#address = heap.#read().address;
    }
    blocks.load(this.#handle);
    return restoreReport(report);
  }

  /**
   * Opens a backup file beside the map file.
   *
   * @param path The file.
   * @param mode `"w+"` for a new image (the first `backup()` replaces what stood there), `"r+"` for
   * the one that is there, `"r"` to restore from it only.
   * @param options How much to keep, and how careful to be.
   * @returns The image.
   * @throws {PermError} `ALREADY_OPEN`, `NOT_FOUND`, `BUSY`, `EXISTS` for another heap's image
   * without `replace`, `NOT_AN_IMAGE`, `BAD_VERSION`, `CORRUPT`, `READ_ONLY`, `PERMISSION`, `IO`.
   */
  bopen(path: string, mode: Mode, options?: ImageOptions): Image {
    const { args, text } = bopenCall(path, mode, options);
    check(native.ph_bopen(this.#handle, pack("OpenArgs", args), text));
    this.#endImage("backup");
    return this.backupImage!;
  }

  /**
   * Closes the backup file without committing.
   *
   * @throws {PermError} `NOT_OPEN`.
   */
  bclose(): void {
    check(native.ph_bclose(this.#handle));
    this.#endImage("backup");
  }

  /**
   * Grows the heap in place; malloc does so by itself when it needs to.
   *
   * @param size Bytes of data that it shall hold; a smaller heap than it is changes nothing.
   * @throws {PermError} `OUT_OF_MEMORY` beyond `maxSize`, `READ_ONLY`; `NO_SPACE` of a shared heap.
   */
  grow(size: number): void {
    expectNumber("size", size);
    check(native.ph_grow(this.#handle, size));
  }

  /** Figures of the heap, its images and the kernel settings. Walks the metadata. */
  stats(): HeapStats {
    const buffer = recordBuffer("Stats");
    check(native.ph_stats(this.#handle, buffer));
    return heapStats(buffer, this.tracker, this.#session.tuning());
  }

  /**
   * Walks and verifies all metadata of the allocator and the blocks: finds what writing through a
   * view of freed memory did to them.
   *
   * @throws {PermError} `CORRUPT`, with what is wrong.
   */
  check(): void {
    check(native.ph_check(this.#handle));
  }

  /**
   * Runs a change that other threads must not see, commit or restore half done, while no
   * {@linkcode Heap.quiesce} runs. Any number of threads may be in a change at once: what they change
   * together needs a lock of its own.
   *
   * @param action What changes the heap; until its promise settles, if it gives one.
   * @returns What it gives.
   * @throws {PermError} `CLOSED`, and what the action throws.
   *
   * @example In a Worker
   * ```ts
   * import { Heap } from "@perm/heap";
   *
   * function transfer(heap: Heap, accounts: Float64Array, amount: number): void {
   *   heap.change(() => {
   *     accounts[0] -= amount;
   *     accounts[1] += amount;
   *   });
   * }
   * ```
   */
  change<Result>(action: () => Result): Result {
    return pass(this.#session, this.#handle, action, false, -1);
  }

  /**
   * Runs something while no other thread is within {@linkcode Heap.change}: a commit, a restore, a
   * check of the whole. Waits until those that are have come out, and keeps others from going in.
   *
   * @param action What needs the heap to be still; until its promise settles, if it gives one.
   * @param options `timeout`: milliseconds to wait at most.
   * @returns What it gives.
   * @throws {PermError} `BUSY` within a change of this thread, or when the time is over; `CLOSED`, and
   * what the action throws.
   *
   * @example Commit while Workers run
   * ```ts
   * import { Heap } from "@perm/heap";
   *
   * using heap = Heap.open({ file: "app.perm", size: 1 << 20 });
   * heap.quiesce(() => heap.flush());
   * ```
   */
  quiesce<Result>(action: () => Result, options?: { timeout?: number }): Result {
    return pass(this.#session, this.#handle, action, true, quiesceTimeout(options));
  }

  /**
   * Closes the heap without committing; a second call does nothing. Views of it end: DataViews
   * throw, typed arrays have length 0. In an attached thread it ends that thread's use only. A shared heap
   * that was changed since its last flush is left marked, and the next opening is `CORRUPT`.
   *
   * @throws {PermError} `BUSY` while another living thread is attached; the heap stays open.
   */
  close(): void {
    if (this.#handle === 0) return;
    const session = this.#session;
    if (!this.#attached) {
      this.#closeNative(native.ph_close(this.#handle));
      this.#endSession();
    } else {
      if (!session.owner && session.heaps.size === 1) {
        this.#closeNative(native.ph_detach(this.#handle));
      }
      this.#end();
      if (session.heaps.size === 0) this.#endSession();
    }
  }

  /** {@linkcode Heap.close}, for `using`. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** {@linkcode Heap.close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return new Promise((resolve) => resolve(this.close()));
  }

  #read(): RecordOf<"HeapInfo"> {
    check(native.ph_info(this.#handle, this.#info));
    return unpack("HeapInfo", this.#info);
  }

  #globalAt(name: string, bytes: number, layout: number): Pointer {
    const key = blockName(name);
    const buffer = recordBuffer("BlockInfo");
    check(native.ph_global(this.#handle, key, key.length, bytes, layout, buffer));
    return unpack("BlockInfo", buffer).address;
  }

  /** A heap that a failed restore ended is closed already. */
  #closeNative(result: number): void {
    if (result < 0 && codeOf(result) !== "CLOSED") throw nativeError(result);
  }

  #image(kind: keyof typeof imageBits): Image | null {
    if ((this.#read().images & imageBits[kind]) === 0) return this.#endImage(kind);
    const session = this.#session;
    return session[kind] ??= makeImage({
      handle: () => session.handle,
      // By any object that stands for the heap here: this one may be closed before the others.
      close: () => [...session.heaps][0].bclose(),
    }, kind);
  }

  #endImage(kind: keyof typeof imageBits): null {
    const image = this.#session[kind];
    if (image) endImage(image);
    return this.#session[kind] = null;
  }

  /** The heap is closed for this thread. */
  #endSession(): void {
    const session = this.#session;
    for (const heap of session.heaps) heap.#end();
    sessions.delete(session);
    this.#endImage("map");
    this.#endImage("backup");
  }

  #end(): void {
    this.#handle = 0;
    this.#views.close();
    for (const end of this.#ends) end();
    this.#session.heaps.delete(this);
  }

  /** Offset of the u64 at `p` in the current window, which is made to hold it. */
  #wordAt(p: Pointer): number {
    if (typeof p !== "number") expectNumber("pointer", p);
    const { base, lastWord } = this.#views.current;
    const at = p - base;
    if (at >= 0 && at <= lastWord && at === (at | 0)) return at | 0;
    return this.#findWord(p);
  }

  #findWord(p: Pointer): number {
    const { base, lastWord } = this.#select(p);
    const at = p - base;
    if (at >= 0 && at <= lastWord && at === (at | 0)) return at | 0;
    // What remains is a u64 that the heap's end cuts.
    throw nativeError(native.ph_range(this.#handle, p, 8));
  }

  #extent(): Extent {
    const info = this.#info;
    check(native.ph_info(this.#handle, info));
    const capacity = info[infoField.capacity];
    const data = info[infoField.data];
    return {
      handle: this.#handle,
      address: info[infoField.address],
      span: info[infoField.span],
      data,
      end: data + capacity,
      capacity: capacity < info[infoField.maxSize] && info[infoField.mode] !== 2
        ? capacity
        : Infinity,
    };
  }

  #select(p: Pointer): Opening {
    return this.#views.select(this.#extent(), p, 1);
  }

  /** Whether a window ends where the heap ended when it was made, and the heap has grown since. */
  #outgrew(current: Opening): boolean {
    if (current.capacity === Infinity) return false;
    check(native.ph_info(this.#handle, this.#info));
    return this.#info[infoField.capacity] !== current.capacity;
  }
}
