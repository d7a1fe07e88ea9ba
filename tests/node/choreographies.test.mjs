// Choreographies in Node beyond the conformance list: names, events as messages, and what is left when things close.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Choreography, Engine } from "towline";
import { VirtualClock } from "towline/testing";

import { open, providers, runModule, until } from "./support.mjs";

const patient = { timeoutMs: 30_000 };
const nothing = () => {};
const placed = (options) => new Choreography("order", "order.placed", options);

test("a definition has a diagram, and its steps the names of their events or their own", () => {
  const diagram = placed()
    .on("order.placed", nothing, "stock.reserved", "stock.refused", { name: "reserve" })
    .expect("stock.reserved", "payment.done", "payment.failed", { timeoutMs: 1 })
    .on("payment.done", nothing, "order.shipped")
    .visualize();
  const parts = ["[reserve]", "[waits for payment.done]", "[order.shipped]", "([stock.reserved])", "-. fails .->"];
  for (const part of parts) {
    assert.ok(diagram.includes(part), `${part} in ${diagram}`);
  }
});

test("arguments of the wrong type are named", async (t) => {
  const engine = await open(t, "memory:");
  const wrong = {
    beginsWith: () => new Choreography("order", 5),
    listenTo: () => placed().on(undefined, nothing, "a"),
    onSuccess: () => placed().on("order.placed", nothing),
    onFailure: () => placed().expect("order.placed", "a", null, { timeoutMs: 1 }),
    function: () => placed().on("order.placed", "run", "a"),
    topic: () => engine.sagas.eventMessage(5, "o-1"),
    id: () => engine.sagas.eventMessage("a", 5),
  };
  for (const [name, call] of Object.entries(wrong)) {
    assert.throws(call, (error) => error.code === "ERR_INVALID_ARGUMENT" && error.message.includes(name), name);
  }
  assert.throws(() => placed({ deadline: 1 }), { code: "ERR_INVALID_CONFIG" });
  assert.throws(() => placed().on("order.placed", nothing, "a", "", { timeout: 1 }), { code: "ERR_INVALID_CONFIG" });
  await assert.rejects(engine.sagas.publishEvent("payment done", "o-1"), { code: "ERR_INVALID_TOPIC" });
});

test("an event is a message with the id of its saga, its payload as it was given", async (t) => {
  const engine = await open(t, "memory:");
  const { sagas } = engine;
  const values = [undefined, "text", 5, null, { n: 1 }, Buffer.from([0, 255])];
  const seen = [];
  await engine.runSaga(placed().on("order.placed", (call) => {
    seen.push(call.context);
    return call.context;
  }, "order.shipped"));
  for (const [n, value] of values.entries()) {
    await sagas.publishEvent("order.placed", `o-${n}`, value);
    await until(async () => (await sagas.find("order", `o-${n}`)) !== undefined);
    await sagas.result("order", `o-${n}`, patient);
    const entries = await sagas.timeline("order", `o-${n}`);
    // What returned nothing has no output.
    assert.deepEqual([seen.at(-1), entries[0].context, entries.at(-1).output], [value, value, value]);
  }
  const { value, ...rest } = sagas.eventMessage("payment.done", "o-1", { receipt: 7 });
  assert.deepEqual([value, rest.topic, rest.key, rest.headers],
    ['{"receipt":7}', "payment.done", "o-1", { "saga-id": "o-1" }]);
});

test("an event leaves with the transaction of the handler, or not at all", async (t) => {
  const engine = await open(t, providers.sqlite(t));
  const { sagas } = engine;
  let tries = 0;
  await engine.consume("order.placed", { group: "payments", ack: "manual" }, (m) => {
    tries += 1;
    try {
      m.transaction((transaction) => {
        const { topic, value, ...options } = sagas.eventMessage("payment.done", m.headers["saga-id"], tries);
        transaction.publish(topic, value, options);
        if (tries === 1) throw new Error("no");
      });
    } catch {
      m.nak({ afterMs: 1 });
    }
  });
  await engine.runSaga(placed().expect("order.placed", "payment.done", "payment.failed", { timeoutMs: 60_000 }));
  await sagas.publishEvent("order.placed", "o-1");
  await until(async () => (await sagas.find("order", "o-1")) !== undefined);
  assert.equal((await sagas.result("order", "o-1", patient)).saga.status, "completed");
  const heard = (await sagas.timeline("order", "o-1")).filter((one) => one.mark === "heard");
  assert.deepEqual(heard.map((one) => [one.event, one.context]), [["payment.done", 2]]);
});

test("what is expected goes by a virtual clock", async (t) => {
  const clock = new VirtualClock();
  const engine = await open(t, "memory:", { clock });
  const ran = [];
  const order = placed()
    .expect("order.placed", "payment.done", "payment.failed", { timeoutMs: 3_600_000 })
    .on("payment.failed", () => void ran.push("release"), "stock.released");
  await engine.runSaga(order);
  await engine.sagas.start(order, undefined, { id: "o-1" });
  await engine.settleDown();
  assert.deepEqual(ran, []);
  clock.advance(3_600_000);
  await engine.settleDown();
  assert.deepEqual([ran, (await engine.sagas.find("order", "o-1")).status], [["release"], "compensated"]);
});

test("an engine that is closed inside a step leaves the saga to the next one", async (t) => {
  for (const where of ["memory:handed-on", providers.sqlite(t)]) {
    const other = await open(t, where);
    const engine = await Engine.open(where, { drainTimeoutMs: 50 });
    const ran = [];
    let leave;
    const left = new Promise((resolve) => (leave = resolve));
    let signal;
    const make = (name) => placed()
      .on("order.placed", async (call) => {
        ran.push(`${name} reserves`);
        if (name === "first") {
          ({ signal } = call);
          await left;
        }
        return name;
      }, "stock.reserved")
      .expect("stock.reserved", "payment.done", "payment.failed", { timeoutMs: 60_000 })
      .on("payment.done", (call) => void ran.push(`${name} ships ${call.context}`), "order.shipped");
    await engine.runSaga(make("first"));
    await engine.sagas.publishEvent("order.placed", "o-1", ["books"]);
    await until(() => signal !== undefined);
    assert.equal(await engine.close(), 1, "its call has not returned");
    assert.equal(signal.aborted, true);
    // Nobody listens now; what comes meanwhile is heard later.
    await other.sagas.publishEvent("payment.done", "o-1", "9 EUR");
    await other.runSaga(make("second"));
    assert.equal((await other.sagas.result("order", "o-1", patient)).saga.status, "completed");
    leave();
    // What it had heard already it does not wait for.
    assert.deepEqual(ran.sort(), ["first reserves", "second reserves", "second ships 9 EUR"]);
    const done = (await other.sagas.timeline("order", "o-1")).find((one) => one.mark === "done" &&
      one.step === "stock.reserved");
    assert.equal(done.output, "second");
  }
});

test("a process that ends in the middle of a step ends, and the step runs again", async (t) => {
  const url = providers.sqlite(t);
  const program = (act) => `
    import { Choreography, Engine } from "towline";
    const engine = await Engine.open(process.argv[1]);
    const order = new Choreography("order", "order.placed")
      .on("order.placed", async (call) => { ${act} }, "stock.reserved")
      .on("stock.reserved", (call) => console.log(call.id), "order.shipped");
    await engine.runSaga(order);
    await engine.sagas.start(order, undefined, { id: "o-1" });
    console.log((await engine.sagas.result("order", "o-1")).saga.status);
    await engine.close();`;
  const first = await runModule(program("process.exit(5)"), url);
  assert.deepEqual([first.code, first.out, first.err], [5, "", ""]);
  const again = await runModule(program(""), url);
  assert.deepEqual([again.code, again.out, again.err], [0, "o-1\ncompleted\n", ""]);
});
