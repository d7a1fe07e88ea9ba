"""What crosses between Python and the native half: how often, and what of its errors."""

from __future__ import annotations

import asyncio
import builtins
import collections
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import asynchronous, eventually, eventually_async

from towline import Engine, Message, _core, errors

COUNT = 1_000


@pytest.fixture
def crossings(monkeypatch: pytest.MonkeyPatch) -> collections.Counter[str]:
    """Calls of the port that carry messages, by name; of both engines."""
    counts: collections.Counter[str] = collections.Counter()

    class Counted(_core.Port):
        pass

    def counted(name: str) -> Callable[..., Any]:
        method = getattr(_core.Port, name)

        def call(self: Counted, *arguments: Any) -> Any:
            counts[name] += 1
            return method(self, *arguments)

        return call

    for name in ("publish", "publish_and_wait", "drain", "finish"):
        setattr(Counted, name, counted(name))
    monkeypatch.setattr(_core, "Port", Counted)
    return counts


async def each(message: Message) -> None: ...


async def batches(messages: list[Message]) -> None: ...


def plainly(message: Message) -> None: ...


def batches_plainly(messages: list[Message]) -> None: ...


MESSAGES: list[dict[str, Any]] = [{"topic": "a", "payload": number} for number in range(COUNT)]


@asynchronous
async def test_what_is_published_together_crosses_once_and_its_answers_do(
    url: str, crossings: collections.Counter[str]
) -> None:
    async with Engine(url) as engine:
        crossings.clear()
        receipts = await engine.publish_batch(MESSAGES)
        assert all(receipt.acked for receipt in receipts)
        assert crossings["publish"] == 1 and crossings["drain"] <= 10, crossings
        crossings.clear()
        # Who publishes one by one crosses as often; the answers come together.
        receipts = await asyncio.gather(*(engine.publish("a", number) for number in range(COUNT)))
        assert all(receipt.acked for receipt in receipts)
        assert crossings["drain"] <= COUNT / 5, crossings


@pytest.mark.parametrize("handler", [each, batches])
@asynchronous
async def test_what_is_handled_crosses_many_at_a_time(
    url: str, crossings: collections.Counter[str], handler: Callable[..., Any]
) -> None:
    async with Engine(url) as engine:
        options: Any = {"batch": True} if handler is batches else {"concurrency": 500}
        consumer = await engine.consume("a", handler, group="g", **options)
        crossings.clear()
        await engine.publish_batch(MESSAGES)
        assert await eventually_async(lambda: consumer.statistics().acked == COUNT)
        assert crossings["drain"] + crossings["finish"] <= COUNT / 5, crossings


@pytest.mark.parametrize("in_batches", [False, True])
def test_so_it_does_for_the_twin(url: str, crossings: collections.Counter[str], in_batches: bool) -> None:
    with Engine(url) as engine:
        options: Any = {"batch": True} if in_batches else {"concurrency": 500}
        consumer = engine.consume("a", batches_plainly if in_batches else plainly, group="g", **options)
        crossings.clear()
        receipts = engine.publish_batch(MESSAGES)
        assert all(receipt.acked for receipt in receipts)
        assert eventually(lambda: consumer.statistics().acked == COUNT)
        assert crossings["publish_and_wait"] == 1
        assert crossings["drain"] + crossings["finish"] <= COUNT / 4, crossings


# ---- errors ---------------------------------------------------------------------------------------------

# What the table of all languages says: number, name, code, whether it can be retried, Python's class.
LINES = re.findall(
    r"^TOWLINE_ERROR\(\s*(\d+),\s*(\w+),\s*\"(\w+)\",\s*(true|false),\s*(\w+),",
    (Path(__file__).resolve().parents[2] / "core/include/towline/errors.def").read_text(),
    re.MULTILINE,
)


@pytest.mark.parametrize(
    ("number", "name", "code", "retryable", "base"), LINES, ids=[one[1] for one in LINES]
)
def test_every_error_of_the_table_comes_through_as_its_own_class(
    number: str, name: str, code: str, retryable: str, base: str
) -> None:
    name = name if name.endswith("Error") else f"{name}Error"
    with pytest.raises(errors.TowlineError) as raised:
        _core.raise_error(int(number), "text", 5)
    error = raised.value
    assert type(error) is getattr(errors, name) and type(error).__name__ == name
    assert (error.number, error.code, error.retryable) == (int(number), code, retryable == "true")
    assert isinstance(error, getattr(builtins, base))
    assert (error.message, str(error), error.context) == ("text", f"{code}: text", {"native_code": 5})
    assert errors.BY_NUMBER[int(number)] is type(error)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.context) == (type(error), str(error), error.context)


def test_the_table_and_the_classes_are_as_many() -> None:
    table = (Path(__file__).resolve().parents[2] / "core/include/towline/errors.def").read_text()
    assert len(LINES) == table.count("\nTOWLINE_ERROR(") == len(errors.BY_NUMBER) >= 40
