"""Choreographies as Python sees them: decorators, names, events as messages, and what closing leaves."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import asynchronous, eventually_async

from conformance.suite import becomes
from towline import Choreography, Engine, Message, Saga, SagaCall, Transaction, errors
from towline.testing import VirtualClock

PATIENCE = 30


@dataclasses.dataclass
class Order:
    customer: int


async def nothing(call: SagaCall) -> None: ...


def placed(**options: Any) -> Choreography:
    return Choreography("order", begins_with="order.placed", **options)


# ---- definitions ----------------------------------------------------------------------------------------


@asynchronous
async def test_decorators_make_the_same_definition(url: str) -> None:
    ran: list[Any] = []
    order = placed()

    @order.on("order.placed", on_success="stock.reserved", on_failure="stock.refused", timeout=5)
    async def reserve(call: SagaCall) -> Order:
        ran.append(("reserve", call.step, call.context_as(Order)))
        return Order(10)

    order.expect("stock.reserved", "payment.done", "payment.failed", timeout=60)

    @order.on("payment.done", on_success="order.shipped", name="ship")
    def carry(call: SagaCall) -> str:
        ran.append(("carry", call.step, call.context, call.output_of("reserve", Order)))
        with pytest.raises(errors.InvalidArgumentError):
            call.set_context("no")
        return "shipped"

    @order.on("payment.failed", on_success="stock.released")
    async def release(call: SagaCall) -> None: ...

    fluent = (
        placed()
        .on("order.placed", reserve, on_success="stock.reserved", on_failure="stock.refused", timeout=5)
        .expect("stock.reserved", "payment.done", "payment.failed", timeout=60)
        .on("payment.done", carry, on_success="order.shipped", name="ship")
        .on("payment.failed", release, on_success="stock.released")
    )
    assert fluent.visualize() == order.visualize()
    for part in ("[reserve]", "[waits for payment.done]", "[ship]", "([stock.reserved])", "-. fails .->"):
        assert part in order.visualize()
    async with Engine(url) as engine, engine.run_saga(order):
        assert (await engine.sagas.start(order, Order(9), id="o-1")).is_new

        async def is_reserved() -> bool:
            return "stock.reserved" in [one.event for one in await engine.sagas.timeline("order", "o-1")]

        assert await becomes(is_reserved, PATIENCE)
        await engine.sagas.publish_event("payment.done", "o-1", {"receipt": 7})
        result = await engine.sagas.result("order", "o-1", PATIENCE)
        assert result.saga.status == "completed"
        timeline = await engine.sagas.timeline("order", "o-1")
    assert ran == [("reserve", "reserve", Order(9)), ("carry", "ship", {"receipt": 7}, Order(10))]
    told = {one.event: (one.mark, one.output) for one in timeline if one.mark == "done"}
    assert told["order.shipped"] == ("done", "shipped")


def test_a_step_is_called_as_its_function_or_as_its_event() -> None:
    async def of_two(first: int, call: SagaCall) -> None: ...

    order = placed().on("order.placed", nothing, on_success="a").on("a", lambda call: None, on_success="b")
    order.on("b", functools.partial(of_two, 1), on_success="c")
    order.on("c", nothing, on_success="d", name="named").expect("d", "e", "f", timeout=1)
    assert [step.name for step in order._steps()] == ["nothing", "b", "c", "named", "e"]
    assert order.on("f", on_success="g")(of_two) is of_two  # type: ignore[type-var]


def test_arguments_of_the_wrong_type_are_named() -> None:
    with pytest.raises(errors.InvalidArgumentError, match="begins_with is 5, but must be a str"):
        Choreography("order", begins_with=5)  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidArgumentError, match="listen_to is None"):
        placed().on(None, nothing, on_success="a")  # type: ignore[call-overload]
    with pytest.raises(errors.InvalidArgumentError, match="on_success is 1"):
        placed().on("order.placed", nothing, on_success=1)  # type: ignore[call-overload]
    with pytest.raises(errors.InvalidArgumentError, match="on_failure is None"):
        placed().expect("order.placed", "a", None, timeout=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="is a function, not a str"):
        placed().on("order.placed", "run", on_success="a")  # type: ignore[call-overload]
    with pytest.raises(errors.InvalidConfigError, match="unknown option 'deadlines'"):
        placed(deadlines=1)
    with pytest.raises(errors.InvalidConfigError, match="unknown option 'time'"):
        placed().on("order.placed", nothing, on_success="a", time=1)  # type: ignore[call-overload]


def test_coroutine_functions_are_refused_by_the_synchronous_engine(url: str) -> None:
    with Engine(url) as engine:
        with pytest.raises(errors.InvalidConfigError, match="coroutine function"):
            engine.run_saga(placed().on("order.placed", nothing, on_success="a"))


def test_a_definition_without_steps_is_refused_by_the_synchronous_engine(url: str) -> None:
    with Engine(url) as engine:
        for saga in (placed(), Saga("order"), Saga("order").parallel()):
            with pytest.raises(errors.InvalidSagaError):
                engine.run_saga(saga)


# ---- events ---------------------------------------------------------------------------------------------


@asynchronous
async def test_an_event_is_a_message_with_the_id_of_its_saga(url: str) -> None:
    async with Engine(url) as engine:
        for value, payload in [(None, b""), ("a", b'"a"'), (b"\xff", b"\xff"), ({"a": 1}, b'{"a":1}')]:
            message = engine.sagas.event_message("payment.done", "o-1", value)
            assert message["payload"] == payload
            assert (message["topic"], message["key"]) == ("payment.done", "o-1")
            assert message["headers"] == {"saga-id": "o-1"}
        with pytest.raises(errors.InvalidArgumentError, match="id is 5, but must be a str"):
            engine.sagas.event_message("payment.done", 5)  # type: ignore[arg-type]
        with pytest.raises(errors.InvalidTopicError):
            await engine.sagas.publish_event("payment done", "o-1")


@asynchronous
async def test_an_event_leaves_with_the_effect_of_what_made_it(tmp_path: Path) -> None:
    order = placed().expect("order.placed", "payment.done", "payment.failed", timeout=60)
    async with Engine(f"sqlite:{tmp_path}/store.db") as engine:

        def charge(message: Message) -> None:
            def body(tx: Transaction) -> None:
                tx.execute("CREATE TABLE receipt(number)")
                tx.publish(**engine.sagas.event_message("payment.done", message.headers["saga-id"], 7))

            message.transaction(body)

        await engine.consume("order.placed", charge, group="payments", ack="manual")
        async with engine.run_saga(order):
            await engine.sagas.publish_event("order.placed", "o-1")
            await engine.settle_down()
            result = await engine.sagas.result("order", "o-1", PATIENCE)
            assert result.saga.status == "completed"
        timeline = await engine.sagas.timeline("order", "o-1")
    assert [one.context for one in timeline if one.mark == "heard"] == [7]


@asynchronous
async def test_two_services_have_each_their_own_part(url: str) -> None:
    ran: list[str] = []

    def note(call: SagaCall) -> None:
        ran.append(f"{call.type} {call.id} {call.step}")

    shop = placed().on("order.placed", note, on_success="stock.reserved", name="reserve")
    shop.expect("stock.reserved", "payment.done", "payment.failed", timeout=60)
    shop.on("payment.done", note, on_success="order.shipped", name="ship")
    bank = Choreography("payment", begins_with="stock.reserved")
    bank.on("stock.reserved", note, on_success="payment.done", name="charge")
    async with Engine(url) as first, Engine(url) as second:
        async with first.run_saga(shop), second.run_saga(bank):
            await first.sagas.publish_event("order.placed", "o-1")

            async def status(type: str) -> str:
                return (await second.sagas.result(type, "o-1", PATIENCE)).saga.status

            assert await eventually_async(lambda: len(ran) == 3, PATIENCE)
            assert [await status("order"), await status("payment")] == ["completed", "completed"]
    assert ran == ["order o-1 reserve", "payment o-1 charge", "order o-1 ship"]


@asynchronous
async def test_a_virtual_clock_moves_what_is_expected() -> None:
    ran: list[str] = []
    order = placed().expect("order.placed", "payment.done", "payment.failed", timeout=3600)
    order.on("payment.failed", lambda call: ran.append("release"), on_success="stock.released")
    clock = VirtualClock()
    async with Engine("memory:", clock=clock) as engine, engine.run_saga(order):
        await engine.sagas.start(order, id="o-1")
        await engine.settle_down()
        assert ran == []
        await clock.advance_and_settle(engine, 3600)
        assert ran == ["release"]
        assert (await engine.sagas.result("order", "o-1", 0)).saga.status == "compensated"


# ---- engines and their end ------------------------------------------------------------------------------


@asynchronous
async def test_an_engine_runs_what_was_registered(url: str) -> None:
    ran: list[str] = []
    engine = Engine(url)
    order = engine.saga(placed())

    @order.on("order.placed", on_success="order.shipped")
    async def ship(call: SagaCall) -> None:
        ran.append(call.id)

    async with engine:
        await engine.sagas.publish_event("order.placed", "o-1")
        assert await eventually_async(lambda: ran == ["o-1"], PATIENCE)


@asynchronous
async def test_closing_inside_a_step_leaves_the_saga_to_the_next_engine(url: str) -> None:
    began, cancelled, ran = asyncio.Event(), [], []
    order = placed()

    @order.on("order.placed", on_success="stock.reserved", retry={"initial_delay": 0.01})
    async def reserve(call: SagaCall) -> str:
        if call.attempt > 1:
            return f"of attempt {call.attempt}"
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(call.key)
            raise
        return "late"

    order.expect("stock.reserved", "payment.done", "payment.failed", timeout=60)

    @order.on("payment.done", on_success="order.shipped")
    async def ship(call: SagaCall) -> None:
        ran.append(call.context)

    async with Engine(url, sweep_interval=0.05) as other:
        async with Engine(url, drain_timeout=0.05, lease=0.3, sweep_interval=0.05) as engine:
            await engine.run_saga(order)
            await engine.sagas.publish_event("order.placed", "o-1", ["books"])
            await asyncio.wait_for(began.wait(), PATIENCE)
        assert cancelled == ["order/o-1/reserve/execute"]
        # Nobody listens now; what comes meanwhile is heard later.
        await other.sagas.publish_event("payment.done", "o-1", "9 EUR")
        async with other.run_saga(order):
            result = await other.sagas.result("order", "o-1", PATIENCE)
            assert result.saga.status == "completed"
        timeline = await other.sagas.timeline("order", "o-1")
    assert ran == ["9 EUR"]
    done = [one.output for one in timeline if (one.mark, one.step) == ("done", "reserve")]
    assert done == ["of attempt 2"]


def test_a_thread_inside_a_step_leaves_its_saga_to_the_next_engine(url: str) -> None:
    began, let_go, attempts = threading.Event(), threading.Event(), []

    def reserve(call: SagaCall) -> str:
        attempts.append(call.attempt)
        if call.attempt == 1:
            began.set()
            let_go.wait(PATIENCE)
        return f"of attempt {call.attempt}"

    retry: Any = {"initial_delay": 0.01}
    order = placed().on("order.placed", reserve, on_success="stock.reserved", retry=retry)
    try:
        with Engine(url) as other:
            with Engine(url, drain_timeout=0.05) as engine:
                engine.run_saga(order)
                engine.sagas.publish_event("order.placed", "o-1")
                assert began.wait(PATIENCE)
            with other.run_saga(order):
                assert other.sagas.result("order", "o-1", PATIENCE).saga.status == "completed"
            done = [one.output for one in other.sagas.timeline("order", "o-1") if one.mark == "done"]
    finally:
        let_go.set()
    assert (attempts, done) == ([1, 2], ["of attempt 2"])
