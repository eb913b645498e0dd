// Generated from zig/ by `deno task build`. Do not edit.

/** A platform's library: its unique soname, its file's name and length. embedded.json has its bytes. */
export const embedded: Readonly<
  Record<string, { soname: string; file: string; bytes: number }>
> = {
  "linux-x64": {
    soname: "/dev/null/ph-f281647ce88379b1.so",
    file: "ph-f281647ce88379b1.so",
    bytes: 759936,
  },
};
