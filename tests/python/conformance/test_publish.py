"""Publishing: what goes in comes out, byte for byte; what is refused is refused before anything is stored;
ids are unique and a dedup id keeps the second publish away."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from conftest import asynchronous

from conformance.suite import (
    Recorder,
    Store,
    all_settled,
    dead_letters,
    make_group,
    member,
    publish_numbers,
    retrying,
    waiting,
)
from towline import Message, errors

ALL_BYTES = bytes(range(256))


@asynchronous
async def test_conf_01_payloads_of_every_size_and_byte_come_out_equal(store: Store) -> None:
    arrived: dict[str, bytes] = {}

    async def handle(message: Message) -> None:
        arrived[message.id] = message.payload

    payloads = [b"", b"\0", b"x", ALL_BYTES, b"k" * 65_536, ALL_BYTES * 64, b"\xff" * 1_048_576]
    async with store.open() as engine:
        await engine.consume("bytes", handle, **member())
        published = {(await engine.publish("bytes", payload)).id: payload for payload in payloads}
        assert await all_settled(engine, "bytes")
    assert arrived == published and len(published) == len(payloads)


@asynchronous
async def test_conf_01_every_field_of_a_message_comes_out_equal(store: Store) -> None:
    kept: list[Message] = []

    async def handle(message: Message) -> None:
        kept.append(message)
        message.ack()

    fields: dict[str, Any] = {
        "key": "k\0ey",
        "headers": {"plain": "value", "Unicode": "grüße 漢字 🚀", "empty": "", "ce-id": "A234-1234"},
        "content_type": "application/json; charset=utf-8",
        "correlation_id": "corr-1",
        "causation_id": "cause-1",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    before = datetime.now(UTC)
    async with store.open() as engine:
        receipt = await engine.publish("fields", b"body", priority=3, **fields)
        await engine.consume("fields", handle, **member(ack="manual"))
        assert await all_settled(engine, "fields")
    (message,) = kept
    assert {name: getattr(message, name) for name in fields} == fields
    assert (message.id, message.topic, message.group) == (receipt.id, "fields", "group")
    assert message.payload == b"body", "stays valid as long as the message is kept"
    assert before <= message.published_at <= datetime.now(UTC)
    assert (message.attempt, message.crashes, message.redrives) == (1, 0, 0) and not message.redelivered


@asynchronous
async def test_conf_01_no_key_and_the_empty_key_are_different(store: Store) -> None:
    seen = Recorder()
    async with store.open() as engine:
        await engine.consume("keys", seen, **member())
        await engine.publish("keys", "none")
        await engine.publish("keys", "empty", key="")
        assert await seen.reaches(2)
    assert {one.payload: one.key for one in seen.all} == {"none": None, "empty": ""}


@asynchronous
async def test_conf_02_what_is_published_before_the_consumer_starts_is_delivered(store: Store) -> None:
    seen = Recorder()
    async with store.open() as engine:
        await make_group(engine, "orders")
        await publish_numbers(engine, "orders", 100)
        consumer = await engine.consume("orders", seen, **member())
        assert await seen.reaches(100)
        await consumer.drain(5)
    assert seen.count == len(seen.times) == 100


@asynchronous
async def test_conf_12_a_batch_answers_for_each_message_in_order(store: Store) -> None:
    seen = Recorder()
    batch: list[dict[str, Any]] = [{"topic": "batch", "payload": str(number)} for number in range(100)]
    batch[0]["topic"] = "not a topic"
    batch[42]["headers"] = {"towline-attempt": "9"}
    batch[99]["delay"] = -1
    invalid = {0: errors.InvalidTopicError, 42: errors.ReservedHeaderError, 99: errors.InvalidDelayError}
    async with store.open() as engine:
        consumer = await engine.consume("batch", seen, **member())
        receipts = await engine.publish_batch(batch)
        assert len(receipts) == 100
        for number, receipt in enumerate(receipts):
            assert receipt.outcome == ("rejected" if number in invalid else "acked")
            assert type(receipt.error) is invalid.get(number, type(None))
        assert await seen.reaches(97)
        await consumer.drain(5)
    assert seen.times.keys() == {str(number) for number in range(100)} - {str(one) for one in invalid}


def test_conf_14_eight_producers_never_make_the_same_id_twice(store: Store) -> None:
    store.keep()
    ids: list[str] = []

    def produce() -> None:
        for _ in range(25):
            batch = [{"topic": "ids", "payload": b"p"}] * 500
            ids.extend(receipt.id for receipt in engine.publish_batch(batch))

    from towline import Engine

    with Engine(store.url) as engine:
        producers = [threading.Thread(target=produce) for _ in range(8)]
        for producer in producers:
            producer.start()
        for producer in producers:
            producer.join()
    assert len(ids) == len(set(ids)) == 100_000


@asynchronous
async def test_conf_16_a_payload_over_the_limit_is_rejected_and_the_next_is_not(store: Store) -> None:
    async with store.open(payload_bytes_max=1000) as engine:
        await make_group(engine, "sizes")
        with pytest.raises(errors.PayloadTooLargeError) as refused:
            await engine.publish("sizes", b"x" * 1001)
        assert refused.value.context["outcome"] == "rejected"
        await engine.publish("sizes", b"x" * 1000)
        assert await waiting(engine, "sizes") == 1


@asynchronous
async def test_conf_18_one_dedup_id_at_once_is_one_message(store: Store) -> None:
    seen = Recorder()
    async with store.open() as engine, store.open() as other:
        await engine.consume("dedup", seen, **member())
        for round in range(20):
            receipts = await asyncio.gather(
                *(each.publish("dedup", "p", dedup_id=f"once-{round}") for each in (engine, other) * 3)
            )
            assert len({receipt.id for receipt in receipts}) == 1
            assert sum(not receipt.duplicate for receipt in receipts) == 1
        assert await seen.reaches(20)
        assert await seen.stays(20, 0.2)


@asynchronous
async def test_conf_18_a_dedup_id_is_known_in_one_batch_after_a_restart_and_only_in_its_topic(
    store: Store,
) -> None:
    async with store.open() as engine:
        await make_group(engine, "dedup")
        twins = await engine.publish_batch([{"topic": "dedup", "payload": "p", "dedup_id": "twin"}] * 3)
        assert [receipt.duplicate for receipt in twins] == [False, True, True]
        assert len({receipt.id for receipt in twins}) == 1
    async with store.open() as engine:
        again = await engine.publish("dedup", "p", dedup_id="twin")
        assert again.duplicate and again.id == twins[0].id
        assert not (await engine.publish("other", "p", dedup_id="twin")).duplicate
        assert await waiting(engine, "dedup") == 1


@asynchronous
async def test_conf_18_the_dedup_window_ends(store: Store) -> None:
    async with store.open(dedup_window=1) as engine:
        begin = time.monotonic()
        first = await engine.publish("dedup", "p", dedup_id="window")
        while (again := await engine.publish("dedup", "p", dedup_id="window")).duplicate:
            await asyncio.sleep(0.01)  # sleeps: between two tries
        assert again.id != first.id and time.monotonic() - begin >= 0.9


@asynchronous
async def test_conf_18_while_unfinished_ends_with_the_acknowledgement_or_the_cancelling(
    store: Store,
) -> None:
    job: dict[str, Any] = {"dedup_id": "nightly", "dedup_while_unfinished": True}
    seen = Recorder()
    async with store.open() as engine:
        await make_group(engine, "jobs")
        first = await engine.publish("jobs", "p", **job)
        assert (await engine.publish("jobs", "p", **job)).duplicate
        consumer = await engine.consume("jobs", seen, **member())
        assert await seen.reaches(1)
        await consumer.drain(5)
        second = await engine.publish("jobs", "p", delay=3600, **job)
        assert not second.duplicate and second.id != first.id
        assert (await engine.publish("jobs", "p", delay=3600, **job)).id == second.id
        assert await engine.cancel(second.id) == "done"
        assert not (await engine.publish("jobs", "p", delay=3600, **job)).duplicate


@pytest.mark.only("sqlite")
@asynchronous
async def test_conf_56_publishing_into_a_store_that_stands_still_is_bounded(store: Store) -> None:
    answers: list[BaseException | None] = []

    async def publish() -> None:
        begin = time.monotonic()
        try:
            await engine.publish("orders", b"x" * 100_000)
            answers.append(None)
        except (errors.TimeoutError, errors.OverloadedError) as error:
            answers.append(error)
        assert time.monotonic() - begin < 3, "a publish has a deadline"

    async with store.open(publish_in_flight_count_max=4, publish_timeout=0.3) as engine:
        await engine.publish("orders", b"first")
        with store.standing_still():
            await asyncio.gather(*(publish() for _ in range(48)))
        assert len(answers) == 48 and None not in answers, "acknowledged while nothing could be written"
        for error in answers:
            if isinstance(error, errors.OverloadedError):
                assert error.context["outcome"] == "rejected"
        await engine.publish("orders", b"after")


@pytest.mark.only("sqlite")
@asynchronous
async def test_conf_77_a_publish_that_cannot_succeed_is_a_dead_letter(store: Store) -> None:
    async with store.open(publish_timeout=0.1, publish_in_flight_count_max=1) as engine:
        await make_group(engine, "orders")
        with store.standing_still():
            # Given up while the store stands still; the dead letter is written once it goes on.
            publishing = asyncio.create_task(engine.publish_with_retry("orders", "p", retry=retrying(2)))
            await asyncio.sleep(0.5)  # sleeps: so long it stands still
        try:
            await publishing
            assert await waiting(engine, "orders") == 1
            assert not await dead_letters(engine)
        except (errors.TimeoutError, errors.OverloadedError):
            (entry,) = await dead_letters(engine, "orders")
            assert (entry.reason, entry.group) == ("publish_failed", "")
        assert (await engine.publish_with_retry("orders", "fine", retry=retrying(2))).acked
