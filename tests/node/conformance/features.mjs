// What a consumer can be told to do: filter, live for the moment only, expire, prefer, remember, protect a
// dependency, acknowledge first, take batches, name its partitions; and the kinds of topics.

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";

import { VirtualClock } from "towline/testing";

import { deadLetters, fail, holdsFor, inFlight, makeGroup, member, publishAll, publishNumbers, QUICK_RETRY,
  range, Recorder, refused, scenario, until, waiting } from "./harness.mjs";
import { holdingStore } from "./intruder.mjs";

const HOUR = 3_600_000;

scenario("CONF-71", "a filter takes what it names and counts the rest", async (stage) => {
  const engine = await stage.open();
  const [some, all] = [new Recorder(), new Recorder()];
  const filter = "region = 'eu' and $priority >= 5 or exists vip";
  const filtered = await engine.consume("orders", member({ group: "some", filter }), some.handler);
  await engine.consume("orders", member({ group: "all" }), all.handler);
  const publish = (name, headers, priority) => engine.publish("orders", name, { headers, priority });
  await publish("eu high", { region: "eu" }, 9);
  await publish("eu low", { region: "eu" }, 1);
  await publish("us high", { region: "us" }, 9);
  await publish("none", {}, 9);
  await publish("vip", { vip: "" }, 0);
  await all.reaches(5);
  await until(() => some.count === 2 && filtered.statistics().filtered === 3);
  assert.deepEqual(some.texts.sort(), ["eu high", "vip"]);
  await until(async () => (await waiting(engine, "orders", "some")) === 0, "the others are acknowledged");
});

scenario("CONF-72", "every ephemeral subscriber sees every message of its time", async (stage) => {
  const [engine, other] = [await stage.open(), await stage.open()];
  await engine.publish("prices", "before");
  const [first, second, late] = [new Recorder(), new Recorder(), new Recorder()];
  const ephemeral = member({ group: "" });
  const a = await engine.consume("prices", ephemeral, first.handler);
  await other.consume("prices.#", ephemeral, second.handler);
  await publishNumbers(engine, "prices", 100);
  await first.reaches(100);
  await second.reaches(100);
  assert.deepEqual([first.distinct, first.texts.includes("before")], [100, false]);
  await a.close();
  await publishNumbers(engine, "prices", 10, 100);
  await second.reaches(110);
  await engine.consume("prices", ephemeral, late.handler);
  await publishNumbers(engine, "prices", 1, 1_000);
  await late.reaches(1);
  assert.deepEqual(late.texts, ["1000"], "nothing was kept for it");
});

scenario("CONF-72", "an ephemeral subscriber's failure is its own business", async (stage) => {
  const engine = await stage.open();
  const seen = new Recorder();
  await engine.consume("prices", member({ group: "" }), (m) => {
    seen.add(m);
    if (m.value === "0") fail("Broken");
  });
  await publishNumbers(engine, "prices", 3);
  await until(() => seen.distinct === 3);
  await holdsFor(async () => (await deadLetters(engine)).length === 0, 200);
});

scenario("CONF-73", "a message whose time is over becomes a dead letter and is not handled", async (stage) => {
  const engine = await stage.open();
  await makeGroup(engine, "offers");
  await engine.publish("offers", "short", { ttlMs: 50 });
  await engine.publish("offers", "long", { ttlMs: HOUR });
  await engine.publish("offers", "delayed", { ttlMs: 2_000, delayMs: 150 });
  await sleep(100);
  const seen = new Recorder();
  const consumer = await engine.consume("offers", member(), seen.handler);
  await seen.reaches(2);
  await until(async () => (await deadLetters(engine)).length === 1, "a dead letter");
  assert.deepEqual(seen.texts.sort(), ["delayed", "long"], "the time of a delayed one begins when it is due");
  const [entry] = await deadLetters(engine);
  assert.deepEqual([entry.payload.toString(), entry.reason], ["short", "expired"]);
  assert.equal(consumer.statistics().expired, 1);
});

scenario("CONF-74", "a higher priority is handed out first", async (stage) => {
  const engine = await stage.open();
  await makeGroup(engine, "jobs");
  for (const n of range(30)) await engine.publish("jobs", String(n), { priority: (n % 3) * 4 });
  const seen = new Recorder();
  await engine.consume("jobs", member(), seen.handler);
  await seen.reaches(30);
  const wanted = [2, 1, 0].flatMap((rest) => range(30).filter((n) => n % 3 === rest).map(String));
  assert.deepEqual(seen.texts, wanted);
});

scenario("CONF-75", "within the inbox window a second delivery is passed over", async (stage) => {
  const engine = await stage.open();
  const [seen, other] = [new Recorder(), new Recorder()];
  const consumer = await engine.consume("orders", member({ inboxWindowMs: 24 * HOUR }), seen.handler);
  const { id } = await engine.publish("orders", "p");
  await seen.reaches(1);
  await consumer.drain();
  consumer.resume();
  // The same message once more, as a producer does that repeats a publish whose outcome it does not know.
  await engine.publish("orders", "p", { id });
  await until(() => consumer.statistics().duplicates === 1);
  assert.equal(seen.count, 1);
  await engine.consume("orders", member({ group: "other" }), other.handler);
  await engine.publish("orders", "new");
  await seen.reaches(2);
});

scenario("CONF-76", "a failing dependency pauses intake and uses up no attempts", async (stage) => {
  const engine = await stage.open();
  const seen = new Recorder();
  let down = true;
  const breaker = { enabled: true, throughputMin: 10, openMs: 300, probeCount: 2 };
  const consumer = await engine.consume("orders", member({ retry: { maxAttempts: 100 }, breaker }), (m) => {
    seen.add(m);
    if (down) fail("ConnectionRefused", "down");
  });
  await publishNumbers(engine, "orders", 200);
  await until(() => consumer.statistics().breakerOpen);
  await sleep(100); // what was in hand may still run; then it is quiet but for probes
  const before = seen.count;
  assert.ok(before < 100, "the breaker opened late");
  await sleep(1_000);
  assert.ok(seen.count - before <= 20, "an open breaker lets only probes through");
  down = false;
  await until(() => consumer.statistics().acked === 200);
  assert.equal(consumer.statistics().breakerOpen, false);
  assert.ok(seen.all.every((one) => one.attempt <= 20));
  assert.deepEqual(await deadLetters(engine), []);
});

scenario("CONF-77", "a publish that cannot succeed is a dead letter and its error is returned", async (stage) => {
  const engine = await stage.open({ publishTimeoutMs: 100, publishInFlightCountMax: 1 });
  await makeGroup(engine, "orders");
  let publishing;
  await holdingStore(stage, async () => {
    // Given up while the store stands still; the dead letter can be written once it goes on.
    publishing = engine.publishWithRetry("orders", "p", { retry: { ...QUICK_RETRY, maxAttempts: 2 } })
      .catch((error) => error);
    await sleep(500);
  });
  const ended = await publishing;
  if (ended.outcome === "acked") {
    assert.equal(await waiting(engine, "orders"), 1);
    assert.deepEqual(await deadLetters(engine), []);
  } else {
    const [entry] = await deadLetters(engine);
    assert.deepEqual([entry.reason, entry.group], ["publish_failed", ""]);
  }
  await engine.publishWithRetry("orders", "fine", { retry: { ...QUICK_RETRY, maxAttempts: 2 } });
}, "shared");

scenario("CONF-78", "acknowledged first a message is handled at most once", async (stage) => {
  const engine = await stage.open();
  const held = [];
  await engine.consume("orders", member({ ack: "first" }), async () => {
    held.push(await inFlight(engine));
    fail("Broken");
  });
  for (const n of range(5)) {
    await publishNumbers(engine, "orders", 1, n);
    await until(() => held.length === n + 1);
  }
  await holdsFor(() => held.length === 5, 200);
  assert.deepEqual(held, [0, 0, 0, 0, 0], "it is settled before the handler starts");
  assert.equal(await waiting(engine, "orders"), 0);
});

scenario("CONF-79", "a batch is handled together and settled one by one where it says so", async (stage) => {
  const engine = await stage.open();
  await makeGroup(engine, "orders");
  await publishNumbers(engine, "orders", 100);
  const sizes = [];
  const seen = new Recorder();
  const consumer = await engine.consumeBatches("orders", member({ batchCountMax: 40 }), (batch) => {
    sizes.push(batch.length);
    let isBroken = false;
    for (const m of batch) {
      seen.add(m);
      const n = Number(m.value);
      if (n === 7) m.reject("seven");
      else if (n === 8 && m.attempt === 1) m.nak({ afterMs: 0 });
      else if (n % 2 === 0) m.ack();
      else if (n === 9 && m.attempt === 1) isBroken = true;
    }
    if (isBroken) fail("Broken", "the batch of 9");
  });
  await until(() => consumer.statistics().acked === 99);
  const { times } = seen;
  assert.deepEqual([times[7], times[8], times[9], times[10]], [1, 2, 2, 1],
    "what settled by itself is not touched by the batch's failure");
  assert.equal((await deadLetters(engine)).length, 1);
  assert.equal(Math.max(...sizes), 40);
});

scenario("CONF-80", "a transaction that fails leaves nothing and a good one everything", async (stage) => {
  const engine = await stage.open();
  await makeGroup(engine, "follow-ups");
  const counts = [];
  const errors = [];
  const consumer = await engine.consume("orders", member({ ack: "manual" }), async (m) => {
    const body = (isGood) => (tx) => {
      tx.execute("CREATE TABLE IF NOT EXISTS effect(name TEXT, amount INTEGER)");
      tx.execute("INSERT INTO effect VALUES (?1, ?2)", ["charge", 42]);
      tx.publish("follow-ups", isGood ? "good" : "bad");
      tx.complete("scope", "key", "result");
      counts.push(tx.execute("SELECT amount FROM effect").length);
      for (const forbidden of ["COMMIT", "BEGIN", "ATTACH 'x' AS y", "PRAGMA synchronous=OFF", "SAVEPOINT s"]) {
        assert.throws(() => tx.execute(forbidden), { code: "ERR_INVALID_ARGUMENT" }, forbidden);
      }
      if (!isGood) fail("Own", "no");
    };
    try {
      assert.throws(() => m.transaction(body(false)), { name: "Own", message: "no" });
      m.transaction(body(true));
      await refused(() => m.ack(), "ERR_ALREADY_SETTLED"); // the transaction acknowledged it
    } catch (error) {
      errors.push(error);
    }
  });
  await engine.publish("orders", "p");
  await until(async () => counts.length === 2 && (await inFlight(engine)) === 0 &&
    (await waiting(engine, "orders")) === 0, "it is acknowledged");
  await consumer.close();
  assert.deepEqual(errors, []);
  assert.deepEqual(counts, [1, 1], "the first effect was rolled back");
  const followUps = new Recorder();
  await engine.consume("follow-ups", member(), followUps.handler);
  await followUps.reaches(1);
  await holdsFor(() => followUps.count === 1, 100);
  assert.deepEqual(followUps.texts, ["good"]);
  const stored = await engine.once("key", () => "again", { scope: "scope" });
  assert.equal(stored.toString(), "result");
}, "sql");

scenario("CONF-81", "a log topic is read by every group at its own pace", async (stage) => {
  const engine = await stage.open();
  await engine.declareTopic("events", { type: "log", retentionMs: HOUR });
  for (let n = 0; n < 500; n += 50) await publishNumbers(engine, "events", 50, n);
  for (const group of ["first", "second"]) {
    const seen = new Recorder();
    const consumer = await engine.consume("events", member({ group }), seen.handler);
    await seen.reaches(500);
    await consumer.close();
    assert.deepEqual(seen.texts, range(500).map(String), group);
  }
  const [rest, failing] = [new Recorder(), new Recorder()];
  await engine.consume("events", member({ group: "first" }), rest.handler);
  await publishNumbers(engine, "events", 5, 500);
  await rest.reaches(5);
  await holdsFor(() => rest.count === 5, 100, "a group goes on where it was");
  await engine.consume("events", member({ group: "third" }), (m) => {
    failing.add(m);
    if (m.value === "3") fail("Broken");
  });
  await until(async () => failing.distinct === 505 && (await deadLetters(engine)).length === 1, "all of it");
  assert.equal(failing.times[3], 3, "retried as everywhere");
});

scenario("CONF-82", "a bus topic reaches only the subscribers of the moment", async (stage) => {
  const engine = await stage.open();
  await engine.declareTopic("bus", { type: "bus" });
  await engine.publish("bus", "nobody");
  const seen = new Recorder();
  await engine.consume("bus", member({ group: "" }), seen.handler);
  await publishNumbers(engine, "bus", 50);
  await seen.reaches(50);
  assert.ok(!seen.texts.includes("nobody"));
});

scenario("CONF-83", "a member that names partitions gets those and no others", async (stage) => {
  const engine = await stage.open();
  await engine.declareTopic("orders", { partitionCount: 8 });
  const [low, high] = [new Recorder(), new Recorder()];
  await engine.consume("orders", member({ ordering: "key", partitions: [0, 1, 2] }), low.handler);
  await engine.consume("orders", member({ ordering: "key", partitions: [3, 4, 5, 6, 7] }), high.handler);
  await publishAll(engine, range(400).map((n) => ({ topic: "orders", value: String(n), key: `key-${n}` })));
  await until(() => low.count + high.count === 400);
  assert.ok(low.count > 50 && high.count > 100);
  assert.ok(low.all.every(({ message }) => message.partition <= 2));
  assert.ok(high.all.every(({ message }) => message.partition >= 3));
});

scenario("CONF-84", "with a virtual clock a day passes in one call", async (stage) => {
  const clock = new VirtualClock();
  stage.keepWith(clock);
  const engine = await stage.open({ clock });
  const seen = new Recorder();
  const times = [];
  await engine.consume("orders", member({ retry: { initialDelayMs: HOUR, delayMsMax: HOUR } }), (m) => {
    times.push(clock.now());
    seen.add(m);
    if (m.value === "flaky" && m.attempt < 3) fail("Flaky");
  });
  const begin = clock.now();
  const started = performance.now();
  await engine.publish("orders", "tomorrow", { delayMs: 24 * HOUR });
  await engine.publish("orders", "flaky");
  await engine.settleDown();
  assert.equal(seen.count, 1);
  for (const [hours, count] of [[1, 2], [1, 3], [22 - 1 / 60, 3], [1 / 60, 4]]) {
    await clock.advanceAndSettle(engine, hours * HOUR);
    assert.equal(seen.count, count);
  }
  assert.equal(seen.texts.at(-1), "tomorrow");
  assert.equal(times.at(-1) - begin, 24 * HOUR);
  assert.ok(performance.now() - started < 5_000);
}, "virtualClock");
