"""The examples do what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples/python"


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
