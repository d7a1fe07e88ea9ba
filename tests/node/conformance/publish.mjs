// Publishing: what goes in comes out, byte for byte; what is refused is refused before anything is stored; ids
// are unique and a dedup id keeps the second publish away.

import assert from "node:assert/strict";

import { holdsFor, makeGroup, member, publishAll, publishNumbers, range, Recorder, refused, scenario, until,
  waiting } from "./harness.mjs";

const ALL_BYTES = Buffer.from(range(256));

scenario("CONF-01", "payloads of every size and byte come out equal", async (stage) => {
  const engine = await stage.open();
  const seen = new Map();
  await engine.consume("bytes", member(), (m) => seen.set(m.id, m.payload));
  const payloads = [Buffer.alloc(0), Buffer.from([0]), Buffer.from("x"), ALL_BYTES, Buffer.alloc(65_536, "k"),
    Buffer.concat(Array(64).fill(ALL_BYTES)), Buffer.alloc(1_048_576, 0xff)];
  const published = new Map();
  for (const payload of payloads) published.set((await engine.publish("bytes", payload)).id, payload);
  await until(() => seen.size === payloads.length);
  for (const [id, payload] of published) assert.ok(payload.equals(seen.get(id)), `of ${payload.length} bytes`);
});

scenario("CONF-01", "every field of a message comes out equal", async (stage) => {
  const engine = await stage.open();
  const options = { key: "k\0ey", headers: { plain: "value", Unicode: "grüße 漢字 🚀", empty: "",
    "ce-id": "A234-1234" }, contentType: "application/json; charset=utf-8", correlationId: "corr-1",
  causationId: "cause-1", traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", priority: 3 };
  const before = Date.now();
  const { id } = await engine.publish("fields", '{"n":1}', options);
  const seen = [];
  const consumer = await engine.consume("fields", member({ ack: "manual" }), (m) => {
    seen.push(m);
    m.ack();
  });
  await until(() => seen.length === 1);
  await consumer.close();
  const [kept] = seen;
  const { id: gotId, topic, group, key, headers, contentType, correlationId, causationId, traceparent } = kept;
  assert.deepEqual({ id: gotId, topic, group, key, headers, contentType, correlationId, causationId,
    traceparent }, { id, topic: "fields", group: "group", key: options.key, headers: options.headers,
    contentType: options.contentType, correlationId: options.correlationId,
    causationId: options.causationId, traceparent: options.traceparent });
  assert.equal(kept.payload.toString(), '{"n":1}', "stays readable as long as the message is kept");
  assert.deepEqual(kept.value, { n: 1 });
  assert.ok(kept.publishedAt >= before && kept.publishedAt <= Date.now());
  assert.deepEqual([kept.attempt, kept.crashes, kept.redrives, kept.redelivered], [1, 0, 0, false]);
});

scenario("CONF-01", "no key and the empty key are different", async (stage) => {
  const engine = await stage.open();
  const keys = {};
  await engine.consume("keys", member(), (m) => (keys[m.value] = m.key));
  await engine.publish("keys", "none");
  await engine.publish("keys", "empty", { key: "" });
  await until(() => Object.keys(keys).length === 2);
  assert.deepEqual(keys, { none: null, empty: "" });
});

scenario("CONF-02", "what is published before the consumer starts is delivered", async (stage) => {
  const engine = await stage.open();
  await makeGroup(engine, "orders");
  await publishNumbers(engine, "orders", 100);
  const seen = new Recorder();
  const consumer = await engine.consume("orders", member(), seen.handler);
  await seen.reaches(100);
  await consumer.drain();
  assert.deepEqual([seen.count, seen.distinct], [100, 100]);
});

scenario("CONF-12", "a batch answers for each message, in order", async (stage) => {
  const engine = await stage.open();
  const seen = new Recorder();
  const consumer = await engine.consume("batch", member(), seen.handler);
  const batch = range(100).map((n) => ({ topic: "batch", value: String(n) }));
  batch[0].topic = "not a topic";
  batch[42].headers = { "towline-attempt": "9" };
  batch[99].delayMs = -1_000;
  const invalid = { 0: "ERR_INVALID_TOPIC", 42: "ERR_RESERVED_HEADER", 99: "ERR_INVALID_DELAY" };
  const receipts = await engine.publishBatch(batch);
  assert.deepEqual(receipts.map((one) => [one.outcome, one.error?.code]),
    range(100).map((n) => (n in invalid ? ["rejected", invalid[n]] : ["acked", undefined])));
  await seen.reaches(97);
  await consumer.drain();
  assert.equal(seen.distinct, 97);
  for (const n of Object.keys(invalid)) assert.ok(!seen.texts.includes(n));
});

scenario("CONF-14", "eight producers never make the same id twice", async (stage) => {
  const engines = await Promise.all(range(8).map(() => stage.open()));
  const batch = Array(500).fill({ topic: "ids", value: "p" });
  const ids = await Promise.all(engines.map(async (engine) => {
    const mine = [];
    for (let sent = 0; sent < 12_500; sent += 500) {
      mine.push(...(await publishAll(engine, batch)).map((one) => one.id));
    }
    return mine;
  }));
  assert.equal(new Set(ids.flat()).size, 100_000);
});

scenario("CONF-16", "a payload over the limit is rejected and the next is not", async (stage) => {
  const engine = await stage.open({ payloadBytesMax: 1_000 });
  await makeGroup(engine, "sizes");
  const error = await refused(engine.publish("sizes", Buffer.alloc(1_001)), "ERR_PAYLOAD_TOO_LARGE", "1001",
    "1000");
  assert.equal(error.outcome, "rejected");
  assert.equal(await waiting(engine, "sizes"), 0);
  await engine.publish("sizes", Buffer.alloc(1_000));
  assert.equal(await waiting(engine, "sizes"), 1);
});

scenario("CONF-18", "one dedup id from five publishers is one message", async (stage) => {
  const engines = await Promise.all(range(5).map(() => stage.open()));
  const seen = new Recorder();
  await engines[0].consume("dedup", member(), seen.handler);
  for (let round = 0; round < 20; round += 1) {
    const receipts = await Promise.all(engines.map((engine) =>
      engine.publish("dedup", "p", { dedupId: `once-${round}` })));
    assert.equal(new Set(receipts.map((one) => one.id)).size, 1, "a duplicate answers the first one's id");
    assert.equal(receipts.filter((one) => !one.duplicate).length, 1);
  }
  await seen.reaches(20);
  await holdsFor(() => seen.count === 20, 200);
  const counts = await Promise.all(engines.map(async (engine) => (await engine.statistics()).duplicates));
  assert.equal(counts.reduce((sum, one) => sum + one), 80);
});

scenario("CONF-18", "a dedup id is known in one batch, after a restart, and only in its topic",
  async (stage) => {
  let engine = await stage.open();
  await makeGroup(engine, "dedup");
  const twin = { topic: "dedup", value: "p", dedupId: "twin" };
  const receipts = await publishAll(engine, [twin, twin, twin]);
  assert.deepEqual(receipts.map((one) => one.duplicate), [false, true, true]);
  assert.equal(receipts[2].id, receipts[0].id);
  await stage.close(engine);
  engine = await stage.open();
  const again = await engine.publish("dedup", "p", { dedupId: "twin" });
  assert.deepEqual([again.duplicate, again.id], [true, receipts[0].id]);
  assert.equal((await engine.publish("other", "p", { dedupId: "twin" })).duplicate, false);
  assert.equal(await waiting(engine, "dedup"), 1);
});

scenario("CONF-18", "the dedup window ends", async (stage) => {
  const engine = await stage.open({ dedupWindowMs: 1_000 });
  const first = await engine.publish("dedup", "p", { dedupId: "window" });
  const started = performance.now();
  const receipt = await until(async () => {
    const one = await engine.publish("dedup", "p", { dedupId: "window" });
    return one.duplicate ? undefined : one;
  });
  assert.notEqual(receipt.id, first.id);
  assert.ok(performance.now() - started >= 900, "the window was shorter than asked for");
});

scenario("CONF-18", "while unfinished ends with the acknowledgement", async (stage) => {
  const engine = await stage.open();
  const options = { dedupId: "nightly", dedupWhileUnfinished: true };
  await makeGroup(engine, "jobs");
  const first = await engine.publish("jobs", "p", options);
  assert.equal((await engine.publish("jobs", "p", options)).duplicate, true);
  const seen = new Recorder();
  const consumer = await engine.consume("jobs", member(), seen.handler);
  await seen.reaches(1);
  await consumer.drain();
  const second = await engine.publish("jobs", "p", options);
  assert.equal(second.duplicate, false, "the first one is finished");
  assert.notEqual(second.id, first.id);
  await consumer.resume();
});

scenario("CONF-18", "a delayed message is a duplicate too, and cancelling it frees its id", async (stage) => {
  const engine = await stage.open();
  const options = { dedupId: "later", dedupWhileUnfinished: true, delayMs: 3_600_000 };
  const first = await engine.publish("jobs", "p", options);
  const second = await engine.publish("jobs", "p", options);
  assert.deepEqual([second.duplicate, second.id], [true, first.id]);
  assert.equal((await engine.pending()).items.length, 1);
  assert.equal(await engine.cancel(first.id), "done");
  const third = await engine.publish("jobs", "p", options);
  assert.equal(third.duplicate, false);
  assert.equal(await engine.cancel(third.id), "done");
});
