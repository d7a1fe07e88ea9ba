// towline: messages stay attached. Delayed messages, retry, dead letters, idempotency, order per key and
// consumer groups, in one engine that runs inside your process, over the store you already have.

export type {
  Cancellable, EngineEvents, MessageOptions, OutgoingMessage, Paged, PublishOptions,
} from "./calls.js";
export { Consumer, Engine, Topic } from "./engine.js";
export type { ConsumeOptions, Handler, OpenOptions } from "./engine.js";
export * from "./errors.js";
export { Defer, Message, Reject, Retry } from "./message.js";
export type * from "./options.js";
export { PayloadError } from "./payload.js";
export type {
  Answer, BlockedKey, ConsumerStatistics, DeadLetter, DeadLetterAlert, DeadLetterGroup, DeadLetterQuery,
  DeadLetterReason, DeadLetterStatus, EngineStatistics, GroupBacklog, Health, LogLevel, LogRecord, Page,
  Receipt, RedriveReport, Scheduled,
} from "./records.js";
export type { RedriveOptions } from "./records.js";
