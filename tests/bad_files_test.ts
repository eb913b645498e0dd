/**
 * Files that are no image, not this heap's, somebody else's at the moment, or on media that refuse:
 * each is refused with its code, through every door, and nothing that stood there changes.
 *
 * @module
 */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import {
  copyFileSync,
  lstatSync,
  mkdirSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { basename, join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { bopen, type ErrorCode, Heap, mclose, mopen, restore } from "../mod.ts";
import { Bystander, contentsOf, digestOf, flip, logOf, outcomeOf, Specimen } from "./specimen.ts";
import { mountTmpfs, refusesMounts } from "./mounts.ts";
import { thisRuntime } from "./runtimes.ts";
import { Child, elsewhere, expectCode, Folder, otherRuntime, pattern } from "./support.ts";

const timeout = 60_000;
const size = 1 << 17;

/** Every way to open what stands at a path, for reading and for writing. */
const doors: Record<string, (path: string) => unknown> = {
  'mopen "r"': (path) => mopen(path, "r"),
  'mopen "r+"': (path) => mopen(path, "r+"),
  'mopen "r+", recover': (path) => mopen(path, "r+", undefined, { recover: true }),
  "Heap.open, file": (file) => Heap.open({ file, size }),
  "Heap.open, backup": (backup) => Heap.open({ backup, size }),
  'bopen "r"': (path) => bopenBeside(path, "r"),
  'bopen "r+"': (path) => bopenBeside(path, "r+"),
};

function bopenBeside(path: string, mode: "r" | "r+" | "w+"): void {
  using heap = Heap.open({ size });
  heap.bopen(path, mode);
}

/** Asserts that every door is shut with that code, and that all stays as it was. */
function expectShut(folder: Folder, path: string, code: ErrorCode): void {
  const before = contentsOf(folder.path);
  for (const [door, open] of Object.entries(doors)) {
    const error = expectCode(() => open(path), code);
    assert.equal(error.path, path, door);
  }
  assert.deepEqual(contentsOf(folder.path), before);
}

test("an empty file, text, random bytes and a short file are no images", { timeout }, () => {
  using folder = new Folder();
  using _bystander = new Bystander(folder);
  const contents: Record<string, Uint8Array> = {
    empty: new Uint8Array(0),
    byte: Uint8Array.of(1),
    text: new TextEncoder().encode("not a heap\n".repeat(1000)),
    zeros: new Uint8Array(1 << 16),
    page: pattern(4096, 1),
    garbage: pattern(100_001, 2),
  };
  for (const [name, bytes] of Object.entries(contents)) {
    writeFileSync(folder.file(name), bytes);
    expectShut(folder, folder.file(name), "NOT_AN_IMAGE");
  }
});

test("w+ does not take the place of a file that is no image, unless told to replace it", {
  timeout,
}, () => {
  using folder = new Folder();
  using _bystander = new Bystander(folder);
  const path = folder.file("letter");
  writeFileSync(path, "dear reader\n".repeat(1000));
  const before = contentsOf(folder.path);
  expectCode(() => mopen(path, "w+", size), "EXISTS", { path });
  expectCode(() => bopenBeside(path, "w+"), "EXISTS", { path });
  assert.deepEqual(contentsOf(folder.path), before);

  mopen(path, "w+", size, { replace: true });
  assert.equal(contentsOf(folder.path).letter, before.letter, "replaced by the first commit only");
  mclose();
  assert.equal(outcomeOf(path, "r+").epoch, 1);
});

test("another version is BAD_VERSION, and says which", { timeout }, () => {
  using folder = new Folder();
  using _bystander = new Bystander(folder);
  const specimen = new Specimen(folder.file("app"));
  const undo = flip(specimen.base, 8, 0x03);
  expectShut(folder, specimen.base, "BAD_VERSION");
  assert.match(outcomeOf(specimen.base, "r").message!, /version is 2\b.*reads 1\b/);
  undo();
  assert.equal(outcomeOf(specimen.base, "r+").epoch, 4);
});

test("directories, devices and sockets are no images", { timeout }, async () => {
  using folder = new Folder();
  using _bystander = new Bystander(folder);
  mkdirSync(folder.file("directory"));
  expectShut(folder, folder.file("directory"), "NOT_AN_IMAGE");
  expectShut(folder, "/dev/null", "NOT_AN_IMAGE");
  expectShut(folder, "/dev/zero", "NOT_AN_IMAGE");
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(folder.file("socket"), resolve));
  try {
    expectShut(folder, folder.file("socket"), "NOT_AN_IMAGE");
    for (const name of ["directory", "socket"]) {
      expectCode(() => mopen(folder.file(name), "w+", size), "NOT_AN_IMAGE");
      expectCode(() => mopen(folder.file(name), "w+", size, { replace: true }), "NOT_AN_IMAGE");
    }
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
});

test("a FIFO that nobody writes to is refused at once", { timeout }, async () => {
  using folder = new Folder();
  using _bystander = new Bystander(folder);
  const path = folder.file("fifo");
  execFileSync("mkfifo", [path]);
  // In a process of its own: one that hangs in a system call could not even time out here.
  await using child = new Child();
  const codes = child.run(({ perm }, path: string) => {
    const ways: (() => void)[] = [
      () => perm.mopen(path, "r"),
      () => perm.mopen(path, "r+"),
      () => perm.mopen(path, "w+", 1 << 17),
      () => perm.mopen(path, "w+", 1 << 17, { replace: true }),
      () => perm.Heap.open({ file: path, size: 1 << 17 }),
      () => perm.Heap.open({ backup: path, size: 1 << 17 }),
    ];
    return ways.map((way) => {
      try {
        way();
        return "opened";
      } catch (error) {
        return error instanceof perm.PermError ? error.code : String(error);
      }
    });
  }, path);
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<string>((resolve) => timer = setTimeout(resolve, 20_000, "it hangs"));
  assert.deepEqual(await Promise.race([codes, late]), Array(6).fill("NOT_AN_IMAGE"));
  clearTimeout(timer);
});

test("nothing at the path, a folder that is not there, a link to nowhere or in a circle", {
  timeout,
}, () => {
  using folder = new Folder();
  using _bystander = new Bystander(folder);
  writeFileSync(folder.file("file"), "x");
  symlinkSync("nowhere", folder.file("dangling"));
  symlinkSync("circle", folder.file("circle"));
  const before = contentsOf(folder.path);
  const paths = ["nothing", "no/folder", "file/inside", "dangling", "circle"];
  for (const path of paths.map((name) => folder.file(name))) {
    for (const mode of ["r", "r+"] as const) {
      expectCode(() => mopen(path, mode), "NOT_FOUND", { path });
      expectCode(() => bopenBeside(path, mode), "NOT_FOUND", { path });
    }
  }
  for (const path of ["no/folder", "file/inside", "circle"].map((name) => folder.file(name))) {
    expectCode(() => mopen(path, "w+", size), "NOT_FOUND", { path });
    expectCode(() => Heap.open({ file: path, size }), "NOT_FOUND", { path });
  }
  assert.deepEqual(contentsOf(folder.path), before);

  // A link to nowhere is where a new heap is made: at its end, and the link stays.
  {
    using heap = Heap.open({ file: folder.file("dangling"), size });
    assert.equal(heap.resumed, "new");
    heap.root = heap.malloc(80_000);
    heap.flush();
  }
  assert.equal(readlinkSync(folder.file("dangling")), "nowhere");
  assert.ok(statSync(folder.file("nowhere")).isFile());
  assert.equal(outcomeOf(folder.file("dangling"), "r+").epoch, 1);
});

test("an image behind a symbolic link is used, and replaced where it is", { timeout }, () => {
  using folder = new Folder();
  using _bystander = new Bystander(folder);
  mkdirSync(folder.file("far"));
  const specimen = new Specimen(folder.file("far/app"));
  symlinkSync("far/app", folder.file("near"));
  symlinkSync("near", folder.file("nearer"));
  const path = folder.file("nearer");
  assert.equal(outcomeOf(path, "r").digest, specimen.digests.get(4));
  const { ino } = statSync(specimen.base);
  {
    using heap = mopen(path, "w+", size);
    heap.root = heap.malloc(80_000);
    assert.equal(statSync(path).ino, ino, "until the first commit the old image stands");
    assert.equal(heap.flush().epoch, 1);
  }
  assert.ok(lstatSync(path).isSymbolicLink() && lstatSync(folder.file("near")).isSymbolicLink());
  assert.notEqual(statSync(specimen.base).ino, ino, "a new base came by rename");
  for (const name of [path, specimen.base]) assert.equal(outcomeOf(name, "r+").epoch, 1);
  assert.deepEqual(
    Object.keys(contentsOf(folder.path)).filter((name) => name.includes("-")),
    [basename(logOf(folder.file("bystander")))],
    "log and temporary files lie beside the image, not beside the link",
  );
});

test("the engine's own names are not opened as images", { timeout }, () => {
  using folder = new Folder();
  using _bystander = new Bystander(folder);
  const specimen = new Specimen(folder.file("app"));
  const long = folder.file("x".repeat(250));
  for (const path of [specimen.log, folder.file("app-new"), long]) {
    expectShut(folder, path, "INVALID_ARGUMENT");
    expectCode(() => mopen(path, "w+", size), "INVALID_ARGUMENT", { path });
    expectCode(() => mopen(path, "w+", size, { replace: true }), "INVALID_ARGUMENT", { path });
  }
  const renamed = folder.file("renamed");
  copyFileSync(specimen.log, renamed);
  expectShut(folder, renamed, "NOT_AN_IMAGE");
});

test("what stands where a new base would be written is left alone, unless it is a leftover", {
  timeout,
}, () => {
  using folder = new Folder();
  using _bystander = new Bystander(folder);
  execFileSync("mkfifo", [folder.file("fifo-new")]);
  mkdirSync(folder.file("directory-new"));
  writeFileSync(folder.file("text-new"), "dear reader");
  symlinkSync("text-new", folder.file("link-new"));
  symlinkSync("nowhere", folder.file("dangling-new"));
  const before = contentsOf(folder.path);
  for (const name of ["fifo", "directory", "text", "link", "dangling"]) {
    const path = folder.file(name);
    const message = new RegExp(`${name}-new`);
    expectCode(() => mopen(path, "w+", size), "EXISTS", { path, message });
    expectCode(() => Heap.open({ file: path, size }), "EXISTS", { path, message });
    expectCode(() => bopenBeside(path, "w+"), "EXISTS", { path, message });
  }
  assert.deepEqual(contentsOf(folder.path), before);

  // A base that was never finished is one, and so is the empty file of a claim.
  const specimen = new Specimen(folder.file("app"));
  copyFileSync(specimen.base, folder.file("app-new"));
  writeFileSync(folder.file("fresh-new"), "");
  assert.equal(outcomeOf(specimen.base, "r+").epoch, 4);
  Heap.open({ file: folder.file("fresh"), size }).close();
  const left = Object.keys(contentsOf(folder.path)).filter((name) => /^(app|fresh)-new/.test(name));
  assert.deepEqual(left, []);
});

test("images of two heaps are not opened together, and neither replaces the other", {
  timeout,
}, () => {
  using folder = new Folder();
  using _bystander = new Bystander(folder);
  const one = new Specimen(folder.file("one"), 1);
  const two = new Specimen(folder.file("two"), 2);
  const before = contentsOf(folder.path);
  const error = expectCode(
    () => Heap.open({ file: one.base, backup: two.base, size }),
    "EXISTS",
  );
  assert.ok(error.message.includes(one.base) && error.message.includes(two.base), error.message);

  {
    using heap = Heap.open({ file: one.base, size });
    expectCode(() => heap.bopen(two.base, "w+"), "EXISTS", { path: two.base });
    heap.bopen(two.base, "r+");
    expectCode(() => heap.backup(), "EXISTS", { path: two.base });
    assert.equal(digestOf(heap), one.digests.get(4));
    heap.check();
  }
  assert.deepEqual(contentsOf(folder.path), before);

  // Told to, it does replace it: with the first commit and not before.
  {
    using heap = Heap.open({ file: one.base, size });
    heap.bopen(two.base, "w+", { replace: true });
    assert.equal(outcomeOf(two.base, "r").digest, two.digests.get(4));
    assert.equal(heap.backup().epoch, 4);
  }
  assert.equal(outcomeOf(two.base, "r+").digest, one.digests.get(4));
  using heap = Heap.open({ file: one.base, backup: two.base, size });
  assert.equal(digestOf(heap), one.digests.get(4));
});

test(
  "restore() from another heap's backup brings that heap, for the map file too",
  { timeout },
  () => {
    using folder = new Folder();
    using _bystander = new Bystander(folder);
    const one = new Specimen(folder.file("one"), 1);
    const two = new Specimen(folder.file("two"), 2);
    using heap = mopen(one.base, "r+");
    bopen(two.base, "r+");
    assert.equal(restore().epoch, 4);
    assert.equal(digestOf(heap), two.digests.get(4));
    heap.check();
    mclose();
    // mclose committed the heap that it holds now to the map file.
    assert.equal(outcomeOf(one.base, "r+").digest, two.digests.get(4));
    Heap.open({ file: one.base, backup: two.base, size }).close();
  },
);

for (const other of [thisRuntime, otherRuntime]) {
  test(`a second writer in another process is BUSY, readers are not: ${other}`, {
    timeout,
  }, async () => {
    using folder = new Folder();
    using _bystander = new Bystander(folder);
    const specimen = new Specimen(folder.file("app"));
    const path = specimen.base;
    const fresh = folder.file("fresh");
    await using child = new Child(other);
    await child.run(
      ({ perm, state }, path, fresh) => {
        state.heap = perm.Heap.open({ file: path, size: 1 << 17 });
        state.claim = perm.Heap.open({ file: fresh, size: 1 << 17 });
      },
      path,
      fresh,
    );
    for (const door of ['mopen "r+"', "Heap.open, file", "Heap.open, backup", 'bopen "r+"']) {
      expectCode(() => doors[door](path), "BUSY", { path });
    }
    expectCode(() => mopen(path, "w+", size, { replace: true }), "BUSY", { path });
    // Claimed and not committed: taken all the same.
    expectCode(() => mopen(fresh, "w+", size), "BUSY", { path: fresh });
    expectCode(() => Heap.open({ file: fresh, size }), "BUSY", { path: fresh });
    assert.equal(outcomeOf(path, "r").digest, specimen.digests.get(4));

    // A reader keeps what it opened, whatever the writer commits meanwhile.
    using reader = mopen(path, "r");
    const epoch = await child.run(({ state }) => {
      const { heap } = state;
      for (let round = 0; round < 20; round++) {
        heap.bytes(heap.root, 80_000).fill(round + 1);
        heap.flush();
      }
      return heap.epoch;
    });
    assert.equal(digestOf(reader), specimen.digests.get(4));
    reader.check();
    mclose();
    assert.equal(outcomeOf(path, "r").epoch, epoch);

    await child.kill();
    assert.equal(outcomeOf(path, "r+").epoch, epoch);
    // What a killed process had claimed is free again, and its claim is cleared away.
    Heap.open({ file: fresh, size }).close();
    const left = Object.keys(contentsOf(folder.path)).filter((name) => name.startsWith("fresh"));
    assert.deepEqual(left, []);
  });
}

test("a file that took the place of an open heap's is left as it is, and the commit is STALE", {
  timeout,
}, () => {
  using folder = new Folder();
  using _bystander = new Bystander(folder);
  const specimen = new Specimen(folder.file("app"));
  const other = new Specimen(folder.file("other"), 8);
  using heap = Heap.open({ file: specimen.base, size });
  rmSync(specimen.base);
  copyFileSync(other.base, specimen.base);
  copyFileSync(other.log, other.log.replace(other.base, specimen.base));
  const before = contentsOf(folder.path);
  heap.bytes(heap.root, 80_000).fill(1);
  expectCode(() => heap.flush(), "STALE", { path: specimen.base });
  heap.check();
  assert.deepEqual(contentsOf(folder.path), before);
  assert.equal(outcomeOf(specimen.base, "r").digest, other.digests.get(4));
});

// ------------------------------------------------------------------ media and rights

const noMounts = refusesMounts();

test("on read-only media r works, and writers are READ_ONLY before any lock", {
  timeout,
  skip: noMounts,
}, () => {
  using folder = new Folder();
  using _bystander = new Bystander(folder);
  using media = mountTmpfs(folder.file("media"), 8 << 20);
  const specimen = new Specimen(join(media.path, "app"));
  media.remount("ro");
  const path = specimen.base;
  const before = contentsOf(media.path);
  for (const verify of [false, true]) {
    assert.equal(outcomeOf(path, "r", { verify }).digest, specimen.digests.get(4));
  }
  for (const door of ['mopen "r+"', "Heap.open, file", "Heap.open, backup", 'bopen "r+"']) {
    expectCode(() => doors[door](path), "READ_ONLY", { path });
  }
  const fresh = join(media.path, "fresh");
  expectCode(() => mopen(fresh, "w+", size), "READ_ONLY", { path: fresh });
  expectCode(() => mopen(path, "w+", size, { replace: true }), "READ_ONLY", { path });
  expectCode(() => Heap.open({ file: fresh, size }), "READ_ONLY", { path: fresh });
  expectCode(() => bopenBeside(fresh, "w+"), "READ_ONLY", { path: fresh });

  // A heap elsewhere is restored from it.
  using heap = mopen(null, "w+", size, { maxSize: size });
  bopen(path, "r");
  assert.equal(restore({ verify: true }).epoch, 4);
  assert.equal(digestOf(heap), specimen.digests.get(4));
  expectCode(() => heap.backup(), "READ_ONLY", { path });
  mclose();
  assert.deepEqual(contentsOf(media.path), before);
  media.remount("rw");
  assert.equal(outcomeOf(path, "r+").digest, specimen.digests.get(4));
});

const isRoot = process.getuid?.() === 0;

test("what the system forbids is PERMISSION", {
  timeout,
  skip: isRoot ? false : "only root can give its rights away and take them back",
}, async () => {
  using folder = new Folder();
  using _bystander = new Bystander(folder);
  execFileSync("chmod", ["755", folder.path]);
  mkdirSync(folder.file("closed"), { mode: 0o700 });
  mkdirSync(folder.file("open"), { mode: 0o755 });
  const hidden = new Specimen(folder.file("closed/app"));
  const unreadable = new Specimen(folder.file("open/app"));
  const readable = new Specimen(folder.file("open/readable"));
  for (const path of [readable.base, readable.log]) execFileSync("chmod", ["644", path]);
  assert.equal(statSync(unreadable.base).mode & 0o777, 0o600, "an image is its owner's alone");
  const before = [contentsOf(folder.file("closed")), contentsOf(folder.file("open"))];
  const paths = [hidden.base, unreadable.base, readable.base, folder.file("open/fresh")];
  const codes = await elsewhere(thisRuntime, async ({ perm }, paths: string[]) => {
    // Loads the library while it can be read.
    perm.Heap.open({ size: 1 << 17 }).close();
    const system = await import("node:process");
    system.setegid!(65534);
    system.seteuid!(65534);
    const codeOf = (action: () => { close(): void }) => {
      try {
        action().close();
        return "opened";
      } catch (error) {
        return error instanceof perm.PermError ? error.code : String(error);
      }
    };
    return paths.map((path) => [
      codeOf(() => perm.mopen(path, "r")),
      codeOf(() => perm.mopen(path, "r+")),
      codeOf(() => perm.mopen(path, "w+", 1 << 17, { replace: true })),
      codeOf(() => perm.Heap.open({ file: path, size: 1 << 17 })),
    ]);
  }, paths);
  assert.deepEqual(codes, [
    Array(4).fill("PERMISSION"),
    Array(4).fill("PERMISSION"),
    ["opened", "PERMISSION", "PERMISSION", "PERMISSION"],
    ["NOT_FOUND", "NOT_FOUND", "PERMISSION", "PERMISSION"],
  ]);
  assert.deepEqual([contentsOf(folder.file("closed")), contentsOf(folder.file("open"))], before);
  assert.equal(outcomeOf(unreadable.base, "r+").epoch, 4);
});

/** A file that not even root may write to, where the file system knows such a thing. */
function refusesImmutable(): string | false {
  if (!isRoot) return "only root can make a file immutable";
  using folder = new Folder();
  writeFileSync(folder.file("file"), "");
  const { status } = spawnSync("chattr", ["+i", folder.file("file")]);
  spawnSync("chattr", ["-i", folder.file("file")]);
  return status === 0 ? false : "this file system has no immutable files";
}

test("an immutable file is PERMISSION for writers, and can be read", {
  timeout,
  skip: refusesImmutable(),
}, () => {
  using folder = new Folder();
  using _bystander = new Bystander(folder);
  const specimen = new Specimen(folder.file("app"));
  execFileSync("chattr", ["+i", specimen.base]);
  try {
    expectCode(() => mopen(specimen.base, "r+"), "PERMISSION", { path: specimen.base });
    expectCode(() => mopen(specimen.base, "w+", size), "PERMISSION", { path: specimen.base });
    assert.equal(outcomeOf(specimen.base, "r").epoch, 4);
  } finally {
    execFileSync("chattr", ["-i", specimen.base]);
  }
  assert.equal(outcomeOf(specimen.base, "r+").epoch, 4);
});
