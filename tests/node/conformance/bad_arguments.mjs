// Arguments that only JavaScript has: memory that is gone or shared, proxies, getters, symbols, big integers.
// Each is refused, or read once; nothing changes and the process lives.

import assert from "node:assert/strict";

import { TowlineError } from "towline";

import { member, Recorder, refused, scenario, until } from "./harness.mjs";
import { leavesAlone, prepare, rejected, stateOf } from "./bad_input.mjs";

function detached() {
  const bytes = new Uint8Array([1, 2, 3]);
  structuredClone(bytes.buffer, { transfer: [bytes.buffer] });
  return bytes;
}

function revoked(target) {
  const { proxy, revoke } = Proxy.revocable(target, {});
  revoke();
  return proxy;
}

const trap = () => {
  throw new RangeError("trap");
};
const TRAPS = Object.fromEntries(["get", "has", "ownKeys", "getOwnPropertyDescriptor", "getPrototypeOf"]
  .map((name) => [name, trap]));

scenario("BAD-40", "payloads whose memory is gone, shared or of another shape", async (stage) => {
  const engine = await prepare(stage);
  const before = await stateOf(engine);
  for (const value of [detached(), detached().buffer, new SharedArrayBuffer(8), new DataView(new ArrayBuffer(8)),
    new Float64Array(2), revoked({}), revoked([]), new Proxy({}, TRAPS), 1n, [2n ** 70n], Symbol("s"), undefined,
    () => 1, { toJSON: trap }]) {
    const isRefused = (error) => error instanceof TypeError || error.message === "trap";
    await assert.rejects(engine.publish("orders", value), isRefused);
    await assert.rejects(engine.publishBatch([{ topic: "orders", value }]), isRefused);
  }
  assert.deepEqual(await stateOf(engine), before);
  await assert.rejects(engine.once("key", () => detached()), TypeError);
  assert.equal(await engine.once("key", () => "free"), "free");
});

scenario("BAD-40", "bytes are taken when they are given, whoever changes them later", async (stage) => {
  const engine = await prepare(stage);
  const seen = new Map();
  await engine.consume("orders", member(), (m) => seen.set(m.key, [...m.payload]));
  const plain = new Uint8Array([1, 2]);
  const shared = new Uint8Array(new SharedArrayBuffer(2)).fill(1);
  const resizable = new ArrayBuffer(2, { maxByteLength: 4 });
  const publishing = [engine.publish("orders", plain, { key: "plain" }),
    engine.publish("orders", shared, { key: "shared" }),
    engine.publish("orders", new Uint8Array(resizable).fill(1), { key: "resizable" })];
  plain.fill(9);
  shared.fill(9);
  resizable.resize(0);
  await Promise.all(publishing);
  await until(() => seen.size === 3);
  assert.deepEqual(Object.fromEntries(seen), { plain: [1, 2], shared: [1, 1], resizable: [1, 1] });
});

scenario("BAD-40", "options are read once, and getters may throw or close the engine", async (stage) => {
  const engine = await prepare(stage);
  const names = { key: "k", contentType: "text/plain", headers: { a: "b" }, priority: 1, correlationId: "c" };
  const reads = {};
  const counted = Object.defineProperties({}, Object.fromEntries(Object.entries(names).map(([name, value]) =>
    [name, { enumerable: true, get() {
      reads[name] = (reads[name] ?? 0) + 1;
      return value;
    } }])));
  await engine.publish("counted", "p", counted);
  await engine.publishBatch([Object.defineProperties({ topic: "counted", value: "p" },
    Object.getOwnPropertyDescriptors(counted))]);
  assert.deepEqual(reads, Object.fromEntries(Object.keys(names).map((name) => [name, 2])), "one per message");
  const before = await stateOf(engine);
  for (const name of ["key", "headers", "delayMs", "signal", "id"]) {
    const bad = Object.defineProperty({}, name, { enumerable: true, get: trap });
    await assert.rejects(engine.publish("orders", "p", bad), RangeError, name);
  }
  for (const bad of [new Proxy({}, TRAPS), { headers: new Proxy({}, TRAPS) }]) {
    await assert.rejects(engine.publish("orders", "p", bad), RangeError);
  }
  await assert.rejects(engine.publish("orders", "p", { headers: { get a() { return trap(); } } }), RangeError);
  await assert.rejects(engine.consume("orders", new Proxy({}, TRAPS), () => {}), RangeError);
  await assert.rejects(engine.deadLetters(new Proxy({}, TRAPS)), RangeError);
  assert.deepEqual(await stateOf(engine), before);
  let closing;
  const publishing = engine.publish("orders", "p", { get key() {
    closing ??= engine.close();
    return "k";
  } });
  await publishing.catch((error) => assert.equal(error.code, "ERR_CLOSED"));
  assert.equal(await closing, 0);
  stage.forget(engine);
});

scenario("BAD-40", "options and conditions that nobody knows, or that are no object", async (stage) => {
  const engine = await prepare(stage);
  const { eventStore, conversations, sagas } = engine;
  const calls = {
    publishBatch: (given) => engine.publishBatch([], given),
    cancel: (given) => engine.cancel("x", given),
    pending: (given) => engine.pending(given),
    backlog: (given) => engine.backlog(given),
    deadLetters: (given) => engine.deadLetters(given),
    deadLetterGroups: (given) => engine.deadLetterGroups(given),
    redrive: (given) => engine.redrive("x", given),
    "redriveAll, what": (given) => engine.redriveAll(given),
    "redriveAll, how": (given) => engine.redriveAll({}, given),
    statistics: (given) => engine.statistics(given),
    settleDown: (given) => engine.settleDown(given),
    close: (given) => engine.close(given),
    readAll: (given) => eventStore.readAll(given),
    read: (given) => eventStore.read("s", given),
    append: (given) => eventStore.append("s", [], given),
    streams: (given) => eventStore.streams(given),
    missed: (given) => conversations.missed("u", given),
    reconnect: (given) => conversations.reconnect("u", "c", given),
    messagesSince: (given) => conversations.messagesSince("c", 0n, given),
    "sagas.list": (given) => sagas.list(given),
    "sagas.find": (given) => sagas.find("t", "i", given),
    "sagas.result": (given) => sagas.result("t", "i", given),
  };
  for (const [name, call] of Object.entries(calls)) {
    for (const [given, word] of [[{ topcis: "orders" }, "topcis"], [5n, "object"], ["orders", "object"], [[], "object"],
      [null, "object"]]) {
      await leavesAlone(engine, () => call(given), "ERR_INVALID_ARGUMENT", word);
    }
    assert.ok((await engine.health()).ok, name);
  }
});

scenario("BAD-40", "symbols, big integers and other kinds where text or a number is wanted", async (stage) => {
  const engine = await prepare(stage);
  const odd = [Symbol("s"), 2n ** 70n, 1n, true, {}, [], () => 1, Buffer.from("k")];
  for (const value of odd) {
    for (const option of ["key", "dedupId", "correlationId", "traceparent", "contentType", "id"]) {
      await rejected(engine, "orders", { [option]: value }, "ERR_INVALID_ARGUMENT", option);
    }
    await refused(engine.publish(value, "p"), "ERR_INVALID_ARGUMENT", "topic");
    await refused(engine.publish("orders", "p", { headers: { a: value } }), "ERR_INVALID_ARGUMENT", "header a");
    await leavesAlone(engine, () => engine.cancel(value), "ERR_INVALID_ARGUMENT", "id");
    await leavesAlone(engine, () => engine.releaseKey("g", "orders", value), "ERR_INVALID_ARGUMENT", "key");
    await leavesAlone(engine, () => engine.once(value, () => 1), "ERR_INVALID_ARGUMENT", "key");
    await leavesAlone(engine, () => engine.deadLetters({ topic: value }), "ERR_INVALID_ARGUMENT", "topic");
    await assert.rejects(engine.consume([value], member(), () => {}), TowlineError);
  }
  for (const value of [Symbol("s"), 2n ** 70n, 1n, true, {}, [], "1", -1, 0.5, NaN]) {
    await refused(engine.publish("orders", "p", { priority: value }), "ERR_INVALID_ARGUMENT", "priority");
  }
  await refused(engine.publish("orders", "p", { headers: "a" }), "ERR_INVALID_ARGUMENT", "headers");
});

scenario("BAD-40", "replacements whose memory is gone", async (stage) => {
  const engine = await prepare(stage);
  const unknown = "01890000-0000-7000-8000-000000000000";
  const before = await stateOf(engine);
  for (const payload of [detached(), new SharedArrayBuffer(8), new Float64Array(1), 1n, Symbol("s"),
    revoked({})]) {
    await assert.rejects(engine.redrive(unknown, { payload }), TypeError);
  }
  assert.deepEqual(await stateOf(engine), before);
});

scenario("BAD-40", "a handler's message can be proxied, frozen and kept", async (stage) => {
  const engine = await prepare(stage);
  const seen = new Recorder();
  const kept = [];
  await engine.consume("orders", member(), (m) => {
    kept.push(Object.freeze(m));
    seen.add(m);
    return new Proxy(Promise.resolve(), { get: (target, name) => Reflect.get(target, name).bind?.(target) });
  });
  await engine.publish("orders", { n: 1 });
  await seen.reaches(1);
  await engine.settleDown();
  assert.deepEqual(kept[0].value, { n: 1 });
  assert.equal(kept[0].group, "group");
});
