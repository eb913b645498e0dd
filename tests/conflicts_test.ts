// Who is in whose way: addresses, options, files that are open, foreign, gone apart or replaced.
import assert from "node:assert/strict";
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import process from "node:process";
import { test } from "node:test";
import { Heap } from "../mod.ts";
import { thisRuntime } from "./runtimes.ts";
import {
  Child,
  elsewhere,
  expectCode,
  expectRejects,
  expectWell,
  Folder,
  get,
  makeFile,
  otherRuntime,
  put,
} from "./support.ts";

const size = 1 << 20;
const mib = 1 << 20;
const timeout = 60_000;

/** Copies an image, base and log, as a user might. */
function copyImage(folder: Folder, from: string, to: string): void {
  for (const name of folder.names()) {
    if (name === from || name.startsWith(`${from}-log-`)) {
      copyFileSync(folder.file(name), folder.file(to + name.slice(from.length)));
    }
  }
}

test("address: given, taken, recorded, refused", { timeout }, () => {
  using folder = new Folder();
  const file = folder.file("a");
  const address = 0x4444_0000_0000;
  const options = { size, maxSize: 16 * mib };
  const heap = Heap.open({ file, address, ...options });
  assert.equal(heap.address, address);
  put(heap, 1);
  expectCode(() => Heap.open({ address, ...options }), "ADDRESS_IN_USE", { address });
  expectCode(() => Heap.open({ address: address + 65_536, ...options }), "ADDRESS_IN_USE");
  heap.flush();
  heap.close();

  using taker = Heap.open({ address, ...options });
  assert.equal(taker.address, address, "a closed heap's place can be taken");
  put(taker, 2);
  expectCode(() => Heap.open({ file, size }), "ADDRESS_IN_USE", { address });
  assert.equal(get(taker), 2);
  expectWell(taker);
  taker.close();
  using again = Heap.open({ file, size });
  assert.equal(again.address, address);
  assert.equal(get(again), 1);
  again.close();
  using same = Heap.open({ file, size, address });
  assert.equal(same.address, address);
  same.close();
  expectCode(() => Heap.open({ file, size, address: address + mib }), "INVALID_ARGUMENT");
  for (
    const bad of [
      1,
      4095,
      4097,
      address + 4096,
      2 ** 47,
      2 ** 52,
      -4096,
      0.5,
      NaN,
      "4096",
      4096n,
      null,
    ]
  ) {
    expectCode(() => Heap.open({ size, address: bad as number }), "INVALID_ARGUMENT");
  }
  expectCode(() => Heap.open({ size, address: 2 ** 47 - 65_536 }), "INVALID_ARGUMENT");
});

test("options that are none are refused, and nothing stays open", { timeout }, () => {
  using folder = new Folder();
  const file = folder.file("a");
  const bad: Record<string, unknown>[] = [
    {},
    { size: 0 },
    { size: -1 },
    { size: NaN },
    { size: 1.5 },
    { size: "1048576" },
    { size: 4096 },
    { size: 2 ** 46 },
    { size: 2 ** 53 },
    { size, maxSize: size - 1 },
    { size, maxSize: 0 },
    { size, maxSize: NaN },
    { size, maxSize: 2 ** 47 },
    { size, keep: 0 },
    { size, keep: -1 },
    { size, keep: 1.5 },
    { size, keep: 2 ** 40 },
    { size, logLimit: 0 },
    { size, logLimit: "1" },
    { size, tracker: "soft-dirty" },
    { size, tune: "always" },
    { size, verify: 1 },
    { size, recover: "yes" },
    { size, replace: null },
    { size, shared: 0 },
    { size, misspelt: true },
    { size, backup: "" },
    { size, backup: null },
    { size, file: "" },
    { size, file: 7 },
  ];
  for (const options of bad) {
    expectCode(
      () => Heap.open({ file, ...options } as unknown as { size: number }),
      "INVALID_ARGUMENT",
    );
  }
  for (const options of [undefined, null, 7, "a"]) {
    expectCode(() => Heap.open(options as unknown as { size: number }), "INVALID_ARGUMENT");
  }
  expectCode(() => Heap.open({ file: folder.file("x-new"), size }), "INVALID_ARGUMENT");
  expectCode(
    () => Heap.open({ file: folder.file("x-log-0123456789abcdef"), size }),
    "INVALID_ARGUMENT",
  );
  expectCode(() => Heap.open({ size, shared: true }), "INVALID_ARGUMENT");
  assert.deepEqual(folder.names(), []);
  using heap = Heap.open({ file, size: 1 << 16 });
  expectWell(heap);
});

test("the same file twice in one process is ALREADY_OPEN, by any name", { timeout }, () => {
  using folder = new Folder();
  const file = folder.file("a");
  symlinkSync(file, folder.file("link"));
  mkdirSync(folder.file("sub"));
  using heap = Heap.open({ file, size });
  const names = [file, folder.file("link"), folder.file("sub/../a"), folder.file("./a")];
  const refuse = (isThere: boolean) => {
    for (const name of names) {
      expectCode(() => Heap.open({ file: name, size }), "ALREADY_OPEN");
      expectCode(() => Heap.open({ backup: name, size }), "ALREADY_OPEN");
      expectCode(() => heap.bopen(name, "r+"), isThere ? "ALREADY_OPEN" : "NOT_FOUND");
      expectCode(() => heap.bopen(name, "w+"), "ALREADY_OPEN");
    }
    expectCode(() => Heap.open({ file: folder.file("b"), backup: file, size }), "ALREADY_OPEN");
  };
  refuse(false);
  put(heap, 1);
  heap.flush();
  refuse(true);
  heap.bopen(folder.file("c"), "w+");
  expectCode(() => Heap.open({ file: folder.file("c"), size }), "ALREADY_OPEN");
  heap.backup();
  expectCode(() => Heap.open({ file: folder.file("c"), size }), "ALREADY_OPEN");
  heap.bclose();
  Heap.open({ backup: folder.file("b"), size }).close();
  assert.equal(get(heap), 1);
  assert.equal(heap.flush().pages, 0);
  expectWell(heap);
  heap.close();
  using again = Heap.open({ file: folder.file("link"), size });
  assert.equal(get(again), 1);
  expectCode(
    () => Heap.open({ file: folder.file("d"), backup: folder.file("d"), size }),
    "ALREADY_OPEN",
  );
  assert.ok(!existsSync(folder.file("d")));
});

test("the same file in two processes is BUSY, claimed or committed; readers need no lock", {
  timeout,
}, async () => {
  using folder = new Folder();
  const file = folder.file("a");
  await using child = new Child(otherRuntime);
  await child.run(({ perm, state }, file) => {
    state.heap = perm.Heap.open({ file, size: 1 << 20 });
    state.heap.root = state.heap.calloc(1, 8);
  }, file);
  expectCode(() => Heap.open({ file, size }), "BUSY", { path: file });
  await child.run(({ state }) => state.heap.flush());
  expectCode(() => Heap.open({ file, size }), "BUSY", { path: file });
  const before = readFileSync(file);

  const reader = await elsewhere(thisRuntime, ({ perm }, file) => {
    const heap = perm.mopen(file, "r");
    return heap.load(heap.root) + heap.epoch;
  }, file);
  assert.equal(reader, 1);
  await child.kill();
  using heap = Heap.open({ file, size });
  assert.equal(heap.epoch, 1);
  assert.deepEqual(readFileSync(file), before);
  expectWell(heap);
});

test("two heaps that went apart: EXISTS naming both, and each opens alone", { timeout }, () => {
  using folder = new Folder();
  const [a, b] = [folder.file("a"), folder.file("b")];
  makeFile(a, 2);
  copyImage(folder, "a", "b");
  for (const [file, value] of [[a, 10], [b, 20]] as const) {
    using heap = Heap.open({ file, size });
    put(heap, value);
    assert.equal(heap.flush().epoch, 3);
  }
  for (const [file, backup] of [[a, b], [b, a]]) {
    const error = expectCode(() => Heap.open({ file, backup, size }), "EXISTS");
    assert.ok(error.message.includes(a) && error.message.includes(b), error.message);
  }
  {
    // The larger number wins nothing.
    using heap = Heap.open({ file: b, size });
    put(heap, 21);
    assert.equal(heap.flush().epoch, 4);
  }
  expectCode(() => Heap.open({ file: a, backup: b, size }), "EXISTS");
  using heap = Heap.open({ file: a, size });
  assert.equal(get(heap), 10);
  heap.bopen(b, "r+");
  expectCode(() => heap.backup(), "EXISTS", { path: b });
  heap.restore();
  assert.equal(get(heap), 21);
  put(heap, 22);
  heap.backup();
  expectWell(heap);
});

test("an older copy as backup is an ancestor, and catches up", { timeout }, () => {
  using folder = new Folder();
  const [a, b] = [folder.file("a"), folder.file("b")];
  makeFile(a, 2);
  copyImage(folder, "a", "b");
  {
    using heap = Heap.open({ file: a, size });
    put(heap, 3);
    heap.flush();
  }
  {
    using heap = Heap.open({ file: a, backup: b, size });
    assert.equal(heap.resumed, "file");
    assert.equal(get(heap), 3);
    assert.equal(heap.backup().epoch, 3);
  }
  using heap = Heap.open({ file: b, size });
  assert.equal(get(heap), 3);
  expectWell(heap);
});

test("files of two heaps: EXISTS naming both; w+ replaces another heap's backup only if told", {
  timeout,
}, () => {
  using folder = new Folder();
  const [a, b] = [folder.file("a"), folder.file("b")];
  makeFile(a, 1);
  makeFile(b, 2);
  const error = expectCode(() => Heap.open({ file: a, backup: b, size }), "EXISTS");
  assert.ok(error.message.includes(a) && error.message.includes(b), error.message);
  const before = readFileSync(b);

  using heap = Heap.open({ file: a, size });
  expectCode(() => heap.bopen(b, "w+"), "EXISTS", { path: b });
  assert.equal(heap.backupImage, null);
  heap.bopen(b, "r+");
  expectCode(() => heap.backup(), "EXISTS", { path: b });
  heap.bclose();
  heap.bopen(b, "w+", { replace: true });
  assert.deepEqual(readFileSync(b), before, "not before the first commit");
  heap.bclose();
  {
    using other = Heap.open({ file: b, size });
    assert.equal(get(other), 2);
  }
  heap.bopen(b, "w+", { replace: true });
  heap.backup();
  heap.close();
  using again = Heap.open({ file: a, backup: b, size });
  assert.equal(get(again), 1);
  assert.equal(again.backup().pages, 0);
  // Its own image may be made anew without being told twice.
  again.bclose();
  again.bopen(b, "w+");
  assert.ok(again.backup().pages > 0);
  again.restore();
  expectWell(again);
});

test("a file that is no image is never touched", { timeout }, () => {
  using folder = new Folder();
  const file = folder.file("notes.txt");
  const text = "not an image at all\n".repeat(1000);
  writeFileSync(file, text);
  using heap = Heap.open({ size });
  expectCode(() => Heap.open({ file, size }), "NOT_AN_IMAGE", { path: file });
  expectCode(() => Heap.open({ backup: file, size }), "NOT_AN_IMAGE");
  expectCode(() => Heap.open({ file: folder.file("new"), backup: file, size }), "NOT_AN_IMAGE");
  expectCode(() => heap.bopen(file, "r"), "NOT_AN_IMAGE", { path: file });
  expectCode(() => heap.bopen(file, "r+"), "NOT_AN_IMAGE", { path: file });
  expectCode(() => heap.bopen(file, "w+"), "EXISTS", { path: file });
  expectCode(() => Heap.open({ file: folder.path, size }), "NOT_AN_IMAGE");
  assert.equal(readFileSync(file, "utf8"), text);
  assert.deepEqual(folder.names(), ["notes.txt"]);
  expectWell(heap);
});

test("somebody replaces the file of an open heap: a new base is STALE, nothing is lost", {
  timeout,
}, () => {
  using folder = new Folder();
  const file = folder.file("a");
  using heap = Heap.open({ file, size });
  const p = heap.root = heap.malloc(mib);
  heap.bytes(p, mib).fill(1);
  heap.flush();
  renameSync(file, folder.file("moved"));
  writeFileSync(file, "another file");
  heap.bytes(p, mib).fill(2);
  expectCode(() => heap.flush(), "STALE", { path: file });
  assert.equal(readFileSync(file, "utf8"), "another file");
  expectWell(heap);
  rmSync(file);
  renameSync(folder.file("moved"), file);
  assert.equal(heap.flush().pages >= mib / 4096, true);
  heap.close();
  using again = Heap.open({ file, size });
  assert.ok(again.bytes(again.root, mib).every((byte) => byte === 2));
});

/** Changes so much that the next commit writes a new base. */
function putMuch(heap: Heap, value: number): void {
  put(heap, value);
  const p = heap.malloc(8 * mib);
  heap.bytes(p, 8 * mib).fill(value);
}

test("files that another program wrote behind while a heap had them open lose no commit", {
  timeout,
}, async () => {
  using folder = new Folder();
  const file = folder.file("a");
  await using reader = new Child(otherRuntime);
  for (const part of ["base", "log", "both"]) {
    for (const length of [1, 70_000]) {
      using heap = Heap.open({ file, size });
      put(heap, 1);
      heap.flush();
      put(heap, 2);
      heap.flush();
      for (const name of folder.names()) {
        if (part !== "both" && (part === "log") !== name.includes("-log-")) continue;
        appendFileSync(folder.file(name), new Uint8Array(length).fill(0x55));
      }
      put(heap, 3);
      const { epoch } = heap.flush();
      put(heap, 4);
      heap.flush();
      const found = await reader.run(({ perm }, file) => {
        using heap = perm.mopen(file, "r", undefined, { verify: true });
        return [heap.epoch, heap.load(heap.root)];
      }, file);
      assert.deepEqual(found, [epoch + 1, 4], `${part}, ${length}`);
      heap.close();
      using again = Heap.open({ file, size });
      assert.equal(get(again), 4);
      expectWell(again);
    }
  }
});

test("files that were deleted under an open heap are written anew, whole", {
  timeout,
}, async () => {
  using folder = new Folder();
  const file = folder.file("a");
  using heap = Heap.open({ file, size });
  put(heap, 1);
  heap.flush();
  for (const value of [2, 3]) {
    removeAll(folder);
    if (value === 2) put(heap, value);
    else putMuch(heap, value);
    assert.equal(heap.flush().epoch, value);
    copyImage(folder, "a", `copy${value}`);
    const stored = await elsewhere(thisRuntime, ({ perm }, file) => {
      const heap = perm.mopen(file, "r", undefined, { verify: true });
      return [heap.epoch, heap.load(heap.root)];
    }, folder.file(`copy${value}`));
    assert.deepEqual(stored, [value, value]);
  }
  heap.close();
  using again = Heap.open({ file, size, verify: true });
  assert.equal(get(again), 3);
});

for (const which of ["base", "log"] as const) {
  test(`a ${which} that another program cut off is written anew with the next commit`, {
    timeout,
  }, async () => {
    using folder = new Folder();
    for (const keep of [1, 3]) {
      for (const left of [0, 100, 4096]) {
        const name = `${keep}-${left}`;
        const file = folder.file(name);
        using heap = Heap.open({ file, size, keep });
        for (const value of [1, 2, 3]) {
          put(heap, value);
          heap.flush();
        }
        const log = folder.names().find((other) => other.startsWith(`${name}-log-`))!;
        truncateSync(which === "base" ? file : folder.file(log), left);
        // What is not whole is not mapped, where touching it would end the program.
        expectCode(() => heap.restore(), "CORRUPT", { message: /has cut it off/ });
        if (left > 0) put(heap, 4);
        // What was copied aside for it are the changes only: they stay pending.
        if (left === 4096) await expectRejects(heap.flushAsync(), "STALE", { message: /again/ });
        assert.equal((await (left === 4096 ? heap.flushAsync() : heap.flush())).epoch, 4);
        put(heap, 5);
        assert.equal((await (left === 0 ? heap.flushAsync() : heap.flush())).epoch, 5);
        assert.equal(heap.restore({ epoch: keep === 1 ? 5 : 4 }).epoch, keep === 1 ? 5 : 4);
        heap.close();
        using again = Heap.open({ file, size, verify: true });
        assert.equal(get(again), 5);
        expectWell(again);
      }
    }
  });
}

function removeAll(folder: Folder): void {
  for (const name of folder.names()) rmSync(folder.file(name));
}

test("a relative path is resolved once, and the folder may move", { timeout }, () => {
  using folder = new Folder();
  mkdirSync(folder.file("old"));
  const before = process.cwd();
  process.chdir(folder.file("old"));
  let heap: Heap;
  try {
    heap = Heap.open({ file: "a", backup: "../b", size });
  } finally {
    process.chdir(before);
  }
  putMuch(heap, 1);
  heap.flush();
  heap.backup();
  renameSync(folder.file("old"), folder.file("new"));
  putMuch(heap, 2);
  heap.flush();
  putMuch(heap, 3);
  heap.flush();
  heap.close();
  using again = Heap.open({ file: folder.file("new/a"), backup: folder.file("b"), size });
  assert.equal(get(again), 3);
  assert.ok(!existsSync(folder.file("old")));
});

test("a symbolic link stays one, and its target is what is replaced", { timeout }, () => {
  using folder = new Folder();
  mkdirSync(folder.file("there"));
  symlinkSync("there/target", folder.file("link"));
  for (const value of [1, 2]) {
    using heap = Heap.open({ file: folder.file("link"), size });
    assert.equal(heap.resumed, value === 1 ? "new" : "file");
    putMuch(heap, value);
    heap.flush();
    putMuch(heap, value);
    heap.flush();
  }
  assert.deepEqual(folder.names(), ["link", "there"]);
  assert.ok(lstatSync(folder.file("link")).isSymbolicLink());
  using heap = Heap.open({ file: folder.file("there/target"), size });
  assert.equal(get(heap), 2);
});

test("new files are their owner's alone; what replaces one keeps its mode", { timeout }, () => {
  using folder = new Folder();
  const file = folder.file("a");
  const modes = () => folder.names().map((name) => statSync(folder.file(name)).mode & 0o777);
  {
    using heap = Heap.open({ file, size });
    putMuch(heap, 1);
    heap.flush();
    assert.deepEqual(modes(), [0o600, 0o600]);
  }
  for (const name of folder.names()) chmodSync(folder.file(name), 0o640);
  using heap = Heap.open({ file, size });
  putMuch(heap, 2);
  heap.flush();
  putMuch(heap, 3);
  heap.flush();
  assert.equal(statSync(file).mode & 0o777, 0o640);
});
