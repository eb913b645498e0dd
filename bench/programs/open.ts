/**
 * A program that opens the heap in the file it is given, reads a number and ends. It asks for the file
 * as bench/programs/restart.ts does.
 *
 * @module
 */

import { Heap } from "../../mod.ts";

const [file] = "Bun" in globalThis
  ? (globalThis as unknown as { process: { argv: string[] } }).process.argv.slice(2)
  : Deno.args;
using heap = Heap.open({ file, size: 64 * 2 ** 20 });
if (heap.view(Uint32Array, heap.root, 1)[0] === 0) throw new Error("Read 0 where data was");
