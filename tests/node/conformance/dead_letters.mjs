// Dead letters: an entry keeps everything, listings page without gaps, a redrive moves each entry exactly once,
// and the store of them stays bounded.

import assert from "node:assert/strict";

import { Reject } from "towline";

import { deadLetters, fail, holdsFor, makeDeadLetters, member, publishNumbers, range, Recorder, refused,
  scenario, until, waiting } from "./harness.mjs";

const buried = (engine, count) =>
  until(async () => (await deadLetters(engine)).length === count, `${count} dead letters`);

scenario("CONF-35", "an entry keeps everything that is known", async (stage) => {
  const engine = await stage.open();
  await engine.consume("orders", member({ group: "billing", concurrency: 2 }), (m) => {
    fail("CardDeclined", `attempt ${m.attempt}`);
  });
  const payload = Buffer.from("order\0 7");
  const options = { key: "customer-9", headers: { tenant: "blue", Name: "Grün" }, contentType: "text/plain" };
  const before = Date.now();
  const { id } = await engine.publish("orders", payload, options);
  await buried(engine, 1);
  const after = Date.now();
  const [entry] = await deadLetters(engine);
  const { fingerprint, metadata, errorStack, publishedAt, firstFailedAt, lastFailedAt, createdAt, partition,
    id: entryId, ...facts } = entry;
  assert.deepEqual(facts, { messageId: id, topic: "orders", group: "billing", ...options, payload,
    reason: "exhausted", errorType: "CardDeclined", errorMessage: "attempt 3", attempt: 3, crashes: 0,
    reprocessCount: 0, status: "pending" });
  assert.match(fingerprint, /^[0-9a-f]{16}$/);
  assert.match(metadata, /attempt 1/, "the history has the first failure");
  assert.match(errorStack, /dead_letters\.mjs/);
  assert.ok(Number.isInteger(partition));
  const times = [before, publishedAt, firstFailedAt, lastFailedAt, createdAt, after + 1].map(Number);
  assert.deepEqual(times, [...times].sort((a, b) => a - b));
  assert.ok(firstFailedAt < lastFailedAt);
  assert.deepEqual(await engine.findDeadLetter(entryId), entry);
});

scenario("CONF-35", "an entry outlives a restart and is found by every filter", async (stage) => {
  let engine = await stage.open();
  const a = await engine.consume("orders", member({ group: "a" }), (m) => {
    fail(m.value === "1" ? "First" : "Second", `number ${m.value} failed at 0xdeadbeef`);
  });
  await publishNumbers(engine, "orders", 3);
  await publishNumbers(engine, "orders", 1, 100);
  await buried(engine, 4);
  await a.close();
  await makeDeadLetters(engine, "others", 2);
  await stage.close(engine);
  engine = await stage.open();
  const count = async (query) => (await engine.deadLetters(query)).items.length;
  const all = await deadLetters(engine);
  const newest = all.map((one) => one.createdAt).sort((x, y) => x - y).at(-1);
  const cases = [[{}, 6], [{ topic: "orders" }, 4], [{ group: "a" }, 4], [{ errorType: "First" }, 1],
    [{ text: "number 100" }, 1], [{ text: "NUMBER" }, 0], [{ text: "%" }, 0], [{ reason: "manual" }, 2],
    [{ status: "pending" }, 6], [{ status: "resolved" }, 0], [{ topic: "orders", errorType: "Second" }, 3]];
  for (const [query, wanted] of cases) assert.equal(await count(query), wanted, JSON.stringify(query));
  const from = await count({ createdFrom: newest });
  assert.ok(from >= 1);
  assert.equal(from + (await count({ createdBefore: newest })), 6, "from is inclusive, before is exclusive");
  assert.equal((await engine.statistics()).deadLetters.pending, 6);
});

scenario("CONF-35", "entries of one cause share a fingerprint", async (stage) => {
  const engine = await stage.open();
  await engine.consume("orders", member(), (m) => {
    if (m.value === "9") fail("Other", "something else");
    fail("NotFound", `no row ${m.value}17 at 0x7ffd${m.value}`);
  });
  await publishNumbers(engine, "orders", 10);
  await buried(engine, 10);
  const groups = await engine.deadLetterGroups();
  const counts = Object.fromEntries(groups.map((one) => [one.errorType, one.count]));
  assert.deepEqual(counts, { NotFound: 9, Other: 1 });
  for (const group of groups) {
    assert.equal(group.topic, "orders");
    assert.ok(group.firstAt <= group.lastAt);
    assert.equal((await deadLetters(engine, { fingerprint: group.fingerprint })).length, group.count);
  }
});

scenario("CONF-35", "without keeping the original only the facts stay", async (stage) => {
  const engine = await stage.open();
  const seen = new Recorder();
  let broken = true;
  await engine.consume("orders", member({ deadLetters: { keepOriginal: false } }), (m) => {
    if (broken) fail("Broken", "always");
    seen.add(m);
  });
  await engine.publish("orders", "secret", { headers: { h: "v" } });
  await buried(engine, 1);
  const [entry] = await deadLetters(engine);
  assert.deepEqual([entry.payload.length, entry.headers, entry.errorType], [0, {}, "Broken"]);
  await assert.rejects(engine.redrive(entry.id), "there is nothing to send");
  broken = false;
  await engine.redrive(entry.id, { payload: "replaced" });
  await seen.reaches(1);
  assert.deepEqual(seen.texts, ["replaced"]);
});

scenario("CONF-35", "without dead letters a failure is discarded and counted", async (stage) => {
  const engine = await stage.open();
  const options = member({ deadLetters: { enabled: false } });
  const consumer = await engine.consume("orders", options, () => fail("Broken"));
  await engine.publish("orders", "p");
  await until(() => consumer.statistics().discarded === 1);
  assert.deepEqual(await deadLetters(engine), []);
  assert.equal(await waiting(engine, "orders"), 0);
});

scenario("CONF-39", "paging misses nothing and shows nothing twice while entries come", async (stage) => {
  const engine = await stage.open();
  await makeDeadLetters(engine, "orders", 1_000);
  const seen = [];
  let cursor = "";
  let pages = 0;
  do {
    const page = await engine.deadLetters({ topic: "orders", countMax: 70, cursor });
    assert.ok(page.items.length <= 70);
    seen.push(...page.items.map((entry) => entry.payload.toString()));
    cursor = page.cursor;
    pages += 1;
    if (pages % 4 === 1) await makeDeadLetters(engine, "orders", 5, 10_000 + 5 * pages);
    assert.ok(pages < 1_000, "the listing does not end");
  } while (cursor !== "");
  assert.equal(new Set(seen).size, seen.length, "shown twice");
  const shown = new Set(seen);
  assert.deepEqual(range(1_000).map(String).filter((text) => !shown.has(text)), []);
});

scenario("CONF-39", "a cursor goes on after its entry is gone", async (stage) => {
  const engine = await stage.open();
  await makeDeadLetters(engine, "orders", 30);
  const query = { topic: "orders", status: "pending", countMax: 10 };
  let page = await engine.deadLetters(query);
  assert.equal(page.items.length, 10);
  // The last one of the page, where the cursor stands, leaves the listing.
  await engine.discardDeadLetter(page.items.at(-1).id);
  const seen = page.items.map((entry) => entry.payload.toString());
  while (page.cursor !== "") {
    page = await engine.deadLetters({ ...query, cursor: page.cursor });
    seen.push(...page.items.map((entry) => entry.payload.toString()));
  }
  assert.deepEqual([seen.length, new Set(seen).size], [30, 30]);
});

scenario("CONF-41", "two operators redrive the same entries and each re-enters once", async (stage) => {
  const [engine, other] = [await stage.open(), await stage.open()];
  await makeDeadLetters(engine, "orders", 1_000);
  const seen = new Recorder();
  await engine.consume("orders", member(), seen.handler);
  const reports = await Promise.all([engine, other].map((one) => one.redriveAll({ topic: "orders" })));
  assert.equal(reports[0].redriven + reports[1].redriven, 1_000);
  await seen.reaches(1_000);
  await holdsFor(() => seen.count === 1_000, 200);
  assert.equal(seen.distinct, 1_000);
  assert.ok(seen.all.every(({ message }) => message.attempt === 1 && message.redrives === 1));
  assert.ok((await deadLetters(engine)).every((entry) => entry.status === "resolved"));
});

scenario("CONF-41", "a redrive reaches only the group that failed", async (stage) => {
  const engine = await stage.open();
  const [failing, fine] = [new Recorder(), new Recorder()];
  let broken = true;
  await engine.consume("orders", member({ group: "failing" }), (m) => {
    if (broken) fail("Broken");
    failing.add(m);
  });
  await engine.consume("orders", member({ group: "fine" }), fine.handler);
  const { id } = await engine.publish("orders", "p", { key: "k", headers: { h: "v" } });
  await buried(engine, 1);
  broken = false;
  const [entry] = await deadLetters(engine);
  await engine.redrive(entry.id);
  await failing.reaches(1);
  assert.deepEqual([failing.all[0].message.id, failing.all[0].key], [id, "k"]);
  await holdsFor(() => fine.count === 1 && failing.count === 1, 200);
  await refused(engine.redrive(entry.id), "ERR_CONFLICT");
});

scenario("CONF-41", "a redrive can be tried out, slowed, delayed and sent elsewhere", async (stage) => {
  const engine = await stage.open();
  await makeDeadLetters(engine, "orders", 10);
  assert.deepEqual(await engine.redriveAll({ topic: "orders" }, { dryRun: true }),
    { matched: 10, redriven: 0, passedOver: 0 });
  assert.equal((await engine.statistics()).deadLetters.pending, 10, "a dry run changes nothing");
  const [seen, elsewhere] = [new Recorder(), new Recorder()];
  const a = await engine.consume("orders", member(), seen.handler);
  await engine.consume("repair", member(), elsewhere.handler);
  let started = performance.now();
  const slowly = { ratePerSecond: 20, destination: "repair" };
  assert.equal((await engine.redriveAll({ topic: "orders" }, slowly)).redriven, 10);
  await elsewhere.reaches(10);
  assert.ok(performance.now() - started >= 350, "10 entries at 20/s");
  assert.equal(seen.count, 0);
  await a.close();
  await makeDeadLetters(engine, "orders", 1, 50);
  await engine.consume("orders", member(), seen.handler);
  started = performance.now();
  const report = await engine.redriveAll({ topic: "orders", status: "pending" }, { delayMs: 300 });
  assert.equal(report.redriven, 1);
  await seen.reaches(1);
  assert.ok(performance.now() - started >= 300);
});

scenario("CONF-41", "a message is sent back only so often", async (stage) => {
  const engine = await stage.open();
  await engine.consume("orders", member({ retry: { maxAttempts: 1 } }), () => fail("Broken"));
  await engine.publish("orders", "p");
  const pending = { status: "pending" };
  for (let round = 0; round <= 2; round += 1) {
    const entry = await until(async () => (await engine.deadLetters(pending)).items[0], "a dead letter");
    assert.equal(entry.reprocessCount, round);
    const redriving = engine.redrive(entry.id, { redriveMax: 2 });
    if (round < 2) await redriving;
    else await refused(redriving, "ERR_LIMIT_EXCEEDED");
  }
  assert.equal((await engine.redriveAll(pending, { redriveMax: 2 })).passedOver, 1);
});

scenario("CONF-41", "an entry is redriven automatically when its policy says so", async (stage) => {
  const engine = await stage.open();
  const seen = new Recorder();
  const options = member({ retry: { maxAttempts: 1 }, deadLetters: { redriveAfterMs: 100, redriveMax: 2 } });
  await engine.consume("orders", options, (m) => {
    seen.add(m);
    fail("Broken");
  });
  await engine.publish("orders", "p");
  await seen.reaches(3);
  await holdsFor(() => seen.count === 3, 400, "the first time, two redrives, and no more");
  assert.equal(seen.all[2].message.redrives, 2);
  assert.equal((await engine.statistics()).deadLetters.pending, 1);
});

scenario("CONF-42", "every state is removed by age", async (stage) => {
  let engine = await stage.open();
  await makeDeadLetters(engine, "orders", 10);
  const all = await deadLetters(engine);
  await engine.redrive(all[0].id);
  await engine.discardDeadLetter(all[1].id);
  assert.equal((await deadLetters(engine)).length, 10, "kept until the clean-up");
  await stage.close(engine);
  engine = await stage.open({ deadLetterAgeMsMax: 1_000 });
  await buried(engine, 0);
  const { deadLetters: counts, swept } = await engine.statistics();
  assert.deepEqual(Object.values(counts), [0, 0, 0, 0, 0]);
  assert.ok(swept >= 10, "removals are counted");
});

scenario("CONF-42", "beyond the count limit the oldest go", async (stage) => {
  const engine = await stage.open({ deadLetterCountMax: 20, sweepIntervalMs: 20 });
  await makeDeadLetters(engine, "first", 15);
  await engine.consume("second", member(), () => {
    throw new Reject("made by the test");
  });
  await publishNumbers(engine, "second", 15);
  const count = async (topic) => (await deadLetters(engine, { topic })).length;
  await until(async () => (await count("second")) === 15 && (await count("first")) <= 5, "the oldest are gone");
  await holdsFor(async () => (await deadLetters(engine)).length === 20, 100);
});

scenario("CONF-42", "an alert starts and ends", async (stage) => {
  const engine = await stage.open({ alert: { depthCount: 3, newFingerprint: true, cooldownMs: 0 } });
  const alerts = [];
  engine.events.on("alert", (alert) => alerts.push(alert));
  const count = (kind, recovered) =>
    alerts.filter((one) => one.kind === kind && one.recovered === recovered).length;
  await makeDeadLetters(engine, "orders", 5);
  await until(() => count("depth", false) >= 1 && count("new_fingerprint", false) === 1, "alerts");
  assert.equal(count("depth", true), 0);
  for (const entry of await deadLetters(engine)) await engine.discardDeadLetter(entry.id);
  await until(() => count("depth", true) >= 1, "the end of an alert");
});
