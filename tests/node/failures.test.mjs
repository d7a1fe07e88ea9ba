// What is recorded of what a handler throws: its type, its text, its stack.

import assert from "node:assert/strict";
import diagnostics from "node:diagnostics_channel";
import { test } from "node:test";

import { LeaseLostError } from "towline";

import { open, until } from "./support.mjs";

/** The dead letters of handlers that throw these, in their order. */
async function deadLettersOf(t, thrown, options = {}) {
  const engine = await open(t, "memory:");
  await engine.consume("orders", { group: "g", retry: { maxAttempts: 1 }, breaker: { enabled: false }, ...options },
    (m) => {
    const error = thrown[m.value];
    throw typeof error === "function" ? error() : error;
  });
  await engine.publishBatch(thrown.map((_, n) => ({ topic: "orders", value: n })));
  const items = await until(async () => {
    const page = await engine.deadLetters({ countMax: 1_000 });
    return page.items.length === thrown.length && page.items;
  });
  return items.sort((a, b) => JSON.parse(a.payload) - JSON.parse(b.payload));
}

class CardDeclined extends Error {}
class Overdrawn extends CardDeclined {}
class Unreadable extends TypeError {}
class Named extends Error {
  get name() {
    return "named";
  }
}

test("an error is of the class that threw it, unless it has a name", async (t) => {
  const given = Object.assign(new CardDeclined("x"), { name: "Given" });
  const odd = Object.defineProperty(new Overdrawn("x"), "constructor", { get() { throw new Error("trap"); } });
  const thrown = [new CardDeclined("x"), new Overdrawn("x"), new Unreadable("x"), new Named("x"), given,
    new RangeError("x"), new (class extends Error {})("x"), odd, Object.assign(new CardDeclined("x"), { name: 5 }),
    () => Buffer.alloc({})]; // Node's own errors have a class of another name
  const items = await deadLettersOf(t, thrown);
  assert.deepEqual(items.map((one) => one.errorType),
    ["CardDeclined", "Overdrawn", "Unreadable", "named", "Given", "RangeError", "Error", "Error", "CardDeclined",
      "TypeError"]);
});

test("a class is given to the dead letters at once by its name", async (t) => {
  const [item] = await deadLettersOf(t, [new CardDeclined("no money")],
    { retry: { maxAttempts: 3 }, classify: { permanentTypes: ["CardDeclined"] } });
  assert.deepEqual([item.reason, item.errorMessage, item.attempt], ["permanent", "no money", 1]);
});

test("causes are told with the stack, each once, however many there are", async (t) => {
  const ring = new Error("first");
  ring.cause = new RangeError("second", { cause: ring });
  let deep = new Error("depth 0");
  for (let n = 1; n < 100; n += 1) deep = new Error(`depth ${n}`, { cause: deep });
  const many = new AggregateError([new Error("left"), new Error("right")], "both");
  const trap = Object.defineProperty(new Error("trapped"), "cause", { get() { throw new Error("trap"); } });
  const { proxy: revoked, revoke } = Proxy.revocable([], {});
  revoke();
  const odd = Object.assign(new Error("odd", { cause: revoked }), { errors: revoked });
  const [plain, text, rings, deeper, all, safe, odder] = await deadLettersOf(t,
    [new Error("outer", { cause: new CardDeclined("inner") }), new Error("outer", { cause: "only text" }),
      ring, deep, many, trap, odd]);
  assert.match(plain.errorStack, /^Error: outer\n +at .*failures\.test\.mjs[^]*\ncaused by: Error: inner\n +at /);
  assert.equal(plain.errorMessage, "outer");
  assert.match(text.errorStack, /caused by: string: only text$/);
  assert.deepEqual(rings.errorStack.match(/first|second/g), ["first", "second"]);
  assert.match(deeper.errorStack, /^Error: depth 99\n[^]*caused by: Error: depth 95\n/);
  assert.ok(deeper.errorStack.length <= 16_384);
  assert.match(all.errorStack, /both[^]*left[^]*right/);
  assert.match(safe.errorStack, /^Error: trapped/);
  assert.deepEqual([odder.errorType, odder.errorMessage], ["Error", "odd"]);
});

test("an object that is no error is shown, as far as it is short", async (t) => {
  const ring = { code: 7 };
  ring.self = ring;
  const hostile = { get code() { throw new Error("trap"); }, [Symbol.toPrimitive]() { throw new Error("trap"); } };
  const items = await deadLettersOf(t, [{ code: 42 }, { code: 42, more: { and: { more: 1 } } }, ring, [1, 2],
    { text: "x".repeat(1e6), list: Array(1e5).fill(0) }, hostile, { message: "its own" }]);
  const texts = items.map((one) => one.errorMessage);
  assert.equal(texts[0], "{ code: 42 }");
  assert.equal(texts[1], "{ code: 42, more: { and: [Object] } }");
  assert.match(texts[2], /^<ref \*1> \{ code: 7, self: \[Circular/);
  assert.equal(texts[3], "[ 1, 2 ]");
  assert.ok(texts[4].includes("text: 'xxx") && texts[4].length < 5_000, `${texts[4].length}`);
  assert.match(texts[5], /code: \[Getter\]/);
  assert.equal(texts[6], "its own");
});

test("a stack has the user's frames, and neither the engine's nor Node's own", async (t) => {
  const channel = diagnostics.tracingChannel("towline:process");
  const listener = { start() {} };
  const thrown = [() => new Error("first line\n    second line"), () => new LeaseLostError("lost"),
    Object.assign(new Error("x"), { stack: "Error: x\n    at node:internal/a:1:1\n    at node:fs:2:2" })];
  const plain = await deadLettersOf(t, thrown);
  channel.subscribe(listener); // then Node calls the handler, too
  const traced = await deadLettersOf(t, thrown);
  channel.unsubscribe(listener);
  for (const [atOnce, typed, files] of [plain, traced]) {
    for (const { errorStack } of [atOnce, typed]) {
      assert.match(errorStack, /\n +at .*failures\.test\.mjs/);
      assert.doesNotMatch(errorStack, /node\/dist|node:/);
    }
    assert.match(atOnce.errorStack, /^Error: first line\n    second line\n +at /);
    assert.equal(files.errorStack, "Error: x\n    at node:fs:2:2");
  }
});

test("what the engine refuses a handler for different reasons are different groups", async (t) => {
  const engine = await open(t, "memory:");
  const doing = [() => engine.publish("no good", 1), () => engine.publish("a.*", 1)]; // of one type
  await engine.consume("orders", { group: "g", retry: { maxAttempts: 1 }, breaker: { enabled: false } },
    (m) => doing[m.value % doing.length]());
  for (let n = 0; n < 2 * doing.length; n += 1) await engine.publish("orders", n);
  await until(async () => (await engine.deadLetters()).items.length === 2 * doing.length);
  const groups = await engine.deadLetterGroups();
  assert.deepEqual(groups.map((one) => one.count), [2, 2], JSON.stringify(groups));
});
