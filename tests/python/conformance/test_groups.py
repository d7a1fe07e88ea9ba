"""Groups and topics: each group gets every message and its members share them; topics never mix; patterns
deliver once; members come and go without losing anything."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import pytest
from conftest import asynchronous, eventually_async

from conformance.suite import (
    LEASE,
    Recorder,
    Store,
    failure,
    holds,
    make_group,
    member,
    publish_numbers,
    reaches,
)
from towline import Consumer, Engine, Message


def matches(pattern: list[str], topic: list[str]) -> bool:
    """The rule in a few lines: `*` one word, `#` any number, a last `>` one or more."""
    if not pattern:
        return not topic
    if pattern[0] == "#":
        return any(matches(pattern[1:], topic[skip:]) for skip in range(len(topic) + 1))
    if not topic:
        return False
    if pattern == [">"]:
        return True
    return pattern[0] in ("*", topic[0]) and matches(pattern[1:], topic[1:])


@asynchronous
async def test_conf_19_each_group_gets_every_message(store: Store) -> None:
    groups = {name: Recorder() for name in ("first", "second")}
    async with store.open() as engine:
        for name, seen in groups.items():
            await engine.consume("orders", seen, **member(name, concurrency=4))
        await publish_numbers(engine, "orders", 500)
        await engine.settle_down(20)
    for name, seen in groups.items():
        assert seen.count == len(seen.times) == 500
        assert {one.group for one in seen.all} == {name}


@asynchronous
async def test_conf_19_one_groups_failures_are_not_the_others_business(store: Store) -> None:
    def fail(message: Message) -> None:
        raise failure("Broken", "always")

    good, bad = Recorder(), Recorder(fail)
    async with store.open() as engine:
        await engine.consume("orders", good, **member("good"))
        await engine.consume("orders", bad, **member("bad"))
        await publish_numbers(engine, "orders", 10)
        entries = await reaches(engine, "orders", 10)
    assert (good.count, bad.count) == (10, 30)
    assert {entry.group for entry in entries} == {"bad"}


@asynchronous
async def test_conf_20_members_of_a_group_share_the_work(store: Store) -> None:
    everybody = asyncio.Event()

    async def wait_for_the_others(message: Message) -> None:
        # The first ones wait for each other, so that nobody is done before the others are awake.
        if all(one.count for one in seen):
            everybody.set()
        await asyncio.wait_for(everybody.wait(), 10)

    seen = [Recorder(wait_for_the_others) for _ in range(4)]
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(store.open()) for _ in seen]
        for engine, recorder in zip(engines, seen, strict=True):
            await engine.consume("orders", recorder, **member(concurrency=2, prefetch_count=1))
        for first in range(0, 1000, 20):
            await publish_numbers(engines[0], "orders", 20, first)
        assert await eventually_async(lambda: sum(one.count for one in seen) >= 1000)
        assert await holds(lambda: sum(one.count for one in seen) == 1000, 0.1)
    assert len({payload for one in seen for payload in one.payloads}) == 1000


@asynchronous
async def test_conf_21_twenty_topics_never_mix(store: Store) -> None:
    topics = {f"topic.{number}": Recorder() for number in range(20)}
    async with store.open() as engine:
        for topic, seen in topics.items():
            await engine.consume(topic, seen, **member())
        await asyncio.gather(
            *(
                engine.publish_batch([{"topic": topic, "payload": f"{topic}/{n}"} for n in range(100)])
                for topic in topics
            )
        )
        await engine.settle_down(20)
    for topic, seen in topics.items():
        assert {one.topic for one in seen.all} == {topic}
        assert seen.times == {f"{topic}/{number}": 1 for number in range(100)}


@asynchronous
async def test_conf_21_topics_that_differ_only_in_a_mark_or_in_case_are_distinct(store: Store) -> None:
    topics = {topic: Recorder() for topic in ("a.b", "a_b", "a-b", "A.b", "ab", "a.b.c")}
    async with store.open() as engine:
        for topic, seen in topics.items():
            await engine.consume(topic, seen, **member())
        for topic in topics:
            await engine.publish(topic, topic)
        await engine.settle_down()
    for topic, seen in topics.items():
        assert seen.payloads == [topic]


@asynchronous
async def test_conf_22_patterns_match_as_the_reference_matcher_says(store: Store) -> None:
    patterns = "a a.b * a.* *.b # a.# #.c a.#.c *.* a.> *.#.c > #.b.#".split()
    topics = "a b a.b a.c b.c a.b.c a.x.y.c b.b a.b.b.c c".split()
    seen = {pattern: Recorder() for pattern in patterns}
    async with store.open() as engine:
        for number, (pattern, recorder) in enumerate(seen.items()):
            await engine.consume(pattern, recorder, **member(f"group-{number}"))
        for topic in topics:
            await engine.publish(topic, topic)
        await engine.settle_down(20)
    for pattern, recorder in seen.items():
        wanted = [topic for topic in topics if matches(pattern.split("."), topic.split("."))]
        assert sorted(recorder.payloads) == sorted(wanted), pattern


@asynchronous
async def test_conf_22_a_pattern_finds_topics_that_are_made_later(store: Store) -> None:
    seen = Recorder()
    async with store.open() as engine:
        await engine.consume("late.*", seen, **member())
        for number in range(5):
            await engine.publish(f"late.t{number}", str(number))
            assert await seen.reaches(number + 1)


@asynchronous
async def test_conf_23_overlapping_patterns_of_one_group_deliver_once(store: Store) -> None:
    together, apart = Recorder(), Recorder()
    async with store.open() as engine:
        await engine.consume(["a.*", "a.b", ">", "#"], together, **member("one"))
        for pattern in ("a.*", "a.b", ">"):
            await engine.consume(pattern, apart, **member("three"))
        await publish_numbers(engine, "a.b", 50)
        assert await together.reaches(50) and await apart.reaches(50)
        assert await holds(lambda: together.count == apart.count == 50, 0.2)


@asynchronous
async def test_conf_24_a_new_group_starts_where_it_asks_and_a_known_one_goes_on(store: Store) -> None:
    async with store.open() as engine:
        await engine.declare_topic("history", retention=3600)
        await make_group(engine, "history", "known")
        ids, times = [], []
        for number in range(10):
            times.append(datetime.now(UTC))
            ids.append((await engine.publish("history", str(number))).id)
            await asyncio.sleep(0.003)  # sleeps: so that the times differ
        starts = {
            "first": ("earliest", 0),
            "last": ("latest", 10),
            "after": (f"after:{ids[3]}", 4),
            "since": (f"at:{int(times[7].timestamp() * 1_000_000)}", 7),
            # The group was there before the messages: nothing is passed over.
            "known": ("latest", 0),
        }
        for group, (start, wanted) in starts.items():
            seen = Recorder()
            await engine.consume("history", seen, **member(group, start=start))
            await engine.publish("history", f"mark of {group}")
            assert await eventually_async(lambda: f"mark of {group}" in seen.times)
            await engine.settle_down()
            assert {n for n in range(10) if str(n) in seen.times} == set(range(wanted, 10)), group


@asynchronous
async def test_conf_25_a_consumer_that_closes_hands_back_what_it_holds(store: Store) -> None:
    held, seen = Recorder(), Recorder()
    # Only closing can be what hands them back.
    async with store.open(lease=3600) as engine, store.open(lease=3600) as other:
        leaver = await engine.consume("orders", held, **member(ack="manual", concurrency=10))
        await publish_numbers(engine, "orders", 10)
        assert await held.reaches(10)
        await other.consume("orders", seen, **member())
        assert await seen.stays(0)
        await leaver.close(0)
        assert await seen.reaches(10, LEASE)
    assert {(one.attempt, one.crashes) for one in seen.all} == {(1, 0)}, "giving back counts nothing"
    assert len(seen.times) == 10


@asynchronous
async def test_conf_26_fifty_joins_and_leaves_lose_nothing(store: Store) -> None:
    seen = Recorder()
    total = 2000

    async def publish(engine: Engine) -> None:
        for first in range(0, total, 50):
            await publish_numbers(engine, "churn", 50, first)

    async with store.open() as engine:
        await make_group(engine, "churn")
        publishing = asyncio.create_task(publish(engine))
        members: list[Consumer] = []
        for number in range(50):
            if len(members) >= 3:
                await members.pop(0).close()
            members.append(await engine.consume("churn", seen, **member(concurrency=1 + number % 3)))
        await publishing
        assert await eventually_async(lambda: len(seen.times) == total)
    assert seen.count == total, "members that close settle what they handled: no duplicates"


@asynchronous
async def test_conf_27_many_that_subscribe_and_close_leave_a_working_group(store: Store) -> None:
    async def come_and_go(engine: Engine) -> None:
        for _ in range(5):
            await (await engine.consume("churn", lambda: None, **member())).close()

    seen = Recorder()
    async with store.open() as engine:
        await make_group(engine, "churn")
        await asyncio.gather(*(come_and_go(engine) for _ in range(10)))
        await engine.consume("churn", seen, **member())
        await publish_numbers(engine, "churn", 50)
        assert await seen.reaches(50)
    assert len(seen.times) == 50


@asynchronous
async def test_conf_72_every_ephemeral_subscriber_sees_every_message_of_its_time(store: Store) -> None:
    first, second, late = Recorder(), Recorder(), Recorder()
    async with store.open() as engine, store.open() as other:
        await engine.publish("prices", "before")
        leaver = await engine.consume("prices", first, **member(""))
        await other.consume("prices.#", second, **member(""))
        await publish_numbers(engine, "prices", 100)
        assert await first.reaches(100) and await second.reaches(100)
        assert "before" not in first.times and len(first.times) == 100
        await leaver.close()
        await publish_numbers(engine, "prices", 10, 100)
        assert await second.reaches(110)
        await engine.consume("prices", late, **member(""))
        await publish_numbers(engine, "prices", 1, 1000)
        assert await late.reaches(1)
        assert late.payloads == ["1000"], "nothing was kept for it"


@asynchronous
async def test_conf_72_an_ephemeral_subscribers_failure_is_its_own_business(store: Store) -> None:
    def fail(message: Message) -> None:
        if message.payload == b"0":
            raise failure("Broken")

    seen = Recorder(fail)
    async with store.open() as engine:
        await engine.consume("prices", seen, **member(""))
        await publish_numbers(engine, "prices", 3)
        assert await eventually_async(lambda: len(seen.times) == 3)
        await engine.settle_down()
        assert not (await engine.dead_letters()).items


@asynchronous
async def test_conf_82_a_bus_topic_reaches_only_the_subscribers_of_the_moment(store: Store) -> None:
    seen = Recorder()
    async with store.open() as engine:
        await engine.declare_topic("bus", type="bus")
        await engine.publish("bus", "nobody")
        await engine.consume("bus", seen, **member(""))
        await publish_numbers(engine, "bus", 50)
        assert await seen.reaches(50)
    assert "nobody" not in seen.times


@pytest.mark.only("sqlite")
@asynchronous
async def test_conf_94_what_another_process_publishes_reaches_an_idle_consumer_at_once(store: Store) -> None:
    loop = asyncio.get_running_loop()
    async with store.open() as engine:
        child = store.child("echo")
        for waiting_count in (1, 6):
            seen = [Recorder() for _ in range(waiting_count)]
            for number, recorder in enumerate(seen):
                await engine.consume(f"pong-{number}", recorder, **member(f"{waiting_count}"))
            there_and_back = []
            for round in range(18):
                recorder = seen[round % waiting_count]
                before, begin = recorder.count, loop.time()
                await engine.publish("ping", f"pong-{round % waiting_count}")
                assert await recorder.reaches(before + 1)
                there_and_back.append(loop.time() - begin)
            # Who only looks once a second takes one on average, on the way there and back.
            assert sorted(there_and_back)[9] < 0.25, waiting_count
        child.kill()
