/**
 * The engine on the file systems that it has something to ask of: tmpfs, and ext4, XFS and Btrfs in
 * files. Each takes commits of every kind, is full, and sees processes killed.
 *
 *     PERM_CRASH_KILLS=400 deno task test ./tests/file_systems_test.ts     kills on each; else 8
 *
 * What the machine cannot mount is skipped with the reason.
 *
 * @module
 */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { Heap } from "../mod.ts";
import {
  loopKinds,
  type Mount,
  mountLoop,
  mountTmpfs,
  refusesLoop,
  refusesMounts,
} from "./mounts.ts";
import { repository, run, thisRuntime } from "./runtimes.ts";
import {
  elsewhere,
  eventually,
  expectCode,
  expectWell,
  Folder,
  otherRuntime,
  pattern,
} from "./support.ts";

const mebibyte = 1 << 20;
const kills = process.env.PERM_CRASH_KILLS ?? "8";
const timeout = 120_000 + Number(kills) * 5_000;

const fileSystems = [
  {
    name: "tmpfs",
    skip: refusesMounts(),
    mount: (path: string) => mountTmpfs(path, 160 * mebibyte),
  },
  ...loopKinds.map((kind) => ({
    name: kind,
    skip: refusesLoop(kind),
    mount: (path: string) => mountLoop(path, kind),
  })),
];

/** A file system for one test; its loop device must be gone with it. */
class Place implements Disposable {
  readonly folder: Folder = new Folder();
  readonly mount: Mount;

  constructor(mount: (path: string) => Mount) {
    try {
      this.mount = mount(this.folder.file("place"));
    } catch (error) {
      this.folder[Symbol.dispose]();
      throw error;
    }
  }

  file(name: string): string {
    return join(this.mount.path, name);
  }

  [Symbol.dispose](): void {
    this.mount[Symbol.dispose]();
    this.folder[Symbol.dispose]();
  }
}

/** What another process finds, every page of it read and checked. */
function committed(file: string, length: number): Promise<{ epoch: number; bytes: number[] }> {
  return elsewhere(
    otherRuntime,
    ({ perm }, file: string, length: number) => {
      const heap = perm.mopen(file, "r", undefined, { verify: true });
      try {
        heap.check();
        const bytes = heap.bytes(heap.root, length);
        return { epoch: heap.epoch, bytes: [bytes[0], bytes[length >> 1], bytes[length - 1]] };
      } finally {
        heap.close();
      }
    },
    file,
    length,
  );
}

for (const { name, skip, mount } of fileSystems) {
  test(`${name}: bases are written over the ones before, records, folds and epochs are found`, {
    skip,
    timeout,
  }, async () => {
    using place = new Place(mount);
    const file = place.file("app");
    const size = 20 * mebibyte;
    {
      using heap = Heap.open({ file, size: 32 * mebibyte, keep: 1, logLimit: mebibyte });
      heap.root = heap.malloc(size);
      const bytes = heap.bytes(heap.root, size);
      for (let round = 1; round <= 4; round++) {
        bytes.fill(round);
        heap.flush();
        // The base before the last waits for the next one.
        assert.equal(existsSync(`${file}-new`), round > 1, `round ${round}`);
      }
      assert.deepEqual(await committed(file, size), { epoch: heap.epoch, bytes: [4, 4, 4] });
      for (let mark = 5; mark < 20; mark++) {
        bytes.fill(mark, 0, 64 * 4096);
        heap.flush();
      }
      await eventually("a fold of the long log", () => {
        bytes[1]++;
        heap.flush();
        return heap.stats().folds > 0;
      });
      assert.deepEqual(await committed(file, size), { epoch: heap.epoch, bytes: [19, 4, 4] });
    }
    assert.equal(readdirSync(place.mount.path).filter((each) => each.startsWith("app")).length, 2);
  });

  test(`${name}: full, it says NO_SPACE, keeps the last epoch, and goes on when there is room`, {
    skip,
    timeout,
  }, async () => {
    using place = new Place(mount);
    const file = place.file("app");
    const size = 6 * mebibyte;
    using heap = Heap.open({ file, size: 16 * mebibyte });
    heap.root = heap.malloc(size);
    const bytes = heap.bytes(heap.root, size);
    bytes.set(pattern(size, 3));
    bytes[0] = 1;
    heap.flush();
    const before = await committed(file, size);
    place.mount.exhaust();
    // A record, and then so much that it is a base: whichever finds no room first.
    for (const share of [256, size / 4096]) {
      for (let page = 0; page < share; page++) bytes[page * 4096] = 2;
      let failure: unknown;
      for (let round = 0; failure === undefined && round < 40; round++) {
        bytes.fill(round, 1, share * 4096);
        try {
          heap.flush();
          before.epoch = heap.epoch;
        } catch (error) {
          failure = error;
        }
      }
      expectCode(() => {
        throw failure ?? new Error(`${place.mount.free} bytes are free and nothing fails`);
      }, "NO_SPACE");
      expectWell(heap);
      assert.equal((await committed(file, size)).epoch, before.epoch, "the last epoch stands");
    }
    place.mount.empty();
    bytes.fill(9);
    heap.flush();
    assert.deepEqual(await committed(file, size), { epoch: heap.epoch, bytes: [9, 9, 9] });
  });

  test(`${name}: processes that are killed lose nothing that was acknowledged`, {
    skip,
    timeout,
  }, () => {
    using place = new Place(mount);
    const file = `${repository}tests/crash_test.ts`;
    const commands = {
      deno: [process.execPath, "test", "-A", "--no-check", file],
      bun: [process.execPath, "test", "--timeout", String(timeout), file],
    };
    const ended = run(commands[thisRuntime], {
      env: { PERM_CRASH_PLACE: place.mount.path, PERM_CRASH_KILLS: kills },
    });
    const told = ended.out + ended.err;
    assert.equal(ended.code, 0, told);
    const counts = [...told.matchAll(/^kills (\d+)/gm)].map(([, count]) => Number(count));
    assert.equal(counts.length, 4, told);
    assert.ok(counts.reduce((sum, count) => sum + count) >= Number(kills));
  });

  test(`${name}: what was mounted is gone`, { skip }, () => {
    const path = (() => {
      using place = new Place(mount);
      return place.mount.path;
    })();
    assert.ok(!readFileSync("/proc/self/mounts", "utf8").includes(path));
  });
}
