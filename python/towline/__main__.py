"""The command `towline`: runs an engine's consumers until a signal.

    towline run shop:engine --workers 4 --reload

SIGTERM and SIGINT stop intake, let handlers finish, and exit 0; a second one exits at once. Also as
`python -m towline`.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from towline import Engine, TowlineError, __version__

WATCH_INTERVAL_S = 0.5


def load(target: str) -> Engine:
    """`module:name` of an Engine; the current folder is searched first."""
    module_name, _, name = target.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        raise SystemExit(f"towline: there is no module '{module_name}' here") from None
    engine = getattr(found, name or "engine", None)
    if not isinstance(engine, Engine):
        raise SystemExit(f"towline: {target} is no towline.Engine; give module:name of one")
    return engine


async def serve(engine: Engine, grace: float | None) -> None:
    """Until a signal."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    await engine.open()
    logging.getLogger("towline").info("running, process %d", os.getpid())
    await stop.wait()
    if stuck := await engine.close(grace):
        print(f"towline: {stuck} handlers did not end in time; their messages went back", file=sys.stderr)
        sys.stderr.flush()
        # A handler's thread that never ends must not keep the process, nor its task the loop.
        os._exit(0)


def work(target: str, grace: float | None) -> int:
    try:
        asyncio.run(serve(load(target), grace))
    except TowlineError as error:
        print(f"towline: {error}", file=sys.stderr)
        return 1
    return 0


def stamps() -> dict[Path, float]:
    return {path: path.stat().st_mtime for path in Path.cwd().rglob("*.py") if path.is_file()}


class Workers:
    """Worker processes: one that dies is started again, a signal is handed on to all."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.command = [sys.executable, "-m", "towline", "run", arguments.target, "--log", arguments.log]
        if arguments.grace is not None:
            self.command += ["--grace", str(arguments.grace)]
        self.count: int = arguments.workers
        self.reload: bool = arguments.reload
        self.processes: list[subprocess.Popen[bytes]] = []
        self.signals = 0

    def on_signal(self, number: int, _: object) -> None:
        self.signals += 1
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(number)

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.on_signal)
        seen = stamps() if self.reload else {}
        while not self.signals:
            self.processes = [one for one in self.processes if one.poll() is None]
            while len(self.processes) < self.count and not self.signals:
                self.processes.append(subprocess.Popen(self.command, start_new_session=True))
            time.sleep(WATCH_INTERVAL_S)
            if self.reload and (now := stamps()) != seen:
                seen = now
                print("towline: a file has changed; starting again", file=sys.stderr)
                self.stop()
        return max((process.wait() for process in self.processes), default=0)

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(prog="towline", description="Runs the consumers of an engine.")
    parser.add_argument("--version", action="version", version=f"towline {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the consumers of an engine until a signal")
    run.add_argument("target", help="module:name of a towline.Engine, such as shop:engine")
    run.add_argument("--workers", type=int, default=1, help="worker processes (default 1)")
    run.add_argument("--reload", action="store_true", help="start again when a Python file here changes")
    run.add_argument("--grace", type=float, help="seconds handlers get to finish (default: drain_timeout)")
    run.add_argument("--log", default="INFO", help="log level (default INFO)")
    arguments = parser.parse_args()
    logging.basicConfig(level=arguments.log.upper(), format="%(asctime)s %(levelname)s %(message)s")
    if arguments.workers < 1:
        parser.error(f"--workers is {arguments.workers}, but must be 1 or more")
    if arguments.workers > 1 or arguments.reload:
        return Workers(arguments).run()
    return work(arguments.target, arguments.grace)


if __name__ == "__main__":
    sys.exit(main())
