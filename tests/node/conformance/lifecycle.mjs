// Closing: from anywhere and from a handler, twice, with handlers that never return; bounded, and nothing of
// the user's runs afterwards.

import assert from "node:assert/strict";
import { setImmediate as turn } from "node:timers/promises";

import { ClosedError } from "towline";

import { gate, Gauge, holdsFor, inFlight, isDone, LEASE_MS, makeGroup, member, publishNumbers, range,
  Recorder, refused, scenario, until, waiting } from "./harness.mjs";

const SHORT = { leaseMs: LEASE_MS };

/** Every call of an engine. */
function callsOf(engine, id) {
  return {
    publish: () => engine.publish("orders", "late"),
    publishBatch: () => engine.publishBatch([{ topic: "orders", value: "late" }]),
    publishWithRetry: () => engine.publishWithRetry("orders", "late"),
    cancel: () => engine.cancel(id),
    cancelBatch: () => engine.cancelBatch([id]),
    reschedule: () => engine.reschedule(id, new Date()),
    pending: () => engine.pending(),
    declareTopic: () => engine.declareTopic("orders"),
    consume: () => engine.consume("orders", { group: "g" }, () => {}),
    consumeBatches: () => engine.consumeBatches("orders", { group: "g" }, () => {}),
    messages: () => engine.messages("orders", { group: "g" }).next(),
    backlog: () => engine.backlog(),
    blockedKeys: () => engine.blockedKeys("g", "orders"),
    releaseKey: () => engine.releaseKey("g", "orders", "k"),
    deadLetters: () => engine.deadLetters(),
    findDeadLetter: () => engine.findDeadLetter(id),
    deadLetterGroups: () => engine.deadLetterGroups(),
    redrive: () => engine.redrive(id),
    redriveAll: () => engine.redriveAll(),
    discardDeadLetter: () => engine.discardDeadLetter(id),
    once: () => engine.once("key", () => "r"),
    statistics: () => engine.statistics(),
    health: () => engine.health(),
    findings: () => engine.findings(),
    settleDown: () => engine.settleDown(),
  };
}

scenario("CONF-66", "every call after close answers that it is closed", async (stage) => {
  const engine = await stage.open();
  const seen = new Recorder();
  const consumer = await engine.consume("orders", member(), seen.handler);
  const { id } = await engine.publish("orders", "p");
  await seen.reaches(1);
  await stage.close(engine);
  const calls = callsOf(engine, id);
  const own = Object.getOwnPropertyNames(Object.getPrototypeOf(Object.getPrototypeOf(engine)));
  const untried = own.filter((name) => !(name in calls) && name !== "constructor");
  assert.deepEqual(untried, [], "a call that this test does not know");
  for (const [name, call] of Object.entries(calls)) await assert.rejects(call(), ClosedError, name);
  for (const name of ["pause", "resume", "statistics"]) assert.throws(() => consumer[name](), ClosedError, name);
  assert.throws(() => consumer.setConcurrency(2), ClosedError);
  await assert.rejects(consumer.drain(), ClosedError);
  assert.equal(seen.count, 1);
});

scenario("CONF-66", "closing twice and from four places at once is one closing", async (stage) => {
  for (let round = 0; round < 5; round += 1) {
    const engine = await stage.open();
    const gauge = new Gauge();
    let isClosed = false;
    let late = 0;
    await engine.consume("orders", member({ concurrency: 4 }), () => gauge.around(async () => {
      if (isClosed) late += 1;
      await turn();
    }));
    await publishNumbers(engine, "orders", 200);
    await until(() => gauge.max > 0);
    await Promise.all(range(4).map(async () => {
      assert.equal(await engine.close(), 0);
      isClosed = true;
      assert.equal(gauge.now, 0, "a handler still runs after close() returned");
    }));
    await stage.close(engine);
    assert.equal(late, 0, "a handler started after close() returned");
  }
});

scenario("CONF-66", "closing a consumer leaves the engine and the others alone", async (stage) => {
  const engine = await stage.open();
  const [first, second] = [new Recorder(), new Recorder()];
  const a = await engine.consume("orders", member({ group: "a" }), first.handler);
  await engine.consume("orders", member({ group: "b" }), second.handler);
  assert.deepEqual([await a.close(), await a.close()], [0, 0]);
  await publishNumbers(engine, "orders", 10);
  await second.reaches(10);
  assert.equal(first.count, 0);
  await refused(() => a.resume(), "ERR_CLOSED");
});

scenario("CONF-67", "a handler may close the engine and its message is settled", async (stage) => {
  const engine = await stage.open(SHORT);
  const seen = new Recorder();
  let tookMs;
  await engine.consume("orders", member(), async (m) => {
    seen.add(m);
    const started = performance.now();
    await engine.close();
    tookMs = performance.now() - started;
  });
  await publishNumbers(engine, "orders", 1);
  await until(() => tookMs !== undefined);
  assert.ok(tookMs < 1_000, `${tookMs} ms`);
  await stage.close(engine);
  await assert.rejects(engine.statistics(), ClosedError);
  const again = await stage.open(SHORT);
  await again.consume("orders", member(), seen.handler);
  await holdsFor(() => seen.count === 1, 2 * LEASE_MS, "its message was acknowledged");
});

scenario("CONF-67", "a handler may close its consumer", async (stage) => {
  const engine = await stage.open();
  const seen = new Recorder();
  const consumer = await engine.consume("orders", member(), async (m) => {
    seen.add(m);
    await consumer.close();
  });
  await publishNumbers(engine, "orders", 3);
  await seen.reaches(1);
  await consumer.close();
  const handled = seen.count;
  await holdsFor(() => seen.count === handled, 100);
  await until(async () => (await inFlight(engine)) === 0, "nothing is held");
  assert.equal(await waiting(engine, "orders"), 3 - handled);
});

scenario("CONF-68", "close returns at its deadline and reports the stuck handler", async (stage) => {
  const engine = await stage.open(SHORT);
  const { open, opened } = gate();
  let started = 0;
  await engine.consume("orders", member({ concurrency: 2 }), (m) => {
    started += 1;
    return m.value === "0" ? opened : undefined;
  });
  await publishNumbers(engine, "orders", 5);
  await until(() => started === 5);
  stage.forget(engine);
  const begin = performance.now();
  assert.equal(await engine.close({ timeoutMs: 500 }), 1, "one handler is stuck");
  const tookMs = performance.now() - begin;
  assert.ok(tookMs >= 450 && tookMs <= 2_000, `${tookMs} ms`);
  // Its message is not lost: it goes to the next one.
  const seen = new Recorder();
  const again = await stage.open(SHORT);
  await again.consume("orders", member(), seen.handler);
  await seen.reaches(1);
  assert.deepEqual(seen.texts, ["0"]);
  open();
  await holdsFor(() => seen.count === 1, LEASE_MS, "the late result changes nothing");
});

scenario("CONF-69", "many starts and stops under traffic leak nothing", async (stage) => {
  const engine = await stage.open();
  await makeGroup(engine, "stress");
  let isOver = false;
  const publishing = (async () => {
    for (let n = 0; !isOver; n += 1) {
      await publishNumbers(engine, "stress", 5, 5 * n);
      await turn();
    }
  })();
  const seen = new Recorder();
  await Promise.all(range(10).map(async (task) => {
    for (let round = 0; round < 20; round += 1) {
      // Most start and stop a consumer, every tenth a whole engine.
      if (round % 10 === task) {
        const own = await stage.open();
        await own.consume("stress", member(), seen.handler);
        await own.publish("other", "p");
        await stage.close(own);
      } else {
        const consumer = await engine.consume("stress", member(), seen.handler);
        await consumer.close();
      }
    }
  }));
  isOver = true;
  await publishing;
  const rest = await engine.consume("stress", member(), seen.handler);
  await until(() => isDone(engine, "stress"), "the rest");
  await rest.close();
  assert.equal(seen.distinct, seen.count, "something was handled twice");
  assert.equal((await engine.health()).ok, true);
});
