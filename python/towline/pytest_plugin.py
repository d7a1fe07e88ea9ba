"""Fixtures for pytest: `towline_clock` and `towline_engine`. Loaded by pytest itself through its entry
point."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from towline import SyncEngine
    from towline.testing import VirtualClock


@pytest.fixture
def towline_clock() -> VirtualClock:
    """A clock that stands still until the test advances it."""
    from towline.testing import VirtualClock

    return VirtualClock()


@pytest.fixture
def towline_engine(towline_clock: VirtualClock) -> Iterator[SyncEngine]:
    """An engine on `memory:` over that clock, closed after the test."""
    from towline.testing import open_sync

    yield from open_sync(towline_clock)
