"""The Python of the README and of the guide runs as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PROGRAMS = dict(
    re.findall(
        r"<!-- test: python_(\w+) -->\n```python\n(.*?)```", (ROOT / "docs/GUIDE.md").read_text(), re.S
    )
)


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


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_programs_of_the_guide_run_twice(name: str, tmp_path: Path) -> None:
    program = tmp_path / f"{name}.py"
    program.write_text(PROGRAMS[name])
    # Of a package that is installed pytest finds it itself.
    is_installed = any(one.name == "towline" for one in entry_points(group="pytest11"))
    plugin = [] if is_installed else ["-p", "towline.pytest_plugin"]
    how = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin] if "\ndef test_" in PROGRAMS[name] else []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", *how, program],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        # asyncio tells of steps of more than 0.1 s, which a busy machine makes of any.
        said = re.sub(r"^Executing .* took [\d.]+ seconds\n", "", done.stderr, flags=re.MULTILINE)
        # The log, which goes here where nobody has set it up.
        said = re.sub(r"^consumer: .*; it is dead letter .*\n", "", said, flags=re.MULTILINE)
        assert (done.returncode, said) == (0, ""), done.stdout


def test_no_python_of_the_guide_is_left_out() -> None:
    assert len(PROGRAMS) == (ROOT / "docs/GUIDE.md").read_text().count("```python\n") == 14
