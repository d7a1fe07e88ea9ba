#!/usr/bin/env node
// The command `towline`: runs the consumers of a module until a signal.
//
//     npx towline run ./shop.js --workers 4 --reload
//
// The module exports an open engine, a promise of one, or a function that opens one, as `default` or `engine`. SIGTERM
// and SIGINT stop intake, let handlers finish, and exit 0; a second one exits at once.

import path from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

import type { Engine } from "./engine.js";
import { exitAsAsked } from "./signals.js";
import { CANNOT_RUN, STOPPING, supervise } from "./supervisor.js";

const USAGE = `Usage: towline run <module> [options]

Runs the consumers of a module, which exports an open engine, a promise of one, or a function that opens one, as
\`default\` or \`engine\`, until SIGTERM or SIGINT.

  --workers <n>   worker processes (1)
  --reload        start again when a file of this folder changes
  --grace <ms>    how long handlers may finish (the engine's drainTimeoutMs)
  --version       print the version
  --help          print this
`;

const SIGNALS = ["SIGTERM", "SIGINT"] as const;

class UsageError extends Error {}

interface Arguments {
  module: string;
  workers: number;
  reload: boolean;
  graceMs: number | undefined;
}

function wholeOf(text: string, name: string, low: number): number {
  const number = Number(text);
  if (!Number.isSafeInteger(number) || number < low) {
    throw new UsageError(`${name} is ${text}, but must be a whole number from ${low} on`);
  }
  return number;
}

/** What was asked for; undefined: it is answered already. */
function argumentsOf(args: string[]): Arguments | undefined {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      workers: { type: "string", default: "1" },
      reload: { type: "boolean", default: false },
      grace: { type: "string" },
      version: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.version) {
    console.log(`towline ${(require("../../package.json") as { version: string }).version}`);
    return undefined;
  }
  if (values.help) {
    process.stdout.write(USAGE);
    return undefined;
  }
  const [command, module, ...others] = positionals;
  if (command !== "run" || module === undefined || others.length > 0) {
    throw new UsageError("give `run` and one module; --help says more");
  }
  return {
    module,
    workers: wholeOf(values.workers, "--workers", 1),
    reload: values.reload,
    graceMs: values.grace === undefined ? undefined : wholeOf(values.grace, "--grace", 0),
  };
}

function isEngine(value: unknown): value is Engine {
  // Not by its class: the module may have a copy of the package of its own.
  return typeof (value as Engine | undefined)?.close === "function" && "events" in (value as object);
}

async function engineOf(module: string): Promise<Engine> {
  const file = path.resolve(module);
  const loaded = (await import(pathToFileURL(file).href)) as Record<string, unknown>;
  // What a CommonJS module exports comes as `default`.
  const exported = loaded["default"] as Record<string, unknown> | undefined;
  for (const candidate of [exported, loaded["engine"], exported?.["default"], exported?.["engine"]]) {
    const value: unknown = await (typeof candidate === "function" ? candidate() : candidate);
    if (isEngine(value)) return value;
  }
  throw new UsageError(
    `${module} exports no engine; it must export an open one, or a function that opens one, as default`);
}

/** One that is closed tells it no more, and would be waited for until a signal. */
async function checkOpen(engine: Engine, module: string): Promise<void> {
  try {
    await engine.health();
  } catch (error) {
    if ((error as { code?: string }).code !== "ERR_CLOSED") return; // its consumers will tell
    throw new UsageError(`the engine that ${module} exports is closed already; leave it open, the command closes it`);
  }
}

/** Until a signal. */
async function serve({ module, graceMs }: Arguments): Promise<void> {
  let stop: () => void = () => {};
  const stopped = new Promise<void>((resolve) => (stop = resolve));
  let isStopping = false;
  const isSupervised = process.send !== undefined;
  const onSignal = () => {
    if (isStopping) exitAsAsked(1); // what handlers hold goes back
    isStopping = true;
    if (!isSupervised) console.error(STOPPING);
    stop();
  };
  for (const signal of SIGNALS) process.on(signal, onSignal);
  process.once("disconnect", onSignal); // whoever started this worker is gone
  const engine = await engineOf(module);
  engine.events.once("closed", stop);
  await checkOpen(engine, module);
  const alive = setInterval(() => {}, 1 << 30); // an engine without consumers does not keep the process
  process.send?.("running", () => {}); // without it a supervisor that is gone is an error that nobody catches
  await stopped;
  clearInterval(alive);
  const stuck = await engine.close(graceMs === undefined ? {} : { timeoutMs: graceMs });
  if (stuck > 0) {
    console.error(`towline: ${stuck} handlers did not end in time; their messages went back`);
  }
  process.exit(0);
}

async function main(): Promise<void> {
  const given = argumentsOf(process.argv.slice(2));
  if (given === undefined) return;
  if (given.workers === 1 && !given.reload) return serve(given);
  const command = ["run", given.module];
  if (given.graceMs !== undefined) command.push("--grace", String(given.graceMs));
  process.exitCode = await supervise({ ...given, command, signals: SIGNALS });
}

main().catch((error: unknown) => {
  const isUsage = error instanceof UsageError || (error as { code?: string }).code?.startsWith("ERR_PARSE_ARGS");
  console.error(isUsage ? `towline: ${(error as Error).message}` : error);
  // What may pass is tried again by who started this worker.
  process.exit((error as { retryable?: boolean }).retryable ? 1 : CANNOT_RUN);
});
