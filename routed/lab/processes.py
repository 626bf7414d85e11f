"""Processes of the lab: started into a session of their own, found again and stopped by pid."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from routed.lab.fabric import LabError

STOP_SECONDS = 8.0


def wait_for(what: str, condition: Callable[[], bool], seconds: float = 20.0) -> float:
    """Wait until `condition`; the seconds it took. LabError names `what` past the deadline."""
    began = time.monotonic()
    while True:
        with contextlib.suppress(LabError):
            if condition():
                return time.monotonic() - began
        if time.monotonic() - began > seconds:
            raise LabError(f"cannot go on: {what} did not happen in {seconds:g} s")
        time.sleep(0.05)


def free_port() -> int:
    """One of loopback that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def resident(pid: int) -> int:
    """The memory of a process, in KiB (proc(5))."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0])


def cpu_seconds(pid: int) -> float:
    """What all threads of a process have used so far (its schedstat, in nanoseconds)."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text(encoding="ascii").split()[0]) for task in tasks) / 1e9


class Process:
    """One program of the lab; its pid and log are files, so that another command finds it.

    `ready` is a socket that it makes when it can be used; `start` then waits for that.
    """

    def __init__(self, name: str, words: list[str], directory: Path) -> None:
        self.name = name
        self.words = words
        self.log = directory / f"{name}.log"
        self.pid_file = directory / f"{name}.pid"
        self.ready: Path | None = None
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The pid while it runs, and is still the process that was started."""
        try:
            pid, started = self.pid_file.read_text(encoding="ascii").split()
        except (FileNotFoundError, ValueError):
            return None
        return int(pid) if _started(int(pid)) == started else None

    def start(self) -> None:
        """Start it; no-op while it runs."""
        if self.pid is not None:
            return
        if self._child is not None:
            self._child.wait()  # one that ended by itself must still be reaped
        if self.ready is not None:
            self.ready.unlink(missing_ok=True)  # of one that was killed
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                self.words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        pid = self._child.pid
        self.pid_file.write_text(f"{pid} {_started(pid)}", encoding="ascii")
        if self.ready is not None:
            wait_for(f"{self.name} making {self.ready}", self.ready.exists)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Signal it and wait until it is gone; SIGKILL past the deadline."""
        pid = self.pid
        if pid is None:
            if self._child is not None:
                self._child.wait()  # it ended by itself: it must still be reaped
            return
        self._signal(pid, number)
        deadline = time.monotonic() + STOP_SECONDS
        while self._alive():
            if time.monotonic() > deadline:
                self._signal(pid, signal.SIGKILL)
            time.sleep(0.02)
        self.pid_file.unlink(missing_ok=True)

    def kill(self) -> None:
        """`kill -9`."""
        self.stop(signal.SIGKILL)

    def signal(self, number: int) -> None:
        pid = self.pid
        if pid is not None:
            self._signal(pid, number)

    def _alive(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        return self.pid is not None

    @staticmethod
    def _signal(pid: int, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _started(pid: int) -> str:
    """When the process began (clock ticks after boot, proc(5)); empty if it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]
