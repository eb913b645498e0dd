/**
 * The one error class, and how a native failure becomes one.
 *
 * @module
 */

import { codes } from "./symbols.ts";

/**
 * What went wrong, as a stable name. Each says what to do.
 *
 * | code | what happened | what to do |
 * |---|---|---|
 * | `INVALID_ARGUMENT` | a value is of the wrong type, out of range, misaligned or unknown | correct the call; the message names the value |
 * | `NOT_FOUND` | no file, block or name of that kind | check the path or name; mode `"w+"` makes a new heap |
 * | `EXISTS` | a name is taken, or a file holds what this call would destroy | another name or path; `restore()` first; or `replace` |
 * | `BUSY` | another process, thread or view is in the way | close or detach it, or try later |
 * | `READ_ONLY` | the heap, file or medium may only be read | open with `"r+"`, on media that can be written |
 * | `NOT_OPEN` | there is no open heap, map file or backup file | `mopen` or `bopen` first |
 * | `ALREADY_OPEN` | it is open in this process | use the open one, or close it first |
 * | `CLOSED` | the heap or image of this object was closed | open it again |
 * | `NO_COMMIT` | the image holds no complete commit | start with mode `"w+"`, or use another image |
 * | `NO_EPOCH` | the image does not hold that epoch | take one of `image.epochs()` |
 * | `NOT_AN_IMAGE` | the file is something else | check the path |
 * | `BAD_VERSION` | the image is of a format that this library does not read | use the library that wrote it |
 * | `CORRUPT` | checksums or metadata disagree, or a shared heap was not closed | `restore()` from the other image or an earlier epoch, or `recover` |
 * | `ADDRESS_IN_USE` | something else lies at the heap's address | the message names it; give another `address`, or end it |
 * | `BLOCK_MISMATCH` | a stored block has another size or layout | give the target its old type and length, or `unperm` it |
 * | `OUT_OF_MEMORY` | the heap is full up to `maxSize`, or memory is | free, or open with a larger `maxSize` |
 * | `NO_SPACE` | the file system is full | make room and commit (a shared heap: allocate) again; the last epoch stands |
 * | `IO` | the file system failed | the `errno` says how; the last epoch stands |
 * | `BAD_POINTER` | the address is no block, or outside the heap | pass what `malloc` returned |
 * | `DOUBLE_FREE` | the block is free already | free each block once |
 * | `STALE` | the file was replaced by somebody else, or the object by a restore | open it again |
 * | `LAYOUT_MISMATCH` | a stored structure has another layout | open it with its own schema, or migrate |
 * | `FORKED` | this process is a forked copy, which may not commit | commit in the process that opened the heap |
 * | `PERMISSION` | the system or the runtime refused | rights of the file; `--allow-ffi` in Deno; root for tuning |
 * | `UNSUPPORTED` | this system, library or thread cannot do it | the message says what can |
 */
export type ErrorCode =
  | "INVALID_ARGUMENT"
  | "NOT_FOUND"
  | "EXISTS"
  | "BUSY"
  | "READ_ONLY"
  | "NOT_OPEN"
  | "ALREADY_OPEN"
  | "CLOSED"
  | "NO_COMMIT"
  | "NO_EPOCH"
  | "NOT_AN_IMAGE"
  | "BAD_VERSION"
  | "CORRUPT"
  | "ADDRESS_IN_USE"
  | "BLOCK_MISMATCH"
  | "OUT_OF_MEMORY"
  | "NO_SPACE"
  | "IO"
  | "BAD_POINTER"
  | "DOUBLE_FREE"
  | "STALE"
  | "LAYOUT_MISMATCH"
  | "FORKED"
  | "PERMISSION"
  | "UNSUPPORTED";

// A code that only one side knows is a compile error here.
const known: readonly (ErrorCode | "")[] = codes;
const _complete: Exclude<ErrorCode, (typeof codes)[number]> extends never ? true : never = true;

/** What an error is about, besides its code and message. */
export interface PermErrorDetail {
  /** The file concerned. */
  path?: string;
  /** The heap address concerned. */
  address?: number;
  /** The system's error number, as in `errno.h`. */
  errno?: number;
  /** Of damage: the last epoch that is known to be whole, if one is. */
  epoch?: number;
  /** Of a damaged page: what the heap has there. */
  belongsTo?: string;
  /** The error that led to this one. */
  cause?: unknown;
}

/**
 * Everything that this package refuses or fails to do is one of these.
 *
 * @example Tell a full disk from everything else
 * ```ts
 * import { Heap, PermError } from "@perm/heap";
 *
 * using heap = Heap.open({ size: 1 << 20 });
 * try {
 *   heap.free(12345);
 * } catch (error) {
 *   if (!(error instanceof PermError)) throw error;
 *   console.log(error.code); // "BAD_POINTER"
 * }
 * ```
 */
export class PermError extends Error {
  /** Always `"PermError"`. */
  override readonly name = "PermError";
  /** What went wrong, as a stable name to branch on. */
  readonly code: ErrorCode;
  /** The file concerned, if any. */
  declare readonly path?: string;
  /** The heap address concerned, if any. */
  declare readonly address?: number;
  /** The system's error number, if a system call failed. */
  declare readonly errno?: number;
  /**
   * Of damage in a log: the epoch before it, which is whole; `restore({ epoch })` goes back to it. None when
   * it is the base that is damaged.
   */
  declare readonly epoch?: number;
  /**
   * Of a damaged page: what the heap has there, as its image tells: a part of the heap's own tables, a
   * block, global or root by its name, a container of one, blocks of the allocator, or free memory.
   */
  declare readonly belongsTo?: string;

  /**
   * Makes an error; programs seldom need to.
   *
   * @param code What went wrong.
   * @param message What was being done, with which value, and what to do.
   * @param detail File, address, errno, damage and cause, where they apply.
   */
  constructor(code: ErrorCode, message: string, detail: PermErrorDetail = {}) {
    super(message, detail.cause === undefined ? undefined : { cause: detail.cause });
    this.code = code;
    if (detail.path !== undefined) this.path = detail.path;
    if (detail.address !== undefined) this.address = detail.address;
    if (detail.errno !== undefined) this.errno = detail.errno;
    if (detail.epoch !== undefined) this.epoch = detail.epoch;
    if (detail.belongsTo !== undefined) this.belongsTo = detail.belongsTo;
  }
}

/** The name of a native function's negative result. */
export function codeOf(result: number): ErrorCode {
  return (known[-result] || "UNSUPPORTED") as ErrorCode;
}
