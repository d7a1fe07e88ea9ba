"""One engine of the native half, with what both twins need: logs, forks, and the exit of the interpreter."""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from towline import _core, errors

logger = logging.getLogger("towline")

# The engine's levels, by number.
LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
# Event.Kind of the engine, and calls of sagas.
REPLY, RECEIPTS, DELIVERY, STOP, LOG, ALERT, EVENTS, SAGA_CALLS, SAGA_STOP = range(9)

ORDERINGS = {"none": "unordered", "key": "key_ordered", "partition": "partition_ordered"}

# Until they are shut: closing one takes time, which is not the garbage collector's to spend.
_open: set[Native] = set()


def log_level() -> int | None:
    """The least of the engine's levels that the logger takes now; None: none of them."""
    return next((number for number, known in enumerate(LEVELS) if logger.isEnabledFor(known)), None)


class Native:
    """The port of one open engine. After a fork the child's is dead; at exit every one is closed."""

    def __init__(self) -> None:
        self.port = _core.Port(log_level())
        self.ids = itertools.count(1)
        self.forked = False
        self.closed = False
        # Fetches events where no event loop does. Joined before the interpreter ends: a thread that waits in
        # native code must not come back into one that is being taken down.
        self.pump: threading.Thread | None = None
        _open.add(self)

    def start_pump(self, main: Callable[[], None]) -> None:
        self.pump = threading.Thread(target=main, name="towline-pump", daemon=True)
        self.pump.start()

    def check(self) -> None:
        if self.forked:
            raise errors.ForkedError(
                "the engine was opened before fork(); open one after it, in each process"
            )
        if self.closed:
            raise errors.ClosedError("the engine is closed")

    def shut(self) -> None:
        """Idempotent. Waits for the threads of the port."""
        self.closed = True
        if self.forked:
            return
        self.port.shut()
        _open.discard(self)
        if self.pump is not None and self.pump is not threading.current_thread():
            self.pump.join()


def note_log(event: tuple[Any, ...]) -> None:
    _, level, station, text = event
    logger.log(LEVELS[level], "%s: %s", station, text, extra={"towline_station": station})


def note_failure(text: str) -> None:
    """Logs the exception that is being handled. Raises nothing: logging, too, is code of the user."""
    try:
        logger.exception(text)
    except Exception:
        pass


def _after_fork_in_child() -> None:
    for native in list(_open):
        native.forked = True
        native.port.abandon()
    _open.clear()


def _at_exit() -> None:
    # Handlers cannot run any more, so there is nothing to wait for: what they hold goes back.
    for native in list(_open):
        try:
            native.port.close(None, 0)
        except Exception:
            pass
        native.shut()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
