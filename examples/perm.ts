/**
 * PERM's own short example, in PERM's words: a random walk whose state is a persistent double, a
 * persistent array and a linked list in the heap. Run it, stop it, run it with `-r`: it walks on.
 *
 *     deno run --allow-ffi --allow-env examples/perm.ts [-r]      bun examples/perm.ts [-r]
 *
 * @module
 */

import process from "node:process";
import {
  backup,
  bclose,
  bopen,
  malloc,
  mclose,
  mopen,
  PERM,
  perm,
  type Pointer,
  restore,
} from "../mod.ts";

// What C declares as `PERM double home; PERM int garray[10]; PERM struct node *list;`
const { home, garray, list } = PERM.declare({
  home: [Float64Array, 1],
  garray: [Int32Array, 10],
  list: [Float64Array, 1],
});

/** struct node { struct node *next; double place; } */
const NODE = { next: 0, place: 8, size: 16 };

if (process.argv.includes("--help")) {
  console.log("Usage: perm.ts [-r]\n\n  -r    walk on from the last backup() in perm.back");
  process.exit();
}
const goOn = process.argv.includes("-r");
const heap = mopen(null, "w+", 2 ** 20);
bopen("perm.back", goOn ? "r+" : "w+", { replace: !goOn });
perm(PERM.start, PERM.size);
if (goOn) {
  const { epoch } = restore();
  console.log(`restored epoch ${epoch}: ${length()} steps so far, now at ${home[0].toFixed(3)}`);
}

for (let round = 1; round <= 5; round++) {
  for (let step = 0; step < 100; step++) {
    home[0] += Math.random() - 0.5;
    garray[Math.min(9, Math.floor(Math.abs(home[0])))]++;
    const node = malloc(NODE.size);
    heap.store(node + NODE.next, list[0]);
    heap.view(Float64Array, node + NODE.place, 1)[0] = home[0];
    list[0] = node;
  }
  const { epoch } = backup();
  console.log(`epoch ${epoch}: ${length()} steps, at ${home[0].toFixed(3)}, seen ${garray}`);
}

mclose();
bclose();

function length(): number {
  let nodes = 0;
  for (let node: Pointer = list[0]; node !== 0; node = heap.load(node + NODE.next)) nodes++;
  return nodes;
}
