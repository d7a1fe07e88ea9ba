// What goes over the boundary goes in batches.

import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";

import { here, run } from "./support.mjs";

/** What was called how often while `text` ran `measured(work)`, and what it printed beside. */
async function crossingsOf(text) {
  const environment = { ...process.env, TOWLINE_NODE_COUNTED: path.resolve(process.env.TOWLINE_NODE_BINARY),
    TOWLINE_NODE_BINARY: path.join(here, "crossings.cjs") };
  const { code, out, err } = await run(process.execPath, ["--input-type=module", "--eval", `
    import { Engine } from "towline";
    import { until } from "./support.mjs";
    const engine = await Engine.open("memory:");
    const measured = async (work) => {
      for (const name of Object.keys(crossings)) delete crossings[name];
      await work();
      console.log(JSON.stringify(crossings));
    };
    const messages = Array.from({ length: 1_000 }, (_, value) => ({ topic: "a", value, key: "k" + value }));
    ${text}
    await engine.close();`], { env: environment });
  assert.deepEqual([code, err], [0, ""]);
  return JSON.parse(out);
}

const sumOf = (counts) => Object.values(counts).reduce((sum, one) => sum + one, 0);

test("a thousand publishes of one turn of the loop go down in a few calls", async (t) => {
  const counts = await crossingsOf(`
    await measured(() => Promise.all(messages.map(({ topic, value, key }) => engine.publish(topic, value, { key }))));
    if ((await engine.statistics()).published !== 1_000) throw new Error("not published");`);
  t.diagnostic(JSON.stringify(counts));
  assert.ok(counts.publish >= 1 && counts.publish <= 10, JSON.stringify(counts));
  assert.ok(sumOf(counts) <= 200, JSON.stringify(counts));
});

test("a thousand messages come up, and their outcomes go down, in a few calls", async (t) => {
  for (const end of ["", "throw new Error('why');"]) {
    const counts = await crossingsOf(`
      let [handled, leave] = [0];
      const all = new Promise((resolve) => (leave = resolve));
      const options = { group: "g", concurrency: 1_000, prefetchCount: 1_000, retry: { maxAttempts: 1 },
        breaker: { enabled: false } };
      const consumer = await engine.consume("a", options, async (m) => {
        m.value;
        if ((handled += 1) === 1_000) leave();
        await all; // their outcomes are of one turn
        ${end}
      });
      await measured(async () => {
        await engine.publishBatch(messages);
        await until(() => handled === 1_000);
        await engine.settleDown();
      });
      const { acked, deadLettered } = consumer.statistics();
      if (acked + deadLettered !== 1_000) throw new Error(acked + " " + deadLettered);`);
    t.diagnostic(JSON.stringify(counts));
    assert.ok(counts.finish >= 1 && counts.finish <= 10, JSON.stringify(counts));
    assert.ok(sumOf(counts) <= 300, JSON.stringify(counts));
  }
});
