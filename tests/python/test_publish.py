"""Publishing and scheduling from asyncio: what is stored, what is refused, and what is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from conftest import asynchronous

import towline
from towline import Engine, Message, PayloadError, errors
from towline.testing import VirtualClock


@asynchronous
async def test_what_is_published_arrives_as_it_was_given(url: str) -> None:
    async with Engine(url) as engine:
        arrived: asyncio.Future[towline.Message] = asyncio.get_running_loop().create_future()

        async def handle(message: towline.Message) -> None:
            arrived.set_result(message)

        await engine.consume("orders", handle, group="g")
        receipt = await engine.publish(
            "orders",
            b"\x00\xff",
            key="customer-9",
            headers={"region": "eu", "name": "Zoë"},
            correlation_id="c",
            causation_id="d",
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        message = await arrived
        assert message.id == receipt.id
        assert message.payload == b"\x00\xff" == message.value
        assert message.key == "customer-9"
        assert message.headers == {"region": "eu", "name": "Zoë"}
        assert (message.correlation_id, message.causation_id) == ("c", "d")
        assert message.traceparent.startswith("00-0af7651916cd43dd8448eb211c80319c")
        assert message.topic == "orders" and message.group == "g"
        assert message.attempt == 1 and message.crashes == 0 and not message.redelivered
        assert abs(message.published_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert message.payload == b"\x00\xff", "readable after close"


@asynchronous
async def test_each_message_of_a_batch_has_its_own_receipt(url: str) -> None:
    async with Engine(url) as engine:
        receipts = await engine.publish_batch(
            [
                {"topic": "a", "payload": 1},
                {"topic": "not a topic", "payload": 2},
                {"topic": "a", "payload": 3, "delay": 100},
            ]
        )
        assert [receipt.outcome for receipt in receipts] == ["acked", "rejected", "acked"]
        assert isinstance(receipts[1].error, errors.InvalidTopicError)
        assert [one.id for one in (await engine.pending()).items] == [receipts[2].id]


@asynchronous
async def test_a_refused_publish_raises_and_says_that_nothing_was_stored(url: str) -> None:
    async with Engine(url, payload_bytes_max=10) as engine:
        with pytest.raises(errors.PayloadTooLargeError) as refused:
            await engine.publish("a", b"x" * 11)
        assert refused.value.code == "ERR_PAYLOAD_TOO_LARGE"
        assert refused.value.context["outcome"] == "rejected"
        assert isinstance(refused.value, ValueError) and not refused.value.retryable
        assert (await engine.statistics()).published == 0


@asynchronous
async def test_a_dedup_id_answers_the_first_message(url: str) -> None:
    async with Engine(url) as engine:
        first, *others = await asyncio.gather(*(engine.publish("a", i, dedup_id="one") for i in range(50)))
        ids = {receipt.id for receipt in (first, *others)}
        assert len(ids) == 1
        assert sum(receipt.duplicate for receipt in (first, *others)) == 49


@asynchronous
async def test_a_delayed_message_waits_for_its_time_and_can_be_taken_back(url: str) -> None:
    clock = VirtualClock()
    handled: list[int] = []
    async with Engine(url, clock=clock) as engine:

        async def handle(payload: int) -> None:
            handled.append(payload)

        await engine.consume("a", handle, group="g")
        await engine.publish("a", 1, delay=30)
        cancelled = await engine.publish("a", 2, delay=timedelta(seconds=30))
        moved = await engine.publish("a", 3, due_at=clock.now() + timedelta(seconds=30))
        assert await engine.cancel(cancelled.id) == "done"
        assert await engine.reschedule(moved.id, clock.now() + timedelta(seconds=90)) == "done"
        await clock.advance_and_settle(engine, 29.9)
        assert handled == []
        await clock.advance_and_settle(engine, 0.2)
        assert handled == [1]
        assert await engine.cancel(cancelled.id) in ("not_found", "done")
        await clock.advance_and_settle(engine, 60)
        assert handled == [1, 3]
        assert await engine.cancel(moved.id) == "already_fired"
        with pytest.raises(errors.InvalidIdError):
            await engine.cancel("no id")


@asynchronous
async def test_many_publishers_at_once_share_commits(url: str) -> None:
    async with Engine(url) as engine:
        receipts = await asyncio.gather(*(engine.publish("a", i) for i in range(2_000)))
        assert len({receipt.id for receipt in receipts}) == 2_000
        assert (await engine.statistics()).published == 2_000


@asynchronous
async def test_bad_options_are_refused_by_name(url: str) -> None:
    with pytest.raises(errors.InvalidConfigError, match="unknown option 'leese'"):
        Engine(url, leese=5)  # type: ignore[call-arg]
    with pytest.raises(errors.InvalidConfigError, match="lease is 0.001 s, but must be between"):
        async with Engine(url, lease=0.001):
            pass
    with pytest.raises(errors.InvalidUrlError):
        async with Engine("nowhere:"):
            pass
    async with Engine(url) as engine:
        with pytest.raises(errors.InvalidConfigError, match="max_attempts is 0"):
            await engine.consume("a", lambda: None, group="g", retry={"max_attempts": 0})
        with pytest.raises(errors.InvalidConfigError, match="ordering is 'keys'"):
            await engine.consume("a", lambda: None, group="g", ordering="keys")  # type: ignore[arg-type]


@asynchronous
async def test_a_publish_that_cannot_succeed_becomes_a_dead_letter(url: str) -> None:
    async with Engine(url) as engine:
        with pytest.raises(errors.InvalidTopicError):
            await engine.publish_with_retry("not a topic", b"")
        receipt = await engine.publish_with_retry("a", b"", retry={"max_attempts": 2})
        assert receipt.acked


MISTAKES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "delay": ({"delay": "5"}, ["delay is '5'", "seconds"]),
    "delay_nan": ({"delay": float("nan")}, ["delay is nan", "seconds"]),
    "ttl": ({"ttl": [1]}, ["ttl is [1]", "seconds"]),
    "due_at": ({"due_at": "noon"}, ["due_at is 'noon'", "datetime"]),
    "key": ({"key": 5}, ["key is 5", "str"]),
    "headers": ({"headers": {"a": 1}}, ["headers['a'] is 1", "str"]),
    "headers_list": ({"headers": [1]}, ["headers is [1]", "dict"]),
    "priority": ({"priority": "1"}, ["priority is '1'", "0 to 9"]),
    "topic": ({"topic": 5}, ["topic is 5", "str"]),
    "dedup_id": ({"dedup_id": 5}, ["dedup_id is 5", "str"]),
    "id": ({"id": 5}, ["id is 5", "str"]),
    "content_type": ({"content_type": 5}, ["content_type is 5", "str"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_an_argument_of_the_wrong_type_is_named_with_its_value_and_what_to_give(name: str) -> None:
    mistake, texts = MISTAKES[name]
    arguments: dict[str, Any] = {"topic": "orders", "payload": 1, **mistake}
    with Engine("memory:") as engine:
        calls: list[Callable[[], Any]] = [
            lambda: engine.publish(**arguments),
            lambda: engine.publish_batch([arguments]),
            lambda: engine.publish_with_retry(**arguments),
        ]
        for call in calls:
            with pytest.raises(errors.InvalidArgumentError) as refused:
                call()
            for text in texts:
                assert text in str(refused.value)
        assert engine.statistics().published == 0


def test_a_batch_that_is_none_is_refused_whole() -> None:
    good = {"topic": "orders", "payload": 1}
    batches: list[tuple[Any, str]] = [
        ({}, "messages is {}"),
        (None, "messages is None"),
        ("orders", "messages is 'orders'"),
        ([good, 1], "messages[1] is 1, but"),
        ([good, {"topic": "orders", "value": 1}], "'value'"),
        ([good, {"topic": "orders"}], "no 'payload'"),
    ]
    with Engine("memory:") as engine:
        for batch, text in batches:
            with pytest.raises(errors.InvalidArgumentError) as refused:
                engine.publish_batch(batch)
            assert text in str(refused.value)
        assert engine.publish_batch([]) == []
        assert engine.statistics().published == 0


@asynchronous
async def test_the_asynchronous_engine_names_mistakes_as_the_synchronous_one() -> None:
    async with Engine("memory:") as engine:
        for name, (mistake, texts) in MISTAKES.items():
            arguments: dict[str, Any] = {"topic": "orders", "payload": 1, **mistake}
            with pytest.raises(errors.InvalidArgumentError) as refused:
                await engine.publish(**arguments)
            assert all(text in str(refused.value) for text in texts), name
        with pytest.raises(errors.InvalidArgumentError, match="messages is {}"):
            await engine.publish_batch({})  # type: ignore[arg-type]


def test_an_engine_without_a_url_says_what_one_looks_like() -> None:
    for url in (None, 5):
        with pytest.raises(errors.InvalidUrlError, match=f"url is {url}.*sqlite:orders.db"):
            Engine(url)  # type: ignore[arg-type]


def test_a_second_name_of_the_order_is_refused() -> None:
    def handle(message: Message) -> None: ...

    options: dict[str, Any] = {"group": "group", "ordering": "key", "order": "unordered"}
    engine = Engine("memory:")
    with pytest.raises(errors.InvalidConfigError, match="order is 'unordered'.*ordering"):
        engine.consumer("orders", **options)(handle)
    with engine as running, pytest.raises(errors.InvalidConfigError, match="order is 'unordered'.*ordering"):
        running.consume("orders", handle, **options)


SURROGATE = "caf\udce9"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"key": SURROGATE}, r"key is 'caf\\udce9', which UTF-8 has no bytes for"),
        ({"topic": SURROGATE}, "topic is"),
        ({"id": SURROGATE}, "id is"),
        ({"content_type": SURROGATE}, "content_type is"),
        ({"headers": {"a": SURROGATE}}, r"headers\['a'\] is"),
        ({"headers": {SURROGATE: "a"}}, r"the name of headers\['caf\\udce9'\] is"),
        ({"due_at": datetime(2026, 1, 1)}, "due_at is .* has no zone; use"),
    ],
)
@asynchronous
async def test_what_has_no_bytes_or_no_zone_is_named(fields: dict[str, Any], text: str) -> None:
    message: dict[str, Any] = {"topic": "a", "payload": b"", **fields}
    async with Engine("memory:") as engine:
        for publish in (engine.publish, engine.publish_with_retry):
            with pytest.raises(errors.InvalidArgumentError, match=text):
                await publish(**message)
        with pytest.raises(errors.InvalidArgumentError, match=rf"messages\[1\]: {text}"):
            await engine.publish_batch([{"topic": "a", "payload": 1}, message])
        with pytest.raises(PayloadError, match="cannot be written"):
            await engine.publish("a", SURROGATE)
        with pytest.raises(errors.InvalidArgumentError, match="group is .* UTF-8 has no bytes"):
            await engine.release_key(SURROGATE, "a", "k")
        with pytest.raises(errors.InvalidArgumentError, match="created_from is .* has no zone"):
            await engine.dead_letters(created_from=datetime(2026, 1, 1))
        assert await engine.backlog() == []


@asynchronous
async def test_a_bad_message_of_a_batch_is_named_by_its_place_and_a_wrong_name_with_the_right_one() -> None:
    good = {"topic": "a", "payload": 1}
    async with Engine("memory:") as engine:
        text = r"messages\[3\] has 'paylod', did you mean 'payload'\?"
        with pytest.raises(errors.InvalidArgumentError, match=text):
            await engine.publish_batch([good, good, good, {"topic": "a", "paylod": 1}])
        with pytest.raises(PayloadError, match=r"messages\[1\]: the payload cannot be written"):
            await engine.publish_batch([good, {"topic": "a", "payload": object()}])
        with pytest.raises(TypeError, match="no condition of dead letters, did you mean 'topic'"):
            await engine.dead_letter_groups(topics="a")
        wrong: Any = {"kye": "k"}
        with pytest.raises(TypeError, match=r"^Engine\.publish\(\) got an unexpected"):
            await engine.publish("a", 1, **wrong)
        with pytest.raises(TypeError, match=r"^publish\(\) got an unexpected"):
            await engine.publish_with_retry("a", 1, **wrong)
    with Engine("memory:") as twin, pytest.raises(TypeError, match=r"^SyncEngine\.reschedule\(\) got"):
        twin.reschedule("a", 1, **wrong)
