/**
 * A process that a measure starts: runs one role, tells its result as a line of JSON, and with
 * `hold` waits to be killed.
 *
 *     child.ts MEASURE/ROLE ARGUMENTS [hold]
 *
 * @module
 */

import process from "node:process";
import { measures } from "./measures/mod.ts";

const [role, args, hold] = process.argv.slice(2);
const [measure, name] = role.split("/");
const result = await measures[measure].roles[name](JSON.parse(args));
console.log(`result ${JSON.stringify(result)}`);
if (hold === "hold") setInterval(() => {}, 2 ** 30);
