// What a message goes through, over each provider.

import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import diagnostics from "node:diagnostics_channel";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { test } from "node:test";
import { inspect } from "node:util";

import * as towline from "towline";
import { Defer, Engine, Reject, Retry } from "towline";
import { VirtualClock } from "towline/testing";

import { open, providers, root, until } from "./support.mjs";

const QUICK = { initialDelayMs: 1, maxAttempts: 3, jitter: "none" };

for (const [provider, urlOf] of Object.entries(providers)) {
  test(`${provider}: what is published is handled, byte for byte`, async (t) => {
    const engine = await open(t, urlOf(t));
    const all = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
    const values = [{ n: 1, s: "ünï" }, "text \u{1f680}", all, "", [], null, 0, false];
    const seen = [];
    await engine.consume("orders", { group: "g" }, (m) => seen.push(m));
    for (const [i, value] of values.entries()) {
      await engine.publish("orders", value, { key: i === 0 ? null : `k${i}`, headers: { a: `ü${i}` } });
    }
    await until(() => seen.length === values.length, "all handled");
    for (const [i, value] of values.entries()) {
      const m = seen.find((one) => one.headers.a === `ü${i}`);
      assert.deepEqual(m.value, value);
      assert.equal(m.key, i === 0 ? null : `k${i}`);
      assert.equal(m.topic, "orders");
      assert.equal(m.group, "g");
      assert.equal(m.attempt, 1);
      assert.match(m.id, /^[0-9a-f]{8}-[0-9a-f]{4}-7/);
      assert.ok(Math.abs(m.publishedAt - Date.now()) < 60_000);
    }
    assert.deepEqual(seen.find((m) => m.headers.a === "ü2").payload, all);
  });

  test(`${provider}: throwing retries, and after the last attempt it is a dead letter that can be redriven`,
    async (t) => {
    const engine = await open(t, urlOf(t));
    const attempts = [];
    let broken = true;
    await engine.consume("orders", { group: "g", retry: QUICK }, async (m) => {
      attempts.push(m.attempt);
      if (broken) throw new RangeError(`no ${m.value.n}`);
    });
    const { id } = await engine.publish("orders", { n: 7 });
    const entry = await until(async () => (await engine.deadLetters({ topic: "orders" })).items[0]);
    assert.deepEqual(attempts, [1, 2, 3]);
    assert.equal(entry.messageId, id);
    assert.equal(entry.reason, "exhausted");
    assert.equal(entry.errorType, "RangeError");
    assert.equal(entry.errorMessage, "no 7");
    assert.match(entry.errorStack, /messages\.test\.mjs/);
    assert.deepEqual(JSON.parse(entry.payload), { n: 7 });
    assert.deepEqual(await engine.findDeadLetter(entry.id), entry);
    assert.equal((await engine.deadLetterGroups())[0].count, 1);
    assert.equal((await engine.deadLetters({ errorType: "TypeError" })).items.length, 0);
    broken = false;
    await engine.redrive(entry.id, { payload: JSON.stringify({ n: 8 }) });
    await until(() => attempts.length === 4);
    assert.equal(attempts[3], 1);
    assert.equal((await engine.deadLetters({ status: "pending" })).items.length, 0);
    await assert.rejects(engine.redrive(entry.id), towline.ConflictError);
  });

  test(`${provider}: every way to fail is a failed attempt with a safe text`, async (t) => {
    const engine = await open(t, urlOf(t));
    const trap = Object.defineProperty(new Error("x"), "message", { get() { throw new Error("trap"); } });
    const noText = { get message() { throw new Error("trap"); }, toString() { throw new Error("trap"); } };
    const thrown = [undefined, null, 42, "text", trap, noText, Symbol("s"), Object.create(null)];
    await engine.consume("orders", { group: "g", retry: { maxAttempts: 1 }, breaker: { enabled: false } },
      (m) => {
      const error = thrown[m.value.n];
      if (m.value.n % 2 === 0) throw error;
      return Promise.reject(error);
    });
    for (let n = 0; n < thrown.length; n += 1) await engine.publish("orders", { n });
    await until(async () => (await engine.deadLetters({})).items.length === thrown.length);
    const { items } = await engine.deadLetters({});
    const types = Object.fromEntries(items.map((one) => [JSON.parse(one.payload).n, one.errorType]));
    assert.deepEqual(types, { 0: "undefined", 1: "null", 2: "number", 3: "string", 4: "Error", 5: "Error",
      6: "symbol", 7: "Error" });
    assert.ok(items.every((one) => one.errorMessage.length > 0));
  });

  test(`${provider}: Retry, Reject and Defer say what becomes of it`, async (t) => {
    const engine = await open(t, urlOf(t));
    const seen = [];
    await engine.consume("orders", { group: "g", retry: { initialDelayMs: 3_600_000,
      delayMsMax: 3_600_000 } }, (m) => {
      seen.push(`${m.value}${m.attempt}`);
      if (m.value === "retry" && m.attempt === 1) throw new Retry("soon", { afterMs: 1 });
      if (m.value === "reject") throw new Reject("unwanted");
      if (m.value === "defer" && seen.filter((one) => one === "defer1").length === 1) throw new Defer(1);
    });
    for (const value of ["retry", "reject", "defer"]) await engine.publish("orders", value);
    await until(() => seen.length === 5);
    assert.deepEqual(seen.sort(), ["defer1", "defer1", "reject1", "retry1", "retry2"]);
    const { items } = await engine.deadLetters({});
    assert.deepEqual(items.map((one) => [one.reason, one.errorMessage]), [["manual", "unwanted"]]);
  });

  test(`${provider}: messages of one key keep their order, also over a retry`, async (t) => {
    const engine = await open(t, urlOf(t));
    const seen = { a: [], b: [] };
    const running = new Set();
    await engine.consume("orders", { group: "g", concurrency: 8, ordering: "key", retry: QUICK },
      async (m) => {
      assert.ok(!running.has(m.key), "two handlers of one key");
      running.add(m.key);
      await new Promise((resolve) => setImmediate(resolve));
      running.delete(m.key);
      if (m.value.n === 3 && m.attempt === 1) throw new Error("once");
      seen[m.key].push(m.value.n);
    });
    for (let n = 0; n < 20; n += 1) {
      await engine.publishBatch(["a", "b"].map((key) => ({ topic: "orders", value: { n }, key })));
    }
    await until(() => seen.a.length + seen.b.length === 40);
    const expected = Array.from({ length: 20 }, (_, n) => n);
    assert.deepEqual(seen, { a: expected, b: expected });
  });

  test(`${provider}: for await gives messages one by one, and gives back what is unsettled`, async (t) => {
    const engine = await open(t, urlOf(t));
    const topic = engine.topic("orders");
    await engine.publishBatch([1, 2, 3].map((n) => ({ topic: "orders", value: { n } })));
    // The group is new: it starts with what lies there.
    const first = [];
    for await (const m of topic.messages({ group: "g" })) {
      first.push(m.value.n);
      if (m.value.n === 2) break;
      m.ack();
      assert.throws(() => m.ack(), towline.AlreadySettledError);
    }
    assert.deepEqual(first, [1, 2]);
    const second = [];
    for await (const m of topic.messages({ group: "g" })) {
      m.ack();
      second.push(m.value.n);
      if (second.length === 2) break;
    }
    assert.deepEqual(second.sort(), [2, 3]);
  });

  test(`${provider}: an idempotency key runs once, and failing leaves it free`, async (t) => {
    const engine = await open(t, urlOf(t));
    let runs = 0;
    await assert.rejects(engine.once("k", () => { throw new Error("no"); }), /no/);
    for (const value of [{ a: 1 }, null, 0, false, "", "text", Buffer.from([1, 2, 0])]) {
      const key = `k${runs}`;
      const work = async () => (runs++, value);
      const before = runs;
      assert.deepEqual(await engine.once(key, work), value);
      assert.deepEqual(await engine.once(key, work), value);
      assert.equal(runs, before + 1);
    }
    for (const value of [undefined, new Date(0), [1, undefined], { a: undefined, b: 1 }, new Map([[1, 2]]),
      new (class Point { x = 1; })(), new Uint8Array([1, 2]), new Uint8Array([7]).buffer]) {
      const key = `same ${runs}`;
      const first = await engine.once(key, () => (runs++, value));
      assert.deepStrictEqual(await engine.once(key, () => assert.fail("it ran again")), first, inspect(value));
      assert.notEqual(first, undefined);
    }
    for (const [value, code] of [[1n, "ERR_PAYLOAD"], [() => 1, "ERR_PAYLOAD"], [Symbol("s"), "ERR_PAYLOAD"],
      [Buffer.alloc(2 ** 21), "ERR_PAYLOAD_TOO_LARGE"]]) {
      const refused = { code, message: /the key 'odd' has run, but its result was not kept: .*payload/ };
      await assert.rejects(engine.once("odd", () => value), refused, typeof value);
    }
    assert.equal(await engine.once("odd", () => "again"), "again");
    let release;
    const gate = new Promise((resolve) => (release = resolve));
    let enter;
    const inside = new Promise((resolve) => (enter = resolve));
    const one = engine.once("flight", async () => {
      enter();
      await gate;
      return "mine";
    });
    await inside; // two calls at once may come in either order
    await assert.rejects(engine.once("flight", () => "theirs"), towline.InProgressError);
    const two = engine.once("flight", () => "theirs", { waitMsMax: 10_000 });
    release();
    assert.deepEqual([await one, await two], ["mine", "mine"]);
    await assert.rejects(engine.once("flight", () => 1, { fingerprint: "other" }).then(() =>
      engine.once("f2", () => 1, { fingerprint: "a" })).then(() => engine.once("f2", () => 1,
        { fingerprint: "b" })),
    towline.KeyMismatchError);
  });
}

test("each message of a turn arrives as it was at its call, however many and however long they are", async (t) => {
  const engine = await open(t, "memory:");
  const seen = new Map();
  await engine.consume("#", { group: "g", concurrency: 100 }, (m) => {
    seen.set(m.headers.n, [m.topic, m.key, m.contentType, m.value]);
  });
  const wanted = new Map();
  const publish = (n, topic, value, key, contentType) => {
    wanted.set(String(n), [topic, key ?? null, contentType ?? kindOf(value), value]);
    return engine.publish(topic, value, { key, contentType, headers: { n: String(n) } });
  };
  const kindOf = (value) => typeof value === "string" ? "text/plain; charset=utf-8"
    : value instanceof Buffer ? "" : "application/json";
  const long = ["\u20ac".repeat(70_000), "\ud800 alone", Buffer.alloc(900_000, 7), { text: "ü".repeat(100_000) }];
  const asked = long.map((value, i) => publish(`long ${i}`, "long", value));
  for (let i = 0; i < 5_000; i += 1) {
    const bytes = Buffer.from(`bytes ${i}`);
    const value = i % 3 === 0 ? { i } : i % 3 === 1 ? `text ${i}` : bytes;
    asked.push(publish(i, `t${i % 7 === 0 ? "x" : "y"}`, value, i % 2 === 0 ? `key ${i}` : undefined,
      i % 11 === 0 ? "text/x-other" : undefined));
    if (i % 3 === 2) {
      wanted.get(String(i))[3] = Buffer.from(bytes);
      bytes.fill(0); // it was copied
    }
  }
  assert.equal(new Set((await Promise.all(asked)).map((one) => one.id)).size, asked.length);
  await until(() => seen.size === wanted.size, "all handled");
  wanted.get("long 1")[3] = "\ufffd alone";
  for (const [n, [topic, key, contentType, value]] of wanted) {
    const got = seen.get(n);
    assert.deepEqual(got.slice(0, 3), [topic, key, contentType], n);
    if (contentType === kindOf(value)) assert.deepEqual(got[3], value, n);
  }
});

test("a message that is published while another one is read goes its own way", async (t) => {
  const engine = await open(t, "memory:");
  const seen = [];
  await engine.consume("orders", { group: "g" }, (m) => seen.push(m.value));
  const inner = [];
  const also = (value) => void inner.push(engine.publish("orders", value));
  const value = { toJSON: () => (also("in toJSON"), "outer") };
  // Its headers are read when the turn goes down, so the one inside belongs to the next.
  const headers = { get a() { also("in a header"); return "1"; } };
  const receipts = await engine.publishBatch([
    { topic: "orders", value, headers }, { topic: "orders", value: "second", get key() { also("in a key"); return "k"; } },
  ]);
  assert.deepEqual(receipts.map((one) => one.outcome), ["acked", "acked"]);
  assert.equal(inner.length, 3);
  await Promise.all(inner);
  const all = ["in a header", "in a key", "in toJSON", "outer", "second"];
  await until(() => seen.length === all.length, "all handled");
  assert.deepEqual(seen.sort(), all);
});

test("a name that is none is refused with those that are, also where it is one elsewhere", async (t) => {
  const engine = await open(t, "memory:");
  const refused = (doing, code, ...words) => assert.rejects(doing, (error) => {
    assert.equal(error.code, code);
    for (const word of words) assert.ok(error.message.includes(word), `${word} in ${error.message}`);
    return true;
  });
  // The engine calls it order, and gives its values other names.
  await refused(engine.consume("orders", { group: "g", order: "key_ordered" }, () => {}),
    "ERR_INVALID_CONFIG", "'order'", "ordering");
  await refused(engine.publishBatch([{ topic: "orders", payload: 1 }]),
    "ERR_INVALID_ARGUMENT", "'payload'", "topic, value, key");
  await refused(engine.publish("orders", 1, { topic: "orders" }), "ERR_INVALID_ARGUMENT", "'topic'", "known are key");
  await refused(engine.publishBatch({ topic: "orders", value: 1 }), "ERR_INVALID_ARGUMENT", "an object", "a list");
  await refused(engine.consume("orders", { group: "g" }), "ERR_INVALID_ARGUMENT", "the handler is undefined");
});

test("a message shows itself", async (t) => {
  const engine = await open(t, "memory:");
  const seen = [];
  await engine.consume("orders", { group: "g" }, (m) => seen.push(m));
  const { id } = await engine.publish("orders", { n: 1 }, { key: "k" });
  await until(() => seen.length === 1);
  const shown = inspect(seen[0], { breakLength: Infinity });
  assert.equal(shown,
    `Message { topic: 'orders', id: '${id}', key: 'k', contentType: 'application/json', attempt: 1 }`);
});

test("a batch has a receipt for each message, and bad ones do not keep the others away", async (t) => {
  const engine = await open(t, "memory:");
  const receipts = await engine.publishBatch([
    { topic: "a", value: 1 }, { topic: "no good", value: 1 }, { topic: "a", value: 2, dedupId: "d" },
    { topic: "a", value: 3, dedupId: "d" }]);
  assert.deepEqual(receipts.map((one) => one.outcome), ["acked", "rejected", "acked", "acked"]);
  assert.ok(receipts[1].error instanceof towline.InvalidTopicError);
  assert.equal(receipts[3].id, receipts[2].id);
  assert.equal(receipts[3].duplicate, true);
});

test("delays fire with the virtual clock; cancel and reschedule have one winner", async (t) => {
  const clock = new VirtualClock();
  const engine = await open(t, "memory:", { clock });
  const seen = [];
  await engine.consume("a", { group: "g" }, (m) => seen.push(m.value));
  const kept = await engine.publish("a", "kept", { delayMs: 30_000 });
  const gone = await engine.publish("a", "gone", { delayMs: 30_000 });
  const moved = await engine.publish("a", "moved", { dueAt: new Date(clock.now().getTime() + 30_000) });
  assert.deepEqual((await engine.pending()).items.map((one) => one.id).sort(), [kept.id, gone.id,
    moved.id].sort());
  assert.equal(await engine.cancel(gone.id), "done");
  assert.equal(await engine.cancel(gone.id), "not_found");
  assert.equal(await engine.reschedule(moved.id, clock.now().getTime() + 90_000), "done");
  await clock.advanceAndSettle(engine, 29_000);
  assert.deepEqual(seen, []);
  await clock.advanceAndSettle(engine, 1_001);
  assert.deepEqual(seen, ["kept"]);
  await clock.advanceAndSettle(engine, 60_000);
  assert.deepEqual(seen, ["kept", "moved"]);
  assert.equal(await engine.cancel(kept.id), "already_fired");
});

test("bad input is refused before any I/O, with a code", async (t) => {
  const engine = await open(t, "memory:");
  const argument = { code: "ERR_INVALID_ARGUMENT" };
  await assert.rejects(engine.publish("a", 1, { delay: 1 }), { ...argument,
    message: /unknown option 'delay'/ });
  await assert.rejects(engine.publish("a", 1, { delayMs: "1" }), { ...argument,
    message: /delayMs is a string/ });
  await assert.rejects(engine.publish("a", 1, { delayMs: NaN }), argument);
  await assert.rejects(engine.publish("a", 1, { priority: 300 }), argument);
  await assert.rejects(engine.publish("a", 1, { headers: { x: 1 } }), argument);
  await assert.rejects(engine.publish(7, 1), argument);
  await assert.rejects(engine.publish("a", () => 1), { code: "ERR_PAYLOAD" });
  await assert.rejects(engine.publish("a", 1n), { code: "ERR_PAYLOAD" });
  await assert.rejects(engine.publish("a", 1, { id: "x" }), towline.InvalidIdError);
  await assert.rejects(engine.consume("a", { group: "g", concurency: 1 }, () => {}),
    { message: /concurency/ });
  await assert.rejects(engine.consume("a", { group: "g", ordering: "keys" }, () => {}),
    towline.InvalidConfigError);
  await assert.rejects(engine.consume("a", { group: "g", retry: { maxAttempts: 0 } }, () => {}),
    towline.InvalidConfigError);
  await assert.rejects(engine.consume("a", { group: "g" }), argument);
  await assert.rejects(engine.deadLetters({ status: "gone" }), { ...argument,
    message: /must be one of pending/ });
  await assert.rejects(Engine.open("memory:", { leaseMs: 1 }), towline.InvalidConfigError);
  await assert.rejects(Engine.open("nowhere://x"), towline.InvalidUrlError);
  assert.equal((await engine.publish("a", 1)).outcome, "acked");
});

test("every code of the table comes through the boundary as its own class", () => {
  const { raise } = createRequire(import.meta.url)(process.env.TOWLINE_NODE_BINARY);
  const table = readFileSync(path.join(root, "core/include/towline/errors.def"), "utf8");
  const rows = [...table.matchAll(/^TOWLINE_ERROR\( *(\d+), (\w+), +"(\w+)", +(true|false)/gm)];
  assert.equal(rows.length, towline.BY_NUMBER.size);
  for (const [, number, name, code, retryable] of rows) {
    const Kind = towline[name.endsWith("Error") ? name : `${name}Error`];
    assert.equal(towline.BY_NUMBER.get(Number(number)), Kind);
    assert.throws(() => raise(Number(number), "why \u{1f680}", 5), (error) => {
      assert.ok(error instanceof Kind && error instanceof towline.TowlineError && error instanceof Error);
      const { message, nativeCode } = error;
      assert.deepEqual({ number: error.number, code: error.code, retryable: error.retryable, message, nativeCode,
        name: error.name }, { number: Number(number), code, retryable: retryable === "true",
        message: "why \u{1f680}", nativeCode: 5, name: Kind.name });
      return true;
    });
  }
});

test("an aborted signal ends the wait, and closes a consumer", async (t) => {
  const engine = await open(t, "memory:", { drainTimeoutMs: 50 });
  const reason = new Error("enough");
  const aborted = AbortSignal.abort(reason);
  await assert.rejects(engine.publish("a", 1, { signal: aborted }), (error) => {
    assert.ok(error instanceof towline.CancelledError);
    return error.cause === reason;
  });
  await assert.rejects(engine.statistics({ signal: aborted }), towline.CancelledError);
  const controller = new AbortController();
  let entered;
  const inHandler = new Promise((resolve) => (entered = resolve));
  const consumer = await engine.consume("a", { group: "g", signal: controller.signal }, (m) => {
    entered();
    return new Promise((resolve) => m.signal.addEventListener("abort", resolve));
  });
  await engine.publish("a", 1);
  await inHandler;
  assert.equal(getEventListeners(controller.signal, "abort").length, 1);
  const waiting = engine.settleDown({ signal: controller.signal });
  controller.abort(reason);
  await assert.rejects(waiting, towline.CancelledError);
  assert.throws(() => consumer.pause(), towline.ClosedError);
  const other = new AbortController();
  await (await engine.consume("c", { group: "g", signal: other.signal }, () => {})).close();
  await engine.publish("c", 1, { signal: other.signal });
  assert.equal(getEventListeners(other.signal, "abort").length, 0);
  const messages = engine.messages("b", { group: "g", signal: AbortSignal.abort() });
  await assert.rejects(messages.next(), towline.CancelledError);
});

test("a handler's signal fires when its time is up, and the message comes again", async (t) => {
  const engine = await open(t, "memory:");
  const reasons = [];
  let second;
  const again = new Promise((resolve) => (second = resolve));
  await engine.consume("a", { group: "g", handlerTimeoutMs: 50, retry: QUICK, concurrency: 2 }, async (m) => {
    if (m.attempt > 1) return second(m.attempt);
    await new Promise((resolve) => m.signal.addEventListener("abort", resolve, { once: true }));
    reasons.push(m.signal.reason);
  });
  await engine.publish("a", 1);
  assert.equal(await again, 2);
  await until(() => reasons.length === 1);
  assert.ok(reasons[0] instanceof towline.CancelledError);
});

test("manual mode settles by hand, once", async (t) => {
  const engine = await open(t, "memory:");
  const kept = [];
  const options = { group: "g", ack: "manual", concurrency: 4, retry: QUICK };
  const consumer = await engine.consume("a", options, (m) => void kept.push(m));
  await engine.publishBatch(["ack", "nak", "reject"].map((value) => ({ topic: "a", value })));
  await until(() => kept.length === 3);
  const by = Object.fromEntries(kept.map((m) => [m.value, m]));
  by.ack.extend(60_000);
  by.ack.ack();
  assert.throws(() => by.ack.nak(), towline.AlreadySettledError);
  by.nak.nak({ afterMs: 1, why: "later" });
  by.reject.reject("no");
  await until(() => kept.length === 4);
  assert.deepEqual([kept[3].value, kept[3].attempt], ["nak", 2]);
  kept[3].ack();
  await engine.settleDown();
  const { acked, deadLettered } = consumer.statistics();
  assert.deepEqual([acked, deadLettered], [2, 1]);
});

test("keys that wait can be seen and released; topics are declared; groups have a backlog", async (t) => {
  const engine = await open(t, "memory:");
  await engine.declareTopic("a", { partitionCount: 4 });
  await assert.rejects(engine.declareTopic("a", { partitionCount: 8 }), towline.TopologyMismatchError);
  const seen = [];
  const consumer = await engine.consume("a", { group: "g", ordering: "key", retry: { maxAttempts: 1 },
    onKeyFailure: "park_key" }, (m) => {
    if (m.value === 1) throw new Error("no");
    seen.push(m.value);
  });
  for (const value of [1, 2]) await engine.publish("a", value, { key: "k" });
  const [blocked] = await until(async () => (await engine.blockedKeys("g", "a")).some((one) => one.held) &&
    engine.blockedKeys("g", "a"));
  assert.equal(blocked.key, "k");
  await engine.releaseKey("g", "a", "k");
  await until(() => seen.length === 1);
  await assert.rejects(engine.releaseKey("g", "a", "other"), towline.NotFoundError);
  await consumer.close();
  await engine.publish("a", 3);
  assert.deepEqual((await engine.backlog()).map((one) => [one.topic, one.group, one.waiting]), [["a", "g",
    1]]);
  const { items } = await engine.deadLetters({});
  await engine.discardDeadLetter(items[0].id);
  assert.equal((await engine.findDeadLetter(items[0].id)).status, "discarded");
  assert.deepEqual(await engine.redriveAll({ status: "pending" }), { matched: 0, redriven: 0,
    passedOver: 0 });
  assert.equal((await engine.statistics()).deadLetters.discarded, 1);
  assert.deepEqual(await engine.health(), { ok: true, detail: "" });
});

test("alerts and logs are events; publishing and handling are traced", async (t) => {
  const traced = [];
  const names = ["tracing:towline:publish:asyncEnd", "tracing:towline:process:asyncEnd"];
  const listeners = names.map((name) => {
    const listener = (context) => traced.push([name, context]);
    diagnostics.subscribe(name, listener);
    return () => diagnostics.unsubscribe(name, listener);
  });
  const engine = await open(t, "memory:", { alert: { depthCount: 1 }, sweepIntervalMs: 10,
    logLevel: "debug" });
  const alerts = [];
  const logs = [];
  engine.events.on("alert", (alert) => alerts.push(alert));
  engine.events.on("log", (record) => logs.push(record));
  await engine.consume("a", { group: "g" }, () => { throw new Reject("no"); });
  await engine.publish("a", 1);
  await until(() => alerts.length > 0, "an alert");
  assert.equal(alerts[0].kind, "depth");
  await until(() => traced.length === 2, "two traces");
  for (const stop of listeners) stop();
  // A handler may end before the publisher is told that its message is stored.
  const [published, handled] = names.map((name) => traced.find((one) => one[0] === name)[1]);
  assert.deepEqual(published.topics, ["a"]);
  assert.equal(handled.message.topic, "a");
  assert.ok(logs.every((one) => ["debug", "info", "warning", "error"].includes(one.level)));
});
