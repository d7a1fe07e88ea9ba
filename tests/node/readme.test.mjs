// The TypeScript of the README holds in strict mode and runs as it stands there.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";

import { folderOf, root, run } from "./support.mjs";

test("the quick start compiles, and runs twice", { timeout: 120_000 }, async (t) => {
  const readme = readFileSync(path.join(root, "README.md"), "utf8");
  const blocks = [...readme.matchAll(/<!-- test: node_quick_start -->\n```ts\n(.*?)```/gs)];
  assert.equal(blocks.length, 1);
  const folder = folderOf(t);
  mkdirSync(path.join(folder, "node_modules"));
  symlinkSync(root, path.join(folder, "node_modules/towline"));
  writeFileSync(path.join(folder, "quick_start.mts"), blocks[0][1]);
  const options = ["--strict", "--target", "es2022", "--lib", "es2023,esnext.disposable", "--module", "nodenext",
    "--types", "node", "--typeRoots", path.join(root, "node_modules/@types")];
  const compiler = path.join(root, "node_modules/typescript/bin/tsc");
  const compiled = await run(process.execPath, [compiler, ...options, "quick_start.mts"], { cwd: folder });
  assert.deepEqual([compiled.code, compiled.out], [0, ""]);
  for (let round = 0; round < 2; round += 1) {
    const { code, out, err } = await run(process.execPath, ["quick_start.mjs"], { cwd: folder });
    assert.deepEqual([code, out, err], [0, "bill o-1, attempt 1\nbill o-2, attempt 2\n", ""]);
  }
});
