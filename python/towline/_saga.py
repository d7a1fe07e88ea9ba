"""Sagas: their definition, and a call of one of their steps."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from towline import _core, _message, _payload, errors
from towline._handlers import UNREADABLE, outcome_of
from towline._message import OutcomeTuple, message_tuple
from towline._option_texts import texts_of
from towline._options import SagaOptions, SagaStepOptions

if TYPE_CHECKING:
    from typing import Self, Unpack


class SagaCall:
    """One call of a step's function, or of its compensation. What it changes counts when the function
    returns, and happens in the transaction that writes its outcome. A step may run more than once: its
    process can die after the effect and before the outcome is written. Readable for as long as it is kept;
    after the function has returned what would change something raises `ClosedError`."""

    __slots__ = ("_native",)

    def __init__(self, native: _core.SagaCall) -> None:
        self._native = native

    @property
    def type(self) -> str:
        """Of the saga: the name of its definition."""
        return self._native.type

    @property
    def id(self) -> str:
        """Of the saga."""
        return self._native.id

    @property
    def step(self) -> str:
        """The name of the step."""
        return self._native.step

    @property
    def compensates(self) -> bool:
        """Whether the step is being undone."""
        return self._native.compensates

    @property
    def attempt(self) -> int:
        """1 the first time; grows with every attempt, also with those whose process died."""
        return self._native.attempt

    @property
    def key(self) -> str:
        """`type/id/step/execute` or `.../compensate`, the same in every attempt: for the step's own
        idempotency."""
        return self._native.key

    @property
    def context(self) -> Any:
        """What the steps before have left, in a choreography the payload of the event that the step listens
        to: None, JSON, or bytes that are no JSON."""
        return _payload.unpack(self._native.context)

    def context_as(self, kind: Any) -> Any:
        """The context as a `kind`: bytes, str, a JSON type, a dataclass or a model. Raises PayloadError."""
        return _payload.unpack(self._native.context, kind)

    @property
    def output(self) -> Any:
        """In a compensation what the step returned: what there is to undo. None: nothing, or the step
        failed, or nobody knows."""
        return self.output_of(self._native.step)

    def output_of(self, step: str, kind: Any = Any) -> Any:
        """What a step returned that has succeeded, as `context` or as a `kind`; None: it has not, or
        returned nothing. Raises PayloadError."""
        return _payload.unpack(self._native.output_of(step), kind)

    @property
    def cause(self) -> str:
        """Why the saga is undone; "": it is not."""
        return self._native.cause

    @property
    def stopped(self) -> bool:
        """The result does not count any more: its time is up, its lease is lost, or the engine closes. A
        coroutine is cancelled then; a plain function may look here."""
        return self._native.stopped

    def set_context(self, value: Any) -> None:
        """For the steps that follow: bytes as they are, else JSON. Raises `InvalidArgumentError` in a
        compensation, in a step that runs beside others and in a choreography, `PayloadTooLargeError`,
        `PayloadError`."""
        self._native.set_context(_payload.pack(value))

    def publish(self, topic: str, payload: Any, **options: Any) -> None:
        """Publishes with the outcome, or not at all; takes what `Engine.publish` takes."""
        self._native.publish(message_tuple(topic, payload, **options))

    def __repr__(self) -> str:
        return f"<SagaCall {self.key}, attempt {self.attempt}>"


F = TypeVar("F", bound=Callable[[SagaCall], Any])


class Function:
    """A function of a step, when it runs."""

    __slots__ = ("function", "is_async")

    def __init__(self, function: Callable[[SagaCall], Any]) -> None:
        if not callable(function):
            raise TypeError(f"what a step runs is a function, not a {type(function).__name__}")
        self.function = function
        called = function if inspect.isroutine(function) else getattr(function, "__call__", function)
        self.is_async = inspect.iscoroutinefunction(called)

    def run(self, call: SagaCall) -> OutcomeTuple:
        """Raises nothing."""
        try:
            _note_output(call, self.function(call))
        except BaseException as error:
            return outcome_of(error)
        return _message.ACKED

    async def run_async(self, call: SagaCall) -> OutcomeTuple:
        try:
            _note_output(call, await self.function(call))
        except asyncio.CancelledError as error:
            # Of the function itself; else of something that it waited for, a failure like any other.
            task = asyncio.current_task()
            is_stopped = task is not None and task.cancelling() > 0
            return _message.RELEASED if is_stopped else outcome_of(error)
        except BaseException as error:
            return outcome_of(error)
        return _message.ACKED


def _note_output(call: SagaCall, output: Any) -> None:
    if output is not None:
        call._native.set_output(_payload.pack(output))


class SagaStep:
    """A step of a saga: `Saga.parallel` takes some, `@order.step("charge")` makes one. Called, it calls its
    function."""

    def __init__(
        self,
        name: str,
        execute: Callable[[SagaCall], Any] | None = None,
        compensate: Callable[[SagaCall], Any] | None = None,
        **options: Unpack[SagaStepOptions],
    ) -> None:
        """`options` are those of docs/OPTIONS.md under SagaStep; times are seconds or timedeltas."""
        self.name = name
        self._execute = None if execute is None else Function(execute)
        self._compensate = None if compensate is None else Function(compensate)
        self._command = options.get("command", "")
        self._compensation_command = options.get("compensation_command", "")
        # Of a choreography: what it listens to, where success and failure go, whether it is done elsewhere.
        self._events = ("", "", "", False)
        self._texts = [
            *texts_of("SagaStep", options),
            # What cannot be read cannot be read the next time either.
            ("classify.permanent_types", UNREADABLE),
        ]

    def __call__(self, call: SagaCall) -> Any:
        if self._execute is None:
            raise TypeError(f"step {self.name!r} has no function")
        return self._execute.function(call)

    def compensate(self, function: F) -> F:
        """Decorates the function that undoes this step."""
        self._compensate = Function(function)
        return function

    def _native(self) -> tuple[str, bool, list[tuple[str, str]], tuple[str, str, str, bool]]:
        compensates = self._compensate is not None or bool(self._compensation_command)
        return self.name, compensates, self._texts, self._events


class SagaDefinition:
    """What a `Saga` and a `Choreography` have in common."""

    def __init__(self, type: str, version: int, options: SagaOptions) -> None:
        self.type = type
        self.version = version
        self._texts = texts_of("Saga", options)
        self._concurrency = options.get("concurrency", 16)
        self._stages: list[list[SagaStep]] = []
        self._begins_with = ""

    def visualize(self) -> str:
        """The flow as a Mermaid diagram."""
        return _core.visualize_saga(self._native())

    def _steps(self) -> list[SagaStep]:
        return [step for stage in self._stages for step in stage]

    def _native(self) -> tuple[Any, ...]:
        """In the form of the native half."""
        stages = [[step._native() for step in stage] for stage in self._stages]
        return self.type, self.version, self._texts, stages, self._begins_with

    def _functions(self) -> dict[tuple[str, bool], Function]:
        """By step, and whether it is the one that undoes it. Raises `InvalidSagaError`."""
        functions: dict[tuple[str, bool], Function] = {}
        for step in self._steps():
            *_, is_awaited = step._events
            if step._execute is not None:
                functions[step.name, False] = step._execute
            elif not step._command and not is_awaited:
                raise errors.InvalidSagaError(
                    f"step {step.name!r} has neither a function nor a command; give it one of them"
                )
            if step._compensate is not None:
                functions[step.name, True] = step._compensate
        return functions

    def _thread_count(self) -> int:
        """How many of its functions may run at once."""
        return max(self._concurrency, 1) * max([1, *map(len, self._stages)])


class Saga(SagaDefinition):
    """A business transaction of several steps, each of which can be undone:

        order = (
            Saga("order", deadline=60)
            .step("reserve", reserve, release)
            .step("charge", charge, refund, timeout=10)
            .step("ship", ship, pivot=True)
        )
        async with engine.run_saga(order):
            await engine.sagas.start(order, {"customer": 9}, id="order-4711")

    or with decorators: `@order.step("charge")` above a function, then `@charge.compensate` above the one that
    undoes it. What a step is about to do is written before it runs, and what came of it afterwards, so a
    saga whose process dies is gone on with by another one. When a step fails for good everything that was
    started is undone: first that step, then the others in reverse order of their success.

    A function takes a `SagaCall`. Returning means that the step succeeded; what it returns, unless None, is
    the step's output. Raising fails the attempt, and the step's `retry` decides; `Retry`, `Reject` and
    `Defer` say more. It is `async def`, or `def`, which runs in a thread.

    What is wrong with a definition is told by `run_saga` and `sagas.start`.
    """

    def __init__(self, type: str, *, version: int = 1, **options: Unpack[SagaOptions]) -> None:
        """`type`: 1 to 64 letters, digits, '-', '_'. `version` grows when the steps change: running sagas go
        on under the version they began with. `options` are those of docs/OPTIONS.md under Saga."""
        super().__init__(type, version, options)

    @overload
    def step(
        self,
        name: str,
        execute: Callable[[SagaCall], Any],
        compensate: Callable[[SagaCall], Any] | None = None,
        **options: Unpack[SagaStepOptions],
    ) -> Self: ...
    @overload
    def step(
        self,
        name: str,
        *,
        command: str,
        compensate: Callable[[SagaCall], Any] | None = None,
        **options: Any,
    ) -> Self: ...
    @overload
    def step(self, name: str, **options: Any) -> Callable[[Callable[[SagaCall], Any]], SagaStep]: ...
    def step(
        self,
        name: str,
        execute: Callable[[SagaCall], Any] | None = None,
        compensate: Callable[[SagaCall], Any] | None = None,
        **options: Any,
    ) -> Any:
        """Adds a step that runs behind those before it. Without a compensation it must say
        `changes_nothing`, or stand at or behind the pivot. With `command` it needs no function: a message is
        published there, with the context as payload, and its reply waited for; see `sagas.reply`. With
        neither it decorates the function, and makes a `SagaStep` of it."""
        if execute is not None or options.get("command"):
            self._stages.append([SagaStep(name, execute, compensate, **options)])
            return self

        def register(function: Callable[[SagaCall], Any]) -> SagaStep:
            step = SagaStep(name, function, compensate, **options)
            self._stages.append([step])
            return step

        return register

    def parallel(self, *steps: SagaStep) -> Self:
        """Steps that begin together; what follows begins when all have succeeded. They cannot change the
        context."""
        for step in steps:
            if not isinstance(step, SagaStep):
                raise TypeError(f"a step that runs beside others is a SagaStep, not a {type(step).__name__}")
        self._stages.append(list(steps))
        return self

    def compensation(self, name: str) -> Callable[[F], F]:
        """Decorates the function that undoes the step of this name."""
        for step in self._steps():
            if step.name == name:
                return step.compensate
        raise errors.InvalidSagaError(f"saga {self.type!r} has no step {name!r}; add it first")


S = TypeVar("S", bound=SagaDefinition)


def checked(saga: S) -> S:
    if not isinstance(saga, SagaDefinition):
        raise TypeError(f"a saga's definition is a Saga or a Choreography, not a {type(saga).__name__}")
    return saga
