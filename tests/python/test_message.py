"""The objects that thousands are made of: messages and receipts."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import sys
import weakref
from typing import Any

import pytest
from conftest import asynchronous, eventually_async

from towline import Engine, Message, Receipt, _core

COUNT = 2_000


@asynchronous
async def test_a_message_is_readable_while_it_is_kept_and_gone_when_it_is_not(url: str) -> None:
    kept: list[Message] = []
    async with Engine(url) as engine:
        before = sys.getrefcount(Message)  # each of its objects holds the class
        consumer = await engine.consume("a", lambda messages: None, group="count", batch=True)

        async def keep(message: Message) -> None:
            kept.append(message)

        await engine.consume("a", keep, group="keep")
        await engine.publish_batch(
            [{"topic": "a", "payload": bytes([n % 256]), "key": str(n)} for n in range(COUNT)]
        )
        assert await eventually_async(lambda: len(kept) == COUNT and consumer.statistics().acked == COUNT)
    assert {(one.key, one.payload[0]) for one in kept} == {(str(n), n % 256) for n in range(COUNT)}
    assert all(one.topic == "a" and one.group == "keep" and one.headers == {} for one in kept)
    gone = weakref.ref(kept[0])
    assert copy.copy(kept[0]) is kept[0]
    with pytest.raises(TypeError):
        pickle.dumps(kept[0])
    kept.clear()
    assert gone() is None
    # The handlers' annotations name it as well.
    assert await eventually_async(lambda: sys.getrefcount(Message) < before + COUNT // 100)


@asynchronous
async def test_a_message_that_is_part_of_a_cycle_is_collected(url: str) -> None:
    async with Engine(url) as engine:
        await engine.publish("a", b"1")
        async with engine.subscribe("a", group="g") as subscription:
            message = await subscription.receive(10)
            assert message is not None
            message.ack()

    def hold(_: int) -> None: ...

    hold.message = message  # type: ignore[attr-defined]
    message._on_settled = hold
    gone = weakref.ref(message)
    del message, hold
    gc.collect()
    assert gone() is None


def test_nobody_makes_a_message_or_takes_something_else_for_one() -> None:
    for make in (Message, _core.Delivery):
        with pytest.raises(TypeError, match="nobody else makes one"):
            make()
    with pytest.raises(TypeError):
        object.__new__(Message)
    wrong: Any = "no message"
    with pytest.raises(TypeError):
        _core.saga_reply(wrong, b"")


@asynchronous
async def test_a_receipt_is_a_tuple_like_any_other(url: str) -> None:
    async with Engine(url) as engine:
        receipts = await engine.publish_batch(
            [{"topic": "a", "payload": b"", "dedup_id": "1"}, {"topic": "b ad", "payload": b""}] * 2
        )
    first, bad, again, _ = receipts
    assert (first.outcome, first.duplicate, first.error) == ("acked", False, None)
    assert (again.outcome, again.duplicate, again.id) == ("acked", True, first.id)
    assert bad.outcome == "rejected" and bad.error is not None
    for one in receipts:
        rebuilt = Receipt(*one)
        assert one == rebuilt and hash(one) == hash(rebuilt) == hash(tuple(one)) and one in {rebuilt}
        assert one._replace(id="x").id == "x"


@asynchronous
async def test_a_task_that_others_cancel_before_its_first_step_is_not_waited_for(url: str) -> None:
    """As programs do that cancel whatever runs; its message goes to the next one."""
    begun = 0

    async def handle(message: Message) -> None:
        nonlocal begun
        begun += 1

    async with Engine(url) as engine:
        loop = asyncio.get_running_loop()
        cancelled = 0

        def cancel(loop: asyncio.AbstractEventLoop, work: Any, **named: Any) -> asyncio.Task[Any]:
            nonlocal cancelled
            task = asyncio.Task(work, loop=loop, **named)
            if work.__qualname__ == "Handler.run_async" and cancelled == 0:
                cancelled += 1
                task.cancel()
            return task

        await engine.consume("a", handle, group="g")
        loop.set_task_factory(cancel)
        await engine.publish("a", b"1")
        assert await eventually_async(lambda: cancelled == 1)
        loop.set_task_factory(None)
        begin = loop.time()
    assert begun <= 1, "it may have come again before the end, and is handled once then"
    assert loop.time() - begin < 5, "closing waited for what never began"
