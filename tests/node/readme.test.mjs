// The TypeScript of the README and of the guide holds in strict mode and runs as it stands there.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";

import { folderOf, root, run } from "./support.mjs";

/** The programs of a document, by name. */
function programsOf(file) {
  const text = readFileSync(path.join(root, file), "utf8");
  const found = [...text.matchAll(/<!-- test: node_(\w+) -->\n```ts\n(.*?)```/gs)];
  assert.equal(found.length, text.split("```ts\n").length - 1, `${file}: every program of it has a name`);
  return new Map(found.map(([, name, program]) => [name, program]));
}

/** Compiles them in a folder of their own; its path. */
async function compile(t, programs) {
  const folder = folderOf(t);
  mkdirSync(path.join(folder, "node_modules"));
  symlinkSync(root, path.join(folder, "node_modules/towline"));
  symlinkSync(path.join(root, "node_modules/@photostructure"), path.join(folder, "node_modules/@photostructure"));
  const files = [...programs.keys()].map((name) => `${name}.mts`);
  for (const [name, program] of programs) writeFileSync(path.join(folder, `${name}.mts`), program);
  const options = ["--strict", "--target", "es2022", "--lib", "es2023,esnext.disposable", "--module", "nodenext",
    "--types", "node", "--typeRoots", path.join(root, "node_modules/@types")];
  const compiler = path.join(root, "node_modules/typescript/bin/tsc");
  const compiled = await run(process.execPath, [compiler, ...options, ...files], { cwd: folder });
  assert.deepEqual([compiled.code, compiled.out], [0, ""]);
  return folder;
}

test("the quick start compiles, and runs twice", { timeout: 120_000 }, async (t) => {
  const programs = programsOf("README.md");
  assert.deepEqual([...programs.keys()], ["quick_start"]);
  const folder = await compile(t, programs);
  for (let round = 0; round < 2; round += 1) {
    const { code, out, err } = await run(process.execPath, ["quick_start.mjs"], { cwd: folder });
    assert.deepEqual([code, out, err], [0, "bill o-1, attempt 1\nbill o-2, attempt 2\n", ""]);
  }
});

test("the programs of the guide compile, and run twice", { timeout: 120_000 }, async (t) => {
  const programs = programsOf("docs/GUIDE.md");
  assert.equal(programs.size, 14);
  const folder = await compile(t, programs);
  for (const name of programs.keys()) {
    for (let round = 0; round < 2; round += 1) {
      const { code, err } = await run(process.execPath, [`${name}.mjs`], { cwd: folder });
      assert.deepEqual([name, code, err], [name, 0, ""]);
    }
  }
});
