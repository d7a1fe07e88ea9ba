// A handler's transaction: its SQL, what it publishes and its acknowledgement are one.

import { checkNames } from "./arguments.js";
import { fieldsOf, type MessageOptions } from "./calls.js";
import { InvalidArgumentError } from "./errors.js";
import { eventFields, type NewEvent, placeFrom } from "./event_records.js";
import { type Handle, native } from "./native.js";
import { encode } from "./payload.js";
import { kindOf } from "./words.js";

/** Whole numbers, also as bigint, are INTEGER; other numbers REAL; strings TEXT. */
export type SqlParameter = null | number | bigint | string;
/** A whole number that a number cannot hold exactly comes as bigint, a blob that is no text as bytes. */
export type SqlValue = null | number | bigint | string | Buffer;

/** SQL on the engine's own connection, inside `message.transaction`; over when the body returns. */
export class Transaction {
  readonly #session: Handle;

  /** @internal */
  constructor(session: Handle) {
    this.#session = session;
  }

  /**
   * Runs one statement and returns its rows. The engine's own tables, PRAGMA, ATTACH, temporary tables and
   * transaction statements are refused with InvalidArgumentError.
   */
  execute(sql: string, parameters: readonly SqlParameter[] = []): SqlValue[][] {
    return native.sqlExecute(this.#session, sql, parameters);
  }

  /** Publishes with the transaction. Returns the message's id. */
  publish(topic: string, value: unknown, options: MessageOptions = {}): string {
    return native.sqlPublish(this.#session, fieldsOf(topic, value, options));
  }

  /**
   * Appends events when the body has returned, as `engine.eventStore.append`: another version than `expected` then
   * fails the transaction with ConflictError. Once per stream.
   */
  append(stream: string, events: readonly NewEvent[], options: { expected?: bigint | number } = {}): void {
    checkNames(options, "options", "expected");
    const { expected } = options;
    const version = expected === undefined ? undefined : placeFrom(expected, "expected");
    native.sqlAppend(this.#session, stream, eventFields(events), version);
  }

  /** Stores the result of an idempotency key with the effect; `once` gives it as bytes. */
  complete(scope: string, key: string, result: unknown): void {
    native.sqlComplete(this.#session, scope, key, encode(result)[0]);
  }
}

/** Runs `body` now, on this thread. */
export function runTransaction(
  deliveries: Handle, place: number, body: (transaction: Transaction) => unknown,
): void {
  if (typeof body !== "function") {
    throw new InvalidArgumentError(
      `the body of the transaction is ${kindOf(body)}, but must be a function`);
  }
  native.transaction(deliveries, place, (session) => {
    const result = body(new Transaction(session));
    if (result instanceof Promise) {
      result.catch(() => {}); // what it does after the end is refused
      throw new InvalidArgumentError("the body of a transaction must not be asynchronous: every writer waits");
    }
  });
}
