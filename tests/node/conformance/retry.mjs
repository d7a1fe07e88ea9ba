// Failing: what a failed handler costs, how long the next attempt waits, and which errors are not worth one.

import assert from "node:assert/strict";

import { Defer, Reject, Retry, UnavailableError } from "towline";

import { deadLetters, fail, holdsFor, member, publishNumbers, Recorder, scenario, until } from "./harness.mjs";

const policy = (kind, more = {}) =>
  ({ kind, initialDelayMs: 20, multiplier: 3, delayMsMax: 200, jitter: "none", maxAttempts: 6, ...more });

const middle = (numbers) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)];

scenario("CONF-33", "every backoff waits as its formula says", async (stage) => {
  const engine = await stage.open();
  const cases = {
    fixed: [policy("fixed"), [20, 20, 20, 20, 20]],
    linear: [policy("linear"), [20, 40, 60, 80, 100]],
    exponential: [policy("exponential"), [20, 60, 180, 200, 200]],
    fibonacci: [policy("fibonacci"), [20, 20, 40, 60, 100]],
    sequence: [policy("sequence", { sequenceMs: [5, 70, 30] }), [5, 70, 30, 30, 30]],
  };
  const seen = {};
  for (const [group, [retry]] of Object.entries(cases)) {
    seen[group] = new Recorder();
    await engine.consume("backoff", { ...member({ group }), retry }, (m) => {
      seen[group].add(m);
      fail("Flaky", "again");
    });
  }
  await engine.publish("backoff", "p");
  await until(async () => (await deadLetters(engine)).length === Object.keys(cases).length, "dead letters");
  const lateness = [];
  for (const [group, [, wanted]] of Object.entries(cases)) {
    const { waits } = seen[group];
    assert.equal(waits.length, wanted.length, group);
    for (const [i, wait] of waits.entries()) {
      assert.ok(wait >= wanted[i] - 1, `${group}, retry ${i + 1} came after ${wait} of ${wanted[i]} ms`);
      lateness.push(wait - wanted[i]);
    }
  }
  assert.ok(middle(lateness) <= 100, `${middle(lateness)} ms late`);
});

scenario("CONF-33", "jitter stays within its bounds and varies", async (stage) => {
  const engine = await stage.open();
  const bounds = { proportional: [80, 120], full: [0, 100], equal: [50, 100] };
  const seen = {};
  for (const jitter of Object.keys(bounds)) {
    seen[jitter] = new Recorder();
    const retry = policy("fixed", { initialDelayMs: 100, jitter, jitterRatio: 0.2 });
    await engine.consume("jitter", { ...member({ group: jitter, concurrency: 8 }), retry }, (m) => {
      seen[jitter].add(m);
      if (m.attempt === 1) fail("Flaky", "again");
    });
  }
  await publishNumbers(engine, "jitter", 20);
  for (const [jitter, [low, high]] of Object.entries(bounds)) {
    await seen[jitter].reaches(40);
    const first = new Map();
    const waits = [];
    for (const { text, attempt, started } of seen[jitter].all) {
      if (attempt === 1) first.set(text, started);
      else waits.push(started - first.get(text));
    }
    assert.ok(Math.min(...waits) >= low - 1, `${jitter}: ${Math.min(...waits)} ms`);
    assert.ok(middle(waits) <= high + 100, `${jitter}: ${middle(waits)} ms`);
    assert.ok(Math.max(...waits) - Math.min(...waits) > 2, `${jitter} does not vary`);
  }
});

scenario("CONF-33", "many attempts with huge growth do not overflow", async (stage) => {
  const engine = await stage.open();
  const retry = policy("exponential", { initialDelayMs: 1, delayMsMax: 1, multiplier: 1_000,
    maxAttempts: 200 });
  const attempts = [];
  await engine.consume("backoff", { ...member(), retry }, (m) => {
    attempts.push(m.attempt);
    fail("Flaky", "again");
  });
  await engine.publish("backoff", "p");
  await until(async () => (await deadLetters(engine)).length === 1, "a dead letter");
  assert.deepEqual(attempts, Array.from({ length: 200 }, (_, i) => i + 1));
});

scenario("CONF-34", "attempts are remembered over a restart", async (stage) => {
  let engine = await stage.open();
  const seen = new Recorder();
  const options = member({ retry: { initialDelayMs: 200 } });
  const handler = (m) => {
    seen.add(m);
    fail("Broken", `attempt ${m.attempt}`);
  };
  const consumer = await engine.consume("orders", options, handler);
  await engine.publish("orders", "p");
  await seen.reaches(2);
  await consumer.close();
  await stage.close(engine);
  engine = await stage.open();
  await engine.consume("orders", options, handler);
  await until(async () => (await deadLetters(engine)).length === 1, "a dead letter");
  assert.deepEqual(seen.all.map((one) => one.attempt), [1, 2, 3]);
  assert.equal((await deadLetters(engine))[0].attempt, 3);
});

scenario("CONF-38", "a permanent error is a dead letter at once", async (stage) => {
  const engine = await stage.open();
  const seen = new Recorder();
  const options = member({ classify: { permanentTypes: ["Permanent"], permanentPatterns: ["Invalid"] },
    deadLetters: { errorTypes: ["Unwanted"] } });
  await engine.consume("orders", options, (m) => {
    seen.add(m);
    if (m.contentType === "application/json") return m.value; // is none
    fail(m.value, "no");
  });
  const wanted = { Permanent: ["permanent", 1], SomeInvalidInput: ["permanent", 1],
    Unwanted: ["permanent", 1], PermanentlyOdd: ["exhausted", 3], TimeoutTransient: ["exhausted", 3] };
  for (const type of Object.keys(wanted)) await engine.publish("orders", type);
  await engine.publish("orders", Buffer.from("{"), { contentType: "application/json" });
  await until(async () => (await deadLetters(engine)).length === 6, "dead letters");
  for (const entry of await deadLetters(engine)) {
    const text = entry.payload.toString();
    const [reason, attempt] = text === "{" ? ["permanent", 1] : wanted[text];
    assert.deepEqual([entry.reason, entry.attempt, seen.times[text]], [reason, attempt, attempt], text);
    assert.equal(entry.errorType, text === "{" ? "PayloadError" : text);
  }
});

scenario("CONF-38", "deferring counts nothing", async (stage) => {
  const engine = await stage.open();
  const seen = new Recorder();
  const consumer = await engine.consume("orders", member(), (m) => {
    seen.add(m);
    if (seen.count <= 5) throw new Defer(30);
  });
  await engine.publish("orders", "p");
  await seen.reaches(6);
  await consumer.drain();
  assert.ok(seen.all.every((one) => one.attempt === 1));
  assert.ok(seen.waits.every((wait) => wait >= 29), `${seen.waits}`);
  const { deferred, failed } = consumer.statistics();
  assert.deepEqual([deferred, failed], [5, 0]);
  assert.deepEqual(await deadLetters(engine), []);
});

scenario("CONF-70", "whatever is thrown is a failed attempt and the engine lives", async (stage) => {
  const engine = await stage.open();
  const trap = { get() { throw new Error("trap"); }, getPrototypeOf() { throw new Error("trap"); } };
  const thrown = {
    number: 42, text: "a text", null: null, undefined, symbol: Symbol("s"), bigint: 1n, empty: new Error(""),
    bytes: new Error(`\u001b[2J\r\n\ud800${"x".repeat(100_000)}`),
    own: new UnavailableError("elsewhere"), object: { odd: true }, nothing: Object.create(null),
    proxy: new Proxy({}, trap), getter: Object.defineProperty(new Error("x"), "message", trap),
    revoked: (() => {
      const { proxy, revoke } = Proxy.revocable({}, {});
      revoke();
      return proxy;
    })(),
    retry: Object.defineProperty(new Retry("r"), "afterMs", trap),
  };
  const seen = new Recorder();
  const consumer = await engine.consume("odd", member({ retry: { maxAttempts: 2 } }), (m) => {
    seen.add(m);
    const [how, kind] = m.value.split(" ");
    if (kind === "fine") return undefined;
    if (how === "throws") throw thrown[kind];
    return Promise.reject(thrown[kind]);
  });
  const kinds = Object.keys(thrown).flatMap((kind) => [`throws ${kind}`, `rejects ${kind}`]);
  for (const kind of [...kinds, "throws fine"]) await engine.publish("odd", kind);
  await until(async () => (await deadLetters(engine)).length === kinds.length, "dead letters");
  for (const kind of kinds) assert.equal(seen.times[kind], 2, kind);
  assert.equal(seen.times["throws fine"], 1);
  for (const entry of await deadLetters(engine)) {
    assert.equal(entry.reason, "exhausted", entry.payload.toString());
    assert.notEqual(entry.errorType, "", entry.payload.toString());
    assert.ok(entry.errorMessage.length < 70_000, "user text is capped");
    if (entry.payload.toString() === "throws own") assert.match(entry.errorMessage, /elsewhere/);
  }
  assert.equal((await engine.health()).ok, true);
  assert.equal(consumer.statistics().acked, 1);
});

scenario("CONF-70", "a handler that settled and then throws keeps its settlement", async (stage) => {
  const engine = await stage.open();
  const seen = new Recorder();
  const consumer = await engine.consume("odd", member({ ack: "manual" }), (m) => {
    seen.add(m);
    m.ack();
    throw new Reject("after the fact");
  });
  await engine.publish("odd", "p");
  await until(() => consumer.statistics().acked === 1);
  await holdsFor(() => seen.count === 1, 100);
  assert.deepEqual(await deadLetters(engine), []);
});
