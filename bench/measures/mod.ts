/** All measures by the name that `--only` takes, in the order in which they run. @module */

import type { Measure } from "../harness.ts";
import { asynchronous } from "./async.ts";
import { commitFull } from "./commit_full.ts";
import { commitRandom } from "./commit_random.ts";
import { commitSmall } from "./commit_small.ts";
import { dataFields } from "./data_fields.ts";
import { dataMaps } from "./data_maps.ts";
import { dataMemory } from "./data_memory.ts";
import { field } from "./field.ts";
import { malloc } from "./malloc.ts";
import { native } from "./native.ts";
import { open } from "./open.ts";
import { overhead } from "./overhead.ts";
import { preload } from "./preload.ts";
import { recordsKept } from "./records.ts";
import { restart } from "./restart.ts";
import { sharedHeap } from "./shared.ts";
import { start } from "./start.ts";
import { stores } from "./stores.ts";

export const measures: Record<string, Measure> = {
  malloc,
  native,
  field,
  open,
  "commit-full": commitFull,
  "commit-small": commitSmall,
  "commit-random": commitRandom,
  stores,
  async: asynchronous,
  overhead,
  "data-fields": dataFields,
  "data-maps": dataMaps,
  "data-memory": dataMemory,
  records: recordsKept,
  shared: sharedHeap,
  restart,
  start,
  preload,
};
