/**
 * The other process of a test: reads calls from standard input, a line each, and answers each with
 * a line. It ends with its input.
 *
 * @module
 */
import process from "node:process";
import { createInterface } from "node:readline";
import { answer } from "./remote.ts";

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(JSON.stringify(await answer(JSON.parse(line))) + "\n");
}
