// What the conformance tests of the package stand on: the lists that every language reads, a fresh store for
// each test, and what must hold after it: everything is settled or waits, every engine closes, and nothing was
// logged as an error that the test did not expect.
//
// A run that leaves out nothing writes its report, one line per scenario and provider, when all is over.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";

import { Engine } from "towline";

import { here, root, start } from "../support.mjs";
import { inFlight, until } from "./tools.mjs";

export * from "./tools.mjs";

const LANGUAGE = "node";
const lists = path.join(root, "tests/conformance");

/** What a provider is like, as far as the suite must know. */
const PROVIDERS = [
  { name: "memory", durable: false, shared: false, sql: false, virtualClock: true },
  { name: "sqlite", durable: true, shared: true, sql: true, virtualClock: false },
];

function table(name, columns) {
  const lines = readFileSync(path.join(lists, name), "utf8").split("\n");
  return lines.filter((line) => line.trim() !== "" && !line.startsWith("#")).map((line) => {
    const fields = line.split("|").map((field) => field.trim());
    assert.equal(fields.length, columns.length, `${name}: ${line}`);
    return Object.fromEntries(columns.map((column, i) => [column, fields[i]]));
  });
}

const scenarios = table("scenarios.txt", ["id", "name", "proves", "says"]);
const rows = table("capabilities.txt", ["id", "provider", "language", "reason"]);

function reasonFor(id, provider) {
  const fits = (given, wanted) => given === "*" || given === wanted;
  return rows.find((row) => row.id === id && fits(row.provider, provider) && fits(row.language, LANGUAGE))
    ?.reason;
}

// ---- the report ---------------------------------------------------------------------------------

/** "id provider" -> { result, reason }. Of several tests: fail if one fails, else skip if a row passes one over. */
const results = new Map();
const WEIGHT = { pass: 0, skip: 1, fail: 2 };
let isWhole = true;

function note(id, provider, result, reason = "") {
  const known = results.get(`${id} ${provider}`);
  if (known === undefined || WEIGHT[result] > WEIGHT[known.result]) {
    results.set(`${id} ${provider}`, { result, reason });
  }
}

/** The list and the tests belong together: no scenario without a test or a reason, nothing out of date. */
function checkLists() {
  const known = new Set(scenarios.map((one) => one.id));
  for (const key of results.keys()) assert.ok(known.has(key.split(" ")[0]), `${key} is not in scenarios.txt`);
  for (const { id } of scenarios) {
    if (results.has(`${id} -`)) continue;
    for (const { name } of PROVIDERS) {
      const found = results.get(`${id} ${name}`);
      const reason = reasonFor(id, name);
      if (found === undefined) {
        assert.ok(reason, `${id} has neither a test for ${name} nor a row in capabilities.txt`);
        note(id, name, "skip", reason);
      } else if (found.result === "pass") {
        assert.equal(reason, undefined, `${id} passes on ${name}; its row in capabilities.txt must go`);
      }
    }
  }
}

function writeReport(file) {
  const lines = [...results].map(([key, { result, reason }]) => {
    const [id, provider] = key.split(" ");
    const verdict = result === "skip" ? `skip(${reason})` : result;
    console.log(`${id} ${provider} ${LANGUAGE} ${verdict}`);
    return JSON.stringify({ id, provider, language: LANGUAGE, result, reason });
  });
  writeFileSync(file, `${lines.sort().join("\n")}\n`);
}

after(() => {
  if (!isWhole) return;
  checkLists();
  const file = process.env.TOWLINE_CONFORMANCE_REPORT;
  if (file) writeReport(file);
});

// ---- tests --------------------------------------------------------------------------------------

/**
 * One test of a scenario, on every provider that has all of `needs` (names of facts of PROVIDERS); without
 * one of them the test is skipped, and the table must say why.
 */
export function scenario(id, says, body, ...needs) {
  for (const provider of PROVIDERS) {
    define(id, provider.name, says, async (t) => {
      if (needs.some((fact) => !provider[fact])) {
        const reason = reasonFor(id, provider.name);
        assert.ok(reason, `no row for ${id} on ${provider.name} in capabilities.txt`);
        note(id, provider.name, "skip", reason);
        t.skip(reason);
        return;
      }
      const stage = new Stage(provider);
      try {
        await body(stage, t);
        await stage.check();
      } finally {
        await stage.end();
      }
      note(id, provider.name, "pass");
    });
  }
}

/** One test of a scenario that has nothing to do with a provider. */
export function plain(id, says, body) {
  define(id, "-", says, async (t) => {
    await body(t);
    note(id, "-", "pass");
  });
}

function define(id, provider, says, run) {
  isWhole &&= !process.execArgv.some((one) => one.startsWith("--test-name-pattern"));
  test(`${id} ${provider}: ${says}`, { timeout: 60_000 }, async (t) => {
    try {
      await run(t);
    } catch (error) {
      note(id, provider, "fail");
      throw error;
    }
  });
}

let stores = 0;

/** A store of one test and its engines. */
class Stage {
  #folder;
  #engines = new Set();
  #children = [];
  #keeper;
  #keeperClock;
  #logs = [];
  #expected = [];
  #inFlight = 0;

  constructor(provider) {
    this.provider = provider;
    this.#folder = mkdtempSync(path.join(os.tmpdir(), "towline-conformance-"));
    const name = `node-${process.pid}-${(stores += 1)}`;
    this.url = provider.durable ? `sqlite:${this.file(`${name}.db`)}` : `memory:${name}`;
  }

  file(name) {
    return path.join(this.#folder, name);
  }
  get path() {
    return this.url.slice(this.url.indexOf(":") + 1);
  }

  /** Before open(): the clock of the engine that keeps alive what lives in memory only. */
  keepWith(clock) {
    this.#keeperClock = clock;
  }
  expectLog(part) {
    this.#expected.push(part);
  }
  logged(part) {
    return this.#logs.filter((one) => one.text.includes(part)).length;
  }
  /** So many deliveries are still out at the end. */
  leaveInFlight(count) {
    this.#inFlight = count;
  }

  /** Quick sweeps, and a lease that outlives the test, so that whatever is handled twice is a fault. */
  async open(options = {}) {
    if (!this.provider.durable && this.#keeper === undefined) {
      this.#keeper = await this.#open({ clock: this.#keeperClock });
    }
    return this.openAlone(options);
  }
  /** With no other engine that keeps alive what lives in memory only. */
  async openAlone(options = {}) {
    const engine = await this.#open(options);
    this.#engines.add(engine);
    return engine;
  }
  async #open(options) {
    const engine = await Engine.open(this.url, { leaseMs: 60_000, sweepIntervalMs: 50, drainTimeoutMs: 5_000,
      ...options });
    engine.events.on("log", (record) => this.#logs.push(record));
    return engine;
  }
  /** Closes one and forgets it; what the store keeps is kept also where it lives in memory only. */
  async close(engine) {
    this.#engines.delete(engine);
    assert.equal(await engine.close(), 0);
  }

  /** The test closes it in a way of its own. */
  forget(engine) {
    this.#engines.delete(engine);
  }

  /** A process of its own on the same store, in a mode of child.mjs; it has said "ready". */
  async child(mode, ...args) {
    const program = path.join(here, "conformance/child.mjs");
    const child = start(process.execPath, [program, mode, this.url, this.file("ledger"), ...args]);
    this.#children.push(child);
    await until(() => child.out().includes("ready\n") || child.child.exitCode !== null ||
      child.child.signalCode !== null, `child ${mode}`);
    return child;
  }
  /** What the children noted, a line each. */
  ledger(begin = "") {
    let text = "";
    try {
      text = readFileSync(this.file("ledger"), "utf8");
    } catch (error) {
      if (error.code !== "ENOENT") throw error;
    }
    return text.split("\n").filter((line) => line !== "" && line.startsWith(begin));
  }

  async check() {
    if (this.#engines.size > 0) {
      const [engine] = this.#engines;
      await until(async () => (await inFlight(engine)) === this.#inFlight, "everything is settled or waits");
    }
    const isExpected = ({ text }) => this.#expected.some((part) => text.includes(part));
    assert.deepEqual(this.#logs.filter((one) => one.level === "error" && !isExpected(one)), []);
  }

  async end() {
    for (const { child, done } of this.#children) {
      child.kill("SIGKILL");
      await done;
    }
    await Promise.all([...this.#engines].map((engine) => engine.close({ timeoutMs: 0 })));
    await this.#keeper?.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
