// A durable reader of events.

import { checkClosing, checkOptions } from "./arguments.js";
import type { Host } from "./consumer.js";
import { ClosedError, LeaseLostError } from "./errors.js";
import { placeFrom, type RawEvent, RecordedEvent } from "./event_records.js";
import { outcomeOf } from "./message.js";
import { type Drained, EVENT_LIST, type Handle } from "./native.js";
import { type Cancellable, checkSignal, type CloseOptions, orAborted } from "./signals.js";
import { runHandler, Sink } from "./sinks.js";

/** `active`: this process has the lease; else it stands by. `handled` and `failures` are of a handler, and `streamTo`. */
export interface EventSubscriptionStatistics {
  /** This process has the lease. */
  readonly active: boolean;
  /** Everything up to here was handled. */
  readonly checkpoint: bigint;
  /** Events. */
  readonly handled: bigint;
  /** In a row. */
  readonly failures: bigint;
  /** Of the last failure; "" when there was none. */
  readonly lastError: string;
}

/** `signal` fires when what comes of the call does not count any more: its time to close is over. */
export type EventHandler<T = unknown> = (events: RecordedEvent<T>[], context: { signal: AbortSignal }) => unknown;

/** @internal Hands batches of events to a handler, and tells what came of each. */
export class EventSink<T> extends Sink {
  readonly #handler: EventHandler<T>;
  readonly #leaving = new AbortController();

  constructor(host: Host, number: number, handler: EventHandler<T>) {
    super(host, number);
    this.#handler = handler;
  }

  deliver([, numbers, values]: Drained, at: number): void {
    const raw = values[numbers[at + EVENT_LIST] as number] as RawEvent[];
    const events = raw.map((one) => new RecordedEvent<T>(one));
    const { signal } = this.#leaving;
    runHandler(
      this.host, () => this.#handler(events, { signal }), { events },
      () => this.host.finishEvents(this.number, undefined),
      (error) => {
        const [, , type, message] = outcomeOf(error, { isStopped: false }) as readonly unknown[];
        this.host.finishEvents(this.number, [(type as string) || "Defer", message as string]);
      });
  }

  override stop(): undefined {}

  override end(): void {
    this.#leaving.abort();
  }
}

/** One question to the engine takes a thread of it at most so long. */
const SLICE_MS = 250;
const BATCH_COUNT_MAX = 100;

/**
 * A durable reader of events, made by `engine.eventStore.subscribe`: with a handler, which the engine calls; else by
 * `for await (const batch of subscription)`, or
 * step by step with `receive` and `checkpoint`. In a loop the checkpoint moves when the body has come back for the
 * next batch; what it is left with, by `break` or an exception, comes again in the next loop, or in the next
 * process. The loop ends when the subscription or the engine is closed.
 */
export class EventSubscription<T = unknown> implements AsyncIterable<RecordedEvent<T>[]> {
  readonly #host: Host;
  readonly #handle: Handle;
  readonly #countMax: number;
  readonly #byVersion: boolean;
  /** What was received and is not handed over yet, and what the body of a loop works on. */
  #waiting: RecordedEvent<T>[] = [];
  #working: RecordedEvent<T>[] = [];
  /** Those who receive, one behind the other. */
  #last: Promise<void> = Promise.resolve();
  /** What is asked for; whoever asked may have left. */
  #asked: Promise<void> | undefined;
  readonly #onClosing: () => unknown;
  /** What has the handler. */
  readonly #sink: EventSink<T> | undefined;
  #closing: Promise<boolean> | undefined;

  /** @internal */
  constructor(
    host: Host, handle: Handle, options: { stream?: string; batchCountMax?: number },
    onClosing: () => unknown = () => {}, sink?: EventSink<T>,
  ) {
    this.#onClosing = onClosing;
    this.#sink = sink;
    this.#host = host;
    this.#handle = handle;
    this.#countMax = options.batchCountMax ?? BATCH_COUNT_MAX;
    this.#byVersion = (options.stream ?? "") !== "";
  }

  /**
   * The next events after those that were received, in order; waits for the first until `timeoutMs` (unless given
   * without end). Empty: there was none in time, or another process is active. `countMax` [1, 10000];
   * `batchCountMax` unless given. Aborting `signal` ends the wait and loses nothing. Of several that wait each
   * begins when the one before has ended. Rejects with ClosedError, InvalidArgumentError.
   */
  async receive(options: { countMax?: number; timeoutMs?: number } & Cancellable = {}): Promise<RecordedEvent<T>[]> {
    checkOptions(options, "countMax", "timeoutMs");
    const { countMax = this.#countMax, timeoutMs = Infinity, signal } = options;
    checkSignal(signal);
    const turn = this.#last;
    let leave = () => {};
    this.#last = new Promise((resolve) => (leave = resolve));
    try {
      await orAborted(turn, signal);
      return await this.#receive(countMax, timeoutMs, signal);
    } finally {
      turn.then(leave);
    }
  }

  async #receive(
    countMax: number, timeoutMs: number, signal: AbortSignal | undefined,
  ): Promise<RecordedEvent<T>[]> {
    let left = Math.max(timeoutMs, 0);
    for (;;) {
      if (this.#waiting.length > 0) return this.#waiting.splice(0, countMax);
      const slice = Math.min(left, SLICE_MS);
      this.#asked ??= this.#ask(countMax, slice);
      await orAborted(this.#asked, signal);
      left -= slice;
      if (this.#waiting.length === 0 && left <= 0) return [];
    }
  }

  /** What comes when nobody waits any more is there for the next one. */
  async #ask(countMax: number, timeoutMs: number): Promise<void> {
    try {
      const raw = await this.#host.call<RawEvent[]>(undefined, "receiveEvents", this.#handle, countMax, timeoutMs);
      for (const one of raw) this.#waiting.push(new RecordedEvent<T>(one));
    } finally {
      this.#asked = undefined;
    }
  }

  /**
   * Everything received up to this place is handled: the `position` of an event, or its `version` where one stream
   * is followed. It moves only forward. Rejects with LeaseLostError (another process is active; nothing was
   * changed), InvalidArgumentError (that far nothing was received).
   */
  async checkpoint(place: bigint | number, options: Cancellable = {}): Promise<void> {
    checkOptions(options);
    await this.#host.call(options.signal, "checkpointEvents", this.#handle, placeFrom(place, "place"));
  }

  /** What it has come to. Rejects with ClosedError when the engine is closed. */
  async statistics(options: Cancellable = {}): Promise<EventSubscriptionStatistics> {
    checkOptions(options);
    return this.#host.call(options.signal, "eventSubscriptionStatistics", this.#handle);
  }

  /**
   * Gives the lease back; with a handler, and of `streamTo`, it waits for the batch at work up to `timeoutMs` (unless
   * given: the engine's drainTimeoutMs). False: that goes on, and what it still does does not count. Idempotent; the
   * engine closes it, too. Inside a handler of the engine it resolves at once, and the rest happens later. Aborting
   * `signal` ends the wait alone: the closing goes on.
   */
  async close(options: CloseOptions = {}): Promise<boolean> {
    checkClosing(options);
    this.#onClosing();
    this.#closing ??= this.#close(options.timeoutMs);
    if (this.#sink === undefined || !this.#host.isInHandler) return orAborted(this.#closing, options.signal);
    this.#closing.catch(() => {});
    return true;
  }

  async #close(timeoutMs: number | undefined): Promise<boolean> {
    try {
      return await this.#host.call<boolean>(
        undefined, "closeEventSubscription", this.#handle, timeoutMs, this.#sink?.number);
    } catch (error) {
      if (error instanceof ClosedError) return true; // by the engine
      throw error;
    } finally {
      if (this.#sink !== undefined) this.#host.forget(this.#sink);
    }
  }

  /** Closes, as `close` without options. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** One loop at a time. */
  async *[Symbol.asyncIterator](): AsyncIterator<RecordedEvent<T>[]> {
    this.#waiting = [...this.#working, ...this.#waiting];
    this.#working = [];
    try {
      for (;;) {
        const batch = await this.receive();
        const last = batch.at(-1) as RecordedEvent<T>;
        this.#working = batch;
        yield [...batch]; // the body's own: it may change the list
        await this.#handled(this.#byVersion ? last.version : last.position);
      }
    } catch (error) {
      if (!(error instanceof ClosedError)) throw error;
    }
  }

  async #handled(place: bigint): Promise<void> {
    try {
      await this.checkpoint(place);
    } catch (error) {
      if (!(error instanceof LeaseLostError)) throw error;
      this.#waiting = []; // somebody else follows now, from the checkpoint on
    }
    this.#working = [];
  }
}
