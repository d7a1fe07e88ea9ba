// What the tests share: folders that go away, conditions that are waited for, programs that are run.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

import { Engine } from "towline";

export const here = import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname);
export const root = path.resolve(here, "../..");

/** A folder for one test. */
export function folderOf(t) {
  const folder = mkdtempSync(path.join(os.tmpdir(), "towline-node-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** The URLs of the providers, each for one test. */
export const providers = {
  memory: () => "memory:",
  sqlite: (t) => `sqlite:${path.join(folderOf(t), "a.db")}`,
};

/** An open engine, closed after the test. */
export async function open(t, url, options = {}) {
  const engine = await Engine.open(url, options);
  t.after(() => engine.close({ timeoutMs: 0 }));
  return engine;
}

/** Waits until `condition` holds; fails after 20 s with what was waited for. */
export async function until(condition, what = condition.toString()) {
  const deadline = Date.now() + 20_000;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`waited 20 s in vain for: ${what}`);
    await sleep(5);
  }
}

/** Also where the flag was not given. */
function exposed() {
  setFlagsFromString("--expose-gc");
  return runInNewContext("gc");
}
const gc = globalThis.gc ?? exposed();

/** Whatever nobody keeps is gone, and its finalizers have run. */
export async function collect() {
  for (let i = 0; i < 5; i += 1) {
    gc();
    await new Promise(setImmediate); // finalizers run in a turn of their own
  }
}

/** Starts a program; `done`: its exit code, signal, output, and how long it took. */
export function start(command, args, options = {}) {
  const started = Date.now();
  const child = spawn(command, args, { cwd: here, timeout: 60_000, ...options });
  let out = "";
  let err = "";
  child.stdout.on("data", (data) => (out += data));
  child.stderr.on("data", (data) => (err += data));
  const done = new Promise((resolve) => {
    child.on("close", (code, signal) => resolve({ code, signal, out, err, ms: Date.now() - started }));
  });
  return { child, done, out: () => out };
}

/** Runs a program to its end. */
export function run(command, args, options = {}) {
  return start(command, args, options).done;
}

/** Runs a module given as text, in a process of its own; its folder is this one. */
export function runModule(text, ...args) {
  return run(process.execPath, ["--input-type=module", "--eval", text, "--", ...args]);
}
