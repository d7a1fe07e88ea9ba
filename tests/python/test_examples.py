"""The examples do what they say."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from served import EXAMPLES, served, until


def test_the_reminders_come_in_the_order_of_their_times(tmp_path: Path) -> None:
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-X", "dev", EXAMPLES / "reminders.py", "2"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "waiting: 3\nthe walk is done\nAda: call Charles\nAda: the tea is ready\n"


def test_the_shop_on_fastapi_takes_bills_and_mends_orders_and_ends_at_a_signal(tmp_path: Path) -> None:
    with served("fastapi_shop", tmp_path) as server:
        def call(method: str, where: str, body: Any = None, **headers: str) -> tuple[int, Any]:
            request = urllib.request.Request(
                f"http://127.0.0.1:{server.port}{where}",
                None if body is None else json.dumps(body).encode(),
                {"content-type": "application/json", **headers},
                method=method,
            )
            try:
                with urllib.request.urlopen(request, timeout=10) as response:
                    return response.status, json.loads(response.read())
            except urllib.error.HTTPError as refused:
                return refused.code, json.loads(refused.read())

        order = {"customer": "ada", "amount": 10}
        status, taken = call("POST", "/orders", order, **{"idempotency-key": "k"})
        assert status == 202
        assert call("POST", "/orders", order, **{"idempotency-key": "k"}) == (200, taken)
        until(lambda: call("GET", f"/orders/{taken['id']}")[1] == {"state": "billed", "amount": 10})

        assert call("POST", "/orders", {"customer": "bob"})[0] == 422
        _, bad = call("POST", "/orders", {"customer": "bob", "amount": -1})
        (entry,) = until(lambda: call("GET", "/dead-letters")[1])
        assert entry["error"] == "the amount must be more than 0"
        assert json.loads(entry["order"]) == {"customer": "bob", "amount": -1}
        where = f"/dead-letters/{entry['id']}/redrive"
        assert call("POST", where, {"customer": "bob", "amount": 1}) == (202, None)
        until(lambda: call("GET", f"/orders/{bad['id']}")[1]["state"] == "billed")
        assert call("POST", "/dead-letters/x/redrive", order) == (400, {"code": "ERR_INVALID_ID"})
        assert call("GET", "/health") == (200, {"ok": True, "detail": ""})

        server.process.send_signal(signal.SIGTERM)
        # uvicorn ends itself by the signal once everything is closed.
        assert server.process.wait(30) in (0, -signal.SIGTERM)
        assert "closed\n" in server.log.read_text()
