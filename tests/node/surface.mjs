// Every public method of the package with a call of each, for tests that hold for all of them. What is public is
// found by reflection, so one that is missing here fails them.

import * as towline from "towline";
import * as testing from "towline/testing";

const { Engine, Limiter, Saga } = towline;

const ID = "01890000-0000-7000-8000-000000000000";
const BASES = new Set([Object.prototype, Error.prototype, TypeError.prototype, Function.prototype]);
/** They are of the package alone. */
const INTERNAL = new Set(["Engine.call", "Engine.send", "Message.stop", "Message.reply", "Message.counted", "SagaCall.stop", "SagaCall.end",
  "Saga.fields", "Saga.handlers", "Choreography.fields", "Choreography.handlers"]);

function nameOf(key) {
  return typeof key === "symbol" ? `[${key.description.replace(/^(nodejs|Symbol)\./, "")}]` : key;
}

function methodsOf(name, Class) {
  const found = new Map();
  for (let one = Class.prototype; one !== null && !BASES.has(one); one = Object.getPrototypeOf(one)) {
    for (const [key, { value }] of Reflect.ownKeys(one).map((at) => [at, Object.getOwnPropertyDescriptor(one, at)])) {
      if (key !== "constructor" && typeof value === "function") found.set(`${name}.${nameOf(key)}`, value);
    }
  }
  for (const key of Reflect.ownKeys(Class)) {
    if (typeof Class[key] === "function") found.set(`${name}.${nameOf(key)}`, Class[key]);
  }
  return found;
}

/** "Class.method" of all that are public, and their functions. */
export function publicMethods() {
  const found = new Map();
  for (const [name, Class] of Object.entries({ ...towline, ...testing })) {
    if (typeof Class !== "function" || Class.prototype === undefined) continue;
    for (const [key, method] of methodsOf(name, Class)) if (!INTERNAL.has(key)) found.set(key, method);
  }
  return found;
}

/**
 * One of everything, open. `end` lets the handlers return that hold the message, a command, and the call, and closes;
 * at the end of the test at the latest.
 */
export async function world(t) {
  const engine = await Engine.open("memory:", { drainTimeoutMs: 50 });
  const w = { engine, topic: engine.topic("typed"), limiter: new Limiter(1), clock: new testing.VirtualClock() };
  const [left, leave] = [{}, {}];
  for (const what of ["message", "call"]) left[what] = new Promise((resolve) => (leave[what] = resolve));
  w.end = async () => {
    leave.message();
    leave.call();
    await engine.close({ timeoutMs: 0 });
  };
  t.after(w.end);
  const got = (name, end) => new Promise((resolve) => (w[name] = (value) => {
    w[name] = value;
    resolve();
    return end;
  }));
  const arrived = [got("message", left.message), got("call", left.call)];
  w.consumer = await engine.consume("held", { group: "g", ack: "manual" }, (message) => w.message(message));
  w.saga = new Saga("order").step("one", (call) => w.call(call), { changesNothing: true });
  w.runner = await engine.runSaga(w.saga);
  const asking = new Saga("asking").step("ask", undefined, { command: "held", changesNothing: true });
  await engine.runSaga(asking);
  for (const one of [w.saga, asking]) await engine.sagas.start(one, undefined, { id: "o" });
  w.subscription = await engine.eventStore.subscribe("reader");
  w.feed = engine.conversations.feed("ann", "phone");
  await engine.conversations.append("room", { sender: "bob", value: 1 });
  w.said = (await engine.conversations.messagesSince("room")).messages[0];
  w.permit = await w.limiter.acquire();
  await Promise.all(arrived);
  return w;
}

const handler = () => {};
const command = (w, name, ...rest) => w.engine.sagas[name](w.message, ...rest);
const said = { sender: "ann", value: 1 };
const group = (o) => ({ group: "h", ...o });

/** Calls a caller may leave, by the class that has them. `o` has the signal, or nothing. */
export const LEFT_BY_SIGNAL = {
  Engine: {
    open: (w, o) => Engine.open("memory:", o),
    publish: (w, o) => w.engine.publish("a", 1, o),
    publishBatch: (w, o) => w.engine.publishBatch([{ topic: "a", value: 1 }], o),
    publishWithRetry: (w, o) => w.engine.publishWithRetry("a", 1, o),
    cancel: (w, o) => w.engine.cancel(ID, o),
    cancelBatch: (w, o) => w.engine.cancelBatch([ID], o),
    reschedule: (w, o) => w.engine.reschedule(ID, 0, o),
    pending: (w, o) => w.engine.pending(o),
    declareTopic: (w, o) => w.engine.declareTopic("b", o),
    backlog: (w, o) => w.engine.backlog(o),
    blockedKeys: (w, o) => w.engine.blockedKeys("g", "held", o),
    releaseKey: (w, o) => w.engine.releaseKey("g", "held", "k", o),
    deadLetters: (w, o) => w.engine.deadLetters(o),
    findDeadLetter: (w, o) => w.engine.findDeadLetter(ID, o),
    deadLetterGroups: (w, o) => w.engine.deadLetterGroups(o),
    redrive: (w, o) => w.engine.redrive(ID, o),
    redriveAll: (w, o) => w.engine.redriveAll({}, o),
    discardDeadLetter: (w, o) => w.engine.discardDeadLetter(ID, o),
    once: (w, o) => w.engine.once("k", handler, o),
    statistics: (w, o) => w.engine.statistics(o),
    health: (w, o) => w.engine.health(o),
    findings: (w, o) => w.engine.findings(o),
    settleDown: (w, o) => w.engine.settleDown({ timeoutMs: 20, ...o }),
    consume: (w, o) => w.engine.consume("a", group(o), handler),
    consumeBatches: (w, o) => w.engine.consumeBatches("a", group(o), handler),
    messages: (w, o) => w.engine.messages("a", group(o)).next(),
    runSaga: (w, o) => w.engine.runSaga(new Saga("other").step("one", handler, { changesNothing: true }), o),
    close: (w, o) => w.engine.close(o),
  },
  Topic: {
    publish: (w, o) => w.topic.publish(1, o),
    publishBatch: (w, o) => w.topic.publishBatch([{ value: 1 }], o),
    consume: (w, o) => w.topic.consume(group(o), handler),
    consumeBatches: (w, o) => w.topic.consumeBatches(group(o), handler),
    messages: (w, o) => w.topic.messages(group(o)).next(),
  },
  Consumer: {
    drain: (w, o) => w.consumer.drain({ timeoutMs: 20, ...o }),
    close: (w, o) => w.consumer.close(o),
  },
  Message: {
    ack: (w, o) => w.message.ack({ wait: true, ...o }),
    nak: (w, o) => w.message.nak({ wait: true, ...o }),
    defer: (w, o) => w.message.defer(1_000, { wait: true, ...o }),
    reject: (w, o) => w.message.reject("no", { wait: true, ...o }),
  },
  SagaRunner: {
    statistics: (w, o) => w.runner.statistics(o),
    close: (w, o) => w.runner.close(o),
  },
  Sagas: {
    start: (w, o) => w.engine.sagas.start(w.saga, undefined, o),
    find: (w, o) => w.engine.sagas.find("order", "o", o),
    list: (w, o) => w.engine.sagas.list(o),
    timeline: (w, o) => w.engine.sagas.timeline("order", "o", o),
    result: (w, o) => w.engine.sagas.result("order", "o", { timeoutMs: 20, ...o }),
    cancel: (w, o) => w.engine.sagas.cancel("order", "o", "why", o),
    retry: (w, o) => w.engine.sagas.retry("order", "o", "one", o),
    skip: (w, o) => w.engine.sagas.skip("order", "o", "one", o),
    force: (w, o) => w.engine.sagas.force("order", "o", "completed", o),
    annotate: (w, o) => w.engine.sagas.annotate("order", "o", "text", o),
    publishEvent: (w, o) => w.engine.sagas.publishEvent("happened", "o", 1, o),
    reply: (w, o) => w.engine.sagas.reply(w.message, 1, o),
    replyFailed: (w, o) => w.engine.sagas.replyFailed(w.message, "why", o),
  },
  EventStore: {
    append: (w, o) => w.engine.eventStore.append("s", [{ type: "t", value: 1 }], o),
    read: (w, o) => w.engine.eventStore.read("s", o),
    readBackwards: (w, o) => w.engine.eventStore.readBackwards("s", o),
    readAll: (w, o) => w.engine.eventStore.readAll(o),
    findStream: (w, o) => w.engine.eventStore.findStream("s", o),
    streams: (w, o) => w.engine.eventStore.streams(o),
    truncate: (w, o) => w.engine.eventStore.truncate("s", 1, o),
    saveSnapshot: (w, o) => w.engine.eventStore.saveSnapshot("s", 1, 1, o),
    findSnapshot: (w, o) => w.engine.eventStore.findSnapshot("s", o),
    subscribe: (w, o) => w.engine.eventStore.subscribe("other", o),
    streamTo: (w, o) => w.engine.eventStore.streamTo("t", { name: "relay", ...o }),
  },
  EventSubscription: {
    receive: (w, o) => w.subscription.receive({ timeoutMs: 20, ...o }),
    checkpoint: (w, o) => w.subscription.checkpoint(1n, o),
    statistics: (w, o) => w.subscription.statistics(o),
    close: (w, o) => w.subscription.close(o),
  },
  Conversations: {
    append: (w, o) => w.engine.conversations.append("room", said, o),
    messagesSince: (w, o) => w.engine.conversations.messagesSince("room", 0n, o),
    find: (w, o) => w.engine.conversations.find("room", o),
    acknowledge: (w, o) => w.engine.conversations.acknowledge("ann", "phone", "room", 1n, o),
    position: (w, o) => w.engine.conversations.position("ann", "phone", "room", o),
    noteMissed: (w, o) => w.engine.conversations.noteMissed("ann", "room", 1n, o),
    missed: (w, o) => w.engine.conversations.missed("ann", o),
    reconnect: (w, o) => w.engine.conversations.reconnect("ann", "phone", o),
    trim: (w, o) => w.engine.conversations.trim("room", 1n, o),
  },
  ConversationFeed: {
    offer: (w, o) => w.feed.offer(w.said, o),
    next: (w, o) => w.feed.next("room", o),
  },
  Limiter: {
    acquire: (w, o) => w.limiter.acquire({ timeoutMs: 20, ...o }),
    run: (w, o) => w.limiter.run(handler, { timeoutMs: 20, ...o }),
  },
  VirtualClock: {
    advanceAndSettle: (w, o) => w.clock.advanceAndSettle(w.engine, 1, { timeoutMs: 20, ...o }),
  },
};

const DISPOSED = "`await using` gives it nothing; close() takes one";
/** Why these take no signal: what they wait for is over at once, or somebody else ends it. */
export const NOT_LEFT = {
  "Engine.[asyncDispose]": DISPOSED,
  "Consumer.[asyncDispose]": DISPOSED,
  "SagaRunner.[asyncDispose]": DISPOSED,
  "EventSubscription.[asyncDispose]": DISPOSED,
  "EventSubscription.[asyncIterator]": "`for await` gives it nothing; closing the subscription ends it, and receive() "
    + "takes one",
};

/** They return at once. */
export const AT_ONCE = {
  Engine: { topic: (w) => w.engine.topic("a") },
  Consumer: {
    pause: (w) => w.consumer.pause(),
    resume: (w) => w.consumer.resume(),
    setConcurrency: (w) => w.consumer.setConcurrency(2),
    statistics: (w) => w.consumer.statistics(),
  },
  Message: {
    transaction: (w) => w.message.transaction(handler),
    extend: (w) => w.message.extend(1_000),
    progress: (w) => w.message.progress("half"),
    "[util.inspect.custom]": (w) => w.message[Symbol.for("nodejs.util.inspect.custom")](0, {}),
  },
  Sagas: {
    eventMessage: (w) => w.engine.sagas.eventMessage("happened", "o", 1),
    replyMessage: (w) => command(w, "replyMessage", 1),
    replyFailedMessage: (w) => command(w, "replyFailedMessage", "why"),
  },
  SagaCall: {
    outputOf: (w) => w.call.outputOf("one"),
    setContext: (w) => w.call.setContext({ n: 1 }),
    publish: (w) => w.call.publish("a", 1),
  },
  Saga: {
    step: () => new Saga("new").step("one", handler, { changesNothing: true }),
    parallel: () => new Saga("new").parallel([{ name: "one", execute: handler, changesNothing: true }]),
    visualize: (w) => w.saga.visualize(),
  },
  Choreography: {
    on: () => new towline.Choreography("new", "begun").on("begun", handler, "done"),
    expect: () => new towline.Choreography("new", "begun").expect("begun", "done", "failed", { timeoutMs: 1_000 }),
    visualize: () => new towline.Choreography("new", "begun").on("begun", handler, "done").visualize(),
  },
  Conversations: { feed: (w) => w.engine.conversations.feed("ann", "phone") },
  ConversationFeed: { begin: (w) => w.feed.begin("room", 1n), given: (w) => w.feed.given("room") },
  ConversationMessage: { of: (w) => towline.ConversationMessage.of(w.message) },
  Limiter: {
    tryAcquire: (w) => w.limiter.tryAcquire(),
    setLimit: (w) => w.limiter.setLimit(2),
    statistics: (w) => w.limiter.statistics(),
  },
  Permit: { release: (w) => w.permit.release(), "[dispose]": (w) => w.permit[Symbol.dispose]() },
  Transaction: {
    execute: (w) => towline.Transaction.prototype.execute.call(w.transaction, "SELECT 1"),
    publish: (w) => towline.Transaction.prototype.publish.call(w.transaction, "a", 1),
    append: (w) => towline.Transaction.prototype.append.call(w.transaction, "s", [{ type: "t", value: 1 }]),
    complete: (w) => towline.Transaction.prototype.complete.call(w.transaction, "s", "k", 1),
  },
  VirtualClock: {
    now: (w) => w.clock.now(),
    advance: (w) => w.clock.advance(1),
    stepWall: (w) => w.clock.stepWall(1),
  },
};

/** As [name, call] from the lists by class. */
export function entriesOf(byClass) {
  return Object.entries(byClass).flatMap(([name, calls]) =>
    Object.entries(calls).map(([method, call]) => [`${name}.${method}`, call]));
}
