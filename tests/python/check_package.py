#!/usr/bin/env python3
"""Builds the source distribution and, from it, the wheel, as pip does: with nothing but what it declares to
need. Installs the wheel into an empty environment and tests it there, and the source distribution into
another.

    check_package.py <folder for what is built>
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# On a machine that takes as long as that for the modules of Python that every asyncio program needs; on a
# slower one in proportion.
IMPORT_MS_MAX = 100
YARDSTICK_MS = 30
TIMED = """
import time
begun = time.process_time()
import asyncio, dataclasses, inspect, json, logging
of_it = time.process_time() - begun
import towline
print((time.process_time() - begun) * 1000, of_it * 1000)
"""
# pip, whose temporary folders have the same names each time: a compiler's cache knows files by their paths.
PIP = """
import itertools, runpy, tempfile
tempfile._get_candidate_names = lambda: map(str, itertools.count())
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
# Its tests need no more than these, but for those of the examples.
NEEDED = ("pytest", "pytest-xdist", "msgspec", "pydantic")
LEFT_OUT = ("conformance", "test_chat_example.py", "test_examples.py")
PROGRAM = """
from towline import Engine
got = []
with Engine("sqlite:store.db") as engine:
    engine.consume("orders", got.append, group="g")
    engine.publish("orders", {"id": 1})
    engine.settle_down()
assert got == [{"id": 1}], got
"""


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    words = [str(one) for one in command]
    done = subprocess.run(words, text=True, capture_output=True, env=env, cwd=cwd)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}")
    return str(done.stdout)


def pip(python: str | Path, *arguments: str | Path, env: dict[str, str]) -> None:
    folder = Path(env["TMPDIR"])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    run(python, "-c", PIP, *arguments, "--disable-pip-version-check", env=env)


def check_import(python: Path, env: dict[str, str], folder: Path) -> None:
    # Of the processor's time, since others use the machine too, the best: the first reads what was installed.
    took, of_it = min(
        tuple(float(ms) for ms in run(python, "-c", TIMED, env=env, cwd=folder).split()) for _ in range(5)
    )
    allowed = IMPORT_MS_MAX * max(1, of_it / YARDSTICK_MS)
    print(f"import towline: {took:.0f} ms, {of_it:.0f} of them Python's own modules; at most {allowed:.0f}")
    if took > allowed:
        sys.exit(f"import towline took {took:.0f} ms; at most {allowed:.0f} are allowed")


def check_wheel(wheel: Path, env: dict[str, str], folder: Path) -> None:
    venv.create(folder / "empty", with_pip=True)
    python = folder / "empty/bin/python"
    run(python, "-m", "pip", "install", "--no-deps", "--disable-pip-version-check", wheel)
    check_import(python, env, folder)
    pinned = [
        line
        for line in (ROOT / "deps/python-test.txt").read_text().splitlines()
        if line.partition("==")[0] in NEEDED
    ]
    assert len(pinned) == len(NEEDED), pinned
    run(python, "-m", "pip", "install", "--disable-pip-version-check", *pinned)
    tests = ROOT / "tests/python"
    left_out = [f"--ignore={tests / name}" for name in LEFT_OUT]
    options = ("-q", "-p", "no:cacheprovider", "-n", "2", *left_out)
    out = run(python, "-m", "pytest", *options, tests, env=env, cwd=folder)
    print(out.strip().splitlines()[-1])
    print(run(folder / "empty/bin/towline", "--version", env=env).strip())


def check_sdist(sdist: Path, building: dict[str, str], env: dict[str, str], folder: Path) -> None:
    venv.create(folder / "of-source", with_pip=True)
    python = folder / "of-source/bin/python"
    pip(python, "install", sdist, env=building)
    run(python, "-X", "dev", "-c", PROGRAM, env=env, cwd=folder)
    print(f"of {sdist.name}: {run(folder / 'of-source/bin/towline', '--version', env=env).strip()}")


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    scripts = Path(sys.executable).parent
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    building = {**env, "PATH": f"{scripts}:{os.environ['PATH']}", "TMPDIR": str(folder / "tmp")}
    if ccache := shutil.which("ccache"):
        building |= {
            "CMAKE_CXX_COMPILER_LAUNCHER": ccache,
            "CMAKE_C_COMPILER_LAUNCHER": ccache,
            "CCACHE_NOHASHDIR": "1",
            "CCACHE_BASEDIR": str(folder),
        }
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", folder, ROOT, env=env)
    sdist = next(folder.glob("*.tar.gz"))
    pip(sys.executable, "wheel", "--no-deps", "-w", folder, sdist, env=building)
    wheel = next(folder.glob("*.whl"))
    repaired = folder / "repaired"
    with_tools = {**env, "PATH": building["PATH"]}
    run(sys.executable, "-m", "auditwheel", "repair", "-w", repaired, wheel, env=with_tools)
    wheel = next(repaired.glob("*.whl"))
    print(f"{sdist.name}: {sdist.stat().st_size >> 10} KiB; {wheel.name}: {wheel.stat().st_size >> 10} KiB")
    check_wheel(wheel, env, folder)
    check_sdist(sdist, building, env, folder)


if __name__ == "__main__":
    main()
