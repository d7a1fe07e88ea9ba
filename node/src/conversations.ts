// Conversations: streams of messages that clients read, who come and go.

import { checkHeaders, checkOptions } from "./arguments.js";
import type { Host } from "./consumer.js";
import {
  type AppendedMessage, type CatchUp, catchUps, type ConversationGap, type ConversationMessage, conversationPage,
  type ConversationPage, type MissedConversation, type NewConversationMessage, type RawCatchUp,
  type RawConversationPage, sequenceOf,
} from "./conversation_records.js";
import { InvalidArgumentError, LimitExceededError } from "./errors.js";
import { placeFrom } from "./event_records.js";
import { encode } from "./payload.js";
import type { Page } from "./records.js";
import { type Cancellable, orAborted, throwIfAborted } from "./signals.js";

/** How much at once. */
export interface CountOptions extends Cancellable {
  /** [1, 10000] (of `missed` 1000); 100 unless given. */
  countMax?: number;
}

/** Which part of a listing. */
export interface PageOptions extends CountOptions {
  /** Of the page before; the first page unless given. */
  cursor?: string;
}

const COUNT_MAX = 100;
const FEED_COUNT_MAX = 10_000;

interface Fed {
  page: RawConversationPage;
  given: bigint | undefined;
}

/**
 * What one client gets, of everything that comes on any path: each message once, and in order. A message that is
 * not the next is no error: one that was given before is passed over, and what lies between is read from the store
 * first. So what `reconnect` found and what comes live can both be offered.
 *
 * It begins a conversation behind the position of its client; without one behind what the user missed; and where
 * nothing is known of either, with the first message that is offered. It remembers one number for each of at most
 * 10,000 conversations. Calls are answered one after the other, in their order. Made by `engine.conversations.feed`.
 */
export class ConversationFeed<T = unknown> {
  readonly #host: Host;
  readonly #user: string;
  readonly #client: string;
  readonly #given = new Map<string, bigint>();
  #last: Promise<unknown> = Promise.resolve();

  /** @internal */
  constructor(host: Host, user: string, client: string) {
    this.#host = host;
    this.#user = user;
    this.#client = client;
  }

  /**
   * What the client is to get now: empty when it had this message. While not `end`, ask for more with `next`. After
   * an error nothing counts as given: offer the message again. Rejects with InvalidArgumentError (no such message),
   * LimitExceededError (conversations).
   */
  async offer(message: ConversationMessage<T>, options: CountOptions = {}): Promise<ConversationPage<T>> {
    checkOptions(options, "countMax");
    const sequence = sequenceOf(message);
    const { conversation } = message;
    return this.#inTurn(options.signal, async () => {
      this.#host.check();
      const given = this.#given.get(conversation);
      if (given !== undefined && sequence <= given) return { messages: [], end: true, gap: undefined };
      if (given !== undefined && sequence === given + 1n) {
        this.#given.set(conversation, sequence);
        return { messages: [message], end: true, gap: undefined };
      }
      const page = await this.#ask(conversation, sequence, given, options);
      // The native half was given the number of the message alone.
      return { ...page, messages: page.messages.map((one) => (one.sequence === sequence ? message : one)) };
    });
  }

  /** What is in the store behind what was given of a conversation. Rejects as `offer`. */
  async next(conversation: string, options: CountOptions = {}): Promise<ConversationPage<T>> {
    checkOptions(options, "countMax");
    return this.#inTurn(options.signal, () => this.#ask(conversation, 0n, this.#given.get(conversation), options));
  }

  /**
   * The client has everything up to this sequence, so it gets what is behind it. It moves only forward. Throws
   * LimitExceededError.
   */
  begin(conversation: string, sequence: bigint | number): void {
    const place = placeFrom(sequence, "sequence");
    const given = this.#given.get(conversation) ?? 0n;
    this.#remember(conversation, place > given ? place : given);
  }

  /** The last sequence that was given of a conversation; undefined: nothing is known of it yet. */
  given(conversation: string): bigint | undefined {
    return this.#given.get(conversation);
  }

  /** Who has left before its turn asks for nothing. */
  #inTurn<R>(signal: AbortSignal | undefined, work: () => Promise<R>): Promise<R> {
    throwIfAborted(signal);
    const turn = this.#last.then(() => {
      throwIfAborted(signal);
      return work();
    });
    this.#last = turn.catch(() => undefined);
    return orAborted(turn, signal);
  }

  #remember(conversation: string, sequence: bigint): void {
    if (!this.#given.has(conversation) && this.#given.size >= FEED_COUNT_MAX) {
      throw new LimitExceededError(`the feed has ${FEED_COUNT_MAX} conversations, and has no room for another; serve `
        + "the client with several feeds");
    }
    this.#given.set(conversation, sequence);
  }

  async #ask(
    conversation: string, sequence: bigint, given: bigint | undefined, options: CountOptions,
  ): Promise<ConversationPage<T>> {
    const fed = await this.#host.call<Fed>(options.signal, "askFeed", this.#user, this.#client, conversation, sequence,
      given, options.countMax ?? COUNT_MAX);
    if (fed.given !== undefined) this.#remember(conversation, fed.given);
    return conversationPage<T>(fed.page);
  }
}

/**
 * The conversations of an engine: `engine.conversations`. A conversation is made by its first message; its messages
 * have the sequences 1, 2, 3, ... without gaps. A copy of each goes to one topic (the option
 * `conversations: { fanoutTopic }`), which the processes that serve clients consume; what a client has read is kept
 * as a position. The names of conversations, users and clients have 1 to 255 bytes of visible ASCII; another one is
 * refused with InvalidNameError. Sequences are bigints; whole numbers are taken, too.
 */
export class Conversations {
  readonly #host: Host;

  /** @internal */
  constructor(host: Host) {
    this.#host = host;
  }

  /**
   * Numbers the message, keeps it, and fans it out, all or nothing. An append whose outcome is unknown may be
   * repeated with its `id`. The copy has the id of the message, the conversation as its key, and is read with
   * `ConversationMessage.of`. Rejects with InvalidIdError, InvalidHeaderError, PayloadTooLargeError,
   * StorageFullError.
   */
  async append(
    conversation: string, message: NewConversationMessage, options: Cancellable = {},
  ): Promise<AppendedMessage> {
    checkOptions(options);
    if (typeof message !== "object" || message === null) {
      throw new InvalidArgumentError(
        `a message is ${message === null ? "null" : `a ${typeof message}`}, but must be an object`);
    }
    const { sender, value, headers = {}, contentType, id } = message;
    checkHeaders(headers);
    const [payload, known] = encode(value);
    return this.#host.call(options.signal, "appendMessage", conversation,
      [sender, payload, contentType ?? known, headers, id]);
  }

  /**
   * Messages behind a sequence (0, unless given: from the beginning), or behind the message with an id; it is not
   * included. Less come when their payloads pass 4 MiB. Where something between was trimmed `gap` says so. Rejects
   * with InvalidArgumentError (the conversation has not come that far), NotFoundError (no message has this id, and
   * nothing was trimmed), InvalidIdError.
   */
  async messagesSince<T = unknown>(
    conversation: string, after: bigint | number | string = 0n, options: CountOptions = {},
  ): Promise<ConversationPage<T>> {
    checkOptions(options, "countMax");
    const byId = typeof after === "string";
    const raw = await this.#host.call<RawConversationPage>(options.signal, byId ? "messagesSinceId" : "messagesSince",
      conversation, byId ? after : placeFrom(after, "after"), options.countMax ?? COUNT_MAX);
    return conversationPage<T>(raw);
  }

  /** The sequences there are; undefined: no such conversation. */
  async find(conversation: string, options: Cancellable = {}): Promise<ConversationGap | undefined> {
    checkOptions(options);
    return this.#host.call(options.signal, "findConversation", conversation);
  }

  /**
   * The client has seen everything up to this sequence, which is kept for 30 days (`clientExpiryMs`). It moves only
   * forward. What the user missed up to here is not counted as missed any more. Rejects with InvalidArgumentError
   * (0, or there is no such message yet).
   */
  async acknowledge(
    user: string, client: string, conversation: string, sequence: bigint | number, options: Cancellable = {},
  ): Promise<void> {
    checkOptions(options);
    await this.#host.call(options.signal, "acknowledgeMessage", user, client, conversation,
      placeFrom(sequence, "sequence"));
  }

  /** The last sequence that was acknowledged; undefined: none, or it expired. */
  async position(
    user: string, client: string, conversation: string, options: Cancellable = {},
  ): Promise<bigint | undefined> {
    checkOptions(options);
    return this.#host.call(options.signal, "clientPosition", user, client, conversation);
  }

  /**
   * Counts a message that came while no client of the user was there. It counts once, however often it is noted; out
   * of order it does so within 64 of the last. Rejects with InvalidArgumentError.
   */
  async noteMissed(
    user: string, conversation: string, sequence: bigint | number, options: Cancellable = {},
  ): Promise<void> {
    checkOptions(options);
    await this.#host.call(options.signal, "noteMissed", user, conversation, placeFrom(sequence, "sequence"));
  }

  /** By conversation; gone 24 hours (`missedExpiryMs`) after the last message was noted. */
  async missed(user: string, options: PageOptions = {}): Promise<Page<MissedConversation>> {
    checkOptions(options, "countMax", "cursor");
    return this.#host.call(options.signal, "missedMessages", user, options.countMax ?? COUNT_MAX,
      options.cursor ?? "");
  }

  /**
   * What a client missed: of conversations that it has a position in, what is behind it; of others where its user
   * missed something, from the first of it on. By conversation, at most `countMax` messages; with a cursor, call
   * again with it for what follows (a page may be empty and have one). What is returned is not counted as missed any
   * more. Until it is acknowledged a reconnect gives it again. Rejects with InvalidCursorError.
   */
  async reconnect<T = unknown>(
    user: string, client: string, options: PageOptions = {},
  ): Promise<Page<CatchUp<T>>> {
    checkOptions(options, "countMax", "cursor");
    const raw = await this.#host.call<Page<RawCatchUp>>(options.signal, "reconnectClient", user, client,
      options.countMax ?? COUNT_MAX, options.cursor ?? "");
    return catchUps<T>(raw);
  }

  /** For one connection of a client. */
  feed<T = unknown>(user: string, client: string): ConversationFeed<T> {
    return new ConversationFeed<T>(this.#host, user, client);
  }

  /** Removes messages before a sequence, whether they were read or not; the newest stays. Rejects with NotFoundError. */
  async trim(conversation: string, beforeSequence: bigint | number, options: Cancellable = {}): Promise<void> {
    checkOptions(options);
    await this.#host.call(options.signal, "trimConversation", conversation,
      placeFrom(beforeSequence, "beforeSequence"));
  }
}
