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

STUCK = """
import asyncio
from towline import Engine

engine = Engine("sqlite:store.db")


@engine.consumer("orders", group="g")
async def handle() -> None:
    open("started", "w").close()
    await asyncio.Event().wait()
"""


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "towline", "run", "shop:engine", *arguments],
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


def test_a_second_signal_ends_the_worker_at_once(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(STUCK)
    worker = start(tmp_path)
    assert worker.stderr is not None
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


def test_what_is_no_engine_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("engine = 5\n")
    worker = start(tmp_path)
    _, text = worker.communicate(timeout=30)
    assert worker.returncode == 1 and "shop:engine is no towline.Engine" in text
    (tmp_path / "shop.py").unlink()
    worker = start(tmp_path)
    _, text = worker.communicate(timeout=30)
    assert worker.returncode == 1 and "no module 'shop'" in text
