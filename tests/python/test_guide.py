"""The Python of docs/GUIDE.md runs as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDE = Path(__file__).resolve().parents[2] / "docs/GUIDE.md"
PROGRAMS = re.findall(r"<!-- test: python_(\w+) -->\n```python\n(.*?)```", GUIDE.read_text(), re.S)
PRINTED = {
    "events": "[(1, 'item.added', 'shoe'), (2, 'item.added', 'hat')]\n[(3, 'item.removed', 'hat')]\n"
    "cart-7 {'item': 'hat'} 3\n",
}


@pytest.mark.parametrize(("name", "program"), PROGRAMS, ids=[name for name, _ in PROGRAMS])
def test_a_program_of_the_guide_runs(name: str, program: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == PRINTED[name]
