/**
 * What commits, restores and `stats()` report.
 *
 * @module
 */

import { recordBuffer, unpack } from "../ffi/mod.ts";
import type { TuningReport } from "../tuning/mod.ts";

/** Where the contents of an opened heap came from. */
export type Resumed = "new" | "file" | "backup";

/** The same, and trackers, as native code numbers them. */
export const resumedNames: readonly Resumed[] = ["new", "file", "backup"];
export const trackerNames = ["checksum", "uffd", "checksum"] as const;

/** What a commit did. */
export interface CommitReport {
  /** The epoch that is durable now. */
  epoch: number;
  /**
   * Pages written; 0 when nothing had changed, and then nothing was synced. Of a shared heap: the pages
   * that the system had not written by itself, or all that are in use where it does not count them.
   */
  pages: number;
  /** Bytes written to the image. */
  bytes: number;
  /** Milliseconds from the call to the end of the sync. */
  durationMs: number;
}

/** What a restore did. */
export interface RestoreReport {
  /** The epoch that the heap stands on now. */
  epoch: number;
  /** Pages laid over the image's base. */
  pages: number;
  /** Bytes of those pages. */
  bytes: number;
  /** Milliseconds that it took. */
  durationMs: number;
  /** Commits that were cut off in the middle and therefore dropped: 0 or 1. */
  dropped: number;
}

/** What an image that was copied or verified holds. */
export interface ImageReport {
  /** Its last epoch. */
  epoch: number;
  /** How many epochs it holds. */
  epochs: number;
  /** Pages stored, those of every epoch. */
  pages: number;
  /** Bytes of base and log. */
  bytes: number;
  /** Milliseconds that it took. */
  durationMs: number;
}

/** A record to be filled by a commit or a restore. */
export function reportBuffer(): Float64Array<ArrayBuffer> {
  return recordBuffer("Report");
}

/** Reads what a commit filled in. */
export function commitReport(buffer: Float64Array): CommitReport {
  const { epoch, pages, bytes, duration_ms } = unpack("Report", buffer);
  return { epoch, pages, bytes, durationMs: duration_ms };
}

/** Reads what a restore filled in. */
export function restoreReport(buffer: Float64Array): RestoreReport {
  const { epoch, pages, bytes, duration_ms, dropped } = unpack("Report", buffer);
  return { epoch, pages, bytes, durationMs: duration_ms, dropped };
}

/** Reads what a copy or a verification filled in. */
export function imageReport(buffer: Float64Array): ImageReport {
  const { epoch, epochs, pages, bytes, duration_ms } = unpack("FileReport", buffer);
  return { epoch, epochs, pages, bytes, durationMs: duration_ms };
}

/** Figures of a heap, its images and the system; sizes in bytes. */
export interface HeapStats {
  /** In live blocks, as rounded to their size classes. */
  liveBytes: number;
  /** Live blocks. */
  liveBlocks: number;
  /** In use: spans and large blocks with their free space, and metadata. */
  used: number;
  /** Data that the heap can hold before it grows. */
  capacity: number;
  /** Data that it may grow to. */
  maxSize: number;
  /** Metadata in use, the allocator's and the blocks'. */
  metadataBytes: number;
  /** Spans, each of which holds blocks of one size class. */
  spans: number;
  /** Commits since the heap was opened. */
  commits: number;
  /** Folds of a log into a new base since the heap was opened. */
  folds: number;
  /** The map file's base. */
  mapBaseBytes: number;
  /** The map file's log. */
  mapLogBytes: number;
  /** The backup file's base. */
  backupBaseBytes: number;
  /** The backup file's log. */
  backupLogBytes: number;
  /** Runs of pages that the last open or restore laid over the base. */
  logRuns: number;
  /** Blocks and globals that the heap holds. */
  blocks: number;
  /** Asynchronous commits that have not ended. */
  commitsUnderWay: number;
  /** What tells which pages changed. */
  tracker: "uffd" | "checksum";
  /** Whether the heap lies in its file; `mapBaseBytes` is the room which that takes on the disk. */
  shared: boolean;
  /**
   * Kernel settings as they are now, or as `tune: "apply"` left them; `null` with `tune: "off"`, in
   * attached threads, and where they cannot be read.
   */
  tuning: TuningReport | null;
}

/** Reads what `ph_stats` filled in. */
export function heapStats(
  buffer: Float64Array,
  tracker: "uffd" | "checksum",
  tuning: TuningReport | null,
): HeapStats {
  const stats = unpack("Stats", buffer);
  return {
    liveBytes: stats.live_bytes,
    liveBlocks: stats.live_blocks,
    used: stats.used,
    capacity: stats.capacity,
    maxSize: stats.max_size,
    metadataBytes: stats.metadata_bytes,
    spans: stats.spans,
    commits: stats.commits,
    folds: stats.folds,
    mapBaseBytes: stats.map_base_bytes,
    mapLogBytes: stats.map_log_bytes,
    backupBaseBytes: stats.backup_base_bytes,
    backupLogBytes: stats.backup_log_bytes,
    logRuns: stats.log_runs,
    blocks: stats.blocks,
    commitsUnderWay: stats.commits_under_way,
    tracker,
    shared: stats.shared === 1,
    tuning,
  };
}
