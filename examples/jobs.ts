/**
 * A queue of jobs that survives its workers. Jobs wait by the time at which they are due; a job that
 * fails comes back later, a little longer each time; one that was running when the process died is
 * run again. Every change is committed before anybody hears of it.
 *
 *     deno run -A examples/jobs.ts add "resize picture 7" [--in 5]      in seconds
 *     deno run -A examples/jobs.ts run [--fail 0.3]                     until all are done
 *     deno run -A examples/jobs.ts list
 *
 * @module
 */

import process from "node:process";
import { setTimeout } from "node:timers/promises";
import { parseArgs } from "node:util";
import { f64, HashMap, OrderedMap, roots, struct, text, u32, u53 } from "../data/mod.ts";
import { Heap } from "../mod.ts";

const USAGE = `Usage: jobs.ts COMMAND [options]

  add WHAT             adds a job, due in --in seconds
  run                  runs jobs as they are due, until there are none
  list                 what is to be done

  -f, --file FILE      where the queue is kept             (default jobs.perm)
      --in SECONDS     when the job is due                 (default 0)
      --fail PART      how many jobs fail, from 0 to 1     (default 0)
  -h, --help           this text`;

const RETRIES_MAX = 5;

const Job = struct("Job", { what: text, due: f64, tries: u32, error: text });
const Queue = struct("Queue", {
  last: u53,
  done: u53,
  /** All jobs that are not done, by number. */
  jobs: HashMap(u53, Job),
  /** Which of them wait, by when they are due and then by number. */
  waiting: OrderedMap(text, u53),
});
type Queue = InstanceType<typeof Queue>;

/** A key that sorts as (due, number) do. */
function key(due: number, number: number): string {
  return `${Math.round(due).toString().padStart(15, "0")} ${number.toString().padStart(12, "0")}`;
}

export class Jobs {
  readonly heap: Heap;
  readonly #queue: Queue;

  /** The queue of that heap. What was running when its last process ended waits again. */
  constructor(heap: Heap) {
    this.heap = heap;
    this.#queue = roots(heap).open("jobs", Queue);
    const { jobs, waiting } = this.#queue;
    const known = new Set(waiting.values());
    for (const [number, job] of jobs) {
      if (!known.has(number)) waiting.set(key(job.due, number), number);
    }
  }

  get size(): number {
    return this.#queue.jobs.size;
  }

  get done(): number {
    return this.#queue.done;
  }

  /** Adds a job: its number, once it is safe. */
  add(what: string, due = Date.now()): number {
    const queue = this.#queue;
    const number = queue.last += 1;
    queue.jobs.set(number, { what, due });
    queue.waiting.set(key(due, number), number);
    this.heap.flush();
    return number;
  }

  /** Jobs in the order in which they are due. */
  *list(): Generator<{ number: number; what: string; due: number; tries: number; error: string }> {
    for (const number of this.#queue.waiting.values()) {
      const { what, due, tries, error } = this.#queue.jobs.get(number)!;
      yield { number, what, due, tries, error };
    }
  }

  /** Runs the next job that is due: `undefined` when none is, else milliseconds to the next one. */
  async runNext(work: (what: string) => Promise<void>): Promise<number | undefined> {
    const { jobs, waiting } = this.#queue;
    const [first] = waiting;
    if (first === undefined) return undefined;
    const [at, number] = first;
    const job = jobs.get(number)!;
    const left = job.due - Date.now();
    if (left > 0) return left;
    waiting.delete(at);
    try {
      await work(job.what);
      jobs.delete(number);
      this.#queue.done += 1;
    } catch (error) {
      const { tries } = job;
      if (tries + 1 >= RETRIES_MAX) jobs.delete(number);
      else {
        const due = Date.now() + 100 * 2 ** tries;
        jobs.set(number, { what: job.what, due, tries: tries + 1, error: String(error) });
        waiting.set(key(due, number), number);
      }
    }
    this.heap.flush();
    return 0;
  }
}

async function main(): Promise<number> {
  const { values, positionals: [command, what] } = parseArgs({
    allowPositionals: true,
    options: {
      file: { type: "string", short: "f", default: "jobs.perm" },
      in: { type: "string", default: "0" },
      fail: { type: "string", default: "0" },
      help: { type: "boolean", short: "h" },
    },
  });
  const [delay, failing] = [Number(values.in), Number(values.fail)];
  const isKnown = command === "run" || command === "list" ||
    command === "add" && what !== undefined;
  if (values.help || !isKnown || !(delay >= 0 && delay < 1e9) || !(failing >= 0 && failing <= 1)) {
    console.log(USAGE);
    return values.help ? 0 : 2;
  }
  using heap = Heap.open({ file: values.file, size: 1 << 20 });
  const jobs = new Jobs(heap);
  if (command === "add") {
    console.log(`job ${jobs.add(what, Date.now() + 1000 * delay)}: ${what}`);
  } else if (command === "list") {
    for (const { number, what, due, tries, error } of jobs.list()) {
      console.log(`${number}  ${new Date(due).toISOString()}  ${what}  ${tries} tries  ${error}`);
    }
    console.log(`${jobs.size} to do, ${jobs.done} done`);
  } else {
    for (;;) {
      const wait = await jobs.runNext(async (what) => {
        await setTimeout(20);
        if (Math.random() < failing) throw new Error("it did not work out");
        console.log(`done: ${what}`);
      });
      if (wait === undefined) break;
      await setTimeout(wait);
    }
    console.log(`nothing left to do, ${jobs.done} done`);
  }
  return 0;
}

if (import.meta.main) process.exitCode = await main();
