// What calls are given in objects.

import { InvalidArgumentError, InvalidConfigError } from "./errors.js";
import { TABLE } from "./options.js";
import { checkSignal, type CloseOptions } from "./signals.js";
import { kindOf, otherNames, shown } from "./words.js";

/** The furthest that the boundary takes. */
const MS_MAX = 9e12;

export function checkObject(given: unknown, what: string): void {
  if (typeof given === "object" && given !== null && !Array.isArray(given)) return;
  throw new InvalidArgumentError(`the ${what} are ${kindOf(given)}, but must be an object`);
}

/** Refuses what is no object, and names that nobody knows: a mistyped condition would hold for everything. */
export function checkNames(given: unknown, what: string, ...known: readonly string[]): void {
  checkObject(given, what);
  for (const name of Object.keys(given as object)) {
    if (known.includes(name)) continue;
    throw new InvalidArgumentError(`unknown '${name}' among the ${what}${otherNames(name, known)}`);
  }
}

/** Of a call that can be left. */
export function checkOptions(options: unknown, ...known: readonly string[]): void {
  checkNames(options, "options", ...known, "signal");
}

/** Before anything is stopped that could not be started again. */
export function checkClosing(options: CloseOptions): void {
  checkOptions(options, "timeoutMs");
  const { timeoutMs } = options;
  checkSignal(options.signal);
  if (timeoutMs === undefined || (typeof timeoutMs === "number" && Math.abs(timeoutMs) <= MS_MAX)) return;
  throw new InvalidArgumentError(
    `timeoutMs is ${shown(timeoutMs)}, but must be a number of milliseconds, at most ${MS_MAX}`);
}

/** A Map, and what else can be iterated, has no names as properties: it would be no headers at all. */
export function checkHeaders(headers: unknown): void {
  if (typeof headers !== "object" || headers === null || !(Symbol.iterator in headers)) return;
  throw new InvalidArgumentError(`headers is ${kindOf(headers)}, but must be an object of strings; `
    + "give Object.fromEntries(headers)");
}

/** Dates that the boundary would call objects. */
export function checkDate(date: unknown, name: string): void {
  if (!(date instanceof Date) || !Number.isNaN(date.getTime())) return;
  throw new InvalidArgumentError(`${name} is an invalid Date; give one that has a time`);
}

interface Kind {
  wanted: string;
  fits(value: unknown): boolean;
}

const isWhole = (value: unknown): boolean => typeof value === "number" && /^-?\d+$/.test(String(value));
const isMs = (value: unknown): boolean => typeof value === "number" && /^\d+(\.\d{1,3})?$/.test(String(value));
const TEXT: Kind = { wanted: "a string", fits: (value) => typeof value === "string" };
const COUNT: Kind = { wanted: "a whole number", fits: isWhole };
const MS: Kind = { wanted: "a number of milliseconds from 0 on, with three decimals at most", fits: isMs };

/** By the kinds of options.def, what JavaScript gives; bounds are checked by the engine. */
const KINDS: Record<string, Kind> = {
  bool: { wanted: "a boolean", fits: (value) => typeof value === "boolean" },
  ratio: { wanted: "a number", fits: (value) => typeof value === "number" },
  count: COUNT, bytes: COUNT, counts: COUNT, ms: MS, mses: MS, text: TEXT, texts: TEXT, code: TEXT,
};
const LISTS = new Set(["texts", "counts", "mses"]);
/** Beyond what a number holds. */
const SEED: Kind = {
  wanted: "a whole number or a bigint", fits: (value) => typeof value === "bigint" || isWhole(value),
};

/** `values` as in the table. */
function oneOf(values: string): Kind {
  const all = values.split("|");
  return { wanted: `one of ${all.join(", ")}`, fits: (value) => all.includes(value as string) };
}

function textOf(value: unknown, kind: Kind, where: string): string {
  if (kind.fits(value)) return String(value);
  const hint = value === "custom" ? "; only C++ can be given a function, here sequenceMs has the waits" : "";
  throw new InvalidConfigError(`${where} is ${shown(value)}, but must be ${kind.wanted}${hint}`);
}

/** Options by their names here, as [name, value, name, value ...] of the engine's. `others`: what else the call takes. */
export function textsOf(group: string, options: object, others: readonly string[] = [], above = ""): string[] {
  const table = TABLE[group] ?? {};
  const texts: string[] = [];
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined) continue;
    const row = Object.hasOwn(table, name) ? table[name] : undefined;
    const where = above + name;
    if (row === undefined) {
      const known = [...Object.keys(table), ...others];
      throw new InvalidConfigError(`unknown option '${where}'${otherNames(name, known, above)}`);
    }
    const [wire, kindName, more = ""] = row;
    if (kindName === "struct") {
      checkInner(value, where);
      const inner = textsOf(more, value as object, [], `${where}.`);
      texts.push(...inner.map((text, at) => (at % 2 === 0 ? `${wire}.${text}` : text)));
    } else if (!LISTS.has(kindName)) {
      const kind = kindName === "enum" ? oneOf(more) : name === "seed" ? SEED : KINDS[kindName] as Kind;
      texts.push(wire, textOf(value, kind, where));
    } else if (Array.isArray(value)) {
      const kind = KINDS[kindName] as Kind;
      for (const [at, one] of value.entries()) texts.push(wire, textOf(one, kind, `${where}[${at}]`));
    } else {
      throw new InvalidConfigError(`${where} is ${shown(value)}, but must be a list`);
    }
  }
  return texts;
}

function checkInner(value: unknown, where: string): void {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return;
  throw new InvalidConfigError(`${where} is ${shown(value)}, but must be an object`);
}
