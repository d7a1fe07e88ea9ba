// The engine of one event loop.
//
// The native half leaves events in a mailbox and rings once; the loop fetches hundreds at a time. What is
// published in one turn of the loop goes down in one call, and so do the outcomes of handlers. The loop is
// kept alive while somebody waits for an answer or a consumer is open, and not otherwise.

import { AsyncLocalStorage } from "node:async_hooks";
import { tracingChannel } from "node:diagnostics_channel";

import { Calls, type Cancellable, type PublishOptions } from "./calls.js";
import { CancelledError, ClosedError, InvalidArgumentError, InvalidConfigError } from "./errors.js";
import { Message, outcomeOf, RELEASED } from "./message.js";
import * as bridge from "./native.js";
import { type Fields, type Handle, native, type Outcome, type Port, textsOf } from "./native.js";
import type { ConsumerOptions, EngineOptions } from "./options.js";
import type { ConsumerStatistics, DeadLetterAlert, LogLevel, Receipt } from "./records.js";
import type { VirtualClock } from "./testing.js";

const DRAIN_COUNT = 512;
const LEVELS: readonly LogLevel[] = ["debug", "info", "warning", "error"];
const ORDERINGS = { none: "unordered", key: "key_ordered", partition: "partition_ordered" } as const;

export type Handler<T = unknown> = (message: Message<T>) => unknown;

export interface OpenOptions extends EngineOptions, Cancellable {
  /** Of `towline/testing`: time stands still until it is advanced. */
  clock?: VirtualClock;
  /** The least level of 'log' events; records below it are not made. "warning" unless given. */
  logLevel?: LogLevel | "off";
}

export interface ConsumeOptions extends Omit<ConsumerOptions, "order">, Cancellable {
  /** What keeps its order: nothing (unless given), messages of a key, or of a partition. */
  ordering?: keyof typeof ORDERINGS;
}

type Topics = string | readonly string[];

interface Waiting {
  resolve(value: never): void;
  reject(error: unknown): void;
  forget: (() => void) | undefined;
}

// Whose handler runs: closing an engine inside one must not wait for that handler.
const runningIn = new AsyncLocalStorage<Engine>();
const publishing = tracingChannel("towline:publish");
const processing = tracingChannel("towline:process");

// Handlers cannot run any more at the end of the process: what they hold goes back at once.
const openPorts = new Set<Port>();
function onExit(): void {
  for (const port of openPorts) port.end();
}

function remember(port: Port): void {
  if (openPorts.size === 0) process.on("exit", onExit);
  openPorts.add(port);
}

function forgetPort(port: Port): void {
  openPorts.delete(port);
  if (openPorts.size === 0) process.off("exit", onExit);
}

function isTraced(channel: typeof publishing): boolean {
  return (
    channel.start.hasSubscribers || channel.end.hasSubscribers || channel.asyncStart.hasSubscribers ||
    channel.asyncEnd.hasSubscribers || channel.error.hasSubscribers
  );
}

function cancelled(signal: AbortSignal): CancelledError {
  return new CancelledError("the caller's signal was aborted", { cause: signal.reason });
}

function consumerTexts(options: ConsumeOptions): string[] {
  const { ordering = "none", signal: _, ...settings } = options;
  if (!Object.hasOwn(ORDERINGS, ordering)) {
    const known = Object.keys(ORDERINGS).join(", ");
    throw new InvalidConfigError(`ordering is '${ordering}', but must be one of ${known}`);
  }
  return [...textsOf("Consumer", settings), "order", ORDERINGS[ordering]];
}

/** What a consumer needs of its engine. */
interface Host {
  readonly isInHandler: boolean;
  call<T>(signal: AbortSignal | undefined, name: keyof Port, ...values: unknown[]): Promise<T>;
  finish(number: number, outcome: Outcome): void;
  forget(consumer: Consumer): void;
  check(): void;
}

/** A running consumer. Closing the engine closes it; so does the signal that it was given. */
export class Consumer {
  /** @internal */
  readonly number: number;
  /** @internal */
  handle: Handle | undefined;
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
  resume(): void {
    native.consumerResume(this.#open());
  }
  /** [1, 4096] */
  setConcurrency(concurrency: number): void {
    native.consumerSetConcurrency(this.#open(), concurrency);
  }
  statistics(): ConsumerStatistics {
    return native.consumerStatistics(this.#open());
  }

  /** Waits until nothing is in flight, then leaves it paused. Rejects with TimeoutError. */
  async drain(options: { timeoutMs?: number } & Cancellable = {}): Promise<void> {
    const handle = this.#open();
    if (this.host.isInHandler) {
      throw new InvalidArgumentError("drain: a handler cannot wait until no handler runs; use pause()");
    }
    await this.host.call(options.signal, "drainConsumer", handle, options.timeoutMs ?? 30_000);
  }

  /**
   * Stops intake, waits for its handlers up to `timeoutMs` (unless given: the engine's drainTimeoutMs), and
   * gives back the rest. Resolves to the number of handlers that have not ended. Idempotent. Inside a handler
   * of the engine it resolves at once, and the rest happens later.
   */
  async close(options: { timeoutMs?: number } = {}): Promise<number> {
    if (this.#closing === undefined) {
      const handle = this.#open();
      this.#closing = this.host
        .call<number>(undefined, "closeConsumer", handle, options.timeoutMs)
        .finally(() => this.host.forget(this));
    }
    if (!this.host.isInHandler) return this.#closing;
    this.#closing.catch(() => {});
    return 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #open(): Handle {
    this.host.check();
    const isOpen = this.handle !== undefined && this.#closing === undefined;
    if (!isOpen) throw new ClosedError("the consumer is not open");
    return this.handle as Handle;
  }
}

/** Deliveries go to one of these. */
interface Sink {
  readonly number: number;
  deliver(bytes: Buffer, events: readonly unknown[], at: number, number: number): void;
  end(): void;
}

/** Messages that wait for a `for await`. */
class Inbox implements Sink {
  readonly number: number;
  #host: Host;
  #messages: Message[] = [];
  #open = new Map<number, Message>();
  #wake: (() => void) | undefined;
  #isEnded = false;

  constructor(host: Host, number: number) {
    this.#host = host;
    this.number = number;
  }

  deliver(bytes: Buffer, events: readonly unknown[], at: number, number: number): void {
    const message = new Message(bytes, events, at, () => this.#finish(number, undefined));
    this.#open.set(number, message);
    this.#messages.push(message);
    this.#wake?.();
  }

  /** What comes of it does not count any more: its place is free at once, since nobody returns from here. */
  stop(number: number): void {
    this.#open.get(number)?.stop();
    this.#finish(number, RELEASED);
  }

  end(): void {
    this.#isEnded = true;
    for (const number of [...this.#open.keys()]) this.stop(number);
    this.#wake?.();
  }

  async next(): Promise<Message | undefined> {
    for (;;) {
      if (this.#isEnded) return undefined;
      const message = this.#messages.shift();
      if (message !== undefined && !message.isStopped) return message;
      if (message === undefined) await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  #finish(number: number, outcome: Outcome): void {
    if (this.#open.delete(number)) this.#host.finish(number, outcome);
  }
}

/** Handlers that run. */
class Runner implements Sink {
  readonly number: number;
  #host: Host;
  #handler: Handler;
  #engine: Engine;
  #running = new Map<number, Message>();

  constructor(host: Host, engine: Engine, number: number, handler: Handler) {
    this.#host = host;
    this.#engine = engine;
    this.number = number;
    this.#handler = handler;
  }

  deliver(bytes: Buffer, events: readonly unknown[], at: number, number: number): void {
    const message = new Message(bytes, events, at);
    this.#running.set(number, message);
    const returned = () => this.#returned(number, undefined);
    const failed = (error: unknown) => this.#returned(number, outcomeOf(error, message));
    try {
      const result = runningIn.run(this.#engine, () => this.#run(message)) as PromiseLike<unknown> | null;
      if (typeof result === "object" && result !== null && typeof result.then === "function") {
        Promise.resolve(result).then(returned, failed);
      } else {
        returned();
      }
    } catch (error) {
      failed(error);
    }
  }

  stop(number: number): void {
    this.#running.get(number)?.stop();
  }

  end(): void {
    for (const message of this.#running.values()) message.stop();
  }

  #run(message: Message): unknown {
    const handler = this.#handler;
    if (!isTraced(processing)) return handler(message);
    return processing.tracePromise(async () => handler(message), { message });
  }

  #returned(number: number, outcome: Outcome): void {
    if (this.#running.delete(number)) this.#host.finish(number, outcome);
  }
}

/** One topic, typed. */
export class Topic<T> {
  readonly name: string;
  readonly #engine: Engine;

  /** @internal */
  constructor(engine: Engine, name: string) {
    this.#engine = engine;
    this.name = name;
  }

  publish(value: T, options: PublishOptions = {}): Promise<Receipt> {
    return this.#engine.publish(this.name, value, options);
  }
  consume(options: ConsumeOptions, handler: Handler<T>): Promise<Consumer> {
    return this.#engine.consume<T>(this.name, options, handler);
  }
  messages(options: ConsumeOptions = {}): AsyncIterableIterator<Message<T>> {
    return this.#engine.messages<T>(this.name, options);
  }
}

/**
 * One engine: `await using engine = await Engine.open("sqlite:orders.db")`.
 *
 * What it tells by itself are `engine.events`. An idle engine does not keep the process alive; a consumer, or
 * a call that waits, does. Of one event loop: a worker opens its own, on the same URL.
 */
export class Engine extends Calls {
  readonly #port: Port;
  readonly #host: Host;
  readonly #waiting = new Map<number, Waiting>();
  readonly #sinks = new Map<number, Runner | Inbox>();
  /** What a consumer leaves behind at its caller's signal. */
  readonly #listening = new Map<number, () => void>();
  #ids = 0;
  #held = 0;
  #publishes: unknown[] = [];
  #finished: unknown[] = [];
  #closing: Promise<number> | undefined;
  #isClosed = false;

  /**
   * Opens `url`: `memory:`, `memory:name`, `sqlite:path`. Options are those of docs/OPTIONS.md under Engine.
   * Rejects with InvalidUrlError, InvalidConfigError and what the provider says.
   */
  static async open(url: string, options: OpenOptions = {}): Promise<Engine> {
    const { clock, logLevel = "warning", signal, ...settings } = options;
    if (logLevel !== "off" && !LEVELS.includes(logLevel)) {
      throw new InvalidConfigError(`logLevel is '${logLevel}', but must be one of ${LEVELS.join(", ")}, off`);
    }
    const texts = textsOf("Engine", settings);
    const engine = new Engine(logLevel === "off" ? undefined : LEVELS.indexOf(logLevel));
    try {
      await engine.call(signal, "open", url, texts, clock?.native);
    } catch (error) {
      await engine.close({ timeoutMs: 0 });
      throw error;
    }
    return engine;
  }

  private constructor(logLevel: number | undefined) {
    super();
    this.#port = native.makePort(() => this.#fetch(), logLevel);
    remember(this.#port);
    const isInHandler = () => runningIn.getStore() === this;
    this.#host = {
      get isInHandler() {
        return isInHandler();
      },
      call: (signal, name, ...values) => this.call(signal, name, ...values),
      finish: (number, outcome) => this.#finish(number, outcome),
      forget: (consumer) => this.#forget(consumer.number),
      check: () => this.#check(),
    };
  }

  // ---- consumers ------------------------------------------------------------------------------------

  /** A topic whose values are of one type. */
  topic<T = unknown>(name: string): Topic<T> {
    return new Topic<T>(this, name);
  }

  /**
   * Hands the messages of `topics` (names or patterns: `*` one word, `#` any number) to `handler`, up to
   * `concurrency` at once. Returning acknowledges, throwing fails the attempt; `Retry`, `Reject` and `Defer`
   * say more. Aborting `signal` closes the consumer.
   */
  async consume<T = unknown>(
    topics: Topics, options: ConsumeOptions, handler: Handler<T>,
  ): Promise<Consumer> {
    if (typeof handler !== "function") {
      throw new InvalidArgumentError(`the handler is a ${typeof handler}, but must be a function`);
    }
    return this.#start(topics, options, new Runner(this.#host, this, ++this.#ids, handler as Handler));
  }

  /**
   * Messages one by one: `for await (const message of engine.messages("orders", { group }))`. Settle each
   * with `message.ack()` and its like; what is not settled in `handlerTimeoutMs` is handed out again. At most
   * `concurrency` (100 unless given) are out at once. Leaving the loop gives back what is unsettled.
   */
  async *messages<T = unknown>(
    topics: Topics, options: ConsumeOptions = {},
  ): AsyncIterableIterator<Message<T>> {
    const inbox = new Inbox(this.#host, ++this.#ids);
    const consumer = await this.#start(topics, { concurrency: 100, ...options, ack: "manual" }, inbox);
    try {
      for (let message = await inbox.next(); message !== undefined; message = await inbox.next()) {
        yield message as Message<T>;
      }
    } finally {
      inbox.end();
      if (!this.#isClosed && this.#closing === undefined) await consumer.close({ timeoutMs: 0 });
    }
    if (options.signal?.aborted) throw cancelled(options.signal);
  }

  async #start(topics: Topics, options: ConsumeOptions, sink: Runner | Inbox): Promise<Consumer> {
    const { signal } = options;
    const texts = consumerTexts(options);
    const patterns = typeof topics === "string" ? [topics] : [...topics];
    const consumer = new Consumer(this.#host, sink.number);
    // Before it starts: its first delivery may come before the answer.
    this.#sinks.set(sink.number, sink);
    this.#hold();
    try {
      consumer.handle = await this.call<Handle>(undefined, "consume", sink.number, patterns, texts);
    } catch (error) {
      this.#forget(sink.number);
      throw error;
    }
    const stop = () => {
      sink instanceof Inbox ? sink.end() : consumer.close().catch(() => {});
    };
    if (signal?.aborted) stop();
    if (signal !== undefined) {
      signal.addEventListener("abort", stop, { once: true });
      this.#listening.set(sink.number, () => signal.removeEventListener("abort", stop));
    }
    return consumer;
  }

  #forget(number: number): void {
    this.#listening.get(number)?.();
    this.#listening.delete(number);
    if (this.#sinks.delete(number)) this.#release();
  }

  // ---- closing --------------------------------------------------------------------------------------

  /**
   * Stops intake, waits for handlers up to `timeoutMs` (unless given: drainTimeoutMs), gives back the rest,
   * settles and closes the store. Idempotent. Resolves to the number of handlers that have not ended. Inside
   * a handler it resolves at once, and the rest happens later.
   */
  async close(options: { timeoutMs?: number } = {}): Promise<number> {
    this.#closing ??= this.#close(options.timeoutMs);
    if (!this.#host.isInHandler) return this.#closing;
    this.#closing.catch(() => {});
    return 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(timeoutMs: number | undefined): Promise<number> {
    this.#flushPublishes();
    for (const sink of this.#sinks.values()) {
      if (sink instanceof Inbox) sink.end();
    }
    try {
      return await this.call<number>(undefined, "close", timeoutMs);
    } finally {
      this.#isClosed = true;
      for (const sink of this.#sinks.values()) sink.end();
      this.#flushFinished();
      await new Promise<void>((resolve) => this.#port.shut(resolve));
      forgetPort(this.#port);
      for (const waiting of this.#waiting.values()) {
        waiting.forget?.();
        waiting.reject(new ClosedError("the engine was closed before the answer came") as never);
      }
      this.#waiting.clear();
      for (const number of [...this.#sinks.keys()]) this.#forget(number);
      process.nextTick(() => this.events.emit("closed"));
    }
  }

  #check(): void {
    if (this.#isClosed) throw new ClosedError("the engine is closed");
  }

  // ---- requests and events --------------------------------------------------------------------------

  #hold(): void {
    if (this.#held++ === 0) this.#port.hold(true);
  }

  #release(): void {
    if (--this.#held === 0) this.#port.hold(false);
  }

  /** @internal */
  protected call<T>(signal: AbortSignal | undefined, name: keyof Port, ...values: unknown[]): Promise<T> {
    return this.#wait<T>(signal, (id) => (this.#port[name] as bridge.Answering)(id, ...values));
  }

  #wait<T>(signal: AbortSignal | undefined, ask: (id: number) => void): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#check();
      if (signal?.aborted) throw cancelled(signal);
      const id = ++this.#ids;
      ask(id);
      let forget: (() => void) | undefined;
      if (signal !== undefined) {
        const onAbort = () => this.#answer(id, false, cancelled(signal));
        signal.addEventListener("abort", onAbort, { once: true });
        forget = () => signal.removeEventListener("abort", onAbort);
      }
      this.#waiting.set(id, { resolve: resolve as (value: never) => void, reject, forget });
      this.#hold();
    });
  }

  /** @internal */
  protected send(messages: Fields[], signal: AbortSignal | undefined): Promise<Receipt[]> {
    const sent = () =>
      this.#wait<Receipt[]>(signal, (id) => {
        if (this.#publishes.length === 0) process.nextTick(() => this.#flushPublishes());
        this.#publishes.push(id, messages);
      });
    if (!isTraced(publishing)) return sent();
    return publishing.tracePromise(sent, { topics: messages.map((one) => one[0]) });
  }

  #flushPublishes(): void {
    const requests = this.#publishes;
    if (requests.length === 0 || this.#isClosed) return;
    this.#publishes = [];
    this.#port.publish(requests, (id, error) => this.#answer(id, false, error));
  }

  #finish(number: number, outcome: Outcome): void {
    if (this.#finished.length === 0) setImmediate(() => this.#flushFinished());
    this.#finished.push(number, outcome);
  }

  #flushFinished(): void {
    const finished = this.#finished;
    if (finished.length === 0) return;
    this.#finished = [];
    this.#port.finish(finished);
  }

  #answer(id: number, ok: boolean, value: unknown): void {
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) return; // whoever waited has left
    this.#waiting.delete(id);
    waiting.forget?.();
    if (ok) {
      waiting.resolve(value as never);
    } else {
      waiting.reject(value);
    }
    this.#release();
  }

  /** Where each event ends is known by its kind; see EventList of the native half. */
  #fetch(): void {
    const events = this.#port.drain(DRAIN_COUNT);
    const bytes = events[0] as Buffer;
    for (let at = 1; at < events.length; ) {
      switch (events[at]) {
        case bridge.REPLY:
        case bridge.RECEIPTS:
          this.#answer(events[at + 1] as number, events[at + 2] as boolean, events[at + 3]);
          at += 4;
          break;
        case bridge.DELIVERY:
          this.#deliver(events[at + 1] as number, events[at + 2] as number, bytes, events, at + 3);
          at += 10;
          break;
        case bridge.STOP:
          for (const sink of this.#sinks.values()) sink.stop(events[at + 1] as number);
          at += 2;
          break;
        case bridge.LOG:
          this.#tellLog(events[at + 1] as number, events[at + 2] as string, events[at + 3] as string);
          at += 4;
          break;
        default:
          this.#tellAlert(events[at + 1] as DeadLetterAlert);
          at += 2;
      }
    }
  }

  #deliver(consumer: number, number: number, bytes: Buffer, events: readonly unknown[], at: number): void {
    const sink = this.#sinks.get(consumer);
    if (sink === undefined) {
      this.#finish(number, RELEASED); // it was closed meanwhile
    } else {
      sink.deliver(bytes, events, at, number);
    }
  }

  // A listener that throws must not lose the events behind this one.

  #tellLog(level: number, station: string, text: string): void {
    process.nextTick(() => this.events.emit("log", { level: LEVELS[level] ?? "error", station, text }));
  }

  #tellAlert(alert: DeadLetterAlert): void {
    process.nextTick(() => this.events.emit("alert", alert));
  }
}
