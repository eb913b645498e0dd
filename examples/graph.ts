/**
 * A small graph database: named nodes, and edges that are references in the heap, so that a step from
 * node to node is a pointer followed and nothing is loaded. The graph is that of the package
 * `emojilib`, 1,900 emoji and the 6,300 words that describe them, or any other in a JSON file.
 *
 *     deno run -A examples/graph.ts path 🍕 🚀       bun examples/graph.ts near 🐙 --steps 2
 *
 * The first command loads the graph, some hundred nodes from commit to commit: killed meanwhile, the
 * next one goes on where the last commit was.
 *
 * @module
 */

import { readFileSync, realpathSync } from "node:fs";
import { createRequire } from "node:module";
import process from "node:process";
import { parseArgs } from "node:util";
import { bool, destroy, OrderedMap, ref, roots, struct, text, u53, Vec } from "../data/mod.ts";
import { Heap } from "../mod.ts";

const USAGE = `Usage: graph.ts COMMAND [options]

  path A B             the shortest way from one node to another
  near A               what is within --steps of a node, nearest first
  find TEXT            nodes whose names begin so
  top                  the nodes with most edges
  link A B             makes an edge, and the nodes if need be
  unlink A B           removes it
  remove A             removes a node and its edges

  -f, --file FILE      where the graph is kept                       (default graph.perm)
      --from FILE      what a new graph is loaded from: JSON, { "node": ["neighbour", …], … }
                       (default: the package emojilib)
  -s, --steps N        how far \`near\` goes                           (default 1)
  -t, --top N          how many lines \`near\` and \`top\` print          (default 20)
  -h, --help           this text`;

/** Whose data a graph has unless another is asked for. */
const PACKAGE = "emojilib";

/** Nodes loaded from commit to commit. */
const NODES_A_COMMIT = 200;

const Node = struct("Node", {
  name: text,
  /** Both ends of an edge list each other, once. */
  get edges() {
    return Vec(ref(Node));
  },
});
export type Node = InstanceType<typeof Node>;

const Stored = struct("Graph", {
  nodes: OrderedMap(text, ref(Node)),
  edges: u53,
  /** What it is loaded from, and how many entries of that are in it. */
  source: text,
  loaded: u53,
  isWhole: bool,
});

/** A graph in a heap, its edges without direction. Who has the heap commits. */
export class Graph {
  readonly #heap: Heap;
  readonly #stored: InstanceType<typeof Stored>;

  /** The graph of that name, or a new one. */
  constructor(heap: Heap, name = "graph") {
    this.#heap = heap;
    this.#stored = roots(heap).open(name, Stored);
  }

  get nodeCount(): number {
    return this.#stored.nodes.size;
  }

  get edgeCount(): number {
    return this.#stored.edges;
  }

  /** The node of that name. */
  get(name: string): Node | undefined {
    return this.#stored.nodes.get(name) ?? undefined;
  }

  /** The node of that name, which is made when there is none. */
  add(name: string): Node {
    const found = this.get(name);
    if (found !== undefined) return found;
    const node = new Node(this.#heap, { name });
    this.#stored.nodes.set(name, node);
    return node;
  }

  /** Makes an edge; false when there was one. */
  link(a: Node, b: Node): boolean {
    const [few, many] = a.edges.length < b.edges.length ? [a, b] : [b, a];
    if (a.ptr === b.ptr || few.edges.some((node) => node!.ptr === many.ptr)) return false;
    a.edges.push(b);
    b.edges.push(a);
    this.#stored.edges += 1;
    return true;
  }

  /** Removes an edge; false when there was none. */
  unlink(a: Node, b: Node): boolean {
    const [toB, toA] = [indexOf(a, b), indexOf(b, a)];
    if (toB < 0 || toA < 0) return false;
    a.edges.splice(toB, 1);
    b.edges.splice(toA, 1);
    this.#stored.edges -= 1;
    return true;
  }

  /** Removes a node and its edges; handles of it throw from then on. */
  remove(node: Node): void {
    for (const other of [...node.edges]) this.unlink(node, other!);
    this.#stored.nodes.delete(node.name);
    destroy(node);
  }

  /** The nodes on a shortest way, both ends included; `undefined` when none leads there. */
  path(from: Node, to: Node): Node[] | undefined {
    for (const { node, way } of this.walk(from)) {
      if (node.ptr === to.ptr) return way();
    }
    return undefined;
  }

  /** Nodes within so many steps, nearest first, the one it begins with left out. */
  *near(from: Node, steps: number): Generator<{ node: Node; distance: number }> {
    for (const { node, distance } of this.walk(from)) {
      if (distance > steps) return;
      if (distance > 0) yield { node, distance };
    }
  }

  /** All nodes that can be reached, nearest first. */
  *walk(from: Node): Generator<{ node: Node; distance: number; way: () => Node[] }> {
    interface Step {
      node: Node;
      distance: number;
      before?: Step;
    }
    const queue: Step[] = [{ node: from, distance: 0 }];
    const seen = new Set([from.ptr]);
    for (const step of queue) {
      const way = () => {
        const nodes: Node[] = [];
        for (let at: Step | undefined = step; at; at = at.before) nodes.unshift(at.node);
        return nodes;
      };
      yield { node: step.node, distance: step.distance, way };
      for (const node of step.node.edges) {
        if (seen.has(node!.ptr)) continue;
        seen.add(node!.ptr);
        queue.push({ node: node!, distance: step.distance + 1, before: step });
      }
    }
  }

  /** Nodes whose names begin so, in the order of their names. */
  *find(prefix: string): Generator<Node> {
    for (const [, node] of this.#stored.nodes.prefix(prefix)) yield node!;
  }

  /** The nodes with most edges. */
  top(count: number): Node[] {
    const all = Array.from(this.#stored.nodes.values(), (node) => node!);
    return all.sort((a, b) => b.edges.length - a.edges.length).slice(0, count);
  }

  /** What it was loaded from; "" before that. */
  get source(): string {
    return this.#stored.source;
  }

  /** Loads what is not in it yet, and commits as it goes; `each` hears of every commit. */
  load(source: string, each?: (epoch: number, loaded: number) => void): void {
    const stored = this.#stored;
    if (stored.source === "") stored.source = source;
    if (stored.source !== source) throw new Error(`This graph is that of ${stored.source}`);
    if (stored.isWhole) return;
    const entries = Object.entries(read(source));
    for (let { loaded } = stored; !stored.isWhole;) {
      for (const [name, neighbours] of entries.slice(loaded, loaded + NODES_A_COMMIT)) {
        const node = this.add(name);
        for (const neighbour of neighbours) this.link(node, this.add(neighbour));
        loaded++;
      }
      stored.loaded = loaded;
      stored.isWhole = loaded === entries.length;
      each?.(this.#heap.flush().epoch, loaded);
    }
  }
}

function indexOf(from: Node, to: Node): number {
  return from.edges.findIndex((node) => node!.ptr === to.ptr);
}

/** Nodes and their neighbours, of a file or of the package. */
export function read(source: string): Record<string, string[]> {
  if (source === PACKAGE) {
    try {
      return createRequire(import.meta.url)(PACKAGE);
    } catch (error) {
      throw new Error(`The package ${PACKAGE} is not installed: run npm install`, { cause: error });
    }
  }
  return JSON.parse(readFileSync(source, "utf8"));
}

function main(): number {
  const { values, positionals: [command, ...names] } = parseArgs({
    allowPositionals: true,
    options: {
      file: { type: "string", short: "f", default: "graph.perm" },
      from: { type: "string" },
      steps: { type: "string", short: "s", default: "1" },
      top: { type: "string", short: "t", default: "20" },
      help: { type: "boolean", short: "h" },
    },
  });
  const commands = { path: 2, near: 1, find: 1, top: 0, link: 2, unlink: 2, remove: 1 };
  const [steps, top] = [Number(values.steps), Number(values.top)];
  const isSound = names.length === commands[command as keyof typeof commands] && steps >= 0;
  if (values.help || !isSound || !(top >= 1)) {
    console.log(USAGE);
    return values.help ? 0 : 2;
  }
  using heap = Heap.open({ file: values.file, size: 1 << 20 });
  const graph = new Graph(heap);
  const asked = values.from === undefined ? graph.source || PACKAGE : realpathSync(values.from);
  graph.load(asked, (epoch, loaded) => console.error(`epoch ${epoch}: ${loaded} loaded`));

  const node = (name: string) => {
    const found = graph.get(name);
    if (found === undefined) {
      throw new Error(`There is no node "${name}"; \`find\` tells which there are`);
    }
    return found;
  };
  const line = ({ name, edges }: Node) => `${String(edges.length).padStart(6)}  ${name}`;
  switch (command) {
    case "path": {
      const way = graph.path(node(names[0]), node(names[1]));
      console.log(way?.map(({ name }) => name).join(" → ") ?? "no way leads there");
      return way === undefined ? 1 : 0;
    }
    case "near": {
      const all = [...graph.near(node(names[0]), steps)];
      for (const { node, distance } of all.slice(0, top)) console.log(`${distance}  ${node.name}`);
      console.log(`${all.length} within ${steps}`);
      return 0;
    }
    case "find":
      for (const found of graph.find(names[0])) console.log(line(found));
      return 0;
    case "top":
      for (const found of graph.top(top)) console.log(line(found));
      console.log(`${graph.nodeCount} nodes, ${graph.edgeCount} edges`);
      return 0;
  }
  if (command === "link") graph.link(graph.add(names[0]), graph.add(names[1]));
  else if (command === "unlink") graph.unlink(node(names[0]), node(names[1]));
  else graph.remove(node(names[0]));
  console.log(`epoch ${heap.flush().epoch}: ${graph.nodeCount} nodes, ${graph.edgeCount} edges`);
  return 0;
}

if (import.meta.main) {
  try {
    process.exitCode = main();
  } catch (error) {
    console.error(`graph: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}
