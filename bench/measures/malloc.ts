/**
 * malloc and free as TypeScript sees them: 20,000 live blocks of 16 to 512 bytes; a pair frees one
 * of them at random and takes another. Beside it what the bridge alone costs, the same pair without
 * other live blocks, and blocks taken by the thousand.
 *
 * @module
 */

import { load, native } from "../../ffi/mod.ts";
import { Heap } from "../../mod.ts";
import { inChild, joinSamples, line, type Measure, type Samples, takeTurns } from "../harness.ts";
import { randomSource } from "./random.ts";

const LIVE = 20_000;
const MANY = 1_000;
const LIMIT_NS = { deno: 27, bun: 18 };

function pairs({ rounds, count }: { rounds: number; count: number }): Samples {
  load();
  using heap = Heap.open({ file: null, size: 64 * 2 ** 20 });
  const random = randomSource(7);
  const sizes = Float64Array.from({ length: 4096 }, () => 16 + random(497));
  const places = Int32Array.from({ length: 4096 }, () => random(LIVE));
  const live = Float64Array.from({ length: LIVE }, (_, i) => heap.malloc(sizes[i & 4095]));

  const timed = (work: () => void) => () => {
    const before = performance.now();
    work();
    return (performance.now() - before) * 1e6 / count;
  };
  let turn = 0;
  const samples = takeTurns({
    "two empty calls": timed(() => {
      for (let i = 0; i < count; i++) {
        native.ph_abi();
        native.ph_abi();
      }
    }),
    "malloc + free": timed(() => {
      for (let i = 0; i < count; i++) {
        turn = turn * 5 + 1 & 0xffffff;
        const place = places[turn >>> 3 & 4095];
        heap.free(live[place]);
        live[place] = heap.malloc(sizes[turn >>> 5 & 4095]);
      }
    }),
    "malloc + free at once": timed(() => {
      for (let i = 0; i < count; i++) heap.free(heap.malloc(sizes[i & 4095]));
    }),
    "mallocMany + freeMany": timed(() => {
      for (let i = 0; i < count; i += MANY) heap.freeMany(heap.mallocMany(64, MANY));
    }),
  }, rounds);
  heap.check();
  return samples;
}

export const malloc: Measure = {
  title: "malloc and free of 16 to 512 bytes from TypeScript",
  roles: { pairs },
  async run({ quick, runtimes }) {
    const processes = quick ? 1 : 3;
    const args = { rounds: quick ? 5 : 9, count: quick ? 100_000 : 400_000 };
    const runs = { deno: [] as Samples[], bun: [] as Samples[] };
    for (let i = 0; i < processes; i++) {
      for (const runtime of runtimes) {
        runs[runtime].push(await inChild(runtime, "malloc/pairs", args));
      }
    }
    return runtimes.map((runtime) => {
      const samples = joinSamples(runs[runtime]);
      const floor = "two empty calls";
      return {
        measure: "malloc",
        runtime,
        lines: [
          line(samples, floor, "ns"),
          line(samples, "malloc + free", "ns", {
            to: floor,
            of: "value",
            limit: LIMIT_NS[runtime],
          }),
          line(samples, "malloc + free at once", "ns", { to: floor }),
          line(samples, "mallocMany + freeMany", "ns", { to: floor }),
        ],
        skipped: [],
        notes: [`a pair, ${LIVE} blocks live; mallocMany: ${MANY} blocks of 64 bytes a call`],
      };
    });
  },
};
