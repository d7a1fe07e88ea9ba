"""Dead letters, idempotency, topics, statistics and alerts."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import asynchronous, eventually_async

from towline import Engine, Message, errors
from towline.testing import VirtualClock, in_memory

NEVER: dict[str, Any] = {"max_attempts": 1}


WRONG: list[tuple[str, Any]] = [
    ("message_id is 5, but must be a str", lambda engine: engine.cancel(5)),
    ("message_id is None, but must be a str", lambda engine: engine.reschedule(None, 5)),
    ("topic is 5, but must be a str", lambda engine: engine.pending(topic=5)),
    ("count_max is 'x', but must be a whole number", lambda engine: engine.pending(count_max="x")),
    ("topic is 5, but must be a str", lambda engine: engine.dead_letters(topic=5)),
    ("entry_id is 1.5, but must be a str", lambda engine: engine.find_dead_letter(1.5)),
    ("key is 5, but must be a str", lambda engine: engine.once(5, print)),
    ("key is 5, but must be a str", lambda engine: engine.release_key("g", "t", 5)),
    ("stream is 5, but must be a str", lambda engine: engine.event_store.append(5, [])),
    ("events is 5, but must be a list of NewEvent", lambda engine: engine.event_store.append("a", 5)),
    ("an event is 5, but must be a NewEvent", lambda engine: engine.event_store.append("a", [5])),
    ("user is 5, but must be a str", lambda engine: engine.conversations.reconnect(5, 5)),
    ("id is 5, but must be a str", lambda engine: engine.sagas.cancel("a", 5)),
    ("topics is 5, but must be a name or a pattern", lambda engine: engine.consume(5, print)),
    ("the time span is 'x', but must be seconds", lambda engine: engine.close("x")),
]


@asynchronous
async def test_an_argument_of_the_wrong_type_is_told_by_name(url: str) -> None:
    async with Engine(url) as engine:
        for text, call in WRONG:
            with pytest.raises(errors.InvalidArgumentError, match=re.escape(text)):
                await call(engine)
        with pytest.raises(TypeError, match="unexpected keyword argument 'nosuch'"):
            await engine.publish("a", 1, nosuch=1)  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="mine"):
            await engine.once("k", throws_type_error)
        assert (await engine.publish("a", 1)).id, "it is open still"
    with Engine(url) as twin:
        for text, call in WRONG:
            with pytest.raises(errors.InvalidArgumentError, match=re.escape(text)):
                call(twin)
        assert twin.publish("a", 1).id


def test_an_engine_of_a_module_is_tested_in_memory(tmp_path: Path) -> None:
    engine = Engine(f"sqlite:{tmp_path}/shop.db", lease=7)
    handled: list[int] = []
    engine.consumer("orders", group="g")(handled.append)
    clock = VirtualClock()
    for number in range(3):
        with in_memory(engine, clock) as tested:
            assert tested is engine
            with engine as opened:
                opened.publish("orders", number, delay=60)
                clock.advance(60)
                opened.settle_down()
                with pytest.raises(errors.InvalidArgumentError, match="is open"), in_memory(engine):
                    pass
            with pytest.raises(RuntimeError), in_memory(engine):
                raise RuntimeError
    assert handled == [0, 1, 2], "each has a store of its own"
    assert not list(tmp_path.iterdir())
    with engine as opened:
        opened.publish("orders", 3)
        opened.settle_down()
    assert handled == [0, 1, 2, 3] and (tmp_path / "shop.db").exists()


def throws_type_error() -> None:
    raise TypeError("mine")


@asynchronous
async def test_a_dead_letter_is_found_changed_and_sent_back(url: str) -> None:
    handled: list[Any] = []

    async def handle(order: dict[str, Any], message: Message) -> None:
        handled.append((order, message.id, message.redrives))
        if order["amount"] < 0:
            raise ValueError("the amount is negative")

    async with Engine(url) as engine:
        await engine.consume("orders", handle, group="g", retry=NEVER, breaker={"enabled": False})
        ids = [(await engine.publish("orders", {"amount": amount})).id for amount in (-1, 5, -2)]
        await engine.settle_down()
        page = await engine.dead_letters(
            topic="orders", status="pending", error_type="ValueError", count_max=1
        )
        assert len(page.items) == 1 and page.cursor
        rest = await engine.dead_letters(
            topic="orders", status="pending", error_type="ValueError", count_max=1, cursor=page.cursor
        )
        assert [entry.message_id for entry in page.items + rest.items] == [ids[0], ids[2]]
        entry = page.items[0]
        assert await engine.find_dead_letter(entry.id) == entry
        groups = await engine.dead_letter_groups()
        assert [group.count for group in groups] == [2]
        report = await engine.redrive_all(dry_run=True, text="negative")
        assert (report.matched, report.redriven) == (2, 0)
        await engine.redrive(entry.id, payload={"amount": 1})
        await engine.settle_down()
        assert handled[-1] == ({"amount": 1}, ids[0], 1)
        with pytest.raises(errors.ConflictError):
            await engine.redrive(entry.id)
        await engine.discard_dead_letter(rest.items[0].id)
        counts = (await engine.statistics()).dead_letters
        assert (counts["pending"], counts["resolved"], counts["discarded"]) == (0, 1, 1)
        with pytest.raises(errors.InvalidArgumentError, match="status is 'gone'"):
            await engine.dead_letters(status="gone")  # type: ignore[arg-type]


@asynchronous
async def test_a_key_runs_once_among_many_callers(url: str) -> None:
    runs = 0

    async def run() -> dict[str, Any]:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0.05)  # sleeps: so that the others come meanwhile
        return {"charge": 7}

    async with Engine(url) as engine, Engine(url) as other:
        results = await asyncio.gather(
            *(one.once("charge-1", run, wait_max=10) for one in (engine, other) for _ in range(10))
        )
        assert results == [{"charge": 7}] * 20
        assert runs == 1


@asynchronous
async def test_nothing_zero_false_and_empty_are_results_and_a_failure_is_not(url: str) -> None:
    async with Engine(url) as engine:
        for number, result in enumerate((None, 0, False, "", b"", [], b"\x00")):
            runs = 0

            async def run(value: Any = result) -> Any:
                nonlocal runs
                runs += 1
                return value

            for _ in range(2):
                assert await engine.once(f"key-{number}", run) == result
            assert runs == 1

        async def fail() -> None:
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            await engine.once("fails", fail)

        async def succeed() -> int:
            return 5

        assert await engine.once("fails", succeed) == 5
        assert await engine.once("with", succeed, fingerprint="a") == 5
        with pytest.raises(errors.KeyMismatchError):
            await engine.once("with", succeed, fingerprint="b")


@asynchronous
async def test_topics_are_declared_once(url: str) -> None:
    async with Engine(url) as engine:
        await engine.declare_topic("a", partition_count=4)
        await engine.declare_topic("a", partition_count=4)
        with pytest.raises(errors.TopologyMismatchError):
            await engine.declare_topic("a", partition_count=8)
        with pytest.raises(errors.NotFoundError):
            await engine.release_key("g", "a", "k")
        assert await engine.blocked_keys("g", "a") == []
        await engine.consume("a", lambda: None, group="g")
        with pytest.raises(errors.TopologyMismatchError, match="same order"):
            await engine.consume("a", lambda: None, group="g", ordering="key")
        assert [(one.topic, one.group) for one in await engine.backlog()] == [("a", "g")]
        assert (await engine.health()).ok


@asynchronous
async def test_alerts_reach_their_listener(url: str) -> None:
    alerts: list[dict[str, Any]] = []

    async def handle() -> None:
        raise ValueError("no")

    async with Engine(url, alert={"depth_count": 1}, sweep_interval=0.01) as engine:
        engine.on_alert(alerts.append)
        await engine.consume("a", handle, group="g", retry=NEVER)
        await engine.publish("a", b"")
        assert await eventually_async(lambda: bool(alerts))
    assert alerts[0]["value"] >= 1 and not alerts[0]["recovered"]
