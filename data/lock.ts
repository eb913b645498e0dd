/**
 * Locks that live in the heap, beside what they guard, for the threads of one process: 16 bytes,
 * free when all zero; zig/src/heap/locks.zig has their layout.
 *
 * Invariant: a lock counts only in the session that took it, so that one that was held when its
 * page was committed is free in every later run, and after every restore.
 *
 * @module
 */

import { check, describe, native, PermError } from "../ffi/mod.ts";
import type { Heap } from "../heap/heap.ts";
import { expectOptions } from "../heap/options.ts";
import { expectNumber, type Pointer } from "../heap/views.ts";
import { Handle, paneOf, place, refuseReceiver, setKind, typeOf } from "./handle.ts";
import { registerKind } from "./kinds.ts";
import { type Maker, makerFor } from "./makers.ts";
import { accessTo, type Pane } from "./pane.ts";
import { refuseValue, type Type } from "./type.ts";

const lockSize = 16;

/** How long to wait for a lock. */
export interface LockOptions {
  /** Milliseconds; without it, for ever. */
  timeout?: number;
}

/** A lock that was taken: `using held = mutex.lock()` gives it back at the end of the block. */
export class Held implements Disposable {
  #release: (() => void) | undefined;

  /** @internal */
  constructor(release: () => void) {
    this.#release = release;
  }

  /** Gives the lock back; a second call does nothing. */
  release(): void {
    const release = this.#release;
    this.#release = undefined;
    release?.();
  }

  /** {@linkcode Held.release}, for `using`. */
  [Symbol.dispose](): void {
    this.release();
  }
}

/** What both kinds of locks do. */
export class LockHandle extends Handle {
  /** Nothing: who holds it is nobody's but this session's. */
  toJSON(): undefined {
    expectLock(this);
    return undefined;
  }

  /** @internal */
  $copy(): this {
    return this;
  }

  /** What `console.log` shows. */
  [Symbol.for("nodejs.util.inspect.custom")](): string {
    expectLock(this);
    return shownLock(this);
  }
}

/** The bytes of what is no lock are others'; without a kind for both. */
function expectLock(lock: unknown, kind?: Kind): void {
  if (!(lock instanceof LockHandle && (kind ?? lock.$kind) === lock.$kind)) {
    refuseReceiver(lock, kind ?? "lock");
  }
}

type Kind = "Mutex" | "RwLock";

function shownLock(lock: LockHandle): string {
  const { name } = typeOf(lock);
  return lock.$view.buffer.detached ? `${name} <ended>` : `${name} at 0x${lock.ptr.toString(16)}`;
}

function take(lock: LockHandle, kind: Kind, exclusive: boolean, timeout: number): Held | null {
  expectLock(lock, kind);
  const pane = paneOf(lock);
  const p = lock.ptr;
  const { handle } = pane;
  if (check(native.ph_lock(handle, p, exclusive ? 1 : 0, timeout)) === 0) return null;
  return new Held(() => {
    // A lock of a heap that was restored or closed meanwhile is held by nobody.
    if (!pane.view.buffer.detached) check(native.ph_unlock(handle, p, exclusive ? 1 : 0));
  });
}

function wait(lock: LockHandle, kind: Kind, exclusive: boolean, options: LockOptions): Held {
  const timeout = timeoutOf(options);
  const held = take(lock, kind, exclusive, timeout === Infinity ? -1 : timeout);
  return held ?? timedOut(lock, timeout);
}

/** Asks again and again, since neither runtime can wait for a futex beside its event loop. */
async function waitAsync(
  lock: LockHandle,
  kind: Kind,
  exclusive: boolean,
  options: LockOptions,
): Promise<Held> {
  const timeout = timeoutOf(options);
  const began = performance.now();
  for (let pause = 0;; pause = Math.min(2 * pause + 1, 15)) {
    const held = take(lock, kind, exclusive, 0);
    if (held !== null) return held;
    if (performance.now() - began >= timeout) timedOut(lock, timeout);
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

function timeoutOf(options: LockOptions): number {
  const { timeout = Infinity } = expectOptions("lock", options, ["timeout"]);
  expectNumber("timeout", timeout);
  if (timeout >= 0) return timeout;
  throw new PermError(
    "INVALID_ARGUMENT",
    `Cannot wait ${describe(timeout)} ms for a lock: give a number that is not negative`,
  );
}

function timedOut(lock: LockHandle, timeout: number): never {
  throw new PermError(
    "BUSY",
    `Cannot take the lock at 0x${lock.ptr.toString(16)}: others held it for ${timeout} ms`,
    { address: lock.ptr },
  );
}

/**
 * A lock that one thread holds at a time. It is no reentrant lock.
 *
 * @example
 * ```ts
 * import { Heap } from "@perm/heap";
 * import { f64, Mutex, roots, struct } from "@perm/heap/data";
 *
 * const Account = struct("Account", { lock: Mutex, balance: f64 });
 * using heap = Heap.open({ size: 1 << 20 });
 * const account = roots(heap).open("account", Account);
 * {
 *   using _held = account.lock.lock();
 *   account.balance += 10;
 * }
 * ```
 */
export interface Mutex extends LockHandle {
  /**
   * Waits for the lock; the thread sleeps.
   *
   * @throws {PermError} `BUSY` when the time is over, or when this thread holds it; `STALE`.
   */
  lock(options?: LockOptions): Held;
  /** Takes the lock if it is free, else gives `null`. */
  tryLock(): Held | null;
  /**
   * Waits for the lock; the thread goes on with other things.
   *
   * @throws {PermError} `BUSY` when the time is over; `STALE`.
   */
  lockAsync(options?: LockOptions): Promise<Held>;
}

/**
 * A lock that one thread holds for writing, or any number for reading. Readers queue behind a writer
 * that waits, so do not ask for reading again while reading.
 *
 * @example
 * ```ts
 * import { Heap } from "@perm/heap";
 * import { RwLock } from "@perm/heap/data";
 *
 * using heap = Heap.open({ size: 1 << 20 });
 * const lock = new RwLock(heap);
 * const held = lock.read();
 * console.log(lock.tryWrite()); // null
 * held.release();
 * ```
 */
export interface RwLock extends LockHandle {
  /** Waits until nobody writes. @throws {PermError} As {@linkcode Mutex.lock}. */
  read(options?: LockOptions): Held;
  /** Waits until nobody reads or writes. @throws {PermError} As {@linkcode Mutex.lock}. */
  write(options?: LockOptions): Held;
  /** Takes the lock for reading if it can be had, else gives `null`. */
  tryRead(): Held | null;
  /** Takes the lock for writing if it can be had, else gives `null`. */
  tryWrite(): Held | null;
  /** Waits for reading; the thread goes on with other things. */
  readAsync(options?: LockOptions): Promise<Held>;
  /** Waits for writing; the thread goes on with other things. */
  writeAsync(options?: LockOptions): Promise<Held>;
}

/** A kind of lock: its class, and its type in structs, containers and roots. */
export interface LockType<L extends object> {
  /** Allocates a free lock. @throws {PermError} `OUT_OF_MEMORY`, `READ_ONLY`, `CLOSED`. */
  new (heap: Heap): L;
  /** `"Mutex"` or `"RwLock"`. */
  readonly kind: string;
  /** The same. */
  readonly name: string;
  /** 16. */
  readonly size: number;
  /** 8. */
  readonly align: number;
  /** Its name. */
  readonly layout: string;
  /** Locks are no keys. */
  readonly key: null;
  /** True, so that copying a struct leaves its locks alone. */
  readonly owns: boolean;
  /** The lock at an address. @throws {PermError} `BAD_POINTER`. */
  at(heap: Heap, p: Pointer): L;
  /** The lock in another object. */
  get(pane: Pane, at: number): L;
  /** The lock that stands alone there. */
  open(pane: Pane, at: number): L;
  /** Leaves the lock as it is when given a lock: what is copied is copied without its locks. */
  set(pane: Pane, at: number, value: L, what?: string): void;
  /** Makes it free. */
  destroy(pane: Pane, at: number): void;
  /** Nothing that native code could free alone. */
  texts(): null;
}

function lockType<L extends object>(name: Kind, members: object): LockType<L> {
  class Type {
    static readonly kind = name;
    static readonly size = lockSize;
    static readonly align = 8;
    static readonly layout = name;
    static readonly key = null;
    static readonly owns = true;

    constructor(heap: Heap) {
      const access = accessTo(heap);
      const p = access.allocate(lockSize);
      const pane = access.pane(p, lockSize);
      return maker.alone(pane, (p - pane.base) | 0);
    }

    static at(heap: Heap, p: Pointer): Handle {
      const pane = place(accessTo(heap), p, Type as unknown as AnyType);
      return maker.alone(pane, (p - pane.base) | 0);
    }

    static get(pane: Pane, at: number): Handle {
      return maker.inner(pane, at);
    }

    static open(pane: Pane, at: number): Handle {
      return maker.alone(pane, at);
    }

    static set(_pane: Pane, _at: number, value: unknown, what: string = name): void {
      Type.take(value, what);
    }

    static take(value: unknown, what: string): true {
      if (!(value instanceof Type)) refuseValue(what, value, `nothing: a ${name} is never written`);
      return true;
    }

    static put(): void {}

    /** Not with what is around it: another thread may hold it, or wait for it. */
    static exchange(): void {}

    static destroy(pane: Pane, at: number): void {
      pane.bytes.fill(0, at, at + lockSize);
    }

    static texts(): null {
      return null;
    }
  }
  Object.defineProperty(Type, "name", { value: name });
  Object.setPrototypeOf(Type.prototype, LockHandle.prototype);
  Object.defineProperties(Type.prototype, Object.getOwnPropertyDescriptors(members));
  setKind(Type.prototype as unknown as LockHandle, name);
  const maker: Maker = makerFor(Type.prototype);
  registerKind(name, () => Type as unknown as AnyType);
  return Type as unknown as LockType<L>;
}

type AnyType = Type;

/** A lock that one thread holds at a time. */
export const Mutex: LockType<Mutex> = lockType("Mutex", {
  lock(this: LockHandle, options: LockOptions = {}): Held {
    return wait(this, "Mutex", true, options);
  },
  tryLock(this: LockHandle): Held | null {
    return take(this, "Mutex", true, 0);
  },
  lockAsync(this: LockHandle, options: LockOptions = {}): Promise<Held> {
    return waitAsync(this, "Mutex", true, options);
  },
});

/** A lock that one thread holds for writing, or any number for reading. */
export const RwLock: LockType<RwLock> = lockType("RwLock", {
  read(this: LockHandle, options: LockOptions = {}): Held {
    return wait(this, "RwLock", false, options);
  },
  write(this: LockHandle, options: LockOptions = {}): Held {
    return wait(this, "RwLock", true, options);
  },
  tryRead(this: LockHandle): Held | null {
    return take(this, "RwLock", false, 0);
  },
  tryWrite(this: LockHandle): Held | null {
    return take(this, "RwLock", true, 0);
  },
  readAsync(this: LockHandle, options: LockOptions = {}): Promise<Held> {
    return waitAsync(this, "RwLock", false, options);
  },
  writeAsync(this: LockHandle, options: LockOptions = {}): Promise<Held> {
    return waitAsync(this, "RwLock", true, options);
  },
});
