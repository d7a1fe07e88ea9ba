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

from towline import Engine

SHOP = """
from towline import Engine

engine = Engine("sqlite:store.db")


@engine.consumer("orders", group="g")
async def handle(order: str) -> None:
    with open("handled", "a") as out:
        out.write(order + "\\n")
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
