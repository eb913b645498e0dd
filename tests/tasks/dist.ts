/**
 * Writes `dist/`, what npm delivers: the declarations, which Deno's packer makes of the same sources
 * and exports as JSR's; JavaScript, since Deno does not run TypeScript from `node_modules`; and the
 * library's file.
 *
 * The JavaScript is bundled, since a program that starts waits for every file, up to a millisecond in
 * Deno: `core.js` is ffi/, heap/ and tuning/, `data/mod.js` the rest. Nothing is minified, so that a
 * stack shows our own names. (Bun's `--splitting` would find the parts by itself, and call Heap Heap2.)
 *
 * Invariant: each entry exports what its source does.
 *
 * @module
 */
import { spawnSync } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { embedded } from "../../ffi/embedded.ts";
import * as mod from "../../mod.ts";
import * as tuning from "../../tuning/mod.ts";

/**
 * What of data/ a program runs once, when it opens a root. Not what it runs often: JavaScriptCore then takes
 * a function in parentheses for one that may be another, and a HashMap's `get` 40 ns instead of 16.
 */
const runOnce = new RegExp(
  `^(?:${
    [
      ...["struct", "expectName", "expectSchema", "expectTypeOf", "isType", "isKind", "layOut"],
      ...["alignUp", "isFlat", "accessor", "makerFor", "registerKind", "scalar", "ref", "lockType"],
      ...["HashMap", "elementType", "make", "keysOf", "integerKeys", "textKeys", "lookupFor"],
      ...["containerType", "hasten", "shapeOf", "roots", "rootsAt", "accessTo", "isText"],
      ...["schemaOf", "textOf", "readerOf"],
    ].join("|")
  })\\d*$`,
);

const root = fileURLToPath(new URL("../..", import.meta.url));
const work = mkdtempSync(`${root}node_modules/.perm-dist-`);
try {
  run(process.execPath, "pack", "--allow-dirty", "--no-source-maps", "-o", `${work}/package.tgz`);
  run("tar", "-xzf", `${work}/package.tgz`, "-C", work);
  const made = `${work}/package`;
  const packed = JSON.parse(readFileSync(`${made}/package.json`, "utf8"));
  const ours = JSON.parse(readFileSync(`${root}package.json`, "utf8"));
  if (packed.version !== ours.version) {
    throw new Error(`deno.json is at ${packed.version}, package.json at ${ours.version}`);
  }
  // npm's own package.json, at the top, is the one that counts.
  for (const name of readdirSync(made, { recursive: true, encoding: "utf8" })) {
    if (/\.(js|json)$|^README\.md$|^LICENSE$/.test(name)) rmSync(`${made}/${name}`);
  }
  bundle(made);
  copyFileSync(`${root}ffi/embedded.json`, `${made}/embedded.json`);
  for (const { file } of Object.values(embedded)) {
    // A clone that was never built has none; the package then decodes what it brings.
    if (existsSync(`${root}ffi/${file}`)) copyFileSync(`${root}ffi/${file}`, `${made}/${file}`);
  }
  rmSync(`${root}dist`, { recursive: true, force: true });
  renameSync(made, `${root}dist`);
} finally {
  rmSync(work, { recursive: true, force: true });
}

/** Writes the JavaScript of all entries. */
function bundle(into: string): void {
  const below = new Set<string>();
  const data = build("data/mod.ts", "--external=../ffi/*", "--external=../heap/*")
    .replaceAll(/from "\.\.\/((?:ffi|heap)\/\w+\.ts)"/g, (_, path) => {
      below.add(path);
      return 'from "../core.js"';
    });
  // The entry of tuning/ has names that ffi/ has too.
  const names = Object.keys(tuning);
  writeFileSync(
    `${work}/core.ts`,
    ["mod.ts", ...below].map((path) => `export * from ${JSON.stringify(root + path)};\n`).join("") +
      `export { ${names.map((name) => `${name} as tuning_${name}`)} } from ${
        JSON.stringify(`${root}tuning/mod.ts`)
      };\n`,
  );
  const core = build(`${work}/core.ts`, "--external=*/embedded.json");
  writeFileSync(`${into}/core.js`, compiledAtOnce(withoutAwait(core)));
  writeFileSync(`${into}/data/mod.js`, compiledAtOnce(data, runOnce));
  writeFileSync(`${into}/mod.js`, `export { ${Object.keys(mod).join(", ")} } from "./core.js";\n`);
  writeFileSync(
    `${into}/tuning/mod.js`,
    `export { ${
      names.map((name) => `tuning_${name} as ${name}`).join(", ")
    } } from "../core.js";\n`,
  );
}

/**
 * Fetches the library's bytes without waiting, in the one place that does: a module that awaits
 * cannot be had by `require`. Bundlers follow the first way, and bring the bytes; the second is for
 * modules that have no `require`. (Modules that come by https have neither, so the source awaits.)
 */
function withoutAwait(core: string): string {
  const parts = core.split(/\(await import\("[^"]*embedded\.json"[^)]*\)\)\.default/);
  if (parts.length !== 2) throw new Error(`embedded.json is awaited ${parts.length - 1} times`);
  return parts.join("libraryBytes()") + `
function libraryBytes() {
  try {
    return require("./embedded.json");
  } catch {
    const { createRequire } = process.getBuiltinModule("node:module");
    return createRequire(import.meta.url)("./embedded.json");
  }
}
`;
}

/**
 * Puts functions of a module's top into parentheses. V8 compiles such a function with its module,
 * which Deno keeps for the next run; any other is compiled when it is first called, in each run: opening
 * a heap calls two hundred, 10 to 30 µs each. They come first, as declarations are there from the start.
 */
function compiledAtOnce(module: string, which = /^/): string {
  const functions: string[] = [];
  const rest = module.replaceAll(
    /^(?:async )?function (\w+)\([^\n]*(?:\{\}|\{\n[^]*?\n\})$/gm,
    (text, name) => {
      if (!which.test(name)) return text;
      functions.push(`var ${name} = (${text});\n`);
      return "";
    },
  );
  if (functions.length < 20) throw new Error("a bundle's functions have another form");
  return functions.join("") + rest;
}

function build(entry: string, ...options: string[]): string {
  return run(
    `${root}node_modules/.bin/bun`,
    ...["build", entry, "--target=node", "--format=esm", ...options],
  );
}

function run(program: string, ...args: string[]): string {
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    cwd: root,
    encoding: "utf8",
    maxBuffer: 1 << 26,
  });
  if (status === 0) return stdout;
  throw new Error(`${program} ${args.join(" ")} failed: ${error?.message ?? stderr}`);
}
