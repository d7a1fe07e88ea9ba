// The addon in several environments of one process.

import assert from "node:assert/strict";
import { once } from "node:events";
import path from "node:path";
import { test } from "node:test";
import { Worker } from "node:worker_threads";

import { folderOf, here, open, providers, run, runModule, until } from "./support.mjs";

const source = path.join(here, "worker.mjs");

function exitOf(worker) {
  return new Promise((resolve, reject) => {
    worker.on("error", reject);
    worker.on("exit", resolve);
  });
}

test("eight workers at once share one file, and each message is handled once", async (t) => {
  const url = `sqlite:${path.join(folderOf(t), "a.db")}`;
  const engine = await open(t, url);
  const handled = [];
  const workers = Array.from({ length: 8 }, () => {
    const worker = new Worker(source, { workerData: { url, mode: "consume" } });
    worker.on("message", (message) => handled.push(message));
    return { worker, exit: exitOf(worker) };
  });
  await until(() => handled.filter((one) => one === "ready").length === 8, "eight workers");
  const values = Array.from({ length: 400 }, (_, n) => n);
  for (let n = 0; n < 400; n += 50) {
    await engine.publishBatch(values.slice(n, n + 50).map((value) => ({ topic: "a", value })));
  }
  await until(() => handled.length === 408, "every message");
  assert.deepEqual(handled.filter((one) => one !== "ready").sort((a, b) => a - b), values);
  for (const { worker } of workers) worker.postMessage("close");
  assert.deepEqual(await Promise.all(workers.map(({ exit }) => exit)), Array(8).fill(0));
});

test("terminate() two hundred times under load harms neither the process nor the messages",
  { timeout: 300_000 }, async () => {
  // In a process of its own: what is looked for is a crash.
  const args = ["--expose-gc", path.join(here, "terminate.mjs"), "200"];
  const { code, signal, out, err } = await run(process.execPath, args, { timeout: 290_000 });
  assert.deepEqual([code, signal, err], [0, null, ""]);
  assert.match(out, /^200 terminated, [1-9]\d\d+ published, 0 lost\n$/);
});

test("process.exit in a worker's handler ends the worker alone", async (t) => {
  const url = `sqlite:${path.join(folderOf(t), "a.db")}`;
  const engine = await open(t, url);
  await engine.publish("a", 1);
  const worker = new Worker(source, { workerData: { url, mode: "exit", leaseMs: 300 } });
  assert.equal(await exitOf(worker), 5);
  const seen = [];
  await engine.consume("a", { group: "g" }, (m) => seen.push(m.value));
  await until(() => seen.length === 1);
});

test("a worker that is terminated in the middle of a handler of events leaves them to others", async (t) => {
  const url = providers.sqlite(t);
  const engine = await open(t, url, { leaseMs: 300 });
  await engine.eventStore.append("order-1", [{ type: "placed", value: "one" }, { type: "paid", value: "two" }]);
  for (let n = 0; n < 5; n += 1) {
    const worker = new Worker(source, { workerData: { url, mode: "events", leaseMs: 300 } });
    assert.deepEqual(await once(worker, "message"), [["one", "two"]]);
    await worker.terminate();
  }
  const { code, out, err } = await runModule(`
    import { Engine } from "towline";
    const engine = await Engine.open(process.argv[1], { leaseMs: 300 });
    await engine.eventStore.subscribe("reader", {}, (events) => {
      console.log(events.map((one) => one.value).join());
      process.exit(5);
    });`, url); // which is kept alive by it
  assert.deepEqual([code, out, err], [5, "one,two\n", ""]);
  const seen = [];
  await engine.eventStore.subscribe("reader", {}, (events) => seen.push(...events.map((one) => one.value)));
  await until(() => seen.length === 2);
});
