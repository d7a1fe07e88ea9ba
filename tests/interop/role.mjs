// One role of the interop test in Node; interop_role_main.cpp and role.py are the same in their languages.
//
//   node role.mjs publish|fail|mend|handle URL

import { Engine } from "towline";

class BadOrder extends Error {
  get name() {
    return "BadOrder";
  }
}

const [role, url] = process.argv.slice(2);
const engine = await Engine.open(url);

const publish = async () => {
  const { id } = await engine.publish("orders", { n: 1, s: "ün" }, { key: "customer-9", headers: { a: "ü" },
    correlationId: "c-1" });
  return { id };
};

const consume = async (fails) => {
  let told;
  const handled = new Promise((resolve) => (told = resolve));
  const options = { group: "billing", ordering: "key", retry: { maxAttempts: 1 } };
  const consumer = await engine.consume("orders", options, (m) => {
    told({ id: m.id, payload: m.payload.toString(), content_type: m.contentType, key: m.key,
      partition: m.partition, headers: m.headers, correlation_id: m.correlationId, attempt: m.attempt,
      redrives: m.redrives });
    if (fails) throw new BadOrder("no amount");
  });
  const seen = await handled;
  await consumer.drain({ timeoutMs: 20_000 });
  return seen;
};

const mend = async () => {
  const { items } = await engine.deadLetters({ topic: "orders", errorType: "BadOrder" });
  const [entry] = items;
  await engine.redrive(entry.id, { payload: { n: 2 } });
  return { id: entry.messageId, count: items.length, payload: entry.payload.toString(),
    content_type: entry.contentType, headers: entry.headers, error: entry.errorMessage,
    attempt: entry.attempt, fingerprint: entry.fingerprint.length };
};

const roles = { publish, fail: () => consume(true), mend, handle: () => consume(false) };
const seen = await roles[role]();
await engine.close();
console.log(JSON.stringify(seen));
