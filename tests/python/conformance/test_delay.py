"""Delays: never early, soon after, over restarts, each exactly once however many pollers there are; and of
cancelling and firing exactly one wins."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from conftest import asynchronous, eventually_async

from conformance.suite import Recorder, StoppedClock, Store, make_group, member, reaches
from towline import Engine, errors


def in_(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def due(topic: str, at: datetime) -> dict[str, Any]:
    """Its payload is its due time."""
    return {"topic": topic, "payload": at.isoformat(), "due_at": at}


def lateness(seen: Recorder) -> list[float]:
    """In seconds, the least first."""
    return sorted((one.at - datetime.fromisoformat(one.payload)).total_seconds() for one in seen.all)


@asynchronous
async def test_conf_44_a_thousand_delays_are_never_early_and_hardly_late(store: Store) -> None:
    seen = Recorder()
    made = random.Random(44)
    async with store.open() as engine:
        await engine.consume("later", seen, **member(concurrency=2))
        start = datetime.now(UTC)
        batch = [due("later", start + timedelta(seconds=2 * made.random())) for _ in range(1000)]
        assert all(receipt.acked for receipt in await engine.publish_batch(batch))
        assert await seen.reaches(1000, 15)
        assert await seen.stays(1000)
    assert lateness(seen)[0] >= 0
    assert lateness(seen)[989] <= 1  # what is promised; how late it is on a quiet machine the benchmark says


@asynchronous
async def test_conf_44_an_earlier_message_is_not_held_up_by_a_later_timer(store: Store) -> None:
    seen = Recorder()
    async with store.open() as engine, store.open() as other:
        await engine.consume("later", seen, **member())
        await engine.publish_batch([due("later", in_(3600))])
        await engine.publish_batch([due("later", in_(1800))])
        await asyncio.sleep(0.05)  # sleeps: the timer is set to the half hour now
        await other.publish_batch([due("later", in_(0.1))])
        assert await seen.reaches(1, 3)
        assert lateness(seen)[0] >= 0
        assert len((await engine.pending()).items) == 2


@asynchronous
async def test_conf_44_what_is_pending_is_listed_by_due_time_and_paged(store: Store) -> None:
    start = in_(3600)
    async with store.open() as engine:
        wanted = {}
        for number in range(25):
            at = start + timedelta(microseconds=number * 7919 % 1000)
            wanted[at] = (await engine.publish("later", "p", due_at=at, key=f"k{number}")).id
        await engine.publish("other", "p", due_at=start)
        listed = []
        cursor = ""
        while True:
            page = await engine.pending("later", count_max=10, cursor=cursor)
            assert len(page.items) <= 10
            listed += page.items
            if not (cursor := page.cursor):
                break
        assert [(one.due_at, one.id) for one in listed] == sorted(wanted.items())
        assert {one.topic for one in listed} == {"later"} and all(one.payload_size for one in listed)
        assert len((await engine.pending()).items) == 26, "all topics"
        assert (await engine.statistics()).scheduled_now == 26


@asynchronous
async def test_conf_45_a_delayed_message_outlives_a_restart(store: Store) -> None:
    seen = Recorder()
    async with store.open() as engine:
        await make_group(engine, "later")
        missed = in_(0.02)
        await engine.publish_batch([due("later", in_(0.3)), due("later", missed)])
    await eventually_async(lambda: datetime.now(UTC) > missed)
    async with store.open() as engine:
        await engine.consume("later", seen, **member())
        assert await seen.reaches(2, 3)
        assert await seen.stays(2)
    assert lateness(seen)[0] >= 0


@asynchronous
async def test_conf_45_a_message_that_missed_its_time_by_too_much_is_a_dead_letter(store: Store) -> None:
    seen = Recorder()
    clock = StoppedClock()
    async with store.open(clock=clock) as engine:
        await engine.consume("later", seen, **member())
        await engine.publish("later", "strict", delay=0.03, skip_if_late_by=0.05)
        await engine.publish("later", "patient", delay=0.03, skip_if_late_by=3600)
        clock.advance(10)
        (entry,) = await reaches(engine, "later", 1)
        assert entry.reason == "expired" and entry.payload == b"strict"
        assert await seen.reaches(1)
        assert await seen.stays(1)
    assert seen.payloads == ["patient"]


@asynchronous
async def test_conf_46_thousands_due_at_once_are_each_fired_once_by_four_pollers(store: Store) -> None:
    seen = Recorder()
    async with AsyncExitStack() as stack:
        engines: list[Engine] = [await stack.enter_async_context(store.open()) for _ in range(4)]
        for engine in engines:
            await engine.consume("burst", seen, **member(concurrency=2))
        at = in_(1)
        batch = [{"topic": "burst", "payload": str(number), "due_at": at} for number in range(3000)]
        assert all(receipt.acked for receipt in await engines[0].publish_batch(batch))
        assert datetime.now(UTC) < at, "publishing took too long for the test to mean anything"
        assert await seen.reaches(3000)
        assert await seen.stays(3000, 0.2)
    assert len(seen.times) == 3000
    assert min(one.at for one in seen.all) >= at


@asynchronous
async def test_conf_46_messages_of_one_due_time_fire_in_the_order_they_were_put(store: Store) -> None:
    seen = Recorder()
    async with store.open() as engine:
        await engine.consume("burst", seen, ordering="key", **member())
        at = in_(1)
        for number in range(50):
            await engine.publish("burst", str(number), key="one", due_at=at)
        assert await seen.reaches(50)
    assert seen.payloads == [str(number) for number in range(50)]


@asynchronous
async def test_conf_47_of_cancelling_and_firing_exactly_one_wins(store: Store) -> None:
    seen = Recorder()
    async with store.open() as engine, store.open() as other:
        await engine.consume("race", seen, **member(concurrency=2))
        start = in_(0.5)
        times = [start + timedelta(milliseconds=4 * number) for number in range(300)]
        batch = [{"topic": "race", "payload": str(n), "due_at": at} for n, at in enumerate(times)]
        ids = [receipt.id for receipt in await engine.publish_batch(batch)]

        async def cancel(number: int) -> str:
            # From a little before to a little after its time.
            aim = times[number] + timedelta(milliseconds=2 * (number % 21 - 14))
            await asyncio.sleep((aim - datetime.now(UTC)).total_seconds())  # sleeps: until its time
            return await (engine if number % 4 < 2 else other).cancel(ids[number])

        answers = await asyncio.gather(*(cancel(number) for number in range(len(ids))))
        counts = Counter(answers)
        assert counts["done"] + counts["already_fired"] == len(ids)
        assert counts["already_fired"], "the race was never lost"
        assert counts["done"], "the race was never won"
        assert await seen.reaches(counts["already_fired"])
        assert await seen.stays(counts["already_fired"], 0.2)
        for number, answer in enumerate(answers):
            assert seen.times[str(number)] == (answer == "already_fired")
        assert not (await engine.pending()).items


def later(payload: str) -> dict[str, Any]:
    return {"topic": "later", "payload": payload, "delay": 3600}


@asynchronous
async def test_conf_47_cancel_and_reschedule_say_what_happened(store: Store) -> None:
    seen = Recorder()
    async with store.open() as engine:
        await engine.consume("later", seen, **member())
        cancelled = (await engine.publish("later", "cancelled", delay=3600)).id
        moved = (await engine.publish("later", "moved", delay=3600)).id
        plain = (await engine.publish("later", "plain")).id
        assert await engine.cancel(cancelled) == "done"
        assert await engine.cancel(cancelled) == "not_found", "it is gone"
        assert await engine.reschedule(cancelled, in_(0)) == "not_found"
        assert await engine.reschedule(moved, in_(7200)) == "done"
        assert (await engine.pending()).items[0].due_at >= in_(3600)
        assert await engine.reschedule(moved, in_(0.1)) == "done"
        assert await seen.reaches(2, 3)
        assert await engine.cancel(moved) == "already_fired"
        assert await engine.reschedule(moved, in_(3600)) == "already_fired"
        assert await engine.cancel("01020300-0000-0000-0000-000000000000") == "not_found"
        assert await engine.cancel(plain) != "done", "it was never delayed"
        others = [r.id for r in await engine.publish_batch([later(f"other {n}") for n in range(3)])]
        answers = await engine.cancel_batch([others[2], moved, others[0], others[2]])
        assert answers == ["done", "already_fired", "done", "not_found"]
        assert [one.id for one in (await engine.pending()).items] == [others[1]]
        assert await engine.cancel_batch([]) == []
        with pytest.raises(errors.InvalidIdError):
            await engine.cancel_batch([others[1], "none"])
        assert len((await engine.pending()).items) == 1, "nothing of what cannot be read is cancelled"
    assert "cancelled" not in seen.times


@asynchronous
async def test_conf_48_the_bounds_of_a_delay(store: Store) -> None:
    seen = Recorder()
    most = timedelta(days=366)
    async with store.open() as engine:
        await engine.consume("later", seen, **member())
        await engine.publish("later", "zero", delay=0)
        await engine.publish("later", "past", due_at=in_(-86_400))
        await engine.publish("later", "epoch", due_at=0.0)
        assert await seen.reaches(3, 3), "these mean now"
        longest = await engine.publish("later", "longest", delay=most)
        refused: list[dict[str, Any]] = [
            {"delay": most + timedelta(microseconds=1)},
            {"delay": timedelta(microseconds=-1)},
            {"due_at": datetime(9999, 1, 1, tzinfo=UTC)},
            {"delay": 1, "due_at": in_(3600)},
        ]
        for bad in refused:
            with pytest.raises(errors.InvalidDelayError) as error:
                await engine.publish("later", "p", **bad)
            assert error.value.context["outcome"] == "rejected"
        assert len((await engine.pending()).items) == 1
        with pytest.raises(errors.InvalidDelayError):
            await engine.reschedule(longest.id, datetime(9999, 1, 1, tzinfo=UTC))
        assert await engine.cancel(longest.id) == "done"


@asynchronous
async def test_conf_93_what_is_overdue_after_a_downtime_is_fired_at_the_catch_up_rate(store: Store) -> None:
    seen = Recorder()
    # No other engine keeps the store, where it lives in memory: it would fire at its own rate.
    async with Engine(store.url) as engine:
        await make_group(engine, "later")
        clock = StoppedClock()
        async with store.open(clock=clock, catch_up_rate_per_second=100) as slow:
            await slow.consume("later", seen, **member())
            for number in range(60):
                await slow.publish("later", str(number), delay=3000 + number / 1000)
            if store.provider == "memory":
                await engine.close()
            clock.step_wall(3600)
            rounds = 0
            while seen.count < 60:
                # Each hundredth of a second of the clock lets one more through, after a tenth at once.
                before = seen.count
                clock.advance(0.01)
                rounds += 1
                await eventually_async(lambda: seen.count > before, 0.05)
                assert seen.count <= 11 + rounds
                assert rounds < 1000
    assert len(seen.times) == 60
