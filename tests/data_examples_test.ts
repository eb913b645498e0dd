// The examples of typed data do what they say, and lose nothing but what was not committed, however
// often they are killed.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { Cache, fingerprint } from "../examples/cache.ts";
import { Graph, type Node, read } from "../examples/graph.ts";
import { Jobs } from "../examples/jobs.ts";
import { leaks } from "../data/mod.ts";
import { Heap } from "../mod.ts";
import { command, repository, run, type Runtime, thisRuntime } from "./runtimes.ts";
import { Folder, otherRuntime, randomNumbers } from "./support.ts";

const timeout = 120_000 + 3000 * Number(process.env.PERM_EXAMPLE_KILLS ?? 0);
/** How often each example is killed; `PERM_EXAMPLE_KILLS` for more. */
const kills = Number(process.env.PERM_EXAMPLE_KILLS ?? 6);

function example(runtime: Runtime, name: string, args: string[]): string[] {
  return command(runtime, `${repository}examples/${name}.ts`, args);
}

/** Runs an example to its end, which has to be a good one: what it printed, line by line. */
function finish(runtime: Runtime, name: string, args: string[]): string[] {
  const { code, out, err } = run(example(runtime, name, args));
  assert.equal(code, 0, out + err);
  return out.trimEnd().split("\n");
}

/**
 * Runs an example until it has printed so many lines that match, kills it a moment later, and tells
 * what it printed. It may end before, if it ends well.
 */
async function kill(
  runtime: Runtime,
  name: string,
  args: string[],
  { lines, match }: { lines: number; match: RegExp },
): Promise<string[]> {
  const [program, ...rest] = example(runtime, name, args);
  const child = spawn(program, rest, { stdio: ["ignore", "pipe", "pipe"] });
  const ended = once(child, "close") as Promise<[number | null, string | null]>;
  const errors = child.stderr.setEncoding("utf8").toArray() as Promise<string[]>;
  const printed: string[] = [];
  let left = lines;
  for await (const line of createInterface({ input: child.stdout })) {
    printed.push(line);
    if (match.test(line) && --left === 0) {
      delay(Math.random() * 30).then(() => child.kill("SIGKILL"));
    }
  }
  const [code, signal] = await ended;
  const said = (await errors).join("");
  assert.ok(signal === "SIGKILL" || code === 0, `${name} ended with ${code}, ${signal}\n${said}`);
  return printed;
}

/** One runtime, then the other, and so on. */
function turn(i: number): Runtime {
  return i % 2 === 0 ? thisRuntime : otherRuntime;
}

test("the index of words is that of restore.ts, however often it was killed on the way", {
  timeout,
}, async () => {
  using folder = new Folder();
  const text = `${repository}zig/src`;
  const args = ["--file", folder.file("words.perm"), "--step", "1", "--digest"];
  const reached = [0];
  for (let i = 0; i < 5; i++) {
    const printed = await kill(turn(i), "words", i === 0 ? [...args, text] : args, {
      lines: 3,
      match: /^epoch \d+: /,
    });
    const start = Number(/(\d+) files of/.exec(printed[0])![1]);
    // No epoch that was announced is lost; one more may have been committed before the kill.
    assert.ok(start >= reached.at(-1)! && start <= reached.at(-1)! + 1, printed[0]);
    const announced = printed.findLast((line) => line.startsWith("epoch "));
    reached.push(announced ? Number(/: (\d+) files/.exec(announced)![1]) : start);
  }
  const whole = finish(otherRuntime, "words", [...args, "--word", "allocator", "--top", "3"]);
  const digest = whole.at(-1)!;
  assert.match(digest, /^digest [0-9a-f]{64}$/);
  const raw = finish(thisRuntime, "restore", [
    ...["--map", folder.file("raw.map"), "--backup", folder.file("raw.back")],
    ...["--plain", "--digest", "--word", "allocator", "--top", "3", text],
  ]);
  assert.equal(digest, raw.at(-1));
  const total = raw.find((line) => line.startsWith("allocator: "))!.split(" ")[1];
  assert.ok(whole.includes(`allocator: ${total}`));
  const top = (lines: string[]) => lines.flatMap((line) => /^ +\d+ {2}\w+/.exec(line) ?? []);
  assert.deepEqual(top(whole).slice(0, 3), top(raw).slice(0, 3));
  {
    using heap = Heap.open({ file: folder.file("words.perm"), size: 1 << 20 });
    heap.check();
    assert.deepEqual(leaks(heap), []);
  }
  const refused = run(example(thisRuntime, "words", [...args, folder.path]));
  assert.notEqual(refused.code, 0);
  assert.match(refused.err, /has an index of .*zig\/src$/m);
});

test("a simulation killed again and again computes what it would have without", {
  timeout,
}, async () => {
  using folder = new Folder();
  const args = (name: string, steps: number) => [
    ...["--file", folder.file(name), "--bodies", "8", "--steps", `${steps}`],
  ];
  const whole = finish(thisRuntime, "particles", args("whole.perm", 20_000));
  let announced = 0;
  for (let i = 0; i < kills; i++) {
    const printed = await kill(turn(i), "particles", args("killed.perm", 1e9), {
      lines: 2,
      match: /^step /,
    });
    const start = Number(/at step (\d+)/.exec(printed[0])![1]);
    assert.ok(start >= announced && start % 500 === 0, printed[0]);
    announced = Number(/^step (\d+)/.exec(printed.at(-1)!)![1]);
  }
  // However far it came, it has been there before: the way from there is the same.
  const reached = finish(thisRuntime, "particles", args("killed.perm", 0)).at(-1)!;
  const step = Number(/at step (\d+)/.exec(reached)![1]);
  assert.ok(step >= announced && step < 1e6, reached);
  assert.equal(finish(otherRuntime, "particles", args("again.perm", 0)).length, 2);
  if (step <= 20_000) {
    const rest = finish(otherRuntime, "particles", args("killed.perm", 20_000));
    assert.equal(rest.at(-1), whole.at(-1));
  } else {
    assert.equal(finish(thisRuntime, "particles", args("whole.perm", step)).at(-1), reached);
  }
});

test("a queue loses no job, runs them when they are due and gives up on none too early", {
  timeout,
}, async () => {
  using folder = new Folder();
  const file = folder.file("jobs.perm");
  const ran: string[] = [];
  {
    using heap = Heap.open({ file, size: 1 << 20 });
    const jobs = new Jobs(heap);
    jobs.add("second", Date.now() - 1);
    jobs.add("first", Date.now() - 1000);
    jobs.add("a job whose name is too long for a slot", Date.now());
    assert.deepEqual([...jobs.list()].map(({ number }) => number), [2, 1, 3]);
    await jobs.runNext((what) => Promise.resolve(void ran.push(what)));
    assert.deepEqual(ran, ["first"]);
    // The process ends within a job, which stands nowhere in the queue while another one is committed.
    void jobs.runNext(() => new Promise(() => {}));
    jobs.add("third", Date.now());
    assert.deepEqual([...jobs.list()].map(({ number }) => number), [3, 4]);
  }
  using heap = Heap.open({ file, size: 1 << 20 });
  const jobs = new Jobs(heap);
  assert.deepEqual([jobs.size, jobs.done], [3, 1]);
  let failures = 2;
  for (;;) {
    const wait = await jobs.runNext((what) => {
      if (what === "second" && failures-- > 0) return Promise.reject(new Error("not yet"));
      ran.push(what);
      return Promise.resolve();
    });
    if (wait === undefined) break;
    await delay(wait);
  }
  assert.deepEqual(ran, ["first", "a job whose name is too long for a slot", "third", "second"]);
  assert.deepEqual([jobs.size, jobs.done, [...jobs.list()].length], [0, 4, 0]);
  assert.deepEqual(leaks(heap), []);
});

test("a queue whose process is killed again and again runs every job, in their order", {
  timeout,
}, async () => {
  using folder = new Folder();
  const file = folder.file("jobs.perm");
  const names = Array.from({ length: 7 * kills }, (_, i) => `job ${i}`);
  {
    using heap = Heap.open({ file, size: 1 << 20 });
    const jobs = new Jobs(heap);
    const now = Date.now();
    for (const [i, name] of names.entries()) jobs.add(name, now - 1000 + i);
  }
  let done: string[] = [];
  for (let i = 0; i < kills; i++) {
    const printed = await kill(turn(i), "jobs", ["run", "--file", file], {
      lines: 4,
      match: /^done: /,
    });
    const ran = printed.flatMap((line) => /^done: (.*)/.exec(line)?.[1] ?? []);
    // What was running, or not committed yet, is run once more; nothing else is.
    const first = names.indexOf(ran[0]);
    assert.ok(first === done.length || first === done.length - 1, `${done} then ${ran}`);
    done = [...done.slice(0, first), ...ran];
    assert.deepEqual(done, names.slice(0, done.length));
  }
  const rest = finish(thisRuntime, "jobs", ["run", "--file", file]);
  assert.equal(rest.at(-1), `nothing left to do, ${names.length} done`);
  assert.deepEqual(finish(otherRuntime, "jobs", ["list", "--file", file]), [
    `0 to do, ${names.length} done`,
  ]);
});

test("a cache keeps what a plain one of JavaScript keeps, over restarts and while none runs", () => {
  using folder = new Folder();
  const random = randomNumbers(7);
  let time = 1_700_000_000_000;
  let capacity = 40;
  const open = () => {
    const heap = Heap.open({ file: folder.file("cache.perm"), size: 1 << 20 });
    return { heap, cache: new Cache(heap, { capacity, now: () => time }) };
  };
  // A Map in the order of use, the oldest first.
  let model = new Map<string, { value: string; expires: number }>();
  let { heap, cache } = open();
  const sweep = () => {
    for (const [key, { expires }] of model) if (expires <= time) model.delete(key);
  };
  const bound = () => {
    for (const key of model.keys()) if (model.size > capacity) model.delete(key);
  };
  const compare = () => {
    sweep();
    assert.deepEqual(
      [...cache],
      Array.from(model, ([key, entry]) => ({ key, ...entry })).reverse(),
    );
  };
  let committed = structuredClone(model);
  for (let i = 0; i < 20_000; i++) {
    time += random(8);
    const key = `key ${random(80)}${random(4) === 0 ? " and more of it" : ""}`;
    switch (random(8)) {
      case 0:
      case 1:
      case 2: {
        const [value, ttl] = [`value ${i}`.repeat(1 + random(4)), 1 + random(500)];
        cache.set(key, value, ttl);
        sweep();
        model.delete(key);
        model.set(key, { value, expires: time + ttl });
        bound();
        break;
      }
      case 3:
        sweep();
        assert.equal(cache.delete(key), model.delete(key));
        break;
      default: {
        const entry = model.get(key);
        const isGood = entry !== undefined && entry.expires > time;
        assert.equal(cache.get(key), isGood ? entry.value : undefined);
        if (entry !== undefined) model.delete(key);
        if (isGood) model.set(key, entry);
      }
    }
    if (random(50) === 0) {
      heap.flush();
      committed = structuredClone(model);
      if (random(10) !== 0) continue;
      // A restart: what was not committed is gone, and time goes on meanwhile.
      cache.set("lost", "value", 1e6);
      heap.close();
      time += random(300);
      capacity = 10 + random(50);
      ({ heap, cache } = open());
      model = structuredClone(committed);
      sweep();
      bound();
    }
    if (i % 50 === 0) compare();
  }
  compare();
  assert.ok(cache.counts.evicted > 100 && cache.counts.expired > 100, JSON.stringify(cache.counts));
  cache.sweep();
  assert.equal(cache.size, model.size);
  assert.deepEqual(leaks(heap), []);
  time += 1e6;
  assert.equal([...cache].length, 0);
  cache.sweep();
  assert.equal(cache.size, 0);
  heap.check();
  heap.close();
});

test("a cache whose process is killed again and again has no wrong entry and none too many", {
  timeout,
}, async () => {
  using folder = new Folder();
  const file = folder.file("cache.perm");
  let announced = 0;
  for (let i = 0; i < kills; i++) {
    const args = ["work", "--file", file, "--capacity", "200", "--ttl", "0.5"];
    const printed = await kill(turn(i), "cache", args, { lines: 3, match: /^epoch / });
    const epoch = Number(/^epoch (\d+)/.exec(printed.at(-1)!)![1]);
    using heap = Heap.open({ file, size: 1 << 20 });
    assert.ok(heap.epoch >= epoch && epoch > announced);
    announced = epoch;
    const cache = new Cache(heap, { capacity: 200 });
    let count = 0;
    for (const { key, value, expires } of cache) {
      assert.equal(value, fingerprint(key));
      assert.ok(expires <= Date.now() + 500);
      count++;
    }
    assert.ok(count <= 200 && cache.size <= 200);
    heap.check();
    assert.deepEqual(leaks(heap), []);
  }
  await delay(600);
  assert.match(finish(otherRuntime, "cache", ["list", "--file", file])[0], /^0 entries, /);
  assert.equal(run(example(thisRuntime, "cache", ["get", "a", "--file", file])).code, 1);
  finish(thisRuntime, "cache", ["set", "a", "b", "--file", file]);
  assert.deepEqual(finish(otherRuntime, "cache", ["get", "a", "--file", file]), ["b"]);
});

/** Distances from a node, counted over plain arrays. */
function distances(edges: Map<string, Set<string>>, from: string): Map<string, number> {
  const found = new Map([[from, 0]]);
  for (const [name, distance] of found) {
    for (const next of edges.get(name)!) if (!found.has(next)) found.set(next, distance + 1);
  }
  return found;
}

test("a graph loaded under kills answers as one of plain JavaScript does", {
  timeout,
}, async () => {
  using folder = new Folder();
  const file = folder.file("graph.perm");
  for (let i = 0; i < 4; i++) {
    const [program, ...args] = example(turn(i), "graph", ["top", "--file", file]);
    const child = spawn(program, args, { stdio: ["ignore", "ignore", "pipe"] });
    const ended = once(child, "exit") as Promise<[number | null, string | null]>;
    for await (const line of createInterface({ input: child.stderr })) {
      if (line.startsWith("epoch ")) delay(Math.random() * 10).then(() => child.kill("SIGKILL"));
    }
    const [code, signal] = await ended;
    assert.ok(code === 0 || signal === "SIGKILL");
  }
  const summary = finish(otherRuntime, "graph", ["top", "--top", "1", "--file", file]);

  const edges = new Map<string, Set<string>>();
  const of = (name: string) => {
    let found = edges.get(name);
    if (found === undefined) edges.set(name, found = new Set());
    return found;
  };
  for (const [name, neighbours] of Object.entries(read("emojilib"))) {
    of(name);
    for (const other of neighbours) of(name).add(other) && of(other).add(name);
  }
  const count = () => Array.from(edges.values(), ({ size }) => size).reduce((a, b) => a + b) / 2;
  assert.equal(summary.at(-1), `${edges.size} nodes, ${count()} edges`);
  const largest = Math.max(...Array.from(edges.values(), ({ size }) => size));
  assert.equal(Number.parseInt(summary[0]), largest);

  using heap = Heap.open({ file, size: 1 << 20 });
  const graph = new Graph(heap);
  const names = [...edges.keys()];
  const random = randomNumbers(11);
  const compare = () => {
    assert.deepEqual([graph.nodeCount, graph.edgeCount], [edges.size, count()]);
    for (let i = 0; i < 6; i++) {
      const from = names[random(names.length)];
      if (!edges.has(from)) continue;
      const expected = distances(edges, from);
      const start = graph.get(from)!;
      const found = new Map(
        Array.from(graph.walk(start), ({ node, distance }) => [node.name, distance]),
      );
      assert.deepEqual(found, expected);
      for (const steps of [0, 1, 2]) {
        assert.deepEqual(
          Array.from(graph.near(start, steps), ({ node }) => node.name).sort(),
          [...expected].filter(([, d]) => d > 0 && d <= steps).map(([name]) => name).sort(),
        );
      }
      const to = names[random(names.length)];
      if (!edges.has(to)) continue;
      const way = graph.path(start, graph.get(to)!)?.map(({ name }) => name);
      assert.equal(way && way.length - 1, expected.get(to));
      for (const [j, name] of (way ?? []).entries()) {
        assert.ok(j === 0 || edges.get(way![j - 1])!.has(name));
      }
    }
  };
  compare();
  for (let i = 0; i < 300; i++) {
    const [a, b] = [names[random(names.length)], names[random(names.length)]];
    if (!edges.has(a) || !edges.has(b)) continue;
    const [left, right] = [graph.get(a) as Node, graph.get(b) as Node];
    const neighbour = [...edges.get(a)!][0];
    if (i % 3 === 0) {
      assert.equal(graph.link(left, right), a !== b && !edges.get(a)!.has(b));
      if (a !== b) of(a).add(b) && of(b).add(a);
    } else if (i % 3 === 1 && neighbour !== undefined) {
      assert.ok(graph.unlink(left, graph.get(neighbour)!));
      of(a).delete(neighbour);
      of(neighbour).delete(a);
    } else {
      graph.remove(left);
      for (const other of of(a)) of(other).delete(a);
      edges.delete(a);
      assert.equal(graph.get(a), undefined);
    }
  }
  compare();
  assert.deepEqual(leaks(heap), []);
  heap.check();
});

test("a graph of another source is loaded from a file and found again by its names", () => {
  using folder = new Folder();
  mkdirSync(folder.file("from"));
  const source = folder.file("from/towns.json");
  writeFileSync(source, JSON.stringify({ a: ["b"], b: ["c", "a", "b"], lonely: [] }));
  const args = ["--file", folder.file("towns.perm")];
  const ask = (...words: string[]) => run(example(thisRuntime, "graph", [...words, ...args]));
  assert.equal(ask("path", "a", "c", "--from", source).out, "a → b → c\n");
  assert.equal(ask("near", "a", "--steps", "2").out, "1  b\n2  c\n2 within 2\n");
  assert.deepEqual([ask("path", "a", "lonely").code, ask("path", "a", "nobody").code], [1, 1]);
  assert.equal(ask("link", "c", "lonely").out, "epoch 2: 4 nodes, 3 edges\n");
  assert.equal(ask("path", "a", "lonely").out, "a → b → c → lonely\n");
  assert.equal(ask("top").out.split("\n")[0], "     2  b");
  assert.match(ask("top", "--from", "/dev/null").err, /This graph is that of .*towns\.json/);
});

test("every example tells what it can do, and what it is not given to do", () => {
  for (const name of ["words", "particles", "jobs", "cache", "graph", "restore", "demo", "perm"]) {
    assert.match(finish(thisRuntime, name, ["--help"])[0], /^Usage: /, name);
  }
  using folder = new Folder();
  for (
    const [name, ...args] of [
      ["words", "--step", "none"],
      ["particles", "--bodies", "1e9"],
      ["jobs"],
      ["jobs", "add", "it", "--in", "soon"],
      ["cache", "set", "key"],
      ["cache", "work", "--ttl", "0"],
      ["graph", "path", "only one"],
    ]
  ) {
    const { code, out } = run(example(thisRuntime, name, args), { directory: folder.path });
    assert.equal(code, 2, `${name} ${args}: ${out}`);
    assert.match(out, /^Usage: /);
  }
  assert.deepEqual(folder.names(), []);
});
