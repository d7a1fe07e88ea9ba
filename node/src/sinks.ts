// Where the deliveries of a consumer go: to a handler, one by one or in batches, or to a `for await`. Nothing
// here throws, whatever handlers do: an event that throws would lose those that were fetched with it.

import { AsyncLocalStorage } from "node:async_hooks";

import type { Consumer, Host } from "./consumer.js";
import { failureOf, isFailure, Message, outcomeOf, RELEASED } from "./message.js";
import { BATCH_LEFT, type Drained, NUMBER, type Outcome } from "./native.js";
import { traceHandler } from "./tracing.js";

/** Handles a message: returning acknowledges it, throwing fails the attempt. */
export type Handler<T = unknown> = (message: Message<T>) => unknown;
/** Handles many messages at once: returning acknowledges all, throwing fails all that are not settled. */
export type BatchHandler<T = unknown> = (messages: Message<T>[]) => unknown;

/** Whose handler runs: closing an engine inside one must not wait for that handler. */
const runningIn = new AsyncLocalStorage<Host>();

export function isRunningIn(host: Host): boolean {
  return runningIn.getStore() === host;
}

/** Calls `handle`, then one of the others. */
export function runHandler(
  host: Host, handle: () => unknown, context: object, returned: (value: unknown) => void,
  failed: (error: unknown) => void,
): void {
  try {
    const result = runningIn.run(host, () => traceHandler(handle, context)) as PromiseLike<unknown>;
    if (typeof result === "object" && result !== null && typeof result.then === "function") {
      Promise.resolve(result).then(returned, failed);
    } else {
      returned(result);
    }
  } catch (error) {
    failed(error);
  }
}

export abstract class Sink {
  readonly number: number;
  protected readonly host: Host;
  /** What is told when its result does not count any more. */
  protected readonly open = new Map<number, Message>();
  /** Of those that have one. */
  consumer: Consumer | undefined = undefined;

  constructor(host: Host, number: number) {
    this.host = host;
    this.number = number;
  }

  /** The delivery event that begins at `at`. */
  abstract deliver(drained: Drained, at: number): void;

  /** What comes of this one does not count any more. The message, when it was open here. */
  stop(number: number): Message | undefined {
    const message = this.open.get(number);
    message?.stop();
    return message;
  }

  /** What its handler has come to, or whoever settled it; `thrown` when it was by an exception. */
  tell(message: Message, outcome: Outcome, thrown?: readonly [unknown]): void {
    const { host, consumer } = this;
    if (consumer === undefined || !(host.isHeard("completed") || host.isHeard("failed"))) return;
    const counted = message.counted(outcome);
    if (counted === undefined) return;
    const [end] = counted;
    if (end === undefined) host.tell("completed", message, consumer);
    else if (isFailure(end)) host.tell("failed", thrown !== undefined ? thrown[0] : failureOf(end), message, consumer);
  }

  tellStalled(message: Message): void {
    const { consumer } = this;
    if (consumer !== undefined && !consumer.isClosing) this.host.tell("stalled", message, consumer);
  }

  /** Nothing comes any more. */
  end(): void {
    for (const number of [...this.open.keys()]) this.stop(number);
  }
}

/** Messages that wait for a `for await`. */
export class Inbox extends Sink {
  #waiting: Message[] = [];
  #wake: (() => void) | undefined;
  #isEnded = false;

  deliver(drained: Drained, at: number): void {
    const number = drained[1][at + NUMBER] as number;
    const message = new Message(this.host, drained, at, (settled, outcome) => {
      this.#finish(number, undefined);
      this.tell(settled, outcome);
    });
    this.open.set(number, message);
    this.#waiting.push(message);
    this.#wake?.();
  }

  /** Its place is free at once, since nobody returns from here. */
  override stop(number: number): Message | undefined {
    const message = super.stop(number);
    this.#finish(number, RELEASED);
    return message;
  }

  override end(): void {
    this.#isEnded = true;
    super.end();
    this.#wake?.();
  }

  async next(): Promise<Message | undefined> {
    for (;;) {
      if (this.#isEnded) return undefined;
      const message = this.#waiting.shift();
      if (message !== undefined && !message.isStopped) return message;
      if (message === undefined) await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  #finish(number: number, outcome: Outcome): void {
    if (this.open.delete(number)) this.host.finish(number, outcome);
  }
}

/** Runs handlers. */
abstract class Runner extends Sink {
  /** A message may outlive its handler: until it is settled its signal may fire. */
  protected readonly isManual: boolean;

  constructor(host: Host, number: number, isManual: boolean) {
    super(host, number);
    this.isManual = isManual;
  }

  override stop(number: number): Message | undefined {
    const message = super.stop(number);
    if (this.isManual) this.open.delete(number);
    return message;
  }

  /** A message that is open until it is settled. */
  protected manual(drained: Drained, at: number, number: number): Message {
    const message = new Message(this.host, drained, at, (settled, outcome) => {
      this.open.delete(number);
      this.tell(settled, outcome);
    });
    this.open.set(number, message);
    return message;
  }

  /** The handler of a message has ended. By hand it is settled otherwise, unless by an exception. */
  protected tellEnd(number: number, message: Message, outcome: Outcome, thrown?: readonly [unknown]): void {
    const isSettled = this.isManual && (thrown === undefined || !this.open.delete(number));
    if (!isSettled) this.tell(message, outcome, thrown);
  }

  protected run(
    handle: () => unknown, context: object, returned: () => void, failed: (error: unknown) => void,
  ): void {
    runHandler(this.host, handle, context, returned, failed);
  }
}

export class MessageRunner extends Runner {
  readonly #handler: Handler;

  constructor(host: Host, number: number, isManual: boolean, handler: Handler) {
    super(host, number, isManual);
    this.#handler = handler;
  }

  deliver(drained: Drained, at: number): void {
    const number = drained[1][at + NUMBER] as number;
    const message = this.isManual ? this.manual(drained, at, number) : new Message(this.host, drained, at);
    if (!this.isManual) this.open.set(number, message);
    this.run(
      () => this.#handler(message), { message },
      () => this.#finish(number, message, undefined),
      (error) => this.#finish(number, message, outcomeOf(error, message), [error]));
  }

  /** Its handler has returned, or thrown. */
  #finish(number: number, message: Message, outcome: Outcome, thrown?: readonly [unknown]): void {
    if (!this.isManual) this.open.delete(number);
    this.host.finish(number, outcome);
    this.tellEnd(number, message, outcome, thrown);
  }
}

/** Messages that are handled together, and their numbers. */
class Batch {
  readonly numbers: number[] = [];
  readonly messages: Message[] = [];
}

export class BatchRunner extends Runner {
  readonly #handler: BatchHandler;
  /** It has not come whole: it may be longer than what is fetched at a time. */
  #coming = new Batch();
  /** Those whose handlers run; a stop is rare, so they are searched for it. */
  readonly #running = new Set<Batch>();

  constructor(host: Host, number: number, isManual: boolean, handler: BatchHandler) {
    super(host, number, isManual);
    this.#handler = handler;
  }

  deliver(drained: Drained, at: number): void {
    const number = drained[1][at + NUMBER] as number;
    const batch = this.#coming;
    batch.numbers.push(number);
    batch.messages.push(this.isManual
      ? this.manual(drained, at, number) : new Message(this.host, drained, at));
    if ((drained[1][at + BATCH_LEFT] as number) > 0) return;
    this.#coming = new Batch();
    this.#handle(batch);
  }

  override stop(number: number): Message | undefined {
    let message = super.stop(number);
    for (const batch of [this.#coming, ...this.#running]) {
      const place = batch.numbers.indexOf(number);
      if (place < 0) continue;
      message = batch.messages[place];
      message?.stop();
    }
    return message;
  }

  /** Closed in the middle of a batch: nobody handles what came of it. */
  override end(): void {
    super.end();
    for (const batch of this.#running) {
      for (const message of batch.messages) message.stop();
    }
    for (const number of this.#coming.numbers) this.host.finish(number, RELEASED);
    this.#coming = new Batch();
  }

  #handle(batch: Batch): void {
    const messages = [...batch.messages]; // the handler's own: it may change the list
    this.#running.add(batch);
    this.run(
      () => this.#handler(messages), { messages },
      () => {
        this.#running.delete(batch);
        this.host.finishAll(batch.numbers);
        if (this.host.isHeard("completed") || this.host.isHeard("failed")) this.#tellAll(batch);
      },
      (error) => {
        this.#running.delete(batch);
        for (const [place, number] of batch.numbers.entries()) {
          const message = batch.messages[place] as Message;
          const outcome = outcomeOf(error, message);
          this.host.finish(number, outcome);
          this.tellEnd(number, message, outcome, [error]);
        }
      });
  }

  #tellAll(batch: Batch): void {
    for (const [place, number] of batch.numbers.entries()) {
      this.tellEnd(number, batch.messages[place] as Message, undefined);
    }
  }
}
