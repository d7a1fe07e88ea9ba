// A message in the hands of a handler, and what a handler may throw.

import { inspect, type InspectOptions } from "node:util";

import { checkNames } from "./arguments.js";
import type { Host } from "./consumer.js";
import { CancelledError, InvalidArgumentError } from "./errors.js";
import * as bridge from "./native.js";
import { type Details, type Handle, native, type Outcome } from "./native.js";
import { decode } from "./payload.js";
import { type Cancellable, orAborted, throwIfAborted } from "./signals.js";
import { describe, messageOf, stackOf, textOf, typeOf } from "./thrown.js";
import { runTransaction, type Transaction } from "./transaction.js";

// Outcome.Kind of the engine.
const FAIL = 1;
const NAK = 2;
const DEFER = 3;
const DEAD_LETTER = 4;
export const RELEASED: Outcome = [5, undefined, "", "", ""];

const UNREAD = Symbol("unread");

/** Throw it to be tried again after `afterMs` (left out: as the retry policy says). Counts as an attempt. */
export class Retry extends Error {
  /** In milliseconds; undefined: as the retry policy says. */
  readonly afterMs: number | undefined;
  constructor(why = "", options: { afterMs?: number } = {}) {
    super(why);
    this.afterMs = options.afterMs;
  }
  override get name(): string {
    return "Retry";
  }
}

/** Throw it to send the message to the dead letters at once, with this reason. */
export class Reject extends Error {
  override get name(): string {
    return "Reject";
  }
}

/** Throw it to be handed the message again after `afterMs`; counts nothing. */
export class Defer extends Error {
  /** In milliseconds. */
  readonly afterMs: number;
  constructor(afterMs: number) {
    super(`deferred by ${afterMs} ms`);
    this.afterMs = afterMs;
  }
  override get name(): string {
    return "Defer";
  }
}

/** What was failed by this outcome, without anything thrown; undefined: nothing was. */
export function failureOf(outcome: Outcome): Error | undefined {
  const [kind, afterMs, , why] = outcome ?? [];
  if (kind === NAK) return new Retry(why, afterMs === undefined ? {} : { afterMs });
  if (kind === DEAD_LETTER) return new Reject(why);
  return undefined;
}

/** Whether it counts as an attempt that has failed. */
export function isFailure(outcome: Outcome): boolean {
  return outcome !== undefined && [FAIL, NAK, DEAD_LETTER].includes(outcome[0]);
}

/** The furthest that the boundary takes; the engine has bounds of its own. */
const DELAY_MS_MAX = 9e12;

function delayOf(afterMs: unknown): number | undefined {
  if (typeof afterMs !== "number" || Number.isNaN(afterMs)) return undefined;
  return Math.max(-DELAY_MS_MAX, Math.min(DELAY_MS_MAX, afterMs));
}

/** A message, or the call of a saga's step. */
interface Handled {
  readonly isStopped: boolean;
}

/** What throwing this means for it. Never throws, whatever was thrown. */
export function outcomeOf(error: unknown, handled: Handled): Outcome {
  try {
    return meaningOf(error, handled);
  } catch {
    return [FAIL, undefined, "Error", "(what was thrown could not be looked at)", ""];
  }
}

function meaningOf(error: unknown, handled: Handled): Outcome {
  if (error instanceof Retry) return [NAK, delayOf(error.afterMs), "Retry", textOf(error, "message"), ""];
  if (error instanceof Reject) return [DEAD_LETTER, undefined, "Rejected", textOf(error, "message"), ""];
  if (error instanceof Defer) {
    const after = delayOf(error.afterMs);
    // Deferring counts nothing: without a wait it would come again at once, for ever.
    if (after === undefined || after < 0) return [FAIL, undefined, "Defer", messageOf(error), ""];
    return [DEFER, after, "", "", ""];
  }
  if (handled.isStopped) return RELEASED; // the result does not count any more
  return [FAIL, undefined, typeOf(error), messageOf(error), stackOf(error)];
}

function milliseconds(value: unknown, name: string): number {
  if (typeof value !== "number" || !Number.isFinite(value)) {
    throw new InvalidArgumentError(`${name} is ${describe(value)}, but must be a number of milliseconds`);
  }
  return value;
}

/** Makes settling wait until it is durable. Who aborts `signal` leaves the wait; the decision stays. */
export interface Waiting extends Cancellable {
  /** The promise resolves when the decision is durable. */
  wait: true;
}
/** Settles at once, and waits for nothing. */
export interface NotWaiting {
  /** Nothing is waited for. */
  wait?: false;
}
type Settling = Waiting | NotWaiting;

/** Of `nak`. */
export interface NakOptions {
  /** In milliseconds. Left out: as the retry policy says. */
  afterMs?: number;
  /** The text of the failure; "" unless given. */
  why?: string;
}

/**
 * One message, handed to one handler. Readable for as long as it is kept, also after it was settled.
 *
 * `ack`, `nak`, `defer` and `reject` are for consumers with `ack: "manual"` and for `messages()`: the
 * decision is taken at once and becomes durable with the consumer's next commit; with `wait: true` they give a
 * promise of that. A second one throws `AlreadySettledError`, one after the lease went to somebody else
 * `LeaseLostError` (with `wait: true` the promise rejects); both change nothing.
 */
export class Message<T = unknown> {
  // Few fields, and what is asked for is looked up: thousands of them come at once.
  readonly #host: Host;
  readonly #drained: bridge.Drained;
  readonly #at: number;
  #onSettled: ((message: Message, outcome: Outcome) => void) | undefined;
  #settledAs: Outcome | typeof UNREAD = UNREAD;
  #details: Details | undefined = undefined;
  #value: T | typeof UNREAD = UNREAD;
  #controller: AbortController | undefined = undefined;
  #isStopped = false;

  /** @internal The delivery event that begins at `at`. */
  constructor(
    host: Host, drained: bridge.Drained, at: number, onSettled?: (message: Message, outcome: Outcome) => void,
  ) {
    this.#host = host;
    this.#drained = drained;
    this.#at = at;
    this.#onSettled = onSettled;
  }

  /** Where it was published. */
  get topic(): string {
    return this.#drained[2][this.#number(bridge.TOPIC)] as string;
  }
  /** As it was published; null: none. */
  get key(): string | null {
    const place = this.#number(bridge.KEY);
    return place < 0 ? null : (this.#drained[2][place] as string);
  }
  /** As it was published, or said by the kind of the payload; "" for bytes. */
  get contentType(): string {
    return this.#drained[2][this.#number(bridge.CONTENT_TYPE)] as string;
  }
  /** 1 on the first handling, one more for each failure. Durable. */
  get attempt(): number {
    return this.#number(bridge.ATTEMPT);
  }

  /** The payload by its content type: JSON, text, else bytes. Throws PayloadError. */
  get value(): T {
    if (this.#value === UNREAD) {
      const [from, to] = [this.#number(bridge.FROM), this.#number(bridge.TO)];
      this.#value = decode(this.#drained[0], from, to, this.contentType) as T;
    }
    return this.#value;
  }

  /** The bytes, a copy each time. */
  get payload(): Buffer {
    return Buffer.from(this.#drained[0].subarray(this.#number(bridge.FROM), this.#number(bridge.TO)));
  }

  /** The identity of the message: a UUIDv7. The same over retry and redrive. */
  get id(): string {
    return this.#more().id;
  }
  /** That handles it here. */
  get group(): string {
    return this.#more().group;
  }
  /** Of its key. */
  get partition(): number {
    return this.#more().partition;
  }
  /** As they were published. */
  get headers(): Record<string, string> {
    return this.#more().headers;
  }
  /** As it was published; "" when it was not given. */
  get correlationId(): string {
    return this.#more().correlationId;
  }
  /** As it was published; "" when it was not given. */
  get causationId(): string {
    return this.#more().causationId;
  }
  /** As it was published; "" when it was not given. */
  get traceparent(): string {
    return this.#more().traceparent;
  }
  /** When it was published. */
  get publishedAt(): Date {
    return this.#more().publishedAt;
  }
  /** Deaths of a process that are charged to this message. Durable. */
  get crashes(): number {
    return this.#more().crashes;
  }
  /** An earlier handling may have run without being recorded: the effect may have happened. */
  get redelivered(): boolean {
    return this.#more().redelivered;
  }
  /** How often it was sent back from the dead letters. */
  get redrives(): number {
    return this.#more().redrives;
  }

  /** Aborts when the result does not count any more: lease lost, time is up, or the engine closes. */
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#isStopped) this.#abort();
    }
    return this.#controller.signal;
  }

  /** It is handled. */
  ack(options?: NotWaiting): void;
  ack(options: Waiting): Promise<void>;
  ack(options: Settling = {}): void | Promise<void> {
    return this.#settle(undefined, options);
  }
  /** This attempt has failed: as throwing `Retry`. */
  nak(options?: NakOptions & NotWaiting): void;
  nak(options: NakOptions & Waiting): Promise<void>;
  nak(options: NakOptions & Settling = {}): void | Promise<void> {
    checkNames(options, "options", "afterMs", "why", "wait", "signal");
    const after = options.afterMs === undefined ? undefined : milliseconds(options.afterMs, "afterMs");
    return this.#settle([NAK, after, "Nak", String(options.why ?? ""), ""], options);
  }
  /** It comes again after so many milliseconds, and nothing is counted: as throwing `Defer`. */
  defer(afterMs: number, options?: NotWaiting): void;
  defer(afterMs: number, options: Waiting): Promise<void>;
  defer(afterMs: number, options: Settling = {}): void | Promise<void> {
    return this.#settle([DEFER, milliseconds(afterMs, "afterMs"), "", "", ""], options);
  }
  /** It is a dead letter: as throwing `Reject`. */
  reject(why?: string, options?: NotWaiting): void;
  reject(why: string, options: Waiting): Promise<void>;
  reject(why = "", options: Settling = {}): void | Promise<void> {
    return this.#settle([DEAD_LETTER, undefined, "Rejected", String(why), ""], options);
  }

  /**
   * `sqlite:` only. Runs `body` now: its SQL, what it publishes and the acknowledgement of this message are one
   * transaction. When it throws nothing happened, and the message is unsettled. It must be quick, and not
   * asynchronous: every writer of the file waits for it, and so does the event loop. Throws UnsupportedError,
   * LeaseLostError, InvalidArgumentError, and what `body` throws.
   */
  transaction<R>(body: (transaction: Transaction) => R extends PromiseLike<unknown> ? never : R): void {
    runTransaction(this.#deliveries(), this.#number(bridge.PLACE), body);
    this.#settled(undefined);
  }

  /** Gives the handler so many milliseconds more, from now. At most 24 hours. */
  extend(byMs: number): void {
    native.extend(this.#deliveries(), this.#number(bridge.PLACE), byMs);
  }
  /** Notes how far the handler is; also gives it its whole time again. */
  progress(note = ""): void {
    native.progress(this.#deliveries(), this.#number(bridge.PLACE), note);
  }

  /** Whether `signal` has fired, without making one. */
  get isStopped(): boolean {
    return this.#isStopped;
  }

  /** @internal What counts of it when its handler has ended with `outcome`; undefined in a list: nothing does. */
  counted(outcome: Outcome): [Outcome] | undefined {
    if (this.#settledAs !== UNREAD) return [this.#settledAs];
    return this.#isStopped ? undefined : [outcome];
  }

  /** @internal */
  stop(): void {
    this.#isStopped = true;
    if (this.#controller !== undefined) this.#abort();
  }

  /** @internal The reply to this message, a command of a saga, but for its payload; `error` undefined: it is done. */
  reply(error: string | undefined, isPermanent: boolean): ReturnType<typeof native.sagaReply> {
    return native.sagaReply(this.#deliveries(), this.#number(bridge.PLACE), error, isPermanent);
  }

  /** What console.log shows. */
  [inspect.custom](_depth: number, options: InspectOptions): string {
    const { topic, id, key, contentType, attempt } = this;
    return `Message ${inspect({ topic, id, key, contentType, attempt }, options)}`;
  }

  /** The field of its event. */
  #number(field: number): number {
    return this.#drained[1][this.#at + field] as number;
  }

  #deliveries(): Handle {
    return this.#drained[3] as Handle;
  }

  #abort(): void {
    this.#controller?.abort(
      new CancelledError("the result does not count any more: its time is up, its lease lost, or all closes"),
    );
  }

  #more(): Details {
    return (this.#details ??= native.details(this.#deliveries(), this.#number(bridge.PLACE)));
  }

  #settle(outcome: Outcome, options: Settling): void | Promise<void> {
    if (outcome?.[0] !== NAK) checkNames(options, "options", "wait", "signal");
    if (options.wait) return this.#settleDurably(outcome, options.signal);
    if ((options as Cancellable).signal !== undefined) {
      throw new InvalidArgumentError("signal ends a wait, and without wait: true there is none");
    }
    native.settle(this.#deliveries(), this.#number(bridge.PLACE), outcome);
    this.#settled(outcome);
  }

  #settled(outcome: Outcome): void {
    this.#settledAs = outcome;
    this.#onSettled?.(this as Message, outcome);
  }

  async #settleDurably(outcome: Outcome, signal: AbortSignal | undefined): Promise<void> {
    throwIfAborted(signal);
    const settling = this.#host
      .call<void>(undefined, "settleDurably", this.#deliveries(), this.#number(bridge.PLACE), outcome)
      .then(() => this.#settled(outcome));
    return orAborted(settling, signal);
  }
}
