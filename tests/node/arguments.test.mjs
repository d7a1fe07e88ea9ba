// What calls refuse: a typed error that names the field, what was given, and what to give.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Engine, Saga } from "towline";
import { VirtualClock } from "towline/testing";

import { open, providers, until } from "./support.mjs";

const ARGUMENT = "ERR_INVALID_ARGUMENT";
const CONFIG = "ERR_INVALID_CONFIG";

/** `call` throws, or rejects with, an error of this code that has these words. */
async function refused(call, code, ...words) {
  const error = await (async () => call())().then(() => assert.fail(`not refused: ${call}`), (caught) => caught);
  assert.equal(error.code, code, error.stack);
  for (const word of words) assert.ok(error.message.includes(word), `${word} in: ${error.message}`);
  return error;
}

test("a clock that is none is refused: an engine of real time would look as if it stood still", async (t) => {
  for (const clock of [{}, { native: {} }, { now: () => 0, tick: () => {} }, null, 5, Date, VirtualClock]) {
    await refused(() => Engine.open("memory:", { clock }), ARGUMENT, "clock is", "VirtualClock of towline/testing");
  }
  await open(t, "memory:", { clock: undefined });
});

test("a virtual clock goes forward only, and stays where it is otherwise", async () => {
  const clock = new VirtualClock();
  const before = clock.now();
  for (const ms of [-1, -0.001, -Infinity]) await refused(() => clock.advance(ms), ARGUMENT, "ms is", String(ms));
  for (const ms of [NaN, "1", 1n, Symbol("s"), undefined]) await refused(() => clock.advance(ms), ARGUMENT, "ms");
  assert.deepEqual(clock.now(), before);
  clock.advance(0);
  clock.advance(1_000);
  assert.equal(clock.now() - before, 1_000);
});

test("options that are no object are refused, whatever they are", async (t) => {
  const engine = await open(t, "memory:");
  const calls = {
    open: (given) => Engine.open("memory:", given),
    publish: (given) => engine.publish("a", 1, given),
    publishWithRetry: (given) => engine.publishWithRetry("a", 1, given),
    retry: (given) => engine.publishWithRetry("a", 1, { retry: given }),
    consume: (given) => engine.consume("a", given, () => {}),
    consumeBatches: (given) => engine.consumeBatches("a", given, () => {}),
    messages: (given) => engine.messages("a", given).next(),
    declareTopic: (given) => engine.declareTopic("b", given),
    once: (given) => engine.once("k", () => 1, given),
    subscribe: (given) => engine.eventStore.subscribe("n", given),
    streamTo: (given) => engine.eventStore.streamTo("t", given),
    saga: (given) => new Saga("s", given),
    step: (given) => new Saga("s").step("a", () => {}, given),
  };
  for (const [name, call] of Object.entries(calls)) {
    for (const [given, kind] of [[null, "null"], [5, "number"], ["x", "string"], [true, "boolean"], [[], "list"]]) {
      await refused(() => call(given), ARGUMENT, name === "retry" ? "retry" : "options", kind, "must be an object");
    }
  }
  await refused(() => engine.consume("a", undefined, () => {}), ARGUMENT, "undefined", "must be an object");
  assert.deepEqual(await engine.backlog(), [], "no member and no message");
});

test("a message of a batch that cannot be sent is named, and nothing is sent", async (t) => {
  const engine = await open(t, "memory:");
  const good = { topic: "a", value: 1 };
  await engine.consume("a", { group: "g" }, () => assert.fail("it was sent"));
  await refused(() => engine.publishBatch([good, null]), ARGUMENT, "messages[1]", "null");
  await refused(() => engine.publishBatch([good, 5]), ARGUMENT, "messages[1]", "a number");
  await refused(() => engine.publishBatch([good, good, { ...good, kye: 1 }]), ARGUMENT, "messages[2]", "'kye'");
  const error = await refused(() => engine.publishBatch([{ topic: "a", value: 1n }]), "ERR_PAYLOAD", "messages[0]");
  assert.match(error.cause.message, /BigInt/);
  await refused(() => engine.topic("a").publishBatch(5), ARGUMENT, "a number", "a list");
  await refused(() => engine.topic("a").publishBatch([{ value: 1 }, { value: 1n }]), "ERR_PAYLOAD", "messages[1]");
  await engine.settleDown();
  assert.equal((await engine.statistics()).published, 0);
});

test("headers with entries instead of properties are refused, and nothing is sent without them", async (t) => {
  const engine = await open(t, "memory:");
  const refusing = (headers, kind) => Promise.all([
    () => engine.publish("a", 1, { headers }),
    () => engine.publishBatch([{ topic: "a", value: 1, headers }]),
    () => engine.eventStore.append("s", [{ type: "t", value: 1, headers }]),
    () => engine.conversations.append("c", { sender: "s", value: 1, headers }),
  ].map((call) => refused(call, ARGUMENT, `headers is ${kind}`, "Object.fromEntries")));
  await refusing(new Map([["a", "b"]]), "a Map");
  await refusing(new Headers({ a: "b" }), "a Headers");
  await refusing(new URLSearchParams("a=b"), "an URLSearchParams");
  await refusing([["a", "b"]], "a list");
  assert.equal((await engine.statistics()).published, 0);
  await engine.publish("a", 1, { headers: Object.assign(Object.create(null), { a: "b" }) });
});

test("options are of the kind that they say: no text for a number, no number for a text", async (t) => {
  const engine = await open(t, "memory:");
  const opening = (options, ...words) => refused(() => Engine.open("memory:", options), CONFIG, ...words);
  await opening({ leaseMs: "5000" }, "leaseMs is a string ('5000')", "a number of milliseconds");
  await opening({ leaseMs: 5_000n }, "leaseMs is a bigint (5000)", "a number of milliseconds");
  await opening({ leaseMs: new Date(5_000) }, "leaseMs is a Date");
  await opening({ leaseMs: 0.0001 }, "leaseMs is a number (0.0001)", "three decimals");
  await opening({ leaseMs: 1e21 }, "leaseMs", "a number of milliseconds");
  await opening({ partitionCount: 1.5 }, "partitionCount is a number (1.5)", "a whole number");
  await opening({ name: 5 }, "name is a number (5)", "a string");
  await opening({ alert: { newFingerprint: 1 } }, "alert.newFingerprint is a number (1)", "a boolean");
  await opening({ alert: [] }, "alert is a list", "an object");
  await opening({ seed: "1" }, "seed is a string ('1')");
  const consuming = (options, ...words) => refused(() => engine.consume("a", options, () => {}), CONFIG, ...words);
  await consuming({ concurrency: "4" }, "concurrency is a string ('4')", "a whole number");
  await consuming({ group: 5 }, "group is a number (5)", "a string");
  await consuming({ retry: { kind: "sequence", sequenceMs: [1, "2"] } }, "retry.sequenceMs[1] is a string ('2')");
  await consuming({ retry: { kind: "sequence", sequenceMs: 5 } }, "retry.sequenceMs is a number (5)", "a list");
  await consuming({ classify: { permanentTypes: "TypeError" } }, "classify.permanentTypes is a string", "a list");
  await consuming({ classify: { permanentTypes: [TypeError] } }, "classify.permanentTypes[0] is a function");
  await consuming({ partitions: ["1"] }, "partitions[0] is a string ('1')");
  await consuming({ breaker: { failureRatio: "0.5" } }, "breaker.failureRatio is a string ('0.5')", "a number");
  assert.deepEqual(await engine.backlog(), [], "no member");
  await open(t, "memory:", { leaseMs: 5_000.125, seed: 2n ** 62n, alert: { newFingerprint: true } });
});

test("a misspelt way to settle is refused, and the message is still open", async (t) => {
  const engine = await open(t, "memory:");
  let held;
  const consumer = await engine.consume("a", { group: "g", ack: "manual" }, (m) => (held = m));
  await engine.publish("a", 1);
  await until(() => held !== undefined);
  await refused(() => held.nak({ after: 5 }), ARGUMENT, "'after'", "afterMs");
  await refused(() => held.nak(null), ARGUMENT, "null");
  await refused(() => held.ack({ await: true }), ARGUMENT, "'await'", "wait");
  await refused(() => held.defer(5, 5), ARGUMENT, "a number");
  await held.ack({ wait: true });
  await until(() => consumer.statistics().acked === 1);
});

test("a time limit that is none closes nothing", async (t) => {
  const engine = await open(t, "memory:");
  const consumer = await engine.consume("a", { group: "g" }, () => {});
  for (const timeoutMs of ["5", NaN, Infinity, 5n, null]) {
    await refused(() => consumer.close({ timeoutMs }), ARGUMENT, "timeoutMs is", "milliseconds");
    await refused(() => engine.close({ timeoutMs }), ARGUMENT, "timeoutMs is", "milliseconds");
  }
  consumer.pause(); // it would throw if it were closed
  assert.equal(await consumer.close({ timeoutMs: 0 }), 0);
  await engine.publish("a", 1);
});

test("errors of the engine name options and times as they are here", async (t) => {
  const engine = await open(t, "memory:");
  const delay = (options, ...words) => Promise.all([
    refused(() => engine.publish("a", 1, options), "ERR_INVALID_DELAY", ...words),
    engine.publishBatch([{ topic: "a", value: 1, ...options }]).then(([receipt]) =>
      refused(() => { throw receipt.error; }, "ERR_INVALID_DELAY", ...words)),
  ]);
  await delay({ delayMs: -1 }, "delayMs is -1 ms", "between 0 and 31622400000 ms", "option delayMsMax");
  await delay({ delayMs: -0.001 }, "delayMs is -0.001 ms");
  await delay({ delayMs: 31_622_400_000.5 }, "delayMs is 31622400000.5 ms");
  await delay({ ttlMs: -1_200 }, "ttlMs is -1200 ms");
  await delay({ delayMs: 1, skipIfLateByMs: -10 }, "skipIfLateByMs is -10 ms");
  await delay({ delayMs: 1, dueAt: Date.now() + 10_000 }, "delayMs and dueAt are both given");
  await delay({ dueAt: new Date("9999-01-01") }, "dueAt is", "ms from now", "delayMsMax");
  const options = (call, ...words) => refused(call, CONFIG, ...words);
  await options(() => Engine.open("memory:", { leaseMs: 1 }), "leaseMs is 1 ms", "100 ms");
  await options(() => Engine.open("memory:", { conversations: { countMax: 0 } }), "conversations.countMax is 0");
  await options(() => engine.consume("a", { batchCountMax: 0 }, () => {}), "batchCountMax is 0");
  await options(() => engine.consume("a", { retry: { delayMsMax: 10 } }, () => {}), "retry.delayMsMax is 10 ms",
    "retry.initialDelayMs");
  await options(() => engine.consume("a", { onKeyFailure: "skip" }, () => {}), "onKeyFailure", "set ordering");
  await options(() => engine.publishWithRetry("a", 1, { retry: { maxAttempts: 0 } }), "retry.maxAttempts is 0");
  await refused(() => engine.pending({ countMax: 0 }), ARGUMENT, "countMax is 0");
  await refused(() => engine.publish("a", 1, { dedupId: "a b" }), "ERR_INVALID_ID", "dedupId 'a b'");
  await refused(() => engine.publish("a", Buffer.alloc(2 ** 21)), "ERR_PAYLOAD_TOO_LARGE", "option payloadBytesMax");
  await refused(() => engine.publishBatch(Array(10_001).fill({ topic: "a", value: 1 })), "ERR_BATCH_TOO_LARGE",
    "batchCountMax is 10000");
});

test("what the user wrote stays as it was written", async () => {
  await refused(() => Engine.open("memory:?lease_ms=soon"), CONFIG, "lease_ms: 'soon'");
  await refused(() => Engine.open("memory:?lease_sm=1"), CONFIG, "'lease_sm'", "'lease_ms'");
  const engine = await Engine.open("memory:");
  await refused(() => engine.consume("a", { filter: "content_type ==" }, () => {}), "ERR_INVALID_FILTER",
    "'content_type =='");
  await refused(() => engine.consume("a", { start: "due_at" }, () => {}), CONFIG, "start: 'due_at' is not");
  await refused(() => engine.publish("due_at count_max", 1), "ERR_INVALID_TOPIC", "'due_at count_max'");
  await engine.close();
});

test("an unknown option is told which ones there are, and which one may be meant", async (t) => {
  const engine = await open(t, "memory:");
  const opening = (options, ...words) => refused(() => Engine.open("memory:", options), CONFIG, ...words);
  await opening({ lease_ms: 1 }, "unknown option 'lease_ms'; did you mean 'leaseMs'?", "known are name, durability");
  await opening({ leaseSm: 1 }, "did you mean 'leaseMs'?", "clock, logLevel, signal");
  await opening({ alert: { depth: 1 } }, "'alert.depth'; did you mean 'alert.depthCount'?");
  const far = await refused(() => Engine.open("memory:", { colour: 1 }), CONFIG, "unknown option 'colour'; known are");
  assert.doesNotMatch(far.message, /did you mean/);
  const consuming = (options, ...words) => refused(() => engine.consume("a", options, () => {}), CONFIG, ...words);
  await consuming({ concurency: 1 }, "did you mean 'concurrency'?", "deadLetters, signal");
  await consuming({ retry: { attempts: 1 } }, "'retry.attempts'; known are", "maxAttempts");
  const order = await consuming({ order: "key" }, "did you mean 'ordering'?");
  assert.doesNotMatch(order.message.split("known are")[1], /\border\b/);
  await refused(() => engine.publish("a", 1, { delay: 1 }), ARGUMENT, "'delay' of publish; did you mean 'delayMs'?");
  await refused(() => engine.publish("a", 1, { Key: "k" }), ARGUMENT, "did you mean 'key'?");
  await refused(() => engine.deadLetters({ errortype: "E" }), ARGUMENT, "did you mean 'errorType'?");
  const payload = "it replaces that of a single entry, with redrive";
  for (const given of [1, "p", undefined]) {
    await refused(() => engine.redriveAll({}, { payload: given }), ARGUMENT, "unknown 'payload'", payload);
  }
});

test("an invalid Date is called one", async (t) => {
  const engine = await open(t, "memory:");
  const none = new Date(NaN);
  const id = "01890000-0000-7000-8000-000000000000";
  for (const [name, call] of [["dueAt", () => engine.publish("a", 1, { dueAt: none })],
    ["messages[1]: dueAt", () => engine.publishBatch([{ topic: "a", value: 1 }, { topic: "a", value: 1, dueAt: none }])],
    ["dueAt", () => engine.reschedule(id, none)], ["createdFrom", () => engine.deadLetters({ createdFrom: none })],
    ["createdBefore", () => engine.deadLetterGroups({ createdBefore: none })]]) {
    await refused(call, ARGUMENT, `${name} is an invalid Date`);
  }
  assert.equal((await engine.statistics()).published, 0);
});

test("whatever refuses a publish says that nothing was stored", async (t) => {
  const engine = await open(t, "memory:");
  const publishing = [() => engine.publish("a", 1n), () => engine.publish("a", () => 1), () => engine.publish("a", 1, 5),
    () => engine.publish("a", 1, { kye: "k" }), () => engine.publish("a", 1, { headers: new Map() }),
    () => engine.publish("a", 1, { priority: 300 }), () => engine.publish("no good", 1),
    () => engine.publishBatch([{ topic: "a", value: 1n }]), () => engine.publishBatch([null]),
    () => engine.publishBatch(5), () => engine.publishBatch([{ topic: "a", value: 1, kye: "k" }]),
    () => engine.publishBatch([{ topic: "a", value: 1, priority: 300 }]), () => engine.topic("a").publishBatch(5),
    () => engine.topic("a").publish(1n), () => engine.publishBatch([], { signal: AbortSignal.abort() }),
    () => engine.publishWithRetry("a", 1n), () => engine.publishWithRetry("a", 1, { retry: { kind: "x" } })];
  for (const publish of publishing) {
    await assert.rejects(publish, (error) => error.outcome === "rejected", `${publish}`);
  }
  assert.equal((await engine.statistics()).published, 0);
});

test("a group may start at a Date", async (t) => {
  const clock = new VirtualClock();
  const engine = await open(t, "memory:", { clock });
  await engine.declareTopic("a", { type: "log", retentionMs: 3_600_000 });
  await engine.publish("a", "old");
  clock.advance(10_000);
  const start = clock.now();
  await engine.publish("a", "new");
  const seen = [];
  await engine.consume("a", { group: "g", start }, (m) => seen.push(m.value));
  await engine.settleDown();
  assert.deepEqual(seen, ["new"]);
  await refused(() => engine.consume("a", { group: "h", start: new Date(NaN) }, () => {}), CONFIG, "start is an invalid Date");
  await refused(() => engine.consume("a", { group: "h", start: 5 }, () => {}), CONFIG, "start is a number (5)");
});

test("a parameter of a statement may be a boolean, and a wrong one is named by its place", async (t) => {
  const engine = await open(t, providers.sqlite(t));
  const rows = [];
  const errors = [];
  await engine.consume("a", { group: "g" }, (m) => m.transaction((tx) => {
    rows.push(...tx.execute("SELECT ?1, ?2, ?3, ?4, typeof(?1)", [true, false, 1n, null]));
    rows.push(...tx.execute("SELECT unhex(?1)", [Buffer.from([0xff, 0]).toString("hex")]));
    for (const parameters of [[1, undefined], [1, {}], [1, Buffer.from([1])], [1, 2n ** 63n], [1, , 2], "text"]) {
      try {
        tx.execute("SELECT ?1, ?2", parameters);
      } catch (error) {
        errors.push(error);
      }
    }
  }));
  await engine.publish("a", 1);
  await until(() => errors.length === 6);
  assert.deepEqual(rows, [[1, 0, 1, null, "integer"], [Buffer.from([0xff, 0])]]);
  assert.ok(errors.every((error) => error.code === ARGUMENT));
  const places = ["undefined", "an object", "a Buffer", "a bigint (9223372036854775808)", "undefined"];
  for (const [at, given] of places.entries()) {
    assert.ok(errors[at].message.startsWith(`parameter ?2 is ${given}, but must be`), errors[at].message);
  }
  assert.match(errors[2].message, /unhex\(\?2\)/);
  assert.match(errors[5].message, /the parameters are a string \('text'\), but must be a list/);
});
