"""Batch handlers: what they are given, and what becomes of each message."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from conftest import asynchronous, eventually, eventually_async

from towline import Engine, Message

NEVER: Any = {"max_attempts": 1}


@dataclasses.dataclass
class Order:
    id: int


@asynchronous
async def test_a_batch_handler_gets_payloads_and_messages_side_by_side(url: str) -> None:
    got: list[tuple[int, str]] = []
    engine = Engine(url)

    @engine.consumer("orders", group="g", batch=True, batch_count_max=10)
    async def handle(orders: list[Order], messages: list[Message]) -> None:
        assert len(orders) == len(messages) <= 10
        got.extend((order.id, message.id) for order, message in zip(orders, messages, strict=True))

    async with engine:
        receipts = await engine.publish_batch([{"topic": "orders", "payload": Order(n)} for n in range(35)])
        await engine.settle_down()
    assert sorted(got) == [(number, receipt.id) for number, receipt in enumerate(receipts)]


@asynchronous
async def test_what_cannot_be_read_leaves_its_batch_and_becomes_a_dead_letter(url: str) -> None:
    got: list[int] = []

    async def handle(orders: list[Order]) -> None:
        got.extend(order.id for order in orders)

    async with Engine(url) as engine:
        await engine.consume("orders", handle, group="g", batch=True, retry=NEVER)
        payloads: list[Any] = [{"id": 1}, [], {"id": 2}]
        await engine.publish_batch([{"topic": "orders", "payload": one} for one in payloads])
        await engine.settle_down()
        (entry,) = (await engine.dead_letters()).items
        assert entry.error_type == "PayloadError" and entry.payload == b"[]"
    assert sorted(got) == [1, 2]


@asynchronous
async def test_a_batch_that_is_too_slow_is_cancelled_once_for_all_its_messages(url: str) -> None:
    cancelled: list[int] = []

    async def handle(messages: list[Message]) -> None:
        if messages[0].attempt == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(len(messages))
                raise

    async with Engine(url) as engine:
        options: Any = {"handler_timeout": 0.1, "retry": {"kind": "fixed", "initial_delay": 0.01}}
        consumer = await engine.consume("a", handle, group="g", batch=True, **options)
        await engine.publish_batch([{"topic": "a", "payload": b""}] * 5)
        assert await eventually_async(lambda: consumer.statistics().acked == 5)
    assert sum(cancelled) == 5


def test_the_twin_handles_batches_in_threads(url: str) -> None:
    got: list[int] = []
    with Engine(url) as engine:
        def handle(numbers: list[int]) -> None:
            got.extend(numbers)

        consumer = engine.consume("a", handle, group="g", batch=True, concurrency=2, batch_count_max=7)
        engine.publish_batch([{"topic": "a", "payload": number} for number in range(50)])
        assert eventually(lambda: consumer.statistics().acked == 50)
    assert sorted(got) == list(range(50))


def test_a_batch_handler_that_asks_for_one_message_is_refused(url: str) -> None:
    async def handle(message: Message) -> None: ...

    with pytest.raises(TypeError, match=r"list\[Message\]"):
        Engine(url).consumer("a", batch=True)(handle)
