/**
 * Files whose makers have few rights: an umask that leaves none, another user, a program that gives
 * its rights away between two commits.
 *
 * @module
 */
import assert from "node:assert/strict";
import { chmodSync, chownSync, mkdirSync, readdirSync, statSync } from "node:fs";
import process from "node:process";
import { test } from "node:test";
import { Child, Folder } from "./support.ts";
import { runtimes } from "./runtimes.ts";

const timeout = 60_000;
const skip = process.getuid?.() !== 0 && "only root can give its rights away and take them back";
const nobody = 65534;

/** Commits of every kind in a folder: what each came to, and the heap stays open. */
async function live(child: Child, folder: string, options: object = {}): Promise<string[]> {
  return await child.run(
    async ({ perm, state }, folder, options) => {
      const told: string[] = [];
      const tell = async (name: string, action: () => unknown) => {
        try {
          await action();
          told.push(`${name}: done`);
        } catch (error) {
          if (!(error instanceof perm.PermError)) throw error;
          told.push(`${name}: ${error.code}: ${error.message}`);
        }
      };
      const change = () => state.words.fill(state.value = (state.value ?? 0) + 1);
      state.live = async () => {
        await tell("open", () => {
          if (state.heap !== undefined) return;
          const files = options.shared ? {} : { backup: `${folder}/b` };
          state.heap = perm.Heap.open({
            file: `${folder}/a`,
            size: 8 << 20,
            ...files,
            ...options,
          });
          if (state.heap.root === 0) state.heap.root = state.heap.calloc(1, 4 << 20);
          state.words = state.heap.view(Float64Array, state.heap.root, 1 << 19);
          state.value = state.words[0];
        });
        if (state.heap === undefined) return;
        const { heap } = state;
        for (let round = 0; round < 3; round++) await tell("base", () => (change(), heap.flush()));
        await tell("record", () => (state.words[0] = ++state.value, heap.flush()));
        await tell("async", () => (state.words[0] = ++state.value, heap.flushAsync()));
        if (options.shared) return;
        await tell("backup", () => (change(), heap.backup()));
        await tell("restore", () => (heap.restore(), state.value = state.words[0]));
        await tell("copy", () => perm.Image.copy(`${folder}/a`, `${folder}/c`, { replace: true }));
        await tell("verify", () => perm.Image.verify(`${folder}/a`));
        await tell("last", () => heap.flush());
      };
      await state.live();
      return told;
    },
    folder,
    options,
  );
}

/** Opens the files of a folder in each way: what came of it. */
function outcomes(child: Child, folder: string, shared: boolean): Promise<string[]> {
  return child.run(
    ({ perm }, folder, shared) => {
      const options = shared ? { shared } : {};
      const ways: [string, () => ReturnType<typeof perm.mopen>][] = [
        ["r", () => perm.mopen(`${folder}/a`, "r", undefined, options)],
        ["r+", () => perm.mopen(`${folder}/a`, "r+", undefined, options)],
        ["open", () => perm.Heap.open({ file: `${folder}/a`, size: 1 << 20, ...options })],
      ];
      if (!shared) {
        ways.push(["copy", () => {
          perm.Image.copy(`${folder}/a`, `${folder}/b`, { replace: true });
          return perm.mopen(`${folder}/b`, "r");
        }]);
      }
      return ways.map(([name, open]) => {
        try {
          const heap = open();
          try {
            return `${name}: ${heap.view(Float64Array, heap.root, 1)[0]}`;
          } finally {
            heap.close();
          }
        } catch (error) {
          if (!(error instanceof perm.PermError)) throw error;
          return `${name}: ${error.code}: ${error.message}`;
        }
      });
    },
    folder,
    shared,
  );
}

/** From here on the child is that user, to files; user 0 has all rights again. */
function become(child: Child, user: number): Promise<void> {
  return child.run(({ perm }, user) => {
    // Loads the library while it can be read.
    perm.Heap.open({ size: 1 << 17 }).close();
    if (user === 0) process.seteuid!(0), process.setegid!(0);
    else process.setegid!(user), process.seteuid!(user);
  }, user);
}

/** Nobody's file, said so that one can act on it. */
const forbidden = /^[\w+]+: PERMISSION: .*"\/.*": this process may not do that \(EACCES\)$/;

for (const runtime of runtimes) {
  for (const shared of [false, true]) {
    const kind = shared ? "a shared heap" : "a heap";
    test(`${kind} made under ${runtime} with umask 0777 lives, and is its maker's and root's`, {
      timeout,
      skip,
    }, async () => {
      for (const user of [0, nobody]) {
        using folder = new Folder();
        chmodSync(folder.path, 0o755);
        const place = folder.file("place");
        mkdirSync(place);
        chownSync(place, user, user);
        await using maker = new Child(runtime);
        await become(maker, user);
        await maker.run(() => void process.umask(0o777));
        const told = await live(maker, place, shared ? { shared } : {});
        assert.ok(told.length >= 6, told.join());
        for (const each of told) {
          // Who opens a file by its name again is another opener, this process or not.
          if (user !== 0 && /^(copy|verify)/.test(each)) assert.match(each, forbidden);
          else assert.match(each, /: done$/);
        }
        const value = await maker.run(({ state }) => (state.heap.close(), state.value));
        assert.equal(await maker.end(), "exit 0");
        for (const name of readdirSync(place)) {
          assert.equal(statSync(`${place}/${name}`).mode & 0o777, 0, name);
        }
        await using root = new Child(runtime);
        for (const each of await outcomes(root, place, shared)) {
          assert.equal(each.slice(each.indexOf(" ") + 1), String(value), each);
        }
        await using other = new Child(runtime);
        await become(other, nobody);
        for (const each of await outcomes(other, place, shared)) assert.match(each, forbidden);
      }
    });

    test(`${kind} under ${runtime} whose program gave its rights away keeps what it acknowledged`, {
      timeout,
      skip,
    }, async () => {
      using folder = new Folder();
      chmodSync(folder.path, 0o755);
      await using child = new Child(runtime);
      const options = shared ? { shared } : {};
      for (const user of [0, nobody, 0]) {
        await become(child, user);
        for (const each of await live(child, folder.path, options)) {
          if (!each.endsWith(": done")) {
            assert.match(each, forbidden);
            assert.equal(user, nobody, each);
          }
        }
        const last = await child.run(({ state }) => {
          state.heap.check();
          return state.value;
        });
        if (shared) continue;
        await using reader = new Child(runtime);
        const [each] = await outcomes(reader, folder.path, false);
        // A commit that was refused is none.
        assert.equal(each, `r: ${last}`);
      }
      const value = await child.run(({ state }) => (state.heap.close(), state.value));
      assert.equal(await child.end(), "exit 0");
      await using reader = new Child(runtime);
      for (const each of await outcomes(reader, folder.path, shared)) {
        assert.equal(each.slice(each.indexOf(" ") + 1), String(value), each);
      }
    });
  }
}
