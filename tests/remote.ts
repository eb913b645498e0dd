/**
 * Runs functions that arrive as source, in a child process or in a Worker.
 *
 * @module
 */
import * as perm from "../mod.ts";

/** What a function that runs elsewhere gets: the package, and a place to keep things. */
export interface Tools {
  perm: typeof perm;
  // deno-lint-ignore no-explicit-any
  state: Record<string, any>;
}

/** A call: the function's source, and its arguments as JSON. */
export interface Call {
  source: string;
  args: unknown[];
}

/** What came of it: a result, or an error with the code that a `PermError` has. */
export interface Answer {
  result?: unknown;
  code?: perm.ErrorCode;
  message?: string;
}

const tools: Tools = { perm, state: {} };

/** Runs a call; never throws. */
export async function answer({ source, args }: Call): Promise<Answer> {
  try {
    const action = new Function(`return (${source})`)();
    return { result: (await action(tools, ...args)) ?? null };
  } catch (error) {
    if (error instanceof perm.PermError) return { code: error.code, message: error.message };
    return { message: error instanceof Error ? error.stack ?? error.message : String(error) };
  }
}
