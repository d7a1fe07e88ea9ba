// Payloads: from what a user publishes to bytes, and back by the content type.

const JSON_TYPE = "application/json";
const TEXT_TYPE = "text/plain; charset=utf-8";
/** Nothing is known of them; not stored either. */
const BYTES_TYPE = "";

/** The payload cannot be read, or a value cannot be written: never retried. */
export class PayloadError extends TypeError {
  /** The same text in every language. */
  readonly code = "ERR_PAYLOAD";
  /** The same call fails again. */
  readonly retryable = false;
  /** Of a publish: the message is surely not stored. */
  outcome: "rejected" | "unknown" | undefined;
  override get name(): string {
    return "PayloadError";
  }
}

/** Bytes stay bytes (the same: who keeps them copies them), strings are UTF-8, everything else is JSON. */
export function encode(value: unknown): [string | Uint8Array, string] {
  if (typeof value === "string") return [value, TEXT_TYPE];
  // A copy throws for bytes whose memory is gone; they look as if there were none.
  if (value instanceof Uint8Array) return [value.length > 0 ? value : new Uint8Array(value), BYTES_TYPE];
  if (value instanceof ArrayBuffer) return [new Uint8Array(value), BYTES_TYPE];
  if (ArrayBuffer.isView(value) || value instanceof SharedArrayBuffer) {
    throw new PayloadError("bytes must be a Uint8Array or an ArrayBuffer: how others are laid out depends");
  }
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch (cause) {
    throw new PayloadError("the payload cannot be written as JSON; give bytes, or what JSON knows",
      { cause });
  }
  if (text === undefined) {
    throw new PayloadError(`a payload of type ${typeof value} has no JSON form; give bytes, or plain data`);
  }
  return [text, JSON_TYPE];
}

/** JSON, text, else bytes (a copy), of `bytes` between `from` and `to`. */
export function decode(bytes: Buffer, from: number, to: number, contentType: string): unknown {
  if (contentType.startsWith(JSON_TYPE)) {
    try {
      return JSON.parse(bytes.toString("utf8", from, to));
    } catch (cause) {
      throw new PayloadError("the payload is no JSON, though its content type says so", { cause });
    }
  }
  if (contentType.startsWith("text/")) return bytes.toString("utf8", from, to);
  return Buffer.from(bytes.subarray(from, to));
}
