// What the workers of workers.test.mjs and terminate.mjs run.

import { appendFileSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";

import { Engine } from "towline";

const { url, mode } = workerData;
const engine = await Engine.open(url);

if (mode === "consume") {
  await engine.consume("a", { group: "g", concurrency: 16 }, async (m) => parentPort.postMessage(m.value));
  parentPort.postMessage("ready");
  parentPort.once("message", () => engine.close());
} else if (mode === "exit") {
  await engine.consume("a", { group: "g" }, async () => process.exit(5));
} else {
  // Load: publishes without an end, and handles what all publish. What was acknowledged, and what was
  // handled, is in the ledger before anything else happens.
  const note = (what, values) => {
    appendFileSync(workerData.ledger, values.map((one) => `${what} ${one}\n`).join(""));
  };
  await engine.consume("a", { group: "g", concurrency: 16 }, async (m) => {
    note("handled", [m.value]);
    parentPort.postMessage("event");
    await null;
  });
  for (let n = 0; ; n += 1) {
    const values = Array.from({ length: 20 }, (_, i) => `${workerData.name}-${n}-${i}`);
    await engine.publishBatch(values.map((value) => ({ topic: "a", value })));
    note("published", values);
    parentPort.postMessage("event");
  }
}
