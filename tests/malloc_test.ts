// The malloc family: what it gives, what it refuses, and that it never loses count.
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { test } from "node:test";
import { Heap, type Pointer } from "../mod.ts";
import { command, run, thisRuntime } from "./runtimes.ts";
import { after, Child, expectCode, expectWell, Folder, pattern, randomNumbers } from "./support.ts";

const mib = 1 << 20;
const timeout = 60_000;

/** Sizes that are none. */
const badSizes: unknown[] = [
  NaN,
  -1,
  -0.5,
  0.5,
  1.5,
  Infinity,
  -Infinity,
  2 ** 53 + 2,
  2 ** 64,
  -(2 ** 53),
  "8",
  "",
  8n,
  null,
  undefined,
  {},
  [],
  true,
  Symbol("size"),
  () => 8,
];

test("malloc gives blocks that are aligned, apart from each other and the program's own", {
  timeout,
}, () => {
  using heap = Heap.open({ size: mib });
  const blocks: [Pointer, number][] = [];
  for (let n = 0; n <= 3000; n += n < 300 ? 1 : 37) {
    const p = heap.malloc(n);
    assert.equal(p % 16, 0);
    assert.ok(p >= heap.address);
    assert.ok(heap.usableSize(p) >= n);
    heap.bytes(p, n).fill(n % 251);
    blocks.push([p, n]);
  }
  for (const [p, n] of blocks) assert.ok(heap.bytes(p, n).every((byte) => byte === n % 251));
  const sorted = blocks.toSorted(([a], [b]) => a - b);
  for (let i = 1; i < sorted.length; i++) {
    assert.ok(sorted[i - 1][0] + Math.max(1, sorted[i - 1][1]) <= sorted[i][0]);
  }
  heap.check();
  for (const [p] of blocks) heap.free(p);
  heap.check();
  assert.equal(heap.stats().liveBlocks, 0);
});

test("malloc(0) gives a pointer of its own each time; free(0) does nothing", { timeout }, () => {
  using heap = Heap.open({ size: mib });
  const pointers = Array.from({ length: 100 }, () => heap.malloc(0));
  assert.equal(new Set(pointers).size, 100);
  assert.ok(pointers.every((p) => p !== 0));
  const zeroed = [heap.calloc(0, 8), heap.calloc(8, 0), heap.alignedAlloc(64, 0)];
  assert.equal(new Set([...pointers, ...zeroed]).size, 103);
  for (const p of [...pointers, ...zeroed]) heap.free(p);
  heap.free(0);
  heap.freeMany([0, 0]);
  expectCode(() => heap.usableSize(0), "BAD_POINTER");
  assert.equal(heap.stats().liveBlocks, 0);
  expectWell(heap);
});

test("calloc zeroes memory that was used before", { timeout }, () => {
  using heap = Heap.open({ size: mib });
  for (const [count, size] of [[1, 1], [10, 10], [3, 1000], [1, 40_000], [100, 4096], [7, mib]]) {
    const used = heap.malloc(count * size);
    heap.bytes(used, count * size).fill(0xff);
    heap.free(used);
    const p = heap.calloc(count, size);
    assert.ok(heap.bytes(p, count * size).every((byte) => byte === 0), `${count} × ${size}`);
    heap.bytes(p, count * size).fill(0xff);
    heap.free(p);
  }
  expectCode(() => heap.calloc(2 ** 30, 2 ** 30), "OUT_OF_MEMORY");
  expectCode(() => heap.calloc(2 ** 52, 2 ** 52), "OUT_OF_MEMORY");
  expectCode(() => heap.calloc(2 ** 32, 2 ** 32), "OUT_OF_MEMORY");
  expectWell(heap);
});

test("realloc keeps what fits, in every direction of size", { timeout }, () => {
  using heap = Heap.open({ size: mib });
  let p = heap.realloc(0, 10);
  let expected = pattern(10, 1);
  heap.bytes(p, 10).set(expected);
  const sizes = [11, 16, 17, 500, 33_000, 70_000, 5 * mib, 2 * mib, 40_000, 32_000, 100, 1, 0, 64];
  for (const size of sizes) {
    p = heap.realloc(p, size);
    const kept = Math.min(size, expected.length);
    assert.deepEqual(heap.bytes(p, kept), expected.subarray(0, kept), `to ${size}`);
    expected = pattern(size, size);
    heap.bytes(p, size).set(expected);
    heap.check();
  }
  heap.free(p);
  assert.equal(heap.stats().liveBlocks, 0);
});

test("realloc that fails leaves the block as it was", { timeout }, () => {
  using heap = Heap.open({ size: mib, maxSize: 4 * mib });
  const p = heap.malloc(1000);
  const bytes = pattern(1000, 3);
  heap.bytes(p, 1000).set(bytes);
  expectCode(() => heap.realloc(p, 64 * mib), "OUT_OF_MEMORY");
  for (const bad of badSizes) expectCode(() => heap.realloc(p, bad as number), "INVALID_ARGUMENT");
  assert.deepEqual(heap.bytes(p, 1000), bytes);
  heap.free(p);
  expectCode(() => heap.realloc(p, 10), "DOUBLE_FREE");
  expectCode(() => heap.realloc(12345, 10), "BAD_POINTER");
  expectWell(heap);
});

test("alignedAlloc aligns to every power of two and refuses everything else", { timeout }, () => {
  using heap = Heap.open({ size: mib });
  const live: Pointer[] = [];
  for (let alignment = 1; alignment <= mib; alignment *= 2) {
    for (const size of [0, 1, 24, 100, 5000, 100_000]) {
      const p = heap.alignedAlloc(alignment, size);
      assert.equal(p % alignment, 0, `${alignment}, ${size}`);
      assert.ok(heap.usableSize(p) >= size);
      heap.bytes(p, size).fill(1);
      live.push(p);
    }
  }
  heap.check();
  const bad = [0, 3, 24, 1000, -16, ...badSizes];
  for (const alignment of bad) {
    expectCode(() => heap.alignedAlloc(alignment as number, 8), "INVALID_ARGUMENT");
  }
  for (const size of badSizes) {
    expectCode(() => heap.alignedAlloc(16, size as number), "INVALID_ARGUMENT");
  }
  for (const p of live) heap.free(p);
  assert.equal(heap.stats().liveBlocks, 0);
  expectWell(heap);
});

test("alignment is that of addresses, wherever the heap lies", { timeout }, () => {
  using heap = Heap.open({ size: mib, maxSize: 1 << 30, address: 0x4567_0003_0000 });
  for (let alignment = 4096; alignment <= 64 * mib; alignment *= 2) {
    const p = heap.alignedAlloc(alignment, 100);
    assert.equal(p % alignment, 0, `${alignment}`);
    heap.bytes(p, 100).fill(1);
  }
  heap.check();
});

test("an alignment beyond all memory is refused", { timeout }, () => {
  using heap = Heap.open({ size: mib, maxSize: 4 * mib });
  for (const power of [30, 40, 47, 48, 52, 53]) {
    assert.throws(
      () => heap.alignedAlloc(2 ** power, 8),
      ({ code }) => code === "OUT_OF_MEMORY" || code === "INVALID_ARGUMENT",
    );
  }
  expectWell(heap);
});

test("sizes that are none are INVALID_ARGUMENT, everywhere", { timeout }, () => {
  using heap = Heap.open({ size: mib });
  for (const bad of badSizes as number[]) {
    expectCode(() => heap.malloc(bad), "INVALID_ARGUMENT");
    expectCode(() => heap.calloc(bad, 8), "INVALID_ARGUMENT");
    expectCode(() => heap.calloc(8, bad), "INVALID_ARGUMENT");
    expectCode(() => heap.realloc(0, bad), "INVALID_ARGUMENT");
    expectCode(() => heap.mallocMany(bad, 2), "INVALID_ARGUMENT");
    const isHuge = typeof bad === "number" && bad > 2 ** 53 && bad < Infinity;
    const code = isHuge ? "OUT_OF_MEMORY" : "INVALID_ARGUMENT";
    expectCode(() => heap.mallocMany(8, bad), code);
    expectCode(() => heap.grow(bad), "INVALID_ARGUMENT");
  }
  assert.equal(heap.stats().liveBlocks, 0);
  expectWell(heap);
});

test("sizes that no heap can hold are OUT_OF_MEMORY, everywhere", { timeout }, () => {
  using heap = Heap.open({ size: mib, maxSize: 8 * mib });
  for (const huge of [8 * mib + 1, 2 ** 32, 2 ** 40, 2 ** 47, 2 ** 52, 2 ** 53 - 1, 2 ** 53]) {
    expectCode(() => heap.malloc(huge), "OUT_OF_MEMORY");
    expectCode(() => heap.calloc(1, huge), "OUT_OF_MEMORY");
    expectCode(() => heap.calloc(huge, huge), "OUT_OF_MEMORY");
    expectCode(() => heap.realloc(0, huge), "OUT_OF_MEMORY");
    expectCode(() => heap.alignedAlloc(4096, huge), "OUT_OF_MEMORY");
    expectCode(() => heap.mallocMany(huge, 1), "OUT_OF_MEMORY");
    expectCode(() => heap.grow(huge), "OUT_OF_MEMORY");
  }
  for (const count of [2 ** 21, 2 ** 32, 2 ** 40, 2 ** 50]) {
    expectCode(() => heap.mallocMany(16, count), "OUT_OF_MEMORY");
  }
  assert.equal(heap.stats().liveBlocks, 0);
  expectWell(heap);
});

test("what is no block's start is BAD_POINTER, and the heap does not mind", { timeout }, () => {
  using heap = Heap.open({ size: mib });
  using other = Heap.open({ size: mib });
  const p = heap.malloc(1000);
  const large = heap.malloc(300_000);
  const bad: number[] = [
    p + 1,
    p + 8,
    p + 16,
    p + 999,
    p - 16,
    large + 16,
    large + 4096,
    large + 65_536,
    large + 299_999,
    1,
    16,
    4096,
    12345,
    heap.address,
    heap.address + 4096,
    heap.address + 8192,
    heap.address + heap.capacity + (4 << 20),
    2 ** 47,
    2 ** 48,
    2 ** 52,
    2 ** 53,
    2 ** 60,
    Infinity,
    NaN,
    -16,
    -p,
    p + 0.5,
    other.malloc(1000),
    other.address,
  ];
  for (const pointer of bad) {
    expectCode(() => heap.free(pointer), "BAD_POINTER");
    expectCode(() => heap.realloc(pointer, 8), "BAD_POINTER");
    expectCode(() => heap.usableSize(pointer), "BAD_POINTER");
    expectCode(() => heap.freeMany([pointer]), "BAD_POINTER");
  }
  for (const pointer of ["16", 16n, null, undefined, {}, Symbol("p")] as unknown as number[]) {
    expectCode(() => heap.free(pointer), "INVALID_ARGUMENT");
    expectCode(() => heap.realloc(pointer, 8), "INVALID_ARGUMENT");
    expectCode(() => heap.usableSize(pointer), "INVALID_ARGUMENT");
  }
  assert.equal(heap.stats().liveBlocks, 2);
  heap.free(p);
  heap.free(large);
  expectWell(heap);
  expectWell(other);
});

test("freeing twice is DOUBLE_FREE for small and large blocks", { timeout }, () => {
  using heap = Heap.open({ size: mib });
  const keep = heap.malloc(100);
  for (const size of [0, 8, 100, 5000, 32_768, 32_769, 100_000, 3 * mib]) {
    const p = heap.malloc(size);
    const neighbour = heap.malloc(size);
    heap.free(p);
    expectCode(() => heap.free(p), "DOUBLE_FREE", { address: p });
    expectCode(() => heap.freeMany([p]), "DOUBLE_FREE", { address: p });
    heap.free(neighbour);
    heap.check();
  }
  heap.free(keep);
  assert.equal(heap.stats().liveBlocks, 0);
  expectWell(heap);
});

for (const library of ["PERM_LIBRARY", "the packed library"]) {
  test(`malloc and free refuse alike however often they were called, in ${library}`, {
    timeout,
  }, async () => {
    await using child = new Child(
      thisRuntime,
      library === "PERM_LIBRARY" ? [] : after("unset PERM_LIBRARY"),
    );
    const [first, ...later] = await child.run(({ perm }) => {
      using heap = perm.Heap.open({ size: 1 << 20 });
      const blocks = Float64Array.from({ length: 64 }, (_, i) => heap.malloc(i));
      const pair = (size: number, place: number) => {
        heap.free(blocks[place]);
        blocks[place] = heap.malloc(size);
      };
      const codes: string[] = [];
      const attempt = (action: () => unknown) => {
        try {
          action();
          codes.push("nothing");
        } catch (error) {
          codes.push((error as { code: string }).code);
        }
      };
      const refusals = (place: number) => {
        codes.length = 0;
        const bad = [NaN, -1, -0.5, 0.5, 1e300, -Infinity, "8", 8n, undefined, {}] as number[];
        for (const size of bad) {
          attempt(() => pair(size, place));
          blocks[place] = heap.malloc(40);
        }
        attempt(() => heap.malloc(2 ** 50));
        const block = blocks[place];
        const noBlocks = [block + 0.5, block + 1, block + 16, -block, block + 2 ** 52, block * 2];
        for (const p of [...bad, ...noBlocks]) attempt(() => heap.free(p));
        heap.free(block);
        for (const p of [block, heap.address, heap.address - 16]) attempt(() => heap.free(p));
        blocks[place] = heap.malloc(8);
        heap.check();
        return [...codes, `${heap.stats().liveBlocks} blocks`].join();
      };
      return [0, 10, 300, 100_000, 1000].map((pairs) => {
        for (let i = 0; i < pairs; i++) pair(16 + i % 400, i % 64);
        return refusals(pairs % 64);
      });
    });
    const expected = [
      ...Array(10).fill("INVALID_ARGUMENT"),
      "OUT_OF_MEMORY",
      ...Array(6).fill("BAD_POINTER"),
      ...Array(4).fill("INVALID_ARGUMENT"),
      ...Array(6).fill("BAD_POINTER"),
      "DOUBLE_FREE",
      "BAD_POINTER",
      "BAD_POINTER",
      "64 blocks",
    ];
    assert.equal(first, expected.join());
    for (const codes of later) assert.equal(codes, first);
    assert.equal(await child.end(), "exit 0");
  });
}

test(
  "malloc and free reach the heap they are called on, whichever was used before",
  { timeout },
  () => {
    const heaps = Array.from({ length: 4 }, () => Heap.open({ size: mib }));
    const live = heaps.map(() => [] as Pointer[]);
    const random = randomNumbers(11);
    for (let step = 0, which = 0; step < 40_000; step++) {
      // One heap for a while, then others in turn.
      if (step % 2000 >= 1000 || step % 1000 === 0) which = random(heaps.length);
      const heap = heaps[which];
      if (live[which].length > 500) {
        const p = live[which].splice(random(500), 1)[0];
        const other = heaps[(which + 1) % heaps.length];
        if (step % 50 === 0) expectCode(() => other.free(p), "BAD_POINTER");
        heap.free(p);
      } else {
        const size = random(200);
        const p = heap.malloc(size);
        assert.ok(heap.usableSize(p) >= size);
        live[which].push(p);
      }
      if (step % 4000 === 3999) {
        heap.check();
        heap.close();
        expectCode(() => heap.malloc(16), "CLOSED");
        expectCode(() => heap.free(live[which][0]), "CLOSED");
        // It has the closed one's place in the library's table, and perhaps its memory.
        heaps[which] = Heap.open({ size: mib });
        live[which] = [];
        expectCode(() => heap.malloc(16), "CLOSED");
      }
    }
    for (const [which, heap] of heaps.entries()) {
      assert.equal(heap.stats().liveBlocks, live[which].length);
      expectWell(heap);
      heap.close();
    }
  },
);

test(
  "malloc and free are too long for V8's first compiler to put them into a loop, and not for its second",
  {
    timeout,
    skip: thisRuntime === "deno" ? false : "about V8",
  },
  () => {
    using folder = new Folder();
    const script = folder.file("short.ts");
    writeFileSync(
      script,
      `import { Heap } from "${new URL("../mod.ts", import.meta.url)}";
    using heap = Heap.open({ size: 1 << 20 });
    heap.free(heap.malloc(16));`,
    );
    for (const method of ["malloc", "free"]) {
      const flags = ["-A", `--v8-flags=--print-bytecode,--print-bytecode-filter=${method}`];
      const { out } = run(command("deno", script, [], flags));
      const lengths = Array.from(out.matchAll(/function: (\w+) .*\nBytecode length: (\d+)/g))
        .filter(([, name]) => name === method).map(([, , length]) => Number(length));
      assert.equal(lengths.length, 1, out.slice(0, 1000));
      // By its defaults for a single function.
      assert.ok(lengths[0] > 100 && lengths[0] <= 460, `${method}: ${lengths[0]} bytes`);
    }
  },
);

test("V8 need not search for native functions, and what is called often it finds bound", {
  skip: thisRuntime === "deno" ? false : "about V8",
  timeout,
}, () => {
  using folder = new Folder();
  const script = folder.file("fast.ts");
  writeFileSync(
    script,
    `import { bound, native } from "${new URL("../ffi/mod.ts", import.meta.url)}";
    import { Heap } from "${new URL("../mod.ts", import.meta.url)}";
    using heap = Heap.open({ size: 2 ** 20 });
    for (let i = 0; i < 300; i++) {
      heap.free(heap.malloc(16));
      heap.freeMany(heap.mallocMany(16, 2));
    }
    const isFast = new Function("it", "return %HasFastProperties(it)");
    console.log(isFast(native), isFast(bound), Object.keys(bound).length);`,
  );
  const flags = ["-A", "--v8-flags=--allow-natives-syntax"];
  for (const env of [{}, { PERM_LIBRARY: undefined }]) {
    assert.equal(run(command("deno", script, [], flags), { env }).out, "true true 4\n");
  }
});

test("mallocMany and freeMany do what many calls do", { timeout }, () => {
  using heap = Heap.open({ size: mib });
  for (
    const [size, count] of [[24, 1], [16, 10_000], [400, 3000], [0, 100], [40_000, 20], [64, 0]]
  ) {
    const pointers = heap.mallocMany(size, count);
    assert.ok(pointers instanceof Float64Array);
    assert.equal(pointers.length, count);
    assert.equal(new Set(pointers).size, count);
    pointers.forEach((p, i) => heap.bytes(p, Math.min(size, 8)).fill(i));
    pointers.forEach((p, i) =>
      assert.ok(heap.bytes(p, Math.min(size, 8)).every((b) => b === i % 256))
    );
    assert.equal(heap.stats().liveBlocks, count);
    heap.check();
    heap.freeMany(count % 2 ? [...pointers] : pointers);
    assert.equal(heap.stats().liveBlocks, 0);
    heap.check();
  }
  heap.freeMany([]);
  expectCode(() => heap.freeMany(null as unknown as number[]), "INVALID_ARGUMENT");
  expectCode(() => heap.freeMany(7 as unknown as number[]), "INVALID_ARGUMENT");
  expectCode(() => heap.freeMany(["7"] as unknown as number[]), "INVALID_ARGUMENT");
  expectCode(() => heap.freeMany({ length: -1 } as unknown as number[]), "INVALID_ARGUMENT");
  expectCode(() => heap.freeMany({ length: 2 ** 50 } as unknown as number[]), "INVALID_ARGUMENT");
  expectWell(heap);
});

test("mallocMany is all or nothing", { timeout }, () => {
  using heap = Heap.open({ size: mib, maxSize: 4 * mib });
  heap.malloc(2 * mib);
  expectCode(() => heap.mallocMany(1000, 3000), "OUT_OF_MEMORY");
  expectCode(() => heap.mallocMany(40_000, 3000), "OUT_OF_MEMORY");
  // Not worth an array of its own.
  expectCode(() => heap.mallocMany(1, 2 ** 21), "OUT_OF_MEMORY", { message: /blocks of 1 bytes/ });
  assert.equal(heap.stats().liveBlocks, 1);
  const pointers = heap.mallocMany(1000, 1000);
  heap.freeMany(pointers);
  expectWell(heap);
});

test("freeMany takes pointers from any array, of any length", { timeout }, () => {
  using heap = Heap.open({ size: mib });
  for (const count of [0, 1, 2, 7, 8, 9, 15, 16, 17, 100, 1000, 1001, 5000]) {
    const kinds: ((pointers: Float64Array) => ArrayLike<Pointer>)[] = [
      (pointers) => pointers,
      (pointers) => [...pointers],
      (pointers) => Float64Array.from([...pointers, 1]).subarray(0, count),
      (pointers) => Float64Array.from([1, ...pointers]).subarray(1),
      (pointers) => {
        const shared = new Float64Array(new SharedArrayBuffer(8 * count));
        shared.set(pointers);
        return shared;
      },
      (pointers) => BigInt64Array.from(pointers, BigInt) as unknown as ArrayLike<Pointer>,
    ];
    for (const [kind, make] of kinds.entries()) {
      const isRefused = kind === kinds.length - 1 && count > 0;
      // Often enough that the runtimes compile the call, and a small array is not where it was.
      for (let round = count < 20 ? 2000 / (kind + 1) : 1; round > 0; round--) {
        const pointers = heap.mallocMany(32, count);
        if (isRefused) {
          expectCode(() => heap.freeMany(make(pointers)), "INVALID_ARGUMENT");
          for (const p of pointers) heap.free(p);
          break;
        }
        heap.freeMany(make(pointers));
      }
    }
    assert.equal(heap.stats().liveBlocks, 0);
  }
  expectWell(heap);
});

test("an array that lies about its length frees what it holds", { timeout }, () => {
  using heap = Heap.open({ size: mib });
  class Longer extends Float64Array {
    override get length(): number {
      return 2 ** 40;
    }
  }
  heap.freeMany(Longer.from(heap.mallocMany(32, 3)));
  const own = heap.mallocMany(32, 3);
  Object.defineProperty(own, "length", { value: 2 ** 40 });
  heap.freeMany(own);
  assert.equal(heap.stats().liveBlocks, 0);
  const detached = heap.mallocMany(32, 3);
  const copy = [...detached];
  structuredClone(detached.buffer, { transfer: [detached.buffer] });
  heap.freeMany(detached);
  assert.equal(heap.stats().liveBlocks, 3);
  heap.freeMany(copy);
  const none = Object.create(Float64Array.prototype) as Float64Array;
  expectCode(() => heap.freeMany(none), "INVALID_ARGUMENT");
  expectWell(heap);
});

test("freeMany stops at a bad pointer: those before it are freed", { timeout }, () => {
  using heap = Heap.open({ size: mib });
  const [a, b, c] = heap.mallocMany(64, 3);
  expectCode(() => heap.freeMany([a, b + 1, c]), "BAD_POINTER", { address: b + 1 });
  expectCode(() => heap.free(a), "DOUBLE_FREE");
  expectCode(() => heap.freeMany([b, b, c]), "DOUBLE_FREE", { address: b });
  heap.free(c);
  assert.equal(heap.stats().liveBlocks, 0);
  expectWell(heap);
});

test("malloc grows the heap up to maxSize, then it is OUT_OF_MEMORY; freeing helps", {
  timeout,
}, () => {
  using heap = Heap.open({ size: mib, maxSize: 16 * mib });
  const before = heap.capacity;
  const blocks: Pointer[] = [];
  const refused = expectCode(() => {
    for (;;) blocks.push(heap.malloc(10_000));
  }, "OUT_OF_MEMORY");
  assert.match(refused.message, /maxSize/);
  assert.ok(heap.capacity > before);
  assert.ok(heap.capacity <= 16 * mib);
  assert.ok(blocks.length * 10_000 > 14 * mib, `only ${blocks.length} blocks fitted`);
  assert.equal(heap.stats().maxSize, 16 * mib);
  expectCode(() => heap.malloc(10_000), "OUT_OF_MEMORY");
  heap.check();
  for (const p of blocks.splice(0, blocks.length / 2)) heap.free(p);
  for (let i = 0; i < 300; i++) blocks.push(heap.malloc(10_000));
  heap.check();
  for (const p of blocks) heap.free(p);
  assert.equal(heap.stats().liveBlocks, 0);
  const large = heap.malloc(15 * mib);
  heap.bytes(large, 15 * mib).fill(1);
  heap.free(large);
  expectWell(heap);
});

test("grow() makes room in place and never shrinks", { timeout }, () => {
  using heap = Heap.open({ size: mib, maxSize: 32 * mib });
  const p = heap.malloc(1000);
  heap.bytes(p, 1000).fill(3);
  const view = heap.bytes(p, 1000);
  const { address } = heap;
  heap.grow(20 * mib);
  assert.ok(heap.capacity >= 20 * mib);
  const { capacity } = heap;
  heap.grow(mib);
  heap.grow(0);
  assert.equal(heap.capacity, capacity);
  assert.equal(heap.address, address);
  assert.ok(view.every((byte) => byte === 3));
  expectCode(() => heap.grow(33 * mib), "OUT_OF_MEMORY");
  assert.equal(heap.capacity, capacity);
  heap.bytes(heap.malloc(19 * mib), 19 * mib).fill(1);
  expectWell(heap);
});

test("large blocks give their room back to each other", { timeout }, () => {
  using heap = Heap.open({ size: mib, maxSize: 64 * mib });
  for (let round = 0; round < 200; round++) {
    const a = heap.malloc(20 * mib);
    const b = heap.malloc(30 * mib);
    heap.bytes(a, 1)[0] = heap.bytes(b, 30 * mib)[30 * mib - 1] = 1;
    heap.free(a);
    heap.free(b);
  }
  expectWell(heap);
});

/** A model of a heap: what is live, and what it must hold. */
class Model {
  readonly live: { p: Pointer; size: number; seed: number }[] = [];
  #seed = 0;

  constructor(readonly heap: Heap) {}

  add(p: Pointer, size: number): void {
    const seed = this.#seed++;
    // A long block is marked at both ends only; that finds overlaps as well.
    this.#ends(p, size).forEach((bytes, i) => bytes.set(pattern(bytes.length, seed * 2 + i)));
    this.live.push({ p, size, seed });
  }

  take(index: number): { p: Pointer; size: number } {
    const [{ p, size, seed }] = this.live.splice(index, 1);
    this.#ends(p, size).forEach((bytes, i) => {
      assert.deepEqual(bytes, pattern(bytes.length, seed * 2 + i));
    });
    return { p, size };
  }

  #ends(p: Pointer, size: number): Uint8Array[] {
    const head = Math.min(32, size);
    const tail = Math.min(32, size - head);
    return [this.heap.bytes(p, head), this.heap.bytes(p + size - tail, tail)];
  }
}

for (const seed of [1, 2, 3]) {
  test(`a random program of 10,000 steps agrees with a model, seed ${seed}`, { timeout }, () => {
    using folder = new Folder();
    const heap = Heap.open({ file: folder.file("a"), size: mib });
    const model = new Model(heap);
    const next = randomNumbers(seed);
    const sizeOf = () =>
      next(200) === 0 ? next(400_000) : next(20) === 0 ? next(20_000) : next(600);
    for (let step = 0; step < 10_000; step++) {
      const grows = model.live.length < 3000 && step % 4000 < 2500;
      const kind = next(100);
      const size = sizeOf();
      if (kind < (grows ? 55 : 30)) {
        model.add(heap.malloc(size), size);
      } else if (kind < 60) {
        const p = heap.calloc(1, size);
        assert.ok(heap.bytes(p, size).every((byte) => byte === 0));
        model.add(p, size);
      } else if (kind < 63) {
        const alignment = 1 << next(14);
        const p = heap.alignedAlloc(alignment, size);
        assert.equal(p % alignment, 0);
        model.add(p, size);
      } else if (kind < 64) {
        for (const p of heap.mallocMany(size % 2000, 20)) model.add(p, size % 2000);
      } else if (model.live.length > 0) {
        const old = model.take(next(model.live.length));
        if (kind < 70) {
          const head = heap.bytes(old.p, Math.min(32, old.size, size)).slice();
          const p = heap.realloc(old.p, size);
          assert.deepEqual(heap.bytes(p, head.length), head);
          model.add(p, size);
        } else {
          heap.free(old.p);
        }
      }
      if (step % 5000 === 4999) {
        heap.check();
        assert.equal(heap.stats().liveBlocks, model.live.length);
        heap.flush();
      }
    }
    heap.close();
    using again = Heap.open({ file: folder.file("a"), size: mib });
    const same = new Model(again);
    same.live.push(...model.live);
    assert.equal(again.stats().liveBlocks, same.live.length);
    while (same.live.length > 0) again.free(same.take(same.live.length - 1).p);
    assert.equal(again.stats().liveBlocks, 0);
    expectWell(again);
  });
}

test("a million blocks: counted, freed, and the room is used again", { timeout }, () => {
  using heap = Heap.open({ size: mib });
  const pointers = heap.mallocMany(32, 1_000_000);
  const { used } = heap;
  assert.ok(used < 1.15 * 32e6, `${used} bytes used for 32e6`);
  assert.equal(heap.stats().liveBlocks, 1_000_000);
  heap.check();
  heap.freeMany(pointers);
  const again = heap.mallocMany(32, 1_000_000);
  assert.ok(heap.used <= used + (1 << 20), "the second million took the first one's room");
  heap.freeMany(again);
  assert.equal(heap.stats().liveBlocks, 0);
  expectWell(heap);
});
