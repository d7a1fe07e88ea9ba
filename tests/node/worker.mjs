// What the workers of workers.test.mjs and terminate.mjs run.

import { appendFileSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";

import { Engine, Saga } from "towline";

const { url, mode } = workerData;
const engine = await Engine.open(url, { leaseMs: workerData.leaseMs });

if (mode === "consume") {
  await engine.consume("a", { group: "g", concurrency: 16 }, async (m) => parentPort.postMessage(m.value));
  parentPort.postMessage("ready");
  parentPort.once("message", () => engine.close());
} else if (mode === "saga") {
  // Tells of its step, and never comes back from it.
  const saga = new Saga("order").step("a", (call) => {
    parentPort.postMessage(call.key);
    return new Promise(() => {});
  }, { changesNothing: true });
  await engine.sagas.start(saga, undefined, { id: workerData.name });
  await engine.runSaga(saga);
} else if (mode === "events") {
  // Tells of a batch, and never comes back from it.
  await engine.eventStore.subscribe("reader", {}, (events) => {
    parentPort.postMessage(events.map((one) => one.value));
    return new Promise(() => {});
  });
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
