"""The life cycle of messages in one Python process: published in batches of 1,000, handled by a consumer
that only counts, until the last acknowledgement is durable. Started by bench_towline, which reads one line of
JSON.

    python flow.py <url> batch|call|task|publish <count>

  batch    asyncio, a batch handler
  call     without asyncio: one call of a plain function per message, 1,000 at once
  task     asyncio, one `async def` per message, 1,000 at once
  publish  without asyncio and without a consumer: one blocking publish after another, one message each
"""

from __future__ import annotations

import asyncio
import sys
import time

from measured import Measured
from towline import Engine, Message

BATCH = 1_000
AHEAD_MAX = 100_000  # as on the engine's side
ON_THE_WAY = 2  # batches, each way: while one is written the next one is made
BATCH_OF_MESSAGES = [{"topic": "bench", "payload": b"p" * 256}] * BATCH


def check(receipts: list) -> None:
    if any(receipt.outcome != "acked" or receipt.duplicate for receipt in receipts):
        raise RuntimeError("not published")


async def in_loop(url: str, handling: str, count: int) -> None:
    handled = published = 0

    async def batch(messages: list[Message]) -> None:
        nonlocal handled
        handled += len(messages)

    async def task(message: Message) -> None:
        nonlocal handled
        handled += 1

    async with Engine(url) as engine:
        if handling == "batch":
            consumer = await engine.consume("bench", batch, group="bench", batch=True, concurrency=ON_THE_WAY)
        else:
            consumer = await engine.consume(
                "bench", task, group="bench", prefetch_count=BATCH, concurrency=BATCH
            )

        async def publish(until: int) -> None:
            nonlocal published
            while published < until:
                if published > handled + AHEAD_MAX:
                    await asyncio.sleep(0)
                    continue
                published += BATCH
                check(await engine.publish_batch(BATCH_OF_MESSAGES))

        async def life(size: int) -> None:
            until = published + size
            await asyncio.gather(*(publish(until) for _ in range(ON_THE_WAY)))
            while consumer.statistics().acked < published:
                await asyncio.sleep(0.001)

        await life(min(count, 20_000))
        with Measured(count):
            await life(count)


def in_threads(url: str, count: int) -> None:
    handled = published = 0

    def call(message: Message) -> None:
        nonlocal handled
        handled += 1

    with Engine(url) as engine:
        consumer = engine.consume("bench", call, group="bench", prefetch_count=BATCH, concurrency=BATCH)

        def life(size: int) -> None:
            nonlocal published
            end = published + size
            while published < end:
                while published > handled + AHEAD_MAX:
                    time.sleep(0.0002)
                check(engine.publish_batch(BATCH_OF_MESSAGES))
                published += BATCH
            while consumer.statistics().acked < published:
                time.sleep(0.001)

        life(min(count, 20_000))
        with Measured(count):
            life(count)


def publish(url: str, count: int) -> None:
    payload = b"p" * 256
    with Engine(url) as engine:
        engine.publish("bench", payload)
        with Measured(count):
            for _ in range(count):
                engine.publish("bench", payload)


if __name__ == "__main__":
    url, handling, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if handling == "call":
        in_threads(url, count)
    elif handling == "publish":
        publish(url, count)
    else:
        asyncio.run(in_loop(url, handling, count))
