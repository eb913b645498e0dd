/**
 * A struct's fields beside what a program would write by hand: a DataView, an offset and
 * little-endian calls over the same heap memory, without any check of what is written. And the
 * walk over 1e6 structs, reading three numbers of each.
 *
 * Every loop is a function of its own text, so that none profits or suffers from the types that
 * another has seen; other structs with the same kinds of fields are used before.
 *
 * @module
 */

import { array, bool, f32, f64, i32, struct, u16, u32, u53, u64, u8 } from "../../data/mod.ts";
import { Heap } from "../../mod.ts";
import { inChild, joinSamples, line, type Measure, type Samples, takeTurns } from "../harness.ts";

const RECORDS = 1000;
const LIMIT_GET = 1.5;
const LIMIT_SET = 2;
const LIMIT_WALK_NS = 15;

const schema = {
  f64,
  i32,
  u32,
  u8,
  u16,
  f32,
  bool,
  u53,
  u64,
};
const Record = struct("Record", schema);
const Particle = struct("Particle", { x: f64, y: f64, z: f64, mass: f32, kind: u8 });

/** What is beyond the signed 64 bits in which V8 computes. */
const LARGE = "u64 from 2^63 on";

/** How each is read and written by hand; `h` has the view and the offset `a`. */
const byHand: Record<string, [get: string, set: string, value: string]> = {
  f64: ["h.view.getFloat64(A, true)", "h.view.setFloat64(A, V, true)", "i + 0.5"],
  i32: ["h.view.getInt32(A, true)", "h.view.setInt32(A, V, true)", "i"],
  u32: ["h.view.getUint32(A, true)", "h.view.setUint32(A, V, true)", "i"],
  u8: ["h.view.getUint8(A)", "h.view.setUint8(A, V)", "i & 255"],
  u16: ["h.view.getUint16(A, true)", "h.view.setUint16(A, V, true)", "i"],
  f32: ["h.view.getFloat32(A, true)", "h.view.setFloat32(A, V, true)", "i"],
  bool: ["(h.view.getUint8(A) !== 0)", "h.view.setUint8(A, V ? 1 : 0)", "(i & 1) === 0"],
  u53: [
    "(h.view.getUint32(A, true) + h.view.getUint32(A + 4, true) * 4294967296)",
    "{ const v = V; h.view.setUint32(A, v >>> 0, true); " +
    "h.view.setUint32(A + 4, (v / 4294967296) | 0, true); }",
    "i",
  ],
  u64: ["h.view.getBigUint64(A, true)", "h.view.setBigUint64(A, V, true)", "BIG"],
};

function loop(body: string, big: boolean): (list: unknown[], rounds: number) => unknown {
  const start = big ? "0n" : "0";
  return new Function(
    "list",
    "rounds",
    `const BIG = 1234567890123n, LARGE = 2n ** 64n - 5n; let sum = ${start};
    for (let r = 0; r < rounds; r++) for (let i = 0; i < list.length; i++) {
      const h = list[i]; ${body}
    }
    return sum;`,
  ) as (list: unknown[], rounds: number) => unknown;
}

/** Uses other structs, so that the accessors' code has seen more than one. */
function useOthers(heap: Heap): void {
  for (let index = 0; index < 6; index++) {
    const Other = struct(`Other${index}`, schema);
    const other = new Other(heap);
    for (let i = 0; i < 2000; i++) {
      other.f64 += other.i32 + other.u32 + other.u8 + other.u16 + other.f32 + other.u53;
      other.i32 = i;
      other.u8 = i & 255;
      other.u16 = other.u32 = other.u53 = i;
      other.f32 = i;
      other.bool = !other.bool;
      other.u64 += 1n;
    }
  }
}

function fields({ rounds, passes }: { rounds: number; passes: number }): Samples {
  using heap = Heap.open({ file: null, size: 16 * 2 ** 20 });
  useOthers(heap);
  const ours = Array.from({ length: RECORDS }, () => new Record(heap));
  const hands = ours.map((record) => {
    const { view, base } = heap.window(record.ptr);
    return { view, a: (record.ptr - base) | 0 };
  });
  const contestants: globalThis.Record<string, () => number> = {};
  const add = (name: string, list: unknown[], body: string, big: boolean) => {
    const run = loop(body, big);
    contestants[name] = () => {
      const before = performance.now();
      run(list, passes);
      return (performance.now() - before) * 1e6 / (passes * RECORDS);
    };
  };
  for (const { name, offset } of Record.fields) {
    const [get, set, value] = byHand[name].map((text) =>
      text.replaceAll("A", `(h.a + ${offset}) | 0`).replaceAll("+ 4, true", "+ 4 | 0, true")
    );
    const big = name === "u64";
    const take = big ? "sum ^= G" : "sum += +G";
    add(`get ${name} by hand`, hands, take.replace("G", get), big);
    add(`get ${name}`, ours, take.replace("G", `h.${name}`), big);
    add(`set ${name} by hand`, hands, set.replace("V", value), big);
    add(`set ${name}`, ours, `h.${name} = ${value};`, big);
    if (!big) continue;
    add(`set ${LARGE} by hand`, hands, set.replace("V", "LARGE"), big);
    add(`set ${LARGE}`, ours, `h.${name} = LARGE;`, big);
  }
  // Engines compile in the background, which takes its time on a busy machine.
  for (let round = 0; round < 5; round++) for (const run of Object.values(contestants)) run();
  return takeTurns(contestants, rounds);
}

function walk({ rounds, count }: { rounds: number; count: number }): Samples {
  using heap = Heap.open({ file: null, size: 256 * 2 ** 20 });
  useOthers(heap);
  const Cloud = struct("Cloud", { all: array(Particle, count) });
  const cloud = new Cloud(heap);
  const objects: { x: number; y: number; z: number; mass: number; kind: number }[] = [];
  for (const p of cloud.all) {
    p.x = p.y = p.z = objects.length;
    objects.push({ x: p.x, y: p.y, z: p.z, mass: 0, kind: 0 });
  }
  const { view, base } = heap.window(cloud.ptr);
  const timed = (work: () => number) => () => {
    const before = performance.now();
    if (!(work() > 0)) throw new Error("nothing was read");
    return (performance.now() - before) * 1e6 / count;
  };
  return takeTurns({
    "DataView by hand": timed(() => {
      let sum = 0;
      const { size } = Particle;
      for (let i = 0, a = (cloud.ptr - base) | 0; i < count; i++, a = (a + size) | 0) {
        sum += view.getFloat64(a, true) + view.getFloat64((a + 8) | 0, true) +
          view.getFloat64((a + 16) | 0, true);
      }
      return sum;
    }),
    "JavaScript objects": timed(() => {
      let sum = 0;
      for (const p of objects) sum += p.x + p.y + p.z;
      return sum;
    }),
    "structs, for of": timed(() => {
      let sum = 0;
      for (const p of cloud.all) sum += p.x + p.y + p.z;
      return sum;
    }),
    "structs, by index": timed(() => {
      let sum = 0;
      const { all } = cloud;
      for (let i = 0; i < all.length; i++) {
        const p = all.get(i);
        sum += p.x + p.y + p.z;
      }
      return sum;
    }),
  }, rounds);
}

export const dataFields: Measure = {
  title: "Fields of structs, and a walk over structs",
  roles: { fields, walk },
  async run({ quick, runtimes }) {
    const processes = quick ? 1 : 3;
    const args = { rounds: quick ? 5 : 9, passes: quick ? 200 : 500 };
    const walkArgs = { rounds: quick ? 5 : 9, count: quick ? 100_000 : 1_000_000 };
    const reports = [];
    for (const runtime of runtimes) {
      const runs: Samples[] = [];
      const walks: Samples[] = [];
      for (let i = 0; i < processes; i++) {
        runs.push(await inChild(runtime, "data-fields/fields", args));
        walks.push(await inChild(runtime, "data-fields/walk", walkArgs));
      }
      const samples = joinSamples(runs);
      const walked = joinSamples(walks);
      reports.push({
        measure: "data-fields",
        runtime,
        lines: [
          ...["get", "set"].flatMap((what) =>
            [...Object.keys(schema), ...what === "set" ? [LARGE] : []].map((name) =>
              line(samples, `${what} ${name}`, "ns", {
                to: `${what} ${name} by hand`,
                limit: what === "get" ? LIMIT_GET : LIMIT_SET,
              })
            )
          ),
          line(walked, "DataView by hand", "ns"),
          line(walked, "JavaScript objects", "ns"),
          line(walked, "structs, for of", "ns", {
            to: "JavaScript objects",
            of: "value",
            limit: LIMIT_WALK_NS,
          }),
          line(walked, "structs, by index", "ns", {
            to: "JavaScript objects",
            of: "value",
            limit: LIMIT_WALK_NS,
          }),
        ],
        skipped: [],
        notes: [
          `${RECORDS} records in turn; what is set is checked for type and range, by hand it is not`,
          `the walk reads three f64 of each of ${walkArgs.count} structs of ${Particle.size} bytes`,
        ],
      });
    }
    return reports;
  },
};
