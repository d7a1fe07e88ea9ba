// Every call that a caller waits for can be left by an AbortSignal, and says so in the same way.

import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";

import { CancelledError, Engine, Saga } from "towline";
import { VirtualClock } from "towline/testing";

import { open, until } from "./support.mjs";
import { AT_ONCE, entriesOf, LEFT_BY_SIGNAL, NOT_LEFT, publicMethods, world } from "./surface.mjs";

const REASON = new Error("enough");
const leavable = entriesOf(LEFT_BY_SIGNAL);

/** `waiting` rejects as all calls do that are left. */
async function leaves(waiting, name) {
  await assert.rejects(waiting, (error) => {
    assert.ok(error instanceof CancelledError, `${name}: ${error.stack}`);
    assert.equal(error.cause, REASON, name);
    return true;
  }, name);
}

test("every public method takes a signal, or is listed with the reason why not", () => {
  const methods = publicMethods();
  const atOnce = entriesOf(AT_ONCE).map(([name]) => name);
  const listed = [...leavable.map(([name]) => name), ...Object.keys(NOT_LEFT), ...atOnce];
  assert.deepEqual([...methods.keys()].filter((name) => !listed.includes(name)), [], "not in a list");
  assert.deepEqual(listed.filter((name) => !methods.has(name)), [], "listed, and not there");
  assert.equal(new Set(listed).size, listed.length);
  for (const name of atOnce) assert.equal(methods.get(name).constructor.name, "Function", `${name} can be waited for`);
});

test("a call whose signal is aborted already asks for nothing", async (t) => {
  const w = await world(t);
  const signal = AbortSignal.abort(REASON);
  const before = [await w.engine.statistics(), await w.engine.eventStore.streams(), w.clock.now()];
  for (const [name, call] of leavable) {
    if (!name.endsWith(".close")) await leaves(call(w, { signal }), name);
  }
  assert.deepEqual([await w.engine.statistics(), await w.engine.eventStore.streams(), w.clock.now()], before);
  assert.deepEqual((await w.engine.backlog()).filter((one) => one.group === "h"), [], "no new member");
  assert.equal((await w.engine.conversations.find("room")).newest, 1n);
  await w.message.ack({ wait: true }); // nothing has settled it
  await w.end();
});

test("a call is left when its signal is aborted while it waits, and nobody listens to the signal afterwards",
  async (t) => {
  const w = await world(t);
  const signals = new Map();
  for (const [name, call] of leavable.filter(([one]) => !one.endsWith(".close"))) {
    const leaving = new AbortController();
    const waiting = call(w, { signal: leaving.signal });
    leaving.abort(REASON);
    await leaves(waiting, name);
    signals.set(name, leaving.signal);
  }
  await w.end();
  for (const [name, signal] of signals) {
    await until(() => getEventListeners(signal, "abort").length === 0, `${name} to leave its signal`);
  }
});

test("a close whose caller leaves goes on, also when the signal was aborted before", async (t) => {
  for (const early of [true, false]) {
    const w = await world(t);
    const closed = new Promise((resolve) => w.engine.events.once("closed", resolve));
    for (const what of ["subscription", "consumer", "runner", "engine"]) {
      const leaving = new AbortController();
      if (early) leaving.abort(REASON);
      const closing = w[what].close({ signal: leaving.signal });
      leaving.abort(REASON);
      await leaves(closing, what);
      if (what === "consumer") assert.throws(() => w.consumer.pause(), { code: "ERR_CLOSED" });
      if (what === "runner") await assert.rejects(w.runner.statistics(), { code: "ERR_CLOSED" });
      if (what === "subscription") assert.equal(await w.subscription.close(), true);
    }
    await closed;
    await w.end();
  }
});

test("those that wait for something else are left while they do", async (t) => {
  const engine = await open(t, "memory:", { drainTimeoutMs: 3_600_000 });
  const clock = new VirtualClock();
  let held;
  const consumer = await engine.consume("a", { group: "g" }, (m) => {
    held = m;
    return new Promise((resolve) => m.signal.addEventListener("abort", resolve));
  });
  const saga = new Saga("order").step("one", (call) =>
    new Promise((resolve) => call.signal.addEventListener("abort", resolve)), { changesNothing: true });
  const runner = await engine.runSaga(saga);
  const { id } = await engine.sagas.start(saga);
  await engine.publish("a", 1);
  await until(() => held !== undefined);
  await until(async () => (await runner.statistics()).inHand === 1);
  const subscription = await engine.eventStore.subscribe("reader");
  const timeoutMs = 3_600_000;
  let ran = 0;
  let free;
  const running = engine.once("k", () => new Promise((resolve) => (free = resolve)));
  await until(() => free !== undefined);
  const waits = {
    settleDown: (signal) => engine.settleDown({ timeoutMs, signal }),
    advanceAndSettle: (signal) => clock.advanceAndSettle(engine, 1, { timeoutMs, signal }),
    drain: (signal) => consumer.drain({ timeoutMs, signal }),
    receive: (signal) => subscription.receive({ signal }),
    behind: (signal) => subscription.receive({ signal }), // behind the one above
    result: (signal) => engine.sagas.result("order", id, { timeoutMs, signal }),
    once: (signal) => engine.once("k", () => (ran += 1), { waitMsMax: timeoutMs, signal }),
    messages: (signal) => engine.messages("b", { group: "g", signal }).next(),
    runner: (signal) => runner.close({ signal }),
    consumer: (signal) => consumer.close({ signal }),
    engine: (signal) => engine.close({ signal }),
  };
  for (const [name, wait] of Object.entries(waits)) {
    const leaving = new AbortController();
    const waiting = wait(leaving.signal);
    let ended = false;
    const noting = waiting.then(() => (ended = true), () => (ended = true));
    for (let turn = 0; turn < 20; turn += 1) await new Promise(setImmediate);
    assert.equal(ended, false, `${name} does not wait`);
    leaving.abort(REASON);
    await leaves(waiting, name);
    await noting;
  }
  assert.equal(ran, 0);
  free();
  await running.catch(() => {});
  await engine.close({ timeoutMs: 0 });
});

test("a durable settling that was left is settled, and its place is free", async (t) => {
  const engine = await open(t, "memory:");
  const consumer = await engine.consume("a", { group: "g", ack: "manual", concurrency: 1 }, () => {});
  await consumer.close();
  const messages = engine.messages("a", { group: "g", concurrency: 1 });
  await engine.publishBatch([1, 2].map((value) => ({ topic: "a", value })));
  const first = (await messages.next()).value;
  const leaving = new AbortController();
  const settling = first.ack({ wait: true, signal: leaving.signal });
  leaving.abort(REASON);
  await leaves(settling, "ack");
  const second = (await messages.next()).value; // there is room for one
  assert.deepEqual([first.value, second.value], [1, 2]);
  await second.ack({ wait: true });
  assert.throws(() => first.ack(), { code: "ERR_ALREADY_SETTLED" });
  await messages.return();
});

test("a signal without a wait is refused where a message is settled, and so is one that is none", async (t) => {
  const w = await world(t);
  const { signal } = new AbortController();
  for (const settle of [(o) => w.message.ack(o), (o) => w.message.nak(o), (o) => w.message.defer(1, o),
    (o) => w.message.reject("", o)]) {
    assert.throws(() => settle({ signal }), { code: "ERR_INVALID_ARGUMENT", message: /wait: true/ });
  }
  for (const [name, call] of leavable) {
    await assert.rejects(call(w, { signal: {} }), { code: "ERR_INVALID_ARGUMENT", message: /AbortSignal/ }, name);
  }
  w.message.ack();
  w.consumer.pause(); // nothing was closed
  await w.end();
});

test("a subscription that was made for nobody leaves its name to the next one", async (t) => {
  const engine = await open(t, "memory:");
  await engine.eventStore.append("s", [{ type: "t", value: "one" }]);
  for (let n = 0; n < 5; n += 1) {
    const leaving = new AbortController();
    const { signal } = leaving;
    const following = engine.eventStore.subscribe("reader", { signal });
    const streaming = engine.eventStore.streamTo("t", { name: "relay", signal });
    leaving.abort(REASON);
    await leaves(following, "subscribe");
    await leaves(streaming, "streamTo");
  }
  const reader = await engine.eventStore.subscribe("reader");
  assert.deepEqual((await reader.receive({ timeoutMs: 20_000 })).map((one) => one.value), ["one"]);
  const relay = await engine.eventStore.streamTo("t", { name: "relay" });
  await until(async () => (await relay.statistics()).active);
});

test("opening that was left leaves nothing open", async () => {
  const leaving = new AbortController();
  const opening = Engine.open("memory:", { signal: leaving.signal });
  leaving.abort(REASON);
  await leaves(opening, "open");
});
