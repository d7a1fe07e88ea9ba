// Compiled, never run: what users write must type, and what is wrong must not.
import {
  Choreography, type ConsumerOptions, type ConversationFeed, Engine, type EngineOptions, LeaseLostError, Limiter,
  type Message, PayloadError, Retry, type RetryOptions, Saga, type SagaCall, type SagaDefinition, type SagaInfo,
  type SqlValue, TowlineError, type Topic, type Transaction,
} from "towline";
import { VirtualClock } from "towline/testing";

interface Order {
  id: string;
  total: number;
}

await using engine = await Engine.open("sqlite:orders.db", { clock: new VirtualClock(), leaseMs: 5_000 });
const orders: Topic<Order> = engine.topic<Order>("orders");
await orders.publish({ id: "1", total: 2 }, { key: "c", delayMs: 10, signal: AbortSignal.timeout(1_000) });
// @ts-expect-error: an order has a total
await orders.publish({ id: "1" });
// @ts-expect-error: the unit belongs to the name
await orders.publish({ id: "1", total: 2 }, { delay: 10 });
const consumer = await orders.consume({ group: "g", ordering: "key", retry: { maxAttempts: 3 } }, (m) => {
  const total: number = m.value.total;
  if (total > 1 && m.attempt === 1) throw new Retry("later", { afterMs: 10 });
  m.signal.throwIfAborted();
});
consumer.pause();
await consumer.close({ timeoutMs: 5, signal: AbortSignal.timeout(10) });
const settings: ConsumerOptions = { group: "g", ordering: "partition", start: "earliest" };
await engine.consume("orders", { ...settings, start: new Date(0), signal: AbortSignal.timeout(1) }, () => {});
const seeded: EngineOptions = { seed: 2n ** 62n };
// @ts-expect-error: its name here is ordering
const renamed: ConsumerOptions = { order: "key_ordered" };
// @ts-expect-error: only C++ can be given a function
const custom: RetryOptions = { kind: "custom" };
console.log(seeded, renamed, custom, new PayloadError("x").outcome);
// @ts-expect-error: no such order
await engine.consume("orders", { group: "g", ordering: "keys" }, () => {});
for await (const m of orders.messages({ group: "h" })) {
  const typed: Message<Order> = m;
  typed.ack();
}
const result: { a: number } = await engine.once("k", async () => ({ a: 1 }));
const code: string = new LeaseLostError("x").code + result.a;
engine.events.on("alert", (alert) => console.log(alert.topic, code));
engine.events.on("failed", (why: unknown, message, from) => console.log(why, message.id, from.statistics().failed));
engine.events.on("error", (met) => console.log(met.message));
// @ts-expect-error: nothing of this name is told
engine.events.on("complete", () => {});
const error: TowlineError | undefined = (await engine.publishBatch([{ topic: "a", value: 1 }]))[0]?.error;
console.log(error?.retryable);

await orders.publishBatch([{ value: { id: "1", total: 2 }, key: "c" }]);
// @ts-expect-error: an order has a total
await orders.publishBatch([{ value: { id: "1" } }]);
await orders.consumeBatches({ group: "b", batchCountMax: 100 }, async (batch) => {
  const totals: number[] = batch.map((m) => m.value.total);
  const durable: Promise<void> = batch[0]!.ack({ wait: true, signal: AbortSignal.timeout(10) });
  // @ts-expect-error: there is no wait that it could end
  batch[0]!.ack({ signal: AbortSignal.timeout(10) });
  const atOnce: void = batch[1]?.nak({ afterMs: 10 });
  await durable;
  console.log(totals, atOnce);
});
await orders.consume({ group: "t" }, (m) => {
  m.transaction((tx) => {
    tx.append("order-1", [{ type: "order.paid", value: m.value }], { expected: 1n });
    const rows: SqlValue[][] = tx.execute("SELECT ?1, ?2", [m.value.total, m.attempt > 1]);
    tx.publish("bills", rows.length, { key: m.key });
    // @ts-expect-error: no SQL value
    tx.execute("SELECT ?1", [{}]);
  });
  m.transaction((tx) => tx.publish("bills", 1));
  const body = (tx: Transaction): void => tx.complete("s", "k", 1);
  m.transaction(body);
  // @ts-expect-error: every writer would wait
  m.transaction(async (tx) => void tx.publish("bills", 1));
  // @ts-expect-error: every writer would wait
  m.transaction((tx) => Promise.resolve(tx));
});
const paying = new Saga<Order>("paying", { version: 2, deadlineMs: 60_000 })
  .step("charge", async (call: SagaCall<Order>) => {
    call.signal.throwIfAborted();
    call.setContext({ ...call.context, total: call.context.total + 1 });
    // @ts-expect-error: an order has a total
    call.setContext({ id: "1" });
    return { receipt: call.key };
  }, {
    compensate: (call) => console.log(call.outputOf<{ receipt: string }>("charge")?.receipt, call.cause),
    timeoutMs: 1_000,
    retry: { maxAttempts: 3 },
  })
  .parallel([{ name: "a", execute: () => {}, changesNothing: true }])
  .step("ship", undefined, { command: "shipping", pivot: true });
// @ts-expect-error: the unit belongs to the name
paying.step("b", () => {}, { timeout: 1 });
{
  await using runner = await engine.runSaga(paying, { signal: AbortSignal.timeout(10) });
  const started: { id: string; isNew: boolean } = await engine.sagas.start(paying, { id: "1", total: 2 }, { id: "p" });
  // @ts-expect-error: an order has a total
  await engine.sagas.start(paying, { id: "1" });
  const sum: number = (await engine.sagas.result<Order>("paying", started.id)).context.total;
  const infos: SagaInfo[] = (await engine.sagas.list({ status: "stuck", countMax: 10 })).items;
  // @ts-expect-error: no such status
  await engine.sagas.force("paying", "p", "running");
  console.log(sum, infos[0]?.status, (await runner.statistics()).completed);
}
const flowing = new Choreography("flowing", "order.placed", { version: 2, earlyEventTtlMs: 60_000, begins: true })
  .on("order.placed", (call: SagaCall<Order>) => {
    const total: number = call.context.total;
    return { total };
  }, "stock.reserved", "stock.refused", { name: "reserve", timeoutMs: 1_000, retry: { maxAttempts: 3 } })
  .expect("stock.reserved", "payment.done", "payment.failed", { timeoutMs: 60_000 })
  .on<{ receipt: number }>("payment.done", async (call) => call.context.receipt, "order.shipped");
// @ts-expect-error: what is expected has a time
flowing.expect("stock.reserved", "payment.done", "payment.failed");
// @ts-expect-error: an order has a total
flowing.on("order.placed", (call: SagaCall<Order>) => call.context.sum, "order.added");
// @ts-expect-error: there is nothing to compensate
flowing.on("order.placed", () => {}, "order.noted", "", { compensate: () => {} });
{
  await using runner = await engine.runSaga(flowing);
  const definitions: SagaDefinition[] = [paying, flowing];
  await engine.sagas.start(flowing, { id: "1", total: 2 }, { id: "f" });
  const { topic, value, ...rest } = engine.sagas.eventMessage("payment.done", "f", { receipt: 7 });
  await engine.publish(topic, value, rest);
  const published: string = (await engine.sagas.publishEvent("payment.done", "f", { receipt: 7 })).outcome;
  const events: string[] = (await engine.sagas.timeline("flowing", "f")).map((one) => one.event);
  const { early, late, strangers } = await runner.statistics();
  console.log(definitions.map((one) => one.visualize()), published, events, early + late + strangers);
}
await engine.consume("shipping", { group: "ships" }, (m) => engine.sagas.reply(m, { at: 1 }));
const limiter = new Limiter(4, { waitingMax: 10 });
{
  using permit = await limiter.acquire({ weight: 2, timeoutMs: 10, signal: AbortSignal.timeout(10) });
  permit.release();
}
const answer: number = await limiter.run(async () => 42);
console.log(answer, limiter.statistics().inUse);

await using follower = await engine.eventStore.subscribe<Order>("reader", { types: ["order.*"], fromEnd: true });
for await (const batch of follower) {
  const totals: number[] = batch.map((event) => event.value.total);
  const place: bigint = batch[0]!.position;
  await follower.checkpoint(place, { signal: AbortSignal.timeout(totals.length) });
}
const { items: caughtUp } = await engine.conversations.reconnect<Order>("ann", "phone", { countMax: 10 });
const feed: ConversationFeed<Order> = engine.conversations.feed("ann", "phone");
for (const { messages, gap } of caughtUp) {
  const shown: number[] = (await feed.offer(messages[0]!)).messages.map((message) => message.value.total);
  const oldest: bigint | undefined = gap?.oldest;
  await engine.conversations.acknowledge("ann", "phone", "room", oldest ?? shown.length);
}
// @ts-expect-error: somebody sends a message
await engine.conversations.append("room", { value: 1 });
// @ts-expect-error: an event has a type
await engine.eventStore.append("order-1", [{ value: 1 }]);
// @ts-expect-error: a name, under which the place is kept
await engine.eventStore.streamTo("events.{type}", { intervalMs: 5 });
const { next }: { next: bigint } = await engine.eventStore.read("order-1", { from: 1, countMax: 10 });
console.log(next);
