/**
 * A simulation that steps for hours and survives: bodies under each other's gravity, kept as structs
 * in a heap. Stop it however you like, kill -9 included; started again, under either runtime, it
 * goes on from its last commit and computes what it would have computed without the interruption.
 *
 *     deno run -A examples/particles.ts [--file particles.perm] [--bodies 64] [--steps 20000]
 *
 * @module
 */

import process from "node:process";
import { parseArgs } from "node:util";
import { array, f64, roots, struct, u32, u53 } from "../data/mod.ts";
import { Heap } from "../mod.ts";

const USAGE = `Usage: particles.ts [options]

Moves bodies step by step, and commits every 500 steps; goes on where the last commit was.

  -f, --file FILE      where the bodies are kept           (default particles.perm)
      --bodies N       how many a new world has            (default 64)
      --steps N        where to end, counted from the first run on (default 20000)
  -h, --help           this text`;

const BODIES_MAX = 1024;
const STEP = 0.001;
const SOFTENING = 0.01;
const STEPS_A_COMMIT = 500;

const Vector = struct("Vector", { x: f64, y: f64, z: f64 });
const Body = struct("Body", { mass: f64, at: Vector, speed: Vector });
const World = struct("World", {
  step: u53,
  runs: u32,
  count: u32,
  bodies: array(Body, BODIES_MAX),
});
type World = InstanceType<typeof World>;

/** Bodies in a disc that turns, the same in every new world. */
function fill(world: World, count: number): void {
  world.count = count;
  for (let i = 0; i < count; i++) {
    const angle = i * 2.399963;
    const radius = Math.sqrt((i + 0.5) / count);
    const speed = 0.8 * Math.sqrt(radius);
    world.bodies.set(i, {
      mass: 1 / count,
      at: { x: radius * Math.cos(angle), y: radius * Math.sin(angle), z: 0.01 * (i % 7 - 3) },
      speed: { x: -speed * Math.sin(angle), y: speed * Math.cos(angle), z: 0 },
    });
  }
}

/** One step of the leapfrog method. The vectors are views of the heap: they are taken once. */
function mover(world: World): () => void {
  const bodies = Array.from({ length: world.count }, (_, i) => {
    const { mass, at, speed } = world.bodies.get(i);
    return { mass, at, speed };
  });
  return () => {
    for (const one of bodies) {
      const { x, y, z } = one.at;
      let ax = 0;
      let ay = 0;
      let az = 0;
      for (const { mass, at } of bodies) {
        const dx = at.x - x;
        const dy = at.y - y;
        const dz = at.z - z;
        const squared = dx * dx + dy * dy + dz * dz + SOFTENING;
        const pull = mass / (squared * Math.sqrt(squared));
        ax += pull * dx;
        ay += pull * dy;
        az += pull * dz;
      }
      one.speed.x += STEP * ax;
      one.speed.y += STEP * ay;
      one.speed.z += STEP * az;
    }
    for (const { at, speed } of bodies) {
      at.x += STEP * speed.x;
      at.y += STEP * speed.y;
      at.z += STEP * speed.z;
    }
    world.step += 1;
  };
}

/** Momentum, which no step may change, and a fingerprint of all places. */
function state(world: World): string {
  let momentum = 0;
  let places = 0;
  for (let i = 0; i < world.count; i++) {
    const { mass, at, speed } = world.bodies.get(i);
    momentum += mass * (speed.x + speed.y + speed.z);
    places += at.x * 3 + at.y * 5 + at.z * 7;
  }
  return `momentum ${momentum.toExponential(2)}, places ${places.toFixed(12)}`;
}

const { values } = parseArgs({
  options: {
    file: { type: "string", short: "f", default: "particles.perm" },
    bodies: { type: "string", default: "64" },
    steps: { type: "string", default: "20000" },
    help: { type: "boolean", short: "h" },
  },
});
const steps = Number(values.steps);
const count = Number(values.bodies);
const isSound = Number.isInteger(count) && count >= 1 && count <= BODIES_MAX && steps >= 0;
if (values.help || !isSound) {
  console.log(USAGE);
  process.exit(values.help ? 0 : 2);
}

using heap = Heap.open({ file: values.file, size: 1 << 20 });
const world = roots(heap).open("world", World);
if (world.count === 0) fill(world, count);
world.runs += 1;
console.log(`run ${world.runs}, ${world.count} bodies, at step ${world.step}: ${state(world)}`);
const move = mover(world);
while (world.step < steps) {
  move();
  if (world.step % STEPS_A_COMMIT === 0 || world.step === steps) {
    const { pages, durationMs } = heap.flush();
    console.log(`step ${world.step}: ${pages} pages in ${durationMs.toFixed(1)} ms`);
  }
}
console.log(`done, at step ${world.step}: ${state(world)}`);
