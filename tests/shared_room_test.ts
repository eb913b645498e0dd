/**
 * Shared heaps and room: growth, memory that is freed, media that are full, limits, and a heap larger than
 * memory. No room is an error and never a signal.
 *
 * @module
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { Heap, mopen } from "../mod.ts";
import { type Mount, mountLoop, mountTmpfs, refusesLoop, refusesMounts } from "./mounts.ts";
import { after, Child, expectCode, expectWell, Folder, get, otherRuntime, put } from "./support.ts";

const mib = 1 << 20;
const timeout = 60_000;
const size = mib;
const shared = true;
const noMounts = refusesMounts();

test("a shared heap grows, by itself and on request, and keeps what it took", { timeout }, () => {
  using folder = new Folder();
  const file = folder.file("a");
  const pointers: number[] = [];
  {
    using heap = Heap.open({ file, size: 64 << 10, maxSize: 64 * mib, shared });
    for (let index = 0; index < 40; index++) {
      const pointer = heap.malloc(300_000);
      heap.bytes(pointer, 300_000).fill(index + 1);
      pointers.push(pointer);
    }
    assert.ok(heap.capacity >= 40 * 300_000);
    heap.grow(32 * mib);
    assert.equal(heap.capacity, 32 * mib);
    expectCode(() => heap.grow(65 * mib), "OUT_OF_MEMORY");
    expectCode(() => heap.malloc(65 * mib), "OUT_OF_MEMORY", { message: /maxSize/ });
    heap.flush();
  }
  assert.ok(statSync(file).blocks * 512 >= 32 * mib);
  {
    // Growing while it opens is no change that close() would have to mark.
    using heap = Heap.open({ file, size: 48 * mib, shared });
    assert.equal(heap.capacity, 48 * mib);
  }
  using heap = Heap.open({ file, size, shared });
  assert.equal(heap.capacity, 48 * mib);
  for (const [index, pointer] of pointers.entries()) {
    assert.ok(heap.bytes(pointer, 300_000).every((byte) => byte === index + 1));
    heap.free(pointer);
  }
  // Free memory stays in the file, and calloc clears it all the same.
  const pointer = heap.calloc(1, 20 * mib);
  assert.ok(heap.bytes(pointer, 20 * mib).every((byte) => byte === 0));
  expectWell(heap);
  heap.flush();
});

test("memory that another session freed is cleared before it is zeroed memory again", {
  timeout,
}, () => {
  using folder = new Folder();
  const file = folder.file("a");
  {
    using heap = Heap.open({ file, size: 8 * mib, shared });
    const pointer = heap.malloc(4 * mib);
    heap.bytes(pointer, 4 * mib).fill(0xee);
    heap.free(pointer);
    heap.root = heap.scratch(200_000);
    heap.bytes(heap.root, 200_000).fill(0xdd);
    heap.flush();
  }
  for (const mode of ["r", "r+"] as const) {
    using heap = mopen(file, mode, undefined, { shared });
    assert.ok(heap.bytes(heap.root, 200_000).every((byte) => byte === 0));
    if (mode === "r") continue;
    const pointer = heap.calloc(4 * mib, 1);
    assert.ok(heap.bytes(pointer, 4 * mib).every((byte) => byte === 0));
    heap.flush();
  }
});

test("memory that is freed in quantity stays, and is cleared when it is zeroed memory again", {
  timeout,
}, () => {
  using folder = new Folder();
  using heap = Heap.open({ file: folder.file("a"), size: 100 * mib, maxSize: 100 * mib, shared });
  const pointer = heap.malloc(90 * mib);
  heap.bytes(pointer, 90 * mib).fill(0xee);
  heap.free(pointer);
  const again = heap.calloc(90, mib);
  assert.ok(heap.bytes(again, 90 * mib).every((byte) => byte === 0));
  heap.check();
});

/** What happens to a shared heap on a medium that is full. */
function fillUp(mount: Mount, file: string): void {
  {
    using heap = Heap.open({ file, size: 2 * mib, maxSize: 256 * mib, shared });
    put(heap, 1);
    heap.flush();
    mount.fill(64 << 10);
    expectCode(() => heap.grow(64 * mib), "NO_SPACE", { path: file, message: /free some/ });
    expectCode(() => heap.malloc(32 * mib), "NO_SPACE");
    expectCode(() => heap.calloc(1, 32 * mib), "NO_SPACE");
    const pointers: number[] = [];
    const error = expectCode(() => {
      while (true) {
        const pointer = heap.malloc(50_000);
        // The whole of it can be stored to: its room is there.
        heap.bytes(pointer, 50_000).fill(pointers.length + 1);
        pointers.push(pointer);
      }
    }, "NO_SPACE");
    assert.match(error.message, /room/);
    assert.ok(pointers.length > 20, `${pointers.length} blocks`);
    mount.fill();
    for (const [index, pointer] of pointers.entries()) {
      const bytes = heap.bytes(pointer, 50_000);
      assert.ok(bytes.every((byte) => byte === index + 1));
      bytes.fill(0x55);
    }
    heap.flush();
    heap.check();
    expectCode(() => mopen(join(mount.path, "b"), "w+", 8 * mib, { shared }), "NO_SPACE");
    put(heap, 2);
    heap.flush();
    mount.empty();
    heap.grow(8 * mib);
    expectWell(heap);
    heap.flush();
  }
  mount.fill();
  for (
    const open of [
      Heap.open,
      (options: { size: number }) => mopen(file, "r+", options.size, { shared }),
    ]
  ) {
    expectCode(() => open({ file, size: 64 * mib, shared }), "NO_SPACE");
  }
  {
    using heap = Heap.open({ file, size, shared });
    assert.equal(get(heap), 2);
    heap.bytes(heap.malloc(3 * mib), 3 * mib).fill(1);
    heap.flush();
  }
  using heap = mopen(file, "r", undefined, { shared });
  heap.check();
  heap.close();
  mount.empty();
  // A copy with holes where there were zeros is given its room before it is mapped.
  const copy = `${file}.copy`;
  assert.equal(spawnSync("cp", ["--sparse=always", file, copy]).status, 0);
  assert.ok(statSync(copy).blocks < statSync(file).blocks);
  mount.fill();
  expectCode(() => mopen(copy, "r+", undefined, { shared }), "NO_SPACE");
  mount.empty();
  using copied = mopen(copy, "r+", undefined, { shared });
  assert.equal(get(copied), 2, "what stands in it stays");
  copied.check();
}

test("a full tmpfs is NO_SPACE, and what has room can be stored to", {
  timeout,
  skip: noMounts,
}, () => {
  using folder = new Folder();
  using mount = mountTmpfs(folder.file("disk"), 32 * mib);
  fillUp(mount, join(mount.path, "a"));
});

// On ext2 and ext3 no room can be asked for: it is written.
for (const [kind, bytes] of [["ext2", 48], ["ext4", 48], ["xfs", 320]] as const) {
  test(`a full disk with ${kind} is NO_SPACE, and what has room can be stored to`, {
    timeout,
    skip: refusesLoop(kind),
  }, () => {
    using folder = new Folder();
    using mount = mountLoop(folder.file("disk"), kind, bytes * mib);
    fillUp(mount, join(mount.path, "a"));
  });
}

test("a copy that shares its blocks with the file takes none of its room", {
  timeout,
  skip: refusesLoop("xfs"),
}, async () => {
  using folder = new Folder();
  using mount = mountLoop(folder.file("disk"), "xfs");
  const file = join(mount.path, "a");
  const length = 6 * mib;
  {
    using heap = Heap.open({ file, size: 8 * mib, maxSize: 8 * mib, shared });
    heap.root = heap.malloc(length);
    heap.bytes(heap.root, length).fill(1);
    heap.flush();
  }
  assert.equal(spawnSync("cp", ["--reflink=always", file, `${file}.copy`]).status, 0);
  await using child = new Child(otherRuntime);
  await child.run(({ perm, state }, file) => {
    state.heap = perm.Heap.open({ file, size: 8 << 20, shared: true });
  }, file);
  mount.exhaust();
  const outcome = await child.run(({ state }, length) => {
    const { heap } = state;
    heap.bytes(heap.root, length).fill(2);
    return heap.flush().epoch;
  }, length).catch((error) => String(error));
  assert.equal(outcome, 2);
  assert.equal(await child.end(), "exit 0");
  mount.empty();
  using copy = mopen(`${file}.copy`, "r", undefined, { shared, recover: true });
  assert.ok(copy.bytes(copy.root, length).every((byte) => byte === 1));
});

test("a file system that copies on writing is UNSUPPORTED, for it could be full at any store", {
  timeout,
  skip: refusesLoop("btrfs"),
}, () => {
  using folder = new Folder();
  using mount = mountLoop(folder.file("disk"), "btrfs");
  const file = join(mount.path, "a");
  expectCode(() => Heap.open({ file, size, shared }), "UNSUPPORTED", { message: /ext4/ });
  assert.equal(existsSync(`${file}-new`), false);
});

test("a file-size limit of the process is NO_SPACE and no signal", { timeout }, async () => {
  using folder = new Folder();
  await using child = new Child(otherRuntime, after("ulimit -f 40000"));
  const codes = await child.run(({ perm }, file) => {
    const codes = [];
    using heap = perm.mopen(file, "w+", 1 << 20, { shared: true, maxSize: 64 << 20 });
    for (const action of [() => heap.grow(60 << 20), () => heap.malloc(50 << 20)]) {
      try {
        action();
        codes.push("done");
      } catch (error) {
        codes.push((error as { code: string }).code);
      }
    }
    heap.malloc(2 << 20);
    heap.flush();
    heap.check();
    return codes;
  }, folder.file("a"));
  assert.deepEqual(codes, ["NO_SPACE", "NO_SPACE"]);
});

/** A memory cgroup of that size, or why there is none. */
function makeGroup(bytes: number): { path: string; remove: () => void } | string {
  const path = `/sys/fs/cgroup/memory/perm-test-${process.pid}-${bytes}`;
  const made = spawnSync("sh", [
    "-c",
    `mkdir ${path} && echo ${bytes} > ${path}/memory.limit_in_bytes`,
  ], { stdio: "pipe" });
  const remove = () => void spawnSync("rmdir", [path]);
  if (made.status === 0) return { path, remove };
  remove();
  return "memory cgroups (version 1) cannot be made here";
}

const noGroup = (() => {
  const group = makeGroup(64 * mib);
  if (typeof group === "string") return group;
  group.remove();
  return false;
})();

test("a shared heap may be larger than memory, and so may what is restored", {
  timeout,
  skip: noGroup,
}, async () => {
  using folder = new Folder();
  const group = makeGroup(128 * mib) as { path: string; remove: () => void };
  try {
    for (const isShared of [true, false]) {
      await using child = new Child(
        otherRuntime,
        after(`echo $$ > ${group.path}/cgroup.procs && echo 0 > ${group.path}/memory.swappiness`),
      );
      const outcome = await child.run(
        ({ perm }, file, isShared) => {
          using heap = perm.mopen(file, "w+", 170 << 20, { shared: isShared, maxSize: 170 << 20 });
          const pointer = heap.malloc(160 << 20);
          const bytes = heap.bytes(pointer, 160 << 20);
          const fill = (by: number) => {
            for (let at = 0; at < bytes.length; at += 4096) bytes[at] = by + at % 251;
          };
          const wrong = (by: number) => {
            let count = 0;
            for (let at = 0; at < bytes.length; at += 4096) {
              if (bytes[at] !== by + at % 251) count++;
            }
            return count;
          };
          fill(1);
          const first = wrong(1);
          heap.flush();
          heap.bopen(file + ".back", "w+");
          heap.backup();
          fill(2);
          const { pages } = heap.backup();
          fill(3);
          heap.restore();
          return [first, wrong(2), pages > 40_000];
        },
        folder.file("a"),
        isShared,
      ).catch(() => "ended");
      assert.deepEqual(outcome, isShared ? [0, 0, true] : "ended");
      if (isShared) assert.equal(await child.end(), "exit 0");
    }
  } finally {
    group.remove();
  }
});
