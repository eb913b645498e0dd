/**
 * Kills a program at random moments and lets the other runtime find what was committed, and nothing
 * else. Each test is a chain of processes over the same two files, in turns under Deno and Bun; in
 * between the process of the test reads both images.
 *
 *     PERM_CRASH_KILLS=5000 deno task test --only deno ./tests/crash_test.ts       the long run
 *     PERM_CRASH_PLACE=folder            where the files are, for another file system
 *     PERM_CRASH_SEED=n                  the plan of a run that failed; when a kill strikes is chance
 *
 * Without them each runtime's run of this file makes 80 kills. One takes about 0.2 s, several at a
 * time only make each other slower. A failure prints the seed, the last events and the folder with
 * the files, which stays.
 *
 * @module
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, realpathSync, rmSync, watch } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { mclose, mopen, restore } from "../mod.ts";
import type { ChildEvent, ChildOptions, Way, Which } from "./crash_child.ts";
import { Ledger, type Tally } from "./crash_ledger.ts";
import { registerHome, Structure } from "./crash_model.ts";
import { command, type Runtime, runtimes } from "./runtimes.ts";
import { randomNumbers } from "./support.ts";

const kills_total = Number(process.env.PERM_CRASH_KILLS ?? 80);
const seed = Number(process.env.PERM_CRASH_SEED ?? Math.floor(Math.random() * 2 ** 31));
const child_path = fileURLToPath(new URL("crash_child.ts", import.meta.url));

/** What a chain of processes has in common. */
interface Scenario {
  name: string;
  keep: number;
  logLimit: number;
  home: boolean;
  goBack: boolean;
  weight: number;
  ways: readonly Way[];
  /** Percent of the rounds in which a file is lost before the next process opens them. */
  lose: number;
  /** Percent of the kills that strike before the heap is open. */
  opening: number;
  /** Whether the backup file is on a file system of its own, where the machine has one to offer. */
  apart?: boolean;
}

/** In memory, as a rule; where the map files are is not. */
const memory = "/dev/shm";

const scenarios: readonly Scenario[] = [
  {
    name:
      "kill -9 leaves the last acknowledged commit or the one announced, for the other runtime " +
      "to go on from",
    keep: 1,
    logLimit: 1 << 18,
    home: false,
    goBack: false,
    weight: 1 << 19,
    ways: ["open"],
    lose: 0,
    opening: 10,
  },
  {
    name: "kill -9 of PERM's own way of working leaves each epoch that is kept, with its blocks",
    keep: 4,
    logLimit: 1 << 19,
    home: true,
    goBack: true,
    weight: 1 << 19,
    ways: ["mopen", "mopen", "mopen", "backup only", "new map"],
    lose: 10,
    opening: 10,
  },
  {
    name: "kill -9 and a lost map file or backup file leave what the other one holds",
    keep: 2,
    logLimit: 1 << 20,
    home: false,
    goBack: false,
    weight: 1 << 21,
    ways: ["open", "open", "mopen", "new map"],
    lose: 50,
    opening: 10,
    apart: true,
  },
  {
    name: "kill -9 while the heap is being opened, again and again, loses nothing",
    keep: 1,
    logLimit: 1 << 16,
    home: false,
    goBack: true,
    weight: 1 << 17,
    ways: ["open", "mopen"],
    lose: 5,
    opening: 65,
  },
];

/** When a process is killed. */
type Moment =
  /** So long after it said that it opens the files. */
  | { after: "opening"; delayMs: number }
  /** So long after it began its n-th new base, by a fold as a rule. */
  | { after: "base"; count: number; delayMs: number }
  /** So long after it announced its n-th commit. */
  | { after: "commit"; count: number; delayMs: number }
  /** So long after its start. */
  | { after: "start"; delayMs: number }
  /** Never: it ends by itself. */
  | { after: "end"; count: number };

class Chain {
  readonly scenario: Scenario;
  readonly below: (bound: number) => number;
  readonly directory: string;
  readonly backups: string;
  readonly ledger: Ledger;
  readonly tally: Tally;
  /** The last events, for whoever has to find out why. */
  readonly trace: string[] = [];
  #round = 0;

  constructor(scenario: Scenario, chainSeed: number) {
    this.scenario = scenario;
    this.below = randomNumbers(chainSeed);
    const place = process.env.PERM_CRASH_PLACE ?? tmpdir();
    this.directory = realpathSync(mkdtempSync(join(place, "perm-crash-")));
    const apart = scenario.apart && existsSync(memory);
    this.backups = apart ? mkdtempSync(join(memory, "perm-crash-")) : this.directory;
    this.tally = {
      kills: 0,
      found: 0,
      notFound: 0,
      opening: 0,
      commits: 0,
      restores: 0,
      folds: 0,
      lost: 0,
    };
    this.ledger = new Ledger(scenario.keep, this.tally);
  }

  path(which: Which): string {
    return which === "map" ? join(this.directory, "app.perm") : join(this.backups, "app.back");
  }

  chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  /** One process, from its start to its end, and what it left. */
  async round(runtime: Runtime): Promise<void> {
    this.#round++;
    const { ledger } = this;
    const plain = this.scenario.ways.every((way) => way === "open");
    if (!plain || this.scenario.goBack || this.chance(50)) {
      for (const which of ["map", "backup"] as const) this.look(which);
    }
    if (!ledger.isOpen && this.chance(this.scenario.lose)) this.lose();
    const options = this.plan();
    const moment = this.moment();
    this.trace.push(JSON.stringify({ round: this.#round, runtime, moment, ...options }));
    await this.live(runtime, options, moment);
  }

  plan(): ChildOptions {
    const { ledger, scenario } = this;
    const { map, backup } = ledger.images;
    const ways = scenario.ways.filter((way) => {
      if (way === "backup only" || way === "new map") return backup.head !== null;
      return true;
    });
    const way = ways[this.below(ways.length)];
    const lost = way === "backup only" || way === "new map";
    return {
      file: this.path("map"),
      backup: this.path("backup"),
      way,
      exists: { map: map.head !== null, backup: backup.head !== null },
      restore: backup.head !== null && (lost || ledger.newest === "backup"),
      home: scenario.home,
      keep: scenario.keep,
      logLimit: scenario.logLimit,
      goBack: scenario.goBack,
      weight: scenario.weight,
      seed: this.below(2 ** 31),
      commits: 400,
    };
  }

  moment(): Moment {
    // Most commits take less than a millisecond: most kills strike in that time.
    const shortly = () => this.chance(75) ? this.below(1500) / 1000 : this.below(5000) / 1000;
    if (this.chance(this.scenario.opening)) {
      return { after: "opening", delayMs: this.chance(70) ? shortly() : this.below(20) };
    }
    const kind = this.below(10);
    if (kind === 0) return { after: "end", count: this.below(12) };
    if (kind < 4) return { after: "base", count: 1 + this.below(4), delayMs: shortly() };
    if (kind < 8) return { after: "commit", count: 1 + this.below(40), delayMs: shortly() };
    return { after: "start", delayMs: this.below(500) };
  }

  /** Starts the process, hears what it says, kills it, and hears the rest. */
  async live(runtime: Runtime, options: ChildOptions, moment: Moment): Promise<void> {
    if (moment.after === "end") options.commits = moment.count;
    const [program, ...args] = command(runtime, child_path, [JSON.stringify(options)]);
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
    const timer = setTimeout(() => child.kill("SIGKILL"), 60_000);
    const kill = (delayMs: number) => {
      const until = performance.now() + delayMs;
      while (performance.now() < until);
      child.kill("SIGKILL");
    };
    if (moment.after === "start") setTimeout(() => kill(0), moment.delayMs);
    let bases = 0;
    const watcher = moment.after !== "base" ? undefined : watch(this.directory, (_kind, name) => {
      if (!name?.endsWith("-new") || !existsSync(join(this.directory, name))) return;
      if (++bases === moment.count) kill(moment.delayMs);
    });
    let commits = 0;
    let opened = false;
    const events: ChildEvent[] = [];
    const lines = new Lines((line) => {
      const event: ChildEvent = JSON.parse(line);
      events.push(event);
      if (event.at === "opened") opened = true;
      if (event.at === "begin") commits++;
      const { after } = moment;
      if (after === "opening" && event.at === after) kill(moment.delayMs);
      if (after === "commit" && event.at === "begin" && commits === moment.count) {
        kill(moment.delayMs);
      }
    });
    try {
      const end = await endOf(child, lines);
      for (const event of events) {
        this.trace.push(JSON.stringify(event));
        this.ledger.hear(event, options.way);
      }
      const last = events.at(-1)?.at;
      if (end.signal === "SIGKILL") {
        this.tally.kills++;
        if (!opened) this.tally.opening++;
      } else {
        const well = end.code === 0 && (last === "end" || last === "refused");
        assert.ok(well, `${runtime} ended with ${end.signal ?? end.code}: ${end.errors}`);
      }
      // Somebody has to say which of two lines to go on with.
      if (last === "refused") this.lose(this.chance(50) ? "map" : "backup");
    } finally {
      watcher?.close();
      clearTimeout(timer);
      child.kill("SIGKILL");
    }
  }

  /** Reads an image from this process, and now and then each epoch that it can go back to. */
  look(which: Which): void {
    if (!existsSync(this.path(which))) {
      this.ledger.settle(which, 0);
      return;
    }
    const { epoch, digest, epochs } = this.read(which);
    this.trace.push(`look at ${which}: epoch ${epoch}, ${digest}`);
    this.ledger.settle(which, epoch, digest);
    if (!this.chance(30)) return;
    for (const earlier of epochs) {
      const commit = this.ledger.find(which, earlier);
      assert.equal(this.read(which, earlier).digest, commit?.digest, `${which} at ${earlier}`);
    }
  }

  read(which: Which, epoch?: number): { epoch: number; digest: string; epochs: number[] } {
    const home = this.scenario.home ? registerHome() : undefined;
    const heap = mopen(this.path(which), "r", undefined, { verify: this.chance(50) });
    try {
      if (epoch !== undefined) restore({ epoch });
      heap.check();
      return {
        epoch: heap.epoch,
        digest: new Structure(heap, home).read().digest(),
        epochs: heap.map!.epochs().map(({ epoch }) => epoch),
      };
    } finally {
      mclose();
    }
  }

  /** Loses an image's files, all of them or the base alone, if the other one holds a commit. */
  lose(which: Which = this.chance(50) ? "map" : "backup"): void {
    const other = which === "map" ? "backup" : "map";
    if (this.ledger.images[other].head === null) return;
    const base = this.path(which);
    const withLog = this.chance(60);
    const directory = dirname(base);
    for (const name of readdirSync(directory)) {
      const path = join(directory, name);
      if (path === base || (withLog && path.startsWith(base))) rmSync(path);
    }
    this.ledger.lose(which);
    this.trace.push(`lost ${which}${withLog ? " with its log" : ""}`);
  }
}

/** Cuts a stream into lines; what a killed writer left unfinished is dropped. */
class Lines {
  readonly take: (line: string) => void;
  #rest = "";

  constructor(take: (line: string) => void) {
    this.take = take;
  }

  write(text: string): void {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop()!;
    for (const line of lines) this.take(line);
  }
}

interface End {
  code: number | null;
  signal: string | null;
  errors: string;
}

function endOf(child: ChildProcess, lines: Lines): Promise<End> {
  let errors = "";
  child.stderr!.setEncoding("utf8").on("data", (text: string) => errors += text);
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      try {
        lines.write(text);
      } catch (error) {
        reject(error);
      }
    });
    child.on("close", (code, signal) => resolve({ code, signal, errors }));
  });
}

scenarios.forEach((scenario, index) => {
  const kills = Math.ceil(kills_total / scenarios.length);
  const timeout = 120_000 + kills * 5_000;
  test(scenario.name, { timeout }, async () => {
    const chain = new Chain(scenario, seed + index);
    const first = seed % 2;
    try {
      for (let round = 0; chain.tally.kills < kills; round++) {
        await chain.round(runtimes[(first + round) % 2]);
      }
      for (const which of ["map", "backup"] as const) chain.look(which);
    } catch (error) {
      throw new Error(
        `PERM_CRASH_SEED=${seed}, files in ${chain.directory}, ${chain.backups}: ${
          error instanceof Error ? error.message : error
        }\n${chain.trace.slice(-60).join("\n")}`,
        { cause: error },
      );
    }
    for (const path of new Set([chain.directory, chain.backups])) rmSync(path, { recursive: true });
    const { tally } = chain;
    console.log(`${Object.entries(tally).map(([name, count]) => `${name} ${count}`).join(", ")}`);
    // A handful of kills may all strike before the first commit.
    assert.ok((tally.commits > 0 || kills < 10) && tally.kills >= kills);
  });
});
