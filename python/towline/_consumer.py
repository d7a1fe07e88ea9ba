"""Consumers of an engine for asyncio: with a handler, or messages one by one."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from towline import _core, errors, records
from towline._calls import Span
from towline._handlers import Handler
from towline._message import RELEASED, Message, OutcomeTuple, handed_over
from towline._registered import Registered, running_in
from towline.records import ConsumerStatistics

if TYPE_CHECKING:
    from typing import Self

    from towline._engine import Engine


class Run:
    """A handler at work on one message, or on a batch. Stopped when none of its results counts any more."""

    __slots__ = ("counting", "engine", "native", "numbers", "task")

    def __init__(self, engine: Engine, numbers: list[int]) -> None:
        self.engine = engine
        self.native = engine._native
        self.numbers = numbers
        self.counting = len(numbers)
        self.task: asyncio.Task[None]

    def over(self, outcomes: list[OutcomeTuple]) -> None:
        """Said by what runs in the task, at its end: a callback of the task would cost a turn of the loop."""
        if self.engine._native is self.native:  # else of an opening that failed
            self.engine._returned(self.numbers, outcomes)

    def give_up(self) -> None:
        """What is cancelled before its first step never runs, and says nothing."""
        work = self.task.get_coro()
        has_begun = not inspect.iscoroutine(work) or inspect.getcoroutinestate(work) != inspect.CORO_CREATED
        if self.task.done() or not has_begun:
            self.over([RELEASED] * len(self.numbers))

    def stop(self) -> None:
        self.give_up()
        self.task.cancel()

    def stop_one(self) -> None:
        self.counting -= 1
        if not self.counting:
            self.stop()


class Consumer:
    """A running consumer of an `Engine`. Closing the engine closes it."""

    def __init__(self, engine: Engine, registered: Registered) -> None:
        self._engine = engine
        self._registered = registered
        self._native: _core.Consumer | None = None
        self._id = 0
        # Of the batch that is coming in.
        self._batch_numbers: list[int] = []
        self._batch_messages: list[Message] = []
        self._context: contextvars.Context | None = None

    def _handle(self, numbers: list[int], messages: list[Message], batch_left: int) -> None:
        handler = self._registered.handler
        assert handler is not None
        if not handler.in_batches:
            for number, message in zip(numbers, messages, strict=True):
                self._engine._running[number] = self._start(handler, [number], [message])
            return
        self._batch_numbers += numbers
        self._batch_messages += messages
        if batch_left:
            return
        numbers, self._batch_numbers = self._batch_numbers, []
        messages, self._batch_messages = self._batch_messages, []
        self._engine._running.update(dict.fromkeys(numbers, self._start(handler, numbers, messages)))

    def _start(self, handler: Handler, numbers: list[int], messages: list[Message]) -> Run:
        if self._context is None:
            self._context = contextvars.copy_context()
            self._context.run(running_in.set, self._engine)
        context = self._context.copy()
        run = Run(self._engine, numbers)
        if handler.is_async:
            work = handler.run_async(messages, run.over)
        else:
            work = self._engine._run_in_thread(context, handler, messages, run.over)
        loop = self._engine._loop
        if loop.get_task_factory() is None:  # the same, without a call of Python for it
            run.task = asyncio.Task(work, loop=loop, name=handler.name, context=context)
        else:
            run.task = loop.create_task(work, name=handler.name, context=context)
        return run

    async def pause(self) -> None:
        """Takes in nothing more; what is in flight goes on. Idempotent."""
        self._open().pause()

    async def resume(self) -> None:
        """Takes messages in again after `pause` or `drain`. Idempotent."""
        self._open().resume()

    async def set_concurrency(self, concurrency: int) -> None:
        """How many handlers run at once, [1, 4096], from now on: fewer stop nobody who runs. Raises
        `InvalidConfigError`."""
        self._open().set_concurrency(concurrency)
        self._registered.concurrency = concurrency

    def statistics(self) -> ConsumerStatistics:
        """What this consumer has counted since it started, and what it does now. From any thread."""
        self._engine._alive()
        return ConsumerStatistics(**self._started().statistics())

    async def drain(self, timeout: Span = 30) -> None:
        """Waits until nothing is in flight, then leaves it paused. Raises `TimeoutError`."""
        if running_in.get() is self._engine:
            raise errors.InvalidArgumentError(
                "drain: a handler cannot wait until no handler runs; use pause()"
            )
        await self._engine._request(self._open().drain, records.seconds_to_us(timeout))

    async def close(self, timeout: Span | None = None) -> int:
        """Stops intake, waits for its handlers up to `timeout` (default: the engine's drain_timeout), and
        gives back the rest. Returns the number of handlers that have not ended. Inside a handler of the
        engine it returns at once, and the rest happens later."""
        closing = self._engine._request(
            self._open().close, None if timeout is None else records.seconds_to_us(timeout)
        )
        closing.add_done_callback(lambda _: self._engine._consumers.pop(self._id, None))
        return await self._engine._later_inside_a_handler(closing)

    def _open(self) -> _core.Consumer:
        self._engine._check()
        return self._started()

    def _started(self) -> _core.Consumer:
        if self._native is None:
            raise errors.ClosedError("the consumer is not open")
        return self._native


class Subscription(Consumer):
    """Messages one by one: `async for message in engine.subscribe(...)`. Settle each with `message.ack()` and
    its like; what is not settled in `handler_timeout` is handed out again. Leaving the `async with`, or
    `aclose()`, closes it and gives back what is unsettled."""

    def __init__(self, engine: Engine, registered: Registered) -> None:
        super().__init__(engine, registered)
        self._waiting: deque[Message] = deque()
        self._arrived = asyncio.Event()
        self._closed = False
        self._starting: asyncio.Future[None] | None = None

    def _handle(self, numbers: list[int], messages: list[Message], batch_left: int) -> None:
        if self._closed:
            return self._engine._finish(numbers, [RELEASED] * len(numbers))
        for number, message in zip(numbers, messages, strict=True):
            self._engine._pulled[number] = self
            message._on_settled = self._engine._settled
            self._waiting.append(message)
        self._arrived.set()

    async def __aenter__(self) -> Self:
        self._engine._check()
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._engine._start(self))
        try:
            await asyncio.shield(self._starting)
        except errors.TowlineError:
            self._starting = None
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncIterator[Message]:
        return self._messages()

    async def _messages(self) -> AsyncIterator[Message]:
        await self.__aenter__()
        try:
            while (message := await self.receive()) is not None:
                yield message
        finally:
            await self.aclose()

    async def receive(self, timeout: Span | None = None) -> Message | None:
        """The next message; None when `timeout` (None: without end) is over or the subscription is closed.
        Its time to be settled in begins now."""
        if self._closed:
            return None
        try:
            await self.__aenter__()
        except errors.ClosedError:
            if self._closed:  # while it was about to start
                return None
            raise
        try:
            async with asyncio.timeout(None if timeout is None else records.seconds_to_us(timeout) / 1e6):
                while not self._closed:
                    while self._waiting:
                        if handed_over(message := self._waiting.popleft()):
                            return message
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            pass
        return None

    def _forget(self, number: int) -> None:
        """Its result does not count any more, so nobody must see it."""
        self._waiting = deque(one for one in self._waiting if one._number != number)

    def _end(self) -> None:
        self._closed = True
        self._arrived.set()
        for number in [number for number, of in self._engine._pulled.items() if of is self]:
            self._engine._settled(number, RELEASED)

    async def close(self, timeout: Span | None = None) -> int:
        """As `Consumer.close`; who waits in `receive` gets None. Idempotent, also when the engine is
        closed."""
        native = self._engine._native
        if native is None or not native.closed:
            self._engine._check()
        self._end()
        return 0 if self._native is None or native is None or native.closed else await super().close(timeout)

    async def aclose(self) -> None:
        """Idempotent."""
        if self._closed:
            return
        if self._native is not None and not self._engine._is_closed():
            await self.close(0)
        else:
            self._end()
