/**
 * libperm as programs in C and C++ have it: PERM's interface, the malloc family, refusals, threads,
 * forks, several programs. The programs stand in tests/native/.
 */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { existsSync, statSync } from "node:fs";
import process from "node:process";
import test from "node:test";
import { Heap } from "../mod.ts";
import {
  compile,
  gnuCompiler,
  libperm,
  muslCompiler,
  runIn,
  skipNative,
  zigCompiler,
} from "./native.ts";
import { Folder } from "./support.ts";
import { run } from "./runtimes.ts";

const options = { skip: skipNative, timeout: 300_000 };
const withGnu = { ...options, skip: skipNative || (gnuCompiler ? false : "gcc is not installed") };

/** C++ takes Zig a minute to prepare, once: GNU's compiler goes first where there is one. */
const cpp = gnuCompiler === undefined || process.env.PERM_TEST_ALL ? zigCompiler : gnuCompiler;

const noRandomization = spawnSync("setarch", ["-R", "true"]).status === 0
  ? false
  : "no setarch here";

/** PERM's example: set out, be killed in the fourth step, go on from the third. */
function voyage(folder: Folder, program: string): void {
  const start = runIn(folder, [program, "", "4"], { exit: "killed" });
  assert.equal(start, "step 1, distance 1\nstep 2, distance 3\nstep 3, distance 6\n");
  const again = runIn(folder, [program, "-r", "5"], { exit: "killed" });
  assert.equal(again, "restored at step 3\nstep 4, distance 10\n");
  const end = runIn(folder, [program, "-r"]);
  assert.equal(end, "restored at step 4\nstep 5, distance 15\nstep 6, distance 21\narrived\n");
  // PERM's programs set out anew over the files of an earlier voyage.
  assert.equal(runIn(folder, [program, "", "2"], { exit: "killed" }), "step 1, distance 1\n");
  assert.match(runIn(folder, [program, "-r"]), /^restored at step 1\nstep 2[^]*arrived\n$/);
}

test(
  "PERM's example in C goes on after a kill, with libperm.so and Zig's compiler",
  options,
  () => {
    using folder = new Folder();
    voyage(folder, compile(folder, "voyage.c", { flags: ["-DPERM_MANGLE"] }));
  },
);

test("PERM's example in C goes on after a kill, with libperm.a and musl", options, () => {
  using folder = new Folder();
  voyage(
    folder,
    compile(folder, "voyage.c", {
      compiler: muslCompiler,
      static: true,
      flags: ["-DPERM_MANGLE"],
    }),
  );
});

test("PERM's example in C goes on after a kill, with gcc, shared and static", withGnu, () => {
  for (const isStatic of [false, true]) {
    using folder = new Folder();
    const flags = ["-DPERM_MANGLE"];
    voyage(folder, compile(folder, "voyage.c", { compiler: gnuCompiler, static: isStatic, flags }));
  }
});

test("PERM's example in C goes on after a kill, with libperm.so and the system's musl", {
  ...options,
  skip: skipNative || (existsSync("/lib/ld-musl-x86_64.so.1") ? false : "no musl here"),
}, () => {
  using folder = new Folder();
  const c = [...muslCompiler.c.filter((flag) => flag !== "-static"), "-dynamic"];
  const compiler = { name: "zig cc, musl, shared", c, cpp: [] };
  voyage(folder, compile(folder, "voyage.c", { compiler, flags: ["-DPERM_MANGLE"] }));
});

test("PERM's example in C++ goes on after a kill", options, () => {
  using folder = new Folder();
  const program = compile(folder, "voyage.cpp", { compiler: cpp });
  const start = runIn(folder, [program, "", "3"], { exit: "killed" });
  assert.equal(start, "built\nstep 1\nstep 2\n");
  const end = runIn(folder, [program, "-r"]);
  assert.equal(end, "restored at step 3\nstep 3\nstep 4\nstep 5\ndestroyed\n");
});

test("list, map, unordered_map, vector and string in the heap survive a kill", options, () => {
  using folder = new Folder();
  const program = compile(folder, "shelf.cpp", { compiler: cpp });
  assert.equal(runIn(folder, [program], { exit: "killed" }), "put\n");
  assert.equal(runIn(folder, [program, "-r"]), "compared\n");
});

test("the same from C++17 and C++20, with libperm.a", options, () => {
  for (const standard of ["-std=c++17", "-std=c++20"]) {
    using folder = new Folder();
    const program = compile(folder, "shelf.cpp", {
      compiler: cpp,
      static: true,
      flags: [standard],
    });
    assert.equal(runIn(folder, [program], { exit: "killed" }), "put\n");
    assert.equal(runIn(folder, [program, "-r"]), "compared\n");
  }
});

test("PERM_OVERRIDE_NEW puts ordinary containers into the heap", options, () => {
  using folder = new Folder();
  const program = compile(folder, "override.cpp", { compiler: cpp, flags: ["-std=c++17"] });
  assert.equal(runIn(folder, [program], { exit: "killed" }), "");
  assert.equal(runIn(folder, [program, "-r"]), "overridden\n");
});

test("PERM_MANGLE gives malloc and std::malloc the heap in C++", options, () => {
  using folder = new Folder();
  assert.equal(runIn(folder, [compile(folder, "mangle.cpp", { compiler: cpp })]), "mangled\n");
});

test("a program that only backs up goes on, with its map file and without", options, () => {
  const flags = ["-Wl,--gc-sections", "-ffunction-sections", "-fdata-sections"];
  for (const build of [{ flags }, { compiler: muslCompiler, static: true, flags }]) {
    using folder = new Folder();
    const program = compile(folder, "backups.c", build);
    for (const how of ["r+", "lost"]) {
      runIn(folder, [program, "w+"], { exit: "killed" });
      assert.equal(runIn(folder, [program, how]), "kept\n");
    }
  }
});

test("blocks of one program are read by another build of it, by name", options, () => {
  using folder = new Folder();
  const program = compile(folder, "blocks.c");
  assert.equal(runIn(folder, [program, "write", "names"]), "wrote 256\n");
  using other = new Folder();
  const reader = compile(other, "blocks.c", { compiler: muslCompiler, static: true });
  assert.equal(runIn(folder, [reader, "read", "names"]), "read 256\n");
  // By address only the same program finds them.
  assert.equal(runIn(folder, [program, "write", "addresses"]), "wrote 256\n");
  assert.equal(runIn(folder, [program, "read", "addresses"]), "read 256\n");
  assert.match(runIn(folder, [reader, "read", "addresses"], { exit: 1 }), /perm_named/);
});

test("two programs share the PERM section where the linker puts it at one address", withGnu, () => {
  using folder = new Folder();
  using other = new Folder();
  const flags = ["-Wl,--section-start=persistent=0x20000000"];
  const writer = compile(folder, "blocks.c", { compiler: gnuCompiler, flags });
  const reader = compile(other, "blocks.c", {
    compiler: gnuCompiler,
    static: true,
    flags,
  });
  assert.equal(runIn(folder, [writer, "write", "section"]), "wrote 256\n");
  assert.equal(runIn(folder, [reader, "read", "section"]), "read 256\n");
});

test("a program that was loaded elsewhere is refused its globals, and told what to do", {
  ...options,
  skip: skipNative || noRandomization,
}, () => {
  using folder = new Folder();
  const program = compile(folder, "moved.c", { flags: ["-fPIE", "-pie"] });
  assert.equal(runIn(folder, [program, "w+"]), "made\n");
  for (const how of ["r+", "restore"]) {
    // With few random bits the program may lie where it lay once in a great many runs.
    const out = runIn(folder, [program, how]);
    assert.match(out, /^BLOCK_MISMATCH: .*setarch -R.*deno task tune/);
  }
  using fixed = new Folder();
  const still = ["setarch", "-R", program];
  assert.equal(runIn(fixed, [...still, "w+"]), "made\n");
  assert.equal(runIn(fixed, [...still, "r+"]), "same\n");
  assert.equal(runIn(fixed, [...still, "restore"]), "same\n");
});

test("a shared library has a PERM block of its own", {
  ...options,
  skip: skipNative || noRandomization,
}, () => {
  using folder = new Folder();
  const library = compile(folder, "module.c", { flags: ["-shared", "-fPIC"] });
  const program = compile(folder, "modules.c", { flags: [library, `-Wl,-rpath,${folder.path}`] });
  assert.equal(runIn(folder, ["setarch", "-R", program, "w+"]), "20 10\n");
  assert.equal(runIn(folder, ["setarch", "-R", program, "r+"]), "21 11\n");
  assert.equal(runIn(folder, ["setarch", "-R", program, "r+"]), "22 12\n");
});

test("bad input is refused as C and POSIX say, and wrong order as PERM does", options, () => {
  using folder = new Folder();
  assert.equal(runIn(folder, [compile(folder, "refusals.c")]), "all refused\n");
});

test("a program that may open no more files is told which limit to raise", options, () => {
  using folder = new Folder();
  const program = compile(folder, "voyage.c", { flags: ["-DPERM_MANGLE"] });
  // At opening, at the second file, at the first commit.
  for (const limit of [4, 6, 8]) {
    const out = runIn(folder, ["sh", "-c", `ulimit -n ${limit}; exec "$0"`, program], { exit: 1 });
    assert.match(out, /perm_error: Cannot .* "voyage\.\w+": .*raise its limit \(ulimit -n\)/);
  }
  assert.match(runIn(folder, [program]), /arrived\n$/);
});

test("a heap that another process writes is BUSY until it lets go", options, () => {
  using folder = new Folder();
  const program = compile(folder, "voyage.c", { flags: ["-DPERM_MANGLE"] });
  runIn(folder, [program, "", "4"], { exit: "killed" });
  {
    using heap = Heap.open({ file: folder.file("voyage.mmap"), size: 1 << 20 });
    assert.equal(heap.resumed, "file");
    const out = runIn(folder, [program, "-r"], { exit: 1 });
    assert.match(out, /mopen\(MAP_FILE, mode[^]*another writer has it open/);
  }
  assert.match(runIn(folder, [program, "-r"]), /arrived/);
});

test("several heaps, epochs, named blocks and roots from C", options, () => {
  using folder = new Folder();
  const program = compile(folder, "heaps.c");
  assert.equal(runIn(folder, [program, "make"], { exit: "killed" }), "made\n");
  // The same heap from TypeScript.
  using heap = Heap.open({ file: folder.file("one.heap"), size: 1 << 20, keep: 4 });
  const visits = heap.global("visits", Float64Array, 1);
  assert.equal(visits[0], 3);
  assert.equal(new TextDecoder().decode(heap.bytes(heap.root, 5)), "hello");
  heap.check();
  heap.close();
  using other = Heap.open({ file: folder.file("two.heap"), size: 1 << 20 });
  other.global("elsewhere", Float64Array, 1)[0] = 2.5;
  other.flush();
  other.close();
  assert.equal(runIn(folder, [program, "again"]), "again\n");
});

test("the environment names a heap for a program that knows of none", options, () => {
  using folder = new Folder();
  const program = compile(folder, "environment.c", { flags: ["-DPERM_MANGLE"] });
  const env = { PERM_FNAME: "env.heap", PERM_SIZE: "4M", PERM_ADDRESS: "0x4a0000000000" };
  assert.equal(runIn(folder, [program], { env }), "1 at 0x4a0000000000\n");
  assert.equal(
    runIn(folder, [program], { env: { ...env, PERM_MODE: "r+" } }),
    "2 at 0x4a0000000000\n",
  );
  // PERM_ADDRESS is for new heaps.
  const elsewhere = { ...env, PERM_MODE: "r+", PERM_ADDRESS: "0x4b0000000000" };
  assert.equal(runIn(folder, [program], { env: elsewhere }), "3 at 0x4a0000000000\n");
  const refused: [Record<string, string>, RegExp][] = [
    [{ PERM_SIZE: "4X" }, /INVALID_ARGUMENT: .*PERM_SIZE is "4X"/],
    [{ PERM_SIZE: "-1" }, /INVALID_ARGUMENT: .*PERM_SIZE is "-1"/],
    [{ PERM_MODE: "rw" }, /INVALID_ARGUMENT: .*PERM_MODE is "rw"/],
    [{ PERM_ADDRESS: "here" }, /INVALID_ARGUMENT: .*PERM_ADDRESS is "here"/],
    [{ PERM_ADDRESS: "0x1000" }, /INVALID_ARGUMENT: .*multiple of 65536/],
    [{ PERM_FNAME: "no/such/place" }, /NOT_FOUND: .*no\/such\/place/],
    [{ PERM_FNAME: "none", PERM_MODE: "r+" }, /NOT_FOUND: .*none/],
    [{ PERM_FNAME: "" }, /NOT_OPEN: .*PERM_FNAME/],
  ];
  for (const [change, message] of refused) {
    assert.match(runIn(folder, [program], { env: { ...env, ...change }, exit: 3 }), message);
  }
});

test(
  "the environment's heap takes what C++ makes before main, and is committed at exit",
  options,
  () => {
    using folder = new Folder();
    const program = compile(folder, "early.cpp", { compiler: cpp });
    const env = { PERM_FNAME: "early.heap", PERM_SIZE: "4M" };
    assert.equal(runIn(folder, [program], { env }), "1 keys, early in the heap\n");
    const again = { ...env, PERM_MODE: "r+" };
    assert.equal(runIn(folder, [program], { env: again }), "2 keys, early in the heap\n");
    assert.equal(runIn(folder, [program], { env: again }), "3 keys, early in the heap\n");
    // Only reading: what is made anew lies elsewhere, and goes with the process.
    const reading = { ...env, PERM_MODE: "r" };
    for (let i = 0; i < 2; i++) {
      assert.equal(runIn(folder, [program], { env: reading }), "4 keys, early elsewhere\n");
    }
    assert.equal(runIn(folder, [program]), "1 keys, early elsewhere\n");
  },
);

test("blocks are whole in every commit while threads allocate and free", options, () => {
  using folder = new Folder();
  const program = compile(folder, "threads.c");
  assert.equal(runIn(folder, [program, "make"], { exit: "killed" }), "9 rounds\n");
  assert.match(runIn(folder, [program, "again"]), /^9 rounds, \d{3,4} blocks whole\ndone\n$/);
});

test("threads of a static program with musl come and go", options, () => {
  using folder = new Folder();
  const program = compile(folder, "threads.c", { compiler: muslCompiler, static: true });
  assert.equal(runIn(folder, [program, "make"], { exit: "killed" }), "9 rounds\n");
  assert.match(runIn(folder, [program, "again"]), /blocks whole\ndone\n$/);
});

test("a forked child has a copy that it cannot commit, whole beside a busy thread", options, () => {
  using folder = new Folder();
  assert.equal(runIn(folder, [compile(folder, "fork.c")]), "forked\n");
});

test("kill -9 at any moment leaves a voyage that goes on", options, async () => {
  using folder = new Folder();
  const program = compile(folder, "voyage.c", { flags: ["-DPERM_MANGLE"] });
  runIn(folder, [program, "", "2"], { exit: "killed" });
  for (let i = 0; i < 12; i++) {
    const child = spawn(program, ["-r"], { cwd: folder.path, stdio: "ignore" });
    const ended = new Promise((resolve) => child.on("exit", resolve));
    await new Promise((resolve) => setTimeout(resolve, i));
    child.kill("SIGKILL");
    await ended;
    if (!existsSync(folder.file("voyage.mmap"))) break;
    const { out } = run([program, "-r", "6"], { directory: folder.path });
    if (out.includes("restored at step 5")) runIn(folder, [program, "", "2"], { exit: "killed" });
  }
  assert.match(runIn(folder, [program, "-r"]), /arrived/);
});

test("libperm is installed with headers and pkg-config, and is found there", {
  ...options,
  skip: skipNative ||
    (spawnSync("pkg-config", ["--version"]).status === 0 ? false : "no pkg-config here"),
}, () => {
  const prefix = libperm();
  const env = { PKG_CONFIG_PATH: `${prefix}/lib/pkgconfig` };
  const { out, code } = run(["pkg-config", "--cflags", "--libs", "perm"], { env });
  assert.equal(code, 0);
  const [include, lib, name] = out.trim().split(/\s+/);
  assert.equal(name, "-lperm");
  assert.ok(
    existsSync(`${include.slice(2)}/perm.h`) && existsSync(`${include.slice(2)}/pallocator.hpp`),
  );
  assert.ok(statSync(`${lib.slice(2)}/libperm.so`).isFile());
  assert.ok(statSync(`${lib.slice(2)}/libperm.a`).isFile());
});
