"""One role of the interop test in Python; interop_role_main.cpp and role.mjs are the same in their languages.

python role.py publish|fail|mend|handle|append|follow URL
"""

import json
import sys
import threading

from towline import Engine, Message, NewEvent


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


role, url = sys.argv[1:]
with Engine(url) as engine:
    roles = {"publish": publish, "fail": lambda e: consume(e, True), "mend": mend,
             "handle": lambda e: consume(e, False), "append": append, "follow": follow}
    print(json.dumps(roles[role](engine)))
