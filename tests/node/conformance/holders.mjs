// Holders of a message whose time stands still while that of the others goes on, as for a process that was
// suspended: it renews no lease and no timer of it fires. Where several processes share a store it is one that
// is stopped by a signal; in memory it is an engine with a clock of its own.

import { VirtualClock } from "towline/testing";

import { LEASE_MS, member, until } from "./tools.mjs";

/** Holds one message of the topic, by hand. */
export function holderOn(stage, topic) {
  return stage.provider.shared ? ChildHolder.start(stage, topic) : ClockHolder.start(stage, topic);
}

class ChildHolder {
  static async start(stage, topic) {
    const holder = new ChildHolder();
    holder.child = await stage.child("hold", topic, String(LEASE_MS));
    holder.rival = await stage.open({ leaseMs: LEASE_MS });
    await holder.rival.publish(topic, "p");
    await holder.#line(/^held$/m);
    return holder;
  }
  /** Not in the middle of a write, or nobody else could write. */
  async freeze() {
    for (;;) {
      this.child.child.kill("SIGSTOP");
      const refusal = await this.rival.once(`frozen-${this.child.child.pid}`, () => 1).catch((error) => error);
      if (refusal.code !== "ERR_TIMEOUT") return;
      this.thaw();
    }
  }
  /** The others see its lease end. */
  lapse() {}
  thaw() {
    this.child.child.kill("SIGCONT");
  }
  /** Does something with the message; "ok", or the code of the error. */
  async ask(what) {
    this.child.child.stdin.write(`${what}\n`);
    return (await this.#line(new RegExp(`^${what} (.+)$`, "m")))[1];
  }
  #line(pattern) {
    return until(() => pattern.exec(this.child.out()), `the holder says ${pattern}`);
  }
}

class ClockHolder {
  static async start(stage, topic) {
    const holder = new ClockHolder();
    holder.clocks = { mine: new VirtualClock(), theirs: new VirtualClock() };
    stage.keepWith(holder.clocks.theirs);
    holder.rival = await stage.open({ leaseMs: LEASE_MS, clock: holder.clocks.theirs });
    holder.engine = await stage.open({ leaseMs: LEASE_MS, clock: holder.clocks.mine });
    await holder.engine.consume(topic, member({ ack: "manual" }), (m) => void (holder.message = m));
    await holder.rival.publish(topic, "p");
    await until(() => holder.message !== undefined, "a message to hold");
    return holder;
  }
  async freeze() {}
  lapse() {
    this.clocks.theirs.advance(LEASE_MS + 1);
  }
  thaw() {
    this.clocks.mine.advance(LEASE_MS + 1);
  }
  ask(what) {
    return doWith(this.message, what);
  }
}

/** What a holder can be asked to do. */
export async function doWith(message, what) {
  const actions = {
    ack: () => message.ack({ wait: true }),
    nak: () => message.nak(),
    extend: () => message.extend(1_000),
    progress: () => message.progress("still here"),
    signal: () => until(() => message.signal.aborted, "the signal"),
  };
  try {
    await actions[what]();
    return "ok";
  } catch (error) {
    return error.code ?? String(error);
  }
}
