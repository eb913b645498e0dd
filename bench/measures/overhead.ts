/**
 * What a heap needs beyond the bytes that were asked for: 1e6 live objects of 16 to 256 bytes, and
 * the image of them.
 *
 * @module
 */

import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { Heap } from "../../mod.ts";
import { inChild, line, type Measure, type Report, type Samples } from "../harness.ts";
import { randomSource } from "./random.ts";

const LIMIT_HEAP = 1.15;
const LIMIT_IMAGE = 1.05;

interface Args {
  work: string;
  name: string;
  count: number;
  seed: number;
}

/** Takes the objects, writes to each, commits, and then replaces as many at random. */
function fill({ work, name, count, seed }: Args): Record<string, number> {
  const random = randomSource(seed);
  const file = `${name}-${seed}.map`;
  using heap = Heap.open({ file: join(work, file), size: 16 * 2 ** 20 });
  const sizes = Int32Array.from({ length: count }, () => 16 + random(241));
  const pointers = Float64Array.from(sizes, (size) => heap.malloc(size));
  const write = (i: number) => {
    const { view, base } = heap.window(pointers[i]);
    view.setUint32((pointers[i] - base) | 0, i + 1, true);
  };
  for (let i = 0; i < count; i++) write(i);
  const requested = () => sizes.reduce((sum, size) => sum + size, 0);
  const fresh = heap.used / requested();

  heap.flush();
  const images = readdirSync(work).filter((found) => found.startsWith(file));
  const stored = images.reduce((sum, image) => sum + statSync(join(work, image)).size, 0);
  const image = stored / (Math.ceil(heap.used / 4096) * 4096);

  for (let i = 0; i < count; i++) {
    const place = random(count);
    heap.free(pointers[place]);
    sizes[place] = 16 + random(241);
    pointers[place] = heap.malloc(sizes[place]);
    write(place);
  }
  heap.check();
  return { fresh, image, churned: heap.used / requested() };
}

export const overhead: Measure = {
  title: "Memory and file beyond the bytes asked for",
  roles: { fill },
  async run({ quick, work, runtimes }) {
    const count = quick ? 100_000 : 1_000_000;
    const reports: Report[] = [];
    for (const runtime of runtimes) {
      const samples: Samples = { fresh: [], image: [], churned: [] };
      for (const seed of quick ? [1] : [1, 2, 3]) {
        const args: Args = { work, name: `overhead-${runtime}`, count, seed };
        const found = await inChild<Record<string, number>>(runtime, "overhead/fill", args);
        for (const [what, ratio] of Object.entries(found)) samples[what].push(ratio);
      }
      reports.push({
        measure: "overhead",
        runtime,
        lines: [
          { ...line(samples, "fresh", "×", { limit: LIMIT_HEAP }), what: "heap used / bytes live" },
          {
            ...line(samples, "image", "×", { limit: LIMIT_IMAGE }),
            what: "image / used pages of the heap",
          },
          { ...line(samples, "churned", "×"), what: "heap used / bytes live, after churn" },
        ],
        skipped: [],
        notes: [
          `${count} objects of 16 to 256 bytes; churn frees and replaces one at random, ${count} times`,
        ],
      });
    }
    return reports;
  },
};
