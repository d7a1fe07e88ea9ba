"""Worker processes: one that dies is started again, a signal is handed on to all, and with `reload` all start
again when a file changes."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time

CANNOT_RUN = 2  # The exit code of a worker that need not be started again: what it was given cannot be run.
SIGNALS = (signal.SIGTERM, signal.SIGINT)
LOOK_INTERVAL_S = 0.5


def stamps_of(folder: str) -> dict[str, int]:
    """The Python files below a folder, and when each was changed."""
    stamps = {}
    for path, folders, files in os.walk(folder):
        folders[:] = [
            one
            for one in folders
            if not one.startswith(".")
            and one not in ("__pycache__", "node_modules")
            and not os.path.exists(os.path.join(path, one, "pyvenv.cfg"))
        ]
        for name in files:
            if name.endswith(".py"):
                try:
                    stamps[os.path.join(path, name)] = os.stat(os.path.join(path, name)).st_mtime_ns
                except OSError:
                    pass  # it went meanwhile
    return stamps


def how_it_ended(code: int) -> str:
    """Of the exit code of a process: below 0 it is a signal."""
    if code >= 0:
        return f"exited with {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


class Supervisor:
    """Runs `command` in `count` processes until a signal. Each is given a pipe as standard input, which ends
    with this process."""

    def __init__(self, command: list[str], count: int, reload: bool) -> None:
        self._command = command
        self._count = count
        self._reload = reload
        self._stamps = stamps_of(".") if reload else {}
        self._running: list[subprocess.Popen[bytes]] = []
        # Of those that are to end because a file has changed.
        self._asked: set[int] = set()
        self._signals = 0
        self._handed_on = 0
        self._cannot_run = False
        self._exit_code = 0

    def run(self) -> int:
        """The exit code."""
        woken, waker = socket.socketpair()
        woken.setblocking(False)
        waker.setblocking(False)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # A worker that dies is missed at the next look: one that dies at once does not turn in circles.
        look_at = time.monotonic()
        while not self._signals or self._running:
            if not self._signals and time.monotonic() >= look_at:
                self._look()
                look_at = time.monotonic() + LOOK_INTERVAL_S
            self._hand_on()
            if select.select([woken], [], [], LOOK_INTERVAL_S)[0]:
                woken.recv(4096)
            self._reap()
        signal.set_wakeup_fd(-1)
        return self._exit_code

    def _on_signal(self, *_: object) -> None:
        self._signals += 1

    def _look(self) -> None:
        if self._reload and (now := stamps_of(".")) != self._stamps:
            self._stamps = now
            self._cannot_run = False
            print("towline: a file has changed; starting again", file=sys.stderr, flush=True)
            for process in self._running:
                self._asked.add(process.pid)
                process.terminate()
        while not self._signals and not self._cannot_run and len(self._running) < self._count:
            # In a session of its own: what is typed at the terminal comes to this process, which hands
            # it on once.
            self._running.append(
                subprocess.Popen(self._command, stdin=subprocess.PIPE, start_new_session=True)
            )

    def _hand_on(self) -> None:
        """Here and not in the handler of the signal, which may run while a process is just being started."""
        if self._handed_on >= min(self._signals, 2):
            return
        self._handed_on = min(self._signals, 2)
        for process in self._running:
            if self._handed_on == 1:
                process.terminate()
            else:
                process.kill()  # asked twice: what handlers hold comes again
                self._exit_code = 1

    def _reap(self) -> None:
        for process in [one for one in self._running if one.poll() is not None]:
            self._running.remove(process)
            assert process.stdin is not None
            process.stdin.close()
            if self._signals:
                # Ended by a signal that came before it listened: as asked.
                self._exit_code = max(self._exit_code, process.returncode)
            elif process.returncode == CANNOT_RUN:
                self._cannot_run = True
                if not self._reload:  # with `reload` the next change may help
                    self._exit_code = CANNOT_RUN
                    self._signals = 1
            elif process.pid not in self._asked:
                end = f"worker {process.pid} {how_it_ended(process.returncode)}"
                print(f"towline: {end}; starting another", file=sys.stderr, flush=True)
            self._asked.discard(process.pid)
