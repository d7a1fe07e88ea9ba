// What `engine.events` tells by itself of consumers and their messages.

import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";

import { DatabaseSync } from "@photostructure/sqlite";
import { Defer, Reject, Retry } from "towline";

import { folderOf, open, runModule, until } from "./support.mjs";

const ONCE = { retry: { maxAttempts: 1 }, breaker: { enabled: false } };

/** Notes what is told of messages, as [event, value, ...], sorted. */
function noting(engine) {
  const told = [];
  const consumers = new Set();
  const note = (what, message, consumer, ...more) => {
    told.push([what, message.value, ...more]);
    consumers.add(consumer);
  };
  engine.events.on("completed", (message, consumer) => note("completed", message, consumer));
  engine.events.on("failed", (error, message, consumer) => note("failed", message, consumer, error));
  engine.events.on("stalled", (message, consumer) => note("stalled", message, consumer));
  const sorted = () => told.sort((a, b) => a[1] - b[1]);
  return { told, consumers, sorted };
}

/** A value of its own for each way to end. */
const THROWN = [undefined, new Error("why"), new Retry("later", { afterMs: 3_600_000 }), new Reject("no"),
  new Defer(3_600_000), "a text", null];
const ENDS = ["completed", "failed", "failed", "failed", undefined, "failed", "failed"];

for (const inBatches of [false, true]) {
  test(`each handled message is told as completed or failed${inBatches ? ", in batches" : ""}`, async (t) => {
    const engine = await open(t, "memory:");
    const { told, consumers, sorted } = noting(engine);
    const end = async (m) => {
      if (m.value > 0) throw THROWN[m.value];
    };
    const options = { group: "g", concurrency: 8, ...ONCE };
    const consumer = inBatches
      ? await engine.consumeBatches("a", { ...options, batchCountMax: 1 }, ([m]) => end(m))
      : await engine.consume("a", options, end);
    await engine.publishBatch(THROWN.map((_, n) => ({ topic: "a", value: n })));
    await until(() => told.length === THROWN.length - 1);
    await consumer.drain();
    const expected = ENDS.flatMap((what, n) => (what === undefined ? [] : [n > 0 ? [what, n, THROWN[n]] : [what, n]]));
    assert.deepEqual(sorted(), expected);
    for (const [, n, error] of told) if (n > 0) assert.equal(error, THROWN[n], "the very thing that was thrown");
    assert.deepEqual([...consumers], [consumer]);
  });
}

test("a batch tells each of its messages", async (t) => {
  const engine = await open(t, "memory:");
  const { told, sorted } = noting(engine);
  const consumer = await engine.consumeBatches("a", { group: "g", batchCountMax: 3, ...ONCE },
    (batch) => {
    for (const m of batch) if (m.value === 2) throw new Error("all of them");
  });
  await engine.publishBatch([0, 1].map((value) => ({ topic: "a", value })));
  await until(() => told.length === 2);
  await engine.publish("a", 2);
  await until(() => told.length === 3);
  await consumer.drain();
  assert.deepEqual(sorted().map(([what]) => what), ["completed", "completed", "failed"]);
});

test("what is settled by hand is told when it is settled, once", async (t) => {
  const engine = await open(t, "memory:");
  const { told, sorted } = noting(engine);
  const held = [];
  const consumer = await engine.consume("a", { group: "g", ack: "manual", concurrency: 8, ...ONCE }, (m) => {
    held[m.value] = m;
    if (m.value === 5) throw new Error("by hand");
    if (m.value === 6) {
      m.ack();
      throw new Error("too late");
    }
  });
  await engine.publishBatch([0, 1, 2, 3, 4, 5, 6].map((value) => ({ topic: "a", value })));
  await until(() => held.filter(Boolean).length === 7 && told.length === 2);
  held[0].ack();
  await held[1].ack({ wait: true });
  held[2].nak({ afterMs: 3_600_000, why: "later" });
  held[3].reject("no");
  held[4].defer(3_600_000);
  assert.throws(() => held[0].ack(), { code: "ERR_ALREADY_SETTLED" });
  await until(() => told.length === 6);
  await consumer.drain();
  assert.deepEqual(sorted().map(([what, n]) => [what, n]),
    [["completed", 0], ["completed", 1], ["failed", 2], ["failed", 3], ["failed", 5], ["completed", 6]]);
  const [later, no] = [told[2][2], told[3][2]];
  assert.ok(later instanceof Retry && later.message === "later" && later.afterMs === 3_600_000);
  assert.ok(no instanceof Reject && no.message === "no");
  assert.equal(consumer.statistics().acked, 3);
});

test("the messages of a loop are told as well, and so is what a transaction has acknowledged", async (t) => {
  const engine = await open(t, `sqlite:${path.join(folderOf(t), "a.db")}`);
  const { told } = noting(engine);
  const messages = engine.messages("loop", { group: "g" });
  await engine.publish("loop", 1);
  (await messages.next()).value.ack();
  await until(() => told.length === 1);
  await messages.return();
  await engine.consume("a", { group: "g", ...ONCE }, (m) => {
    m.transaction((tx) => tx.execute("SELECT 1"));
    throw new Error("behind the commit");
  });
  await engine.publish("a", 2);
  await until(() => told.length === 2);
  assert.deepEqual(told, [["completed", 1], ["completed", 2]]);
});

test("a message whose handler takes too long is told as stalled, and not by its result", async (t) => {
  const engine = await open(t, "memory:");
  const { told } = noting(engine);
  let leave;
  const left = new Promise((resolve) => (leave = resolve));
  const consumer = await engine.consume("a", { group: "g", handlerTimeoutMs: 300, concurrency: 2, ...ONCE,
    retry: { maxAttempts: 2, initialDelayMs: 1, jitter: "none" } }, (m) => (m.attempt === 1 ? left : undefined));
  await engine.publish("a", 7);
  await until(() => told.length === 2);
  leave();
  await consumer.close();
  assert.deepEqual(told, [["stalled", 7], ["completed", 7]]);
});

test("what closing gives back is not told", async (t) => {
  for (const what of ["consumer", "engine"]) {
    const engine = await open(t, "memory:");
    const { told } = noting(engine);
    let held;
    const consumer = await engine.consume("a", { group: "g" }, (m) => {
      held = m;
      return new Promise((resolve) => m.signal.addEventListener("abort", () => resolve()));
    });
    await engine.publish("a", 1);
    await until(() => held !== undefined);
    await (what === "engine" ? engine : consumer).close({ timeoutMs: 0 });
    await engine.close({ timeoutMs: 0 });
    assert.equal(held.signal.aborted, true);
    await new Promise(setImmediate);
    assert.deepEqual(told, []);
  }
});

test("drained is told when nothing is in flight any more", async (t) => {
  const engine = await open(t, "memory:");
  const drained = [];
  engine.events.on("drained", (consumer) => drained.push(consumer));
  let leave;
  const consumer = await engine.consume("a", { group: "g" }, () => new Promise((resolve) => (leave = resolve)));
  await engine.publish("a", 1);
  await until(() => leave !== undefined);
  await assert.rejects(consumer.drain({ timeoutMs: 1 }), { code: "ERR_TIMEOUT" });
  assert.deepEqual(drained, []);
  leave();
  await consumer.drain();
  await until(() => drained.length === 1);
  assert.equal(drained[0], consumer);
});

/** What the store refuses from then on: no outcome can be stored. */
const CHANGES = ["claim", "cursor", "partition_cursor"].flatMap((table) =>
  ["DELETE", "UPDATE", "INSERT"].map((change) => [`broken_${table}_${change}`, `${change} ON ${table}`]));
const BREAK = CHANGES.map(([name, change]) =>
  `CREATE TRIGGER ${name} BEFORE ${change} BEGIN SELECT RAISE(ABORT, 'broken on purpose'); END;`).join("");
const MEND = CHANGES.map(([name]) => `DROP TRIGGER ${name};`).join("");

test("what the engine meets by itself is an error that is told", async (t) => {
  const file = path.join(folderOf(t), "a.db");
  const engine = await open(t, `sqlite:${file}`, { drainTimeoutMs: 50 });
  const errors = [];
  engine.events.on("error", (error) => errors.push(error));
  const other = new DatabaseSync(file);
  t.after(() => other.close());
  await engine.consume("a", { group: "g", concurrency: 1 }, () => void other.exec(BREAK));
  await engine.publish("a", 1);
  await until(() => errors.length > 0);
  other.exec(MEND);
  const [{ message, cause }] = errors;
  assert.ok(errors[0] instanceof Error);
  assert.match(message, /broken on purpose/);
  assert.deepEqual([cause.level, `${cause.station}: ${cause.text}`], ["error", message]);
});

test("an error that nobody listens to ends no process", async (t) => {
  const { code, out, err } = await runModule(`
    import { DatabaseSync } from "@photostructure/sqlite";
    import { Engine } from "towline";
    import { until } from "./support.mjs";
    const engine = await Engine.open("sqlite:" + process.argv[1], { drainTimeoutMs: 50 });
    const other = new DatabaseSync(process.argv[1]);
    const levels = new Set();
    engine.events.on("log", ({ level }) => levels.add(level));
    await engine.consume("a", { group: "g" }, () => void other.exec(process.argv[2]));
    await engine.publish("a", 1);
    await until(() => levels.has("error"));
    other.exec(process.argv[3]);
    other.close();
    await engine.close({ timeoutMs: 0 });
    console.log("last line");`, path.join(folderOf(t), "a.db"), BREAK, MEND);
  assert.deepEqual([code, out, err], [0, "last line\n", ""]);
});
