// Choreographies: sagas whose steps are joined by events.

import { InvalidArgumentError } from "./errors.js";
import type { SagaStepOptions } from "./options.js";
import { SagaDefinition, type SagaDefinitionOptions, type SagaHandler, stepOf } from "./saga.js";
import { kindOf } from "./words.js";

/** Of a step of a choreography. */
export interface EventStepOptions extends SagaStepOptions {
  /** Unless given, `onSuccess`. */
  name?: string;
}

function checkText(text: unknown, what: string): void {
  if (typeof text !== "string") throw new InvalidArgumentError(`${what} is ${kindOf(text)}, but must be a string`);
}

/**
 * A saga that nobody directs: each step runs when its event was heard, and what comes of it is the event that others
 * listen to, in this process or in other services.
 *
 *     const order = new Choreography("order", "order.placed")
 *       .on("order.placed", reserve, "stock.reserved", "stock.refused")
 *       .expect("stock.reserved", "payment.done", "payment.failed", { timeoutMs: 60_000 }) // another service charges
 *       .on("payment.failed", release, "stock.released")
 *       .on("payment.done", ship, "order.shipped", "shipping.failed");
 *
 * Events are messages with the saga's id in the header `saga-id`: see `Sagas.publishEvent`. One on the topic
 * `beginsWith` begins a saga, by that id or by its own. Run it, start it, ask for it and change it as any other saga.
 *
 * It takes each event once. It is over when nothing is left to run or to wait for: completed, when every step at the
 * end of the way without failures has succeeded; stuck, when a step of the way after a failure was tried as often as
 * it may be and nobody listens to its own failure; else compensated. Cancelled, or behind its deadline, it begins no
 * step of the way without failures any more: their failure events are published instead, so that the others undo what
 * was done. What it awaits it still waits for: others may be at it. Of the two events of what is awaited only the
 * first counts, and not before the event that it follows.
 *
 * Each type that listens to a topic gets all events there, so whoever shares a topic shares the ids. An event that
 * comes before its saga has begun waits for it up to `earlyEventTtlMs`, and is then a dead letter of the group
 * `towline.saga.TYPE`. A service with steps of its own makes its own choreography, of another type, with the same id,
 * which its events carry.
 */
export class Choreography extends SagaDefinition {
  /** The topic whose events begin a saga. */
  readonly beginsWith: string;

  constructor(type: string, beginsWith: string, options: SagaDefinitionOptions = {}) {
    super(type, options, beginsWith);
    checkText(beginsWith, "beginsWith");
    this.beginsWith = beginsWith;
    this.stages.push([]);
  }

  /**
   * `execute` runs when `listenTo` was heard; `E` is the type of the event's payload, its context. What it returns is
   * published to `onSuccess`. When it has failed for good, what it got is published to `onFailure`, with the error in
   * the header `saga-error`; empty: nothing is.
   */
  on<E = unknown>(
    listenTo: string, execute: SagaHandler<E>, onSuccess: string, onFailure = "", options: EventStepOptions = {},
  ): this {
    const { name = onSuccess, ...settings } = options;
    return this.#add({ ...settings, name, execute: execute as SagaHandler }, listenTo, onSuccess, onFailure, false);
  }

  /**
   * After `listenTo` somebody else must publish `onSuccess` or `onFailure` within `timeoutMs`; if nobody does,
   * `onFailure` is published here. The step's name is `name`, or `onSuccess`.
   */
  expect(
    listenTo: string, onSuccess: string, onFailure: string, options: { timeoutMs: number; name?: string },
  ): this {
    if (typeof options?.timeoutMs !== "number") {
      throw new InvalidArgumentError("expect() needs the time to wait, such as { timeoutMs: 60_000 }");
    }
    const { name = onSuccess, timeoutMs } = options;
    return this.#add({ timeoutMs, name }, listenTo, onSuccess, onFailure, true);
  }

  #add(
    step: Parameters<typeof stepOf>[0], listenTo: string, onSuccess: string, onFailure: string, isAwaited: boolean,
  ): this {
    checkText(listenTo, "listenTo");
    checkText(onSuccess, "onSuccess");
    checkText(onFailure, "onFailure");
    this.stages[0]?.push(stepOf(step, [listenTo, onSuccess, onFailure, isAwaited]));
    return this;
  }
}
