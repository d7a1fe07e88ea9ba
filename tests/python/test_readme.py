"""The Python of the README runs as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_quick_start_runs_twice(tmp_path: Path) -> None:
    blocks = re.findall(r"<!-- test: python_quick_start -->\n```python\n(.*?)```", README.read_text(), re.S)
    assert len(blocks) == 1
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-c", blocks[0]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "bill o-1, attempt 1\nbill o-2, attempt 2\n0\n"
