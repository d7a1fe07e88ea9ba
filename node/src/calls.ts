// Everything that an open engine can be asked; how the answer comes is the engine's (engine.ts).

import { EventEmitter } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";

import { checkDate, checkHeaders, checkNames, checkObject, checkOptions, textsOf } from "./arguments.js";
import type { Consumer } from "./consumer.js";
import * as errors from "./errors.js";
import type { Message } from "./message.js";
import type { Fields, Port } from "./native.js";
import type { IdempotencyOptions, RetryOptions, TopicOptions } from "./options.js";
import { decode, encode, PayloadError } from "./payload.js";
import type {
  Answer, BlockedKey, DeadLetter, Alert, DeadLetterGroup, DeadLetterQuery, EngineStatistics,
  GroupBacklog, Health, LogRecord, Page, Receipt, RedriveOptions, RedriveReport, Scheduled,
} from "./records.js";
import { type Cancellable, cancelled, checkSignal, orAborted } from "./signals.js";
import { messageOf } from "./thrown.js";
import { kindOf, otherNames } from "./words.js";

/** Which part of a listing. */
export interface Paged {
  /** [1, 1000]; 100 unless given. */
  countMax?: number;
  /** Of the page before. */
  cursor?: string;
}

/** How a message is published. */
export interface MessageOptions {
  /** Messages of one key keep their order where a consumer asks for it. */
  key?: string | null;
  /** Names and texts; what handlers get. */
  headers?: Record<string, string>;
  /** Said by the kind of the payload unless given. */
  contentType?: string;
  /** 0 (normal) to 9 (first). */
  priority?: number;
  /** When it ends before a handler starts the message becomes a dead letter. */
  ttlMs?: number;
  /** A second publish with the same one answers the first one's id and stores nothing. */
  dedupId?: string;
  /** `dedupId` counts for as long as the first message is not finished. */
  dedupWhileUnfinished?: boolean;
  /** What belongs together; handed on as it is. */
  correlationId?: string;
  /** Of what this message follows from; handed on as it is. */
  causationId?: string;
  /** Of W3C Trace Context; handed on as it is. */
  traceparent?: string;
  /** How long it waits before it is delivered, in milliseconds. */
  delayMs?: number;
  /** A number is milliseconds since 1970. */
  dueAt?: Date | number;
  /** A delayed message that could not fire within this becomes a dead letter. */
  skipIfLateByMs?: number;
  /** A UUID of your own, to know it beforehand. */
  id?: string;
}

/** How a message is published, and how its caller may leave. */
export type PublishOptions = MessageOptions & Cancellable;

/** One message of a batch. */
export interface OutgoingMessage extends MessageOptions {
  /** Where it goes. */
  topic: string;
  /** What `publish` takes. */
  value: unknown;
}

const PUBLISH_OPTIONS = new Set([
  "key", "headers", "contentType", "priority", "ttlMs", "dedupId", "dedupWhileUnfinished", "correlationId",
  "causationId", "traceparent", "delayMs", "dueAt", "skipIfLateByMs", "id", "signal",
]);

const CONDITIONS = [
  "topic", "group", "status", "errorType", "fingerprint", "text", "reason", "createdFrom", "createdBefore",
] as const;
const OF_REDRIVE = ["dryRun", "ratePerSecond", "delayMs", "destination", "redriveMax"] as const;

/** Between two questions whether somebody else's run of a key is done. */
const POLL_MS = 50;

/** Reads each option once. `signal` is the caller's. */
export function fieldsOf(topic: string, value: unknown, options: MessageOptions): Fields {
  checkObject(options, "options of publish");
  return read(topic, value, options, false);
}

/** Without an object for each message that has none of the rare options. */
function read(topic: string, value: unknown, options: MessageOptions, isWhole: boolean): Fields {
  const { key, contentType } = options;
  let others: Record<string, unknown> | undefined;
  for (const name in options) {
    if (name === "key" || name === "contentType" || name === "signal") continue;
    if (isWhole && (name === "topic" || name === "value")) continue;
    if (!Object.hasOwn(options, name)) continue;
    if (!PUBLISH_OPTIONS.has(name)) {
      const known = [...(isWhole ? ["topic", "value"] : []), ...PUBLISH_OPTIONS];
      throw new errors.InvalidArgumentError(`unknown option '${name}' of publish${otherNames(name, known)}`);
    }
    others ??= {};
    const given = options[name as keyof MessageOptions];
    if (name === "headers") checkHeaders(given);
    else if (name === "dueAt") checkDate(given, name);
    others[name] = given;
  }
  const [payload, kind] = encode(value);
  return [topic, payload, key, contentType ?? kind, others];
}

function checkConditions(query: DeadLetterQuery, ...others: readonly string[]): void {
  checkNames(query, "conditions", ...CONDITIONS, ...others);
  checkDate(query.createdFrom, "createdFrom");
  checkDate(query.createdBefore, "createdBefore");
}

function checkMessages(messages: unknown): void {
  if (Array.isArray(messages)) return;
  throw new errors.InvalidArgumentError(`the messages are ${kindOf(messages)}, but must be a list`);
}

/** What cannot be sent says which one it is. */
function fieldsOfBatch(messages: readonly OutgoingMessage[]): Fields[] {
  const fields: Fields[] = [];
  for (const [at, one] of messages.entries()) {
    try {
      if (typeof one !== "object" || one === null) {
        throw new errors.InvalidArgumentError(`${kindOf(one)} is no message; give an object with topic and value`);
      }
      fields.push(read(one.topic, one.value, one, true));
    } catch (error) {
      const isOurs = error instanceof errors.InvalidArgumentError || error instanceof PayloadError;
      if (!isOurs) throw error;
      const Kind = error.constructor as new (message: string, options: { cause?: unknown }) => Error;
      throw new Kind(`messages[${at}]: ${error.message}`, { cause: error.cause });
    }
  }
  return fields;
}

interface IdempotencyAnswer {
  kind: "acquired" | "in_progress" | "completed";
  token: object;
  retryAfterMs: number;
  result: Buffer;
  contentType: string;
}

/**
 * What `engine.events` tells, to whoever listens when it happens. Those of messages are of the consumers of this engine,
 * `messages()` included; of sagas and of events none are told. A listener runs behind what is done now, and what it
 * throws is an uncaught exception that harms no other.
 */
export interface EngineEvents {
  /** Something that a person should look at. */
  alert: [alert: Alert];
  /** One record of the log, from the `logLevel` on that `Engine.open` was given. */
  log: [record: LogRecord];
  /**
   * What an engine or a consumer met by itself and nobody waits for, such as an outcome that could not be stored: each
   * record of the level "error", which is the `cause`. Without a listener nothing happens; with `logLevel: "off"` there
   * is none.
   */
  error: [error: Error];
  /** Handled: its handler has returned, or it was settled with `ack`. It is durable with the consumer's next commit. */
  completed: [message: Message, consumer: Consumer];
  /**
   * An attempt has failed, by what the handler threw; by `nak` and `reject` it is what would have to be thrown for the
   * same, a `Retry` or a `Reject`. Whether the message comes again or is a dead letter is decided behind it. `Defer` and
   * `defer` fail nothing.
   */
  failed: [error: unknown, message: Message, consumer: Consumer];
  /**
   * The result of a handler that still runs does not count any more, and the message comes again: its time is up, or its
   * lease lost. It is neither completed nor failed then. What closing gives back is not told.
   */
  stalled: [message: Message, consumer: Consumer];
  /** `consumer.drain()` has ended: nothing is in flight, and the consumer is paused. */
  drained: [consumer: Consumer];
  /** The engine is closed. */
  closed: [];
}

/**
 * The calls of an engine. Times are milliseconds. Every call rejects with a `TowlineError`: `ClosedError` after close,
 * InvalidArgumentError and InvalidConfigError for what it cannot take, and what is said with it; a value that cannot
 * be written is a `PayloadError`. Bad input is refused before any I/O and changes nothing.
 */
export abstract class Calls {
  /** What the engine tells by itself: see EngineEvents. */
  readonly events = new EventEmitter<EngineEvents>();

  /** @internal */
  protected abstract call<T>(
    signal: AbortSignal | undefined, name: keyof Port, ...values: unknown[]
  ): Promise<T>;
  /** @internal */
  protected abstract send(messages: Fields[], signal: AbortSignal | undefined): Promise<Receipt[]>;

  // ---- publish and schedule -------------------------------------------------------------------------

  /**
   * Publishes one message; resolves when it is stored durably. `value`: bytes as they are, strings as UTF-8,
   * else JSON. Rejects unless the message was stored; `error.outcome` is "rejected" (surely not stored) or
   * "unknown" (repeat it only with a dedup id), also that of a PayloadError.
   */
  async publish(topic: string, value: unknown, options: PublishOptions = {}): Promise<Receipt> {
    try {
      checkObject(options, "options of publish");
      const { signal, ...message } = options;
      const [receipt] = await this.send([fieldsOf(topic, value, message)], signal);
      return acked(receipt as Receipt);
    } catch (error) {
      return unstored(error);
    }
  }

  /**
   * Publishes many. One receipt per message, in order; it does not reject for what the engine refuses of single
   * messages (a topic, a key, a delay ...), so look at `receipt.outcome`. The valid ones are stored together.
   *
   * What cannot be sent at all, a value that cannot be written (PayloadError), a misspelt option or one of another type
   * (InvalidArgumentError), refuses the whole call before anything is sent: `error.outcome` is "rejected", and its
   * text names the place of the message. Rejects with BatchTooLargeError (`batchCountMax`).
   */
  async publishBatch(messages: readonly OutgoingMessage[], options: Cancellable = {}): Promise<Receipt[]> {
    try {
      checkOptions(options);
      checkMessages(messages);
      return await this.send(fieldsOfBatch(messages), options.signal);
    } catch (error) {
      return unstored(error);
    }
  }

  /**
   * Publishes, and while the message is not stored tries again by `retry`, at most for `timeoutMs`. When all
   * attempts failed it becomes a dead letter "publish_failed", and this rejects with the last error.
   */
  async publishWithRetry(
    topic: string, value: unknown,
    options: PublishOptions & { retry?: RetryOptions; timeoutMs?: number } = {},
  ): Promise<Receipt> {
    try {
      checkObject(options, "options of publish");
      const { retry = {}, timeoutMs, signal, ...message } = options;
      const fields = fieldsOf(topic, value, message);
      checkObject(retry, "options of retry");
      const texts = textsOf("Retry", retry, [], "retry.");
      return acked(await this.call<Receipt>(signal, "publishWithRetry", fields, texts, timeoutMs));
    } catch (error) {
      return unstored(error);
    }
  }

  /** "done": it will never fire. Exactly one of cancelling and firing wins, across processes. */
  async cancel(messageId: string, options: Cancellable = {}): Promise<Answer> {
    checkOptions(options);
    return this.call(options.signal, "cancel", messageId);
  }

  /**
   * Cancels many with one commit, each by itself: one answer per id, in order; an id that is there twice is
   * "not_found" the second time. Rejects with BatchTooLargeError (`batchCountMax`). After an error of the store some may
   * have been cancelled, and asking again is harmless.
   */
  async cancelBatch(messageIds: readonly string[], options: Cancellable = {}): Promise<Answer[]> {
    checkOptions(options);
    return this.call(options.signal, "cancelBatch", messageIds);
  }

  /** Moves the due time of a delayed message; a number is milliseconds since 1970. */
  async reschedule(messageId: string, dueAt: Date | number, options: Cancellable = {}): Promise<Answer> {
    checkOptions(options);
    checkDate(dueAt, "dueAt");
    return this.call(options.signal, "reschedule", messageId, dueAt);
  }

  /** What was delayed, by due time. */
  async pending(options: { topic?: string } & Paged & Cancellable = {}): Promise<Page<Scheduled>> {
    checkOptions(options, "topic", "countMax", "cursor");
    return this.call(options.signal, "pending", options.topic ?? "", options.countMax ?? 100,
      options.cursor ?? "");
  }

  // ---- topics and groups ----------------------------------------------------------------------------

  /**
   * Makes a topic with settings of its own. Idempotent; rejects with TopologyMismatchError for other
   * ones.
   */
  async declareTopic(topic: string, options: TopicOptions & Cancellable = {}): Promise<void> {
    checkObject(options, "options of the topic");
    const { signal, ...settings } = options;
    await this.call(signal, "declareTopic", topic, textsOf("Topic", settings, ["signal"]));
  }

  /** What waits for each group on each topic. */
  async backlog(options: Cancellable = {}): Promise<GroupBacklog[]> {
    checkOptions(options);
    return this.call(options.signal, "backlog");
  }

  /** The keys that wait for a failed message, or for a person. */
  async blockedKeys(group: string, topic: string, options: Cancellable = {}): Promise<BlockedKey[]> {
    checkOptions(options);
    return this.call(options.signal, "blockedKeys", group, topic);
  }

  /** Lets what waits behind a blocked key go on. Rejects with NotFoundError. */
  async releaseKey(group: string, topic: string, key: string, options: Cancellable = {}): Promise<void> {
    checkOptions(options);
    await this.call(options.signal, "releaseKey", group, topic, key);
  }

  // ---- dead letters ---------------------------------------------------------------------------------

  /** The dead letters for which every condition holds, newest last. */
  async deadLetters(query: DeadLetterQuery & Paged & Cancellable = {}): Promise<Page<DeadLetter>> {
    checkConditions(query, "countMax", "cursor", "signal");
    const { signal, ...conditions } = query;
    return this.call(signal, "deadLetters", conditions);
  }

  /** One entry, or undefined. */
  async findDeadLetter(entryId: string, options: Cancellable = {}): Promise<DeadLetter | undefined> {
    checkOptions(options);
    return this.call(options.signal, "findDeadLetter", entryId);
  }

  /** Dead letters by fingerprint. */
  async deadLetterGroups(query: DeadLetterQuery & Cancellable = {}): Promise<DeadLetterGroup[]> {
    checkConditions(query, "signal");
    const { signal, ...conditions } = query;
    return this.call(signal, "deadLetterGroups", conditions);
  }

  /**
   * Sends one entry back: attempts start at 1 again, the message id stays. Rejects with NotFoundError,
   * ConflictError (not pending), LimitExceededError (`redriveMax`).
   */
  async redrive(entryId: string, options: RedriveOptions & Cancellable = {}): Promise<void> {
    checkOptions(options, "payload", ...OF_REDRIVE);
    const { signal, payload, ...how } = options;
    const bytes = payload === undefined ? {} : { payload: encode(payload)[0] };
    await this.call(signal, "redrive", entryId, { ...how, ...bytes });
  }

  /** Sends back every pending entry that matched when the call began. */
  async redriveAll(
    query: DeadLetterQuery = {}, options: Omit<RedriveOptions, "payload"> & Cancellable = {},
  ): Promise<RedriveReport> {
    checkConditions(query);
    checkObject(options, "options");
    if ("payload" in options) {
      throw new errors.InvalidArgumentError("unknown 'payload' among the options: it replaces that of a single entry, "
        + "with redrive; redriveAll sends each entry's own");
    }
    checkOptions(options, ...OF_REDRIVE);
    const { signal, ...how } = options;
    return this.call(signal, "redriveAll", query, how);
  }

  /** Marks a pending entry as given up; it is kept until the clean-up. */
  async discardDeadLetter(entryId: string, options: Cancellable = {}): Promise<void> {
    checkOptions(options);
    await this.call(options.signal, "discardDeadLetter", entryId);
  }

  // ---- idempotency ----------------------------------------------------------------------------------

  /**
   * Runs `run` unless this key has a result, and resolves to the result. Single flight among callers and processes; a
   * run that throws leaves the key free. null, 0, false and "" are results.
   *
   * The first caller gets what all later ones get, the result as it was stored: bytes as a Buffer, text as it is,
   * everything else as JSON gives it back (a Date is its text, an instance of a class a plain object, undefined null).
   * A result that cannot be stored rejects with PayloadError or PayloadTooLargeError when `run` has run already, and it
   * runs again with the next call.
   *
   * `waitMsMax`: how long to wait for another caller's run. Rejects with InProgressError beyond that,
   * KeyMismatchError (another `fingerprint`), LeaseLostError (it took longer than `leaseMs`, and somebody
   * else has the key now). Aborting `signal` ends the wait for the key; what `run` waits for is its own.
   */
  async once<T>(
    key: string, run: () => T | Promise<T>, options: IdempotencyOptions & Cancellable = {},
  ): Promise<T> {
    if (typeof run !== "function") {
      throw new errors.InvalidArgumentError(`what runs once is ${kindOf(run)}, but must be a function`);
    }
    checkObject(options, "options of once");
    const { signal, ...settings } = options;
    const texts = textsOf("Idempotency", settings, ["signal"]);
    const deadline = performance.now() + (settings.waitMsMax ?? 0);
    let answer: IdempotencyAnswer;
    for (;;) {
      answer = await this.#begin(key, texts, signal);
      if (answer.kind === "completed") return resultOf<T>(answer);
      if (answer.kind === "acquired") break;
      if (performance.now() >= deadline) {
        throw new errors.InProgressError(`somebody else runs the key '${key}'; ask again, or give waitMsMax`);
      }
      await orAborted(sleep(Math.min(POLL_MS, answer.retryAfterMs)), signal);
    }
    try {
      const value = await run();
      return await this.#complete<T>(key, value, answer, texts);
    } catch (error) {
      // Free for the next one, unless somebody else has it already.
      await this.call(undefined, "fail", answer.token).catch(() => {});
      throw error;
    }
  }

  /** Stores the result, and gives it as it was stored. */
  async #complete<T>(key: string, value: unknown, { token }: IdempotencyAnswer, texts: string[]): Promise<T> {
    try {
      const [result, contentType] = encode(value === undefined ? null : value);
      const stored = Buffer.from(result as Uint8Array); // a copy: it may be changed meanwhile
      await this.call(undefined, "complete", token, stored, contentType, texts);
      return resultOf<T>({ result: stored, contentType });
    } catch (error) {
      throw notKept(key, error);
    }
  }

  /** A key that is acquired for a caller who has left meanwhile is free again. */
  #begin(key: string, texts: string[], signal: AbortSignal | undefined): Promise<IdempotencyAnswer> {
    const begin = () => this.call<IdempotencyAnswer>(undefined, "begin", key, texts);
    if (signal === undefined) return begin();
    return new Promise((resolve, reject) => {
      checkSignal(signal);
      if (signal.aborted) throw cancelled(signal);
      let hasLeft = false;
      const leave = () => {
        hasLeft = true;
        reject(cancelled(signal));
      };
      signal.addEventListener("abort", leave, { once: true });
      begin()
        .finally(() => signal.removeEventListener("abort", leave))
        .then((answer) => {
          resolve(answer);
          if (!hasLeft || answer.kind !== "acquired") return undefined;
          return this.call(undefined, "fail", answer.token);
        })
        .catch(reject);
    });
  }

  // ---- operation ------------------------------------------------------------------------------------

  async statistics(options: Cancellable = {}): Promise<EngineStatistics> {
    checkOptions(options);
    return this.call(options.signal, "statistics");
  }

  async health(options: Cancellable = {}): Promise<Health> {
    checkOptions(options);
    return this.call(options.signal, "health");
  }

  /** What the provider found at opening, one sentence each. */
  async findings(options: Cancellable = {}): Promise<string[]> {
    checkOptions(options);
    return this.call(options.signal, "findings");
  }

  /**
   * Waits until nothing is due, receivable or running. For tests with a virtual clock; `timeoutMs` (10 s
   * unless given) is real time. Rejects with TimeoutError.
   */
  async settleDown(options: { timeoutMs?: number } & Cancellable = {}): Promise<void> {
    checkOptions(options, "timeoutMs");
    await this.call(options.signal, "settleDown", options.timeoutMs ?? 10_000);
  }
}

/** Its effect may have happened: who reads it must not take it for a call that did nothing. */
function notKept(key: string, error: unknown): Error {
  const why = `the function of the key '${key}' has run, but its result was not kept: ${messageOf(error)}`;
  if (!(error instanceof errors.TowlineError)) return new PayloadError(why, { cause: error });
  const Kind = error.constructor as new (message: string, context: errors.ErrorContext) => errors.TowlineError;
  return new Kind(why, { cause: error, nativeCode: error.nativeCode });
}

function resultOf<T>({ result, contentType }: Pick<IdempotencyAnswer, "result" | "contentType">): T {
  return (contentType === "" ? result : decode(result, 0, result.length, contentType)) as T;
}

/** A publish that has no receipt was not even tried, unless its error says that nobody knows. */
function unstored(error: unknown): never {
  if (error instanceof errors.TowlineError || error instanceof PayloadError) error.outcome ??= "rejected";
  throw error;
}

function acked(receipt: Receipt): Receipt {
  if (receipt.error !== undefined) {
    receipt.error.outcome = receipt.outcome === "unknown" ? "unknown" : "rejected";
    throw receipt.error;
  }
  return receipt;
}


