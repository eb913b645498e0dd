/**
 * Readers beside a writer that commits and folds: each opening shows one whole commit and goes on
 * showing it, whatever becomes of the files; and a heap that is left alone folds by itself.
 *
 *     PERM_READERS=1000    how many times each reader opens the image
 *
 * @module
 */
import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import { Heap } from "../mod.ts";
import { advance, expectWhole, type Habits, read, Writer } from "./ledger.ts";
import { runtimes } from "./runtimes.ts";
import { Child, elsewhere, eventually, Folder, otherRuntime, randomNumbers } from "./support.ts";

const count = Number(process.env.PERM_READERS ?? 0);
const timeout = count > 0 ? 3_600_000 : 120_000;
const ledger = new URL("./ledger.ts", import.meta.url).href;

const habits: Record<string, Habits> = {
  "commits and folds": { cells: 1 << 16, changes: 12, rewrites: 0, logLimit: 128 << 10, keep: 2 },
  // From 16 MiB on a base that nobody reads any more is written over.
  "writes its bases over": { cells: 17 << 17, changes: 12, rewrites: 12, logLimit: 1 << 30 },
};

for (const [what, how] of Object.entries(habits)) {
  test(`readers in both runtimes see whole commits beside a writer that ${what}`, {
    timeout,
  }, async () => {
    using folder = new Folder();
    const file = folder.file("app");
    await using writer = new Writer(otherRuntime, folder, file, how);
    await writer.reach(15);
    const openings = count || (how.rewrites > 0 ? 12 : 60);
    const readers = runtimes.map(async (runtime) => {
      await using child = new Child(runtime);
      return await child.run(
        async (_tools, module: string, ...args) => (await import(module)).read(...args),
        ledger,
        file,
        how,
        openings,
        writer.acknowledged,
      ) as { epochs: number; held: number };
    });
    readers.push(read(file, how, openings, writer.acknowledged));
    for (const { epochs, held } of await Promise.all(readers)) {
      assert.ok(epochs >= openings / 3, `${epochs} epochs in ${openings} openings`);
      assert.ok(held >= Math.floor(openings / 4), `${held} held`);
    }
    const { commits, folds } = await writer.stop();
    assert.ok(commits > openings, `${commits} commits`);
    if (how.rewrites === 0) assert.ok(folds > 2, `${folds} folds`);
    const rest = folder.names().filter((name) => name.startsWith("app"));
    assert.equal(rest.length, 2, rest.join());
  });
}

test("a heap that is left alone folds a long log by itself, and gives its space back", {
  timeout,
}, async () => {
  using folder = new Folder();
  const file = folder.file("app");
  const how: Habits = { cells: 1 << 13, changes: 16, rewrites: 0, logLimit: 1 << 20 };
  using heap = Heap.open({ file, size: 1 << 20, logLimit: how.logLimit });
  const below = randomNumbers(4);
  while (heap.stats().mapLogBytes < 700_000) advance(heap, how, below);
  assert.equal(heap.stats().folds, 0, "the log is below its limit");
  const { epoch } = heap;
  await eventually("the fold", () => heap.stats().folds > 0);
  const { folds, mapLogBytes } = heap.stats();
  assert.equal(folds, 1);
  assert.ok(mapLogBytes < 64 << 10, `${mapLogBytes} bytes of log`);
  assert.equal(heap.epoch, epoch, "no commit was made");
  assert.equal(folder.names().length, 2, folder.names().join());
  const seen = await elsewhere(
    otherRuntime,
    async (_tools, module: string, ...args) => (await import(module)).read(...args),
    ledger,
    file,
    how,
    2,
    folder.file("nothing"),
  ) as { epochs: number };
  assert.equal(seen.epochs, 1);
  advance(heap, how, below);
  assert.equal(expectWhole(heap, how, "after the fold"), epoch + 1);
});
