/**
 * Looking numbers up in a HashMap without native code: reading only, by the layout of
 * docs/containers.md. One for each class of maps, which remembers where the parts of the map that was
 * asked last stand.
 *
 * Invariant: what is remembered is used for the same header with the same count of changes only, which
 * is nothing once the heap was closed or restored; every access goes through a view of the heap, which
 * ends where the heap does; every loop ends.
 *
 * Integers are read signed, since an unsigned one may be a double, and keys are judged only when they
 * are not found: what stands in a map is a key.
 *
 * @module
 */

import { adapter } from "../ffi/mod.ts";
import { type Keys, paneFor } from "./container.ts";
import { type Access, type Handle, Pane } from "./handle.ts";

const header = {
  shape: 0,
  changes: 12,
  index: 16,
  indexBits: 24,
  entryBits: 25,
  seed: 40,
  directory: 48,
  directoryLength: 56,
} as const;
const headerSize = 72;
const segmentSize = 24;
const segmentsMax = 128;
const keyAt = 8;
/** The value, since the key takes two words. */
const valueAt = 16;

const { clz32, imul } = Math;
const word = new Float64Array(1);
const halves = new Int32Array(word.buffer);
const wordView = new DataView(word.buffer);

/** What `seek` throws: no error, and caught where it is called. */
export const unknownMap: object = Object.freeze({});

/**
 * What one class of maps remembers; as it is, of no map at all.
 *
 * What `find` comes down to is in few functions, none deeper than the fourth and none long: only so
 * does JavaScriptCore put all of it into the program's loop, which halves the time.
 */
export class Lookup {
  /**
   * Lookups of an unchanged map before its parts are remembered, which costs as much as that many
   * save. Tests set it lower.
   */
  static patience = 64;
  /** Whether it can do without native code at all. */
  readonly isAlone: boolean = false;
  /** The pane that all parts of the map stand in; offsets that `find` gives are in it. */
  pane: Pane = Pane.ended;
  /** The map that is known: its view, offset and count of changes. @internal */
  $view: DataView | null = null;
  /** @internal */
  $at = 0;
  /** @internal */
  $changes = 0;
  /** The pane as words of 4 bytes. @internal */
  $words: Int32Array = new Int32Array(1);
  /** Which of them counts the map's changes. @internal */
  $changed = 0;
  /** Where the index begins in these, and its length less 1. @internal */
  $index = 0;
  /** @internal */
  $mask = 0;
  /** @internal */
  $entryMask = 0;
  /** @internal */
  $seedLow = 0;
  /** @internal */
  $seedHigh = 0;
  /** @internal */
  $stride = 0;
  /** Words at which the key of place −8 of each segment would stand. @internal */
  readonly $segments: Int32Array = new Int32Array(segmentsMax + 4);
  readonly #valueSize: () => number;
  /** Whether no map was ever asked, and none ever known. */
  #isUnused = true;
  #isNew = true;
  /** The map that was asked last, and how often in a row. */
  #view: DataView | null = null;
  #at = 0;
  #changes = 0;
  #streak = 0;
  /** More than 1 when it was in vain: an exception costs as much as a hundred lookups. */
  #patience = 1;

  constructor(valueSize: () => number) {
    this.#valueSize = valueSize;
  }

  /** Offset in {@linkcode pane} of the key's value; 0 when it is not there, −1 to ask native code. */
  find(_map: Handle, _key: unknown): number {
    return -1;
  }

  /** The same for a map that is known as it is; for any other throws {@linkcode unknownMap}. */
  seek(_map: Handle, _key: unknown): number {
    throw unknownMap;
  }

  /** Called when a map has become known. */
  onKnown(): void {}

  /** Whether nothing was ever looked up: so it is left to native code, for it may be the last one too. */
  isFirst(): boolean {
    return this.#isUnused && !(this.#isUnused = false);
  }

  /** What `seek` did not know: whether it does now, as it may the first time. */
  learn(map: Handle): boolean {
    const { $view: view } = this;
    if (this.#isNew) this.#remember(map);
    else this.#patience = Math.min(2 * this.#patience, 8);
    return this.$view !== view;
  }

  /** Makes {@linkcode pane} show what native code found: the offset in it. */
  show(map: Handle, p: number, size: number): number {
    const { pane } = this;
    const own = map.$pane;
    const isOther = pane.access !== own.access || pane.handle === 0;
    if (isOther || p < pane.base || p + size > pane.base + pane.length) {
      this.pane = paneFor(own, p, size);
      this.$view = null;
    }
    return (p - this.pane.base) | 0;
  }

  /** Offset of the value of the key in `halves`; 0 when it is not there. @internal */
  $probe(hash: number): number {
    const low = halves[0];
    const high = halves[1];
    const words = this.$words;
    const index = this.$index;
    const mask = this.$mask;
    const entryMask = this.$entryMask;
    const start = hash & mask;
    let position = start;
    do {
      const slot = words[(index + position) | 0];
      if (slot === 0) return 0;
      if (((slot ^ hash) & ~entryMask) === 0) {
        // Places are numbered from 8 on, so that segments follow from the leading bits.
        const place = ((slot & entryMask) + 6) | 0;
        const shift = 29 - clz32(place);
        const first = this.$segments[(shift << 2) + ((place >>> shift) & 3)];
        const at = (first + imul(place, this.$stride)) | 0;
        if (words[at] === low && words[(at + 1) | 0] === high) return (at + 2) << 2;
      }
      position = (position + 1) & mask;
    } while (position !== start);
    return 0;
  }

  /** Another map, or a changed one: −1, and after a while its parts are known. @internal */
  $miss(map: Handle): number {
    const changes = map.$view.getInt32((map.$at + header.changes) | 0, true);
    if (this.#view === map.$view && this.#at === map.$at && this.#changes === changes) {
      if (++this.#streak === Lookup.patience * this.#patience) this.#remember(map);
      return -1;
    }
    this.#view = map.$view;
    this.#at = map.$at;
    this.#changes = changes;
    this.#streak = 0;
    return -1;
  }

  /** Reads the header. Does nothing when the parts stand in no single pane, or make no sense. */
  #remember(map: Handle): void {
    const { $view: view, $at: at, $pane: { access, base } } = map;
    this.#isNew = false;
    if (view.getUint32((at + header.shape) | 0, true) === 0) return;
    const indexBits = view.getUint8((at + header.indexBits) | 0);
    const entryBits = view.getUint8((at + header.entryBits) | 0);
    const length = view.getUint32((at + header.directoryLength) | 0, true);
    if (indexBits < 3 || indexBits > 28 || entryBits < indexBits || entryBits > 31) return;
    if (length > segmentsMax) return;
    const index = addressAt(view, at + header.index);
    const directory = addressAt(view, at + header.directory);
    const listed = paneOfAll(access, directory, directory + length * segmentSize);
    if (listed === undefined || index % 4 !== 0) return;
    const stride = valueAt + Math.ceil(this.#valueSize() / 8) * 8;
    const own = base + at;
    const entries = (directory - listed.base) | 0;
    let low = Math.min(own, index);
    let high = Math.max(own + headerSize, index + 4 * 2 ** indexBits);
    // Without calls: JavaScriptCore would compile what is called some thirty times, which takes longer.
    let bytes = 2 * stride;
    for (let segment = 0; segment < length; segment++) {
      const entry = (entries + segment * segmentSize) | 0;
      const p = listed.view.getUint32(entry, true) +
        listed.view.getUint32((entry + 4) | 0, true) * 2 ** 32;
      if (p !== 0) {
        if (p < low) low = p;
        if (p + bytes > high) high = p + bytes;
      }
      if ((segment & 3) === 3) bytes *= 2;
    }
    const pane = paneOfAll(access, low, high);
    if (pane === undefined) return;
    this.$segments.fill(0);
    bytes = 2 * stride;
    for (let segment = 0; segment < length; segment++) {
      const entry = (entries + segment * segmentSize) | 0;
      const p = listed.view.getUint32(entry, true) +
        listed.view.getUint32((entry + 4) | 0, true) * 2 ** 32;
      if (p !== 0) {
        const before = (4 + (segment & 3)) * bytes;
        this.$segments[(segment + 4) | 0] = (p - pane.base - before + keyAt) / 4;
      }
      if ((segment & 3) === 3) bytes *= 2;
    }
    const { buffer } = pane.view;
    this.$index = ((index - pane.base) / 4) | 0;
    this.$mask = (2 ** indexBits - 1) | 0;
    this.$entryMask = (2 ** entryBits - 1) | 0;
    this.$seedLow = view.getInt32((at + header.seed) | 0, true);
    this.$seedHigh = view.getInt32((at + header.seed + 4) | 0, true);
    this.$stride = (stride / 4) | 0;
    this.$words = new Int32Array(buffer, 0, pane.length >>> 2);
    this.$changed = ((own - pane.base + header.changes) / 4) | 0;
    this.pane = pane;
    this.$view = view;
    this.$at = at;
    this.$changes = view.getInt32((at + header.changes) | 0, true);
    this.onKnown();
  }
}

/** For all types of numbers, which stand in the map as f64. */
class NumberLookup extends Lookup {
  override readonly isAlone: boolean = true;
  /** @internal */
  readonly $keys: Keys;

  constructor(keys: Keys, valueSize: () => number) {
    super(valueSize);
    this.$keys = keys;
  }

  override find(map: Handle, key: unknown): number {
    if (
      map.$view !== this.$view || map.$at !== this.$at ||
      this.$words[this.$changed] !== this.$changes ||
      typeof key !== "number"
    ) return this.$miss(map);
    return this.$seek(key) || this.$missing(key);
  }

  override seek(map: Handle, key: unknown): number {
    if (
      map.$view !== this.$view || map.$at !== this.$at ||
      this.$words[this.$changed] !== this.$changes
    ) throw unknownMap;
    return typeof key === "number" ? this.$seek(key) || this.$missing(key) : -1;
  }

  /** @internal */
  $seek(key: number): number {
    word[0] = key;
    return this.$probe(hashOf(halves[0] ^ this.$seedLow, halves[1] ^ this.$seedHigh));
  }

  /** What is no key, NaN and −0 are for those who know their forms. @internal */
  $missing(key: number): number {
    const { path, low, high } = this.$keys;
    if (key !== key || Object.is(key, -0)) return -1;
    return path !== 1 || key >= low && key <= high && Math.floor(key) === key ? 0 : -1;
  }
}

/** For u64 and i64. */
class BigLookup extends Lookup {
  override readonly isAlone: boolean = true;
  /** @internal */
  readonly $fits: (key: bigint) => boolean;

  constructor(keys: Keys, valueSize: () => number) {
    super(valueSize);
    this.$fits = fits[keys.type.key as "u64" | "i64"];
  }

  override find(map: Handle, key: unknown): number {
    if (
      map.$view !== this.$view || map.$at !== this.$at ||
      this.$words[this.$changed] !== this.$changes ||
      typeof key !== "bigint"
    ) return this.$miss(map);
    return this.$fits(key) ? this.$seek(key) : -1;
  }

  override seek(map: Handle, key: unknown): number {
    if (
      map.$view !== this.$view || map.$at !== this.$at ||
      this.$words[this.$changed] !== this.$changes
    ) throw unknownMap;
    return typeof key === "bigint" && this.$fits(key) ? this.$seek(key) : -1;
  }

  /** @internal */
  $seek(key: bigint): number {
    wordView.setBigUint64(0, key, true);
    return this.$probe(hashOf(halves[0] ^ this.$seedLow, halves[1] ^ this.$seedHigh));
  }
}

/** As for accessors: V8 compares bigints slowly, JavaScriptCore cuts them slowly. */
const fits: Readonly<Record<"u64" | "i64", (key: bigint) => boolean>> = adapter.runtime === "deno"
  ? {
    u64: (key) => BigInt.asUintN(64, key) === key,
    i64: (key) => BigInt.asIntN(64, key) === key,
  }
  : {
    u64: (key) => key >= 0n && key <= 0xffffffffffffffffn,
    i64: (key) => key >= -0x8000000000000000n && key <= 0x7fffffffffffffffn,
  };

/** See `hashBits` in zig/src/data/hash_map.zig. */
function hashOf(low: number, high: number): number {
  let mixed = imul(low, 0x9e3779b1);
  mixed ^= (mixed >>> 15) ^ high;
  mixed = imul(mixed ^ (mixed >>> 16), 0x85ebca6b);
  mixed = imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return mixed ^ (mixed >>> 16);
}

/** A u64 that may be no address at all. */
function addressAt(view: DataView, at: number): number {
  return view.getUint32(at | 0, true) + view.getUint32((at + 4) | 0, true) * 2 ** 32;
}

/** The pane that holds all bytes from one address to another, if there is one. */
function paneOfAll(access: Access, low: number, high: number): Pane | undefined {
  let pane: Pane;
  try {
    pane = access.pane(low, 1);
  } catch {
    // Damage, of which native code tells.
    return undefined;
  }
  return high <= pane.base + Math.min(pane.length, 2 ** 31 - 8) ? pane : undefined;
}

/** The lookup for a HashMap's keys; without native code for numbers, but for those of uncommon forms. */
export function lookupFor(keys: Keys, valueSize: () => number): Lookup {
  const { key, kind } = keys.type;
  if (key === "u64" || key === "i64") return new BigLookup(keys, valueSize);
  const isPlain = key === "number" && kind !== "bool" && kind !== "f32";
  return isPlain ? new NumberLookup(keys, valueSize) : new Lookup(valueSize);
}
