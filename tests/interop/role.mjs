// One role of the interop test in Node; interop_role_main.cpp and role.py are the same in their languages.
//
//   node role.mjs publish|fail|mend|handle|append|follow|begin|reply|end URL

import { Engine, Saga } from "towline";

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

const append = async () => {
  const placed = { type: "order.placed", value: { n: 1, s: "ün" }, headers: { a: "ü" } };
  const noted = { type: "order.noted", value: "ün" };
  const { firstVersion, lastVersion } = await engine.eventStore.append("order-7", [placed, noted], { expected: 0 });
  return { first: Number(firstVersion), last: Number(lastVersion) };
};

// The next event of a subscription that all languages share.
const follow = async () => {
  const subscription = await engine.eventStore.subscribe("reader", { stream: "order-7" });
  const [event] = await subscription.receive({ countMax: 1, timeoutMs: 20_000 });
  await subscription.checkpoint(event.version);
  return { version: Number(event.version), type: event.type, payload: event.payload.toString(),
    content_type: event.contentType, headers: event.headers };
};

// A saga that all languages run; its step "charge" is a command.
const order = () => {
  const reserve = (call) => {
    call.setContext({ ...call.context, reserved: call.key });
    return "shelf 7";
  };
  const ship = (call) => [call.outputOf("reserve"), call.outputOf("charge")];
  return new Saga("order").step("reserve", reserve, { changesNothing: true })
    .step("charge", undefined, { command: "payments", changesNothing: true })
    .step("ship", ship, { changesNothing: true });
};

const begin = async () => {
  const { isNew } = await engine.sagas.start(order(), { n: 1, s: "ün" }, { id: "o-1" });
  await engine.runSaga(order());
  for (;;) {
    const { status, step, fingerprint } = await engine.sagas.find("order", "o-1");
    if (step === "charge") return { is_new: isNew, status, step, fingerprint };
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
};

const reply = async () => {
  for await (const message of engine.messages("payments", { group: "bank" })) {
    await engine.sagas.reply(message, { receipt: "ün" });
    await message.ack({ wait: true });
    return { key: message.key, payload: message.payload.toString() };
  }
};

const end = async () => {
  await engine.runSaga(order());
  const { saga, context } = await engine.sagas.result("order", "o-1");
  const done = (await engine.sagas.timeline("order", "o-1")).filter((one) => one.mark === "done");
  return { status: saga.status, context, done: done.map((one) => [one.step, one.output]) };
};

const roles = { publish, fail: () => consume(true), mend, handle: () => consume(false), append, follow, begin,
  reply, end };
const seen = await roles[role]();
await engine.close();
console.log(JSON.stringify(seen));
