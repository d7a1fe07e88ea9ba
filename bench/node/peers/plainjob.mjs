// plainjob by its fastest documented way: addMany of 1,000 jobs at once, a worker in the same process, no log. It
// comes with synchronous = NORMAL, which survives the death of the process but no power loss; `full` gives it the
// durability that the others of the run have. One worker: more of them gain nothing, since each takes its job, runs it
// and notes its end with synchronous calls of one connection on one event loop; two and four were as fast or slower.
//
//     node plainjob.mjs <file> <count> full|normal

import Database from "better-sqlite3";
import { better, defineQueue, defineWorker } from "plainjob";

import { measured } from "./measured.mjs";

const [file, countText, durability] = process.argv.slice(2);
const BATCH = 1_000;
const nothing = () => {};
const logger = { error: console.error, warn: console.error, info: nothing, debug: nothing };
const connection = better(new Database(file));
const queue = defineQueue({ connection, logger, serializer: (data) => data });
if (durability === "full") connection.pragma("synchronous = FULL");

let handled = 0;
const worker = defineWorker("bench", () => { handled += 1; }, { queue, logger, pollIntervall: 1 });
const jobs = Array(BATCH).fill("p".repeat(256));
const working = worker.start();

await measured(Number(countText), async (count) => {
  const before = handled;
  for (let added = 0; added < count; added += BATCH) {
    queue.addMany("bench", jobs);
    // The worker goes on when this one waits.
    while (before + added - handled > BATCH) await new Promise((resolve) => setImmediate(resolve));
  }
  while (handled - before < count) await new Promise((resolve) => setImmediate(resolve));
});
await worker.stop();
await working;
queue.close();
