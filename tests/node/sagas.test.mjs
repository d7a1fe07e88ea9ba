// Sagas in Node beyond the conformance list: what functions throw and return, and what is left when things close.

import assert from "node:assert/strict";
import { once } from "node:events";
import path from "node:path";
import { test } from "node:test";
import { Worker } from "node:worker_threads";

import { Defer, Engine, Reject, Retry, Saga } from "towline";
import { VirtualClock } from "towline/testing";

import { here, open, providers, runModule, until } from "./support.mjs";

const nothing = () => {};
const undone = { compensate: nothing };
const marks = async (engine, id) => (await engine.sagas.timeline("order", id)).map((one) => one.mark + one.step);

test("what a step throws is a retry, the end of its attempts, or a wait that does not count", async (t) => {
  const engine = await open(t, "memory:");
  const attempts = {};
  const saga = new Saga("order").step("a", async (call) => {
    const attempt = (attempts[call.id] = (attempts[call.id] ?? 0) + 1);
    if (attempt > 1) return `attempt ${call.attempt}`;
    switch (call.id) {
      case "retried": throw new Retry("busy", { afterMs: 1 });
      case "rejected": throw new Reject("no such card");
      case "deferred": throw new Defer(1);
      default: throw "a text";
    }
  }, { ...undone, retry: { kind: "fixed", initialDelayMs: 1, jitter: "none", maxAttempts: 2 } });
  await engine.runSaga(saga);
  const ends = {};
  for (const id of ["retried", "rejected", "deferred", "thrown"]) {
    await engine.sagas.start(saga, undefined, { id });
    ends[id] = (await engine.sagas.result("order", id)).saga;
  }
  assert.deepEqual(Object.values(ends).map((one) => one.status),
    ["completed", "compensated", "completed", "completed"]);
  assert.match(ends.rejected.error, /no such card/);
  assert.equal(attempts.rejected, 1);
  assert.deepEqual(await marks(engine, "retried"), ["begun", "starteda", "faileda", "starteda", "donea"]);
  assert.deepEqual(await marks(engine, "deferred"), ["begun", "starteda", "postponeda", "starteda", "donea"]);
  const failed = (await engine.sagas.timeline("order", "thrown")).find((one) => one.mark === "failed");
  assert.match(failed.error, /a text/);
});

test("a step that fails publishes nothing and changes nothing", async (t) => {
  const engine = await open(t, "memory:");
  const seen = [];
  await engine.consume("told", { group: "g" }, (m) => seen.push(m.value));
  const saga = new Saga("order").step("a", (call) => {
    call.setContext(`of attempt ${call.attempt}`);
    call.publish("told", call.attempt, { headers: { a: "b" } });
    assert.throws(() => call.publish("told", 1, { ttl: 1 }), { code: "ERR_INVALID_ARGUMENT" });
    assert.throws(() => call.publish("not a topic", 1), { code: "ERR_INVALID_TOPIC" });
    if (call.attempt === 1) throw new Error("not yet");
  }, { ...undone, retry: { kind: "fixed", initialDelayMs: 1, jitter: "none" } });
  await engine.runSaga(saga);
  const { id } = await engine.sagas.start(saga);
  assert.equal((await engine.sagas.result("order", id)).context, "of attempt 2");
  await engine.settleDown();
  assert.deepEqual(seen, [2]);
});

test("a call that outlives its engine is told, and touches nothing any more", async (t) => {
  for (const url of Object.values(providers)) {
    const engine = await Engine.open(url(t), { drainTimeoutMs: 50 });
    let given;
    let hasReturned = false;
    let leave;
    const left = new Promise((resolve) => (leave = resolve));
    const saga = new Saga("order").step("a", async (call) => {
      given = call;
      await left;
      call.setContext("too late");
      assert.throws(() => call.publish("told", 1), { code: "ERR_CLOSED" });
      hasReturned = true;
      return "too late";
    }, undone);
    await engine.runSaga(saga);
    const { id } = await engine.sagas.start(saga, "begin");
    await until(() => given !== undefined);
    assert.equal(given.signal.aborted, false);
    assert.equal(await engine.close(), 1);
    assert.equal(given.signal.aborted, true);
    assert.deepEqual([given.context, given.outputOf("a"), given.key], ["begin", undefined, `order/${id}/a/execute`]);
    leave();
    await until(() => hasReturned);
    assert.throws(() => given.setContext("later still"), { code: "ERR_CLOSED" });
    for (const late of [engine.sagas.find("order", id), engine.runSaga(saga), engine.sagas.start(saga)]) {
      await assert.rejects(late, { code: "ERR_CLOSED" });
    }
  }
});

test("a runner that is closed leaves its sagas to others", async (t) => {
  const engine = await open(t, "memory:");
  const seen = [];
  let leave;
  const left = new Promise((resolve) => (leave = resolve));
  let signal;
  const make = (name) => new Saga("order")
    .step("a", async (call) => {
      seen.push(`${name} a`);
      if (name === "first") {
        ({ signal } = call);
        await left;
      }
    }, undone)
    .step("b", () => void seen.push(`${name} b`), undone);
  const first = make("first");
  const runner = await engine.runSaga(first);
  const { id } = await engine.sagas.start(first);
  await until(() => seen.length === 1);
  assert.equal((await runner.statistics()).inHand, 1);
  assert.equal(await runner.close({ timeoutMs: 20 }), 1, "its call has not returned");
  assert.equal(await runner.close(), 1);
  assert.equal(signal.aborted, true);
  await assert.rejects(runner.statistics(), { code: "ERR_CLOSED" });
  const leaving = new AbortController();
  const second = await engine.runSaga(make("second"), { signal: leaving.signal });
  assert.equal((await engine.sagas.result("order", id)).saga.status, "completed");
  assert.deepEqual(seen, ["first a", "second a", "second b"]);
  leave();
  leaving.abort();
  await until(() => second.statistics().then(() => false, (error) => error.code === "ERR_CLOSED"));
  await assert.rejects(engine.runSaga(first, { signal: AbortSignal.abort() }), { code: "ERR_CANCELLED" });
});

test("a step may close its runner and its engine", async () => {
  for (const what of ["runner", "engine"]) {
    const closing = {};
    closing.engine = await Engine.open("memory:");
    let closed;
    const saga = new Saga("order").step("a", async () => {
      closed = await closing[what].close();
    }, undone);
    closing.runner = await closing.engine.runSaga(saga);
    await closing.engine.sagas.start(saga);
    await until(() => closed !== undefined);
    assert.equal(closed, 0);
    assert.equal(await closing.engine.close(), 0);
  }
});

test("a running saga keeps the process alive, and one that nobody keeps goes on", async () => {
  const { code, out, err } = await runModule(`
    import { setFlagsFromString } from "node:v8";
    import { runInNewContext } from "node:vm";
    import { Engine, Saga } from "towline";
    setFlagsFromString("--expose-gc");
    const engine = await Engine.open("memory:");
    const { sagas } = engine;
    const saga = new Saga("order").step("a", async () => console.log("ran"), { changesNothing: true });
    let isGone = false;
    const registry = new FinalizationRegistry(() => (isGone = true));
    await engine.runSaga(saga).then((runner) => registry.register(runner));
    const id = (await sagas.start(saga)).id;
    await sagas.result("order", id);
    const looking = setInterval(async () => {
      runInNewContext("gc")();
      if (!isGone) return;
      clearInterval(looking);
      await sagas.start(saga, 1, { id: "later" });
      await sagas.result("order", "later");
      await engine.close();
      console.log("closed");
    }, 10).unref(); // it does not keep the process`);
  assert.deepEqual([code, out, err], [0, "ran\nran\nclosed\n", ""]);
});

test("a process that ends in the middle of a step ends, and the step runs again", async (t) => {
  const url = providers.sqlite(t);
  const program = (act) => `
    import { Engine, Saga } from "towline";
    const engine = await Engine.open(process.argv[1]);
    const saga = new Saga("order").step("a", async (call) => { ${act} }, { changesNothing: true });
    await engine.runSaga(saga);
    await engine.sagas.start(saga, undefined, { id: "o" });
    console.log((await engine.sagas.result("order", "o")).saga.status);
    await engine.close();`;
  const first = await runModule(program("process.exit(5)"), url);
  assert.deepEqual([first.code, first.out, first.err], [5, "", ""]);
  const again = await runModule(program(""), url);
  assert.deepEqual([again.code, again.out, again.err], [0, "completed\n", ""]);
});

test("a worker that is terminated in the middle of a step leaves its saga to others", async (t) => {
  const url = providers.sqlite(t);
  const engine = await open(t, url);
  const saga = new Saga("order").step("a", nothing, { changesNothing: true });
  for (let n = 0; n < 5; n += 1) {
    const worker = new Worker(path.join(here, "worker.mjs"), { workerData: { url, mode: "saga", name: `o-${n}` } });
    await once(worker, "message");
    await worker.terminate();
  }
  await engine.runSaga(saga);
  for (let n = 0; n < 5; n += 1) {
    assert.equal((await engine.sagas.result("order", `o-${n}`)).saga.status, "completed");
  }
});

test("a reply is published with the transaction of the handler, or not at all", async (t) => {
  const engine = await open(t, providers.sqlite(t));
  const { sagas } = engine;
  const saga = new Saga("order").step("charge", undefined, { command: "payments", changesNothing: true });
  let tries = 0;
  await engine.consume("payments", { group: "g", ack: "manual" }, (m) => {
    tries += 1;
    try {
      m.transaction((transaction) => {
        const { topic, value, ...options } = sagas.replyMessage(m, { receipt: m.value.number });
        transaction.publish(topic, value, options);
        if (tries === 1) throw new Error("no");
      });
    } catch {
      m.nak({ afterMs: 1 });
    }
  });
  await engine.runSaga(saga);
  const { id } = await sagas.start(saga, { number: 7 });
  await sagas.result("order", id);
  const done = (await sagas.timeline("order", id)).filter((one) => one.mark === "done");
  assert.deepEqual([done.length, done[0].output, tries], [1, { receipt: 7 }, 2]);
});

test("a command that failed for good is undone at once", async (t) => {
  const engine = await open(t, "memory:");
  const { sagas } = engine;
  const saga = new Saga("order").step("charge", undefined, { command: "payments", compensationCommand: "refunds" });
  await engine.consume("payments", { group: "g" }, (m) => sagas.replyFailed(m, "no money", { permanent: true }));
  await engine.consume("refunds", { group: "g" }, (m) => sagas.reply(m));
  await engine.runSaga(saga);
  const { id } = await sagas.start(saga);
  const { saga: ended } = await sagas.result("order", id);
  assert.equal(ended.status, "compensated");
  assert.match(ended.error, /no money/);
  for (const command of ["a", undefined, {}]) {
    await assert.rejects(sagas.reply(command), { code: "ERR_INVALID_ARGUMENT" });
  }
});

test("who waits for a result can leave, and hundreds of them keep nobody else from asking", async (t) => {
  const engine = await open(t, "memory:");
  const { sagas } = engine;
  const saga = new Saga("order").step("a", nothing, undone);
  await sagas.start(saga, undefined, { id: "o" });
  await assert.rejects(sagas.result("order", "o", { timeoutMs: 20 }), { code: "ERR_TIMEOUT" });
  await assert.rejects(sagas.result("order", "o", { signal: AbortSignal.timeout(20) }), { code: "ERR_CANCELLED" });
  const waiting = Array.from({ length: 300 }, () => sagas.result("order", "o"));
  const began = performance.now();
  for (let n = 0; n < 5; n += 1) assert.equal((await sagas.find("order", "o")).status, "running");
  assert.ok(performance.now() - began < 5_000, `${performance.now() - began} ms`);
  await engine.runSaga(saga);
  for (const { saga: ended } of await Promise.all(waiting)) assert.equal(ended.status, "completed");
});

test("waits of a saga go by a virtual clock", async (t) => {
  const clock = new VirtualClock();
  const engine = await open(t, "memory:", { clock });
  const saga = new Saga("order").step("a", (call) => {
    if (call.attempt === 1) throw new Retry("in an hour", { afterMs: 3_600_000 });
  }, undone);
  await engine.runSaga(saga);
  await engine.sagas.start(saga, undefined, { id: "o" });
  await engine.settleDown();
  assert.equal((await engine.sagas.find("order", "o")).status, "running");
  clock.advance(3_600_000);
  await engine.settleDown();
  assert.equal((await engine.sagas.find("order", "o")).status, "completed");
});

test("lists have pages, and a definition a diagram", async (t) => {
  const engine = await open(t, "memory:");
  const { sagas } = engine;
  const saga = new Saga("order", { version: 3 }).step("a", nothing, undone).step("b", nothing, { pivot: true });
  const ids = Array.from({ length: 7 }, (_, n) => `o-${n}`);
  for (const id of ids) await sagas.start(saga, undefined, { id });
  const found = [];
  const startedBefore = Date.now() + 1;
  let cursor = "";
  do {
    const page = await sagas.list({ type: "order", unfinished: true, startedBefore, countMax: 3, cursor });
    found.push(...page.items);
    ({ cursor } = page);
  } while (cursor !== "");
  assert.deepEqual(found.map((one) => one.id), ids);
  assert.deepEqual([found[0].type, found[0].definitionVersion, found[0].status, found[0].deadlineAt],
    ["order", 3, "running", undefined]);
  assert.ok(found[0].startedAt instanceof Date && found[0].fingerprint.length === 16);
  assert.deepEqual((await sagas.list({ type: "other" })).items, []);
  for (const wrong of [{ countMax: 0 }, { countMax: 1_001 }, { status: "done" }, { startedBefore: "now" }]) {
    await assert.rejects(sagas.list(wrong), { code: "ERR_INVALID_ARGUMENT" });
  }
  assert.match(saga.visualize(), /^flowchart TD\n {2}start\(\[order v3\]\)\n.*s1\[a\].*s2\{\{b\}\}/s);
});
