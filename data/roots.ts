/**
 * Roots: the objects that a program finds again by name.
 *
 * The heap's global `@perm/heap/data` is 16 bytes: u32 version (1), u32 0, u64 address of the first
 * `Root`. Each is a block of its own and refers to the next, so that adding, replacing and removing
 * one are a single store of a pointer.
 *
 * Invariant: a root's object has the layout that its schema tells, and stands in a block of its own.
 *
 * @module
 */

import { describe, PermError } from "../ffi/mod.ts";
import { type Heap, internals } from "../heap/heap.ts";
import type { Pointer } from "../heap/views.ts";
import { Handle, type ObjectType, paneOf, typeOf } from "./handle.ts";
import { destroy } from "./ownership.ts";
import { type Access, accessTo } from "./pane.ts";
import { expectObject, ref } from "./ref.ts";
import { schemaOf } from "./schema.ts";
import { struct } from "./struct.ts";
import { isText, text } from "./text.ts";
import { readU53, u53, u64, type ValueOf, writeU53 } from "./type.ts";

const globalName = "@perm/heap/data";
const globalSize = 16;
const firstAt = 8;
const version = 1;

/** One root, as it stands in the heap. */
export const Root = struct("Root", {
  /** What the program calls it; the first field. */
  name: text,
  /** What its object was made of. */
  schema: text,
  /** The same as a hash. */
  hash: u64,
  /** Address of the object. */
  object: u53,
  get next() {
    return ref(Root);
  },
});
type Root = ValueOf<typeof Root>;

/** A class whose objects may be roots: a struct or a container. */
// deno-lint-ignore no-explicit-any
export type RootClass = new (...args: any[]) => object;

/** A step from an older layout to a newer one; {@linkcode migration} makes it. */
export interface Migration {
  /** The layout that it takes. */
  readonly from: RootClass;
  /** Makes the new object. */
  readonly migrate: (old: never, heap: Heap) => object;
}

/**
 * A step from an older layout of a root to a newer one, for {@linkcode Roots.get}.
 *
 * @param from The struct or container as the heap holds it.
 * @param migrate Makes the new object in the same heap; the old one is destroyed afterwards. What it
 * refers to stays.
 *
 * @example A struct that got another field
 * ```ts
 * import { Heap } from "@perm/heap";
 * import { f64, migration, roots, struct, text } from "@perm/heap/data";
 *
 * using heap = Heap.open({ size: 1 << 20 });
 * const Old = struct("Settings", { name: text });
 * roots(heap).set("settings", new Old(heap, { name: "blue" }));
 *
 * const Settings = struct("Settings", { name: text, scale: f64 });
 * const settings = roots(heap).get("settings", Settings, [
 *   migration(Old, (old, heap) => new Settings(heap, { name: old.name, scale: 1 })),
 * ]);
 * ```
 */
export function migration<From extends RootClass>(
  from: From,
  migrate: (old: InstanceType<From>, heap: Heap) => object,
): Migration {
  expectObject(from);
  if (typeof migrate !== "function") {
    throw new PermError(
      "INVALID_ARGUMENT",
      `Cannot migrate with ${describe(migrate)}: give a function from the old object to the new`,
    );
  }
  return { from, migrate };
}

/** All roots of a heap, for walking them. */
export let rootsOf: (heap: Heap) => Root[];

/** The roots of a heap: objects that every later run finds by name. */
export class Roots {
  readonly #access: Access;

  static {
    rootsOf = (heap) => roots(heap).#all();
  }

  /** @internal */
  constructor(access: Access) {
    this.#access = access;
  }

  /**
   * The object of that name.
   *
   * @param name Its name.
   * @param type The struct or container that it is.
   * @param migrations How to come from older layouts to this one; steps are joined as needed.
   * @returns `undefined` when there is none.
   * @throws {PermError} `LAYOUT_MISMATCH` when the heap holds it with another layout and no migration
   * leads from there; the message shows both. `INVALID_ARGUMENT`, `CLOSED`.
   *
   * @example
   * ```ts
   * import { Heap } from "@perm/heap";
   * import { roots, struct, u32 } from "@perm/heap/data";
   *
   * const Counter = struct("Counter", { runs: u32 });
   * using heap = Heap.open({ size: 1 << 20 });
   * const counter = roots(heap).get("counter", Counter) ?? new Counter(heap);
   * counter.runs += 1;
   * roots(heap).set("counter", counter);
   * ```
   */
  get<Class extends RootClass>(
    name: string,
    type: Class,
    migrations: Migration | readonly Migration[] = [],
  ): InstanceType<Class> | undefined {
    const target = expectObject(type);
    const { root } = this.#find(name);
    if (root === null) return undefined;
    let { object } = root;
    if (root.hash !== schemaOf(target).hash) {
      this.#migrate(root, target, [migrations].flat());
      object = this.#find(name).root!.object;
    }
    return target.at(this.#access.heap, object) as InstanceType<Class>;
  }

  /**
   * The object of that name; a new one, all zero and empty, when there is none.
   *
   * @throws {PermError} As {@linkcode Roots.get}; `OUT_OF_MEMORY`, `READ_ONLY`.
   */
  open<Class extends RootClass>(
    name: string,
    type: Class,
    migrations: Migration | readonly Migration[] = [],
  ): InstanceType<Class> {
    const { heap } = this.#access;
    const present = this.get(name, type, migrations);
    if (present !== undefined) return present;
    const made = new type(heap) as InstanceType<Class>;
    this.set(name, made);
    return made;
  }

  /**
   * Gives an object a name. What had it before stays in the heap: destroy it, or let `collect`.
   *
   * @param name A name that is not empty.
   * @param value A struct or container of this heap that stands alone.
   * @throws {PermError} `INVALID_ARGUMENT` for another value, one of another heap, or one that stands
   * in another object; `STALE`, `OUT_OF_MEMORY`, `READ_ONLY`.
   */
  set(name: string, value: object): void {
    const object = this.#expectAlone(value);
    const { root, link } = this.#find(name, true);
    this.#replace(name, root, link, object);
  }

  /**
   * Removes a name. Its object stays in the heap: destroy it, or let `collect`.
   *
   * @returns Whether there was one.
   */
  delete(name: string): boolean {
    const { root, link } = this.#find(name);
    if (root === null) return false;
    this.#link(link, root.next?.ptr ?? 0);
    destroy(root);
    return true;
  }

  /** Whether there is a root of that name. */
  has(name: string): boolean {
    return this.#find(name).root !== null;
  }

  /** All names, sorted. */
  names(): string[] {
    return Array.from(this.#all(), ({ name }) => name).sort();
  }

  /** What a root was made of, as the heap remembers it; `undefined` when there is none. */
  layout(name: string): string | undefined {
    return this.#find(name).root?.schema;
  }

  #migrate(root: Root, target: ObjectType, migrations: Migration[]): void {
    const { heap } = this.#access;
    const { name } = root;
    let schema = root.schema;
    let current: Handle | undefined;
    const before: Handle[] = [];
    try {
      while (schema !== schemaOf(target).text) {
        const step = migrations.find(({ from }) => schemaOf(expectObject(from)).text === schema);
        if (step === undefined || before.length > migrations.length) {
          throw mismatch(name, root.schema, schemaOf(target).text, migrations.length > 0);
        }
        const old = current ?? (expectObject(step.from).at(heap, root.object) as Handle);
        before.push(old);
        current = this.#expectAlone(step.migrate(old as never, heap));
        schema = schemaOf(typeOf(current)).text;
      }
    } catch (error) {
      this.#destroyUnnamed([...before, ...current ? [current] : []]);
      throw error;
    }
    const found = this.#find(name);
    this.#replace(name, found.root, found.link, current!);
    this.#destroyUnnamed(before);
  }

  /** Destroys what no root names, this one or another, and what the program has not destroyed itself. */
  #destroyUnnamed(objects: readonly Handle[]): void {
    const left = new Map(
      objects.filter((object) => !object.$view.buffer.detached).map((
        object,
      ) => [object.ptr, object]),
    );
    if (left.size === 0) return;
    for (const root of this.#all()) left.delete(root.object);
    for (const object of left.values()) destroy(object);
  }

  /** Puts a new entry in the place of the old one, or before the first. */
  #replace(name: string, root: Root | null, link: Pointer, value: Handle): void {
    const { text: schema, hash } = schemaOf(typeOf(value));
    const next = root === null ? null : root.next;
    const made = new Root(this.#access.heap, { name, schema, hash, object: value.ptr, next });
    this.#link(link, made.ptr);
    if (root !== null) destroy(root);
  }

  #expectAlone(value: unknown): Handle {
    const wanted = "give a struct or container of this heap that stands alone";
    if (!(value instanceof Handle)) {
      throw new PermError("INVALID_ARGUMENT", `Cannot use ${describe(value)} as a root: ${wanted}`);
    }
    const pane = paneOf(value);
    const { name } = expectObject(typeOf(value));
    if (value.$view !== pane.view) {
      throw new PermError(
        "INVALID_ARGUMENT",
        `Cannot use this ${name} as a root: it stands in another object; ${wanted}`,
      );
    }
    if (pane.access !== this.#access && !this.#access.owns(value.ptr)) {
      throw new PermError(
        "INVALID_ARGUMENT",
        `Cannot use a ${name} of another heap as a root: ${wanted}`,
      );
    }
    expectBlock(value, name);
    return value;
  }

  /** The root of that name, and where the pointer to it stands; the list's end if there is none. */
  #find(name: string, make = false): { root: Root | null; link: Pointer } {
    if (typeof name !== "string" || name === "" || !name.isWellFormed()) {
      throw new PermError(
        "INVALID_ARGUMENT",
        `Cannot take ${describe(name)} as a root's name: give a string that is not empty and ` +
          "well-formed",
      );
    }
    let found: Root | null = null;
    const link = this.#walk(make, (root: Root & Partial<Handle>) => {
      if (!isText(root.$pane!, root.$at!, name)) return false;
      found = root;
      return true;
    });
    return { root: found, link };
  }

  #all(): Root[] {
    const all: Root[] = [];
    this.#walk(false, (root) => all.push(root) === 0);
    return all;
  }

  /** Shows each root until one is taken: where the pointer to it stands, or the list's end. */
  #walk(make: boolean, take: (root: Root) => boolean): Pointer {
    const { heap } = this.#access;
    const start = rootsAt(heap, make);
    if (start === 0) return 0;
    let link = start + firstAt;
    // A list that turns back comes again to where it was after 1, 2, 4, 8 … roots.
    let seen = 0;
    let steps = 0;
    for (let p = this.#load(link); p !== 0; p = this.#load(link)) {
      if (p === seen) throw circular(p);
      if ((++steps & (steps - 1)) === 0) seen = p;
      const root = Root.at(heap, p);
      if (take(root)) return link;
      link = p + nextAt;
    }
    return link;
  }

  /** In the pane that is there already: `heap.load` would make a window of its own. */
  #load(link: Pointer): Pointer {
    const pane = this.#access.pane(link, 8);
    return readU53(pane.view, (link - pane.base) | 0);
  }

  #link(link: Pointer, p: Pointer): void {
    const pane = this.#access.pane(link, 8);
    writeU53(pane.view, (link - pane.base) | 0, p);
  }
}

/** A name is given seldom, so it is asked whether the object was destroyed through another handle. */
function expectBlock(value: Handle, name: string): void {
  const { ptr } = value;
  try {
    paneOf(value).access.heap.usableSize(ptr);
  } catch (error) {
    if (!(error instanceof PermError)) throw error;
    throw new PermError(
      "STALE",
      `Cannot use the ${name} at 0x${ptr.toString(16)} as a root: it was destroyed`,
      { address: ptr },
    );
  }
}

const nextAt = Root.fields.find(({ name }) => name === "next")!.offset;

/** Where the roots begin; 0 in a heap that may only be read and has none. */
export function rootsAt(heap: Heap, make: boolean): Pointer {
  let p: Pointer;
  try {
    p = internals.globalAt(heap, globalName, globalSize, version);
  } catch (error) {
    if (!make && error instanceof PermError && error.code === "READ_ONLY") return 0;
    throw error;
  }
  const pane = accessTo(heap).pane(p, globalSize);
  const at = (p - pane.base) | 0;
  const found = pane.view.getUint32(at, true);
  if (found === 0 && readU53(pane.view, (at + firstAt) | 0) === 0) {
    pane.view.setUint32(at, version, true);
  } else if (found !== version) {
    throw new PermError(
      "BAD_VERSION",
      `Cannot read the heap's roots: their layout is version ${found}, this library reads version ` +
        `${version}`,
    );
  }
  return p;
}

function circular(p: Pointer): PermError {
  return new PermError(
    "CORRUPT",
    `Cannot read the heap's roots: their list leads in a circle to 0x${p.toString(16)}; it was ` +
      "overwritten",
    { address: p },
  );
}

function mismatch(name: string, stored: string, given: string, migrated: boolean): PermError {
  return new PermError(
    "LAYOUT_MISMATCH",
    `Cannot open root ${JSON.stringify(name)}: the heap holds it with another layout` +
      `${migrated ? ", from which no migration leads to the one given" : "; give a migration"}\n` +
      `stored: ${stored.replaceAll("\n", "\n        ")}\n` +
      `given:  ${given.replaceAll("\n", "\n        ")}`,
  );
}

const known = new WeakMap<Heap, Roots>();

/**
 * The roots of a heap: objects that every later run of the program finds by name.
 *
 * @example
 * ```ts
 * import { Heap } from "@perm/heap";
 * import { f64, roots, struct } from "@perm/heap/data";
 *
 * const Point = struct("Point", { x: f64, y: f64 });
 * using heap = Heap.open({ size: 1 << 20 });
 * const home = roots(heap).open("home", Point);
 * home.x += 1;
 * console.log(roots(heap).names()); // [ "home" ]
 * ```
 */
export function roots(heap: Heap): Roots {
  const access = accessTo(heap);
  let found = known.get(heap);
  if (found === undefined) known.set(heap, found = new Roots(access));
  return found;
}
