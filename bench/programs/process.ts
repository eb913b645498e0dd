/** A program that asks Node's module for its arguments and does nothing else. @module */

import process from "node:process";

if (process.argv.length === 0) throw new Error("There is not even a program");
