"""The chat of the examples, with real WebSocket clients and a server that is killed in between."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

from conftest import eventually
from served import Served, served
from websockets.sync.client import ClientConnection, connect

from towline import Engine

ROOM = "ann+bob"


def client(server: Served, user: str, name: str = "phone") -> ClientConnection:
    return connect(f"ws://127.0.0.1:{server.port}/chat?user={user}&client={name}")


def take(socket: ClientConnection, count: int) -> list[tuple[int, str]]:
    """So many messages; answers are passed over."""
    taken: list[tuple[int, str]] = []
    while len(taken) < count:
        one = json.loads(socket.recv(timeout=20))
        assert "error" not in one and "gap" not in one, one
        if "text" in one:
            taken.append((one["sequence"], one["text"]))
    return taken


def say(socket: ClientConnection, text: str, id: str | None = None) -> None:
    socket.send(json.dumps({"room": ROOM, "say": text, "id": id or str(uuid.uuid4())}))


def see(socket: ClientConnection, sequence: int) -> None:
    socket.send(json.dumps({"room": ROOM, "seen": sequence}))


def is_handed_out(folder: Path) -> bool:
    """Whether every copy was told to those who were there, also those that a killed server had in hand."""
    with Engine(f"sqlite:{folder}/chat.db") as engine:
        return all(one.waiting == one.in_flight == 0 for one in engine.backlog() if one.group == "chat")


def numbered(first: int, last: int) -> list[tuple[int, str]]:
    return [(number, f"text {number}") for number in range(first, last + 1)]


def test_a_client_that_was_away_gets_exactly_what_it_missed_though_the_server_is_killed(
    tmp_path: Path,
) -> None:
    said: dict[str, str] = {}
    with served("websocket_chat", tmp_path) as server, client(server, "ann") as ann:
        with client(server, "bob") as bob:
            for number in range(1, 6):
                say(ann, f"text {number}")
            assert take(bob, 5) == numbered(1, 5)
            see(bob, 3)
            # An answer to something later: what was seen is kept.
            bob.send(json.dumps({"room": "not+mine", "seen": 1}))
            assert json.loads(bob.recv(timeout=20))["error"] == "NOT_A_MEMBER"
        for number in range(6, 9):
            say(ann, f"text {number}")
        assert take(ann, 8) == numbered(1, 8)
        # Killed while it is at these: what was not answered is said again, under the same id.
        for number in range(9, 29):
            said[str(uuid.uuid4())] = f"text {number}"
            say(ann, f"text {number}", [*said][-1])
            if number == 12:
                take(ann, 1)
    with served("websocket_chat", tmp_path) as server:
        with client(server, "ann") as ann:
            for id, text in said.items():
                say(ann, text, id)
            with client(server, "bob") as bob:
                assert take(bob, 25) == numbered(4, 28)
            # A client that nobody knows yet begins with the first copy that is told to it, and those of the
            # killed server are told once more.
            assert eventually(lambda: is_handed_out(tmp_path))
            # Nothing of it was seen, so it comes again; what is seen does not.
            with client(server, "bob") as bob:
                assert take(bob, 25) == numbered(4, 28)
                see(bob, 28)
                with client(server, "bob", "desk") as desk:
                    # Answered: it is connected, and what comes is told to it.
                    desk.send(json.dumps({"room": "not+mine", "seen": 1}))
                    assert json.loads(desk.recv(timeout=20))["error"] == "NOT_A_MEMBER"
                    say(ann, "text 29")
                    assert take(bob, 1) == numbered(29, 29)
                    assert take(desk, 1) == numbered(29, 29)
    with served("websocket_chat", tmp_path) as server, client(server, "bob") as bob:
        assert take(bob, 1) == numbered(29, 29)
