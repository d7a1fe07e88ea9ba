// The process that the tests start, kill and start again: child.mjs <mode> <url> <ledger> ...; it says "ready"
// when it has begun. What it did is in the ledger before anything else happens.

import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { createInterface } from "node:readline";

import { Engine, Saga } from "towline";

import { fail, member, QUICK_RETRY, until } from "./tools.mjs";
import { doWith } from "./holders.mjs";

const [mode, url, ledger, ...args] = process.argv.slice(2);

const note = (line) => appendFileSync(ledger, `${line}\n`);
const noted = (line) => existsSync(ledger) && readFileSync(ledger, "utf8").split("\n").includes(line);
const die = () => process.kill(process.pid, "SIGKILL");
const ready = () => console.log("ready");
const describe = (m) => `${m.value} attempt ${m.attempt} crashes ${m.crashes}`;

const open = (options = {}) => Engine.open(url, { leaseMs: 200, sweepIntervalMs: 50, ...options });

const modes = {
  /** Acknowledges one message and dies as soon as that is durable. */
  async ack() {
    const engine = await open();
    await engine.consume("orders", member({ ack: "manual" }), async (m) => {
      await m.ack({ wait: true });
      note(`acked ${m.value}`);
      die();
    });
    ready();
  },

  /** Handles "orders"; dies in the handler of every message whose payload begins with "kill". */
  async work() {
    const engine = await open();
    await engine.consume("orders", member({ prefetchCount: 10 }), (m) => {
      note(`start ${describe(m)}`);
      if (m.value.startsWith("kill")) die();
      note(`done ${describe(m)}`);
    });
    ready();
  },

  /** Redrives all dead letters of "orders". */
  async redrive() {
    const engine = await open();
    ready();
    await engine.redriveAll({ topic: "orders" });
    await engine.close();
  },

  /** Fires what is due, and handles nothing. */
  async fire() {
    await open();
    ready();
    setInterval(() => {}, 60_000);
  },

  /** Runs the key "charge" and dies inside, unless it was run before. */
  async once() {
    const engine = await open();
    ready();
    const result = await engine.once("charge", () => {
      const isFirst = !existsSync(ledger);
      note("run");
      if (isFirst) die();
      return "charged";
    }, { leaseMs: 200, waitMsMax: 10_000 });
    note(`result ${result}`);
    await engine.close();
  },

  /** Handles "effects" with an SQL effect; dies once at the point that the payload names. */
  async transaction() {
    const engine = await open();
    const point = (m, name) => {
      if (m.value.split(" ")[1] !== name || noted(`died ${m.value}`)) return;
      note(`died ${m.value}`);
      die();
    };
    await engine.consume("effects", member({ ack: "manual" }), (m) => {
      point(m, "begin");
      m.transaction((tx) => {
        tx.execute("INSERT INTO effect(name) VALUES (?1)", [m.value]);
        point(m, "effect");
        tx.publish("follow-ups", m.value);
        point(m, "publish");
        tx.complete("effects", m.value, "stored");
        point(m, "complete");
      });
      point(m, "end");
      note(`handled ${m.value}`);
    });
    ready();
  },

  /** Closes the engine inside a handler, and ends. */
  async close() {
    const engine = await open();
    await engine.consume("orders", member(), async (m) => {
      await engine.close();
      note(`closed ${describe(m)}`);
    });
    ready();
  },

  /** Ends with an open engine, and calls a closed one while it ends. */
  async exit() {
    const left = await open();
    let handled = 0;
    await left.consume("orders", member(), () => (handled += 1));
    const closed = await open();
    await closed.close();
    process.on("exit", () => {
      closed.publish("orders", "never").catch(() => {});
      left.publish("orders", "never").catch(() => {});
      console.log("ended");
    });
    await left.publish("orders", "p");
    await until(() => handled === 1);
    ready();
    process.exit();
  },

  /** Answers each message of "ping" by one to the topic that its payload names. */
  async echo() {
    const engine = await open();
    await engine.consume("ping", member(), (m) => engine.publish(m.value, "pong"));
    ready();
  },

  /**
   * Runs one saga of four steps, of which the last fails for good, to its end. Each effect is there once; at the
   * n-th point before or after one it dies.
   */
  async saga(id, diesAt) {
    const engine = await open();
    let points = 0;
    const point = () => {
      if ((points += 1) === Number(diesAt)) die();
    };
    const effect = (call) => {
      point();
      if (!noted(call.key)) note(call.key);
      point();
    };
    const options = { compensate: effect, retry: QUICK_RETRY, compensationRetry: QUICK_RETRY };
    const order = new Saga("order");
    for (const name of ["a", "b", "c"]) order.step(name, effect, options);
    order.step("d", (call) => {
      effect(call);
      fail("Never");
    }, { ...options, classify: { permanentTypes: ["Never"] } });
    await engine.runSaga(order);
    ready();
    await engine.sagas.start(order, undefined, { id });
    const { saga } = await engine.sagas.result("order", id);
    note(`order/${id}/ ${saga.status}`);
    await engine.close();
  },

  /** Holds one message of a topic by hand, and does with it what it is told, line by line. */
  async hold(topic, leaseMs) {
    const engine = await open({ leaseMs: Number(leaseMs) });
    let held;
    await engine.consume(topic, member({ ack: "manual" }), (m) => {
      held = m;
      console.log("held");
    });
    createInterface(process.stdin).on("line", async (what) => console.log(what, await doWith(held, what)));
    ready();
  },
};

await modes[mode](...args);
