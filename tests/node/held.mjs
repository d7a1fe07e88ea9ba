// What a process holds, for programs that must give back all of it; they run with --expose-gc.

import { readdirSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

function held() {
  return {
    handles: process.getActiveResourcesInfo().length,
    files: readdirSync("/proc/self/fd").length,
    threads: readdirSync("/proc/self/task").length,
    ...process.memoryUsage(),
  };
}

/** All that is held, after collections. */
export async function heldNow() {
  for (let i = 0; i < 5; i += 1) {
    gc();
    await sleep(1); // sleeps: finalizers run on the loop
  }
  return held();
}

// Pages and the heap's own tables come and go; what 10,000 calls leave behind is more.
const ROOM = { heapTotal: Infinity, arrayBuffers: 1_000_000, heapUsed: 1_000_000, external: 1_000_000, rss: 30_000_000 };

/**
 * What is held beyond `before`: nothing as soon as all came back, as threads that ended are listed for a while
 * and memory is collected when it is; after 20 s, by name and number, what did not come back.
 */
export async function notGivenBack(before) {
  const deadline = Date.now() + 20_000;
  for (;;) {
    const more = Object.entries(await heldNow())
      .map(([name, value]) => [name, value - before[name]])
      .filter(([name, grown]) => grown > (ROOM[name] ?? 0));
    if (more.length === 0 || Date.now() > deadline) return JSON.stringify(Object.fromEntries(more));
    await sleep(20); // sleeps: between two looks
  }
}
