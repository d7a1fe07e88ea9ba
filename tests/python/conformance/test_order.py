"""Order: per key and group, handlers start in publishing order and never overlap, also over retries, dead
letters and changes of membership; a key that fails holds up itself and nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from conftest import asynchronous, eventually_async

from conformance.suite import (
    TESTS,
    OrderWatch,
    Recorder,
    Store,
    becomes,
    failure,
    make_group,
    member,
    publish_keys,
    publish_numbers,
    reaches,
    retrying,
)
from towline import Message, errors


def failing(*payloads: str, attempts: int = 1000) -> Callable[[Message], None]:
    def fail(message: Message) -> None:
        if message.payload.decode() in payloads and message.attempt <= attempts:
            raise failure("Broken", "not yet")

    return fail


def of_key(seen: Recorder, key: str) -> list[str]:
    return [f"{one.payload.rpartition('/')[2]}#{one.attempt}" for one in seen.all if one.key == key]


@asynchronous
async def test_conf_28_handlers_of_a_key_start_in_publishing_order_among_four_members(store: Store) -> None:
    watch, seen = OrderWatch(), Recorder()

    async def handle(message: Message) -> None:
        async with watch.handling(message):
            seen.note(message)
            await asyncio.sleep(0)

    async with store.open() as engine, store.open() as other:
        for each in (engine, other) * 2:
            await each.consume("orders", handle, ordering="key", **member(concurrency=4))
        for first in range(0, 200, 50):
            await publish_keys(engine, "orders", 20, range(first, first + 50))
        assert await seen.reaches(4000, 30)
        assert await seen.stays(4000)
    assert len(seen.times) == 4000 and not watch.faults


@asynchronous
async def test_conf_28_in_partition_order_one_handler_runs_per_partition(store: Store) -> None:
    watch, seen = OrderWatch(), Recorder()

    async def handle(message: Message) -> None:
        async with watch.handling(message, message.partition):
            seen.note(message)
            await asyncio.sleep(0)

    async with store.open() as engine:
        await engine.declare_topic("orders", partition_count=4)
        await engine.consume("orders", handle, ordering="partition", **member(concurrency=4))
        await publish_keys(engine, "orders", 20, range(50))
        assert await seen.reaches(1000)
    assert not watch.faults
    assert len({one.partition for one in seen.all}) > 1
    for partition in range(4):
        ids = [one.id for one in seen.all if one.partition == partition]
        assert ids == sorted(ids), "a partition left its publishing order"


@asynchronous
async def test_conf_29_a_retry_holds_up_its_key_and_no_other(store: Store) -> None:
    watch, fail = OrderWatch(), failing("key-0/3", attempts=2)
    seen = Recorder(fail)

    async def handle(message: Message) -> None:
        async with watch.handling(message):
            await seen(message)

    async with store.open() as engine:
        await engine.consume(
            "orders", handle, ordering="key", **member(concurrency=4, retry=retrying(initial_delay=0.8))
        )
        await publish_keys(engine, "orders", 8, range(10))
        # 4 of key-0 have started (0..3), and everything of the others.
        assert await seen.reaches(74)
        assert await seen.stays(74), "key-0/4 did not wait"
        (blocked,) = await engine.blocked_keys("group", "orders")
        assert blocked.key == "key-0" and not blocked.held
        assert await seen.reaches(82)
        await engine.settle_down()
        assert not await engine.blocked_keys("group", "orders")
    assert of_key(seen, "key-0") == "0#1 1#1 2#1 3#1 3#2 3#3 4#1 5#1 6#1 7#1 8#1 9#1".split()
    assert not watch.faults


@asynchronous
async def test_conf_29_order_holds_over_many_retries_and_a_restart(store: Store) -> None:
    watch, done = OrderWatch(), Recorder()

    async def handle(message: Message) -> None:
        async with watch.handling(message):
            number = int(message.payload.decode().rpartition("/")[2])
            if number % 7 == 3 and message.attempt < 3:
                raise failure("Flaky", "not yet")
            done.note(message)

    async with store.open() as engine:
        consumer = await engine.consume("orders", handle, ordering="key", **member(concurrency=4))
        await publish_keys(engine, "orders", 10, range(50))
        assert await done.reaches(150)
        await consumer.close()
    async with store.open() as engine:
        await engine.consume("orders", handle, ordering="key", **member(concurrency=4))
        assert await eventually_async(lambda: len(done.times) == 500)
    assert not watch.faults


@asynchronous
async def test_conf_30_a_key_goes_to_the_partition_of_the_vectors_and_stays_there(store: Store) -> None:
    vectors: dict[str, int] = {}
    for line in (TESTS / "vectors" / "partitions.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        digits, partition = line.split()
        key = b"" if digits == "-" else bytes.fromhex(digits)
        try:
            if len(key) <= 255:
                vectors[key.decode()] = int(partition)
        except UnicodeDecodeError:
            pass  # a key of Python is text
    assert len(vectors) >= 100 and "" in vectors
    seen = Recorder()
    async with store.open() as engine:
        await make_group(engine, "vectors")
    for _ in range(2):
        async with store.open() as engine:
            receipts = await engine.publish_batch(
                [{"topic": "vectors", "payload": "p", "key": key} for key in vectors]
            )
            assert all(receipt.acked for receipt in receipts)
    async with store.open() as engine:
        await engine.consume("vectors", seen, **member())
        assert await seen.reaches(2 * len(vectors)), f"{seen.count} of {2 * len(vectors)}"
    assert {one.key: one.partition for one in seen.all} == vectors


@asynchronous
async def test_conf_31_a_member_that_joins_mid_stream_never_overlaps_with_the_others(store: Store) -> None:
    watch, first, second = OrderWatch(), Recorder(), Recorder()

    def noting(recorder: Recorder) -> Callable[[Message], object]:
        async def handle(message: Message) -> None:
            async with watch.handling(message):
                recorder.note(message)
                await asyncio.sleep(0.0002)  # sleeps: its work, so that an overlap has time to happen

        return handle

    async with store.open() as engine, store.open() as other:
        await engine.consume("orders", noting(first), ordering="key", **member(concurrency=4))
        await publish_keys(engine, "orders", 20, range(50))
        assert await first.reaches(50)
        await other.consume("orders", noting(second), ordering="key", **member(concurrency=4))
        await publish_keys(engine, "orders", 20, range(50, 100))
        assert await eventually_async(lambda: first.count + second.count >= 2000)
        number = 100
        while not second.count and number < 300:  # it gets its share, of new messages at the latest
            await publish_keys(engine, "orders", 20, [number])
            await eventually_async(lambda: bool(second.count), 0.05)
            number += 1
        assert second.count
        await engine.settle_down(20)
    assert not watch.faults


@asynchronous
async def test_conf_32_the_next_message_of_a_key_runs_after_its_head_became_a_dead_letter(
    store: Store,
) -> None:
    seen = Recorder(failing("key-0/0"))
    async with store.open() as engine:
        await engine.consume("orders", seen, ordering="key", **member(concurrency=4))
        await publish_keys(engine, "orders", 1, range(5))
        assert await seen.reaches(7)
        await reaches(engine, "orders", 1)
        await engine.settle_down()
        assert not await engine.blocked_keys("group", "orders")
    assert of_key(seen, "key-0") == "0#1 0#2 0#3 1#1 2#1 3#1 4#1".split()


@asynchronous
async def test_conf_32_a_parked_key_waits_for_a_person(store: Store) -> None:
    seen = Recorder(failing("key-0/1"))
    async with store.open() as engine:
        await engine.consume("orders", seen, ordering="key", **member(on_key_failure="park_key"))
        await publish_keys(engine, "orders", 2, range(5))
        await reaches(engine, "orders", 1)
        assert await seen.reaches(9)
        assert await seen.stays(9, 0.2), "key-0/2 must wait for release_key()"

        async def three_are_parked() -> bool:
            blocked = await engine.blocked_keys("group", "orders")
            return [(one.key, one.held, one.parked_count) for one in blocked] == [("key-0", True, 3)]

        assert await becomes(three_are_parked)
        with pytest.raises(errors.NotFoundError):
            await engine.release_key("group", "orders", "key-1")
        await engine.release_key("group", "orders", "key-0")
        assert await seen.reaches(12)
        await engine.settle_down()
        assert not await engine.blocked_keys("group", "orders")
    assert of_key(seen, "key-0")[-3:] == ["2#1", "3#1", "4#1"]


@asynchronous
async def test_conf_32_with_skip_a_failed_message_is_a_dead_letter_at_once(store: Store) -> None:
    seen = Recorder(failing("key-0/1"))
    async with store.open() as engine:
        await engine.consume("orders", seen, ordering="key", **member(on_key_failure="skip"))
        await publish_keys(engine, "orders", 1, range(5))
        assert await seen.reaches(5)
        await reaches(engine, "orders", 1)
    assert of_key(seen, "key-0") == "0#1 1#1 2#1 3#1 4#1".split()


@asynchronous
async def test_conf_83_a_member_that_names_partitions_gets_those_and_no_others(store: Store) -> None:
    low, high = Recorder(), Recorder()
    async with store.open() as engine:
        await engine.declare_topic("orders", partition_count=8)
        await engine.consume("orders", low, ordering="key", **member(partitions=[0, 1, 2]))
        await engine.consume("orders", high, ordering="key", **member(partitions=[3, 4, 5, 6, 7]))
        await engine.publish_batch(
            [{"topic": "orders", "payload": str(n), "key": f"key-{n}"} for n in range(400)]
        )
        assert await eventually_async(lambda: low.count + high.count == 400)
    assert low.count > 50 and high.count > 100
    assert {one.partition for one in low.all} == {0, 1, 2}
    assert {one.partition for one in high.all} == {3, 4, 5, 6, 7}


@asynchronous
async def test_conf_74_a_higher_priority_is_handed_out_first(store: Store) -> None:
    seen = Recorder()
    async with store.open() as engine:
        await make_group(engine, "jobs")
        for number in range(30):
            await engine.publish("jobs", str(number), priority=number % 3 * 4)
        await engine.consume("jobs", seen, **member())
        assert await seen.reaches(30)
    assert seen.payloads == [str(n) for rest in (2, 1, 0) for n in range(rest, 30, 3)]


@asynchronous
async def test_conf_81_a_log_topic_is_read_by_every_group_at_its_own_pace(store: Store) -> None:
    async with store.open() as engine:
        await engine.declare_topic("events", type="log", retention=3600)
        for first in range(0, 500, 50):
            await publish_numbers(engine, "events", 50, first)
        for group in ("first", "second"):
            seen = Recorder()
            consumer = await engine.consume("events", seen, **member(group))
            assert await seen.reaches(500)
            await consumer.close()
            assert seen.payloads == [str(number) for number in range(500)]
        rest = Recorder()
        await engine.consume("events", rest, **member("first"))
        await publish_numbers(engine, "events", 5, 500)
        assert await rest.reaches(5)
        assert await rest.stays(5), "a group goes on where it was"
        third = Recorder(failing("3"))
        await engine.consume("events", third, **member("third"))
        await reaches(engine, "events", 1)
        assert await eventually_async(lambda: len(third.times) == 505)
        assert third.times["3"] == 3, "retried as everywhere"
