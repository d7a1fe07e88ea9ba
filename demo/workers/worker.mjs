// A worker of the demo in Node; ../worker.cpp and worker.py are the same in their languages, and README.md says
// what all of them do.
//
// For every delivery: the start is written to the ledger, the handler works for a moment, then it books the
// order in one transaction with the acknowledgement, and only after that transaction has committed the effect
// is written to the ledger. Orders that have a saga start it before they are booked.

import { linkSync, openSync, unlinkSync, writeFileSync, writeSync } from "node:fs";
import { setTimeout as wait } from "node:timers/promises";
import { parseArgs } from "node:util";

import { ClosedError, Engine, LeaseLostError, Reject, Saga, TowlineError } from "towline";

const INSERT_EFFECT =
  "INSERT INTO effects (order_number, order_id, customer, total_cents, attempt, payload_hash, worker, at_us) " +
  "VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
const TEXTS = ["store", "ledger", "world", "name", "topic", "group"];
const NUMBERS = ["lease-ms", "concurrency", "attempts", "retry-ms", "retry-max-ms", "work-ms", "seed"];

/** The failure that the plan asks for. */
class PaymentConnectionLost extends Error {
  get name() {
    return "PaymentConnectionLost";
  }
}

/** A transaction that failed and was not to. */
class StoreUnavailable extends Error {
  get name() {
    return "StoreUnavailable";
  }
}

/** The failure of a step that the plan asks for. */
class ServiceUnavailable extends Error {
  get name() {
    return "ServiceUnavailable";
  }
}

function parse() {
  const options = Object.fromEntries([...TEXTS, ...NUMBERS].map((name) => [name, { type: "string" }]));
  const { values } = parseArgs({ options });
  for (const name of [...TEXTS, ...NUMBERS]) {
    if (values[name] === undefined) throw new Error(`--${name} is missing`);
  }
  for (const name of NUMBERS) values[name] = Number(values[name]);
  return values;
}

/**
 * Wall-clock time in microseconds, which Date.now() does not tell: the fine clock, set by a tick of the coarse
 * one. It may be late by the shortest of a few looks at both, and never early.
 */
function makeClock() {
  const fine = () => Number(process.hrtime.bigint() / 1000n);
  let best = { gap: Infinity, offset: 0 };
  for (let ticks = 0, before = fine(), ms = Date.now(); ticks < 5;) {
    const now = Date.now();
    const after = fine();
    if (now !== ms) {
      if (after - before < best.gap) best = { gap: after - before, offset: now * 1000 - before };
      ticks += 1;
    }
    ms = now;
    before = after;
  }
  return () => fine() + best.offset;
}

/** FNV-1a, as the signed 64 bits that SQLite stores. */
function hashOf(payload) {
  let state = 14695981039346656037n;
  for (const byte of payload) state = BigInt.asUintN(64, (state ^ BigInt(byte)) * 1099511628211n);
  return BigInt.asIntN(64, state);
}

/** Whole numbers that a number cannot hold become texts. */
function readOrder(text) {
  return JSON.parse(text.replace(/"(?:[^"\\]|\\.)*"|-?\d{16,}(?![\d.eE])/g, (token) =>
    token.startsWith('"') ? token : `"${token}"`));
}

const options = parse();
const wallUs = makeClock();
// A file of its own for each life of a process: nobody writes behind half a line.
const ledger = openSync(options.ledger, "ax", 0o600);

function note(what, number, { attempt }, more = {}) {
  const { payloadHash, ...rest } = more;
  const record = JSON.stringify({ what, order: number, at_us: wallUs(), attempt, ...rest });
  const line = payloadHash === undefined ? record : `${record.slice(0, -1)},"payload_hash":${payloadHash}}`;
  try {
    if (writeSync(ledger, `${line}\n`) === Buffer.byteLength(line) + 1) return;
  } catch (error) {
    console.error(`the ledger cannot be written: ${error.message}`);
  }
  process.exit(3); // nothing that happens afterwards could be judged
}

/** Half to one and a half of `work-ms`: what a call to a payment service would take. */
function work(number, attempt) {
  const spread = (Math.imul(options.seed + number * 131 + attempt, 2654435761) >>> 0) / 2 ** 32;
  return wait(options["work-ms"] * (0.5 + spread));
}

function book(message, number, payloadHash, mustFail) {
  const order = readOrder(message.payload.toString());
  const row = [number, String(order.order_id ?? order.id), String(order.customer_id ?? order.customer),
    BigInt(order.total_cents ?? 0), message.attempt, payloadHash, options.name, wallUs()];
  try {
    message.transaction((transaction) => {
      transaction.execute(INSERT_EFFECT, row);
      if (mustFail) throw new PaymentConnectionLost("the payment was declined after the order was booked");
    });
  } catch (error) {
    if (error instanceof PaymentConnectionLost) {
      note("fail", number, message, { text: "inside the transaction" });
      throw error;
    }
    if (error instanceof LeaseLostError || error instanceof ClosedError) {
      return note("void", number, message, { text: error.message });
    }
    note("trouble", number, message, { text: String(error) });
    throw error instanceof TowlineError ? new StoreUnavailable(error.message, { cause: error }) : error;
  }
  note(mustFail ? "trouble" : "effect", number, message);
}

let drafts = 0;

/**
 * The outside world, a folder with a file for each effect, named after its key. All of it or nothing, also if the
 * process dies here. False: it was done under this key before.
 */
function takeEffect(number, part, key, atUs) {
  const draft = `${options.world}/.${options.name}-${drafts++}`;
  writeFileSync(draft, JSON.stringify({ order: number, part, key, worker: options.name, at_us: atUs }));
  try {
    linkSync(draft, `${options.world}/${key.replaceAll("/", "~")}`);
    return true;
  } catch (error) {
    if (error.code !== "EEXIST") throw error;
    return false;
  } finally {
    unlinkSync(draft);
  }
}

/** A step of a saga, or what undoes it. */
async function runStep(call) {
  const { order: number, refused_at: refusedAt, refused_late: refusedLate, fails_once: failsOnce } = call.context;
  const part = `${call.step}/${call.phase}`;
  const refused = part === `${refusedAt}/execute`;
  await work(number, call.attempt);
  if (failsOnce === part && call.attempt === 1) {
    note("step_fail", number, call, { key: call.key });
    throw new ServiceUnavailable("the service did not answer");
  }
  if (!refused || refusedLate) {
    const atUs = wallUs();
    const isNew = takeEffect(number, part, call.key, atUs);
    note("step", number, call, { key: call.key, at_us: atUs, duplicate: !isNew });
  }
  if (refused) {
    note("step_fail", number, call, { key: call.key });
    throw new Reject("the order is refused");
  }
}

// The death of a process counts as an attempt, and processes are killed here.
const stepRetry = { maxAttempts: 20, initialDelayMs: options["retry-ms"] };
const saga = new Saga("order", { concurrency: options.concurrency });
for (const step of ["reserve", "charge", "ship"]) {
  saga.step(step, runStep, { compensate: runStep, retry: stepRetry, compensationRetry: stepRetry });
}

/**
 * A process that dies before the order is booked leaves the message, and so the start is repeated, which changes
 * nothing.
 */
async function startSaga(message, number) {
  const context = message.headers["saga-context"];
  if (context === undefined) return;
  // As bytes: the start is the same in every language.
  const { isNew } = await engine.sagas.start(saga, Buffer.from(context), { id: String(number) });
  note("saga", number, message, { duplicate: !isNew });
}

async function handle(message) {
  const number = Number(message.headers["order-number"]);
  const mustFail = message.attempt <= Number(message.headers["planned-failures"]);
  const payloadHash = hashOf(message.payload);
  note("start", number, message, { crashes: message.crashes, redelivered: message.redelivered, payloadHash });
  await work(number, message.attempt);
  if (mustFail && number % 2 === 0) {
    note("fail", number, message, { text: "before the transaction" });
    throw new PaymentConnectionLost("the payment service did not answer");
  }
  await startSaga(message, number);
  book(message, number, payloadHash, mustFail);
}

const engine = await Engine.open(options.store, { name: options.name, leaseMs: options["lease-ms"] });
engine.events.on("log", ({ station, text }) => console.error(`${station}: ${text}`));
process.once("SIGTERM", async () => {
  const stuck = await engine.close({ timeoutMs: 5000 });
  if (stuck > 0) {
    console.error(`${stuck} handlers did not end in time`);
    process.exitCode = 1;
  }
});
await engine.runSaga(saga);
await engine.consume(options.topic, {
  group: options.group,
  name: options.name,
  concurrency: options.concurrency,
  ordering: "key",
  handlerTimeoutMs: 20_000,
  retry: {
    maxAttempts: options.attempts, initialDelayMs: options["retry-ms"], delayMsMax: options["retry-max-ms"],
  },
  // The planned failures are the orders' and not the payment service's: intake must not pause for them.
  breaker: { enabled: false },
  // An order may be in the hands of every worker that is killed and still must not count as the killer.
  deadLetters: { maxCrashes: 20 },
}, handle);
