"""persist-queue's queue with acknowledgements on SQLite, durable on power loss; it has no call for many at
once. Each entry is asked for behind the last one, or every look would pass over all that is acknowledged.

Each call is one commit: the queue with acknowledgements warns that it does not support auto_commit=False and
commits all the same. The queues that have it, with task_done() for many entries at once, acknowledge no
single entry and so are no peers; they are faster, but not by a multiple.

    python persist_queue.py <file> <count>
"""

from __future__ import annotations

import sys
from pathlib import Path

from persistqueue import SQLiteAckQueue

sys.path.insert(0, str(Path(__file__).parents[1]))
from measured import Measured

file, count = sys.argv[1], int(sys.argv[2])
queue = SQLiteAckQueue(file, auto_commit=True, multithreading=True)
for connection in (queue._getter, queue._putter):
    connection.execute("PRAGMA synchronous = FULL")
payload = b"p" * 256


def life(size: int) -> int:
    for _ in range(size):
        queue.put(payload)
    handled, last = 0, None
    while queue.size > 0:
        entry = queue.get(raw=True, next_in_order=last is not None, id=last)
        last = entry["pqid"]
        queue.ack(id=last)
        handled += 1
    return handled


life(min(count, 200))
with Measured(count):
    handled = life(count)
if handled != count:
    raise RuntimeError(f"{handled} of {count} entries were handled")
