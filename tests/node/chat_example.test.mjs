// The chat of the examples, with real WebSocket clients and a server that is killed in between.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import path from "node:path";
import { test } from "node:test";

import { Engine } from "towline";
import WebSocket from "ws";

import { folderOf, root, start, until } from "./support.mjs";

const ROOM = "ann+bob";
const numbered = (first, last) =>
  Array.from({ length: last - first + 1 }, (_, i) => [first + i, `text ${first + i}`]);

/** Whether every copy was told to those who were there, also those that a killed server had in hand. */
async function isHandedOut(folder) {
  const engine = await Engine.open(`sqlite:${path.join(folder, "chat.db")}`);
  const backlog = await engine.backlog();
  await engine.close();
  return backlog.every((one) => one.group !== "chat" || Number(one.waiting) + Number(one.inFlight) === 0);
}

async function serve(t, folder) {
  const environment = { ...process.env, STORE: `sqlite:${path.join(folder, "chat.db")}` };
  const server = start(process.execPath, [path.join(root, "examples/node/websocket_chat.mjs"), "0"],
    { env: environment });
  t.after(() => server.child.kill("SIGKILL"));
  const [, port] = await until(() => /port (\d+)/.exec(server.out()));
  return { ...server, address: `ws://127.0.0.1:${port}/chat` };
}

class Client {
  #got = [];
  #socket;

  static async connect(t, { address }, user, client = "phone") {
    const one = new Client();
    const socket = new WebSocket(`${address}?user=${user}&client=${client}`);
    one.#socket = socket;
    t.after(() => socket.terminate());
    socket.on("error", () => undefined);
    socket.on("message", (bytes) => one.#got.push(JSON.parse(bytes)));
    await until(() => socket.readyState === WebSocket.OPEN);
    return one;
  }

  send(value) {
    this.#socket.send(JSON.stringify(value));
  }
  say(text, id = randomUUID()) {
    this.send({ room: ROOM, say: text, id });
  }
  see(sequence) {
    this.send({ room: ROOM, seen: sequence });
  }
  async answer(name) {
    return until(() => this.#got.find((one) => name in one));
  }
  /** So many messages, which are taken away. */
  async take(count) {
    const texts = () => this.#got.filter((one) => "text" in one);
    await until(() => texts().length >= count);
    const taken = texts().slice(0, count);
    this.#got = this.#got.filter((one) => !taken.includes(one));
    assert.deepEqual(this.#got.filter((one) => "gap" in one), []);
    return taken.map((one) => [one.sequence, one.text]);
  }
  async close() {
    this.#socket.close();
    await until(() => this.#socket.readyState === WebSocket.CLOSED);
  }
}

test("a client that was away gets exactly what it missed, though the server is killed", async (t) => {
  const folder = folderOf(t);
  let server = await serve(t, folder);
  let ann = await Client.connect(t, server, "ann");
  let bob = await Client.connect(t, server, "bob");
  for (let n = 1; n <= 5; n += 1) ann.say(`text ${n}`);
  assert.deepEqual(await bob.take(5), numbered(1, 5));
  bob.see(3);
  // An answer to something later: what was seen is kept.
  bob.send({ room: "not+mine", seen: 1 });
  assert.equal((await bob.answer("error")).error, "NOT_A_MEMBER");
  await bob.close();
  for (let n = 6; n <= 8; n += 1) ann.say(`text ${n}`);
  assert.deepEqual(await ann.take(8), numbered(1, 8));
  // Killed while it is at these: what was not answered is said again, under the same id.
  const said = new Map();
  for (let n = 9; n <= 28; n += 1) {
    said.set(randomUUID(), `text ${n}`);
    ann.say(`text ${n}`, [...said.keys()].at(-1));
    if (n === 12) await ann.take(1);
  }
  server.child.kill("SIGKILL");
  await server.done;

  server = await serve(t, folder);
  ann = await Client.connect(t, server, "ann");
  for (const [id, text] of said) ann.say(text, id);
  bob = await Client.connect(t, server, "bob");
  assert.deepEqual(await bob.take(25), numbered(4, 28));
  await bob.close();
  // A client that nobody knows yet begins with the first copy that is told to it, and those of the killed server
  // are told once more.
  await until(() => isHandedOut(folder));
  // Nothing of it was seen, so it comes again; what is seen does not.
  bob = await Client.connect(t, server, "bob");
  assert.deepEqual(await bob.take(25), numbered(4, 28));
  bob.see(28);
  const desk = await Client.connect(t, server, "bob", "desk");
  ann.say("text 29");
  assert.deepEqual(await bob.take(1), numbered(29, 29));
  assert.deepEqual(await desk.take(1), numbered(29, 29));
  server.child.kill("SIGKILL");
  await server.done;

  server = await serve(t, folder);
  bob = await Client.connect(t, server, "bob");
  assert.deepEqual(await bob.take(1), numbered(29, 29));
  server.child.kill("SIGTERM");
  const { code, out, err } = await server.done;
  assert.deepEqual([code, out.trim().split("\n").at(-1), err], [0, "closed", ""]);
});
