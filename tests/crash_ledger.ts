/**
 * What a child that was killed may have left behind: the tree of all commits that it announced, and
 * where each image must stand.
 *
 * Invariant: an image holds its last acknowledged commit, or the one announced since; which of the
 * two becomes known when somebody opens it, and from then on stays so.
 *
 * @module
 */
import assert from "node:assert/strict";
import type { ChildEvent, Way, Which } from "./crash_child.ts";

/** A state of the heap that somebody announced to commit. */
export interface Commit {
  digest: string;
  /** 0 until it is known. */
  epoch: number;
  parent: Commit | null;
  /** Only what left no trace was done since the parent, or perhaps some: a block came and went. */
  perhapsParent: boolean;
}

interface ImageState {
  /** The last commit that is known to be in the image. */
  head: Commit | null;
  /** What was being committed when the child was killed. */
  announced: Commit | null;
  /** Commits in a row that ended with `head`: as many of these as `keep` says can be gone back to. */
  line: Commit[];
  /** Whether the running child's heap goes on from this image's head. */
  continued: boolean;
  /** Whether the running child took its state from this image, and so may leave its head behind. */
  source: boolean;
  /** Whether the running child has it open. */
  open: boolean;
  /** Whether the running child replaces the image with its first commit. */
  fresh: boolean;
}

function emptyImage(): ImageState {
  return {
    head: null,
    announced: null,
    line: [],
    continued: false,
    source: false,
    open: false,
    fresh: false,
  };
}

/** The commit that was announced, now that its epoch is known. */
function named(announced: Commit, epoch: number): Commit {
  const { parent, perhapsParent } = announced;
  return perhapsParent && parent?.epoch === epoch ? parent : announced;
}

function isAncestor(older: Commit | null, of: Commit | null): boolean {
  for (let commit = of; commit !== null; commit = commit.parent) {
    if (commit === older) return true;
  }
  return older === null;
}

/** How often what happened. */
export interface Tally {
  kills: number;
  /** Kills while a commit was announced and not acknowledged: it was found, or it was not. */
  found: number;
  notFound: number;
  /** Kills before the heap was open. */
  opening: number;
  commits: number;
  restores: number;
  folds: number;
  lost: number;
}

export class Ledger {
  readonly keep: number;
  readonly images: Record<Which, ImageState> = { map: emptyImage(), backup: emptyImage() };
  /** What the heap of the running child was at its last commit or restore. */
  current: Commit | null = null;
  readonly tally: Tally;
  #folds = 0;

  constructor(keep: number, tally: Tally) {
    this.keep = keep;
    this.tally = tally;
  }

  /** Whether somebody has to look before it is known where the images stand. */
  get isOpen(): boolean {
    return this.images.map.announced !== null || this.images.backup.announced !== null;
  }

  /** Whether neither image's head descends from the other's. */
  get diverged(): boolean {
    const { map, backup } = this.images;
    return !isAncestor(map.head, backup.head) && !isAncestor(backup.head, map.head);
  }

  /** Which image holds the newest commit, the map file when both do. */
  get newest(): Which {
    const { map, backup } = this.images;
    return isAncestor(backup.head, map.head) ? "map" : "backup";
  }

  /** The commit of that epoch on the line that the image's head is on. */
  find(which: Which, epoch: number): Commit | null {
    let commit = this.images[which].head;
    while (commit !== null && commit.epoch !== epoch) commit = commit.parent;
    return commit;
  }

  /** The image was opened and stands at this epoch, with this state where it is known. */
  settle(which: Which, epoch: number, digest?: string): void {
    const image = this.images[which];
    const { head } = image;
    const announced = image.announced && named(image.announced, epoch);
    const allowed = [head, announced]
      .map((commit) => commit === null ? "nothing" : `${commit.epoch || "?"} ${commit.digest}`)
      .join(", announced: ");
    const found = `the ${which} image stands at epoch ${epoch}, ${digest ?? "unseen"}; ` +
      `acknowledged: ${allowed}`;
    // What mclose() acknowledged has no number yet.
    if (head?.epoch === 0 && (digest === undefined || digest === head.digest)) head.epoch = epoch;
    const isHead = epoch === (head?.epoch ?? 0) &&
      (digest === undefined || digest === head?.digest);
    if (!isHead) {
      assert.ok(announced !== null && announced !== head, found);
      assert.ok(digest === undefined || digest === announced.digest, found);
      assert.ok(
        announced.epoch === 0 ? epoch > (announced.parent?.epoch ?? 0) : epoch === announced.epoch,
        found,
      );
      announced.epoch = epoch;
      image.line = [];
      image.head = announced;
    }
    if (announced !== null && announced !== head) {
      isHead ? this.tally.notFound++ : this.tally.found++;
    }
    image.announced = null;
  }

  /** The image's files are gone. */
  lose(which: Which): void {
    this.images[which] = emptyImage();
    this.tally.lost++;
  }

  /** Where a child that opens the files in this way finds its heap: null for a new one. */
  expected(way: Way): Commit | null {
    const { map, backup } = this.images;
    return way === "open" || way === "mopen"
      ? this.images[this.newest].head ?? map.head
      : backup.head;
  }

  /** Takes note of what a child says, and checks it. */
  hear(event: ChildEvent, way: Way): void {
    switch (event.at) {
      case "opened":
        return this.#opened(event, way);
      case "begin":
        return this.#begin(event.image, event.digest, event.unchanged);
      case "done":
        return this.#done(event.image, event.epoch, event.pages, event.folds);
      case "guarded":
        return this.#guarded(event.image);
      case "restored":
        return this.#restored(event.image, event.epoch, event.digest);
      case "refused":
        assert.equal(way, "open");
        assert.ok(this.diverged, "images of one line were refused");
        return;
      case "end":
        // A commit by mclose() is acknowledged by what follows it.
        for (const image of Object.values(this.images)) {
          if (image.announced === null) continue;
          image.head = image.announced;
          image.announced = null;
          image.line = [];
        }
        return;
    }
  }

  #opened(event: ChildEvent & { at: "opened" }, way: Way): void {
    this.#folds = 0;
    for (const which of ["map", "backup"] as const) {
      const epochs = event.epochs[which];
      const image = this.images[which];
      image.open = epochs !== null;
      image.fresh = which === "map" && way === "new map";
      if (epochs === null || image.fresh) continue;
      this.settle(which, epochs.at(-1) ?? 0);
      this.#expectEpochs(which, epochs);
    }
    assert.ok(way !== "open" || !this.diverged, "images of diverged lines were opened together");
    const from = this.expected(way);
    assert.deepEqual(
      { epoch: event.epoch, digest: event.digest },
      { epoch: from?.epoch ?? 0, digest: from?.digest ?? "new" },
      `opened by ${way} (${event.resumed})`,
    );
    if (way === "open") {
      assert.equal(
        event.resumed,
        from === null ? "new" : this.newest === "map" ? "file" : "backup",
      );
    }
    this.current = from;
    for (const image of Object.values(this.images)) {
      image.continued = image.source = image.head === from && !image.fresh;
    }
  }

  #expectEpochs(which: Which, epochs: number[]): void {
    const { line, head } = this.images[which];
    const known: number[] = [];
    for (let commit = head; commit !== null; commit = commit.parent) known.push(commit.epoch);
    const wanted = line.slice(-this.keep).map(({ epoch }) => epoch);
    for (const epoch of epochs) assert.ok(known.includes(epoch), `epoch ${epoch} is of no line`);
    for (const epoch of wanted) {
      assert.ok(epochs.includes(epoch), `epoch ${epoch} is gone, of ${wanted}: ${epochs}`);
    }
  }

  #begin(which: Which, digest: string, unchanged: boolean): void {
    if (unchanged) assert.equal(digest, this.current?.digest, "an unchanged heap changed");
    const { current } = this;
    const image = this.images[which];
    // Going back and committing makes a commit of its own, or opening both would go forward again.
    const isBehind = image.head !== current && !image.fresh && isAncestor(current, image.head);
    const isHead = !isBehind &&
      Object.values(this.images).some((each) => each.open && !each.fresh && each.head === current);
    const same = current !== null && isHead && unchanged;
    const perhapsParent = !unchanged && digest === current?.digest;
    image.announced = same ? current : { digest, epoch: 0, parent: current, perhapsParent };
  }

  #done(which: Which, epoch: number, pages: number, folds: number): void {
    const image = this.images[which];
    const commit = named(image.announced!, epoch);
    assert.ok(!this.#isForeign(which), `${which} epoch ${epoch} took the place of another line`);
    const what = `${which} epoch ${epoch}, ${pages} pages`;
    if (commit.epoch !== 0) {
      assert.equal(epoch, commit.epoch, `${what}: a state that was committed has its epoch`);
      if (image.head === commit && !image.fresh) {
        assert.equal(pages, 0, `${what}: nothing had changed`);
      }
    } else assert.ok(epoch > (commit.parent?.epoch ?? 0), `${what}: an epoch went back`);
    commit.epoch = epoch;
    const continues = image.continued && isAncestor(image.head, commit);
    if (!continues) image.line = [commit];
    else if (image.head !== commit) image.line.push(commit);
    image.continued = image.source = true;
    image.fresh = false;
    image.head = this.current = commit;
    image.announced = null;
    this.tally.commits++;
    this.tally.folds += folds - this.#folds;
    this.#folds = folds;
  }

  /** Whether `backup()` must not write there: the image's last commit is no ancestor of the heap. */
  #isForeign(which: Which): boolean {
    const { head, source } = this.images[which];
    return which === "backup" && !source && !isAncestor(head, this.current);
  }

  #guarded(which: Which): void {
    assert.ok(
      this.#isForeign(which),
      `a commit to ${which} was refused, which is of this heap's line`,
    );
    this.images[which].announced = null;
  }

  #restored(which: Which, epoch: number, digest: string): void {
    const commit = this.find(which, epoch);
    assert.equal(digest, commit?.digest, `restored epoch ${epoch} of ${which}`);
    this.current = commit;
    // Of lines that another image forked off nothing is asked but to be there while it is listed.
    for (const image of Object.values(this.images)) {
      image.continued = image.head === commit && !image.fresh;
      image.source = image.continued || image === this.images[which];
    }
    this.tally.restores++;
  }
}
