/** placeholder */
import type { Measure } from "../harness.ts";
export const native: Measure = { title: "n", roles: {}, run: () => Promise.resolve([]) };
