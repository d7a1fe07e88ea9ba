"""The sagas of an engine. scripts/generate makes the synchronous twin (_sync_sagas.py) of it by leaving out
every `async` and `await`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from towline import _core, _payload, errors, records
from towline._arguments import names_arguments
from towline._calls import Moment, Span
from towline._message import Message
from towline._saga import SagaDefinition, checked
from towline.records import Page, Receipt, SagaEntry, SagaInfo, SagaResult, SagaStarted, SagaStatus

if TYPE_CHECKING:
    from towline._engine import Engine

# One wait for a result takes a thread of the engine at most so long.
SLICE_US = 250_000


@names_arguments
class Sagas:
    """The sagas of an engine: `engine.sagas`. Whoever starts, asks or changes a saga need not run it. Times
    are seconds or timedeltas."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def start(
        self, saga: SagaDefinition, context: Any = None, *, id: str | None = None
    ) -> SagaStarted:
        """Returns when it is stored durably; who runs this definition, in any process, goes on from there.

        `context`: what its steps begin with: bytes as they are, else JSON. `id`: 1 to 128 bytes of visible
        ASCII without '/'; None: a new one. An id that is there already changes nothing, so a start whose
        outcome is unknown may be repeated.

        Raises `InvalidSagaError`, `InvalidIdError`, `PayloadTooLargeError`, `PayloadError`, `ConflictError`
        (the id is there with another context or another version); `TimeoutError`, `UnavailableError` and
        `IoError`: unknown whether it happened."""
        data = _payload.pack(context)
        return SagaStarted(*await self._engine._call("start_saga", checked(saga)._native(), id or "", data))

    async def find(self, type: str, id: str) -> SagaInfo | None:
        """None: there is none."""
        raw = await self._engine._call("find_saga", type, id)
        return None if raw is None else records.saga_info(raw)

    async def list(
        self,
        *,
        type: str = "",
        status: SagaStatus | None = None,
        version: int | None = None,
        unfinished: bool = False,
        started_before: Moment | None = None,
        count_max: int = 100,
        cursor: str = "",
    ) -> Page[SagaInfo]:
        """In order of starting; every condition that is given must hold. `version`: of the definition.
        `unfinished`: neither completed nor compensated. `count_max` 1 to 1000. Raises
        `InvalidArgumentError`, `InvalidCursorError`."""
        records.place("count_max", count_max)
        query = {
            "type": type,
            "status": status,
            "version": version,
            "unfinished": unfinished,
            "started_before": (
                None if started_before is None else records.to_us(started_before, "started_before")
            ),
            "count_max": count_max,
            "cursor": cursor,
        }
        items, cursor = await self._engine._call("list_sagas", query)
        return Page([records.saga_info(one) for one in items], cursor)

    async def timeline(self, type: str, id: str) -> tuple[SagaEntry, ...]:
        """What happened to it, from the beginning. Raises `NotFoundError`."""
        return tuple(map(records.saga_entry, await self._engine._call("saga_timeline", type, id)))

    async def result(self, type: str, id: str, timeout: Span = 30) -> SagaResult:
        """Waits until nothing happens by itself any more, up to the timeout, of real time. Raises
        `NotFoundError`, `TimeoutError`."""
        deadline = time.monotonic() + records.seconds_to_us(timeout) / 1e6
        while True:
            left_us = round((deadline - time.monotonic()) * 1e6)
            try:
                raw = await self._engine._call("saga_result", type, id, max(min(left_us, SLICE_US), 0))
                return records.saga_result(raw)
            except errors.TimeoutError:
                if left_us <= SLICE_US:
                    raise

    # ---- help by hand -----------------------------------------------------------------------------------

    async def cancel(self, type: str, id: str, why: str = "") -> None:
        """Nothing new begins, and what was started is undone. Raises `NotFoundError`, `ConflictError` (it is
        over, or past its pivot)."""
        await self._engine._call("cancel_saga", type, id, why)

    async def retry(self, type: str, id: str, step: str) -> None:
        """A stuck step or compensation gets new attempts. Raises `NotFoundError`, `ConflictError` (it is not
        stuck)."""
        await self._engine._call("retry_saga", type, id, step)

    async def skip(self, type: str, id: str, step: str) -> None:
        """A stuck step counts as done, a stuck compensation as not needed; in a choreography its `on_success`
        is published. Raises as `retry`."""
        await self._engine._call("skip_saga_step", type, id, step)

    async def force(self, type: str, id: str, status: SagaStatus) -> None:
        """A stuck saga counts as "completed" or "compensated". Raises as `retry`, `InvalidArgumentError`."""
        await self._engine._call("force_saga", type, id, status)

    async def annotate(self, type: str, id: str, text: str) -> None:
        """Adds a note of 1 to 4096 bytes to its timeline. Raises `NotFoundError`, `InvalidArgumentError`."""
        await self._engine._call("annotate_saga", type, id, text)

    # ---- events of choreographies -----------------------------------------------------------------------

    def event_message(self, topic: str, id: str, payload: Any = None) -> dict[str, Any]:
        """An event of the choreography with this id, as arguments of `publish`: `tx.publish(**...)` inside
        `Message.transaction`, or one of `publish_batch`. It carries the id in the header `saga-id`, and as
        key. `payload`: bytes as they are, else JSON. Raises `PayloadError`."""
        message = _core.saga_event(topic, id, _payload.pack(payload))
        if payload is not None and not isinstance(payload, (bytes, bytearray, memoryview)):
            message["content_type"] = _payload.JSON
        return message

    async def publish_event(self, topic: str, id: str, payload: Any = None) -> Receipt:
        """Publishes it. Raises as `event_message` and as `Engine.publish`."""
        return await self._engine.publish(**self.event_message(topic, id, payload))

    # ---- replies to commands ----------------------------------------------------------------------------

    def reply_message(self, message: Message, output: Any = None) -> dict[str, Any]:
        """The reply to a command, as arguments of `publish`: `tx.publish(**...)` inside
        `Message.transaction`, or one of `publish_batch`. Raises `InvalidArgumentError` (the message is no
        saga's command), `PayloadError`."""
        return _core.saga_reply(message, _payload.pack(output))

    def reply_failed_message(
        self, message: Message, error: str, *, permanent: bool = False
    ) -> dict[str, Any]:
        """As `reply_message`, of a command that has failed."""
        return _core.saga_reply_failed(message, error, permanent)

    async def reply(self, message: Message, output: Any = None) -> Receipt:
        """Publishes the reply to a command: `output` becomes the step's. A second one changes nothing.
        Raises as `reply_message` and as `Engine.publish`."""
        return await self._engine.publish(**self.reply_message(message, output))

    async def reply_failed(self, message: Message, error: str, *, permanent: bool = False) -> Receipt:
        """The command has failed: the step's retry policy decides, unless `permanent`. Raises as `reply`."""
        return await self._engine.publish(**self.reply_failed_message(message, error, permanent=permanent))
