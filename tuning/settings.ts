/**
 * The kernel settings that matter to a heap, and what to know before changing them.
 *
 * @module
 */

/** A kernel setting: what it should be, and why. */
export interface Setting {
  /** The name that `sysctl` knows it by. */
  readonly name: string;
  /** The value that suits a shared heap. */
  readonly wanted: number;
  /** What the setting is for. */
  readonly purpose: string;
  /** What it costs, and whom. */
  readonly cost: string;
  /** When it is not needed. */
  readonly notNeeded: string;
  /**
   * The setting that the kernel keeps in its place: writing one of the two makes the other 0. What
   * was in force must be put back through the one that held it.
   */
  readonly counterpart?: string;
}

const privateHeap = "For a private heap, which is the default: the kernel never writes it.";

/** The settings, in the order in which they are applied. */
export const settings: readonly Setting[] = [
  {
    name: "vm.dirty_writeback_centisecs",
    wanted: 0,
    purpose: "Stops the kernel's periodic write-back. Otherwise the pages of a shared heap go to " +
      "its map file every few seconds, in the middle of a change, and each page's next write " +
      "faults again.",
    cost: "Of the whole system: until it is on again, a power cut loses what no program has " +
      "flushed.",
    notNeeded: privateHeap,
  },
  {
    name: "vm.dirty_background_ratio",
    wanted: 100,
    purpose: "Lets a shared heap become dirty up to all available memory before the kernel " +
      "begins to write it in the background.",
    cost: "Of the whole system: more is lost in a power cut, and what is written at last comes " +
      "in one burst.",
    notNeeded: privateHeap,
    counterpart: "vm.dirty_background_bytes",
  },
  {
    name: "vm.dirty_ratio",
    wanted: 100,
    purpose: "Keeps a program that fills a shared heap from being stopped in a store until the " +
      "kernel has written enough of it.",
    cost: "Of the whole system: memory may fill with unwritten pages; a program that then needs " +
      "some waits for the disk.",
    notNeeded: privateHeap,
    counterpart: "vm.dirty_bytes",
  },
  {
    name: "kernel.randomize_va_space",
    wanted: 0,
    purpose: "Loads programs, libraries and stacks at the same addresses in each run, so that a " +
      "heap may hold pointers to functions and static data, and so that nothing random takes an " +
      "address of the program's own choice.",
    cost: "Of the whole system: programs started from now on are easier to attack.",
    notNeeded: "From TypeScript, ever: heaps lie where randomized addresses never come. Only C " +
      "programs that keep pointers to their own code or data in the heap need it.",
  },
];
