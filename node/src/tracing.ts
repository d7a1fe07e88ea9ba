// diagnostics_channel: `tracing:towline:publish:*` with { topics }, `tracing:towline:process:*` with
// { message }, { messages }, or { call } of a saga. Whoever does not listen pays a few property reads.

import { tracingChannel } from "node:diagnostics_channel";

type Channel = ReturnType<typeof tracingChannel>;

const publishing = tracingChannel("towline:publish");
const processing = tracingChannel("towline:process");

function isTraced(channel: Channel): boolean {
  return (
    channel.start.hasSubscribers || channel.end.hasSubscribers || channel.asyncStart.hasSubscribers ||
    channel.asyncEnd.hasSubscribers || channel.error.hasSubscribers
  );
}

/** `topics` is called when somebody listens. */
export function tracePublish<T>(publish: () => Promise<T>, topics: () => string[]): Promise<T> {
  return isTraced(publishing) ? publishing.tracePromise(publish, { topics: topics() }) : publish();
}

export function traceHandler(handle: () => unknown, context: object): unknown {
  return isTraced(processing) ? processing.tracePromise(async () => handle(), context) : handle();
}
