// Whatever is exported says what it is, in the declarations that users' editors show.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";

import { root } from "./support.mjs";

const textOf = (name) => readFileSync(path.join(root, "node/dist", `${name}.d.ts`), "utf8");
/** What is exported from each file; undefined: all of it. */
function exportsOf(index) {
  const found = new Map([["testing", undefined]]);
  for (const [, names, file] of textOf(index).matchAll(/^export (?:type )?(?:\{([^}]*)\}|\*) from "\.\/(\w+)\.js"/gm)) {
    const given = names?.split(",").map((one) => one.trim()).filter(Boolean);
    found.set(file, given && [...(found.get(file) ?? []), ...given]);
  }
  return found;
}

const DECLARED = /^(?:export )?(?:declare )?(?:abstract )?(class|interface|type|const|function) (\w+)(.*)/;
const MEMBER = /^ {4}(?! )(?!private|protected|#|\})(?:(?:readonly|static|abstract|get|set) )*([\w$]+|\[[\w.]+\])/;
/** What the base class, or the language, says of it already. */
const INHERITED = { class: /^(name|constructor)$/, error: /^(number|code|retryable)$/ };

/** [name, doc] of what a file declares and of its public members, in their order. */
function* declarationsOf(text) {
  let owner;
  let doc = "";
  for (const [part] of text.matchAll(/^ *\/\*\*[^]*?\*\/|^.+$/gm)) {
    if (part.trim().startsWith("/**")) {
      doc = part;
      continue;
    }
    const [, kind, name, rest] = DECLARED.exec(part) ?? [];
    const member = owner === undefined ? undefined : MEMBER.exec(part)?.[1];
    if (kind !== undefined) {
      if (part.startsWith("export")) yield [name, doc];
      const isError = rest.includes("extends TowlineError");
      const hasMembers = (kind === "class" || kind === "interface") && part.startsWith("export") && !doc.includes("@internal");
      owner = hasMembers ? { name, kind, isError, last: "" } : undefined;
    } else if (member !== undefined) {
      const isInherited = (owner.kind === "class" && INHERITED.class.test(member))
        || (owner.isError && INHERITED.error.test(member));
      // Of overloads the first one says it.
      if (!isInherited && member !== owner.last) yield [`${owner.name}.${member}`, doc];
      owner.last = member;
    }
    doc = "";
  }
}

test("every exported declaration and public member has a comment", () => {
  let count = 0;
  const missing = [];
  for (const [file, names] of exportsOf("index")) {
    for (const [name, doc] of declarationsOf(textOf(file))) {
      if (names !== undefined && !names.includes(name.split(".")[0])) continue;
      count += 1;
      if (!/\/\*\*\s*\S/.test(doc)) missing.push(`${file}: ${name}`);
    }
  }
  assert.deepEqual(missing, []);
  assert.ok(count > 500, `only ${count} were found`);
});

test("every option that is a time says its unit in its name", () => {
  const numbers = [...textOf("options").matchAll(/^ {4}(\w*(?:[dD]elay|[tT]imeout|[iI]nterval|[tT]tl|[eE]xpiry)\w*)\??: number/gm)];
  assert.ok(numbers.length > 5);
  assert.deepEqual(numbers.map(([, name]) => name).filter((name) => !/(Ms|MsMax|MsMin|Us|Count)$/.test(name)), []);
});
