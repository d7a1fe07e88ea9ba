// What conversations take and tell. Sequences are bigints.

import { InvalidArgumentError } from "./errors.js";
import { LAST } from "./event_records.js";
import type { Message } from "./message.js";
import { decode } from "./payload.js";
import type { Page } from "./records.js";

/** A message to append to a conversation. */
export interface NewConversationMessage {
  /** 1 to 255 bytes of visible ASCII. */
  readonly sender: string;
  /** Bytes as they are, strings as UTF-8, else JSON. */
  readonly value: unknown;
  /** As those of a message that is published. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Said by the kind of the value unless given. */
  readonly contentType?: string;
  /** A UUID of your own: appending it again under its id changes nothing. */
  readonly id?: string;
}

/** What an append came to. `duplicate`: it was there already, and nothing was changed or fanned out. */
export interface AppendedMessage {
  /** In its conversation, from 1. */
  readonly sequence: bigint;
  /** Of the message. */
  readonly id: string;
  /** The id was there already, and nothing was changed. */
  readonly duplicate: boolean;
}

/** Some of what was asked for was trimmed. There are messages from `oldest` to `newest`, included. */
export interface ConversationGap {
  /** The first sequence that is kept. */
  readonly oldest: bigint;
  /** The last sequence. */
  readonly newest: bigint;
}

/** Messages in a row; nothing more is there now when `end`. */
export interface ConversationPage<T = unknown> {
  /** In their order. */
  readonly messages: ConversationMessage<T>[];
  /** Nothing more is there now. */
  readonly end: boolean;
  /** Between what was asked for and the first of them. */
  readonly gap: ConversationGap | undefined;
}

/** What a client missed of one conversation. Not `end`: the next page goes on with it. */
export interface CatchUp<T = unknown> extends ConversationPage<T> {
  /** Its name. */
  readonly conversation: string;
}

/** What a user missed of one conversation while no client of the user was there. */
export interface MissedConversation {
  /** Its name. */
  readonly conversation: string;
  /** Messages that were missed. */
  readonly count: number;
  /** Of the first of them. */
  readonly firstSequence: bigint;
  /** Of the last of them. */
  readonly lastSequence: bigint;
}

/** @internal */
export interface RawConversationMessage {
  conversation: string;
  sequence: bigint;
  id: string;
  sender: string;
  payload: Buffer;
  contentType: string;
  headers: Readonly<Record<string, string>>;
  sentAt: Date;
}

/** @internal */
export interface RawConversationPage {
  messages: RawConversationMessage[];
  end: boolean;
  gap: ConversationGap | undefined;
}

/** @internal */
export type RawCatchUp = RawConversationPage & { conversation: string };

const HEADERS = ["towline-conversation", "towline-sequence", "towline-sender"] as const;

/** A message of a conversation. */
export class ConversationMessage<T = unknown> {
  /** Its name. */
  readonly conversation: string;
  /** In its conversation, from 1, without gaps. */
  readonly sequence: bigint;
  /** A UUID. */
  readonly id: string;
  /** Who has said it. */
  readonly sender: string;
  /** The bytes. */
  readonly payload: Buffer;
  /** Of the payload; "" for bytes. */
  readonly contentType: string;
  /** As they were given. */
  readonly headers: Readonly<Record<string, string>>;
  /** Says nothing about order. */
  readonly sentAt: Date;

  /** @internal */
  constructor(raw: RawConversationMessage) {
    this.conversation = raw.conversation;
    this.sequence = raw.sequence;
    this.id = raw.id;
    this.sender = raw.sender;
    this.payload = raw.payload;
    this.contentType = raw.contentType;
    this.headers = raw.headers;
    this.sentAt = raw.sentAt;
  }

  /** The message that one of the fan-out topic is a copy of. Throws InvalidArgumentError: it is none. */
  static of<T = unknown>(message: Message<T>): ConversationMessage<T> {
    const headers: Record<string, string> = { ...message.headers };
    const [conversation, sequence, sender] = HEADERS.map((name) => headers[name]);
    for (const name of HEADERS) delete headers[name];
    if (conversation === undefined || sender === undefined || !/^[1-9][0-9]{0,19}$/.test(sequence ?? "")) {
      throw new InvalidArgumentError(`message ${message.id} is no copy of a message of a conversation: it lacks the `
        + `headers ${HEADERS.join(", ")}`);
    }
    return new ConversationMessage<T>({
      conversation, sequence: BigInt(sequence!), id: message.id, sender, payload: message.payload,
      contentType: message.contentType, headers, sentAt: message.publishedAt,
    });
  }

  /** The payload by its content type: JSON, text, else bytes. Throws PayloadError. */
  get value(): T {
    return decode(this.payload, 0, this.payload.length, this.contentType) as T;
  }
}

/** @internal */
export function conversationPage<T>(raw: RawConversationPage): ConversationPage<T> {
  return { ...raw, messages: raw.messages.map((one) => new ConversationMessage<T>(one)) };
}

/** @internal */
export function catchUps<T>(raw: Page<RawCatchUp>): Page<CatchUp<T>> {
  return {
    ...raw,
    items: raw.items.map(({ conversation, ...page }) => ({ conversation, ...conversationPage<T>(page) })),
  };
}

/** @internal Of a message that is offered. */
export function sequenceOf(message: ConversationMessage): bigint {
  const sequence = (message as ConversationMessage | undefined)?.sequence;
  if (typeof sequence !== "bigint" || sequence < 1n || sequence > LAST) {
    throw new InvalidArgumentError("message must be a ConversationMessage, with a sequence from 1 on");
  }
  return sequence;
}
