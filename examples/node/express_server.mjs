// A shop over HTTP: orders are taken at once and billed in the background, in this process.
//
//     node express_server.mjs [port]
//
// What a client repeats with the same Idempotency-Key is one order. An order that cannot be billed is a dead
// letter, which an operator lists and sends back. SIGTERM: no new requests, running handlers finish, exit 0.

import express from "express";
import { Engine, Reject } from "towline";

const engine = await Engine.open(process.env.STORE ?? "sqlite:shop.db");
const orders = engine.topic("orders");
const billed = new Map();

await orders.consume({ group: "billing", concurrency: 8, retry: { maxAttempts: 3, initialDelayMs: 50 } }, (m) => {
  if (!(m.value.amount > 0)) throw new Reject("the amount must be more than 0");
  billed.set(m.id, m.value.amount);
});

const app = express();
app.use(express.json());

/** What a client got wrong. */
class BadRequest extends Error {
  status = 400;
  code = "ERR_BAD_REQUEST";
}

/** The order of a request. Whether it can be billed shows later. */
function orderOf({ body }) {
  if (typeof body !== "object" || body === null || Array.isArray(body)) {
    throw new BadRequest("give an order as JSON, with the content type application/json");
  }
  const { customer, amount } = body;
  if (typeof customer !== "string" || customer === "") throw new BadRequest("customer must be a text that is not empty");
  if (typeof amount !== "number") throw new BadRequest("amount must be a number");
  return { customer, amount };
}

app.post("/orders", async (request, response) => {
  const order = orderOf(request);
  const { id, duplicate } = await orders.publish(order, {
    key: order.customer,
    dedupId: request.get("idempotency-key") ?? "",
  });
  response.status(duplicate ? 200 : 202).json({ id });
});

app.get("/orders/:id", (request, response) => {
  const amount = billed.get(request.params.id);
  response.json(amount === undefined ? { state: "waiting" } : { state: "billed", amount });
});

app.get("/dead-letters", async (request, response) => {
  const { items } = await engine.deadLetters({ status: "pending" });
  response.json(items.map(({ id, errorMessage, payload }) => ({ id, errorMessage, order: JSON.parse(payload) })));
});

app.post("/dead-letters/:id/redrive", async (request, response) => {
  await engine.redrive(request.params.id, { payload: JSON.stringify(orderOf(request)) });
  response.status(202).end();
});

app.get("/health", async (request, response) => {
  const health = await engine.health();
  response.status(health.ok ? 200 : 503).json(health);
});

// Express takes it for an error handler by its four parameters.
app.use((error, request, response, next) => {
  if (response.headersSent) return next(error);
  const known = { ERR_INVALID_ID: 400, ERR_INVALID_KEY: 400, ERR_NOT_FOUND: 404, ERR_CONFLICT: 409 };
  const status = known[error.code] ?? (error.retryable ? 503 : error.status ?? 500);
  if (status === 500) console.error(error); // not the client's, and not for its eyes
  response.status(status).json({ code: error.code, reason: status === 500 ? "an error of the server" : error.message });
});

const server = app.listen(Number(process.argv[2] ?? 3000), "127.0.0.1", () => {
  console.log(`listening on port ${server.address().port}`);
});

for (const signal of ["SIGTERM", "SIGINT"]) {
  process.once(signal, () => {
    server.close(async () => {
      await engine.close();
      console.log("closed");
    });
    server.closeIdleConnections();
  });
}
