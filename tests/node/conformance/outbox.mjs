// The contract for SQL of others, written with a driver of the caller's own in the process of the engine: two copies
// of SQLite on one file.

import assert from "node:assert/strict";
import { setImmediate as turn } from "node:timers/promises";

import { DatabaseSync } from "@photostructure/sqlite";

import { deadLetters, makeGroup, member, range, Recorder, scenario, until } from "./harness.mjs";

const ORDER = "INSERT INTO towline_outbox_v1(topic, key, payload) VALUES('orders', ?, ?)";

/** As a program has it that knows nothing of the engine. */
function connected(stage, use) {
  const connection = new DatabaseSync(stage.path, { timeout: 30_000 });
  try {
    return use(connection);
  } finally {
    connection.close();
  }
}

function inTransaction(connection, work) {
  connection.exec("BEGIN IMMEDIATE");
  try {
    work();
  } catch (error) {
    connection.exec("ROLLBACK");
    throw error;
  }
  connection.exec("COMMIT");
}

/** One row of a query. */
const one = (connection, query) => Object.values(connection.prepare(query).get());

/** Each in a transaction of its own, every third rolled back; now and then with a new connection. */
async function writeOrders(stage, writer, count) {
  const committed = [];
  for (let first = 0; first < count; first += 10) {
    connected(stage, (connection) => {
      for (const number of range(10, first)) {
        const order = `${writer}-${number}`;
        try {
          inTransaction(connection, () => {
            connection.prepare("INSERT INTO orders VALUES(?)").run(order);
            connection.prepare(ORDER).run(`k${writer}`, order);
            if (number % 3 === 1) throw new Error("unlucky");
          });
          committed.push(order);
        } catch (error) {
          assert.equal(error.message, "unlucky");
        }
      }
    });
    await turn(); // the others, and the engine
  }
  return committed;
}

scenario("CONF-104", "what was committed is handled once and what was rolled back never", async (stage) => {
  const [writers, each] = [3, 60];
  const engine = await stage.open();
  connected(stage, (connection) => connection.exec("CREATE TABLE orders(id TEXT PRIMARY KEY)"));
  const seen = new Recorder();
  await engine.consume("orders", member({ ordering: "key" }), seen.handler);
  // Beside it the engine publishes, so both copies write and read at once.
  let [isDone, published] = [false, 0];
  const writing = Promise.all(range(writers).map((writer) => writeOrders(stage, writer, each)))
    .finally(() => (isDone = true));
  while (!isDone) {
    await engine.publish("noise", "n");
    published += 1;
  }
  const committed = (await writing).flat();
  assert.equal(committed.length, writers * each * 2 / 3);
  await seen.reaches(committed.length);
  await engine.settleDown();
  const payloads = seen.texts;
  assert.deepEqual([...payloads].sort(), [...committed].sort(), "each once");
  for (const writer of range(writers)) {
    const mine = payloads.filter((order) => order.startsWith(`${writer}-`)).map((order) => Number(order.split("-")[1]));
    assert.deepEqual(mine, [...mine].sort((a, b) => a - b), "in order of its key");
  }
  const { relayed, refused, published: counted } = await engine.statistics();
  assert.deepEqual([relayed, refused, counted], [committed.length, 0, published]);
  connected(stage, (connection) => {
    assert.deepEqual(one(connection, "PRAGMA integrity_check"), ["ok"]);
    assert.deepEqual(one(connection, "SELECT count(*) FROM orders"), [committed.length]);
    assert.deepEqual(one(connection, "SELECT count(*) FROM towline_outbox_v1"), [0]);
  });
  await stage.close(engine);
  // What the engine leaves behind when it closes is whole, too.
  connected(stage, (connection) => assert.deepEqual(one(connection, "PRAGMA integrity_check"), ["ok"]));
}, "sql");

scenario("CONF-104", "what was written while no engine ran is published by the next", async (stage) => {
  const first = await stage.open();
  await makeGroup(first, "orders");
  await stage.close(first);
  connected(stage, (connection) => connection.prepare(ORDER).run(null, Buffer.from("kept")));
  const engine = await stage.open();
  const seen = new Recorder();
  await engine.consume("orders", member(), seen.handler);
  await seen.reaches(1);
  assert.deepEqual(seen.times, { kept: 1 });
}, "sql");

scenario("CONF-104", "a value arrives as if it had been published", async (stage) => {
  const engine = await stage.open();
  const seen = [];
  await engine.consume("orders", member(), (m) => {
    seen.push([m.value, m.id, m.key, m.headers, m.correlationId]);
  });
  const id = "018f0000-0000-7000-8000-000000000001";
  connected(stage, (connection) => {
    connection.prepare("INSERT INTO towline_outbox_v1(topic, key, payload, content_type, headers, message_id, " +
      "correlation_id) VALUES('orders', 'ann', ?, 'application/json', ?, ?, 'c-1')")
      .run('{"amount": 5}', '{"tenant": "ü"}', id);
  });
  await until(() => seen.length === 1);
  assert.deepEqual(seen, [[{ amount: 5 }, id, "ann", { tenant: "ü" }, "c-1"]]);
}, "sql");

scenario("CONF-104", "delays, dedup ids and ids are those of a publish", async (stage) => {
  const engine = await stage.open();
  const seen = new Recorder();
  await engine.consume("orders", member(), seen.handler);
  const id = "018f0000-0000-7000-8000-000000000001";
  connected(stage, (connection) => inTransaction(connection, () => {
    connection.prepare("INSERT INTO towline_outbox_v1(topic, payload, message_id, delay_ms) " +
      "VALUES('orders', 'later', ?, 3600000)").run(id);
    for (const payload of ["one", "again"]) {
      connection.prepare("INSERT INTO towline_outbox_v1(topic, payload, dedup_id) VALUES('orders', ?, 'd')").run(payload);
    }
  }));
  await seen.reaches(1);
  await engine.settleDown();
  assert.deepEqual(seen.texts, ["one"]);
  assert.ok((await engine.publish("orders", "and again", { dedupId: "d" })).duplicate);
  assert.equal(await engine.cancel(id), "done");
}, "sql");

scenario("CONF-104", "what SQL can see is refused and the rest becomes a dead letter", async (stage) => {
  const engine = await stage.open();
  connected(stage, (connection) => {
    for (const [columns, values] of [["topic", [""]], ["topic, headers", ["t", "no JSON"]]]) {
      const marks = values.map(() => "?").join();
      const insert = () =>
        connection.prepare(`INSERT INTO towline_outbox_v1(${columns}) VALUES(${marks})`).run(...values);
      assert.throws(insert, /towline_outbox_v1: .* must be/);
    }
    connection.exec("INSERT INTO towline_outbox_v1(topic, payload) VALUES('amq.x', 'never')");
  });
  await until(async () => (await deadLetters(engine)).length === 1);
  const [entry] = await deadLetters(engine);
  assert.deepEqual([entry.topic, entry.payload.toString(), entry.reason], ["amq.x", "never", "publish_failed"]);
  assert.equal((await engine.statistics()).refused, 1);
}, "sql");

scenario("CONF-105", "a message is taken in once however often it is delivered", async (stage) => {
  const engine = await stage.open();
  const connection = new DatabaseSync(stage.path, { timeout: 30_000 });
  connection.exec("CREATE TABLE paid(id TEXT)");
  let [calls, duplicates] = [0, 0];
  await engine.consume("orders", member(), (message) => {
    calls += 1;
    try {
      inTransaction(connection, () => {
        connection.prepare('INSERT INTO towline_inbox_v1("group", message_id) VALUES(?, ?)')
          .run(message.group, message.id);
        connection.prepare("INSERT INTO paid VALUES(?)").run(message.value);
      });
    } catch (error) {
      assert.match(error.message, /duplicate/);
      duplicates += 1;
    }
    if (message.attempt === 1) throw new Error("unlucky"); // after the commit, so the message comes again
  });
  for (const number of range(20)) await engine.publish("orders", `${number}`);
  await until(() => calls === 40);
  await engine.settleDown();
  assert.deepEqual(one(connection, "SELECT count(*), count(DISTINCT id) FROM paid"), [20, 20]);
  connection.close();
  assert.deepEqual([calls, duplicates], [40, 20]);
}, "sql");
