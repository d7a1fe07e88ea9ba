// The words of errors.

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
