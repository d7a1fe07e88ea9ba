// The life cycle of messages in one Node process: published in batches of 1,000, handled at once by a consumer
// that only counts, until the last acknowledgement is durable. Started by bench_towline, which reads one line
// of JSON.
//
//     node flow.mjs <url> batch|each|promise|consume <count>
//
//   batch    a batch handler
//   each     a handler per message that returns nothing, 1,000 at once
//   promise  a handler per message that returns a promise, 1,000 at once
//   consume  a batch handler; somebody else publishes, once this one has said "ready"

import { Engine } from "towline";

const [url, handling, countText] = process.argv.slice(2);
const count = Number(countText);
const BATCH = 1_000;
const AHEAD_MAX = 10_000;
const WARM_UP = Math.min(20_000, count);

const engine = await Engine.open(url);
let published = 0;
let handled = 0;
const options = { group: "bench", ...(handling === "batch" || handling === "consume"
  ? {} : { prefetchCount: BATCH, concurrency: BATCH }) };
const handlers = {
  batch: (batch) => { handled += batch.length; },
  each: () => { handled += 1; },
  promise: async () => { handled += 1; },
};
const consumer = options.prefetchCount === undefined
  ? await engine.consumeBatches("bench", options, handlers.batch)
  : await engine.consume("bench", options, handlers[handling]);

/** Gives the event loop a turn, or a moment. */
const turn = () => new Promise((resolve) => setImmediate(resolve));
const moment = () => new Promise((resolve) => setTimeout(resolve, 1));

async function publish(size) {
  const value = Buffer.alloc(256, "p");
  const batch = Array(BATCH).fill({ topic: "bench", value });
  for (const end = published + size; published < end; published += BATCH) {
    while (published > handled + AHEAD_MAX) await turn();
    const receipts = await engine.publishBatch(batch);
    if (receipts.some((one) => one.outcome !== "acked" || one.duplicate)) throw new Error("not published");
  }
}

async function acknowledged(size) {
  const { acked } = consumer.statistics();
  return async () => {
    while (consumer.statistics().acked - acked < size) await moment();
  };
}

async function measure(size, work) {
  const done = await acknowledged(size);
  const cpu = process.cpuUsage();
  const started = performance.now();
  await work(size);
  await done();
  const seconds = (performance.now() - started) / 1e3;
  const { user, system } = process.cpuUsage(cpu);
  return { per_second: size / seconds, cpu_us: (user + system) / size };
}

if (handling === "consume") {
  console.log("ready");
  while (handled === 0) await moment();
  console.log(JSON.stringify(await measure(count - handled, () => {})));
} else {
  await measure(WARM_UP, publish);
  console.log(JSON.stringify(await measure(count, publish)));
}
await engine.close();
