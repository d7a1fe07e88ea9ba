"""Sagas: forwards, backwards, by hand, over commands, and through the death of whoever runs them."""

from __future__ import annotations

import asyncio
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import asynchronous, eventually, eventually_async

from conformance.suite import Recorder, Store, becomes, failure, member, retrying
from towline import Engine, Message, Saga, SagaCall, SagaStep, errors


class Effects:
    """What the steps of a saga did, in order; a compensation with a minus before it."""

    def __init__(self) -> None:
        self.all: list[str] = []

    def add(self, call: SagaCall) -> None:
        self.all.append(("-" if call.compensates else "") + call.step)

    async def note(self, call: SagaCall) -> None:
        self.add(call)

    def fail(self, times: int = 1_000_000) -> Any:
        """Fails as often as it is said, then succeeds."""
        left = times

        async def failing(call: SagaCall) -> None:
            nonlocal left
            self.add(call)
            left -= 1
            if left >= 0:
                raise failure("NotNow", "no")

        return failing


def quick(max_attempts: int = 3, **changes: Any) -> Any:
    retry = retrying(max_attempts, initial_delay=0.005)
    return {"retry": retry, "compensation_retry": retry, **changes}


def letters(effects: Effects, count: int, type: str = "order", version: int = 1) -> Saga:
    """Steps a, b, c, ..., each with a compensation."""
    saga = Saga(type, version=version)
    for name in "abcdef"[:count]:
        saga.step(name, effects.note, effects.note, **quick())
    return saga


async def status_of(engine: Engine, type: str, id: str) -> str:
    found = await engine.sagas.find(type, id)
    assert found is not None
    return found.status


# ---- forwards -------------------------------------------------------------------------------------------


@asynchronous
async def test_conf_58_five_steps_run_once_each_and_hand_on_the_context(store: Store) -> None:
    effects, published = Effects(), Recorder()

    async def run(call: SagaCall) -> str:
        effects.add(call)
        assert call.attempt == 1 and not call.compensates
        assert call.key == f"order/o-1/{call.step}/execute"
        assert call.output_of("b") == ("output of b" if call.step > "b" else None)
        call.set_context([*call.context, call.step])
        call.publish("done", call.step)
        return "output of " + call.step

    saga = Saga("order")
    for name in "abcde":
        saga.step(name, run, effects.note)
    async with store.open() as engine:
        await engine.consume("done", published, **member())
        async with engine.run_saga(saga):
            started = await engine.sagas.start(saga, [], id="o-1")
            assert started.is_new and started.id == "o-1"
            result = await engine.sagas.result("order", "o-1", 20)
            assert result.saga.status == "completed"
            assert result.context == list("abcde")
            assert effects.all == list("abcde")
            assert await published.reaches(5)
            assert not (await engine.sagas.start(saga, [], id="o-1")).is_new
            with pytest.raises(errors.ConflictError):
                await engine.sagas.start(saga, ["other"], id="o-1")
            await engine.settle_down()
        assert len(effects.all) == 5
        timeline = await engine.sagas.timeline("order", "o-1")
        marks = [one.mark + one.step for one in timeline]
        assert marks == ["begun", *(mark + name for name in "abcde" for mark in ("started", "done"))]
        assert [one.output for one in timeline if one.mark == "done"] == [f"output of {c}" for c in "abcde"]


def test_conf_58_plain_functions_run_in_threads(store: Store) -> None:
    both, ran = threading.Barrier(2), []

    def meet(call: SagaCall) -> None:
        both.wait(20)
        ran.append(call.step)

    trip = Saga("trip").parallel(SagaStep("hotel", meet, meet), SagaStep("flight", meet, meet))
    trip.step("pay", lambda call: ran.append(call.step), changes_nothing=True)

    async def on_a_loop() -> None:
        async with store.open() as engine, engine.run_saga(trip):
            await engine.sagas.start(trip, id="first")
            assert (await engine.sagas.result("trip", "first", 20)).saga.status == "completed"

    asyncio.run(on_a_loop())
    with Engine(store.url) as engine, engine.run_saga(trip) as runner:
        engine.sagas.start(trip, id="second")
        assert engine.sagas.result("trip", "second", 20).saga.status == "completed"
        # A runner counts a saga right after everybody can see its end.
        assert eventually(lambda: runner.statistics().completed == 1)
        assert runner.statistics().calls == 3
    assert [sorted(ran[:2]), ran[2], sorted(ran[3:5]), ran[5]] == [["flight", "hotel"], "pay"] * 2


@asynchronous
async def test_conf_58_branches_run_side_by_side_and_what_follows_waits_for_all(store: Store) -> None:
    effects, here, both = Effects(), 0, asyncio.Event()

    async def meet(call: SagaCall) -> None:
        nonlocal here
        here += 1
        if here == 2:
            both.set()
        await asyncio.wait_for(both.wait(), 20)
        with pytest.raises(errors.InvalidArgumentError):
            call.set_context("no")
        effects.add(call)

    saga = Saga("trip").step("plan", effects.note, effects.note)
    saga.parallel(SagaStep("hotel", meet, effects.note), SagaStep("flight", meet, effects.note))
    saga.step("pay", effects.note, effects.note)
    async with store.open() as engine, engine.run_saga(saga):
        await engine.sagas.start(saga, id="t")
        assert (await engine.sagas.result("trip", "t", 20)).saga.status == "completed"
    assert (effects.all[0], sorted(effects.all[1:3]), effects.all[3:]) == (
        "plan", ["flight", "hotel"], ["pay"]
    )


async def waits_at(engine: Engine, step: str) -> None:
    """Until the saga "o" is at this step."""

    async def waits() -> bool:
        found = await engine.sagas.find("order", "o")
        return found is not None and found.step == step

    assert await becomes(waits)


def with_command(effects: Effects, timeout: float) -> Saga:
    """Its step "charge" is a command to the topic "payments"."""
    saga = Saga("order").step("reserve", effects.note, effects.note, **quick())
    command = quick(2, compensation_command="refunds", timeout=timeout)
    saga.step("charge", command="payments", **command)
    return saga.step("ship", effects.note, effects.note, **quick())


@asynchronous
async def test_conf_58_a_step_can_be_a_command_to_another_service(store: Store) -> None:
    effects = Effects()
    saga = with_command(effects, 20)
    async with store.open() as engine, store.open() as other:

        async def charge(order: dict[str, int], message: Message) -> None:
            assert order == {"customer": 9}
            for _ in range(2):
                if message.headers["saga-call"].endswith("#1"):
                    await other.sagas.reply_failed(message, "try again")
                else:
                    await other.sagas.reply(message, {"receipt": 7})

        await other.consume("payments", charge, **member("payments"))
        async with engine.run_saga(saga):
            await engine.sagas.start(saga, {"customer": 9}, id="o")
            result = await engine.sagas.result("order", "o", 20)
        assert result.saga.status == "completed"
        assert effects.all == ["reserve", "ship"]
        timeline = await engine.sagas.timeline("order", "o")
        done = next(one for one in timeline if (one.mark, one.step) == ("done", "charge"))
        assert (done.output, done.attempt) == ({"receipt": 7}, 2)
        refused: list[Exception] = []

        async def answer(message: Message) -> None:
            try:
                await other.sagas.reply(message)
            except errors.InvalidArgumentError as error:
                refused.append(error)

        await other.consume("plain", answer, **member("plain"))
        await other.publish("plain", "no command")
        assert await eventually_async(lambda: len(refused) == 1)


# ---- backwards ------------------------------------------------------------------------------------------


@asynchronous
async def test_conf_59_a_failed_step_is_undone_and_then_the_others_in_reverse(store: Store) -> None:
    effects = Effects()

    async def run(call: SagaCall) -> str:
        return "of " + call.step

    async def undo(call: SagaCall) -> None:
        effects.add(call)
        assert call.output == "of " + call.step
        assert call.cause == "d: NotNow: no"
        assert call.key == f"order/{call.id}/{call.step}/compensate"

    async def undo_what_never_succeeded(call: SagaCall) -> None:
        effects.add(call)
        assert call.output is None

    saga = Saga("order")
    for name in "abc":
        saga.step(name, run, undo)
    saga.step("d", effects.fail(), undo_what_never_succeeded, **quick(2))
    saga.step("e", effects.note, effects.note)
    async with store.open() as engine, engine.run_saga(saga):
        for id in ("first", "second"):
            await engine.sagas.start(saga, id=id)
            result = await engine.sagas.result("order", id, 20)
            assert (result.saga.status, result.saga.error) == ("compensated", "d: NotNow: no")
        await engine.settle_down()
    assert effects.all == ["d", "d", "-d", "-c", "-b", "-a"] * 2


@asynchronous
async def test_conf_59_a_cancelled_saga_is_undone_and_one_past_its_pivot_is_not(store: Store) -> None:
    effects, go_on = Effects(), asyncio.Event()

    async def wait(call: SagaCall) -> None:
        effects.add(call)
        await go_on.wait()

    saga = Saga("order").step("a", effects.note, effects.note).step("b", wait, effects.note)
    saga.step("c", effects.note, pivot=True)
    async with store.open() as engine, engine.run_saga(saga):
        await engine.sagas.start(saga, id="o")
        assert await eventually_async(lambda: effects.all.count("b") == 1)
        await engine.sagas.cancel("order", "o", "the customer left")
        go_on.set()
        result = await engine.sagas.result("order", "o", 20)
        assert (result.saga.status, result.saga.error) == ("compensated", "the customer left")
        assert effects.all == ["a", "b", "-b", "-a"]
        await engine.sagas.start(saga, id="p")
        await engine.sagas.result("order", "p", 20)
        with pytest.raises(errors.ConflictError):
            await engine.sagas.cancel("order", "p", "too late")
        with pytest.raises(errors.NotFoundError):
            await engine.sagas.cancel("order", "q", "nobody")


@asynchronous
async def test_conf_59_behind_its_pivot_it_only_goes_forward(store: Store) -> None:
    effects = Effects()
    saga = Saga("order").step("a", effects.note, effects.note, **quick())
    saga.step("b", effects.note, pivot=True, **quick()).step("c", effects.fail(2), **quick(2))
    async with store.open() as engine, engine.run_saga(saga):
        await engine.sagas.start(saga, id="o")
        result = await engine.sagas.result("order", "o", 20)
        assert (result.saga.status, result.saga.step) == ("stuck", "c"), "nothing is undone"
        assert effects.all == ["a", "b", "c", "c"]
        await engine.sagas.retry("order", "o", "c")

        async def completed() -> bool:
            return await status_of(engine, "order", "o") == "completed"

        assert await becomes(completed)
    assert effects.all == ["a", "b", "c", "c", "c"]


# ---- through deaths -------------------------------------------------------------------------------------


@pytest.mark.only("sqlite")
@pytest.mark.parametrize("points", [range(4), range(4, 8), range(8, 12), range(12, 17)], ids=str)
@asynchronous
async def test_conf_60_killed_at_each_boundary_it_comes_to_the_same_end(store: Store, points: range) -> None:
    # The child writes each effect of a saga of its own once, and dies at a point of its first life: before
    # and after each effect; at 0 it lives.
    wanted = [f"order/o/{name}/execute" for name in "abcd"]
    wanted += [f"order/o/{name}/compensate" for name in "dcba"]
    wanted += ["compensated"]

    async def end_of(point: int, folder: Path) -> tuple[int, list[str]]:
        folder.mkdir()
        mine, deaths = Store("sqlite", folder), 0
        for life in range(3):
            status = await mine.child("saga", str(point if life == 0 else 0)).wait(30)
            if status == 0:
                break
            assert status == -signal.SIGKILL, (point, status)
            deaths += 1
        return deaths, mine.ledger.lines

    ends = await asyncio.gather(*(end_of(point, store.folder / f"life-{point}") for point in points))
    assert ends == [(min(point, 1), wanted) for point in points]


@asynchronous
async def test_conf_61_of_two_runners_each_step_is_run_by_one(store: Store) -> None:
    effects, count = Effects(), 40
    saga = letters(effects, 3)
    async with store.open() as first, store.open() as second:
        runners = [await first.run_saga(saga), await second.run_saga(saga)]
        for number in range(count):
            await (first, second)[number % 2].sagas.start(saga, id=f"o-{number}")
        for number in range(count):
            result = await first.sagas.result("order", f"o-{number}", 30)
            assert result.saga.status == "completed"
        assert await eventually_async(
            lambda: sum(runner.statistics().completed for runner in runners) == count
        )
    assert [effects.all.count(step) for step in "abc"] == [count] * 3


@asynchronous
async def test_conf_61_what_a_late_call_does_does_not_count(store: Store) -> None:
    effects, stopped = Effects(), asyncio.Event()

    async def slow(call: SagaCall) -> str:
        effects.add(call)
        if call.attempt == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                assert call.stopped
                stopped.set()
        return f"of attempt {call.attempt}"

    saga = Saga("order").step("a", slow, effects.note, **quick(5, timeout=0.1))
    saga.step("b", effects.note, effects.note)
    async with store.open() as engine, engine.run_saga(saga) as runner:
        await engine.sagas.start(saga, id="o")
        assert (await engine.sagas.result("order", "o", 20)).saga.status == "completed"
        assert stopped.is_set()
        assert runner.statistics().failures == 1
        timeline = await engine.sagas.timeline("order", "o")
    assert effects.all == ["a", "a", "b"]
    assert [one.output for one in timeline if one.mark == "done"] == ["of attempt 2", None]
    assert [one.error for one in timeline if one.mark == "failed"] == [
        "StepTimeout: the call did not return in time"
    ]


# ---- by hand --------------------------------------------------------------------------------------------


@asynchronous
async def test_conf_62_a_compensation_that_keeps_failing_ends_stuck_and_the_others_run(store: Store) -> None:
    effects = Effects()
    saga = Saga("order").step("a", effects.note, effects.note, **quick())
    saga.step("b", effects.note, effects.fail(3), **quick(3))
    saga.step("c", effects.fail(), effects.note, **quick(1))
    alerts: list[dict[str, Any]] = []

    def told() -> list[tuple[Any, ...]]:
        return [
            (one["kind"], one["recovered"], one["saga_type"], one["saga_id"], one["saga_step"])
            for one in alerts
        ]

    async with store.open(sweep_interval=0.01) as engine, engine.run_saga(saga):
        engine.on_alert(alerts.append)
        sagas = engine.sagas
        await sagas.start(saga, id="o")
        result = await sagas.result("order", "o", 20)
        assert (result.saga.status, result.saga.step) == ("stuck", "b")
        assert await eventually_async(lambda: told() == [("saga_stuck", False, "order", "o", "b")])
        assert effects.all == ["a", "b", "c", "-c", "-b", "-b", "-b", "-a"]
        assert [one.id for one in (await sagas.list(status="stuck")).items] == ["o"]
        assert (await sagas.list(status="completed", type="order")).items == []
        with pytest.raises(errors.NotFoundError):
            await sagas.retry("order", "o", "a")
        await sagas.annotate("order", "o", "called the bank")
        await sagas.retry("order", "o", "b")

        async def compensated() -> bool:
            return await status_of(engine, "order", "o") == "compensated"

        assert await becomes(compensated)
        assert await eventually_async(lambda: told()[1:] == [("saga_stuck", True, "order", "o", "b")])
        assert (effects.all.count("-b"), effects.all.count("-a")) == (4, 1)
        notes = [one for one in await sagas.timeline("order", "o") if one.mark == "note"]
        assert [one.error for one in notes] == ["called the bank"]


@asynchronous
async def test_conf_62_a_person_can_skip_and_force(store: Store) -> None:
    effects = Effects()
    saga = Saga("order").step("a", effects.note, effects.fail(), **quick(1))
    saga.step("b", effects.fail(), effects.note, **quick(1))
    async with store.open() as engine, engine.run_saga(saga):
        sagas = engine.sagas
        for id in ("skipped", "forced"):
            await sagas.start(saga, id=id)
            assert (await sagas.result("order", id, 20)).saga.status == "stuck"
        await sagas.skip("order", "skipped", "a")
        assert (await sagas.result("order", "skipped", 20)).saga.status == "compensated"
        with pytest.raises(errors.InvalidArgumentError):
            await sagas.force("order", "forced", "running")
        with pytest.raises(errors.InvalidArgumentError, match="running, compensating, completed"):
            await sagas.force("order", "forced", "done")  # type: ignore[arg-type]
        await sagas.force("order", "forced", "completed")
        assert (await sagas.result("order", "forced", 20)).saga.status == "completed"
        with pytest.raises(errors.ConflictError):
            await sagas.skip("order", "forced", "a")


@asynchronous
async def test_conf_62_they_are_listed_by_type_state_and_age(store: Store) -> None:
    effects = Effects()
    order, ride = letters(effects, 1), letters(effects, 1, "ride")
    async with store.open() as engine, engine.run_saga(order):
        sagas = engine.sagas
        for id in ("o-1", "o-2"):
            await sagas.start(order, id=id)
            await sagas.result("order", id, 20)
            await asyncio.sleep(0.002)  # sleeps: so that each has its own time of beginning
        await sagas.start(ride, id="r-1")

        async def ids(**query: Any) -> list[str]:
            return [one.id for one in (await sagas.list(**query)).items]

        second = await sagas.find("order", "o-2")
        assert second is not None
        assert await ids(type="order") == ["o-1", "o-2"]
        assert await ids(type="order", started_before=second.started_at) == ["o-1"]
        assert await ids(unfinished=True) == await ids(status="running") == ["r-1"]


# ---- times that pass while nobody runs ------------------------------------------------------------------


@asynchronous
async def test_conf_63_a_reply_that_never_came_is_found_missing_after_the_restart(store: Store) -> None:
    effects, refunds = Effects(), Recorder()
    saga = with_command(effects, 0.3)
    async with store.open() as engine:
        async with engine.run_saga(saga):
            await engine.sagas.start(saga, id="o")
            await waits_at(engine, "charge")
    await asyncio.sleep(0.4)  # sleeps: nobody is there when the reply is due
    async with store.open() as engine:

        async def refund(message: Message) -> None:
            refunds.note(message)
            await engine.sagas.reply(message)

        await engine.consume("refunds", refund, **member("refunds"))
        async with engine.run_saga(saga):
            result = await engine.sagas.result("order", "o", 20)
    assert result.saga.status == "compensated"
    assert result.saga.error == "charge: ReplyTimeout: no reply came in time"
    assert refunds.count == 1, "nobody knows whether the command was carried out"
    assert effects.all == ["reserve", "-reserve"]


@asynchronous
async def test_conf_63_a_reply_that_came_while_nobody_ran_counts(store: Store) -> None:
    effects, commands = Effects(), Recorder()
    saga = with_command(effects, 3600)
    async with store.open() as engine:
        async with engine.run_saga(saga):
            await engine.sagas.start(saga, id="o")
            await waits_at(engine, "charge")

        async def charge(message: Message) -> None:
            await engine.sagas.reply(message, "receipt")
            commands.note(message)

        await engine.consume("payments", charge, **member("payments"))
        assert await eventually_async(lambda: commands.count == 1)
    async with store.open() as engine, engine.run_saga(saga):
        result = await engine.sagas.result("order", "o", 20)
    assert result.saga.status == "completed"
    assert effects.all == ["reserve", "ship"]


@asynchronous
async def test_conf_63_a_deadline_of_the_saga_passes_while_it_waits(store: Store) -> None:
    effects = Effects()
    patient = quick(100, retry=retrying(100, initial_delay=3600, delay_max=3600))
    saga = Saga("order", deadline=0.2).step("a", effects.note, effects.note, **quick())
    saga.step("b", effects.fail(), effects.note, **patient)
    async with store.open() as engine, engine.run_saga(saga):
        await engine.sagas.start(saga, id="o")
        found = await engine.sagas.find("order", "o")
        assert found is not None and found.deadline_at is not None
        assert (found.deadline_at - found.started_at).total_seconds() == pytest.approx(0.2)
        assert (await engine.sagas.result("order", "o", 20)).saga.status == "compensated"
    assert effects.all == ["a", "b", "-b", "-a"]


# ---- bad input ------------------------------------------------------------------------------------------


@asynchronous
async def test_bad_34_a_definition_that_breaks_a_rule_is_refused(store: Store) -> None:
    async def nothing(call: SagaCall) -> None: ...

    large = Saga("order")
    for number in range(10_001):
        large.step(f"s{number}", nothing, nothing)
    refused = [
        Saga("order"),
        Saga("or der").step("a", nothing, nothing),
        Saga("").step("a", nothing, nothing),
        Saga("order").step("a", nothing, nothing).step("a", nothing, nothing),
        Saga("order").step("a", nothing),
        Saga("order").parallel(),
        Saga("order").step("a", nothing, pivot=True).step("b", nothing, pivot=True),
        Saga("order").parallel(SagaStep("a", nothing, nothing, pivot=True), SagaStep("b", nothing, nothing)),
        large,
    ]
    async with store.open() as engine:
        for saga in refused:
            with pytest.raises(errors.InvalidSagaError):
                await engine.sagas.start(saga, id="o")
            with pytest.raises(errors.InvalidSagaError):
                await engine.run_saga(saga)
        with pytest.raises(errors.InvalidSagaError, match="neither a function nor a command"):
            engine.run_saga(Saga("order").parallel(SagaStep("a", None, nothing)))
        with pytest.raises(errors.InvalidSagaError, match="no step 'b'"):
            Saga("order").step("a", nothing).compensation("b")
        with pytest.raises(errors.InvalidConfigError):
            await engine.run_saga(Saga("order").step("a", nothing, nothing, timeout=0))
        with pytest.raises(errors.InvalidConfigError, match="unknown option 'patience'"):
            Saga("order").step("a", nothing, nothing, patience=1)  # type: ignore[call-overload]
        with pytest.raises(TypeError):
            Saga("order").step("a", "nothing")  # type: ignore[call-overload]
        assert (await engine.sagas.list()).items == []


@asynchronous
async def test_bad_34_a_changed_definition_is_told_and_its_sagas_are_kept(store: Store) -> None:
    effects = Effects()
    old, changed = letters(effects, 2), letters(effects, 3)
    new = letters(effects, 3, version=2)
    async with store.open() as engine:
        await engine.sagas.start(old, id="o")
        with pytest.raises(errors.DefinitionMismatchError):
            await engine.run_saga(changed)
        async with engine.run_saga(new):
            await engine.sagas.start(new, id="n")
            assert (await engine.sagas.result("order", "n", 20)).saga.status == "completed"
            assert await status_of(engine, "order", "o") == "running", "it waits for its version"
            assert [one.id for one in (await engine.sagas.list(version=2)).items] == ["n"]
            async with engine.run_saga(old):
                assert (await engine.sagas.result("order", "o", 20)).saga.status == "completed"


@asynchronous
async def test_bad_35_what_is_too_large_is_refused_before_the_step_runs(store: Store) -> None:
    effects, large = Effects(), b"x" * 1001

    async def try_all(call: SagaCall) -> bytes | None:
        effects.add(call)
        with pytest.raises(errors.PayloadTooLargeError):
            call.set_context(large)
        with pytest.raises(errors.PayloadTooLargeError):
            call.publish("t", large)
        return large if call.attempt == 1 else None

    saga = Saga("order").step("a", try_all, effects.note, **quick())
    async with store.open(payload_bytes_max=1000) as engine:
        with pytest.raises(errors.PayloadTooLargeError):
            await engine.sagas.start(saga, large, id="o")
        for id in ("with space", "a/b", "x" * 129):
            with pytest.raises(errors.InvalidIdError):
                await engine.sagas.start(saga, id=id)
        async with engine.run_saga(saga):
            await engine.sagas.start(saga, id="o")
            assert (await engine.sagas.result("order", "o", 20)).saga.status == "completed"
        assert effects.all == ["a", "a"]
        failed = next(one for one in await engine.sagas.timeline("order", "o") if one.mark == "failed")
        assert failed.error.startswith("PayloadTooLargeError: ")
        with pytest.raises(errors.NotFoundError):
            await engine.sagas.result("order", "nobody", 0.01)


@asynchronous
async def test_bad_35_what_cannot_be_written_fails_the_step_for_good(store: Store) -> None:
    effects = Effects()

    async def leave_a_lock(call: SagaCall) -> object:
        effects.add(call)
        return threading.Lock()

    saga = Saga("order").step("a", leave_a_lock, effects.note, **quick())
    async with store.open() as engine, engine.run_saga(saga):
        await engine.sagas.start(saga, id="o")
        result = await engine.sagas.result("order", "o", 20)
        assert result.saga.status == "compensated"
        assert result.saga.error.startswith("a: PayloadError: ")
        with pytest.raises(ValueError):
            await engine.sagas.start(saga, threading.Lock())
    assert effects.all == ["a", "-a"]
