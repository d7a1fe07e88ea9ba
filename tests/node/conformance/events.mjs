// The event store: versions without gaps under contention, and readers that miss nothing and see nothing twice.

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

import { LEASE_MS, makeGroup, member, range, Recorder, refused, scenario, until } from "./harness.mjs";

const event = (value, type = "happened", more = {}) => ({ type, value, ...more });
const texts = (events) => events.map((one) => one.payload.toString());

async function appendNumbers(engine, stream, count) {
  for (const n of range(count)) await engine.eventStore.append(stream, [event(`${n}`)]);
}

scenario("CONF-64", "of eight writers at one version one wins", async (stage) => {
  const engines = [await stage.open(), await stage.open()];
  const versions = 25n;
  let [won, refusals] = [0, 0];
  await Promise.all(range(8).map(async (writer) => {
    const { eventStore } = engines[writer % 2];
    for (let version = 0n; version < versions; ) {
      try {
        const { firstVersion } = await eventStore.append("order-1", [event(`${writer}`)], { expected: version });
        won += 1;
        assert.equal(firstVersion, version + 1n);
      } catch (error) {
        assert.equal(error.code, "ERR_CONFLICT");
        refusals += 1;
      }
      version = (await eventStore.findStream("order-1")).newestVersion;
    }
  }));
  const { events } = await engines[0].eventStore.read("order-1");
  assert.deepEqual(events.map((one) => one.version), range(won, 1).map(BigInt));
  assert.ok(won >= 25 && won < 33 && refusals > 0, `${won} won, ${refusals} were refused`);
});

scenario("CONF-64", "an append can be repeated", async (stage) => {
  const { eventStore } = await stage.open();
  const one = event("one", "happened", { id: "018f0000-0000-7000-8000-000000000001" });
  const two = event("two", "happened", { id: "018f0000-0000-7000-8000-000000000002" });
  const appended = await eventStore.append("order-1", [one, two], { expected: 0 });
  assert.equal(appended.duplicate, false);
  await eventStore.append("order-1", [event("three")]);
  const again = await eventStore.append("order-1", [one, two], { expected: 0 });
  assert.deepEqual(again, { ...appended, duplicate: true });
  await refused(eventStore.append("order-1", [two, event("four")]), "ERR_CONFLICT");
  await refused(eventStore.append("order-1", [event("four")], { expected: 2n }), "ERR_CONFLICT");
  assert.deepEqual(texts((await eventStore.read("order-1")).events), ["one", "two", "three"]);
});

scenario("CONF-64", "an event is read as it was appended", async (stage) => {
  const { eventStore } = await stage.open();
  const values = [{ n: 1, s: "ün\u{1f680}" }, "text", Buffer.from(range(256))];
  const appended = await eventStore.append("order-1",
    values.map((value) => event(value, "order.placed", { headers: { a: "ü" } })));
  const page = await eventStore.read("order-1");
  assert.deepEqual([page.end, page.next], [true, 4n]);
  assert.deepEqual(page.events.map((one) => one.value), values);
  assert.deepEqual(page.events.map((one) => one.contentType),
    ["application/json", "text/plain; charset=utf-8", ""]);
  const last = page.events[2];
  assert.deepEqual([last.stream, last.version, last.position, last.type, last.headers],
    ["order-1", 3n, appended.lastPosition, "order.placed", { a: "ü" }]);
  assert.ok(last.recordedAt instanceof Date && last.id.length === 36);
  const backwards = await eventStore.readBackwards("order-1", { countMax: 2 });
  const rest = await eventStore.readBackwards("order-1", { from: backwards.next });
  assert.deepEqual([...backwards.events, ...rest.events].map((one) => one.version), [3n, 2n, 1n]);
  assert.deepEqual([backwards.end, rest.end], [false, true]);
  assert.deepEqual(await eventStore.readAll(), page);
  await eventStore.append("order-2", [event("other")]);
  const listed = await eventStore.streams({ prefix: "order-", countMax: 1 });
  const more = await eventStore.streams({ prefix: "order-", cursor: listed.cursor });
  assert.deepEqual([...listed.items, ...more.items].map((one) => one.name), ["order-1", "order-2"]);
  assert.equal(await eventStore.findStream("order-3"), undefined);
});

scenario("CONF-64", "a handler appends with its transaction or not at all", async (stage) => {
  if (!stage.provider.sql) return; // no SQL
  const engine = await stage.open();
  const seen = [];
  await engine.consume("orders", member({ ack: "manual" }), (message) => {
    const expected = Number(message.headers.expected);
    try {
      message.transaction((transaction) => {
        transaction.append("order-1", [event(message.payload)], { expected });
      });
      seen.push("done");
    } catch (error) {
      assert.equal(error.code, "ERR_CONFLICT");
      seen.push("conflict");
      message.reject("too late");
    }
  });
  for (const expected of ["0", "0", "1"]) await engine.publish("orders", `p${expected}`, { headers: { expected } });
  await until(() => seen.length === 3);
  assert.deepEqual(seen.sort(), ["conflict", "done", "done"]);
  assert.deepEqual(texts((await engine.eventStore.read("order-1")).events), ["p0", "p1"]);
});

scenario("CONF-65", "a reader behind eight writers sees each event once and in order", async (stage) => {
  const [writers, each] = [8, 100];
  const engines = [await stage.open(), await stage.open()];
  const subscription = await engines[1].eventStore.subscribe("reader", { batchCountMax: 7 });
  const writing = Promise.all(range(writers).map(async (writer) => {
    for (let n = 0; n < each; n += 2) {
      await engines[writer % 2].eventStore.append(`stream-${writer}`, [event(`${n}`), event(`${n + 1}`)]);
    }
  }));
  // Each page behind the last event of the one before: nothing is passed over.
  const reading = (async () => {
    const read = {};
    let [behind, left] = [0n, writers * each];
    while (left > 0) {
      for (const one of (await engines[0].eventStore.readAll({ from: behind + 1n, countMax: 7 })).events) {
        assert.ok(one.position > behind);
        assert.equal(one.value, `${read[one.stream] ?? 0}`);
        read[one.stream] = (read[one.stream] ?? 0) + 1;
        [behind, left] = [one.position, left - 1];
      }
    }
  })();
  const numbers = {};
  let [count, position] = [0, 0n];
  for await (const batch of subscription) {
    assert.ok(batch.length >= 1 && batch.length <= 7);
    for (const one of batch) {
      assert.ok(one.position > position);
      position = one.position;
      numbers[one.stream] ??= 0;
      assert.equal(one.value, `${numbers[one.stream]++}`);
      count += 1;
    }
    if (count >= writers * each) break;
  }
  await Promise.all([writing, reading]);
  assert.equal(count, writers * each);
  assert.deepEqual(await subscription.receive({ timeoutMs: 0 }), []);
});

scenario("CONF-95", "a subscription goes on behind its checkpoint in another engine", async (stage) => {
  const [first, second] = [await stage.open(), await stage.open()];
  await appendNumbers(first, "order-1", 10);
  const mine = await first.eventStore.subscribe("reader");
  const others = await second.eventStore.subscribe("reader");
  const got = await mine.receive({ countMax: 6, timeoutMs: 5_000 });
  assert.equal(got.length, 6);
  assert.deepEqual(await others.receive({ countMax: 6, timeoutMs: 0 }), [], "one is active");
  await mine.checkpoint(got[3].position);
  const { active, checkpoint } = await mine.statistics();
  assert.deepEqual([active, checkpoint], [true, got[3].position]);
  assert.equal((await others.statistics()).active, false);
  await stage.close(first);
  const rest = await others.receive({ timeoutMs: 10_000 });
  assert.deepEqual(texts(rest), range(6, 4).map(String));
  await refused(mine.receive(), "ERR_CLOSED");
  assert.equal(await mine.close(), true);
});

scenario("CONF-95", "what a loop is left with comes again", async (stage) => {
  const { eventStore } = await stage.open();
  await appendNumbers({ eventStore }, "order-1", 9);
  const seen = [];
  const work = async (subscription, failsAt) => {
    for await (const batch of subscription) {
      seen.push(batch.map((one) => one.value).join(""));
      if (batch.at(-1).value === failsAt) throw new Error("the database is away");
    }
  };
  const subscription = await eventStore.subscribe("reader", { stream: "order-1", batchCountMax: 3 });
  await assert.rejects(work(subscription, "5"), /away/);
  assert.equal((await subscription.statistics()).checkpoint, 3n);
  await assert.rejects(work(subscription, "8"), /away/);
  assert.equal(await subscription.close(), true);
  const again = await eventStore.subscribe("reader", { stream: "order-1" });
  assert.deepEqual((await again.receive({ timeoutMs: 10_000 })).map((one) => one.version), [7n, 8n, 9n]);
  assert.deepEqual(seen, ["012", "345", "345", "678"]);
});

scenario("CONF-95", "a receive that is aborted loses nothing", async (stage) => {
  const { eventStore } = await stage.open();
  const subscription = await eventStore.subscribe("reader");
  for (const n of range(20)) {
    const leaving = new AbortController();
    const first = subscription.receive({ countMax: 1, signal: leaving.signal }).catch((error) => {
      assert.equal(error.code, "ERR_CANCELLED");
      return [];
    });
    // Some are aborted while they wait, some when the answer is on its way.
    const appending = eventStore.append("order-1", [event(`${n}`)]);
    if (n % 2 === 0) await sleep(n / 10);
    leaving.abort();
    await appending;
    const got = await first;
    if (got.length === 0) got.push(...await subscription.receive({ countMax: 1, timeoutMs: 10_000 }));
    assert.deepEqual(got.map((one) => one.value), [`${n}`]);
  }
  assert.deepEqual(await subscription.receive({ timeoutMs: 0 }), []);
});

scenario("CONF-95", "who drops a subscription gives its turn away", async (stage) => {
  setFlagsFromString("--expose-gc");
  const gc = runInNewContext("gc");
  const [engine, other] = [await stage.open(), await stage.open()];
  await engine.eventStore.append("order-1", [event("one")]);
  await engine.eventStore.subscribe("reader");
  const next = await other.eventStore.subscribe("reader");
  // Well within the lease, which outlives the test.
  await until(async () => {
    gc();
    return (await next.receive({ timeoutMs: 0 })).length === 1;
  }, "the turn of a subscription that nobody holds");
});

scenario("CONF-95", "closing ends who waits", async (stage) => {
  const engine = await stage.open();
  const { eventStore } = engine;
  const closed = await eventStore.subscribe("closed", { fromEnd: true });
  const looping = (async () => {
    for await (const batch of closed) assert.fail(`${batch.length} events`);
    return "ended";
  })();
  const subscription = await eventStore.subscribe("reader", { fromEnd: true });
  const waiting = subscription.receive().catch((error) => error.code);
  const behind = subscription.receive().catch((error) => error.code);
  assert.equal(await closed.close(), true);
  assert.equal(await looping, "ended");
  const began = performance.now();
  await stage.close(engine);
  assert.deepEqual(await Promise.all([waiting, behind]), ["ERR_CLOSED", "ERR_CLOSED"]);
  assert.ok(performance.now() - began < 5_000);
});

const quick = { kind: "fixed", initialDelayMs: 1, jitter: "none" };

for (const kind of ["async", "plain"]) {
  scenario("CONF-95", `a handler gets what failed again and nothing is passed over, ${kind}`, async (stage) => {
    const { eventStore } = await stage.open();
    const handled = [];
    let calls = 0;
    const work = (batch) => {
      calls += 1;
      if (calls % 2 === 1) throw new Error("the database is away");
      handled.push(...batch.map((one) => one.value));
    };
    const inLoop = async (batch) => {
      await null;
      work(batch);
    };
    const subscription = await eventStore.subscribe("reader", { batchCountMax: 3, retry: quick },
      kind === "plain" ? work : inLoop);
    for (const n of range(20)) await eventStore.append(`stream-${n % 3}`, [event(`${n}`)]);
    await until(async () => (await subscription.statistics()).handled >= 20n);
    await refused(subscription.receive({ timeoutMs: 0 }), "ERR_INVALID_ARGUMENT", "handler");
    assert.deepEqual([await subscription.close(), await subscription.close()], [true, true]);
    assert.deepEqual(handled, range(20).map(String));
    await eventStore.append("stream-0", [event("late")]);
    const last = await eventStore.subscribe("reader");
    assert.deepEqual(texts(await last.receive({ timeoutMs: 10_000 })), ["late"]);
  });
}

scenario("CONF-95", "the checkpoint moves when the handler has returned", async (stage) => {
  let engine = await stage.open();
  const seen = [];
  let [begun, end] = [0, () => {}];
  let mayEnd = new Promise((resolve) => (end = resolve));
  const stopped = [];
  const handle = async (batch, { signal }) => {
    begun += 1;
    signal.addEventListener("abort", () => stopped.push(batch[0].value));
    await mayEnd;
    seen.push(...batch.map((one) => one.value));
  };
  await appendNumbers(engine, "order-1", 3);
  const options = { stream: "order-1", retry: quick };
  const subscription = await engine.eventStore.subscribe("reader", options, handle);
  await until(() => begun === 1);
  assert.equal((await subscription.statistics()).checkpoint, 0n);
  setTimeout(end, 20);
  assert.equal(await subscription.close(), true, "it waits for its handler");
  assert.deepEqual(seen, ["0", "1", "2"]);
  await stage.close(engine);

  engine = await stage.open({ leaseMs: LEASE_MS }); // of one that is given up it ends by itself
  mayEnd = new Promise(() => {});
  await engine.eventStore.append("order-1", [event("3")]);
  await engine.eventStore.subscribe("reader", options, handle);
  await until(() => begun === 2);
  stage.forget(engine);
  await engine.close({ timeoutMs: 50 }); // it is given up, and does not count
  assert.ok(stopped.includes("3"));

  engine = await stage.open();
  mayEnd = Promise.resolve();
  const again = await engine.eventStore.subscribe("reader", options, handle);
  await until(async () => (await again.statistics()).handled === 1n);
  assert.deepEqual(seen, ["0", "1", "2", "3"]);
});

scenario("CONF-95", "a handler closes its own subscription and its engine", async (stage) => {
  const engine = await stage.open();
  const { eventStore } = engine;
  const seen = [];
  let [subscription, subscribed] = [undefined, () => {}];
  const ready = new Promise((resolve) => (subscribed = resolve));
  // Until it is closed the next batch may come.
  subscription = await eventStore.subscribe("reader", { batchCountMax: 1 }, async ([first]) => {
    await ready;
    seen.push(first.value);
    assert.equal(await subscription.close(), true);
  });
  subscribed();
  await appendNumbers(engine, "order-1", 20);
  await until(() => seen.length > 0);
  await subscription.close();
  stage.forget(engine);
  const closed = new Promise((resolve) => engine.events.once("closed", resolve));
  const closeAll = async ([first]) => {
    seen.push(first.value);
    assert.equal(await engine.close(), 0);
  };
  // The engine may be closed before this is answered.
  await eventStore.subscribe("reader", { batchCountMax: 1 }, closeAll)
    .catch((error) => assert.equal(error.code, "ERR_CLOSED"));
  await closed;
  assert.ok(seen.length >= 2 && seen.length < 20, `${seen.length} batches`);
  assert.deepEqual(seen, range(seen.length).map(String));
  await refused(eventStore.subscribe("reader", {}, closeAll), "ERR_CLOSED");
});

scenario("CONF-95", "what is no handler is refused, and a signal closes the subscription", async (stage) => {
  const { eventStore } = await stage.open();
  for (const wrong of [null, {}, "handle", 5]) {
    await refused(eventStore.subscribe("reader", {}, wrong), "ERR_INVALID_ARGUMENT", "must be a function");
  }
  const leaving = new AbortController();
  const seen = [];
  await eventStore.subscribe("reader", { signal: leaving.signal }, (batch) => seen.push(...texts(batch)));
  await eventStore.append("order-1", [event("one")]);
  await until(() => seen.length === 1);
  leaving.abort();
  const next = await eventStore.subscribe("reader");
  await eventStore.append("order-1", [event("two")]);
  await until(async () => texts(await next.receive({ timeoutMs: 100 })).includes("two"));
  assert.deepEqual(seen, ["one"]);
});

scenario("CONF-96", "events are streamed to topics once and in order over two lives", async (stage) => {
  let engine = await stage.open();
  for (const type of ["placed", "paid"]) await makeGroup(engine, `events.order.${type}`);
  const relay = await engine.eventStore.streamTo("events.{type}",
    { name: "relay", intervalMs: 5, batchCountMax: 4 });
  for (const n of range(10)) {
    await engine.eventStore.append("order-1", [event(`${n}`, n % 2 === 0 ? "order.placed" : "order.paid")]);
  }
  await until(async () => (await relay.statistics()).handled >= 4n);
  await refused(relay.receive({ timeoutMs: 0 }), "ERR_INVALID_ARGUMENT");
  await stage.close(engine);

  engine = await stage.open();
  await engine.eventStore.streamTo("events.{type}", { name: "relay", intervalMs: 5 }); // nobody keeps it
  const recorder = new Recorder();
  await engine.consume("events.#", member(), recorder.handler);
  await recorder.reaches(10);
  await engine.settleDown();
  assert.deepEqual(recorder.times, Object.fromEntries(range(10).map((n) => [n, 1])));
  assert.ok(recorder.all.every((one) => one.key === "order-1"));
  assert.deepEqual(recorder.all.map((one) => Number(one.message.headers["towline-version"])).sort((a, b) => a - b),
    range(10, 1));
});

scenario("CONF-97", "snapshots and truncation keep what is needed", async (stage) => {
  let engine = await stage.open();
  for (const n of range(5, 1)) await engine.eventStore.append("cart-1", [event(`${n}`)]);
  await refused(engine.eventStore.saveSnapshot("cart-1", 6n, "future"), "ERR_NOT_FOUND");
  assert.equal(await engine.eventStore.findSnapshot("cart-1"), undefined);
  await engine.eventStore.saveSnapshot("cart-1", 4n, { sum: 10 });
  await engine.eventStore.truncate("cart-1", 5);
  await stage.close(engine);

  engine = await stage.open();
  const snapshot = await engine.eventStore.findSnapshot("cart-1");
  assert.deepEqual([snapshot.value, snapshot.version, snapshot.contentType], [{ sum: 10 }, 4n, "application/json"]);
  const page = await engine.eventStore.read("cart-1", { from: snapshot.version + 1n });
  assert.deepEqual(texts(page.events), ["5"]);
  const info = await engine.eventStore.findStream("cart-1");
  assert.deepEqual(info, { name: "cart-1", oldestVersion: 5n, newestVersion: 5n });
  assert.equal((await engine.eventStore.append("cart-1", [event("6")], { expected: 5 })).firstVersion, 6n);
});

scenario("BAD-36", "versions that cannot be", async (stage) => {
  const { eventStore } = await stage.open();
  await eventStore.append("order-1", [event("one")]);
  const calls = [
    (expected) => eventStore.append("order-1", [event("two")], { expected }),
    (from) => eventStore.read("order-1", { from }),
    (from) => eventStore.readBackwards("order-1", { from }),
    (from) => eventStore.readAll({ from }),
    (version) => eventStore.truncate("order-1", version),
    (version) => eventStore.saveSnapshot("order-1", version, "state"),
  ];
  for (const call of calls) {
    for (const wrong of [-1, -1n, 2n ** 64n, 10n ** 1000n, 1.5, NaN, Infinity, 2 ** 53, "1", true, {}, null]) {
      if (wrong === null && call !== calls[0] && call !== calls[4] && call !== calls[5]) continue; // as if not given
      await refused(call(wrong), "ERR_INVALID_ARGUMENT", "must be whole");
    }
  }
  const largest = 2n ** 64n - 1n;
  for (const expected of [0, 2, largest]) {
    await refused(eventStore.append("order-1", [event("two")], { expected }), "ERR_CONFLICT");
  }
  await refused(eventStore.saveSnapshot("order-1", largest, "state"), "ERR_NOT_FOUND");
  assert.deepEqual((await eventStore.read("order-1", { from: largest })).events, []);
  assert.deepEqual((await eventStore.readAll({ from: largest })).events, []);
  for (const countMax of [0, -1, 10_001, 1.5]) {
    await refused(eventStore.read("order-1", { countMax }), "ERR_INVALID_ARGUMENT");
  }
  const subscription = await eventStore.subscribe("reader");
  await refused(subscription.checkpoint(largest), "ERR_INVALID_ARGUMENT");
  for (const stream of ["", "a b", "größe", "a".repeat(256), "a\0b"]) {
    await refused(eventStore.append(stream, [event("two")]), "ERR_INVALID_NAME");
  }
  for (const type of ["", "a b", "a.*", "a".repeat(101)]) {
    await refused(eventStore.append("order-1", [event("two", type)]), "ERR_INVALID_NAME");
  }
  for (const events of [[], "two", ["two"], [null], [{ value: "two" }]]) {
    await refused(eventStore.append("order-1", events), "ERR_INVALID_ARGUMENT");
  }
  await refused(eventStore.append("order-1", [event("two", "happened", { id: "x" })]), "ERR_INVALID_ID");
  await refused(eventStore.subscribe("reader", { batchCountMax: 0 }), "ERR_INVALID_CONFIG");
  await refused(eventStore.subscribe("reader", { stream: "order-1" }), "ERR_TOPOLOGY_MISMATCH");
  assert.deepEqual(texts((await eventStore.read("order-1")).events), ["one"]);
});
