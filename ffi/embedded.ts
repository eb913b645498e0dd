// Generated from zig/ by `deno task build`. Do not edit.

/** A platform's library: its unique soname, and the file in base64. */
export const embedded: Readonly<Record<string, { soname: string; base64: string }>> = {};
