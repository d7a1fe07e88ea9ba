"""What every program here prints at its end: the line that bench_towline reads."""

from __future__ import annotations

import json
import time


class Measured:
    """Measures what is inside `with` and prints the line, for so many messages."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __enter__(self) -> None:
        self.cpu = time.process_time()
        self.start = time.perf_counter()

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            return
        seconds = time.perf_counter() - self.start
        cpu_us = (time.process_time() - self.cpu) * 1e6 / self.count
        print(json.dumps({"per_second": self.count / seconds, "cpu_us": cpu_us}), flush=True)
