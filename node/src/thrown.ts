// What was thrown, as texts. It may be anything: objects whose getters throw, proxies, causes in a ring.

import path from "node:path";
import { pathToFileURL } from "node:url";
import { inspect } from "node:util";

const STACK_LENGTH_MAX = 16_384;
const TEXT_LENGTH_MAX = 4_096;
const CAUSE_COUNT_MAX = 8;

/** Of the files of this package, as frames name them. */
const OWN_FOLDERS = [__dirname + path.sep, `${pathToFileURL(__dirname).href}/`];
const FRAME = /^\s+at /;
/** Node's own, and what calls handlers for this package. */
const OF_NODE = /\bnode:(internal|async_hooks|diagnostics_channel)\b/;

/** The names that say only which built-in class an error extends. */
const BUILT_IN = new Set([
  "Error", "AggregateError", "EvalError", "RangeError", "ReferenceError", "SyntaxError", "TypeError", "URIError",
]);
/** The constructors that say less than those names: what is no class of its own, and Node's for all of its errors. */
const NAMELESS = new Set(["", "Object", "NodeError"]);

function propertyOf(from: unknown, name: string): unknown {
  try {
    return (from as Record<string, unknown> | null | undefined)?.[name];
  } catch {
    return undefined;
  }
}

/** What a property of anything says as text; "" when it cannot be had. */
export function textOf(from: unknown, name: string): string {
  const value = propertyOf(from, name);
  return typeof value === "string" ? value : "";
}

/** Bounded, and without running its getters. Never throws. */
export function describe(value: unknown): string {
  try {
    if (typeof value !== "object" || value === null) return String(value);
    const bounds = { depth: 1, maxArrayLength: 20, maxStringLength: 1_000, breakLength: Infinity };
    return inspect(value, bounds).slice(0, TEXT_LENGTH_MAX);
  } catch {
    return "(the text of what was thrown could not be made)";
  }
}

function isError(value: unknown): boolean {
  try {
    return value instanceof Error;
  } catch {
    return false;
  }
}

/** Whether somebody gave this object a name of its own. */
function hasOwnName(error: object): boolean {
  try {
    return Object.hasOwn(error, "name");
  } catch {
    return true;
  }
}

/** The name that it was given, else that of its class: `class CardDeclined extends Error {}` inherits "Error". */
export function typeOf(error: unknown): string {
  if (typeof error !== "object" || error === null) return error === null ? "null" : typeof error;
  const name = textOf(error, "name");
  if (name !== "" && (!BUILT_IN.has(name) || hasOwnName(error))) return name;
  const ofClass = textOf(propertyOf(error, "constructor"), "name");
  return NAMELESS.has(ofClass) ? name || "Error" : ofClass;
}

/** Its message; what has none is described. */
export function messageOf(error: unknown): string {
  const isObject = typeof error === "object" && error !== null;
  const text = isObject ? textOf(error, "message") : describe(error);
  if (text !== "") return text;
  return isObject && !isError(error) ? describe(error) : `(this ${typeOf(error)} has no text)`;
}

/** Its stack without the frames that every stack has here, and behind it those of its causes, each once. */
export function stackOf(error: unknown): string {
  let stack = withoutOwnFrames(textOf(error, "stack"));
  const told = new Set([error]);
  for (const one of told) {
    if (one !== error) {
      const text = withoutOwnFrames(textOf(one, "stack")) || `${typeOf(one)}: ${messageOf(one)}`;
      stack += `\ncaused by: ${text}`;
    }
    if (stack.length > STACK_LENGTH_MAX || told.size > CAUSE_COUNT_MAX) break;
    for (const cause of causesOf(one)) told.add(cause);
  }
  return stack.slice(0, STACK_LENGTH_MAX);
}

/** Dead letters are grouped by their first frames: those of the engine and of Node would make one group of many. */
function withoutOwnFrames(stack: string): string {
  const lines = stack.split("\n");
  const isOwn = (line: string): boolean => OWN_FOLDERS.some((folder) => line.includes(folder));
  return lines.filter((line) => !FRAME.test(line) || !(isOwn(line) || OF_NODE.test(line))).join("\n");
}

/** What is named as its cause, and the first of those that an AggregateError holds. */
function causesOf(error: unknown): unknown[] {
  const errors = propertyOf(error, "errors");
  const held = ["0", "1", "2"].map((place) => propertyOf(errors, place));
  return [propertyOf(error, "cause"), ...held].filter((one) => one !== undefined && one !== null);
}
