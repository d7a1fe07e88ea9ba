// The JavaScript of the README runs as it stands there.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";

import { folderOf, root, runModule } from "./support.mjs";

test("the quick start runs twice", async (t) => {
  const readme = readFileSync(path.join(root, "README.md"), "utf8");
  const blocks = [...readme.matchAll(/<!-- test: node_quick_start -->\n```js\n(.*?)```/gs)];
  assert.equal(blocks.length, 1);
  const text = blocks[0][1].replace("sqlite:orders.db", `sqlite:${path.join(folderOf(t), "orders.db")}`);
  for (let round = 0; round < 2; ++round) {
    const { code, out, err } = await runModule(text);
    assert.deepEqual([code, out, err], [0, "bill o-1, attempt 1\nbill o-2, attempt 2\n", ""]);
  }
});
