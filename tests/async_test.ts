/**
 * Asynchronous commits: the state at the call, durable when the promise resolves, while the program
 * goes on; and what ends in their middle.
 *
 * @module
 */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import process from "node:process";
import { test } from "node:test";
import { Heap } from "../mod.ts";
import { mountLoop, mountTmpfs, refusesFreezing, refusesMounts } from "./mounts.ts";
import type { Tools } from "./remote.ts";
import { command, run, runtimes } from "./runtimes.ts";
import {
  Child,
  elsewhere,
  expectCode,
  expectRejects,
  expectWell,
  Folder,
  get,
  put,
} from "./support.ts";

const timeout = 120_000;

test("an asynchronous commit holds the heap as it was at the call", { timeout }, async () => {
  using folder = new Folder();
  const file = folder.file("a.perm");
  {
    using heap = Heap.open({ file, size: 1 << 20 });
    put(heap, 1);
    const first = heap.flushAsync();
    put(heap, 2);
    const report = await first;
    assert.equal(report.epoch, 1);
    assert.ok(report.pages > 0 && report.bytes > 0 && report.durationMs > 0);
    assert.equal(heap.epoch, 1);
    assert.equal(get(heap), 2);
  }
  using heap = Heap.open({ file, size: 1 << 20 });
  assert.equal(get(heap), 1);
  expectWell(heap);
});

test("commits under way end in the order of their calls, each with its own state", {
  timeout,
}, async () => {
  using folder = new Folder();
  using heap = Heap.open({ file: folder.file("a.perm"), size: 1 << 20, keep: 100 });
  const ended: number[] = [];
  const all = Array.from({ length: 20 }, (_, index) => {
    put(heap, 100 + index);
    return heap.flushAsync().then(({ epoch }) => ended.push(epoch));
  });
  put(heap, 7);
  await Promise.all(all);
  assert.deepEqual(ended, Array.from({ length: 20 }, (_, index) => index + 1));
  assert.equal(heap.stats().commits, 20);
  assert.equal(heap.stats().commitsUnderWay, 0);
  for (const epoch of [1, 20, 7]) {
    heap.restore({ epoch });
    assert.equal(get(heap), 99 + epoch);
  }
});

test("an unchanged heap has the same epoch in both images, and a later one when it changed", {
  timeout,
}, async () => {
  using folder = new Folder();
  const file = folder.file("a.perm");
  const backup = folder.file("a.back");
  using heap = Heap.open({ file, backup, size: 1 << 20 });
  for (let round = 1; round <= 3; round++) {
    put(heap, round);
    const reports = await Promise.all([heap.flushAsync(), heap.backupAsync(), heap.flushAsync()]);
    const epochs = reports.map(({ epoch }) => epoch);
    assert.deepEqual(epochs, [epochs[0], epochs[0], epochs[0]]);
    assert.equal(reports[2].pages, 0);
    const later = [heap.backupAsync(), (put(heap, round + 10), heap.flushAsync())];
    assert.deepEqual((await Promise.all(later)).map(({ epoch }) => epoch), [
      epochs[0],
      epochs[0] + 1,
    ]);
  }
});

test("a synchronous commit queues behind asynchronous ones", { timeout }, async () => {
  using folder = new Folder();
  using heap = Heap.open({ file: folder.file("a.perm"), size: 1 << 20, keep: 9 });
  const before = [1, 2, 3].map((value) => (put(heap, value), heap.flushAsync()));
  put(heap, 4);
  assert.equal(heap.flush().epoch, 4);
  assert.deepEqual((await Promise.all(before)).map(({ epoch }) => epoch), [1, 2, 3]);
});

test("close, bclose and restore wait for commits under way, whose promises resolve after it", {
  timeout,
}, async () => {
  using folder = new Folder();
  const file = folder.file("a.perm");
  const backup = folder.file("a.back");
  const heap = Heap.open({ file, backup, size: 1 << 20 });
  put(heap, 1);
  const first = heap.backupAsync();
  heap.bclose();
  assert.equal((await first).epoch, 1);
  put(heap, 2);
  const second = heap.flushAsync();
  put(heap, 3);
  assert.equal(heap.restore().epoch, 2);
  assert.equal(get(heap), 2);
  assert.equal((await second).epoch, 2);
  put(heap, 4);
  const third = heap.flushAsync();
  heap.close();
  assert.equal((await third).epoch, 3);
  using again = Heap.open({ file, backup, size: 1 << 20 });
  assert.equal(get(again), 4);
});

test("restore and synchronous commits come after all that was asked for before", {
  timeout,
}, async () => {
  using folder = new Folder();
  using heap = Heap.open({ file: folder.file("a.perm"), size: 32 << 20, keep: 100 });
  const length = 8 << 20;
  const bytes = heap.bytes(heap.root = heap.calloc(1, length), length);
  for (let round = 1; round <= 4; round++) {
    const commits = [1, 2, 3].map((step) => {
      bytes.fill(16 * round + step, 0, length >> (step - 1));
      return heap.flushAsync();
    });
    bytes.fill(255);
    // Not the last one that happens to be there, and never one that comes while it is read.
    assert.equal(heap.restore().epoch, 3 * round);
    assert.ok([1, 2, 3].every((step) => bytes[(length >> (step - 1)) - 1] === 16 * round + step));
    assert.deepEqual(
      (await Promise.all(commits)).map(({ epoch }) => epoch),
      [3 * round - 2, 3 * round - 1, 3 * round],
    );
  }
});

for (const runtime of runtimes) {
  test(`a program goes on while its medium does not answer (${runtime})`, {
    skip: refusesFreezing(),
    timeout,
  }, async () => {
    using folder = new Folder();
    using disk = mountLoop(folder.file("disk"), "ext4");
    await using child = new Child(runtime);
    const paths = [`${disk.path}/a.perm`, folder.file("a.back")];
    await child.run(async ({ perm, state }, [file, backup]) => {
      const heap = state.heap = perm.Heap.open({ file, backup, size: 32 << 20, keep: 9 });
      heap.root = heap.calloc(1, 16 << 20);
      heap.flush();
      heap.backup();
      // The threads that commit have begun.
      await heap.flushAsync();
    }, paths);
    // Whoever writes there waits in the system until it is thawed, and cannot even be killed.
    execFileSync("fsfreeze", ["-f", disk.path]);
    const thawing = spawn("sh", ["-c", 'sleep 20; fsfreeze -u "$1"', "sh", disk.path]);
    const thawed = new Promise((resolve) => thawing.on("exit", resolve));
    const frozen = child.run(async ({ state }) => {
      const { heap } = state;
      const bytes = heap.bytes(heap.root, 16 << 20);
      const begun = performance.now();
      let turns = 0;
      const ticking = setInterval(() => turns++, 1);
      const ended: string[] = [];
      type Told = { epoch: number };
      state.commits = [1, 2, 3].map((step) => {
        // Much of it, so that the first of them is a new base; then a little.
        bytes.fill(step, 0, step === 1 ? 16 << 20 : 4096);
        return heap.flushAsync().then(({ epoch }: Told) => void ended.push(`map ${epoch}`));
      });
      bytes.fill(4, 8192);
      const blocks = heap.mallocMany(100, 1000);
      heap.freeMany(blocks);
      for (let waits = 0; waits < 30; waits++) {
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      clearInterval(ticking);
      const { commitsUnderWay } = heap.stats();
      return { turns, ended, commitsUnderWay, ms: performance.now() - begun };
    });
    const { turns, ended, commitsUnderWay, ms } = await frozen;
    assert.equal(thawing.exitCode, null, `${ms} ms: it was held until the medium answered`);
    execFileSync("fsfreeze", ["-u", disk.path]);
    thawing.kill();
    await thawed;
    assert.deepEqual(ended, []);
    assert.equal(commitsUnderWay, 3);
    assert.ok(turns > 10, `${turns} turns of the event loop`);
    const epochs = await child.run(async ({ state }) => {
      await Promise.all(state.commits);
      const { heap } = state;
      const found = [];
      for (const epoch of [2, 3, 4]) {
        heap.restore({ from: "map", epoch, verify: true });
        const bytes = heap.bytes(heap.root, 16 << 20);
        found.push(bytes[0], bytes[4096], bytes[(16 << 20) - 1]);
      }
      return found;
    });
    assert.deepEqual(epochs, [1, 1, 1, 2, 1, 1, 3, 1, 1]);
  });
}

test("what cannot be committed rejects the promise and throws nothing", { timeout }, async () => {
  using folder = new Folder();
  const file = folder.file("a.perm");
  const backup = folder.file("a.back");
  {
    using heap = Heap.open({ file, backup, size: 1 << 20 });
    put(heap, 1);
    heap.backup();
  }
  {
    using heap = Heap.open({ file: null, size: 1 << 20 });
    await expectRejects(heap.flushAsync(), "NOT_OPEN");
    await expectRejects(heap.backupAsync(), "NOT_OPEN");
    heap.bopen(backup, "r+");
    // Found in the background.
    await expectRejects(heap.backupAsync(), "EXISTS", { path: backup });
    heap.restore();
    put(heap, 2);
    assert.equal((await heap.backupAsync()).epoch, 2);
    heap.bclose();
    heap.bopen(backup, "r");
    await expectRejects(heap.backupAsync(), "READ_ONLY");
    const closed = heap.backupAsync;
    heap.close();
    await expectRejects(closed.call(heap), "CLOSED");
  }
  using heap = Heap.open({ file: backup, size: 1 << 20 });
  assert.equal(get(heap), 2);
});

test("a JavaScript block is committed as it was at the call", { timeout }, async () => {
  using folder = new Folder();
  const file = folder.file("a.perm");
  {
    using heap = Heap.open({ file, size: 1 << 20 });
    const mine = new Float64Array(1000);
    heap.perm("mine", mine);
    mine.fill(1);
    const commit = heap.flushAsync();
    mine.fill(2);
    await commit;
  }
  using heap = Heap.open({ file, size: 1 << 20 });
  const mine = new Float64Array(1000);
  heap.perm("mine", mine);
  assert.ok(mine.every((value) => value === 1));
});

test("the event loop runs while a large commit is written", { timeout }, async () => {
  using folder = new Folder();
  using heap = Heap.open({ file: folder.file("a.perm"), size: 64 << 20 });
  const bytes = heap.bytes(heap.calloc(1, 48 << 20), 48 << 20);
  for (let at = 0; at < bytes.length; at += 512) bytes[at] = at >> 9;
  let turns = 0;
  const ticking = setInterval(() => turns++, 1);
  const { pages, durationMs } = await heap.flushAsync();
  clearInterval(ticking);
  assert.ok(pages > 12_000);
  assert.ok(turns > 0, `no turn of the event loop in ${durationMs} ms`);
});

test(
  "a full disk rejects every commit under way, and what they held is committed once there is room",
  {
    skip: refusesMounts(),
    timeout,
  },
  async () => {
    using folder = new Folder();
    using disk = mountTmpfs(folder.file("disk"), 8 << 20);
    const file = `${disk.path}/a.perm`;
    {
      using heap = Heap.open({ file, size: 16 << 20 });
      put(heap, 1);
      heap.flush();
      const bytes = heap.bytes(heap.calloc(1, 6 << 20), 6 << 20);
      disk.fill();
      bytes.fill(1, 0, 2 << 20);
      const commits = [heap.flushAsync()];
      bytes.fill(2, 2 << 20, 3 << 20);
      put(heap, 2);
      commits.push(heap.flushAsync());
      put(heap, 3);
      commits.push(heap.flushAsync());
      for (const commit of commits) await expectRejects(commit, "NO_SPACE", { path: file });
      assert.equal(heap.epoch, 1);
      disk.empty();
      assert.ok((await heap.flushAsync()).pages >= (3 << 20) / 4096);
      bytes.fill(9);
    }
    using heap = Heap.open({ file, size: 1 << 20, verify: true });
    assert.equal(get(heap), 3);
    expectWell(heap);
  },
);

test(
  "PERM_TRACKER forces the tracker where the program leaves the choice open",
  { timeout },
  () => {
    using folder = new Folder();
    const file = folder.file("a.perm");
    const script = folder.file("tracker.ts");
    writeFileSync(
      script,
      `import { Heap } from ${JSON.stringify(new URL("../mod.ts", import.meta.url).href)};
    const open = (tracker) => {
      using heap = Heap.open({ file: ${JSON.stringify(file)}, size: 1 << 20, tracker });
      heap.flush();
      return heap.stats().tracker + heap.tracker + heap.dropped;
    };
    console.log(open(), open("auto"), open("checksum"));`,
    );
    for (const runtime of runtimes) {
      const tell = (PERM_TRACKER: string) =>
        run(command(runtime, script), { env: { PERM_TRACKER } });
      assert.match(tell("checksum").out, /^(checksumchecksum0 ?){3}\n$/);
      assert.match(tell("").out, /^((uffduffd0 ){2}|(checksumchecksum0 ){2})checksumchecksum0\n$/);
      // Left to itself it takes the better one wherever the system has it.
      const can = tell("uffd").code === 0;
      assert.equal(tell("").out.startsWith(can ? "uffd" : "checksum"), true);
      const refused = tell("softdirty");
      assert.notEqual(refused.code, 0);
      assert.match(refused.err, /Cannot take "softdirty" as `PERM_TRACKER`/);
    }
  },
);

for (const runtime of runtimes) {
  test(`a Worker that ends without closing its heap lets go of it (${runtime})`, {
    timeout,
  }, async () => {
    using folder = new Folder();
    const file = folder.file("a.perm");
    const found = await elsewhere(runtime, async ({ perm }, file) => {
      const { eventually, Thread } = await import("./support.ts");
      const open = ({ perm, state }: Tools, file: string) => {
        const heap = state.heap = perm.Heap.open({ file, size: 1 << 20 });
        const view = state.view = heap.global("numbers", Float64Array, 8);
        view[0] += 1;
        heap.flushAsync();
        return heap.handle;
      };
      const found: number[] = [];
      const again = () => {
        try {
          using heap = perm.Heap.open({ file, size: 1 << 20 });
          return found.push(heap.global("numbers", Float64Array, 8)[0]) > 0;
        } catch (error) {
          if (!(error instanceof perm.PermError)) throw error;
          if (!["ALREADY_OPEN", "ADDRESS_IN_USE"].includes(error.code)) throw error;
          return false;
        }
      };
      for (let round = 0; round < 3; round++) {
        const thread = new Thread();
        const handle = await thread.run(open, file);
        // In the last round another thread goes on with the heap.
        const attached = round === 2 ? perm.Heap.attach(handle) : undefined;
        thread[Symbol.dispose]();
        if (attached) {
          // Nothing tells when the thread is gone; later it does the same.
          await new Promise((resolve) => setTimeout(resolve, 50));
          attached.check();
          attached.global("numbers", Float64Array, 8)[0] = 100;
          attached.flush();
          attached.close();
        }
        await eventually("the end of the Worker's thread", again);
      }
      return found;
    }, file);
    assert.deepEqual(found, [1, 2, 100]);
  });

  test(`a commit that nobody awaits keeps the process alive until it is durable (${runtime})`, {
    timeout,
  }, async () => {
    using folder = new Folder();
    const file = folder.file("a.perm");
    await using child = new Child(runtime);
    await child.run(({ perm }, file) => {
      const heap = perm.Heap.open({ file, size: 64 << 20 });
      const p = heap.calloc(1, 32 << 20);
      heap.root = p;
      heap.bytes(p, 32 << 20).fill(1);
      heap.flushAsync().then(({ epoch }) => {
        heap.store(p, epoch + 41);
        return heap.flushAsync();
      });
    }, file);
    assert.equal(await child.end(), "exit 0");
    using heap = Heap.open({ file, size: 1 << 20 });
    assert.equal(heap.epoch, 2);
    assert.equal(get(heap), 42);
  });

  test(`an exit in the middle of a commit is as a kill (${runtime})`, { timeout }, async () => {
    using folder = new Folder();
    const file = folder.file("a.perm");
    await using child = new Child(runtime);
    await child.run(({ perm }, file) => {
      const heap = perm.Heap.open({ file, size: 64 << 20 });
      heap.root = heap.calloc(1, 32 << 20);
      heap.flush();
      for (let value = 2; value < 6; value++) {
        heap.bytes(heap.root, 32 << 20).fill(value);
        heap.flushAsync();
      }
      setTimeout(() => process.exit(3), 2);
    }, file);
    assert.equal(await child.ended, "exit 3");
    using heap = Heap.open({ file, size: 1 << 20, verify: true });
    const bytes = heap.bytes(heap.root, 32 << 20);
    const value = bytes[4096];
    assert.equal(value, heap.epoch === 1 ? 0 : heap.epoch);
    for (let at = 8; at < bytes.length; at += 4096) assert.equal(bytes[at], value);
    expectWell(heap);
  });

  test(`kills in the middle of asynchronous commits lose no acknowledged epoch (${runtime})`, {
    timeout,
  }, async () => {
    using folder = new Folder();
    const paths = [folder.file("a.perm"), folder.file("a.back")];
    const rounds = Number(process.env.PERM_TEST_KILLS ?? 12) >> 1;
    let acknowledged = 0;
    for (let round = 0; round < rounds; round++) {
      await using child = new Child(runtime);
      await child.run(({ perm, state }, [file, backup]) => {
        const heap = perm.Heap.open({ file, backup, size: 8 << 20, logLimit: 1 << 20 });
        const cells = heap.global("cells", Float64Array, 64 * 512);
        state.count = cells[0];
        // Every page holds the same number in every epoch.
        state.step = () => {
          state.count++;
          for (let page = 0; page < 64; page++) cells[page * 512] = state.count;
          const count = state.count;
          return heap[count % 2 ? "flushAsync" : "backupAsync"]().then(() => state.done = count);
        };
        state.first = state.step();
        state.go = async () => {
          for (;;) await Promise.all([state.step(), state.step(), state.step()]);
        };
        state.go();
      }, paths);
      // Half of the children die when something is acknowledged, however slow the machine is.
      if (round % 2 === 1) await child.run(({ state }) => state.first);
      const pause = 5 + (round * 37) % 60;
      await new Promise((resolve) => setTimeout(resolve, pause));
      const done = await child.run(({ state }) => state.done ?? 0);
      await child.kill();
      acknowledged += done > 0 ? 1 : 0;
      using heap = Heap.open({ file: paths[0], backup: paths[1], size: 8 << 20, verify: true });
      const cells = heap.global("cells", Float64Array, 64 * 512);
      assert.ok(cells[0] >= done, `${cells[0]} found, ${done} was acknowledged`);
      for (let page = 0; page < 64; page++) assert.equal(cells[page * 512], cells[0]);
      heap.check();
      if (cells[0] > 0) {
        heap.flush();
        heap.backup();
      }
    }
    assert.ok(
      acknowledged >= rounds >> 1,
      `${acknowledged} of ${rounds} had acknowledged anything`,
    );
  });

  test(`a Worker commits asynchronously, and may end or be ended in the middle (${runtime})`, {
    timeout,
  }, async () => {
    using folder = new Folder();
    const file = folder.file("a.perm");
    const epochs = await elsewhere(runtime, async ({ perm }, file) => {
      const { eventually, Thread, tryClose } = await import("./support.ts");
      const heap = perm.Heap.open({ file, size: 16 << 20, keep: 50 });
      const numbers = heap.global("numbers", Float64Array, 1 << 20);
      const commit = async ({ perm }: Tools, handle: string, wait: boolean) => {
        const heap = perm.Heap.attach(handle);
        heap.global("numbers", Float64Array, 1 << 20).fill(heap.epoch + 1);
        const commit = heap.flushAsync();
        return wait ? (await commit).epoch : 0;
      };
      const epochs: number[] = [];
      for (const wait of [true, false, true, false]) {
        using thread = new Thread();
        epochs.push(await thread.run(commit, heap.handle, wait));
        thread[Symbol.dispose]();
        numbers[0] += 1;
        epochs.push((await heap.flushAsync()).epoch);
      }
      await eventually("the end of all Workers", () => tryClose(heap));
      return epochs;
    }, file);
    assert.deepEqual(epochs, [1, 2, 0, 4, 5, 6, 0, 8]);
    using heap = Heap.open({ file, size: 1 << 20 });
    assert.equal(heap.epoch, 8);
    expectWell(heap);
  });
}

test(
  "asynchronous commits without the tracker and with it hold the same",
  { timeout },
  async () => {
    using folder = new Folder();
    const contents = [];
    for (const tracker of ["auto", "checksum"] as const) {
      using heap = Heap.open({ file: folder.file(tracker), size: 8 << 20, tracker });
      const cells = heap.global("cells", Float64Array, 1 << 18);
      const commits = [];
      for (let round = 1; round <= 8; round++) {
        for (let at = round; at < cells.length; at += 5000 + round) cells[at] = round;
        commits.push(heap.flushAsync());
        if (round === 4) await commits[3];
      }
      const reports = await Promise.all(commits);
      contents.push(reports.map(({ epoch }) => epoch).join());
      heap.restore();
      contents.push(String(cells.reduce((sum, value, at) => sum + value * at, 0)));
    }
    assert.deepEqual(contents.slice(0, 2), contents.slice(2));
    expectCode(
      () => Heap.open({ file: folder.file("auto"), size: 1, tracker: "none" as "auto" }),
      "INVALID_ARGUMENT",
    );
  },
);
