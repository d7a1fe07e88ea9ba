// Death of a process, where several share a store: what was acknowledged stays so, a message that kills its
// process is found out and nobody else is blamed, and nothing is ever in two places or in none. And bytes that
// are not what was written.

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";

import { deadLetters, holdsFor, inFlight, isDone, LEASE_MS, makeDeadLetters, makeGroup, member, publishAll,
  publishNumbers, range, Recorder, scenario, until, waiting } from "./harness.mjs";
import { damageMessage } from "./intruder.mjs";

const MAX_CRASHES = 3; // unless `deadLetters.maxCrashes` says otherwise

const hasEnded = ({ child }) => child.exitCode !== null || child.signalCode !== null;

/** The dead letters wait, and nothing else is left. */
async function onlyDeadLettersLeft(engine, count) {
  return (await deadLetters(engine)).length === count && (await isDone(engine, "orders"));
}

scenario("CONF-04", "what was acknowledged stays so when the process dies at once", async (stage) => {
  const engine = await stage.open({ leaseMs: LEASE_MS });
  await makeGroup(engine, "orders");
  for (const n of range(3)) {
    await publishNumbers(engine, "orders", 1, n);
    const { done } = await stage.child("ack");
    assert.equal((await done).signal, "SIGKILL");
    assert.equal(stage.ledger().at(-1), `acked ${n}`);
  }
  const seen = new Recorder();
  await engine.consume("orders", member(), seen.handler);
  await holdsFor(() => seen.count === 0, 2 * LEASE_MS);
  assert.equal(await waiting(engine, "orders"), 0);
}, "shared");

scenario("CONF-36", "a message that kills its process ends in the dead letters", async (stage) => {
  const engine = await stage.open();
  await makeGroup(engine, "orders");
  await engine.publish("orders", "kill");
  let deaths = 0;
  while ((await deadLetters(engine)).length === 0) {
    assert.ok(deaths <= MAX_CRASHES + 1, "it kills for ever");
    const child = await stage.child("work");
    await until(async () => hasEnded(child) || (await onlyDeadLettersLeft(engine, 1)), "a death or the end");
    if (hasEnded(child)) deaths += 1;
    else child.child.kill("SIGKILL");
  }
  assert.ok(deaths >= MAX_CRASHES, "blamed too early");
  const [entry] = await deadLetters(engine);
  assert.deepEqual([entry.reason, entry.crashes, entry.payload.toString()], ["crash_loop", MAX_CRASHES, "kill"]);
  assert.equal(stage.ledger("start kill").length, deaths);
}, "shared");

scenario("CONF-37", "the neighbours of a killer are handled and not blamed", async (stage) => {
  const engine = await stage.open();
  await makeGroup(engine, "orders");
  const names = ["kill", ...range(9).map((n) => `innocent ${n}`)];
  await publishAll(engine, names.map((value) => ({ topic: "orders", value })));
  let deaths = 0;
  let child = await stage.child("work");
  await until(async () => {
    if (stage.ledger("done innocent").length >= 9 && (await onlyDeadLettersLeft(engine, 1))) return true;
    if (hasEnded(child) && deaths < 10) {
      deaths += 1;
      child = await stage.child("work");
    }
    return false;
  }, "everybody is handled");
  assert.ok(deaths <= MAX_CRASHES + 1, `${deaths} deaths`);
  const entries = await deadLetters(engine);
  assert.deepEqual(entries.map((one) => [one.payload.toString(), one.reason]), [["kill", "crash_loop"]]);
  for (const name of names.slice(1)) {
    assert.deepEqual(stage.ledger(`done ${name}`), [`done ${name} attempt 1 crashes 0`]);
  }
}, "shared");

scenario("CONF-40", "a redrive that is killed leaves each message in one place", async (stage) => {
  const engine = await stage.open();
  await makeDeadLetters(engine, "orders", 300);
  let killed = 0;
  for (const delay of [0, 1, 2, 5, 13]) {
    const child = await stage.child("redrive");
    await sleep(delay);
    if (child.child.kill("SIGKILL")) killed += 1;
    await child.done;
    // Pending, leased by the dead one, or resolved and waiting in the topic: every one, and none twice.
    const { deadLetters: counts } = await engine.statistics();
    assert.equal(counts.resolved, await waiting(engine, "orders"), "resolved, but not in the topic");
  }
  assert.ok(killed > 0, "no child was killed at work");
  // None is stuck after its lease: the next redrive takes the rest.
  await until(async () => {
    await engine.redriveAll({ topic: "orders" });
    return (await engine.statistics()).deadLetters.resolved === 300;
  }, "everything is sent back");
  const seen = new Recorder();
  await engine.consume("orders", member(), seen.handler);
  await seen.reaches(300);
  await holdsFor(() => seen.count === 300, 200);
  assert.equal(seen.distinct, 300);
}, "shared");

scenario("CONF-50", "a key whose runner died is run again after its lease", async (stage) => {
  const engine = await stage.open();
  const first = await stage.child("once");
  assert.equal((await first.done).signal, "SIGKILL");
  const others = [await stage.child("once"), await stage.child("once")];
  for (const { done } of others) assert.equal((await done).code, 0);
  assert.equal(stage.ledger("run").length, 2, "once by the one that died, once by one of the others");
  assert.equal(stage.ledger("result charged").length, 2);
  assert.equal(await engine.once("charge", () => "again"), "charged");
}, "shared");

scenario("CONF-52", "effect, message and record of a handler transaction are one wherever it dies",
  async (stage) => {
  const engine = await stage.open();
  await makeGroup(engine, "effects");
  await makeGroup(engine, "follow-ups");
  const table = [];
  await engine.consume("table", member({ group: "table", ack: "manual" }), (m) => {
    m.transaction((tx) => {
      tx.execute("CREATE TABLE IF NOT EXISTS effect(name TEXT NOT NULL)");
      table.push(tx.execute("SELECT name FROM effect ORDER BY name").map(([name]) => name));
    });
  });
  const read = async () => {
    const before = table.length;
    await engine.publish("table", "read");
    await until(() => table.length > before);
    return table.at(-1);
  };
  assert.deepEqual(await read(), []);
  const points = ["begin", "effect", "publish", "complete", "end"];
  const wanted = range(2).flatMap((round) => points.map((name) => `${round} ${name}`));
  await publishAll(engine, wanted.map((value) => ({ topic: "effects", value })));
  let child = await stage.child("transaction");
  await until(async () => {
    if (hasEnded(child)) child = await stage.child("transaction");
    return stage.ledger("died").length === wanted.length && (await isDone(engine, "effects"));
  }, "every death", 40_000);
  assert.deepEqual(stage.ledger("died").sort(), wanted.map((name) => `died ${name}`).sort());
  const followUps = new Recorder();
  await engine.consume("follow-ups", member(), followUps.handler);
  await followUps.reaches(wanted.length);
  await holdsFor(() => followUps.count === wanted.length, 200, "no follow-up is doubled");
  for (const name of wanted) {
    const stored = await engine.once(name, () => assert.fail(name), { scope: "effects" });
    assert.equal(stored.toString(), "stored");
  }
  assert.deepEqual(await read(), [...wanted].sort());
}, "sql");

scenario("CONF-67", "a process whose handler closes the engine exits cleanly", async (stage) => {
  const engine = await stage.open();
  await makeGroup(engine, "orders");
  await publishNumbers(engine, "orders", 1);
  const { done } = await stage.child("close");
  const { code, signal } = await done;
  assert.deepEqual([code, signal], [0, null]);
  assert.equal(stage.ledger("closed 0").length, 1);
  await until(() => isDone(engine, "orders"), "its message was acknowledged");
}, "shared");

scenario("CONF-86", "messages that come due while their scheduler is killed fire once each", async (stage) => {
  const count = 2_000;
  let engine = await stage.open();
  await makeGroup(engine, "later");
  const begin = Date.now() + 300;
  await publishAll(engine, range(count).map((n) =>
    ({ topic: "later", value: String(n), dueAt: begin + n / 2 })));
  await stage.close(engine);
  for (const round of range(6)) {
    const child = await stage.child("fire");
    await sleep(10 * (round + 1));
    child.child.kill("SIGKILL");
    await child.done;
  }
  engine = await stage.open();
  const seen = new Recorder();
  await engine.consume("later", member(), seen.handler);
  await seen.reaches(count);
  await holdsFor(() => seen.count === count, 300);
  assert.equal(seen.distinct, count);
  assert.deepEqual((await engine.pending()).items, []);
}, "shared");

scenario("CONF-94", "what another process publishes reaches an idle consumer at once, however many wait",
  async (stage) => {
  const engine = await stage.open();
  await stage.child("echo");
  for (const waitingCount of [1, 6]) {
    const seen = range(waitingCount).map(() => new Recorder());
    const consumers = [];
    for (const [i, recorder] of seen.entries()) {
      consumers.push(await engine.consume(`pong-${i}`, member(), recorder.handler));
    }
    const thereAndBack = [];
    for (const round of range(18)) {
      const i = round % waitingCount;
      const before = seen[i].count;
      const started = performance.now();
      await engine.publish("ping", `pong-${i}`);
      await seen[i].reaches(before + 1);
      thereAndBack.push(performance.now() - started);
    }
    // Who only looks once a second takes one on average, on the way there and back.
    thereAndBack.sort((a, b) => a - b);
    assert.ok(thereAndBack[9] < 250, `${waitingCount} wait: ${thereAndBack[9]} ms`);
    for (const consumer of consumers) await consumer.close();
  }
}, "shared");

scenario("CONF-43", "a message that does not decode is a dead letter and the consumer goes on", async (stage) => {
  const engine = await stage.open();
  await makeGroup(engine, "orders");
  for (const value of ["damaged", "fine", "too"]) {
    await engine.publish("orders", value, { headers: { tenant: "blue" } });
  }
  await damageMessage(stage, "orders");
  const seen = new Recorder();
  await engine.consume("orders", member(), seen.handler);
  await seen.reaches(2);
  await until(async () => (await deadLetters(engine)).length === 1, "a dead letter");
  assert.deepEqual(seen.texts.sort(), ["fine", "too"]);
  const [entry] = await deadLetters(engine);
  assert.deepEqual([entry.reason, entry.group], ["decode", "group"]);
  assert.ok(entry.payload.length > 0, "the raw bytes are kept");
  assert.equal(await inFlight(engine), 0);
  assert.equal((await engine.health()).ok, true);
}, "shared");
