// Python and Node over one file: what one publishes the other handles, retries, dead-letters and redrives.

import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";

import { folderOf, open, run, until } from "./support.mjs";

const python = process.env.TOWLINE_PYTHON;
const environment = { ...process.env, PYTHONPATH: process.env.TOWLINE_PYTHONPATH ?? "",
  PYTHONDONTWRITEBYTECODE: "1" };
const skip = python ? false : "the Python package is not part of this build";

const all = Buffer.from(Array.from({ length: 256 }, (_, i) => i));

async function runPython(text, ...args) {
  const { code, out, err } = await run(python, ["-c", text, ...args], { env: environment });
  assert.equal(code, 0, err);
  return out;
}

test("a message published in Python is handled in Node", { skip }, async (t) => {
  const url = `sqlite:${path.join(folderOf(t), "a.db")}`;
  const engine = await open(t, url);
  const seen = [];
  await engine.consume("orders", { group: "g", ordering: "key" }, (m) => seen.push(m));
  const published = await runPython(`
import sys
from towline import Engine
with Engine(sys.argv[1]) as engine:
    for payload in ({"n": 1, "s": "\\u00fcn\\U0001f680"}, "text", bytes(range(256))):
        receipt = engine.publish("orders", payload, key="k", headers={"a": "b"}, correlation_id="c")
        print(receipt.id)
`, url);
  await until(() => seen.length === 3);
  assert.deepEqual(seen.map((m) => m.id), published.trim().split("\n"));
  assert.deepEqual(seen.map((m) => m.value), [{ n: 1, s: "ün\u{1f680}" }, "text",
    all]);
  assert.deepEqual(seen.map((m) => [m.key, m.headers, m.correlationId]), Array(3).fill(["k", { a: "b" },
    "c"]));
});

test("a message published in Node is handled in Python", { skip }, async (t) => {
  const url = `sqlite:${path.join(folderOf(t), "a.db")}`;
  const engine = await open(t, url);
  const values = [{ n: 1, s: "ün\u{1f680}" }, "text", all];
  const ids = [];
  for (const value of values) {
    ids.push((await engine.publish("orders", value, { key: "k", headers: { a: "b" } })).id);
  }
  const out = await runPython(`
import json, sys
from towline import Engine
with Engine(sys.argv[1]) as engine:
    with engine.subscribe("orders", group="g", ordering="key") as messages:
        for _ in range(3):
            m = messages.receive(timeout=20)
            value = m.value if not isinstance(m.value, bytes) else list(m.value)
            print(json.dumps([m.id, value, m.key, m.headers, m.partition]))
            m.ack()
`, url);
  const seen = out.trim().split("\n").map((line) => JSON.parse(line));
  assert.deepEqual(seen.map((one) => one[0]), ids);
  assert.deepEqual(seen.map((one) => one[1]), [values[0], "text", [...values[2]]]);
  assert.ok(seen.every((one) => one[2] === "k" && one[3].a === "b" && one[4] === seen[0][4]));
});

test("what fails in Node is a dead letter that Python edits and redrives", { skip }, async (t) => {
  const url = `sqlite:${path.join(folderOf(t), "a.db")}`;
  const engine = await open(t, url);
  const seen = [];
  await engine.consume("orders", { group: "g", retry: { maxAttempts: 2, initialDelayMs: 1 } }, (m) => {
    seen.push([m.value.n, m.attempt, m.redrives]);
    if (m.value.n === 1) throw new RangeError("bad");
  });
  await engine.publish("orders", { n: 1 });
  await until(async () => (await engine.deadLetters({})).items.length === 1);
  const out = await runPython(`
import sys
from towline import Engine
with Engine(sys.argv[1]) as engine:
    entry = engine.dead_letters(group="g").items[0]
    print(entry.error_type, entry.error_message, entry.attempt, entry.payload)
    engine.redrive(entry.id, payload=b'{"n":2}')
`, url);
  assert.equal(out.trim(), `RangeError bad 2 b'{"n":1}'`);
  await until(() => seen.length === 3);
  assert.deepEqual(seen, [[1, 1, 0], [1, 2, 0], [2, 1, 1]]);
});

test("a failure in Python is retried in Node", { skip }, async (t) => {
  const url = `sqlite:${path.join(folderOf(t), "a.db")}`;
  const engine = await open(t, url);
  const { id } = await engine.publish("orders", { n: 1 });
  await runPython(`
import sys
from towline import Engine
with Engine(sys.argv[1]) as engine:
    with engine.subscribe("orders", group="g") as messages:
        messages.receive(timeout=20).nak(after=0.2, why="not here")
`, url);
  const seen = [];
  await engine.consume("orders", { group: "g" }, (m) => seen.push([m.id, m.attempt]));
  await until(() => seen.length === 1);
  assert.deepEqual(seen, [[id, 2]]);
});
