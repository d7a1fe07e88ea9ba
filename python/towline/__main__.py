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
import sys
import traceback

from towline import Engine, TowlineError, __version__
from towline._supervisor import CANNOT_RUN, SIGNALS, Supervisor

logger = logging.getLogger("towline")

# Unless the engine says otherwise (options.def).
DRAIN_TIMEOUT_MS = 30_000


class CannotRun(Exception):
    """What was given is no engine."""


def load(target: str) -> Engine:
    """`module:name` of an Engine; the current folder is searched first."""
    module_name, _, name = target.partition(":")
    if os.sep in module_name or module_name.endswith(".py"):
        path = os.path.splitext(os.path.relpath(module_name))[0]
        folder, path = os.path.split(path) if path.startswith(os.pardir) else ("", path)
        where = f" in the folder {folder}" if folder else ""
        module = path.replace(os.sep, ".")
        raise CannotRun(f"{target} is a path, not a module: give {module}:{name or 'engine'}{where}")
    sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        raise CannotRun(f"there is no module '{module_name}' here") from None
    engine = getattr(found, name or "engine", None)
    if not isinstance(engine, Engine):
        raise CannotRun(f"{target} is no towline.Engine; give module:name of one")
    return engine


def what_runs(engine: Engine) -> str:
    """For the log: the store, and what was registered."""
    at_open = engine._at_open
    parts = [
        *(one.named() for one in at_open.consumers),
        *(f"the handler of events {name!r}" for name, *_ in at_open.event_handlers),
        *(f"the saga {one.type!r}" for one in at_open.sagas),
    ]
    return f"running on {shown_url(engine._url)}: {', '.join(parts) or 'nothing is registered'}"


def shown_url(url: str) -> str:
    """Without user, password and parameters, which may be secret."""
    place = url.partition("?")[0]
    scheme, slashes, rest = place.partition("://")
    if not slashes:
        return place
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def wait_of(engine: Engine, grace: float | None) -> str:
    """How long closing waits for handlers, for the log."""
    if grace is None:
        if "drain_timeout_ms=" in engine._url:
            return "waiting"
        grace = float(dict(engine._texts).get("drain_timeout_ms", DRAIN_TIMEOUT_MS)) / 1000
    return f"waiting up to {grace:g} s"


async def serve(engine: Engine, grace: float | None, is_supervised: bool = False) -> None:
    """Until a signal, or until who supervises it is gone, which ends its standard input."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    is_asked = False

    def on_signal(*_: object) -> None:
        nonlocal is_asked
        if is_asked:
            os._exit(1)  # what handlers hold comes again when its lease has ended
        is_asked = True
        loop.call_soon_threadsafe(on_first_signal)

    def on_first_signal() -> None:
        logger.info("stopping: %s for handlers; a second signal ends at once", wait_of(engine, grace))
        stop.set()

    def on_input() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            stop.set()

    for number in SIGNALS:
        # Not by the loop, which a handler may hold up when the second one comes.
        signal.signal(number, on_signal)
    if is_supervised:
        loop.add_reader(0, on_input)
    await engine.open()
    logger.info("%s", what_runs(engine))
    logger.info("running, process %d", os.getpid())
    await stop.wait()
    if stuck := await engine.close(grace):
        print(f"towline: {stuck} handlers did not end in time; their messages went back", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        # A handler's thread that never ends must not keep the process, nor its task the loop.
        os._exit(0)


def work(target: str, grace: float | None, is_supervised: bool) -> int:
    """The exit code."""
    try:
        asyncio.run(serve(load(target), grace, is_supervised))
    except (CannotRun, TowlineError) as error:
        print(f"towline: {error}", file=sys.stderr)
        return 1 if isinstance(error, TowlineError) and error.retryable else CANNOT_RUN
    except Exception:  # of the module
        traceback.print_exc()
        return CANNOT_RUN
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="towline", description="Runs the consumers of an engine.")
    parser.add_argument("--version", action="version", version=f"towline {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the consumers of an engine until a signal")
    run.add_argument("target", help="module:name of a towline.Engine, such as shop:engine")
    run.add_argument("--workers", type=int, default=1, help="worker processes (default 1)")
    run.add_argument("--reload", action="store_true", help="start again when a Python file here changes")
    run.add_argument("--grace", type=float, help="seconds handlers get to finish (default: drain_timeout)")
    levels = list(logging.getLevelNamesMapping())
    run.add_argument("--log", default="INFO", type=str.upper, choices=levels, help="log level (default INFO)")
    run.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.basicConfig(level=arguments.log, format="%(asctime)s %(levelname)s %(message)s")
    if arguments.workers < 1:
        parser.error(f"--workers is {arguments.workers}, but must be 1 or more")
    if arguments.workers > 1 or arguments.reload:
        # With --reload no bytecode is kept, which is told from its source by whole seconds only.
        command = [sys.executable, *(["-B"] if arguments.reload else []), "-m", "towline", "run"]
        command += [arguments.target, "--log", arguments.log, "--supervised"]
        if arguments.grace is not None:
            command += ["--grace", str(arguments.grace)]
        return Supervisor(command, arguments.workers, arguments.reload).run()
    return work(arguments.target, arguments.grace, arguments.supervised)


if __name__ == "__main__":
    sys.exit(main())
