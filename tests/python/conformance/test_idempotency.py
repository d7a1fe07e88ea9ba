"""The idempotency store: one execution per key at a time, its result for everybody who asks again, and a
failure is never a result."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

import pytest
from conftest import asynchronous, eventually_async

from conformance.suite import (
    Recorder,
    Store,
    all_settled,
    dead_letters,
    failure,
    make_group,
    member,
)
from towline import Message, errors


class Work:
    """Counts its runs, and answers with what it is told."""

    def __init__(self, result: Any = "done", seconds: float = 0) -> None:
        self.runs = 0
        self._result = result
        self._seconds = seconds

    async def __call__(self) -> Any:
        self.runs += 1
        await asyncio.sleep(self._seconds)  # sleeps: its work
        if isinstance(self._result, Exception):
            raise self._result
        return self._result


@asynchronous
async def test_conf_49_sixteen_callers_of_one_key_run_it_once_and_share_the_result(store: Store) -> None:
    work = Work("result", 0.05)
    async with store.open() as engine, store.open() as other:
        results = await asyncio.gather(
            *(each.once("charge-17", work, wait_max=10) for each in (engine, other) * 8)
        )
    assert work.runs == 1 and results == ["result"] * 16


@asynchronous
async def test_conf_49_without_waiting_the_others_are_told_that_it_is_in_progress(store: Store) -> None:
    let_go = asyncio.Event()

    async def run() -> str:
        await let_go.wait()
        return "done"

    async with store.open() as engine, store.open() as other:
        running = asyncio.create_task(engine.once("charge", run))
        await asyncio.sleep(0.1)  # sleeps: until it runs
        for each in (engine, other):
            with pytest.raises(errors.InProgressError) as refused:
                await each.once("charge", Work())
            assert refused.value.context["retry_after"] > 0
        let_go.set()
        assert await running == await other.once("charge", Work("other")) == "done"


@asynchronous
async def test_conf_49_nothing_is_a_result_too(store: Store) -> None:
    async with store.open() as engine:
        for number, value in enumerate((None, 0, False, "", b"", b"\0", [], {})):
            work = Work(value)
            for _ in range(3):
                result = await engine.once("falsy", work, scope=f"scope-{number}")
                assert result == value and type(result) is type(value)
            assert work.runs == 1


@asynchronous
async def test_conf_49_scopes_never_meet(store: Store) -> None:
    async with store.open() as engine:
        assert await engine.once("key", Work("of a"), scope="a") == "of a"
        assert await engine.once("key", Work("of b"), scope="b") == "of b"
        assert await engine.once("key", Work("of none")) == "of none"
        assert await engine.once("key", Work("again"), scope="a") == "of a"
        assert (await engine.statistics()).idempotency_records == 3


@asynchronous
async def test_conf_49_a_result_outlives_a_restart_and_ends_with_its_time_to_live(store: Store) -> None:
    begin = time.monotonic()
    async with store.open() as engine:
        await engine.once("key", Work("first"), ttl=1)
    async with store.open() as engine:
        assert await engine.once("key", Work("second"), ttl=1) == "first"
        while await engine.once("key", Work("second"), ttl=1) != "second":
            await asyncio.sleep(0.01)  # sleeps: between two tries
    assert time.monotonic() - begin >= 1


@asynchronous
async def test_conf_49_a_runner_that_is_late_loses_its_key_and_its_result(store: Store) -> None:
    async with store.open() as engine, store.open() as other:
        late = asyncio.create_task(engine.once("key", Work("late", 0.6), lease=0.1))
        await asyncio.sleep(0.05)  # sleeps: until it runs
        assert await other.once("key", Work("right"), lease=0.1, wait_max=10) == "right"
        with pytest.raises(errors.LeaseLostError):
            await late
        assert await engine.once("key", Work("again")) == "right"


@asynchronous
async def test_conf_51_the_same_key_with_another_payload_is_a_mistake(store: Store) -> None:
    work = Work("again")
    async with store.open() as engine:
        running = asyncio.create_task(engine.once("key", Work("done", 0.2), fingerprint="one"))
        await asyncio.sleep(0.1)  # sleeps: until it runs
        for _ in ("while it runs", "after it ran"):
            with pytest.raises(errors.KeyMismatchError):
                await engine.once("key", work, fingerprint="two")
            await running
        assert await engine.once("key", work, fingerprint="one") == "done"
        assert await engine.once("key", work) == "done", "without a fingerprint it is not compared"
    assert work.runs == 0


@asynchronous
async def test_conf_53_a_failure_is_not_a_result(store: Store) -> None:
    failing = Work(failure("No"))
    async with store.open() as engine:
        for _ in range(3):
            with pytest.raises(Exception) as raised:
                await engine.once("key", failing)
            assert type(raised.value).__name__ == "No"
        assert failing.runs == 3, "the key is free at once"
        assert await engine.once("key", Work("yes")) == "yes"
        assert await engine.once("key", Work("again")) == "yes"


@asynchronous
async def test_conf_53_a_first_attempt_that_failed_is_retried_and_not_taken_for_a_duplicate(
    store: Store,
) -> None:
    def flaky(message: Message) -> None:
        if message.attempt == 1:
            raise failure("Flaky")

    seen = Recorder(flaky)
    async with store.open() as engine:
        consumer = await engine.consume("orders", seen, **member(inbox_window=86_400))
        await engine.publish("orders", "p")
        assert await eventually_async(lambda: consumer.statistics().acked == 1)
        assert seen.count == 2 and consumer.statistics().duplicates == 0
        assert not await dead_letters(engine)


@pytest.mark.only("sqlite")
@asynchronous
async def test_conf_50_a_key_whose_runner_died_is_run_again_after_its_lease(store: Store) -> None:
    async with store.open() as engine:
        assert await store.child("once").wait() == -signal.SIGKILL
        with pytest.raises(errors.InProgressError):
            await engine.once("charge", Work("stolen"))
        children = [store.child("once"), store.child("once")]
        assert [await child.wait() for child in children] == [0, 0]
        assert store.ledger.count("run") == 2, "by the one that died, and by one of the others"
        assert store.ledger.count("result charged") == 2
        assert await engine.once("charge", Work("again")) == "charged"


@pytest.mark.only("sqlite")
@asynchronous
async def test_conf_52_effect_message_and_record_are_one_wherever_the_process_dies(store: Store) -> None:
    points = ("begin", "effect", "publish", "complete", "end")
    wanted = {f"{round} {point}" for round in range(2) for point in points}
    follow_ups = Recorder()

    async with store.open() as engine:
        for topic in ("effects", "follow-ups"):
            await make_group(engine, topic)

        async def prepare(message: Message) -> None:
            message.transaction(lambda sql: sql.execute("CREATE TABLE effect(name TEXT NOT NULL)") and None)

        await engine.consume("table", prepare, **member("table", ack="manual"))
        await engine.publish("table", "make")
        assert await all_settled(engine, "table", "table")
        for name in sorted(wanted):
            await engine.publish("effects", name)
        deaths = 0
        child = store.child("transaction")
        while deaths < len(wanted):
            if child.status is not None:
                deaths += 1
                child = store.child("transaction")
            await asyncio.sleep(0.01)  # sleeps: between two looks
        assert await all_settled(engine, "effects")
        child.kill()
        assert store.ledger.count("died") == len(wanted)
        await engine.consume("follow-ups", follow_ups, **member())
        assert await follow_ups.reaches(len(wanted))
        assert await follow_ups.stays(len(wanted), 0.2), "a follow-up was doubled"
        never = Work("it has a result")
        for name in wanted:
            assert await engine.once(name, never, scope="effects") == b"stored"
    assert never.runs == 0
    assert sorted(name for (name,) in store.run_sql("SELECT name FROM effect")) == sorted(wanted)
