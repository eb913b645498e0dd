/**
 * The command `deno task tune`: shows, applies and undoes the kernel settings for shared heaps.
 *
 * @module
 */
import process from "node:process";
import { parseArgs } from "node:util";
import { PermError, readSmallFile } from "../ffi/mod.ts";
import { apply, check, type Finding, type TuningReport, undo } from "./mod.ts";

const usage = `tune [--check | --apply | --undo] [--json] [--root DIR]

Kernel settings for shared heaps (mopen with { shared: true }). Private heaps, the default, need
none of them.

  --check     show the settings
  --apply     set them, and keep the former values until --undo or a restart of the system
  --undo      put back what was there before the first --apply
  --json      print one JSON object instead of text
  --root DIR  a folder that stands for /proc/sys
  --help      this text

Without a flag: --apply for root, else --check.
Exit code: 0 tuned (for --undo: put back), 1 not tuned, 2 error.
`;

type Action = "check" | "apply" | "undo";

process.exitCode = main(process.argv.slice(2));

function main(args: string[]): number {
  let isJson = args.includes("--json");
  try {
    const { values } = parseArgs({
      args,
      options: {
        check: { type: "boolean" },
        apply: { type: "boolean" },
        undo: { type: "boolean" },
        json: { type: "boolean", default: false },
        root: { type: "string" },
        help: { type: "boolean", short: "h" },
      },
    });
    if (values.help) {
      process.stdout.write(usage);
      return 0;
    }
    isJson = values.json;
    const action = chosen(values);
    const options = values.root === undefined ? {} : { root: values.root };
    const report = { check, apply, undo }[action](options);
    process.stdout.write(isJson ? asJson(action, report) : asText(action, report));
    if (report.settings.some(({ problem }) => problem !== undefined)) return 2;
    return report.isTuned || action === "undo" ? 0 : 1;
  } catch (error) {
    const { code, message } = refusal(error);
    if (isJson) process.stdout.write(toLine({ error: { code, message } }));
    else process.stderr.write(`${message}\n`);
    return 2;
  }
}

/** What the user can do something about; anything else is a bug, and thrown. */
function refusal(error: unknown): PermError {
  if (error instanceof PermError) return error;
  const isUsage = error instanceof TypeError && "code" in error &&
    String(error.code).startsWith("ERR_PARSE_ARGS_");
  if (!isUsage) throw error;
  return new PermError("INVALID_ARGUMENT", `${error.message}; --help lists the options`);
}

function chosen(flags: { [name in Action]?: boolean }): Action {
  const given = (["check", "apply", "undo"] as const).filter((name) => flags[name]);
  if (given.length > 1) {
    throw new PermError(
      "INVALID_ARGUMENT",
      `Cannot do ${given.map((name) => `--${name}`).join(" and ")} at once: choose one`,
    );
  }
  return given[0] ?? (isRoot() ? "apply" : "check");
}

/** Through the library like every other file: Deno would ask for another permission. */
function isRoot(): boolean {
  const status = new TextDecoder().decode(readSmallFile("/proc/self/status"));
  return /^Uid:\s+\d+\s+0\s/m.test(status);
}

function asJson(action: Action, { isTuned, settings, changed, saved }: TuningReport): string {
  return toLine({ action, tuned: isTuned, changed, saved, settings });
}

function toLine(value: unknown): string {
  return `${JSON.stringify(value)}\n`;
}

function asText(action: Action, { isTuned, settings, changed, saved }: TuningReport): string {
  const lines = settings.flatMap((finding) => [...explain(finding), ""]);
  if (action === "apply") {
    lines.push(changed.length > 0 ? `Set: ${changed.join(", ")}.` : "Nothing had to be set.");
  }
  if (action === "undo") {
    lines.push(changed.length > 0 ? `Put back: ${changed.join(", ")}.` : "Nothing to put back.");
  }
  lines.push(isTuned ? "Tuned for shared heaps." : "Not tuned for shared heaps.");
  if (saved !== null) lines.push("The former values are kept; --undo puts them back.");
  else if (action === "check" && !isTuned) lines.push("--apply, as root, sets what is missing.");
  return lines.join("\n") + "\n";
}

function explain({ name, current, wanted, isTuned, problem, ...why }: Finding): string[] {
  const state = problem ?? (isTuned ? `${current}, as wanted` : `${current}, wanted ${wanted}`);
  return [
    `${name}: ${state}`,
    `  for         ${why.purpose}`,
    `  costs       ${why.cost}`,
    `  not needed  ${why.notNeeded}`,
  ];
}
