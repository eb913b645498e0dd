// Written by `deno task build`: the shared library of each platform, compressed. Empty until then.

/** A platform's library: its unique soname, and the file as gzip in base64. */
export const embedded: Readonly<Record<string, { soname: string; gzip: string }>> = {};
