"""Any call after any other, on an engine that is open, that is closed, and inside a handler: each answers, or
raises an error of towline, in a bounded time, whatever came before it."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from typing import Any

import pytest
from conftest import asynchronous

from towline import Engine, Message, NewEvent, Saga, SagaCall, errors

# What closes in a thread of its own fails by nobody's hand.
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
# What each call may take: it answers within it, or the pair has failed.
SECONDS_MAX = 10
ID = "01890a5d-ac96-774b-bcce-b302099a8057"


def charge(call: SagaCall) -> None: ...


def handle(message: Message) -> None: ...


ORDER = Saga("order").step("charge", charge, pivot=True)

# The engine, a consumer and a subscription of it. What would wait is given no time.
Call = Callable[[Any, Any, Any], Any]
CALLS: dict[str, Call] = {
    "publish": lambda engine, consumer, subscription: engine.publish("a", b"x", key="k"),
    "publish_batch": lambda engine, consumer, subscription: engine.publish_batch(
        [{"topic": "b", "payload": 1}, {"topic": "not a topic", "payload": 2}]
    ),
    "cancel": lambda engine, consumer, subscription: engine.cancel(ID),
    "once": lambda engine, consumer, subscription: engine.once("key", lambda: 1),
    "consume": lambda engine, consumer, subscription: engine.consume("c", handle, group="g", name="one"),
    "receive": lambda engine, consumer, subscription: subscription.receive(0),
    "close subscription": lambda engine, consumer, subscription: subscription.close(),
    "pause": lambda engine, consumer, subscription: consumer.pause(),
    "drain": lambda engine, consumer, subscription: consumer.drain(0),
    "close consumer": lambda engine, consumer, subscription: consumer.close(),
    "dead_letters": lambda engine, consumer, subscription: engine.dead_letters(count_max=1),
    "append": lambda engine, consumer, subscription: engine.event_store.append("s", [NewEvent("t", b"")], 0),
    "start saga": lambda engine, consumer, subscription: engine.sagas.start(ORDER, id="o"),
    "settle_down": lambda engine, consumer, subscription: engine.settle_down(0),
    "close": lambda engine, consumer, subscription: engine.close(),
}
STATES = ["open", "closed", "inside a handler"]
Names = tuple[str, str]


class Notes:
    """What went wrong."""

    def __init__(self, state: str) -> None:
        self.state = state
        self.wrong: list[str] = []

    def add(self, names: Names, name: str, error: Exception) -> None:
        is_closed = isinstance(error, errors.ClosedError)
        if self.state == "closed":
            is_fine = is_closed
        elif name is names[0]:  # nobody has closed anything
            is_fine = isinstance(error, errors.TowlineError) and not is_closed
        else:
            is_fine = isinstance(error, errors.TowlineError) and not isinstance(error, errors.InternalError)
        if not is_fine:
            self.wrong.append(f"{name} of {' and '.join(names)}: {error!r}")


async def run(names: Names, notes: Notes, *of: Any) -> None:
    for name in names:
        try:
            async with asyncio.timeout(SECONDS_MAX):
                answer = CALLS[name](*of)
                if inspect.isawaitable(answer):
                    await answer
        except Exception as error:
            notes.add(names, name, error)


async def run_in(state: str, names: Names, notes: Notes) -> None:
    engine = Engine("memory:")
    await engine.open()
    done = asyncio.Event()
    subscription = engine.subscribe("b", group="g")

    async def handle_a(message: Message) -> None:
        if message.payload == b"begin":
            await run(names, notes, engine, consumer, subscription)
            done.set()

    consumer = await engine.consume("a", handle_a, group="g", concurrency=2)
    if state == "inside a handler":
        await engine.publish("a", b"begin")
        async with asyncio.timeout(2 * SECONDS_MAX):
            await done.wait()
    else:
        if state == "closed":
            await engine.close(0)
        await run(names, notes, engine, consumer, subscription)
    async with asyncio.timeout(SECONDS_MAX):
        await engine.close(0)


def run_twin_in(state: str, names: Names, notes: Notes) -> None:
    engine = Engine("memory:").__enter__()
    done = threading.Event()
    subscription = engine.subscribe("b", group="g")

    def run_both() -> None:
        for name in names:
            try:
                CALLS[name](engine, consumer, subscription)
            except Exception as error:
                notes.add(names, name, error)
        done.set()

    def handle_a(message: Message) -> None:
        if message.payload == b"begin":
            run_both()

    consumer = engine.consume("a", handle_a, group="g", concurrency=2)
    if state == "inside a handler":
        engine.publish("a", b"begin")
    else:
        if state == "closed":
            engine.close(0)
        threading.Thread(target=run_both, daemon=True).start()
    if not done.wait(2 * SECONDS_MAX):
        raise TimeoutError(f"{' then '.join(names)} do not come back")
    engine.close(0)


@pytest.mark.parametrize("first", CALLS)
@pytest.mark.parametrize("state", STATES)
@asynchronous
async def test_any_call_after_any_other_answers_or_is_refused(state: str, first: str) -> None:
    notes = Notes(state)
    for second in CALLS:
        await run_in(state, (first, second), notes)
    assert notes.wrong == []


@pytest.mark.parametrize("first", CALLS)
@pytest.mark.parametrize("state", STATES)
def test_so_it_does_with_the_twin(state: str, first: str) -> None:
    notes = Notes(state)
    for second in CALLS:
        run_twin_in(state, (first, second), notes)
    assert notes.wrong == []
