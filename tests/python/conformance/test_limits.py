"""Limits: how much runs, waits and is held at once; pausing; batches; and time."""

from __future__ import annotations

import asyncio
import random
import time

import pytest
from conftest import asynchronous, eventually_async

from conformance.suite import (
    LEASE,
    Recorder,
    StoppedClock,
    Store,
    all_settled,
    dead_letters,
    failure,
    holds,
    in_flight,
    make_group,
    member,
    publish_numbers,
    waiting,
)
from towline import Limiter, Message, Transaction, errors
from towline.testing import VirtualClock


class Gauge:
    def __init__(self) -> None:
        self.value = self.most = 0

    def __enter__(self) -> None:
        self.value += 1
        self.most = max(self.most, self.value)

    def __exit__(self, *_: object) -> None:
        self.value -= 1


@asynchronous
async def test_conf_54_never_more_handlers_than_the_limit_and_as_many(store: Store) -> None:
    gauge, full = Gauge(), asyncio.Event()

    async def work(message: Message) -> None:
        with gauge:
            # The first ones wait for each other, so that the limit is reached for certain.
            if gauge.value == 7:
                full.set()
            await asyncio.wait_for(full.wait(), 10)

    seen = Recorder(work)
    async with store.open() as engine:
        consumer = await engine.consume("orders", seen, **member(concurrency=7))
        await publish_numbers(engine, "orders", 1000)
        await engine.settle_down(20)
        assert consumer.statistics().running_max == gauge.most == 7
    assert len(seen.times) == seen.count == 1000


@asynchronous
async def test_conf_54_the_limit_may_be_raised_and_lowered_while_messages_flow(store: Store) -> None:
    gauge, limit, breaches = Gauge(), 2, 0

    async def work(message: Message) -> None:
        nonlocal breaches
        with gauge:
            breaches += gauge.value > limit
            await asyncio.sleep(0.0005)  # sleeps: its work, so that several overlap

    seen = Recorder(work)
    async with store.open() as engine:
        consumer = await engine.consume("orders", seen, **member(concurrency=2))
        await publish_numbers(engine, "orders", 500)
        assert await seen.reaches(50)
        limit = 9
        await consumer.set_concurrency(9)
        assert await eventually_async(lambda: gauge.most == 9 or seen.count == 500)
        assert gauge.most == 9, "the higher limit was not used"
        await consumer.set_concurrency(1)
        # Those that run may go on; once they have returned, one at a time.
        assert await eventually_async(lambda: gauge.value <= 1)
        limit = 1
        await publish_numbers(engine, "orders", 100, 500)
        assert await seen.reaches(600)
        assert breaches == 0
        for bad in (0, 4097):
            with pytest.raises(errors.InvalidConfigError):
                await consumer.set_concurrency(bad)


@asynchronous
async def test_conf_54_prefetch_bounds_what_is_held(store: Store) -> None:
    let_go = asyncio.Event()
    async with store.open() as engine:

        async def work() -> None:
            await let_go.wait()

        consumer = await engine.consume("orders", work, **member(concurrency=2, prefetch_count=5))
        await publish_numbers(engine, "orders", 100)
        assert await eventually_async(lambda: consumer.statistics().running == 2)
        assert await holds(lambda: consumer.statistics().in_flight <= 7, 0.1)
        held = await in_flight(engine)
        assert held <= 7 and held + await waiting(engine, "orders") == 100
        let_go.set()
        assert await eventually_async(lambda: consumer.statistics().acked == 100)


@asynchronous
async def test_conf_54_a_rate_limit_spreads_the_starts(store: Store) -> None:
    seen = Recorder()
    async with store.open() as engine:
        await make_group(engine, "orders")
        await publish_numbers(engine, "orders", 60)
        await engine.consume("orders", seen, **member(concurrency=4, rate_per_second=100))
        assert await seen.reaches(60)
    # 60 starts at 100/s with a few let through at the beginning.
    assert 0.3 <= seen.all[-1].started - seen.all[0].started <= 3


@asynchronous
async def test_conf_55_permits_return_to_their_limit_whoever_gives_up(store: Store) -> None:
    limiter, gauge = Limiter(5, waiting_max=100), Gauge()
    made = random.Random(55)
    ends: dict[str, int] = {}

    async def use() -> str:
        try:
            with await limiter.acquire(timeout=made.random()):
                with gauge:
                    await asyncio.sleep(made.random() / 50)  # sleeps: its work
                return "granted"
        except errors.TimeoutError:
            return "timed out"
        except errors.OverloadedError:
            return "refused"

    tasks = [asyncio.create_task(use()) for _ in range(1000)]
    for task in tasks[::4]:
        asyncio.get_running_loop().call_later(made.random(), task.cancel)
    for end in await asyncio.gather(*tasks, return_exceptions=True):
        name = end if isinstance(end, str) else type(end).__name__
        ends[name] = ends.get(name, 0) + 1
    assert sum(ends.values()) == 1000 and ends["granted"] and ends["refused"]
    assert gauge.most <= 5
    statistics = limiter.statistics()
    assert (statistics.limit, statistics.in_use, statistics.waiting) == (5, 0, 0), ends
    held = [limiter.try_acquire() for _ in range(6)]
    assert held[4] is not None and held[5] is None


@asynchronous
async def test_conf_55_permits_are_handed_over_in_the_order_of_asking(store: Store) -> None:
    limiter = Limiter(1, waiting_max=200)
    order: list[int] = []
    held = await limiter.acquire()

    async def ask(number: int) -> None:
        with await limiter.acquire():
            order.append(number)

    waiters = [asyncio.create_task(ask(number)) for number in range(200)]
    assert await eventually_async(lambda: limiter.statistics().waiting == 200)
    with pytest.raises(errors.OverloadedError):
        await limiter.acquire()
    for waiter in waiters[::2]:
        waiter.cancel()
    assert await eventually_async(lambda: limiter.statistics().waiting == 100)
    assert limiter.try_acquire() is None, "nobody slips in while others wait"
    held.release()
    held.release()
    await asyncio.gather(*waiters, return_exceptions=True)
    assert order == list(range(1, 200, 2))
    assert limiter.statistics().in_use == 0


@asynchronous
async def test_conf_57_a_paused_consumer_takes_nothing_in_until_it_is_resumed(store: Store) -> None:
    seen = Recorder()
    async with store.open() as engine:
        consumer = await engine.consume("orders", seen, **member())
        await publish_numbers(engine, "orders", 10)
        assert await seen.reaches(10)
        await consumer.pause()
        await consumer.pause()
        await consumer.drain(5)
        assert consumer.statistics().paused
        await publish_numbers(engine, "orders", 200, 10)
        assert await seen.stays(10, 0.2)
        assert await waiting(engine, "orders") == 200
        await consumer.resume()
        await consumer.resume()
        assert await seen.reaches(210)
        assert not consumer.statistics().paused
    assert len(seen.times) == 210


@asynchronous
async def test_conf_57_draining_waits_for_what_runs_and_says_when_it_cannot(store: Store) -> None:
    let_go = asyncio.Event()

    async def work(message: Message) -> None:
        await let_go.wait()

    seen = Recorder(work)
    async with store.open() as engine:
        consumer = await engine.consume("orders", seen, **member())
        await publish_numbers(engine, "orders", 3)
        assert await seen.reaches(1)
        with pytest.raises(errors.TimeoutError):
            await consumer.drain(0.1)
        let_go.set()
        await consumer.drain(5)
        assert consumer.statistics().in_flight == 0
        await consumer.resume()
        assert await seen.reaches(3)


@asynchronous
async def test_conf_79_a_batch_is_handled_together_and_settled_one_by_one_where_it_says_so(
    store: Store,
) -> None:
    sizes: list[int] = []
    seen = Recorder()

    async def handle(messages: list[Message]) -> None:
        sizes.append(len(messages))
        fail = False
        for message in messages:
            seen.note(message)
            number = int(message.payload)
            if number == 7:
                message.reject("seven")
            elif number == 8 and message.attempt == 1:
                message.nak(0)
            elif number % 2 == 0:
                message.ack()
            elif number == 9 and message.attempt == 1:
                fail = True
        if fail:
            raise failure("Broken", "the batch of 9")

    async with store.open() as engine:
        await make_group(engine, "orders")
        await publish_numbers(engine, "orders", 100)
        consumer = await engine.consume("orders", handle, batch=True, **member(batch_count_max=40))
        assert await eventually_async(lambda: consumer.statistics().acked == 99)
        assert len(await dead_letters(engine, "orders")) == 1
    assert {number: seen.times[number] for number in "7 8 9 10".split()} == {"7": 1, "8": 2, "9": 2, "10": 1}
    assert max(sizes) == 40


@pytest.mark.only("sqlite")
@asynchronous
async def test_conf_80_a_transaction_that_fails_leaves_nothing_and_a_good_one_everything(
    store: Store,
) -> None:
    counts: list[int] = []

    async def handle(message: Message) -> None:
        def body(transaction: Transaction, good: bool) -> None:
            transaction.execute("CREATE TABLE IF NOT EXISTS effect(name TEXT, amount INTEGER)")
            transaction.execute("INSERT INTO effect VALUES (?1, ?2)", ["charge", 42])
            transaction.publish("follow-ups", "good" if good else "bad")
            transaction.complete("scope", "key", "result")
            counts.append(len(transaction.execute("SELECT amount FROM effect")))
            for forbidden in ("COMMIT", "BEGIN", "ATTACH 'x' AS y", "PRAGMA synchronous=OFF"):
                with pytest.raises(errors.InvalidArgumentError):
                    transaction.execute(forbidden)
            if not good:
                raise failure("No")

        with pytest.raises(Exception) as raised:
            message.transaction(lambda transaction: body(transaction, False))
        assert type(raised.value).__name__ == "No"
        message.transaction(lambda transaction: body(transaction, True))
        with pytest.raises(errors.AlreadySettledError):
            message.ack()

    follow_ups = Recorder()
    async with store.open() as engine:
        await make_group(engine, "follow-ups")
        await engine.consume("orders", handle, **member(ack="manual"))
        await engine.publish("orders", "p")
        await eventually_async(lambda: len(counts) == 2)
        assert await all_settled(engine, "orders")
        assert counts == [1, 1], "the first effect was rolled back"
        await engine.consume("follow-ups", follow_ups, **member())
        assert await follow_ups.reaches(1)
        assert await follow_ups.stays(1)
        assert follow_ups.payloads == ["good"]

        async def never() -> str:
            raise AssertionError("it has a result")

        assert await engine.once("key", never, scope="scope") == b"result"


@pytest.mark.only("memory")
@asynchronous
async def test_conf_84_with_a_virtual_clock_a_day_passes_in_one_call(store: Store) -> None:
    def flaky(message: Message) -> None:
        if message.payload == b"flaky" and message.attempt < 3:
            raise failure("Flaky")

    clock, seen = VirtualClock(), Recorder(flaky)
    hourly = {"kind": "fixed", "initial_delay": 3600, "delay_max": 3600, "jitter": "none"}
    begin = time.monotonic()
    async with store.open(clock=clock) as engine:
        await engine.consume("orders", seen, **member(retry=hourly))
        await engine.publish("orders", "tomorrow", delay=86_400)
        await engine.publish("orders", "flaky")
        for hours, count in ((0, 1), (1, 2), (1, 3), (21.9, 3), (0.1, 4)):
            await clock.advance_and_settle(engine, hours * 3600)
            assert seen.count == count, hours
    assert seen.payloads[-1] == "tomorrow"
    assert time.monotonic() - begin < 5


@asynchronous
async def test_conf_87_a_stepped_wall_clock_moves_due_times_and_takes_nothing_away(store: Store) -> None:
    let_go = asyncio.Event()

    async def work(message: Message) -> None:
        await let_go.wait()

    seen, fired = Recorder(work), Recorder()
    clock = StoppedClock()
    async with store.open(clock=clock, lease=LEASE) as engine:
        running = await engine.consume("work", seen, **member("slow"))
        await engine.consume("later", fired, **member())
        await engine.publish("work", "p")
        await engine.publish("later", "in an hour", delay=3600)
        assert await seen.reaches(1)
        for step in (1800, -7200):
            clock.step_wall(step)
            assert await fired.stays(0)
        clock.step_wall(3 * 3600)
        for _ in range(500):
            clock.advance(0.01)  # the engine looks at the wall's clock when something else lets it
            if await fired.reaches(1, 0.01):
                break
        assert fired.count == 1, "a step forward makes it due"
        assert await seen.stays(1, LEASE), "a step took a running message away"
        let_go.set()
        assert await eventually_async(lambda: running.statistics().acked == 1)
        assert running.statistics().lease_lost == 0


@asynchronous
async def test_conf_89_all_consumers_of_an_engine_together_hold_no_more_than_its_limit(store: Store) -> None:
    let_go = asyncio.Event()

    async def work(message: Message) -> None:
        await let_go.wait()

    seen = Recorder(work)
    async with store.open(in_flight_count_max=10) as engine:
        consumers = [
            await engine.consume("orders", seen, **member(f"group-{n}", prefetch_count=50)) for n in range(4)
        ]
        await publish_numbers(engine, "orders", 100)

        def held() -> int:
            return sum(one.statistics().in_flight for one in consumers)

        assert await eventually_async(lambda: held() > 0)
        # Several lanes may look at the room that is left at the same time, each for one hand-out.
        assert await holds(lambda: held() <= 40, 0.2)
        let_go.set()
        assert await seen.reaches(400)
        assert await seen.stays(400)
