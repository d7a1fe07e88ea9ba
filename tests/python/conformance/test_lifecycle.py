"""Closing: from any thread and from a handler, twice, with handlers that never return; forks and deaths of
the process: nothing is lost, and nobody is blamed for another's."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from conftest import asynchronous, eventually

from conformance.suite import (
    LEASE,
    Recorder,
    Store,
    all_settled,
    dead_letters,
    make_group,
    member,
    publish_numbers,
    waiting,
)
from towline import Engine, Message, errors

UNKNOWN = "01020300-0000-0000-0000-000000000000"


@asynchronous
async def test_conf_66_every_call_after_close_answers_closed(store: Store) -> None:
    seen = Recorder()
    async with store.open() as engine:
        consumer = await engine.consume("orders", seen, **member())
        await engine.publish("orders", "p")
        assert await seen.reaches(1)
        await engine.close()
        calls: list[Callable[[], Coroutine[Any, Any, Any]]] = [
            lambda: engine.publish("orders", "late"),
            lambda: engine.publish_batch([{"topic": "orders", "payload": "late"}]),
            lambda: engine.publish_with_retry("orders", "late"),
            lambda: engine.cancel(UNKNOWN),
            lambda: engine.cancel_batch([UNKNOWN]),
            lambda: engine.reschedule(UNKNOWN, 0),
            engine.pending,
            lambda: engine.declare_topic("orders"),
            lambda: engine.consume("orders", seen, group="g"),
            engine.subscribe("orders", group="g").receive,
            engine.backlog,
            lambda: engine.blocked_keys("g", "orders"),
            lambda: engine.release_key("g", "orders", "k"),
            engine.dead_letters,
            lambda: engine.find_dead_letter(UNKNOWN),
            engine.dead_letter_groups,
            lambda: engine.redrive(UNKNOWN),
            engine.redrive_all,
            lambda: engine.discard_dead_letter(UNKNOWN),
            lambda: engine.once("key", lambda: asyncio.sleep(0)),
            engine.statistics,
            engine.health,
            engine.settle_down,
            consumer.pause,
            consumer.resume,
            consumer.drain,
            lambda: consumer.set_concurrency(2),
        ]
        for call in calls:
            with pytest.raises(errors.ClosedError):
                await call()
        assert await engine.close() == 0
    assert seen.count == 1


def test_conf_66_closing_twice_and_from_four_threads_is_one_closing(store: Store) -> None:
    store.keep()
    for _ in range(5):
        running, late = threading.Semaphore(4), []
        closed = threading.Event()
        started = threading.Event()

        def handle() -> None:
            with running:
                started.set()
                if closed.is_set():
                    late.append(1)
                time.sleep(0)  # lets other threads run

        def close() -> None:
            assert engine.close() == 0
            closed.set()

        with Engine(store.url) as engine:
            engine.consume("orders", handle, **member(concurrency=4))
            engine.publish_batch([{"topic": "orders", "payload": "p"}] * 200)
            assert started.wait(10)
            closers = [threading.Thread(target=close) for _ in range(4)]
            for closer in closers:
                closer.start()
            for closer in closers:
                closer.join()
            assert engine.close() == 0
        assert not late, "a handler started after close() returned"


@asynchronous
async def test_conf_66_closing_a_consumer_leaves_the_engine_and_the_others_alone(store: Store) -> None:
    first, second = Recorder(), Recorder()
    async with store.open() as engine:
        leaver = await engine.consume("orders", first, **member("a"))
        await engine.consume("orders", second, **member("b"))
        assert await leaver.close() == 0
        assert await leaver.close() == 0
        await publish_numbers(engine, "orders", 10)
        assert await second.reaches(10)
        assert first.count == 0
        with pytest.raises(errors.ClosedError):
            await leaver.resume()


@pytest.mark.only("sqlite")
@asynchronous
async def test_conf_67_a_handler_may_close_the_engine_and_its_message_is_settled(store: Store) -> None:
    async def close_it(message: Message) -> None:
        begin = time.monotonic()
        await engine.close()
        assert time.monotonic() - begin < 1

    seen = Recorder(close_it)
    async with store.open(lease=LEASE) as engine:
        await engine.consume("orders", seen, **member())
        await publish_numbers(engine, "orders", 1)
        assert await seen.reaches(1)
        await engine.close()
        with pytest.raises(errors.ClosedError):
            await engine.statistics()
    async with store.open(lease=LEASE) as engine:
        await engine.consume("orders", seen, **member())
        assert await seen.stays(1, 2 * LEASE), "its message was not acknowledged"


@pytest.mark.only("sqlite")
@asynchronous
async def test_conf_67_a_process_whose_handler_closes_the_engine_exits_cleanly(store: Store) -> None:
    async with store.open() as engine:
        await make_group(engine, "orders")
        await publish_numbers(engine, "orders", 1)
        assert await store.child("close").wait() == 0
        assert store.ledger.count("closed after") == 1
        assert await all_settled(engine, "orders"), "its message was not acknowledged"


def test_conf_68_close_returns_at_its_deadline_and_reports_the_stuck_handler(store: Store) -> None:
    store.keep()
    let_go = threading.Event()
    started: list[str] = []

    def handle(number: str) -> None:
        started.append(number)
        if number == "0":
            let_go.wait(30)

    with Engine(store.url, lease=LEASE) as engine:
        engine.consume("orders", handle, **member(concurrency=2))
        engine.publish_batch([{"topic": "orders", "payload": str(number)} for number in range(5)])
        assert eventually(lambda: len(started) == 5)
        begin = time.monotonic()
        assert engine.close(0.5) == 1
        assert 0.45 <= time.monotonic() - begin <= 1.5
    seen: list[str] = []
    with Engine(store.url, lease=LEASE) as engine:
        engine.consume("orders", seen.append, **member())
        assert eventually(lambda: seen == ["0"]), "its message is not lost: it goes to the next one"
        let_go.set()
        assert not eventually(lambda: len(seen) > 1, LEASE), "the late result changed something"


@asynchronous
async def test_conf_69_many_starts_and_stops_under_traffic_leak_nothing(store: Store) -> None:
    seen = Recorder()
    done = False

    async def publish(engine: Engine) -> None:
        number = 0
        while not done:
            await publish_numbers(engine, "stress", 5, 5 * number)
            number += 1

    async def start_and_stop(engine: Engine, number: int) -> None:
        for round in range(20):
            if round % 10 == number:
                async with store.open() as own:
                    await own.consume("stress", seen, **member())
                    await own.publish("other", "p")
            else:
                await (await engine.consume("stress", seen, **member())).close()

    async with store.open() as engine:
        await make_group(engine, "stress")
        publisher = asyncio.create_task(publish(engine))
        await asyncio.gather(*(start_and_stop(engine, number) for number in range(10)))
        done = True
        await publisher
        rest = await engine.consume("stress", seen, **member())
        assert await all_settled(engine, "stress")
        await rest.close()
        assert (await engine.health()).ok
    assert len(seen.times) == seen.count, "something was handled twice"


@pytest.mark.only("sqlite")
@asynchronous
async def test_conf_85_in_the_child_of_a_fork_the_engine_is_dead_and_in_the_parent_alive(
    store: Store,
) -> None:
    async with store.open() as engine:
        await make_group(engine, "orders")
        assert await store.child("fork").wait() == 0
        assert store.ledger.lines == ["handled 20"]
        assert await waiting(engine, "orders") == 0


@pytest.mark.only("sqlite")
@asynchronous
async def test_conf_04_what_was_acknowledged_stays_so_when_the_process_dies_at_once(store: Store) -> None:
    seen = Recorder()
    async with store.open(lease=LEASE) as engine:
        await make_group(engine, "orders")
        for number in range(5):
            await publish_numbers(engine, "orders", 1, number)
            assert await store.child("ack").wait() == -signal.SIGKILL
            assert store.ledger.lines[-1] == f"acked {number}"
        await engine.consume("orders", seen, **member())
        assert await seen.stays(0, 2 * LEASE)
        assert await waiting(engine, "orders") == 0


@pytest.mark.only("sqlite")
@asynchronous
async def test_conf_36_a_message_that_kills_its_process_ends_in_the_dead_letters(store: Store) -> None:
    async with store.open() as engine:
        await make_group(engine, "orders")
        await engine.publish("orders", "kill")
        deaths = await work_until_quiet(store, engine)
        (entry,) = await dead_letters(engine, "orders")
        assert (entry.reason, entry.payload, entry.crashes) == ("crash_loop", b"kill", deaths)
        assert store.ledger.count("start kill") == deaths == 3


@pytest.mark.only("sqlite")
@asynchronous
async def test_conf_37_the_neighbours_of_a_killer_are_handled_and_not_blamed(store: Store) -> None:
    innocent = [f"innocent {number}" for number in range(1, 10)]
    async with store.open() as engine:
        await make_group(engine, "orders")
        await engine.publish_batch([{"topic": "orders", "payload": name} for name in ("kill", *innocent)])
        assert await work_until_quiet(store, engine) <= 4
        (entry,) = await dead_letters(engine, "orders")
        assert (entry.reason, entry.payload) == ("crash_loop", b"kill")
    for name in innocent:
        assert store.ledger.count(f"done {name} ") == 1
        assert store.ledger.count(f"done {name} attempt 1 crashes 0") == 1, "charged for its neighbour"


async def work_until_quiet(store: Store, engine: Engine) -> int:
    """Children work one after the other until nothing but dead letters is left; how many died."""
    deaths = 0
    child = store.child("work")
    deadline = time.monotonic() + 30
    while not await dead_letters(engine, "orders") or await waiting(engine, "orders"):
        assert time.monotonic() < deadline
        if child.status is not None:
            deaths += 1
            child = store.child("work")
        await asyncio.sleep(0.01)  # sleeps: between two looks
    assert await all_settled(engine, "orders")
    if child.status is None:
        child.kill()
    return deaths


@pytest.mark.only("sqlite")
@asynchronous
async def test_conf_86_messages_that_come_due_while_their_scheduler_is_killed_fire_once_each(
    store: Store,
) -> None:
    seen, count = Recorder(), 1000
    async with store.open() as engine:
        await make_group(engine, "later")
        start = datetime.now(UTC) + timedelta(seconds=0.3)
        await engine.publish_batch(
            [
                {"topic": "later", "payload": str(n), "due_at": start + timedelta(microseconds=500 * n)}
                for n in range(count)
            ]
        )
    for round in range(6):
        child = store.child("fire")
        await asyncio.sleep(0.01 * (round + 1))  # sleeps: so long it works
        child.kill()
    async with store.open() as engine:
        await engine.consume("later", seen, **member())
        assert await seen.reaches(count)
        assert await seen.stays(count, 0.3)
        assert not (await engine.pending()).items
    assert len(seen.times) == count


