"""What every conformance test stands on: the two checked-in lists, a fresh store of the provider, what
handlers saw, and processes to kill. Tests are named by their id: `test_conf_05_nak_now`.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from conftest import eventually_async

from towline import DeadLetter, Engine, Message, SyncEngine
from towline.testing import VirtualClock

TESTS = Path(__file__).resolve().parents[2]
LISTS = TESTS / "conformance"
PROVIDERS = ("memory", "sqlite")
LANGUAGE = "python"

# A lease short enough to be waited for, and long enough to be renewed on a busy machine.
LEASE = 0.45


# ---- the two lists --------------------------------------------------------------------------------------


class Skip(NamedTuple):
    id: str
    provider: str
    language: str
    reason: str

    def is_about(self, id: str, provider: str) -> bool:
        return (
            self.id == id and self.provider in (provider, "*") and self.language in (LANGUAGE, "*")
        )


def rows(name: str) -> list[list[str]]:
    lines = (LISTS / name).read_text().splitlines()
    return [
        [field.strip() for field in line.split("|")] for line in lines if line and not line.startswith("#")
    ]


SCENARIOS = {id: name for id, name, *_ in rows("scenarios.txt")}
SKIPS = [Skip(*row) for row in rows("capabilities.txt")]


def skip_reason(id: str, provider: str) -> str | None:
    """Why the table passes over the scenario here; None: it does not."""
    return next((skip.reason for skip in SKIPS if skip.is_about(id, provider)), None)


def id_of_test(name: str) -> str | None:
    """"CONF-05" of test_conf_05_nak_now, None of any other name."""
    found = re.match(r"test_(conf|bad)_(\d\d+)_", name)
    return f"{found[1].upper()}-{found[2]}" if found else None


# ---- engines --------------------------------------------------------------------------------------------


class Store:
    """One test's store. In memory it is kept alive between engines by one of its own."""

    def __init__(self, provider: str, folder: Path) -> None:
        self.provider = provider
        self.folder = folder
        self.url = f"memory:{folder.name}" if provider == "memory" else f"sqlite:{folder}/store.db"
        self._keeper: SyncEngine | None = None

    @property
    def path(self) -> Path:
        """Of the file of a `sqlite:` store."""
        return self.folder / "store.db"

    def keep(self) -> None:
        if self.provider == "memory" and self._keeper is None:
            self._keeper = Engine(self.url, sweep_interval=0.05).__enter__()

    def let_go(self) -> None:
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None

    @asynccontextmanager
    async def open(self, **options: Any) -> AsyncIterator[Engine]:
        """An engine that sweeps often and whose lease outlives the test, so that whatever is handled twice
        is a fault."""
        if "clock" not in options:
            self.keep()
        async with Engine(
            self.url, **{"lease": 60, "sweep_interval": 0.05, "drain_timeout": 5, **options}
        ) as engine:
            yield engine

    def child(self, mode: str, *more: str) -> Child:
        """A process that works on this store; see child.py."""
        return Child(mode, self.url, self.ledger, *more)

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.folder / "ledger")

    @contextmanager
    def standing_still(self, sql: str = "SELECT 1") -> Iterator[list[list[Any]]]:
        """Another program has run the statement and holds the write lock, in a process of its own."""
        intruder_py = str(Path(__file__).with_name("intruder.py"))
        program = [sys.executable, intruder_py, str(self.path), sql]
        with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as intruder:
            assert intruder.stdin is not None and intruder.stdout is not None
            yield json.loads(intruder.stdout.readline())
            intruder.stdin.close()
            assert intruder.wait(30) == 0

    def run_sql(self, sql: str) -> list[list[Any]]:
        """Behind the engine's back. Bytes come as hexadecimal digits."""
        with self.standing_still(sql) as rows:
            return rows


class StoppedClock(VirtualClock):
    """Stands still at the machine's present time: to everybody else its engine is a process that stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped_at = time.monotonic()
        # Leases are told by the monotonic clock, whose virtual twin begins at an hour; due times are not.
        self.advance(self.stopped_at - 3600)
        self.step_wall((datetime.now(UTC) - self.now()).total_seconds())

    def catch_up(self) -> None:
        """It goes on, up to the machine's present time."""
        self.advance(time.monotonic() - self.stopped_at)
        self.stopped_at = time.monotonic()


def retrying(max_attempts: int = 3, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "fixed",
        "initial_delay": 0.02,
        "jitter": "none",
        "max_attempts": max_attempts,
        **changes,
    }


def member(group: str = "group", **changes: Any) -> Any:
    """Options of a group member: retries after 20 ms, three attempts, no breaker."""
    return {"group": group, "retry": retrying(), "breaker": {"enabled": False}, **changes}


async def publish_numbers(engine: Engine, topic: str, count: int, first: int = 0) -> None:
    receipts = await engine.publish_batch(
        [{"topic": topic, "payload": str(number)} for number in range(first, first + count)]
    )
    assert all(receipt.acked for receipt in receipts)


async def make_group(engine: Engine, topic: str, group: str = "group") -> None:
    """Makes the group known to the topic, with no member left behind."""
    await (await engine.consume(topic, lambda: None, **member(group))).close()


async def make_dead_letters(engine: Engine, topic: str, count: int, first: int = 0) -> None:
    before = len(await dead_letters(engine, topic))

    async def handle(message: Message) -> None:
        raise failure("MadeByTheTest")

    consumer = await engine.consume(topic, handle, **member(retry=retrying(1), concurrency=8))
    await publish_numbers(engine, topic, count, first)
    await reaches(engine, topic, before + count)
    await consumer.close()


async def reaches(engine: Engine, topic: str, count: int) -> list[DeadLetter]:
    """The dead letters of the topic, once they are so many."""
    deadline = time.monotonic() + 20
    while len(found := await dead_letters(engine, topic)) != count:
        assert time.monotonic() < deadline, f"{len(found)} dead letters, not {count}"
        await asyncio.sleep(0.005)  # sleeps: between two looks
    return found


async def dead_letters(engine: Engine, topic: str = "", **conditions: Any) -> list[DeadLetter]:
    """All pages."""
    found: list[DeadLetter] = []
    cursor = ""
    while True:
        page = await engine.dead_letters(topic=topic, count_max=1000, cursor=cursor, **conditions)
        found += page.items
        if not (cursor := page.cursor):
            return found


async def waiting(engine: Engine, topic: str, group: str = "group") -> int:
    return sum(
        one.waiting for one in await engine.backlog() if (one.topic, one.group) == (topic, group)
    )


async def in_flight(engine: Engine) -> int:
    return sum(one.in_flight for one in await engine.backlog())


async def becomes(condition: Callable[[], Awaitable[bool]], timeout: float = 20) -> bool:
    """`eventually_async` for a condition that must be awaited."""
    deadline = time.monotonic() + timeout
    while not await condition():
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(0.005)  # sleeps: between two looks
    return True


async def all_settled(engine: Engine, topic: str, group: str = "group") -> bool:
    async def nothing_left() -> bool:
        # One look: between two a lease may end, and what was in flight waits again.
        mine = [one for one in await engine.backlog() if (one.topic, one.group) == (topic, group)]
        return sum(one.waiting + one.in_flight for one in mine) == 0

    return await becomes(nothing_left)


async def holds(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition holds all the time."""
    return not await eventually_async(lambda: not condition(), seconds)


def failure(kind: str, text: str = "") -> Exception:
    """An exception of a class with this name: its error type."""
    made: Exception = type(kind, (Exception,), {})(text)
    return made


# ---- what handlers saw ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Handled:
    id: str
    topic: str
    group: str
    key: str | None
    partition: int
    payload: str
    attempt: int
    crashes: int
    redrives: int
    redelivered: bool
    at: datetime
    started: float


class Recorder:
    """A handler that notes what it is given, then does what `then` says."""

    def __init__(self, then: Callable[[Message], Awaitable[None] | None] | None = None) -> None:
        self.all: list[Handled] = []
        self._then = then

    async def __call__(self, message: Message) -> None:
        self.note(message)
        if self._then is not None and (more := self._then(message)) is not None:
            await more

    def note(self, message: Message) -> None:
        self.all.append(
            Handled(
                message.id,
                message.topic,
                message.group,
                message.key,
                message.partition,
                message.payload.decode(errors="replace"),
                message.attempt,
                message.crashes,
                message.redrives,
                message.redelivered,
                datetime.now(UTC),
                time.monotonic(),
            )
        )

    @property
    def count(self) -> int:
        return len(self.all)

    @property
    def payloads(self) -> list[str]:
        return [one.payload for one in self.all]

    @property
    def times(self) -> Counter[str]:
        """How often each payload was handled."""
        return Counter(self.payloads)

    async def reaches(self, count: int, timeout: float = 20) -> bool:
        return await eventually_async(lambda: self.count >= count, timeout)

    async def stays(self, count: int, seconds: float = 0.1) -> bool:
        return await holds(lambda: self.count == count, seconds)

    def waits(self) -> list[float]:
        """Seconds between the starts of the attempts of each message."""
        last: dict[str, float] = {}
        waits = []
        for one in self.all:
            if one.id in last:
                waits.append(one.started - last[one.id])
            last[one.id] = one.started
        return waits


class OrderWatch:
    """Watches handlers of an ordered group, several recorders' too. Payloads are "<key>/<number>", numbered
    from 0 in each key."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._running: Counter[object] = Counter()
        self._started: Counter[str] = Counter()

    @asynccontextmanager
    async def handling(self, message: Message, lane: object = None) -> AsyncIterator[None]:
        lane = message.key if lane is None else lane
        self._running[lane] += 1
        if self._running[lane] > 1:
            self.faults.append(f"two handlers of {lane} at once")
        key, _, number = message.payload.decode().rpartition("/")
        if int(number) > self._started[key]:
            self.faults.append(f"{key}/{number} started before an earlier message of its key")
        if int(number) < self._started[key] - 1:
            self.faults.append(f"{key}/{number} started again after a later message of its key")
        self._started[key] = max(self._started[key], int(number) + 1)
        try:
            yield
        finally:
            self._running[lane] -= 1


async def publish_keys(engine: Engine, topic: str, keys: int, numbers: Sequence[int]) -> None:
    receipts = await engine.publish_batch(
        [
            {"topic": topic, "payload": f"key-{key}/{number}", "key": f"key-{key}"}
            for number in numbers
            for key in range(keys)
        ]
    )
    assert all(receipt.acked for receipt in receipts)


# ---- other processes ------------------------------------------------------------------------------------


class Ledger:
    """Lines that processes append, each durable against their death."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, line: str) -> None:
        with open(self.path, "a") as out:
            out.write(line + "\n")

    @property
    def lines(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []

    def count(self, start: str) -> int:
        return sum(line.startswith(start) for line in self.lines)


class Child:
    """A process of child.py that has begun."""

    def __init__(self, mode: str, url: str, ledger: Ledger, *more: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("child.py")), mode, url, str(ledger.path), *more],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.read_line() == "ready", mode

    def read_line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    @property
    def status(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    async def wait(self, timeout: float = 20) -> int | None:
        """Its status, waited for."""
        await eventually_async(lambda: self.status is not None, timeout)
        if self.status is not None:
            self._close()
        return self.status

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._close()

    def _close(self) -> None:
        assert self._process.stdout is not None
        self._process.stdout.close()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))
