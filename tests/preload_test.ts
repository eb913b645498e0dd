/**
 * libpermmalloc by a program of its own tasks, under glibc and musl: what C and POSIX say of malloc,
 * threads, fork in each mode, memory that ends, wrong pointers, and what bad settings do.
 *
 * @module
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { loopKinds, mountLoop, mountTmpfs, refusesLoop, refusesMounts } from "./mounts.ts";
import {
  lacks,
  library,
  type Outcome,
  outcome,
  pooled,
  program,
  targets,
} from "./preload/preload.ts";
import { environmentWith, repository } from "./runtimes.ts";
import { Folder } from "./support.ts";

const timeout = 120_000;
const noMounts = refusesMounts();
const noZig = !existsSync(`${repository}node_modules/.bin/zig`) && "zig is not installed";
const isOther = process.arch !== "x64" && "the library is built for x86-64";
const unable = noZig || isOther;
const [glibc] = targets;

/** Asserts that a task ended well and printed nothing but that. */
function well(result: Outcome, printed = "ok\n"): void {
  assert.deepEqual(result, { code: 0, signal: null, out: printed, err: "" });
}

const programs = new Map<string, string>();

function compiled(target = glibc, linked = false): string {
  const key = `${target.name} ${linked}`;
  const path = programs.get(key) ?? program(target, linked);
  programs.set(key, path);
  return path;
}

for (const target of targets) {
  const skip = unable || lacks(target);
  const tasks = [
    "fork_in_handler",
    "fork_bare_thread",
    "rules",
    "threads",
    "dlopen",
    "foreign",
    "closed",
    "atfork",
    "descriptors",
  ];
  for (const task of tasks) {
    test(`${target.name}: ${task}`, { skip, timeout }, () => {
      using folder = new Folder();
      well(outcome([compiled(target), task], pooled(folder.path)));
      assert.deepEqual(folder.names(), []);
    });
  }

  for (const mode of ["1", "2", "3"]) {
    for (const task of ["fork", "fork_threads", "closed_threads"]) {
      test(`${target.name}: fork mode ${mode} keeps parent and child apart (${task})`, {
        skip,
        timeout,
      }, () => {
        using folder = new Folder();
        well(outcome([compiled(target), task], pooled(folder.path, { VMMALLOC_FORK: mode })));
        assert.deepEqual(folder.names(), []);
      });
    }
  }

  test(`${target.name}: a child's memory lies where its fork mode says`, { skip, timeout }, () => {
    using folder = new Folder();
    const old = "shared in the file, new shared in the file";
    const private_ = "private, new shared in another file";
    const copied = "shared in another file, new shared in its file";
    const gone = "private, new shared in the file";
    for (
      const [mode, task, child, parent] of [
        ["0", "fork_backing", old, old],
        ["1", "fork_backing", private_, gone],
        ["2", "fork_backing", copied, old],
        ["3", "fork_backing", copied, old],
        // A parent with several threads makes no copy beforehand.
        ["1", "fork_backing_threads", private_, gone],
        ["2", "fork_backing_threads", copied, gone],
        ["3", "fork_backing_threads", copied, gone],
      ]
    ) {
      const result = outcome(
        [compiled(target), task],
        pooled(folder.path, { VMMALLOC_FORK: mode }),
      );
      well(result, `child: old ${child}\nparent: old ${parent}\nok\n`);
    }
  });

  test(
    `${target.name}: programs start others by vfork, system and popen`,
    { skip, timeout },
    () => {
      using folder = new Folder();
      for (const mode of ["0", "1", "2"]) {
        const result = outcome(
          [compiled(target), "exec"],
          pooled(folder.path, { VMMALLOC_FORK: mode }),
        );
        well(result, "ok\n".repeat(21));
      }
    },
  );

  test(
    `${target.name}: memory lies in the pool's file, linked or preloaded`,
    { skip, timeout },
    () => {
      using folder = new Folder();
      const place = new RegExp(` rw-s .* ${folder.path}/[^ ]* \\(deleted\\)\nok\n$`);
      assert.match(outcome([compiled(target), "where"], pooled(folder.path)).out, place);
      const linked = outcome(
        [compiled(target, true), "where"],
        pooled(folder.path, { LD_PRELOAD: undefined }),
      );
      assert.match(linked.out, place);
      assert.equal(linked.err, "");
    },
  );

  for (
    const [task, mounts] of [
      ["child_without_rights", process.getuid?.() !== 0 && "only root can give up its rights"],
      ["child_without_directory", false],
      ["child_without_descriptors", false],
      ["closed_descriptors", false],
      ["given_back_without_directory", false],
    ] as const
  ) {
    test(`${target.name}: more memory is had where no file can be made (${task})`, {
      skip: skip || mounts,
      timeout,
    }, () => {
      using folder = new Folder();
      for (const mode of ["1", "3"]) {
        mkdirSync(folder.file("pool"), { recursive: true, mode: 0o700 });
        well(
          outcome([compiled(target), task], pooled(folder.file("pool"), { VMMALLOC_FORK: mode })),
        );
      }
    });
  }

  test(`${target.name}: a pool's file that had to have a name has none`, { skip, timeout }, () => {
    using folder = new Folder();
    const { code, out, err } = outcome([compiled(target), "named"], pooled(folder.path));
    assert.match(
      out,
      new RegExp(` rw-s .* ${folder.path}/\\.permmalloc-[0-9a-f]{16} \\(deleted\\)\nok\n$`),
    );
    assert.deepEqual([code, err, folder.names()], [0, "", []]);
  });

  for (
    const [task, line] of [
      ["free_twice", /^libpermmalloc: free\(\): 0x[0-9a-f]+ is free already; stopping\n$/],
      [
        "free_twice_ignored",
        /^libpermmalloc: free\(\): 0x[0-9a-f]+ is free already; stopping\n$/,
      ],
      ["free_after_realloc", /^libpermmalloc: free\(\): 0x[0-9a-f]+ is free already; stopping\n$/],
      ["free_large_twice", /^libpermmalloc: free\(\): 0x[0-9a-f]+ is free already; stopping\n$/],
      [
        "free_inside",
        /^libpermmalloc: free\(\): 0x[0-9a-f]+ is not the beginning of a block; stopping\n$/,
      ],
      [
        "free_stack",
        /^libpermmalloc: free\(\): 0x[0-9a-f]+ is no block that malloc gave out; stopping\n$/,
      ],
      [
        "free_wild",
        /^libpermmalloc: free\(\): 0x123456789000 is no block that malloc gave out; stopping\n$/,
      ],
      ["realloc_freed", /^libpermmalloc: realloc\(\): 0x[0-9a-f]+ is free already; stopping\n$/],
      [
        "size_wild",
        /^libpermmalloc: malloc_usable_size\(\): 0x4000 is no block that malloc gave out; stopping\n$/,
      ],
    ] as const
  ) {
    test(`${target.name}: ${task} ends the program with one line`, { skip, timeout }, () => {
      using folder = new Folder();
      const result = outcome([compiled(target), task], pooled(folder.path));
      assert.match(result.err, line);
      assert.deepEqual([result.out, result.signal ?? result.code], ["", "SIGABRT"]);
    });
  }

  test(
    `${target.name}: a library that was loaded late is never unloaded`,
    { skip, timeout },
    () => {
      using folder = new Folder();
      const settings = { LD_PRELOAD: undefined, PLUGIN: library() };
      well(outcome([compiled(target), "plugin"], pooled(folder.path, settings)));
      assert.deepEqual(folder.names(), []);
    },
  );

  test(`${target.name}: a bad setting is one line, and the program runs on the system's malloc`, {
    skip,
    timeout,
  }, () => {
    using folder = new Folder();
    writeFileSync(folder.file("file"), "");
    const cases: [Record<string, string | undefined>, RegExp][] = [
      [{ VMMALLOC_POOL_DIR: undefined }, /VMMALLOC_POOL_DIR is "": name a directory/],
      [{ VMMALLOC_POOL_DIR: "" }, /VMMALLOC_POOL_DIR is "": name a directory/],
      [
        { VMMALLOC_POOL_DIR: folder.file("none") },
        /in ".*none": no file can be made in it, no such file/,
      ],
      [
        { VMMALLOC_POOL_DIR: folder.file("file") },
        /in ".*file": no file can be made in it, a part of the path/,
      ],
      [
        { VMMALLOC_POOL_DIR: "/" + "x".repeat(5000) },
        /VMMALLOC_POOL_DIR is "\/xxx.*less than 4096 bytes/,
      ],
      [{ VMMALLOC_POOL_SIZE: "much" }, /VMMALLOC_POOL_SIZE is "much": give a number of bytes/],
      [{ VMMALLOC_POOL_SIZE: "" }, /VMMALLOC_POOL_SIZE is ""/],
      [{ VMMALLOC_POOL_SIZE: "14679040" }, /VMMALLOC_POOL_SIZE is "14679040"/],
      [{ VMMALLOC_POOL_SIZE: "9T" }, /VMMALLOC_POOL_SIZE is "9T"/],
      [{ VMMALLOC_POOL_SIZE: "-1" }, /VMMALLOC_POOL_SIZE is "-1"/],
      [{ VMMALLOC_POOL_SIZE: "99999999999999999999999" }, /VMMALLOC_POOL_SIZE is "9{23}"/],
      [{ VMMALLOC_FORK: "4" }, /VMMALLOC_FORK is "4": give 0, 1, 2 or 3/],
      [{ VMMALLOC_LOG_LEVEL: "loud" }, /VMMALLOC_LOG_LEVEL is "loud"/],
      [{ VMMALLOC_LOG_STATS: "yes" }, /VMMALLOC_LOG_STATS is "yes": give 0 or 1/],
      [
        { VMMALLOC_LOG_FILE: "/nonexistent/log" },
        /VMMALLOC_LOG_FILE is "\/nonexistent\/log": it cannot be written to/,
      ],
    ];
    for (const [settings, line] of cases) {
      const { code, out, err } = outcome(
        [compiled(target), "dlopen"],
        pooled(folder.path, settings),
      );
      const whole =
        `^libpermmalloc: .*${line.source}.*; the program runs on the system's malloc\n$`;
      assert.match(err, new RegExp(whole));
      assert.deepEqual([code, out], [0, "ok\n"]);
    }
  });
}

test("a pool of any size opens, and the header knows the least", {
  skip: unable || lacks(glibc),
  timeout,
}, () => {
  using folder = new Folder();
  for (const size of ["14M", "16m", "1G", "1T", "8T", "14680064", "20480K", "1GiB"]) {
    well(outcome([compiled(), "nothing"], pooled(folder.path, { VMMALLOC_POOL_SIZE: size })));
  }
  well(outcome([compiled(), "nothing"], pooled(folder.path, { VMMALLOC_POOL_SIZE: undefined })));
  const { out } = outcome([compiled(), "minimum"], pooled(folder.path));
  assert.equal(out, `${14 << 20}\nok\n`);
});

test("the pool is found from a relative directory after the program changed its own", {
  skip: unable || lacks(glibc),
  timeout,
}, () => {
  using folder = new Folder();
  mkdirSync(folder.file("pool"));
  const settings = pooled("pool", { VMMALLOC_LOG_FILE: "log", VMMALLOC_LOG_LEVEL: "2" });
  // The shell changes its directory, forks and grows beyond its first memory.
  const script = `cd /; x=$(printf '%05000000d' 1); (cd /usr; y=$x$x; echo \${#y})`;
  const result = outcome(["/bin/bash", "-c", script], settings, { cwd: folder.path });
  assert.deepEqual([result.out, result.err], ["10000000\n", ""]);
  assert.match(
    readFileSync(folder.file("log"), "utf8"),
    /pool of 67108864 bytes in .*\/pool, fork mode 1/,
  );
});

test("a directory that cannot be found from where the program stands is one line", {
  skip: unable || lacks(glibc),
  timeout,
}, () => {
  using folder = new Folder();
  const run = (settings: string) =>
    outcome(
      [
        "/bin/bash",
        "-c",
        `mkdir d; cd d; rmdir ../d; LD_PRELOAD=$0 ${settings} exec "$1" nothing`,
        library(),
        compiled(),
      ],
      { VMMALLOC_POOL_SIZE: "64M" },
      { cwd: folder.path },
    );
  const line = (name: string, value: string) =>
    new RegExp(
      `^libpermmalloc: ${name} is "${value}": the working directory .* begins with /; the program runs on .*\\n$`,
    );
  const pool = run("VMMALLOC_POOL_DIR=tmp");
  assert.deepEqual([pool.code, pool.out], [0, "ok\n"]);
  assert.match(pool.err, line("VMMALLOC_POOL_DIR", "tmp"));
  const log = run(`VMMALLOC_POOL_DIR=${folder.path} VMMALLOC_LOG_FILE=log`);
  assert.deepEqual([log.code, log.out], [0, "ok\n"]);
  assert.match(log.err, line("VMMALLOC_LOG_FILE", "log"));
  assert.deepEqual(run(`VMMALLOC_POOL_DIR=${folder.path}`).err, "");
});

test("statistics count what a program has", { skip: unable || lacks(glibc), timeout }, () => {
  using folder = new Folder();
  const live = (task: string) => {
    const { err } = outcome(
      [compiled(), task],
      pooled(folder.path, { VMMALLOC_LOG_STATS: "1" }),
    );
    const numbers =
      /^libpermmalloc: \[\d+\] (\d+) blocks of (\d+) bytes live in (\d+) bytes of .*; the pool grew to (\d+) bytes of 67108864, 0 of them given back, in 1 file\(s\)\n$/
        .exec(err);
    assert.ok(numbers, err);
    return numbers.slice(1).map(Number);
  };
  const [blocks, bytes, used] = live("nothing");
  const [moreBlocks, moreBytes, moreUsed, pool] = live("kept");
  assert.equal(moreBlocks - blocks, 1000);
  // Blocks of 1,000 bytes have 1,024.
  assert.equal(moreBytes - bytes, 1_024_000);
  assert.ok(moreUsed - used >= 1_000_000 && moreUsed - used < 1_200_000);
  assert.ok(pool >= moreUsed);
});

test("the log goes to a file for each process, with statistics at the end", {
  skip: unable || lacks(glibc),
  timeout,
}, () => {
  using folder = new Folder();
  mkdirSync(folder.file("pool"));
  const settings = pooled(folder.file("pool"), {
    VMMALLOC_LOG_FILE: folder.file("log-"),
    VMMALLOC_LOG_LEVEL: "3",
    VMMALLOC_LOG_STATS: "1",
  });
  well(outcome([compiled(), "fork"], settings));
  const logs = folder.names().filter((name) => name.startsWith("log-"));
  // Children go on in their parent's log.
  assert.equal(logs.length, 1);
  const text = readFileSync(folder.file(logs[0]), "utf8");
  const id = logs[0].slice("log-".length);
  assert.match(text, new RegExp(`^libpermmalloc: \\[${id}\\] pool of 67108864 bytes in `));
  assert.match(text, /fork: private/);
  assert.match(
    text,
    new RegExp(`libpermmalloc: \\[${id}\\] \\d+ blocks of \\d+ bytes live in .*\\n$`),
  );
});

test("a program with rights of its own does not heed the environment", {
  skip: unable || lacks(glibc) || (process.getuid?.() !== 0 && "only root can make such a program"),
  timeout,
}, () => {
  using folder = new Folder();
  const path = folder.file("privileged");
  outcome(["/bin/cp", compiled(glibc, true), path]);
  outcome(["/bin/chown", "65534", path]);
  outcome(["/bin/chmod", "4755", path, folder.path]);
  outcome(["/bin/chmod", "755", folder.path]);
  const settings = pooled(folder.path, {
    LD_PRELOAD: undefined,
    VMMALLOC_LOG_FILE: folder.file("log"),
  });
  const plain = outcome([path, "where"], settings);
  assert.equal(plain.err, "");
  assert.doesNotMatch(plain.out, /rw-s/);
  assert.ok(!existsSync(folder.file("log")));
});

test("who forks waits for no stream whose reader waits for memory", {
  skip: unable || lacks(glibc),
  timeout,
}, () => {
  using folder = new Folder();
  for (const mode of ["1", "2"]) {
    const settings = pooled(folder.path, { VMMALLOC_FORK: mode });
    well(outcome([compiled(), "fork_stdio"], settings, { timeout: 60_000 }));
  }
});

// ------------------------------------------------------------------ a file system that is full

for (const target of targets) {
  const skip = unable || lacks(target) || noMounts;

  test(`${target.name}: a full file system is ENOMEM, and freed memory serves again`, {
    skip,
    timeout,
  }, () => {
    using folder = new Folder();
    using disk = mountTmpfs(folder.file("disk"), 64 << 20);
    const before = disk.free;
    const result = outcome(
      [compiled(target), "full"],
      pooled(disk.path, { VMMALLOC_POOL_SIZE: "1G", VMMALLOC_LOG_LEVEL: "1" }),
    );
    assert.deepEqual([result.code, result.signal], [0, null]);
    // At level 1 the log tells of what failed, and of nothing else.
    assert.match(
      result.err,
      /^(libpermmalloc: \[\d+\] no room for \d+ bytes more in .*: no space left on the file system\n)+$/,
    );
    const blocks = Number(result.out.split("\n")[0]);
    assert.ok(blocks * 131_072 > 0.8 * before && blocks * 100_000 < before, `${blocks} blocks`);
    assert.deepEqual(readdirSync(disk.path), []);
    assert.equal(disk.free, before);
  });

  test(`${target.name}: memory that was given back is ENOMEM when others took the room`, {
    skip,
    timeout,
  }, async () => {
    using folder = new Folder();
    using disk = mountTmpfs(folder.file("disk"), 192 << 20);
    const child = spawn(compiled(target), ["full_later"], {
      env: environmentWith(pooled(disk.path)),
      stdio: ["pipe", "pipe", "inherit"],
    });
    const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
    const ended = once(child, "exit");
    try {
      assert.equal((await lines.next()).value, "freed");
      // Of 120 MiB a good part is back by now; the rest is for the next block.
      assert.ok(disk.free > (192 - 100) << 20, `${disk.free} bytes are free`);
      disk.fill(0);
      child.stdin.write("x");
      assert.equal((await lines.next()).value, "refused");
      disk.empty();
      child.stdin.write("x");
      assert.equal((await lines.next()).value, "ok");
      assert.deepEqual(await ended, [0, null]);
    } finally {
      child.kill("SIGKILL");
    }
  });
}

test("what is refused takes no room in memory", {
  skip: unable || lacks(glibc) || noMounts,
  timeout,
}, () => {
  using folder = new Folder();
  using disk = mountTmpfs(folder.file("disk"), 64 << 20);
  well(outcome([compiled(), "refused"], pooled(disk.path)));
});

for (const kind of loopKinds) {
  const noDisk = refusesLoop(kind);
  test(`on a full ${kind} what has room can be stored to again`, {
    skip: unable || lacks(glibc) || noDisk,
    timeout,
  }, () => {
    using folder = new Folder();
    using disk = mountLoop(folder.file("disk"), kind);
    outcome(["fallocate", "-l", `${disk.free - (64 << 20)}`, `${disk.path}/others`]);
    well(outcome([compiled(), "full_again"], pooled(disk.path)));
  });

  test(`what is refused takes no room on ${kind}`, {
    skip: unable || lacks(glibc) || noDisk,
    timeout,
  }, () => {
    using folder = new Folder();
    using disk = mountLoop(folder.file("disk"), kind);
    outcome(["fallocate", "-l", `${disk.free - (160 << 20)}`, `${disk.path}/others`]);
    well(outcome([compiled(), "refused"], pooled(disk.path)));
  });
}

/** Runs a task that says when it has freed its memory, does something, and gives what it says then. */
async function afterFreeing(
  task: string,
  settings: Record<string, string | undefined>,
  then: () => void,
): Promise<(string | undefined)[]> {
  const env = environmentWith(settings);
  const child = spawn(compiled(), [task], { env, stdio: ["pipe", "pipe", "inherit"] });
  const ended = once(child, "exit");
  try {
    const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
    assert.equal((await lines.next()).value, "freed");
    then();
    child.stdin.write("x");
    const said = [(await lines.next()).value, (await lines.next()).value];
    assert.deepEqual(await ended, [0, null]);
    return said;
  } finally {
    child.kill("SIGKILL");
  }
}

test("a copy for a child takes room for what is in use", {
  skip: unable || lacks(glibc) || noMounts,
  timeout,
}, async () => {
  using folder = new Folder();
  using disk = mountTmpfs(folder.file("disk"), 256 << 20);
  const settings = pooled(disk.path, { VMMALLOC_FORK: "2" });
  const left = () => {
    // The parent freed 116 MiB, of which it keeps 64 at most.
    disk.fill(110 << 20);
  };
  assert.deepEqual(await afterFreeing("fork_later", settings, left), ["41", "ok"]);
});

test("a private child needs no room for what was given back, its file open or closed", {
  skip: unable || lacks(glibc) || noMounts,
  timeout,
}, async () => {
  for (const closing of [undefined, "1"]) {
    using folder = new Folder();
    using disk = mountTmpfs(folder.file("disk"), 256 << 20);
    const settings = pooled(disk.path, { VMMALLOC_FORK: "1", CLOSE_ALL: closing });
    const left = () => {
      disk.fill(0);
    };
    assert.deepEqual(await afterFreeing("fork_later", settings, left), ["41", "ok"]);
  }
});

test("a pool's room is free again after kill -9", {
  skip: unable || lacks(glibc) || noMounts,
  timeout,
}, () => {
  using folder = new Folder();
  using disk = mountTmpfs(folder.file("disk"), 64 << 20);
  const before = disk.free;
  const result = outcome([compiled(), "kill"], pooled(disk.path));
  assert.deepEqual([result.signal, result.err], ["SIGKILL", ""]);
  assert.deepEqual(readdirSync(disk.path), []);
  assert.equal(disk.free, before);
});

for (const target of targets) {
  test(`${target.name}: a child that gets no copy of the pool ends, or goes on privately`, {
    skip: unable || lacks(target) || noMounts,
    timeout,
  }, () => {
    using folder = new Folder();
    using disk = mountTmpfs(folder.file("disk"), 32 << 20);
    for (const task of ["fork_full", "fork_full_threads"]) {
      const run = (mode: string) =>
        outcome([compiled(target), task], pooled(disk.path, { VMMALLOC_FORK: mode }));
      well(run("1"), "41\nok\n");
      well(run("3"), "41\nok\n");
      const copy = run("2");
      assert.equal(copy.out, "127\nok\n");
      assert.match(
        copy.err,
        /^libpermmalloc: a forked child gets no copy of the pool in ".*" \(VMMALLOC_FORK=2\): no space left .*; the child ends\n$/,
      );
    }
  });
}

test("a directory that refuses files is one line", {
  skip: unable || lacks(glibc) || noMounts,
  timeout,
}, () => {
  using folder = new Folder();
  using disk = mountTmpfs(folder.file("disk"), 1 << 20);
  disk.remount("ro");
  const readOnly = outcome([compiled(), "nothing"], pooled(disk.path));
  assert.match(
    readOnly.err,
    /no file can be made in it, the file system is read-only; the program runs on the system's malloc\n$/,
  );
  assert.deepEqual([readOnly.code, readOnly.out], [0, "ok\n"]);
  disk.remount("rw");
  disk.fill(0);
  const full = outcome([compiled(), "nothing"], pooled(disk.path));
  assert.match(
    full.err,
    /^libpermmalloc: cannot open a pool .*; the program runs on the system's malloc\n$/,
  );
  assert.deepEqual([full.code, full.out], [0, "ok\n"]);
  // Nothing of it stays in the program.
  const { out } = outcome([compiled(), "footprint"], pooled(disk.path));
  assert.equal(out, outcome([compiled(), "footprint"]).out);
  assert.match(out, /less than 4 GiB/);
});

test("limits of the process are respected", { skip: unable || lacks(glibc), timeout }, () => {
  using folder = new Folder();
  // Address space for a TiB is not to be had; a file beyond its limit would be a signal.
  const preloaded = (limit: string, task: string) =>
    outcome([
      "/bin/bash",
      "-c",
      `ulimit ${limit}; LD_PRELOAD=$PRELOAD exec "$0" ${task}`,
      compiled(),
    ], {
      ...pooled(folder.path),
      LD_PRELOAD: undefined,
      PRELOAD: library(),
    });
  well(preloaded("-v 8000000", "rules"));
  const limited = preloaded("-f 40000", "full");
  assert.deepEqual([limited.code, limited.signal, limited.err], [0, null, ""]);
  assert.ok(Number(limited.out.split("\n")[0]) < 410);
  well(preloaded("-n 16", "rules"));
  // What a program starts has no descriptor of the pool's, where it could be moved up and where not.
  for (const limit of ["-n 16", "-n 256"]) {
    const started = (preload: string) =>
      outcome([
        "/bin/bash",
        "-c",
        `ulimit ${limit}; export LD_PRELOAD=${preload}; exec /bin/bash -c 'LD_PRELOAD= exec "$0" footprint' "$0"`,
        compiled(),
      ], { ...pooled(folder.path), LD_PRELOAD: undefined });
    assert.deepEqual(started(library()), started(""));
  }
  const full = outcome([compiled(), "descriptors"], pooled(folder.path, { VMMALLOC_FORK: "2" }));
  assert.match(
    full.err,
    /gets no copy of the pool in ".*" .*; raise its limit \(ulimit -n\); the child ends\n/,
  );
  // With less address space than tables are made for at first there is a small pool, or none.
  for (const kib of [60_000, 80_000, 100_000, 120_000, 160_000, 200_000]) {
    const { signal } = preloaded(`-v ${kib}`, "nothing");
    assert.equal(signal, null, `${kib} KiB of address space`);
  }
  // Where there is a pool, there is address space left for what a program needs besides.
  for (const kib of [160_000, 250_000, 400_000, 600_000, 1_000_000, 2_200_000, 4_400_000]) {
    const listed = outcome([
      "/bin/bash",
      "-c",
      `ulimit -v ${kib}; LD_PRELOAD=$PRELOAD exec /bin/ls /`,
    ], {
      ...pooled(folder.path),
      LD_PRELOAD: undefined,
      PRELOAD: library(),
    });
    assert.deepEqual([listed.code, listed.signal, listed.err], [0, null, ""], `ls with ${kib} KiB`);
  }
});
