"""Choreographies: steps joined by events, among them those of other services, in and out of time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from conftest import asynchronous, eventually, eventually_async

from conformance.suite import Store, becomes, dead_letters, failure, member, retrying
from towline import Choreography, Engine, Message, SagaCall, SyncEngine, errors

# How long anything may take on a machine that has other things to do.
PATIENCE = 30


class Effects:
    """What ran, in order."""

    def __init__(self) -> None:
        self.all: list[str] = []

    def note(self, name: str) -> Callable[[SagaCall], Any]:
        async def run(call: SagaCall) -> Any:
            return self.run(name, call)

        return run

    def plain(self, name: str) -> Callable[[SagaCall], Any]:
        """The same for threads."""
        return lambda call: self.run(name, call)

    def run(self, name: str, call: SagaCall) -> list[str]:
        self.all.append(name)
        before: list[str] = call.context or []
        return [*before, name]

    def fail(self, name: str) -> Callable[[SagaCall], Any]:
        async def run(call: SagaCall) -> None:
            self.all.append(name)
            raise failure("Never", "no")

        return run


ONCE: Any = {"retry": retrying(1)}


def order_of(
    effects: Effects,
    charge: Callable[[SagaCall], Any],
    note: Callable[[str], Callable[[SagaCall], Any]] | None = None,
) -> Choreography:
    """Reserves, charges and ships; what was reserved is released when the rest fails."""
    note = note or effects.note
    order = Choreography("order", begins_with="order.placed")
    order.on("order.placed", note("reserve"), on_success="stock.reserved", on_failure="stock.refused",
             name="reserve")
    order.on("stock.reserved", charge, on_success="payment.done", on_failure="payment.failed", name="charge",
             **ONCE)
    order.on("payment.failed", note("release"), on_success="stock.released", name="release")
    return order.on("payment.done", note("ship"), on_success="order.shipped", name="ship")


def awaiting(effects: Effects, timeout: float) -> Choreography:
    """Reserves, and waits for the payment that somebody else takes."""
    order = Choreography("order", begins_with="order.placed")
    order.on("order.placed", effects.note("reserve"), on_success="stock.reserved", name="reserve")
    order.expect("stock.reserved", "payment.done", "payment.failed", timeout=timeout)
    order.on("payment.failed", effects.note("release"), on_success="stock.released", name="release")
    return order.on("payment.done", effects.note("ship"), on_success="order.shipped", name="ship")


async def marks_of(engine: Engine, id: str) -> list[tuple[str, str, str]]:
    return [(one.mark, one.step, one.event) for one in await engine.sagas.timeline("order", id)]


async def status_of(engine: Engine, type: str, id: str) -> str | None:
    """None: it has not begun."""
    found = await engine.sagas.find(type, id)
    return None if found is None else found.status


TIMELINE = [
    ("begun", "", ""),
    ("started", "reserve", ""),
    ("done", "reserve", "stock.reserved"),
    ("started", "charge", ""),
    ("done", "charge", "payment.done"),
    ("started", "ship", ""),
    ("done", "ship", "order.shipped"),
]


# ---- events join steps ----------------------------------------------------------------------------------


@asynchronous
async def test_conf_106_events_join_steps_and_each_runs_once(store: Store) -> None:
    effects, shipped = Effects(), []

    async def tell(order: list[str], message: Message) -> None:
        shipped.append((message.value, message.headers["saga-id"], message.key))

    order = order_of(effects, effects.note("charge"))
    async with store.open() as engine, engine.run_saga(order) as runner:
        await engine.consume("order.shipped", tell, **member("mail"))
        assert (await engine.sagas.publish_event("order.placed", "o-1", ["three books"])).acked
        assert await eventually_async(lambda: len(shipped) == 1, PATIENCE)
        result = await engine.sagas.result("order", "o-1", PATIENCE)
        assert result.saga.status == "completed"
        await engine.settle_down()
        assert effects.all == ["reserve", "charge", "ship"]
        assert shipped == [(["three books", "reserve", "charge", "ship"], "o-1", "o-1")]
        timeline = await engine.sagas.timeline("order", "o-1")
        assert await marks_of(engine, "o-1") == TIMELINE
        assert timeline[0].context == ["three books"]
        assert timeline[4].output == ["three books", "reserve", "charge"]
        # A runner counts a saga right after everybody can see its end.
        assert await eventually_async(lambda: runner.statistics().completed == 1, PATIENCE)
        assert runner.statistics().calls == 3


def test_conf_106_plain_functions_run_in_threads(store: Store) -> None:
    effects, shipped = Effects(), []
    order = order_of(effects, effects.plain("charge"), effects.plain)

    def tell(order: list[str], message: Message) -> None:
        shipped.append((order, message.headers["saga-id"], message.key))

    store.keep()
    with Engine(store.url, sweep_interval=0.05) as engine, engine.run_saga(order):
        engine.consume("order.shipped", tell, **member("mail"))
        assert engine.sagas.publish_event("order.placed", "o-1", ["three books"]).acked
        assert eventually(lambda: len(shipped) == 1, PATIENCE)
        assert engine.sagas.result("order", "o-1", PATIENCE).saga.status == "completed"
        marks = [(one.mark, one.step, one.event) for one in engine.sagas.timeline("order", "o-1")]
    assert effects.all == ["reserve", "charge", "ship"]
    assert shipped == [(["three books", "reserve", "charge", "ship"], "o-1", "o-1")]
    assert marks == TIMELINE


@asynchronous
async def test_conf_106_a_failure_event_leads_to_what_undoes_the_others(store: Store) -> None:
    effects, failures = Effects(), []

    async def tell(order: list[str], message: Message) -> None:
        failures.append((order, message.headers["saga-error"]))

    order = order_of(effects, effects.fail("charge"))
    async with store.open() as engine, engine.run_saga(order):
        await engine.consume("payment.failed", tell, **member("mail"))
        # Begun by hand, and by a message that has no saga's id: then its own is the saga's.
        await engine.sagas.start(order, ["books"], id="o-1")
        receipt = await engine.publish("order.placed", ["books"])
        assert await eventually_async(lambda: len(failures) == 2, PATIENCE)
        for id in ("o-1", receipt.id):
            result = await engine.sagas.result("order", id, PATIENCE)
            assert (result.saga.status, result.saga.error) == ("compensated", "charge: Never: no")
        await engine.settle_down()
    assert failures == [(["books", "reserve"], "Never: no")] * 2  # what the step got
    assert sorted(effects.all) == ["charge"] * 2 + ["release"] * 2 + ["reserve"] * 2


@asynchronous
async def test_conf_106_what_undoes_and_fails_is_stuck_until_a_person_helps(store: Store) -> None:
    effects, works, seen = Effects(), False, []

    async def release(call: SagaCall) -> None:
        seen.append((call.cause, call.output_of("reserve"), call.compensates))
        if not works:
            raise failure("Never", "the stock is closed")

    order = Choreography("order", begins_with="order.placed")
    order.on("order.placed", effects.note("reserve"), on_success="stock.reserved", name="reserve")
    order.on("stock.reserved", effects.fail("charge"), on_success="payment.done", on_failure="payment.failed",
             name="charge", **ONCE)
    order.on("payment.failed", release, on_success="stock.released", **ONCE)
    async with store.open() as engine, engine.run_saga(order):
        await engine.sagas.start(order, ["books"], id="o-1")
        stuck = await engine.sagas.result("order", "o-1", PATIENCE)
        assert (stuck.saga.status, stuck.saga.step) == ("stuck", "release")
        works = True
        await engine.sagas.retry("order", "o-1", "release")

        async def undone() -> bool:
            return await status_of(engine, "order", "o-1") == "compensated"

        assert await becomes(undone, PATIENCE)
    assert seen == [("charge: Never: no", ["books", "reserve"], False)] * 2


@asynchronous
async def test_conf_106_a_definition_that_cannot_flow_is_refused(store: Store) -> None:
    async def nothing(call: SagaCall) -> None: ...

    def made(begins_with: str = "order.placed") -> Choreography:
        return Choreography("order", begins_with=begins_with)

    lost = made().on("payment.done", nothing, on_success="order.shipped")
    same = made().on("order.placed", nothing, on_success="a", on_failure="a")
    again = made().on("order.placed", nothing, on_success="order.placed", name="again")
    twice = made().on("order.placed", nothing, on_success="a").on("a", nothing, on_success="b")
    pivot = made().on("order.placed", nothing, on_success="a", pivot=True)
    command = made().on("order.placed", nothing, on_success="a", command="b")
    async with store.open() as engine:
        for saga in (lost, same, again, twice, pivot, command, made()):
            with pytest.raises(errors.InvalidSagaError):
                await engine.run_saga(saga)
            with pytest.raises(errors.InvalidSagaError):
                await engine.sagas.start(saga, id="o-1")
        with pytest.raises(errors.InvalidSagaError, match="'payment.done', to which nothing leads"):
            await engine.run_saga(lost)
        with pytest.raises(errors.InvalidTopicError):
            await engine.run_saga(made("order placed").on("order placed", nothing, on_success="a"))
        assert (await engine.sagas.list()).items == []
    with Engine(store.url) as waiting, pytest.raises(errors.InvalidSagaError):
        waiting.run_saga(made())


# ---- events in and out of time --------------------------------------------------------------------------


@asynchronous
async def test_conf_107_an_early_event_waits_a_second_one_is_void_and_a_late_one_is_counted(
    store: Store,
) -> None:
    effects = Effects()
    order = awaiting(effects, 3600)
    async with store.open() as engine, engine.run_saga(order) as runner:
        publish = engine.sagas.publish_event
        await publish("payment.done", "o-1", ["9 EUR"])
        await engine.publish("payment.done", "whose?")
        assert await eventually_async(lambda: runner.statistics().early > 0, PATIENCE)
        assert await eventually_async(lambda: runner.statistics().strangers == 1, PATIENCE)
        assert effects.all == []
        await publish("order.placed", "o-1", ["books"])
        assert await eventually_async(lambda: len(effects.all) == 2, PATIENCE)
        result = await engine.sagas.result("order", "o-1", PATIENCE)
        assert result.saga.status == "completed"
        assert effects.all == ["reserve", "ship"]
        marks = await marks_of(engine, "o-1")
        assert ("heard", "", "payment.done") in marks
        # Once more what it knows, and then what it does not.
        await publish("payment.done", "o-1", ["again"])
        await publish("order.placed", "o-1", ["again"])
        await publish("payment.failed", "o-1", ["late"])
        assert await eventually_async(lambda: runner.statistics().late == 1, PATIENCE)
        await engine.settle_down()
        assert await marks_of(engine, "o-1") == marks
    assert effects.all == ["reserve", "ship"]


def test_conf_107_events_out_of_time_reach_threads_too(store: Store) -> None:
    effects = Effects()
    order = Choreography("order", begins_with="order.placed")
    order.expect("order.placed", "payment.done", "payment.failed", timeout=3600)
    order.on("payment.done", effects.plain("ship"), on_success="order.shipped", name="ship")
    store.keep()
    with Engine(store.url, sweep_interval=0.05) as engine, engine.run_saga(order) as runner:
        assert isinstance(engine, SyncEngine)
        engine.sagas.publish_event("payment.done", "o-1", ["9 EUR"])
        engine.publish("payment.done", "whose?")
        assert eventually(lambda: runner.statistics().early > 0, PATIENCE)
        assert eventually(lambda: runner.statistics().strangers == 1, PATIENCE)
        engine.sagas.start(order, ["books"], id="o-1")
        assert engine.sagas.result("order", "o-1", PATIENCE).saga.status == "completed"
        engine.sagas.publish_event("payment.failed", "o-1", ["late"])
        assert eventually(lambda: runner.statistics().late == 1, PATIENCE)
    assert effects.all == ["ship"]


@asynchronous
async def test_conf_107_an_event_whose_saga_never_begins_is_a_dead_letter(store: Store) -> None:
    effects = Effects()
    order = Choreography("order", begins_with="order.placed", early_event_ttl=0.3)
    order.on("order.placed", effects.note("reserve"), on_success="stock.reserved", name="reserve")
    order.expect("stock.reserved", "payment.done", "payment.failed", timeout=3600)
    async with store.open() as engine, engine.run_saga(order):
        await engine.sagas.publish_event("payment.done", "nobody", ["9 EUR"])
        await engine.publish("payment.done", "9 EUR", headers={"saga-id": "no/id"})

        async def are_dead() -> bool:
            return len(await dead_letters(engine)) == 2

        assert await becomes(are_dead, PATIENCE)
        assert {one.group for one in await dead_letters(engine)} == {"towline.saga.order"}
    assert effects.all == []


@asynchronous
async def test_conf_107_an_event_comes_while_a_call_runs(store: Store) -> None:
    effects, go_on = Effects(), asyncio.Event()

    async def slow(call: SagaCall) -> None:
        effects.all.append("slow")
        await go_on.wait()

    order = Choreography("order", begins_with="order.placed")
    order.on("order.placed", slow, on_success="slow.done")
    order.expect("order.placed", "payment.done", "payment.failed", timeout=3600)
    order.on("payment.done", effects.note("ship"), on_success="order.shipped", name="ship")
    async with store.open() as engine, engine.run_saga(order):
        await engine.sagas.start(order, ["books"], id="o-1")
        assert await eventually_async(lambda: effects.all == ["slow"], PATIENCE)
        await engine.sagas.publish_event("payment.done", "o-1", ["9 EUR"])
        # It does not wait for the other.
        assert await eventually_async(lambda: effects.all == ["slow", "ship"], PATIENCE)
        go_on.set()
        result = await engine.sagas.result("order", "o-1", PATIENCE)
        assert result.saga.status == "completed"


# ---- events that do not come ----------------------------------------------------------------------------


@asynchronous
async def test_conf_108_a_missing_event_becomes_its_failure_event(store: Store) -> None:
    effects, failures = Effects(), []

    async def tell(message: Message) -> None:
        failures.append(message.headers["saga-error"])

    order = awaiting(effects, 0.3)
    async with store.open() as engine, engine.run_saga(order):
        await engine.consume("payment.failed", tell, **member("mail"))
        await engine.sagas.start(order, ["books"], id="o-1")
        result = await engine.sagas.result("order", "o-1", PATIENCE)
        assert result.saga.status == "compensated"
        assert effects.all == ["reserve", "release"]
        assert await eventually_async(lambda: len(failures) == 1, PATIENCE)
    assert failures == ["EventTimeout: no event came in time"]


def test_conf_108_a_missing_event_is_noticed_by_threads_too(store: Store) -> None:
    effects = Effects()
    order = Choreography("order", begins_with="order.placed")
    order.expect("order.placed", "payment.done", "payment.failed", timeout=0.3)
    order.on("payment.failed", effects.plain("release"), on_success="stock.released", name="release")
    store.keep()
    with Engine(store.url, sweep_interval=0.05) as engine, engine.run_saga(order):
        engine.sagas.start(order, ["books"], id="o-1")
        saga = engine.sagas.result("order", "o-1", PATIENCE).saga
    assert (saga.status, saga.error) == ("compensated", "payment.done: EventTimeout: no event came in time")
    assert effects.all == ["release"]


def charging(type: str, effects: Effects, go_on: asyncio.Event, **options: Any) -> Choreography:
    """Waits in its second step until it may go on."""

    async def charge(call: SagaCall) -> None:
        effects.all.append("charge")
        await go_on.wait()

    def add(listen_to: str, name: str, function: Any, on_success: str, on_failure: str = "") -> None:
        failure_event = on_failure and f"{type}.{on_failure}"
        order.on(f"{type}.{listen_to}", function, on_success=f"{type}.{on_success}",
                 on_failure=failure_event, name=name)

    order = Choreography(type, begins_with=f"{type}.placed", **options)
    add("placed", "reserve", effects.note("reserve"), "reserved")
    add("reserved", "charge", charge, "paid", "unpaid")
    add("paid", "ship", effects.note("ship"), "shipped", "unshipped")
    add("unshipped", "refund", effects.note("refund"), "refunded", "unrefunded")
    add("refunded", "release", effects.note("release"), "released")
    return order


@pytest.mark.parametrize("type", ["cancelled", "late"])
@asynchronous
async def test_conf_108_cancelled_or_behind_its_deadline_it_undoes_itself(store: Store, type: str) -> None:
    effects, go_on = Effects(), asyncio.Event()
    # Long enough for the two steps before it on a machine that is busy with other things.
    order = charging(type, effects, go_on, **({"deadline": 3} if type == "late" else {}))
    async with store.open() as engine, engine.run_saga(order):
        await engine.sagas.start(order, ["books"], id="o-1")
        assert await eventually_async(lambda: effects.all == ["reserve", "charge"], PATIENCE)
        if type == "cancelled":
            await engine.sagas.cancel(type, "o-1", "the customer left")
        else:
            found = await engine.sagas.find(type, "o-1")
            assert found is not None and found.deadline_at is not None
            deadline = found.deadline_at
            assert await eventually_async(lambda: datetime.now(UTC) > deadline, PATIENCE)
        go_on.set()
        result = await engine.sagas.result(type, "o-1", PATIENCE)
        assert result.saga.status == "compensated"
        assert await status_of(engine, type, "nobody") is None
    assert effects.all == ["reserve", "charge", "refund", "release"]


def test_conf_108_a_cancelled_one_undoes_itself_in_threads(store: Store) -> None:
    effects, began, go_on = Effects(), threading.Event(), threading.Event()

    def charge(call: SagaCall) -> None:
        began.set()
        go_on.wait(PATIENCE)

    order = Choreography("order", begins_with="order.placed")
    order.on("order.placed", charge, on_success="payment.done", on_failure="payment.failed")
    order.on("payment.done", effects.plain("ship"), on_success="order.shipped", on_failure="order.stays",
             name="ship")
    order.on("order.stays", effects.plain("refund"), on_success="order.refunded", name="refund")
    store.keep()
    with Engine(store.url, sweep_interval=0.05) as engine, engine.run_saga(order):
        engine.sagas.start(order, ["books"], id="o-1")
        assert began.wait(PATIENCE)
        engine.sagas.cancel("order", "o-1", "the customer left")
        go_on.set()
        saga = engine.sagas.result("order", "o-1", PATIENCE).saga
    assert (saga.status, saga.error) == ("compensated", "the customer left")
    assert effects.all == ["refund"]
