// The programs of examples/node do what they say.

import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";

import { folderOf, open, root, run, start, until } from "./support.mjs";

const program = (name) => path.join(root, "examples/node", name);

test("the script tells a day of reminders", async () => {
  const { code, out, err } = await run(process.execPath, [program("script.mjs")]);
  assert.deepEqual([code, err], [0, ""]);
  assert.deepEqual(out.trim().split("\n"), [
    "cancelled: done",
    "2026-01-01T01:00:00.000Z to ada@example.com: stand up",
    "dead letter after 2 attempts: no address of bob",
    "2026-01-02T00:00:00.000Z to bob@example.com: sit down",
    "pending: 0",
  ]);
});

test("the Express server takes, bills and mends orders, and ends at a signal", async (t) => {
  const environment = { ...process.env, STORE: `sqlite:${path.join(folderOf(t), "shop.db")}` };
  const server = start(process.execPath, [program("express_server.mjs"), "0"], { env: environment });
  t.after(() => server.child.kill("SIGKILL"));
  const [, port] = await until(() => /port (\d+)/.exec(server.out()));
  const call = async (method, where, body, headers = {}) => {
    const response = await fetch(`http://127.0.0.1:${port}${where}`, { method, body: JSON.stringify(body),
      headers: { "content-type": "application/json", connection: "close", ...headers } });
    const text = await response.text();
    return [response.status, text === "" ? undefined : JSON.parse(text)];
  };
  const order = { customer: "ada", amount: 10 };
  const [status, { id }] = await call("POST", "/orders", order, { "idempotency-key": "k" });
  assert.equal(status, 202);
  assert.deepEqual(await call("POST", "/orders", order, { "idempotency-key": "k" }), [200, { id }]);
  await until(async () => (await call("GET", `/orders/${id}`))[1].state === "billed");
  const [, bad] = await call("POST", "/orders", { customer: "bob", amount: -1 });
  const [entry] = await until(async () => {
    const [, entries] = await call("GET", "/dead-letters");
    return entries.length > 0 && entries;
  });
  assert.match(entry.errorMessage, /more than 0/);
  assert.deepEqual(await call("POST", `/dead-letters/${entry.id}/redrive`, { customer: "bob", amount: 1 }),
    [202, undefined]);
  await until(async () => (await call("GET", `/orders/${bad.id}`))[1].state === "billed");
  const refused = async (method, where, body, status, code, reason) => {
    const [got, answer] = await call(method, where, body);
    assert.deepEqual([got, answer.code], [status, code]);
    assert.match(answer.reason, reason);
  };
  await refused("POST", "/dead-letters/x/redrive", order, 400, "ERR_INVALID_ID", /id/);
  await refused("POST", `/dead-letters/${entry.id}/redrive`, {}, 400, "ERR_BAD_REQUEST", /customer must be a text/);
  await refused("POST", "/orders", { customer: 5, amount: 1 }, 400, "ERR_BAD_REQUEST", /customer must be a text/);
  await refused("POST", "/orders", { customer: "k".repeat(300), amount: 1 }, 400, "ERR_INVALID_KEY", /300 bytes/);
  await refused("POST", "/orders", { customer: "ada" }, 400, "ERR_BAD_REQUEST", /amount must be a number/);
  await refused("POST", "/orders", undefined, 400, "ERR_BAD_REQUEST", /give an order|customer must be/);
  await refused("POST", "/orders", [order], 400, "ERR_BAD_REQUEST", /give an order/);
  const malformed = await fetch(`http://127.0.0.1:${port}/orders`, { method: "POST", body: "{",
    headers: { "content-type": "application/json", connection: "close" } });
  assert.deepEqual([malformed.status, typeof (await malformed.json()).reason], [400, "string"]);
  assert.deepEqual(await call("GET", "/health"), [200, { ok: true, detail: "" }]);
  const engine = await open(t, environment.STORE);
  await engine.publish("orders", "by somebody else, and no JSON");
  const [failed, answer] = await until(async () => {
    const got = await call("GET", "/dead-letters");
    return got[0] !== 200 && got;
  });
  assert.deepEqual([failed, answer], [500, { reason: "an error of the server" }]);
  server.child.kill("SIGTERM");
  const { code, out, err } = await server.done;
  assert.deepEqual([code, out.trim().split("\n").at(-1)], [0, "closed"]);
  assert.match(err, /^SyntaxError: [^]*express_server\.mjs/); // nothing else has been logged
});
