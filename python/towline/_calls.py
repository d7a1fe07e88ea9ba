"""Everything that an open engine can be asked. scripts/generate makes the synchronous twin (_sync_calls.py)
of it by leaving out every `async` and `await`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from towline import _payload, errors, records
from towline._arguments import names_arguments
from towline._message import message_tuple, messages_of, refused, refused_batch
from towline._option_texts import texts_of
from towline._options import IdempotencyOptions, RetryOptions, TopicOptions
from towline.records import (
    BlockedKey,
    DeadLetter,
    DeadLetterGroup,
    DeadLetterReason,
    DeadLetterStatus,
    EngineStatistics,
    GroupBacklog,
    Health,
    Page,
    Receipt,
    RedriveReport,
    Scheduled,
)

if TYPE_CHECKING:
    from typing import Unpack

Span = float | timedelta
Moment = datetime | float
Answer = Literal["done", "already_fired", "not_found"]

# Between two questions whether somebody else's run of a key is done.
POLL_S = 0.05


@names_arguments
class Calls:
    """The calls of an engine. Times are seconds or timedeltas, moments aware datetimes or seconds since 1970.

    Every call raises a `TowlineError`: `ClosedError` after close, `ForkedError` in the child of a fork, and
    what is said with it. Bad input is refused before any I/O and changes nothing.
    """

    async def _call(self, name: str, *arguments: Any) -> Any:
        raise NotImplementedError

    async def _publish(self, messages: list[Any]) -> list[Receipt]:
        raise NotImplementedError

    async def _begin(self, key: str, texts: list[tuple[str, str]]) -> Any:
        return await self._call("begin", key, texts)

    # ---- publish and schedule -------------------------------------------------------------------------

    async def publish(
        self,
        topic: str,
        payload: Any,
        *,
        key: str | None = None,
        headers: dict[str, str] | None = None,
        content_type: str | None = None,
        priority: int = 0,
        ttl: Span = 0,
        dedup_id: str = "",
        dedup_while_unfinished: bool = False,
        correlation_id: str = "",
        causation_id: str = "",
        traceparent: str = "",
        delay: Span = 0,
        due_at: Moment | None = None,
        skip_if_late_by: Span = 0,
        id: str | None = None,
    ) -> Receipt:
        """Publishes one message; returns when it is stored durably.

        `payload`: bytes as they are, str as UTF-8, else JSON (dataclasses and models, too); `content_type`
        says so unless you give another. `key`: messages of one key keep their order where a consumer asks for
        it. `delay` or `due_at`: wait until then; `cancel(receipt.id)` takes it back. `dedup_id`: a second
        publish with the same one answers the first one's id and stores nothing. `priority`: 0 to 9. `ttl`:
        when it ends before a handler starts the message becomes a dead letter. `skip_if_late_by`: the same
        for a delayed message that could not fire in time.

        Raises unless the message was stored; `error.context["outcome"]` is "rejected" (surely not stored) or
        "unknown" (repeat it only with a dedup id). What was cancelled while it waited may have been stored.
        """
        fields = message_tuple(
            topic,
            payload,
            key=key,
            headers=headers,
            content_type=content_type,
            priority=priority,
            ttl=ttl,
            dedup_id=dedup_id,
            dedup_while_unfinished=dedup_while_unfinished,
            correlation_id=correlation_id,
            causation_id=causation_id,
            traceparent=traceparent,
            delay=delay,
            due_at=due_at,
            skip_if_late_by=skip_if_late_by,
            id=id,
        )
        try:
            receipts = await self._publish([fields])
        except TypeError as error:
            raise refused(fields, error) from None
        return acked(receipts[0])

    async def publish_batch(self, messages: Sequence[Mapping[str, Any]]) -> list[Receipt]:
        """Publishes many: each a dict of what `publish` takes. One receipt per message, in order; it does not
        raise for single messages, so look at `receipt.outcome`. The valid ones are stored together."""
        given = messages_of(messages)
        try:
            return await self._publish(given)
        except (errors.InvalidArgumentError, _payload.PayloadError, TypeError) as error:
            raise refused_batch(given, error) from None

    async def publish_with_retry(
        self,
        topic: str,
        payload: Any,
        *,
        retry: RetryOptions | None = None,
        timeout: Span | None = None,
        **options: Any,
    ) -> Receipt:
        """Publishes, and while the message is not stored tries again by `retry`, at most for `timeout`. When
        all attempts failed it becomes a dead letter `publish_failed` and the last error is raised."""
        fields = message_tuple(topic, payload, **options)
        texts = texts_of("Retry", retry or {})
        limit = None if timeout is None else records.seconds_to_us(timeout)
        try:
            raw = await self._call("publish_with_retry", fields, texts, limit)
        except TypeError as error:
            raise refused(fields, error) from None
        return acked(raw)

    async def cancel(self, message_id: str) -> Answer:
        """ "done": it will never fire. Exactly one of cancelling and firing wins, across processes."""
        answer: int = await self._call("cancel", message_id)
        return records.ANSWERS[answer]

    async def cancel_batch(self, message_ids: Iterable[str]) -> list[Answer]:
        """Cancels many with one commit, each by itself: one answer per id, in order; an id that is there
        twice is "not_found" the second time. Raises `BatchTooLargeError` (`batch_count_max`). After an error
        of the store some may have been cancelled, and asking again is harmless."""
        answers: list[int] = await self._call("cancel_batch", list(message_ids))
        return [records.ANSWERS[answer] for answer in answers]

    async def reschedule(self, message_id: str, due_at: Moment) -> Answer:
        """Moves the due time of a delayed message."""
        answer: int = await self._call("reschedule", message_id, records.to_us(due_at, "due_at"))
        return records.ANSWERS[answer]

    async def pending(self, topic: str = "", *, count_max: int = 100, cursor: str = "") -> Page[Scheduled]:
        """What was delayed, by due time; "": of all topics. `count_max` 1 to 1000."""
        items, cursor = await self._call("pending", topic, count_max, cursor)
        return Page([records.scheduled(one) for one in items], cursor)

    # ---- topics and groups ----------------------------------------------------------------------------

    async def declare_topic(self, topic: str, **options: Unpack[TopicOptions]) -> None:
        """Makes a topic with settings of its own. Idempotent; raises `TopologyMismatchError` for other
        ones."""
        await self._call("declare_topic", topic, texts_of("Topic", options))

    async def backlog(self) -> list[GroupBacklog]:
        """What waits for each group on each topic."""
        return [GroupBacklog(**one) for one in await self._call("backlog")]

    async def blocked_keys(self, group: str, topic: str) -> list[BlockedKey]:
        """The keys that wait for a failed message, or for a person."""
        return [records.blocked_key(one) for one in await self._call("blocked_keys", group, topic)]

    async def release_key(self, group: str, topic: str, key: str) -> None:
        """Lets what waits behind a blocked key go on. Raises `NotFoundError`."""
        await self._call("release_key", group, topic, key)

    # ---- dead letters ---------------------------------------------------------------------------------

    async def dead_letters(
        self,
        *,
        topic: str = "",
        group: str = "",
        status: DeadLetterStatus | None = None,
        error_type: str = "",
        fingerprint: str = "",
        text: str = "",
        reason: DeadLetterReason | None = None,
        created_from: Moment | None = None,
        created_before: Moment | None = None,
        count_max: int = 100,
        cursor: str = "",
    ) -> Page[DeadLetter]:
        """The dead letters for which every condition holds, newest last. `text` is part of the error message
        or of the payload. `count_max` 1 to 1000 per page."""
        query = dead_letter_query(
            topic=topic,
            group=group,
            status=status,
            error_type=error_type,
            fingerprint=fingerprint,
            text=text,
            reason=reason,
            created_from=created_from,
            created_before=created_before,
            count_max=count_max,
            cursor=cursor,
        )
        items, cursor = await self._call("dead_letters", query)
        return Page([records.dead_letter(one) for one in items], cursor)

    async def find_dead_letter(self, entry_id: str) -> DeadLetter | None:
        """One entry, or None."""
        raw = await self._call("find_dead_letter", entry_id)
        return None if raw is None else records.dead_letter(raw)

    async def dead_letter_groups(self, **conditions: Any) -> list[DeadLetterGroup]:
        """The dead letters by fingerprint; takes the conditions of `dead_letters`."""
        query = dead_letter_query(**conditions)
        return [records.dead_letter_group(one) for one in await self._call("dead_letter_groups", query)]

    async def redrive(
        self,
        entry_id: str,
        *,
        delay: Span = 0,
        destination: str = "",
        payload: Any = None,
        redrive_max: int = 3,
    ) -> None:
        """Sends one entry back: attempts start at 1 again, the message keeps its id. `payload`: instead of
        the old one. Raises `NotFoundError`, `ConflictError` (not pending), `LimitExceededError`."""
        await self._call(
            "redrive",
            entry_id,
            {
                "delay": records.seconds_to_us(delay),
                "destination": destination,
                "payload": None if payload is None else _payload.encode(payload)[0],
                "redrive_max": redrive_max,
            },
        )

    async def redrive_all(
        self,
        *,
        dry_run: bool = False,
        rate_per_second: int = 0,
        delay: Span = 0,
        destination: str = "",
        redrive_max: int = 3,
        **conditions: Any,
    ) -> RedriveReport:
        """Sends back every pending entry that matches the conditions of `dead_letters` now. `dry_run`: counts
        and changes nothing. `rate_per_second` 0: no limit."""
        how = {
            "dry_run": dry_run,
            "rate_per_second": rate_per_second,
            "delay": records.seconds_to_us(delay),
            "destination": destination,
            "redrive_max": redrive_max,
        }
        return RedriveReport(**await self._call("redrive_all", dead_letter_query(**conditions), how))

    async def discard_dead_letter(self, entry_id: str) -> None:
        """Marks a pending entry as given up; it is kept until the clean-up."""
        await self._call("discard_dead_letter", entry_id)

    # ---- idempotency ----------------------------------------------------------------------------------

    async def _once(self, key: str, run: Callable[[], Any], options: IdempotencyOptions) -> Any:
        if not callable(run):
            raise TypeError(f"what runs once is a function, not a {type(run).__name__}")
        records.text("key", key)
        wanted = _payload.result_kind(run)
        texts = texts_of("Idempotency", options)
        wait_max = records.seconds_to_us(options.get("wait_max", 0)) / 1_000_000
        deadline = time.monotonic() + wait_max
        while True:
            kind, token, retry_after_us, result, content_type = await self._begin(key, texts)
            if kind == COMPLETED:
                return _payload.read_result(key, result, content_type, wanted)
            if kind == ACQUIRED:
                break
            if time.monotonic() >= deadline:
                raise errors.InProgressError(
                    f"another caller runs the key {key!r}; ask again, or give wait_max",
                    retry_after=retry_after_us / 1_000_000,
                )
            await asyncio.sleep(min(POLL_S, retry_after_us / 1_000_000))
        result, content_type = await self._run_once(key, run, token, texts)
        return _payload.read_result(key, result, content_type, wanted)

    async def _run_once(
        self, key: str, run: Callable[[], Any], token: Any, texts: list[tuple[str, str]]
    ) -> tuple[bytes, str]:
        """What is stored then."""
        try:
            value = await run()
        except BaseException:
            await self._call("fail", token)
            raise
        try:
            result, content_type = _payload.encode(value)
            await self._call("complete", token, result, content_type, texts)
        except (_payload.PayloadError, errors.PayloadTooLargeError) as error:
            await self._call("fail", token)
            text = error.message if isinstance(error, errors.TowlineError) else str(error)
            raise type(error)(
                f"the function of the key {key!r} has run, but its result was not kept, so it would run "
                f"again: {text}"
            ) from error
        return result, content_type

    # ---- operation ------------------------------------------------------------------------------------

    async def statistics(self) -> EngineStatistics:
        """What the engine has counted since it opened, and what its store holds now."""
        return records.engine_statistics(await self._call("statistics"))

    async def health(self) -> Health:
        """Whether the store answers now, and why not."""
        return Health(*await self._call("health"))

    async def settle_down(self, timeout: Span = 10) -> None:
        """Waits until nothing is due, receivable or running. For tests with a virtual clock; `timeout` is
        real time. Raises `TimeoutError`."""
        await self._call("settle_down", records.seconds_to_us(timeout))


# IdempotencyAnswer.Kind of the engine.
ACQUIRED, IN_PROGRESS, COMPLETED = range(3)


CONDITIONS = {"topic", "group", "error_type", "fingerprint", "text", "count_max", "cursor"}


def acked(receipt: Receipt) -> Receipt:
    if receipt.error is not None:
        receipt.error.context["outcome"] = receipt.outcome
        raise receipt.error
    return receipt


def dead_letter_query(
    *,
    status: DeadLetterStatus | None = None,
    reason: DeadLetterReason | None = None,
    created_from: Moment | None = None,
    created_before: Moment | None = None,
    **others: Any,
) -> dict[str, Any]:
    for name in others.keys() - CONDITIONS:
        raise TypeError(
            f"{name!r} is no condition of dead letters{records.meant(name, CONDITIONS)}; conditions are "
            f"status, reason, created_from, created_before, {', '.join(sorted(CONDITIONS))}"
        )
    if status is not None and status not in records.STATUSES:
        raise errors.InvalidArgumentError(
            f"status is {status!r}, but must be one of {', '.join(records.STATUSES)}"
        )
    if reason is not None and reason not in records.REASONS:
        raise errors.InvalidArgumentError(
            f"reason is {reason!r}, but must be one of {', '.join(records.REASONS)}"
        )
    return {
        **others,
        "status": None if status is None else records.STATUSES.index(status),
        "reason": None if reason is None else records.REASONS.index(reason),
        "created_from": None if created_from is None else records.to_us(created_from, "created_from"),
        "created_before": None if created_before is None else records.to_us(created_before, "created_before"),
    }
