"""A program of the examples, served by uvicorn."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parents[2] / "examples/python"


def until(look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 30
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.02)  # sleeps: another process is asked again
    return found


@dataclass
class Served:
    process: subprocess.Popen[bytes]
    port: int
    log: Path


@contextmanager
def served(module: str, folder: Path) -> Iterator[Served]:
    """`app` of a module, on a store in the folder, when it listens; killed at the end, wherever it is."""
    log = folder / f"log-{uuid.uuid4()}"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-X", "dev", "-m", "uvicorn", f"{module}:app", "--port", "0"],
            cwd=EXAMPLES,
            env={**os.environ, "STORE": f"sqlite:{folder}/store.db", "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=out,
            stderr=out,
        )
    try:
        listening = re.compile(r"127\.0\.0\.1:(\d+)")
        found = until(lambda: process.poll() is not None or listening.search(log.read_text()))
        assert process.poll() is None, log.read_text()
        yield Served(process, int(found[1]), log)
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        process.kill()
        process.wait()
