"""Conversations: numbered and fanned out once, read by clients that come and go, trimmed without a word left
out."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from conftest import asynchronous, eventually_async

from conformance.suite import Store, all_settled, becomes, make_group, member, waiting
from towline import ConversationMessage, ConversationPage, Engine, Message, SyncConversationFeed, errors
from towline.testing import VirtualClock

ID = "018f0000-0000-7000-8000-0000000000"


async def say(engine: Engine, count: int, room: str = "room") -> None:
    for number in range(count):
        await engine.conversations.append(room, "ann", str(number + 1))


def sequences(messages: list[ConversationMessage]) -> list[int]:
    return [one.sequence for one in messages]


def noting(copies: list[ConversationMessage]) -> Callable[[Message], Awaitable[None]]:
    async def note(message: Message) -> None:
        copies.append(ConversationMessage.of(message))

    return note


async def missed_count(engine: Engine, user: str) -> int:
    return sum(one.count for one in (await engine.conversations.missed(user)).items)


@asynchronous
async def test_conf_98_eight_writers_get_sequences_without_gaps_and_a_fan_out_in_order(store: Store) -> None:
    copies: defaultdict[str, list[int]] = defaultdict(list)

    async def handle(message: Message) -> None:
        copy = ConversationMessage.of(message)
        assert copy.sender == "ann" and copy.value == "hello" and copy.headers == {}
        copies[copy.conversation].append(copy.sequence)

    async def write(engine: Engine) -> None:
        for number in range(26):
            await engine.conversations.append(("room", "hall")[number % 2], "ann", "hello")

    async with store.open() as first, store.open() as second:
        await second.consume("conversations", handle, **member("service", ordering="key"))
        await asyncio.gather(*(write((first, second)[writer % 2]) for writer in range(8)))
        assert await eventually_async(lambda: sum(map(len, copies.values())) == 8 * 26)
        assert await all_settled(first, "conversations", "service")
        page = await first.conversations.messages_since("room", count_max=1000)
    assert copies == {"room": [*range(1, 105)], "hall": [*range(1, 105)]}
    assert sequences(page.messages) == [*range(1, 105)] and page.end and page.gap is None


@asynchronous
async def test_conf_98_an_append_can_be_repeated_and_is_fanned_out_once(store: Store) -> None:
    copies: list[ConversationMessage] = []
    async with store.open() as engine:
        await make_group(engine, "conversations", "service")
        for time in range(3):
            appended = await engine.conversations.append(
                "room", "ann", {"n": 1}, id=ID + "01", headers={"mood": "ü"}
            )
            assert (appended.sequence, appended.id, appended.duplicate) == (1, ID + "01", time > 0)
        assert await waiting(engine, "conversations", "service") == 1
        await engine.consume("conversations", noting(copies), **member("service"))
        assert await eventually_async(lambda: len(copies) == 1)
        page = await engine.conversations.messages_since("room")
    assert page.messages == copies
    one = copies[0]
    assert (one.conversation, one.sequence, one.id, one.sender) == ("room", 1, ID + "01", "ann")
    assert (one.value, one.headers, one.content_type) == ({"n": 1}, {"mood": "ü"}, "application/json")
    assert one.sent_at.tzinfo is not None


@asynchronous
async def test_conf_99_pages_are_exclusive_and_what_was_trimmed_is_a_gap(store: Store) -> None:
    async with store.open() as engine:
        talk = engine.conversations
        for number in range(1, 10):
            await talk.append("room", "ann", str(number), id=f"{ID}0{number}")
        read: list[int] = []
        while True:
            page = await talk.messages_since("room", read[-1] if read else 0, count_max=4)
            assert page.gap is None
            read += sequences(page.messages)
            if page.end:
                break
        assert read == [*range(1, 10)]
        assert sequences((await talk.messages_since("room", ID + "07")).messages) == [8, 9]
        with pytest.raises(errors.NotFoundError):
            await talk.messages_since("room", ID + "33")
        await talk.trim("room", 5)
        for after in (3, ID + "03"):
            page = await talk.messages_since("room", after)
            assert page.gap is not None and (page.gap.oldest, page.gap.newest) == (5, 9)
            assert sequences(page.messages) == [5, 6, 7, 8, 9]
        assert (await talk.messages_since("room", 4)).gap is None
        assert (await talk.append("room", "ann", "more")).sequence == 10


@asynchronous
async def test_conf_100_a_client_that_was_away_gets_exactly_what_it_missed_over_two_lives(
    store: Store,
) -> None:
    store.keep()
    async with store.open() as engine:
        talk = engine.conversations
        await say(engine, 5)
        await say(engine, 3, "hall")
        await talk.acknowledge("bob", "phone", "room", 2)
        for sequence in (2, 3, 3):
            await talk.note_missed("bob", "hall", sequence)
        missed = (await talk.missed("bob")).items
        assert [(one.conversation, one.count, one.first_sequence, one.last_sequence) for one in missed] == [
            ("hall", 2, 2, 3)
        ]
        await talk.reconnect("bob", "phone")
        assert await missed_count(engine, "bob") == 0
    async with store.open() as engine:
        talk = engine.conversations
        page = await talk.reconnect("bob", "phone", count_max=3)
        assert [(one.conversation, sequences(one.messages), one.end) for one in page.items] == [
            ("hall", [2, 3], True),
            ("room", [3], False),
        ]
        page = await talk.reconnect("bob", "phone", cursor=page.cursor)
        assert [(one.conversation, sequences(one.messages)) for one in page.items] == [("room", [4, 5])]
        assert page.cursor == ""
        await talk.acknowledge("bob", "phone", "hall", 3)
        await talk.acknowledge("bob", "phone", "room", 3)
        await talk.trim("room", 5)
        page = await talk.reconnect("bob", "phone")
        assert [sequences(one.messages) for one in page.items] == [[5]]
        gap = page.items[0].gap
        assert gap is not None and (gap.oldest, gap.newest) == (5, 5)
        assert (await talk.reconnect("bob", "desk")).items == []


@asynchronous
async def test_conf_101_positions_only_move_forward_and_expire(store: Store) -> None:
    clock = VirtualClock()
    options: dict[str, Any] = {"clock": clock, "conversations": {"client_expiry": 3600}}
    async with store.open(**options) as first, store.open(**options) as second:
        await say(first, 100)
        wanted = [1 + (number * 37) % 100 for number in range(60)]

        async def write(engine: Engine, mine: list[int]) -> None:
            before = 0
            for sequence in mine:
                await engine.conversations.acknowledge("bob", "phone", "room", sequence)
                now = await engine.conversations.position("bob", "phone", "room")
                assert now is not None and now >= before
                before = now

        await asyncio.gather(write(first, wanted[::2]), write(second, wanted[1::2]))
        assert await first.conversations.position("bob", "phone", "room") == max(wanted)
        clock.advance(3600)
        assert await first.conversations.position("bob", "phone", "room") is None


@asynchronous
async def test_conf_101_what_was_missed_is_forgotten_in_its_time(store: Store) -> None:
    clock = VirtualClock()
    async with store.open(clock=clock, conversations={"missed_expiry": 3600}) as engine:
        talk = engine.conversations
        await say(engine, 3)
        await talk.acknowledge("bob", "phone", "room", 1)
        await talk.note_missed("bob", "room", 3)
        clock.advance(3540)
        assert [one.conversation for one in (await talk.missed("bob")).items] == ["room"]
        clock.advance(120)
        assert (await talk.missed("bob")).items == []
        assert await talk.position("bob", "phone", "room") == 1, "it has its own time"


@asynchronous
async def test_conf_102_the_live_and_the_durable_path_give_each_message_once(store: Store) -> None:
    got: list[int] = []
    async with store.open() as engine:
        talk = engine.conversations
        await say(engine, 20)
        await talk.acknowledge("bob", "phone", "room", 5)
        feed = talk.feed("bob", "phone")
        assert feed.given("room") is None
        giving = asyncio.Lock()

        async def give(message: ConversationMessage) -> None:
            async with giving:
                page = await feed.offer(message, count_max=3)
                while True:
                    assert [one.value for one in page.messages] and page.gap is None or not page.messages
                    got.extend(sequences(page.messages))
                    if page.end:
                        break
                    page = await feed.next("room", count_max=3)

        async def live(message: Message) -> None:
            await give(ConversationMessage.of(message))

        await engine.consume("conversations", live, **member(""))

        async def catch_up() -> None:
            for _ in range(5):
                for one in (await talk.reconnect("bob", "phone", count_max=1000)).items:
                    for message in one.messages:
                        await give(message)

        await asyncio.gather(say(engine, 60), catch_up())
        assert await eventually_async(lambda: len(got) >= 75)
        await engine.settle_down()
        assert feed.given("room") == 80
    assert got == [*range(6, 81)]


@asynchronous
async def test_conf_102_an_offer_that_is_cancelled_gives_its_messages_with_the_next(store: Store) -> None:
    async with store.open() as engine:
        talk = engine.conversations
        await say(engine, 1)
        feed = talk.feed("bob", "phone")
        feed.begin("room", 1)
        got: list[int] = []
        for number in range(20):
            await say(engine, 2)
            newest = (await talk.messages_since("room", 2 * number + 2)).messages[0]
            asked = asyncio.ensure_future(feed.offer(newest))
            for _ in range(number % 5):
                await asyncio.sleep(0)  # sleeps: to cancel at another moment
            asked.cancel()
            await asyncio.wait([asked])
            if not asked.cancelled():
                got += sequences(asked.result().messages)
            got += sequences((await feed.offer(newest)).messages)
        assert got == [*range(2, 42)]


@asynchronous
async def test_conf_102_a_hole_in_the_live_path_is_filled_without_an_event_loop(store: Store) -> None:
    def work() -> list[ConversationPage]:
        store.keep()
        with Engine(store.url) as engine:
            talk = engine.conversations
            for number in range(6):
                talk.append("room", "ann", str(number))
            messages = talk.messages_since("room").messages
            talk.acknowledge("bob", "phone", "room", 1)
            assert talk.position("bob", "phone", "room") == 1
            feed = talk.feed("bob", "phone")
            assert isinstance(feed, SyncConversationFeed)
            pages = [feed.offer(messages[1]), feed.offer(messages[4], count_max=2), feed.next("room")]
            assert feed.offer(messages[2]).messages == []
            assert pages[2].messages == messages[4:]
            engine.close()
            with pytest.raises(errors.ClosedError):
                feed.offer(messages[5])
            return pages

    pages = await asyncio.to_thread(work)
    assert [(sequences(page.messages), page.end) for page in pages] == [
        ([2], True),
        ([3, 4], False),
        ([5, 6], True),
    ]


@asynchronous
async def test_conf_103_trimming_keeps_the_newest_and_takes_nothing_from_a_group(store: Store) -> None:
    async with store.open(conversations={"count_max": 10}) as engine:
        await make_group(engine, "conversations", "service")
        await say(engine, 100)
        extent = await engine.conversations.find("room")
        assert extent is not None and extent.newest == 100 and 90 <= extent.oldest <= 91
        assert await engine.conversations.find("hall") is None
        copies: list[ConversationMessage] = []
        await engine.consume("conversations", noting(copies), **member("service"))
        assert await eventually_async(lambda: len(copies) == 100)


@asynchronous
async def test_conf_103_trimming_by_bytes_keeps_the_newest(store: Store) -> None:
    async with store.open(conversations={"bytes_max": 1000}) as engine:
        for _ in range(20):
            await engine.conversations.append("room", "ann", "x" * 200)
        page = await engine.conversations.messages_since("room")
        assert 1 <= len(page.messages) <= 5 and page.messages[-1].sequence == 20
        assert page.gap is not None and page.gap.oldest == page.messages[0].sequence


@asynchronous
async def test_conf_103_what_is_old_goes_from_quiet_conversations_unless_it_is_unread(store: Store) -> None:
    clock = VirtualClock()
    async with store.open(
        clock=clock, sweep_interval=0.05, conversations={"age_max": 3600, "keep_unread": True}
    ) as engine:
        await say(engine, 5, "quiet")
        await say(engine, 5, "unread")
        await engine.conversations.acknowledge("bob", "phone", "unread", 2)
        clock.advance(7200)

        async def is_trimmed() -> bool:
            clock.advance(1)
            quiet = await engine.conversations.find("quiet")
            unread = await engine.conversations.find("unread")
            return quiet is not None and quiet.oldest == 5 and unread is not None and unread.oldest == 3

        assert await becomes(is_trimmed)
        page = await engine.conversations.reconnect("bob", "phone")
        assert [(sequences(one.messages), one.gap) for one in page.items] == [([3, 4, 5], None)]


@asynchronous
async def test_bad_56_what_no_conversation_can_have(store: Store) -> None:
    async with store.open() as engine:
        talk = engine.conversations
        await say(engine, 2)
        message = (await talk.messages_since("room")).messages[0]
        named: list[Callable[[str], Awaitable[Any]]] = [
            lambda name: talk.append(name, "ann", "x"),
            lambda name: talk.append("room", name, "x"),
            lambda name: talk.messages_since(name),
            lambda name: talk.acknowledge(name, "phone", "room", 1),
            lambda name: talk.acknowledge("bob", name, "room", 1),
            lambda name: talk.acknowledge("bob", "phone", name, 1),
            lambda name: talk.note_missed(name, "room", 1),
            lambda name: talk.missed(name),
            lambda name: talk.reconnect(name, "phone"),
            lambda name: talk.feed("bob", name).offer(message),
        ]
        for call in named:
            for name in ("", "a b", "a\n", "ü", "a" * 256):
                with pytest.raises(errors.InvalidNameError):
                    await call(name)
            with pytest.raises(errors.InvalidArgumentError):
                await call(7)  # type: ignore[arg-type]
        numbered: list[Callable[[int], Awaitable[Any]]] = [
            lambda number: talk.acknowledge("bob", "phone", "room", number),
            lambda number: talk.note_missed("bob", "room", number),
            lambda number: talk.messages_since("room", number or 3),
        ]
        for ask in numbered:
            for number in (0, 3, 2**64 - 1, -1, 2**64, 10**1000):
                with pytest.raises(errors.InvalidArgumentError) as refused:
                    await ask(number)
                assert len(refused.value.message) < 200
            for wrong in (1.5, True, b"1"):
                with pytest.raises(errors.InvalidArgumentError):
                    await ask(wrong)  # type: ignore[arg-type]
        with pytest.raises(errors.InvalidIdError):
            await talk.messages_since("room", "no id")
        for count_max in (0, 10_001, 2**64 - 1):
            with pytest.raises(errors.InvalidArgumentError):
                await talk.messages_since("room", count_max=count_max)
            with pytest.raises(errors.InvalidArgumentError):
                await talk.reconnect("bob", "phone", count_max=count_max)
        with pytest.raises(errors.InvalidCursorError):
            await talk.reconnect("bob", "phone", cursor="no cursor")
        with pytest.raises(errors.NotFoundError):
            await talk.trim("nowhere", 1)
        with pytest.raises(errors.InvalidArgumentError):
            await talk.feed("bob", "phone").offer("hello")  # type: ignore[arg-type]
        await talk.trim("room", 2**64 - 1)
        assert sequences((await talk.messages_since("room")).messages) == [2]
        assert await talk.position("bob", "phone", "room") is None
        assert await missed_count(engine, "bob") == 0
    with pytest.raises(errors.InvalidTopicError):
        async with store.open(conversations={"fanout_topic": "a..b"}):
            pass
