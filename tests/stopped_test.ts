/**
 * A writer that stands still, in the middle of a commit or a fold, because somebody stopped its process or
 * it may open no file any more: others go on, and it does when it can.
 *
 * @module
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { Heap, Image, mopen } from "../mod.ts";
import { Child, expectCode, expectWell, Folder, randomNumbers } from "./support.ts";
import { runtimes } from "./runtimes.ts";

const mib = 1 << 20;
const timeout = 60_000;

/** Whether every thread of the process stands still. */
function isStopped(pid: number): boolean {
  return readdirSync(`/proc/${pid}/task`).every((task) => {
    const stat = readFileSync(`/proc/${pid}/task/${task}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2, stat.lastIndexOf(")") + 3) === "T";
  });
}

async function stop(child: Child): Promise<void> {
  child.signal("SIGSTOP");
  while (!isStopped(child.process.pid!)) await setTimeout(1);
}

for (const runtime of runtimes) {
  test(`beside a writer under ${runtime} that is stopped anywhere others read, copy and are BUSY`, {
    timeout,
  }, async () => {
    using folder = new Folder();
    const file = folder.file("a");
    const progress = folder.file("progress");
    await using child = new Child(runtime);
    await child.run(
      ({ perm, state }, file, progress) => {
        const { openSync, writeSync } = process.getBuiltinModule("node:fs");
        const into = openSync(progress, "w");
        const heap = state.heap = perm.Heap.open({
          file,
          size: 8 << 20,
          keep: 3,
          logLimit: 1 << 20,
        });
        const count = 1 << 19;
        heap.root = heap.malloc(8 * count);
        const words = heap.view(Float64Array, heap.root, count);
        let value = 0;
        const step = () => {
          if (state.ending) return;
          value++;
          // A record of some pages, now and then a whole base; folds come by themselves.
          const stride = value % 16 === 0 ? 512 : 512 * 37;
          for (let at = value % 512; at < count; at += stride) words[at] = value;
          words[0] = value;
          heap.flush();
          const text = new TextEncoder().encode(String(value).padEnd(12));
          writeSync(into, text, 0, text.length, 0);
          state.value = value;
          setImmediate(step);
        };
        step();
      },
      file,
      progress,
    );
    const acknowledged = () => Number(readFileSync(progress, "utf8"));
    const copy = folder.file("copy");
    const random = randomNumbers(4);
    for (let round = 0; round < 24; round++) {
      await setTimeout(random(15));
      await stop(child);
      const least = acknowledged();
      expectCode(() => Heap.open({ file, size: mib }), "BUSY", { path: file });
      expectCode(() => mopen(file, "w+", mib), "BUSY", { path: file });
      {
        using heap = mopen(file, "r", undefined, { verify: round % 4 === 0 });
        const found = heap.view(Float64Array, heap.root, 1)[0];
        // The commit that it was stopped in may be found, if it was done but for its answer.
        assert.ok(found >= least && found <= least + 1, `${found} after ${least}`);
        heap.check();
      }
      if (round % 4 === 1) {
        Image.copy(file, copy, { replace: true });
        Image.verify(file);
        Image.verify(copy);
        using heap = mopen(copy, "r");
        const found = heap.view(Float64Array, heap.root, 1)[0];
        assert.ok(found >= least && found <= least + 1, `${found} in the copy after ${least}`);
      }
      child.signal("SIGCONT");
    }
    const last = await child.run(({ state }) => {
      state.ending = true;
      state.heap.check();
      state.folds = state.heap.stats().folds;
      state.heap.close();
      return [state.value, state.folds];
    });
    assert.ok(last[0] > 24 && last[1] > 0, `${last[0]} commits, ${last[1]} folds`);
    assert.equal(await child.end(), "exit 0");
    using heap = Heap.open({ file, size: mib });
    assert.equal(heap.view(Float64Array, heap.root, 1)[0], last[0]);
    expectWell(heap);
    heap.close();
    assert.deepEqual(
      folder.names().filter((name) => name.startsWith("a")).map((name) => name.slice(0, 5)),
      ["a", "a-log"],
    );
  });
}

/**
 * The limit of descriptors under which the process may open so many more files, and for less than
 * none after it closed some. What it was given by whoever started it all may have a number far
 * behind its own.
 */
function limitFor(pid: number, more: number): number {
  const open = new Set(readdirSync(`/proc/${pid}/fd`).map(Number));
  let limit = 0;
  for (let left = more; left > 0 || open.has(limit); limit++) if (!open.has(limit)) left--;
  return limit + Math.min(more, 0);
}

/** What a program does with files: each step may be refused a descriptor anywhere. */
const steps = [
  "flush",
  "base",
  "backup",
  "flushAsync",
  "restore",
  "bopen",
  "copy",
  "verify",
  "open",
  "shared",
] as const;

for (const runtime of runtimes) {
  test(
    `without a descriptor left under ${runtime} each call is refused by name, and none is lost`,
    {
      timeout,
      skip: process.getuid?.() !== 0 && "only root raises a limit again",
    },
    async () => {
      using folder = new Folder();
      await using child = new Child(runtime);
      const pid = child.process.pid!;
      const limit = (soft: string) =>
        execFileSync("prlimit", [`--pid=${pid}`, `--nofile=${soft}:`]);
      const allowed = execFileSync("prlimit", [
        `--pid=${pid}`,
        "--nofile",
        "-o",
        "SOFT",
        "--noheadings",
      ])
        .toString().trim();
      await child.run(({ perm, state }, path) => {
        state.path = path;
        state.descriptors = () =>
          process.getBuiltinModule("node:fs").readdirSync("/proc/self/fd").length;
        // Whatever the runtime and the library open once is open then; Deno ends where it cannot.
        process.on("SIGUSR2", () => {});
        perm.Heap.open({ file: `${path}/first`, size: 1 << 20 }).close();
        state.closed = state.descriptors();
        const heap = state.heap = perm.Heap.open({
          file: `${path}/a`,
          backup: `${path}/b`,
          size: 16 << 20,
          keep: 2,
        });
        heap.root = heap.calloc(1, 8 << 20);
        state.words = heap.view(Float64Array, heap.root, 1 << 20);
        state.value = 0;
        state.shared = { file: `${path}/s`, size: 1 << 20, maxSize: 1 << 20, shared: true };
        state.act = (step: string) => {
          const { heap, words } = state;
          const change = () => words[0] = ++state.value;
          if (step === "flush") return change(), heap.flush();
          if (step === "base") return words.fill(++state.value), heap.flush();
          if (step === "backup") return change(), heap.backup();
          if (step === "flushAsync") return change(), heap.flushAsync();
          if (step === "restore") {
            const { epoch } = heap.restore({ from: "map" });
            state.value = words[0];
            // What the backup alone has must not be in the way of the next one.
            return epoch;
          }
          if (step === "bopen") {
            heap.bclose();
            return heap.bopen(`${path}/b`, "w+", { replace: true });
          }
          if (step === "copy") return perm.Image.copy(`${path}/a`, `${path}/c`, { replace: true });
          if (step === "verify") return perm.Image.verify(`${path}/a`);
          if (step === "open") {
            const other = perm.Heap.open({ file: `${path}/o`, backup: `${path}/p`, size: 1 << 20 });
            try {
              if (other.root === 0) other.root = other.calloc(1, 8);
              other.store(other.root, state.value);
              other.flush();
              other.backup();
            } finally {
              other.close();
            }
            return;
          }
          const other = perm.Heap.open(state.shared);
          try {
            if (other.root === 0) other.root = other.calloc(1, 8);
            other.store(other.root, state.value);
            return other.flush();
          } finally {
            // With the mark if the flush was refused.
            other.close();
          }
        };
      }, folder.path);
      for (const step of steps) {
        const run = () =>
          child.run(async ({ perm, state }, step) => {
            try {
              await state.act(step);
              return "done";
            } catch (error) {
              if (!(error instanceof perm.PermError)) throw error;
              return `${error.code}: ${error.message}`;
            }
          }, step);
        const look = () =>
          child.run(({ state }) => (state.heap.check(), state.descriptors()), step);
        // Whatever the runtime opens once is open, and the files are there.
        assert.equal(await run(), "done", step);
        assert.equal(await run(), "done", step);
        const open = await look();
        let refused = 0;
        let answer = "";
        for (let more = -7; more < 24 && (more < 12 || answer !== "done"); more++) {
          limit(String(limitFor(pid, more)));
          answer = await run();
          limit(allowed);
          if (answer !== "done") {
            refused++;
            assert.match(answer, /^(IO|CORRUPT): /, step);
            if (answer.startsWith("IO")) assert.match(answer, /no more files open/, step);
          }
          if (answer.startsWith("CORRUPT")) {
            // A shared heap that was closed without its flush says so.
            assert.equal(step, "shared", answer);
            await child.run(({ perm, state }) => {
              using other = perm.Heap.open({ ...state.shared, recover: true });
              other.flush();
            });
          }
          if (step === "bopen" && answer !== "done") {
            assert.equal(await run().then((told) => told.startsWith("NOT_OPEN")), true);
            await child.run(({ state }) =>
              void state.heap.bopen(`${state.path}/b`, "w+", { replace: true })
            );
          }
          // A base or a log that was replaced may be kept open for its space.
          assert.ok(
            await look() <= open + 3,
            `${step}: descriptors, ${more} more allowed, ${answer}`,
          );
        }
        assert.equal(answer, "done", step);
        // Records and restores need none, or go without.
        if (["base", "bopen", "copy", "verify", "open", "shared"].includes(step)) {
          assert.ok(refused > 0, step);
        }
      }
      const [value, before, after] = await child.run(({ state }) => {
        state.heap.flush();
        state.heap.close();
        return [state.value, state.closed, state.descriptors()];
      });
      assert.equal(after, before, "descriptors");
      using heap = Heap.open({ file: join(folder.path, "a"), size: mib });
      assert.equal(heap.view(Float64Array, heap.root, 1)[0], value);
      expectWell(heap);
    },
  );
}
