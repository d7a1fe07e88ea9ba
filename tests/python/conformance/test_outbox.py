"""The contract for SQL of others, written with Python's own sqlite3 in the process of the engine: two copies
of SQLite on one file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from conftest import asynchronous

from conformance.suite import Recorder, Store, becomes, dead_letters, make_group, member
from towline import Message

pytestmark = pytest.mark.only("sqlite")

ORDER = "INSERT INTO towline_outbox_v1(topic, key, payload) VALUES('orders', ?, ?)"


@contextmanager
def connected(store: Store) -> Iterator[sqlite3.Connection]:
    """As a program has it that knows nothing of the engine."""
    connection = sqlite3.connect(store.path, timeout=30, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


class Unlucky(Exception):
    """What makes a caller roll back."""


def write_orders(store: Store, writer: int, count: int) -> list[str]:
    """Each in a transaction of its own, every third rolled back; now and then with a new connection."""
    committed = []
    for first in range(0, count, 10):
        with connected(store) as connection:
            for number in range(first, min(first + 10, count)):
                order = f"{writer}-{number}"
                try:
                    with transaction(connection):
                        connection.execute("INSERT INTO orders VALUES(?)", [order])
                        connection.execute(ORDER, [f"k{writer}", order])
                        if number % 3 == 1:
                            raise Unlucky
                    committed.append(order)
                except Unlucky:
                    pass
    return committed


@asynchronous
async def test_conf_104_what_was_committed_is_handled_once_and_what_was_rolled_back_never(
    store: Store,
) -> None:
    writers, each = 3, 60
    seen = Recorder()
    async with store.open() as engine:
        with connected(store) as connection:
            connection.execute("CREATE TABLE orders(id TEXT PRIMARY KEY)")
        await engine.consume("orders", seen, **member(ordering="key"))
        # Beside it the engine publishes, so both copies write and read at once.
        done = asyncio.gather(
            *(asyncio.to_thread(write_orders, store, writer, each) for writer in range(writers))
        )
        published = 0
        while not done.done():
            await engine.publish("noise", "n")
            published += 1
        committed = [order for orders in await done for order in orders]
        assert await seen.reaches(len(committed))
        await engine.settle_down()
        assert sorted(seen.payloads) == sorted(committed), "each once"
        for writer in range(writers):
            mine = [int(one.split("-")[1]) for one in seen.payloads if one.startswith(f"{writer}-")]
            assert mine == sorted(mine), "in order of its key"
        with connected(store) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            stored = {order for (order,) in connection.execute("SELECT id FROM orders")}
            assert stored == set(committed) and len(stored) == writers * each * 2 // 3
            assert connection.execute("SELECT count(*) FROM towline_outbox_v1").fetchone() == (0,)
        statistics = await engine.statistics()
        assert (statistics.relayed, statistics.refused) == (len(committed), 0)
        assert statistics.published == published
    # What the engine leaves behind when it closes is whole, too.
    with connected(store) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@asynchronous
async def test_conf_104_what_was_written_while_no_engine_ran_is_published_by_the_next(store: Store) -> None:
    async with store.open() as engine:
        await make_group(engine, "orders")
    with connected(store) as connection:
        connection.execute(ORDER, [None, b"kept"])
    seen = Recorder()
    async with store.open() as engine:
        await engine.consume("orders", seen, **member())
        assert await seen.reaches(1)
    assert seen.payloads == ["kept"]


@asynchronous
async def test_conf_104_a_value_arrives_as_if_it_had_been_published(store: Store) -> None:
    seen: list[object] = []

    async def handle(order: dict[str, int], message: Message) -> None:
        seen.append((order, message.id, message.key, message.headers, message.correlation_id))

    async with store.open() as engine:
        await engine.consume("orders", handle, **member())
        with connected(store) as connection:
            connection.execute(
                "INSERT INTO towline_outbox_v1(topic, key, payload, content_type, headers, message_id, "
                "correlation_id) VALUES('orders', 'ann', ?, 'application/json', ?, ?, 'c-1')",
                ['{"amount": 5}', '{"tenant": "ü"}', "018f0000-0000-7000-8000-000000000001"],
            )
        await becomes(lambda: asyncio.sleep(0, len(seen) == 1))
    assert seen == [
        ({"amount": 5}, "018f0000-0000-7000-8000-000000000001", "ann", {"tenant": "ü"}, "c-1")
    ]


@asynchronous
async def test_conf_104_delays_dedup_ids_and_ids_are_those_of_a_publish(store: Store) -> None:
    seen, id = Recorder(), "018f0000-0000-7000-8000-000000000001"
    async with store.open() as engine:
        await engine.consume("orders", seen, **member())
        with connected(store) as connection, transaction(connection):
            connection.execute(
                "INSERT INTO towline_outbox_v1(topic, payload, message_id, delay_ms) "
                "VALUES('orders', 'later', ?, 3600000)",
                [id],
            )
            for payload in ("one", "again"):
                connection.execute(
                    "INSERT INTO towline_outbox_v1(topic, payload, dedup_id) VALUES('orders', ?, 'd')",
                    [payload],
                )
        assert await seen.reaches(1)
        await engine.settle_down()
        assert seen.payloads == ["one"]
        assert (await engine.publish("orders", "and again", dedup_id="d")).duplicate
        assert await engine.cancel(id) == "done"


@asynchronous
async def test_conf_104_what_sql_can_see_is_refused_and_the_rest_becomes_a_dead_letter(store: Store) -> None:
    async with store.open() as engine:
        with connected(store) as connection:
            for columns, values in (("topic", ("",)), ("topic, headers", ("t", "no JSON"))):
                marks = ", ".join("?" * len(values))
                with pytest.raises(sqlite3.IntegrityError, match="towline_outbox_v1: .* must be"):
                    connection.execute(f"INSERT INTO towline_outbox_v1({columns}) VALUES({marks})", values)
            connection.execute("INSERT INTO towline_outbox_v1(topic, payload) VALUES('amq.x', 'never')")

        async def dead() -> bool:
            return len(await dead_letters(engine)) == 1

        assert await becomes(dead)
        (entry,) = await dead_letters(engine)
        assert (entry.topic, entry.payload, entry.reason) == ("amq.x", b"never", "publish_failed")
        assert (await engine.statistics()).refused == 1


@asynchronous
async def test_conf_105_a_message_is_taken_in_once_however_often_it_is_delivered(store: Store) -> None:
    duplicates = 0

    async with store.open() as engine:
        with connected(store) as connection:

            async def pay(message: Message) -> None:
                nonlocal duplicates
                try:
                    with transaction(connection):
                        connection.execute(
                            'INSERT INTO towline_inbox_v1("group", message_id) VALUES(?, ?)',
                            [message.group, message.id],
                        )
                        connection.execute("INSERT INTO paid VALUES(?)", [message.payload.decode()])
                except sqlite3.IntegrityError as refused:
                    assert "duplicate" in str(refused)
                    duplicates += 1
                if message.attempt == 1:
                    raise Unlucky  # after the commit, so the message comes again

            connection.execute("CREATE TABLE paid(id TEXT)")
            seen = Recorder(pay)
            consumer = await engine.consume("orders", seen, **member())
            for number in range(20):
                await engine.publish("orders", str(number))
            assert await seen.reaches(40)
            await engine.settle_down()
            await consumer.close()
            assert connection.execute("SELECT count(*), count(DISTINCT id) FROM paid").fetchone() == (20, 20)
    assert duplicates == 20
