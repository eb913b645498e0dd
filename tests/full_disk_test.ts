/**
 * A file system without room, in every part of a commit: NO_SPACE, the heap goes on, the last epoch
 * stands, and the same commit succeeds once there is room.
 *
 * @module
 */
import assert from "node:assert/strict";
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Heap, mopen, PermError } from "../mod.ts";
import { type Mount, mountTmpfs, refusesMounts } from "./mounts.ts";
import {
  Child,
  eventually,
  expectCode,
  expectRejects,
  expectWell,
  Folder,
  otherRuntime,
  pattern,
  randomNumbers,
} from "./support.ts";

const skip = refusesMounts();
const timeout = 60_000;
const mebibyte = 1 << 20;

/** A small file system for a heap's map file, and a process that reads what was committed. */
class Disk implements AsyncDisposable {
  readonly folder: Folder = new Folder();
  readonly mount: Mount;
  readonly file: string;
  readonly backup: string;
  readonly #reader = new Child(otherRuntime);

  constructor(bytes: number) {
    this.mount = mountTmpfs(this.folder.file("disk"), bytes);
    this.file = join(this.mount.path, "app");
    this.backup = this.folder.file("app.back");
  }

  open(options: { keep?: number; logLimit?: number } = {}): Heap {
    return Heap.open({ file: this.file, size: 16 * mebibyte, ...options });
  }

  /** Names on it, those of the engine's temporary files included. */
  names(): string[] {
    return readdirSync(this.mount.path).filter((name) => name !== "filler").sort();
  }

  /** What another process finds: the epoch, and the first byte of the block at the root. */
  committed(file: string = this.file): Promise<{ epoch: number; mark: number }> {
    return this.#reader.run(({ perm }, file: string) => {
      const heap = perm.mopen(file, "r", undefined, { verify: true });
      try {
        heap.check();
        return { epoch: heap.epoch, mark: heap.bytes(heap.root, 1)[0] };
      } finally {
        heap.close();
      }
    }, file);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#reader.kill();
    this.mount[Symbol.dispose]();
    this.folder[Symbol.dispose]();
  }
}

test("the first base on a full disk is NO_SPACE, and succeeds when there is room", {
  timeout,
  skip,
}, async () => {
  await using disk = new Disk(4 * mebibyte);
  using heap = disk.open();
  heap.root = heap.malloc(2 * mebibyte);
  heap.bytes(heap.root, 2 * mebibyte).fill(7);
  for (const left of [0, 4096, 65536, mebibyte]) {
    disk.mount.fill(left);
    expectCode(() => heap.flush(), "NO_SPACE", { path: disk.file });
    assert.equal(heap.epoch, 0);
    assert.ok(!existsSync(disk.file), "nothing took the path");
    expectWell(heap);
    disk.mount.empty();
  }
  assert.ok(heap.flush().epoch > 0);
  assert.deepEqual(await disk.committed(), { epoch: heap.epoch, mark: 7 });
  heap.close();
  assert.equal(disk.names().length, 2, disk.names().join());
});

test("a record on a full disk is NO_SPACE, whatever part of it finds no room", {
  timeout,
  skip,
}, async () => {
  await using disk = new Disk(8 * mebibyte);
  using heap = disk.open();
  const pages = 64;
  heap.root = heap.malloc(256 * 4096);
  const all = heap.bytes(heap.root, 256 * 4096);
  all.set(pattern(all.length, 3));
  all[0] = 1;
  heap.flush();
  const below = randomNumbers(5);
  for (let round = 1; round <= 24; round++) {
    const before = await disk.committed();
    for (let page = 0; page < pages; page++) all[page * 4096 + 1] ^= 1 + below(255);
    all[0] = round + 1;
    // Record header, pages, tables and footer: short of room in each in turn.
    disk.mount.fill(round <= 20 ? 4096 * round * 3 : 4096 * (pages + 24 - round));
    const room = disk.mount.free;
    let failed = false;
    try {
      heap.flush();
    } catch (error) {
      if (!(error instanceof PermError)) throw error;
      assert.equal(error.code, "NO_SPACE", error.message);
      failed = true;
    }
    assert.ok(failed || room >= pages * 4096, `a record of ${pages} pages into ${room} bytes`);
    expectWell(heap);
    if (failed) {
      assert.deepEqual(await disk.committed(), before, "the last epoch stands");
      // Again without room, and the same once more.
      if (room < pages * 4096) expectCode(() => heap.flush(), "NO_SPACE");
      disk.mount.empty();
      heap.flush();
    } else disk.mount.empty();
    assert.deepEqual(await disk.committed(), { epoch: heap.epoch, mark: round + 1 });
    assert.ok(heap.epoch > before.epoch);
    // A log that only grows would fill the disk.
    if (disk.mount.free < 2 * mebibyte) break;
  }
});

test("killed on a full disk, the heap reopens at its last epoch while the disk is still full", {
  timeout,
  skip,
}, async () => {
  await using disk = new Disk(4 * mebibyte);
  {
    await using child = new Child();
    await child.run(({ perm, state }, file) => {
      const heap = state.heap = perm.Heap.open({ file, size: 16 << 20 });
      heap.root = heap.malloc(1 << 20);
      heap.bytes(heap.root, 1 << 20).fill(4);
      heap.flush();
      heap.bytes(heap.root, 1 << 20).fill(5);
    }, disk.file);
    disk.mount.fill();
    await expectRejects(child.run(({ state }) => state.heap.flush()), "NO_SPACE");
    await child.kill();
    disk.mount.fill();
  }
  assert.equal(disk.mount.free, 0);
  using heap = disk.open();
  assert.equal(heap.resumed, "file");
  const bytes = heap.bytes(heap.root, mebibyte);
  assert.ok(bytes.every((byte) => byte === 4));
  expectWell(heap);
  // Every page can be written, though the disk has no room for one.
  bytes.fill(6);
  expectCode(() => heap.flush(), "NO_SPACE");
  disk.mount.empty();
  heap.flush();
  assert.deepEqual(await disk.committed(), { epoch: heap.epoch, mark: 6 });
});

test("a new base over an old one on a full disk is NO_SPACE, and the old one stands", {
  timeout,
  skip,
}, async () => {
  await using disk = new Disk(24 * mebibyte);
  using heap = disk.open();
  const size = 8 * mebibyte;
  heap.root = heap.malloc(size);
  const bytes = heap.bytes(heap.root, size);
  bytes.fill(1);
  heap.flush();
  const before = await disk.committed();
  for (const left of [0, 65536, 4 * mebibyte]) {
    bytes.fill(left % 251 + 2);
    disk.mount.fill(left);
    // All of it changed: a new base.
    expectCode(() => heap.flush(), "NO_SPACE", { path: disk.file });
    expectWell(heap);
    assert.deepEqual(await disk.committed(), before);
    disk.mount.empty();
  }
  bytes.fill(200);
  heap.flush();
  assert.deepEqual(await disk.committed(), { epoch: heap.epoch, mark: 200 });
  heap.close();
  assert.equal(disk.names().length, 2, disk.names().join());
});

test("a fold that finds no room leaves the log as it is, and is made up for later", {
  timeout,
  skip,
}, async () => {
  await using disk = new Disk(24 * mebibyte);
  using heap = disk.open({ logLimit: mebibyte });
  const size = 6 * mebibyte;
  heap.root = heap.malloc(size);
  const bytes = heap.bytes(heap.root, size);
  bytes.set(pattern(size, 8));
  heap.flush();
  disk.mount.fill(4 * mebibyte);
  // Two mebibytes of records: a fold is due and cannot be.
  let mark = 0;
  for (; mark < 16; mark++) {
    bytes.fill(mark, 0, 32 * 4096);
    try {
      heap.flush();
    } catch (error) {
      if (!(error instanceof PermError)) throw error;
      // The fold that runs meanwhile takes room too, until it gives up.
      assert.equal(error.code, "NO_SPACE", error.message);
      mark--;
      await new Promise((resolve) => setTimeout(resolve, 5));
      if (disk.mount.free < 40 * 4096) break;
    }
  }
  expectWell(heap);
  assert.equal(heap.stats().folds, 0);
  assert.equal((await disk.committed()).epoch, heap.epoch);
  disk.mount.empty();
  bytes.fill(201, 0, 4096);
  heap.flush();
  await eventually("the fold, now that there is room", () => {
    bytes[4096] ^= 1;
    heap.flush();
    return heap.stats().folds > 0;
  });
  assert.deepEqual(await disk.committed(), { epoch: heap.epoch, mark: 201 });
  heap.close();
  assert.equal(disk.names().length, 2, disk.names().join());
});

test("a full disk under one image does not hinder the other", { timeout, skip }, async () => {
  await using disk = new Disk(4 * mebibyte);
  using heap = Heap.open({ file: disk.file, backup: disk.backup, size: 16 * mebibyte });
  heap.root = heap.malloc(mebibyte);
  const bytes = heap.bytes(heap.root, mebibyte);
  bytes.fill(1);
  heap.flush();
  heap.backup();
  disk.mount.fill();
  for (let mark = 2; mark < 5; mark++) {
    bytes.fill(mark);
    expectCode(() => heap.flush(), "NO_SPACE");
    heap.backup();
    assert.deepEqual(await disk.committed(disk.backup), { epoch: heap.epoch, mark });
    assert.equal((await disk.committed()).mark, 1);
  }
  heap.close();
  // The newest is in the backup; the map file is brought up to it when there is room.
  using again = Heap.open({ file: disk.file, backup: disk.backup, size: 16 * mebibyte });
  assert.equal(again.resumed, "backup");
  expectCode(() => again.flush(), "NO_SPACE");
  disk.mount.empty();
  again.flush();
  assert.deepEqual(await disk.committed(), { epoch: again.epoch, mark: 4 });
});

test("an image with holes opens from a full disk, and all of it can be read and written", {
  timeout,
  skip,
}, async () => {
  await using disk = new Disk(8 * mebibyte);
  const size = 32 * mebibyte;
  {
    using heap = Heap.open({ file: disk.file, size: 2 * size });
    heap.root = heap.calloc(1, size);
    const bytes = heap.bytes(heap.root, size);
    // A page here and there; all others are holes, of the base and of the records.
    for (let page = 0; page < size / 4096; page += 37) bytes[page * 4096] = 1;
    heap.flush();
    for (let page = 5; page < size / 4096; page += 111) bytes[page * 4096] = 2;
    for (let page = 0; page < size / 4096; page += 74) bytes[page * 4096] = 0;
    heap.flush();
  }
  assert.ok(statSync(disk.file).size < size / 4, "holes are not stored");
  disk.mount.fill();
  assert.equal(disk.mount.free, 0);
  const expected = Math.ceil(8192 / 37) - Math.ceil(8192 / 74) + 2 * Math.ceil(8187 / 111);
  for (const mode of ["r", "r+"] as const) {
    using heap = mopen(disk.file, mode, undefined, { verify: true });
    const bytes = heap.bytes(heap.root, size);
    let sum = 0;
    for (let at = 0; at < size; at += 512) sum += bytes[at];
    assert.equal(sum, expected - overlaps(), mode);
    for (let at = 0; at < size; at += 4096) bytes[at + 8] = 9;
    heap.check();
    if (mode === "r+") {
      expectWell(heap);
      expectCode(() => heap.flush(), "NO_SPACE");
    }
  }
  assert.equal((await disk.committed()).epoch, 2);
});

/** How the pages of the two passes meet: a 1 that became a 2, or a 2 that became a 0. */
function overlaps(): number {
  let sum = 0;
  for (let page = 5; page < 8192; page += 111) {
    if (page % 74 === 0) sum += 2;
    else if (page % 37 === 0) sum += 1;
  }
  return sum;
}
