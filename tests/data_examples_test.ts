// The examples of typed data do what they say.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { Jobs } from "../examples/jobs.ts";
import { Heap } from "../mod.ts";
import { leaks } from "../data/mod.ts";
import { command, repository, run, type Runtime, thisRuntime } from "./runtimes.ts";
import { Folder, otherRuntime } from "./support.ts";

const timeout = 60_000;
const particles = (runtime: Runtime, file: string, steps: number) =>
  command(runtime, `${repository}examples/particles.ts`, [
    ...["--file", file, "--bodies", "8", "--steps", `${steps}`],
  ]);

test("a simulation killed under one runtime computes under the other what it would have", {
  timeout,
}, async () => {
  using folder = new Folder();
  const whole = run(particles(thisRuntime, folder.file("whole.perm"), 20_000));
  assert.equal(whole.code, 0, whole.err);
  const [program, ...args] = particles(thisRuntime, folder.file("killed.perm"), 1e9);
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
  for await (const line of createInterface({ input: child.stdout })) {
    if (!line.startsWith("step 4000:")) continue;
    child.kill("SIGKILL");
    break;
  }
  await new Promise((resolve) => child.on("exit", resolve));
  // However far it came, it is a multiple of the commits' distance, and goes on from there.
  const seen = run(particles(otherRuntime, folder.file("killed.perm"), 0)).out;
  const reached = Number(/at step (\d+)/.exec(seen)![1]);
  assert.ok(reached >= 4000 && reached % 500 === 0, seen);
  if (reached <= 20_000) {
    const rest = run(particles(otherRuntime, folder.file("killed.perm"), 20_000));
    assert.equal(rest.code, 0, rest.err);
    assert.equal(rest.out.split("\n").at(-2), whole.out.split("\n").at(-2));
  }
});

test("a queue loses no job, runs them when they are due and gives up on none too early", {
  timeout,
}, async () => {
  using folder = new Folder();
  const file = folder.file("jobs.perm");
  const ran: string[] = [];
  {
    using heap = Heap.open({ file, size: 1 << 20 });
    const jobs = new Jobs(heap);
    jobs.add("second", Date.now() - 1);
    jobs.add("first", Date.now() - 1000);
    jobs.add("a job whose name is too long for a slot", Date.now());
    assert.deepEqual([...jobs.list()].map(({ number }) => number), [2, 1, 3]);
    await jobs.runNext((what) => Promise.resolve(void ran.push(what)));
    assert.deepEqual(ran, ["first"]);
    // The process ends within a job: nothing of that is committed.
    const lost = jobs.runNext(() => new Promise(() => {}));
    assert.ok(lost instanceof Promise);
  }
  using heap = Heap.open({ file, size: 1 << 20 });
  const jobs = new Jobs(heap);
  assert.deepEqual([jobs.size, jobs.done], [2, 1]);
  let failures = 2;
  for (;;) {
    const wait = await jobs.runNext((what) => {
      if (what === "second" && failures-- > 0) return Promise.reject(new Error("not yet"));
      ran.push(what);
      return Promise.resolve();
    });
    if (wait === undefined) break;
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
  assert.deepEqual(ran, ["first", "a job whose name is too long for a slot", "second"]);
  assert.deepEqual([jobs.size, jobs.done, [...jobs.list()].length], [0, 3, 0]);
  assert.deepEqual(leaks(heap), []);
});
