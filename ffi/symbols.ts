// Generated from zig/src/abi.zig by `deno task build`. Do not edit.

/** What a parameter of a native function is: a number, or JavaScript memory for the call. */
export type NativeType = "f64" | "buffer";

/** Parameters of every native function; each returns an f64. */
export const symbols = {
  ph_abi: [],
  ph_error: ["buffer", "buffer"],
  ph_file_read: ["buffer", "buffer", "f64"],
  ph_file_write: ["buffer", "buffer", "f64", "f64"],
  ph_mopen: ["buffer", "buffer"],
  ph_open: ["buffer", "buffer"],
  ph_close: ["f64"],
  ph_attach: ["buffer", "f64"],
  ph_detach: ["f64"],
  ph_handle_text: ["f64", "buffer"],
  ph_info: ["f64", "buffer"],
  ph_stats: ["f64", "buffer"],
  ph_check: ["f64"],
  ph_grow: ["f64", "f64"],
  ph_malloc: ["f64", "f64"],
  ph_calloc: ["f64", "f64", "f64"],
  ph_realloc: ["f64", "f64", "f64"],
  ph_free: ["f64", "f64"],
  ph_aligned_alloc: ["f64", "f64", "f64"],
  ph_usable_size: ["f64", "f64"],
  ph_malloc_many: ["f64", "f64", "f64", "buffer"],
  ph_free_many: ["f64", "buffer", "f64"],
  ph_range: ["f64", "f64", "f64"],
  ph_root: ["f64"],
  ph_root_set: ["f64", "f64"],
  ph_perm: ["f64", "buffer", "f64", "f64", "f64", "f64", "buffer"],
  ph_unperm: ["f64", "buffer", "f64"],
  ph_block_store: ["f64", "f64", "buffer", "f64"],
  ph_block_load: ["f64", "f64", "buffer", "f64"],
  ph_global: ["f64", "buffer", "f64", "f64", "f64", "buffer"],
  ph_static: ["f64"],
  ph_bopen: ["f64", "buffer", "buffer"],
  ph_bclose: ["f64"],
  ph_commit: ["f64", "f64", "buffer"],
  ph_restore: ["f64", "buffer", "buffer"],
  ph_image_info: ["f64", "f64", "buffer", "buffer"],
  ph_epochs: ["f64", "f64", "buffer", "f64"],
} as const satisfies Record<string, readonly NativeType[]>;

/** Fields of the records that cross as a Float64Array, in order. */
export const records = {
  OpenArgs: ["mode", "size", "max_size", "address", "tracker", "keep", "log_limit", "shared", "verify", "recover", "replace", "path_len", "backup_len"],
  HeapInfo: ["address", "span", "capacity", "max_size", "used", "epoch", "mode", "resumed", "tracker", "attached", "dropped", "images"],
  Stats: ["live_bytes", "live_blocks", "used", "capacity", "max_size", "metadata_bytes", "spans", "commits", "folds", "map_base_bytes", "map_log_bytes", "backup_base_bytes", "backup_log_bytes", "log_runs", "blocks"],
  Report: ["epoch", "pages", "bytes", "duration_ms", "dropped"],
  RestoreArgs: ["epoch", "from", "verify", "views"],
  BlockInfo: ["id", "address", "found"],
  ImageInfo: ["epoch", "mode", "base_bytes", "log_bytes", "epochs", "path_len"],
  Epoch: ["epoch", "time", "pages", "bytes"],
  ErrorInfo: ["code", "errno", "address", "message_len", "path_len"],
} as const satisfies Record<string, readonly string[]>;

/** Error codes; a native function returns the negative of the index. */
export const codes = [
  "",
  "INVALID_ARGUMENT",
  "NOT_FOUND",
  "EXISTS",
  "BUSY",
  "READ_ONLY",
  "NOT_OPEN",
  "ALREADY_OPEN",
  "CLOSED",
  "NO_COMMIT",
  "NO_EPOCH",
  "NOT_AN_IMAGE",
  "BAD_VERSION",
  "CORRUPT",
  "ADDRESS_IN_USE",
  "BLOCK_MISMATCH",
  "OUT_OF_MEMORY",
  "NO_SPACE",
  "IO",
  "BAD_POINTER",
  "DOUBLE_FREE",
  "STALE",
  "LAYOUT_MISMATCH",
  "FORKED",
  "PERMISSION",
  "UNSUPPORTED",
] as const;

/** What `ph_abi` of a library that fits these tables returns. */
export const abiHash = 0xa9ce24186c7e6;
