"""One role of the interop test in Python; interop_role_main.cpp and role.mjs are the same in their languages.

python role.py publish|fail|mend|handle|append|follow|begin|reply|end URL
"""

import json
import sys
import threading
import time

from towline import Engine, Message, NewEvent, Saga, SagaCall


class BadOrder(Exception):
    pass


def publish(engine: Engine) -> dict:
    return {"id": engine.publish("orders", {"n": 1, "s": "ün"}, key="customer-9", headers={"a": "ü"},
                                 correlation_id="c-1").id}


def consume(engine: Engine, fails: bool) -> dict:
    seen: list[dict] = []
    handled = threading.Event()

    def handle(message: Message) -> None:
        seen.append({"id": message.id, "payload": message.payload.decode(),
                     "content_type": message.content_type, "key": message.key,
                     "partition": message.partition, "headers": message.headers,
                     "correlation_id": message.correlation_id, "attempt": message.attempt,
                     "redrives": message.redrives})
        handled.set()
        if fails:
            raise BadOrder("no amount")

    consumer = engine.consume("orders", handle, group="billing", ordering="key", retry={"max_attempts": 1})
    assert handled.wait(20)
    consumer.drain(20)
    return seen[0]


def mend(engine: Engine) -> dict:
    page = engine.dead_letters(topic="orders", error_type="BadOrder")
    entry = page.items[0]
    engine.redrive(entry.id, payload={"n": 2})
    return {"id": entry.message_id, "count": len(page.items), "payload": entry.payload.decode(),
            "content_type": entry.content_type, "headers": entry.headers, "error": entry.error_message,
            "attempt": entry.attempt, "fingerprint": len(entry.fingerprint)}


def append(engine: Engine) -> dict:
    placed = NewEvent("order.placed", {"n": 1, "s": "ün"}, headers={"a": "ü"})
    appended = engine.event_store.append("order-7", [placed, NewEvent("order.noted", "ün")], 0)
    return {"first": appended.first_version, "last": appended.last_version}


def follow(engine: Engine) -> dict:
    """The next event of a subscription that all languages share."""
    with engine.event_store.subscribe("reader", stream="order-7") as subscription:
        (event,) = subscription.receive(1, timeout=20)
        subscription.checkpoint(event.version)
    return {"version": event.version, "type": event.type, "payload": event.payload.decode(),
            "content_type": event.content_type, "headers": event.headers}


def order() -> Saga:
    """A saga that all languages run; its step "charge" is a command."""
    def reserve(call: SagaCall) -> str:
        call.set_context({**call.context, "reserved": call.key})
        return "shelf 7"

    def ship(call: SagaCall) -> list:
        return [call.output_of("reserve"), call.output_of("charge")]

    return (Saga("order").step("reserve", reserve, changes_nothing=True)
            .step("charge", command="payments", changes_nothing=True)
            .step("ship", ship, changes_nothing=True))


def begin(engine: Engine) -> dict:
    started = engine.sagas.start(order(), {"n": 1, "s": "ün"}, id="o-1")
    engine.run_saga(order())
    while (saga := engine.sagas.find("order", "o-1")).step != "charge":
        time.sleep(0.005)  # sleeps: between two looks
    return {"is_new": started.is_new, "status": saga.status, "step": saga.step,
            "fingerprint": saga.fingerprint}


def reply(engine: Engine) -> dict:
    with engine.subscribe("payments", group="bank") as subscription:
        message = subscription.receive(timeout=20)
        engine.sagas.reply(message, {"receipt": "ün"})
        message.ack(wait=True)
    return {"key": message.key, "payload": message.payload.decode()}


def end(engine: Engine) -> dict:
    engine.run_saga(order())
    result = engine.sagas.result("order", "o-1")
    done = [one for one in engine.sagas.timeline("order", "o-1") if one.mark == "done"]
    return {"status": result.saga.status, "context": result.context,
            "done": [[one.step, one.output] for one in done]}


role, url = sys.argv[1:]
with Engine(url) as engine:
    roles = {"publish": publish, "fail": lambda e: consume(e, True), "mend": mend,
             "handle": lambda e: consume(e, False), "append": append, "follow": follow,
             "begin": begin, "reply": reply, "end": end}
    print(json.dumps(roles[role](engine)))
