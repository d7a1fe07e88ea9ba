"""Keys that run once: which functions may run, and what they give."""

from __future__ import annotations

import asyncio
import functools
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from conftest import asynchronous, eventually_async

from towline import Engine, PayloadError, errors


@dataclass
class Charge:
    id: int
    at: datetime


CHARGE = Charge(7, datetime(2026, 1, 2, tzinfo=UTC))


def charge() -> Charge:
    return CHARGE


async def charge_in_loop() -> Charge:
    return CHARGE


class Charging:
    async def __call__(self) -> Charge:
        return CHARGE


@asynchronous
async def test_a_plain_function_runs_in_a_thread_and_its_result_is_kept(url: str) -> None:
    threads: list[threading.Thread] = []

    def run() -> int:
        threads.append(threading.current_thread())
        return len(threads)

    async with Engine(url) as engine:
        results = await asyncio.gather(*(engine.once("key", run, wait_max=20) for _ in range(5)))
        assert results == [1] * 5
        assert len(threads) == 1 and threads[0] is not threading.main_thread()

        def fail() -> None:
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            await engine.once("fails", fail)
        assert await engine.once("fails", lambda: 5) == 5
        # What gives something to be awaited is no coroutine function.
        assert await engine.once("lambda", lambda: asyncio.sleep(0, "slept")) == "slept"


@asynchronous
async def test_a_thread_whose_caller_was_cancelled_keeps_the_key_and_its_result(url: str) -> None:
    started, may_end = threading.Event(), threading.Event()

    def run() -> str:
        started.set()
        may_end.wait(30)
        return "done"

    async with Engine(url) as engine:
        asking = asyncio.create_task(engine.once("key", run))
        assert await eventually_async(started.is_set)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        with pytest.raises(errors.InProgressError):
            await engine.once("key", run)
        may_end.set()
        assert await engine.once("key", lambda: "again", wait_max=20) == "done"


FUNCTIONS: dict[str, tuple[Any, Any]] = {
    "annotated": (charge, CHARGE),
    "partial": (functools.partial(charge), CHARGE),
    "object": (Charging(), CHARGE),
    "coroutine": (charge_in_loop, CHARGE),
    "lambda": (lambda: CHARGE, {"id": 7, "at": "2026-01-02T00:00:00+00:00"}),
    "tuple": (lambda: (1, 2), [1, 2]),
    "names": (lambda: {1: 2}, {"1": 2}),
    "text": (lambda: "1", "1"),
    "bytes": (lambda: b"1", b"1"),
    "none": (lambda: None, None),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@asynchronous
async def test_the_first_caller_gets_what_every_other_gets(url: str, name: str) -> None:
    function, expected = FUNCTIONS[name]
    async with Engine(url) as engine:
        for _ in range(2):
            result = await engine.once("key", function)
            assert result == expected and type(result) is type(expected)


@asynchronous
async def test_annotations_decide_what_names_and_rows_are(url: str) -> None:
    async def names() -> dict[int, tuple[int, str] | None]:
        return {1: (2, "x"), 2: None}

    def odd() -> Charging:
        return {"a": 1}  # type: ignore[return-value]

    def wrong() -> int:
        return "one"  # type: ignore[return-value]

    async with Engine(url) as engine:
        for _ in range(2):
            assert await engine.once("names", names) == {1: (2, "x"), 2: None}
            assert await engine.once("odd", odd) == {"a": 1}  # type: ignore[comparison-overlap]
            with pytest.raises(PayloadError, match="result that is kept of the key 'wrong' cannot be read"):
                await engine.once("wrong", wrong)


def test_the_twin_runs_and_gives_the_same(url: str) -> None:
    with Engine(url) as engine:
        for _ in range(2):
            assert engine.once("key", charge) == CHARGE
            assert engine.once("tuple", lambda: (1,)) == [1]  # type: ignore[comparison-overlap]
        with pytest.raises(errors.InvalidArgumentError, match="coroutine function"):
            engine.once("other", charge_in_loop)  # type: ignore[unused-coroutine]
        assert engine.once("other", lambda: 5) == 5


@asynchronous
async def test_a_result_that_cannot_be_kept_says_that_the_function_has_run(url: str) -> None:
    async with Engine(url, payload_bytes_max=10) as engine:
        text = "key 'k' has run, but its result was not kept.* object has no JSON"
        with pytest.raises(PayloadError, match=text):
            await engine.once("k", object)
        with pytest.raises(errors.PayloadTooLargeError, match="key 'k' has run, but its result was not kept"):
            await engine.once("k", lambda: "x" * 11)
        with pytest.raises(PayloadError, match="has run"):
            await engine.once("k", lambda: "\udce9")
        assert await engine.once("k", lambda: 5) == 5
