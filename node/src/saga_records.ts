// What the sagas of an engine tell, and their contexts and outputs as they are kept.

import { isUtf8 } from "node:buffer";

import { encode } from "./payload.js";

/** Where a saga is; `stuck` waits for a person. */
export type SagaStatus = "running" | "compensating" | "completed" | "compensated" | "stuck";

/**
 * What happened to a saga. "heard" is of a choreography: somebody else has published `event`. "started" and
 * "compensating" are written before an attempt; "failed" and "compensation_failed" are tried again at `dueAt`,
 * "given_up" and "compensation_stuck" are not; "postponed" did not count. "skipped", "retried", "forced_completed",
 * "forced_compensated" and "note" are by a person.
 */
export type SagaMark =
  | "begun" | "heard" | "started" | "done" | "failed" | "postponed" | "given_up" | "compensating" | "compensated"
  | "compensation_failed" | "compensation_stuck" | "cancelled" | "skipped" | "retried" | "forced_completed"
  | "forced_compensated" | "note";

/** `isNew`: false when the saga was there already. */
export interface SagaStarted {
  /** Of the saga. */
  readonly id: string;
  /** False: it was there already, and nothing was changed. */
  readonly isNew: boolean;
}

/** What is known of a saga without its log. */
export interface SagaInfo {
  /** Of its definition. */
  readonly type: string;
  /** Unique in its type. */
  readonly id: string;
  /** That it began under. */
  readonly definitionVersion: number;
  /** Of the definition that it began under. */
  readonly fingerprint: string;
  /** Where it is. */
  readonly status: SagaStatus;
  /** Where it is: the step that runs, waits or is stuck; of several the first. Empty: at none. */
  readonly step: string;
  /** What failed first, or why it was cancelled; empty: nothing did. */
  readonly error: string;
  /** When it was started. */
  readonly startedAt: Date;
  /** When something happened to it last. */
  readonly updatedAt: Date;
  /** When it is cancelled by itself; undefined: never. */
  readonly deadlineAt: Date | undefined;
  /** How long it is kept once it is completed or compensated. */
  readonly retentionMs: number;
}

/** One entry of a saga's log. */
export interface SagaEntry {
  /** What happened. */
  readonly mark: SagaMark;
  /** Empty where the whole saga is meant. */
  readonly step: string;
  /** Which one it was, from 1. */
  readonly attempt: number;
  /** When it goes on, where it waits. */
  readonly dueAt: Date | undefined;
  /** What the step has left. */
  readonly output: unknown;
  /** What was handed on. */
  readonly context: unknown;
  /** Why it failed. */
  readonly error: string;
  /** Of a choreography: the topic that was heard, or where what came of the step was published; empty: none. */
  readonly event: string;
  /** When it happened. */
  readonly at: Date;
}

/** What a saga came to. */
export interface SagaResult<C = unknown> {
  /** How it has ended. */
  readonly saga: SagaInfo;
  /** What its last step left. */
  readonly context: C;
}

/** Every condition that is given must hold. */
export interface SagaQuery {
  /** Of the definition. */
  type?: string;
  /** Where they are. */
  status?: SagaStatus;
  /** That they began under. */
  definitionVersion?: number;
  /** Neither completed nor compensated. */
  unfinished?: boolean;
  /** A number is milliseconds since 1970. */
  startedBefore?: Date | number;
}

/** Since the runner was started, but for `inHand`, the sagas that it works on now. */
export interface SagaRunnerStatistics {
  /** Sagas that this process works on now. */
  readonly inHand: number;
  /** Begun here. */
  readonly calls: number;
  /** Calls that failed or ran out of time. */
  readonly failures: number;
  /** Calls whose process had died. */
  readonly takenOver: number;
  /** Sagas that ended here. */
  readonly completed: number;
  /** As `completed`. */
  readonly compensated: number;
  /** As `completed`. */
  readonly stuck: number;
  /** Sagas that wait because they began under another definition of this version. */
  readonly mismatched: number;
  /** Events of a choreography that came before their saga, each time one was looked at. */
  readonly early: number;
  /** Events of a choreography that came when their saga was over. */
  readonly late: number;
  /** Events of a choreography that carried no saga's id. */
  readonly strangers: number;
}

/** @internal Bytes as they are, else JSON; nothing for undefined. */
export function encodeState(value: unknown): string | Uint8Array {
  if (value === undefined) return "";
  return typeof value === "string" ? JSON.stringify(value) : encode(value)[0];
}

/** @internal */
export function decodeState(bytes: Buffer): unknown {
  if (bytes.length === 0) return undefined;
  if (!isUtf8(bytes)) return bytes;
  try {
    return JSON.parse(bytes.toString());
  } catch {
    return bytes;
  }
}
