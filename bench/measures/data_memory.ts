/**
 * What 1e6 records of six fields take: as JavaScript objects in a Map, and as structs in a HashMap.
 * Told is what the process grew by, and for the heap also what its allocator says.
 *
 * @module
 */

import process from "node:process";
import { bool, f64, HashMap, struct, text, u32, u8 } from "../../data/mod.ts";
import { Heap } from "../../mod.ts";
import { inChild, line, type Measure, type Report, type Samples } from "../harness.ts";

const LIMIT = { "short names": 0.5, "long names": 0.65 };

const User = struct("User", { id: u32, age: u8, active: bool, score: f64, name: text, city: text });

const cities = ["Aachen", "Berlin", "Dortmund", "Hamburg", "Oberammergau", "Frankfurt (Oder)"];

/** Fields as they come from outside: every string is a new one. */
function values(i: number, longer: boolean) {
  const name = longer ? `user ${i} with a name of some length` : `user ${i}`;
  return {
    id: i,
    age: i % 100,
    active: i % 3 === 0,
    score: i * 0.37,
    name: fresh(name),
    city: fresh(cities[i % cities.length]),
  };
}

const decoder = new TextDecoder();
const encoder = new TextEncoder();
function fresh(text: string): string {
  return decoder.decode(encoder.encode(text));
}

interface Args {
  count: number;
  longer: boolean;
}

/** Lets the runtime take the memory that making records needs for the moment. */
function makeGarbage(longer: boolean): void {
  for (let i = 0; i < 500_000; i++) values(i, longer);
}

/** The process's memory after its garbage is gone, as far as the runtime can be asked. */
async function settled(): Promise<number> {
  const { Bun, gc } = globalThis as { Bun?: { gc(sync: boolean): void }; gc?: () => void };
  for (let i = 0; i < 5; i++) {
    Bun?.gc(true);
    gc?.();
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return process.memoryUsage().rss;
}

async function objects({ count, longer }: Args): Promise<number> {
  const users = new Map<number, unknown>();
  makeGarbage(longer);
  const before = await settled();
  for (let i = 0; i < count; i++) users.set(i, values(i, longer));
  const after = await settled();
  if (users.size !== count) throw new Error("they are still needed");
  return (after - before) / count;
}

async function structs({ count, longer }: Args): Promise<Record<string, number>> {
  using heap = Heap.open({ file: null, size: 16 * 2 ** 20 });
  const users = new (HashMap(u32, User))(heap);
  users.set(0, values(0, longer));
  makeGarbage(longer);
  const before = await settled();
  for (let i = 0; i < count; i++) users.set(i, values(i, longer));
  const after = await settled();
  return { grown: (after - before) / count, used: heap.used / count };
}

export const dataMemory: Measure = {
  title: "Memory of records of six fields",
  roles: { objects, structs },
  async run({ quick, runtimes }) {
    const count = quick ? 200_000 : 1_000_000;
    const reports: Report[] = [];
    for (const runtime of runtimes) {
      const samples: Samples = {};
      const add = (what: string, value: number) => (samples[what] ??= []).push(value);
      for (let round = 0; round < (quick ? 1 : 3); round++) {
        for (const longer of [false, true]) {
          const kind = longer ? "long names" : "short names";
          const args: Args = { count, longer };
          add(`objects, ${kind}`, await inChild(runtime, "data-memory/objects", args));
          const found = await inChild<Record<string, number>>(
            runtime,
            "data-memory/structs",
            args,
          );
          add(`structs, ${kind}`, found.grown);
          add(`structs, ${kind}, as the heap tells`, found.used);
        }
      }
      reports.push({
        measure: "data-memory",
        runtime,
        lines: (["short names", "long names"] as const).flatMap((kind) => [
          line(samples, `objects, ${kind}`, "B"),
          line(samples, `structs, ${kind}`, "B", { to: `objects, ${kind}`, limit: LIMIT[kind] }),
          line(samples, `structs, ${kind}, as the heap tells`, "B", { to: `objects, ${kind}` }),
        ]),
        skipped: [],
        notes: [
          `bytes a record, ${count} of them: two integers, a truth value, a float, two texts; in a Map ` +
          "and a HashMap by number",
        ],
      });
    }
    return reports;
  },
};
