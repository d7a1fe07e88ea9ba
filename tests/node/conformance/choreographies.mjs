// Choreographies: steps joined by events, among them those of other services, in and out of time.

import assert from "node:assert/strict";

import { Choreography } from "towline";

import { deadLetters, fail, gate, member, refused, scenario, until } from "./harness.mjs";

/** Milliseconds that anything may take on a machine that has other things to do. */
const PATIENCE_MS = 30_000;
const patient = { timeoutMs: PATIENCE_MS };
const reaches = (condition) => until(condition, condition.toString(), PATIENCE_MS);
const HOUR_MS = 3_600_000;

/** What ran, in order. */
class Effects {
  all = [];
  note(name) {
    return async (call) => {
      this.all.push(name);
      return [...(call.context ?? []), name];
    };
  }
  fail(name) {
    return async () => {
      this.all.push(name);
      fail("Never", "no");
    };
  }
  /** Waits until it may go on. */
  wait(name, opened) {
    return async () => {
      this.all.push(name);
      await opened;
    };
  }
  count(name) {
    return this.all.filter((one) => one === name).length;
  }
}

const once = (more = {}) => ({ retry: { kind: "fixed", initialDelayMs: 5, jitter: "none", maxAttempts: 1 }, ...more });

/** Reserves, charges and ships; what was reserved is released when the rest fails. */
function orderOf(effects, charge) {
  return new Choreography("order", "order.placed")
    .on("order.placed", effects.note("reserve"), "stock.reserved", "stock.refused")
    .on("stock.reserved", charge, "payment.done", "payment.failed", once())
    .on("payment.failed", effects.note("release"), "stock.released")
    .on("payment.done", effects.note("ship"), "order.shipped");
}

/** Reserves, and waits for the payment that somebody else takes. */
function awaiting(effects, timeoutMs) {
  return new Choreography("order", "order.placed")
    .on("order.placed", effects.note("reserve"), "stock.reserved")
    .expect("stock.reserved", "payment.done", "payment.failed", { timeoutMs })
    .on("payment.failed", effects.note("release"), "stock.released")
    .on("payment.done", effects.note("ship"), "order.shipped");
}

async function marksOf(engine, id) {
  return (await engine.sagas.timeline("order", id)).map((one) => [one.mark, one.step, one.event].join(" "));
}

// ---- events join steps --------------------------------------------------------------------------

scenario("CONF-106", "events join steps and each runs once", async (stage) => {
  const engine = await stage.open();
  const effects = new Effects();
  const order = orderOf(effects, effects.note("charge"));
  const runner = await engine.runSaga(order);
  const shipped = [];
  await engine.consume("order.shipped", member({ group: "mail" }), (m) => {
    shipped.push([m.value, m.headers["saga-id"], m.key]);
  });
  const receipt = await engine.sagas.publishEvent("order.placed", "o-1", ["three books"]);
  assert.equal(receipt.outcome, "acked");
  await reaches(() => shipped.length === 1);
  assert.equal((await engine.sagas.result("order", "o-1", patient)).saga.status, "completed");
  await engine.settleDown();
  assert.deepEqual(effects.all, ["reserve", "charge", "ship"]);
  assert.deepEqual(shipped, [[["three books", "reserve", "charge", "ship"], "o-1", "o-1"]]);
  assert.deepEqual(await marksOf(engine, "o-1"), ["begun  ", "started stock.reserved ",
    "done stock.reserved stock.reserved", "started payment.done ", "done payment.done payment.done",
    "started order.shipped ", "done order.shipped order.shipped"]);
  const timeline = await engine.sagas.timeline("order", "o-1");
  assert.deepEqual([timeline[0].context, timeline[4].output],
    [["three books"], ["three books", "reserve", "charge"]]);
  // A runner counts a saga right after everybody can see its end.
  await reaches(async () => (await runner.statistics()).completed === 1);
  assert.equal((await runner.statistics()).calls, 3);
});

scenario("CONF-106", "a failure event leads to what undoes the others", async (stage) => {
  const engine = await stage.open();
  const effects = new Effects();
  const order = orderOf(effects, effects.fail("charge"));
  await engine.runSaga(order);
  const failures = [];
  await engine.consume("payment.failed", member({ group: "mail" }), (m) => {
    failures.push([JSON.parse(m.payload), m.headers["saga-error"]]);
  });
  // Begun by hand, and by a message that has no saga's id: then its own is the saga's.
  await engine.sagas.start(order, ["books"], { id: "o-1" });
  const { id: second } = await engine.publish("order.placed", ["books"]);
  await reaches(() => failures.length === 2);
  for (const id of ["o-1", second]) {
    const { saga } = await engine.sagas.result("order", id, patient);
    assert.deepEqual([saga.status, saga.error], ["compensated", "payment.done: Never: no"]);
  }
  await engine.settleDown();
  const got = [["books", "reserve"], "Never: no"]; // what the step got
  assert.deepEqual(failures, [got, got]);
  assert.deepEqual(effects.all.sort(), ["charge", "charge", "release", "release", "reserve", "reserve"]);
});

scenario("CONF-106", "what undoes and fails is stuck until a person helps", async (stage) => {
  const engine = await stage.open();
  const effects = new Effects();
  const seen = [];
  let works = false;
  const order = new Choreography("order", "order.placed")
    .on("order.placed", effects.note("reserve"), "stock.reserved")
    .on("stock.reserved", effects.fail("charge"), "payment.done", "payment.failed", once())
    .on("payment.failed", (call) => {
      seen.push([call.cause, call.outputOf("stock.reserved"), call.phase]);
      if (!works) fail("Never", "the stock is closed");
    }, "stock.released", "", once({ name: "release" }));
  await engine.runSaga(order);
  await engine.sagas.start(order, ["books"], { id: "o-1" });
  const stuck = (await engine.sagas.result("order", "o-1", patient)).saga;
  assert.deepEqual([stuck.status, stuck.step], ["stuck", "release"]);
  works = true;
  await engine.sagas.retry("order", "o-1", "release");
  await reaches(async () => (await engine.sagas.find("order", "o-1")).status === "compensated");
  const told = ["payment.done: Never: no", ["books", "reserve"], "execute"];
  assert.deepEqual(seen, [told, told]);
});

scenario("CONF-106", "a definition that cannot flow is refused", async (stage) => {
  const engine = await stage.open();
  const nothing = () => {};
  const made = (beginsWith = "order.placed") => new Choreography("order", beginsWith);
  const lost = made().on("payment.done", nothing, "order.shipped");
  const wrong = [
    lost,
    made().on("order.placed", nothing, "a", "a"),
    made().on("order.placed", nothing, "order.placed", "", { name: "again" }),
    made().on("order.placed", nothing, "a").on("order.placed", nothing, "a"),
    made().on("order.placed", nothing, "a", "", { pivot: true }),
    made().on("order.placed", nothing, "a", "", { command: "b" }),
    made(),
  ];
  for (const saga of wrong) {
    await refused(engine.runSaga(saga), "ERR_INVALID_SAGA");
    await refused(engine.sagas.start(saga, undefined, { id: "o-1" }), "ERR_INVALID_SAGA");
  }
  await refused(engine.runSaga(lost), "ERR_INVALID_SAGA", "'payment.done', to which nothing leads");
  await refused(engine.runSaga(made().on("order.placed", undefined, "a")), "ERR_INVALID_SAGA", "function");
  await refused(engine.runSaga(made("order placed").on("order placed", nothing, "a")), "ERR_INVALID_TOPIC");
  assert.deepEqual((await engine.sagas.list()).items, []);
});

// ---- events in and out of time ------------------------------------------------------------------

scenario("CONF-107", "an early event waits, a second one is void and a late one is counted", async (stage) => {
  const engine = await stage.open();
  const { sagas } = engine;
  const effects = new Effects();
  const runner = await engine.runSaga(awaiting(effects, HOUR_MS));
  await sagas.publishEvent("payment.done", "o-1", ["9 EUR"]);
  await engine.publish("payment.done", "whose?");
  await reaches(async () => (await runner.statistics()).early > 0);
  await reaches(async () => (await runner.statistics()).strangers === 1);
  assert.deepEqual(effects.all, []);
  await sagas.publishEvent("order.placed", "o-1", ["books"]);
  await reaches(() => effects.all.length === 2);
  assert.equal((await sagas.result("order", "o-1", patient)).saga.status, "completed");
  assert.deepEqual(effects.all, ["reserve", "ship"]);
  const marks = await marksOf(engine, "o-1");
  assert.ok(marks.includes("heard  payment.done"), marks.join());
  // Once more what it knows, and then what it does not.
  await sagas.publishEvent("payment.done", "o-1", ["again"]);
  await sagas.publishEvent("order.placed", "o-1", ["again"]);
  await sagas.publishEvent("payment.failed", "o-1", ["late"]);
  await reaches(async () => (await runner.statistics()).late === 1);
  await engine.settleDown();
  assert.deepEqual(await marksOf(engine, "o-1"), marks);
  assert.deepEqual(effects.all, ["reserve", "ship"]);
});

scenario("CONF-107", "an event whose saga never begins is a dead letter", async (stage) => {
  const engine = await stage.open();
  const effects = new Effects();
  const order = new Choreography("order", "order.placed", { earlyEventTtlMs: 300 })
    .on("order.placed", effects.note("reserve"), "stock.reserved")
    .expect("stock.reserved", "payment.done", "payment.failed", { timeoutMs: HOUR_MS });
  await engine.runSaga(order);
  await engine.sagas.publishEvent("payment.done", "nobody", ["9 EUR"]);
  await engine.publish("payment.done", "9 EUR", { headers: { "saga-id": "no/id" } });
  await reaches(async () => (await deadLetters(engine)).length === 2);
  for (const entry of await deadLetters(engine)) assert.equal(entry.group, "towline.saga.order");
  assert.deepEqual(effects.all, []);
});

scenario("CONF-107", "an event comes while a call runs", async (stage) => {
  const engine = await stage.open();
  const effects = new Effects();
  const { open, opened } = gate();
  const order = new Choreography("order", "order.placed")
    .on("order.placed", effects.wait("slow", opened), "slow.done")
    .expect("order.placed", "payment.done", "payment.failed", { timeoutMs: HOUR_MS })
    .on("payment.done", effects.note("ship"), "order.shipped");
  await engine.runSaga(order);
  await engine.sagas.start(order, ["books"], { id: "o-1" });
  await reaches(() => effects.count("slow") === 1);
  await engine.sagas.publishEvent("payment.done", "o-1", ["9 EUR"]);
  await reaches(() => effects.count("ship") === 1); // it does not wait for the other
  open();
  assert.equal((await engine.sagas.result("order", "o-1", patient)).saga.status, "completed");
  assert.deepEqual(effects.all, ["slow", "ship"]);
});

// ---- events that do not come --------------------------------------------------------------------

scenario("CONF-108", "a missing event becomes its failure event", async (stage) => {
  const engine = await stage.open();
  const effects = new Effects();
  const order = awaiting(effects, 300);
  await engine.runSaga(order);
  const failures = [];
  await engine.consume("payment.failed", member({ group: "mail" }), (m) => {
    failures.push(m.headers["saga-error"]);
  });
  await engine.sagas.start(order, ["books"], { id: "o-1" });
  assert.equal((await engine.sagas.result("order", "o-1", patient)).saga.status, "compensated");
  assert.deepEqual(effects.all, ["reserve", "release"]);
  await reaches(() => failures.length === 1);
  assert.deepEqual(failures, ["EventTimeout: no event came in time"]);
});

for (const type of ["cancelled", "late"]) {
  scenario("CONF-108", `${type === "late" ? "behind its deadline" : type} it undoes itself`, async (stage) => {
    const engine = await stage.open();
    const effects = new Effects();
    const { open, opened } = gate();
    // Long enough for the two steps before it on a machine that is busy with other things.
    const order = new Choreography(type, `${type}.placed`, type === "late" ? { deadlineMs: 3_000 } : {})
      .on(`${type}.placed`, effects.note("reserve"), `${type}.reserved`)
      .on(`${type}.reserved`, effects.wait("charge", opened), `${type}.paid`, `${type}.unpaid`)
      .on(`${type}.paid`, effects.note("ship"), `${type}.shipped`, `${type}.unshipped`)
      .on(`${type}.unshipped`, effects.note("refund"), `${type}.refunded`, `${type}.unrefunded`)
      .on(`${type}.refunded`, effects.note("release"), `${type}.released`);
    await engine.runSaga(order);
    await engine.sagas.start(order, ["books"], { id: "o-1" });
    await reaches(() => effects.count("charge") === 1);
    if (type === "cancelled") {
      await engine.sagas.cancel(type, "o-1", "the customer left");
    } else {
      const { deadlineAt } = await engine.sagas.find(type, "o-1");
      await reaches(() => Date.now() > deadlineAt);
    }
    open();
    assert.equal((await engine.sagas.result(type, "o-1", patient)).saga.status, "compensated");
    assert.deepEqual(effects.all, ["reserve", "charge", "refund", "release"]);
  });
}
