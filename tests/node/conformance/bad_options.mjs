// Bad options, URLs, files, subscriptions, handlers and statements.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";

import { Defer, Engine, Limiter, Retry } from "towline";

import { folderOf } from "../support.mjs";
import { deadLetters, fail, gate, holdsFor, inFlight, member, plain, publishNumbers, Recorder, refused, scenario,
  until, waiting } from "./harness.mjs";
import { leavesAlone, prepare, unconsumable } from "./bad_input.mjs";

const CONFIG = "ERR_INVALID_CONFIG";
const TOO_MANY = 2 ** 31;

scenario("BAD-16", "leases that cannot work", async (stage) => {
  const engine = await prepare(stage);
  for (const leaseMs of [0, 1, -1_000, 315_360_000_000, 9e15]) {
    await refused(Engine.open(stage.url, { leaseMs }), CONFIG, "leaseMs", String(leaseMs));
    await refused(engine.once("key", () => assert.fail("it ran"), { leaseMs }), CONFIG);
  }
  for (const handlerTimeoutMs of [0, -1_000, 90_000_000]) {
    await unconsumable(engine, "orders", { handlerTimeoutMs }, CONFIG, "handlerTimeoutMs",
      String(handlerTimeoutMs));
  }
  await refused(engine.once("key", () => assert.fail("it ran"), { ttlMs: 0 }), CONFIG);
});

scenario("BAD-17", "retry policies that cannot work", async (stage) => {
  const engine = await prepare(stage);
  const bad = async (retry, ...words) => {
    await leavesAlone(engine, () => engine.consume("orders", { group: "group", retry }, () => {}), CONFIG,
      ...words);
    await leavesAlone(engine, () => engine.publishWithRetry("orders", "p", { retry }), CONFIG);
  };
  for (const maxAttempts of [0, -1, TOO_MANY]) {
    await bad({ maxAttempts }, "maxAttempts", String(maxAttempts), "1000000");
  }
  for (const multiplier of [0.5, 0, -2, 1e9, NaN, Infinity]) await bad({ multiplier }, "multiplier", "1000");
  for (const ratio of [-0.1, 1.5, NaN]) {
    await bad({ jitterRatio: ratio }, "jitterRatio");
    await bad({ budgetRatio: ratio }, "budgetRatio");
  }
  await bad({ initialDelayMs: -1_000 }, "initialDelayMs");
  await bad({ initialDelayMs: 0 }, "initialDelayMs", "more than 0", "fixed");
  await bad({ initialDelayMs: 90_000_000 }, "initialDelayMs");
  await bad({ delayMsMax: 10 }, "delayMsMax", "initialDelayMs");
  await bad({ kind: "sequence" }, "sequence");
  await bad({ kind: "sequence", sequenceMs: [1_000, -1_000] }, "sequence");
  await bad({ kind: "custom" }, "custom", "C++", "sequenceMs");
});

scenario("BAD-18", "limits that cannot work", async (stage) => {
  const engine = await prepare(stage);
  const cases = {
    concurrency: [0, -1, 4_097, TOO_MANY], prefetchCount: [-1, 100_001, TOO_MANY], prefetchBytesMax: [0, -1],
    batchCountMax: [0, 10_001], ratePerSecond: [-1, 10_000_001], parkedCountMax: [0, -5],
  };
  for (const [name, values] of Object.entries(cases)) {
    for (const value of values) {
      await unconsumable(engine, "orders", { [name]: value }, CONFIG, name, String(value));
    }
  }
  await unconsumable(engine, "orders", { partitions: [1_024] }, CONFIG, "partitions");
  await unconsumable(engine, "orders", { deadLetters: { maxCrashes: 0 } }, CONFIG, "maxCrashes");
  await unconsumable(engine, "orders", { breaker: { enabled: true, failureRatio: 0 } }, CONFIG, "failureRatio");
  for (const filter of ["header.x = ", "(".repeat(5_000)]) {
    await unconsumable(engine, "orders", { filter }, "ERR_INVALID_FILTER", "filter");
  }
  for (const partitionCount of [0, 1_025, -1]) {
    await refused(engine.declareTopic("sized", { partitionCount }), CONFIG);
  }
  const consumer = await engine.consume("orders", member(), () => {});
  for (const count of [0, 4_097]) {
    await refused(() => consumer.setConcurrency(count), CONFIG, "concurrency", String(count), "4096");
  }
  for (const count of [-1, 1.5, Number.MAX_SAFE_INTEGER, "8", NaN]) {
    await refused(() => consumer.setConcurrency(count), "ERR_INVALID_ARGUMENT", "concurrency");
  }
  consumer.setConcurrency(4_096);
  consumer.setConcurrency(1);
  const options = {
    partitionCount: [0, 1_025, -1], payloadBytesMax: [0, 67_108_865], batchCountMax: [0, 100_001],
    publishInFlightCountMax: [0, TOO_MANY], inFlightCountMax: [0, TOO_MANY], inFlightBytesMax: [0, 1_023],
    promoteCountMax: [0, 10_001], deadLetterCountMax: [0, TOO_MANY], seed: [-1],
  };
  for (const [name, values] of Object.entries(options)) {
    for (const value of values) {
      await refused(Engine.open(stage.url, { [name]: value }), CONFIG, name, String(value));
    }
  }
});

scenario("BAD-18", "time limits of any size mean what they say", async (stage) => {
  const engine = await prepare(stage);
  const consumer = await engine.consume("orders", member(), () => {});
  // As long as it takes: these end because there is nothing to wait for, not because the sum ran over.
  await engine.settleDown({ timeoutMs: 9e12 });
  await consumer.drain({ timeoutMs: 9e12 });
  consumer.resume();
  await engine.publishWithRetry("orders", "p", { timeoutMs: 9e12 });
  await engine.publishWithRetry("orders", "p", { timeoutMs: -9e12 });
  await consumer.close({ timeoutMs: 9e12 });
  const other = await engine.consume("orders", member(), () => {});
  await other.close({ timeoutMs: -9e12 });
});

plain("BAD-18", "limits of permits that cannot work", async () => {
  for (const limit of [0, TOO_MANY]) await refused(() => new Limiter(limit), CONFIG);
  for (const limit of [-1, 1.5, NaN, "1", undefined]) {
    await refused(() => new Limiter(limit), "ERR_INVALID_ARGUMENT");
  }
  const limiter = new Limiter(3);
  await refused(() => limiter.setLimit(0), CONFIG);
  for (const weight of [0, 4]) await refused(limiter.acquire({ weight }), "ERR_INVALID_ARGUMENT");
  const held = await limiter.acquire({ weight: 3, timeoutMs: 9e12 });
  for (const timeoutMs of [0, -1]) await refused(limiter.acquire({ timeoutMs }), "ERR_TIMEOUT");
  held.release();
});

scenario("BAD-19", "options that nobody knows or can read", async (stage) => {
  const engine = await prepare(stage);
  const unreadable = (parameters, ...words) => refused(Engine.open(stage.url + parameters), CONFIG, ...words);
  await unreadable("?lease_sm=5000", "lease_sm", "lease_ms");
  await unreadable("?something_else_entirely=1", "something_else_entirely");
  await unreadable("?lease_ms=soon", "lease_ms", "soon");
  await unreadable("?lease_ms=5000&lease_ms=6000", "lease_ms");
  for (const value of ["", "nan", "inf", "-1", "1e300", "9223372036854775808", "0x10", "5s", "%205000", "5,000"]) {
    await unreadable(`?lease_ms=${value}`, "lease_ms");
  }
  await unreadable("?durability=forever", "durability", "forever");
  await stage.close(await Engine.open(`${stage.url}?lease_ms=5000&partition_count=16`));
  const bad = (options, ...words) => refused(Engine.open(stage.url, options), CONFIG, ...words);
  await bad({ leaseSm: 1 }, "leaseSm", "leaseMs");
  await bad({ lease_ms: 5_000 }, "lease_ms", "did you mean 'leaseMs'");
  await bad({ leaseMs: "soon" }, "leaseMs", "soon");
  for (const value of [null, {}, [], () => 1, Symbol("s")]) await bad({ leaseMs: value }, "leaseMs");
  await bad({ alert: 1 }, "alert");
  await bad({ alert: { depth: 1 } }, "alert.depth");
  await bad({ logLevel: "loud" }, "logLevel", "warning");
  await refused(engine.consume("orders", { group: "g", concurency: 1 }, () => {}), CONFIG, "concurency");
  await refused(engine.consume("orders", { group: "g", ordering: "keys" }, () => {}), CONFIG, "ordering");
  await refused(engine.publish("orders", "p", { delay: 1 }), "ERR_INVALID_ARGUMENT", "delay", "delayMs");
});

scenario("BAD-20", "options that contradict each other", async (stage) => {
  const engine = await prepare(stage);
  await unconsumable(engine, "orders", { inboxWindowMs: 1 }, CONFIG, "inboxWindowMs");
  await engine.declareTopic("small", { partitionCount: 8 });
  await refused(engine.consume("small", member({ partitions: [70] }), () => {}), CONFIG);
  for (const other of [{ partitionCount: 9 }, { type: "log", partitionCount: 8 }]) {
    await refused(engine.declareTopic("small", other), "ERR_TOPOLOGY_MISMATCH");
  }
  await engine.declareTopic("small", { partitionCount: 8 });
  if (!stage.provider.durable) {
    await refused(Engine.open(stage.url, { durability: "host" }), "ERR_DURABILITY_UNAVAILABLE");
  }
});

plain("BAD-21", "URLs that nobody can open, and the password in them is never shown", async () => {
  const urls = ["", "x", ":", "://", "sqlite", "memory", "nosuch:thing", "http://h/", "redis://h:99999",
    "redis://user:hunter2@h:99999", "postgres://user:hunter2@h:port/db", "sqlite:", "sqlite:a%zz",
    "sqlite:a.db?x", "sqlite:a.db?lease_ms", "nosuch://user:hunter2@host/path", "//user:hunter2@host",
    "user:hunter2@host", "redis://:hunter2@h/?lease_ms=hunter2x", "sqlite:a\0b", "sqlite:a\nb", "memory:a b",
    "x".repeat(100_000), "SQLITE://user:hunter2@h", "sqlite:file:x?mode=memory&vfs=unix"];
  for (const url of urls) {
    const error = await Engine.open(url).then(() => assert.fail(url.slice(0, 100)), (caught) => caught);
    assert.ok(["ERR_INVALID_URL", CONFIG, "ERR_UNSUPPORTED"].includes(error.code), `${url}: ${error}`);
    assert.ok(!error.stack.includes("hunter2"), error.stack);
    assert.ok(error.message.length < 1_000);
  }
  for (const url of [undefined, null, 7, {}, Buffer.from("memory:")]) {
    await refused(Engine.open(url), "ERR_INVALID_ARGUMENT", "url");
  }
});

plain("BAD-22", "files that are no stores are refused and left as they are", async (t) => {
  const folder = folderOf(t);
  const file = (name) => path.join(folder, name);
  const unopened = (name, codes) => assert.rejects(Engine.open(`sqlite:${file(name)}`), (error) => {
    assert.ok(codes.includes(error.code), `${error}`);
    assert.ok(error.message.includes(path.basename(name)), `does not name the file: ${error.message}`);
    return true;
  });
  const untouched = async (name, bytes, codes) => {
    writeFileSync(file(name), bytes);
    await unopened(name, codes);
    assert.deepEqual(readFileSync(file(name)), Buffer.from(bytes));
    assert.deepEqual(readdirSync(path.dirname(file(name))).filter((one) => one.startsWith(name)), [name]);
  };
  const none = ["ERR_NOT_A_STORE", "ERR_INVALID_URL", "ERR_IO"];
  mkdirSync(file("folder"));
  execFileSync("mkfifo", [file("fifo")]);
  symlinkSync(file("loop"), file("loop"));
  for (const name of ["folder", "fifo", "loop", "no/such/folder/a.db"]) await unopened(name, none);
  await assert.rejects(Engine.open("sqlite:/dev/null"));
  await untouched("text.db", "this is a text and no database ".repeat(10), ["ERR_NOT_A_STORE"]);
  await untouched("short.db", "x", ["ERR_NOT_A_STORE"]);
  const own = await Engine.open(`sqlite:${file("own.db")}`);
  await own.publish("t", "p");
  for (const name of readdirSync(path.dirname(file("own.db"))).filter((one) => one.startsWith("own.db"))) {
    assert.equal(statSync(file(name)).mode & 0o777, 0o600, name);
  }
  await own.close();
  // The header of the file: user_version at 60, application_id at 68, big-endian.
  const newer = readFileSync(file("own.db"));
  newer.writeUInt32BE(0x7f000000, 60);
  await untouched("newer.db", newer, ["ERR_SCHEMA_TOO_NEW"]);
  const foreign = readFileSync(file("own.db"));
  foreign.write("GPKG", 68);
  await untouched("foreign.db", foreign, ["ERR_NOT_A_STORE"]);
  if (process.getuid() !== 0) {
    chmodSync(file("own.db"), 0o444); // to the superuser no file is read-only
    await unopened("own.db", ["ERR_IO", "ERR_NOT_A_STORE"]);
  }
});

scenario("BAD-23", "two processes share one store as documented", async (stage) => {
  const engine = await prepare(stage);
  const child = await stage.child("work");
  await publishNumbers(engine, "orders", 20);
  await until(() => stage.ledger("done").length === 20, "the other one handles what this one published");
  const seen = new Recorder();
  await engine.consume("orders", member(), seen.handler);
  await publishNumbers(engine, "orders", 200, 20);
  await until(() => stage.ledger("done").length + seen.count === 220, "both handle the rest");
  child.child.kill("SIGKILL");
  await until(async () => (await inFlight(engine)) === 0, "nothing is held");
  assert.equal((await engine.health()).ok, true);
}, "shared");

scenario("BAD-27", "functions that are not there", async (stage) => {
  const engine = await prepare(stage);
  for (const handler of [undefined, null, "f", 42, {}, []]) {
    for (const call of ["consume", "consumeBatches"]) {
      await leavesAlone(engine, () => engine[call]("orders", member(), handler), "ERR_INVALID_ARGUMENT",
        "handler");
    }
    await leavesAlone(engine, () => engine.once("key", handler), "ERR_INVALID_ARGUMENT", "function");
  }
});

scenario("BAD-28", "what a handler returns means nothing, and odd waits are bounded", async (stage) => {
  const engine = await prepare(stage);
  const answers = ["ack", 42, false, null, new Error("not thrown"), { then: 1 }, [Promise.reject.name]];
  const handled = [];
  const consumer = await engine.consume("orders", member(), (m) => {
    handled.push(m.attempt);
    return answers[Number(m.value)];
  });
  await publishNumbers(engine, "orders", answers.length);
  await until(() => consumer.statistics().acked === answers.length);
  assert.ok(handled.every((attempt) => attempt === 1));
  const seen = new Recorder();
  const other = await engine.consume("waits", member(), (m) => {
    seen.add(m);
    if (m.attempt === 1) throw new Retry("", { afterMs: -1_000 }); // before now means now
  });
  await engine.publish("waits", "p");
  await seen.reaches(2);
  await until(() => other.statistics().acked === 1);
  let calls = 0;
  await engine.consume("busy", member(), () => {
    calls += 1;
    throw new Defer(9e12);
  });
  await engine.publish("busy", "p");
  await until(async () => (await engine.statistics()).scheduledNow === 1, "it waits");
  await holdsFor(() => calls === 1, 100, "the sum does not run over");
  assert.deepEqual(await deadLetters(engine), []);
});

scenario("BAD-30", "the same subscription twice", async (stage) => {
  const engine = await prepare(stage);
  const consume = (options) => engine.consume("orders", member(options), () => {});
  const first = await consume({ name: "worker-1" });
  await unconsumable(engine, "orders", { name: "worker-1" }, "ERR_ALREADY_SUBSCRIBED", "worker-1");
  await consume({ name: "worker-2" });
  await consume({ name: "worker-1", group: "other" });
  await consume({});
  await consume({});
  await first.close();
  await consume({ name: "worker-1" });
});

scenario("BAD-31", "closing inside a handler and from two places at once", async (stage) => {
  const engine = await prepare(stage);
  const seen = new Recorder();
  const begun = gate();
  const consumer = await engine.consume("orders", member({ concurrency: 2 }), async (m) => {
    seen.add(m);
    begun.open();
    await consumer.close();
  });
  await publishNumbers(engine, "orders", 10);
  await begun.opened;
  await Promise.all([consumer.close(), consumer.close()]);
  assert.equal((await waiting(engine, "orders")) + seen.count, 10, "what was handled is settled, the rest not");
  await engine.consume("orders", member(), seen.handler);
  await seen.reaches(10);
  assert.equal(seen.distinct, 10);
});

scenario("BAD-33", "calls while the program ends are refused and nothing crashes", async (stage) => {
  const { done } = await stage.child("exit");
  const { code, signal, out, err } = await done;
  assert.deepEqual([code, signal, out, err], [0, null, "ready\nended\n", ""]);
});

scenario("BAD-54", "a topic that is there but otherwise keeps its settings", async (stage) => {
  const engine = await prepare(stage);
  const laid = { type: "log", partitionCount: 8, retentionMs: 3_600_000 };
  await engine.declareTopic("laid", laid);
  await leavesAlone(engine, () => engine.declareTopic("laid", { ...laid, partitionCount: 16 }),
    "ERR_TOPOLOGY_MISMATCH", "laid", "8", "16");
  await leavesAlone(engine, () => engine.declareTopic("laid", { ...laid, type: "queue" }),
    "ERR_TOPOLOGY_MISMATCH", "laid");
  await engine.declareTopic("laid", laid);
});

scenario("BAD-55", "what a transaction refuses is rolled back and the delivery stays", async (stage) => {
  const engine = await prepare(stage);
  let held;
  const consumer = await engine.consume("orders", member({ ack: "manual" }), (m) => (held = m));
  await engine.publish("orders", "p");
  await until(() => held !== undefined);
  const refuse = (body, code) => assert.throws(() => held.transaction(body), { code });
  for (const sql of ["", "nonsense", "SELECT * FROM nowhere", "BEGIN", "COMMIT", "ROLLBACK",
    "PRAGMA synchronous = OFF", "ATTACH 'x' AS y", "DELETE FROM message", "UPDATE meta SET value = 0",
    "DROP TABLE message", "SELECT ?1"]) {
    refuse((tx) => tx.execute(sql), "ERR_INVALID_ARGUMENT");
  }
  refuse((tx) => tx.execute("SELECT 1", [1]), "ERR_INVALID_ARGUMENT");
  for (const value of [{}, [], () => 1, Symbol("s"), 2n ** 63n, undefined]) {
    refuse((tx) => tx.execute("SELECT ?1", [value]), "ERR_INVALID_ARGUMENT");
  }
  refuse((tx) => tx.execute("SELECT 1", "1"), "ERR_INVALID_ARGUMENT");
  refuse((tx) => tx.publish("a.*", "p"), "ERR_INVALID_TOPIC");
  refuse((tx) => tx.complete("", "", "r"), "ERR_INVALID_KEY");
  refuse((tx) => held.transaction(() => tx), "ERR_ALREADY_SETTLED"); // inside another one
  refuse(undefined, "ERR_INVALID_ARGUMENT");
  refuse(async () => {}, "ERR_INVALID_ARGUMENT"); // it would go on after the end
  let escaped;
  assert.throws(() => held.transaction((tx) => ((escaped = tx), fail("Own"))), { name: "Own" });
  assert.throws(() => escaped.execute("SELECT 1"), { code: "ERR_CLOSED" });
  held.ack();
  await until(() => consumer.statistics().acked === 1);
}, "sql");
