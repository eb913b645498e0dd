// A struct's offsets are C's and Zig's: their compilers are asked.
import assert from "node:assert/strict";
import { existsSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import {
  array,
  bool,
  f32,
  f64,
  fixedText,
  i16,
  i32,
  i64,
  i8,
  ref,
  struct,
  text,
  type Type,
  u16,
  u32,
  u53,
  u64,
  u8,
} from "../data/mod.ts";
import { zig } from "./native.ts";
import { run } from "./runtimes.ts";
import { Folder, randomNumbers } from "./support.ts";

const asked = {
  skip: existsSync(zig) ? false : "there is no compiler: run `deno task setup`",
  timeout: 120_000,
};

/** What each type is called in C and in Zig; arrays and structs follow from their parts. */
const names: Record<string, [c: string, zig: string]> = {
  u8: ["uint8_t", "u8"],
  u16: ["uint16_t", "u16"],
  u32: ["uint32_t", "u32"],
  i8: ["int8_t", "i8"],
  i16: ["int16_t", "i16"],
  i32: ["int32_t", "i32"],
  u53: ["uint64_t", "u64"],
  u64: ["uint64_t", "u64"],
  i64: ["int64_t", "i64"],
  f32: ["float", "f32"],
  f64: ["double", "f64"],
  bool: ["bool", "bool"],
  text: ["struct perm_text", "PermText"],
  ref: ["void *", "?*anyopaque"],
};
const scalars: Type[] = [u8, u16, u32, i8, i16, i32, u53, u64, i64, f32, f64, bool, text];

// The slot of a text as a C program sees it.
const cHead = `#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
struct perm_text {
  union {
    struct { uint64_t address; uint32_t length; };
    char inside[15];
    struct { char before[15]; uint8_t tag; };
  };
};
`;
const zigHead = `const PermText = extern struct {
    at: extern union {
        outside: extern struct { address: u64, length: u32, zeros: [3]u8, tag: u8 },
        inside: [16]u8,
    },
};
`;

interface Member {
  name: string;
  type: Type;
  /** How often it is repeated in place: what fixed text and arrays are. */
  lengths: number[];
  part: string;
}

function cMember({ name, lengths, part }: Member): string {
  const type = names[part]?.[0] ?? (part === "char" ? "char" : `struct ${part}`);
  return `  ${type} ${name}${lengths.map((n) => `[${n}]`).join("")};`;
}

function zigMember({ name, lengths, part }: Member): string {
  const type = names[part]?.[1] ?? (part === "char" ? "u8" : part);
  return `    ${name}: ${lengths.map((n) => `[${n}]`).join("")}${type},`;
}

function randomMember(
  random: (bound: number) => number,
  name: string,
  known: Type[],
): Member {
  const lengths: number[] = [];
  let type: Type;
  let part: string;
  const choice = random(20);
  if (choice < 3 && known.length > 0) {
    type = known[random(known.length)];
    part = type.name;
  } else if (choice < 5) {
    const n = 1 + random(19);
    type = fixedText(n);
    part = "char";
    lengths.push(n);
  } else if (choice < 7 && known.length > 0) {
    type = ref(known[random(known.length)]) as Type;
    part = "ref";
  } else {
    type = scalars[random(scalars.length)];
    part = type.name;
  }
  for (let depth = random(8) === 0 ? 2 : random(4) === 0 ? 1 : 0; depth > 0; depth--) {
    const n = 1 + random(5);
    type = array(type, n);
    lengths.unshift(n);
  }
  return { name, type, lengths, part };
}

test("offsets, sizes and alignments of random structs are those of C and of Zig", asked, () => {
  const random = randomNumbers(20_13);
  const known: Type[] = [];
  let c = cHead;
  let z = zigHead;
  for (let index = 0; index < 60; index++) {
    const name = `S${index}`;
    const members = Array.from(
      { length: 1 + random(9) },
      (_, at) => randomMember(random, `f${at}`, known),
    );
    const type = struct(name, Object.fromEntries(members.map(({ name, type }) => [name, type])));
    known.push(type as Type);
    c += `struct ${name} {\n${members.map(cMember).join("\n")}\n};\n`;
    c += `_Static_assert(sizeof(struct ${name}) == ${type.size}, "size of ${type.layout}");\n`;
    c += `_Static_assert(_Alignof(struct ${name}) == ${type.align}, "align of ${type.layout}");\n`;
    z += `const ${name} = extern struct {\n${members.map(zigMember).join("\n")}\n};\n`;
    z += `comptime {\n    expect(@sizeOf(${name}) == ${type.size}, "size of ${type.layout}");\n`;
    z += `    expect(@alignOf(${name}) == ${type.align}, "align of ${type.layout}");\n`;
    for (const field of type.fields) {
      const what = `${name}.${field.name} in ${type.layout}`;
      c +=
        `_Static_assert(offsetof(struct ${name}, ${field.name}) == ${field.offset}, "${what}");\n`;
      z += `    expect(@offsetOf(${name}, "${field.name}") == ${field.offset}, "${what}");\n`;
    }
    z += "}\n";
  }
  z += `fn expect(comptime is: bool, comptime what: []const u8) void {
    if (!is) @compileError(what);
}
`;
  using folder = new Folder();
  writeFileSync(folder.file("layout.c"), c);
  writeFileSync(folder.file("layout.zig"), z);
  const compile = (file: string) =>
    run([zig, "cc", "-std=c11", "-ffreestanding", "-c", file, "-o", folder.file("out.o")]);
  const cResult = compile(folder.file("layout.c"));
  assert.equal(cResult.code, 0, cResult.err.slice(0, 4000));
  const zigResult = run([zig, "build-obj", "-fno-emit-bin", folder.file("layout.zig")]);
  assert.equal(zigResult.code, 0, zigResult.err.slice(0, 4000));
  // The compilers were heard: what is wrong is refused.
  writeFileSync(folder.file("wrong.c"), c.replace(/== (\d+), "size of/, '== $1 + 1, "size of'));
  const wrong = compile(folder.file("wrong.c"));
  assert.notEqual(wrong.code, 0);
  assert.match(wrong.err, /size of struct S0/);
});

test("the documented example is laid out as written", () => {
  const Point = struct("Point", {
    x: f64,
    y: f64,
    tag: fixedText(12),
    name: text,
    get next() {
      return ref(Point);
    },
  });
  assert.equal(
    Point.layout,
    "struct Point { x: f64 @0; y: f64 @8; tag: fixedText(12) @16; name: text @32; " +
      "next: ref(Point) @48 } 56 bytes",
  );
  assert.deepEqual([Point.size, Point.align], [56, 8]);
});
