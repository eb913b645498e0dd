// Every error code that TypeScript can meet: how to meet it, and that the heap, the files and the
// runtime are well afterwards.
import assert from "node:assert/strict";
import { closeSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { test } from "node:test";
import { codes } from "../ffi/symbols.ts";
import { f64, roots, struct } from "../data/mod.ts";
import { type ErrorCode, Heap, malloc, mclose, mopen, PermError } from "../mod.ts";
import type { Tools } from "./remote.ts";
import { command, repository, run, thisRuntime } from "./runtimes.ts";
import {
  after,
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

/** What a case works on: a heap with the number 1 committed and the number 2 not yet. */
interface Bench {
  folder: Folder;
  /** Its map file. */
  file: string;
  heap: Heap;
}

/** Raises the error once. What it changes besides it puts back. */
type Case = (bench: Bench) => void | Promise<void>;

const cases: Partial<Record<ErrorCode, Case>> = {
  INVALID_ARGUMENT({ heap }) {
    expectCode(() => heap.malloc(NaN), "INVALID_ARGUMENT", { message: /NaN/ });
  },

  NOT_FOUND({ folder }) {
    const path = folder.file("missing");
    const error = expectCode(() => mopen(path, "r+"), "NOT_FOUND", { path });
    assert.ok(error.message.includes(path));
  },

  EXISTS({ heap }) {
    const target = new Uint8Array(8);
    heap.perm("block", target);
    expectCode(() => heap.perm("block", target), "EXISTS", { message: /block/ });
    heap.unperm("block");
  },

  async BUSY({ folder }) {
    const file = folder.file("other");
    await using child = new Child(otherRuntime);
    await child.run(({ perm, state }, file) => {
      state.heap = perm.Heap.open({ file, size: 1 << 20, maxSize: 1 << 24 });
      state.heap.flush();
    }, file);
    expectCode(() => Heap.open({ file, size }), "BUSY", { path: file });
    assert.equal(await child.end(), "exit 0");
    using heap = Heap.open({ file, size });
    assert.equal(heap.epoch, 1, "and free again");
  },

  READ_ONLY({ folder }) {
    makeFile(folder.file("other"), 1);
    using reader = mopen(folder.file("other"), "r");
    expectCode(() => malloc(8), "READ_ONLY");
    reader.check();
    mclose();
  },

  NOT_OPEN({ heap }) {
    expectCode(() => heap.backup(), "NOT_OPEN");
  },

  ALREADY_OPEN({ file }) {
    expectCode(() => Heap.open({ file, size }), "ALREADY_OPEN", { path: file });
  },

  CLOSED() {
    const closed = Heap.open({ size });
    closed.close();
    expectCode(() => closed.malloc(8), "CLOSED");
  },

  NO_COMMIT({ folder, heap }) {
    heap.bopen(folder.file("b"), "w+");
    expectCode(() => heap.restore(), "NO_COMMIT", { path: folder.file("b") });
    heap.bclose();
  },

  NO_EPOCH({ heap, file }) {
    expectCode(() => heap.restore({ epoch: 99 }), "NO_EPOCH", { message: /99/, path: file });
  },

  NOT_AN_IMAGE({ folder }) {
    const path = folder.file("text");
    writeFileSync(path, "no image");
    expectCode(() => Heap.open({ file: path, size }), "NOT_AN_IMAGE", { path });
    assert.equal(readFileSync(path, "utf8"), "no image");
  },

  BAD_VERSION({ folder }) {
    const path = folder.file("other");
    makeFile(path, 1);
    const restored = overwrite(path, 8, [77]);
    expectCode(() => Heap.open({ file: path, size }), "BAD_VERSION", { path, message: /77/ });
    restored();
    using heap = Heap.open({ file: path, size });
    assert.equal(get(heap), 1);
  },

  CORRUPT({ folder }) {
    const path = folder.file("other");
    makeFile(path, 1);
    const restored = overwrite(path, 100, [0x55, 0xaa, 0x55]);
    expectCode(() => Heap.open({ file: path, size }), "CORRUPT", { path });
    restored();
    using heap = Heap.open({ file: path, size });
    assert.equal(get(heap), 1);
  },

  ADDRESS_IN_USE({ heap }) {
    const { address } = heap;
    expectCode(() => Heap.open({ size, address }), "ADDRESS_IN_USE", { address });
  },

  BLOCK_MISMATCH({ heap }) {
    heap.global("g", Float64Array, 1);
    const error = expectCode(() => heap.global("g", Float64Array, 2), "BLOCK_MISMATCH");
    assert.match(error.message, /"g"/);
    heap.unperm("g");
  },

  OUT_OF_MEMORY({ heap }) {
    expectCode(() => heap.malloc(heap.stats().maxSize + 1), "OUT_OF_MEMORY");
  },

  async NO_SPACE({ folder }) {
    const file = folder.file("other");
    // The child may write files of 4 MiB at most: more is refused as on a full disk, without the
    // signal. Full file systems have their own tests.
    await using child = new Child(thisRuntime, after("trap '' XFSZ; ulimit -f 8192"));
    await child.run(({ perm, state }, file) => {
      const heap = state.heap = perm.Heap.open({ file, size: 1 << 20, maxSize: 1 << 24 });
      heap.root = heap.calloc(1, 8);
      heap.store(heap.root, 1);
      heap.flush();
      state.large = heap.malloc(8 << 20);
      heap.bytes(state.large, 8 << 20).fill(1);
      heap.store(heap.root, 2);
    }, file);
    await expectRejects(child.run(({ state }) => state.heap.flush()), "NO_SPACE", {
      message: /other/,
    });
    const stands = await elsewhere(thisRuntime, readNumber, file);
    assert.deepEqual(stands, [1, 1], "the last epoch stands meanwhile");
    const report = await child.run(({ state }) => {
      state.heap.check();
      state.heap.free(state.large);
      return state.heap.flush();
    });
    assert.ok(report.epoch >= 2, "and what is small enough is committed after all");
    assert.equal(await child.end(), "exit 0");
    using heap = Heap.open({ file, size, verify: true });
    assert.equal(heap.epoch, report.epoch);
    assert.equal(get(heap), 2);
    expectWell(heap);
  },

  async IO({ folder }) {
    const file = folder.file("other");
    await using child = new Child(thisRuntime, after("ulimit -n 200"));
    const { errno } = await child.run(async ({ perm, state }, file) => {
      const { closeSync, openSync } = await import("node:fs");
      const heap = state.heap = perm.Heap.open({ file, size: 1 << 20, maxSize: 1 << 24 });
      heap.root = heap.calloc(1, 8);
      heap.store(heap.root, 1);
      heap.flush();
      const large = heap.malloc(8 << 20);
      heap.bytes(large, 8 << 20).fill(1);
      heap.store(heap.root, 2);
      // A new base is due, and no file can be opened any more.
      const files: number[] = [];
      try {
        for (;;) files.push(openSync("/dev/null", "r"));
      } catch { /* as many as there can be */ }
      try {
        heap.flush();
      } catch (error) {
        if (!(error instanceof perm.PermError) || error.code !== "IO") throw error;
        heap.check();
        return { errno: error.errno };
      } finally {
        for (const opened of files) closeSync(opened);
      }
      return { errno: 0 };
    }, file);
    assert.equal(errno, 24, "EMFILE");
    assert.deepEqual(await elsewhere(thisRuntime, readNumber, file), [1, 1]);
    await child.run(({ state }) => void state.heap.flush());
    assert.equal(await child.end(), "exit 0");
    using heap = Heap.open({ file, size, verify: true });
    assert.equal(get(heap), 2);
    expectWell(heap);
  },

  BAD_POINTER({ heap }) {
    const p = heap.malloc(64);
    expectCode(() => heap.free(p + 8), "BAD_POINTER", { address: p + 8 });
    heap.free(p);
  },

  DOUBLE_FREE({ heap }) {
    const p = heap.malloc(64);
    heap.free(p);
    expectCode(() => heap.free(p), "DOUBLE_FREE", { address: p });
  },

  STALE({ folder }) {
    const file = folder.file("other");
    using heap = Heap.open({ file, size });
    put(heap, 1);
    writeFileSync(file, "in its place");
    expectCode(() => heap.flush(), "STALE", { path: file });
    assert.equal(readFileSync(file, "utf8"), "in its place");
    expectWell(heap);
    rmSync(file);
    heap.flush();
    heap.close();
    using again = Heap.open({ file, size });
    assert.equal(get(again), 1);
  },

  PERMISSION({ folder }) {
    const script = folder.file("refused.ts");
    writeFileSync(
      script,
      `import { Heap } from ${JSON.stringify(new URL("../mod.ts", import.meta.url).href)};
      for (let i = 0; i < 2; i++) {
        try { Heap.open({ size: 1 << 20 }); }
        catch (error) { console.log(error.name, error.code, error.message.includes("--allow-ffi")); }
      }`,
    );
    const flags = ["--no-prompt", "--allow-env", "--allow-read"];
    // No library, those of another folder, those of the folder that it runs in.
    for (const more of [[], ["--allow-ffi=/nowhere"], [`--allow-ffi=${folder.path}`]]) {
      const { out, code } = run(command("deno", script, [], [...flags, ...more]), {
        directory: folder.path,
        env: { PERM_LIBRARY: undefined },
      });
      assert.equal(out, "PermError PERMISSION true\n".repeat(2));
      assert.equal(code, 0);
    }
  },

  UNSUPPORTED({ folder }) {
    const file = folder.file("shared");
    expectCode(() => Heap.open({ file, size, shared: true, keep: 2 }), "UNSUPPORTED", {
      message: /shared/,
    });
    assert.ok(!folder.names().includes("shared"));
  },

  LAYOUT_MISMATCH() {
    using typed = Heap.open({ size });
    roots(typed).open("point", struct("Point", { x: f64, y: f64 })).y = 3;
    const shorter = struct("Point", { x: f64 });
    expectCode(() => roots(typed).get("point", shorter), "LAYOUT_MISMATCH", { message: /"point"/ });
    expectWell(typed);
  },
};

/** Codes that TypeScript cannot meet today. */
const unreachable: Partial<Record<ErrorCode, string>> = {
  FORKED: "a forked child of a JavaScript runtime must never return to JavaScript: tested in Zig",
};

test("every error code has its case here, or a reason why it has none", { timeout }, () => {
  const known = [...Object.keys(cases), ...Object.keys(unreachable)];
  assert.deepEqual(known.sort(), codes.filter((code) => code !== "").sort());
});

for (const [code, raise] of Object.entries(cases)) {
  test(`${code}: the heap, its file and the runtime are well afterwards`, { timeout }, async () => {
    using folder = new Folder();
    const file = folder.file("a.perm");
    const heap = Heap.open({ file, size, maxSize: 8 * mib });
    put(heap, 1);
    assert.equal(heap.flush().epoch, 1);
    put(heap, 2);
    const { address, epoch } = heap;
    const { liveBlocks, liveBytes } = heap.stats();
    const names = folder.names().filter((name) => name.startsWith("a.perm"));

    await raise({ folder, file, heap });

    assert.equal(get(heap), 2, "what was not committed is there still");
    assert.deepEqual([heap.address, heap.epoch], [address, epoch]);
    const stats = heap.stats();
    // The table of blocks, once made, stays.
    const tables = code === "EXISTS" || code === "BLOCK_MISMATCH" ? 1 : 0;
    assert.equal(stats.liveBlocks, liveBlocks + tables);
    if (tables === 0) assert.equal(stats.liveBytes, liveBytes);
    assert.deepEqual(folder.names().filter((name) => name.startsWith("a.perm")), names);
    expectWell(heap);
    const committed = await elsewhere(otherRuntime, readNumber, file);
    assert.deepEqual(committed, [1, 1], "the file holds the last epoch, whole");
    assert.equal(heap.flush().epoch, 2);
    heap.close();
    using again = Heap.open({ file, size, verify: true });
    assert.equal(get(again), 2);
    expectWell(again);
  });
}

test("a PermError is an Error that shows where it was thrown, and has only what applies to it", {
  timeout,
}, () => {
  const error = expectCode(() => Heap.open({ size: NaN }), "INVALID_ARGUMENT");
  assert.ok(error instanceof Error && error instanceof PermError);
  assert.match(String(error), /^PermError: Cannot /);
  assert.match(error.stack ?? "", /errors_test/);
  for (const name of ["path", "address", "errno"] as const) assert.ok(!(name in error), name);
});

test("text in messages is cut and quoted, never broken", { timeout }, () => {
  using heap = Heap.open({ size });
  const names = ["x".repeat(1024), "ü".repeat(512), "😀".repeat(256), 'quote"newline\n', "\u202e"];
  for (const name of names) {
    expectCode(() => heap.unperm(name), "NOT_FOUND");
    const error = expectCode(() => mopen(`/nowhere/${name.slice(0, 100)}`, "r+"), "NOT_FOUND");
    assert.equal(error.path, `/nowhere/${name.slice(0, 100)}`);
  }
  expectWell(heap);
});

test("what cannot even be looked at is refused like everything else", { timeout }, () => {
  using heap = Heap.open({ size });
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  const nameless = Object.defineProperty({}, Symbol.toStringTag, {
    get: () => {
      throw new Error("no name");
    },
  });
  for (const value of [proxy, nameless]) {
    expectCode(() => heap.malloc(value as never), "INVALID_ARGUMENT", { message: /an object/ });
  }
});

test("what a stray write did to the table of blocks is CORRUPT, and restore() heals it", {
  timeout,
}, () => {
  using folder = new Folder();
  using heap = Heap.open({ file: folder.file("a"), size });
  put(heap, 1);
  heap.global("g", Float64Array, 4);
  heap.flush();
  const { view } = heap.window(heap.root);
  for (let at = 0; at < heap.used && at < view.byteLength; at++) view.setUint8(at, 0xfe);
  expectCode(() => heap.check(), "CORRUPT");
  expectCode(() => heap.global("g", Float64Array, 4), "CORRUPT");
  expectCode(() => heap.perm("p", new Uint8Array(8)), "CORRUPT");
  expectCode(() => heap.unperm("g"), "CORRUPT");
  heap.restore();
  assert.equal(get(heap), 1);
  assert.deepEqual([...heap.global("g", Float64Array, 4)], [0, 0, 0, 0]);
  expectWell(heap);
});

test("errors of calls that run at once are not mistaken for each other", { timeout }, async () => {
  using heap = Heap.open({ size });
  const errors = await Promise.all([
    heap.flushAsync().catch((error) => error),
    heap.backupAsync().catch((error) => error),
    expectCode(() => heap.free(1), "BAD_POINTER"),
  ]);
  assert.deepEqual(errors.map(({ code }) => code), ["NOT_OPEN", "NOT_OPEN", "BAD_POINTER"]);
  assert.match(errors[0].message, /map file/);
  assert.match(errors[1].message, /backup file/);
});

test("a library that cannot be loaded is UNSUPPORTED, and says what was tried", { timeout }, () => {
  using folder = new Folder();
  const script = folder.file("load.ts");
  writeFileSync(
    script,
    `import { Heap } from ${JSON.stringify(new URL("../mod.ts", import.meta.url).href)};
    try { Heap.open({ size: 1 << 20 }); console.log("loaded"); }
    catch (error) { console.log(error.name, error.code, error.message.includes("PERM_LIBRARY")); }`,
  );
  const other = `${repository}package.json`;
  for (const library of [folder.file("missing.so"), other]) {
    const { out } = run(command(thisRuntime, script), { env: { PERM_LIBRARY: library } });
    assert.equal(out, "PermError UNSUPPORTED true\n");
  }
});

test("importing alone loads no library and needs no permission", { timeout }, () => {
  using folder = new Folder();
  const script = folder.file("import.ts");
  const module = (path: string) => JSON.stringify(new URL(path, import.meta.url).href);
  writeFileSync(
    script,
    `import { Heap } from ${module("../mod.ts")};
    import { struct, u8 } from ${module("../data/mod.ts")};
    struct("S", { a: u8 });
    console.log(typeof Heap.open);`,
  );
  const { out, err } = run(command(thisRuntime, script, [], ["--no-prompt", "--deny-ffi"]), {
    env: { PERM_LIBRARY: folder.file("missing.so") },
  });
  assert.deepEqual([out, err], ["function\n", ""]);
});

/** Runs in another process: the epoch that the file holds, and the number in it. */
function readNumber({ perm }: Tools, file: string): [epoch: number, value: number] {
  const heap = perm.mopen(file, "r", undefined, { verify: true });
  return [heap.epoch, heap.load(heap.root)];
}

/** Overwrites bytes of a file; gives a function that puts back what was there. */
function overwrite(path: string, offset: number, bytes: number[]): () => void {
  const before = readFileSync(path).subarray(offset, offset + bytes.length);
  const write = (data: Uint8Array) => {
    const file = openSync(path, "r+");
    writeSync(file, data, 0, data.length, offset);
    closeSync(file);
  };
  write(Uint8Array.from(bytes));
  return () => write(before);
}
