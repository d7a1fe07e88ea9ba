// Sagas: forwards, backwards, by hand, over commands, and through the death of whoever runs them.

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";

import { Retry, Saga } from "towline";

import { fail, gate, member, range, Recorder, refused, scenario, until } from "./harness.mjs";

/** What the steps of a saga did, in order; a compensation with a minus before it. */
class Effects {
  all = [];
  add(call) {
    this.all.push(`${call.phase === "compensate" ? "-" : ""}${call.step}`);
  }
  note = (call) => void this.add(call);
  count(name) {
    return this.all.filter((one) => one === name).length;
  }
  /** Fails as often as it is said, then succeeds. */
  fail(times = Infinity) {
    let left = times;
    return async (call) => {
      this.add(call);
      left -= 1;
      if (left >= 0) fail("NotNow", "no");
    };
  }
}

function quick(maxAttempts = 3, more = {}) {
  const retry = { kind: "fixed", initialDelayMs: 5, jitter: "none", maxAttempts };
  return { retry, compensationRetry: retry, ...more };
}

/** Steps a, b, c, ..., each with a compensation. */
function letters(effects, count, type = "order", version = 1) {
  const saga = new Saga(type, { version });
  for (const name of "abcdefgh".slice(0, count)) {
    saga.step(name, effects.note, quick(3, { compensate: effects.note }));
  }
  return saga;
}

scenario("CONF-58", "five steps run once each and hand on the context", async (stage) => {
  const engine = await stage.open();
  const effects = new Effects();
  const saga = new Saga("order");
  for (const name of ["a", "b", "c", "d", "e"]) {
    saga.step(name, async (call) => {
      effects.add(call);
      assert.deepEqual([call.type, call.id, call.attempt, call.key], ["order", "o-1", 1, `order/o-1/${name}/execute`]);
      assert.deepEqual(call.outputOf("b"), name > "b" ? { of: "b" } : undefined);
      await sleep(1);
      call.setContext({ path: `${call.context.path}${name}` });
      call.publish("done", name);
      return { of: name };
    }, { compensate: effects.note });
  }
  const recorder = new Recorder();
  await engine.consume("done", member(), recorder.handler);
  const runner = await engine.runSaga(saga);
  assert.deepEqual(await engine.sagas.start(saga, { path: ">" }, { id: "o-1" }), { id: "o-1", isNew: true });
  const result = await engine.sagas.result("order", "o-1");
  assert.equal(result.saga.status, "completed");
  assert.deepEqual(result.context, { path: ">abcde" });
  assert.deepEqual(effects.all, ["a", "b", "c", "d", "e"]);
  await recorder.reaches(5);
  assert.deepEqual(await engine.sagas.start(saga, { path: ">" }, { id: "o-1" }), { id: "o-1", isNew: false });
  await refused(engine.sagas.start(saga, { path: "other" }, { id: "o-1" }), "ERR_CONFLICT");
  await engine.settleDown();
  assert.equal(effects.all.length, 5);
  const timeline = await engine.sagas.timeline("order", "o-1");
  assert.deepEqual(timeline.map((one) => one.mark + one.step), ["begun", "starteda", "donea", "startedb", "doneb",
    "startedc", "donec", "startedd", "doned", "startede", "donee"]);
  assert.deepEqual([timeline[0].context, timeline[2].output, timeline[2].context],
    [{ path: ">" }, { of: "a" }, { path: ">a" }]);
  await until(async () => (await runner.statistics()).completed === 1);
});

scenario("CONF-58", "contexts and outputs are kept as they were given", async (stage) => {
  const engine = await stage.open();
  const values = [{ n: 1, s: "ün\u{1f680}" }, "text", "5", 5, null, [1], Buffer.from([0, 255, 1]), undefined];
  const seen = [];
  const saga = new Saga("order").step("a", (call) => {
    seen.push(call.context);
    return call.context;
  }, { changesNothing: true }).step("b", (call) => void seen.push(call.outputOf("a")), { changesNothing: true });
  await engine.runSaga(saga);
  for (const value of values) {
    const { id } = await engine.sagas.start(saga, value);
    assert.deepEqual((await engine.sagas.result("order", id)).context, value);
    assert.deepEqual(seen.splice(0), [value, value]);
  }
});

scenario("CONF-58", "branches run side by side and what follows waits for all", async (stage) => {
  const engine = await stage.open();
  const effects = new Effects();
  let here = 0;
  const meet = async (call) => {
    here += 1;
    await until(() => here === 2, "the other branch");
    await refused(() => call.setContext("no"), "ERR_INVALID_ARGUMENT");
    effects.add(call);
  };
  const saga = new Saga("trip").step("plan", effects.note, { compensate: effects.note })
    .parallel([
      { name: "hotel", execute: meet, compensate: effects.note },
      { name: "flight", execute: meet, compensate: effects.note },
    ])
    .step("pay", effects.note, { compensate: effects.note });
  await engine.runSaga(saga);
  await engine.sagas.start(saga, undefined, { id: "t" });
  assert.equal((await engine.sagas.result("trip", "t")).saga.status, "completed");
  assert.deepEqual([effects.all.length, effects.all[0], effects.all[3]], [4, "plan", "pay"]);
});

scenario("CONF-59", "a failed step is undone and then the others in reverse", async (stage) => {
  const engine = await stage.open();
  const effects = new Effects();
  const saga = new Saga("order");
  for (const name of ["a", "b", "c"]) {
    saga.step(name, () => `of ${name}`, { compensate: (call) => {
      effects.add(call);
      assert.deepEqual([call.output, call.cause], [`of ${name}`, "d: NotNow: no"]);
    } });
  }
  saga.step("d", effects.fail(), quick(2, { compensate: (call) => {
    effects.add(call);
    assert.equal(call.output, undefined, "it never succeeded");
  } }));
  saga.step("e", effects.note, { compensate: effects.note });
  await engine.runSaga(saga);
  for (const id of ["first", "second"]) {
    await engine.sagas.start(saga, undefined, { id });
    const result = await engine.sagas.result("order", id);
    assert.deepEqual([result.saga.status, result.saga.error], ["compensated", "d: NotNow: no"]);
  }
  await engine.settleDown();
  const once = ["d", "d", "-d", "-c", "-b", "-a"];
  assert.deepEqual(effects.all, [...once, ...once]);
});

scenario("CONF-59", "a cancelled saga is undone and one past its pivot is not", async (stage) => {
  const engine = await stage.open();
  const effects = new Effects();
  const { open, opened } = gate();
  const saga = new Saga("order")
    .step("a", effects.note, { compensate: effects.note })
    .step("b", async (call) => {
      effects.add(call);
      await opened;
    }, { compensate: effects.note })
    .step("c", effects.note, { pivot: true });
  await engine.runSaga(saga);
  await engine.sagas.start(saga, undefined, { id: "o" });
  await until(() => effects.count("b") === 1);
  await engine.sagas.cancel("order", "o", "the customer left");
  open();
  const result = await engine.sagas.result("order", "o");
  assert.deepEqual([result.saga.status, result.saga.error], ["compensated", "the customer left"]);
  assert.deepEqual(effects.all, ["a", "b", "-b", "-a"]);
  await engine.sagas.start(saga, undefined, { id: "p" });
  await engine.sagas.result("order", "p");
  await refused(engine.sagas.cancel("order", "p", "too late"), "ERR_CONFLICT");
  await refused(engine.sagas.cancel("order", "q", "nobody"), "ERR_NOT_FOUND");
});

scenario("CONF-59", "behind its pivot it only goes forward", async (stage) => {
  const engine = await stage.open();
  const effects = new Effects();
  const saga = new Saga("order")
    .step("a", effects.note, quick(3, { compensate: effects.note }))
    .step("b", effects.note, quick(3, { pivot: true }))
    .step("c", effects.fail(2), quick(2));
  await engine.runSaga(saga);
  await engine.sagas.start(saga, undefined, { id: "o" });
  const result = await engine.sagas.result("order", "o");
  assert.deepEqual([result.saga.status, result.saga.step], ["stuck", "c"], "nothing is undone");
  assert.deepEqual(effects.all, ["a", "b", "c", "c"]);
  await engine.sagas.retry("order", "o", "c");
  await until(async () => (await engine.sagas.find("order", "o")).status === "completed");
  assert.deepEqual(effects.all, ["a", "b", "c", "c", "c"]);
});

scenario("CONF-60", "killed at each boundary it comes to the same end", async (stage) => {
  const steps = ["a/execute", "b/execute", "c/execute", "d/execute", "d/compensate", "c/compensate", "b/compensate",
    "a/compensate"];
  // The child writes each effect of a saga once, and dies at a point of its first life.
  for (const diesAt of range(2 * steps.length + 1)) {
    const id = `o-${diesAt}`;
    if (diesAt > 0) {
      const { signal } = await (await stage.child("saga", id, `${diesAt}`)).done;
      assert.equal(signal, "SIGKILL", id);
    }
    const { code, err } = await (await stage.child("saga", id, "0")).done;
    assert.deepEqual([code, err], [0, ""], id);
    assert.deepEqual(stage.ledger(`order/${id}/`), [...steps.map((step) => `order/${id}/${step}`),
      `order/${id}/ compensated`]);
  }
}, "shared");

scenario("CONF-61", "of two runners each step is run by one", async (stage) => {
  const engines = [await stage.open(), await stage.open()];
  const effects = new Effects();
  const saga = letters(effects, 3);
  const runners = [];
  for (const engine of engines) runners.push(await engine.runSaga(saga));
  const count = 40;
  for (const n of range(count)) await engines[n % 2].sagas.start(saga, undefined, { id: `o-${n}` });
  await Promise.all(range(count).map(async (n) => {
    assert.equal((await engines[0].sagas.result("order", `o-${n}`)).saga.status, "completed");
  }));
  for (const step of ["a", "b", "c"]) assert.equal(effects.count(step), count);
  // A runner counts a saga right after everybody can see its end.
  await until(async () => {
    const statistics = await Promise.all(runners.map((runner) => runner.statistics()));
    return statistics.reduce((sum, one) => sum + one.completed, 0) === count;
  });
});

scenario("CONF-61", "what a late call does does not count", async (stage) => {
  const engine = await stage.open();
  const effects = new Effects();
  const late = gate();
  let aborted;
  const saga = new Saga("order")
    .step("a", async (call) => {
      effects.add(call);
      if (call.attempt === 1) {
        await late.opened;
        aborted = call.signal.aborted;
      }
      return `of attempt ${call.attempt}`;
    }, quick(5, { timeoutMs: 100, compensate: effects.note }))
    .step("b", effects.note, { compensate: effects.note });
  await engine.runSaga(saga);
  await engine.sagas.start(saga, undefined, { id: "o" });
  const result = await engine.sagas.result("order", "o");
  late.open();
  await until(() => aborted !== undefined);
  assert.equal(aborted, true);
  assert.equal(result.saga.status, "completed");
  assert.deepEqual(effects.all, ["a", "a", "b"]);
  await engine.settleDown();
  const timeline = await engine.sagas.timeline("order", "o");
  assert.equal(timeline.find((one) => one.mark === "done" && one.step === "a").output, "of attempt 2");
  assert.match(timeline.find((one) => one.mark === "failed").error, /StepTimeout/);
});

scenario("CONF-62", "a compensation that keeps failing ends stuck and the others run", async (stage) => {
  const engine = await stage.open({ sweepIntervalMs: 10 });
  const alerts = [];
  engine.events.on("alert",
    (one) => alerts.push([one.kind, one.recovered, one.sagaType, one.sagaId, one.sagaStep]));
  const { sagas } = engine;
  const effects = new Effects();
  const saga = new Saga("order")
    .step("a", effects.note, quick(3, { compensate: effects.note }))
    .step("b", effects.note, quick(3, { compensate: effects.fail(3) }))
    .step("c", effects.fail(), quick(1, { compensate: effects.note }));
  await engine.runSaga(saga);
  await sagas.start(saga, undefined, { id: "o" });
  const result = await sagas.result("order", "o");
  assert.deepEqual([result.saga.status, result.saga.step], ["stuck", "b"]);
  assert.deepEqual(effects.all, ["a", "b", "c", "-c", "-b", "-b", "-b", "-a"]);
  assert.deepEqual((await sagas.list({ status: "stuck" })).items.map((one) => one.id), ["o"]);
  assert.deepEqual((await sagas.list({ status: "completed" })).items, []);
  await until(() => alerts.length === 1);
  await refused(sagas.retry("order", "o", "a"), "ERR_NOT_FOUND");
  await sagas.annotate("order", "o", "called the bank");
  await sagas.retry("order", "o", "b");
  await until(async () => (await sagas.find("order", "o")).status === "compensated");
  assert.deepEqual([effects.count("-b"), effects.count("-a")], [4, 1]);
  const note = (await sagas.timeline("order", "o")).find((one) => one.mark === "note");
  assert.equal(note.error, "called the bank");
  await until(() => alerts.length === 2);
  assert.deepEqual(alerts, [["saga_stuck", false, "order", "o", "b"], ["saga_stuck", true, "order", "o", "b"]]);
});

scenario("CONF-62", "a person can skip and force", async (stage) => {
  const engine = await stage.open();
  const { sagas } = engine;
  const effects = new Effects();
  const saga = new Saga("order")
    .step("a", effects.note, quick(1, { compensate: effects.fail() }))
    .step("b", effects.fail(), quick(1, { compensate: effects.note }));
  await engine.runSaga(saga);
  for (const id of ["skipped", "forced"]) {
    await sagas.start(saga, undefined, { id });
    assert.equal((await sagas.result("order", id)).saga.status, "stuck");
  }
  await sagas.skip("order", "skipped", "a");
  assert.equal((await sagas.result("order", "skipped")).saga.status, "compensated");
  for (const status of ["running", "done"]) {
    await refused(sagas.force("order", "forced", status), "ERR_INVALID_ARGUMENT");
  }
  await sagas.force("order", "forced", "completed");
  assert.equal((await sagas.result("order", "forced")).saga.status, "completed");
  await refused(sagas.skip("order", "forced", "a"), "ERR_CONFLICT");
});

scenario("CONF-62", "they are listed by type, state and age", async (stage) => {
  const engine = await stage.open();
  const { sagas } = engine;
  const effects = new Effects();
  const [order, ride] = [letters(effects, 1), letters(effects, 1, "ride")];
  await engine.runSaga(order);
  for (const id of ["o-1", "o-2"]) {
    await sagas.start(order, undefined, { id });
    await sagas.result("order", id);
    await sleep(2); // so that each has its own time of beginning
  }
  await sagas.start(ride, undefined, { id: "r-1" });
  const ids = async (query) => (await sagas.list(query)).items.map((one) => one.id);
  const { startedAt } = await sagas.find("order", "o-2");
  assert.deepEqual(await ids({ type: "order" }), ["o-1", "o-2"]);
  assert.deepEqual(await ids({ type: "order", startedBefore: startedAt }), ["o-1"]);
  assert.deepEqual(await ids({ unfinished: true }), ["r-1"]);
  assert.deepEqual(await ids({ status: "running" }), ["r-1"]);
});

/** A saga whose step "charge" is a command to the topic "payments". */
function withCommand(effects, timeoutMs) {
  return new Saga("order")
    .step("reserve", effects.note, quick(3, { compensate: effects.note }))
    .step("charge", undefined, quick(2, { command: "payments", compensationCommand: "refunds", timeoutMs }))
    .step("ship", effects.note, quick(3, { compensate: effects.note }));
}

scenario("CONF-58", "a step can be a command to another service", async (stage) => {
  const [engine, other] = [await stage.open(), await stage.open()];
  const effects = new Effects();
  const saga = withCommand(effects, 20_000);
  await other.consume("payments", member({ group: "payments" }), async (m) => {
    assert.deepEqual(JSON.parse(m.payload), { order: "o" });
    const isFirst = m.headers["saga-call"].endsWith("#1");
    for (const _ of range(2)) {
      if (isFirst) await other.sagas.replyFailed(m, "try again");
      else await other.sagas.reply(m, { receipt: 7 });
    }
  });
  await engine.runSaga(saga);
  await engine.sagas.start(saga, { order: "o" }, { id: "o" });
  assert.equal((await engine.sagas.result("order", "o")).saga.status, "completed");
  assert.deepEqual(effects.all, ["reserve", "ship"]);
  const timeline = await engine.sagas.timeline("order", "o");
  const done = timeline.find((one) => one.mark === "done" && one.step === "charge");
  assert.deepEqual([done.output, done.attempt], [{ receipt: 7 }, 2]);
  const recorder = new Recorder();
  await engine.consume("plain", member(), recorder.handler);
  await engine.publish("plain", "no command");
  await recorder.reaches(1);
  await refused(engine.sagas.reply(recorder.all[0].message, ""), "ERR_INVALID_ARGUMENT");
});

scenario("CONF-63", "a reply that never came is found missing after the restart", async (stage) => {
  const effects = new Effects();
  const saga = withCommand(effects, 300);
  let engine = await stage.open();
  await engine.runSaga(saga);
  await engine.sagas.start(saga, undefined, { id: "o" });
  await until(async () => (await engine.sagas.find("order", "o")).step === "charge");
  await stage.close(engine);
  await sleep(400); // nobody is there when the reply is due
  engine = await stage.open();
  const refunds = new Recorder();
  await engine.consume("refunds", member({ group: "refunds" }), async (m) => {
    refunds.add(m);
    await engine.sagas.reply(m);
  });
  await engine.runSaga(saga);
  const result = await engine.sagas.result("order", "o");
  assert.deepEqual([result.saga.status, result.saga.error],
    ["compensated", "charge: ReplyTimeout: no reply came in time"]);
  assert.equal(refunds.count, 1, "nobody knows whether the command was carried out");
  assert.deepEqual(effects.all, ["reserve", "-reserve"]);
});

scenario("CONF-63", "a reply that came while nobody ran counts", async (stage) => {
  const effects = new Effects();
  const saga = withCommand(effects, 3_600_000);
  let engine = await stage.open();
  const runner = await engine.runSaga(saga);
  await engine.sagas.start(saga, undefined, { id: "o" });
  await until(async () => (await engine.sagas.find("order", "o")).step === "charge");
  await runner.close();
  const commands = new Recorder();
  await engine.consume("payments", member({ group: "payments" }), async (m) => {
    await engine.sagas.reply(m, "receipt");
    commands.add(m);
  });
  await commands.reaches(1);
  await stage.close(engine);
  engine = await stage.open();
  await engine.runSaga(saga);
  assert.equal((await engine.sagas.result("order", "o")).saga.status, "completed");
  assert.deepEqual(effects.all, ["reserve", "ship"]);
});

scenario("CONF-63", "a deadline of the saga passes while it waits", async (stage) => {
  const engine = await stage.open();
  const effects = new Effects();
  const saga = new Saga("order", { deadlineMs: 200 })
    .step("a", effects.note, { compensate: effects.note })
    .step("b", (call) => {
      effects.add(call);
      throw new Retry("much later", { afterMs: 3_600_000 });
    }, { compensate: effects.note });
  await engine.runSaga(saga);
  await engine.sagas.start(saga, undefined, { id: "o" });
  const { deadlineAt, startedAt } = await engine.sagas.find("order", "o");
  assert.equal(deadlineAt - startedAt, 200);
  assert.equal((await engine.sagas.result("order", "o")).saga.status, "compensated");
  assert.deepEqual(effects.all, ["a", "b", "-b", "-a"]);
});

scenario("BAD-34", "a definition that breaks a rule is refused", async (stage) => {
  const engine = await stage.open();
  const nothing = () => {};
  const undone = { compensate: nothing };
  const wrong = [
    new Saga("order"),
    new Saga("or der").step("a", nothing, undone),
    new Saga("").step("a", nothing, undone),
    new Saga("order").step("a", nothing, undone).step("a", nothing, undone),
    new Saga("order").step("a", nothing),
    new Saga("order").parallel([]),
    new Saga("order").step("a", nothing, { pivot: true }).step("b", nothing, { pivot: true }),
    new Saga("order").parallel([
      { name: "a", execute: nothing, compensate: nothing, pivot: true },
      { name: "b", execute: nothing, compensate: nothing },
    ]),
  ];
  const large = new Saga("order");
  for (const n of range(10_001)) large.step(`s${n}`, nothing, undone);
  for (const saga of [...wrong, large]) {
    await refused(engine.sagas.start(saga, undefined, { id: "o" }), "ERR_INVALID_SAGA");
    await refused(engine.runSaga(saga), "ERR_INVALID_SAGA");
  }
  await refused(engine.runSaga(new Saga("order").step("a", undefined, undone)), "ERR_INVALID_SAGA", "function");
  await refused(engine.runSaga(new Saga("order").step("a", nothing, { ...undone, timeoutMs: 0 })),
    "ERR_INVALID_CONFIG", "timeoutMs");
  await refused(() => new Saga("order").step("a", nothing, { ...undone, timeout: 1 }), "ERR_INVALID_CONFIG", "timeout");
  await refused(() => new Saga("order", { deadline: 1 }), "ERR_INVALID_CONFIG", "deadline");
  await refused(() => new Saga("order").step("a", "run"), "ERR_INVALID_ARGUMENT", "'a'");
  await refused(() => new Saga("order").step("a", nothing, { compensate: {} }), "ERR_INVALID_ARGUMENT", "'a'");
  await refused(() => new Saga("order").step(7, nothing), "ERR_INVALID_ARGUMENT");
  for (const branches of ["a", { name: "a" }, [null], ["a"]]) {
    await refused(() => new Saga("order").parallel(branches), "ERR_INVALID_ARGUMENT");
  }
  for (const version of [-1, 1.5, "1", 2 ** 32]) {
    const saga = new Saga("order", { version }).step("a", nothing, undone);
    await refused(engine.runSaga(saga), "ERR_INVALID_ARGUMENT", "version");
  }
  for (const saga of ["order", {}, undefined]) {
    await refused(engine.runSaga(saga), "ERR_INVALID_ARGUMENT");
    await refused(engine.sagas.start(saga), "ERR_INVALID_ARGUMENT");
  }
  assert.deepEqual((await engine.sagas.list()).items, []);
});

scenario("BAD-34", "a changed definition is told and its sagas are kept", async (stage) => {
  const engine = await stage.open();
  const { sagas } = engine;
  const effects = new Effects();
  const [old, changed, next] = [letters(effects, 2), letters(effects, 3), letters(effects, 3, "order", 2)];
  await sagas.start(old, undefined, { id: "o" });
  await refused(engine.runSaga(changed), "ERR_DEFINITION_MISMATCH");
  await engine.runSaga(next);
  await sagas.start(next, undefined, { id: "n" });
  assert.equal((await sagas.result("order", "n")).saga.status, "completed");
  assert.equal((await sagas.find("order", "o")).status, "running", "it waits for its version");
  await engine.runSaga(old);
  const { saga } = await sagas.result("order", "o");
  assert.deepEqual([saga.status, saga.definitionVersion], ["completed", 1]);
  assert.deepEqual((await sagas.list({ definitionVersion: 2 })).items.map((one) => one.id), ["n"]);
});

scenario("BAD-35", "what is too large is refused before the step runs", async (stage) => {
  const engine = await stage.open({ payloadBytesMax: 1_000 });
  const { sagas } = engine;
  const effects = new Effects();
  const large = "x".repeat(1_001);
  const saga = new Saga("order").step("a", async (call) => {
    effects.add(call);
    await refused(() => call.setContext(large), "ERR_PAYLOAD_TOO_LARGE");
    await refused(() => call.publish("t", large), "ERR_PAYLOAD_TOO_LARGE");
    if (call.id === "p") return large;
    if (call.id === "q") return 1n; // has no JSON form
    return "small";
  }, quick(2, { compensate: effects.note }));
  await refused(sagas.start(saga, large, { id: "o" }), "ERR_PAYLOAD_TOO_LARGE");
  await refused(sagas.start(saga, undefined, { id: "with space" }), "ERR_INVALID_ID");
  await refused(sagas.start(saga, undefined, { id: "x".repeat(129) }), "ERR_INVALID_ID");
  await engine.runSaga(saga);
  const ends = [];
  for (const id of ["o", "p", "q"]) {
    await sagas.start(saga, undefined, { id });
    const result = await sagas.result("order", id);
    ends.push(`${result.saga.status} ${result.saga.error.split(":")[1] ?? ""}`);
  }
  assert.deepEqual(ends, ["completed ", "compensated  PayloadTooLargeError", "compensated  PayloadError"]);
  assert.deepEqual(effects.all, ["a", "a", "a", "-a", "a", "-a"], "what has no JSON form is not tried again");
  await refused(sagas.result("order", "nobody", { timeoutMs: 10 }), "ERR_NOT_FOUND");
  await refused(sagas.timeline("order", "nobody"), "ERR_NOT_FOUND");
  assert.equal(await sagas.find("order", "nobody"), undefined);
});
