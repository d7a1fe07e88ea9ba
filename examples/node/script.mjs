// A plain script: reminders that are sent later, one that fails until somebody mends it, and what is left when
// all is done. It runs in a second, because its clock is a virtual one; leave out `clock` and it takes a day.
//
//     node script.mjs

import { Engine } from "towline";
import { VirtualClock } from "towline/testing";

const HOUR = 3_600_000;
const clock = new VirtualClock();
const engine = await Engine.open("memory:", { clock });
const addresses = { ada: "ada@example.com" };

await engine.consume("reminders", { group: "mail", retry: { maxAttempts: 2, kind: "fixed", initialDelayMs: HOUR, delayMsMax: HOUR } }, (m) => {
  const address = addresses[m.value.to];
  if (address === undefined) throw new Error(`no address of ${m.value.to}`);
  console.log(`${clock.now().toISOString()} to ${address}: ${m.value.text}`);
});

await engine.publish("reminders", { to: "ada", text: "stand up" }, { delayMs: HOUR });
await engine.publish("reminders", { to: "bob", text: "sit down" }, { delayMs: 2 * HOUR });
const { id } = await engine.publish("reminders", { to: "ada", text: "never mind" }, { delayMs: 3 * HOUR });
console.log("cancelled:", await engine.cancel(id));

for (let hour = 0; hour < 24; hour += 1) await clock.advanceAndSettle(engine, HOUR);

const [entry] = (await engine.deadLetters({ status: "pending" })).items;
console.log(`dead letter after ${entry.attempt} attempts: ${entry.errorMessage}`);
addresses.bob = "bob@example.com";
await engine.redrive(entry.id);
await engine.settleDown();
console.log("pending:", (await engine.statistics()).deadLetters.pending);
await engine.close();
