// How a caller leaves a wait.

import { CancelledError, InvalidArgumentError } from "./errors.js";

/** Ends the wait with CancelledError, whose `cause` is the signal's reason; what was asked for may go on. */
export interface Cancellable {
  signal?: AbortSignal | undefined;
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
