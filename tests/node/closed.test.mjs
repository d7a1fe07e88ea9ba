// Every public method after close: it says that it is closed, or is listed with the reason why it still answers.

import assert from "node:assert/strict";
import { test } from "node:test";

import { ClosedError, Transaction } from "towline";

import { open, providers, until } from "./support.mjs";
import { AT_ONCE, entriesOf, LEFT_BY_SIGNAL, publicMethods, world } from "./surface.mjs";

const OF_NO_ENGINE = "it needs no engine";
const AGAIN = "closing is idempotent, and the engine has closed it";
const READABLE = "what was received stays readable, and what is made of it alone";
const RUNNING = "the function still runs; what it changes does not count any more";
const GIVEN = "of the client alone, without the store";
/** Why these still answer. */
const ANSWERING = {
  "Engine.open": "another engine", "Engine.close": AGAIN, "SagaRunner.close": AGAIN, "EventSubscription.close": AGAIN,
  "Engine.topic": "the calls of the topic say it", "Conversations.feed": "the calls of the feed say it",
  "ConversationFeed.begin": GIVEN, "ConversationFeed.given": GIVEN, "ConversationMessage.of": READABLE,
  "Message.[util.inspect.custom]": READABLE, "Sagas.eventMessage": OF_NO_ENGINE, "Sagas.replyMessage": READABLE,
  "Sagas.replyFailedMessage": READABLE, "SagaCall.outputOf": RUNNING, "SagaCall.setContext": RUNNING,
  ...Object.fromEntries(["Saga.step", "Saga.parallel", "Saga.visualize", "Choreography.on", "Choreography.expect",
    "Choreography.visualize", "Limiter.acquire", "Limiter.run", "Limiter.tryAcquire", "Limiter.setLimit",
    "Limiter.statistics", "Permit.release", "Permit.[dispose]", "VirtualClock.now", "VirtualClock.advance",
    "VirtualClock.stepWall"].map((name) => [name, OF_NO_ENGINE])),
};
const OWN = { subscription: "EventSubscription", consumer: "Consumer", runner: "SagaRunner" };
/** Of what was closed by itself. */
const ANSWERING_STILL = { "EventSubscription.statistics": "what it has come to, and that it is not active" };
const OF_TRANSACTIONS = "Transaction.";
/** As close() does; see there. */
const DISPOSING = ["Engine", "SagaRunner", "EventSubscription", "Consumer"].map((name) => `${name}.[asyncDispose]`);
const LOOP = "EventSubscription.[asyncIterator]";
const calls = [...entriesOf(LEFT_BY_SIGNAL), ...entriesOf(AT_ONCE)].filter(([name]) => !name.startsWith(OF_TRANSACTIONS));

const closedOf = (call, name) => assert.rejects(async () => call(), ClosedError, name);

test("every public method has an entry", () => {
  const listed = [...calls.map(([name]) => name), ...DISPOSING, LOOP];
  const missing = [...publicMethods().keys()].filter((name) => !listed.includes(name));
  assert.deepEqual(missing.filter((name) => !name.startsWith(OF_TRANSACTIONS)), []);
  const known = new Set(listed);
  assert.deepEqual(Object.keys(ANSWERING).filter((name) => !known.has(name)), []);
});

test("every call after the engine is closed says so, or answers as it is listed", async (t) => {
  const w = await world(t);
  await w.engine.close({ timeoutMs: 0 });
  for (const [name, call] of calls) {
    if (!(name in ANSWERING)) {
      await closedOf(() => call(w, {}), name);
      continue;
    }
    const answer = await (async () => call(w, {}))().catch((error) => error);
    assert.notEqual(answer?.code, "ERR_CLOSED", name);
    if (name === "Engine.open") await answer.close();
  }
  for (const what of ["engine", "runner", "subscription"]) await w[what][Symbol.asyncDispose]();
  await closedOf(() => w.consumer[Symbol.asyncDispose]());
  for await (const batch of w.subscription) assert.fail(`events of a closed subscription: ${batch}`);
});

test("every call of what was closed by itself says so, while its engine is open", async (t) => {
  const w = await world(t);
  for (const [what, Class] of Object.entries(OWN)) {
    await w[what].close({ timeoutMs: 0 });
    await w[what].close();
    await w[what][Symbol.asyncDispose]();
    for (const [name, call] of calls) {
      const hasEnded = name.startsWith(`${Class}.`) && !name.endsWith(".close") && !(name in ANSWERING_STILL);
      if (hasEnded) await closedOf(() => call(w, {}), name);
    }
  }
  assert.equal((await w.subscription.statistics()).active, false);
  for await (const batch of w.subscription) assert.fail(`events of a closed subscription: ${batch}`);
  await w.engine.statistics();
});

test("every call of a transaction that is over is refused, and does nothing", async (t) => {
  const engine = await open(t, providers.sqlite(t));
  let over;
  await engine.consume("a", { group: "g" }, (m) => m.transaction((tx) => void (over = tx)));
  await engine.publish("a", 1);
  await until(() => over !== undefined);
  await engine.settleDown();
  const args = { execute: ["SELECT 1"], publish: ["b", 1], append: ["s", [{ type: "t", value: 1 }]],
    complete: ["s", "k", 1] };
  const methods = Object.getOwnPropertyNames(Transaction.prototype).filter((name) => name !== "constructor");
  assert.deepEqual(Object.keys(args), methods);
  for (const [name, given] of Object.entries(args)) await closedOf(() => over[name](...given), name);
  assert.equal((await engine.statistics()).published, 1);
});
