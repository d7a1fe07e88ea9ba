"""An engine in the wrong event loop or thread: refused before anything happens, and closed all the same."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from conftest import asynchronous, run

from towline import Engine, Message, NewEvent, Saga, errors


@contextmanager
def loop_of_a_thread() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


@asynchronous
async def test_every_call_from_another_loop_is_refused_before_anything_is_sent(url: str) -> None:
    ran: list[str] = []

    async def run() -> int:
        ran.append("once")
        return 1

    async with Engine(url) as engine:
        consumer = await engine.consume("a", lambda: None, group="g")
        subscription = engine.subscribe("b", group="g")
        await subscription.__aenter__()
        order = Saga("order").step("charge", print, pivot=True)
        runner = await engine.run_saga(order)
        reader = await engine.event_store.subscribe("reader")
        feed = engine.conversations.feed("user", "client")
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: engine.publish("b", b"1"),
            lambda: engine.publish_batch([{"topic": "b", "payload": b"1"}]),
            lambda: engine.publish_with_retry("b", b"1"),
            lambda: engine.once("k", run),
            lambda: engine.consume("a", lambda: None, group="h"),
            lambda: engine.event_store.append("s", [NewEvent("t", b"")]),
            lambda: engine.conversations.append("one", "me", b""),
            lambda: engine.sagas.start(order, id="o-1"),
            lambda: engine.run_saga(Saga("other").step("charge", print, pivot=True)).__aenter__(),
            lambda: feed.next("one"),
            lambda: subscription.receive(0),
            subscription.close,
            subscription.aclose,
            consumer.pause,
            consumer.drain,
            consumer.close,
            runner.close,
            reader.receive,
            reader.close,
            engine.settle_down,
            engine.close,
        ]

        async def refused() -> None:
            for call in calls:
                with pytest.raises(errors.InvalidArgumentError, match="run_coroutine_threadsafe"):
                    await call()

        await asyncio.to_thread(asyncio.run, refused())
        assert not ran and not engine._requests
        assert (await engine.event_store.streams()).items == []
        assert await engine.sagas.find("order", "o-1") is None
        assert (await asyncio.to_thread(consumer.statistics)).running == 0
        # Nothing was published, and all goes on in its own loop, also when it is asked from outside.
        loop = asyncio.get_running_loop()
        receipt = await asyncio.to_thread(
            lambda: asyncio.run_coroutine_threadsafe(engine.publish("b", b"2"), loop).result(20)
        )
        message = await subscription.receive(20)
        assert message is not None and message.id == receipt.id
        message.ack()


def test_an_engine_whose_loop_has_ended_is_refused_and_can_be_closed(url: str) -> None:
    engine = Engine(url)
    held: list[Message] = []

    async def use() -> None:
        await engine.open()
        await engine.consume("a", lambda: None, group="g")
        subscription = engine.subscribe("b", group="g")
        await engine.publish("b", b"")
        message = await subscription.receive(20)
        assert message is not None
        held.append(message)

    asyncio.run(use())

    async def publish() -> None:
        with pytest.raises(errors.InvalidArgumentError, match=r"has ended; close\(\) it"):
            await engine.publish("a", b"")
        assert await engine.close() == 1  # what is held unsettled
        with pytest.raises(errors.ClosedError):
            await engine.publish("a", b"")
        assert await engine.close() == 0

    asyncio.run(publish())
    assert asyncio.run(engine.close()) == 0
    assert engine._native is not None and engine._native.closed
    with pytest.raises(errors.TowlineError):
        held[0].ack()

    async def look_again() -> None:
        async with Engine(url) as again:
            if url.startswith("sqlite:"):
                assert {one.topic: one.waiting for one in await again.backlog()} == {"a": 0, "b": 1}

    asyncio.run(look_again())


def test_a_loop_that_was_only_stopped_lets_others_close_too(url: str) -> None:
    loop = asyncio.new_event_loop()
    engine = Engine(url)
    loop.run_until_complete(engine.open())
    assert asyncio.run(engine.close()) == 0
    with pytest.raises(errors.ClosedError):
        loop.run_until_complete(engine.publish("a", b""))
    loop.close()


def test_closing_from_elsewhere_is_refused_while_the_loop_runs(url: str) -> None:
    engine = Engine(url)
    with loop_of_a_thread() as loop:
        asyncio.run_coroutine_threadsafe(engine.open(), loop).result(20)
        with pytest.raises(errors.InvalidArgumentError, match="another event loop"):
            asyncio.run(engine.close())
        publishing = asyncio.run_coroutine_threadsafe(engine.publish("a", b""), loop)
        assert publishing.result(20).acked
        asyncio.run_coroutine_threadsafe(engine.close(), loop).result(20)
        assert asyncio.run(engine.close()) == 0


def test_a_loop_that_knows_no_file_descriptors_is_served_by_a_thread(url: str) -> None:
    done = run(
        """
        import asyncio, sys, threading
        from towline import Engine

        class Loop(asyncio.SelectorEventLoop):
            def add_reader(self, *arguments):
                raise NotImplementedError
            remove_reader = add_reader

        async def main():
            handled = asyncio.Queue()
            async with Engine(sys.argv[1]) as engine:
                assert any(one.name == "towline-pump" for one in threading.enumerate())
                await engine.consume("a", handled.put, group="g")
                receipts = await asyncio.gather(*(engine.publish("a", number) for number in range(50)))
                assert all(one.acked for one in receipts)
                assert sorted([await handled.get() for _ in range(50)]) == list(range(50))
                await engine.settle_down()
                assert [one.waiting + one.in_flight for one in await engine.backlog()][0] == 0
            assert not any(one.name == "towline-pump" for one in threading.enumerate())
            print("end")

        with asyncio.Runner(loop_factory=Loop) as runner:
            runner.run(main())
        """,
        url,
    )
    assert done.returncode == 0 and done.stdout == "end\n", done.stdout + done.stderr
