// What the tests and their processes share: waiting, and common ways to publish, handle and look.

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";

import { Reject } from "towline";

/** The lease of tests in which one ends: short enough to wait for, long enough for a busy machine. */
export const LEASE_MS = 450;

// ---- waiting ------------------------------------------------------------------------------------

/** Waits until `condition` holds; fails with what was waited for, a text or what a function says then. */
export async function until(condition, what = condition.toString(), withinMs = 20_000) {
  const deadline = performance.now() + withinMs;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (performance.now() > deadline) {
      const wanted = typeof what === "function" ? what() : what;
      throw new Error(`waited ${withinMs} ms in vain for: ${wanted}`);
    }
    await sleep(2);
  }
}

/** Fails unless `condition` holds all the time. */
export async function holdsFor(condition, ms, what = condition.toString()) {
  const end = performance.now() + ms;
  do {
    if (!(await condition())) throw new Error(`did not hold for ${ms} ms: ${what}`);
    await sleep(2);
  } while (performance.now() < end);
}

/** The promise is rejected (the function throws) with this code. */
export async function refused(promise, code, ...words) {
  let error;
  try {
    await (typeof promise === "function" ? promise() : promise);
  } catch (caught) {
    error = caught;
  }
  assert.ok(error !== undefined, `succeeded, wants ${code}`);
  assert.equal(error.code, code, `${error}`);
  for (const word of words) assert.ok(error.message.includes(word), `no '${word}' in: ${error.message}`);
  assert.match(error.message, /^[^\u0000-\u001f]{1,999}$/, "one line, and a value is cut");
  return error;
}

// ---- messages -----------------------------------------------------------------------------------

/** What handlers saw, in the order of their starts. */
export class Recorder {
  all = [];
  /** A handler that records and acknowledges. */
  handler = (message) => this.add(message);

  add(message) {
    this.all.push({ message, text: message.payload.toString(), attempt: message.attempt, key: message.key,
      at: performance.timeOrigin + performance.now(), started: performance.now() });
  }
  get count() {
    return this.all.length;
  }
  get texts() {
    return this.all.map((one) => one.text);
  }
  /** Payload to how often it was handled. */
  get times() {
    const times = {};
    for (const text of this.texts) times[text] = (times[text] ?? 0) + 1;
    return times;
  }
  get distinct() {
    return new Set(this.texts).size;
  }
  reaches(count, withinMs) {
    return until(() => this.count >= count, () => `${count} deliveries; there were ${this.count}`, withinMs);
  }
  /** The waits between the starts of the attempts of one message. */
  get waits() {
    return this.all.slice(1).map((one, i) => one.started - this.all[i].started);
  }
}

export const QUICK_RETRY = { kind: "fixed", initialDelayMs: 20, jitter: "none", maxAttempts: 3 };

/** A member of a group: retries after 20 ms, three attempts, no breaker, no jitter. */
export function member({ retry, ...options } = {}) {
  return { group: "group", retry: { ...QUICK_RETRY, ...retry }, breaker: { enabled: false }, ...options };
}

export class Named extends Error {
  constructor(name, message = "") {
    super(message);
    this.name = name;
  }
}

export function fail(name, message) {
  throw new Named(name, message);
}

export async function publishAll(engine, messages) {
  const receipts = await engine.publishBatch(messages);
  assert.equal(receipts.length, messages.length);
  for (const receipt of receipts) assert.equal(receipt.outcome, "acked", `${receipt.error}`);
  return receipts;
}

/** Publishes `count` messages "0", "1" and so on. */
export function publishNumbers(engine, topic, count, first = 0) {
  return publishAll(engine, range(count, first).map((n) => ({ topic, value: String(n) })));
}

export function range(count, first = 0) {
  return Array.from({ length: count }, (_, i) => first + i);
}

/** Makes the group known to the topic, with no member left behind. */
export async function makeGroup(engine, topic, group = "group") {
  const consumer = await engine.consume(topic, member({ group }), () => {});
  await consumer.close();
}

export async function inFlight(engine) {
  return (await engine.backlog()).reduce((sum, one) => sum + one.inFlight, 0);
}

export async function waiting(engine, topic, group = "group") {
  return (await engine.backlog()).find((one) => one.topic === topic && one.group === group)?.waiting ?? 0;
}

/** Nothing of the topic waits or is out. Of one look: between two of them what a dead process held comes back. */
export async function isDone(engine, topic) {
  return (await engine.backlog()).every((one) => one.topic !== topic || one.waiting + one.inFlight === 0);
}

/** All pages. */
export async function deadLetters(engine, query = {}) {
  const all = [];
  let cursor = "";
  do {
    const page = await engine.deadLetters({ ...query, countMax: 1000, cursor });
    all.push(...page.items);
    cursor = page.cursor;
  } while (cursor !== "");
  return all;
}

/** Fills a topic's dead letters with `count` entries of payload "0", "1" and so on. */
export async function makeDeadLetters(engine, topic, count, first = 0) {
  const pending = async () => (await engine.statistics()).deadLetters.pending;
  const before = await pending();
  const consumer = await engine.consume(topic, member({ concurrency: 8 }), () => {
    throw new Reject("made by the test");
  });
  await publishNumbers(engine, topic, count, first);
  await until(async () => (await pending()) === before + count, "dead letters");
  await consumer.close();
}

/** How many run at once. */
export class Gauge {
  now = 0;
  max = 0;
  async around(work) {
    this.now += 1;
    this.max = Math.max(this.max, this.now);
    try {
      return await work();
    } finally {
      this.now -= 1;
    }
  }
}

/** A promise that others open. */
export function gate() {
  let open;
  const opened = new Promise((resolve) => (open = resolve));
  return { open, opened };
}
