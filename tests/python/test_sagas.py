"""Sagas as Python sees them: values, decorators, threads, and what closing does."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import asynchronous, eventually, eventually_async

from towline import Defer, Engine, Message, Reject, Retry, Saga, SagaCall, SagaStep, Transaction, errors
from towline.testing import VirtualClock


@dataclasses.dataclass
class Order:
    customer: int


async def nothing(call: SagaCall) -> None: ...


# ---- values ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [None, 0, 1.5, "", "text", "5", True, [], [1, {"a": None}], {"b": "\ud800"}, b"\xff\x00", "\N{SNOWMAN}"],
)
@asynchronous
async def test_contexts_and_outputs_come_back_as_they_were(url: str, value: Any) -> None:
    seen: list[Any] = []

    async def first(call: SagaCall) -> Any:
        seen.append(call.context)
        call.set_context([call.context] if not isinstance(value, bytes) else value)
        return value

    async def second(call: SagaCall) -> None:
        seen.append(call.output_of("first"))
        assert call.output is None

    saga = Saga("values").step("first", first, changes_nothing=True).step("second", second, pivot=True)
    async with Engine(url) as engine, engine.run_saga(saga):
        started = await engine.sagas.start(saga, value)
        result = await engine.sagas.result("values", started.id)
    assert seen == [value, value]
    assert result.context == (value if isinstance(value, bytes) else [value])


@asynchronous
async def test_values_can_be_asked_for_by_type(url: str) -> None:
    seen: list[Any] = []

    async def run(call: SagaCall) -> Order:
        seen.append([call.context_as(Order), call.context_as(bytes), call.context])
        return Order(10)

    async def then(call: SagaCall) -> None:
        seen.append([call.output_of("run", Order), call.output_of("run", bytes), call.output_of("no", Order)])
        call.set_context("text")

    saga = Saga("typed").step("run", run, changes_nothing=True).step("then", then, pivot=True)
    async with Engine(url) as engine, engine.run_saga(saga):
        started = await engine.sagas.start(saga, Order(9))
        result = await engine.sagas.result("typed", started.id)
    assert seen == [
        [Order(9), b'{"customer":9}', {"customer": 9}],
        [Order(10), b'{"customer":10}', None],
    ]
    assert (result.context_as(str), result.raw_context) == ("text", b'"text"')


# ---- definitions ----------------------------------------------------------------------------------------


@asynchronous
async def test_decorators_make_the_same_definition(url: str) -> None:
    ran: list[str] = []
    order = Saga("order")

    @order.step("charge", timeout=5)
    async def charge(call: SagaCall) -> None:
        ran.append("charge")

    @charge.compensate
    async def refund(call: SagaCall) -> None:
        ran.append("refund")

    @order.step("ship")
    def ship(call: SagaCall) -> None:
        ran.append("ship")
        raise Reject("no van")

    @order.compensation("ship")
    def take_back(call: SagaCall) -> None:
        ran.append("take back")

    fluent = Saga("order").step("charge", nothing, nothing).step("ship", nothing, nothing)
    assert fluent.visualize() == order.visualize()
    assert "ship" in order.visualize()
    assert isinstance(ship, SagaStep)
    with pytest.raises(Reject):
        ship(None)  # type: ignore[arg-type]
    async with Engine(url) as engine, engine.run_saga(order):
        await engine.sagas.start(order, id="o")
        result = await engine.sagas.result("order", "o")
    assert (result.saga.status, result.saga.error) == ("compensated", "ship: Rejected: no van")
    assert ran == ["ship", "charge", "ship", "take back", "refund"]


@asynchronous
async def test_what_a_function_raises_says_how_it_goes_on(url: str) -> None:
    attempts: list[int] = []

    async def run(call: SagaCall) -> None:
        attempts.append(call.attempt)
        if call.attempt == 1:
            raise Retry("once more", after=0.01)
        if call.attempt == 2:
            raise Defer(0.01)
        if call.attempt == 3:
            raise ConnectionError("transient by its name")

    retry = {"initial_delay": 0.01, "jitter": "none"}
    saga = Saga("order").step("a", run, nothing, retry=retry)  # type: ignore[call-overload]
    async with Engine(url) as engine, engine.run_saga(saga):
        await engine.sagas.start(saga, id="o")
        assert (await engine.sagas.result("order", "o")).saga.status == "completed"
        timeline = await engine.sagas.timeline("order", "o")
    assert attempts == [1, 2, 3, 4]
    told = [(one.mark, one.error) for one in timeline if one.mark in ("failed", "postponed")]
    assert told == [
        ("failed", "Retry: once more"),
        ("postponed", ""),
        ("failed", "ConnectionError: transient by its name"),
    ]


@asynchronous
async def test_a_virtual_clock_moves_the_sagas() -> None:
    attempts: list[int] = []

    async def run(call: SagaCall) -> None:
        attempts.append(call.attempt)
        if call.attempt == 1:
            raise Retry(after=3600)

    saga = Saga("order").step("a", run, nothing)
    clock = VirtualClock()
    async with Engine("memory:", clock=clock) as engine, engine.run_saga(saga):
        await engine.sagas.start(saga, id="o")
        await engine.settle_down()
        assert attempts == [1]
        await clock.advance_and_settle(engine, 3600)
        assert attempts == [1, 2]
        assert (await engine.sagas.result("order", "o", 0)).saga.status == "completed"


@asynchronous
async def test_what_is_no_saga_is_refused(url: str) -> None:
    async with Engine(url) as engine:
        with pytest.raises(TypeError, match="a Saga or a Choreography, not a str"):
            await engine.sagas.start("order")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="a Saga or a Choreography, not a str"):
            engine.run_saga("order")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="a SagaStep, not a function"):
            Saga("order").parallel(nothing)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await engine.sagas.start(Saga("order", version=-1).step("a", nothing, nothing))


@asynchronous
async def test_a_reply_leaves_with_the_effect_of_the_command(tmp_path: Path) -> None:
    async with Engine(f"sqlite:{tmp_path}/store.db") as engine:

        def charge(message: Message) -> None:
            def body(tx: Transaction) -> None:
                tx.execute("CREATE TABLE receipt(number)")
                tx.publish(**engine.sagas.reply_message(message, {"receipt": message.value["number"]}))

            message.transaction(body)

        await engine.consume("payments", charge, group="payments", ack="manual")
        saga = Saga("order").step("charge", command="payments", changes_nothing=True)
        async with engine.run_saga(saga):
            await engine.sagas.start(saga, {"number": 7}, id="o")
            assert (await engine.sagas.result("order", "o")).saga.status == "completed"
        timeline = await engine.sagas.timeline("order", "o")
    assert [one.output for one in timeline if one.step == "charge"] == [None, {"receipt": 7}]


# ---- calls and their end --------------------------------------------------------------------------------


@asynchronous
async def test_a_call_that_has_returned_changes_nothing_more_and_can_be_read(url: str) -> None:
    kept: list[SagaCall] = []

    async def keep(call: SagaCall) -> None:
        kept.append(call)

    saga = Saga("order").step("a", keep, nothing)
    async with Engine(url) as engine, engine.run_saga(saga):
        await engine.sagas.start(saga, {"customer": 9}, id="o")
        await engine.sagas.result("order", "o")
        with pytest.raises(errors.ClosedError):
            kept[0].set_context("late")
        with pytest.raises(errors.ClosedError):
            kept[0].publish("late", "late")
    assert (kept[0].key, kept[0].context) == ("order/o/a/execute", {"customer": 9})
    with pytest.raises(errors.ClosedError):
        kept[0].set_context("later")


@asynchronous
async def test_a_call_that_is_forgotten_goes_back(url: str) -> None:
    attempts: list[int] = []

    async def run(call: SagaCall) -> None:
        attempts.append(call.attempt)

    saga = Saga("order").step("a", run, nothing, retry={"initial_delay": 0.01})
    async with Engine(url) as engine, engine.run_saga(saga) as runner:
        handle, forgotten = runner._handle, []

        def forget_the_first(call: Any) -> None:
            if forgotten:
                return handle(call)
            forgotten.append(call.number)

        runner._handle = forget_the_first  # type: ignore[method-assign]
        await engine.sagas.start(saga, id="o")
        assert (await engine.sagas.result("order", "o")).saga.status == "completed"
        marks = [one.mark for one in await engine.sagas.timeline("order", "o")]
    assert attempts == [2]
    assert marks == ["begun", "started", "postponed", "started", "done"]


@asynchronous
async def test_closing_cancels_a_coroutine_and_the_next_engine_goes_on(url: str) -> None:
    began, cancelled = asyncio.Event(), []

    async def run(call: SagaCall) -> None:
        if call.attempt > 1:
            return
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(call)
            raise

    saga = Saga("order").step("a", run, nothing, retry={"initial_delay": 0.01})
    async with Engine(url) as keeper:
        async with Engine(url, drain_timeout=0.05, lease=0.3, sweep_interval=0.05) as engine:
            await engine.run_saga(saga)
            await engine.sagas.start(saga, id="o")
            await began.wait()
        assert len(cancelled) == 1
        with pytest.raises(errors.ClosedError):
            cancelled[0].set_context("late")
        async with keeper.run_saga(saga):
            result = await keeper.sagas.result("order", "o")
            assert result.saga.status == "completed"


def test_a_thread_that_does_not_return_keeps_no_engine_from_closing(url: str) -> None:
    began, let_go, after = threading.Event(), threading.Event(), []

    def run(call: SagaCall) -> str:
        if call.attempt > 1:
            return "of attempt 2"
        began.set()
        let_go.wait(30)
        after.append(call.stopped)
        return "late"

    retry = {"initial_delay": 0.01}
    saga = Saga("order").step("a", run, lambda call: None, retry=retry)  # type: ignore[call-overload]
    with Engine(url) as other:
        with Engine(url, drain_timeout=0.05) as engine:
            engine.run_saga(saga)
            engine.sagas.start(saga, id="o")
            assert began.wait(20)
        with other.run_saga(saga):
            assert other.sagas.result("order", "o").saga.status == "completed"
        let_go.set()
        assert eventually(lambda: after == [True])
        done = [one.output for one in other.sagas.timeline("order", "o") if one.mark == "done"]
        assert done == ["of attempt 2"]


@asynchronous
async def test_a_thread_that_does_not_return_keeps_no_loop_from_ending(url: str) -> None:
    began, let_go = threading.Event(), threading.Event()

    def run(call: SagaCall) -> None:
        began.set()
        let_go.wait(30)

    saga = Saga("order").step("a", run, nothing)
    async with Engine(url, drain_timeout=0.05) as engine:
        await engine.run_saga(saga)
        await engine.sagas.start(saga, id="o")
        assert await eventually_async(began.is_set)
    try:
        assert await eventually_async(lambda: not engine._saga_calls)
    finally:
        let_go.set()


@asynchronous
async def test_a_function_may_close_its_engine(url: str) -> None:
    done: list[int] = []
    engine = Engine(url)

    async def close(call: SagaCall) -> None:
        done.append(await engine.close())

    saga = Saga("order").step("a", close, nothing)
    await engine.open()
    await engine.run_saga(saga)
    await engine.sagas.start(saga, id="o")
    assert await eventually_async(lambda: done == [0] and engine._is_closed())
    await engine.close()


def test_a_function_may_close_its_synchronous_engine(url: str) -> None:
    done: list[int] = []
    with Engine(url) as engine:
        saga = Saga("order").step("a", lambda call: done.append(engine.close()), changes_nothing=True)
        engine.run_saga(saga)
        engine.sagas.start(saga, id="o")
        assert eventually(lambda: done == [0] and engine._is_closed())


@asynchronous
async def test_a_runner_that_is_closed_leaves_its_sagas_to_others(url: str) -> None:
    ran: list[str] = []

    async def run(call: SagaCall) -> None:
        ran.append(call.id)

    saga = Saga("order").step("a", run, nothing)
    async with Engine(url) as engine:
        runner = await engine.run_saga(saga)
        assert await runner.close() == 0
        await engine.sagas.start(saga, id="o")
        with pytest.raises(errors.TimeoutError):
            await engine.sagas.result("order", "o", 0.3)
        assert ran == []
        async with engine.run_saga(saga):
            assert (await engine.sagas.result("order", "o")).saga.status == "completed"
    assert ran == ["o"]
    with pytest.raises(errors.ClosedError):
        await engine.run_saga(saga)


@asynchronous
async def test_whoever_waits_for_a_result_can_be_cancelled_and_many_can_wait(url: str) -> None:
    go_on = asyncio.Event()

    async def run(call: SagaCall) -> None:
        await go_on.wait()

    saga = Saga("order").step("a", run, nothing)
    async with Engine(url) as engine, engine.run_saga(saga):
        await engine.sagas.start(saga, id="o")
        # More than there are threads; and the others are answered all the same.
        waiting = [asyncio.ensure_future(engine.sagas.result("order", "o", 30)) for _ in range(100)]
        await asyncio.sleep(0)  # they have asked
        waiting.pop().cancel()
        assert (await engine.sagas.start(saga, id="p")).is_new
        go_on.set()
        assert {one.saga.status for one in await asyncio.gather(*waiting)} == {"completed"}


def test_coroutine_functions_are_refused_by_the_synchronous_engine(url: str) -> None:
    with Engine(url) as engine:
        with pytest.raises(errors.InvalidConfigError, match="coroutine function"):
            engine.run_saga(Saga("order").step("a", nothing, nothing))


def test_the_child_of_a_fork_can_do_nothing_to_the_sagas_of_its_parent(url: str) -> None:
    began, let_go, kept = threading.Event(), threading.Event(), []

    def run(call: SagaCall) -> None:
        kept.append(call)
        began.set()
        let_go.wait(30)

    saga = Saga("order").step("a", run, lambda call: None)
    with Engine(url) as engine:
        runner = engine.run_saga(saga)
        engine.sagas.start(saga, id="o")
        assert began.wait(20)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                kept.clear()
                gc.collect()
                engine.sagas.find("order", "o")
            except errors.ForkedError:
                try:
                    runner.close()
                except errors.ForkedError:
                    code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        let_go.set()
        assert engine.sagas.result("order", "o").saga.status == "completed"
