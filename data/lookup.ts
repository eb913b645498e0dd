/**
 * Looking numbers up in a HashMap without native code: reading only, by the layout of
 * docs/containers.md. One for each class of maps, which remembers where the parts of the map that was
 * asked last stand.
 *
 * Invariant: what is remembered is used for the same header with the same count of changes only, and
 * every access goes through a view of the heap, which ends where the heap does.
 *
 * @module
 */

import type { Keys } from "./container.ts";
import type { Handle } from "./handle.ts";
import type { Pane } from "./pane.ts";
import { readU53 } from "./type.ts";

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
const segmentSize = 24;
const keyAt = 8;
const valueAt = 16;

/** Lookups of an unchanged map before its parts are remembered. */
const patience = 8;

const word = new Float64Array(1);
const halves = new Uint32Array(word.buffer);
const bigWord = new BigUint64Array(word.buffer);

/** See above. */
export class Lookup {
  readonly #keys: Keys;
  readonly #isBig: boolean;
  readonly #isExact: boolean;
  readonly #valueSize: () => number;
  #view: DataView | null = null;
  #at = 0;
  #changes = -1;
  #streak = 0;
  #ready = false;
  #index: Uint32Array = new Uint32Array(1);
  #entryMask = 0;
  #seedLow = 0;
  #seedHigh = 0;
  #stride = 0;
  /** Offsets in the pane at which place −8 of each segment would stand. */
  #segments: Int32Array = new Int32Array(1);

  constructor(keys: Keys, valueSize: () => number) {
    this.#keys = keys;
    this.#isBig = keys.type.key !== "number";
    this.#isExact = keys.path === 1;
    this.#valueSize = valueSize;
  }

  /** Offset of the key's value in the map's pane; 0 when it is not there, −1 to ask native code. */
  find(map: Handle, key: unknown): number {
    const view = map.$view;
    const changes = view.getUint32((map.$at + header.changes) | 0, true);
    if (changes !== this.#changes || map.$at !== this.#at || view !== this.#view) {
      return this.#miss(map, changes);
    }
    if (!this.#ready && !this.#wait(map)) return -1;
    if (this.#isBig) {
      if (typeof key !== "bigint") return -1;
      bigWord[0] = key;
      // What does not fit 64 bits is refused by who knows how.
      if (this.#keys.type.key === "u64" ? bigWord[0] !== key : BigInt.asIntN(64, key) !== key) {
        return -1;
      }
    } else {
      if (typeof key !== "number" || key !== key) return -1;
      if (
        this.#isExact &&
        !(key >= this.#keys.low && key <= this.#keys.high && Math.floor(key) === key)
      ) return -1;
      word[0] = key + 0;
    }
    const low = halves[0];
    const high = halves[1];
    let mixed = Math.imul(low ^ this.#seedLow, 0x9e3779b1);
    mixed ^= mixed >>> 15;
    let hash = high ^ this.#seedHigh ^ mixed;
    hash ^= hash >>> 16;
    hash = Math.imul(hash, 0x85ebca6b);
    hash ^= hash >>> 13;
    hash = Math.imul(hash, 0xc2b2ae35);
    hash ^= hash >>> 16;
    const index = this.#index;
    const mask = index.length - 1;
    const entryMask = this.#entryMask;
    const tag = hash & ~entryMask;
    let position = hash & mask;
    for (let steps = 0; steps <= mask; steps++) {
      const slot = index[position] | 0;
      if (slot === 0) return 0;
      const entry = slot & entryMask;
      if ((slot & ~entryMask) === tag && entry > 1) {
        // Places are numbered from 8 on, so that segments follow from the leading bits.
        const place = entry + 6;
        const shift = 29 - Math.clz32(place);
        const segment = ((shift - 1) << 2) + ((place >>> shift) & 3);
        const at = (this.#segments[segment] + Math.imul(place, this.#stride)) | 0;
        if (
          view.getUint32((at + keyAt) | 0, true) === low &&
          view.getUint32((at + keyAt + 4) | 0, true) === high
        ) return (at + valueAt) | 0;
      }
      position = (position + 1) & mask;
    }
    return -1;
  }

  #miss(map: Handle, changes: number): number {
    this.#view = map.$view;
    this.#at = map.$at;
    this.#changes = changes;
    this.#streak = 0;
    this.#ready = false;
    return -1;
  }

  #wait(map: Handle): boolean {
    if (++this.#streak !== patience) return false;
    return this.#ready = this.#remember(map);
  }

  /** Reads the header; false when a part lies outside of the map's pane, or makes no sense. */
  #remember(map: Handle): boolean {
    const { $view: view, $at: at, $pane: pane } = map;
    if (view.getUint32((at + header.shape) | 0, true) === 0) return false;
    const indexBits = view.getUint8((at + header.indexBits) | 0);
    const entryBits = view.getUint8((at + header.entryBits) | 0);
    if (indexBits < 3 || indexBits > 28 || entryBits < indexBits || entryBits > 31) return false;
    const index = within(pane, readU53(view, (at + header.index) | 0), 4 * 2 ** indexBits);
    const length = view.getUint32((at + header.directoryLength) | 0, true);
    if (length > 128) return false;
    const directory = within(
      pane,
      readU53(view, (at + header.directory) | 0),
      length * segmentSize,
    );
    if (index < 0 || index % 4 !== 0 || directory < 0) return false;
    this.#stride = valueAt + Math.ceil(this.#valueSize() / 8) * 8;
    this.#segments = new Int32Array(128);
    for (let segment = 0; segment < length; segment++) {
      const address = readU53(view, (directory + segment * segmentSize) | 0);
      if (address === 0) continue;
      const size = 2 * 2 ** (segment >>> 2);
      const start = within(pane, address, size * this.#stride);
      if (start < 0) return false;
      this.#segments[segment] = (start - Math.imul((4 + (segment & 3)) * size, this.#stride)) | 0;
    }
    this.#index = new Uint32Array(pane.view.buffer, index, 2 ** indexBits);
    this.#entryMask = (2 ** entryBits - 1) | 0;
    this.#seedLow = view.getUint32((at + header.seed) | 0, true) | 0;
    this.#seedHigh = view.getUint32((at + header.seed + 4) | 0, true) | 0;
    return true;
  }
}

/** Offset in a pane of bytes that lie in it whole, or −1. */
function within(pane: Pane, p: number, bytes: number): number {
  const at = p - pane.base;
  return at >= 0 && at + bytes <= Math.min(pane.length, 2 ** 31 - 8) ? at : -1;
}
