"""Consuming: acknowledging removes, nak brings back, a lease protects and its loss is noticed. The holder
that loses its lease is an engine whose clock stands still: to everybody else it is a process that stopped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median

import pytest
from conftest import asynchronous, eventually_async

from conformance.suite import (
    LEASE,
    Recorder,
    StoppedClock,
    Store,
    all_settled,
    becomes,
    dead_letters,
    in_flight,
    member,
    publish_numbers,
    reaches,
    retrying,
    waiting,
)
from towline import Consumer, Engine, Message, Retry, errors


@asynchronous
async def test_conf_03_what_is_acknowledged_never_comes_back(store: Store) -> None:
    seen = Recorder()
    async with store.open(lease=LEASE) as engine:
        consumer = await engine.consume("orders", seen, **member())
        await publish_numbers(engine, "orders", 100)
        assert await seen.reaches(100)
        await consumer.close()
        await engine.consume("orders", seen, **member())
        assert await seen.stays(100, 2 * LEASE)
        assert await waiting(engine, "orders") == 0
    assert len(seen.times) == 100


@asynchronous
async def test_conf_05_nak_brings_it_back_at_once_as_the_next_attempt(store: Store) -> None:
    def settle(message: Message) -> None:
        message.nak(0, "not yet") if message.attempt == 1 else message.ack()

    seen = Recorder(settle)
    # Only nak(0) can be what brings it back: the policy would wait for half a minute.
    patient = member(ack="manual", retry=retrying(initial_delay=30, delay_max=30))
    async with store.open(lease=LEASE) as engine:
        consumer = await engine.consume("naks", seen, **patient)
        receipt = await engine.publish("naks", "p")
        assert await seen.reaches(2)
        await consumer.drain(5)
    assert [(one.id, one.attempt, one.payload) for one in seen.all] == [
        (receipt.id, 1, "p"),
        (receipt.id, 2, "p"),
    ]


@asynchronous
async def test_conf_05_nak_counts_as_an_attempt_and_ends_in_the_dead_letters(store: Store) -> None:
    seen = Recorder(lambda message: message.nak(0, "never"))
    async with store.open() as engine:
        await engine.consume("naks", seen, **member(ack="manual"))
        await engine.publish("naks", "p")
        (entry,) = await reaches(engine, "naks", 1)
    assert seen.count == 3 and entry.reason == "exhausted" and entry.error_message == "never"


@asynchronous
async def test_conf_06_nak_with_a_delay_waits_that_long_and_not_much_longer(store: Store) -> None:
    def later(message: Message) -> None:
        if message.attempt == 1:
            raise Retry("later", after=0.5)

    seen = Recorder(later)
    async with store.open() as engine:
        await engine.consume("naks", seen, **member(concurrency=4))
        await publish_numbers(engine, "naks", 20)
        assert await seen.reaches(40)
    assert len(seen.waits()) == 20
    assert min(seen.waits()) >= 0.5
    assert median(seen.waits()) <= 0.75


class Holder:
    """A consumer that took one message and then stopped in time."""

    def __init__(self, engine: Engine, clock: StoppedClock) -> None:
        self.engine = engine
        self.clock = clock
        self.messages: list[Message] = []
        self.consumer: Consumer

    @property
    def message(self) -> Message:
        return self.messages[0]

    async def learns_of_its_loss(self) -> bool:
        self.clock.catch_up()
        return await eventually_async(lambda: self.consumer.statistics().lease_lost == 1)


@asynccontextmanager
async def holder_on(store: Store, topic: str) -> AsyncIterator[Holder]:
    clock = StoppedClock()
    store.keep()
    async with store.open(lease=LEASE, clock=clock) as engine:
        holder = Holder(engine, clock)

        async def take(message: Message) -> None:
            holder.messages.append(message)

        holder.consumer = await engine.consume(topic, take, **member(ack="manual"))
        await engine.publish(topic, "p")
        assert await eventually_async(lambda: bool(holder.messages))
        await holder.consumer.pause()
        try:
            yield holder
        finally:
            clock.catch_up()  # nothing that closing waits for ends while time stands still
            await engine.close(0)


@asynchronous
async def test_conf_07_a_message_goes_to_another_consumer_when_the_lease_of_its_holder_ends(
    store: Store,
) -> None:
    seen = Recorder()
    begin = time.monotonic()
    async with holder_on(store, "leases") as holder, store.open(lease=LEASE) as engine:
        await engine.consume("leases", seen, **member())
        assert await seen.reaches(1)
        assert seen.all[0].started - begin >= LEASE / 2, "taken away before the lease ended"
        assert seen.all[0].redelivered, "the first handling may have had its effect"
        assert seen.all[0].attempt == 1, "a lost lease is not a failure of the handler"
        assert await holder.learns_of_its_loss()
        assert await seen.stays(1, LEASE)


@asynchronous
async def test_conf_08_a_late_acknowledgement_is_refused_and_changes_nothing(store: Store) -> None:
    second: list[Message] = []

    async def take(message: Message) -> None:
        second.append(message)

    async with holder_on(store, "leases") as holder, store.open(lease=60) as engine:
        await engine.consume("leases", take, **member(ack="manual"))
        assert await eventually_async(lambda: bool(second))
        assert await holder.learns_of_its_loss()
        for late in (holder.message.ack, holder.message.nak, lambda: holder.message.reject("late")):
            with pytest.raises(errors.LeaseLostError):
                late()
        assert await in_flight(engine) == 1, "the new holder still has it"
        second[0].ack()
        assert await all_settled(engine, "leases")
        assert not await dead_letters(engine)


@asynchronous
async def test_conf_08_the_handler_is_told_that_its_result_no_longer_counts(store: Store) -> None:
    started, stopped = asyncio.Event(), asyncio.Event()

    async def handle(message: Message) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.set()
            raise

    seen = Recorder()
    clock = StoppedClock()
    store.keep()
    async with store.open(lease=LEASE, clock=clock) as stopping, store.open() as engine:
        holder = await stopping.consume("leases", handle, **member())
        await engine.publish("leases", "p")
        await started.wait()
        await holder.pause()
        await engine.consume("leases", seen, **member())
        assert await seen.reaches(1)
        assert not stopped.is_set()
        clock.catch_up()
        await asyncio.wait_for(stopped.wait(), 10)
        assert await eventually_async(lambda: holder.statistics().lease_lost == 1)
        await stopping.close(0)


@asynchronous
async def test_conf_09_a_handler_that_extends_may_take_longer_than_its_timeout(store: Store) -> None:
    async def slow(message: Message) -> None:
        begin = time.monotonic()
        while time.monotonic() - begin < 3 * LEASE:
            message.extend(LEASE)
            await asyncio.sleep(LEASE / 4)  # sleeps: its work

    seen = Recorder(slow)
    async with store.open(lease=LEASE) as engine:
        consumer = await engine.consume("slow", seen, **member(handler_timeout=LEASE))
        await engine.publish("slow", "p")
        assert await eventually_async(lambda: consumer.statistics().acked == 1)
        assert await seen.stays(1, LEASE)
        assert consumer.statistics().timed_out == 0


@asynchronous
async def test_conf_09_a_handler_within_its_timeout_keeps_its_lease_without_extending(store: Store) -> None:
    async def slow(message: Message) -> None:
        await asyncio.sleep(3 * LEASE)  # sleeps: its work

    seen = Recorder(slow)
    async with store.open(lease=LEASE) as engine, store.open(lease=LEASE) as other:
        consumers = [await each.consume("slow", seen, **member()) for each in (engine, other)]
        await engine.publish("slow", "p")
        assert await eventually_async(lambda: sum(one.statistics().acked for one in consumers) == 1)
    assert seen.count == 1


@asynchronous
async def test_conf_09_progress_gives_the_handler_its_time_again(store: Store) -> None:
    async def slow(message: Message) -> None:
        for step in range(8):
            message.progress(f"step {step}")
            await asyncio.sleep(LEASE / 3)  # sleeps: its work

    seen = Recorder(slow)
    async with store.open(lease=LEASE) as engine:
        consumer = await engine.consume("slow", seen, **member(handler_timeout=LEASE))
        await engine.publish("slow", "p")
        assert await eventually_async(lambda: consumer.statistics().acked == 1)
    assert seen.count == 1


@asynchronous
async def test_conf_09_a_handler_past_its_timeout_has_failed_and_its_late_result_is_void(
    store: Store,
) -> None:
    let_go = asyncio.Event()

    async def slow(message: Message) -> None:
        if message.attempt > 1:
            return
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await let_go.wait()
            with pytest.raises(errors.LeaseLostError):
                message.extend(1)

    seen = Recorder(slow)
    async with store.open() as engine:
        consumer = await engine.consume("slow", seen, **member(concurrency=2, handler_timeout=0.2))
        await engine.publish("slow", "p")
        assert await seen.reaches(2)
        assert seen.all[1].attempt == 2
        assert await eventually_async(lambda: consumer.statistics().acked == 1)
        assert consumer.statistics().timed_out == 1
        assert consumer.statistics().stuck == 1, "it has not returned yet"
        let_go.set()
        assert await eventually_async(lambda: consumer.statistics().stuck == 0)
        assert await seen.stays(2, 0.2) and consumer.statistics().acked == 1


@asynchronous
async def test_conf_10_extending_a_lost_lease_is_refused(store: Store) -> None:
    seen = Recorder()
    async with holder_on(store, "leases") as holder, store.open() as engine:
        await engine.consume("leases", seen, **member())
        assert await seen.reaches(1)
        assert await holder.learns_of_its_loss()
        with pytest.raises(errors.LeaseLostError):
            holder.message.extend(1)
        with pytest.raises(errors.LeaseLostError):
            holder.message.progress("still here")
        assert await seen.stays(1)


@asynchronous
async def test_conf_11_the_second_settlement_is_refused_and_changes_nothing(store: Store) -> None:
    taken: list[Message] = []

    async def take(message: Message) -> None:
        taken.append(message)

    async with store.open() as engine:
        consumer = await engine.consume(
            "twice", take, **member(ack="manual", concurrency=4, prefetch_count=10)
        )
        await publish_numbers(engine, "twice", 4)
        assert await eventually_async(lambda: len(taken) == 4)
        taken[0].ack()
        taken[1].nak(3600)
        for message in taken[:2]:
            for again in (
                message.ack,
                lambda one=message: one.nak(0),
                lambda one=message: one.reject("late"),
                lambda one=message: one.defer(0.001),
                lambda one=message: one.extend(1),
            ):
                with pytest.raises(errors.AlreadySettledError):
                    again()
        taken[2].ack()
        last = taken[3]

        async def two_left() -> bool:
            return await in_flight(engine) == 1

        assert await becomes(two_left), "what was decided became durable"
        await consumer.close(0)
        with pytest.raises(errors.ClosedError):
            last.ack()
        assert last.payload, "the payload outlives the consumer"
        assert await in_flight(engine) == 0
        assert await waiting(engine, "twice") == 1, "closing gave back the one that was not settled"
        assert not await dead_letters(engine)
        seen = Recorder()
        await engine.consume("twice", seen, **member())
        assert await seen.reaches(1)
        assert await seen.stays(1, 0.2)
        assert seen.all[0].id == last.id
