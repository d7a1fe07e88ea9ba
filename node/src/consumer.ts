// A running consumer, as its user holds it.

import { checkClosing, checkOptions } from "./arguments.js";
import type { EngineEvents, OutgoingMessage } from "./calls.js";
import { ClosedError, InvalidArgumentError } from "./errors.js";
import { type Handle, native, type Outcome, type Port } from "./native.js";
import type { ConsumerStatistics, Receipt } from "./records.js";
import { type Cancellable, type CloseOptions, orAborted } from "./signals.js";
import type { Sink } from "./sinks.js";

/**
 * What the parts of an engine ask of it.
 * @internal
 */
export interface Host {
  call<T>(signal: AbortSignal | undefined, name: keyof Port, ...values: unknown[]): Promise<T>;
  /** The handler of this delivery has returned. */
  finish(number: number, outcome: Outcome): void;
  /** All of them are acknowledged. */
  finishAll(numbers: readonly number[]): void;
  publish(message: OutgoingMessage, options: Cancellable): Promise<Receipt>;
  /** What came of the events that are out for this one. */
  finishEvents(number: number, error: readonly [type: string, message: string] | undefined): void;
  /** For a new sink. */
  newNumber(): number;
  /** `start`s what fills the sink; `stop` is called when the signal is aborted. */
  attach(sink: Sink, signal: AbortSignal | undefined, start: () => Promise<void>, stop: () => void): Promise<void>;
  /** What comes for it goes nowhere from now on. */
  forget(closed: { readonly number: number }): void;
  /** Throws when the engine is closed. */
  check(): void;
  /** Whether somebody listens. */
  isHeard(event: keyof EngineEvents): boolean;
  /** To whoever listens, behind what is done now. */
  tell<E extends keyof EngineEvents>(event: E, ...args: EngineEvents[E]): void;
  /** Whether the caller is one of its handlers, which nobody must wait for there. */
  readonly isInHandler: boolean;
}

/** A running consumer. Closing the engine closes it; so does the signal that it was given. */
export class Consumer {
  /** @internal */
  readonly number: number;
  /** @internal */
  handle: Handle | undefined;
  /** @internal */
  protected readonly host: Host;
  #closing: Promise<number> | undefined;

  /** @internal */
  constructor(host: Host, number: number) {
    this.host = host;
    this.number = number;
  }

  /** Takes in nothing more; what is in flight goes on. */
  pause(): void {
    native.consumerPause(this.#open());
  }
  /** Takes in again, after `pause` or `drain`. Throws ClosedError. */
  resume(): void {
    native.consumerResume(this.#open());
  }
  /** [1, 4096] */
  setConcurrency(concurrency: number): void {
    native.consumerSetConcurrency(this.#open(), concurrency);
  }
  /** Counts since it began. Throws ClosedError. */
  statistics(): ConsumerStatistics {
    return native.consumerStatistics(this.#open());
  }

  /** Waits until nothing is in flight, then leaves it paused. Rejects with TimeoutError. */
  async drain(options: { timeoutMs?: number } & Cancellable = {}): Promise<void> {
    checkOptions(options, "timeoutMs");
    const handle = this.#open();
    if (this.host.isInHandler) {
      throw new InvalidArgumentError("drain: a handler cannot wait until no handler runs; use pause()");
    }
    await this.host.call(options.signal, "drainConsumer", handle, options.timeoutMs ?? 30_000);
    this.host.tell("drained", this);
  }

  /**
   * Stops intake, waits for its handlers up to `timeoutMs` (unless given: the engine's drainTimeoutMs), and
   * gives back the rest. Resolves to the number of handlers that have not ended. Idempotent. Inside a handler
   * of the engine it resolves at once, and the rest happens later. Aborting `signal` ends the wait alone: the closing
   * goes on.
   */
  async close(options: CloseOptions = {}): Promise<number> {
    checkClosing(options);
    if (this.#closing === undefined) {
      const handle = this.#open();
      this.#closing = this.host
        .call<number>(undefined, "closeConsumer", handle, options.timeoutMs)
        .finally(() => this.host.forget(this));
    } else if (options.timeoutMs !== undefined) {
      // Hurries the one who closes already.
      this.host.call(undefined, "closeConsumer", this.handle, options.timeoutMs).catch(() => {});
    }
    if (!this.host.isInHandler) return orAborted(this.#closing, options.signal);
    this.#closing.catch(() => {});
    return 0;
  }

  /** Closes, as `close` without options. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** @internal */
  get isClosing(): boolean {
    return this.#closing !== undefined;
  }

  #open(): Handle {
    this.host.check();
    const isOpen = this.handle !== undefined && this.#closing === undefined;
    if (!isOpen) throw new ClosedError("the consumer is not open");
    return this.handle as Handle;
  }
}
