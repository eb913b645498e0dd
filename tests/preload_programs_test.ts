/**
 * Unmodified programs on libpermmalloc: what they print is compared byte by byte with a run without it.
 * The ordinary run takes a small part of the work; PERM_PRELOAD=all all of it, the programs' own test
 * modules too. A program that is not installed is skipped, and the reason says so.
 *
 * @module
 */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import process from "node:process";
import { test } from "node:test";
import { type Outcome, outcome, pooled } from "./preload/preload.ts";
import { command, installed, repository, thisRuntime } from "./runtimes.ts";
import { Folder } from "./support.ts";

const all = process.env.PERM_PRELOAD === "all";
const timeout = 900_000;
const unable = !existsSync(`${repository}node_modules/.bin/zig`)
  ? "zig is not installed"
  : process.arch !== "x64" &&
    "the library is built for x86-64";

const setup = "deno task setup --programs";

/** Numbers of work: the ordinary run's, and that of PERM_PRELOAD=all. */
const amount = (ordinary: number, whole: number) => all ? whole : ordinary;

interface Program {
  name: string;
  /** Programs that must be installed. */
  needs: string[];
  /** A command, run in a new folder. */
  run: (folder: string) => string[];
  env?: Record<string, string>;
  input?: string;
  /** Only with PERM_PRELOAD=all. */
  long?: boolean;
}

const shell = (script: string) => () => ["/bin/bash", "-c", script];

const python = `
import json, os, re, subprocess, sys, threading
def work(n):
    data = {"n": n, "list": list(range(n % 300)), "text": "x" * n}
    assert json.loads(json.dumps(data)) == data
    return len(re.findall(r"x+", data["text"]))
total = []
threads = [threading.Thread(target=lambda: total.extend(work(n) for n in range(${
  amount(200, 2000)
}))) for _ in range(8)]
for t in threads: t.start()
for t in threads: t.join()
print(len(total), sum(total))
big = [bytes([i % 256]) * 1000 for i in range(20000)]
for i in range(${amount(5, 12)}):
    expected = sum(len(b) + 1 for b in big) % 100
    pid = os.fork()
    if pid == 0:
        big = [b[::-1] + b"y" for b in big]
        os._exit(sum(len(b) for b in big) % 100)
    assert os.waitpid(pid, 0)[1] >> 8 == expected, "child"
    big[i] = b"parent"
assert big[100] == bytes([100]) * 1000
print(subprocess.check_output(["/bin/echo", "from a child"]))
import multiprocessing
if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(3) as pool:
        print(sum(pool.map(work, range(${amount(100, 2000)}))))
`;

const sql = `
create table t(a integer primary key, b text, c real);
with recursive n(x) as (select 1 union all select x + 1 from n where x < ${amount(20_000, 400_000)})
insert into t select x, printf('%08x-%s', x * 2654435761 % 4294967296, substr('abcdefghijklmnop', x % 16)), x / 7.0 from n;
create index i on t(b);
select count(*), sum(a), min(b), max(b), total(c) from t where b > '8';
select substr(b, 1, 2) as k, count(*), group_concat(a % 10) from t where a % 97 = 0 group by k order by k;
delete from t where a % 3 = 0;
update t set b = b || b where a % 5 = 0;
vacuum;
pragma integrity_check;
select count(*), length(group_concat(b)) from t;
`;

/** C with many functions: the compilers' memory grows with it. */
function source(functions: number): string {
  let text = "#include <stdio.h>\n";
  for (let i = 0; i < functions; i++) {
    text +=
      `static int f${i}(int a, int b) { int t[8]; for (int i = 0; i < 8; i++) t[i] = a * i + b % ${
        i + 2
      };\n` +
      `  switch (a % 5) { case 0: return t[1] + b; case 1: return t[2] ^ ${i}; default: return ${
        i > 0 ? `f${i - 1}(b, a)` : "a"
      } + t[a & 7]; } }\n`;
  }
  return text + `int main(void) { printf("%d\\n", f${functions - 1}(3, 4)); return 0; }\n`;
}

const javascript = `
const words = new Map();
for (let i = 0; i < ${amount(200_000, 1_000_000)}; i++) {
  const word = ((i * 2654435761) >>> 0).toString(36).slice(0, 3);
  words.set(word, (words.get(word) ?? 0) + 1);
}
const text = JSON.stringify([...words].sort());
const { deflateRawSync, inflateRawSync } = await import("node:zlib");
const packed = deflateRawSync(Buffer.from(text));
const { spawnSync } = await import("node:child_process");
const { Worker } = await import("node:worker_threads");
console.log(words.size, text.length, packed.length, inflateRawSync(packed).toString() === text);
console.log(spawnSync("/bin/echo", ["child"]).stdout.toString());
`;

/** Runs a module of python3's own tests, and tells of each what came of it. */
const pythonTests = `
import sys, unittest
module, left_out = sys.argv[1], sys.argv[2:]
if module == "multiprocessing":
    # The module that says "fork" is left out by some installations; the tests themselves are not.
    import test._test_multiprocessing
    test._test_multiprocessing.install_tests_in_module_dict(globals(), "fork")

class Report(unittest.TestResult):
    lines = []
    def say(self, test, what):
        self.lines.append(f"{test.id()}: {what}")
    def addSuccess(self, test):
        self.say(test, "ok")
    def addError(self, test, error):
        self.say(test, f"error {error[0].__name__}")
    def addFailure(self, test, error):
        self.say(test, f"failure {error[0].__name__}")
    def addSkip(self, test, reason):
        self.say(test, f"skipped: {reason}")
    def addExpectedFailure(self, test, error):
        self.say(test, "failed as expected")
    def addUnexpectedSuccess(self, test):
        self.say(test, "succeeded unexpectedly")

def flat(suite):
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from flat(each)
        else:
            yield each

if __name__ == "__main__":
    load = unittest.defaultTestLoader
    suite = load.loadTestsFromModule(sys.modules["__main__"]) if module == "multiprocessing" \\
        else load.loadTestsFromName("test.test_" + module)
    tests = [each for each in flat(suite) if not each.id().endswith(tuple(left_out))]
    report = Report()
    unittest.TestSuite(tests).run(report)
    print("\\n".join(report.lines), len(tests), "tests", file=open("report", "w"))
`;

/** Modules of python3's own tests, and which of each are left out. */
const pythonModules: Record<string, string[]> = {
  json: [],
  re: [],
  threading: [],
  // Threads cannot be terminated: where a task begins before that test says so, it sleeps for ever.
  multiprocessing: ["WithThreadsTestPool.test_terminate"],
  sqlite3: [],
  ctypes: [],
  // Counts descriptors, of which there is one more: the pool's.
  subprocess: ["POSIXProcessTestCase.test_pass_fds_redirected"],
};

const git = `
set -e
export HOME=$PWD GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'
git init -q -b main one; cd one; git config user.name a; git config user.email a@example.org
git config gc.auto 0; git config maintenance.auto false
for i in $(seq ${amount(15, 150)}); do
  seq $i $((i * 50)) > file$((i % 20)); git add .; git commit -q -m "commit $i"
done
git branch side HEAD~5; git checkout -q side; echo side > side; git add .; git commit -q -m side
git merge -q -m merge main; git gc -q --aggressive 2>&1; git fsck --full --strict 2>&1; cd ..
git clone -q one two; git clone -q --no-local --depth 3 "file://$PWD/one" three; cd two
git log --format='%H %s' | md5sum; git rev-parse HEAD; git diff HEAD~3 --stat; git blame file1 | md5sum
git archive HEAD | md5sum; cd ../three; git log --oneline | wc -l
`;

const bash = `
for i in $(seq ${amount(40, 300)}); do x=$(echo $i | (read y; echo $((y * 2)))); done; echo $x
f() { local a=("$@"); echo \${#a[@]} | cat; }; f {1..5000}
(echo sub; (echo subsub; (exit 3); echo $?)) | sort
coproc cat; echo through >&\${COPROC[1]}; read line <&\${COPROC[0]}; echo $line
trap 'echo trapped' USR1; kill -USR1 $$; diff <(seq 5) <(seq 6);
exec {COPROC[1]}>&-; wait $COPROC_PID 2>/dev/null
declare -A m; for i in {1..${amount(3000, 60_000)}}; do m[k$i]=$i; done; echo \${#m[@]}
`;

const perl = `
my %h; for my $i (1 .. ${
  amount(30_000, 200_000)
}) { $h{sprintf "%x", $i * 2654435761 % 4294967296} = "v" x ($i % 50); }
my $n = 0; for my $k (sort keys %h) { $n = ($n * 31 + length($h{$k}) + ord $k) % 1000003; }
print scalar(keys %h), " $n\\n";
for my $i (1 .. ${
  amount(5, 12)
}) { my $p = fork; if (!$p) { $h{$_} .= "child" for keys %h; exit($i % 200); } waitpid $p, 0; $n += $? >> 8; }
print "$n ", scalar(grep { /child/ } values %h), "\\n"; print qx(echo from perl);
my $s = join ",", map { $_ ** 2 } 1 .. 20000; my @m = $s =~ /(\\d)\\1/g; print scalar(@m), "\\n";
`;

const programs: Program[] = [
  {
    name: "python3",
    needs: ["python3"],
    run: () => ["python3", "-c", python],
    env: { PYTHONMALLOC: "malloc", PYTHONHASHSEED: "0" },
  },
  { name: "perl", needs: ["perl"], run: () => ["perl", "-e", perl], env: { PERL_HASH_SEED: "0" } },
  { name: "bash with subshells and pipes", needs: ["bash"], run: shell(bash) },
  { name: "git", needs: ["git"], run: shell(git) },
  {
    name: "sqlite3's shell",
    needs: ["sqlite3"],
    run: () => ["sqlite3", "-batch", "file.db"],
    input: sql,
  },
  {
    name: "sort with threads",
    needs: ["sort", "seq"],
    run: shell(
      `seq ${amount(100_000, 1_000_000)} | awk '{print ($1 * 7919) % 1000003, $1}' > in; ` +
        `sort --parallel=2 -S 20M in | md5sum; sort --parallel=2 -k2n in | md5sum; sort -u -k1,1n --parallel=2 in | wc -l`,
    ),
  },
  {
    name: "gcc",
    needs: ["gcc"],
    run: (folder) => {
      writeFileSync(`${folder}/large.c`, source(amount(200, 2000)));
      return [
        "/bin/bash",
        "-c",
        "gcc -O2 large.c -o large && ./large && gcc -O1 -S -o - large.c | md5sum",
      ];
    },
  },
  {
    name: "zig cc",
    long: true,
    needs: [],
    run: (folder) => {
      writeFileSync(`${folder}/large.c`, source(1500));
      const zig = `${repository}node_modules/.bin/zig`;
      return [
        "/bin/bash",
        "-c",
        `ZIG_LOCAL_CACHE_DIR=$PWD/c ZIG_GLOBAL_CACHE_DIR=$PWD/g ${zig} cc -O2 -c large.c -o large.o && md5sum large.o`,
      ];
    },
  },
  { name: "node", needs: ["node"], run: () => ["node", "--input-type=module", "-e", javascript] },
  {
    name: "deno",
    needs: [],
    run: (folder) => {
      writeFileSync(`${folder}/work.mjs`, `import { Buffer } from "node:buffer";\n${javascript}`);
      return command("deno", `${folder}/work.mjs`);
    },
  },
  {
    name: "bun",
    needs: [],
    run: (folder) => {
      writeFileSync(`${folder}/work.mjs`, javascript);
      return command("bun", `${folder}/work.mjs`);
    },
  },
];

for (const [module, leftOut] of Object.entries(pythonModules)) {
  programs.push({
    name: `python3's own tests of ${module}`,
    needs: ["python3"],
    long: true,
    run: (folder) => {
      writeFileSync(`${folder}/run.py`, pythonTests);
      const script = 'python3 run.py "$@" > said 2>&1; cat report';
      return ["/bin/bash", "-c", script, "python3", module, ...leftOut];
    },
    env: { PYTHONMALLOC: "malloc" },
  });
}

function existsModule(name: string): boolean {
  return outcome(["python3", "-c", `import ${name}`]).code === 0;
}

/** Why a program cannot run here. */
function reason(program: Program): string | false {
  if (unable) return unable;
  if (thisRuntime !== "deno") return "what these programs print is compared under Deno";
  if (program.long && !all) return "only with PERM_PRELOAD=all";
  const missing = program.needs.filter((name) => installed(name) === undefined);
  if (missing.length > 0) return `${missing.join(", ")} is not installed: ${setup}`;
  if (program.name.includes("own tests") && !existsModule("test.test_json")) {
    return `python3's test modules are not installed: ${setup}`;
  }
  return false;
}

for (const program of programs) {
  test(`${program.name} prints the same`, { skip: reason(program), timeout }, () => {
    using folder = new Folder();
    mkdirSync(folder.file("pool"));
    const run = (env: Record<string, string | undefined>): Outcome => {
      const cwd = folder.file("work");
      // The same path for each run: it may be part of what is printed.
      outcome(["/bin/rm", "-rf", cwd]);
      mkdirSync(cwd);
      const result = outcome(program.run(cwd), { ...program.env, ...env }, {
        cwd,
        input: program.input,
        timeout,
      });
      return result;
    };
    // A test of python3's may fail on a machine by itself: then it must fail alike.
    const plain = run({});
    assert.equal(plain.code, 0, plain.err);
    assert.ok(plain.out.length > 0);
    for (const mode of all ? ["1", "3"] : ["1"]) {
      const log = folder.file(`log-${mode}`);
      const settings = { VMMALLOC_FORK: mode, VMMALLOC_LOG_FILE: log, VMMALLOC_LOG_LEVEL: "2" };
      assert.deepEqual(run(pooled(folder.file("pool"), settings)), plain);
      assert.match(readFileSync(log, "utf8"), /pool of 67108864 bytes/);
    }
  });
}

const redis = ["redis-server", "redis-benchmark", "redis-cli"];
const noRedis = redis.filter((name) => installed(name) === undefined);

test("redis-server serves redis-benchmark and saves in a forked child, as without", {
  skip: unable || (thisRuntime !== "deno" && "compared under Deno") ||
    (noRedis.length > 0 && `${noRedis.join(", ")} is not installed: ${setup}`),
  timeout,
}, () => {
  using folder = new Folder();
  mkdirSync(folder.file("pool"));
  const settings = pooled(folder.file("pool"), {
    VMMALLOC_LOG_FILE: folder.file("log"),
    VMMALLOC_LOG_STATS: "1",
  });
  const script = `
    LD_PRELOAD= ; LIBRARY=$1; cd ${folder.path}
    LD_PRELOAD=$LIBRARY redis-server --port 0 --unixsocket $PWD/socket --dir $PWD --save '' > server 2>&1 & server=$!
    trap 'kill $server' EXIT
    for i in $(seq 600); do [ -S socket ] && break; sleep 0.05; done
    redis-benchmark -s socket -n ${
    amount(3000, 30_000)
  } -c 20 -d 300 -q -r 20000 -t set,get,lpush,sadd,hset,lrange_100 > numbers 2>&1 || exit 1
    redis-cli -s socket set key "$(seq -s, 1000)" > /dev/null
    redis-cli -s socket bgsave; for i in $(seq 600); do redis-cli -s socket info persistence | grep -q bgsave_in_progress:0 && break; sleep 0.05; done
    redis-cli -s socket info persistence | grep -o 'last_bgsave_status:[a-z]*'
    redis-cli -s socket lrange mylist 0 5
    redis-cli -s socket get key | md5sum; trap - EXIT; kill $server; wait $server; echo $?; redis-check-rdb dump.rdb | grep -c 'RDB looks OK'
    rm -f dump.rdb socket`;
  const run = (library: string) =>
    outcome(["/bin/bash", "-c", script, "redis", library], { ...settings, LD_PRELOAD: undefined });
  const plain = run("");
  assert.equal(plain.code, 0, plain.err);
  assert.match(plain.out, /Background saving started\nlast_bgsave_status:ok\n[^]*\n0\n1\n$/);
  assert.deepEqual(run(settings.LD_PRELOAD!), plain);
  const live = readFileSync(folder.file("log"), "utf8").match(/(\d+) blocks of/);
  assert.ok(Number(live?.[1]) > 5_000, "the server's memory lies in the pool");
});
