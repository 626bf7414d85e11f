"""Who removes routes of ours: the kernel writes the port of the socket that asked into each
notification, and a port can be traced to a process while that runs.

The first netlink socket of a process has the process's id as its port, others have made up ones
(net/netlink/af_netlink.c, netlink_autobind); /proc/net/netlink has the inode of each. What has
ended, or is in another pid namespace, has no name here. What the kernel does by itself (a link that
goes takes its routes along) has port 0 and is nobody's.
"""

from __future__ import annotations

import contextlib
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

MOST = 256  # bursts that are remembered
BURST_SECONDS = 1.0  # that removals by the same program may be apart and count as once
NETLINK_ROUTE = "0"
UNKNOWN = "a program that has ended"


@dataclass(frozen=True, slots=True)
class Removal:
    """Routes of ours, or next hop objects, that somebody removed within a moment. `first` and
    `last` are seconds of a monotonic clock; `pid` is 0 where it is not known."""

    program: str
    pid: int
    first: float
    last: float
    count: int = 1


class Removals:
    """`recent`: the last bursts, oldest first."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self.recent: deque[Removal] = deque(maxlen=MOST)
        self._proc = proc
        self._port = 0  # of the last burst

    def note(self, port: int, now: float) -> bool:
        """One removal by the socket of that port; whether it begins a burst."""
        if self.recent and port == self._port:
            last = self.recent[-1]
            if now - last.last < BURST_SECONDS:
                self.recent[-1] = replace(last, last=now, count=last.count + 1)
                return False
        self._port = port
        program, pid = self._owner(port)
        self.recent.append(Removal(program, pid, now, now))
        return True

    def _owner(self, port: int) -> tuple[str, int]:
        inode = self._inode(port)
        if not inode:
            return UNKNOWN, 0
        for pid in (port, *self._pids()):
            with contextlib.suppress(OSError, ValueError):
                for descriptor in (self._proc / str(pid) / "fd").iterdir():
                    if str(descriptor.readlink()) == f"socket:[{inode}]":
                        comm = (self._proc / str(pid) / "comm").read_text(encoding="utf-8")
                        return comm.strip(), pid
        with contextlib.suppress(OSError):  # its files are not ours to see: it is its first socket
            return (self._proc / str(port) / "comm").read_text(encoding="utf-8").strip(), port
        return UNKNOWN, 0

    def _pids(self) -> list[int]:
        return [int(one.name) for one in self._proc.iterdir() if one.name.isdigit()]

    def _inode(self, port: int) -> str:
        """Of the socket of rtnetlink with that port, "" if there is none any more."""
        with contextlib.suppress(OSError):
            lines = (self._proc / "net/netlink").read_text(encoding="ascii").splitlines()
            for line in lines[1:]:
                fields = line.split()
                if fields[1] == NETLINK_ROUTE and fields[2] == str(port):
                    return fields[-1]
        return ""
