// Terminates so many workers in the middle of their work, four at a time, and looks whether everything that
// was published is handled in the end.

import { appendFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { Worker } from "node:worker_threads";

import { Engine } from "towline";

import { here, until } from "./support.mjs";

const count = Number(process.argv[2]);
const folder = mkdtempSync(path.join(os.tmpdir(), "towline-node-"));
const url = `sqlite:${path.join(folder, "a.db")}`;
const ledger = path.join(folder, "ledger");
const engine = await Engine.open(url);
let started = 0;

async function oneAfterAnother() {
  while (started < count) {
    const name = `w${(started += 1)}`;
    const worker = new Worker(path.join(here, "worker.mjs"), { workerData: { url, mode: "load", name,
      ledger } });
    let events = 0;
    worker.on("message", () => (events += 1));
    worker.on("error", (error) => {
      console.error(error);
      process.exit(1);
    });
    // At different moments of its life: while it loads, opens, publishes and handles.
    await until(() => events >= (started % 5) * 3, `work of ${name}`);
    await worker.terminate();
    gc(); // what the worker has left behind here
  }
}

await Promise.all([oneAfterAnother(), oneAfterAnother(), oneAfterAnother(), oneAfterAnother()]);
const rest = await engine.consume("a", { group: "g", concurrency: 64 }, (m) => {
  appendFileSync(ledger, `handled ${m.value}\n`);
});
await until(async () => (await engine.backlog()).every((one) => one.waiting === 0 && one.inFlight === 0),
  "the rest");
await rest.close();
await engine.close();
const lines = readFileSync(ledger, "utf8").trim().split("\n").map((line) => line.split(" "));
rmSync(folder, { recursive: true });
const handled = new Set(lines.filter(([what]) => what === "handled").map(([, value]) => value));
const published = lines.filter(([what]) => what === "published").map(([, value]) => value);
const lost = published.filter((value) => !handled.has(value));
console.log(`${started} terminated, ${published.length} published, ${lost.length} lost`);
