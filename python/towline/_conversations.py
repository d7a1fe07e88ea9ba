"""The conversations of an engine. scripts/generate makes the synchronous twin (_sync_conversations.py) of it
by leaving out every `async` and `await`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from towline import _payload, errors, records
from towline._arguments import names_arguments
from towline.records import (
    AppendedMessage,
    CatchUp,
    ConversationGap,
    ConversationMessage,
    ConversationPage,
    MissedConversation,
    Page,
)

if TYPE_CHECKING:
    from towline._engine import Engine

FEED_COUNT_MAX = 10_000


class ConversationFeed:
    """What one client gets, of everything that comes on any path: each message once, and in order. A message
    that is not the next is no error: one that was given before is passed over, and what lies between is read
    from the store first. So what `reconnect` found and what comes live can both be offered.

    It begins a conversation behind the position of its client; without one behind what the user missed; and
    where nothing is known of either, with the first message that is offered. It remembers one number for each
    of at most 10,000 conversations. Calls come one after the other; hand on the answers in their order. What
    a call that was cancelled would have given comes with the next one. Made by
    `engine.conversations.feed`."""

    def __init__(self, engine: Engine, user: str, client: str) -> None:
        self._engine = engine
        self._user = records.text("user", user)
        self._client = records.text("client", client)
        self._given: dict[str, int] = {}
        self._asking = asyncio.Lock()

    async def offer(self, message: ConversationMessage, *, count_max: int = 100) -> ConversationPage:
        """What the client is to get now: empty when it had this message. At most `count_max` (1 to 10000)
        messages come at once; while not `end`, ask for more with `next`. After an error nothing counts as
        given: offer the message again. Raises `InvalidArgumentError` (no such message),
        `LimitExceededError` (conversations)."""
        if not isinstance(message, ConversationMessage):
            raise errors.InvalidArgumentError(
                f"message is {records.shown(message)}, but must be a ConversationMessage"
            )
        records.place("count_max", count_max)
        if message.sequence == 0:
            raise errors.InvalidArgumentError("sequence is 0, but messages are numbered from 1")
        self._engine._check()
        async with self._asking:
            self._engine._check()
            given = self._given.get(message.conversation)
            if given is not None and message.sequence <= given:
                return ConversationPage([], True, None)
            if given is not None and message.sequence == given + 1:
                self._given[message.conversation] = message.sequence
                return ConversationPage([message], True, None)
            page = await self._ask(message.conversation, message.sequence, given, count_max)
        # The native half was given the number of the message alone.
        page.messages[:] = [message if one.sequence == message.sequence else one for one in page.messages]
        return page

    async def next(self, conversation: str, *, count_max: int = 100) -> ConversationPage:
        """What is in the store behind what was given of a conversation. Raises as `offer`."""
        records.place("count_max", count_max)
        async with self._asking:
            return await self._ask(conversation, 0, self._given.get(conversation), count_max)

    def begin(self, conversation: str, sequence: int) -> None:
        """The client has everything up to this sequence, so it gets what is behind it. It moves only
        forward. Raises `LimitExceededError`."""
        records.place("sequence", sequence)
        self._remember(conversation, max(sequence, self._given.get(conversation, 0)))

    def given(self, conversation: str) -> int | None:
        """The last sequence that was given of a conversation; None: nothing is known of it yet."""
        return self._given.get(conversation)

    def _remember(self, conversation: str, sequence: int) -> None:
        if conversation not in self._given and len(self._given) >= FEED_COUNT_MAX:
            raise errors.LimitExceededError(
                f"the feed has {FEED_COUNT_MAX} conversations, and has no room for another; serve the client "
                "with several feeds"
            )
        self._given[conversation] = sequence

    async def _ask(
        self, conversation: str, sequence: int, given: int | None, count_max: int
    ) -> ConversationPage:
        raw, now = await self._engine._call(
            "ask_feed", self._user, self._client, conversation, sequence, given, count_max
        )
        if now is not None:
            self._remember(conversation, now)
        return records.conversation_page(raw)


@names_arguments
class Conversations:
    """The conversations of an engine: `engine.conversations`. A conversation is made by its first message;
    its messages have the sequences 1, 2, 3, ... without gaps. A copy of each goes to one topic (the option
    `conversations={"fanout_topic": ...}`), which the processes that serve clients consume; what a client has
    read is kept as a position. The names of conversations, users and clients have 1 to 255 bytes of visible
    ASCII; another one raises `InvalidNameError`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def append(
        self,
        conversation: str,
        sender: str,
        payload: Any,
        *,
        headers: Mapping[str, str] | None = None,
        content_type: str | None = None,
        id: str | None = None,
    ) -> AppendedMessage:
        """Numbers the message, keeps it, and fans it out, all or nothing. `payload` as that of a message.
        `id`: appending it again under its id changes nothing, so an append whose outcome is unknown may be
        repeated; None: a new one. The copy has the id of the message, the conversation as its key, and is
        read with `ConversationMessage.of`. Raises `InvalidIdError`, `InvalidHeaderError`,
        `PayloadTooLargeError`, `StorageFullError`."""
        data, known_type = _payload.encode(payload)
        given_type = known_type if content_type is None else content_type
        fields = (sender, data, given_type, dict(headers or {}), id)
        return AppendedMessage(*await self._engine._call("append_message", conversation, fields))

    async def messages_since(
        self, conversation: str, after: int | str = 0, *, count_max: int = 100
    ) -> ConversationPage:
        """Messages behind a sequence, or behind the message with an id; it is not included. 0: from the
        beginning. `count_max` 1 to 10000; less come when their payloads pass 4 MiB. Where something between
        was trimmed `gap` says so. Raises `InvalidArgumentError` (the conversation has not come that far),
        `NotFoundError` (no message has this id, and nothing was trimmed), `InvalidIdError`."""
        records.place("count_max", count_max)
        if isinstance(after, str):
            raw = await self._engine._call("messages_since_id", conversation, after, count_max)
        else:
            records.place("after", after)
            raw = await self._engine._call("messages_since", conversation, after, count_max)
        return records.conversation_page(raw)

    async def find(self, conversation: str) -> ConversationGap | None:
        """The sequences there are; None: no such conversation."""
        raw = await self._engine._call("find_conversation", conversation)
        return None if raw is None else ConversationGap(*raw)

    async def acknowledge(self, user: str, client: str, conversation: str, sequence: int) -> None:
        """The client has seen everything up to this sequence, which is kept for 30 days
        (`client_expiry`). It moves only forward. What the user missed up to here is not counted as missed any
        more. Raises `InvalidArgumentError` (0, or there is no such message yet)."""
        records.place("sequence", sequence)
        await self._engine._call("acknowledge_message", user, client, conversation, sequence)

    async def position(self, user: str, client: str, conversation: str) -> int | None:
        """The last sequence that was acknowledged; None: none, or it expired."""
        found: int | None = await self._engine._call("client_position", user, client, conversation)
        return found

    async def note_missed(self, user: str, conversation: str, sequence: int) -> None:
        """Counts a message that came while no client of the user was there. It counts once, however often it
        is noted; out of order it does so within 64 of the last. Raises `InvalidArgumentError`."""
        records.place("sequence", sequence)
        await self._engine._call("note_missed", user, conversation, sequence)

    async def missed(self, user: str, *, count_max: int = 100, cursor: str = "") -> Page[MissedConversation]:
        """By conversation; gone 24 hours (`missed_expiry`) after the last message was noted. `count_max` 1
        to 1000."""
        records.place("count_max", count_max)
        items, cursor = await self._engine._call("missed_messages", user, count_max, cursor)
        return Page([MissedConversation(*one) for one in items], cursor)

    async def reconnect(
        self, user: str, client: str, *, count_max: int = 100, cursor: str = ""
    ) -> Page[CatchUp]:
        """What a client missed: of conversations that it has a position in, what is behind it; of others
        where its user missed something, from the first of it on. By conversation, at most `count_max` (1 to
        10000) messages; with a cursor, call again with it for what follows (a page may be empty and have
        one). What is returned is not counted as missed any more. Until it is acknowledged a reconnect gives
        it again. Raises `InvalidCursorError`."""
        records.place("count_max", count_max)
        items, cursor = await self._engine._call("reconnect_client", user, client, count_max, cursor)
        return Page([records.catch_up(one) for one in items], cursor)

    def feed(self, user: str, client: str) -> ConversationFeed:
        """For one connection of a client."""
        return ConversationFeed(self._engine, user, client)

    async def trim(self, conversation: str, before_sequence: int) -> None:
        """Removes messages before a sequence, whether they were read or not; the newest one stays. Raises
        `NotFoundError`."""
        records.place("before_sequence", before_sequence)
        await self._engine._call("trim_conversation", conversation, before_sequence)
