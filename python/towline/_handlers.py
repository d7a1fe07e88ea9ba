"""Handlers: what a function wants, and what became of it when it ran."""

from __future__ import annotations

import asyncio
import collections.abc
import inspect
import traceback
import typing
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from towline import _message, _payload, records
from towline._message import Defer, Message, OutcomeTuple, Reject, Retry
from towline._payload import PayloadError

STACK_LENGTH_MAX = 16_384
# The error type of a CancelledError that nobody asked for: something was cancelled that the handler awaited.
AWAITED = "AwaitedCancelled"
# The error type of what cannot be read or written.
UNREADABLE = "PayloadError"
# Further away than any delay that is allowed, and still a number that the engine can hold.
WAIT_US_MAX = 2**62
# Told of what became of the messages of a handler, in their order.
Over = Callable[[list[OutcomeTuple]], None]


def called_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """What runs when it is called: of an object its method."""
    called: Callable[..., Any] = getattr(function, "__call__", function)
    return function if inspect.isroutine(function) else called


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called_of(function))


class Handler:
    """A function that handles messages: which parameter gets the payload, and which the message. One that
    takes batches gets a list of either."""

    __slots__ = (
        "by_place",
        "function",
        "in_batches",
        "is_async",
        "kind",
        "message_name",
        "name",
        "payload_name",
        "takes_message",
    )

    def __init__(self, function: Callable[..., Any], in_batches: bool = False) -> None:
        if not callable(function):
            raise TypeError(f"a handler is a function, not a {type(function).__name__}")
        self.function = function
        self.name: str = getattr(function, "__qualname__", None) or repr(function)
        called = called_of(function)
        self.is_async = inspect.iscoroutinefunction(called)
        self.in_batches = in_batches
        self.kind: Any = inspect.Parameter.empty
        self.payload_name: str | None = None
        self.message_name: str | None = None
        self.by_place = False
        # Just one parameter, and it is for the message.
        self.takes_message = False
        try:
            hints = typing.get_type_hints(called)
        except NameError as error:
            raise TypeError(f"the annotations of handler {self.name!r} cannot be read: {error}") from error
        parameters = inspect.signature(function).parameters
        for name, parameter in parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            kind = self._kind_of(name, hints.get(name, inspect.Parameter.empty))
            if kind is Message:
                self.message_name = name
            elif self.payload_name is None:
                self._refuse_unreadable(name, kind)
                self.payload_name = name
                self.by_place = parameter.kind is parameter.POSITIONAL_ONLY
                self.kind = kind
            elif parameter.default is inspect.Parameter.empty:
                raise TypeError(
                    f"handler {self.name!r} has a parameter '{name}' that nothing is known for; it may "
                    "take the payload, and a parameter annotated as towline.Message"
                )

        self.takes_message = (
            len(parameters) == 1
            and self.message_name is not None
            and parameters[self.message_name].kind is not inspect.Parameter.KEYWORD_ONLY
        )

    def _refuse_unreadable(self, name: str, kind: Any) -> None:
        """Here, and not with each message."""
        if kind is not bytes and (bad := _payload.unreadable(kind)) is not None:
            raise TypeError(
                f"handler {self.name!r}: its parameter '{name}' is annotated as {_shown(kind)}, but no "
                f"payload can be read as {_shown(bad)}; take bytes, str, what JSON knows, a dataclass or a "
                "model"
            )

    def _kind_of(self, name: str, hint: Any) -> Any:
        """Of one message's value for this parameter."""
        if not self.in_batches or hint in (inspect.Parameter.empty, Any, list):
            return inspect.Parameter.empty if hint is list and self.in_batches else hint
        if typing.get_origin(hint) not in (list, collections.abc.Sequence):
            raise TypeError(
                f"handler {self.name!r} takes batches, so its parameter '{name}' is a list of what one "
                "message is, such as list[Message] or list[Order]"
            )
        return typing.get_args(hint)[0]

    def run(self, messages: list[Message]) -> list[OutcomeTuple]:
        """Of a plain function, in the calling thread: one outcome per message. Raises nothing."""
        if self.takes_message:
            try:
                self.function(messages if self.in_batches else messages[0])
            except BaseException as error:
                return [outcome_of(error)] * len(messages)
            return [_message.ACKED] * len(messages)
        outcomes, readable, payloads = self._read(messages)
        try:
            if readable:
                self._call(readable, payloads)
        except BaseException as error:
            return _filled(outcomes, outcome_of(error))
        return _filled(outcomes, _message.ACKED)

    async def run_async(self, messages: list[Message], over: Over) -> None:
        """`over` is told in the end, whatever happens, with one outcome per message."""
        outcomes: list[OutcomeTuple | None] = []
        rest = _message.ACKED
        try:
            if self.takes_message:
                await self.function(messages if self.in_batches else messages[0])
            else:
                outcomes, readable, payloads = self._read(messages)
                if readable:
                    await self._call(readable, payloads)
        except asyncio.CancelledError as error:
            # Of the handler itself; else of something that it waited for, which is a failure like any other.
            task = asyncio.current_task()
            is_stopped = task is not None and task.cancelling() > 0
            rest = _message.RELEASED if is_stopped else outcome_of(error)
        except BaseException as error:
            if isinstance(error, GeneratorExit) and asyncio._get_running_loop() is None:
                raise  # not of the handler: its loop is gone, and nobody can be told
            rest = outcome_of(error)
        over(_filled(outcomes, rest) if outcomes else [rest] * len(messages))

    def _read(
        self, messages: list[Message]
    ) -> tuple[list[OutcomeTuple | None], list[Message], list[Any]]:
        """The outcome of each message whose payload cannot be read; the others, and their payloads."""
        if self.payload_name is None:
            return [None] * len(messages), messages, []
        outcomes: list[OutcomeTuple | None] = []
        readable, payloads = [], []
        for message in messages:
            try:
                payloads.append(message.value_as(self.kind))
                readable.append(message)
                outcomes.append(None)
            except PayloadError as error:
                outcomes.append(outcome_of(error))
        return outcomes, readable, payloads

    def _call(self, messages: list[Message], payloads: list[Any]) -> Any:
        given: dict[str, Any] = {}
        if self.message_name is not None:
            given[self.message_name] = messages if self.in_batches else messages[0]
        if self.payload_name is None:
            return self.function(**given)
        payload = payloads if self.in_batches else payloads[0]
        if self.by_place:
            return self.function(payload, **given)
        return self.function(**{self.payload_name: payload}, **given)


def _shown(annotation: Any) -> str:
    return annotation.__qualname__ if inspect.isclass(annotation) else str(annotation)


def _filled(outcomes: list[OutcomeTuple | None], rest: OutcomeTuple) -> list[OutcomeTuple]:
    return [rest if outcome is None else outcome for outcome in outcomes]


def outcome_of(error: BaseException) -> OutcomeTuple:
    """What raising it means for the message. Does not raise itself, whatever the error is like."""
    try:
        if isinstance(error, Retry):
            delay = None if error.after is None else _wait_us(error.after)
            return (_message.NAK, delay, "Retry", text_of(error), "")
        if isinstance(error, Defer):
            return (_message.DEFER, _wait_us(error.after), "", "", "")
    except (TypeError, ValueError, OverflowError) as bad:  # a wait that is no time
        error = bad
    if isinstance(error, Reject):
        return (_message.DEAD_LETTER, None, "Rejected", text_of(error), "")
    return (_message.FAIL, None, error_type_of(type(error)), text_of(error), stack_of(error))


def error_type_of(kind: type[BaseException]) -> str:
    """The name that is recorded of an error."""
    if issubclass(kind, PayloadError):
        return UNREADABLE  # by this name it is permanent (_registered.py), whatever a subclass is called
    if issubclass(kind, (Reject, Retry)):
        return "Rejected" if issubclass(kind, Reject) else "Retry"
    name = _utf8(kind.__qualname__)
    # By the usual name the engine would take it for the wish to be handed the message again.
    return AWAITED if name == "CancelledError" else name


def failure_of(error: BaseException) -> tuple[str, str]:
    """Its kind and its text, where nothing but these counts. Does not raise itself."""
    return _utf8(type(error).__qualname__), text_of(error)


def _wait_us(after: float | timedelta) -> int:
    return max(0, min(records.seconds_to_us(after), WAIT_US_MAX))


def _utf8(text: str) -> str:
    """What has no bytes in UTF-8 is spelt out."""
    return text.encode(errors="backslashreplace").decode()


def text_of(error: BaseException) -> str:
    try:
        return _utf8(str(error))
    except Exception:
        return f"(the text of this {type(error).__name__} could not be made)"


def stack_of(error: BaseException) -> str:
    try:
        lines = traceback.format_exception(type(error), error, error.__traceback__)
    except Exception:
        return ""
    return _utf8("".join(lines)[-STACK_LENGTH_MAX:])
