"""Reminders from a plain script, without an event loop: delayed messages, one of them taken back, received
one by one. `python reminders.py [seconds]` (default 2) in any folder; reminders.db there keeps them, and
what is not due when the script ends is there the next time.
"""

from __future__ import annotations

import sys

from towline import Engine


def main(wait: float) -> None:
    with Engine("sqlite:reminders.db") as engine:
        tea = engine.publish("reminders", {"for": "Ada", "text": "the tea is ready"}, delay=wait / 2)
        engine.publish("reminders", {"for": "Ada", "text": "call Charles"}, delay=wait / 4)
        walk = engine.publish("reminders", {"for": "Ada", "text": "go for a walk"}, delay=3600)
        print("waiting:", len(engine.pending("reminders").items))
        print("the walk is", engine.cancel(walk.id))
        with engine.subscribe("reminders", group="script") as reminders:
            while (message := reminders.receive(timeout=wait)) is not None:
                print(f"{message.value['for']}: {message.value['text']}")
                message.ack()
                if message.id == tea.id:
                    break


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 2)
