// Consuming: acknowledging removes, nak brings back, a lease protects and its loss is noticed.

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";

import { Retry } from "towline";

import { deadLetters, gate, holdsFor, inFlight, LEASE_MS, member, publishNumbers, Recorder, refused, scenario,
  until, waiting } from "./harness.mjs";
import { holderOn } from "./holders.mjs";

const SHORT = { leaseMs: LEASE_MS };

scenario("CONF-03", "what is acknowledged never comes back", async (stage) => {
  const engine = await stage.open(SHORT);
  const seen = new Recorder();
  const consumer = await engine.consume("orders", member(), seen.handler);
  await publishNumbers(engine, "orders", 100);
  await seen.reaches(100);
  await consumer.close();
  await engine.consume("orders", member(), seen.handler);
  await holdsFor(() => seen.count === 100, 2 * LEASE_MS);
  assert.equal(seen.distinct, 100);
  assert.equal(await waiting(engine, "orders"), 0);
});

scenario("CONF-05", "nak brings it back at once as the next attempt", async (stage) => {
  const engine = await stage.open(SHORT);
  const seen = new Recorder();
  // So long a wait of the policy that only nak with 0 can be what brings it back.
  const retry = { initialDelayMs: 3_600_000, delayMsMax: 3_600_000 };
  const consumer = await engine.consume("naks", member({ ack: "manual", retry }), (m) => {
    seen.add(m);
    if (m.attempt === 1) m.nak({ afterMs: 0, why: "not yet" });
    else m.ack();
  });
  const { id } = await engine.publish("naks", "p");
  await seen.reaches(2);
  await consumer.drain();
  assert.deepEqual(seen.all.map(({ message, text, attempt }) => [message.id, text, attempt]),
    [[id, "p", 1], [id, "p", 2]]);
});

scenario("CONF-05", "nak counts as an attempt and ends in the dead letters", async (stage) => {
  const engine = await stage.open(SHORT);
  const seen = new Recorder();
  await engine.consume("naks", member(), (m) => {
    seen.add(m);
    throw new Retry("never", { afterMs: 0 });
  });
  await engine.publish("naks", "p");
  const [entry] = await until(async () => {
    const all = await deadLetters(engine);
    return all.length > 0 && all;
  }, "a dead letter");
  assert.deepEqual([seen.count, entry.reason], [3, "exhausted"]);
});

scenario("CONF-06", "nak with a delay waits that long and not much longer", async (stage) => {
  const engine = await stage.open(SHORT);
  const first = new Map();
  const waits = [];
  await engine.consume("naks", member({ concurrency: 4 }), (m) => {
    if (m.attempt > 1) return void waits.push(performance.now() - first.get(m.value));
    first.set(m.value, performance.now());
    throw new Retry("", { afterMs: 500 });
  });
  await publishNumbers(engine, "naks", 20);
  await until(() => waits.length === 20);
  waits.sort((a, b) => a - b);
  assert.ok(waits[0] >= 499, `came back after ${waits[0]} ms`);
  assert.ok(waits[10] <= 750, `half of them came after ${waits[10]} ms`);
});

scenario("CONF-07", "a message goes to another consumer when the lease of its holder ends", async (stage) => {
  const holder = await holderOn(stage, "leases");
  const seen = new Recorder();
  await holder.rival.consume("leases", member(), seen.handler);
  await holdsFor(() => seen.count === 0, 3 * LEASE_MS, "a lease is renewed while its holder lives");
  await holder.freeze();
  await holdsFor(() => seen.count === 0, LEASE_MS / 4, "it is not taken away before its lease ends");
  holder.lapse();
  await seen.reaches(1);
  const [{ message }] = seen.all;
  assert.equal(message.redelivered, true, "the first handling may have had its effect");
  assert.equal(message.attempt, 1, "a lost lease is not a failure of the handler");
  holder.thaw();
  await holdsFor(() => seen.count === 1, LEASE_MS);
});

/** A holder whose lease ended while it stood still, and what its rival handled meanwhile. */
async function overtaken(stage) {
  const holder = await holderOn(stage, "leases");
  await holder.freeze();
  holder.lapse();
  const seen = new Recorder();
  await holder.rival.consume("leases", member(), seen.handler);
  await seen.reaches(1);
  holder.thaw();
  return { holder, seen };
}

scenario("CONF-08", "a late acknowledgement is refused and changes nothing", async (stage) => {
  const holder = await holderOn(stage, "leases");
  await holder.freeze();
  holder.lapse();
  let second;
  await holder.rival.consume("leases", member({ ack: "manual" }), (m) => (second = m));
  await until(() => second !== undefined, "the new holder");
  holder.thaw();
  assert.equal(await holder.ask("ack"), "ERR_LEASE_LOST");
  assert.equal(await holder.ask("nak"), "ERR_LEASE_LOST");
  assert.equal(await inFlight(holder.rival), 1, "the new holder still has it");
  await second.ack({ wait: true });
  assert.equal(await inFlight(holder.rival), 0);
  assert.deepEqual(await deadLetters(holder.rival), []);
});

scenario("CONF-08", "the holder is told that its result no longer counts", async (stage) => {
  const { holder } = await overtaken(stage);
  assert.equal(await holder.ask("signal"), "ok");
});

scenario("CONF-09", "a handler that extends may take longer than its timeout", async (stage) => {
  const engine = await stage.open(SHORT);
  const seen = new Recorder();
  let aborted;
  const consumer = await engine.consume("slow", member({ handlerTimeoutMs: LEASE_MS }), async (m) => {
    seen.add(m);
    const started = performance.now();
    while (performance.now() - started < 3 * LEASE_MS) {
      m.extend(LEASE_MS);
      await sleep(LEASE_MS / 4);
    }
    aborted = m.signal.aborted;
  });
  await engine.publish("slow", "p");
  await until(() => consumer.statistics().acked === 1);
  await holdsFor(() => seen.count === 1, LEASE_MS);
  assert.deepEqual([aborted, consumer.statistics().timedOut], [false, 0]);
});

scenario("CONF-09", "a handler within its timeout keeps its lease without extending", async (stage) => {
  const [engine, other] = [await stage.open(SHORT), await stage.open(SHORT)];
  const seen = new Recorder();
  const slow = async (m) => {
    seen.add(m);
    await sleep(3 * LEASE_MS);
  };
  const consumers = [await engine.consume("slow", member(), slow), await other.consume("slow", member(), slow)];
  await engine.publish("slow", "p");
  await until(() => consumers.some((one) => one.statistics().acked === 1), "an acknowledgement");
  assert.equal(seen.count, 1);
});

scenario("CONF-09", "progress gives the handler its time again", async (stage) => {
  const engine = await stage.open(SHORT);
  const seen = new Recorder();
  const consumer = await engine.consume("slow", member({ handlerTimeoutMs: LEASE_MS }), async (m) => {
    seen.add(m);
    for (let step = 0; step < 8; step += 1) {
      m.progress(`step ${step}`);
      await sleep(LEASE_MS / 3);
    }
  });
  await engine.publish("slow", "p");
  await until(() => consumer.statistics().acked === 1);
  assert.equal(seen.count, 1);
});

scenario("CONF-09", "a handler past its timeout has failed and its late result is void", async (stage) => {
  const engine = await stage.open(SHORT);
  const seen = new Recorder();
  const late = gate();
  let extending;
  const consumer = await engine.consume("slow", member({ concurrency: 2, handlerTimeoutMs: 200 }), async (m) => {
    seen.add(m);
    if (m.attempt > 1) return;
    await until(() => m.signal.aborted, "the signal");
    await late.opened;
    extending = await refused(() => m.extend(1_000), "ERR_LEASE_LOST");
  });
  await engine.publish("slow", "p");
  await seen.reaches(2);
  assert.equal(seen.all[1].attempt, 2);
  await until(() => consumer.statistics().acked === 1);
  const { timedOut, stuck } = consumer.statistics();
  assert.deepEqual([timedOut, stuck], [1, 1], "the first one has not returned yet");
  late.open();
  await until(() => extending !== undefined && consumer.statistics().stuck === 0, "it has returned");
  await holdsFor(() => seen.count === 2 && consumer.statistics().acked === 1, 200);
});

scenario("CONF-10", "extending a lost lease is refused", async (stage) => {
  const { holder, seen } = await overtaken(stage);
  assert.equal(await holder.ask("signal"), "ok");
  assert.equal(await holder.ask("extend"), "ERR_LEASE_LOST");
  assert.equal(await holder.ask("progress"), "ERR_LEASE_LOST");
  assert.equal(seen.count, 1);
});

scenario("CONF-11", "the second settlement is refused and changes nothing", async (stage) => {
  const engine = await stage.open(SHORT);
  const taken = [];
  const options = member({ ack: "manual", prefetchCount: 10, concurrency: 4 });
  const consumer = await engine.consume("twice", options, (m) => void taken.push(m));
  await publishNumbers(engine, "twice", 4);
  await until(() => taken.length === 4);
  await taken[0].ack({ wait: true });
  await refused(() => taken[0].ack(), "ERR_ALREADY_SETTLED");
  await taken[1].ack({ wait: true });
  for (const again of [() => taken[1].nak({ afterMs: 0 }), () => taken[1].reject("late"),
    () => taken[1].defer(1), () => taken[1].extend(1_000), () => taken[1].ack({ wait: true })]) {
    await refused(again, "ERR_ALREADY_SETTLED");
  }
  await taken[2].nak({ afterMs: 3_600_000, wait: true });
  await refused(() => taken[2].ack(), "ERR_ALREADY_SETTLED");
  await consumer.close({ timeoutMs: 0 });
  await refused(() => taken[3].ack(), "ERR_CLOSED");
  assert.notEqual(taken[3].payload.length, 0, "the payload outlives the consumer");
  assert.equal(await inFlight(engine), 0);
  assert.equal(await waiting(engine, "twice"), 1, "closing gave back the one that was not settled");
  assert.deepEqual(await deadLetters(engine), []);
  const seen = new Recorder();
  await engine.consume("twice", member(), seen.handler);
  await seen.reaches(1);
  await holdsFor(() => seen.count === 1, 200);
  assert.equal(seen.all[0].message.id, taken[3].id);
});
