/**
 * Copies of images: whole whatever the writer of the original does meanwhile, or not there.
 *
 *     PERM_COPIES=500    how many copies are made beside a writer, and how many copiers are killed
 *
 * @module
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import process from "node:process";
import { test } from "node:test";
import { Heap, Image, mclose, mopen } from "../mod.ts";
import { advance, expectWhole, type Habits, Writer } from "./ledger.ts";
import { mountLoop, mountTmpfs, refusesLoop, refusesMounts } from "./mounts.ts";
import {
  Child,
  elsewhere,
  expectCode,
  Folder,
  get,
  makeFile,
  otherRuntime,
  put,
  randomNumbers,
} from "./support.ts";

const count = Number(process.env.PERM_COPIES ?? 0);
const timeout = count > 0 ? 3_600_000 : 90_000;

function makeLedger(file: string, habits: Habits, epochs: number): void {
  const below = randomNumbers(3);
  const { keep, logLimit } = habits;
  using heap = Heap.open({ file, size: habits.cells * 8 + (1 << 20), keep, logLimit });
  for (let i = 0; i < epochs; i++) advance(heap, habits, below);
}

test("a copy holds all epochs of its original and opens elsewhere, for reading and for writing", {
  timeout,
}, async () => {
  using folder = new Folder();
  const file = folder.file("app");
  makeFile(file, 5, { keep: 5 });
  mkdirSync(folder.file("there"));
  const copy = folder.file("there/other name");
  const report = Image.copy(file, copy);
  assert.equal(report.epoch, 5);
  assert.equal(report.epochs, 5);
  assert.ok(report.pages > 0 && report.bytes > report.pages * 4096 && report.durationMs > 0);
  assert.equal(Image.verify(copy).epochs, 5);
  assert.notEqual(statSync(copy).ino, statSync(file).ino);
  assert.equal(statSync(copy).mode & 0o777, 0o600);

  const before = readFileSync(file);
  const seen = await elsewhere(otherRuntime, ({ perm }, copy: string) => {
    const reading = perm.mopen(copy, "r", undefined, { verify: true });
    const found = [reading.epoch, reading.load(reading.root)];
    perm.mclose();
    using heap = perm.Heap.open({ file: copy, size: 1 << 20, keep: 9 });
    for (const epoch of [1, 3, 5]) {
      heap.restore({ epoch, verify: true });
      found.push(heap.load(heap.root));
    }
    heap.store(heap.root, 77);
    found.push(heap.flush().epoch);
    return [found, heap.map!.uuid];
  }, copy);
  assert.deepEqual(seen[0], [5, 5, 1, 3, 5, 6]);
  assert.deepEqual(readFileSync(file), before, "the original is as it was");

  using heap = Heap.open({ file, size: 1 << 20 });
  assert.equal(get(heap), 5);
  assert.equal(heap.map!.uuid, seen[1], "a copy is the same image");
});

test("a copy takes nobody's place unless told, and never its original's", { timeout }, () => {
  using folder = new Folder();
  const [file, copy, plain] = ["app", "copy", "plain"].map((name) => folder.file(name));
  makeFile(file, 3, { keep: 3 });
  Image.copy(file, copy);
  expectCode(() => Image.copy(file, copy), "EXISTS", { path: copy });
  writeFileSync(plain, "");
  expectCode(() => Image.copy(file, plain), "EXISTS", { path: plain });
  expectCode(() => Image.copy(file, file), "EXISTS");
  expectCode(() => Image.copy(file, file, { replace: true }), "INVALID_ARGUMENT");
  expectCode(() => Image.copy(file, folder.file("nowhere/copy")), "NOT_FOUND");
  expectCode(() => Image.copy(folder.file("nothing"), folder.file("b")), "NOT_FOUND");
  expectCode(() => Image.copy(plain, folder.file("b")), "NOT_AN_IMAGE", { path: plain });
  expectCode(() => Image.copy(file, folder.file("b-new")), "INVALID_ARGUMENT");
  expectCode(() => Image.copy(file, ""), "INVALID_ARGUMENT");
  // deno-lint-ignore no-explicit-any
  expectCode(() => Image.copy(file, 5 as any), "INVALID_ARGUMENT");
  // deno-lint-ignore no-explicit-any
  expectCode(() => Image.copy(file, copy, { force: true } as any), "INVALID_ARGUMENT");
  expectCode(() => Image.verify(plain), "NOT_AN_IMAGE");
  expectCode(() => Image.verify(""), "INVALID_ARGUMENT");
  {
    using heap = Heap.open({ file: copy, size: 1 << 20 });
    expectCode(() => Image.copy(file, copy, { replace: true }), "ALREADY_OPEN", { path: copy });
    put(heap, 9);
    heap.flush();
    // Of a heap that this very process has open.
    Image.copy(copy, folder.file("third"));
  }
  assert.equal(Image.verify(folder.file("third")).epoch, 4);
  Image.copy(file, copy, { replace: true });
  assert.equal(mopen(copy, "r").epoch, 3);
  mclose();
  const logs = folder.names().filter((name) => name.startsWith("copy-log-"));
  assert.equal(logs.length, 1, folder.names().join());
});

test("holes of the original are holes of the copy", { timeout }, () => {
  using folder = new Folder();
  const [file, dense, copy] = ["app", "dense", "copy"].map((name) => folder.file(name));
  {
    using heap = Heap.open({ file: dense, size: 64 << 20 });
    heap.root = heap.calloc(1, 32 << 20);
    // A zero page between two others is stored, to save a mapping, while these are few.
    const bytes = heap.bytes(heap.root, 32 << 20);
    for (let page = 0; page < 8192; page++) bytes[page * 4096] = page % 60 === 59 ? 0 : 1;
    heap.flush();
  }
  const log = folder.names().find((name) => name.startsWith("dense-log-"))!;
  // A medium that keeps no zeros: the same image with holes in it.
  const sparse = readFileSync(dense);
  writeFileSync(file, "");
  execFileSync("cp", ["--sparse=always", dense, file]);
  execFileSync("cp", [folder.file(log), folder.file(log.replace("dense", "app"))]);
  execFileSync("truncate", ["-s", String(sparse.length), file]);
  execFileSync("fallocate", ["--dig-holes", file]);
  const allocated = statSync(file).blocks * 512;
  assert.ok(allocated < statSync(dense).size - (400 << 10), `${allocated}`);
  Image.copy(file, copy);
  assert.equal(Image.verify(copy).epoch, 1);
  assert.ok(
    statSync(copy).blocks * 512 <= allocated + (64 << 10),
    `${statSync(copy).blocks * 512}`,
  );
});

for (const kind of ["xfs", "btrfs"] as const) {
  test(`on ${kind} a copy shares its original's space`, {
    timeout,
    skip: refusesLoop(kind),
  }, () => {
    using folder = new Folder();
    using mount = mountLoop(folder.file("disk"), kind);
    const file = `${mount.path}/app`;
    const habits: Habits = { cells: 4 << 20, changes: 12, rewrites: 12, logLimit: 1 << 30 };
    makeLedger(file, habits, 3);
    execFileSync("sync", ["-f", mount.path]);
    const before = mount.free;
    const copy = `${mount.path}/copy`;
    assert.equal(Image.copy(file, copy).epoch, 3);
    execFileSync("sync", ["-f", mount.path]);
    assert.ok(before - mount.free < 8 << 20, `${before - mount.free} bytes were taken`);
    using heap = Heap.open({ file: copy, size: 1 << 20 });
    advance(heap, habits, randomNumbers(1));
    expectWhole(heap, habits, "the copy, one later");
    assert.equal(Image.verify(file).epoch, 3);
  });
}

for (const rewrites of [0, 12]) {
  const how = rewrites === 0 ? "folds" : "replaces its base";
  test(`copies beside a writer that commits and ${how} are whole, each of them`, {
    timeout,
  }, async () => {
    using folder = new Folder();
    const file = folder.file("app");
    // Bases of 16 MiB and more are written over by later ones.
    const habits: Habits = rewrites === 0
      ? { cells: 1 << 16, changes: 12, rewrites, logLimit: 128 << 10, keep: 3 }
      : { cells: 17 << 17, changes: 12, rewrites, logLimit: 1 << 30, keep: 1 };
    makeLedger(file, habits, 2);
    await using writer = new Writer(otherRuntime, folder, file, habits);
    await writer.reach(12);
    const copies = count || (rewrites === 0 ? 150 : 15);
    const epochs = new Set<number>();
    for (let i = 0; i < copies; i++) {
      const copy = folder.file(`copy${i % 3}`);
      const acknowledged = writer.epoch;
      const report = Image.copy(file, copy, { replace: true });
      assert.ok(report.epoch >= acknowledged, `copy ${i}: ${report.epoch}, was ${acknowledged}`);
      epochs.add(report.epoch);
      const heap = mopen(copy, "r", undefined, { verify: i % 2 === 0 });
      assert.equal(expectWhole(heap, habits, `copy ${i}`), report.epoch);
      mclose();
      if (i % 10 !== 0) continue;
      using going = Heap.open({ file: copy, size: 1 << 20 });
      if (report.epochs > 1) {
        const before = going.map!.epochs().at(-2)!.epoch;
        going.restore({ epoch: before });
        expectWhole(going, habits, `copy ${i}, an epoch before`);
        going.restore();
      }
      advance(going, habits, randomNumbers(i));
      expectWhole(going, habits, `copy ${i}, one later`);
    }
    const { commits, folds } = await writer.stop();
    assert.ok(epochs.size > copies / 3, `${epochs.size} different epochs in ${copies} copies`);
    assert.ok(commits > copies, `${commits} commits`);
    if (rewrites === 0) assert.ok(folds > 2, `${folds} folds of ${commits} commits`);
    const rest = folder.names().filter((name) => /^copy\d-(new|log)/.test(name));
    assert.equal(rest.length, 3, rest.join());
  });
}

test("a copier that is killed leaves a whole copy or none, and what it left is in nobody's way", {
  timeout,
}, async () => {
  using folder = new Folder();
  const file = folder.file("app");
  const habits: Habits = { cells: 1 << 20, changes: 50, rewrites: 0, logLimit: 1 << 30 };
  makeLedger(file, habits, 6);
  const below = randomNumbers(8);
  let cut = 0;
  for (let i = 0; i < (count || 10); i++) {
    const copy = folder.file(`copy${i % 2}`);
    await using child = new Child(otherRuntime);
    await child.run(({ perm, state }) => void (state.perm = perm));
    const endless = child.run(
      ({ perm }, file: string, copy: string) => {
        for (;;) perm.Image.copy(file, copy, { replace: true });
      },
      file,
      copy,
    );
    endless.catch(() => {});
    while (!existsSync(copy + "-new") && !existsSync(copy)) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    await new Promise((resolve) => setTimeout(resolve, below(12)));
    await child.kill();
    if (existsSync(copy + "-new")) {
      cut++;
      expectCode(() => mopen(copy + "-new", "r"), "INVALID_ARGUMENT");
    }
    for (const log of readdirSync(folder.path).filter((name) => name.includes("-log-"))) {
      expectCode(() => mopen(folder.file(log), "r"), "INVALID_ARGUMENT");
    }
    if (existsSync(copy)) {
      const heap = mopen(copy, "r", undefined, { verify: true });
      assert.equal(expectWhole(heap, habits, `kill ${i}`), 6);
      mclose();
    } else expectCode(() => mopen(copy, "r"), "NOT_FOUND");
    if (i % 3 === 0) {
      assert.equal(Image.copy(file, copy, { replace: true }).epoch, 6);
      const left = folder.names().filter((name) => name.startsWith(`copy${i % 2}`));
      assert.equal(left.length, 2, left.join());
    }
  }
  assert.ok(cut > 0, "no copier was killed in the middle");
});

test("a copy that finds no room is NO_SPACE and leaves nothing, or what stood there", {
  timeout,
  skip: refusesMounts(),
}, () => {
  using folder = new Folder();
  const file = folder.file("app");
  const habits: Habits = { cells: 1 << 18, changes: 300, rewrites: 0, logLimit: 1 << 30 };
  makeLedger(file, habits, 3);
  using mount = mountTmpfs(folder.file("disk"), 12 << 20);
  const copy = `${mount.path}/copy`;
  const need = Image.verify(file).bytes;
  for (const there of [false, true]) {
    for (const left of [0, 4096, 1 << 20, need - (64 << 10), need - (1 << 20)]) {
      mount.fill(left);
      expectCode(() => Image.copy(file, copy, { replace: true }), "NO_SPACE");
      mount.empty();
      const names = readdirSync(mount.path);
      assert.equal(names.length, there ? 2 : 0, names.join());
      if (there) assert.equal(Image.verify(copy).epoch, 3);
    }
    if (!there) Image.copy(file, copy);
  }
});
