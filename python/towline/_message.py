"""A message in the hands of a handler, and what a handler may raise."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime, timedelta
from typing import Any, Literal, overload

from towline import _core, _payload, records
from towline.errors import InvalidArgumentError, TowlineError
from towline.records import is_utf8, meant

# Outcome.Kind of the engine, and how one crosses the boundary: kind, delay in us, type, message, stack.
ACK, FAIL, NAK, DEFER, DEAD_LETTER, RELEASE = range(6)
OutcomeTuple = tuple[int, int | None, str, str, str]
ACKED: OutcomeTuple = (ACK, None, "", "", "")
RELEASED: OutcomeTuple = (RELEASE, None, "", "", "")

_ONLY_STR = {str}


class Retry(Exception):
    """Raise it to be tried again `after` so many seconds (None: as the retry policy says). Counts as an
    attempt."""

    def __init__(self, why: str = "", *, after: float | timedelta | None = None) -> None:
        super().__init__(why)
        self.after = after


class Reject(Exception):
    """Raise it to send the message to the dead letters at once, with this reason."""


class Defer(Exception):
    """Raise it to be handed the message again after so many seconds; counts nothing."""

    def __init__(self, after: float | timedelta) -> None:
        if not records.seconds_to_us(after) >= 0:
            raise ValueError(f"a message cannot be deferred by {after}")
        super().__init__(f"deferred by {after}")
        self.after = after


class Transaction:
    """SQL on the engine's own connection, inside `Message.transaction`; over when the body returns."""

    __slots__ = ("_native",)

    def __init__(self, native: _core.Transaction) -> None:
        self._native = native

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Runs one statement and returns its rows. The engine's own tables, PRAGMA, ATTACH, temporary tables
        and transaction statements are refused."""
        return self._native.execute(sql, parameters)

    def publish(self, topic: str, payload: Any, **options: Any) -> str:
        """Publishes with the transaction; takes what `Engine.publish` takes. Returns the id."""
        return self._native.publish(message_tuple(topic, payload, **options))

    def append(self, stream: str, events: Iterable[records.NewEvent], expected: int | None = None) -> None:
        """Appends events when the body has returned, as `engine.event_store.append`: another version than
        `expected` then fails the transaction with `ConflictError`. Once per stream."""
        if expected is not None:
            records.place("expected", expected)
        self._native.append(stream, records.new_event_tuples(events), expected)

    def complete(self, scope: str, key: str, result: Any) -> None:
        """Stores the result of an idempotency key with the effect."""
        self._native.complete(scope, key, _payload.encode(result)[0])


class Message(_core.Delivery):
    """One message, handed to one handler. Readable for as long as it is kept, also after it was settled.

    `ack`, `nak`, `defer` and `reject` are for consumers with `ack="manual"` and for `subscribe`: the decision
    is taken at once and becomes durable with the consumer's next commit. With `wait=True` it is durable when
    the call is over: in a thread without an event loop the call waits, in a coroutine await what it returns.
    A second one raises `AlreadySettledError`, one after the lease went to somebody else `LeaseLostError`;
    both change nothing. The `context` of an error has `topic`, `message_id` and `attempt`.
    """

    __slots__ = ()

    def __copy__(self) -> Message:
        return self

    @property
    def value(self) -> Any:
        """The payload by its content type: JSON, text, else bytes. Raises PayloadError."""
        return self.value_as(inspect.Parameter.empty)

    def value_as(self, kind: Any) -> Any:
        """The payload as a `kind`: bytes, str, a JSON type, a dataclass or a model. Raises PayloadError."""
        return _payload.decode(self.payload, self.content_type, kind)

    @property
    def published_at(self) -> datetime:
        """When it was published, in UTC."""
        return records.from_us(self._published_at_us)

    @overload
    def ack(self, *, wait: Literal[False] = False) -> None: ...
    @overload
    def ack(self, *, wait: Literal[True]) -> Awaitable[None]: ...
    def ack(self, *, wait: bool = False) -> Awaitable[None] | None:
        """It is handled: it does not come again. `wait` and what it raises: see `Message`."""
        return self._decide(ACKED, wait)

    @overload
    def nak(
        self, after: float | timedelta | None = None, why: str = "", *, wait: Literal[False] = False
    ) -> None: ...
    @overload
    def nak(
        self, after: float | timedelta | None = None, why: str = "", *, wait: Literal[True]
    ) -> Awaitable[None]: ...
    def nak(
        self, after: float | timedelta | None = None, why: str = "", *, wait: bool = False
    ) -> Awaitable[None] | None:
        """It comes again `after` so many seconds (None: as the retry policy says), with `why` as its error.
        Counts as an attempt, so after the last one it becomes a dead letter. `wait` and what it raises: see
        `Message`."""
        delay = None if after is None else records.seconds_to_us(after)
        return self._decide((NAK, delay, "Nak", why, ""), wait)

    @overload
    def defer(self, after: float | timedelta, *, wait: Literal[False] = False) -> None: ...
    @overload
    def defer(self, after: float | timedelta, *, wait: Literal[True]) -> Awaitable[None]: ...
    def defer(self, after: float | timedelta, *, wait: bool = False) -> Awaitable[None] | None:
        """It comes again `after` so many seconds, and no attempt is counted. `wait` and what it raises: see
        `Message`."""
        return self._decide((DEFER, records.seconds_to_us(after), "", "", ""), wait)

    @overload
    def reject(self, why: str = "", *, wait: Literal[False] = False) -> None: ...
    @overload
    def reject(self, why: str = "", *, wait: Literal[True]) -> Awaitable[None]: ...
    def reject(self, why: str = "", *, wait: bool = False) -> Awaitable[None] | None:
        """It becomes a dead letter at once, with `why` as its error. `wait` and what it raises: see
        `Message`."""
        return self._decide((DEAD_LETTER, None, "Rejected", why, ""), wait)

    def extend(self, by: float | timedelta) -> None:
        """Gives the handler so many seconds more, from now. At most 24 hours."""
        us = records.seconds_to_us(by)
        try:
            self._extend(us)
        except TowlineError as error:
            raise _of(self, error) from None

    def progress(self, note: str = "") -> None:
        """Notes how far the handler is; also gives it its whole time again."""
        try:
            self._progress(note)
        except TowlineError as error:
            raise _of(self, error) from None

    def transaction(self, body: Callable[[Transaction], None]) -> None:
        """`sqlite:` only. Runs `body` in the calling thread; its SQL, what it publishes and the
        acknowledgement of this message are one transaction. When it raises nothing happened and the message
        is unsettled. It must be quick: every writer of the file waits for it. In a coroutine: `await
        asyncio.to_thread(...)`."""
        try:
            self._transaction(lambda native: body(Transaction(native)))
        except TowlineError as error:
            raise _of(self, error) from error.__cause__
        if self._on_settled:
            self._on_settled(self._number)

    def _decide(self, outcome: OutcomeTuple, wait: bool) -> Awaitable[None] | None:
        if not wait:
            self._decide_now(outcome, False)
            return None
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            _in_slices(lambda: self._decide_now(outcome, True))
            return _Over()
        return loop.run_in_executor(None, self._decide_now, outcome, True)

    def _decide_now(self, outcome: OutcomeTuple, wait: bool) -> None:
        try:
            self._settle(outcome, wait)
        except TowlineError as error:
            raise _of(self, error) from None
        if self._on_settled:
            self._on_settled(self._number)

    def __repr__(self) -> str:
        return f"<Message {self.id} of {self.topic!r}, attempt {self.attempt}>"


def _of(message: Message, error: TowlineError) -> TowlineError:
    """It says of which message it is."""
    error.context.update(topic=message.topic, message_id=message.id, attempt=message.attempt)
    return error


class _Over:
    """Awaitable for who awaits it all the same."""

    def __await__(self) -> Generator[Any, Any, None]:
        yield from ()


def _in_slices(work: Callable[[], None]) -> None:
    """Waits for `work`; in the main thread so that Ctrl-C ends the waiting, not the work."""
    if threading.current_thread() is not threading.main_thread():
        work()
        return
    done: Future[None] = Future()

    def run() -> None:
        try:
            work()
            done.set_result(None)
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name="towline-settle", daemon=True).start()
    done.result()


def handed_over(message: Message) -> bool:
    """Whether it is still ours to hand out; its time to be settled in then begins again."""
    try:
        message.progress()
    except TowlineError:
        return False
    return True


FIELDS = (
    "topic payload key headers content_type priority ttl dedup_id dedup_while_unfinished correlation_id "
    "causation_id traceparent delay due_at skip_if_late_by id"
).split()


def fields_of(message: Mapping[str, Any]) -> tuple[Any, ...]:
    """Of one message of a batch. What is wrong with it `refused_batch` names by its place."""
    if not isinstance(message, Mapping):
        raise InvalidArgumentError(
            f"a message is {records.shown(message)}, but must be a dict of what publish() takes"
        )
    for name in message:
        if name not in FIELDS:
            known = ", ".join(FIELDS)
            near = meant(str(name), FIELDS)
            raise InvalidArgumentError(f"a message has {name!r}{near}; what it may have is {known}")
    for name in ("topic", "payload"):
        if name not in message:
            raise InvalidArgumentError(f"a message has no {name!r}; give topic and payload")
    return message_tuple(**message)


def refused(fields: tuple[Any, ...], error: TypeError) -> Exception:
    """Of a message that the native half could not take: texts may have what UTF-8 has no bytes for."""
    texts = dict(zip(FIELDS, fields, strict=True))
    headers = texts.pop("headers")
    texts.update({f"the name of headers[{name!r}]": name for name in headers})
    texts.update({f"headers[{name!r}]": value for name, value in headers.items()})
    for name, text in texts.items():
        if isinstance(text, str) and not is_utf8(text):
            return InvalidArgumentError(f"{name} is {text!r}, which UTF-8 has no bytes for")
    return error


def refused_batch(messages: list[Any], error: Exception) -> Exception:
    """The error of the first message that is to blame, with its place."""
    for i, message in enumerate(messages):
        try:
            fields = fields_of(message)
            if isinstance(error, TypeError) and (found := refused(fields, error)) is not error:
                raise found
        except TowlineError as bad:
            text = bad.message
            text = text.replace("a message", f"messages[{i}]", 1) if text.startswith("a message ") else (
                f"messages[{i}]: {text}"
            )
            return type(bad)(text)
        except (_payload.PayloadError, TypeError) as bad:
            return type(bad)(f"messages[{i}]: {bad}")
    return error


def messages_of(batch: Any) -> list[Any]:
    """Of what publish_batch() is given. A dict or a text would be taken apart into what is no message."""
    if isinstance(batch, (Mapping, str, bytes)) or not isinstance(batch, Iterable):
        raise InvalidArgumentError(
            f"messages is {records.shown(batch)}, but must be a list of dicts, one for each message"
        )
    return list(batch)


def _refuse_types(
    texts: Mapping[str, Any], optional: Mapping[str, Any], headers: Any, priority: Any
) -> None:
    """Names the argument whose type is wrong; nothing where a subclass of the right one is given."""
    for name, text in texts.items():
        if not isinstance(text, str):
            raise InvalidArgumentError(f"{name} is {records.shown(text)}, but must be a str")
    for name, text in optional.items():
        if text is not None and not isinstance(text, (str, bytes)):
            raise InvalidArgumentError(f"{name} is {records.shown(text)}, but must be a str, or None")
    if not isinstance(priority, int) or not 0 <= priority <= 255:
        raise InvalidArgumentError(f"priority is {records.shown(priority)}, but must be an int from 0 to 9")
    if headers is None:
        return
    if not isinstance(headers, Mapping):
        raise InvalidArgumentError(
            f'headers is {records.shown(headers)}, but must be a dict of texts, such as {{"tenant": "a"}}'
        )
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidArgumentError(
                f"headers[{records.shown(name)}] is {records.shown(value)}, but names and values must be str"
            )


def message_tuple(
    topic: str,
    payload: Any,
    *,
    key: str | None = None,
    headers: dict[str, str] | None = None,
    content_type: str | None = None,
    priority: int = 0,
    ttl: float | timedelta = 0,
    dedup_id: str = "",
    dedup_while_unfinished: bool = False,
    correlation_id: str = "",
    causation_id: str = "",
    traceparent: str = "",
    delay: float | timedelta = 0,
    due_at: datetime | float | None = None,
    skip_if_late_by: float | timedelta = 0,
    id: str | None = None,
) -> tuple[Any, ...]:
    """The fields of a message in the order of the native half."""
    data, known_type = _payload.encode(payload)
    if content_type is None:
        content_type = known_type
    texts = (topic, content_type, dedup_id, correlation_id, causation_id, traceparent)
    if (
        {*map(type, texts)} != _ONLY_STR
        or headers
        or type(priority) is not int
        or not (key is None or type(key) is str)
        or not (id is None or type(id) is str)
        or not 0 <= priority <= 255
    ):
        names = ("topic", "content_type", "dedup_id", "correlation_id", "causation_id", "traceparent")
        _refuse_types(dict(zip(names, texts, strict=True)), {"key": key, "id": id}, headers, priority)
    return (
        topic,
        data,
        key,
        headers or {},
        content_type,
        priority,
        records.seconds_to_us(ttl, "ttl"),
        dedup_id,
        dedup_while_unfinished,
        correlation_id,
        causation_id,
        traceparent,
        records.seconds_to_us(delay, "delay"),
        None if due_at is None else records.to_us(due_at, "due_at"),
        records.seconds_to_us(skip_if_late_by, "skip_if_late_by"),
        id,
    )


# Errors about its arguments are told as those of what takes them.
message_tuple.__qualname__ = "publish"
