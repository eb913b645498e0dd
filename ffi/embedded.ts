// Generated from zig/ by `deno task build`. Do not edit.

/** A platform's library: its unique soname, its file's name and length. embedded.json has its bytes. */
export const embedded: Readonly<
  Record<string, { soname: string; file: string; bytes: number }>
> = {
  "linux-x64": {
    soname: "/dev/null/ph-81b5d6a424ff2d65.so",
    file: "ph-81b5d6a424ff2d65.so",
    bytes: 761936,
  },
};
