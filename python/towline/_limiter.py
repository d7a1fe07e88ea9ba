"""Limiter: so many at once, in the order of asking. Asking never blocks the native half; the callback that
grants runs in the thread that made room, which is one of Python's."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from towline import _core, errors, records

if TYPE_CHECKING:
    from datetime import timedelta
    from typing import Self


@dataclass(frozen=True, slots=True)
class LimiterStatistics:
    """Of a `Limiter`, in weights: `in_use` now, `in_use_max` at most at once. `waiting`: callers, now.
    `granted` and `refused` (nobody more may wait): callers since it was made."""

    limit: int
    in_use: int
    waiting: int
    in_use_max: int
    granted: int
    refused: int


class Permit:
    """Permission to run, given back once: by `release`, at the end of a `with`, or when it is dropped."""

    __slots__ = ("_native",)

    def __init__(self, native: _core.Permit) -> None:
        self._native = native

    def release(self) -> None:
        """Idempotent."""
        self._native.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class _Request:
    """One caller's place in the queue. `tell` is called when it is decided, in any thread."""

    def __init__(self, permits: _core.Permits, weight: int, tell: Callable[[], None]) -> None:
        self._permits = permits
        self._tell = tell
        self._told = threading.Event()
        self.permit: Permit | None = None
        self.error: Exception | None = None
        self._number = permits.request(weight, self._decided)

    def _decided(self, permit: _core.Permit | None, error: Exception | None) -> None:
        self.permit = None if permit is None else Permit(permit)
        self.error = error
        self._told.set()
        self._tell()

    @property
    def is_decided(self) -> bool:
        return self.permit is not None or self.error is not None

    def take(self) -> Permit:
        if self.error is not None:
            raise self.error
        assert self.permit is not None
        return self.permit

    def withdraw(self) -> bool:
        """Gives up the place; False when it was decided already. The one who decides may still be about to
        say so."""
        if self.is_decided or not self._permits.withdraw(self._number):
            self._told.wait()
            return False
        return True

    def give_up(self) -> None:
        """What was granted in the meantime goes to the next one."""
        if not self.withdraw() and self.permit is not None:
            self.permit.release()


def _whole(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise errors.InvalidArgumentError(f"{name} is {records.shown(value)}, but must be a whole number")
    return value


def _at_least(name: str, value: int, bound: int) -> None:
    if _whole(name, value) < bound:
        raise errors.InvalidConfigError(f"{name} is {value}, but must be at least {bound}")


class Limiter:
    """At most `limit` [1, 2^31) at once, first come, first served; `waiting_max` may wait, one more raises
    `OverloadedError`.

        limiter = Limiter(10)
        async with limiter:          # or `with limiter:`, which blocks its thread
            await call_the_bank()

    Thread-safe; of no event loop and of no engine. Raises `InvalidConfigError`, and `InvalidArgumentError`
    for what is no whole number.
    """

    def __init__(self, limit: int, *, waiting_max: int = 10_000) -> None:
        _at_least("limit", limit, 1)
        _at_least("waiting_max", waiting_max, 0)
        self._permits = _core.Permits(limit, waiting_max)
        # Permits of `with` blocks: one is as good as another.
        self._entered: deque[Permit] = deque()

    async def acquire(self, *, weight: int = 1, timeout: float | timedelta | None = None) -> Permit:
        """A permit that counts as `weight` [1, limit]. Raises `TimeoutError`, `OverloadedError` and
        `InvalidArgumentError`. Cancelling gives the place away."""
        loop = asyncio.get_running_loop()
        decided = asyncio.Event()

        def tell() -> None:
            try:
                loop.call_soon_threadsafe(decided.set)
            except RuntimeError:  # the loop is closed: nobody waits any more
                pass

        request = _Request(self._permits, _whole("weight", weight), tell)
        try:
            async with asyncio.timeout(None if timeout is None else records.seconds_to_us(timeout) / 1e6):
                if not request.is_decided:
                    await decided.wait()
        except TimeoutError:
            if request.withdraw():
                raise errors.TimeoutError("no permit came in time") from None
        except BaseException:
            request.give_up()
            raise
        return request.take()

    def acquire_blocking(self, *, weight: int = 1, timeout: float | timedelta | None = None) -> Permit:
        """As `acquire`, for threads. Ctrl-C ends the wait at once."""
        decided = threading.Event()
        request = _Request(self._permits, _whole("weight", weight), decided.set)
        try:
            decided.wait(None if timeout is None else records.seconds_to_us(timeout) / 1e6)
        except BaseException:
            request.give_up()
            raise
        if request.withdraw():
            raise errors.TimeoutError("no permit came in time")
        return request.take()

    def try_acquire(self, *, weight: int = 1) -> Permit | None:
        """Never waits; None when none is free or others wait already."""
        permit = self._permits.try_acquire(_whole("weight", weight))
        return None if permit is None else Permit(permit)

    def set_limit(self, limit: int) -> None:
        """Takes effect at once: after a shrink nobody is stopped, and new ones wait until enough came
        back."""
        _at_least("limit", limit, 1)
        self._permits.set_limit(limit)

    def statistics(self) -> LimiterStatistics:
        """What is in use and who waits now, and what was granted and refused. From any thread."""
        return LimiterStatistics(**self._permits.statistics())

    async def __aenter__(self) -> Self:
        self._entered.append(await self.acquire())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._entered.pop().release()

    def __enter__(self) -> Self:
        self._entered.append(self.acquire_blocking())
        return self

    def __exit__(self, *_: object) -> None:
        self._entered.pop().release()
