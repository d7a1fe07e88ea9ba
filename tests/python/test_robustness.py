"""What one handler, one logger or one caller does wrong costs nobody else anything, and nothing is lost."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import asynchronous, eventually, eventually_async

from towline import Defer, Engine, Retry, Subscription, Transaction, errors

QUICK: Any = {"retry": {"kind": "fixed", "initial_delay": 0.01, "jitter": "none", "max_attempts": 3}}
ODD: dict[str, Any] = {
    "surrogate": lambda: FileNotFoundError("caf\udce9"),
    "far": lambda: Retry(after=1e30),
    "text": lambda: Retry(after="5"),  # type: ignore[arg-type]
    "nan": lambda: Retry(after=float("nan")),
    "nothing": lambda: Defer(None),  # type: ignore[arg-type]
    "before": lambda: Defer(-5),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("twin", [False, True])
@asynchronous
async def test_an_outcome_that_makes_no_sense_costs_no_other(url: str, kind: str, twin: bool) -> None:
    def handle(what: str) -> None:
        if what == "odd":
            raise ODD[kind]()

    async def handle_in_loop(what: str) -> None:
        handle(what)

    def all_came_to_an_end(consumer: Any) -> bool:
        statistics = consumer.statistics()
        return statistics.acked == 5 and statistics.running == 0

    options: Any = {"group": "g", "concurrency": 6, "breaker": {"enabled": False}, **QUICK}
    messages = [{"topic": "a", "payload": what} for what in ("odd", *"fffff")]
    if twin:
        with Engine(url) as engine:
            waited = engine.consume("a", handle, **options)
            engine.publish_batch(messages)
            assert eventually(lambda: all_came_to_an_end(waited), 5)
    else:
        async with Engine(url) as engine_async:
            consumer = await engine_async.consume("a", handle_in_loop, **options)
            await engine_async.publish_batch(messages)
            assert await eventually_async(lambda: all_came_to_an_end(consumer), 5)


@asynchronous
async def test_a_cancelled_error_that_nobody_asked_for_is_a_failure(url: str) -> None:
    runs = 0

    async def handle() -> None:
        nonlocal runs
        runs += 1
        subtask = asyncio.create_task(asyncio.sleep(60))
        subtask.cancel()
        await subtask

    async with Engine(url) as engine:
        await engine.consume("a", handle, group="g", breaker={"enabled": False}, **QUICK)
        await engine.publish("a", b"")
        while not (found := (await engine.dead_letters()).items):
            assert runs <= 3
            await asyncio.sleep(0.01)  # sleeps: between two looks
    assert runs == 3 and found[0].error_type == "AwaitedCancelled"


class Loud(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise RuntimeError("the disk of the log is full")


@pytest.mark.parametrize("twin", [False, True])
@asynchronous
async def test_a_logging_handler_that_raises_loses_nothing(url: str, twin: bool) -> None:
    logger = logging.getLogger("towline")
    loud = Loud()
    logger.addHandler(loud)
    handled: list[int] = []

    def handle(number: int) -> None:
        handled.append(number)
        if number < 3:
            raise ConnectionError("away")

    async def in_loop(number: int) -> None:
        handle(number)

    breaker: Any = {"throughput_min": 1, "open": 0.05}  # it logs when it opens
    messages = [{"topic": "a", "payload": number} for number in range(40)]
    try:
        if twin:
            with Engine(url) as engine:
                engine.consume("a", handle, group="g", breaker=breaker, **QUICK)
                engine.publish_batch(messages)
                assert eventually(lambda: set(handled) == set(range(40)))
        else:
            async with Engine(url) as engine_async:
                await engine_async.consume("a", in_loop, group="g", breaker=breaker, **QUICK)
                await engine_async.publish_batch(messages)
                assert await eventually_async(lambda: set(handled) == set(range(40)))
    finally:
        logger.removeHandler(loud)


@asynchronous
async def test_two_that_wait_on_a_fresh_subscription_share_one_consumer(url: str) -> None:
    async with Engine(url) as engine:
        subscription = engine.subscribe("a", group="g")
        waiting = [asyncio.create_task(subscription.receive(10)) for _ in range(4)]
        await engine.publish_batch([{"topic": "a", "payload": n} for n in range(4)])
        messages = await asyncio.gather(*waiting)
        assert sorted(message.value for message in messages if message is not None) == [0, 1, 2, 3]
        assert [one.member_count for one in await engine.backlog()] == [1]
        await subscription.aclose()
        assert [one.member_count for one in await engine.backlog()] == [0]


def test_threads_that_wait_on_a_fresh_subscription_share_one_consumer(url: str) -> None:
    with Engine(url) as engine:
        subscription = engine.subscribe("a", group="g")
        threads = [threading.Thread(target=subscription.receive, args=(0.3,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert eventually(lambda: bool(engine.backlog()))
        assert [one.member_count for one in engine.backlog()] == [1]
        for thread in threads:
            thread.join()
        subscription.close()


@asynchronous
async def test_a_consumer_whose_starting_was_cancelled_takes_nothing(url: str) -> None:
    handled: list[int] = []
    async with Engine(url) as engine:
        for _ in range(10):
            starting = asyncio.create_task(engine.consume("a", handled.append, group="g", name="one"))
            await asyncio.sleep(0)
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            while True:
                try:
                    consumer = await engine.consume("a", handled.append, group="g", name="one")
                    break
                except errors.AlreadySubscribedError:  # until the unwanted one is closed
                    await asyncio.sleep(0.005)  # sleeps: between two tries
            await consumer.close()
        await engine.consume("a", handled.append, group="g")
        await engine.publish("a", 1)
        assert await eventually_async(lambda: handled == [1])
        assert len(engine._consumers) == 1, "those that were closed are forgotten"


def test_collecting_an_engine_that_nobody_closed_blocks_nobody(url: str) -> None:
    async def leave_open() -> None:
        engine = Engine(url, drain_timeout=20)
        await engine.open()
        async with engine.subscribe("a", group="g") as subscription:
            await engine.publish("a", b"")
            assert await subscription.receive(10) is not None
            await engine.publish("a", b"")

    asyncio.run(leave_open())
    begin = time.monotonic()
    gc.collect()
    assert time.monotonic() - begin < 1


@asynchronous
async def test_closing_gives_back_what_a_subscription_holds_at_once(url: str) -> None:
    async with Engine(url, drain_timeout=20) as engine:
        subscription: Subscription = engine.subscribe("a", group="g")
        async with subscription:
            await engine.publish_batch([{"topic": "a", "payload": n} for n in range(4)])
            assert await subscription.receive(10) is not None
            waiter = asyncio.create_task(engine.subscribe("b", group="g").receive())
            begin = time.monotonic()
            await subscription.close()
            assert await subscription.receive() is None
            assert time.monotonic() - begin < 2
            assert [one.waiting for one in await engine.backlog() if one.topic == "a"] == [4]
            begin = time.monotonic()
            await engine.close()
            assert time.monotonic() - begin < 2
            assert await waiter is None


@asynchronous
async def test_a_message_whose_time_ran_out_in_the_queue_is_not_handed_out(url: str) -> None:
    async with Engine(url) as engine:
        async with engine.subscribe("a", group="g", handler_timeout=0.2, breaker={"enabled": False},
                                    retry={"kind": "fixed", "initial_delay": 0.01}) as subscription:
            await engine.publish_batch([{"topic": "a", "payload": n} for n in range(3)])
            first = await subscription.receive(10)
            assert first is not None
            await asyncio.sleep(0.4)  # sleeps: so long that the others' time is over
            for _ in range(2):
                message = await subscription.receive(10)
                assert message is not None
                message.ack()  # raises for a message that is no longer ours


@asynchronous
async def test_a_transaction_in_a_thread_settles_in_the_loop(tmp_path: Path) -> None:
    async with Engine(f"sqlite:{tmp_path}/store.db") as engine:
        async with engine.subscribe("a", group="g", concurrency=2) as subscription:
            await engine.publish_batch([{"topic": "a", "payload": n} for n in range(20)])

            def body(transaction: Transaction) -> None:
                transaction.execute("CREATE TABLE IF NOT EXISTS effect(n)")

            for _ in range(20):
                message = await subscription.receive(10)
                assert message is not None
                await asyncio.to_thread(message.transaction, body)


@asynchronous
async def test_statements_of_a_transaction_do_not_hold_up_the_loop(tmp_path: Path) -> None:
    slow = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000000)"
        " SELECT max(i) FROM n"
    )
    async with Engine(f"sqlite:{tmp_path}/store.db") as engine:
        async with engine.subscribe("a", group="g") as subscription:
            await engine.publish("a", b"")
            message = await subscription.receive(10)
            assert message is not None
            longest = 0.0
            begin = last = time.monotonic()

            def body(transaction: Transaction) -> None:
                transaction.execute(slow)

            work = asyncio.create_task(asyncio.to_thread(message.transaction, body))
            while not work.done():
                await asyncio.sleep(0.005)  # sleeps: the loop's other work
                now = time.monotonic()
                longest, last = max(longest, now - last), now
            await work
            assert longest < (last - begin) / 2


@asynchronous
async def test_a_key_whose_caller_was_cancelled_is_free(url: str) -> None:
    async def run() -> int:
        return 1

    async with Engine(url) as engine:
        for number in range(50):
            asking = asyncio.create_task(engine.once(f"key-{number}", run))
            await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        for number in range(50):
            assert await engine.once(f"key-{number}", run, wait_max=5) == 1


@asynchronous
async def test_a_higher_concurrency_has_the_threads_for_it(url: str) -> None:
    lock = threading.Lock()
    running = most = 0

    def handle() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)  # sleeps: its work, so that several overlap
        with lock:
            running -= 1

    async with Engine(url) as engine:
        consumer = await engine.consume("a", handle, group="g")
        await engine.publish("a", b"")
        await engine.settle_down()
        await consumer.set_concurrency(6)
        await engine.publish_batch([{"topic": "a", "payload": b""}] * 60)
        await engine.settle_down(20)
    assert most == 6


def test_threads_of_closed_consumers_are_given_back(url: str) -> None:
    with Engine(url) as engine:
        before = threading.active_count()
        for _ in range(10):
            consumer = engine.consume("a", lambda: None, group="g")
            engine.publish("a", b"")
            engine.settle_down()
            consumer.close()
        assert eventually(lambda: threading.active_count() <= before + 1)


def test_a_worker_with_a_stuck_plain_handler_ends_at_the_signal(tmp_path: Path) -> None:
    code = """
        import os, signal, threading, time
        from towline import Engine
        from towline.__main__ import serve
        import asyncio
        engine = Engine("memory:", drain_timeout=0.3)
        @engine.consumer("a", group="g")
        def handle() -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        async def main() -> None:
            serving = asyncio.create_task(serve(engine, None))
            while engine._native is None or not engine._consumers:
                await asyncio.sleep(0.01)
            await engine.publish("a", b"")
            await serving
        asyncio.run(main())
    """
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=tmp_path,
    )
    assert done.returncode == 0 and "1 handlers did not end in time" in done.stderr, done.stderr
    assert time.monotonic() - begin < 10


