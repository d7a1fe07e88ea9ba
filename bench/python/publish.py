"""Publishes so many messages in batches of 1,000, for a consumer in Node: publish.py <url> <count>."""

import sys

from towline import Engine

url, count = sys.argv[1], int(sys.argv[2])
batch = [{"topic": "bench", "payload": b"p" * 256}] * 1_000
with Engine(url) as engine:
    for _ in range(count // 1_000):
        assert all(receipt.outcome == "acked" for receipt in engine.publish_batch(batch))
