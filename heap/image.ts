/**
 * An open image file, as a program sees it.
 *
 * @module
 */

import {
  check,
  decode,
  encode,
  load,
  native,
  pack,
  PermError,
  recordBuffer,
  unpack,
} from "../ffi/mod.ts";
import { copyCall } from "./options.ts";
import { type ImageReport, imageReport } from "./reports.ts";

/** One epoch that an image can go back to. */
export interface EpochInfo {
  /** Its number. */
  epoch: number;
  /** When it was committed, in milliseconds since 1970. */
  time: number;
  /** Pages that its commit wrote. */
  pages: number;
  /** Bytes that its commit wrote. */
  bytes: number;
}

/** What an image needs of its heap. */
export interface ImageOwner {
  /** The native handle of the heap. */
  handle(): number;
  /** Closes the image file. */
  close(): void;
}

/** Which image of a heap this is, in ABI numbers. */
export const which = { map: 0, backup: 1 } as const;

const textSize = 4096;
const uuidLength = 36;

/** Makes an image; set by the class, whose constructor is private. */
export let makeImage: (owner: ImageOwner, kind: keyof typeof which) => Image;
/** Ends an image object after its file was closed. */
export let endImage: (image: Image) => void;

/**
 * An open image: the file that a heap is committed to. `heap.map` and `heap.backupImage` give it.
 *
 * @example List what there is to go back to
 * ```ts
 * import { Heap } from "@perm/heap";
 *
 * using heap = Heap.open({ file: "app.perm", size: 1 << 20, keep: 3, replace: true });
 * heap.flush();
 * for (const { epoch, time } of heap.map!.epochs()) console.log(epoch, new Date(time));
 * ```
 */
export class Image {
  readonly #kind: keyof typeof which;
  #owner: ImageOwner | null;

  static {
    makeImage = (owner, kind) => new Image(owner, kind);
    endImage = (image) => image.#owner = null;
  }

  private constructor(owner: ImageOwner, kind: keyof typeof which) {
    this.#owner = owner;
    this.#kind = kind;
  }

  /**
   * Copies an image, also one that is in use: its writer may commit and fold meanwhile, nobody waits
   * for anybody. The copy is whole and holds every epoch that the image held at the call; it was read
   * back and compared with its checksums before it got its name. Unlike `cp` it brings the log along,
   * under the name that belongs to it.
   *
   * @param from The image's base.
   * @param to Where its copy shall be. A process killed on the way leaves nothing under that name.
   * @param options `replace`: whether something may stand there, which is replaced in one step.
   * @returns What was copied.
   * @throws {PermError} `EXISTS`; `BUSY` when a writer has the file at `to` open, `ALREADY_OPEN` in
   * this process; `NOT_FOUND`, `NOT_AN_IMAGE`, `BAD_VERSION`, `CORRUPT` for a damaged original,
   * `NO_SPACE`, `IO`, `PERMISSION`, `INVALID_ARGUMENT`.
   *
   * @example A copy for another machine
   * ```ts
   * import { Heap, Image } from "@perm/heap";
   *
   * using heap = Heap.open({ file: "app.perm", size: 1 << 20 });
   * heap.flush();
   * Image.copy("app.perm", "copy.perm", { replace: true });
   * ```
   */
  static copy(from: string, to: string, options?: { replace?: boolean }): ImageReport {
    const { args, text } = copyCall(from, to, options);
    load();
    const report = recordBuffer("FileReport");
    check(native.ph_image_copy(pack("FileArgs", args), text, report));
    return imageReport(report);
  }

  /**
   * Reads all that an image holds, every epoch of it, and compares it with its checksums. The image
   * may be in use, and its heap's addresses need not be free.
   *
   * @param path The image's base.
   * @returns What was found whole.
   * @throws {PermError} `CORRUPT` with the first page that is damaged (`address`), what the heap has there
   * (`belongsTo`: a block, global or root by its name, a container, a table of the allocator, a block of which
   * size) and which epoch is whole (`epoch`, for `restore({ epoch })`); `NOT_FOUND`, `NOT_AN_IMAGE`, `BAD_VERSION`, `IO`, `PERMISSION`.
   */
  static verify(path: string): ImageReport {
    const text = encode(path, "an image's path");
    load();
    const report = recordBuffer("FileReport");
    check(native.ph_image_verify(text, text.length, report));
    return imageReport(report);
  }

  /**
   * The file's path, as it was given when it was opened.
   *
   * @throws {PermError} `CLOSED`.
   */
  get path(): string {
    return this.#info().path;
  }

  /**
   * The image's own identity, which a copy of the file shares.
   *
   * @throws {PermError} `CLOSED`.
   */
  get uuid(): string {
    return this.#info().uuid;
  }

  /**
   * The last epoch committed to this image; 0 before the first.
   *
   * @throws {PermError} `CLOSED`.
   */
  get epoch(): number {
    return this.#info().epoch;
  }

  /**
   * The epochs that `restore({ epoch })` can go back to, oldest first. Waits for a commit that is under way.
   *
   * @throws {PermError} `CLOSED`.
   */
  epochs(): EpochInfo[] {
    const handle = this.#expectOwner().handle();
    for (let capacity = 16;;) {
      const buffer = recordBuffer("Epoch", capacity);
      const count = check(native.ph_epochs(handle, which[this.#kind], buffer, capacity));
      if (count <= capacity) {
        return Array.from({ length: count }, (_, index) => unpack("Epoch", buffer, index));
      }
      capacity = count;
    }
  }

  /**
   * Closes the file without committing. Twice is a no-op.
   *
   * @throws {PermError} `BUSY` for a map file, which its heap keeps open: close the heap.
   */
  close(): void {
    if (this.#owner === null) return;
    if (this.#kind === "map") {
      throw new PermError("BUSY", `Cannot close the map file "${this.path}" alone: close its heap`);
    }
    this.#owner.close();
  }

  #expectOwner(): ImageOwner {
    if (this.#owner) return this.#owner;
    throw new PermError(
      "CLOSED",
      `Cannot use the ${this.#kind} image: it is closed; open it again`,
    );
  }

  #info(): { path: string; uuid: string; epoch: number } {
    const buffer = recordBuffer("ImageInfo");
    const text = new Uint8Array(textSize);
    const handle = this.#expectOwner().handle();
    check(native.ph_image_info(handle, which[this.#kind], buffer, text));
    const { epoch, path_len } = unpack("ImageInfo", buffer);
    return {
      epoch,
      path: decode(text.subarray(0, path_len)),
      uuid: decode(text.subarray(path_len, path_len + uuidLength)),
    };
  }
}
