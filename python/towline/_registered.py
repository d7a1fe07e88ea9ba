"""What both twins share: a handler before it runs, where it listens, and its options as the engine takes
them."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from towline import _native, errors, records
from towline._handlers import UNREADABLE, Handler
from towline._option_texts import texts_of

if TYPE_CHECKING:
    from towline._saga import SagaDefinition

F = TypeVar("F", bound=Callable[..., Any])
Ordering = Literal["none", "key", "partition"]
Topics = str | Sequence[str]

DRAIN_COUNT = 512
PUMP_POLL_US = 100_000

# Whose handler runs: closing an engine inside one must not wait for that handler.
running_in: contextvars.ContextVar[object | None] = contextvars.ContextVar("towline_engine", default=None)


def noted(done: asyncio.Future[Any]) -> None:
    """Nobody may be left to ask for its exception."""
    done.cancelled() or done.exception()


class Registered:
    """A handler and where it listens, to be started when the engine opens."""

    def __init__(
        self, topics: Topics, handler: Handler | None, ordering: Ordering, options: Mapping[str, Any]
    ) -> None:
        self.handler = handler
        self._topics = topics
        self._group = options.get("group", "")
        with self.told():
            _refuse(topics, ordering, options)
            self.native_arguments = (
                [topics] if isinstance(topics, str) else list(topics),
                [
                    *texts_of("Consumer", {**options, "order": _native.ORDERINGS[ordering]}),
                    # What cannot be read cannot be read the next time either.
                    ("classify.permanent_types", UNREADABLE),
                ],
                handler is not None and handler.in_batches,
            )
        self.concurrency: int = options.get("concurrency", 1)

    @contextmanager
    def told(self) -> Iterator[None]:
        """What is wrong with it says of which consumer: where many are registered nobody could tell."""
        try:
            yield
        except errors.TowlineError as error:
            if self.handler is not None:
                error.message = f"{self.named()}: {error.message}"
                error.args = (error.message,)
            raise

    def named(self) -> str:
        name = "" if self.handler is None else f" {self.handler.name!r}"
        of_group = f" (group {self._group!r})" if self._group else ""
        return f"the consumer{name} of {records.shown(self._topics)}{of_group}"


def _refuse(topics: Any, ordering: Any, options: Mapping[str, Any]) -> None:
    if ordering not in _native.ORDERINGS:
        raise errors.InvalidConfigError(
            f"ordering is {ordering!r}, but must be one of {', '.join(_native.ORDERINGS)}"
        )
    if "order" in options:
        raise errors.InvalidConfigError(
            f"order is {options['order']!r}, but this option is called ordering here: "
            f"one of {', '.join(_native.ORDERINGS)}"
        )
    if not isinstance(topics, Iterable):
        raise errors.InvalidArgumentError(
            f"topics is {records.shown(topics)}, but must be a name or a pattern, or a list of them"
        )


class AtOpen:
    """What starts when the engine opens, in this order."""

    def __init__(self) -> None:
        self.consumers: list[Registered] = []
        # Names, functions, and what EventStore.subscribe takes beside them.
        self.event_handlers: list[tuple[str, Callable[..., Any], dict[str, Any]]] = []
        self.sagas: list[SagaDefinition] = []
