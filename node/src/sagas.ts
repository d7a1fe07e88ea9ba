// The sagas of an engine: to start, to watch, and to help by hand.

import { checkNames, checkOptions } from "./arguments.js";
import type { OutgoingMessage, Paged } from "./calls.js";
import type { Choreography } from "./choreography.js";
import type { Host } from "./consumer.js";
import { InvalidArgumentError, TimeoutError } from "./errors.js";
import { Message } from "./message.js";
import { native } from "./native.js";
import type { Page, Receipt } from "./records.js";
import { type Saga, SagaDefinition } from "./saga.js";
import {
  decodeState, encodeState, type SagaEntry, type SagaInfo, type SagaQuery, type SagaResult, type SagaStarted,
} from "./saga_records.js";
import { type Cancellable, checkSignal } from "./signals.js";
import { kindOf } from "./words.js";

/** How long one question for a result takes a thread of the engine; less when many wait. */
const CONDITIONS = ["type", "status", "definitionVersion", "unfinished", "startedBefore"] as const;
const SLICE_MS = 250;
const SLICE_MS_MIN = 10;
const RESULT_TIMEOUT_MS = 30_000;

interface RawEntry extends Omit<SagaEntry, "output" | "context"> {
  output: Buffer | undefined;
  context: Buffer | undefined;
}

/** @internal */
export function checkSaga(saga: unknown): asserts saga is SagaDefinition {
  if (!(saga instanceof SagaDefinition)) {
    throw new InvalidArgumentError(`the saga is ${kindOf(saga)}, but must be a Saga or a Choreography`);
  }
}

/**
 * The sagas of an engine: `engine.sagas`. Whoever starts, asks or changes a saga need not run it: that is
 * `engine.runSaga`, in any process.
 */
export class Sagas {
  readonly #host: Host;
  #waitingCount = 0;

  /** @internal */
  constructor(host: Host) {
    this.#host = host;
  }

  /**
   * Resolves after the durable commit. `id`: 1 to 128 bytes of visible ASCII without '/'; a new one unless given. An
   * id that is there already changes nothing: so a start whose outcome is unknown may be repeated. `context`: bytes as
   * they are, else JSON. Rejects with InvalidSagaError, InvalidIdError, PayloadTooLargeError, ConflictError (the id is
   * there with another context or version); TimeoutError, UnavailableError, IoError: unknown whether it happened.
   */
  async start<C>(
    saga: Saga<C> | Choreography, context?: C, options: { id?: string } & Cancellable = {},
  ): Promise<SagaStarted> {
    checkOptions(options, "id");
    checkSaga(saga);
    return this.#host.call(options.signal, "startSaga", saga.fields(), options.id ?? "", encodeState(context));
  }

  /** undefined: there is none. */
  async find(type: string, id: string, options: Cancellable = {}): Promise<SagaInfo | undefined> {
    checkOptions(options);
    return this.#host.call(options.signal, "findSaga", type, id);
  }

  /** In order of starting. */
  async list(query: SagaQuery & Paged & Cancellable = {}): Promise<Page<SagaInfo>> {
    checkNames(query, "conditions", ...CONDITIONS, "countMax", "cursor", "signal");
    const { signal, ...conditions } = query;
    return this.#host.call(signal, "listSagas", conditions);
  }

  /** What happened to it, from the beginning. Rejects with NotFoundError. */
  async timeline(type: string, id: string, options: Cancellable = {}): Promise<SagaEntry[]> {
    checkOptions(options);
    const raw = await this.#host.call<RawEntry[]>(options.signal, "sagaTimeline", type, id);
    const value = (bytes: Buffer | undefined) => (bytes === undefined ? undefined : decodeState(bytes));
    return raw.map((one) => ({ ...one, output: value(one.output), context: value(one.context) }));
  }

  /**
   * Waits until nothing happens by itself any more, up to `timeoutMs` (30 s unless given). Rejects with NotFoundError,
   * TimeoutError.
   */
  async result<C = unknown>(
    type: string, id: string, options: { timeoutMs?: number } & Cancellable = {},
  ): Promise<SagaResult<C>> {
    checkOptions(options, "timeoutMs");
    const { timeoutMs = RESULT_TIMEOUT_MS, signal } = options;
    checkSignal(signal);
    const deadline = performance.now() + timeoutMs;
    this.#waitingCount += 1;
    try {
      for (;;) {
        const left = Math.max(0, deadline - performance.now());
        const slice = Math.min(left, Math.max(SLICE_MS_MIN, SLICE_MS / this.#waitingCount));
        try {
          const raw = await this.#host.call<{ saga: SagaInfo; context: Buffer }>(signal, "sagaResult", type, id, slice);
          return { saga: raw.saga, context: decodeState(raw.context) as C };
        } catch (error) {
          if (!(error instanceof TimeoutError) || left <= slice) throw error;
        }
      }
    } finally {
      this.#waitingCount -= 1;
    }
  }

  /**
   * Nothing new begins, and what was started is undone. Rejects with NotFoundError, ConflictError (it is over, or
   * past its pivot).
   */
  async cancel(type: string, id: string, why: string, options: Cancellable = {}): Promise<void> {
    checkOptions(options);
    await this.#host.call(options.signal, "cancelSaga", type, id, why);
  }

  /** A stuck step or compensation gets new attempts. Rejects with NotFoundError, ConflictError (it is not stuck). */
  async retry(type: string, id: string, step: string, options: Cancellable = {}): Promise<void> {
    checkOptions(options);
    await this.#host.call(options.signal, "retrySaga", type, id, step);
  }

  /**
   * A stuck step counts as done, a stuck compensation as not needed; in a choreography its `onSuccess` is published.
   * Rejects as `retry`.
   */
  async skip(type: string, id: string, step: string, options: Cancellable = {}): Promise<void> {
    checkOptions(options);
    await this.#host.call(options.signal, "skipSaga", type, id, step);
  }

  /** A stuck saga counts as completed or compensated. Rejects as `retry`. */
  async force(
    type: string, id: string, status: "completed" | "compensated", options: Cancellable = {},
  ): Promise<void> {
    checkOptions(options);
    await this.#host.call(options.signal, "forceSaga", type, id, status);
  }

  /** Adds a note to its timeline. 1 to 4096 bytes. */
  async annotate(type: string, id: string, text: string, options: Cancellable = {}): Promise<void> {
    checkOptions(options);
    await this.#host.call(options.signal, "annotateSaga", type, id, text);
  }

  // ---- events of choreographies ---------------------------------------------------------------------

  /**
   * Publishes an event of the choreography with this id, which is in its header `saga-id`, and its key. `payload`:
   * bytes as they are, else JSON. Rejects as `engine.publish`.
   */
  async publishEvent(topic: string, id: string, payload?: unknown, options: Cancellable = {}): Promise<Receipt> {
    checkOptions(options);
    return this.#host.publish(this.eventMessage(topic, id, payload), options);
  }

  /** The event as a message, to be published otherwise, as within a transaction. */
  eventMessage(topic: string, id: string, payload?: unknown): OutgoingMessage {
    const message = { ...native.sagaEvent(topic, id), value: encodeState(payload) };
    return payload === undefined || payload instanceof Uint8Array ? message
      : { ...message, contentType: "application/json" };
  }

  // ---- commands: steps that another service handles -------------------------------------------------

  /**
   * Publishes the reply to a command, the message that a saga's step has sent: `output` becomes the step's output. A
   * second one changes nothing. Rejects as `engine.publish`, with InvalidArgumentError (it is no command).
   */
  async reply(command: Message, output?: unknown, options: Cancellable = {}): Promise<Receipt> {
    checkOptions(options);
    return this.#host.publish(this.replyMessage(command, output), options);
  }

  /** The command has failed: the step's retry policy decides, unless `permanent`. Rejects as `reply`. */
  async replyFailed(
    command: Message, error: string, options: { permanent?: boolean } & Cancellable = {},
  ): Promise<Receipt> {
    checkOptions(options, "permanent");
    return this.#host.publish(this.replyFailedMessage(command, error, options), options);
  }

  /**
   * The reply as a message, to be published otherwise, as within a transaction:
   * `const { topic, value, ...rest } = engine.sagas.replyMessage(m, output); tx.publish(topic, value, rest)`.
   */
  replyMessage(command: Message, output?: unknown): OutgoingMessage {
    return { ...this.#reply(command, undefined, false), value: encodeState(output) };
  }

  /** As `replyMessage`. */
  replyFailedMessage(command: Message, error: string, options: { permanent?: boolean } = {}): OutgoingMessage {
    return { ...this.#reply(command, error, options.permanent ?? false), value: "" };
  }

  #reply(command: Message, error: string | undefined, isPermanent: boolean): Omit<OutgoingMessage, "value"> {
    if (!(command instanceof Message)) {
      throw new InvalidArgumentError(`the command is ${kindOf(command)}, but must be a message`);
    }
    return command.reply(error, isPermanent);
  }
}
