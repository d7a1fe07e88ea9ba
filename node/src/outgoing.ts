// What is published in one turn of the loop, in the form in which it goes down: a call from the native half into
// JavaScript for each field would cost more than storing the message.
//
// Bytes lie behind each other in one buffer; numbers are those of each request: id, how many messages, and of each
// message the fields below; what is neither is a place in the list of values.

import type { Fields, Port } from "./native.js";

// topic (place), payload (from, to), key (place or -1), content type (place), others (place or -1)
const NUMBERS_EACH = 6;
const NUMBERS_OF_REQUEST = 2;

const BYTES_START = 64 * 1024;
const NUMBERS_START = 8 * 1024;
/** What has grown beyond it is not kept. */
const KEPT_MAX = 1024 * 1024;
/** Shorter strings are given the room that their UTF-8 takes at most; longer ones are counted. */
const UNCOUNTED_LENGTH_MAX = 64 * 1024;
const BYTES_PER_UNIT_MAX = 3;

export class Outgoing {
  #bytes = Buffer.allocUnsafeSlow(BYTES_START);
  #size = 0;
  #numbers = new Float64Array(NUMBERS_START);
  #count = 0;
  #values: unknown[] = [];
  #topic: unknown;
  #topicPlace = -1;
  #contentType: unknown;
  #contentTypePlace = -1;

  get isEmpty(): boolean {
    return this.#count === 0;
  }
  /** Whether so much waits that it had better go now. */
  get isFull(): boolean {
    return this.#size > KEPT_MAX || this.#count > NUMBERS_START;
  }

  /** Copies the payloads. Runs no code of the user. When it throws, for want of memory, nothing was added. */
  add(id: number, messages: readonly Fields[]): void {
    const [count, size] = [this.#count, this.#size];
    try {
      this.#add(id, messages);
    } catch (error) {
      [this.#count, this.#size] = [count, size];
      throw error;
    }
  }

  /** Hands all of it down; what cannot be converted is refused. Empty afterwards. */
  send(port: Port, refuse: (id: number, error: unknown) => void): void {
    port.publish(this.#bytes, this.#numbers, this.#count, this.#values, refuse);
    if (this.#bytes.length > KEPT_MAX) this.#bytes = Buffer.allocUnsafeSlow(BYTES_START);
    if (this.#numbers.length > KEPT_MAX) this.#numbers = new Float64Array(NUMBERS_START);
    this.#size = 0;
    this.#count = 0;
    this.#values = [];
    this.#topicPlace = -1;
    this.#contentTypePlace = -1;
    this.#topic = undefined;
    this.#contentType = undefined;
  }

  #add(id: number, messages: readonly Fields[]): void {
    this.#reserve(NUMBERS_OF_REQUEST + messages.length * NUMBERS_EACH);
    this.#number(id);
    this.#number(messages.length);
    for (const [topic, payload, key, contentType, others] of messages) {
      if (this.#topicPlace < 0 || topic !== this.#topic) {
        this.#topic = topic;
        this.#topicPlace = this.#place(topic);
      }
      this.#number(this.#topicPlace);
      this.#number(this.#size);
      this.#put(payload);
      this.#number(this.#size);
      this.#number(key === undefined || key === null ? -1 : this.#place(key));
      if (this.#contentTypePlace < 0 || contentType !== this.#contentType) {
        this.#contentType = contentType;
        this.#contentTypePlace = this.#place(contentType);
      }
      this.#number(this.#contentTypePlace);
      this.#number(others === undefined ? -1 : this.#place(others));
    }
  }

  #put(payload: string | Uint8Array): void {
    if (typeof payload === "string") {
      this.#makeRoom(payload.length <= UNCOUNTED_LENGTH_MAX
        ? payload.length * BYTES_PER_UNIT_MAX
        : Buffer.byteLength(payload));
      this.#size += this.#bytes.write(payload, this.#size);
    } else {
      this.#makeRoom(payload.length);
      this.#bytes.set(payload, this.#size);
      this.#size += payload.length;
    }
  }

  #place(value: unknown): number {
    return this.#values.push(value) - 1;
  }

  #number(number: number): void {
    this.#numbers[this.#count++] = number;
  }

  #makeRoom(more: number): void {
    if (this.#size + more <= this.#bytes.length) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(this.#size + more, 2 * this.#bytes.length));
    grown.set(this.#bytes.subarray(0, this.#size));
    this.#bytes = grown;
  }

  #reserve(more: number): void {
    if (this.#count + more <= this.#numbers.length) return;
    const grown = new Float64Array(Math.max(this.#count + more, 2 * this.#numbers.length));
    grown.set(this.#numbers.subarray(0, this.#count));
    this.#numbers = grown;
  }
}
