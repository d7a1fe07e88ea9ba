"""The event store of an engine. scripts/generate makes the synchronous twin (_sync_events.py) of it by
leaving out every `async` and `await`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from towline import _payload, records
from towline._arguments import names_arguments
from towline._calls import Span
from towline._event_subscription import EventSubscription
from towline._option_texts import texts_of
from towline._options import RetryOptions
from towline.records import Appended, EventPage, NewEvent, Page, RecordedEvent, Snapshot, StreamInfo

if TYPE_CHECKING:
    from towline._engine import Engine


def options_of(**options: Any) -> list[tuple[str, str]]:
    given = {name: value for name, value in options.items() if value is not None}
    return texts_of("EventSubscription", given)


@names_arguments
class EventStore:
    """The events of an engine: `engine.event_store`. A stream is made by its first append; its events have
    the versions 1, 2, 3, ... without gaps, and each has a position in the order of all events. A stream's
    name has 1 to 255 bytes of visible ASCII. Times are seconds or timedeltas."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # Those that stream go on until they are closed, whether or not somebody keeps them.
        self._streaming: set[EventSubscription] = set()

    async def append(
        self, stream: str, events: Iterable[NewEvent], expected: int | None = None
    ) -> Appended:
        """Appends all events in a row, or none. `expected`: the version that the stream must have now, 0 for
        one that must not exist; None: any. When the first of them is there already, under its id, all must
        be: then nothing is changed and the answer is that of the first time, so an append whose outcome is
        unknown may be repeated with the same ids.

        Raises `ConflictError` (another version; some of the ids are there), `InvalidNameError`,
        `InvalidIdError`, `InvalidHeaderError`, `PayloadTooLargeError`, `BatchTooLargeError`."""
        if expected is not None:
            records.place("expected", expected)
        return Appended(
            *await self._engine._call("append", stream, records.new_event_tuples(events), expected)
        )

    async def read(self, stream: str, from_version: int = 1, *, count_max: int = 1000) -> EventPage:
        """EventStore of one stream from a version on, which is included; what was truncated is not there.
        `count_max` 1 to 10000; less come when their payloads pass 4 MiB."""
        records.place("from_version", from_version)
        records.place("count_max", count_max)
        return records.event_page(
            await self._engine._call("read_events", stream, from_version, count_max)
        )

    async def read_backwards(
        self, stream: str, from_version: int | None = None, *, count_max: int = 1000
    ) -> EventPage:
        """The same backwards, from a version down; None: from the newest."""
        begin = records.PLACE_MAX if from_version is None else records.place("from_version", from_version)
        records.place("count_max", count_max)
        return records.event_page(
            await self._engine._call("read_events_backwards", stream, begin, count_max)
        )

    async def read_all(self, from_position: int = 1, *, count_max: int = 1000) -> EventPage:
        """EventStore of all streams in their order, from a position on."""
        records.place("from_position", from_position)
        records.place("count_max", count_max)
        return records.event_page(await self._engine._call("read_all_events", from_position, count_max))

    async def find_stream(self, stream: str) -> StreamInfo | None:
        """The versions there are; None: no such stream."""
        raw = await self._engine._call("find_stream", stream)
        return None if raw is None else StreamInfo(*raw)

    async def streams(self, prefix: str = "", *, count_max: int = 100, cursor: str = "") -> Page[StreamInfo]:
        """By name. `count_max` 1 to 1000."""
        records.place("count_max", count_max)
        items, cursor = await self._engine._call("streams", prefix, count_max, cursor)
        return Page([StreamInfo(*one) for one in items], cursor)

    async def truncate(self, stream: str, before_version: int) -> None:
        """Removes events before a version; the newest one stays. Raises `NotFoundError`."""
        records.place("before_version", before_version)
        await self._engine._call("truncate_stream", stream, before_version)

    async def save_snapshot(
        self, stream: str, version: int, state: Any, *, content_type: str | None = None
    ) -> None:
        """Keeps a snapshot, one per stream; an older one than is kept changes nothing. `state` as a payload.
        Raises `NotFoundError` (the stream has no such version), `PayloadTooLargeError`."""
        records.place("version", version)
        data, known_type = _payload.encode(state)
        await self._engine._call(
            "save_snapshot", stream, version, data, known_type if content_type is None else content_type
        )

    async def find_snapshot(self, stream: str) -> Snapshot | None:
        """The newest one, or None."""
        raw = await self._engine._call("find_snapshot", stream)
        return None if raw is None else records.snapshot(raw)

    async def subscribe(
        self,
        name: str,
        handler: Callable[[list[RecordedEvent]], Any] | None = None,
        *,
        stream: str = "",
        types: Sequence[str] = (),
        from_end: bool = False,
        batch_count_max: int = 100,
        retry: RetryOptions | None = None,
    ) -> EventSubscription:
        """A durable reader: what was, then what comes, without a gap or a repetition at the seam. Its place
        is kept under its name; of all that follow under one name, in any process, one is active.

        `stream`: follows this one alone, and places are its versions; else they are positions. `types`: only
        events of these types, or patterns; the others are passed over. `from_end`: a name that is new begins
        behind the newest event.

        With a `handler` the engine calls it, until it or the subscription is closed, with at most
        `batch_count_max` events, in order, one call at a time: `async def`, or `def`, which runs in a thread.
        When it returns the checkpoint moves. When it raises, the same events come again after the backoff of
        `retry`, however often: nothing is passed over.

        Raises `InvalidNameError`, `InvalidConfigError`, `InvalidTopicError` (of `types`),
        `TopologyMismatchError` (the name follows another stream)."""
        texts = options_of(
            name=name,
            stream=stream,
            types=types,
            from_end=from_end,
            batch_count_max=batch_count_max,
            retry=retry,
        )
        subscription = EventSubscription(self._engine, stream, batch_count_max, handler)
        await subscription._start(texts)
        return subscription

    async def stream_to(
        self,
        topic: str,
        *,
        name: str,
        stream: str = "",
        types: Sequence[str] = (),
        from_end: bool = False,
        batch_count_max: int = 100,
        interval: Span | None = None,
        retry: RetryOptions | None = None,
    ) -> EventSubscription:
        """Publishes each event to a topic, in order, `{type}` in the topic standing for its type, until it or
        the engine is closed: key is the stream, id the event's. On `sqlite:` and `memory:` the place moves in
        the transaction that publishes. The headers towline-stream, towline-version, towline-position and
        towline-event-type say where it is from. `interval`: how long an event may wait for its batch to fill
        (default 1 s). Raises as `subscribe`, `InvalidTopicError`."""
        texts = options_of(
            name=name,
            stream=stream,
            types=types,
            from_end=from_end,
            batch_count_max=batch_count_max,
            interval=interval,
            retry=retry,
        )
        streaming = EventSubscription(self._engine, stream, batch_count_max)
        streaming._native = await self._engine._call("stream_events", topic, texts)
        self._streaming.add(streaming)
        return streaming
