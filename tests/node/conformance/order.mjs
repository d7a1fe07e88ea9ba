// Order: per key and group, handlers start in publishing order and never overlap, also over retries, dead
// letters and changes of membership; a key that fails holds up itself and nobody else.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { setImmediate as turn } from "node:timers/promises";

import { root } from "../support.mjs";
import { deadLetters, fail, holdsFor, makeGroup, member, publishAll, range, Recorder, refused, scenario,
  until } from "./harness.mjs";

const numberOf = (message) => Number(message.value.split("/")[1]);

/** Watches handlers; payloads are "<key>/<number>", numbered from 0 per key. */
class OrderWatch {
  #running = new Map();
  #started = new Map();
  faults = [];

  /** One handler of a lane (a key, or a partition), which lets others run in its middle. */
  async around(lane, message, work = () => turn()) {
    const running = (this.#running.get(lane) ?? 0) + 1;
    this.#running.set(lane, running);
    if (running > 1) this.faults.push(`${lane}: two at once`);
    const number = numberOf(message);
    const started = this.#started.get(message.key) ?? 0;
    if (number > started) this.faults.push(`${message.value} before an earlier one of its key`);
    if (number < started - 1) this.faults.push(`${message.value} again after a later one of its key`);
    if (number === started) this.#started.set(message.key, started + 1);
    try {
      await work();
    } finally {
      this.#running.set(lane, this.#running.get(lane) - 1);
    }
  }
}

const ordered = (options = {}) => member({ ordering: "key", concurrency: 4, ...options });

function publishKeys(engine, topic, keyCount, from, to) {
  return publishAll(engine, range(to - from, from).flatMap((n) =>
    range(keyCount).map((k) => ({ topic, value: `key-${k}/${n}`, key: `key-${k}` }))));
}

scenario("CONF-28", "handlers of a key start in publishing order among four members", async (stage) => {
  const watch = new OrderWatch();
  const seen = new Recorder();
  const engines = [await stage.open(), await stage.open()];
  const members = [];
  for (let i = 0; i < 4; i += 1) {
    members.push(await engines[i % 2].consume("orders", ordered(), (m) => {
      seen.add(m);
      return watch.around(m.key, m);
    }));
  }
  for (let from = 0; from < 500; from += 50) await publishKeys(engines[0], "orders", 20, from, from + 50);
  await seen.reaches(10_000);
  await Promise.all(members.map((one) => one.drain()));
  assert.deepEqual([seen.count, seen.distinct], [10_000, 10_000]);
  assert.deepEqual(watch.faults, []);
});

scenario("CONF-28", "in partition order one handler runs per partition", async (stage) => {
  const watch = new OrderWatch();
  const seen = new Recorder();
  const engine = await stage.open();
  await engine.declareTopic("orders", { partitionCount: 4 });
  const consumer = await engine.consume("orders", ordered({ ordering: "partition" }), (m) => {
    seen.add(m);
    return watch.around(m.partition, m);
  });
  await publishKeys(engine, "orders", 20, 0, 50);
  await seen.reaches(1_000);
  await consumer.drain();
  assert.deepEqual(watch.faults, []);
  const partitions = Map.groupBy?.(seen.all, (one) => one.message.partition) ?? groupBy(seen.all);
  assert.ok(partitions.size > 1);
  for (const handled of partitions.values()) {
    const ids = handled.map((one) => one.message.id);
    assert.deepEqual(ids, [...ids].sort(), "a partition left its publishing order");
  }
});

function groupBy(all) {
  const groups = new Map();
  for (const one of all) {
    const { partition } = one.message;
    if (!groups.has(partition)) groups.set(partition, []);
    groups.get(partition).push(one);
  }
  return groups;
}

scenario("CONF-29", "a retry holds up its key and no other", async (stage) => {
  const engine = await stage.open();
  const watch = new OrderWatch();
  const seen = new Recorder();
  const options = ordered({ retry: { initialDelayMs: 300 } });
  const consumer = await engine.consume("orders", options, async (m) => {
    seen.add(m);
    await watch.around(m.key, m);
    if (m.value === "key-0/3" && m.attempt <= 2) fail("Flaky", "not yet");
  });
  await publishKeys(engine, "orders", 8, 0, 10);
  // 4 of key-0 have started (0 to 3), and everything of the others.
  await seen.reaches(74);
  await holdsFor(() => seen.count === 74, 100, "key-0/4 waits");
  const blocked = await engine.blockedKeys("group", "orders");
  assert.deepEqual(blocked.map((one) => [one.key, one.held]), [["key-0", false]]);
  await seen.reaches(82);
  await consumer.drain();
  const key0 = seen.all.filter((one) => one.key === "key-0").map((one) => `${one.text.slice(6)}#${one.attempt}`);
  assert.deepEqual(key0, ["0#1", "1#1", "2#1", "3#1", "3#2", "3#3", "4#1", "5#1", "6#1", "7#1", "8#1", "9#1"]);
  assert.deepEqual(watch.faults, []);
  assert.deepEqual(await engine.blockedKeys("group", "orders"), []);
});

scenario("CONF-29", "order holds over many retries and a restart", async (stage) => {
  const watch = new OrderWatch();
  const seen = new Recorder();
  const handler = async (m) => {
    await watch.around(m.key, m);
    if (numberOf(m) % 7 === 3 && m.attempt < 3) fail("Flaky", "not yet");
    seen.add(m);
  };
  let engine = await stage.open();
  const consumer = await engine.consume("orders", ordered(), handler);
  await publishKeys(engine, "orders", 10, 0, 50);
  await seen.reaches(166);
  await consumer.close();
  await stage.close(engine);
  engine = await stage.open();
  await engine.consume("orders", ordered(), handler);
  await until(() => seen.distinct === 500, "every message");
  assert.deepEqual(watch.faults, []);
});

scenario("CONF-30", "a key goes to the partition of the vectors and stays there", async (stage) => {
  const file = path.join(root, "tests/vectors/partitions.txt");
  const vectors = new Map();
  for (const line of readFileSync(file, "utf8").split("\n")) {
    if (line === "" || line.startsWith("#")) continue;
    const [hex, partition] = line.split(" ");
    const bytes = Buffer.from(hex === "-" ? "" : hex, "hex");
    // A key is text here; what is none is proved in C++.
    if (bytes.length <= 255 && Buffer.from(bytes.toString()).equals(bytes)) {
      vectors.set(bytes.toString(), Number(partition));
    }
  }
  assert.ok(vectors.size >= 100, `${vectors.size} keys that are text`);
  let engine = await stage.open();
  await makeGroup(engine, "vectors");
  for (let round = 0; round < 2; round += 1) {
    await publishAll(engine, [...vectors.keys()].map((key) => ({ topic: "vectors", value: "p", key })));
    await stage.close(engine);
    engine = await stage.open();
  }
  const seen = new Recorder();
  await engine.consume("vectors", member(), seen.handler);
  await seen.reaches(2 * vectors.size);
  for (const { message } of seen.all) assert.equal(message.partition, vectors.get(message.key), message.key);
});

scenario("CONF-31", "a member that joins mid-stream never overlaps with the others", async (stage) => {
  const watch = new OrderWatch();
  const [first, second] = [new Recorder(), new Recorder()];
  const [engine, other] = [await stage.open(), await stage.open()];
  const handlerOf = (recorder) => (m) => {
    recorder.add(m);
    return watch.around(m.key, m);
  };
  const a = await engine.consume("orders", ordered(), handlerOf(first));
  await publishKeys(engine, "orders", 20, 0, 50);
  await first.reaches(50);
  const b = await other.consume("orders", ordered(), handlerOf(second));
  await publishKeys(engine, "orders", 20, 50, 100);
  await until(() => first.count + second.count >= 2_000, "every message");
  // The newcomer gets its share; with a backlog handled already it may have to wait for new messages.
  for (let n = 100; n < 300 && second.count === 0; n += 1) {
    await publishKeys(engine, "orders", 20, n, n + 1);
    await until(() => second.count > 0, "a share", 50).catch(() => {});
  }
  assert.ok(second.count > 0, "the newcomer got nothing");
  await b.close();
  await a.close();
  assert.deepEqual(watch.faults, []);
});

scenario("CONF-32", "the next message of a key runs after its head became a dead letter", async (stage) => {
  const engine = await stage.open();
  const seen = new Recorder();
  const consumer = await engine.consume("orders", ordered(), (m) => {
    seen.add(m);
    if (m.value === "key-0/0") fail("Broken", "always");
  });
  await publishKeys(engine, "orders", 1, 0, 5);
  await seen.reaches(7);
  await consumer.drain();
  assert.deepEqual(seen.texts, ["key-0/0", "key-0/0", "key-0/0", "key-0/1", "key-0/2", "key-0/3", "key-0/4"]);
  assert.equal((await deadLetters(engine)).length, 1);
  assert.deepEqual(await engine.blockedKeys("group", "orders"), []);
});

scenario("CONF-32", "a parked key waits for a person", async (stage) => {
  const engine = await stage.open();
  const seen = new Recorder();
  const consumer = await engine.consume("orders", ordered({ onKeyFailure: "park_key" }), (m) => {
    seen.add(m);
    if (m.value === "key-0/1") fail("Broken", "always");
  });
  await publishKeys(engine, "orders", 2, 0, 5);
  await until(async () => (await deadLetters(engine)).length === 1, "a dead letter");
  await seen.reaches(9);
  await holdsFor(() => seen.count === 9, 200, "key-0/2 waits for releaseKey()");
  const blocked = await engine.blockedKeys("group", "orders");
  assert.deepEqual(blocked.map((one) => [one.key, one.held, one.parkedCount]), [["key-0", true, 3]]);
  await refused(engine.releaseKey("group", "orders", "key-1"), "ERR_NOT_FOUND");
  await engine.releaseKey("group", "orders", "key-0");
  await seen.reaches(12);
  await consumer.drain();
  const tail = seen.texts.filter((text) => text > "key-0/1" && text < "key-1");
  assert.deepEqual(tail, ["key-0/2", "key-0/3", "key-0/4"]);
  assert.deepEqual(await engine.blockedKeys("group", "orders"), []);
});

scenario("CONF-32", "with skip a failed message is a dead letter at once and its key goes on",
  async (stage) => {
  const engine = await stage.open();
  const seen = new Recorder();
  const consumer = await engine.consume("orders", ordered({ onKeyFailure: "skip" }), (m) => {
    seen.add(m);
    if (m.value === "key-0/1") fail("Broken", "always");
  });
  await publishKeys(engine, "orders", 1, 0, 5);
  await seen.reaches(5);
  await consumer.drain();
  assert.deepEqual(seen.texts, range(5).map((n) => `key-0/${n}`));
  assert.equal((await deadLetters(engine)).length, 1);
});

scenario("CONF-32", "a blocked key is blocked in every engine of the group", async (stage) => {
  const [engine, other] = [await stage.open(), await stage.open()];
  const seen = new Recorder();
  let broken = true;
  const options = ordered({ retry: { maxAttempts: 1_000 } });
  const handler = (m) => {
    if (broken && m.value === "key-0/0") fail("Flaky", "not yet");
    seen.add(m);
  };
  const a = await engine.consume("orders", options, handler);
  await publishKeys(engine, "orders", 1, 0, 3);
  await until(async () => (await engine.blockedKeys("group", "orders")).length === 1, "a blocked key");
  await other.consume("orders", options, handler);
  await a.close();
  await publishKeys(engine, "orders", 1, 3, 6);
  await holdsFor(() => seen.count === 0, 300, "the key is blocked for its new owner too");
  assert.equal((await engine.blockedKeys("group", "orders")).length, 1);
  broken = false;
  await seen.reaches(6);
  assert.deepEqual(seen.texts, range(6).map((n) => `key-0/${n}`));
});
