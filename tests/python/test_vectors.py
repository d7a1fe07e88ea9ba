"""What a message becomes in a store, against the bytes that every language is held to."""

from __future__ import annotations

from pathlib import Path

from conformance.suite import TESTS, Store
from conftest import asynchronous


@asynchronous
async def test_the_rare_fields_of_a_message_have_the_bytes_of_the_vectors(tmp_path: Path) -> None:
    lines = (TESTS / "vectors" / "envelopes.txt").read_text().splitlines()
    rows = [
        ["" if field == "-" else field for field in line.split(" | ")]
        for line in lines
        if not line.startswith("#")
    ]
    store = Store("sqlite", tmp_path)
    async with store.open() as engine:
        for _, headers, content_type, correlation_id, causation_id, traceparent, _ in rows:
            await engine.publish(
                "vectors",
                b"p",
                headers=dict(pair.split("=", 1) for pair in headers.split(", ") if pair),
                content_type=content_type,
                correlation_id=correlation_id,
                causation_id=causation_id,
                traceparent=traceparent,
            )
        stored = [extras or "" for (extras,) in store.run_sql("SELECT extras FROM message ORDER BY seq")]
    assert len(rows) >= 5
    assert dict(zip((row[0] for row in rows), stored, strict=True)) == {row[0]: row[-1] for row in rows}
