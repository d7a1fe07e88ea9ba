// The event store: streams of events that are only appended to, read back in order, and followed.

import { checkObject, checkOptions, textsOf } from "./arguments.js";
import type { Host } from "./consumer.js";
import {
  type Appended, eventFields, type EventPage, LAST, type NewEvent, placeFrom, type RawPage, type RawSnapshot,
  RecordedEvent, Snapshot, type StreamInfo,
} from "./event_records.js";
import { InvalidArgumentError } from "./errors.js";
import { type EventHandler, EventSink, EventSubscription } from "./event_subscription.js";
import type { Handle, Port } from "./native.js";
import type { EventSubscriptionOptions, RetryOptions } from "./options.js";
import { encode } from "./payload.js";
import type { Page } from "./records.js";
import { type Cancellable, orAborted, throwIfAborted } from "./signals.js";
import { kindOf } from "./words.js";

/** Which events of a stream. */
export interface ReadOptions extends Cancellable {
  /** Included; whole. */
  from?: bigint | number;
  /** [1, 10000]; 1000 unless given. Less come when their payloads pass 4 MiB. */
  countMax?: number;
}

/** Of a subscription. */
export interface FollowOptions
  extends Omit<EventSubscriptionOptions, "name" | "intervalMs" | "retry">, Cancellable {}

export interface HandleEventsOptions extends FollowOptions {
  /** How long to wait before what the handler failed at comes again; its `maxAttempts` ends nothing. */
  retry?: RetryOptions;
}

/** Of `streamTo`. */
export interface StreamToOptions extends EventSubscriptionOptions, Cancellable {
  /** Its place is kept under it. */
  name: string;
}

const COUNT_MAX = 1_000;
const LIST_COUNT_MAX = 100;
const FIRST = 1n;

function pageOf<T>(raw: RawPage): EventPage<T> {
  return { ...raw, events: raw.events.map((one) => new RecordedEvent<T>(one)) };
}

/**
 * The events of an engine: `engine.eventStore`. A stream is made by its first append; its events have the versions
 * 1, 2, 3, ... without gaps, and each has a position in the order of all events. A stream's name has 1 to 255
 * bytes of visible ASCII. Versions and positions are bigints; whole numbers are taken, too.
 */
export class EventStore {
  readonly #host: Host;
  /** Those that stream go on until they are closed, whether or not somebody keeps them. */
  readonly #streaming = new Set<EventSubscription>();

  /** @internal */
  constructor(host: Host) {
    this.#host = host;
  }

  /**
   * Appends all events in a row, or none. `expected`: the version that the stream must have now, 0 for one that
   * must not exist; unless given any. When the first of them is there already, under its id, all must be: then
   * nothing is changed and the answer is that of the first time, so an append whose outcome is unknown may be
   * repeated with the same ids.
   *
   * Rejects with ConflictError (another version; some of the ids are there), InvalidNameError, InvalidIdError,
   * InvalidHeaderError, PayloadTooLargeError, BatchTooLargeError.
   */
  async append(
    stream: string, events: readonly NewEvent[], options: { expected?: bigint | number } & Cancellable = {},
  ): Promise<Appended> {
    checkOptions(options, "expected");
    const { expected, signal } = options;
    const version = expected === undefined ? undefined : placeFrom(expected, "expected");
    return this.#host.call(signal, "append", stream, eventFields(events), version);
  }

  /** Events of one stream from a version on (1 unless given); what was truncated is not there. */
  async read<T = unknown>(stream: string, options: ReadOptions = {}): Promise<EventPage<T>> {
    checkOptions(options, "from", "countMax");
    const from = placeFrom(options.from ?? FIRST, "from");
    return pageOf(await this.#host.call<RawPage>(
      options.signal, "readEvents", stream, from, options.countMax ?? COUNT_MAX));
  }

  /** The same backwards, from a version down; unless given from the newest. */
  async readBackwards<T = unknown>(stream: string, options: ReadOptions = {}): Promise<EventPage<T>> {
    checkOptions(options, "from", "countMax");
    const from = placeFrom(options.from ?? LAST, "from");
    return pageOf(await this.#host.call<RawPage>(
      options.signal, "readEventsBackwards", stream, from, options.countMax ?? COUNT_MAX));
  }

  /** Events of all streams in their order, from a position on (1 unless given). */
  async readAll<T = unknown>(options: ReadOptions = {}): Promise<EventPage<T>> {
    checkOptions(options, "from", "countMax");
    const from = placeFrom(options.from ?? FIRST, "from");
    return pageOf(await this.#host.call<RawPage>(
      options.signal, "readAllEvents", from, options.countMax ?? COUNT_MAX));
  }

  /** The versions there are; undefined: no such stream. */
  async findStream(stream: string, options: Cancellable = {}): Promise<StreamInfo | undefined> {
    checkOptions(options);
    return this.#host.call(options.signal, "findStream", stream);
  }

  /** By name. */
  async streams(
    options: { prefix?: string; countMax?: number; cursor?: string } & Cancellable = {},
  ): Promise<Page<StreamInfo>> {
    checkOptions(options, "prefix", "countMax", "cursor");
    return this.#host.call(options.signal, "streams", options.prefix ?? "", options.countMax ?? LIST_COUNT_MAX,
      options.cursor ?? "");
  }

  /** Removes events before a version; the newest one stays. Rejects with NotFoundError. */
  async truncate(stream: string, beforeVersion: bigint | number, options: Cancellable = {}): Promise<void> {
    checkOptions(options);
    await this.#host.call(options.signal, "truncateStream", stream, placeFrom(beforeVersion, "beforeVersion"));
  }

  /**
   * Keeps a snapshot, one per stream; an older one than is kept changes nothing. `state` as a value of an event.
   * Rejects with NotFoundError (the stream has no such version), PayloadTooLargeError.
   */
  async saveSnapshot(
    stream: string, version: bigint | number, state: unknown,
    options: { contentType?: string } & Cancellable = {},
  ): Promise<void> {
    checkOptions(options, "contentType");
    const [bytes, known] = encode(state);
    await this.#host.call(options.signal, "saveSnapshot", stream, placeFrom(version, "version"), bytes,
      options.contentType ?? known);
  }

  /** The newest one, or undefined. */
  async findSnapshot<T = unknown>(stream: string, options: Cancellable = {}): Promise<Snapshot<T> | undefined> {
    checkOptions(options);
    const raw = await this.#host.call<RawSnapshot | undefined>(options.signal, "findSnapshot", stream);
    return raw === undefined ? undefined : new Snapshot<T>(raw);
  }

  /**
   * A durable reader: what was, then what comes, without a gap or a repetition at the seam. Its place is kept under
   * its name; of all that follow under one name, in any process, one is active. With `stream` places are its
   * versions, else they are positions. Rejects with InvalidNameError, InvalidConfigError, InvalidTopicError (of
   * `types`), TopologyMismatchError (the name follows another stream).
   *
   * With a `handler` the engine calls it, until it or the subscription is closed, with at most `batchCountMax` events,
   * in order, one call at a time. When it returns the checkpoint moves. When it throws, the same events come again after
   * the backoff of `retry`, however often: nothing is passed over. Such a subscription keeps the process alive, and
   * aborting `signal` closes it.
   */
  async subscribe<T = unknown>(name: string, options?: FollowOptions): Promise<EventSubscription<T>>;
  async subscribe<T = unknown>(
    name: string, options: HandleEventsOptions, handler: EventHandler<T>,
  ): Promise<EventSubscription<T>>;
  async subscribe<T = unknown>(
    name: string, options: HandleEventsOptions = {}, handler?: EventHandler<T>,
  ): Promise<EventSubscription<T>> {
    checkObject(options, "options of subscribe");
    const { signal, ...settings } = options;
    const texts = textsOf("EventSubscription", { ...settings, name }, ["signal"]);
    if (handler !== undefined) return this.#handle(texts, options, handler);
    const handle = await this.#started(signal, "followEvents", texts);
    return new EventSubscription<T>(this.#host, handle, settings);
  }

  async #handle<T>(
    texts: string[], options: HandleEventsOptions, handler: EventHandler<T>,
  ): Promise<EventSubscription<T>> {
    if (typeof handler !== "function") {
      throw new InvalidArgumentError(`the handler is ${kindOf(handler)}, but must be a function`);
    }
    const sink = new EventSink<T>(this.#host, this.#host.newNumber(), handler);
    let subscription: EventSubscription<T> | undefined;
    const start = async () => {
      const handle = await this.#host.call<Handle>(undefined, "handleEvents", sink.number, texts);
      subscription = new EventSubscription<T>(this.#host, handle, options, () => {}, sink);
    };
    await this.#host.attach(sink, options.signal, start, () => {
      subscription?.close().catch(() => {});
    });
    return subscription as unknown as EventSubscription<T>;
  }

  /**
   * Publishes each event to a topic, in order, `{type}` in the topic standing for its type, until it or the engine
   * is closed; it does not keep the process alive. Key is the stream, id the event's. On `sqlite:` and `memory:` the place moves in the transaction
   * that publishes. The headers towline-stream, towline-version, towline-position and towline-event-type say where
   * it is from. Rejects as `subscribe`, with InvalidTopicError.
   */
  async streamTo(topic: string, options: StreamToOptions): Promise<EventSubscription> {
    checkObject(options, "options of streamTo");
    const { signal, ...settings } = options;
    const texts = textsOf("EventSubscription", settings, ["signal"]);
    const handle = await this.#started(signal, "streamEvents", topic, texts);
    const streaming: EventSubscription = new EventSubscription(this.#host, handle, settings,
      () => this.#streaming.delete(streaming));
    this.#streaming.add(streaming);
    return streaming;
  }

  /** What was started for a caller who has left is closed again: nobody holds it, and it would have the lease. */
  async #started(signal: AbortSignal | undefined, ...call: [name: keyof Port, ...unknown[]]): Promise<Handle> {
    throwIfAborted(signal);
    const starting = this.#host.call<Handle>(undefined, ...call);
    try {
      return await orAborted(starting, signal);
    } catch (error) {
      starting.then((handle) => this.#host.call(undefined, "closeEventSubscription", handle)).catch(() => {});
      throw error;
    }
  }
}
