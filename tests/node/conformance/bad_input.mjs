// For the tests of bad input: each bad call must answer a typed error whose message names what is wrong, and
// must leave the store as it was.

import assert from "node:assert/strict";

import { makeGroup, member, refused } from "./harness.mjs";

/** An engine whose topic "orders" has a group. */
export async function prepare(stage) {
  const engine = await stage.open();
  await makeGroup(engine, "orders");
  return engine;
}

/** What the store holds. */
export async function stateOf(engine) {
  const { scheduledNow, parkedNow, idempotencyRecords, deadLetters } = await engine.statistics();
  const backlog = (await engine.backlog()).map(({ memberCount: _, ...one }) => one);
  return { backlog, scheduledNow, parkedNow, idempotencyRecords, deadLetters };
}

/** `call` is refused with this code, and nothing changes. */
export async function leavesAlone(engine, call, code, ...words) {
  const before = await stateOf(engine);
  await refused(call, code, ...words);
  assert.deepEqual(await stateOf(engine), before);
}

/** Publishing it is rejected, by every way of publishing, and nothing changes. */
export async function rejected(engine, topic, options, code, ...words) {
  const { value = "p", ...others } = options;
  const before = await stateOf(engine);
  const error = await refused(engine.publish(topic, value, others), code, ...words);
  assert.equal(error.outcome, "rejected");
  const batch = await engine.publishBatch([{ topic, value, ...others }]).catch((caught) => [{ error: caught }]);
  assert.equal(batch[0].error.code, code);
  const started = performance.now();
  await refused(engine.publishWithRetry(topic, value, { ...others, timeoutMs: 10_000 }), code);
  assert.ok(performance.now() - started < 900, "what is wrong stays wrong: it is not retried");
  assert.deepEqual(await stateOf(engine), before);
}

/** Consuming with these options is refused, and no member is left behind. */
export async function unconsumable(engine, topic, options, code, ...words) {
  await leavesAlone(engine, () => engine.consume(topic, member(options), () => {}), code, ...words);
}
