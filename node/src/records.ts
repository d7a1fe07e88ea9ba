// What the engine tells: plain objects. Times are Dates, durations milliseconds.

import type { TowlineError } from "./errors.js";

/** What became of a delayed message that was to be cancelled or moved. */
export type Answer = "done" | "already_fired" | "not_found";
/** Where a dead letter is in its life. */
export type DeadLetterStatus = "pending" | "reprocessing" | "resolved" | "expired" | "discarded";
/** Why a message became a dead letter. */
export type DeadLetterReason =
  | "exhausted"
  | "permanent"
  | "decode"
  | "expired"
  | "crash_loop"
  | "manual"
  | "publish_failed"
  | "max_age";

/** What became of one message. `unknown`: repeat it only with a dedup id. */
export interface Receipt {
  /** Stored, surely not stored, or nobody knows. */
  readonly outcome: "acked" | "rejected" | "unknown";
  /** Of the message; with `duplicate` that of the first one. */
  readonly id: string;
  /** A dedup id was known already, so nothing new was stored. */
  readonly duplicate: boolean;
  /** Why, unless acked. */
  readonly error: TowlineError | undefined;
}

/**
 * Receipts as the native half gives them: the ids behind each other; of each message the first letter of its
 * outcome, or "d" for a duplicate; an error for each that is not acked.
 * @internal
 */
export type PackedReceipts = readonly [ids: string, ends: string, errors: readonly TowlineError[]];

const ID_LENGTH = 36;

/** @internal */
export function receiptsOf([ids, ends, errors]: PackedReceipts): Receipt[] {
  const receipts: Receipt[] = [];
  let errorCount = 0;
  for (let i = 0; i < ends.length; i += 1) {
    const end = ends[i];
    const isAcked = end === "a" || end === "d";
    receipts.push({
      outcome: isAcked ? "acked" : end === "r" ? "rejected" : "unknown",
      id: ids.slice(i * ID_LENGTH, (i + 1) * ID_LENGTH),
      duplicate: end === "d",
      error: isAcked ? undefined : errors[errorCount++],
    });
  }
  return receipts;
}

/** One page of a listing; an empty `cursor` is the last one's. */
export interface Page<T> {
  /** In the order that the call says. */
  readonly items: T[];
  /** For the page behind this one; "" when there is none. */
  readonly cursor: string;
}

/** A message that waits for its due time. `group`: the one whose retry it is; "": for every group. */
export interface Scheduled {
  /** Of the message. */
  readonly id: string;
  /** Where it goes. */
  readonly topic: string;
  /** Of the message; null: none. */
  readonly key: string | null;
  /** When it fires. */
  readonly dueAt: Date;
  /** Of a retry; "" for every group. */
  readonly group: string;
  /** Which one it will be, from 1. */
  readonly attempt: number;
  /** In bytes. */
  readonly payloadSize: number;
}

/** A message that a group could not handle, with the bytes and headers that were published. */
export interface DeadLetter {
  /** Of the entry: what `redrive` and `discardDeadLetter` take. */
  readonly id: string;
  /** Of the message. */
  readonly messageId: string;
  /** Where it was published. */
  readonly topic: string;
  /** That could not handle it; "" when it came to none. */
  readonly group: string;
  /** Of the message; null: none. */
  readonly key: string | null;
  /** Of its key. */
  readonly partition: number;
  /** As they were published. */
  readonly headers: Record<string, string>;
  /** As it was published. */
  readonly contentType: string;
  /** As it was published. */
  readonly payload: Buffer;
  /** Why it is here. */
  readonly reason: DeadLetterReason;
  /** Class of what the handler threw last. */
  readonly errorType: string;
  /** Text of what the handler threw last. */
  readonly errorMessage: string;
  /** Stack of what the handler threw last, with those of its causes. */
  readonly errorStack: string;
  /** The same for failures that are alike. */
  readonly fingerprint: string;
  /** The last one, from 1. */
  readonly attempt: number;
  /** Deaths of a process that are charged to it. */
  readonly crashes: number;
  /** When the message was published. */
  readonly publishedAt: Date;
  /** When its first attempt failed. */
  readonly firstFailedAt: Date;
  /** When its last attempt failed. */
  readonly lastFailedAt: Date;
  /** When it became a dead letter. */
  readonly createdAt: Date;
  /** How often it was redriven. */
  readonly reprocessCount: number;
  /** Whether it still waits for somebody. */
  readonly status: DeadLetterStatus;
  /** What the engine notes beside. */
  readonly metadata: string;
}

/** Dead letters with one fingerprint. */
export interface DeadLetterGroup {
  /** What they have in common. */
  readonly fingerprint: string;
  /** Of one of them. */
  readonly topic: string;
  /** Of one of them. */
  readonly errorType: string;
  /** Of one of them. */
  readonly errorMessage: string;
  /** How many there are. */
  readonly count: number;
  /** When the oldest one came. */
  readonly firstAt: Date;
  /** When the newest one came. */
  readonly lastAt: Date;
}

/** Dead letters for which every condition holds; one that is left out always does. */
export interface DeadLetterQuery {
  /** The topic it was published to. */
  topic?: string;
  /** The group that could not handle it. */
  group?: string;
  /** Where it is in its life. */
  status?: DeadLetterStatus;
  /** Class of what was thrown. */
  errorType?: string;
  /** What those of one kind have in common. */
  fingerprint?: string;
  /** Part of the error message or of the payload. */
  text?: string;
  /** Why it became one. */
  reason?: DeadLetterReason;
  /** Inclusive; a number is milliseconds since 1970. */
  createdFrom?: Date | number;
  /** Exclusive. */
  createdBefore?: Date | number;
}

/** How dead letters are sent back. */
export interface RedriveOptions {
  /** Count and change nothing. */
  dryRun?: boolean;
  /** Entries per second; 0: no limit. */
  ratePerSecond?: number;
  /** How long they wait before, in milliseconds; 0 unless given. */
  delayMs?: number;
  /** "": the topic it came from. */
  destination?: string;
  /** For a single entry: replaces the payload; what `publish` takes. The content type stays. */
  payload?: unknown;
  /** Entries redriven this often already are passed over; 3 unless given. */
  redriveMax?: number;
}

/** What `redriveAll` came to. */
export interface RedriveReport {
  /** Pending entries for which the conditions held. */
  readonly matched: number;
  /** Sent back; with `dryRun` those that would be. */
  readonly redriven: number;
  /** By `redriveMax`, or because another redrive had them. */
  readonly passedOver: number;
}

/** What waits for a group on a topic. */
export interface GroupBacklog {
  /** Its name. */
  readonly topic: string;
  /** Its name. */
  readonly group: string;
  /** Messages that nobody has taken. */
  readonly waiting: number;
  /** Messages that a member holds. */
  readonly inFlight: number;
  /** Consumers of the group, in all processes. */
  readonly memberCount: number;
}

/** A key that waits for a failed message (`held`: for a person). */
export interface BlockedKey {
  /** Its name. */
  readonly topic: string;
  /** Its name. */
  readonly group: string;
  /** That waits. */
  readonly key: string;
  /** Of the key. */
  readonly partition: number;
  /** When it was blocked. */
  readonly since: Date;
  /** Messages behind the failed one. */
  readonly parkedCount: number;
  /** It waits for `releaseKey`, not for a retry. */
  readonly held: boolean;
}

/** Whether the engine and its store work. */
export interface Health {
  /** True: they do. */
  readonly ok: boolean;
  /** Why not. */
  readonly detail: string;
}

/** Counts since the engine was opened, and what is there now. */
export interface EngineStatistics {
  /** Messages that were stored. */
  readonly published: number;
  /** Publishes with a dedup id that was known. */
  readonly duplicates: number;
  /** Publishes that surely stored nothing. */
  readonly rejected: number;
  /** Publishes of which nobody knows. */
  readonly unknown: number;
  /** Delayed messages and retries that wait. */
  readonly scheduledNow: number;
  /** Messages that wait behind a blocked key. */
  readonly parkedNow: number;
  /** Delayed messages and retries that became due. */
  readonly fired: number;
  /** Dead letters that were sent back. */
  readonly redriven: number;
  /** Records that the clean-up has removed. */
  readonly swept: number;
  /** Messages from the outbox that were published. */
  readonly relayed: number;
  /** Messages from the outbox that could not be, and are dead letters. */
  readonly refused: number;
  /** By status. */
  readonly deadLetters: Record<DeadLetterStatus, number>;
  /** Keys that are kept. */
  readonly idempotencyRecords: number;
  /** Size of the store, in bytes. */
  readonly storeBytes: number;
  /** Of fired messages, in microseconds: the median. */
  readonly latenessP50Us: number;
  /** Of fired messages, in microseconds: the 99th percentile. */
  readonly latenessP99Us: number;
  /** Of fired messages, in microseconds: the most. */
  readonly latenessMaxUs: number;
}

/** Counts since the consumer began, and what is there now. */
export interface ConsumerStatistics {
  /** Messages it was given. */
  readonly received: number;
  /** Messages that were acknowledged. */
  readonly acked: number;
  /** Attempts that failed. */
  readonly failed: number;
  /** Failed attempts after which the message comes again. */
  readonly retried: number;
  /** By `Defer` and `defer`. */
  readonly deferred: number;
  /** Messages that became dead letters. */
  readonly deadLettered: number;
  /** Messages that its filter passed over. */
  readonly filtered: number;
  /** Messages whose time to live was over. */
  readonly expired: number;
  /** Handlers that took too long. */
  readonly timedOut: number;
  /** Results that came after the lease had gone to somebody else. */
  readonly leaseLost: number;
  /** Messages that had been handled already. */
  readonly duplicates: number;
  /** Messages that were given up without a dead letter. */
  readonly discarded: number;
  /** Received and not settled. */
  readonly inFlight: number;
  /** Handlers that run now. */
  readonly running: number;
  /** The most handlers that ran at once. */
  readonly runningMax: number;
  /** Handlers past their time that have not returned. */
  readonly stuck: number;
  /** Keys that wait for a failed message. */
  readonly blockedKeys: number;
  /** By `pause`, or because it was drained. */
  readonly paused: boolean;
  /** The circuit breaker takes nothing in. */
  readonly breakerOpen: boolean;
}

/** Of a Limiter. `granted` and `refused` count since it was made. */
export interface LimiterStatistics {
  /** Permits there are. */
  readonly limit: number;
  /** Permits that are given. */
  readonly inUse: number;
  /** Callers that wait. */
  readonly waiting: number;
  /** The most permits that were given at once. */
  readonly inUseMax: number;
  /** Callers that got theirs. */
  readonly granted: number;
  /** Callers that got none. */
  readonly refused: number;
}

/** Something that a person should look at: dead letters, or a saga that is stuck. */
export interface Alert {
  /** What it is about. */
  readonly kind: "depth" | "age" | "rate" | "new_fingerprint" | "entry" | "saga_stuck";
  /** The condition has ended. */
  readonly recovered: boolean;
  /** What was found. */
  readonly value: number;
  /** What was set for it. */
  readonly limit: number;
  /** Of "new_fingerprint" and "entry"; else empty. */
  readonly topic: string;
  /** As `topic`. */
  readonly fingerprint: string;
  /** Of "saga_stuck", where `value` is how many are stuck; else empty. */
  readonly sagaType: string;
  /** As `sagaType`. */
  readonly sagaId: string;
  /** The step that is stuck; of several the first. */
  readonly sagaStep: string;
}

/** How loud a record of the log is. */
export type LogLevel = "debug" | "info" | "warning" | "error";

/** One record of the log. */
export interface LogRecord {
  /** How loud it is. */
  readonly level: LogLevel;
  /** The part of the engine that tells it. */
  readonly station: string;
  /** What it tells. */
  readonly text: string;
}
