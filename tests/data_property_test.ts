/**
 * The containers under random operations, beside JavaScript's own, with commits, restores and kill -9 in
 * between. `PERM_SEED` repeats a run, `PERM_PROPERTY_STEPS` makes it longer.
 *
 * @module
 */
import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import { Heap } from "../mod.ts";
import { doStep, expectSame, Model, World } from "./data_model.ts";
import { Child, Folder, otherRuntime, randomNumbers } from "./support.ts";
import { Lookup } from "../data/lookup.ts";
import { thisRuntime } from "./runtimes.ts";

// Changes are frequent here: TypeScript shall look numbers up by itself none the less.
Lookup.patience = 3;

const seed = Number(process.env.PERM_SEED ?? Math.floor(Math.random() * 2 ** 31));
const steps = Number(process.env.PERM_PROPERTY_STEPS ?? 20_000);

/** The model after that many steps. */
function modelAfter(step: number): Model {
  const model = new Model();
  for (let done = 0; done < step; done++) doStep(seed, done, model, null);
  return model;
}

/** Live blocks and bytes, after `action`. */
function liveAfter(heap: Heap, action: () => void): number {
  action();
  heap.check();
  return heap.stats().liveBlocks;
}

test("containers equal JavaScript's own through random operations, commits and restores", () => {
  console.log(`seed ${seed}`);
  using folder = new Folder();
  const random = randomNumbers(seed);
  using heap = Heap.open({ file: folder.file("world.perm"), size: 4 << 20 });
  heap.global("containers", Float64Array, 12);
  const before = heap.stats().liveBlocks;
  let world = new World(heap);
  let model = new Model();
  let committed = { step: -1 };
  for (let step = 0; step < steps; step++) {
    doStep(seed, step, model, world);
    world.step = step + 1;
    const dice = random(1500);
    if (dice === 0 || step === 0) {
      heap.flush();
      committed = { step: step + 1 };
    } else if (dice === 1) {
      const old = world;
      heap.restore();
      assert.throws(() => old.all.numbers.get(1), /destroyed|closed|restored|detached/i);
      world = new World(heap);
      assert.equal(world.step, committed.step);
      model = modelAfter(committed.step);
      expectSame(world, model, committed.step);
      // What is done again after going back is what was done the first time.
      step = committed.step - 1;
      if (random(2) === 0) expectSame(world, model, step);
    }
    if (step % 1000 === 999) expectSame(world, model, step);
  }
  expectSame(world, model, steps);
  assert.equal(liveAfter(heap, () => world.destroy()), before, `seed ${seed}: blocks are left`);
});

for (const [first, second] of [[thisRuntime, otherRuntime], [otherRuntime, thisRuntime]]) {
  test(
    `containers are whole after kill -9 under ${first} and go on under ${second}`,
    { timeout: 240_000 },
    async () => {
      using folder = new Folder();
      const file = folder.file("world.perm");
      const random = randomNumbers(seed + 1);
      let done = 0;
      for (let round = 0; round < 4; round++) {
        await using child = new Child(round % 2 === 0 ? first : second);
        done = await child.run(
          async ({ perm }, model, file, seed, from) => {
            const { doStep, expectSame, Model, World } = await import(model);
            const { Heap } = perm;
            const heap = Heap.open({ file, size: 4 << 20 });
            const world = new World(heap);
            const mirror = new Model();
            for (let step = 0; step < world.step; step++) doStep(seed, step, mirror, null);
            expectSame(world, mirror, world.step);
            const end = from + 600;
            for (let step = world.step; step < end; step++) {
              doStep(seed, step, mirror, world);
              world.step = step + 1;
              if (step % 97 === 0) heap.flush();
            }
            heap.flush();
            // It goes on until it is killed.
            setTimeout(() => {
              for (let step = end;; step++) {
                doStep(seed, step, mirror, world);
                world.step = step + 1;
                if (step % 11 === 0) heap.flush();
              }
            }, 0);
            return end;
          },
          new URL("./data_model.ts", import.meta.url).href,
          file,
          seed,
          done,
        );
        await new Promise((resolve) => setTimeout(resolve, random(60)));
        await child.kill();
        using heap = Heap.open({ file, size: 4 << 20 });
        const world = new World(heap);
        assert.ok(world.step >= done, `seed ${seed}: ${world.step} of ${done} steps are left`);
        done = world.step;
        expectSame(world, modelAfter(done), done);
        heap.check();
      }
    },
  );
}
