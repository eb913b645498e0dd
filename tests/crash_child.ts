/**
 * The program that the crash test kills: opens a heap, changes it at random, commits it to either
 * image, and says on standard output, an event a line, what it is about to commit and what was
 * committed. Its model never looks at the heap after opening.
 *
 *     deno run -A tests/crash_child.ts '{"file": …}'      see ChildOptions
 *
 * @module
 */
import assert from "node:assert/strict";
import { writeSync } from "node:fs";
import process from "node:process";
import {
  bopen,
  type CommitReport,
  Heap,
  mclose,
  mopen,
  PermError,
  type RestoreOptions,
} from "../mod.ts";
import {
  blockLength,
  globalLength,
  type Model,
  namesMax,
  nodeSize,
  registerHome,
  Structure,
  tableHeader,
} from "./crash_model.ts";
import { randomNumbers } from "./support.ts";

/** How a child opens its files. */
export type Way =
  /** `Heap.open` of both: takes the newest. */
  | "open"
  /** `mopen` and `bopen` of what is there, `restore()` when the backup is to win. */
  | "mopen"
  /** `mopen(null)`, `bopen`, `restore()`: the map file is not touched. */
  | "backup only"
  /** `mopen(…, "w+")` over the map file, `bopen`, `restore()`: the map file was lost. */
  | "new map";

/** Which of a heap's two images. */
export type Which = "map" | "backup";

/** What a child is told, as JSON in its one argument. */
export interface ChildOptions {
  file: string;
  backup: string;
  way: Way;
  /** Which files hold a commit, for the ways that name a mode. */
  exists: Record<Which, boolean>;
  /** For `mopen`: begin with `restore()`. */
  restore: boolean;
  /** Use the PERM block, which only the default heap can. */
  home: boolean;
  keep: number;
  logLimit: number;
  seed: number;
  /** Commits until it ends by itself. */
  commits: number;
  /** Go back to an earlier epoch now and then. */
  goBack: boolean;
  /** Bytes of payload from which on it frees more than it allocates. */
  weight: number;
}

/** What a child says. */
export type ChildEvent =
  | { at: "opening" }
  | {
    at: "opened";
    resumed: string;
    /** Of the image that the heap's state came from; 0 for a new heap. */
    epoch: number;
    digest: string;
    epochs: Record<Which, number[] | null>;
    dropped: number;
  }
  | { at: "begin"; image: Which; digest: string; unchanged: boolean }
  | { at: "done"; image: Which; epoch: number; pages: number; folds: number }
  /** `backup()` was refused: the image is no ancestor of the heap. */
  | { at: "guarded"; image: Which }
  | { at: "restored"; image: Which; epoch: number; digest: string }
  | { at: "refused"; code: string }
  | { at: "end" };

/** The longest payload, except that one in fifty is up to sixteen times as long. */
const payloadMax = 1 << 16;

class Program {
  readonly options: ChildOptions;
  readonly below: (bound: number) => number;
  readonly heap: Heap;
  readonly structure: Structure;
  model: Model;
  /** Whether nothing at all was done to the heap since it was opened, committed or restored. */
  untouched = true;
  dropped = 0;

  constructor(options: ChildOptions) {
    this.options = options;
    this.below = randomNumbers(options.seed);
    const home = options.home ? registerHome() : undefined;
    if (home) home.fill(0);
    say({ at: "opening" });
    this.heap = this.open();
    this.heap.check();
    this.structure = new Structure(this.heap, home);
    const isNew = this.heap.root === 0;
    if (isNew) this.structure.create(64);
    this.model = this.structure.read();
    const epochs = (image: Heap["map"]) => image?.epochs().map(({ epoch }) => epoch) ?? null;
    say({
      at: "opened",
      resumed: this.heap.resumed,
      epoch: this.heap.epoch,
      digest: isNew ? "new" : this.model.digest(),
      epochs: { map: epochs(this.heap.map), backup: epochs(this.heap.backupImage) },
      dropped: this.dropped,
    });
    this.untouched = !isNew;
  }

  open(): Heap {
    const { file, backup, way, exists, keep, logLimit } = this.options;
    const size = 1 << 20;
    const images = { keep, logLimit };
    const sizes = { maxSize: 1 << 28 };
    if (way === "open") return Heap.open({ file, backup, size, ...sizes, ...images });
    const heap = way === "backup only"
      ? mopen(null, "w+", size, sizes)
      : way === "new map" || !exists.map
      ? mopen(file, "w+", size, { replace: true, ...sizes, ...images })
      : mopen(file, "r+", undefined, images);
    bopen(backup, exists.backup ? "r+" : "w+", images);
    if (this.options.restore) this.dropped = heap.restore().dropped;
    return heap;
  }

  chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  /** Runs until it is killed, or has committed as often as it should. */
  async run(): Promise<void> {
    for (let commits = 0; commits < this.options.commits; commits++) {
      if (!this.chance(8)) this.change();
      const which = this.heap.map === null || this.chance(45) ? "backup" : "map";
      const commit = which === "map" ? () => this.heap.flush() : () => this.heap.backup();
      if (this.chance(85)) this.settle(which, commit);
      else await this.settleAsync(which);
      if (this.chance(10)) this.compare();
      if (this.chance(this.options.goBack ? 8 : 2)) this.goBack();
    }
    this.compare();
    if (this.options.way !== "open" && this.heap.map && this.chance(50)) {
      this.change();
      this.settle("map", () => {
        mclose();
        return undefined;
      });
    } else this.heap.close();
    say({ at: "end" });
  }

  // ------------------------------------------------------------------ commits

  announce(image: Which): void {
    say({ at: "begin", image, digest: this.model.digest(), unchanged: this.untouched });
  }

  /** Commits, saying so before and after. */
  settle(image: Which, commit: () => CommitReport | undefined): void {
    this.announce(image);
    try {
      const report = commit();
      if (report) this.done(image, report);
    } catch (error) {
      this.guarded(image, error);
    }
  }

  /** The same with a promise, and changes that come too late for this commit. */
  async settleAsync(image: Which): Promise<void> {
    this.announce(image);
    const promise = image === "map" ? this.heap.flushAsync() : this.heap.backupAsync();
    const late = this.chance(50);
    if (late) {
      this.poke();
      this.pokeBlock();
      this.mark();
    }
    try {
      this.done(image, await promise);
    } catch (error) {
      this.guarded(image, error);
    }
    this.untouched &&= !late;
  }

  guarded(image: Which, error: unknown): void {
    if (!(error instanceof PermError && error.code === "EXISTS")) throw error;
    this.heap.check();
    say({ at: "guarded", image });
  }

  done(image: Which, { epoch, pages }: CommitReport): void {
    const { folds } = this.heap.stats();
    say({ at: "done", image, epoch, pages, folds });
    this.untouched = true;
  }

  /** What the heap holds is what the model says. */
  compare(): void {
    this.heap.check();
    assert.equal(this.structure.read().digest(), this.model.digest(), "the heap is not its model");
  }

  /** Takes an epoch from an image; what was not committed is gone. */
  goBack(): void {
    const images = [this.heap.map, this.heap.backupImage]
      .map((image, index) => ({ image, from: (["map", "backup"] as const)[index] }))
      .filter(({ image }) => image !== null && image.epoch > 0);
    if (images.length === 0) return;
    const { image, from } = images[this.below(images.length)];
    // Without leave to go back it may only drop what was not committed.
    if (!this.options.goBack && image!.epoch !== this.heap.epoch) return;
    const epochs = image!.epochs();
    // A fold may drop those beyond `keep` at any moment.
    const sure = this.options.goBack ? Math.min(this.options.keep, epochs.length) : 1;
    const { epoch } = epochs.at(-1 - this.below(sure))!;
    const options: RestoreOptions = { from, epoch, verify: this.chance(50) };
    const report = this.heap.restore(options);
    assert.equal(report.epoch, epoch);
    this.heap.check();
    const blocks = this.structure.targets.length;
    this.model = this.structure.read();
    // A block that the epoch did not have was put there by the restore, and is away again.
    this.untouched = this.structure.targets.length >= blocks;
    say({ at: "restored", image: from, epoch, digest: this.model.digest() });
  }

  // ------------------------------------------------------------------ changes

  change(): void {
    this.untouched = false;
    for (let count = this.below(24) + 1; count > 0; count--) {
      const heavy = this.model.bytes > this.options.weight;
      const kind = this.below(100);
      if (kind < (heavy ? 8 : 30)) this.allocate();
      else if (kind < 40) this.free();
      else if (kind < 55) this.resize(heavy);
      else if (kind < 80) this.poke();
      else if (kind < 85) this.pokeBlock();
      else if (kind < 90) this.pokeGlobal();
      else if (kind < 94) this.pokeHome();
      else if (kind < 96) this.addName();
      else if (kind < 97) this.freeMany(heavy);
      else this.allocateMany(heavy);
    }
    this.mark();
  }

  /** Nothing that was ever committed has this state's digest. */
  mark(): void {
    this.model.mark = this.below(0xffffffff);
    this.structure.setField(8, this.model.mark);
  }

  length(): number {
    const most = this.chance(2) ? 16 * payloadMax : payloadMax;
    return this.below(1 << this.below(Math.log2(most) + 1));
  }

  random(length: number): Uint8Array {
    const bytes = new Uint8Array(length + 3);
    const words = new Uint32Array(bytes.buffer, 0, bytes.length >> 2);
    let state = this.below(0xffffffff) | 1;
    for (let i = 0; i < words.length; i++) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      words[i] = state;
    }
    return bytes.slice(0, length);
  }

  someNode(): number | undefined {
    const ids = [...this.model.nodes.keys()];
    return ids.length === 0 ? undefined : ids[this.below(ids.length)];
  }

  /** A free slot; the table grows when there is none. */
  freeSlot(): number {
    const { structure, heap, model } = this;
    const slots = structure.slots;
    if (model.nodes.size < slots) {
      for (let id = this.below(slots);; id = (id + 1) % slots) {
        if (!model.nodes.has(id)) return id;
      }
    }
    heap.root = heap.realloc(structure.table, tableHeader + 16 * slots);
    heap.bytes(structure.slot(slots), 8 * slots).fill(0);
    structure.setField(4, 2 * slots);
    return slots;
  }

  add(payload: number, bytes: Uint8Array): void {
    const { heap, structure } = this;
    const id = this.freeSlot();
    heap.bytes(payload, bytes.length).set(bytes);
    const node = heap.malloc(nodeSize);
    structure.link(node, id, bytes.length, payload);
    heap.store(structure.slot(id), node);
    this.model.nodes.set(id, { bytes });
  }

  allocate(): void {
    const length = this.length();
    const bytes = this.random(length);
    const way = this.below(3);
    if (way === 0) return this.add(this.heap.malloc(length), bytes);
    if (way === 1) {
      const alignment = 1 << (4 + this.below(9));
      const payload = this.heap.alignedAlloc(alignment, length);
      assert.equal(payload % alignment, 0, "an aligned payload");
      return this.add(payload, bytes);
    }
    const payload = this.heap.calloc(length, 1);
    const zeroed = this.heap.bytes(payload, length);
    assert.ok(zeroed.every((byte) => byte === 0), `calloc(${length}) gave used memory`);
    bytes.fill(0, length >> 2);
    this.add(payload, bytes);
  }

  /** Many small ones, as a list of words would be. */
  allocateMany(heavy: boolean): void {
    const length = 8 + this.below(120);
    const count = heavy ? 3 : 1 + this.below(80);
    for (const payload of this.heap.mallocMany(length, count)) {
      this.add(payload, this.random(length));
    }
  }

  unlink(id: number): [number, number] {
    const { heap, structure } = this;
    const pointers: [number, number] = [structure.payload(id), structure.node(id)];
    heap.store(structure.slot(id), 0);
    this.model.nodes.delete(id);
    return pointers;
  }

  free(): void {
    const id = this.someNode();
    if (id === undefined) return;
    for (const pointer of this.unlink(id)) this.heap.free(pointer);
  }

  freeMany(heavy: boolean): void {
    const parts = heavy ? 2 : 5;
    const ids = [...this.model.nodes.keys()].filter(() => this.below(parts) === 0);
    this.heap.freeMany(ids.flatMap((id) => this.unlink(id)));
  }

  resize(heavy: boolean): void {
    const id = this.someNode();
    if (id === undefined) return;
    const { heap, structure } = this;
    const { bytes } = this.model.nodes.get(id)!;
    const length = heavy ? this.below(bytes.length + 1) : this.length();
    const payload = heap.realloc(structure.payload(id), length);
    const longer = this.random(length);
    const kept = Math.min(bytes.length, length);
    longer.set(bytes.subarray(0, kept));
    heap.bytes(payload, length).set(longer.subarray(kept), kept);
    structure.link(structure.node(id), id, length, payload);
    this.model.nodes.set(id, { bytes: longer });
  }

  poke(): void {
    const id = this.someNode();
    if (id === undefined) return;
    const payload = this.model.nodes.get(id)!;
    const { bytes } = payload;
    if (bytes.length === 0) return;
    const view = this.heap.bytes(this.structure.payload(id), bytes.length);
    for (let count = this.below(8); count >= 0; count--) {
      const at = this.below(bytes.length);
      bytes[at] = view[at] = this.below(256);
    }
    payload.digest = undefined;
    this.mark();
    this.untouched = false;
  }

  pokeBlock(): void {
    if (this.model.blocks.length === 0) return;
    const index = this.below(this.model.blocks.length);
    const at = this.below(blockLength(index));
    this.structure.targets[index][at] = this.model.blocks[index][at] = this.below(1 << 30) / 7;
  }

  pokeGlobal(): void {
    if (this.model.globals.length === 0) return;
    const index = this.below(this.model.globals.length);
    const at = this.below(globalLength(index));
    this.structure.global(index)[at] = this.model.globals[index][at] = this.below(0xffffffff);
  }

  pokeHome(): void {
    const { home } = this.structure;
    if (!home) return;
    const at = this.below(home.length);
    home[at] = this.model.home![at] = this.below(1 << 30) / 3;
  }

  /** One more block or global, or the last block away. */
  addName(): void {
    const { model, structure } = this;
    const blocks = model.blocks.length;
    if (blocks > 0 && this.chance(20)) {
      structure.unregister(blocks - 1);
      model.blocks.pop();
    } else if (this.chance(50)) {
      if (blocks === namesMax) return;
      structure.register(blocks + 1);
      model.blocks.push(new Float64Array(blockLength(blocks)));
    } else if (model.globals.length < namesMax) {
      const global = structure.global(model.globals.length);
      assert.ok(global.every((value) => value === 0), "a new global is zeroed");
      model.globals.push(new Uint32Array(global.length));
    }
    structure.setField(12, model.blocks.length);
    structure.setField(16, model.globals.length);
  }
}

function say(event: ChildEvent): void {
  writeSync(1, JSON.stringify(event) + "\n");
}

function start(): Program | undefined {
  try {
    return new Program(JSON.parse(process.argv[2]));
  } catch (error) {
    if (!(error instanceof PermError && error.code === "EXISTS")) throw error;
    say({ at: "refused", code: error.code });
  }
}

await start()?.run();
