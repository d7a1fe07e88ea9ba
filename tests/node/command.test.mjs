// The command: npx towline run.

import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";

import { Saga } from "towline";

import { folderOf, open, root, run, start, until } from "./support.mjs";

const command = path.join(root, "node/dist/cli.js");

const SHOP = `
  import { appendFileSync, existsSync, writeFileSync } from "node:fs";
  import { Engine } from "towline";
  export const engine = await Engine.open("sqlite:store.db");
  await engine.consume("orders", { group: "g" }, async (m) => {
    appendFileSync("handled", m.value + " by 1\\n");
    if (m.value === "exit" && !existsSync("exited")) {
      writeFileSync("exited", String(process.pid));
      process.exit(3);
    }
    if (m.value.startsWith("slow")) await new Promise((resolve) => setTimeout(resolve, 300));
    if (m.value === "stuck") await new Promise(() => {});
    if (m.value === "busy") for (;;);
    appendFileSync("handled", m.value + " done\\n");
  });
  appendFileSync("handled", "running " + process.pid + "\\n");`;

/** What the process that was started says at the first signal; its workers do not repeat it. */
const STOPPING = "towline: stopping; a second signal ends at once\n";

/** A folder with a module, and what its handlers noted. */
function shopIn(t, text = SHOP, name = "shop.mjs") {
  const folder = folderOf(t);
  mkdirSync(path.join(folder, "node_modules"));
  symlinkSync(root, path.join(folder, "node_modules/towline"));
  writeFileSync(path.join(folder, name), text);
  const file = path.join(folder, "handled");
  const noted = (begin = "") => (existsSync(file) ? readFileSync(file, "utf8").split("\n") : [])
    .filter((line) => line !== "" && line.startsWith(begin));
  const worker = (t2, ...args) => {
    const started = start(process.execPath, [command, "run", ...args], { cwd: folder });
    t2.after(() => started.child.kill("SIGKILL"));
    return started;
  };
  return { folder, noted, worker: (...args) => worker(t, ...args), url: `sqlite:${path.join(folder, "store.db")}` };
}

for (const count of [1, 2]) {
  test(`${count} workers handle until a signal, let handlers finish, and exit with 0`, async (t) => {
    const shop = shopIn(t);
    const { child, done } = shop.worker("./shop.mjs", "--workers", String(count));
    await until(() => shop.noted("running").length === count);
    const engine = await open(t, shop.url);
    await engine.publish("orders", "one");
    await until(() => shop.noted("one done").length === 1);
    await engine.publish("orders", "slow");
    await until(() => shop.noted("slow by").length === 1);
    child.kill(count === 1 ? "SIGTERM" : "SIGINT");
    const { code, signal, err } = await done;
    assert.deepEqual([code, signal, err], [0, null, STOPPING]);
    assert.deepEqual(shop.noted().slice(count), ["one by 1", "one done", "slow by 1", "slow done"]);
  });
}

test("a worker runs sagas and handlers of events, too, and is kept by them", async (t) => {
  const shop = shopIn(t, `
    import { appendFileSync } from "node:fs";
    import { Engine, Saga } from "towline";
    const engine = await Engine.open("sqlite:store.db");
    const note = (line) => appendFileSync("handled", line + "\\n");
    export const order = new Saga("order")
      .step("charge", (call) => note("charged " + call.id), { compensate: () => {} })
      .step("ship", async () => {}, { pivot: true });
    await engine.runSaga(order);
    await engine.eventStore.subscribe("statistics", { types: ["item.*"] },
      (events) => events.forEach((one) => note("event " + one.value)));
    export default engine;
    note("running");`);
  const { child, done } = shop.worker("./shop.mjs");
  await until(() => shop.noted("running").length === 1);
  const engine = await open(t, shop.url);
  const order = new Saga("order").step("charge", () => {}, { compensate: () => {} }).step("ship", () => {}, { pivot: true });
  await engine.sagas.start(order, {}, { id: "o-1" });
  const names = ["added", "removed", "added"];
  await engine.eventStore.append("cart-1", names.map((name) => ({ type: `item.${name}`, value: name })));
  const { saga } = await engine.sagas.result("order", "o-1");
  assert.equal(saga.status, "completed");
  await until(() => shop.noted("event").length === 3);
  child.kill("SIGTERM");
  const { code, err } = await done;
  assert.deepEqual([code, err], [0, STOPPING]);
  assert.deepEqual(shop.noted("event"), names.map((name) => `event ${name}`));
  assert.deepEqual(shop.noted("charged"), ["charged o-1"]);
});

test("a second signal exits at once", async (t) => {
  for (const workers of ["1", "2"]) {
    const shop = shopIn(t, `${SHOP}
      process.on("SIGTERM", () => appendFileSync("handled", "heard\\n"));`);
    const { child, done } = shop.worker("shop.mjs", "--workers", workers);
    await until(() => shop.noted("running").length === Number(workers));
    const engine = await open(t, shop.url);
    await engine.publish("orders", "stuck");
    await until(() => shop.noted("stuck by").length === 1);
    const asked = Date.now();
    child.kill("SIGTERM");
    await until(() => shop.noted("heard").length === Number(workers));
    child.kill("SIGTERM");
    assert.equal((await done).code, 1);
    assert.ok(Date.now() - asked < 5_000);
    await until(async () => (await engine.backlog())[0].waiting === 1, "its message went back");
  }
});

test("a second signal ends also the workers whose event loop a handler holds up", async (t) => {
  const shop = shopIn(t);
  const { child, done } = shop.worker("shop.mjs", "--workers", "2");
  await until(() => shop.noted("running").length === 2);
  const engine = await open(t, shop.url);
  await engine.publish("orders", "busy");
  await until(() => shop.noted("busy by").length === 1);
  child.kill("SIGTERM");
  child.kill("SIGINT"); // one of another kind, because two of one may come as one
  assert.equal((await done).code, 1);
});

test("a stuck handler gets its grace, and its message goes back", async (t) => {
  const shop = shopIn(t);
  const { child, done } = shop.worker("shop.mjs", "--grace", "100");
  const engine = await open(t, shop.url);
  await engine.publish("orders", "stuck");
  await until(() => shop.noted("stuck by").length === 1);
  child.kill("SIGTERM");
  const { code, err } = await done;
  assert.deepEqual([code, err], [0, `${STOPPING}towline: 1 handlers did not end in time; their messages went back\n`]);
  await until(async () => (await engine.backlog())[0].waiting === 1);
});

test("a worker that dies is started again, and the others go with who started them", async (t) => {
  const shop = shopIn(t);
  const { child, done } = shop.worker("shop.mjs", "--workers", "2");
  await until(() => shop.noted("running").length === 2);
  const first = Number(shop.noted("running")[0].split(" ")[1]);
  process.kill(first, "SIGKILL");
  await until(() => shop.noted("running").length === 3);
  const engine = await open(t, shop.url);
  await engine.publish("orders", "exit");
  await until(() => shop.noted("running").length === 4);
  const exited = readFileSync(path.join(shop.folder, "exited"), "utf8");
  child.kill("SIGKILL");
  assert.equal((await done).err, `towline: worker ${first} was ended by SIGKILL; starting another\n`
    + `towline: worker ${exited} exited with 3; starting another\n`);
  const pids = shop.noted("running").slice(1).map((line) => Number(line.split(" ")[1]));
  const isRunning = (pid) => {
    try {
      return process.kill(pid, 0);
    } catch {
      return false;
    }
  };
  await until(() => !pids.some(isRunning), "no worker is left behind");
});

test("with --reload a changed file starts the workers again, also after one that cannot run", async (t) => {
  const shop = shopIn(t);
  const file = path.join(shop.folder, "shop.mjs");
  const { child, done } = shop.worker("shop.mjs", "--reload");
  await until(() => shop.noted("running").length === 1);
  writeFileSync(file, "export default 5;");
  await new Promise((resolve) => child.stderr.on("data", (data) => data.includes("exports no engine") && resolve()));
  writeFileSync(file, SHOP.replaceAll("by 1", "by 2"));
  await until(() => shop.noted("running").length === 2);
  const engine = await open(t, shop.url);
  await engine.publish("orders", "one");
  await until(() => shop.noted("one done").length === 1);
  assert.deepEqual(shop.noted("one by"), ["one by 2"]);
  child.kill("SIGTERM");
  const { code, err } = await done;
  assert.equal(code, 0);
  assert.doesNotMatch(err, /starting another/); // it was asked to end
});

test("a module may be CommonJS, and export a function that opens the engine", async (t) => {
  const shop = shopIn(t, `
    const { Engine } = require("towline");
    const { appendFileSync } = require("node:fs");
    module.exports = async () => {
      const engine = await Engine.open("sqlite:store.db");
      appendFileSync("handled", "running\\n");
      return engine;
    };`, "shop.cjs");
  const { child, done } = shop.worker("shop.cjs");
  await until(() => shop.noted("running").length === 1);
  child.kill("SIGTERM");
  const { code, signal, err } = await done;
  // The signal may come before the engine is handed over; it is heard then.
  assert.deepEqual([code, signal, err], [0, null, STOPPING]);
});

test("a module may export the promise of an engine", async (t) => {
  for (const exported of ["export default Engine.open", "export const engine = Engine.open"]) {
    const shop = shopIn(t, `
      import { writeFileSync } from "node:fs";
      import { Engine } from "towline";
      ${exported}("sqlite:store.db").then((engine) => {
        writeFileSync("handled", "running\\n");
        return engine;
      });`);
    const { child, done } = shop.worker("shop.mjs");
    await until(() => shop.noted("running").length === 1);
    child.kill("SIGTERM");
    const { code, signal, err } = await done;
    assert.deepEqual([code, signal, err], [0, null, STOPPING]);
  }
  const shop = shopIn(t, `import { Engine } from "towline"; export default Engine.open("nowhere:x");`);
  const { code, err } = await shop.worker("shop.mjs").done;
  assert.equal(code, 2);
  assert.match(err, /InvalidUrlError/);
});

test("an engine that is closed already is refused, and says so", async (t) => {
  const shop = shopIn(t, `
    import { Engine } from "towline";
    export const engine = await Engine.open("memory:");
    await engine.close();`);
  for (const workers of ["1", "2"]) {
    const { code, err } = await shop.worker("shop.mjs", "--workers", workers).done;
    assert.equal(code, 2);
    assert.match(err, /^towline: the engine that shop\.mjs exports is closed already; /);
  }
});

test("what cannot be run is refused, and says why", async (t) => {
  const shop = shopIn(t, "export default 5;");
  const cases = [[["shop.mjs"], /exports no engine/], [["shop.mjs", "--workers", "2"], /exports no engine/],
    [["gone.mjs"], /Cannot find module .*gone\.mjs/], [[], /one module/],
    [["shop.mjs", "--workers", "0"], /--workers is 0/], [["shop.mjs", "--grace", "x"], /--grace is x/],
    [["shop.mjs", "--wokers", "2"], /--wokers/]];
  for (const [args, message] of cases) {
    const { code, err } = await shop.worker(...args).done;
    assert.equal(code, 2, args.join(" "));
    assert.match(err, message);
  }
  const { version } = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8"));
  for (const [flag, out] of [["--version", new RegExp(`^towline ${version}\\n$`)], ["--help", /^Usage: towline run/]]) {
    const answered = await run(process.execPath, [command, flag]);
    assert.equal(answered.code, 0);
    assert.match(answered.out, out);
  }
});
