// Conversations: numbered and fanned out once, read by clients that come and go, trimmed without a word left out.

import assert from "node:assert/strict";

import { ConversationMessage } from "towline";

import { makeGroup, member, range, refused, scenario, until, waiting } from "./harness.mjs";

const ID = "018f0000-0000-7000-8000-0000000000";
const sequences = (messages) => messages.map((one) => Number(one.sequence));

async function say(engine, count, room = "room") {
  for (const n of range(count)) await engine.conversations.append(room, { sender: "ann", value: `${n + 1}` });
}

async function missedCount(engine, user) {
  const { items } = await engine.conversations.missed(user);
  return items.reduce((sum, one) => sum + one.count, 0);
}

scenario("CONF-98", "eight writers get sequences without gaps, and a fan-out in order", async (stage) => {
  const engines = [await stage.open(), await stage.open()];
  const copies = { room: [], hall: [] };
  await engines[1].consume("conversations", member({ group: "service", ordering: "key" }), (message) => {
    const copy = ConversationMessage.of(message);
    assert.deepEqual([copy.sender, copy.value, copy.headers], ["ann", "hello", {}]);
    copies[copy.conversation].push(Number(copy.sequence));
  });
  await Promise.all(range(8).map(async (writer) => {
    for (const n of range(26)) {
      await engines[writer % 2].conversations.append(n % 2 === 0 ? "room" : "hall", { sender: "ann", value: "hello" });
    }
  }));
  await until(() => copies.room.length + copies.hall.length === 8 * 26);
  assert.deepEqual(copies, { room: range(104, 1), hall: range(104, 1) });
  const page = await engines[0].conversations.messagesSince("room", 0, { countMax: 1_000 });
  assert.deepEqual(sequences(page.messages), range(104, 1));
  assert.deepEqual([page.end, page.gap], [true, undefined]);
});

scenario("CONF-98", "an append can be repeated and is fanned out once", async (stage) => {
  const engine = await stage.open();
  await makeGroup(engine, "conversations", "service");
  for (const time of range(3)) {
    const appended = await engine.conversations.append("room",
      { sender: "ann", value: { n: 1 }, id: `${ID}01`, headers: { mood: "ü" } });
    assert.deepEqual(appended, { sequence: 1n, id: `${ID}01`, duplicate: time > 0 });
  }
  assert.equal(await waiting(engine, "conversations", "service"), 1);
  const copies = [];
  await engine.consume("conversations", member({ group: "service" }),
    (message) => void copies.push(ConversationMessage.of(message)));
  await until(() => copies.length === 1);
  const { messages } = await engine.conversations.messagesSince("room");
  assert.deepEqual(messages, copies);
  const [one] = copies;
  assert.deepEqual([one.conversation, one.sequence, one.id, one.sender], ["room", 1n, `${ID}01`, "ann"]);
  assert.deepEqual([one.value, one.headers, one.contentType], [{ n: 1 }, { mood: "ü" }, "application/json"]);
  assert.ok(one instanceof ConversationMessage && one.sentAt instanceof Date);
});

scenario("CONF-99", "pages are exclusive, and what was trimmed is a gap", async (stage) => {
  const { conversations } = await stage.open();
  for (const n of range(9, 1)) await conversations.append("room", { sender: "ann", value: n, id: `${ID}0${n}` });
  const read = [];
  for (let page; !page?.end; ) {
    page = await conversations.messagesSince("room", read.at(-1) ?? 0, { countMax: 4 });
    assert.equal(page.gap, undefined);
    read.push(...sequences(page.messages));
  }
  assert.deepEqual(read, range(9, 1));
  assert.deepEqual(sequences((await conversations.messagesSince("room", `${ID}07`)).messages), [8, 9]);
  await refused(conversations.messagesSince("room", `${ID}33`), "ERR_NOT_FOUND");
  await conversations.trim("room", 5);
  for (const after of [3, 3n, `${ID}03`]) {
    const page = await conversations.messagesSince("room", after);
    assert.deepEqual(page.gap, { oldest: 5n, newest: 9n });
    assert.deepEqual(sequences(page.messages), range(5, 5));
  }
  assert.equal((await conversations.messagesSince("room", 4)).gap, undefined);
  assert.equal((await conversations.append("room", { sender: "ann", value: "more" })).sequence, 10n);
});

scenario("CONF-100", "a client that was away gets exactly what it missed, over two lives", async (stage) => {
  const first = await stage.open();
  await say(first, 5);
  await say(first, 3, "hall");
  await first.conversations.acknowledge("bob", "phone", "room", 2);
  for (const sequence of [2, 3, 3]) await first.conversations.noteMissed("bob", "hall", sequence);
  assert.deepEqual((await first.conversations.missed("bob")).items,
    [{ conversation: "hall", count: 2, firstSequence: 2n, lastSequence: 3n }]);
  await first.conversations.reconnect("bob", "phone");
  assert.equal(await missedCount(first, "bob"), 0);
  await stage.close(first);

  const { conversations } = await stage.open();
  const told = ({ items }) => items.map((one) => [one.conversation, sequences(one.messages), one.end]);
  const page = await conversations.reconnect("bob", "phone", { countMax: 3 });
  assert.deepEqual(told(page), [["hall", [2, 3], true], ["room", [3], false]]);
  const rest = await conversations.reconnect("bob", "phone", { cursor: page.cursor });
  assert.deepEqual([told(rest), rest.cursor], [[["room", [4, 5], true]], ""]);
  await conversations.acknowledge("bob", "phone", "hall", 3n);
  await conversations.acknowledge("bob", "phone", "room", 3n);
  await conversations.trim("room", 5);
  const gapped = await conversations.reconnect("bob", "phone");
  assert.deepEqual(told(gapped), [["room", [5], true]]);
  assert.deepEqual(gapped.items[0].gap, { oldest: 5n, newest: 5n });
  assert.deepEqual((await conversations.reconnect("bob", "desk")).items, []);
});

scenario("CONF-101", "positions only move forward, and expire", async (stage) => {
  const engines = [await stage.open(), await stage.open()];
  await say(engines[0], 100);
  const wanted = range(60).map((n) => 1 + (n * 37) % 100);
  await Promise.all([0, 1].map(async (which) => {
    let before = 0n;
    for (const [i, sequence] of wanted.entries()) {
      if (i % 2 !== which) continue;
      await engines[which].conversations.acknowledge("bob", "phone", "room", sequence);
      const now = await engines[which].conversations.position("bob", "phone", "room");
      assert.ok(now >= before);
      before = now;
    }
  }));
  assert.equal(await engines[0].conversations.position("bob", "phone", "room"), BigInt(Math.max(...wanted)));
  const hasty = await stage.open({ conversations: { clientExpiryMs: 1_000 } });
  await hasty.conversations.acknowledge("amy", "phone", "room", 9);
  await until(async () => (await engines[1].conversations.position("amy", "phone", "room")) === undefined);
  await engines[0].conversations.acknowledge("amy", "phone", "room", 3);
  assert.equal(await engines[1].conversations.position("amy", "phone", "room"), 3n);
});

scenario("CONF-101", "what was missed is forgotten in its time", async (stage) => {
  const engine = await stage.open({ conversations: { missedExpiryMs: 1_000 } });
  const { conversations } = engine;
  await say(engine, 3);
  await conversations.acknowledge("bob", "phone", "room", 1);
  await conversations.noteMissed("bob", "room", 3);
  assert.deepEqual((await conversations.missed("bob")).items.map((one) => one.conversation), ["room"]);
  await until(async () => (await conversations.missed("bob")).items.length === 0);
  assert.equal(await conversations.position("bob", "phone", "room"), 1n, "it has its own time");
});

scenario("CONF-102", "the live and the durable path give each message once", async (stage) => {
  const engine = await stage.open();
  const { conversations } = engine;
  await say(engine, 20);
  await conversations.acknowledge("bob", "phone", "room", 5);
  const feed = conversations.feed("bob", "phone");
  assert.equal(feed.given("room"), undefined);
  const got = [];
  let last = Promise.resolve();
  const give = (message) => (last = last.then(async () => {
    let page = await feed.offer(message, { countMax: 3 });
    for (;;) {
      got.push(...sequences(page.messages));
      if (page.end) return;
      page = await feed.next("room", { countMax: 3 });
    }
  }));
  await engine.consume("conversations", member({ group: "" }), (message) => give(ConversationMessage.of(message)));
  const catchUp = async () => {
    for (let times = 0; times < 5; times += 1) {
      const { items } = await conversations.reconnect("bob", "phone", { countMax: 1_000 });
      for (const one of items) for (const message of one.messages) await give(message);
    }
  };
  await Promise.all([say(engine, 60), catchUp()]);
  await until(() => got.length >= 75);
  await engine.settleDown();
  assert.deepEqual(got, range(75, 6));
  assert.equal(feed.given("room"), 80n);
});

scenario("CONF-102", "a hole is filled, and a cancelled offer gives its messages with the next", async (stage) => {
  const { conversations } = await stage.open();
  for (const n of range(6)) await conversations.append("room", { sender: "ann", value: `${n}` });
  const { messages } = await conversations.messagesSince("room");
  const feed = conversations.feed("bob", "phone");
  feed.begin("room", 1);
  feed.begin("room", 0n);
  const answers = await Promise.all([
    feed.offer(messages[1]), feed.offer(messages[4], { countMax: 2 }), feed.next("room"), feed.offer(messages[2])]);
  assert.deepEqual(answers.map((page) => [sequences(page.messages), page.end]),
    [[[2], true], [[3, 4], false], [[5, 6], true], [[], true]]);
  assert.equal(answers[0].messages[0], messages[1]);
  const other = conversations.feed("bob", "desk");
  other.begin("room", 1n);
  await refused(other.offer(messages[5], { signal: AbortSignal.abort() }), "ERR_CANCELLED");
  const controller = new AbortController();
  const cancelled = other.offer(messages[5], { signal: controller.signal });
  setImmediate(() => controller.abort());
  const given = await cancelled.catch((error) => {
    assert.equal(error.code, "ERR_CANCELLED");
    return { messages: [] };
  });
  assert.deepEqual(sequences([...given.messages, ...(await other.next("room")).messages]), range(5, 2));
});

scenario("CONF-103", "trimming keeps the newest and takes nothing from a group", async (stage) => {
  const engine = await stage.open({ conversations: { countMax: 10 } });
  await makeGroup(engine, "conversations", "service");
  await say(engine, 100);
  const extent = await engine.conversations.find("room");
  assert.ok(extent.newest === 100n && extent.oldest >= 90n && extent.oldest <= 91n, `${extent.oldest}`);
  assert.equal(await engine.conversations.find("hall"), undefined);
  let copies = 0;
  await engine.consume("conversations", member({ group: "service" }), () => void (copies += 1));
  await until(() => copies === 100);
});

scenario("CONF-103", "trimming by bytes keeps the newest", async (stage) => {
  const engine = await stage.open({ conversations: { bytesMax: 1_000 } });
  for (let n = 0; n < 20; n += 1) await engine.conversations.append("room", { sender: "ann", value: "x".repeat(200) });
  const { messages, gap } = await engine.conversations.messagesSince("room");
  assert.ok(messages.length >= 1 && messages.length <= 5, `${messages.length}`);
  assert.deepEqual([messages.at(-1).sequence, gap.oldest], [20n, messages[0].sequence]);
});

scenario("CONF-103", "what is old goes from quiet conversations, unless it is unread", async (stage) => {
  const engine = await stage.open({ conversations: { ageMsMax: 1, keepUnread: true } });
  await say(engine, 2, "unread");
  await engine.conversations.acknowledge("bob", "phone", "unread", 2);
  await say(engine, 3, "unread");
  await say(engine, 5, "quiet");
  await until(async () => (await engine.conversations.find("quiet")).oldest === 5n);
  await until(async () => (await engine.conversations.find("unread")).oldest === 3n);
  const { items } = await engine.conversations.reconnect("bob", "phone");
  assert.deepEqual(items.map((one) => [sequences(one.messages), one.gap]), [[[3, 4, 5], undefined]]);
});

scenario("BAD-56", "what no conversation can have", async (stage) => {
  const engine = await stage.open();
  const { conversations } = engine;
  await say(engine, 2);
  const [message] = (await conversations.messagesSince("room")).messages;
  const named = [
    (name) => conversations.append(name, { sender: "ann", value: "x" }),
    (name) => conversations.append("room", { sender: name, value: "x" }),
    (name) => conversations.messagesSince(name),
    (name) => conversations.acknowledge(name, "phone", "room", 1),
    (name) => conversations.acknowledge("bob", name, "room", 1),
    (name) => conversations.acknowledge("bob", "phone", name, 1),
    (name) => conversations.noteMissed(name, "room", 1),
    (name) => conversations.missed(name),
    (name) => conversations.reconnect(name, "phone"),
    (name) => conversations.feed("bob", name).offer(message),
  ];
  for (const call of named) {
    for (const name of ["", "a b", "a\n", "ü", "a".repeat(256)]) await refused(call(name), "ERR_INVALID_NAME");
    await refused(call(7), "ERR_INVALID_ARGUMENT");
  }
  const numbered = [
    (sequence) => conversations.acknowledge("bob", "phone", "room", sequence),
    (sequence) => conversations.noteMissed("bob", "room", sequence),
  ];
  for (const call of numbered) {
    for (const wrong of [0, 3, 2n ** 64n - 1n, -1, -1n, 2n ** 64n, 10n ** 1000n, 1.5, NaN, "1", true, {}, null]) {
      await refused(call(wrong), "ERR_INVALID_ARGUMENT");
    }
  }
  for (const wrong of [3, -1, 2n ** 64n, 1.5, true, {}, null]) {
    await refused(conversations.messagesSince("room", wrong), "ERR_INVALID_ARGUMENT");
  }
  await refused(conversations.messagesSince("room", "no id"), "ERR_INVALID_ID");
  for (const countMax of [0, -1, 10_001, 1.5]) {
    await refused(conversations.messagesSince("room", 0, { countMax }), "ERR_INVALID_ARGUMENT");
    await refused(conversations.reconnect("bob", "phone", { countMax }), "ERR_INVALID_ARGUMENT");
  }
  await refused(conversations.reconnect("bob", "phone", { cursor: "no cursor" }), "ERR_INVALID_CURSOR");
  await refused(conversations.trim("nowhere", 1), "ERR_NOT_FOUND");
  for (const wrong of ["x", null, undefined]) await refused(conversations.append("room", wrong), "ERR_INVALID_ARGUMENT");
  for (const wrong of [undefined, null, {}, { ...message, sequence: 1 }, { ...message, sequence: 0n }]) {
    await refused(conversations.feed("bob", "phone").offer(wrong), "ERR_INVALID_ARGUMENT");
  }
  await conversations.trim("room", 2n ** 64n - 1n);
  assert.deepEqual(sequences((await conversations.messagesSince("room")).messages), [2]);
  assert.equal(await conversations.position("bob", "phone", "room"), undefined);
  assert.equal(await missedCount(engine, "bob"), 0);
  await refused(stage.open({ conversations: { fanoutTopic: "a..b" } }), "ERR_INVALID_TOPIC");
});
