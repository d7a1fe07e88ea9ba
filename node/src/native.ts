// The native half: where its file is, what it offers, and options as it takes them.

import { readdirSync } from "node:fs";
import path from "node:path";

import { errorOf } from "./errors.js";
import type { ConsumerStatistics, LimiterStatistics } from "./records.js";
import type { SqlParameter, SqlValue } from "./transaction.js";
import { inWordsOfNode } from "./words.js";

/** What the native half keeps: a delivery, a transaction, a consumer, a clock, permits. */
export type Handle = { readonly __native: unique symbol };
/** kind, delay in milliseconds, type, message, stack; undefined: acknowledged. */
export type Outcome = readonly [number, number | undefined, string, string, string] | undefined;
/** topic, payload, key, content type, others. */
export type Fields = readonly [string, string | Uint8Array, string | null | undefined, string,
  object | undefined];
export type Answering = (id: number, ...values: unknown[]) => void;

/** One engine's mailbox. A call's first argument is the number under which its answer comes as an event. */
export interface Port {
  open: Answering;
  /** Laid out as in outgoing.ts; `count` of the numbers count. */
  publish(
    bytes: Uint8Array, numbers: Float64Array, count: number, values: readonly unknown[],
    refuse: (id: number, error: unknown) => void,
  ): void;
  /** Numbers that are acknowledged, and [number, outcome, number, outcome ...] of the others. */
  finish(acked: Float64Array, others: unknown[]): void;
  drain(countMax: number): Drained;
  /** Whether its events keep the event loop alive. */
  hold(on: boolean): void;
  /** At the end of the process: closes the engine at once and waits for its threads. */
  /** The process ends; `isBroken`: because something broke. */
  end(isBroken: boolean): void;
  /** Once. No event comes after it; `done` is called when its threads have ended. */
  shut(done: () => void): void;
  publishWithRetry: Answering;
  cancel: Answering;
  cancelBatch: Answering;
  reschedule: Answering;
  pending: Answering;
  declareTopic: Answering;
  backlog: Answering;
  blockedKeys: Answering;
  releaseKey: Answering;
  deadLetters: Answering;
  findDeadLetter: Answering;
  deadLetterGroups: Answering;
  redrive: Answering;
  redriveAll: Answering;
  discardDeadLetter: Answering;
  begin: Answering;
  complete: Answering;
  fail: Answering;
  statistics: Answering;
  health: Answering;
  findings: Answering;
  settleDown: Answering;
  close: Answering;
  consume: Answering;
  settleDurably: Answering;
  drainConsumer: Answering;
  closeConsumer: Answering;
  append: Answering;
  readEvents: Answering;
  readEventsBackwards: Answering;
  readAllEvents: Answering;
  findStream: Answering;
  streams: Answering;
  truncateStream: Answering;
  saveSnapshot: Answering;
  findSnapshot: Answering;
  followEvents: Answering;
  handleEvents: Answering;
  /** What came of the batch that is out; undefined: it was handled. */
  finishEvents(subscription: number, error: readonly [type: string, message: string] | undefined): void;
  streamEvents: Answering;
  receiveEvents: Answering;
  checkpointEvents: Answering;
  eventSubscriptionStatistics: Answering;
  closeEventSubscription: Answering;
  appendMessage: Answering;
  messagesSince: Answering;
  messagesSinceId: Answering;
  findConversation: Answering;
  trimConversation: Answering;
  acknowledgeMessage: Answering;
  clientPosition: Answering;
  noteMissed: Answering;
  missedMessages: Answering;
  reconnectClient: Answering;
  askFeed: Answering;
  startSaga: Answering;
  findSaga: Answering;
  listSagas: Answering;
  sagaTimeline: Answering;
  sagaResult: Answering;
  cancelSaga: Answering;
  retrySaga: Answering;
  skipSaga: Answering;
  forceSaga: Answering;
  annotateSaga: Answering;
  runSaga: Answering;
  sagaRunnerStatistics: Answering;
  closeSagaRunner: Answering;
}

export interface Details {
  id: string;
  group: string;
  partition: number;
  headers: Record<string, string>;
  correlationId: string;
  causationId: string;
  traceparent: string;
  publishedAt: Date;
  crashes: number;
  redelivered: boolean;
  redrives: number;
}

/** A message of a saga without its payload. */
export interface SagaMessage {
  topic: string;
  key: string;
  causationId: string;
  headers: Record<string, string>;
}

interface Native {
  setErrorFactory(factory: typeof errorOf): void;
  makePort(ring: () => void, logLevel: number | undefined): Port;
  /** A delivery is its place among those that were drained together. */
  details(deliveries: Handle, place: number): Details;
  settle(deliveries: Handle, place: number, outcome: Outcome): void;
  extend(deliveries: Handle, place: number, ms: number): void;
  progress(deliveries: Handle, place: number, note: string): void;
  /** The session that `body` is given ends with it. */
  transaction(deliveries: Handle, place: number, body: (session: Handle) => void): void;
  sqlExecute(
    session: Handle, sql: string, parameters: readonly Exclude<SqlParameter, boolean>[],
  ): SqlValue[][];
  sqlPublish(session: Handle, message: Fields): string;
  sqlAppend(session: Handle, stream: string, events: unknown[][], expected: bigint | undefined): void;
  sqlComplete(session: Handle, scope: string, key: string, result: string | Uint8Array): void;
  sagaContext(call: Handle): Buffer;
  sagaOutput(call: Handle, step: string): Buffer | undefined;
  sagaSetContext(call: Handle, context: string | Uint8Array): void;
  sagaPublish(call: Handle, message: Fields): void;
  /** Throws when the output is refused, and then nothing has happened. */
  sagaFinish(call: Handle, outcome: Outcome, output: string | Uint8Array | undefined): void;
  /** The reply to a delivery; `error` undefined: it succeeded. */
  sagaReply(deliveries: Handle, place: number, error: string | undefined, isPermanent: boolean): SagaMessage;
  sagaEvent(topic: string, id: string): SagaMessage;
  sagaDiagram(definition: unknown[]): string;
  consumerPause(consumer: Handle): void;
  consumerResume(consumer: Handle): void;
  consumerSetConcurrency(consumer: Handle, concurrency: number): void;
  consumerStatistics(consumer: Handle): ConsumerStatistics;
  makeClock(): Handle;
  clockAdvance(clock: Handle, ms: number): void;
  clockStepWall(clock: Handle, ms: number): void;
  clockNow(clock: Handle): number;
  /** `granted` is told once of each request: within the call, or when somebody makes room. */
  makeGate(limit: number, waitingMax: number, granted: (request: number, error: unknown) => void): Handle;
  gateRequest(gate: Handle, request: number, weight: number): void;
  gateTryAcquire(gate: Handle, request: number, weight: number): boolean;
  /** False: it was granted, or refused, already. */
  gateWithdraw(gate: Handle, request: number): boolean;
  gateRelease(gate: Handle, request: number): void;
  gateSetLimit(gate: Handle, limit: number): void;
  gateStatistics(gate: Handle): LimiterStatistics;
}

/** What this machine needs; a glibc is not named, since all that is brought for Linux is for one. */
function platformOf(): string {
  const platform = `${process.platform}-${process.arch}`;
  if (process.platform !== "linux") return platform;
  const { header } = process.report.getReport() as { header?: { glibcVersionRuntime?: string } };
  return header?.glibcVersionRuntime === undefined ? `${platform} without glibc (such as Alpine, with musl)` : platform;
}

function folders(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return []; // there is none at all
  }
}

function load(): Native {
  const given = process.env["TOWLINE_NODE_BINARY"];
  const prebuilds = path.join(__dirname, "..", "..", "prebuilds");
  const file = given ? path.resolve(given)
    : path.join(prebuilds, `${process.platform}-${process.arch}`, "towline.node");
  try {
    return require(file) as Native;
  } catch (cause) {
    const brought = folders(prebuilds).map((one) => (one.startsWith("linux-") ? `${one} with glibc` : one));
    const known = brought.length > 0 ? brought.join(", ") : "nothing, as in a checkout";
    const what = given ? "see whether TOWLINE_NODE_BINARY names an addon that was built for this machine"
      : "run on one of these (Debian's images have glibc, those of Alpine do not), or build the addon from its source and "
        + "name it in TOWLINE_NODE_BINARY";
    throw new Error(`towline: ${file} cannot be loaded on ${platformOf()}; the package brings ${known}; ${what}`, { cause });
  }
}

export const native = load();
native.setErrorFactory((number, message, nativeCode) =>
  errorOf(number, inWordsOfNode(number, message), nativeCode));

/**
 * What was taken out of the mailbox: the payloads behind each other, the fields of the events, those that are no
 * numbers by their place in the list of values, and the deliveries, each by its place.
 */
export type Drained = readonly [
  bytes: Buffer, numbers: Float64Array, values: readonly unknown[], deliveries: Handle | undefined];

/** Event.Kind of the engine, and those of the addon behind them: what comes first of each event. */
export const REPLY = 0; // id, 1 or 0 for ok, answer
export const RECEIPTS = 1; // the same; the answer is PackedReceipts of records.ts
export const DELIVERY = 2; // see below
export const STOP = 3; // number
export const LOG = 4; // level, station, text
export const ALERT = 5; // alert
export const EVENTS = 6; // subscription, events
export const SAGA_CALL = 7; // runner, call
export const SAGA_STOP = 8; // runner, number of the call
export type EventKind = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8;
/** How many numbers an event takes, its kind included. */
export const EVENT_LENGTHS: Record<EventKind, number> = [4, 4, 11, 2, 4, 2, 3, 3, 3];

/** Where the fields of a delivery are, from its kind on. */
export const CONSUMER = 1;
export const NUMBER = 2;
export const BATCH_LEFT = 3;
export const TOPIC = 4;
export const KEY = 5; // -1: none
export const CONTENT_TYPE = 6;
export const ATTEMPT = 7;
export const FROM = 8;
export const TO = 9;
export const PLACE = 10; // among the deliveries that were drained together

/** Where the call of a saga is, or a list of events, from its kind on. */
export const SAGA_RECORD = 2;
export const EVENT_LIST = 2;
