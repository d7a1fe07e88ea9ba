// For tests: an engine on `memory:` whose time stands still until you move it.
//
//     const clock = new VirtualClock();
//     await using engine = await Engine.open("memory:", { clock });
//     await engine.publish("orders", order, { delayMs: 30_000 });
//     await clock.advanceAndSettle(engine, 30_000); // the handler has run

import { checkOptions } from "./arguments.js";
import type { Engine } from "./engine.js";
import { InvalidArgumentError } from "./errors.js";
import { type Handle, native } from "./native.js";
import { type Cancellable, throwIfAborted } from "./signals.js";
import { shown } from "./words.js";

/**
 * A clock that stands still until it is advanced: delays, retries, leases and timeouts of the next 30 seconds
 * all happen at once with `advance(30_000)`. Begins at 2026-01-01T00:00:00Z.
 */
export class VirtualClock {
  /** @internal */
  readonly native: Handle = native.makeClock();

  /** The time that stands still. */
  now(): Date {
    return new Date(native.clockNow(this.native));
  }

  /**
   * Moves the time forward by [0, 9e12] ms and wakes what waits for it; `engine.settleDown()` waits until that is done.
   * Throws InvalidArgumentError.
   */
  advance(ms: number): void {
    if (typeof ms === "number" && ms < 0) {
      throw new InvalidArgumentError(`ms is ${shown(ms)}, but time only goes forward; stepWall moves the wall clock back`);
    }
    native.clockAdvance(this.native, ms);
  }

  /** Moves the wall clock only, forward or back, as a time server would. */
  stepWall(ms: number): void {
    native.clockStepWall(this.native, ms);
  }

  /**
   * Advances by `ms` milliseconds and waits until nothing is due, receivable or running, at most `timeoutMs` (10 s unless
   * given) of real time. Rejects as `advance` throws, and as `engine.settleDown` does. With a `signal` that is aborted
   * already time stays where it is.
   */
  async advanceAndSettle(
    engine: Engine, ms: number, options: { timeoutMs?: number } & Cancellable = {},
  ): Promise<void> {
    checkOptions(options, "timeoutMs");
    throwIfAborted(options.signal);
    this.advance(ms);
    await engine.settleDown(options);
  }
}
