// Values that are not what they say, that answer differently each time, or that change the heap while
// they are looked at: a PermError or what a plain value would do, and a heap that is whole.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Heap, PERM, perm, unperm } from "../mod.ts";
import { apply, check, undo } from "../tuning/mod.ts";
import { expectCode, expectWell, Folder } from "./support.ts";

// deno-lint-ignore no-explicit-any
type Anything = any;

const size = 1 << 20;

function revoked(): Anything {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
}

test("a list of pointers by its prototype alone frees what lies in its memory, and no more", () => {
  using heap = Heap.open({ size });
  const all = new Float64Array(8).map(() => heap.malloc(64));
  const first = new Uint8Array(all.buffer, 0, 8);
  heap.freeMany(Object.setPrototypeOf(first, Float64Array.prototype));
  assert.equal(heap.stats().liveBlocks, 7);
  const none = new DataView(new ArrayBuffer(64));
  for (const list of [Object.setPrototypeOf(none, Float64Array.prototype), revoked()]) {
    expectCode(() => heap.freeMany(list), "INVALID_ARGUMENT", { message: /an array of pointers/ });
  }
  let looks = 0;
  const changing = {
    length: 1,
    get 0() {
      return ++looks === 1 ? all[1] : "7";
    },
  };
  heap.freeMany(changing as Anything);
  assert.equal(heap.stats().liveBlocks, 6);
  expectWell(heap);
});

test("a result that cannot be asked whether it is a promise leaves the gate open", () => {
  using heap = Heap.open({ size });
  const bad = {
    get then(): never {
      throw new Error("no then");
    },
  };
  assert.throws(() => heap.change(() => bad), /no then/);
  // Within a change of this thread it would be BUSY.
  heap.quiesce(() => heap.check());
  assert.throws(() => heap.quiesce(revoked), TypeError);
  heap.change(() => heap.check());
  assert.equal(heap.quiesce(() => 5), 5);
});

test("a callable promise holds the gate until it settles", async () => {
  using heap = Heap.open({ size });
  let settle = () => {};
  const later = Object.assign(() => {}, {
    then: (resolve: () => void) => void (settle = resolve),
  });
  const done = heap.change(() => later) as unknown as Promise<void>;
  expectCode(() => heap.quiesce(() => 1), "BUSY");
  await Promise.resolve();
  settle();
  await done;
  assert.equal(heap.quiesce(() => 1), 1);
});

test("targets of blocks that are not what they say are refused", () => {
  using heap = Heap.open({ size });
  const lying = (property: string, value: unknown) => {
    return Object.defineProperty(new Uint8Array(8), property, { value });
  };
  const targets: Anything[] = [
    new Proxy(new ArrayBuffer(8), {}),
    Object.create(ArrayBuffer.prototype),
    Object.setPrototypeOf(new SharedArrayBuffer(8), ArrayBuffer.prototype),
    Object.setPrototypeOf(new DataView(new ArrayBuffer(8)), Float64Array.prototype),
    lying("byteLength", 1e9),
    lying("byteOffset", 1e9),
    lying("length", Symbol("length")),
    lying("buffer", {}),
    revoked(),
  ];
  for (const target of targets) {
    expectCode(() => heap.perm("block", target), "INVALID_ARGUMENT", { message: /block "block"/ });
    expectCode(() => perm("block", target), "INVALID_ARGUMENT");
  }
  heap.perm("block", new Uint8Array(8));
  perm("block", new Uint8Array(8));
  unperm("block");
});

test("counts that are none are refused before they are shown as text", () => {
  using heap = Heap.open({ size });
  const counts: Anything[] = [Symbol("n"), Object.create(null), revoked(), { toString: () => "1" }];
  for (const count of counts) {
    expectCode(() => heap.global("g", Float64Array, count), "INVALID_ARGUMENT");
    expectCode(() => PERM.declare({ lies: [Float64Array, count] }), "INVALID_ARGUMENT");
  }
  expectCode(() => PERM.declare(revoked()), "INVALID_ARGUMENT");
  expectCode(() => PERM.declare({ lies: revoked() }), "INVALID_ARGUMENT");
});

test("options that cannot be looked at are refused", () => {
  using heap = Heap.open({ size });
  for (
    const call of [
      () => Heap.open(revoked()),
      () => heap.restore(revoked()),
      () => heap.bopen("x", "w+", revoked()),
      () => heap.quiesce(() => 1, revoked()),
    ]
  ) expectCode(call, "INVALID_ARGUMENT", { message: /`options`/ });
});

test("options of tuning are known by name, since a misspelt root would be the system's", () => {
  const refused = (call: () => unknown) => {
    expectCode(call, "INVALID_ARGUMENT", { message: /`root`/ });
  };
  // What would not be refused would be done: only looking is tried with all.
  for (const options of [null, 5, "/tmp", { rooot: "/nowhere" }] as Anything[]) {
    refused(() => check(options));
  }
  refused(() => apply(null as Anything));
  refused(() => undo(null as Anything));
});

test("options whose getters close, commit or open the heap come to what they say in the end", () => {
  using folder = new Folder();
  const file = folder.file("a");
  const heap = Heap.open({ file, size });
  heap.root = heap.calloc(1, 8);
  heap.flush();
  expectCode(() => {
    heap.restore({
      from: "map",
      get epoch() {
        heap.close();
        return 1;
      },
    });
  }, "CLOSED");
  {
    using again = Heap.open({
      file,
      get size() {
        using inner = Heap.open({ file, size });
        inner.store(inner.root, 7);
        inner.flush();
        return size;
      },
    });
    assert.equal(again.load(again.root), 7);
    expectCode(() => {
      again.bopen(folder.file("b"), "w+", {
        get keep() {
          again.bopen(folder.file("c"), "w+");
          return 1;
        },
      });
    }, "ALREADY_OPEN");
    again.backup();
    const buffer = new Float64Array(2);
    expectCode(() => {
      again.perm("twice", {
        [Symbol.toStringTag]: "x",
        get byteLength() {
          return 16;
        },
      } as Anything);
    }, "INVALID_ARGUMENT");
    again.perm("twice", buffer);
    expectWell(again);
  }
  using last = Heap.open({ file, size, verify: true });
  expectWell(last);
});

test("an image given by an object that is closed meanwhile is closed by the others", () => {
  using folder = new Folder();
  using heap = Heap.open({ size });
  const second = Heap.attach(heap.handle);
  const image = second.bopen(folder.file("b"), "w+");
  second.close();
  image.close();
  assert.equal(heap.backupImage, null);
  image.close();
});

test("what a message shows of a value is short and of one line, whatever the value says it is", () => {
  using heap = Heap.open({ size });
  const named = { [Symbol.toStringTag]: "\n\0".repeat(5000) };
  for (const value of [named, 10n ** 5000n, Symbol("s".repeat(5000))] as Anything[]) {
    const error = expectCode(() => heap.malloc(value), "INVALID_ARGUMENT");
    assert.ok(error.message.length < 700, error.message);
  }
});
