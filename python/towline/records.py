"""What the engine tells: plain, frozen records. Times are aware datetimes in UTC, durations are seconds."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from towline import _payload, errors
from towline.errors import TowlineError

T = TypeVar("T")

DeadLetterStatus = Literal["pending", "reprocessing", "resolved", "expired", "discarded"]
DeadLetterReason = Literal[
    "exhausted", "permanent", "decode", "expired", "crash_loop", "manual", "publish_failed", "max_age"
]
STATUSES: tuple[DeadLetterStatus, ...] = ("pending", "reprocessing", "resolved", "expired", "discarded")
REASONS: tuple[DeadLetterReason, ...] = (
    "exhausted",
    "permanent",
    "decode",
    "expired",
    "crash_loop",
    "manual",
    "publish_failed",
    "max_age",
)
ANSWERS: tuple[Literal["done", "already_fired", "not_found"], ...] = ("done", "already_fired", "not_found")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def from_us(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def to_us(moment: datetime | float) -> int:
    """Microseconds since 1970 of an aware datetime, or of seconds since 1970."""
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise ValueError("the time has no zone; use datetime.now(timezone.utc), or seconds since 1970")
        return round((moment - _EPOCH) / timedelta(microseconds=1))
    return round(moment * 1_000_000)


def seconds_to_us(span: float | timedelta) -> int:
    if isinstance(span, timedelta):
        return round(span / timedelta(microseconds=1))
    return round(span * 1_000_000)


class Receipt(NamedTuple):
    """What became of one message. `unknown`: repeat it only with a dedup id."""

    outcome: Literal["acked", "rejected", "unknown"]
    id: str
    duplicate: bool
    error: TowlineError | None

    @property
    def acked(self) -> bool:
        return self.outcome == "acked"


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a listing; an empty `cursor` is the last one's."""

    items: list[T]
    cursor: str


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A message that waits for its due time. `group`: the one whose retry it is; "": for every group."""

    id: str
    topic: str
    key: str | None
    due_at: datetime
    group: str
    attempt: int
    payload_size: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that a group could not handle, with the bytes and headers that were published."""

    id: str
    message_id: str
    topic: str
    group: str
    key: str | None
    partition: int
    headers: dict[str, str]
    content_type: str
    payload: bytes
    reason: DeadLetterReason
    error_type: str
    error_message: str
    error_stack: str
    fingerprint: str
    attempt: int
    crashes: int
    published_at: datetime
    first_failed_at: datetime
    last_failed_at: datetime
    created_at: datetime
    reprocess_count: int
    status: DeadLetterStatus
    metadata: str


@dataclass(frozen=True, slots=True)
class DeadLetterGroup:
    """Dead letters with one fingerprint."""

    fingerprint: str
    topic: str
    error_type: str
    error_message: str
    count: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class RedriveReport:
    matched: int
    redriven: int
    passed_over: int


@dataclass(frozen=True, slots=True)
class GroupBacklog:
    topic: str
    group: str
    waiting: int
    in_flight: int
    member_count: int


@dataclass(frozen=True, slots=True)
class BlockedKey:
    topic: str
    group: str
    key: str
    partition: int
    since: datetime
    parked_count: int
    held: bool


@dataclass(frozen=True, slots=True)
class Health:
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    published: int
    duplicates: int
    rejected: int
    unknown: int
    scheduled_now: int
    parked_now: int
    fired: int
    redriven: int
    swept: int
    dead_letters: dict[DeadLetterStatus, int]
    idempotency_records: int
    store_bytes: int
    lateness_p50_us: int
    lateness_p99_us: int
    lateness_max_us: int


@dataclass(frozen=True, slots=True)
class ConsumerStatistics:
    received: int
    acked: int
    failed: int
    retried: int
    deferred: int
    dead_lettered: int
    filtered: int
    expired: int
    timed_out: int
    lease_lost: int
    duplicates: int
    discarded: int
    in_flight: int
    running: int
    running_max: int
    stuck: int
    blocked_keys: int
    paused: bool
    breaker_open: bool


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to append. `type`: what happened, a name as a topic's. `payload` as that of a message: bytes
    as they are, str as UTF-8, else JSON; `content_type` says so unless you give another. `id`: appending it
    again under its id changes nothing; None: a new one."""

    type: str
    payload: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event of the store. `version`: in its stream, from 1, without gaps; `position`: among all events,
    growing, with gaps. `recorded_at` says nothing about order."""

    stream: str
    version: int
    position: int
    id: str
    type: str
    payload: bytes
    content_type: str
    headers: dict[str, str]
    recorded_at: datetime

    @property
    def value(self) -> Any:
        """The payload by its content type: JSON, text, else bytes. Raises PayloadError."""
        return self.value_as(inspect.Parameter.empty)

    def value_as(self, kind: Any) -> Any:
        """The payload as a `kind`: bytes, str, a JSON type, a dataclass or a model. Raises PayloadError."""
        return _payload.decode(self.payload, self.content_type, kind)


@dataclass(frozen=True, slots=True)
class Appended:
    """What an append came to. `duplicate`: all the events were there already, and nothing was changed."""

    first_version: int
    last_version: int
    last_position: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events in a row. `next` is where the next page begins; nothing more is there now when `end`."""

    events: list[RecordedEvent]
    next: int
    end: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a stream's owner at a version."""

    version: int
    state: bytes
    content_type: str
    saved_at: datetime

    @property
    def value(self) -> Any:
        """The state by its content type, as `RecordedEvent.value`."""
        return self.value_as(inspect.Parameter.empty)

    def value_as(self, kind: Any) -> Any:
        return _payload.decode(self.state, self.content_type, kind)


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """A stream. `oldest_version` is greater than 1 when it was truncated."""

    name: str
    oldest_version: int
    newest_version: int


@dataclass(frozen=True, slots=True)
class EventSubscriptionStatistics:
    """`active`: this process has the lease; else it stands by. `checkpoint`: everything up to here was
    handled. `handled` and `failures` (in a row) are of `stream_to`."""

    active: bool
    checkpoint: int
    handled: int
    failures: int
    last_error: str


# ---- to the native half -------------------------------------------------------------------------------

PLACE_MAX = 2**64 - 1


def place(name: str, value: int) -> int:
    """A version, or a position."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is a {type(value).__name__}, not an int")
    if not 0 <= value <= PLACE_MAX:
        shown = value if value.bit_length() <= 256 else f"a number of {value.bit_length()} bits"
        raise errors.InvalidArgumentError(f"{name} is {shown}, but must be in [0, {PLACE_MAX}]")
    return value


def new_event_tuples(events: Iterable[NewEvent]) -> list[tuple[Any, ...]]:
    """Events in the form of the native half."""
    tuples = []
    for event in events:
        if not isinstance(event, NewEvent):
            raise TypeError(f"an event to append is a NewEvent, not a {type(event).__name__}")
        data, known_type = _payload.encode(event.payload)
        content_type = known_type if event.content_type is None else event.content_type
        tuples.append((event.type, data, content_type, dict(event.headers), event.id))
    return tuples


# ---- from the native half -----------------------------------------------------------------------------


def scheduled(raw: dict[str, Any]) -> Scheduled:
    return Scheduled(**{**raw, "due_at": from_us(raw["due_at"])})


def dead_letter(raw: dict[str, Any]) -> DeadLetter:
    times = ("published_at", "first_failed_at", "last_failed_at", "created_at")
    return DeadLetter(
        **{
            **raw,
            **{name: from_us(raw[name]) for name in times},
            "reason": REASONS[raw["reason"]],
            "status": STATUSES[raw["status"]],
        }
    )


def dead_letter_group(raw: dict[str, Any]) -> DeadLetterGroup:
    return DeadLetterGroup(
        **{**raw, "first_at": from_us(raw["first_at"]), "last_at": from_us(raw["last_at"])}
    )


def blocked_key(raw: dict[str, Any]) -> BlockedKey:
    return BlockedKey(**{**raw, "since": from_us(raw["since"])})


def engine_statistics(raw: dict[str, Any]) -> EngineStatistics:
    return EngineStatistics(**{**raw, "dead_letters": dict(zip(STATUSES, raw["dead_letters"], strict=True))})


def recorded_event(raw: tuple[Any, ...]) -> RecordedEvent:
    stream, version, position, id, kind, payload, content_type, headers, recorded_at = raw
    return RecordedEvent(
        stream, version, position, id, kind, payload, content_type, headers, from_us(recorded_at)
    )


def event_page(raw: tuple[list[tuple[Any, ...]], int, bool]) -> EventPage:
    return EventPage([recorded_event(one) for one in raw[0]], raw[1], raw[2])


def snapshot(raw: tuple[int, bytes, str, int]) -> Snapshot:
    return Snapshot(raw[0], raw[1], raw[2], from_us(raw[3]))
