"""What runs the steps of sagas, for both twins."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from towline import errors, records
from towline._message import RELEASED, OutcomeTuple
from towline._registered import running_in
from towline._saga import Function, SagaCall, SagaDefinition, checked
from towline.records import SagaRunnerStatistics

if TYPE_CHECKING:
    from typing import Self

    from towline import _core
    from towline._calls import Span
    from towline._engine import Engine
    from towline._native import Native
    from towline._sync_engine import SyncEngine


class SagaRunner:
    """Runs the sagas of one definition that anybody starts: `runner = await engine.run_saga(order)`, or
    `async with engine.run_saga(order)`. Closing the engine closes it."""

    def __init__(self, engine: Engine, saga: SagaDefinition) -> None:
        self._engine = engine
        self._saga = saga
        self._functions = checked(saga)._functions()
        self._starting = asyncio.Lock()
        self._native: _core.SagaRunner | None = None
        self._id = 0

    def __await__(self) -> Generator[Any, Any, Self]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Self:
        self._engine._check()
        async with self._starting:
            if self._native is None:
                await self._engine._start_saga_runner(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._engine._is_closed():
            await self.close()

    def statistics(self) -> SagaRunnerStatistics:
        """What this runner has counted since it started, and what it has in hand now. From any thread."""
        self._engine._alive()
        return SagaRunnerStatistics(*self._started().statistics())

    async def close(self, timeout: Span | None = None) -> int:
        """Begins no more calls, waits for those that run up to `timeout` (default: the engine's
        drain_timeout), and leaves the sagas to others. Returns the number of calls that have not returned;
        what they still do does not count. Inside a function of the engine it returns at once, and the rest
        happens later. Idempotent, also when the engine is closed."""
        if self._engine._native is not None and self._engine._native.closed:
            return 0
        closing = self._engine._request(
            self._open().close, None if timeout is None else records.seconds_to_us(timeout)
        )
        closing.add_done_callback(lambda _: self._engine._saga_runners.pop(self._id, None))
        return await self._engine._later_inside_a_handler(closing)

    def _open(self) -> _core.SagaRunner:
        self._engine._check()
        return self._started()

    def _started(self) -> _core.SagaRunner:
        if self._native is None:
            raise errors.ClosedError("the sagas are not run yet; await engine.run_saga(...)")
        return self._native

    def _thread_count(self) -> int:
        is_plain = not all(function.is_async for function in self._functions.values())
        return self._saga._thread_count() if is_plain else 0

    def _handle(self, call: _core.SagaCall) -> None:
        function = self._functions[call.step, call.compensates]
        context = contextvars.copy_context()
        context.run(running_in.set, self._engine)
        given = SagaCall(call)
        if function.is_async:
            work = function.run_async(given)
        else:
            work = self._engine._in_thread(context, RELEASED, function.run, given)
        task = self._engine._loop.create_task(work, context=context)
        self._engine._saga_calls[call.number] = task
        task.add_done_callback(functools.partial(self._returned, call, self._engine._native), context=context)

    def _returned(
        self, call: _core.SagaCall, native: Native | None, task: asyncio.Task[OutcomeTuple]
    ) -> None:
        if native is None or native is not self._engine._native:  # of an opening that failed
            return
        self._engine._saga_calls.pop(call.number, None)
        if not native.forked:
            native.port.finish_saga_call(call, RELEASED if task.cancelled() else task.result())


class SyncSagaRunner:
    """As `SagaRunner`, for programs without an event loop: its functions run in threads. Thread-safe."""

    def __init__(self, engine: SyncEngine, saga: SagaDefinition) -> None:
        self._engine = engine
        self._functions = checked(saga)._functions()
        self._native: _core.SagaRunner | None = None
        self._id = 0
        for (step, _), function in self._functions.items():
            if function.is_async:
                raise errors.InvalidConfigError(
                    f"step {step!r} has a coroutine function; use `async with` for it"
                )
        self._executor = ThreadPoolExecutor(saga._thread_count(), thread_name_prefix="towline-saga")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._engine._is_closed():
            self.close()

    def statistics(self) -> SagaRunnerStatistics:
        """As `SagaRunner.statistics`."""
        return SagaRunnerStatistics(*self._open().statistics())

    def close(self, timeout: Span | None = None) -> int:
        """As `SagaRunner.close`."""
        if self._engine._native.closed:
            return 0
        native, port = self._open(), self._engine._check().port
        limit = None if timeout is None else records.seconds_to_us(timeout)
        if running_in.get() is self._engine:
            self._engine._elsewhere(lambda: self._close(native, port, limit))
            return 0
        return self._close(native, port, limit)

    def _close(self, native: _core.SagaRunner, port: _core.Port, limit: int | None) -> int:
        stuck = native.close(port, None, limit)
        self._engine._saga_runners.pop(self._id, None)
        self._executor.shutdown(wait=False, cancel_futures=True)
        return stuck

    def _open(self) -> _core.SagaRunner:
        self._engine._check()
        if self._native is None:
            raise errors.ClosedError("the runner is not open")
        return self._native

    def _handle(self, call: _core.SagaCall) -> None:
        # Whoever is not run any more, because all is closed, gives itself back.
        self._executor.submit(self._run, self._functions[call.step, call.compensates], call)

    def _run(self, function: Function, call: _core.SagaCall) -> None:
        context = contextvars.copy_context()
        context.run(running_in.set, self._engine)
        outcome = RELEASED if call.stopped else context.run(function.run, SagaCall(call))
        native = self._engine._native
        if not native.forked:
            native.port.finish_saga_call(call, outcome)
