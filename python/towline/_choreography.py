"""Choreographies: sagas whose steps are joined by events."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, overload

from towline import records
from towline._options import SagaOptions, SagaStepOptions
from towline._saga import SagaCall, SagaDefinition, SagaStep

if TYPE_CHECKING:
    from typing import Self, Unpack

F = TypeVar("F", bound=Callable[[SagaCall], Any])


class Choreography(SagaDefinition):
    """A saga that nobody directs: each step runs when its event was heard, and what comes of it is the event
    that others listen to, in this process or in other services:

        order = Choreography("order", begins_with="order.placed")

        @order.on("order.placed", on_success="stock.reserved", on_failure="stock.refused")
        async def reserve(call: SagaCall) -> dict[str, int]: ...

        order.expect("stock.reserved", "payment.done", "payment.failed", timeout=60)  # others charge

        @order.on("payment.failed", on_success="stock.released")
        async def release(call: SagaCall) -> None: ...

    Events are messages with the saga's id in the header `saga-id`: see `engine.sagas.publish_event`. One on
    the topic `begins_with` begins a saga, by that id or by its own. Run it, start it, ask for it and change
    it as any other saga.

    It takes each event once. It is over when nothing is left to run or to wait for: completed, when every
    step at the end of the way without failures has succeeded; stuck, when a step of the way after a failure
    was tried as often as it may be and nobody listens to its own failure; else compensated. Cancelled, or
    behind its deadline, it begins no step of the way without failures any more: their failure events are
    published instead, so that the others undo what was done. What it awaits it still waits for: others may
    be at it. Of the two events of what is awaited only the first counts, and
    not before the event that it follows.

    Each type that listens to a topic gets all events there, so whoever shares a topic shares the ids.
    An event that comes before its saga has begun waits for it up to `early_event_ttl`, and is then a dead
    letter of the group `towline.saga.TYPE`. A service with steps of its own makes its own choreography, of
    another type, with the same id, which its events carry.
    """

    def __init__(
        self, type: str, *, begins_with: str, version: int = 1, **options: Unpack[SagaOptions]
    ) -> None:
        """As `Saga`; `begins_with` is a topic."""
        super().__init__(type, version, options)
        self._begins_with = records.text("begins_with", begins_with)
        self._stages.append([])

    @overload
    def on(
        self,
        listen_to: str,
        execute: Callable[[SagaCall], Any],
        *,
        on_success: str,
        on_failure: str = "",
        name: str | None = None,
        **options: Unpack[SagaStepOptions],
    ) -> Self: ...
    @overload
    def on(
        self,
        listen_to: str,
        *,
        on_success: str,
        on_failure: str = "",
        name: str | None = None,
        **options: Unpack[SagaStepOptions],
    ) -> Callable[[F], F]: ...
    def on(
        self,
        listen_to: str,
        execute: Callable[[SagaCall], Any] | None = None,
        *,
        on_success: str,
        on_failure: str = "",
        name: str | None = None,
        **options: Unpack[SagaStepOptions],
    ) -> Any:
        """Adds a step: the function runs when `listen_to` was heard, with the event's payload as its context.
        What it returns is published to `on_success`. When it has failed for good, what it got is published
        to `on_failure`, with the error in the header `saga-error`; "": nothing is. Without a function it
        decorates one.

        The step's name is `name`, or the function's, or of a function without one `on_success`. Where
        programs in several languages run the same choreography it has one name in all of them."""

        def register(function: F) -> F:
            known = getattr(function, "__name__", "")
            own = known if known.isidentifier() else on_success
            self._add(
                SagaStep(own if name is None else name, function, **options),
                (listen_to, on_success, on_failure),
            )
            return function

        if execute is None:
            return register
        register(execute)
        return self

    def expect(
        self,
        listen_to: str,
        on_success: str,
        on_failure: str,
        *,
        timeout: float | timedelta,
        name: str | None = None,
    ) -> Self:
        """After `listen_to` somebody else must publish `on_success` or `on_failure` in time; if nobody does,
        `on_failure` is published here. The step's name is `name`, or `on_success`."""
        step = SagaStep(on_success if name is None else name, timeout=timeout)
        self._add(step, (listen_to, on_success, on_failure), is_awaited=True)
        return self

    def _add(self, step: SagaStep, topics: tuple[str, str, str], *, is_awaited: bool = False) -> None:
        for name, topic in zip(("listen_to", "on_success", "on_failure"), topics, strict=True):
            records.text(name, topic)
        step._events = (*topics, is_awaited)
        self._stages[0].append(step)
