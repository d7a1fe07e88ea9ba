// Groups and topics: each group gets every message and its members share them; topics never mix; patterns
// deliver once; members come and go without losing anything.

import assert from "node:assert/strict";

import { deadLetters, fail, gate, holdsFor, LEASE_MS, makeGroup, member, publishAll, publishNumbers, range,
  Recorder, scenario, until } from "./harness.mjs";

/** The rule in ten lines: `*` one token, `#` any number, a last `>` one or more. */
function matches([head, ...rest], topic) {
  if (head === undefined) return topic.length === 0;
  if (head === "#") return range(topic.length + 1).some((skip) => matches(rest, topic.slice(skip)));
  if (topic.length === 0) return false;
  if (head === ">" && rest.length === 0) return true;
  return (head === "*" || head === topic[0]) && matches(rest, topic.slice(1));
}

scenario("CONF-19", "each group gets every message", async (stage) => {
  const engine = await stage.open();
  const seen = { first: new Recorder(), second: new Recorder() };
  const consumers = [];
  for (const [group, recorder] of Object.entries(seen)) {
    consumers.push(await engine.consume("orders", member({ group, concurrency: 4 }), recorder.handler));
  }
  await publishNumbers(engine, "orders", 500);
  for (const [group, recorder] of Object.entries(seen)) {
    await recorder.reaches(500);
    assert.equal(recorder.all[0].message.group, group);
  }
  for (const consumer of consumers) await consumer.drain();
  for (const recorder of Object.values(seen)) assert.deepEqual([recorder.count, recorder.distinct], [500, 500]);
});

scenario("CONF-19", "one group's failures are not the other's business", async (stage) => {
  const engine = await stage.open();
  const [good, bad] = [new Recorder(), new Recorder()];
  await engine.consume("orders", member({ group: "good" }), good.handler);
  await engine.consume("orders", member({ group: "bad" }), (m) => {
    bad.add(m);
    fail("Broken", "always");
  });
  await publishNumbers(engine, "orders", 10);
  await until(async () => (await deadLetters(engine)).length === 10, "dead letters");
  assert.deepEqual([good.count, bad.count], [10, 30]);
  assert.ok((await deadLetters(engine)).every((entry) => entry.group === "bad"));
});

scenario("CONF-20", "members of a group share the work", async (stage) => {
  const engines = await Promise.all(range(4).map(() => stage.open()));
  const seen = engines.map(() => new Recorder());
  const everybody = gate();
  for (const [i, engine] of engines.entries()) {
    // The first ones wait for each other, so that nobody is done with everything before the others are awake.
    await engine.consume("orders", member({ concurrency: 2, prefetchCount: 1 }), async (m) => {
      seen[i].add(m);
      if (seen.every((recorder) => recorder.count > 0)) everybody.open();
      await everybody.opened;
    });
  }
  for (let n = 0; n < 1_000; n += 20) await publishNumbers(engines[0], "orders", 20, n);
  const total = () => seen.reduce((sum, one) => sum + one.count, 0);
  await until(() => total() >= 1_000);
  await holdsFor(() => total() === 1_000, 100, "handled as often as published");
  assert.ok(seen.every((recorder) => recorder.count > 0), "a member was left out");
  assert.equal(new Set(seen.flatMap((recorder) => recorder.texts)).size, 1_000);
});

scenario("CONF-21", "twenty topics never mix", async (stage) => {
  const engine = await stage.open();
  const seen = new Map(range(20).map((n) => [`topic.${n}`, new Recorder()]));
  for (const [topic, recorder] of seen) await engine.consume(topic, member(), recorder.handler);
  await Promise.all([...seen.keys()].map((topic) =>
    publishAll(engine, range(100).map((n) => ({ topic, value: `${topic}/${n}` })))));
  for (const [topic, recorder] of seen) {
    await recorder.reaches(100);
    assert.equal(recorder.distinct, 100);
    for (const { message, text } of recorder.all) {
      assert.equal(message.topic, topic);
      assert.ok(text.startsWith(`${topic}/`), text);
    }
  }
});

scenario("CONF-21", "topics that differ only in a punctuation mark or in case are distinct", async (stage) => {
  const engine = await stage.open();
  const topics = ["a.b", "a_b", "a-b", "A.b", "ab", "a.b.c"];
  const seen = topics.map(() => new Recorder());
  for (const [i, topic] of topics.entries()) await engine.consume(topic, member(), seen[i].handler);
  for (const topic of topics) await engine.publish(topic, topic);
  for (const [i, topic] of topics.entries()) {
    await seen[i].reaches(1);
    assert.deepEqual(seen[i].texts, [topic]);
  }
});

scenario("CONF-22", "patterns match as the reference matcher says", async (stage) => {
  const engine = await stage.open();
  const patterns = ["a", "a.b", "*", "a.*", "*.b", "#", "a.#", "#.c", "a.#.c", "*.*", "a.>", "*.#.c", ">",
    "#.b.#"];
  const topics = ["a", "b", "a.b", "a.c", "b.c", "a.b.c", "a.x.y.c", "b.b", "a.b.b.c", "c"];
  const seen = patterns.map(() => new Recorder());
  for (const [i, pattern] of patterns.entries()) {
    await engine.consume(pattern, member({ group: `group-${i}` }), seen[i].handler);
  }
  for (const topic of topics) await engine.publish(topic, topic);
  const wanted = patterns.map((pattern) =>
    topics.filter((topic) => matches(pattern.split("."), topic.split("."))).sort());
  await until(() => seen.every((recorder, i) => recorder.count >= wanted[i].length), "every match");
  await holdsFor(() => seen[patterns.indexOf("#")].count === topics.length, 100);
  for (const [i, pattern] of patterns.entries()) assert.deepEqual(seen[i].texts.sort(), wanted[i], pattern);
});

scenario("CONF-22", "a pattern finds topics that are made later", async (stage) => {
  const engine = await stage.open();
  const seen = new Recorder();
  await engine.consume("late.*", member(), seen.handler);
  for (let n = 0; n < 5; n += 1) {
    await engine.publish(`late.t${n}`, String(n));
    await seen.reaches(n + 1);
  }
});

scenario("CONF-23", "overlapping patterns of one group deliver once", async (stage) => {
  const engine = await stage.open();
  const [one, three] = [new Recorder(), new Recorder()];
  await engine.consume(["a.*", "a.b", ">", "#"], member({ group: "one" }), one.handler);
  for (const pattern of ["a.*", "a.b", ">"]) {
    await engine.consume(pattern, member({ group: "three" }), three.handler);
  }
  await publishNumbers(engine, "a.b", 50);
  await one.reaches(50);
  await three.reaches(50);
  await holdsFor(() => one.count === 50 && three.count === 50, 200);
});

scenario("CONF-24", "a new group starts where it asks and a known one goes on", async (stage) => {
  const engine = await stage.open();
  await engine.declareTopic("history", { retentionMs: 3_600_000 });
  await makeGroup(engine, "history", "known");
  const ids = [];
  const times = [];
  for (let n = 0; n < 10; n += 1) {
    times.push(Date.now());
    ids.push((await engine.publish("history", String(n))).id);
    await until(() => Date.now() > times[n] + 2);
  }
  const cases = {
    earliest: ["earliest", 0],
    latest: ["latest", 10],
    after: [`after:${ids[3]}`, 4],
    since: [`at:${times[7] * 1_000}`, 7],
    known: ["latest", 0], // the group was there before the messages: nothing is passed over
  };
  for (const [group, [startAt, first]] of Object.entries(cases)) {
    const seen = new Recorder();
    const consumer = await engine.consume("history", member({ group, start: startAt }), seen.handler);
    await engine.publish("history", `mark of ${group}`);
    await until(() => seen.texts.includes(`mark of ${group}`), group);
    await consumer.drain();
    const numbers = seen.texts.filter((text) => /^\d$/.test(text)).sort();
    assert.deepEqual(numbers, range(10 - first, first).map(String), group);
    await consumer.close();
  }
});

scenario("CONF-25", "a consumer that closes hands back what it holds", async (stage) => {
  // So long a lease that only closing can be what hands them back.
  const [engine, other] = [await stage.open({ leaseMs: 3_600_000 }), await stage.open({ leaseMs: 3_600_000 })];
  const [held, seen] = [new Recorder(), new Recorder()];
  const leaver = await engine.consume("orders", member({ ack: "manual", concurrency: 10 }), held.handler);
  await publishNumbers(engine, "orders", 10);
  await held.reaches(10);
  await other.consume("orders", member(), seen.handler);
  await holdsFor(() => seen.count === 0, 100);
  await leaver.close({ timeoutMs: 0 });
  await seen.reaches(10, LEASE_MS);
  assert.equal(seen.distinct, 10);
  assert.ok(seen.all.every(({ message, attempt }) => attempt === 1 && message.crashes === 0),
    "giving back counts nothing");
});

scenario("CONF-26", "fifty joins and leaves lose nothing", async (stage) => {
  const engine = await stage.open();
  await makeGroup(engine, "churn");
  const seen = new Recorder();
  const publishing = (async () => {
    for (let n = 0; n < 5_000; n += 50) await publishNumbers(engine, "churn", 50, n);
  })();
  const members = [];
  for (let i = 0; i < 50; i += 1) {
    if (members.length >= 3) await members.shift().close();
    members.push(await engine.consume("churn", member({ concurrency: 1 + (i % 3) }), seen.handler));
  }
  await publishing;
  await until(() => seen.distinct === 5_000, "every message");
  assert.equal(seen.count, 5_000, "members that close settle what they handled: no duplicates");
});

scenario("CONF-27", "ten tasks that subscribe and close leave a working group", async (stage) => {
  const engine = await stage.open();
  await makeGroup(engine, "churn");
  await Promise.all(range(10).map(async () => {
    for (let round = 0; round < 5; round += 1) {
      await (await engine.consume("churn", member(), () => {})).close();
    }
  }));
  const seen = new Recorder();
  await engine.consume("churn", member(), seen.handler);
  await publishNumbers(engine, "churn", 50);
  await seen.reaches(50);
  assert.equal(seen.distinct, 50);
});
