"""What both twins share: a handler before it runs, where it listens, and its options as the engine takes
them."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from towline import _native, errors
from towline._handlers import UNREADABLE, Handler
from towline._native import texts_of

F = TypeVar("F", bound=Callable[..., Any])
Ordering = Literal["none", "key", "partition"]
Topics = str | Sequence[str]

DRAIN_COUNT = 512
PUMP_POLL_US = 100_000

# Whose handler runs: closing an engine inside one must not wait for that handler.
running_in: contextvars.ContextVar[object | None] = contextvars.ContextVar("towline_engine", default=None)


class Registered:
    """A handler and where it listens, to be started when the engine opens."""

    def __init__(
        self, topics: Topics, handler: Handler | None, ordering: Ordering, options: Mapping[str, Any]
    ) -> None:
        if ordering not in _native.ORDERINGS:
            raise errors.InvalidConfigError(
                f"ordering is {ordering!r}, but must be one of {', '.join(_native.ORDERINGS)}"
            )
        self.handler = handler
        self.concurrency = int(options.get("concurrency", 1))
        self.native_arguments = (
            [topics] if isinstance(topics, str) else list(topics),
            [
                *texts_of("Consumer", {**options, "order": _native.ORDERINGS[ordering]}),
                # What cannot be read cannot be read the next time either.
                ("classify.permanent_types", UNREADABLE),
            ],
            handler is not None and handler.in_batches,
        )
