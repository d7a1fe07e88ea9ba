"""A worker that stands in the way, or does not, while another process works on the same file.

blocked.py <url> <topic> blocked|idle is started by bench_towline: it says "ready", and in the end how often
its two messages were handled.

blocked: its handler keeps the GIL, without using a processor, until its input ends.
idle: nothing comes for it.
"""

import ctypes
import sys
import time

from towline import Engine

url, topic, how = sys.argv[1:]
mine = topic if how == "blocked" else "idle"
handled = 0


def ready() -> None:
    print("ready", flush=True)


with Engine(url) as engine:

    def handle() -> None:
        global handled
        handled += 1
        if how != "blocked" or handled > 1:
            return
        ready()
        ctypes.PyDLL(None).read(0, ctypes.create_string_buffer(1), 1)  # PyDLL: without letting go of the GIL

    consumer = engine.consume(mine, handle, group="bench")
    # One for the handler and one that is held for it: it takes no more, whoever publishes.
    engine.publish_batch([{"topic": mine, "payload": b"p" * 256}] * 2)
    while consumer.statistics().acked < 2:
        time.sleep(0.001)
    if how == "idle":
        ready()
        sys.stdin.read()
print(handled)
