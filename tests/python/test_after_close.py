"""Every public name of an engine, of its facades and of what they make, after the engine is closed: it is
refused as closed, or answers what it says. A name that is in no list fails."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from conftest import asynchronous

from towline import Engine, Message, NewEvent, Saga, errors

ORDER = Saga("order").step("charge", print, pivot=True)
REMOTE = Saga("remote").step("charge", command="payments", changes_nothing=True, pivot=True)
ID = "01890a5d-ac96-774b-bcce-b302099a8057"
CLOSED = errors.ClosedError


@dataclass
class Made:
    """Of an engine, while it was open."""

    engine: Any
    consumer: Any
    subscription: Any
    reader: Any
    runner: Any
    feed: Any
    said: Any
    command: Any


# What is called, and what comes of it: an error's class, or a check of what it returns.
Entry = tuple[Callable[[Made], Any], Any]


def returns(value: Any) -> Callable[[Any], bool]:
    return lambda got: bool(got == value)


def is_there(value: Any) -> bool:
    return value is not None


ENGINE: dict[str, Entry] = {
    "backlog": (lambda made: made.engine.backlog(), CLOSED),
    "blocked_keys": (lambda made: made.engine.blocked_keys("g", "a"), CLOSED),
    "cancel": (lambda made: made.engine.cancel(ID), CLOSED),
    "cancel_batch": (lambda made: made.engine.cancel_batch([ID]), CLOSED),
    "close": (lambda made: made.engine.close(), returns(0)),
    "consume": (lambda made: made.engine.consume("a", print, group="g"), CLOSED),
    "conversations": (lambda made: made.engine.conversations, is_there),
    "dead_letter_groups": (lambda made: made.engine.dead_letter_groups(), CLOSED),
    "dead_letters": (lambda made: made.engine.dead_letters(), CLOSED),
    "declare_topic": (lambda made: made.engine.declare_topic("a"), CLOSED),
    "discard_dead_letter": (lambda made: made.engine.discard_dead_letter(ID), CLOSED),
    "event_store": (lambda made: made.engine.event_store, is_there),
    "find_dead_letter": (lambda made: made.engine.find_dead_letter(ID), CLOSED),
    "findings": (lambda made: made.engine.findings(), CLOSED),
    "health": (lambda made: made.engine.health(), CLOSED),
    "on_alert": (lambda made: made.engine.on_alert(print), returns(None)),
    "once": (lambda made: made.engine.once("k", lambda: 1), CLOSED),
    "pending": (lambda made: made.engine.pending(), CLOSED),
    "publish": (lambda made: made.engine.publish("a", b""), CLOSED),
    "publish_batch": (lambda made: made.engine.publish_batch([]), CLOSED),
    "publish_with_retry": (lambda made: made.engine.publish_with_retry("a", b""), CLOSED),
    "redrive": (lambda made: made.engine.redrive(ID), CLOSED),
    "redrive_all": (lambda made: made.engine.redrive_all(), CLOSED),
    "release_key": (lambda made: made.engine.release_key("g", "a", "k"), CLOSED),
    "reschedule": (lambda made: made.engine.reschedule(ID, 2e9), CLOSED),
    "run_saga": (lambda made: made.engine.run_saga(ORDER), CLOSED),
    "sagas": (lambda made: made.engine.sagas, is_there),
    "settle_down": (lambda made: made.engine.settle_down(), CLOSED),
    "statistics": (lambda made: made.engine.statistics(), CLOSED),
    "subscribe": (lambda made: made.engine.subscribe("a", group="h").receive(), CLOSED),
}
# They register for an opening that does not come again.
ENGINE_OF_ASYNCIO: dict[str, Entry] = {
    **ENGINE,
    "consumer": (lambda made: made.engine.consumer("a", group="g")(print), returns(print)),
    "event_handler": (lambda made: made.engine.event_handler("reader")(print), returns(print)),
    "open": (lambda made: made.engine.open(), errors.InvalidArgumentError),
    "saga": (lambda made: made.engine.saga(ORDER), returns(ORDER)),
}
CONSUMER: dict[str, Entry] = {
    "close": (lambda made: made.consumer.close(), CLOSED),
    "drain": (lambda made: made.consumer.drain(), CLOSED),
    "pause": (lambda made: made.consumer.pause(), CLOSED),
    "resume": (lambda made: made.consumer.resume(), CLOSED),
    "set_concurrency": (lambda made: made.consumer.set_concurrency(2), CLOSED),
    "statistics": (lambda made: made.consumer.statistics(), CLOSED),
}
SUBSCRIPTION: dict[str, Entry] = {
    "close": (lambda made: made.subscription.close(), returns(0)),
    "drain": (lambda made: made.subscription.drain(), CLOSED),
    "pause": (lambda made: made.subscription.pause(), CLOSED),
    "receive": (lambda made: made.subscription.receive(), returns(None)),
    "resume": (lambda made: made.subscription.resume(), CLOSED),
    "set_concurrency": (lambda made: made.subscription.set_concurrency(2), CLOSED),
    "statistics": (lambda made: made.subscription.statistics(), CLOSED),
}
SUBSCRIPTION_OF_ASYNCIO: dict[str, Entry] = {
    **SUBSCRIPTION,
    "aclose": (lambda made: made.subscription.aclose(), returns(None)),
}
READER: dict[str, Entry] = {
    "checkpoint": (lambda made: made.reader.checkpoint(1), CLOSED),
    "close": (lambda made: made.reader.close(), returns(True)),
    "receive": (lambda made: made.reader.receive(), CLOSED),
    "statistics": (lambda made: made.reader.statistics(), CLOSED),
}
RUNNER: dict[str, Entry] = {
    "close": (lambda made: made.runner.close(), returns(0)),
    "statistics": (lambda made: made.runner.statistics(), CLOSED),
}
FEED: dict[str, Entry] = {
    "begin": (lambda made: made.feed.begin("c", 5), returns(None)),
    "given": (lambda made: made.feed.given("other"), returns(None)),
    "next": (lambda made: made.feed.next("c"), CLOSED),
    "offer": (lambda made: made.feed.offer(made.said), CLOSED),
}
EVENT_STORE: dict[str, Entry] = {
    "append": (lambda made: made.engine.event_store.append("s", [NewEvent("t", b"")]), CLOSED),
    "find_snapshot": (lambda made: made.engine.event_store.find_snapshot("s"), CLOSED),
    "find_stream": (lambda made: made.engine.event_store.find_stream("s"), CLOSED),
    "read": (lambda made: made.engine.event_store.read("s"), CLOSED),
    "read_all": (lambda made: made.engine.event_store.read_all(), CLOSED),
    "read_backwards": (lambda made: made.engine.event_store.read_backwards("s"), CLOSED),
    "save_snapshot": (lambda made: made.engine.event_store.save_snapshot("s", 1, b""), CLOSED),
    "stream_to": (lambda made: made.engine.event_store.stream_to("a", name="x"), CLOSED),
    "streams": (lambda made: made.engine.event_store.streams(), CLOSED),
    "subscribe": (lambda made: made.engine.event_store.subscribe("other"), CLOSED),
    "truncate": (lambda made: made.engine.event_store.truncate("s", 1), CLOSED),
}
CONVERSATIONS: dict[str, Entry] = {
    "acknowledge": (lambda made: made.engine.conversations.acknowledge("u", "c", "one", 1), CLOSED),
    "append": (lambda made: made.engine.conversations.append("one", "me", b""), CLOSED),
    "feed": (lambda made: made.engine.conversations.feed("u", "c"), is_there),
    "find": (lambda made: made.engine.conversations.find("one"), CLOSED),
    "messages_since": (lambda made: made.engine.conversations.messages_since("one"), CLOSED),
    "missed": (lambda made: made.engine.conversations.missed("u"), CLOSED),
    "note_missed": (lambda made: made.engine.conversations.note_missed("u", "one", 1), CLOSED),
    "position": (lambda made: made.engine.conversations.position("u", "c", "one"), CLOSED),
    "reconnect": (lambda made: made.engine.conversations.reconnect("u", "c"), CLOSED),
    "trim": (lambda made: made.engine.conversations.trim("one", 1), CLOSED),
}
SAGAS: dict[str, Entry] = {
    "annotate": (lambda made: made.engine.sagas.annotate("order", "1", "x"), CLOSED),
    "cancel": (lambda made: made.engine.sagas.cancel("order", "1"), CLOSED),
    "event_message": (lambda made: made.engine.sagas.event_message("a", "1"), is_there),
    "find": (lambda made: made.engine.sagas.find("order", "1"), CLOSED),
    "force": (lambda made: made.engine.sagas.force("order", "1", "completed"), CLOSED),
    "list": (lambda made: made.engine.sagas.list(), CLOSED),
    "publish_event": (lambda made: made.engine.sagas.publish_event("a", "1"), CLOSED),
    "reply": (lambda made: made.engine.sagas.reply(made.command), CLOSED),
    "reply_failed": (lambda made: made.engine.sagas.reply_failed(made.command, "no"), CLOSED),
    "reply_failed_message": (
        lambda made: made.engine.sagas.reply_failed_message(made.command, "no"), is_there
    ),
    "reply_message": (lambda made: made.engine.sagas.reply_message(made.command), is_there),
    "result": (lambda made: made.engine.sagas.result("order", "1"), CLOSED),
    "retry": (lambda made: made.engine.sagas.retry("order", "1", "charge"), CLOSED),
    "skip": (lambda made: made.engine.sagas.skip("order", "1", "charge"), CLOSED),
    "start": (lambda made: made.engine.sagas.start(ORDER), CLOSED),
    "timeline": (lambda made: made.engine.sagas.timeline("order", "1"), CLOSED),
}
# Of a message that was not settled: that went back when the engine closed.
MESSAGE: dict[str, Entry] = {
    "ack": (lambda made: made.command.ack(), errors.TowlineError),
    "defer": (lambda made: made.command.defer(1), errors.TowlineError),
    "extend": (lambda made: made.command.extend(1), errors.TowlineError),
    "nak": (lambda made: made.command.nak(), errors.TowlineError),
    "progress": (lambda made: made.command.progress(), errors.TowlineError),
    "reject": (lambda made: made.command.reject(), errors.TowlineError),
    "transaction": (lambda made: made.command.transaction(print), errors.TowlineError),
    "value_as": (lambda made: made.command.value_as(bytes), is_there),
}
FACADES = {"event_store": EVENT_STORE, "conversations": CONVERSATIONS, "sagas": SAGAS}
PARTS = {"consumer": CONSUMER, "reader": READER, "runner": RUNNER, "feed": FEED, "command": MESSAGE}


def public(one: Any) -> set[str]:
    return {name for name in dir(type(one)) if not name.startswith("_")}


def tables(made: Made, of_asyncio: bool) -> list[tuple[Any, dict[str, Entry]]]:
    return [
        (made.engine, ENGINE_OF_ASYNCIO if of_asyncio else ENGINE),
        (made.subscription, SUBSCRIPTION_OF_ASYNCIO if of_asyncio else SUBSCRIPTION),
        *((getattr(made.engine, name), table) for name, table in FACADES.items()),
        *((getattr(made, name), table) for name, table in PARTS.items()),
    ]


def checked(made: Made, of_asyncio: bool) -> list[tuple[str, Entry]]:
    """Every entry, when no name is without one."""
    found = []
    for one, table in tables(made, of_asyncio):
        names = public(one)
        if isinstance(one, Message):  # what it is made of can always be read
            names = {name for name in names if callable(getattr(type(one), name))}
        assert names == table.keys(), f"of {type(one).__name__}"
        found += [(f"{type(one).__name__}.{name}", entry) for name, entry in table.items()]
    return found


def wrong(name: str, expected: Any, got: Any) -> str:
    """Empty: it is as expected."""
    if isinstance(expected, type) and issubclass(expected, Exception):
        return "" if isinstance(got, expected) else f"{name}: {got!r}"
    return "" if not isinstance(got, BaseException) and expected(got) else f"{name}: {got!r}"


@asynchronous
async def test_every_call_after_close_is_refused_or_answers_as_it_says(url: str) -> None:
    engine = Engine(url)
    await engine.open()
    commands = engine.subscribe("payments", group="g")
    subscription = engine.subscribe("a", group="h")
    await subscription.__aenter__()
    await engine.sagas.start(REMOTE)
    remote = await engine.run_saga(REMOTE)
    made = Made(
        engine=engine,
        consumer=await engine.consume("a", print, group="g"),
        subscription=subscription,
        reader=await engine.event_store.subscribe("reader"),
        runner=await engine.run_saga(ORDER),
        feed=engine.conversations.feed("u", "c"),
        said=None,
        command=await commands.receive(10),
    )
    await engine.conversations.append("one", "me", b"")
    made.said = (await engine.conversations.messages_since("one")).messages[0]
    assert made.command is not None
    await remote.close()
    await engine.close()
    found = []
    for name, (call, expected) in checked(made, True):
        got: Any = None
        try:
            got = call(made)
            if inspect.isawaitable(got):
                got = await got
        except Exception as error:
            got = error
        found.append(wrong(name, expected, got))
    assert [one for one in found if one] == []


def test_so_is_every_call_of_the_twin(url: str) -> None:
    with Engine(url) as engine:
        commands = engine.subscribe("payments", group="g").__enter__()
        engine.sagas.start(REMOTE)
        with engine.run_saga(REMOTE):
            command = commands.receive(10)
        engine.conversations.append("one", "me", b"")
        made = Made(
            engine=engine,
            consumer=engine.consume("a", print, group="g"),
            subscription=engine.subscribe("a", group="h").__enter__(),
            reader=engine.event_store.subscribe("reader"),
            runner=engine.run_saga(ORDER),
            feed=engine.conversations.feed("u", "c"),
            said=engine.conversations.messages_since("one").messages[0],
            command=command,
        )
        assert command is not None
    found = []
    for name, (call, expected) in checked(made, False):
        try:
            got = call(made)
        except Exception as error:
            got = error
        found.append(wrong(name, expected, got))
    assert [one for one in found if one] == []
