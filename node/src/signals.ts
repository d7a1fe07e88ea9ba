// How a caller leaves a wait.

import { CancelledError } from "./errors.js";

/** Ends the wait with CancelledError, whose `cause` is the signal's reason; what was asked for may go on. */
export interface Cancellable {
  signal?: AbortSignal | undefined;
}

export function cancelled(signal: AbortSignal): CancelledError {
  return new CancelledError("the caller's signal was aborted", { cause: signal.reason });
}
