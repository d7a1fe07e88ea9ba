"""A durable reader of events, for both twins."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from towline import errors, records
from towline._handlers import failure_of
from towline._registered import noted, running_in
from towline.records import EventSubscriptionStatistics, RecordedEvent

if TYPE_CHECKING:
    from typing import Self

    from towline import _core
    from towline._calls import Span
    from towline._engine import Engine
    from towline._native import Native
    from towline._sync_engine import SyncEngine

# One question to the engine takes a thread of it at most so long.
SLICE_US = 250_000


def _span_us(timeout: Span | None) -> int | None:
    return None if timeout is None else max(records.seconds_to_us(timeout), 0)


class _Intake:
    """What was received and is not handed over yet, and what the body of a loop works on."""

    def __init__(self, stream: str) -> None:
        self._by_version = bool(stream)
        self._waiting: list[RecordedEvent] = []
        self._working: list[RecordedEvent] = []

    def take(self, count_max: int) -> list[RecordedEvent]:
        taken, self._waiting = self._waiting[:count_max], self._waiting[count_max:]
        return taken

    def put(self, raw: list[tuple[Any, ...]]) -> None:
        self._waiting += [records.recorded_event(one) for one in raw]

    def restart(self) -> None:
        """What a loop was left with, by `break` or an exception, comes again."""
        self._waiting = self._working + self._waiting
        self._working = []

    def begin(self, batch: list[RecordedEvent]) -> int:
        """The place to which the checkpoint moves when the batch is handled."""
        self._working = batch
        return batch[-1].version if self._by_version else batch[-1].position

    def end(self) -> None:
        self._working = []

    def drop(self) -> None:
        """Somebody else follows now, from the checkpoint on."""
        self._waiting, self._working = [], []


# What a handler failed with: its kind and its text.
Failure = tuple[str, str] | None
GIVEN_UP: Failure = ("Cancelled", "the handler was cancelled")


class EventHandler:
    """A function that handles batches of events, when it runs."""

    __slots__ = ("function", "is_async")

    def __init__(self, function: Callable[[list[RecordedEvent]], Any]) -> None:
        if not callable(function):
            raise TypeError(f"a handler is a function, not a {type(function).__name__}")
        self.function = function
        called = function if inspect.isroutine(function) else getattr(function, "__call__", function)
        self.is_async = inspect.iscoroutinefunction(called)

    def run(self, raw: list[tuple[Any, ...]]) -> Failure:
        """Raises nothing."""
        try:
            self.function([records.recorded_event(one) for one in raw])
        except BaseException as error:
            return failure_of(error)
        return None

    async def run_async(self, raw: list[tuple[Any, ...]]) -> Failure:
        try:
            await self.function([records.recorded_event(one) for one in raw])
        except BaseException as error:
            return failure_of(error)
        return None


class EventSubscription:
    """A durable reader of events, made by `engine.event_store.subscribe`. With a handler the engine calls
    that; else:

        async for batch in subscription: ...

    or step by step with `receive` and `checkpoint`. In a loop the checkpoint moves when the body has come
    back for the next batch; what it is left with, by `break` or an exception, comes again in the next loop,
    or in the next process. The loop ends when the subscription or the engine is closed."""

    def __init__(
        self,
        engine: Engine,
        stream: str,
        count_max: int,
        handler: Callable[[list[RecordedEvent]], Any] | None = None,
    ) -> None:
        self._engine = engine
        self._native: _core.EventSubscription
        self._count_max = count_max
        self._intake = _Intake(stream)
        self._receiving = asyncio.Lock()
        self._asked: asyncio.Future[list[tuple[Any, ...]]] | None = None
        self._handler = None if handler is None else EventHandler(handler)
        # Under which batches come for the handler.
        self._id = 0
        self._task: asyncio.Task[Failure] | None = None

    async def _start(self, texts: list[tuple[str, str]]) -> None:
        if self._handler is None:
            self._native = await self._engine._call("follow_events", texts)
        else:
            await self._engine._start_event_handler(self, texts)

    def _handle(self, raw: list[tuple[Any, ...]]) -> None:
        assert self._handler is not None
        context = contextvars.copy_context()
        context.run(running_in.set, self._engine)
        if self._handler.is_async:
            work = self._handler.run_async(raw)
        else:
            work = self._engine._in_thread(context, GIVEN_UP, self._handler.run, raw)
        self._task = self._engine._loop.create_task(work, context=context)
        returned = functools.partial(self._returned, self._engine._native)
        self._task.add_done_callback(returned, context=context)

    def _returned(self, native: Native | None, task: asyncio.Task[Failure]) -> None:
        self._task = None
        is_ours = native is self._engine._native  # else of an opening that failed
        if is_ours and native is not None and not native.forked:
            native.port.finish_events(self._id, GIVEN_UP if task.cancelled() else task.result())

    def _give_up(self) -> None:
        """What its handler still does does not count."""
        if self._task is not None:
            self._task.cancel()

    def _thread_count(self) -> int:
        return 0 if self._handler is None or self._handler.is_async else 1

    async def receive(
        self, count_max: int | None = None, timeout: Span | None = None
    ) -> list[RecordedEvent]:
        """The next events after those that were received, in order; waits for the first until `timeout`
        (None: without end). Empty: there was none in time, or another process is active. `count_max` 1 to
        10000; None: `batch_count_max`. Raises `ClosedError`, `InvalidArgumentError`."""
        count = records.place("count_max", self._count_max if count_max is None else count_max)
        left_us = _span_us(timeout)
        if not self._engine._is_closed():
            self._engine._check()
        try:
            async with asyncio.timeout(None if left_us is None else left_us / 1e6):
                await self._receiving.acquire()
        except TimeoutError:  # somebody else receives
            return []
        try:
            return await self._receive(count, left_us)
        finally:
            self._receiving.release()

    async def _receive(self, count: int, left_us: int | None) -> list[RecordedEvent]:
        while True:
            if taken := self._intake.take(count):
                return taken
            slice_us = SLICE_US if left_us is None else min(left_us, SLICE_US)
            # Whoever was cancelled may have left a question, whose answer must not be lost.
            begun = self._asked
            asked = self._asked = begun or self._engine._request(
                self._native.receive, count, slice_us
            )
            asked.add_done_callback(noted)
            await asyncio.wait([asked], timeout=None if begun is None else slice_us / 1e6)
            if asked.done():
                self._asked = None
                self._intake.put(asked.result())
            if left_us is not None and not self._intake._waiting:
                left_us -= slice_us
                if left_us <= 0:
                    return []

    async def checkpoint(self, place: int) -> None:
        """Everything received up to this place is handled: the `position` of an event, or its `version` where
        one stream is followed. It moves only forward. Raises `LeaseLostError` (another process is active;
        nothing was changed), `InvalidArgumentError` (that far nothing was received)."""
        records.place("place", place)
        await self._engine._request(self._native.checkpoint, place)

    async def statistics(self) -> EventSubscriptionStatistics:
        """How far it is, and whether this process is the active one."""
        return EventSubscriptionStatistics(*await self._engine._request(self._native.statistics))

    async def close(self, timeout: Span | None = None) -> bool:
        """Gives the lease back; with a handler, and of `stream_to`, it waits for the batch at work up to
        `timeout` (default: the engine's drain_timeout). False: that goes on, and what it still does does not
        count; a coroutine is cancelled. Inside a handler of the engine it returns at once, and the rest
        happens later. Idempotent; the engine closes it too."""
        if not self._engine._is_closed():
            self._engine._check()
        self._engine.event_store._streaming.discard(self)
        if self._engine._is_closed():
            return True
        closing = self._engine._request(self._native.close, _span_us(timeout))
        if self._handler is None:
            return bool(await closing)
        closing.add_done_callback(self._closed)
        if running_in.get() is self._engine:
            self._engine._keep(closing)
            return True
        return bool(await asyncio.shield(closing))

    def _closed(self, closing: asyncio.Future[bool]) -> None:
        noted(closing)
        self._engine._event_handlers.pop(self._id, None)
        self._give_up()  # if it has not returned

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[list[RecordedEvent]]:
        return self._batches()

    async def _batches(self) -> AsyncIterator[list[RecordedEvent]]:
        self._intake.restart()
        try:
            while True:
                batch = await self.receive()
                place = self._intake.begin(batch)
                yield batch
                try:
                    await self.checkpoint(place)
                except errors.LeaseLostError:
                    self._intake.drop()
                self._intake.end()
        except errors.ClosedError:
            return


class SyncEventSubscription:
    """As `EventSubscription`, for programs without an event loop: `for batch in subscription`. Thread-safe;
    of one loop at a time."""

    def __init__(
        self,
        engine: SyncEngine,
        stream: str,
        count_max: int,
        handler: Callable[[list[RecordedEvent]], Any] | None = None,
    ) -> None:
        self._engine = engine
        self._native: _core.EventSubscription
        self._count_max = count_max
        self._intake = _Intake(stream)
        self._lock = threading.Lock()
        self._id = 0
        self._handler = None if handler is None else EventHandler(handler)
        if self._handler is not None and self._handler.is_async:
            raise errors.InvalidConfigError("the handler is a coroutine function; use `async with` for it")
        # Makes its thread with the first batch.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="towline-events")

    def _start(self, texts: list[tuple[str, str]]) -> None:
        if self._handler is None:
            self._native = self._engine._call("follow_events", texts)
        else:
            self._engine._start_event_handler(self, texts)

    def _handle(self, raw: list[tuple[Any, ...]]) -> None:
        self._executor.submit(self._run, raw)

    def _run(self, raw: list[tuple[Any, ...]]) -> None:
        assert self._handler is not None
        context = contextvars.copy_context()
        context.run(running_in.set, self._engine)
        failure = context.run(self._handler.run, raw)
        native = self._engine._native
        if not native.forked:
            native.port.finish_events(self._id, failure)

    def receive(self, count_max: int | None = None, timeout: Span | None = None) -> list[RecordedEvent]:
        """As `EventSubscription.receive`."""
        count = records.place("count_max", self._count_max if count_max is None else count_max)
        left_us = _span_us(timeout)
        while True:
            with self._lock:
                if taken := self._intake.take(count):
                    return taken
            slice_us = SLICE_US if left_us is None else min(left_us, SLICE_US)
            if raw := self._native.receive(self._engine._check().port, None, count, slice_us):
                return [records.recorded_event(one) for one in raw]
            if left_us is not None:
                left_us -= slice_us
                if left_us <= 0:
                    return []

    def checkpoint(self, place: int) -> None:
        """As `EventSubscription.checkpoint`."""
        records.place("place", place)
        self._native.checkpoint(self._engine._check().port, None, place)

    def statistics(self) -> EventSubscriptionStatistics:
        """As `EventSubscription.statistics`."""
        return EventSubscriptionStatistics(*self._native.statistics(self._engine._check().port, None))

    def close(self, timeout: Span | None = None) -> bool:
        """As `EventSubscription.close`."""
        self._engine.event_store._streaming.discard(self)
        if self._engine._is_closed():
            return True
        if self._handler is not None and running_in.get() is self._engine:
            self._engine._elsewhere(lambda: self._close(timeout))
            return True
        return self._close(timeout)

    def _close(self, timeout: Span | None) -> bool:
        closed = self._native.close(self._engine._check().port, None, _span_us(timeout))
        self._engine._event_handlers.pop(self._id, None)
        self._executor.shutdown(wait=False, cancel_futures=True)
        return closed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[list[RecordedEvent]]:
        with self._lock:
            self._intake.restart()
        try:
            while True:
                batch = self.receive()
                place = self._intake.begin(batch)
                yield batch
                try:
                    self.checkpoint(place)
                except errors.LeaseLostError:
                    with self._lock:
                        self._intake.drop()
                self._intake.end()
        except errors.ClosedError:
            return
