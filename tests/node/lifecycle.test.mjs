// Opening and closing in every order, and what keeps a process alive.

import assert from "node:assert/strict";
import path from "node:path";
import { afterEach, test } from "node:test";

import { ClosedError, Engine, InvalidArgumentError } from "towline";

import { collect, folderOf, open, run, runModule, start, until } from "./support.mjs";

// What was given back too early, or twice, shows where it is collected.
afterEach(collect);

test("closing twice, and from several places at once, is one closing", async (t) => {
  const engine = await open(t, "memory:");
  let closed = 0;
  engine.events.on("closed", () => (closed += 1));
  const answers = await Promise.all([1, 2, 3, 4].map(() => engine.close()));
  assert.deepEqual(answers, [0, 0, 0, 0]);
  assert.equal(await engine.close(), 0);
  await until(() => closed === 1);
});

test("who closes with less time hurries the one who closes already", async (t) => {
  const engine = await open(t, "memory:", { drainTimeoutMs: 3_600_000 });
  let started = false;
  const consumer = await engine.consume("a", { group: "g" }, () => {
    started = true;
    return new Promise(() => {});
  });
  await engine.publish("a", 1);
  await until(() => started);
  const patient = [consumer.close(), engine.close()];
  assert.equal(await consumer.close({ timeoutMs: 0 }), 1);
  await engine.close({ timeoutMs: 0 });
  assert.equal((await Promise.all(patient))[0], 1);
});

test("closing inside a handler returns at once, and the rest happens later", async (t) => {
  const engine = await Engine.open("memory:");
  const closed = new Promise((resolve) => engine.events.once("closed", resolve));
  let answer;
  await engine.consume("a", { group: "g" }, async () => {
    await null;
    answer = await engine.close();
  });
  await engine.publish("a", 1);
  await closed;
  assert.equal(answer, 0);
  await assert.rejects(engine.publish("a", 1), ClosedError);
});

test("waiting for handlers inside a handler is refused", async (t) => {
  const engine = await open(t, "memory:");
  let error;
  const consumer = await engine.consume("a", { group: "g" }, async () => {
    error = await consumer.drain().catch((caught) => caught);
    await consumer.close();
  });
  await engine.publish("a", 1);
  await until(() => error !== undefined);
  assert.ok(error instanceof InvalidArgumentError);
});

test("a handler that never ends does not hold up close, and its message is handed out again", async (t) => {
  const url = `sqlite:${path.join(folderOf(t), "a.db")}`;
  const engine = await Engine.open(url);
  let stuck;
  await engine.consume("a", { group: "g" }, (m) => {
    stuck = m;
    return new Promise(() => {});
  });
  await engine.publish("a", "payload");
  await until(() => stuck !== undefined);
  const started = Date.now();
  assert.equal(await engine.close({ timeoutMs: 50 }), 1);
  assert.ok(Date.now() - started < 5_000);
  assert.equal(stuck.signal.aborted, true);
  assert.equal(stuck.payload.toString(), "payload");
  const again = await open(t, url);
  const seen = [];
  await again.consume("a", { group: "g" }, (m) => seen.push(m.value));
  await until(() => seen.length === 1);
});

test("await using closes", async (t) => {
  const engine = await Engine.open("memory:");
  await engine[Symbol.asyncDispose]();
  await assert.rejects(engine.statistics(), ClosedError);
});

test("an idle engine lets the process end", async (t) => {
  const url = `sqlite:${path.join(folderOf(t), "a.db")}`;
  const { code, out, err, ms } = await runModule(`
    import { Engine } from "towline";
    const engine = await Engine.open(process.argv[1]);
    await engine.publish("a", 1);
    const consumer = await engine.consume("a", { group: "g" }, () => {});
    await consumer.close();
    console.log("last line");`, url);
  assert.deepEqual([code, out, err], [0, "last line\n", ""]);
  assert.ok(ms < 15_000, `${ms} ms`);
});

test("a running consumer keeps the process, until it is closed", async () => {
  const { code, out } = await runModule(`
    import { Engine } from "towline";
    const engine = await Engine.open("memory:");
    const consumer = await engine.consume("a", { group: "g" }, async () => {
      console.log("handled");
      setTimeout(() => consumer.close(), 10).unref();
    });
    await engine.publish("a", 1, { delayMs: 300 });
    process.on("exit", () => console.log("exit"));`);
  assert.deepEqual([code, out], [0, "handled\nexit\n"]);
});

test("process.exit in a handler ends the process with its code, and the message comes again", async (t) => {
  const url = `sqlite:${path.join(folderOf(t), "a.db")}`;
  const { code, signal, err, ms } = await runModule(`
    import { Engine } from "towline";
    const engine = await Engine.open(process.argv[1], { leaseMs: 500 });
    await engine.consume("a", { group: "g", concurrency: 4 }, async () => { await null; process.exit(7); });
    await engine.publishBatch([1, 2, 3, 4].map((value) => ({ topic: "a", value })));`, url);
  assert.deepEqual([code, signal, err], [7, null, ""]);
  assert.ok(ms < 15_000, `${ms} ms`);
  const engine = await open(t, url);
  const seen = [];
  await engine.consume("a", { group: "g", concurrency: 4 }, (m) => seen.push(m.value));
  await until(() => seen.length === 4);
});

test("a lease is renewed while the event loop stands still for three of them: one delivery", async (t) => {
  const url = `sqlite:${path.join(folderOf(t), "a.db")}`;
  const engine = await open(t, url, { leaseMs: 200 });
  // Another process of the same group, which would take over what is not renewed.
  const other = start(process.execPath, ["--input-type=module", "--eval", `
    import { Engine } from "towline";
    const engine = await Engine.open(process.argv[1], { leaseMs: 200 });
    let count = 0;
    const consumer = await engine.consume("a", { group: "g" }, () => { count += 1; });
    consumer.pause();
    console.log("ready");
    let waited;
    process.stdin.on("data", (data) => {
      if (data.includes("go")) consumer.resume();
      if (data.includes("go")) waited = setTimeout(() => console.log("tried", count), 450);
    }).on("end", async () => {
      clearTimeout(waited);
      await engine.close();
      console.log(count);
    });`, "--", url]);
  await until(() => other.out().includes("ready"));
  let deliveries = 0;
  const consumer = await engine.consume("a", { group: "g" }, () => {
    deliveries += 1;
    other.child.stdin.write("go\n");
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 600);
  });
  await engine.publish("a", 1);
  await until(() => deliveries === 1);
  await engine.settleDown();
  const { acked, leaseLost } = consumer.statistics();
  other.child.stdin.end();
  const { out } = await other.done;
  assert.deepEqual([deliveries, acked, leaseLost, out], [1, 1, 0, "ready\ntried 0\n0\n"]);
});

test("a consumer that nobody keeps goes on, whatever the garbage collector does", async () => {
  const { code, out, err } = await run(process.execPath, ["--expose-gc", "--input-type=module", "--eval", `
    import { setImmediate as turn } from "node:timers/promises";
    import { Engine } from "towline";
    import { until } from "./support.mjs";
    const engine = await Engine.open("memory:");
    let seen = 0;
    await engine.consume("a", { group: "g" }, async () => { gc(); await turn(); seen += 1; });
    for (let i = 0; i < 20; i += 1) {
      gc();
      await turn(); // finalizers run in a turn of their own
      await engine.publish("a", i);
    }
    await until(() => seen === 20);
    await engine.close();
    console.log("handled", seen);
  `]);
  assert.deepEqual([code, out, err], [0, "handled 20\n", ""]);
});

test("engines that nobody keeps, open and closed, with calls under way and refused, harm nothing when collected",
  async (t) => {
  const url = `sqlite:${path.join(folderOf(t), "a.db")}`;
  const { code, signal, out, err } = await run(process.execPath, ["--expose-gc", "--input-type=module", "--eval", `
    import { Engine, Limiter } from "towline";
    import { collect } from "./support.mjs";
    let [stored, refused] = [0, 0];
    const drop = async (n) => {
      const engine = await Engine.open(process.argv[1]);
      const follower = await engine.eventStore.subscribe("reader" + n);
      const consumer = await engine.consume("b", { group: "g" + n }, () => {});
      engine.publish("a", n).then(() => (stored += 1), ({ outcome }) => (refused += outcome === "rejected"));
      engine.publish("no good", n).catch(() => {});
      follower.receive().catch(() => {});
      new Limiter(1).acquire().then(() => {});
      if (n % 2 === 0) await engine.close();
      else await consumer.close();
    };
    for (let n = 0; n < 20; n += 1) {
      await drop(n);
      await collect();
    }
    while (stored + refused < 20) await collect();
    console.log(stored);
    process.exit(0); // those that follow wait for ever`, "--", url]);
  assert.deepEqual([code, signal, err], [0, null, ""]);
  assert.ok(Number(out) >= 10, `${out} of 20 were stored`); // where nobody closed all of them
  const engine = await open(t, url);
  const seen = [];
  await engine.consume("a", { group: "g", start: "earliest" }, (m) => seen.push(m.value));
  await until(() => seen.length === Number(out));
});

test("what handlers were given stays whole when all else is collected", async () => {
  const engine = await Engine.open("memory:");
  const kept = [];
  await engine.consumeBatches("a", { group: "g", batchCountMax: 50 }, (batch) => void kept.push(...batch));
  const payloadOf = (n) => Buffer.alloc(1_000, n % 251);
  await engine.publishBatch(Array.from({ length: 300 }, (_, n) =>
    ({ topic: "a", value: payloadOf(n), headers: { n: `${n}` } })));
  await until(() => kept.length === 300);
  const early = kept.map((m) => m.payload);
  await engine.close();
  for (let round = 0; round < 3; round += 1) {
    await collect();
    Array.from({ length: 100 }, () => Buffer.alloc(10_000, 255)); // whatever was freed is written over
  }
  for (const [at, m] of kept.entries()) {
    const whole = payloadOf(Number(m.headers.n));
    assert.ok(m.payload.equals(whole) && m.value.equals(whole) && early[at].equals(whole), `message ${m.headers.n}`);
    assert.throws(() => m.extend(1_000), ClosedError);
  }
});
