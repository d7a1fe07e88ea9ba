"""The event store: versions without gaps under contention, and readers that miss nothing and see nothing
twice."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from conftest import asynchronous, eventually, eventually_async

from conformance.suite import LEASE, Recorder, Store, all_settled, becomes, make_group, member
from towline import (
    Engine,
    EventSubscription,
    Message,
    NewEvent,
    RecordedEvent,
    SyncEventSubscription,
    Transaction,
    errors,
)
from towline._options import RetryOptions


QUICK: RetryOptions = {"kind": "fixed", "initial_delay": 0.001, "jitter": "none"}


def event(payload: Any, kind: str = "happened", **more: Any) -> NewEvent:
    return NewEvent(kind, payload, **more)


async def append_numbers(engine: Engine, stream: str, count: int) -> None:
    for number in range(count):
        await engine.event_store.append(stream, [event(str(number))])


@dataclass
class Order:
    id: str
    amount: int


@asynchronous
async def test_conf_64_of_eight_writers_at_one_version_one_wins(store: Store) -> None:
    versions, won, refused = 25, 0, 0

    async def write(engine: Engine, writer: int) -> None:
        nonlocal won, refused
        version = 0
        while version < versions:
            try:
                appended = await engine.event_store.append("order-1", [event(str(writer))], version)
                won += 1
                assert appended.first_version == version + 1
            except errors.ConflictError:
                refused += 1
            info = await engine.event_store.find_stream("order-1")
            assert info is not None
            version = info.newest_version

    async with store.open() as first, store.open() as second:
        await asyncio.gather(*(write((first, second)[writer % 2], writer) for writer in range(8)))
        page = await first.event_store.read("order-1")
    assert [one.version for one in page.events] == list(range(1, won + 1))
    assert versions <= won < versions + 8 and refused > 0


@asynchronous
async def test_conf_64_an_append_can_be_repeated(store: Store) -> None:
    async with store.open() as engine:
        events = engine.event_store
        one = event("one", id="018f0000-0000-7000-8000-000000000001")
        two = event("two", id="018f0000-0000-7000-8000-000000000002")
        appended = await events.append("order-1", [one, two], 0)
        assert not appended.duplicate
        await events.append("order-1", [event("three")])
        again = await events.append("order-1", [one, two], 0)
        assert again.duplicate and (again.first_version, again.last_version) == (1, 2)
        assert again.last_position == appended.last_position
        with pytest.raises(errors.ConflictError):
            await events.append("order-1", [two, event("four")])
        with pytest.raises(errors.ConflictError):
            await events.append("order-1", [event("four")], 2)
        assert [one.payload for one in (await events.read("order-1")).events] == [b"one", b"two", b"three"]


@asynchronous
async def test_conf_64_an_event_is_read_as_it_was_appended(store: Store) -> None:
    async with store.open() as engine:
        payloads = [{"n": 1, "s": "ün\U0001f680"}, "text", bytes(range(256)), Order("o-1", 5)]
        appended = await engine.event_store.append(
            "order-1", [event(one, "order.placed", headers={"a": "ü"}) for one in payloads]
        )
        page = await engine.event_store.read("order-1")
        backwards = await engine.event_store.read_backwards("order-1", count_max=2)
        rest = await engine.event_store.read_backwards("order-1", backwards.next)
        assert await engine.event_store.read_all() == page
        await engine.event_store.append("order-2", [event("other")])
        listed = await engine.event_store.streams("order-", count_max=1)
        more = await engine.event_store.streams("order-", cursor=listed.cursor)
        assert await engine.event_store.find_stream("order-3") is None
    assert page.end and page.next == 5
    assert [one.value for one in page.events[:3]] == payloads[:3]
    assert page.events[3].value_as(Order) == Order("o-1", 5)
    types = [one.content_type for one in page.events]
    assert types == ["application/json", "text/plain; charset=utf-8", "", types[0]]
    last = page.events[-1]
    assert (last.stream, last.version, last.position) == ("order-1", 4, appended.last_position)
    assert (last.type, last.headers) == ("order.placed", {"a": "ü"})
    assert last.recorded_at.tzinfo is not None and len(last.id) == 36
    assert not backwards.end
    assert [one.version for one in backwards.events + rest.events] == [4, 3, 2, 1] and rest.end
    assert [one.name for one in listed.items + more.items] == ["order-1", "order-2"]


@asynchronous
async def test_conf_64_a_handler_appends_with_its_transaction_or_not_at_all(store: Store) -> None:
    if store.provider == "memory":
        return  # no SQL
    seen: list[str] = []

    async def handle(message: Message) -> None:
        def body(transaction: Transaction) -> None:
            transaction.append("order-1", [event(message.payload)], int(message.headers["expected"]))

        try:
            await asyncio.to_thread(message.transaction, body)
            seen.append("done")
        except errors.ConflictError:
            seen.append("conflict")
            message.reject("too late")

    async with store.open() as engine:
        await engine.consume("orders", handle, **member(ack="manual"))
        for expected in ("0", "0", "1"):
            await engine.publish("orders", "p" + expected, headers={"expected": expected})
        assert await eventually_async(lambda: len(seen) == 3)
        page = await engine.event_store.read("order-1")
    assert sorted(seen) == ["conflict", "done", "done"]
    assert [one.payload for one in page.events] == [b"p0", b"p1"]


@asynchronous
async def test_conf_65_a_reader_behind_eight_writers_sees_each_event_once_and_in_order(store: Store) -> None:
    writers, each = 8, 100
    seen: list[int] = []
    numbers: Counter[str] = Counter()

    async def write(engine: Engine, writer: int) -> None:
        for number in range(0, each, 2):
            both = [event(str(number)), event(str(number + 1))]
            await engine.event_store.append(f"stream-{writer}", both)

    async def read_beside(engine: Engine) -> None:
        """Each page behind the last event of the one before: nothing is passed over."""
        behind, left, read = 0, writers * each, Counter[str]()
        while left > 0:
            for one in (await engine.event_store.read_all(behind + 1, count_max=7)).events:
                assert one.position > behind and one.payload == str(read[one.stream]).encode()
                read[one.stream] += 1
                behind, left = one.position, left - 1

    async with store.open() as first, store.open() as second:
        subscription = await second.event_store.subscribe("reader", batch_count_max=7)
        beside = asyncio.create_task(read_beside(first))
        writing = asyncio.gather(*(write((first, second)[writer % 2], writer) for writer in range(writers)))
        async for batch in subscription:
            assert 1 <= len(batch) <= 7
            for one in batch:
                seen.append(one.position)
                assert one.payload == str(numbers[one.stream]).encode()
                numbers[one.stream] += 1
            if len(seen) >= writers * each:
                break
        await writing
        await asyncio.wait_for(beside, 20)
        assert await subscription.receive(timeout=0) == []
    assert seen == sorted(set(seen)) and len(seen) == writers * each


@asynchronous
async def test_conf_95_a_subscription_goes_on_behind_its_checkpoint_in_another_engine(store: Store) -> None:
    async with store.open() as second:
        async with store.open() as first:
            await append_numbers(first, "order-1", 10)
            mine = await first.event_store.subscribe("reader")
            others = await second.event_store.subscribe("reader")
            got = await mine.receive(6, timeout=5)
            assert len(got) == 6
            assert await others.receive(6, timeout=0) == [], "one is active"
            await mine.checkpoint(got[3].position)
            statistics = await mine.statistics()
            assert statistics.active and statistics.checkpoint == got[3].position
            assert not (await others.statistics()).active
        rest = await others.receive(100, timeout=10)
        assert [one.payload for one in rest] == [str(number).encode() for number in range(4, 10)]
        with pytest.raises(errors.ClosedError):
            await mine.receive()


@asynchronous
async def test_conf_95_what_a_loop_is_left_with_comes_again(store: Store) -> None:
    seen: list[list[str]] = []

    async def work(subscription: EventSubscription, fails_at: int) -> None:
        async for batch in subscription:
            seen.append([one.value for one in batch])
            if seen[-1][-1] == str(fails_at):
                raise RuntimeError("the database is away")

    async with store.open() as engine:
        await append_numbers(engine, "order-1", 9)
        subscription = await engine.event_store.subscribe("reader", stream="order-1", batch_count_max=3)
        with pytest.raises(RuntimeError):
            await work(subscription, 5)
        assert (await subscription.statistics()).checkpoint == 3
        with pytest.raises(RuntimeError):
            await work(subscription, 8)
        await subscription.close()
        async with await engine.event_store.subscribe("reader", stream="order-1") as again:
            assert [one.version for one in await again.receive(timeout=10)] == [7, 8, 9]
    assert seen == [["0", "1", "2"], ["3", "4", "5"], ["3", "4", "5"], ["6", "7", "8"]]


@asynchronous
async def test_conf_95_a_cancelled_receive_loses_nothing(store: Store) -> None:
    async with store.open() as engine:
        subscription = await engine.event_store.subscribe("reader")
        for number in range(20):
            waiting = asyncio.ensure_future(subscription.receive(1))
            # Some are cancelled while they wait, some when the answer is on its way.
            await asyncio.sleep(0)
            appending = asyncio.ensure_future(engine.event_store.append("order-1", [event(str(number))]))
            await asyncio.sleep(number * 0.0002)  # sleeps: to cancel at another moment
            waiting.cancel()
            await appending
            if not waiting.cancelled():
                await asyncio.wait([waiting])
            got = [] if waiting.cancelled() else waiting.result()
            got += [] if got else await subscription.receive(1, timeout=10)
            assert [one.value for one in got] == [str(number)]
        assert await subscription.receive(timeout=0) == []


@asynchronous
async def test_conf_95_closing_ends_who_waits_and_who_drops_it_gives_its_turn_away(store: Store) -> None:
    async with store.open() as other:
        async with store.open() as engine:
            dropped = await engine.event_store.subscribe("dropped")
            await engine.event_store.append("order-1", [event("one")])
            del dropped
            # Well within the lease, which outlives the test.
            next_one = await other.event_store.subscribe("dropped")
            assert len(await next_one.receive(timeout=10)) == 1

            subscription = await engine.event_store.subscribe("reader", from_end=True)
            waiting = asyncio.ensure_future(subscription.receive())
            closed = await engine.event_store.subscribe("closed", from_end=True)
            looping = asyncio.ensure_future(anext(aiter(closed), None))
            await asyncio.sleep(0.01)  # sleeps: until both wait
            assert await closed.close()
            assert await asyncio.wait_for(looping, 10) is None
            assert not waiting.done()
        with pytest.raises(errors.ClosedError):
            await waiting


@asynchronous
async def test_conf_95_without_an_event_loop(store: Store) -> None:
    def work() -> list[str]:
        store.keep()
        with Engine(store.url) as engine:
            engine.event_store.append("order-1", [event(str(number)) for number in range(9)])
            subscription = engine.event_store.subscribe("reader", batch_count_max=3)
            assert isinstance(subscription, SyncEventSubscription)
            seen = []
            for batch in subscription:
                seen.append("".join(one.value for one in batch))
                if len(seen) == 2:
                    break
            for batch in subscription:
                seen.append("".join(one.value for one in batch))
                if len(seen) == 4:
                    engine.close()
            with pytest.raises(errors.ClosedError):
                subscription.receive(timeout=1)
            return seen

    assert await asyncio.to_thread(work) == ["012", "345", "345", "678"]


@pytest.mark.parametrize("kind", ["async", "plain"])
@asynchronous
async def test_conf_95_a_handler_gets_what_failed_again_and_nothing_is_passed_over(
    store: Store, kind: str
) -> None:
    handled: list[str] = []
    calls = 0

    def work(batch: list[RecordedEvent]) -> None:
        nonlocal calls
        calls += 1
        if calls % 2:
            raise ConnectionError("the database is away")
        handled.extend(one.value for one in batch)

    async def work_in_loop(batch: list[RecordedEvent]) -> None:
        await asyncio.sleep(0)
        work(batch)

    async with store.open() as engine:
        handler = work if kind == "plain" else work_in_loop
        subscription = await engine.event_store.subscribe("reader", handler, batch_count_max=3, retry=QUICK)
        wanted = [str(number) for number in range(20)]
        for number in wanted:
            await engine.event_store.append(f"stream-{int(number) % 3}", [event(number)])

        async def all_handled() -> bool:
            return (await subscription.statistics()).handled >= 20

        assert await becomes(all_handled)
        with pytest.raises(errors.InvalidArgumentError, match="handler"):
            await subscription.receive(timeout=0)
        assert await subscription.close() and await subscription.close()
        await engine.event_store.append("stream-0", [event("late")])
        last = await engine.event_store.subscribe("reader")
        assert [one.value for one in await last.receive(timeout=10)] == ["late"]
    assert handled == wanted


@asynchronous
async def test_conf_95_the_checkpoint_moves_when_the_handler_has_returned(store: Store) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()
    seen: list[str] = []

    async def handle(batch: list[RecordedEvent]) -> None:
        begun.set()
        await may_end.wait()
        seen.extend(one.value for one in batch)

    async with store.open() as engine:
        await append_numbers(engine, "order-1", 3)
        subscription = await engine.event_store.subscribe("reader", handle, stream="order-1", retry=QUICK)
        await begun.wait()
        assert (await subscription.statistics()).checkpoint == 0
        asyncio.get_running_loop().call_later(0.02, may_end.set)
        assert await subscription.close(), "it waits for its handler"
        assert seen == ["0", "1", "2"]
        assert await engine.close() == 0
    async with store.open(lease=LEASE) as engine:  # of one that is given up it ends by itself
        begun.clear()
        may_end.clear()
        await engine.event_store.append("order-1", [event("3")])
        await engine.event_store.subscribe("reader", handle, stream="order-1")
        await begun.wait()
        await engine.close(0.05)  # it is given up, and does not count
    assert seen == ["0", "1", "2"]
    async with store.open() as engine:
        may_end.set()
        await engine.event_store.subscribe("reader", handle, stream="order-1")
        assert await eventually_async(lambda: len(seen) == 4, 20)
    assert seen == ["0", "1", "2", "3"]


@asynchronous
async def test_conf_95_a_handler_closes_its_own_subscription_and_its_engine(store: Store) -> None:
    seen: list[str] = []

    async with store.open() as engine:
        subscribed = asyncio.Event()

        # Until it is closed the next batch may come.
        async def close_it(batch: list[RecordedEvent]) -> None:
            await subscribed.wait()
            seen.append(batch[0].value)
            assert await subscription.close()

        async def close_all(batch: list[RecordedEvent]) -> None:
            seen.append(batch[0].value)
            assert await engine.close() == 0

        subscription = await engine.event_store.subscribe("reader", close_it, batch_count_max=1)
        subscribed.set()
        await append_numbers(engine, "order-1", 20)
        assert await eventually_async(lambda: bool(seen) and not engine._event_handlers)
        with contextlib.suppress(errors.ClosedError):  # the engine may be closed before this is answered
            await engine.event_store.subscribe("reader", close_all, batch_count_max=1)
        assert await eventually_async(engine._is_closed)
    assert 2 <= len(seen) < 20 and seen == [str(number) for number in range(len(seen))]


@asynchronous
async def test_conf_95_a_handler_without_an_event_loop(store: Store) -> None:
    def work() -> list[str]:
        store.keep()
        seen: list[str] = []
        may_end = threading.Event()

        def handle(batch: list[RecordedEvent]) -> None:
            if not may_end.wait(0.01):
                raise ConnectionError("the database is away")
            seen.extend(one.value for one in batch)

        with Engine(store.url) as engine:
            engine.event_store.append("order-1", [event(str(number)) for number in range(9)])
            subscription = engine.event_store.subscribe("reader", handle, batch_count_max=3, retry=QUICK)
            assert isinstance(subscription, SyncEventSubscription)
            assert eventually(lambda: subscription.statistics().failures > 0)
            may_end.set()
            assert eventually(lambda: subscription.statistics().handled == 9)
            assert subscription.close() and subscription.close()
            with pytest.raises(errors.InvalidConfigError, match="coroutine"):
                engine.event_store.subscribe("other", asyncio.sleep)
        return seen

    assert await asyncio.to_thread(work) == [str(number) for number in range(9)]


@asynchronous
async def test_conf_96_events_are_streamed_to_topics_once_and_in_order_over_two_lives(store: Store) -> None:
    async with store.open() as engine:
        for kind in ("placed", "paid"):
            await make_group(engine, f"events.order.{kind}")
        relay = await engine.event_store.stream_to(
            "events.{type}", name="relay", interval=0.005, batch_count_max=4
        )
        for number in range(10):
            kind = "order.paid" if number % 2 else "order.placed"
            await engine.event_store.append("order-1", [event(str(number), kind)])

        async def some_handled() -> bool:
            return (await relay.statistics()).handled >= 4

        assert await becomes(some_handled)
        with pytest.raises(errors.InvalidArgumentError):
            await relay.receive(timeout=0)
    async with store.open() as engine:
        # Nobody keeps it, and yet it goes on.
        await engine.event_store.stream_to("events.{type}", name="relay", interval=0.005)
        recorder = Recorder()
        headers: list[str] = []

        async def handle(message: Message) -> None:
            headers.append(message.headers["towline-version"])
            await recorder(message)

        await engine.consume("events.#", handle, **member())
        assert await recorder.reaches(10)
        assert await all_settled(engine, "events.order.paid")
    assert all(count == 1 for count in recorder.times.values()) and recorder.count == 10
    assert {one.key for one in recorder.all} == {"order-1"}
    assert sorted(map(int, headers)) == list(range(1, 11))


@asynchronous
async def test_conf_97_snapshots_and_truncation_keep_what_is_needed(store: Store) -> None:
    async with store.open() as engine:
        for number in range(1, 6):
            await engine.event_store.append("cart-1", [event(str(number))])
        with pytest.raises(errors.NotFoundError):
            await engine.event_store.save_snapshot("cart-1", 6, "future")
        assert await engine.event_store.find_snapshot("cart-1") is None
        await engine.event_store.save_snapshot("cart-1", 4, {"sum": 10})
        await engine.event_store.truncate("cart-1", 5)
    async with store.open() as engine:
        snapshot = await engine.event_store.find_snapshot("cart-1")
        assert snapshot is not None and snapshot.value == {"sum": 10}
        assert snapshot.state == b'{"sum":10}' and snapshot.content_type == "application/json"
        page = await engine.event_store.read("cart-1", snapshot.version + 1)
        assert [one.payload for one in page.events] == [b"5"]
        info = await engine.event_store.find_stream("cart-1")
        assert info is not None and (info.oldest_version, info.newest_version) == (5, 5)
        assert (await engine.event_store.append("cart-1", [event("6")], 5)).first_version == 6


@asynchronous
async def test_bad_36_versions_that_cannot_be(store: Store) -> None:
    async with store.open() as engine:
        events = engine.event_store
        await events.append("order-1", [event("one")])
        calls: list[Callable[[int], Awaitable[Any]]] = [
            lambda version: events.append("order-1", [event("two")], version),
            lambda version: events.read("order-1", version),
            lambda version: events.read_backwards("order-1", version),
            lambda version: events.read_all(version),
            lambda version: events.truncate("order-1", version),
            lambda version: events.save_snapshot("order-1", version, "state"),
        ]
        for call in calls:
            for version in (-1, 2**64, 10**1000):
                with pytest.raises(errors.InvalidArgumentError) as refused:
                    await call(version)
                assert len(refused.value.message) < 200 and "must be in" in refused.value.message
            for wrong in ("1", 1.5, True):
                with pytest.raises(errors.InvalidArgumentError, match="must be a whole number"):
                    await call(wrong)  # type: ignore[arg-type]
        largest = 2**64 - 1
        for version in (0, 2, largest):
            with pytest.raises(errors.ConflictError):
                await events.append("order-1", [event("two")], version)
        with pytest.raises(errors.NotFoundError):
            await events.save_snapshot("order-1", largest, "state")
        assert (await events.read("order-1", largest)).events == []
        assert (await events.read_all(largest)).events == []
        for count_max in (0, 10_001):
            with pytest.raises(errors.InvalidArgumentError):
                await events.read("order-1", count_max=count_max)
        async with await events.subscribe("reader") as subscription:
            with pytest.raises(errors.InvalidArgumentError):
                await subscription.checkpoint(largest)
        for stream in ("", "a b", "größe", "a" * 256, "a\0b"):
            with pytest.raises(errors.InvalidNameError):
                await events.append(stream, [event("two")])
        for kind in ("", "a b", "a.*", "a" * 101):
            with pytest.raises(errors.InvalidNameError):
                await events.append("order-1", [event("two", kind)])
        with pytest.raises(errors.InvalidArgumentError):
            await events.append("order-1", [])
        with pytest.raises(errors.InvalidArgumentError):
            await events.append("order-1", ["two"])  # type: ignore[list-item]
        with pytest.raises(errors.InvalidIdError):
            await events.append("order-1", [event("two", id="x")])
        with pytest.raises(errors.InvalidConfigError):
            await events.subscribe("reader", batch_count_max=0)
        with pytest.raises(errors.TopologyMismatchError):
            await events.subscribe("reader", stream="order-1")
        assert [one.payload for one in (await events.read("order-1")).events] == [b"one"]
