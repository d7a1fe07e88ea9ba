// Limits: how much runs, waits and is held at once; and pausing.

import assert from "node:assert/strict";
import { setImmediate as turn, setTimeout as sleep } from "node:timers/promises";

import { Limiter, Reject } from "towline";
import { VirtualClock } from "towline/testing";

import { deadLetters, fail, gate, Gauge, holdsFor, inFlight, makeDeadLetters, makeGroup, member, plain,
  publishAll, publishNumbers, range, Recorder, refused, scenario, until, waiting } from "./harness.mjs";
import { holdingStore } from "./intruder.mjs";

scenario("CONF-54", "never more handlers than the limit, and as many", async (stage) => {
  const engine = await stage.open();
  const seen = new Recorder();
  const gauge = new Gauge();
  const full = gate();
  const consumer = await engine.consume("orders", member({ concurrency: 7 }), (m) => gauge.around(async () => {
    seen.add(m);
    // The first ones wait for each other, so that the limit is reached for certain.
    if (gauge.max === 7) full.open();
    await full.opened;
    await turn();
  }));
  await publishNumbers(engine, "orders", 1_000);
  await seen.reaches(1_000);
  await consumer.drain();
  assert.deepEqual([gauge.max, consumer.statistics().runningMax, seen.distinct], [7, 7, 1_000]);
});

scenario("CONF-54", "the limit may be raised and lowered while messages flow", async (stage) => {
  const engine = await stage.open();
  const seen = new Recorder();
  const gauge = new Gauge();
  let limit = 2;
  const breaches = [];
  const consumer = await engine.consume("orders", member({ concurrency: 2 }), (m) => gauge.around(async () => {
    if (gauge.now > limit) breaches.push(`${gauge.now} with a limit of ${limit}`);
    seen.add(m);
    await sleep(1);
  }));
  await publishNumbers(engine, "orders", 500);
  await seen.reaches(50);
  limit = 9;
  consumer.setConcurrency(9);
  await until(() => gauge.max === 9 || seen.count === 500);
  assert.equal(gauge.max, 9, "the higher limit was not used");
  consumer.setConcurrency(1);
  // Those that run may go on; once they have returned, one at a time.
  await until(() => gauge.now <= 1);
  await seen.reaches(500);
  limit = 1;
  await publishNumbers(engine, "orders", 100, 500);
  await seen.reaches(600);
  assert.deepEqual(breaches, []);
  await refused(() => consumer.setConcurrency(0), "ERR_INVALID_CONFIG");
  await refused(() => consumer.setConcurrency(4_097), "ERR_INVALID_CONFIG");
});

scenario("CONF-54", "prefetch bounds what is held", async (stage) => {
  const engine = await stage.open();
  const { open, opened } = gate();
  const consumer = await engine.consume("orders", member({ concurrency: 2, prefetchCount: 5 }), () => opened);
  await publishNumbers(engine, "orders", 100);
  await until(() => consumer.statistics().running === 2);
  await holdsFor(async () => (await inFlight(engine)) <= 7, 100);
  assert.equal((await waiting(engine, "orders")) + (await inFlight(engine)), 100);
  open();
  await until(() => consumer.statistics().acked === 100);
});

scenario("CONF-54", "the byte limit bounds what is held and lets one large message through", async (stage) => {
  const engine = await stage.open();
  const { open, opened } = gate();
  const options = member({ prefetchCount: 1_000, prefetchBytesMax: 10_000 });
  const consumer = await engine.consume("orders", options, () => opened);
  await publishAll(engine, range(50).map((n) =>
    ({ topic: "orders", value: Buffer.alloc(n === 10 ? 50_000 : 3_000) })));
  await until(() => consumer.statistics().running === 1);
  await holdsFor(async () => (await inFlight(engine)) <= 5, 100);
  open();
  await until(() => consumer.statistics().acked === 50);
});

scenario("CONF-54", "a rate limit spreads the starts", async (stage) => {
  const engine = await stage.open();
  await makeGroup(engine, "orders");
  const seen = new Recorder();
  await publishNumbers(engine, "orders", 60);
  await engine.consume("orders", member({ concurrency: 4, ratePerSecond: 100 }), seen.handler);
  await seen.reaches(60);
  const span = seen.all.at(-1).started - seen.all[0].started;
  assert.ok(span >= 300, `faster than asked for: ${span} ms`);
  assert.ok(span <= 3_000, `slower than asked for: ${span} ms`);
});

plain("CONF-55", "permits return to their limit whoever gives up", async () => {
  const limiter = new Limiter(5, { waitingMax: 100 });
  const gauge = new Gauge();
  const ends = {};
  await Promise.all(range(16).map(async (task) => {
    for (let i = 0; i < 64; i += 1) {
      const dice = (task * 64 + i) * 7_919;
      const signal = dice % 4 === 0 ? AbortSignal.timeout(dice % 3) : undefined;
      let end = "granted";
      try {
        const permit = await limiter.acquire({ timeoutMs: dice % 3, signal });
        await gauge.around(() => (dice % 2 === 0 ? turn() : undefined));
        permit.release();
      } catch (error) {
        end = error.code;
      }
      ends[end] = (ends[end] ?? 0) + 1;
    }
  }));
  assert.ok(gauge.max <= 5);
  const { granted, ERR_TIMEOUT: timedOut = 0, ERR_CANCELLED: cancelled = 0, ...others } = ends;
  assert.deepEqual(others, {});
  assert.equal(granted + timedOut + cancelled, 1_024);
  const { limit, inUse, waiting: left, inUseMax } = limiter.statistics();
  assert.deepEqual([limit, inUse, left], [5, 0, 0], "a permit was lost, or a waiter left behind");
  assert.ok(inUseMax <= 5);
  for (let i = 0; i < 5; i += 1) assert.ok(limiter.tryAcquire());
  assert.equal(limiter.tryAcquire(), undefined);
});

plain("CONF-55", "permits are handed over in the order of asking", async () => {
  const limiter = new Limiter(1, { waitingMax: 1_000 });
  const held = await limiter.acquire();
  const order = [];
  const controllers = range(200).map(() => new AbortController());
  const waiters = controllers.map(async ({ signal }, i) => {
    const permit = await limiter.acquire({ timeoutMs: 30_000, signal });
    order.push(i);
    permit.release();
  });
  assert.equal(limiter.statistics().waiting, 200);
  for (const i of range(100)) controllers[2 * i].abort();
  const ended = Promise.allSettled(waiters);
  assert.equal(limiter.statistics().waiting, 100);
  assert.equal(limiter.tryAcquire(), undefined, "nobody slips in while others wait");
  held.release();
  await ended;
  assert.deepEqual(order, range(100).map((i) => 2 * i + 1));
});

plain("CONF-55", "a full queue of waiters refuses the next", async () => {
  const limiter = new Limiter(1, { waitingMax: 2 });
  const held = await limiter.acquire();
  const waiters = range(2).map(async () => (await limiter.acquire({ timeoutMs: 30_000 })).release());
  await refused(limiter.acquire({ timeoutMs: 30_000 }), "ERR_OVERLOADED");
  held.release();
  await Promise.all(waiters);
  assert.equal(limiter.statistics().inUse, 0);
});

scenario("CONF-56", "publishing into a store that stands still is bounded", async (stage) => {
  const engine = await stage.open({ publishInFlightCountMax: 4, publishTimeoutMs: 300 });
  await engine.publish("orders", "first");
  const before = process.memoryUsage().rss;
  const codes = [];
  await holdingStore(stage, async () => {
    await Promise.all(range(16).map(async () => {
      for (let i = 0; i < 3; i += 1) {
        const started = performance.now();
        const error = await engine.publish("orders", Buffer.alloc(100_000)).catch((caught) => caught);
        codes.push(error.code);
        assert.ok(performance.now() - started <= 5_000, "a publish has a deadline");
        if (error.code === "ERR_OVERLOADED") assert.equal(error.outcome, "rejected");
      }
    }));
  });
  assert.equal(codes.length, 48);
  const others = codes.filter((code) => code !== "ERR_TIMEOUT" && code !== "ERR_OVERLOADED");
  assert.deepEqual(others, [], "acknowledged while nothing could be written");
  const grown = process.memoryUsage().rss - before;
  assert.ok(grown <= 48 << 20, `${grown} bytes more are held`);
  await engine.publish("orders", "after");
}, "shared");

scenario("CONF-57", "a paused consumer takes nothing in until it is resumed", async (stage) => {
  const engine = await stage.open();
  const seen = new Recorder();
  const consumer = await engine.consume("orders", member(), seen.handler);
  await publishNumbers(engine, "orders", 10);
  await seen.reaches(10);
  consumer.pause();
  consumer.pause();
  await consumer.drain();
  assert.equal(consumer.statistics().paused, true);
  await publishNumbers(engine, "orders", 200, 10);
  await holdsFor(() => seen.count === 10, 200);
  assert.equal(await waiting(engine, "orders"), 200);
  consumer.resume();
  consumer.resume();
  await seen.reaches(210);
  assert.deepEqual([seen.distinct, consumer.statistics().paused], [210, false]);
});

scenario("CONF-57", "draining waits for what runs and says when it cannot", async (stage) => {
  const engine = await stage.open();
  const { open, opened } = gate();
  const seen = new Recorder();
  const consumer = await engine.consume("orders", member(), (m) => {
    seen.add(m);
    return opened;
  });
  await publishNumbers(engine, "orders", 3);
  await seen.reaches(1);
  await refused(consumer.drain({ timeoutMs: 100 }), "ERR_TIMEOUT");
  open();
  await consumer.drain();
  assert.equal(consumer.statistics().inFlight, 0);
  consumer.resume();
  await seen.reaches(3);
});

scenario("CONF-87", "a stepped wall clock moves due times and takes nothing from a running handler",
  async (stage) => {
  const clock = new VirtualClock();
  stage.keepWith(clock);
  const engine = await stage.open({ clock, leaseMs: 450 });
  const { open, opened } = gate();
  const [seen, fired] = [new Recorder(), new Recorder()];
  const running = await engine.consume("work", member({ group: "slow" }), (m) => {
    seen.add(m);
    return opened;
  });
  await engine.consume("later", member(), fired.handler);
  await engine.publish("work", "p");
  await engine.publish("later", "in an hour", { delayMs: 3_600_000 });
  await seen.reaches(1);
  for (const step of [1_800_000, -7_200_000]) {
    clock.stepWall(step);
    await holdsFor(() => fired.count === 0, 200, "not early by the clock that it was given");
  }
  clock.stepWall(10_800_000);
  clock.advance(1); // whoever waits by this clock looks again
  await fired.reaches(1, 3_000);
  await holdsFor(() => seen.count === 1, 300, "a step takes no running message away");
  open();
  await until(() => running.statistics().acked === 1);
  assert.equal(running.statistics().leaseLost, 0);
}, "virtualClock");

scenario("CONF-88", "a redrive of what dies again at once ends", async (stage) => {
  const engine = await stage.open();
  await makeDeadLetters(engine, "orders", 200);
  const seen = new Recorder();
  const consumer = await engine.consume("orders", member({ concurrency: 4 }), (m) => {
    seen.add(m);
    throw new Reject("again");
  });
  // Slow enough that the first ones are back before the last ones are sent.
  const report = await engine.redriveAll({ topic: "orders" }, { redriveMax: 1_000, ratePerSecond: 500 });
  assert.equal(report.redriven, 200, "only what was there when it began");
  await seen.reaches(200);
  await consumer.drain();
  assert.equal(seen.count, 200);
  assert.equal((await engine.statistics()).deadLetters.pending, 200);
});

scenario("CONF-89", "all consumers of an engine together hold no more than its limit", async (stage) => {
  const engine = await stage.open({ inFlightCountMax: 10 });
  const { open, opened } = gate();
  const seen = new Recorder();
  for (const n of range(4)) {
    await engine.consume("orders", member({ group: `group-${n}`, prefetchCount: 50 }), async (m) => {
      await opened;
      seen.add(m);
    });
  }
  await publishNumbers(engine, "orders", 100);
  await until(async () => (await inFlight(engine)) > 0, "something in flight");
  // Several lanes may look at the room that is left at the same time, each for one hand-out.
  await holdsFor(async () => (await inFlight(engine)) <= 40, 200);
  open();
  await seen.reaches(400);
  await holdsFor(() => seen.count === 400, 50);
});

scenario("CONF-91", "beyond the retry budget a retry waits the longest", async (stage) => {
  const engine = await stage.open();
  const seen = new Recorder();
  const retry = { initialDelayMs: 1, delayMsMax: 3_600_000, maxAttempts: 1_000, budgetRatio: 0.2 };
  await engine.consume("orders", member({ retry }), (m) => {
    seen.add(m);
    fail("Down");
  });
  await publishNumbers(engine, "orders", 100);
  // Without a budget this would go on for ever; with one the retries run out.
  const scheduled = async () => (await engine.statistics()).scheduledNow;
  const stays = () => holdsFor(async () => (await scheduled()) === 100, 200).then(() => true, () => false);
  await until(stays, "all wait, and go on waiting");
  assert.ok(seen.count <= 150, "more retries than a fifth of the deliveries");
  assert.deepEqual(await deadLetters(engine), []);
});

scenario("CONF-92", "a failed message that is too old is not retried", async (stage) => {
  const engine = await stage.open();
  await makeGroup(engine, "orders");
  await engine.publish("orders", "old");
  await sleep(150);
  const seen = new Recorder();
  await engine.consume("orders", member({ deadLetters: { ageMsMax: 100 } }), (m) => {
    seen.add(m);
    fail("Broken");
  });
  await until(async () => (await deadLetters(engine)).length === 1, "a dead letter");
  assert.equal(seen.count, 1, "tried once, whatever its age");
  assert.equal((await deadLetters(engine))[0].reason, "max_age");
});

scenario("CONF-93", "what is overdue after a downtime is fired at the catch-up rate", async (stage) => {
  // In memory the downtime is a step of the clock; else nobody is there meanwhile. No other engine may keep the
  // store alive: it would fire at its own rate.
  const options = { catchUpRatePerSecond: 100 };
  const clock = stage.provider.virtualClock ? new VirtualClock() : undefined;
  let engine = await stage.openAlone({ ...options, clock });
  await makeGroup(engine, "later");
  await publishAll(engine, range(60).map((n) => ({ topic: "later", value: String(n), delayMs: 100 + n })));
  if (clock === undefined) {
    await stage.close(engine);
    await sleep(300);
    engine = await stage.openAlone(options);
  }
  const seen = new Recorder();
  await engine.consume("later", member(), seen.handler);
  clock?.advance(3_600_000);
  const now = () => clock?.now().getTime() ?? performance.now();
  const from = now();
  while (seen.count < 60) {
    await sleep(20);
    clock?.advance(20);
  }
  const span = now() - from;
  assert.ok(span >= 300, `60 at 100/s, with at most a tenth of a second at once, came in ${span} ms`);
});
