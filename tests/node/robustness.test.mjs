// What goes wrong around the engine: exceptions nobody catches, events that throw, memory that must come back.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";
import { afterEach, test } from "node:test";

import { Defer, Engine, Limiter, Retry } from "towline";

import { collect, folderOf, open, run, runModule, until } from "./support.mjs";

// What was given back too early, or twice, shows where it is collected.
afterEach(collect);

const withGc = (text, ...args) =>
  run(process.execPath, ["--expose-gc", "--input-type=module", "--eval", text, "--", ...args]);

test("whatever one event throws is an uncaught exception, and the others are taken", async () => {
  // A signal that is none: leaving it throws, where the answer arrives.
  const { code, out, err } = await runModule(`
    import { Engine } from "towline";
    const engine = await Engine.open("memory:");
    const caught = [];
    process.on("uncaughtException", (error) => caught.push(error.message));
    const seen = [];
    await engine.consume("a", { group: "g" }, (m) => seen.push(m.value));
    const signal = { aborted: false, addEventListener() {}, removeEventListener() { throw new Error("boom"); } };
    const all = Array.from({ length: 200 }, (_, n) =>
      engine.publish("a", n, n % 20 === 0 ? { signal } : {}));
    const receipts = await Promise.all(all);
    await engine.settleDown();
    console.log(receipts.length, seen.length, caught.length, new Set(caught));
    await engine.close();`);
  assert.deepEqual([code, out, err], [0, "200 200 10 Set(1) { 'boom' }\n", ""]);
});

test("an exception that nobody catches ends the process, and what it held comes again", async (t) => {
  const url = `sqlite:${path.join(folderOf(t), "a.db")}`;
  for (const [kind, act] of Object.entries({
    uncaught: `setTimeout(() => { throw new Error("mine"); });`,
    rejection: `Promise.reject(new Error("mine"));`,
  })) {
    const { code, err, ms } = await runModule(`
      import { Engine } from "towline";
      const engine = await Engine.open(process.argv[1], { leaseMs: 500 });
      await engine.consume("${kind}", { group: "g", concurrency: 4 }, () => new Promise(() => { ${act} }));
      await engine.publishBatch([1, 2, 3, 4].map((value) => ({ topic: "${kind}", value })));`, url);
    assert.equal(code, 1, err);
    assert.match(err, /Error: mine/);
    assert.ok(ms < 15_000, `${ms} ms`);
    const again = await runModule(`
      import { Engine } from "towline";
      const engine = await Engine.open(process.argv[1]);
      const seen = [];
      const consumer = await engine.consume("${kind}", { group: "g" }, (m) => {
        seen.push(m.value);
        if (seen.length === 4) consumer.close();
      });
      process.on("exit", () => console.log(seen.sort().join()));`, url);
    assert.deepEqual([again.code, again.out], [0, "1,2,3,4\n"], again.err);
  }
});

test("a message that ends its process each time becomes a dead letter", async (t) => {
  const url = `sqlite:${path.join(folderOf(t), "a.db")}`;
  const engine = await open(t, url);
  for (const [kind, act] of Object.entries({
    exit: `process.exit(3);`,
    uncaught: `setTimeout(() => { throw new Error("mine"); });`,
    rejection: `Promise.reject(new Error("mine"));`,
  })) {
    await engine.publish(kind, "poison");
    for (let death = 1; death <= 2; ++death) {
      const { code, err } = await runModule(`
        import { Engine } from "towline";
        const engine = await Engine.open(process.argv[1], { leaseMs: 1_000 });
        await engine.consume("${kind}", { group: "g", deadLetters: { maxCrashes: 2 } },
          () => new Promise(() => { ${act} }));`, url);
      assert.notEqual(code, 0, err);
    }
    const handled = [];
    const consumer = await engine.consume(kind, { group: "g", deadLetters: { maxCrashes: 2 } },
      (m) => handled.push(m.value));
    await until(async () => (await engine.deadLetters({ topic: kind })).items.length === 1);
    const [entry] = (await engine.deadLetters({ topic: kind })).items;
    assert.deepEqual([entry.reason, entry.crashes, handled], ["crash_loop", 2, []]);
    await consumer.close();
  }
});

test("a process that ends as it should gives back at once what its handlers hold", async (t) => {
  const url = `sqlite:${path.join(folderOf(t), "a.db")}`;
  const { code, err } = await runModule(`
    import { Engine } from "towline";
    const engine = await Engine.open(process.argv[1]);
    await engine.consume("a", { group: "g" }, () => process.exit(0));
    await engine.publish("a", 1);`, url);
  assert.equal(code, 0, err);
  const engine = await open(t, url);
  await new Promise((resolve) => engine.consume("a", { group: "g" }, (m) => resolve(m)));
});

test("a process that catches what nobody caught goes on, and so do its consumers", async () => {
  const { code, out, err } = await runModule(`
    import { Engine } from "towline";
    const caught = [];
    process.on("uncaughtException", (error) => caught.push(error.message));
    process.on("unhandledRejection", (error) => caught.push(error.message));
    const engine = await Engine.open("memory:");
    let seen = 0;
    await engine.consume("a", { group: "g", concurrency: 4 }, async (m) => {
      process.nextTick(() => { throw new Error("tick"); });
      Promise.reject(new Error("rejection"));
      m.signal.addEventListener("abort", () => { throw new Error("listener"); });
      await null;
      seen += 1;
    });
    engine.events.on("log", () => { throw new Error("log"); });
    await engine.publishBatch(Array.from({ length: 100 }, (_, n) => ({ topic: "a", value: n })));
    await engine.settleDown();
    console.log(seen, caught.filter((one) => one === "tick").length,
      caught.filter((one) => one === "rejection").length);
    await engine.close();`);
  assert.deepEqual([code, out, err], [0, "100 100 100\n", ""]);
});

test("handles, threads and memory come back after ten thousand refused calls", async () => {
  const { code, out, err } = await withGc(`
    import { Engine, Limiter } from "towline";
    import { heldNow, notGivenBack } from "./held.mjs";
    const engine = await Engine.open("memory:");
    const limiter = new Limiter(1, { waitingMax: 1 });
    const permit = await limiter.acquire();
    const id = "01890000-0000-7000-8000-000000000000";
    const refuse = async (count) => {
      for (let i = 0; i < count; i += 5) {
        await engine.publish("no good", { i }).catch(() => {});
        await engine.publish("a", 1, { priority: -1 }).catch(() => {});
        await engine.redrive(id).catch(() => {});
        await engine.consume("no good", { group: "g" }, () => {}).catch(() => {});
        await limiter.acquire({ timeoutMs: 0 }).catch(() => {});
      }
    };
    await refuse(2_000);
    const before = await heldNow();
    await refuse(10_000);
    console.log(await notGivenBack(before));
    permit.release();
    await engine.close();`);
  assert.deepEqual([code, out, err], [0, "{}\n", ""]);
});

test("engines that were closed leave no thread, no file and no memory behind", async (t) => {
  const url = `sqlite:${path.join(folderOf(t), "a.db")}`;
  const { code, out, err } = await withGc(`
    import { Engine } from "towline";
    import { heldNow, notGivenBack } from "./held.mjs";
    const round = async (count) => {
      for (let i = 0; i < count; i += 1) {
        const engine = await Engine.open(process.argv[1]);
        await engine.consume("a", { group: "g" }, () => {});
        await engine.publish("a", "x".repeat(10_000));
        await engine.close();
      }
    };
    await round(5);
    const before = await heldNow();
    await round(30);
    console.log(await notGivenBack(before));`, url);
  assert.deepEqual([code, out, err], [0, "{}\n", ""]);
});

test("a message is readable for as long as it is kept, after close and collections, too", async (t) => {
  const url = `sqlite:${path.join(folderOf(t), "a.db")}`;
  const { code, out, err } = await withGc(`
    import { setImmediate as turn } from "node:timers/promises";
    import { Engine } from "towline";
    const engine = await Engine.open(process.argv[1]);
    const kept = [];
    await engine.consume("a", { group: "g", concurrency: 64 }, (m) => { kept.push(m); });
    await engine.publishBatch(Array.from({ length: 500 }, (_, n) =>
      ({ topic: "a", value: Buffer.alloc(1_000, n % 256), headers: { n: String(n) } })));
    await engine.settleDown();
    await engine.close();
    const views = kept.map((m) => m.payload);
    for (let i = 0; i < 5; i += 1) {
      gc();
      await turn();
      Array.from({ length: 100 }, () => Buffer.alloc(10_000, 255)); // whatever was freed is written over
    }
    const isWhole = (bytes, n) => bytes.length === 1_000 && bytes.every((byte) => byte === n % 256);
    console.log(kept.every((m) => isWhole(m.payload, Number(m.headers.n)) && m.group === "g"),
      views.every((bytes, i) => isWhole(bytes, Number(kept[i].headers.n))));`, url);
  assert.deepEqual([code, out, err], [0, "true true\n", ""]);
});

test("an outcome that makes no sense fails its message, and costs the others of the turn nothing", async (t) => {
  const engine = await open(t, "memory:");
  const odd = [new Retry("", { afterMs: 1e14 }), new Retry("", { afterMs: -1e300 }), new Defer(1e300),
    new Defer(-5), new Defer(NaN), new Defer("soon"), Object.assign(new Retry(), { afterMs: {} })];
  const consumer = await engine.consume("a", { group: "g", concurrency: 20, retry: { maxAttempts: 1 } }, (m) => {
    if (m.value < odd.length) throw odd[m.value];
  });
  await engine.publishBatch(Array.from({ length: 20 }, (_, n) => ({ topic: "a", value: n })));
  await until(() => consumer.statistics().acked === 20 - odd.length && consumer.statistics().running === 0);
  const { items } = await engine.deadLetters({});
  assert.deepEqual(items.map((one) => JSON.parse(one.payload)).sort(), [0, 1, 3, 4, 5, 6]);
  assert.equal((await engine.statistics()).scheduledNow, 1, "the long wait is bounded, and waited");
});

test("what the boundary cannot take is a failure of its message alone", async () => {
  const { makePort } = createRequire(import.meta.url)(process.env.TOWLINE_NODE_BINARY);
  const port = makePort(() => {}, undefined);
  const trap = new Proxy([], { get() { throw new Error("trap"); } });
  port.finish(new Float64Array(), [1, [99, undefined, "", "", ""], 2, [1, 1e300, "", "", ""], 3, [1, 0, 5, "", ""], 4, trap]);
  await new Promise((resolve) => port.shut(resolve));
});

test("a signal that is none is refused before anything is started", async (t) => {
  const engine = await open(t, "memory:");
  const seen = [];
  for (const signal of [null, {}, "abort", 5, { aborted: false }]) {
    const refused = { code: "ERR_INVALID_ARGUMENT", message: /AbortSignal/ };
    await assert.rejects(engine.consume("a", { group: "g", signal }, (m) => seen.push(m)), refused);
    await assert.rejects(engine.messages("a", { group: "g", signal }).next(), refused);
    await assert.rejects(engine.publish("a", 1, { signal }), refused);
    await assert.rejects(engine.statistics({ signal }), refused);
    await assert.rejects(engine.once("k", () => seen.push(1), { signal }), refused);
    await assert.rejects(new Limiter(1).acquire({ signal }), refused);
  }
  assert.deepEqual(await engine.backlog(), [], "no member and no message");
  assert.deepEqual(seen, []);
});

test("a key that was acquired for a caller who has left is free", async (t) => {
  const engine = await open(t, "memory:");
  let left = 0;
  await Promise.all(Array.from({ length: 50 }, async (_, n) => {
    const controller = new AbortController();
    const once = engine.once(`k${n}`, () => "first", { signal: controller.signal });
    setTimeout(() => controller.abort(), n % 3);
    if (n % 2 === 0) controller.abort();
    await once.catch((error) => {
      assert.equal(error.code, "ERR_CANCELLED");
      left += 1;
    });
    assert.match(await engine.once(`k${n}`, () => "second", { waitMsMax: 5_000 }), /first|second/);
  }));
  assert.ok(left >= 25, `${left} have left`);
});

test("a publish whose answer did not come says that nobody knows", async (t) => {
  const url = `sqlite:${path.join(folderOf(t), "a.db")}`;
  const ended = { fulfilled: [], unknown: [], rejected: [] };
  for (let round = 0; round < 10; round += 1) {
    const engine = await Engine.open(url);
    const publishing = Array.from({ length: 300 }, (_, n) => engine.publish("a", `${round} ${n}`));
    await Promise.race(publishing);
    await engine.close({ timeoutMs: 0 });
    for (const [n, { status, reason }] of (await Promise.allSettled(publishing)).entries()) {
      ended[status === "fulfilled" ? status : reason.outcome].push(`${round} ${n}`);
    }
  }
  const engine = await open(t, url);
  const seen = new Set();
  await engine.consume("a", { group: "g", concurrency: 64 }, (m) => seen.add(m.value));
  await engine.settleDown();
  assert.deepEqual(ended.fulfilled.filter((one) => !seen.has(one)), [], "acknowledged and not there");
  assert.deepEqual(ended.rejected.filter((one) => seen.has(one)), [], "surely not stored, and there");
  t.diagnostic(Object.entries(ended).map(([how, all]) => `${how} ${all.length}`).join());
});
