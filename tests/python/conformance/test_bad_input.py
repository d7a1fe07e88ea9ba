"""Bad input: a typed error that names what is wrong in one line, before any I/O; nothing has changed, and the
process lives."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import asynchronous, eventually_async

from conformance.suite import (
    Recorder,
    Store,
    all_settled,
    dead_letters,
    in_flight,
    make_dead_letters,
    make_group,
    member,
    publish_numbers,
    waiting,
)
from towline import Engine, Limiter, Message, Retry, TowlineError, errors


class Bad:
    """An engine, and what it refuses."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def state(self) -> str:
        statistics = await self.engine.statistics()
        return repr(
            (
                [(one.topic, one.group, one.waiting, one.in_flight) for one in await self.engine.backlog()],
                statistics.scheduled_now,
                statistics.parked_now,
                statistics.idempotency_records,
                statistics.dead_letters,
            )
        )

    async def refuses(
        self, call: Callable[[], Awaitable[Any]], kind: type[TowlineError], *words: str
    ) -> TowlineError:
        before = await self.state()
        with pytest.raises(kind) as refused:
            await call()
        text = refused.value.message
        assert text and len(text) < 1000, "a value is cut, not printed whole"
        assert text.isprintable(), "a control byte in the message"
        for word in words:
            assert word in text
        assert await self.state() == before
        return refused.value

    async def rejects(
        self, kind: type[TowlineError], *words: str, topic: str = "orders", **message: Any
    ) -> None:
        """By every way of publishing; and what is wrong stays wrong: it is not retried."""
        message = {"payload": "p", **message}
        engine = self.engine
        error = await self.refuses(lambda: engine.publish(topic, **message), kind, *words)
        assert error.context["outcome"] == "rejected"
        (receipt,) = await engine.publish_batch([{"topic": topic, **message}])
        assert receipt.outcome == "rejected" and type(receipt.error) is kind
        begin = time.monotonic()
        await self.refuses(lambda: engine.publish_with_retry(topic, **message), kind)
        assert time.monotonic() - begin < 0.9

    async def refuses_consumer(
        self, kind: type[TowlineError], *words: str, topic: str = "orders", **options: Any
    ) -> None:
        given = member(**options)
        await self.refuses(lambda: self.engine.consume(topic, lambda: None, **given), kind, *words)


@asynccontextmanager
async def refusing(store: Store) -> AsyncIterator[Bad]:
    async with store.open() as engine:
        yield Bad(engine)


@asynchronous
async def test_bad_01_topics_that_are_not_names(store: Store) -> None:
    topics = ["", "a" * 1024, "a" * 250, "a b", "a\tb", "a\rb", "a\nb", "a\0b", "größe", "a/b", "a:b", " "]
    async with refusing(store) as bad:
        for topic in (*topics, "a\x1b[31m", "a\x7f"):
            await bad.rejects(errors.InvalidTopicError, "topic", topic=topic)
            await bad.refuses_consumer(errors.InvalidTopicError, "pattern", topic=topic)
            await bad.refuses(lambda: bad.engine.declare_topic(topic), errors.InvalidTopicError)
        with pytest.raises((TypeError, ValueError)):
            await bad.engine.publish("caf\udcc3", "p")
        await bad.engine.publish("a" * 249, "p")


@asynchronous
async def test_bad_02_topics_that_servers_keep_for_themselves(store: Store) -> None:
    async with refusing(store) as bad:
        for topic in "$SYS.x $JS.API.x _INBOX.x amq.direct __consumer_offsets .. . a..b .a a.".split():
            await bad.rejects(errors.InvalidTopicError, "topic", topic=topic)


@asynchronous
async def test_bad_03_patterns_are_not_published_to_and_some_nobody_could_mean(store: Store) -> None:
    async with refusing(store) as bad:
        for topic in "a.* a.> a.# * # >".split():
            await bad.rejects(errors.InvalidTopicError, "topic", topic=topic)
        for pattern in "a.*b a.b# >.a a.>.b ** a.** $SYS.> a..#".split():
            await bad.refuses_consumer(errors.InvalidTopicError, "pattern", topic=pattern)


@asynchronous
async def test_bad_04_similar_topics_are_distinct(store: Store) -> None:
    async with store.open() as engine:
        for topic in ("x.y", "x_y", "x-y", "X.y", "x.Y"):
            await make_group(engine, topic)
            await engine.publish(topic, "p")
        for topic in ("x.y", "x_y", "x-y", "X.y", "x.Y"):
            assert await waiting(engine, topic) == 1


@asynchronous
async def test_bad_05_braces_are_not_part_of_a_topic(store: Store) -> None:
    async with refusing(store) as bad:
        for topic in ("{x}", "a.{x}.b"):
            await bad.rejects(errors.InvalidTopicError, "topic", topic=topic)


@asynchronous
async def test_bad_06_names_that_would_be_code_elsewhere(store: Store) -> None:
    async with refusing(store) as bad:
        engine = bad.engine
        names = ("x'; drop table m;--", 'x"y', "g" * 101, "a b", "a\nb", "größe", "a/b", "a\0", "*", "{x}")
        for name in names:
            await bad.refuses_consumer(errors.InvalidNameError, "group", group=name)
            await bad.refuses_consumer(errors.InvalidNameError, "name", name=name)
            await bad.refuses(
                lambda: engine.once("key", lambda: asyncio.sleep(0), scope=name), errors.InvalidNameError
            )
            await bad.refuses(lambda: engine.blocked_keys(name, "orders"), errors.InvalidNameError)
            assert not await dead_letters(engine, group=name), "a filter is data, never code"
            assert not await dead_letters(engine, text=name)
            await bad.refuses(lambda: engine.release_key("group", "orders", name), errors.NotFoundError)


@asynchronous
async def test_bad_07_keys_longer_than_every_provider_can_carry(store: Store) -> None:
    async with refusing(store) as bad:
        await bad.rejects(errors.InvalidKeyError, "key", "255", key="k" * 256)
        await bad.engine.publish("orders", "p", key="k" * 255)


@asynchronous
async def test_bad_08_payloads_results_and_replacements_over_the_limit(store: Store) -> None:
    huge = b"x" * 1_048_577

    async def result() -> bytes:
        return huge

    async with refusing(store) as bad:
        await bad.rejects(errors.PayloadTooLargeError, "payload", "1048577", "1048576", payload=huge)
        await bad.rejects(errors.PayloadTooLargeError, "payload", payload=huge, delay=3600)
        await make_dead_letters(bad.engine, "orders", 1)
        (entry,) = await dead_letters(bad.engine)
        await bad.refuses(
            lambda: bad.engine.redrive(entry.id, payload=huge), errors.PayloadTooLargeError, "1048577"
        )
        with pytest.raises(errors.PayloadTooLargeError):
            await bad.engine.once("key", result)
        assert await bad.engine.once("key", lambda: asyncio.sleep(0, "free")) == "free"


@asynchronous
async def test_bad_09_an_empty_batch_is_fine_and_a_too_large_one_is_not(store: Store) -> None:
    message = {"topic": "orders", "payload": "p"}
    async with refusing(store) as bad:
        assert await bad.engine.publish_batch([]) == []
        await bad.refuses(
            lambda: bad.engine.publish_batch([message] * 10_001), errors.BatchTooLargeError, "10001", "10000"
        )
        assert len(await bad.engine.publish_batch([message] * 10_000)) == 10_000


@asynchronous
async def test_bad_10_headers_that_do_not_travel(store: Store) -> None:
    async with refusing(store) as bad:
        for name in ("", "a:b", "a\r\nb", "a b", "h" * 129, "größe", "a\0b"):
            await bad.rejects(errors.InvalidHeaderError, "header", headers={name: "v"})
        await bad.rejects(errors.InvalidHeaderError, "wice", headers={"twice": "a", "Twice": "b"})
        many = {f"h{number}": "v" for number in range(65)}
        await bad.rejects(errors.HeadersTooLargeError, "64", headers=many)
        del many["h0"]
        await bad.engine.publish("orders", "p", headers=many)
        await bad.rejects(errors.HeadersTooLargeError, "16", headers={"big": "x" * (1 << 20)})


@asynchronous
async def test_bad_11_header_values_that_would_become_headers(store: Store) -> None:
    async with refusing(store) as bad:
        for value in ("v\r\nNats-Msg-Id: 1", "v\n", "\x01", "a\0b", "\x7f"):
            await bad.rejects(errors.InvalidHeaderError, "name", headers={"name": value})


@asynchronous
async def test_bad_12_headers_that_belong_to_the_engine_or_a_provider(store: Store) -> None:
    names = (
        "Nats-Rollup Nats-Expected-Stream nats-ttl Nats-Msg-Id x-death X-Death CC BCC cc x-delay "
        "towline-attempt Towline-Anything x-first-death-queue amqp-anything"
    )
    async with refusing(store) as bad:
        for name in names.split():
            await bad.rejects(errors.ReservedHeaderError, name, headers={name: "all"})
        await bad.engine.publish("orders", "p", headers={"ce-type": "t", "x-tenant": "t"})


@asynchronous
async def test_bad_13_no_key_an_empty_key_and_a_huge_one(store: Store) -> None:
    async with refusing(store) as bad:
        for key in (None, ""):
            assert (await bad.engine.publish("orders", "p", key=key)).acked
        await bad.rejects(errors.InvalidKeyError, "key", "255", key="k" * (1 << 20))


@asynchronous
async def test_bad_14_ids_that_are_long_or_binary(store: Store) -> None:
    async with refusing(store) as bad:
        for id in ("d" * 1024, "d" * 256, "a\0b", "a b", "a\nb", "größe"):
            for name in ("dedup_id", "correlation_id", "causation_id"):
                await bad.rejects(errors.InvalidIdError, name, **{name: id})
        for text in ("", "x", "0190163d-8694-739b-aea5-966c26f8ad9", "0190163d_8694_739b_aea5_966c26f8ad90"):
            await bad.refuses(lambda: bad.engine.cancel(text), errors.InvalidIdError)
        await bad.rejects(errors.InvalidHeaderError, "traceparent", traceparent="00-nonsense")
        await bad.rejects(errors.InvalidHeaderError, "content_type", content_type="text/plain\r\nX: 1")
        await bad.rejects(errors.InvalidArgumentError, "priority", "10", "9", priority=10)


@asynchronous
async def test_bad_15_delays_that_are_not_times(store: Store) -> None:
    inf = float("inf")
    async with refusing(store) as bad:
        for seconds in (-1e-6, -1, -9e12, 9e12, 31_622_400.000001, timedelta(days=-1)):
            for name in ("delay", "ttl"):
                await bad.rejects(errors.InvalidDelayError, name, **{name: seconds})
            await bad.rejects(errors.InvalidDelayError, "skip_if_late_by", delay=1, skip_if_late_by=seconds)
        before = await bad.state()
        for number in (inf, -inf, float("nan"), 1e300, 2**63):
            for name in ("delay", "ttl", "skip_if_late_by", "due_at"):
                with pytest.raises((TypeError, ValueError, OverflowError)):
                    await bad.engine.publish("orders", "p", **{name: number})
        assert await bad.state() == before
        far = datetime(9999, 1, 1, tzinfo=UTC)
        await bad.rejects(errors.InvalidDelayError, "due_at", due_at=far)
        await bad.rejects(errors.InvalidDelayError, "due_at", due_at=datetime.now(UTC), delay=1)
        with pytest.raises(ValueError, match="no zone"):
            await bad.engine.publish("orders", "p", due_at=datetime(2030, 1, 1))
        later = await bad.engine.publish("orders", "p", delay=3600)
        await bad.refuses(lambda: bad.engine.reschedule(later.id, far), errors.InvalidDelayError, "due_at")


@asynchronous
async def test_bad_15_settling_with_a_bad_delay_is_refused_and_the_message_stays_open(store: Store) -> None:
    done = asyncio.Event()

    async def handle(message: Message) -> None:
        for settle in (lambda: message.nak(-1), lambda: message.nak(9e12), lambda: message.defer(-1e-6)):
            with pytest.raises(errors.InvalidDelayError):
                settle()
        for by in (-1, 90_000):
            with pytest.raises(errors.InvalidArgumentError):
                message.extend(by)
        message.ack()
        done.set()

    async with store.open() as engine:
        await engine.consume("delays", handle, **member(ack="manual"))
        await engine.publish("delays", "p")
        await asyncio.wait_for(done.wait(), 10)
        assert await all_settled(engine, "delays")


@asynchronous
async def test_bad_16_leases_that_cannot_work(store: Store) -> None:
    async with refusing(store) as bad:
        for lease in (0, 0.001, -1, timedelta(days=3650)):
            with pytest.raises(errors.InvalidConfigError, match="lease"):
                async with store.open(lease=lease):
                    pass
            await bad.refuses(
                lambda: bad.engine.once("key", lambda: asyncio.sleep(0), lease=lease),
                errors.InvalidConfigError,
            )
        for timeout in (0, -1, timedelta(hours=25)):
            await bad.refuses_consumer(
                errors.InvalidConfigError, "handler_timeout", handler_timeout=timeout
            )


@asynchronous
async def test_bad_17_retry_policies_that_cannot_work(store: Store) -> None:
    cases: list[tuple[dict[str, Any], tuple[str, ...]]] = [
        *(({"max_attempts": count}, ("max_attempts", str(count))) for count in (0, -1, 2**31)),
        *(({"multiplier": by}, ("multiplier", "1000")) for by in (0.5, 0, -2, 1e9, float("nan"))),
        *(({"jitter_ratio": ratio}, ("jitter_ratio",)) for ratio in (-0.1, 1.5, float("nan"))),
        *(({"budget_ratio": ratio}, ("budget_ratio",)) for ratio in (-0.1, 1.5)),
        ({"initial_delay": -1}, ("initial_delay",)),
        ({"initial_delay": 0}, ("initial_delay", "more than 0", "fixed")),
        ({"initial_delay": timedelta(hours=25)}, ("initial_delay",)),
        ({"delay_max": 0.01}, ("retry.delay_max", "retry.initial_delay")),
        ({"kind": "sequence"}, ("sequence",)),
        ({"kind": "sequence", "sequence": [1, -1]}, ("sequence",)),
        ({"kind": "custom"}, ("custom",)),
    ]
    async with refusing(store) as bad:
        for retry, words in cases:
            await bad.refuses_consumer(errors.InvalidConfigError, *words, retry=retry)
            with pytest.raises(errors.InvalidConfigError):
                await bad.engine.publish_with_retry("orders", "p", retry=retry)


@asynchronous
async def test_bad_18_limits_that_cannot_work(store: Store) -> None:
    many = 2**31
    consumer_limits = {
        "concurrency": (0, -1, 4097, many),
        "prefetch_count": (-1, 100_001, many),
        "prefetch_bytes_max": (0, -1),
        "batch_count_max": (0, 10_001),
        "rate_per_second": (-1, 10_000_001),
        "parked_count_max": (0, -5),
    }
    engine_limits = {
        "partition_count": (0, 1025, -1),
        "payload_bytes_max": (0, 67_108_865),
        "batch_count_max": (0, 100_001),
        "publish_in_flight_count_max": (0, many),
        "in_flight_count_max": (0, many),
        "dead_letter_count_max": (0, many),
        "seed": (-1,),
    }
    async with refusing(store) as bad:
        for name, values in consumer_limits.items():
            for value in values:
                await bad.refuses_consumer(errors.InvalidConfigError, name, str(value), **{name: value})
        await bad.refuses_consumer(errors.InvalidConfigError, "partitions", partitions=[1024])
        await bad.refuses_consumer(errors.InvalidFilterError, "filter", filter="header.x = ")
        await bad.refuses_consumer(errors.InvalidFilterError, "filter", filter="(" * 5000)
        for name, values in engine_limits.items():
            for value in values:
                with pytest.raises(errors.InvalidConfigError, match=f"{name}.*{value}"):
                    async with store.open(**{name: value}):
                        pass
    for limit in (0, -1, many):
        with pytest.raises(errors.InvalidConfigError):
            Limiter(limit)
    limiter = Limiter(3)
    with pytest.raises(errors.InvalidConfigError):
        limiter.set_limit(0)
    for weight in (0, 4):
        with pytest.raises(errors.InvalidArgumentError):
            await limiter.acquire(weight=weight)
    with limiter.acquire_blocking(weight=3), pytest.raises(errors.TimeoutError):
        await limiter.acquire(timeout=0)


@asynchronous
async def test_bad_19_options_that_nobody_knows_or_cannot_read(store: Store) -> None:
    async with refusing(store) as bad:
        with pytest.raises(errors.InvalidConfigError, match="'leese', did you mean 'lease'"):
            Engine(store.url, leese=5)  # type: ignore[call-arg]
        with pytest.raises(errors.InvalidConfigError, match="retry.tries"):
            await bad.engine.consume("orders", lambda: None, **member(retry={"tries": 5}))
        for value in ("soon", "", None, [5], {"ms": 5}, b"5", True, float("nan"), float("inf"), "5s"):
            with pytest.raises(errors.InvalidConfigError, match="lease"):
                async with store.open(lease=value):
                    pass
        for parameters in ("lease_sm=5000", "lease_ms=soon", "lease_ms=", "lease_ms=1&lease_ms=2"):
            with pytest.raises(errors.InvalidConfigError, match="lease"):
                async with Engine(f"{store.url}?{parameters}"):
                    pass
        with pytest.raises(errors.InvalidConfigError, match="durability.*forever"):
            async with store.open(durability="forever"):
                pass
        await bad.refuses_consumer(errors.InvalidConfigError, "retry", retry=5)
        await bad.refuses_consumer(errors.InvalidConfigError, "partitions", partitions="12")


@asynchronous
async def test_bad_20_options_that_contradict_each_other(store: Store) -> None:
    async with refusing(store) as bad:
        await bad.refuses_consumer(errors.InvalidConfigError, "inbox_window", inbox_window=0.001)
        await bad.engine.declare_topic("small", partition_count=8)
        await bad.refuses_consumer(errors.InvalidConfigError, topic="small", partitions=[70])
        for other in ({"partition_count": 9}, {"type": "log", "partition_count": 8}):
            await bad.refuses(
                lambda: bad.engine.declare_topic("small", **other), errors.TopologyMismatchError
            )
        await bad.engine.declare_topic("small", partition_count=8)
        if store.provider == "memory":
            with pytest.raises(errors.DurabilityUnavailableError):
                async with store.open(durability="host"):
                    pass


@asynchronous
async def test_bad_21_urls_that_nobody_can_open_and_the_password_in_them_is_never_shown(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    urls = [
        *("", "x", ":", "://", "sqlite", "memory", "nosuch:thing", "http://h/", "redis://h:99999"),
        *("redis://user:hunter2@h:99999", "postgres://user:hunter2@h:port/db", "sqlite:", "sqlite:a%zz"),
        *("sqlite:a.db?x", "sqlite:a.db?lease_ms", "nosuch://user:hunter2@host/path", "//user:hunter2@host"),
        *("user:hunter2@host", "redis://:hunter2@h/?lease_ms=hunter2x", "sqlite:a\0b", "sqlite:a\nb"),
        *("memory:a b", "x" * 100_000, "SQLITE://user:hunter2@h", "sqlite:file:x?mode=memory&vfs=unix"),
    ]
    wanted = (errors.InvalidUrlError, errors.InvalidConfigError, errors.UnsupportedError)
    for url in urls:
        with pytest.raises(wanted) as refused:
            async with Engine(url):
                pass
        assert "hunter2" not in str(refused.value) and len(str(refused.value)) < 1000
    assert "hunter2" not in caplog.text


@asynchronous
async def test_bad_22_paths_that_are_no_stores_are_refused_and_untouched(tmp_path: Path) -> None:
    def path(name: str) -> Path:
        return tmp_path / name

    path("folder").mkdir()
    os.mkfifo(path("fifo"))
    path("loop").symlink_to(path("loop"))
    text = b"this is a text and no database, and long enough to have a header of a hundred bytes or more ...."
    path("text.db").write_bytes(text)
    async with Engine(f"sqlite:{path('own.db')}"):
        pass
    own = path("own.db").read_bytes()
    # The header of the file: user_version at 60, application_id at 68.
    path("newer.db").write_bytes(own[:60] + b"\x7f\0\0\0" + own[64:])
    path("foreign.db").write_bytes(own[:68] + b"GPKG" + own[72:])
    cases: dict[str, tuple[type[TowlineError], ...]] = {
        "folder": (errors.NotAStoreError, errors.InvalidUrlError),
        "fifo": (errors.NotAStoreError, errors.InvalidUrlError),
        "loop": (errors.NotAStoreError, errors.InvalidUrlError, errors.IoError),
        "no/such/folder/a.db": (errors.NotAStoreError, errors.InvalidUrlError, errors.IoError),
        "text.db": (errors.NotAStoreError,),
        "newer.db": (errors.SchemaTooNewError,),
        "foreign.db": (errors.NotAStoreError,),
    }
    for name, kinds in cases.items():
        before = path(name).read_bytes() if name.endswith(".db") and path(name).is_file() else None
        with pytest.raises(kinds) as refused:
            async with Engine(f"sqlite:{path(name)}"):
                pass
        assert Path(name).name in refused.value.message, "it names the file"
        if before is not None:
            assert path(name).read_bytes() == before
            assert len(list(tmp_path.glob(f"{name}*"))) == 1, "something was left beside it"


@pytest.mark.only("sqlite")
@asynchronous
async def test_bad_23_two_processes_share_one_store_as_documented(store: Store) -> None:
    seen = Recorder()
    async with store.open() as engine:
        child = store.child("work")
        await publish_numbers(engine, "orders", 20)
        assert await eventually_async(lambda: store.ledger.count("done") == 20)
        await engine.consume("orders", seen, **member())
        await publish_numbers(engine, "orders", 200, 20)
        assert await eventually_async(lambda: store.ledger.count("done") + seen.count == 220)
        child.signal(signal.SIGTERM)
        await child.wait()
        assert await all_settled(engine, "orders")
        assert (await engine.health()).ok


@asynchronous
async def test_bad_27_functions_that_are_not_there(store: Store) -> None:
    async with refusing(store) as bad:
        before = await bad.state()
        nothing: Any
        for nothing in (None, 5, "handler"):
            with pytest.raises(TypeError, match="a handler is a function"):
                await bad.engine.consume("orders", nothing, **member())
            with pytest.raises(TypeError):
                await bad.engine.once("key", nothing)
        await bad.refuses(lambda: bad.engine.consume([], lambda: None, **member()), errors.InvalidTopicError)
        assert await bad.state() == before, "the key is not taken"


@asynchronous
async def test_bad_28_what_a_handler_returns_means_nothing_and_its_waits_are_bounded(store: Store) -> None:
    calls: list[str] = []

    async def handle(what: str) -> Any:
        calls.append(what)
        if what == "before now" and calls.count(what) == 1:
            raise Retry(after=-1)
        if what == "endless":
            raise Retry(after=timedelta.max / 3)
        return 42

    async with store.open() as engine:
        await engine.consume("orders", handle, **member())
        for what in ("returns", "before now", "endless"):
            await engine.publish("orders", what)
        assert await eventually_async(lambda: len(calls) == 4), "a wait before now means now"
        await asyncio.sleep(0.1)  # sleeps: had the sum run over, it would come at once
        assert calls.count("endless") == 1
        assert (await engine.statistics()).scheduled_now == 1
        assert not await dead_letters(engine)


@asynchronous
async def test_bad_29_messages_of_a_closed_consumer_stay_closed_and_ids_of_nothing_are_not_found(
    store: Store,
) -> None:
    kept: list[Message] = []

    async def keep(message: Message) -> None:
        kept.append(message)

    seen, unknown = Recorder(), "09090900-0000-0000-0000-000000000000"
    async with store.open() as engine:
        consumer = await engine.consume("orders", keep, **member(ack="manual"))
        await engine.publish("orders", "p")
        assert await eventually_async(lambda: bool(kept))
        await consumer.close(0)
        await engine.consume("orders", seen, **member())
        assert await seen.reaches(1)
        for call in (kept[0].ack, kept[0].nak, lambda: kept[0].extend(1)):
            with pytest.raises(errors.ClosedError):
                call()
        assert await seen.stays(1)
        for lost in (engine.redrive, engine.discard_dead_letter):
            with pytest.raises(errors.NotFoundError):
                await lost(unknown)
        assert await engine.find_dead_letter(unknown) is None


@asynchronous
async def test_bad_30_the_same_subscription_twice(store: Store) -> None:
    async with refusing(store) as bad:
        first = await bad.engine.consume("orders", lambda: None, **member(name="worker-1"))
        await bad.refuses_consumer(errors.AlreadySubscribedError, "worker-1", name="worker-1")
        await bad.engine.consume("orders", lambda: None, **member(name="worker-2"))
        await bad.engine.consume("orders", lambda: None, **member("other", name="worker-1"))
        await bad.engine.consume("orders", lambda: None, **member())
        await first.close()
        await bad.engine.consume("orders", lambda: None, **member(name="worker-1"))


@asynchronous
async def test_bad_31_closing_inside_a_handler_and_from_two_tasks_at_once(store: Store) -> None:
    started = asyncio.Event()

    async def close_it(message: Message) -> None:
        started.set()
        await consumer.close()

    seen = Recorder(close_it)
    async with store.open() as engine:
        consumer = await engine.consume("orders", seen, **member(concurrency=2))
        await publish_numbers(engine, "orders", 10)
        await asyncio.wait_for(started.wait(), 10)
        await asyncio.gather(consumer.close(), consumer.close())
        assert await in_flight(engine) == 0
        assert await waiting(engine, "orders") + seen.count == 10, "the rest was given back"
        rest = Recorder()
        await engine.consume("orders", rest, **member())
        assert await eventually_async(lambda: rest.count + seen.count == 10)
    assert len(rest.times | seen.times) == 10


@asynchronous
async def test_bad_32_a_handler_may_publish_to_its_own_topic_with_every_limit_at_one(store: Store) -> None:
    async def next_one(message: Message) -> None:
        if (number := int(message.payload)) < 20:
            await engine.publish("chain", str(number + 1))

    seen = Recorder(next_one)
    async with store.open(publish_in_flight_count_max=1, in_flight_count_max=1) as engine:
        await engine.consume("chain", seen, **member())
        await engine.publish("chain", "0")
        assert await seen.reaches(21), f"it waits for itself after {seen.count}"
    assert len(seen.times) == 21


@asynchronous
async def test_bad_33_publishing_while_the_program_ends_is_refused_and_nothing_crashes(store: Store) -> None:
    child = store.child("exit")
    assert child.read_line() == "closed", "what a function at the program's end was answered"
    assert await child.wait() == 0


@asynchronous
async def test_bad_37_idempotency_keys_and_fingerprints(store: Store) -> None:
    async def never() -> None:
        raise AssertionError("it is refused before")

    async with refusing(store) as bad:
        for key in ("", "k" * 10_240):
            await bad.refuses(lambda: bad.engine.once(key, never), errors.InvalidKeyError)
        await bad.refuses(
            lambda: bad.engine.once("key", never, fingerprint="f" * 256), errors.InvalidKeyError, "255"
        )
        await bad.refuses(lambda: bad.engine.once("key", never, ttl=-1), errors.InvalidConfigError)


@asynchronous
async def test_bad_38_cursors_that_this_query_did_not_make_and_redrives_that_cannot_be_meant(
    store: Store,
) -> None:
    async with refusing(store) as bad:
        engine = bad.engine
        await make_dead_letters(engine, "orders", 10)
        good = (await engine.dead_letters(topic="orders", count_max=3)).cursor
        forged = ["x", "0", "-1", "' OR 1=1 --", "A" * 10_000, good + "x", good[: len(good) // 2], "\0"]
        for at in range(0, len(good), 3):
            forged.append(good[:at] + ("c" if good[at] == "b" else "b") + good[at + 1 :])
        for cursor in forged:
            await bad.refuses(
                lambda: engine.dead_letters(topic="orders", count_max=3, cursor=cursor),
                errors.InvalidCursorError,
            )
        assert (await engine.dead_letters(topic="orders", count_max=3, cursor=good)).items
        await bad.refuses(
            lambda: engine.dead_letters(topic="others", count_max=3, cursor=good), errors.InvalidCursorError
        )
        for count in (0, 1001):
            for call in (engine.dead_letters, engine.pending):
                await bad.refuses(lambda: call(count_max=count), errors.InvalidArgumentError)
        for hours in (1, 2):
            await engine.publish("later", "p", delay=3600 * hours)
        pending = (await engine.pending("later", count_max=1)).cursor
        for cursor in ("x", good, pending + "0", pending[1:]):
            await bad.refuses(
                lambda: engine.pending("later", count_max=1, cursor=cursor), errors.InvalidCursorError
            )
        entry = (await dead_letters(engine, "orders"))[0].id
        for topic in ("a.*", "a.#", "$SYS.x", "a b", ".."):
            await bad.refuses(
                lambda: engine.redrive(entry, destination=topic), errors.InvalidTopicError, "destination"
            )
        for delay in (-1, timedelta(days=367)):
            await bad.refuses(lambda: engine.redrive(entry, delay=delay), errors.InvalidDelayError, "delay")
        await bad.refuses(lambda: engine.redrive(entry, redrive_max=0), errors.LimitExceededError)
        await engine.discard_dead_letter(entry)
        for again in (engine.discard_dead_letter, engine.redrive):
            await bad.refuses(lambda: again(entry), errors.ConflictError)


@asynchronous
async def test_bad_39_values_of_python_that_have_no_bytes(store: Store) -> None:
    class Silent:
        def __str__(self) -> str:
            raise RuntimeError("no text")

        __repr__ = __str__

    endless: list[Any] = []
    endless.append(endless)
    async with store.open() as engine:
        kept: list[bytes] = []
        await engine.consume("orders", kept.append, **member())
        strided = memoryview(bytes(range(10)))[::2]
        assert not strided.contiguous
        await engine.publish("orders", strided)
        await engine.publish("orders", bytearray(b"copied"))
        await engine.settle_down()
        assert kept == [b"\0\2\4\6\x08", b"copied"]
        bad_payload: Any
        for bad_payload in ("\udcff", {"a": b"\xff"}, {1, 2}, Silent(), endless, float("nan")):
            with pytest.raises((ValueError, TypeError)):
                await engine.publish("orders", bad_payload)
        bad: dict[str, Any]
        for bad in (
            {"key": "\udcff"},
            {"key": 5},
            {"headers": {"a": "\udcff"}},
            {"headers": {1: "a"}},
            {"headers": ["a"]},
            {"priority": 2**64},
            {"priority": -1},
            {"priority": "high"},
            {"delay": Silent()},
            {"due_at": 2**80},
            {"dedup_id": None},
            {"id": 5},
        ):
            with pytest.raises((ValueError, TypeError, OverflowError, AttributeError)):
                await engine.publish("orders", "p", **bad)
        with pytest.raises((ValueError, TypeError, OverflowError)):
            await engine.dead_letters(count_max=2**80)
        assert (await engine.statistics()).published == 2


@asynchronous
async def test_bad_54_a_topic_that_is_there_but_otherwise_keeps_its_settings(store: Store) -> None:
    laid: Any = {"type": "log", "partition_count": 8, "retention": 3600}
    async with refusing(store) as bad:
        await bad.engine.declare_topic("laid", **laid)
        for other, words in (({"partition_count": 16}, ("laid", "8", "16")), ({"type": "queue"}, ("laid",))):
            await bad.refuses(
                lambda: bad.engine.declare_topic("laid", **{**laid, **other}),
                errors.TopologyMismatchError,
                *words,
            )
        await bad.engine.declare_topic("laid", **laid)


@pytest.mark.only("sqlite")
@asynchronous
async def test_bad_55_what_a_transaction_refuses_is_rolled_back_and_the_message_stays(store: Store) -> None:
    statements = (
        *("", "nonsense", "SELECT * FROM nowhere", "BEGIN", "COMMIT", "ROLLBACK", "PRAGMA synchronous = OFF"),
        *("ATTACH 'x' AS y", "DELETE FROM message", "UPDATE meta SET value = 0", "DROP TABLE message"),
        "SELECT ?1",
    )
    refused: list[str] = []

    async def handle(message: Message) -> None:
        for statement in statements:
            with pytest.raises(errors.InvalidArgumentError):
                message.transaction(lambda sql, text=statement: sql.execute(text) and None)
            refused.append(statement)
        with pytest.raises(errors.InvalidArgumentError):
            message.transaction(lambda sql: sql.execute("SELECT 1", [1]) and None)
        with pytest.raises(errors.InvalidTopicError):
            message.transaction(lambda sql: sql.publish("a.*", "p") and None)
        with pytest.raises(errors.InvalidKeyError):
            message.transaction(lambda sql: sql.complete("", "", "r"))
        message.ack()

    async with store.open() as engine:
        consumer = await engine.consume("orders", handle, **member(ack="manual"))
        await engine.publish("orders", "p")
        assert await eventually_async(lambda: consumer.statistics().acked == 1), "it was still unsettled"
    assert refused == list(statements)
