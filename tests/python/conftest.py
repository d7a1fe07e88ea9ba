"""What the tests of the Python package share: each provider in turn, waiting for conditions, other
processes."""

from __future__ import annotations

import asyncio
import functools
import itertools
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_names = itertools.count(1)

# A shell makes what it starts in the background deaf to Ctrl-C, and that is passed on to every child.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of its own, which a second engine of the same test can share."""
    if request.param == "memory":
        return f"memory:python-{next(_names)}"
    return f"sqlite:{tmp_path}/store.db"


def asynchronous(test: Callable[..., Any]) -> Callable[..., Any]:
    """Runs the coroutine function in a loop of its own, for a minute at most."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(60):
                await test(*arguments, **named)

        asyncio.run(bounded())

    return run


def eventually(condition: Callable[[], bool], timeout: float = 20) -> bool:
    """Polls: for what nobody announces, such as another thread's progress."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.002)  # sleeps: between two looks
    return True


async def eventually_async(condition: Callable[[], bool], timeout: float = 20) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(0.002)  # sleeps: between two looks
    return True


def run(code: str, *arguments: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
    """The code in a process of its own, with the interpreter's own checks on."""
    return subprocess.run(
        [sys.executable, "-X", "dev", "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
    )
