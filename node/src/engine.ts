// The engine of one event loop.
//
// The native half leaves events in a mailbox and rings once; the loop fetches hundreds at a time. What is
// published in one turn of the loop goes down in one call, and so do the outcomes of handlers. The loop is
// kept alive while somebody waits for an answer or a consumer is open, and not otherwise.

import type { EventEmitter } from "node:events";

import { checkClosing, checkObject, checkOptions, textsOf } from "./arguments.js";
import { Calls, type EngineEvents, type MessageOptions, type OutgoingMessage, type PublishOptions } from "./calls.js";
import { Consumer, type Host } from "./consumer.js";
import { Conversations } from "./conversations.js";
import { ClosedError, InvalidArgumentError, InvalidConfigError } from "./errors.js";
import { type Message, RELEASED } from "./message.js";
import { EventStore } from "./events.js";
import * as bridge from "./native.js";
import { type Fields, type Handle, native, type Outcome, type Port } from "./native.js";
import type { ConsumerOptions, EngineOptions } from "./options.js";
import { Outgoing } from "./outgoing.js";
import { type Alert, type LogLevel, type PackedReceipts, type Receipt, receiptsOf } from "./records.js";
import {
  type Cancellable, cancelled, type CloseOptions, endsAsAsked, orAborted, throwIfAborted, unanswered,
} from "./signals.js";
import {
  type BatchHandler, BatchRunner, type Handler, Inbox, isRunningIn, MessageRunner, type Sink,
} from "./sinks.js";
import type { SagaDefinition } from "./saga.js";
import type { RawCall } from "./saga_call.js";
import { SagaRunner, SagaSink } from "./saga_runner.js";
import { checkSaga, Sagas } from "./sagas.js";
import { VirtualClock } from "./testing.js";
import { tracePublish } from "./tracing.js";
import { kindOf, shown } from "./words.js";

// A batch of the usual size is fetched at once.
const DRAIN_COUNT = 1_024;
const LEVELS: readonly LogLevel[] = ["debug", "info", "warning", "error"];
const ORDERINGS = { none: "unordered", key: "key_ordered", partition: "partition_ordered" } as const;

/** Of `Engine.open`. */
export interface OpenOptions extends EngineOptions, Cancellable {
  /** Of `towline/testing`: time stands still until it is advanced. */
  clock?: VirtualClock;
  /** The least level of 'log' events; records below it are not made. "warning" unless given. */
  logLevel?: LogLevel | "off";
}

/** Of a consumer; aborting `signal` closes it. */
export interface ConsumeOptions extends ConsumerOptions, Cancellable {}

type Topics = string | readonly string[];

interface Waiting {
  resolve(value: never): void;
  reject(error: unknown): void;
  forget: (() => void) | undefined;
}

// Handlers cannot run any more at the end of the process: what they hold goes back at once. Where something broke,
// such as by an exception that nobody caught, it comes again as after a kill, so that a message which ends its
// process each time is found.
const openPorts = new Set<Port>();
function onExit(code: number): void {
  for (const port of openPorts) port.end(code !== 0 && !endsAsAsked());
}

function remember(port: Port): void {
  if (openPorts.size === 0) process.on("exit", onExit);
  openPorts.add(port);
}

function forgetPort(port: Port): void {
  openPorts.delete(port);
  if (openPorts.size === 0) process.off("exit", onExit);
}

/** As an exception that nobody caught: loud, and behind what is done now. */
function throwLater(error: unknown): void {
  process.nextTick(() => {
    throw error;
  });
}

function checkHandler(handler: unknown): void {
  if (typeof handler !== "function") {
    throw new InvalidArgumentError(`the handler is ${kindOf(handler)}, but must be a function`);
  }
}

function startOf(start: string | Date | undefined): string | undefined {
  if (!(start instanceof Date)) return start;
  const at = start.getTime();
  if (Number.isNaN(at)) throw new InvalidConfigError("start is an invalid Date");
  return `at:${BigInt(at) * 1_000n}`;
}

function consumerTexts(options: ConsumeOptions): string[] {
  const { ordering = "none", start, signal: _, ...settings } = options;
  if (!Object.hasOwn(ORDERINGS, ordering)) {
    const known = Object.keys(ORDERINGS).join(", ");
    throw new InvalidConfigError(`ordering is ${shown(ordering)}, but must be one of ${known}`);
  }
  // What cannot be read cannot be read the next time either.
  const unreadable = ["classify.permanent_types", "PayloadError"];
  const texts = textsOf("Consumer", { ...settings, start: startOf(start) }, ["signal"]);
  return [...texts, "order", ORDERINGS[ordering], ...unreadable];
}

/** One message of a batch for a topic. */
export interface TopicMessage<T> extends MessageOptions {
  /** Of the topic's type. */
  value: T;
}

/** One topic, typed. */
export class Topic<T> {
  /** As it was given. */
  readonly name: string;
  readonly #engine: Engine;

  /** @internal */
  constructor(engine: Engine, name: string) {
    this.#engine = engine;
    this.name = name;
  }

  /** As `engine.publish`. */
  publish(value: T, options: PublishOptions = {}): Promise<Receipt> {
    return this.#engine.publish(this.name, value, options);
  }
  /** One receipt per message, in order; look at `receipt.outcome`. */
  publishBatch(messages: readonly TopicMessage<T>[], options: Cancellable = {}): Promise<Receipt[]> {
    const isList = Array.isArray(messages); // what is none is refused there
    const named = isList ? messages.map((one: TopicMessage<T>) => ({ ...one, topic: this.name })) : messages;
    return this.#engine.publishBatch(named as OutgoingMessage[], options);
  }
  /** As `engine.consume`. */
  consume(options: ConsumeOptions, handler: Handler<T>): Promise<Consumer> {
    return this.#engine.consume<T>(this.name, options, handler);
  }
  /** As `engine.consumeBatches`. */
  consumeBatches(options: ConsumeOptions, handler: BatchHandler<T>): Promise<Consumer> {
    return this.#engine.consumeBatches<T>(this.name, options, handler);
  }
  /** As `engine.messages`. */
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
  /** Streams of events, which are kept; `events` are what the engine tells by itself. */
  readonly eventStore: EventStore;
  /** Streams of messages that clients read, who come and go. */
  readonly conversations: Conversations;
  /** To start, to watch and to help; `runSaga` runs them. */
  readonly sagas: Sagas;
  readonly #waiting = new Map<number, Waiting>();
  readonly #sinks = new Map<number, Sink>();
  /** What a consumer leaves behind at its caller's signal. */
  readonly #listening = new Map<number, () => void>();
  #ids = 0;
  #held = 0;
  #outgoing = new Outgoing();
  /** The other one, while one goes down: what runs meanwhile may publish. */
  #spare: Outgoing | undefined;
  /** What has returned in this turn of the loop: numbers, and numbers with their outcomes. */
  #acked: number[] = [];
  #ackedTogether: (readonly number[])[] = [];
  #finished: unknown[] = [];
  #hasFinished = false;
  #closing: Promise<number> | undefined;
  #isClosed = false;

  /**
   * Opens `url`: `memory:`, `memory:name`, `sqlite:path`. Options are those of docs/OPTIONS.md under Engine.
   * Rejects with InvalidUrlError, InvalidConfigError and what the provider says.
   */
  static async open(url: string, options: OpenOptions = {}): Promise<Engine> {
    checkObject(options, "options of open");
    const { clock, logLevel = "warning", signal, ...settings } = options;
    if (clock !== undefined && !(clock instanceof VirtualClock)) {
      throw new InvalidArgumentError(`clock is ${shown(clock)}, but must be a VirtualClock of towline/testing`);
    }
    if (logLevel !== "off" && !LEVELS.includes(logLevel)) {
      throw new InvalidConfigError(`logLevel is ${shown(logLevel)}, but must be one of ${LEVELS.join(", ")}, off`);
    }
    const texts = textsOf("Engine", settings, ["clock", "logLevel", "signal"]);
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
    this.#host = {
      get isInHandler() {
        return isRunningIn(this);
      },
      call: (signal, name, ...values) => this.call(signal, name, ...values),
      finish: (number, outcome) => this.#finish(number, outcome),
      finishAll: (numbers) => this.#finishAll(numbers),
      publish: ({ topic, value, ...message }, { signal }) => this.publish(topic, value, { ...message, signal }),
      finishEvents: (number, error) => this.#port.finishEvents(number, error),
      newNumber: () => ++this.#ids,
      attach: (sink, signal, start, stop) => this.#attach(sink, signal, start, stop),
      forget: ({ number }) => this.#forget(number),
      check: () => this.#check(),
      isHeard: (event) => this.events.listenerCount(event) > 0,
      tell: (event, ...args) => this.#tell(event, ...args),
    };
    this.eventStore = new EventStore(this.#host);
    this.conversations = new Conversations(this.#host);
    this.sagas = new Sagas(this.#host);
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
    checkObject(options, "options of the consumer");
    checkHandler(handler);
    const isManual = options.ack === "manual";
    const runner = new MessageRunner(this.#host, ++this.#ids, isManual, handler as Handler);
    return this.#start(topics, options, runner);
  }

  /**
   * The same for many messages at once, at most `batchCountMax`; `concurrency` counts batches. Returning
   * acknowledges all that were not settled one by one, throwing fails those.
   */
  async consumeBatches<T = unknown>(
    topics: Topics, options: ConsumeOptions, handler: BatchHandler<T>,
  ): Promise<Consumer> {
    checkObject(options, "options of the consumer");
    checkHandler(handler);
    const isManual = options.ack === "manual";
    const runner = new BatchRunner(this.#host, ++this.#ids, isManual, handler as BatchHandler);
    return this.#start(topics, options, runner);
  }

  /**
   * Messages one by one: `for await (const message of engine.messages("orders", { group }))`. Settle each
   * with `message.ack()` and its like; what is not settled in `handlerTimeoutMs` is handed out again. At most
   * `concurrency` (100 unless given) are out at once. Leaving the loop gives back what is unsettled.
   */
  async *messages<T = unknown>(
    topics: Topics, options: ConsumeOptions = {},
  ): AsyncIterableIterator<Message<T>> {
    checkObject(options, "options of the consumer");
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

  async #start(topics: Topics, options: ConsumeOptions, sink: Sink): Promise<Consumer> {
    const texts = consumerTexts(options);
    const patterns = typeof topics === "string" ? [topics] : [...topics];
    const inBatches = sink instanceof BatchRunner;
    const consumer = new Consumer(this.#host, sink.number);
    sink.consumer = consumer;
    const start = async () => {
      consumer.handle = await this.call<Handle>(
        undefined, "consume", sink.number, patterns, texts, inBatches);
    };
    await this.#attach(sink, options.signal, start, () => {
      sink instanceof Inbox ? sink.end() : consumer.close().catch(() => {});
    });
    return consumer;
  }

  /** `start`s what fills the sink; `stop` is called when the signal is aborted. */
  async #attach(
    sink: Sink, signal: AbortSignal | undefined, start: () => Promise<void>, stop: () => void,
  ): Promise<void> {
    throwIfAborted(signal);
    // Before it starts: its first delivery may come before the answer.
    this.#sinks.set(sink.number, sink);
    this.#hold();
    try {
      await start();
    } catch (error) {
      this.#forget(sink.number);
      throw error;
    }
    if (signal === undefined) return;
    if (signal.aborted) {
      stop();
      throw unanswered(cancelled(signal));
    }
    signal.addEventListener("abort", stop, { once: true });
    this.#listening.set(sink.number, () => signal.removeEventListener("abort", stop));
  }

  // ---- sagas ----------------------------------------------------------------------------------------

  /**
   * Runs the sagas of this definition, whoever starts them, up to `concurrency` at once. Aborting `signal` closes the
   * runner. Rejects with InvalidSagaError, InvalidConfigError, DefinitionMismatchError (unfinished sagas of this type
   * and version began under other steps; give the new ones a new version, and run both until the old ones are done).
   */
  async runSaga(saga: SagaDefinition, options: Cancellable = {}): Promise<SagaRunner> {
    checkOptions(options);
    checkSaga(saga);
    const sink = new SagaSink(this.#host, ++this.#ids, saga);
    const runner = new SagaRunner(this.#host, sink);
    const start = () => this.call<void>(undefined, "runSaga", sink.number, saga.fields());
    await this.#attach(sink, options.signal, start, () => {
      runner.close().catch(() => {});
    });
    return runner;
  }

  #forget(number: number): void {
    this.#listening.get(number)?.();
    this.#listening.delete(number);
    const sink = this.#sinks.get(number);
    if (sink === undefined) return;
    this.#sinks.delete(number);
    sink.end();
    this.#release();
  }

  // ---- closing --------------------------------------------------------------------------------------

  /**
   * Stops intake, waits for handlers up to `timeoutMs` (unless given: drainTimeoutMs), gives back the rest,
   * settles and closes the store. Idempotent; who has less time than whoever closes already hurries it.
   * Resolves to the number of handlers that have not ended. Inside a handler it resolves at once, and the rest
   * happens later. Aborting `signal` ends the wait alone: the closing goes on, and 'closed' tells when it is done.
   */
  async close(options: CloseOptions = {}): Promise<number> {
    checkClosing(options);
    if (this.#closing === undefined) {
      this.#closing = this.#close(options.timeoutMs);
    } else if (options.timeoutMs !== undefined && !this.#isClosed) {
      this.call(undefined, "close", options.timeoutMs).catch(() => {}); // hurries the one who closes already
    }
    if (!this.#host.isInHandler) return orAborted(this.#closing, options.signal);
    this.#closing.catch(() => {});
    return 0;
  }

  /** Closes, as `close` without options. */
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
      for (const number of [...this.#sinks.keys()]) this.#forget(number);
      while (this.#fetch()); // what was answered while its threads ended
      forgetPort(this.#port);
      for (const waiting of this.#waiting.values()) {
        waiting.forget?.();
        waiting.reject(unanswered(new ClosedError("the engine was closed before the answer came")));
      }
      this.#waiting.clear();
      this.#tell("closed");
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
      throwIfAborted(signal);
      const id = ++this.#ids;
      ask(id);
      let forget: (() => void) | undefined;
      if (signal !== undefined) {
        const onAbort = () => this.#answer(id, false, unanswered(cancelled(signal)));
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
        if (this.#outgoing.isFull) this.#flushPublishes();
        const isFirst = this.#outgoing.isEmpty;
        this.#outgoing.add(id, messages);
        if (isFirst) process.nextTick(() => this.#flushPublishes());
      });
    return tracePublish(sent, () => messages.map((one) => one[0]));
  }

  #flushPublishes(): void {
    const outgoing = this.#outgoing;
    if (outgoing.isEmpty || this.#isClosed) return;
    this.#outgoing = this.#spare ?? new Outgoing();
    this.#spare = undefined;
    outgoing.send(this.#port, (id, error) => this.#answer(id, false, error));
    this.#spare = outgoing;
  }

  #finish(number: number, outcome: Outcome): void {
    this.#planFinish();
    if (outcome === undefined) this.#acked.push(number);
    else this.#finished.push(number, outcome);
  }

  #finishAll(numbers: readonly number[]): void {
    this.#planFinish();
    this.#ackedTogether.push(numbers);
  }

  #planFinish(): void {
    if (this.#hasFinished) return;
    this.#hasFinished = true;
    setImmediate(() => this.#flushFinished());
  }

  #flushFinished(): void {
    if (!this.#hasFinished) return;
    const [lists, finished] = [[this.#acked, ...this.#ackedTogether], this.#finished];
    this.#hasFinished = false;
    this.#acked = [];
    this.#ackedTogether = [];
    this.#finished = [];
    const acked = new Float64Array(lists.reduce((count, list) => count + list.length, 0));
    let at = 0;
    for (const list of lists) {
      acked.set(list, at);
      at += list.length;
    }
    this.#port.finish(acked, finished);
  }

  #answer(id: number, ok: boolean, value: unknown): void {
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) return; // whoever waited has left
    this.#waiting.delete(id);
    if (ok) {
      waiting.resolve(value as never);
    } else {
      waiting.reject(value);
    }
    this.#release();
    waiting.forget?.();
  }

  /**
   * Takes what is in the mailbox, when it has rung; whether there was anything. Whatever happens at one event,
   * the others are taken: Node would drop the error, and the events with it.
   */
  #fetch(): boolean {
    let drained: bridge.Drained;
    try {
      drained = this.#port.drain(DRAIN_COUNT);
    } catch (error) {
      throwLater(error);
      return false;
    }
    const numbers = drained[1];
    for (let at = 0; at < numbers.length; ) {
      const kind = numbers[at] as bridge.EventKind;
      try {
        if (kind === bridge.DELIVERY) this.#deliver(drained, at);
        else if (kind === bridge.EVENTS) this.#handle(drained, at);
        else if (kind === bridge.SAGA_CALL) this.#call(drained, at);
        else this.#take(kind, drained, at);
      } catch (error) {
        throwLater(error);
      }
      at += bridge.EVENT_LENGTHS[kind];
    }
    return numbers.length > 0;
  }

  #take(kind: bridge.EventKind, [, numbers, values]: bridge.Drained, at: number): void {
    const [first, second, third] = [numbers[at + 1], numbers[at + 2], numbers[at + 3]] as [number, number, number];
    switch (kind) {
      case bridge.REPLY:
        return this.#answer(first, second === 1, values[third]);
      case bridge.RECEIPTS:
        if (second !== 1) return this.#answer(first, false, values[third]);
        return this.#answer(first, true, receiptsOf(values[third] as PackedReceipts));
      case bridge.STOP:
        for (const sink of this.#sinks.values()) {
          const message = sink.stop(first);
          if (message !== undefined && this.#closing === undefined) sink.tellStalled(message);
        }
        return;
      case bridge.SAGA_STOP: {
        const sink = this.#sinks.get(first);
        if (sink instanceof SagaSink) sink.stopCall(second);
        return;
      }
      case bridge.LOG:
        return this.#tellLog(first, values[second] as string, values[third] as string);
      case bridge.ALERT:
        return this.#tell("alert", values[first] as Alert);
    }
  }

  #deliver(drained: bridge.Drained, at: number): void {
    const numbers = drained[1];
    const sink = this.#sinks.get(numbers[at + bridge.CONSUMER] as number);
    if (sink === undefined) {
      this.#finish(numbers[at + bridge.NUMBER] as number, RELEASED); // it was closed meanwhile
    } else {
      sink.deliver(drained, at);
    }
  }

  #handle(drained: bridge.Drained, at: number): void {
    const number = drained[1][at + bridge.CONSUMER] as number;
    const sink = this.#sinks.get(number);
    if (sink !== undefined) return sink.deliver(drained, at);
    this.#port.finishEvents(number, ["Closed", "the subscription was closed meanwhile"]);
  }

  #call(drained: bridge.Drained, at: number): void {
    const sink = this.#sinks.get(drained[1][at + bridge.CONSUMER] as number);
    if (sink !== undefined) return sink.deliver(drained, at);
    const call = drained[2][drained[1][at + bridge.SAGA_RECORD] as number] as RawCall;
    native.sagaFinish(call.handle, RELEASED, undefined); // its runner was closed meanwhile
  }

  #tellLog(number: number, station: string, text: string): void {
    const level = LEVELS[number] ?? "error";
    const record = { level, station, text };
    this.#tell("log", record);
    if (level === "error") this.#tell("error", new Error(`${station}: ${text}`, { cause: record }));
  }

  /** A listener that throws must not lose the events behind this one, and 'error' is no exception for want of one. */
  #tell<E extends keyof EngineEvents>(event: E, ...args: EngineEvents[E]): void {
    if (this.events.listenerCount(event) === 0) return;
    const told = this.events as EventEmitter;
    process.nextTick(() => {
      if (told.listenerCount(event) > 0) told.emit(event, ...args);
    });
  }
}
