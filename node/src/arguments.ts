// What calls are given in objects.

import { InvalidArgumentError } from "./errors.js";
import { kindOf } from "./native.js";

/** Refuses what is no object, and names that nobody knows: a mistyped condition would hold for everything. */
export function checkNames(given: unknown, what: string, ...known: readonly string[]): void {
  if (typeof given !== "object" || given === null || Array.isArray(given)) {
    throw new InvalidArgumentError(`the ${what} are ${kindOf(given)}, but must be an object`);
  }
  for (const name of Object.keys(given)) {
    if (known.includes(name)) continue;
    throw new InvalidArgumentError(`unknown '${name}' among the ${what}; known are ${known.join(", ")}`);
  }
}

/** Of a call that can be left. */
export function checkOptions(options: unknown, ...known: readonly string[]): void {
  checkNames(options, "options", ...known, "signal");
}
