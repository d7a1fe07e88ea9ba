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
const AHEAD_MAX = 100_000; // as on the engine's side
const ON_THE_WAY = 2; // batches, each way: while one is written the next one is made
const WARM_UP = Math.min(20_000, count);

const engine = await Engine.open(url);
let published = 0;
let handled = 0;
const inBatches = handling === "batch" || handling === "consume";
const options = { group: "bench",
  ...(inBatches ? { concurrency: ON_THE_WAY } : { prefetchCount: BATCH, concurrency: BATCH }) };
/** Publishers that wait for the handlers. */
let goOn = [];
function noteHandled(more) {
  handled += more;
  if (goOn.length === 0 || published > handled + AHEAD_MAX) return;
  for (const resolve of goOn) resolve();
  goOn = [];
}
const handlers = {
  batch: (batch) => noteHandled(batch.length),
  each: () => noteHandled(1),
  promise: async () => noteHandled(1),
};
const consumer = inBatches
  ? await engine.consumeBatches("bench", options, handlers.batch)
  : await engine.consume("bench", options, handlers[handling]);

const moment = () => new Promise((resolve) => setTimeout(resolve, 1));

async function publish(size) {
  const value = Buffer.alloc(256, "p");
  const batch = Array(BATCH).fill({ topic: "bench", value });
  const end = published + size;
  const lane = async () => {
    while (published < end) {
      published += BATCH;
      const receipts = await engine.publishBatch(batch);
      if (receipts.some((one) => one.outcome !== "acked" || one.duplicate)) throw new Error("not published");
      while (published > handled + AHEAD_MAX) await new Promise((resolve) => goOn.push(resolve));
    }
  };
  await Promise.all(Array.from({ length: ON_THE_WAY }, lane));
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
