// The bytes that every language must make of the same message, in a file that all of them read.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";

import { Engine } from "towline";

import { folderOf, root, run } from "./support.mjs";

test("the rare fields of an envelope are stored as the bytes of the vectors", async (t) => {
  const lines = readFileSync(path.join(root, "tests/vectors/envelopes.txt"), "utf8").trim().split("\n");
  const rows = lines.filter((line) => !line.startsWith("#"))
    .map((line) => line.split(" | ").map((field) => (field === "-" ? "" : field)));
  assert.ok(rows.length >= 5);
  const file = path.join(folderOf(t), "a.db");
  const engine = await Engine.open(`sqlite:${file}`);
  for (const [, headers, contentType, correlationId, causationId, traceparent] of rows) {
    const pairs = headers === "" ? [] : headers.split(", ").map((pair) => pair.split(/=(.*)/s).slice(0, 2));
    await engine.publish("vectors", Buffer.from("p"), { headers: Object.fromEntries(pairs), contentType,
      correlationId, causationId, traceparent });
  }
  await engine.close();
  const { code, out, err } = await run("python3", ["-c", `
import sqlite3, sys
for (extras,) in sqlite3.connect(sys.argv[1]).execute("SELECT extras FROM message ORDER BY seq"):
    print((extras or b"").hex())`, file]);
  assert.equal(code, 0, err);
  assert.deepEqual(out.trimEnd().split("\n").slice(-rows.length).map((hex, i) => [rows[i][0], hex]),
    rows.map((row) => [row[0], row.at(-1)]));
});
