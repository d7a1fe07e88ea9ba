"""Dead letters: an entry keeps everything, listings page without gaps, a redrive moves each entry exactly
once, and the store of them stays bounded."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from conftest import asynchronous, eventually_async

from conformance.suite import (
    Recorder,
    Store,
    all_settled,
    becomes,
    dead_letters,
    failure,
    holds,
    make_dead_letters,
    make_group,
    member,
    publish_numbers,
    reaches,
    retrying,
    waiting,
)
from towline import Message, Reject, errors


@asynchronous
async def test_conf_35_an_entry_keeps_everything_that_is_known(store: Store) -> None:
    async def decline(message: Message) -> None:
        raise failure("CardDeclined", f"attempt {message.attempt}")

    fields: dict[str, Any] = {
        "key": "customer-9",
        "headers": {"tenant": "blue", "name": "Zoë"},
        "content_type": "text/plain",
    }
    before = datetime.now(UTC)
    async with store.open() as engine:
        await engine.consume("orders", decline, **member("billing"))
        receipt = await engine.publish("orders", b"order\0 7", **fields)
        (entry,) = await reaches(engine, "orders", 1)
        assert await engine.find_dead_letter(entry.id) == entry
    assert {name: getattr(entry, name) for name in fields} == fields
    assert (entry.message_id, entry.topic, entry.group) == (receipt.id, "orders", "billing")
    assert (entry.payload, entry.reason, entry.status) == (b"order\0 7", "exhausted", "pending")
    assert (entry.error_type, entry.error_message) == ("CardDeclined", "attempt 3")
    assert (entry.attempt, entry.crashes, entry.reprocess_count) == (3, 0, 0)
    assert len(entry.fingerprint) == 16 and "in decline" in entry.error_stack
    assert "attempt 1" in entry.metadata, "the history has the first failure"
    times = [before, entry.published_at, entry.first_failed_at, entry.last_failed_at, entry.created_at]
    assert times == sorted(times) and entry.created_at <= datetime.now(UTC)


@asynchronous
async def test_conf_35_an_entry_outlives_a_restart_and_is_found_by_every_filter(store: Store) -> None:
    async def fail(number: str) -> None:
        raise failure("First" if number == "1" else "Second", f"number {number} failed at 0xdeadbeef")

    async def reject() -> None:
        raise Reject("of no use")

    async with store.open() as engine:
        await engine.consume("orders", fail, **member("a"))
        await publish_numbers(engine, "orders", 3)
        await publish_numbers(engine, "orders", 1, 100)
        await engine.consume("others", reject, **member())
        await publish_numbers(engine, "others", 2)
        await reaches(engine, "orders", 4)
        await reaches(engine, "others", 2)
    async with store.open() as engine:

        async def count(**conditions: Any) -> int:
            return len((await engine.dead_letters(**conditions)).items)

        assert await count() == 6
        assert await count(topic="orders") == 4
        assert await count(group="a") == 4
        assert await count(error_type="First") == 1
        assert await count(text="number 100") == 1, "in the error message"
        assert await count(text="NUMBER") == 0, "byte for byte"
        assert await count(text="%") == 0, "no wildcards"
        assert await count(reason="manual") == 2
        assert await count(status="pending") == 6
        assert await count(status="resolved") == 0
        assert await count(topic="orders", error_type="Second") == 3
        latest = max(entry.created_at for entry in await dead_letters(engine))
        after = await count(created_from=latest)
        assert after >= 1
        assert after + await count(created_before=latest) == 6, "from is inclusive, before is exclusive"


@asynchronous
async def test_conf_35_entries_of_one_cause_share_a_fingerprint(store: Store) -> None:
    async def fail(number: str) -> None:
        if number == "9":
            raise failure("Other", "something else")
        raise failure("NotFound", f"no row {number}17 at 0x7ffd{number}")

    async with store.open() as engine:
        await engine.consume("orders", fail, **member())
        await publish_numbers(engine, "orders", 10)
        await reaches(engine, "orders", 10)
        groups = await engine.dead_letter_groups()
        assert {group.error_type: group.count for group in groups} == {"NotFound": 9, "Other": 1}
        for group in groups:
            assert group.topic == "orders" and group.first_at <= group.last_at
            assert len(await dead_letters(engine, fingerprint=group.fingerprint)) == group.count


@asynchronous
async def test_conf_35_without_keeping_the_original_only_the_facts_stay(store: Store) -> None:
    broken = True

    def fail(message: Message) -> None:
        if broken:
            raise failure("Broken")

    seen = Recorder(fail)
    async with store.open() as engine:
        await engine.consume("orders", seen, **member(dead_letters={"keep_original": False}))
        await engine.publish("orders", "secret", headers={"h": "v"})
        (entry,) = await reaches(engine, "orders", 1)
        assert (entry.payload, entry.headers, entry.error_type) == (b"", {}, "Broken")
        with pytest.raises(errors.TowlineError):
            await engine.redrive(entry.id)
        broken = False
        await engine.redrive(entry.id, payload="replaced")
        assert await eventually_async(lambda: seen.payloads[-1] == "replaced")


@asynchronous
async def test_conf_35_without_dead_letters_a_failure_is_discarded_and_counted(store: Store) -> None:
    async def fail() -> None:
        raise failure("Broken")

    async with store.open() as engine:
        consumer = await engine.consume("orders", fail, **member(dead_letters={"enabled": False}))
        await engine.publish("orders", "p")
        assert await eventually_async(lambda: consumer.statistics().discarded == 1)
        assert not await dead_letters(engine)
        assert await waiting(engine, "orders") == 0


@asynchronous
async def test_conf_39_paging_misses_nothing_and_shows_nothing_twice_while_entries_come(
    store: Store,
) -> None:
    async with store.open() as engine:
        await make_dead_letters(engine, "orders", 500)
        seen: list[str] = []
        cursor, pages = "", 0
        while True:
            page = await engine.dead_letters(topic="orders", count_max=70, cursor=cursor)
            assert len(page.items) <= 70
            seen += [entry.payload.decode() for entry in page.items]
            if pages % 4 == 1:
                await make_dead_letters(engine, "orders", 5, 10_000 + 5 * pages)
            pages += 1
            assert pages < 1000, "the listing does not end"
            if not (cursor := page.cursor):
                break
    assert len(seen) == len(set(seen))
    assert set(seen) >= {str(number) for number in range(500)}


@asynchronous
async def test_conf_39_a_cursor_goes_on_after_its_entry_is_gone(store: Store) -> None:
    async with store.open() as engine:
        await make_dead_letters(engine, "orders", 30)
        page = await engine.dead_letters(status="pending", count_max=10)
        # The last one of the page, where the cursor stands, leaves the listing.
        await engine.discard_dead_letter(page.items[-1].id)
        seen = [entry.payload for entry in page.items]
        while page.cursor:
            page = await engine.dead_letters(status="pending", count_max=10, cursor=page.cursor)
            seen += [entry.payload for entry in page.items]
    assert len(seen) == len(set(seen)) == 30


@asynchronous
async def test_conf_41_two_operators_redrive_the_same_entries_and_each_re_enters_once(store: Store) -> None:
    seen = Recorder()
    async with store.open() as engine, store.open() as other:
        await make_dead_letters(engine, "orders", 500)
        await engine.consume("orders", seen, **member())
        reports = await asyncio.gather(*(each.redrive_all(topic="orders") for each in (engine, other)))
        assert sum(report.redriven for report in reports) == 500
        assert await seen.reaches(500)
        assert await seen.stays(500, 0.2)
        assert {entry.status for entry in await dead_letters(engine, "orders")} == {"resolved"}
    assert len(seen.times) == 500
    assert {(one.attempt, one.redrives) for one in seen.all} == {(1, 1)}, "attempts start again"


@asynchronous
async def test_conf_41_a_redrive_reaches_only_the_group_that_failed(store: Store) -> None:
    broken = True

    def fail(message: Message) -> None:
        if broken:
            raise failure("Broken")

    failing, fine = Recorder(fail), Recorder()
    async with store.open() as engine:
        await engine.consume("orders", failing, **member("failing"))
        await engine.consume("orders", fine, **member("fine"))
        receipt = await engine.publish("orders", "p", key="k")
        (entry,) = await reaches(engine, "orders", 1)
        broken = False
        await engine.redrive(entry.id)
        assert await failing.reaches(4)
        assert (failing.all[3].id, failing.all[3].key) == (receipt.id, "k"), "the message id stays"
        assert await holds(lambda: fine.count == 1 and failing.count == 4, 0.2)
        await engine.settle_down()
        with pytest.raises(errors.ConflictError):
            await engine.redrive(entry.id)


@asynchronous
async def test_conf_41_a_redrive_can_be_tried_out_slowed_delayed_and_sent_elsewhere(store: Store) -> None:
    seen, elsewhere = Recorder(), Recorder()
    async with store.open() as engine:
        await make_dead_letters(engine, "orders", 10)
        report = await engine.redrive_all(topic="orders", dry_run=True)
        assert (report.matched, report.redriven) == (10, 0)
        assert (await engine.statistics()).dead_letters["pending"] == 10, "a dry run changes nothing"
        consumer = await engine.consume("orders", seen, **member())
        await engine.consume("repair", elsewhere, **member())
        begin = time.monotonic()
        report = await engine.redrive_all(topic="orders", rate_per_second=20, destination="repair")
        assert report.redriven == 10
        assert await elsewhere.reaches(10)
        assert time.monotonic() - begin >= 0.35, "10 entries at 20/s"
        assert seen.count == 0
        await consumer.close()
        await make_dead_letters(engine, "orders", 1, 50)
        await engine.consume("orders", seen, **member())
        begin = time.monotonic()
        assert (await engine.redrive_all(topic="orders", status="pending", delay=0.3)).redriven == 1
        assert await seen.reaches(1)
        assert time.monotonic() - begin >= 0.3


@asynchronous
async def test_conf_41_a_message_is_sent_back_only_so_often(store: Store) -> None:
    async def fail() -> None:
        raise failure("Broken")

    async with store.open() as engine:
        await engine.consume("orders", fail, **member(retry=retrying(1)))
        await engine.publish("orders", "p")
        for round in range(3):

            async def one_is_pending() -> bool:
                return len(await dead_letters(engine, status="pending")) == 1

            assert await becomes(one_is_pending)
            (entry,) = await dead_letters(engine, status="pending")
            assert entry.reprocess_count == round
            if round < 2:
                await engine.redrive(entry.id, redrive_max=2)
        with pytest.raises(errors.LimitExceededError):
            await engine.redrive(entry.id, redrive_max=2)
        assert (await engine.redrive_all(status="pending", redrive_max=2)).passed_over == 1


@asynchronous
async def test_conf_41_an_entry_is_redriven_automatically_when_its_policy_says_so(store: Store) -> None:
    def fail(message: Message) -> None:
        raise failure("Broken")

    seen = Recorder(fail)
    policy = {"redrive_after": 0.1, "redrive_max": 2}
    async with store.open() as engine:
        await engine.consume("orders", seen, **member(retry=retrying(1), dead_letters=policy))
        await engine.publish("orders", "p")
        assert await seen.reaches(3), "the first time and two redrives"
        assert await seen.stays(3, 0.4), "and no more"
        assert seen.all[2].redrives == 2


@asynchronous
async def test_conf_42_every_state_is_removed_by_age(store: Store) -> None:
    async with store.open() as engine:
        await make_dead_letters(engine, "orders", 10)
        entries = await dead_letters(engine, "orders")
        await engine.redrive(entries[0].id)
        await engine.discard_dead_letter(entries[1].id)
        assert len(await dead_letters(engine, "orders")) == 10, "kept until the clean-up"
    async with store.open(dead_letter_age_max=1) as engine:
        await reaches(engine, "orders", 0)
        statistics = await engine.statistics()
        assert set(statistics.dead_letters.values()) == {0}
        assert statistics.swept >= 10, "removals are counted"


@asynchronous
async def test_conf_42_beyond_the_count_limit_the_oldest_go(store: Store) -> None:
    async with store.open(dead_letter_count_max=20, sweep_interval=0.02) as engine:
        await make_dead_letters(engine, "first", 15)
        await make_dead_letters(engine, "second", 15)

        async def the_oldest_went() -> bool:
            return len(await dead_letters(engine, "first")) == 5

        assert await becomes(the_oldest_went)
        assert len(await dead_letters(engine, "second")) == 15


@asynchronous
async def test_conf_42_an_alert_starts_and_ends(store: Store) -> None:
    alerts: list[dict[str, Any]] = []
    policy: Any = {"depth_count": 3, "cooldown": 0}
    async with store.open(alert=policy) as engine:
        engine.on_alert(alerts.append)
        await make_dead_letters(engine, "orders", 5)
        assert await eventually_async(lambda: any(not one["recovered"] for one in alerts))
        assert not any(one["recovered"] for one in alerts)
        for entry in await dead_letters(engine):
            await engine.discard_dead_letter(entry.id)
        assert await eventually_async(lambda: any(one["recovered"] for one in alerts))


@asynchronous
async def test_conf_88_a_redrive_of_what_dies_again_at_once_ends(store: Store) -> None:
    def again(message: Message) -> None:
        raise Reject("again")

    seen = Recorder(again)
    async with store.open() as engine:
        await make_dead_letters(engine, "orders", 100)
        await engine.consume("orders", seen, **member(concurrency=4))
        # Slow enough that the first ones are back before the last ones are sent.
        report = await engine.redrive_all(topic="orders", redrive_max=1000, rate_per_second=300)
        assert report.redriven == 100, "only what was there when it began"
        assert await seen.reaches(100)
        await engine.settle_down()
        assert (await engine.statistics()).dead_letters["pending"] == 100
    assert seen.count == 100


@pytest.mark.only("sqlite")
@asynchronous
async def test_conf_40_a_redrive_that_is_killed_leaves_each_message_in_one_place(store: Store) -> None:
    seen = Recorder()
    async with store.open() as engine:
        await make_dead_letters(engine, "orders", 200)
        killed = 0
        for delay in (0, 0.001, 0.002, 0.004, 0.008):
            child = store.child("redrive")
            await asyncio.sleep(delay)  # sleeps: so long it works
            killed += child.status is None
            child.kill()
            resolved = (await engine.statistics()).dead_letters["resolved"]
            assert resolved == await waiting(engine, "orders"), "resolved, but not in the topic"
        assert killed, "no child was killed at work"

        async def all_resolved() -> bool:
            await engine.redrive_all(topic="orders")
            return (await engine.statistics()).dead_letters["resolved"] == 200

        assert await becomes(all_resolved), "one is stuck after its lease"
        await engine.consume("orders", seen, **member())
        assert await seen.reaches(200)
        assert await seen.stays(200, 0.2)
    assert len(seen.times) == 200


@pytest.mark.only("sqlite")
@asynchronous
async def test_conf_43_a_message_that_does_not_decode_is_a_dead_letter_and_the_consumer_goes_on(
    store: Store,
) -> None:
    seen = Recorder()
    async with store.open() as engine:
        await make_group(engine, "orders")
        for payload in ("damaged", "fine", "too"):
            await engine.publish("orders", payload, headers={"tenant": "blue"})
        store.run_sql(
            "UPDATE message SET extras = x'ff00ff00ff00ff00', payload = CASE WHEN count IS NULL THEN payload"
            " ELSE substr(payload, 1, 2) || x'ffffffffffffffffffff' || substr(payload, 13) END"
            " WHERE seq = (SELECT min(seq) FROM message, log, topic WHERE seq >> 40 = log.id"
            " AND log.topic_id = topic.id AND topic.name = 'orders') RETURNING seq"
        )
        await engine.consume("orders", seen, **member())
        assert await seen.reaches(2)
        (entry,) = await reaches(engine, "orders", 1)
        assert (entry.reason, entry.group) == ("decode", "group")
        assert entry.payload, "the raw bytes are kept"
        assert await all_settled(engine, "orders") and (await engine.health()).ok
    assert seen.times == {"fine": 1, "too": 1}


