// The idempotency store: one execution per key at a time, its result for everybody who asks again, and a
// failure is never a result.

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";

import { deadLetters, fail, gate, Gauge, member, range, Recorder, refused, scenario, until } from "./harness.mjs";

scenario("CONF-49", "sixteen callers of one key run it once and share the result", async (stage) => {
  const engines = [await stage.open(), await stage.open()];
  const gauge = new Gauge();
  let runs = 0;
  const work = () => gauge.around(async () => {
    await sleep(50);
    return `result ${(runs += 1)}`;
  });
  const results = await Promise.all(range(16).map((i) =>
    engines[i % 2].once("charge-17", work, { waitMsMax: 10_000 })));
  assert.deepEqual([runs, gauge.max, new Set(results)], [1, 1, new Set(["result 1"])]);
});

scenario("CONF-49", "without waiting the others are told that it is in progress", async (stage) => {
  const [engine, other] = [await stage.open(), await stage.open()];
  const [running, done] = [gate(), gate()];
  const mine = engine.once("charge", async () => {
    running.open();
    await done.opened;
    return "done";
  });
  await running.opened;
  for (const each of [engine, other]) await refused(each.once("charge", () => "no"), "ERR_IN_PROGRESS");
  done.open();
  assert.equal(await mine, "done");
  assert.equal(await other.once("charge", () => "no"), "done");
});

scenario("CONF-49", "nothing is a result too", async (stage) => {
  const engine = await stage.open();
  for (const [n, value] of ["", "0", 0, false, null, "null", [], Buffer.from([0])].entries()) {
    let runs = 0;
    for (let i = 0; i < 3; i += 1) {
      const result = await engine.once("falsy", () => ((runs += 1), value), { scope: `scope-${n}` });
      assert.deepEqual(result, value);
    }
    assert.equal(runs, 1, `${value}`);
  }
});

scenario("CONF-49", "scopes never meet", async (stage) => {
  const engine = await stage.open();
  assert.equal(await engine.once("key", () => "of a", { scope: "a" }), "of a");
  assert.equal(await engine.once("key", () => "of b", { scope: "b" }), "of b");
  assert.equal(await engine.once("key", () => "of none"), "of none");
  assert.equal(await engine.once("key", () => "again", { scope: "a" }), "of a");
  assert.equal((await engine.statistics()).idempotencyRecords, 3);
});

scenario("CONF-49", "a result outlives a restart and ends with its time to live", async (stage) => {
  let engine = await stage.open();
  const options = { ttlMs: 1_000 };
  const started = performance.now();
  await engine.once("key", () => "first", options);
  await stage.close(engine);
  engine = await stage.open();
  let runs = 0;
  const again = () => ((runs += 1), "second");
  assert.equal(await engine.once("key", again, options), "first");
  await until(async () => (await engine.once("key", again, options)) === "second", "the end of its time");
  assert.ok(performance.now() - started >= 1_000);
  assert.equal(runs, 1);
});

scenario("CONF-49", "a holder that is late loses its key", async (stage) => {
  const [engine, other] = [await stage.open(), await stage.open()];
  const options = { leaseMs: 100 };
  const [running, taken] = [gate(), gate()];
  const started = performance.now();
  const late = refused(engine.once("key", async () => {
    running.open();
    await taken.opened;
    return "late";
  }, options), "ERR_LEASE_LOST");
  await running.opened;
  const result = await other.once("key", () => {
    assert.ok(performance.now() - started >= 99, "taken over before the lease ended");
    taken.open();
    return "right";
  }, { ...options, waitMsMax: 10_000 });
  assert.equal(result, "right");
  await late;
  assert.equal(await engine.once("key", () => "again", options), "right");
});

scenario("CONF-51", "the same key with another payload is a mistake", async (stage) => {
  const engine = await stage.open();
  const [first, second] = [{ fingerprint: "payload-1" }, { fingerprint: "payload-2" }];
  let runs = 0;
  const work = () => ((runs += 1), "again");
  const done = await engine.once("key", async () => {
    await refused(engine.once("key", work, second), "ERR_KEY_MISMATCH"); // while it runs
    return "done";
  }, first);
  assert.equal(done, "done");
  await refused(engine.once("key", work, second), "ERR_KEY_MISMATCH"); // after it ran
  assert.equal(await engine.once("key", work, first), "done");
  assert.equal(await engine.once("key", work), "done", "without a fingerprint it is not compared");
  assert.equal(runs, 0);
});

scenario("CONF-53", "a failure is not a result", async (stage) => {
  const engine = await stage.open();
  let runs = 0;
  for (let i = 0; i < 3; i += 1) {
    await assert.rejects(engine.once("key", () => fail("Broken", `no ${(runs += 1)}`)), { name: "Broken" });
  }
  assert.equal(runs, 3, "the key is free at once");
  assert.equal(await engine.once("key", () => ((runs += 1), "yes")), "yes");
  assert.equal(await engine.once("key", () => ((runs += 1), "again")), "yes");
  assert.equal(runs, 4);
  await assert.rejects(engine.once("other", () => () => 1), { code: "ERR_PAYLOAD" }); // no JSON form
  assert.equal(await engine.once("other", () => "free"), "free");
});

scenario("CONF-53", "a first attempt that failed is retried and not taken for a duplicate", async (stage) => {
  const engine = await stage.open();
  const seen = new Recorder();
  const consumer = await engine.consume("orders", member({ inboxWindowMs: 86_400_000 }), (m) => {
    seen.add(m);
    if (m.attempt === 1) fail("Flaky");
  });
  await engine.publish("orders", "p");
  await until(() => consumer.statistics().acked === 1);
  assert.deepEqual([seen.count, consumer.statistics().duplicates], [2, 0]);
  assert.deepEqual(await deadLetters(engine), []);
});
