// The words of errors: what was given, and the names that things have here.

import { TABLE } from "./options.js";

const SHOWN_LENGTH_MAX = 50;

/** What it is, for an error. */
export function kindOf(value: unknown): string {
  if (value === undefined || value === null) return String(value);
  if (typeof value !== "object") return `a ${typeof value}`;
  try {
    if (Array.isArray(value)) return "a list";
    if (value instanceof Date) return Number.isNaN(value.getTime()) ? "an invalid Date" : "a Date";
    const name: unknown = value.constructor.name;
    if (typeof name !== "string" || name === "" || name === "Object") return "an object";
    return `${/^[AEIOU]/.test(name) ? "an" : "a"} ${name.slice(0, SHOWN_LENGTH_MAX)}`;
  } catch {
    return "an object"; // one whose getters throw, or that has no constructor
  }
}

/** The same with its value, where that is short. */
export function shown(value: unknown): string {
  if (typeof value === "string") return `a string ('${value.slice(0, SHOWN_LENGTH_MAX)}')`;
  const hasText = typeof value === "number" || typeof value === "boolean" || typeof value === "bigint";
  return hasText ? `a ${typeof value} (${String(value).slice(0, SHOWN_LENGTH_MAX)})` : kindOf(value);
}

/** How many letters must be put in, taken out or changed to make one of the other. */
function distanceOf(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, at) => at);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const [left, above, diagonal] = [next[j - 1], row[j], row[j - 1]] as [number, number, number];
      next.push(a[i - 1] === b[j - 1] ? diagonal : 1 + Math.min(left, above, diagonal));
    }
    row = next;
  }
  return row[b.length] as number;
}

/** What to say behind an unknown name: the one that may be meant, and all that are known. */
export function otherNames(name: string, known: readonly string[], above = ""): string {
  const plain = (text: string): string => text.replaceAll("_", "").toLowerCase();
  const given = plain(name.slice(0, SHOWN_LENGTH_MAX));
  const distances = known.map((one) => {
    const begins = given.length > 3 && plain(one).startsWith(given);
    return begins ? 0 : distanceOf(given, plain(one));
  });
  const least = Math.min(...distances);
  const isNear = least <= 2 && least < given.length / 2;
  const meant = isNear ? `; did you mean '${above}${known[distances.indexOf(least)]}'?` : "";
  return `${meant}; known are ${known.join(", ")}`;
}

/** What the engine calls otherwise, outside its options. */
const NAMES: Record<string, string> = {
  due_at: "dueAt", dedup_id: "dedupId", correlation_id: "correlationId", causation_id: "causationId",
  content_type: "contentType", count_max: "countMax", "misfire.skip_if_late_by": "skipIfLateByMs",
  after_sequence: "afterSequence", waiting_max: "waitingMax", begins_with: "beginsWith", listen_to: "listenTo",
  on_success: "onSuccess", on_failure: "onFailure", partition_count: "partitionCount", keep_original: "keepOriginal",
  "redrive_all()": "redriveAll()",
};
/** Of the options, those that errors name without their group. */
const ALONE = ["batch_count_max", "payload_bytes_max", "delay_ms_max", "publish_in_flight_count_max", "redrive_max",
  "compensation_command"];
/** Whose options are given to a call itself, not in an object of that name. */
const GIVEN_ALONE = new Set(["Engine", "Consumer", "Topic", "EventSubscription", "Idempotency", "Saga", "SagaStep"]);
/** What was quoted is the user's. */
const WORDS = /'[^']*'|"[^"]*"|(?<![\w.-])[a-z]+(?:_[a-z]+)*(?:\.[a-z]+(?:_[a-z]+)*)?(?:\(\))?/g;

const INVALID_DELAY = 10;
/** InvalidUrl and InvalidFilter: what they name is written so, in a URL and in a filter. */
const UNTOUCHED = new Set([12, 13]);

let renamed: Map<string, string> | undefined;

const camelOf = (text: string): string => text.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());

function makeRenamed(): Map<string, string> {
  const names = new Map([...Object.entries(NAMES), ...ALONE.map((one) => [one, camelOf(one)] as const)]);
  for (const [group, rows] of Object.entries(TABLE)) {
    const prefix = group.replace(/(?<=.)[A-Z]/g, "_$&").toLowerCase();
    for (const [name, [wire]] of Object.entries(rows)) {
      names.set(`${prefix}.${wire}`, GIVEN_ALONE.has(group) ? name : `${camelOf(prefix)}.${name}`);
    }
  }
  return names;
}

/** Microseconds, exactly. */
function msOf(us: string): string {
  const digits = us.replace("-", "").padStart(4, "0");
  const ms = `${digits.slice(0, -3)}.${digits.slice(-3)}`.replace(/\.?0+$/, "");
  return `${us.startsWith("-") ? "-" : ""}${ms} ms`;
}

/** The message of an error of the engine, in the names and the units that are used here. */
export function inWordsOfNode(number: number, message: string): string {
  if (UNTOUCHED.has(number)) return message;
  renamed ??= makeRenamed();
  const names = renamed;
  const text = message.replace(WORDS, (word) => names.get(word) ?? word);
  if (number !== INVALID_DELAY) return text;
  return text.replace(/^(delay|ttl)(?= is -?\d+ us| and dueAt)/, "$1Ms").replace(/(-?\d+) us\b/g, (_, us) => msOf(us));
}
