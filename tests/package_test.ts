// What users get: the packages as JSR and npm deliver them, and README's examples run from them.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { after, test } from "node:test";
import { embedded } from "../ffi/embedded.ts";
import { command, repository, run, type Runtime, runtimes, thisRuntime } from "./runtimes.ts";
import { Folder } from "./support.ts";

const library = embedded["linux-x64"];

// A package is the same whoever packs it, so it is packed once: under Deno, which has the packers.
const packing = { skip: thisRuntime === "deno" ? false : "packed under Deno", timeout: 300_000 };
const npm = {
  ...packing,
  skip: packing.skip || (spawnSync("npm", ["--version"]).status === 0 ? false : "there is no npm"),
};

let packed: Folder | undefined;
after(() => packed?.[Symbol.dispose]());

/** The tarball that npm would publish, made once. */
function tarball(): string {
  if (packed === undefined) {
    succeed(command("deno", `${repository}tests/tasks/dist.ts`));
    packed = new Folder();
    succeed(["npm", "pack", "--ignore-scripts", "--pack-destination", packed.path]);
  }
  const [name, ...others] = packed.names();
  assert.match(name, /^perm-heap-.*\.tgz$/);
  assert.deepEqual(others, []);
  return packed.file(name);
}

/** Installs the tarball into a project that has nothing else, and runs no install script. */
function install(folder: Folder): void {
  writeFileSync(folder.file("package.json"), '{ "private": true, "type": "module" }');
  const flags = ["--ignore-scripts", "--no-audit", "--no-fund"];
  succeed(["npm", "install", ...flags, tarball()], folder.path);
}

/** Runs a script as its user would: no permission but FFI, no library but the package's own. */
function runInstalled(
  runtime: Runtime,
  folder: Folder,
  script: string,
  { args = [], permissions = [] }: { args?: string[]; permissions?: string[] } = {},
): string {
  const flags = ["--no-prompt", "--allow-ffi", ...permissions];
  return succeed(command(runtime, script, args, flags), folder.path);
}

function succeed(line: string[], directory?: string): string {
  // Empty is unset; what is left out, Deno hands on.
  const env = { PERM_LIBRARY: "" };
  const { code, out, err } = run(line, { env, ...(directory && { directory }) });
  assert.equal(code, 0, `${line.join(" ")}\n${out}${err}`);
  return out;
}

/** README's examples in TypeScript, first to last. */
function readmeExamples(): string[] {
  const readme = readFileSync(`${repository}README.md`, "utf8");
  return [...readme.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(([, text]) => text);
}

test("README's first example has ten lines, and goes on in the other runtime", npm, () => {
  using folder = new Folder();
  install(folder);
  const [example] = readmeExamples();
  assert.ok(example.trim().split("\n").length <= 10, "more than ten lines");
  writeFileSync(folder.file("example.ts"), example);
  assert.equal(runInstalled("deno", folder, "example.ts"), "visit 1, new\n");
  assert.equal(runInstalled("bun", folder, "example.ts"), "visit 2, file\n");
  assert.equal(runInstalled("bun", folder, "example.ts"), "visit 3, file\n");
  assert.equal(runInstalled("deno", folder, "example.ts"), "visit 4, file\n");
});

test("every example of README runs twice from the npm package, in both runtimes", npm, () => {
  for (const runtime of runtimes) {
    using folder = new Folder();
    install(folder);
    readmeExamples().forEach((example, index) => {
      writeFileSync(folder.file(`example${index}.ts`), example);
      for (const args of [[], ["-r"]]) {
        runInstalled(runtime, folder, `example${index}.ts`, { args });
      }
    });
  }
});

test("under Node the npm package is imported, and its first use says where it runs", npm, () => {
  using folder = new Folder();
  install(folder);
  writeFileSync(
    folder.file("node.js"),
    `import { Heap, mopen, PERM } from "@perm/heap";
import { struct, u8 } from "@perm/heap/data";
import { check } from "@perm/heap/tuning";
struct("S", { a: u8 });
for (const use of [
  () => Heap.open({ size: 1 << 20 }),
  () => mopen(null, "w+"),
  () => PERM.declare({ a: [Int32Array, 1] }),
  () => check(),
]) {
  try {
    use();
  } catch ({ code, message }) {
    console.log(code, message);
  }
}
`,
  );
  const said = succeed(["node", "node.js"], folder.path).trimEnd().split("\n");
  assert.equal(said.length, 4);
  for (const line of said) assert.match(line, /^UNSUPPORTED .*it needs Deno or Bun/);
});

test("the npm package brings JavaScript and declarations, and nothing to build with", npm, () => {
  using folder = new Folder();
  install(folder);
  const home = folder.file("node_modules/@perm/heap");
  const files = readdirSync(home, { recursive: true, encoding: "utf8" });
  assert.ok(files.includes("dist/mod.js") && files.includes("dist/mod.d.ts"));
  assert.ok(files.includes("README.md") && files.includes("LICENSE"));
  const strangers = files.filter((file) => /\.zig$|(?<!\.d)\.ts$|_test|node_modules/.test(file));
  assert.deepEqual(strangers, []);
  assert.deepEqual(files.filter((file) => file.endsWith(".so")), [`dist/${library.file}`]);
  assert.deepEqual(readdirSync(folder.file("node_modules")).filter((name) => name[0] !== "."), [
    "@perm",
  ]);
  const { scripts = {} } = JSON.parse(readFileSync(join(home, "package.json"), "utf8"));
  assert.ok(Object.keys(scripts).every((name) => name === "prepack"), "an install script");
});

test(
  "each entry of the npm package exports what its source does, under the same names",
  npm,
  async () => {
    using folder = new Folder();
    install(folder);
    writeFileSync(
      folder.file("names.ts"),
      `const told = {};
for (const entry of ["", "/data", "/tuning"]) {
  const module = await import("@perm/heap" + entry);
  told[entry] = Object.keys(module).sort().map((name) => {
    const it = module[name];
    return [name, String(it).startsWith("class") ? it.name : typeof it];
  });
}
console.log(JSON.stringify(told));
`,
    );
    const sources: Record<string, object> = {
      "": await import("../mod.ts"),
      "/data": await import("../data/mod.ts"),
      "/tuning": await import("../tuning/mod.ts"),
    };
    const wanted = Object.fromEntries(
      Object.entries(sources).map(([entry, module]) => [
        entry,
        Object.entries(module).sort(([a], [b]) => a < b ? -1 : 1).map((
          [name, it],
        ) => [name, String(it).startsWith("class") ? it.name : typeof it]),
      ]),
    );
    const told = runInstalled("deno", folder, "names.ts", { permissions: ["--allow-read"] });
    assert.deepEqual(JSON.parse(told), wanted);
  },
);

/** Opens a heap in the installed package, and tells which files of the package's library it has. */
const whichLibrary = `import { readFileSync } from "node:fs";
import { Heap } from "@perm/heap";
const heap = Heap.open({ size: 1 << 20 });
heap.root = heap.calloc(1, 8);
const maps = readFileSync("/proc/self/maps", "utf8");
console.log([...new Set(maps.match(/\\S*ph-[0-9a-f]{16}\\.so/g))].join(" "));
`;

test("the npm package loads its library's file where it lies", npm, () => {
  using folder = new Folder();
  install(folder);
  writeFileSync(folder.file("which.ts"), whichLibrary);
  const file = folder.file(`node_modules/@perm/heap/dist/${library.file}`);
  for (const runtime of runtimes) {
    const told = succeed(command(runtime, "which.ts"), folder.path);
    assert.equal(told, `${file}\n`);
  }
});

test("two copies of the npm package in a process have one library", npm, () => {
  using folder = new Folder();
  install(folder);
  // Where Deno lets a package read its own files.
  const place = "node_modules/@perm/heap";
  for (const copy of ["one", "two", "bare"]) {
    cpSync(folder.file(`${place}/dist`), folder.file(`${place}/${copy}`), { recursive: true });
  }
  rmSync(folder.file(`${place}/bare/${library.file}`));
  for (const [first, second] of [["one", "two"], ["one", "bare"], ["bare", "two"]]) {
    writeFileSync(
      folder.file("main.ts"),
      `import { Heap as First } from "./${place}/${first}/mod.js";
import { Heap as Second } from "./${place}/${second}/mod.js";
const heap = First.open({ size: 1 << 20 });
heap.root = heap.calloc(1, 8);
console.log(Second.attach(heap.handle).root === heap.root);
`,
    );
    for (const runtime of runtimes) {
      assert.equal(runInstalled(runtime, folder, "main.ts"), "true\n", `${first} and ${second}`);
    }
  }
});

test(
  "without its file, or with a part of it, the npm package brings the library's bytes itself",
  npm,
  () => {
    using folder = new Folder();
    install(folder);
    writeFileSync(folder.file("which.ts"), whichLibrary);
    const file = folder.file(`node_modules/@perm/heap/dist/${library.file}`);
    const [example] = readmeExamples();
    writeFileSync(folder.file("example.ts"), example);
    let visits = 0;
    for (const left of [library.bytes - 4096, 100, 0]) {
      if (left > 0) truncateSync(file, left);
      else rmSync(file);
      for (const runtime of runtimes) {
        const told = succeed(command(runtime, "which.ts"), folder.path);
        assert.match(told, /^\/memfd:\S+\n$/);
        visits++;
        const first = visits === 1 ? "new" : "file";
        assert.equal(runInstalled(runtime, folder, "example.ts"), `visit ${visits}, ${first}\n`);
      }
    }
  },
);

test(
  "a file that has the library's name and length but is none is not loaded, and the error says what was tried",
  npm,
  () => {
    using folder = new Folder();
    install(folder);
    const file = folder.file(`node_modules/@perm/heap/dist/${library.file}`);
    writeFileSync(file, new Uint8Array(library.bytes).fill(65));
    writeFileSync(
      folder.file("refused.ts"),
      `import { Heap } from "@perm/heap";
try {
  Heap.open({ size: 1 << 20 });
} catch ({ code, message }) {
  console.log(code, message);
}
`,
    );
    for (const runtime of runtimes) {
      const told = runInstalled(runtime, folder, "refused.ts");
      assert.match(told, /^UNSUPPORTED /);
      for (const tried of [file, "a memory file", "a private file in /tmp"]) {
        assert.ok(told.includes(tried), told);
      }
    }
  },
);

test(
  "a program of CommonJS modules requires the npm package, with its file and without",
  npm,
  () => {
    using folder = new Folder();
    install(folder);
    writeFileSync(
      folder.file("visit.cjs"),
      `const { Heap } = require("@perm/heap");
const { roots, u32, Vec } = require("@perm/heap/data");
const heap = Heap.open({ file: "visits.heap", size: 1 << 20 });
const visits = roots(heap).open("visits", Vec(u32));
visits.push(1);
heap.flush();
console.log(visits.length);
`,
    );
    let visits = 0;
    const expectVisits = () => {
      for (const runtime of runtimes) {
        assert.equal(runInstalled(runtime, folder, "visit.cjs"), `${++visits}\n`);
      }
    };
    expectVisits();
    rmSync(folder.file(`node_modules/@perm/heap/dist/${library.file}`));
    expectVisits();
  },
);

test("a program that was bundled with the npm package needs no file of it", npm, () => {
  using folder = new Folder();
  install(folder);
  const [example] = readmeExamples();
  writeFileSync(folder.file("example.ts"), example);
  const [bun] = command("bun", "");
  for (const flags of [["--outfile=one.js"], ["--outdir=several", "--splitting"]]) {
    succeed([bun, "build", "example.ts", "--target=node", ...flags], folder.path);
  }
  succeed([bun, "build", "example.ts", "--compile", "--outfile=alone"], folder.path);
  rmSync(folder.file("node_modules"), { recursive: true });
  let visits = 0;
  const expectVisit = (told: string) => {
    visits++;
    assert.equal(told, `visit ${visits}, ${visits === 1 ? "new" : "file"}\n`);
  };
  for (const runtime of runtimes) {
    expectVisit(runInstalled(runtime, folder, "one.js"));
    expectVisit(runInstalled(runtime, folder, "several/example.js"));
  }
  expectVisit(succeed([folder.file("alone")], folder.path));
});

test("the npm package's types are checked by its users", npm, () => {
  using folder = new Folder();
  install(folder);
  writeFileSync(folder.file("right.ts"), readmeExamples().at(0)!);
  const deno = command("deno", "").at(0)!;
  succeed([deno, "check", "right.ts"], folder.path);
  writeFileSync(
    folder.file("wrong.ts"),
    'import { Heap } from "@perm/heap";\nHeap.open({ size: "large" });\n',
  );
  assert.notEqual(run([deno, "check", "wrong.ts"], { directory: folder.path }).code, 0);
});

test("a Worker attaches to a heap of the npm package's library", npm, () => {
  using folder = new Folder();
  install(folder);
  writeFileSync(
    folder.file("worker.ts"),
    `import { Heap } from "@perm/heap";
self.onmessage = ({ data: { handle, pointer } }) => {
  const heap = Heap.attach(handle);
  heap.view(Float64Array, pointer, 1)[0] += 41;
  heap.close();
  self.postMessage("done");
};
`,
  );
  writeFileSync(
    folder.file("main.ts"),
    `import { Heap } from "@perm/heap";
const heap = Heap.open({ size: 1 << 20 });
const pointer = heap.calloc(1, 8);
heap.view(Float64Array, pointer, 1)[0] = 1;
const worker = new Worker(new URL("worker.ts", import.meta.url).href, { type: "module" });
worker.onmessage = () => {
  console.log(heap.view(Float64Array, pointer, 1)[0]);
  worker.terminate();
};
worker.postMessage({ handle: heap.handle, pointer });
`,
  );
  // Deno reads a Worker's own script from the disk, which is a permission of its own.
  const permissions = ["--allow-read=."];
  for (const runtime of runtimes) {
    assert.equal(runInstalled(runtime, folder, "main.ts", { permissions }), "42\n");
  }
});

test("deno publish finds nothing to object to", packing, () => {
  const deno = command("deno", "").at(0)!;
  const { code, out, err } = run([deno, "publish", "--dry-run", "--allow-dirty"]);
  assert.equal(code, 0, out + err);
  assert.doesNotMatch(out + err, /warning/i);
  for (
    const needed of [
      ...["mod.ts", "ffi/embedded.ts", "ffi/embedded.json", "tuning/mod.ts"],
      ...["README.md", "LICENSE"],
    ]
  ) {
    assert.ok((out + err).includes(`/${needed} (`), `${needed} is not published`);
  }
  assert.doesNotMatch(out + err, /_test\.ts|node_modules|\.zig|\.so|package-lock/);
});

const inGit = {
  skip: packing.skip || (existsSync(`${repository}.git`) ? false : "there is no git folder"),
};

test("tracked files name no machine's folders and no download addresses", inGit, () => {
  const listed = spawnSync("git", ["ls-files", "-z"], { cwd: repository, encoding: "utf8" }).stdout;
  const wrong = listed.split("\0").filter((file) => {
    if (file === "" || !existsSync(repository + file)) return false;
    const text = readFileSync(repository + file, "utf8");
    const home = process.env.HOME ?? "";
    return text.includes(repository) || (home.length > 5 && text.includes(`${home}/`)) ||
      (file.includes("lock") && text.includes('"resolved"'));
  });
  assert.deepEqual(wrong, []);
});
