// The package as users get it: what is in it, and that it works in an empty folder, without a compiler.

import assert from "node:assert/strict";
import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";

import { folderOf, root, run } from "./support.mjs";

// What npm says to everybody, also in the output of a command that succeeds.
const environment = { ...process.env, npm_config_update_notifier: "false", npm_config_loglevel: "error" };
delete environment.TOWLINE_NODE_BINARY;

const SOURCES = ["arguments", "calls", "choreography", "cli", "consumer", "conversation_records", "conversations",
  "engine", "errors", "event_records", "event_subscription", "events", "index", "limiter", "message", "native",
  "options", "outgoing", "payload", "records", "saga", "saga_call", "saga_records", "saga_runner", "sagas", "signals",
  "sinks", "supervisor", "testing", "thrown", "tracing", "transaction",
  "words"];
const EXPECTED = [
  "LICENSE",
  "README.md",
  ...SOURCES.flatMap((name) => [`node/dist/${name}.d.ts`, `node/dist/${name}.js`]),
  ...["index", "testing"].flatMap((name) => [`node/dist/${name}.d.mts`, `node/dist/${name}.mjs`]),
  "package.json",
  `prebuilds/${process.platform}-${process.arch}/towline.node`,
];

const SCRIPT = `
  const engine = await Engine.open("memory:", { clock: new VirtualClock() });
  let seen;
  await engine.consume("a", { group: "g" }, (m) => { seen = m.value; });
  await engine.publish("a", { n: 1 });
  await engine.settleDown();
  await engine.close();
  if (seen.n !== 1 || !(new Retry() instanceof Error)) throw new Error("not handled");
  console.log("handled");`;

/** The package, made from this build in a folder; its path. */
async function pack(folder) {
  const packed = await run(path.join(root, "scripts/package-node"), [process.env.TOWLINE_NODE_BINARY, folder]);
  assert.equal(packed.code, 0, packed.err);
  return packed.out.trim();
}

test("npm pack gives the files that it should, and they work in an empty folder", { timeout: 120_000 },
  async (t) => {
  const folder = folderOf(t);
  const file = await pack(folder);
  const listed = await run("tar", ["-tzf", file]);
  assert.deepEqual(listed.out.trim().split("\n").map((one) => one.replace("package/", "")).sort(),
    EXPECTED.sort());

  const args = ["install", file, "--ignore-scripts", "--no-audit", "--no-fund", "--offline"];
  const installed = await run("npm", args, { cwd: folder, env: environment });
  assert.equal(installed.code, 0, installed.err);
  const brought = JSON.parse(readFileSync(path.join(folder, "node_modules/towline/package.json"), "utf8"));
  assert.equal(brought.scripts, undefined);
  assert.equal(brought.dependencies, undefined);
  assert.ok(!existsSync(path.join(folder, "node_modules/towline/binding.gyp")));

  const command = await run("npx", ["--no-install", "towline", "--version"], { cwd: folder, env: environment });
  assert.equal(command.out, `towline ${brought.version}\n`, command.err);

  writeFileSync(path.join(folder, "esm.mjs"),
    `import { Engine, Retry } from "towline"; import { VirtualClock } from "towline/testing";${SCRIPT}`);
  writeFileSync(path.join(folder, "cjs.cjs"),
    `const { Engine, Retry } = require("towline"); const { VirtualClock } = require("towline/testing");
     (async () => {${SCRIPT}})();`);
  writeFileSync(path.join(folder, "both.mjs"), `
    import { createRequire } from "node:module"; import * as esm from "towline";
    const cjs = createRequire(import.meta.url)("towline");
    if (Object.keys(cjs).length < 50) throw new Error("too little is exported");
    for (const name in cjs) if (cjs[name] !== esm[name]) throw new Error(name + " differs");
    console.log("handled");`);
  for (const script of ["esm.mjs", "cjs.cjs", "both.mjs"]) {
    const { code, out, err } = await run(process.execPath, [script], { cwd: folder, env: environment });
    assert.deepEqual([script, code, out, err], [script, 0, "handled\n", ""]);
  }
});

test("the declarations hold for users, in strict mode, from import and from require", { timeout: 120_000 },
  async (t) => {
  const folder = path.join(root, "node");
  const types = await run(process.execPath, [path.join(root, "node_modules/typescript/bin/tsc"), "--noEmit",
    "-p",
    path.join(root, "tests/node/types")], { cwd: folder });
  assert.deepEqual([types.code, types.out], [0, ""]);
});

test("where the addon cannot be loaded the error says which platforms there are, and what to do", async (t) => {
  const folder = folderOf(t);
  cpSync(path.join(root, "node/dist"), path.join(folder, "node/dist"), { recursive: true });
  mkdirSync(path.join(folder, "prebuilds/linux-x64"), { recursive: true });
  writeFileSync(path.join(folder, "prebuilds/linux-x64/towline.node"), "no addon");
  const messageOn = async (fake, variables = {}) => {
    const { out, err } = await run(process.execPath, ["--eval", `
      for (const name of ["platform", "arch"]) {
        const value = ${JSON.stringify(fake)}[name];
        if (value) Object.defineProperty(process, name, { value });
      }
      if (${"musl" in fake}) process.report.getReport = () => ({ header: {} });
      try {
        require("./node/dist/index.js");
      } catch (error) {
        console.log(error.message + (error.cause ? "" : " WITHOUT CAUSE"));
      }`], { cwd: folder, env: { ...environment, ...variables } });
    assert.equal(err, "");
    return out;
  };
  const brings = "the package brings linux-x64 with glibc; run on one of these";
  const mac = await messageOn({ platform: "darwin", arch: "arm64" });
  assert.ok(mac.includes("on darwin-arm64; ") && mac.includes(brings), mac);
  const arm = await messageOn({ platform: "linux", arch: "arm64" });
  assert.ok(arm.includes("on linux-arm64; ") && arm.includes(brings), arm);
  const musl = await messageOn({ platform: "linux", arch: "x64", musl: true });
  assert.ok(musl.includes("on linux-x64 without glibc (such as Alpine, with musl); ") && musl.includes(brings), musl);
  const named = await messageOn({}, { TOWLINE_NODE_BINARY: path.join(folder, "nowhere.node") });
  assert.match(named, /nowhere\.node cannot be loaded on .*TOWLINE_NODE_BINARY names/);
  assert.ok(![mac, arm, musl, named].some((one) => one.includes("WITHOUT CAUSE")));
  const { os: systems, libc } = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8"));
  assert.deepEqual([systems, libc], [["linux"], ["glibc"]]);
});

test("publint and arethetypeswrong find nothing in what is packed", { timeout: 120_000 }, async (t) => {
  const file = await pack(folderOf(t));
  const tool = (name, ...args) =>
    run(process.execPath, [path.join(root, "node_modules", name), ...args], { cwd: root, env: environment });
  const linted = await tool("publint/src/cli.js", "--strict", "--level", "suggestion", file);
  assert.equal(linted.code, 0, linted.out + linted.err);
  assert.match(linted.out, /All good/);
  const typed = await tool("@arethetypeswrong/cli/dist/index.js", file, "--format", "json");
  assert.equal(typed.code, 0, typed.out + typed.err);
  const { analysis } = JSON.parse(typed.out);
  const entries = Object.keys(analysis.entrypoints).sort();
  assert.deepEqual(entries, [".", "./package.json", "./testing"]);
});

test("the addon shows its entry and nothing of SQLite or of the engine", async () => {
  const symbols = (await run("nm", ["-D", process.env.TOWLINE_NODE_BINARY])).out.split("\n");
  const defined = symbols.filter((line) => / [TWVBD] /.test(line)).map((line) => line.split(" ").at(-1));
  assert.deepEqual(defined.filter((name) => /sqlite3|towline/.test(name)), []);
  assert.ok(defined.some((name) => name.startsWith("napi_register_module_v1")));
});
