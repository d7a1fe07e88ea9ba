"""Handlers: what a function wants, and what became of it when it ran."""

from __future__ import annotations

import asyncio
import inspect
import traceback
import typing
from collections.abc import Callable
from typing import Any

from towline import _message, records
from towline._message import Defer, Message, OutcomeTuple, Reject, Retry
from towline._payload import PayloadError

STACK_LENGTH_MAX = 16_384


class Handler:
    """A function that handles messages: which parameter gets the payload, and which the message."""

    __slots__ = ("function", "is_async", "kind", "payload_name", "message_name", "by_place")

    def __init__(self, function: Callable[..., Any]) -> None:
        if not callable(function):
            raise TypeError(f"a handler is a function, not a {type(function).__name__}")
        self.function = function
        called = function if inspect.isroutine(function) else getattr(function, "__call__", function)
        self.is_async = inspect.iscoroutinefunction(called)
        self.kind: Any = inspect.Parameter.empty
        self.payload_name: str | None = None
        self.message_name: str | None = None
        self.by_place = False
        try:
            hints = typing.get_type_hints(called)
        except NameError as error:
            raise TypeError(f"the annotations of handler {self.name!r} cannot be read: {error}") from error
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            if hints.get(name) is Message:
                self.message_name = name
            elif self.payload_name is None:
                self.payload_name = name
                self.by_place = parameter.kind is parameter.POSITIONAL_ONLY
                self.kind = hints.get(name, inspect.Parameter.empty)
            elif parameter.default is inspect.Parameter.empty:
                raise TypeError(
                    f"handler {self.name!r} has a parameter '{name}' that nothing is known for; it may "
                    "take the payload, and a parameter annotated as towline.Message"
                )

    @property
    def name(self) -> str:
        return getattr(self.function, "__qualname__", repr(self.function))

    def call(self, message: Message) -> Any:
        """Raises PayloadError, and what the function raises."""
        given: dict[str, Any] = {}
        if self.message_name is not None:
            given[self.message_name] = message
        if self.payload_name is None:
            return self.function(**given)
        payload = message.value_as(self.kind)
        if self.by_place:
            return self.function(payload, **given)
        return self.function(**{self.payload_name: payload}, **given)

    def run(self, message: Message) -> OutcomeTuple:
        """Of a plain function, in the calling thread. Only KeyboardInterrupt and SystemExit leave it."""
        token = _message.current.set(message)
        try:
            self.call(message)
        except BaseException as error:
            return outcome_of(error)
        finally:
            _message.current.reset(token)
        return _message.ACKED

    async def run_async(self, message: Message) -> OutcomeTuple:
        _message.current.set(message)  # the context is the task's own
        try:
            await self.call(message)
        except BaseException as error:
            return outcome_of(error)
        return _message.ACKED


def outcome_of(error: BaseException) -> OutcomeTuple:
    """What raising it means for the message."""
    if isinstance(error, Retry):
        delay = None if error.after is None else records.seconds_to_us(error.after)
        return (_message.NAK, delay, "Retry", text_of(error), "")
    if isinstance(error, Reject):
        return (_message.DEAD_LETTER, None, "Rejected", text_of(error), "")
    if isinstance(error, Defer):
        return (_message.DEFER, records.seconds_to_us(error.after), "", "", "")
    if isinstance(error, asyncio.CancelledError):
        return _message.RELEASED
    kind = _message.DEAD_LETTER if isinstance(error, PayloadError) else _message.FAIL
    return (kind, None, type(error).__qualname__, text_of(error), stack_of(error))


def text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return f"(the text of this {type(error).__name__} could not be made)"


def stack_of(error: BaseException) -> str:
    try:
        lines = traceback.format_exception(type(error), error, error.__traceback__)
    except Exception:
        return ""
    return "".join(lines)[-STACK_LENGTH_MAX:]
