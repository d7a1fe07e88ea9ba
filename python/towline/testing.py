"""For tests: an engine on `memory:` whose time stands still until you move it.

    clock = VirtualClock()
    async with Engine("memory:", clock=clock) as engine:
        await engine.publish("orders", order, delay=30)
        await clock.advance_and_settle(engine, 30)   # the handler has run

The handlers that a module has registered with an engine of its own:

    with in_memory(shop.engine, clock):
        async with shop.engine as engine:
            await engine.publish("orders", order)

The pytest plug-in gives the fixtures `towline_clock` and `towline_engine` (an open SyncEngine over that
clock).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from towline import _core, errors, records

if TYPE_CHECKING:
    from towline import Engine, SyncEngine


class VirtualClock:
    """A clock that stands still until it is advanced: delays, retries, leases and timeouts of the next 30
    seconds all happen at once with `advance(30)`. Begins at 2026-01-01T00:00:00Z. Thread-safe."""

    def __init__(self) -> None:
        self._native = _core.VirtualClock()

    def now(self) -> datetime:
        """What its wall clock shows, in UTC."""
        return records.from_us(self._native.now_us())

    def advance(self, by: float | timedelta) -> None:
        """Moves the time forward and wakes what waits for it; does not wait until that work is done (use
        `engine.settle_down()`)."""
        self._native.advance(records.seconds_to_us(by))

    def step_wall(self, by: float | timedelta) -> None:
        """Moves the wall clock only, forward or back, as a time server would."""
        self._native.step_wall(records.seconds_to_us(by))

    async def advance_and_settle(self, engine: Engine, by: float | timedelta) -> None:
        """Advances and waits until nothing is due, receivable or running."""
        self.advance(by)
        await engine.settle_down()


@contextmanager
def in_memory(engine: Engine, clock: VirtualClock | None = None) -> Iterator[Engine]:
    """Within it `engine`, with its options and all that was registered with it, opens on a `memory:` store of
    its own, over the clock if one is given; afterwards it is as if it had not been opened. Close it before
    the end. Raises `InvalidArgumentError` while it is open."""

    def check() -> None:
        if not engine._is_closed() or (engine._twin is not None and not engine._twin._is_closed()):
            raise errors.InvalidArgumentError("the engine is open; close it before this begins and ends")

    check()
    url, own_clock = engine._url, engine._clock
    engine._reset()
    engine._url, engine._clock = "memory:", clock
    try:
        yield engine
        check()
    finally:
        engine._url, engine._clock = url, own_clock
        engine._reset()


def open_sync(clock: VirtualClock) -> Iterator[SyncEngine]:
    """An open SyncEngine on a store of its own, for fixtures."""
    from towline import Engine

    with Engine("memory:", clock=clock) as engine:
        yield engine
