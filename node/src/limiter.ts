// Permits: how much runs at once, for whatever has to be bounded beside consumers.

import { checkNames, checkOptions } from "./arguments.js";
import { InvalidArgumentError, TimeoutError } from "./errors.js";
import { type Handle, native } from "./native.js";
import type { LimiterStatistics } from "./records.js";
import { type Cancellable, cancelled, throwIfAborted } from "./signals.js";

/** Of a timer; longer waits are several timers. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** Of `acquire`. */
export interface AcquireOptions extends Cancellable {
  /** Permits at once, [1, limit]; 1 unless given. */
  weight?: number;
  /** How long to wait; for ever unless given. 0: only what is free now. */
  timeoutMs?: number;
}

interface Waiting {
  resolve(permit: Permit): void;
  reject(error: unknown): void;
  /** Ends the timer, and leaves the signal. */
  leave(): void;
}

/** What `acquire` gave. Give it back with `release()`, or by `using`; nothing else does. */
export class Permit {
  #release: (() => void) | undefined;

  /** @internal */
  constructor(release: () => void) {
    this.#release = release;
  }

  /** Whoever waits longest has it then. Idempotent. */
  release(): void {
    const release = this.#release;
    this.#release = undefined;
    release?.();
  }

  /** As `release`. */
  [Symbol.dispose](): void {
    this.release();
  }
}

/**
 * A limit on how much runs at once: `using permit = await limiter.acquire()`, or `limiter.run(work)`. Handed
 * over in the order of asking; a released permit goes straight to whoever waits longest, so nobody slips in
 * between and the limit is never exceeded. Of one event loop.
 */
export class Limiter {
  readonly #gate: Handle;
  readonly #waiting = new Map<number, Waiting>();
  #numbers = 0;

  /** `limit` [1, 2^31). `waitingMax` callers may wait, 10,000 unless given. Throws InvalidConfigError. */
  constructor(limit: number, options: { waitingMax?: number } = {}) {
    checkNames(options, "options", "waitingMax");
    this.#gate = native.makeGate(limit, options.waitingMax ?? 10_000, (number, error) => {
      this.#granted(number, error);
    });
  }

  /**
   * Rejects with TimeoutError, CancelledError, OverloadedError (too many wait), InvalidArgumentError (`weight`
   * is above the limit, or the limit sank below it).
   */
  async acquire(options: AcquireOptions = {}): Promise<Permit> {
    checkOptions(options, "weight", "timeoutMs");
    const { weight = 1, timeoutMs, signal } = options;
    if (timeoutMs !== undefined && (typeof timeoutMs !== "number" || Number.isNaN(timeoutMs))) {
      throw new InvalidArgumentError(`timeoutMs is ${String(timeoutMs)}, but must be a number of milliseconds`);
    }
    throwIfAborted(signal);
    return new Promise<Permit>((resolve, reject) => {
      const number = ++this.#numbers;
      let timer: NodeJS.Timeout | undefined;
      const abort = () => this.#giveUp(number, () => cancelled(signal as AbortSignal));
      const expire = () =>
        this.#giveUp(number, () => new TimeoutError(`no permit was free within ${timeoutMs} ms`));
      const wait = (ms: number) => {
        const next = () => (ms > TIMER_MS_MAX ? wait(ms - TIMER_MS_MAX) : expire());
        timer = setTimeout(next, Math.min(ms, TIMER_MS_MAX));
      };
      const leave = () => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", abort);
      };
      this.#waiting.set(number, { resolve, reject, leave });
      try {
        native.gateRequest(this.#gate, number, weight);
      } catch (error) {
        this.#waiting.delete(number);
        throw error;
      }
      if (!this.#waiting.has(number)) return; // granted already
      if (timeoutMs !== undefined && timeoutMs <= 0) return expire();
      signal?.addEventListener("abort", abort, { once: true });
      if (timeoutMs !== undefined && timeoutMs !== Infinity) wait(timeoutMs);
    });
  }

  /**
   * Runs `work` with a permit, which is given back however it ends. Rejects as `acquire`, and as `work` does; `timeoutMs`
   * and `signal` are of the wait for the permit.
   */
  async run<T>(work: () => T | Promise<T>, options: AcquireOptions = {}): Promise<T> {
    const permit = await this.acquire(options);
    try {
      return await work();
    } finally {
      permit.release();
    }
  }

  /** Never waits; undefined when none is free, or others wait already. */
  tryAcquire(weight = 1): Permit | undefined {
    const number = ++this.#numbers;
    return native.gateTryAcquire(this.#gate, number, weight) ? this.#permit(number) : undefined;
  }

  /** At once; after it sank nobody is stopped, and new ones wait until enough came back. */
  setLimit(limit: number): void {
    native.gateSetLimit(this.#gate, limit);
  }

  /** Counts since it was made, and what is there now. */
  statistics(): LimiterStatistics {
    return native.gateStatistics(this.#gate);
  }

  #permit(number: number): Permit {
    return new Permit(() => native.gateRelease(this.#gate, number));
  }

  #granted(number: number, error: unknown): void {
    const waiting = this.#waiting.get(number) as Waiting;
    this.#waiting.delete(number);
    if (error === undefined) waiting.resolve(this.#permit(number));
    else waiting.reject(error);
    waiting.leave();
  }

  #giveUp(number: number, why: () => Error): void {
    const waiting = this.#waiting.get(number);
    if (waiting === undefined || !native.gateWithdraw(this.#gate, number)) return; // it was granted
    this.#waiting.delete(number);
    waiting.reject(why());
    waiting.leave();
  }
}
