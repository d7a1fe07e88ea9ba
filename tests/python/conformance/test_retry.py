"""Failing: what a failed handler costs, how long the next attempt waits, and which errors are worth none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from statistics import median

from conftest import asynchronous, eventually_async

from conformance.suite import (
    Recorder,
    Store,
    becomes,
    dead_letters,
    failure,
    holds,
    make_group,
    member,
    publish_numbers,
    reaches,
    retrying,
)
from towline import Defer, Message, errors


def fail(message: Message) -> None:
    raise failure("Broken", f"attempt {message.attempt}")


@asynchronous
async def test_conf_33_every_backoff_waits_as_its_formula_says(store: Store) -> None:
    policy = {"initial_delay": 0.02, "multiplier": 3, "delay_max": 0.2, "jitter": "none", "max_attempts": 6}
    cases: dict[str, list[int]] = {
        "fixed": [20, 20, 20, 20, 20],
        "linear": [20, 40, 60, 80, 100],
        "exponential": [20, 60, 180, 200, 200],
        "fibonacci": [20, 20, 40, 60, 100],
        "sequence": [5, 70, 30, 30, 30],
    }
    seen = {kind: Recorder(fail) for kind in cases}
    async with store.open() as engine:
        for kind, recorder in seen.items():
            more = {"sequence": [0.005, 0.07, 0.03]} if kind == "sequence" else {}
            await engine.consume("backoff", recorder, **member(kind, retry={"kind": kind, **policy, **more}))
        await engine.publish("backoff", "p")
        await reaches(engine, "backoff", len(cases))
    late: list[float] = []
    for kind, wanted in cases.items():
        waits = seen[kind].waits()
        assert len(waits) == len(wanted)
        late += [wait - ms / 1000 for wait, ms in zip(waits, wanted, strict=True)]
    # The engine's clock counts whole microseconds, which may be one less than this one's.
    assert min(late) >= -0.0001, "too early"
    assert median(late) <= 0.3


@asynchronous
async def test_conf_33_jitter_stays_within_its_bounds_and_varies(store: Store) -> None:
    def once(message: Message) -> None:
        if message.attempt == 1:
            raise failure("Flaky")

    bounds = {"proportional": (0.08, 0.12), "full": (0, 0.1), "equal": (0.05, 0.1)}
    seen = {jitter: Recorder(once) for jitter in bounds}
    async with store.open() as engine:
        for jitter, recorder in seen.items():
            retry = retrying(initial_delay=0.1, jitter=jitter, jitter_ratio=0.2)
            await engine.consume("jitter", recorder, **member(jitter, concurrency=8, retry=retry))
        await publish_numbers(engine, "jitter", 20)
        for jitter, (least, most) in bounds.items():
            assert await seen[jitter].reaches(40)
            waits = seen[jitter].waits()
            assert min(waits) >= least - 0.0001, jitter
            assert median(waits) <= most + 0.3, jitter
            assert max(waits) - min(waits) > 0.002, "does not vary"


@asynchronous
async def test_conf_33_many_attempts_with_huge_growth_do_not_overflow(store: Store) -> None:
    seen = Recorder(fail)
    retry = {
        "kind": "exponential",
        "initial_delay": 0.000_001,
        "delay_max": 0.000_001,
        "multiplier": 1000,
        "jitter": "none",
        "max_attempts": 100,
    }
    async with store.open() as engine:
        await engine.consume("backoff", seen, **member(retry=retry))
        await engine.publish("backoff", "p")
        await reaches(engine, "backoff", 1)
    assert [one.attempt for one in seen.all] == list(range(1, 101))


@asynchronous
async def test_conf_34_attempts_are_remembered_over_a_restart(store: Store) -> None:
    seen = Recorder(fail)
    slow = member(retry=retrying(initial_delay=0.3))
    async with store.open() as engine:
        consumer = await engine.consume("orders", seen, **slow)
        await engine.publish("orders", "p")
        assert await seen.reaches(2)
        await consumer.close()
    async with store.open() as engine:
        await engine.consume("orders", seen, **slow)
        (entry,) = await reaches(engine, "orders", 1)
    assert [one.attempt for one in seen.all] == [1, 2, 3] and entry.attempt == 3


@asynchronous
async def test_conf_38_a_permanent_error_is_a_dead_letter_at_once(store: Store) -> None:
    def fail_so(message: Message) -> None:
        raise failure(message.payload.decode(), "no")

    wanted = {
        "Permanent": ("permanent", 1),
        "SomeInvalidInput": ("permanent", 1),
        "Unwanted": ("permanent", 1),
        "PermanentlyOdd": ("exhausted", 3),
        "TimeoutTransient": ("exhausted", 3),
    }
    seen = Recorder(fail_so)
    options = member(
        classify={"permanent_types": ["Permanent"], "permanent_patterns": ["Invalid"]},
        dead_letters={"error_types": ["Unwanted"]},
    )
    async with store.open() as engine:
        await engine.consume("orders", seen, **options)
        for kind in wanted:
            await engine.publish("orders", kind)
        entries = await reaches(engine, "orders", len(wanted))
    assert {entry.error_type: (entry.reason, entry.attempt) for entry in entries} == wanted
    assert seen.times == {kind: attempts for kind, (_, attempts) in wanted.items()}


@asynchronous
async def test_conf_38_deferring_counts_nothing(store: Store) -> None:
    def defer(message: Message) -> None:
        if seen.count <= 5:
            raise Defer(0.03)

    seen = Recorder(defer)
    async with store.open() as engine:
        consumer = await engine.consume("orders", seen, **member())
        await engine.publish("orders", "p")
        assert await seen.reaches(6)
        await engine.settle_down()
        assert consumer.statistics().deferred == 5 and consumer.statistics().failed == 0
        assert not await dead_letters(engine)
    assert {one.attempt for one in seen.all} == {1}
    assert min(seen.waits()) >= 0.0299


@asynchronous
async def test_conf_70_whatever_is_raised_is_a_failed_attempt_and_the_engine_lives(store: Store) -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    class Base(BaseException):
        pass

    kinds: dict[str, Callable[[], BaseException]] = {
        "silent": Silent,
        "base": Base,
        "bytes": lambda: RuntimeError("\x1b[2J\r\n\udcff" + "x" * 100_000),
        "empty": lambda: RuntimeError(""),
        "own": lambda: errors.UnavailableError("elsewhere"),
        "memory": MemoryError,
        "group": lambda: ExceptionGroup("several", [ValueError("a"), ValueError("b")]),
        "stop": lambda: StopAsyncIteration(),
        "cancelled": lambda: asyncio.InvalidStateError("odd"),
    }

    def odd(message: Message) -> None:
        if (kind := message.payload.decode()) in kinds:
            raise kinds[kind]()

    seen = Recorder(odd)
    async with store.open() as engine:
        consumer = await engine.consume("odd", seen, **member(retry=retrying(2)))
        for kind in (*kinds, "fine"):
            await engine.publish("odd", kind)
        entries = await reaches(engine, "odd", len(kinds))
        assert (await engine.health()).ok
        assert await eventually_async(lambda: consumer.statistics().acked == 1)
    assert seen.times == {**dict.fromkeys(kinds, 2), "fine": 1}
    for entry in entries:
        assert entry.reason == "exhausted" and entry.error_type
        assert len(entry.error_message) < 70_000, "user text is capped"
        assert entry.payload != b"own" or "elsewhere" in entry.error_message


@asynchronous
async def test_conf_70_a_handler_that_settled_and_then_raises_keeps_its_settlement(store: Store) -> None:
    def settle_and_fail(message: Message) -> None:
        message.ack()
        raise failure("Late", "after the fact")

    seen = Recorder(settle_and_fail)
    async with store.open() as engine:
        consumer = await engine.consume("odd", seen, **member(ack="manual"))
        await engine.publish("odd", "p")
        assert await eventually_async(lambda: consumer.statistics().acked == 1)
        assert await seen.stays(1)
        assert not await dead_letters(engine)


@asynchronous
async def test_conf_76_a_failing_dependency_pauses_intake_and_uses_up_no_attempts(store: Store) -> None:
    down = True

    def call(message: Message) -> None:
        if down:
            raise failure("ConnectionRefused")

    seen = Recorder(call)
    breaker = {"enabled": True, "throughput_min": 10, "open": 0.3, "probe_count": 2}
    async with store.open() as engine:
        consumer = await engine.consume("orders", seen, **member(retry=retrying(100), breaker=breaker))
        await publish_numbers(engine, "orders", 200)
        assert await eventually_async(lambda: consumer.statistics().breaker_open)
        await asyncio.sleep(0.1)  # sleeps: what was in hand may still run
        before = seen.count
        assert before < 100, "the breaker opened late"
        await asyncio.sleep(0.7)  # sleeps: so long only probes go through
        assert seen.count - before <= 20
        down = False
        assert await eventually_async(lambda: consumer.statistics().acked == 200)
        assert not consumer.statistics().breaker_open
        assert not await dead_letters(engine)
    assert max(one.attempt for one in seen.all) <= 20


@asynchronous
async def test_conf_91_beyond_the_retry_budget_a_retry_waits_the_longest(store: Store) -> None:
    seen = Recorder(fail)
    retry = retrying(1000, initial_delay=0.001, delay_max=3600, budget_ratio=0.2)
    async with store.open() as engine:
        await engine.consume("orders", seen, **member(retry=retry))
        await publish_numbers(engine, "orders", 100)

        async def all_wait() -> bool:
            return (await engine.statistics()).scheduled_now == 100

        # Without a budget this would go on for ever.
        assert await becomes(all_wait)
        count = seen.count
        assert await holds(lambda: seen.count == count, 0.2)
        assert count <= 150, "more retries than a fifth of the deliveries"
        assert not await dead_letters(engine)


@asynchronous
async def test_conf_92_a_failed_message_that_is_too_old_is_not_retried(store: Store) -> None:
    seen = Recorder(fail)
    async with store.open() as engine:
        await make_group(engine, "orders")
        await engine.publish("orders", "old")
        await asyncio.sleep(0.15)  # sleeps: until it is old
        await engine.consume("orders", seen, **member(dead_letters={"age_max": 0.1}))
        (entry,) = await reaches(engine, "orders", 1)
    assert seen.count == 1 and entry.reason == "max_age"


@asynchronous
async def test_conf_73_a_message_whose_time_is_over_becomes_a_dead_letter(store: Store) -> None:
    seen = Recorder()
    async with store.open() as engine:
        await make_group(engine, "offers")
        await engine.publish("offers", "short", ttl=0.05)
        await engine.publish("offers", "long", ttl=3600)
        await engine.publish("offers", "delayed", ttl=2, delay=0.15)
        await asyncio.sleep(0.1)  # sleeps: until the first one's time is over
        consumer = await engine.consume("offers", seen, **member())
        (entry,) = await reaches(engine, "offers", 1)
        assert await seen.reaches(2)
        assert (entry.payload, entry.reason) == (b"short", "expired")
        assert consumer.statistics().expired == 1
    assert seen.times == {"long": 1, "delayed": 1}, "a delayed message's time begins when it is due"


@asynchronous
async def test_conf_78_acknowledged_first_a_message_is_handled_at_most_once(store: Store) -> None:
    seen = Recorder(fail)
    async with store.open() as engine:
        await engine.consume("orders", seen, **member(ack="first"))
        await publish_numbers(engine, "orders", 5)
        assert await seen.reaches(5)
        assert await seen.stays(5, 0.2)
        assert not await dead_letters(engine)


@asynchronous
async def test_conf_75_within_the_inbox_window_a_second_delivery_is_passed_over(store: Store) -> None:
    seen = Recorder()
    async with store.open() as engine:
        consumer = await engine.consume("orders", seen, **member(inbox_window=86_400))
        receipt = await engine.publish("orders", "p")
        await engine.settle_down()
        # The same message once more, as a producer does that does not know the outcome of its publish.
        await engine.publish("orders", "p", id=receipt.id)
        assert await eventually_async(lambda: consumer.statistics().duplicates == 1)
        assert seen.count == 1
        await engine.publish("orders", "new")
        assert await seen.reaches(2)


@asynchronous
async def test_conf_71_a_filter_takes_what_it_names_and_counts_the_rest(store: Store) -> None:
    some, everything = Recorder(), Recorder()
    messages: list[tuple[str, dict[str, str], int]] = [
        ("eu high", {"region": "eu"}, 9),
        ("eu low", {"region": "eu"}, 1),
        ("us high", {"region": "us"}, 9),
        ("none", {}, 9),
        ("vip", {"vip": ""}, 0),
    ]
    async with store.open() as engine:
        wanted = "region = 'eu' and $priority >= 5 or exists vip"
        filtered = await engine.consume("orders", some, **member("some", filter=wanted))
        await engine.consume("orders", everything, **member("all"))
        for name, headers, priority in messages:
            await engine.publish("orders", name, headers=headers, priority=priority)
        assert await everything.reaches(5) and await some.reaches(2)
        assert await eventually_async(lambda: filtered.statistics().filtered == 3)
    assert some.times == {"eu high": 1, "vip": 1}


