// What calls are given in objects.

import { InvalidArgumentError, InvalidConfigError } from "./errors.js";
import { TABLE } from "./options.js";
import { kindOf, shown } from "./words.js";

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
    throw new InvalidArgumentError(`unknown '${name}' among the ${what}; known are ${known.join(", ")}`);
  }
}

/** Of a call that can be left. */
export function checkOptions(options: unknown, ...known: readonly string[]): void {
  checkNames(options, "options", ...known, "signal");
}

/** Before anything is stopped that could not be started again. */
export function checkClosing(options: { timeoutMs?: number }): void {
  checkNames(options, "options", "timeoutMs");
  const { timeoutMs } = options;
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
  count: COUNT, bytes: COUNT, counts: COUNT, ms: MS, mses: MS, text: TEXT, texts: TEXT, enum: TEXT, code: TEXT,
};
const LISTS = new Set(["texts", "counts", "mses"]);
/** Beyond what a number holds. */
const SEED: Kind = {
  wanted: "a whole number or a bigint", fits: (value) => typeof value === "bigint" || isWhole(value),
};

function textOf(value: unknown, kind: Kind, where: string): string {
  if (kind.fits(value)) return String(value);
  throw new InvalidConfigError(`${where} is ${shown(value)}, but must be ${kind.wanted}`);
}

/** Options of the engine that have another name and other values here; whoever takes them translates them. */
const RENAMED: Record<string, Record<string, string>> = { Consumer: { order: "ordering" } };

/** Options by their names here, as [name, value, name, value ...] of the engine's. */
export function textsOf(group: string, options: object, wherePrefix = "", prefix = ""): string[] {
  const table = TABLE[group] ?? {};
  const renamed = RENAMED[group] ?? {};
  const texts: string[] = [];
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined) continue;
    const row = Object.hasOwn(table, name) && !Object.hasOwn(renamed, name) ? table[name] : undefined;
    const where = wherePrefix + name;
    if (row === undefined) {
      const known = Object.keys(table).map((one) => renamed[one] ?? one).join(", ");
      throw new InvalidConfigError(`unknown option '${where}'; known are ${known}`);
    }
    const [wire, kindName, inner] = row;
    if (inner !== undefined) {
      if (typeof value !== "object" || value === null || Array.isArray(value)) {
        throw new InvalidConfigError(`${where} is ${shown(value)}, but must be an object`);
      }
      texts.push(...textsOf(inner, value as object, `${where}.`, `${prefix}${wire}.`));
      continue;
    }
    const kind = group === "Engine" && name === "seed" ? SEED : KINDS[kindName] as Kind;
    if (!LISTS.has(kindName)) {
      texts.push(prefix + wire, textOf(value, kind, where));
    } else if (Array.isArray(value)) {
      for (const [at, one] of value.entries()) texts.push(prefix + wire, textOf(one, kind, `${where}[${at}]`));
    } else {
      throw new InvalidConfigError(`${where} is ${shown(value)}, but must be a list`);
    }
  }
  return texts;
}
