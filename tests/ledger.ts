/**
 * A heap whose every committed state can be told whole from mixed: cells, and their weighted sum
 * beside them. For tests that look at an image while another process commits to it.
 *
 * @module
 */
import assert from "node:assert/strict";
import { closeSync, existsSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { Heap, mclose, mopen } from "../mod.ts";
import { Child, type Folder, randomNumbers } from "./support.ts";
import type { Runtime } from "./runtimes.ts";

const name = "ledger";

/** How a writer goes about it. */
export interface Habits {
  /** Cells of 8 bytes. */
  cells: number;
  /** Cells changed by a commit, each on a page of its own or nearly so. */
  changes: number;
  /** Of so many commits all but the last two change all cells; 0: none does. */
  rewrites: number;
  logLimit: number;
  keep?: number;
}

/** Asserts that the heap shows one committed state, whole, and gives its epoch. */
export function expectWhole(heap: Heap, { cells }: Habits, what: string): number {
  const ledger = heap.global(name, Float64Array, cells + 2);
  let sum = 0;
  for (let i = 2; i < ledger.length; i++) sum += ledger[i] * (i % 997);
  assert.equal(sum, ledger[1], `${what}: epoch ${heap.epoch} is mixed`);
  assert.equal(ledger[0], heap.epoch, `${what}: epoch ${heap.epoch} holds another one's state`);
  return heap.epoch;
}

/** One more commit, at random places. */
export function advance(heap: Heap, habits: Habits, below: (bound: number) => number): number {
  const ledger = heap.global(name, Float64Array, habits.cells + 2);
  const round = heap.epoch + 1;
  const whole = habits.rewrites > 0 && round % habits.rewrites < habits.rewrites - 2;
  for (let i = 0; i < (whole ? habits.cells : habits.changes); i++) {
    const cell = 2 + (whole ? i : below(habits.cells));
    const by = 1 + below(1000);
    ledger[cell] += by;
    ledger[1] += by * (cell % 997);
  }
  ledger[0] = round;
  assert.equal(heap.flush().epoch, round);
  return round;
}

/**
 * A process that commits to `file` as fast as it can, and folds, until its scope ends. What it was
 * told is durable stands in a file beside.
 */
export class Writer implements AsyncDisposable {
  readonly #child: Child;
  readonly #stop: string;
  /** The file in which stands what it was told is durable. */
  readonly acknowledged: string;
  readonly #done: Promise<{ commits: number; folds: number }>;

  constructor(runtime: Runtime, folder: Folder, file: string, habits: Habits) {
    this.#stop = folder.file("stop");
    this.acknowledged = folder.file("acknowledged");
    this.#child = new Child(runtime);
    this.#done = this.#child.run(
      async (_tools, module: string, file, habits, stop: string, acknowledged: string) =>
        (await import(module)).write(file, habits, stop, acknowledged),
      import.meta.url,
      file,
      habits,
      this.#stop,
      this.acknowledged,
    );
    this.#done.catch(() => {});
  }

  /** The last epoch that a commit has returned. */
  get epoch(): number {
    return acknowledgedEpoch(this.acknowledged);
  }

  /** Waits until it has committed that epoch. */
  async reach(epoch: number): Promise<void> {
    while (this.epoch < epoch) {
      await Promise.race([this.#done, new Promise((resolve) => setTimeout(resolve, 10))]);
    }
  }

  /** Lets it come to an end, and tells what it did. */
  async stop(): Promise<{ commits: number; folds: number }> {
    writeFileSync(this.#stop, "");
    return await this.#done;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#child.kill();
  }
}

/** What a {@linkcode Writer}'s process runs. */
export function write(
  file: string,
  habits: Habits,
  stop: string,
  acknowledged: string,
): { commits: number; folds: number } {
  const { cells, logLimit, keep = 1 } = habits;
  using heap = Heap.open({ file, size: cells * 8 + (1 << 20), logLimit, keep });
  const below = randomNumbers(12345);
  const word = new Float64Array(1);
  const bytes = new Uint8Array(word.buffer);
  const out = openSync(acknowledged, "w");
  let commits = 0;
  for (; commits % 16 !== 0 || !existsSync(stop); commits++) {
    word[0] = advance(heap, habits, below);
    writeSync(out, bytes, 0, 8, 0);
  }
  closeSync(out);
  return { commits, folds: heap.stats().folds };
}

/**
 * Opens the image for reading again and again: each opening shows one whole state, the same however
 * long it lasts, and none from before what the writer had been told is durable.
 */
export async function read(
  file: string,
  habits: Habits,
  openings: number,
  acknowledged: string,
): Promise<{ epochs: number; held: number }> {
  const seen = new Set<number>();
  let held = 0;
  for (let i = 0; i < openings; i++) {
    const least = acknowledgedEpoch(acknowledged);
    const heap = mopen(file, "r", undefined, { verify: i % 5 === 0 });
    try {
      const what = `opening ${i}`;
      const { epoch } = heap;
      assert.ok(epoch >= least, `${what}: epoch ${epoch}, when ${least} was durable`);
      assert.equal(heap.dropped, 0, `${what}: says that a commit was dropped`);
      seen.add(epoch);
      // Sometimes pages come in only after the writer has gone on for long.
      const wait = i % 4;
      if (wait === 2) await goneBy(acknowledged, epoch + 3 * i % 40);
      assert.equal(expectWhole(heap, habits, what), epoch);
      if (wait === 3) {
        await goneBy(acknowledged, epoch + 20);
        assert.equal(expectWhole(heap, habits, `${what}, later`), epoch);
        held++;
      }
    } finally {
      mclose();
    }
  }
  return { epochs: seen.size, held };
}

/** What stands in the file that a writer keeps, or 0. */
function acknowledgedEpoch(path: string): number {
  if (!existsSync(path)) return 0;
  const bytes = readFileSync(path);
  return bytes.length === 8 ? bytes.readDoubleLE() : 0;
}

async function goneBy(acknowledged: string, epoch: number): Promise<void> {
  for (let waits = 0; acknowledgedEpoch(acknowledged) < epoch && waits < 400; waits++) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
