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
  ph_malloc_scratch: ["f64", "f64"],
  ph_realloc: ["f64", "f64", "f64"],
  ph_free: ["f64", "f64"],
  ph_aligned_alloc: ["f64", "f64", "f64"],
  ph_usable_size: ["f64", "f64"],
  ph_malloc_many: ["f64", "f64", "f64", "buffer"],
  ph_free_many: ["f64", "buffer", "f64"],
  ph_range: ["f64", "f64", "f64"],
  ph_live_blocks: ["f64", "f64", "buffer", "f64"],
  ph_own_blocks: ["f64", "buffer", "f64"],
  ph_lock: ["f64", "f64", "f64", "f64"],
  ph_unlock: ["f64", "f64", "f64"],
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
  ph_commit_async: ["f64", "f64"],
  ph_commit_wait: ["f64"],
  ph_commit_fetch: ["f64", "buffer"],
  ph_restore: ["f64", "buffer", "buffer"],
  ph_image_info: ["f64", "f64", "buffer", "buffer"],
  ph_epochs: ["f64", "f64", "buffer", "f64"],
  ph_image_copy: ["buffer", "buffer", "buffer"],
  ph_image_verify: ["buffer", "f64", "buffer"],
  ph_scratch: [],
  ph_writable: ["f64"],
  ph_container_open: ["f64", "f64", "f64"],
  ph_clear: ["f64", "f64", "f64"],
  ph_destroy: ["f64", "f64", "f64"],
  ph_container_swap: ["f64", "f64", "f64", "f64"],
  ph_container_check: ["f64", "f64", "f64"],
  ph_container_blocks: ["f64", "f64", "f64", "buffer", "f64"],
  ph_walk: ["f64", "f64", "f64", "buffer", "f64", "f64", "f64"],
  ph_columns: ["f64", "f64", "f64", "buffer", "buffer", "f64", "f64", "buffer", "f64", "f64", "f64"],
  ph_map_get: ["f64", "f64", "f64", "f64", "f64"],
  ph_map_set: ["f64", "f64", "f64", "f64", "f64"],
  ph_map_delete: ["f64", "f64", "f64", "f64", "f64"],
  ph_map_seek: ["f64", "f64", "f64", "f64", "f64", "f64", "buffer"],
  ph_list_insert: ["f64", "f64", "f64", "f64"],
  ph_list_remove: ["f64", "f64", "f64", "f64"],
  ph_list_reverse: ["f64", "f64", "f64"],
  ph_list_at: ["f64", "f64", "f64", "f64"],
  ph_text_splice: ["f64", "f64", "f64", "f64", "f64", "f64", "f64"],
  ph_text_convert: ["f64", "f64", "f64", "f64", "f64"],
  ph_text_find: ["f64", "f64", "f64", "f64", "f64", "f64", "f64"],
  ph_vec_insert: ["f64", "f64", "f64", "f64", "f64"],
  ph_vec_remove: ["f64", "f64", "f64", "f64", "f64"],
  ph_vec_reserve: ["f64", "f64", "f64", "f64"],
  ph_vec_spread: ["f64", "f64", "f64", "f64", "f64"],
  ph_vec_reverse: ["f64", "f64", "f64"],
  ph_vec_sort: ["f64", "f64", "f64", "f64"],
  ph_vec_permute: ["f64", "f64", "f64", "buffer", "f64"],
} as const satisfies Record<string, readonly NativeType[]>;

type Call = (...args: (number | Uint8Array | Float64Array | null)[]) => number;

/**
 * Functions that call `seldom` until `bind` gives them a better one. Each is a literal of its own:
 * a runtime calls fast where it has only seen one function called. `+` says that the result is a
 * number whoever gave it, for V8 puts what may be anything into an object.
 */
export const late: Record<
  keyof typeof symbols,
  (seldom: Call, bind: () => Call | undefined) => Call
> = {
  ph_abi: (seldom, bind, often?: Call) => () =>
    often !== undefined
      ? often()
      : (often = bind()) !== undefined
      ? often()
      : +seldom(),
  ph_error: (seldom, bind, often?: Call) => (a, b) =>
    often !== undefined
      ? often(a, b)
      : (often = bind()) !== undefined
      ? often(a, b)
      : +seldom(a, b),
  ph_file_read: (seldom, bind, often?: Call) => (a, b, c) =>
    often !== undefined
      ? often(a, b, c)
      : (often = bind()) !== undefined
      ? often(a, b, c)
      : +seldom(a, b, c),
  ph_file_write: (seldom, bind, often?: Call) => (a, b, c, d) =>
    often !== undefined
      ? often(a, b, c, d)
      : (often = bind()) !== undefined
      ? often(a, b, c, d)
      : +seldom(a, b, c, d),
  ph_mopen: (seldom, bind, often?: Call) => (a, b) =>
    often !== undefined
      ? often(a, b)
      : (often = bind()) !== undefined
      ? often(a, b)
      : +seldom(a, b),
  ph_open: (seldom, bind, often?: Call) => (a, b) =>
    often !== undefined
      ? often(a, b)
      : (often = bind()) !== undefined
      ? often(a, b)
      : +seldom(a, b),
  ph_close: (seldom, bind, often?: Call) => (a) =>
    often !== undefined
      ? often(a)
      : (often = bind()) !== undefined
      ? often(a)
      : +seldom(a),
  ph_attach: (seldom, bind, often?: Call) => (a, b) =>
    often !== undefined
      ? often(a, b)
      : (often = bind()) !== undefined
      ? often(a, b)
      : +seldom(a, b),
  ph_detach: (seldom, bind, often?: Call) => (a) =>
    often !== undefined
      ? often(a)
      : (often = bind()) !== undefined
      ? often(a)
      : +seldom(a),
  ph_handle_text: (seldom, bind, often?: Call) => (a, b) =>
    often !== undefined
      ? often(a, b)
      : (often = bind()) !== undefined
      ? often(a, b)
      : +seldom(a, b),
  ph_info: (seldom, bind, often?: Call) => (a, b) =>
    often !== undefined
      ? often(a, b)
      : (often = bind()) !== undefined
      ? often(a, b)
      : +seldom(a, b),
  ph_stats: (seldom, bind, often?: Call) => (a, b) =>
    often !== undefined
      ? often(a, b)
      : (often = bind()) !== undefined
      ? often(a, b)
      : +seldom(a, b),
  ph_check: (seldom, bind, often?: Call) => (a) =>
    often !== undefined
      ? often(a)
      : (often = bind()) !== undefined
      ? often(a)
      : +seldom(a),
  ph_grow: (seldom, bind, often?: Call) => (a, b) =>
    often !== undefined
      ? often(a, b)
      : (often = bind()) !== undefined
      ? often(a, b)
      : +seldom(a, b),
  ph_malloc: (seldom, bind, often?: Call) => (a, b) =>
    often !== undefined
      ? often(a, b)
      : (often = bind()) !== undefined
      ? often(a, b)
      : +seldom(a, b),
  ph_calloc: (seldom, bind, often?: Call) => (a, b, c) =>
    often !== undefined
      ? often(a, b, c)
      : (often = bind()) !== undefined
      ? often(a, b, c)
      : +seldom(a, b, c),
  ph_malloc_scratch: (seldom, bind, often?: Call) => (a, b) =>
    often !== undefined
      ? often(a, b)
      : (often = bind()) !== undefined
      ? often(a, b)
      : +seldom(a, b),
  ph_realloc: (seldom, bind, often?: Call) => (a, b, c) =>
    often !== undefined
      ? often(a, b, c)
      : (often = bind()) !== undefined
      ? often(a, b, c)
      : +seldom(a, b, c),
  ph_free: (seldom, bind, often?: Call) => (a, b) =>
    often !== undefined
      ? often(a, b)
      : (often = bind()) !== undefined
      ? often(a, b)
      : +seldom(a, b),
  ph_aligned_alloc: (seldom, bind, often?: Call) => (a, b, c) =>
    often !== undefined
      ? often(a, b, c)
      : (often = bind()) !== undefined
      ? often(a, b, c)
      : +seldom(a, b, c),
  ph_usable_size: (seldom, bind, often?: Call) => (a, b) =>
    often !== undefined
      ? often(a, b)
      : (often = bind()) !== undefined
      ? often(a, b)
      : +seldom(a, b),
  ph_malloc_many: (seldom, bind, often?: Call) => (a, b, c, d) =>
    often !== undefined
      ? often(a, b, c, d)
      : (often = bind()) !== undefined
      ? often(a, b, c, d)
      : +seldom(a, b, c, d),
  ph_free_many: (seldom, bind, often?: Call) => (a, b, c) =>
    often !== undefined
      ? often(a, b, c)
      : (often = bind()) !== undefined
      ? often(a, b, c)
      : +seldom(a, b, c),
  ph_range: (seldom, bind, often?: Call) => (a, b, c) =>
    often !== undefined
      ? often(a, b, c)
      : (often = bind()) !== undefined
      ? often(a, b, c)
      : +seldom(a, b, c),
  ph_live_blocks: (seldom, bind, often?: Call) => (a, b, c, d) =>
    often !== undefined
      ? often(a, b, c, d)
      : (often = bind()) !== undefined
      ? often(a, b, c, d)
      : +seldom(a, b, c, d),
  ph_own_blocks: (seldom, bind, often?: Call) => (a, b, c) =>
    often !== undefined
      ? often(a, b, c)
      : (often = bind()) !== undefined
      ? often(a, b, c)
      : +seldom(a, b, c),
  ph_lock: (seldom, bind, often?: Call) => (a, b, c, d) =>
    often !== undefined
      ? often(a, b, c, d)
      : (often = bind()) !== undefined
      ? often(a, b, c, d)
      : +seldom(a, b, c, d),
  ph_unlock: (seldom, bind, often?: Call) => (a, b, c) =>
    often !== undefined
      ? often(a, b, c)
      : (often = bind()) !== undefined
      ? often(a, b, c)
      : +seldom(a, b, c),
  ph_root: (seldom, bind, often?: Call) => (a) =>
    often !== undefined
      ? often(a)
      : (often = bind()) !== undefined
      ? often(a)
      : +seldom(a),
  ph_root_set: (seldom, bind, often?: Call) => (a, b) =>
    often !== undefined
      ? often(a, b)
      : (often = bind()) !== undefined
      ? often(a, b)
      : +seldom(a, b),
  ph_perm: (seldom, bind, often?: Call) => (a, b, c, d, e, f, g) =>
    often !== undefined
      ? often(a, b, c, d, e, f, g)
      : (often = bind()) !== undefined
      ? often(a, b, c, d, e, f, g)
      : +seldom(a, b, c, d, e, f, g),
  ph_unperm: (seldom, bind, often?: Call) => (a, b, c) =>
    often !== undefined
      ? often(a, b, c)
      : (often = bind()) !== undefined
      ? often(a, b, c)
      : +seldom(a, b, c),
  ph_block_store: (seldom, bind, often?: Call) => (a, b, c, d) =>
    often !== undefined
      ? often(a, b, c, d)
      : (often = bind()) !== undefined
      ? often(a, b, c, d)
      : +seldom(a, b, c, d),
  ph_block_load: (seldom, bind, often?: Call) => (a, b, c, d) =>
    often !== undefined
      ? often(a, b, c, d)
      : (often = bind()) !== undefined
      ? often(a, b, c, d)
      : +seldom(a, b, c, d),
  ph_global: (seldom, bind, often?: Call) => (a, b, c, d, e, f) =>
    often !== undefined
      ? often(a, b, c, d, e, f)
      : (often = bind()) !== undefined
      ? often(a, b, c, d, e, f)
      : +seldom(a, b, c, d, e, f),
  ph_static: (seldom, bind, often?: Call) => (a) =>
    often !== undefined
      ? often(a)
      : (often = bind()) !== undefined
      ? often(a)
      : +seldom(a),
  ph_bopen: (seldom, bind, often?: Call) => (a, b, c) =>
    often !== undefined
      ? often(a, b, c)
      : (often = bind()) !== undefined
      ? often(a, b, c)
      : +seldom(a, b, c),
  ph_bclose: (seldom, bind, often?: Call) => (a) =>
    often !== undefined
      ? often(a)
      : (often = bind()) !== undefined
      ? often(a)
      : +seldom(a),
  ph_commit: (seldom, bind, often?: Call) => (a, b, c) =>
    often !== undefined
      ? often(a, b, c)
      : (often = bind()) !== undefined
      ? often(a, b, c)
      : +seldom(a, b, c),
  ph_commit_async: (seldom, bind, often?: Call) => (a, b) =>
    often !== undefined
      ? often(a, b)
      : (often = bind()) !== undefined
      ? often(a, b)
      : +seldom(a, b),
  ph_commit_wait: (seldom, bind, often?: Call) => (a) =>
    often !== undefined
      ? often(a)
      : (often = bind()) !== undefined
      ? often(a)
      : +seldom(a),
  ph_commit_fetch: (seldom, bind, often?: Call) => (a, b) =>
    often !== undefined
      ? often(a, b)
      : (often = bind()) !== undefined
      ? often(a, b)
      : +seldom(a, b),
  ph_restore: (seldom, bind, often?: Call) => (a, b, c) =>
    often !== undefined
      ? often(a, b, c)
      : (often = bind()) !== undefined
      ? often(a, b, c)
      : +seldom(a, b, c),
  ph_image_info: (seldom, bind, often?: Call) => (a, b, c, d) =>
    often !== undefined
      ? often(a, b, c, d)
      : (often = bind()) !== undefined
      ? often(a, b, c, d)
      : +seldom(a, b, c, d),
  ph_epochs: (seldom, bind, often?: Call) => (a, b, c, d) =>
    often !== undefined
      ? often(a, b, c, d)
      : (often = bind()) !== undefined
      ? often(a, b, c, d)
      : +seldom(a, b, c, d),
  ph_image_copy: (seldom, bind, often?: Call) => (a, b, c) =>
    often !== undefined
      ? often(a, b, c)
      : (often = bind()) !== undefined
      ? often(a, b, c)
      : +seldom(a, b, c),
  ph_image_verify: (seldom, bind, often?: Call) => (a, b, c) =>
    often !== undefined
      ? often(a, b, c)
      : (often = bind()) !== undefined
      ? often(a, b, c)
      : +seldom(a, b, c),
  ph_scratch: (seldom, bind, often?: Call) => () =>
    often !== undefined
      ? often()
      : (often = bind()) !== undefined
      ? often()
      : +seldom(),
  ph_writable: (seldom, bind, often?: Call) => (a) =>
    often !== undefined
      ? often(a)
      : (often = bind()) !== undefined
      ? often(a)
      : +seldom(a),
  ph_container_open: (seldom, bind, often?: Call) => (a, b, c) =>
    often !== undefined
      ? often(a, b, c)
      : (often = bind()) !== undefined
      ? often(a, b, c)
      : +seldom(a, b, c),
  ph_clear: (seldom, bind, often?: Call) => (a, b, c) =>
    often !== undefined
      ? often(a, b, c)
      : (often = bind()) !== undefined
      ? often(a, b, c)
      : +seldom(a, b, c),
  ph_destroy: (seldom, bind, often?: Call) => (a, b, c) =>
    often !== undefined
      ? often(a, b, c)
      : (often = bind()) !== undefined
      ? often(a, b, c)
      : +seldom(a, b, c),
  ph_container_swap: (seldom, bind, often?: Call) => (a, b, c, d) =>
    often !== undefined
      ? often(a, b, c, d)
      : (often = bind()) !== undefined
      ? often(a, b, c, d)
      : +seldom(a, b, c, d),
  ph_container_check: (seldom, bind, often?: Call) => (a, b, c) =>
    often !== undefined
      ? often(a, b, c)
      : (often = bind()) !== undefined
      ? often(a, b, c)
      : +seldom(a, b, c),
  ph_container_blocks: (seldom, bind, often?: Call) => (a, b, c, d, e) =>
    often !== undefined
      ? often(a, b, c, d, e)
      : (often = bind()) !== undefined
      ? often(a, b, c, d, e)
      : +seldom(a, b, c, d, e),
  ph_walk: (seldom, bind, often?: Call) => (a, b, c, d, e, f, g) =>
    often !== undefined
      ? often(a, b, c, d, e, f, g)
      : (often = bind()) !== undefined
      ? often(a, b, c, d, e, f, g)
      : +seldom(a, b, c, d, e, f, g),
  ph_columns: (seldom, bind, often?: Call) => (a, b, c, d, e, f, g, h, i, j, k) =>
    often !== undefined
      ? often(a, b, c, d, e, f, g, h, i, j, k)
      : (often = bind()) !== undefined
      ? often(a, b, c, d, e, f, g, h, i, j, k)
      : +seldom(a, b, c, d, e, f, g, h, i, j, k),
  ph_map_get: (seldom, bind, often?: Call) => (a, b, c, d, e) =>
    often !== undefined
      ? often(a, b, c, d, e)
      : (often = bind()) !== undefined
      ? often(a, b, c, d, e)
      : +seldom(a, b, c, d, e),
  ph_map_set: (seldom, bind, often?: Call) => (a, b, c, d, e) =>
    often !== undefined
      ? often(a, b, c, d, e)
      : (often = bind()) !== undefined
      ? often(a, b, c, d, e)
      : +seldom(a, b, c, d, e),
  ph_map_delete: (seldom, bind, often?: Call) => (a, b, c, d, e) =>
    often !== undefined
      ? often(a, b, c, d, e)
      : (often = bind()) !== undefined
      ? often(a, b, c, d, e)
      : +seldom(a, b, c, d, e),
  ph_map_seek: (seldom, bind, often?: Call) => (a, b, c, d, e, f, g) =>
    often !== undefined
      ? often(a, b, c, d, e, f, g)
      : (often = bind()) !== undefined
      ? often(a, b, c, d, e, f, g)
      : +seldom(a, b, c, d, e, f, g),
  ph_list_insert: (seldom, bind, often?: Call) => (a, b, c, d) =>
    often !== undefined
      ? often(a, b, c, d)
      : (often = bind()) !== undefined
      ? often(a, b, c, d)
      : +seldom(a, b, c, d),
  ph_list_remove: (seldom, bind, often?: Call) => (a, b, c, d) =>
    often !== undefined
      ? often(a, b, c, d)
      : (often = bind()) !== undefined
      ? often(a, b, c, d)
      : +seldom(a, b, c, d),
  ph_list_reverse: (seldom, bind, often?: Call) => (a, b, c) =>
    often !== undefined
      ? often(a, b, c)
      : (often = bind()) !== undefined
      ? often(a, b, c)
      : +seldom(a, b, c),
  ph_list_at: (seldom, bind, often?: Call) => (a, b, c, d) =>
    often !== undefined
      ? often(a, b, c, d)
      : (often = bind()) !== undefined
      ? often(a, b, c, d)
      : +seldom(a, b, c, d),
  ph_text_splice: (seldom, bind, often?: Call) => (a, b, c, d, e, f, g) =>
    often !== undefined
      ? often(a, b, c, d, e, f, g)
      : (often = bind()) !== undefined
      ? often(a, b, c, d, e, f, g)
      : +seldom(a, b, c, d, e, f, g),
  ph_text_convert: (seldom, bind, often?: Call) => (a, b, c, d, e) =>
    often !== undefined
      ? often(a, b, c, d, e)
      : (often = bind()) !== undefined
      ? often(a, b, c, d, e)
      : +seldom(a, b, c, d, e),
  ph_text_find: (seldom, bind, often?: Call) => (a, b, c, d, e, f, g) =>
    often !== undefined
      ? often(a, b, c, d, e, f, g)
      : (often = bind()) !== undefined
      ? often(a, b, c, d, e, f, g)
      : +seldom(a, b, c, d, e, f, g),
  ph_vec_insert: (seldom, bind, often?: Call) => (a, b, c, d, e) =>
    often !== undefined
      ? often(a, b, c, d, e)
      : (often = bind()) !== undefined
      ? often(a, b, c, d, e)
      : +seldom(a, b, c, d, e),
  ph_vec_remove: (seldom, bind, often?: Call) => (a, b, c, d, e) =>
    often !== undefined
      ? often(a, b, c, d, e)
      : (often = bind()) !== undefined
      ? often(a, b, c, d, e)
      : +seldom(a, b, c, d, e),
  ph_vec_reserve: (seldom, bind, often?: Call) => (a, b, c, d) =>
    often !== undefined
      ? often(a, b, c, d)
      : (often = bind()) !== undefined
      ? often(a, b, c, d)
      : +seldom(a, b, c, d),
  ph_vec_spread: (seldom, bind, often?: Call) => (a, b, c, d, e) =>
    often !== undefined
      ? often(a, b, c, d, e)
      : (often = bind()) !== undefined
      ? often(a, b, c, d, e)
      : +seldom(a, b, c, d, e),
  ph_vec_reverse: (seldom, bind, often?: Call) => (a, b, c) =>
    often !== undefined
      ? often(a, b, c)
      : (often = bind()) !== undefined
      ? often(a, b, c)
      : +seldom(a, b, c),
  ph_vec_sort: (seldom, bind, often?: Call) => (a, b, c, d) =>
    often !== undefined
      ? often(a, b, c, d)
      : (often = bind()) !== undefined
      ? often(a, b, c, d)
      : +seldom(a, b, c, d),
  ph_vec_permute: (seldom, bind, often?: Call) => (a, b, c, d, e) =>
    often !== undefined
      ? often(a, b, c, d, e)
      : (often = bind()) !== undefined
      ? often(a, b, c, d, e)
      : +seldom(a, b, c, d, e),
};

/** Fields of the records that cross as a Float64Array, in order. */
export const records = {
  OpenArgs: ["mode", "size", "max_size", "address", "tracker", "keep", "log_limit", "shared", "verify", "recover", "replace", "path_len", "backup_len"],
  HeapInfo: ["address", "span", "data", "capacity", "max_size", "used", "epoch", "mode", "resumed", "tracker", "dropped", "images"],
  Stats: ["live_bytes", "live_blocks", "used", "capacity", "max_size", "metadata_bytes", "spans", "commits", "folds", "map_base_bytes", "map_log_bytes", "backup_base_bytes", "backup_log_bytes", "log_runs", "blocks", "commits_under_way", "shared"],
  Report: ["epoch", "pages", "bytes", "duration_ms", "dropped"],
  RestoreArgs: ["epoch", "from", "verify", "views"],
  BlockInfo: ["id", "address", "found"],
  ImageInfo: ["epoch", "path_len"],
  Epoch: ["epoch", "time", "pages", "bytes"],
  FileArgs: ["replace", "from_len", "to_len"],
  FileReport: ["epoch", "epochs", "pages", "bytes", "duration_ms"],
  ErrorInfo: ["code", "errno", "address", "epoch", "message_len", "path_len", "owner_len"],
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
export const abiHash = 0xebfc6d9dd321d;
