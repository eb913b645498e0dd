/**
 * libpermmalloc: what it adds to a program's start, for pools of 16 MiB to 1 TiB, and the time of
 * whole programs on it, beside the system's malloc and the allocators that Debian packages as
 * libjemalloc2, libmimalloc2.0 and libtcmalloc-minimal4, preloaded likewise.
 *
 * @module
 */

import { spawnSync } from "node:child_process";
import { mkdirSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import {
  line,
  type Measure,
  type Report,
  ROOT,
  type Samples,
  spread,
  takeTurns,
} from "../harness.ts";

const PEERS = {
  jemalloc: "libjemalloc.so.2",
  mimalloc: "libmimalloc.so.2",
  tcmalloc: "libtcmalloc_minimal.so.4",
};
const SIZES = ["16M", "256M", "4G", "64G", "1T"];
/** The bar: a start takes at most this much longer than without, whatever the pool's size. */
const LIMIT_MS = 2;

/** Programs that allocate much, each a shell command of a second or less. */
const PROGRAMS: Record<string, { needs: string; script: string }> = {
  "python3, objects": {
    needs: "python3",
    script: `PYTHONMALLOC=malloc python3 -c "
d = {str(i): [i, (i, str(i))] for i in range(300000)}
print(sum(len(k) for k in d))"`,
  },
  "perl, strings": {
    needs: "perl",
    script:
      `perl -e 'my %h; $h{$_ * 7919 % 1000003} = "x" x ($_ % 90) for 1..300000; print scalar keys %h'`,
  },
  "sqlite3 in memory": {
    needs: "sqlite3",
    script:
      `sqlite3 :memory: "create table t(a, b); with recursive n(x) as (select 1 union all select x + 1 from n where
      x < 150000) insert into t select x, hex(x * 7919 % 1000003) from n; create index i on t(b); select count(*) from t;"`,
  },
  "gcc -O2": { needs: "gcc", script: "gcc -O2 -c large.c -o /dev/null" },
  "bash, 100 forks": {
    needs: "bash",
    script: "for i in {1..100}; do x=$(echo $i); done; echo $x",
  },
};

function libraryPath(soname: string): string | undefined {
  const path = `${process.env.PATH}:/sbin:/usr/sbin`;
  const known = spawnSync("ldconfig", ["-p"], { env: { ...process.env, PATH: path } }).stdout;
  return known?.toString().split("\n").find((each) => each.trim().startsWith(`${soname} `))
    ?.split("=> ")[1]?.trim();
}

/** Milliseconds that a command takes. */
function time(command: string[], env: Record<string, string>, cwd: string): number {
  const before = performance.now();
  const { status, signal, stderr, error } = spawnSync(command[0], command.slice(1), {
    env: { PATH: process.env.PATH ?? "", ...env },
    cwd,
    stdio: ["ignore", "ignore", "pipe"],
  });
  const took = performance.now() - before;
  if (status !== 0) {
    throw new Error(
      `${command.join(" ")} (${env.LD_PRELOAD}) ended with ${error ?? status ?? signal}: ${stderr}`,
    );
  }
  return took;
}

function largeSource(): string {
  let text = "";
  for (let i = 0; i < 250; i++) {
    text += `int f${i}(int a, int b) { int t[8]; for (int i = 0; i < 8; i++) t[i] = a * i + b % ${
      i + 2
    };
      switch (a % 5) { case 0: return t[1] + b; case 1: return t[2] ^ ${i}; default: return t[a & 7]; } }\n`;
  }
  return text;
}

export const preload: Measure = {
  title: "Unmodified programs on libpermmalloc",
  roles: {},
  run({ quick, work }) {
    const library = process.env.PERM_PERMMALLOC ?? build();
    const directory = join(work, "pool");
    mkdirSync(directory);
    writeFileSync(join(work, "large.c"), largeSource());
    const ours = (size: string) => ({
      LD_PRELOAD: library,
      VMMALLOC_POOL_DIR: directory,
      VMMALLOC_POOL_SIZE: size,
    });
    const lines: Report["lines"] = [];
    const skipped: Report["skipped"] = [];

    const start = (env: Record<string, string>) => () => time(["/bin/true"], env, work);
    const starts = takeTurns(
      { without: start({}), ...Object.fromEntries(SIZES.map((size) => [size, start(ours(size))])) },
      quick ? 20 : 200,
    );
    lines.push(line(starts, "without", "ms"));
    for (const size of SIZES) {
      const name = `start with ${size}, more than without`;
      const more = starts[size].map((ms, round) => ms - starts.without[round]);
      lines.push(line({ [name]: more }, name, "ms", { limit: LIMIT_MS }));
    }

    const rivals: Record<string, Record<string, string>> = {};
    for (const [peer, soname] of Object.entries(PEERS)) {
      const path = libraryPath(soname);
      if (path === undefined) skipped.push({ what: peer, why: `${soname} is not installed` });
      else rivals[peer] = { LD_PRELOAD: path };
    }
    // All take minutes; a piece at a time is named in the environment, and "" is none.
    const wanted = process.env.PERM_BENCH_PROGRAMS?.split(",").filter((name) => name !== "");
    for (const [what, { needs, script }] of Object.entries(PROGRAMS)) {
      if (wanted !== undefined && !wanted.includes(needs)) continue;
      if (spawnSync("/bin/sh", ["-c", `command -v ${needs}`]).status !== 0) {
        skipped.push({ what, why: `${needs} is not installed` });
        continue;
      }
      const contestant = (env: Record<string, string>) => () =>
        time(["/bin/bash", "-c", script], env, work);
      const samples: Samples = {};
      const turns = takeTurns(
        Object.fromEntries(
          Object.entries({ system: {}, ours: ours("1G"), ...rivals }).map(([name, env]) => [
            name,
            contestant(env),
          ]),
        ),
        quick ? 3 : 15,
      );
      for (const [name, times] of Object.entries(turns)) samples[`${what}: ${name}`] = times;
      const names = Object.keys(samples);
      const best = names.filter((name) => !name.endsWith(": ours"))
        .reduce((a, b) => spread(samples[a]).median <= spread(samples[b]).median ? a : b);
      for (const name of names) {
        lines.push(line(samples, name, "ms", name.endsWith(": ours") ? { to: best } : {}));
      }
    }
    const notes = [
      `The pool's file system is of type 0x${statfsSync(directory).type.toString(16)}.`,
    ];
    return Promise.resolve([{ measure: "preload", runtime: "native", lines, skipped, notes }]);
  },
};

function build(): string {
  const zig = join(ROOT, "node_modules/.bin/zig");
  const prefix = join(ROOT, "zig/zig-out/preload");
  const done = spawnSync(zig, ["build", "permmalloc", "--prefix", prefix], {
    cwd: join(ROOT, "zig"),
    encoding: "utf8",
  });
  if (done.status !== 0) throw new Error(`zig build permmalloc failed: ${done.stderr}`);
  return join(prefix, "lib/libpermmalloc.so");
}
