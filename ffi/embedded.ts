// Generated from zig/ by `deno task build`. Do not edit.

/** A platform's library: its unique soname, its file's name and length. embedded.json has its bytes. */
export const embedded: Readonly<
  Record<string, { soname: string; file: string; bytes: number }>
> = {
  "linux-x64": {
    soname: "/dev/null/ph-a9d95660932661b1.so",
    file: "ph-a9d95660932661b1.so",
    bytes: 765120,
  },
};
