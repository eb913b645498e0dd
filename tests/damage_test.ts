/**
 * Images with bytes missing or changed. What is damaged is refused with its code, or leaves the last
 * epoch that is whole; whatever it is, the runtime and the heaps beside it are well.
 *
 *     PERM_DAMAGE=all    every length and every byte of a small image, instead of a sample
 *
 * @module
 */
import assert from "node:assert/strict";
import {
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { bopen, type ErrorCode, Heap, Image, mclose, mopen, restore } from "../mod.ts";
import {
  basePages,
  Bystander,
  contentsOf,
  digestOf,
  flip,
  type Outcome,
  outcomeOf,
  type Region,
  Specimen,
} from "./specimen.ts";
import { expectCode, Folder, randomNumbers } from "./support.ts";

const everything = process.env.PERM_DAMAGE === "all";
const timeout = everything ? 3_600_000 : 60_000;

/** Some of the positions of a stretch, the ends always; or all. */
function positions(from: number, to: number, count: number, below: (bound: number) => number) {
  const all = to - from;
  if (everything || all <= count) return Array.from({ length: all }, (_, index) => from + index);
  const some = new Set([from, to - 1]);
  while (some.size < count) some.add(from + below(all));
  return [...some].sort((a, b) => a - b);
}

/** A fresh copy of an image, in a folder of its own. */
function copyOf(specimen: Specimen, folder: Folder, name = "copy"): { base: string; log: string } {
  const directory = folder.file(name);
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory);
  const [base, log] = [specimen.base, specimen.log].map((path) => {
    const copy = join(directory, basename(path));
    copyFileSync(path, copy);
    return copy;
  });
  return { base, log };
}

/** Asserts that an outcome is the whole state of that epoch. */
function expectEpoch(specimen: Specimen, outcome: Outcome, epochs: number[], what: string): void {
  const { code, found, epoch, digest, message } = outcome;
  assert.ok(
    epoch !== undefined && code === undefined && found === undefined,
    `${what}: ${message}`,
  );
  assert.ok(epochs.includes(epoch), `${what}: epoch ${epoch} of ${epochs}`);
  assert.equal(digest, specimen.digests.get(epoch), `${what}: the state of epoch ${epoch}`);
}

function expectRefused(outcome: Outcome, codes: ErrorCode[], what: string): void {
  const { code } = outcome;
  assert.ok(code && codes.includes(code), `${what}: ${code ?? outcome.epoch} of ${codes}`);
}

test("a base that was cut at any length is refused", { timeout }, () => {
  using folder = new Folder();
  using _bystander = new Bystander(folder);
  const specimen = new Specimen(folder.file("app"));
  const { size } = statSync(specimen.base);
  const below = randomNumbers(11);
  for (const length of positions(0, size, 200, below).toReversed()) {
    const { base } = everything ? { base: "" } : copyOf(specimen, folder);
    const path = everything ? specimen.base : base;
    truncateSync(path, length);
    const codes: ErrorCode[] = length < 8 ? ["NOT_AN_IMAGE"] : ["CORRUPT"];
    for (const verify of [false, true]) {
      expectRefused(outcomeOf(path, "r", { verify }), codes, `cut at ${length}`);
    }
    expectRefused(outcomeOf(path, "r+"), codes, `cut at ${length}`);
    expectRefused(outcomeOf(path, "r+", { recover: true }), codes, `cut at ${length}, recover`);
    assert.equal(statSync(path).size, length, "a refused image is left as it is");
  }
  if (!everything) expectEpoch(specimen, outcomeOf(specimen.base, "r+"), [4], "the original");
});

test("a log that was cut at any length leaves the last epoch that is whole in it", {
  timeout,
}, () => {
  using folder = new Folder();
  using _bystander = new Bystander(folder);
  const specimen = new Specimen(folder.file("app"));
  const ends = specimen.regions()
    .filter(({ file, what }) => file === "log" && what === "index")
    .map(({ record, to }) => ({ record, to }));
  const { size } = statSync(specimen.log);
  const below = randomNumbers(12);
  const before = readFileSync(specimen.log);
  for (const length of positions(0, size, 100, below).toReversed()) {
    truncateSync(specimen.log, length);
    const what = `cut at ${length}`;
    // A record is whole when its footer is, which ends the second of its two regions of this kind.
    const whole = ends.filter(({ record, to }) =>
      to <= length && ends.findLast((end) =>
          end.record === record
        )!.to === to
    ).length;
    for (const verify of [false, true]) {
      const outcome = outcomeOf(specimen.base, "r", { verify });
      if (length < 4096) expectRefused(outcome, ["CORRUPT"], what);
      else expectEpoch(specimen, outcome, [whole + 1], what);
    }
    assert.equal(statSync(specimen.log).size, length, "a reader leaves it as it is");

    if (everything && length % 61 !== 0) continue;
    const { base, log } = copyOf(specimen, folder);
    if (length < 4096) {
      expectRefused(outcomeOf(base, "r+"), ["CORRUPT"], what);
      assert.equal(statSync(log).size, length, "a refused image is left as it is");
      continue;
    }
    expectEpoch(specimen, outcomeOf(base, "r+"), [whole + 1], what);
    // What was cut off is gone for good, and a commit goes on from there.
    using heap = mopen(base, "r+");
    heap.bytes(heap.root, 1)[0] = 99;
    assert.equal(heap.flush().epoch, whole + 2);
    const digest = digestOf(heap);
    mclose();
    assert.deepEqual(outcomeOf(base, "r", { verify: true }), { epoch: whole + 2, digest }, what);
  }
  writeFileSync(specimen.log, before);
  expectEpoch(specimen, outcomeOf(specimen.base, "r+"), [4], "the original");
});

/** What may come of one changed byte. */
function expectFlipFound(specimen: Specimen, region: Region, at: number, base: string): void {
  const { file, what, record } = region;
  const where = `byte ${at} of the ${file}, in its ${what}` +
    (record ? ` of record ${record}` : "");
  const plain = outcomeOf(base, "r");
  const verified = outcomeOf(base, "r", { verify: true });
  const last = record === specimen.epochs - 1;
  if (what === "padding") {
    for (const outcome of [plain, verified]) expectEpoch(specimen, outcome, [4], where);
  } else if (last) {
    // It looks torn, whichever part of it: the epoch before is the last whole one.
    for (const outcome of [plain, verified]) expectEpoch(specimen, outcome, [3], where);
  } else if (what === "pages") {
    // Found by `verify` unless a later record holds the page, and then it harms nobody.
    if (verified.code === undefined) expectEpoch(specimen, verified, [4], where);
    else expectRefused(verified, ["CORRUPT"], where);
    // Among the pages is the heap's header, with the version of the heap's layout.
    if (plain.code !== undefined) expectRefused(plain, ["CORRUPT", "BAD_VERSION"], where);
    else assert.ok(plain.epoch === 4, where);
    if (verified.code === undefined) expectEpoch(specimen, plain, [4], where);
    if (plain.found !== undefined) assert.ok(verified.code === "CORRUPT", where);
  } else {
    const codes: ErrorCode[] = file === "base" && at < 8
      ? ["NOT_AN_IMAGE"]
      : file === "base" && at < 12
      ? ["BAD_VERSION"]
      : ["CORRUPT"];
    for (const outcome of [plain, verified]) expectRefused(outcome, codes, where);
  }
}

test("any changed byte is found at open, or by verify in data pages", { timeout }, () => {
  using folder = new Folder();
  using _bystander = new Bystander(folder);
  const specimen = new Specimen(folder.file("app"));
  const below = randomNumbers(13);
  const before = contentsOf(folder.path);
  for (const region of specimen.regions()) {
    for (const at of positions(region.from, region.to, 60, below)) {
      const undo = flip(specimen[region.file], at, 1 << below(8));
      try {
        expectFlipFound(specimen, region, at, specimen.base);
      } finally {
        undo();
      }
    }
  }
  assert.deepEqual(contentsOf(folder.path), before);
  expectEpoch(specimen, outcomeOf(specimen.base, "r+"), [4], "the original");
});

test("a changed byte met by a writer costs no epoch that is whole", { timeout }, () => {
  using folder = new Folder();
  using _bystander = new Bystander(folder);
  const specimen = new Specimen(folder.file("app"));
  const below = randomNumbers(14);
  for (const region of specimen.regions()) {
    if (region.what === "pages" && region.record === 0) continue;
    const { file, what, record } = region;
    const last = record === specimen.epochs - 1;
    for (const at of positions(region.from, region.to, 6, below)) {
      const { base, log } = copyOf(specimen, folder);
      flip(file === "base" ? base : log, at);
      const where = `byte ${at} of the ${file}'s ${what} of record ${record}`;
      const names = readdirSync(folder.file("copy"));
      const outcome = outcomeOf(base, "r+");
      if (what === "padding") expectEpoch(specimen, outcome, [4], where);
      else if (last) expectEpoch(specimen, outcome, [3], where);
      else if (what === "pages") {
        assert.ok(outcome.epoch === 4 || outcome.code === "CORRUPT", where);
      } else expectRefused(outcome, ["CORRUPT", "NOT_AN_IMAGE", "BAD_VERSION"], where);
      assert.deepEqual(readdirSync(folder.file("copy")), names, where);
    }
  }
});

test("a damaged record before the last is CORRUPT, and the epochs before it can be restored", {
  timeout,
}, () => {
  using folder = new Folder();
  using _bystander = new Bystander(folder);
  const specimen = new Specimen(folder.file("app"));
  const header = specimen.regions().find(({ what, record }) => what === "header" && record === 2)!;
  const { base, log } = copyOf(specimen, folder);
  flip(log, header.from + 300);
  const damaged = contentsOf(folder.file("copy"));
  const refusal = outcomeOf(base, "r+");
  assert.equal(refusal.code, "CORRUPT");
  assert.match(refusal.message!, /epoch 2\b/);
  for (const file of ["file", "backup"] as const) {
    expectCode(() => Heap.open({ [file]: base, size: 1 << 17 }), "CORRUPT", { path: base });
  }

  using heap = mopen(null, "w+", 1 << 17, { maxSize: 1 << 17 });
  bopen(base, "r+");
  expectCode(() => restore(), "CORRUPT");
  for (const epoch of [3, 4]) expectCode(() => restore({ epoch }), "NO_EPOCH");
  assert.equal(heap.backupImage!.epochs().at(-1)!.epoch, 2);
  assert.deepEqual(contentsOf(folder.file("copy")), damaged, "looking changes nothing");
  for (const epoch of [1, 2]) {
    assert.equal(restore({ epoch, verify: true }).epoch, epoch);
    assert.equal(digestOf(heap), specimen.digests.get(epoch));
    heap.check();
  }
  heap.bytes(heap.root, 1)[0] = 55;
  const { epoch } = heap.backup();
  assert.ok(epoch > 2);
  const digest = digestOf(heap);
  heap.close();

  // The damaged pair is kept under another name; what is new stands alone and whole.
  const kept = Object.keys(contentsOf(folder.file("copy"))).filter((name) =>
    /-damaged-/.test(name)
  );
  assert.equal(kept.length, 2, kept.join(", "));
  const hashes = Object.values(contentsOf(folder.file("copy")));
  for (const hash of Object.values(damaged)) {
    assert.ok(hashes.includes(hash), "a byte of it changed");
  }
  assert.deepEqual(outcomeOf(base, "r+", { verify: true }), { epoch, digest });
});

test(
  "verify names the first bad page, what stored it and the epoch before, which can be restored",
  {
    timeout,
  },
  () => {
    using folder = new Folder();
    const specimen = new Specimen(folder.file("app"));
    assert.deepEqual({ ...Image.verify(specimen.base), durationMs: 0, bytes: 0, pages: 0 }, {
      epoch: 4,
      epochs: 4,
      pages: 0,
      bytes: 0,
      durationMs: 0,
    });
    const below = randomNumbers(15);
    for (const region of specimen.regions()) {
      if (region.what !== "pages" || region.record === specimen.epochs - 1) continue;
      const { base, log } = copyOf(specimen, folder);
      const at = region.from + below(region.to - region.from);
      // What is damaged behind it is not the first.
      for (const byte of [at, region.to - 1]) flip(region.file === "base" ? base : log, byte);
      const where = region.record === 0
        ? /as epoch 1 stored it in the base.*from a backup/
        : new RegExp(
          `as epoch ${region.record + 1} stored it in the log "${basename(log)}".*` +
            `restore\\(\\{ epoch: ${region.record} \\}\\)`,
        );
      const error = expectCode(() => Image.verify(base), "CORRUPT", { path: base, message: where });
      if (region.record === 0) {
        const { address, pages } = basePages(base);
        assert.equal(error.address, address + pages[(at - region.from) >> 12].page * 4096);
        continue;
      }
      using heap = mopen(null, "w+", 1 << 17, { maxSize: 1 << 17 });
      bopen(base, "r");
      for (let epoch = 1; epoch <= 4; epoch++) {
        if (epoch > region.record) {
          expectCode(() => restore({ epoch, verify: true }), "CORRUPT", { message: where });
        } else {
          assert.equal(restore({ epoch, verify: true }).epoch, epoch);
          assert.equal(digestOf(heap), specimen.digests.get(epoch));
        }
      }
    }
  },
);

test("Heap.open of a damaged and a whole image says so and takes neither", { timeout }, () => {
  using folder = new Folder();
  using _bystander = new Bystander(folder);
  const specimen = new Specimen(folder.file("app"));
  const backup = folder.file("app.back");
  {
    using heap = Heap.open({ file: specimen.base, backup, size: 1 << 17 });
    heap.backup();
  }
  const options = { file: specimen.base, backup, size: 1 << 17 };
  const undo = flip(specimen.base, 100);
  expectCode(() => Heap.open(options), "CORRUPT", { path: specimen.base });
  undo();
  const undoBackup = flip(backup, 3000);
  expectCode(() => Heap.open(options), "CORRUPT", { path: backup });
  undoBackup();
  using heap = Heap.open(options);
  assert.equal(digestOf(heap), specimen.digests.get(4));
  heap.close();
});

test("a torn tail is dropped, reported and gone after the next commit", { timeout }, () => {
  using folder = new Folder();
  using _bystander = new Bystander(folder);
  const specimen = new Specimen(folder.file("app"));
  const { base, log } = copyOf(specimen, folder);
  const { size } = statSync(log);
  truncateSync(log, size - 4096 - 10);
  using heap = mopen(null, "w+", 1 << 17, { maxSize: 1 << 17 });
  bopen(base, "r+");
  const report = restore();
  assert.deepEqual([report.epoch, report.dropped], [3, 1]);
  assert.equal(digestOf(heap), specimen.digests.get(3));
  heap.bytes(heap.root, 1)[0] = 33;
  const { epoch } = heap.backup();
  assert.ok(epoch > 3);
  assert.equal(restore().dropped, 0);
  heap.close();
  {
    using folder2 = new Folder();
    const whole = new Specimen(folder2.file("app"));
    using _heap = mopen(null, "w+", 1 << 17, { maxSize: 1 << 17 });
    bopen(whole.base, "r+");
    assert.equal(restore().dropped, 0);
    mclose();
  }
});

test("a base without its log is CORRUPT, and recover goes on from the base alone", {
  timeout,
}, () => {
  using folder = new Folder();
  using _bystander = new Bystander(folder);
  const specimen = new Specimen(folder.file("app"));
  const { base, log } = copyOf(specimen, folder);
  rmSync(log);
  for (const mode of ["r", "r+"] as const) {
    const { code, message } = outcomeOf(base, mode);
    assert.equal(code, "CORRUPT");
    assert.ok(message!.includes(basename(log)), `${message} names the log`);
  }
  expectEpoch(specimen, outcomeOf(base, "r", { recover: true }), [1], "read");

  // Another image's log under its name is no log of it either, and stays where it is.
  const other = new Specimen(folder.file("other"), 9);
  copyFileSync(other.log, log);
  assert.equal(outcomeOf(base, "r+").code, "CORRUPT");
  const foreign = contentsOf(folder.file("copy"))[basename(log)];

  using heap = mopen(base, "r+", undefined, { recover: true });
  const { uuid } = heap.map!;
  assert.equal(heap.epoch, 1);
  assert.equal(digestOf(heap), specimen.digests.get(1));
  heap.bytes(heap.root, 1)[0] = 42;
  const { epoch } = heap.flush();
  assert.ok(epoch > 1);
  assert.notEqual(heap.map!.uuid, uuid);
  const digest = digestOf(heap);
  mclose();
  const kept = () => Object.values(contentsOf(folder.file("copy")));
  assert.ok(kept().includes(foreign), "nothing is unlinked");
  assert.deepEqual(outcomeOf(base, "r+", { verify: true }), { epoch, digest });
  assert.ok(kept().includes(foreign), "nor at the next opening");
});

test("recover of an image that is whole changes nothing", { timeout }, () => {
  using folder = new Folder();
  using _bystander = new Bystander(folder);
  const specimen = new Specimen(folder.file("app"));
  const before = contentsOf(folder.path);
  expectEpoch(specimen, outcomeOf(specimen.base, "r", { recover: true }), [4], "read");
  expectEpoch(specimen, outcomeOf(specimen.base, "r+", { recover: true }), [4], "written");
  assert.deepEqual(contentsOf(folder.path), before);
});

test("a log without its base is nothing to open, and Heap.open makes a new heap beside it", {
  timeout,
}, () => {
  using folder = new Folder();
  using _bystander = new Bystander(folder);
  const specimen = new Specimen(folder.file("app"));
  const { base, log } = copyOf(specimen, folder);
  rmSync(base);
  for (const mode of ["r", "r+"] as const) assert.equal(outcomeOf(base, mode).code, "NOT_FOUND");
  assert.deepEqual(Object.keys(contentsOf(folder.file("copy"))), [basename(log)]);
  using heap = Heap.open({ file: base, size: 1 << 17 });
  assert.equal(heap.resumed, "new");
  heap.flush();
});

test("base and log moved together open under the new name; the base alone does not", {
  timeout,
}, () => {
  using folder = new Folder();
  using _bystander = new Bystander(folder);
  const specimen = new Specimen(folder.file("app"));
  const moved = folder.file("moved");
  copyFileSync(specimen.base, moved);
  assert.equal(outcomeOf(moved, "r+").code, "CORRUPT");
  copyFileSync(specimen.log, specimen.log.replace(specimen.base, moved));
  expectEpoch(specimen, outcomeOf(moved, "r+"), [4], "moved");
  expectEpoch(specimen, outcomeOf(specimen.base, "r+"), [4], "the original");
});

test("the base of one image with the log of another is refused", { timeout }, () => {
  using folder = new Folder();
  using _bystander = new Bystander(folder);
  const specimen = new Specimen(folder.file("app"));
  const other = new Specimen(folder.file("other"), 5);
  const { base, log } = copyOf(specimen, folder);
  copyFileSync(other.log, log);
  assert.equal(outcomeOf(base, "r").code, "CORRUPT");
  assert.equal(outcomeOf(base, "r+").code, "CORRUPT");
  copyFileSync(other.base, base);
  assert.equal(outcomeOf(base, "r+").code, "CORRUPT");
});
