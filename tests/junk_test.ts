// Whatever is called, with whatever, in whatever order: a result or a PermError, never a crash, and
// heaps that are whole.
import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import * as perm from "../mod.ts";
import { expectWell, Folder, randomNumbers } from "./support.ts";

const { Heap, PermError } = perm;
const timeout = 120_000;
const size = 1 << 20;

type Heap = perm.Heap;
// deno-lint-ignore no-explicit-any
type Anything = any;

/** A program without sense: it keeps heaps, pointers and views, and calls what there is. */
class Monkey implements Disposable {
  readonly next: (bound: number) => number;
  readonly folder: Folder;
  readonly heaps: Heap[] = [];
  readonly pointers: number[] = [];
  readonly views: ArrayBufferView[] = [];
  readonly calls = new Map<string, number>();
  /** Whether it writes where it should not. */
  readonly isWild: boolean;

  readonly #directory = process.cwd();

  constructor(seed: number, folder: Folder, isWild: boolean) {
    this.next = randomNumbers(seed);
    // Any text may come to be taken as a path.
    process.chdir(folder.path);
    this.folder = folder;
    this.isWild = isWild;
  }

  pick<Value>(values: readonly Value[]): Value {
    return values[this.next(values.length)];
  }

  /** A number that means something, or one that does not. */
  number(): number {
    const { next, pointers } = this;
    switch (next(8)) {
      case 0:
        return this.pick([0, 1, 2, 8, 16, 4096, 65_536, size, 2 ** 32, 2 ** 47, 2 ** 53]);
      case 1:
        return this.pick([NaN, -1, 0.5, Infinity, -Infinity, -0, 2 ** 53 + 2, 1e300, -(2 ** 31)]);
      case 2:
      case 3:
        return pointers.length > 0 ? this.pick(pointers) : 0;
      case 4:
        return pointers.length > 0 ? this.pick(pointers) + next(200) - 100 : 1;
      default:
        return next(5000);
    }
  }

  /** Anything at all. */
  anything(): Anything {
    const { next } = this;
    switch (next(12)) {
      case 0:
        return this.pick([null, undefined, true, 7n, Symbol("s"), () => 1, [], {}, new Date(0)]);
      case 1:
        return this.name();
      case 2:
        return this.options();
      case 3:
        return this.pick([Float64Array, Uint8Array, BigInt64Array, Array, DataView, Heap]);
      case 4:
        return new Uint8Array(next(100));
      case 5:
        return this.views.length > 0 ? this.pick(this.views) : new ArrayBuffer(8);
      case 6:
        return this.pick(["w+", "r+", "r", "", "x"]);
      case 7:
        return this.heaps.length > 0
          ? this.pick([this.pick(this.heaps), handleOf(this.heaps[0])])
          : "";
      case 8:
        return Array.from({ length: next(4) }, () => this.number());
      default:
        return this.number();
    }
  }

  name(): string {
    return this.pick(["a", "b", "c", "", "\0", "\ud800", "n".repeat(2000), "counter"]);
  }

  path(): string {
    return this.folder.file(this.pick(["a", "b", "c", "d", "a-new", "no/where", "."]));
  }

  options(): Anything {
    const options: Record<string, unknown> = {};
    const some = (key: string, make: () => unknown, of = 4) => {
      if (this.next(of) === 0) options[key] = this.next(10) === 0 ? this.anything() : make();
    };
    some("size", () => this.pick([size, 1 << 16, 4 * size]), 1);
    some("maxSize", () => this.pick([size, 8 * size, 64 * size]));
    some("file", () => this.path(), 2);
    some("backup", () => this.path(), 3);
    some("keep", () => 1 + this.next(5));
    some("logLimit", () => this.pick([1, 4096, 1 << 20]));
    some("verify", () => true);
    some("recover", () => true, 8);
    some("replace", () => true);
    some("tracker", () => this.pick(["auto", "checksum", "uffd"]), 8);
    some("epoch", () => 1 + this.next(6), 8);
    some("from", () => this.pick(["map", "backup"]), 8);
    return options;
  }

  /** Calls something once. */
  step(): void {
    const { next } = this;
    if (this.heaps.length === 0 || next(60) === 0) {
      this.call("Heap.open", () => this.keepHeap(Heap.open(this.options())));
    }
    if (this.heaps.length > 6) this.call("close", () => this.heaps.shift()!.close());
    const heap: Anything = this.pick(this.heaps);
    if (heap === undefined) return;
    switch (next(10)) {
      case 0: {
        const names = Object.getOwnPropertyNames(Heap.prototype);
        const name = this.pick(names.filter((name) => this.mayCall(name)));
        this.call(name, () => {
          const descriptor = Object.getOwnPropertyDescriptor(Heap.prototype, name)!;
          const args = Array.from({ length: next(4) }, () => this.anything());
          if (descriptor.value) return this.keep(descriptor.value.apply(heap, args));
          if (descriptor.set && next(2) === 0) heap[name] = this.anything();
          return heap[name];
        });
        break;
      }
      case 1: {
        const module = perm as Record<string, Anything>;
        const name = this.pick(
          Object.keys(module).filter((name) => {
            return typeof module[name] === "function" &&
              !["Heap", "Image", "PermError"].includes(name);
          }),
        );
        const args = [this.anything(), this.anything(), this.anything()];
        this.call(name, () => this.keep(module[name](...args)));
        const path = next(3) === 0 ? null : this.path();
        const mode = this.pick(["w+", "r+", "r"] as const);
        this.call("mopen", () => this.keepHeap(perm.mopen(path, mode, size)));
        break;
      }
      case 2:
        this.call("flush", () => heap.flush());
        break;
      case 3:
        this.call("restore", () => heap.restore(next(2) ? undefined : { epoch: 1 + next(5) }));
        break;
      case 4:
        this.call(
          "bopen",
          () => heap.bopen(this.path(), this.pick(["w+", "r+", "r"]), { replace: true }),
        );
        this.call("backup", () => heap.backup());
        break;
      case 5:
        this.call("view", () => this.views.push(heap.bytes(this.number(), this.number())));
        this.call("view", () => {
          const p = heap.malloc(next(5000));
          this.pointers.push(p);
          this.views.push(heap.bytes(p - (next(4) === 0 ? next(20_000) : 0), next(20_000)));
        });
        if (this.isWild && this.views.length > 0) {
          const view: Anything = this.pick(this.views);
          this.call("write", () => view.fill?.(next(256)));
        }
        break;
      case 6:
        this.call("free", () => heap.free(this.pick(this.pointers)));
        break;
      default:
        this.call("malloc", () => this.pointers.push(heap.malloc(next(3000))));
    }
    if (this.pointers.length > 300) this.pointers.splice(0, 100);
    if (this.views.length > 50) this.views.splice(0, 25);
  }

  mayCall(name: string): boolean {
    if (name === "constructor") return false;
    return this.isWild || name !== "store";
  }

  keepHeap(heap: Heap): void {
    if (!this.heaps.includes(heap)) this.heaps.push(heap);
  }

  keep(result: unknown): void {
    if (typeof result === "number" && result > 4096) this.pointers.push(result);
    if (ArrayBuffer.isView(result)) this.views.push(result);
    if (result instanceof Heap) this.keepHeap(result);
    if (result instanceof Promise) result.catch(expectPermError);
  }

  call(name: string, action: () => unknown): void {
    try {
      action();
      this.calls.set(name, (this.calls.get(name) ?? 0) + 1);
    } catch (error) {
      // A detached view says so in the runtime's own words, and so does a class that is called.
      const ownWords = ["write", "change", "quiesce"];
      if (ownWords.includes(name) && error instanceof TypeError) return;
      expectPermError(error, name);
    }
  }

  [Symbol.dispose](): void {
    process.chdir(this.#directory);
    for (const heap of this.heaps) heap.close();
  }
}

function handleOf(heap: Heap): string {
  try {
    return heap.handle;
  } catch {
    return "";
  }
}

function expectPermError(error: unknown, name = "a promise"): void {
  if (error instanceof PermError) return;
  throw new Error(`${name} threw what is no PermError: ${error}`, { cause: error });
}

for (const seed of [1, 2, 3]) {
  test(`a program without sense does no harm, seed ${seed}`, { timeout }, () => {
    using folder = new Folder();
    using monkey = new Monkey(seed, folder, false);
    for (let step = 0; step < 3000; step++) {
      monkey.step();
      if (step % 200 === 199) {
        for (const heap of monkey.heaps) if (isOpen(heap)) heap.check();
      }
    }
    monkey[Symbol.dispose]();
    for (
      const name of ["Heap.open", "malloc", "free", "flush", "restore", "backup", "mopen", "view"]
    ) {
      assert.ok(
        (monkey.calls.get(name) ?? 0) > 2,
        `${name} succeeded ${monkey.calls.get(name)} times`,
      );
    }
    for (const name of ["a", "b", "c", "d"]) {
      try {
        using heap = Heap.open({ file: folder.file(name), size, verify: true });
        expectWell(heap);
      } catch (error) {
        expectPermError(error);
        assert.ok(
          !["CORRUPT", "NOT_AN_IMAGE", "BUSY"].includes((error as perm.PermError).code),
          `${error}`,
        );
      }
    }
    using heap = Heap.open({ size });
    expectWell(heap);
  });

  test(`a program that writes anywhere in its heaps does not crash, seed ${seed}`, {
    timeout,
  }, () => {
    using folder = new Folder();
    using monkey = new Monkey(seed + 100, folder, true);
    for (let step = 0; step < 3000; step++) monkey.step();
    monkey[Symbol.dispose]();
    using heap = Heap.open({ size });
    expectWell(heap);
  });
}

function isOpen(heap: Heap): boolean {
  try {
    return heap.address > 0;
  } catch {
    return false;
  }
}
