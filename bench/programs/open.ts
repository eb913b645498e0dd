/** A program that opens the heap in the file it is given, reads a number and ends. @module */

import process from "node:process";
import { Heap } from "../../mod.ts";

using heap = Heap.open({ file: process.argv[2], size: 64 * 2 ** 20 });
if (heap.view(Uint32Array, heap.root, 1)[0] === 0) throw new Error("Read 0 where data was");
