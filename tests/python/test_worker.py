"""The command `towline run`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import eventually

from towline import Engine, NewEvent, RecordedEvent, Saga, SagaCall
from towline.__main__ import shown_url
from towline._supervisor import how_it_ended

SHOP = """
from towline import Engine

engine = Engine("sqlite:store.db")


@engine.consumer("orders", group="g")
async def handle(order: str) -> None:
    with open("handled", "a") as out:
        out.write(order + "\\n")
"""

EVERYTHING = """
from towline import Choreography, Engine, RecordedEvent, Saga, SagaCall

engine = Engine("sqlite:store.db")
parcel = engine.saga(Choreography("parcel", begins_with="parcel.packed"))


@parcel.on("parcel.packed", on_success="parcel.sent")
def send(call: SagaCall) -> None:
    pass


order = engine.saga(Saga("order"))


@order.step("charge")
def charge(call: SagaCall) -> None:
    call.publish("charged", call.id)


@charge.compensate
def refund(call: SagaCall) -> None:
    pass


@order.step("ship", pivot=True)
async def ship(call: SagaCall) -> None:
    pass


@engine.event_handler("statistics", types=["item.*"], batch_count_max=2)
async def count(events: list[RecordedEvent]) -> None:
    with open("handled", "a") as out:
        out.write("".join(f"event {one.value}\\n" for one in events))


@engine.consumer("charged", group="g")
def note(id: str) -> None:
    with open("handled", "a") as out:
        out.write(f"charged {id}\\n")
"""

DYING = """
import os
import threading

threading.Timer(0.3, os._exit, [1]).start()
"""

STUCK = """
import asyncio
import time
from towline import Engine

engine = Engine("sqlite:store.db")


@engine.consumer("orders", group="g")
async def handle() -> None:
    open("started", "w").close()
    {wait}
"""


def start(folder: Path, *arguments: str, target: str = "shop:engine") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "towline", "run", target, *arguments],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_worker_handles_until_a_signal_and_exits_with_0(tmp_path: Path, workers: str) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    worker = start(tmp_path, "--workers", workers)
    assert worker.stderr is not None
    for _ in range(int(workers)):
        assert "running" in worker.stderr.readline()
    with Engine(f"sqlite:{tmp_path}/store.db") as engine:
        engine.publish("orders", "one")
        assert eventually(lambda: not any(one.waiting + one.in_flight for one in engine.backlog()))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0, worker.stderr.read()
    worker.stderr.close()
    assert (tmp_path / "handled").read_text() == "one\n"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_worker_runs_sagas_and_handlers_of_events_too(tmp_path: Path, workers: str) -> None:
    (tmp_path / "shop.py").write_text(EVERYTHING)
    worker = start(tmp_path, "--workers", workers)
    assert worker.stderr is not None
    for _ in range(int(workers)):
        assert "running" in worker.stderr.readline()
    order = Saga("order").step("charge", print, print).step("ship", print, pivot=True)
    with Engine(f"sqlite:{tmp_path}/store.db") as engine:
        engine.sagas.start(order, id="o-1")
        names = ["added", "removed", "added"]
        engine.event_store.append("cart-1", [NewEvent(f"item.{name}", name) for name in names])
        assert engine.sagas.result("order", "o-1").saga.status == "completed"
        engine.sagas.publish_event("parcel.packed", "p-1")
        assert eventually(lambda: engine.sagas.find("parcel", "p-1") is not None)
        assert engine.sagas.result("parcel", "p-1").saga.status == "completed"
        handled = tmp_path / "handled"
        assert eventually(lambda: handled.exists() and len(handled.read_text().splitlines()) == 4, 20)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0, worker.stderr.read()
    worker.stderr.close()
    lines = handled.read_text().splitlines()
    assert [line for line in lines if "event" in line] == [f"event {name}" for name in names]
    assert "charged o-1" in lines


def test_what_is_registered_starts_with_the_synchronous_engine_too(tmp_path: Path) -> None:
    engine = Engine("memory:")
    done: list[str] = []
    order = engine.saga(Saga("order"))

    @order.step("charge", pivot=True)
    def charge(call: SagaCall) -> None:
        done.append(call.step)

    @engine.event_handler("reader")
    def handle(events: list[RecordedEvent]) -> None:
        done.extend(one.type for one in events)

    with engine as opened:
        opened.sagas.start(order, id="o-1")
        opened.sagas.result("order", "o-1")
        opened.event_store.append("cart-1", [NewEvent("added", b"")])
        assert eventually(lambda: done == ["charge", "added"])


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("wait", ["await asyncio.Event().wait()", "time.sleep(600)"])
def test_a_second_signal_ends_the_worker_at_once(tmp_path: Path, wait: str, workers: str) -> None:
    (tmp_path / "shop.py").write_text(STUCK.format(wait=wait))
    worker = start(tmp_path, "--workers", workers)
    assert worker.stderr is not None
    for _ in range(int(workers)):
        assert "running" in worker.stderr.readline()
    with Engine(f"sqlite:{tmp_path}/store.db") as engine:
        engine.publish("orders", "one")
        assert eventually((tmp_path / "started").exists)
        worker.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(0.5)  # it lets its handler finish
        begin = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(10) == 1
        assert time.monotonic() - begin < 2
    worker.stderr.close()


IN_HAND = """
import asyncio
import os
import time
from towline import Engine

engine = Engine("sqlite:store.db")


def note(what: str) -> None:
    with open("handled", "a") as out:
        out.write(what + "\\n")


@engine.consumer("orders", group="g")
{handler}
"""
HANDLERS = {
    "async": """
async def handle() -> None:
    note("begin")
    while not os.path.exists("stopping"):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)  # sleeps: its work, when who does not wait for it is gone
    note("done")
""",
    "def": """
def handle() -> None:
    note("begin")
    while not os.path.exists("stopping"):
        time.sleep(0.01)
    time.sleep(0.3)  # sleeps: its work, when who does not wait for it is gone
    note("done")
""",
}


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("kind", HANDLERS)
def test_a_signal_lets_a_handler_finish_what_it_has_in_hand(tmp_path: Path, kind: str, workers: str) -> None:
    (tmp_path / "shop.py").write_text(IN_HAND.format(handler=HANDLERS[kind].strip()))
    handled = tmp_path / "handled"
    worker = start(tmp_path, "--workers", workers)
    lines = Lines(worker)
    for _ in range(int(workers)):
        lines.pid()
    with Engine(f"sqlite:{tmp_path}/store.db") as engine:
        engine.publish("orders", "one")
        assert eventually(lambda: handled.exists() and handled.read_text() == "begin\n")
        worker.send_signal(signal.SIGTERM)
        lines.next_with("stopping")
        assert worker.poll() is None and handled.read_text() == "begin\n"
        (tmp_path / "stopping").touch()
        assert worker.wait(30) == 0, lines.stream.read()
        assert handled.read_text() == "begin\ndone\n"
        assert [one.waiting + one.in_flight for one in engine.backlog()] == [0]
    lines.stream.close()


class Lines:
    """What a worker says, line by line."""

    def __init__(self, worker: subprocess.Popen[str]) -> None:
        assert worker.stderr is not None
        self.stream = worker.stderr

    def next_with(self, text: str) -> str:
        for line in self.stream:
            if text in line:
                return line
        raise AssertionError(f"it ended without saying '{text}'")

    def pid(self) -> int:
        """Of the next that runs."""
        return int(self.next_with("running, process").split()[-1])


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def test_a_worker_that_dies_is_started_again_and_the_others_go_with_who_started_them(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    worker = start(tmp_path, "--workers", "2")
    lines = Lines(worker)
    pids = [lines.pid(), lines.pid()]
    killed = pids.pop(0)
    os.kill(killed, signal.SIGKILL)
    lines.next_with(f"towline: worker {killed} was ended by SIGKILL; starting another")
    pids.append(lines.pid())
    worker.kill()
    worker.wait(30)
    assert eventually(lambda: not any(is_running(pid) for pid in pids))
    lines.stream.close()


@pytest.mark.parametrize("workers", ["1", "3"])
def test_a_signal_at_any_time_ends_all_workers(tmp_path: Path, workers: str) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    for delay in (0.2, 0.3, 0.4, 0.5):
        worker = start(tmp_path, "--workers", workers, "--reload")
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(delay)
        worker.send_signal(signal.SIGTERM)
        _, text = worker.communicate(timeout=30)
        # Before it listens itself a signal ends it as any program.
        assert worker.returncode in (0, -signal.SIGTERM) and "Traceback" not in text


def test_with_reload_a_changed_file_starts_the_workers_again_also_after_one_that_cannot_run(
    tmp_path: Path,
) -> None:
    shop = tmp_path / "shop.py"
    shop.write_text(SHOP.replace("write(order", "write('1 ' + order"))
    worker = start(tmp_path, "--reload")
    lines = Lines(worker)
    lines.pid()
    shop.write_text("engine = 5\n")
    lines.next_with("a file has changed; starting again")
    lines.next_with("shop:engine is no towline.Engine")
    # As many bytes as before, and in the same second maybe: no bytecode may hide it.
    shop.write_text(SHOP.replace("write(order", "write('2 ' + order"))
    lines.next_with("a file has changed; starting again")
    lines.pid()
    with Engine(f"sqlite:{tmp_path}/store.db") as engine:
        engine.publish("orders", "one")
        assert eventually(lambda: not any(one.waiting + one.in_flight for one in engine.backlog()))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert (tmp_path / "handled").read_text() == "2 one\n"
    lines.stream.close()


def test_what_is_no_engine_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("engine = 5\n")
    worker = start(tmp_path)
    _, text = worker.communicate(timeout=30)
    assert worker.returncode == 2 and "shop:engine is no towline.Engine" in text
    (tmp_path / "shop.py").unlink()
    worker = start(tmp_path)
    _, text = worker.communicate(timeout=30)
    assert worker.returncode == 2 and "no module 'shop'" in text
    (tmp_path / "shop.py").write_text("engine = 1 / 0\n")
    for workers in ("1", "2"):
        worker = start(tmp_path, "--workers", workers)
        _, text = worker.communicate(timeout=30)
        assert worker.returncode == 2 and "ZeroDivisionError" in text


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("./shop.py:engine", "give shop:engine"),
        ("shop.py", "give shop:engine"),
        ("app/shop.py:other", "give app.shop:other"),
        ("../shop.py", "give shop:engine in the folder .."),
    ],
)
def test_a_path_is_refused_with_the_module_to_give(tmp_path: Path, target: str, hint: str) -> None:
    worker = start(tmp_path, target=target)
    _, text = worker.communicate(timeout=30)
    assert worker.returncode == 2 and f"{target} is a path" in text and hint in text


@pytest.mark.parametrize(
    ("options", "arguments", "wait"),
    [
        ("", [], "up to 30 s"),
        ("", ["--grace", "1.5"], "up to 1.5 s"),
        (", drain_timeout=7", [], "up to 7 s"),
        ("?drain_timeout_ms=5", [], ""),
    ],
)
def test_the_log_says_what_runs_where_and_that_it_stops(
    tmp_path: Path, options: str, arguments: list[str], wait: str
) -> None:
    store = '"sqlite:store.db"'
    given = store[:-1] + options + '"' if options.startswith("?") else store + options
    (tmp_path / "shop.py").write_text(EVERYTHING.replace(store, given))
    worker = start(tmp_path, *arguments)
    lines = Lines(worker)
    line = lines.next_with("running on sqlite:store.db: ")
    for part in (
        "the consumer 'note' of 'charged' (group 'g')",
        "the handler of events 'statistics'",
        "the saga 'parcel', the saga 'order'",
    ):
        assert part in line
    lines.pid()
    worker.send_signal(signal.SIGTERM)
    stopping = f"stopping: {f'waiting {wait}'.strip()} for handlers; a second signal ends at once"
    assert stopping in lines.next_with("stopping")
    assert worker.wait(30) == 0
    lines.stream.close()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:orders.db", "sqlite:orders.db"),
        ("sqlite:/srv/orders.db?key=hunter2", "sqlite:/srv/orders.db"),
        ("redis://:hunter2@host:6379/0?password=hunter2", "redis://host:6379/0"),
        ("nats://user:hunter2@host", "nats://host"),
        ("memory:", "memory:"),
    ],
)
def test_the_log_has_no_secrets_of_the_url(url: str, shown: str) -> None:
    assert shown_url(url) == shown


def test_a_worker_that_ends_by_itself_is_told(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP + DYING)
    worker = start(tmp_path, "--workers", "2")
    lines = Lines(worker)
    assert "exited with 1; starting another" in lines.next_with("towline: worker")
    worker.send_signal(signal.SIGTERM)
    worker.wait(30)
    lines.stream.close()
    assert how_it_ended(-signal.SIGSEGV) == "was ended by SIGSEGV"
    assert how_it_ended(-40) == "was ended by signal 40"
