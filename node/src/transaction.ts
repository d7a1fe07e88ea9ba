// A handler's transaction: its SQL, what it publishes and its acknowledgement are one.

import { checkNames } from "./arguments.js";
import { fieldsOf, type MessageOptions } from "./calls.js";
import { InvalidArgumentError } from "./errors.js";
import { eventFields, type NewEvent, placeFrom } from "./event_records.js";
import { type Handle, native } from "./native.js";
import { encode } from "./payload.js";
import { kindOf, shown } from "./words.js";

/**
 * Whole numbers, also as bigint, are INTEGER, and so are true (1) and false (0); other numbers REAL; strings TEXT. Bytes
 * go as their hex text, with `unhex(?1)` in the statement.
 */
export type SqlParameter = null | number | bigint | string | boolean;
/** A whole number that a number cannot hold exactly comes as bigint, a blob that is no text as bytes. */
export type SqlValue = null | number | bigint | string | Buffer;

/** Parameters as the native half takes them. `place` from 1, as in the statement. */
function sqlParameterFrom(value: unknown, place: number): Exclude<SqlParameter, boolean> {
  if (value === null || typeof value === "string" || typeof value === "number") return value;
  if (typeof value === "boolean") return value ? 1 : 0;
  if (typeof value === "bigint" && BigInt.asIntN(64, value) === value) return value;
  const hint = value instanceof Uint8Array ? `; give the hex text of bytes, and unhex(?${place}) in the statement` : "";
  throw new InvalidArgumentError(`parameter ?${place} is ${shown(value)}, but must be null, a number, a bigint of 64 bits, `
    + `a string or a boolean${hint}`);
}

/** SQL on the engine's own connection, inside `message.transaction`; over when the body returns. */
export class Transaction {
  readonly #session: Handle;

  /** @internal */
  constructor(session: Handle) {
    this.#session = session;
  }

  /**
   * Runs one statement and returns its rows. The engine's own tables, PRAGMA, ATTACH, temporary tables and
   * transaction statements are refused with InvalidArgumentError, and so is a parameter of another type, by its place.
   */
  execute(sql: string, parameters: readonly SqlParameter[] = []): SqlValue[][] {
    if (!Array.isArray(parameters)) {
      throw new InvalidArgumentError(`the parameters are ${shown(parameters)}, but must be a list`);
    }
    const values = Array.from(parameters, (one: unknown, at) => sqlParameterFrom(one, at + 1));
    return native.sqlExecute(this.#session, sql, values);
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
