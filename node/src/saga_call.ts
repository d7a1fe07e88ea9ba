// One call of a step's function, or of its compensation, in the hands of that function.

import { fieldsOf, type MessageOptions } from "./calls.js";
import { CancelledError, ClosedError } from "./errors.js";
import { type Handle, native } from "./native.js";
import { decodeState, encodeState } from "./saga_records.js";

/** @internal */
export interface RawCall {
  handle: Handle;
  number: number;
  type: string;
  id: string;
  step: string;
  phase: "execute" | "compensate";
  attempt: number;
  key: string;
  cause: string;
}

/**
 * What a step's function is given. What it changes counts when the function succeeds, and happens in the transaction
 * that writes its outcome. Bytes are kept as they are, everything else as JSON; what was kept is read as JSON when it
 * is some, else as bytes.
 */
export class SagaCall<C = unknown> {
  /** Of the saga. */
  readonly type: string;
  /** Of the saga. */
  readonly id: string;
  /** Its name. */
  readonly step: string;
  /** Whether it is run or undone. */
  readonly phase: "execute" | "compensate";
  /** 1 the first time; grows with every attempt, also with those whose process died. */
  readonly attempt: number;
  /** `type/id/step/phase`, the same in every attempt: give it to what the step calls, or to `engine.once`. */
  readonly key: string;
  /** Why the saga is undone; empty: it is not. */
  readonly cause: string;
  readonly #handle: Handle;
  #controller: AbortController | undefined = undefined;
  #isStopped = false;
  #hasEnded = false;

  /** @internal */
  constructor(raw: RawCall) {
    this.#handle = raw.handle;
    this.type = raw.type;
    this.id = raw.id;
    this.step = raw.step;
    this.phase = raw.phase;
    this.attempt = raw.attempt;
    this.key = raw.key;
    this.cause = raw.cause;
  }

  /**
   * What the steps before have left; undefined: the saga was started without, and nobody has set it. In a choreography
   * the payload of the event that the step listens to.
   */
  get context(): C {
    return decodeState(this.contextBytes) as C;
  }
  /** As it is stored, a copy each time. */
  get contextBytes(): Buffer {
    return native.sagaContext(this.#handle);
  }

  /** Of a step that has succeeded; undefined: it has not, or has left none. */
  outputOf<T = unknown>(step: string): T | undefined {
    const bytes = native.sagaOutput(this.#handle, step);
    return bytes === undefined ? undefined : (decodeState(bytes) as T);
  }
  /** In a compensation: what there is to undo; undefined: the step failed, or nobody knows. */
  get output(): unknown {
    return this.outputOf(this.step);
  }

  /** Aborts when the result does not count any more: its time is up, its lease lost, or the engine closes. */
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#isStopped) this.#abort();
    }
    return this.#controller.signal;
  }
  /** Whether `signal` has fired, without making one. */
  get isStopped(): boolean {
    return this.#isStopped;
  }

  /**
   * For the steps that follow. Throws InvalidArgumentError in a compensation, in a step that runs beside others, and in
   * a choreography; PayloadTooLargeError; ClosedError when the function has returned.
   */
  setContext(value: C): void {
    this.#checkRunning();
    native.sagaSetContext(this.#handle, encodeState(value));
  }

  /** Leaves with the outcome, or not at all. Throws what is wrong with the message, and as `setContext`. */
  publish(topic: string, value: unknown, options: MessageOptions = {}): void {
    this.#checkRunning();
    native.sagaPublish(this.#handle, fieldsOf(topic, value, options));
  }

  /** @internal */
  stop(): void {
    this.#isStopped = true;
    if (this.#controller !== undefined) this.#abort();
  }

  /** @internal It has returned: from now on the engine reads what it has changed. */
  end(): void {
    this.#hasEnded = true;
  }

  #checkRunning(): void {
    if (this.#hasEnded) throw new ClosedError(`the call '${this.key}' has returned`);
  }

  #abort(): void {
    this.#controller?.abort(
      new CancelledError("the result does not count any more: its time is up, its lease lost, or all closes"));
  }
}
