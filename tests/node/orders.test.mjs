// All orders of two calls, while the engine is open, when it is closed, and inside a handler: each answers in time, with
// a value or with an error of towline.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Engine, Saga, TowlineError } from "towline";

const ID = "01890000-0000-7000-8000-000000000000";
const TIME_MS = 20_000;
const saga = new Saga("order").step("one", () => {}, { changesNothing: true });

const CALLS = {
  publish: ({ engine }) => engine.publish("a", 1),
  publishBatch: ({ engine }) => engine.publishBatch([{ topic: "a", value: 1 }, { topic: "no good", value: 1 }]),
  later: ({ engine }) => engine.publish("a", 1, { delayMs: 3_600_000 }),
  consume: ({ engine }) => engine.consume("a", { group: "h" }, () => {}),
  next: ({ engine }) => engine.messages("b", { group: "g", signal: AbortSignal.timeout(5) }).next(),
  pause: ({ consumer }) => consumer.pause(),
  resume: ({ consumer }) => consumer.resume(),
  drain: ({ consumer }) => consumer.drain({ timeoutMs: 5 }),
  closeConsumer: ({ consumer }) => consumer.close({ timeoutMs: 5 }),
  once: ({ engine }) => engine.once("k", () => 1),
  cancel: ({ engine }) => engine.cancel(ID),
  redriveAll: ({ engine }) => engine.redriveAll(),
  append: ({ engine }) => engine.eventStore.append("s", [{ type: "t", value: 1 }]),
  subscribe: ({ engine }) => engine.eventStore.subscribe("reader", {}, () => {}),
  runSaga: ({ engine }) => engine.runSaga(saga),
  say: ({ engine }) => engine.conversations.append("room", { sender: "ann", value: 1 }),
  settleDown: ({ engine }) => engine.settleDown({ timeoutMs: 5 }),
  statistics: ({ engine }) => engine.statistics(),
  close: ({ engine }) => engine.close({ timeoutMs: 5 }),
};
const PAIRS = Object.keys(CALLS).flatMap((first) => Object.keys(CALLS).map((second) => [first, second]));

/** What a call comes to, in time. */
async function endOf(call, given, name) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${name} has not answered within ${TIME_MS} ms`)), TIME_MS);
  });
  const called = (async () => call(given))().catch((error) => {
    assert.ok(error instanceof TowlineError, `${name}: ${error?.stack ?? error}`);
    return error;
  });
  try {
    return await Promise.race([called, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** One behind the other, and both at once. */
async function bothOf([first, second], given, where) {
  const name = `${first}, then ${second}, ${where}`;
  await endOf(CALLS[first], given, name);
  await endOf(CALLS[second], given, name);
  await Promise.all([first, second].map((one) => endOf(CALLS[one], given, `${first} with ${second}, ${where}`)));
}

async function opened(handler) {
  const engine = await Engine.open("memory:", { drainTimeoutMs: 5 });
  return { engine, consumer: await engine.consume("a", { group: "g" }, handler) };
}

test("two calls of an open engine, in all orders", async () => {
  for (const pair of PAIRS) {
    const given = await opened(() => {});
    await bothOf(pair, given, "open");
    await given.engine.close({ timeoutMs: 0 });
  }
});

test("two calls of a closed engine, in all orders", async () => {
  const given = await opened(() => {});
  await given.engine.close();
  for (const pair of PAIRS) await bothOf(pair, given, "closed");
  for (const [name, call] of Object.entries(CALLS)) {
    const end = await endOf(call, given, name);
    if (name !== "close") assert.equal(end?.code, "ERR_CLOSED", name);
  }
});

test("two calls inside a handler, in all orders", async () => {
  for (const pair of PAIRS) {
    let told;
    const ended = new Promise((resolve, reject) => (told = { resolve, reject }));
    let begun = false;
    const given = await opened(async () => {
      if (begun) return; // what it has published itself
      begun = true;
      await bothOf(pair, given, "inside a handler").then(told.resolve, told.reject);
    });
    await given.engine.publish("a", 0);
    await ended;
    await given.engine.close({ timeoutMs: 0 });
  }
});
