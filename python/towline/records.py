"""What the engine tells: plain, frozen records. Times are aware datetimes in UTC, durations are seconds."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

from towline import _payload, errors
from towline.errors import TowlineError

if TYPE_CHECKING:
    from towline._message import Message

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
# The engine counts microseconds in 64 bits.
_US_MAX = 2**63 - 1


def from_us(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def to_us(moment: datetime | float, name: str = "the time") -> int:
    """Microseconds since 1970 of an aware datetime, or of seconds since 1970."""
    if isinstance(moment, datetime):
        if moment.utcoffset() is None:
            raise errors.InvalidArgumentError(
                f"{name} is {shown(moment)}, which has no zone; use datetime.now(timezone.utc), "
                "moment.astimezone() for local time, or seconds since 1970"
            )
        return round((moment - _EPOCH) / timedelta(microseconds=1))
    return _microseconds(moment, name, "an aware datetime, or seconds since 1970 as a number")


def seconds_to_us(span: float | timedelta, name: str = "the time span") -> int:
    if isinstance(span, timedelta):
        return round(span / timedelta(microseconds=1))
    return _microseconds(span, name, "seconds as a number, or a timedelta")


def _microseconds(seconds: float, name: str, wanted: str) -> int:
    try:
        us = round(seconds * 1_000_000)
    except (TypeError, ValueError, OverflowError):
        us = _US_MAX + 1
    if not -_US_MAX <= us <= _US_MAX:
        raise errors.InvalidArgumentError(f"{name} is {shown(seconds)}, but must be {wanted}")
    return us


def shown(value: Any) -> str:
    """A value in the text of an error."""
    try:
        text = repr(value)
    except Exception:
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."


def is_utf8(text: str) -> bool:
    """Halves of surrogate pairs, such as those of file names, have no bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def meant(name: str, known: Iterable[str]) -> str:
    """For the text of an error about a name that nobody knows."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f", did you mean '{near[0]}'?" if near else ""


class Receipt(NamedTuple):
    """What became of one message. `unknown`: repeat it only with a dedup id."""

    outcome: Literal["acked", "rejected", "unknown"]
    id: str
    duplicate: bool
    error: TowlineError | None

    @property
    def acked(self) -> bool:
        """Whether it is stored."""
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
    """Of `redrive_all`: entries that matched, that were sent back (none in a dry run), and that were passed
    over by `redrive_max` or because another redrive had them."""

    matched: int
    redriven: int
    passed_over: int


@dataclass(frozen=True, slots=True)
class GroupBacklog:
    """What there is for a group on a topic now: messages that are `waiting` for a consumer, and `in_flight`
    with one. `member_count`: its consumers, of all processes."""

    topic: str
    group: str
    waiting: int
    in_flight: int
    member_count: int


@dataclass(frozen=True, slots=True)
class BlockedKey:
    """A key of an ordered group whose messages wait for one that failed. `parked_count`: so many. `held`:
    until `release_key`; else until its retry."""

    topic: str
    group: str
    key: str
    partition: int
    since: datetime
    parked_count: int
    held: bool


@dataclass(frozen=True, slots=True)
class Health:
    """`detail`: why not; "" when `ok`."""

    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """Of one engine since it opened, in messages: `published`, `duplicates` (of a dedup id), `rejected`,
    `unknown` (perhaps stored), `fired` (of delayed ones), `redriven`, `relayed` and `refused` (of what SQL
    wrote to the outbox: published, and made dead letters). `swept`: records that the clean-up removed.

    Of its store now: `scheduled_now`, `parked_now`, `dead_letters` by status, `idempotency_records`,
    `store_bytes`. `lateness_*_us`: how late delayed messages fired, in microseconds."""

    published: int
    duplicates: int
    rejected: int
    unknown: int
    scheduled_now: int
    parked_now: int
    fired: int
    redriven: int
    swept: int
    relayed: int
    refused: int
    dead_letters: dict[DeadLetterStatus, int]
    idempotency_records: int
    store_bytes: int
    lateness_p50_us: int
    lateness_p99_us: int
    lateness_max_us: int


@dataclass(frozen=True, slots=True)
class ConsumerStatistics:
    """Of one consumer since it started, in messages: `received`, and what became of them. `filtered`: its
    filter did not want them. `expired`: their `ttl` had ended. `timed_out`: the handler took too long.
    `lease_lost`: another process had them by then, so the result was void. `duplicates`: handled before.
    `discarded`: failed, and kept by nobody.

    Now: `in_flight` (received and not settled), handlers `running` (and at most at once), handlers that are
    `stuck` (past their time, and not back), `blocked_keys`, `paused`, `breaker_open`."""

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
        """The state as a `kind`: bytes, str, a JSON type, a dataclass or a model. Raises PayloadError."""
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


@dataclass(frozen=True, slots=True)
class ConversationMessage:
    """A message of a conversation. `sequence`: in its conversation, from 1, without gaps. `sent_at` says
    nothing about order."""

    conversation: str
    sequence: int
    id: str
    sender: str
    payload: bytes
    content_type: str
    headers: dict[str, str]
    sent_at: datetime

    @staticmethod
    def of(message: Message) -> ConversationMessage:
        """The message that one of the fan-out topic is a copy of. Raises `InvalidArgumentError` (it is
        none)."""
        headers = dict(message.headers)
        conversation = headers.pop("towline-conversation", None)
        sequence = headers.pop("towline-sequence", "")
        sender = headers.pop("towline-sender", None)
        if conversation is None or sender is None or not (sequence.isascii() and sequence.isdigit()):
            raise errors.InvalidArgumentError(
                f"message {message.id} is no copy of a message of a conversation: it lacks the headers "
                "towline-conversation, towline-sequence and towline-sender"
            )
        return ConversationMessage(
            conversation,
            int(sequence),
            message.id,
            sender,
            message.payload,
            message.content_type,
            headers,
            message.published_at,
        )

    @property
    def value(self) -> Any:
        """The payload by its content type, as `RecordedEvent.value`."""
        return self.value_as(inspect.Parameter.empty)

    def value_as(self, kind: Any) -> Any:
        """The payload as a `kind`: bytes, str, a JSON type, a dataclass or a model. Raises PayloadError."""
        return _payload.decode(self.payload, self.content_type, kind)


@dataclass(frozen=True, slots=True)
class AppendedMessage:
    """What an append came to. `duplicate`: it was there already, and nothing was changed or fanned out."""

    sequence: int
    id: str
    duplicate: bool


@dataclass(frozen=True, slots=True)
class ConversationGap:
    """Some of what was asked for was trimmed. There are messages from `oldest` to `newest`, included."""

    oldest: int
    newest: int


@dataclass(frozen=True, slots=True)
class ConversationPage:
    """Messages in a row; nothing more is there now when `end`. `gap`: between what was asked for and the
    first of them."""

    messages: list[ConversationMessage]
    end: bool
    gap: ConversationGap | None


@dataclass(frozen=True, slots=True)
class CatchUp:
    """What a client missed of one conversation. Not `end`: the next page goes on with it."""

    conversation: str
    messages: list[ConversationMessage]
    end: bool
    gap: ConversationGap | None


@dataclass(frozen=True, slots=True)
class MissedConversation:
    """What a user missed of one conversation while no client of the user was there."""

    conversation: str
    count: int
    first_sequence: int
    last_sequence: int


SagaStatus = Literal["running", "compensating", "completed", "compensated", "stuck"]
SagaMark = Literal[
    "begun",
    "heard",
    "started",
    "done",
    "failed",
    "postponed",
    "given_up",
    "compensating",
    "compensated",
    "compensation_failed",
    "compensation_stuck",
    "cancelled",
    "skipped",
    "retried",
    "forced_completed",
    "forced_compensated",
    "note",
]


@dataclass(frozen=True, slots=True)
class SagaStarted:
    """`is_new`: False when it was there already."""

    id: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class SagaInfo:
    """What is known of a saga without its log. `version` and `fingerprint`: of the definition that it began
    under. `step`: the one that runs, waits or is stuck, of several the first; "": none. `error`: what failed
    first, or why it was cancelled. `deadline_at`: when it is cancelled by itself. `retention`: seconds that
    it is kept once it is completed or compensated."""

    type: str
    id: str
    version: int
    fingerprint: str
    status: SagaStatus
    step: str
    error: str
    started_at: datetime
    updated_at: datetime
    deadline_at: datetime | None
    retention: float


@dataclass(frozen=True, slots=True)
class SagaEntry:
    """What happened to a saga at a moment. `step`: "" where the whole saga is meant. `due_at`: of "started"
    when a reply or an event must be there, of "failed" and "postponed" the next attempt. `raw_output` and
    `raw_context`: what was left. `error`: what failed, why it was cancelled, or the text of a note. `event`:
    of a choreography, the topic that was heard, or where what came of the step was published; "": none."""

    mark: SagaMark
    step: str
    attempt: int
    due_at: datetime | None
    raw_output: bytes | None
    raw_context: bytes | None
    error: str
    event: str
    at: datetime

    @property
    def output(self) -> Any:
        """None, JSON, or bytes that are no JSON."""
        return _payload.unpack(self.raw_output)

    @property
    def context(self) -> Any:
        """None, JSON, or bytes that are no JSON."""
        return _payload.unpack(self.raw_context)


@dataclass(frozen=True, slots=True)
class SagaResult:
    """How a saga ended. `raw_context`: what its last step left."""

    saga: SagaInfo
    raw_context: bytes

    @property
    def context(self) -> Any:
        """None, JSON, or bytes that are no JSON."""
        return _payload.unpack(self.raw_context)

    def context_as(self, kind: Any) -> Any:
        """As a `kind`: bytes, str, a JSON type, a dataclass or a model. Raises PayloadError."""
        return _payload.unpack(self.raw_context, kind)


@dataclass(frozen=True, slots=True)
class SagaRunnerStatistics:
    """`in_hand`: sagas that this process works on now. `calls`: begun here. `failures`: calls that failed or
    ran out of time. `taken_over`: calls whose process had died. `completed`, `compensated`, `stuck`: sagas
    that ended here. `mismatched`: sagas that wait because they began under other steps. `early`, `late`,
    `strangers`: events of a choreography that came before their saga (each time one was looked at), that came
    when it was over, and that carried no saga's id."""

    in_hand: int
    calls: int
    failures: int
    taken_over: int
    completed: int
    compensated: int
    stuck: int
    mismatched: int
    early: int
    late: int
    strangers: int


# ---- to the native half -------------------------------------------------------------------------------

PLACE_MAX = 2**64 - 1


def text(name: str, value: str) -> str:
    if not isinstance(value, str):
        raise errors.InvalidArgumentError(f"{name} is {shown(value)}, but must be a str")
    return value


def place(name: str, value: int) -> int:
    """A version, or a position."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise errors.InvalidArgumentError(f"{name} is {shown(value)}, but must be a whole number")
    if not 0 <= value <= PLACE_MAX:
        given = value if value.bit_length() <= 256 else f"a number of {value.bit_length()} bits"
        raise errors.InvalidArgumentError(f"{name} is {given}, but must be in [0, {PLACE_MAX}]")
    return value


def new_event_tuples(events: Iterable[NewEvent]) -> list[tuple[Any, ...]]:
    """Events in the form of the native half."""
    tuples = []
    if not isinstance(events, Iterable):
        raise errors.InvalidArgumentError(f"events is {shown(events)}, but must be a list of NewEvent")
    for event in events:
        if not isinstance(event, NewEvent):
            raise errors.InvalidArgumentError(f"an event is {shown(event)}, but must be a NewEvent")
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


def conversation_message(raw: tuple[Any, ...]) -> ConversationMessage:
    conversation, sequence, id, sender, payload, content_type, headers, sent_at = raw
    return ConversationMessage(
        conversation, sequence, id, sender, payload, content_type, headers, from_us(sent_at)
    )


def conversation_page(raw: tuple[list[tuple[Any, ...]], bool, tuple[int, int] | None]) -> ConversationPage:
    messages, end, gap = raw
    return ConversationPage(
        [conversation_message(one) for one in messages], end, None if gap is None else ConversationGap(*gap)
    )


def catch_up(raw: tuple[str, list[tuple[Any, ...]], bool, tuple[int, int] | None]) -> CatchUp:
    page = conversation_page(raw[1:])
    return CatchUp(raw[0], page.messages, page.end, page.gap)


def saga_info(raw: dict[str, Any]) -> SagaInfo:
    deadline = raw["deadline_at"]
    return SagaInfo(
        **{
            **raw,
            "started_at": from_us(raw["started_at"]),
            "updated_at": from_us(raw["updated_at"]),
            "deadline_at": None if deadline is None else from_us(deadline),
            "retention": raw["retention"] / 1e6,
        }
    )


def saga_entry(raw: tuple[Any, ...]) -> SagaEntry:
    mark, step, attempt, due_at, output, context, error, event, at = raw
    due = None if due_at is None else from_us(due_at)
    return SagaEntry(mark, step, attempt, due, output, context, error, event, from_us(at))


def saga_result(raw: tuple[dict[str, Any], bytes]) -> SagaResult:
    return SagaResult(saga_info(raw[0]), raw[1])
