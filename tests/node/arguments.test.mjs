// What calls refuse: a typed error that names the field, what was given, and what to give.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Engine, Saga } from "towline";
import { VirtualClock } from "towline/testing";

import { open, until } from "./support.mjs";

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
