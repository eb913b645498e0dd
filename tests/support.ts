/**
 * What the tests share: folders that go away, refusals that are checked to the letter, and other
 * processes under either runtime that run functions of a test.
 *
 * Invariant: whatever a test leaves behind when it fails (files, processes) ends with its scope.
 *
 * @module
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { type ErrorCode, Heap, PermError } from "../mod.ts";
import type { Answer, Tools } from "./remote.ts";
import { command, repository, type Runtime, thisRuntime } from "./runtimes.ts";

/** The runtime that does not run this. */
export const otherRuntime: Runtime = thisRuntime === "deno" ? "bun" : "deno";

/** A new folder that goes away with its scope: `using folder = new Folder()`. */
export class Folder implements Disposable {
  readonly path: string;

  constructor(place: string = tmpdir()) {
    this.path = realpathSync(mkdtempSync(join(place, "perm-test-")));
  }

  /** Path of a file in it. */
  file(name: string): string {
    return join(this.path, name);
  }

  /** Names of the files in it, sorted. */
  names(): string[] {
    return readdirSync(this.path).sort();
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** What a refusal has to say besides its code. */
export interface Expected {
  /** What the message matches. */
  message?: RegExp;
  /** The file that it names. */
  path?: string;
  /** The address that it names. */
  address?: number;
}

/** Asserts that `action` throws a `PermError` of that code and of helpful form, and returns it. */
export function expectCode(action: () => unknown, code: ErrorCode, expected?: Expected): PermError {
  let result: unknown;
  try {
    result = action();
  } catch (error) {
    return expectError(error, code, expected);
  }
  assert.fail(`expected ${code}, but it returned ${String(result)}`);
}

/** Like {@linkcode expectCode}, of a promise. */
export async function expectRejects(
  promise: Promise<unknown>,
  code: ErrorCode,
  expected?: Expected,
): Promise<PermError> {
  let result: unknown;
  try {
    result = await promise;
  } catch (error) {
    return expectError(error, code, expected);
  }
  assert.fail(`expected ${code}, but it resolved to ${String(result)}`);
}

function expectError(error: unknown, code: ErrorCode, expected: Expected = {}): PermError {
  if (!(error instanceof PermError)) throw error;
  assert.equal(error.code, code, `expected ${code}, got ${error.code}: ${error.message}`);
  assert.equal(error.name, "PermError");
  const { message } = error;
  assert.match(message, /^\p{Lu}/u, `begins in lower case: ${message}`);
  assert.doesNotMatch(message, /[.!]\s*$/, `ends with a full stop: ${message}`);
  assert.doesNotMatch(message, /\[object |�/, `shows what helps nobody: ${message}`);
  // deno-lint-ignore no-control-regex
  assert.doesNotMatch(message, /[\x00-\x09\x0b-\x1f]/, `holds control characters: ${message}`);
  assert.ok(message.length >= 20, `too short to help: ${message}`);
  if (expected.message) assert.match(message, expected.message);
  if (expected.path !== undefined) assert.equal(error.path, expected.path);
  if (expected.address !== undefined) assert.equal(error.address, expected.address);
  return error;
}

/** Asserts that the heap is well: whole, and able to allocate and to give back. */
export function expectWell(heap: Heap): void {
  heap.check();
  const pointer = heap.malloc(100);
  heap.bytes(pointer, 100).fill(0xa5);
  assert.ok(heap.bytes(pointer, 100).every((byte) => byte === 0xa5));
  heap.free(pointer);
  heap.check();
}

/** Puts a number at the heap's root, so that its states can be told apart. */
export function put(heap: Heap, value: number): void {
  if (heap.root === 0) heap.root = heap.calloc(1, 8);
  heap.store(heap.root, value);
}

/** That number. */
export function get(heap: Heap): number {
  return heap.load(heap.root);
}

/** Makes an image in which epoch n holds the number n. */
export function makeFile(file: string, epochs: number, options: { keep?: number } = {}): void {
  using heap = Heap.open({ file, size: 1 << 20, ...options });
  for (let epoch = 1; epoch <= epochs; epoch++) {
    put(heap, epoch);
    assert.equal(heap.flush().epoch, epoch);
  }
}

/** Bytes that a seed stands for. */
export function pattern(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  const next = randomNumbers(seed);
  for (let i = 0; i < length; i++) bytes[i] = next(256);
  return bytes;
}

/** Repeatable random whole numbers below the bound they are asked with. */
export function randomNumbers(seed: number): (bound: number) => number {
  let state = (seed | 0) ^ 0x9e3779b9;
  return (bound) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % bound;
  };
}

/** A value that survives JSON. */
// deno-lint-ignore no-explicit-any
type Json = any;

/** A function of a test that runs elsewhere: it may use its parameters only, not its scope. */
export type Remote<Result> = (tools: Tools, ...args: Json[]) => Result | Promise<Result>;

/** Reads an answer of a child or a Worker: its result, or its `PermError` thrown here. */
export function resultOf<Result>(answer: Answer): Result {
  if (answer.code !== undefined) throw new PermError(answer.code, answer.message ?? "");
  if (answer.message !== undefined) throw new Error(answer.message);
  return answer.result as Result;
}

/**
 * Another process that runs functions of a test: `await using child = new Child("bun")`. Its
 * `state` stays from call to call. It is killed with its scope.
 */
export class Child implements AsyncDisposable {
  readonly process: ChildProcess;
  /** How it ended, once it did: `exit 0`, `exit SIGKILL`. */
  readonly ended: Promise<string>;
  readonly #lines: AsyncIterator<string>;

  /** `prefix` is a command that runs the command after it, such as `nice`. */
  constructor(runtime: Runtime = thisRuntime, prefix: readonly string[] = []) {
    const [program, ...args] = [...prefix, ...command(runtime, `${repository}tests/child.ts`)];
    this.process = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"] });
    this.ended = new Promise((resolve) => {
      this.process.on("error", (error) => resolve(error.message));
      this.process.on("exit", (code, signal) => resolve(`exit ${signal ?? code}`));
    });
    this.#lines = createInterface({ input: this.process.stdout! })[Symbol.asyncIterator]();
  }

  /** Runs the function there with those arguments (as JSON) and gives its result. */
  async run<Result>(action: Remote<Result>, ...args: Json[]): Promise<Result> {
    this.process.stdin!.write(JSON.stringify({ source: action.toString(), args }) + "\n");
    const { value, done } = await this.#lines.next();
    if (done) throw new Error(`The child ended before it answered: ${await this.ended}`);
    return resultOf<Result>(JSON.parse(value));
  }

  /** Sends it a signal; Deno's `ChildProcess.kill` sends the first one only. */
  signal(name: NodeJS.Signals): void {
    const { pid, exitCode, signalCode } = this.process;
    if (pid !== undefined && exitCode === null && signalCode === null) process.kill(pid, name);
  }

  /** Kills it with SIGKILL, and waits until it is gone. */
  async kill(): Promise<void> {
    this.signal("SIGKILL");
    await this.ended;
  }

  /** Lets it end by itself, and tells how it did: `exit 0`. */
  async end(): Promise<string> {
    this.process.stdin!.end();
    return await this.ended;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.kill();
  }
}

/** A prefix for a {@linkcode Child}: `sh` runs the script first, then becomes the child. */
export function after(script: string): string[] {
  return ["sh", "-c", `${script} && exec "$@"`, "sh"];
}

/** Runs one function in a process of its own. */
export async function elsewhere<Result>(
  runtime: Runtime,
  action: Remote<Result>,
  ...args: Json[]
): Promise<Result> {
  await using child = new Child(runtime);
  const result = await child.run(action, ...args);
  assert.equal(await child.end(), "exit 0");
  return result;
}

/** A Worker that runs functions of a test; it ends with its scope. */
export class Thread implements Disposable {
  readonly #worker = new Worker(new URL("./worker.ts", import.meta.url).href, { type: "module" });
  readonly #waiting: ((answer: Answer) => void)[] = [];

  constructor() {
    this.#worker.onmessage = ({ data }) => this.#waiting.shift()!(data as Answer);
    this.#worker.onerror = (event) => {
      event.preventDefault?.();
      this.#waiting.shift()?.({ message: event.message });
    };
  }

  /** Runs the function in the Worker with those arguments and gives its result. */
  async run<Result>(action: Remote<Result>, ...args: unknown[]): Promise<Result> {
    const answer = await new Promise<Answer>((resolve) => {
      this.#waiting.push(resolve);
      this.#worker.postMessage({ source: action.toString(), args });
    });
    return resultOf<Result>(answer);
  }

  /** Attaches to the heap and keeps it in the Worker's state. */
  attach(heap: Heap): Promise<number> {
    return this.run(({ perm, state }, handle) => {
      state.heap = perm.Heap.attach(handle);
      return state.heap.address;
    }, heap.handle);
  }

  [Symbol.dispose](): void {
    this.#worker.terminate();
  }
}

/** Where folders lie on a disk and, if there is such a place, in memory: for what is told apart there. */
export const places: readonly string[] = [tmpdir(), "/dev/shm"].filter((path) => existsSync(path));

/** Waits for what other threads or processes bring about; nobody tells when that is. */
export async function eventually(what: string, condition: () => boolean): Promise<void> {
  for (const begun = performance.now(); !condition();) {
    if (performance.now() - begun > 30_000) assert.fail(`${what} did not come within 30 s`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Whether the heap could be closed; a Worker that was ended stays attached for a moment. */
export function tryClose(heap: Heap): boolean {
  try {
    heap.close();
    return true;
  } catch (error) {
    if (error instanceof PermError && error.code === "BUSY") return false;
    throw error;
  }
}
