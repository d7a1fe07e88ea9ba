// What the event store takes and tells. Versions and positions are bigints.

import { checkHeaders } from "./arguments.js";
import { InvalidArgumentError } from "./errors.js";
import { decode, encode } from "./payload.js";

/** @internal The largest version, and position. */
export const LAST = 2n ** 64n - 1n;

/** An event to append. */
export interface NewEvent {
  /** What happened: a name as a topic's. */
  readonly type: string;
  /** Bytes as they are, strings as UTF-8, else JSON. */
  readonly value: unknown;
  /** As those of a message that is published. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Said by the kind of the value unless given. */
  readonly contentType?: string;
  /** A UUID of your own: appending it again under its id changes nothing. */
  readonly id?: string;
}

/** What an append came to. `duplicate`: all the events were there already, and nothing was changed. */
export interface Appended {
  /** Of the first event. */
  readonly firstVersion: bigint;
  /** Of the last event: the stream's. */
  readonly lastVersion: bigint;
  /** Of the last event, among all. */
  readonly lastPosition: bigint;
  /** All were there already, and nothing was changed. */
  readonly duplicate: boolean;
}

/** Some events in a row. `next` is where the next page begins; nothing more is there now when `end`. */
export interface EventPage<T = unknown> {
  /** In the order that was asked for. */
  readonly events: RecordedEvent<T>[];
  /** For `from` of the next page. */
  readonly next: bigint;
  /** Nothing more is there now. */
  readonly end: boolean;
}

/** A stream. `oldestVersion` is greater than 1 when it was truncated. */
export interface StreamInfo {
  /** As it was appended to. */
  readonly name: string;
  /** The first one that is kept. */
  readonly oldestVersion: bigint;
  /** The last one. */
  readonly newestVersion: bigint;
}

/** @internal */
export interface RawEvent {
  stream: string;
  version: bigint;
  position: bigint;
  id: string;
  type: string;
  payload: Buffer;
  contentType: string;
  headers: Record<string, string>;
  recordedAt: Date;
}

/** @internal */
export interface RawPage {
  events: RawEvent[];
  next: bigint;
  end: boolean;
}

/** @internal */
export interface RawSnapshot {
  version: bigint;
  state: Buffer;
  contentType: string;
  savedAt: Date;
}

/** An event of the store. */
export class RecordedEvent<T = unknown> {
  /** Its name. */
  readonly stream: string;
  /** In its stream, from 1, without gaps. */
  readonly version: bigint;
  /** Among all events, growing, with gaps. */
  readonly position: bigint;
  /** A UUID. */
  readonly id: string;
  /** What happened. */
  readonly type: string;
  /** The bytes. */
  readonly payload: Buffer;
  /** Of the payload; "" for bytes. */
  readonly contentType: string;
  /** As they were given. */
  readonly headers: Readonly<Record<string, string>>;
  /** Says nothing about order. */
  readonly recordedAt: Date;

  /** @internal */
  constructor(raw: RawEvent) {
    this.stream = raw.stream;
    this.version = raw.version;
    this.position = raw.position;
    this.id = raw.id;
    this.type = raw.type;
    this.payload = raw.payload;
    this.contentType = raw.contentType;
    this.headers = raw.headers;
    this.recordedAt = raw.recordedAt;
  }

  /** The payload by its content type: JSON, text, else bytes. Throws PayloadError. */
  get value(): T {
    return decode(this.payload, 0, this.payload.length, this.contentType) as T;
  }
}

/** The state of a stream's owner at a version, so that not all events must be read again. */
export class Snapshot<T = unknown> {
  /** Of the stream that it stands for. */
  readonly version: bigint;
  /** The bytes. */
  readonly state: Buffer;
  /** Of the state; "" for bytes. */
  readonly contentType: string;
  /** When it was kept. */
  readonly savedAt: Date;

  /** @internal */
  constructor(raw: RawSnapshot) {
    this.version = raw.version;
    this.state = raw.state;
    this.contentType = raw.contentType;
    this.savedAt = raw.savedAt;
  }

  /** The state by its content type, as `RecordedEvent.value`. */
  get value(): T {
    return decode(this.state, 0, this.state.length, this.contentType) as T;
  }
}

/** @internal A version, or a position. */
export function placeFrom(value: bigint | number, name: string): bigint {
  const isWhole = typeof value === "bigint" || Number.isSafeInteger(value);
  if (!isWhole || value < 0 || value > LAST) {
    const given = ["bigint", "number"].includes(typeof value) ? String(value).slice(0, 50) : `a ${typeof value}`;
    throw new InvalidArgumentError(`${name} is ${given}, but must be whole and in [0, ${LAST}]`);
  }
  return BigInt(value);
}

/** @internal type, payload, content type, headers, id of each, as the native half takes them. */
export function eventFields(events: readonly NewEvent[]): unknown[][] {
  if (!Array.isArray(events)) {
    throw new InvalidArgumentError(`events is a ${typeof events}, but must be a list`);
  }
  return events.map((one: NewEvent) => {
    if (typeof one !== "object" || one === null) {
      throw new InvalidArgumentError(`an event is ${one === null ? "null" : `a ${typeof one}`}, but must be an object`);
    }
    const { type, value, headers = {}, contentType, id } = one;
    checkHeaders(headers);
    const [payload, known] = encode(value);
    return [type, payload, contentType ?? known, headers, id];
  });
}
