// What the engine tells: plain objects. Times are Dates, durations milliseconds.

import type { TowlineError } from "./errors.js";

export type Answer = "done" | "already_fired" | "not_found";
export type DeadLetterStatus = "pending" | "reprocessing" | "resolved" | "expired" | "discarded";
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
  readonly outcome: "acked" | "rejected" | "unknown";
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
  readonly items: T[];
  readonly cursor: string;
}

/** A message that waits for its due time. `group`: the one whose retry it is; "": for every group. */
export interface Scheduled {
  readonly id: string;
  readonly topic: string;
  readonly key: string | null;
  readonly dueAt: Date;
  readonly group: string;
  readonly attempt: number;
  readonly payloadSize: number;
}

/** A message that a group could not handle, with the bytes and headers that were published. */
export interface DeadLetter {
  readonly id: string;
  readonly messageId: string;
  readonly topic: string;
  readonly group: string;
  readonly key: string | null;
  readonly partition: number;
  readonly headers: Record<string, string>;
  readonly contentType: string;
  readonly payload: Buffer;
  readonly reason: DeadLetterReason;
  readonly errorType: string;
  readonly errorMessage: string;
  readonly errorStack: string;
  readonly fingerprint: string;
  readonly attempt: number;
  readonly crashes: number;
  readonly publishedAt: Date;
  readonly firstFailedAt: Date;
  readonly lastFailedAt: Date;
  readonly createdAt: Date;
  readonly reprocessCount: number;
  readonly status: DeadLetterStatus;
  readonly metadata: string;
}

/** Dead letters with one fingerprint. */
export interface DeadLetterGroup {
  readonly fingerprint: string;
  readonly topic: string;
  readonly errorType: string;
  readonly errorMessage: string;
  readonly count: number;
  readonly firstAt: Date;
  readonly lastAt: Date;
}

/** Dead letters for which every condition holds; one that is left out always does. */
export interface DeadLetterQuery {
  topic?: string;
  group?: string;
  status?: DeadLetterStatus;
  errorType?: string;
  fingerprint?: string;
  /** Part of the error message or of the payload. */
  text?: string;
  reason?: DeadLetterReason;
  /** Inclusive; a number is milliseconds since 1970. */
  createdFrom?: Date | number;
  /** Exclusive. */
  createdBefore?: Date | number;
}

export interface RedriveOptions {
  /** Count and change nothing. */
  dryRun?: boolean;
  /** Entries per second; 0: no limit. */
  ratePerSecond?: number;
  delayMs?: number;
  /** "": the topic it came from. */
  destination?: string;
  /** For a single entry: replaces the payload; what `publish` takes. The content type stays. */
  payload?: unknown;
  /** Entries redriven this often already are passed over; 3 unless given. */
  redriveMax?: number;
}

export interface RedriveReport {
  readonly matched: number;
  readonly redriven: number;
  readonly passedOver: number;
}

export interface GroupBacklog {
  readonly topic: string;
  readonly group: string;
  readonly waiting: number;
  readonly inFlight: number;
  readonly memberCount: number;
}

/** A key that waits for a failed message (`held`: for a person). */
export interface BlockedKey {
  readonly topic: string;
  readonly group: string;
  readonly key: string;
  readonly partition: number;
  readonly since: Date;
  readonly parkedCount: number;
  readonly held: boolean;
}

export interface Health {
  readonly ok: boolean;
  readonly detail: string;
}

export interface EngineStatistics {
  readonly published: number;
  readonly duplicates: number;
  readonly rejected: number;
  readonly unknown: number;
  readonly scheduledNow: number;
  readonly parkedNow: number;
  readonly fired: number;
  readonly redriven: number;
  readonly swept: number;
  readonly relayed: number;
  readonly refused: number;
  readonly deadLetters: Record<DeadLetterStatus, number>;
  readonly idempotencyRecords: number;
  readonly storeBytes: number;
  readonly latenessP50Us: number;
  readonly latenessP99Us: number;
  readonly latenessMaxUs: number;
}

export interface ConsumerStatistics {
  readonly received: number;
  readonly acked: number;
  readonly failed: number;
  readonly retried: number;
  readonly deferred: number;
  readonly deadLettered: number;
  readonly filtered: number;
  readonly expired: number;
  readonly timedOut: number;
  readonly leaseLost: number;
  readonly duplicates: number;
  readonly discarded: number;
  readonly inFlight: number;
  readonly running: number;
  readonly runningMax: number;
  readonly stuck: number;
  readonly blockedKeys: number;
  readonly paused: boolean;
  readonly breakerOpen: boolean;
}

/** Of a Limiter. `granted` and `refused` count since it was made. */
export interface LimiterStatistics {
  readonly limit: number;
  readonly inUse: number;
  readonly waiting: number;
  readonly inUseMax: number;
  readonly granted: number;
  readonly refused: number;
}

/** Something that a person should look at: dead letters, or a saga that is stuck. */
export interface Alert {
  readonly kind: "depth" | "age" | "rate" | "new_fingerprint" | "entry" | "saga_stuck";
  /** The condition has ended. */
  readonly recovered: boolean;
  readonly value: number;
  readonly limit: number;
  /** Of "new_fingerprint" and "entry"; else empty. */
  readonly topic: string;
  readonly fingerprint: string;
  /** Of "saga_stuck", where `value` is how many are stuck; else empty. */
  readonly sagaType: string;
  readonly sagaId: string;
  /** The step that is stuck; of several the first. */
  readonly sagaStep: string;
}

export type LogLevel = "debug" | "info" | "warning" | "error";

export interface LogRecord {
  readonly level: LogLevel;
  readonly station: string;
  readonly text: string;
}
