// How a caller leaves a wait.

import { CancelledError, InvalidArgumentError, type TowlineError } from "./errors.js";

/** How a caller may leave before the answer comes. */
export interface Cancellable {
  /**
   * Aborting it ends the wait with CancelledError, whose `cause` is the signal's reason; what was asked for may go on.
   * With one that is aborted already nothing is asked for, except for `close`, which begins in any case.
   */
  signal?: AbortSignal | undefined;
}

/** Of `close`. */
export interface CloseOptions extends Cancellable {
  /** How long to wait for handlers, in milliseconds; the engine's `drainTimeoutMs` unless given. */
  timeoutMs?: number;
}

/** Before anything is started that would have to be stopped again. */
export function checkSignal(signal: AbortSignal | undefined): void {
  if (signal === undefined) return;
  const isSignal = typeof signal === "object" && signal !== null && "aborted" in signal;
  if (isSignal && typeof signal.addEventListener === "function") return;
  throw new InvalidArgumentError("signal is no AbortSignal");
}

export function cancelled(signal: AbortSignal): CancelledError {
  return new CancelledError("the caller's signal was aborted", { cause: signal.reason });
}

/** Before anything is asked for. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  checkSignal(signal);
  if (signal?.aborted) throw cancelled(signal);
}

/** It was asked for, and nobody will hear what became of it. */
export function unanswered<E extends TowlineError>(error: E): E {
  error.outcome = "unknown";
  return error;
}

/** What `promise` comes to, unless the caller leaves before; it goes on then. */
export async function orAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise<T>((resolve, reject) => {
    const leave = () => reject(unanswered(cancelled(signal)));
    if (signal.aborted) leave();
    signal.addEventListener("abort", leave, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", leave));
  });
}

// Of all copies of this package in the process: the command is one, and what it runs may have its own.
const AS_ASKED = Symbol.for("towline.endsAsAsked");
const shared = globalThis as { [AS_ASKED]?: boolean };

/** Somebody asked for the end, whatever the code says. */
export function exitAsAsked(code: number): never {
  shared[AS_ASKED] = true;
  process.exit(code);
}

export function endsAsAsked(): boolean {
  return shared[AS_ASKED] === true;
}
