"""The process that the kill tests start, kill and start again: child.py MODE URL LEDGER [MORE].

ack          acknowledges one message, sees it stored, notes it and dies at once
work         handles "orders"; dies in the handler of every message whose payload begins with "kill"
redrive      redrives all dead letters of "orders" until it is killed or done
fire         fires what is due, and handles nothing, until it is killed
once         runs the key "charge" and dies inside, unless the ledger says that it was run before
transaction  handles "effects" with an SQL effect; dies once at the point that the payload names
close        closes the engine inside a handler and exits
exit         ends with an open engine, and calls a closed one while it ends
echo         answers each message of "ping" by one to the topic that its payload names, until it is killed
saga         runs one saga to its end; MORE says at which point it dies, 0: at none
fork         forks with an open engine; child and parent both look at what it answers then

It prints "ready" when it has begun.
"""

from __future__ import annotations

import atexit
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conformance.suite import Ledger, member  # noqa: E402  (needs the path above)
from towline import (  # noqa: E402
    Engine,
    Message,
    Reject,
    Saga,
    SagaCall,
    SyncEngine,
    Transaction,
    errors,
)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def say(line: str) -> None:
    print(line, flush=True)


def wait_for_ever() -> None:
    threading.Event().wait()


def describe(message: Message) -> str:
    return f"{message.payload.decode()} attempt {message.attempt} crashes {message.crashes}"


def ack(engine: SyncEngine, ledger: Ledger) -> None:
    with engine.subscribe("orders", group="group") as subscription:
        say("ready")
        message = subscription.receive()
        assert message is not None
        message.ack()
        while any(group.in_flight for group in engine.backlog()):
            time.sleep(0.001)  # sleeps: until the acknowledgement is durable
        ledger.append("acked " + message.payload.decode())
        die()


def work(engine: SyncEngine, ledger: Ledger) -> None:
    def handle(message: Message) -> None:
        ledger.append("start " + describe(message))
        if message.payload.startswith(b"kill"):
            die()
        ledger.append("done " + describe(message))

    say("ready")  # a handler may be its end
    engine.consume("orders", handle, **member(prefetch_count=10))
    wait_for_ever()


def redrive(engine: SyncEngine, ledger: Ledger) -> None:
    say("ready")
    engine.redrive_all(topic="orders")


def fire(engine: SyncEngine, ledger: Ledger) -> None:
    say("ready")
    wait_for_ever()


def once(engine: SyncEngine, ledger: Ledger) -> None:
    def charge() -> str:
        first = not ledger.lines
        ledger.append("run")
        if first:
            die()
        return "charged"

    say("ready")
    ledger.append("result " + engine.once("charge", charge, lease=0.2, wait_max=10))


def transaction(engine: SyncEngine, ledger: Ledger) -> None:
    def point(name: str, payload: str) -> None:
        if payload.endswith(" " + name) and not ledger.count(f"died {payload}."):
            ledger.append(f"died {payload}.")
            die()

    def handle(payload: str, message: Message) -> None:
        def body(sql: Transaction) -> None:
            sql.execute("INSERT INTO effect(name) VALUES (?1)", [payload])
            point("effect", payload)
            sql.publish("follow-ups", payload)
            point("publish", payload)
            sql.complete("effects", payload, "stored")
            point("complete", payload)

        point("begin", payload)
        message.transaction(body)
        point("end", payload)

    say("ready")  # a handler may be its end
    engine.consume("effects", handle, **member(ack="manual"))
    wait_for_ever()


def close(engine: SyncEngine, ledger: Ledger) -> None:
    closed = threading.Event()

    def handle(message: Message) -> None:
        engine.close()
        ledger.append("closed after " + describe(message))
        closed.set()

    engine.consume("orders", handle, **member())
    say("ready")
    sys.exit(0 if closed.wait(20) else 3)


def end(engine: SyncEngine, ledger: Ledger) -> None:
    handled = threading.Event()
    engine.consume("orders", handled.set, **member())
    closed = Engine("memory:").__enter__()
    closed.close()

    def at_end() -> None:
        try:
            closed.publish("orders", "never")
        except errors.ClosedError:
            say("closed")

    atexit.register(at_end)
    engine.publish("orders", "p")
    handled.wait(20)
    say("ready")


def echo(engine: SyncEngine, ledger: Ledger) -> None:
    def answer(topic: str) -> None:
        engine.publish(topic, "pong")

    engine.consume("ping", answer, **member())
    say("ready")
    wait_for_ever()


def saga(engine: SyncEngine, ledger: Ledger, dies_at: int) -> None:
    """Four steps, of which the last fails for good. Each effect is there once; at the n-th point before or
    after one it dies."""
    points = itertools.count(1)

    def point() -> None:
        if next(points) == dies_at:
            die()

    def effect(call: SagaCall) -> None:
        point()
        if not ledger.count(call.key):
            ledger.append(call.key)
        point()

    def fails(call: SagaCall) -> None:
        effect(call)
        raise Reject("never")

    order = Saga("order")
    for name in "abc":
        order.step(name, effect, effect)
    order.step("d", fails, effect)
    say("ready")
    with engine.run_saga(order):
        engine.sagas.start(order, id="o")
        ledger.append(engine.sagas.result("order", "o", 20).saga.status)


def fork(engine: SyncEngine, ledger: Ledger) -> None:
    handled: list[int] = []
    consumer = engine.consume("orders", lambda: handled.append(1), **member())
    calls: list[Callable[[], Any]] = [
        lambda: engine.publish("orders", "never"),
        engine.statistics,
        engine.backlog,
        lambda: engine.once("key", lambda: 1),
        consumer.pause,
        consumer.drain,
        consumer.close,
    ]
    say("ready")
    for _ in range(10):
        engine.publish("orders", "before")
        child = os.fork()
        if child == 0:
            for number, call in enumerate(calls):
                try:
                    call()
                except errors.ForkedError:
                    continue
                os._exit(10 + number)
            engine.close()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        engine.publish("orders", "after")
    engine.settle_down()
    ledger.append(f"handled {len(handled)}")


def main() -> None:
    mode, url, path, *more = sys.argv[1:]
    modes = {"ack": ack, "work": work, "redrive": redrive, "fire": fire, "once": once, "echo": echo,
             "transaction": transaction, "close": close, "exit": end, "fork": fork}
    app = Engine(url, lease=0.2, sweep_interval=0.05)
    if mode == "exit":
        return end(app.__enter__(), Ledger(Path(path)))
    with app as engine:
        if mode == "saga":
            return saga(engine, Ledger(Path(path)), int(more[0]))
        modes[mode](engine, Ledger(Path(path)))


main()
