// Runs the calls of one saga's steps on the event loop.

import { checkClosing, checkOptions } from "./arguments.js";
import type { Host } from "./consumer.js";
import { ClosedError } from "./errors.js";
import { outcomeOf, RELEASED } from "./message.js";
import { type Drained, native, type Outcome, SAGA_RECORD } from "./native.js";
import type { SagaDefinition, SagaHandler } from "./saga.js";
import { type RawCall, SagaCall } from "./saga_call.js";
import { encodeState, type SagaRunnerStatistics } from "./saga_records.js";
import { type Cancellable, type CloseOptions, orAborted } from "./signals.js";
import { runHandler, Sink } from "./sinks.js";

/** @internal Hands calls to the functions of a definition. */
export class SagaSink extends Sink {
  readonly #handlers: ReturnType<SagaDefinition["handlers"]>;
  readonly #running = new Map<number, SagaCall>();
  #isEnded = false;

  constructor(host: Host, number: number, saga: SagaDefinition) {
    super(host, number);
    this.#handlers = saga.handlers();
  }

  deliver([, numbers, values]: Drained, at: number): void {
    const raw = values[numbers[at + SAGA_RECORD] as number] as RawCall;
    if (this.#isEnded) return native.sagaFinish(raw.handle, RELEASED, undefined);
    const call = new SagaCall(raw);
    const handlers = this.#handlers.get(raw.step);
    const handler = (raw.phase === "execute" ? handlers?.execute : handlers?.compensate) as SagaHandler;
    this.#running.set(raw.number, call);
    runHandler(
      this.host, () => handler(call), { call },
      (value) => this.#returned(raw, call, value),
      (error) => this.#finish(raw, call, outcomeOf(error, call)));
  }

  /** Numbers of calls are not those of deliveries. */
  override stop(): undefined {}

  stopCall(number: number): void {
    this.#running.get(number)?.stop();
  }

  override end(): void {
    this.#isEnded = true;
    for (const call of this.#running.values()) call.stop();
  }

  #returned(raw: RawCall, call: SagaCall, value: unknown): void {
    try {
      this.#finish(raw, call, undefined, value === undefined ? undefined : encodeState(value));
    } catch (error) {
      this.#finish(raw, call, outcomeOf(error, call)); // an output that cannot be kept
    }
  }

  /** When the output is refused nothing has happened. */
  #finish(raw: RawCall, call: SagaCall, outcome: Outcome, output?: string | Uint8Array): void {
    call.end();
    native.sagaFinish(raw.handle, outcome, output);
    this.#running.delete(raw.number);
  }
}

/**
 * Runs the sagas of one definition, whoever started them, until it or its engine is closed. A runner that nobody
 * keeps goes on.
 */
export class SagaRunner {
  readonly #host: Host;
  readonly #sink: SagaSink;
  #closing: Promise<number> | undefined;

  /** @internal */
  constructor(host: Host, sink: SagaSink) {
    this.#host = host;
    this.#sink = sink;
  }

  /** Rejects with ClosedError. */
  async statistics(options: Cancellable = {}): Promise<SagaRunnerStatistics> {
    checkOptions(options);
    if (this.#closing !== undefined) throw new ClosedError("the runner is closed");
    return this.#host.call(options.signal, "sagaRunnerStatistics", this.#sink.number);
  }

  /**
   * Begins no more calls, waits for those that run up to `timeoutMs` (unless given: the engine's drainTimeoutMs), and
   * leaves the sagas to others. Resolves to the number of calls that have not returned: what they still do does not
   * count. Idempotent. Inside a handler of the engine it resolves at once, and the rest happens later. Aborting `signal`
   * ends the wait alone: the closing goes on.
   */
  async close(options: CloseOptions = {}): Promise<number> {
    checkClosing(options);
    this.#closing ??= this.#close(options.timeoutMs);
    if (!this.#host.isInHandler) return orAborted(this.#closing, options.signal);
    this.#closing.catch(() => {});
    return 0;
  }

  /** Closes, as `close` without options. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(timeoutMs: number | undefined): Promise<number> {
    try {
      return await this.#host.call<number>(undefined, "closeSagaRunner", this.#sink.number, timeoutMs);
    } catch (error) {
      if (error instanceof ClosedError) return 0; // the engine has closed it
      throw error;
    } finally {
      this.#host.forget(this.#sink);
    }
  }
}
