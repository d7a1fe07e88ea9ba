"""Limiter: of tasks and of threads at once."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from typing import Any

import pytest
from conftest import asynchronous, eventually

from towline import Limiter, errors


@asynchronous
async def test_tasks_and_threads_share_a_limit() -> None:
    limiter = Limiter(3)
    running = most = 0
    lock = threading.Lock()

    def step(by: int) -> None:
        nonlocal running, most
        with lock:
            running += by
            most = max(most, running)

    async def task() -> None:
        async with limiter:
            step(1)
            await asyncio.sleep(0.002)  # sleeps: its work
            step(-1)

    def thread() -> None:
        with limiter:
            step(1)
            time.sleep(0.002)  # sleeps: its work
            step(-1)

    await asyncio.gather(*(task() for _ in range(50)), *(asyncio.to_thread(thread) for _ in range(50)))
    assert most == 3 and limiter.statistics().in_use == 0 and limiter.statistics().granted == 100


def test_a_permit_that_is_dropped_comes_back() -> None:
    limiter = Limiter(1)
    assert limiter.try_acquire() is not None
    with limiter.acquire_blocking(timeout=1):
        with pytest.raises(errors.TimeoutError):
            limiter.acquire_blocking(timeout=0.01)
    assert limiter.statistics().in_use == 0


@asynchronous
async def test_a_waiter_of_a_closed_loop_disturbs_nobody() -> None:
    limiter = Limiter(1)
    held = limiter.acquire_blocking()

    def leave_waiting() -> None:
        loop = asyncio.new_event_loop()
        waiter = loop.create_task(limiter.acquire())
        loop.call_soon(loop.stop)
        loop.run_forever()
        waiter.cancel()
        loop.run_until_complete(asyncio.gather(waiter, return_exceptions=True))
        loop.close()

    await asyncio.to_thread(leave_waiting)
    held.release()
    (await limiter.acquire(timeout=1)).release()


def test_ctrl_c_ends_a_blocking_wait_and_gives_the_place_away() -> None:
    limiter = Limiter(1)
    held = limiter.acquire_blocking()
    interrupt = threading.Thread(
        target=lambda: eventually(lambda: limiter.statistics().waiting == 1)
        and os.kill(os.getpid(), signal.SIGINT)
    )
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        limiter.acquire_blocking(timeout=20)
    interrupt.join()
    assert limiter.statistics().waiting == 0
    held.release()
    assert limiter.try_acquire() is not None


@pytest.mark.parametrize("value", ["2", 2.5, None, True])
def test_what_is_no_whole_number_is_refused_by_name(value: Any) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=f"limit is {value!r}, but must be a whole number"):
        Limiter(value)
    with pytest.raises(errors.InvalidArgumentError, match="waiting_max is"):
        Limiter(2, waiting_max=value)
    limiter = Limiter(2)
    with pytest.raises(errors.InvalidArgumentError, match="limit is"):
        limiter.set_limit(value)
    for call in (limiter.try_acquire, limiter.acquire_blocking):
        with pytest.raises(errors.InvalidArgumentError, match="weight is"):
            call(weight=value)
    with pytest.raises(errors.InvalidConfigError, match="limit is 0, but must be at least 1"):
        Limiter(0)
    assert limiter.statistics().limit == 2
