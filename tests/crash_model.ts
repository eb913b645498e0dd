/**
 * What a heap of the crash tests holds: a structure that a fresh process can walk, and the same as
 * plain JavaScript beside it, which never looks at the heap.
 *
 *     root → table { magic, slots, mark, blocks, globals, 0, 0, 0: u32; slots × pointer to node }
 *     node { id, kind, length, guard: u32; payload, payload again: pointer }
 *
 * Besides: `blocks` registered JavaScript arrays, `globals` arrays by name in the heap, and for PERM's
 * own way of working the PERM block. `mark` is a random number that every changed commit sets anew, so
 * that no two states have one digest.
 *
 * @module
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { type Heap, PERM, perm, type Pointer } from "../mod.ts";

export const tableHeader = 32;
export const nodeSize = 32;
const magic = 0x7ab1e001;

/** Blocks and globals there can be, and how many elements the n-th of them has. */
export const namesMax = 6;

export function blockLength(index: number): number {
  return 5 + index * 700;
}

export function globalLength(index: number): number {
  return 9 + index * 3000;
}

/** A node's payload, and its digest until it changes. */
export interface Payload {
  bytes: Uint8Array;
  digest?: string;
}

/** The state as JavaScript. */
export class Model {
  mark = 0;
  readonly nodes: Map<number, Payload> = new Map();
  blocks: Float64Array[] = [];
  globals: Uint32Array[] = [];
  /** What the PERM block holds; undefined where it is not used. */
  home: Float64Array | undefined;

  /** Bytes of all payloads. */
  get bytes(): number {
    let sum = 0;
    for (const { bytes } of this.nodes.values()) sum += bytes.length;
    return sum;
  }

  /** One text for all of the state. */
  digest(): string {
    const whole = createHash("sha1");
    const section = (name: string, count: number) => whole.update(`${name} ${count}\n`);
    section("mark", this.mark);
    for (const id of [...this.nodes.keys()].sort((a, b) => a - b)) {
      const node = this.nodes.get(id)!;
      node.digest ??= createHash("sha1").update(node.bytes).digest("hex");
      section(`node ${id} ${node.digest}`, node.bytes.length);
    }
    for (const [name, arrays] of Object.entries({ block: this.blocks, global: this.globals })) {
      section(name, arrays.length);
      for (const array of arrays) whole.update(bytesOf(array));
    }
    if (this.home) whole.update(bytesOf(this.home));
    return whole.digest("hex").slice(0, 16);
  }
}

function bytesOf(array: ArrayBufferView): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

/** The heap's side: where things are. */
export class Structure {
  readonly heap: Heap;
  /** The registered arrays, which the heap fills. */
  readonly targets: Float64Array[] = [];
  /** This process's view of the PERM block, when it is registered. */
  readonly home: Float64Array | undefined;

  constructor(heap: Heap, home?: Float64Array) {
    this.heap = heap;
    this.home = home;
  }

  get table(): Pointer {
    return this.heap.root;
  }

  get slots(): number {
    return this.field(4);
  }

  field(offset: number): number {
    return this.heap.dataView(this.table + offset, 4).getUint32(0, true);
  }

  setField(offset: number, value: number): void {
    this.heap.dataView(this.table + offset, 4).setUint32(0, value, true);
  }

  /** Where the pointer to a node lies. */
  slot(id: number): Pointer {
    return this.table + tableHeader + 8 * id;
  }

  node(id: number): Pointer {
    return this.heap.load(this.slot(id));
  }

  payload(id: number): Pointer {
    return this.heap.load(this.node(id) + 16);
  }

  /** Makes the structure of an empty state in a new heap. */
  create(slots: number): void {
    const { heap } = this;
    heap.root = heap.calloc(1, tableHeader + 8 * slots);
    this.setField(0, magic);
    this.setField(4, slots);
  }

  /** Writes a node's fields. */
  link(node: Pointer, id: number, length: number, payload: Pointer): void {
    const view = this.heap.dataView(node, nodeSize);
    view.setUint32(0, id, true);
    view.setUint32(4, 1, true);
    view.setUint32(8, length, true);
    view.setUint32(12, ~(id ^ length) >>> 0, true);
    this.heap.store(node + 16, payload);
    this.heap.store(node + 24, payload);
  }

  /** Registers the blocks that the state has and this process has not yet. */
  register(count: number): void {
    while (this.targets.length < count) {
      const target = new Float64Array(blockLength(this.targets.length));
      this.heap.perm(`block.${this.targets.length}`, target);
      this.targets.push(target);
    }
  }

  /** After a restore to a state with fewer blocks: registers those only. */
  unregister(count: number): void {
    while (this.targets.length > count) {
      this.targets.pop();
      this.heap.unperm(`block.${this.targets.length}`);
    }
  }

  global(index: number): Uint32Array {
    return this.heap.global(`global.${index}`, Uint32Array, globalLength(index));
  }

  /** Walks the heap: the model that it stands for. Throws where the structure contradicts itself. */
  read(): Model {
    const { heap, table } = this;
    const model = new Model();
    assert.equal(this.field(0), magic, "the table's magic");
    const slots = this.slots;
    assert.ok(tableHeader + 8 * slots <= heap.usableSize(table), `a table of ${slots} slots`);
    model.mark = this.field(8);
    for (let id = 0; id < slots; id++) {
      const node = this.node(id);
      if (node === 0) continue;
      const view = heap.dataView(node, nodeSize);
      const length = view.getUint32(8, true);
      assert.equal(view.getUint32(0, true), id, "a node's id");
      assert.equal(view.getUint32(12, true), ~(id ^ length) >>> 0, `guard of node ${id}`);
      const payload = heap.load(node + 16);
      assert.equal(heap.load(node + 24), payload, `pointers of node ${id}`);
      assert.ok(heap.usableSize(payload) >= length, `payload of node ${id}`);
      model.nodes.set(id, { bytes: heap.bytes(payload, length).slice() });
    }
    const blocks = this.field(12);
    assert.ok(blocks <= namesMax, `${blocks} blocks`);
    this.register(blocks);
    this.unregister(blocks);
    model.blocks = this.targets.map((target) => target.slice());
    const globals = this.field(16);
    assert.ok(globals <= namesMax, `${globals} globals`);
    for (let index = 0; index < globals; index++) model.globals.push(this.global(index).slice());
    model.home = this.home?.slice();
    return model;
  }
}

/** Declares this process's PERM block and registers it with the default heap, or the next one. */
export function registerHome(): Float64Array {
  const { crash } = PERM.declare({ crash: [Float64Array, 700] });
  perm(PERM.start, PERM.size);
  return crash;
}
