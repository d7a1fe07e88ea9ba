"""A chat over WebSockets, on one SQLite file: whoever was away gets exactly what was missed.

    STORE=sqlite:chat.db uvicorn websocket_chat:app

A client connects to /chat?user=ann&client=phone and sends JSON.
{"room": "ann+bob", "say": "hello", "id": a UUID} is answered by {"room", "said", "sequence"}; sent again
under the same id it is the same message.
{"room": "ann+bob", "seen": 7}: everything up to 7 was shown, and does not come again. It gets
{"room", "sequence", "sender", "text"}, each message once per connection and in order, and
{"room", "gap": [oldest, newest]} where older ones were trimmed. The name of a room is those of its members.

The process may be killed at any moment: what was answered is kept, and what was not seen comes again. What
a killed one had in hand is told again, in order, so a client that was never there before begins with it.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from towline import ConversationMessage, ConversationPage, Engine, Message, TowlineError

# `lease`: so long after a process was killed its part of the fan-out waits.
engine = Engine(os.environ.get("STORE", "sqlite:chat.db"), lease=2)
talk = engine.conversations


class Connection:
    """One client. It keeps no more than the newest message of each room: the feed reads what lies between."""

    def __init__(self, socket: WebSocket, user: str, client: str) -> None:
        self.socket, self.user, self.client = socket, user, client
        self.feed = talk.feed(user, client)
        self.newest: dict[str, ConversationMessage] = {}
        self.news = asyncio.Event()

    def tell(self, message: ConversationMessage) -> None:
        self.newest[message.conversation] = message
        self.news.set()

    async def send_all(self) -> None:
        """First what was missed, then what comes; the feed knows what this client was given."""
        cursor, more = "", True
        while more:
            missed = await talk.reconnect(self.user, self.client, cursor=cursor)
            for one in missed.items:
                for message in one.messages:
                    await self.send(one.conversation, await self.feed.offer(message))
            cursor, more = missed.cursor, missed.cursor != ""
        while await self.news.wait():
            self.news.clear()
            while self.newest:
                room, message = self.newest.popitem()
                await self.send(room, await self.feed.offer(message))

    async def send(self, room: str, page: ConversationPage) -> None:
        while True:
            if page.gap is not None:
                await self.socket.send_json({"room": room, "gap": [page.gap.oldest, page.gap.newest]})
            for one in page.messages:
                await self.socket.send_json(
                    {"room": room, "sequence": one.sequence, "sender": one.sender, "text": one.value}
                )
            if page.end:
                return
            page = await self.feed.next(room)

    async def take(self, given: dict[str, Any]) -> dict[str, Any] | None:
        room = str(given.get("room"))
        if self.user not in room.split("+"):
            return {"room": room, "error": "NOT_A_MEMBER"}
        try:
            if "seen" in given:
                await talk.acknowledge(self.user, self.client, room, given["seen"])
                return None
            appended = await talk.append(room, self.user, str(given["say"]), id=given["id"])
            return {"room": room, "said": appended.id, "sequence": appended.sequence}
        except (TowlineError, TypeError, KeyError) as refused:
            return {"room": room, "error": getattr(refused, "code", "BAD_REQUEST")}


online: defaultdict[str, set[Connection]] = defaultdict(set)


# A group: what was not handled when the process died is handled by the next one.
@engine.consumer("conversations", group="chat", ordering="key")
async def deliver(message: Message) -> None:
    copy = ConversationMessage.of(message)
    for user in copy.conversation.split("+"):
        # Also if a client is there: it may be gone before it has seen it. Acknowledging takes it back.
        await talk.note_missed(user, copy.conversation, copy.sequence)
        for connection in online[user]:
            connection.tell(copy)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with engine:
        yield
    print("closed", flush=True)


app = FastAPI(lifespan=lifespan)


@app.websocket("/chat")
async def chat(socket: WebSocket, user: str, client: str) -> None:
    await socket.accept()
    connection = Connection(socket, user, client)
    # Before it asks for what was missed: from here on what comes is told to it.
    online[user].add(connection)
    sending = asyncio.ensure_future(connection.send_all())
    try:
        while True:
            if answer := await connection.take(await socket.receive_json()):
                await socket.send_json(answer)
    except (WebSocketDisconnect, RuntimeError):  # it has gone; the second where something is sent to it
        pass
    finally:
        online[user].discard(connection)
        sending.cancel()
        await asyncio.wait([sending])
