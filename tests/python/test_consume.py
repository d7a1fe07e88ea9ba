"""Handlers: how they are called, what their ending means, and that a slow one disturbs nobody."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import dataclasses
import gc
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import asynchronous, eventually_async

from towline import Defer, Engine, Message, PayloadError, Reject, Retry, errors
from towline.testing import VirtualClock

AT_ONCE: dict[str, Any] = {"kind": "fixed", "initial_delay": 0, "max_attempts": 3}


@dataclasses.dataclass
class Item:
    name: str
    count: int = 1


@dataclasses.dataclass
class Order:
    id: str
    items: list[Item]
    note: str | None = None


@asynchronous
async def test_a_handler_gets_the_payload_as_it_is_annotated(url: str) -> None:
    got: list[Any] = []
    engine = Engine(url)

    @engine.consumer("orders", group="model")
    async def by_model(order: Order) -> None:
        got.append(order)

    @engine.consumer("orders", group="dict")
    async def by_dict(order: dict[str, Any], message: Message) -> None:
        got.append((order, message.topic))

    @engine.consumer("orders", group="bytes")
    async def by_bytes(data: bytes) -> None:
        got.append(data)

    @engine.consumer("orders", group="plain")
    def in_a_thread(order) -> None:  # type: ignore[no-untyped-def]
        got.append((type(order), threading.current_thread().name.startswith("towline-handler")))

    @engine.consumer("orders", group="nothing")
    async def without() -> None:
        got.append("nothing")

    async with engine:
        order = Order("1", [Item("book", 2), Item("pen")])
        await engine.publish("orders", order)
        await engine.settle_down()
    assert len(got) == 5
    assert order in got
    assert (dataclasses.asdict(order), "orders") in got
    assert (dict, True) in got
    assert "nothing" in got
    assert any(isinstance(one, bytes) and one.startswith(b'{"id":"1"') for one in got)


@asynchronous
async def test_what_cannot_be_read_is_a_dead_letter_at_once(url: str) -> None:
    async with Engine(url) as engine:

        async def handle(order: Order) -> None:
            raise AssertionError("never called")

        await engine.consume("orders", handle, group="g", retry=AT_ONCE)
        await engine.publish("orders", {"id": "1"})
        await engine.publish("orders", b"{", content_type="application/json")
        await engine.settle_down()
        entries = (await engine.dead_letters()).items
        assert [entry.error_type for entry in entries] == ["PayloadError"] * 2
        assert [(entry.reason, entry.attempt) for entry in entries] == [("permanent", 1)] * 2
        assert {entry.error_message for entry in entries} >= {
            "the payload has no 'items', which Order needs"
        }
    with pytest.raises(PayloadError):
        await Engine(url).publish("a", object())


@asynchronous
async def test_the_ending_of_a_handler_decides(url: str) -> None:
    attempts: dict[str, int] = {}

    async def handle(what: str, message: Message) -> None:
        attempts[what] = message.attempt
        if what == "fails":
            raise ValueError("no such customer")
        if what == "rejects":
            raise Reject("of no use")
        if what == "retries" and message.attempt < 3:
            raise Retry("again", after=0)
        if what == "defers" and not deferred:
            deferred.append(1)
            raise Defer(0)

    deferred: list[int] = []
    async with Engine(url) as engine:
        await engine.consume("a", handle, group="g", retry=AT_ONCE, breaker={"enabled": False})
        for what in ("returns", "fails", "rejects", "retries", "defers"):
            await engine.publish("a", what)
        await engine.settle_down()
        entries = {entry.error_type: entry for entry in (await engine.dead_letters()).items}
    assert attempts == {"returns": 1, "fails": 3, "rejects": 1, "retries": 3, "defers": 1}
    assert entries.keys() == {"ValueError", "Rejected"}
    assert entries["ValueError"].reason == "exhausted"
    assert entries["ValueError"].error_message == "no such customer"
    assert "in handle" in entries["ValueError"].error_stack
    assert entries["Rejected"].reason == "manual" and entries["Rejected"].error_message == "of no use"


@asynchronous
async def test_whatever_is_raised_is_a_failed_attempt(url: str) -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    class Base(BaseException):
        pass

    async def handle(what: str) -> None:
        if what == "silent":
            raise Silent
        raise Base("of its own")

    async with Engine(url) as engine:
        await engine.consume("a", handle, group="g", retry={"max_attempts": 1}, breaker={"enabled": False})
        await engine.publish_batch([{"topic": "a", "payload": what} for what in ("silent", "base")])
        await engine.settle_down()
        entries = {entry.error_type.rsplit(".")[-1]: entry for entry in (await engine.dead_letters()).items}
    assert entries["Silent"].error_message == "(the text of this Silent could not be made)"
    assert entries["Base"].error_message == "of its own"


@asynchronous
async def test_at_most_concurrency_handlers_run_at_once(url: str) -> None:
    running = peak = done = 0

    async def handle() -> None:
        nonlocal running, peak, done
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0.001)  # sleeps: to overlap with others
        running -= 1
        done += 1

    async with Engine(url) as engine:
        consumer = await engine.consume("a", handle, group="g", concurrency=5)
        await engine.publish_batch([{"topic": "a", "payload": b""}] * 200)
        await engine.settle_down()
        assert consumer.statistics().acked == 200
        assert consumer.statistics().running_max <= 5
    assert done == 200 and 1 < peak <= 5


@asynchronous
async def test_settling_can_wait_until_it_is_durable(url: str) -> None:
    async with Engine(url) as engine, engine.subscribe("a", group="g") as subscription:
        await engine.publish_batch([{"topic": "a", "payload": n} for n in range(4)])
        acked, rejected, put_off, failed = [await subscription.receive(10) for _ in range(4)]
        assert acked and rejected and put_off and failed
        await acked.ack(wait=True)
        assert subscription.statistics().acked == 1
        await rejected.reject("of no use", wait=True)
        assert [one.error_message for one in (await engine.dead_letters()).items] == ["of no use"]
        await put_off.defer(60, wait=True)
        await failed.nak(60, wait=True)
        statistics = subscription.statistics()
        assert (statistics.deferred, statistics.retried, statistics.dead_lettered) == (1, 1, 1)
        for message in (acked, rejected, put_off, failed):
            with pytest.raises(errors.AlreadySettledError):
                await message.ack(wait=True)


@asynchronous
async def test_messages_of_one_key_are_handled_in_order_one_at_a_time(url: str) -> None:
    seen: dict[str, list[int]] = {}
    busy: set[str] = set()

    async def handle(number: int, message: Message) -> None:
        key = message.key
        assert key is not None and key not in busy
        busy.add(key)
        await asyncio.sleep(0)
        busy.discard(key)
        if number % 7 == 0 and message.attempt == 1:
            raise ValueError("once")
        seen.setdefault(key, []).append(number)

    async with Engine(url) as engine:
        await engine.consume("a", handle, group="g", ordering="key", concurrency=10, retry=AT_ONCE,
                             breaker={"enabled": False})
        await engine.publish_batch(
            [{"topic": "a", "payload": number, "key": f"k{number % 5}"} for number in range(200)]
        )
        await engine.settle_down()
    assert seen == {f"k{k}": list(range(k, 200, 5)) for k in range(5)}


@asynchronous
async def test_a_handler_that_is_too_slow_is_cancelled_and_its_late_result_is_void(url: str) -> None:
    attempts: list[int] = []
    cancelled = 0

    async def handle(message: Message) -> None:
        nonlocal cancelled
        attempts.append(message.attempt)
        if message.attempt == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled += 1
                raise

    async with Engine(url) as engine:
        await engine.consume("a", handle, group="g", handler_timeout=0.05, retry=AT_ONCE)
        await engine.publish("a", b"")
        assert await eventually_async(lambda: attempts == [1, 2])
        await engine.settle_down()
    assert cancelled == 1


RIVAL = """
import sys
from towline import Engine

def handle(what: str) -> None:
    print("handled", what, flush=True)

with Engine(sys.argv[1], lease=2) as engine:
    print("open", flush=True)
    sys.stdin.readline()
    engine.consume("a", handle, group="g")
    print("consuming", flush=True)
    sys.stdin.read()
"""


@asynchronous
async def test_a_message_is_nobody_elses_while_the_interpreters_lock_is_held(tmp_path: Path) -> None:
    """For three leases, by a call that does not let go of it; another process consumes meanwhile."""
    url = f"sqlite:{tmp_path}/store.db"
    rival = subprocess.Popen(
        [sys.executable, "-c", RIVAL, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert rival.stdin is not None and rival.stdout is not None
    said, told = rival.stdout, rival.stdin
    handled: list[int] = []

    async def handle(message: Message) -> None:
        handled.append(message.attempt)
        print("consume", file=told, flush=True)
        assert said.readline() == "consuming\n"
        # sleeps: its work. PyDLL does not let go of the lock.
        ctypes.PyDLL(None).usleep(6_100_000)

    with rival:
        async with Engine(url, lease=2) as engine:
            assert await asyncio.to_thread(said.readline) == "open\n"
            consumer = await engine.consume("a", handle, group="g", handler_timeout=30)
            await engine.publish("a", "mine")
            await engine.settle_down()
            statistics = consumer.statistics()
            assert (statistics.acked, statistics.lease_lost, handled) == (1, 0, [1])
            await consumer.close()
            await engine.publish("a", "its own")
            assert await asyncio.to_thread(said.readline) == "handled its own\n", "it would have taken mine"
        told.close()


@asynchronous
async def test_context_variables_reach_the_handler(url: str) -> None:
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")
    request.set("of the caller")
    seen: list[str] = []

    async def handle() -> None:
        seen.append(request.get())
        request.set("changed")

    def plain() -> None:
        seen.append(request.get())

    async with Engine(url) as engine:
        await engine.consume("a", handle, group="g")
        await engine.consume("a", plain, group="h")
        for _ in range(2):
            await engine.publish("a", b"")
            await engine.settle_down()
    assert seen == ["of the caller"] * 4


@asynchronous
async def test_messages_are_settled_by_hand(url: str) -> None:
    async with Engine(url) as engine:
        async with engine.subscribe("a", group="g", concurrency=2, retry=AT_ONCE) as subscription:
            await engine.publish_batch([{"topic": "a", "payload": number} for number in range(3)])
            first = await subscription.receive(10)
            second = await subscription.receive(10)
            assert first is not None and second is not None
            assert await subscription.receive(0.05) is None, "two are out"
            first.ack()
            with pytest.raises(errors.AlreadySettledError):
                first.ack()
            third = await subscription.receive(10)
            assert third is not None and third.value == 2
            second.nak(0)
            again = await subscription.receive(10)
            assert again is not None and again.value == 1 and again.attempt == 2
            again.reject("no")
            third.ack()
            await engine.settle_down()
        assert len((await engine.dead_letters()).items) == 1
        seen = 0
        await engine.publish("b", "x")
        async for message in engine.subscribe("b", group="g"):
            assert message.value == "x"
            message.ack()
            seen += 1
            break
        assert seen == 1


@asynchronous
async def test_a_message_that_nobody_settles_is_handed_out_again(url: str) -> None:
    async with Engine(url) as engine:
        async with engine.subscribe(
            "a", group="g", concurrency=1, handler_timeout=0.05, retry=AT_ONCE
        ) as subscription:
            await engine.publish("a", "x")
            for attempt in (1, 2):
                message = await subscription.receive(10)
                assert message is not None and message.attempt == attempt
            message.ack()
            await engine.settle_down()


@asynchronous
async def test_what_a_subscriber_holds_when_it_leaves_goes_back(url: str) -> None:
    async with Engine(url) as engine:
        await engine.publish("a", "x")
        async with engine.subscribe("a", group="g") as subscription:
            assert await subscription.receive(10) is not None
        async with engine.subscribe("a", group="g") as subscription:
            again = await subscription.receive(10)
            assert again is not None and again.value == "x"
            again.ack()


@asynchronous
async def test_a_handler_transaction_commits_all_or_nothing(tmp_path: Any) -> None:
    outcomes: list[str] = []

    def handle(number: int, message: Message) -> None:
        def body(transaction: Any) -> None:
            transaction.execute("CREATE TABLE IF NOT EXISTS effect(n INTEGER)")
            transaction.execute("INSERT INTO effect VALUES(?)", [number])
            transaction.publish("done", number)
            if message.attempt == 1:
                raise ValueError("before the commit")
            outcomes.append(str(transaction.execute("SELECT n FROM effect")))

        message.transaction(body)

    async with Engine(f"sqlite:{tmp_path}/store.db") as engine:
        await engine.consume("a", handle, group="g", retry=AT_ONCE)
        async with engine.subscribe("done", group="g") as done:
            await engine.publish("a", 7)
            message = await done.receive(10)
            assert message is not None and message.value == 7
            message.ack()
            assert await done.receive(0.1) is None
    assert outcomes == ["[(7,)]"]


@asynchronous
async def test_a_consumer_is_paused_drained_and_closed(url: str) -> None:
    handled: list[int] = []

    async def handle(number: int) -> None:
        handled.append(number)

    async with Engine(url) as engine:
        consumer = await engine.consume("a", handle, group="g")
        await consumer.pause()
        await engine.publish("a", 1)
        await consumer.drain(10)
        assert consumer.statistics().paused
        await consumer.resume()
        await engine.settle_down()
        assert handled == [1]
        assert await consumer.close() == 0
        await engine.publish("a", 2)
        assert handled == [1]
        with pytest.raises(errors.ClosedError):
            await consumer.pause()


@asynchronous
async def test_a_handler_with_a_parameter_nobody_knows_is_refused(url: str) -> None:
    def handler(payload: bytes, other: int) -> None: ...

    with pytest.raises(TypeError, match="parameter 'other'"):
        await Engine(url).consume("a", handler, group="g")
    with pytest.raises(TypeError, match="a handler is a function"):
        Engine(url).consumer("a")(5)  # type: ignore[type-var]


@asynchronous
async def test_a_retry_waits_on_the_virtual_clock(url: str) -> None:
    clock = VirtualClock()
    attempts: list[int] = []

    async def handle(message: Message) -> None:
        attempts.append(message.attempt)
        if message.attempt < 3:
            raise ConnectionError("away")

    async with Engine(url, clock=clock) as engine:
        await engine.consume("a", handle, group="g", retry={"jitter": "none"})
        await engine.publish("a", b"")
        await engine.settle_down()
        assert attempts == [1]
        await clock.advance_and_settle(engine, 1)
        assert attempts == [1, 2]
        await clock.advance_and_settle(engine, 1.9)
        assert attempts == [1, 2]
        await clock.advance_and_settle(engine, 0.1)
        assert attempts == [1, 2, 3]


@pytest.mark.parametrize("kind", [GeneratorExit, KeyError])
@asynchronous
async def test_whatever_a_handler_raises_is_a_failed_attempt(url: str, kind: type[BaseException]) -> None:
    said: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: said.append(what))

    async def handle() -> None:
        raise kind("no")

    async with Engine(url) as engine:
        await engine.consume("a", handle, group="g", retry={"max_attempts": 1})
        await engine.publish("a", b"")
        found: list[Any] = []
        while not found:
            found = (await engine.dead_letters()).items
        assert found[0].error_type == kind.__name__ and found[0].reason == "exhausted"
    gc.collect()
    assert said == []


@asynchronous
async def test_the_errors_of_a_message_say_of_which(url: str) -> None:
    async with Engine(url) as engine:
        await engine.publish("a", b"")
        async with engine.subscribe("a", group="g") as subscription:
            message = await subscription.receive(20)
            assert message is not None
            message.ack()
            calls: list[Any] = [message.ack, message.nak, lambda: message.extend(5), message.progress]
            for call in calls:
                with pytest.raises((errors.AlreadySettledError, errors.LeaseLostError)) as told:
                    call()
                context = {"topic": "a", "message_id": message.id, "attempt": 1}
                assert context.items() <= told.value.context.items()
