// Bad messages, topics, keys, ids, delays and handles.

import assert from "node:assert/strict";

import { holdsFor, makeDeadLetters, makeGroup, member, publishAll, range, Recorder, refused, scenario, until,
  waiting } from "./harness.mjs";
import { leavesAlone, prepare, rejected, stateOf, unconsumable } from "./bad_input.mjs";

const HOUR = 3_600_000;

scenario("BAD-01", "topics that are not names", async (stage) => {
  const engine = await prepare(stage);
  const topics = ["", "a".repeat(1_024), "a".repeat(250), "a b", "a\tb", "a\rb", "a\nb", "a\0b", "caf\ud800",
    "größe", "a/b", "a:b", " ", "a\u001b[31m", "a\u007f"];
  for (const topic of topics) {
    await rejected(engine, topic, {}, "ERR_INVALID_TOPIC", "topic");
    await unconsumable(engine, topic, {}, "ERR_INVALID_TOPIC", "pattern");
    await refused(engine.declareTopic(topic), "ERR_INVALID_TOPIC");
  }
  await engine.publish("a".repeat(249), "p");
});

scenario("BAD-02", "topics that servers keep for themselves", async (stage) => {
  const engine = await prepare(stage);
  for (const topic of ["$SYS.x", "$JS.API.x", "_INBOX.x", "amq.direct", "__consumer_offsets", "..", ".", "a..b",
    ".a", "a."]) {
    await rejected(engine, topic, {}, "ERR_INVALID_TOPIC", "topic");
  }
});

scenario("BAD-03", "patterns are not published to, and must mean something", async (stage) => {
  const engine = await prepare(stage);
  for (const topic of ["a.*", "a.>", "a.#", "*", "#", ">"]) {
    await rejected(engine, topic, {}, "ERR_INVALID_TOPIC", "topic");
  }
  for (const pattern of ["a.*b", "a.b#", ">.a", "a.>.b", "**", "a.**", "$SYS.>", "a..#"]) {
    await unconsumable(engine, pattern, {}, "ERR_INVALID_TOPIC", "pattern");
  }
  await unconsumable(engine, [], {}, "ERR_INVALID_TOPIC");
});

scenario("BAD-04", "similar topics are distinct", async (stage) => {
  const engine = await prepare(stage);
  const topics = ["x.y", "x_y", "x-y", "X.y", "x.Y"];
  for (const topic of topics) {
    await makeGroup(engine, topic);
    await engine.publish(topic, "p");
  }
  for (const topic of topics) assert.equal(await waiting(engine, topic), 1, topic);
});

scenario("BAD-05", "braces are not part of a topic", async (stage) => {
  const engine = await prepare(stage);
  for (const topic of ["{x}", "a.{x}.b"]) await rejected(engine, topic, {}, "ERR_INVALID_TOPIC", "topic");
});

scenario("BAD-06", "names that would be code elsewhere", async (stage) => {
  const engine = await prepare(stage);
  const names = ["x'; drop table m;--", 'x"y', "g".repeat(101), "a b", "a\nb", "größe", "a/b", "a\0", "*", "{x}"];
  for (const name of names) {
    await unconsumable(engine, "orders", { group: name }, "ERR_INVALID_NAME", "group");
    await unconsumable(engine, "orders", { name }, "ERR_INVALID_NAME", "name");
    await refused(engine.once("key", () => assert.fail(), { scope: name }), "ERR_INVALID_NAME");
    assert.deepEqual(await engine.blockedKeys(name, "orders").catch(() => []), []);
    const found = await engine.deadLetters({ group: name }).catch(() => ({ items: [] }));
    assert.deepEqual(found.items, [], "a filter is data, never code");
    await engine.deadLetters({ text: name });
  }
  for (const odd of ["x'; drop table m;--", "k".repeat(10_000), "a\0b", "\ud800\n", ""]) {
    await leavesAlone(engine, () => engine.releaseKey("group", "orders", odd), "ERR_NOT_FOUND", "blocked");
    await refused(engine.releaseKey(odd, "orders", "k"), "ERR_NOT_FOUND");
    await refused(engine.releaseKey("group", odd, "k"), "ERR_NOT_FOUND");
  }
});

scenario("BAD-07", "keys longer than every provider can carry", async (stage) => {
  const engine = await prepare(stage);
  await rejected(engine, "orders", { key: "k".repeat(256) }, "ERR_INVALID_KEY", "key", "255");
  await rejected(engine, "orders", { key: "ü".repeat(128) }, "ERR_INVALID_KEY", "key", "255"); // bytes count
  await engine.publish("orders", "p", { key: "k".repeat(255) });
});

scenario("BAD-08", "payloads, results and replacements over the limit", async (stage) => {
  const engine = await prepare(stage);
  const value = Buffer.alloc(1_048_577);
  await rejected(engine, "orders", { value }, "ERR_PAYLOAD_TOO_LARGE", "payload", "1048577", "1048576");
  await rejected(engine, "orders", { value, delayMs: HOUR }, "ERR_PAYLOAD_TOO_LARGE", "payload");
  await makeDeadLetters(engine, "orders", 1);
  const [entry] = (await engine.deadLetters()).items;
  await leavesAlone(engine, () => engine.redrive(entry.id, { payload: value }), "ERR_PAYLOAD_TOO_LARGE",
    "1048577", "1048576");
  await refused(engine.once("key", () => value), "ERR_PAYLOAD_TOO_LARGE", "1048577", "1048576");
  assert.equal(await engine.once("key", () => "small"), "small", "the key is free");
  await engine.redrive(entry.id);
});

scenario("BAD-09", "an empty batch is fine and a too large one is not", async (stage) => {
  const engine = await prepare(stage);
  assert.deepEqual(await engine.publishBatch([]), []);
  const batch = (count) => Array(count).fill({ topic: "other", value: "p" });
  await leavesAlone(engine, () => engine.publishBatch(batch(10_001)), "ERR_BATCH_TOO_LARGE", "10001", "10000");
  assert.equal((await engine.publishBatch(batch(10_000))).length, 10_000);
});

scenario("BAD-10", "headers that do not travel", async (stage) => {
  const engine = await prepare(stage);
  const bad = (headers, code, word) => rejected(engine, "orders", { headers }, code, word);
  for (const name of ["", "a:b", "a\r\nb", "a b", "h".repeat(129), "größe", "a\0b"]) {
    await bad({ [name]: "v" }, "ERR_INVALID_HEADER", "header");
  }
  await bad({ twice: "a", Twice: "b" }, "ERR_INVALID_HEADER", "wice");
  const many = (count) => Object.fromEntries(range(count).map((n) => [`h${n}`, "v"]));
  await bad(many(65), "ERR_HEADERS_TOO_LARGE", "64");
  await engine.publish("orders", "p", { headers: many(64) });
  await bad({ big: "x".repeat(1 << 20) }, "ERR_HEADERS_TOO_LARGE", "16");
});

scenario("BAD-11", "header values that would become headers", async (stage) => {
  const engine = await prepare(stage);
  for (const value of ["v\r\nNats-Msg-Id: 1", "v\n", "\u0001", "a\0b", "\u007f"]) {
    await rejected(engine, "orders", { headers: { name: value } }, "ERR_INVALID_HEADER", "name");
  }
});

scenario("BAD-12", "headers that belong to the engine or a provider", async (stage) => {
  const engine = await prepare(stage);
  for (const name of ["Nats-Rollup", "Nats-Expected-Stream", "nats-ttl", "Nats-Msg-Id", "x-death", "X-Death",
    "CC", "BCC", "cc", "x-delay", "towline-attempt", "Towline-Anything", "x-first-death-queue",
    "amqp-anything"]) {
    await rejected(engine, "orders", { headers: { [name]: "all" } }, "ERR_RESERVED_HEADER", name);
  }
  await engine.publish("orders", "p", { headers: { "ce-type": "t", "x-tenant": "t" } });
});

scenario("BAD-13", "no key, an empty key and a huge one", async (stage) => {
  const engine = await prepare(stage);
  for (const key of [undefined, null, ""]) await engine.publish("orders", "p", { key });
  await rejected(engine, "orders", { key: "k".repeat(1 << 20) }, "ERR_INVALID_KEY", "key", "255");
});

scenario("BAD-14", "ids that are empty, long or binary", async (stage) => {
  const engine = await prepare(stage);
  for (const id of ["d".repeat(1_024), "d".repeat(256), "a\0b", "a b", "a\nb", "größe"]) {
    await rejected(engine, "orders", { dedupId: id }, "ERR_INVALID_ID", "dedupId");
    await rejected(engine, "orders", { correlationId: id }, "ERR_INVALID_ID", "correlationId");
    await rejected(engine, "orders", { causationId: id }, "ERR_INVALID_ID", "causationId");
  }
  for (const id of ["", "x", "0190163d-8694-739b-aea5-966c26f8ad9", "0190163d-8694-739b-aea5-966c26f8ad900",
    "0190163d_8694_739b_aea5_966c26f8ad90", "g190163d-8694-739b-aea5-966c26f8ad90"]) {
    for (const call of ["cancel", "findDeadLetter", "redrive", "discardDeadLetter"]) {
      await refused(engine[call](id), "ERR_INVALID_ID");
    }
    await refused(engine.reschedule(id, 0), "ERR_INVALID_ID");
    await refused(engine.publish("orders", "p", { id }), "ERR_INVALID_ID");
  }
  await rejected(engine, "orders", { traceparent: "00-nonsense" }, "ERR_INVALID_HEADER", "traceparent");
  await rejected(engine, "orders", { contentType: "text/plain\r\nX: 1" }, "ERR_INVALID_HEADER", "contentType");
  await rejected(engine, "orders", { priority: 10 }, "ERR_INVALID_ARGUMENT", "priority", "10", "9");
});

scenario("BAD-15", "delays that are not times", async (stage) => {
  const engine = await prepare(stage);
  for (const ms of [-0.001, -1_000, -9e12, 9e12, 31_622_400_000.001]) {
    await rejected(engine, "orders", { delayMs: ms }, "ERR_INVALID_DELAY", "delayMs", `${ms} ms`);
    await rejected(engine, "orders", { ttlMs: ms }, "ERR_INVALID_DELAY", "ttlMs");
    await rejected(engine, "orders", { delayMs: 1_000, skipIfLateByMs: ms }, "ERR_INVALID_DELAY",
      "skipIfLateByMs");
  }
  for (const ms of [NaN, Infinity, -Infinity, 1e300, 2 ** 63, "1", "2026-01-01", 1n, true, {}, []]) {
    for (const option of ["delayMs", "ttlMs", "dueAt"]) {
      await refused(engine.publish("orders", "p", { [option]: ms }), "ERR_INVALID_ARGUMENT", option);
    }
  }
  await refused(engine.publish("orders", "p", { dueAt: new Date(NaN) }), "ERR_INVALID_ARGUMENT", "dueAt");
  const far = new Date("9999-01-01T00:00:00Z");
  await rejected(engine, "orders", { dueAt: far }, "ERR_INVALID_DELAY", "dueAt");
  await rejected(engine, "orders", { dueAt: Date.now() + 10_000, delayMs: 1_000 }, "ERR_INVALID_DELAY",
    "dueAt");
  await engine.publish("orders", "p", { dueAt: new Date("1900-01-01T00:00:00Z") }); // the past means now
  const dueAt = new Date(Date.now() + HOUR);
  const { id } = await engine.publish("orders", "p", { dueAt });
  await leavesAlone(engine, () => engine.reschedule(id, far), "ERR_INVALID_DELAY", "dueAt");
  assert.deepEqual((await engine.pending()).items[0].dueAt, dueAt);
  const unknown = "01890000-0000-7000-8000-000000000000";
  assert.equal(await engine.reschedule(unknown, dueAt), "not_found");
  assert.equal(await engine.cancel(id), "done");
  assert.equal(await engine.cancel(id), "not_found", "it did not fire");
});

scenario("BAD-15", "settling with a bad delay is refused and the delivery stays open", async (stage) => {
  const engine = await prepare(stage);
  let held;
  const consumer = await engine.consume("delays", member({ ack: "manual" }), (m) => (held = m));
  await engine.publish("delays", "p");
  await until(() => held !== undefined);
  for (const afterMs of [-1_000, 9e12]) await refused(() => held.nak({ afterMs }), "ERR_INVALID_DELAY");
  await refused(() => held.defer(-0.001), "ERR_INVALID_DELAY");
  for (const ms of [NaN, "1", Infinity, undefined]) await refused(() => held.defer(ms), "ERR_INVALID_ARGUMENT");
  for (const ms of [-1_000, 90_000_000, NaN, "1"]) await refused(() => held.extend(ms), "ERR_INVALID_ARGUMENT");
  held.ack();
  await until(() => consumer.statistics().acked === 1);
});

scenario("BAD-29", "a delivery of a closed consumer stays closed for ever", async (stage) => {
  const engine = await prepare(stage);
  let kept;
  const consumer = await engine.consume("orders", member({ ack: "manual" }), (m) => (kept = m));
  await engine.publish("orders", "p");
  await until(() => kept !== undefined);
  await consumer.close({ timeoutMs: 0 });
  const seen = new Recorder();
  await engine.consume("orders", member(), seen.handler);
  await seen.reaches(1);
  await refused(() => kept.ack(), "ERR_CLOSED");
  await refused(() => kept.ack({ wait: true }), "ERR_CLOSED");
  await refused(() => kept.extend(1_000), "ERR_CLOSED");
  assert.equal(kept.value, "p", "but it can be read");
  await holdsFor(() => seen.count === 1, 100);
  const unknown = "01890000-0000-7000-8000-000000000000";
  await refused(engine.redrive(unknown), "ERR_NOT_FOUND");
  await refused(engine.discardDeadLetter(unknown), "ERR_NOT_FOUND");
  assert.equal(await engine.findDeadLetter(unknown), undefined);
});

scenario("BAD-32", "a handler may publish to its own topic with every limit at one", async (stage) => {
  const engine = await stage.open({ publishInFlightCountMax: 1, inFlightCountMax: 1 });
  const seen = new Recorder();
  const consumer = await engine.consume("chain", member(), async (m) => {
    seen.add(m);
    if (Number(m.value) < 20) await engine.publish("chain", String(Number(m.value) + 1));
  });
  await engine.publish("chain", "0");
  await seen.reaches(21);
  await consumer.drain();
  assert.equal(seen.distinct, 21);
});

scenario("BAD-37", "idempotency keys that are empty, huge, or reused for something else", async (stage) => {
  const engine = await prepare(stage);
  for (const key of ["", "k".repeat(10_240)]) {
    await leavesAlone(engine, () => engine.once(key, () => assert.fail("it ran")), "ERR_INVALID_KEY");
  }
  const long = { fingerprint: "f".repeat(256) };
  await leavesAlone(engine, () => engine.once("key", () => assert.fail("it ran"), long), "ERR_INVALID_KEY",
    "fingerprint", "255");
  await engine.once("key", () => "r", { fingerprint: "a" });
  await refused(engine.once("key", () => "r", { fingerprint: "b" }), "ERR_KEY_MISMATCH", "key");
});

scenario("BAD-38", "cursors that this query did not make", async (stage) => {
  const engine = await prepare(stage);
  await makeDeadLetters(engine, "orders", 10);
  await makeDeadLetters(engine, "others", 10);
  const query = { topic: "orders", countMax: 3 };
  const { cursor: good } = await engine.deadLetters(query);
  assert.notEqual(good, "");
  const changed = range(Math.ceil(good.length / 3)).map((n) =>
    `${good.slice(0, 3 * n)}${good[3 * n] === "b" ? "c" : "b"}${good.slice(3 * n + 1)}`);
  for (const cursor of ["x", "0", "-1", "' OR 1=1 --", "A".repeat(10_000), `${good}x`,
    good.slice(0, good.length / 2), "\0", "\ud800", ...changed]) {
    await refused(engine.deadLetters({ ...query, cursor }), "ERR_INVALID_CURSOR");
  }
  await engine.deadLetters({ ...query, cursor: good });
  await refused(engine.deadLetters({ ...query, topic: "others", cursor: good }), "ERR_INVALID_CURSOR");
  for (const countMax of [0, 1_001, Number.MAX_SAFE_INTEGER, -1, 1.5, "1"]) {
    await refused(engine.deadLetters({ countMax }), "ERR_INVALID_ARGUMENT");
    await refused(engine.pending({ countMax }), "ERR_INVALID_ARGUMENT");
    await refused(engine.deadLetterGroups({ countMax }), "ERR_INVALID_ARGUMENT");
  }
  await publishAll(engine, [HOUR, 2 * HOUR].map((delayMs) => ({ topic: "later", value: "p", delayMs })));
  const { cursor: pending } = await engine.pending({ topic: "later", countMax: 1 });
  assert.notEqual(pending, "");
  for (const cursor of ["x", good, `${pending}0`, pending.slice(1)]) {
    await refused(engine.pending({ topic: "later", countMax: 1, cursor }), "ERR_INVALID_CURSOR");
  }
  await refused(engine.pending({ topic: "other", countMax: 1, cursor: pending }), "ERR_INVALID_CURSOR");
});

scenario("BAD-38", "queries and redrives that cannot be meant", async (stage) => {
  const engine = await prepare(stage);
  await makeDeadLetters(engine, "orders", 1);
  const [entry] = (await engine.deadLetters()).items;
  const before = await stateOf(engine);
  for (const destination of ["a.*", "a.#", "$SYS.x", "a b", ".."]) {
    await refused(engine.redrive(entry.id, { destination }), "ERR_INVALID_TOPIC", "destination");
    await refused(engine.redriveAll({}, { destination }), "ERR_INVALID_TOPIC");
  }
  for (const delayMs of [-0.001, 9e12, 24 * HOUR * 367]) {
    await refused(engine.redrive(entry.id, { delayMs }), "ERR_INVALID_DELAY", "delay");
    await refused(engine.redriveAll({}, { delayMs }), "ERR_INVALID_DELAY");
  }
  await refused(engine.redriveAll({}, { payload: "one for all" }), "ERR_INVALID_ARGUMENT", "payload", "single");
  await refused(engine.redrive(entry.id, { redriveMax: 0 }), "ERR_LIMIT_EXCEEDED");
  assert.deepEqual(await stateOf(engine), before);
  await engine.discardDeadLetter(entry.id);
  await refused(engine.discardDeadLetter(entry.id), "ERR_CONFLICT");
  await refused(engine.redrive(entry.id), "ERR_CONFLICT");
});
