// The kernel settings: on folders that stand for /proc/sys, and once on the real one.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import process from "node:process";
import { test } from "node:test";
import { apply, check, type TuningOptions, undo } from "../tuning/mod.ts";
import { command, repository, run, thisRuntime } from "./runtimes.ts";
import { expectCode, otherRuntime } from "./support.ts";

const usual = {
  "vm/dirty_writeback_centisecs": "500\n",
  "vm/dirty_background_ratio": "10\n",
  "vm/dirty_background_bytes": "0\n",
  "vm/dirty_ratio": "20\n",
  "vm/dirty_bytes": "0\n",
  "kernel/randomize_va_space": "2\n",
};
const tuned = {
  ...usual,
  "vm/dirty_writeback_centisecs": "0\n",
  "vm/dirty_background_ratio": "100\n",
  "vm/dirty_ratio": "100\n",
  "kernel/randomize_va_space": "0\n",
};
const names = [
  "vm.dirty_writeback_centisecs",
  "vm.dirty_background_ratio",
  "vm.dirty_ratio",
  "kernel.randomize_va_space",
];

type Files = Record<string, string>;

/** A folder that stands for /proc/sys, for the length of a test. */
class Root implements Disposable {
  readonly path: string = mkdtempSync(`${tmpdir()}/perm-tuning-`);
  readonly #names: string[];

  constructor(files: Files = usual) {
    this.#names = Object.keys(files);
    mkdirSync(`${this.path}/vm`);
    mkdirSync(`${this.path}/kernel`);
    for (const [name, text] of Object.entries(files)) this.write(name, text);
  }

  write(name: string, text: string): void {
    writeFileSync(`${this.path}/${name}`, text);
  }

  get stateFile(): string {
    return `${this.path}/perm-heap-tuning.json`;
  }

  get files(): Files {
    const text = (name: string) => readFileSync(`${this.path}/${name}`, "utf8");
    return Object.fromEntries(this.#names.map((name) => [name, text(name)]));
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true });
  }
}

/** A setting that everybody may read and nobody may write, root neither. */
function makeUnwritable(root: Root, name: string): void {
  rmSync(`${root.path}/${name}`);
  symlinkSync("/proc/sys/kernel/ngroups_max", `${root.path}/${name}`);
}

test("check() tells how each setting stands, and changes nothing", () => {
  using root = new Root();
  const { isTuned, settings, changed, saved } = check({ root: root.path });
  assert.equal(isTuned, false);
  assert.deepEqual(settings.map(({ name }) => name), names);
  assert.deepEqual(settings.map(({ current }) => current), [500, 10, 20, 2]);
  assert.deepEqual(settings.map(({ wanted }) => wanted), [0, 100, 100, 0]);
  assert.ok(settings.every(({ purpose, cost, notNeeded }) => purpose && cost && notNeeded));
  assert.deepEqual(changed, []);
  assert.equal(saved, null);
  assert.deepEqual(root.files, usual);
  assert.equal(existsSync(root.stateFile), false);
});

test("apply() sets what is not tuned, undo() puts back every byte and forgets", () => {
  using root = new Root();
  const applied = apply({ root: root.path });
  assert.equal(applied.isTuned, true);
  assert.deepEqual(applied.changed, names);
  assert.equal(applied.saved?.["vm.dirty_writeback_centisecs"], 500);
  assert.deepEqual(root.files, tuned);
  assert.ok(existsSync(root.stateFile));

  const undone = undo({ root: root.path });
  assert.equal(undone.isTuned, false);
  assert.deepEqual(undone.changed, names);
  assert.equal(undone.saved, null);
  assert.deepEqual(root.files, usual);
  assert.equal(existsSync(root.stateFile), false);
});

test("apply() touches only what differs", () => {
  using root = new Root({ ...tuned, "vm/dirty_ratio": "40\n" });
  assert.deepEqual(apply({ root: root.path }).changed, ["vm.dirty_ratio"]);
  assert.deepEqual(undo({ root: root.path }).changed, ["vm.dirty_ratio"]);
  assert.equal(root.files["vm/dirty_ratio"], "40\n");
});

test("apply() on tuned settings keeps no former values", () => {
  using root = new Root(tuned);
  assert.deepEqual(apply({ root: root.path }).changed, []);
  assert.equal(existsSync(root.stateFile), false);
});

test("a second apply() does not overwrite the former values", () => {
  using root = new Root();
  apply({ root: root.path });
  root.write("vm/dirty_ratio", "33\n");
  const again = apply({ root: root.path });
  assert.deepEqual(again.changed, ["vm.dirty_ratio"]);
  assert.equal(again.saved?.["vm.dirty_ratio"], 20);
  undo({ root: root.path });
  assert.deepEqual(root.files, usual);
});

test("undo() without former values changes nothing", () => {
  using root = new Root();
  assert.deepEqual(undo({ root: root.path }).changed, []);
  assert.deepEqual(root.files, usual);
});

test("undo() puts back limits that were given in bytes", () => {
  const inBytes = {
    ...usual,
    "vm/dirty_ratio": "0\n",
    "vm/dirty_bytes": "268435456\n",
    "vm/dirty_background_ratio": "0\n",
    "vm/dirty_background_bytes": "134217728\n",
  };
  using root = new Root(inBytes);
  apply({ root: root.path });
  // As the kernel does when a ratio is written.
  root.write("vm/dirty_bytes", "0\n");
  root.write("vm/dirty_background_bytes", "0\n");
  undo({ root: root.path });
  assert.deepEqual(root.files, inBytes);
});

test("settings without limits in bytes are applied and undone", () => {
  const { "vm/dirty_bytes": _, "vm/dirty_background_bytes": __, ...few } = usual;
  using root = new Root(few);
  assert.equal(apply({ root: root.path }).isTuned, true);
  undo({ root: root.path });
  assert.deepEqual(root.files, few);
});

test("a setting that is a pipe or a device is a problem, and nobody waits for it", () => {
  using root = new Root();
  const path = `${root.path}/vm/dirty_ratio`;
  const makers = [
    () => execFileSync("mkfifo", [path]),
    () => symlinkSync("/dev/zero", path),
    () => symlinkSync("/dev/full", path),
  ];
  for (const make of makers) {
    rmSync(path);
    make();
    const found = check({ root: root.path }).settings.find(({ name }) =>
      name === "vm.dirty_ratio"
    )!;
    assert.match(found.problem!, /a device or socket/);
    expectCode(() => apply({ root: root.path }), "IO");
  }
});

test("apply() that fails in the middle puts back what it changed", () => {
  using root = new Root();
  makeUnwritable(root, "kernel/randomize_va_space");
  const before = root.files;
  expectCode(() => apply({ root: root.path }), "PERMISSION", {
    message: /randomize_va_space.*root.*nothing is changed/,
  });
  assert.deepEqual(root.files, before);
  assert.equal(existsSync(root.stateFile), false);
});

test("apply() that may not write at all says so", () => {
  using root = new Root();
  for (const name of Object.keys(usual)) makeUnwritable(root, name);
  expectCode(() => apply({ root: root.path }), "PERMISSION", { message: /\broot\b/ });
  assert.equal(existsSync(root.stateFile), false);
});

test("undo() that fails keeps the former values for another try", () => {
  using root = new Root();
  apply({ root: root.path });
  makeUnwritable(root, "vm/dirty_ratio");
  expectCode(() => undo({ root: root.path }), "PERMISSION", {
    message: /these are not as they were: vm\.dirty_ratio$/,
  });
  assert.ok(existsSync(root.stateFile));
  rmSync(`${root.path}/vm/dirty_ratio`);
  root.write("vm/dirty_ratio", "100\n");
  undo({ root: root.path });
  assert.deepEqual(root.files, usual);
  assert.equal(existsSync(root.stateFile), false);
});

test("a setting that the kernel does not have is reported by check() and refused by apply()", () => {
  using root = new Root();
  rmSync(`${root.path}/kernel/randomize_va_space`);
  const { isTuned, settings } = check({ root: root.path });
  assert.equal(isTuned, false);
  assert.equal(settings[3].current, null);
  assert.match(settings[3].problem ?? "", /randomize_va_space/);
  expectCode(() => apply({ root: root.path }), "NOT_FOUND", { message: /randomize_va_space/ });
  assert.equal(readFileSync(`${root.path}/vm/dirty_ratio`, "utf8"), "20\n");
  assert.equal(existsSync(root.stateFile), false);
});

test("a setting that is no number is reported by check() and refused by apply()", () => {
  using root = new Root({ ...usual, "vm/dirty_ratio": "" });
  assert.match(check({ root: root.path }).settings[2].problem ?? "", /no number/);
  expectCode(() => apply({ root: root.path }), "IO", { message: /vm\.dirty_ratio/ });
  assert.equal(existsSync(root.stateFile), false);
});

test("damaged former values are refused and kept for a human", () => {
  for (const text of ['{"version":1,"val', "[]", '{"version":1,"values":{"vm.dirty_ratio":"x"}}']) {
    using root = new Root();
    root.write("perm-heap-tuning.json", text);
    for (const call of [check, apply, undo]) {
      expectCode(() => call({ root: root.path }), "CORRUPT", { message: /damaged/ });
    }
    assert.deepEqual(root.files, usual);
    assert.equal(readFileSync(root.stateFile, "utf8"), text);
  }
});

test("an empty file of former values, as a crash leaves it, counts as none", () => {
  using root = new Root();
  root.write("perm-heap-tuning.json", "");
  assert.equal(check({ root: root.path }).saved, null);
  apply({ root: root.path });
  undo({ root: root.path });
  assert.deepEqual(root.files, usual);
});

test("options of a wrong type are refused", () => {
  for (const root of ["", 5, null, {}, "\0"]) {
    const options = { root } as TuningOptions;
    for (const call of [check, apply, undo]) {
      expectCode(() => call(options), "INVALID_ARGUMENT");
    }
  }
});

const tune = (args: string[]) => {
  return run(command(thisRuntime, `${repository}tuning/main.ts`, args));
};

test("tune exits 1 when not tuned, 0 when tuned, and what it applied outlives it", () => {
  using root = new Root();
  const at = ["--root", root.path];
  assert.equal(tune([...at, "--check"]).code, 1);
  assert.deepEqual(root.files, usual);
  assert.equal(tune([...at, "--apply"]).code, 0);
  assert.deepEqual(root.files, tuned);
  assert.equal(tune([...at, "--check"]).code, 0);
  assert.equal(tune([...at, "--apply"]).code, 0);
  assert.equal(tune([...at, "--undo"]).code, 0);
  assert.deepEqual(root.files, usual);
  assert.equal(tune([...at, "--undo"]).code, 0);
});

test("tune without a flag applies for root and checks for others", () => {
  using root = new Root();
  const isRoot = process.getuid?.() === 0;
  assert.equal(tune(["--root", root.path]).code, isRoot ? 0 : 1);
  assert.deepEqual(root.files, isRoot ? tuned : usual);
});

test("tune --json prints one object with every setting", () => {
  using root = new Root();
  const { out } = tune(["--root", root.path, "--check", "--json"]);
  const { tuned, settings } = JSON.parse(out);
  assert.equal(tuned, false);
  assert.equal(settings.length, 4);
  assert.equal(settings[0].name, "vm.dirty_writeback_centisecs");
  assert.equal(settings[0].current, 500);
  assert.equal(settings[0].wanted, 0);
});

test("tune explains each setting", () => {
  using root = new Root();
  const { out } = tune(["--root", root.path, "--check"]);
  for (const name of names) assert.ok(out.includes(name));
  for (const word of ["for ", "costs ", "not needed "]) {
    assert.equal(out.split(`\n  ${word}`).length - 1, names.length);
  }
});

test("tune exits 2 with a message for what it cannot do", () => {
  using root = new Root();
  const at = ["--root", root.path];
  for (const args of [["--nonsense"], ["--check", "--undo"], ["--root"], ["extra"]]) {
    const { code, out, err } = tune(args);
    assert.equal(code, 2, args.join(" "));
    assert.equal(out, "");
    assert.notEqual(err, "");
  }
  assert.equal(tune(["--check", "--root", `${root.path}/none`]).code, 2);
  makeUnwritable(root, "vm/dirty_writeback_centisecs");
  const { code, err } = tune([...at, "--apply"]);
  assert.equal(code, 2);
  assert.match(err, /\broot\b/);
  const { error } = JSON.parse(tune([...at, "--apply", "--json"]).out);
  assert.equal(error.code, "PERMISSION");
});

test("tune needs --allow-ffi and nothing more of Deno", { skip: skipUnless("deno") }, () => {
  using root = new Root();
  const args = ["--apply", "--root", root.path];
  const script = `${repository}tuning/main.ts`;
  assert.equal(run(command("deno", script, args, ["--no-prompt", "--allow-ffi"])).code, 0);
  assert.deepEqual(root.files, tuned);
  // Without any permission flag Deno's child_process would grant the child all of them.
  const refused = run(command("deno", script, args, ["--no-prompt", "--deny-ffi"]));
  assert.equal(refused.code, 2);
  assert.match(refused.err, /--allow-ffi/);
});

test("what one runtime applied, the other undoes", () => {
  using root = new Root();
  const script = `${repository}tuning/main.ts`;
  const [first, second] = [thisRuntime, otherRuntime];
  assert.equal(run(command(first, script, ["--apply", "--root", root.path])).code, 0);
  assert.equal(run(command(second, script, ["--undo", "--root", root.path])).code, 0);
  assert.deepEqual(root.files, usual);
});

const real = "/proc/sys";
const realFiles = (): Files => {
  const text = (name: string) => readFileSync(`${real}/${name}`, "utf8");
  return Object.fromEntries(Object.keys(usual).map((name) => [name, text(name)]));
};

test("the real settings are applied and put back", { skip: skipUnlessTunable() }, () => {
  const before = realFiles();
  try {
    assert.equal(apply().isTuned, true);
    assert.equal(readFileSync(`${real}/vm/dirty_ratio`, "utf8"), "100\n");
    assert.equal(check().isTuned, true);
  } finally {
    undo();
  }
  assert.deepEqual(realFiles(), before);
  assert.equal(existsSync("/run/perm-heap-tuning.json"), false);
});

test("real limits in bytes are put back as such", { skip: skipUnlessTunable() }, () => {
  const { "vm/dirty_ratio": ratio, "vm/dirty_bytes": bytes } = realFiles();
  try {
    writeFileSync(`${real}/vm/dirty_bytes`, "1073741824\n");
    const before = realFiles();
    assert.equal(before["vm/dirty_ratio"], "0\n");
    try {
      apply();
      assert.equal(readFileSync(`${real}/vm/dirty_bytes`, "utf8"), "0\n");
    } finally {
      undo();
    }
    assert.deepEqual(realFiles(), before);
  } finally {
    if (bytes === "0\n") writeFileSync(`${real}/vm/dirty_ratio`, ratio);
    else writeFileSync(`${real}/vm/dirty_bytes`, bytes);
  }
});

test("a read-only /proc/sys is told as such", { skip: skipUnlessTunable() }, () => {
  const before = realFiles();
  const line = command(thisRuntime, `${repository}tuning/main.ts`, ["--apply"])
    .map((word) => `'${word}'`).join(" ");
  const remount = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys";
  const { code, err } = run(["unshare", "--mount", "sh", "-c", `${remount} && exec ${line}`]);
  assert.equal(code, 2);
  assert.match(err, /read-only.*on the host.*nothing is changed/i);
  assert.deepEqual(realFiles(), before);
  assert.equal(existsSync("/run/perm-heap-tuning.json"), false);
});

function skipUnless(runtime: string): string | false {
  return thisRuntime === runtime ? false : `about ${runtime}`;
}

function skipUnlessTunable(): string | false {
  if (process.getuid?.() !== 0) return "takes root";
  if (existsSync("/run/perm-heap-tuning.json")) return "the system is tuned by somebody else";
  try {
    writeFileSync(
      `${real}/vm/dirty_writeback_centisecs`,
      realFiles()["vm/dirty_writeback_centisecs"],
    );
    return false;
  } catch {
    return "takes a writable /proc/sys";
  }
}
