/**
 * Several heaps in one process, each with two files and commits under way to both, while Workers allocate in
 * all of them, one goes back and one is closed: none hears of another's trouble.
 *
 * @module
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { Heap, PermError } from "../mod.ts";
import { expectWell, Folder, randomNumbers, Thread } from "./support.ts";

const mib = 1 << 20;
const timeout = 60_000;
const words = 1 << 17;

test(
  "heaps of one process commit side by side while Workers allocate, one goes back and one closes",
  {
    timeout,
  },
  async () => {
    using folder = new Folder();
    const options = (index: number) => ({
      file: folder.file(`m${index}`),
      backup: folder.file(`b${index}`),
      size: 8 * mib,
      keep: 4,
      logLimit: 2 * mib,
    });
    const random = randomNumbers(8);
    const heaps = [0, 1, 2, 3, 4].map((index) => Heap.open(options(index)));
    const views = heaps.map((heap) => {
      heap.root = heap.malloc(8 * words);
      return heap.view(Float64Array, heap.root, words).fill(0);
    });
    const threads = [new Thread(), new Thread()];
    try {
      // The last heap is nobody's but ours: it can be closed.
      const shared = heaps.slice(0, 4);
      for (const [index, thread] of threads.entries()) {
        await thread.run(
          ({ perm, state }, handles, seed) => {
            state.heaps = handles.map((handle: string) => perm.Heap.attach(handle));
            state.live = state.heaps.map(() => []);
            state.turns = 0;
            const step = () => {
              if (state.ending) return;
              for (const [index, heap] of state.heaps.entries()) {
                // Heap 1 goes back: what was allocated since is no block any more, so all of it is given up at once.
                if (index === 1) continue;
                const live = state.live[index];
                for (let n = 0; n < 40; n++) {
                  seed = (seed * 48271) % 0x7fffffff;
                  if (live.length > 200) heap.free(live.splice(seed % live.length, 1)[0]);
                  else live.push(heap.malloc(16 + seed % (n === 0 ? 200_000 : 500)));
                }
              }
              state.turns++;
              globalThis.setTimeout(step, 0);
            };
            step();
          },
          shared.map((heap) => heap.handle),
          index + 11,
        );
      }
      let ticks = 0;
      let alive = true;
      const ticking = (async () => {
        while (alive) {
          await setTimeout(1);
          ticks++;
        }
      })();
      const under: Promise<unknown>[] = [];
      const last = heaps.map(() => ({ value: 0, file: 0, backup: 0 }));
      let refused = 0;
      for (let value = 1; value <= 30; value++) {
        for (const [index, heap] of heaps.entries()) {
          if (value > 20 && index === 4) continue;
          for (
            let n = 0;
            n < (value % 10 === 0 ? words : 300);
            n++
          ) views[index][1 + random(words - 1)] = value;
          views[index][0] = value;
          last[index].value = value;
          const flushed = heap.flushAsync().then(() =>
            last[index].file = Math.max(last[index].file, value)
          );
          const backed = heap.backupAsync().then(() =>
            last[index].backup = Math.max(last[index].backup, value)
          );
          under.push(flushed, backed);
        }
        if (value === 9 || value === 18) {
          // Its commits that are under way come first, then it stands on the last of them.
          const before = under.slice();
          views[1][0] = -1;
          heaps[1].restore({ from: value === 9 ? "map" : "backup" });
          assert.equal(views[1][0], value);
          heaps[1].check();
          assert.ok(before.length > 0);
        }
        if (value === 20) {
          heaps[4].close();
          assert.equal(views[4].length, 0);
        }
        if (value % 5 === 0) {
          try {
            heaps[0].close();
          } catch (error) {
            assert.ok(error instanceof PermError && error.code === "BUSY", String(error));
            refused++;
          }
        }
        await setTimeout(random(3));
        const [turned] = await Promise.all([threads[value % 2].run(({ state }) => state.turns)]);
        assert.ok(turned >= 0);
      }
      await Promise.all(under);
      alive = false;
      await ticking;
      assert.ok(ticks > 30, `${ticks} ticks`);
      assert.equal(refused, 6);
      for (const thread of threads) {
        const turns = await thread.run(({ state }) => {
          state.ending = true;
          for (const heap of state.heaps) {
            heap.check();
            heap.close();
          }
          return state.turns;
        });
        assert.ok(turns > 10, `${turns} turns`);
      }
      for (const [index, heap] of heaps.entries()) {
        const { value, file, backup } = last[index];
        assert.deepEqual([file, backup], [value, value]);
        if (index === 4) continue;
        assert.equal(views[index][0], value);
        expectWell(heap);
      }
      const contents = views.slice(0, 4).map((view) => view.slice());
      for (const heap of heaps.slice(0, 4)) heap.close();
      for (const [index, { value }] of last.entries()) {
        for (const from of ["file", "backup"] as const) {
          const { file, backup, size } = options(index);
          using heap = Heap.open({ file: from === "file" ? file : backup, size, verify: true });
          const view = heap.view(Float64Array, heap.root, words);
          assert.equal(view[0], value, `heap ${index}, ${from}`);
          if (index < 4) assert.ok(view.every((word, at) => word === contents[index][at]));
          heap.check();
        }
      }
    } finally {
      for (const thread of threads) thread[Symbol.dispose]();
    }
  },
);
