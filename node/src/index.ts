// towline: messages stay attached. Delayed messages, retry, dead letters, idempotency, order per key and
// consumer groups, in one engine that runs inside your process, over the store you already have.

export type {
  EngineEvents, MessageOptions, OutgoingMessage, Paged, PublishOptions,
} from "./calls.js";
export { Choreography } from "./choreography.js";
export type { EventStepOptions } from "./choreography.js";
export { Consumer } from "./consumer.js";
export { Engine, Topic } from "./engine.js";
export type { ConsumeOptions, OpenOptions, TopicMessage } from "./engine.js";
export * from "./errors.js";
export { ConversationMessage } from "./conversation_records.js";
export type {
  AppendedMessage, CatchUp, ConversationGap, ConversationPage, MissedConversation, NewConversationMessage,
} from "./conversation_records.js";
export { ConversationFeed, Conversations } from "./conversations.js";
export type { CountOptions, PageOptions } from "./conversations.js";
export { RecordedEvent, Snapshot } from "./event_records.js";
export type { Appended, EventPage, NewEvent, StreamInfo } from "./event_records.js";
export { EventSubscription } from "./event_subscription.js";
export type { EventHandler, EventSubscriptionStatistics } from "./event_subscription.js";
export { EventStore } from "./events.js";
export type { FollowOptions, ReadOptions, StreamToOptions } from "./events.js";
export { Limiter, Permit } from "./limiter.js";
export type { AcquireOptions } from "./limiter.js";
export { Defer, Message, Reject, Retry } from "./message.js";
export type { NakOptions, NotWaiting, Waiting } from "./message.js";
export type * from "./options.js";
export { PayloadError } from "./payload.js";
export type {
  Answer, BlockedKey, ConsumerStatistics, DeadLetter, Alert, DeadLetterGroup, DeadLetterQuery,
  DeadLetterReason, DeadLetterStatus, EngineStatistics, GroupBacklog, Health, LimiterStatistics, LogLevel,
  LogRecord, Page,
  Receipt, RedriveReport, Scheduled,
} from "./records.js";
export type { RedriveOptions } from "./records.js";
export { Saga } from "./saga.js";
export type { SagaBranch, SagaDefinition, SagaDefinitionOptions, SagaHandler, StepOptions } from "./saga.js";
export { SagaCall } from "./saga_call.js";
export type {
  SagaEntry, SagaInfo, SagaMark, SagaQuery, SagaResult, SagaRunnerStatistics, SagaStarted, SagaStatus,
} from "./saga_records.js";
export { SagaRunner } from "./saga_runner.js";
export { Sagas } from "./sagas.js";
export type { Cancellable, CloseOptions } from "./signals.js";
export type { BatchHandler, Handler } from "./sinks.js";
export { Transaction } from "./transaction.js";
export type { SqlParameter, SqlValue } from "./transaction.js";
