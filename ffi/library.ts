/**
 * Finding and loading the native library, once, at first use.
 *
 * Order: `PERM_LIBRARY`; the unique soname of the package's library, by which a Worker or a second
 * copy of this package finds the copy that its process already has; the file of that name beside this
 * module; the same bytes through a memory file; through a private file that is removed again; on
 * other platforms what `zig build` made. A library is only taken when its ABI hash is ours.
 *
 * Invariant: a file beside this module is named by its contents and has its full length, so that
 * neither what is left over from another build nor a part of it is loaded, which could end the process. Where there is none
 * (JSR's modules come without files, bundles take modules only) a module brings the bytes; it is imported
 * then, and only then, since it takes as long to read as all others together.
 *
 * @module
 */

import type { Adapter, NativeFunction, Signature } from "./adapter.ts";
import { bun } from "./bun.ts";
import { deno } from "./deno.ts";
import { embedded } from "./embedded.ts";
import { PermError } from "./errors.ts";
import { abiHash, late, type NativeType, symbols } from "./symbols.ts";

type Parameters<Types extends readonly NativeType[]> = {
  -readonly [Index in keyof Types]: Types[Index] extends "f64" ? number
    : Uint8Array | Float64Array | null;
};

/** Every native function, typed from the generated table. */
export type Native = {
  [Name in keyof typeof symbols]: (...args: Parameters<(typeof symbols)[Name]>) => number;
};

/** The runtime this process is. */
export const adapter: Adapter = "Bun" in globalThis ? bun : deno;

/**
 * The native functions, from when {@linkcode load} has run. Whoever holds a heap knows that it has,
 * so hot paths call through this without asking. It is a copy of a literal, which has all names,
 * since V8 looks every call up by name in an object that names are added to.
 */
export const native: Native = { ...symbols } as unknown as Native;
const table = native as Record<Name, NativeFunction>;

const frequent = ["ph_malloc", "ph_free", "ph_malloc_many", "ph_free_many"] as const;

/**
 * Those that are called so often, for so little work, that the way to them counts: the same as in
 * {@linkcode native}, but there only from when they are bound, and with nothing before them. Until
 * then whoever calls them calls those of `native`, in another place of the code.
 *
 * What is set but once in an object that begins empty V8 takes for constant; of a class of its own, for what
 * other objects have under the same names would count as set again (then a call takes 100 to 300 ns).
 */
export const bound: { [Name in (typeof frequent)[number]]?: Native[Name] } = new (class {})();

/** This platform's library: what it is called, and where it lies if it does. */
const packed = "Bun" in globalThis || "Deno" in globalThis ? embedded[adapter.platform] : undefined;
const beside = packed && fileBeside(packed.file, packed.bytes);
const base64 = packed && !beside
  ? (await import("./embedded.json", { with: { type: "json" } })).default
  : undefined;

let loaded = false;

/**
 * Loads the library unless that has happened.
 *
 * @throws {PermError} `PERMISSION` without `--allow-ffi`; `UNSUPPORTED` when no library can be
 * loaded, listing everything tried, or when it does not fit this package.
 */
export function load(): void {
  if (loaded) return;
  const found = find();
  if (found !== native) Object.assign(native, found);
  loaded = true;
}

function find(): Native {
  if (!("Bun" in globalThis || "Deno" in globalThis)) {
    throw new PermError(
      "UNSUPPORTED",
      "Cannot use @perm/heap in this runtime: it needs Deno or Bun; start the program with " +
        "`deno run --allow-ffi` or `bun`",
    );
  }
  const wish = adapter.env("PERM_LIBRARY");
  if (wish) return openOrThrow(wish);

  const attempts = new Attempts();
  const found = packed
    ? openPacked(packed.soname, attempts)
    : openBuilt(adapter.platform, attempts);
  if (found) return found;
  // Deno takes a library's name for a path in the working directory, which may be allowed.
  if (!adapter.opensAnything) throw refusal(new Error(attempts.failures.join("; ")));
  throw new PermError(
    "UNSUPPORTED",
    "Cannot load the native library of @perm/heap; set PERM_LIBRARY to the path of one. Tried:\n" +
      attempts.failures.map((failure) => `  ${failure}`).join("\n"),
  );
}

/** Tries one thing after another and remembers why each failed. */
class Attempts {
  readonly failures: string[] = [];

  run<Value>(what: string, action: () => Value): Value | undefined {
    try {
      return action();
    } catch (error) {
      if (error instanceof PermError || adapter.isPermissionError(error)) throw refusal(error);
      this.failures.push(`${what}: ${reasonOf(error)}`);
    }
  }
}

function openPacked(soname: string, attempts: Attempts): Native | undefined {
  if (beside) {
    const there = attempts.run(beside, () => openBeside(beside, soname));
    if (there) return there;
  }
  return openCopied(soname, attempts);
}

function openCopied(soname: string, attempts: Attempts): Native | undefined {
  const libc = attempts.run("the C library, to make a memory file", () => new Libc());
  if (!libc) return;
  const present = libc.findLoaded(soname);
  if (present) {
    const shared = attempts.run(`what this process has (${present})`, () => open(present, true));
    if (shared) return shared;
  }
  const image = base64 === undefined
    ? attempts.run(`reading ${beside}`, () => libc.read(beside!))
    : adapter.fromBase64(base64[adapter.platform as keyof typeof base64]);
  if (!image) return;
  const fresh = attempts.run("a memory file", () => open(libc.memoryFile(soname, image), true));
  if (fresh) return fresh;

  for (const directory of privateDirectories()) {
    const file = new PrivateFile(libc, directory, soname);
    try {
      const copy = attempts.run(`a private file in ${directory}`, () => open(file.write(image)));
      if (copy) return copy;
    } finally {
      file.remove();
    }
  }
}

/** The path of that file in this module's folder, if all of it is there. */
function fileBeside(name: string, bytes: number): string | undefined {
  const { protocol, pathname } = new URL(name, import.meta.url);
  if (protocol !== "file:") return;
  const path = decodeURIComponent(pathname);
  return adapter.sizeOf(path) === bytes ? path : undefined;
}

/**
 * The file at `path`, or the library of its soname that the process had before: the loader gives the
 * one that came first. Asking for that before the file is loaded would be an error where it is the first,
 * as it almost always is, which takes Deno 0.6 ms and Bun 0.25.
 */
function openBeside(path: string, soname: string): Native {
  expectAbi(path, abiOf(path));
  return prepare({ name: soname, path });
}

function openBuilt(platform: string, attempts: Attempts): Native | undefined {
  attempts.failures.push(`the embedded library: there is none for ${platform}`);
  const url = new URL("../zig/zig-out/lib/libperm_heap.so", import.meta.url);
  if (url.protocol !== "file:") return;
  const path = decodeURIComponent(url.pathname);
  return attempts.run(path, () => open(path));
}

function openOrThrow(path: string): Native {
  try {
    return open(path);
  } catch (error) {
    if (error instanceof PermError || adapter.isPermissionError(error)) throw refusal(error);
    throw new PermError(
      "UNSUPPORTED",
      `Cannot load "${path}", which PERM_LIBRARY names: ${
        reasonOf(error)
      }; correct it, or unset it`,
      { path, cause: error },
    );
  }
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function refusal(error: unknown): PermError {
  if (error instanceof PermError) return error;
  return new PermError(
    "PERMISSION",
    "Cannot load the native library of @perm/heap: run Deno with --allow-ffi (for all paths)",
    { cause: error },
  );
}

/** Calls of a function after which it is worth binding, where that takes long: it is done then. */
const OFTEN = 200;

/** What is called once in a while, or works so long that the way to it does not count. It is never bound. */
const seldom: ReadonlySet<string> = new Set<keyof typeof symbols>([
  ...["ph_error", "ph_file_read", "ph_file_write", "ph_mopen", "ph_open"] as const,
  ...["ph_close", "ph_attach", "ph_detach", "ph_handle_text", "ph_check", "ph_grow"] as const,
  ...["ph_live_blocks", "ph_own_blocks", "ph_perm", "ph_unperm", "ph_static", "ph_bopen"] as const,
  ...["ph_bclose", "ph_commit_wait", "ph_restore", "ph_image_info", "ph_epochs"] as const,
  ...["ph_image_copy", "ph_image_verify", "ph_scratch", "ph_container_check"] as const,
  ...["ph_container_blocks", "ph_vec_sort", "ph_vec_permute"] as const,
]);

type Name = keyof typeof symbols;

/**
 * What is found at once: those that count most, so that who has met one of them has met the others, and
 * what a program calls that opens a heap and looks something up. One more takes less than a call for itself.
 */
const together: readonly (readonly Name[])[] = [
  frequent,
  ["ph_open", "ph_info", "ph_global", "ph_container_open", "ph_map_get"],
];

/** What binds these. */
function signaturesOf(names: readonly Name[]): Record<Name, Signature> {
  const signatures: Record<string, Signature> = {};
  for (const name of names) {
    signatures[name] = {
      parameters: symbols[name],
      result: "f64",
      nonblocking: name === "ph_commit_wait" && adapter.bindsNonblocking,
    };
  }
  return signatures;
}

/** A library that the process keeps, by what is most likely to name it and by what does. */
interface Lasting {
  name: string;
  readonly path: string;
}

/** `isLasting` says that the path will name the same library for the life of the process. */
function open(path: string, isLasting = false): Native {
  if (isLasting) {
    expectAbi(path, abiOf(path));
    return prepare({ name: path, path });
  }
  let functions: Record<string, NativeFunction>;
  try {
    functions = adapter.open(path, signaturesOf(Object.keys(symbols) as Name[]));
  } catch (error) {
    // A library of another build may lack a symbol; one that cannot be loaded fails here again.
    expectAbi(path, abiOf(path));
    throw error;
  }
  expectAbi(path, functions.ph_abi());
  for (const name of frequent) bound[name] = functions[name];
  return functions as unknown as Native;
}

/**
 * A program calls a few of the functions all: what prepares the others would be half of the time that
 * loading takes. So each is found by its first call. Callers that are called once do not remember whom,
 * and engines come to know the other one only.
 */
function prepare(library: Lasting): Native {
  const names = Object.keys(symbols) as Name[];
  for (let i = 0; i < names.length; i++) {
    table[names[i]] = (...args) => findFunction(library, names[i])(...args);
  }
  return native;
}

/** Finds a function, which then stands in the table itself. */
function findFunction(library: Lasting, name: Name): NativeFunction {
  const names = together.find((names) => names.includes(name)) ?? [name];
  try {
    if (adapter.openUnbound === undefined) bindNow(library.name, names);
    else bindLate(library.name, names);
  } catch (error) {
    if (library.name === library.path) throw error;
    // musl knows a library by its path alone.
    library.name = library.path;
    return findFunction(library, name);
  }
  return table[name];
}

/** Where binding takes no longer than looking up. */
function bindNow(path: string, names: readonly Name[]): void {
  const functions = adapter.open(path, signaturesOf(names));
  Object.assign(table, functions);
  if (names === frequent) Object.assign(bound, functions);
}

/** Functions that are looked up now, and bound when they are called often. */
function bindLate(path: string, names: readonly Name[]): void {
  const functions = unbound(path, signaturesOf(names));
  for (let i = 0; i < names.length; i++) {
    const name = names[i];
    const call = functions[name];
    table[name] = seldom.has(name) ? call : boundLate(path, name, call);
  }
}

function boundLate(path: string, name: Name, call: NativeFunction): NativeFunction {
  let calls = 0;
  return late[name](call, () => {
    if (++calls < OFTEN) return undefined;
    const often = adapter.open(path, signaturesOf([name]))[name];
    if (frequent.some((other) => other === name)) bound[name as keyof typeof bound] = often;
    return often;
  });
}

function abiOf(path: string): number {
  try {
    if (adapter.numberOf !== undefined) return adapter.numberOf(path, "ph_abi_hash");
  } catch {
    // There is no such library, which the next line tells, or one that is older than the number.
  }
  return unbound(path, { ph_abi: { parameters: [], result: "f64" } }).ph_abi();
}

function expectAbi(path: string, hash: number): void {
  if (hash === abiHash) return;
  throw new PermError(
    "UNSUPPORTED",
    `Cannot use the native library "${path}": its ABI is ${hash.toString(16)}, this package's is ` +
      `${abiHash.toString(16)}; unset PERM_LIBRARY, or build again with "deno task build"`,
    { path },
  );
}

/** Functions that are called a few times. */
function unbound<Name extends string>(
  path: string,
  table: Readonly<Record<Name, Signature>>,
): Record<Name, NativeFunction> {
  return (adapter.openUnbound ?? adapter.open)(path, table);
}

/** Where a program may usually be loaded from; `/tmp` is mounted noexec on some systems. */
function privateDirectories(): string[] {
  const home = adapter.env("HOME");
  const directories = [
    adapter.env("XDG_RUNTIME_DIR"),
    adapter.env("TMPDIR"),
    "/tmp",
    "/dev/shm",
    "/var/tmp",
    home && `${home}/.cache`,
  ];
  return [
    ...new Set(directories.filter((directory) => directory !== undefined && directory !== "")),
  ] as string[];
}

function zeroTerminated(text: string): Uint8Array {
  return new TextEncoder().encode(text + "\0");
}

const libcTable = {
  memfd_create: { parameters: ["buffer", "u32"], result: "i32" },
  write: { parameters: ["i32", "buffer", "usize"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
} as const satisfies Record<string, Signature>;

const dlopenTable = {
  dlopen: { parameters: ["buffer", "i32"], result: "pointer" },
} as const satisfies Record<string, Signature>;

const glibcTable = {
  gnu_get_libc_version: { parameters: [], result: "pointer" },
} as const satisfies Record<string, Signature>;

const readTable = {
  open: { parameters: ["buffer", "i32"], result: "i32" },
  read: { parameters: ["i32", "buffer", "usize"], result: "i32" },
} as const satisfies Record<string, Signature>;

const linkTable = {
  readlink: { parameters: ["buffer", "buffer", "usize"], result: "i32" },
} as const satisfies Record<string, Signature>;

const fileTable = {
  mkdtemp: { parameters: ["buffer"], result: "i32" },
  creat: { parameters: ["buffer", "u32"], result: "i32" },
  unlink: { parameters: ["buffer"], result: "i32" },
  rmdir: { parameters: ["buffer"], result: "i32" },
} as const satisfies Record<string, Signature>;

/** musl answers to glibc's name. */
const libcName = "libc.so.6";
/** Where `dlopen` was before glibc 2.34. */
const libdlName = "libdl.so.2";

function bindFirst<Name extends string>(
  libraries: readonly string[],
  table: Readonly<Record<Name, Signature>>,
): Record<Name, NativeFunction> | undefined {
  for (const library of libraries) {
    try {
      return unbound(library, table);
    } catch (error) {
      if (adapter.isPermissionError(error)) throw refusal(error);
    }
  }
}

/**
 * The few calls of the host's libc that loading needs. Through FFI, since the runtime's own file
 * API would want more permissions.
 */
class Libc {
  /** What a glibc since 2.34 has all of, looked up at once: each look-up takes the time of many names. */
  readonly #whole = bindFirst([libcName], { ...libcTable, ...dlopenTable, ...glibcTable });
  readonly calls: Record<keyof typeof libcTable, NativeFunction> = this.#whole ??
    unbound(libcName, libcTable);

  /**
   * The path or name under which this process has the library of that soname. Nothing is loaded by
   * asking.
   */
  findLoaded(soname: string): string | undefined {
    const lazyNoLoad = 5;
    const loaded = this.#whole ?? bindFirst([libcName, libdlName], dlopenTable);
    if (loaded?.dlopen(zeroTerminated(soname), lazyNoLoad)) return soname;
    if (this.#whole) return;
    // musl knows a library that was loaded by path under that path only.
    if (!bindFirst([libcName], glibcTable)) return this.#findMemoryFile(soname);
  }

  #findMemoryFile(name: string): string | undefined {
    const { readlink } = unbound(libcName, linkTable);
    const target = new Uint8Array(256);
    for (let fd = 3; fd < 256; fd++) {
      const path = `/proc/self/fd/${fd}`;
      const length = readlink(zeroTerminated(path), target, target.length);
      if (length <= 0) continue;
      const link = new TextDecoder().decode(target.subarray(0, length));
      if (link === `/memfd:${name} (deleted)`) return path;
    }
  }

  /** All of a file, where the way to load it is not by its path: it may lie where nothing may be run. */
  read(path: string): Uint8Array {
    const { open, read } = unbound(libcName, readTable);
    const closeOnExec = 0o2000000;
    const fd = open(zeroTerminated(path), closeOnExec);
    if (fd < 0) throw new Error("it cannot be opened");
    let bytes = new Uint8Array(1 << 20);
    let length = 0;
    for (let got = 1; got > 0; length += got) {
      if (length === bytes.length) {
        const larger = new Uint8Array(2 * length);
        larger.set(bytes);
        bytes = larger;
      }
      got = read(fd, bytes.subarray(length), bytes.length - length);
      if (got < 0) {
        this.calls.close(fd);
        throw new Error("it cannot be read");
      }
    }
    this.calls.close(fd);
    return bytes.subarray(0, length);
  }

  /** The file stays open, so that other threads find it. */
  memoryFile(name: string, image: Uint8Array): string {
    const closeOnExec = 1;
    const fd = this.calls.memfd_create(zeroTerminated(name), closeOnExec);
    if (fd < 0) throw new Error("memfd_create is not available");
    this.writeAll(fd, image);
    return `/proc/self/fd/${fd}`;
  }

  writeAll(fd: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length;) {
      const written = this.calls.write(fd, bytes.subarray(done), bytes.length - done);
      if (written <= 0) {
        this.calls.close(fd);
        throw new Error(`only ${done} of ${bytes.length} bytes could be written`);
      }
      done += written;
    }
  }
}

/**
 * A file in a new directory of mode 0700: nothing that somebody else could have placed is ever
 * loaded, and nothing is left behind.
 */
class PrivateFile {
  readonly #libc: Libc;
  readonly #calls: Record<keyof typeof fileTable, NativeFunction>;
  readonly #template: Uint8Array;
  readonly #name: string;
  #directory = "";

  constructor(libc: Libc, parent: string, name: string) {
    this.#libc = libc;
    this.#calls = unbound(libcName, fileTable);
    this.#template = zeroTerminated(`${parent}/perm-heap-XXXXXX`);
    this.#name = name.slice(name.lastIndexOf("/") + 1);
  }

  write(image: Uint8Array): string {
    this.#calls.mkdtemp(this.#template);
    const directory = new TextDecoder().decode(this.#template.subarray(0, -1));
    if (directory.endsWith("XXXXXX")) throw new Error("no directory can be made there");
    this.#directory = directory;
    const path = `${directory}/${this.#name}`;
    const fd = this.#calls.creat(zeroTerminated(path), 0o700);
    if (fd < 0) throw new Error("no file can be made there");
    this.#libc.writeAll(fd, image);
    this.#libc.calls.close(fd);
    return path;
  }

  remove(): void {
    if (this.#directory === "") return;
    this.#calls.unlink(zeroTerminated(`${this.#directory}/${this.#name}`));
    this.#calls.rmdir(zeroTerminated(this.#directory));
  }
}
