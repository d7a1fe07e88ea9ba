// A worker that stands in the way, or does not, while another process works on the same file. Started by
// bench_towline: says "ready", and in the end how often its two messages were handled.
//
//     node blocked.mjs <url> <topic> blocked|idle
//
//   blocked  its handler keeps the event loop from turning, without using a processor, until its input ends
//   idle     its loop turns, and nothing comes for it

import { readSync, writeSync } from "node:fs";

import { Engine } from "towline";

const [url, topic, how] = process.argv.slice(2);
const ready = () => writeSync(1, "ready\n");
const engine = await Engine.open(url);
let handled = 0;
const mine = how === "blocked" ? topic : "idle";
const consumer = await engine.consume(mine, { group: "bench" }, () => {
  handled += 1;
  if (how !== "blocked" || handled > 1) return;
  ready();
  readSync(0, Buffer.alloc(1)); // holds the event loop: nothing else of this process runs in JavaScript
});
// One for the handler and one that is held for it: it takes no more, whoever publishes.
await engine.publishBatch(Array.from({ length: 2 }, () => ({ topic: mine, value: Buffer.alloc(256) })));
while (consumer.statistics().acked < 2) await new Promise((resolve) => setTimeout(resolve, 1));
if (how === "idle") {
  ready();
  for await (const _ of process.stdin);
}
await engine.close();
console.log(handled);
