#!/usr/bin/env python3
"""Builds the source distribution and, from it, the wheel; installs the wheel into an empty environment and
tests it there.

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


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    words = [str(one) for one in command]
    done = subprocess.run(words, text=True, capture_output=True, env=env, cwd=cwd)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}")
    return str(done.stdout)


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}"}
    if ccache := shutil.which("ccache"):
        environment |= {
            "CMAKE_CXX_COMPILER_LAUNCHER": ccache,
            "CMAKE_C_COMPILER_LAUNCHER": ccache,
            "CCACHE_NOHASHDIR": "1",
            "CCACHE_BASEDIR": str(folder),
        }
    # In a folder of ours, so that the compiler's cache knows what it has seen.
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", folder, ROOT, env=environment)
    sdist = next(folder.glob("*.tar.gz"))
    run("tar", "-xzf", sdist, "-C", folder)
    source = next(one for one in folder.iterdir() if one.is_dir())
    run(
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        folder,
        source,
        env=environment,
    )
    wheel = next(folder.glob("*.whl"))
    run(sys.executable, "-m", "auditwheel", "repair", "-w", folder / "repaired", wheel, env=environment)
    repaired = next((folder / "repaired").glob("*.whl"))
    print(
        f"{sdist.name}: {sdist.stat().st_size >> 10} KiB; "
        f"{repaired.name}: {repaired.stat().st_size >> 10} KiB"
    )

    venv.create(folder / "empty", with_pip=True)
    python = folder / "empty/bin/python"
    run(python, "-m", "pip", "install", "--no-deps", "--disable-pip-version-check", repaired)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # Of the processor's time, since others use the machine too, the best: the first reads what was installed.
    took, of_it = min(
        tuple(float(ms) for ms in run(python, "-c", TIMED, env=clean, cwd=folder).split()) for _ in range(5)
    )
    allowed = IMPORT_MS_MAX * max(1, of_it / YARDSTICK_MS)
    print(f"import towline: {took:.0f} ms, {of_it:.0f} of them Python's own modules; at most {allowed:.0f}")
    if took > allowed:
        sys.exit(f"import towline took {took:.0f} ms; at most {allowed:.0f} are allowed")
    requirement = next(
        line
        for line in (ROOT / "deps/python-test.txt").read_text().splitlines()
        if line.startswith("pytest==")
    )
    run(python, "-m", "pip", "install", "--disable-pip-version-check", requirement)
    tests = [
        ROOT / "tests/python" / name for name in ("test_publish.py", "test_sync.py", "test_operation.py")
    ]
    out = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, env=clean, cwd=folder)
    print(out.strip().splitlines()[-1])
    print(run(folder / "empty/bin/towline", "--version", env=clean).strip())


if __name__ == "__main__":
    main()
