// A chat over WebSockets, on one SQLite file: whoever was away gets exactly what was missed.
//
//     node websocket_chat.mjs [port]
//
// A client connects to /chat?user=ann&client=phone and sends JSON: {"room": "ann+bob", "say": "hello", "id": a UUID} is
// answered by {"room", "said", "sequence"}; sent again under the same id it is the same message.
// {"room": "ann+bob", "seen": 7}: everything up to 7 was shown, and does not come again. It gets
// {"room", "sequence", "sender", "text"}, each message once per connection and in order, and
// {"room", "gap": [oldest, newest]} where older ones were trimmed. The name of a room is those of its members.
//
// The process may be killed at any moment: what was answered is kept, and what was not seen comes again. What a killed
// one had in hand is told again, in order, so it is what a client begins with that was never there before.

import { ConversationMessage, Engine } from "towline";
import { WebSocketServer } from "ws";

// `leaseMs`: so long after a process was killed its part of the fan-out waits.
const engine = await Engine.open(process.env.STORE ?? "sqlite:chat.db", { leaseMs: 2_000 });
const talk = engine.conversations;
const online = new Map();

/** One client. It keeps no more than the newest message of each room: the feed reads what lies between. */
class Connection {
  #socket;
  #user;
  #client;
  #feed;
  #newest = new Map();
  #sending;

  constructor(socket, user, client) {
    this.#socket = socket;
    this.#user = user;
    this.#client = client;
    this.#feed = talk.feed(user, client);
    // First what was missed, then what comes; the feed knows what this client was given.
    this.#sending = this.#catchUp().catch((error) => this.#fail(error));
  }

  tell(message) {
    if (this.#newest.size === 0) {
      this.#sending = this.#sending.then(() => this.#sendNewest()).catch((error) => this.#fail(error));
    }
    this.#newest.set(message.conversation, message);
  }

  async take(given) {
    const { room } = given;
    if (!`${room}`.split("+").includes(this.#user)) return { room, error: "NOT_A_MEMBER" };
    try {
      if (given.seen !== undefined) {
        await talk.acknowledge(this.#user, this.#client, room, given.seen);
        return undefined;
      }
      const { id, sequence } = await talk.append(room, { sender: this.#user, value: `${given.say}`, id: given.id });
      return { room, said: id, sequence: Number(sequence) };
    } catch (error) {
      return { room, error: error.code ?? "BAD_REQUEST" };
    }
  }

  async #catchUp() {
    let cursor = "";
    do {
      const missed = await talk.reconnect(this.#user, this.#client, { cursor });
      for (const { conversation, messages } of missed.items) {
        for (const message of messages) await this.#send(conversation, await this.#feed.offer(message));
      }
      ({ cursor } = missed);
    } while (cursor !== "");
  }

  async #sendNewest() {
    const messages = [...this.#newest.values()];
    this.#newest.clear();
    for (const message of messages) await this.#send(message.conversation, await this.#feed.offer(message));
  }

  async #send(room, page) {
    for (;;) {
      if (page.gap) await this.write({ room, gap: [Number(page.gap.oldest), Number(page.gap.newest)] });
      for (const { sequence, sender, value } of page.messages) {
        await this.write({ room, sequence: Number(sequence), sender, text: value });
      }
      if (page.end) return;
      page = await this.#feed.next(room);
    }
  }

  /** Waits until the socket has taken it, so that a slow client fills no memory. */
  write(value) {
    return new Promise((resolve) => this.#socket.send(JSON.stringify(value), () => resolve()));
  }

  // The client connects again, and gets what it has not seen.
  #fail(error) {
    console.error(error.message);
    this.#socket.terminate();
  }
}

function parsed(bytes) {
  try {
    return JSON.parse(bytes);
  } catch {
    return undefined;
  }
}

// A group: what was not handled when the process died is handled by the next one.
await engine.consume("conversations", { group: "chat", ordering: "key" }, async (message) => {
  const copy = ConversationMessage.of(message);
  for (const user of copy.conversation.split("+")) {
    // Also if a client is there: it may be gone before it has seen it. Acknowledging takes it back.
    await talk.noteMissed(user, copy.conversation, copy.sequence);
    for (const connection of online.get(user) ?? []) connection.tell(copy);
  }
});

const server = new WebSocketServer({ port: Number(process.argv[2] ?? 3000), host: "127.0.0.1", path: "/chat" });
server.on("listening", () => console.log(`listening on port ${server.address().port}`));
server.on("connection", (socket, request) => {
  const query = new URL(request.url, "http://localhost").searchParams;
  const [user, client] = [query.get("user") ?? "", query.get("client") ?? ""];
  const connection = new Connection(socket, user, client);
  // Before what was missed has come: from here on what comes is told to it.
  if (!online.has(user)) online.set(user, new Set());
  online.get(user).add(connection);
  socket.on("error", () => socket.terminate());
  socket.on("close", () => {
    online.get(user)?.delete(connection);
    if (online.get(user)?.size === 0) online.delete(user);
  });
  // One after the other, and no more is read meanwhile.
  let turn = Promise.resolve();
  socket.on("message", (bytes) => {
    socket.pause();
    turn = turn.then(async () => {
      const given = parsed(bytes);
      const answer = given instanceof Object ? await connection.take(given) : { error: "BAD_REQUEST" };
      if (answer) await connection.write(answer);
      socket.resume();
    });
  });
});

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, async () => {
    for (const socket of server.clients) socket.close(1001);
    server.close();
    await engine.close();
    console.log("closed");
  });
}
