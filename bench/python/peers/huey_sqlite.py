"""huey on SQLite, without results, which nobody asks for here; it has no call for many tasks at once.

    python huey_sqlite.py <file> <count> consumer|enqueue

  consumer  its own consumer runs tasks in one thread while they are put in; that is faster than taking them
            out afterwards, and than more threads, which wait for each other's transaction
  enqueue   they are only put in, one after the other

It comes with SQLite's own synchronous = FULL.
"""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path

from huey import SqliteHuey

sys.path.insert(0, str(Path(__file__).parents[1]))
from measured import Measured

logging.getLogger("huey").setLevel(logging.ERROR)
file, count, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
huey = SqliteHuey("bench", filename=file, results=False, fsync=True)
payload = b"p" * 256
handled = 0
done = threading.Event()


@huey.task()
def handle(data: bytes) -> None:
    global handled
    handled += 1
    if handled == wanted:
        done.set()


def put_in(size: int) -> None:
    for _ in range(size):
        handle(payload)


def life(size: int) -> None:
    put_in(size)
    if how == "consumer":
        done.wait()


wanted = min(count, 200)
consumer = huey.create_consumer(workers=1, periodic=False, initial_delay=0.001, max_delay=0.001)
if how == "consumer":
    consumer.start()
life(wanted)
done.clear()
wanted += count
with Measured(count):
    life(count)
if how != "enqueue" and handled != wanted:
    raise RuntimeError(f"{handled} of {wanted} tasks were handled")
if how == "consumer":
    consumer.stop(graceful=True)
