"""What the engine tells: plain, frozen records. Times are aware datetimes in UTC, durations are seconds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Literal, NamedTuple, TypeVar

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
